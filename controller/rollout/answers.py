"""Decisions: what one person says about one rollout, and what comes of it.

Every Decision gets exactly one answer in the Canary's status, also one that comes too late. Abort is
looked for first and wins over everything.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from controller.model.bound import bound_digest
from controller.model.guarded import Gate
from controller.model.redact import redact
from controller.model.spec import Verb
from controller.model.status import ACTIVE, Answered, Attempt, Outcome, Permitted, Phase, Status
from controller.model.world import DecisionSeen

KEPT = 20
PERMITS = 20
LETS_THROUGH = frozenset({Verb.APPROVE, Verb.PROMOTE, Verb.RETRY, Verb.RESUME, Verb.BREAK_GLASS, Verb.PERMIT})
"""may bring users onto the revision: the right is asked for again, and an end counts"""
STANDING = frozenset({Verb.APPROVE.value, Verb.BREAK_GLASS.value})
"""count until they are used, not once"""
BOUND = frozenset({Verb.APPROVE, Verb.PROMOTE, Verb.BREAK_GLASS})
"""let this very revision through by this very plan, and must name both"""


def answer(status: Status, said: DecisionSeen, now: datetime) -> Status:
    """The status after this Decision: its effect, if it has one, and the answer."""
    refusal = _refusal(status, said, now)
    changed = status if refusal else _effect(status, said, now)
    text = refusal or _ANSWERS[said.verb]
    entry = Answered(
        uid=said.uid,
        decision=said.verb.value,
        by=said.by,
        at=now,
        answer=text,
        taken=not refusal,
        step=said.step,
        attempt=said.attempt,
        reason=said.reason,
        groups=said.groups,
        expires_at=said.expires_at,
    )
    answered = changed.but(decisions=_kept((*changed.decisions, entry), changed.attempt))
    if said.verb is Verb.APPROVE and entry.taken:
        text = _still_closed(answered, said.step, now)
        answered = answered.but(decisions=(*answered.decisions[:-1], msgspec.structs.replace(entry, answer=text)))
    return answered


def approvers(status: Status, gate: Gate, now: datetime, revoked: frozenset[str]) -> tuple[str, ...]:
    """The different people whose approvals count for this gate of the present attempt and still stand."""
    counted = [
        entry.by
        for entry in _standing(status, Verb.APPROVE, now, revoked)
        if entry.step == gate.step and (not gate.groups or set(gate.groups) & set(entry.groups))
    ]
    return tuple(dict.fromkeys(counted))


def closed_gates(status: Status, step: int, now: datetime, revoked: frozenset[str]) -> tuple[Gate, ...]:
    """The gates out of `step` (0: before the first request) that still ask for people."""
    attempt = status.attempt
    if attempt is None or broken_glass(status, now, revoked) is not None:
        return ()
    return tuple(
        gate for gate in attempt.gates if gate.step == step and len(approvers(status, gate, now, revoked)) < gate.count
    )


def asks_for(status: Status, gate: Gate, now: datetime, revoked: frozenset[str]) -> str:
    """What a closed gate says to whoever looks: where it stands, who is asked, by which rule, what to type."""
    where = f"step {gate.step}" if gate.step else "the gate before the first request"
    have = len(approvers(status, gate, now, revoked))
    people = f"{gate.count} approvals, has {have}" if gate.count > 1 else "an approval"
    groups = f" by {' or '.join(gate.groups)}" if gate.groups else ""
    rule = f" (rule {gate.rule}{': ' + gate.why if gate.why else ''})" if gate.rule != "spec" else ""
    return f"{where} asks for {people}{groups}{rule}: kubectl canary approve"


def broken_glass(status: Status, now: datetime, revoked: frozenset[str]) -> Answered | None:
    """The break-glass in force for the present attempt: no gate and no freeze stands before it until it expires."""
    standing = _standing(status, Verb.BREAK_GLASS, now, revoked)
    return standing[-1] if standing else None


def _standing(status: Status, verb: Verb, now: datetime, revoked: frozenset[str]) -> list[Answered]:
    attempt = status.attempt
    return [
        entry
        for entry in status.decisions
        if attempt is not None
        and entry.taken
        and entry.decision == verb
        and entry.attempt == attempt.id
        and entry.uid not in revoked
        and (entry.expires_at is None or now < entry.expires_at)
    ]


_ANSWERS = {
    Verb.APPROVE: "counted",
    Verb.REJECT: "the attempt ends: all traffic goes to stable",
    Verb.ABORT: "all traffic goes to stable",
    Verb.PROMOTE: "bakes and steps that are left are skipped; approvals and a failing verdict are not",
    Verb.RETRY: "the rejected revision gets a new attempt",
    Verb.PAUSE: "no raise until a Resume; analysis and rollback go on",
    Verb.RESUME: "going on",
    Verb.PERMIT: "permitted until it expires, to whoever wrote it",
    Verb.BREAK_GLASS: "glass broken: no approval and no freeze stands before this attempt until it expires",
}


def _refusal(status: Status, said: DecisionSeen, now: datetime) -> str:
    """Why this Decision has no effect; empty when it has one."""
    if said.verb is Verb.THAW:
        return "a Thaw is about a Freeze and not about a Canary"
    if said.verb in LETS_THROUGH and said.expires_at is not None and now >= said.expires_at:
        return f"spec.expiresAt: it expired at {said.expires_at:%Y-%m-%d %H:%M:%S} UTC: decide again"
    if not said.may:
        verb = said.verb.value.lower()
        return f"{said.by} does not hold the verb {verb} on this Canary now, alone or by spec.groups: nothing moves"
    if said.verb is Verb.PERMIT:
        return (
            "" if said.expires_at is not None and said.permits else "spec.permits and spec.expiresAt: both are needed"
        )
    attempt = status.attempt
    if attempt is None:
        return "nothing to decide: there is no rollout"
    if said.attempt != attempt.id:
        return f"spoke about attempt {said.attempt}; the present one is {attempt.id}: decide again about that one"
    if said.verb is Verb.RETRY:
        return "" if status.phase is Phase.ROLLED_BACK else "nothing to retry: this attempt was not rolled back"
    if status.phase not in ACTIVE or status.phase is Phase.ROLLING_BACK:
        return f"too late: attempt {attempt.id} has ended ({attempt.outcome or status.phase})"
    if said.verb is Verb.ABORT:
        return ""
    if status.phase in {Phase.RELEASING, Phase.FINISHING}:
        return "too late: the release has begun; only an Abort is taken now"
    if said.verb in BOUND and (unbound := _unbound(attempt, said)):
        return unbound
    if said.verb is Verb.APPROVE:
        return _no_gate(status, attempt, said.step) or said.barred or _not_asked(attempt, said)
    return ""


def _unbound(attempt: Attempt, said: DecisionSeen) -> str:
    """What it names that is not the present revision or plan; empty when both are named as they are."""
    resolved = {one.image: one.digest for one in attempt.evidence.images}
    for field, found, present in (
        ("digest", said.digest, bound_digest(attempt.images, resolved)),
        ("planDigest", said.plan_digest, attempt.plan_digest),
    ):
        if found != present:
            return (
                f"spec.{field}: this attempt has {present or 'none'}, found {found or 'nothing'}: "
                "look again and decide about what is there now (kubectl canary writes it for you)"
            )
    return ""


def _no_gate(status: Status, attempt: Attempt, step: int) -> str:
    """Why there is nothing to approve there; empty when there is."""
    if not 0 <= step <= len(attempt.plan):
        return f"spec.step: this plan has steps 1 to {len(attempt.plan)}, found {step}"
    if not any(gate.step == step for gate in attempt.gates):
        return f"spec.step: step {step} asks for no approval"
    if step < attempt.step + 1 and (step or status.phase is not Phase.PREPARING):
        return f"spec.step: step {step} has passed; the rollout is on step {attempt.step + 1}"
    return ""


def _not_asked(attempt: Attempt, said: DecisionSeen) -> str:
    """Why this person's approval counts for none of the gates there; empty when it does."""
    gates = [gate for gate in attempt.gates if gate.step == said.step]
    if any(not gate.groups or set(gate.groups) & set(said.groups) for gate in gates):
        return ""
    groups = " or ".join(dict.fromkeys(group for gate in gates for group in gate.groups))
    return f"{said.by} is in none of the groups that rule {gates[0].rule} asks for: {groups}"


def _still_closed(status: Status, step: int, now: datetime) -> str:
    """What an approval that was taken came to."""
    left = closed_gates(status, step, now, frozenset())
    if not left:
        return f"the gate out of step {step} is open" if step else "the gate before the first request is open"
    return f"counted; {asks_for(status, left[0], now, frozenset())}"


def _effect(status: Status, said: DecisionSeen, now: datetime) -> Status:
    match said.verb:
        case Verb.ABORT:
            return get_out(status, Outcome.ABORTED, f"{said.by}: {said.reason}", now)
        case Verb.REJECT:
            return get_out(status, Outcome.REJECTED, f"{said.by}: {said.reason}", now)
        case Verb.PROMOTE:
            return status.with_attempt(promoted_by=said.by)
        case Verb.PAUSE:
            return status.with_attempt(paused=True)
        case Verb.RESUME:
            retreats = len(status.attempt.retreats) if status.attempt else 0
            return status.with_attempt(paused=False, baking_since=None, excused=retreats, drifts=(), unpinned=())
        case Verb.RETRY:
            return status.but(phase=Phase.IDLE, rejected="")
        case Verb.APPROVE if said.step == 0:
            # Deadlines count from when it may go on.
            return status.with_attempt(entered_at=now)
        case Verb.APPROVE | Verb.BREAK_GLASS | Verb.THAW:
            return status
        case Verb.PERMIT:
            assert said.expires_at is not None
            permitted = Permitted(said.permits, said.by, said.expires_at)
            return status.but(permits=(*status.permits, permitted)[-PERMITS:])


def get_out(status: Status, outcome: Outcome, message: str, now: datetime) -> Status:
    """Everything goes back to stable: remembered in one write; the next turn sets weight 0."""
    return status.but(phase=Phase.ROLLING_BACK, weight=0.0, fence=status.fence + 1).with_attempt(
        outcome=outcome,
        outcome_message=redact(message)[:1024],
        entered_at=now,
        baking_since=None,
        resting_since=None,
    )


def _kept(entries: tuple[Answered, ...], attempt: Attempt | None) -> tuple[Answered, ...]:
    """The newest entries; approvals in force are never pushed out by a flood of others."""
    surplus = len(entries) - KEPT
    kept = []
    for entry in entries:
        in_force = attempt is not None and entry.taken and entry.attempt == attempt.id
        if surplus > 0 and not in_force:
            surplus -= 1
            continue
        kept.append(entry)
    return tuple(kept[-KEPT:])
