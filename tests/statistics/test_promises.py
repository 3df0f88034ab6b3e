"""What docs/judge.md promises, counted over whole simulated rollouts; `make bench-judge` counts more of them.

Bounds are binomial: a test fails when the counts cannot be explained by the promise at one in a
thousand. The judge is asked through its JSON lines.
"""

from __future__ import annotations

import os

import pytest
from scipy import stats

from tests.statistics.bench import Cell, Row, measure
from tests.statistics.worlds import HELD_OUT, SELECTION

PROMISE = 0.01
JOBS = os.cpu_count() or 1


def _kept(row: Row, promise: float = PROMISE) -> bool:
    return bool(stats.binomtest(row.rolled_back, row.n, promise, alternative="greater").pvalue > 0.001)


@pytest.mark.parametrize("world", [*SELECTION, *HELD_OUT])
def test_a_harmless_canary_is_rolled_back_in_at_most_one_rollout_of_a_hundred(world: str) -> None:
    rows = measure([Cell(world, rps, "none") for rps in (20.0, 200.0, 5000.0)], 50, JOBS)

    assert all(_kept(row) for row in rows)
    assert sum(row.rolled_back for row in rows) <= 4
