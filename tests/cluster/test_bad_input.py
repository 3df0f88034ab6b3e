"""What is missing, wrong or too late: each finding names field, what was found and what to write.

Nothing moves meanwhile, `kubectl canary status` shows it on its first line, and correcting it is enough.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.cluster.objects import (
    CommandFailed,
    Object,
    apply,
    eventually,
    get,
    kubectl,
    refusal,
    shop_deployment,
    shop_route,
    shop_service,
)
from tests.cluster.serin import (
    StartStory,
    Story,
    canary_object,
    label_without_processes,
    plugin,
    serin,
    start,
    start_shop,
    step,
)

__all__ = ["serin", "start"]

SPEC = {"steps": [step(50)]}


def metric(template: str) -> Object:
    return {"name": "errors", "errorRatio": {"template": template}}


def patch(kind: str, name: str, namespace: str, body: object) -> None:
    kubectl("patch", kind, name, "-n", namespace, "--type=merge", "-p", json.dumps(body))


@dataclass(frozen=True)
class Flaw:
    """One thing that is wrong from the start, and how its owner corrects it."""

    reason: str
    says: tuple[str, ...]
    """field, finding and fix, as the message must name them"""
    spoil: Callable[[str], object] = lambda namespace: None
    mend: Callable[[str], object] = lambda namespace: None
    spec: dict[str, Any] | None = None


FLAWS = {
    "the target is missing": Flaw(
        "TargetMissing",
        ("spec.targetRef", "Deployment shop does not exist", "create it"),
        # Its pods go first: what is there afterwards is what has to stay.
        spoil=lambda ns: kubectl("delete", "deployment", "shop", "-n", ns, "--cascade=foreground", "--wait"),
        mend=lambda ns: apply([shop_deployment("shop", ns, "v1")]),
    ),
    "the Service is missing": Flaw(
        "ServiceMissing",
        ("spec.traffic.service.name", "no Service shop", "create it"),
        spoil=lambda ns: kubectl("delete", "service", "shop", "-n", ns),
        mend=lambda ns: apply([shop_service("shop", ns)]),
    ),
    "the route is missing": Flaw(
        "RouteMissing",
        ("spec.traffic.httpRoute", "shop", "create it"),
        spoil=lambda ns: kubectl("delete", "httproute", "shop", "-n", ns),
        mend=lambda ns: apply([shop_route("shop", ns)]),
    ),
    "the route sends elsewhere": Flaw(
        "RouteNotForService",
        ("spec.traffic.service", "sends to other", "backendRefs"),
        spoil=lambda ns: apply([shop_service("other", ns, {"app": "other"}), shop_route("shop", ns, "", {"other": 1})]),
        mend=lambda ns: apply([shop_route("shop", ns)]),
    ),
    "another controller owns the route": Flaw(
        "RouteOwned",
        ("spec.traffic.httpRoute", "ServiceAccount default", "name an HTTPRoute"),
        spoil=lambda ns: patch("httproute", "shop", ns, {"metadata": {"ownerReferences": [owner_of(ns)]}}),
        mend=lambda ns: patch("httproute", "shop", ns, {"metadata": {"ownerReferences": None}}),
    ),
    "the source is missing": Flaw(
        "SourceMissing",
        ("analysis.source", "default", "nowhere"),
        mend=lambda ns: patch("canary", "shop", ns, {"spec": {"analysis": {"source": "default"}}}),
        spec={"analysis": {"source": "nowhere", "metrics": [metric("gateway")]}},
    ),
    "the metric template is unknown": Flaw(
        "TemplateMissing",
        ("analysis.metrics[0].errorRatio.template", "gatevay", "gateway"),
        mend=lambda ns: patch("canary", "shop", ns, {"spec": {"analysis": {"metrics": [metric("gateway")]}}}),
        spec={"analysis": {"metrics": [metric("gatevay")]}},
    ),
    "the target is paused by its owner": Flaw(
        "TargetPaused",
        ("spec.paused of Deployment shop", "is true", "kubectl rollout resume deployment/shop"),
        spoil=lambda ns: kubectl("rollout", "pause", "deployment/shop", "-n", ns),
        mend=lambda ns: kubectl("rollout", "resume", "deployment/shop", "-n", ns),
    ),
    "the Service selects nothing": Flaw(
        "ServiceSelectsNothing",
        ("spec.traffic.service.name", "app=shopp", "write labels of its pods"),
        spoil=lambda ns: patch("service", "shop", ns, {"spec": {"selector": {"app": "shopp"}}}),
        mend=lambda ns: patch("service", "shop", ns, {"spec": {"selector": {"app": "shop"}}}),
    ),
    "the Service selects another app's pods": Flaw(
        "ServiceSelectsOthers",
        ("spec.traffic.service.name", "that are not of Deployment shop", "add a label"),
        spoil=lambda ns: share_label(ns, "shop"),
        mend=lambda ns: patch("service", "shop", ns, {"spec": {"selector": {"app": "shop", "part": None}}}),
    ),
    "a second Service on the same pods cannot be pinned": Flaw(
        "ServiceSelectsOthers",
        ("spec.selector of Service both", "that are not of Deployment shop", "add a label"),
        spoil=lambda ns: share_label(ns, "both"),
        mend=lambda ns: kubectl("delete", "service", "both", "-n", ns),
    ),
}


def owner_of(namespace: str) -> Object:
    """Any object does that exists: the garbage collector deletes what belongs to one that does not."""
    uid = get("serviceaccount", "default", namespace)["metadata"]["uid"]
    return {"apiVersion": "v1", "kind": "ServiceAccount", "name": "default", "uid": uid, "controller": True}


def share_label(namespace: str, service: str) -> None:
    """Another app whose pods this Service selects beside those of the target."""
    shop, other = shop_deployment("shop", namespace), shop_deployment("other", namespace, replicas=1)
    for each in (shop, other):
        each["spec"]["template"]["metadata"]["labels"]["part"] = "front"
    apply([shop, other, shop_service(service, namespace, {"part": "front"})])
    for name in ("shop", "other"):
        kubectl("rollout", "status", f"deployment/{name}", "-n", namespace, "--timeout=180s")


def pods_that_stay(namespace: str) -> set[str]:
    """Uids of the pods; those that a roll is still ending are left out."""
    found = get("pods", "", namespace)["items"]
    return {one["metadata"]["uid"] for one in found if "deletionTimestamp" not in one["metadata"]}


@pytest.mark.parametrize("flaw", [pytest.param(flaw, id=name) for name, flaw in FLAWS.items()])
def test_a_flaw_is_named_with_its_fix_and_mending_it_is_enough(serin: None, namespace: str, flaw: Flaw) -> None:
    label_without_processes(namespace)
    story = start_shop(namespace)
    flaw.spoil(namespace)
    before = pods_that_stay(namespace)

    apply([canary_object(namespace, **SPEC | (flaw.spec or {}))])

    found = story.until_reason(flaw.reason)
    for words in flaw.says:
        assert words in found["message"]
    accepted = next(one for one in found["conditions"] if one["type"] == "Accepted")
    assert (accepted["status"], accepted["reason"]) == ("False", flaw.reason)
    first_line = story.say("status").text.splitlines()[0]
    assert first_line.startswith("NOT ACCEPTED")
    assert flaw.says[0] in first_line
    assert pods_that_stay(namespace) == before

    flaw.mend(namespace)
    story.until_held()
    story.until(lambda status: {c["type"]: c["status"] for c in status["conditions"]}["Accepted"] == "True")


def test_what_breaks_at_rest_keeps_a_held_edit_waiting_until_it_is_mended(start: StartStory) -> None:
    story = start(step(50, "1h"), processes=False)
    patch("service", "shop", story.namespace, {"spec": {"selector": {"app": "shopp"}}})
    story.edit("v2")

    found = story.until_reason("ServiceSelectsNothing")
    assert found["phase"] == "Idle"
    assert story.say("status").text.startswith("NOT ACCEPTED")
    assert story.deployment()["spec"]["paused"]
    assert story.revisions() == {"v1"}

    patch("service", "shop", story.namespace, {"spec": {"selector": {"app": "shop"}}})
    story.until_weight(50)


def test_of_two_canaries_on_one_target_the_older_releases_and_the_younger_says_so(start: StartStory) -> None:
    story = start(step(50), processes=False)
    second = canary_object(story.namespace, [step(50)])
    second["metadata"]["name"] = "twin"
    apply([second])

    twin = Story(story.namespace, "twin")
    found = twin.until_reason("Conflict")
    assert "spec.targetRef.name: Deployment shop is released by Canary shop" in found["message"]
    assert "delete one" in found["message"]
    assert story.status()["phase"] == "Idle"

    kubectl("delete", "canary", "shop", "-n", story.namespace)
    twin.until_held()


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        pytest.param({"steps": [step(20), step(10)]}, "must be greater than the one before", id="weights fall"),
        pytest.param({"steps": [step(20), step(20)]}, "must be greater than the one before", id="weights stay"),
        pytest.param({"steps": [step(101)]}, "from 0.01 to 100", id="above 100"),
        pytest.param({"steps": [step(0.001)]}, "from 0.01 to 100", id="below 0.01"),
        pytest.param({"steps": [step(5, "soon")]}, "write a duration from 1s to 168h", id="no duration"),
        pytest.param({"stepz": []}, "stepz", id="unknown field"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_when_it_is_written(
    serin: None, namespace: str, spec: Object, says: str
) -> None:
    body = canary_object(namespace, **{"steps": [step(5)]} | spec)
    with pytest.raises(CommandFailed, match=says) as refused:
        kubectl("create", "--validate=strict", "-f", "-", stdin=body)
    assert "spec" in str(refused.value)


def decision(story: Story, **spec: Any) -> Object:
    usual = {"canary": "shop", "decision": "Abort", "by": whoami(), "attempt": "x", "reason": "because"}
    return {
        "apiVersion": "serin.dev/v1alpha1",
        "kind": "Decision",
        "metadata": {"generateName": "said-", "namespace": story.namespace},
        "spec": usual | spec,
    }


def whoami() -> str:
    return str(json.loads(kubectl("auth", "whoami", "-o", "json"))["status"]["userInfo"]["username"])


def test_a_malformed_decision_is_refused_and_a_late_one_is_answered_without_effect(start: StartStory) -> None:
    story = start(step(50, "1h"), processes=False)
    story.edit("v2")
    story.until_weight(50)
    present = story.attempt()["id"]

    for spec, says in (
        ({"decision": "Explode"}, "spec.decision"),
        ({"attempt": ""}, "name the Canary and the attempt"),
        ({"decision": "Approve"}, "names its step"),
        ({"by": "somebody-else"}, "by"),
    ):
        with pytest.raises(CommandFailed, match=says):
            kubectl("create", "-f", "-", stdin=decision(story, **spec))
    kubectl("create", "-f", "-", stdin=decision(story, attempt="20200101-000000"))

    found = story.until(lambda status: status.get("decisions"))
    (answer,) = found["decisions"]
    assert not answer.get("taken")
    assert f"spoke about attempt 20200101-000000; the present one is {present}" in answer["answer"]
    assert (found["phase"], found["weight"]) == ("Progressing", 50)
    late = story.decide("abort", "--attempt", "20200101-000000")
    assert late.code != 0
    assert present in late.text


def test_what_carries_a_rollout_is_not_changed_under_it_and_at_rest_it_may_be(start: StartStory) -> None:
    story = start(step(50, "1h"), processes=False)
    other = json.dumps({"spec": {"traffic": {"httpRoute": {"name": "other"}}}})
    move = ("patch", "canary", "shop", "-n", story.namespace, "--type=merge", "--dry-run=server", "-p", other)
    story.edit("v2")
    story.until_weight(50)

    under_way = refusal(*move)
    patch("canary", "shop", story.namespace, {"spec": {"analysis": {"minRequests": 30}}})
    assert story.decide("abort").code == 0
    story.until_ended()

    assert "spec.traffic: a rollout is under way through it (Progressing)" in under_way
    assert f"kubectl canary abort shop -n {story.namespace}" in under_way
    eventually(lambda: kubectl(*move))


def test_one_poisoned_object_never_stops_the_others(start: StartStory) -> None:
    """A Canary whose metrics share a name passes the rules of its kind, and is found out by the controller."""
    namespace = start.namespace
    label_without_processes(namespace)
    twice = {"analysis": {"metrics": [metric("gateway"), metric("gateway")]}}
    start_shop(namespace, 1, "poisoned")
    apply([canary_object(namespace, [step(5)], "poisoned", **twice)])
    story = start(step(50, "1h"), processes=False)
    story.edit("v2")
    story.until_weight(50)

    def refused() -> bool:
        found = get("canary", "poisoned", namespace)["status"]
        return found["reason"] == "InvalidSpec" and "analysis" in found["message"]

    eventually(refused)
    assert plugin("list", "-n", namespace).code == 0
