"""How often the judge is wrong, and how fast it is right, counted over simulated rollouts.

Bounds are binomial: a test fails when the counts cannot be explained by the promise at one in a
thousand. Reference times are those of STATISTICS sections 6 and 12, in the same world.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from controller.analysis.increments import Arms, Counts, Interval
from controller.analysis.judge import JudgeState, Settings, judge
from tests.statistics.world import COLD_START, INCIDENT, REALISTIC, WORLDS, Noise, run

PROMISE = 0.01


def _kept(false: int, rollouts: int) -> bool:
    return bool(stats.binomtest(false, rollouts, PROMISE, alternative="greater").pvalue > 0.001)


@pytest.mark.parametrize("rps", [20, 200, 5000])
@pytest.mark.parametrize("world", [name for name in WORLDS if name not in ("realistic", "incident", "coldstart")])
def test_a_harmless_canary_is_rolled_back_in_at_most_one_rollout_of_a_hundred(world: str, rps: float) -> None:
    seen = run(150, rps=rps, noise=WORLDS[world], seed=11)

    assert _kept(seen.false_rollbacks, 150)
    assert np.isfinite(seen.promoted).mean() > 0.97


@pytest.mark.parametrize("rps", [20, 200, 5000])
@pytest.mark.parametrize("noise", [REALISTIC, INCIDENT, COLD_START], ids=["realistic", "incident", "coldstart"])
def test_nor_is_it_in_realistic_noise_incidents_and_cold_starts(noise: Noise, rps: float) -> None:
    seen = run(250, rps=rps, noise=noise, seed=12)

    assert _kept(seen.false_rollbacks, 250)


def test_the_whole_realistic_world_together_stays_below_half_of_the_promise() -> None:
    false = sum(run(500, rps=rps, noise=REALISTIC, seed=13).false_rollbacks for rps in (20, 200, 5000))

    assert false <= 7


@pytest.mark.parametrize("world", ["realistic", "ar1", "burst"])
def test_without_per_pod_counters_the_fallback_keeps_the_promise(world: str) -> None:
    seen = run(250, rps=5000, noise=WORLDS[world], seed=18, pods_known=False)

    assert _kept(seen.false_rollbacks, 250)


@pytest.mark.parametrize(
    ("rps", "ratio", "relief", "rollback"),
    [
        pytest.param(20, 0.05, 262, 455, id="20 rps, 5 %"),
        pytest.param(20, 0.5, 40, 135, id="20 rps, 50 %"),
        pytest.param(200, 0.01, 270, 465, id="200 rps, 1 %"),
        pytest.param(200, 0.05, 55, 150, id="200 rps, 5 %"),
        pytest.param(200, 0.5, 5, 110, id="200 rps, 50 %"),
        pytest.param(5000, 0.005, 152, 220, id="5000 rps, 0.5 %"),
        pytest.param(5000, 0.01, 60, 150, id="5000 rps, 1 %"),
        pytest.param(5000, 0.05, 25, 120, id="5000 rps, 5 %"),
        pytest.param(5000, 0.5, 5, 115, id="5000 rps, 50 %"),
    ],
)
def test_users_are_relieved_and_the_revision_rolled_back_about_as_fast_as_the_reference(
    rps: float, ratio: float, relief: float, rollback: float
) -> None:
    seen = run(250, rps=rps, extra=ratio - 0.001, seed=14)

    assert np.isfinite(seen.rolled_back).mean() > 0.98
    assert np.nanmedian(seen.relieved) <= 1.1 * relief + 5
    assert np.nanmedian(seen.rolled_back) <= 1.1 * rollback + 5


def test_a_faulty_canary_is_never_promoted_where_its_fault_can_be_seen() -> None:
    for rps, ratio in ((20, 0.05), (200, 0.01), (5000, 0.005)):
        assert not np.isfinite(run(250, rps=rps, extra=ratio - 0.001, seed=15).promoted).any()


def test_a_short_scrape_interval_keeps_the_promise_and_relieves_sooner() -> None:
    harmless = run(150, rps=200, dt=1.0, bake=300.0, seed=16)
    faulty = run(100, rps=200, dt=1.0, bake=300.0, extra=0.049, seed=16)

    assert _kept(harmless.false_rollbacks, 150)
    assert np.nanmedian(faulty.relieved) <= 55
    assert np.nanmedian(faulty.rolled_back) <= 170


def test_the_laboratory_plays_what_the_judge_says() -> None:
    rng = np.random.default_rng(17)
    state, settings, convicted = JudgeState(), Settings(), 0
    for tick in range(200):
        arms = Arms(Counts(50, int(rng.binomial(50, 0.04))), Counts(950, int(rng.binomial(950, 0.001))))
        interval = Interval(tick * 5.0, tick * 5.0 + 5.0, {"errors": arms}, 1, 20, age=tick * 5.0 + 5.0)
        state, finding = judge(state, interval, settings)
        convicted = convicted or (tick + 1 if finding.verdict == "fail" else 0)

    assert 15 <= convicted <= 60
