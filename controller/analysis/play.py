"""A judge without a cluster: plays the steps of one rollout over summed counters, one line at a time.

It does what the loop does with the judge's findings (`judge.py`, `retreat.py`), with the lines' `t` as
the clock, so that anyone can try the judge on their own data. What a rollout remembers is immutable.
"""

from __future__ import annotations

import math
from dataclasses import replace as with_changes
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace

from controller.analysis import gauges, histogram, planning, retreat
from controller.analysis import judge as judging
from controller.analysis.gauges import GaugeState
from controller.analysis.histogram import Native
from controller.analysis.increments import Arms, Counts, Interval, Slower
from controller.analysis.judge import Finding, JudgeState, MetricSettings, Settings, Verdict

BLOCK = 300.0
"""Seconds of baseline history that are looked at together when the noise of pods is learned."""
KINDS = ("errors", "latency", "ratio", "gauge")
CHOICES = {"onTrip": ("confirm", "rollback"), "onInconclusive": ("hold", "advance"), "advance": ("baked", "early")}
VOUCHED = ("human", "automation")


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
    scrape: float = 5.0
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
    metrics: dict[str, MetricLine] = {}


class Playing(msgspec.Struct, frozen=True):
    """One rollout as it stands."""

    plan: Plan
    settings: Settings
    state: JudgeState = JudgeState()
    step: int = 0
    ended: str = ""
    """`promote` or `rollback`, once it is over."""
    baking_since: float | None = None
    generation: int = 0
    born: float = 0.0
    """When the canary's generation was first seen."""
    retreats: int = 0
    """Those of pods that were not young."""
    waits_for_person: bool = False
    last_t: float | None = None
    last_scrape: float | None = None
    """The last line with both arms."""
    counters: dict[str, float] = {}
    """Last cumulative values, by arm, generation and counter."""
    blocks: dict[int, dict[str, tuple[float, float]]] = {}
    """History of baseline pods: requests and errors by block of five minutes."""
    bounds: dict[str, tuple[float, ...]] = {}
    """Of each latency, once both arms were seen."""
    gauges: dict[str, GaugeState] = {}

    @property
    def weight(self) -> float:
        """What must be in force from now on."""
        if self.ended:
            return 0.0 if self.ended == "rollback" else 100.0
        if self.state.rest is not None:
            return 0.0
        return min(self.here.weight, self.state.limit)

    @property
    def here(self) -> Step:
        """The step the rollout is on."""
        return self.plan.steps[self.step]


def begin(plan: Plan) -> Playing:
    """A rollout that has not started.

    Raises: ValueError: a plan that cannot be played; the message begins with the field and says the fix.
    """
    _check(plan)
    metrics = {}
    for name, one in plan.metrics.items():
        if one.kind == "gauge":
            continue
        margin = one.margin if one.margin is not None else (0.001 if one.kind == "latency" else 0.0001)
        metrics[name] = MetricSettings(
            kind=one.kind, margin=margin, warmup=one.warmup, weight=one.weight, objective=one.objective
        )
    settings = Settings(
        metrics=metrics,
        false_rollback_rate=plan.false_rollback_rate,
        min_requests=plan.min_requests,
        scrape=plan.scrape,
        refill=plan.refill,
        horizon=max(sum(step.bake for step in plan.steps), 60.0),
    )
    return Playing(plan, settings)


def _check(plan: Plan) -> None:
    if not plan.steps:
        raise ValueError("plan.steps: needs at least one step")
    for number, step in enumerate(plan.steps):
        if not 0 < step.weight <= 100:
            raise ValueError(f"plan.steps[{number}].weight: is {step.weight:g}, must be above 0 and at most 100")
        if not (step.bake >= 0 and math.isfinite(step.bake)):
            raise ValueError(f"plan.steps[{number}].bake: is {step.bake:g}, must be seconds, 0 or more")
    if not any(one.kind != "gauge" for one in plan.metrics.values()):
        raise ValueError("plan.metrics: needs at least one metric that is not a gauge: gauges only advise")
    if not 0 < plan.false_rollback_rate < 1:
        raise ValueError("plan.falseRollbackRate: must be between 0 and 1")
    for field_name, value in (("scrape", plan.scrape), ("refill", plan.refill)):
        if not 0 < value < math.inf:
            raise ValueError(f"plan.{field_name}: is {value:g}, must be above 0")
    for field_name, found in (
        ("onTrip", plan.on_trip),
        ("onInconclusive", plan.on_inconclusive),
        ("advance", plan.advance),
    ):
        if found not in CHOICES[field_name]:
            raise ValueError(f"plan.{field_name}: is {found}, must be {' or '.join(CHOICES[field_name])}")
    for name, one in plan.metrics.items():
        if one.kind not in KINDS:
            raise ValueError(f"plan.metrics.{name}.kind: is {one.kind}, must be one of {', '.join(KINDS)}")
        if one.margin is not None and not 0 <= one.margin < 1:
            raise ValueError(f"plan.metrics.{name}.margin: is {one.margin:g}, must be a fraction from 0 to 1")
        if one.weight is not None and not 0 < one.weight < math.inf:
            raise ValueError(f"plan.metrics.{name}.weight: is {one.weight:g}, must be above 0")


def render_settings(playing: Playing) -> dict[str, Any]:
    """All that applies, defaults included."""
    settings, plan = playing.settings, playing.plan
    return {
        "falseRollbackRate": settings.false_rollback_rate,
        "minRequests": settings.min_requests,
        "scrape": settings.scrape,
        "refill": settings.refill,
        "onTrip": plan.on_trip,
        "onInconclusive": plan.on_inconclusive,
        "advance": plan.advance,
        "rest": retreat.REST,
        "retreats": retreat.RETREATS,
        "metrics": {
            name: {
                "kind": one.kind,
                "margin": one.margin,
                "rho": one.rho,
                "warmup": one.warm_after,
                "young": one.young_below,
                "weight": round(math.exp(settings.log_weights[name]), 4),
            }
            | ({} if one.objective is None else {"objective": one.objective})
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
        return _without_canary(playing, line)
    began = max(playing.last_scrape, 0.0) if playing.last_scrape is not None else 0.0
    if line.generation != playing.generation or playing.last_scrape is None:
        playing = replace(playing, generation=line.generation, born=began)
    playing = _with_bounds(playing, line)
    counters, arms, slower = _differences(playing, line)
    playing = replace(playing, counters=counters, last_t=line.t, gauges=_gauges(playing, line))
    age = line.canary.age if line.canary.age is not None else line.t - playing.born
    in_force = playing.weight if line.weight is None else line.weight
    if arms:
        playing = replace(playing, last_scrape=line.t)
    if playing.state.rest is not None:
        return _rest(playing, line, age)

    finding = None
    if in_force > 0 and arms:
        if playing.baking_since is None:
            playing = replace(playing, baking_since=began)
        pods = line.baseline.pods if line.baseline else 0
        interval = Interval(began, line.t, arms, line.canary.pods, pods, age, slower)
        state, finding = judging.judge(playing.state, interval, playing.settings)
        playing = replace(playing, state=state)
    if finding is None:
        finding = judging.look(playing.state, playing.settings, now=line.t)
    return _move(playing, line, finding, age)


def _move(playing: Playing, line: Line, finding: Finding, age: float) -> tuple[Playing, dict[str, Any]]:
    """Cases stand in order of urgency: get out, relieve, hold, move on."""
    plan, state = playing.plan, playing.state
    since = line.t - playing.baking_since if playing.baking_since is not None else -1.0
    early = plan.advance == "early" and finding.certified and since >= 2 * playing.settings.scrape
    advice = [words for name, one in playing.gauges.items() if (words := gauges.advice(name, one))]
    if finding.verdict is Verdict.FAIL or (finding.tripped and plan.on_trip == "rollback"):
        over = replace(playing, ended="rollback")
        return over, _answer(over, line, "rollback", finding)
    if finding.tripped:
        return _retreat(playing, line, finding, age)
    if retreat.climbs(state, finding, playing.settings, now=line.t):
        climbed = replace(playing, state=retreat.climbed(state), baking_since=None)
        return climbed, _answer(climbed, line, "continue", finding, reason="Climbing")
    if (since < playing.here.bake and not early) or playing.weight < playing.here.weight:
        baking = finding.verdict is Verdict.PASS or finding.reason == "TooFewRequests"
        return playing, _answer(playing, line, "continue", finding, reason="Baking" if baking else finding.reason)
    if finding.verdict is not Verdict.PASS:
        return playing, _answer(playing, line, "hold", finding)
    if advice:
        return playing, _answer(playing, line, "hold", finding, reason="GaugeHigher", would_change=advice[0])
    if age < state.proven_age:
        younger = f"canary pods older than {state.proven_age:.0f} s"
        return playing, _answer(playing, line, "hold", finding, reason="PodsYoungerThanAtTrip", would_change=younger)
    if playing.step == len(plan.steps) - 1:
        if not finding.certified and plan.on_inconclusive == "hold":
            missing = finding.uncertified
            return playing, _answer(playing, line, "hold", finding, reason="NotCertified", would_change=missing)
        over = replace(playing, ended="promote")
        reason = "Certified" if finding.certified else "PromotedUncertified"
        return over, _answer(over, line, "promote", finding, reason=reason)
    climbed = replace(playing, step=playing.step + 1, baking_since=None, state=judging.next_step(state))
    return climbed, _answer(climbed, line, "advance", finding)


def _retreat(playing: Playing, line: Line, finding: Finding, age: float) -> tuple[Playing, dict[str, Any]]:
    state = retreat.retreated(playing.state, playing.settings, now=line.t, age=age, metric=finding.metric)
    assert state.rest is not None
    retreats = playing.retreats + state.rest.fresh
    too_often = state.rest.fresh and retreats >= retreat.RETREATS
    if too_often and playing.plan.origin not in VOUCHED:
        over = replace(playing, retreats=retreats, ended="rollback")
        return over, _answer(over, line, "rollback", finding, reason="RetreatedTooOften")
    resting = replace(playing, retreats=retreats, state=state, baking_since=None, waits_for_person=too_often)
    if state.rest.fresh:
        return resting, _answer(resting, line, "retreat", finding, fresh=True)
    young = (
        f"the same pods come back at an age of {state.rest.old_at:.0f} s; if it was their start, "
        "set warmup, or fix readiness"
    )
    return resting, _answer(resting, line, "retreat", finding, fresh=False, would_change=young)


def _rest(playing: Playing, line: Line, age: float) -> tuple[Playing, dict[str, Any]]:
    """At weight 0: until the pods are old enough, or replaced and ready."""
    rest, settings = playing.state.rest, playing.settings
    assert rest is not None
    if playing.waits_for_person:
        return playing, _answer(playing, line, "hold", reason="RetreatedTooOften")
    replaced = playing.born >= rest.since
    if not line.ready or not retreat.rested(rest, now=line.t, age=age, replaced=replaced):
        return playing, _answer(playing, line, "continue", reason="Resting")
    state = retreat.returned(playing.state, settings, now=line.t, weight=playing.here.weight)
    back = replace(playing, state=state, baking_since=None)
    return back, _answer(back, line, "resume", reason="Rested")


def _without_canary(playing: Playing, line: Line) -> tuple[Playing, dict[str, Any]]:
    """Before the start it teaches the noise of pods; after it there is nothing to compare."""
    if line.t > 0 or line.baseline is None:
        playing = replace(playing, last_t=line.t)
        if playing.last_scrape is None or line.t > playing.last_scrape + judging.STALE_AFTER * playing.settings.scrape:
            return playing, _answer(playing, line, "hold", reason="NoCanaryData")
        return playing, _answer(playing, line, "continue", reason="NoCanaryData")
    counters, blocks = dict(playing.counters), dict(playing.blocks)
    rate = playing.state.rate
    if playing.last_t is not None and "baseline.requests" in counters:
        grown = line.baseline.requests - counters["baseline.requests"]
        rate = grown / (line.t - playing.last_t) if grown >= 0 else rate
    counters |= {"baseline.requests": line.baseline.requests, "baseline.errors": line.baseline.errors}
    for name, one in playing.plan.metrics.items():
        seen = line.metrics.get(name)
        if seen is not None and seen.baseline is not None and one.kind == "ratio":
            counters |= {f"baseline.{name}": seen.baseline.requests or 0.0, f"baseline.{name}.bad": seen.baseline.bad}
    index = math.floor(line.t / BLOCK)
    block = dict(blocks.get(index, {}))
    for pod, counted in line.baseline.by_pod.items():
        keys = (f"pod.{pod}.requests", f"pod.{pod}.errors")
        if keys[0] in counters:
            was = block.get(pod, (0.0, 0.0))
            more = [now - counters[key] for key, now in zip(keys, (counted.requests, counted.errors), strict=True)]
            block[pod] = (was[0] + max(more[0], 0.0), was[1] + max(more[1], 0.0))
        counters |= dict(zip(keys, (counted.requests, counted.errors), strict=True))
    if block:
        blocks[index] = block
    state = with_changes(_learned(playing.state, blocks), rate=rate)
    playing = replace(playing, counters=counters, blocks=blocks, last_t=line.t, last_scrape=line.t, state=state)
    return playing, _answer(playing, line, "continue", short=True)


def _learned(state: JudgeState, blocks: dict[int, dict[str, tuple[float, float]]]) -> JudgeState:
    pods = set.intersection(*(set(block) for block in blocks.values())) if blocks else set()
    if len(pods) < 2 or len(blocks) * BLOCK < 7200.0:
        return state
    seen = np.array([[block[pod] for pod in sorted(pods)] for _, block in sorted(blocks.items())])
    return judging.learn_noise(state, seen[:, :, 0], seen[:, :, 1], block=BLOCK)


def outlook(playing: Playing) -> planning.Outlook | None:
    """What the plan can see with the traffic of the history; None without history."""
    requests = sum(one[0] for block in playing.blocks.values() for one in block.values())
    errors = sum(one[1] for block in playing.blocks.values() for one in block.values())
    if requests <= 0 or playing.state.rate <= 0:
        return None
    first = next(iter(playing.settings.metrics.values()))
    return planning.outlook(
        [(step.weight, step.bake) for step in playing.plan.steps],
        rate=playing.state.rate,
        ratio=errors / requests,
        margin=first.margin,
        rho=first.rho,
        alpha=playing.settings.false_rollback_rate,
        scrape=playing.settings.scrape,
    )


# -- counters -----------------------------------------------------------------------------------------


def _grown(counters: dict[str, float], key: str, value: float, *, from_zero: bool) -> float:
    """Increase of one counter; a smaller value is a reset, and counts what the new process has counted."""
    last = counters.get(key)
    counters[key] = value
    if last is None:
        return value if from_zero else 0.0
    return value - last if value >= last else value


def _differences(playing: Playing, line: Line) -> tuple[dict[str, float], dict[str, Arms], dict[str, Slower]]:
    """Increases of every counter since the last line, by metric: those where both arms can be compared."""
    if line.canary is None or line.baseline is None:
        return playing.counters, {}, {}
    counters = dict(playing.counters)
    first = "baseline.requests" not in counters
    mine = f"canary{line.generation}"
    arms: dict[str, Arms] = {}
    slower: dict[str, Slower] = {}
    both = Arms(
        _counted(counters, mine, line.canary.requests, line.canary.errors),
        _counted(counters, "baseline", line.baseline.requests, line.baseline.errors),
    )
    for name, one in playing.plan.metrics.items():
        seen = line.metrics.get(name)
        if one.kind == "errors":
            arms[name] = both
        elif seen is None or seen.canary is None or seen.baseline is None:
            continue
        elif one.kind == "ratio" and seen.canary.requests is not None and seen.baseline.requests is not None:
            arms[name] = Arms(
                _counted(counters, f"{mine}.{name}", seen.canary.requests, seen.canary.bad),
                _counted(counters, f"baseline.{name}", seen.baseline.requests, seen.baseline.bad),
            )
        elif one.kind == "latency" and (bounds := playing.bounds.get(name)):
            ours, theirs = _histograms(seen.canary, seen.baseline)
            canary = _slower(counters, f"{mine}.{name}", ours, bounds)
            baseline = _slower(counters, f"baseline.{name}", theirs, bounds)
            if canary is not None and baseline is not None:
                shown = len(bounds) // 2
                arms[name] = Arms(Counts(canary[0], canary[1][shown]), Counts(baseline[0], baseline[1][shown]))
                slower[name] = Slower(canary[1], baseline[1])
    if first:
        # The baseline's first line only says where its counters stand; what the canary did is compared next time.
        return playing.counters | {key: now for key, now in counters.items() if key.startswith("baseline")}, {}, {}
    return counters, arms, slower


def _counted(counters: dict[str, float], key: str, requests: float, bad: float) -> Counts:
    ours = key.startswith("canary")
    grown = _grown(counters, f"{key}.requests", requests, from_zero=ours)
    errors = _grown(counters, f"{key}.errors", bad, from_zero=ours)
    return Counts(max(grown, errors), errors)


def _histograms(canary: MetricArm, baseline: MetricArm) -> tuple[dict[float, float], ...]:
    if canary.native is not None and baseline.native is not None:
        return histogram.native_bounds(canary.native, baseline.native)
    return histogram.parse_bounds(canary.buckets), histogram.parse_bounds(baseline.buckets)


def _slower(
    counters: dict[str, float], key: str, seen: dict[float, float], bounds: tuple[float, ...]
) -> tuple[float, tuple[float, ...]] | None:
    """Requests, and those slower than each bound; None where a bound is missing."""
    if not seen or any(bound not in seen for bound in bounds):
        return None
    ours = key.startswith("canary")
    total = _grown(counters, f"{key}.requests", seen[math.inf], from_zero=ours)
    within = [_grown(counters, f"{key}.{bound}", seen[bound], from_zero=ours) for bound in bounds]
    return total, tuple(min(max(total - fast, 0.0), total) for fast in within)


def _with_bounds(playing: Playing, line: Line) -> Playing:
    """Choose the bounds of every latency that has none yet, once both arms are seen."""
    chosen, metrics = dict(playing.bounds), dict(playing.settings.metrics)
    for name, one in playing.plan.metrics.items():
        seen = line.metrics.get(name)
        if one.kind != "latency" or name in chosen or seen is None or seen.canary is None or seen.baseline is None:
            continue
        ours, theirs = _histograms(seen.canary, seen.baseline)
        if one.threshold is not None:
            found = tuple(bound for bound in (one.threshold,) if bound in ours and bound in theirs)
        else:
            found = histogram.choose_bounds(theirs, ours)
        if found:
            chosen[name] = found
            metrics[name] = msgspec.structs.replace(metrics[name], bounds=len(found))
    if len(chosen) == len(playing.bounds):
        return playing
    return replace(playing, bounds=chosen, settings=msgspec.structs.replace(playing.settings, metrics=metrics))


def _gauges(playing: Playing, line: Line) -> dict[str, GaugeState]:
    watched = dict(playing.gauges)
    for name, one in playing.plan.metrics.items():
        seen = line.metrics.get(name)
        if one.kind != "gauge" or seen is None or seen.canary is None or seen.baseline is None:
            continue
        factor = 1.0 + (one.margin if one.margin is not None else gauges.FACTOR - 1.0)
        was = watched.get(name, GaugeState())
        watched[name] = gauges.watch(was, seen.canary.values, seen.baseline.values, now=line.t, factor=factor)
    return watched


def _answer(
    playing: Playing,
    line: Line,
    decision: str,
    finding: Finding | None = None,
    *,
    reason: str = "",
    fresh: bool | None = None,
    short: bool = False,
    would_change: str = "",
) -> dict[str, Any]:
    answer: dict[str, Any] = {"t": line.t, "decision": decision, "step": playing.step, "weight": playing.weight}
    if fresh is not None:
        answer["fresh"] = fresh
    if short:
        return answer
    answer["reason"] = reason or (finding.reason if finding else playing.ended.capitalize())
    if finding is not None and finding.metric:
        answer["metric"] = finding.metric
        answer["effect"] = round(finding.effect, 6)
        answer["interval"] = finding.interval
        answer["margin"] = finding.margin
        answer["canary"] = {"requests": finding.canary.requests, "errors": finding.canary.errors}
        answer["baseline"] = {"requests": finding.baseline.requests, "errors": finding.baseline.errors}
        answer["evidence"] = round(finding.evidence, 3)
        answer["threshold"] = round(finding.threshold, 3)
        answer["alarm"] = round(finding.alarm, 3)
        answer["certified"] = finding.certified
    if finding is not None:
        answer["wouldChange"] = would_change or finding.would_change
    return answer
