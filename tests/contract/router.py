"""What every TrafficRouter must do, whatever is behind it: subclass, give a `ground`, and the suite runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import pytest

from controller.errors import Conflict, Fenced
from controller.model.spec import CanarySpec, RouteRef, ServiceRef, TargetRef, Traffic
from controller.model.world import Weight
from controller.ports import Ref, TrafficRouter


def canary_spec(route: str = "shop", service: str = "shop", port: int = 80) -> CanarySpec:
    return CanarySpec(
        target_ref=TargetRef(name=service),
        traffic=Traffic(service=ServiceRef(name=service, port=port), http_route=RouteRef(name=route)),
    )


class Ground(Protocol):
    """A router with one route that its owner has just written, and what other people do to that route."""

    router: TrafficRouter
    ref: Ref
    spec: CanarySpec

    async def reset(self) -> None:
        """The owner applies the rules again as they were at first."""

    async def count_writes(self) -> int:
        """Writes of ours that reached the route so far."""

    async def owner_part(self) -> object:
        """The route as far as its owner wrote it, to compare."""


class RouterContract:
    """Inherited by one class for each router."""

    async def read(self, ground: Ground) -> Weight:
        return await ground.router.read_weight(ground.ref, ground.spec)

    async def set(self, ground: Ground, percent: float, epoch: str = "1.0", was: str | None = None) -> None:
        seen = (await self.read(ground)).epoch if was is None else was
        await ground.router.set_weight(ground.ref, ground.spec, percent, epoch=epoch, was=seen)

    async def test_an_untouched_route_gives_the_canary_nothing(self, ground: Ground) -> None:
        weight = await self.read(ground)

        assert (weight.percent, weight.present, weight.epoch, weight.problem) == (0.0, False, "", "")

    @pytest.mark.parametrize("percent", [0.0, 0.01, 1.0, 5.0, 12.5, 33.33, 50.0, 99.99, 100.0])
    async def test_a_weight_reads_back_exactly_as_it_was_set(self, ground: Ground, percent: float) -> None:
        await self.set(ground, percent, epoch="3.1")

        weight = await self.read(ground)

        assert (weight.percent, weight.present, weight.epoch) == (percent, True, "3.1")

    async def test_setting_the_same_weight_again_writes_nothing(self, ground: Ground) -> None:
        await self.set(ground, 5)
        before = await ground.count_writes()

        await self.set(ground, 5)

        assert await ground.count_writes() == before

    async def test_a_new_epoch_is_stamped_where_the_weight_is_zero_already(self, ground: Ground) -> None:
        await self.set(ground, 0, epoch="1.0")

        await self.set(ground, 0, epoch="1.1")

        assert (await self.read(ground)).epoch == "1.1"

    async def test_a_weight_decided_before_a_retreat_is_refused(self, ground: Ground) -> None:
        await self.set(ground, 5, epoch="1.0")
        await self.set(ground, 0, epoch="1.1")

        with pytest.raises(Conflict):
            await self.set(ground, 25, epoch="1.0", was="1.0")

        assert (await self.read(ground)).percent == 0

    async def test_a_leader_that_was_replaced_is_told_to_stop(self, ground: Ground) -> None:
        await self.set(ground, 5, epoch="1.7")
        await self.set(ground, 5, epoch="2.7")

        with pytest.raises(Fenced):
            await self.set(ground, 25, epoch="1.7", was="1.7")
        with pytest.raises(Fenced):
            await self.set(ground, 25, epoch="1.8", was="2.7")

        assert (await self.read(ground)).percent == 5

    async def test_a_write_whose_reply_was_lost_may_be_sent_again(self, ground: Ground) -> None:
        await self.set(ground, 0, epoch="1.0")
        await self.set(ground, 5, epoch="2.0", was="1.0")

        await self.set(ground, 5, epoch="2.0", was="1.0")

        assert (await self.read(ground)).percent == 5

    @pytest.mark.parametrize("percent", [-0.01, 100.01, 0.001])
    async def test_what_is_no_weight_is_refused(self, ground: Ground, percent: float) -> None:
        with pytest.raises(ValueError, match=r"weight"):
            await self.set(ground, percent)

        assert not (await self.read(ground)).present

    async def test_a_reset_by_the_owner_shows_and_can_be_mended(self, ground: Ground) -> None:
        await self.set(ground, 5, epoch="1.0")

        await ground.reset()
        seen = await self.read(ground)
        await self.set(ground, 5, epoch="1.0")

        assert (seen.percent, seen.present) == (0.0, False)
        assert (await self.read(ground)).percent == 5

    async def test_removing_leaves_what_the_owner_wrote(self, ground: Ground) -> None:
        before = await ground.owner_part()
        for percent, epoch in ((0.0, "1.0"), (5.0, "1.0"), (33.33, "1.0"), (0.0, "1.1")):
            await self.set(ground, percent, epoch=epoch)

        await ground.router.remove(ground.ref, ground.spec)

        assert await ground.owner_part() == before
        assert replace(await self.read(ground), programmed=False) == Weight()

    async def test_removing_twice_writes_once(self, ground: Ground) -> None:
        await self.set(ground, 5)
        await ground.router.remove(ground.ref, ground.spec)
        before = await ground.count_writes()

        await ground.router.remove(ground.ref, ground.spec)

        assert await ground.count_writes() == before

    async def test_a_missing_route_is_a_problem_and_not_an_error(self, ground: Ground) -> None:
        elsewhere = canary_spec(route="no-such-route")

        weight = await ground.router.read_weight(ground.ref, elsewhere)
        await ground.router.remove(ground.ref, elsewhere)

        assert weight.problem == "RouteMissing"
        assert weight.problem_message
