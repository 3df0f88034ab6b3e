"""A local picture of one kind, kept up to date by list and watch.

It is a trigger and a cache, never the ground for an act: read live before writing. Its resource version never goes
back, it resumes where a broken watch stopped, and it says how long ago it last heard from the API server.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Generic, Never, TypeVar

import msgspec
import structlog

from controller.errors import ApiThrottled, Gone, SerinError
from controller.kube.backoff import Backoff
from controller.kube.resources import Resource, key_of
from controller.kube.transport import Api, Identified, WatchEvent, decode_alone, decoder

T = TypeVar("T")
Change = Callable[[T | None, T | None], None]
KeyedChange = Callable[[str, T | None, T | None], None]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. The server ends a watch before we would take its silence for death, with a bookmark shortly before."""

    watch_lasts: float = 35.0
    idle: float = 45.0
    backoff_base: float = 0.1
    backoff_cap: float = 15.0
    healthy: float = 5.0
    """A watch that lived this long is followed by the next at once."""
    relist: float = 1800.0
    """A watch may lose an event without a word: this is the longest it goes unnoticed."""


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    version: int
    value: T | None


class Informer(Generic[T]):
    """All objects of one kind (or those selected), decoded as `type`, with a callback for each change.

    A callback gets what was known and what is now: `None` before an addition, `None` after a deletion.
    An object that cannot be decoded is in `unreadable`, by key, and absent from the rest. With `shrink`, what is
    decoded is cut down before it is kept; None for an object that nobody will ask for.
    """

    def __init__(
        self,
        api: Api,
        resource: Resource,
        type: type[Any],
        *,
        shrink: Callable[[Any], T | None] | None = None,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        timing: Timing = Timing(),
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.resource = resource
        self.unreadable: dict[str, str] = {}
        self._api = api
        self._type = type
        self._shrink = shrink
        self._where: dict[str, Any] = {
            "namespace": namespace,
            "label_selector": label_selector,
            "field_selector": field_selector,
        }
        self._timing = timing
        self._chance = chance
        self._backoff = Backoff(timing.backoff_base, timing.backoff_cap, chance)
        self._entries: dict[str, _Entry[T]] = {}
        self._callbacks: list[KeyedChange[T]] = []
        self._version = 0
        self._older_lists = 0
        self._synced = asyncio.Event()
        self._last_seen: float | None = None

    # What others ask

    def on_change(self, callback: Change[T]) -> None:
        """Called in order, on the event loop; it should only enqueue. Register before `run`."""
        self._callbacks.append(lambda key, old, new: callback(old, new))

    def on_keyed_change(self, callback: KeyedChange[T]) -> None:
        """The same, for what was shrunk and does not know its own name."""
        self._callbacks.append(callback)

    async def wait_synced(self) -> None:
        """Returns when the first list is in the store and its callbacks have been called."""
        await self._synced.wait()

    @property
    def synced(self) -> bool:
        return self._synced.is_set()

    @property
    def resource_version(self) -> int:
        """How far the picture reaches; compare it with the version of a write of one's own."""
        return self._version

    def age(self) -> float:
        """Seconds since the API server last said anything here; infinite before it first did."""
        if self._last_seen is None:
            return float("inf")
        return asyncio.get_running_loop().time() - self._last_seen

    def get(self, namespace: str | None, name: str) -> T | None:
        return self.by_key(key_of(namespace, name))

    def by_key(self, key: str) -> T | None:
        entry = self._entries.get(key)
        return entry.value if entry else None

    def keys(self) -> list[str]:
        return list(self._entries)

    def __iter__(self) -> Iterator[T]:
        return iter([entry.value for entry in self._entries.values() if entry.value is not None])

    def __len__(self) -> int:
        return len(self._entries)

    # Keeping up

    async def run(self) -> Never:
        """List, then watch, for ever; only cancelling ends it."""
        listed, clock = False, asyncio.get_running_loop().time
        relist_at = 0.0
        while True:
            try:
                if not listed or clock() >= relist_at:
                    await self._list()
                    listed = True
                    relist_at = clock() + self._timing.relist * (0.8 + 0.2 * self._chance())
                await self._watch()
            except Gone as error:
                listed = False
                await self._rest(error)
            except SerinError as error:
                # Nothing was missed if the stream broke: the next one resumes. What is neither a pause of the server
                # nor a broken line may have other causes, and a new list settles them.
                listed = listed and _resumable(error)
                await self._rest(error)

    async def _rest(self, error: SerinError) -> None:
        delay = self._backoff.next()
        if isinstance(error, ApiThrottled):
            delay = max(delay, error.retry_after * (1.0 + 0.1 * self._chance()))
        log.warning("watch_interrupted", resource=self.resource.qualified, error=str(error), retry_in=round(delay, 3))
        await asyncio.sleep(delay)

    async def _list(self) -> None:
        """A live list, compared with what is known."""
        found: dict[str, tuple[int, msgspec.Raw]] = {}
        version = 0
        async with aclosing(self._api.pages(self.resource, **self._where)) as pages:  # type: ignore[type-var]
            async for page in pages:
                self._seen()
                version = _version(page.metadata.resource_version)
                for raw in page.items or ():
                    meta = decoder(Identified).decode(raw).metadata
                    found[meta.key] = (_version(meta.resource_version), raw)
        if version < self._version and self._older_lists < 5:
            # A server that lags behind will catch up. One that says so again and again runs on a restored backup,
            # and then its past is our present.
            self._older_lists += 1
            raise Gone(f"list of {self.resource.qualified} is of {version}, older than {self._version} seen before")
        restored = version < self._version
        self._older_lists = 0
        for key in [key for key in self._entries if key not in found]:
            self._forget(key)
        for key, (of, raw) in found.items():
            self._learn(key, of, raw, restored=restored)
        self._version = version
        self._synced.set()

    async def _watch(self) -> None:
        """Follow one stream to its end."""
        loop = asyncio.get_running_loop()
        # Spread over time, so that informers started together do not reconnect together.
        lasts = self._timing.watch_lasts * (0.8 + 0.2 * self._chance())
        started = loop.time()
        async with self._api.watch(
            self.resource,
            resource_version=str(self._version),
            lasts=lasts,
            idle=self._timing.idle,
            **self._where,
        ) as events:
            self._seen()
            async for event in events:
                self._seen()
                self._apply(event)
                self._backoff.reset()
        if loop.time() - started >= self._timing.healthy:
            self._backoff.reset()
        else:
            await asyncio.sleep(self._backoff.next())

    def _apply(self, event: WatchEvent) -> None:
        meta = decoder(Identified).decode(event.object).metadata
        version = _version(meta.resource_version)
        match event.type:
            case "ADDED" | "MODIFIED":
                self._learn(meta.key, version, event.object)
            case "DELETED":
                self._forget(meta.key)
        self._version = max(self._version, version)

    def _learn(self, key: str, version: int, raw: msgspec.Raw, *, restored: bool = False) -> None:
        known = self._entries.get(key)
        if known is not None and (known.version == version or (known.version > version and not restored)):
            return
        value: T | None = None
        try:
            value = decode_alone(raw, self._type)
            if self._shrink is not None:
                value = self._shrink(value)
            self.unreadable.pop(key, None)
        except msgspec.ValidationError as error:
            log.warning("object_unreadable", resource=self.resource.qualified, key=key, error=str(error))
            self.unreadable[key] = str(error)
        self._entries[key] = _Entry(version, value)
        self._tell(key, known.value if known else None, value)

    def _forget(self, key: str) -> None:
        known = self._entries.pop(key, None)
        self.unreadable.pop(key, None)
        if known is not None:
            self._tell(key, known.value, None)

    def _tell(self, key: str, old: T | None, new: T | None) -> None:
        if old is None and new is None:
            return
        for callback in self._callbacks:
            try:
                callback(key, old, new)
            except Exception:
                # The picture must stay whole even when somebody who looks at it stumbles.
                log.exception("callback_failed", resource=self.resource.qualified)

    def _seen(self) -> None:
        self._last_seen = asyncio.get_running_loop().time()


class Grouped(Generic[T]):
    """What an informer knows, by a property of each object, so that asking for a few does not look at all."""

    def __init__(self, informer: Informer[T], group: Callable[[T], str]) -> None:
        self._group = group
        self._found: dict[str, dict[str, T]] = {}
        informer.on_keyed_change(self._sort)

    def of(self, group: str) -> tuple[T, ...]:
        """Every object of that group."""
        return tuple(self._found.get(group, {}).values())

    def _sort(self, key: str, old: T | None, new: T | None) -> None:
        group = None if new is None else self._group(new)
        if old is not None and (was := self._group(old)) != group:
            left = self._found.get(was, {})
            left.pop(key, None)
            if not left:
                self._found.pop(was, None)
        if new is not None and group is not None:
            self._found.setdefault(group, {})[key] = new


def _resumable(error: SerinError) -> bool:
    return error.reason in {"ApiUnavailable", "ApiThrottled"}


def _version(text: str) -> int:
    """Resource versions are comparable numbers since Kubernetes 1.35, and were in fact before."""
    return int(text) if text.isdigit() else 0
