"""The judge: one interval in, one finding out. Two questions are asked at every scrape.

"Is it safe to go on?" is `Finding.tripped`: cheap to get wrong, answered in seconds, sends the
weight to 0 for a while. "Is this revision bad?" is `Finding.verdict`, and FAIL needs two things at
once: a proof, which independent requests of a harmless canary reach in at most `falseRollbackRate` of
rollouts, over all metrics and however often one looks; and a second opinion
that knows how pods misbehave: the same evidence behind a bucket that no burst fills, or a fault that
came back on fresh pods. The proof bounds the promise whatever the second opinion is worth.

State goes in and comes out; nothing here knows what step the rollout is in or what time it is.
The loop calls `judge` for every new interval, `look` when there is none, `step_began` whenever a
bake starts; what a trip leads to is on the next page, `retreat.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import msgspec
import numpy as np

from controller.analysis import bounds, evidence, planning
from controller.analysis.evidence import Evidence, Floats
from controller.analysis.increments import Arms, Counts, Interval, Slower

TRIP = math.log(150.0)
"""ln of the odds at which users are relieved, for a single metric."""
CONFIRMED = math.log(20.0)
"""ln of the odds at which fresh pods are a second opinion, for a single metric."""
HEAD_START = 1.5
"""Nats that a confirmation may begin with, from what was guarded against bursts before it."""
YOUNG_PACE, SEVERAL_PACE = 0.1, 0.05
"""Nats a second that fresh pods may say against the revision while they are young, or several: one may have a burst."""
YOUNG = 60.0
"""Seconds of pod age below which a trip may be a cold start, so that the same pods get another chance."""
LATENCY_NOISE = 15.0
"""CV^2 seconds of the share of slow requests of one pod: steadier than its errors, which come in bursts."""
MOST_NOISE = 120.0
"""CV^2 seconds beyond which noise is bursts, which the bucket and the return are for."""
FOLD = 30.0
"""Seconds between two looks at where the effect lies: they are shown, and decide nothing."""
CERTIFIED = math.log(20.0)
"""ln of the odds at which a metric is certified not to have got worse: wrong in at most one of twenty."""
SUSPICION = 0.5
"""Share of the way to conviction, or to a trip, at which a step no longer passes."""
LARGEST_COUNT = 1e15
"""Beyond this a counter is broken: no interval holds so many requests."""
STALE_AFTER = 3
"""Scrapes without data after which what is known is too old to pass a step."""
RECENT = 60.0
"""Seconds after which a request counts e times less for the absolute rule and the rate."""


class Verdict(StrEnum):
    """What the comparison says. No data is INCONCLUSIVE, never anything else."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class MetricSettings(msgspec.Struct, frozen=True):
    """One metric: `kind` "errors", "latency" (requests slower than a bound) or "ratio" (any bad of all).

    `margin` is the fraction of requests by which the canary may be worse, beside the factor `rho`;
    `warmup` the seconds of pod age in which only a catastrophe is evidence; `weight` its part of the
    proof, relative to the other metrics, by default errors 5 and latency 3. `objective` is the largest
    bad ratio that is fine at all: where both arms are above it nothing is promoted.
    """

    kind: str = "errors"
    margin: float = 0.0001
    rho: float = 1.25
    warmup: float | None = None
    weight: float | None = None
    objective: float | None = None
    bounds: int = 0
    """Latency only: how many bounds are compared at once; 0 where there is the one that is counted as bad."""

    @property
    def warm_after(self) -> float:
        """Seconds of pod age; latency settles later than errors do."""
        if self.warmup is not None:
            return self.warmup
        return 60.0 if self.kind == "latency" else 30.0

    @property
    def young_below(self) -> float:
        """Seconds of pod age below which a fault may be a cold start: twice the warm-up, within one to two minutes."""
        return min(max(2 * self.warm_after, YOUNG), 2 * YOUNG)

    @property
    def bets(self) -> evidence.Alternatives:
        """The alternatives that the evidence of this metric is collected against."""
        return evidence.alternatives(self.kind, self.margin, self.rho)

    @property
    def shape(self) -> tuple[int, ...]:
        """Leading axis of the evidence: the bounds, if there are several."""
        return (self.bounds,) if self.bounds else ()


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
        """ln of the odds at which fresh pods agree; grows in the same way."""
        return CONFIRMED + math.log(len(self.metrics))

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
    recent: Arms = field(default_factory=Arms)
    """Fading with `RECENT`."""
    through: float = -math.inf
    bounds: Floats = field(default_factory=bounds.begin)
    unfolded: Arms = field(default_factory=Arms)
    """Counted, and not in `bounds` yet: an interval of any length may be folded, so it is done now and then."""
    folded: tuple[float, float] = (-1.0, 1.0)
    """The interval of the effect as of the last folding."""
    folded_at: float = -math.inf
    excess: float = 0.0
    """Bad canary requests beyond what the baseline's ratio explains, interval by interval."""
    compared: float = 0.0
    """What the excess is out of: n_c n_b / (n_c + n_b), summed."""
    confirming: Floats | None = None
    """Shape (2, ..., lanes), after a retreat: evidence on the returned pods, and on them since `confirm_from`."""
    confirm_from: float = 0.0
    """Pod age in seconds from which the second confirmation counts, for faults that need age."""
    suspects: Floats | None = None
    """How the next confirmation will bet, after a trip."""

    @property
    def effect(self) -> float:
        """Difference of bad ratios over the rollout; interval by interval, so that changing weights cannot turn it
        around (Mantel-Haenszel)."""
        return self.excess / self.compared if self.compared else 0.0


class Rest(msgspec.Struct, frozen=True, array_like=True):
    """A canary off traffic: since when, how old its youngest pod was, and what the return will prove."""

    since: float
    age: float
    fresh: bool
    """All pods are replaced; else the same ones only grow older."""
    proves: bool
    """What happens after the return speaks about the revision."""
    old_at: float
    """Pod age in seconds from which the same pods are no longer young."""


@dataclass(frozen=True)
class JudgeState:
    """All the judge remembers of a rollout. `dump_state` makes it JSON of about 1.5 KiB a metric."""

    metrics: dict[str, MetricState] = field(default_factory=dict)
    through: float = -math.inf
    """End of the last interval taken in: where to read on after a restart."""
    noise: tuple[float, float] | None = None
    """v of `evidence.pod_noise` over short and over long blocks, in CV^2 seconds; None where pods look alike."""
    trips: int = 0
    rate: float = 0.0
    """Requests a second on both arms, lately."""
    pods_since: float | None = None
    """When this generation of pods first had traffic."""
    rest: Rest | None = None
    learned_warmup: float = 0.0
    """Pod age below which new pods of this very service were seen to fail and recover."""
    proven_age: float = 0.0
    """Pod age under traffic that must be reached before a step may end, after a return on fresh pods."""
    limit: float = 100.0
    """Percent that the weight is limited to after a return, until the canary has shown nothing for a while."""
    limited_until: float = -math.inf


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
    certified: bool = False
    """Every metric is certified not to have got worse."""
    uncertified: str = ""
    """What is missing for the certificate, in words."""
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
    rate, served = 0.0, False
    for name, one in settings.metrics.items():
        arms = interval.metrics.get(name)
        if arms is None or not _usable(arms):
            continue
        was = metrics.get(name) or MetricState(evidence.begin(one.bets, *one.shape))
        metrics[name] = _take_in(was, arms, interval.slower.get(name), interval, one, settings, state)
        served = served or arms.canary.requests > 0
        rate = max(rate, (arms.canary.requests + arms.baseline.requests) / max(interval.end - interval.start, 1e-3))
    keep = math.exp(-(interval.end - interval.start) / RECENT) if state.rate else 0.0
    since = state.pods_since
    taken_in = JudgeState(
        metrics,
        interval.end,
        state.noise,
        state.trips,
        keep * state.rate + (1.0 - keep) * rate,
        # The first interval may begin long before the pods did.
        max(interval.start, interval.end - settings.scrape) if since is None and served and not state.rest else since,
        state.rest,
        state.learned_warmup,
        state.proven_age,
        state.limit,
        state.limited_until,
    )
    finding = look(taken_in, settings, now=interval.end)
    if finding.tripped:
        calm = {name: _calmed(one, settings.metrics[name].bets) for name, one in metrics.items()}
        taken_in = replace(taken_in, metrics=calm, trips=state.trips + 1)
    return taken_in, finding


def look(state: JudgeState, settings: Settings, *, now: float, no_data: str = "NoData") -> Finding:
    """What is known at `now` without new data; `no_data` is the reason to give if it has become too old."""
    known = {name: state.metrics[name] for name in settings.metrics if name in state.metrics}
    if not known:
        return Finding(Verdict.INCONCLUSIVE, no_data, threshold=settings.threshold, would_change="a first scrape")
    seen = {name: evidence.summary(one.evidence, settings.metrics[name].bets) for name, one in known.items()}
    proof, heaviest = _merge({name: one[0] for name, one in seen.items()}, settings)
    guarded, _ = _merge({name: one[1] for name, one in seen.items()}, settings)
    loudest = max(seen, key=lambda name: seen[name][2])
    alarm = seen[loudest][2]
    confirmed = max((_confirmation(one) for one in known.values()), default=-math.inf)
    shown = min(proof, guarded) if confirmed < settings.confirmation else proof

    tripped = alarm >= settings.trip and state.rest is None
    verdict, reason, would_change = _decide(known, settings, now, no_data, shown, guarded, heaviest, alarm, loudest)
    missing = [words for name, one in known.items() if (words := _uncertified(name, one, settings))]
    named = loudest if tripped and verdict is not Verdict.FAIL else heaviest
    of = known[named]
    return Finding(
        verdict,
        reason,
        tripped and verdict is not Verdict.FAIL,
        named,
        of.effect,
        of.folded,
        settings.metrics[named].margin,
        of.rollout.canary,
        of.rollout.baseline,
        shown,
        settings.threshold,
        alarm,
        not missing and len(known) == len(settings.metrics),
        missing[0] if missing else "",
        would_change,
    )


def _confirmation(one: MetricState) -> float:
    if one.confirming is None:
        return -math.inf
    return max(evidence.log_sum(one.confirming[0]), evidence.log_sum(one.confirming[1]))


def _decide(
    known: dict[str, MetricState],
    settings: Settings,
    now: float,
    no_data: str,
    log_e: float,
    guarded: float,
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
    if len(known) < len(settings.metrics) or any(one.through < too_old for one in known.values()):
        stale = [name for name in settings.metrics if name not in known or known[name].through < too_old]
        return Verdict.INCONCLUSIVE, no_data, f"data for {', '.join(stale)} on both arms"
    missing = settings.threshold - log_e
    if guarded >= SUSPICION * settings.threshold or alarm >= SUSPICION * settings.trip:
        return Verdict.INCONCLUSIVE, "Suspicious", f"{missing:.1f} nats more convict, innocent requests clear"
    for name, one in known.items():
        needs, has = settings.min_requests, one.step.canary.requests
        if has < needs:
            return Verdict.INCONCLUSIVE, "TooFewRequests", f"needs {needs:.0f} canary requests here, has {has:.0f}"
        if one.step.baseline.requests <= 0:
            return Verdict.INCONCLUSIVE, "NoBaselineTraffic", "requests to the baseline"
        objective = settings.metrics[name].objective
        if objective is not None and one.recent.baseline.ratio > objective:
            both = f"{100 * one.recent.baseline.ratio:.2f} % bad on stable too, objective {100 * objective:.2f} %"
            return Verdict.INCONCLUSIVE, "BothArmsSuffer", f"{name}: {both}: what is wrong with both must end first"
    return Verdict.PASS, "NoEvidenceAgainst", f"{missing:.1f} nats of evidence against it"


def _uncertified(name: str, one: MetricState, settings: Settings) -> str:
    """What is missing for this metric's certificate; empty when it has one."""
    has = evidence.log_certificate(one.evidence)
    if has >= CERTIFIED:
        return ""
    bets = settings.metrics[name].bets
    expected = evidence.expected_ratio(one.evidence)
    ratio = expected if isinstance(expected, float) else float(np.mean(expected))
    needs = planning.to_certify(ratio, margin=float(bets.delta[-1]), rho=float(bets.rho[-1]), missing=CERTIFIED - has)
    seen = one.rollout.canary.requests
    return f"{name} needs about {seen + needs:,.0f} canary requests, has {seen:,.0f}"


def step_began(state: JudgeState) -> JudgeState:
    """A bake starts: the sample floor is counted anew. The evidence is over the whole rollout and stays."""
    return replace(state, metrics={name: replace(one, step=Arms()) for name, one in state.metrics.items()})


def next_step(state: JudgeState) -> JudgeState:
    """Another step: its pods need not be as old as those of the last one had to become."""
    return replace(step_began(state), proven_age=0.0)


def learn_noise(state: JudgeState, requests: Floats, errors: Floats, *, block: float = 300.0) -> JudgeState:
    """Take the noise of pods from the baseline's own past, before the rollout (`evidence.pod_noise`).

    Pods that differ for good look quiet in short blocks and louder the longer one looks, so the bucket,
    which convicts without a second opinion, believes the longest blocks that still repeat.

    Bursts are no noise of this kind: where they are all there is, counting them would blind the judge.

    Args: requests, errors: shape (blocks, pods), at least two hours of blocks; less is not believed.
    """
    count = requests.shape[0]
    if count * block < 7200.0:
        return state
    short = evidence.pod_noise(requests, errors, block=block)
    joined = max(int(1800.0 // block), 1)
    whole = count // joined * joined

    def summed(counts: Floats) -> Floats:
        longer: Floats = counts[-whole:].reshape(-1, joined, counts.shape[1]).sum(axis=1)
        return longer

    long = evidence.pod_noise(summed(requests), summed(errors), block=block * joined)
    return replace(state, noise=(min(short, MOST_NOISE), max(short, long)))


def dump_state(state: JudgeState) -> dict[str, Any]:
    """Plain values for JSON. Minus infinity, which JSON has no word for, is null."""
    return {
        "through": _finite(state.through),
        "noise": None if state.noise is None else [round(one, 3) for one in state.noise],
        "trips": state.trips,
        "rate": round(state.rate, 3),
        "since": state.pods_since,
        "rest": None if state.rest is None else list(msgspec.structs.astuple(state.rest)),
        "course": [state.learned_warmup, state.proven_age, state.limit, _finite(state.limited_until)],
        "metrics": {
            name: evidence.dump(one.evidence)
            | {"n": [_flat(arms) for arms in (one.step, one.rollout, one.recent, one.unfolded)]}
            | {"through": _finite(one.through), "bounds": bounds.dump(one.bounds)}
            | {"effect": [one.excess, one.compared, *one.folded, _finite(one.folded_at)]}
            | ({} if one.confirming is None else {"confirm": [one.confirm_from, evidence.pack(one.confirming.ravel())]})
            | ({} if one.suspects is None else {"suspects": evidence.pack(one.suspects.ravel())})
            for name, one in state.metrics.items()
        },
    }


def load_state(plain: dict[str, Any], settings: Settings) -> JudgeState:
    """The inverse of `dump_state`; an empty dictionary is a judge that has seen nothing.

    What another version wrote in another shape begins anew, for each part by itself.
    """
    if "course" not in plain:
        return JudgeState()
    metrics = {
        name: _load_metric(one, settings.metrics[name])
        for name, one in plain.get("metrics", {}).items()
        if name in settings.metrics
    }
    learned_warmup, proven_age, limit, limited_until = plain["course"]
    return JudgeState(
        metrics,
        _infinite(plain["through"]),
        None if plain["noise"] is None else (plain["noise"][0], plain["noise"][1]),
        plain["trips"],
        plain["rate"],
        plain["since"],
        None if plain["rest"] is None else Rest(*plain["rest"]),
        learned_warmup,
        proven_age,
        limit,
        _infinite(limited_until),
    )


def _load_metric(one: dict[str, Any], settings: MetricSettings) -> MetricState:
    bets, shape = settings.bets, settings.shape
    step, rollout, recent, unfolded = (_arms(flat) for flat in one["n"])
    excess, compared, low, high, folded_at = one["effect"]
    confirm_from, packed = one.get("confirm", (0.0, ""))
    confirming = _unpacked(packed, (2, *shape, bets.lanes))
    suspects = _unpacked(one.get("suspects", ""), (*shape, bets.lanes))
    return MetricState(
        evidence.load(one, bets, *shape),
        step,
        rollout,
        recent,
        _infinite(one["through"]),
        bounds.load(one["bounds"]),
        unfolded,
        (low, high),
        _infinite(folded_at),
        excess,
        compared,
        confirming,
        confirm_from,
        suspects,
    )


def _unpacked(text: str, shape: tuple[int, ...]) -> Floats | None:
    values = evidence.unpack(text)
    return values.reshape(shape) if values.size == math.prod(shape) else None


def _take_in(
    was: MetricState,
    arms: Arms,
    slower: Slower | None,
    interval: Interval,
    one: MetricSettings,
    settings: Settings,
    state: JudgeState,
) -> MetricState:
    bets = one.bets
    # Without canary requests nothing is said about the canary, nor while it rests: what drains off is not judged.
    canary = Counts() if state.rest is not None else arms.canary
    dt = max(interval.end - max(interval.start, was.through), 1e-3)
    n_c, n_b = canary.requests, arms.baseline.requests
    e_c, e_b = min(canary.errors, n_c), min(arms.baseline.errors, n_b)
    bad_c: Any = e_c
    bad_b: Any = e_b
    if one.bounds:
        if slower is None or len(slower.canary) != one.bounds or len(slower.baseline) != one.bounds:
            return was
        bad_c = np.minimum(np.array(slower.canary)[:, None], n_c)
        bad_b = np.minimum(np.array(slower.baseline)[:, None], n_b)
    short, long, pods = evidence.FALLBACK_NOISE, evidence.FALLBACK_NOISE, (0, 0)
    if one.kind == "latency" and interval.canary_pods and interval.baseline_pods:
        # What errors teach of pods says nothing about how steady their latency is.
        short, long, pods = LATENCY_NOISE, evidence.FALLBACK_NOISE, (interval.canary_pods, interval.baseline_pods)
    elif state.noise is not None:
        short, long, pods = *state.noise, (interval.canary_pods, interval.baseline_pods)
    phi = evidence.divisor(was.evidence, n_c, n_b, dt, noise=short, canary_pods=pods[0], baseline_pods=pods[1])
    cautious = phi
    if long > short:
        cautious = evidence.divisor(was.evidence, n_c, n_b, dt, noise=long, canary_pods=pods[0], baseline_pods=pods[1])
    gain = evidence.log_gain(bets, n_c=n_c, e_c=bad_c, n_b=n_b, e_b=bad_b)
    warm = interval.age >= max(one.warm_after, state.learned_warmup)
    several = interval.canary_pods > 1
    now = evidence.update(
        was.evidence,
        bets,
        gain,
        n_c=n_c,
        e_c=bad_c,
        n_b=n_b,
        e_b=bad_b,
        dt=dt,
        refill_dt=min(dt, 2 * settings.scrape),
        warm=warm,
        alert=interval.age >= state.learned_warmup,
        phi=phi,
        cautious_phi=cautious,
        certificate_phi=2.0 * phi - 1.0 if pods[1] >= evidence.MANY_PODS else phi,
        several_pods=several,
        refill=settings.refill,
        horizon=settings.horizon,
    )
    confirming = was.confirming
    if confirming is not None and n_c > 0:
        more = (gain[..., : bets.lanes] / phi) * (1.0 if warm else bets.catastrophes)
        if several or interval.age < one.young_below:
            more = np.minimum(more, (SEVERAL_PACE if several else YOUNG_PACE) * dt)
        aged = float(interval.age >= was.confirm_from)
        confirming = confirming + np.stack([more, more * aged])
    both = n_c + n_b
    counted = Arms(canary, arms.baseline)
    unfolded, seen, folded, folded_at = was.unfolded + counted, was.bounds, was.folded, was.folded_at
    if interval.end - folded_at >= FOLD:
        c, b = unfolded.canary, unfolded.baseline
        seen = bounds.update(seen, c.requests, c.errors, b.requests, b.errors, phi=float(np.max(phi)))
        folded, folded_at = bounds.interval(seen, alpha=settings.false_rollback_rate), interval.end
        unfolded = Arms()
    return MetricState(
        now,
        was.step + counted,
        was.rollout + counted,
        was.recent.faded(math.exp(-dt / RECENT)) + counted,
        interval.end,
        seen,
        unfolded,
        folded,
        folded_at,
        was.excess + ((e_c * n_b - e_b * n_c) / both if both else 0.0),
        was.compared + (n_c * n_b / both if both else 0.0),
        confirming,
        was.confirm_from,
        was.suspects,
    )


def _calmed(one: MetricState, bets: evidence.Alternatives) -> MetricState:
    """After a trip the alarm starts from nothing, and the confirmation knows where to look.

    It does not start from nothing: what the bucket had let through by then no burst can explain alone, and what
    pods of an earlier generation confirmed was another experiment. Neither is ever enough by itself.
    """
    _, guarded, _ = evidence.summary(one.evidence, bets)
    head = min(max(guarded, _confirmation(one), 0.0), HEAD_START)
    suspects = evidence.suspects(one.evidence) + head
    return replace(one, evidence=evidence.calm(one.evidence), confirming=None, suspects=suspects)


def _usable(arms: Arms) -> bool:
    numbers = (arms.canary.requests, arms.canary.errors, arms.baseline.requests, arms.baseline.errors)
    return all(0 <= number <= LARGEST_COUNT for number in numbers)


def _merge(log_e: dict[str, float], settings: Settings) -> tuple[float, str]:
    """ln of the weighted mean of the e-values, and the metric with most of it; one without data yet counts as 1."""
    if len(settings.metrics) == 1:
        ((name, only),) = log_e.items()
        return only, name
    parts = {name: share + log_e.get(name, 0.0) for name, share in settings.log_weights.items()}
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


def _flat(arms: Arms) -> list[float]:
    return [
        round(one, 2)
        for one in (arms.canary.requests, arms.canary.errors, arms.baseline.requests, arms.baseline.errors)
    ]


def _arms(flat: list[float]) -> Arms:
    return Arms(Counts(flat[0], flat[1]), Counts(flat[2], flat[3]))
