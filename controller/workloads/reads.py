"""Where `DeploymentWorkload` reads: live from the API server, or what watches have brought.

The one thing to know: the cache holds what looking needs and no more. ReplicaSets without pods, pods that are not a
canary's and the EndpointSlices of stable Services are not in it; what depends on those waits for a live look, and
one precedes every write.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from controller.errors import NotFound
from controller.kube.cache import Cache, Keep, Kept, Whole, keep
from controller.kube.resources import DEPLOYMENTS, ENDPOINTSLICES, PODS, REPLICASETS, SERVICES, Resource
from controller.kube.transport import Api
from controller.workloads.parse import (
    CANARY_LABEL,
    Object,
    attempt_of,
    is_owned_by,
    labels_of,
    render_selector,
    selects,
)
from controller.workloads.render import MANAGED_BY

Found = dict[str, Any]

SERVICE_OF_SLICE = "kubernetes.io/service-name"
OF_CANARIES: dict[Resource, str] = {
    PODS: CANARY_LABEL,
    # EndpointSlices carry the labels of their Service.
    ENDPOINTSLICES: ",".join(f"{name}={value}" for name, value in MANAGED_BY.items()),
}
"""Label selectors: of these kinds only a canary's own objects are watched, so what they take follows what runs."""


NAMESPACES = 64
"""of so many the Services stay decoded: each Canary of a namespace looks at all of them"""


class Reads(Protocol):
    """The objects one workload is made of."""

    live: bool
    """what is not there does not exist"""

    async def find(self, resource: Resource, namespace: str, name: str) -> Found | None:
        """One object, or None."""

    async def replicasets(self, namespace: str, deployment: Object) -> Sequence[Found]:
        """Those that the Deployment owns; all of them only where `live`."""

    async def services(self, namespace: str) -> Sequence[Found]:
        """Every Service of the namespace."""

    async def canary_pods(self, namespace: str, canary: Object) -> Sequence[Found]:
        """Pods of a canary Deployment."""

    async def canary_slices(self, namespace: str, service: str) -> Sequence[Found]:
        """EndpointSlices of a canary Service."""


class LiveReads:
    """From the API server, now."""

    live = True

    def __init__(self, api: Api) -> None:
        self._api = api

    async def find(self, resource: Resource, namespace: str, name: str) -> Found | None:
        try:
            return await self._api.get(resource, namespace, name)
        except NotFound:
            return None

    async def replicasets(self, namespace: str, deployment: Object) -> Sequence[Found]:
        selector = render_selector(deployment["spec"]["selector"])
        found = await self._api.list(REPLICASETS, namespace, label_selector=selector)
        return [each for each in found.items if is_owned_by(each, deployment["metadata"]["uid"])]

    async def services(self, namespace: str) -> Sequence[Found]:
        return (await self._api.list(SERVICES, namespace)).items

    async def canary_pods(self, namespace: str, canary: Object) -> Sequence[Found]:
        selector = render_selector(canary["spec"]["selector"])
        return (await self._api.list(PODS, namespace, label_selector=selector)).items

    async def canary_slices(self, namespace: str, service: str) -> Sequence[Found]:
        return await self.slices(namespace, [service])

    async def slices(self, namespace: str, services: Sequence[str]) -> Sequence[Found]:
        """EndpointSlices of any Services."""
        selector = f"{SERVICE_OF_SLICE} in ({','.join(services)})"
        return (await self._api.list(ENDPOINTSLICES, namespace, label_selector=selector)).items

    async def pods(self, namespace: str, selector: str, *, from_cache: bool = False) -> Sequence[Found]:
        """Pods by label; `from_cache` of the API server, where nothing is written on the answer alone."""
        version = "0" if from_cache else None
        return (await self._api.list(PODS, namespace, label_selector=selector, resource_version=version)).items


class CachedReads:
    """What watches have brought."""

    live = False

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._services: dict[str, tuple[tuple[Kept, ...], list[Found]]] = {}

    @property
    def complete(self) -> bool:
        """Whether every kind is watched and has been heard of lately."""
        return all(self._cache.knows(resource) for resource in KEPT)

    async def find(self, resource: Resource, namespace: str, name: str) -> Found | None:
        return self._cache.find(resource, namespace, name)

    async def replicasets(self, namespace: str, deployment: Object) -> Sequence[Found]:
        return self._cache.select(REPLICASETS, deployment["metadata"]["uid"])

    async def services(self, namespace: str) -> Sequence[Found]:
        kept = self.services_kept(namespace)
        known = self._services.pop(namespace, None)
        if known is None or known[0] is not kept:
            known = kept, [each.read() for each in kept]
        self._services[namespace] = known
        if len(self._services) > NAMESPACES:
            del self._services[next(iter(self._services))]
        return known[1]

    def services_kept(self, namespace: str) -> tuple[Kept, ...]:
        """The same, unread: the very same tuple as long as none of them has changed."""
        return self._cache.kept(SERVICES, namespace)

    async def canary_pods(self, namespace: str, canary: Object) -> Sequence[Found]:
        # Attempts are named by the second they began in, and several may begin in the same one.
        pods = self._cache.select(PODS, f"{namespace}/{attempt_of(canary)}")
        return [pod for pod in pods if selects(canary["spec"]["selector"], labels_of(pod))]

    async def canary_slices(self, namespace: str, service: str) -> Sequence[Found]:
        return self._cache.select(ENDPOINTSLICES, f"{namespace}/{service}")


def _is_ours(annotation: str) -> bool:
    return annotation.startswith("serin.dev/")


def _namespace_of(whole: Whole) -> str:
    return str(whole.metadata.get("namespace", ""))


def _label_of(whole: Whole, label: str) -> str:
    return str((whole.metadata.get("labels") or {}).get(label, ""))


def _by_namespace(whole: Whole) -> Kept | None:
    return keep(whole, _namespace_of(whole), annotations=_is_ours)


def _by_owner(whole: Whole) -> Kept | None:
    """A ReplicaSet with pods, or that wants some."""
    owner = next((one["uid"] for one in whole.metadata.get("ownerReferences") or () if one.get("controller")), "")
    kept = keep(whole, owner, annotations=_is_ours)
    body = kept.read()
    has_pods = body.get("spec", {}).get("replicas", 1) or body.get("status", {}).get("replicas", 0)
    return kept if owner and has_pods else None


def _by_attempt(whole: Whole) -> Kept | None:
    group = f"{_namespace_of(whole)}/{_label_of(whole, CANARY_LABEL)}"
    return keep(whole, group, spec=False, annotations=_is_ours)


def _by_service(whole: Whole) -> Kept | None:
    return keep(whole, f"{_namespace_of(whole)}/{_label_of(whole, SERVICE_OF_SLICE)}", annotations=_is_ours)


KEPT: dict[Resource, Keep] = {
    DEPLOYMENTS: _by_namespace,
    REPLICASETS: _by_owner,
    SERVICES: _by_namespace,
    PODS: _by_attempt,
    ENDPOINTSLICES: _by_service,
}
"""The kinds that `CachedReads` needs, and what is kept of each."""
