"""Where Canaries, Decisions and ReleaseRecords live: the API server.

A Canary comes from the watch, or from our own last write where that is newer, and live before anything that moves
traffic up. Decisions come from the watch: one that is late by a moment is taken a moment later. What was stored of
a record is remembered, because nobody else may write it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog
from pydantic import ValidationError

from controller.errors import AlreadyExists, Conflict, NotFound, Refused
from controller.kube.cache import OwnWrites
from controller.kube.events import EventRecorder
from controller.kube.informer import Grouped, Informer
from controller.kube.objects import Object, Reference
from controller.kube.resources import Resource, key_of
from controller.kube.transport import Api, Lane
from controller.model.chain import grown
from controller.model.redact import redact
from controller.model.spec import API_VERSION, GROUP, VERSION, CanarySpec, Verb, field_problems, parse_canary_spec
from controller.model.status import Status, read_status
from controller.model.status import render_status as rendered
from controller.model.world import DecisionSeen, RecordSeen
from controller.ports import CanarySeen, Ref
from controller.rollout.recorded import record_name

CANARIES = Resource(GROUP, VERSION, "canaries", "Canary")
DECISIONS = Resource(GROUP, VERSION, "decisions", "Decision")
RECORDS = Resource(GROUP, VERSION, "releaserecords", "ReleaseRecord")
SOURCES = Resource(GROUP, VERSION, "metricssources", "MetricsSource", namespaced=False)
FINALIZER = "serin.dev/release"
OF_CANARY = "serin.dev/canary"
"""label of a record: the Canary it speaks of"""

VERBS = frozenset(Verb) - {Verb.THAW}
"""a newer Serin's word is not ours to answer"""

log = structlog.get_logger()


class CanaryObject(Object, frozen=True, kw_only=True):
    """A Canary as it comes over the wire; spec and status are parsed when they are needed."""

    spec: dict[str, Any] = {}
    status: dict[str, Any] = {}


class FreezeNamed(msgspec.Struct, frozen=True, kw_only=True):
    """The Freeze that a Thaw is about."""

    name: str
    uid: str


class SaidSpec(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """What a Decision says."""

    decision: str
    by: str
    canary: str = ""
    attempt: str = ""
    freeze: FreezeNamed | None = None
    permits: str = ""
    step: int = 0
    reason: str = ""
    groups: tuple[str, ...] = ()
    digest: str = ""
    plan_digest: str = ""
    expires_at: datetime | None = None


class DecisionObject(Object, frozen=True, kw_only=True):
    """A Decision as it comes over the wire."""

    spec: SaidSpec


class RecordObject(Object, frozen=True, kw_only=True):
    """A ReleaseRecord as it comes over the wire."""

    spec: dict[str, Any] = {}


class KubeMemory:
    """`ports.Memory` on the API server."""

    def __init__(
        self, api: Api, canaries: Informer[CanaryObject], decisions: Informer[DecisionObject], events: EventRecorder
    ) -> None:
        self._api = api
        self._canaries = canaries
        self._decisions = decisions
        self._events = events
        self._stored: dict[tuple[str, str], RecordSeen] = {}
        self._written: OwnWrites[CanaryObject] = OwnWrites()
        self._specs: dict[str, tuple[tuple[str, int], tuple[CanarySpec | None, tuple[str, ...]]]] = {}
        self._on_target: Grouped[CanaryObject] = Grouped(canaries, _target_of)
        self._said: Grouped[DecisionObject] = Grouped(
            decisions, lambda one: key_of(one.metadata.namespace, one.spec.canary)
        )

    async def read(self, key: str, *, live: bool = True) -> CanarySeen | None:
        namespace, _, name = key.partition("/")
        if live:
            found = await self._api.find(CANARIES, namespace, name, CanaryObject)
        else:
            found = self._known(key)
        if found is None:
            self._specs.pop(key, None)
            return None
        spec, problems = self._spec(key, found)
        status, not_ours = read_status(found.status)
        if not_ours:
            problems = (f"status: {not_ours}",)
        meta = found.metadata
        return CanarySeen(
            ref=Ref(namespace, name, meta.uid),
            resource_version=meta.resource_version,
            generation=meta.generation,
            deleting=meta.deletion_timestamp is not None,
            has_finalizer=FINALIZER in meta.finalizers,
            spec=spec,
            problems=problems,
            status=status,
            labels=meta.labels,
        )

    def is_own(self, canary: CanaryObject) -> bool:
        """Whether a watch brought nothing but what we wrote ourselves."""
        return self._written.is_own(canary.metadata.key, canary.metadata.resource_version)

    def _known(self, key: str) -> CanaryObject | None:
        """From the watch, or what we wrote ourselves where the watch has not come that far."""
        own = self._written.newer(key, self._canaries.resource_version)
        if own is not None:
            return own
        return self._canaries.by_key(key)

    def _spec(self, key: str, found: CanaryObject) -> tuple[CanarySpec | None, tuple[str, ...]]:
        """Parsed once for each version of it."""
        of = (found.metadata.uid, found.metadata.generation)
        known = self._specs.get(key)
        if known is None or known[0] != of:
            known = self._specs[key] = (of, _parsed(found.spec))
        return known[1]

    async def write_status(self, seen: CanarySeen, status: Status) -> None:
        ops = [
            {"op": "test", "path": "/metadata/resourceVersion", "value": seen.resource_version},
            {"op": "add", "path": "/status", "value": rendered(status)},
        ]
        ref = seen.ref
        stops = status.weight < seen.status.weight or (status.reason == "Frozen" != seen.status.reason)
        lane: Lane = "urgent" if stops else "usual"
        written = await self._api.json_patch(
            CANARIES, ref.namespace, ref.name, ops, subresource="status", type=CanaryObject, lane=lane
        )
        self._written.note(ref.key, written.metadata.resource_version, written)

    async def set_finalizer(self, seen: CanarySeen, present: bool) -> None:
        live = await self._api.find(CANARIES, seen.ref.namespace, seen.ref.name, CanaryObject)
        if live is None:
            return
        kept = [one for one in live.metadata.finalizers if one != FINALIZER]
        wanted = [*kept, FINALIZER] if present else kept
        if wanted == live.metadata.finalizers:
            return
        patch = {"metadata": {"resourceVersion": seen.resource_version, "finalizers": wanted}}
        try:
            await self._api.merge_patch(CANARIES, seen.ref.namespace, seen.ref.name, patch)
        except NotFound:
            return

    async def read_decisions(self, ref: Ref) -> tuple[DecisionSeen, ...]:
        found = [
            DecisionSeen(
                uid=one.metadata.uid,
                name=one.metadata.name,
                verb=Verb(one.spec.decision),
                by=one.spec.by,
                attempt=one.spec.attempt,
                step=one.spec.step,
                reason=redact(one.spec.reason),
                groups=one.spec.groups,
                digest=one.spec.digest,
                plan_digest=one.spec.plan_digest,
                expires_at=one.spec.expires_at,
                permits=one.spec.permits,
                freeze=one.spec.freeze.uid if one.spec.freeze else "",
                freeze_name=one.spec.freeze.name if one.spec.freeze else "",
                at=one.metadata.creation_timestamp or datetime.now(UTC),
            )
            for one in self._said.of(ref.key)
            if one.spec.decision in VERBS
        ]
        return tuple(sorted(found, key=lambda said: (said.at, said.uid)))

    async def others_on_target(self, ref: Ref, spec: CanarySpec) -> tuple[str, ...]:
        ours = self._canaries.get(ref.namespace, ref.name)
        since = ours.metadata.creation_timestamp if ours else None
        older = [
            one.metadata.name
            for one in self._on_target.of(key_of(ref.namespace, spec.target_ref.name))
            if one.metadata.uid != ref.uid
            and since is not None
            and one.metadata.creation_timestamp is not None
            and (one.metadata.creation_timestamp, one.metadata.name) < (since, ref.name)
        ]
        return tuple(sorted(older))

    async def read_record(self, ref: Ref, attempt: str) -> RecordSeen:
        name = record_name(ref.name, attempt)
        known = self._stored.get((ref.namespace, name))
        if known is not None:
            return known
        found = await self._api.find(RECORDS, ref.namespace, name, RecordObject)
        if found is None:
            return RecordSeen()
        seen = _record_seen(found.spec)
        self._stored[ref.namespace, name] = seen
        return seen

    async def read_last_record(self, ref: Ref) -> RecordSeen:
        listing = await self._api.list(RECORDS, ref.namespace, RecordObject, label_selector=f"{OF_CANARY}={ref.name}")
        seen = [_record_seen(one.spec) for one in listing.items]
        return max(seen, key=lambda one: one.number, default=RecordSeen())

    async def store_record(self, ref: Ref, attempt: str, record: dict[str, Any]) -> None:
        name = record_name(ref.name, attempt)
        found = await self._api.find(RECORDS, ref.namespace, name, RecordObject)
        known = self._stored.pop((ref.namespace, name), RecordSeen())
        if found is None and known.exists:
            # It went with its namespace, in which nothing new can be made.
            raise NotFound(f"release record {name} is gone from namespace {ref.namespace}")
        stored = {} if found is None else found.spec
        wanted = grown(stored, record)
        try:
            if found is None:
                labels = {OF_CANARY: ref.name}
                body = {
                    "apiVersion": API_VERSION,
                    "kind": "ReleaseRecord",
                    "metadata": {"name": name, "namespace": ref.namespace, "labels": labels},
                    "spec": wanted,
                }
                await self._api.create(RECORDS, ref.namespace, body)
            elif wanted != stored:
                patch = {"metadata": {"resourceVersion": found.metadata.resource_version}, "spec": wanted}
                await self._api.merge_patch(RECORDS, ref.namespace, name, patch)
        except AlreadyExists as error:
            raise Conflict(str(error)) from error
        except Refused as error:
            if found is None or not record.get("outcome"):
                raise
            # What is stored stays as it is; a record that cannot be sealed must not stand before the next release.
            self.tell(ref, "RecordRefused", str(error), warning=True)
            wanted = stored | {"outcome": record["outcome"]}
        self._stored[ref.namespace, name] = seen = _record_seen(wanted)
        if seen.hash:
            log.info("record_sealed", rollout=ref.key, record=name, number=seen.number, hash=seen.hash)
            self._forget_old(ref.namespace, name)

    def _forget_old(self, namespace: str, kept: str) -> None:
        """One record a Canary is looked at; keep the cache at the size of what runs."""
        if len(self._stored) > 4096:
            self._stored = {(namespace, kept): self._stored[namespace, kept]}

    def tell(self, ref: Ref, reason: str, message: str, *, warning: bool) -> None:
        about = Reference(api_version=API_VERSION, kind="Canary", namespace=ref.namespace, name=ref.name, uid=ref.uid)
        self._events.emit(about, reason, message or reason, "Warning" if warning else "Normal")


def _target_of(canary: CanaryObject) -> str:
    """Written by people and read before anything has checked it."""
    target = canary.spec.get("targetRef")
    return key_of(canary.metadata.namespace, str(target.get("name", "")) if isinstance(target, dict) else "")


def _parsed(spec: dict[str, Any]) -> tuple[CanarySpec | None, tuple[str, ...]]:
    """The spec, and what is wrong with it; where it is, its target and route are read nevertheless."""
    try:
        return parse_canary_spec(spec), ()
    except ValidationError as error:
        problems = tuple(f"InvalidSpec {problem}" for problem in field_problems(error))
    try:
        return parse_canary_spec({name: spec[name] for name in ("targetRef", "traffic")}), problems
    except (KeyError, ValidationError):
        return None, problems


def _record_seen(spec: dict[str, Any]) -> RecordSeen:
    """Of a record, what the loop asks about."""
    return RecordSeen(
        exists=True,
        steps=len(spec.get("steps") or ()),
        outcome=str(spec.get("outcome") or ""),
        number=int(spec.get("number") or 0),
        hash=str(spec.get("hash") or ""),
    )
