"""What no real API server does on demand: going back in time. With a scripted one, under a virtual clock."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from controller.errors import ApiUnavailable, Gone
from controller.kube.informer import Grouped, Informer, Timing
from controller.kube.objects import Object
from controller.kube.resources import PODS
from controller.kube.transport import Page, WatchEvent

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]


class Scripted:
    """Answers each list with the next script, the last one for ever. Its watches say `events`, then hang."""

    def __init__(self, *lists: Any, events: tuple[Any, ...] = ()) -> None:
        self.lists, self.events = list(lists), list(events)
        self.deleted: list[str] = []
        self.listed_at: list[float] = []
        self.watched_from: list[str] = []

    async def pages(self, resource: Any, **_: Any) -> AsyncIterator[Page]:
        self.listed_at.append(asyncio.get_running_loop().time())
        script = self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]
        if isinstance(script, Exception):
            raise script
        version, items = script
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
        await asyncio.sleep(Timing().relist)
        assert informer.by_key("shop/b") is not None
        assert len(api.listed_at) == 2


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
