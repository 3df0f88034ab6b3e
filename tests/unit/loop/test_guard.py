"""Whose a decision is, and whether that person may approve, by what policies and the attempt know."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.guardrails.freeze import Freeze
from controller.guardrails.policy import Policy
from controller.loop.guard import frozen_now, with_people
from controller.model.evidence import Author, Evidence
from controller.model.policy import FreezeSpec, OnStart, Person, ReleasePolicySpec, Where
from controller.model.spec import Verb
from controller.model.status import Answered, Phase
from controller.model.world import DecisionSeen
from controller.ports import CanarySeen, Ref, RulesSeen
from tests.builders import NOON, attempt, status

ANN = Person(user="ann", ids=("ann-admin", "ann@example.com"))
RULES = RulesSeen(policies=(Policy("people", ReleasePolicySpec(people=(ANN,))),))


def says(by: str) -> DecisionSeen:
    return DecisionSeen(f"u-{by}", f"d-{by}", Verb.APPROVE, by, "20260301-115000", 0, "because", NOON)


def test_two_accounts_are_one_person_where_some_policy_says_so_and_two_people_elsewhere() -> None:
    given = status(attempt=attempt())

    known = with_people((says("ann"), says("Ann-Admin"), says("bo")), given, RULES)
    unknown = with_people((says("ann"), says("ann-admin")), given, RulesSeen())

    assert [one.person for one in known] == ["ann", "ann", "bo"]
    assert [one.person for one in unknown] == ["ann", "ann-admin"]


@pytest.mark.parametrize(
    "rules", [RulesSeen(problem="silent"), RulesSeen(unreadable_policies=(("people", "a field"),))]
)
def test_while_nobody_can_tell_whose_accounts_they_are_no_approval_counts_and_a_way_out_does(rules: RulesSeen) -> None:
    given = status(attempt=attempt())
    abort = replace(says("ann"), verb=Verb.ABORT)

    approval, override, out = with_people((says("ann"), replace(says("bo"), verb=Verb.OVERRIDE), abort), given, rules)

    assert (approval.may, override.may, out.may) == (None, None, True)


def test_an_author_is_told_so_and_before_an_attempt_there_is_none() -> None:
    written = attempt(authors=("ann", "ann@example.com"), evidence=Evidence(authors=(Author("ann@example.com"),)))

    (told,) = with_people((says("ann"),), status(attempt=written), RULES)
    (nothing,) = with_people((says("ann"),), status(attempt=None), RULES)

    assert "ann is an author of this change" in told.barred
    assert nothing.barred == ""


def frozen(passed: str, phase: Phase = Phase.PROGRESSING, **spec: Any) -> str:
    """The freeze that holds an attempt which somebody let pass one of them."""
    said = Answered("d1", "Override", "bea", NOON, "taken", True, attempt=attempt().id, freeze=passed)
    begun = status(phase=phase, attempt=attempt(), decisions=(said,))
    seen = CanarySeen(Ref("shop", "checkout", "u1"), "1", 1, False, True, None, (), begun)
    stored: list[tuple[str, Any]] = [("peak", {}), ("stop", spec)]
    read = tuple(Freeze(name, f"u-{name}", FreezeSpec(reason="because", **body)) for name, body in stored)
    held = frozen_now(seen, RulesSeen(freezes=read), NOON)
    return held.name if held else ""


def test_who_may_pass_one_freeze_is_held_by_every_other() -> None:
    assert frozen("u-peak") == "stop"
    assert frozen("u-stop") == "peak"
    assert frozen("u-peak", selector=Where(namespaces=("billing",))) == ""


def test_a_freeze_that_takes_users_back_does_so_whoever_may_pass_it() -> None:
    assert frozen("u-stop", on_start=OnStart.ROLL_BACK) == "stop"
    assert frozen("u-stop", Phase.IDLE, on_start=OnStart.ROLL_BACK) == "peak"
