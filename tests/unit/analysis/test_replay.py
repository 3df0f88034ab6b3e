"""A/A over the past: what noise would have cost, and the settings that would have borne it."""

from __future__ import annotations

import numpy as np
import pytest

from controller.analysis.lines import Plan, Step
from controller.analysis.replay import MOST_PLAYED, rehearse, replay

PLAN = Plan(steps=[Step(weight=5, bake=300), Step(weight=50, bake=300)])
STEP = 15.0


def history(pods: int, hours: float, ratio: float = 0.002) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    requests = np.full((int(hours * 3600 / STEP), pods), 300.0)
    return requests, rng.binomial(300, ratio, requests.shape).astype(float)


def test_a_quiet_service_may_be_judged_quickly() -> None:
    requests, errors = history(pods=6, hours=1)

    report = replay(requests, errors, plan=PLAN, step=STEP)

    assert report.proposed is not None
    assert (report.proposed.refill, report.proposed.rolled_back) == (0.1, 0)
    assert report.proposed.rollouts == 36
    assert report.message == "refill: 0.1, margin: 0.0001"


def test_a_pod_that_is_always_worse_is_told_and_no_setting_is_proposed_that_hides_it() -> None:
    requests, errors = history(pods=4, hours=2)
    errors[:, 0] = np.random.default_rng(8).binomial(300, 0.2, len(errors))

    report = replay(requests, errors, plan=PLAN, step=STEP)

    assert report.proposed is None
    assert report.tried[-1].retreated >= report.tried[-1].rollouts // 4
    assert "look for one bad pod" in report.message


def test_a_short_history_proposes_nothing() -> None:
    requests, errors = history(pods=2, hours=0.2)

    assert "too few" in replay(requests, errors, plan=PLAN, step=STEP).message
    with pytest.raises(ValueError, match="--since"):
        replay(requests[:10], errors[:10], plan=PLAN, step=STEP)
    with pytest.raises(ValueError, match="two or more"):
        replay(requests[:, :1], errors[:, :1], plan=PLAN, step=STEP)


def test_a_rehearsal_plays_the_settings_as_they_are_on_a_coarse_history() -> None:
    requests, errors = history(pods=6, hours=1)

    outcome, words = rehearse(requests, errors, plan=PLAN, step=STEP)

    assert (outcome.refill, outcome.rollouts) == (0.05, 36)
    assert words == "36 harmless rollouts of 10 min replayed: 0 retreated, 0 were rolled back"


def test_a_rehearsal_of_many_pods_plays_some_of_them() -> None:
    requests, errors = history(pods=200, hours=1)

    outcome, _ = rehearse(requests, errors, plan=PLAN, step=STEP)

    assert outcome.rollouts * 600 / STEP <= MOST_PLAYED


def test_a_rehearsal_that_keeps_no_promise_says_what_would_or_that_nothing_does() -> None:
    requests, errors = history(pods=4, hours=2)
    errors[:, 0] = np.random.default_rng(8).binomial(300, 0.2, len(errors))

    outcome, words = rehearse(requests, errors, plan=PLAN, step=STEP)

    assert outcome.retreated >= outcome.rollouts // 4
    assert words.endswith("look for one bad pod or node")


def test_a_plan_longer_than_the_history_is_rehearsed_in_half_of_it() -> None:
    requests, errors = history(pods=3, hours=0.25)

    outcome, words = rehearse(requests, errors, plan=PLAN, step=STEP)

    assert outcome.rollouts == 6
    assert "of 8 min replayed: too few to say" in words
    with pytest.raises(ValueError, match="two or more"):
        rehearse(requests[:, :1], errors[:, :1], plan=PLAN, step=STEP)
