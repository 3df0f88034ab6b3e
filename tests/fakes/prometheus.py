"""A scripted Prometheus: real HTTP, series as given, faults on order.

It evaluates what the source asks (one selector with a range, or `count by (le)` of one) in its own few
lines, so that a query that selects too much or too little shows.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType

from aiohttp import web

Points = Sequence[tuple[float, float | str | dict[str, object]]]
"""(instant, value); a native histogram as the API writes it is a dict"""
_MATCHER = re.compile(r'([a-zA-Z_]\w*)(=~|!~|!=|=)"((?:[^"\\]|\\.)*)"')
_RANGE = re.compile(r"^(?P<name>[a-zA-Z_:]\w*)?\{(?P<inside>.*)\}\[(?P<span>\d+)ms\]$")
_STEPS = re.compile(r"^\{(?P<inside>.*)\}\[(?P<span>\d+)ms:(?P<step>\d+)ms\]$")
_SUMS = re.compile(
    r"^\(sum by \((?P<label>\w+)\) \((?P<rate>rate\()?(?P<name>[a-zA-Z_:]\w*)\{(?P<inside>.*)\}"
    r"(?:\[(?P<window>\d+)ms\]\))?\)\)\[(?P<span>\d+)ms:(?P<step>\d+)ms\]$"
)
_INSTANT = re.compile(r"^(?P<name>[a-zA-Z_:]\w*)\{(?P<inside>.*)\}$")
_EXIST = re.compile(r"^count\((?P<name>[a-zA-Z_:]\w*)\{(?P<inside>.*)\}(?P<positive> > 0)?\)$")
_COUNT = re.compile(r"^count by \(le\) \((?P<name>[a-zA-Z_:]\w*)\{(?P<inside>.*)\}\)$")


LOOKBACK = 300.0
"""seconds for which Prometheus shows a sample that no newer one follows"""


class Fault(Enum):
    """What the server does instead of answering well."""

    NONE = "answers"
    SLOW = "does not answer in time"
    DRIPPING = "sends a byte now and then"
    TRUNCATED = "ends in the middle of the body"
    UNAVAILABLE = "answers 503"
    ONCE_UNAVAILABLE = "answers 503, then well"
    REFUSED = "answers 400"
    WARNINGS = "answers with warnings"
    REDIRECT = "sends the client elsewhere"
    NOT_JSON = "answers with a page"
    OTHER_JSON = "answers with something else"
    HUGE = "answers with more than anybody can hold"


@dataclass
class Scripted:
    """One series: its points, or a function of (since, until] that makes them."""

    labels: dict[str, str]
    points: Points | Callable[[float, float], Points]

    def between(self, since: float, until: float) -> list[list[object]]:
        """As the API writes them: instants as numbers, values as text."""
        points = self.points(since, until) if callable(self.points) else self.points
        return [[t, repr(float(v)) if isinstance(v, int | float) else v] for t, v in points if since < t <= until]


@dataclass
class FakePrometheus:
    """`async with FakePrometheus() as server: server.put(...)`; then ask `server.url`."""

    fault: Fault = Fault.NONE
    series: list[Scripted] = field(default_factory=list)
    queries: list[dict[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    date: str = ""
    """the Date header, where it is to lie"""
    instead: str = ""
    """what every sample says, where it is to be no number"""
    scraped_until: float = math.inf
    """there is no sample after this instant"""
    url: str = ""
    hold: asyncio.Event | None = None
    """when given, no answer before it is set"""
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    """set with the first query"""
    _runner: web.AppRunner | None = None

    def put(self, name: str, points: Points | Callable[[float, float], Points], **labels: str) -> Scripted:
        """Add a series."""
        scripted = Scripted({"__name__": name, **labels}, points)
        self.series.append(scripted)
        return scripted

    async def __aenter__(self) -> FakePrometheus:
        app = web.Application()
        app.router.add_get("/api/v1/query", self._query)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _query(self, request: web.Request) -> web.StreamResponse:
        self.queries.append(dict(request.query))
        self.headers.append(dict(request.headers))
        self.asked.set()
        if self.hold is not None:
            await self.hold.wait()
        headers = {"Date": self.date} if self.date else {}
        match self.fault:
            case Fault.SLOW:
                await asyncio.sleep(600)
            case Fault.DRIPPING | Fault.HUGE | Fault.TRUNCATED:
                return await self._stream(request)
            case Fault.UNAVAILABLE:
                return web.Response(status=503, text="secret words of the server")
            case Fault.ONCE_UNAVAILABLE:
                self.fault = Fault.NONE
                return web.Response(status=503)
            case Fault.REFUSED:
                return web.json_response({"status": "error", "error": "secret words of the server"}, status=400)
            case Fault.REDIRECT:
                raise web.HTTPFound("/elsewhere")
            case Fault.NOT_JSON:
                return web.Response(text="<html>secret words of the server</html>")
            case Fault.OTHER_JSON:
                return web.json_response({"data": ["secret words of the server"]})
        body = {"status": "success", "data": self._evaluate(request.query["query"], float(request.query["time"]))}
        if self.fault is Fault.WARNINGS:
            body["warnings"] = ["one store did not answer"]
        return web.json_response(body, headers=headers)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if self.fault is Fault.TRUNCATED:
            response.content_length = 1000
        await response.prepare(request)
        await response.write(b'{"status": "success", "data": {"resultType": "matrix", "result": [')
        if self.fault is Fault.TRUNCATED:
            assert request.transport is not None
            request.transport.close()
            return response
        try:
            for _ in range(600):
                await response.write(b" " * (1 if self.fault is Fault.DRIPPING else 1024 * 1024))
                await asyncio.sleep(0.1 if self.fault is Fault.DRIPPING else 0)
        except ConnectionError:
            pass
        return response

    def _evaluate(self, query: str, at: float) -> dict[str, object]:
        if found := _COUNT.match(query):
            selected = self._select(found["name"], found["inside"])
            bounds = sorted({each.labels["le"] for each in selected if "le" in each.labels})
            result: list[object] = [{"metric": {"le": bound}, "value": [at, "1"]} for bound in bounds]
            return {"resultType": "vector", "result": result}
        if found := _EXIST.match(query):
            newest = [each.between(at - LOOKBACK, at)[-1:] for each in self._select(found["name"], found["inside"])]
            count = sum(bool(last) and not (found["positive"] and float(str(last[0][1])) <= 0) for last in newest)
            counted: list[object] = [{"metric": {}, "value": [at, str(count)]}] if count else []
            return {"resultType": "vector", "result": counted}
        if found := _SUMS.match(query):
            return self._sums(found, at)
        if found := _INSTANT.match(query):
            newest = {id(each): each.between(at - LOOKBACK, at)[-1:] for each in self.series}
            selected = [each for each in self._select(found["name"], found["inside"]) if newest[id(each)]]
            result = [{"metric": each.labels} | _as_written(newest[id(each)], one=True) for each in selected]
            return {"resultType": "vector", "result": result}
        if found := _STEPS.match(query):
            result = [
                {"metric": each.labels} | _as_written(values)
                for each in self._select(None, found["inside"])
                if (values := _at_steps(each, found, at))
            ]
            return {"resultType": "matrix", "result": result}
        found = _RANGE.match(query)
        assert found is not None, f"not a query this server knows: {query}"
        since = at - int(found["span"]) / 1000
        result = [
            {"metric": each.labels} | _as_written([[t, self.instead or value] for t, value in values])
            for each in self._select(found["name"], found["inside"])
            if (values := each.between(since, min(at, self.scraped_until)))
        ]
        return {"resultType": "matrix", "result": result}

    def _sums(self, found: re.Match[str], at: float) -> dict[str, object]:
        summed: dict[str, dict[float, float]] = {}
        for each in self._select(found["name"], found["inside"]):
            of = summed.setdefault(each.labels.get(found["label"], ""), {})
            for t, value in _rates(each, found, at) if found["rate"] else _at_steps(each, found, at):
                of[t] = of.get(t, 0.0) + float(str(value))
        result = [
            {"metric": {found["label"]: name}, "values": [[t, repr(value)] for t, value in sorted(values.items())]}
            for name, values in summed.items()
            if values
        ]
        return {"resultType": "matrix", "result": result}

    def _select(self, name: str | None, inside: str) -> list[Scripted]:
        conditions = [(label, op, json.loads(f'"{value}"')) for label, op, value in _MATCHER.findall(inside)]
        if name:
            conditions.append(("__name__", "=", name))
        return [each for each in self.series if all(_holds(each.labels, *one) for one in conditions)]


def _as_written(pairs: Sequence[Sequence[object]], *, one: bool = False) -> dict[str, object]:
    """Numbers and native histograms apart, as the API has them; or the newest of either."""
    numbers = [list(pair) for pair in pairs if not isinstance(pair[1], dict)]
    natives = [list(pair) for pair in pairs if isinstance(pair[1], dict)]
    if one:
        return {"histogram": natives[-1]} if natives else {"value": numbers[-1]}
    return ({"values": numbers} if numbers else {}) | ({"histograms": natives} if natives else {})


def _at_steps(each: Scripted, found: re.Match[str], at: float) -> list[tuple[float, object]]:
    """As a subquery reads it: at whole steps, the newest sample of the five minutes before."""
    step, begin = int(found["step"]) / 1000, at - int(found["span"]) / 1000
    samples = each.between(begin - LOOKBACK, at)
    times = [float(str(when)) for when, _ in samples]
    values = []
    for number in range(math.floor(begin / step) + 1, math.floor(at / step) + 1):
        newest = bisect_right(times, number * step) - 1
        if newest >= 0 and times[newest] > number * step - LOOKBACK:
            values.append((number * step, samples[newest][1]))
    return values


def _rates(each: Scripted, found: re.Match[str], at: float) -> list[tuple[float, object]]:
    """The increase a second over the window before each whole step, of a counter that never falls."""
    step, begin = int(found["step"]) / 1000, at - int(found["span"]) / 1000
    window = int(found["window"]) / 1000
    values: list[tuple[float, object]] = []
    for number in range(math.floor(begin / step) + 1, math.floor(at / step) + 1):
        seen = each.between(number * step - window, number * step)
        if len(seen) > 1:
            (first, low), (last, high) = ([float(str(part)) for part in seen[place]] for place in (0, -1))
            values.append((number * step, repr((high - low) / (last - first))))
    return values


def _holds(labels: dict[str, str], label: str, operator: str, value: str) -> bool:
    found = labels.get(label, "")
    same = found == value if operator in ("=", "!=") else re.fullmatch(value, found) is not None
    return same is not operator.startswith("!")
