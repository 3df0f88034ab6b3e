"""What is read without a request: cut down, in groups, and never older than our own writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from controller.kube.cache import TRUSTED, Cache, Kept, OwnWrites, Whole, keep
from controller.kube.informer import Informer
from controller.kube.resources import SERVICES
from controller.kube.transport import WatchEvent
from tests.unit.kube.test_informer import Scripted

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]


def service(name: str, version: int, app: str = "shop", **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "town", "resourceVersion": str(version), "managedFields": [{"a": 1}]}
        | {"annotations": {"serin.dev/pinned": "x", "kubectl.kubernetes.io/last-applied-configuration": "long"}}
        | metadata,
        "spec": {"selector": {"app": app}},
        "status": {"loadBalancer": {}},
    }


def by_app(whole: Whole) -> Kept | None:
    found = keep(whole, "", status=False, annotations=lambda name: name.startswith("serin.dev/"))
    app = found.read()["spec"]["selector"]["app"]
    return None if app == "nobody" else Kept(found.body, app)


def cached(api: Scripted) -> tuple[Cache, Informer[Kept]]:
    informer: Informer[Kept] = Informer(api, SERVICES, Whole, shrink=by_app)  # type: ignore[arg-type]
    return Cache({SERVICES: informer}), informer


@asynccontextmanager
async def running(informer: Informer[Kept]) -> AsyncIterator[None]:
    task = asyncio.create_task(informer.run())
    await informer.wait_synced()
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_only_what_is_read_is_kept() -> None:
    cache, informer = cached(Scripted((5, [service("cart", 3)])))

    async with running(informer):
        found = cache.find(SERVICES, "town", "cart")

    assert found == {
        "metadata": {
            "name": "cart", "namespace": "town", "resourceVersion": "3", "annotations": {"serin.dev/pinned": "x"},
        },
        "spec": {"selector": {"app": "shop"}},
    }  # fmt: skip


async def test_groups_follow_what_changes_and_what_nobody_asks_for_is_in_none() -> None:
    events = (
        ("MODIFIED", service("b", 6, "other")),
        ("DELETED", service("c", 7)),
        ("ADDED", service("d", 8, "nobody")),
    )
    api = Scripted((5, [service(name, 3) for name in "abc"]), events=events)
    cache, informer = cached(api)

    async with running(informer):
        await asyncio.sleep(1)

        assert [one["metadata"]["name"] for one in cache.select(SERVICES, "shop")] == ["a"]
        assert [one["metadata"]["name"] for one in cache.select(SERVICES, "other")] == ["b"]
        assert cache.select(SERVICES, "nobody") == []
        assert cache.find(SERVICES, "town", "d") is None


async def test_a_group_is_the_same_tuple_until_one_of_it_changes() -> None:
    class Late(Scripted):
        async def _events(self) -> AsyncIterator[WatchEvent]:
            await asyncio.sleep(0.5)
            async for event in super()._events():
                yield event

    cache, informer = cached(
        Late((5, [service("a", 3), service("b", 3, "o")]), events=(("MODIFIED", service("a", 6)),))
    )

    async with running(informer):
        before, others = cache.kept(SERVICES, "shop"), cache.kept(SERVICES, "o")
        assert cache.kept(SERVICES, "shop") is before
        await asyncio.sleep(1)

        assert cache.kept(SERVICES, "shop") is not before
        assert cache.kept(SERVICES, "o") is others


async def test_our_own_write_is_read_until_the_watch_has_come_that_far() -> None:
    api = Scripted((5, [service("cart", 3)]), events=(("MODIFIED", service("other", 9)),))
    cache, informer = cached(api)
    cache.wrote(SERVICES, "town", "cart", service("cart", 8, "mine"))
    cache.wrote(SERVICES, "town", "later", service("later", 20, "mine"))

    async with running(informer):
        await asyncio.sleep(1)

        assert cache.find(SERVICES, "town", "cart") is not None
        assert cache.find(SERVICES, "town", "cart")["spec"]["selector"]["app"] == "shop"  # type: ignore[index]
        assert cache.find(SERVICES, "town", "later")["spec"]["selector"]["app"] == "mine"  # type: ignore[index]


async def test_a_watch_that_has_gone_silent_is_not_read_any_more() -> None:
    cache, informer = cached(Scripted((5, [service("cart", 3)])))
    assert not cache.knows(SERVICES)

    async with running(informer):
        assert cache.knows(SERVICES)
        await asyncio.sleep(TRUSTED + 1)

        assert not cache.knows(SERVICES)


async def test_a_write_that_the_watch_never_reaches_is_not_believed_for_ever() -> None:
    written: OwnWrites[str] = OwnWrites()
    written.note("town/cart", "900", "before the store was restored")

    assert written.newer("town/cart", than=12) is not None
    await asyncio.sleep(TRUSTED + 1)
    assert written.newer("town/cart", than=12) is None


async def test_a_watch_that_brings_our_own_write_brings_no_news() -> None:
    written: OwnWrites[str] = OwnWrites()
    written.note("town/cart", "12", "ours")

    assert written.is_own("town/cart", "12")
    assert not written.is_own("town/cart", "13"), "somebody wrote after us"
    assert not written.is_own("town/shop", "12")
