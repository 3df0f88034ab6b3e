"""At most one leads, somebody leads again soon, and terms only rise: with real processes, killed and stopped."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from controller.errors import ApiUnavailable
from controller.kube.lease import EXIT_CODE, Election, Lease, LeaseTiming
from controller.kube.resources import LEASES
from controller.kube.transport import Api
from tests.cluster.kube.proxy import Proxy

QUICK = LeaseTiming(duration=2.0, deadline=1.2, every=0.4, request=0.4)
STEADY = LeaseTiming(duration=12.0, deadline=9.0, every=0.4, request=2.0)
"""for those who are to keep it also on a busy machine"""


class Candidate:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def says(self, word: str, within: float = 60.0) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(within):
            while line := (await self.process.stdout.readline()).decode():
                if line.startswith(word):
                    return line.removeprefix(word).strip()
        raise AssertionError(f"ended without saying {word}")


@asynccontextmanager
async def candidate(namespace: str, url: str = "") -> AsyncIterator[Candidate]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.cluster.kube.candidate", namespace, "leader", url, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield Candidate(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def election(api: Api, namespace: str, name: str = "leader", floor: int = 0, **options: Any) -> Election:
    async def lowest() -> int:
        return floor

    return Election(
        api._credentials,
        namespace=namespace,
        name="leader",
        identity=name,
        floor=lowest,
        timing=options.pop("timing", QUICK),
        # Whoever loses it ends the process, which is that of all tests.
        end=options.pop("end", lambda code: None),
        **options,
    )


async def test_a_killed_leader_is_followed_with_a_higher_term(namespace: str) -> None:
    """How soon is measured in tests/bench."""
    async with candidate(namespace) as first:
        assert await first.says("leading") == "1"
        async with candidate(namespace) as second:
            await second.says("waiting")
            await asyncio.sleep(3)
            first.process.kill()

            assert await second.says("leading", within=60) == "2"


async def test_a_stopped_leader_ends_at_once_when_it_wakes(namespace: str) -> None:
    async with candidate(namespace) as first:
        await first.says("leading")
        async with candidate(namespace) as second:
            first.process.send_signal(signal.SIGSTOP)
            await second.says("leading")

            first.process.send_signal(signal.SIGCONT)
            async with asyncio.timeout(60):
                assert await first.process.wait() == EXIT_CODE


async def test_a_leader_that_gives_up_its_lease_is_followed_at_once(namespace: str) -> None:
    async with candidate(namespace) as first:
        await first.says("leading")
        async with candidate(namespace) as second:
            await second.says("waiting")
            await asyncio.sleep(1)
            first.process.terminate()
            await first.says("released")

            # Sooner than the Lease would have run out.
            assert await second.says("leading", within=LeaseTiming().duration - 2) == "2"


async def test_a_leader_cut_off_from_its_lease_ends_before_the_next_one_starts(
    api: Api, proxy: Proxy, namespace: str
) -> None:
    async with candidate(namespace, proxy.url) as first:
        await first.says("leading")
        async with candidate(namespace) as second:
            await second.says("waiting")
            proxy.fault(path="/leases", hang=True)
            started = time.monotonic()

            assert await first.process.wait() == EXIT_CODE
            ended = time.monotonic()
            await second.says("leading")

            assert ended - started < LeaseTiming().duration
            assert time.monotonic() > ended + 0.5


async def test_the_term_rises_over_the_floor_and_stands_in_the_lease_before_anybody_leads(
    api: Api, namespace: str
) -> None:
    ours = election(api, namespace, floor=41)

    term = await ours.acquire()

    assert term == 42
    lease = await api.get(LEASES, namespace, "leader", Lease)
    assert (lease.spec.holder_identity, lease.spec.lease_transitions) == ("leader", 42)
    await ours.release()
    assert (await api.get(LEASES, namespace, "leader", Lease)).spec.lease_transitions == 42
    assert ours.remaining() == 0


@pytest.mark.parametrize("crime", ["deleted", "deleted and made again", "forged holder", "forged term"])
async def test_a_lease_that_is_no_longer_ours_is_lost_at_the_next_renewal(api: Api, namespace: str, crime: str) -> None:
    ended: list[int] = []
    ours = election(api, namespace, end=ended.append)
    await ours.acquire()

    match crime:
        case "deleted":
            await api.delete(LEASES, namespace, "leader")
        case "deleted and made again":
            copy = await api.get(LEASES, namespace, "leader")
            await api.delete(LEASES, namespace, "leader")
            copy["metadata"] = {"name": "leader"}
            await api.create(LEASES, namespace, copy)
        case "forged holder":
            await api.merge_patch(LEASES, namespace, "leader", {"spec": {"holderIdentity": "mallory"}})
        case "forged term":
            await api.merge_patch(LEASES, namespace, "leader", {"spec": {"leaseTransitions": 99}})
    async with asyncio.timeout(60):
        while not ended:  # noqa: ASYNC110 - another thread writes it
            await asyncio.sleep(0.02)

    assert ended == [EXIT_CODE]
    assert not ours.leading
    await ours.release()


async def test_whether_we_lead_is_answered_by_the_lease_itself_and_not_by_the_last_renewal(
    api: Api, proxy: Proxy, through: Api, namespace: str
) -> None:
    ours = election(api, namespace, timing=STEADY)
    assert not await ours.leads(api)
    await ours.acquire()
    assert await ours.leads(api)

    proxy.fault(path="/leases", status=500, times=100)
    with pytest.raises(ApiUnavailable):
        await ours.leads(through)
    await api.merge_patch(LEASES, namespace, "leader", {"spec": {"leaseTransitions": 99}})

    assert not await ours.leads(api)
    await ours.release()


async def test_harmless_edits_and_short_outages_do_not_cost_the_lease(
    api: Api, through: Api, proxy: Proxy, namespace: str
) -> None:
    ended: list[int] = []
    ours = election(through, namespace, end=ended.append, timing=STEADY)
    await ours.acquire()

    proxy.fault(path="/leases", status=500, times=2)
    await api.merge_patch(LEASES, namespace, "leader", {"metadata": {"labels": {"seen": "yes"}}})
    await asyncio.sleep(STEADY.duration)

    assert ended == []
    assert ours.leading
    await ours.release()


async def test_a_deleted_lease_is_not_taken_before_its_holder_must_have_ended(api: Api, namespace: str) -> None:
    first = election(api, namespace, "first", timing=STEADY)
    await first.acquire()
    second = election(api, namespace, "second", timing=STEADY)
    waiting = asyncio.create_task(second.acquire())
    async with asyncio.timeout(60):
        while not second._seen:  # noqa: ASYNC110 - nobody tells when it has looked
            await asyncio.sleep(0.02)

    # No later than this: the answer may take a while to come.
    deleted = time.monotonic()
    await api.delete(LEASES, namespace, "leader")
    term = await waiting

    assert term == 2
    assert time.monotonic() - deleted > STEADY.deadline
    await first.release()
    await second.release()


async def test_of_many_candidates_one_leads(api: Api, namespace: str) -> None:
    candidates = [election(api, namespace, f"c{n}", timing=STEADY) for n in range(5)]
    tasks = [asyncio.create_task(each.acquire()) for each in candidates]

    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.sleep(2.0)

    assert [each.leading for each in candidates].count(True) == 1
    for task in tasks:
        task.cancel()
    for each in candidates:
        await each.release()


async def test_row_09_an_event_loop_that_stands_still_loses_the_lease(api: Api, namespace: str) -> None:
    ended: list[int] = []
    timing = LeaseTiming(duration=2.0, deadline=1.2, every=0.4, request=0.4, loop_lag=1.0)
    ours = election(api, namespace, end=ended.append, timing=timing)
    await ours.acquire()

    time.sleep(3.0)  # noqa: ASYNC251 - the fault under test

    assert ended == [EXIT_CODE]
    await ours.release()
