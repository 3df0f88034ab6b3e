"""What a ReleaseRecord says of an attempt: a pure function of the status, the same each time."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from controller.model.evidence import Evidence
from controller.model.record import OriginSeen, ReleaseRecordSpec, Said
from controller.model.redact import redact_all
from controller.model.spec import Verb
from controller.model.status import Answered, Attempt, Judged, Status


def record_name(canary: str, attempt: str) -> str:
    """Records outlive their Canary, so the name carries both.

    >>> record_name("checkout", "20261121-142501")
    'checkout-20261121-142501'
    """
    return f"{canary}-{attempt}"


def render_record(canary: str, uid: str, status: Status) -> dict[str, Any]:
    """The spec of the record, without secrets. The outcome appears once the attempt is sealed, with it the totals.

    Raises: ValueError: there is no attempt to record.
    """
    attempt = status.attempt
    if attempt is None:
        raise ValueError("no attempt to record")
    said = tuple(_said(entry) for entry in status.decisions if entry.attempt == attempt.id)
    record = ReleaseRecordSpec(
        canary=canary,
        canary_uid=uid,
        attempt=attempt.id,
        started_at=attempt.started_at,
        template_hash=attempt.template_hash,
        number=attempt.number,
        previous=attempt.previous,
        stable_hash=attempt.from_hash,
        images=attempt.images,
        stable_images=attempt.from_images,
        origin=OriginSeen(
            claimed=attempt.claimed_origin,
            treated=str(attempt.origin),
            trust=str(attempt.trust),
            degree=str(attempt.degree),
        ),
        evidence=None if attempt.evidence == Evidence() else attempt.evidence,
        classes=attempt.classes,
        authors=attempt.authors,
        policies=attempt.policies,
        clamps=attempt.clamps,
        plan=attempt.plan,
        gates=attempt.gates,
        plan_digest=attempt.plan_digest,
        steps=attempt.steps_seen,
        verdicts=tuple(map(_finite, attempt.verdicts)),
        retreats=tuple(map(_finite, attempt.retreats)),
        decisions=said,
        freezes=attempt.freezes,
        glass_broken=any(one.taken and one.decision == Verb.BREAK_GLASS for one in said) or None,
    )
    rendered = redact_all(msgspec.to_builtins(_sealed(record, attempt)))
    assert isinstance(rendered, dict)
    return rendered


def _sealed(record: ReleaseRecordSpec, attempt: Attempt) -> ReleaseRecordSpec:
    if attempt.sealed_at is None or attempt.outcome is None:
        return record
    relief = attempt.seconds_to_relief
    return msgspec.structs.replace(
        record,
        outcome=attempt.outcome.value,
        message=attempt.outcome_message or None,
        finished_at=attempt.sealed_at,
        first_bad_at=attempt.first_bad_at,
        seconds_to_relief=None if relief is None else round(relief, 3),
        canary_requests=attempt.canary_requests,
        canary_errors=attempt.canary_errors,
        courses=attempt.courses or None,
        judged=_finite(attempt.judged) if attempt.judged else None,
    )


def _said(entry: Answered) -> Said:
    return Said(
        at=entry.at,
        decision=entry.decision,
        by=entry.by,
        answer=entry.answer,
        taken=entry.taken,
        step=entry.step,
        reason=entry.reason,
        groups=entry.groups,
        expires_at=entry.expires_at,
    )


def _finite(judged: Judged) -> Judged:
    """JSON has no word for infinity, and a record that cannot be written would stand before the next release."""
    finite = {name: number for name, number in judged.numbers.items() if math.isfinite(number)}
    return msgspec.structs.replace(judged, numbers=finite)
