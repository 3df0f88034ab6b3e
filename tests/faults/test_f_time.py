"""F and G: clocks, records and Events. Numbers are those of docs/faults.md."""

from __future__ import annotations

import asyncio
import signal
import time
from datetime import timedelta
from pathlib import Path

import pytest

from tests.faults.clock import Clock, compiler
from tests.faults.rig import LONG, NAME, Rig, in_groups

BAKING = ({"weight": 20, "bake": "10s"}, {"weight": 50, "bake": "2s"})
LONGER_THAN_THE_BAKE = 14.0


@pytest.fixture
def clock(it: Rig, tmp_path: Path) -> Clock:
    """The wall clock of the controllers of this test."""
    if not compiler():
        pytest.skip("no C compiler on this machine, which a clock of one's own takes; the simulation has one without")
    made = Clock.made(tmp_path)
    it.environment |= made.environment
    return made


@pytest.mark.parametrize("minutes", [-60, 60])
async def test_row_70_a_clock_that_jumps_in_a_step_raises_nothing_until_it_is_right_again(
    it: Rig, clock: Clock, minutes: int
) -> None:
    """A real process by a clock of its own: an hour ahead the bake looks over, an hour behind it looks endless."""
    await it.ready(BAKING)
    await it.edit("v2")
    await it.until_weight(20)
    clock.set(timedelta(minutes=minutes))
    await asyncio.sleep(LONGER_THAN_THE_BAKE)
    assert it.weight == 20
    assert it.replica.process.returncode is None
    clock.set(timedelta())
    await it.assert_promoted(bakes_anew=True)


@pytest.mark.parametrize("minutes", [-60, 60])
async def test_row_70_an_abort_does_not_wait_for_a_clock_to_be_right(it: Rig, clock: Clock, minutes: int) -> None:
    """The controller's clock is an hour off when somebody wants out."""
    await it.ready(LONG)
    await it.edit("v2")
    await it.until_weight(30)
    clock.set(timedelta(minutes=minutes))
    await asyncio.sleep(3)
    await it.decide("Abort")
    await it.until_weight(0)
    await it.assert_back_on_stable("Aborted")


@pytest.mark.parametrize("minutes", [-60, 60])
async def test_row_41_a_controller_whose_clock_is_wrong_from_its_start_sends_no_request_there_and_says_why(
    it: Rig, clock: Clock, minutes: int
) -> None:
    """The other way round: the metrics server is right, and the controller is not."""
    clock.set(timedelta(minutes=minutes))
    await it.ready(BAKING)
    await it.edit("v2")
    await it.until(lambda: "its clock is" in it.status.get("message", ""), what="said")
    await asyncio.sleep(LONGER_THAN_THE_BAKE)
    assert (it.status["reason"], it.weight) == ("MetricsUnavailable", 0), "no request goes there unwatched"
    clock.set(timedelta())
    await it.assert_promoted(bakes_anew=True)


async def test_row_71_a_process_that_slept_ends_when_it_wakes(it: Rig) -> None:
    """A suspended machine: longer than the lease, nothing of the old process is written."""
    await it.ready(LONG)
    await it.edit("v2")
    await it.until_weight(30)
    first = it.replica
    first.send(signal.SIGSTOP)
    await it.start()
    await it.until(lambda: it.status["leaderEpoch"] == 2, what="another leads")
    done = len(first.writes)
    first.send(signal.SIGCONT)
    assert await first.exit_code() == 70
    assert len(first.writes) == done
    assert it.weight == 30


async def test_row_78_nothing_is_promoted_unrecorded_and_a_rollback_does_not_wait(it: Rig) -> None:
    """Records cannot be written: no pod, no weight. Later in a step: weight 0 at once, and the record catches up."""
    await it.ready(LONG)
    it.proxy.fault(path="/releaserecords", status=500)
    await it.edit("v2")
    await asyncio.sleep(5)
    assert it.weight == 0
    assert not it.latest("Deployment", f"{NAME}-canary")
    it.proxy.calm()
    await it.until_weight(30)
    it.proxy.fault(path="/releaserecords", status=500)
    await it.decide("Abort")
    await it.until_phase("RolledBack")
    await it.until_weight(0)
    assert not any(one.get("outcome") for one in it.records())
    it.proxy.calm()
    await it.assert_back_on_stable("Aborted")


async def test_row_79_events_that_nobody_takes_delay_nothing(it: Rig) -> None:
    """There are no other notifications: the API server answers to no Event, and the rollout is as fast as ever."""
    await it.ready()
    swallowed = it.proxy.fault(path="/events", hang=True)
    await it.edit("v2")
    began = time.monotonic()
    await it.assert_promoted()
    # Each Event is waited for beside the rollout; one after the other within it would take minutes.
    assert time.monotonic() - began < 60
    assert swallowed.hits > 0
    assert it.replica.process.returncode is None


async def test_row_80_a_flood_of_changes_is_no_flood_of_events(it: Rig) -> None:
    """A tool that flips the weight all the time: Events are counted up, not piled up."""
    await it.ready(LONG)
    await it.edit("v2")
    await it.until_weight(30)
    for _ in range(40):
        await it.hand_edit(90)
        await asyncio.sleep(0.25)
    listed = await it.api.call("GET", f"/apis/events.k8s.io/v1/namespaces/{it.namespace}/events")
    ours = [one for one in listed["items"] if one.get("reportingController") == "serin-controller"]
    assert 0 < len(ours) < 30


async def test_row_81_a_flood_of_decisions_and_canaries_delays_nobody(it: Rig) -> None:
    """A tenant writes 300 Canaries that lead nowhere and 600 Decisions about another attempt, and goes on with it."""
    await it.ready(LONG)
    model = it.latest("Canary")

    async def canary(number: int) -> None:
        spec = model["spec"] | {"targetRef": {"kind": "Deployment", "name": f"nothing-{number}"}}
        body = {"apiVersion": model["apiVersion"], "kind": "Canary", "metadata": {"name": f"flood-{number}"}}
        await it.api.apply(it.path("Canary", f"flood-{number}"), body | {"spec": spec})

    await in_groups([canary(number) for number in range(300)])
    # An edit among 300 Canaries of one namespace takes the API server a while.
    await it.edit("v2")
    await it.until_weight(30)
    await in_groups([it.decide("Approve", attempt="another", step=1) for _ in range(600)])
    async with asyncio.TaskGroup() as tenant:
        tenant.create_task(in_groups([it.decide("Pause", attempt="another") for _ in range(200)], 4))
        await it.decide("Abort")
        # Answered one after the other, 800 Decisions take minutes.
        await it.until_weight(0, within=45)

    await it.assert_back_on_stable("Aborted")
    assert len(str(it.status["decisions"])) < 20_000
