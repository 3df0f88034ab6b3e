"""What guardrails come to, as plain values: the status remembers them, `decide` carries them out."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta

from controller.model.evidence import NO_EVIDENCE, Degree, Evidence, Origin, Trust
from controller.model.policy import ChangeClass, OnStart
from controller.model.value import Value

Short = Annotated[str, Meta(max_length=63)]
Text = Annotated[str, Meta(max_length=1024)]
Count = Annotated[int, Meta(ge=0)]
RuleName = Annotated[str, Meta(max_length=128)]
"""`policy/rule`; `spec` for what the Canary itself says"""


class Touched(Value, frozen=True):
    """A class of change, and the places that show it."""

    name: ChangeClass
    paths: Annotated[tuple[Text, ...], Meta(max_length=10)] = ()


class PlanStep(Value, frozen=True):
    """One step of the plan as it was when the attempt began."""

    weight: Annotated[float, Meta(ge=0, le=100)]
    bake: Annotated[float, Meta(ge=0)]
    """seconds"""
    approval: bool = False
    """some gate stands on the way out of it"""
    rule: RuleName = ""
    """which rule put it there or changed it; empty where it is as the Canary says"""


class Gate(Value, frozen=True):
    """People who have to agree before a rollout leaves a step; step 0 is before the first request."""

    step: Count
    count: Annotated[int, Meta(ge=1)] = 1
    """distinct people"""
    groups: Annotated[tuple[Annotated[str, Meta(max_length=256)], ...], Meta(max_length=10)] = ()
    """each of them must be in one of these; empty: the right to approve is enough"""
    rule: RuleName = "spec"
    why: Text = ""
    """what made it stricter than the rule says by itself"""


class Clamp(Value, frozen=True):
    """A field that a rule changed."""

    field: Short
    wrote: Short
    got: Short
    rule: RuleName
    enforced: bool = True
    """False for a policy that only observes"""


class FreezeSeen(Value, frozen=True):
    """A freeze that a rollout met."""

    name: Annotated[str, Meta(max_length=253)]
    uid: Annotated[str, Meta(max_length=64)]
    on_start: OnStart
    message: Text
    at: datetime
    ended: bool = False
    """the rollout is free of it from here on; an entry of its own, since what is recorded only grows"""


@dataclass(frozen=True)
class Frozen:
    """The strictest freeze in force for a candidate or rollout now."""

    name: str
    uid: str
    on_start: OnStart
    message: str
    since: datetime | None = None
    """when it began, so that what was under way is known; None: nobody can tell"""
    until: datetime | None = None
    """None: until somebody thaws it, or nobody can tell"""


@dataclass(frozen=True)
class Ruling:
    """What the policies make of a candidate: the plan it will be released by, or why it will not be."""

    plan: tuple[PlanStep, ...]
    gates: tuple[Gate, ...]
    analysis: dict[str, Any]
    no_data: Literal["Hold", "RollBack"]
    origin: Origin
    degree: Degree
    trust: Trust
    digest: str
    """of all that a person agrees to by approving"""
    evidence: Evidence = NO_EVIDENCE
    classes: tuple[Touched, ...] = ()
    authors: tuple[str, ...] = ()
    """names that may not approve, in lower case"""
    policies: tuple[str, ...] = ()
    """`name@generation` of each that selects the Canary"""
    clamps: tuple[Clamp, ...] = ()
    refusals: tuple[str, ...] = field(default=())
    """why it is not released, a line each; the first word is the CamelCase reason"""
