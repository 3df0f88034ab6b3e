"""What a scrape says, and that docs/metrics.md says the same."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from controller.model.status import Judged, Outcome, Phase, Status
from controller.ports import Ref
from controller.rollout.moves import Become, Decision, Do, SetWeight, Wait
from controller.telemetry.metrics import Inside, Metrics, Shown
from tests.builders import NOON, attempt, status

DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"
REF = Ref("shop", "checkout", "uid-1")
ENDED = attempt(outcome=Outcome.ROLLED_BACK, sealed_at=NOON, seconds_to_relief=2.5, origin="ai")


def served(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample but the process' own, by name and label values in order of label names."""
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
        if family.name.startswith("serin_")
    }


def counted(*decisions: tuple[Status, Decision]) -> dict[tuple[str, tuple[str, ...]], float]:
    metrics = Metrics()
    for before, decision in decisions:
        metrics.decided(REF, before, decision)
    return served(metrics)


def everything() -> Metrics:
    """Metrics of a process to which everything has happened once."""
    shown = {
        "phase": "Progressing",
        "reason": "AwaitingApproval",
        "weight": 10,
        "attempt": {"origin": "ai", "judged": {"metric": "errors", "numbers": {"effect": 0.02, "threshold": 5.3}}},
        "head": {"number": 7, "hash": "sha256:abc"},
        "conditions": [{"type": "AwaitingApproval", "status": "True", "lastTransitionTime": "2026-03-01T12:00:00Z"}],
    }
    metrics = Metrics(
        inside=Inside(
            canaries=lambda: [Shown("shop", "checkout", shown)],
            watches=lambda: [("canaries", 1.5, 2)],
            queued=lambda: 3,
            lease_left=lambda: 5.5,
        )
    )
    metrics.decided(REF, status(attempt=None), Become(status(), "CandidateHeld"))
    retreats = (Judged(at=NOON, verdict="inconclusive", reason="ErrorsHigh"),)
    metrics.decided(REF, status(), Become(status(Phase.RETREATED, attempt=attempt(retreats=retreats)), "Retreated"))
    metrics.decided(REF, status(), Become(status(Phase.ROLLING_BACK, attempt=ENDED), "OnStable"))
    metrics.failed(TimeoutError())
    return metrics


def documented() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Name to type and labels, from the table."""
    rows = re.findall(r"^\| `(serin_\w+)` \| (\w+) \| ([^|]*)\|", DOCUMENT.read_text(), re.MULTILINE)
    return {name: (kind, tuple(sorted(re.findall(r"`(\w+)`", labels)))) for name, kind, labels in rows}


def test_the_document_lists_every_metric_with_its_type_and_labels() -> None:
    found = {}
    for family in text_string_to_metric_families(everything().render().decode()):
        if not family.name.startswith("serin_"):
            continue
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert family.samples, f"{name}: give it a sample above"
        found[name] = (family.type, tuple(sorted(labels)))

    assert documented() == found


def test_every_meaning_in_the_document_is_the_one_that_is_served() -> None:
    text = DOCUMENT.read_text()

    for family in text_string_to_metric_families(everything().render().decode()):
        if family.name.startswith("serin_"):
            assert family.documentation.rstrip(".").split("; 0")[0] in text, family.name


def test_what_the_analysis_said_is_served_number_by_number() -> None:
    seen = served(everything())

    assert seen["serin_canary_judged", ("checkout", "errors", "shop", "effect")] == 0.02
    assert seen["serin_canary_judged", ("checkout", "errors", "shop", "threshold")] == 5.3


def test_an_end_is_counted_once_with_how_long_it_took_and_the_relief() -> None:
    out = status(Phase.ROLLING_BACK, attempt=ENDED)

    seen = counted((status(), Become(out, "OnStable")), (out, Become(out.but(phase=Phase.ROLLED_BACK), "RolledBack")))

    assert seen["serin_rollouts_ended_total", ("ai", "RolledBack")] == 1
    assert seen["serin_rollout_seconds_sum", ("RolledBack",)] == (NOON - ENDED.started_at).total_seconds()
    assert seen["serin_relief_seconds_sum", ()] == 2.5
    assert seen["serin_moves_total", ("Become", "OnStable")] == 1


def test_a_revision_that_went_out_unjudged_begins_and_ends_at_once() -> None:
    unjudged = attempt(outcome=Outcome.UNJUDGED, sealed_at=NOON, started_at=NOON)

    seen = counted((status(Phase.IDLE, attempt=None), Become(status(Phase.IDLE, attempt=unjudged), "UnjudgedRelease")))

    assert seen["serin_rollouts_started_total", ("unknown",)] == 1
    assert seen["serin_rollouts_ended_total", ("unknown", "Unjudged")] == 1


def test_what_has_not_happened_yet_is_there_as_zero() -> None:
    """Prometheus sees a rise only where there was a value before."""
    seen = served(Metrics())

    assert seen["serin_rollouts_ended_total", ("ai", "RolledBack")] == 0
    assert seen["serin_retreats_total", ("human",)] == 0
    assert seen["serin_relief_seconds_count", ()] == 0


def test_acts_are_counted_by_their_name_and_waiting_is_not() -> None:
    seen = counted((status(), Do(SetWeight(0), "WeightTooHigh")), (status(), Wait("Baking")))

    assert seen["serin_moves_total", ("SetWeight", "WeightTooHigh")] == 1
    assert not any("Wait" in labels for _, labels in seen)


def test_a_wait_for_a_person_tells_since_when() -> None:
    seen = served(everything())

    since = seen["serin_canary_waiting_since_seconds", ("checkout", "shop", "AwaitingApproval")]
    # Labels in order of their names: canary, namespace, on.
    assert datetime.fromtimestamp(since, UTC) == NOON
    assert seen["serin_canary_weight_percent", ("checkout", "shop")] == 10
    assert seen["serin_canaries", ("Progressing",)] == 1
    assert seen["serin_canaries", ("Idle",)] == 0


@pytest.mark.parametrize(
    "strange", [{}, {"phase": "Flying"}, {"phase": "Idle", "attempt": None}, {"phase": "Idle", "conditions": None}]
)
def test_a_status_that_nobody_of_ours_wrote_does_not_break_a_scrape(strange: dict[str, object]) -> None:
    metrics = Metrics(inside=Inside(canaries=lambda: [Shown("shop", "checkout", dict(strange))]))

    assert served(metrics)["serin_canary_edits_held", ("checkout", "shop")] == 0


def test_no_label_carries_text_that_people_write() -> None:
    said = status(Phase.ROLLING_BACK, attempt=attempt(outcome=Outcome.ABORTED, sealed_at=NOON))
    marker = "MARKER-7d1f"
    shown = {"phase": "Progressing", "message": marker, "attempt": {"images": [marker], "outcomeMessage": marker}}
    metrics = Metrics(inside=Inside(canaries=lambda: [Shown("shop", "checkout", shown)]))

    metrics.decided(REF, status(), Become(said, "Aborted", f"alice: {marker}"))

    assert marker not in metrics.render().decode()


def test_canaries_that_have_not_changed_are_not_looked_through_for_every_scrape() -> None:
    versions, looked = iter([7, 7, 8]), []

    def canaries() -> list[Shown]:
        looked.append(1)
        return [Shown("shop", "checkout", {"phase": "Progressing", "weight": 10 * len(looked)})]

    metrics = Metrics(inside=Inside(canaries=canaries, canaries_as_of=lambda: next(versions)))

    weights = [served(metrics)["serin_canary_weight_percent", ("checkout", "shop")] for _ in range(3)]

    assert weights == [10, 10, 20]
    assert len(looked) == 2
