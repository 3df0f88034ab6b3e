"""Which request goes first, and which may not begin any more. Against a server that answers when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from controller.errors import ApiUnavailable
from controller.kube.credentials import Credentials
from controller.kube.resources import SERVICES
from controller.kube.transport import AT_A_TIME, Api


async def nobody() -> dict[str, str]:
    return {}


class Server:
    """Remembers what arrived; each answer waits until `go` is set."""

    def __init__(self) -> None:
        self.arrived: list[str] = []
        self.go = asyncio.Event()
        self._came = asyncio.Condition()

    async def answer(self, request: web.Request) -> web.Response:
        self.arrived.append(f"{request.method} {request.path.rpartition('/')[2]}")
        async with self._came:
            self._came.notify_all()
        await self.go.wait()
        return web.json_response({"metadata": {"name": "cart"}})

    async def until(self, count: int) -> None:
        async with self._came:
            await self._came.wait_for(lambda: len(self.arrived) >= count)


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, Api]]:
    found = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", found.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with Api(Credentials(host, True, None, None, nobody)) as api:
        yield found, api
    found.go.set()
    await runner.cleanup()


async def test_usual_calls_wait_while_an_urgent_one_is_under_way(server: tuple[Server, Api]) -> None:
    found, api = server
    urgent = asyncio.create_task(api.json_patch(SERVICES, "town", "first", [], lane="urgent"))
    await found.until(1)

    usual = asyncio.create_task(api.get(SERVICES, "town", "second"))
    another = asyncio.create_task(api.json_patch(SERVICES, "town", "third", [], lane="urgent"))
    await found.until(2)
    assert found.arrived == ["PATCH first", "PATCH third"]

    found.go.set()
    await asyncio.gather(urgent, usual, another)
    assert found.arrived[2] == "GET second"


async def test_a_write_does_not_begin_when_the_time_to_lead_is_over(server: tuple[Server, Api]) -> None:
    found, api = server
    found.go.set()
    api.limit_writes(lambda: 0.0)

    with pytest.raises(ApiUnavailable, match="is over"):
        await api.json_patch(SERVICES, "town", "cart", [])

    assert await api.get(SERVICES, "town", "cart")
    assert found.arrived == ["GET cart"]


async def test_a_write_lasts_no_longer_than_the_time_to_lead(server: tuple[Server, Api]) -> None:
    _, api = server
    api.limit_writes(lambda: 0.05)

    with pytest.raises(ApiUnavailable, match="no answer in time"):
        await api.json_patch(SERVICES, "town", "cart", [])


async def test_what_waits_for_its_turn_has_not_failed(server: tuple[Server, Api]) -> None:
    found, api = server
    slow = [
        asyncio.create_task(api.get(SERVICES, "town", f"slow-{number}", timeout=30.0)) for number in range(AT_A_TIME)
    ]
    await found.until(AT_A_TIME)
    waiting = asyncio.create_task(api.get(SERVICES, "town", "cart", timeout=2.0))

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 2.5)
    found.go.set()

    assert (await waiting)["metadata"]["name"] == "cart"
    await asyncio.gather(*slow)


@pytest.mark.parametrize("goes", ["breaks", "hangs"])
async def test_a_refused_watch_whose_reason_never_comes_is_told_as_one_that_did_not_answer(goes: str) -> None:
    """As of a load balancer that is restarted: whoever watches tries again, and must not end by it."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 100\r\n\r\nhalf of")
        await writer.drain()
        if goes == "breaks":
            writer.close()

    listening = await asyncio.start_server(refuse, "127.0.0.1", 0)
    host = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    async with Api(Credentials(host, True, None, None, nobody), timeout=0.3) as api:
        with pytest.raises(ApiUnavailable, match="watch services"):
            async with asyncio.timeout(5.0), api.watch(SERVICES, resource_version="1", lasts=30.0, idle=40.0):
                pass
    listening.close()
