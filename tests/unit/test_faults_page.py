"""The page of faults says what the tests prove, and no row is left out without a word."""

from __future__ import annotations

import pytest

from tests.faults.catalogue import FAULTS, PAGE, WITHOUT_TEST, proofs, render


@pytest.mark.parametrize("row", FAULTS)
def test_each_row_has_a_test_with_its_number_or_says_why_not(row: int) -> None:
    proven = any(proof.row == row for proof in proofs())

    assert proven != (row in WITHOUT_TEST), FAULTS[row]


def test_the_page_is_what_the_tests_make_of_it() -> None:
    assert PAGE.read_text() == render(), "run: python -m tests.faults.catalogue"
