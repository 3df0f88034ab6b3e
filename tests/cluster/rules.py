"""One object for each rule of `manifests/crd` that breaks this rule and no other: what the API server must refuse.

The one thing to know: `tests/unit/model/test_crd.py` compares this table with the rules there are, so a rule nobody
broke fails without a cluster; `tests/cluster/test_crd.py` sends each object and reads what the user reads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

Spec = dict[str, Any]

TEN_LINES: Spec = {
    "targetRef": {"name": "checkout"},
    "traffic": {"service": {"name": "checkout", "port": 80}, "httpRoute": {"name": "checkout"}},
}
COUNTED: Spec = {"name": "errors", "errorRatio": {}}
MEMORY: Spec = {"name": "memory", "gauge": {}}
SAID: Spec = {"canary": "checkout", "by": "$user", "attempt": "a1", "reason": "seen it"}
PAST: Spec = {"reason": "over", "start": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z"}
WEEKEND: Spec = {"reason": "weekend", "schedule": "0 18 * * FRI", "duration": "62h", "timeZone": "Europe/Berlin"}
SOURCE: Spec = {"url": "http://prometheus.example:9090"}
SIGNER: Spec = {"name": "ci", "publicKey": "-----BEGIN PUBLIC KEY-----"}
SELECTOR: Spec = {"requests": "a", "errors": "b"}


@dataclass(frozen=True)
class Broken:
    """An object that breaks one rule."""

    kind: str
    place: str
    """of the rule in the schema: `spec.steps[].bake`; empty for the object as a whole"""
    says: str
    """how the rule's message begins"""
    spec: Spec
    name: str = "broken"
    was: Spec = field(default_factory=dict)
    """what was there before, for a rule about changes"""

    @property
    def field(self) -> str:
        """A pattern for the field that the refusal must name."""
        parts = (re.escape(part) for part in re.split(r"\[\]", self.place))
        return r"\[\d+\]".join(parts)

    def body(self, namespace: str, user: str, spec: Spec | None = None) -> dict[str, Any]:
        """The object as it is sent by `user`."""
        wanted = self.spec if spec is None else spec
        place = {"namespace": namespace} if self.kind in {"Canary", "Decision"} else {}
        return {
            "apiVersion": "serin.dev/v1alpha1",
            "kind": self.kind,
            "metadata": {"name": f"{namespace}-{self.name}" if not place else self.name} | place,
            "spec": {key: user if value == "$user" else value for key, value in wanted.items()},
        }


def canary(place: str, says: str, name: str = "broken", **spec: Any) -> Broken:
    return Broken("Canary", place, says, TEN_LINES | spec, name)


def metric(place: str, says: str, **one: Any) -> Broken:
    """Of two metrics the first is sound."""
    return canary(place, says, analysis={"metrics": [COUNTED, {"name": "other"} | one]})


def decision(says: str, decision: str, **spec: Any) -> Broken:
    return Broken("Decision", "spec", says, SAID | {"decision": decision} | spec)


APPROVE: Spec = SAID | {"decision": "Approve", "step": 1}

BROKEN = (
    canary("", "metadata.name: write at most 56", name="a" * 57),
    canary("", "metadata.name: write at most 54", name="a" * 55, analysis={"baseline": {"fresh": True}}),
    Broken(
        "Canary", "spec", "targetRef cannot change", TEN_LINES | {"targetRef": {"name": "other"}}, was=TEN_LINES
    ),
    canary("spec", "steps: each weight must be greater", steps=[{"weight": 10}, {"weight": 5}]),
    canary("spec.steps[].weight", "write a percent with at most two decimals", steps=[{"weight": 0.015}]),
    canary("spec.steps[].bake", "write a duration from 1s to 168h", steps=[{"weight": 5, "bake": "5 minutes"}]),
    canary("spec.progressDeadline", "write a duration from 1s to 24h", progressDeadline="25h"),
    canary("spec.analysis.warmup", "write a duration from 0s to 1h", analysis={"warmup": "61m"}),
    canary("spec.analysis.noDataTimeout", "write a duration from 1s to 24h", analysis={"noDataTimeout": "0s"}),
    canary("spec.analysis", "analysis.metrics: needs an errorRatio", analysis={"metrics": [MEMORY]}),
    metric("spec.analysis.metrics[]", "write exactly one of errorRatio", errorRatio={}, latency={}),
    metric("spec.analysis.metrics[]", "an objective is for errorRatio", gauge={}, objective=0.1),
    metric("spec.analysis.metrics[].latency.threshold", "write a duration from 1ms", latency={"threshold": "11m"}),
    metric("spec.analysis.metrics[].latency.also[]", "write a duration from 1ms", latency={"also": ["0.1"]}),
    metric("spec.analysis.metrics[].gauge.lasts", "write a duration from 10s", gauge={"lasts": "9s"}),
    Broken("Decision", "spec", "a Decision cannot be changed", APPROVE | {"reason": "changed my mind"}, was=APPROVE),
    decision("an Approve names its step", "Approve"),
    decision("a BreakGlass, an Override and a Permit name their end", "BreakGlass"),
    decision("a Permit names what it is for", "Permit", expiresAt="2020-01-01T00:00:00Z"),
    decision("name the Canary and the attempt", "Abort", attempt=""),
    Broken("Freeze", "spec", "a Freeze cannot be changed", PAST | {"reason": "not yet over"}, was=PAST),
    Broken("Freeze", "spec", "schedule, duration and timeZone belong", {"reason": "x", "schedule": "0 18 * * FRI"}),
    Broken("Freeze", "spec", "write start and end", PAST | {"end": "2019-01-01T00:00:00Z"}),
    Broken("Freeze", "spec", "schedule: write the zone in timeZone", WEEKEND | {"schedule": "TZ=UTC 0 18 * * FRI"}),
    Broken("Freeze", "spec.duration", "write a duration from 1m to 768h", WEEKEND | {"duration": "30s"}),
    Broken("Freeze", "spec.selector.labels", "write label keys", PAST | {"selector": {"labels": {"a b": "c"}}}),
    Broken("Freeze", "spec.exceptions[].labels", "write label keys", PAST | {"exceptions": [{"labels": {"é": "c"}}]}),
    Broken("MetricsSource", "spec.scrapeInterval", "write a duration from 1s to", SOURCE | {"scrapeInterval": "10m"}),
    Broken("MetricsSource", "spec.timeout", "write a duration from 1s to 30s", SOURCE | {"timeout": "1m"}),
    Broken("MetricsSource", "spec.credentials", "write exactly one of bearerToken", SOURCE | {"credentials": {}}),
    Broken("MetricsSource", "spec.headers", "write header names of", SOURCE | {"headers": {"X Tenant": "a"}}),
    Broken("MetricsSource", "", "authorization, connection", SOURCE | {"headers": {"Authorization": "Bearer x"}}),
    Broken("MetricsSource", "spec.templates", "write names of a-z", SOURCE | {"templates": {"Bad Name": SELECTOR}}),
    Broken("MetricsSource", "spec.gauges", "write names of a-z", SOURCE | {"gauges": {"Heap": {"value": "x"}}}),
    Broken("ReleasePolicy", "spec.selector.labels", "write label keys", {"selector": {"labels": {"": "c"}}}),
    Broken(
        "ReleasePolicy", "spec.rules[].minBake", "write a duration from 1s", {"rules": [{"name": "r", "minBake": "1"}]}
    ),
    Broken(
        "ReleasePolicy", "spec.rules[].maxFirstWeight", "write a number from 0.01",
        {"rules": [{"name": "r", "maxFirstWeight": 0}]},
    ),
    Broken(
        "ReleasePolicy", "spec.rules[].falseRollbackRate", "write a number from 0.0001",
        {"rules": [{"name": "r", "falseRollbackRate": 0}]},
    ),
    Broken(
        "Canary", "spec.analysis.falseRollbackRate", "write a number from 0.0001",
        TEN_LINES | {"analysis": {"falseRollbackRate": 0}},
    ),
    Broken("Canary", "spec.analysis.refill", "write a number from 0.005", TEN_LINES | {"analysis": {"refill": 0}}),
    Broken("ReleasePolicy", "spec.signers[]", "write either publicKey", {"signers": [SIGNER | {"publicKey": ""}]}),
    Broken(
        "ReleasePolicy", "spec.signers[].maxAge", "write a duration", {"signers": [SIGNER | {"maxAge": "9000h"}]}
    ),
)  # fmt: skip

BY_ITSELF = {"status.leaderEpoch never falls": "test_a_leader_of_an_earlier_term_cannot_write"}
"""rules about what only the controller writes, and the test of `test_crd.py` that breaks them"""
