"""The state machine: one observation in, one decision out.

No clock, no network, no log: every move the controller can make on live traffic is on this page and
can be tested with plain values. The cases of every phase stand in order of urgency: get out, get
there, hold, move on. A turn changes memory (`Become`) or the world (`Do`), never both, so there is no
in-between for a crash to hit.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import msgspec

from controller.errors import SerinError
from controller.model.evidence import Origin
from controller.model.guarded import Gate
from controller.model.redact import redact
from controller.model.spec import Verb
from controller.model.status import ACTIVE, Attempt, Outcome, Phase, Status, StepSeen
from controller.model.world import DecisionSeen, Observed, Target, Weight
from controller.rollout.answers import answer, asks_for, closed_gates, get_out
from controller.rollout.attempts import (
    MADE_AGAIN,
    begin,
    checkpointed,
    convicted,
    head_of,
    retreated,
    stable_of,
    unjudged,
    with_pods,
)
from controller.rollout.frozen import frozen_out, held_by_freeze, is_held_back
from controller.rollout.moves import (
    SOON,
    AddFinalizer,
    ApplyCanary,
    Become,
    Decision,
    DeleteCanary,
    DeleteReplicaSet,
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
from controller.rollout.pods import (
    another_image,
    has_pods_from,
    has_trial_pods,
    nobody_answers,
    pods_beside,
    pods_for,
    size_baseline,
    wait_for_baseline,
    wait_for_pods,
    waited_for_since,
    was_scaled,
)
from controller.rollout.told import (
    how_it_ended,
    pins_reverted,
    reached_beside,
    route_reverted,
    target_missing,
    template_reapplied,
    told,
)

MARGIN = timedelta(seconds=1)
"""gateways obey up to 0.4 s after they report that they do (measured: 87 to 383 ms)"""
DRAIN = timedelta(seconds=2)
"""from weight 0 in force to the deletion of pods that may still answer"""
REPORTED_WITHIN = timedelta(minutes=1)
"""a gateway has reported what became of a route by then, or it is not its route"""
REST = timedelta(seconds=30)
"""the least time a retreated canary is off traffic"""
TROUBLE_GRACE = timedelta(seconds=20)
"""pods that cannot start get this long before the rule rolls back: pulls and quotas do recover"""
LOOK_AGAIN = timedelta(seconds=5)
"""so long after its correction a problem may still be shown, where a watch does not tell of it"""
ASK_AGAIN = timedelta(minutes=1)
"""the same where only the metrics server can tell"""
PROVED_SOON = timedelta(minutes=1)
"""a policy is in force some 20 s after the first installation"""
PROVED_AT_LAST = timedelta(minutes=5)
OF_SERVER = frozenset({"ErrorsNotCounted", "TemplateInvalid", "ThresholdNotABound"})
"""reasons that a look at what watches bring cannot find"""
DRIFT_WINDOW = timedelta(minutes=10)
DRIFTS = 3
RETREATS = 3
"""the third retreat of a rollout holds for a person, or rolls back where nobody vouches for the change"""
TOLD_AGAIN = 1.25
"""times the requests that were there when it was last said how many a certificate takes"""
CLOCK_SLACK = timedelta(seconds=5)
"""clocks of two leaders may differ by so much"""

REMEDY = "if this release is the remedy: kubectl canary promote"
LEFT_ALONE = (
    "another version of Serin wrote this status{why}, and this one moves nothing until that is back: upgrade. "
    "kubectl canary abort takes the canary off traffic all the same, and kubectl canary detach ends it"
)
STILL_ENDING = (
    "the canary Deployment of the attempt before is still being deleted: where that lasts, a finalizer of somebody "
    "else's or a pod on a dead node keeps it, and kubectl get deployment -o yaml shows which"
)
PROVING = (
    "asking the API server whether it holds an edit; where this lasts longer than a minute: is there a "
    "MutatingAdmissionPolicyBinding serin-hold, and does its namespaceSelector take this namespace?"
)
STABLE_GONE = (
    "no pod of stable's revision is left, and a Service pinned to it would reach nobody: one revision must have all "
    "pods, updated and available; or set the template back to stable's"
)
UNVOUCHED = frozenset({Origin.AI, Origin.UNKNOWN, Origin.MIXED})
ENDED_BADLY = frozenset({Outcome.ROLLED_BACK, Outcome.ABORTED, Outcome.REJECTED})


def decide(seen: Observed, now: datetime) -> Decision:
    """The one thing to do now."""
    return told(seen, _permits_ended(seen, _seen_to_its_end(seen, _decide(seen, now)), now), now)


def _seen_to_its_end(seen: Observed, decision: Decision) -> Decision:
    """Whoever or whatever ends an attempt, its record says how many of its requests were compared until then."""
    match decision:
        case Become(status=after, reason=reason, message=message) if (
            after.phase is Phase.ROLLING_BACK is not seen.status.phase
        ):
            return Become(checkpointed(seen, after), reason, message)
    return decision


def _permits_ended(seen: Observed, decision: Decision, now: datetime) -> Decision:
    """Where nothing else is to do, permits that have expired are taken back; the next end is waited for."""
    standing = tuple(one for one in seen.status.permits if now < one.until)
    if not isinstance(decision, Wait) or decision.reason in {"Left", "NewerStatus"} or not seen.status.permits:
        return decision
    if standing != seen.status.permits:
        return Become(seen.status.but(permits=standing), seen.status.reason or "PermitEnded", seen.status.message)
    ends = min(one.until for one in standing)
    return Wait(decision.reason, decision.message, min(decision.until or ends, ends))


def decide_refused(seen: Observed, error: SerinError, now: datetime) -> Decision:
    """What to remember of a move that a person's object, or a right that is missing, stands in the way of."""
    return told(seen, Wait(error.reason, str(error), now + LOOK_AGAIN), now)


def _decide(seen: Observed, now: datetime) -> Decision:
    status = seen.status
    if not status.is_ours:
        return _while_not_ours(seen)
    if status.phase in ACTIVE and status.leader_epoch < seen.term:
        return Become(status, "TookOver")
    if seen.spec is None and (status.phase in ACTIVE or not seen.deleting):
        # Without it neither target nor route can be found: what was not seen must not count as gone.
        return _problem(seen.problems, now) or Wait("InvalidSpec", "spec cannot be read", now + LOOK_AGAIN)
    if seen.deleting:
        return _while_leaving(seen, now)
    if (urgent := _said(seen, now, only=Verb.ABORT)) is not None:
        return urgent
    if (urgent := frozen_out(seen, now)) is not None:
        return urgent
    if (back := _clock_went_back(status, now)) is not None:
        return back
    match status.phase:
        case Phase.PENDING:
            return _while_pending(seen, now)
        case Phase.IDLE:
            return _while_idle(seen, now)
        case Phase.PREPARING:
            return _while_preparing(seen, now)
        case Phase.PROGRESSING:
            return _while_progressing(seen, now)
        case Phase.RETREATED:
            return _while_retreated(seen, now)
        case Phase.RELEASING:
            return _while_releasing(seen, now)
        case Phase.FINISHING:
            return _while_finishing(seen, now)
        case Phase.ROLLING_BACK:
            return _while_rolling_back(seen, now)
        case Phase.ROLLED_BACK:
            return _while_rolled_back(seen, now)


def _while_not_ours(seen: Observed) -> Decision:
    """Another Serin's status is neither guessed at nor changed; who wants users off the revision gets that at once."""
    status, weight = seen.status, seen.weight
    left_alone = LEFT_ALONE.format(why=f" ({seen.problems[0][:300]})" if seen.problems else "")
    aborts = [said for said in seen.decisions if said.verb is Verb.ABORT]
    if aborts:
        why = f"{aborts[0].by} aborted it"
    elif seen.deleting:
        why = "the Canary was deleted, or Serin uninstalled"
    else:
        why = "its status says so" if status.phase in {Phase.RETREATED, Phase.ROLLING_BACK} else ""
    # At weight 0 too: the stamp refuses the raise that a leader before us may have on its way.
    if why and (weight.percent > 0 or (_marked(weight) and weight.epoch != status.epoch)):
        return Do(
            SetWeight(0.0), "NewerStatus", f"all traffic goes to stable, since {why}; the rest waits: {left_alone}"
        )
    return Wait("NewerStatus", left_alone)


# -- at rest ------------------------------------------------------------------------------------------


def _while_pending(seen: Observed, now: datetime) -> Decision:
    """Adopt the target once it has exactly one settled revision. Nothing moves here."""
    status, target = seen.status, seen.target
    match target:
        # Of a Canary of this name whose finalizer was taken off, or that comes from a backup: a canary that is gone
        # has its part of the requests, and Services are pinned to a revision that may go at any time.
        case _ if seen.weight.epoch:
            return Do(LeaveRoute(), "CleaningUp", "an earlier Canary of this name left its entries in the route")
        case _ if seen.pins.any_pin:
            return Do(Unpin(), "CleaningUp", "an earlier Canary of this name left its pins on Services")
        case None:
            return Wait("TargetMissing", target_missing(seen))
        case _ if problem := _problem((*seen.problems, *target.problems), now):
            return problem
        case _ if not seen.has_finalizer:
            return Do(AddFinalizer(), "Adopting")
        case Target(has_pods=False):
            if status.unjudged:
                return Wait("NoPodsYet", "the first release goes out unjudged")
            return Become(status.but(unjudged="first release: the workload had no pods yet"), "NoPodsYet")
        case Target(settled_hash=""):
            return Wait("WaitingForStable", "one revision must have all pods, updated and available")
    adopted = status.but(
        phase=Phase.IDLE, stable=stable_of(target), edits_held=False, holding=False, unjudged="", unjudged_unless=""
    )
    if status.rejected == target.settled_template_hash:
        # Made again with it: users are on it, and whoever goes back to it later must be let.
        adopted = adopted.but(rejected="")
    if status.unjudged and target.settled_template_hash != status.unjudged_unless:
        adopted = adopted.but(attempt=unjudged(target, seen, status.unjudged, now))
    return Become(adopted, "Adopted", f"stable is {target.settled_hash}")


def _while_idle(seen: Observed, now: datetime) -> Decision:
    """Keep edits held; a held edit is a candidate and begins an attempt."""
    status, target, stable = seen.status, seen.target, seen.status.stable
    if (first := _unrecorded(seen)) is not None:
        return first
    if (again := _lost_target(seen)) is not None:
        return again
    assert target is not None
    assert stable is not None
    same = target.template_hash == stable.template_hash
    match target:
        case _ if (said := _said(seen, now)) is not None:
            return said
        case _ if not seen.has_finalizer:
            return Do(AddFinalizer(), "Adopting")
        case _ if seen.pins.any_pin:
            return Do(Unpin(), "CleaningUp")
        case _ if problem := _problem((*seen.problems, *target.problems), now):
            return problem
        case _ if same and target.rests_paused is not status.rests_paused:
            # The other hold from now on: a pause that was to stay is one to take off again.
            was_ours = status.holding or status.rests_paused
            changed = status.but(rests_paused=target.rests_paused, holding=was_ours, edits_held=False)
            return Become(changed, "Idle", "edits are held in another way from now on")
        case Target(paused=False, strays=True, roll_complete=False, roll_stuck="") if same:
            # Paused now it would keep them, and what came now would find the fewer of stable's.
            return Wait("Restoring", "the workload rolls back by its own strategy", now + SOON)
        case Target(paused=False) if same and status.rests_paused:
            return Do(PauseTarget(), "PausedAtRest", "this cluster has no MutatingAdmissionPolicy: paused at rest")
        case Target(paused=True) if same and (status.holding or target.held) and not status.rests_paused:
            return Do(Release(), "Withdrawn", "the template is stable's again")
        case Target(paused=True) if same and not status.rests_paused:
            return Wait("TargetPaused", "spec.paused of the Deployment is true, and not by Serin: set it to false")
        case _ if same and status.holding:
            return Become(status.but(holding=False), "Idle")
        case _ if same and not status.edits_held and seen.hold_proven:
            return Become(status.but(edits_held=True), "Idle", "edits are held: proven by a dry run")
        case _ if same and not status.edits_held:
            return Wait("ProvingHold", PROVING, _proved_again(status, now))
        case _ if same and seen.outlook is not None:
            return Become(status.but(outlook=seen.outlook), status.reason or "Idle", status.message)
        case _ if same:
            # How the last rollout ended says more than that nothing happens, and is no news a second time.
            return Wait(status.reason, status.message) if status.reason in set(Outcome) else Wait("Idle")
        case _ if (out := _went_out_unheld(seen, target, now)) is not None:
            return out
        case Target(paused=True, strays=True) if target.template_hash == status.rejected:
            return _reapplied(seen, now)
        case Target(paused=True) if target.template_hash == status.rejected:
            return Become(status.but(phase=Phase.ROLLED_BACK, holding=True), "RolledBack", "rejected before")
        case Target(paused=True):
            return _tried(seen, target, now)
    return _not_held(seen, "the edit was not held by the API server: paused now")


def _while_rolled_back(seen: Observed, now: datetime) -> Decision:
    """At rest: the rejected template stays held until it is edited, set back or retried."""
    status, target, stable = seen.status, seen.target, seen.status.stable
    if (first := _unrecorded(seen)) is not None:
        return first
    if (again := _lost_target(seen)) is not None:
        return again
    assert target is not None
    assert stable is not None
    same = target.template_hash == stable.template_hash
    rejected = target.template_hash == status.rejected
    match target:
        case _ if (said := _said(seen, now)) is not None:
            return said
        case Target(paused=True) if same and not status.rests_paused:
            return Do(Release(), "Withdrawn", "the template is stable's again")
        case _ if same and status.holding:
            return Become(status.but(phase=Phase.IDLE, holding=False), "Idle", "the template is stable's again")
        case Target(paused=False, strays=False) if same and status.rests_paused:
            return Do(PauseTarget(), "PausedAtRest", "this cluster has no MutatingAdmissionPolicy: paused at rest")
        case _ if not same and (out := _went_out_unheld(seen, target, now)) is not None:
            return out
        case Target(paused=False) if not same:
            return _not_held(seen, "unpaused while held")
        case Target(strays=True) if rejected:
            return _reapplied(seen, now)
        case _ if not same and not rejected and (problem := _problem((*seen.problems, *target.problems), now)):
            return problem
        case _ if not same and not rejected:
            return _tried(seen, target, now)
    if status.reason == "TemplateReapplied":
        # It stands until something else is so: the tool may come again any moment.
        return Wait(status.reason, status.message)
    return Wait("RolledBack", how_it_ended(status))


def _reapplied(seen: Observed, now: datetime) -> Decision:
    """The rejected template, while pods of it are left: it gets stable's each time. Where it had that already, who
    brings the other is told, once in a while, for a tool may do so every second."""
    status, attempt = seen.status, seen.status.attempt
    again = attempt is not None and (attempt.releasing or attempt.unheld or status.phase is Phase.IDLE)
    last = attempt.reapplied_at if attempt else None
    if not again or status.reason == "EditNotHeld" or (last is not None and now < last + DRIFT_WINDOW):
        return Do(Restore(), "Restoring", "some pods run the rejected revision: the workload gets stable's template")
    return Become(status.with_attempt(reapplied_at=now), "TemplateReapplied", template_reapplied(seen, now))


def _while_leaving(seen: Observed, now: datetime) -> Decision:
    """The Canary is being deleted: traffic to stable and verified, nothing held, nothing of ours left."""
    status, target, stable = seen.status, seen.target, seen.status.stable
    if status.phase is Phase.RELEASING and not _is_stopped(seen, now):
        return _while_releasing(seen, now)
    if status.phase is Phase.FINISHING:
        return _while_finishing(seen, now)
    if status.phase is Phase.ROLLING_BACK:
        return _while_rolling_back(seen, now)
    if status.phase in ACTIVE:
        return Become(get_out(status, Outcome.DELETED, "the Canary was deleted, or Serin uninstalled", now), "Deleted")
    held = (
        target is not None
        and stable is not None
        and (status.holding or status.rests_paused or target.held)
        and target.uid == stable.uid
        and not target.deleting
    )
    match seen:
        case _ if seen.weight.percent > 0:
            return Do(SetWeight(0.0), "Leaving")
        case _ if _marked(seen.weight):
            return Do(LeaveRoute(), "Leaving")
        case _ if held and target and stable and target.template_hash != stable.template_hash:
            return Do(Restore(), "Leaving", "the held template is set back to stable's")
        case _ if held and target and target.paused:
            return Do(Release(), "Leaving")
        case _ if has_trial_pods(seen):
            return Do(DeleteCanary(), "Leaving")
        case _ if seen.pins.any_pin:
            return Do(Unpin(), "Leaving")
        case _ if seen.record.exists and not seen.record.outcome and status.attempt and status.attempt.outcome:
            return Do(StoreRecord(), "Recording")
        case _ if seen.has_finalizer and seen.uninstalled and status.reason != "Left":
            # From here on the API server holds no edit of its target: nobody would be left to let it go.
            left = status.but(edits_held=False, holding=False)
            return Become(left, "Left", "nothing is held, and all traffic goes as the owner wrote it")
        case _ if seen.has_finalizer:
            return Do(RemoveFinalizer(), "Left")
    return Wait("Left")


# -- a rollout ----------------------------------------------------------------------------------------


def _while_preparing(seen: Observed, now: datetime) -> Decision:
    """Record, pins, canary pods; no traffic until all of it stands."""
    status, target = seen.status, seen.target
    if (out := _left_behind(seen, now)) is not None:
        return out
    if (said := _said(seen, now)) is not None:
        return said
    assert target is not None
    assert status.attempt is not None
    wanted = pods_for(status.attempt.here.weight, target.replicas)
    match seen:
        case _ if seen.weight.percent > 0:
            return Do(
                SetWeight(0.0), "WeightTooHigh", f"found {seen.weight.percent:g} % before the first step: taken off"
            )
        case _ if not target.paused:
            return _not_held(seen, "unpaused while held")
        case _ if problem := _problem((*seen.problems, *seen.pins.problems), now):
            return problem
        case _ if not seen.record.exists:
            return Do(StoreRecord(), "Recording")
        case _ if (held := held_by_freeze(seen, now)) is not None:
            return held
        case _ if (newer := _asks_for_more(seen, now)) is not None:
            return newer
        case _ if gates := closed_gates(status, 0, now, seen.revoked):
            return Wait("AwaitingApproval", asks_for(status, gates[0], now, seen.revoked))
        case _ if target.stale_replicasets:
            return Do(DeleteReplicaSet(target.stale_replicasets[0]), "Preparing")
        case _ if not seen.pins.pinned and target.runs_another:
            return Wait("WaitingForStable", STABLE_GONE, now + SOON)
        case _ if not seen.pins.pinned and _would_lose_pods(target) and not status.attempt.promoted_by:
            return Wait(
                "WaitingForStable",
                f"{target.stable_ready} of {target.replicas} pods are stable's and ready, and others run another "
                "revision: pinned, the Services would reach those few alone. kubectl canary abort puts stable's "
                "template back; promote begins all the same",
                now + SOON,
            )
        case _ if seen.pins.foreign:
            return Wait("PinsLost", reached_beside(seen), now + SOON)
        case _ if not seen.pins.pinned:
            return Do(Pin(), "Pinning")
        case _ if seen.canary.deleting:
            return Wait("Preparing", STILL_ENDING, now + SOON)
        case _ if seen.canary.attempt != status.attempt.id or seen.canary.wanted != wanted or seen.canary.unserved:
            return Do(ApplyCanary(wanted), "StartingPods")
        case _ if (sized := size_baseline(seen, now)) is not None:
            return sized
        case _ if seen.canary.serving < wanted:
            return wait_for_pods(seen, now)
        case _ if (late := wait_for_baseline(seen, now)) is not None:
            return late
        case _ if other := another_image(seen, status.attempt):
            return Wait("ImageMismatch", other, now + SOON)
        case _ if seen.weight.problem:
            return Wait(seen.weight.problem, seen.weight.problem_message, now + SOON)
        case _ if not seen.weight.present:
            return Do(SetWeight(0.0), "JoiningRoute")
        case _ if not seen.weight.programmed:
            return Wait("RouteNotProgrammed", "no gateway reports this route yet", now + SOON)
        case _ if seen.verdict.unheard and not status.attempt.promoted_by:
            return Wait("MetricsUnavailable", f"no request goes there unwatched: {seen.verdict.unheard}", now + SOON)
    return Become(
        status.but(
            phase=Phase.PROGRESSING, weight=status.attempt.here.weight, outlook=seen.outlook or status.outlook
        ).with_attempt(entered_at=now),
        "StepStarted",
    )


def _while_progressing(seen: Observed, now: datetime) -> Decision:
    """Climb the plan."""
    status, target, verdict, weight = seen.status, seen.target, seen.verdict, seen.weight
    if (out := _left_behind(seen, now)) is not None:
        return out
    assert target is not None
    assert status.attempt is not None
    attempt, step = status.attempt, status.attempt.here
    wanted = pods_for(step.weight, target.replicas)
    unseen = _no_data_for(seen, now)
    # The stamp says that this weight was written; a tool that reverts at once must not be fought for ever.
    reverted = not weight.present and (attempt.baking_since is not None or weight.epoch == status.epoch)
    match seen:
        # get out
        case _ if verdict.fail:
            return _convicted(seen, now)
        case _ if weight.percent > status.weight:
            return Do(SetWeight(status.weight), "WeightTooHigh", f"found {weight.percent:g} %: lowered at once")
        case _ if verdict.tripped and seen.spec and seen.spec.analysis.on_trip == "rollback":
            return _convicted(seen, now)
        case _ if verdict.tripped:
            return Become(
                retreated(seen, "Tripped", now), "Retreated", verdict.judged.message if verdict.judged else ""
            )
        case _ if weight.percent > 0 and not seen.canary.serving:
            nobody = nobody_answers(seen.canary)
            return Become(retreated(seen, "CanaryNotReady", now, nobody), "Retreated", nobody)
        case _ if weight.percent > 0 and pods_beside(seen) and not seen.baseline.serving:
            nobody = "no pod of the fresh baseline is ready"
            return Become(retreated(seen, "BaselineNotReady", now, nobody), "Retreated", nobody)
        case _ if unseen and attempt.no_data == "RollBack":
            message = f"no data for {unseen:.0f} s, and the change is {attempt.origin}: {verdict.need}"
            return Become(get_out(status, Outcome.ROLLED_BACK, message, now), "NoData", message)
        case _ if (said := _said(seen, now)) is not None:
            return said
        # get there
        case _ if not target.paused:
            return _not_held(seen, "unpaused while held")
        case _ if weight.problem:
            return Wait(weight.problem, weight.problem_message, now + SOON)
        case _ if weight.epoch != status.epoch and weight.present:
            return Do(SetWeight(min(weight.percent, status.weight)), "TakingOver")
        case _ if seen.pins.problems:
            return Wait("PinsLost", seen.pins.problems[0], now + SOON)
        case _ if seen.pins.foreign:
            return Wait("PinsLost", reached_beside(seen), now + SOON)
        case _ if not seen.pins.pinned and attempt.baking_since is not None and not _often(attempt.unpinned, now):
            recent = (*attempt.unpinned[-DRIFTS:], now)
            again = status.with_attempt(baking_since=None, entered_at=now, unpinned=recent)
            return Become(again, "PinsReverted", pins_reverted(seen))
        case _ if not seen.pins.pinned:
            # Also while it holds: without a pin the stable Service reaches the canary's pods, whatever the weight.
            return Do(Pin(), "Pinning")
        case _ if _often(attempt.unpinned, now) and attempt.baking_since is None:
            return Wait("PinsReverted", pins_reverted(seen), now + SOON)
        case _ if reverted and _often(attempt.drifts, now):
            return Wait("RouteReverted", route_reverted(seen), now + DRIFT_WINDOW)
        case _ if reverted:
            # A new fence, so that the weight written next is told from the one that was taken off.
            recent = (*attempt.drifts[-DRIFTS:], now)
            fenced = status.but(fence=status.fence + 1).with_attempt(baking_since=None, entered_at=now, drifts=recent)
            return Become(fenced, "TrafficMoved", route_reverted(seen))
        case _ if attempt.baking_since and weight.percent < status.weight:
            return Wait(
                "TrafficLowered",
                f"somebody lowered the weight to {weight.percent:g} %: kubectl canary resume takes it up again",
            )
        # hold
        case _ if (held := held_by_freeze(seen, now)) is not None:
            return held
        case _ if (newer := _asks_for_more(seen, now)) is not None:
            return newer
        case _ if attempt.paused:
            return Wait("Paused", "no raise until kubectl canary resume")
        case _ if target.stable_ready < attempt.stable_floor and not attempt.promoted_by:
            return _too_small(status, target.stable_ready, attempt.stable_floor, now)
        case _ if other := another_image(seen, attempt):
            return Wait("ImageMismatch", other, now + SOON)
        case _ if verdict.mismatch:
            return Wait("TrafficMismatch", verdict.mismatch, now + SOON)
        case _ if verdict.suffers and not attempt.promoted_by:
            return Wait("BothArmsSuffer", f"{verdict.suffers}; {REMEDY}", now + SOON)
        # move on
        case _ if seen.canary.wanted != wanted or seen.canary.unserved:
            return Do(ApplyCanary(wanted), "ScalingCanary")
        case _ if (sized := size_baseline(seen, now)) is not None:
            return sized
        case _ if seen.canary.serving < wanted and attempt.baking_since is not None and was_scaled(seen, now):
            return Wait("ScalingCanary", "the target has grown, and the canary with it: its new pods start", now + SOON)
        case _ if seen.canary.serving < wanted and attempt.baking_since is not None:
            # They were ready: the deadline counts from when they no longer were, and the bake begins anew.
            lost = status.with_attempt(baking_since=None, entered_at=now)
            return Become(lost, "CanaryNotReady", f"{seen.canary.ready} of {wanted} canary pods are ready")
        case _ if seen.canary.serving < wanted:
            return wait_for_pods(seen, now)
        case _ if (late := wait_for_baseline(seen, now)) is not None:
            return late
        case _ if verdict.unheard and weight.percent < status.weight and not attempt.promoted_by:
            # A freeze or anything else that held may have stood between the step's data and its raise.
            return Wait("MetricsUnavailable", f"nothing is raised unwatched: {verdict.unheard}", now + SOON)
        case _ if weight.percent != status.weight or not weight.present:
            return Do(SetWeight(status.weight), "StepStarted", f"{status.weight:g} %")
        case _ if not weight.programmed:
            return Wait("RouteNotProgrammed", "no gateway reports this weight yet", now + SOON)
        case _ if status.weight < step.weight and verdict.fresh and verdict.limit > status.weight:
            return Become(
                status.but(weight=step.weight).with_attempt(baking_since=None, entered_at=now),
                "Climbing",
                f"the small weight of the return has shown nothing: {step.weight:g} % again",
            )
        case _ if attempt.baking_since is None:
            arrived = StepSeen(attempt.step + 1, status.weight, now)
            return Become(
                status.with_attempt(baking_since=now + MARGIN, steps_seen=(*attempt.steps_seen[-99:], arrived)),
                "Baking",
                f"{status.weight:g} % of requests reach the canary",
            )
        case _ if seen.record.steps < len(attempt.steps_seen) and _is_to_be_recorded(attempt):
            return Do(StoreRecord(), "Recording")
        case _ if status.weight < step.weight and not verdict.fresh and not attempt.promoted_by:
            return Wait("NoData", verdict.need, now + SOON)
        case _ if status.weight < step.weight and not attempt.promoted_by:
            return Wait("Returning", f"{status.weight:g} % until it has shown nothing for a while", now + SOON)
        case _ if not attempt.promoted_by and now < _baked_at(seen, attempt):
            return Wait("Baking", until=_baked_at(seen, attempt))
        case _ if not attempt.promoted_by and not verdict.fresh:
            return Wait("NoData", verdict.need, now + SOON)
        case _ if not attempt.promoted_by and not verdict.enough:
            return Wait(verdict.lacks, verdict.need, now + SOON)
        case _ if not attempt.promoted_by and verdict.unproven:
            return Wait("PodsTooYoung", verdict.unproven, now + SOON)
        case _ if verdict.advice and not attempt.promoted_by and not attempt.overruled:
            return _advised(seen, verdict.advice, now)
        case _ if _asks_certificate(seen, attempt) and verdict.uncertified:
            return _not_certified(seen, attempt, now)
        case _ if (gate := _closed_gate(seen, attempt, now)) is not None:
            return Wait("AwaitingApproval", asks_for(status, gate, now, seen.revoked))
        case _ if attempt.is_last_step or attempt.promoted_by:
            return Become(
                checkpointed(seen)
                .but(phase=Phase.RELEASING, fence=status.fence + 1)
                .with_attempt(entered_at=now, releasing=True, baking_since=None),
                "Releasing",
                "every gate is passed: the workload rolls by its own strategy",
            )
    following = attempt.plan[attempt.step + 1]
    return Become(
        checkpointed(seen)
        .but(weight=following.weight)
        .with_attempt(step=attempt.step + 1, baking_since=None, entered_at=now),
        "StepStarted",
        f"step {attempt.step + 1} passed",
    )


def _while_retreated(seen: Observed, now: datetime) -> Decision:
    """Weight 0, a rest, and back; the bucket decides meanwhile whether the revision is bad."""
    status, target, verdict = seen.status, seen.target, seen.verdict
    if seen.target is None and seen.weight.percent > 0:
        # Nothing but the route was read, so that nothing stands before the way out.
        return Do(SetWeight(0.0), "TrafficToStable")
    if (out := _left_behind(seen, now)) is not None:
        return out
    assert target is not None
    assert status.attempt is not None
    attempt = status.attempt
    wanted = pods_for(attempt.here.weight, target.replicas)
    match seen:
        case _ if (off := _off_traffic(seen, now)) is not None:
            return off
        case _ if verdict.fail:
            return _convicted(seen, now)
        case _ if len(attempt.retreats) - attempt.excused >= RETREATS and attempt.origin in UNVOUCHED:
            message = f"retreated {len(attempt.retreats)} times, and the change is {attempt.origin}"
            return Become(get_out(status, Outcome.ROLLED_BACK, message, now), "RetreatedTooOften", message)
        case _ if (said := _said(seen, now)) is not None:
            return said
        case _ if not target.paused:
            return _not_held(seen, "unpaused while held")
        case _ if seen.pins.problems:
            return Wait("PinsLost", seen.pins.problems[0], now + SOON)
        case _ if not seen.pins.pinned:
            # As while it climbs: weight 0 keeps nobody from pods that the stable Service selects.
            return Do(Pin(), "Pinning")
        case _ if len(attempt.retreats) - attempt.excused >= RETREATS:
            return Wait("RetreatedTooOften", "a person decides: kubectl canary resume or abort")
        case _ if (held := held_by_freeze(seen, now)) is not None:
            return held
        case _ if (newer := _asks_for_more(seen, now)) is not None:
            return newer
        case _ if attempt.paused:
            return Wait("Paused", "no raise until kubectl canary resume")
        case _ if attempt.replacing and attempt.resting_since and now < attempt.resting_since + DRAIN:
            return Wait("Draining", "requests under way are answered first", attempt.resting_since + DRAIN)
        case _ if attempt.replacing and attempt.resting_since and has_pods_from(seen, attempt.resting_since, now):
            if not seen.weight.programmed and not seen.weight.problem:
                return Wait("RouteNotProgrammed", "no gateway reports weight 0 again yet", now + SOON)
            if seen.canary.replaced == status.epoch:
                return Wait("ReplacingPods", "fresh pods tell a bad revision from a bad pod", now + SOON)
            return Do(ReplacePods(), "ReplacingPods", "fresh pods tell a bad revision from a bad pod")
        case _ if attempt.resting_since and now < attempt.resting_since + REST:
            return Wait("Resting", "off traffic after a retreat; it comes back", attempt.resting_since + REST)
        case _ if verdict.suffers and not attempt.promoted_by:
            return Wait("BothArmsSuffer", f"{verdict.suffers}; {REMEDY}", now + SOON)
        case _ if verdict.young:
            return Wait("Resting", "its pods failed while young: they come back when they are not", now + SOON)
        case _ if seen.canary.wanted != wanted or seen.canary.unserved:
            return Do(ApplyCanary(wanted), "ScalingCanary")
        case _ if (sized := size_baseline(seen, now)) is not None:
            return sized
        case _ if seen.canary.serving < wanted:
            return wait_for_pods(seen, now)
        case _ if (late := wait_for_baseline(seen, now)) is not None:
            return late
        case _ if verdict.unheard and not attempt.promoted_by:
            return Wait("NoData", f"the weight does not come back unwatched: {verdict.unheard}", now + SOON)
    return Become(
        status.but(phase=Phase.PROGRESSING, weight=min(attempt.here.weight, verdict.limit)).with_attempt(
            resting_since=None, baking_since=None, entered_at=now, replacing=False, retreats=with_pods(seen, attempt)
        ),
        "Returned",
        "the rest is over: the weight comes back and the step's bake starts again",
    )


def _while_releasing(seen: Observed, now: datetime) -> Decision:
    """The target rolls to a vetted template by its own strategy; hard rules and objectives are what is left."""
    status, target, suffers = seen.status, seen.target, _misses_objective(seen)
    assert status.attempt is not None
    if target is None or target.deleting or (status.stable and target.uid != status.stable.uid):
        return Become(get_out(status, Outcome.ABORTED, target_missing(seen), now), "TargetMissing")
    if (other := _another_template(seen, target, now)) is not None:
        return other
    match target:
        case _ if seen.weight.percent > status.weight:
            return Do(SetWeight(status.weight), "WeightTooHigh", f"found {seen.weight.percent:g} %: lowered at once")
        case _ if seen.weight.percent > 0 and not seen.canary.serving:
            return Do(SetWeight(0.0), "CanaryNotReady", f"{nobody_answers(seen.canary)}: stable's serve the rest")
        case _ if seen.weight.percent > 0 and pods_beside(seen) and not seen.baseline.serving:
            return Do(SetWeight(0.0), "BaselineNotReady", f"{nobody_answers(seen.baseline)}: stable's serve the rest")
        case Target(roll_stuck=why) if why:
            return Become(get_out(status, Outcome.ROLLED_BACK, f"the roll got stuck: {why}", now), "RollStuck")
        case _ if (said := _said(seen, now)) is not None:
            return said
        case _ if is_held_back(seen, now) and not target.paused and not target.roll_complete:
            return Do(PauseTarget(), "Frozen", "the roll stops where it is")
        case _ if target.paused and (held := held_by_freeze(seen, now)) is not None:
            return held
        case _ if suffers and not target.paused and not target.roll_complete:
            return Do(PauseTarget(), "ObjectiveMissed", f"the roll stops where it is: {suffers}")
        case _ if suffers and target.paused:
            goes_on = "it goes on when that has ended; or kubectl canary resume, or abort, which rolls back"
            return Wait("ObjectiveMissed", f"the roll stands where it is: {suffers}; {goes_on}", now + SOON)
        case _ if not seen.record.exists:
            # One that cannot be written keeps the roll from beginning, and not a stop from being carried out.
            return Do(StoreRecord(), "Recording")
        case _ if seen.pins.any_pin:
            return Do(Unpin(), "Releasing")
        case _ if target.paused:
            return Do(Release(), "Releasing")
        case Target(roll_complete=False):
            return Wait("Releasing", "the workload rolls by its own strategy", now + SOON)
    # Either arm runs the new revision now, so nothing hangs on the order: one write remembers the end and weight 0.
    off = _off_traffic(seen, now)
    if isinstance(off, Do | Wait):
        return off
    return Become(
        (off.status if off else status)
        .but(phase=Phase.FINISHING, weight=0.0)
        .with_attempt(
            outcome=Outcome.PROMOTED,
            outcome_message="every pod runs the new revision",
            entered_at=now,
            sealed_at=status.attempt.sealed_at or now,
        ),
        "Finishing",
    )


def _while_finishing(seen: Observed, now: datetime) -> Decision:
    """The target is the new stable: all traffic on it, canary objects away, outcome sealed."""
    status, target, stable = seen.status, seen.target, seen.status.stable
    assert status.attempt is not None
    match seen:
        case _ if (off := _off_traffic(seen, now)) is not None:
            return off
        case _ if (out := _taken_down(seen, now)) is not None:
            return out
    ours = target is not None and not target.deleting and (stable is None or target.uid == stable.uid)
    # Traffic is on the Service, and what was ours is gone: whoever leaves waits for no pod, and a lost target has none.
    # With another edit held, what was promoted must be known as stable first, or the one before would be put back.
    keeps = target is not None and target.paused and target.template_hash != status.attempt.template_hash
    if target is not None and ours and not target.settled_hash and (keeps or not seen.deleting):
        why = "the new revision must have all pods, updated and available"
        return Wait("WaitingForStable", f"{why}; kubectl canary abort goes back to the one before", now + SOON)
    if seen.record.exists and not seen.record.outcome:
        # Here and not at rest: its place in the chain is remembered in the write that ends the rollout.
        return Do(StoreRecord(), "Recording")
    # Whether edits are held hangs on the workload's uid, which stays; a pause at rest is off, and comes back first.
    held = status.edits_held and not status.rests_paused
    head = head_of(seen) if seen.record.outcome else status.head
    ended = status.but(phase=Phase.IDLE, head=head, holding=False, rejected="", edits_held=held)
    if target is not None and ours and target.settled_template_hash == status.attempt.template_hash:
        ended = ended.but(stable=msgspec.structs.replace(stable_of(target), promoted=True))
    elif seen.deleting:
        # What was promoted is not taken back for a pause at rest that nobody needs any more.
        ended = ended.but(rests_paused=False)
    # Any other came since and was not held: at rest that is told, and recorded as a release that nothing judged.
    return Become(ended, "Promoted", how_it_ended(status))


def _while_rolling_back(seen: Observed, now: datetime) -> Decision:
    """Weight 0 first, then everything else. Nothing stands before the route write."""
    status, target, stable = seen.status, seen.target, seen.status.stable
    assert status.attempt is not None
    attempt = status.attempt
    ours = target is not None and stable is not None and target.uid == stable.uid and not target.deleting
    to_restore = target if (attempt.releasing or attempt.unheld) and ours and not _waits_beside(seen) else None
    back = _rolled_back(seen, to_restore, ours=ours)
    if (off := _off_traffic(seen, now)) is not None:
        # Weight 0 is written. While no gateway says that it is in force, the workload does not roll on.
        return back if back is not None and isinstance(off, Wait) else off
    if back is not None:
        return back
    match to_restore:
        case Target(roll_complete=False, stable_ready=ready) if ready and _serves_unpinned(seen, now):
            return Do(ApplyCanary(0), "Restoring", "nothing keeps the canary's pods from the stable Service any more")
        case Target(roll_complete=False, roll_stuck=""):
            # One that is stuck is stable's own trouble: held any longer it would only keep the next edit out.
            return Wait("Restoring", "the workload rolls back by its own strategy", now + SOON)
    if (out := _taken_down(seen, now)) is not None:
        return out
    if attempt.outcome in ENDED_BADLY and ours:
        return Become(
            status.but(phase=Phase.ROLLED_BACK, rejected=attempt.template_hash, holding=bool(target and target.paused)),
            "RolledBack",
            how_it_ended(status),
        )
    return Become(status.but(phase=Phase.IDLE), attempt.outcome or "Ended", how_it_ended(status))


def _rolled_back(seen: Observed, to_restore: Target | None, *, ours: bool) -> Do | Become | None:
    """The workload rolls back to stable's template; None where it does, or need not."""
    status, target, stable, attempt = seen.status, seen.target, seen.status.stable, seen.status.attempt
    assert attempt is not None
    if target is not None and target.runs_another and seen.pins.any_pin:
        return Do(Unpin(), "Restoring", "no pod of stable's is left, and the Services pinned to them reach nobody")
    if target is not None and ours and target.strays and to_restore is None:
        # Remembered, so that the API server refuses edits until they are gone.
        unheld = status.with_attempt(unheld=True)
        return Become(unheld, "Restoring", "some of the workload's pods are not stable's: it gets stable's template")
    match to_restore:
        case Target(template_hash=found) if stable and found != stable.template_hash:
            came = (
                "" if found == attempt.template_hash else ", also after an edit that came meanwhile: apply that again"
            )
            return Do(Restore(), "Restoring", f"the workload gets stable's template back{came}")
        case Target(paused=True):
            return Do(Release(), "Restoring")
    return None


def _would_lose_pods(target: Target) -> bool:
    """Pods of another revision serve where stable's are missing, as after a way back that got stuck."""
    return target.strays and target.stable_ready < target.replicas


def _serves_unpinned(seen: Observed, now: datetime) -> bool:
    """The canary has pods, no pin keeps requests from them, and what the route sent them has been answered."""
    rests = seen.status.attempt.resting_since if seen.status.attempt else None
    drained = rests is not None and now >= rests + DRAIN
    return (
        drained and not seen.pins.pinned and seen.canary.exists and not seen.canary.deleting and seen.canary.wanted > 0
    )


# -- pieces the phases share --------------------------------------------------------------------------


def _convicted(seen: Observed, now: datetime) -> Become:
    judged = seen.verdict.judged
    return Become(convicted(seen, now), judged.reason if judged else "AnalysisFailed", judged.message if judged else "")


def _off_traffic(seen: Observed, now: datetime) -> Decision | None:
    """Weight 0, stamped, in force, and remembered; None once that is so."""
    status, weight = seen.status, seen.weight
    assert status.attempt is not None
    # A route that stable is not in any more may still name the canary, and a gateway has to report what it became;
    # where it names nothing of ours and is no gateway's any more, none ever does.
    late = not weight.present and now >= (status.attempt.entered_at or now) + REPORTED_WITHIN
    elsewhere = weight.problem == "RouteNotForService" and weight.percent == 0
    gone = weight.problem == "RouteMissing" or (elsewhere and (weight.programmed or late))
    match seen:
        case _ if gone and status.attempt.resting_since is None:
            pass
        case _ if gone:
            return None
        case _ if (
            weight.percent > 0 and status.attempt.resting_since is not None and status.phase is not Phase.RETREATED
        ):
            # Somebody gave the canary traffic again: its pods may not go before that has drained too.
            return Become(status.with_attempt(resting_since=None), "TrafficMoved", "the weight was raised again")
        case _ if weight.percent > 0 or (_marked(weight) and weight.epoch != status.epoch):
            return Do(SetWeight(0.0), "TrafficToStable")
        case _ if status.attempt.resting_since is None and not weight.programmed:
            if weight.problem in {"RouteForbidden", "RouteNotAccepted", "RouteNotForService"}:
                unknown = f"nobody can tell whether weight 0 is in force: {weight.problem_message}"
                return Wait(weight.problem, unknown, now + SOON)
            return Wait("RouteNotProgrammed", "no gateway reports weight 0 yet", now + SOON)
    if status.attempt.resting_since is not None:
        return None
    relief = status.attempt.seconds_to_relief
    if relief is None and status.attempt.first_bad_at is not None:
        relief = max((now - status.attempt.first_bad_at).total_seconds(), 0.0)
    ended = status.attempt.outcome is not None
    return Become(
        status.with_attempt(
            resting_since=now, seconds_to_relief=relief, sealed_at=(status.attempt.sealed_at or now) if ended else None
        ),
        "TrafficOnStable",
        "all traffic is on stable",
    )


def _taken_down(seen: Observed, now: datetime) -> Decision | None:
    """Out of the route, canary deleted, pins off; None once that is so. A rollback never waits for its record."""
    attempt = seen.status.attempt
    assert attempt is not None
    drained = (attempt.resting_since or now) + DRAIN
    match seen:
        case _ if now < drained:
            return Wait("Draining", "requests under way are answered first", drained)
        case _ if _marked(seen.weight):
            return Do(LeaveRoute(), "CleaningUp")
        case _ if has_trial_pods(seen):
            return Do(DeleteCanary(), "CleaningUp")
        case _ if seen.pins.any_pin:
            return Do(Unpin(), "CleaningUp")
    return None


def _not_held(seen: Observed, message: str) -> Decision:
    """An edit rolls that the API server let through. Remembered first, as with every way out: whatever ends it then
    knows whose pause it is and what the pods may run, and the hold has to be proven again."""
    known = seen.status.but(edits_held=False, holding=True)
    if known.phase in ACTIVE:
        known = known.with_attempt(unheld=True)
    return Do(PauseTarget(), "EditNotHeld", message) if known == seen.status else Become(known, "EditNotHeld", message)


def _is_stopped(seen: Observed, now: datetime) -> bool:
    """Something keeps the target from rolling on that may last: nobody who leaves waits for that."""
    target = seen.target
    return (
        target is not None and not target.roll_complete and (is_held_back(seen, now) or bool(_misses_objective(seen)))
    )


def _misses_objective(seen: Observed) -> str:
    """What stable suffers from while it rolls; nothing where a person goes on all the same."""
    attempt = seen.status.attempt
    return "" if attempt is None or attempt.promoted_by or attempt.overruled else seen.verdict.suffers


def _left_behind(seen: Observed, now: datetime) -> Decision | None:
    """Whether the target is no longer the one this attempt is about; hard rules on its pods."""
    status, target, stable = seen.status, seen.target, seen.status.stable
    assert status.attempt is not None
    attempt = status.attempt
    if target is None or target.deleting or stable is None or target.uid != stable.uid:
        return Become(get_out(status, Outcome.ABORTED, target_missing(seen), now), "TargetMissing")
    if (other := _another_template(seen, target, now)) is not None:
        return other
    if lost := _lost_pods(seen, target):
        return Become(get_out(status, Outcome.WITHDRAWN, lost, now), "EditNotHeld", lost)
    trouble = seen.canary.trouble
    if trouble and now >= waited_for_since(attempt, seen.canary, now) + TROUBLE_GRACE:
        message = f"canary pods: {trouble}: {seen.canary.trouble_message}"
        return Become(get_out(status, Outcome.ROLLED_BACK, message, now), trouble, message)
    return None


def _lost_pods(seen: Observed, target: Target) -> str:
    """The edit rolled all the same and took pods of stable's, which are all that the pinned Services reach."""
    attempt, found = seen.status.attempt, target.stable_ready
    assert attempt is not None
    pinned = seen.pins.any_pin or seen.status.phase is not Phase.PREPARING
    too_few = target.strays and found < attempt.stable_floor and not attempt.promoted_by
    if not (attempt.unheld and pinned and (target.runs_another or too_few)):
        return ""
    return (
        f"the edit was not held and rolled: {found} of the {attempt.stable_floor} stable pods that carried all traffic "
        "are ready. The workload gets stable's template back, apply again"
    )


def _another_template(seen: Observed, target: Target, now: datetime) -> Become | None:
    """What the target asks for is no longer what this attempt is about, and nothing of it may go out."""
    status, attempt, stable = seen.status, seen.status.attempt, seen.status.stable
    assert attempt is not None
    if target.template_hash == attempt.template_hash:
        return None
    if stable is not None and target.template_hash == stable.template_hash:
        message = "the template was set back to stable's"
        return Become(get_out(status, Outcome.WITHDRAWN, message, now), "Withdrawn", message)
    message = "another template came: it gets an attempt of its own"
    return Become(get_out(status, Outcome.SUPERSEDED, message, now), "Superseded", message)


def _waits_beside(seen: Observed) -> bool:
    """An edit that came during the way back is held, and no pod is anything but stable's: there it may stay."""
    target, stable, attempt = seen.target, seen.status.stable, seen.status.attempt
    return (
        target is not None
        and stable is not None
        and attempt is not None
        and target.paused
        and target.settled_hash == stable.hash
        and target.template_hash not in {stable.template_hash, attempt.template_hash}
    )


def _unrecorded(seen: Observed) -> Decision | None:
    """At rest: what happened is recorded and remembered as the head of the chain before anything new begins."""
    status, attempt = seen.status, seen.status.attempt
    if attempt is None or attempt.outcome is None:
        return None
    if not seen.record.outcome:
        return Do(StoreRecord(), "Recording")
    if status.head.number < attempt.number:
        return Become(status.but(head=head_of(seen)), status.reason or "Recorded", status.message)
    return None


def _clock_went_back(status: Status, now: datetime) -> Become | None:
    """What was remembered lies ahead: bake, rest and drain begin anew, instead of lasting until the clock is there."""
    attempt = status.attempt
    if status.phase not in ACTIVE or attempt is None:
        return None
    remembered = {name: getattr(attempt, name) for name in ("entered_at", "baking_since", "resting_since")}
    ahead = {name: now for name, at in remembered.items() if at is not None and at > now + CLOCK_SLACK}
    if not ahead:
        return None
    return Become(status.with_attempt(**ahead), "ClockMoved", "the controller's clock went back: waits begin anew")


def _lost_target(seen: Observed) -> Decision | None:
    """At rest: the target is missing, or is another object under the same name."""
    status, target, stable = seen.status, seen.target, seen.status.stable
    if target is None or target.deleting:
        return Wait("TargetMissing", target_missing(seen))
    if stable is None or target.uid != stable.uid:
        return Become(
            status.but(
                phase=Phase.PENDING,
                stable=None,
                holding=False,
                edits_held=False,
                unjudged=MADE_AGAIN,
                unjudged_unless=stable.template_hash if stable else "",
            ),
            "TargetRecreated",
            "another uid: its revision is not held",
        )
    return None


def _proved_again(status: Status, now: datetime) -> datetime:
    """Each dry run takes a live look: one a second for the first minute, then fewer, down to one in five minutes."""
    # Not proven since the first of these turned, at rest since the other did.
    turned = (one.last_transition_time for one in status.conditions if one.type in {"EditsHeld", "Ready"})
    waited = now - max((at for at in turned if at is not None), default=now)
    return now + (SOON if waited < PROVED_SOON else min(waited / 10, PROVED_AT_LAST))


def _went_out_unheld(seen: Observed, target: Target, now: datetime) -> Decision | None:
    """At rest: no pod is stable's any more. What went out is what users are on, and what the next is compared with."""
    status, stable = seen.status, seen.status.stable
    assert stable is not None
    if target.settled_hash in {"", stable.hash}:
        return Wait("WaitingForStable", STABLE_GONE, now + SOON) if target.runs_another else None
    if target.settled_template_hash == stable.template_hash:
        renamed = msgspec.structs.replace(stable, hash=target.settled_hash)
        return Become(status.but(stable=renamed), status.reason or "Adopted", status.message)
    why = unjudged(target, seen, "the edit was not held", now)
    return Become(
        status.but(phase=Phase.IDLE, stable=stable_of(target), attempt=why, rejected="", edits_held=False),
        "UnjudgedRelease",
        "a revision went out that nobody held: is the admission policy serin-hold in force?",
    )


def _tried(seen: Observed, target: Target, now: datetime) -> Decision:
    """A held edit begins an attempt. One that some pods run already only where all of stable's still serve beside them:
    the Services are pinned to those, and nothing keeps users from the others before they are."""
    refused = _refused(seen, now)
    slipped = target.strays and not seen.status.edits_held
    if slipped and seen.ruling is not None and (refused is not None or _would_lose_pods(target)):
        why = refused.message if refused else f"{target.stable_ready} of {target.replicas} stable pods are ready"
        message = (
            f"the edit was not held, and cannot be tried as it is ({why}): stable's template comes back, apply again"
        )
        return Become(get_out(begin(seen, target, now).status, Outcome.WITHDRAWN, message, now), "EditNotHeld", message)
    return refused or begin(seen, target, now)


def _refused(seen: Observed, now: datetime) -> Wait | None:
    """Why the candidate may not begin: the policies refuse it, or nobody can tell what they say."""
    if seen.ruling is None:
        return Wait("PolicyUnreadable", "the policies have not been read yet: nothing begins until then", now + SOON)
    refused = _problem(seen.ruling.refusals, now)
    if refused is not None and refused.reason == "EvidenceUnavailable":
        # It is being looked up as a rule, and a person waits for it.
        return Wait(refused.reason, refused.message, now + SOON)
    return refused


def _too_small(status: Status, ready: int, floor: int, now: datetime) -> Decision:
    """Hold while stable could not take its traffic back. A person decides by its pods: each number is told."""
    enough = f"where {ready} carry all of it, kubectl canary resume goes on with these; " if ready else ""
    message = (
        f"stable has {ready} ready pods of the {floor} it had when the rollout began, or that a Resume took as enough: "
        "it could not carry the traffic that would come back. Where an autoscaler took them, set its minReplicas to "
        f"{floor} until the rollout has ended; {enough}kubectl canary promote does not ask"
    )
    if status.reason == "StableTooSmall" and message != status.message:
        return Become(status, "StableTooSmall", message)
    return Wait("StableTooSmall", message, now + SOON)


def _advised(seen: Observed, advice: str, now: datetime) -> Decision:
    """Hold because of a gauge; with the reason, what is known by then is remembered, so that people see why."""
    reason, _, why = advice.partition(" ")
    message = f"{why}: it ends when that does, or kubectl canary resume goes on all the same"
    # The number of seconds grows with each look, and is no news.
    other = reason == "GaugeMissing" and redact(message)[:1024] != seen.status.message
    if seen.status.reason != reason or other:
        return Become(checkpointed(seen), reason, message)
    return Wait(reason, message, now + SOON)


def _not_certified(seen: Observed, attempt: Attempt, now: datetime) -> Decision:
    """Hold for more requests; how many there are is told again each time there are a quarter more."""
    grown = seen.verdict.canary_requests > TOLD_AGAIN * attempt.canary_requests
    if seen.status.reason != "NotCertified" or grown:
        return Become(checkpointed(seen), "NotCertified", seen.verdict.uncertified)
    return Wait("NotCertified", seen.verdict.uncertified, now + SOON)


def _said(seen: Observed, now: datetime, only: Verb | None = None) -> Become | None:
    """Take the oldest Decision not yet answered; with `only`, the oldest of that verb."""
    # Whose right nobody could tell is answered when somebody can.
    heard = [said for said in seen.decisions if said.may is not None]
    waiting: list[DecisionSeen] = [said for said in heard if only is None or said.verb is only]
    if not waiting:
        return None
    said = waiting[0]
    holds = _held_by(seen, now) if said.verb is Verb.RESUME else ""
    name = seen.spec.target_ref.name if seen.spec else ""
    changed = answer(seen.status, said, now, holds=holds, target=seen.target, name=name)
    taken = changed.decisions[-1].taken if changed.decisions else False
    if not taken:
        # An answer without effect must not hide why the rollout waits.
        return Become(changed, seen.status.reason or "Answered", seen.status.message)
    return Become(changed, _TAKEN.get(said.verb, f"{said.verb}Taken"), f"{said.by}: {said.reason}")


def _held_by(seen: Observed, now: datetime) -> str:
    """Why this would not go on if nobody said anything; empty where an act comes next. A Resume is about that."""
    # The stamp that a new leader is about to write holds nothing.
    weight = replace(seen.weight, epoch=seen.status.epoch) if seen.weight.present else seen.weight
    alone = _decide(replace(seen, decisions=(), weight=weight), now)
    return "" if isinstance(alone, Do) else alone.reason


_TAKEN = {
    Verb.ABORT: "Aborted",
    Verb.REJECT: "Rejected",
    Verb.PAUSE: "Paused",
    Verb.BREAK_GLASS: "GlassBroken",
    Verb.OVERRIDE: "FreezeOverridden",
}


def _asks_for_more(seen: Observed, now: datetime) -> Wait | None:
    """What is compared by less than was asked for may still be convicted, and only a person lets it through."""
    if not seen.unknown or (seen.status.attempt and seen.status.attempt.promoted_by):
        return None
    return Wait(
        "NewerAnalysis",
        f"another version of Serin began this rollout, and this one does not know {', '.join(seen.unknown)}: nothing "
        "is raised until that version is back, or a person says kubectl canary promote or abort",
        now + SOON,
    )


def _problem(problems: tuple[str, ...], now: datetime) -> Wait | None:
    """The first problem; its first word is the reason."""
    if not problems:
        return None
    reason, _, message = problems[0].partition(" ")
    reason = reason.rstrip(":")
    return Wait(reason, message, now + (ASK_AGAIN if reason in OF_SERVER else LOOK_AGAIN))


def _marked(weight: Weight) -> bool:
    """Something of ours is on the route: the backend, or after an owner's reset only our annotations."""
    return weight.present or bool(weight.epoch)


def _baked_at(seen: Observed, attempt: Attempt) -> datetime:
    """When the step may end; a certified canary need not wait where the spec says so."""
    assert attempt.baking_since is not None
    # What a policy says about bakes is a least one, which no certificate shortens.
    early = seen.spec is not None and seen.spec.analysis.advance == "early" and not attempt.policies
    if early and seen.verdict.fresh and seen.verdict.enough and not seen.verdict.uncertified:
        return attempt.baking_since
    return attempt.baking_since + timedelta(seconds=attempt.here.bake)


def _is_to_be_recorded(attempt: Attempt) -> bool:
    """The first arrival is recorded with the next: the record was begun a moment before. Nothing goes out on less."""
    return len(attempt.steps_seen) > 1 or attempt.is_last_step or bool(attempt.promoted_by)


def _asks_certificate(seen: Observed, attempt: Attempt) -> bool:
    """The way out of the last step asks for the certificate that the canary is not worse."""
    holds = seen.spec is not None and seen.spec.analysis.on_inconclusive == "hold"
    return holds and attempt.is_last_step and not attempt.promoted_by


def _no_data_for(seen: Observed, now: datetime) -> float:
    """Seconds without data beyond the timeout while the canary had traffic; 0 before that."""
    since, attempt = seen.verdict.no_data_since, seen.status.attempt
    served = (attempt.baking_since or attempt.entered_at) if attempt and seen.weight.percent > 0 else None
    if since is None or seen.spec is None or served is None:
        return 0.0
    waited = (now - max(since, served)).total_seconds()
    return waited if waited > seen.spec.analysis.no_data_timeout.total_seconds() else 0.0


def _closed_gate(seen: Observed, attempt: Attempt, now: datetime) -> Gate | None:
    """The first gate that stands in the way now: the step's own, and after a Promote those of all that are left."""
    last = len(attempt.plan) if attempt.promoted_by else attempt.step + 1
    for number in range(attempt.step + 1, last + 1):
        if gates := closed_gates(seen.status, number, now, seen.revoked):
            return gates[0]
    return None


def _often(drifts: tuple[datetime, ...], now: datetime) -> bool:
    """Somebody who puts things back so often will go on with it."""
    return sum(1 for at in drifts if at > now - DRIFT_WINDOW) >= DRIFTS
