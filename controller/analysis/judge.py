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
from enum import StrEnum
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace

from controller.analysis import bounds, evidence, planning
from controller.analysis.evidence import Evidence, Floats, PodNoise
from controller.analysis.increments import Arms, Counts, Interval, Slower

TRIP = math.log(150.0)
"""ln of the odds at which users are relieved, for a single metric."""
CONFIRMED = math.log(20.0)
"""ln of the odds at which fresh pods are a second opinion, for a single metric."""
BURSTY = 0.15 / 3600.0
"""Bursts a pod-second, as learned, from which they are a habit of the service: six in two hours of twenty pods."""
HEAD_START = 1.6
"""Nats that a confirmation may begin with, from what was guarded against bursts before it."""
YOUNG_PACE, SEVERAL_PACE = 0.1, 0.05
"""Nats a second that fresh pods may say against the revision while they are young, or several: one may have a burst."""
FLAT = 0.01
"""Nats by which a confirmation may rise and still show nothing."""
YOUNG = 60.0
"""Seconds of pod age below which a trip may be a cold start, so that the same pods get another chance."""
LATENCY_NOISE = 15.0
"""CV^2 seconds of the share of slow requests of one pod: steadier than its errors, which come in bursts."""
MOST_NOISE = 240.0
"""CV^2 seconds beyond which noise is bursts, which the bucket and the return are for."""
LEAST_HISTORY = 6600.0
"""Seconds of a baseline's past that teach the noise of its pods: two hours, but for a few lines at either end."""
SHORT_BLOCKS, LONG_BLOCK = (60.0, 120.0, 300.0), 1800.0
"""Seconds over which pods are compared with one another, to learn how much they differ for how long."""
FOLD = 30.0
"""Seconds between two looks at where the effect lies: they are shown, and decide nothing."""
CERTIFIED = math.log(20.0)
"""ln of the odds at which a metric is certified not to have got worse: wrong in at most one of twenty."""
MOST_WARM = 0.75
"""Share of the canary's pods that are enough, where some pod is always cold, for a certificate and for an alarm."""
SELDOM, LATELY = 0.25, 4.0
"""Share of the time below which all pods are seldom warm, and warm-ups after which such a time counts e times less."""
SUSPICION = 0.5
"""Share of the way to conviction, or to a trip, at which a step no longer passes."""
LARGEST_COUNT = 1e15
"""Beyond this a counter is broken: no interval holds so many requests."""
STALE_AFTER = 3
"""Scrapes without data after which what is known is too old to pass a step."""
RECENT = 60.0
"""Seconds after which a request counts e times less for the absolute rules and the rate."""
FEWEST_TO_COMPARE = 20.0
"""Requests of the baseline that a step needs: with fewer, what the canary does is compared with next to nothing."""
LEAST_OF_SHARE = 0.5
"""Part of its share of the step's requests that the baseline must have had lately, or it has all but fallen silent."""
ALONE_RATIO, ALONE_FEWEST = 0.1, 20.0
"""Bad ratio and bad requests of the canary, lately, from which users are relieved though there is no baseline to
compare with, unless the baseline was seen to be nearly as bad before it fell silent."""


class Verdict(StrEnum):
    """What the comparison says. No data is INCONCLUSIVE, never anything else."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class MetricSettings(msgspec.Struct, frozen=True, dict=True):
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

    @cached_property
    def warm_after(self) -> float:
        """Seconds of pod age; latency settles later than errors do."""
        if self.warmup is not None:
            return self.warmup
        return 60.0 if self.kind == "latency" else 30.0

    @cached_property
    def young_below(self) -> float:
        """Seconds of pod age below which a fault may be a cold start: twice the warm-up, within one to two minutes."""
        return min(max(2 * self.warm_after, YOUNG), 2 * YOUNG)

    @cached_property
    def bets(self) -> evidence.Alternatives:
        """The alternatives that the evidence of this metric is collected against."""
        return evidence.alternatives(self.kind, self.margin, self.rho)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Leading axis of the evidence: the bounds, if there are several."""
        return (self.bounds,) if self.bounds else ()


class Settings(msgspec.Struct, frozen=True, dict=True):
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

    @cached_property
    def stale_after(self) -> float:
        """Seconds after which what is known without a newer scrape is too old to pass a step."""
        return STALE_AFTER * self.scrape

    @cached_property
    def threshold(self) -> float:
        """ln E at which the canary is convicted."""
        return -math.log(self.false_rollback_rate)

    @cached_property
    def trip(self) -> float:
        """ln odds at which it is taken off traffic; grows with the number of metrics that may trip."""
        return TRIP + math.log(len(self.metrics))

    @cached_property
    def confirmation(self) -> float:
        """ln of the odds at which fresh pods agree; grows in the same way."""
        return CONFIRMED + math.log(len(self.metrics))

    @cached_property
    def log_weights(self) -> dict[str, float]:
        """ln of each metric's share of the proof; the shares sum to 1."""
        raw = {name: _raw_weight(one) for name, one in self.metrics.items()}
        whole = sum(raw.values())
        return {name: math.log(one / whole) for name, one in raw.items()}


def _raw_weight(one: MetricSettings) -> float:
    return one.weight if one.weight is not None else {"errors": 5.0, "latency": 3.0}.get(one.kind, 2.0)


class Lull(msgspec.Struct, frozen=True, array_like=True):
    """How long nothing showed after a return: a fault of the revision is there at once, a burst comes at any time."""

    served: float = 0.0
    """Pod-seconds under traffic since the return."""
    quiet: float = 0.0
    """Those until the confirmation began to rise, the interval in which it did included."""
    lowest: float = math.inf

    def after(self, confirmed: float, pod_seconds: float) -> Lull:
        """One interval later; `confirmed` is what the confirmation was before it."""
        served = self.served + pod_seconds
        if confirmed > self.lowest + FLAT:
            return Lull(served, self.quiet, self.lowest)
        return Lull(served, served, min(confirmed, self.lowest))

    def odds(self, bursts: float) -> float:
        """ln of the odds against a burst that by chance began no later; `bursts` a pod-second."""
        expected = bursts * self.quiet
        return -math.log(-math.expm1(-expected)) if expected > 0.0 else math.inf


class MetricState(msgspec.Struct, frozen=True):
    """One metric: its evidence, what it counted in this step and in the rollout, and when it last had data."""

    evidence: Evidence
    step: Arms = Arms()
    rollout: Arms = Arms()
    recent: Arms = Arms()
    """Fading with `RECENT`."""
    through: float = -math.inf
    bounds: Floats = msgspec.field(default_factory=bounds.begin)
    unfolded: Arms = Arms()
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
    lulls: tuple[Lull, Lull] = (Lull(), Lull())
    """How long the returned pods had shown nothing, for each confirmation."""
    silent: tuple[float, float] = (0.0, 0.0)
    """Seconds for which the canary, under traffic, and the baseline have had no request: what cannot be compared."""
    alone: Counts = Counts()
    """What the canary did while the counters of the baseline are missing; fading with `RECENT`, and in no other sum."""
    all_warm: float = 1.0
    """Share of the time, lately, in which every pod of the canary was warm."""

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
    excused: bool = False
    """What pods of this service do by themselves now and then explains the trip, so it is not held against it."""


class JudgeState(msgspec.Struct, frozen=True):
    """All the judge remembers of a rollout. `dump_state` makes it JSON of about 1.5 KiB a metric."""

    metrics: dict[str, MetricState] = {}
    through: float = -math.inf
    """End of the last interval taken in: where to read on after a restart."""
    noise: PodNoise | None = None
    """How pods differ, learned from the baseline's own past; None where they look alike, and it is assumed."""
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
    return (_tripped(taken_in, settings) if finding.tripped else taken_in), finding


def _tripped(state: JudgeState, settings: Settings) -> JudgeState:
    calm = {name: _calmed(one, name, settings, bursts_of(state)) for name, one in state.metrics.items()}
    return replace(state, metrics=calm, trips=state.trips + 1)


def judge_alone(
    state: JudgeState, canary: dict[str, Counts], settings: Settings, *, start: float, end: float
) -> tuple[JudgeState, Finding]:
    """What the canary did by itself while the counters of the baseline are missing: grounds for a retreat at most.

    Evidence and `through` stay where they are, so what is missed here is compared once the baseline is back.

    >>> _, finding = judge_alone(JudgeState(), {"errors": Counts(500, 250)}, Settings(), start=0.0, end=20.0)
    >>> finding.verdict.value, finding.tripped, finding.evidence
    ('inconclusive', True, 0.0)
    """
    metrics, dt = dict(state.metrics), max(end - start, 1e-3)
    for name, one in settings.metrics.items():
        counts = Counts() if state.rest is not None else canary.get(name)
        if counts is None or not _usable(Arms(counts)):
            continue
        was = metrics.get(name) or MetricState(evidence.begin(one.bets, *one.shape))
        silent = (0.0 if counts.requests or state.rest is not None else was.silent[0] + dt, was.silent[1] + dt)
        lately = Arms(was.alone).faded(math.exp(-dt / RECENT)).canary + counts
        metrics[name] = replace(was, alone=lately, silent=silent)
    alone = replace(state, metrics=metrics)
    finding = look(alone, settings, now=end, no_data="NoBaselineData")
    return (_tripped(alone, settings) if finding.tripped else alone), finding


def look(state: JudgeState, settings: Settings, *, now: float, no_data: str = "NoData") -> Finding:
    """What is known at `now` without new data; `no_data` is the reason to give if it has become too old."""
    known = {name: state.metrics[name] for name in settings.metrics if name in state.metrics}
    if not known:
        return Finding(Verdict.INCONCLUSIVE, no_data, threshold=settings.threshold, would_change="a first scrape")
    proofs, guards, alarms = dict[str, float](), dict[str, float](), dict[str, float]()
    confirmed, bursts, certified = -math.inf, bursts_of(state), len(known) == len(settings.metrics)
    for name, one in known.items():
        chosen = settings.metrics[name]
        seen = evidence.summary(one.evidence, chosen.bets)
        proofs[name], guards[name] = seen.proof, seen.guarded
        alarms[name] = max(seen.alarm, _alarm_alone(one, chosen, settings))
        confirmed = max(confirmed, _confirmation(one, bursts, settings))
        certified = certified and seen.certificate >= CERTIFIED
    proof, heaviest = _merge(proofs, settings)
    guarded, _ = _merge(guards, settings)
    loudest = max(alarms, key=alarms.__getitem__)
    alarm = alarms[loudest]
    shown = min(proof, guarded) if confirmed < settings.confirmation else proof

    tripped = alarm >= settings.trip and state.rest is None
    verdict, reason, would_change = _decide(known, settings, now, no_data, shown, guarded, heaviest, alarm, loudest)
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
        certified,
        would_change,
    )


def bursts_of(state: JudgeState) -> float:
    """Bursts of one pod, a pod-second: learned, or assumed."""
    return evidence.ASSUMED_BURSTS if state.noise is None else state.noise.bursts


def _confirmation(one: MetricState, bursts: float, settings: Settings) -> float:
    """ln of the odds at which the pods that came back agree, where no other burst explains what they show."""
    if one.confirming is None:
        return -math.inf
    both = zip(one.confirming, one.lulls, strict=True)
    return max(
        evidence.log_sum(confirming) if lull.odds(bursts) >= settings.threshold else -math.inf
        for confirming, lull in both
    )


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
        again = "the same evidence again, or none, after a rest"
        return Verdict.INCONCLUSIVE, f"{_camel(loudest)}Tripped", _unheard(known[loudest], settings) or again
    too_old = now - settings.stale_after
    if stale := [name for name in settings.metrics if name not in known or known[name].through < too_old]:
        return Verdict.INCONCLUSIVE, no_data, f"data for {', '.join(stale)} on both arms"
    missing = settings.threshold - log_e
    if guarded >= SUSPICION * settings.threshold or alarm >= SUSPICION * settings.trip:
        return (
            Verdict.INCONCLUSIVE,
            "Suspicious",
            f"{missing:.1f} more of evidence convicts, innocent requests clear it",
        )
    for one in known.values():
        # Even where none are asked for: of a canary that nobody asked anything, nothing is known.
        needs, has = max(settings.min_requests, 1.0), one.step.canary.requests
        if has < needs:
            return Verdict.INCONCLUSIVE, "TooFewRequests", f"needs {needs:.0f} canary requests here, has {has:.0f}"
        least, had = max(min(FEWEST_TO_COMPARE, needs), 1.0), one.step.baseline.requests
        if had < least:
            unheard = f"requests to the baseline: a step needs {least:.0f} of them, and had {had:.0f}"
            return Verdict.INCONCLUSIVE, "NoBaselineTraffic", unheard
        if unheard := _unheard(one, settings):
            return Verdict.INCONCLUSIVE, "NoBaselineTraffic", unheard
        if (canary_silent := one.silent[0]) >= settings.stale_after:
            return (
                Verdict.INCONCLUSIVE,
                "TooFewRequests",
                f"requests to the canary, which had none for {canary_silent:.0f} s",
            )
    if suffering := both_suffer(known, settings):
        return Verdict.INCONCLUSIVE, "BothArmsSuffer", suffering
    return Verdict.PASS, "NoEvidenceAgainst", f"{missing:.1f} more of evidence against it"


def _unheard(one: MetricState, settings: Settings) -> str:
    """What the baseline lacks that it could be compared with as of now; empty where nothing."""
    if one.silent[1] >= settings.stale_after:
        return f"requests to the baseline, which had none for {one.silent[1]:.0f} s"
    step, recent = one.step, one.recent
    # At one weight the arms share the requests as they did, however many there are.
    due = recent.canary.requests * step.baseline.requests / step.canary.requests if step.canary.requests else 0.0
    if recent.baseline.requests < LEAST_OF_SHARE * due:
        return f"requests to the baseline: lately {recent.baseline.requests:.0f}, and its share is about {due:.0f}"
    return ""


def _alarm_alone(one: MetricState, kind: MetricSettings, settings: Settings) -> float:
    """ln of the odds that no baseline explains what the canary does, where there is none to compare with.

    Requests that are slow are no catastrophe by themselves: how many are is a matter of the bound.
    """
    canary, before = one.alone if one.alone.requests else one.recent.canary, one.recent.baseline
    if kind.kind == "latency" or canary.errors < ALONE_FEWEST or not _unheard(one, settings):
        return -math.inf
    usual = max(float(np.max(evidence.expected_ratio(one.evidence))), before.ratio)
    worst = max(ALONE_RATIO, evidence.CATASTROPHE_RHO * usual + evidence.CATASTROPHE_MARGIN)
    if canary.ratio <= worst:
        return -math.inf
    return canary.errors * math.log(canary.ratio / worst) - canary.errors + canary.requests * worst


def both_suffer(known: dict[str, MetricState], settings: Settings) -> str:
    """Of which metric stable itself has more bad requests than its objective allows, lately; empty where of none."""
    for name, one in known.items():
        objective = settings.metrics[name].objective if name in settings.metrics else None
        if objective is not None and one.recent.baseline.ratio > objective:
            both = f"{100 * one.recent.baseline.ratio:.2f} % bad on stable too, objective {100 * objective:.2f} %"
            return f"{name}: {both}: what is wrong with both must end first"
    return ""


def describe_uncertified(state: JudgeState, settings: Settings, ages: tuple[float, ...] = ()) -> str:
    """What the first metric without a certificate lacks for it; empty where every metric that was seen has one.

    `ages` are those of the canary's pods, where they are known: where some are cold, that is why it takes longer.
    """
    for name, chosen in settings.metrics.items():
        one, bets = state.metrics.get(name), chosen.bets
        if one is None:
            continue
        missing = CERTIFIED - evidence.summary(one.evidence, bets).certificate
        if missing > 0.0:
            expected = float(np.mean(evidence.expected_ratio(one.evidence)))
            needs = planning.to_certify(
                expected, margin=float(bets.delta[-1]), rho=float(bets.rho[-1]), missing=missing
            )
            seen = one.rollout.canary.requests
            warm_after = _warm_after(chosen, state)
            younger = sum(age < warm_after for age in ages)
            only = f"only those of pods older than {warm_after:.0f} s count, {younger} of {len(ages)}"
            why = f": {only} {'is' if younger == 1 else 'are'} younger" if younger else ""
            return f"{name} needs about {seen + needs:,.0f} canary requests, has {seen:,.0f}{why}"
    return ""


def step_began(state: JudgeState) -> JudgeState:
    """A bake starts: the sample floor is counted anew. The evidence is over the whole rollout and stays."""
    return replace(state, metrics={name: replace(one, step=Arms()) for name, one in state.metrics.items()})


def next_step(state: JudgeState) -> JudgeState:
    """Another step: its pods need not be as old as those of the last one had to become."""
    return replace(step_began(state), proven_age=0.0)


def learn_noise(state: JudgeState, requests: Floats, errors: Floats, *, block: float = 300.0) -> JudgeState:
    """Take the noise of pods from the baseline's own past, before the rollout (`evidence.pod_noise`).

    The loudest of several lengths of blocks is believed: a job of a few seconds drowns in long ones, and one that
    runs every five minutes is not seen at all in blocks of five minutes. Pods that differ for good look quiet in
    short blocks and louder the longer one looks, so the bucket, which convicts without a second opinion, believes
    the longest blocks that still repeat.

    Bursts are no noise of this kind: where they are all there is, counting them would blind the judge.

    Args: requests, errors: shape (blocks, pods), about two hours of blocks; less is not believed.
    """
    if requests.shape[0] * block < LEAST_HISTORY:
        return state

    def noise(seconds: float) -> float:
        joined = max(int(seconds // block), 1)
        whole = requests.shape[0] // joined * joined
        longer = [one[-whole:].reshape(-1, joined, one.shape[1]).sum(axis=1) for one in (requests, errors)]
        return evidence.pod_noise(longer[0], longer[1], block=block * joined)

    short = max(noise(seconds) for seconds in SHORT_BLOCKS)
    believed = min(short, MOST_NOISE)
    bursts = evidence.burst_rate(requests, errors, noise=believed, block=block)
    return replace(state, noise=PodNoise(believed, max(short, noise(LONG_BLOCK)), bursts))


def dump_state(state: JudgeState) -> dict[str, Any]:
    """Plain values for JSON. Minus infinity, which JSON has no word for, is null."""
    return {
        "through": _finite(state.through),
        "noise": None if state.noise is None else [float(f"{one:.4g}") for one in state.noise],
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
            | ({} if one.confirming is None else {"confirm": _dump_confirming(one, one.confirming)})
            | ({} if one.suspects is None else {"suspects": evidence.pack(one.suspects.ravel())})
            | ({"silent": list(one.silent)} if any(one.silent) else {})
            | ({"warm": one.all_warm} if one.all_warm < 0.999 else {})
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
        PodNoise(*plain["noise"]) if plain["noise"] and len(plain["noise"]) == 3 else None,
        plain["trips"],
        plain["rate"],
        plain["since"],
        None if plain["rest"] is None else Rest(*plain["rest"]),
        learned_warmup,
        proven_age,
        limit,
        _infinite(limited_until),
    )


def _dump_confirming(one: MetricState, confirming: Floats) -> list[Any]:
    lulls = [[round(lull.served, 1), round(lull.quiet, 1), _finite(lull.lowest)] for lull in one.lulls]
    return [one.confirm_from, evidence.pack(confirming.ravel()), *lulls]


def _load_metric(one: dict[str, Any], settings: MetricSettings) -> MetricState:
    bets, shape = settings.bets, settings.shape
    step, rollout, recent, unfolded = (_arms(flat) for flat in one["n"])
    excess, compared, low, high, folded_at = one["effect"]
    confirm_from, packed, *lulled = one.get("confirm", (0.0, ""))
    confirming = _unpacked(packed, (2, *shape, bets.lanes)) if len(lulled) == 2 else None
    lulls = [Lull(served, quiet, _high(lowest)) for served, quiet, lowest in lulled] or [Lull(), Lull()]
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
        (lulls[0], lulls[1]),
        tuple(one.get("silent", (0.0, 0.0))),
        all_warm=one.get("warm", 1.0),
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
    short: Any = evidence.FALLBACK_NOISE
    long, pods = evidence.FALLBACK_NOISE, (0, 0)
    if one.kind == "latency" and interval.canary_pods and interval.baseline_pods:
        # What errors teach of pods says nothing about how steady their latency is.
        pods = (interval.canary_pods, interval.baseline_pods)
        shown = evidence.noise_of_sums(was.evidence, n_b, dt, baseline_pods=pods[1])
        short = np.clip(shown, LATENCY_NOISE, MOST_NOISE)
        long = np.maximum(short, evidence.FALLBACK_NOISE)
    elif state.noise is not None:
        short, long, pods = state.noise.short, state.noise.long, (interval.canary_pods, interval.baseline_pods)
    phi = evidence.divisor(was.evidence, n_c, n_b, dt, noise=short, canary_pods=pods[0], baseline_pods=pods[1])
    cautious = phi
    if _is_any(long > short):
        cautious = evidence.divisor(was.evidence, n_c, n_b, dt, noise=long, canary_pods=pods[0], baseline_pods=pods[1])
    gain = evidence.log_gain(bets, n_c=n_c, e_c=bad_c, n_b=n_b, e_b=bad_b)
    warm_after = _warm_after(one, state)
    warm, share = interval.age >= warm_after, interval.share_of(warm_after)
    certifies = warm or (share >= MOST_WARM and was.all_warm < SELDOM)
    if certifies and not warm:
        # What cold pods answered well is not counted and what they answered badly is, so that whoever has this
        # certificate has it for the warm ones, and for all of them together.
        of_warm = evidence.log_gain(bets, n_c=share * n_c, e_c=bad_c, n_b=n_b, e_b=bad_b)
        gain = np.concatenate([gain[..., : bets.lanes], of_warm[..., bets.lanes :]], axis=-1)
    passed = math.exp(-dt / (LATELY * warm_after)) if warm_after else 0.0
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
        certifies=certifies,
        alert=certifies or interval.age >= state.learned_warmup,
        phi=phi,
        cautious_phi=cautious,
        certificate_phi=_certificate_phi(was, phi, many=pods[1] >= evidence.MANY_PODS, single=not one.bounds),
        several_pods=several,
        bursty=state.noise is not None and state.noise.bursts >= BURSTY,
        refill=settings.refill,
        horizon=settings.horizon,
        louder=settings.trip - TRIP,
    )
    confirming, lulls = was.confirming, was.lulls
    if confirming is not None and n_c > 0:
        more = (gain[..., : bets.lanes] / phi) * (1.0 if warm else bets.catastrophes)
        if several or interval.age < one.young_below:
            more = np.minimum(more, (SEVERAL_PACE if several else YOUNG_PACE) * dt)
        aged = float(interval.age >= was.confirm_from)
        served = dt * max(interval.canary_pods, 1)
        lulls = (
            lulls[0].after(evidence.log_sum(confirming[0]), served),
            lulls[1].after(evidence.log_sum(confirming[1]), served * aged),
        )
        confirming = confirming + np.stack([more, more * aged])
    both = n_c + n_b
    counted = Arms(canary, arms.baseline)
    unfolded, seen, folded, folded_at = was.unfolded + counted, was.bounds, was.folded, was.folded_at
    if interval.end - folded_at >= FOLD:
        c, b, noisiest = unfolded.canary, unfolded.baseline, np.max(phi) if one.bounds else phi
        seen = bounds.update(seen, c.requests, c.errors, b.requests, b.errors, phi=noisiest)
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
        lulls,
        (
            0.0 if arms.canary.requests or state.rest is not None else was.silent[0] + dt,
            0.0 if n_b else was.silent[1] + dt,
        ),
        all_warm=warm + passed * (was.all_warm - warm),
    )


def _warm_after(one: MetricSettings, state: JudgeState) -> float:
    return max(one.warm_after, state.learned_warmup)


def _is_any(found: Any) -> bool:
    """As `np.any`, which takes longer over one number than the rest of the dispersion."""
    return bool(found) if isinstance(found, bool | np.bool_) else bool(found.any())


def _certificate_phi(was: MetricState, phi: Any, *, many: bool, single: bool) -> Any:
    """Noise in the canary's favour must earn no certificate, so it counts in full; but after an incident that hit
    both arms the ratio of lately, not that of the incident, says how much noise is still to come."""
    full = 2.0 * phi - 1.0 if many else phi
    if not single or full <= 1.0:
        return full
    lately = (was.recent.baseline.errors + 1.0) / (was.recent.baseline.requests + 500.0)
    eased = 1.0 + (full - 1.0) * min(1.0, 2.0 * lately / evidence.expected_ratio(was.evidence))
    return max(eased, was.evidence.clumps.size)


def _calmed(one: MetricState, name: str, settings: Settings, bursts: float) -> MetricState:
    """After a trip the alarm starts from nothing, and the confirmation knows where to look.

    The confirmation has a head start: what the bucket had let through by then no burst can explain alone, and what
    pods of an earlier generation confirmed was another experiment. Neither is ever enough by itself.
    """
    guarded = evidence.summary(one.evidence, settings.metrics[name].bets).guarded
    head = min(max(guarded, _confirmation(one, bursts, settings), 0.0), HEAD_START)
    suspects = evidence.suspects(one.evidence) + head
    calm, recent = evidence.calm(one.evidence), Arms(baseline=one.recent.baseline)
    return replace(one, evidence=calm, confirming=None, suspects=suspects, recent=recent, alone=Counts())


def _usable(arms: Arms) -> bool:
    canary, baseline, most = arms.canary, arms.baseline, LARGEST_COUNT
    ours = 0 <= canary.requests <= most and 0 <= canary.errors <= most
    return ours and 0 <= baseline.requests <= most and 0 <= baseline.errors <= most


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


def _high(value: float | None) -> float:
    return math.inf if value is None else value


def _infinite(value: float | None) -> float:
    return -math.inf if value is None else value


def _flat(arms: Arms) -> list[float]:
    return [
        round(one, 2)
        for one in (arms.canary.requests, arms.canary.errors, arms.baseline.requests, arms.baseline.errors)
    ]


def _arms(flat: list[float]) -> Arms:
    return Arms(Counts(flat[0], flat[1]), Counts(flat[2], flat[3]))
