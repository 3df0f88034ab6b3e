"""Keeps the analysis of running rollouts: reads samples, asks the judge, holds on to a trip until it is carried out.

What is here can be lost at any time: status has a checkpoint, and the raw samples since then are read
again. So this is a cache, never the memory.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import msgspec

from controller.analysis import judge as judging
from controller.analysis import retreat
from controller.analysis.course import Point, add_point
from controller.analysis.evidence import PodNoise
from controller.analysis.increments import ArmSamples as Arm
from controller.analysis.increments import (
    Counts,
    Cursor,
    Interval,
    Sample,
    Scrape,
    canary_alone,
    difference,
)
from controller.analysis.judge import Finding, JudgeState, MetricSettings, Settings
from controller.errors import NeedsUser, SourceUnavailable
from controller.loop.advice import Advisor
from controller.loop.blame import Blame
from controller.loop.outlook import with_bounds
from controller.model.spec import Analysis, Baseline, CanarySpec
from controller.model.status import Attempt, Course, Judged, Phase, Status
from controller.model.world import CanaryPods, Verdict
from controller.ports import ArmSamples, MetricSamples, MetricSource, RawSample, Ref

IN_PART = "the metrics server answered in part only"
LOOKBACK = timedelta(seconds=10)
"""read at least this much before the last interval, so that the value a counter stood at is seen"""
GAP = 60.0
"""seconds between two looks that count as time without data, or three scrapes where these are longer"""
NO_SOURCE = 15.0
"""seconds between scrapes to reckon with while the source cannot be asked"""
DRAWN = 4
"""metrics whose course is kept for people to look at"""
LACKS = {reason: reason for reason in ("Suspicious", "NoBaselineTraffic")}
"""what the judge says against leaving a step, as the rollout's reason; anything else is a lack of requests"""
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
    alone: Cursor | None = None
    """how far the canary was read while the baseline has no data"""
    tripped: Finding | None = None
    """a trip that has not become a retreat yet"""
    first_bad: float | None = None
    looked: datetime | None = None
    unseen: timedelta = timedelta()
    """for how long there has been no data, of which a clock that leaps between two looks makes a minute"""
    courses: dict[str, tuple[Point, ...]] = field(default_factory=dict)
    known: Verdict = field(default_factory=Verdict)
    """what was counted, as of the last look"""


class Analyst:
    """Judges running attempts, one scrape at a time."""

    def __init__(self, source: MetricSource) -> None:
        self._source = source
        self._running: dict[str, _Running] = {}
        self._advisor = Advisor(source)
        self._blame = Blame(source)

    def forget(self, key: str) -> None:
        """The rollout is over."""
        self._running.pop(key, None)
        self._advisor.forget(key)
        self._blame.forget(key)

    def known(self, ref: Ref, status: Status) -> Verdict:
        """What was counted of this attempt until the last look, for the record of its end; it decides nothing."""
        running = self._running.get(ref.key)
        mine = running is not None and status.attempt is not None and running.attempt == status.attempt.id
        return running.known if running is not None and mine else Verdict()

    async def read_verdict(
        self, ref: Ref, spec: CanarySpec, status: Status, canary: CanaryPods, against: int, now: datetime
    ) -> Verdict:
        """What the analysis says of the attempt at `now`; a source that does not answer is no data.

        `against` are the pods that are ready on the other side of the comparison.
        """
        attempt, spec = status.attempt, with_bounds(spec, status)
        assert attempt is not None
        try:
            scrape = await self._source.scrape_interval(spec)
        except (SourceUnavailable, NeedsUser):
            scrape = NO_SOURCE
        settings = settings_for(spec.analysis, attempt, scrape)
        running = self._resumed(ref, status, attempt, settings, now)
        since = running.cursor.end if running.cursor.end is not None else running.cursor.since
        lookback = max(LOOKBACK, timedelta(seconds=3 * scrape))
        answers, no_data = await self._ask(ref, spec, datetime.fromtimestamp(since, UTC) - lookback, now)
        advice = self._advisor.read(ref, spec, status, canary, now, scrape=scrape)
        finding = self._judged(running, settings, answers, against, canary, now, no_data)
        _draw(running, settings, status.weight)
        found = _verdict(finding, running, attempt, canary, settings, now)
        found = replace(found, mismatch=_mismatch(running.state, status, attempt, spec.analysis.baseline, now))
        pods = self._blame.read(ref, spec, status, now, scrape=scrape)
        running.known = replace(found, fail=False, tripped=False, gauges=advice.seen)
        unheard = _unanswered(answers, no_data)
        # Before the first request an answer without data is enough: a service may have had none.
        heard_before = attempt.steps_seen or status.phase is Phase.RETREATED
        if not unheard and heard_before and not spec.analysis.baseline.fresh:
            unheard = _unheard(answers, settings, now)
        return replace(found, advice=advice.words, gauges=advice.seen, pods=pods, unheard=unheard)

    async def read_unanswered(self, ref: Ref, spec: CanarySpec, now: datetime) -> str:
        """Why nobody would hear of a fault if traffic came now; empty where the server answers, also without data."""
        return _unanswered(*await self._ask(ref, spec, now - LOOKBACK, now))

    async def _ask(self, ref: Ref, spec: CanarySpec, begin: datetime, now: datetime) -> tuple[list[MetricSamples], str]:
        """What the source says of each metric, or nothing and why; the reason for having no data otherwise."""
        asked = (self._source.read_samples(ref, spec, one, begin, now) for one in spec.analysis.counted)
        try:
            return await asyncio.gather(*asked), "NoData"
        except (SourceUnavailable, NeedsUser) as error:
            return [], str(error)

    def _judged(
        self,
        running: _Running,
        settings: Settings,
        answers: list[MetricSamples],
        against: int,
        canary: CanaryPods,
        now: datetime,
        no_data: str,
    ) -> Finding:
        if answers and not any(answer.partial for answer in answers):
            scrape = Scrape(
                metrics={answer.metric: (_arm(answer.canary), _arm(answer.stable)) for answer in answers},
                canary_pods=canary.ready,
                baseline_pods=against,
                age=canary.youngest_age,
                ages=canary.ages,
            )
            running.cursor, found = difference(running.cursor, scrape)
            if isinstance(found, Interval):
                running.alone = None
                running.state, finding = judging.judge(running.state, found, settings)
                _note(running, finding, sum(arms.canary.errors for arms in found.metrics.values()), found.end)
                return self._remembered(running, settings, finding, canary, now)
            if found.reason == "NoBaselineData":
                before = running.alone or running.cursor
                running.alone, counted = canary_alone(before, scrape)
                start, end = before.end or before.since, running.alone.end
                if counted and end is not None:
                    running.state, finding = judging.judge_alone(running.state, counted, settings, start=start, end=end)
                    _note(running, finding, sum(counts.errors for counts in counted.values()), end)
                    return self._remembered(running, settings, finding, canary, now)
            no_data = found.reason
        elif answers:
            no_data = "PartialAnswer"
        return running.tripped or judging.look(running.state, settings, now=now.timestamp(), no_data=no_data)

    def _remembered(
        self, running: _Running, settings: Settings, finding: Finding, canary: CanaryPods, now: datetime
    ) -> Finding:
        """A trip is decided now, with the age the pods have now; the write that carries it out may come later."""
        if finding.tripped:
            running.state = retreat.retreated(
                running.state, settings, now=now.timestamp(), age=canary.youngest_age, metric=finding.metric
            )
            running.tripped = finding
        return running.tripped or finding

    def _resumed(self, ref: Ref, status: Status, attempt: Attempt, settings: Settings, now: datetime) -> _Running:
        """The running analysis of this attempt, from memory or from the checkpoint in status."""
        running = self._running.get(ref.key)
        if running is None or running.attempt != attempt.id:
            through = attempt.evaluated_through or _first_traffic(attempt).timestamp()
            state = _with_noise(judging.load_state(attempt.judge, settings), status)
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


def _with_noise(state: JudgeState, status: Status) -> JudgeState:
    """The noise of pods as the outlook of this very attempt learned it; else it is assumed."""
    outlook, attempt = status.outlook, status.attempt
    if state.noise is not None or outlook is None or attempt is None or outlook.attempt != attempt.id:
        return state
    return msgspec.structs.replace(state, noise=PodNoise(*outlook.noise)) if len(outlook.noise) == 3 else state


def _first_traffic(attempt: Attempt) -> datetime:
    """What its Service answered before, to whomever, is not held against this revision."""
    if attempt.steps_seen:
        return attempt.steps_seen[0].at
    return attempt.entered_at or attempt.started_at


def _note(running: _Running, finding: Finding, errors: float, at: float) -> None:
    """Since when it looks bad: the relief is reckoned from there."""
    if finding.alarm < 0.1 and not finding.tripped:
        running.first_bad = None
    if errors > 0 and running.first_bad is None:
        running.first_bad = at


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
                bounds=len(metric.latency.bounds) if metric.latency and metric.latency.also else 0,
            )
            for metric in analysis.counted
        },
        false_rollback_rate=analysis.false_rollback_rate,
        min_requests=float(analysis.min_requests),
        scrape=scrape,
        refill=analysis.refill,
        horizon=max(sum(step.bake for step in attempt.plan), 60.0),
    )


def _without_data(
    running: _Running, last: datetime | None, now: datetime, *, gap: timedelta, fresh: bool
) -> datetime | None:
    """Since when there is no data, the `last` of which is from then; None while it is fresh, or none is expected yet.

    A leap of the clock is not time in which data could have come: nothing is rolled back for it.
    """
    if last is None:
        running.unseen = timedelta()
    elif fresh or running.looked is None:
        running.unseen = max(now - last, timedelta())
    else:
        running.unseen += min(max(now - running.looked, timedelta()), gap)
    running.looked = now
    return None if fresh or last is None else max(last, now - running.unseen)


def _unanswered(answers: list[MetricSamples], no_data: str) -> str:
    """Why there is no whole answer, also one without data; empty when there is."""
    if not answers:
        return no_data
    return IN_PART if any(answer.partial for answer in answers) else ""


def _unheard(answers: list[MetricSamples], settings: Settings, now: datetime) -> str:
    """Why nobody would hear of a fault if the weight came back now; empty when somebody would.

    Stable's counters are asked: the canary's own may be gone at weight 0, and those of fresh stable pods with them.
    """
    too_old = now.timestamp() - settings.stale_after - 1.0
    for answer in answers:
        if max((sample.at for sample in answer.stable.requests), default=0.0) < too_old:
            return f"{answer.metric}: no requests of stable are counted any more"
    return ""


def _verdict(
    finding: Finding,
    running: _Running,
    attempt: Attempt,
    canary: CanaryPods,
    settings: Settings,
    now: datetime,
) -> Verdict:
    state, age = running.state, canary.youngest_age
    through = state.through
    # Between two steps the canary has the weight of the one before, and data is expected as well.
    served = attempt.baking_since or (attempt.entered_at if attempt.steps_seen else None)
    serving = served.timestamp() if served else math.inf
    fresh = now.timestamp() - through <= settings.stale_after + 1.0
    rollout = [one.rollout for name, one in running.state.metrics.items() if name in settings.metrics]
    seen = rollout[0].canary if rollout else Counts()
    last = None
    if math.isfinite(serving):
        last = datetime.fromtimestamp(max(through, serving) if math.isfinite(through) else serving, UTC)
    gap = timedelta(seconds=max(GAP, settings.stale_after))
    no_data_since = _without_data(running, last, now, gap=gap, fresh=fresh)
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
        lacks=LACKS.get(finding.reason, "MinRequests"),
        suffers=judging.both_suffer(running.state.metrics, settings),
        uncertified=judging.describe_uncertified(state, settings, canary.ages),
        young=rest is not None and not rest.fresh and age < rest.old_at,
        unproven=_unproven(canary, state.proven_age),
        replace=finding.tripped and rest is not None and rest.fresh,
        excused=finding.tripped and rest is not None and rest.excused,
        limit=limit,
        judged=_judged_words(finding, now),
        checkpoint=judging.dump_state(running.state),
        courses=_courses(running, settings, attempt),
        evaluated_through=through if math.isfinite(through) else 0.0,
        due=datetime.fromtimestamp(through + settings.scrape, UTC) if math.isfinite(through) else None,
        canary_requests=round(seen.requests),
        canary_errors=round(seen.errors),
        first_bad_at=datetime.fromtimestamp(running.first_bad, UTC) if running.first_bad is not None else None,
        no_data_since=no_data_since,
    )


def _unproven(canary: CanaryPods, proven_age: float) -> str:
    """A fault that needs age shows on the pods that have it, so that a pod that was added since proves nothing less."""
    if canary.settled_age >= proven_age:
        return ""
    which = "three of four canary pods" if len(canary.ages) > 3 else "canary pods"
    return f"{which} older than {proven_age:.0f} s, as they tripped"


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
        "certified": float(finding.certified),
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


def _mismatch(state: JudgeState, status: Status, attempt: Attempt, baseline: Baseline, now: datetime) -> str:
    """Whether the requests seen in this step fit the weight that was set; empty when they do, or too few to say."""
    if attempt.baking_since is None or now < attempt.baking_since or not state.metrics or not status.weight:
        return ""
    step = next(iter(state.metrics.values())).step
    total = step.canary.requests + step.baseline.requests
    # Beside a fresh baseline what stable's own pods serve is in neither arm.
    share = status.weight / (status.weight + baseline.share(status.weight) if baseline.fresh else 100)
    expected = total * share
    found = step.canary.requests
    if expected < ENOUGH_TO_COMPARE:
        return ""
    slack = 3 * math.sqrt(expected)
    if expected / 2 - slack <= found <= 2 * expected + slack:
        return ""
    return (
        f"{100 * found / total:.2f} % of {total:.0f} requests reached the canary, and {100 * share:g} % were to "
        f"(weight {status.weight:g} %): is there another route, a sticky session or a cache in front?"
    )


def _arm(samples: ArmSamples) -> Arm:
    return Arm(
        total=_samples(samples.requests),
        bad=_samples(samples.bad),
        slower=tuple(_samples(each) for each in samples.slower),
    )


def _samples(raw: tuple[RawSample, ...]) -> list[Sample]:
    return [Sample(one.series, one.at, one.value, one.target) for one in raw]


__all__ = ["Analyst", "settings_for"]
