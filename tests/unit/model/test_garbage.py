"""A status that passes the schema and that nobody could have meant is an error of reading, not of deciding."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from controller.model.spec import Analysis, read_analysis, render_analysis
from controller.model.status import ACTIVE, NOT_OURS, parse_status, read_status

ATTEMPT: dict[str, Any] = {"id": "x", "templateHash": "h", "startedAt": "2026-03-01T12:00:00Z", "plan": []}


@pytest.mark.parametrize("phase", sorted(ACTIVE))
@pytest.mark.parametrize("attempt", [{}, {"attempt": ATTEMPT}], ids=["no attempt", "no plan"])
def test_row_04_a_rollout_without_a_plan_cannot_be_read(phase: str, attempt: dict[str, Any]) -> None:
    """A status in which a rollout runs and there is none: named, left alone, and nobody else waits for it."""
    with pytest.raises(msgspec.ValidationError, match="no attempt with a plan"):
        parse_status({"phase": phase} | attempt)


def test_at_rest_there_need_be_none() -> None:
    assert parse_status({"phase": "Idle"}).attempt is None


def test_row_30_what_a_newer_definition_allows_and_this_version_does_not_know_is_left_alone() -> None:
    """An unknown phase or outcome is an error of reading; unknown fields are somebody else's."""
    with pytest.raises(msgspec.ValidationError):
        parse_status({"phase": "Marinating"})
    with pytest.raises(msgspec.ValidationError):
        parse_status({"attempt": ATTEMPT | {"outcome": "Sideways"}})
    assert parse_status({"phase": "Idle", "mood": "calm"}).phase == "Idle"


@pytest.mark.parametrize(
    ("body", "phase", "attempt"),
    [
        pytest.param({"phase": "Marinating"}, "Pending", "a-1", id="a phase"),
        pytest.param({"phase": "Progressing", "schemaVersion": 9}, "Pending", "a-1", id="a schema"),
        pytest.param(
            {"phase": "RollingBack", "attempt": {"id": "a-2", "outcome": "Sideways"}},
            "RollingBack",
            "a-2",
            id="outcome",
        ),
        pytest.param({"phase": "Retreated", "mood": 1, "schemaVersion": 9}, "Retreated", "a-1", id="a retreat"),
        pytest.param({"phase": "Marinating", "attempt": "none"}, "Pending", "", id="no attempt"),
        pytest.param({"phase": ["Idle"], "attempt": {"id": 7}}, "Pending", "", id="nonsense"),
    ],
)
def test_row_31_of_a_status_that_is_not_ours_the_way_out_is_read_and_nothing_else(
    body: dict[str, Any], phase: str, attempt: str
) -> None:
    """Which attempt an Abort would be about, whether it is on its way out already, and what fences the route."""
    found, why = read_status({"leaderEpoch": 3, "fence": 2, "weight": 30, "attempt": {"id": "a-1"}} | body)

    assert why
    assert (found.phase, found.attempt.id if found.attempt else "", found.epoch) == (phase, attempt, "3.2")
    assert found.schema_version == NOT_OURS


@pytest.mark.parametrize("broken", [{"leaderEpoch": "third", "fence": None}, {"leaderEpoch": -1, "fence": 0.5}])
def test_a_fence_that_is_no_number_is_none(broken: dict[str, Any]) -> None:
    assert read_status({"phase": "Marinating"} | broken)[0].epoch == "0.0"


def test_a_status_of_ours_is_read_whole() -> None:
    assert read_status({"phase": "Idle", "weight": 3}) == (parse_status({"phase": "Idle", "weight": 3}), "")


FRESH = Analysis.model_validate(
    {
        "minRequests": 7,
        "baseline": {"fresh": True},
        "onTrip": "rollback",
        "metrics": [{"name": "errors", "errorRatio": {"template": "mesh"}, "objective": 0.1}],
    }
)


@pytest.mark.parametrize("analysis", [Analysis(), FRESH])
def test_an_analysis_is_remembered_whole(analysis: Analysis) -> None:
    assert read_analysis(render_analysis(analysis)) == (analysis, ())


def test_of_an_analysis_nothing_is_remembered_that_a_version_before_could_not_read_and_nobody_asked_for() -> None:
    # The settings of the first release, which refused whatever else it met.
    assert set(render_analysis(Analysis())) == {
        "source", "falseRollbackRate", "minRequests", "warmup", "noDataTimeout", "metrics",
    }  # fmt: skip


KNOWN = {"name": "errors", "errorRatio": {}}


@pytest.mark.parametrize(
    ("newer", "unknown", "metrics"),
    [
        pytest.param({"mood": "calm"}, ("analysis.mood",), ["errors"], id="a field"),
        pytest.param({"onTrip": "wait"}, ("analysis.onTrip",), ["errors"], id="a word"),
        pytest.param({"baseline": {"age": "1h"}}, ("analysis.baseline.age",), ["errors"], id="a field within"),
        pytest.param(
            {"metrics": [{"name": "joy", "survey": {}}, KNOWN]}, ("analysis.metrics.0.survey",), ["errors"], id="a kind"
        ),
        pytest.param(
            {"metrics": [KNOWN | {"strictly": True}]},
            ("analysis.metrics.0.strictly", "analysis.metrics"),
            None,
            id="the only metric",
        ),
        pytest.param({"metrics": "many"}, ("analysis.metrics",), None, id="another shape"),
    ],
)
def test_row_30_of_a_newer_analysis_what_is_not_known_is_named_and_the_rest_is_kept(
    newer: dict[str, Any], unknown: tuple[str, ...], metrics: list[str] | None
) -> None:
    """What is not known of the analysis of a rollout holds it; by the rest it is judged meanwhile."""
    kept, named = read_analysis({"minRequests": 7, "metrics": [KNOWN]} | newer)

    assert named == unknown
    assert (kept and [metric.name for metric in kept.metrics]) == metrics
    assert kept is None or kept.min_requests == 7
