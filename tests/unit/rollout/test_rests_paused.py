"""Clusters without MutatingAdmissionPolicy: the target stays paused at rest, and a rollout is the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.model.status import Outcome, Phase, Status
from controller.model.world import CanaryPods, Observed, Pins, RecordSeen, Weight
from controller.rollout.decide import decide
from controller.rollout.moves import Become, Do, PauseTarget, Release, RemoveFinalizer
from tests.builders import MINUTE, NEW, NOON, OLD, OTHER, attempt, observed, status, target

ENDED = attempt(outcome=Outcome.PROMOTED)
GONE = {"canary": CanaryPods(), "pins": Pins(), "weight": Weight()}


def at_rest(phase: Phase = Phase.IDLE, *, paused: bool, template: str = OLD, **changes: object) -> Observed:
    """Nothing runs; `template` is in the target's spec."""
    usual = {"holding": False, "rests_paused": True, "attempt": None}
    seen = target(paused=paused, template_hash=template, rests_paused=True, roll_complete=not paused)
    return observed(status=status(phase, **usual | changes), target=seen, **GONE)


def after(seen: Observed) -> Status:
    decision = decide(seen, NOON)
    assert isinstance(decision, Become), decision
    return decision.status


def test_the_pause_is_remembered_before_it_is_written() -> None:
    fresh = at_rest(paused=False, rests_paused=False, edits_held=False)

    remembered = after(fresh)

    assert (remembered.rests_paused, remembered.edits_held) == (True, False)
    assert decide(replace(fresh, status=remembered), NOON) == Do(
        PauseTarget(), "PausedAtRest", "this cluster has no MutatingAdmissionPolicy: paused at rest"
    )


def test_paused_at_rest_is_as_it_should_be() -> None:
    held = replace(at_rest(paused=True, edits_held=False), hold_proven=True)
    proven = after(held)

    assert proven.edits_held
    assert decide(replace(held, status=proven), NOON).reason == "Idle"
    (told,) = [one for one in proven.conditions if one.type == "EditsHeld"]
    assert "paused at rest" in told.message


def test_an_edit_of_a_paused_target_is_a_candidate() -> None:
    assert after(at_rest(paused=True, template=NEW)).phase is Phase.PREPARING


def test_an_edit_that_slips_in_while_a_release_is_finished_is_told_as_one_that_nothing_judged() -> None:
    """The target is unpaused then, and the pause is this cluster's only hold."""
    ended = attempt(outcome=Outcome.PROMOTED, resting_since=NOON - MINUTE, number=1)
    rolled = replace(
        target(paused=False, template_hash=OTHER, rests_paused=True, roll_complete=True),
        settled_hash="h-other",
        settled_template_hash=OTHER,
    )
    finishing = observed(
        status=status(Phase.FINISHING, weight=0.0, attempt=ended, rests_paused=True),
        target=rolled,
        record=RecordSeen(True, 9, "Promoted", number=1),
        **GONE,
    )

    finished = after(finishing)
    assert (finished.phase, finished.stable and finished.stable.template_hash) == (Phase.IDLE, OLD)
    told = decide(replace(finishing, status=finished), NOON)
    assert isinstance(told, Become)
    assert (told.reason, told.status.attempt and told.status.attempt.outcome) == ("UnjudgedRelease", Outcome.UNJUDGED)


def test_a_template_set_back_to_stables_leaves_the_pause_on() -> None:
    back = after(at_rest(Phase.ROLLED_BACK, paused=True, holding=True, rejected=NEW))

    assert (back.phase, back.holding, back.rests_paused) == (Phase.IDLE, False, True)
    assert decide(replace(at_rest(paused=True), status=back), NOON).reason == "Idle"


def test_after_a_failed_release_the_pause_comes_back() -> None:
    rolled_back = at_rest(Phase.ROLLED_BACK, paused=False, rejected=NEW)

    assert decide(rolled_back, NOON) == Do(
        PauseTarget(), "PausedAtRest", "this cluster has no MutatingAdmissionPolicy: paused at rest"
    )


@pytest.mark.parametrize("phase", [Phase.IDLE, Phase.ROLLED_BACK])
def test_a_canary_that_goes_takes_the_pause_along(phase: Phase) -> None:
    leaving = replace(at_rest(phase, paused=True), deleting=True)

    assert decide(leaving, NOON) == Do(Release(), "Leaving")
    unpaused = replace(leaving, target=target(paused=False, template_hash=OLD, rests_paused=True))
    assert decide(unpaused, NOON) == Do(RemoveFinalizer(), "Left")
    uninstalled = replace(unpaused, uninstalled=True)
    left = decide(uninstalled, NOON)
    assert isinstance(left, Become)
    assert (left.reason, left.status.edits_held, left.status.holding) == ("Left", False, False)
    assert decide(replace(uninstalled, status=left.status), NOON) == Do(RemoveFinalizer(), "Left")


def test_a_cluster_that_learns_to_hold_edits_takes_the_pause_off() -> None:
    seen = at_rest(paused=True)
    upgraded = replace(seen, target=target(paused=True, template_hash=OLD, rests_paused=False))

    remembered = after(upgraded)

    assert (remembered.rests_paused, remembered.holding, remembered.edits_held) == (False, True, False)
    assert isinstance(decide(replace(upgraded, status=remembered), NOON), Do)
