"""What a ReleaseRecord holds: everything that was so in one rollout, for whoever asks years later.

The same plain values as in the status, so that nothing is said twice. Set fields never change, lists grow at their
end, an outcome seals it: admission sees to that, and `chain.py` to what admission could not prevent.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from controller.model.chain import GROWING
from controller.model.evidence import Evidence
from controller.model.guarded import Clamp, FreezeSeen, Gate, PlanStep, Touched
from controller.model.status import Course, Judged, Short, StepSeen, Text
from controller.model.value import Value

Name = Annotated[str, Meta(min_length=1, max_length=253)]
Hash = Annotated[str, Meta(max_length=128)]
Images = Annotated[tuple[Annotated[str, Meta(max_length=512)], ...], Meta(max_length=40)]
Number = Annotated[int, Meta(ge=0)]


class OriginSeen(Value, frozen=True):
    """Who or what wrote the change: what an annotation claims, how well it is proven, and how it is treated."""

    claimed: Annotated[str, Meta(max_length=20)] = ""
    treated: Annotated[str, Meta(max_length=20)] = ""
    trust: Annotated[str, Meta(max_length=4)] = ""
    degree: Annotated[str, Meta(max_length=20)] = ""


class Said(Value, frozen=True):
    """A person's decision, and what came of it."""

    at: datetime
    decision: Annotated[str, Meta(max_length=20)]
    by: Annotated[str, Meta(max_length=256)]
    answer: Text
    taken: bool = False
    step: Number = 0
    reason: Text = ""
    groups: Annotated[tuple[Annotated[str, Meta(max_length=256)], ...], Meta(max_length=100)] = ()
    expires_at: datetime | None = None


class ReleaseRecordSpec(Value, frozen=True):
    """What happened in one rollout. Set fields never change, lists only grow, an outcome seals it."""

    canary: Name
    canary_uid: Annotated[str, Meta(max_length=64)]
    attempt: Annotated[str, Meta(min_length=1, max_length=63)]
    started_at: datetime
    template_hash: Annotated[str, Meta(max_length=64)]
    number: Number = 0
    """its place in the chain of this Canary's records, from 1"""
    previous: Hash = ""
    """hash of the record before it"""
    stable_hash: Annotated[str, Meta(max_length=64)] = ""
    images: Images = ()
    stable_images: Images = ()
    origin: OriginSeen = OriginSeen()
    evidence: Evidence | None = None
    """what was known of its origin when it began: tools and models, digests of prompts, people's edits, who answers"""
    classes: Annotated[tuple[Touched, ...], Meta(max_length=9)] = ()
    """what kind of change it was, and the places in the template that show it"""
    authors: Annotated[tuple[Annotated[str, Meta(max_length=256)], ...], Meta(max_length=100)] = ()
    """who could not approve it"""
    policies: Annotated[tuple[Annotated[str, Meta(max_length=300)], ...], Meta(max_length=40)] = ()
    """every policy that applied when it began, and as which version"""
    clamps: Annotated[tuple[Clamp, ...], Meta(max_length=40)] = ()
    """what they changed, and by which rule"""
    plan: Annotated[tuple[PlanStep, ...], Meta(max_length=60)] = ()
    """the steps, as policies left them"""
    gates: Annotated[tuple[Gate, ...], Meta(max_length=200)] = ()
    """who had to agree, before which step"""
    plan_digest: Hash = ""
    steps: Annotated[tuple[StepSeen, ...], Meta(max_length=GROWING["steps"])] = ()
    verdicts: Annotated[tuple[Judged, ...], Meta(max_length=GROWING["verdicts"])] = ()
    retreats: Annotated[tuple[Judged, ...], Meta(max_length=GROWING["retreats"])] = ()
    decisions: Annotated[tuple[Said, ...], Meta(max_length=GROWING["decisions"])] = ()
    """also those that were refused"""
    freezes: Annotated[tuple[FreezeSeen, ...], Meta(max_length=GROWING["freezes"])] = ()
    """those it met, and when it was free of them"""
    glass_broken: bool | None = None
    """somebody used break-glass: approvals and freezes were passed over"""
    outcome: Short | None = None
    message: Text | None = None
    finished_at: datetime | None = None
    first_bad_at: datetime | None = None
    """first sample that spoke against it, where one did"""
    seconds_to_relief: Annotated[float, Meta(ge=0)] | None = None
    """from that sample to all traffic on stable"""
    canary_requests: Number | None = None
    canary_errors: Number | None = None
    courses: Annotated[tuple[Course, ...], Meta(max_length=4)] | None = None
    """how the differences went, thinned, where anything was compared"""
    judged: Judged | None = None
    """the last verdict"""
    hash: Hash | None = None
    """seals it: of everything above"""
