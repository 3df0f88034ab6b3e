"""What the platform team and whoever is on call write: ReleasePolicy and Freeze. The schema, like `spec.py`.

The one thing to know: everything in a rule can only tighten, and a rule meant for one origin is meant for every
worse one too (`when.origin: mixed` is mixed, unknown and ai), so no policy can treat an AI's change more laxly than
the same change by a person. Selectors name namespaces rather than labels where nobody may get around them: labels of
a Canary belong to whoever may edit it.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, model_validator

from controller.model.spec import Bake, Model, Name, ServiceName, Word, bounded, duration, duration_schema, within


class ChangeClass(StrEnum):
    """What a change of a pod template touches."""

    IMAGE = "image"
    CONFIG = "config"
    RESOURCES = "resources"
    SCALE = "scale"
    AUTH = "auth"
    SCHEMA = "schema"
    INFRA = "infra"
    DESTRUCTIVE = "destructive"
    IRREVERSIBLE = "irreversible"


class OnStart(StrEnum):
    """What a freeze does to a rollout that is under way when it begins."""

    HOLD = "Hold"
    """no raise; analysis and rollback go on"""
    ROLL_BACK = "RollBack"
    """all traffic to stable"""
    FINISH = "Finish"
    """what runs may finish; nothing new begins"""


Pattern = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9*]([-a-z0-9]*[a-z0-9*])?$")]
LABEL_KEY = r"^[-._/a-zA-Z0-9]+$"
LabelKey = Annotated[str, Field(min_length=1, max_length=63, pattern=LABEL_KEY)]
LabelValue = Annotated[str, Field(max_length=63)]
Group = Annotated[str, Field(min_length=1, max_length=256)]
PredicateType = Annotated[str, Field(min_length=1, max_length=256)]
OriginFrom = Literal["human", "automation", "mixed", "ai"]
Criticality = Literal["low", "medium", "high"]
MaxAge = Annotated[timedelta, *duration, within("1m", "8760h"), duration_schema("1m", "8760h")]
Window = Annotated[timedelta, *duration, within("1m", "768h"), duration_schema("1m", "768h")]


class Where(Model):
    """Which Canaries are meant; what is left out narrows nothing."""

    namespaces: Annotated[
        tuple[Pattern, ...], Field(max_length=100, description="names, or beginnings that end with *; empty: all")
    ] = ()
    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=20, description="labels of the Canary")] = Field(
        default_factory=dict
    )


class When(Model):
    """Which changes a rule is about; all that is written must hold."""

    origin: Annotated[
        OriginFrom | None, Field(description="this origin or a worse one; unknown counts as ai: nobody vouches for it")
    ] = None
    degree: Annotated[
        Literal["assisted", "generated", "autonomous"] | None,
        Field(description="this degree or a higher one; unsaid counts as autonomous"),
    ] = None
    trust_below: Annotated[Literal["T1", "T2", "T3"] | None, Field(description="proven less well than this")] = None
    classes: Annotated[tuple[ChangeClass, ...], Field(max_length=9, description="touches at least one of these")] = ()
    criticality: Annotated[
        Criticality | None,
        Field(description="label serin.dev/criticality of the Canary, this or higher; without the label: high"),
    ] = None


class Approvals(Model):
    """People who have to agree, and at which gate."""

    before: Annotated[
        Literal["Start", "EveryStep", "Release"],
        Field(description="Start: before the first request; EveryStep: out of each step; Release: out of its last"),
    ] = "Start"
    count: Annotated[int, Field(ge=1, le=5, description="distinct people, authors and prompters not counted")] = 1
    groups: Annotated[
        tuple[Group, ...], Field(max_length=10, description="each must be in one of these; empty: the verb is enough")
    ] = ()


class PassedIn(Model):
    """An earlier environment of this cluster that must have promoted the same image digests."""

    namespace: ServiceName
    canary: Annotated[Name | None, Field(description="default: the same name")] = None


class Rule(Model):
    """What a kind of change must meet. Each field can only tighten what the Canary says."""

    name: Word
    when: When = Field(default_factory=When)
    max_first_weight: Annotated[
        float | None, Field(ge=0.01, le=100, description="percent", json_schema_extra=bounded(0.01, 100))
    ] = None
    max_jump: Annotated[
        float | None, Field(ge=5, le=100, description="percentage points between two steps, the release among them")
    ] = None
    min_bake: Bake | None = None
    min_requests: Annotated[int | None, Field(ge=0, le=100_000_000)] = None
    false_rollback_rate: Annotated[
        float | None,
        Field(
            ge=0.0001,
            le=0.2,
            description="at least this: a higher rate rolls back on less evidence",
            json_schema_extra=bounded(0.0001, 0.2),
        ),
    ] = None
    no_data: Annotated[Literal["Hold", "RollBack"] | None, Field(description="after analysis.noDataTimeout")] = None
    approvals: Approvals | None = None
    evidence: Annotated[
        tuple[PredicateType, ...], Field(max_length=10, description="predicate types that a signer must vouch for")
    ] = ()
    accountable: Annotated[bool, Field(description="the change must name who answers for it")] = False
    passed_in: PassedIn | None = None
    forbid: Annotated[
        tuple[Annotated[tuple[ChangeClass, ...], Field(min_length=2, max_length=9)], ...],
        Field(max_length=10, description="classes that may not come in one rollout"),
    ] = ()
    refuse: Annotated[bool, Field(description="never released while this rule stands")] = False


class Person(Model):
    """One person under all names: as the API server knows them, and as commits and statements name them."""

    user: Annotated[str, Field(min_length=1, max_length=256)]
    ids: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=256)], ...],
        Field(max_length=20, description="e-mail addresses and logins"),
    ] = ()


class Signer(Model):
    """Who may vouch for an image: a public key, or an identity at an issuer (Sigstore)."""

    model_config = Model.model_config | {
        "json_schema_extra": {
            "x-kubernetes-validations": [
                {
                    "rule": "(has(self.publicKey) && self.publicKey != '') != "
                    "(has(self.issuer) && self.issuer != '' && has(self.identity) && self.identity != '')",
                    "message": "write either publicKey, or issuer and identity",
                }
            ]
        }
    }

    name: Word
    public_key: Annotated[str, Field(max_length=4096, description="PEM: ECDSA P-256 or Ed25519")] = ""
    issuer: Annotated[str, Field(max_length=512)] = ""
    identity: Annotated[str, Field(max_length=512)] = ""
    source_repository: Annotated[str, Field(max_length=512)] = ""
    predicate_types: Annotated[
        tuple[PredicateType, ...], Field(max_length=20, description="what it may vouch for; empty: change-origin only")
    ] = ()
    max_age: MaxAge | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Signer:
        if bool(self.public_key) == bool(self.issuer and self.identity):
            raise ValueError(f"signer {self.name}: write either publicKey, or issuer and identity")
        return self


class ReleasePolicySpec(Model):
    """Guardrails for the Canaries it selects. Several policies combine: the strictest of each field."""

    selector: Where = Field(default_factory=Where)
    mode: Annotated[
        Literal["Enforce", "Observe"], Field(description="Observe: what it would have done is recorded, nothing more")
    ] = "Enforce"
    human_from: Annotated[
        Literal["T1", "T2", "T3"],
        Field(description="the least proof with which its rules believe a better origin than unknown"),
    ] = "T3"
    rules: Annotated[tuple[Rule, ...], Field(max_length=30)] = ()
    people: Annotated[tuple[Person, ...], Field(max_length=500)] = ()
    email_is_username: Annotated[bool, Field(description="the API server knows people by their e-mail address")] = False
    signers: Annotated[
        tuple[Signer, ...], Field(max_length=20, description="who is believed, by every policy that selects the Canary")
    ] = ()

    @model_validator(mode="after")
    def _names_differ(self) -> ReleasePolicySpec:
        for what, names in (("rules", self.rules), ("signers", self.signers)):
            found = [one.name for one in names]
            if len(set(found)) != len(found):
                raise ValueError(f"{what}: every name must be used once, found {', '.join(found)}")
        return self


class FreezeSpec(Model):
    """A time without releases. With neither schedule nor start it is a kill switch: it holds until it is thawed."""

    model_config = Model.model_config | {
        "json_schema_extra": {
            "x-kubernetes-validations": [
                {
                    "rule": "self == oldSelf",
                    "message": "a Freeze cannot be changed: create another one, "
                    "and take this one off with `kubectl canary thaw`",
                },
                {
                    "rule": "(has(self.schedule) && self.schedule != '') == has(self.duration) && "
                    "(has(self.schedule) && self.schedule != '') == (has(self.timeZone) && self.timeZone != '')",
                    "message": "schedule, duration and timeZone belong together: "
                    "for example '0 18 * * FRI', 62h and Europe/Berlin",
                },
                {
                    "rule": "has(self.start) == has(self.end) && (!has(self.start) || "
                    "(self.start < self.end && (!has(self.schedule) || self.schedule == '')))",
                    "message": "write start and end, end after start, and no schedule beside them",
                },
                {
                    "rule": "!has(self.schedule) || !self.schedule.contains('TZ=')",
                    "message": "schedule: write the zone in timeZone, not as TZ= in the schedule",
                },
            ]
        }
    }

    reason: Annotated[str, Field(min_length=1, max_length=1024)]
    by: Annotated[str, Field(max_length=256, description="who engaged it: the request's own user, or left out")] = ""
    schedule: Annotated[str, Field(max_length=100, description="cron, five fields: when it begins")] = ""
    duration: Window | None = None
    time_zone: Annotated[str, Field(max_length=64, description="IANA name, such as Europe/Berlin")] = ""
    start: AwareDatetime | None = None
    end: AwareDatetime | None = None
    selector: Where = Field(default_factory=Where)
    exceptions: Annotated[tuple[Where, ...], Field(max_length=20)] = ()
    origin: Annotated[
        OriginFrom | None, Field(description="only changes of this origin or a worse one; unknown counts as ai")
    ] = None
    classes: Annotated[tuple[ChangeClass, ...], Field(max_length=9, description="only changes that touch these")] = ()
    tools: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=256)], ...],
        Field(max_length=20, description="only changes by these tools, and changes whose tools nobody proved"),
    ] = ()
    on_start: OnStart = OnStart.HOLD

    @model_validator(mode="after")
    def _when(self) -> FreezeSpec:
        if bool(self.schedule) != (self.duration is not None) or bool(self.schedule) != bool(self.time_zone):
            raise ValueError("schedule, duration and timeZone belong together: for example 0 18 * * FRI, 62h, UTC")
        if (self.start is None) != (self.end is None) or (self.start and self.schedule):
            raise ValueError("write start and end, and no schedule beside them")
        if self.start and self.end and self.end <= self.start:
            raise ValueError(f"end: {self.end.isoformat()} is not after start, {self.start.isoformat()}")
        return self


def parse_policy_spec(body: dict[str, Any]) -> ReleasePolicySpec:
    """Parse a ReleasePolicy's spec.

    Raises: pydantic.ValidationError: names every field at fault.
    """
    return ReleasePolicySpec.model_validate(body)


def parse_freeze_spec(body: dict[str, Any]) -> FreezeSpec:
    """Parse a Freeze's spec.

    Raises: pydantic.ValidationError: names every field at fault.
    """
    return FreezeSpec.model_validate(body)
