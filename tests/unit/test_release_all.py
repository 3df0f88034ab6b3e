"""The errand before an uninstall stands the controller down, and up again where it could not release everything."""

from __future__ import annotations

from typing import Any

import pytest

from controller.app import Controller, parser
from controller.errors import Forbidden
from controller.kube.resources import Resource
from controller.kube.transport import Listing
from controller.loop.memory import CANARIES


class Api:
    """Has the controller's Deployment, and no Canary."""

    def __init__(self, replicas: int) -> None:
        self.replicas = replicas
        self.forbids = False

    async def merge_patch(
        self, resource: Resource, namespace: str, name: str, body: dict[str, Any], *, dry_run: bool = False
    ) -> dict[str, Any]:
        if self.forbids:
            raise Forbidden("cannot patch deployments")
        wanted = body.get("spec", {}).get("replicas", self.replicas)
        self.replicas = self.replicas if dry_run else wanted
        return {"spec": {"replicas": wanted}}

    async def list(self, resource: Resource, *where: Any) -> Listing[Any]:
        assert resource is CANARIES
        return Listing([], "1", {})


@pytest.mark.parametrize("released", [True, False])
async def test_a_controller_that_was_stood_down_is_back_where_not_everything_could_be_released(released: bool) -> None:
    api = Api(replicas=3)
    controller = Controller(api, parser().parse_args(["--release-all"]))  # type: ignore[arg-type]

    await controller._stand_others_down()
    assert api.replicas == 0
    if released:
        await controller._until_released()
    await controller._stand_others_up()

    assert api.replicas == (0 if released else 3)


async def test_without_the_right_to_stand_it_down_the_errand_goes_on() -> None:
    api = Api(replicas=3)
    api.forbids = True
    controller = Controller(api, parser().parse_args(["--release-all"]))  # type: ignore[arg-type]

    await controller._stand_others_down()
    await controller._stand_others_up()

    assert api.replicas == 3
