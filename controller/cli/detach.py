"""`kubectl canary detach`: takes Serin off one workload, as the user, with no controller there.

One look, one act, and look again: whatever stopped it half way, the next run goes on from what it sees. The
order is its meaning: users to stable first, canary pods away before the pins that keep users off them, the
finalizer last. The changes themselves are the controller's own, so that both leave the same behind.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from controller.cli.decisions import confirm
from controller.cli.kubectl import (
    API,
    APPS,
    CORE,
    GATEWAY,
    Cluster,
    Denied,
    Failure,
    Missing,
    Object,
    Stale,
    UnknownKind,
    path_of,
)
from controller.cli.screen import Screen
from controller.cli.text import is_compared_with_fresh, plain
from controller.model.template import plain_template
from controller.routers.split import Names, render_disowning, render_removal
from controller.workloads.parse import EPOCH, annotations_of
from controller.workloads.render import forget_ops, release_ops, restore_ops, unannotate_ops, unchanged_ops, unpin_ops
from controller.workloads.services import Selecting, pin_of

Op = dict[str, Any]

FINALIZER = "serin.dev/release"
MANAGER = "serin"
"""our field manager, whose entries are taken out again"""
PATIENCE = 60.0
"""seconds to wait for the gateway, or for pods to end"""
TELL = 5.0
"""seconds between two words about what is waited for"""
BAD = frozenset({"RolledBack", "Aborted", "Rejected"})


@dataclass(frozen=True)
class Facts:
    """Everything of one Canary that is there now."""

    canary: Object
    target: Object | None = None
    route: Object | None = None
    services: tuple[Object, ...] = ()
    trial: Object | None = None
    trial_service: Object | None = None
    pods: tuple[Object, ...] = ()
    """of the canary"""

    @property
    def name(self) -> str:
        return str(self.canary["metadata"]["name"])

    @property
    def names(self) -> Names:
        service = self.canary["spec"]["traffic"]["service"]
        # Only its part in the route is taken out here: its objects are the Canary's and go with it.
        baseline = f"{self.name}-baseline" if is_compared_with_fresh(self.canary) else ""
        namespace = str(self.canary["metadata"].get("namespace", ""))
        return Names(str(service["name"]), int(service["port"]), f"{self.name}-canary", baseline, namespace)


@dataclass(frozen=True)
class Act:
    """One thing to do: a patch, a deletion (no `ops`), or waiting (no `kind`)."""

    say: str
    kind: str = ""
    name: str = ""
    ops: tuple[Op, ...] = ()
    left: str = ""
    """what is waited for, as far as it has come"""


def run(options: argparse.Namespace, cluster: Cluster, screen: Screen) -> int:
    """Show the plan, ask, and carry it out until nothing is left."""
    namespace = options.namespace or cluster.namespace()
    facts = read_facts(cluster, namespace, options.name)
    if facts is None:
        screen.say(f"No Canary {plain(options.name)} in namespace {plain(namespace)}: nothing to detach.")
        return 0
    acts = plan(facts)
    for number, act in enumerate(acts, start=1):
        screen.say(f"{number}. {act.say}")
    if not options.yes and not confirm(f"Detach Serin from {plain(options.name)} in namespace {plain(namespace)}"):
        screen.say("Nothing changed.")
        return 1
    carry_out(lambda: read_facts(cluster, namespace, options.name), cluster, namespace, screen.say)
    screen.say(f"Detached: {plain(options.name)} is released by its own Deployment again.", "green")
    return 0


def carry_out(
    look: Callable[[], Facts | None],
    cluster: Cluster,
    namespace: str,
    say: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """One act for one look, until nothing is left to do.

    Raises: Failure: an act was refused, or what it waits for did not come.
    """
    said, waited, told = "", 0.0, 0.0
    while (facts := look()) is not None:
        act = next(iter(plan(facts)), None)
        if act is None:
            return
        if act.say != said:
            say(act.say if act.kind else f"{act.say} ({PATIENCE:.0f}s at most): {act.left}")
            said, waited, told = act.say, 0.0, 0.0
        elif waited < PATIENCE and waited - told >= TELL:
            say(f"  {waited:.0f}s: {act.left or act.say}")
            told = waited
        elif waited >= PATIENCE:
            raise Failure(f"not done after {PATIENCE:.0f}s: {act.say}; run detach again, it goes on from here")
        if act.kind:
            try:
                _do(act, cluster, namespace)
            except Stale:
                pass  # somebody else wrote between look and act: look again
            except Denied as denied:
                raise Denied(f"{denied}\nran as far as: {act.say}; with that right, run detach again") from denied
        if waited or not act.kind:
            sleep(0.5)
        waited += 0.5


def _do(act: Act, cluster: Cluster, namespace: str) -> None:
    if act.ops:
        cluster.patch(act.kind, namespace, act.name, list(act.ops))
    else:
        api = {"canaries.serin.dev": API, "deployments.apps": APPS}.get(act.kind, CORE)
        cluster.delete(path_of(api, namespace, act.kind.partition(".")[0], act.name))


def plan(facts: Facts) -> list[Act]:
    """What is left to do, in order; empty when nothing of ours is there."""
    acts = [*_route_acts(facts)]
    if not facts.canary["metadata"].get("deletionTimestamp"):
        acts.append(Act("delete the Canary: nothing new is held", "canaries.serin.dev", facts.name))
    acts += _canary_acts(facts, is_moved=bool(acts) and acts[0].kind == "httproutes.gateway.networking.k8s.io")
    acts += _target_acts(facts)
    acts += _pin_acts(facts)
    finalizers = facts.canary["metadata"].get("finalizers") or []
    if FINALIZER in finalizers:
        ops = (
            {"op": "test", "path": "/metadata/finalizers", "value": finalizers},
            {"op": "replace", "path": "/metadata/finalizers", "value": [one for one in finalizers if one != FINALIZER]},
        )
        acts.append(Act("let the Canary go: remove its finalizer", "canaries.serin.dev", facts.name, ops))
    return acts


def _route_acts(facts: Facts) -> list[Act]:
    if facts.route is None:
        return []
    kind, name = "httproutes.gateway.networking.k8s.io", str(facts.route["metadata"]["name"])
    removal = render_removal(facts.route, facts.names)
    if removal:
        text = f"all traffic to stable: take {facts.names.canary} out of HTTPRoute {plain(name)}"
        return [Act(text, kind, name, tuple(removal))]
    disowning = render_disowning(facts.route, MANAGER)
    return [Act(f"give HTTPRoute {plain(name)} back to its owner", kind, name, tuple(disowning))] if disowning else []


def _canary_acts(facts: Facts, *, is_moved: bool) -> list[Act]:
    """The canary's objects, once the gateway sends them nothing."""
    acts = []
    there = facts.trial is not None or facts.trial_service is not None
    if there and facts.route is not None and (is_moved or not is_programmed(facts.route)):
        acts.append(Act("wait until every gateway has taken the route over", left=_gateways_left(facts.route)))
    if facts.trial is not None:
        acts.append(Act(f"delete Deployment {facts.names.canary}", "deployments.apps", facts.names.canary))
    if facts.trial_service is not None:
        acts.append(Act(f"delete Service {facts.names.canary}", "services", facts.names.canary))
    if facts.pods or facts.trial is not None:
        names = [plain(pod["metadata"].get("name", "")) for pod in facts.pods]
        left = (
            f"{len(names)} left: {', '.join(names[:3])}{', ...' if names[3:] else ''}"
            if names
            else "none seen any more"
        )
        acts.append(Act("wait until the canary's pods have ended", left=left))
    return acts


def is_programmed(route: Object) -> bool:
    """Every gateway the route is attached to reports its present generation."""
    parents, accepted = _gateways(route)
    return parents > 0 and accepted >= parents


def _gateways(route: Object) -> tuple[int, int]:
    """How many there are, and how many of them report the route's present generation."""
    parents = (route.get("status") or {}).get("parents") or []
    generation = route["metadata"].get("generation", 0)
    accepted = [
        one
        for parent in parents
        for one in parent.get("conditions") or []
        if one.get("type") == "Accepted" and one.get("observedGeneration", 0) >= generation
    ]
    return len(parents), len(accepted)


def _gateways_left(route: Object) -> str:
    parents, accepted = _gateways(route)
    return f"{accepted} of {parents} report it" if parents else "no gateway has reported anything of this route yet"


def _target_acts(facts: Facts) -> list[Act]:
    """A held or rejected template goes back to stable's and the Deployment runs by itself again."""
    status, target = facts.canary.get("status") or {}, facts.target
    stable, attempt = status.get("stable") or {}, status.get("attempt") or {}
    if target is None:
        return []
    kind, name = "deployments.apps", str(target["metadata"]["name"])
    paused, ours = bool(target["spec"].get("paused")), target["metadata"].get("uid") == stable.get("uid")
    differs = ours and plain_template(target["spec"]["template"]) != plain_template(stable.get("template") or {})
    if differs and (paused or attempt.get("outcome") in BAD):
        ops = restore_ops(target, stable["template"], "", paused=False)
        return [Act(f"set the held template of Deployment {plain(name)} back to stable's", kind, name, tuple(ops))]
    if ours and paused and (status.get("holding") or status.get("restsPaused") or EPOCH in annotations_of(target)):
        return [Act(f"unpause Deployment {plain(name)}", kind, name, tuple(release_ops(target, "")))]
    mark = unannotate_ops(target, EPOCH)
    if mark:
        ops = [*unchanged_ops(target), *mark]
        return [Act(f"take our mark off Deployment {plain(name)}", kind, name, tuple(ops))]
    return _give_back(target, kind, f"give Deployment {plain(name)} back to its owner")


def _pin_acts(facts: Facts) -> list[Act]:
    acts = []
    for service in facts.services:
        pinned, name = pin_of(service, facts.name), str(service["metadata"]["name"])
        if pinned:
            selecting = Selecting(name, dict(service["spec"].get("selector") or {}), pinned, False, service)
            acts.append(Act(f"take the pin off Service {plain(name)}", "services", name, tuple(unpin_ops(selecting))))
        else:
            acts += _give_back(service, "services", f"give Service {plain(name)} back to its owner")
    return acts


def _give_back(body: Object, kind: str, say: str) -> list[Act]:
    """Our entries out of `managedFields`, so that the owner's next server-side apply is not refused."""
    ops = forget_ops(body, MANAGER)
    return [Act(say, kind, str(body["metadata"]["name"]), tuple(ops))] if ops else []


def read_facts(cluster: Cluster, namespace: str, name: str) -> Facts | None:
    """Everything there is, read live; None when the Canary is gone. Raises: Failure for what cannot be read."""
    try:
        canary = cluster.read(path_of(API, namespace, "canaries", name))
    except UnknownKind:
        raise
    except Missing:
        return None
    spec, trial = canary["spec"], f"{name}-canary"
    attempt = str(((canary.get("status") or {}).get("attempt") or {}).get("id") or "none")
    answers = cluster.read_all(
        path_of(APPS, namespace, "deployments", spec["targetRef"]["name"]),
        path_of(GATEWAY, namespace, "httproutes", spec["traffic"]["httpRoute"]["name"]),
        path_of(CORE, namespace, "services"),
        path_of(APPS, namespace, "deployments", trial),
        path_of(CORE, namespace, "pods", labelSelector=f"serin.dev/canary={attempt}"),
    )
    for answer in answers:
        if isinstance(answer, Failure) and not isinstance(answer, Missing):
            raise answer
    target, route, services, deployment, pods = (None if isinstance(one, Failure) else one for one in answers)
    every = list((services or {}).get("items", []))
    uid = canary["metadata"].get("uid")
    trial_service = next((one for one in every if one["metadata"]["name"] == trial and is_owned(one, uid)), None)
    return Facts(
        canary=canary,
        target=target,
        route=route,
        services=tuple(one for one in every if one is not trial_service),
        trial=deployment if deployment is not None and is_owned(deployment, uid) else None,
        trial_service=trial_service,
        pods=tuple((pods or {}).get("items", [])),
    )


def is_owned(body: Object, uid: object) -> bool:
    """Made for this Canary: an object of the same name that somebody else made stays."""
    return any(owner.get("uid") == uid for owner in body["metadata"].get("ownerReferences") or [])
