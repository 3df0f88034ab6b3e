"""F and G: clocks, records and Events. Numbers are those of docs/faults.md."""

from __future__ import annotations

import asyncio
import signal
import time

from tests.faults.rig import LONG, NAME, Rig


async def test_row_71_a_process_that_slept_ends_when_it_wakes(it: Rig) -> None:
    """A suspended machine: longer than the lease, nothing of the old process is written."""
    await it.ready(LONG)
    await it.edit("v2")
    await it.until_weight(30)
    first = it.replica
    first.send(signal.SIGSTOP)
    await it.start()
    await it.until(lambda: it.status["leaderEpoch"] == 2, 40, "another leads")
    done = len(first.writes)
    first.send(signal.SIGCONT)
    woke = time.monotonic()
    assert await first.exit_code(3) == 70
    assert time.monotonic() - woke < 1.5
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
    await it.until_phase("RolledBack", within=20)
    assert it.weight == 0
    assert not any(one.get("outcome") for one in it.records())
    it.proxy.calm()
    await it.assert_back_on_stable("Aborted")


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
