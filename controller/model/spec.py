"""What people write: Canary, Decision, MetricsSource. What the controller writes is in `status.py` and `record.py`.

These models are the schema: `crd.py` generates `manifests/crd` from them, and a test fails on drift.
Every string, list and number is bounded, so that no object can grow beyond what the API server
and the loop can carry. Unknown fields are an error.
"""

from __future__ import annotations

import math
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
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict

from controller.model.durations import PATTERN, parse_duration, render_duration

GROUP = "serin.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

Name = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
ServiceName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$")]
WORD = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
Word = Annotated[str, Field(min_length=1, max_length=63, pattern=WORD)]
Fraction = Annotated[float, Field(ge=0, le=1)]


def _to_duration(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


def within(low: str, high: str) -> AfterValidator:
    def check(value: timedelta) -> timedelta:
        if not parse_duration(low) <= value <= parse_duration(high):
            raise ValueError(f"{render_duration(value)} is outside {low} to {high}")
        return value

    return AfterValidator(check)


def bounded(low: float, high: float) -> JsonDict:
    """The same bounds as a rule: of a whole number the API server cuts bounds to whole numbers too, and takes 0."""
    rule: JsonDict = {
        "rule": f"self >= {low} && self <= {float(high)}",
        "message": f"write a number from {low:g} to {high:g}",
    }
    return {"x-kubernetes-validations": [rule]}


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


USUAL_THRESHOLD = timedelta(milliseconds=250)
"""where neither the Canary says one nor stable's past does"""


class LatencyRule(Model):
    """Requests slower than `threshold` of all requests; a bound of the histogram, unless that is a native one.

    Without it the bounds are chosen from stable's past before each rollout; 250 ms where there is none. `also` are
    further bounds that are compared at once, since a slowdown shows at the bounds that it crosses. They share the
    metric's margin and its part of the promise.
    """

    template: Word = "gateway"
    threshold: Latency | None = None
    also: Annotated[tuple[Latency, ...], Field(max_length=5)] = ()

    @property
    def shown(self) -> timedelta:
        """The bound that is shown of all."""
        return self.threshold or USUAL_THRESHOLD

    @property
    def bounds(self) -> tuple[timedelta, ...]:
        """All of them, rising, each once."""
        return tuple(sorted({self.shown, *self.also}))


class GaugeRule(Model):
    """A value of each pod, such as its memory. It advises: the rollout holds, and nothing is rolled back for it.

    The mean over the canary's pods may be `times` that of stable's; above that for `lasts` without a break, it holds.
    """

    template: Word = "memory"
    times: Annotated[float, Field(ge=1, le=100)] = 1.2
    lasts: Annotated[timedelta, *duration, within("10s", "1h"), duration_schema("10s", "1h")] = timedelta(minutes=5)
    per_request: Annotated[
        bool, Field(description="divide by the pod's requests a second, as the template pods counts them")
    ] = False


KINDS_OF_METRIC = "write exactly one of errorRatio, latency and gauge"
GAUGE_HAS_NO_OBJECTIVE = "an objective is for errorRatio and latency: a gauge has gauge.times"


class Metric(Model):
    """One guardrail: it must not get worse than stable by more than `margin`, a fraction of requests."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "[has(self.errorRatio), has(self.latency), has(self.gauge)].exists_one(kind, kind)",
                    "message": KINDS_OF_METRIC,
                },
                {"rule": "!has(self.gauge) || !has(self.objective)", "message": GAUGE_HAS_NO_OBJECTIVE},
            ]
        }
    )

    name: Word
    error_ratio: ErrorRatio | None = None
    latency: LatencyRule | None = None
    gauge: GaugeRule | None = None
    margin: Fraction = 0.0001
    objective: Annotated[
        float | None,
        Field(ge=0, le=1, description="largest bad ratio that is fine at all: while stable is above it nothing rises"),
    ] = None

    @model_validator(mode="after")
    def _one_kind(self) -> Metric:
        if sum(kind is not None for kind in (self.error_ratio, self.latency, self.gauge)) != 1:
            raise ValueError(f"metric {self.name}: {KINDS_OF_METRIC}")
        if self.gauge is not None and self.objective is not None:
            raise ValueError(f"metric {self.name}: {GAUGE_HAS_NO_OBJECTIVE}")
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


class Baseline(Model):
    """What the canary is compared with: stable at full traffic, or with `fresh` pods of stable's template.

    These are made with the canary's, get as much traffic and go with them: for services that take minutes to warm up.
    """

    fresh: Annotated[
        bool, Field(description="compare with pods of stable's template that are as young as the canary's")
    ] = False

    def share(self, weight: float) -> float:
        """Percent of requests for the fresh pods while the canary has `weight`: as many, at most half of the rest.

        >>> [Baseline(fresh=True).share(weight) for weight in (0.0, 5.0, 33.33, 50.0, 99.0)]
        [0.0, 5.0, 33.33, 25.0, 0.5]
        """
        return min(weight, math.floor((100 - weight) * 50 + 1e-6) / 100) if self.fresh else 0.0


SOMETHING_COUNTED = "analysis.metrics: needs an errorRatio or a latency: gauges only advise"


class Analysis(Model):
    """How canary and stable are compared. The promise: `falseRollbackRate` holds for the whole rollout."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "!has(self.metrics) || self.metrics.exists(metric, !has(metric.gauge))",
                    "message": SOMETHING_COUNTED,
                }
            ]
        }
    )

    source: Name = "default"
    false_rollback_rate: Annotated[float, Field(ge=0.0001, le=0.2, json_schema_extra=bounded(0.0001, 0.2))] = 0.01
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
        Field(
            ge=0.005,
            le=1,
            description="evidence believed a second: 0.025 for noisy services, 0.1 for quiet ones",
            json_schema_extra=bounded(0.005, 1),
        ),
    ] = 0.05
    hold_back: Annotated[
        float, Field(ge=1, le=5, description="percent that stays on stable through a step at 100, to compare with")
    ] = 1.0
    baseline: Baseline = Field(default_factory=Baseline)
    metrics: Annotated[tuple[Metric, ...], Field(min_length=1, max_length=10)] = Field(default_factory=default_metrics)

    @model_validator(mode="after")
    def _names_differ(self) -> Analysis:
        names = [metric.name for metric in self.metrics]
        if len(set(names)) != len(names):
            raise ValueError(f"analysis.metrics: every name must be used once, found {', '.join(names)}")
        if not self.counted:
            raise ValueError(SOMETHING_COUNTED)
        return self

    @property
    def counted(self) -> tuple[Metric, ...]:
        """Those that are judged: requests and bad requests on both arms."""
        return tuple(metric for metric in self.metrics if metric.gauge is None)

    @property
    def advising(self) -> tuple[Metric, ...]:
        """The gauges."""
        return tuple(metric for metric in self.metrics if metric.gauge is not None)


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
    OVERRIDE = "Override"
    """one Freeze does not hold this attempt until it expires; gates and every other Freeze do"""
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
                    "rule": "!(self.decision in ['BreakGlass', 'Override', 'Permit']) || has(self.expiresAt)",
                    "message": "a BreakGlass, an Override and a Permit name their end, spec.expiresAt: "
                    "kubectl canary writes it for you",
                },
                {
                    "rule": "(self.decision == 'Permit') == (self.permits != '')",
                    "message": "a Permit names what it is for, spec.permits, such as Deployment/checkout; "
                    "nothing else does",
                },
                {
                    "rule": "self.decision == 'Thaw' ? has(self.freeze) && self.canary == '' && self.attempt == '' : "
                    "has(self.freeze) == (self.decision == 'Override') && self.canary != '' && "
                    "(self.attempt != '' || self.decision == 'Permit')",
                    "message": "name the Canary and the attempt this is about, with decision Override the freeze too, "
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


class BasicAuth(Model):
    """A name and its password (RFC 7617), each in a Secret."""

    username: SecretRef
    password: SecretRef


KINDS_OF_CREDENTIALS = "write exactly one of bearerToken and basicAuth"


class Credentials(Model):
    """Who asks, sent only to the URL of this object."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {"rule": "has(self.bearerToken) != has(self.basicAuth)", "message": KINDS_OF_CREDENTIALS}
            ]
        }
    )

    bearer_token: SecretRef | None = None
    basic_auth: BasicAuth | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Credentials:
        if (self.bearer_token is None) == (self.basic_auth is None):
            raise ValueError(KINDS_OF_CREDENTIALS)
        return self


OWN_HEADERS = ("authorization", "connection", "content-length", "content-type", "host", "transfer-encoding")
"""what the client writes itself, or what belongs into `credentials`: lower case"""
HEADER_TAKEN = f"{', '.join(OWN_HEADERS)}: not for spec.headers; who asks is told in spec.credentials"


def _check_header(name: str) -> str:
    if name.lower() in OWN_HEADERS:
        raise ValueError(HEADER_TAKEN)
    return name


HEADER = r"^[-_A-Za-z0-9]+$"
HeaderName = Annotated[str, Field(min_length=1, max_length=63, pattern=HEADER), AfterValidator(_check_header)]
HeaderValue = Annotated[str, Field(max_length=1024, pattern=r"^[!-~]([ -~]*[!-~])?$")]


class Template(Model):
    """Queries for one way to see traffic: each is one selector of a counter, without function or range.

    Label values may hold `$namespace`, `$port`, `$canary` (the Canary's name), and what differs between
    canary and stable: `$service`, `$deployment`, `$arm` (`canary` or `stable`); each query needs
    `$namespace` and one of those three. Raw samples are differenced per series. `latency` selects the
    buckets of a classic histogram, whose `le` is in `latencyUnit`, or with `native` a native histogram.
    """

    requests: Annotated[str, Field(min_length=1, max_length=1024)]
    errors: Annotated[str, Field(min_length=1, max_length=1024)]
    latency: Annotated[str, Field(max_length=1024)] = ""
    latency_unit: Literal["ms", "s"] = "s"
    native: Annotated[bool, Field(description="latency is a native histogram: any threshold will do")] = False
    pod_label: Annotated[str, Field(max_length=63, pattern=r"^([a-zA-Z_][a-zA-Z0-9_]*)?$")] = ""


class GaugeTemplate(Model):
    """A query for one value of each pod: one selector, as in a template; several series of a pod are added up."""

    value: Annotated[str, Field(min_length=1, max_length=1024)]
    counter: Annotated[bool, Field(description="it only rises: its increase a second is the value")] = False
    limit: Annotated[
        str, Field(max_length=1024, description="selector of another value of each pod, which the value is divided by")
    ] = ""
    pod_label: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")] = "pod"


class MetricsSourceSpec(Model):
    """A Prometheus-compatible server: its address and credentials belong to the platform team."""

    url: Annotated[str, Field(min_length=8, max_length=2048, pattern=r"^https?://[^\s@]+$")]
    tls: Tls = Field(default_factory=Tls)
    credentials: Credentials | None = None
    headers: Annotated[
        dict[HeaderName, HeaderValue],
        Field(
            max_length=20,
            description="sent with each query, such as X-Scope-OrgID: names a tenant, and is no place for a secret",
        ),
    ] = Field(default_factory=dict)
    namespaces: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=63)], ...],
        Field(max_length=256, description="namespaces whose Canaries may use this source; empty means all"),
    ] = ()
    scrape_interval: Annotated[timedelta, *duration, within("1s", "5m"), duration_schema("1s", "5m")] = timedelta(
        seconds=15
    )
    timeout: Annotated[timedelta, *duration, within("1s", "30s"), duration_schema("1s", "30s")] = timedelta(seconds=5)
    templates: Annotated[dict[Word, Template], Field(max_length=20)] = Field(default_factory=dict)
    gauges: Annotated[dict[Word, GaugeTemplate], Field(max_length=20)] = Field(default_factory=dict)


def parse_canary_spec(body: dict[str, Any]) -> CanarySpec:
    """Parse a Canary's spec.

    Raises: pydantic.ValidationError: names every field at fault.
    """
    return CanarySpec.model_validate(body)


EVERY_VERSION = {"source", "false_rollback_rate", "min_requests", "warmup", "no_data_timeout"}
"""what no version of Serin needs to be told how to read"""


def render_analysis(analysis: Analysis) -> dict[str, Any]:
    """An analysis as a status remembers it: its numbers, and of what later versions added only what was asked for.

    So an older controller that takes the rollout over meets a field it does not know only where that field matters.

    >>> render_analysis(Analysis())["metrics"]
    [{'name': 'errors', 'errorRatio': {}, 'margin': 0.0001}, {'name': 'latency', 'latency': {}, 'margin': 0.01}]
    """
    asked = analysis.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    numbers = analysis.model_dump(mode="json", by_alias=True, include=EVERY_VERSION)
    metrics = [
        metric.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
        | {"margin": metric.margin}
        for metric in analysis.metrics
    ]
    return asked | numbers | {"metrics": metrics}


def read_analysis(remembered: dict[str, Any]) -> tuple[Analysis | None, tuple[str, ...]]:
    """What `render_analysis` of any version wrote: what of it can be carried out here, and the fields that cannot.

    A metric with anything unknown in it is left out as a whole. None where nothing is left that could judge.

    >>> kept, unknown = read_analysis({"mood": "calm", "minRequests": 7, "metrics": [{"name": "a", "errorRatio": {}}]})
    >>> kept.min_requests, unknown
    (7, ('analysis.mood',))
    >>> read_analysis({"mood": "calm", "metrics": None})
    (None, ('analysis.metrics',))
    """
    plain = remembered
    if not isinstance(plain.get("metrics", []), list):
        return None, ("analysis.metrics",)
    unknown: list[str] = []
    while True:
        try:
            return Analysis.model_validate(plain), tuple(unknown)
        except ValidationError as error:
            places = [one["loc"] for one in error.errors()]
        metrics = {place[1] for place in places if len(place) > 1 and place[0] == "metrics"}
        fields = {place[0] for place in places if place and place[0] != "metrics"} & plain.keys()
        if not metrics and not fields:
            return None, (*unknown, "analysis.metrics")
        unknown += [f"analysis.{'.'.join(map(str, place))}" for place in places if len(place) > 1 or place[0] in fields]
        kept = [one for index, one in enumerate(plain.get("metrics", [])) if index not in metrics]
        plain = {name: value for name, value in plain.items() if name not in fields} | {"metrics": kept}


def field_problems(error: ValidationError) -> list[str]:
    """What is wrong with a spec, a line for each field."""
    return [
        f"spec.{'.'.join(str(part) for part in one['loc'])}: {one['msg'].removeprefix('Value error, ')}"
        for one in error.errors()
    ]
