"""The formulas: exact where they can be enumerated, and against hand-worked cases where they cannot."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from controller.analysis import evidence
from controller.analysis.evidence import alternatives, log_e_value

ALPHA_LOOKS = 60


def expectation(n_c: int, p_c: float, n_b: int, p_b: float, r: float, rho: float, delta: float) -> float:
    """E e(r), by summing over every pair of error counts two Bernoulli arms can show."""
    e_c, e_b = np.arange(n_c + 1)[:, None], np.arange(n_b + 1)[None, :]
    chance = stats.binom.pmf(e_c, n_c, p_c) * stats.binom.pmf(e_b, n_b, p_b)
    return float((chance * np.exp(log_e_value(n_c, e_c, n_b, e_b, r=r, rho=rho, delta=delta))).sum())


@pytest.mark.parametrize(("n_c", "n_b"), [(1, 1), (5, 200), (50, 50), (120, 30)])
@pytest.mark.parametrize("p_b", [0.0, 0.001, 0.05, 0.3])
@pytest.mark.parametrize(("rho", "delta"), [(1.25, 0.0001), (1.0, 0.0), (10.0, 0.01)])
def test_the_e_value_expects_at_most_one_on_the_boundary(
    n_c: int, n_b: int, p_b: float, rho: float, delta: float
) -> None:
    p_c = min(rho * p_b + delta, 1.0)

    for r in (1.4, 5.0, 60.0, 400.0):
        assert expectation(n_c, p_c, n_b, p_b, r, rho, delta) <= 1.0 + 1e-9


@pytest.mark.parametrize("r", [1.4, 20.0, 400.0])
def test_the_e_value_is_not_needlessly_shy_where_errors_are_rare(r: float) -> None:
    assert expectation(50, 1.25 * 0.001 + 0.0001, 150, 0.001, r, 1.25, 0.0001) > 0.97


@pytest.mark.parametrize("r", [1 / 1.2, 1 / 5, 1 / 20])
@pytest.mark.parametrize("p_b", [0.001, 0.05])
def test_bets_below_one_certify_against_a_canary_that_is_worse_than_its_margin(r: float, p_b: float) -> None:
    assert expectation(60, 1.5 * p_b + 0.001, 200, p_b, r, 1.5, 0.001) <= 1.0 + 1e-9
    assert expectation(60, 2.0 * p_b + 0.01, 200, p_b, r, 1.5, 0.001) <= 1.0 + 1e-9


def test_a_canary_inside_its_margin_is_never_held_against_it_on_average() -> None:
    for p_c, p_b in product((0.0, 0.001, 0.01), (0.01, 0.1)):
        assert expectation(40, p_c, 100, p_b, 5.0, 1.25, 0.0001) <= 1.0


def test_the_mixture_ever_reaches_its_threshold_in_less_than_alpha_of_rollouts_on_the_boundary() -> None:
    rng = np.random.default_rng(7)
    rollouts = 4000
    bets = alternatives("errors", 0.0001)
    seen = evidence.begin(bets, rollouts)
    ever = np.zeros(rollouts, dtype=bool)

    for look in range(ALPHA_LOOKS):
        share = 0.02 + 0.4 * ((look * 7) % 11) / 11  # traffic moves, and so does the base rate
        p_b = 0.004 * (1.5 + np.sin(look / 5))
        n_c = rng.binomial(2000, share, (rollouts, 1))
        n_b = 2000 - n_c
        e_c, e_b = rng.binomial(n_c, 1.25 * p_b + 0.0001), rng.binomial(n_b, p_b)
        seen = evidence.update(
            seen, bets, evidence.log_gain(bets, n_c=n_c, e_c=e_c, n_b=n_b, e_b=e_b),
            n_c=n_c, e_c=e_c, n_b=n_b, e_b=e_b, dt=5.0, refill_dt=5.0, warm=True, certifies=True, alert=True,
            phi=1.0, cautious_phi=1.0, certificate_phi=1.0, several_pods=False, refill=1.0, horizon=300.0,
        )  # fmt: skip
        ever |= _of_each(seen, bets) >= np.log(20)

    assert stats.binomtest(int(ever.sum()), rollouts, 0.05, alternative="greater").pvalue > 0.001


def _of_each(seen: evidence.Evidence, bets: evidence.Alternatives) -> evidence.Floats:
    """ln E of each of many rollouts at once, as `summary` has that of one."""
    weights = np.exp(seen.proof).reshape(len(seen.proof), 2, bets.main).sum(axis=-1)
    logs: evidence.Floats = np.log(weights @ [evidence.MAIN_SHARE, evidence.CATASTROPHE_SHARE] + 1.0 - seen.released)
    return logs


def _after(*intervals: tuple[int, int, int, int], warm: bool = True, refill: float = 0.05) -> evidence.Evidence:
    bets = alternatives("errors", 0.0001)
    seen = evidence.begin(bets)
    for n_c, e_c, n_b, e_b in intervals:
        phi = evidence.divisor(seen, n_c, n_b, 5.0, noise=30.0, canary_pods=1, baseline_pods=20)
        seen = evidence.update(
            seen, bets, evidence.log_gain(bets, n_c=n_c, e_c=e_c, n_b=n_b, e_b=e_b),
            n_c=n_c, e_c=e_c, n_b=n_b, e_b=e_b, dt=5.0, refill_dt=5.0, warm=warm, certifies=warm, alert=warm,
            phi=phi, cautious_phi=phi, certificate_phi=phi, several_pods=False, refill=refill, horizon=2400.0,
        )  # fmt: skip
    return seen


BETS = alternatives("errors", 0.0001)


def guarded(seen: evidence.Evidence) -> float:
    return evidence.summary(seen, BETS).guarded


def alarm(seen: evidence.Evidence) -> float:
    return evidence.summary(seen, BETS).alarm


def test_one_terrible_interval_alone_convicts_nobody_but_trips() -> None:
    seen = _after((1000, 1000, 19000, 20))

    assert guarded(seen) < np.log(100)
    assert alarm(seen) > np.log(300)


def test_the_bucket_never_adds_to_the_proof() -> None:
    seen = _after((1000, 1000, 19000, 20), (1000, 3, 19000, 20), (1000, 400, 19000, 20))

    assert guarded(seen) <= evidence.summary(seen, BETS).proof


def test_a_lasting_fault_convicts_within_half_a_minute_in_the_fast_lane() -> None:
    seen = _after(*[(1000, 500, 19000, 20)] * 7, warm=False)

    assert guarded(seen) >= np.log(100)


def test_pods_that_still_warm_up_are_only_tried_for_catastrophes() -> None:
    cold = _after(*[(1000, 8, 19000, 20)] * 20, warm=False)
    warm = _after(*[(1000, 8, 19000, 20)] * 20, warm=True)

    assert alarm(cold) < np.log(300) < alarm(warm)
    assert guarded(cold) < guarded(warm)


def test_an_interval_without_requests_says_nothing_and_breaks_nothing() -> None:
    before = _after((1000, 8, 19000, 20))
    after = _after((1000, 8, 19000, 20), (0, 0, 0, 0))

    assert alarm(after) == pytest.approx(alarm(before))
    assert np.isfinite(guarded(after))


def test_before_the_first_interval_there_is_no_evidence_either_way() -> None:
    assert guarded(evidence.begin(BETS)) == pytest.approx(0.0)


def test_the_start_weights_add_up_to_one_and_are_never_overspent() -> None:
    early, late = _after(*[(10, 0, 90, 0)] * 2), _after(*[(10, 0, 90, 0)] * 4000)

    assert 0.5 <= early.released < late.released < 1.0


def test_noisy_pods_make_the_same_errors_count_for_less() -> None:
    quiet = evidence.dispersion(1000.0, 19000.0, 0.001, 5.0, noise=0.0, canary_pods=1, baseline_pods=20)
    noisy = evidence.dispersion(1000.0, 19000.0, 0.001, 5.0, noise=60.0, canary_pods=1, baseline_pods=20)
    unknown = evidence.dispersion(1000.0, 19000.0, 0.001, 5.0, noise=60.0, canary_pods=0, baseline_pods=0)

    assert quiet == 1.0
    assert quiet < noisy < unknown


def test_pod_noise_finds_what_was_put_in() -> None:
    rng = np.random.default_rng(3)
    requests = np.full((400, 20), 3000.0)
    factor = rng.gamma(10.0, 0.1, requests.shape)  # CV^2 0.1 over blocks of 300 s: v = 30 s
    errors = rng.poisson(requests * 0.01 * factor).astype(float)

    assert evidence.pod_noise(requests, errors) == pytest.approx(30.0, rel=0.2)


def test_pod_noise_of_independent_requests_is_small_and_of_too_little_data_the_fallback() -> None:
    rng = np.random.default_rng(3)
    requests = np.full((400, 20), 3000.0)

    assert evidence.pod_noise(requests, rng.binomial(3000, 0.01, requests.shape).astype(float)) < 2.0
    assert evidence.pod_noise(requests, np.zeros_like(requests)) == evidence.FALLBACK_NOISE
    assert evidence.pod_noise(requests[:, :1], np.ones((400, 1))) == evidence.FALLBACK_NOISE


def clumps_after(*bad: float) -> float:
    seen = evidence.Clumps()
    for count in bad:
        seen = evidence.add_clumps(seen, 1000.0, float(count), dt=5.0)
    return float(seen.size)


def test_retried_failures_are_told_from_independent_ones() -> None:
    rng = np.random.default_rng(3)
    single = rng.poisson(0.4, 300)
    retried = np.array([rng.geometric(1 / 3, count).sum() for count in single])  # three tries each, on average

    assert clumps_after(*single) < 1.5
    assert 3.5 < clumps_after(*retried) < 7.0  # the mean square of their number over the mean is 5


def test_neither_a_slow_drift_nor_one_burst_looks_like_clumps() -> None:
    rng = np.random.default_rng(3)
    drift = rng.poisson(np.linspace(5, 50, 200))
    burst = np.concatenate([rng.poisson(20, 100), rng.poisson(200, 6), rng.poisson(20, 100)])

    assert clumps_after(*drift) < 1.5
    assert clumps_after(*burst) < 1.8


def test_clumps_make_the_same_errors_count_for_less() -> None:
    steady = _after(*[(10, 0, 990, 2)] * 60, (10, 3, 990, 2))
    clumped = _after(*[(10, 0, 990, 0), (10, 0, 990, 0), (10, 0, 990, 6)] * 20, (10, 3, 990, 2))

    assert alarm(clumped) < alarm(steady) / 2


@pytest.mark.parametrize("kind", ["errors", "latency"])
def test_placing_a_bet_takes_from_the_weight_that_waits_and_adds_no_evidence(kind: str) -> None:
    bets = alternatives(kind, 0.0001)
    bounds = (3,) if kind == "latency" else ()
    seen = evidence.begin(bets, *bounds)
    on = np.log(np.random.default_rng(1).dirichlet(np.ones(bets.lanes * 3 if bounds else bets.lanes)))

    placed = evidence.bet(seen, bets, on.reshape(*bounds, bets.lanes))

    assert evidence.summary(placed, bets)[:2] == pytest.approx((0.0, 0.0))
    assert placed.released == 0.5
