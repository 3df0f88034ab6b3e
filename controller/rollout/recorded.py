"""What a ReleaseRecord says of an attempt: a pure function of the status, the same each time."""

from __future__ import annotations

from typing import Any

import msgspec

from controller.model.status import Attempt, Judged, Status


def record_name(canary: str, attempt: str) -> str:
    """Records outlive their Canary, so the name carries both.

    >>> record_name("checkout", "20261121-142501")
    'checkout-20261121-142501'
    """
    return f"{canary}-{attempt}"


def render_record(canary: str, uid: str, status: Status) -> dict[str, Any]:
    """The spec of the record. The outcome appears once the attempt is sealed, and with it the totals.

    Raises: ValueError: there is no attempt to record.
    """
    attempt = status.attempt
    if attempt is None:
        raise ValueError("no attempt to record")
    body: dict[str, Any] = {
        "canary": canary,
        "canaryUid": uid,
        "attempt": attempt.id,
        "startedAt": attempt.started_at,
        "templateHash": attempt.template_hash,
        "stableHash": attempt.from_hash,
        "images": list(attempt.images),
        "stableImages": list(attempt.from_images),
        "origin": {
            "claimed": attempt.claimed_origin or "unknown",
            "treated": attempt.origin,
            "trust": attempt.trust,
        },
        "planDigest": attempt.plan_digest,
        "steps": [{"step": seen.step, "weight": seen.weight, "at": seen.at} for seen in attempt.steps_seen],
        "verdicts": [_judgement(one) for one in attempt.verdicts],
        "retreats": [_judgement(one) for one in attempt.retreats],
        "decisions": [
            {
                "at": said.at,
                "decision": said.decision,
                "by": said.by,
                "reason": said.reason or "-",
                "answer": said.answer,
            }
            for said in status.decisions
            if said.taken and said.attempt == attempt.id
        ],
    }
    if attempt.sealed_at is not None and attempt.outcome is not None:
        body |= _seal(attempt)
    rendered = msgspec.to_builtins(body)
    assert isinstance(rendered, dict)
    return rendered


def _seal(attempt: Attempt) -> dict[str, Any]:
    sealed: dict[str, Any] = {
        "outcome": attempt.outcome,
        "message": attempt.outcome_message,
        "finishedAt": attempt.sealed_at,
        "canaryRequests": attempt.canary_requests,
        "canaryErrors": attempt.canary_errors,
    }
    if attempt.seconds_to_relief is not None:
        sealed["secondsToRelief"] = round(attempt.seconds_to_relief, 3)
    return sealed


def _judgement(judged: Judged) -> dict[str, Any]:
    return {
        "at": judged.at,
        "verdict": judged.verdict,
        "reason": judged.reason,
        "metric": judged.metric,
        "message": judged.message,
        "numbers": judged.numbers,
    }
