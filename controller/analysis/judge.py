"""The judge: one interval in, one finding out. Two questions are asked at every scrape.

"Is it safe to go on?" is `Finding.tripped`: cheap to get wrong, answered in seconds, sends the
weight to 0 for a while. "Is this revision bad?" is `Finding.verdict`: FAIL only when the evidence
reaches 1 / falseRollbackRate, which a harmless canary does in at most that share of rollouts,
over all metrics and however often one looks (STATISTICS 4, G1 and G2).

State goes in and comes out; nothing here knows what step the rollout is in or what time it is.
The loop calls `judge` for every new interval, `look` when there is none, `step_began` whenever a
bake starts, and `returned` when the weight comes back after a retreat.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import msgspec
import numpy as np

from controller.analysis import bounds, evidence
from controller.analysis.evidence import Evidence, Floats
from controller.analysis.increments import Arms, Counts, Interval

TRIP = math.log(300.0)
"""ln of the odds at which users are relieved, for a single metric."""
SUSPICION = 0.5
"""Share of the way to conviction, or to a trip, at which a step no longer passes."""
LARGEST_COUNT = 1e15
"""Beyond this a counter is broken: no interval holds so many requests."""
STALE_AFTER = 3
"""Scrapes without data after which what is known is too old to pass a step."""


class Verdict(StrEnum):
    """What the comparison says. No data is INCONCLUSIVE, never anything else."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class MetricSettings(msgspec.Struct, frozen=True):
    """One metric: `kind` "errors" or "latency" (requests slower than a bound), both counted as bad of all.

    `margin` is the fraction of requests by which the canary may be worse, beside the factor `rho`;
    `warmup` the seconds of pod age in which only a catastrophe counts; `weight` its part of the proof,
    relative to the other metrics, by default errors 5 and latency 3.
    """

    kind: str = "errors"
    margin: float = 0.0001
    rho: float = 1.25
    warmup: float | None = None
    weight: float | None = None

    @property
    def warm_after(self) -> float:
        """Seconds of pod age; latency settles later than errors do."""
        if self.warmup is not None:
            return self.warmup
        return 30.0 if self.kind == "errors" else 60.0

    @property
    def bets(self) -> evidence.Alternatives:
        """The alternatives that the evidence of this metric is collected against."""
        return evidence.alternatives(self.kind, self.margin, self.rho)


class Settings(msgspec.Struct, frozen=True):
    """What the user chose. Rates are fractions, durations seconds.

    `refill` is the knob between speed and bursts: nats of evidence a second that may be believed
    (0.025 for noisy services, 0.1 for quiet ones). `horizon` is about how long the plan lasts.
    """

    metrics: dict[str, MetricSettings] = msgspec.field(default_factory=lambda: {"errors": MetricSettings()})
    false_rollback_rate: float = 0.01
    min_requests: float = 100.0
    scrape: float = 5.0
    refill: float = 0.05
    horizon: float = 2400.0

    @property
    def threshold(self) -> float:
        """ln E at which the canary is convicted."""
        return -math.log(self.false_rollback_rate)

    @property
    def trip(self) -> float:
        """ln odds at which it is taken off traffic; grows with the number of metrics that may trip."""
        return TRIP + math.log(len(self.metrics))

    @property
    def confirmation(self) -> float:
        """ln of the odds at which fresh pods convict: two looks at every metric."""
        return self.threshold + math.log(2.0 * len(self.metrics))

    @property
    def log_weights(self) -> dict[str, float]:
        """ln of each metric's share of the proof; the shares sum to 1."""
        raw = {name: _raw_weight(one) for name, one in self.metrics.items()}
        whole = sum(raw.values())
        return {name: math.log(one / whole) for name, one in raw.items()}


def _raw_weight(one: MetricSettings) -> float:
    return one.weight if one.weight is not None else {"errors": 5.0, "latency": 3.0}.get(one.kind, 2.0)


@dataclass(frozen=True)
class MetricState:
    """One metric: its evidence, what it counted in this step and in the rollout, and when it last had data."""

    evidence: Evidence
    step: Arms = field(default_factory=Arms)
    rollout: Arms = field(default_factory=Arms)
    through: float = -math.inf
    bounds: Floats = field(default_factory=bounds.begin)
    excess: float = 0.0
    """Bad canary requests beyond what the baseline's ratio explains, interval by interval."""
    compared: float = 0.0
    """What the excess is out of: n_c n_b / (n_c + n_b), summed."""
    confirming: Floats | None = None
    """Shape (2, lanes), on fresh pods after a retreat: evidence since the return, and since `confirm_from`."""
    confirm_from: float = 0.0
    """Pod age in seconds from which the second confirmation counts, for faults that need age."""

    @property
    def effect(self) -> float:
        """Difference of bad ratios over the rollout; interval by interval, so that changing weights cannot turn it
        around (Mantel-Haenszel)."""
        return self.excess / self.compared if self.compared else 0.0


@dataclass(frozen=True)
class JudgeState:
    """All the judge remembers of a rollout. `dump_state` makes it JSON of 1.5 KiB a metric."""

    metrics: dict[str, MetricState] = field(default_factory=dict)
    through: float = -math.inf
    """End of the last interval taken in: where to read on after a restart."""
    noise: float | None = None
    """v of `evidence.pod_noise`, in CV^2 seconds; None where pods could not be told apart."""
    trips: int = 0


class Finding(msgspec.Struct, frozen=True):
    """What the judge says at one look, with all its reasons; the same object in status, record, log and metric.

    Numbers are those of the metric that weighs heaviest, over the rollout so far: `effect` the difference of
    bad ratios, `interval` where it lies at confidence 1 - falseRollbackRate however often one looks,
    `evidence` ln E over all metrics, `threshold` where it convicts.
    """

    verdict: Verdict
    reason: str
    tripped: bool = False
    metric: str = ""
    effect: float = 0.0
    interval: tuple[float, float] = (-1.0, 1.0)
    margin: float = 0.0
    canary: Counts = Counts()
    baseline: Counts = Counts()
    evidence: float = 0.0
    threshold: float = 0.0
    alarm: float = 0.0
    would_change: str = ""


def judge(state: JudgeState, interval: Interval, settings: Settings) -> tuple[JudgeState, Finding]:
    """Take in one interval and say what it means. An interval that was judged before changes nothing.

    >>> bad = Interval(0.0, 5.0, {"errors": Arms(Counts(500, 250), Counts(9500, 9))})
    >>> _, finding = judge(JudgeState(), bad, Settings())
    >>> finding.verdict.value, finding.tripped, finding.reason
    ('inconclusive', True, 'ErrorsTripped')
    """
    if interval.end <= state.through:
        return state, look(state, settings, now=state.through)
    metrics = dict(state.metrics)
    for name, one in settings.metrics.items():
        arms = interval.metrics.get(name)
        if arms is not None and _usable(arms):
            metrics[name] = _take_in(metrics.get(name), arms, interval, one, settings, state.noise)
    taken = JudgeState(metrics, interval.end, state.noise, state.trips)
    finding = look(taken, settings, now=interval.end)
    if finding.tripped:
        calm = {name: replace(one, evidence=evidence.calm(one.evidence)) for name, one in metrics.items()}
        taken = replace(taken, metrics=calm, trips=state.trips + 1)
    return taken, finding


def look(state: JudgeState, settings: Settings, *, now: float, no_data: str = "NoData") -> Finding:
    """What is known at `now` without new data; `no_data` is the reason to give if it has become too old."""
    known = {name: state.metrics[name] for name in settings.metrics if name in state.metrics}
    if not known:
        return Finding(Verdict.INCONCLUSIVE, no_data, threshold=settings.threshold, would_change="a first scrape")
    bets = {name: settings.metrics[name].bets for name in known}
    log_e = {name: float(evidence.log_evidence(one.evidence, bets[name])) for name, one in known.items()}
    alarms = {name: float(evidence.log_alarm(one.evidence, bets[name])) for name, one in known.items()}
    merged, heaviest = _merge(log_e, settings)
    loudest = max(alarms, key=lambda name: alarms[name])
    alarm = alarms[loudest]

    confirmed = {name: _confirmation(one) for name, one in known.items()}
    surest = max(confirmed, key=lambda name: confirmed[name])
    if confirmed[surest] >= settings.confirmation:
        heaviest, merged = surest, max(merged, settings.threshold)
    tripped = alarm >= settings.trip
    verdict, reason, would_change = _decide(known, settings, now, no_data, merged, heaviest, alarm, loudest)
    named = loudest if tripped and verdict is not Verdict.FAIL else heaviest
    shown = known[named]
    return Finding(
        verdict=verdict,
        reason=reason,
        tripped=tripped,
        metric=named,
        effect=shown.effect,
        interval=bounds.interval(shown.bounds, alpha=settings.false_rollback_rate),
        margin=settings.metrics[named].margin,
        canary=shown.rollout.canary,
        baseline=shown.rollout.baseline,
        evidence=merged,
        threshold=settings.threshold,
        alarm=alarm,
        would_change=would_change,
    )


def _confirmation(one: MetricState) -> float:
    return -math.inf if one.confirming is None else float(evidence.log_mean(one.confirming).max())


def _decide(
    known: dict[str, MetricState],
    settings: Settings,
    now: float,
    no_data: str,
    log_e: float,
    heaviest: str,
    alarm: float,
    loudest: str,
) -> tuple[Verdict, str, str]:
    """Verdict, reason and what would change it. Cases stand in order of urgency: convict, relieve, hold, pass."""
    if log_e >= settings.threshold:
        return Verdict.FAIL, f"{_camel(heaviest)}Regressed", "a new revision"
    if alarm >= settings.trip:
        return Verdict.INCONCLUSIVE, f"{_camel(loudest)}Tripped", "the same evidence again, or none, after a rest"
    too_old = now - STALE_AFTER * settings.scrape
    stale = [name for name in settings.metrics if name not in known or known[name].through < too_old]
    if stale:
        return Verdict.INCONCLUSIVE, no_data, f"data for {', '.join(stale)} on both arms"
    missing = settings.threshold - log_e
    if log_e >= SUSPICION * settings.threshold or alarm >= SUSPICION * settings.trip:
        return Verdict.INCONCLUSIVE, "Suspicious", f"{missing:.1f} nats more convict, innocent requests clear"
    for one in known.values():
        needs, has = settings.min_requests, one.step.canary.requests
        if has < needs:
            return Verdict.INCONCLUSIVE, "TooFewRequests", f"needs {needs:.0f} canary requests here, has {has:.0f}"
        if one.step.baseline.requests <= 0:
            return Verdict.INCONCLUSIVE, "NoBaselineTraffic", "requests to the baseline"
    return Verdict.PASS, "NoEvidenceAgainst", f"{missing:.1f} nats of evidence against it"


def step_began(state: JudgeState) -> JudgeState:
    """A bake starts: the sample floor is counted anew. The evidence is over the whole rollout and stays."""
    return replace(state, metrics={name: replace(one, step=Arms()) for name, one in state.metrics.items()})


def returned(state: JudgeState, *, fresh: bool = False, tripped_at_age: float = 0.0) -> JudgeState:
    """The weight is back after a retreat: alarms and the step's floor start from nothing, evidence stays.

    On `fresh` pods the confirmation begins: a fault of the revision shows from the first scrape, or again
    about when the pods are as old as those that tripped; another burst has the clean scrapes before it to
    overcome (STATISTICS 12, rule 4). What the same pods do proves nothing about the revision.
    """
    calm = {
        name: replace(
            one,
            evidence=evidence.calm(one.evidence),
            confirming=np.zeros((2, len(one.evidence.cusum))) if fresh else None,
            confirm_from=0.75 * tripped_at_age,
        )
        for name, one in state.metrics.items()
    }
    return step_began(replace(state, metrics=calm))


def learn_noise(state: JudgeState, requests: Floats, errors: Floats, *, block: float = 300.0) -> JudgeState:
    """Take the noise of pods from the baseline's own past, before the rollout (`evidence.pod_noise`).

    Args: requests, errors: shape (blocks, pods), at least two hours of blocks; less is not believed.
    """
    if requests.shape[0] * block < 7200.0:
        return state
    return replace(state, noise=evidence.pod_noise(requests, errors, block=block))


def dump_state(state: JudgeState) -> dict[str, Any]:
    """Plain values for JSON. Minus infinity, which JSON has no word for, is null."""
    return {
        "through": _finite(state.through),
        "noise": state.noise,
        "trips": state.trips,
        "metrics": {
            name: evidence.dump(one.evidence)
            | {"step": _flat(one.step), "rollout": _flat(one.rollout), "through": _finite(one.through)}
            | {"bounds": bounds.dump(one.bounds), "effect": [one.excess, one.compared]}
            | ({"confirm": [one.confirm_from, *_rounded(one.confirming)]} if one.confirming is not None else {})
            for name, one in state.metrics.items()
        },
    }


def load_state(plain: dict[str, Any]) -> JudgeState:
    """The inverse of `dump_state`; an empty dictionary is a judge that has seen nothing."""
    metrics = {
        name: MetricState(
            evidence.load(one),
            _arms(one["step"]),
            _arms(one["rollout"]),
            _infinite(one["through"]),
            bounds.load(one["bounds"]),
            one["effect"][0],
            one["effect"][1],
            *_confirming(one.get("confirm")),
        )
        for name, one in plain.get("metrics", {}).items()
    }
    return JudgeState(metrics, _infinite(plain.get("through")), plain.get("noise"), plain.get("trips", 0))


def _take_in(
    before: MetricState | None,
    arms: Arms,
    interval: Interval,
    one: MetricSettings,
    settings: Settings,
    noise: float | None,
) -> MetricState:
    bets = one.bets
    was = before or MetricState(evidence.begin(bets))
    # Without canary requests nothing is said about the canary: a resting one neither gains nor loses.
    canary = arms.canary if arms.canary.requests > 0 else Counts()
    dt = max(interval.end - max(interval.start, was.through), 1e-3)
    n_c, e_c = canary.requests, min(canary.errors, canary.requests)
    n_b, e_b = arms.baseline.requests, min(arms.baseline.errors, arms.baseline.requests)
    known = noise is not None
    phi = evidence.divisor(
        was.evidence,
        n_c,
        n_b,
        dt,
        noise=noise if known else evidence.FALLBACK_NOISE,
        canary_pods=interval.canary_pods if known else 0,
        baseline_pods=interval.baseline_pods if known else 0,
    )
    now = evidence.update(
        was.evidence,
        bets,
        n_c=n_c,
        e_c=e_c,
        n_b=n_b,
        e_b=e_b,
        dt=dt,
        refill_dt=min(dt, 2 * settings.scrape),
        warm=interval.age >= one.warm_after,
        phi=phi,
        refill=settings.refill,
        horizon=settings.horizon,
    )
    gain, aged = np.zeros(len(bets.r)), float(interval.age >= was.confirm_from)
    if was.confirming is not None:
        gain = evidence.log_gain(bets, n_c=n_c, e_c=e_c, n_b=n_b, e_b=e_b, warm=interval.age >= one.warm_after, phi=phi)
    both = n_c + n_b
    return MetricState(
        now,
        was.step + arms,
        was.rollout + arms,
        interval.end,
        bounds.update(was.bounds, n_c, e_c, n_b, e_b, phi=phi),
        was.excess + ((e_c * n_b - e_b * n_c) / both if both else 0.0),
        was.compared + (n_c * n_b / both if both else 0.0),
        None if was.confirming is None else was.confirming + gain * np.array([[1.0], [aged]]),
        was.confirm_from,
    )


def _usable(arms: Arms) -> bool:
    numbers = (arms.canary.requests, arms.canary.errors, arms.baseline.requests, arms.baseline.errors)
    return all(0 <= number <= LARGEST_COUNT for number in numbers)


def _merge(log_e: dict[str, float], settings: Settings) -> tuple[float, str]:
    """ln of the weighted mean of the e-values, and the metric with most of it; one without data yet counts as 1."""
    parts = {name: settings.log_weights[name] + log_e.get(name, 0.0) for name in settings.metrics}
    top = max(parts.values())
    heaviest = max(log_e, key=lambda name: parts[name])
    return top + math.log(sum(math.exp(part - top) for part in parts.values())), heaviest


def _camel(metric: str) -> str:
    words = "".join(letter if letter.isalnum() else " " for letter in metric).split()
    return "".join(word[:1].upper() + word[1:] for word in words) or "Metric"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _infinite(value: float | None) -> float:
    return -math.inf if value is None else value


def _rounded(logs: Floats) -> list[float]:
    return [round(float(one), 2) for one in logs.ravel()]


def _confirming(flat: list[float] | None) -> tuple[Floats | None, float]:
    return (None, 0.0) if flat is None else (np.array(flat[1:]).reshape(2, -1), flat[0])


def _flat(arms: Arms) -> list[float]:
    return [arms.canary.requests, arms.canary.errors, arms.baseline.requests, arms.baseline.errors]


def _arms(flat: list[float]) -> Arms:
    return Arms(Counts(flat[0], flat[1]), Counts(flat[2], flat[3]))
