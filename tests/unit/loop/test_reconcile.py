"""What is carried out on a look that asked the API server nothing, and what is looked at live first."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise

import pytest
from structlog.testing import capture_logs

from controller.errors import ApiThrottled, Conflict, Forbidden, Refused, SerinError
from controller.loop.analyst import Analyst
from controller.loop.outlook import Outlooks
from controller.loop.reconcile import ARRIVES, TICK, reconcile, until_scraped
from controller.loop.world import World as Adapters
from controller.model.spec import Approval, CanarySpec, Verb
from controller.model.status import Phase, render_status
from controller.model.world import Pins, Target
from controller.ports import CanarySeen, Ref
from tests.builders import NOON
from tests.world import KEY, Hands, World


class Watching(Hands):
    """Counts live reads, by what was read."""

    def __init__(self, world: World) -> None:
        super().__init__(world, 1)
        self.live: list[str] = []
        self.meanwhile: Callable[[], None] = lambda: None
        self.answers = asyncio.Event()
        self.answers.set()

    async def read(self, key: str, *, live: bool = True) -> CanarySeen | None:
        if live:
            await self.answers.wait()
        return await super().read(key, live=live)

    async def read_pins(
        self, ref: Ref, spec: CanarySpec, target: Target, stable_hash: str, *, live: bool = True
    ) -> Pins:
        found = await super().read_pins(ref, spec, target, stable_hash, live=live)
        if live:
            self.meanwhile()
        return found

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
            self.hands,
            self.hands,
            self.hands,
            self.hands,
            Analyst(self.hands),
            Outlooks(self.hands),
            self.hands,
            self.hands,
            lambda: 1,
        )

    async def turn(self) -> timedelta | None:
        self.hands.watches.clear()
        self.hands.live.clear()
        return await reconcile(KEY, self.adapters, self.world.now)

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


async def test_requests_that_a_route_sends_to_a_canary_while_there_is_none_are_told_and_begin_nothing() -> None:
    """A header rule for testers, or a backup of a route that was taken during a rollout."""
    process = Process()
    world = process.world
    await process.until(lambda: world.remembered.edits_held)
    world.route.present, world.route.percent = True, 100.0

    world.edit("v2")
    await process.until(lambda: world.remembered.reason == "CanaryInRoute")

    assert world.remembered.phase is Phase.IDLE
    assert "gives 100 % of a rule to checkout-canary" in world.remembered.message
    assert {one.type: one.status for one in world.remembered.conditions}["Accepted"] == "False"
    world.reset_route()
    await process.until(process.phase(Phase.PROGRESSING))


@pytest.mark.parametrize("why", ["aborted", "deleted", "edited", "frozen"])
async def test_the_record_of_an_early_end_says_how_many_requests_were_compared_until_then(why: str) -> None:
    process = await started()
    world = process.world
    for _ in range(20):
        world.pass_time(1.0)
        await process.turn()
    attempt = world.remembered.attempt
    assert attempt is not None
    assert (attempt.canary_requests, world.remembered.phase) == (0, Phase.PROGRESSING), "nothing was remembered yet"

    match why:
        case "aborted":
            world.say(Verb.ABORT)
        case "deleted":
            world.deleting = True
            world.version += 1
        case "edited":
            world.edit("v3")
        case "frozen":
            world.pass_time(1.0)
            world.engage(onStart="RollBack")
    await process.until(lambda: bool(world.records[attempt.id].get("outcome")))

    assert 200 <= world.records[attempt.id]["canaryRequests"] <= 600


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


async def test_an_abort_takes_the_traffic_off_while_nothing_but_canary_and_route_can_be_read() -> None:
    process = await started()

    async def throttled(*_: object, **__: object) -> None:
        raise ApiThrottled("list replicasets: come back later", 30.0)

    for read in ("read_target", "read_canary", "read_pins", "read_record", "read_samples"):
        setattr(process.hands, read, throttled)
    process.world.say(Verb.ABORT)

    await reconcile(KEY, process.adapters, process.world.now)

    assert process.world.remembered.phase is Phase.ROLLING_BACK
    assert process.world.route.percent == 0.0


async def test_an_edit_after_a_rollback_waits_until_what_is_wrong_with_the_source_is_mended() -> None:
    process = await started({"v2": 0.5})
    world = process.world
    await process.until(process.phase(Phase.ROLLED_BACK))
    world.source_problems = ("ErrorsNotCounted analysis.metrics[0].errorRatio: no series",)
    world.edit("v3")
    await process.until(lambda: world.remembered.reason == "ErrorsNotCounted")
    for _ in range(60):
        world.pass_time(1.0)
        await process.turn()

    assert world.remembered.phase is Phase.ROLLED_BACK

    world.source_problems = ()
    await process.until(process.phase(Phase.PREPARING))


async def test_a_problem_that_only_the_metrics_server_can_tell_costs_the_api_server_nothing_at_rest() -> None:
    process = Process()
    world, reason = process.world, "ThresholdNotABound"
    await process.until(lambda: world.remembered.edits_held)
    world.source_problems = (f"{reason} analysis.metrics[0].latency.threshold: 300ms",)
    world.edit("v2")
    await process.until(lambda: world.remembered.reason == reason)

    live: list[str] = []
    for minute in range(10):
        world.metrics_up = minute not in {4, 5}
        again = await process.turn()
        live += process.hands.live
        assert again == timedelta(minutes=1)
        world.pass_time(again.total_seconds())

    assert (world.remembered.reason, live) == (reason, []), "also while the server is down, which mends nothing"

    world.source_problems = ()
    await process.turn()

    assert world.remembered.phase is Phase.PREPARING, "once it is mended, within that minute"


async def test_where_the_hold_is_not_in_force_it_is_asked_for_ever_more_seldom() -> None:
    process = Process()
    world, asked = process.world, list[timedelta]()

    async def prove_hold(*_: object) -> bool:
        asked.append(world.now - NOON)
        return False

    process.hands.prove_hold = prove_hold  # type: ignore[method-assign]
    while world.now < NOON + timedelta(hours=2):
        again = await process.turn()
        assert again is not None
        world.pass_time(again.total_seconds())

    assert 55 <= sum(at < timedelta(minutes=1) for at in asked) <= 61, "in force 20 s after an installation"
    assert sum(at >= timedelta(minutes=1) for at in asked) <= 70
    assert max(later - at for at, later in pairwise(asked)) <= timedelta(minutes=5, seconds=1)


async def test_a_gate_whose_approver_lost_the_right_costs_a_live_look_now_and_then() -> None:
    process = Process()
    world = process.world
    gated = world.spec.steps[0].model_copy(update={"approval": Approval()})
    world.spec = world.spec.model_copy(update={"steps": (gated, *world.spec.steps[1:])})
    await process.until(lambda: world.remembered.edits_held)
    world.edit("v2")
    await process.until(baking(process))
    world.say(Verb.APPROVE, step=1)
    await process.until(lambda: bool(world.remembered.decisions))
    world.may = False
    await process.until(lambda: world.remembered.reason == "AwaitingApproval")

    live = 0
    for _ in range(600):
        world.pass_time(1.0)
        await process.turn()
        live += "canary" in process.hands.live

    assert world.remembered.reason == "AwaitingApproval"
    assert 600 / 40 - 1 <= live <= 600 / 20 + 1
    world.may = True
    await process.until(lambda: world.remembered.attempt is not None and world.remembered.attempt.step == 1)


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


@pytest.mark.looptime
async def test_a_verdict_waits_for_no_live_look_that_the_api_server_does_not_answer() -> None:
    process = await started()
    process.world.failing["v2"] = 0.9
    process.hands.answers.clear()
    process.adapters.live.forget(KEY)

    async def time_passes() -> None:
        while True:
            await asyncio.sleep(1)
            process.world.pass_time(1.0)

    passing = asyncio.create_task(time_passes())
    async with asyncio.timeout(30):
        await process.turn()
    passing.cancel()

    assert process.world.remembered.phase is Phase.RETREATED
    assert process.world.route.percent == 0


async def test_a_freeze_is_said_without_a_live_read_and_looked_at_again_with_the_next_samples_only() -> None:
    process = await started()
    process.world.engage()

    again = await process.turn()

    assert process.world.remembered.reason == "Frozen"
    assert process.hands.live == []
    assert again is not None
    assert timedelta(0) < again <= TICK


async def test_a_freeze_that_comes_during_a_live_look_keeps_it_from_raising() -> None:
    process = await started()
    before = process.world.route.percent
    process.hands.meanwhile = process.world.engage

    for _ in range(400):
        await process.turn()
        process.world.thaw()
        process.world.pass_time(1.0)

    assert process.world.remembered.phase is Phase.PROGRESSING
    assert process.world.remembered.weight == process.world.route.percent == before


@pytest.mark.looptime
async def test_a_live_look_that_takes_long_is_had_all_the_same_where_nothing_is_found_meanwhile() -> None:
    process = await started()
    process.hands.answers.clear()
    process.adapters.live.forget(KEY)
    asyncio.get_running_loop().call_later(8, process.hands.answers.set)

    await process.turn()

    assert "target" in process.hands.live
    await process.turn()
    assert process.hands.live == []


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


@pytest.mark.parametrize(
    ("due", "again"),
    [
        pytest.param(0.6, timedelta(seconds=0.6) + ARRIVES, id="the next scrape is less than a tick away"),
        pytest.param(14.0, TICK, id="it is far away"),
        pytest.param(-0.3, TICK / 4, id="its samples are a little late"),
        pytest.param(-3.0, TICK, id="a server that lags is not asked more often"),
        pytest.param(None, TICK, id="nothing was scraped yet"),
    ],
)
def test_samples_are_looked_for_when_they_arrive(due: float | None, again: timedelta) -> None:
    scraped = None if due is None else NOON + timedelta(seconds=due)

    assert until_scraped(scraped, NOON) == again


async def test_what_the_analysis_said_is_logged_once_with_the_numbers_that_status_has() -> None:
    process = await started({"v2": 0.5})

    with capture_logs() as lines:
        while process.world.remembered.phase is Phase.PROGRESSING:
            process.world.pass_time(1.0)
            await process.turn()
        await process.turn()

    (said,) = [line for line in lines if line["event"] == "judged"]
    attempt = process.world.remembered.attempt
    assert attempt is not None
    assert attempt.judged is not None
    assert (said["metric"], said["would_change"]) == ("errors", attempt.judged.would_change)
    assert {name: said[name] for name in attempt.judged.numbers} == pytest.approx(attempt.judged.numbers, rel=1e-5)


async def test_an_act_that_changes_nothing_is_not_done_again_at_once() -> None:
    """As where another admission writes back what was there: the API server would be asked as fast as it answers."""
    process = await started()
    process.world.write = lambda what, term, change: None  # type: ignore[method-assign]
    process.world.pinned = ""
    process.world.status = render_status(process.world.remembered.with_attempt(baking_since=None))

    assert await process.turn() == timedelta(0)
    assert [await process.turn() for _ in range(3)] == [TICK] * 3
