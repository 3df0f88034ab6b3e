"""The page of faults says what the tests prove, and no row is left out."""

from __future__ import annotations

import pytest

from tests.faults.catalogue import FAULTS, PAGE, proofs, render


@pytest.mark.parametrize("row", FAULTS)
def test_each_row_has_a_test_with_its_number(row: int) -> None:
    assert any(proof.row == row for proof in proofs()), FAULTS[row]


def test_the_page_is_what_the_tests_make_of_it() -> None:
    assert PAGE.read_text() == render(), "run: python -m tests.faults.catalogue"
