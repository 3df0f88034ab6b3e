"""A proxy before the API server that is slow, rude or dead on demand.

It speaks plain HTTP, so a client needs no login of its own: requests go on under the proxy's credentials.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from kubernetes.aio.client import Configuration

from controller.kube.credentials import Credentials, credentials_from

_HOP_HEADERS = {"host", "content-length", "transfer-encoding", "connection", "content-encoding", "accept-encoding"}


Hook = Callable[[web.Request], Awaitable[None]]


@dataclass
class Fault:
    """What happens to `times` requests with this method and this text in their address, after `skip` were let pass."""

    method: str = ""
    path: str = ""
    writes: bool = False
    """only what is to change something: dry runs, leases and Events left out"""
    skip: int = 0
    times: int = 1_000_000
    status: int | None = None
    message: str = "injected"
    retry_after: float | None = None
    delay: float = 0.0
    hang: bool = False
    cut_reply: bool = False
    before: Hook | None = None
    """awaited when the request has come, before it goes on"""
    after: Hook | None = None
    """awaited when the API server has answered, before the client hears of it"""
    seen: int = 0
    hits: int = 0

    def meets(self, request: web.Request) -> bool:
        if self.method not in ("", request.method) or self.path not in request.path_qs:
            return False
        if self.writes and not is_write(request.method, request.path_qs):
            return False
        self.seen += 1
        return self.seen > self.skip and self.hits < self.times


def is_write(method: str, path: str) -> bool:
    """A request that changes what the product works on."""
    return method != "GET" and not any(word in path for word in ("/leases", "/events", "dryRun="))


@dataclass
class Proxy:
    upstream: Credentials
    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str, float]] = field(default_factory=list)
    streams: set[web.StreamResponse] = field(default_factory=set)
    flowing: asyncio.Event = field(default_factory=asyncio.Event)
    lost: list[Callable[[dict[str, Any]], bool]] = field(default_factory=list)
    """each of these takes one event out of a stream: the first that it agrees to"""
    session: aiohttp.ClientSession | None = None
    host_of: Callable[[web.Request], str] | None = None
    """which API server answers this request; the upstream's when there is but one"""

    @property
    def credentials(self) -> Credentials:
        return credentials_from(Configuration(host=self.url))

    def fault(self, **fields: Any) -> Fault:
        self.faults.append(Fault(**fields))
        return self.faults[-1]

    def calm(self) -> None:
        """No more faults."""
        self.faults.clear()

    def lose(self, which: Callable[[dict[str, Any]], bool]) -> None:
        """The next such event of any watch never arrives."""
        self.lost.append(which)

    def freeze(self) -> None:
        """Open streams stay open and say nothing more, as a half-open connection does. New ones work."""
        self.flowing.clear()
        self.flowing = asyncio.Event()
        self.flowing.set()

    def hold_back(self) -> None:
        """Every stream, new ones too, keeps what it has to say until `let_go`."""
        self.flowing.clear()

    def let_go(self) -> None:
        self.flowing.set()

    async def say(self, code: int, reason: str, **details: Any) -> None:
        """An ERROR event inside every open stream."""
        status = {"kind": "Status", "code": code, "reason": reason, "message": reason, "details": details}
        for stream in list(self.streams):
            await stream.write(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")

    def cut(self) -> None:
        """End every open stream in the middle, without a word."""
        for stream in list(self.streams):
            transport = stream._req.transport if stream._req else None  # type: ignore[attr-defined]
            if transport is not None:
                transport.abort()
        self.streams.clear()

    def count(self, method: str, path: str) -> int:
        return sum(1 for used, where, _ in self.requests if used == method and path in where)

    def times_of(self, path: str) -> list[float]:
        return [at for _, where, at in self.requests if path in where]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path_qs, asyncio.get_running_loop().time()))
        fault = next((fault for fault in self.faults if fault.meets(request)), None)
        if fault is not None:
            fault.hits += 1
            if fault.hang:
                await asyncio.sleep(3600)
            await asyncio.sleep(fault.delay)
            if fault.before is not None:
                await fault.before(request)
            if fault.status is not None:
                headers = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
                body = {"kind": "Status", "code": fault.status, "message": fault.message, "reason": "Injected"}
                return web.json_response(body, status=fault.status, headers=headers)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_HEADERS}
        assert self.session is not None
        host = self.host_of(request) if self.host_of else self.upstream.host
        async with self.session.request(
            request.method,
            host + request.raw_path,
            data=await request.read() or None,
            headers=headers | {"Accept-Encoding": "identity"} | await self.upstream.headers(),
        ) as answer:
            if "watch=true" in request.query_string and answer.status == 200:
                return await self._stream(request, answer)
            body_bytes = await answer.read()
            if fault is not None and fault.after is not None:
                await fault.after(request)
            if fault is not None and fault.cut_reply:
                assert request.transport is not None
                request.transport.abort()
            return web.Response(body=body_bytes, status=answer.status, headers=_kept(answer))

    async def _stream(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        stream = web.StreamResponse(headers=_kept(answer))
        await stream.prepare(request)
        self.streams.add(stream)
        frozen_with = self.flowing
        try:
            with suppress(ConnectionError):
                await self._pass_on(answer, stream, frozen_with)
        finally:
            self.streams.discard(stream)
        return stream

    async def _pass_on(
        self, answer: aiohttp.ClientResponse, stream: web.StreamResponse, flowing: asyncio.Event
    ) -> None:
        """Line by line: each is one event."""
        async for line in answer.content:
            await flowing.wait()
            if not self._is_lost(line):
                await stream.write(line)

    def _is_lost(self, line: bytes) -> bool:
        event = json.loads(line) if self.lost else {}
        found = next((which for which in self.lost if which(event)), None)
        if found is not None:
            self.lost.remove(found)
        return found is not None


def _kept(answer: aiohttp.ClientResponse) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_HEADERS}


@asynccontextmanager
async def proxy_before(upstream: Credentials) -> AsyncIterator[Proxy]:
    proxy = Proxy(upstream)
    proxy.flowing.set()
    app = web.Application(client_max_size=2**24)
    app.router.add_route("*", "/{rest:.*}", proxy._answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    proxy.url = f"http://{host}:{port}"
    connector = aiohttp.TCPConnector(ssl=upstream.ssl, limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=2**22) as proxy.session:
        try:
            yield proxy
        finally:
            proxy.calm()
            with suppress(Exception):
                await runner.cleanup()
