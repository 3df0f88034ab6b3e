"""API servers and the store themselves: a second server on one etcd, a link that falls silent, a store put back.

The one thing to know: a second API server does no harm to who shares the cluster. Stopping etcd does: the tests of
`test_g_store.py` have a cluster to themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.cluster.api import Api, ApiError, Object, until_ready
from tests.cluster.cluster import ETCD, api_server
from tests.cluster.objects import state_dir
from tests.cluster.podrunner import CHECKOUT

ROOM = 16 * 2**20
"""bytes that are left in a store when it gets its quota"""
# What keeps a picture of the store in memory, and so must not outlive its being put back.
FOLLOWERS = ("kube-controller-manager", "podrunner", "contour")


@dataclass
class Link:
    """TCP to etcd that can fall silent without closing anything, as a network does."""

    url: str
    flowing: asyncio.Event = field(default_factory=asyncio.Event)

    def freeze(self) -> None:
        self.flowing.clear()

    def thaw(self) -> None:
        self.flowing.set()


@dataclass
class ApiServer:
    """Another API server on the cluster's etcd; it knows what came through its link."""

    url: str
    link: Link
    api: Api
    process: asyncio.subprocess.Process

    async def cached(self, path: str) -> Object:
        """What it has in memory, however old."""
        return await self.api.call("GET", f"{path}?resourceVersion=0")

    async def killed(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def another_api_server() -> AsyncIterator[ApiServer]:
    state, port = state_dir(), free_port()
    url = f"https://127.0.0.1:{port}"
    async with _link_to(ETCD) as link, Api(state / "pki", "admin", url) as api:
        command = api_server(state, port=port, etcd=link.url, audit=f"audit-{port}.log")
        with (state / "logs" / f"kube-apiserver-{port}.log").open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *command, stdout=output, stderr=output, start_new_session=True
            )
        made = ApiServer(url, link, api, process)
        try:
            await until_ready(api)
            yield made
        finally:
            await made.killed()


@asynccontextmanager
async def _link_to(etcd: str) -> AsyncIterator[Link]:
    host, port = etcd.removeprefix("http://").split(":")
    link = Link("")
    link.thaw()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(2**16):
                await link.flowing.wait()
                writer.write(data)
                await writer.drain()
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, int(port))
        await asyncio.gather(carry(reader, back), carry(there, writer))

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    link.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield link
    finally:
        link.thaw()
        server.close()


def free_port() -> int:
    """Below those that the kernel gives to outgoing connections, which would take it before a server has started."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", random.randrange(20000, 30000)))
            return int(probe.getsockname()[1])


# --- the cluster's own etcd ---


@dataclass
class Store:
    """etcd and who lives on it, of a cluster that nobody else uses."""

    api: Api
    state: Path = field(default_factory=state_dir)

    @property
    def data(self) -> Path:
        return self.state / "etcd"

    async def ask(self, path: str, **body: Any) -> Object:
        """etcd's own interface, as JSON."""
        async with aiohttp.ClientSession(ETCD) as session, session.post(f"/v3/{path}", json=body) as answer:
            answer.raise_for_status()
            return dict(await answer.json())

    async def limit(self) -> None:
        """etcd starts anew with hardly more space than it uses."""
        size = int((await self.ask("maintenance/status"))["dbSize"])
        await self.end("etcd")
        await self.begin("etcd", f"--quota-backend-bytes={size + ROOM}")

    async def fill(self, namespace: str) -> str:
        """ConfigMaps until no write is taken any more; what the API server says then."""
        path = f"/api/v1/namespaces/{namespace}/configmaps"
        for number in range(1000):
            body: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"ballast-{number}"}}
            try:
                await self.api.call("POST", path, body | {"data": {"ballast": "x" * 900_000}})
            except ApiError as refused:
                return str(refused)
        raise AssertionError("a thousand ConfigMaps found room")

    async def relieve(self, namespace: str) -> None:
        """What an operator does: delete, compact, defragment, take the alarm back."""
        await self.api.call("DELETE", f"/api/v1/namespaces/{namespace}/configmaps")
        revision = (await self.ask("kv/range", key="AA=="))["header"]["revision"]
        await self.ask("kv/compaction", revision=revision, physical=True)
        await self.ask("maintenance/defragment")
        for alarm in (await self.ask("maintenance/alarm", action="GET"))["alarms"]:
            await self.ask("maintenance/alarm", action="DEACTIVATE", **alarm)

    async def back_up(self) -> Path:
        """A copy of the store at rest; etcd is away for a moment."""
        copy = self.state / "backup"
        await self.end("etcd")
        await asyncio.to_thread(shutil.copytree, self.data, copy)
        await self.begin("etcd")
        return copy

    async def stop(self) -> None:
        """Everything that lives on the store, and then the store."""
        for name in (*FOLLOWERS, "kube-apiserver", "etcd"):
            await self.end(name)

    async def put_back(self, copy: Path) -> None:
        """The store as it was, and everything on it started anew, as the runbook of a restore has it."""
        await asyncio.to_thread(shutil.rmtree, self.data)
        await asyncio.to_thread(copy.rename, self.data)
        for name in ("etcd", "kube-apiserver", *FOLLOWERS):
            await self.begin(name)

    async def end(self, name: str) -> None:
        """SIGTERM, so that etcd closes its files; returns when it is gone."""
        pid = self._parts()[name]["pid"]
        os.kill(pid, signal.SIGTERM if name == "etcd" else signal.SIGKILL)
        async with asyncio.timeout(20):
            while _alive(pid):  # noqa: ASYNC110 - somebody else's child: there is nothing to wait for
                await asyncio.sleep(0.05)

    async def begin(self, name: str, *more: str) -> None:
        """The same command again; returns when it answers, where somebody waits for it."""
        parts = self._parts()
        with (self.state / "logs" / f"{name}.log").open("ab") as output:
            # Not of this event loop: it goes on when the test has ended.
            process = subprocess.Popen(  # noqa: ASYNC220
                [*parts[name]["command"], *more], cwd=CHECKOUT, stdout=output, stderr=output, start_new_session=True
            )
        _begun.append(process)
        parts[name]["pid"] = process.pid
        (self.state / "parts.json").write_text(json.dumps(parts))
        if name == "etcd":
            await self._until_healthy()
        if name == "kube-apiserver":
            await until_ready(self.api)

    async def _until_healthy(self) -> None:
        async with asyncio.timeout(30), aiohttp.ClientSession(ETCD) as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get("/health") as answer:
                        if answer.status == 200 or "NOSPACE" in await answer.text():
                            return
                await asyncio.sleep(0.05)

    def _parts(self) -> dict[str, Any]:
        return dict(json.loads((self.state / "parts.json").read_text()))


_begun: list[subprocess.Popen[bytes]] = []


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
