"""Looks at a service's past before a rollout: once for each edit of its Canary, once for each attempt.

The one thing to know: nothing waits for it. It is asked for beside the loop, and what comes of it is in the status with
a later turn, or not at all; a rollout whose past could not be read is judged with the noise that is assumed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
import structlog

from controller.analysis import past, planning, replay
from controller.analysis.evidence import Floats
from controller.analysis.lines import Plan, PlannedMetric, Step
from controller.errors import SerinError
from controller.loop.beside import result_of
from controller.model.outlook import Bounds, Outlook, Rehearsal, Sight
from controller.model.spec import Analysis, CanarySpec, Metric
from controller.model.status import Phase, Status
from controller.ports import ArmSamples, MetricSource, Past, RawSample, Ref

log = structlog.get_logger()

TRAFFIC = timedelta(minutes=30)
"""of recent traffic that is looked at"""
PODS = timedelta(hours=2, minutes=2)
"""of the pods' own counters: two hours, and the minutes at both ends that hold no whole step"""
AGAIN = timedelta(minutes=5)
"""until what could not be read is asked for again while a rollout begins"""
AGAIN_AT_REST = timedelta(hours=1)
"""the same at rest, where a thousand services may have no traffic for a night"""
PACE = 1.0
"""seconds between two Canaries at rest, at most: a thousand of them at once are no reason to be busy"""
MOST_ALSO = 5
"""bounds of a latency beside the one that is shown"""
SHARE = 0.5
"""of the time that looking at those at rest may take where a look is short"""
BESIDE_FRESH = (
    "the fresh baseline has no more requests than the canary: expect to need about twice as many to see something"
)


@dataclass
class _Asked:
    """One look, under way or over."""

    about: tuple[int, str]
    at: datetime
    task: asyncio.Task[Outlook | None]


class Outlooks:
    """One look at a time for each Canary; `wake` is called when there is something to remember."""

    def __init__(self, source: MetricSource, wake: Callable[[str], None] = lambda key: None) -> None:
        self._source = source
        self._wake = wake
        self._asked: dict[str, _Asked] = {}
        self._at_rest = asyncio.Lock()

    def forget(self, key: str) -> None:
        """The Canary is gone."""
        if (asked := self._asked.pop(key, None)) is not None:
            asked.task.cancel()

    def read(self, ref: Ref, spec: CanarySpec, status: Status, generation: int, now: datetime) -> Outlook | None:
        """An outlook that the status does not have yet; None while there is none. Never waits."""
        about = _wanted(status, generation)
        if about is None:
            return None
        asked = self._asked.get(ref.key)
        again = AGAIN if about[1] else AGAIN_AT_REST
        if asked is not None and asked.about == about and (not asked.task.done() or now < asked.at + again):
            return result_of(asked.task)
        self.forget(ref.key)
        task = asyncio.create_task(self._look(ref, spec, status, about, now))
        task.add_done_callback(lambda _: self._wake(ref.key))
        self._asked[ref.key] = _Asked(about, now, task)
        return None

    async def _look(
        self, ref: Ref, spec: CanarySpec, status: Status, about: tuple[int, str], now: datetime
    ) -> Outlook | None:
        try:
            if about[1]:
                return await self._read(ref, spec, status, about, now)
            await self._at_rest.acquire()
            loop = asyncio.get_running_loop()
            began = loop.time()
            try:
                found = await self._read(ref, spec, status, about, now)
            finally:
                loop.call_later(min(PACE, (loop.time() - began) / SHARE), self._at_rest.release)
            return found if found.rate > 0 else None
        except SerinError as error:
            log.info("no_outlook", rollout=ref.key, message=str(error))
            return None

    async def _read(self, ref: Ref, spec: CanarySpec, status: Status, about: tuple[int, str], now: datetime) -> Outlook:
        scrape = await self._source.scrape_interval(spec)
        seen = await self._source.read_past(ref, spec, now, traffic=TRAFFIC, pods=PODS)
        requests, bad = tables(seen, now)
        plan = _steps(spec, status, about)
        found = render_outlook(spec.analysis, plan, seen, now=now, scrape=scrape)
        noise = past.learn(requests, bad, step=seen.pods_step)
        known = status.outlook.rehearsal if status.outlook and about[1] else None
        if known is None and requests.any():
            # In a thread: it computes for a second.
            known = await asyncio.to_thread(rehearsed, requests, bad, spec.analysis, plan, seen.pods_step)
        return msgspec.structs.replace(
            found,
            generation=about[0],
            attempt=about[1],
            noise=noise.learned or (),
            noise_from=noise.words,
            bounds=chosen_bounds(seen),
            rehearsal=known,
        )


def _wanted(status: Status, generation: int) -> tuple[int, str] | None:
    """The generation and the attempt that an outlook is missing for."""
    known, attempt = status.outlook, status.attempt
    if status.phase is Phase.PREPARING and attempt is not None:
        return None if known is not None and known.attempt == attempt.id else (generation, attempt.id)
    if status.phase is Phase.IDLE and status.edits_held:
        return None if known is not None and known.generation == generation else (generation, "")
    return None


def _steps(spec: CanarySpec, status: Status, about: tuple[int, str]) -> list[tuple[float, float]]:
    """Percent and seconds of each step: of the attempt as the policies left it, else as the Canary says."""
    if about[1] and status.attempt is not None:
        return [(step.weight, step.bake) for step in status.attempt.plan]
    most = 100.0 - spec.analysis.hold_back
    return [(min(step.weight, most), step.bake.total_seconds()) for step in spec.steps]


def tables(seen: Past, now: datetime) -> tuple[Floats, Floats]:
    """Increases of each pod's requests and failed requests, a row for each step of the last hours."""
    until = now.timestamp()
    return past.tabulate(counted_pods(seen.pods), since=until - PODS.total_seconds(), until=until, step=seen.pods_step)


def render_outlook(
    analysis: Analysis, plan: list[tuple[float, float]], seen: Past, *, now: datetime, scrape: float
) -> Outlook:
    """What the plan can see with the traffic of late, by the first metric that counts errors."""
    metric = next((one for one in analysis.counted if one.error_ratio), analysis.counted[0])
    arm = seen.traffic.get(metric.name, ArmSamples())
    found = past.traffic(_by_series(arm.requests), _by_series(arm.bad), step=seen.step)
    if found is None:
        return Outlook(at=now, relief=scrape, warnings=("no traffic of late, so nothing can be reckoned from it",))
    rate, ratio = found
    reckoned = planning.outlook(
        plan,
        rate=rate,
        # Ten times nothing is nothing that anybody has to see; what is inside the margin neither.
        ratio=max(ratio, metric.margin),
        margin=metric.margin,
        alpha=analysis.false_rollback_rate,
        scrape=scrape,
    )
    return Outlook(
        at=now,
        rate=float(f"{rate:.3g}"),
        ratio=float(f"{ratio:.3g}"),
        relief=reckoned.relief,
        certify=reckoned.to_certify,
        steps=tuple(
            Sight(weight=one.weight, requests=one.requests, lasts=one.bake_for, sees=one.sees, blind=one.blind)
            for one in reckoned.steps
        ),
        warnings=(*reckoned.warnings, *((BESIDE_FRESH,) if analysis.baseline.fresh else ())),
    )


def rehearsed(
    requests: Floats, bad: Floats, analysis: Analysis, plan: list[tuple[float, float]], step: float
) -> Rehearsal | None:
    """The judge over the stable pods of the last hours; None where they cannot be compared with each other."""
    metric = next((one for one in analysis.counted if one.error_ratio), None)
    played = Plan(
        steps=[Step(weight, bake) for weight, bake in plan],
        metrics={"errors": PlannedMetric(margin=metric.margin if metric else None)},
        false_rollback_rate=analysis.false_rollback_rate,
        min_requests=float(analysis.min_requests),
        refill=analysis.refill,
        scrape=step,
    )
    try:
        outcome, words = replay.rehearse(requests, bad, plan=played, step=step)
    except ValueError:
        return None
    return Rehearsal(outcome.rollouts, outcome.retreated, outcome.rolled_back, words)


def chosen_bounds(seen: Past) -> tuple[Bounds, ...]:
    """Of each latency without a threshold, where stable's past is enough to choose from."""
    found = {metric: past.choose_bounds(_by_bound(buckets)) for metric, buckets in seen.buckets.items()}
    return tuple(
        Bounds(metric, chosen.threshold, chosen.also[:MOST_ALSO], round(chosen.requests))
        for metric, chosen in found.items()
        if chosen is not None
    )


def with_bounds(spec: CanarySpec, status: Status) -> CanarySpec:
    """The Canary with the bounds that the outlook of this very attempt chose, where it names no threshold itself."""
    outlook, attempt = status.outlook, status.attempt
    if outlook is None or attempt is None or outlook.attempt != attempt.id or not outlook.bounds:
        return spec
    known = {one.metric: one for one in outlook.bounds}
    metrics = tuple(_compared_at(one, known.get(one.name)) for one in spec.analysis.metrics)
    return spec.model_copy(update={"analysis": spec.analysis.model_copy(update={"metrics": metrics})})


def _compared_at(metric: Metric, chosen: Bounds | None) -> Metric:
    if chosen is None or metric.latency is None or metric.latency.threshold is not None:
        return metric
    threshold, *also = (timedelta(seconds=one) for one in (chosen.threshold, *chosen.also))
    # What the user named is compared too.
    both = tuple(dict.fromkeys((*metric.latency.also, *also)))[:MOST_ALSO]
    rule = metric.latency.model_copy(update={"threshold": threshold, "also": both})
    return metric.model_copy(update={"latency": rule})


def _by_bound(buckets: Mapping[float, tuple[RawSample, ...]]) -> dict[float, past.Course]:
    return {bound: _course(samples) for bound, samples in buckets.items()}


def _by_series(samples: tuple[RawSample, ...]) -> list[past.Course]:
    found: dict[str, list[tuple[float, float]]] = {}
    for one in samples:
        found.setdefault(one.series, []).append((one.at, one.value))
    return list(found.values())


def counted_pods(pods: Mapping[str, ArmSamples]) -> dict[str, past.Pod]:
    """The counters of each pod, as they are tabulated."""
    return {pod: past.Pod((_course(arm.requests),), (_course(arm.bad),)) for pod, arm in pods.items()}


def _course(samples: tuple[RawSample, ...]) -> past.Course:
    return [(one.at, one.value) for one in samples]
