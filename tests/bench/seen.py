"""What is seen of the cluster from outside the controller: two watches, and the API server's audit log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.cluster.api import Api, Object
from tests.cluster.audit import entries

CANARIES = "/apis/serin.dev/v1alpha1/canaries"
ROUTES = "/apis/gateway.networking.k8s.io/v1/httproutes"
CONTROLLER = "system:serviceaccount:serin-system:serin-controller"
READS = frozenset({"get", "list", "watch"})


@dataclass(frozen=True)
class Seen:
    """One version of a Canary's status, or a weight of its route."""

    at: float
    status: Object = field(default_factory=dict)
    weight: float | None = None

    @property
    def phase(self) -> str:
        return str(self.status.get("phase", "Pending"))

    @property
    def attempt(self) -> Object:
        return dict(self.status.get("attempt") or {})


class Timeline:
    """`async with Timeline(api) as seen:` remembers each status and each weight, with the time it arrived here."""

    def __init__(self, api: Api, on_weight: Callable[[str, str, float, float], None] | None = None) -> None:
        self._api = api
        self._on_weight = on_weight
        self._watching: list[asyncio.Task[None]] = []
        self._news = asyncio.Event()
        self.statuses: dict[str, list[Seen]] = {}
        self.weights: dict[str, list[Seen]] = {}

    async def __aenter__(self) -> Self:
        for path, note in ((CANARIES, self._note_status), (ROUTES, self._note_weight)):
            listed = await self._api.call("GET", path)
            for item in listed["items"]:
                note(item)
            self._watching.append(asyncio.create_task(self._watch(path, note, listed["metadata"]["resourceVersion"])))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)

    def status(self, key: str) -> Object:
        seen = self.statuses.get(key)
        return dict(seen[-1].status) if seen else {}

    def weight(self, key: str) -> float:
        seen = self.weights.get(key)
        return (seen[-1].weight or 0.0) if seen else 0.0

    async def until(self, check: Callable[[], Any], within: float, what: str) -> Any:
        """Look at each arrival until `check` returns something true."""
        try:
            async with asyncio.timeout(within):
                while not (found := check()):
                    self._news.clear()
                    await self._news.wait()
                return found
        except TimeoutError:
            latest = {key: one[-1].status.get("reason") or one[-1].phase for key, one in self.statuses.items()}
            raise TimeoutError(f"not within {within:.0f} s: {what}; the Canaries say {str(latest)[:2000]}") from None

    async def _watch(self, path: str, note: Callable[[Object], None], version: str) -> None:
        while True:
            async for event in self._api.watch(path, version):
                version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] in {"ADDED", "MODIFIED"}:
                    note(event["object"])
                    self._news.set()

    def _note_status(self, canary: Object) -> None:
        self.statuses.setdefault(_key(canary), []).append(Seen(time.time(), canary.get("status") or {}))

    def _note_weight(self, route: Object) -> None:
        backends = route["spec"]["rules"][0]["backendRefs"]
        weights = {one["name"]: one.get("weight", 1) for one in backends}
        name = route["metadata"]["name"]
        percent = round(100 * weights.get(f"{name}-canary", 0) / max(sum(weights.values()), 1), 2)
        known = self.weights.setdefault(_key(route), [])
        if not known or known[-1].weight != percent:
            known.append(Seen(time.time(), weight=percent))
            if self._on_weight is not None:
                self._on_weight(route["metadata"]["namespace"], name, percent, known[-1].at)


@dataclass(frozen=True)
class Request:
    """One request of the controller."""

    at: float
    verb: str
    what: str
    namespace: str
    name: str
    code: int
    dry_run: bool = False


def requests(state: Path, since: float, until: float) -> list[Request]:
    """What both replicas asked of the API server in a span of time; oldest first."""
    found = []
    for entry in entries(state, CONTROLLER):
        about = entry.get("objectRef") or {}
        at = datetime.fromisoformat(entry["requestReceivedTimestamp"]).timestamp()
        if entry["user"]["username"] != CONTROLLER or not since <= at < until:
            continue
        what = "/".join(filter(None, (about.get("resource"), about.get("subresource"))))
        code = (entry.get("responseStatus") or {}).get("code", 0)
        dry_run = "dryRun" in entry["requestURI"]
        where = (about.get("namespace", ""), about.get("name", ""))
        found.append(Request(at, entry["verb"], what, *where, code, dry_run))
    return sorted(found, key=lambda one: one.at)


def writes(state: Path, since: float, until: float) -> list[Request]:
    """Those that were to change something, the lease left out."""
    asked = requests(state, since, until)
    return [one for one in asked if one.verb not in READS and not one.dry_run and one.what != "leases"]


def _key(item: Object) -> str:
    return f"{item['metadata']['namespace']}/{item['metadata']['name']}"
