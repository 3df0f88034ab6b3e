"""Evidence that the canary is worse than its margin allows, as e-values that hold at every look.

The one thing to know: there are three sums over the same increments, and each answers one question.
`proof` is the e-process that the promise stands on: nobody is convicted before it reaches
1 / falseRollbackRate, which independent requests of a harmless canary do in at most that share of
rollouts. `guarded` is the same behind a bucket, so that no burst convicts by itself. `cusum` starts
anew whenever it looks innocent: the alarm that takes a canary off traffic.

Every operation after `log_e_value` (dispersion divisor, bucket, start-time mixture, warm-up) can only
lower the evidence, so the guarantee of the formula survives all of them. All arrays end in one axis of
alternatives r, the main lane first and the catastrophe lane after it; a leading axis, if any, holds the
bounds of a latency, or independent rollouts in tests.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CAP = 2.5  # nats a bucket holds: what one moment may say at most
TANK = 5.0  # nats that the main lane may raise an alarm by at once
TANK_PACE = 0.1  # nats a second after that, with one canary pod; half of it where one of several may have a burst
FALLBACK_NOISE = 30.0  # seconds of pod noise where pods cannot be told apart
SHORT_TANK, SHORTER_TANK = 3.0, 2.5  # the same where pods are known to burst, and where one of several may
ASSUMED_BURSTS = 0.2 / 3600.0  # bursts a pod-second where pods cannot be told apart
BURST = math.log(150.0)  # ln odds, noise divided out, from which a minute of one pod is a burst: as loud as an alarm
MAIN_SHARE, CATASTROPHE_SHARE = 0.8, 0.2
CATASTROPHE_RHO, CATASTROPHE_MARGIN = 10.0, 0.01
CERTIFICATE_RHO, CERTIFICATE_MARGIN = 1.5, 0.001
"""By how much a promoted canary may be worse: wider than the margin of a rollback, or neither could be said."""
CERTIFICATES = 8
MANY_PODS = 10  # baseline pods from which their mean is steady: below it noise counts twice
MEMORY = 600.0  # seconds after which the baseline's past ratio counts e times less
MINUTE = 60.0
CLUMP_PRIOR = 20.0  # bad requests that speak for independence before any was seen
CLUMP_MOST = 20.0  # bad requests that one pair of scrapes may count for: a burst of one pod is no habit
CLUMP_CHANCE = 0.3  # what a factor of 1 may look like after ten minutes of a few bad requests a scrape
CLUMPED_MOST = 12.0  # beyond it bad requests are bursts, which the bucket and the return are for

# Arrays, because of a number numpy makes one at every call. `_FAR` is nats far above any threshold, where exp holds.
_NONE, _FULL, _FAR = np.array(0.0), np.array(CAP), np.array(600.0)


@dataclass(frozen=True, eq=False)
class Alternatives:
    """What the evidence bets on. The arrays hold `lanes` bets against the canary, then those for it."""

    r: Floats
    """The factor of each bet: above 1 that the canary is worse, below 1 that it is not."""
    log_r: Floats
    rho: Floats
    delta: Floats
    """The margin of its lane, as a factor and a fraction of requests."""
    catastrophes: Floats
    """Shape (lanes,): 1 in the catastrophe lane, 0 in the main one."""
    main: int
    """How many of them are the main lane's."""
    lanes: int
    rises_fast: bool
    """Whether a burst of bad canary requests refills the bucket faster (errors only)."""
    raised: Floats
    """r - 1, and of the margin delta / rho: the same at every scrape."""
    slack: Floats
    begins: Floats
    """ln of the start weight of each bet, over that of one against the canary: those for it are fewer."""


@lru_cache(maxsize=64)
def alternatives(kind: str, margin: float, rho: float = 1.25) -> Alternatives:
    """The bets on a metric of `kind`: two lanes against the canary, and those that certify it."""
    grid = np.geomspace(1.2, 60.0, 10) if kind == "latency" else np.geomspace(1.4, 400.0, 12)
    size = len(grid)
    r = np.concatenate([grid, grid, 1.0 / np.geomspace(1.2, 20.0, CERTIFICATES)])
    wide = max(CERTIFICATE_MARGIN, 2.0 * margin)
    rhos = np.repeat([rho, CATASTROPHE_RHO, CERTIFICATE_RHO], [size, size, CERTIFICATES])
    deltas = np.repeat([margin, max(margin, CATASTROPHE_MARGIN), wide], [size, size, CERTIFICATES])
    return Alternatives(
        r=r,
        log_r=np.log(r),
        rho=rhos,
        delta=deltas,
        catastrophes=np.repeat([0.0, 1.0], size),
        main=size,
        lanes=2 * size,
        rises_fast=kind == "errors",
        raised=r - 1.0,
        slack=deltas / rhos,
        begins=np.repeat([0.0, math.log(size / CERTIFICATES)], [2 * size, CERTIFICATES]),
    )


def log_e_value(n_c: Any, e_c: Any, n_b: Any, e_b: Any, *, r: Any, rho: Any, delta: Any) -> Any:
    """Margin Poisson-share log e-value of one interval against `p_c <= rho * p_b + delta`.

    Args:
        n_c, e_c, n_b, e_b: requests and bad requests of canary and baseline in the interval;
            broadcast against r; n_c + n_b > 0.
        r: > 1 bets that the canary is worse; < 1 turns it into a certificate that it is not
            (then the hypothesis spoken against is `p_c >= rho * p_b + delta`).
        rho, delta: the margin, a factor >= 0 and a fraction of requests >= 0; rho > 0.
    Returns: natural logarithm, broadcast shape. E exp(result) <= 1 under the hypothesis for
        independent requests, whatever the base rate and however the traffic share was chosen.
    Source: conditional-binomial shares with the margin as a Poisson pseudo-error stream,
        extending Lindon & Malek (2022), arXiv:2011.03567. Exactness: tests/unit/analysis.

    >>> round(float(log_e_value(100, 5, 1900, 2, r=20.0, rho=1.25, delta=0.0001)), 2)
    9.46
    >>> round(float(log_e_value(100, 0, 1900, 2, r=20.0, rho=1.25, delta=0.0001)), 2)
    -1.63
    """
    return log_e_value_of(n_c, e_c, n_b, e_b, log_r=np.log(r), rho=rho, raised=r - 1.0, slack=delta / rho)


def log_e_value_of(n_c: Any, e_c: Any, n_b: Any, e_b: Any, *, log_r: Any, rho: Any, raised: Any, slack: Any) -> Any:
    """`log_e_value` with what is the same at every scrape reckoned before: `raised` is r - 1, `slack` delta / rho."""
    lifted = rho * n_c
    grow = lifted / (lifted + n_b) * raised
    return e_c * log_r - (e_c + e_b) * np.log1p(grow) - slack * n_b * grow / (1.0 + grow)


def dispersion(n_c: Any, n_b: Any, p_hat: Any, dt: Any, *, noise: Any, canary_pods: Any, baseline_pods: Any) -> Any:
    """How many times noisier than independent requests the comparison is, >= 1.

    Args:
        p_hat: the baseline's bad ratio, from past intervals only.
        dt: seconds of the interval.
        noise: v, CV^2 times seconds of one pod's ratio (`pod_noise`, or `FALLBACK_NOISE`).
        canary_pods, baseline_pods: 0 means unknown, and counts as one.
    Why it is allowed: e**(1/phi) is an e-value for a predictable phi >= 1 (Jensen).

    >>> round(dispersion(50.0, 950.0, 0.001, 5.0, noise=30.0, canary_pods=1, baseline_pods=20), 3)
    1.15
    """
    kappa = 1.0 - 0.5 * (baseline_pods >= MANY_PODS)
    pods = 1.0 / (canary_pods + (canary_pods == 0)) + 1.0 / (baseline_pods + (baseline_pods == 0))
    return 1.0 + kappa * (n_c * n_b / (n_c + n_b)) * p_hat * (noise / dt) * pods


def pod_noise(requests: Floats, errors: Floats, *, block: float = 300.0) -> float:
    """The noise v of one pod's bad ratio, in CV^2 seconds, from baseline pods.

    Args:
        requests, errors: shape (blocks, pods), counts per pod and block; a block must be long
            enough to contain the noise (5 minutes), two hours of them or more.
        block: seconds.
    Returns: >= 0; `FALLBACK_NOISE` where there is too little to tell (fewer than two pods or
        no errors).
    Drift common to all pods is removed, autocorrelation stays in.

    >>> pod_noise(np.full((24, 4), 1000.0), np.tile([20.0, 0.0, 0.0, 20.0], (24, 1)))
    277.5
    """
    pods = requests.shape[1]
    ratio = errors.sum(axis=1, keepdims=True) / np.maximum(requests.sum(axis=1, keepdims=True), 1.0)
    expected = requests * ratio
    scale = float((expected**2).sum())
    if pods < 2 or scale == 0.0:
        return FALLBACK_NOISE
    excess = float(((errors - expected) ** 2 - expected * (1.0 - 1.0 / pods)).sum())
    return block * max(excess, 0.0) / scale


class PodNoise(NamedTuple):
    """How a service's pods differ, as their own past shows it."""

    short: float
    """v of `pod_noise` over minutes, in CV^2 seconds."""
    long: float
    """The same over half an hour, in which pods that differ for good are louder; the larger of both."""
    bursts: float
    """How often one pod was much worse than the others for a while, a pod-second."""


def burst_rate(requests: Floats, errors: Floats, *, noise: float, block: float) -> float:
    """How often a pod fails so much more than the others that it could pass for a fault, a pod-second.

    Args: requests, errors: shape (blocks, pods), counts per pod and block. noise: `pod_noise` of them.
        block: seconds, about a minute. Blocks that follow each other are one burst.

    >>> errors = np.tile([1.0, 1.0, 1.0, 1.0], (60, 1))
    >>> errors[20:22, 3] = 40.0
    >>> round(3600 * burst_rate(np.full((60, 4), 1000.0), errors, noise=10.0, block=60.0), 3)
    0.25
    """
    others = (errors.sum(axis=1, keepdims=True) - errors, requests.sum(axis=1, keepdims=True) - requests)
    expected = requests * (1.25 * (others[0] + 0.5) / (others[1] + 500.0) + 0.0001)
    more = np.maximum(errors, expected)
    odds = more * np.log(np.maximum(more, 1e-9) / np.maximum(expected, 1e-9)) - more + expected
    loud = odds / (1.0 + 0.5 * expected * noise / block) >= BURST
    began = loud & ~np.vstack([np.zeros((1, loud.shape[1]), dtype=bool), loud[:-1]])
    return float(began.sum() / (block * max((requests > 0.0).sum(), 1)))


class Clumps(NamedTuple):
    """How much bad requests of the baseline come together, from scrape to scrape: retries, batches, paused processes.

    Scalars, or shape (..., 1) as the counts are.
    """

    requests: Any = 0.0
    bad: Any = 0.0
    """Of the last interval."""
    squares: Any = 0.0
    """Squared differences of two neighbouring intervals, over what independent requests would show."""
    weight: Any = 0.0
    """Bad requests that those stand for; both fade with `MEMORY`."""

    @property
    def factor(self) -> Any:
        """Variance over mean of the count of bad requests (Fano factor), at least 1."""
        return _greater((CLUMP_PRIOR + self.squares) / (CLUMP_PRIOR + self.weight), 1.0)

    @property
    def size(self) -> Any:
        """The same, as far as it is believed to be clumps and not chance."""
        return _lesser(_greater(self.factor - CLUMP_CHANCE, 1.0), CLUMPED_MOST)


def add_clumps(seen: Clumps, requests: Any, bad: Any, *, dt: float, neighbours: bool = True) -> Clumps:
    """Compare one interval of the baseline with the one before, unless scrapes between them were missed.

    A drift of the ratio over minutes adds nothing, nor does a difference between pods that stays.

    >>> seen = Clumps()
    >>> for bad in (0.0, 12.0, 0.0, 0.0, 9.0, 0.0) * 20: seen = add_clumps(seen, 1000.0, bad, dt=5.0)
    >>> round(seen.size, 1)
    10.0
    """
    both = seen.bad + bad
    chance = seen.requests * requests * both
    apart = (bad * seen.requests - seen.bad * requests) ** 2 / (chance + (chance <= 0.0))
    counts = _lesser(both, CLUMP_MOST) * (chance > 0.0) * neighbours
    fade = math.exp(-dt / MEMORY)
    return Clumps(
        requests,
        bad,
        fade * seen.squares + counts * _lesser(apart, 10.0 * seen.factor),
        fade * seen.weight + counts,
    )


def _lesser(one: Any, other: Any) -> Any:
    """`min` for scalars and arrays alike; several times faster than numpy's for scalars."""
    return 0.5 * (one + other - abs(one - other))


def _greater(one: Any, other: Any) -> Any:
    return 0.5 * (one + other + abs(one - other))


class Evidence(msgspec.Struct, frozen=True, eq=False):
    """All that one metric has to remember of the canary: arrays, their last axis the alternatives, and scalars."""

    proof: Floats
    """ln W_r without bucket, the weights over alternatives and start times included; -inf before the first interval.
    Shape (..., lanes)."""
    guarded: Floats
    """The same with what the bucket lets through; after the lanes the bets for the canary, so that it is not worse."""
    budget: Floats
    """Nats left in the bucket of each bet, against the canary and for it."""
    cusum: Floats
    """Evidence since it last looked innocent: the question of the retreat. Shape (..., lanes)."""
    tank: Floats
    """Nats by which each alternative of the main lane may still raise the alarm. Shape (..., main)."""
    released: float = 0.0
    """Share of the start-time weights already placed; the rest still stands at 1."""
    past_requests: Any = 0.0
    past_errors: Any = 0.0
    """The baseline's recent past, fading with `MEMORY`: predicts the ratio that phi needs."""
    hot: Any = False
    """Whether at least a fifth, and three, of the canary's requests were bad in the last interval."""
    clumps: Clumps = Clumps()
    """From scrape to scrape."""
    minutes: Clumps = Clumps()
    """From minute to minute."""
    minute: tuple[Any, Any, float] = (0.0, 0.0, 0.0)
    """The baseline's requests and bad ones in the minute under way, and its seconds."""


def begin(bets: Alternatives, *leading: int) -> Evidence:
    """No evidence yet, with full buckets."""
    shape, all_bets = (*leading, bets.lanes), (*leading, len(bets.r))
    past: Any = np.zeros((*leading, 1)) if leading else 0.0
    return Evidence(
        np.full(shape, -np.inf),
        np.full(all_bets, -np.inf),
        np.full(all_bets, CAP),
        np.zeros(shape),
        np.full((*leading, bets.main), TANK),
        past_requests=past,
        past_errors=past,
        hot=past > 0.0,
        clumps=Clumps(past, past, past, past),
        minutes=Clumps(past, past, past, past),
        minute=(past, past, 0.0),
    )


def expected_ratio(seen: Evidence) -> Any:
    """The baseline's bad ratio that its recent past predicts."""
    return (seen.past_errors + 0.5) / (seen.past_requests + 500.0)


def divisor(seen: Evidence, n_c: Any, n_b: Any, dt: Any, *, noise: Any, canary_pods: Any, baseline_pods: Any) -> Any:
    """What the evidence of the coming interval is divided by, from the baseline's past alone: the noise of pods, or
    the clumps that bad requests come in, whichever is larger."""
    some_b = n_b + (n_c + n_b <= 0)
    noisy = dispersion(
        n_c, some_b, expected_ratio(seen), dt, noise=noise, canary_pods=canary_pods, baseline_pods=baseline_pods
    )
    return _greater(noisy, seen.clumps.size)


def noise_of_sums(seen: Evidence, n_b: Any, dt: float, *, baseline_pods: int) -> Any:
    """The noise v of one pod, in CV^2 seconds, as far as it shows in the sum over the baseline's pods.

    For where pods cannot be looked at one by one. What all of them do together is taken for noise of each, which
    errs on the safe side; how they differ for good does not show.
    """
    factor = _greater(seen.clumps.factor, seen.minutes.factor)
    per_second = expected_ratio(seen) * n_b / dt
    return (factor - 1.0) * baseline_pods / (per_second + (per_second <= 0.0))


def log_gain(bets: Alternatives, *, n_c: Any, e_c: Any, n_b: Any, e_b: Any) -> Any:
    """What one interval says in favour of each alternative, as if requests were independent."""
    some_b = n_b + (n_c + n_b <= 0)  # without any request the formula is 0/0, and must say nothing
    return log_e_value_of(n_c, e_c, some_b, e_b, log_r=bets.log_r, rho=bets.rho, raised=bets.raised, slack=bets.slack)


def update(
    seen: Evidence,
    bets: Alternatives,
    gain: Floats,
    *,
    n_c: Any,
    e_c: Any,
    n_b: Any,
    e_b: Any,
    dt: float,
    refill_dt: float,
    warm: bool,
    certifies: bool,
    alert: bool,
    phi: Any,
    cautious_phi: Any,
    certificate_phi: Any,
    several_pods: bool,
    refill: float,
    horizon: float,
    louder: float = 0.0,
    bursty: bool = False,
) -> Evidence:
    """Take in one interval.

    Args:
        gain: `log_gain` of the interval. n_c, e_c, n_b, e_b: its counts, scalars or shape (..., 1).
        dt: its seconds, > 0; `refill_dt` the same, capped where scrapes were missed.
        warm: whether the canary's pods have outlived their warm-up: else the main lane is no evidence.
        certifies: whether it counts for certificates: the pods are warm, or most are and `gain` allows for the others.
        alert: whether the main lane may raise an alarm; before the warm-up too, since an alarm costs little.
        phi: `divisor` of this interval, >= 1; `cautious_phi` the one for the bucket, which has no second opinion;
            `certificate_phi` the one for certificates, which noise in the canary's favour must not earn.
        several_pods: the canary has more than one pod, so that bursts of one are likelier and matter less.
        bursty: pods of this service are known to burst, so that an alarm has to last.
        refill: nats a second of the bucket; horizon: seconds the plan lasts, over which most late starts are spread.
        louder: nats by which an alarm has to be louder than that of a single metric.
    """
    against, for_it = gain[..., : bets.lanes], gain[..., bets.lanes :]
    hot = (e_c >= 3) & (e_c >= 0.2 * n_c)
    pace = refill * refill_dt
    if (burning := hot & seen.hot) is not False:
        # Of the bets against the canary.
        pace = pace * (1.0 + 3.0 * (burning & bets.rises_fast & (bets.r > 1.0)))
    budget = np.minimum(seen.budget + pace, _FULL)
    believed = against / phi
    weighed = believed if warm else believed * bets.catastrophes
    held = weighed if cautious_phi is phi else weighed * (phi / cautious_phi)
    earned = for_it / certificate_phi if certifies else 0.0 * for_it
    let_through = np.minimum(np.concatenate((held, earned), axis=-1), budget)

    leak = TANK_PACE * refill_dt * (0.5 if several_pods else 1.0)
    tank = np.minimum(seen.tank + leak, SHORTER_TANK if several_pods else SHORT_TANK if bursty else TANK)
    cusum = believed.copy() if alert else believed * bets.catastrophes
    loud = np.minimum(cusum[..., : bets.main], tank + louder if louder else tank)
    cusum[..., : bets.main] = loud

    # Half of the weight starts now; the rest is spread over all time to come, most of it over the plan, so that
    # a late fault is not outweighed by the innocent hours before it, nor a late recovery by an early burst.
    waiting = 1.0 - seen.released
    later = 0.5 if seen.released == 0.0 else 0.5 * horizon / (0.5 * horizon / waiting + dt)
    start = math.log((waiting - later) / bets.main)
    fade = math.exp(-dt / MEMORY)
    requests, bad, seconds = seen.minute[0] + n_b, seen.minute[1] + e_b, seen.minute[2] + dt
    minutes = seen.minutes
    if seconds >= MINUTE:
        minutes = add_clumps(minutes, requests, bad, dt=seconds, neighbours=seconds < 2.0 * MINUTE)
        requests, bad, seconds = 0.0, 0.0, 0.0
    return Evidence(
        np.logaddexp(seen.proof, start) + weighed,
        np.logaddexp(seen.guarded, start + bets.begins) + let_through,
        budget - np.maximum(let_through, _NONE),
        np.maximum(seen.cusum + cusum, _NONE),
        tank - np.maximum(loud, _NONE),
        1.0 - later,
        seen.past_requests * fade + n_b,
        seen.past_errors * fade + e_b,
        hot,
        add_clumps(seen.clumps, n_b, e_b, dt=dt, neighbours=refill_dt >= dt),
        minutes,
        (requests, bad, seconds),
    )


class Summary(NamedTuple):
    """What one metric's evidence comes to; where it has several bounds, the mean over them."""

    proof: float
    """ln E without bucket"""
    guarded: float
    """ln E of what the bucket let through"""
    alarm: float
    """ln of the mean CUSUM, of the larger lane"""
    certificate: float
    """ln of the evidence that the canary is not worse than its certificate's margin allows"""


def summary(seen: Evidence, bets: Alternatives) -> Summary:
    """All that is asked of the evidence at every look, at once."""
    logs = np.concatenate((seen.proof, seen.cusum, seen.guarded), axis=-1)
    weights = np.exp(np.minimum(logs, _FAR)).reshape(-1, logs.shape[-1])
    against, for_it = weights[:, : 3 * bets.lanes], weights[:, 3 * bets.lanes :]
    count, waiting = len(weights), 1.0 - seen.released
    lanes = np.add.reduce(against.reshape(count, 3, 2, bets.main), axis=-1)
    both = lanes[0] if count == 1 else np.add.reduce(lanes, axis=0)
    (p_main, p_cat), (c_main, c_cat), (g_main, g_cat) = both.tolist()
    return Summary(
        math.log((MAIN_SHARE * p_main + CATASTROPHE_SHARE * p_cat) / count + waiting),
        math.log((MAIN_SHARE * g_main + CATASTROPHE_SHARE * g_cat) / count + waiting),
        math.log(max(c_main, c_cat) / (bets.main * count)),
        math.log(float(np.add.reduce(for_it.ravel())) / count + 1.0 - seen.released),
    )


def suspects(seen: Evidence) -> Floats:
    """How a later experiment should bet: ln of weights that sum to 1, most where the alarm came from.

    The bets of the confirmation are chosen before its first request, so it stays an e-process.
    """
    lively = 0.8 * np.minimum(seen.cusum, 50.0)
    shares = np.exp(lively - lively.max())
    bets: Floats = np.log(0.9 * shares / shares.sum() + 0.1 / shares.size)
    return bets


def bet(seen: Evidence, bets: Alternatives, on: Floats) -> Evidence:
    """Place half of the start weights that are left on the alternatives that look true, `on` as of `suspects`.

    They are chosen before the requests that they bet on, so what comes out is an e-process as before.
    """
    placed = 0.5 * (1.0 - seen.released)
    shares = on - log_sum(on) + math.log(placed * on.size / bets.lanes)
    shares = shares - np.where(bets.catastrophes > 0.0, math.log(CATASTROPHE_SHARE), math.log(MAIN_SHARE))
    against, for_it = seen.guarded[..., : bets.lanes], seen.guarded[..., bets.lanes :]
    return replace(
        seen,
        proof=np.logaddexp(seen.proof, shares),
        guarded=np.concatenate([np.logaddexp(against, shares), for_it], axis=-1),
        released=seen.released + placed,
    )


def log_sum(logs: Floats) -> float:
    """ln of the sum of exp(logs), capped far above any threshold."""
    return float(np.log(np.add.reduce(np.exp(np.minimum(logs, _FAR)), axis=None)))


def calm(seen: Evidence) -> Evidence:
    """Forget the alarm, keep the evidence: after a retreat the next one is counted from nothing."""
    return replace(seen, cusum=np.zeros_like(seen.cusum), tank=np.full_like(seen.tank, TANK))


def dump(seen: Evidence) -> dict[str, Any]:
    """Plain values for JSON: arrays as base64 of little-endian float16, which is finer than any threshold needs."""
    return {
        "e": pack(np.concatenate([one.ravel() for one in _kept(seen)])),
        "s": [
            round(seen.released, 6),
            float(np.max(seen.past_requests)),
            *(round(float(one), 3) for one in np.ravel(seen.past_errors)),
        ],
        "hot": bool(np.any(seen.hot)),
        "clumps": [
            [round(float(one), 3) for one in np.ravel(values)] for values in (*seen.clumps, *seen.minutes, *seen.minute)
        ],
    }


def _kept(seen: Evidence) -> tuple[Floats, ...]:
    """The arrays in the order they are kept in, the bets for the canary at the end: other versions read them too."""
    lanes = seen.proof.shape[-1]
    for_it = np.concatenate([seen.guarded[..., lanes:], seen.budget[..., lanes:]], axis=-1)
    return seen.proof, seen.guarded[..., :lanes], seen.budget[..., :lanes], seen.cusum, seen.tank, for_it


def load(plain: dict[str, Any], bets: Alternatives, *leading: int) -> Evidence:
    """The inverse of `dump`; what another version wrote in another shape begins anew."""
    fresh = begin(bets, *leading)
    values, (released, requests, *errors) = unpack(plain["e"]), plain["s"]
    shapes = [one.shape for one in _kept(fresh)]
    sizes = [int(np.prod(shape)) for shape in shapes]
    if values.size != sum(sizes) or len(errors) != np.size(fresh.past_errors) or len(plain.get("clumps", ())) != 11:
        return fresh
    parts = np.split(values, np.cumsum(sizes)[:-1])
    proof, guarded, budget, cusum, tank, for_it = (
        part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)
    )
    past: Any = requests
    bad: Any = errors[0]
    hot: Any = plain["hot"]
    if leading:
        bad = np.array(errors).reshape(*leading, 1)
        past = np.full_like(bad, requests)
        hot = past < 0.0
    clumps: list[Any] = [np.reshape(values, np.shape(bad) if len(values) > 1 else ()) for values in plain["clumps"]]
    clumps = clumps if leading else [float(one) for one in clumps]
    return Evidence(
        proof,
        np.concatenate([guarded, for_it[..., :CERTIFICATES]], axis=-1),
        np.concatenate([budget, for_it[..., CERTIFICATES:]], axis=-1),
        cusum,
        tank,
        released,
        past,
        bad,
        hot,
        Clumps(*clumps[:4]),
        Clumps(*clumps[4:8]),
        (clumps[8], clumps[9], float(clumps[10])),
    )


def pack(values: Floats) -> str:
    """Base64 of little-endian float16; beyond its range lies no decision."""
    shown = np.where(np.isneginf(values), -np.inf, np.clip(values, -6e4, 6e4))
    return base64.b64encode(shown.astype("<f2").tobytes()).decode()


def unpack(text: str) -> Floats:
    """The inverse of `pack`."""
    return np.frombuffer(base64.b64decode(text), dtype="<f2").astype(np.float64)
