"""Kubernetes Events: told to whoever watches the object, never in the way of what they are about.

`emit` only puts a note on a bounded queue and cannot fail. The same note again raises a count instead of making a
new object, an object that talks too much is cut off, and what is dropped is counted.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import structlog

from controller.errors import AlreadyExists, ApiThrottled, ApiUnavailable, NotFound, SerinError
from controller.kube.objects import Reference
from controller.kube.resources import EVENTS
from controller.kube.transport import Api

log = structlog.get_logger()

EventType = Literal["Normal", "Warning"]

_NOTE_BYTES = 1024
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class EventLimits:
    """How much telling is enough. One object may tell `burst` different things, then one each `refill` seconds."""

    waiting: int = 1000
    remembered: int = 4000
    burst: int = 25
    refill: float = 20.0
    series_after: float = 30.0
    """A repeated note is written at most this often; what comes between is in the next count."""
    forget_after: float = 1800.0
    """Less than the hour after which the API server itself forgets an Event."""


@dataclass(frozen=True, slots=True)
class _Note:
    about: Reference
    reason: str
    message: str
    type: EventType
    action: str


@dataclass(slots=True)
class _Series:
    """One Event object, and how often its note came."""

    name: str
    count: int = 0
    written: bool = False
    written_at: float = float("-inf")
    queued: bool = False


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class EventRecorder:
    """Call `emit` from anywhere on the event loop; `run` writes until it is cancelled."""

    def __init__(self, api: Api, component: str, instance: str, *, limits: EventLimits = EventLimits()) -> None:
        self.dropped = 0
        self._api = api
        self._component, self._instance = component, instance
        self._limits = limits
        self._queue: asyncio.Queue[_Note] = asyncio.Queue(limits.waiting)
        self._series: OrderedDict[_Note, _Series] = OrderedDict()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def emit(
        self, about: Reference, reason: str, message: str, type: EventType = "Normal", *, action: str = "Reconcile"
    ) -> None:
        """Tell once. Cheap, never waits, never raises."""
        note = _Note(about, reason[:128], _shortened(message), type, action[:128])
        series = self._series.get(note)
        now = _time()
        if series is None or (series.written and now - series.written_at > self._limits.forget_after):
            if not self._may_speak(note.about, now):
                self.dropped += 1
                return
            series = self._series[note] = _Series(_name_for(about))
            _bound(self._series, self._limits.remembered)
        self._series.move_to_end(note)
        series.count += 1
        if not series.queued:
            self._enqueue(note, series)

    async def run(self) -> None:
        """Write what was emitted, one at a time."""
        while True:
            note = await self._queue.get()
            await self._write_due(note)
            self._queue.task_done()

    async def flush(self, timeout: float) -> None:
        """Wait until what was emitted is written, at most `timeout` seconds. `run` must still be running."""
        try:
            async with asyncio.timeout(timeout):
                await self._queue.join()
        except TimeoutError:
            self.dropped += self._queue.qsize()

    def _enqueue(self, note: _Note, series: _Series) -> None:
        """Now, or when the last write of this note is long enough ago."""
        series.queued = True
        wait = series.written_at + self._limits.series_after - _time()
        if wait <= 0:
            self._put(note)
        else:
            asyncio.get_running_loop().call_later(wait, self._put, note)

    def _put(self, note: _Note) -> None:
        try:
            self._queue.put_nowait(note)
        except asyncio.QueueFull:
            self.dropped += 1
            if series := self._series.get(note):
                series.queued = False

    async def _write_due(self, note: _Note) -> None:
        series = self._series.get(note)
        if series is None:
            return
        series.queued = False
        try:
            await self._with_patience(lambda: self._write(note, series))
        except SerinError as error:
            self.dropped += 1
            log.warning("event_not_written", about=note.about.name, reason=note.reason, error=str(error))

    async def _with_patience(self, write: Callable[[], Any]) -> None:
        """A few tries when the API server is busy: an Event is not worth more."""
        for attempt in range(_ATTEMPTS):
            try:
                await write()
                return
            except (ApiUnavailable, ApiThrottled) as error:
                if attempt == _ATTEMPTS - 1:
                    raise
                await asyncio.sleep(min(getattr(error, "retry_after", 0.5), 5.0))

    async def _write(self, note: _Note, series: _Series) -> None:
        namespace = note.about.namespace or "default"
        count, now = series.count, _stamp()
        if series.written:
            try:
                patch = {"series": {"count": count, "lastObservedTime": now}}
                await self._api.merge_patch(EVENTS, namespace, series.name, patch)
            except NotFound:
                series.name, series.written = _name_for(note.about), False
        if not series.written:
            # One that exists already is ours: the reply to the first try was lost.
            with suppress(AlreadyExists):
                await self._api.create(EVENTS, namespace, self._render(note, series, namespace, now))
        series.written, series.written_at = True, _time()

    def _render(self, note: _Note, series: _Series, namespace: str, now: str) -> dict[str, Any]:
        body: dict[str, Any] = {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"name": series.name, "namespace": namespace},
            "eventTime": now,
            "reportingController": self._component,
            "reportingInstance": self._instance[:128],
            "action": note.action,
            "reason": note.reason,
            "type": note.type,
            "note": note.message,
            "regarding": {
                "apiVersion": note.about.api_version,
                "kind": note.about.kind,
                "name": note.about.name,
                "namespace": note.about.namespace,
                "uid": note.about.uid,
            },
        }
        if series.count > 1:
            body["series"] = {"count": series.count, "lastObservedTime": now}
        return body

    def _may_speak(self, about: Reference, now: float) -> bool:
        key = about.uid or f"{about.kind}/{about.namespace}/{about.name}"
        bucket = self._buckets.setdefault(key, _Bucket(self._limits.burst, now))
        bucket.tokens = min(self._limits.burst, bucket.tokens + (now - bucket.filled_at) / self._limits.refill)
        bucket.filled_at = now
        self._buckets.move_to_end(key)
        _bound(self._buckets, self._limits.remembered)
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True


def _name_for(about: Reference) -> str:
    return f"{about.name[:200]}.{secrets.token_hex(8)}"


def _bound(kept: OrderedDict[Any, Any], limit: int) -> None:
    while len(kept) > limit:
        kept.popitem(last=False)


def _shortened(message: str) -> str:
    """The API server refuses a note of more than 1 KiB."""
    if len(message.encode()) <= _NOTE_BYTES:
        return message
    return message.encode()[: _NOTE_BYTES - 3].decode("utf-8", "ignore") + "…"


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _time() -> float:
    return asyncio.get_running_loop().time()
