"""What `status` says of one Canary: the first line, one command to type, a tree, an exit code. All pure.

The first line answers in this order: verdict, exposure, evidence, next, who. A person decides by it, so
nothing on it is remembered or guessed: where something could not be read, it is left out.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from controller.cli.kubectl import Object
from controller.cli.outlook import render_outlook, render_warnings
from controller.cli.text import Node, is_compared_with_fresh, parse_time, percent, plain, shown_name, span
from controller.model.template import template_hash

UNSEEN_AFTER = 60.0
"""seconds without a renewed lease after which nobody can be said to be in charge"""
ACTIVE = frozenset({"Preparing", "Progressing", "Retreated", "Releasing", "Finishing", "RollingBack"})
AT_REST = frozenset({"Pending", "Idle", "RolledBack"})
WAITS = frozenset({"AwaitingApproval", "Paused", "RetreatedTooOften", "TrafficLowered", "Frozen"})
"""reasons that only a person, a freeze or the kill switch ends"""
RESUMED = frozenset(
    {
        "GaugeHigher",
        "GaugeMissing",
        "ObjectiveMissed",
        "PinsReverted",
        "RetreatedTooOften",
        "RouteReverted",
        "TrafficLowered",
    }
)
"""reasons to hold that a Resume answers"""
MOVING = frozenset({"", "Baking", "CanaryNotReady", "Draining", "Resting", "RouteNotProgrammed", "TrafficMoved"})
"""reasons of a rollout that is on its way"""
LEFT = frozenset({"Superseded", "Withdrawn", "Deleted"})
"""outcomes in which a rollout never reached a verdict"""
SAYS_NOTHING = LEFT | {
    *("", "Idle", "Adopted", "ProvingHold", "UnjudgedRelease"),
    *("Promoted", "RolledBack", "Aborted", "Rejected", "Unjudged"),
}
"""reasons at rest that are not about an edit which is held: the controller has not looked at it yet"""
REFUSED = frozenset({"PolicyRefused", "NotPassedBefore", "EvidenceMissing"})
"""reasons that policies give: no edit of the Canary ends them"""

OK, ERROR, ROLLED_BACK, TIMEOUT, WAITING, SUPERSEDED, UNSEEN = range(7)
"""exit codes of `status`"""


@dataclass(frozen=True)
class Scene:
    """Everything `status` reads, as the API server gave it; None where it could not be read or is not there."""

    canary: Object
    now: datetime
    target: Object | None = None
    trial: Object | None = None
    """the canary Deployment"""
    route: Object | None = None
    services: tuple[Object, ...] | None = None
    pods: tuple[Object, ...] = ()
    """of the canary, read only while some are not ready"""
    lease: Object | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def name(self) -> str:
        return str(self.canary["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.canary["metadata"].get("namespace", ""))

    @property
    def spec(self) -> Object:
        return _part(self.canary, "spec")

    @property
    def status(self) -> Object:
        return _part(self.canary, "status")

    @property
    def attempt(self) -> Object:
        return _part(self.status, "attempt")

    @property
    def phase(self) -> str:
        return str(self.status.get("phase") or "Pending")

    @property
    def reason(self) -> str:
        return str(self.status.get("reason") or "")

    @property
    def is_current(self) -> bool:
        """The controller has seen this generation of the Canary."""
        return int(self.status.get("observedGeneration") or 0) >= int(self.canary["metadata"].get("generation") or 0)

    @property
    def is_refused(self) -> bool:
        return self.is_current and any(
            one.get("type") == "Accepted" and one.get("status") == "False" for one in self.status.get("conditions", [])
        )

    @property
    def has_unseen_edit(self) -> bool:
        """The API server holds an edit that no attempt has been begun for yet."""
        wanted = _part(self.target or {}, "spec")
        template = _part(wanted, "template")
        held = bool(wanted.get("paused")) and template != _part(self.status, "stable").get("template")
        if self.phase == "RolledBack":
            return held and template_hash(template) != self.status.get("rejected")
        return self.phase == "Idle" and held

    @property
    def is_edit_kept_waiting(self) -> bool:
        """The controller has looked at the edit that is held, and says why no attempt begins."""
        return self.has_unseen_edit and self.is_current and self.reason not in SAYS_NOTHING

    @property
    def was_put_back(self) -> bool:
        """After a rollback nothing of the rejected revision is held: the workload has stable's template again."""
        template = _part(self.target or {}, "spec").get("template")
        return (
            self.phase == "RolledBack" and bool(template) and template == _part(self.status, "stable").get("template")
        )

    @property
    def waits(self) -> bool:
        """Nothing goes on until a person, a freeze or the kill switch lets it."""
        return self.phase in ACTIVE and (self.reason in WAITS or bool(self.attempt.get("paused")))

    @property
    def controller_age(self) -> float | None:
        """Seconds since the leader last renewed its lease; None when the lease may not be read."""
        renewed = parse_time(_part(self.lease or {}, "spec").get("renewTime"))
        return None if renewed is None else max(0.0, (self.now - renewed).total_seconds())


def decide_exit(scene: Scene, *, attempt: str = "", fail_on_wait: bool = False) -> int:
    """The exit code of one look."""
    if scene.is_refused:
        return ERROR
    if attempt and _superseded(scene, attempt):
        return SUPERSEDED
    # Another edit than the rejected one waits for its own attempt; who asks for one attempt is told how that ended.
    if scene.phase == "RollingBack" or (scene.phase == "RolledBack" and (attempt or not scene.has_unseen_edit)):
        return ROLLED_BACK
    if scene.controller_age is not None and scene.controller_age > UNSEEN_AFTER:
        return UNSEEN
    if fail_on_wait and scene.waits:
        return WAITING
    return OK


def is_over(scene: Scene, code: int) -> bool:
    """Whether `--watch` has seen what it waited for."""
    if code == ROLLED_BACK:
        return scene.phase == "RolledBack" and scene.is_current
    return code != OK or (scene.phase == "Idle" and scene.is_current and not scene.has_unseen_edit)


def _superseded(scene: Scene, attempt: str) -> bool:
    return scene.attempt.get("id") != attempt or scene.attempt.get("outcome") in LEFT


def render_headline(scene: Scene) -> tuple[str, str]:
    """The first line and its style."""
    verdict, style = _verdict(scene)
    parts = [verdict, *_evidence(scene), *_next(scene), *_who(scene)]
    return " - ".join(part for part in parts if part), style


def _verdict(scene: Scene) -> tuple[str, str]:
    """Verdict and exposure."""
    weight = percent(float(scene.status.get("weight") or 0.0))
    plan = scene.attempt.get("plan") or []
    step = f"(step {min(_number(scene.attempt.get('step')) + 1, len(plan))}/{len(plan)})" if plan else ""
    exposed = f"{weight} {step}".strip()
    outcome = str(scene.attempt.get("outcome") or "")
    if scene.is_refused:
        return "NOT ACCEPTED", "bold red"
    match scene.phase:
        case "Idle" | "RolledBack" if scene.has_unseen_edit:
            return "HELD EDIT 0%", "bold yellow"
        case "Idle":
            return {"Promoted": "PROMOTED 100%", "Withdrawn": "WITHDRAWN", "": "STABLE"}.get(
                outcome, f"STABLE (last rollout: {plain(outcome)})"
            ), "bold green"
        case "Preparing" if scene.reason == "AwaitingApproval":
            return f"WAITING {exposed}", "bold yellow"
        case "Preparing":
            return f"PREPARING {exposed}", "bold cyan"
        case "Progressing" if scene.attempt.get("paused"):
            return f"PAUSED {exposed}", "bold yellow"
        case "Progressing" if scene.reason == "AwaitingApproval":
            return f"WAITING {exposed}", "bold yellow"
        case "Progressing" if scene.reason in WAITS or _holds(scene):
            return f"HOLD {exposed}", "bold yellow"
        case "Progressing":
            return f"GO {exposed}", "bold cyan"
        case "Retreated":
            return f"RETREATED {exposed}", "bold yellow"
        case "Releasing":
            return f"RELEASING {_rolled(scene)}".rstrip(), "bold cyan"
        case "Finishing":
            return "RELEASED 100%", "bold cyan"
        case "RollingBack":
            return f"ROLLING BACK {weight}", "bold red"
        case "RolledBack":
            return {"Aborted": "ABORTED 0%", "Rejected": "REJECTED 0%"}.get(outcome, "ROLLED BACK 0%"), "bold red"
        case "Pending":
            return "PENDING", "bold yellow"
        case unknown:
            return f"{plain(unknown)} {exposed}", "bold yellow"


def _rolled(scene: Scene) -> str:
    """How far the Deployment has rolled; weights say nothing about it, for the canary's fall while it rolls."""
    if scene.target is None:
        return ""
    return f"{_of_wanted(scene.target, 'updatedReplicas')} pods"


def _holds(scene: Scene) -> bool:
    return any(
        one.get("type") == "Holding" and one.get("status") == "True" for one in scene.status.get("conditions", [])
    )


def _evidence(scene: Scene) -> Iterator[str]:
    """What was compared, or what stands in the way of comparing."""
    if scene.phase in {"RollingBack", "RolledBack"} and not (scene.has_unseen_edit or scene.is_refused):
        yield plain(scene.attempt.get("outcomeMessage") or scene.status.get("message") or scene.reason, 240)
        return
    if scene.is_refused or scene.phase == "Pending" or not scene.is_current or scene.is_edit_kept_waiting:
        yield plain(_why(scene), 400)
        return
    if scene.phase not in ACTIVE | AT_REST:
        yield "a newer Serin than this plugin wrote that: upgrade the plugin; abort and detach work all the same"
    if scene.phase not in ACTIVE:
        return
    judged = _latest(scene.attempt)
    if scene.phase != "Retreated" and "effect" not in (judged.get("numbers") or {}):
        # Why it was off traffic for a while says nothing of how it does since.
        judged = {}
    if judged:
        yield render_judged(judged)
    requests, errors = (_number(scene.attempt.get(key)) for key in ("canaryRequests", "canaryErrors"))
    if not judged and requests:
        yield f"canary served {requests:,} requests, {errors:,} failed"
    if scene.reason not in MOVING and scene.reason not in {"AwaitingApproval", "Paused", scene.phase}:
        yield plain(_why(scene), 240)


def _why(scene: Scene) -> str:
    """Reason and message, the reason not twice."""
    if not scene.is_current:
        return "the controller has not seen this edit of the Canary yet"
    reason, message = scene.reason, str(scene.status.get("message") or "")
    if not message:
        return reason or "waiting for the controller"
    return message if not reason or message.startswith(reason) else f"{reason}: {message}"


def _latest(attempt: Object) -> Object:
    """The newest verdict or retreat of this attempt."""
    judged = [*(attempt.get("verdicts") or []), *(attempt.get("retreats") or [])]
    return max(judged, key=lambda one: str(one.get("at", "")), default={})


def render_judged(judged: Object) -> str:
    """A verdict in a person's units: percentage points, interval, limit, sample sizes.

    >>> render_judged({"metric": "errors", "numbers": {"effect": 0.004, "low": -0.001, "high": 0.009,
    ...     "margin": 0.01, "canaryRequests": 12431, "stableRequests": 37022}})
    'errors +0.4 pp [-0.1,+0.9], limit +1.0, n=12,431/37,022'
    """
    numbers = judged.get("numbers") or {}
    if "effect" not in numbers:
        return plain(judged.get("message") or judged.get("reason") or "", 240)
    text = f"{plain(judged.get('metric') or 'analysis')} {_points(numbers['effect'])} pp"
    low, high = numbers.get("low", -1.0), numbers.get("high", 1.0)
    if low > -1 or high < 1:
        text += f" [{_points(low)},{_points(high)}]"
    if "margin" in numbers:
        text += f", limit {_points(numbers['margin'])}"
    if "canaryRequests" in numbers and "stableRequests" in numbers:
        text += f", n={numbers['canaryRequests']:,.0f}/{numbers['stableRequests']:,.0f}"
    return text


def _points(fraction: float) -> str:
    """One decimal, or as many as a small number needs."""
    points = 100 * float(fraction)
    return f"{points:+.2f}" if 0 < abs(points) < 0.1 else f"{points:+.1f}"


def _next(scene: Scene) -> Iterator[str]:
    """What happens next, and when."""
    attempt, plan = scene.attempt, scene.attempt.get("plan") or []
    if scene.has_unseen_edit:
        yield (
            "the edit stays held until that has ended"
            if scene.is_edit_kept_waiting
            else "the API server holds an edit; the controller begins an attempt when it has seen it"
        )
        return
    if scene.phase == "Preparing":
        when = (
            "when it is approved"
            if scene.reason == "AwaitingApproval"
            else _lets_on(scene) or "when its pods are ready"
        )
        yield f"next {percent(float(plan[0].get('weight', 0)))} {when}" if plan else ""
    if scene.phase == "Retreated":
        yield f"users are on stable; the weight comes back {_lets_on(scene) or 'after a rest'}"
    if scene.phase == "Releasing" and scene.reason == "Frozen":
        yield f"the roll stands where it is and goes on {_lets_on(scene)}"
    elif scene.phase == "Releasing" and scene.reason != "ObjectiveMissed":
        yield "the Deployment rolls by its own strategy"
    if scene.phase == "RolledBack" and scene.reason == "TemplateReapplied" and not scene.has_unseen_edit:
        yield plain(scene.status.get("message") or "", 600)
    elif scene.was_put_back:
        yield "stable's template was put back: apply a corrected revision"
    elif scene.phase == "RolledBack":
        yield "the rejected revision stays held until it is edited or retried"
    if scene.phase != "Progressing" or not plan:
        return
    index = min(_number(attempt.get("step")), len(plan) - 1)
    step = plan[index]
    then = f"next {percent(float(plan[index + 1].get('weight', 0)))}" if index + 1 < len(plan) else "next release"
    since = parse_time(attempt.get("bakingSince"))
    if scene.reason == "AwaitingApproval":
        yield f"{then} when step {index + 1} is approved"
    elif scene.reason == "TrafficLowered":
        yield f"{then} after a resume: somebody took traffic away"
    elif when := _lets_on(scene):
        yield f"{then} {when}"
    elif since is None:
        yield f"{then} {span(float(step.get('bake') or 0))} after its traffic has arrived"
    else:
        left = float(step.get("bake") or 0) - (scene.now - since).total_seconds()
        yield f"{then} in {span(left)}" if left > 0 else f"{then} as soon as the analysis agrees"


def _lets_on(scene: Scene) -> str:
    """When a rollout goes on that only a person or the end of a freeze lets on; empty where time does."""
    if scene.reason == "Frozen":
        return "when the freeze has ended"
    return "after a resume" if scene.reason == "RetreatedTooOften" or scene.attempt.get("paused") else ""


def _who(scene: Scene) -> Iterator[str]:
    """Who wrote the change, who is asked, who is in charge."""
    attempt = scene.attempt
    if attempt and (scene.phase in ACTIVE or attempt.get("outcome")) and not scene.has_unseen_edit:
        yield render_origin(
            str(attempt.get("origin") or "unknown"),
            str(attempt.get("trust") or "T0"),
            str(attempt.get("claimedOrigin") or ""),
        )
    gates = attempt.get("gates") or []
    if gates and scene.phase in ACTIVE:
        have, count = _approvals(scene, gates)
        asked = ", waiting on an approver" if scene.reason == "AwaitingApproval" else ""
        yield f"approvals {have}/{count}{asked}"
    waiting_on = str(scene.status.get("waitingOn") or "")
    if waiting_on and scene.reason != "AwaitingApproval" and scene.phase in ACTIVE:
        yield f"waiting on {plain(waiting_on)}"
    age = scene.controller_age
    if age is not None:
        seen = f"controller {span(age)} ago"
        yield seen if age <= UNSEEN_AFTER else f"NO CONTROLLER: last seen {span(age)} ago, nothing advances"


def _approvals(scene: Scene, gates: list[Object]) -> tuple[int, int]:
    """How many people's approvals stand at the first gate that is not open yet, and how many it asks for.

    Read without the model, whose import takes longer than all of `status`. Whose rights are gone since is known to
    the controller alone, which then says so in its message.
    """
    said = [
        one
        for one in scene.status.get("decisions") or []
        if one.get("taken") and one.get("decision") == "Approve" and one.get("attempt") == scene.attempt.get("id")
        if (parse_time(one.get("expiresAt")) or scene.now) >= scene.now
    ]
    have, count = 0, 0
    for gate in gates:
        groups, count = set(gate.get("groups") or []), int(gate.get("count") or 1)
        have = len(
            {
                one.get("person") or one.get("by")
                for one in said
                if int(one.get("step") or 0) == gate["step"] and (not groups or groups & set(one.get("groups") or []))
            }
        )
        if have < count:
            break
    return have, count


def render_origin(origin: str, trust: str, claimed: str = "") -> str:
    """Who wrote the change, and how well that is known.

    >>> render_origin("ai", "T1"), render_origin("unknown", "T1", "human")
    ('AI (claimed)', 'unknown origin (claims human)')
    """
    words = {"ai": "AI", "unknown": "unknown origin"}
    known = {"T1": "claimed", "T2": "from commits", "T3": "attested"}.get(trust, "")
    if claimed and claimed != origin:
        known = f"claims {claimed}"
    name = words.get(origin, origin)
    return plain(f"{name} ({known})" if known else name)


def render_suggestion(scene: Scene) -> str:
    """The one command that a person would type now; empty when there is nothing to do."""
    where = f"{shlex.quote(scene.name)} -n {shlex.quote(scene.namespace)}"
    age = scene.controller_age
    if scene.is_refused and scene.reason in REFUSED:
        return f"kubectl canary plan {where}   # what the policies ask of this edit"
    if scene.is_refused:
        return f"kubectl edit canary {where}"
    if age is not None and age > UNSEEN_AFTER and scene.phase in ACTIVE:
        return f"kubectl canary detach {where}   # all traffic to stable, without a controller"
    if scene.was_put_back:
        return ""
    if scene.phase == "RolledBack" and not scene.has_unseen_edit:
        return f'kubectl canary retry {where} --reason "..."   # or apply a corrected revision'
    if scene.reason == "AwaitingApproval":
        return f'kubectl canary approve {where} --reason "..."'
    if scene.reason == "StableTooSmall":
        return f'kubectl canary resume {where} --reason "..."   # only if the pods stable has carry all requests'
    if scene.attempt.get("paused") or scene.reason in RESUMED:
        return f'kubectl canary resume {where} --reason "..."'
    if scene.phase in ACTIVE and scene.phase not in {"RollingBack", "Finishing"}:
        return f'kubectl canary abort {where} --reason "..."   # all traffic to stable'
    return ""


def render_below(scene: Scene) -> Node:
    """What is there below the Canary: both revisions, Services, route."""
    below = [_stable_node(scene)]
    if scene.trial is not None or scene.phase in ACTIVE or scene.phase == "RolledBack":
        below.append(_canary_node(scene))
    if scene.services is not None:
        below.append(_services_node(scene))
    if scene.route is not None:
        # The Services are pinned while a rollout runs: who calls them by their address reaches stable.
        around = [Node("in-cluster traffic: not canaried", "dim")] if scene.phase in ACTIVE else []
        around += [Node(f"warning: {plain(text, 1024)}", "yellow") for text in _not_on_canary(scene)]
        shares = f"route    HTTPRoute {plain(scene.route['metadata']['name'])}  {_shares(scene)}"
        below.append(Node(shares, "", tuple(around)))
    if scene.phase in ACTIVE:
        below += _passed_over(scene)
    if scene.phase in ACTIVE or scene.phase == "Idle":
        below += _outlook_nodes(scene)
    below += [Node(plain(note), "dim") for note in scene.notes]
    return Node(f"Canary {plain(scene.namespace)}/{plain(scene.name)}", "bold", tuple(below))


def _not_on_canary(scene: Scene) -> Iterator[str]:
    """Policies of the gateway that apply to stable only."""
    for one in scene.status.get("conditions") or []:
        if one.get("type") == "PolicyNotOnCanary" and one.get("status") == "True":
            yield str(one.get("message") or one.get("reason"))


def _passed_over(scene: Scene) -> list[Node]:
    """What somebody lets this attempt pass for a while."""
    said = [
        (one, until)
        for one in scene.status.get("decisions") or []
        if one.get("taken") and one.get("decision") in {"BreakGlass", "Override"}
        if one.get("attempt") == scene.attempt.get("id") and (until := parse_time(one.get("expiresAt"))) is not None
        if scene.now < until
    ]
    return [
        Node(f"{shown_name(one.get('by', ''))} until {until:%H:%M} UTC: {plain(one.get('answer', ''), 300)}", "yellow")
        for one, until in said
    ]


def _outlook_nodes(scene: Scene) -> list[Node]:
    """What the plan can see and cannot; at rest it is about the next rollout."""
    outlook = _part(scene.status, "outlook")
    warnings = tuple(Node(line, "yellow") for line in render_warnings(outlook))
    lines = render_outlook(outlook)
    if not lines:
        return list(warnings)
    return [Node(f"outlook  {lines[0]}", "dim", (*(Node(line, "dim") for line in lines[1:]), *warnings))]


def _stable_node(scene: Scene) -> Node:
    stable = _part(scene.status, "stable")
    name = plain(_part(scene.spec, "targetRef").get("name", ""))
    if scene.target is None:
        return Node(f"stable   Deployment {name}  could not be read", "yellow")
    text = f"stable   Deployment {name}"
    if not stable:
        return Node(f"{text}  no stable revision known yet  {_images(_template(scene.target))}".rstrip(), "yellow")
    text += f"  hash {plain(stable.get('hash', ''))}  {plain(', '.join(stable.get('images') or []), 300)}"
    held = bool(_part(scene.target, "spec").get("paused"))
    text += f"  pods {_ready(scene.target)}" + ("  edits wait: held" if held else "")
    below = []
    if held and _template(scene.target) != stable.get("template"):
        below.append(Node(f"held edit  {_images(_template(scene.target))}", "yellow"))
    return Node(text, "green", tuple(below))


def _canary_node(scene: Scene) -> Node:
    attempt = scene.attempt
    who = f"attempt {plain(attempt.get('id', ''))}  {plain(', '.join(attempt.get('images') or []), 300)}"
    if scene.trial is None:
        return Node(f"canary   {who}  no pods", "dim" if scene.phase == "RolledBack" else "cyan", _differences(attempt))
    text = f"canary   Deployment {plain(scene.trial['metadata']['name'])}  {who}"
    text += f"  pods {_ready(scene.trial)}"
    troubles = [*_failures(scene.trial), *(trouble for pod in scene.pods for trouble in _troubles(pod))]
    below = (*_differences(attempt), *(Node(one, "red") for one in troubles[:5]))
    return Node(text, "yellow" if troubles else "cyan", below)


def _differences(attempt: Object) -> tuple[Node, ...]:
    """What the revision changes, where its images, which stand beside it, are those of stable."""
    if attempt.get("images") != attempt.get("fromImages"):
        return ()
    changed = [f"{one.get('name', '')}: {', '.join(one.get('paths') or [])}" for one in attempt.get("classes") or []]
    return tuple(Node(f"changes {plain(one, 300)}", "dim") for one in changed[:5])


def _ready(deployment: Object) -> str:
    return f"{_of_wanted(deployment, 'readyReplicas')} ready"


def _of_wanted(deployment: Object, counted: str) -> str:
    """So many of the wanted pods: `counted` names the field of its status."""
    wanted = _part(deployment, "spec").get("replicas", 1)
    return f"{_number(_part(deployment, 'status').get(counted))}/{_number(wanted)}"


def _failures(deployment: Object) -> Iterator[str]:
    for one in _part(deployment, "status").get("conditions") or []:
        if one.get("type") == "ReplicaFailure" and one.get("status") == "True":
            yield plain(f"{one.get('reason', 'FailedCreate')}: {one.get('message', '')}", 300)


def _troubles(pod: Object) -> Iterator[str]:
    """Why a pod is not ready: what its containers wait for, or what ended them."""
    name = plain(pod["metadata"].get("name", ""))
    status = _part(pod, "status")
    for one in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = _part(_part(one, "state"), "waiting")
        ended = _part(_part(one, "state"), "terminated") or _part(_part(one, "lastState"), "terminated")
        if one.get("ready") or waiting.get("reason") in {"ContainerCreating", "PodInitializing"}:
            continue
        why = waiting or ended
        if why:
            restarts = _number(one.get("restartCount"))
            again = f", {restarts} restarts" if restarts else ""
            yield plain(f"pod {name}: {why.get('reason', '')} {why.get('message', '')}".rstrip() + again, 300)
    for one in status.get("conditions") or []:
        if one.get("type") == "PodScheduled" and one.get("status") == "False":
            yield plain(f"pod {name}: {one.get('reason', '')} {one.get('message', '')}".rstrip(), 300)


def _services_node(scene: Scene) -> Node:
    pinned = [
        f"{plain(service['metadata']['name'])} pinned to {plain(_selector(service).get('pod-template-hash', ''))}"
        for service in scene.services or ()
        if "serin.dev/pinned" in (service["metadata"].get("annotations") or {})
    ]
    if pinned:
        return Node("services " + ", ".join(pinned))
    return Node(f"services {plain(_service_name(scene))} not pinned")


def _shares(scene: Scene) -> str:
    """What each backend of the rules that name the stable Service, or only the canary's, gets now."""
    stable, trial, fresh = _service_name(scene), f"{scene.name}-canary", f"{scene.name}-baseline"
    shares, beside = [], 0.0
    for rule in _part(scene.route or {}, "spec").get("rules") or []:
        weights = {one.get("name"): _number(one.get("weight", 1)) for one in rule.get("backendRefs") or []}
        if stable in weights or trial in weights:
            baseline = weights.get(fresh, 0) if is_compared_with_fresh(scene.canary) else 0
            every = weights.get(stable, 0) + weights.get(trial, 0) + baseline
            shares.append(100.0 * weights.get(trial, 0) / every if every else 0.0)
            beside = 100.0 * baseline / every if every else 0.0
    if not shares:
        return f"no rule names Service {plain(stable)}"
    if max(shares) - min(shares) < 0.005:
        told = f"stable {percent(100 - shares[0] - beside)}, canary {percent(shares[0])}"
        return told + (f", fresh baseline {percent(beside)}" if beside else "")
    return "canary " + ", ".join(percent(share) for share in shares) + " (rules differ)"


def summarize(scene: Scene, code: int) -> Object:
    """What `-o json` prints: stable names, no rendering, the analysis' own memory left out."""
    attempt = {key: value for key, value in scene.attempt.items() if key not in {"judge", "analysis"}}
    stable = {key: value for key, value in _part(scene.status, "stable").items() if key != "template"}
    return {
        "name": scene.name,
        "namespace": scene.namespace,
        "line": render_headline(scene)[0],
        "exitCode": code,
        "suggested": render_suggestion(scene).split("   #")[0],
        "phase": scene.phase,
        "reason": scene.reason,
        "message": str(scene.status.get("message") or ""),
        "weight": float(scene.status.get("weight") or 0.0),
        "step": min(_number(scene.attempt.get("step")) + 1, len(scene.attempt.get("plan") or [])),
        "steps": len(scene.attempt.get("plan") or []),
        "waiting": scene.waits,
        "waitingOn": str(scene.status.get("waitingOn") or ""),
        "editHeld": scene.has_unseen_edit,
        "current": scene.is_current,
        "controllerAgeSeconds": None if scene.controller_age is None else round(scene.controller_age, 1),
        "stable": stable,
        "attempt": attempt,
        "conditions": scene.status.get("conditions") or [],
    }


def _part(body: Object, key: str) -> Object:
    """A nested mapping, empty where there is none."""
    part = body.get(key)
    return part if isinstance(part, dict) else {}


def _template(deployment: Object) -> Object:
    return _part(_part(deployment, "spec"), "template")


def _images(template: Object) -> str:
    return plain(", ".join(str(one.get("image", "")) for one in _part(template, "spec").get("containers") or []), 300)


def _selector(service: Object) -> Object:
    return _part(_part(service, "spec"), "selector")


def _service_name(scene: Scene) -> str:
    return str(_part(_part(scene.spec, "traffic"), "service").get("name", ""))


def _number(value: Any) -> int:
    return int(value) if isinstance(value, int | float) else 0
