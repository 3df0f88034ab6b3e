"""Which Canaries an object is about, by name: what a watch brings wakes those and no others."""

from __future__ import annotations

from collections.abc import Iterable

from controller.kube.resources import key_of
from controller.loop.memory import CanaryObject


class Concern:
    """From `namespace/name` of a workload, Service or route to the Canaries that look at it."""

    def __init__(self) -> None:
        self._canaries: dict[str, set[str]] = {}

    def change(self, old: CanaryObject | None, new: CanaryObject | None) -> None:
        """A Canary was made, edited or deleted."""
        if old is not None and new is not None and old.spec == new.spec:
            return
        for name in _names(old):
            left = self._canaries.get(name, set())
            left.discard(old.metadata.key if old else "")
            if not left:
                self._canaries.pop(name, None)
        for name in _names(new):
            self._canaries.setdefault(name, set()).add(new.metadata.key if new else "")

    def about(self, key: str) -> tuple[str, ...]:
        """Keys of the Canaries that look at the object of this name."""
        return tuple(self._canaries.get(key, ()))


def _names(canary: CanaryObject | None) -> Iterable[str]:
    if canary is None:
        return ()
    # Written by people and read before anything has checked it.
    target, traffic = _part(canary.spec, "targetRef"), _part(canary.spec, "traffic")
    named = (
        target.get("name"),
        _part(traffic, "service").get("name"),
        _part(traffic, "httpRoute").get("name"),
        f"{canary.metadata.name}-canary",
        f"{canary.metadata.name}-baseline",
    )
    return {key_of(canary.metadata.namespace, name) for name in named if isinstance(name, str)}


def _part(body: object, name: str) -> dict[str, object]:
    found = body.get(name) if isinstance(body, dict) else None
    return found if isinstance(found, dict) else {}
