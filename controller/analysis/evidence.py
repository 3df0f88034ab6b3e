"""Evidence that the canary is worse than its margin allows, as e-values that hold at every look.

The one thing to know: every operation after `log_e_value` (dispersion divisor, bucket, start-time
mixture, warm-up) can only lower the evidence, so the guarantee of the formula survives all of them.

All arrays end in one axis of alternatives r, the main lane first and the catastrophe lane after it;
leading axes, if any, are independent rollouts, which is how the laboratory runs a thousand at once.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CAP = 2.5  # nats a bucket holds: what one moment may say at most
FALLBACK_NOISE = 30.0  # seconds of pod noise where pods cannot be told apart
MAIN_SHARE, CATASTROPHE_SHARE = 0.8, 0.2
CATASTROPHE_RHO, CATASTROPHE_MARGIN = 10.0, 0.01
MEMORY = 600.0  # seconds after which the baseline's past ratio counts e times less


@dataclass(frozen=True, eq=False)
class Alternatives:
    """What the evidence bets on. All shape (lanes,): the factor r, its log, and the margin of its lane."""

    r: Floats
    log_r: Floats
    rho: Floats
    delta: Floats
    main: int
    """How many of them are the main lane's."""
    rises_fast: bool
    """Whether a burst of bad canary requests refills the bucket faster (errors only)."""


@lru_cache(maxsize=64)
def alternatives(kind: str, margin: float, rho: float = 1.25) -> Alternatives:
    """The two lanes of a metric of `kind` "errors" or "latency" (STATISTICS 3.1, 3.2)."""
    grid = np.geomspace(1.4, 400.0, 12) if kind == "errors" else np.geomspace(1.2, 60.0, 10)
    size = len(grid)
    r = np.concatenate([grid, grid])
    return Alternatives(
        r=r,
        log_r=np.log(r),
        rho=np.repeat([rho, CATASTROPHE_RHO], size),
        delta=np.repeat([margin, max(margin, CATASTROPHE_MARGIN)], size),
        main=size,
        rises_fast=kind == "errors",
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
    return _log_e_value(n_c, e_c, n_b, e_b, r, np.log(r), rho, delta)


def _log_e_value(n_c: Any, e_c: Any, n_b: Any, e_b: Any, r: Any, log_r: Any, rho: Any, delta: Any) -> Any:
    lifted = rho * n_c
    grow = lifted / (lifted + n_b) * (r - 1.0)
    return e_c * log_r - (e_c + e_b) * np.log1p(grow) - (delta / rho) * n_b * grow / (1.0 + grow)


def dispersion(n_c: Any, n_b: Any, p_hat: Any, dt: Any, *, noise: Any, canary_pods: Any, baseline_pods: Any) -> Any:
    """How many times noisier than independent requests the comparison is, >= 1.

    Args:
        p_hat: the baseline's bad ratio, from past intervals only.
        dt: seconds of the interval.
        noise: v, CV^2 times seconds of one pod's ratio (`pod_noise`, or `FALLBACK_NOISE`).
        canary_pods, baseline_pods: 0 means unknown, and counts as one.
    Source: STATISTICS 3.1; e**(1/phi) is an e-value for a predictable phi >= 1 (Jensen).

    >>> round(dispersion(50.0, 950.0, 0.001, 5.0, noise=30.0, canary_pods=1, baseline_pods=20), 3)
    1.15
    """
    kappa = 1.0 - 0.5 * (baseline_pods >= 10)
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
    Source: STATISTICS 3.1: drift common to all pods is removed, autocorrelation stays in.

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


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that one metric has to remember. Arrays of shape (..., lanes), the others (..., 1) or scalar."""

    log_wealth: Floats
    """ln W_r, the weights over alternatives and start times included; -inf before the first interval."""
    budget: Floats
    """Nats left in the bucket of each alternative."""
    cusum: Floats
    """Evidence since it last looked innocent, without bucket: the question of the retreat."""
    released: Any
    """Share of the start-time weights already placed; the rest still stands at 1."""
    past_requests: Any
    past_errors: Any
    """The baseline's recent past, fading with `MEMORY`: predicts the ratio that phi needs."""
    hot: Any
    """Whether at least a fifth, and three, of the canary's requests were bad in the last interval."""


def begin(bets: Alternatives, *leading: int) -> Evidence:
    """No evidence yet, with full buckets."""
    shape = (*leading, len(bets.r))
    zero: Any = np.zeros((*leading, 1)) if leading else 0.0
    return Evidence(np.full(shape, -np.inf), np.full(shape, CAP), np.zeros(shape), zero, zero, zero, zero > 0.0)


def divisor(seen: Evidence, n_c: Any, n_b: Any, dt: Any, *, noise: Any, canary_pods: Any, baseline_pods: Any) -> Any:
    """`dispersion` of the coming interval, with the ratio that the baseline's past predicts."""
    p_hat = (seen.past_errors + 0.5) / (seen.past_requests + 500.0)
    some_b = n_b + (n_c + n_b <= 0)
    return dispersion(n_c, some_b, p_hat, dt, noise=noise, canary_pods=canary_pods, baseline_pods=baseline_pods)


def log_gain(bets: Alternatives, *, n_c: Any, e_c: Any, n_b: Any, e_b: Any, warm: Any, phi: Any) -> Any:
    """What one interval says in favour of each alternative, without bucket. Shape (..., lanes)."""
    some_b = n_b + (n_c + n_b <= 0)  # without any request the formula is 0/0, and must say nothing
    gain = _log_e_value(n_c, e_c, some_b, e_b, bets.r, bets.log_r, bets.rho, bets.delta) / phi
    gain[..., : bets.main] *= warm
    return gain


def update(
    seen: Evidence,
    bets: Alternatives,
    *,
    n_c: Any,
    e_c: Any,
    n_b: Any,
    e_b: Any,
    dt: Any,
    refill_dt: Any,
    warm: Any,
    phi: Any,
    refill: float,
    horizon: float,
) -> Evidence:
    """Take in one interval.

    Args:
        n_c, e_c, n_b, e_b: counts of the interval, scalars or shape (..., 1).
        dt: its seconds, > 0; `refill_dt` the same, capped where scrapes were missed.
        warm: whether the canary's pods have outlived their warm-up: the main lane looks away before.
        phi: `divisor` of this interval, >= 1; refill: nats a second of the bucket; horizon: seconds the plan lasts,
            over which late starts are spread.
    """
    gain = log_gain(bets, n_c=n_c, e_c=e_c, n_b=n_b, e_b=e_b, warm=warm, phi=phi)
    hot = (e_c >= 3) & (e_c >= 0.2 * n_c)
    pace = refill * refill_dt * (1.0 + 3.0 * (hot & seen.hot & bets.rises_fast))
    budget = np.minimum(seen.budget + pace, CAP)
    held = np.minimum(gain, budget)

    # Half of the weight starts now; the rest is spread over the plan, so that a late fault is not
    # outweighed by all the innocent hours before it.
    share = np.where(seen.released == 0.0, 0.5, np.minimum(0.5 * dt / horizon, 1.0 - seen.released))
    with np.errstate(divide="ignore"):
        start = np.log(share / bets.main)
    fade = np.exp(-dt / MEMORY)
    return Evidence(
        log_wealth=np.logaddexp(seen.log_wealth, start) + held,
        budget=budget - np.maximum(held, 0.0),
        cusum=np.maximum(seen.cusum + gain, 0.0),
        released=seen.released + share,
        past_requests=seen.past_requests * fade + n_b,
        past_errors=seen.past_errors * fade + e_b,
        hot=hot,
    )


def log_evidence(seen: Evidence, bets: Alternatives) -> Any:
    """ln E of the metric: the bucketed mixture of both lanes, 0 before the first interval. Shape (...)."""
    waiting = 1.0 - (seen.released[..., 0] if np.ndim(seen.released) else seen.released)
    lanes = _sum_by_lane(seen.log_wealth, bets)
    return np.log(MAIN_SHARE * lanes[..., 0] + CATASTROPHE_SHARE * lanes[..., 1] + waiting)


def log_alarm(seen: Evidence, bets: Alternatives) -> Any:
    """ln of the mean CUSUM, the larger lane of the two: what a retreat is decided on. Shape (...)."""
    lanes = _sum_by_lane(seen.cusum, bets)
    return np.log(np.maximum(lanes[..., 0], lanes[..., 1]) / bets.main)


def _sum_by_lane(logs: Floats, bets: Alternatives) -> Floats:
    """Shape (..., 2). Capped far above any threshold, where exp would overflow."""
    summed: Floats = np.add.reduce(np.exp(np.minimum(logs, 600.0)).reshape(*logs.shape[:-1], 2, bets.main), axis=-1)
    return summed


def log_mean(logs: Floats) -> Any:
    """ln of the mean over alternatives of exp(logs): a plain mixture. Shape (...)."""
    return np.logaddexp.reduce(logs, axis=-1) - np.log(logs.shape[-1])


def calm(seen: Evidence) -> Evidence:
    """Forget the alarm, keep the evidence: after a retreat the next one is counted from nothing."""
    return replace(seen, cusum=np.zeros_like(seen.cusum))


def dump(seen: Evidence) -> dict[str, Any]:
    """Plain values for JSON; arrays as base64 of little-endian float32, a tenth of a kilobyte each."""
    return {
        "w": _pack(seen.log_wealth),
        "b": _pack(seen.budget),
        "c": _pack(seen.cusum),
        "s": [float(seen.released), float(seen.past_requests), float(seen.past_errors), float(seen.hot)],
    }


def load(plain: dict[str, Any]) -> Evidence:
    """The inverse of `dump`."""
    released, requests, errors, hot = plain["s"]
    return Evidence(
        _unpack(plain["w"]), _unpack(plain["b"]), _unpack(plain["c"]), released, requests, errors, hot > 0.0
    )


def _pack(values: Floats) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def _unpack(text: str) -> Floats:
    return np.frombuffer(base64.b64decode(text), dtype="<f4").astype(np.float64)
