"""The queue under a virtual clock: seconds here cost nothing, and each instant is exact."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from controller.errors import ApiThrottled, Fenced
from controller.kube.queue import Handler, KeyedQueue

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]


@asynccontextmanager
async def working(queue: KeyedQueue, handler: Handler, workers: int = 1) -> AsyncIterator[None]:
    task = asyncio.create_task(queue.run(workers, handler))
    try:
        yield
    finally:
        queue.close()
        await task


def now() -> float:
    return asyncio.get_running_loop().time()


class Diary:
    """A handler that notes when it saw which key, takes its time, and fails as told."""

    def __init__(self, takes: float = 0.0, fails: list[Exception] | None = None, again_in: float | None = None) -> None:
        self.seen: list[tuple[str, float]] = []
        self.takes, self.fails, self.again_in = takes, fails or [], again_in
        self.busy: set[str] = set()
        self.together = 0

    async def __call__(self, key: str) -> timedelta | None:
        assert key not in self.busy, f"{key} is in two hands"
        self.busy.add(key)
        self.together = max(self.together, len(self.busy))
        self.seen.append((key, now()))
        try:
            await asyncio.sleep(self.takes)
            if self.fails:
                raise self.fails.pop(0)
        finally:
            self.busy.discard(key)
        return None if self.again_in is None else timedelta(seconds=self.again_in)

    @property
    def keys(self) -> list[str]:
        return [key for key, _ in self.seen]


async def test_a_key_added_many_times_before_a_worker_is_free_is_seen_once() -> None:
    queue, diary = KeyedQueue(), Diary()
    for _ in range(10):
        queue.add("shop/cart")

    async with working(queue, diary):
        await asyncio.sleep(1)

    assert diary.keys == ["shop/cart"]


async def test_a_key_added_while_it_is_worked_on_comes_once_more_and_never_in_two_hands() -> None:
    queue, diary = KeyedQueue(), Diary(takes=10)

    async with working(queue, diary, workers=4):
        queue.add("shop/cart")
        await asyncio.sleep(5)
        queue.add("shop/cart")
        queue.add("shop/cart")
        await asyncio.sleep(30)

    assert diary.seen == [("shop/cart", 0.0), ("shop/cart", 10.0)]


async def test_workers_share_different_keys() -> None:
    queue, diary = KeyedQueue(), Diary(takes=1)
    for n in range(8):
        queue.add(f"shop/{n}")

    async with working(queue, diary, workers=4):
        await asyncio.sleep(5)

    assert diary.together == 4
    assert diary.seen[-1][1] == 1.0


async def test_of_two_planned_looks_the_earlier_wins_in_either_order() -> None:
    queue, diary = KeyedQueue(), Diary()

    async with working(queue, diary):
        queue.add_after("shop/cart", 10)
        queue.add_after("shop/cart", 3)
        queue.add_after("shop/pay", 4)
        queue.add_after("shop/pay", 20)
        await asyncio.sleep(60)

    assert diary.seen == [("shop/cart", 3.0), ("shop/pay", 4.0)]


async def test_an_event_replaces_a_planned_look() -> None:
    queue, diary = KeyedQueue(), Diary()

    async with working(queue, diary):
        queue.add_after("shop/cart", 10)
        await asyncio.sleep(1)
        queue.add("shop/cart")
        await asyncio.sleep(60)

    assert diary.seen == [("shop/cart", 1.0)]


async def test_the_handler_says_when_to_look_again() -> None:
    queue, diary = KeyedQueue(), Diary(again_in=5)

    async with working(queue, diary):
        queue.add("shop/cart")
        await asyncio.sleep(12)

    assert diary.seen == [("shop/cart", 0.0), ("shop/cart", 5.0), ("shop/cart", 10.0)]


async def test_a_failing_key_waits_longer_each_time_up_to_the_cap_and_starts_over_after_a_success() -> None:
    queue = KeyedQueue(first_retry=1.0, last_retry=8.0)
    diary = Diary(fails=[ValueError("poison")] * 6)

    async with working(queue, diary):
        queue.add("shop/cart")
        await asyncio.sleep(60)
        waits = [later - earlier for (_, earlier), (_, later) in zip(diary.seen, diary.seen[1:], strict=False)]
        diary.fails = [ValueError("again")]
        queue.add("shop/cart")
        await asyncio.sleep(60)

    for wait, upper in zip(waits, [1, 2, 4, 8, 8, 8], strict=True):
        assert upper / 2 <= wait <= upper
    assert diary.seen[-1][1] - diary.seen[-2][1] <= 1.0


async def test_events_pull_a_failing_key_forward_but_not_into_a_hot_loop() -> None:
    queue, diary = KeyedQueue(first_retry=10.0), Diary(fails=[ValueError("poison")] * 1000)

    async with working(queue, diary):
        queue.add("shop/cart")
        for _ in range(1000):
            await asyncio.sleep(0.01)
            queue.add("shop/cart")

    assert 8 <= len(diary.seen) <= 11  # ten seconds of events, a hundred a second


async def test_a_throttled_key_waits_as_long_as_the_server_asked_whatever_happens() -> None:
    queue, diary = KeyedQueue(), Diary(fails=[ApiThrottled("slow down", retry_after=7.0)])

    async with working(queue, diary):
        queue.add("shop/cart")
        await asyncio.sleep(1)
        queue.add("shop/cart")
        await asyncio.sleep(60)

    assert diary.seen == [("shop/cart", 0.0), ("shop/cart", 7.0)]


async def test_a_failing_key_does_not_hold_up_its_neighbours() -> None:
    queue, seen = KeyedQueue(), []

    async def handler(key: str) -> None:
        if key == "shop/poison":
            raise RuntimeError("poison")
        seen.append(key)

    async with working(queue, handler):
        queue.add("shop/poison")
        for n in range(100):
            queue.add(f"shop/{n}")
        await asyncio.sleep(0.1)

    assert len(seen) == 100


async def test_namespaces_take_turns_however_many_keys_one_of_them_has() -> None:
    queue, diary = KeyedQueue(), Diary(takes=1)
    for n in range(100):
        queue.add(f"greedy/{n}")
    queue.add("modest/one")

    async with working(queue, diary):
        await asyncio.sleep(5)

    assert "modest/one" in diary.keys[:2]


async def test_what_else_is_ready_in_the_loop_waits_for_one_look_and_not_for_all_that_are_due() -> None:
    queue, begun = KeyedQueue(), []

    async def note(key: str) -> None:
        begun.append(key)

    async with working(queue, note, workers=8):
        for number in range(40):
            queue.add(f"shop-{number % 4}/app-{number}")

        seen = []
        while len(begun) < 40:
            before = len(begun)
            await asyncio.sleep(0)
            seen.append(len(begun) - before)

    assert max(seen) == 1


async def test_a_key_handed_to_a_worker_that_is_cancelled_at_that_moment_goes_to_another() -> None:
    queue = KeyedQueue()
    first = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.add("shop/cart")
    await asyncio.sleep(0)

    first.cancel()

    assert await asyncio.wait_for(queue.take(), 1) == "shop/cart"


async def test_closing_lets_the_work_in_hand_finish_and_starts_nothing_new() -> None:
    queue, diary = KeyedQueue(), Diary(takes=10)
    task = asyncio.create_task(queue.run(1, diary))
    queue.add("shop/cart")
    queue.add("shop/pay")
    await asyncio.sleep(1)

    queue.close()
    await task

    assert diary.keys == ["shop/cart"]
    assert now() == 10.0


async def test_a_fenced_worker_stops_all_the_others() -> None:
    queue, diary = KeyedQueue(), Diary(takes=1, fails=[Fenced("term 7 leads")])
    for n in range(4):
        queue.add(f"shop/{n}")

    with pytest.raises(ExceptionGroup) as raised:
        await queue.run(2, diary)

    assert raised.group_contains(Fenced)
    assert len(diary.seen) == 2


async def test_forgetting_a_key_drops_what_was_planned_and_its_backoff() -> None:
    queue, diary = KeyedQueue(first_retry=100.0, last_retry=100.0), Diary(fails=[ValueError("once")])

    async with working(queue, diary):
        queue.add("shop/cart")
        await asyncio.sleep(0.5)
        queue.forget("shop/cart")
        await asyncio.sleep(300)
        queue.add("shop/cart")
        await asyncio.sleep(0)
        await asyncio.sleep(1)

    assert [at for _, at in diary.seen] == [0.0, 300.5]
