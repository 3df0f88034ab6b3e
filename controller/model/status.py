"""The only memory: what a Canary's status holds, and the small steps by which it changes.

A restart, a new leader or a second copy starts from here, so everything that decides about live
traffic is in these fields. Display fields (`reason`, `message`, `conditions`) decide nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from controller.model.evidence import Degree, Evidence, Origin, Trust
from controller.model.guarded import Clamp, FreezeSeen, Gate, PlanStep, Touched
from controller.model.outlook import Outlook
from controller.model.value import Value

Short = Annotated[str, Meta(max_length=63)]
Text = Annotated[str, Meta(max_length=1024)]
Count = Annotated[int, Meta(ge=0)]
Percent = Annotated[float, Meta(ge=0, le=100)]


class Phase(StrEnum):
    """Where a Canary is. Each has its order of urgency in `rollout/decide.py`."""

    PENDING = "Pending"
    """Not adopted: something is missing or wrong, or there is no stable revision yet."""
    IDLE = "Idle"
    """One stable revision serves everybody; edits are held."""
    PREPARING = "Preparing"
    """A candidate is held: Services are pinned, canary pods start. No traffic yet."""
    PROGRESSING = "Progressing"
    """Climbing the plan."""
    RETREATED = "Retreated"
    """Weight 0 for now; it comes back after a rest."""
    RELEASING = "Releasing"
    """Every gate is passed: the target rolls by its own strategy while the canary still serves."""
    FINISHING = "Finishing"
    """The target runs the new revision: weight back to it, canary objects away."""
    ROLLING_BACK = "RollingBack"
    """Weight 0 first, then the record, then the pods."""
    ROLLED_BACK = "RolledBack"
    """At rest after a rollback: the rejected template stays held until it is edited or retried."""


ACTIVE = frozenset(
    {Phase.PREPARING, Phase.PROGRESSING, Phase.RETREATED, Phase.RELEASING, Phase.FINISHING, Phase.ROLLING_BACK}
)


class Outcome(StrEnum):
    """How a rollout ended."""

    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    ABORTED = "Aborted"
    REJECTED = "Rejected"
    WITHDRAWN = "Withdrawn"
    """The owner set the template back to stable's."""
    SUPERSEDED = "Superseded"
    """Another template came: it has an attempt of its own."""
    UNJUDGED = "Unjudged"
    """Went out without a comparison: first release, re-creation, or an edit nobody could hold."""
    DELETED = "Deleted"
    """The Canary was deleted while this rollout ran."""


class Stable(Value, frozen=True):
    """The revision users are on and return to."""

    uid: Annotated[str, Meta(max_length=64)]
    """of the target: another uid is another workload"""
    hash: Short
    """pod-template-hash label of its ReplicaSet; Services are pinned to it"""
    template_hash: Short
    """ours: the same for the same template on any cluster version's ReplicaSet"""
    template: dict[str, Any]
    images: Annotated[tuple[Annotated[str, Meta(max_length=512)], ...], Meta(max_length=40)] = ()
    uses: Annotated[tuple[Annotated[str, Meta(max_length=300)], ...], Meta(max_length=100)] = ()
    """`Kind/name` of the ConfigMaps, Secrets and volume claims its pods stand on: admission guards these"""
    strategy: Short = ""
    """type of the rolling strategy it was released by; empty where nobody remembers"""
    replicas: Count | None = None
    """how many pods were wanted when it was released"""
    promoted: bool = False
    """by a rollout that passed: not adopted, and not gone out unjudged"""


class Head(Value, frozen=True):
    """The newest sealed record of this Canary: the next one names it, and its absence is seen."""

    number: Count = 0
    hash: Annotated[str, Meta(max_length=128)] = ""


class StepSeen(Value, frozen=True):
    """When the traffic of a step arrived."""

    step: Count
    weight: Percent
    at: datetime


class Judged(Value, frozen=True):
    """A deciding verdict with its numbers, as status, record, log and metric show it."""

    at: datetime
    verdict: Annotated[str, Meta(max_length=20)]
    reason: Short
    metric: Short = ""
    message: Text = ""
    numbers: dict[str, float] = {}
    would_change: Text = ""
    """what has to happen for another verdict, in words"""
    pods: Text = ""
    """of a retreat: on which of the canary's pods the bad requests were, as far as these say so"""


class Course(Value, frozen=True):
    """How the difference of one metric went over the rollout, thinned: what `kubectl canary explain` draws."""

    metric: Short
    margin: float
    """how much worse is allowed, a fraction of requests"""
    points: Annotated[tuple[Annotated[tuple[float, ...], Meta(max_length=5)], ...], Meta(max_length=32)]
    """each: seconds since the attempt began, percent of weight, effect, and the interval's ends"""


class GaugeSeen(Value, frozen=True):
    """A gauge when it was last remembered: means over the pods of each arm."""

    metric: Short
    canary: float = 0.0
    stable: float = 0.0
    times: float = 0.0
    """the canary's of stable's from which it advises to hold"""
    above: float = 0.0
    """seconds for which the canary's has been above that without a break"""


class Answered(Value, frozen=True):
    """A Decision that was read, and what came of it."""

    uid: Annotated[str, Meta(max_length=64)]
    decision: Annotated[str, Meta(max_length=20)]
    by: Annotated[str, Meta(max_length=256)]
    at: datetime
    answer: Text
    taken: bool = False
    step: Count = 0
    attempt: Short = ""
    reason: Text = ""
    groups: Annotated[tuple[Annotated[str, Meta(max_length=256)], ...], Meta(max_length=100)] = ()
    """that admission saw the person in"""
    expires_at: datetime | None = None
    """from then on it stands for nothing"""
    freeze: Annotated[str, Meta(max_length=64)] = ""
    """uid of the Freeze that an Override is about"""
    person: Annotated[str, Meta(max_length=256)] = ""
    """the same for all accounts of one person"""
    said_at: datetime | None = None
    """when the Decision was made, by the API server's clock; None in what an earlier Serin answered"""


class Permitted(Value, frozen=True):
    """A destructive act that one person may do until then; admission looks here."""

    what: Annotated[str, Meta(max_length=300)]
    """`Kind/name`"""
    by: Annotated[str, Meta(max_length=256)]
    until: datetime


class Attempt(Value, frozen=True):
    """One attempt to bring one revision to users."""

    id: Short
    template_hash: Short
    started_at: datetime
    plan: Annotated[tuple[PlanStep, ...], Meta(max_length=60)]
    """as the policies left it"""
    plan_digest: Annotated[str, Meta(max_length=128)] = ""
    number: Count = 0
    """its record's place in the chain of this Canary's records, from 1"""
    previous: Annotated[str, Meta(max_length=128)] = ""
    """hash of the record before it"""
    claimed_origin: Annotated[str, Meta(max_length=20)] = ""
    origin: Origin = Origin.UNKNOWN
    """as it is treated"""
    trust: Trust = Trust.T0
    evidence: Evidence = Evidence()
    """as it was when the attempt began"""
    degree: Degree = Degree.UNSAID
    classes: Annotated[tuple[Touched, ...], Meta(max_length=9)] = ()
    authors: Annotated[tuple[Annotated[str, Meta(max_length=256)], ...], Meta(max_length=100)] = ()
    """names, in lower case, of those who had a part in the change: they may not approve it"""
    gates: Annotated[tuple[Gate, ...], Meta(max_length=200)] = ()
    policies: Annotated[tuple[Annotated[str, Meta(max_length=300)], ...], Meta(max_length=40)] = ()
    """`name@generation` of those that selected it when it began"""
    clamps: Annotated[tuple[Clamp, ...], Meta(max_length=40)] = ()
    """what they changed, and by which rule"""
    no_data: Annotated[str, Meta(max_length=20)] = ""
    """Hold or RollBack after `analysis.noDataTimeout`"""
    freezes: Annotated[tuple[FreezeSeen, ...], Meta(max_length=100)] = ()
    """that held it, as they began and ended"""
    images: Annotated[tuple[Annotated[str, Meta(max_length=512)], ...], Meta(max_length=40)] = ()
    from_hash: Short = ""
    """template hash of the stable revision it began against; stable changes with a promotion, a record does not"""
    from_images: Annotated[tuple[Annotated[str, Meta(max_length=512)], ...], Meta(max_length=40)] = ()
    step: Count = 0
    baking_since: datetime | None = None
    """when the step's traffic had arrived; None while it has not"""
    resting_since: datetime | None = None
    """when weight 0 was seen in force, in a retreat or rollback"""
    entered_at: datetime | None = None
    """when the present phase of the attempt began; deadlines count from here"""
    sealed_at: datetime | None = None
    """the outcome's instant, fixed once so that the record is the same each time it is rendered"""
    paused: bool = False
    promoted_by: Annotated[str, Meta(max_length=256)] = ""
    """a person skipped the bakes and steps that are left"""
    analysis: dict[str, Any] = {}
    """`spec.analysis` as it was when the attempt began: nobody loosens a test that is running"""
    stable_floor: Count = 0
    """stable pods that were ready when the attempt began, or that a Resume took as enough, to carry what comes back"""
    unheld: bool = False
    """the edit was not held: some of the target's pods may already run it"""
    releasing: bool = False
    """the target was unpaused: getting out means giving it stable's template back"""
    excused: Count = 0
    """retreats that do not count: answered by a person's Resume, of young pods only, or explained by a burst"""
    replacing: bool = False
    """the retreated pods are to be replaced before the weight comes back"""
    drifts: Annotated[tuple[datetime, ...], Meta(max_length=10)] = ()
    """when somebody took our backend out of the route"""
    unpinned: Annotated[tuple[datetime, ...], Meta(max_length=10)] = ()
    """when somebody took the pin off a Service"""
    reapplied_at: datetime | None = None
    """when it was last said who applies the rejected template again while pods of it are left"""
    first_bad_at: datetime | None = None
    seconds_to_relief: float | None = None
    canary_requests: Count = 0
    canary_errors: Count = 0
    steps_seen: Annotated[tuple[StepSeen, ...], Meta(max_length=100)] = ()
    retreats: Annotated[tuple[Judged, ...], Meta(max_length=20)] = ()
    verdicts: Annotated[tuple[Judged, ...], Meta(max_length=40)] = ()
    judged: Judged | None = None
    """the verdict as of `evaluated_through`"""
    courses: Annotated[tuple[Course, ...], Meta(max_length=4)] = ()
    """of the metrics that weigh most"""
    gauges: Annotated[tuple[GaugeSeen, ...], Meta(max_length=10)] = ()
    overruled: bool = False
    """a person went on in spite of what gauges advise, or of a missed objective"""
    outcome: Outcome | None = None
    """set when the attempt is to end; the phase that follows carries it out"""
    outcome_message: Text = ""
    evaluated_through: float = 0.0
    """unix seconds: samples up to here are in `judge`"""
    judge: dict[str, Any] = {}
    """checkpoint of the analysis; opaque here"""

    @property
    def here(self) -> PlanStep:
        """The step the attempt is on."""
        return self.plan[min(self.step, len(self.plan) - 1)]

    @property
    def is_last_step(self) -> bool:
        """No step is left after this one."""
        return self.step >= len(self.plan) - 1


class Condition(Value, frozen=True):
    """A Kubernetes condition; `observed_generation` lets kubectl wait and kstatus see staleness."""

    type: Annotated[str, Meta(max_length=64)]
    status: Annotated[str, Meta(max_length=8)]
    reason: Short = ""
    message: Text = ""
    last_transition_time: datetime | None = None
    observed_generation: Count = 0


class Status(Value, frozen=True):
    """Everything one Canary remembers."""

    observed_generation: Count = 0
    schema_version: Count = 1
    leader_epoch: Count = 0
    fence: Count = 0
    """raised on every abort and retreat, so that a stalled leader's late write fails"""
    phase: Phase = Phase.PENDING
    reason: Short = ""
    message: Text = ""
    weight: Percent = 0.0
    """percent of requests the canary is authorised to have; the route is brought to this"""
    edits_held: bool = False
    """proven by a dry run: the API server pauses an edit in the request that brings it"""
    holding: bool = False
    """the target is paused because of us"""
    rests_paused: bool = False
    """edits are held by a pause that stays on the target at rest, for want of MutatingAdmissionPolicy"""
    unjudged: Text = ""
    """why the revision that becomes stable next was not compared with anything; empty when that is as it should be"""
    unjudged_unless: Short = ""
    """template hash whose return needs no judgement, because it was released before"""
    stable: Stable | None = None
    attempt: Attempt | None = None
    outlook: Outlook | None = None
    """what was known of traffic, steps and pods before the last rollout, or before the first"""
    head: Head = Head()
    rejected: Short = ""
    """template hash of the last revision that was rolled back; it is not tried again without a Retry"""
    decisions: Annotated[tuple[Answered, ...], Meta(max_length=20)] = ()
    permits: Annotated[tuple[Permitted, ...], Meta(max_length=20)] = ()
    stable_only: Annotated[tuple[Annotated[str, Meta(max_length=1024)], ...], Meta(max_length=20)] = ()
    """policies of the gateway that stable's Service has and the canary's lacks; display only"""
    conditions: Annotated[tuple[Condition, ...], Meta(max_length=16)] = ()
    step_shown: Short = ""
    verdict_shown: Short = ""
    origin_shown: Annotated[str, Meta(max_length=20)] = ""
    waiting_on: Short = ""

    @property
    def epoch(self) -> str:
        """The fencing value objects without a transition rule carry: `<leaderEpoch>.<fence>`."""
        return f"{self.leader_epoch}.{self.fence}"

    @property
    def is_ours(self) -> bool:
        """Whether this version can carry on with it: a later one's status may mean what we do not know."""
        return self.schema_version <= Status().schema_version

    def but(self, **changes: Any) -> Status:
        """The same with some fields changed."""
        return msgspec.structs.replace(self, **changes)

    def with_attempt(self, **changes: Any) -> Status:
        """The same with some fields of the attempt changed.

        Raises: ValueError: there is no attempt.
        """
        if self.attempt is None:
            raise ValueError("no attempt to change")
        return msgspec.structs.replace(self, attempt=msgspec.structs.replace(self.attempt, **changes))


NOT_OURS = 2**31
"""`schema_version` of a status that this version cannot read; it is never written back"""


def read_status(body: dict[str, Any]) -> tuple[Status, str]:
    """The status, and why it is not ours to carry on with; empty where it is.

    Of one that is not, only what a way out needs is there: which attempt it is about, whether the decision to leave
    traffic is in it, and what fences the route.
    """
    try:
        status = parse_status(body)
    except msgspec.ValidationError as error:
        return _way_out(body), str(error)
    if status.is_ours:
        return status, ""
    return _way_out(body), f"schemaVersion is {status.schema_version}, and this Serin knows {Status().schema_version}"


def _way_out(body: dict[str, Any]) -> Status:
    attempt = body.get("attempt")
    name = attempt.get("id") if isinstance(attempt, dict) else None
    nothing_else: dict[str, Any] = {"template_hash": "", "started_at": datetime.fromtimestamp(0, UTC), "plan": ()}
    return Status(
        schema_version=NOT_OURS,
        leader_epoch=_count(body.get("leaderEpoch")),
        fence=_count(body.get("fence")),
        phase=next((out for out in (Phase.RETREATED, Phase.ROLLING_BACK) if out == body.get("phase")), Phase.PENDING),
        attempt=Attempt(id=name, **nothing_else) if isinstance(name, str) else None,
    )


def _count(value: object) -> int:
    return max(value, 0) if isinstance(value, int) else 0


def parse_status(body: dict[str, Any]) -> Status:
    """Read a status as the API server returned it.

    Raises: msgspec.ValidationError: something that Serin did not write.
    """
    status = msgspec.convert(body, Status, strict=False)
    if status.phase in ACTIVE and (status.attempt is None or not status.attempt.plan):
        raise msgspec.ValidationError(f"phase is {status.phase}, and there is no attempt with a plan")
    return status


def render_status(status: Status) -> dict[str, Any]:
    """The status as the API server takes it."""
    rendered = msgspec.to_builtins(status)
    if not isinstance(rendered, dict):  # pragma: no cover - a Struct always renders as a mapping
        raise TypeError("a status renders as a mapping")
    return rendered
