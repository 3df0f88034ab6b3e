"""Wall clocks jump; what was remembered by them must neither raise a weight early nor hold anything for ever."""

from __future__ import annotations

from datetime import timedelta

import pytest

from controller.model.status import Outcome, Phase
from controller.model.world import Weight
from controller.rollout.decide import decide
from controller.rollout.moves import Become, Do, SetWeight
from tests.builders import NOON, attempt, observed, status

HOUR = timedelta(hours=1)


@pytest.mark.parametrize("name", ["entered_at", "baking_since", "resting_since"])
def test_an_instant_that_lies_ahead_begins_anew(name: str) -> None:
    rested = {"resting_since": None} | {name: NOON + HOUR}
    ended = status(Phase.ROLLING_BACK, weight=0.0, attempt=attempt(outcome=Outcome.ABORTED, **rested))

    decision = decide(observed(status=ended, weight=Weight(0.0, True, True, ended.epoch)), NOON)

    assert isinstance(decision, Become)
    assert decision.reason == "ClockMoved"
    assert getattr(decision.status.attempt, name) == NOON


def test_the_second_in_which_gateways_obey_is_no_jump() -> None:
    baking = status(attempt=attempt(baking_since=NOON + timedelta(seconds=1)))

    assert decide(observed(status=baking), NOON).reason == "Baking"


def test_a_weight_above_what_is_authorised_goes_first_once_the_clock_is_understood() -> None:
    ahead = status(attempt=attempt(baking_since=NOON + HOUR))
    seen = observed(status=ahead, weight=Weight(90.0, True, True, ahead.epoch))
    told = decide(seen, NOON)
    assert isinstance(told, Become)

    assert decide(observed(status=told.status, weight=seen.weight), NOON) == Do(
        SetWeight(10.0), "WeightTooHigh", "found 90 %: lowered at once"
    )
