"""The API server over plain HTTP: just enough for the boot and the pod runner.

Why not the client library: these two run before anything else is up and speak of objects as the API
server sends them; a dictionary in, a dictionary out.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import aiohttp

Object = dict[str, Any]

SERVER = "https://127.0.0.1:6443"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"


class ApiError(Exception):
    """The API server refused; `status` is its HTTP code, `reason` its word for it."""

    def __init__(self, status: int, body: str) -> None:
        try:
            answer = json.loads(body)
            self.reason, message = str(answer.get("reason", "")), str(answer.get("message", body))
        except (ValueError, AttributeError):
            self.reason, message = "", body
        super().__init__(f"{status} {self.reason}: {message}")
        self.status = status


class Api:
    """One user's connection, with the client certificate `pki/<user>.crt`."""

    def __init__(self, pki: Path, user: str, server: str = SERVER) -> None:
        self._server = server
        self._context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        self._context.load_cert_chain(pki / f"{user}.crt", pki / f"{user}.key")

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._context, limit=200)
        self._session = aiohttp.ClientSession(self._server, connector=connector)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def call(self, method: str, path: str, body: Object | None = None, kind: str = "application/json") -> Object:
        data = json.dumps(body) if body is not None else None
        headers = {"Content-Type": kind} if data else None
        timeout = aiohttp.ClientTimeout(total=30)
        async with self._session.request(method, path, data=data, headers=headers, timeout=timeout) as response:
            text = await response.text()
            if response.status >= 400:
                raise ApiError(response.status, text)
            return json.loads(text) if text.startswith("{") else {"text": text}

    async def apply(self, path: str, body: Object) -> Object:
        """Server-side apply, forced: the cluster's own objects are the cluster's."""
        return await self.call("PATCH", f"{path}?fieldManager=local-cluster&force=true", body, APPLY)

    async def watch(self, path: str, version: str) -> AsyncIterator[Object]:
        """Events since `version`; ends when the server closes, raises `ApiError` 410 when it is too old."""
        timeout = aiohttp.ClientTimeout(total=None, sock_read=330)
        query = f"{path}?watch=true&allowWatchBookmarks=true&timeoutSeconds=300&resourceVersion={version}"
        async with self._session.get(query, timeout=timeout, read_bufsize=2**22) as response:
            if response.status >= 400:
                raise ApiError(response.status, await response.text())
            async for line in response.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise ApiError(int(event["object"].get("code", 500)), json.dumps(event["object"]))
                yield event


async def until_ready(api: Api, deadline: float = 60.0) -> None:
    """Wait for /readyz: authorisation and storage work, the bootstrap roles are there."""
    async with asyncio.timeout(deadline):
        while True:
            try:
                await api.call("GET", "/readyz")
            except (aiohttp.ClientError, ApiError, TimeoutError):
                await asyncio.sleep(0.05)
            else:
                return
