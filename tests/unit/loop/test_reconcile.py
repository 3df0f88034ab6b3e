"""What is carried out on a look that asked the API server nothing, and what is looked at live first."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from controller.errors import Conflict, Forbidden, Refused, SerinError
from controller.loop.analyst import Analyst
from controller.loop.reconcile import reconcile
from controller.loop.world import World as Adapters
from controller.model.status import Phase
from tests.world import KEY, Hands, World


class Watching(Hands):
    """Counts live reads, by what was read."""

    def __init__(self, world: World) -> None:
        super().__init__(world, 1)
        self.live: list[str] = []

    def _watched(self, what: str, now: object, live: bool) -> object:  # type: ignore[override]
        if live:
            self.live.append(what)
        return super()._watched(what, now, live)


class Process:
    """A controller in a world without misfortune, whose watches are never late."""

    def __init__(self, failing: dict[str, float] | None = None) -> None:
        chance = random.Random(7)
        self.world = World(chance, failing or {})
        self.hands = Watching(self.world)
        self.adapters = Adapters(
            self.hands, self.hands, self.hands, self.hands, Analyst(self.hands), self.hands, self.hands, lambda: 1
        )

    async def turn(self) -> None:
        self.hands.watches.clear()
        self.hands.live.clear()
        await reconcile(KEY, self.adapters, self.world.now)

    async def until(self, reached: Callable[[], bool]) -> None:
        for _ in range(600):
            await self.turn()
            if reached():
                return
            self.world.pass_time(0.5)
        raise AssertionError(f"never: {self.world.remembered.phase}")

    def phase(self, phase: Phase) -> Callable[[], bool]:
        return lambda: self.world.remembered.phase is phase


def baking(process: Process) -> Callable[[], bool]:
    def reached() -> bool:
        attempt = process.world.remembered.attempt
        return attempt is not None and attempt.baking_since is not None and process.world.records != {}

    return reached


async def started(failing: dict[str, float] | None = None) -> Process:
    process = Process(failing)
    await process.until(lambda: process.world.remembered.edits_held)
    process.world.edit("v2")
    await process.until(baking(process))
    for _ in range(3):
        await process.turn()
    return process


async def test_a_look_that_only_waits_asks_the_api_server_nothing() -> None:
    process = await started()

    await process.turn()

    assert process.hands.live == []
    assert process.world.remembered.reason == "Baking"


async def test_whatever_raises_traffic_is_looked_at_live_first() -> None:
    process = await started()
    raised = len(process.world.writes)

    await process.until(lambda: any("weight" in what for _, what, _ in process.world.writes[raised:]))

    assert {"canary", "target", "pods", "route", "pins"} <= set(process.hands.live)


async def test_a_verdict_and_weight_0_need_no_live_read() -> None:
    process = await started({"v2": 0.5})
    while process.world.remembered.phase is Phase.PROGRESSING:
        process.world.pass_time(1.0)
        await process.turn()

    assert process.world.remembered.phase is Phase.RETREATED
    assert process.world.route.percent == 0.0
    assert process.hands.live == []


async def test_after_a_refused_write_the_next_look_is_live() -> None:
    process = await started({"v2": 0.5})

    def refuse(what: str) -> None:
        raise Conflict("somebody was faster")

    process.world.before_write = refuse

    async def until_refused() -> None:
        for _ in range(60):
            process.world.pass_time(1.0)
            await process.turn()

    with pytest.raises(Conflict):
        await until_refused()
    process.world.before_write = lambda what: None

    await process.turn()

    assert "canary" in process.hands.live


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(Forbidden("patch deployments shop/checkout: not allowed"), id="a right is missing"),
        pytest.param(Refused("denied by another policy: no second Deployment"), id="another admission says no"),
    ],
)
async def test_what_the_api_server_does_not_let_it_do_is_said_in_the_status_and_tried_again(error: SerinError) -> None:
    process = Process()
    await process.until(lambda: process.world.remembered.edits_held)
    process.world.edit("v2")

    def refuse(what: str) -> None:
        if "status" not in what:
            raise error

    process.world.before_write = refuse
    for _ in range(20):
        await process.turn()
        process.world.pass_time(1.0)
    told = process.world.remembered
    process.world.before_write = lambda what: None

    assert (told.reason, told.message) == (error.reason, str(error))
    assert "Holding" in {condition.type for condition in told.conditions}
    await process.until(baking(process))
