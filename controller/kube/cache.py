"""Reads without requests: what watches have brought of a few kinds, never older than our own writes.

The one thing to know: an answer may be late by a moment, so it is good for waiting and for taking traffic away,
never for anything that raises, deletes or scales. Objects are kept as the JSON of the fields that are read, which
takes a tenth of what dictionaries take.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import msgspec

from controller.kube.informer import Grouped, Informer
from controller.kube.resources import Resource, key_of

T = TypeVar("T")
Found = dict[str, Any]

Part = msgspec.Raw | msgspec.UnsetType

TRUSTED = 90.0
"""A watch hears something at least every 45 s; after twice that what it knows is not read any more."""


class Kept(msgspec.Struct, frozen=True):
    """One object, cut down to what is read."""

    body: bytes
    group: str
    """what it is listed by, such as its namespace or its owner"""

    def read(self) -> Found:
        """As the API server would have answered, less what nobody reads."""
        found: Found = msgspec.json.decode(self.body)
        return found


class Whole(msgspec.Struct, frozen=True, kw_only=True):
    """An object on its way into the cache: what is not named here is dropped, managed fields first of all."""

    metadata: dict[str, Any]
    spec: Part = msgspec.UNSET
    status: Part = msgspec.UNSET
    endpoints: Part = msgspec.UNSET


Keep = Callable[[Whole], Kept | None]
"""Cuts an object down; None for one that nobody will ask for."""

_METADATA = (
    "name", "namespace", "uid", "resourceVersion", "generation", "labels", "ownerReferences", "creationTimestamp",
    "deletionTimestamp",
)  # fmt: skip


def keep(
    whole: Whole, group: str, *, spec: bool = True, status: bool = True, annotations: Callable[[str], bool]
) -> Kept:
    """The object with the metadata that is read, the annotations asked for, and the parts asked for."""
    metadata = {name: whole.metadata[name] for name in _METADATA if name in whole.metadata}
    noted = {name: value for name, value in (whole.metadata.get("annotations") or {}).items() if annotations(name)}
    if noted:
        metadata["annotations"] = noted
    parts = Whole(
        metadata=metadata,
        spec=whole.spec if spec else msgspec.UNSET,
        status=whole.status if status else msgspec.UNSET,
        endpoints=whole.endpoints,
    )
    return Kept(msgspec.json.encode(parts), group)


class OwnWrites(Generic[T]):
    """What the API server answered to our writes, until the watch has come that far.

    Not for ever: where a store was restored from a backup, the watch never comes that far.
    """

    def __init__(self) -> None:
        self._written: dict[str, tuple[int, float, T]] = {}

    def note(self, key: str, version: str, value: T) -> None:
        """`version` is the resource version of the answer."""
        if version.isdigit():
            self._written[key] = (int(version), _time() + TRUSTED, value)

    def is_own(self, key: str, version: str) -> bool:
        """Whether this version is our latest write: what a watch brings of it is known."""
        known = self._written.get(key)
        return known is not None and version == str(known[0])

    def newer(self, key: str, than: int) -> T | None:
        """Our write of this object, if the watch has come no further than `than`."""
        known = self._written.get(key)
        if known is None:
            return None
        version, until, value = known
        if than < version and _time() < until:
            return value
        del self._written[key]
        return None


class Cache:
    """What the informers of some kinds know, by name and by group."""

    def __init__(self, informers: Mapping[Resource, Informer[Kept]]) -> None:
        self._informers = dict(informers)
        self._grouped = {each: Grouped(informer, lambda kept: kept.group) for each, informer in informers.items()}
        self._written: dict[Resource, OwnWrites[Found]] = {each: OwnWrites() for each in informers}

    def knows(self, resource: Resource) -> bool:
        """Whether this kind can be read here: else ask the API server."""
        informer = self._informers.get(resource)
        return informer is not None and informer.synced and informer.age() < TRUSTED

    def find(self, resource: Resource, namespace: str, name: str) -> Found | None:
        """The object as far as it is known; None when there is none."""
        informer, key = self._informers[resource], key_of(namespace, name)
        own = self._written[resource].newer(key, informer.resource_version)
        if own is not None:
            return own
        kept = informer.by_key(key)
        return None if kept is None else kept.read()

    def select(self, resource: Resource, group: str) -> list[Found]:
        """Every object of that group."""
        return [kept.read() for kept in self.kept(resource, group)]

    def kept(self, resource: Resource, group: str) -> tuple[Kept, ...]:
        """The same, unread; the very same tuple as long as none of them has changed."""
        return self._grouped[resource].of(group)

    def wrote(self, resource: Resource, namespace: str, name: str, body: Found) -> None:
        """What the API server answered to a write of ours: true until the watch has come that far."""
        if resource in self._written:
            version = str((body.get("metadata") or {}).get("resourceVersion", ""))
            self._written[resource].note(key_of(namespace, name), version, body)


def _time() -> float:
    return asyncio.get_running_loop().time()
