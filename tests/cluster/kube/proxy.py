"""A proxy before the API server that is slow, rude or dead on demand.

It speaks plain HTTP, so a client needs no login of its own: requests go on under the proxy's credentials.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from kubernetes.aio.client import Configuration

from controller.kube.credentials import Credentials, credentials_from

_HOP_HEADERS = {"host", "content-length", "transfer-encoding", "connection", "content-encoding"}


@dataclass
class Fault:
    """What happens to the next `times` requests with this method and this text in their address."""

    method: str = ""
    path: str = ""
    times: int = 1_000_000
    status: int | None = None
    retry_after: float | None = None
    delay: float = 0.0
    hang: bool = False
    cut_reply: bool = False
    hits: int = 0

    def meets(self, request: web.Request) -> bool:
        return self.hits < self.times and self.method in ("", request.method) and self.path in request.path_qs


@dataclass
class Proxy:
    upstream: Credentials
    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str, float]] = field(default_factory=list)
    streams: set[web.StreamResponse] = field(default_factory=set)
    flowing: asyncio.Event = field(default_factory=asyncio.Event)
    session: aiohttp.ClientSession | None = None

    @property
    def credentials(self) -> Credentials:
        return credentials_from(Configuration(host=self.url))

    def fault(self, **fields: Any) -> Fault:
        self.faults.append(Fault(**fields))
        return self.faults[-1]

    def calm(self) -> None:
        """No more faults."""
        self.faults.clear()

    def freeze(self) -> None:
        """Open streams stay open and say nothing more, as a half-open connection does. New ones work."""
        self.flowing.clear()
        self.flowing = asyncio.Event()
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
            if fault.status is not None:
                headers = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
                body = {"kind": "Status", "code": fault.status, "message": "injected", "reason": "Injected"}
                return web.json_response(body, status=fault.status, headers=headers)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_HEADERS}
        assert self.session is not None
        async with self.session.request(
            request.method,
            self.upstream.host + request.raw_path,
            data=await request.read(),
            headers=headers | await self.upstream.headers(),
        ) as answer:
            if "watch=true" in request.query_string and answer.status == 200:
                return await self._stream(request, answer)
            body_bytes = await answer.read()
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
            async for chunk in answer.content.iter_any():
                await frozen_with.wait()
                await stream.write(chunk)
        finally:
            self.streams.discard(stream)
        return stream


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
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as proxy.session:
        try:
            yield proxy
        finally:
            proxy.calm()
            with suppress(Exception):
                await runner.cleanup()
