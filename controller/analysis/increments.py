"""From raw cumulative counters to disjoint intervals that may be compared.

Only increases of single series are ever taken: rate() extrapolates, a difference of sums
mistakes a reset for traffic, and overlapping windows count the same error several times.
A series that was not there before and appears later counts from 0, because a canary's error
series are all new and their first errors matter most.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

STEP_BACK = 0.75
"""A counter that falls to less than this of what it was began anew. One that falls by less was answered by another
replica of the metrics server, whose clock is behind: counted as a restart it would bring its whole past into a step.
Clocks 5 s apart show in counters that are 20 s old and more; a process that began anew and is past three quarters of
it by the next scrape costs what it had counted, once."""


class Sample(msgspec.Struct, frozen=True):
    """One scraped value of one cumulative counter. `target` is what was scraped, `t` in Unix seconds."""

    series: str
    t: float
    value: float
    target: str = ""


class Counts(msgspec.Struct, frozen=True):
    """Requests of one arm, and how many of them were bad (failed, or slower than the bound)."""

    requests: float = 0.0
    errors: float = 0.0

    @property
    def ratio(self) -> float:
        """Bad requests as a fraction from 0 to 1; 0 without requests."""
        return self.errors / self.requests if self.requests else 0.0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.requests + other.requests, self.errors + other.errors)


class Arms(msgspec.Struct, frozen=True):
    """The same metric on both sides of the comparison."""

    canary: Counts = Counts()
    baseline: Counts = Counts()

    def __add__(self, other: Arms) -> Arms:
        ours, theirs, more_ours, more_theirs = self.canary, self.baseline, other.canary, other.baseline
        return Arms(
            Counts(ours.requests + more_ours.requests, ours.errors + more_ours.errors),
            Counts(theirs.requests + more_theirs.requests, theirs.errors + more_theirs.errors),
        )

    def faded(self, keep: float) -> Arms:
        """The same counts, worth `keep` times as much."""
        c, b = self.canary, self.baseline
        return Arms(Counts(c.requests * keep, c.errors * keep), Counts(b.requests * keep, b.errors * keep))


class Slower(msgspec.Struct, frozen=True):
    """Requests slower than each of several bounds, the lowest bound first; of the same requests as in `Arms`."""

    canary: tuple[float, ...]
    baseline: tuple[float, ...]


class Interval(msgspec.Struct, frozen=True):
    """What happened between two scrapes, by metric; follows the previous interval without overlap.

    Pods are counts of ready pods with traffic, 0 where nobody knows. `age` is the age of the
    youngest canary pod at `end`, in seconds; `ages` those of all that are ready, empty where nobody knows.
    """

    start: float
    end: float
    metrics: dict[str, Arms]
    canary_pods: int = 0
    baseline_pods: int = 0
    age: float = math.inf
    slower: dict[str, Slower] = {}
    """By metric, for latencies that are compared at several bounds."""
    ages: tuple[float, ...] = ()

    def share_of(self, age: float) -> float:
        """How many of the canary's pods are as old as that, as a share of all; 0 or 1 where only the youngest is known.

        >>> Interval(0.0, 5.0, {}, age=5.0, ages=(5.0, 60.0, 90.0, 90.0)).share_of(30.0)
        0.75
        """
        if self.age >= age or not self.ages:
            return float(self.age >= age)
        return sum(one >= age for one in self.ages) / len(self.ages)


class NoData(msgspec.Struct, frozen=True):
    """Nothing to compare, and why: never a pass, never a fail. What was missed is in the next interval."""

    reason: str


class ArmSamples(msgspec.Struct, frozen=True):
    """Raw samples of one arm, any order, any overlap with what was seen before.

    Bad requests are counted by `bad`, or as `total` minus `good` where `good` is given (the
    bucket of a histogram). An absent `bad` series means no errors, an absent `total` no data.
    """

    total: list[Sample]
    bad: list[Sample] = []
    good: list[Sample] | None = None
    slower: tuple[list[Sample], ...] = ()
    """bad at each of several bounds of a latency, the lowest first"""


class Scrape(msgspec.Struct, frozen=True):
    """Everything one look at the metric source brought, by metric, as (canary, baseline)."""

    metrics: dict[str, tuple[ArmSamples, ArmSamples]]
    canary_pods: int = 0
    baseline_pods: int = 0
    age: float = math.inf
    ages: tuple[float, ...] = ()


class _Series(msgspec.Struct, frozen=True, array_like=True):
    t: float
    value: float


class _Arm(msgspec.Struct, frozen=True):
    """Where one arm was read up to: end of the last interval, last value by series, targets seen."""

    end: float
    series: dict[str, _Series] = {}
    targets: frozenset[str] = frozenset()


class Cursor(msgspec.Struct, frozen=True):
    """What has been counted so far. Kept in memory: after a restart begin again at the checkpoint.

    `since` is when the canary's pods were created, or after a restart the end of the last
    interval that was judged. Samples up to it only say where counters stood.
    """

    since: float
    arms: dict[str, tuple[_Arm, _Arm]] = {}
    end: float | None = None


def difference(cursor: Cursor, scrape: Scrape) -> tuple[Cursor, Interval | NoData]:
    """Count what is new since `cursor`, on both arms or not at all.

    A metric takes part when both arms have a newer sample; else its cursor stays, and the
    next increase covers both scrapes.

    >>> def arm(*values): return ArmSamples([Sample("requests", t, v) for t, v in values])
    >>> seen = Scrape({"errors": (arm((5, 40.0)), arm((0, 900.0), (5, 1000.0)))})
    >>> _, found = difference(Cursor(since=0.0), seen)
    >>> found.metrics["errors"].canary.requests, found.metrics["errors"].baseline.requests
    (40.0, 100.0)
    """
    arms = dict(cursor.arms)
    counted: dict[str, Arms] = {}
    slower: dict[str, Slower] = {}
    ends: list[float] = []
    reason = "NoMetrics"
    for metric, (canary, baseline) in scrape.metrics.items():
        before = cursor.arms.get(metric, (_Arm(cursor.since), _Arm(cursor.since)))
        if _same_series(canary, baseline):
            reason = "ArmsReadSameSeries"
            continue
        # Counters of the canary's pods cannot be older than the pods: what is new there starts from 0.
        ours, canary_counts, canary_slower = _count(before[0], canary, newborn_targets=True)
        theirs, baseline_counts, baseline_slower = _count(before[1], baseline, newborn_targets=False)
        if canary_counts is None or baseline_counts is None:
            reason = "NoCanaryData" if canary_counts is None else "NoBaselineData"
            continue
        arms[metric] = (ours, theirs)
        counted[metric] = Arms(canary_counts, baseline_counts)
        if canary_slower and baseline_slower:
            slower[metric] = Slower(canary_slower, baseline_slower)
        ends.append(ours.end)
    if not counted:
        return cursor, NoData(reason)
    start = cursor.since if cursor.end is None else cursor.end
    end = max(ends)
    interval = Interval(start, end, counted, scrape.canary_pods, scrape.baseline_pods, scrape.age, slower, scrape.ages)
    return Cursor(cursor.since, arms, end), interval


def canary_alone(cursor: Cursor, scrape: Scrape) -> tuple[Cursor, dict[str, Counts]]:
    """Count what is new of the canary since `cursor`, by metric, while the baseline has no data.

    What comes back is another cursor: the one that both arms are compared by stays where it was.

    >>> def arm(*values): return ArmSamples([Sample("requests", t, v) for t, v in values])
    >>> canary_alone(Cursor(since=0.0), Scrape({"errors": (arm((5, 40.0)), arm())}))[1]
    {'errors': Counts(requests=40.0, errors=0.0)}
    """
    arms, counted, ends = dict(cursor.arms), {}, []
    for metric, (canary, _) in scrape.metrics.items():
        before = cursor.arms.get(metric, (_Arm(cursor.since), _Arm(cursor.since)))
        ours, counts, _ = _count(before[0], canary, newborn_targets=True)
        if counts is not None:
            arms[metric] = (ours, before[1])
            counted[metric] = counts
            ends.append(ours.end)
    return (Cursor(cursor.since, arms, max(ends)) if ends else cursor), counted


def _same_series(canary: ArmSamples, baseline: ArmSamples) -> bool:
    """A query that ignores its revision label compares a thing with itself, and always passes."""
    ours = {(s.series, s.target, s.t, s.value) for s in canary.total}
    return bool(ours) and ours == {(s.series, s.target, s.t, s.value) for s in baseline.total}


def _count(
    before: _Arm, samples: ArmSamples, *, newborn_targets: bool
) -> tuple[_Arm, Counts | None, tuple[float, ...]]:
    total = _usable(samples.total)
    fresh = [s.t for s in total if s.t > before.end]
    if not fresh:
        return before, None, ()
    if samples.good is not None and not any(s.t > before.end for s in _usable(samples.good)):
        return before, None, ()
    end = max(fresh)
    known = before.targets | {s.target for s in total if s.t <= before.end}
    series = dict(before.series)

    def increase(role: str, of: Iterable[Sample]) -> float:
        return _increase(role, of, before.end, end, series, None if newborn_targets else known)

    requests = increase("total", total)
    if samples.good is None:
        errors = increase("bad", _usable(samples.bad))
    else:
        errors = max(requests - increase("good", _usable(samples.good)), 0.0)
    # An error counter may be seen a moment before the request counter of the same scrape.
    counts = Counts(max(requests, errors), errors)
    slower = tuple(min(increase(f"slower{number}", _usable(of)), requests) for number, of in enumerate(samples.slower))
    return _Arm(end, series, known | {s.target for s in total if s.t <= end}), counts, slower


def _usable(samples: Iterable[Sample]) -> list[Sample]:
    """Oldest first; a value that is not a finite count is no data, not a reset."""
    return sorted((s for s in samples if math.isfinite(s.value) and s.value >= 0), key=lambda s: s.t)


def _increase(
    role: str,
    samples: Iterable[Sample],
    begin: float,
    end: float,
    series: dict[str, _Series],
    known: frozenset[str] | None,
) -> float:
    """Sum of the increases in (begin, end]; moves `series` on. `known` None: every new target starts from 0."""
    grown = 0.0
    for s in samples:
        if s.t > end:
            continue
        key = f"{role}\0{s.target}\0{s.series}"
        last = series.get(key)
        if last is not None and s.t <= last.t:
            continue
        reached = s.value
        if last is not None:
            began_anew = s.value < last.value * STEP_BACK
            reached = s.value if began_anew else max(s.value, last.value)
            grown += (reached if began_anew else reached - last.value) if s.t > begin else 0.0
        elif s.t > begin and (known is None or s.target in known):
            grown += s.value
        series[key] = _Series(s.t, reached)
    return grown
