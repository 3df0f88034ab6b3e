"""Releases from the first edit to the last clean-up, with the controller that Helm installed.

Each test is one story of a person and a workload; bakes are seconds, traffic and metrics are real.
"""

from __future__ import annotations

import json
import re

import pytest

from tests.cluster.objects import apply, eventually, get, kubectl, shop_deployment, shop_route, shop_service
from tests.cluster.serin import (
    StartStory,
    Story,
    canary_object,
    label_without_processes,
    no_more_pods,
    serin,
    start,
    start_shop,
    step,
)

__all__ = ["serin", "start"]


def test_a_good_revision_is_promoted_and_no_request_is_lost(start: StartStory) -> None:
    story = start(step(20), step(50, approval={}))
    with story.load(80) as report:
        story.edit("v2")
        story.until_reason("AwaitingApproval")
        assert story.revisions() == {"v1"}, "stable pods are not touched before every gate is passed"
        assert story.decide("approve").code == 0
        ended = story.until_ended()

    assert ended["outcome"] == "Promoted", story.seen
    assert report.lost() == []
    assert story.revisions() == {"v2"}
    assert not story.deployment()["spec"].get("paused")
    story.assert_nothing_left()
    (record,) = story.records()
    assert (record["outcome"], [one["weight"] for one in record["steps"]]) == ("Promoted", [20, 50])
    assert (story.status()["head"]["number"], story.status()["head"]["hash"]) == (1, record["hash"])


def test_a_bad_revision_is_rolled_back_and_the_next_good_one_is_not_wedged(start: StartStory) -> None:
    story = start(step(50, "10s"))
    with story.load(80) as report:
        story.edit("v2", {"SHOP_FAIL_RATIO": "0.5"}, {"serin.dev/origin": "ai"})
        bad = story.until_ended(within=150)
        assert story.status()["phase"] == "RolledBack"
        assert story.revisions() == {"v1"}
        assert story.deployment()["spec"]["paused"], "the rejected template stays held"
        story.edit("v3")
        good = story.until_ended(after=bad["id"])

    assert (bad["outcome"], good["outcome"]) == ("RolledBack", "Promoted"), story.seen
    assert report.lost(["v2"]) == []
    assert story.revisions() == {"v3"}
    assert [record["outcome"] for record in story.records()] == ["RolledBack", "Promoted"]
    assert story.records()[0]["origin"]["treated"] == "ai"
    told = story.say("explain", "--attempt", bad["id"])
    assert told.code == 0, told.text
    assert "All of that is more than is allowed" in told.text
    assert "▼" in told.text, "the drawing shows when it retreated"
    story.assert_nothing_left()


def test_another_edit_in_flight_gets_an_attempt_of_its_own_and_an_edit_back_is_let_go(start: StartStory) -> None:
    story = start(step(50, "1h"), processes=False)
    story.edit("v2")
    first = story.until_weight(50)["attempt"]["id"]

    story.edit("v3")
    second = story.until(lambda now: now["attempt"]["id"] != first and now.get("weight") == 50)["attempt"]
    assert second["images"] == ["registry.local/shop:v3"]

    story.edit("v1")
    ended = story.until_ended(after=first)
    assert ended["outcome"] == "Withdrawn"
    eventually(lambda: not story.deployment()["spec"].get("paused"))
    assert story.revisions() == {"v1"}
    eventually(lambda: [record.get("outcome") for record in story.records()] == ["Superseded", "Withdrawn"])
    story.assert_nothing_left()


def test_people_pause_resume_promote_and_approve_a_rollout(start: StartStory) -> None:
    story = start(step(20, "1h"), step(50, "1h", approval={}), processes=False)
    story.edit("v2")
    story.until_weight(20)

    assert story.decide("pause").code == 0
    story.until_reason("Paused")
    assert story.decide("resume").code == 0
    story.until(lambda now: now["reason"] != "Paused" and not now["attempt"].get("paused"))
    assert story.decide("promote").code == 0
    waiting = story.until_reason("AwaitingApproval")
    assert waiting["phase"] == "Progressing", "promote skips bakes and steps, never an approval"
    assert story.revisions() == {"v1"}
    approved = story.decide("approve")
    assert approved.code == 0, approved.text

    ended = story.until_ended()
    assert ended["outcome"] == "Promoted"
    said = [(one["decision"], one["taken"]) for one in story.status()["decisions"]]
    assert said == [("Pause", True), ("Resume", True), ("Promote", True), ("Approve", True)]
    (record,) = story.records()
    assert [one["decision"] for one in record["decisions"]] == ["Pause", "Resume", "Promote", "Approve"]


def test_an_aborted_revision_is_tried_again_only_when_a_person_says_so(start: StartStory) -> None:
    story = start(step(50, "1h"), processes=False)
    story.edit("v2")
    first = story.until_weight(50)["attempt"]["id"]

    aborted = story.decide("abort")
    assert aborted.code == 0, aborted.text
    assert story.until_ended()["outcome"] == "Aborted"
    assert story.status()["phase"] == "RolledBack"
    story.edit("v2", annotations={})
    assert story.attempt()["id"] == first, "the same template applied again is no new attempt"
    assert story.decide("retry").code == 0
    story.until(lambda now: now["attempt"]["id"] != first and now.get("weight") == 50)
    assert story.decide("reject").code == 0

    ended = story.until_ended(after=first)
    assert ended["outcome"] == "Rejected"
    assert story.revisions() == {"v1"}
    story.assert_nothing_left()


def test_pods_that_cannot_start_are_rolled_back_by_rule_without_metrics(start: StartStory) -> None:
    crashing, unpullable = (start(name=name, replicas=1) for name in ("crashing", "unpullable"))
    starved = start(name="starved", replicas=1)

    def crash() -> None:
        crashing.edit("v2", {"SHOP_CRASH": "1"})

    def ship_what_cannot_be_pulled() -> None:
        shipped = shop_deployment("unpullable", start.namespace, "v1", 1)
        shipped["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.local/nothing:1"
        apply([shipped])

    def starve() -> None:
        no_more_pods(start.namespace, 3)
        starved.edit("v2")

    for story, begin, words in (
        # Looked at between two restarts, it is in no loop at that moment, but has been started often.
        (crashing, crash, ("CrashLoopBackOff", "ContainerRestarts")),
        (unpullable, ship_what_cannot_be_pulled, ("ImagePullBackOff",)),
        (starved, starve, ("exceeded quota",)),
    ):
        begin()
        ended = story.until_ended()
        assert (ended["outcome"], story.status()["phase"]) == ("RolledBack", "RolledBack")
        assert any(each in ended["outcomeMessage"] for each in words), ended
        assert "steps" not in story.records()[0], "no traffic ever reached it"
        assert story.image() != "v1" or story.name == "unpullable"
        story.assert_nothing_left()
        eventually(lambda: not get("pods", "", start.namespace, "serin.dev/canary")["items"])


def test_a_canary_whose_service_goes_is_off_traffic_until_serin_has_made_it_again(start: StartStory) -> None:
    story = start(step(50, "1h"), replicas=1)
    service = f"{story.name}-canary"
    story.edit("v2")
    story.until_weight(50)

    kubectl("delete", "service", service, "-n", story.namespace)
    story.until_phase("Retreated")
    assert story.attempt()["retreats"][-1]["reason"] == "CanaryNotReady"
    story.until_weight(50)
    assert story.decide("abort").code == 0
    story.until_ended()
    story.assert_nothing_left()


def test_another_route_that_splits_to_the_canary_is_named_and_the_rollout_begins_when_it_no_longer_does(
    start: StartStory,
) -> None:
    story = start(step(50, "1h"), replicas=1, processes=False)
    apply([shop_route("backup", story.namespace, backends={"shop": 50, "shop-canary": 50})])
    story.edit("v2")

    told = story.until_reason("CanaryInRoute")
    assert "HTTPRoute backup too splits requests" in told["message"]
    assert told["phase"] == "Idle"
    kubectl("delete", "httproute", "backup", "-n", story.namespace)
    story.until_weight(50)


def delete_canary(story: Story) -> None:
    """Returns when it is gone; nothing to do but wait where somebody has deleted it already."""
    kubectl("delete", "canary", story.name, "-n", story.namespace, "--ignore-not-found", "--timeout=180s")


@pytest.mark.parametrize(
    ("phase", "env"),
    [
        ("Idle", None),
        ("Preparing", {"SHOP_NEVER_READY": "1"}),
        ("Progressing", {}),
        ("Retreated", {"SHOP_FAIL_RATIO": "1"}),
        ("RolledBack", {}),
    ],
)
def test_a_canary_deleted_in_any_phase_leaves_stable_and_nothing_held(
    start: StartStory, phase: str, env: dict[str, str] | None
) -> None:
    story = start(step(50, "1h"), replicas=1)
    with story.load(50) as report:
        if env is not None:
            story.edit("v2", env)
        if phase == "RolledBack":
            story.until_weight(50)
            story.decide("abort")
        story.until_phase(phase)
        if phase == "Progressing":
            story.until_weight(50)
        delete_canary(story)

    assert report.lost(["v2"]) == []
    assert story.image() == "v1"
    assert story.revisions() == {"v1"}
    assert not story.deployment()["spec"].get("paused")
    assert "serin" not in json.dumps(story.deployment()["metadata"].get("annotations", {}))
    story.assert_nothing_left()


def test_a_canary_deleted_while_its_target_rolls_lets_the_vetted_revision_finish(start: StartStory) -> None:
    story = start(step(50, "1h"), processes=False)
    story.edit("v2")
    story.until_weight(50)
    # No pod beside those that are there: the roll has begun and lasts until this is over.
    no_more_pods(story.namespace, 3)
    story.decide("promote")
    story.until_phase("Releasing")
    eventually(lambda: not story.deployment()["spec"].get("paused"))
    kubectl("delete", "canary", story.name, "-n", story.namespace, "--wait=false")
    assert story.canary()["metadata"]["deletionTimestamp"], "it stays until the roll is over"
    kubectl("delete", "quota", "full", "-n", story.namespace)
    delete_canary(story)

    assert not story.deployment()["spec"].get("paused")
    eventually(lambda: story.revisions() == {"v2"})
    story.assert_nothing_left()


def test_what_the_answer_to_a_retry_says_to_type_tries_a_revision_again_that_left_its_release(
    start: StartStory,
) -> None:
    story = start(step(50, "1h"), processes=False)
    story.edit("v2")
    first = story.until_weight(50)["attempt"]["id"]
    no_more_pods(story.namespace, 3)
    story.decide("promote")
    story.until_phase("Releasing")

    def has_begun() -> bool:
        rolls = story.deployment()
        seen = rolls["status"]["observedGeneration"] == rolls["metadata"]["generation"]
        return seen and not rolls["spec"].get("paused")

    eventually(has_begun)
    assert story.decide("abort").code == 0
    story.until_phase("RolledBack")
    kubectl("delete", "quota", "full", "-n", story.namespace)

    story.decide("retry")
    # In the status: the plugin waits for an answer, and not for ever.
    said = story.until(lambda now: now["decisions"][-1]["decision"] == "Retry")["decisions"][-1]["answer"]
    typed = re.search(r"kubectl (rollout undo deployment/shop --to-revision=\d+), or", said)
    assert typed is not None, said
    kubectl(*typed[1].split(), "-n", story.namespace)

    again = story.until(lambda now: now["attempt"]["id"] != first and now.get("weight") == 50)["attempt"]
    assert again["images"] == ["registry.local/shop:v2"]
    assert story.deployment()["spec"]["paused"]
    assert story.revisions() == {"v1"}


def test_a_canary_waits_until_its_target_has_settled_and_moves_no_pod(start: StartStory) -> None:
    label_without_processes(start.namespace)
    story = start_shop(start.namespace)
    no_more_pods(story.namespace, 2)
    kubectl("set", "image", "deployment/shop", "app=registry.local/shop:v2", "-n", story.namespace)
    before = story.deployment()["metadata"]["generation"]

    apply([canary_object(story.namespace, [step(50, "1h")])])
    story.until_reason("WaitingForStable")
    kubectl("delete", "quota", "full", "-n", story.namespace)
    story.until_held()

    assert story.status()["stable"]["images"] == ["registry.local/shop:v2"]
    assert story.status().get("attempt") is None, "what was there before is nobody's release"
    assert story.revisions() == {"v2"}
    assert story.deployment()["metadata"]["generation"] == before, "it is looked at and not written"


def test_a_first_release_goes_out_unjudged_and_is_recorded_as_that(start: StartStory) -> None:
    label_without_processes(start.namespace)
    story = Story(start.namespace)
    everything = [
        canary_object(story.namespace, [step(50, "1h")]),
        shop_service("shop", story.namespace),
        shop_route("shop", story.namespace, story.host),
        shop_deployment("shop", story.namespace, "v1", 0),
    ]

    apply(everything)
    story.until_reason("NoPodsYet")
    kubectl("scale", "deployment/shop", "--replicas=2", "-n", story.namespace)
    story.until_held()

    assert story.revisions() == {"v1"}
    eventually(lambda: [one.get("outcome") for one in story.records()] == ["Unjudged"])
    (record,) = story.records()
    assert record["images"] == ["registry.local/shop:v1"]
    assert "first release" in record["message"]


def test_a_step_at_100_is_as_large_as_the_target_and_what_is_held_back_stays_on_stable(start: StartStory) -> None:
    usual = canary_object(start.namespace, [])["spec"]["analysis"]
    story = start(step(100, "1h"), analysis=usual | {"holdBack": 5}, replicas=4, processes=False)
    noted = shop_service("shop", story.namespace)
    noted["metadata"]["annotations"] = {"team.example/cost-centre": "7"}
    noted["spec"]["ports"][0]["appProtocol"] = "kubernetes.io/ws"
    apply([noted])
    recreate = '{"spec":{"strategy":{"type":"Recreate","rollingUpdate":null}}}'
    kubectl("patch", "deployment", "shop", "-n", story.namespace, "-p", recreate)

    story.edit("v2")
    story.until_weight(95)
    assert story.deployment("-canary")["spec"]["replicas"] == 4
    copied = get("service", "shop-canary", story.namespace)
    assert copied["metadata"]["annotations"]["team.example/cost-centre"] == "7"
    assert copied["spec"]["ports"][0]["appProtocol"] == "kubernetes.io/ws"
    assert story.revisions() == {"v1"}
    assert story.decide("promote").code == 0

    assert story.until_ended()["outcome"] == "Promoted"
    assert story.revisions() == {"v2"}
    story.assert_nothing_left()


def test_a_roll_that_gets_stuck_behind_every_gate_gives_the_target_stables_template_back(start: StartStory) -> None:
    story = start(step(50, "1h"), processes=False)
    kubectl("patch", "deployment", "shop", "-n", story.namespace, "-p", '{"spec":{"progressDeadlineSeconds":5}}')
    story.edit("v2")
    story.until_weight(50)
    # No pod beside those that are there: the roll's first one is refused.
    no_more_pods(story.namespace, 3)
    assert story.decide("promote").code == 0

    ended = story.until_ended(within=90)
    assert ended["outcome"] == "RolledBack", story.seen
    assert "the roll got stuck" in ended["outcomeMessage"]
    assert story.revisions() == {"v1"}
    story.assert_nothing_left()


def test_a_target_deleted_and_made_again_is_said_to_be_unjudged_and_is_held_afterwards(start: StartStory) -> None:
    story = start(step(50, "1h"), processes=False)
    story.edit("v2")
    story.until_weight(50)

    kubectl("delete", "deployment", "shop", "-n", story.namespace, "--wait")
    story.until_reason("TargetMissing")
    story.edit("v3")
    story.until(lambda now: now["attempt"]["outcome"] == "Unjudged" and now.get("editsHeld"))
    eventually(lambda: story.revisions() == {"v3"})
    story.edit("v4")
    story.until_weight(50)
    assert story.revisions() == {"v3"}


def test_an_owner_who_applies_everything_during_a_rollout_meets_no_conflict(start: StartStory) -> None:
    story = start(step(50, "1h"), processes=False)
    story.edit("v2")
    story.until_weight(50)

    apply(
        [
            shop_deployment("shop", story.namespace, "v2", 2),
            shop_service("shop", story.namespace),
            shop_route("shop", story.namespace, story.host),
        ]
    )

    story.until(lambda now: now["attempt"].get("drifts") and now["phase"] == "Progressing")
    story.until_weight(50)
    # The pin is put back too, before or after the route.
    eventually(lambda: "pod-template-hash" in get("service", "shop", story.namespace)["spec"]["selector"])
    story.decide("promote")
    assert story.until_ended()["outcome"] == "Promoted"
    story.assert_nothing_left()


def test_a_policy_on_the_stable_service_that_the_canary_lacks_is_warned_of_until_it_names_both(
    start: StartStory,
) -> None:
    story = start(step(50, "1h"), processes=False)

    def attach(*services: str) -> None:
        spec = {
            "targetRefs": [{"group": "", "kind": "Service", "name": name} for name in services],
            "validation": {"hostname": "shop.example", "wellKnownCACertificates": "System"},
        }
        where = {"name": "shop-tls", "namespace": story.namespace}
        kind = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "BackendTLSPolicy"}
        apply([kind | {"metadata": where, "spec": spec}])

    def warning() -> str:
        found = [one for one in story.status()["conditions"] if one["type"] == "PolicyNotOnCanary"]
        return str(found[0]["message"]) if found else ""

    attach("shop")
    eventually(lambda: "BackendTLSPolicy shop-tls names Service shop and not shop-canary" in warning())
    assert "warning: the gateway treats requests to the canary differently" in story.say("status").text
    attach("shop", "shop-canary")
    eventually(lambda: not warning())
    story.edit("v2")
    assert story.until_weight(50)["phase"] == "Progressing", "a warning holds nothing"


def test_an_autoscaler_and_a_disruption_budget_on_the_target_do_not_stand_in_the_way(start: StartStory) -> None:
    story = start(step(50, "1h"), processes=False)
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"}
    scaler = {"scaleTargetRef": target, "minReplicas": 4, "maxReplicas": 6}
    budget = {"minAvailable": 2, "selector": {"matchLabels": {"app": "shop"}}}
    where = {"name": "shop", "namespace": story.namespace}
    story.edit("v2")
    story.until_weight(50)

    apply(
        [
            {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": where, "spec": scaler},
            {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": where, "spec": budget},
        ]
    )

    eventually(lambda: story.deployment()["spec"]["replicas"] == 4)
    eventually(lambda: story.deployment("-canary")["spec"]["replicas"] == 2)
    assert story.revisions() == {"v1"}, "what the autoscaler adds while an edit is held is stable's revision"
    story.decide("promote")
    assert story.until_ended()["outcome"] == "Promoted"
    assert story.revisions() == {"v2"}


def test_an_autoscaler_and_a_rollback_do_not_fight_over_the_target(start: StartStory) -> None:
    usual = canary_object(start.namespace, [])["spec"]["analysis"]
    story = start(step(50, "1h"), analysis=usual | {"onTrip": "rollback"})
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"}
    where = {"name": "shop", "namespace": story.namespace}
    scaler = {"scaleTargetRef": target, "minReplicas": 3, "maxReplicas": 5}
    apply([{"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": where, "spec": scaler}])

    def ready(count: int) -> bool:
        found = story.deployment()
        return bool((found["spec"]["replicas"], found["status"].get("readyReplicas")) == (count, count))

    def ship(revision: str, fails: str) -> None:
        # As owners do beside an autoscaler: nothing is said of replicas.
        container = "/spec/template/spec/containers/0"
        image = {"op": "replace", "path": f"{container}/image", "value": f"registry.local/shop:{revision}"}
        env = [{"name": "SHOP_FAIL_RATIO", "value": fails}] if fails else []
        patch = json.dumps([image, {"op": "add", "path": f"{container}/env", "value": env}])
        kubectl("patch", "deployment", "shop", "-n", story.namespace, "--type=json", "-p", patch)

    eventually(lambda: ready(3))
    with story.load(80) as report:
        ship("v2", fails="0.5")
        bad = story.until_ended(within=150)

    assert bad["outcome"] == "RolledBack", story.seen
    assert report.lost(["v2"]) == []
    assert eventually(lambda: ready(3)), "the count stays the autoscaler's"
    kubectl("patch", "hpa", "shop", "-n", story.namespace, "--type=merge", "-p", '{"spec":{"minReplicas":4}}')
    eventually(lambda: ready(4))
    assert story.revisions() == {"v1"}, "what it adds beside a rejected template is stable's revision"
    assert story.deployment()["spec"]["paused"]
    ship("v1", fails="")
    eventually(lambda: not story.deployment()["spec"].get("paused"))
    eventually(lambda: ready(4))
    story.assert_nothing_left()
