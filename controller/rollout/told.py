"""What people are told of a decision: in status, conditions and printer columns, and in words that name the fix."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from controller.model.redact import redact
from controller.model.status import ACTIVE, Outcome, Phase, Status
from controller.model.world import Observed
from controller.rollout.conditions import TO_COME, TO_MEND, render_conditions
from controller.rollout.moves import Become, Decision, Do, Wait

NEWS_AFTER = timedelta(seconds=5)
"""a new reason to wait is written once a phase or step is this old"""
JUDGED: dict[str, str] = {Outcome.PROMOTED: "pass", Outcome.ROLLED_BACK: "fail"}
"""what an outcome says of the revision; whoever took one back before has judged nothing"""


def told(seen: Observed, decision: Decision, now: datetime) -> Decision:
    """Every change of memory carries its reason, conditions and our term; a new reason to wait is told once."""
    status = seen.status
    stable_only = status.stable_only if seen.weight.stable_only is None else seen.weight.stable_only
    match decision:
        case Do():
            return replace(decision, message=passed_on(decision.message))
        case Wait(reason="Left" | "NewerStatus"):
            return decision
        case Wait(reason=reason, message=message) if (
            reason == status.reason
            and seen.generation == status.observed_generation
            and stable_only == status.stable_only
            and (not _says_what_to_do(status) or passed_on(message) == status.message)
        ):
            return decision
        case Wait() if _just_begun(status, now) and seen.generation == status.observed_generation:
            return decision
        case Wait(reason=reason, message=message):
            changed = status
        case Become(status=changed, reason=reason, message=message):
            pass
    message = passed_on(message)
    known = changed.but(
        leader_epoch=max(changed.leader_epoch, seen.term),
        observed_generation=seen.generation,
        reason=reason[:63],
        message=message,
        stable_only=stable_only,
        **_shown(changed, reason),
    )
    return Become(known.but(conditions=render_conditions(known, now)), reason, message)


def passed_on(message: str) -> str:
    """What pods, routes and people say, as it goes on to statuses, Events and logs."""
    return redact(message)[:1024]


def _says_what_to_do(status: Status) -> bool:
    """Whoever looks goes by the message: what is still missing, which object is in the way, who does not answer."""
    at_rest = status.phase not in ACTIVE and status.reason in TO_MEND | TO_COME
    return status.phase is Phase.PENDING or at_rest


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
    people = {"AwaitingApproval": "approval", "Frozen": "freeze", "Paused": "resume", "RetreatedTooOften": "person"}
    return {
        "step_shown": f"{min(attempt.step + 1, len(attempt.plan))}/{len(attempt.plan)}",
        "verdict_shown": JUDGED.get(attempt.outcome or "", "inconclusive"),
        "origin_shown": attempt.origin,
        "waiting_on": people.get(reason, ""),
    }


def how_it_ended(status: Status) -> str:
    attempt = status.attempt
    if attempt is None:
        return ""
    return f"attempt {attempt.id}: {attempt.outcome or 'unfinished'}: {attempt.outcome_message}"


def target_missing(seen: Observed) -> str:
    """Why there is no target to go on with: it is not there, it goes, or it is another one under the same name."""
    name, target = seen.spec.target_ref.name if seen.spec else "", seen.target
    if target is None:
        return f"spec.targetRef: Deployment {name} does not exist in this namespace: create it or correct the name"
    if target.deleting:
        return f"Deployment {name} is being deleted: made again under its name, its revision would not be held"
    return f"Deployment {name} was deleted and made again: its revision was not held, the next edit is"


def route_reverted(seen: Observed) -> str:
    name = seen.spec.traffic.http_route.name if seen.spec else ""
    setting = _let_alone("HTTPRoute", name, "jqPathExpressions [.spec.rules[].backendRefs]", "/spec/rules")
    return f"somebody put HTTPRoute {name} back without the canary backend. {setting}"


def pins_reverted(seen: Observed) -> str:
    name = seen.spec.traffic.service.name if seen.spec else ""
    setting = _let_alone("Service", name, "jsonPointers [/spec/selector]", "/spec/selector")
    return f"somebody took pod-template-hash, which keeps it to stable's pods, off Service {name}. {setting}"


def template_reapplied(seen: Observed, now: datetime) -> str:
    """Who brings what was rejected again and again, and what ends that."""
    name = seen.spec.target_ref.name if seen.spec else ""
    who = seen.target.applied_by if seen.target and seen.target.applied_by else "somebody"
    return (
        f"{who} applied the rejected template of Deployment {name} again at {now:%H:%M:%S} UTC, while pods of it are "
        "left since the way back is stuck: it gets stable's each time. Put stable's revision or a corrected one where "
        f"{who} takes it from, or stop that tool meanwhile. Argo CD: spec.syncPolicy.automated of the Application. "
        "Flux: spec.suspend of the Kustomization. What keeps stable's pods from starting: kubectl describe "
        f"deployment {name}"
    )


def reached_beside(seen: Observed) -> str:
    name = seen.spec.traffic.service.name if seen.spec else ""
    return (
        f"Service {name}, or another one of the target, selects stable's pods alone, and its EndpointSlices hold "
        f"{', '.join(seen.pins.foreign)} too: what Kubernetes wrote there goes within seconds; from an EndpointSlice "
        "that somebody else wrote take the label kubernetes.io/service-name off"
    )


def _let_alone(kind: str, name: str, for_argo: str, for_flux: str) -> str:
    """What to write where, so that a tool leaves alone what a rollout changes."""
    return (
        f"Tell that tool to leave it alone. Argo CD: ignoreDifferences with kind {kind}, name {name}, {for_argo}, and "
        f"syncOptions [RespectIgnoreDifferences=true]. Flux: spec.ignore with paths [{for_flux}] and target "
        f"{{kind: {kind}, name: {name}}}. Others: docs/gitops.md. Then: kubectl canary resume"
    )
