"""The picture stays true whatever happens between us and the API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest

from controller.kube.informer import Informer, Timing
from controller.kube.objects import Object
from controller.kube.resources import CONFIGMAPS
from controller.kube.transport import Api
from tests.cluster.kube.proxy import Proxy

QUICK = Timing(watch_lasts=30.0, idle=2.0, backoff_base=0.05, backoff_cap=1.0)


class Settings(Object, frozen=True, kw_only=True):
    data: dict[str, str] = {}


def settings(name: str, **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"mine": "yes"}},
        "data": data,
    }


class Watched:
    """An informer at work, and what it told us."""

    def __init__(self, informer: Informer[Settings]) -> None:
        self.informer = informer
        self.changes: list[tuple[dict[str, str] | None, dict[str, str] | None]] = []
        self._changed = asyncio.Event()
        informer.on_change(self._note)

    def _note(self, old: Settings | None, new: Settings | None) -> None:
        self.changes.append((old and old.data, new and new.data))
        self._changed.set()

    async def until(self, true: Callable[[], bool], within: float = 60.0) -> None:
        async with asyncio.timeout(within):
            while not true():
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def watching(api: Api, namespace: str, timing: Timing = QUICK) -> AsyncIterator[Watched]:
    watched = Watched(Informer(api, CONFIGMAPS, Settings, namespace=namespace, label_selector="mine", timing=timing))
    task = asyncio.create_task(watched.informer.run())
    try:
        async with asyncio.timeout(60):
            await watched.informer.wait_synced()
        yield watched
    finally:
        assert not task.done(), "the informer ended by itself"
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def eventually(true: Callable[[], object], within: float = 60.0) -> None:
    """For what tells nobody when it happens."""
    async with asyncio.timeout(within):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def stream_open(proxy: Proxy) -> None:
    await eventually(lambda: proxy.streams)


async def test_every_change_arrives_once_with_before_and_after(api: Api, namespace: str) -> None:
    await api.create(CONFIGMAPS, namespace, settings("a", x="1"))

    async with watching(api, namespace) as watched:
        await api.merge_patch(CONFIGMAPS, namespace, "a", {"data": {"x": "2"}})
        await api.create(CONFIGMAPS, namespace, settings("b"))
        await api.delete(CONFIGMAPS, namespace, "a")
        await watched.until(lambda: len(watched.changes) == 4)

        assert watched.changes == [(None, {"x": "1"}), ({"x": "1"}, {"x": "2"}), (None, {}), ({"x": "2"}, None)]
        assert watched.informer.keys() == [f"{namespace}/b"]
        assert watched.informer.age() < 2


async def test_a_cut_stream_is_resumed_without_a_new_list(through: Api, api: Api, proxy: Proxy, namespace: str) -> None:
    async with watching(through, namespace) as watched:
        for n in range(5):
            await stream_open(proxy)
            proxy.cut()
            await api.create(CONFIGMAPS, namespace, settings(f"n{n}"))
            await watched.until(lambda n=n: len(watched.informer) == n + 1)

        assert len(watched.changes) == 5
        assert proxy.count("GET", "limit=") == 1


async def test_a_deletion_while_the_watch_was_away_is_found(
    through: Api, api: Api, proxy: Proxy, namespace: str
) -> None:
    await api.create(CONFIGMAPS, namespace, settings("a"))

    async with watching(through, namespace) as watched:
        await stream_open(proxy)
        refusal = proxy.fault(path="watch=true", status=410)
        proxy.cut()
        await api.delete(CONFIGMAPS, namespace, "a")
        await watched.until(lambda: len(watched.informer) == 0)

        assert refusal.hits >= 1
        assert watched.changes[-1] == ({}, None)


async def test_what_a_watch_swallowed_is_found_by_the_names_and_versions_that_are_listed_beside_it(
    through: Api, api: Api, proxy: Proxy, namespace: str
) -> None:
    await api.create(CONFIGMAPS, namespace, settings("a", x="1"))
    await api.create(CONFIGMAPS, namespace, settings("b"))

    patient = replace(QUICK, watch_lasts=300.0, idle=300.0, relist_pressed=0.0, arrives=0.1)
    async with watching(through, namespace, patient) as watched:
        await stream_open(proxy)
        proxy.lose(lambda event: event["type"] == "MODIFIED")
        proxy.lose(lambda event: event["type"] == "DELETED")
        await api.merge_patch(CONFIGMAPS, namespace, "a", {"data": {"x": "2"}})
        await api.delete(CONFIGMAPS, namespace, "b")
        await api.create(CONFIGMAPS, namespace, settings("c", x="3"))
        await watched.until(lambda: len(watched.changes) == 3)
        assert watched.changes[-1] == (None, {"x": "3"})
        watched.informer.pressed = lambda: True
        proxy.cut()
        await watched.until(lambda: len(watched.changes) == 5)

        assert sorted(watched.changes[3:], key=str) == [({"x": "1"}, {"x": "2"}), ({}, None)]


@pytest.mark.parametrize(
    ("code", "reason"),
    [(410, "Expired"), (500, "InternalError"), (429, "TooManyRequests"), (504, "Timeout"), (403, "x")],
)
async def test_an_error_inside_the_stream_is_survived(
    through: Api, api: Api, proxy: Proxy, namespace: str, code: int, reason: str
) -> None:
    async with watching(through, namespace) as watched:
        await stream_open(proxy)
        await proxy.say(code, reason, retryAfterSeconds=1)
        await api.create(CONFIGMAPS, namespace, settings("a"))
        await watched.until(lambda: len(watched.informer) == 1)

        lists = proxy.count("GET", "limit=")
        assert lists == (2 if code in (410, 403) else 1)


async def test_a_half_open_stream_is_noticed_by_its_silence(
    through: Api, api: Api, proxy: Proxy, namespace: str
) -> None:
    async with watching(through, namespace) as watched:
        await stream_open(proxy)
        proxy.freeze()
        await api.create(CONFIGMAPS, namespace, settings("a"))
        await watched.until(lambda: len(watched.informer) == 1, within=QUICK.watch_lasts - 5)

        assert proxy.count("GET", "limit=") == 1


async def test_a_server_that_always_says_gone_is_not_stormed(through: Api, proxy: Proxy, namespace: str) -> None:
    async with watching(through, namespace):
        await stream_open(proxy)
        proxy.fault(path="watch=true", status=410)
        proxy.cut()
        before = len(proxy.requests)
        await asyncio.sleep(3)

        # Doubling from 50 ms to 1 s, a list and a watch each: about a dozen tries, not thousands.
        assert len(proxy.requests) - before < 30


async def test_retry_after_is_honoured(through: Api, api: Api, proxy: Proxy, namespace: str) -> None:
    async with watching(through, namespace) as watched:
        await stream_open(proxy)
        proxy.fault(path="watch=true", status=429, retry_after=2, times=1)
        proxy.cut()
        await api.create(CONFIGMAPS, namespace, settings("a"))
        await watched.until(lambda: len(watched.informer) == 1)

        throttled, resumed = proxy.times_of("watch=true")[-2:]
        assert resumed - throttled >= 2.0


async def test_bookmarks_carry_the_version_forward_and_streams_follow_each_other(
    through: Api, api: Api, proxy: Proxy, namespace: str
) -> None:
    async with watching(through, namespace, Timing(watch_lasts=5.0, idle=6.0)) as watched:
        before = watched.informer.resource_version
        other = await api.create(CONFIGMAPS, "default", settings(f"other-{namespace}"), type=Settings)
        await eventually(lambda: watched.informer.resource_version >= int(other.metadata.resource_version))

        assert watched.informer.resource_version > before
        assert watched.changes == []
        await api.delete(CONFIGMAPS, "default", f"other-{namespace}")


async def test_the_age_grows_while_the_server_is_away_and_falls_when_it_is_back(
    through: Api, proxy: Proxy, namespace: str
) -> None:
    async with watching(through, namespace) as watched:
        await stream_open(proxy)
        proxy.fault(status=500)
        proxy.cut()
        await asyncio.sleep(1.5)
        assert watched.informer.age() > 1.4

        proxy.calm()
        await eventually(lambda: watched.informer.age() < 1.0)
        assert watched.informer.synced
