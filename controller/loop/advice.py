"""What gauges say of a rollout: memory, CPU and the like advise to hold, and never end anything.

The one thing to know: they are read beside the loop, so that no verdict waits for them, and whole each time, for as
long as advice has to last: nothing has to be remembered. A gauge that says nothing is no good news, and holds too.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from controller.analysis import gauges
from controller.errors import SerinError
from controller.loop.beside import result_of
from controller.model.spec import CanarySpec, GaugeRule, Metric
from controller.model.status import GaugeSeen, Phase, Status
from controller.model.world import CanaryPods
from controller.ports import GaugeSamples, MetricSource, Ref

STEPS = 20
"""values in the time that advice has to last"""


@dataclass(frozen=True)
class Advice:
    """What the gauges said when they were last read."""

    attempt: str
    until: float = 0.0
    """unix seconds: no newer values before then"""
    words: str = ""
    """the reason, and why not to go on; empty where nothing speaks against it"""
    seen: tuple[GaugeSeen, ...] = ()


class Advisor:
    """Reads the gauges of running attempts."""

    def __init__(self, source: MetricSource) -> None:
        self._source = source
        self._advice: dict[str, Advice] = {}
        self._reading: dict[str, asyncio.Task[Advice]] = {}

    def forget(self, key: str) -> None:
        """The rollout is over."""
        self._advice.pop(key, None)
        if (reading := self._reading.pop(key, None)) is not None:
            reading.cancel()

    def read(
        self, ref: Ref, spec: CanarySpec, status: Status, canary: CanaryPods, now: datetime, *, scrape: float
    ) -> Advice:
        """What was said last; read anew while the canary has traffic and there are newer values. Never waits."""
        attempt = status.attempt.id if status.attempt else ""
        if not spec.analysis.advising:
            return Advice(attempt)
        reading = self._reading.get(ref.key)
        if reading is not None and reading.done():
            del self._reading[ref.key]
            if (advice := result_of(reading)) is not None:
                self._advice[ref.key] = advice
            reading = None
        known = self._advice.get(ref.key)
        if known is None or known.attempt != attempt:
            known = Advice(attempt, words="GaugeMissing the gauges have not been read yet")
        served = status.phase is Phase.PROGRESSING and status.attempt is not None and status.attempt.baking_since
        if served and reading is None and now.timestamp() >= known.until:
            look = self._look(ref, spec, attempt, canary, now, scrape)
            self._reading[ref.key] = asyncio.create_task(look)
        return known

    async def _look(
        self, ref: Ref, spec: CanarySpec, attempt: str, canary: CanaryPods, now: datetime, scrape: float
    ) -> Advice:
        warm = max(canary.settled_age - spec.analysis.warmup.total_seconds(), 0.0)
        words, seen, soonest = "", [], math.inf
        for metric in spec.analysis.advising:
            rule = metric.gauge or GaugeRule()
            step = max(scrape, rule.lasts.total_seconds() / STEPS)
            span = min(rule.lasts.total_seconds() + 2 * step, warm)
            found, problem = GaugeSamples(), ""
            if span >= step:
                since = now - timedelta(seconds=span)
                try:
                    found = await self._source.read_gauge(ref, spec, metric, since, now, step=step)
                except SerinError as error:
                    problem = str(error)
            state = gauges.watch_all(found.canary, found.stable, factor=rule.times)
            if not problem and not math.isfinite(state.through):
                problem = _no_value(rule, found)
            words = words or _words(metric, rule, state, problem)
            above = state.through - state.above_since if state.above_since is not None else 0.0
            seen.append(GaugeSeen(metric.name, state.canary, state.baseline, rule.times, above))
            soonest = min(soonest, step)
        return Advice(attempt, now.timestamp() + soonest, words, tuple(seen))


def _words(metric: Metric, rule: GaugeRule, state: gauges.GaugeState, problem: str) -> str:
    """A gauge that is above its limit, and has not been for long enough, holds until it is one or the other."""
    lasts = rule.lasts.total_seconds()
    if higher := gauges.advice(metric.name, state, persists=0.0):
        above = state.through - (state.above_since or 0.0)
        return f"GaugeHigher {higher}, allowed are {rule.times:g}" + (f" for {lasts:.0f} s" if above < lasts else "")
    return f"GaugeMissing {metric.name}: {problem}" if problem else ""


def _no_value(rule: GaugeRule, found: GaugeSamples) -> str:
    whose = "stable's" if found.canary else "the canary's"
    return f"no value of {whose} warm pods yet: does gauge {rule.template} of the MetricsSource select them"
