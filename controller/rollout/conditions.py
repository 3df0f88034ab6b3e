"""Conditions, as kubectl wait, kstatus (Flux, Helm) and Argo CD read them.

`Reconciling` and `Stalled` follow kstatus: present only while they are true. `Ready` is Unknown while a
rollout runs. A change of `message` alone does not move `lastTransitionTime`.
"""

from __future__ import annotations

from datetime import datetime

from controller.model.status import ACTIVE, Condition, Outcome, Phase, Status

PEOPLE = frozenset({"AwaitingApproval", "Frozen", "Paused"})
"""reasons that only a person or the clock ends"""
HOLDS = frozenset(
    {
        "RouteReverted",
        "TrafficLowered",
        "StableTooSmall",
        "TrafficMismatch",
        "ImageMismatch",
        "RetreatedTooOften",
        "BaselineNotReady",
        "MinRequests",
        "Suspicious",
        "NoBaselineTraffic",
        "BothArmsSuffer",
        "GaugeHigher",
        "GaugeMissing",
        "NotCertified",
        "ObjectiveMissed",
        "PodsTooYoung",
        "PinsLost",
        "PinsReverted",
        "RouteNotAccepted",
        "RouteMissing",
        "RouteNotForService",
        "CanaryInRoute",
        "RouteForbidden",
        "SessionPersistence",
        "NewerAnalysis",
        "NameTaken",
        "WeightTooFine",
        "NoData",
        "MetricsUnavailable",
        "Forbidden",
        "Refused",
    }
)
"""reasons for which the weight stays; each ends by itself when its cause does, or by an edit"""
TO_MEND = frozenset(
    {
        "CanaryInRoute",
        "Conflict",
        "ErrorsNotCounted",
        "EvidenceMissing",
        "InvalidSpec",
        "LabelReserved",
        "NoRevisionHistory",
        "NotPassedBefore",
        "PolicyRefused",
        "RecreateNeedsFullStep",
        "RouteForbidden",
        "RouteMissing",
        "RouteNotAccepted",
        "RouteNotForService",
        "RouteOwned",
        "ServiceMissing",
        "ServiceNotPinnable",
        "ServicePortMissing",
        "ServiceSelectsNothing",
        "ServiceSelectsOthers",
        "SessionPersistence",
        "SourceMissing",
        "SourceNotAllowed",
        "TargetMissing",
        "TargetPaused",
        "TemplateInvalid",
        "TemplateMissing",
        "ThresholdNotABound",
    }
)
"""reasons for which nothing could be released: somebody must edit what the message names"""
TO_COME = frozenset({"EvidenceUnavailable", "PolicyUnreadable", "WaitingForStable"})
"""reasons for which an edit that is held has not begun yet"""


def _how_held(status: Status) -> str:
    match status:
        case Status(edits_held=True, rests_paused=True):
            return "paused at rest, and a dry-run edit that would unpause was refused: no MutatingAdmissionPolicy here"
        case Status(edits_held=True):
            return "a dry-run edit came back paused"
        case Status(rests_paused=True):
            return "no dry-run edit that would unpause has been refused yet: is the policy serin-hold in force?"
    return "no dry-run edit has come back paused yet"


def _not_held(status: Status) -> str:
    """Configuration whose change is no change of the template, by the names that stable's template uses."""
    used = status.stable.uses if status.stable else ()
    return ", ".join(one for one in used if one.startswith(("ConfigMap/", "Secret/")))


def render_conditions(status: Status, now: datetime) -> tuple[Condition, ...]:
    """The conditions of `status`, keeping the transition time of those that did not change."""
    before = {condition.type: condition for condition in status.conditions}
    reason, message = status.reason or status.phase, status.message

    def condition(kind: str, value: str, why: str = reason, text: str = message) -> Condition:
        was = before.get(kind)
        since = was.last_transition_time if was and was.status == value else now
        return Condition(kind, value, why or "None", text, since, status.observed_generation)

    at_rest = status.phase in {Phase.IDLE, Phase.ROLLED_BACK}
    pending_well = status.reason in {"WaitingForStable", "NoPodsYet", ""}
    accepted = pending_well if status.phase is Phase.PENDING else not (at_rest and status.reason in TO_MEND)
    rolled_back = status.phase is Phase.ROLLED_BACK
    active = status.phase in ACTIVE
    rows = [
        condition("Accepted", "True" if accepted else "False"),
        condition(
            "EditsHeld",
            "True" if status.edits_held else "False",
            "Proven" if status.edits_held else "NotProven",
            _how_held(status),
        ),
    ]
    if edited_in_place := _not_held(status):
        text = (
            f"{edited_in_place}: an edit in place reaches stable's pods at once; give them a new name with each change"
        )
        rows.append(condition("ConfigNotHeld", "True", "EditedInPlace", text[:1024]))
    if status.stable_only:
        text = (
            "the gateway treats requests to the canary differently, add the Service that is missing to "
            f"spec.targetRefs: {'; '.join(status.stable_only)}"
        )
        rows.append(condition("PolicyNotOnCanary", "True", "AttachedToStableOnly", text[:1024]))
    if not accepted or rolled_back:
        rows += [condition("Ready", "False"), condition("Stalled", "True")]
    elif active or status.phase is Phase.PENDING or status.reason in TO_COME:
        rows += [condition("Ready", "Unknown"), condition("Reconciling", "True")]
    else:
        rows.append(condition("Ready", "True"))
    if rolled_back:
        rows.append(condition("RolledBack", "True"))
    if status.phase is Phase.IDLE and status.attempt and status.attempt.outcome is Outcome.PROMOTED:
        rows.append(condition("Promoted", "True"))
    if active and status.reason not in PEOPLE | HOLDS and status.phase is not Phase.RETREATED:
        rows.append(condition("Progressing", "True"))
    if status.reason == "AwaitingApproval":
        rows.append(condition("AwaitingApproval", "True"))
    if active and status.reason == "Frozen":
        rows.append(condition("Frozen", "True"))
    if active and status.attempt and status.attempt.paused:
        rows.append(condition("Paused", "True"))
    if active and (status.reason in HOLDS or status.phase is Phase.RETREATED):
        rows.append(condition("Holding", "True"))
    if status.reason in {"NoData", "MetricsUnavailable"}:
        rows.append(condition("MetricsAvailable", "False"))
    return tuple(rows)
