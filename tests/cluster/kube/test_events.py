"""Events as `kubectl` will read them, and the peace they leave the API server in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from controller.kube.events import EventLimits, EventRecorder
from controller.kube.objects import Reference
from controller.kube.resources import EVENTS
from controller.kube.transport import Api
from tests.cluster.kube.proxy import Proxy


def about(namespace: str) -> Reference:
    return Reference(api_version="apps/v1", kind="Deployment", name="cart", namespace=namespace, uid="u-1")


@asynccontextmanager
async def recording(api: Api, **limits: Any) -> AsyncIterator[EventRecorder]:
    recorder = EventRecorder(api, "serin.dev/controller", "pod-1", limits=EventLimits(**limits))
    task = asyncio.create_task(recorder.run())
    try:
        yield recorder
    finally:
        assert not task.done(), "the recorder ended by itself"
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_the_same_note_again_raises_a_count(api: Api, namespace: str) -> None:
    async with recording(api, series_after=0.2) as recorder:
        recorder.emit(about(namespace), "Waiting", "pods are not ready", "Warning")
        await recorder.flush(60)
        for _ in range(9):
            recorder.emit(about(namespace), "Waiting", "pods are not ready", "Warning")
        await asyncio.sleep(0.5)
        await recorder.flush(60)

    (event,) = (await api.list(EVENTS, namespace)).items
    assert event["series"]["count"] == 10
    assert (event["reason"], event["note"], event["type"]) == ("Waiting", "pods are not ready", "Warning")
    assert event["regarding"]["name"] == "cart"


async def test_an_object_that_talks_too_much_is_cut_off_and_the_others_are_heard(api: Api, namespace: str) -> None:
    async with recording(api, burst=5) as recorder:
        for n in range(1000):
            recorder.emit(about(namespace), "Noise", f"number {n}")
        recorder.emit(Reference(api_version="v1", kind="Pod", name="calm", namespace=namespace), "News", "one")
        await recorder.flush(60)

    events = (await api.list(EVENTS, namespace)).items
    assert len(events) == 6
    assert recorder.dropped == 995


async def test_a_dead_api_server_costs_the_caller_nothing(through: Api, proxy: Proxy, namespace: str) -> None:
    proxy.fault(hang=True)

    async with recording(through, waiting=10, burst=1000) as recorder:
        for n in range(100):
            recorder.emit(about(namespace), "News", f"number {n}")
        await asyncio.sleep(0.1)

    assert recorder.dropped >= 89


async def test_a_lost_reply_makes_no_second_event_and_a_forgotten_one_is_made_again(
    api: Api, through: Api, proxy: Proxy, namespace: str
) -> None:
    proxy.fault(method="POST", cut_reply=True, times=1)

    async with recording(through, series_after=0.0) as recorder:
        recorder.emit(about(namespace), "News", "é" * 2000)
        await recorder.flush(60)
        (event,) = (await api.list(EVENTS, namespace)).items
        await api.delete(EVENTS, namespace, event["metadata"]["name"])
        recorder.emit(about(namespace), "News", "é" * 2000)
        await recorder.flush(60)

    (event,) = (await api.list(EVENTS, namespace)).items
    assert event["series"]["count"] == 2
    assert recorder.dropped == 0
