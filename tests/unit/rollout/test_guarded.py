"""The state machine under guardrails: who opens a gate, what a freeze stops, and that no guardrail stops a way out."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controller.guardrails.policy import Policy
from controller.model.evidence import Evidence, Origin, Trust
from controller.model.guarded import Frozen, Gate
from controller.model.policy import OnStart, ReleasePolicySpec
from controller.model.spec import Verb
from controller.model.status import Judged, Outcome, Phase, Status
from controller.model.world import CanaryPods, DecisionSeen, Observed, Pins, RecordSeen, Verdict, Weight
from controller.rollout.decide import decide
from controller.rollout.moves import Become, Do, PauseTarget, Release, Wait
from tests.builders import MINUTE, NEW, NOON, attempt, gated, observed, ruling, status, target

BAD = Judged(at=NOON, verdict="fail", reason="ErrorsRegressed", message="errors +5 pp")
FAILS = Verdict(fail=True, fresh=True, judged=BAD)
STOP = Frozen("stop", "uid-stop", OnStart.HOLD, "Freeze stop (ann): incident 7", since=NOON - MINUTE)
OUT = replace(STOP, on_start=OnStart.ROLL_BACK)
IDLE = Status(
    phase=Phase.IDLE, stable=status().stable, leader_epoch=1, observed_generation=1, edits_held=True, reason="Idle"
)


def approves(by: str, step: int, **changes: Any) -> DecisionSeen:
    return DecisionSeen(f"u-{by}", f"d-{by}", Verb.APPROVE, by, "20260301-115000", step, "because", NOON, **changes)


def become(seen: Observed) -> Become:
    decision = decide(seen, NOON)
    assert isinstance(decision, Become), decision
    return decision


def preparing(**changes: Any) -> Status:
    return status(Phase.PREPARING, weight=0.0, attempt=gated(Gate(0, 2, rule="strict/start"), **changes))


def held(now_status: Status, **changes: Any) -> Observed:
    """An attempt whose pods have not been started."""
    return observed(status=now_status, canary=CanaryPods(), pins=Pins(), weight=Weight(), **changes)


def policy(**rule: Any) -> Policy:
    return Policy("strict", ReleasePolicySpec.model_validate({"rules": [{"name": "rule"} | rule]}))


# -- what begins, and by which plan -------------------------------------------------------------------


def test_an_attempt_runs_by_the_plan_that_the_policies_leave_and_remembers_which_rule_changed_it() -> None:
    ruled = ruling(policy(maxFirstWeight=1, minRequests=700), evidence=Evidence(origin=Origin.AI, trust=Trust.T3))

    begun = become(observed(status=IDLE, pins=Pins(), ruling=ruled)).status.attempt

    assert begun is not None
    assert [step.weight for step in begun.plan] == [1, 10, 50]
    assert begun.analysis["minRequests"] == 700
    assert {clamp.rule for clamp in begun.clamps} == {"strict/rule"}
    assert (begun.origin, begun.trust, begun.no_data) == (Origin.AI, Trust.T3, "RollBack")
    assert begun.plan_digest == ruled.digest


def test_what_the_policies_refuse_stays_held_and_says_by_which_rule() -> None:
    told = become(observed(status=IDLE, pins=Pins(), ruling=ruling(policy(refuse=True)))).status

    assert (told.phase, told.reason) == (Phase.IDLE, "PolicyRefused")
    assert told.message.startswith("strict/rule: ")
    assert {one.type: one.status for one in told.conditions}["Accepted"] == "False"


def test_nothing_begins_while_nobody_can_tell_what_the_policies_say() -> None:
    told = become(observed(status=IDLE, pins=Pins(), ruling=None)).status

    assert (told.attempt, told.reason) == (None, "PolicyUnreadable")


# -- gates --------------------------------------------------------------------------------------------


def test_before_the_first_request_two_different_people_have_to_agree() -> None:
    seen = held(preparing())
    assert decide(seen, NOON).reason == "AwaitingApproval"

    once = become(replace(seen, decisions=(approves("ann", 0),))).status
    twice = become(replace(seen, status=once, decisions=(replace(approves("ann", 0), uid="u-again"),))).status
    waits = decide(replace(seen, status=twice), NOON)
    open_now = become(replace(seen, status=twice, decisions=(approves("bob", 0),))).status

    assert once.decisions[-1].answer.startswith(
        "counted; the gate before the first request asks for 2 approvals, has 1"
    )
    assert waits.reason == "AwaitingApproval"
    assert "(rule strict/start)" in waits.message
    assert open_now.decisions[-1].answer == "the gate before the first request is open"
    assert isinstance(decide(replace(seen, status=open_now), NOON), Do)


def test_deadlines_count_from_the_moment_it_may_go_on() -> None:
    long_ago = held(preparing(entered_at=NOON - timedelta(days=2)))

    after = become(replace(long_ago, decisions=(approves("ann", 0),))).status

    assert after.attempt is not None
    assert after.attempt.entered_at == NOON


def test_an_author_is_told_why_the_approval_does_not_count() -> None:
    bar = "ann is an author of this change (prompter): somebody else has to approve it"

    refused = become(held(preparing(), decisions=(approves("ann", 0, barred=bar),))).status.decisions[-1]

    assert (refused.taken, refused.answer) == (False, bar)


@pytest.mark.parametrize(("step", "said"), [(2, "asks for no approval"), (61, "has steps 1 to 2")])
def test_an_approval_for_a_gate_that_is_not_there_says_so(step: int, said: str) -> None:
    refused = become(held(preparing(), decisions=(approves("ann", step),))).status.decisions[-1]

    assert not refused.taken
    assert said in refused.answer


def test_the_first_gate_is_passed_once_and_for_all() -> None:
    late = become(observed(status=status(attempt=gated(Gate(0))), decisions=(approves("ann", 0),))).status

    assert "has passed" in late.decisions[-1].answer


# -- freezes ------------------------------------------------------------------------------------------


def test_a_freeze_holds_before_any_pod_starts() -> None:
    begun = become(held(status(Phase.PREPARING, weight=0.0), frozen=STOP)).status

    assert begun.attempt is not None
    assert [(one.name, one.ended) for one in begun.attempt.freezes] == [("stop", False)]
    assert (begun.reason, begun.waiting_on) == ("Frozen", "freeze")
    assert isinstance(decide(held(begun, frozen=STOP), NOON), Wait)


@pytest.mark.parametrize("phase", [Phase.PROGRESSING, Phase.RETREATED])
def test_no_weight_rises_while_a_freeze_is_in_force_and_it_goes_on_by_itself(phase: Phase) -> None:
    rested = attempt(resting_since=NOON - MINUTE, baking_since=None) if phase is Phase.RETREATED else attempt()
    weight = 0.0 if phase is Phase.RETREATED else 10.0
    began = status(phase, attempt=rested, weight=weight)
    seen = observed(status=began, weight=Weight(weight, True, True, began.epoch))

    frozen = become(replace(seen, frozen=STOP)).status
    waits = decide(replace(seen, status=frozen, frozen=STOP), NOON)
    thawed = become(replace(seen, status=frozen)).status
    goes_on = become(replace(seen, status=thawed)).status

    assert waits.reason == "Frozen"
    assert thawed.attempt is not None
    assert [one.ended for one in thawed.attempt.freezes] == [False, True]
    assert thawed.attempt.entered_at == NOON
    assert goes_on.weight > weight


@pytest.mark.parametrize("frozen", [STOP, replace(STOP, on_start=OnStart.FINISH), OUT])
def test_a_freeze_never_stands_before_a_way_out(frozen: Frozen) -> None:
    failed = become(observed(frozen=frozen, verdict=FAILS)).status
    tripped = become(observed(frozen=replace(frozen, on_start=OnStart.HOLD), verdict=Verdict(tripped=True))).status
    said = DecisionSeen("u", "d", Verb.ABORT, "ann", "20260301-115000", 0, "because", NOON)
    aborted = become(observed(frozen=frozen, decisions=(said,))).status

    assert failed.phase is Phase.ROLLING_BACK
    assert tripped.phase is Phase.RETREATED
    assert aborted.phase is Phase.ROLLING_BACK


@pytest.mark.parametrize("phase", [Phase.PREPARING, Phase.PROGRESSING, Phase.RETREATED, Phase.RELEASING])
def test_a_freeze_that_asks_for_it_takes_all_traffic_back_whatever_else_cannot_be_read(phase: Phase) -> None:
    nothing_read = Observed(status=status(phase), spec=observed().spec, frozen=OUT)

    after = become(nothing_read).status

    assert (after.phase, after.weight, after.reason) == (Phase.ROLLING_BACK, 0.0, "Frozen")
    assert after.attempt is not None
    assert after.attempt.outcome is Outcome.ABORTED
    assert "incident 7" in after.attempt.outcome_message


def test_what_began_during_such_a_freeze_is_held_and_not_thrown_away() -> None:
    later = status(Phase.PREPARING, weight=0.0, attempt=attempt(started_at=NOON))

    assert become(held(later, frozen=OUT)).status.phase is Phase.PREPARING
    assert become(held(later, frozen=OUT)).reason == "Frozen"


def test_a_freeze_that_lets_finish_stops_only_what_began_after_it() -> None:
    finish = replace(STOP, on_start=OnStart.FINISH)
    late = status(attempt=attempt(started_at=NOON))

    assert become(observed(frozen=finish)).reason == "StepStarted"
    assert become(observed(status=late, frozen=finish)).reason == "Frozen"


def test_a_roll_that_is_under_way_stops_where_it_is_and_goes_on_after_the_freeze() -> None:
    rolling = status(Phase.RELEASING, attempt=attempt(releasing=True))
    seen = observed(status=rolling, pins=Pins(), target=target(paused=False))

    stopped = decide(replace(seen, frozen=STOP), NOON)
    paused = replace(seen, target=target(paused=True))
    frozen = become(replace(paused, frozen=STOP)).status
    thawed = become(replace(paused, status=frozen)).status

    assert isinstance(stopped, Do)
    assert stopped.action == PauseTarget()
    unrecorded = decide(replace(seen, frozen=STOP, record=RecordSeen()), NOON)
    assert isinstance(unrecorded, Do)
    assert unrecorded.action == PauseTarget()
    assert decide(replace(paused, status=frozen, frozen=STOP), NOON).reason == "Frozen"
    goes_on = decide(replace(paused, status=thawed), NOON)
    assert isinstance(goes_on, Do)
    assert goes_on.action == Release()


def test_without_data_the_policy_decides_what_happens() -> None:
    blind = Verdict(no_data_since=NOON - 10 * MINUTE, need="no answer")
    lenient = status(attempt=attempt(no_data="Hold", baking_since=NOON - 10 * MINUTE))
    strict = status(attempt=attempt(no_data="RollBack", baking_since=NOON - 10 * MINUTE))

    assert decide(observed(status=lenient, verdict=blind), NOON).reason == "NoData"
    assert become(observed(status=strict, verdict=blind)).status.phase is Phase.ROLLING_BACK


def test_a_candidate_that_was_rejected_is_not_asked_about_again() -> None:
    resting = status(Phase.ROLLED_BACK, attempt=attempt(outcome=Outcome.ROLLED_BACK), rejected=NEW, weight=0.0)
    seen = observed(status=resting, record=RecordSeen(True, 1, "RolledBack"), ruling=None)

    assert decide(seen, NOON).reason == "RolledBack"
