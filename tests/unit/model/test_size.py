"""A status stays small however long a rollout and the people around it go on."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

from controller.model.spec import Verb
from controller.model.status import Phase, Status, render_status
from controller.model.world import DecisionSeen, Observed, Weight
from controller.rollout.decide import decide
from controller.rollout.moves import Become
from tests.builders import NOON, observed, status, target

LIMIT = 64 * 1024


def test_row_27_ten_thousand_changes_leave_a_status_of_a_few_kibibytes() -> None:
    """Long answers to decisions, retreats and reverted routes, over and over: every list is a ring."""
    seen: Observed = observed()
    here: Status = seen.status
    for number in range(3_000):
        now = NOON + timedelta(seconds=number)
        said = DecisionSeen(
            f"u-{number}",
            f"d-{number}",
            Verb.PAUSE if number % 2 else Verb.RESUME,
            "alice",
            "x",
            0,
            "because " * 120,
            now,
        )
        seen = replace(
            seen,
            status=here,
            decisions=(said,),
            weight=Weight(0.0, bool(number % 3), True, here.epoch),
            target=target(),
        )
        for _ in range(4):
            decision = decide(replace(seen, status=here), now)
            if not isinstance(decision, Become):
                break
            here = decision.status
            seen = replace(seen, decisions=())
        if here.phase is not Phase.PROGRESSING:
            here = status(attempt=here.attempt, decisions=here.decisions, fence=here.fence)

    assert len(json.dumps(render_status(here))) < LIMIT
