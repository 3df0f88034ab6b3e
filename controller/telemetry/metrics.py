"""The controller's metrics, one declaration each. `docs/metrics.md` has the same list, and a test compares the two.

The one thing to know: what is counted comes from decisions, at the moment they have been carried out; what is
gauged is read from the caches when somebody scrapes, so a scrape asks the API server nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controller.model.origin import Origin
from controller.model.status import ACTIVE, Attempt, Outcome, Phase, Status
from controller.ports import Ref
from controller.rollout.moves import Become, Decision, Wait, move_of

CONTENT_TYPE = CONTENT_TYPE_LATEST
LAG_EVERY = 1.0
"""seconds between two looks at how late the event loop is"""

TURN_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
LAG_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15)
RELIEF_BUCKETS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600)
ROLLOUT_BUCKETS = (60, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400)

disable_created_metrics()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Shown:
    """One Canary as the cache has it: its name and its status as the API server sends it."""

    namespace: str
    name: str
    status: dict[str, Any]


@dataclass(frozen=True)
class Inside:
    """What a scrape reads from the running process."""

    canaries: Callable[[], Iterable[Shown]] = tuple
    canaries_as_of: Callable[[], object] = object
    """what differs once any Canary has changed"""
    watches: Callable[[], Iterable[tuple[str, float, int]]] = tuple
    """resource, seconds since the API server was last heard of on its watch, and objects that could not be read"""
    queued: Callable[[], int] = lambda: 0
    lease_left: Callable[[], float] = lambda: 0.0
    """seconds in which this process may still write as the leader; 0 when it is not"""


@dataclass
class Metrics:
    """Every metric of the process."""

    version: str = "dev"
    inside: Inside = field(default_factory=Inside)
    registry: CollectorRegistry = field(default_factory=lambda: CollectorRegistry(auto_describe=True))
    of_canaries: CollectorRegistry = field(default_factory=lambda: CollectorRegistry(auto_describe=True))

    def __post_init__(self) -> None:
        registry = self.registry
        ProcessCollector(registry=registry)
        built = Gauge(
            "serin_build_info", "Always 1; the label says which Serin this is.", ["version"], registry=registry
        )
        built.labels(self.version).set(1)
        self.turns = Counter("serin_turns_total", "Looks at one Canary.", registry=registry)
        self.failures = Counter(
            "serin_turn_failures_total", "Looks that ended in an error, by its class.", ["error"], registry=registry
        )
        self.seconds = Histogram(
            "serin_turn_seconds",
            "Seconds of one look, from reading to writing.",
            buckets=TURN_BUCKETS,
            registry=registry,
        )
        self.lag = Histogram(
            "serin_loop_lag_seconds",
            "Seconds by which the event loop was late, looked at every second.",
            buckets=LAG_BUCKETS,
            registry=registry,
        )
        self.moves = Counter(
            "serin_moves_total",
            "Changes of memory (Become) and acts on the world, by move and reason.",
            ["move", "reason"],
            registry=registry,
        )
        self.started = Counter("serin_rollouts_started_total", "Attempts begun.", ["origin"], registry=registry)
        self.ended = Counter(
            "serin_rollouts_ended_total", "Attempts ended, by outcome.", ["outcome", "origin"], registry=registry
        )
        self.retreats = Counter(
            "serin_retreats_total", "Times a canary was taken off traffic for now.", ["origin"], registry=registry
        )
        self.lasted = Histogram(
            "serin_rollout_seconds",
            "Seconds from the beginning of an attempt to its end.",
            ["outcome"],
            buckets=ROLLOUT_BUCKETS,
            registry=registry,
        )
        self.relief = Histogram(
            "serin_relief_seconds",
            "Seconds from the first bad sample of an attempt to weight 0 in force.",
            buckets=RELIEF_BUCKETS,
            registry=registry,
        )
        registry.register(_Now(self.inside))
        self.of_canaries.register(_Canaries(self.inside))
        self._told: tuple[object, bytes] = (None, b"")
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """A series that appears at 1 has not risen, as far as Prometheus knows: the first event would be lost."""
        for origin in Origin:
            self.started.labels(origin.value)
            self.retreats.labels(origin.value)
            for outcome in Outcome:
                self.ended.labels(outcome.value, origin.value)
        for outcome in Outcome:
            self.lasted.labels(outcome.value)

    def decided(self, ref: Ref, before: Status, decision: Decision) -> None:
        """Count what a decision came to, once it has been carried out."""
        if isinstance(decision, Wait):
            return
        self.moves.labels(move_of(decision), decision.reason).inc()
        if not isinstance(decision, Become) or decision.status.attempt is None:
            return
        after, attempt = decision.status, decision.status.attempt
        if begins(before, attempt):
            self.started.labels(attempt.origin).inc()
        if after.phase is Phase.RETREATED and before.phase is not Phase.RETREATED:
            self.retreats.labels(attempt.origin).inc()
        if ends(before, attempt):
            outcome = str(attempt.outcome)
            self.ended.labels(outcome, attempt.origin).inc()
            assert attempt.sealed_at is not None
            self.lasted.labels(outcome).observe((attempt.sealed_at - attempt.started_at).total_seconds())
            if attempt.seconds_to_relief is not None:
                self.relief.observe(attempt.seconds_to_relief)

    def failed(self, error: BaseException) -> None:
        """Count a look that ended in an error."""
        self.failures.labels(type(error).__name__).inc()

    async def watch_lag(self) -> None:
        """Measure for ever how late the event loop is."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_EVERY
            await asyncio.sleep(LAG_EVERY)
            self.lag.observe(max(0.0, loop.time() - due))

    def render(self) -> bytes:
        """What a scrape gets. A thousand Canaries are 40 ms of work, which is done once for each change of any."""
        as_of = self.inside.canaries_as_of()
        if as_of != self._told[0]:
            self._told = (as_of, generate_latest(self.of_canaries))
        return generate_latest(self.registry) + self._told[1]


def begins(before: Status, attempt: Attempt) -> bool:
    """Whether this change of memory begins `attempt`."""
    return before.attempt is None or before.attempt.id != attempt.id


def ends(before: Status, attempt: Attempt) -> bool:
    """Whether this change of memory ends `attempt`: its end is remembered once."""
    was = before.attempt
    already = was is not None and was.id == attempt.id and was.sealed_at is not None
    return attempt.sealed_at is not None and attempt.outcome is not None and not already


class _Looked(Collector):
    """Gauges that are looked up at a scrape."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside

    def describe(self) -> Iterator[Metric]:
        yield from self._families().values()

    def _families(self) -> dict[str, GaugeMetricFamily]:
        raise NotImplementedError


class _Now(_Looked):
    """What is so at the moment of a scrape."""

    def collect(self) -> Iterator[Metric]:
        found = self._families()
        left = self._inside.lease_left()
        found["serin_leading"].add_metric([], float(left > 0))
        found["serin_lease_left_seconds"].add_metric([], left)
        found["serin_queue_keys"].add_metric([], self._inside.queued())
        for resource, age, unreadable in self._inside.watches():
            found["serin_watch_age_seconds"].add_metric([resource], age)
            found["serin_unreadable_objects"].add_metric([resource], unreadable)
        yield from found.values()

    def _families(self) -> dict[str, GaugeMetricFamily]:
        made = [
            GaugeMetricFamily("serin_leading", "1 while this process holds the Lease."),
            GaugeMetricFamily(
                "serin_lease_left_seconds", "Seconds in which this process may still write as the leader."
            ),
            GaugeMetricFamily("serin_queue_keys", "Canaries that wait for a look."),
            GaugeMetricFamily(
                "serin_watch_age_seconds", "Seconds since a watch was last heard of.", labels=["resource"]
            ),
            GaugeMetricFamily(
                "serin_unreadable_objects",
                "Objects whose shape is unknown, and which are left alone.",
                labels=["resource"],
            ),
        ]
        return {one.name: one for one in made}


class _Canaries(_Looked):
    """What is so of each Canary."""

    def collect(self) -> Iterator[Metric]:
        found = self._families()
        phases: Tally[str] = Tally()
        for canary in self._inside.canaries():
            phases[_count(canary, found)] += 1
        for phase in Phase:
            found["serin_canaries"].add_metric([phase.value], phases[phase.value])
        yield from found.values()

    def _families(self) -> dict[str, GaugeMetricFamily]:
        which = ["namespace", "canary"]
        made = [
            GaugeMetricFamily("serin_canaries", "Canaries by phase.", labels=["phase"]),
            GaugeMetricFamily(
                "serin_canary_info",
                "1 for each Canary, with its phase, its reason and the origin of its last change.",
                labels=[*which, "phase", "reason", "origin"],
            ),
            GaugeMetricFamily("serin_canary_edits_held", "1 while a dry run proved that edits are held.", labels=which),
            GaugeMetricFamily(
                "serin_canary_weight_percent", "Percent of requests the canary is authorised to have.", labels=which
            ),
            GaugeMetricFamily(
                "serin_canary_waiting_since_seconds",
                "Unix time since when a rollout waits for a person, by what it waits for.",
                labels=[*which, "on"],
            ),
            GaugeMetricFamily(
                "serin_canary_judged",
                "What the analysis said last that was remembered, number by number; metric is the one that says most.",
                labels=[*which, "metric", "number"],
            ),
            GaugeMetricFamily(
                "serin_record_head",
                "Number of the newest sealed release record; the label is its hash, which proves all before it.",
                labels=[*which, "hash"],
            ),
        ]
        return {one.name: one for one in made}


WAITS = ("AwaitingApproval", "Paused", "Frozen")
"""conditions that only a person or a calendar ends"""


def _count(canary: Shown, found: dict[str, GaugeMetricFamily]) -> str:
    """Add one Canary's samples; the answer is its phase. A status nobody of ours wrote counts as Pending."""
    status, which = canary.status, [canary.namespace, canary.name]
    phase = status.get("phase")
    phase = phase if phase in set(Phase) else Phase.PENDING.value
    attempt = status.get("attempt") or {}
    info = [*which, phase, str(status.get("reason") or ""), str(attempt.get("origin") or "")]
    found["serin_canary_info"].add_metric(info, 1.0)
    found["serin_canary_edits_held"].add_metric(which, float(status.get("editsHeld") is True))
    head = status.get("head") or {}
    if head.get("number"):
        found["serin_record_head"].add_metric([*which, str(head.get("hash") or "")], float(head["number"]))
    if phase in ACTIVE:
        found["serin_canary_weight_percent"].add_metric(which, float(status.get("weight") or 0.0))
        judged = attempt.get("judged") or {}
        for number, value in (judged.get("numbers") or {}).items():
            found["serin_canary_judged"].add_metric([*which, str(judged.get("metric") or ""), number], float(value))
        for condition in status.get("conditions") or ():
            if condition.get("type") in WAITS and condition.get("status") == "True":
                since = datetime.fromisoformat(str(condition.get("lastTransitionTime"))).timestamp()
                found["serin_canary_waiting_since_seconds"].add_metric([*which, condition["type"]], since)
    return phase
