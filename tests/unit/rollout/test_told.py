"""What statuses show of what was decided."""

from __future__ import annotations

import pytest

from controller.model.status import Outcome, Phase
from controller.rollout.conditions import HOLDS, render_conditions
from controller.rollout.moves import Become
from controller.rollout.told import told
from tests.builders import NOON, attempt, observed, status


@pytest.mark.parametrize("outcome", [None, *Outcome])
def test_only_what_was_promoted_has_passed_and_only_what_was_rolled_back_has_failed(outcome: Outcome | None) -> None:
    ended = status(Phase.ROLLED_BACK if outcome else Phase.PROGRESSING, attempt=attempt(outcome=outcome))

    decision = told(observed(status=ended), Become(ended, "Any", "any"), NOON)

    assert isinstance(decision, Become)
    wanted = {Outcome.PROMOTED: "pass", Outcome.ROLLED_BACK: "fail"}.get(outcome) if outcome else None
    assert decision.status.verdict_shown == (wanted or "inconclusive")


@pytest.mark.parametrize("reason", sorted(HOLDS))
def test_a_rollout_whose_weight_stays_says_that_it_holds(reason: str) -> None:
    held = status(Phase.PROGRESSING, reason=reason)

    conditions = {one.type: one.reason for one in render_conditions(held, NOON) if one.status == "True"}

    assert conditions.get("Holding") == reason
    assert "Progressing" not in conditions
