"""Memory, CPU and other gauges: advice that pauses a rollout, never a verdict that ends it.

A gauge has no counts and so no proof that holds at every look; compared as time series it is wrong in
15 to 31 of 100 harmless rollouts. What is left is a rule that is hard to set off: the
mean over the canary's pods above a factor of the stable pods' mean, for five minutes without a break.
Values are per pod, divided by the pod's limit or its traffic where that is known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

FACTOR = 1.2
PERSISTS = 300.0
"""Seconds."""


class GaugeState(msgspec.Struct, frozen=True, array_like=True):
    """How long the canary's mean has been above the limit, and both means when it was last read."""

    above_since: float | None = None
    through: float = -math.inf
    canary: float = 0.0
    baseline: float = 0.0


def watch(
    state: GaugeState, canary: Mapping[str, float], baseline: Mapping[str, float], *, now: float, factor: float = FACTOR
) -> GaugeState:
    """Take in one reading by pod; without values on both arms what was known stays, and its break is not counted.

    >>> high = watch(watch(GaugeState(), {"a": 1.3}, {"b": 1.0}, now=0.0), {"a": 1.3}, {"b": 1.0}, now=300.0)
    >>> advice("memory", high), advice("memory", watch(high, {"a": 1.1}, {"b": 1.0}, now=315.0))
    ('memory is 1.30 times that of stable pods for 300 s', '')
    """
    ours, theirs = _mean(canary), _mean(baseline)
    if ours is None or theirs is None or now <= state.through:
        return state
    above = ours > factor * theirs
    since = (state.above_since if state.above_since is not None else now) if above else None
    return GaugeState(since, now, ours, theirs)


def watch_all(
    canary: Mapping[str, Sequence[tuple[float, float]]],
    baseline: Mapping[str, Sequence[tuple[float, float]]],
    *,
    factor: float = FACTOR,
) -> GaugeState:
    """`watch` over a stretch of the past: (instant, value) of each pod, at instants that both arms share.

    >>> steady, rising = [(t, 1.0) for t in range(5)], [(t, 1.0 + t) for t in range(5)]
    >>> watch_all({"a": rising}, {"b": steady}, factor=2.5).above_since
    2
    """
    state = GaugeState()
    ours, theirs = _by_instant(canary), _by_instant(baseline)
    for at in sorted(ours.keys() & theirs.keys()):
        state = watch(state, ours[at], theirs[at], now=at, factor=factor)
    return state


def _by_instant(arm: Mapping[str, Sequence[tuple[float, float]]]) -> dict[float, dict[str, float]]:
    found: dict[float, dict[str, float]] = {}
    for pod, values in arm.items():
        for at, value in values:
            found.setdefault(at, {})[pod] = value
    return found


def advice(name: str, state: GaugeState, *, persists: float = PERSISTS) -> str:
    """Why the rollout should pause; empty while it need not."""
    if state.above_since is None or state.through - state.above_since < persists:
        return ""
    times = f"{state.canary / state.baseline:.2f} times that" if state.baseline > 0 else "above that"
    return f"{name} is {times} of stable pods for {state.through - state.above_since:.0f} s"


def _mean(values: Mapping[str, float]) -> float | None:
    usable = [value for value in values.values() if math.isfinite(value) and value >= 0]
    return sum(usable) / len(usable) if usable else None
