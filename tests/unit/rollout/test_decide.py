"""The state machine with plain values: what it does, and in which order of urgency."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from controller.model.guarded import Gate
from controller.model.spec import Verb
from controller.model.status import Judged, Outcome, Phase, Status, StepSeen
from controller.model.world import CanaryPods, DecisionSeen, Observed, Pins, RecordSeen, Verdict, Weight
from controller.rollout.decide import MARGIN, REST, decide
from controller.rollout.moves import (
    ApplyCanary,
    Become,
    DeleteCanary,
    Do,
    LeaveRoute,
    PauseTarget,
    Pin,
    Release,
    ReplacePods,
    Restore,
    SetWeight,
    StoreRecord,
    Unpin,
    Wait,
)
from tests.builders import MINUTE, NEW, NOON, OLD, OTHER, attempt, gated, observed, spec, status, target

BAD = Judged(at=NOON, verdict="fail", reason="ErrorsRegressed", message="errors +5 pp")
FAILS = Verdict(fail=True, fresh=True, judged=BAD)
TRIPS = Verdict(tripped=True, fresh=True, judged=BAD)


def said(verb: Verb, step: int = 0, of: str = "20260301-115000") -> DecisionSeen:
    return DecisionSeen("u-1", "d-1", verb, "alice", of, step, "because", NOON)


def become(seen: Observed) -> Become:
    decision = decide(seen, NOON)
    assert isinstance(decision, Become), decision
    return decision


def done(seen: Observed) -> object:
    decision = decide(seen, NOON)
    assert isinstance(decision, Do), decision
    return decision.action


def test_a_failed_verdict_rolls_back_even_a_fully_baked_last_step() -> None:
    last = status(attempt=attempt(step=1), weight=50.0)

    after = become(observed(status=last, weight=replace(observed().weight, percent=50.0), verdict=FAILS)).status

    assert (after.phase, after.weight) == (Phase.ROLLING_BACK, 0.0)
    assert after.attempt is not None
    assert after.attempt.outcome is Outcome.ROLLED_BACK
    assert after.fence == last.fence + 1


def test_a_trip_takes_the_canary_off_traffic_and_keeps_the_attempt() -> None:
    after = become(observed(verdict=TRIPS)).status

    assert (after.phase, after.weight) == (Phase.RETREATED, 0.0)
    assert after.attempt is not None
    assert after.attempt.outcome is None
    assert len(after.attempt.retreats) == 1


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"weight": Weight(problem="RouteForbidden")}, id="the route cannot be read"),
        pytest.param({"canary": CanaryPods(exists=True, wanted=1, ready=0)}, id="no pod is ready"),
        pytest.param({"pins": Pins(problems=("ServiceUnpinnable x",))}, id="a pin is lost"),
        pytest.param({"record": RecordSeen()}, id="the record cannot be written"),
        pytest.param({"target": target(paused=False)}, id="somebody unpaused the target"),
        pytest.param({"target": target(stable_ready=1)}, id="stable is too small"),
    ],
)
def test_nothing_stands_before_an_abort_or_a_failed_verdict(changes: dict[str, object]) -> None:
    aborted = become(observed(decisions=(said(Verb.ABORT),), **changes)).status
    convicted = become(observed(verdict=FAILS, **changes)).status

    assert aborted.phase is Phase.ROLLING_BACK
    assert convicted.phase is Phase.ROLLING_BACK


def test_the_first_act_of_a_rollback_is_weight_zero() -> None:
    leaving = status(Phase.ROLLING_BACK, weight=0.0, fence=1, attempt=attempt(outcome=Outcome.ROLLED_BACK))
    blind = Observed(status=leaving, spec=observed().spec, weight=Weight(percent=10.0, present=True, epoch="1.0"))

    assert done(blind) == SetWeight(0.0)


def test_weight_zero_is_stamped_also_where_it_is_zero_already() -> None:
    leaving = status(Phase.ROLLING_BACK, weight=0.0, fence=1, attempt=attempt(outcome=Outcome.ROLLED_BACK))
    seen = Observed(status=leaving, spec=observed().spec, weight=Weight(0.0, True, True, epoch="1.0"))

    assert done(seen) == SetWeight(0.0)


def test_a_rollback_takes_everything_down_in_an_order_that_loses_no_request() -> None:
    ended = attempt(outcome=Outcome.ROLLED_BACK, resting_since=NOON - MINUTE, sealed_at=NOON - MINUTE)
    leaving = status(Phase.ROLLING_BACK, weight=0.0, attempt=ended)
    at_zero = observed(status=leaving, weight=Weight(0.0, True, True, leaving.epoch))
    out_of_route = replace(at_zero, weight=Weight(0.0, False, True))
    without_pods = replace(out_of_route, canary=CanaryPods())
    unpinned = replace(without_pods, pins=Pins(), record=RecordSeen(True, 9))

    assert done(at_zero) == LeaveRoute()
    assert done(out_of_route) == DeleteCanary()
    assert done(without_pods) == Unpin()
    after = become(unpinned).status
    assert (after.phase, after.rejected) == (Phase.ROLLED_BACK, NEW)
    assert done(replace(unpinned, status=after)) == StoreRecord()


def test_a_weight_above_what_is_authorised_is_lowered_at_once() -> None:
    seen = observed(weight=Weight(90.0, True, True, status().epoch), record=RecordSeen())

    assert done(seen) == SetWeight(10.0)


def test_a_weight_that_a_person_lowered_holds_until_a_resume() -> None:
    seen = observed(weight=Weight(2.0, True, True, status().epoch))

    assert become(seen).reason == "TrafficLowered"
    resumed = become(replace(seen, decisions=(said(Verb.RESUME),))).status
    assert done(replace(seen, status=resumed)) == SetWeight(10.0)


def test_a_reset_route_is_put_back_three_times_and_then_left() -> None:
    gone = Weight(0.0, False, True, "")
    first = become(observed(weight=gone))
    often = status(attempt=attempt(drifts=(NOON - MINUTE,) * 3))

    assert first.reason == "TrafficMoved"
    assert done(observed(status=first.status, weight=gone)) == SetWeight(10.0)
    assert become(observed(status=often, weight=gone)).reason == "RouteReverted"


def test_a_pin_that_is_taken_off_is_put_back_each_time_and_from_the_third_on_nothing_is_raised() -> None:
    off, on = Pins(pinned=False, any_pin=False), Pins(pinned=True, any_pin=True)
    first = become(observed(pins=off))
    often = status(attempt=attempt(unpinned=(NOON - MINUTE,) * 3, baking_since=None))

    assert (first.reason, first.status.attempt and first.status.attempt.baking_since) == ("PinsReverted", None)
    assert done(observed(status=first.status, pins=off)) == Pin()
    assert done(observed(status=often, pins=off)) == Pin(), "without it the canary's pods get stable's traffic"
    held = become(observed(status=often, pins=on))
    assert held.reason == "PinsReverted"
    assert "Holding" in {condition.type for condition in held.status.conditions}
    resumed = become(observed(status=often, pins=on, decisions=(said(Verb.RESUME),))).status
    assert become(observed(status=resumed, pins=on)).reason == "Baking"


@pytest.mark.parametrize("message", [pytest.param("TrafficMoved", id="route"), pytest.param("PinsReverted", id="pin")])
def test_who_puts_back_what_is_told_which_setting_to_change(message: str) -> None:
    gone = observed(weight=Weight(0.0, False, True, "")) if message == "TrafficMoved" else observed(pins=Pins())
    told = become(gone)

    assert told.reason == message
    for word in ("ignoreDifferences", "RespectIgnoreDifferences=true", "spec.ignore", "docs/gitops.md", "checkout"):
        assert word in told.message


def test_pods_come_before_weight() -> None:
    raised = status(attempt=attempt(step=1, baking_since=None), weight=50.0)
    few = observed(status=raised)
    starting = replace(few, canary=CanaryPods(True, "20260301-115000", wanted=2, ready=1, endpoints=1))
    ready = replace(few, canary=CanaryPods(True, "20260301-115000", wanted=2, ready=2, endpoints=2))

    assert done(few) == ApplyCanary(2)
    assert become(starting).reason == "CanaryNotReady"
    assert done(ready) == SetWeight(50.0)


def test_a_bake_begins_when_the_gateway_reports_the_weight() -> None:
    waiting = status(attempt=attempt(baking_since=None))
    unreported = observed(status=waiting, weight=Weight(10.0, True, False, waiting.epoch))

    assert become(unreported).reason == "RouteNotProgrammed"
    arrived = become(observed(status=waiting)).status
    assert arrived.attempt is not None
    assert arrived.attempt.baking_since == NOON + MARGIN
    assert [seen.weight for seen in arrived.attempt.steps_seen] == [10.0]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        pytest.param(observed(status=status(attempt=attempt(baking_since=NOON))), "Baking", id="too early"),
        pytest.param(observed(verdict=Verdict(fresh=False, enough=True)), "NoData", id="no data"),
        pytest.param(observed(verdict=Verdict(fresh=True)), "MinRequests", id="too few requests"),
        pytest.param(observed(verdict=Verdict(fresh=True, enough=True, mismatch="x")), "TrafficMismatch", id="split"),
        pytest.param(observed(status=status(attempt=attempt(paused=True))), "Paused", id="a person paused"),
        pytest.param(observed(target=target(stable_ready=3)), "StableTooSmall", id="stable shrank"),
    ],
)
def test_why_a_progressing_rollout_holds(given: Observed, reason: str) -> None:
    assert decide(given, NOON).reason == reason


def retreated(**changes: Any) -> Status:
    """Off traffic for a minute, after a trip."""
    usual: dict[str, Any] = {"baking_since": None, "resting_since": NOON - MINUTE, "retreats": (BAD,)}
    return status(Phase.RETREATED, weight=0.0, attempt=attempt(**usual | changes))


def at_zero(now_status: Status, **changes: Any) -> Observed:
    """The route gives the canary nothing."""
    return observed(status=now_status, weight=Weight(0.0, True, True, now_status.epoch), **changes)


def pods(*, age: float, replaced: str = "") -> CanaryPods:
    return CanaryPods(
        True, "20260301-115000", wanted=1, ready=1, endpoints=1, youngest_age=age, oldest_age=age, replaced=replaced
    )


def test_pods_that_were_not_young_are_replaced_at_weight_0_once_and_waited_for() -> None:
    tripped = become(observed(verdict=replace(TRIPS, replace=True))).status
    resting = retreated(replacing=True)

    assert tripped.attempt is not None
    assert (tripped.attempt.replacing, tripped.attempt.excused) == (True, 0)
    assert done(at_zero(resting, canary=pods(age=600))) == ReplacePods()
    assert become(at_zero(resting, canary=pods(age=600, replaced=resting.epoch))).reason == "ReplacingPods"
    assert become(at_zero(resting, canary=pods(age=30))).status.phase is Phase.PROGRESSING


def test_young_pods_only_age_and_their_retreat_does_not_count() -> None:
    tripped = become(observed(verdict=TRIPS)).status

    assert tripped.attempt is not None
    assert (tripped.attempt.replacing, tripped.attempt.excused) == (False, 1)
    young = at_zero(retreated(excused=1), canary=pods(age=40), verdict=Verdict(young=True))
    assert become(young).reason == "Resting"
    assert become(at_zero(retreated(excused=1), canary=pods(age=70))).status.phase is Phase.PROGRESSING


def test_the_way_back_starts_small_and_climbs_when_it_has_shown_nothing() -> None:
    small = become(at_zero(retreated(), verdict=Verdict(limit=0.5))).status
    baking = status(weight=0.5, attempt=attempt(retreats=(BAD,)))
    here = Weight(0.5, True, True, baking.epoch)

    assert small.weight == 0.5
    assert become(observed(status=baking, weight=here, verdict=Verdict(fresh=True, limit=0.5))).reason == "Returning"
    climbed = become(observed(status=baking, weight=here)).status
    assert climbed.weight == 10.0
    assert climbed.attempt is not None
    assert climbed.attempt.baking_since is None


def test_who_wants_no_second_experiment_rolls_back_at_the_first_trip() -> None:
    at_once = spec(analysis={"onTrip": "rollback"})

    assert become(observed(spec=at_once, verdict=TRIPS)).status.phase is Phase.ROLLING_BACK


def test_the_last_step_waits_for_the_certificate_unless_the_spec_goes_on_without() -> None:
    last = status(attempt=attempt(step=1), weight=50.0)
    there = {
        "status": last,
        "weight": Weight(50.0, True, True, last.epoch),
        "canary": CanaryPods(True, "20260301-115000", wanted=2, ready=2, endpoints=2),
        "verdict": Verdict(fresh=True, enough=True, uncertified="errors needs about 900 canary requests, has 70"),
    }

    assert become(observed(**there)).reason == "NotCertified"
    assert become(observed()).reason == "StepStarted", "no other step asks for it"
    going_on = observed(**there, spec=spec(analysis={"onInconclusive": "advance"}))
    assert become(going_on).status.phase is Phase.RELEASING


def test_a_certified_canary_may_leave_before_its_bake_where_no_policy_asks_for_one() -> None:
    early = spec(analysis={"advance": "early"})
    baking = attempt(baking_since=NOON)

    assert become(observed(status=status(attempt=baking), spec=early)).reason == "StepStarted"
    under_policy = status(attempt=msgspec.structs.replace(baking, policies=("ai@1",)))
    assert decide(observed(status=under_policy, spec=early), NOON).reason == "Baking"
    uncertain = Verdict(fresh=True, enough=True, uncertified="x")
    assert decide(observed(status=status(attempt=baking), spec=early, verdict=uncertain), NOON).reason == "Baking"


def test_a_passed_step_leads_to_the_next() -> None:
    after = become(observed()).status

    assert after.weight == 50.0
    assert after.attempt is not None
    assert (after.attempt.step, after.attempt.baking_since) == (1, None)


def test_an_approval_opens_its_own_step_of_its_own_attempt_only() -> None:
    waiting = status(attempt=gated(Gate(1)))

    assert decide(observed(status=waiting), NOON).reason == "AwaitingApproval"
    for wrong in (said(Verb.APPROVE, step=2), said(Verb.APPROVE, step=1, of="another")):
        refused = become(observed(status=waiting, decisions=(wrong,))).status
        assert not refused.decisions[-1].taken
        assert decide(observed(status=refused), NOON).reason == "AwaitingApproval"
    opened = become(observed(status=waiting, decisions=(said(Verb.APPROVE, step=1),))).status
    assert become(observed(status=opened)).status.weight == 50.0


def test_a_promote_skips_bakes_and_steps_but_no_approval_that_is_left() -> None:
    plain = become(observed(decisions=(said(Verb.PROMOTE),), verdict=Verdict())).status
    blocked = plain.with_attempt(gates=(Gate(2),))

    assert become(observed(status=plain, verdict=Verdict())).status.phase is Phase.RELEASING
    assert decide(observed(status=blocked, verdict=Verdict()), NOON).reason == "AwaitingApproval"
    assert become(observed(status=plain, verdict=FAILS)).status.phase is Phase.ROLLING_BACK


def test_there_is_no_release_before_the_record_is_stored() -> None:
    last = status(attempt=attempt(step=1, steps_seen=(StepSeen(1, 10.0, NOON), StepSeen(2, 50.0, NOON))), weight=50.0)
    seen = observed(
        status=last,
        weight=Weight(50.0, True, True, last.epoch),
        canary=CanaryPods(True, "20260301-115000", wanted=2, ready=2, endpoints=2),
    )

    assert done(replace(seen, record=RecordSeen())) == StoreRecord()
    assert become(seen).status.phase is Phase.RELEASING


@pytest.mark.parametrize(
    ("template", "outcome"), [(OLD, Outcome.WITHDRAWN), (OTHER, Outcome.SUPERSEDED)], ids=["set back", "another"]
)
@pytest.mark.parametrize("phase", [Phase.PREPARING, Phase.PROGRESSING, Phase.RETREATED])
def test_an_edit_ends_the_attempt_with_weight_zero_first(phase: Phase, template: str, outcome: Outcome) -> None:
    after = become(observed(status=status(phase), target=target(template_hash=template))).status

    assert (after.phase, after.weight) == (Phase.ROLLING_BACK, 0.0)
    assert after.attempt is not None
    assert after.attempt.outcome is outcome


def test_a_rejected_template_is_not_tried_again_without_a_retry() -> None:
    ended = attempt(outcome=Outcome.ROLLED_BACK)
    resting = status(Phase.ROLLED_BACK, attempt=ended, rejected=NEW, weight=0.0)
    seen = observed(status=resting, record=RecordSeen(True, 1, "RolledBack"))

    assert decide(seen, NOON).reason == "RolledBack"
    retried = become(replace(seen, decisions=(said(Verb.RETRY),))).status
    again = become(replace(seen, status=retried, pins=Pins())).status
    assert again.phase is Phase.PREPARING
    assert again.attempt is not None
    assert again.attempt.id != ended.id


def test_a_release_that_gets_stuck_gives_the_target_its_template_back() -> None:
    rolling = status(Phase.RELEASING, weight=50.0, attempt=attempt(releasing=True))
    stuck = become(observed(status=rolling, target=target(paused=False, roll_stuck="ProgressDeadlineExceeded"))).status
    off = stuck.with_attempt(resting_since=NOON - MINUTE)

    assert stuck.phase is Phase.ROLLING_BACK
    seen = observed(status=off, target=target(paused=False), weight=Weight(0.0, True, True, off.epoch))
    assert done(seen) == Restore()


def test_a_held_edit_is_unpaused_only_after_the_pins_are_off() -> None:
    rolling = status(Phase.RELEASING, weight=50.0, attempt=attempt(releasing=True))

    assert done(observed(status=rolling)) == Unpin()
    assert done(observed(status=rolling, pins=Pins())) == Release()


def test_an_edit_that_was_not_held_is_paused_and_then_tried() -> None:
    idle = status(Phase.IDLE, attempt=None, weight=0.0, holding=False)
    rolling = target(paused=False, settled_hash="")

    assert done(observed(status=idle, target=rolling, pins=Pins())) == PauseTarget()


@pytest.mark.parametrize("origin", ["ai", "unknown", "mixed"])
def test_the_third_retreat_rolls_back_a_change_nobody_vouches_for(origin: str) -> None:
    rested = attempt(origin=origin, retreats=(BAD,) * 3, resting_since=NOON - MINUTE, baking_since=None)
    seen = observed(status=status(Phase.RETREATED, attempt=rested, weight=0.0))
    seen = replace(seen, weight=Weight(0.0, True, True, seen.status.epoch))

    assert become(seen).reason == "RetreatedTooOften"
    assert become(seen).status.phase is Phase.ROLLING_BACK


def test_after_a_retreat_the_weight_comes_back_and_the_bake_starts_again() -> None:
    rested = attempt(retreats=(BAD,), resting_since=NOON - REST, baking_since=None)
    seen = observed(status=status(Phase.RETREATED, attempt=rested, weight=0.0))
    seen = replace(seen, weight=Weight(0.0, True, True, seen.status.epoch))

    early = replace(seen, status=seen.status.with_attempt(resting_since=NOON - REST + timedelta(seconds=1)))
    assert decide(early, NOON).reason == "Resting"
    after = become(seen).status
    assert (after.phase, after.weight) == (Phase.PROGRESSING, 10.0)


def test_without_data_a_change_nobody_vouches_for_goes_back_and_a_human_one_holds() -> None:
    blind = Verdict(no_data_since=NOON - 10 * MINUTE)
    human = status(attempt=attempt(origin="human", baking_since=NOON - 10 * MINUTE))
    unknown = status(attempt=attempt(baking_since=NOON - 10 * MINUTE))

    assert become(observed(status=unknown, verdict=blind)).status.phase is Phase.ROLLING_BACK
    assert decide(observed(status=human, verdict=blind), NOON).reason == "NoData"


def test_a_new_leader_writes_its_term_before_anything_else() -> None:
    after = become(observed(term=2, verdict=FAILS)).status

    assert after.leader_epoch == 2
    assert after.phase is Phase.PROGRESSING
    assert become(observed(status=after, term=2, verdict=FAILS)).status.phase is Phase.ROLLING_BACK


def test_a_status_of_a_newer_version_is_left_alone() -> None:
    newer = status(schema_version=99)

    decision = decide(observed(status=newer, verdict=FAILS), NOON)
    assert isinstance(decision, Wait)
    assert decision.reason == "NewerStatus"


def test_a_deleted_canary_gives_traffic_back_before_it_lets_go() -> None:
    after = become(observed(deleting=True)).status

    assert (after.phase, after.weight) == (Phase.ROLLING_BACK, 0.0)
    resting = status(Phase.ROLLED_BACK, weight=0.0)
    held = observed(deleting=True, status=resting, weight=Weight(), canary=CanaryPods(), pins=Pins())
    assert done(held) == Restore()


def test_a_promotion_is_sealed_at_rest_before_the_next_edit_is_looked_at() -> None:
    ended = attempt(outcome=Outcome.PROMOTED, resting_since=NOON - MINUTE, sealed_at=NOON - MINUTE)
    released = status(Phase.FINISHING, attempt=ended, weight=0.0)
    rolled = target(paused=False, settled_hash="h-new", settled_template_hash=NEW, roll_complete=True)
    seen = observed(
        status=released,
        target=rolled,
        weight=Weight(programmed=True),
        canary=CanaryPods(),
        pins=Pins(),
        record=RecordSeen(exists=True),
    )

    promoted = become(seen).status
    assert promoted.phase is Phase.IDLE
    edited = target(settled_hash="h-new", settled_template_hash=NEW, template_hash=OTHER)
    assert done(replace(seen, status=promoted, target=edited)) == StoreRecord()


def test_a_rollout_that_ended_with_its_target_is_recorded_before_the_next_one_is_looked_for() -> None:
    ended = status(Phase.IDLE, attempt=attempt(outcome=Outcome.ABORTED, sealed_at=NOON), weight=0.0)

    assert done(observed(status=ended, target=None, record=RecordSeen(exists=True))) == StoreRecord()


def test_a_retreat_needs_nothing_but_the_route_to_take_the_traffic_away() -> None:
    seen = replace(observed(status=status(Phase.RETREATED)), target=None, weight=Weight(percent=50.0, present=True))

    assert decide(seen, NOON) == Do(SetWeight(0.0), "TrafficToStable")


def test_an_edit_that_was_taken_back_before_anybody_looked_does_not_leave_the_target_paused() -> None:
    back = target(paused=True, template_hash=OLD, held=True)
    seen = observed(status=status(Phase.IDLE, holding=False, attempt=None), target=back, pins=Pins(), weight=Weight())

    assert done(seen) == Release()
    assert decide(replace(seen, target=replace(back, held=False)), NOON).reason == "TargetPaused"


def test_how_the_last_rollout_ended_stays_told_and_a_mended_problem_does_not() -> None:
    def at_rest(reason: str) -> Observed:
        idle = status(Phase.IDLE, attempt=None, holding=False, reason=reason, message="what came of it")
        return observed(status=idle, target=target(paused=False, template_hash=OLD), pins=Pins())

    assert decide(at_rest("Promoted"), NOON) == Wait("Promoted", "what came of it")
    mended = decide(at_rest("ServiceMissing"), NOON)
    assert isinstance(mended, Become)
    assert (mended.status.reason, mended.status.message) == ("Idle", "")
