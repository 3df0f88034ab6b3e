"""A local picture of one kind, kept up to date by list and watch.

It is a trigger and a cache, never the ground for an act: read live before writing. Its resource version never goes
back, it resumes where a broken watch stopped, and it says how long ago it last heard from the API server.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Generic, Never, TypeVar

import msgspec
import structlog

from controller.errors import ApiThrottled, Gone, NotFound, SerinError
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
    relist_pressed: float = 20.0
    """The same where somebody is pressed for it: with the watch that has to end first a minute at most."""
    arrives: float = 2.0
    """What a list shows and no watch has brought after this long was lost, and is not on its way."""


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
        self.pressed: Callable[[], bool] = lambda: False
        """whether a lost event must be found within a minute: then hardly a watch begins without a list beside it"""
        self._chance = chance
        self._backoff = Backoff(timing.backoff_base, timing.backoff_cap, chance)
        self._entries: dict[str, _Entry[T]] = {}
        self._callbacks: list[KeyedChange[T]] = []
        self._version = 0
        self._whole_as_of = 0
        self._older_lists = 0
        self._missing = False
        self._listed = False
        self._listed_at = 0.0
        self._share = 1.0
        self._sweeping: asyncio.Task[None] | None = None
        self._gone: dict[str, int] = {}
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
        try:
            while True:
                try:
                    if not self._listed:
                        await self._list()
                    elif self._is_sweep_due():
                        self._sweeping = asyncio.create_task(self._sweep())
                    await self._watch()
                except Gone as error:
                    self._listed = False
                    await self._rest(error)
                except SerinError as error:
                    # Nothing was missed if the stream broke: the next one resumes. What is neither a pause of the
                    # server nor a broken line may have other causes, and a new list settles them.
                    self._listed = self._listed and _resumable(error)
                    await self._rest(error)
                except Exception:
                    # Nobody waits for this task: ended, it would leave a picture that grows old.
                    log.exception("watch_failed", resource=self.resource.qualified)
                    self._listed = False
                    await asyncio.sleep(self._backoff.next())
        finally:
            self._stop_sweeping()

    async def _rest(self, error: SerinError) -> None:
        delay = self._backoff.next()
        if isinstance(error, ApiThrottled):
            delay = max(delay, error.retry_after * (1.0 + 0.1 * self._chance()))
        # A kind that this cluster does not have is told of once, and asked for again all the same.
        if not (self._missing and isinstance(error, NotFound)):
            log.warning(
                "watch_interrupted", resource=self.resource.qualified, error=str(error), retry_in=round(delay, 3)
            )
        self._missing = isinstance(error, NotFound)
        await asyncio.sleep(delay)

    async def _list(self) -> None:
        """A live list, compared with what is known."""
        self._stop_sweeping()
        found, version = await self._read_list()
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
        self._missing = False
        self._was_listed(version)
        self._synced.set()

    async def _sweep(self) -> None:
        """The same beside a watch, which may have lost an event: nobody waits for it, and it takes nothing back.

        Names and versions say whether one was lost, for a third of what the objects cost the API server.
        """
        since = self._version
        self._gone.clear()
        try:
            named, version = await self._read_list(names=True)
            if version >= since:
                await asyncio.sleep(self._timing.arrives)
                if not self._lacks(named, version):
                    self._was_listed(version)
                    return
                found, version = await self._read_list()
        except SerinError as error:
            # With the next watch it is tried again.
            log.warning("list_failed", resource=self.resource.qualified, error=str(error))
            return
        if version < since:
            # Of a server that lags behind, or of a restored backup: what that means is for the next list to find out.
            self._listed = False
            return
        # What the watch has brought meanwhile is later than the list, be it an object or the end of one.
        for key in [key for key, known in self._entries.items() if key not in found and known.version <= version]:
            self._forget(key)
        for key, (of, raw) in found.items():
            if self._gone.get(key, -1) < of:
                self._learn(key, of, raw)
        self._was_listed(version)

    def _lacks(self, found: Mapping[str, tuple[int, msgspec.Raw]], version: int) -> bool:
        """Whether a list of this version shows what no watch has brought: an object, a change of it, or its end."""
        for key, (of, _) in found.items():
            known = self._entries.get(key)
            if of > (self._gone.get(key, -1) if known is None else known.version):
                return True
        return any(key not in found and known.version <= version for key, known in self._entries.items())

    async def _read_list(self, *, names: bool = False) -> tuple[dict[str, tuple[int, msgspec.Raw]], int]:
        """Every object by its key, with its version, and the version of the whole; with `names` no more of it."""
        found: dict[str, tuple[int, msgspec.Raw]] = {}
        version = 0
        pages = self._api.pages(self.resource, **self._where, names=names)
        async with aclosing(pages):  # type: ignore[type-var]
            async for page in pages:
                self._seen()
                version = _version(page.metadata.resource_version)
                for raw in page.items or ():
                    meta = decoder(Identified).decode(raw).metadata
                    found[meta.key] = (_version(meta.resource_version), raw)
        return found, version

    def _is_sweep_due(self) -> bool:
        if self._is_sweeping():
            return False
        every = self._timing.relist_pressed if self.pressed() else self._timing.relist
        return asyncio.get_running_loop().time() >= self._listed_at + every * self._share

    def _is_sweeping(self) -> bool:
        return self._sweeping is not None and not self._sweeping.done()

    def _was_listed(self, version: int) -> None:
        """What is known is what was stored at this version, or newer."""
        self._version = max(self._version, version)
        self._whole_as_of = version
        self._listed = True
        self._listed_at, self._share = asyncio.get_running_loop().time(), 0.8 + 0.2 * self._chance()

    def _stop_sweeping(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()

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
        if version <= self._whole_as_of:
            # A list was quicker than the watch. What it does not have any more would come back as a ghost, and stay one
            # where the stream breaks before it says so.
            return
        match event.type:
            case "ADDED" | "MODIFIED":
                self._learn(meta.key, version, event.object)
            case "DELETED":
                known = self._entries.get(meta.key)
                if self._is_sweeping():
                    self._gone[meta.key] = version
                # A list may have brought the object that was made again under this name.
                if known is None or known.version <= version:
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
        self._asked: dict[str, tuple[T, ...]] = {}
        informer.on_keyed_change(self._sort)

    def of(self, group: str) -> tuple[T, ...]:
        """Every object of that group; the very same tuple as long as none of them has changed."""
        if group not in self._found:
            return ()
        if group not in self._asked:
            self._asked[group] = tuple(self._found[group].values())
        return self._asked[group]

    def _sort(self, key: str, old: T | None, new: T | None) -> None:
        group = None if new is None else self._group(new)
        if group is not None:
            self._asked.pop(group, None)
        if old is not None:
            self._asked.pop(self._group(old), None)
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
