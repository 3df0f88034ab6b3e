"""What every object carries. Extend `Object` with only the fields that are used; the rest is never decoded."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec


class OwnerReference(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = False


class Meta(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """`metadata`. `namespace` is empty for what lives in none."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: list[str] = []
    owner_references: list[OwnerReference] = []
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    @property
    def controller(self) -> OwnerReference | None:
        """The owner that manages the object, if one does."""
        return next((owner for owner in self.owner_references if owner.controller), None)


class Object(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """Base of every typed object: `class Pod(Object, frozen=True, kw_only=True): spec: PodSpec`."""

    metadata: Meta = Meta()


class Reference(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """Which object an Event is about."""

    api_version: str
    kind: str
    name: str
    namespace: str = ""
    uid: str = ""


class StatusDetails(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    name: str = ""
    kind: str = ""
    causes: list[dict[str, Any]] | None = None
    retry_after_seconds: float = 0


class Status(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """What the API server says instead of an object, also inside a watch."""

    message: str = ""
    reason: str = ""
    code: int = 0
    details: StatusDetails | None = None
