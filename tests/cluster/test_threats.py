"""Attacks on who may decide and on what is recorded, tried through the real API server as real users.

Each test carries the number of its threat (docs/threat-model.md) and names the rule that refuses. They share one
rollout that waits at a gate, so their order is that of the file: the last one breaks the glass and lets it through.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller.cli.decisions import digest_of
from controller.model.chain import digest_of as seal_of
from tests.cluster.conftest import RunningCluster
from tests.cluster.objects import (
    CommandFailed,
    Object,
    apply,
    eventually,
    get,
    kubectl,
    made,
    may,
    namespace_object,
    refusal,
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
    without_controller,
)

__all__ = ["serin", "start"]

OWNERS = "owners"
AGENTS = "serin:agents"
ROLES = {"olga": "canary-approver", "mallory": "canary-approver", "bea": "canary-breakglass", "eve": "edit"}
"""people of the tests and their role; otto holds canary-approver by the group owners"""
NEVER_WAS = {"apiVersion": "v1", "kind": "ConfigMap", "name": "never-was", "uid": str(uuid.UUID(int=0))}
GIVEN_AWAY = json.dumps({"metadata": {"ownerReferences": [NEVER_WAS]}})
"""a patch that names an owner which is not there"""


@pytest.fixture(scope="module")
def gate(serin: None, cluster: RunningCluster) -> Iterator[Story]:
    """A rollout that waits for an approval, whose template claims that a person wrote it."""
    name = f"threats-{uuid.uuid4().hex[:8]}"
    apply([namespace_object(name)])
    eventually(lambda: kubectl("get", "serviceaccount", "default", "-n", name))
    for user, role in ROLES.items():
        kubectl("create", "rolebinding", user, f"--clusterrole={role}", f"--user={user}", "-n", name)
    kubectl("create", "rolebinding", OWNERS, "--clusterrole=canary-approver", f"--group={OWNERS}", "-n", name)
    kubectl("create", "rolebinding", "cd", "--clusterrole=canary-approver", f"--serviceaccount={name}:cd", "-n", name)
    story = StartStory(name)(step(20, "1h", approval={}), step(50, "1h"), processes=False)
    story.edit("v2", annotations={"serin.dev/origin": "human"})
    story.until_weight(20)
    assert story.decide("promote").code == 0
    story.until_reason("AwaitingApproval")
    yield story
    kubectl("delete", "namespace", name, "--wait=false")


def decision(story: Story, verb: str, by: str, **changes: Any) -> Object:
    """What the plugin would write about the present attempt; changes are of its spec."""
    attempt = story.attempt()
    usual: Object = {
        "canary": story.name,
        "decision": verb,
        "by": by,
        "attempt": attempt["id"],
        "digest": digest_of(attempt),
        "planDigest": attempt["planDigest"],
        "reason": "seen in the dashboards",
    }
    if verb == "Approve":
        usual["step"] = 1
    spec = {name: value for name, value in (usual | changes).items() if value is not None}
    return {
        "apiVersion": "serin.dev/v1alpha1",
        "kind": "Decision",
        "metadata": {"name": f"d-{uuid.uuid4().hex[:8]}", "namespace": story.namespace},
        "spec": spec,
    }


def said_no(*words: str, user: str = "", groups: tuple[str, ...] = (), stdin: object = None) -> str:
    """What the API server says no with, or nothing where it says yes: for what takes a moment to be in force."""
    try:
        kubectl(*words, stdin=stdin, user=user, groups=groups)
    except CommandFailed as refused:
        return str(refused)
    return ""


def refused_decision(story: Story, user: str, body: Object, groups: tuple[str, ...] = ()) -> str:
    return refusal("create", "-f", "-", stdin=body, user=user, groups=groups)


def answer_to(story: Story, user: str, body: Object, groups: tuple[str, ...] = ()) -> Object:
    """Admission lets it in: what the controller answers."""
    kubectl("create", "-f", "-", stdin=body, user=user, groups=groups)
    uid = get("decision", body["metadata"]["name"], story.namespace)["metadata"]["uid"]
    found = story.until(lambda now: [one for one in now.get("decisions", ()) if one["uid"] == uid])
    return next(one for one in found["decisions"] if one["uid"] == uid)


def with_end(changes: Object) -> Object:
    """An end such as 1h, reckoned from now."""
    if "expiresAt" not in changes:
        return changes
    return changes | {"expiresAt": in_(timedelta(hours=int(changes["expiresAt"][0])))}


def in_(span: timedelta) -> str:
    return f"{datetime.now(UTC) + span:%Y-%m-%dT%H:%M:%SZ}"


def test_t1_an_annotation_that_claims_a_person_wrote_it_loosens_nothing(gate: Story) -> None:
    attempt = gate.attempt()

    assert (attempt.get("origin", "unknown"), attempt["claimedOrigin"]) == ("unknown", "human")
    (record,) = gate.records()
    assert record["origin"] == {"claimed": "human", "treated": "unknown", "trust": "T1"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"digest": "registry.local/shop:v2@sha256:0"}, "spec.digest: this attempt has registry.local/shop:v2"),
        ({"digest": None}, "found nothing"),
        ({"planDigest": "sha256:of-a-milder-plan"}, "spec.planDigest: this attempt has sha256:"),
    ],
    ids=["another image", "no image", "another plan"],
)
def test_t3_an_approval_of_another_image_or_plan_opens_nothing(gate: Story, changes: Object, said: str) -> None:
    answer = answer_to(gate, "olga", decision(gate, "Approve", "olga", **changes))

    assert (answer.get("taken", False), said in answer["answer"]) == (False, True), answer
    assert gate.status()["reason"] == "AwaitingApproval"


def test_t4_nobody_approves_in_the_name_of_another(gate: Story) -> None:
    said = refused_decision(gate, "mallory", decision(gate, "Approve", "olga"))

    assert "serin-decisions" in said
    assert "spec.by must be you (mallory), not olga" in said


def test_t5_the_account_of_a_delivery_tool_approves_nothing_though_it_holds_the_verb(gate: Story) -> None:
    account = f"system:serviceaccount:{gate.namespace}:cd"
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{gate.namespace}")

    said = refused_decision(gate, account, decision(gate, "Approve", account), groups)

    assert "a service account cannot decide" in said


@pytest.mark.parametrize(
    ("user", "changes", "said"),
    [
        ("eve", {}, "you need the verb approve on canaries.serin.dev shop"),
        ("olga", {"groups": [OWNERS]}, f"spec.groups: you are not in {OWNERS}"),
        ("olga", {"expiresAt": "2020-01-01T00:00:00Z"}, "has passed"),
        ("olga", {"reason": "see https://bob:pa55word@host"}, "looks like it holds a credential"),
        ("olga", {"attempt": None}, "the attempt this is about"),
    ],
    ids=["without the verb", "a group that is not theirs", "expired", "a credential in it", "about nothing"],
)
def test_t6_an_approval_by_whoever_may_not_is_refused(gate: Story, user: str, changes: Object, said: str) -> None:
    assert said in refused_decision(gate, user, decision(gate, "Approve", user, **changes))


def test_t6_a_right_that_is_not_found_again_when_it_is_used_counts_for_nothing(gate: Story) -> None:
    """Admission saw otto's group; without it in the Decision, the controller cannot find his right again."""
    answer = answer_to(gate, "otto", decision(gate, "Approve", "otto"), (OWNERS,))

    assert not answer.get("taken")
    assert "otto does not hold the verb approve" in answer["answer"]


def test_t7_a_status_that_fakes_a_verdict_is_refused_to_everybody(gate: Story) -> None:
    fake = ("patch", "canary", "shop", "-n", gate.namespace, "--subresource=status", "--type=merge")
    passed = json.dumps({"status": {"phase": "Releasing"}})

    before = gate.status()

    assert 'resource "canaries/status"' in refusal(*fake, "-p", passed, user="eve")
    assert "written by its controller only" in refusal(*fake, "-p", passed)
    kubectl("patch", "canary", "shop", "-n", gate.namespace, "--type=merge", "-p", passed)
    assert gate.status()["phase"] == before["phase"], "status in an ordinary write is not taken"


def test_t8_a_record_is_neither_forged_nor_changed_nor_deleted_nor_replaced(gate: Story) -> None:
    (record,) = get("releaserecords", "", gate.namespace)["items"]
    name, where = record["metadata"]["name"], ("-n", gate.namespace)
    forged = record | {"metadata": {"name": "shop-x", "namespace": gate.namespace}}
    edit = json.dumps({"spec": {"origin": {"treated": "human"}}})
    only = "release records are written by Serin's controller only"

    assert only in refusal("create", "-f", "-", stdin=forged)
    assert only in refusal("patch", "releaserecord", name, *where, "--type=merge", "-p", edit)
    assert only in refusal("label", "releaserecord", name, *where, "serin.dev/canary=other", "--overwrite")
    assert "kept for 90 days" in refusal("delete", "releaserecord", name, *where)
    assert "kept for 90 days" in refusal("delete", "releaserecords", "--all", *where)
    assert "forbidden" in refusal("delete", "releaserecord", name, *where, user="eve").lower()


def test_t9_a_decision_cannot_be_dated_back_nor_given_another_author_by_its_metadata(gate: Story) -> None:
    body = decision(gate, "Approve", "olga", digest="another")
    body["metadata"] |= {
        "creationTimestamp": "2020-01-01T00:00:00Z",
        "managedFields": [{"manager": "serin", "operation": "Update", "apiVersion": "serin.dev/v1alpha1"}],
    }

    answer = answer_to(gate, "olga", body)

    stored = get("decision", body["metadata"]["name"], gate.namespace)["metadata"]["creationTimestamp"]
    assert datetime.fromisoformat(stored) > datetime.now(UTC) - timedelta(minutes=5)
    assert datetime.fromisoformat(answer["at"]) > datetime.now(UTC) - timedelta(minutes=5)
    assert "not olga" in refusal(
        "create", "--field-manager=olga", "-f", "-", stdin=decision(gate, "Approve", "olga"), user="mallory"
    )


def test_t11_a_query_that_always_passes_is_no_query(serin: None, start: StartStory) -> None:
    """Tenants name a source; whoever writes one meets the grammar of its templates."""
    source: Object = {
        "apiVersion": "serin.dev/v1alpha1",
        "kind": "MetricsSource",
        "metadata": {"name": "always-passes"},
        "spec": {
            "url": "http://127.0.0.1:9090",
            "templates": {"gateway": {"requests": "vector(1)", "errors": "vector(0)"}},
        },
    }
    kubectl("create", "rolebinding", "eve", "--clusterrole=edit", "--user=eve", "-n", start.namespace)
    assert "forbidden" in refusal("create", "-f", "-", stdin=source, user="eve").lower()
    apply([source])
    try:
        story = start_shop(start.namespace)
        analysis = {"source": "always-passes"}
        apply([canary_object(start.namespace, [step(50)], analysis=analysis)])
        refused = story.until(lambda now: "is not one selector" in now.get("message", ""))
    finally:
        kubectl("delete", "metricssource", "always-passes")

    assert refused["phase"] == "Pending", "what cannot be judged is never released"


def test_t16_whoever_cannot_edit_a_workload_points_no_canary_at_it(gate: Story) -> None:
    made("role", "only-canaries", "--verb=create,patch", "--resource=canaries.serin.dev", "-n", gate.namespace)
    made("rolebinding", "lea", "--role=only-canaries", "--user=lea", "-n", gate.namespace)

    body = canary_object(gate.namespace, [step(50)], name="deputy")

    create = ("create", "-f", "-")
    eventually(lambda: "you may not patch deployments.apps deputy" in said_no(*create, stdin=body, user="lea"))


@pytest.mark.parametrize(
    "words", [("delete", "freeze", "stop"), ("patch", "freeze", "stop", "-p", "{}", "--type=merge")]
)
def test_t20_a_tenant_neither_lifts_nor_moves_the_kill_switch(gate: Story, words: tuple[str, ...]) -> None:
    body = {"apiVersion": "serin.dev/v1alpha1", "kind": "Freeze", "metadata": {"name": "stop"}, "spec": {"reason": "x"}}

    assert "forbidden" in refusal(*words, user="eve").lower()
    assert "forbidden" in refusal("create", "-f", "-", stdin=body, user="eve").lower()


def test_t31_what_a_canary_tries_is_changed_by_nobody_but_serin(gate: Story) -> None:
    """After people agreed to one image, whoever edits Deployments brings no other before users with its weight."""
    here = ("-n", gate.namespace)
    image = '{"spec":{"template":{"spec":{"containers":[{"name":"app","image":"registry.local/shop:evil"}]}}}}'

    swapped = refusal("patch", "deployment", "shop-canary", *here, "-p", image, user="eve")
    disowned = refusal(
        "patch", "deployment", "shop-canary", *here, "--type=merge", "-p", '{"metadata":{"ownerReferences":null}}'
    )
    aimed = refusal("patch", "service", "shop-canary", *here, "-p", '{"spec":{"selector":{"app":"evil"}}}', user="eve")

    for said in (swapped, disowned, aimed):
        assert "is what Canary shop tries, and only Serin changes it" in said
    kubectl("annotate", "deployment", "shop-canary", "team=shop", *here, user="eve")


@pytest.mark.parametrize(
    ("user", "changes", "said"),
    [
        ("olga", {"expiresAt": "1h"}, "you need the verb breakglass"),
        ("bea", {"expiresAt": "5h"}, "a BreakGlass or an Override stands for 4 hours at most"),
        ("bea", {}, "name their end"),
        ("bea", {"expiresAt": "1h", "reason": " "}, "spec.reason: write why"),
    ],
    ids=["an approver", "too long", "for ever", "without a reason"],
)
def test_t22_glass_is_broken_by_few_for_a_while_and_for_a_reason(
    gate: Story, user: str, changes: Object, said: str
) -> None:
    assert said in refused_decision(gate, user, decision(gate, "BreakGlass", user, **with_end(changes)))


@pytest.mark.parametrize(
    ("user", "changes", "said"),
    [
        ("olga", {"freeze": {"name": "peak", "uid": "u1"}, "expiresAt": "1h"}, "you need the verb override"),
        (
            "bea",
            {"freeze": {"name": "peak", "uid": "u1"}, "expiresAt": "5h"},
            "or an Override stands for 4 hours at most",
        ),
        ("bea", {"freeze": {"name": "peak", "uid": "u1"}}, "name their end"),
        ("bea", {"expiresAt": "1h"}, "with decision Override the freeze too"),
    ],
    ids=["an approver", "too long", "for ever", "of no freeze"],
)
def test_t22_a_freeze_is_passed_by_few_for_a_while_and_by_its_name(
    gate: Story, user: str, changes: Object, said: str
) -> None:
    assert said in refused_decision(gate, user, decision(gate, "Override", user, **with_end(changes)))


def test_t22_broken_glass_lets_the_release_through_and_stays_on_the_record(gate: Story) -> None:
    answer = answer_to(gate, "bea", decision(gate, "BreakGlass", "bea", expiresAt=in_(timedelta(hours=1))))

    assert answer["taken"]
    assert gate.until_ended()["outcome"] == "Promoted"

    def loud() -> bool:
        events = get("events", "", gate.namespace)["items"]
        return any(one["reason"] == "GlassBroken" and one["type"] == "Warning" for one in events)

    eventually(loud)
    (record,) = gate.records()
    assert record["glassBroken"] is True
    assert {one["by"] for one in record["decisions"] if one["decision"] == "Approve" and not one.get("taken")} == {
        "olga",
        "otto",
    }, "who was refused is on the record too"
    verified = plugin("records", "verify", "-n", gate.namespace)
    assert verified.code == 0, verified.text


def test_t8_whoever_takes_the_policies_away_and_changes_a_record_is_found_out(gate: Story) -> None:
    """Last, because it leaves a forged record behind."""
    name = gate.records()[0]["canary"] + "-" + gate.records()[0]["attempt"]
    binding = ("validatingadmissionpolicybinding", "serin-records")
    stored = get(*binding)
    kubectl("delete", *binding)
    try:
        spec = gate.records()[0] | {"glassBroken": False}

        def forge(patch: Object) -> str:
            body = json.dumps({"spec": patch})
            return kubectl("patch", "releaserecord", name, "-n", gate.namespace, "--type=merge", "-p", body)

        eventually(lambda: forge({"glassBroken": False}))
        naive = plugin("records", "verify", "-n", gate.namespace)
        forge({"hash": seal_of(spec)})
        clever = plugin("records", "verify", "-n", gate.namespace)
    finally:
        kubectl("create", "-f", "-", stdin=_bare(stored))

    assert (naive.code, f"{name} was changed after it was sealed" in naive.text) == (1, True), naive.text
    assert clever.code == 1, "sealed anew, it is not the head that the Canary's status knows"


def _bare(item: Object) -> Object:
    kept = {name: item["metadata"][name] for name in ("name", "labels", "annotations") if name in item["metadata"]}
    return {"apiVersion": item["apiVersion"], "kind": item["kind"], "metadata": kept, "spec": item["spec"]}


# -- destructive acts -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def protected(serin: None, cluster: RunningCluster) -> Iterator[Story]:
    """A workload at rest whose pods read a ConfigMap, in a namespace that opted in."""
    name = f"protected-{uuid.uuid4().hex[:8]}"
    apply([namespace_object(name)])
    eventually(lambda: kubectl("get", "serviceaccount", "default", "-n", name))
    kubectl("create", "configmap", "settings", "--from-literal=level=info", "-n", name)
    label_without_processes(name)
    story = start_shop(name)
    kubectl("set", "env", "deployment/shop", "--from=configmap/settings", "-n", name)
    kubectl("rollout", "status", "deployment/shop", "-n", name, "--timeout=180s")
    apply([canary_object(name, [step(50, "1h")])])
    story.until_held()
    kubectl("label", "namespace", name, "serin.dev/protected=true")
    for user in ("olga", "otto"):
        for role in ("admin", "canary-approver"):
            kubectl("create", "rolebinding", f"{user}-{role}", f"--clusterrole={role}", f"--user={user}", "-n", name)
        eventually(lambda user=user: may(user, "permit", "canaries.serin.dev", "-n", name))
    yield story
    kubectl("label", "namespace", name, "serin.dev/protected-")
    kubectl("delete", "namespace", name, "--wait=false")


def test_what_carries_users_is_not_deleted_without_a_fresh_decision(protected: Story) -> None:
    for kind in ("deployment", "service"):
        delete = ("delete", kind, "shop", "-n", protected.namespace, "--wait=false")
        instead = f"kubectl canary permit shop {kind.capitalize()}/shop"
        for_olga = (*delete, "--dry-run=server")
        eventually(lambda words=for_olga, instead=instead: instead in said_no(*words, user="olga"))
        assert "is an agent: a person must do this" in refusal(
            *delete, "--dry-run=server", user="agent", groups=(AGENTS, "system:masters")
        )

    edit = ("patch", "configmap", "settings", "-n", protected.namespace, "-p", '{"data":{"level":"debug"}}')
    assert "make a new ConfigMap and name it in the pod template" in refusal(*edit, user="olga")
    kubectl("label", "configmap", "settings", "-n", protected.namespace, "team=shop")
    said = refusal("delete", "namespace", protected.namespace, "--wait=false")
    assert "take the label serin.dev/protected off first" in said
    unprotect = ("label", "namespace", protected.namespace, "serin.dev/protected-")
    assert "is an agent" in refusal(*unprotect, user="agent", groups=(AGENTS, "system:masters"))


def test_a_permit_is_for_one_person_one_object_and_a_while(protected: Story) -> None:
    ends = datetime.now(UTC) + timedelta(seconds=60)
    body: Object = {
        "apiVersion": "serin.dev/v1alpha1",
        "kind": "Decision",
        "metadata": {"generateName": "permit-", "namespace": protected.namespace},
        "spec": {
            "canary": "shop",
            "decision": "Permit",
            "by": "olga",
            "permits": "Service/shop",
            "expiresAt": f"{ends:%Y-%m-%dT%H:%M:%SZ}",
            "reason": "moved to another cluster",
        },
    }
    kubectl("create", "-f", "-", stdin=body, user="olga")
    protected.until(lambda now: now.get("permits"))
    delete = ("delete", "service", "shop", "-n", protected.namespace, "--dry-run=server")

    eventually(lambda: kubectl(*delete, user="olga"))
    assert "fresh Decision" in refusal(*delete, user="otto")
    assert "fresh Decision" in refusal(
        "delete", "deployment", "shop", "-n", protected.namespace, "--dry-run=server", user="olga"
    )
    protected.until(lambda now: not now.get("permits"))
    eventually(lambda: "fresh Decision" in said_no(*delete, user="olga"))


def test_a_namespace_with_a_canary_in_flight_is_deleted_whole(start: StartStory) -> None:
    story = start(step(50, "1h"), processes=False)
    story.edit("v2")
    story.until_weight(50)

    kubectl("delete", "namespace", story.namespace, "--timeout=180s")

    assert not kubectl("get", "namespace", story.namespace, "--ignore-not-found", "-o", "name")
    kubectl("create", "namespace", story.namespace)


def test_a_namespace_deleted_while_no_controller_runs_is_gone_once_one_is_back(start: StartStory) -> None:
    story = start(step(50, "1h"), processes=False)
    story.edit("v2")
    story.until_weight(50)
    with without_controller():
        kubectl("delete", "namespace", story.namespace, "--wait=false")
        eventually(lambda: not get("pods", "", story.namespace)["items"])

    gone = ("get", "namespace", story.namespace, "--ignore-not-found", "-o", "name")
    eventually(lambda: not kubectl(*gone))
    kubectl("create", "namespace", story.namespace)


def test_t32_a_rule_is_not_got_around_by_removing_the_canary(serin: None, start: StartStory) -> None:
    """Without its Canary a workload would roll at once; a garbage collector would delete it just as well."""
    story = start(step(50, "1h"), processes=False)
    here = ("-n", story.namespace)
    for user, role in (("eve", "edit"), ("olga", "edit"), ("olga", "canary-approver")):
        kubectl("create", "rolebinding", f"{user}-{role}", f"--clusterrole={role}", f"--user={user}", *here)
    rule = {"name": "people", "approvals": {"before": "Start"}}
    spec = {"selector": {"namespaces": [f"{story.namespace[:-2]}*"]}, "rules": [rule]}
    meta = {"name": f"stays-{story.namespace}"}
    delete = ("delete", "canary", "shop", *here, "--dry-run=server")
    eventually(lambda: kubectl(*delete, user="eve"))
    eventually(lambda: may("olga", "detach", "canaries.serin.dev", *here))
    apply([{"apiVersion": "serin.dev/v1alpha1", "kind": "ReleasePolicy", "metadata": meta, "spec": spec}])
    try:
        eventually(lambda: "its workload would roll past it" in said_no(*delete, user="eve"))
        patched = refusal("patch", "canary", "shop", *here, "--type=merge", "-p", GIVEN_AWAY, user="eve")
        kubectl("label", "canary", "shop", "team=shop", *here, user="eve")
        kubectl(*delete, user="olga")
    finally:
        kubectl("delete", "releasepolicy", meta["name"])

    assert "you need the verb detach on canaries.serin.dev shop" in patched


def test_t33_what_carries_users_is_given_no_owner_that_would_take_it_along(protected: Story) -> None:
    """The garbage collector deletes for whoever names an owner that never was, and it is exempt from asking."""
    here = ("-n", protected.namespace)
    made("rolebinding", "eve-edit", "--clusterrole=edit", "--user=eve", *here)

    eventually(lambda: may("eve", "patch", "deployments.apps", *here))
    for kind, name in (("deployment", "shop"), ("service", "shop"), ("configmap", "settings"), ("canary", "shop")):
        said = refusal("patch", kind, name, *here, "--type=merge", "-p", GIVEN_AWAY, user="eve")
        assert "serin-destructive" in said, said
    gone = refusal("delete", "canary", "shop", *here, "--dry-run=server", user="eve")
    agent = refusal("delete", "canary", "shop", *here, "--dry-run=server", user="a", groups=(AGENTS, "system:masters"))

    assert "it takes the verb detach on canaries.serin.dev shop" in gone
    assert "is an agent: a person must do this" in agent
    kubectl("label", "deployment", "shop", "team=shop", *here, user="eve")
