"""What the loop asks of the outside. A port says what is promised: units, idempotence, which error.

Every write takes the fencing `epoch` of the decision it carries out and fails with `Conflict`
(look again) or `Fenced` (a newer leader: stop) when the object has moved on. A stamp above ours is a newer
leader's only where the Lease is no longer ours: whoever may edit the object may write one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from controller.guardrails.freeze import Freeze
from controller.guardrails.policy import Policy
from controller.model.evidence import Evidence
from controller.model.policy import Person, Signer
from controller.model.spec import CanarySpec, Metric
from controller.model.status import Status
from controller.model.world import CanaryPods, DecisionSeen, Pins, RecordSeen, Target, Weight


@dataclass(frozen=True)
class Ref:
    """Which Canary: everything it owns lives in its namespace."""

    namespace: str
    name: str
    uid: str

    @property
    def key(self) -> str:
        """`namespace/name`, the queue's key."""
        return f"{self.namespace}/{self.name}"

    @property
    def canary_name(self) -> str:
        """Name of the canary Deployment."""
        return f"{self.name}-canary"

    @property
    def baseline_name(self) -> str:
        """Name of the Deployment of fresh stable pods."""
        return f"{self.name}-baseline"


class TrafficRouter(Protocol):
    """Splits the live requests of one Service between stable and canary.

    Weights are percents for the canary, 0 to 100 with at most two decimals; stable gets the rest.
    Methods are idempotent and touch only what is ours. Raises `RouterConflict` while someone else
    holds those fields, `Retryable` when the API server does not answer.
    """

    async def read_weight(self, ref: Ref, spec: CanarySpec, *, live: bool = True) -> Weight:
        """The weight live traffic has now; without `live` it may be late by a moment."""

    async def set_weight(self, ref: Ref, spec: CanarySpec, percent: float, *, epoch: str, was: str) -> None:
        """Bring the route to `percent` and stamp it with `epoch`; `was` is the epoch seen when deciding.

        At 0 the backend entry of the canary stays, so that nothing but its weight has to change again. Where the spec
        asks for a fresh baseline, that gets its share in the same write.
        """

    async def remove(self, ref: Ref, spec: CanarySpec) -> None:
        """Take our backend entry and annotation out of the route: it is as the owner wrote it."""


class Workload(Protocol):
    """Holds, tries and releases the revisions of one workload. The user's object stays the stable one.

    Without `live` an answer may be late by a moment and less complete: good for waiting, and for taking traffic away.
    """

    async def read_target(
        self, ref: Ref, spec: CanarySpec, stable_hash: str, candidate: str, *, live: bool = True
    ) -> Target | None:
        """The workload; `candidate` is the template hash whose zero-replica ReplicaSets a live look names."""

    async def read_canary(self, ref: Ref, spec: CanarySpec, *, live: bool = True) -> CanaryPods:
        """The canary Deployment, its pods and the endpoints of its Service."""

    async def read_baseline(self, ref: Ref, spec: CanarySpec, *, live: bool = True) -> CanaryPods:
        """The same of the fresh baseline; nothing, and nothing is asked, where the spec wants none."""

    async def read_pins(
        self, ref: Ref, spec: CanarySpec, target: Target, stable_hash: str, *, live: bool = True
    ) -> Pins:
        """Whether every Service that selects the target's pods selects stable's only; a live look counts endpoints."""

    async def prove_hold(self, ref: Ref, spec: CanarySpec, target: Target) -> bool:
        """Whether a server-side dry run of a template change comes back paused."""

    async def pin(self, ref: Ref, spec: CanarySpec, stable_hash: str) -> None:
        """Pin every Service that selects the target's pods to stable's `pod-template-hash`."""

    async def unpin(self, ref: Ref, spec: CanarySpec) -> None:
        """Take our pins off again."""

    async def apply_canary(
        self, ref: Ref, spec: CanarySpec, target: Target, *, attempt: str, replicas: int, epoch: str
    ) -> None:
        """Create or scale the canary Deployment (from the target's template) and its Service."""

    async def apply_baseline(
        self, ref: Ref, spec: CanarySpec, template: dict[str, Any], *, attempt: str, replicas: int, epoch: str
    ) -> None:
        """Create or scale the Deployment of fresh pods from stable's `template`, and its Service."""

    async def delete_canary(self, ref: Ref, spec: CanarySpec) -> None:
        """Delete Deployment and Service of canary and fresh baseline. Never while a route still gives them weight."""

    async def replace_pods(self, ref: Ref, spec: CanarySpec, *, epoch: str) -> None:
        """Fresh pods instead of all that canary and fresh baseline have; once for each `epoch`.

        The canary's come up on other nodes where there are any.
        """

    async def pause(self, ref: Ref, spec: CanarySpec, target: Target, *, epoch: str) -> None:
        """Stop a roll that was not held."""

    async def release(self, ref: Ref, spec: CanarySpec, target: Target, *, epoch: str) -> None:
        """Unpause: the target rolls to the template in its spec by its own strategy."""

    async def restore(
        self, ref: Ref, spec: CanarySpec, target: Target, template: dict[str, Any], *, epoch: str, paused: bool
    ) -> None:
        """Give the target stable's template back; rolls by its own strategy unless `paused`."""

    async def delete_replicaset(self, ref: Ref, name: str) -> None:
        """Remove a zero-replica ReplicaSet that carries the candidate's template."""


@dataclass(frozen=True)
class RawSample:
    """One raw counter value of one series, as scraped."""

    series: str
    at: float
    """unix seconds of the scrape"""
    value: float
    target: str = ""
    """what was scraped; empty where nobody knows"""


@dataclass(frozen=True)
class ArmSamples:
    """Raw samples of one arm of one metric, oldest first per series; empty where the server has no data."""

    requests: tuple[RawSample, ...] = ()
    bad: tuple[RawSample, ...] = ()
    """failed requests, or requests slower than the threshold"""
    slower: tuple[tuple[RawSample, ...], ...] = ()
    """requests slower than each of several bounds, the lowest first; empty where there is the threshold alone"""


@dataclass(frozen=True)
class MetricSamples:
    """Both arms of one metric between two instants."""

    metric: str
    canary: ArmSamples
    stable: ArmSamples
    partial: bool = False
    """the server answered with warnings: the answer counts as no data"""


@dataclass(frozen=True)
class Past:
    """What stable counted before a rollout, at coarse steps; empty where nobody did."""

    step: float
    """seconds between two values of `traffic`"""
    traffic: Mapping[str, ArmSamples] = field(default_factory=dict)
    """by metric, as the rollout will be judged"""
    pods_step: float = 60.0
    pods: Mapping[str, ArmSamples] = field(default_factory=dict)
    """by pod, as the pods count themselves: for the noise, never for the verdict"""
    buckets: Mapping[str, Mapping[float, tuple[RawSample, ...]]] = field(default_factory=dict)
    """of a latency without a threshold, by metric and bound in seconds: requests that were no slower"""


@dataclass(frozen=True)
class GaugeSamples:
    """The values of a gauge by pod, (unix seconds, value), oldest first; empty where the server has none."""

    canary: Mapping[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    stable: Mapping[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)


class MetricSource(Protocol):
    """Answers with raw samples. Raises `SourceUnavailable`; an answer without data is not an error."""

    async def read_samples(
        self, ref: Ref, spec: CanarySpec, metric: Metric, since: datetime, until: datetime
    ) -> MetricSamples:
        """Raw samples of both arms in (since, until]."""

    async def read_gauge(
        self, ref: Ref, spec: CanarySpec, metric: Metric, since: datetime, until: datetime, *, step: float
    ) -> GaugeSamples:
        """A gauge's values of both arms' pods in (since, until], `step` seconds apart and at the same instants."""

    async def read_past(
        self, ref: Ref, spec: CanarySpec, until: datetime, *, traffic: timedelta, pods: timedelta
    ) -> Past:
        """What stable counted in these spans before `until`: a few cheap queries, asked once."""

    async def read_pods(
        self, ref: Ref, spec: CanarySpec, since: datetime, until: datetime, *, step: float
    ) -> Mapping[str, ArmSamples]:
        """What the canary's pods counted themselves, `step` seconds apart: for people, never for the verdict."""

    async def scrape_interval(self, spec: CanarySpec) -> float:
        """Seconds between two scrapes of this source."""

    async def check(self, ref: Ref, spec: CanarySpec, *, live: bool = True) -> tuple[str, ...]:
        """Problems a person must mend, a line each: unknown source, template or namespace.

        Without `live` nobody is asked, and what only the server knows is left out. Raises `SourceUnavailable` where it
        is to be asked, does not answer, and nothing else is wrong.
        """


class Provenance(Protocol):
    """What is proven about images. Never raises: what cannot be asked now is in `Evidence.unavailable`."""

    async def read_evidence(self, ref: Ref, images: tuple[str, ...], signers: tuple[Signer, ...]) -> Evidence:
        """The worst over these images, believing these signers only. Asked every turn: it answers from a cache."""


class Rights(Protocol):
    """Who may do what, as the API server answers it now."""

    async def may(self, by: str, groups: tuple[str, ...], verb: str, namespace: str, canary: str) -> bool | None:
        """Whether this person holds this verb on this Canary; None when nobody could tell. Never raises."""


@dataclass(frozen=True)
class CanarySeen:
    """One Canary object."""

    ref: Ref
    resource_version: str
    generation: int
    deleting: bool
    has_finalizer: bool
    spec: CanarySpec | None
    """None while `problems` says why it cannot be parsed"""
    problems: tuple[str, ...]
    status: Status
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RulesSeen:
    """Every ReleasePolicy and Freeze of the cluster."""

    policies: tuple[Policy, ...] = ()
    freezes: tuple[Freeze, ...] = ()
    unreadable_policies: tuple[tuple[str, str], ...] = ()
    """name and problem: nothing begins while one of them might have said no"""
    problem: str = ""
    """why none of this can be relied on now: no weight rises and nothing begins"""

    @property
    def tell_people(self) -> bool:
        """Whether every policy is known: one that cannot be read may say that two accounts are one person."""
        return not self.problem and not self.unreadable_policies

    @property
    def people(self) -> tuple[Person, ...]:
        """Who is who, by every policy there is: one that is about other Canaries knows it as well."""
        return tuple(person for policy in self.policies for person in policy.spec.people)


class Rules(Protocol):
    """What platform team and people on call wrote. From caches: asked every turn, and never waits."""

    def read_rules(self) -> RulesSeen:
        """All of them, each parsed or named as unreadable."""

    def promoted(self, images: tuple[str, ...]) -> frozenset[tuple[str, str]]:
        """Namespace and name of each Canary whose stable revision has these images, all by digest, and was judged."""


class Memory(Protocol):
    """Where Canaries, Decisions and ReleaseRecords live: the API server. Raises `Conflict`, `Retryable`."""

    async def read(self, key: str, *, live: bool = True) -> CanarySeen | None:
        """The Canary; None when it is gone. Without `live` never older than what we wrote ourselves."""

    async def write_status(self, seen: CanarySeen, status: Status) -> None:
        """One write, refused as `Conflict` when the object is no longer the one seen."""

    async def set_finalizer(self, seen: CanarySeen, present: bool) -> None:
        """Add or remove our finalizer."""

    async def read_decisions(self, ref: Ref) -> tuple[DecisionSeen, ...]:
        """Every Decision that names this Canary, oldest first."""

    async def others_on_target(self, ref: Ref, spec: CanarySpec) -> tuple[str, ...]:
        """Names of older Canaries with the same target: the first wins."""

    async def read_record(self, ref: Ref, attempt: str) -> RecordSeen:
        """What is stored of an attempt."""

    async def read_last_record(self, ref: Ref) -> RecordSeen:
        """The newest record of a Canary of this name, which may have been deleted since."""

    async def store_record(self, ref: Ref, attempt: str, record: dict[str, Any]) -> None:
        """Create the ReleaseRecord, or let it grow up to `record` and seal it once that has an outcome."""

    def tell(self, ref: Ref, reason: str, message: str, *, warning: bool) -> None:
        """An Event about this Canary. Never raises, never waits."""
