"""The routers that need no cluster keep the contract; `tests/cluster/test_router.py` runs it on a real one."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from controller.ports import Ref
from controller.routers.httproute import HttpRouteRouter
from tests.contract.router import RouterContract, canary_spec
from tests.fakes.router import FakeRouter
from tests.unit.routers.examples import route
from tests.unit.routers.store import RouteStore


class FakeGround:
    def __init__(self) -> None:
        self.ref, self.spec, self.router = Ref("town", "shop", "u1"), canary_spec(), FakeRouter()
        self.router.add_route(self.ref, self.spec)

    async def reset(self) -> None:
        self.router.reset(self.ref, self.spec)

    async def count_writes(self) -> int:
        return len(self.router.writes)

    async def owner_part(self) -> object:
        return self.router.routes[self.ref.key, "shop"]


class TestFakeRouter(RouterContract):
    @pytest.fixture
    def ground(self) -> FakeGround:
        return FakeGround()


class StoredGround:
    def __init__(self, body: dict[str, Any]) -> None:
        self.store, self.before = RouteStore(body), deepcopy(body)
        self.ref, self.spec = Ref("town", "shop", "u1"), canary_spec()
        self.router = HttpRouteRouter(self.store)  # type: ignore[arg-type]

    async def reset(self) -> None:
        self.store.route["spec"] = deepcopy(self.before["spec"])

    async def count_writes(self) -> int:
        return len(self.store.patches)

    async def owner_part(self) -> object:
        meta = self.store.route["metadata"]
        return deepcopy((self.store.route["spec"], meta.get("annotations"), meta["managedFields"][1:]))


class TestHttpRouteRouter(RouterContract):
    @pytest.fixture
    def ground(self) -> StoredGround:
        return StoredGround(route())
