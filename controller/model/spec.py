"""What people write: Canary, Decision, MetricsSource. What the controller writes is in `status.py` and `record.py`.

These models are the schema: `crd.py` generates `manifests/crd` from them, and a test fails on drift.
Every string, list and number is bounded, so that no object can grow beyond what the API server
and the loop can carry. Unknown fields are an error.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel

from controller.model.durations import PATTERN, parse_duration, render_duration

GROUP = "serin.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

Name = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
ServiceName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$")]
Word = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
Fraction = Annotated[float, Field(ge=0, le=1)]


def _to_duration(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


def within(low: str, high: str) -> AfterValidator:
    def check(value: timedelta) -> timedelta:
        if not parse_duration(low) <= value <= parse_duration(high):
            raise ValueError(f"{render_duration(value)} is outside {low} to {high}")
        return value

    return AfterValidator(check)


def duration_schema(low: str, high: str) -> WithJsonSchema:
    return WithJsonSchema(
        {
            "type": "string",
            "minLength": 2,
            "maxLength": 20,
            # The pattern is in the rule and not beside it, so that a bad duration meets our message alone.
            "x-kubernetes-validations": [
                {
                    "rule": f"self != '' && self.matches('{PATTERN}') && "
                    f"duration(self) >= duration('{low}') && duration(self) <= duration('{high}')",
                    "message": f"write a duration from {low} to {high}, for example 90s, 5m or 1h",
                }
            ],
        }
    )


duration = (BeforeValidator(_to_duration), PlainSerializer(render_duration, return_type=str))
Bake = Annotated[timedelta, *duration, within("1s", "168h"), duration_schema("1s", "168h")]
Timeout = Annotated[timedelta, *duration, within("1s", "24h"), duration_schema("1s", "24h")]
Latency = Annotated[timedelta, *duration, within("1ms", "10m"), duration_schema("1ms", "10m")]


class Model(BaseModel):
    """Camel case outside, snake case inside, nothing unknown, nothing changed after parsing."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, allow_inf_nan=False
    )


class TargetRef(Model):
    """The workload whose revisions are held back and released. It stays the stable one."""

    kind: Literal["Deployment"] = "Deployment"
    name: Name


class ServiceRef(Model):
    """The Service that clients and the route name."""

    name: ServiceName
    port: Annotated[int, Field(ge=1, le=65535)]


class RouteRef(Model):
    """The route that splits live traffic."""

    name: Name


class Traffic(Model):
    """Which Service carries the traffic, and the router that splits it: exactly one."""

    service: ServiceRef
    http_route: RouteRef


class Approval(Model):
    """The way out of this step stays shut until an `Approve` names this attempt and this step."""


def _check_weight(value: float) -> float:
    if abs(value * 100 - round(value * 100)) > 1e-9:
        raise ValueError(f"{value} has more than two decimals: write a percent such as 0.01, 5 or 33.33")
    return round(value, 2)


class Step(Model):
    """A weight, the least time it is held, and what must hold before the next."""

    weight: Annotated[
        float,
        Field(
            ge=0.01,
            le=100,
            json_schema_extra={
                "x-kubernetes-validations": [
                    {
                        "rule": "self >= 0.01 && self <= 100.0 && "
                        "self * 100.0 - double(int(self * 100.0 + 0.5)) < 0.000001 && "
                        "self * 100.0 - double(int(self * 100.0 + 0.5)) > -0.000001",
                        "message": "write a percent with at most two decimals, from 0.01 to 100",
                    }
                ]
            },
        ),
        AfterValidator(_check_weight),
    ]
    bake: Bake = timedelta(minutes=5)
    approval: Approval | None = None


class ErrorRatio(Model):
    """Failed requests of all requests, from a template of the source."""

    template: Word = "gateway"


class LatencyRule(Model):
    """Requests slower than `threshold` of all requests; the threshold must be a histogram bound."""

    template: Word = "gateway"
    threshold: Latency = timedelta(milliseconds=250)


class Metric(Model):
    """One guardrail: it must not get worse than stable by more than `margin`, a fraction of requests."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "has(self.errorRatio) != has(self.latency)",
                    "message": "write exactly one of errorRatio and latency",
                }
            ]
        }
    )

    name: Word
    error_ratio: ErrorRatio | None = None
    latency: LatencyRule | None = None
    margin: Fraction = 0.0001
    objective: Annotated[
        float | None,
        Field(ge=0, le=1, description="largest bad ratio that is fine at all: while stable is above it nothing rises"),
    ] = None

    @model_validator(mode="after")
    def _one_kind(self) -> Metric:
        if (self.error_ratio is None) == (self.latency is None):
            raise ValueError(f"metric {self.name}: write exactly one of errorRatio and latency")
        return self


def default_metrics() -> tuple[Metric, ...]:
    """Error ratio and latency of the gateway: what every HTTP service has."""
    return (
        Metric(name="errors", error_ratio=ErrorRatio()),
        Metric(name="latency", latency=LatencyRule(), margin=0.01),
    )


def default_steps() -> tuple[Step, ...]:
    """1, 5, 25, 50 %."""
    return tuple(Step(weight=weight) for weight in (1, 5, 25, 50))


class Analysis(Model):
    """How canary and stable are compared. The promise: `falseRollbackRate` holds for the whole rollout."""

    source: Name = "default"
    false_rollback_rate: Annotated[float, Field(ge=0.0001, le=0.2)] = 0.01
    min_requests: Annotated[int, Field(ge=0, le=100_000_000)] = 100
    warmup: Annotated[timedelta, *duration, within("0s", "1h"), duration_schema("0s", "1h")] = timedelta(seconds=30)
    no_data_timeout: Timeout = timedelta(minutes=5)
    on_trip: Annotated[
        Literal["confirm", "rollback"],
        Field(description="confirm on fresh pods what took the canary off traffic, or roll back at once"),
    ] = "confirm"
    on_inconclusive: Annotated[
        Literal["hold", "advance"],
        Field(description="what the last step does without the certificate that the canary is not worse"),
    ] = "hold"
    advance: Annotated[
        Literal["baked", "early"],
        Field(description="early lets a step end before its bake once every metric is certified"),
    ] = "baked"
    refill: Annotated[
        float,
        Field(ge=0.005, le=1, description="evidence believed a second: 0.025 for noisy services, 0.1 for quiet ones"),
    ] = 0.05
    hold_back: Annotated[
        float, Field(ge=1, le=5, description="percent that stays on stable through a step at 100, to compare with")
    ] = 1.0
    metrics: Annotated[tuple[Metric, ...], Field(min_length=1, max_length=10)] = Field(default_factory=default_metrics)

    @model_validator(mode="after")
    def _names_differ(self) -> Analysis:
        names = [metric.name for metric in self.metrics]
        if len(set(names)) != len(names):
            raise ValueError(f"analysis.metrics: every name must be used once, found {', '.join(names)}")
        return self


class CanarySpec(Model):
    """The standing instruction: how one workload is released."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "self.targetRef == oldSelf.targetRef",
                    "message": "targetRef cannot change: delete this Canary and create another for the other workload",
                },
                {
                    "rule": "!has(self.steps) || (self.steps.map(s, s.weight).isSorted() && "
                    "self.steps.all(s, self.steps.exists_one(t, t.weight == s.weight)))",
                    "message": "steps: each weight must be greater than the one before it",
                },
            ]
        }
    )

    target_ref: TargetRef
    traffic: Traffic
    steps: Annotated[tuple[Step, ...], Field(min_length=1, max_length=20)] = Field(default_factory=default_steps)
    analysis: Analysis = Field(default_factory=Analysis)
    progress_deadline: Timeout = timedelta(minutes=10)

    @model_validator(mode="after")
    def _weights_rise(self) -> CanarySpec:
        for number, (low, high) in enumerate(zip(self.steps, self.steps[1:], strict=False), start=2):
            if high.weight <= low.weight:
                raise ValueError(
                    f"steps[{number - 1}].weight: {high.weight:g} does not rise from {low.weight:g}; "
                    "each weight must be greater than the one before it"
                )
        return self


class Verb(StrEnum):
    """What one person may say about one rollout. Abort wins over everything."""

    APPROVE = "Approve"
    REJECT = "Reject"
    ABORT = "Abort"
    PROMOTE = "Promote"
    RETRY = "Retry"
    PAUSE = "Pause"
    RESUME = "Resume"
    BREAK_GLASS = "BreakGlass"
    """approvals and freezes are passed over until it expires; a failing verdict is not"""
    PERMIT = "Permit"
    """one destructive act of whoever writes it, on something that carries users, until it expires"""
    THAW = "Thaw"
    """one of the two owners' words that take a Freeze off; names the Freeze and no Canary"""


class FreezeRef(Model):
    """One Freeze: by its uid, since another of the same name may follow it."""

    name: Name
    uid: Annotated[str, Field(min_length=1, max_length=64)]


PERMITTED = r"^((Deployment|Service|PersistentVolumeClaim|ConfigMap|Secret)/[a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$"
"""what a Permit may be for: `Kind/name`"""


class DecisionSpec(Model):
    """What one person says about one rollout or Freeze: immutable; `by` is checked against the request's user."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {"rule": "self == oldSelf", "message": "a Decision cannot be changed: write another one"},
                {
                    "rule": "self.decision != 'Approve' || has(self.step)",
                    "message": "an Approve names its step, counted from 1, or 0 before the first request: "
                    "use kubectl canary approve",
                },
                {
                    "rule": "!(self.decision in ['BreakGlass', 'Permit']) || has(self.expiresAt)",
                    "message": "a BreakGlass and a Permit name their end, spec.expiresAt: "
                    "kubectl canary writes it for you",
                },
                {
                    "rule": "(self.decision == 'Permit') == (self.permits != '')",
                    "message": "a Permit names what it is for, spec.permits, such as Deployment/checkout; "
                    "nothing else does",
                },
                {
                    "rule": "self.decision == 'Thaw' ? has(self.freeze) && self.canary == '' && self.attempt == '' : "
                    "!has(self.freeze) && self.canary != '' && (self.attempt != '' || self.decision == 'Permit')",
                    "message": "name the Canary and the attempt this is about, "
                    "or with decision Thaw the freeze and nothing else",
                },
            ]
        }
    )

    canary: Annotated[str, Field(max_length=253, pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$")] = ""
    decision: Verb
    freeze: FreezeRef | None = None
    by: Annotated[str, Field(min_length=1, max_length=256)]
    groups: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=256)], ...],
        Field(
            max_length=100,
            description="groups of whoever decides, so that a right held through one is found again",
        ),
    ] = ()
    attempt: Annotated[str, Field(max_length=63)] = ""
    permits: Annotated[str, Field(max_length=300, pattern=PERMITTED)] = ""
    step: Annotated[int, Field(ge=0, le=60)] | None = None
    digest: Annotated[str, Field(max_length=512)] = ""
    plan_digest: Annotated[str, Field(max_length=128)] = ""
    expires_at: Annotated[
        datetime | None, Field(description="from then on it stands for nothing; an Abort, Reject or Pause stays taken")
    ] = None
    reason: Annotated[str, Field(min_length=1, max_length=1024)]


class SecretRef(Model):
    """A Secret in Serin's own namespace, and one of its keys."""

    name: Name
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]


class Tls(Model):
    """How the server proves itself."""

    ca: Annotated[str, Field(max_length=65536)] = ""
    server_name: Annotated[str, Field(max_length=253)] = ""


class Credentials(Model):
    """A bearer token, sent only to the URL of this object."""

    bearer_token: SecretRef


class Template(Model):
    """Queries for one way to see traffic: each is one selector of a counter, without function or range.

    Label values may hold `$namespace`, `$port`, `$canary` (the Canary's name), and what differs between
    canary and stable: `$service`, `$deployment`, `$arm` (`canary` or `stable`); each query needs
    `$namespace` and one of those three. Raw samples are differenced per series. `latency` selects the
    buckets of a classic histogram, whose `le` is in `latencyUnit`.
    """

    requests: Annotated[str, Field(min_length=1, max_length=1024)]
    errors: Annotated[str, Field(min_length=1, max_length=1024)]
    latency: Annotated[str, Field(max_length=1024)] = ""
    latency_unit: Literal["ms", "s"] = "s"
    pod_label: Annotated[str, Field(max_length=63)] = ""


class MetricsSourceSpec(Model):
    """A Prometheus-compatible server: its address and credentials belong to the platform team."""

    url: Annotated[str, Field(min_length=8, max_length=2048, pattern=r"^https?://[^\s@]+$")]
    tls: Tls = Field(default_factory=Tls)
    credentials: Credentials | None = None
    namespaces: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=63)], ...],
        Field(max_length=256, description="namespaces whose Canaries may use this source; empty means all"),
    ] = ()
    scrape_interval: Annotated[timedelta, *duration, within("1s", "5m"), duration_schema("1s", "5m")] = timedelta(
        seconds=15
    )
    timeout: Annotated[timedelta, *duration, within("1s", "30s"), duration_schema("1s", "30s")] = timedelta(seconds=5)
    templates: Annotated[dict[Word, Template], Field(max_length=20)] = Field(default_factory=dict)


def parse_canary_spec(body: dict[str, Any]) -> CanarySpec:
    """Parse a Canary's spec.

    Raises: pydantic.ValidationError: names every field at fault.
    """
    return CanarySpec.model_validate(body)
