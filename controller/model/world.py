"""What one turn of the loop sees: plain values read from the outside, nothing remembered."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from controller.model.guarded import Frozen, Ruling
from controller.model.outlook import Outlook
from controller.model.spec import CanarySpec, Verb
from controller.model.status import Course, GaugeSeen, Judged, Status


@dataclass(frozen=True)
class Target:
    """The user's workload as it is now."""

    uid: str
    generation: int
    resource_version: str
    paused: bool
    replicas: int
    """wanted, from its spec"""
    template: dict[str, Any]
    template_hash: str
    images: tuple[str, ...]
    strategy: str = ""
    """type of its rolling strategy"""
    origin: str = ""
    """the pod template's annotation `serin.dev/origin`, as claimed"""
    epoch: str = ""
    held: bool = False
    """paused by the admission policy, and not by its owner"""
    rests_paused: bool = False
    """this cluster cannot pause an edit in its own request: the target stays paused at rest"""
    settled_hash: str = ""
    """pod-template-hash of the one ReplicaSet that has all pods, updated and available; empty while rolling"""
    settled_template: dict[str, Any] = field(default_factory=dict)
    settled_template_hash: str = ""
    settled_images: tuple[str, ...] = ()
    has_pods: bool = False
    runs_another: bool = False
    """it has pods, and none of them is of the stable revision named when reading"""
    stable_ready: int = 0
    """ready pods of the stable revision named when reading"""
    strays: bool = False
    """it has pods, or asks for some, of another revision than that"""
    roll_complete: bool = False
    """its own strategy has brought every pod to the template in its spec"""
    roll_stuck: str = ""
    """why its own strategy makes no progress; empty while it does"""
    deleting: bool = False
    problems: tuple[str, ...] = ()
    """what stands in the way of adopting it, a line each: field, finding, fix"""
    stale_replicasets: tuple[str, ...] = ()
    """zero-replica ReplicaSets with the candidate's template, which scaling would bring up"""
    candidate_revision: int = 0
    """number of the candidate's template in its rollout history; 0 where that does not have it"""
    applied_by: str = ""
    """who wrote its template last, by the name that `managedFields` keeps; empty in a look that is not live"""


@dataclass(frozen=True)
class CanaryPods:
    """The canary workload as it is now."""

    exists: bool = False
    attempt: str = ""
    wanted: int = 0
    ready: int = 0
    endpoints: int = 0
    """ready addresses behind the canary Service"""
    unserved: bool = False
    """pods are ready and none is behind the Service, which is missing or selects something else"""
    epoch: str = ""
    asked_at: datetime | None = None
    """since when it is to have `wanted` pods, where that is known"""
    missing_since: datetime | None = None
    """since when the first of the pods that do not serve yet is asked for, where that was before `asked_at`"""
    trouble: str = ""
    """CamelCase: CrashLoopBackOff, ImagePullBackOff, QuotaExceeded, OOMKilled; empty when there is none"""
    trouble_message: str = ""
    youngest_age: float = 0.0
    """seconds since the youngest pod started"""
    oldest_age: float = 0.0
    """seconds since the oldest pod started"""
    ages: tuple[float, ...] = ()
    """seconds since each pod that is ready started, the youngest first"""
    replaced: str = ""
    """epoch of the retreat that last asked for fresh pods"""
    deleting: bool = False
    running: tuple[tuple[str, str], ...] = ()
    """of each container that has started: its image as the template names it, and the digest that its node reports"""

    @property
    def serving(self) -> int:
        """Pods that answer what the route sends: ready, and behind the Service."""
        return min(self.ready, self.endpoints)

    @property
    def settled_age(self) -> float:
        """Seconds that three of four ready pods have lived at least, of fewer than four all: an autoscaler that
        starts a pod now and then does not make the others young."""
        return self.ages[len(self.ages) // 4] if self.ages else self.youngest_age


@dataclass(frozen=True)
class Pins:
    """The Services that select the target's pods."""

    pinned: bool = False
    """every one selects stable's pod-template-hash, and its EndpointSlices hold nothing else"""
    any_pin: bool = False
    """some Service still carries a pin of ours"""
    foreign: tuple[str, ...] = ()
    """pinned they are, and these addresses stand in their EndpointSlices all the same"""
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Weight:
    """What the router gives the canary now, which may not be what was last asked."""

    percent: float = 0.0
    present: bool = False
    """our backend entry is in every rule that names the stable Service"""
    programmed: bool = False
    """every gateway reports this generation of the route"""
    epoch: str = ""
    problem: str = ""
    """CamelCase reason when the route cannot be used: RouteMissing, RouteNotForService, RouteNotAccepted, ..."""
    problem_message: str = ""
    stable_only: tuple[str, ...] | None = None
    """policies attached to stable's Service and not to the canary's, a sentence each; None where nobody can tell"""


@dataclass(frozen=True)
class DecisionSeen:
    """A Decision object that speaks about this Canary."""

    uid: str
    name: str
    verb: Verb
    by: str
    attempt: str
    step: int
    reason: str
    at: datetime
    groups: tuple[str, ...] = ()
    digest: str = ""
    plan_digest: str = ""
    expires_at: datetime | None = None
    permits: str = ""
    """`Kind/name` that a Permit is for"""
    freeze: str = ""
    """uid of the Freeze that an Override is about"""
    freeze_name: str = ""
    may: bool | None = True
    """the person holds the right now; None when the API server did not say"""
    person: str = ""
    """the same for all accounts of one person"""
    barred: str = ""
    """why this person may not approve, whatever rights they hold: they had a part in the change"""


@dataclass(frozen=True)
class Verdict:
    """What the analysis says now. `fail` ends the rollout, `tripped` takes traffic away for now."""

    fail: bool = False
    tripped: bool = False
    fresh: bool = False
    """data of both arms has arrived within three scrapes"""
    enough: bool = False
    """the step's least number of canary requests is met and no evidence stands against it"""
    need: str = ""
    """what is missing for `enough`, in words"""
    unheard: str = ""
    """why nobody would hear of a fault if the weight came back now; empty when somebody would"""
    lacks: str = "MinRequests"
    """the reason for which it is not `enough`"""
    suffers: str = ""
    """of which metric stable is above its objective too; empty where of none"""
    advice: str = ""
    """what a gauge says against going on, or that it says nothing; its first word is the reason"""
    gauges: tuple[GaugeSeen, ...] = ()
    pods: str = ""
    """on which of its pods the bad requests were that took the canary off traffic; empty while nobody can tell"""
    uncertified: str = ""
    """what is missing for the certificate that promotion asks for; empty when nothing is"""
    young: bool = False
    """pods that tripped while young are young still: they come back when they are not"""
    unproven: str = ""
    """how old the fresh pods must get under traffic before the step may end; empty when they are"""
    replace: bool = False
    """the pods that tripped were not young: fresh ones are to show whether it was the revision"""
    excused: bool = False
    """pods of this service burst so often that the trip is no mark against the revision"""
    limit: float = 100.0
    """percent that the weight is limited to after a return, until the canary has shown nothing for a while"""
    mismatch: str = ""
    """why the traffic seen does not fit the weight; empty when it does"""
    judged: Judged | None = None
    """the numbers behind it"""
    checkpoint: dict[str, Any] = field(default_factory=dict)
    courses: tuple[Course, ...] = ()
    evaluated_through: float = 0.0
    due: datetime | None = None
    """when the next scrape is; none before the first"""
    canary_requests: int = 0
    canary_errors: int = 0
    first_bad_at: datetime | None = None
    no_data_since: datetime | None = None


@dataclass(frozen=True)
class RecordSeen:
    """The ReleaseRecord of the present attempt as it is stored; before the first attempt, the newest one there is."""

    exists: bool = False
    steps: int = 0
    outcome: str = ""
    number: int = 0
    hash: str = ""
    """empty while it is not sealed"""


@dataclass(frozen=True)
class Observed:
    """Everything `decide` may look at."""

    status: Status
    spec: CanarySpec | None
    generation: int = 1
    deleting: bool = False
    uninstalled: bool = False
    """it is let go as if it were deleted, and stays"""
    has_finalizer: bool = True
    term: int = 1
    """our own election term"""
    problems: tuple[str, ...] = ()
    """why the spec cannot be carried out, a line each; the first word is the CamelCase reason"""
    unknown: tuple[str, ...] = ()
    """fields of the attempt's analysis that another version of Serin wrote and this one cannot carry out"""
    target: Target | None = None
    canary: CanaryPods = CanaryPods()
    baseline: CanaryPods = CanaryPods()
    """the fresh pods of stable's template that the canary is compared with; none unless the Canary asks for them"""
    pins: Pins = Pins()
    weight: Weight = Weight()
    hold_proven: bool | None = None
    """whether a dry-run edit came back paused; None when it was not asked this turn"""
    decisions: tuple[DecisionSeen, ...] = ()
    """those of this Canary not answered yet, oldest first"""
    revoked: frozenset[str] = frozenset()
    """uids of decisions that were taken and stand for nothing now: who made them holds the right no longer"""
    verdict: Verdict = Verdict()
    outlook: Outlook | None = None
    """one that the status does not have yet"""
    record: RecordSeen = RecordSeen()
    ruling: Ruling | None = None
    """what the policies make of the candidate; None where none was asked for, or the policies could not be read"""
    frozen: Frozen | None = None
    """the strictest freeze in force; one that cannot be read is in force"""
