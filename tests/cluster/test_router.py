"""The HTTPRoute router against a real API server, and against what a real gateway makes of its weights."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from controller.errors import Conflict, Fenced
from controller.kube.transport import Api
from controller.model.world import Weight
from controller.ports import Ref
from controller.routers.httproute import HttpRouteRouter
from tests.cluster.conftest import MakeShop, Shop
from tests.cluster.objects import (
    apply,
    eventually,
    get,
    kubectl,
    shop_deployment,
    shop_route,
    shop_service,
)
from tests.contract.router import RouterContract, canary_spec

SPEC = canary_spec()


class CountingApi(Api):
    """The real one, and how many patches went through it."""

    patches = 0

    async def json_patch(self, *args: Any, **options: Any) -> Any:
        self.patches += 1
        return await super().json_patch(*args, **options)


@pytest.fixture
async def api(cluster: object) -> AsyncIterator[CountingApi]:
    async with await CountingApi.connect(os.environ["KUBECONFIG"]) as api:
        yield api


def owner_route(namespace: str) -> dict[str, Any]:
    """Four rules of an owner: the Service alone, with a header filter, beside another backend, and not at all."""
    route = shop_route(namespace=namespace)
    headers = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x-way", "value": "two"}]}}
    route["metadata"]["annotations"] = {"team": "shops"}
    route["spec"]["rules"] = [
        {"backendRefs": [{"name": "shop", "port": 80}]},
        {"matches": [_path("/cart")], "filters": [headers], "backendRefs": [{"name": "shop", "port": 80}]},
        {
            "matches": [_path("/mixed")],
            "backendRefs": [{"name": "shop", "port": 80, "weight": 3}, {"name": "other", "port": 80, "weight": 1}],
        },
        {"matches": [_path("/other")], "backendRefs": [{"name": "other", "port": 80}]},
    ]
    return route


def _path(prefix: str) -> dict[str, Any]:
    return {"path": {"type": "PathPrefix", "value": prefix}}


def owner_part(namespace: str) -> str:
    """What the owner wrote, byte for byte as the API server gives it back, annotations included."""
    route = get("httproute", "shop", namespace)
    return json.dumps([route["spec"], route["metadata"].get("annotations")])


class ClusterGround:
    def __init__(self, namespace: str, api: CountingApi) -> None:
        self.namespace, self.api = namespace, api
        self.ref, self.spec, self.router = Ref(namespace, "shop", "u1"), SPEC, HttpRouteRouter(api)

    async def reset(self) -> None:
        await asyncio.to_thread(apply, [owner_route(self.namespace)])

    async def count_writes(self) -> int:
        return self.api.patches

    async def owner_part(self) -> object:
        return await asyncio.to_thread(owner_part, self.namespace)


@pytest.fixture
def ground(namespace: str, api: CountingApi) -> ClusterGround:
    apply([shop_service(namespace=namespace), shop_service("other", namespace), owner_route(namespace)])
    return ClusterGround(namespace, api)


class TestRealRoutes(RouterContract):
    """The whole contract again, on routes in the API server with a gateway that writes their status."""


async def until(ground: ClusterGround, check: Callable[[Weight], bool]) -> Weight:
    """Read until the weight passes `check`, for some minutes at most."""
    for _ in range(3600):
        weight = await ground.router.read_weight(ground.ref, ground.spec)
        if check(weight):
            return weight
        await asyncio.sleep(0.05)
    raise AssertionError(f"still {weight}")


async def arrived(ground: ClusterGround) -> Weight:
    """Wait until the gateway reports the route as it is now; its data plane may take a moment more."""
    return await until(ground, lambda weight: weight.programmed)


async def until_served_by(shop: Shop, wanted: set[str]) -> None:
    """The data plane has it: these revisions answer, and no other."""
    await asyncio.to_thread(eventually, lambda: {shop.ask()[1] for _ in range(50)} == wanted)


async def revisions(shop: Shop, requests: int, path: str = "/") -> Counter[str]:
    """Who answered, by revision; anything but a 200 counts under its status."""

    def ask() -> Counter[str]:
        answers = [shop.ask(path) for _ in range(requests)]
        return Counter(revision if status == 200 else str(status) for status, revision in answers)

    return await asyncio.to_thread(ask)


@pytest.fixture
async def split_shop(shop: MakeShop, namespace: str, api: CountingApi) -> tuple[Shop, ClusterGround]:
    """A shop at v1, and v2 as its canary, which the route does not know yet."""

    def build() -> Shop:
        made = shop("v1")
        apply([shop_deployment("shop-canary", namespace, "v2", 1), shop_service("shop-canary", namespace)])
        kubectl("rollout", "status", "deployment/shop-canary", "-n", namespace, "--timeout=180s")
        return made

    return await asyncio.to_thread(build), ClusterGround(namespace, api)


async def test_live_requests_are_split_by_the_weight_and_come_back_at_zero(
    split_shop: tuple[Shop, ClusterGround],
) -> None:
    shop, ground = split_shop
    await ground.router.set_weight(ground.ref, SPEC, 0, epoch="1.0", was="")
    await arrived(ground)
    at_zero = await revisions(shop, 200)

    await ground.router.set_weight(ground.ref, SPEC, 30, epoch="1.0", was="1.0")
    await arrived(ground)
    await until_served_by(shop, {"v1", "v2"})
    at_thirty = await revisions(shop, 1000)

    await ground.router.set_weight(ground.ref, SPEC, 0, epoch="1.1", was="1.0")
    await arrived(ground)
    await until_served_by(shop, {"v1"})
    back_at_zero = await revisions(shop, 200)

    assert at_zero == back_at_zero == {"v1": 200}
    assert set(at_thirty) == {"v1", "v2"}
    # Five standard deviations of 1,000 independent requests at 30 %.
    assert abs(at_thirty["v2"] - 300) < 73


async def test_removing_under_load_loses_no_request(split_shop: tuple[Shop, ClusterGround]) -> None:
    shop, ground = split_shop
    await ground.router.set_weight(ground.ref, SPEC, 50, epoch="1.0", was="")
    await arrived(ground)
    await until_served_by(shop, {"v1", "v2"})
    load = asyncio.create_task(revisions(shop, 1000))

    await ground.router.set_weight(ground.ref, SPEC, 0, epoch="1.1", was="1.0")
    await asyncio.sleep(0.5)
    await ground.router.remove(ground.ref, SPEC)

    assert set(await load) <= {"v1", "v2"}


async def test_a_rule_that_names_the_canary_alone_goes_back_to_stable_before_the_canary_may_go(
    split_shop: tuple[Shop, ClusterGround],
) -> None:
    """Somebody takes stable's line out of the split rule: all requests reach the canary, and that is what is read."""
    shop, ground = split_shop
    before = await ground.owner_part()
    await ground.router.set_weight(ground.ref, SPEC, 50, epoch="1.0", was="")
    edit = [{"op": "remove", "path": "/spec/rules/0/backendRefs/0"}]
    await asyncio.to_thread(
        kubectl, "patch", "httproute", "shop", "-n", ground.namespace, "--type=json", "-p", json.dumps(edit)
    )
    await arrived(ground)
    await until_served_by(shop, {"v2"})

    found = await ground.router.read_weight(ground.ref, SPEC)
    await ground.router.set_weight(ground.ref, SPEC, 0, epoch="1.1", was="1.0")
    await arrived(ground)
    await until_served_by(shop, {"v1"})
    await asyncio.to_thread(kubectl, "delete", "service", "shop-canary", "-n", ground.namespace)
    await ground.router.remove(ground.ref, SPEC)

    assert (found.percent, found.present) == (100, True)
    assert await ground.owner_part() == before
    assert await revisions(shop, 200) == {"v1": 200}


async def test_a_canary_service_that_is_not_there_is_no_rejection(ground: ClusterGround) -> None:
    await ground.router.set_weight(ground.ref, SPEC, 0, epoch="1.0", was="")

    weight = await arrived(ground)

    assert (weight.programmed, weight.problem) == (True, "")


async def test_a_rejection_says_what_the_gateway_says(ground: ClusterGround) -> None:
    kubectl("delete", "service", "shop", "-n", ground.namespace)

    weight = await until(ground, lambda weight: bool(weight.problem))

    assert weight.problem == "RouteNotAccepted"
    assert "shop" in weight.problem_message


@pytest.mark.parametrize("during", [True, False], ids=["while we are in the route", "after we have left"])
async def test_the_owners_next_server_side_apply_has_no_conflict_with_us(ground: ClusterGround, during: bool) -> None:
    await ground.router.set_weight(ground.ref, SPEC, 0, epoch="1.0", was="")
    await ground.router.set_weight(ground.ref, SPEC, 25, epoch="1.0", was="1.0")
    if not during:
        await ground.router.remove(ground.ref, SPEC)
    changed = owner_route(ground.namespace)
    changed["spec"]["rules"][1]["matches"] = [_path("/basket")]

    await asyncio.to_thread(apply, [changed])

    rules = get("httproute", "shop", ground.namespace)["spec"]["rules"]
    assert rules[1]["matches"] == [_path("/basket")]
    assert not any(b["name"] == "shop-canary" for rule in rules for b in rule["backendRefs"])


async def test_we_hold_no_rules_after_a_write_although_the_gateway_writes_status(ground: ClusterGround) -> None:
    for number in range(10):
        await ground.router.set_weight(ground.ref, SPEC, number, epoch="1.0", was="1.0" if number else "")

    eventually(lambda: "f:rules" not in _fields_of_ours(ground.namespace))


def _fields_of_ours(namespace: str) -> str:
    text = kubectl("get", "httproute", "shop", "-n", namespace, "-o", "json", "--show-managed-fields")
    entries = json.loads(text)["metadata"]["managedFields"]
    return json.dumps([entry for entry in entries if entry["manager"] == "serin"]) + "."


async def test_a_stalled_leaders_late_raise_fails(ground: ClusterGround) -> None:
    await ground.router.set_weight(ground.ref, SPEC, 5, epoch="1.0", was="")
    await ground.router.set_weight(ground.ref, SPEC, 0, epoch="2.0", was="1.0")

    with pytest.raises(Fenced):
        await ground.router.set_weight(ground.ref, SPEC, 50, epoch="1.0", was="1.0")
    with pytest.raises(Conflict):
        await ground.router.set_weight(ground.ref, SPEC, 50, epoch="2.1", was="1.0")

    assert (await ground.router.read_weight(ground.ref, SPEC)).percent == 0


async def test_a_patch_decided_before_another_write_is_refused_by_the_api_server(ground: ClusterGround) -> None:
    await ground.router.set_weight(ground.ref, SPEC, 5, epoch="1.0", was="")
    late = HttpRouteRouter(HeldBack(ground))  # type: ignore[arg-type]

    with pytest.raises(Conflict):
        await late.set_weight(ground.ref, SPEC, 50, epoch="1.0", was="1.0")

    weight = await ground.router.read_weight(ground.ref, SPEC)
    assert (weight.percent, weight.epoch) == (0.0, "2.0")


class HeldBack:
    """The API of a leader that is stopped between reading and writing, while the next one retreats."""

    field_manager = "serin"

    def __init__(self, ground: ClusterGround) -> None:
        self._ground = ground

    async def get(self, *args: Any, **options: Any) -> Any:
        return await self._ground.api.get(*args, **options)

    async def json_patch(self, *args: Any, **options: Any) -> Any:
        await self._ground.router.set_weight(self._ground.ref, SPEC, 0, epoch="2.0", was="1.0")
        return await self._ground.api.json_patch(*args, **options)
