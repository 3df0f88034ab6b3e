"""The laboratory's world: many rollouts at once, with the noise that real pods have.

One row is one rollout, one column one pod; a tick is one scrape. The rollouts listen to the judge:
a retreat takes the weight to 0 and brings the same pods back, so every figure is of the whole
feedback and not of a recorded stream. Noise as in STATISTICS section 5; it is assumed, not measured.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.analysis import evidence
from controller.analysis.judge import SUSPICION, TRIP, Settings

Floats = NDArray[np.float64]

BASELINE_PODS = 20
STEPS = ((1.0, 1), (5.0, 1), (25.0, 5), (50.0, 10))
"""Weight in percent and canary pods, ten minutes each."""
CANARY_PODS = 10


@dataclass(frozen=True)
class Noise:
    """How pods differ from a coin: sd and rates are per pod; bursts per pod-hour, lengths in seconds."""

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


INDEPENDENT = Noise()
GAMMA = Noise(gamma=4.0)
AR1 = Noise(ar_sd=0.8)
BURST = Noise(bursts=0.2, burst_seconds=30.0, burst_ratio=0.1)
PERSISTENT = Noise(persistent_sd=0.25)
REALISTIC = Noise(gamma=0.5, ar_sd=0.4, persistent_sd=0.15, bursts=0.05)
PODS_KILLED = replace(REALISTIC, burst_ratio=1.0, burst_seconds=10.0)
INCIDENT = replace(REALISTIC, incident=30.0)
COLD_START = replace(REALISTIC, cold=5.0)
WORLDS = {
    "independent": INDEPENDENT,
    "gamma": GAMMA,
    "ar1": AR1,
    "burst": BURST,
    "persistent": PERSISTENT,
    "realistic": REALISTIC,
    "podkill": PODS_KILLED,
    "incident": INCIDENT,
    "coldstart": COLD_START,
}


class Pods:
    """The error ratio of every pod, tick by tick. Shape (rollouts, pods): baseline first, canary after."""

    def __init__(self, rollouts: int, noise: Noise, dt: float, base: float, rng: np.random.Generator) -> None:
        self.noise, self.dt, self.base, self.rng = noise, dt, base, rng
        self.shape = (rollouts, BASELINE_PODS + CANARY_PODS)
        self.phase = rng.uniform(0, 2 * np.pi, (rollouts, 1))
        self.incident_at = rng.uniform(120, 2200, (rollouts, 1))
        self.slow = rng.standard_normal(self.shape) * noise.ar_sd
        self.het = np.exp(rng.standard_normal(self.shape) * noise.persistent_sd - noise.persistent_sd**2 / 2)
        self.burst_left = np.zeros(self.shape)

    def ratios(self, t: float, age: Floats) -> Floats:
        """Chance that a request fails at `t`, given pod ages in seconds."""
        noise, rng, dt = self.noise, self.rng, self.dt
        ratio = self.base * np.exp(0.6 * np.sin(2 * np.pi * t / 86400 + self.phase)) * self.het
        if noise.ar_sd:
            keep = np.exp(-dt / noise.ar_seconds)
            self.slow = keep * self.slow + np.sqrt(1 - keep**2) * noise.ar_sd * rng.standard_normal(self.shape)
            ratio = ratio * np.exp(self.slow - noise.ar_sd**2 / 2)
        if noise.gamma:
            ratio = ratio * rng.gamma(1 / noise.gamma, noise.gamma, self.shape)
        if noise.cold != 1.0:
            ratio = ratio * np.where(age < noise.cold_seconds, noise.cold, 1.0)
        if noise.incident != 1.0:
            ratio = ratio * np.where(np.abs(t - self.incident_at - 90) < 90, noise.incident, 1.0)
        if noise.bursts:
            begins = rng.random(self.shape) < noise.bursts * dt / 3600
            self.burst_left = np.maximum(self.burst_left - dt, 0)
            self.burst_left[begins] = rng.exponential(noise.burst_seconds, int(begins.sum()))
            # A burst that covers part of the tick fails that part of its requests.
            ratio = ratio + noise.burst_ratio * np.minimum(self.burst_left / dt, 1.0)
        return np.minimum(ratio, 1.0)


SERVICES = 16


def learned_noise(noise: Noise, *, rps: float, base: float, dt: float, rng: np.random.Generator) -> Floats:
    """What `pod_noise` finds in two hours before the rollout, for a few services. Shape (SERVICES,)."""
    pods = Pods(SERVICES, replace(noise, incident=1.0, cold=1.0), dt, base, rng)
    blocks = [np.zeros((2, SERVICES, BASELINE_PODS)) for _ in range(24)]
    old = np.full((SERVICES, BASELINE_PODS + CANARY_PODS), np.inf)
    for tick in range(int(7200 / dt)):
        requests = rng.poisson(rps * dt / BASELINE_PODS, (SERVICES, BASELINE_PODS))
        errors = rng.binomial(requests, pods.ratios(tick * dt, old)[:, :BASELINE_PODS])
        blocks[int(tick * dt / 300)] += np.stack([requests, errors])
    seen = np.array(blocks)
    return np.array([evidence.pod_noise(seen[:, 0, i], seen[:, 1, i]) for i in range(SERVICES)])


@dataclass(frozen=True)
class Outcome:
    """How each rollout went. Shape (rollouts,); seconds since the start, nan where it never happened."""

    rolled_back: Floats
    relieved: Floats
    retreats: Floats
    promoted: Floats
    served: Floats
    """Bad responses of the canary until rollback or promotion."""

    @property
    def false_rollbacks(self) -> int:
        """Rollouts that were convicted."""
        return int(np.isfinite(self.rolled_back).sum())


def run(
    rollouts: int,
    *,
    rps: float,
    noise: Noise = REALISTIC,
    extra: float = 0.0,
    base: float = 0.001,
    settings: Settings | None = None,
    dt: float = 5.0,
    bake: float = 600.0,
    rest: float = 30.0,
    seed: int = 1,
    longest: float = 4800.0,
    pods_known: bool = True,
) -> Outcome:
    """Play rollouts against the first judge: bucket, trip, rest, the same pods back, bake again.

    Args:
        extra: chance that a request fails because of the canary's revision; 0 is harmless.
        base: ratio of errors of everybody.
        pods_known: whether per-pod counters taught the judge the noise of pods; else its fallback applies.
    """
    settings = settings or Settings(horizon=len(STEPS) * bake)
    rng = np.random.default_rng(seed)
    one = settings.metrics["errors"]
    bets = one.bets
    seen = evidence.begin(bets, rollouts)
    pods = Pods(rollouts, noise, dt, base, rng)
    learned = np.full(rollouts, evidence.FALLBACK_NOISE)
    if pods_known:
        learned = learned_noise(noise, rps=rps, base=base, dt=5.0, rng=rng)[np.arange(rollouts) % SERVICES]
    weights = np.array([w / 100 for w, _ in STEPS])
    counts = np.array([n for _, n in STEPS])

    column = np.arange(CANARY_PODS)
    step = np.zeros(rollouts, dtype=int)
    born = np.zeros((rollouts, CANARY_PODS))
    baking_since = np.zeros(rollouts)
    back_at = np.zeros(rollouts)
    in_step = np.zeros(rollouts)
    done = np.zeros(rollouts, dtype=bool)
    rolled_back, relieved, promoted = (np.full(rollouts, np.nan) for _ in range(3))
    retreats, served = np.zeros(rollouts), np.zeros(rollouts)

    t = 0.0
    while t < longest and not done.all():
        t += dt
        on = (t > back_at) & ~done
        active = column < counts[step][:, None]
        age = np.where(active, t - born, np.inf)
        ratios = pods.ratios(t, np.concatenate([np.full((rollouts, BASELINE_PODS), np.inf), age], axis=1))
        weight = np.where(on, weights[step], 0.0)
        c_mean = np.where(active, (weight / counts[step])[:, None] * rps * dt, 0.0)
        b_mean = np.broadcast_to(((1 - weight) * rps * dt / BASELINE_PODS)[:, None], (rollouts, BASELINE_PODS))
        requests = rng.poisson(np.concatenate([b_mean, c_mean], axis=1))
        ratios[:, BASELINE_PODS:] = 1 - (1 - ratios[:, BASELINE_PODS:]) * (1 - extra)
        errors = rng.binomial(requests, ratios)
        n_b, n_c = requests[:, :BASELINE_PODS].sum(1), requests[:, BASELINE_PODS:].sum(1)
        e_b, e_c = errors[:, :BASELINE_PODS].sum(1), errors[:, BASELINE_PODS:].sum(1)
        served += np.where(done, 0, e_c)
        in_step += n_c

        phi = evidence.divisor(
            seen,
            _column(n_c),
            _column(n_b),
            dt,
            noise=_column(learned),
            canary_pods=_column(counts[step] * pods_known),
            baseline_pods=BASELINE_PODS * pods_known,
        )
        seen = evidence.update(
            seen,
            bets,
            n_c=_column(n_c),
            e_c=_column(e_c),
            n_b=_column(n_b),
            e_b=_column(e_b),
            dt=dt,
            refill_dt=dt,
            warm=_column(age.min(axis=1) >= one.warm_after),
            phi=phi,
            refill=settings.refill,
            horizon=settings.horizon,
        )
        log_e, alarm = evidence.log_evidence(seen, bets), evidence.log_alarm(seen, bets)

        convicted = ~done & (log_e >= settings.threshold)
        rolled_back[convicted] = t
        relieved[convicted & np.isnan(relieved)] = t
        done |= convicted

        tripped = ~done & (alarm >= TRIP)
        relieved[tripped & np.isnan(relieved)] = t
        retreats += tripped
        back_at[tripped] = t + rest
        baking_since[tripped] = t + rest
        in_step[tripped] = 0
        seen = replace(seen, cusum=np.where(tripped[:, None], 0.0, seen.cusum))

        innocent = (log_e < SUSPICION * settings.threshold) & (alarm < SUSPICION * TRIP)
        passed = ~done & ~tripped & innocent & (t >= baking_since + bake) & (in_step >= settings.min_requests)
        finished = passed & (step == len(STEPS) - 1)
        promoted[finished] = t
        done |= finished
        climbs = passed & ~finished
        newcomers = climbs[:, None] & (column >= counts[step][:, None])
        step[climbs] += 1
        born[newcomers] = t
        baking_since[climbs] = t
        in_step[climbs] = 0
    return Outcome(rolled_back, relieved, retreats, promoted, served)


def _column(values: Any) -> Any:
    return np.asarray(values)[:, None]
