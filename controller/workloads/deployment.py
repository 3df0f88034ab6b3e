"""`ports.Workload` for Deployments: fetch here, parse and render in the pure modules beside this one.

The one thing to know: the user's Deployment stays the stable one. A held edit is `spec.paused` on it, a canary is
a Deployment of its own, a rollback leaves the target's pods alone. Every write is a JSON patch that tests the
version it was decided on, so a late one of a stalled leader fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from controller.errors import Conflict, Forbidden, NeedsUser, NotFound, Refused
from controller.kube.cache import Cache, Kept
from controller.kube.fence import Fence
from controller.kube.resources import DEPLOYMENTS, REPLICASETS, SERVICES, Resource
from controller.kube.transport import Api, Lane
from controller.model.spec import CanarySpec
from controller.model.template import HASH_LABEL, plain_template, template_hash
from controller.model.world import CanaryPods, Pins, Target
from controller.ports import Ref
from controller.workloads.hold import Hold, find_hold
from controller.workloads.parse import (
    EPOCH,
    Object,
    annotations_of,
    attempt_of,
    is_owned_by,
    labels_of,
    parse_canary,
    parse_target,
    render_selector,
)
from controller.workloads.reads import CachedReads, LiveReads, Reads
from controller.workloads.render import (
    HELD_BY,
    Op,
    attempt_of_baseline,
    baseline_of,
    canary_deployment,
    canary_selector,
    canary_service,
    forget_ops,
    pause_ops,
    pin_ops,
    probe_ops,
    release_ops,
    replace_ops,
    restore_ops,
    scale_ops,
    unannotate_ops,
    unchanged_ops,
    unpin_ops,
)
from controller.workloads.services import (
    Selecting,
    find_problems,
    find_strangers,
    foreign_endpoints,
    parse_pins,
    parse_services,
)

Found = dict[str, Any]

_FORGET_TRIES = 3
_PINS_KEPT = 4096
"""answers that are remembered: Canaries come and go"""
_STRANGERS_KNOWN_FOR = timedelta(minutes=1)
"""so long after the last one went its pods may still stand in the way"""


class _KnownPins(NamedTuple):
    """What was found of a Canary's Services, and while what is the same it holds."""

    kept: tuple[Kept, ...]
    asked: object
    pins: Pins
    asked_at: datetime | None = None
    """when strangers were found; pods that come and go are not watched"""

    def holds(self, kept: tuple[Kept, ...], asked: object, now: datetime) -> bool:
        is_fresh = self.asked_at is None or abs(now - self.asked_at) < _STRANGERS_KNOWN_FOR
        return self.kept is kept and self.asked == asked and is_fresh


class DeploymentWorkload:
    """Holds, tries and releases the revisions of one Deployment. `now` is the clock that pod ages are told by."""

    def __init__(
        self,
        api: Api,
        *,
        now: Callable[[], datetime],
        hold: Hold = Hold.AUTO,
        cache: Cache | None = None,
        fence: Fence | None = None,
    ) -> None:
        self._api = api
        self._fence = fence or Fence()
        self._live = LiveReads(api)
        self._cached = CachedReads(cache) if cache is not None else None
        self._now = now
        self._hold = hold
        self._pins: dict[str, _KnownPins] = {}

    # Reading

    async def read_target(
        self, ref: Ref, spec: CanarySpec, stable_hash: str, candidate: str, *, live: bool = True
    ) -> Target | None:
        """The Deployment; None when it does not exist."""
        reads = self._reads(live)
        deployment = await reads.find(DEPLOYMENTS, ref.namespace, spec.target_ref.name)
        if deployment is None:
            return None
        replicasets = await reads.replicasets(ref.namespace, deployment)
        paused = await self._rests_paused()
        return parse_target(
            deployment, replicasets, spec, stable_hash=stable_hash, candidate=candidate, rests_paused=paused
        )

    async def read_canary(self, ref: Ref, spec: CanarySpec, *, live: bool = True) -> CanaryPods:
        """The canary Deployment, its pods and the endpoints of its Service."""
        return await self._read_pods(ref, ref.canary_name, live)

    async def read_baseline(self, ref: Ref, spec: CanarySpec, *, live: bool = True) -> CanaryPods:
        """The same of the fresh baseline; nothing, and nothing is asked, where the spec wants none."""
        if not spec.analysis.baseline.fresh:
            return CanaryPods()
        found = await self._read_pods(ref, ref.baseline_name, live)
        return replace(found, attempt=attempt_of_baseline(found.attempt))

    async def _read_pods(self, ref: Ref, name: str, live: bool) -> CanaryPods:
        reads = self._reads(live)
        deployment = await reads.find(DEPLOYMENTS, ref.namespace, name)
        if deployment is None or not is_owned_by(deployment, ref.uid):
            return CanaryPods()
        pods, slices = await asyncio.gather(
            reads.canary_pods(ref.namespace, deployment), reads.canary_slices(ref.namespace, name)
        )
        found = parse_canary(deployment, pods, slices, owner=ref.uid, now=self._now())
        if not found.ready or found.endpoints:
            return found
        service = await reads.find(SERVICES, ref.namespace, name)
        selector = service and service["spec"].get("selector")
        return replace(found, unserved=selector != deployment["spec"]["selector"].get("matchLabels"))

    async def read_pins(
        self, ref: Ref, spec: CanarySpec, target: Target, stable_hash: str, *, live: bool = True
    ) -> Pins:
        """Whether every Service that selects the target's pods selects stable's only, and what keeps it from that.

        Which pods stand behind the Services is asked only in a live look; in any other the answer is the one given
        last, while neither the namespace's Services nor the target's labels have changed, for a minute at most.
        """
        reads = self._reads(live)
        stable_labels, labels = labels_of(target.settled_template or target.template), labels_of(target.template)
        asked = (spec.target_ref, spec.traffic.service, stable_hash, stable_labels, labels)
        kept = self._cached.services_kept(ref.namespace) if self._cached is not None else ()
        if isinstance(reads, CachedReads):
            known = self._pins.get(ref.key)
            if known is None or not known.holds(kept, asked, self._now()):
                services = await self._services(reads, ref, spec, [stable_labels, labels])
                found = parse_pins(services, stable_hash, find_problems(services, spec, stable_labels, {}), [])
                known = self._remember_pins(ref, _KnownPins(kept, asked, found))
            return known.pins
        services = await self._services(reads, ref, spec, [stable_labels, labels])
        strangers = await self._strangers(ref, spec, services, stable_hash)
        problems = find_problems(services, spec, stable_labels, strangers)
        if any(strangers.values()):
            found = parse_pins(services, stable_hash, problems, [])
            self._remember_pins(ref, _KnownPins(kept, asked, found, self._now()))
        else:
            self._pins.pop(ref.key, None)
        foreign: list[str] = []
        if stable_hash and services and all(service.is_pinned(stable_hash) for service in services):
            foreign = await self._foreign_endpoints(ref, spec, services, stable_hash)
        return parse_pins(services, stable_hash, problems, foreign)

    def _remember_pins(self, ref: Ref, known: _KnownPins) -> _KnownPins:
        if len(self._pins) > _PINS_KEPT:
            self._pins.clear()
        self._pins[ref.key] = known
        return known

    async def prove_hold(self, ref: Ref, spec: CanarySpec, target: Target) -> bool:
        """Whether a dry-run edit that asks not to be paused comes back paused, or is refused where the pause stays."""
        ops = probe_ops(target.template)
        name = spec.target_ref.name
        try:
            reply = await self._api.json_patch(DEPLOYMENTS, ref.namespace, name, ops, dry_run=True)
        except Refused as refused:
            if target.rests_paused and target.paused and HELD_BY in str(refused):
                return True
            raise
        return bool(reply["spec"].get("paused")) and reply["metadata"]["uid"] == target.uid

    # The Services

    async def pin(self, ref: Ref, spec: CanarySpec, stable_hash: str) -> None:
        """Pin every Service that selects the target's pods. Raises `NeedsUser` where one cannot be."""
        deployment = await self._get_target(ref, spec)
        replicasets = await self._live.replicasets(ref.namespace, deployment)
        stable = [found for found in replicasets if labels_of(found).get(HASH_LABEL) == stable_hash]
        if not stable:
            raise Conflict(f"Deployment {spec.target_ref.name} has no ReplicaSet {stable_hash} to pin Services to")
        stable_labels = labels_of(plain_template(stable[0]["spec"]["template"]))
        templates = [stable_labels, labels_of(deployment["spec"]["template"])]
        services = await self._services(self._live, ref, spec, templates)
        strangers = await self._strangers(ref, spec, services, stable_hash)
        problems = find_problems(services, spec, stable_labels, strangers)
        if problems:
            raise NeedsUser(problems[0].partition(" ")[0], "; ".join(problems))
        for service in services:
            ops = [] if service.is_pinned(stable_hash) else pin_ops(service, ref.name, stable_hash)
            await self._patch_users(SERVICES, ref, service.body, ops)

    async def unpin(self, ref: Ref, spec: CanarySpec) -> None:
        """Take our pins off; a Service somebody else pinned stays as it is."""
        for service in await self._services(self._live, ref, spec, []):
            if service.ours:
                await self._patch_users(SERVICES, ref, service.body, unpin_ops(service))

    # The canary

    async def apply_canary(
        self, ref: Ref, spec: CanarySpec, target: Target, *, attempt: str, replicas: int, epoch: str
    ) -> None:
        """Create or scale the canary of this attempt. One of an older attempt is deleted first; the next call creates.

        Raises `NeedsUser("NameTaken")` where an object of that name is not ours.
        """
        user = await self._get_target(ref, spec)
        if (user["metadata"]["uid"], template_hash(user["spec"]["template"])) != (target.uid, target.template_hash):
            raise Conflict(f"Deployment {spec.target_ref.name} was edited or made again since it was read")
        await self._apply(ref, spec, user, target.template, ref.canary_name, attempt, replicas, epoch)

    async def apply_baseline(
        self, ref: Ref, spec: CanarySpec, template: dict[str, Any], *, attempt: str, replicas: int, epoch: str
    ) -> None:
        """Create or scale the Deployment of fresh pods from stable's `template`, as `apply_canary` does."""
        user = await self._get_target(ref, spec)
        await self._apply(ref, spec, user, template, ref.baseline_name, baseline_of(attempt), replicas, epoch)

    async def _apply(
        self,
        ref: Ref,
        spec: CanarySpec,
        user: Object,
        template: Object,
        name: str,
        attempt: str,
        replicas: int,
        epoch: str,
    ) -> None:
        existing = await self._find_ours(DEPLOYMENTS, ref, name)
        if existing is not None:
            await self._check_stamp(ref, existing, epoch)
            if "deletionTimestamp" in existing["metadata"]:
                return
            if attempt_of(existing) != attempt:
                await self._delete(DEPLOYMENTS, ref, existing)
                return
        await self._apply_service(ref, spec, user, name, attempt)
        if existing is None:
            body = canary_deployment(
                ref, spec, user, template, name=name, attempt=attempt, replicas=replicas, epoch=epoch, now=self._now()
            )
            await self._api.create(DEPLOYMENTS, ref.namespace, body)
        elif ops := scale_ops(existing, replicas, epoch, self._now()):
            await self._api.json_patch(DEPLOYMENTS, ref.namespace, name, ops)

    async def delete_canary(self, ref: Ref, spec: CanarySpec) -> None:
        """Delete what is ours under these names; the pods go in the background, each with its grace period.

        The target's epoch goes first: with the canary ends what it had to be fenced for.
        """
        await self._unstamp_target(ref, spec)
        for name in _names_of_ours(ref, spec):
            for resource in (SERVICES, DEPLOYMENTS):
                body = await self._find(resource, ref, name)
                if body is not None and is_owned_by(body, ref.uid):
                    await self._delete(resource, ref, body)

    async def replace_pods(self, ref: Ref, spec: CanarySpec, *, epoch: str) -> None:
        """Fresh pods instead of all that are there, which ends long connections too.

        The canary's on other nodes where there are any, and last: what they carry says that all of it was done.
        """
        for name in _names_of_ours(ref, spec):
            deployment = await self._find_ours(DEPLOYMENTS, ref, name)
            if deployment is None or "deletionTimestamp" in deployment["metadata"]:
                continue
            await self._check_stamp(ref, deployment, epoch)
            nodes: list[str] = []
            if name == ref.canary_name:
                pods = await self._live.canary_pods(ref.namespace, deployment)
                nodes = [str(pod["spec"]["nodeName"]) for pod in pods if pod["spec"].get("nodeName")]
            if ops := replace_ops(deployment, nodes, epoch):
                await self._api.json_patch(DEPLOYMENTS, ref.namespace, name, ops)

    # The target

    async def pause(self, ref: Ref, spec: CanarySpec, target: Target, *, epoch: str) -> None:
        """Stop a roll that was not held. Where nothing rolls, nothing of ours but the pause stays on it."""
        deployment = await self._get_unchanged(ref, spec, target, epoch, way_back=True)
        stamp = "" if target.settled_template_hash == target.template_hash else epoch
        is_done = deployment["spec"].get("paused") and annotations_of(deployment).get(EPOCH, "") == stamp
        ops = [] if is_done else pause_ops(deployment, stamp)
        await self._patch_users(DEPLOYMENTS, ref, deployment, ops, lane="urgent")

    async def release(self, ref: Ref, spec: CanarySpec, target: Target, *, epoch: str) -> None:
        """Unpause. Where that moves no pod, nothing of ours stays on it; while it rolls, the epoch does."""
        deployment = await self._get_unchanged(ref, spec, target, epoch)
        paused = bool(deployment["spec"].get("paused"))
        stamp = "" if paused and target.settled_template_hash == target.template_hash else epoch
        is_done = not paused and annotations_of(deployment).get(EPOCH) == epoch
        await self._patch_users(DEPLOYMENTS, ref, deployment, [] if is_done else release_ops(deployment, stamp))

    async def restore(
        self, ref: Ref, spec: CanarySpec, target: Target, template: dict[str, Any], *, epoch: str, paused: bool
    ) -> None:
        """Give it stable's template back in one patch with `paused`, so that nothing rolls in between."""
        deployment = await self._get_unchanged(ref, spec, target, epoch, way_back=True)
        moves_nothing = not paused and target.settled_template_hash == template_hash(template)
        stamp = "" if moves_nothing else epoch
        is_there = template_hash(deployment["spec"]["template"]) == template_hash(template)
        is_stamped = annotations_of(deployment).get(EPOCH, "") == stamp
        is_done = is_there and is_stamped and bool(deployment["spec"].get("paused")) == paused
        ops = [] if is_done else restore_ops(deployment, template, stamp, paused=paused)
        await self._patch_users(DEPLOYMENTS, ref, deployment, ops, lane="urgent")

    async def delete_replicaset(self, ref: Ref, name: str) -> None:
        """Remove a ReplicaSet that wants and has no pods. Raises `Conflict` when it has some by now."""
        replicaset = await self._find(REPLICASETS, ref, name)
        if replicaset is None:
            return
        if replicaset["spec"].get("replicas") or (replicaset.get("status") or {}).get("replicas"):
            raise Conflict(f"ReplicaSet {name} has pods by now")
        await self._delete(REPLICASETS, ref, replicaset, same_version=True)

    # Requests

    async def _rests_paused(self) -> bool:
        """Asked once: what an API server offers changes with its upgrade, and then it is started anew."""
        self._hold = await find_hold(self._api, self._hold)
        return self._hold is Hold.PAUSE

    def _reads(self, live: bool) -> Reads:
        """The cache only where it is allowed and complete."""
        return self._live if live or self._cached is None or not self._cached.complete else self._cached

    async def _find(self, resource: Resource, ref: Ref, name: str) -> Found | None:
        return await self._live.find(resource, ref.namespace, name)

    async def _find_ours(self, resource: Resource, ref: Ref, name: str) -> Found | None:
        """The object of this name. Raises `NeedsUser` when it is somebody else's."""
        body = await self._find(resource, ref, name)
        if body is not None and not is_owned_by(body, ref.uid):
            raise NeedsUser(
                "NameTaken",
                f"metadata.name: {resource.kind} {name} exists in {ref.namespace} and is not of this Canary"
                ": delete or rename it, or give the Canary another name",
            )
        return body

    async def _get_target(self, ref: Ref, spec: CanarySpec) -> Found:
        """A live read before a write."""
        try:
            deployment = await self._api.get(DEPLOYMENTS, ref.namespace, spec.target_ref.name)
        except NotFound as error:
            raise Conflict(f"Deployment {spec.target_ref.name} is gone") from error
        return deployment

    async def _check_stamp(self, ref: Ref, body: Object, epoch: str, *, way_back: bool = False) -> None:
        name, found = f"Deployment {body['metadata']['name']}", annotations_of(body).get(EPOCH, "")
        await self._fence.check(ref, name, found, epoch, way_back=way_back)

    async def _get_unchanged(
        self, ref: Ref, spec: CanarySpec, target: Target, epoch: str, *, way_back: bool = False
    ) -> Found:
        """A live read that must be the version that was decided on: an edit in between is another candidate."""
        deployment = await self._get_target(ref, spec)
        await self._check_stamp(ref, deployment, epoch, way_back=way_back)
        if deployment["metadata"]["resourceVersion"] != target.resource_version:
            raise Conflict(f"Deployment {spec.target_ref.name} changed since it was read")
        return deployment

    async def _services(
        self, reads: Reads, ref: Ref, spec: CanarySpec, labels: Sequence[dict[str, str]]
    ) -> list[Selecting]:
        return parse_services(await reads.services(ref.namespace), spec, ref.name, ref.canary_name, labels)

    async def _strangers(
        self, ref: Ref, spec: CanarySpec, services: Sequence[Selecting], stable_hash: str
    ) -> dict[str, tuple[str, ...]]:
        """Pods are asked for only where a pin is still to come: after it, strangers are out of reach."""
        strangers = {}
        for service in services:
            if service.bare and not service.is_pinned(stable_hash):
                selector = render_selector({"matchLabels": service.bare})
                pods = await self._live.pods(ref.namespace, selector, from_cache=True)
                strangers[service.name] = find_strangers(pods, spec.target_ref.name)
        return strangers

    async def _foreign_endpoints(
        self, ref: Ref, spec: CanarySpec, services: Sequence[Selecting], stable_hash: str
    ) -> list[str]:
        name = spec.target_ref.name
        slices = await self._live.slices(ref.namespace, [service.name for service in services])
        if not foreign_endpoints(slices, name, stable_hash, set()):
            return []
        pods = await self._live.pods(ref.namespace, f"{HASH_LABEL}={stable_hash}")
        return foreign_endpoints(slices, name, stable_hash, {pod["metadata"]["name"] for pod in pods})

    async def _apply_service(self, ref: Ref, spec: CanarySpec, user: Object, name: str, attempt: str) -> None:
        existing = await self._find_ours(SERVICES, ref, name)
        if existing is None:
            stable = await self._find(SERVICES, ref, spec.traffic.service.name)
            if stable is None:
                raise NeedsUser(
                    "ServiceMissing",
                    f"spec.traffic.service.name: there is no Service {spec.traffic.service.name} in {ref.namespace}",
                )
            body = canary_service(ref, user, stable, name=name, attempt=attempt)
            await self._api.create(SERVICES, ref.namespace, body)
        elif existing["spec"].get("selector") != canary_selector(user, attempt):
            ops: list[Op] = [
                {"op": "test", "path": "/metadata/uid", "value": existing["metadata"]["uid"]},
                {"op": "add", "path": "/spec/selector", "value": canary_selector(user, attempt)},
            ]
            await self._api.json_patch(SERVICES, ref.namespace, name, ops)

    async def _patch_users(
        self, resource: Resource, ref: Ref, body: Object, ops: list[Op], *, lane: Lane = "usual"
    ) -> None:
        """Patch a user's object, then take our entry out of its managedFields.

        With no `ops` only the second: it may be what a crash left undone.
        """
        name, manager = body["metadata"]["name"], self._api.field_manager
        if ops:
            body = await self._api.json_patch(resource, ref.namespace, name, ops, lane=lane)
        for _ in range(_FORGET_TRIES):
            forget = forget_ops(body, manager)
            if not forget:
                return
            try:
                body = await self._api.json_patch(resource, ref.namespace, name, forget)
            except Conflict:
                # Somebody wrote in between and the entries moved: look where ours is now.
                body = await self._api.get(resource, ref.namespace, name)

    async def _unstamp_target(self, ref: Ref, spec: CanarySpec) -> None:
        deployment = await self._find(DEPLOYMENTS, ref, spec.target_ref.name)
        if deployment is None or "deletionTimestamp" in deployment["metadata"]:
            return
        if ops := unannotate_ops(deployment, EPOCH):
            # An admission that refuses this must not keep the canary's pods alive: the annotation does no harm.
            with suppress(Refused, Forbidden):
                await self._patch_users(DEPLOYMENTS, ref, deployment, [*unchanged_ops(deployment), *ops])

    async def _delete(self, resource: Resource, ref: Ref, body: Object, *, same_version: bool = False) -> None:
        metadata = body["metadata"]
        try:
            await self._api.delete(
                resource,
                ref.namespace,
                metadata["name"],
                uid=metadata["uid"],
                resource_version=metadata["resourceVersion"] if same_version else None,
                propagation="Background",
            )
        except NotFound:
            return


def _names_of_ours(ref: Ref, spec: CanarySpec) -> tuple[str, ...]:
    """The fresh baseline's first: while the canary is there, what is left of both is known."""
    return (*((ref.baseline_name,) if spec.analysis.baseline.fresh else ()), ref.canary_name)
