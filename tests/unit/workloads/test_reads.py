"""What a look finds without asking the API server: its own canary's objects and no others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from controller.kube.cache import Cache, Kept, Whole
from controller.kube.informer import Informer
from controller.kube.resources import DEPLOYMENTS, ENDPOINTSLICES, PODS, REPLICASETS, SERVICES, Resource
from controller.kube.transport import WatchEvent
from controller.model.spec import CanarySpec, parse_canary_spec
from controller.model.template import HASH_LABEL
from controller.model.world import Target
from controller.ports import Ref
from controller.workloads.deployment import DeploymentWorkload
from controller.workloads.parse import CANARY_LABEL, parse_target, selects
from controller.workloads.reads import KEPT, CachedReads
from tests.builders import NOON
from tests.unit.kube.test_informer import Scripted

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]


def found(name: str, labels: dict[str, str] | None = None, owner: str = "", **parts: Any) -> dict[str, Any]:
    owners = [{"uid": owner, "controller": True, "name": "x", "kind": "x", "apiVersion": "v1"}] if owner else []
    metadata = {"name": name, "namespace": "town", "uid": f"uid-{name}", "resourceVersion": "3", "labels": labels or {}}
    return {"metadata": metadata | {"ownerReferences": owners}} | parts


class Later(Scripted):
    """What its watch says comes half a second after the list."""

    async def _events(self) -> AsyncIterator[WatchEvent]:
        await asyncio.sleep(0.5)
        async for event in super()._events():
            yield event


@asynccontextmanager
async def caching(
    objects: dict[Resource, Sequence[dict[str, Any]]], events: dict[Resource, tuple[Any, ...]] | None = None
) -> AsyncIterator[Cache]:
    """A cache that has heard of these, and of every other kind that there is nothing of it."""
    informers: dict[Resource, Informer[Kept]] = {}
    for resource, shrink in KEPT.items():
        api: Any = Later((5, list(objects.get(resource, ()))), events=(events or {}).get(resource, ()))
        informers[resource] = Informer(api, resource, Whole, shrink=shrink)
    cache = Cache(informers)
    tasks = [asyncio.create_task(informer.run()) for informer in informers.values()]
    for informer in informers.values():
        await informer.wait_synced()
    try:
        yield cache
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@asynccontextmanager
async def reading(objects: dict[Resource, Sequence[dict[str, Any]]]) -> AsyncIterator[CachedReads]:
    async with caching(objects) as cache:
        yield CachedReads(cache)


def canary(app: str) -> dict[str, Any]:
    return found(f"{app}-canary", spec={"selector": {"matchLabels": {"app": app, CANARY_LABEL: "a1"}}})


async def test_pods_of_a_canary_that_began_in_the_same_second_are_not_taken_for_ours() -> None:
    pods = [found(f"{app}-pod", {"app": app, CANARY_LABEL: "a1"}) for app in ("cart", "shop")]

    async with reading({DEPLOYMENTS: [canary("cart"), canary("shop")], PODS: pods}) as reads:
        deployment = await reads.find(DEPLOYMENTS, "town", "cart-canary")
        assert deployment is not None
        ours = await reads.canary_pods("town", deployment)

    assert [pod["metadata"]["name"] for pod in ours] == ["cart-pod"]


async def test_replicasets_with_pods_are_found_by_their_owner_and_old_ones_are_not_kept() -> None:
    of_cart = [
        found("cart-1", owner="uid-cart", spec={"replicas": 2}, status={"replicas": 2}),
        found("cart-2", owner="uid-cart", spec={"replicas": 0}, status={"replicas": 0}),
        found("cart-3", owner="uid-cart", spec={"replicas": 0}, status={"replicas": 1}),
        found("shop-1", owner="uid-shop", spec={"replicas": 2}),
    ]

    async with reading({REPLICASETS: of_cart}) as reads:
        mine = await reads.replicasets("town", found("cart"))

    assert [one["metadata"]["name"] for one in mine] == ["cart-1", "cart-3"]


async def test_slices_are_found_by_their_service_and_services_by_namespace() -> None:
    slices = [
        found("x", {"kubernetes.io/service-name": "cart-canary"}, endpoints=[{"addresses": ["10.0.0.1"]}]),
        found("y", {"kubernetes.io/service-name": "shop-canary"}, endpoints=[]),
    ]
    services = [found("cart", spec={"selector": {"app": "cart"}})]

    async with reading({ENDPOINTSLICES: slices, SERVICES: services}) as reads:
        assert [one["endpoints"] for one in await reads.canary_slices("town", "cart-canary")] == [
            [{"addresses": ["10.0.0.1"]}]
        ]
        assert [one["metadata"]["name"] for one in await reads.services("town")] == ["cart"]
        assert await reads.services("port") == []
        assert reads.complete


@pytest.mark.parametrize(
    ("operator", "values", "takes"),
    [
        ("In", ["web"], [True, False, False]),
        ("NotIn", ["web"], [False, True, True]),
        ("Exists", None, [True, True, False]),
        ("DoesNotExist", None, [False, False, True]),
    ],
)
async def test_a_selector_takes_what_the_api_server_would(
    operator: str, values: list[str] | None, takes: list[bool]
) -> None:
    selector = {"matchExpressions": [{"key": "tier", "operator": operator, "values": values}]}
    labels: list[dict[str, str]] = [{"tier": "web"}, {"tier": "db"}, {}]
    assert [selects(selector, each) for each in labels] == takes


def cart() -> tuple[CanarySpec, Target]:
    """A Canary and its Deployment, of whose pods nothing is known yet."""
    template = {"metadata": {"labels": {"app": "cart"}}, "spec": {"containers": [{"name": "app", "image": "shop:1"}]}}
    traffic = {"service": {"name": "cart", "port": 80}, "httpRoute": {"name": "cart"}}
    spec = parse_canary_spec({"targetRef": {"name": "cart"}, "traffic": traffic})
    deployment = found("cart", spec={"replicas": 1, "selector": {"matchLabels": {"app": "cart"}}, "template": template})
    return spec, parse_target(deployment, [], spec, stable_hash="aaa", candidate="")


async def test_pins_are_reckoned_anew_when_a_service_of_the_namespace_or_what_is_asked_has_changed() -> None:
    spec, target = cart()

    def service(pinned: str, version: str) -> dict[str, Any]:
        selector = {"app": "cart"} | ({HASH_LABEL: pinned} if pinned else {})
        body = found("cart", spec={"selector": selector, "ports": [{"port": 80}]})
        body["metadata"] |= {"resourceVersion": version}
        body["metadata"]["annotations"] = {"serin.dev/pinned": f"cart/{pinned}"} if pinned else {}
        return body

    changes = (("MODIFIED", service("", "6")),)
    async with caching({SERVICES: [service("aaa", "3")]}, {SERVICES: changes}) as cache:
        nobody: Any = None
        workload = DeploymentWorkload(nobody, now=lambda: NOON, cache=cache)

        async def pinned(stable: str) -> bool:
            return (await workload.read_pins(Ref("town", "cart", "u"), spec, target, stable, live=False)).pinned

        assert [await pinned("aaa"), await pinned("bbb"), await pinned("aaa")] == [True, False, True]
        await asyncio.sleep(1)
        assert not await pinned("aaa")


class OnePod:
    """An API server with the Service `cart` and one pod that it selects, while that is there."""

    def __init__(self, service: dict[str, Any]) -> None:
        self.service, self.pods, self.lists = service, [found("a-job", {"app": "cart"})], 0

    async def list(self, resource: Resource, *args: Any, **options: Any) -> Any:
        self.lists += 1
        return SimpleNamespace(items=[self.service] if resource == SERVICES else self.pods)


async def test_pods_that_are_not_the_targets_are_remembered_for_a_minute_and_until_a_service_changes() -> None:
    """At rest nothing would be decided without them but that all is well, and then everything is read again."""
    spec, target = cart()
    service = found("cart", spec={"selector": {"app": "cart"}, "ports": [{"port": 80}]})
    edited = found("cart", spec={"selector": {"app": "cart"}, "ports": [{"port": 80}, {"port": 81}]})
    edited["metadata"]["resourceVersion"] = "6"
    api, now = OnePod(service), [NOON]
    server: Any = api
    async with caching({SERVICES: [service]}, {SERVICES: (("MODIFIED", edited),)}) as cache:
        workload = DeploymentWorkload(server, now=lambda: now[0], cache=cache)

        async def problems(*, live: bool) -> list[str]:
            found = await workload.read_pins(Ref("town", "cart", "u"), spec, target, "aaa", live=live)
            return [one.partition(" ")[0] for one in found.problems]

        assert await problems(live=True) == ["ServiceSelectsOthers"]
        asked = api.lists
        now[0] += timedelta(seconds=59)
        assert await problems(live=False) == ["ServiceSelectsOthers"]
        now[0] += timedelta(seconds=1)
        assert await problems(live=False) == []
        assert await problems(live=True) == ["ServiceSelectsOthers"]
        await asyncio.sleep(1)
        assert await problems(live=False) == [], "the Service has changed"
        assert await problems(live=True) == ["ServiceSelectsOthers"]
        api.pods.clear()
        assert await problems(live=True) == []
        assert await problems(live=False) == []
        assert api.lists == 4 * asked
