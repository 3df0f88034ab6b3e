"""What a record says of an attempt, and how records are chained."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from controller.model.evidence import Author, Evidence, Origin, Tool, Trust
from controller.model.record import ReleaseRecordSpec
from controller.model.status import Answered, Head, Judged, Outcome, Phase, Status
from controller.model.world import CanaryPods, Pins, RecordSeen
from controller.rollout.decide import decide
from controller.rollout.moves import Become, Do, StoreRecord
from controller.rollout.recorded import render_record
from tests.builders import MINUTE, NEW, NOON, OLD, attempt, observed, spec, stable, status, target

SEALED = RecordSeen(exists=True, outcome="RolledBack", number=3, hash="sha256:3")


def ended(**changes: object) -> Status:
    """Rolled back and at rest, with the third record of this Canary."""
    gone = attempt(number=3, previous="sha256:2", outcome=Outcome.ROLLED_BACK, sealed_at=NOON)
    return status(Phase.ROLLED_BACK, attempt=gone, weight=0.0, rejected=NEW, **changes)


def test_a_record_holds_what_was_known_of_the_origin_and_nothing_secret() -> None:
    evidence = Evidence(
        origin=Origin.AI,
        trust=Trust.T3,
        tools=(Tool("claude-code", model="anthropic/claude", prompt_digest="sha256:abc"),),
        authors=(Author("mailto:dev@example.com", "prompter"),),
        accountable="owner@example.com",
        human_modifications="names only; token=abcdef0123456789",
    )
    judged = Judged(NOON, "fail", "AnalysisFailed", numbers={"lnE": 7.5, "bound": float("inf")})
    done = attempt(
        origin=Origin.AI,
        trust=Trust.T3,
        evidence=evidence,
        verdicts=(judged,),
        outcome=Outcome.ROLLED_BACK,
        outcome_message="see https://bob:pa55word@logs.example/x",
        sealed_at=NOON,
        first_bad_at=NOON - MINUTE,
        seconds_to_relief=1.23456,
    )

    record = render_record("checkout", "uid-1", status(attempt=done))

    assert record["evidence"]["tools"][0]["promptDigest"] == "sha256:abc"
    assert record["evidence"]["authors"] == [{"id": "mailto:dev@example.com", "role": "prompter"}]
    assert record["evidence"]["humanModifications"] == "names only; token=[redacted]"
    assert record["message"] == "see https://[redacted]@logs.example/x"
    assert record["verdicts"][0]["numbers"] == {"lnE": 7.5}, "JSON has no word for infinity"
    assert (record["secondsToRelief"], record["canaryRequests"]) == (1.235, 0)
    assert msgspec.convert(record, ReleaseRecordSpec, strict=False).outcome == "RolledBack"


def test_decisions_that_were_refused_are_recorded_beside_those_that_were_taken() -> None:
    said = tuple(
        Answered(f"d{n}", "Approve", by, NOON, answer, taken, 1, "20260301-115000", "because")
        for n, (by, answer, taken) in enumerate([("author", "you wrote it", False), ("owner", "open", True)])
    )
    of_another = Answered("d9", "Abort", "owner", NOON, "done", True, 0, "20260201-000000", "because")

    record = render_record("checkout", "uid-1", status(decisions=(of_another, *said)))

    assert [(one["by"], one.get("taken", False)) for one in record["decisions"]] == [("author", False), ("owner", True)]


def test_what_ended_is_stored_then_remembered_as_head_before_anything_new_begins() -> None:
    edited = observed(status=ended(head=Head(2, "sha256:2")), target=target(template_hash="cccc"))

    assert decide(replace(edited, record=RecordSeen(exists=True)), NOON) == Do(StoreRecord(), "Recording")
    remembered = decide(replace(edited, record=SEALED), NOON)
    assert isinstance(remembered, Become)
    assert (remembered.status.head, remembered.status.phase) == (Head(3, "sha256:3"), Phase.ROLLED_BACK)
    begun = decide(replace(edited, status=remembered.status, record=SEALED), NOON)
    assert isinstance(begun, Become)
    assert begun.status.attempt is not None
    assert (begun.status.attempt.number, begun.status.attempt.previous) == (4, "sha256:3")


def test_a_record_that_could_not_be_sealed_keeps_its_place_and_the_chain_goes_around_it() -> None:
    refused = RecordSeen(exists=True, outcome="RolledBack", number=3)

    decision = decide(observed(status=ended(head=Head(2, "sha256:2")), record=refused), NOON)

    assert isinstance(decision, Become)
    assert decision.status.head == Head(3, "sha256:2")


def test_a_canary_made_again_goes_on_with_the_chain_of_its_name() -> None:
    fresh = Status(phase=Phase.IDLE, stable=stable(), edits_held=True, leader_epoch=1, observed_generation=1)

    begun = decide(observed(status=fresh, spec=spec(), pins=Pins(), record=SEALED), NOON)

    assert isinstance(begun, Become)
    assert begun.status.attempt is not None
    assert (begun.status.attempt.number, begun.status.attempt.previous) == (4, "sha256:3")


def test_two_attempts_of_one_second_have_two_names() -> None:
    first = attempt(id=NOON.strftime("%Y%m%d-%H%M%S"), number=1, outcome=Outcome.WITHDRAWN, sealed_at=NOON)
    idle = status(Phase.IDLE, attempt=first, weight=0.0, head=Head(1, "sha256:1"))
    seen = observed(status=idle, pins=Pins(), record=replace(SEALED, number=1))

    begun = decide(replace(seen, target=target(template_hash="cccc", settled_template_hash=OLD)), NOON)

    assert isinstance(begun, Become)
    assert begun.status.attempt is not None
    assert begun.status.attempt.id == "20260301-120000-2"


def test_what_pods_say_reaches_status_and_events_without_its_credentials() -> None:
    trouble = "failed to pull https://bob:pa55word@registry.example/shop:2"
    pods = CanaryPods(exists=True, attempt="20260301-115000", wanted=1, trouble="ErrImagePull", trouble_message=trouble)

    decision = decide(observed(canary=pods), NOON)

    assert isinstance(decision, Become)
    assert decision.status.attempt is not None
    for text in (decision.message, decision.status.message, decision.status.attempt.outcome_message):
        assert "[redacted]@registry.example/shop:2" in text
        assert "pa55word" not in text
    assert "pa55word" not in str(decision.status)
