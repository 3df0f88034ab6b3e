"""What Serin understands of Deployments, and the exact patches it writes to them."""

import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller.model.spec import CanarySpec, parse_canary_spec
from controller.model.template import template_hash
from controller.ports import Ref
from controller.workloads.parse import attempt_of, parse_canary, parse_target
from controller.workloads.render import (
    attempt_of_baseline,
    baseline_of,
    canary_deployment,
    canary_service,
    forget_ops,
    probe_ops,
    release_ops,
    restore_ops,
    scale_ops,
    unchanged_ops,
)
from controller.workloads.services import matches

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
REF = Ref("shop", "checkout", "canary-uid")
V1 = {"metadata": {"labels": {"app": "checkout"}}, "spec": {"containers": [{"name": "app", "image": "shop:1"}]}}
V2 = {"metadata": {"labels": {"app": "checkout"}}, "spec": {"containers": [{"name": "app", "image": "shop:2"}]}}


def spec(**changes: Any) -> CanarySpec:
    traffic = {"service": {"name": "checkout", "port": 80}, "httpRoute": {"name": "checkout"}}
    return parse_canary_spec({"targetRef": {"name": "checkout"}, "traffic": traffic} | changes)


def deployment(template: dict[str, Any] = V1, *, status: dict[str, Any] | None = None, **wanted: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "checkout",
            "namespace": "shop",
            "uid": "target-uid",
            "generation": 3,
            "resourceVersion": "70",
        },
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "checkout"}}, "template": template} | wanted,
        "status": {"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}
        | (status or {}),
    }


def replicaset(template: dict[str, Any], suffix: str, pods: int, *, available: int | None = None) -> dict[str, Any]:
    labelled = copy.deepcopy(template)
    labelled["metadata"]["labels"]["pod-template-hash"] = suffix
    count = {"replicas": pods, "readyReplicas": pods, "availableReplicas": pods if available is None else available}
    return {
        "metadata": {
            "name": f"checkout-{suffix}",
            "labels": labelled["metadata"]["labels"],
            "ownerReferences": [{"uid": "target-uid", "controller": True}],
        },
        "spec": {"replicas": pods, "template": labelled},
        "status": count,
    }


def canary(**changes: Any) -> dict[str, Any]:
    body = canary_deployment(
        REF, spec(), deployment(), V2, name="checkout-canary", attempt="a1", replicas=2, epoch="4.1", now=NOON
    )
    body["metadata"] |= {"resourceVersion": "9", "uid": "canary-deployment-uid"}
    return body | changes


def pod(name: str, *, ready: bool = True, state: dict[str, Any] | None = None, **container: Any) -> dict[str, Any]:
    statuses = [{"name": "app", "ready": ready, "state": state or {"running": {}}} | container]
    return {
        "metadata": {"name": name, "creationTimestamp": "2026-11-21T11:59:00Z"},
        "status": {
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "containerStatuses": statuses,
        },
    }


def target_of(body: dict[str, Any], *replicasets: dict[str, Any], stable: str = "", candidate: str = "") -> Any:
    return parse_target(body, replicasets, spec(), stable_hash=stable, candidate=candidate)


def test_one_revision_with_all_pods_available_is_settled() -> None:
    seen = target_of(deployment(), replicaset(V1, "aaa", 2), replicaset(V2, "bbb", 0))
    assert seen.settled_hash == "aaa"
    assert seen.settled_template == V1
    assert seen.settled_template_hash == template_hash(V1) == seen.template_hash
    assert seen.roll_complete


def test_what_nodes_say_they_run_is_told_by_the_name_in_the_template() -> None:
    """The first pod's image was pulled by its name, the second's lay on the node."""
    pods = [pod("one", imageID="mirror.example/shop@sha256:2"), pod("two", imageID="sha256:of-its-configuration")]

    seen = parse_canary(canary(), pods, [], owner=REF.uid, now=NOON)

    assert seen.running == (("shop:2", "sha256:2"),)


def test_a_held_edit_leaves_the_stable_revision_settled() -> None:
    seen = target_of(deployment(V2, paused=True, status={"updatedReplicas": 0}), replicaset(V1, "aaa", 2), stable="aaa")
    assert (seen.settled_hash, seen.settled_images, seen.images) == ("aaa", ("shop:1",), ("shop:2",))
    assert (seen.stable_ready, seen.roll_complete) == (2, False)


@pytest.mark.parametrize(
    ("body", "replicasets"),
    [
        (deployment(status={"observedGeneration": 2}), [replicaset(V1, "aaa", 2)]),
        (deployment(), [replicaset(V1, "aaa", 2), replicaset(V2, "bbb", 1)]),
        (deployment(), [replicaset(V1, "aaa", 2, available=1)]),
        (deployment(replicas=3), [replicaset(V1, "aaa", 2)]),
        (deployment(V2), [replicaset(V1, "aaa", 2)]),
        (deployment(), []),
    ],
    ids=["not observed", "two revisions", "one unavailable", "scaling up", "roll about to begin", "no pods"],
)
def test_nothing_is_settled_while_pods_move(body: dict[str, Any], replicasets: list[dict[str, Any]]) -> None:
    assert target_of(body, *replicasets).settled_hash == ""


def test_pods_of_another_revision_than_stable_are_seen_whether_there_or_asked_for() -> None:
    stable, gone, asked = replicaset(V1, "aaa", 2), replicaset(V2, "bbb", 0), replicaset(V2, "bbb", 0)
    asked["spec"]["replicas"] = 1

    for beside, strays in ((gone, False), (replicaset(V2, "bbb", 1), True), (asked, True)):
        assert target_of(deployment(V2, paused=True), stable, beside, stable="aaa").strays is strays
    assert not target_of(deployment(V2), stable, replicaset(V2, "bbb", 1)).strays, "before adoption none is stable"


@pytest.mark.parametrize(
    ("stable", "old", "new", "gone"),
    [("aaa", 0, 2, True), ("aaa", 1, 1, False), ("aaa", 0, 0, False), ("bbb", 0, 2, False), ("", 0, 2, False)],
    ids=["all rolled", "in the middle", "no pods at all", "stable is what runs", "nothing is stable yet"],
)
def test_a_service_pinned_to_a_stable_that_no_pod_runs_would_reach_nobody(
    stable: str, old: int, new: int, gone: bool
) -> None:
    seen = target_of(deployment(V2), replicaset(V1, "aaa", old), replicaset(V2, "bbb", new), stable=stable)
    assert seen.runs_another is gone


def test_a_replicaset_of_somebody_else_under_the_same_labels_does_not_count() -> None:
    foreign = replicaset(V2, "bbb", 2)
    foreign["metadata"]["ownerReferences"] = [{"uid": "canary-deployment-uid", "controller": True}]
    assert target_of(deployment(), replicaset(V1, "aaa", 2), foreign).settled_hash == "aaa"


def test_a_deployment_scaled_to_zero_has_no_pods_and_no_stable_revision() -> None:
    seen = target_of(deployment(replicas=0), replicaset(V1, "aaa", 0))
    assert (seen.has_pods, seen.settled_hash) == (False, "")


def test_only_empty_replicasets_of_the_candidate_are_named_for_removal() -> None:
    held = deployment(V2, paused=True)
    old, again = replicaset(V1, "aaa", 2), replicaset(V2, "bbb", 0)
    other = replicaset({"metadata": {"labels": {"app": "checkout"}}, "spec": {"containers": []}}, "ccc", 0)
    seen = target_of(held, old, again, other, stable="aaa", candidate=template_hash(V2))
    assert seen.stale_replicasets == ("checkout-bbb",)
    assert target_of(held, old, again, other, stable="aaa").stale_replicasets == ()


def test_the_candidates_number_in_the_history_is_its_newest() -> None:
    old, again, before = replicaset(V1, "aaa", 2), replicaset(V2, "bbb", 0), replicaset(V2, "ccc", 0)
    for body, number in ((old, "9"), (again, "8"), (before, "5")):
        body["metadata"]["annotations"] = {"deployment.kubernetes.io/revision": number}

    found = target_of(deployment(V1), old, again, before, stable="aaa", candidate=template_hash(V2))

    assert found.candidate_revision == 8
    again["metadata"]["annotations"] = before["metadata"]["annotations"] = {"deployment.kubernetes.io/revision": "soon"}
    assert target_of(deployment(V1), again, before, candidate=template_hash(V2)).candidate_revision == 0


def test_who_wrote_the_template_last_is_known_whoever_scaled_it_or_reported_since() -> None:
    body, template = deployment(), {"f:spec": {"f:template": {"f:spec": {}}}}
    body["metadata"]["managedFields"] = [
        {"manager": "argocd-controller", "operation": "Apply", "time": "2026-11-21T11:00:00Z", "fieldsV1": template},
        {"manager": "kubectl-set", "operation": "Update", "time": "2026-11-21T10:00:00Z", "fieldsV1": template},
        {"manager": "hpa", "time": "2026-11-21T11:30:00Z", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
        {"manager": "kcm", "time": "2026-11-21T11:50:00Z", "fieldsV1": {"f:status": {}}, "subresource": "status"},
        {"manager": "odd"},
    ]

    assert target_of(body).applied_by == "argocd-controller"
    assert target_of(deployment()).applied_by == ""


def test_a_roll_past_its_deadline_says_why_unless_it_is_paused() -> None:
    condition = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}
    status = {"conditions": [condition]}
    assert target_of(deployment(V2, status=status)).roll_stuck == "ProgressDeadlineExceeded: timed out"
    assert target_of(deployment(V2, status=status, paused=True)).roll_stuck == ""


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({"paused": True}, "TargetPaused"),
        ({"revisionHistoryLimit": 0}, "NoRevisionHistory"),
        ({"strategy": {"type": "Recreate"}}, "RecreateNeedsFullStep"),
        (
            {"selector": {"matchExpressions": [{"key": "serin.dev/canary", "operator": "DoesNotExist"}]}},
            "LabelReserved",
        ),
    ],
)
def test_what_stands_in_the_way_of_adoption_is_named_with_its_field(wanted: dict[str, Any], reason: str) -> None:
    (problem,) = target_of(deployment(**wanted)).problems
    assert problem.startswith(f"{reason} spec.")


def test_after_adoption_a_paused_target_is_no_problem() -> None:
    assert target_of(deployment(paused=True), stable="aaa").problems == ()


def test_recreate_is_fine_when_the_canary_ends_at_full_weight() -> None:
    full = spec(steps=[{"weight": 10}, {"weight": 100}])
    body = deployment(strategy={"type": "Recreate"})
    assert parse_target(body, [], full, stable_hash="", candidate="").problems == ()


def test_the_canary_carries_the_attempt_in_selector_and_pods_and_belongs_to_its_canary() -> None:
    body = canary()
    assert body["metadata"]["name"] == "checkout-canary"
    assert body["spec"]["selector"] == {"matchLabels": {"app": "checkout", "serin.dev/canary": "a1"}}
    assert body["spec"]["template"]["metadata"]["labels"] == {"app": "checkout", "serin.dev/canary": "a1"}
    assert body["spec"]["template"]["spec"] == V2["spec"]
    (owner,) = body["metadata"]["ownerReferences"]
    assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == ("canary-uid", True, False)


def test_no_deployment_adopts_a_pod_of_the_fresh_baseline() -> None:
    """Selectors of one namespace: the target's own would take any pod that carries no attempt, and sees it has one."""
    trial = canary()
    fresh = canary_deployment(
        REF,
        spec(),
        deployment(),
        V1,
        name=REF.baseline_name,
        attempt=baseline_of("a1"),
        replicas=1,
        epoch="4.1",
        now=NOON,
    )
    pods = [one["spec"]["template"]["metadata"]["labels"] for one in (trial, fresh)]
    selectors = [one["spec"]["selector"]["matchLabels"] for one in (trial, fresh)]

    assert [[matches(selector, labels) for labels in pods] for selector in selectors] == [[True, False], [False, True]]
    assert fresh["metadata"]["name"] == "checkout-baseline"
    assert fresh["spec"]["template"]["spec"] == V1["spec"]
    assert attempt_of_baseline(attempt_of(fresh)) == "a1"


def test_the_canary_service_copies_what_routing_needs_and_nothing_that_claims_ownership() -> None:
    stable = {
        "metadata": {
            "annotations": {
                "projectcontour.io/upstream-protocol.h2c": "80",
                "meta.helm.sh/release-name": "shop",
                "kustomize.toolkit.fluxcd.io/ssa": "merge",
                "external-dns.alpha.kubernetes.io/hostname": "shop.example",
            }
        },
        "spec": {
            "type": "NodePort",
            "clusterIP": "10.0.0.9",
            "selector": {"app": "checkout", "pod-template-hash": "aaa"},
            "ports": [{"name": "http", "port": 80, "targetPort": "web", "appProtocol": "h2c", "nodePort": 30080}],
        },
    }
    body = canary_service(REF, deployment(), stable, name="checkout-canary", attempt="a1")
    assert body["metadata"]["annotations"] == {"projectcontour.io/upstream-protocol.h2c": "80"}
    assert body["spec"] == {
        "selector": {"app": "checkout", "serin.dev/canary": "a1"},
        "ports": [{"name": "http", "port": 80, "targetPort": "web", "appProtocol": "h2c"}],
    }


def test_a_canary_of_another_owner_is_not_seen_as_ours() -> None:
    assert not parse_canary(canary(), [], [], owner="another-uid", now=NOON).exists


def test_only_addresses_of_ready_canary_pods_count_as_endpoints() -> None:
    pods = [pod("c-1"), pod("c-2", ready=False)]
    endpoints = [{"addresses": [f"10.244.0.{n}"], "targetRef": {"name": f"c-{n}"}} for n in (1, 2, 3)]
    seen = parse_canary(canary(), pods, [{"endpoints": endpoints}], owner="canary-uid", now=NOON)
    assert (seen.attempt, seen.wanted, seen.ready, seen.endpoints) == ("a1", 2, 1, 1)
    assert seen.youngest_age == timedelta(minutes=1).total_seconds()


def test_the_ages_are_those_of_pods_that_are_ready_and_one_new_pod_does_not_make_four_young() -> None:
    ages = {"c-1": 600, "c-2": 20, "c-3": 500, "c-4": 400}
    pods = [pod(name) for name in ages] + [pod("c-5", ready=False)]
    for one, age in zip(pods, (*ages.values(), 5), strict=True):
        one["metadata"]["creationTimestamp"] = (NOON - timedelta(seconds=age)).isoformat()

    seen = parse_canary(canary(), pods, [], owner="canary-uid", now=NOON)

    assert seen.ages == (20.0, 400.0, 500.0, 600.0)
    assert (seen.youngest_age, seen.settled_age, seen.oldest_age) == (5.0, 400.0, 600.0)
    assert replace(seen, ages=(20.0, 400.0, 500.0)).settled_age == 20.0
    assert replace(seen, ages=()).settled_age == 5.0


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (pod("c", ready=False, state={"waiting": {"reason": "CrashLoopBackOff"}}), "CrashLoopBackOff"),
        (pod("c", ready=False, state={"waiting": {"reason": "ErrImagePull"}}), "ErrImagePull"),
        (pod("c", ready=False, state={"waiting": {"reason": "ImagePullBackOff"}}), "ImagePullBackOff"),
        (
            pod("c", ready=False, state={"waiting": {"reason": "CreateContainerConfigError"}}),
            "CreateContainerConfigError",
        ),
        (
            pod(
                "c",
                ready=False,
                state={"waiting": {"reason": "CrashLoopBackOff"}},
                lastState={"terminated": {"reason": "OOMKilled", "exitCode": 137}},
            ),
            "OOMKilled",
        ),
        (pod("c", ready=False, state={"waiting": {"reason": "ContainerCreating"}}), ""),
        (pod("c", lastState={"terminated": {"reason": "OOMKilled"}}), "OOMKilled"),
        (pod("c", restartCount=2, lastState={"terminated": {"reason": "Error", "exitCode": 1}}), ""),
        (pod("c", restartCount=3, lastState={"terminated": {"reason": "Error", "exitCode": 1}}), "ContainerRestarts"),
    ],
)
def test_trouble_of_a_pod_is_named_as_the_kubelet_names_it(broken: dict[str, Any], reason: str) -> None:
    assert parse_canary(canary(), [broken], [], owner="canary-uid", now=NOON).trouble == reason


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ('pods "c" is forbidden: exceeded quota: small, requested: pods=1', "QuotaExceeded"),
        ('pods "c" is forbidden: violates PodSecurity "restricted"', "FailedCreate"),
    ],
)
def test_pods_that_may_not_be_created_are_trouble_with_the_servers_message(message: str, reason: str) -> None:
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}
    seen = parse_canary(canary(status={"conditions": [failure]}), [], [], owner="canary-uid", now=NOON)
    assert (seen.trouble, seen.trouble_message) == (reason, message)


def test_a_patch_tests_the_version_and_the_epoch_that_were_read() -> None:
    assert unchanged_ops(canary()) == [
        {"op": "test", "path": "/metadata/resourceVersion", "value": "9"},
        {"op": "test", "path": "/metadata/annotations/serin.dev~1epoch", "value": "4.1"},
    ]


def test_a_release_without_a_stamp_takes_the_old_one_away() -> None:
    body = deployment(V2, paused=True)
    assert {"op": "remove", "path": "/metadata/annotations/serin.dev~1epoch"} not in release_ops(body, "")
    body["metadata"]["annotations"] = {"serin.dev/epoch": "4.1"}
    assert {"op": "remove", "path": "/metadata/annotations/serin.dev~1epoch"} in release_ops(body, "")


@pytest.mark.parametrize(("replicas", "asks"), [(1, False), (2, False), (3, True)])
def test_since_when_pods_are_asked_for_is_written_only_where_there_are_to_be_more(replicas: int, asks: bool) -> None:
    """Pods that stop being ready after the canary has shrunk are none that still start."""
    written = [one["path"] for one in scale_ops(canary(), replicas, "4.2", NOON)]

    assert "/metadata/annotations/serin.dev~1epoch" in written
    assert ("/metadata/annotations/serin.dev~1asked-at" in written) is asks


def scaled(body: dict[str, Any], *, ready: int, to: int, at: datetime) -> dict[str, Any]:
    """The canary with so many pods ready, after it was scaled at that moment."""
    after = copy.deepcopy(body) | {"status": {"readyReplicas": ready}}
    annotations = after["metadata"]["annotations"]
    for op in scale_ops(after, to, "4.2", at):
        name = op["path"].removeprefix("/metadata/annotations/").replace("~1", "/")
        if op["op"] == "remove":
            del annotations[name]
        elif name in {"serin.dev/asked-at", "serin.dev/asked-before"}:
            annotations[name] = op["value"]
    after["spec"]["replicas"] = to
    return after


def missing_since(body: dict[str, Any], ready: int) -> Any:
    names = [f"c-{number}" for number in range(ready)]
    endpoints = [{"addresses": ["10.244.0.1"], "targetRef": {"name": name}} for name in names]
    pods = [pod(name) for name in names]
    return parse_canary(body, pods, [{"endpoints": endpoints}], owner="canary-uid", now=NOON + HOUR).missing_since


def test_pods_that_do_not_start_are_missing_since_they_were_asked_for_however_many_more_an_autoscaler_adds() -> None:
    body = canary()
    for number in range(1, 41):
        body = scaled(body, ready=1, to=2 + number, at=NOON + number * timedelta(minutes=1))

    assert missing_since(body, ready=1) == NOON
    assert missing_since(body, ready=2) == NOON + timedelta(minutes=1)
    assert missing_since(body, ready=41) == NOON + timedelta(minutes=40), "the last are asked for last"
    assert len(body["metadata"]["annotations"]["serin.dev/asked-before"]) < 1000


def test_pods_that_start_in_their_time_are_not_late_because_others_were_asked_for_before_them() -> None:
    grown = scaled(canary(), ready=0, to=3, at=NOON + timedelta(minutes=5))
    again = scaled(grown, ready=2, to=4, at=NOON + timedelta(minutes=9))

    assert missing_since(again, ready=2) == NOON + timedelta(minutes=5)
    settled = scaled(again, ready=4, to=5, at=NOON + timedelta(minutes=20))
    assert "serin.dev/asked-before" not in settled["metadata"]["annotations"], "nothing was missing"


def test_pods_that_were_taken_away_and_are_asked_for_anew_have_their_time_again() -> None:
    shrunk = scaled(canary(), ready=1, to=1, at=NOON + timedelta(minutes=5))

    grown = scaled(shrunk, ready=1, to=3, at=NOON + timedelta(minutes=30))

    assert missing_since(grown, ready=1) == NOON + timedelta(minutes=30)
    assert missing_since(scaled(shrunk, ready=0, to=3, at=NOON + HOUR / 2), ready=0) == NOON, "and the first has not"


@pytest.mark.parametrize(
    "written", ["", "2", "many@2026-11-21T12:00:00+00:00", "1@yesterday", "1@2036-01-01T00:00:00+00:00"]
)
def test_what_cannot_be_read_of_earlier_pods_counts_as_never_written(written: str) -> None:
    body = canary()
    body["metadata"]["annotations"]["serin.dev/asked-before"] = written

    assert missing_since(body, ready=0) == NOON


def test_template_and_pause_are_restored_in_one_patch() -> None:
    paths = [op["path"] for op in restore_ops(deployment(V2, paused=True), V1, "4.2", paused=False)]
    assert {"/spec/template", "/spec/paused"} <= set(paths)


def test_the_probe_asks_not_to_be_paused_so_that_a_paused_reply_proves_the_hold() -> None:
    ops = probe_ops(V1)
    assert {"op": "add", "path": "/spec/paused", "value": False} in ops
    assert {"op": "add", "path": "/spec/template/metadata/annotations", "value": {}} in ops


def test_only_our_own_entries_are_forgotten_and_the_last_one_first() -> None:
    managers = [
        {"manager": "serin"},
        {"manager": "helm"},
        {"manager": "serin"},
        {"manager": "serin", "subresource": "status"},
    ]
    removed = [
        op["path"] for op in forget_ops({"metadata": {"managedFields": managers}}, "serin") if op["op"] == "remove"
    ]
    assert removed == ["/metadata/managedFields/2", "/metadata/managedFields/0"]


@pytest.mark.parametrize(
    ("fields", "stays"),
    [
        ({"f:metadata": {"f:annotations": {".": {}, "f:serin.dev/epoch": {}}}}, True),
        ({"f:metadata": {"f:annotations": {"f:serin.dev/epoch": {}}}, "f:spec": {"f:paused": {}}}, False),
        ({"f:metadata": {"f:annotations": {"f:team": {}}}}, False),
        ({"f:metadata": {"f:labels": {"f:app": {}}}}, False),
        ({}, False),
    ],
    ids=["our annotation", "a field of the owner", "an annotation of the owner", "a label", "unknown"],
)
def test_an_entry_of_our_annotations_alone_needs_no_write_to_forget_it(fields: dict[str, Any], stays: bool) -> None:
    body = {"metadata": {"managedFields": [{"manager": "serin", "fieldsV1": fields}]}}
    assert (forget_ops(body, "serin") == []) is stays
