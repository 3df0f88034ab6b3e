"""A judge without a cluster: plays the steps of one rollout over summed counters, one line at a time.

It keeps the rules of the retreat that need a clock (rest, young pods, fresh pods, bakes) beside the
judge that needs none, so that anyone can try the judge on their own data. The clock is the lines' `t`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np

from controller.analysis import judge as judging
from controller.analysis.increments import Arms, Counts, Interval
from controller.analysis.judge import Finding, JudgeState, MetricSettings, Settings, Verdict

REST = 30.0
"""Seconds at weight 0, at least."""
YOUNG = 60.0
"""Seconds of pod age below which a trip may be a cold start, so that the same pods get another chance."""
RETREATS = 3
"""The retreat that is answered by a person, or by a rollback where no person wrote the change."""
BLOCK = 300.0


class Step(msgspec.Struct, frozen=True):
    """One step: percent of the requests, and seconds it lasts at least."""

    weight: float
    bake: float


class PlannedMetric(msgspec.Struct, frozen=True, rename="camel"):
    """One metric: `kind` errors, or latency with the bucket bound in seconds above which a request is slow."""

    kind: str = "errors"
    margin: float | None = None
    threshold: float | None = None
    warmup: float | None = None


class Plan(msgspec.Struct, frozen=True, rename="camel"):
    """The first line of a rollout."""

    steps: list[Step]
    metrics: dict[str, PlannedMetric] = msgspec.field(default_factory=lambda: {"errors": PlannedMetric()})
    origin: str = "unknown"
    false_rollback_rate: float = 0.01
    min_requests: float = 100.0
    refill: float = 0.05
    scrape: float = 5.0


class PodLine(msgspec.Struct, frozen=True):
    """Cumulative counters of one pod."""

    requests: float
    errors: float = 0.0


class ArmLine(msgspec.Struct, frozen=True):
    """Cumulative counters of one arm, as a scrape shows them."""

    requests: float
    errors: float = 0.0
    pods: int = 0
    age: float = math.inf
    by_pod: dict[str, PodLine] = {}


class Buckets(msgspec.Struct, frozen=True):
    """A classic histogram: cumulative counts by upper bound in seconds."""

    buckets: dict[str, float] = {}


class MetricLine(msgspec.Struct, frozen=True):
    """One further metric on both arms."""

    canary: Buckets | None = None
    baseline: Buckets | None = None


class Line(msgspec.Struct, frozen=True):
    """One scrape."""

    t: float
    baseline: ArmLine | None = None
    canary: ArmLine | None = None
    weight: float = 0.0
    ready: bool = True
    generation: int = 0
    metrics: dict[str, MetricLine] = {}


@dataclass(frozen=True)
class Playing:
    """One rollout as it stands."""

    plan: Plan
    settings: Settings
    state: JudgeState = field(default_factory=JudgeState)
    step: int = 0
    ended: str = ""
    """`promote` or `rollback`, once it is over."""
    baking_since: float | None = None
    resting_since: float | None = None
    rest_for_fresh: bool = False
    generation: int = 0
    tripped_age: float = 0.0
    proven_age: float = 0.0
    """Pod age that must be reached before the step may end, after a return on fresh pods."""
    retreats: int = 0
    waits_for_person: bool = False
    last_t: float | None = None
    counters: dict[str, float] = field(default_factory=dict)
    """Last cumulative values, by arm, generation and counter."""
    blocks: dict[int, dict[str, tuple[float, float]]] = field(default_factory=dict)
    """History of baseline pods: requests and errors by block of five minutes."""

    @property
    def weight(self) -> float:
        """What must be in force from now on."""
        if self.ended:
            return 0.0 if self.ended == "rollback" else 100.0
        return 0.0 if self.resting_since is not None else self.plan.steps[self.step].weight


def begin(plan: Plan) -> Playing:
    """A rollout that has not started.

    Raises: ValueError: a plan that cannot be played; the message names field and fix.
    """
    if not plan.steps:
        raise ValueError("plan.steps: needs at least one step")
    if not plan.metrics:
        raise ValueError("plan.metrics: needs at least one metric")
    if not 0 < plan.false_rollback_rate < 1:
        raise ValueError("plan.falseRollbackRate: must be between 0 and 1")
    metrics = {}
    for name, one in plan.metrics.items():
        if one.kind not in ("errors", "latency"):
            raise ValueError(f"plan.metrics.{name}.kind: is {one.kind}, must be errors or latency")
        if one.kind == "latency" and one.threshold is None:
            raise ValueError(f"plan.metrics.{name}.threshold: give the bucket bound, in seconds, of a slow request")
        margin = one.margin if one.margin is not None else (0.0001 if one.kind == "errors" else 0.001)
        metrics[name] = MetricSettings(kind=one.kind, margin=margin, warmup=one.warmup)
    settings = Settings(
        metrics=metrics,
        false_rollback_rate=plan.false_rollback_rate,
        min_requests=plan.min_requests,
        scrape=plan.scrape,
        refill=plan.refill,
        horizon=max(sum(step.bake for step in plan.steps), 60.0),
    )
    return Playing(plan, settings)


def render_settings(playing: Playing) -> dict[str, Any]:
    """All that applies, defaults included."""
    settings = playing.settings
    return {
        "falseRollbackRate": settings.false_rollback_rate,
        "minRequests": settings.min_requests,
        "scrape": settings.scrape,
        "refill": settings.refill,
        "rest": REST,
        "metrics": {
            name: {"kind": one.kind, "margin": one.margin, "rho": one.rho, "warmup": one.warm_after}
            for name, one in settings.metrics.items()
        },
    }


def play(playing: Playing, line: Line) -> tuple[Playing, dict[str, Any]]:
    """Take in one scrape; what to do from now on. A time that does not rise changes nothing."""
    if playing.ended:
        return playing, _answer(playing, line, playing.ended)
    if playing.last_t is not None and line.t <= playing.last_t:
        return playing, _answer(playing, line, "continue", reason="OutOfOrder")
    if line.canary is None:
        return _history(playing, line)
    begun = playing.last_t if playing.last_t is not None and playing.last_t >= 0 else 0.0
    counters, arms = _differences(playing, line)
    playing = replace(playing, counters=counters, last_t=line.t)
    if playing.resting_since is not None:
        return _rest(playing, line)

    finding = judging.look(playing.state, playing.settings, now=line.t)
    if line.weight > 0 and arms:
        if playing.baking_since is None:
            playing = replace(playing, baking_since=begun)
        age = line.canary.age
        interval = Interval(begun, line.t, arms, line.canary.pods, line.baseline.pods if line.baseline else 0, age)
        state, finding = judging.judge(playing.state, interval, playing.settings)
        playing = replace(playing, state=state)
    return _move(playing, line, finding)


def _move(playing: Playing, line: Line, finding: Finding) -> tuple[Playing, dict[str, Any]]:
    """Cases stand in order of urgency: get out, relieve, hold, move on."""
    age = line.canary.age if line.canary else math.inf
    here = playing.plan.steps[playing.step]
    baked = playing.baking_since is not None and line.t >= playing.baking_since + here.bake
    if finding.verdict is Verdict.FAIL:
        over = replace(playing, ended="rollback")
        return over, _answer(over, line, "rollback", finding)
    if finding.tripped:
        return _retreat(playing, line, finding, age)
    if not baked:
        early = finding.verdict is Verdict.PASS or finding.reason == "TooFewRequests"
        return playing, _answer(playing, line, "continue", finding, reason="Baking" if early else finding.reason)
    if finding.verdict is not Verdict.PASS:
        return playing, _answer(playing, line, "hold", finding)
    if age < playing.proven_age:
        return playing, _answer(playing, line, "hold", finding, reason="PodsYoungerThanAtTrip")
    if playing.step == len(playing.plan.steps) - 1:
        over = replace(playing, ended="promote")
        return over, _answer(over, line, "promote", finding)
    climbed = replace(playing, step=playing.step + 1, baking_since=None, state=judging.step_began(playing.state))
    return climbed, _answer(climbed, line, "advance", finding)


def _retreat(playing: Playing, line: Line, finding: Finding, age: float) -> tuple[Playing, dict[str, Any]]:
    retreats = playing.retreats + 1
    if retreats >= RETREATS and playing.plan.origin not in ("human", "automation"):
        over = replace(playing, retreats=retreats, ended="rollback")
        return over, _answer(over, line, "rollback", finding, reason="TooManyRetreats")
    young = age < _young(playing.settings)
    resting = replace(
        playing,
        retreats=retreats,
        resting_since=line.t,
        rest_for_fresh=not young,
        generation=line.generation,
        tripped_age=age,
        baking_since=None,
        waits_for_person=retreats >= RETREATS,
    )
    return resting, _answer(resting, line, "retreat", finding, fresh=not young)


def _rest(playing: Playing, line: Line) -> tuple[Playing, dict[str, Any]]:
    """At weight 0: until the pods are old enough, or replaced and ready."""
    fresh, since = playing.rest_for_fresh, playing.resting_since or 0.0
    age = line.canary.age if line.canary else 0.0
    waiting = (
        line.t < since + REST
        or not line.ready
        or (fresh and line.generation <= playing.generation)
        or (not fresh and age < _young(playing.settings))
    )
    if playing.waits_for_person:
        return playing, _answer(playing, line, "hold", reason="TooManyRetreats")
    if waiting:
        return playing, _answer(playing, line, "continue", reason="Resting")
    back = replace(
        playing,
        state=judging.returned(playing.state, fresh=fresh, tripped_at_age=playing.tripped_age),
        resting_since=None,
        proven_age=1.5 * playing.tripped_age if fresh else playing.proven_age,
    )
    return back, _answer(back, line, "resume", reason="Rested")


def _young(settings: Settings) -> float:
    """Seconds of pod age: twice the warm-up, within one to two minutes."""
    warm_up = max(one.warm_after for one in settings.metrics.values())
    return min(max(2 * warm_up, YOUNG), 2 * YOUNG)


def _differences(playing: Playing, line: Line) -> tuple[dict[str, float], dict[str, Arms]]:
    """Increases of every counter since the last line, by metric; a smaller value is a reset."""
    counters = dict(playing.counters)

    def grown(key: str, value: float, *, new_is_zero: bool) -> float:
        last = counters.get(key)
        counters[key] = value
        if last is None:
            return value if new_is_zero else 0.0
        return value - last if value >= last else value

    def arm(side: str, seen: ArmLine) -> Counts:
        ours = side.startswith("canary")
        requests = grown(f"{side}.requests", seen.requests, new_is_zero=ours)
        errors = grown(f"{side}.errors", seen.errors, new_is_zero=ours)
        return Counts(max(requests, errors), errors)

    def slow(side: str, seen: Buckets, bound: float) -> Counts | None:
        ours = side.startswith("canary")
        fast = [count for upper, count in seen.buckets.items() if upper != "+Inf" and float(upper) == bound]
        if not fast or "+Inf" not in seen.buckets:
            return None
        total = grown(f"{side}.total", seen.buckets["+Inf"], new_is_zero=ours)
        return Counts(total, min(max(total - grown(f"{side}.fast", fast[0], new_is_zero=ours), 0.0), total))

    arms: dict[str, Arms] = {}
    if line.canary is None or line.baseline is None:
        return counters, arms
    mine = f"canary{line.generation}"
    first_baseline = "baseline.requests" not in counters
    both = Arms(arm(mine, line.canary), arm("baseline", line.baseline))
    for name, one in playing.plan.metrics.items():
        if one.kind == "errors":
            arms[name] = both
            continue
        seen = line.metrics.get(name)
        if seen is None or seen.canary is None or seen.baseline is None:
            continue
        bound = one.threshold or 0.0
        canary, baseline = slow(f"{mine}.{name}", seen.canary, bound), slow(f"baseline.{name}", seen.baseline, bound)
        if canary is not None and baseline is not None:
            arms[name] = Arms(canary, baseline)
    if first_baseline:
        # The baseline's first line only says where its counters stand; what the canary did is compared next time.
        return playing.counters | {key: value for key, value in counters.items() if key.startswith("baseline")}, {}
    return counters, arms


def _history(playing: Playing, line: Line) -> tuple[Playing, dict[str, Any]]:
    """A line without canary: before the start it teaches the noise of pods, after it there is nothing to compare."""
    if line.t > 0 or line.baseline is None:
        return replace(playing, last_t=line.t), _answer(playing, line, "continue", reason="NoCanaryData")
    counters, blocks = dict(playing.counters), dict(playing.blocks)
    counters |= {"baseline.requests": line.baseline.requests, "baseline.errors": line.baseline.errors}
    index = math.floor(line.t / BLOCK)
    block = dict(blocks.get(index, {}))
    for pod, one in line.baseline.by_pod.items():
        keys = (f"pod.{pod}.requests", f"pod.{pod}.errors")
        if keys[0] in counters:
            was = block.get(pod, (0.0, 0.0))
            more = [now - counters[key] for key, now in zip(keys, (one.requests, one.errors), strict=True)]
            block[pod] = (was[0] + max(more[0], 0.0), was[1] + max(more[1], 0.0))
        counters |= dict(zip(keys, (one.requests, one.errors), strict=True))
    if block:
        blocks[index] = block
    playing = replace(playing, counters=counters, blocks=blocks, last_t=line.t, state=_learned(playing.state, blocks))
    return playing, _answer(playing, line, "continue", short=True)


def _learned(state: JudgeState, blocks: dict[int, dict[str, tuple[float, float]]]) -> JudgeState:
    pods = set.intersection(*(set(block) for block in blocks.values())) if blocks else set()
    if len(pods) < 2:
        return state
    seen = np.array([[block[pod] for pod in sorted(pods)] for _, block in sorted(blocks.items())])
    return judging.learn_noise(state, seen[:, :, 0], seen[:, :, 1], block=BLOCK)


def _answer(
    playing: Playing,
    line: Line,
    decision: str,
    finding: Finding | None = None,
    *,
    reason: str = "",
    fresh: bool | None = None,
    short: bool = False,
) -> dict[str, Any]:
    answer: dict[str, Any] = {"t": line.t, "decision": decision, "step": playing.step, "weight": playing.weight}
    if fresh is not None:
        answer["fresh"] = fresh
    if short:
        return answer
    answer["reason"] = reason or (finding.reason if finding else playing.ended.capitalize())
    if finding is not None and finding.metric:
        answer |= {
            "metric": finding.metric,
            "effect": round(finding.effect, 6),
            "interval": list(finding.interval),
            "margin": finding.margin,
            "canary": msgspec.to_builtins(finding.canary),
            "baseline": msgspec.to_builtins(finding.baseline),
            "evidence": round(finding.evidence, 3),
            "threshold": round(finding.threshold, 3),
            "wouldChange": finding.would_change,
        }
    return answer
