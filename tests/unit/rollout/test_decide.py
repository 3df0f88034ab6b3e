"""The state machine with plain values: what it does, and in which order of urgency."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from controller.model.evidence import Evidence, ImageSeen, Origin
from controller.model.guarded import Frozen, Gate
from controller.model.policy import OnStart
from controller.model.spec import Verb
from controller.model.status import NOT_OURS, GaugeSeen, Head, Judged, Outcome, Phase, Status, StepSeen
from controller.model.world import CanaryPods, DecisionSeen, Observed, Pins, RecordSeen, Target, Verdict, Weight
from controller.rollout.decide import MARGIN, REST, decide
from controller.rollout.moves import (
    ApplyBaseline,
    ApplyCanary,
    Become,
    Decision,
    DeleteCanary,
    Do,
    LeaveRoute,
    PauseTarget,
    Pin,
    Release,
    RemoveFinalizer,
    ReplacePods,
    Restore,
    SetWeight,
    StoreRecord,
    Unpin,
    Wait,
)
from tests.builders import MINUTE, NEW, NOON, OLD, OTHER, attempt, gated, observed, ruling, spec, status, target

BAD = Judged(at=NOON, verdict="fail", reason="ErrorsRegressed", message="errors +5 pp")
FAILS = Verdict(fail=True, fresh=True, judged=BAD)
PASSES = Verdict(fresh=True, enough=True)
ADVICE = "GaugeHigher memory is 2 times that of stable pods for 300 s, allowed are 1.2"
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


NOT_FOR_STABLE = "RouteNotForService"


@pytest.mark.parametrize("phase", [Phase.ROLLING_BACK, Phase.RETREATED, Phase.FINISHING])
def test_a_route_that_stable_is_not_in_any_more_is_no_way_out_while_the_canary_is(phase: Phase) -> None:
    """Somebody took stable's line out of a split rule, and left the canary's: everything goes there."""
    leaving = status(phase, weight=0.0, fence=1, attempt=attempt(outcome=Outcome.ROLLED_BACK))
    left = Weight(100.0, True, True, "1.0", NOT_FOR_STABLE, "HTTPRoute checkout sends to checkout-canary:80")
    edited = observed(status=leaving, weight=left)
    again = observed(status=leaving.with_attempt(resting_since=NOON - MINUTE), weight=left)

    assert done(edited) == SetWeight(0.0)
    taken_off = replace(left, percent=0.0, programmed=False, epoch=leaving.epoch)
    assert decide(replace(edited, weight=taken_off), NOON).reason == NOT_FOR_STABLE
    assert become(replace(edited, weight=replace(taken_off, programmed=True))).reason == "TrafficOnStable"
    if phase is Phase.RETREATED:
        assert done(again) == SetWeight(0.0)
    else:
        assert become(again).reason == "TrafficMoved"


def test_a_route_of_other_services_that_names_nothing_of_ours_is_left_behind() -> None:
    leaving = status(Phase.ROLLING_BACK, weight=0.0, fence=1, attempt=attempt(outcome=Outcome.ABORTED))

    for seen in (Weight(0.0, False, True, "1.0", NOT_FOR_STABLE), Weight(problem="RouteMissing")):
        assert become(observed(status=leaving, weight=seen)).reason == "TrafficOnStable"


def test_a_route_that_names_nothing_of_ours_and_that_no_gateway_takes_is_waited_for_a_minute() -> None:
    """Its owner took stable and canary out in an incident, and what is left is no gateway's."""
    leaving = status(Phase.ROLLING_BACK, weight=0.0, fence=1, attempt=attempt(outcome=Outcome.ABORTED, entered_at=NOON))
    seen = observed(status=leaving, weight=Weight(0.0, False, False, "", NOT_FOR_STABLE, "in its own words"))

    assert decide(seen, NOON).message == "nobody can tell whether weight 0 is in force: in its own words"
    assert become(observed(status=leaving.with_attempt(entered_at=NOON - MINUTE), weight=seen.weight)).reason == (
        "TrafficOnStable"
    )


@pytest.mark.parametrize("why", ["RouteForbidden", "RouteNotAccepted"])
def test_a_way_out_that_cannot_be_seen_says_why(why: str) -> None:
    leaving = status(Phase.ROLLING_BACK, weight=0.0, fence=1, attempt=attempt(outcome=Outcome.ABORTED))
    unseen = Weight(epoch=leaving.epoch, problem=why, problem_message="in its own words")

    told = become(observed(status=leaving, weight=unseen))

    assert (told.reason, told.message) == (why, "nobody can tell whether weight 0 is in force: in its own words")


def test_what_somebody_gives_the_canary_before_its_first_step_is_taken_off_before_anything_else() -> None:
    early = status(Phase.PREPARING, weight=0.0, attempt=attempt(baking_since=None))
    unready = CanaryPods(True, "20260301-115000", wanted=1, ready=0)

    decision = decide(observed(status=early, canary=unready, weight=Weight(30.0, True, True)), NOON)

    assert decision == Do(SetWeight(0.0), "WeightTooHigh", "found 30 % before the first step: taken off")


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


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="rests"),
        pytest.param({"paused": True}, id="a person paused"),
        pytest.param({"retreats": (BAD,) * 3, "origin": Origin.HUMAN}, id="waits for a person"),
    ],
)
def test_off_traffic_a_pin_that_is_taken_off_is_put_back_since_stables_service_selects_the_pods_that_failed(
    changes: dict[str, Any],
) -> None:
    resting = retreated(**changes)

    assert done(at_zero(resting, pins=Pins(pinned=False, any_pin=False))) == Pin()
    lost = become(at_zero(resting, pins=Pins(problems=("there is no Service checkout",))))
    assert (lost.reason, lost.message) == ("PinsLost", "there is no Service checkout")
    convicted = become(at_zero(resting, pins=Pins(), verdict=FAILS))
    assert convicted.status.phase is Phase.ROLLING_BACK, "a way out waits for no pin"


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


def test_a_roll_stops_while_stable_misses_its_objective_and_goes_on_when_it_is_met_or_a_person_says_so() -> None:
    releasing = status(Phase.RELEASING, attempt=attempt(releasing=True, baking_since=None))
    rolls = target(paused=False, roll_complete=False)
    missed = Verdict(suffers="errors: 9 % bad on stable too, objective 5 %: what is wrong with both must end first")
    rolling = observed(status=releasing, target=rolls, pins=Pins(), verdict=missed)
    stands = replace(rolling, target=replace(rolls, paused=True))

    assert done(rolling) == PauseTarget()
    assert done(replace(rolling, record=RecordSeen())) == PauseTarget(), "also while no record can be read or written"
    assert done(replace(stands, verdict=Verdict(), record=RecordSeen())) == StoreRecord()
    held = become(stands)
    assert (held.reason, held.status.phase) == ("ObjectiveMissed", Phase.RELEASING)
    assert "kubectl canary resume, or abort" in held.message
    assert done(replace(stands, verdict=Verdict())) == Release()
    resumed = become(replace(stands, status=held.status, decisions=(said(Verb.RESUME),))).status
    assert done(replace(stands, status=resumed)) == Release()
    assert become(replace(stands, decisions=(said(Verb.ABORT),))).status.phase is Phase.ROLLING_BACK


def test_a_resume_is_about_what_holds_and_not_about_the_last_word_in_status() -> None:
    """A takeover writes that it took over, and a freeze that it has ended, where the reason to hold stood."""
    releasing = status(Phase.RELEASING, attempt=attempt(releasing=True, baking_since=None), reason="TookOver")
    rolls = target(paused=True, roll_complete=False)
    roll = observed(status=releasing, target=rolls, pins=Pins(), verdict=Verdict(suffers="errors: 9 % bad"))
    higher = replace(PASSES, advice=ADVICE)
    climbs = observed(status=status(leader_epoch=2, reason="TookOver"), verdict=higher, term=2)
    climbs = replace(climbs, weight=replace(climbs.weight, epoch="1.0"))
    over = status(reason="GaugeHigher", attempt=attempt(paused=True))

    for seen in (roll, climbs):
        after = become(replace(seen, decisions=(said(Verb.RESUME),))).status
        assert after.decisions[-1].taken
        assert after.attempt is not None
        assert after.attempt.overruled
    resumed = become(observed(status=over, verdict=higher, decisions=(said(Verb.RESUME),))).status.attempt
    assert resumed is not None
    assert (resumed.paused, resumed.overruled) == (False, False), "it was a pause that held"


def test_a_resume_is_too_late_while_nothing_holds_the_roll() -> None:
    releasing = status(Phase.RELEASING, attempt=attempt(releasing=True, baking_since=None))

    changed = become(observed(status=releasing, decisions=(said(Verb.RESUME),))).status

    assert not changed.decisions[-1].taken


FRESH = spec(analysis={"baseline": {"fresh": True}})


def test_a_fresh_baseline_is_made_with_the_canary_and_both_are_waited_for_before_any_traffic() -> None:
    preparing = status(Phase.PREPARING, attempt=attempt(baking_since=None), weight=0.0)
    alone = observed(status=preparing, spec=FRESH, weight=Weight(), canary=replace(observed().canary, ready=0))
    of = CanaryPods(True, "20260301-115000", wanted=1)
    starting, beside = replace(alone, baseline=of), replace(observed().canary)
    first = replace(starting, canary=beside)

    assert done(alone) == ApplyBaseline(1), "before the canary's pods are waited for: both are to be as young"
    assert become(starting).reason == "CanaryNotReady"
    assert (become(first).reason, become(first).message) == (
        "BaselineNotReady",
        "0 of 1 fresh pods of stable's template are ready",
    )
    assert decide(replace(first, status=become(first).status), NOON + 600 * MINUTE).reason == "BaselineNotReady"
    assert done(replace(first, baseline=replace(of, ready=1, endpoints=1))) == SetWeight(0.0)


def test_users_are_taken_off_a_fresh_baseline_without_pods_and_the_revision_is_not_blamed() -> None:
    lost = observed(spec=FRESH, baseline=CanaryPods(True, "20260301-115000", wanted=1))

    found = become(lost)

    assert (found.reason, found.status.phase, found.status.weight) == ("Retreated", Phase.RETREATED, 0.0)
    assert found.status.attempt is not None
    assert len(found.status.attempt.retreats) == found.status.attempt.excused == 1


def test_a_baseline_without_its_canary_is_still_taken_away() -> None:
    ended = attempt(outcome=Outcome.ROLLED_BACK, resting_since=NOON - MINUTE, sealed_at=NOON)
    left = observed(status=status(Phase.ROLLING_BACK, attempt=ended, weight=0.0), spec=FRESH, weight=Weight())
    left = replace(left, canary=CanaryPods(), baseline=CanaryPods(True, "20260301-115000"))

    assert done(left) == DeleteCanary()


def test_ready_pods_that_are_not_behind_their_service_are_taken_off_traffic_and_the_service_is_made_again() -> None:
    unreached = CanaryPods(True, "20260301-115000", wanted=1, ready=1, endpoints=0, unserved=True)
    off = become(observed(canary=unreached))

    assert (off.reason, off.message, off.status.phase) == (
        "Retreated",
        "no canary pod is behind its Service",
        Phase.RETREATED,
    )
    rested = status(Phase.RETREATED, weight=0.0, attempt=attempt(resting_since=NOON - MINUTE, baking_since=None))
    back = observed(status=rested, canary=unreached, weight=Weight(0.0, True, True, rested.epoch))
    assert done(back) == ApplyCanary(1)
    waits = decide(replace(back, canary=replace(unreached, unserved=False)), NOON)
    assert waits.message == "0 of 1 canary pods are behind their Service, 1 are ready"


@pytest.mark.parametrize("trouble", ["", "ImagePullBackOff"])
def test_pods_are_given_their_time_from_when_they_were_asked_for_whatever_came_before(trouble: str) -> None:
    """A quota, a missing record, an approval: an hour of that is no delay of theirs."""
    old = status(Phase.PREPARING, weight=0.0, attempt=attempt(entered_at=NOON - 60 * MINUTE, baking_since=None))
    young = CanaryPods(True, "20260301-115000", wanted=1, trouble=trouble, asked_at=NOON - timedelta(seconds=2))
    seen = observed(status=old, canary=young, weight=Weight())

    assert decide(seen, NOON).reason == "CanaryNotReady"
    late = decide(seen, NOON + 10 * MINUTE)
    assert late.reason == (trouble or "ProgressDeadline")


def test_pods_that_never_start_meet_their_deadline_although_an_autoscaler_asks_for_more_every_few_minutes() -> None:
    begun = status(Phase.PREPARING, weight=0.0, attempt=attempt(entered_at=NOON - 9 * MINUTE, baking_since=None))
    pods = CanaryPods(True, "20260301-115000", wanted=1, asked_at=NOON, missing_since=NOON - 9 * MINUTE)
    waiting = observed(status=begun, canary=pods, weight=Weight())
    baking = observed(target=target(replicas=20), canary=replace(pods, wanted=2, ready=1, endpoints=1))

    assert decide(waiting, NOON).reason == "CanaryNotReady"
    grown = replace(waiting, canary=replace(pods, asked_at=NOON + MINUTE))
    assert decide(grown, NOON + MINUTE).reason == "ProgressDeadline"
    lost = become(replace(baking, canary=replace(baking.canary, missing_since=NOON - 11 * MINUTE)))
    assert lost.reason == "CanaryNotReady", "and while it bakes the step does not wait for them for ever"


def test_pods_that_an_autoscaler_adds_get_their_moment_where_their_images_are_not_pulled_at_once() -> None:
    begun = status(Phase.PREPARING, weight=0.0, attempt=attempt(entered_at=NOON - 9 * MINUTE, baking_since=None))
    young = CanaryPods(True, "20260301-115000", wanted=2, trouble="ErrImagePull", asked_at=NOON - timedelta(seconds=2))
    slow = observed(status=begun, canary=replace(young, missing_since=NOON - 5 * MINUTE), weight=Weight())

    assert decide(replace(slow, target=target(replicas=20)), NOON).reason != "ErrImagePull"


def test_a_canary_that_grows_with_its_target_bakes_on_and_leaves_no_step_before_its_new_pods_serve() -> None:
    """An autoscaler in the morning: beginning anew with each pod, a service would never get past a step."""
    grown = CanaryPods(True, "20260301-115000", wanted=1, ready=1, endpoints=1, asked_at=NOON - timedelta(seconds=3))
    tall = replace(observed(), target=target(replicas=20), canary=replace(grown, wanted=2))

    waits = decide(tall, NOON)
    assert (type(waits), waits.reason) == (Become, "ScalingCanary"), "told once"
    assert isinstance(waits, Become)
    assert waits.status.attempt is not None
    assert waits.status.attempt.baking_since == NOON - 2 * MINUTE
    late = become(replace(tall, canary=replace(tall.canary, asked_at=NOON - 11 * MINUTE)))
    assert late.status.attempt is not None
    assert late.status.attempt.baking_since is None


def test_pods_that_lose_readiness_under_traffic_begin_the_bake_anew_and_get_their_deadline_from_then_on() -> None:
    two = CanaryPods(True, "20260301-115000", wanted=2, ready=1, endpoints=1)
    late = status(attempt=attempt(entered_at=NOON - 60 * MINUTE, step=1), weight=50.0)
    one_lost = observed(status=late, canary=two, weight=Weight(50.0, True, True, late.epoch))

    waits = become(one_lost)

    assert (waits.reason, waits.message) == ("CanaryNotReady", "1 of 2 canary pods are ready")
    assert waits.status.attempt is not None
    assert (waits.status.attempt.baking_since, waits.status.attempt.entered_at) == (None, NOON)
    again = replace(one_lost, status=waits.status)
    assert decide(again, NOON + 9 * MINUTE).reason == "CanaryNotReady"
    assert decide(again, NOON + 11 * MINUTE).reason == "ProgressDeadline"


def test_a_stable_that_lost_pods_holds_until_a_person_takes_those_it_has_as_enough() -> None:
    small = observed(target=target(stable_ready=3))
    held = become(small)
    less = replace(small, status=held.status, target=target(stable_ready=2))
    told = become(less)

    assert (held.reason, told.reason) == ("StableTooSmall", "StableTooSmall")
    assert "minReplicas to 4" in held.message
    assert "where 2 carry all of it, kubectl canary resume" in told.message
    resumed = become(replace(less, status=told.status, decisions=(said(Verb.RESUME),))).status
    assert resumed.decisions[-1].answer == "going on: 2 ready pods of stable are enough from now on"
    assert become(replace(less, status=resumed)).reason == "Baking", "compared with what stable has from here on"
    assert decide(replace(less, status=resumed, target=target(stable_ready=1)), NOON).reason == "StableTooSmall"


def test_a_promote_passes_a_stable_that_lost_pods_and_no_resume_takes_none_as_enough() -> None:
    promoted = observed(status=status(attempt=attempt(promoted_by="alice")), target=target(stable_ready=3))
    none_left = observed(target=target(stable_ready=0))

    assert become(promoted).status.phase is Phase.RELEASING
    resumed = become(replace(none_left, decisions=(said(Verb.RESUME),))).status
    assert decide(replace(none_left, status=resumed), NOON).reason == "StableTooSmall"


@pytest.mark.parametrize(
    ("found", "words"),
    [
        pytest.param(None, "does not exist in this namespace", id="gone"),
        pytest.param(target(deleting=True), "Deployment checkout is being deleted", id="going"),
        pytest.param(target(uid="uid-2"), "Deployment checkout was deleted and made again", id="another one"),
    ],
)
@pytest.mark.parametrize("phase", [Phase.PROGRESSING, Phase.RELEASING])
def test_how_the_target_went_is_told_as_it_was(phase: Phase, found: Target | None, words: str) -> None:
    ended = become(observed(status=status(phase), target=found))

    assert ended.reason == "TargetMissing"
    assert ended.status.attempt is not None
    assert words in ended.status.attempt.outcome_message


def test_what_a_gauge_advises_ends_with_its_cause_or_with_a_persons_resume() -> None:
    held = become(observed(verdict=replace(PASSES, advice=ADVICE)))
    seen = observed(status=held.status, verdict=replace(PASSES, advice=ADVICE))

    assert "memory is 2 times that of stable pods" in held.message
    assert become(replace(seen, verdict=PASSES)).reason == "StepStarted"
    resumed = become(replace(seen, decisions=(said(Verb.RESUME),))).status
    assert resumed.attempt is not None
    assert resumed.attempt.baking_since is not None, "the bake is over, and stays so"
    assert become(replace(seen, status=resumed)).reason == "StepStarted"


def test_why_a_gauge_holds_is_remembered_once_with_what_was_compared_by_then() -> None:
    known = replace(
        PASSES, advice=ADVICE, checkpoint={"of": "judge"}, gauges=(GaugeSeen("memory", 2.0, 1.0, 1.2, 300.0),)
    )
    held = become(observed(verdict=known)).status
    longer = replace(known, advice=ADVICE.replace("300", "315"))
    missing = replace(known, advice="GaugeMissing memory: no value")

    assert held.attempt is not None
    assert (held.attempt.judge, held.attempt.gauges) == ({"of": "judge"}, known.gauges)
    assert isinstance(decide(observed(status=held, verdict=longer), NOON), Wait), "more seconds are no news"
    assert become(observed(status=held, verdict=missing)).reason == "GaugeMissing"


def test_a_gauge_ends_nothing_and_keeps_nobody_in() -> None:
    advised = replace(PASSES, advice=ADVICE)

    assert become(observed(verdict=replace(advised, fail=True))).status.phase is Phase.ROLLING_BACK
    assert become(observed(verdict=advised, decisions=(said(Verb.ABORT),))).status.phase is Phase.ROLLING_BACK
    promoted = status(attempt=attempt(promoted_by="alice"))
    assert become(observed(status=promoted, verdict=advised)).status.phase is Phase.RELEASING


def test_the_weight_does_not_come_back_while_stable_suffers_too() -> None:
    suffering = replace(PASSES, suffers="errors: 8.00 % bad on stable too, objective 5.00 %")
    seen = at_zero(retreated(), canary=pods(age=600))

    assert become(seen).status.phase is Phase.PROGRESSING
    assert become(replace(seen, verdict=suffering)).reason == "BothArmsSuffer"


def test_a_release_that_is_the_remedy_of_an_incident_is_let_out_by_a_person() -> None:
    suffering = replace(PASSES, suffers="errors: 8.00 % bad on stable too, objective 5.00 %")

    held = become(observed(verdict=suffering)).status
    assert held.message.endswith("if this release is the remedy: kubectl canary promote")
    told = become(observed(verdict=suffering, decisions=(said(Verb.PROMOTE),))).status
    assert become(observed(verdict=suffering, status=told)).status.phase is Phase.RELEASING


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
        pytest.param(observed(verdict=Verdict(fresh=True, lacks="Suspicious")), "Suspicious", id="half convicted"),
        pytest.param(observed(verdict=replace(PASSES, suffers="errors")), "BothArmsSuffer", id="an incident"),
        pytest.param(observed(verdict=replace(PASSES, advice=ADVICE)), "GaugeHigher", id="uses more memory"),
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


def test_a_retreat_that_bursts_of_the_service_explain_replaces_pods_and_does_not_count() -> None:
    tripped = become(observed(verdict=replace(TRIPS, replace=True, excused=True))).status

    assert tripped.attempt is not None
    assert (tripped.attempt.replacing, tripped.attempt.excused) == (True, 1)


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


def test_how_far_the_certificate_is_is_told_again_with_each_quarter_more_and_not_with_each_scrape() -> None:
    def then(requests: int) -> Decision:
        before = status(reason="NotCertified", weight=50.0, attempt=attempt(step=1, canary_requests=400))
        lacks = f"errors needs about 900 canary requests, has {requests}"
        verdict = replace(PASSES, uncertified=lacks, canary_requests=requests, checkpoint={"n": 1})
        pods = CanaryPods(True, "20260301-115000", wanted=2, ready=2, endpoints=2)
        weight = Weight(50.0, True, True, before.epoch)
        return decide(observed(status=before, weight=weight, canary=pods, verdict=verdict), NOON)

    more = then(501)

    assert isinstance(then(500), Wait)
    assert isinstance(more, Become)
    assert more.status.message == "errors needs about 900 canary requests, has 501"
    assert more.status.attempt is not None
    assert more.status.attempt.canary_requests == 501, "so that the next is a quarter more than this"


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
@pytest.mark.parametrize("phase", [Phase.PREPARING, Phase.PROGRESSING, Phase.RETREATED, Phase.RELEASING])
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


STUCK = target(strays=True, stable_ready=2, settled_hash="", applied_by="argocd-controller")
"""the way back got stuck, and the rejected template came again: held, beside pods that still run it"""


@pytest.mark.parametrize("phase", [Phase.ROLLED_BACK, Phase.IDLE])
def test_who_applies_the_rejected_template_again_while_pods_of_it_are_left_is_told_before_stables_comes_back(
    phase: Phase,
) -> None:
    ended = attempt(outcome=Outcome.ROLLED_BACK, releasing=True)
    resting = status(phase, attempt=ended, rejected=NEW, weight=0.0, holding=False, reason="RolledBack")
    seen = observed(status=resting, target=STUCK, record=RecordSeen(True, 1, "RolledBack"), pins=Pins())

    told = become(seen)

    assert (told.status.phase, told.status.reason) == (phase, "TemplateReapplied")
    for word in ("argocd-controller applied", "12:00:00 UTC", "Argo CD: spec.syncPolicy", "Flux: spec.suspend"):
        assert word in told.message
    assert done(replace(seen, status=told.status)) == Restore()


def test_a_tool_that_applies_the_rejected_template_every_second_costs_a_status_every_ten_minutes() -> None:
    ended = attempt(outcome=Outcome.ROLLED_BACK, releasing=True)
    known = status(Phase.ROLLED_BACK, attempt=ended, rejected=NEW, weight=0.0, holding=False, reason="RolledBack")
    restored = replace(STUCK, paused=False, template_hash=OLD, roll_stuck="ProgressDeadlineExceeded", applied_by="")
    restores, told = 0, []

    for second in range(1800):
        for found in (STUCK, STUCK, restored):
            seen = observed(status=known, target=found, record=RecordSeen(True, 1, "RolledBack"), pins=Pins())
            decision = decide(seen, NOON + timedelta(seconds=second))
            restores += isinstance(decision, Do)
            if isinstance(decision, Become):
                known = decision.status
                told.append(decision.reason)

    assert restores >= 1800
    assert told == ["TemplateReapplied"] * 3


def test_pods_that_a_person_let_out_are_taken_back_without_a_word_of_tools() -> None:
    ended = attempt(outcome=Outcome.ROLLED_BACK, releasing=True)
    told = status(Phase.ROLLED_BACK, attempt=ended, rejected=NEW, reason="EditNotHeld")
    seen = observed(status=told, target=STUCK, record=RecordSeen(True, 1, "RolledBack"))

    assert done(seen) == Restore()


@pytest.mark.parametrize("of", ["the Canary", "the target"])
def test_what_must_be_mended_first_holds_the_edit_after_a_rollback_too(of: str) -> None:
    resting = status(Phase.ROLLED_BACK, attempt=attempt(outcome=Outcome.ROLLED_BACK), rejected=NEW, weight=0.0)
    wrong = ("ErrorsNotCounted analysis.metrics[0].errorRatio: no series",)
    edited = observed(status=resting, target=target(template_hash=OTHER), record=RecordSeen(True, 1, "RolledBack"))
    broken = replace(edited, problems=wrong) if of == "the Canary" else edited
    broken = replace(broken, target=target(template_hash=OTHER, problems=wrong)) if of == "the target" else broken

    held = become(broken)

    assert (held.status.phase, held.reason) == (Phase.ROLLED_BACK, "ErrorsNotCounted")
    assert become(replace(broken, status=held.status, problems=(), target=edited.target)).reason == "CandidateHeld"
    set_back = replace(broken, target=target(template_hash=OLD, problems=wrong))
    assert decide(set_back, NOON).reason == "Withdrawn", "the way back to stable's waits for nothing"
    rejected = replace(broken, target=target(problems=wrong))
    assert decide(rejected, NOON).reason == "RolledBack", "nobody asks for it"


@pytest.mark.parametrize("paused", [True, False])
@pytest.mark.parametrize("template", [NEW, OTHER], ids=["the rejected one", "another edit"])
@pytest.mark.parametrize("phase", [Phase.IDLE, Phase.ROLLED_BACK])
def test_what_went_out_while_nobody_held_it_is_stable_and_never_a_candidate(
    phase: Phase, template: str, paused: bool
) -> None:
    """Pinned to the stable that is remembered, every Service would reach no pod."""
    resting = status(phase, attempt=attempt(outcome=Outcome.ROLLED_BACK), rejected=NEW, weight=0.0)
    went_out = target(
        template_hash=template,
        paused=paused,
        settled_hash="h-new",
        settled_template_hash=NEW,
        stable_ready=0,
        runs_another=True,
    )
    seen = observed(status=resting, target=went_out, pins=Pins(), record=RecordSeen(True, 1, "RolledBack"))

    after = become(seen)

    assert (after.reason, after.status.phase, after.status.rejected) == ("UnjudgedRelease", Phase.IDLE, "")
    assert after.status.stable is not None
    assert after.status.stable.hash == "h-new"
    assert not after.status.edits_held, "it is to be proven anew"
    moving = replace(seen, target=replace(went_out, settled_hash=""))
    if paused:
        assert decide(moving, NOON).reason == "WaitingForStable"


def test_no_service_is_pinned_to_a_stable_without_a_pod() -> None:
    preparing = status(Phase.PREPARING, weight=0.0, attempt=attempt(baking_since=None))
    seen = observed(status=preparing, target=target(stable_ready=0), pins=Pins(), weight=Weight())

    assert done(seen) == Pin(), "they are not ready: that is what the release may be the remedy of"
    gone = replace(seen, target=target(stable_ready=0, runs_another=True))
    assert decide(gone, NOON).reason == "WaitingForStable"


def test_a_stable_whose_replicaset_was_made_again_under_another_name_is_still_stable() -> None:
    resting = status(Phase.IDLE, attempt=None, weight=0.0)
    renamed = target(settled_hash="h-again", settled_template_hash=OLD, runs_another=True)

    after = become(observed(status=resting, target=renamed, pins=Pins())).status

    assert after.stable is not None
    assert (after.phase, after.stable.hash, after.attempt) == (Phase.IDLE, "h-again", None)


def test_a_release_that_gets_stuck_gives_the_target_its_template_back() -> None:
    rolling = status(Phase.RELEASING, weight=50.0, attempt=attempt(releasing=True))
    stuck = become(observed(status=rolling, target=target(paused=False, roll_stuck="ProgressDeadlineExceeded"))).status
    off = stuck.with_attempt(resting_since=NOON - MINUTE)

    assert stuck.phase is Phase.ROLLING_BACK
    seen = observed(status=off, target=target(paused=False), weight=Weight(0.0, True, True, off.epoch))
    assert done(seen) == Restore()


def test_a_canary_that_goes_lets_go_of_an_edit_that_never_became_an_attempt() -> None:
    """The API server paused it, and the policies refused it or were not read: no status says that it is held."""
    resting = status(Phase.IDLE, attempt=None, weight=0.0, holding=False)
    going = observed(deleting=True, status=resting, weight=Weight(), canary=CanaryPods(), pins=Pins())

    assert done(replace(going, target=target(held=True))) == Restore()
    assert done(replace(going, target=target(held=True, template_hash=OLD))) == Release()


def going_back(**changes: Any) -> Observed:
    """Weight 0, drained and out of the route: the workload itself has still to go back."""
    ended = attempt(releasing=True, outcome=Outcome.ABORTED, resting_since=NOON - MINUTE, sealed_at=NOON - MINUTE)
    leaving = status(Phase.ROLLING_BACK, weight=0.0, attempt=ended)
    away = observed(status=leaving, weight=Weight(0.0, False, True), canary=CanaryPods(), pins=Pins())
    return replace(away, record=RecordSeen(True, 9), target=target(**changes))


@pytest.mark.parametrize("paused", [True, False])
def test_an_edit_that_comes_while_the_workload_goes_back_is_never_released_by_that(paused: bool) -> None:
    came = decide(going_back(template_hash=OTHER, paused=paused, settled_hash=""), NOON)

    assert isinstance(came, Do)
    assert came.action == Restore()
    assert "an edit that came meanwhile: apply that again" in came.message


def test_an_edit_held_beside_pods_that_are_all_stables_stays_held_and_is_tried_next() -> None:
    held = going_back(template_hash=OTHER)

    ended = become(held).status
    assert ended.phase is Phase.ROLLED_BACK
    assert become(replace(held, status=ended.but(head=Head(1)), record=RecordSeen(True, 9, "Aborted"))).reason == (
        "CandidateHeld"
    )


def test_stables_own_template_is_let_roll_on_the_way_back() -> None:
    assert done(going_back(template_hash=OLD)) == Release()
    assert decide(going_back(template_hash=OLD, paused=False, roll_complete=False), NOON).reason == "Restoring"
    stuck = going_back(template_hash=OLD, paused=False, roll_complete=False, roll_stuck="ProgressDeadlineExceeded")
    assert become(stuck).status.phase is Phase.ROLLED_BACK, "the next edit is not kept out for stable's own trouble"


def test_while_the_workload_goes_back_no_pod_of_the_canary_serves_behind_the_stable_service() -> None:
    """The pins are off since the release: an abort would leave the canary's pods in rotation for the whole roll."""
    back = target(template_hash=OLD, paused=False, roll_complete=False)
    rolls = replace(going_back(), target=back)
    pods = CanaryPods(True, "20260301-115000", wanted=2, ready=2, endpoints=2)
    serving = replace(rolls, canary=pods, pins=Pins())

    assert done(serving) == ApplyCanary(0)
    assert decide(replace(serving, canary=replace(pods, wanted=0)), NOON).reason == "Restoring"
    for waits in (
        replace(serving, target=replace(back, stable_ready=0)),
        replace(serving, pins=Pins(pinned=True, any_pin=True)),
        replace(serving, status=serving.status.with_attempt(resting_since=NOON - timedelta(seconds=1))),
    ):
        assert decide(waits, NOON) != decide(serving, NOON)
        assert decide(waits, NOON).reason == "Restoring"


def test_while_the_workload_rolls_a_canary_that_nobody_answers_for_is_taken_off_traffic() -> None:
    rolling = status(Phase.RELEASING, weight=50.0, attempt=attempt(releasing=True))
    half = Weight(50.0, True, True, rolling.epoch)
    two = CanaryPods(True, "20260301-115000", wanted=2, ready=2, endpoints=2)
    seen = observed(status=rolling, weight=half, pins=Pins(), target=target(paused=False), canary=two)

    assert decide(seen, NOON).reason == "Releasing"
    for gone in (replace(two, ready=0), replace(two, endpoints=0)):
        assert done(replace(seen, canary=gone)) == SetWeight(0.0)
    assert done(replace(seen, weight=replace(half, percent=100.0))) == SetWeight(50.0)


def test_while_the_workload_rolls_fresh_baseline_pods_that_answer_nobody_are_taken_off_traffic() -> None:
    rolling = status(Phase.RELEASING, weight=50.0, attempt=attempt(releasing=True))
    half = Weight(50.0, True, True, rolling.epoch)
    beside = CanaryPods(True, "20260301-115000", wanted=2, ready=2, endpoints=2)
    seen = observed(status=rolling, weight=half, pins=Pins(), target=target(paused=False), spec=FRESH, baseline=beside)
    seen = replace(seen, canary=replace(beside, wanted=4, ready=4, endpoints=4))

    assert decide(seen, NOON).reason == "Releasing"
    assert done(replace(seen, baseline=replace(beside, ready=0))) == SetWeight(0.0)


def test_no_service_is_pinned_to_few_pods_of_stable_while_others_carry_the_rest() -> None:
    """A way back that got stuck: one of four pods is stable's, and the fix is held and waits to be tried."""
    preparing = status(Phase.PREPARING, weight=0.0, attempt=attempt(baking_since=None))
    seen = observed(status=preparing, weight=Weight(), canary=CanaryPods(), pins=Pins())
    short = replace(seen, target=target(strays=True, stable_ready=1))

    waits = become(short).status
    assert (waits.phase, waits.reason) == (Phase.PREPARING, "WaitingForStable")
    assert "1 of 4 pods are stable's and ready" in waits.message
    assert done(replace(seen, target=target(strays=True))) == Pin()
    assert done(replace(short, status=preparing.with_attempt(promoted_by="ann"))) == Pin()


def test_a_held_edit_is_unpaused_only_after_the_pins_are_off() -> None:
    rolling = status(Phase.RELEASING, weight=50.0, attempt=attempt(releasing=True))

    assert done(observed(status=rolling)) == Unpin()
    assert done(observed(status=rolling, pins=Pins())) == Release()


def test_an_edit_that_was_not_held_is_paused_and_then_tried() -> None:
    """However often the hold was proven before: it is not in force, and some pods may run the edit already."""
    idle = status(Phase.IDLE, attempt=None, weight=0.0, holding=False)
    rolling = target(paused=False, settled_hash="", strays=True)

    said = become(observed(status=idle, target=rolling, pins=Pins()))
    assert (said.reason, said.status.phase) == ("EditNotHeld", Phase.IDLE)
    assert (said.status.edits_held, said.status.holding) == (False, True)
    assert done(observed(status=said.status, target=rolling, pins=Pins())) == PauseTarget()
    tried = become(observed(status=said.status, target=replace(rolling, paused=True), pins=Pins()))
    assert tried.reason == "CandidateHeld"
    assert tried.status.attempt is not None
    assert tried.status.attempt.unheld


@pytest.mark.parametrize("phase", [Phase.IDLE, Phase.ROLLED_BACK])
@pytest.mark.parametrize("why", ["stable is short of pods", "the policies refuse it"])
def test_an_edit_that_some_pods_run_is_tried_only_where_all_of_stables_serve_beside_them(
    phase: Phase, why: str
) -> None:
    """The Services would be pinned to the few that are left, or not at all while it waits."""
    resting = status(phase, attempt=None, weight=0.0, edits_held=False)
    slipped = observed(status=resting, target=target(strays=True, settled_hash=""), pins=Pins())
    short = replace(slipped, target=target(strays=True, settled_hash="", stable_ready=2))
    refused = replace(slipped, ruling=replace(ruling(), refusals=("PolicyRefused nobody vouches for it",)))
    seen = short if "short" in why else refused

    back = become(seen).status
    assert (back.phase, back.attempt and back.attempt.outcome) == (Phase.ROLLING_BACK, Outcome.WITHDRAWN)
    off = replace(seen, status=back.with_attempt(resting_since=NOON), weight=Weight(programmed=True))
    assert done(off) == Restore()
    assert become(slipped).reason == "CandidateHeld"
    proven = replace(seen, status=resting.but(edits_held=True))
    assert decide(proven, NOON).reason in {"CandidateHeld", "PolicyRefused"}, (
        "held, beside pods of a roll that is stuck"
    )


def test_at_rest_the_workload_rolls_back_before_it_is_paused_and_before_the_hold_is_proven() -> None:
    """Paused in mid-roll it would keep the pods that have to go."""
    idle = status(Phase.IDLE, attempt=None, weight=0.0, holding=False, edits_held=False, rests_paused=True)
    rolling = target(template_hash=OLD, paused=False, rests_paused=True, strays=True, settled_hash="")
    seen = observed(status=idle, target=rolling, pins=Pins())

    assert decide(seen, NOON).reason == "Restoring"
    assert done(replace(seen, target=replace(rolling, roll_stuck="ProgressDeadlineExceeded"))) == PauseTarget()
    assert done(replace(seen, target=replace(rolling, strays=False))) == PauseTarget()


def test_after_a_rollback_the_workload_is_not_paused_while_pods_of_the_rejected_revision_serve() -> None:
    """The way back missed its deadline, as with a node that comes late: Kubernetes goes on with it by itself."""
    rested = status(Phase.ROLLED_BACK, weight=0.0, rejected=NEW, rests_paused=True, holding=False)
    rested = rested.with_attempt(outcome=Outcome.ABORTED, baking_since=None)
    late = target(template_hash=OLD, paused=False, rests_paused=True, strays=True, settled_hash="", roll_stuck="late")
    seen = observed(status=rested, target=late, pins=Pins(), record=RecordSeen(True, 9, "Aborted"))

    assert not isinstance(decide(seen, NOON), Do)
    assert done(replace(seen, target=replace(late, strays=False))) == PauseTarget()


@pytest.mark.parametrize("phase", [Phase.PREPARING, Phase.PROGRESSING, Phase.ROLLED_BACK])
def test_one_that_is_unpaused_while_held_is_remembered_as_not_held_and_paused_again(phase: Phase) -> None:
    loose = observed(status=status(phase), target=target(paused=False), weight=Weight(programmed=True))

    known = become(loose).status
    assert not known.edits_held
    assert known.attempt is not None
    assert known.attempt.unheld is (phase is not Phase.ROLLED_BACK)
    assert done(replace(loose, status=known)) == PauseTarget()


def test_pods_that_slipped_out_are_taken_back_whoever_thought_that_edits_are_held() -> None:
    """Pins keep users from them only as long as the rollout lasts."""
    ended = attempt(outcome=Outcome.ROLLED_BACK, resting_since=NOON - MINUTE, sealed_at=NOON - MINUTE)
    back = observed(status=status(Phase.ROLLING_BACK, weight=0.0, attempt=ended), weight=Weight(programmed=True))
    slipped = replace(back, target=target(strays=True, settled_hash=""))

    known = become(slipped).status
    assert known.attempt is not None
    assert known.attempt.unheld
    assert done(replace(slipped, status=known)) == Restore()
    assert done(back) == DeleteCanary(), "where all are stable's, the rejected template stays held"


@pytest.mark.parametrize("phase", [Phase.PREPARING, Phase.PROGRESSING, Phase.RETREATED])
def test_an_edit_that_rolled_all_the_same_and_took_stables_pods_is_taken_back(phase: Phase) -> None:
    """The Services are pinned to pods that are few, or gone: nobody else would answer."""
    rests = {"resting_since": NOON - MINUTE, "baking_since": None} if phase is Phase.RETREATED else {}
    of = attempt(unheld=True, **rests)
    now = status(phase, attempt=of, weight=10.0 if phase is Phase.PROGRESSING else 0.0)
    carries = Weight(now.weight, True, True, now.epoch)
    few = observed(status=now, target=target(strays=True, settled_hash="", stable_ready=1), weight=carries)
    none = replace(few, target=target(strays=True, settled_hash="h-new", stable_ready=0, runs_another=True))

    for seen in (few, none):
        back = become(seen)
        assert (back.status.phase, back.reason) == (Phase.ROLLING_BACK, "EditNotHeld")
        assert back.status.attempt is not None
        assert back.status.attempt.outcome is Outcome.WITHDRAWN
    off = replace(none, status=become(none).status.with_attempt(resting_since=NOON), weight=Weight(programmed=True))
    assert done(off) == Unpin(), "whatever runs serves until stable's pods are there again"
    assert done(replace(off, pins=Pins())) == Restore()
    whole = replace(few, target=target(strays=True, settled_hash=""))
    assert decide(whole, NOON).reason != "EditNotHeld", "beside all of stable's it is tried"


def test_a_retreated_one_that_is_unpaused_is_paused_again_also_while_a_person_decides() -> None:
    retreats = (Judged(NOON, "inconclusive", "Tripped"),) * 3
    of = attempt(origin=Origin.HUMAN, retreats=retreats, resting_since=NOON - MINUTE, baking_since=None)
    seen = observed(status=status(Phase.RETREATED, attempt=of, weight=0.0), weight=Weight(0.0, True, True, "1.0"))

    assert decide(seen, NOON).reason == "RetreatedTooOften"
    loose = replace(seen, target=target(paused=False))
    assert done(replace(loose, status=become(loose).status)) == PauseTarget()


def test_a_workload_that_rolls_to_what_was_aborted_is_stopped_while_no_gateway_follows() -> None:
    """The route says 0 and stays there; what the stable Service serves hangs on the workload alone."""
    ended = attempt(outcome=Outcome.ABORTED, releasing=True, baking_since=None)
    leaving = status(Phase.ROLLING_BACK, weight=0.0, fence=1, attempt=ended)
    silent = Weight(0.0, True, False, leaving.epoch)
    rolling = target(paused=False, strays=True, settled_hash="")
    seen = observed(status=leaving, target=rolling, weight=silent, pins=Pins())

    assert done(seen) == Restore()
    assert done(replace(seen, weight=Weight(10.0, True, True, "1.0"))) == SetWeight(0.0), "before everything else"
    forbidden = Weight(problem="RouteForbidden", problem_message="no right", epoch=leaving.epoch)
    assert done(replace(seen, weight=forbidden)) == Restore()
    restored = replace(seen, target=replace(rolling, template_hash=OLD))
    assert decide(restored, NOON).reason == "RouteNotProgrammed"
    held = replace(seen, status=leaving.with_attempt(releasing=False), target=target())
    assert decide(held, NOON).reason == "RouteNotProgrammed", "one that is held stays as it is"


@pytest.mark.parametrize("weight", [0.0, 10.0])
def test_a_weight_that_something_held_back_is_raised_only_while_somebody_would_hear_of_a_fault(weight: float) -> None:
    waiting = status(weight=50.0, attempt=attempt(step=1, baking_since=None))
    canary = CanaryPods(True, "20260301-115000", wanted=2, ready=2, endpoints=2)
    seen = observed(status=waiting, canary=canary, weight=Weight(weight, True, True, waiting.epoch))
    deaf = replace(seen, verdict=Verdict(unheard="metric source default did not answer"))

    assert done(seen) == SetWeight(50.0)
    assert decide(deaf, NOON).reason == "MetricsUnavailable"
    assert done(replace(deaf, status=waiting.with_attempt(promoted_by="alice"))) == SetWeight(50.0)
    lower = Weight(60.0, True, True, waiting.epoch)
    assert done(replace(deaf, weight=lower)) == SetWeight(50.0)


@pytest.mark.parametrize("phase", [Phase.PREPARING, Phase.PROGRESSING])
def test_an_address_that_stays_behind_a_pinned_service_is_told_and_not_pinned_away_again_and_again(
    phase: Phase,
) -> None:
    found = Pins(any_pin=True, foreign=("vm-1",))
    seen = observed(status=status(phase), pins=found, weight=Weight(0.0 if phase is Phase.PREPARING else 10.0, True))

    told = decide(replace(seen, weight=replace(seen.weight, epoch=seen.status.epoch)), NOON)

    assert told.reason == "PinsLost"
    assert "hold vm-1 too" in told.message


def test_what_an_earlier_canary_of_the_name_left_goes_before_any_problem_is_told() -> None:
    fresh = Status(observed_generation=1)
    left = Weight(10.0, True, True, "3.1")
    seen = observed(status=fresh, weight=left, problems=("CanaryInRoute nobody answers",), has_finalizer=False)

    assert done(seen) == LeaveRoute()
    assert done(replace(seen, target=None)) == LeaveRoute()
    assert done(replace(seen, weight=Weight())) == Unpin()
    theirs = replace(seen, weight=replace(left, epoch=""), pins=Pins())
    assert decide(theirs, NOON).reason == "CanaryInRoute", "what Serin did not write is somebody's"


def test_pods_that_run_the_rejected_revision_are_taken_back_at_rest_too() -> None:
    resting = status(Phase.ROLLED_BACK, weight=0.0, rejected=NEW, attempt=attempt(outcome=Outcome.ROLLED_BACK))
    seen = observed(status=resting, pins=Pins(), record=RecordSeen(True, 9, "RolledBack"))

    assert decide(seen, NOON).reason == "RolledBack"
    assert done(replace(seen, target=target(strays=True, settled_hash=""))) == Restore()


@pytest.mark.parametrize("origin", ["ai", "unknown", "mixed"])
def test_the_third_retreat_rolls_back_a_change_nobody_vouches_for(origin: str) -> None:
    rested = attempt(origin=origin, retreats=(BAD,) * 3, resting_since=NOON - MINUTE, baking_since=None)
    seen = observed(status=status(Phase.RETREATED, attempt=rested, weight=0.0))
    seen = replace(seen, weight=Weight(0.0, True, True, seen.status.epoch))

    assert become(seen).reason == "RetreatedTooOften"
    assert become(seen).status.phase is Phase.ROLLING_BACK


def test_the_third_strike_counts_also_after_more_retreats_than_are_remembered() -> None:
    """Twenty are kept, and all of these were stable's own; what is forgotten excuses nothing any more."""
    from_stable = status(attempt=attempt(retreats=(BAD,) * 20, excused=20))
    tripped = observed(status=from_stable, verdict=Verdict(tripped=True, replace=True))

    for strikes in (1, 2, 3):
        gone = become(tripped).status
        assert gone.attempt is not None
        assert len(gone.attempt.retreats) - gone.attempt.excused == strikes
        tripped = replace(tripped, status=gone.but(phase=Phase.PROGRESSING, weight=from_stable.weight))


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


def test_nor_does_it_stay_on_traffic_unseen_while_something_keeps_it_from_the_next_step() -> None:
    """The step is passed, its requests go on, and a freeze stands before the next one."""
    blind = Verdict(no_data_since=NOON - 10 * MINUTE, unheard="no answer")
    between = status(weight=50.0, attempt=attempt(step=1, baking_since=None, entered_at=NOON - 10 * MINUTE))
    frozen = Frozen("stop", "f-1", OnStart.HOLD, "incident 7")
    seen = observed(status=between, verdict=blind, frozen=frozen, weight=Weight(10.0, True, True, between.epoch))

    assert become(seen).status.phase is Phase.ROLLING_BACK
    assert become(replace(seen, weight=replace(seen.weight, percent=0.0))).reason == "Frozen"
    assert become(replace(seen, status=between.with_attempt(entered_at=NOON - MINUTE))).reason == "Frozen"


def test_a_new_leader_writes_its_term_before_anything_else() -> None:
    after = become(observed(term=2, verdict=FAILS)).status

    assert after.leader_epoch == 2
    assert after.phase is Phase.PROGRESSING
    assert become(observed(status=after, term=2, verdict=FAILS)).status.phase is Phase.ROLLING_BACK


def test_a_status_of_a_newer_version_is_left_alone() -> None:
    newer = status(schema_version=99)

    decision = decide(observed(status=newer, verdict=FAILS, problems=("status: schemaVersion is 99",)), NOON)
    assert isinstance(decision, Wait)
    assert decision.reason == "NewerStatus"
    assert "wrote this status (status: schemaVersion is 99)" in decision.message, "whoever mends it needs the field"


ABORTED = (said(Verb.ABORT),)


@pytest.mark.parametrize(
    ("phase", "seen", "who"),
    [
        pytest.param(Phase.PENDING, {"decisions": ABORTED}, "alice", id="aborted"),
        pytest.param(Phase.PENDING, {"deleting": True}, "deleted", id="deleted"),
        pytest.param(Phase.ROLLING_BACK, {}, "its status", id="convicted by the newer one"),
        pytest.param(Phase.RETREATED, {}, "its status", id="retreated by the newer one"),
    ],
)
def test_who_wants_users_off_gets_that_whatever_wrote_the_status_and_once(
    phase: Phase, seen: dict[str, Any], who: str
) -> None:
    newer = status(phase, schema_version=NOT_OURS, leader_epoch=2)

    first = decide(observed(status=newer, weight=Weight(30.0, True, True, "1.1"), **seen), NOON)
    stamps = decide(observed(status=newer, weight=Weight(0.0, True, True, "1.1"), **seen), NOON)
    then = decide(observed(status=newer, weight=Weight(0.0, True, True, newer.epoch), **seen), NOON)

    assert isinstance(first, Do)
    assert (first.action, first.reason, who in first.message) == (SetWeight(0.0), "NewerStatus", True)
    assert isinstance(stamps, Do)
    assert isinstance(then, Wait)


@pytest.mark.parametrize("verb", sorted(set(Verb) - {Verb.ABORT}))
def test_nothing_else_that_people_say_moves_what_a_newer_version_began(verb: Verb) -> None:
    said = tuple(replace(one, verb=verb) for one in ABORTED)

    decision = decide(observed(status=status(Phase.PENDING, schema_version=NOT_OURS), decisions=said), NOON)

    assert isinstance(decision, Wait)


NEWER = ("analysis.mood",)


@pytest.mark.parametrize("phase", [Phase.PREPARING, Phase.PROGRESSING, Phase.RETREATED])
def test_a_rollout_that_a_newer_version_began_is_held_until_a_person_promotes(phase: Phase) -> None:
    rested = attempt(resting_since=NOON - 2 * REST, entered_at=NOON)

    promoted = msgspec.structs.replace(rested, promoted_by="alice")
    weight = replace(observed().weight, percent=10.0 if phase is Phase.PROGRESSING else 0.0)

    held = decide(observed(status=status(phase, attempt=rested), weight=weight, unknown=NEWER), NOON)
    goes_on = decide(observed(status=status(phase, attempt=promoted), weight=weight, unknown=NEWER), NOON)

    assert isinstance(held, Wait)
    assert (held.reason, "analysis.mood" in held.message) == ("NewerAnalysis", True)
    assert not isinstance(goes_on, Wait)


@pytest.mark.parametrize("verdict", [FAILS, TRIPS])
def test_what_is_known_of_a_newer_versions_analysis_still_takes_the_canary_off(verdict: Verdict) -> None:
    assert become(observed(unknown=NEWER, verdict=verdict)).status.weight == 0


def test_a_deleted_canary_gives_traffic_back_before_it_lets_go() -> None:
    after = become(observed(deleting=True)).status

    assert (after.phase, after.weight) == (Phase.ROLLING_BACK, 0.0)
    resting = status(Phase.ROLLED_BACK, weight=0.0)
    held = observed(deleting=True, status=resting, weight=Weight(), canary=CanaryPods(), pins=Pins())
    assert done(held) == Restore()


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param({"deleting": True}, id="deleted"),
        pytest.param({"decisions": ABORTED}, id="aborted"),
        pytest.param({"target": target(template_hash=OTHER)}, id="edited"),
        pytest.param({"target": None}, id="target gone"),
    ],
)
def test_whatever_ends_an_attempt_what_was_counted_until_then_is_remembered_with_it(seen: dict[str, Any]) -> None:
    counted = replace(PASSES, checkpoint={"n": 1}, canary_requests=321, canary_errors=2)

    after = become(observed(verdict=counted, **seen)).status
    blind = become(observed(status=status(attempt=attempt(canary_requests=200)), **seen)).status

    assert after.phase is Phase.ROLLING_BACK
    assert after.attempt is not None
    assert (after.attempt.canary_requests, after.attempt.canary_errors) == (321, 2)
    assert blind.attempt is not None
    assert blind.attempt.canary_requests == 200, "where the analysis says nothing, what was remembered stands"


def finished(**changes: Any) -> Observed:
    """Promoted: the target has rolled, and the canary is gone."""
    ended = attempt(outcome=Outcome.PROMOTED, resting_since=NOON - MINUTE, sealed_at=NOON - MINUTE, number=4)
    usual: dict[str, Any] = {
        "status": status(Phase.FINISHING, attempt=ended, weight=0.0),
        "target": target(paused=False, settled_hash="h-new", settled_template_hash=NEW, roll_complete=True),
        "weight": Weight(programmed=True),
        "canary": CanaryPods(),
        "pins": Pins(),
        "record": RecordSeen(exists=True),
    }
    return observed(**usual | changes)


def test_a_promotion_is_sealed_and_its_place_remembered_with_the_write_that_ends_it() -> None:
    sealed = RecordSeen(exists=True, outcome="Promoted", number=4, hash="sha256:4")

    assert done(finished()) == StoreRecord()
    after = become(finished(record=sealed))
    assert (after.status.phase, after.reason) == (Phase.IDLE, "Promoted")
    assert after.status.head == Head(4, "sha256:4")


def test_stable_remembers_that_a_rollout_passed_and_not_what_came_in_its_place() -> None:
    sealed = RecordSeen(exists=True, outcome="Promoted", number=4, hash="sha256:4")
    other = target(paused=False, settled_hash="h-other", settled_template_hash=OTHER, roll_complete=True)

    promoted, another = become(finished(record=sealed)).status, become(finished(record=sealed, target=other)).status

    assert promoted.stable is not None
    assert another.stable is not None
    assert (promoted.stable.promoted, another.stable.promoted) == (True, False)


SEALED = RecordSeen(exists=True, outcome="Promoted", number=4, hash="sha256:4")
AILING = target(paused=False, template_hash=NEW, settled_hash="", settled_template_hash="", roll_complete=False)
MADE_AGAIN = target(uid="uid-2", paused=False, settled_hash="h-new", settled_template_hash=NEW, roll_complete=True)


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param({"target": AILING, "deleting": True}, id="one pod is not available and the Canary goes"),
        pytest.param({"target": None, "deleting": True}, id="the namespace goes"),
        pytest.param({"target": None}, id="target gone"),
        pytest.param({"target": target(deleting=True)}, id="target going"),
        pytest.param({"target": MADE_AGAIN}, id="target made again"),
    ],
)
def test_a_promotion_is_sealed_and_ends_where_there_is_no_pod_to_wait_for(seen: dict[str, Any]) -> None:
    assert done(finished(**seen)) == StoreRecord()

    after = become(finished(**seen, record=SEALED)).status

    assert (after.phase, after.head.number) == (Phase.IDLE, 4)
    assert after.stable is not None
    assert after.stable.uid == "uid-1", "what was made again is looked at as that"
    assert decide(finished(target=AILING), NOON).reason == "WaitingForStable"


@pytest.mark.parametrize("paused_at_rest", [False, True])
def test_a_canary_that_goes_takes_nothing_back_that_was_promoted(paused_at_rest: bool) -> None:
    """Also where the pause at rest is the hold, and what has not settled is not remembered as stable."""
    going = finished(target=AILING, record=SEALED, deleting=True)
    going = replace(going, status=going.status.but(rests_paused=paused_at_rest))

    assert done(replace(going, status=become(going).status)) == RemoveFinalizer()


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize(
    "stopped",
    [
        {"frozen": Frozen("stop", "f-1", OnStart.HOLD, "incident 7")},
        {"verdict": Verdict(suffers="errors 9 %, bad on stable too")},
    ],
    ids=["freeze", "objective"],
)
def test_a_canary_that_goes_waits_for_nothing_that_stops_the_roll(paused: bool, stopped: dict[str, Any]) -> None:
    rolling = status(Phase.RELEASING, weight=50.0, attempt=attempt(releasing=True))
    half = Weight(50.0, True, True, rolling.epoch)
    going = observed(status=rolling, weight=half, pins=Pins(), target=target(paused=paused), deleting=True)

    after = become(replace(going, **stopped)).status
    assert (after.phase, after.weight) == (Phase.ROLLING_BACK, 0.0)
    assert after.attempt is not None
    assert after.attempt.outcome is Outcome.DELETED
    assert decide(going, NOON).reason == "Releasing", "else the vetted revision finishes"
    rolled = target(paused=False, settled_hash="h-new", settled_template_hash=NEW, roll_complete=True)
    assert done(replace(going, target=rolled, **stopped)) == SetWeight(0.0), "and so does one that has rolled"


def test_a_promotion_whose_record_cannot_be_read_rests_and_seals_it_before_the_next_edit_is_looked_at() -> None:
    promoted = become(finished(record=RecordSeen())).status
    edited = target(settled_hash="h-new", settled_template_hash=NEW, template_hash=OTHER)

    assert promoted.phase is Phase.IDLE
    assert done(finished(status=promoted, target=edited)) == StoreRecord()


def test_a_release_takes_all_traffic_to_stable_under_a_new_fence_before_it_is_remembered_as_ended() -> None:
    last = attempt(step=1, steps_seen=(StepSeen(1, 10.0, NOON), StepSeen(2, 50.0, NOON)))
    before = status(weight=50.0, attempt=last)
    serving = Weight(50.0, True, True, before.epoch)
    canary = CanaryPods(True, "20260301-115000", wanted=2, ready=2, endpoints=2)
    rolling = become(observed(status=before, weight=serving, canary=canary)).status
    rolled = target(paused=False, settled_hash="h-new", settled_template_hash=NEW, roll_complete=True)
    seen = observed(status=rolling, target=rolled, weight=serving, pins=Pins())

    assert rolling.phase is Phase.RELEASING
    assert rolling.epoch != before.epoch
    assert done(seen) == SetWeight(0.0)
    assert decide(replace(seen, weight=Weight(0.0, True, False, rolling.epoch)), NOON).reason == "RouteNotProgrammed"
    ended = become(replace(seen, weight=Weight(0.0, True, True, rolling.epoch))).status
    assert (ended.phase, ended.weight) == (Phase.FINISHING, 0.0)
    assert ended.attempt is not None
    assert (ended.attempt.outcome, ended.attempt.resting_since, ended.attempt.sealed_at) == (
        Outcome.PROMOTED,
        NOON,
        NOON,
    )


def test_the_first_step_is_recorded_with_the_second_and_nothing_is_released_unrecorded() -> None:
    first = attempt(step=0, steps_seen=(StepSeen(1, 10.0, NOON),))
    both = attempt(step=1, steps_seen=(StepSeen(1, 10.0, NOON), StepSeen(2, 50.0, NOON)))
    canary = CanaryPods(True, "20260301-115000", wanted=2, ready=2, endpoints=2)
    begun = RecordSeen(exists=True)

    assert become(observed(status=status(attempt=first), record=begun)).reason == "StepStarted"
    at_last = status(attempt=both, weight=50.0)
    seen = observed(status=at_last, weight=Weight(50.0, True, True, at_last.epoch), canary=canary, record=begun)
    assert done(seen) == StoreRecord()
    promoted = attempt(step=0, steps_seen=first.steps_seen, promoted_by="ann")
    assert done(observed(status=status(attempt=promoted), record=begun)) == StoreRecord()


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


def test_what_an_edit_still_waits_for_is_told_anew_though_the_reason_is_the_same() -> None:
    """Whoever brings the first statement reads which is missing next, and not the one that is there."""

    def waits(message: str, *, found: str) -> Decision:
        refused = replace(ruling(), refusals=(f"EvidenceMissing {found}",))
        idle = status(Phase.IDLE, attempt=None, holding=False, reason="EvidenceMissing", message=message)
        return decide(observed(status=idle, pins=Pins(), weight=Weight(), ruling=refused), NOON)

    assert isinstance(waits("no scan of it", found="no scan of it"), Wait)
    told = waits("no provenance of it", found="no scan of it")
    assert isinstance(told, Become)
    assert (told.status.phase, told.status.reason, told.status.message) == (
        Phase.IDLE,
        "EvidenceMissing",
        "no scan of it",
    )


LOOKED_UP = Evidence(images=(ImageSeen("shop:2", "sha256:index", ("sha256:amd64",)),))


@pytest.mark.parametrize(
    ("running", "waits"),
    [
        ((("shop:2", "sha256:index"),), False),
        ((("shop:2", "sha256:amd64"),), False),
        ((("proxy:7", "sha256:of-nobody"),), False),
        ((), False),
        ((("shop:2", "sha256:amd64"), ("shop:2", "sha256:moved")), True),
    ],
    ids=["the digest", "its platform's", "an image nobody looked up", "nothing reported", "one pod runs another"],
)
@pytest.mark.parametrize("phase", [Phase.PREPARING, Phase.PROGRESSING])
def test_no_weight_rises_while_a_node_runs_another_image_than_was_looked_up(
    phase: Phase, running: tuple[tuple[str, str], ...], waits: bool
) -> None:
    here = status(phase, attempt=attempt(evidence=LOOKED_UP))
    weight = replace(observed().weight, percent=10.0 if phase is Phase.PROGRESSING else 0.0)
    seen = observed(status=here, canary=replace(observed().canary, running=running), weight=weight)

    decision = decide(seen, NOON)

    assert (getattr(decision, "reason", "") == "ImageMismatch") is waits
    assert become(replace(seen, decisions=(said(Verb.ABORT),))).status.phase is Phase.ROLLING_BACK


def test_a_workload_that_was_made_again_is_recorded_as_destroyed() -> None:
    """Its selector may be another one, and whoever made it again went around the hold."""
    rejecting = status(Phase.IDLE, rejected=NEW)
    lost = become(observed(status=rejecting, target=target(uid="uid-2", paused=False))).status
    again = target(uid="uid-2", paused=False, template_hash=NEW, settled_hash="h-new", settled_template_hash=NEW)

    after = become(observed(status=lost, target=again, pins=Pins(), weight=Weight())).status

    assert after.attempt is not None
    assert (after.phase, after.attempt.outcome) == (Phase.IDLE, Outcome.UNJUDGED)
    assert after.rejected == "", "users are on it by now: a way back to it later is none to what was rejected"
    other = become(observed(status=lost.but(rejected=OTHER), target=again, pins=Pins(), weight=Weight())).status
    assert other.rejected == OTHER
    assert [one.name for one in after.attempt.classes] == ["destructive"]
