"""A cluster whose API server cannot pause an edit in its own request, as before Kubernetes 1.36: it rests paused.

It wants a cluster of its own kind: `python -m tests.parts older`.
"""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.cluster.objects import CommandFailed, eventually, kubectl, made, refusal, shop_deployment
from tests.cluster.serin import SYSTEM, StartStory, serin, start, step

__all__ = ["serin", "start"]


@pytest.fixture
def deployers() -> list[str]:
    """A group whose members deploy with `replace` and have no verb of Serin's own."""
    may = ("--verb=get,list,update,patch", "--resource=deployments.apps")
    made("clusterrole", "deployers", *may)
    made("clusterrolebinding", "deployers", "--clusterrole=deployers", "--group=deployers")
    return ["deployers"]


def test_where_the_api_server_cannot_pause_an_edit_the_deployment_rests_paused(
    start: StartStory, namespace: str, deployers: list[str]
) -> None:
    # In one wording, or in the other when kubectl remembers a cluster that had stood at the same address.
    said = refusal("get", "mutatingadmissionpolicies")
    assert "resource type" in said or "could not find the requested resource" in said, "or this cluster is a usual one"
    story = start(step(50, "1h"), processes=False)
    (edits,) = [one for one in story.status()["conditions"] if one["type"] == "EditsHeld"]
    assert "paused at rest" in edits["message"]
    assert story.deployment()["spec"]["paused"]
    assert story.deployment()["status"]["readyReplicas"] == 2

    kubectl("scale", "deployment/shop", "--replicas=3", "-n", namespace)
    eventually(lambda: story.deployment()["status"].get("readyReplicas") == 3)
    with pytest.raises(CommandFailed, match="stays paused at rest"):
        kubectl("replace", "-f", "-", stdin=shop_deployment("shop", namespace, "v2", 3), user="ci", groups=deployers)
    story.replicas = 3

    story.edit("v2")
    story.until_weight(50)
    assert story.decide("abort").code == 0
    first = story.until_ended()
    assert (first["outcome"], story.revisions()) == ("Aborted", {"v1"})
    story.edit("v3")
    story.until_weight(50)
    assert story.decide("promote").code == 0
    assert story.until_ended(after=first["id"])["outcome"] == "Promoted"
    assert story.revisions() == {"v3"}

    story.until_held()
    assert story.deployment()["spec"]["paused"]
    assert "serin" not in json.dumps(story.deployment()["metadata"])
    removed = subprocess.run(
        ["helm", "uninstall", "serin", "-n", SYSTEM, "--timeout", "240s"], capture_output=True, text=True, check=False
    )
    assert removed.returncode == 0, removed.stderr
    assert not story.deployment()["spec"].get("paused")
    story.assert_nothing_left()
