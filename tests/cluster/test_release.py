"""Releases from the first edit to the last clean-up, with the controller that Helm installed.

Each test is one story of a person and a workload; bakes are seconds, traffic and metrics are real.
"""

from __future__ import annotations

from tests.cluster.serin import StartStory, serin, start, step

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
    story.assert_nothing_left()
