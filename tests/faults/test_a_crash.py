"""A: the controller dies, is stopped, or loses its lease. Numbers are those of docs/faults.md."""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import signal
import time
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from tests.faults.oracles import Object
from tests.faults.rig import LONG, NAME, Replica, Rig, rig

EVERY = os.environ.get("FAULTS") == "all"
PATIENCE = 600.0
"""seconds that a retreat, its rest and the rollback take, several of them side by side"""
TAKEOVER = 60.0
"""seconds from the end of a leader to the next one's first act, on a busy machine"""
LEASE = 10.0
"""seconds"""
ONE_STEP = ({"weight": 50, "bake": "2s"},)


def killer(replica: Replica) -> Callable[[web.Request], Awaitable[None]]:
    async def kill(request: web.Request) -> None:
        await replica.killed()

    return kill


async def dies_after(number: int, *, bad: bool) -> bool:
    """A rollout whose controller is killed when its write of this number was accepted; false if it made fewer."""
    async with rig(f"fault-{secrets.token_hex(4)}") as it:
        it.above = TAKEOVER
        await it.ready(ONE_STEP)
        first = it.replica
        fault = it.proxy.fault(writes=True, skip=number, times=1, after=killer(first))
        if bad:
            it.gateway.bad.add(f"{it.namespace}/{NAME}")
        await it.edit("v2")
        await it.until(lambda: first.process.returncode is not None or it.ended(), PATIENCE, "killed or over")
        died = first.process.returncode is not None
        assert died or fault.seen <= number + 1, "only who writes less often lives on, or whose last write it was"
        if died:
            await it.restart()
        if bad:
            await it.until_ended(within=PATIENCE)
            await it.assert_back_on_stable()
        else:
            await it.assert_promoted()
        return died


@pytest.mark.parametrize("bad", [False, True], ids=["promoted", "rolled back"])
async def test_row_01_killed_after_any_write_the_next_leader_ends_the_same_way(installed: None, bad: bool) -> None:
    """Each write of a recorded run gets a run of its own in which it is the last of its process."""
    async with rig(f"fault-{secrets.token_hex(4)}") as it:
        await it.ready(ONE_STEP)
        before = len(it.replica.writes)
        if bad:
            it.gateway.bad.add(f"{it.namespace}/{NAME}")
        await it.edit("v2")
        await it.until_ended(within=PATIENCE)
        count = len(it.replica.writes) - before
    assert count > 8
    gate = asyncio.Semaphore(4)

    async def one(number: int) -> bool:
        async with gate:
            return await dies_after(number, bad=bad)

    died = await asyncio.gather(*(one(number) for number in range(0, count, 1 if EVERY else 5)))
    # How many retreats and conflicts there are, and so writes, is not the same every time.
    assert sum(died) > len(died) / 2


async def test_row_02_killed_between_verdict_and_route_the_first_act_is_weight_zero(it: Rig) -> None:
    """The verdict is in status; the next process takes the traffic away before it asks for any metric."""
    await it.ready(LONG)
    await it.edit("v2")
    await it.until_weight(30)
    first = it.replica

    async def kill_on_verdict(request: web.Request) -> None:
        if b'"RollingBack"' in await request.read():
            await first.killed()

    it.proxy.fault(writes=True, path="canaries/shop/status", after=kill_on_verdict)
    await it.decide("Abort")
    assert await first.exit_code() == -signal.SIGKILL
    assert it.weight == 30
    await it.free_lease()
    # Only now: what the first had sent before it died may have been read a moment later.
    asked = len(it.gateway.queries)
    second = await it.start()
    await it.until_weight(0)

    assert len(it.gateway.queries) == asked
    assert [path.partition("?")[0].rpartition("/")[2] for _, path in second.writes][:2] == ["status", "shop"]
    await it.assert_back_on_stable("Aborted")


async def test_row_03_killed_every_few_seconds_the_rollout_still_ends(it: Rig) -> None:
    """A killer at random for a while, then calm."""
    await it.ready()
    await it.edit("v2")
    chance = random.Random(3)
    for _ in range(20 if EVERY else 6):
        await asyncio.sleep(chance.uniform(0.2, 5.0))
        await it.replica.killed()
        await it.restart()
    await it.assert_promoted()


GARBAGE: dict[str, Object] = {
    "an attempt without a plan": {
        "phase": "Progressing",
        "attempt": {"id": "x", "templateHash": "h", "startedAt": "2026-03-01T12:00:00Z", "plan": []},
    },
    "a phase and nothing else": {"phase": "RollingBack"},
    "a step beyond the plan": {
        "phase": "Progressing",
        "attempt": {
            "id": "x",
            "templateHash": "h",
            "startedAt": "2026-03-01T12:00:00Z",
            "plan": [{"weight": 5, "bake": 1}],
            "step": 90,
        },
    },
    "a template that is none": {
        "phase": "Idle",
        "stable": {"uid": "u", "hash": "h", "templateHash": "t", "template": {"x": 1}},
    },
}


@pytest.mark.parametrize("garbage", [pytest.param(body, id=name) for name, body in GARBAGE.items()])
async def test_row_04_a_poisoned_object_stops_nobody_else(it: Rig, garbage: Object) -> None:
    """A status that nobody could have meant, at the start of the process and while it runs."""
    await it.shop()
    poisoned = dict(it.latest("Canary") or await it.api.call("GET", it.path("Canary")))
    body = {
        "apiVersion": poisoned["apiVersion"],
        "kind": "Canary",
        "metadata": {"name": "poisoned"},
        "spec": poisoned["spec"] | {"targetRef": {"kind": "Deployment", "name": "other"}},
    }
    await it.api.apply(it.path("Canary", "poisoned"), body)
    await it.write_status("poisoned", garbage)
    await it.start()
    await it.until_held()
    await it.write_status("poisoned", garbage)
    await it.edit("v2")
    await it.assert_promoted()
    assert it.replica.process.returncode is None
    failed = [line for line in it.replica.log.read_text().splitlines() if "key_failed" in line]
    assert not failed, failed[:3]


def gives_traffic(patch: bytes) -> bool:
    """Whether this patch of a route gives the canary a weight above 0."""
    values = [op.get("value") for op in json.loads(patch)]
    rules = [rule for value in values for rule in (value if isinstance(value, list) else [value])]
    backends = [one for rule in rules if isinstance(rule, dict) for one in (rule.get("backendRefs") or (rule,))]
    return any(one.get("name") == f"{NAME}-canary" and one.get("weight", 0) > 0 for one in backends)


async def test_row_05_a_stopped_leaders_late_raise_is_refused_and_it_ends_when_it_wakes(it: Rig) -> None:
    """Stopped with the raise half sent; the request arrives when another leads, the process wakes after that."""
    await it.ready()
    old, proxy = it.replica, it.proxy
    led, sent = asyncio.Event(), asyncio.Event()

    async def stall(request: web.Request) -> None:
        # By the request itself: what the test has seen of the status by now is another matter.
        if gives_traffic(await request.read()) and not sent.is_set():
            old.send(signal.SIGSTOP)
            sent.set()
            await led.wait()

    proxy.fault(method="PATCH", path="httproutes/shop", before=stall)
    await it.edit("v2")
    await it.until(sent.is_set, what="the raise is on its way")
    epoch = it.status["leaderEpoch"]
    await it.start()
    await it.until(lambda: it.status["leaderEpoch"] > epoch, what="another leads")
    await it.until(lambda: it.epoch.startswith(f"{it.status['leaderEpoch']}."), what="the route carries its term")
    led.set()
    await asyncio.sleep(0.5)
    old.send(signal.SIGCONT)
    assert await old.exit_code() == 70
    await it.assert_promoted()


async def stopped_before(number: int) -> bool:
    """A rollout whose leader stops with its write of this number half sent; false if it made fewer."""
    async with rig(f"fault-{secrets.token_hex(4)}") as it:
        it.above = TAKEOVER
        await it.ready(ONE_STEP)
        old, sent, led = it.replica, asyncio.Event(), asyncio.Event()

        async def stall(request: web.Request) -> None:
            old.send(signal.SIGSTOP)
            sent.set()
            await led.wait()

        it.proxy.fault(writes=True, skip=number, times=1, before=stall)
        await it.edit("v2")
        await it.until(lambda: sent.is_set() or it.ended(), PATIENCE, "stopped or over")
        if sent.is_set():
            await it.start()
            await it.until(lambda: it.status["leaderEpoch"] == 2 or it.ended(), PATIENCE, "another leads")
            led.set()
            await asyncio.sleep(0.5)
            old.send(signal.SIGCONT)
            assert await old.exit_code() == 70
        await it.assert_promoted(bakes_anew=True)
        return sent.is_set()


@pytest.mark.long
async def test_row_05_stopped_before_any_write_its_late_request_changes_nothing(installed: None) -> None:
    """Each write of a recorded run is once the one that is half sent while another leads and goes on."""
    async with rig(f"fault-{secrets.token_hex(4)}") as it:
        await it.ready(ONE_STEP)
        before = len(it.replica.writes)
        await it.edit("v2")
        await it.assert_promoted()
        count = len(it.replica.writes) - before
    gate = asyncio.Semaphore(4)

    async def one(number: int) -> bool:
        async with gate:
            return await stopped_before(number)

    stopped = await asyncio.gather(*map(one, range(count)))
    assert sum(stopped) > count / 2


@pytest.mark.parametrize("way", ["refused", "unanswered"])
async def test_row_06_a_leader_that_cannot_renew_ends_before_its_lease_does(it: Rig, way: str) -> None:
    """Only the lease is out of reach; everything else works, and still nothing is written after the deadline."""
    await it.ready(LONG)
    await it.edit("v2")
    await it.until_weight(30)
    first = it.replica
    it.proxy.fault(path="/leases/", status=500 if way == "refused" else None, hang=way == "unanswered")
    assert await first.exit_code() == 70
    assert time.time() < await it.renewed() + LEASE
    done = len(first.writes)
    await it.start()
    await it.until(lambda: it.status["leaderEpoch"] == 2, what="another leads")
    assert len(first.writes) == done
    assert it.weight == 30


@pytest.mark.parametrize("crime", ["deleted", "forged"])
async def test_row_07_a_lease_that_is_gone_or_forged_counts_as_lost(it: Rig, crime: str) -> None:
    """Whoever held it ends; the next one goes on where the rollout was."""
    await it.ready(LONG)
    await it.edit("v2")
    await it.until_weight(30)
    first = it.replica
    if crime == "deleted":
        await it.api.call("DELETE", it.lease)
    else:
        forged = {"spec": {"holderIdentity": "somebody"}}
        await it.api.call("PATCH", it.lease, forged, "application/merge-patch+json")
    assert await first.exit_code() == 70
    await it.restart()
    await it.until(lambda: it.status["leaderEpoch"] == 2, what="another leads")
    assert (it.weight, it.status["phase"]) == (30, "Progressing")


async def test_row_08_of_two_installs_the_older_leader_ends_and_nothing_is_done_twice(it: Rig) -> None:
    """Two processes with leases of their own know each other by the term in the status."""
    await it.ready()
    first = it.replica
    elsewhere = f"{it.namespace}-too"
    await it.lease_rights(elsewhere)
    await it.edit("v2")
    await it.until_weight(20)
    await it.start(lease_in=elsewhere)
    assert await first.exit_code() == 70
    await it.assert_promoted()


async def test_row_10_told_to_stop_it_stops_working_first_and_frees_the_lease_last(it: Rig) -> None:
    """SIGTERM in a step: the next one leads at once, and no step is repeated."""
    await it.ready(({"weight": 20, "bake": "6s"}, {"weight": 50, "bake": "2s"}))
    first = it.replica
    second = await it.start()
    await it.until(lambda: second.proxy.count("GET", "/leases"), what="the other waits for the Lease")
    await it.edit("v2")
    await it.until_weight(20)
    first.send(signal.SIGTERM)
    assert await first.exit_code() == 0
    done = len(first.writes)
    holder = str((await it.api.call("GET", it.lease))["spec"].get("holderIdentity", ""))
    assert "controller-0" not in holder, "the other need not wait until it runs out"
    await it.until(lambda: it.status["leaderEpoch"] == 2, what="the other leads")
    assert len(first.writes) == done
    assert second.process.returncode is None
    await it.assert_promoted()
