"""Releases from the first edit to the last clean-up, with the controller that Helm installed.

Each test is one story of a person and a workload; bakes are seconds, traffic and metrics are real.
"""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from tests.cluster.objects import apply, eventually, get, kubectl, shop_deployment, shop_route, shop_service, state_dir
from tests.cluster.serin import SYSTEM, StartStory, Story, serin, start, step

__all__ = ["serin", "start"]


def test_a_good_revision_is_promoted_and_no_request_is_lost(start: StartStory) -> None:
    story = start(step(20), step(50))
    with story.load(80) as report:
        story.edit("v2")
        story.until_weight(20)
        assert story.revisions() == {"v1"}, "stable pods are not touched before every gate is passed"
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
    crashing.edit("v2", {"SHOP_CRASH": "1"})
    shipped = shop_deployment("unpullable", start.namespace, "v1", 1)
    shipped["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.local/nothing:1"
    apply([shipped])
    eventually(lambda: len(get("pods", "", start.namespace, "serin.dev/canary")["items"]) == 2)
    kubectl("create", "quota", "small", "--hard=pods=5", "-n", start.namespace)
    eventually(lambda: get("resourcequota", "small", start.namespace)["status"].get("used", {}).get("pods") == "5")
    starved.edit("v2")

    for story, words in ((crashing, "CrashLoopBackOff"), (unpullable, "ImagePullBackOff"), (starved, "exceeded quota")):
        ended = story.until_ended(within=60)
        assert (ended["outcome"], story.status()["phase"]) == ("RolledBack", "RolledBack")
        assert words in ended["outcomeMessage"], ended
        assert "steps" not in story.records()[0], "no traffic ever reached it"
        assert story.image() != "v1" or story.name == "unpullable"
        story.assert_nothing_left()


def delete_canary(story: Story) -> None:
    kubectl("delete", "canary", story.name, "-n", story.namespace, "--timeout=60s")


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
    kubectl(
        "patch", "deployment", "shop", "-n", story.namespace, "--type=merge", "-p", '{"spec":{"minReadySeconds":4}}'
    )
    story.edit("v2")
    story.until_weight(50)
    story.decide("promote")
    story.until_phase("Releasing")
    delete_canary(story)

    assert story.revisions() == {"v2"}
    assert not story.deployment()["spec"].get("paused")
    story.assert_nothing_left()


def test_a_target_deleted_and_made_again_is_said_to_be_unjudged_and_is_held_afterwards(start: StartStory) -> None:
    story = start(step(50, "1h"), processes=False)
    story.edit("v2")
    story.until_weight(50)

    kubectl("delete", "deployment", "shop", "-n", story.namespace, "--wait")
    story.until_reason("TargetMissing")
    story.edit("v3")
    story.until(lambda now: now["attempt"]["outcome"] == "Unjudged" and now.get("editsHeld"))
    assert story.revisions() == {"v3"}
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
    selector = get("service", "shop", story.namespace)["spec"]["selector"]
    assert "pod-template-hash" in selector, "the pin is put back"
    story.decide("promote")
    assert story.until_ended()["outcome"] == "Promoted"
    story.assert_nothing_left()


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

    eventually(lambda: story.deployment()["spec"]["replicas"] == 4, within=45)
    eventually(lambda: story.deployment("-canary")["spec"]["replicas"] == 2)
    assert story.revisions() == {"v1"}, "what the autoscaler adds while an edit is held is stable's revision"
    story.decide("promote")
    assert story.until_ended()["outcome"] == "Promoted"
    assert story.revisions() == {"v2"}


def leader() -> str:
    """The pod that holds the Lease; empty while nobody does."""
    holder = str(get("lease", "serin-controller", SYSTEM)["spec"].get("holderIdentity") or "")
    return holder.rpartition("-")[0]


def test_when_the_leader_is_killed_another_goes_on_and_no_step_is_repeated(start: StartStory) -> None:
    story = start(step(20, "20s"), step(50))
    with story.load(60) as report:
        story.edit("v2")
        story.until(lambda now: now["attempt"].get("bakingSince"))
        before, killed = story.status()["leaderEpoch"], time.monotonic()
        process = state_dir() / "pods" / SYSTEM / leader() / "controller.pid"
        os.kill(int(process.read_text()), signal.SIGKILL)
        story.until(lambda now: now["leaderEpoch"] > before, within=30)
        took = time.monotonic() - killed
        ended = story.until_ended()

    assert took < 15 + 2, f"takeover after {took:.1f} s"
    assert ended["outcome"] == "Promoted", story.seen
    assert [(one["step"], one["weight"]) for one in ended["stepsSeen"]] == [(1, 20), (2, 50)]
    assert report.lost() == []


def test_detach_gives_a_held_workload_back_while_no_controller_runs(start: StartStory) -> None:
    story = start(step(50, "1h"), processes=False)
    story.edit("v2")
    story.until_weight(50)
    kubectl("scale", "deployment/serin-controller", "--replicas=0", "-n", SYSTEM)
    try:
        eventually(lambda: not get("pods", "", SYSTEM)["items"])
        said = story.say("detach", "--yes")

        assert said.code == 0, said.text
        assert story.image() == "v1"
        assert not story.deployment()["spec"].get("paused")
        assert not kubectl("get", "canary", "shop", "-n", story.namespace, "--ignore-not-found", "-o", "name")
        story.assert_nothing_left()
    finally:
        kubectl("scale", "deployment/serin-controller", "--replicas=2", "-n", SYSTEM)
        kubectl("rollout", "status", "deployment/serin-controller", "-n", SYSTEM, "--timeout=60s")
