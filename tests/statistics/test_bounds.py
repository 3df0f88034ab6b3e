"""How often the interval that is shown misses, ever."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from controller.analysis import bounds


@pytest.mark.parametrize("effect", [-0.005, 0.0, 0.02])
def test_the_interval_misses_the_true_difference_at_any_look_no_more_often_than_promised(effect: float) -> None:
    rng = np.random.default_rng(21)
    missed, rollouts = 0, 150
    for _ in range(rollouts):
        seen, ever = bounds.begin(), False
        for look in range(40):
            n_c = 20 + 60 * (look % 5)  # the weight moves
            n_b = 1000 - n_c
            p_b = 0.01 + 0.005 * np.sin(look / 6)  # and so does everybody's ratio
            p_c = max(p_b + effect, 0.0)
            seen = bounds.update(seen, n_c, rng.binomial(n_c, p_c), n_b, rng.binomial(n_b, p_b), phi=1.0)
            low, high = bounds.interval(seen, alpha=0.1)
            ever |= not low <= p_c - p_b <= high
        missed += ever

    assert stats.binomtest(missed, rollouts, 0.1, alternative="greater").pvalue > 0.001
