"""What no real API server does on demand: going back in time. With a scripted one, under a virtual clock."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from controller.errors import ApiUnavailable, Gone, NotFound
from controller.kube.informer import Grouped, Informer, Timing
from controller.kube.objects import Object
from controller.kube.resources import PODS
from controller.kube.transport import Page, WatchEvent

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]


class Scripted:
    """Answers each list with the next script, the last one for ever. Its watches say `events`, then hang.

    A number among the events is a time in which nothing is said; a list takes `takes` seconds.
    """

    takes = 0.0

    def __init__(self, *lists: Any, events: tuple[Any, ...] = ()) -> None:
        self.lists, self.events = list(lists), list(events)
        self.deleted: list[str] = []
        self.listed_at: list[float] = []
        self.named_at: list[float] = []
        self.watched_from: list[str] = []

    async def pages(self, resource: Any, *, names: bool, **_: Any) -> AsyncIterator[Page]:
        (self.named_at if names else self.listed_at).append(asyncio.get_running_loop().time())
        script = self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]
        if isinstance(script, Exception):
            raise script
        version, items = script
        await asyncio.sleep(self.takes)
        body = {"metadata": {"resourceVersion": str(version)}, "items": items}
        yield msgspec.json.decode(json.dumps(body), type=Page)

    @asynccontextmanager
    async def watch(self, resource: Any, *, resource_version: str, **_: Any) -> AsyncIterator[Any]:
        self.watched_from.append(resource_version)
        yield self._events()

    async def _events(self) -> AsyncIterator[WatchEvent]:
        while self.events:
            script = self.events.pop(0)
            if isinstance(script, Exception):
                raise script
            if isinstance(script, float):
                await asyncio.sleep(script)
                continue
            kind, item = script
            yield WatchEvent(kind, msgspec.Raw(json.dumps(item).encode()))
        await asyncio.sleep(3600)
        raise ApiUnavailable("the end of the script")


def pod(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "shop", "resourceVersion": str(version)}}


@asynccontextmanager
async def running(api: Scripted) -> AsyncIterator[Informer[Object]]:
    informer = Informer(api, PODS, Object, chance=lambda: 1.0)  # type: ignore[arg-type]
    informer.on_change(lambda old, new: api.deleted.append(old.metadata.key) if old and new is None else None)
    task = asyncio.create_task(informer.run())
    await asyncio.sleep(60)
    try:
        yield informer
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def version_of(informer: Informer[Object], key: str) -> str:
    known = informer.by_key(key)
    assert known is not None
    return known.metadata.resource_version


async def test_an_event_older_than_what_is_known_is_not_believed() -> None:
    api = Scripted((10, [pod("a", 9)]), events=(("MODIFIED", pod("a", 5)), ("BOOKMARK", pod("", 7))))

    async with running(api) as informer:
        assert version_of(informer, "shop/a") == "9"
        assert informer.resource_version == 10


async def test_a_list_older_than_what_was_seen_is_asked_for_again() -> None:
    seen, gone = ("MODIFIED", pod("x", 20)), Gone("expired")
    api = Scripted((10, [pod("a", 9)]), (8, []), (30, [pod("a", 25), pod("x", 20)]), events=(seen, gone))

    async with running(api) as informer:
        assert len(api.listed_at) == 3
        assert version_of(informer, "shop/a") == "25"
        assert "shop/a" not in api.deleted
        assert api.watched_from == ["10", "30"]


async def test_a_past_that_stays_is_a_restored_backup_and_believed_in_the_end() -> None:
    api = Scripted((10, [pod("a", 9)]), (8, [pod("a", 4)]), events=(Gone("expired"),))

    async with running(api) as informer:
        assert len(api.listed_at) > 5
        assert version_of(informer, "shop/a") == "4"
        assert api.watched_from == ["10", "8"]


async def test_a_server_that_is_down_at_the_start_is_asked_ever_more_rarely() -> None:
    api = Scripted(ApiUnavailable("down"))

    async with running(api) as informer:
        pauses = [later - earlier for earlier, later in pairwise(api.listed_at)]
        assert pauses[:4] == pytest.approx([0.1, 0.2, 0.4, 0.8])
        assert max(pauses) == 15.0
        assert not informer.synced
        assert informer.age() == float("inf")


async def test_an_object_that_cannot_be_read_is_named_and_the_others_are_there() -> None:
    odd = pod("odd", 3) | {"metadata": {"name": "odd", "namespace": "shop", "labels": {"app": 7}}}
    api = Scripted((10, [odd, pod("a", 9)]), events=(("MODIFIED", pod("odd", 11)),))

    async with running(api) as informer:
        assert informer.unreadable == {}
        assert version_of(informer, "shop/a") == "9"
        assert version_of(informer, "shop/odd") == "11"


async def test_an_object_that_becomes_unreadable_is_told_as_gone_and_named() -> None:
    odd = {"metadata": {"name": "a", "namespace": "shop", "resourceVersion": "11", "labels": {"app": 7}}}
    api = Scripted((10, [pod("a", 9), pod("b", 9)]), events=(("MODIFIED", odd),))

    async with running(api) as informer:
        assert list(informer.unreadable) == ["shop/a"]
        assert informer.by_key("shop/a") is None
        assert [each.metadata.name for each in informer] == ["b"]
        assert api.deleted == ["shop/a"]


async def test_what_a_watch_swallowed_is_found_by_the_list_that_comes_now_and_then() -> None:
    swallowed = (20, [pod("a", 9), pod("b", 15)])
    ends: tuple[Any, ...] = (ApiUnavailable("the stream ended"),) * 400
    api = Scripted((10, [pod("a", 9)]), swallowed, events=ends)

    async with running(api) as informer:
        assert informer.by_key("shop/b") is None
        await asyncio.sleep(Timing().relist + Timing().arrives)
        assert informer.by_key("shop/b") is not None
        assert len(api.listed_at) == 2


async def test_who_is_pressed_for_it_is_told_within_a_minute_what_a_watch_swallowed() -> None:
    swallowed = (20, [pod("a", 9), pod("b", 15)])
    ends: tuple[Any, ...] = (ApiUnavailable("the stream ended"),) * 400
    api = Scripted((10, [pod("a", 9)]), swallowed, events=ends)
    timing = Timing()

    async with running(api) as informer:
        await asyncio.sleep(timing.relist_pressed + timing.backoff_cap)
        assert informer.by_key("shop/b") is None
        informer.pressed = lambda: True
        await asyncio.sleep(timing.backoff_cap)
        assert informer.by_key("shop/b") is not None
        await asyncio.sleep(10 * timing.relist_pressed)
        assert all(later - earlier > timing.relist_pressed / 2 for earlier, later in pairwise(api.named_at))
        assert len(api.listed_at) == 2
    assert timing.relist_pressed + timing.watch_lasts + timing.arrives <= 60


async def test_where_names_and_versions_show_that_nothing_was_lost_no_object_is_listed() -> None:
    events = (
        *(90.0, ApiUnavailable("the stream ended"), 1.0),
        *(("DELETED", pod("c", 14)), ("MODIFIED", pod("a", 15)), ("ADDED", pod("d", 16)), ("DELETED", pod("d", 17))),
    )
    before, after = (10, [pod("a", 9), pod("b", 9), pod("c", 9)]), (16, [pod("a", 15), pod("b", 9), pod("d", 16)])
    api = Scripted(before, after, events=events)

    async with running(api) as informer:
        informer.pressed = lambda: True
        await asyncio.sleep(50)

        assert len(api.listed_at) == 1
        assert len(api.named_at) == 1
        assert sorted(informer.keys()) == ["shop/a", "shop/b"]
        assert informer.resource_version == 17


async def test_a_list_beside_the_watch_finds_what_was_lost_and_takes_back_nothing_that_came_meanwhile() -> None:
    events = (
        *(90.0, ApiUnavailable("the stream ended"), 1.0),
        *(("DELETED", pod("b", 21)), ("MODIFIED", pod("a", 22)), ("ADDED", pod("e", 23)), ("DELETED", pod("c", 12))),
        *(20.0, ("DELETED", pod("c", 14))),
    )
    before, after = (10, [pod("a", 9), pod("b", 9), pod("d", 9)]), (20, [pod("a", 9), pod("b", 9), pod("c", 15)])
    api = Scripted(before, after, events=events)
    api.takes = 5.0

    async with running(api) as informer:
        informer.pressed = lambda: True
        await asyncio.sleep(70)

        assert sorted(informer.keys()) == ["shop/a", "shop/c", "shop/e"]
        assert version_of(informer, "shop/a") == "22"
        assert api.deleted == ["shop/b", "shop/d"]
        assert informer.resource_version == 23
        assert len(api.listed_at) == 2
        assert len(api.named_at) == 1


async def test_a_watch_that_comes_after_the_list_beside_it_brings_nothing_back_that_is_gone() -> None:
    late: tuple[Any, ...] = (("MODIFIED", pod("a", 15)), ("ADDED", pod("c", 16)), ApiUnavailable("cut before the ends"))
    events = (90.0, ApiUnavailable("the stream ended"), 10.0, *late, ("ADDED", pod("d", 21)))
    api = Scripted((10, [pod("a", 9), pod("b", 9)]), (20, [pod("b", 9)]), events=events)

    async with running(api) as informer:
        informer.pressed = lambda: True
        await asyncio.sleep(60)

        assert sorted(informer.keys()) == ["shop/b", "shop/d"]
        assert api.deleted == ["shop/a"]


async def test_a_list_beside_the_watch_of_a_server_that_lags_behind_changes_nothing() -> None:
    api = Scripted((10, [pod("a", 9)]), (5, []), events=(90.0, ApiUnavailable("the stream ended")))

    async with running(api) as informer:
        informer.pressed = lambda: True
        await asyncio.sleep(50)

        assert (len(api.listed_at), len(api.named_at)) == (1, 1)
        assert informer.keys() == ["shop/a"]
        assert informer.resource_version == 10


class Leaky:
    """A store that changes all the time, whose lists take long and whose watches lose an event in ten."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.stored: dict[str, int] = {}
        self.history: list[tuple[int, str, str]] = []

    async def change(self, seconds: float) -> None:
        until = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < until:
            name, version = self.chance.choice("abcdefgh"), len(self.history) + 1
            if name in self.stored and self.chance.random() < 0.4:
                del self.stored[name]
                self.history.append((version, "DELETED", name))
            else:
                self.history.append((version, "MODIFIED" if name in self.stored else "ADDED", name))
                self.stored[name] = version
            await asyncio.sleep(self.chance.random())

    async def pages(self, resource: Any, **_: Any) -> AsyncIterator[Page]:
        items = [pod(name, version) for name, version in self.stored.items()]
        body = {"metadata": {"resourceVersion": str(len(self.history))}, "items": items}
        await asyncio.sleep(5 * self.chance.random())
        yield msgspec.json.decode(json.dumps(body), type=Page)

    @asynccontextmanager
    async def watch(self, resource: Any, *, resource_version: str, lasts: float, **_: Any) -> AsyncIterator[Any]:
        yield self._events(int(resource_version), lasts)

    async def _events(self, version: int, lasts: float) -> AsyncIterator[WatchEvent]:
        until = asyncio.get_running_loop().time() + lasts
        while asyncio.get_running_loop().time() < until:
            await asyncio.sleep(self.chance.random())
            for at, kind, name in self.history[version:]:
                version = at
                if self.chance.random() > 0.1:
                    yield WatchEvent(kind, msgspec.Raw(json.dumps(pod(name, at)).encode()))


@pytest.mark.parametrize("seed", range(30))
async def test_whatever_watches_lose_the_picture_is_whole_again_within_a_minute(seed: int) -> None:
    store = Leaky(random.Random(seed))
    informer: Informer[Object] = Informer(store, PODS, Object, chance=store.chance.random)  # type: ignore[arg-type]
    informer.pressed = lambda: True
    versions: dict[str, int] = {}

    def never_back(key: str, old: Object | None, new: Object | None) -> None:
        version = int(new.metadata.resource_version) if new is not None else versions.get(key, 0)
        assert version >= versions.get(key, 0)
        versions[key] = version

    informer.on_keyed_change(never_back)
    with capture_logs() as told:
        running = asyncio.create_task(informer.run())
        await store.change(200)
        await asyncio.sleep(60)
        running.cancel()

    assert {one.metadata.name: int(one.metadata.resource_version) for one in informer} == store.stored
    assert [one["event"] for one in told] == []


async def test_objects_are_found_by_a_property_and_leave_it_with_it() -> None:
    def labelled(name: str, version: int, app: str) -> dict[str, Any]:
        body = pod(name, version)
        body["metadata"]["labels"] = {"app": app}
        return body

    changes = (("MODIFIED", labelled("a", 12, "shop")), ("DELETED", labelled("b", 13, "cart")))
    api = Scripted((10, [labelled("a", 1, "cart"), labelled("b", 1, "cart"), labelled("c", 1, "shop")]), events=changes)
    informer: Informer[Object] = Informer(api, PODS, Object)  # type: ignore[arg-type]
    by_app = Grouped(informer, lambda one: one.metadata.labels["app"])

    task = asyncio.create_task(informer.run())
    await asyncio.sleep(1)

    assert {one.metadata.name for one in by_app.of("shop")} == {"a", "c"}
    assert by_app.of("cart") == ()
    task.cancel()


async def test_a_kind_that_the_cluster_has_not_is_asked_for_again_and_told_of_once() -> None:
    missing = NotFound("the server could not find the requested resource")
    api = Scripted(missing, missing, missing, (3, [pod("cart", 3)]))

    with capture_logs() as told:
        async with running(api) as informer:
            assert informer.synced
            assert len(api.listed_at) == 4

    assert [one["event"] for one in told] == ["watch_interrupted"]


async def test_whatever_befalls_a_watch_it_begins_anew() -> None:
    """Nobody waits for its task: ended, it would be missed by nobody, and what it knew would be taken for what is."""
    api = Scripted((10, [pod("a", 9)]), (30, [pod("a", 25)]), events=(RuntimeError("a login plugin failed"),))

    with capture_logs() as told:
        async with running(api) as informer:
            assert version_of(informer, "shop/a") == "25"
            assert api.watched_from == ["10", "30"]

    assert [one["event"] for one in told] == ["watch_failed"]
