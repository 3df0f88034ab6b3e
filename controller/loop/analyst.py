"""Keeps the analysis of running rollouts: reads samples, asks the judge, holds on to a trip until it is carried out.

What is here can be lost at any time: status has a checkpoint, and the raw samples since then are read
again. So this is a cache, never the memory.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from controller.analysis import judge as judging
from controller.analysis import retreat
from controller.analysis.course import Point, add_point
from controller.analysis.increments import ArmSamples as Arm
from controller.analysis.increments import Counts, Cursor, Interval, NoData, Sample, Scrape, difference
from controller.analysis.judge import Finding, JudgeState, MetricSettings, Settings
from controller.errors import NeedsUser, SourceUnavailable
from controller.model.spec import Analysis, CanarySpec
from controller.model.status import Attempt, Course, Judged, Phase, Status
from controller.model.world import CanaryPods, Target, Verdict
from controller.ports import ArmSamples, MetricSamples, MetricSource, RawSample, Ref

LOOKBACK = timedelta(seconds=10)
"""read at least this much before the last interval, so that the value a counter stood at is seen"""
NO_SOURCE = 15.0
"""seconds between scrapes to reckon with while the source cannot be asked"""
DRAWN = 4
"""metrics whose course is kept for people to look at"""
ENOUGH_TO_COMPARE = 100.0
"""expected canary requests from which a share that does not fit the weight is said to be wrong"""


@dataclass
class _Running:
    """One attempt as it is being judged."""

    attempt: str
    state: JudgeState
    cursor: Cursor
    bake: datetime | None
    step: int
    tripped: Finding | None = None
    """a trip that has not become a retreat yet"""
    first_bad: float | None = None
    courses: dict[str, tuple[Point, ...]] = field(default_factory=dict)


class Analyst:
    """Judges running attempts, one scrape at a time."""

    def __init__(self, source: MetricSource) -> None:
        self._source = source
        self._running: dict[str, _Running] = {}

    def forget(self, key: str) -> None:
        """The rollout is over."""
        self._running.pop(key, None)

    async def read_verdict(
        self, ref: Ref, spec: CanarySpec, status: Status, target: Target | None, canary: CanaryPods, now: datetime
    ) -> Verdict:
        """What the analysis says of the attempt at `now`; a source that does not answer is no data."""
        attempt = status.attempt
        assert attempt is not None
        no_data = "NoData"
        try:
            scrape = await self._source.scrape_interval(spec)
        except (SourceUnavailable, NeedsUser):
            scrape = NO_SOURCE
        settings = settings_for(spec.analysis, attempt, scrape)
        running = self._resumed(ref, status, attempt, settings, now)
        since = running.cursor.end if running.cursor.end is not None else running.cursor.since
        lookback = max(LOOKBACK, timedelta(seconds=3 * scrape))
        try:
            answers = await asyncio.gather(
                *(
                    self._source.read_samples(ref, spec, metric, datetime.fromtimestamp(since, UTC) - lookback, now)
                    for metric in spec.analysis.metrics
                )
            )
        except (SourceUnavailable, NeedsUser) as error:
            answers, no_data = [], str(error)
        finding = self._judged(running, settings, answers, target, canary, now, no_data)
        _draw(running, settings, status.weight)
        return _verdict(finding, running, status, attempt, canary, settings, now)

    def _judged(
        self,
        running: _Running,
        settings: Settings,
        answers: list[MetricSamples],
        target: Target | None,
        canary: CanaryPods,
        now: datetime,
        no_data: str,
    ) -> Finding:
        if answers and not any(answer.partial for answer in answers):
            scrape = Scrape(
                metrics={answer.metric: (_arm(answer.canary), _arm(answer.stable)) for answer in answers},
                canary_pods=canary.ready,
                baseline_pods=target.stable_ready if target else 0,
                age=canary.youngest_age,
            )
            running.cursor, found = difference(running.cursor, scrape)
            if isinstance(found, Interval):
                running.state, finding = judging.judge(running.state, found, settings)
                _note(running, finding, found)
                if finding.tripped:
                    # Decided now, with the age the pods have now; the write that carries it out may come later.
                    running.state = retreat.retreated(
                        running.state, settings, now=now.timestamp(), age=canary.youngest_age, metric=finding.metric
                    )
                    running.tripped = finding
                return running.tripped or finding
            assert isinstance(found, NoData)
            no_data = found.reason
        elif answers:
            no_data = "PartialAnswer"
        return running.tripped or judging.look(running.state, settings, now=now.timestamp(), no_data=no_data)

    def _resumed(self, ref: Ref, status: Status, attempt: Attempt, settings: Settings, now: datetime) -> _Running:
        """The running analysis of this attempt, from memory or from the checkpoint in status."""
        running = self._running.get(ref.key)
        if running is None or running.attempt != attempt.id:
            through = attempt.evaluated_through or attempt.started_at.timestamp()
            state = judging.load_state(attempt.judge, settings)
            if attempt.baking_since and attempt.evaluated_through <= attempt.baking_since.timestamp():
                state = judging.step_began(state)
            drawn = _drawn_before(attempt)
            running = _Running(
                attempt.id, state, Cursor(since=through), attempt.baking_since, attempt.step, courses=drawn
            )
            self._running[ref.key] = running
        resting = status.phase is Phase.RETREATED
        if resting:
            running.tripped = None
        elif running.state.rest is not None and running.tripped is None:
            running.state = retreat.returned(running.state, settings, now=now.timestamp(), weight=attempt.here.weight)
        elif running.state.limit < status.weight:
            running.state = retreat.climbed(running.state)
        if attempt.step != running.step:
            running.state = judging.next_step(running.state)
        elif attempt.baking_since is not None and attempt.baking_since != running.bake:
            running.state = judging.step_began(running.state)
        running.bake, running.step = attempt.baking_since, attempt.step
        return running


def _note(running: _Running, finding: Finding, interval: Interval) -> None:
    """Since when it looks bad: the relief is reckoned from there."""
    errors = sum(arms.canary.errors for arms in interval.metrics.values())
    if finding.alarm < 0.1 and not finding.tripped:
        running.first_bad = None
    if errors > 0 and running.first_bad is None:
        running.first_bad = interval.end


def _draw(running: _Running, settings: Settings, weight: float) -> None:
    """Another point of each course, where there was another interval."""
    for name, one in running.state.metrics.items():
        if name in settings.metrics and math.isfinite(one.through):
            point = Point(one.through, weight, one.effect, *one.folded)
            running.courses[name] = add_point(running.courses.get(name, ()), point)


def _drawn_before(attempt: Attempt) -> dict[str, tuple[Point, ...]]:
    began = attempt.started_at.timestamp()
    return {
        course.metric: tuple(Point(began + point[0], *point[1:5]) for point in course.points if len(point) == 5)
        for course in attempt.courses
    }


def _courses(running: _Running, settings: Settings, attempt: Attempt) -> tuple[Course, ...]:
    """Of the metrics that weigh most, as status keeps them."""
    began = attempt.started_at.timestamp()
    heaviest = sorted(running.courses, key=lambda name: -settings.log_weights.get(name, -math.inf))[:DRAWN]
    return tuple(
        Course(
            metric=name,
            margin=settings.metrics[name].margin,
            points=tuple((round(point.at - began, 1), *point[1:]) for point in running.courses[name]),
        )
        for name in heaviest
        if name in settings.metrics
    )


def settings_for(analysis: Analysis, attempt: Attempt, scrape: float) -> Settings:
    """The judge's settings from what the user wrote; the horizon is the plan's length."""
    warmup = analysis.warmup.total_seconds()
    return Settings(
        metrics={
            metric.name: MetricSettings(
                kind="latency" if metric.latency else "errors",
                margin=metric.margin,
                warmup=2 * warmup if metric.latency else warmup,
                objective=metric.objective,
            )
            for metric in analysis.metrics
        },
        false_rollback_rate=analysis.false_rollback_rate,
        min_requests=float(analysis.min_requests),
        scrape=scrape,
        refill=analysis.refill,
        horizon=max(sum(step.bake for step in attempt.plan), 60.0),
    )


def _verdict(
    finding: Finding,
    running: _Running,
    status: Status,
    attempt: Attempt,
    canary: CanaryPods,
    settings: Settings,
    now: datetime,
) -> Verdict:
    state, age = running.state, canary.youngest_age
    through = state.through
    baking = attempt.baking_since.timestamp() if attempt.baking_since else math.inf
    fresh = now.timestamp() - through <= judging.STALE_AFTER * settings.scrape + 1.0
    rollout = [one.rollout for name, one in running.state.metrics.items() if name in settings.metrics]
    seen = rollout[0].canary if rollout else Counts()
    no_data_since = None
    if not fresh and math.isfinite(baking):
        no_data_since = datetime.fromtimestamp(max(through, baking) if math.isfinite(through) else baking, UTC)
    rest, limit = state.rest, state.limit
    if rest is not None:
        limit = retreat.returned(state, settings, now=now.timestamp(), weight=attempt.here.weight).limit
    elif retreat.climbs(state, finding, settings, now=now.timestamp()):
        limit = 100.0
    return Verdict(
        fail=finding.verdict is judging.Verdict.FAIL,
        tripped=finding.tripped,
        fresh=fresh,
        enough=finding.verdict is judging.Verdict.PASS,
        need=finding.would_change if fresh else f"{finding.reason}: {finding.would_change}",
        uncertified=finding.uncertified,
        young=rest is not None and not rest.fresh and age < rest.old_at,
        unproven="" if age >= state.proven_age else f"canary pods older than {state.proven_age:.0f} s, as they tripped",
        replace=finding.tripped and rest is not None and rest.fresh,
        limit=limit,
        mismatch=_mismatch(state, status, attempt, now),
        judged=_judged_words(finding, now),
        checkpoint=judging.dump_state(running.state),
        courses=_courses(running, settings, attempt),
        evaluated_through=through if math.isfinite(through) else 0.0,
        canary_requests=round(seen.requests),
        canary_errors=round(seen.errors),
        first_bad_at=datetime.fromtimestamp(running.first_bad, UTC) if running.first_bad is not None else None,
        no_data_since=no_data_since,
    )


def _judged_words(finding: Finding, now: datetime) -> Judged:
    """The finding with all its numbers, and one sentence for people."""
    canary, stable = finding.canary, finding.baseline
    message = (
        f"{finding.metric or 'analysis'} {100 * finding.effect:+.2f} pp, margin {100 * finding.margin:.2f} pp, "
        f"canary {canary.errors:.0f} of {canary.requests:.0f}, stable {stable.errors:.0f} of {stable.requests:.0f}, "
        f"evidence {finding.evidence:.1f} of {finding.threshold:.1f}"
    )
    numbers = {
        "effect": finding.effect,
        "low": finding.interval[0],
        "high": finding.interval[1],
        "margin": finding.margin,
        "canaryRequests": canary.requests,
        "canaryErrors": canary.errors,
        "stableRequests": stable.requests,
        "stableErrors": stable.errors,
        "evidence": finding.evidence,
        "threshold": finding.threshold,
        "alarm": finding.alarm,
    }
    return Judged(
        at=now,
        verdict=finding.verdict.value,
        reason=finding.reason[:63],
        metric=finding.metric,
        message=message,
        would_change=finding.would_change[:1024],
        numbers={name: value for name, value in numbers.items() if math.isfinite(value)},
    )


def _mismatch(state: JudgeState, status: Status, attempt: Attempt, now: datetime) -> str:
    """Whether the requests seen in this step fit the weight that was set; empty when they do, or too few to say."""
    if attempt.baking_since is None or now < attempt.baking_since or not state.metrics:
        return ""
    step = next(iter(state.metrics.values())).step
    total = step.canary.requests + step.baseline.requests
    expected = total * status.weight / 100
    found = step.canary.requests
    if expected < ENOUGH_TO_COMPARE:
        return ""
    slack = 3 * math.sqrt(expected)
    if expected / 2 - slack <= found <= 2 * expected + slack:
        return ""
    return (
        f"{100 * found / total:.2f} % of {total:.0f} requests reached the canary, and the weight is "
        f"{status.weight:g} %: is there another route, a sticky session or a cache in front?"
    )


def _arm(samples: ArmSamples) -> Arm:
    return Arm(total=_samples(samples.requests), bad=_samples(samples.bad))


def _samples(raw: tuple[RawSample, ...]) -> list[Sample]:
    return [Sample(one.series, one.at, one.value) for one in raw]


__all__ = ["Analyst", "settings_for"]
