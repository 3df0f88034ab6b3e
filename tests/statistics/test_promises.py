"""What docs/judge.md promises, counted over whole simulated rollouts; `make bench-judge` counts more of them.

Bounds are binomial: a test fails when the counts cannot be explained by the promise at one in a
thousand. Times are medians with slack for the few rollouts that are played here.
"""

from __future__ import annotations

import os

import pytest
from scipy import stats

from tests.statistics.bench import OUTSIDE, STRANGE, Cell, Row, measure
from tests.statistics.worlds import HELD_OUT, SELECTION

PROMISE = 0.01
JOBS = os.cpu_count() or 1


def _kept(rows: list[Row], promise: float = PROMISE) -> bool:
    false, n = sum(row.rolled_back for row in rows), sum(row.n for row in rows)
    return bool(stats.binomtest(false, n, promise, alternative="greater").pvalue > 0.001)


@pytest.mark.parametrize("world", [*SELECTION, *HELD_OUT])
def test_a_harmless_canary_is_rolled_back_in_at_most_one_rollout_of_a_hundred(world: str) -> None:
    rows = measure([Cell(world, rps, "none") for rps in (20.0, 200.0, 5000.0)], 14, JOBS)

    assert _kept(rows)


@pytest.mark.parametrize("world", ["realistic", "persistent", "nodes"])
def test_nor_is_it_where_pods_cannot_be_told_apart(world: str) -> None:
    rows = measure([Cell(world, rps, "none", pods_known=False) for rps in (200.0, 5000.0)], 18, JOBS)

    assert _kept(rows)


def test_cold_starts_that_no_warmup_covers_are_held_rather_than_rolled_back() -> None:
    mild = measure([Cell("cold5x60s", rps, "none") for rps in (200.0, 5000.0)], 18, JOBS)
    hard = measure([Cell("cold50x60s", rps, "none") for rps in (200.0, 5000.0)], 18, JOBS)

    assert _kept(mild, 0.03)
    assert _kept(hard, 0.05)


@pytest.mark.parametrize("effect", STRANGE)
def test_a_fault_that_hides_is_never_promoted(effect: str) -> None:
    rows = measure([Cell("realistic", rps, effect) for rps in (200.0, 5000.0)], 14, JOBS)

    assert all(row.promoted == 0 for row in rows)


@pytest.mark.parametrize(
    ("rps", "effect", "relief", "rollback"),
    [
        pytest.param(20.0, "50 %", 40, 160, id="20 rps, 50 %"),
        pytest.param(200.0, "1 %", 270, 465, id="200 rps, 1 %"),
        pytest.param(200.0, "5 %", 55, 150, id="200 rps, 5 %"),
        pytest.param(200.0, "50 %", 5, 105, id="200 rps, 50 %"),
        pytest.param(5000.0, "0.5 %", 150, 220, id="5000 rps, 0.5 %"),
        pytest.param(5000.0, "1 %", 60, 140, id="5000 rps, 1 %"),
        pytest.param(5000.0, "5 %", 25, 105, id="5000 rps, 5 %"),
        pytest.param(5000.0, "50 %", 5, 105, id="5000 rps, 50 %"),
    ],
)
def test_users_are_relieved_and_the_revision_is_rolled_back_in_time(
    rps: float, effect: str, relief: float, rollback: float
) -> None:
    row = measure([Cell("realistic", rps, effect)], 36, JOBS)[0]

    assert row.promoted == 0
    assert row.relief.low <= relief
    assert row.rollback.low <= rollback


def test_slower_answers_are_found_and_ordinary_ones_are_not() -> None:
    slower, ordinary = measure(
        [Cell("realistic", 5000.0, effect, latency=True) for effect in ("latency x1.5", "none")], 18, JOBS
    )

    assert slower.promoted == 0
    assert slower.rollback.low <= 208
    assert _kept([ordinary])


def test_the_program_says_the_same_as_the_judge_in_this_process() -> None:
    here, outside = measure([Cell("nodes", 200.0, "5 %"), Cell("nodes", 200.0, "5 %", OUTSIDE)], 8, JOBS)

    assert (here.relief, here.rollback, here.served) == (outside.relief, outside.rollback, outside.served)
