"""A move that a person's object stands in the way of: said in status, looked at again, and never a loop of writes."""

from __future__ import annotations

from dataclasses import replace

from controller.errors import NeedsUser
from controller.model.status import Phase
from controller.rollout.decide import LOOK_AGAIN, decide_refused
from controller.rollout.moves import Become, Wait
from tests.builders import MINUTE, NOON, attempt, observed, status

TAKEN = NeedsUser("NameTaken", "metadata.name: Deployment checkout-canary exists and is not of this Canary: rename it")


def test_what_stands_in_the_way_is_in_the_status_once_and_then_waited_for() -> None:
    preparing = status(Phase.PREPARING, weight=0.0, attempt=attempt(baking_since=None))
    seen = observed(status=preparing)

    told = decide_refused(seen, TAKEN, NOON)

    assert isinstance(told, Become)
    assert (told.status.phase, told.status.reason, told.status.message) == (Phase.PREPARING, "NameTaken", str(TAKEN))
    assert told.status.weight == preparing.weight
    again = decide_refused(replace(seen, status=told.status), TAKEN, NOON + MINUTE)
    assert again == Wait("NameTaken", str(TAKEN), NOON + MINUTE + LOOK_AGAIN)


def test_a_refused_way_out_changes_nothing_about_the_way_out() -> None:
    leaving = status(Phase.ROLLING_BACK, weight=0.0, fence=3)

    told = decide_refused(observed(status=leaving), NeedsUser("RouteOwned", "spec.traffic.httpRoute: ..."), NOON)

    assert isinstance(told, Become)
    assert (told.status.phase, told.status.weight, told.status.fence) == (Phase.ROLLING_BACK, 0.0, 3)
