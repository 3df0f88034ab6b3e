"""Requests to the API server: bytes out, typed values in, one error of our tree when it fails.

Nothing here retries: what to do next depends on what is seen next, and only the caller knows. Every call ends
within its timeout once it was sent, which is shorter than the lease's renew deadline.
"""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Generic, Literal, TypeVar, get_args, overload

import aiohttp
import msgspec

from controller.errors import ApiUnavailable, InvalidSpec, NotFound
from controller.kube.answers import error_of, parse_status
from controller.kube.credentials import Credentials, load_credentials
from controller.kube.resources import Resource, key_of

T = TypeVar("T")

Body = Mapping[str, Any] | msgspec.Struct
Lane = Literal["usual", "urgent"]
"""Urgent calls have turns of their own, and usual ones wait while any is under way: what takes traffic off a
hundred canaries at once must not share the API server with what is only tidy."""

AT_A_TIME = 16
"""requests of a lane under way: more would only share what the API server has to give"""
YIELDS = 3.0
"""seconds for which a usual call waits for urgent ones at most"""

TIMEOUT = 5.0
PAGE = 500

# asyncio keeps a buffer of 256 KiB for each TLS connection, and a replica holds twenty watches open. It reads one
# record at a time all the same, which has 16 KiB at most.
asyncio.sslproto.SSLProtocol.max_size = 32 * 1024

_JSON = "application/json"
_NAMES = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_JSON_PATCH = "application/json-patch+json"
_MERGE_PATCH = "application/merge-patch+json"


@dataclass(frozen=True)
class Listing(Generic[T]):
    """A consistent list. `unreadable` holds, by key, why an object could not be decoded: one never stops the others."""

    items: list[T]
    resource_version: str
    unreadable: dict[str, str] = field(default_factory=dict)


class WatchEvent(msgspec.Struct, frozen=True):
    """One line of a watch: ADDED, MODIFIED, DELETED or BOOKMARK. ERROR is raised instead."""

    type: str
    object: msgspec.Raw


class Page(msgspec.Struct, frozen=True):
    """Part of a list, its objects not yet decoded."""

    metadata: PageMeta
    items: list[msgspec.Raw] | None = None


class PageMeta(msgspec.Struct, rename="camel", frozen=True):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class Identity(msgspec.Struct, rename="camel", frozen=True):
    name: str = ""
    namespace: str = ""
    resource_version: str = ""

    @property
    def key(self) -> str:
        return key_of(self.namespace, self.name)


class Identified(msgspec.Struct, frozen=True):
    """Any object, seen only as far as its name, so that the rest of it may have any shape."""

    metadata: Identity = Identity()


@cache
def decoder(type: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(type)


class Api:
    """One client of one API server, for one event loop. Close it when done."""

    def __init__(self, credentials: Credentials, *, field_manager: str = "serin", timeout: float = TIMEOUT) -> None:
        self.field_manager = field_manager
        self._credentials = credentials
        self._timeout = timeout
        self._pools: dict[str, aiohttp.ClientSession] = {}
        self._slots = {lane: asyncio.Semaphore(AT_A_TIME) for lane in get_args(Lane)}
        self._urgent = 0
        self._calm = asyncio.Event()
        self._calm.set()
        self._may_write_for: Callable[[], float] = lambda: math.inf

    @classmethod
    async def connect(cls, kubeconfig: str | None = None, context: str | None = None, **options: Any) -> Api:
        """A client for the cluster that kubeconfig, environment or pod point to. Makes no request yet."""
        return cls(await load_credentials(kubeconfig, context), **options)

    def limit_writes(self, seconds_left: Callable[[], float]) -> None:
        """From here on no write lasts longer than `seconds_left()`, and none begins when nothing is left."""
        self._may_write_for = seconds_left

    @property
    def is_urgent(self) -> bool:
        """Whether urgent calls are under way."""
        return self._urgent > 0

    async def close(self) -> None:
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            await pool.close()

    async def __aenter__(self) -> Api:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # Reading

    @overload
    async def get(
        self, resource: Resource, namespace: str | None, name: str, *, live: bool = ..., subresource: str | None = ...,
        lane: Lane = ..., timeout: float | None = ...,
    ) -> dict[str, Any]: ...  # fmt: skip

    @overload
    async def get(
        self, resource: Resource, namespace: str | None, name: str, type: type[T], *, live: bool = ...,
        subresource: str | None = ..., lane: Lane = ..., timeout: float | None = ...,
    ) -> T: ...  # fmt: skip

    async def get(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        type: Any = dict,
        *,
        live: bool = True,
        subresource: str | None = None,
        lane: Lane = "usual",
        timeout: float | None = None,
    ) -> Any:
        """One object. `live` reads through to the store; else the API server may answer from its cache.

        Raises `NotFound`, or `InvalidSpec` when it does not have the shape of `type`.
        """
        query = {} if live else {"resourceVersion": "0"}
        doing = f"get {resource.qualified} {key_of(namespace, name)}"
        body = await self._send(
            "GET", resource.path(namespace, name, subresource), doing, query=query, lane=lane, timeout=timeout
        )
        return _decode(body, type, doing)

    async def find(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        type: type[T],
        *,
        live: bool = True,
        lane: Lane = "usual",
    ) -> T | None:
        """Like `get`, where absence is an answer and not an error."""
        try:
            return await self.get(resource, namespace, name, type, live=live, lane=lane)
        except NotFound:
            return None

    @overload
    async def list(
        self, resource: Resource, namespace: str | None = ..., *, label_selector: str | None = ...,
        field_selector: str | None = ..., resource_version: str | None = ..., limit: int = ..., lane: Lane = ...,
    ) -> Listing[dict[str, Any]]: ...  # fmt: skip

    @overload
    async def list(
        self, resource: Resource, namespace: str | None = ..., type: type[T] = ..., *, label_selector: str | None = ...,
        field_selector: str | None = ..., resource_version: str | None = ..., limit: int = ..., lane: Lane = ...,
    ) -> Listing[T]: ...  # fmt: skip

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        type: Any = dict,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        resource_version: str | None = None,
        limit: int = PAGE,
        lane: Lane = "usual",
    ) -> Listing[Any]:
        """All objects, fetched in pages of `limit`. Without `resource_version` a live read; with "0" from a cache.

        Raises `Gone` when the list took so long that its later pages expired: start again.
        """
        items: list[Any] = []
        unreadable: dict[str, str] = {}
        version = ""
        async for page in self.pages(
            resource,
            namespace,
            label_selector=label_selector,
            field_selector=field_selector,
            resource_version=resource_version,
            limit=limit,
            lane=lane,
        ):
            version = page.metadata.resource_version
            for raw in page.items or ():
                try:
                    items.append(decode_alone(raw, type))
                except msgspec.ValidationError as error:
                    unreadable[decoder(Identified).decode(raw).metadata.key] = str(error)
        return Listing(items, version, unreadable)

    async def pages(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        resource_version: str | None = None,
        limit: int = PAGE,
        lane: Lane = "usual",
        names: bool = False,
    ) -> AsyncIterator[Page]:
        """The pages of one list, all of the same resource version; with `names` the metadata of the objects alone."""
        query = _selection(label_selector, field_selector) | {"limit": str(limit)}
        if resource_version is not None:
            query["resourceVersion"] = resource_version
        doing = f"list {resource.qualified} in {namespace or 'all namespaces'}"
        accept = f"{_NAMES},{_JSON}" if names else _JSON
        while True:
            body = await self._send("GET", resource.path(namespace), doing, query=query, lane=lane, accept=accept)
            page: Page = _decode(body, Page, doing)
            yield page
            if not page.metadata.continue_:
                return
            # A continue token already carries its resource version; naming one as well is refused.
            query.pop("resourceVersion", None)
            query["continue"] = page.metadata.continue_

    async def read(self, path: str, type: Any = dict) -> Any:
        """Any other address: `/version`, discovery."""
        return _decode(await self._send("GET", path, f"get {path}"), type, f"get {path}")

    @asynccontextmanager
    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str | None = None,
        field_selector: str | None = None,
        lasts: float,
        idle: float,
    ) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        """Changes after `resource_version`, bookmarks included.

        The server ends the stream after `lasts` seconds, with a bookmark shortly before. A stream that is silent for
        `idle` seconds is taken for dead: a half-open connection never says so itself.
        Raises what the server says, at the start or inside the stream; `Gone` asks for a new list.
        """
        query = _selection(label_selector, field_selector) | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(max(1, round(lasts))),
        }
        doing = f"watch {resource.qualified}"
        request = self._request("GET", resource.path(namespace), query, "watch", None, None)
        try:
            async with asyncio.timeout(self._timeout):
                answer = await request
                if answer.status != 200:
                    async with answer:
                        raise await self._failure(answer, doing)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise _unavailable(doing, error) from error
        try:
            yield _events(answer.content, doing, idle)
        finally:
            answer.close()

    # Writing

    async def create(
        self,
        resource: Resource,
        namespace: str | None,
        body: Body,
        *,
        type: Any = dict,
        dry_run: bool = False,
        lane: Lane = "usual",
        timeout: float | None = None,
    ) -> Any:
        """Raises `AlreadyExists`. After `ApiUnavailable` it may exist all the same: read before trying again."""
        doing = f"create {resource.qualified} in {namespace or 'the cluster'}"
        return await self._write("POST", resource.path(namespace), doing, _JSON, body, type, dry_run, lane, timeout)

    async def replace(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Body,
        *,
        subresource: str | None = None,
        type: Any = dict,
        dry_run: bool = False,
        lane: Lane = "usual",
        timeout: float | None = None,
    ) -> Any:
        """The whole object; `Conflict` unless the resourceVersion in the body is the current one."""
        doing = _doing("update", resource, namespace, name, subresource)
        path = resource.path(namespace, name, subresource)
        return await self._write("PUT", path, doing, _JSON, body, type, dry_run, lane, timeout)

    async def json_patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        ops: list[dict[str, Any]],  # type: ignore[valid-type]  # `list` is also the method above
        *,
        subresource: str | None = None,
        type: Any = dict,
        dry_run: bool = False,
        lane: Lane = "usual",
        timeout: float | None = None,
    ) -> Any:
        """`Conflict` when a `test` in it fails or a path it needs is not there: nothing of it was applied."""
        doing = _doing("patch", resource, namespace, name, subresource)
        path = resource.path(namespace, name, subresource)
        return await self._write("PATCH", path, doing, _JSON_PATCH, ops, type, dry_run, lane, timeout)

    async def merge_patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Body,
        *,
        subresource: str | None = None,
        type: Any = dict,
        dry_run: bool = False,
        lane: Lane = "usual",
        timeout: float | None = None,
    ) -> Any:
        """Sets what it names, `None` removes. Conditional when the body carries `metadata.resourceVersion`."""
        doing = _doing("patch", resource, namespace, name, subresource)
        path = resource.path(namespace, name, subresource)
        return await self._write("PATCH", path, doing, _MERGE_PATCH, body, type, dry_run, lane, timeout)

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        propagation: Literal["Background", "Foreground", "Orphan"] | None = None,
        dry_run: bool = False,
        lane: Lane = "usual",
        timeout: float | None = None,
    ) -> None:
        """`NotFound` when it is gone, `Conflict` when it is another one (`uid`) or another version."""
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        body: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if set(preconditions.values()) != {None}:
            body["preconditions"] = {name: value for name, value in preconditions.items() if value is not None}
        if propagation is not None:
            body["propagationPolicy"] = propagation
        doing = _doing("delete", resource, namespace, name, None)
        await self._write("DELETE", resource.path(namespace, name), doing, _JSON, body, None, dry_run, lane, timeout)

    # The wire

    async def _write(
        self, method: str, path: str, doing: str, content_type: str, body: Any, type: Any, dry_run: bool, lane: Lane,
        timeout: float | None,
    ) -> Any:  # fmt: skip
        query = {} if method == "DELETE" else {"fieldManager": self.field_manager}
        if dry_run:
            query["dryRun"] = "All"
        answer = await self._send(
            method,
            path,
            doing,
            query=query,
            data=msgspec.json.encode(body),
            content_type=content_type,
            lane=lane,
            timeout=timeout,
            writes=True,
        )
        return None if type is None else _decode(answer, type, doing)

    async def _send(
        self,
        method: str,
        path: str,
        doing: str,
        *,
        query: Mapping[str, str] | None = None,
        data: bytes | None = None,
        content_type: str | None = None,
        lane: Lane = "usual",
        timeout: float | None = None,
        writes: bool = False,
        accept: str = _JSON,
    ) -> bytes:
        # Its time begins when it is sent: a hundred that wait for their turn have not failed.
        async with self._in_turn(lane), self._slots[lane]:
            left = self._may_write_for() if writes else math.inf
            if left <= 0:
                raise ApiUnavailable(f"{doing}: the time in which a write is ours to make is over")
            try:
                async with asyncio.timeout(min(timeout or self._timeout, left)):
                    request = self._request(method, path, query or {}, "calls", data, content_type, accept)
                    async with await request as answer:
                        if answer.status >= 300:
                            raise await self._failure(answer, doing, json_patch=content_type == _JSON_PATCH)
                        return await answer.read()
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                raise _unavailable(doing, error) from error

    @asynccontextmanager
    async def _in_turn(self, lane: Lane) -> AsyncIterator[None]:
        """Urgent calls first."""
        if lane == "usual":
            if not self._calm.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._calm.wait(), YIELDS)
            yield
            return
        self._urgent += 1
        self._calm.clear()
        try:
            yield
        finally:
            self._urgent -= 1
            if not self._urgent:
                self._calm.set()

    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        pool: str,
        data: bytes | None,
        content_type: str | None,
        accept: str = _JSON,
    ) -> aiohttp.ClientResponse:
        headers = {"Accept": accept, **await self._credentials.headers()}
        if content_type is not None:
            headers["Content-Type"] = content_type
        return await self._pool(pool).request(
            method,
            self._credentials.host + path,
            params=query,
            data=data,
            headers=headers,
            allow_redirects=False,
            proxy=self._credentials.proxy,
            server_hostname=self._credentials.server_hostname,
        )

    async def _failure(self, answer: aiohttp.ClientResponse, doing: str, *, json_patch: bool = False) -> Exception:
        status = parse_status(await answer.read(), answer.status)
        return error_of(status, doing, answer.headers, json_patch=json_patch)

    def _pool(self, name: str) -> aiohttp.ClientSession:
        """Watches hold their connections for ever, so they get a pool without a limit.

        Lanes share the other: what is urgent is rare, and finds connections that are open already.
        """
        pool = self._pools.get(name)
        if pool is None:
            limit = 0 if name == "watch" else AT_A_TIME * len(self._slots)
            pool = self._pools[name] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=limit, ssl=self._credentials.ssl, keepalive_timeout=60.0),
                # Timeouts are ours, around the whole call; decompressing costs more than a local network.
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._timeout),
                headers={"User-Agent": f"{self.field_manager}-controller", "Accept-Encoding": "identity"},
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return pool


def decode_alone(raw: msgspec.Raw, type: Any) -> Any:
    """Decode one object of a larger answer without keeping the whole answer alive through its `Raw` fields."""
    return decoder(type).decode(bytes(raw))


async def _events(stream: aiohttp.StreamReader, doing: str, idle: float) -> AsyncIterator[WatchEvent]:
    """Split the stream into lines ourselves: aiohttp's line reader has a limit that a large object exceeds."""
    rest = b""
    try:
        while True:
            async with asyncio.timeout(idle):
                chunk = await stream.readany()
            if not chunk:
                return
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if not line.strip():
                    continue
                event = decoder(WatchEvent).decode(line)
                if event.type == "ERROR":
                    raise error_of(parse_status(bytes(event.object), 500), doing)
                yield event
    except (TimeoutError, aiohttp.ClientError, OSError, msgspec.DecodeError) as error:
        raise _unavailable(doing, error) from error


def _decode(body: bytes, type: Any, doing: str) -> Any:
    try:
        return decoder(type).decode(body)
    except msgspec.ValidationError as error:
        raise InvalidSpec([f"{doing}: {error}"]) from error
    except msgspec.DecodeError as error:
        raise ApiUnavailable(f"{doing}: the answer is not JSON: {error}") from error


def _doing(verb: str, resource: Resource, namespace: str | None, name: str, subresource: str | None) -> str:
    part = f"/{subresource}" if subresource else ""
    return f"{verb} {resource.qualified}{part} {key_of(namespace, name)}"


def _selection(label_selector: str | None, field_selector: str | None) -> dict[str, str]:
    given = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {name: value for name, value in given.items() if value}


def _unavailable(doing: str, error: BaseException) -> ApiUnavailable:
    cause = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
    return ApiUnavailable(f"{doing}: {cause}")
