"""A/A over a service's own past: the judge played on stable pods alone, so that every alarm it raises is a false one.

Each pod in turn is called the canary and compared with the others, over window after window of the
history, through the same `play.py` that a rollout would go through. What comes out is the honest
estimate of how often this service's noise would have cost a retreat or a rollback, and the settings
under which it would not have. No chance is involved: the same history gives the same report.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from controller.analysis import play
from controller.analysis.evidence import Floats
from controller.analysis.lines import ArmLine, Line, Plan, PlannedMetric, Step

REFILLS = (0.1, 0.05, 0.025)
"""From quick to careful; the quickest that keeps the promise is proposed."""
MARGINS = (1.0, 3.0, 10.0)
"""Times the margin that was asked for, where no refill keeps the promise."""
FEW_RETREATS = 0.1
"""Share of replayed rollouts that may retreat before a more careful setting is proposed."""
LEAST_ROLLOUTS = 20
"""Fewer replayed rollouts say little about one in a hundred."""

MOST_PLAYED = 2400
"""Scrapes played for one pair of settings in a rehearsal: a quarter of a second."""


class Outcome(msgspec.Struct, frozen=True, rename="camel"):
    """What one pair of settings would have cost."""

    refill: float
    margin: float
    rollouts: int
    rolled_back: int
    retreated: int


class Report(msgspec.Struct, frozen=True, rename="camel"):
    """What was tried, and what is proposed: the first of the tried that keeps the promise, if any does."""

    seconds: float
    pods: int
    requests: float
    bad: float
    tried: tuple[Outcome, ...]
    proposed: Outcome | None
    message: str


def replay(requests: Floats, errors: Floats, *, plan: Plan, step: float) -> Report:
    """Play `plan` over the history.

    Args:
        requests, errors: shape (scrapes, pods), increases of each stable pod between two scrapes.
        plan: its bakes and settings are used; its weights are not, since a pod has the share it has.
        step: seconds between two scrapes.
    Raises: ValueError: fewer than two pods, or a history shorter than the plan.
    """
    scrapes, pods = requests.shape
    length = max(int(sum(one.bake for one in plan.steps) / step), 1)
    if pods < 2:
        raise ValueError(f"{pods} pod in the history: two or more are needed to compare one with the others")
    if scrapes < length:
        raise ValueError(
            f"the history has {scrapes * step:.0f} s and the plan takes {length * step:.0f} s: give a longer --since"
        )
    margin = next((one.margin for one in plan.metrics.values() if one.margin is not None), 0.0001)
    settings = [(refill, margin) for refill in REFILLS] + [(REFILLS[-1], times * margin) for times in MARGINS[1:]]
    tried: list[Outcome] = []
    for refill, allowed in settings:
        tried.append(_outcome(requests, errors, _with(plan, refill, allowed), step, length))
        if _keeps(tried[-1], plan):
            break
    proposed = tried[-1] if _keeps(tried[-1], plan) else None
    return Report(
        scrapes * step,
        pods,
        float(requests.sum()),
        float(errors.sum()),
        tuple(tried),
        proposed,
        _words(tried, proposed),
    )


def rehearse(requests: Floats, errors: Floats, *, plan: Plan, step: float) -> tuple[Outcome, str]:
    """What the settings as they are would have cost on a short and coarse history, and what that comes to in words.

    A cheap `replay`: windows are half of the history at most, few enough of them are played, and other settings only
    where these do not keep the promise. Arguments as for `replay`; the plan's own `refill` and margin are judged.
    Raises: ValueError: fewer than two pods.
    """
    scrapes, pods = requests.shape
    if pods < 2:
        raise ValueError(f"{pods} pod in the history: two or more are needed to compare one with the others")
    length = max(min(int(sum(one.bake for one in plan.steps) / step), scrapes // 2), 1)
    margin = next((one.margin for one in plan.metrics.values() if one.margin is not None), 0.0001)
    every = max(math.ceil((scrapes // length) * pods * length / MOST_PLAYED), 1)

    def cost(refill: float, allowed: float) -> Outcome:
        return _outcome(requests, errors, _with(plan, refill, allowed), step, length, every=every)

    now = cost(plan.refill, margin)
    told = f"{now.rollouts} harmless rollouts of {length * step / 60:.0f} min replayed"
    if now.rollouts < LEAST_ROLLOUTS:
        return now, f"{told}: too few to say how often this service's noise is mistaken for a fault"
    if _keeps(now, plan):
        return now, f"{told}: {now.retreated} retreated, {now.rolled_back} were rolled back"
    careful = [refill for refill in REFILLS if refill < plan.refill]
    tried = [cost(refill, margin) for refill in careful]
    tried += [cost(min(REFILLS[-1], plan.refill), times * margin) for times in MARGINS[1:]]
    kept = next((one for one in tried if _keeps(one, plan)), None)
    told += f": {now.retreated} retreated, {now.rolled_back} were rolled back, all wrongly"
    if kept is None:
        return now, f"{told}; no setting that was tried mends it: look for one bad pod or node"
    return now, f"{told}; write refill: {kept.refill:g} and margin: {kept.margin:g}"


def _keeps(one: Outcome, plan: Plan) -> bool:
    return one.rolled_back <= plan.false_rollback_rate * one.rollouts and one.retreated <= FEW_RETREATS * one.rollouts


def _with(plan: Plan, refill: float, margin: float) -> Plan:
    # The whole time is one step at the weight a pod has: nothing is promoted, everything is looked at.
    whole = Step(weight=100.0, bake=sum(one.bake for one in plan.steps) * 2)
    return msgspec.structs.replace(
        plan, steps=[whole], metrics={"errors": PlannedMetric(margin=margin)}, refill=refill, origin="human"
    )


def _outcome(requests: Floats, errors: Floats, plan: Plan, step: float, length: int, *, every: int = 1) -> Outcome:
    """Every pod is the canary of every window once, or with `every` each so manieth of them."""
    rollouts = rolled_back = retreated = number = 0
    for begin in range(0, requests.shape[0] - length + 1, length):
        window = slice(begin, begin + length)
        for pod in range(requests.shape[1]):
            number += 1
            if requests[window, pod].sum() <= 0 or number % every:
                continue
            ended, retreats = _play(requests[window], errors[window], pod, plan, step)
            rollouts += 1
            rolled_back += ended == "rollback"
            retreated += retreats > 0
    return Outcome(plan.refill, plan.metrics["errors"].margin or 0.0, rollouts, rolled_back, retreated)


def _play(requests: Floats, errors: Floats, pod: int, plan: Plan, step: float) -> tuple[str, int]:
    """One rollout in which `pod` is the canary. While it rests its own requests are nobody's."""
    playing = play.begin(plan)
    of_all, bad_of_all = requests.sum(axis=1), errors.sum(axis=1)
    ours = np.zeros(2)
    theirs = np.zeros(2)
    generation = trips = 0
    playing, _ = play.play(playing, Line(t=0.0, baseline=ArmLine(requests=0.0, pods=requests.shape[1] - 1)))
    for scrape in range(requests.shape[0]):
        mine = np.array([requests[scrape, pod], errors[scrape, pod]])
        theirs += np.array([of_all[scrape], bad_of_all[scrape]]) - mine
        if playing.weight > 0:
            ours += mine
        t = (scrape + 1) * step
        line = Line(
            t=t,
            canary=ArmLine(requests=ours[0], errors=ours[1], pods=1, age=t + 3600.0),
            baseline=ArmLine(requests=theirs[0], errors=theirs[1], pods=requests.shape[1] - 1),
            generation=generation,
        )
        playing, answer = play.play(playing, line)
        if answer["decision"] == "retreat":
            # Stable pods cannot be replaced in the past: the next one stands in for a fresh pod.
            trips += 1
            generation, pod, ours = generation + 1, (pod + 1) % requests.shape[1], np.zeros(2)
        if playing.ended:
            break
    return playing.ended, trips


def _words(tried: list[Outcome], proposed: Outcome | None) -> str:
    last = tried[-1]
    if last.rollouts < LEAST_ROLLOUTS:
        return (
            f"only {last.rollouts} rollouts fit into this history: too few to propose anything; give a longer --since"
        )
    if proposed is None:
        return (
            f"even refill {last.refill:g} with margin {last.margin:g} would have rolled back {last.rolled_back} and "
            f"taken {last.retreated} of {last.rollouts} harmless rollouts off traffic: its pods differ more than a "
            "canary may; look for one bad pod or node first"
        )
    return f"refill: {proposed.refill:g}, margin: {proposed.margin:g}"
