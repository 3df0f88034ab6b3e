"""A judge without a cluster: plays the steps of one rollout over summed counters, one line at a time.

It does what the loop does with the judge's findings (`judge.py`, `retreat.py`), with the lines' `t` as
the clock, so that anyone can try the judge on their own data. What a rollout remembers is immutable.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace

from controller.analysis import clock as clocks
from controller.analysis import counters as counting
from controller.analysis import gauges, histogram, past, retreat
from controller.analysis import judge as judging
from controller.analysis.clock import Clock, Reading
from controller.analysis.counters import SAME_SERIES, Counters
from controller.analysis.gauges import GaugeState
from controller.analysis.increments import Interval
from controller.analysis.judge import Finding, JudgeState, MetricSettings, Settings, Verdict
from controller.analysis.lines import ArmLine, Line, Plan, Step, check_line, check_plan

BLOCK = 60.0
"""Seconds of baseline history that are counted together: lines may come more often, or less."""
HISTORY = 86_400.0
"""Seconds of baseline history that are learned from, the newest: what is older says little of the pods of today."""
MOST_HISTORY_PODS = 1000
"""Pods that are compared with one another, those with most requests."""
ARRIVES = 60.0
"""Seconds within which the weight that was asked for has to reach the canary."""
SAME_FOR = 3
"""Lines in a row on which both arms read the same series, after which other counters are not theirs grown on."""
VOUCHED = ("human", "automation")
MOST_WEIGHT = 99.0
"""Percent of requests that a step may give to the canary, as `analysis.holdBack` of a Canary does by default."""


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
    """Those of pods that were not young, and that no burst explains."""
    waits_for_person: bool = False
    last_t: float | None = None
    """By the clock that `t` is read with."""
    clock: Clock = Clock()
    last_scrape: float | None = None
    """The last line with both arms."""
    waits_since: float | None = None
    """The first line with a canary, while the baseline was never seen."""
    counters: Counters = Counters()
    same: dict[str, int] = {}
    """Lines in a row on which both arms read the same series, by metric."""
    without_traffic_since: float | None = None
    """Since when lines say that the canary has weight 0 although it should have some."""
    blocks: dict[int, dict[str, tuple[float, float]]] = {}
    """History of baseline pods: requests and errors by block of a minute, until the canary is there."""
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
        """The step the rollout is on; something is held back on the baseline, else there is nothing to compare with."""
        step = self.plan.steps[self.step]
        return step if step.weight <= MOST_WEIGHT else msgspec.structs.replace(step, weight=MOST_WEIGHT)


def begin(plan: Plan) -> Playing:
    """A rollout that has not started.

    Raises: BadLine: a plan that cannot be played.
    """
    check_plan(plan)
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
        scrape=plan.scrape if plan.scrape is not None else Settings().scrape,
        refill=plan.refill,
        horizon=max(sum(step.bake for step in plan.steps), 60.0),
    )
    return Playing(plan, settings)


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
            | ({} if plan.metrics[name].threshold is None else {"threshold": plan.metrics[name].threshold})
            for name, one in settings.metrics.items()
        },
    }


def play(playing: Playing, line: Line) -> tuple[Playing, dict[str, Any]]:
    """Take in one scrape; what to do from now on. A time that cannot be believed changes nothing.

    Raises: BadLine: a line that cannot be meant.
    """
    if playing.ended:
        return playing, _answer(playing, line, playing.ended)
    check_line(line)
    clock, last = playing.clock, playing.last_t
    if clock.offset or clock.doubted is not None or (last is not None and not last < line.t <= last + clocks.LEAP):
        after, answer = _play_in_doubt(playing, line)
    else:
        after, answer = _play(playing, line)
    if after.bounds is not playing.bounds and (rounded := _rounded(after)):
        answer["settings"] = {"metrics": rounded}
    if after.ended:
        # Nothing is asked any more but what it came to.
        after = Playing(after.plan, after.settings, step=after.step, ended=after.ended)
    return after, answer


def _rounded(playing: Playing) -> dict[str, dict[str, float]]:
    """Thresholds that are no bucket bound, and the bound that stands for each."""
    planned = playing.plan.metrics
    return {
        name: {"threshold": bound}
        for name, (bound, *_) in playing.bounds.items()
        if planned[name].threshold not in (None, bound)
    }


def _play_in_doubt(playing: Playing, line: Line) -> tuple[Playing, dict[str, Any]]:
    """A line whose time contradicts the last one, or that comes after such lines."""
    last, scrape = playing.last_t, playing.settings.scrape
    late = counting.stands_behind(playing.counters, line)
    clock, reading = clocks.read(playing.clock, line.t, last, scrape, late=late)
    started = line.t > 0 or bool(playing.counters.generations)
    if last is not None and reading in (Reading.LATE, Reading.LEAPT):
        since = line.t + clock.offset - last
        would = f"a line that confirms t {line.t:g}, {since:g} s after the one before"
        if reading is Reading.LATE:
            would = f"t that rises: {line.t:g} is {-since:g} s before the last one" if since else "t that rises"
            would += ", and by its counters the line is an old one" if late else ""
        stays = started and (reading is Reading.LEAPT or clock.refused >= judging.STALE_AFTER)
        reason = "OutOfOrder" if reading is Reading.LATE else "TimeLeapt"
        doubting = replace(playing, clock=clock)
        decision = "hold" if stays else "continue"
        return doubting, _answer(doubting, line, decision, reason=reason, would_change=would)
    ahead = last is not None and line.t + playing.clock.offset > last
    if reading is Reading.TAKEN_UP and ahead and not playing.counters.generations:
        # Before there is a canary nothing has begun that a jump could shorten, and a history may be from yesterday.
        clock, reading = Clock(playing.clock.offset), Reading.BELIEVED
    at = line.t + clock.offset
    playing, told = replace(playing, clock=clock), line
    line = msgspec.structs.replace(line, t=at)
    if reading is Reading.BELIEVED:
        playing, answer = _play(playing, line)
        return playing, answer | {"t": told.t}
    counters = counting.stand(playing.counters, line, playing.plan, playing.bounds)
    both = line.canary is not None and line.baseline is not None
    known = at if both and playing.last_scrape is not None else playing.last_scrape
    playing = replace(playing, counters=counters, last_t=at, last_scrape=known)
    would = f"the next line: the clock was set, t is taken up from {told.t:g}, and nothing is counted until then"
    decision = "hold" if started else "continue"
    return playing, _answer(playing, told, decision, reason="TimeTakenUp", would_change=would)


def _play(playing: Playing, line: Line) -> tuple[Playing, dict[str, Any]]:
    """Take in one scrape at a time that is believed; `t` is by the rollout's own clock."""
    if line.canary is None:
        return _without_canary(playing, line)
    start, scrape = playing.clock.offset, playing.settings.scrape
    began = line.t - scrape if playing.last_scrape is None else playing.last_scrape
    # What came before the start is history, where the start is 0 and not some instant of a clock that counts up to 0.
    began = max(began, start) if line.t > start else began
    heard = began if playing.last_t is None else playing.last_t
    if line.generation != playing.generation or (playing.last_scrape is None and playing.waits_since is None):
        # Pods that the last line did not know are no older than it, though the last comparison may be long ago.
        playing = replace(playing, generation=line.generation, born=max(began, heard))
    if playing.blocks:
        playing = replace(playing, state=_learned(playing.state, playing.blocks), blocks={})
    playing = _with_bounds(playing, line)
    since = line.t - (playing.last_scrape if playing.last_scrape is not None else line.t)
    grown = counting.grow(playing.counters, line, playing.plan, playing.bounds, 2.0 * playing.state.rate * since)
    same = {name: playing.same.get(name, 0) + 1 for name, why in grown.missing.items() if why is SAME_SERIES}
    if playing.same and any(lines >= SAME_FOR and name not in same for name, lines in playing.same.items()):
        # Not the increase of what was read before: other series.
        grown = counting.Grown(counting.stand(playing.counters, line, playing.plan, playing.bounds))
        # What was not compared was no bake either.
        playing = replace(playing, baking_since=None)
    age = line.canary.age if line.canary.age is not None else line.t - playing.born
    in_force = playing.weight if line.weight is None else line.weight
    without = playing.without_traffic_since
    if (in_force <= 0 < playing.weight) is (without is None):
        without = line.t if without is None else None
    scraped, waits = playing.last_scrape, playing.waits_since
    if line.baseline is not None:
        scraped, waits = line.t, None
    elif scraped is None and waits is None:
        waits = line.t
    playing = replace(
        playing,
        counters=grown.counters,
        last_t=line.t,
        gauges=_gauges(playing, line),
        same=same,
        without_traffic_since=without,
        last_scrape=scraped,
        waits_since=waits,
    )
    if playing.state.rest is not None:
        return _rest(playing, line, age)

    finding = None
    if in_force > 0 and grown.arms:
        if playing.baking_since is None:
            # The first line after a history a minute old says nothing of when the canary got traffic.
            playing = replace(playing, baking_since=max(began, line.t - 2 * scrape))
        else:
            playing = _paced(playing, line.t - began)
        pods = line.baseline.pods if line.baseline else 0
        interval = Interval(began, line.t, grown.arms, line.canary.pods, pods, age, grown.slower)
        state, finding = judging.judge(playing.state, interval, playing.settings)
        playing = replace(playing, state=state)
    elif in_force > 0 and line.baseline is None:
        counters, alone = counting.grow_alone(playing.counters, line, playing.plan)
        state, finding = judging.judge_alone(playing.state, alone, playing.settings, start=heard, end=line.t)
        playing = replace(playing, counters=counters, state=state)
    if finding is None:
        finding = judging.look(playing.state, playing.settings, now=line.t)
    known = playing.waits_since if playing.last_scrape is None else playing.last_scrape
    if line.baseline is None and not finding.tripped and known is not None and _too_old(playing, known, line.t):
        return playing, _answer(playing, line, "hold", finding, reason="NoBaselineData")
    return _move(playing, line, finding, age, grown.missing)


def _paced(playing: Playing, seconds: float) -> Playing:
    """How far lines are apart, where the plan does not say: a line that was missed counts half as much again."""
    scrape = max(min(seconds, 1.5 * playing.settings.scrape), 0.5)
    if playing.plan.scrape is not None or scrape == playing.settings.scrape:
        return playing
    return replace(playing, settings=msgspec.structs.replace(playing.settings, scrape=scrape))


def _move(
    playing: Playing, line: Line, finding: Finding, age: float, missing: dict[str, tuple[str, str]]
) -> tuple[Playing, dict[str, Any]]:
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
    if missing and (SAME_SERIES in missing.values() or finding.reason == "NoData"):
        name = next(name for name, why in missing.items() if why is SAME_SERIES or SAME_SERIES not in missing.values())
        why, would = missing[name]
        return playing, _answer(playing, line, "hold", finding, reason=why, would_change=would)
    baked = since >= playing.here.bake or early
    if playing.without_traffic_since is not None and (baked or line.t - playing.without_traffic_since >= ARRIVES):
        zero = line.t - playing.without_traffic_since
        traffic = f"requests to the canary: its weight was 0 for {zero:.0f} s, {playing.weight:g} was asked for"
        return playing, _answer(playing, line, "hold", finding, reason="NoCanaryTraffic", would_change=traffic)
    if retreat.climbs(state, finding, playing.settings, now=line.t):
        climbed = replace(playing, state=retreat.climbed(state), baking_since=None)
        return climbed, _answer(climbed, line, "continue", finding, reason="Climbing")
    if not baked or playing.weight < playing.here.weight:
        baking = finding.verdict is Verdict.PASS or finding.reason == "TooFewRequests"
        return playing, _answer(playing, line, "continue", finding, reason="Baking" if baking else finding.reason)
    if finding.verdict is not Verdict.PASS:
        return playing, _answer(playing, line, "hold", finding)
    if not line.ready:
        unready = "canary pods that are ready"
        return playing, _answer(playing, line, "hold", finding, reason="CanaryNotReady", would_change=unready)
    if advice:
        return playing, _answer(playing, line, "hold", finding, reason="GaugeHigher", would_change=advice[0])
    if age < state.proven_age:
        younger = f"canary pods older than {state.proven_age:.0f} s"
        return playing, _answer(playing, line, "hold", finding, reason="PodsYoungerThanAtTrip", would_change=younger)
    if playing.step == len(plan.steps) - 1:
        if not finding.certified and plan.on_inconclusive == "hold":
            lacks = judging.describe_uncertified(state, playing.settings)
            return playing, _answer(playing, line, "hold", finding, reason="NotCertified", would_change=lacks)
        over = replace(playing, ended="promote")
        reason = "Certified" if finding.certified else "PromotedUncertified"
        return over, _answer(over, line, "promote", finding, reason=reason)
    climbed = replace(playing, step=playing.step + 1, baking_since=None, state=judging.next_step(state))
    return climbed, _answer(climbed, line, "advance", finding)


def _retreat(playing: Playing, line: Line, finding: Finding, age: float) -> tuple[Playing, dict[str, Any]]:
    state = retreat.retreated(playing.state, playing.settings, now=line.t, age=age, metric=finding.metric)
    assert state.rest is not None
    counts = state.rest.fresh and not state.rest.excused
    retreats = playing.retreats + counts
    too_often = counts and retreats >= retreat.RETREATS
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
    if playing.same:
        why, would = SAME_SERIES
        return playing, _answer(playing, line, "hold", reason=why, would_change=would)
    replaced = playing.born >= rest.since
    if not line.ready or not retreat.rested(rest, now=line.t, age=age, replaced=replaced):
        awaited = rest.fresh and not replaced and line.t >= rest.since + retreat.REST
        would = f"canary pods that were replaced: their lines carry generation {line.generation + 1}" if awaited else ""
        return playing, _answer(playing, line, "continue", reason="Resting", would_change=would)
    state = retreat.returned(playing.state, settings, now=line.t, weight=playing.here.weight)
    back = replace(playing, state=state, baking_since=None)
    return back, _answer(back, line, "resume", reason="Rested")


def _without_canary(playing: Playing, line: Line) -> tuple[Playing, dict[str, Any]]:
    """Before the start it teaches the noise of pods; after it there is nothing to compare."""
    known = playing.last_scrape
    if line.baseline is not None and not playing.counters.generations:
        playing = _taught(playing, line, line.baseline)
        known = 0.0
    playing = replace(playing, last_t=line.t)
    if line.t <= playing.clock.offset:
        return playing, _answer(playing, line, "continue", short=True)
    late = known is None or _too_old(playing, known, line.t)
    return playing, _answer(playing, line, "hold" if late else "continue", reason="NoCanaryData")


def _too_old(playing: Playing, known: float, now: float) -> bool:
    return now > known + playing.settings.stale_after


def _taught(playing: Playing, line: Line, baseline: ArmLine) -> Playing:
    """What the past of the baseline says: where its counters stand, its rate, and how its pods differ."""
    counters, rate = playing.counters, playing.state.rate
    if playing.last_t is not None and "baseline.requests" in counters.sums:
        grown = baseline.requests - counters.sums["baseline.requests"]
        rate = grown / (line.t - playing.last_t) if grown >= 0 else rate
    pods = counters.pods.get("baseline", counting.Pods())
    index = math.floor(line.t / BLOCK)
    block = dict(playing.blocks.get(index, {}))
    for pod, now in baseline.by_pod.items():
        last = pods.live.get(pod) or pods.gone.get(pod)
        if last is not None:
            so_far = block.get(pod, (0.0, 0.0))
            more = (max(now.requests - last.requests, 0.0), max(now.errors - last.errors, 0.0))
            block[pod] = (so_far[0] + more[0], so_far[1] + more[1])
    blocks = playing.blocks | {index: block} if block else playing.blocks
    if len(blocks) > HISTORY / BLOCK:
        oldest = min(blocks)
        blocks = {number: of for number, of in blocks.items() if number != oldest}
    counters = counting.stand(counters, line, playing.plan, playing.bounds)
    state = replace(playing.state, rate=rate)
    return replace(playing, counters=counters, blocks=blocks, last_scrape=line.t, state=state)


def _learned(state: JudgeState, blocks: dict[int, dict[str, tuple[float, float]]]) -> JudgeState:
    last = max(blocks, default=0)
    blocks = {index: block for index, block in blocks.items() if index > last - HISTORY / BLOCK}
    served = Counter[str]()
    for block in blocks.values():
        for pod, (requests, _) in block.items():
            served[pod] += int(requests)
    pods = {pod: column for column, pod in enumerate(sorted(dict(served.most_common(MOST_HISTORY_PODS))))}
    first = min(blocks, default=0)
    if len(pods) < 2 or (last - first + 1) * BLOCK < judging.LEAST_HISTORY:
        return state
    # Where a minute without a line is the rule, five minutes are one block.
    joined = 1 if len(blocks) > 0.9 * (last - first) else 5
    seen = np.zeros(((last - first) // joined + 1, len(pods), 2))
    for index, block in blocks.items():
        for pod, counted in block.items():
            if pod in pods:
                seen[(index - first) // joined, pods[pod]] += counted
    # One pod after the other cannot be compared, and would look as if pods never differed.
    if float(((seen[:, :, 0] > 0).sum(axis=1) > 1).mean()) < past.MOSTLY:
        return state
    return judging.learn_noise(state, seen[:, :, 0], seen[:, :, 1], block=BLOCK * joined)


def _with_bounds(playing: Playing, line: Line) -> Playing:
    """Choose the bounds of every latency that has none yet, once both arms are seen."""
    if not line.metrics:
        return playing
    chosen, metrics = dict(playing.bounds), dict(playing.settings.metrics)
    for name, one in playing.plan.metrics.items():
        seen = line.metrics.get(name)
        if one.kind != "latency" or name in chosen or seen is None or seen.canary is None or seen.baseline is None:
            continue
        if one.threshold is not None:
            found = counting.bounds_for(one.threshold, seen)
        else:
            ours, theirs = counting.read_histograms(seen.canary, seen.baseline)
            found = histogram.choose_bounds(theirs, ours)
        if found:
            chosen[name] = found
            metrics[name] = msgspec.structs.replace(metrics[name], bounds=len(found))
    if len(chosen) == len(playing.bounds):
        return playing
    return replace(playing, bounds=chosen, settings=msgspec.structs.replace(playing.settings, metrics=metrics))


def _gauges(playing: Playing, line: Line) -> dict[str, GaugeState]:
    if not line.metrics:
        return playing.gauges
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
    if finding is not None or would_change:
        answer["wouldChange"] = would_change or (finding.would_change if finding else "")
    return answer
