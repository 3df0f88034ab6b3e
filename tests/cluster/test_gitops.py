"""Serin lives with every tool that applies manifests: at rest, in flight, while releasing, after a rollback, and gone.

Rows are tools, columns are moments. The rule behind all of them: no deploy of theirs fails with a conflict that Serin
caused, and where they put back what Serin wrote, the result is a hold and a message with the setting to change.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.appliers import TOOLS, Applier, ArgoCd
from tests.cluster.objects import CommandFailed, apply, eventually, kubectl, refusal
from tests.cluster.serin import Story, canary_object, label_without_processes, no_more_pods, serin, step

__all__ = ["serin"]

Begin = Callable[..., tuple[Story, Any]]


@pytest.fixture(params=TOOLS)
def tool(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def begin(serin: None, namespace: str, tmp_path: Path, tool: str) -> Iterator[Begin]:
    """A shop that this tool brought, under a Canary whose edits are held."""
    with contextlib.ExitStack() as at_work:

        def start(*steps: dict[str, Any], ignoring: tuple[str, ...] = ()) -> tuple[Story, Applier]:
            label_without_processes(namespace)
            kind, flags = TOOLS[tool]
            made = kind(namespace, tmp_path, flags)
            made.bring("v1")
            kubectl("rollout", "status", "deployment/shop", "-n", namespace, "--timeout=180s")
            story = Story(namespace)
            apply([canary_object(namespace, steps or [step(50, "1h")])])
            story.until_held()
            if made.restless:
                made.ignored |= set(ignoring)
                at_work.enter_context(made.at_work())
            return story, made

        yield start


ROUTE = ("HTTPRoute", "Service")
"""what a tool that corrects drift all the time is told to leave alone, docs/gitops.md"""


def test_at_rest_the_same_manifest_again_changes_nothing(begin: Begin) -> None:
    story, tool = begin()
    before = story.deployment()
    tool.bring("v1")
    tool.bring("v1")

    after = story.deployment()
    assert after["spec"] == before["spec"]
    assert story.status()["phase"] == "Idle"
    story.assert_nothing_left()


def test_an_edit_in_flight_is_taken_and_the_same_again_takes_no_request_from_the_canary_for_long(begin: Begin) -> None:
    story, tool = begin(ignoring=ROUTE)
    tool.bring("v2")
    first = story.until_weight(50)["attempt"]["id"]

    tool.bring("v2")
    assert story.deployment()["spec"]["paused"], "the same manifest again lets nothing through"
    assert story.until_weight(50)["attempt"]["id"] == first, "and is no new attempt"

    tool.bring("v3")
    second = story.until(lambda now: now["attempt"]["id"] != first and now.get("weight") == 50)["attempt"]
    assert second["images"] == ["registry.local/shop:v3"]
    assert story.revisions() == {"v1"}

    tool.bring("v1")
    assert story.until_ended(after=first)["outcome"] == "Withdrawn"
    eventually(lambda: not story.deployment()["spec"].get("paused"))
    story.assert_nothing_left()


def test_an_edit_while_releasing_is_refused_in_our_words_and_taken_when_tried_again(begin: Begin) -> None:
    story, tool = begin(step(100, "1h"), ignoring=ROUTE)
    tool.bring("v2")
    story.until_phase("Progressing")
    # The roll cannot begin: a tool may take its time until it tries.
    no_more_pods(story.namespace, 4)
    assert story.decide("promote").code == 0
    story.until_phase("Releasing")
    # Admission hears of it from a watch of its own.
    image = "app=registry.local/shop:v3"
    tried = ("set", "image", "deployment/shop", image, "-n", story.namespace, "--dry-run=server")
    eventually(lambda: "being released" in refusal(*tried))

    with pytest.raises(CommandFailed, match="being released by Canary shop: retry when it has finished"):
        tool.bring("v3")
    kubectl("delete", "quota", "full", "-n", story.namespace)

    def taken() -> bool:
        with contextlib.suppress(CommandFailed):
            tool.bring("v3")
            return True
        return False

    eventually(taken, every=1)
    story.until(lambda now: now["attempt"]["images"] == ["registry.local/shop:v3"])
    assert story.deployment()["spec"]["paused"]
    assert story.revisions() == {"v2"}


def test_after_a_rollback_the_rejected_manifest_stays_held_and_stables_is_let_go(begin: Begin) -> None:
    story, tool = begin(ignoring=ROUTE)
    tool.bring("v2")
    first = story.until_weight(50)["attempt"]["id"]
    assert story.decide("abort").code == 0
    story.until_phase("RolledBack")

    tool.bring("v2")
    tool.bring("v2")
    assert story.status()["attempt"]["id"] == first
    assert story.deployment()["spec"]["paused"]
    assert story.revisions() == {"v1"}

    tool.bring("v1")
    story.until_phase("Idle")
    eventually(lambda: not story.deployment()["spec"].get("paused"))
    story.assert_nothing_left()


def test_once_the_canary_is_gone_the_tool_rolls_out_as_before_serin(begin: Begin) -> None:
    story, tool = begin(ignoring=ROUTE)
    tool.bring("v2")
    story.until_weight(50)
    kubectl("delete", "canary", "shop", "-n", story.namespace, "--timeout=180s")

    assert not story.deployment()["spec"].get("paused")
    story.assert_nothing_left()
    tool.bring("v1")
    tool.bring("v4")
    kubectl("rollout", "status", "deployment/shop", "-n", story.namespace, "--timeout=180s")
    assert story.revisions() == {"v4"}
    everything = ("deployment/shop", "service/shop", "httproute/shop", "-n", story.namespace, "--show-managed-fields")
    managers = kubectl("get", *everything, "-o", "jsonpath={.items[*].metadata.managedFields[*].manager}")
    assert "serin" not in managers.split()


@pytest.mark.parametrize("tool", ["Flux", "Argo CD"], indirect=True)
def test_a_tool_that_puts_the_route_back_all_the_time_makes_it_hold_and_the_message_has_the_setting(
    begin: Begin,
) -> None:
    story, tool = begin(ignoring=())
    tool.bring("v2")

    told = story.until(lambda now: now.get("reason") in ("RouteReverted", "PinsReverted"))

    setting = "RespectIgnoreDifferences=true" if isinstance(tool, ArgoCd) else "spec.ignore with paths"
    assert setting in told["message"]
    held = {one["type"]: one["status"] for one in told["conditions"]}
    assert held["Holding"] == "True"
    assert story.revisions() == {"v1"}

    tool.ignored |= set(ROUTE)
    assert story.decide("resume").code == 0
    story.until_weight(50)


@pytest.mark.parametrize("tool", ["Helm 3", "Helm 4"], indirect=True)
def test_helms_wait_does_not_wait_for_a_held_deployment_and_kstatus_does(begin: Begin) -> None:
    story, tool = begin()
    tool.bring("v2", "--wait", "--timeout=180s")

    begun = story.until(lambda now: (now.get("attempt") or {}).get("images") == ["registry.local/shop:v2"])
    assert begun["phase"] in ("Preparing", "Progressing"), "Helm is done, the rollout is not"
    held = story.deployment()
    eventually(lambda: story.deployment()["status"]["observedGeneration"] >= held["metadata"]["generation"])
    assert story.deployment()["status"].get("updatedReplicas", 0) == 0, "by which kstatus sees that it is under way"
