"""The rules of other tools, and of textbooks, on the same simulated traffic: for comparison, not for use.

Re-implemented from what their documentation says and their code does; none of that code is here. None of them
takes traffic away and gives it back, so all of them watch one stream: four steps of ten minutes each.
A rule gets a recorded stream and returns when it would have rolled back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from tests.statistics.rollouts import STEPS, Outcome, Scenario, counts_of_tick
from tests.statistics.worlds import CANARY_PODS, Floats, Mask, Pods


@dataclass(frozen=True)
class Stream:
    """What a rollout that nobody stops would show, scrape by scrape. Counts have shape (rollouts, ticks)."""

    dt: float
    n_c: Floats
    e_c: Floats
    n_b: Floats
    e_b: Floats
    expected: Floats
    """The baseline's true ratio without the noise of pods, which only the oracle knows. Shape (rollouts, ticks)."""

    def by(self, seconds: float) -> Stream:
        """The same counts over longer, disjoint windows."""
        k = round(seconds / self.dt)

        def summed(values: Floats) -> Floats:
            whole = values.shape[1] // k * k
            result: Floats = values[:, :whole].reshape(len(values), -1, k).sum(axis=2)
            return result

        n_c, e_c, n_b, e_b = (summed(values) for values in (self.n_c, self.e_c, self.n_b, self.e_b))
        return Stream(seconds, n_c, e_c, n_b, e_b, summed(self.expected) / k)


def record(scenario: Scenario, *, rollouts: int, seed: int | list[int]) -> Stream:
    """Let the plan run to its end, whatever happens to the users."""
    rng = np.random.default_rng(seed)
    pods = Pods(rollouts, scenario.noise, scenario.dt, rng)
    born = np.zeros((rollouts, CANARY_PODS))
    seen: list[Floats] = []
    per_step = round(scenario.bake / scenario.dt)
    for tick in range(per_step * len(STEPS)):
        step, t = tick // per_step, (tick + 1) * scenario.dt
        weight, count = STEPS[step]
        if tick % per_step == 0 and step:
            born[:, STEPS[step - 1][1] : count] = t - scenario.dt
        age = np.where(np.arange(CANARY_PODS) < count, t - born, np.inf)
        n, e = counts_of_tick(scenario, pods, t, age, np.full(rollouts, weight), np.full(rollouts, count), rng)
        seen.append(np.stack([n[1], e[1], n[0], e[0], pods.expected(t)], axis=1))
    whole = np.stack(seen, axis=2).astype(float)
    return Stream(scenario.dt, *(whole[:, index] for index in range(5)))


def outcome(stream: Stream, rolled_back: Floats) -> Outcome:
    """What users got from a rule that rolls back at these times; nan is never, which promotes."""
    ends = np.arange(1, stream.n_c.shape[1] + 1) * stream.dt
    until = np.where(np.isnan(rolled_back), np.inf, rolled_back)[:, None]
    promoted = np.where(np.isnan(rolled_back), ends[-1], np.nan)
    served = np.where(ends[None, :] <= until, stream.e_c, 0.0).sum(axis=1)
    nobody = np.zeros(len(rolled_back))
    return Outcome(rolled_back, rolled_back, promoted, nobody, served, nobody > 0, nobody > 0)


def argo(stream: Stream, *, interval: float = 60.0, limit: int = 3) -> Floats:
    """Argo Rollouts: success >= 99 % in each window, one without traffic fails, more than `limit` failures abort."""
    failed = _below(stream.by(interval), 0.99).cumsum(axis=1)
    return _first(failed > limit, interval)


def flagger(stream: Stream, *, interval: float = 60.0, threshold: int = 5) -> Floats:
    """Flagger: the same check; after `threshold` failures in all, the next tick rolls back."""
    failed = _below(stream.by(interval), 0.99).cumsum(axis=1)
    late = np.pad(failed, ((0, 0), (1, 0)))[:, :-1]
    return _first(late >= threshold, interval)


def kayenta(stream: Stream, *, every: int = 5, least: int = 10, confidence: float = 0.98) -> Floats:
    """Kayenta: Mann-Whitney on one-minute points of the error ratio, over a window that grows, judged every 5 min.

    High, which fails, where the lower end of the Hodges-Lehmann interval is above a quarter of the estimate and
    the mean is not lower; points without traffic are removed.
    """
    minutes = stream.by(60.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        ours, theirs = minutes.e_c / minutes.n_c, minutes.e_b / minutes.n_b
    result = np.full(len(ours), np.nan)
    for points in range(least, ours.shape[1] + 1, every):
        for row in np.flatnonzero(np.isnan(result)):
            if _is_high(ours[row, :points], theirs[row, :points], confidence):
                result[row] = points * 60.0
    return result


def z_test(stream: Stream, *, alpha: float = 0.01) -> Floats:
    """A pooled two-proportion test at every scrape, as if each were the only one."""
    n_c, e_c, n_b, e_b = _so_far(stream)
    pooled = (e_c + e_b) / (n_c + n_b)
    spread = np.sqrt(pooled * (1 - pooled) * (1 / n_c + 1 / n_b))
    with np.errstate(invalid="ignore", divide="ignore"):
        z = (e_c / n_c - e_b / n_b) / spread
    return _first(np.nan_to_num(z) > stats.norm.isf(alpha), stream.dt)


def msprt(stream: Stream, *, alpha: float = 0.01, tau: float = 0.002) -> Floats:
    """Mixture SPRT on pooled counts, normal mixture of sd `tau`: valid while watched, if requests were independent."""
    n_c, e_c, n_b, e_b = _so_far(stream)
    pooled = (e_c + e_b + 0.5) / (n_c + n_b + 1)
    variance = pooled * (1 - pooled) * (1 / n_c + 1 / n_b)
    d = e_c / n_c - e_b / n_b
    log_ratio = 0.5 * np.log(variance / (variance + tau**2)) + tau**2 * d**2 / (2 * variance * (variance + tau**2))
    return _first((log_ratio >= -np.log(alpha)) & (d > 0), stream.dt)


def oracle(stream: Stream, *, ratio: float, alpha: float = 0.01) -> Floats:
    """The likelihood ratio of somebody who knows both ratios and whose requests are independent: the bound of speed."""
    worse = np.maximum(stream.expected, ratio)
    gain = stream.e_c * np.log(worse / stream.expected) + (stream.n_c - stream.e_c) * np.log(
        (1 - worse) / (1 - stream.expected)
    )
    return _first(gain.cumsum(axis=1) >= -np.log(alpha), stream.dt)


RULES: dict[str, Callable[[Stream], Floats]] = {
    "argo": argo,
    "argo 15 s": lambda stream: argo(stream, interval=15.0),
    "flagger": flagger,
    "kayenta": kayenta,
    "z-test": z_test,
    "mSPRT": msprt,
}
"""Beside `oracle`, which has to be told what to look for."""


def _below(windows: Stream, success: float) -> Mask:
    """Whether a check fails; NaN is not >= anything."""
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Mask = ~(1 - windows.e_c / windows.n_c >= success)
    return result


def _so_far(stream: Stream) -> tuple[Floats, Floats, Floats, Floats]:
    counts = (values.cumsum(axis=1) for values in (stream.n_c, stream.e_c, stream.n_b, stream.e_b))
    n_c, e_c, n_b, e_b = counts
    return np.maximum(n_c, 1.0), e_c, np.maximum(n_b, 1.0), e_b


def _first(hit: Mask, dt: float) -> Floats:
    """Seconds at which each row first is true; nan for never."""
    return np.where(hit.any(axis=1), (hit.argmax(axis=1) + 1) * dt, np.nan)


def _is_high(ours: Floats, theirs: Floats, confidence: float, *, tolerance: float = 0.25) -> bool:
    ours, theirs = ours[np.isfinite(ours)], theirs[np.isfinite(theirs)]
    n, m = len(ours), len(theirs)
    if n == 0 or m == 0 or theirs.mean() == 0.0 or ours.mean() < theirs.mean():
        return False
    differences = np.sort(np.subtract.outer(ours, theirs).ravel())
    _, ties = np.unique(np.concatenate([ours, theirs]), return_counts=True)
    spread = np.sqrt(n * m / 12 * (n + m + 1 - (ties**3 - ties).sum() / ((n + m) * (n + m - 1))))
    rank = int(np.floor(n * m / 2 - stats.norm.isf((1 - confidence) / 2) * spread))
    low = differences[rank] if 0 <= rank < n * m else -np.inf
    return bool(low > tolerance * abs(np.median(differences)))
