"""Every Decision gets one answer: what it is bound to, how long it stands, and who still may."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from controller.model.evidence import Evidence, ImageSeen
from controller.model.guarded import Gate
from controller.model.spec import Verb
from controller.model.status import Answered, Outcome, Permitted, Phase, Status
from controller.model.world import DecisionSeen, Pins, Target, Weight
from controller.rollout.answers import LETS_THROUGH, answer, approvers, broken_glass, overridden, unanswered
from controller.rollout.decide import decide
from controller.rollout.moves import Become, Wait
from tests.builders import NEW, NOON, OLD, attempt, gated, observed, status, target

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
    about = {"freeze": "f1", "freeze_name": "peak", "expires_at": NOON + HOUR} if verb is Verb.OVERRIDE else {}
    return DecisionSeen(**usual | about | changes)


def answered(said: DecisionSeen, given: Status | None = None) -> Answered:
    return answer(given or status(attempt=GATED), said, NOON).decisions[-1]


@pytest.mark.parametrize("verb", [Verb.APPROVE, Verb.PROMOTE, Verb.BREAK_GLASS, Verb.OVERRIDE])
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
        pytest.param(
            (entry(person="alice"), entry("d2", "alice-admin", person="alice")),
            {"alice-admin"},
            id="by two accounts too",
        ),
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


def test_an_override_lets_its_freeze_pass_until_it_expires_and_opens_no_gate() -> None:
    said = says(Verb.OVERRIDE)

    given = answer(status(attempt=GATED), said, NOON)

    assert given.decisions[-1].answer.startswith("Freeze peak does not hold this attempt until this expires")
    assert set(overridden(given, NOON, NOBODY)) == {"f1"}
    assert overridden(given, NOON + HOUR, NOBODY) == {}
    assert overridden(given, NOON, frozenset({"d1"})) == {}
    assert broken_glass(given, NOON, NOBODY) is None
    assert decide(observed(status=given), NOON).reason == "AwaitingApproval"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"freeze": ""}, "spec.freeze and spec.expiresAt: both are needed"),
        ({"expires_at": None}, "spec.freeze and spec.expiresAt: both are needed"),
        ({"barred": "alice is an author of this change"}, "alice is an author of this change"),
    ],
    ids=["no freeze", "no end", "an author"],
)
def test_an_override_without_freeze_or_end_or_by_an_author_is_none(changes: dict[str, Any], said: str) -> None:
    given = answered(says(Verb.OVERRIDE, **changes))

    assert (given.taken, given.answer) == (False, said)


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


def flooded(*first: DecisionSeen, count: int = 40) -> tuple[Status, list[DecisionSeen]]:
    """After `first`, so many Pauses and Resumes, two seconds apart, each answered when it came."""
    said = [*first]
    for number in range(count):
        verb = Verb.PAUSE if number % 2 == 0 else Verb.RESUME
        said.append(says(verb, uid=f"f{number}", at=NOON + timedelta(seconds=2 * number)))
    given = status(attempt=GATED)
    for one in said:
        given = answer(given, one, one.at + timedelta(milliseconds=300))
    return given, said


def test_a_flood_of_decisions_pushes_no_approval_out_and_none_of_them_is_answered_twice() -> None:
    given, said = flooded(says(Verb.APPROVE, uid="ok"))

    assert len(given.decisions) == 20
    assert approvers(given, Gate(1), NOON, NOBODY) == ("alice",)
    assert unanswered(tuple(said), given) == ()


def test_what_is_refused_in_a_flood_is_answered_once_and_does_not_come_to_life_later() -> None:
    given, said = flooded()
    retry = says(Verb.RETRY, uid="retry", at=NOON + timedelta(seconds=90))

    given = answer(given, retry, NOON + timedelta(seconds=91))

    assert not given.decisions[-1].taken
    assert unanswered((*said, retry), given) == ()


def test_in_a_second_full_of_decisions_each_is_answered_once_in_the_order_they_are_read() -> None:
    """Objects have whole seconds, our clock has fractions of them or is ahead by minutes."""
    crowd = tuple(says(Verb.PAUSE if n % 2 else Verb.RESUME, uid=f"u{n:02}", at=NOON) for n in range(60))
    given, answers = status(attempt=GATED), list[str]()
    while left := unanswered(crowd, given):
        answers.append(left[0].uid)
        given = answer(given, left[0], NOON + timedelta(minutes=10))

    assert answers == [one.uid for one in crowd]


def test_an_abort_of_the_running_attempt_is_never_taken_for_one_that_was_answered() -> None:
    given, _ = flooded()
    abort = says(Verb.ABORT, uid="a0", at=NOON)

    assert unanswered((abort,), given) == (abort,)
    ended = answer(given, abort, NOON + HOUR)
    assert ended.phase is Phase.ROLLING_BACK
    assert unanswered((abort, says(Verb.ABORT, uid="a1", at=NOON)), flooded()[0].but(phase=Phase.ROLLING_BACK)) == ()


def test_what_an_earlier_serin_answered_counts_by_the_time_of_its_answer() -> None:
    given, said = flooded()
    older = given.but(decisions=tuple(msgspec.structs.replace(entry, said_at=None) for entry in given.decisions))

    assert unanswered(tuple(said), older) == ()


def test_saying_the_same_again_is_told_so_and_leaves_room_for_others() -> None:
    given = status(attempt=gated(Gate(1, count=2), images=("shop:2",), plan_digest="sha256:plan"))
    for number in range(30):
        given = answer(given, says(Verb.APPROVE, uid=f"a{number}"), NOON)
    given = answer(given, says(Verb.APPROVE, uid="b", by="bob"), NOON)

    assert [entry.taken for entry in given.decisions].count(True) == 2
    assert "said so already" in given.decisions[-2].answer
    assert approvers(given, Gate(1, count=2), NOON, NOBODY) == ("alice", "bob")


def test_more_exceptions_than_anything_asks_for_are_refused_and_break_glass_is_still_heard() -> None:
    given = status(attempt=GATED)
    for number in range(15):
        given = answer(given, says(Verb.OVERRIDE, uid=f"o{number}", freeze=f"f{number}"), NOON)

    last = given.decisions[-1]
    assert (last.taken, "no more are kept" in last.answer) == (False, True)
    assert answered(says(Verb.BREAK_GLASS, uid="bg", expires_at=NOON + HOUR), given).taken


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (target(template_hash=GATED.template_hash), "the rejected revision gets a new attempt"),
        (
            target(template_hash=OLD, candidate_revision=7),
            "kubectl rollout undo deployment/checkout --to-revision=7, or ",
        ),
        (target(template_hash=OLD), "waits to be applied: what released it before (kubectl apply"),
    ],
    ids=["it is held", "stable's was put back", "and the history does not have it"],
)
def test_a_retry_says_what_to_type_where_the_revision_has_to_be_applied_again(found: Target, words: str) -> None:
    over = status(Phase.ROLLED_BACK, attempt=GATED, rejected=GATED.template_hash)

    changed = answer(over, says(Verb.RETRY), NOON, target=found, name="checkout")

    assert words in changed.decisions[-1].answer
    assert (changed.phase, changed.rejected) == (Phase.IDLE, "")


@pytest.mark.parametrize(("rejected", "words"), [(NEW, "Apply the rejected revision first"), ("x", "not rolled back")])
def test_a_retry_that_comes_before_the_rejected_revision_is_held_again_is_told_so(rejected: str, words: str) -> None:
    withdrawn = status(Phase.IDLE, attempt=attempt(template_hash=NEW), rejected=rejected)

    found = answered(says(Verb.RETRY), withdrawn)

    assert (found.taken, words in found.answer) == (False, True)
