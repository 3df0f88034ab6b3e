"""What explain tells is what was remembered, of the present attempt and of one that has passed."""

from __future__ import annotations

import argparse
import json
from typing import Any
from xml.etree import ElementTree

import pytest

from controller.cli import explain
from controller.cli.kubectl import Failure
from controller.cli.screen import Screen
from tests.unit.cli.scenes import MemoryCluster, at, attempt, canary

Object = dict[str, Any]
API = "/apis/serin.dev/v1alpha1/namespaces/shop"
COURSE = {
    "metric": "errors",
    "margin": 0.005,
    "points": [[5.0, 5.0, 0.05, -0.1, 0.3], [10.0, 5.0, 0.06, 0.01, 0.12], [15.0, 0.0, 0.06, 0.02, 0.11]],
}


def judged(**numbers: float) -> Object:
    usual = {
        "effect": 0.06,
        "low": 0.02,
        "high": 0.11,
        "margin": 0.005,
        "canaryRequests": 265.0,
        "canaryErrors": 17.0,
        "stableRequests": 17335.0,
        "stableErrors": 0.0,
        "evidence": 3.2,
        "threshold": 4.6,
    }
    return {
        "at": at(-580),
        "verdict": "inconclusive",
        "reason": "ErrorsTripped",
        "metric": "errors",
        "message": "errors +6.00 pp",
        "numbers": usual | numbers,
        "wouldChange": "a rest, then the weight comes back",
    }


def cluster(**changes: Any) -> MemoryCluster:
    usual: Object = {"judged": judged(), "courses": [COURSE], "retreats": [judged()], "verdicts": None}
    knows = canary(attempt=attempt(**(usual | changes)))
    record = {"spec": {"attempt": "a-1", "outcome": "RolledBack", "message": "retreated 3 times"}}
    record["spec"] |= {"startedAt": at(-900), "retreats": [judged()], "courses": [COURSE], "judged": judged()}
    return MemoryCluster({f"{API}/canaries/checkout": knows, f"{API}/releaserecords/checkout-a-1": record})


def said(capsys: pytest.CaptureFixture[str], known: MemoryCluster, **changes: str) -> str:
    usual = {"name": "checkout", "namespace": "shop", "attempt": "", "output": ""}
    assert explain.run(argparse.Namespace(**(usual | changes)), known, Screen()) == 0
    return capsys.readouterr().out


def test_the_numbers_stand_in_sentences_with_what_would_change_them(capsys: pytest.CaptureFixture[str]) -> None:
    told = said(capsys, cluster())

    assert (
        "errors: 17 of 265 requests (6.42 %) on the canary and 0 of 17,335 requests (0 %) on stable were bad." in told
    )
    assert "Compared at the same moments the difference is +6 pp; allowed are +0.5 pp." in told
    assert "between +2 pp and +11 pp" in told
    assert "All of that is more than is allowed" in told
    assert "3.2 of the 4.6 that convict" in told
    assert "What would change this: a rest, then the weight comes back." in told
    assert "1. after 20s: retreat (ErrorsTripped)" in told


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(-0.2, 0.2, "does not settle it"), (-0.01, 0.004, "not worse by more than the margin"), (0.01, 0.2, "is worse")],
)
def test_the_interval_is_read_against_the_margin(
    capsys: pytest.CaptureFixture[str], low: float, high: float, words: str
) -> None:
    assert words in said(capsys, cluster(judged=judged(low=low, high=high)))


def test_what_does_not_fit_together_at_first_sight_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    unsettled = judged(low=-0.075, high=0.075)

    under_way = said(capsys, cluster(judged=unsettled))
    promoted = said(
        capsys, cluster(judged=judged(low=-0.075, high=0.075, certified=1.0), outcome="Promoted", retreats=None)
    )

    assert "A retreat takes less than that." in under_way
    assert "does not settle it either way yet." in under_way
    assert "It is certified not to be worse" in promoted
    assert "A retreat takes less" not in promoted
    assert "What would change this" not in promoted


def test_the_drawing_shows_difference_interval_and_margin(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, cluster()).splitlines()
    drawn = [line for line in lines if line[11:12] in ("┤", "│")]

    assert len(drawn) == 11
    assert sum(line.count("●") for line in drawn) == 3
    assert sum("┄" in line for line in drawn) == 1


def test_an_attempt_that_has_passed_is_told_from_its_record(capsys: pytest.CaptureFixture[str]) -> None:
    told = said(capsys, cluster(), attempt="a-1")

    assert "checkout attempt a-1: RolledBack: retreated 3 times" in told
    assert "●" in told


def test_programs_get_the_course_and_pages_get_a_picture(capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(said(capsys, cluster(), output="json"))
    picture = ElementTree.fromstring(said(capsys, cluster(), output="svg"))

    assert document["metrics"]["errors"]["course"][1] == {
        "at": 10.0,
        "weight": 5.0,
        "effect": 0.06,
        "interval": [0.01, 0.12],
    }
    assert picture.tag.endswith("svg")


def test_before_anything_was_compared_it_says_so_and_draws_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    bare = cluster(judged=None, courses=None, retreats=None)

    assert "Nothing has been compared in this attempt yet." in said(capsys, bare)
    with pytest.raises(Failure, match="nothing to draw yet"):
        said(capsys, bare, output="svg")


def test_an_attempt_nobody_knows_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Failure, match="no record of attempt a-9: see `kubectl canary records checkout`"):
        said(capsys, cluster(), attempt="a-9")


def test_text_from_the_cluster_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    evil = judged() | {"metric": "err\x1b[2Jors", "wouldChange": "\x1b]0;title\x07"}

    assert "\x1b" not in said(capsys, cluster(judged=evil, retreats=[evil]))


def test_what_was_known_before_it_began_is_told_with_the_noise_it_is_judged_by(
    capsys: pytest.CaptureFixture[str],
) -> None:
    known = cluster()
    present = known.objects[f"{API}/canaries/checkout"]["status"]
    outlook = {
        "attempt": present["attempt"]["id"],
        "rate": 240.0,
        "ratio": 0.001,
        "steps": [{"weight": 5.0, "requests": 720.0, "lasts": 310.0, "sees": 0.01}],
        "warnings": ["step 1 cannot see it"],
        "noiseFrom": "learned from 12 pods over 2.0 h, 0.1 % of their requests bad",
        "rehearsal": {"rollouts": 36, "message": "36 harmless rollouts of 10 min replayed: none retreated"},
    }
    present["outlook"] = outlook

    text = said(capsys, known)

    for words in ("step 1 (5%) sees failures from 1 % on", "learned from 12 pods", "36 harmless", "cannot see it"):
        assert words in text
    present["outlook"]["attempt"] = "another"
    assert "learned from" not in said(capsys, known), "noise of another attempt is not this one's"


def test_what_convicted_is_told_and_not_what_was_counted_while_it_was_carried_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    convicting = judged(evidence=5.2) | {"verdict": "fail", "reason": "ErrorsRegressed"}

    told = said(capsys, cluster(judged=judged(evidence=0.6), verdicts=[convicting]))

    assert "5.2 of the 4.6 that convict" in told
