"""Every Decision gets one answer: what it is bound to, how long it stands, and who still may."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controller.model.evidence import Evidence, ImageSeen
from controller.model.guarded import Gate
from controller.model.spec import Verb
from controller.model.status import Answered, Outcome, Permitted, Phase, Status
from controller.model.world import DecisionSeen, Pins, Weight
from controller.rollout.answers import LETS_THROUGH, answer, approvers, broken_glass
from controller.rollout.decide import decide
from controller.rollout.moves import Become, Wait
from tests.builders import NOON, OLD, gated, observed, status, target

HOUR = timedelta(hours=1)
NOBODY = frozenset[str]()
GATED = gated(Gate(1), images=("shop:2",), plan_digest="sha256:plan")


def says(verb: Verb, **changes: Any) -> DecisionSeen:
    """A decision about the present attempt, bound to what it is."""
    usual: dict[str, Any] = {
        "uid": "d1",
        "name": "d1",
        "verb": verb,
        "by": "alice",
        "attempt": GATED.id,
        "step": 1,
        "reason": "because",
        "at": NOON,
        "digest": "shop:2",
        "plan_digest": "sha256:plan",
    }
    return DecisionSeen(**usual | changes)


def answered(said: DecisionSeen, given: Status | None = None) -> Answered:
    return answer(given or status(attempt=GATED), said, NOON).decisions[-1]


@pytest.mark.parametrize("verb", [Verb.APPROVE, Verb.PROMOTE, Verb.BREAK_GLASS])
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"digest": "shop:3"}, "spec.digest: this attempt has shop:2, found shop:3"),
        ({"digest": ""}, "found nothing"),
        ({"plan_digest": "sha256:other"}, "spec.planDigest: this attempt has sha256:plan"),
        ({"expires_at": NOON}, "spec.expiresAt: it expired at 2026-03-01 12:00:00 UTC"),
        ({"may": False}, "alice does not hold the verb"),
    ],
    ids=["another revision", "no revision", "another plan", "expired", "right taken away"],
)
def test_row_75_what_lets_a_revision_through_must_be_about_it_in_time_and_by_right(
    verb: Verb, changes: dict[str, Any], said: str
) -> None:
    assert answered(says(verb)).taken
    refused = answered(says(verb, **changes))

    assert not refused.taken
    assert said in refused.answer


@pytest.mark.parametrize("verb", [Verb.ABORT, Verb.REJECT, Verb.PAUSE])
def test_getting_users_off_a_revision_is_bound_to_nothing(verb: Verb) -> None:
    late = says(verb, digest="", plan_digest="", expires_at=NOON - HOUR)

    assert answered(late).taken


def test_a_tag_that_was_moved_after_the_approval_was_written_voids_it() -> None:
    moved = gated(Gate(1), images=GATED.images, plan_digest=GATED.plan_digest)
    evidence = Evidence(images=(ImageSeen("shop:2", "sha256:new"),))
    given = status(attempt=moved).with_attempt(evidence=evidence)

    assert not answered(says(Verb.APPROVE, digest="shop:2@sha256:old"), given).taken
    assert answered(says(Verb.APPROVE, digest="shop:2@sha256:new"), given).taken


def entry(uid: str = "d1", by: str = "alice", **changes: Any) -> Answered:
    usual: dict[str, Any] = {"decision": "Approve", "step": 1, "attempt": GATED.id, "taken": True, "at": NOON}
    return Answered(uid=uid, by=by, answer="open", **usual | changes)


@pytest.mark.parametrize(
    ("said", "people"),
    [
        pytest.param((entry(), entry("d2", "bob")), {"alice", "bob"}, id="two people"),
        pytest.param((entry(), entry("d2")), {"alice"}, id="one person twice is one"),
        pytest.param((entry(step=2),), set(), id="another step"),
        pytest.param((entry(attempt="20260101-000000"),), set(), id="another attempt"),
        pytest.param((entry(taken=False),), set(), id="refused"),
        pytest.param((entry(expires_at=NOON),), set(), id="expired meanwhile"),
        pytest.param((entry(expires_at=NOON + HOUR),), {"alice"}, id="not expired yet"),
        pytest.param((entry("d9"),), set(), id="right taken away meanwhile"),
    ],
)
def test_who_stands_behind_a_gate(said: tuple[Answered, ...], people: set[str]) -> None:
    given = status(attempt=GATED, decisions=said)

    assert set(approvers(given, Gate(1), NOON, frozenset({"d9"}))) == people


def test_row_76_a_gate_that_was_opened_shuts_again_when_the_right_is_taken_away_before_it_is_passed() -> None:
    given = observed(status=status(attempt=GATED, decisions=(entry(),)))

    passed, shut = decide(given, NOON), decide(replace(given, revoked=frozenset({"d1"})), NOON)

    assert passed.reason == "StepStarted"
    assert (type(shut), shut.reason) in {(Wait, "AwaitingApproval"), (Become, "AwaitingApproval")}


def test_a_decision_whose_right_nobody_could_tell_waits_and_hides_no_abort() -> None:
    unsure = says(Verb.APPROVE, may=None)
    given = observed(status=status(attempt=GATED), decisions=(unsure,))

    assert "d1" not in {one.uid for one in getattr(decide(given, NOON), "status", given.status).decisions}
    aborted = decide(replace(given, decisions=(unsure, says(Verb.ABORT, uid="d2"))), NOON)
    assert isinstance(aborted, Become)
    assert aborted.status.phase is Phase.ROLLING_BACK


def test_broken_glass_opens_every_gate_until_it_expires_and_stops_no_rollback() -> None:
    broken = entry(decision="BreakGlass", expires_at=NOON + HOUR)
    given = observed(status=status(attempt=GATED, decisions=(broken,)))

    assert decide(given, NOON).reason == "StepStarted"
    assert decide(given, NOON + 2 * HOUR).reason == "AwaitingApproval"
    assert broken_glass(given.status, NOON, frozenset({"d1"})) is None
    failing = decide(replace(given, verdict=replace(given.verdict, fail=True)), NOON)
    assert isinstance(failing, Become)
    assert failing.status.attempt is not None
    assert failing.status.attempt.outcome is Outcome.ROLLED_BACK


def test_every_verb_is_told_apart_by_what_it_may_bring_about() -> None:
    assert {verb for verb in Verb if verb not in LETS_THROUGH} >= {Verb.ABORT, Verb.REJECT, Verb.PAUSE}
    assert approvers(Status(), Gate(1), NOON, NOBODY) == ()


def test_an_approval_counts_only_for_gates_that_ask_for_one_of_the_persons_groups() -> None:
    gate = Gate(1, 1, ("sre", "owners"), "strict/people")
    asked = status(attempt=gated(gate, images=("shop:2",), plan_digest="sha256:plan"))

    stranger = answered(says(Verb.APPROVE, groups=("dev",)), asked)
    owner = answered(says(Verb.APPROVE, groups=("dev", "owners")), asked)

    assert (stranger.taken, owner.taken) == (False, True)
    assert stranger.answer == "alice is in none of the groups that rule strict/people asks for: sre or owners"
    assert approvers(status(attempt=asked.attempt, decisions=(owner,)), gate, NOON, NOBODY) == ("alice",)


def test_a_permit_stands_for_whoever_wrote_it_until_it_expires() -> None:
    said = says(Verb.PERMIT, attempt="", permits="Deployment/checkout", expires_at=NOON + HOUR)
    idle = status(Phase.IDLE, attempt=None, weight=0.0, holding=False)

    permitted = answer(idle, said, NOON)

    assert permitted.permits == (Permitted("Deployment/checkout", "alice", NOON + HOUR),)
    seen = observed(status=permitted, target=target(template_hash=OLD, paused=False), pins=Pins(), weight=Weight())
    waiting = decide(seen, NOON)
    assert getattr(waiting, "until", None) == NOON + HOUR or isinstance(waiting, Become)
    ended = decide(seen, NOON + HOUR)
    assert isinstance(ended, Become)
    assert ended.status.permits == ()


@pytest.mark.parametrize("changes", [{"expires_at": NOON}, {"may": False}, {"permits": ""}, {"expires_at": None}])
def test_a_permit_without_right_end_or_object_permits_nothing(changes: dict[str, Any]) -> None:
    said = says(Verb.PERMIT, **{"permits": "Service/checkout", "expires_at": NOON + HOUR} | changes)

    assert answer(status(), said, NOON).permits == ()


def test_an_expired_permit_stands_before_no_rollback() -> None:
    given = status(attempt=GATED, permits=(Permitted("Service/checkout", "alice", NOON - HOUR),))
    failing = replace(observed(status=given).verdict, fail=True)

    decision = decide(observed(status=given, verdict=failing), NOON)

    assert isinstance(decision, Become)
    assert decision.status.phase is Phase.ROLLING_BACK


def test_a_permit_in_a_status_that_a_newer_serin_wrote_is_left_to_that_one() -> None:
    given = status(schema_version=99, permits=(Permitted("Service/checkout", "alice", NOON - HOUR),))

    assert decide(observed(status=given), NOON) == Wait("NewerStatus", decide(observed(status=given), NOON).message)
