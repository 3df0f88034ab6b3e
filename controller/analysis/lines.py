"""What the lines of `python -m controller.analysis` may say: their fields, and what is refused with the field's name.

A line that is refused changes nothing, so numbers that no counter, clock or plan can have are refused here, before
anything is reckoned with them: one that slips through would be evidence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec

from controller.analysis import histogram
from controller.analysis.histogram import Native
from controller.analysis.retreat import LEAST_WEIGHT

KINDS = ("errors", "latency", "ratio", "gauge")
CHOICES = {"onTrip": ("confirm", "rollback"), "onInconclusive": ("hold", "advance"), "advance": ("baked", "early")}
ORIGINS = ("human", "automation", "mixed", "unknown", "ai")
LARGEST_COUNT = 2.0**53
"""The next count has no number of its own: increases would be noise."""
LONGEST = 1e9
"""Seconds that anything may last, some thirty years."""
FARTHEST = 1e13
"""Seconds that `t` may be away from 0: Unix time fits, and instants milliseconds apart differ."""
MOST_PODS = 1_000_000
SMALLEST, LARGEST = 1e-6, 1e6
"""Between these are the settings that only have a scale."""


class BadLine(ValueError):
    """A line that cannot be meant: which field, what was found, and what to write."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}" if field else problem)
        self.field = field


class Step(msgspec.Struct, frozen=True):
    """One step: percent of the requests, and seconds it lasts at least."""

    weight: float
    bake: float


class PlannedMetric(msgspec.Struct, frozen=True, rename="camel"):
    """One metric: `kind` errors, ratio (any bad of all), latency or gauge.

    A latency is compared at the bounds that suit the baseline; `threshold`, one of its bucket bounds in
    seconds, makes it that bound alone. `objective` is the largest bad ratio that is fine at all.
    """

    kind: str = "errors"
    margin: float | None = None
    threshold: float | None = None
    warmup: float | None = None
    weight: float | None = None
    objective: float | None = None


class Plan(msgspec.Struct, frozen=True, rename="camel"):
    """The first line of a rollout."""

    steps: list[Step]
    metrics: dict[str, PlannedMetric] = msgspec.field(default_factory=lambda: {"errors": PlannedMetric()})
    origin: str = "unknown"
    false_rollback_rate: float = 0.01
    min_requests: float = 100.0
    refill: float = 0.05
    scrape: float | None = None
    """Seconds from one line to the next; learned from the lines where it is not given."""
    on_trip: str = "confirm"
    on_inconclusive: str = "hold"
    advance: str = "baked"


class PodLine(msgspec.Struct, frozen=True):
    """Cumulative counters of one pod."""

    requests: float
    errors: float = 0.0


class ArmLine(msgspec.Struct, frozen=True):
    """Cumulative counters of one arm, as a scrape shows them; `age` is that of its youngest pod, in seconds."""

    requests: float
    errors: float = 0.0
    pods: int = 0
    age: float | None = None
    by_pod: dict[str, PodLine] = {}


class MetricArm(msgspec.Struct, frozen=True):
    """One further metric of one arm, in the shape of its kind."""

    buckets: dict[str, float] = {}
    """latency: cumulative counts by upper bound in seconds"""
    native: Native | None = None
    """latency: a native histogram"""
    requests: float | None = None
    bad: float = 0.0
    """ratio: cumulative counters"""
    values: dict[str, float] = {}
    """gauge: the value of each pod"""


class MetricLine(msgspec.Struct, frozen=True):
    """One further metric on both arms."""

    canary: MetricArm | None = None
    baseline: MetricArm | None = None


class Line(msgspec.Struct, frozen=True):
    """One scrape. `weight` is what was in force since the last line, by default what was asked for."""

    t: float
    baseline: ArmLine | None = None
    canary: ArmLine | None = None
    weight: float | None = None
    ready: bool = True
    generation: int = 0
    metrics: dict[str, MetricLine | None] = {}


def check_plan(plan: Plan) -> None:
    """Raises: BadLine: a plan that cannot be played."""
    if not plan.steps:
        raise BadLine("plan.steps", "needs at least one step")
    before = 0.0
    for number, step in enumerate(plan.steps):
        path = f"plan.steps[{number}]"
        if step.weight < before:
            raise BadLine(f"{path}.weight", f"is {step.weight:g}, must not be below the {before:g} before")
        _within(f"{path}.weight", step.weight, LEAST_WEIGHT, 100.0, "percent")
        _within(f"{path}.bake", step.bake, 0.0, LONGEST, "seconds")
        before = step.weight
    if not any(one.kind != "gauge" for one in plan.metrics.values()):
        raise BadLine("plan.metrics", "needs at least one metric that is not a gauge: gauges only advise")
    if plan.origin not in ORIGINS:
        raise BadLine("plan.origin", f"is {plan.origin}, must be one of {', '.join(ORIGINS)}")
    if not 0 < plan.false_rollback_rate < 1:
        raise BadLine("plan.falseRollbackRate", f"is {plan.false_rollback_rate:g}, must be between 0 and 1")
    _within("plan.refill", plan.refill, SMALLEST, LARGEST)
    _within("plan.scrape", plan.scrape, SMALLEST, LONGEST, "seconds")
    _within("plan.minRequests", plan.min_requests, 0.0, LARGEST_COUNT)
    chosen = {"onTrip": plan.on_trip, "onInconclusive": plan.on_inconclusive, "advance": plan.advance}
    for name, found in chosen.items():
        if found not in CHOICES[name]:
            raise BadLine(f"plan.{name}", f"is {found}, must be {' or '.join(CHOICES[name])}")
    for name, one in plan.metrics.items():
        _check_metric(f"plan.metrics.{name}", one)


def _check_metric(path: str, one: PlannedMetric) -> None:
    if one.kind not in KINDS:
        raise BadLine(f"{path}.kind", f"is {one.kind}, must be one of {', '.join(KINDS)}")
    if one.margin is not None and not 0 <= one.margin < 1:
        raise BadLine(f"{path}.margin", f"is {one.margin:g}, must be a fraction from 0 to 1")
    _within(f"{path}.warmup", one.warmup, 0.0, LONGEST, "seconds")
    _within(f"{path}.weight", one.weight, SMALLEST, LARGEST)
    _within(f"{path}.threshold", one.threshold, SMALLEST, LARGEST, "seconds")
    _within(f"{path}.objective", one.objective, 0.0, 1.0, "the largest share of bad requests that is fine,")


def _within(field: str, value: float | None, least: float, most: float, what: str = "") -> None:
    if value is not None and not least <= value <= most:
        what = f"{what} " if what else ""
        raise BadLine(field, f"is {value:g}, must be {what}from {least:g} to {most:g}")


def check_line(line: Line) -> None:
    """Raises: BadLine: numbers that no clock and no counter can have."""
    if not -FARTHEST <= line.t <= FARTHEST:
        raise BadLine("t", f"is {line.t:g}, must be seconds from {-FARTHEST:g} to {FARTHEST:g}")
    if line.weight is not None and not 0 <= line.weight <= 100:
        raise BadLine("weight", f"is {line.weight:g}, must be from 0 to 100")
    if not 0 <= line.generation <= LARGEST_COUNT:
        raise BadLine("generation", f"{_found(line.generation)}, must be 0 or more, and one more with each replacement")
    for name, arm in (("canary", line.canary), ("baseline", line.baseline)):
        if arm is None:
            continue
        if not 0 <= arm.pods <= MOST_PODS:
            raise BadLine(f"{name}.pods", f"{_found(arm.pods)}, must be from 0 to {MOST_PODS:,}")
        if arm.age is not None and not 0 <= arm.age <= FARTHEST:
            raise BadLine(f"{name}.age", f"is {arm.age:g}, must be seconds, 0 or more, of its youngest pod")
        if not (0 <= arm.requests <= LARGEST_COUNT and 0 <= arm.errors <= LARGEST_COUNT):
            _check_counts(name, {"requests": arm.requests, "errors": arm.errors})
        for pod, of in arm.by_pod.items():
            if not (0 <= of.requests <= LARGEST_COUNT and 0 <= of.errors <= LARGEST_COUNT):
                _check_counts(f"{name}.by_pod.{pod}", {"requests": of.requests, "errors": of.errors})
    for path, arms in _metric_arms(line):
        _check_metric_arm(path, arms)


def _found(number: int) -> str:
    """Thousands of digits would be an error of their own."""
    return f"is {number}" if abs(number) < LARGEST_COUNT else "has far too many digits"


def _metric_arms(line: Line) -> Iterator[tuple[str, MetricArm]]:
    for name, one in line.metrics.items():
        for arm, of in (("canary", one.canary), ("baseline", one.baseline)) if one is not None else ():
            if of is not None:
                yield f"metrics.{name}.{arm}", of


def _check_metric_arm(path: str, of: MetricArm) -> None:
    _check_counts(path, {"requests": of.requests or 0.0, "bad": of.bad})
    _check_counts(f"{path}.buckets", of.buckets)
    for bound in of.buckets:
        if not _is_bound(bound):
            raise BadLine(f"{path}.buckets.{bound}", 'is no upper bound in seconds, such as "0.25" or "+Inf"')
    for pod, value in of.values.items():
        if abs(value) > LARGEST_COUNT**2:
            raise BadLine(f"{path}.values.{pod}", f"is {value:g}, which is more than anything has")
    if of.native is not None and (wrong := histogram.problem_of_native(of.native)):
        field, _, problem = wrong.partition(": ")
        raise BadLine(f"{path}.native{field}", problem)


def _check_counts(path: str, counts: dict[str, float]) -> None:
    """Negative ones would be taken for a reset, and count requests that never were."""
    for name, count in counts.items():
        if count < 0:
            raise BadLine(f"{path}.{name}", f"is {count:g}, must be 0 or more")
        if count > LARGEST_COUNT:
            raise BadLine(
                f"{path}.{name}", f"is {count:g}, above {LARGEST_COUNT:.0f} no single requests can be counted"
            )


def _is_bound(text: str) -> bool:
    try:
        return not math.isnan(float(text))
    except ValueError:
        return False
