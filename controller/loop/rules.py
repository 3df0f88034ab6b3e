"""ReleasePolicies and Freezes as the watches know them, parsed once for each version of an object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import ValidationError

from controller.guardrails.freeze import Freeze
from controller.guardrails.policy import Policy
from controller.kube.informer import Informer
from controller.kube.objects import Object
from controller.kube.resources import Resource
from controller.loop.memory import CanaryObject
from controller.model.policy import FreezeSpec, ReleasePolicySpec, parse_freeze_spec, parse_policy_spec
from controller.model.spec import GROUP, VERSION, field_problems
from controller.model.status import Outcome
from controller.ports import RulesSeen

POLICIES = Resource(GROUP, VERSION, "releasepolicies", "ReleasePolicy", namespaced=False)
FREEZES = Resource(GROUP, VERSION, "freezes", "Freeze", namespaced=False)
SILENT = 60.0
"""seconds without a word from a watch, which says something at least every 45: what it knows may be old"""

Spec = TypeVar("Spec", ReleasePolicySpec, FreezeSpec)


class SpecObject(Object, frozen=True, kw_only=True):
    """A ReleasePolicy or a Freeze as it comes over the wire."""

    spec: dict[str, Any] = {}


class KubeRules:
    """`ports.Rules` on watch caches."""

    def __init__(
        self, policies: Informer[SpecObject], freezes: Informer[SpecObject], canaries: Informer[CanaryObject]
    ) -> None:
        self._policies = policies
        self._freezes = freezes
        self._canaries = canaries
        self._parsed: dict[tuple[str, str], tuple[Any, str]] = {}

    def read_rules(self) -> RulesSeen:
        for watched in (self._policies, self._freezes):
            kind = watched.resource.kind
            if not watched.synced:
                return RulesSeen(problem=f"the list of kind {kind} has not been read yet")
            if watched.age() > SILENT:
                return RulesSeen(problem=f"the API server has said nothing about kind {kind} for {watched.age():.0f} s")
        policies, unreadable = [], list(self._policies.unreadable.items())
        for one in self._policies:
            spec, problem = self._read(one, parse_policy_spec)
            if spec is None:
                unreadable.append((one.metadata.name, problem))
            else:
                policies.append(Policy(one.metadata.name, spec, one.metadata.generation))
        freezes = [Freeze(name, name, None, problem) for name, problem in self._freezes.unreadable.items()]
        for one in self._freezes:
            meta = one.metadata
            freezes.append(Freeze(meta.name, meta.uid, *self._read(one, parse_freeze_spec), meta.creation_timestamp))
        self._forget()
        return RulesSeen(tuple(policies), tuple(freezes), tuple(unreadable))

    def promoted(self, images: tuple[str, ...]) -> frozenset[tuple[str, str]]:
        if not images or not all("@sha256:" in image for image in images):
            return frozenset()
        found = set()
        for canary in self._canaries:
            attempt, stable = canary.status.get("attempt") or {}, canary.status.get("stable") or {}
            # A status of before `promoted` says it by its last attempt, while that is the one that stable came from.
            last = attempt.get("outcome") == Outcome.PROMOTED and list(attempt.get("images") or ()) == list(images)
            if list(stable.get("images") or ()) == list(images) and (stable.get("promoted") or last):
                found.add((canary.metadata.namespace, canary.metadata.name))
        return frozenset(found)

    def _read(self, one: SpecObject, parse: Callable[[dict[str, Any]], Spec]) -> tuple[Spec | None, str]:
        key = (one.metadata.uid, one.metadata.resource_version)
        if key not in self._parsed:
            try:
                self._parsed[key] = parse(one.spec), ""
            except ValidationError as error:
                self._parsed[key] = None, "; ".join(field_problems(error))[:512]
        return self._parsed[key]

    def _forget(self) -> None:
        """Versions that are gone; kept until there are many, since a version is asked for again every turn."""
        if len(self._parsed) > 2 * (len(self._policies) + len(self._freezes)) + 16:
            self._parsed.clear()
