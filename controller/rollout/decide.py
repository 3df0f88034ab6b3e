"""The state machine: one observation in, one decision out.

No clock, no network, no log: every move the controller can make on live traffic is on this page and
can be tested with plain values. The cases of every phase stand in order of urgency: get out, get
there, hold, move on. A turn changes memory (`Become`) or the world (`Do`), never both, so there is no
in-between for a crash to hit.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime, timedelta

import msgspec

from controller.errors import SerinError
from controller.model.evidence import Origin
from controller.model.guarded import FreezeSeen, Frozen, Gate, PlanStep
from controller.model.policy import OnStart
from controller.model.redact import redact
from controller.model.spec import Verb
from controller.model.status import ACTIVE, Attempt, Head, Judged, Outcome, Phase, Stable, Status, StepSeen
from controller.model.uses import uses
from controller.model.world import DecisionSeen, Observed, Target, Weight
from controller.rollout.answers import answer, asks_for, broken_glass, closed_gates, get_out
from controller.rollout.conditions import render_conditions
from controller.rollout.moves import (
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

MARGIN = timedelta(seconds=1)
"""gateways obey up to 0.4 s after they report that they do (measured: 87 to 383 ms)"""
DRAIN = timedelta(seconds=2)
"""from weight 0 in force to the deletion of pods that may still answer"""
REST = timedelta(seconds=30)
"""the least time a retreated canary is off traffic"""
TROUBLE_GRACE = timedelta(seconds=20)
"""pods that cannot start get this long before the rule rolls back: pulls and quotas do recover"""
LOOK_AGAIN = timedelta(seconds=5)
"""so long after its correction a problem may still be shown, where a watch does not tell of it"""
DRIFT_WINDOW = timedelta(minutes=10)
DRIFTS = 3
RETREATS = 3
"""the third retreat of a rollout holds for a person, or rolls back where nobody vouches for the change"""
CLOCK_SLACK = timedelta(seconds=5)
"""clocks of two leaders may differ by so much"""
SOON = timedelta(seconds=1)
NEWS_AFTER = timedelta(seconds=5)
"""a new reason to wait is written once a phase or step is this old"""

UNVOUCHED = frozenset({Origin.AI, Origin.UNKNOWN, Origin.MIXED})
ENDED_BADLY = frozenset({Outcome.ROLLED_BACK, Outcome.ABORTED, Outcome.REJECTED})


def decide(seen: Observed, now: datetime) -> Decision:
    """The one thing to do now."""
    return _told(seen, _permits_ended(seen, _decide(seen, now), now), now)


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
    return _told(seen, Wait(error.reason, str(error), now + LOOK_AGAIN), now)


def _decide(seen: Observed, now: datetime) -> Decision:
    status = seen.status
    if status.schema_version > Status().schema_version:
        return Wait("NewerStatus", "a newer Serin wrote this status: upgrade this one; nothing moves until then")
    if status.phase in ACTIVE and status.leader_epoch < seen.term:
        return Become(status, "TookOver")
    if seen.spec is None and (status.phase in ACTIVE or not seen.deleting):
        # Without it neither target nor route can be found: what was not seen must not count as gone.
        return _problem(seen.problems, now) or Wait("InvalidSpec", "spec cannot be read", now + LOOK_AGAIN)
    if seen.deleting:
        return _while_leaving(seen, now)
    if (urgent := _said(seen, now, only=Verb.ABORT)) is not None:
        return urgent
    if (urgent := _frozen_out(seen, now)) is not None:
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


# -- at rest ------------------------------------------------------------------------------------------


def _while_pending(seen: Observed, now: datetime) -> Decision:
    """Adopt the target once it has exactly one settled revision. Nothing moves here."""
    status, target = seen.status, seen.target
    match target:
        case None:
            return Wait("TargetMissing", _target_missing(seen))
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
        phase=Phase.IDLE, stable=_stable(target), edits_held=False, holding=False, unjudged="", unjudged_unless=""
    )
    if status.unjudged and target.settled_template_hash != status.unjudged_unless:
        adopted = adopted.but(attempt=_unjudged(target, seen, status.unjudged, now))
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
            return Wait("ProvingHold", "asking the API server whether it holds an edit", now + SOON)
        case _ if same:
            # How the last rollout ended says more than that nothing happens, and is no news a second time.
            return Wait(status.reason, status.message) if status.reason in set(Outcome) else Wait("Idle")
        case Target(paused=True) if target.template_hash == status.rejected:
            return Become(status.but(phase=Phase.ROLLED_BACK, holding=True), "RolledBack", "rejected before")
        case Target(paused=True):
            return _refused(seen, now) or _begin(seen, target, now)
        case Target(roll_complete=True) if target.settled_hash:
            return Become(
                status.but(stable=_stable(target), attempt=_unjudged(target, seen, "the edit was not held", now)),
                "UnjudgedRelease",
                "a revision went out that nobody held: is the admission policy serin-hold in force?",
            )
    return Do(PauseTarget(), "EditNotHeld", "the edit was not held by the API server: paused now")


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
        case Target(paused=False) if same and status.rests_paused:
            return Do(PauseTarget(), "PausedAtRest", "this cluster has no MutatingAdmissionPolicy: paused at rest")
        case Target(paused=False) if not same:
            return Do(PauseTarget(), "EditNotHeld", "unpaused while held")
        case _ if not same and not rejected:
            return _refused(seen, now) or _begin(seen, target, now)
    return Wait("RolledBack", _how_it_ended(status))


def _while_leaving(seen: Observed, now: datetime) -> Decision:
    """The Canary is being deleted: traffic to stable and verified, nothing held, nothing of ours left."""
    status, target, stable = seen.status, seen.target, seen.status.stable
    if status.phase in {Phase.RELEASING, Phase.FINISHING}:
        return _while_releasing(seen, now) if status.phase is Phase.RELEASING else _while_finishing(seen, now)
    if status.phase is Phase.ROLLING_BACK:
        return _while_rolling_back(seen, now)
    if status.phase in ACTIVE:
        return Become(get_out(status, Outcome.DELETED, "the Canary was deleted", now), "Deleted")
    held = (
        (status.holding or status.rests_paused)
        and target is not None
        and stable is not None
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
        case _ if seen.canary.exists and not seen.canary.deleting:
            return Do(DeleteCanary(), "Leaving")
        case _ if seen.pins.any_pin:
            return Do(Unpin(), "Leaving")
        case _ if seen.record.exists and not seen.record.outcome and status.attempt and status.attempt.outcome:
            return Do(StoreRecord(), "Recording")
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
    wanted = _pods_for(status.attempt.here.weight, target.replicas)
    match seen:
        case _ if not target.paused:
            return Do(PauseTarget(), "EditNotHeld", "unpaused while held")
        case _ if problem := _problem((*seen.problems, *seen.pins.problems), now):
            return problem
        case _ if not seen.record.exists:
            return Do(StoreRecord(), "Recording")
        case _ if (held := _held_by_freeze(seen, now)) is not None:
            return held
        case _ if gates := closed_gates(status, 0, now, seen.revoked):
            return Wait("AwaitingApproval", asks_for(status, gates[0], now, seen.revoked))
        case _ if target.stale_replicasets:
            return Do(DeleteReplicaSet(target.stale_replicasets[0]), "Preparing")
        case _ if not seen.pins.pinned:
            return Do(Pin(), "Pinning")
        case _ if seen.canary.deleting:
            return Wait("Preparing", until=now + SOON)
        case _ if seen.canary.attempt != status.attempt.id or seen.canary.wanted != wanted:
            return Do(ApplyCanary(wanted), "StartingPods")
        case _ if not _ready(seen, wanted):
            return _wait_for_pods(seen, now)
        case _ if seen.weight.problem:
            return Wait(seen.weight.problem, seen.weight.problem_message, now + SOON)
        case _ if not seen.weight.present:
            return Do(SetWeight(0.0), "JoiningRoute")
        case _ if not seen.weight.programmed:
            return Wait("RouteNotProgrammed", "no gateway reports this route yet", now + SOON)
    return Become(
        status.but(phase=Phase.PROGRESSING, weight=status.attempt.here.weight).with_attempt(entered_at=now),
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
    wanted = _pods_for(step.weight, target.replicas)
    unseen = _no_data_for(seen, now)
    # The stamp says that this weight was written; a tool that reverts at once must not be fought for ever.
    reverted = not weight.present and (attempt.baking_since is not None or weight.epoch == status.epoch)
    match seen:
        # get out
        case _ if verdict.fail:
            return Become(_convict(seen, now), verdict.judged.reason if verdict.judged else "AnalysisFailed")
        case _ if weight.percent > status.weight:
            return Do(SetWeight(status.weight), "WeightTooHigh", f"found {weight.percent:g} %: lowered at once")
        case _ if verdict.tripped and seen.spec and seen.spec.analysis.on_trip == "rollback":
            return Become(_convict(seen, now), verdict.judged.reason if verdict.judged else "AnalysisFailed")
        case _ if verdict.tripped:
            return Become(_retreat(seen, "Tripped", now), "Retreated", verdict.judged.message if verdict.judged else "")
        case _ if weight.percent > 0 and seen.canary.ready == 0:
            return Become(_retreat(seen, "CanaryNotReady", now), "Retreated", "no canary pod is ready")
        case _ if unseen and attempt.no_data == "RollBack":
            message = f"no data for {unseen:.0f} s, and the change is {attempt.origin}: {verdict.need}"
            return Become(get_out(status, Outcome.ROLLED_BACK, message, now), "NoData", message)
        case _ if (said := _said(seen, now)) is not None:
            return said
        # get there
        case _ if not target.paused:
            return Do(PauseTarget(), "EditNotHeld", "unpaused while held")
        case _ if weight.problem:
            return Wait(weight.problem, weight.problem_message, now + SOON)
        case _ if weight.epoch != status.epoch and weight.present:
            return Do(SetWeight(min(weight.percent, status.weight)), "TakingOver")
        case _ if seen.pins.problems:
            return Wait("PinsLost", seen.pins.problems[0], now + SOON)
        case _ if not seen.pins.pinned and attempt.baking_since is not None and not _often(attempt.unpinned, now):
            recent = (*attempt.unpinned[-DRIFTS:], now)
            return Become(status.with_attempt(baking_since=None, unpinned=recent), "PinsReverted", _pins_reverted(seen))
        case _ if not seen.pins.pinned:
            # Also while it holds: without a pin the stable Service reaches the canary's pods, whatever the weight.
            return Do(Pin(), "Pinning")
        case _ if _often(attempt.unpinned, now) and attempt.baking_since is None:
            return Wait("PinsReverted", _pins_reverted(seen), now + SOON)
        case _ if reverted and _often(attempt.drifts, now):
            return Wait("RouteReverted", _route_reverted(seen), now + DRIFT_WINDOW)
        case _ if reverted:
            # A new fence, so that the weight written next is told from the one that was taken off.
            recent = (*attempt.drifts[-DRIFTS:], now)
            fenced = status.but(fence=status.fence + 1).with_attempt(baking_since=None, drifts=recent)
            return Become(fenced, "TrafficMoved", _route_reverted(seen))
        case _ if attempt.baking_since and weight.percent < status.weight:
            return Wait(
                "TrafficLowered",
                f"somebody lowered the weight to {weight.percent:g} %: kubectl canary resume takes it up again",
            )
        # hold
        case _ if (held := _held_by_freeze(seen, now)) is not None:
            return held
        case _ if attempt.paused:
            return Wait("Paused", "no raise until kubectl canary resume")
        case _ if target.stable_ready < attempt.stable_floor:
            return Wait(
                "StableTooSmall",
                f"stable has {target.stable_ready} ready pods and had {attempt.stable_floor} when the rollout began: "
                "it could not carry the traffic that would come back",
                now + SOON,
            )
        case _ if verdict.mismatch:
            return Wait("TrafficMismatch", verdict.mismatch, now + SOON)
        # move on
        case _ if seen.canary.wanted != wanted:
            return Do(ApplyCanary(wanted), "ScalingCanary")
        case _ if not _ready(seen, wanted):
            return _wait_for_pods(seen, now)
        case _ if weight.percent != status.weight or not weight.present:
            return Do(SetWeight(status.weight), "StepStarted", f"{status.weight:g} %")
        case _ if not weight.programmed:
            return Wait("RouteNotProgrammed", "no gateway reports this weight yet", now + SOON)
        case _ if status.weight < step.weight and verdict.limit > status.weight:
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
        case _ if seen.record.steps < len(attempt.steps_seen):
            return Do(StoreRecord(), "Recording")
        case _ if status.weight < step.weight:
            return Wait("Returning", f"{status.weight:g} % until it has shown nothing for a while", now + SOON)
        case _ if not attempt.promoted_by and now < _baked_at(seen, attempt):
            return Wait("Baking", until=_baked_at(seen, attempt))
        case _ if not attempt.promoted_by and not verdict.fresh:
            return Wait("NoData", verdict.need, now + SOON)
        case _ if not attempt.promoted_by and not verdict.enough:
            return Wait("MinRequests", verdict.need, now + SOON)
        case _ if not attempt.promoted_by and verdict.unproven:
            return Wait("PodsTooYoung", verdict.unproven, now + SOON)
        case _ if _asks_certificate(seen, attempt) and verdict.uncertified:
            return Wait("NotCertified", verdict.uncertified, now + SOON)
        case _ if (gate := _closed_gate(seen, attempt, now)) is not None:
            return Wait("AwaitingApproval", asks_for(status, gate, now, seen.revoked))
        case _ if attempt.is_last_step or attempt.promoted_by:
            return Become(
                _checkpointed(seen)
                .but(phase=Phase.RELEASING)
                .with_attempt(entered_at=now, releasing=True, baking_since=None),
                "Releasing",
                "every gate is passed: the workload rolls by its own strategy",
            )
    following = attempt.plan[attempt.step + 1]
    return Become(
        _checkpointed(seen)
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
    wanted = _pods_for(attempt.here.weight, target.replicas)
    match seen:
        case _ if (off := _off_traffic(seen, now)) is not None:
            return off
        case _ if verdict.fail:
            return Become(_convict(seen, now), verdict.judged.reason if verdict.judged else "AnalysisFailed")
        case _ if len(attempt.retreats) - attempt.excused >= RETREATS and attempt.origin in UNVOUCHED:
            message = f"retreated {len(attempt.retreats)} times, and the change is {attempt.origin}"
            return Become(get_out(status, Outcome.ROLLED_BACK, message, now), "RetreatedTooOften", message)
        case _ if (said := _said(seen, now)) is not None:
            return said
        case _ if len(attempt.retreats) - attempt.excused >= RETREATS:
            return Wait("RetreatedTooOften", "a person decides: kubectl canary resume or abort")
        case _ if (held := _held_by_freeze(seen, now)) is not None:
            return held
        case _ if attempt.paused:
            return Wait("Paused", "no raise until kubectl canary resume")
        case _ if attempt.replacing and attempt.resting_since and now < attempt.resting_since + DRAIN:
            return Wait("Draining", "requests under way are answered first", attempt.resting_since + DRAIN)
        case _ if attempt.replacing and attempt.resting_since and _has_pods_from(seen, attempt.resting_since, now):
            if not seen.weight.programmed and not seen.weight.problem:
                return Wait("RouteNotProgrammed", "no gateway reports weight 0 again yet", now + SOON)
            if seen.canary.replaced == status.epoch:
                return Wait("ReplacingPods", "fresh pods tell a bad revision from a bad pod", now + SOON)
            return Do(ReplacePods(), "ReplacingPods", "fresh pods tell a bad revision from a bad pod")
        case _ if attempt.resting_since and now < attempt.resting_since + REST:
            return Wait("Resting", "off traffic after a retreat; it comes back", attempt.resting_since + REST)
        case _ if verdict.young:
            return Wait("Resting", "its pods failed while young: they come back when they are not", now + SOON)
        case _ if seen.canary.wanted != wanted:
            return Do(ApplyCanary(wanted), "ScalingCanary")
        case _ if not _ready(seen, wanted):
            return _wait_for_pods(seen, now)
    return Become(
        status.but(phase=Phase.PROGRESSING, weight=min(attempt.here.weight, verdict.limit)).with_attempt(
            resting_since=None, baking_since=None, entered_at=now, replacing=False
        ),
        "Returned",
        "the rest is over: the weight comes back and the step's bake starts again",
    )


def _while_releasing(seen: Observed, now: datetime) -> Decision:
    """The target rolls to a vetted template by its own strategy; only hard rules judge it."""
    status, target = seen.status, seen.target
    assert status.attempt is not None
    if target is None or target.deleting or (status.stable and target.uid != status.stable.uid):
        return Become(get_out(status, Outcome.ABORTED, _target_missing(seen), now), "TargetMissing")
    match target:
        case Target(roll_stuck=why) if why:
            return Become(get_out(status, Outcome.ROLLED_BACK, f"the roll got stuck: {why}", now), "RollStuck")
        case _ if (said := _said(seen, now)) is not None:
            return said
        case _ if not seen.record.exists:
            return Do(StoreRecord(), "Recording")
        case _ if _is_held_back(seen, now) and not target.paused and not target.roll_complete:
            return Do(PauseTarget(), "Frozen", "the roll stops where it is")
        case _ if target.paused and (held := _held_by_freeze(seen, now)) is not None:
            return held
        case _ if seen.pins.any_pin:
            return Do(Unpin(), "Releasing")
        case _ if target.paused:
            return Do(Release(), "Releasing")
        case Target(roll_complete=False):
            return Wait("Releasing", "the workload rolls by its own strategy", now + SOON)
    outcome = Outcome.PROMOTED if target.template_hash == status.attempt.template_hash else Outcome.SUPERSEDED
    return Become(
        status.but(phase=Phase.FINISHING, weight=0.0, fence=status.fence + 1).with_attempt(
            outcome=outcome, outcome_message="every pod runs the new revision", entered_at=now, resting_since=None
        ),
        "Finishing",
    )


def _while_finishing(seen: Observed, now: datetime) -> Decision:
    """The target is the new stable: weight to it, canary objects away, outcome sealed."""
    status, target = seen.status, seen.target
    assert status.attempt is not None
    match seen:
        case _ if (off := _off_traffic(seen, now)) is not None:
            return off
        case _ if (out := _taken_down(seen, now)) is not None:
            return out
    if target is None or not target.settled_hash:
        return Wait("WaitingForStable", "one revision must have all pods, updated and available", now + SOON)
    # Whether edits are held hangs on the workload's uid, which stays; a pause at rest is off, and comes back first.
    held = status.edits_held and not status.rests_paused
    return Become(
        status.but(phase=Phase.IDLE, stable=_stable(target), holding=False, rejected="", edits_held=held),
        "Promoted",
        _how_it_ended(status),
    )


def _while_rolling_back(seen: Observed, now: datetime) -> Decision:
    """Weight 0 first, then everything else. Nothing stands before the route write."""
    status, target, stable = seen.status, seen.target, seen.status.stable
    assert status.attempt is not None
    attempt = status.attempt
    ours = target is not None and stable is not None and target.uid == stable.uid and not target.deleting
    moved = attempt.releasing or attempt.unheld
    match seen:
        case _ if (off := _off_traffic(seen, now)) is not None:
            return off
        case _ if moved and ours and target and stable and target.template_hash == attempt.template_hash:
            return Do(Restore(), "Restoring", "the workload gets stable's template back")
        case _ if moved and ours and target and target.paused:
            return Do(Release(), "Restoring")
        case _ if moved and ours and target and not target.roll_complete:
            return Wait("Restoring", "the workload rolls back by its own strategy", now + SOON)
        case _ if (out := _taken_down(seen, now)) is not None:
            return out
    if attempt.outcome in ENDED_BADLY and ours:
        return Become(
            status.but(phase=Phase.ROLLED_BACK, rejected=attempt.template_hash, holding=bool(target and target.paused)),
            "RolledBack",
            _how_it_ended(status),
        )
    return Become(status.but(phase=Phase.IDLE), attempt.outcome or "Ended", _how_it_ended(status))


# -- pieces the phases share --------------------------------------------------------------------------


def _off_traffic(seen: Observed, now: datetime) -> Decision | None:
    """Weight 0, stamped, in force, and remembered; None once that is so."""
    status, weight = seen.status, seen.weight
    assert status.attempt is not None
    gone = weight.problem in {"RouteMissing", "RouteNotForService"}
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
        case _ if seen.canary.exists and not seen.canary.deleting:
            return Do(DeleteCanary(), "CleaningUp")
        case _ if seen.pins.any_pin:
            return Do(Unpin(), "CleaningUp")
    return None


def _left_behind(seen: Observed, now: datetime) -> Decision | None:
    """Whether the target is no longer the one this attempt is about; hard rules on its pods."""
    status, target, stable = seen.status, seen.target, seen.status.stable
    assert status.attempt is not None
    attempt = status.attempt
    if target is None or target.deleting or stable is None or target.uid != stable.uid:
        return Become(get_out(status, Outcome.ABORTED, _target_missing(seen), now), "TargetMissing")
    if target.template_hash == stable.template_hash:
        message = "the template was set back to stable's"
        return Become(get_out(status, Outcome.WITHDRAWN, message, now), "Withdrawn", message)
    if target.template_hash != attempt.template_hash:
        message = "another template came: it gets an attempt of its own"
        return Become(get_out(status, Outcome.SUPERSEDED, message, now), "Superseded", message)
    trouble = seen.canary.trouble
    if trouble and attempt.entered_at and now >= attempt.entered_at + TROUBLE_GRACE:
        message = f"canary pods: {trouble}: {seen.canary.trouble_message}"
        return Become(get_out(status, Outcome.ROLLED_BACK, message, now), trouble, message)
    return None


def _unrecorded(seen: Observed) -> Decision | None:
    """At rest: what happened is recorded and remembered as the head of the chain before anything new begins."""
    status, attempt = seen.status, seen.status.attempt
    if attempt is None or attempt.outcome is None:
        return None
    if not seen.record.outcome:
        return Do(StoreRecord(), "Recording")
    if status.head.number < attempt.number:
        return Become(status.but(head=_head(seen)), status.reason or "Recorded", status.message)
    return None


def _head(seen: Observed) -> Head:
    """The record of the attempt that has ended. One that could not be sealed keeps its place, and has no hash."""
    status, attempt = seen.status, seen.status.attempt
    assert attempt is not None
    return Head(max(attempt.number, status.head.number), seen.record.hash or status.head.hash)


def _place(seen: Observed) -> Head:
    """The record that the next one follows; a Canary made again goes on with the chain of its name."""
    status = seen.status
    return Head(seen.record.number, seen.record.hash) if status.attempt is None else status.head


def _attempt_id(seen: Observed, now: datetime) -> str:
    """The second it began in; with its number in the chain, where another began in the same one."""
    name, before = now.strftime("%Y%m%d-%H%M%S"), seen.status.attempt
    return f"{name}-{_place(seen).number + 1}" if before is not None and before.id.startswith(name) else name


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
        return Wait("TargetMissing", _target_missing(seen))
    if stable is None or target.uid != stable.uid:
        return Become(
            status.but(
                phase=Phase.PENDING,
                stable=None,
                holding=False,
                edits_held=False,
                unjudged="the workload was deleted and made again",
                unjudged_unless=stable.template_hash if stable else "",
            ),
            "TargetRecreated",
            "another uid: its revision is not held",
        )
    return None


def _refused(seen: Observed, now: datetime) -> Wait | None:
    """Why the candidate may not begin: the policies refuse it, or nobody can tell what they say."""
    if seen.ruling is None:
        return Wait("PolicyUnreadable", "the policies have not been read yet: nothing begins until then", now + SOON)
    refused = _problem(seen.ruling.refusals, now)
    if refused is not None and refused.reason == "EvidenceUnavailable":
        # It is being looked up as a rule, and a person waits for it.
        return Wait(refused.reason, refused.message, now + SOON)
    return refused


def _begin(seen: Observed, target: Target, now: datetime) -> Become:
    """A held edit is a candidate: a new attempt, from weight 0, by the plan that the policies leave."""
    assert seen.ruling is not None
    status, ruling = seen.status, seen.ruling
    place = _place(seen)
    attempt = Attempt(
        id=_attempt_id(seen, now),
        number=place.number + 1,
        previous=place.hash,
        template_hash=target.template_hash,
        started_at=now,
        entered_at=now,
        plan=_with_hold_back(ruling.plan, seen.spec.analysis.hold_back if seen.spec else 0.0),
        plan_digest=ruling.digest,
        analysis=ruling.analysis,
        claimed_origin=target.origin[:20],
        origin=ruling.origin,
        degree=ruling.degree,
        trust=ruling.trust,
        evidence=ruling.evidence,
        classes=ruling.classes,
        authors=ruling.authors,
        gates=ruling.gates,
        policies=ruling.policies,
        clamps=ruling.clamps,
        no_data=ruling.no_data,
        images=target.images,
        from_hash=status.stable.template_hash if status.stable else "",
        from_images=status.stable.images if status.stable else (),
        stable_floor=target.stable_ready,
        unheld=not status.edits_held and target.settled_hash != (status.stable.hash if status.stable else ""),
    )
    return Become(
        status.but(phase=Phase.PREPARING, attempt=attempt, holding=True, weight=0.0, fence=status.fence + 1),
        "CandidateHeld",
        f"attempt {attempt.id}: {', '.join(target.images)}",
    )


def _unjudged(target: Target, seen: Observed, why: str, now: datetime) -> Attempt:
    """What to record of a revision that went out without a comparison."""
    place = _place(seen)
    return Attempt(
        id=_attempt_id(seen, now),
        number=place.number + 1,
        previous=place.hash,
        template_hash=target.settled_template_hash,
        started_at=now,
        sealed_at=now,
        plan=(),
        claimed_origin=target.origin[:20],
        images=target.settled_images,
        from_hash=seen.status.stable.template_hash if seen.status.stable else "",
        from_images=seen.status.stable.images if seen.status.stable else (),
        outcome=Outcome.UNJUDGED,
        outcome_message=why,
    )


def _stable(target: Target) -> Stable:
    return Stable(
        uid=target.uid,
        hash=target.settled_hash,
        template_hash=target.settled_template_hash,
        template=target.settled_template,
        images=target.settled_images,
        uses=uses(target.settled_template),
    )


def _retreat(seen: Observed, why: str, now: datetime) -> Status:
    """Weight 0 for now, remembered in one write together with what the analysis knows."""
    status = _checkpointed(seen)
    assert status.attempt is not None
    tripped = why == "Tripped"
    judged = seen.verdict.judged if tripped else None
    entry = judged or Judged(at=now, verdict="inconclusive", reason=why)
    return status.but(phase=Phase.RETREATED, weight=0.0, fence=status.fence + 1).with_attempt(
        retreats=(*status.attempt.retreats[-19:], entry),
        replacing=tripped and seen.verdict.replace,
        excused=status.attempt.excused + (tripped and not seen.verdict.replace),
        first_bad_at=status.attempt.first_bad_at or seen.verdict.first_bad_at,
        baking_since=None,
        resting_since=None,
        entered_at=now,
    )


def _convict(seen: Observed, now: datetime) -> Status:
    """Roll back because of a verdict."""
    status, judged = _checkpointed(seen), seen.verdict.judged
    assert status.attempt is not None
    if judged is not None:
        status = status.with_attempt(verdicts=(*status.attempt.verdicts[-39:], judged))
    assert status.attempt is not None
    status = status.with_attempt(first_bad_at=status.attempt.first_bad_at or seen.verdict.first_bad_at)
    return get_out(status, Outcome.ROLLED_BACK, judged.message if judged else "the analysis failed", now)


def _checkpointed(seen: Observed) -> Status:
    """The status with the analysis' sufficient statistics, where this turn has newer ones."""
    verdict = seen.verdict
    if not verdict.checkpoint:
        return seen.status
    return seen.status.with_attempt(
        judge=verdict.checkpoint,
        judged=verdict.judged,
        courses=verdict.courses,
        evaluated_through=verdict.evaluated_through,
        canary_requests=verdict.canary_requests,
        canary_errors=verdict.canary_errors,
    )


def _told(seen: Observed, decision: Decision, now: datetime) -> Decision:
    """Every change of memory carries its reason, conditions and our term; a new reason to wait is told once."""
    status = seen.status
    # What pods, routes and people say is passed on to statuses, Events and logs.
    decision = replace(decision, message=redact(decision.message)[:1024])
    match decision:
        case Do() | Wait(reason="Left" | "NewerStatus"):
            return decision
        case Wait(reason=reason, message=message) if (
            reason == status.reason
            and seen.generation == status.observed_generation
            and (message == status.message or status.phase is not Phase.PENDING)
        ):
            return decision
        case Wait() if _just_begun(status, now) and seen.generation == status.observed_generation:
            return decision
        case Wait(reason=reason, message=message):
            changed = status
        case Become(status=changed, reason=reason, message=message):
            pass
    told = changed.but(
        leader_epoch=max(changed.leader_epoch, seen.term),
        observed_generation=seen.generation,
        reason=reason[:63],
        message=message,
        **_shown(changed, reason),
    )
    return Become(told.but(conditions=render_conditions(told, now)), reason, message)


def _just_begun(status: Status, now: datetime) -> bool:
    """Pods that start and gateways that follow are no news for a moment, and each write counts."""
    attempt = status.attempt
    return (
        status.phase in ACTIVE
        and attempt is not None
        and attempt.entered_at is not None
        and now < attempt.entered_at + NEWS_AFTER
    )


def _shown(status: Status, reason: str) -> dict[str, str]:
    """What the printer columns say."""
    attempt = status.attempt
    if attempt is None or not attempt.plan:
        return {"step_shown": "", "verdict_shown": "", "origin_shown": "", "waiting_on": ""}
    verdict = "fail" if attempt.outcome is Outcome.ROLLED_BACK else "pass" if attempt.outcome else "inconclusive"
    people = {"AwaitingApproval": "approval", "Frozen": "freeze", "Paused": "resume", "RetreatedTooOften": "person"}
    return {
        "step_shown": f"{min(attempt.step + 1, len(attempt.plan))}/{len(attempt.plan)}",
        "verdict_shown": verdict,
        "origin_shown": attempt.origin,
        "waiting_on": people.get(reason, ""),
    }


def _said(seen: Observed, now: datetime, only: Verb | None = None) -> Become | None:
    """Take the oldest Decision not yet answered; with `only`, the oldest of that verb."""
    # Whose right nobody could tell is answered when somebody can.
    heard = [said for said in seen.decisions if said.may is not None]
    waiting: list[DecisionSeen] = [said for said in heard if only is None or said.verb is only]
    if not waiting:
        return None
    said = waiting[0]
    changed = answer(seen.status, said, now)
    taken = changed.decisions[-1].taken if changed.decisions else False
    if not taken:
        # An answer without effect must not hide why the rollout waits.
        return Become(changed, seen.status.reason or "Answered", seen.status.message)
    return Become(changed, _TAKEN.get(said.verb, f"{said.verb}Taken"), f"{said.by}: {said.reason}")


_TAKEN = {Verb.ABORT: "Aborted", Verb.REJECT: "Rejected", Verb.PAUSE: "Paused", Verb.BREAK_GLASS: "GlassBroken"}


def _problem(problems: tuple[str, ...], now: datetime) -> Wait | None:
    """The first problem; its first word is the reason."""
    if not problems:
        return None
    reason, _, message = problems[0].partition(" ")
    return Wait(reason.rstrip(":"), message, now + LOOK_AGAIN)


def _wait_for_pods(seen: Observed, now: datetime) -> Decision:
    """Pods get until the progress deadline; then the rule rolls back, without metrics."""
    status, canary = seen.status, seen.canary
    assert status.attempt is not None
    assert seen.spec is not None
    deadline = (status.attempt.entered_at or now) + seen.spec.progress_deadline
    if now >= deadline:
        message = f"{canary.ready} of {canary.wanted} canary pods ready after {seen.spec.progress_deadline}"
        return Become(get_out(status, Outcome.ROLLED_BACK, message, now), "ProgressDeadline", message)
    message = f"{canary.ready} of {canary.wanted} canary pods ready" + (f": {canary.trouble}" if canary.trouble else "")
    return Wait("CanaryNotReady", message, min(deadline, now + SOON))


def _marked(weight: Weight) -> bool:
    """Something of ours is on the route: the backend, or after an owner's reset only our annotations."""
    return weight.present or bool(weight.epoch)


def _ready(seen: Observed, wanted: int) -> bool:
    return seen.canary.ready >= wanted and seen.canary.endpoints >= wanted


def _with_hold_back(plan: tuple[PlanStep, ...], percent: float) -> tuple[PlanStep, ...]:
    """Through a step at 100 something stays on stable: without it there is nothing to compare with."""
    most = 100.0 - percent
    return tuple(msgspec.structs.replace(step, weight=most) if step.weight > most else step for step in plan)


def _has_pods_from(seen: Observed, before: datetime, now: datetime) -> bool:
    """Whether a canary pod that began before that instant is still there."""
    return now - timedelta(seconds=seen.canary.oldest_age) < before


def _baked_at(seen: Observed, attempt: Attempt) -> datetime:
    """When the step may end; a certified canary need not wait where the spec says so."""
    assert attempt.baking_since is not None
    # What a policy says about bakes is a least one, which no certificate shortens.
    early = seen.spec is not None and seen.spec.analysis.advance == "early" and not attempt.policies
    if early and seen.verdict.fresh and seen.verdict.enough and not seen.verdict.uncertified:
        return attempt.baking_since
    return attempt.baking_since + timedelta(seconds=attempt.here.bake)


def _asks_certificate(seen: Observed, attempt: Attempt) -> bool:
    """The way out of the last step asks for the certificate that the canary is not worse."""
    holds = seen.spec is not None and seen.spec.analysis.on_inconclusive == "hold"
    return holds and attempt.is_last_step and not attempt.promoted_by


def _pods_for(weight: float, replicas: int) -> int:
    """Canary pods that carry `weight` percent of what `replicas` pods carry: rounded up, at least one."""
    return max(math.ceil(replicas * weight / 100 - 1e-9), 1)


def _no_data_for(seen: Observed, now: datetime) -> float:
    """Seconds without data beyond the timeout while the canary had traffic; 0 before that."""
    since, attempt = seen.verdict.no_data_since, seen.status.attempt
    if since is None or seen.spec is None or attempt is None or attempt.baking_since is None:
        return 0.0
    waited = (now - max(since, attempt.baking_since)).total_seconds()
    return waited if waited > seen.spec.analysis.no_data_timeout.total_seconds() else 0.0


def _closed_gate(seen: Observed, attempt: Attempt, now: datetime) -> Gate | None:
    """The first gate that stands in the way now: the step's own, and after a Promote those of all that are left."""
    last = len(attempt.plan) if attempt.promoted_by else attempt.step + 1
    for number in range(attempt.step + 1, last + 1):
        if gates := closed_gates(seen.status, number, now, seen.revoked):
            return gates[0]
    return None


def _is_held_back(seen: Observed, now: datetime) -> bool:
    """Whether a freeze in force keeps this attempt from reaching more users."""
    frozen, attempt = seen.frozen, seen.status.attempt
    if frozen is None or attempt is None or broken_glass(seen.status, now, seen.revoked) is not None:
        return False
    finishes = frozen.on_start is OnStart.FINISH and frozen.since is not None and attempt.started_at < frozen.since
    return not finishes


def must_get_out(status: Status, frozen: Frozen | None) -> bool:
    """Whether a freeze takes all traffic back: it asks for it, and the attempt was under way when it began."""
    attempt = status.attempt
    if frozen is None or attempt is None or frozen.on_start is not OnStart.ROLL_BACK:
        return False
    if status.phase not in {Phase.PREPARING, Phase.PROGRESSING, Phase.RETREATED, Phase.RELEASING}:
        return False
    return frozen.since is None or attempt.started_at < frozen.since


def _frozen_out(seen: Observed, now: datetime) -> Become | None:
    """A freeze takes all traffic back; what it meets is remembered with it."""
    status, frozen, attempt = seen.status, seen.frozen, seen.status.attempt
    if frozen is None or attempt is None or not must_get_out(status, frozen):
        return None
    met = FreezeSeen(frozen.name, frozen.uid, frozen.on_start, frozen.message[:1024], now)
    remembered = status.with_attempt(freezes=(*attempt.freezes[-99:], met))
    return Become(get_out(remembered, Outcome.ABORTED, frozen.message, now), "Frozen", frozen.message)


def _held_by_freeze(seen: Observed, now: datetime) -> Decision | None:
    """Begin and end of a freeze are remembered; deadlines count from its end."""
    status, frozen = seen.status, seen.frozen
    assert status.attempt is not None
    met = status.attempt.freezes
    open_ones = {one.uid: one for one in met}
    still = [one for one in open_ones.values() if not one.ended]
    if frozen is not None and _is_held_back(seen, now):
        if any(one.uid == frozen.uid for one in still):
            return Wait("Frozen", frozen.message, now + SOON)
        entry = FreezeSeen(frozen.name, frozen.uid, frozen.on_start, frozen.message[:1024], now)
        return Become(status.with_attempt(freezes=(*met[-99:], entry)), "Frozen", frozen.message)
    if not still:
        return None
    ended = tuple(msgspec.structs.replace(one, at=now, ended=True) for one in still)
    return Become(
        status.with_attempt(freezes=(*met, *ended)[-100:], entered_at=now),
        "Thawed",
        f"{', '.join(one.name for one in still)}: the rollout goes on",
    )


def _often(drifts: tuple[datetime, ...], now: datetime) -> bool:
    """Somebody who puts things back so often will go on with it."""
    return sum(1 for at in drifts if at > now - DRIFT_WINDOW) >= DRIFTS


def _how_it_ended(status: Status) -> str:
    attempt = status.attempt
    if attempt is None:
        return ""
    return f"attempt {attempt.id}: {attempt.outcome or 'unfinished'}: {attempt.outcome_message}"


def _target_missing(seen: Observed) -> str:
    name = seen.spec.target_ref.name if seen.spec else ""
    return f"spec.targetRef: Deployment {name} does not exist in this namespace: create it or correct the name"


def _route_reverted(seen: Observed) -> str:
    name = seen.spec.traffic.http_route.name if seen.spec else ""
    setting = _let_alone("HTTPRoute", name, "jqPathExpressions [.spec.rules[].backendRefs]", "/spec/rules")
    return f"somebody put HTTPRoute {name} back without the canary backend. {setting}"


def _pins_reverted(seen: Observed) -> str:
    name = seen.spec.traffic.service.name if seen.spec else ""
    setting = _let_alone("Service", name, "jsonPointers [/spec/selector]", "/spec/selector")
    return f"somebody took pod-template-hash, which keeps it to stable's pods, off Service {name}. {setting}"


def _let_alone(kind: str, name: str, for_argo: str, for_flux: str) -> str:
    """What to write where, so that a tool leaves alone what a rollout changes."""
    return (
        f"Tell that tool to leave it alone. Argo CD: ignoreDifferences with kind {kind}, name {name}, {for_argo}, and "
        f"syncOptions [RespectIgnoreDifferences=true]. Flux: spec.ignore with paths [{for_flux}] and target "
        f"{{kind: {kind}, name: {name}}}. Others: docs/gitops.md. Then: kubectl canary resume"
    )
