"""How simulated pods fail: the noise that is nobody's fault, and the faults of a revision.

One row is one rollout, one column one pod: the baseline's first, the canary's after them. All noise is
assumed, not measured: replay of a service's own history is how it finds its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

BASELINE_PODS = 20
CANARY_PODS = 10
PODS = BASELINE_PODS + CANARY_PODS
NODES = 8


@dataclass(frozen=True)
class Noise:
    """How pods differ from a coin. Standard deviations are of logarithms; rates per pod-hour; lengths in seconds."""

    gamma: float = 0.0
    """CV^2 of an independent factor per tick."""
    ar_sd: float = 0.0
    ar_seconds: float = 60.0
    persistent_sd: float = 0.0
    bursts: float = 0.0
    burst_seconds: float = 20.0
    burst_ratio: float = 0.05
    incident: float = 1.0
    """Factor on both arms for three minutes, once a rollout."""
    cold: float = 1.0
    """Factor on new pods for `cold_seconds`."""
    cold_seconds: float = 60.0
    base: float = 0.001
    """Share of requests that fail anyway."""

    pink_sd: float = 0.0
    """Drift of single pods on three time scales at once: 10 s, 100 s and 1000 s."""
    tail: float = 0.0
    """Index of a Pareto factor, drawn for each pod every 30 s; 1.5 has no variance."""
    cron: float = 1.0
    """Factor on each pod for `cron_seconds` in every `cron_every`, each at its own time."""
    cron_every: float = 300.0
    cron_seconds: float = 15.0
    node_bursts: float = 0.0
    """Bursts of whole nodes, a node-hour; all pods on it suffer."""
    retries: float = 0.0
    """Mean number of further tries of a failed request, on the same pod; they fail too."""
    batches: float = 0.0
    """Mean number of errors that come along with one, on the same pod; the share of errors stays."""
    shocks: float = 1.0
    """Factor on everybody for 20 s, six times a rollout."""
    regime_sd: float = 0.0
    """How pods differ, drawn anew for each about every ten minutes."""
    surge: float = 1.0
    """Factor on everybody's requests for two minutes, twice a rollout, with three times the errors."""
    lost: float = 0.0
    """Share of scrapes that never arrive."""
    uneven: float = 1.0
    """Share of requests the canary really gets, over the weight that was asked for."""
    churn: float = 0.0
    """Baseline pods replaced per pod-hour: the sum of their counters drops."""

    slow_sd: float = 0.0
    """Drift of one pod's latency, over a minute; half of it again stays for ever."""


@dataclass(frozen=True)
class Fault:
    """What the revision does wrong, on every pod of the canary."""

    ratio: float = 0.0
    """Chance that a request fails because of it."""
    slower: float = 1.0
    """Factor on the latency of every request."""
    from_age: float = 0.0
    """Seconds of pod age before it shows."""
    every: float = 0.0
    """Seconds from one appearance to the next; it lasts a sixth of that."""
    above_rps: float = 0.0
    """Requests a second and pod below which it does not show."""


HARMLESS = Fault()

INDEPENDENT = Noise()
REALISTIC = Noise(gamma=0.5, ar_sd=0.4, persistent_sd=0.15, bursts=0.05, slow_sd=0.06)
SELECTION = {
    "independent": INDEPENDENT,
    "gamma": Noise(gamma=4.0),
    "ar1": Noise(ar_sd=0.8),
    "burst": Noise(bursts=0.2, burst_seconds=30.0, burst_ratio=0.1),
    "persistent": Noise(persistent_sd=0.25),
    "realistic": REALISTIC,
    "podkill": replace(REALISTIC, burst_ratio=1.0, burst_seconds=10.0),
    "incident": replace(REALISTIC, incident=30.0),
    "tail": Noise(tail=1.5, persistent_sd=0.1),
    "tenant": Noise(gamma=0.5, bursts=0.1, burst_seconds=90.0, burst_ratio=0.2),
    "cron": replace(REALISTIC, cron=15.0),
    "retries": replace(REALISTIC, retries=2.0),
}
"""Worlds that settings may be chosen in. The last four were held out until they showed something."""
HELD_OUT = {
    "pink": Noise(pink_sd=0.8, persistent_sd=0.1),
    "nodes": replace(REALISTIC, bursts=0.0, node_bursts=0.1, burst_seconds=30.0, burst_ratio=0.1),
    "surge": replace(REALISTIC, surge=4.0),
    "lossy": replace(REALISTIC, lost=0.2, uneven=1.2),
    "churn": replace(REALISTIC, churn=0.5),
    "base2pc": replace(REALISTIC, base=0.02),
    "base10ppm": replace(REALISTIC, base=0.00001),
    "gc": replace(REALISTIC, cron=10.0, cron_every=47.0, cron_seconds=5.0),
    "batches": Noise(batches=3.0, persistent_sd=0.1),
    "shocks": replace(REALISTIC, shocks=20.0),
    "regimes": Noise(regime_sd=0.5, gamma=0.5),
}
"""Worlds that nothing was tuned for. Unseen by whoever chose the settings were only the last four: gc, batches, shocks
and regimes. The results of the others had been looked at."""
COLD = {
    f"cold{factor}x{seconds}s": replace(REALISTIC, cold=float(factor), cold_seconds=float(seconds))
    for seconds in (60, 300)
    for factor in (5, 20, 50)
}
"""Cold starts that no warm-up covers, by factor on the errors and length."""
WORLDS = SELECTION | HELD_OUT | COLD


class Pods:
    """The pods of a chunk of rollouts, tick by tick."""

    def __init__(self, rollouts: int, noise: Noise, dt: float, rng: np.random.Generator) -> None:
        self.noise, self.dt, self.rng = noise, dt, rng
        shape = (rollouts, PODS)
        self._phase = rng.uniform(0, 2 * np.pi, (rollouts, 1))
        self._incident_at = rng.uniform(120, 2200, (rollouts, 1))
        self._surges_at = rng.uniform(0, 2280, (rollouts, 2))
        self._persistent = rng.standard_normal(shape)
        self._slow = rng.standard_normal(shape)
        self._pink = rng.standard_normal((3, *shape))
        self._latency = rng.standard_normal(shape)
        self._tail = np.ones(shape)
        self._cron_at = rng.uniform(0, noise.cron_every, shape)
        self._regime = rng.standard_normal(shape)
        self._shocks_at = rng.uniform(0, 2380, (rollouts, 6))
        self._burst_left = np.zeros(shape)
        self._node = rng.integers(0, NODES, shape)
        self._node_left = np.zeros((rollouts, NODES))

    def keep(self, rows: Mask) -> None:
        """Forget the rollouts that are over."""
        for name, held in vars(self).items():
            if isinstance(held, np.ndarray):
                setattr(self, name, held[:, rows] if name == "_pink" else held[rows])

    def renew(self, rows: Mask) -> None:
        """New canary pods, each on a node that the old one was not on: what stuck to the old ones is gone."""
        fresh = (int(rows.sum()), CANARY_PODS)
        if not fresh[0]:
            return
        where = np.ix_(rows, np.arange(BASELINE_PODS, PODS))
        for held in (self._persistent, self._slow, self._latency, self._regime, *self._pink):
            held[where] = self.rng.standard_normal(fresh)
        self._tail[where], self._burst_left[where] = 1.0, 0.0
        self._cron_at[where] = self.rng.uniform(0, self.noise.cron_every, fresh)
        self._node[where] = (self._node[where] + self.rng.integers(1, NODES, fresh)) % NODES

    def traffic(self, t: float) -> Floats:
        """Factor on the requests of everybody at `t`. Shape (rollouts,)."""
        return np.where(self._in_surge(t), self.noise.surge, 1.0)

    def expected(self, t: float) -> Floats:
        """Everybody's chance to fail at `t`, before single pods differ. Shape (rollouts,)."""
        noise = self.noise
        ratio: Floats = noise.base * np.exp(0.6 * np.sin(2 * np.pi * t / 86400 + self._phase[:, 0]))
        if noise.incident != 1.0:
            ratio *= np.where(np.abs(t - self._incident_at[:, 0] - 90) < 90, noise.incident, 1.0)
        if noise.shocks != 1.0:
            ratio *= np.where((np.abs(t - self._shocks_at - 10) < 10).any(axis=1), noise.shocks, 1.0)
        if noise.surge != 1.0:
            ratio *= np.where(self._in_surge(t), 3.0, 1.0)
        return ratio

    def ratios(self, t: float, age: Floats) -> Floats:
        """Chance that a request fails without any fault of the revision. Ages in seconds, shape (rollouts, pods)."""
        noise, rng, dt = self.noise, self.rng, self.dt
        shape = age.shape
        ratio = self.expected(t)[:, None] * np.ones(shape)
        ratio *= np.exp(self._persistent * noise.persistent_sd - noise.persistent_sd**2 / 2)
        if noise.ar_sd:
            self._slow = self._drifted(self._slow, noise.ar_seconds)
            ratio *= np.exp(noise.ar_sd * self._slow - noise.ar_sd**2 / 2)
        if noise.pink_sd:
            for index, seconds in enumerate((10.0, 100.0, 1000.0)):
                self._pink[index] = self._drifted(self._pink[index], seconds)
            ratio *= np.exp(noise.pink_sd / math.sqrt(3) * self._pink.sum(axis=0) - noise.pink_sd**2 / 2)
        if noise.tail:
            again = rng.random(shape) < dt / 30.0
            mean = noise.tail / (noise.tail - 1.0)
            self._tail[again] = (1.0 + rng.pareto(noise.tail, int(again.sum()))) / mean
            ratio *= self._tail
        if noise.gamma:
            ratio *= rng.gamma(1 / noise.gamma, noise.gamma, shape)
        if noise.cold != 1.0:
            ratio *= np.where(age < noise.cold_seconds, noise.cold, 1.0)
        if noise.cron != 1.0:
            ratio *= np.where((t + self._cron_at) % noise.cron_every < noise.cron_seconds, noise.cron, 1.0)
        if noise.regime_sd:
            again = rng.random(shape) < dt / 600.0
            self._regime[again] = rng.standard_normal(int(again.sum()))
            ratio *= np.exp(noise.regime_sd * self._regime - noise.regime_sd**2 / 2)
        if noise.bursts:
            self._burst_left = self._burst(self._burst_left, noise.bursts)
            # A burst that covers part of the tick fails that part of its requests.
            ratio += noise.burst_ratio * np.minimum(self._burst_left / dt, 1.0)
        if noise.node_bursts:
            self._node_left = self._burst(self._node_left, noise.node_bursts)
            left = np.take_along_axis(self._node_left, self._node, axis=1)
            ratio += noise.burst_ratio * np.minimum(left / dt, 1.0)
        return np.minimum(ratio, 1.0)

    def slowness(self, age: Floats) -> Floats:
        """Factor on the latency of each pod, 1 in the middle; bursts and cold starts are slow too."""
        noise = self.noise
        self._latency = self._drifted(self._latency, 60.0)
        factor = np.exp(noise.slow_sd * self._latency + 0.5 * noise.slow_sd * self._persistent)
        factor *= np.where(self._burst_left > 0, 3.0, 1.0)
        if noise.cold != 1.0:
            factor *= np.where(age < noise.cold_seconds, 2.0, 1.0)
        return factor

    def _drifted(self, values: Floats, seconds: float) -> Floats:
        keep = math.exp(-self.dt / seconds)
        return keep * values + math.sqrt(1 - keep**2) * self.rng.standard_normal(values.shape)

    def _burst(self, left: Floats, rate: float) -> Floats:
        begins = self.rng.random(left.shape) < rate * self.dt / 3600
        left = np.maximum(left - self.dt, 0)
        left[begins] = self.rng.exponential(self.noise.burst_seconds, int(begins.sum()))
        return left

    def _in_surge(self, t: float) -> Mask:
        near = np.abs(t - self._surges_at - 60) < 60
        return near[:, 0] | near[:, 1]


def at_rest(noise: Noise) -> Noise:
    """The same service on an ordinary day before the rollout: no incident, no surge, nothing lost, no new pods."""
    return replace(noise, incident=1.0, cold=1.0, surge=1.0, shocks=1.0, lost=0.0, churn=0.0)


def shown(fault: Fault, t: float, age: Floats, pod_rps: Floats) -> Mask:
    """Where the fault shows at `t`. Ages and requests a second of each pod, shape (rollouts, canary pods)."""
    shows = (age >= fault.from_age) & (pod_rps >= fault.above_rps)
    if fault.every:
        shows = shows & (t % fault.every >= fault.every * 5 / 6)
    return shows


def described(noise: Noise) -> str:
    """What differs from a coin, in one line."""
    usual = Noise()
    named = {each.name: getattr(noise, each.name) for each in fields(noise)}
    return ", ".join(f"{name} {value:g}" for name, value in named.items() if value != getattr(usual, name))
