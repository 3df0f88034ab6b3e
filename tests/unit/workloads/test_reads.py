"""What a look finds without asking the API server: its own canary's objects and no others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from controller.kube.cache import Cache, Kept, Whole
from controller.kube.informer import Informer
from controller.kube.resources import DEPLOYMENTS, ENDPOINTSLICES, PODS, REPLICASETS, SERVICES, Resource
from controller.workloads.parse import CANARY_LABEL, selects
from controller.workloads.reads import KEPT, CachedReads
from tests.unit.kube.test_informer import Scripted

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]


def found(name: str, labels: dict[str, str] | None = None, owner: str = "", **parts: Any) -> dict[str, Any]:
    owners = [{"uid": owner, "controller": True, "name": "x", "kind": "x", "apiVersion": "v1"}] if owner else []
    metadata = {"name": name, "namespace": "town", "uid": f"uid-{name}", "resourceVersion": "3", "labels": labels or {}}
    return {"metadata": metadata | {"ownerReferences": owners}} | parts


@asynccontextmanager
async def reading(objects: dict[Resource, Sequence[dict[str, Any]]]) -> AsyncIterator[CachedReads]:
    """A cache that has heard of these, and of every other kind that there is nothing of it."""
    informers: dict[Resource, Informer[Kept]] = {}
    for resource, shrink in KEPT.items():
        api: Any = Scripted((5, list(objects.get(resource, ()))))
        informers[resource] = Informer(api, resource, Whole, shrink=shrink)
    reads = CachedReads(Cache(informers))
    tasks = [asyncio.create_task(informer.run()) for informer in informers.values()]
    for informer in informers.values():
        await informer.wait_synced()
    try:
        yield reads
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


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
