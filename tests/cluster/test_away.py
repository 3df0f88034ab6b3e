"""Stories in which the controller goes away: killed while it leads, or not there at all.

They take it from everybody, so nothing else runs beside them; see `tests/parts.py`.
"""

from __future__ import annotations

import json
import os
import signal

from tests.cluster.objects import apply, eventually, get, kubectl, state_dir
from tests.cluster.serin import (
    SYSTEM,
    StartStory,
    canary_object,
    serin,
    start,
    start_shop,
    step,
    without_controller,
)

__all__ = ["serin", "start"]


def leader() -> str:
    """The pod that holds the Lease; empty while nobody does."""
    holder = str(get("lease", "serin-controller", SYSTEM)["spec"].get("holderIdentity") or "")
    return holder.rpartition("-")[0]


def test_when_the_leader_is_killed_another_goes_on_and_no_step_is_repeated(start: StartStory) -> None:
    # The gate: however long a takeover lasts, this step is not over before it.
    story = start(step(20, "20s", approval={}), step(50))
    with story.load(60) as report:
        story.edit("v2")
        story.until(lambda now: now["attempt"].get("bakingSince"))
        before = story.status()["leaderEpoch"]
        process = state_dir() / "pods" / SYSTEM / leader() / "controller.pid"
        os.kill(int(process.read_text()), signal.SIGKILL)
        story.until(lambda now: now["leaderEpoch"] > before)
        assert story.decide("approve").code == 0
        ended = story.until_ended()

    assert ended["outcome"] == "Promoted", story.seen
    assert [(one["step"], one["weight"]) for one in ended["stepsSeen"]] == [(1, 20), (2, 50)]
    assert report.lost() == []


def test_while_no_controller_runs_edits_wait_weights_stay_and_a_vetted_revision_rolls_on(start: StartStory) -> None:
    climbing, resting = (start(step(50, "1h"), name=name, processes=False) for name in ("up", "rest"))
    rolling = start(step(50, "1h"), name="roll", replicas=8, processes=False)
    # Pod by pod, half a minute in all.
    slowly = {"minReadySeconds": 4, "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}
    kubectl("patch", "deployment", "roll", "-n", start.namespace, "-p", json.dumps({"spec": slowly}))
    climbing.edit("v2")
    rolling.edit("v2")
    climbing.until_weight(50)
    rolling.until_weight(50)
    assert rolling.decide("promote").code == 0
    rolling.until_phase("Releasing")
    eventually(lambda: not rolling.deployment()["spec"].get("paused"))
    begun = climbing.attempt()
    with without_controller():
        resting.edit("v2")
        assert resting.deployment()["spec"]["paused"], "an edit waits, held by the API server"
        young = start_shop(start.namespace, name="young")
        apply([canary_object(start.namespace, [step(50, "1h")], "young")])
        young.edit("v2")
        assert not young.deployment()["spec"].get("paused"), "what nobody has adopted yet is not held"
        kubectl("rollout", "status", "deployment/roll", "-n", start.namespace, "--timeout=180s")
        assert rolling.revisions() == {"v2"}, "a vetted revision rolls on by itself"
        assert climbing.route_weight() == 50, "the last weight stays"
        assert climbing.attempt().get("step", 0) == begun.get("step", 0), "and nothing advances"

    resting.until_weight(50)
    young.until_held()
    assert rolling.until_ended()["outcome"] == "Promoted"
    rolling.assert_nothing_left()
    assert climbing.until_weight(50)["attempt"]["id"] == begun["id"]


def test_detach_gives_a_held_workload_back_while_no_controller_runs(start: StartStory) -> None:
    story = start(step(50, "1h"), processes=False)
    story.edit("v2")
    story.until_weight(50)
    with without_controller():
        said = story.say("detach", "--yes")

        assert said.code == 0, said.text
        assert story.image() == "v1"
        assert not story.deployment()["spec"].get("paused")
        assert not kubectl("get", "canary", "shop", "-n", story.namespace, "--ignore-not-found", "-o", "name")
        story.assert_nothing_left()
