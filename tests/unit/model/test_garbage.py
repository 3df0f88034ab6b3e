"""A status that passes the schema and that nobody could have meant is an error of reading, not of deciding."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from controller.model.status import ACTIVE, parse_status

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
