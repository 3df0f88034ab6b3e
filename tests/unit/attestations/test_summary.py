"""Several images and several statements come to the worst of each; losing one never loosens."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from controller.attestations.statements import CHANGE_ORIGIN, TEST_RESULT, Refused, Verified, verify
from controller.attestations.summary import Found, summarise
from controller.model.evidence import Evidence, ImageSeen, Origin, Trust
from tests.unit.attestations.signing import DIGEST, IMAGE, NOON, OTHER, origin, signed, signer, statement

TESTED = Verified(TEST_RESULT, "build", "sha256:1")


def said(**changes: Any) -> Verified:
    found = verify(signed(statement(origin(**changes))), DIGEST, [signer()], NOON)
    assert isinstance(found, Verified)
    return found


def image(*verified: Verified, digest: str = DIGEST, **changes: Any) -> Found:
    return Found(ImageSeen(f"registry.example/shop@{digest}", digest), verified, **changes)


def test_one_signed_statement_is_proof() -> None:
    found = summarise([image(said(origin="human", degree=None, tools=None))], NOON)

    assert (found.origin, found.trust) == (Origin.HUMAN, Trust.T3)
    assert found.authors[0].id == "mailto:ann@example.com"
    assert (found.accountable, found.reversible, found.revision) == ("mailto:owner@example.com", True, "c" * 40)
    assert found.images[0].digest == DIGEST
    assert found.problems == ()


def test_nothing_found_is_the_strictest_there_is() -> None:
    found = summarise([image()], NOON)

    assert (found.origin, found.trust, found.reversible) == (Origin.UNKNOWN, Trust.T0, None)
    assert "kubectl canary attest" in found.problems[0]


def test_of_two_statements_about_one_image_the_worse_counts() -> None:
    found = summarise([image(said(origin="human"), said(origin="ai"))], NOON)

    assert (found.origin, found.trust) == (Origin.AI, Trust.T3)


def test_a_class_is_vouched_for_where_a_statement_of_every_image_names_it() -> None:
    both, one = said(changeClasses=["config", "auth"]), said(changeClasses=["auth"])

    assert summarise([image(said())], NOON).classes == ()
    assert summarise([image(said(), both)], NOON).classes == ("auth", "config")
    assert summarise([image(both), image(one, digest=OTHER)], NOON).classes == ("auth",)
    assert summarise([image(both), image(digest=OTHER)], NOON).classes == ()


def test_one_image_without_a_statement_makes_all_of_it_unknown() -> None:
    found = summarise([image(said(origin="human")), image(digest=OTHER)], NOON)

    assert (found.origin, found.trust) == (Origin.UNKNOWN, Trust.T2)
    assert found.accountable == ""


def test_a_tag_can_be_moved_so_that_what_it_proves_may_only_tighten() -> None:
    person = summarise([image(said(origin="human"), TESTED, movable=True)], NOON)
    agent = summarise([image(said(origin="ai"), movable=True)], NOON)

    assert (person.origin, person.trust, person.predicates) == (Origin.UNKNOWN, Trust.T2, ())
    assert agent.origin is Origin.AI
    assert "name the image by its digest" in person.problems[0]


def test_a_required_statement_counts_when_every_image_has_it_and_a_failed_one_always() -> None:
    failed = Verified(TEST_RESULT, "build", "sha256:2", "failed")

    assert TEST_RESULT not in {one.type for one in summarise([image(TESTED), image(digest=OTHER)], NOON).predicates}
    assert [one.result for one in summarise([image(TESTED), image(TESTED, digest=OTHER)], NOON).predicates] == [
        "passed"
    ]
    assert summarise([image(TESTED), image(failed, digest=OTHER)], NOON).predicates[0].result == "failed"


def test_what_was_not_believed_is_told_with_the_image_it_was_found_at() -> None:
    found = summarise([image(refused=(Refused("sha256:" + "1" * 64, "signed by no key"),))], NOON)

    assert found.problems[0].startswith(f"{IMAGE}: statement sha256:111111111111 is not believed: signed by no key")


def test_every_image_needs_somebody_who_answers_for_it_and_one_no_to_reversible_decides() -> None:
    nobody = said(accountable=None, reversible=False)

    owned = summarise([image(said(), nobody)], NOON)
    half = summarise([image(said()), image(nobody, digest=OTHER)], NOON)

    assert (owned.accountable, owned.reversible) == ("mailto:owner@example.com", False)
    assert half.accountable == ""


STATEMENTS = st.lists(
    st.sampled_from(Origin).map(lambda one: said(origin=one.value)) | st.just(TESTED), max_size=4
).map(tuple)  # fmt: skip


def strictness(found: Evidence) -> tuple[int, int]:
    """Unknown and AI are met alike."""
    return min(found.origin.rank, Origin.UNKNOWN.rank), -int(found.trust[1])


@given(st.lists(STATEMENTS, min_size=1, max_size=3), st.data())
def test_losing_every_statement_of_an_image_never_loosens(
    images: list[tuple[Verified, ...]], data: st.DataObject
) -> None:
    lost = data.draw(st.integers(0, len(images) - 1))
    before = summarise([image(*one) for one in images], NOON)
    after = summarise([image(*(() if number == lost else one)) for number, one in enumerate(images)], NOON)

    assert strictness(after) >= strictness(before)
    assert len([one for one in after.predicates if one.result == "passed"]) <= len(before.predicates)
    assert CHANGE_ORIGIN not in {one.type for one in after.predicates} or after.trust is Trust.T3
