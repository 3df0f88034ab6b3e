"""Who is whom: an author under another spelling is barred, and one person counts once."""

import pytest

from controller.guardrails.approval import barred_author, one_person
from controller.guardrails.freeze import Freeze, Subject, frozen_by
from controller.guardrails.origin import authors_of
from controller.model.evidence import Author, Evidence, Origin, Tool, Trust
from controller.model.policy import FreezeSpec, Person
from tests.builders import NOON

ALIKE = [
    "ann@example.com",
    "\u0430nn@example.com",
    "Ann\u200b@example.com",
    "\uff41nn@example.com",
    "mailto:ann@ex\u0430mple.com",
]


@pytest.mark.parametrize("author", ALIKE)
@pytest.mark.parametrize("by", ALIKE)
def test_whoever_looks_like_an_author_of_the_change_may_not_approve_it(by: str, author: str) -> None:
    evidence = Evidence(origin=Origin.AI, trust=Trust.T3, authors=(Author(author),))
    names, _ = authors_of(evidence, (), True)

    told = barred_author(by, sorted(names), evidence)

    assert "is an author of this change (author): somebody else has to approve it" in told
    assert "\u200b" not in told


@pytest.mark.parametrize("by", ALIKE)
def test_names_that_look_the_same_are_one_person(by: str) -> None:
    ann = Person(user="ann", ids=("ann@example.com",))

    assert one_person(by, ()) == "ann@example.com"
    assert one_person(by, (ann,)) == "ann"


def test_an_author_under_a_look_alike_is_the_person_that_a_policy_knows() -> None:
    ann = Person(user="ann", ids=("ann@example.com",))
    evidence = Evidence(trust=Trust.T3, authors=(Author("\u0430nn@example.com"),))

    names, known = authors_of(evidence, (ann,), False)

    assert known
    assert barred_author("ann", sorted(names), evidence)


@pytest.mark.parametrize("name", ["cursor", "CURSOR", "\u0441ursor", "cur\u200bsor"])
def test_a_freeze_of_a_tool_is_not_passed_by_spelling_it_otherwise(name: str) -> None:
    spec = FreezeSpec.model_validate({"reason": "cursor misbehaves", "tools": ["Cursor"]})
    subject = Subject("shop", {}, Origin.AI, evidence=Evidence(origin=Origin.AI, trust=Trust.T3, tools=(Tool(name),)))

    assert frozen_by(Freeze("tools", "u1", spec), subject, NOON) is not None
