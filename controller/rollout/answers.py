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
from controller.model.world import DecisionSeen, Target

KEPT = 20
MOST_STANDING = KEPT // 2
"""decisions of an attempt that count until they are used; no plan asks for as many"""
PERMITS = 20
LETS_THROUGH = frozenset(
    {Verb.APPROVE, Verb.PROMOTE, Verb.RETRY, Verb.RESUME, Verb.BREAK_GLASS, Verb.OVERRIDE, Verb.PERMIT}
)
"""may bring users onto the revision: the right is asked for again, and an end counts"""
STANDING = frozenset({Verb.APPROVE.value, Verb.BREAK_GLASS.value, Verb.OVERRIDE.value})
"""count until they are used, not once"""
BOUND = frozenset({Verb.APPROVE, Verb.PROMOTE, Verb.BREAK_GLASS, Verb.OVERRIDE})
"""let this very revision through by this very plan, and must name both"""
BY_PERSON = frozenset({Verb.APPROVE, Verb.OVERRIDE})
"""ask whose account it is: two of one person are one, and an author's is none"""

ADVISED = frozenset({"GaugeHigher", "GaugeMissing", "ObjectiveMissed"})
"""reasons to hold that are advice: a Resume overrules them for the rest of the attempt"""


def answer(
    status: Status, said: DecisionSeen, now: datetime, *, holds: str = "", target: Target | None = None, name: str = ""
) -> Status:
    """The status after this Decision: its effect, if it has one, and the answer. `name` is the target's.

    What a Resume means hangs on what it ends: `holds` is the reason for which the rollout would not go on without it,
    as it is now, for a takeover or a freeze may have written another one to status.
    """
    refusal = _refusal(status, said, now, holds)
    changed = status if refusal else _effect(status, said, now, holds, target)
    text = refusal or _answer(status, said, holds, target, name)
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
        freeze=said.freeze,
        person=said.person,
        said_at=said.at,
    )
    answered = changed.but(decisions=_kept((*changed.decisions, entry), changed.attempt))
    if said.verb is Verb.APPROVE and entry.taken:
        text = _still_closed(answered, said.step, now)
        answered = answered.but(decisions=(*answered.decisions[:-1], msgspec.structs.replace(entry, answer=text)))
    return answered


def approvers(status: Status, gate: Gate, now: datetime, revoked: frozenset[str]) -> tuple[str, ...]:
    """The different people whose approvals count for this gate of the present attempt and still stand."""
    counted = {
        entry.person or entry.by: entry.by
        for entry in _standing(status, Verb.APPROVE, now, revoked)
        if entry.step == gate.step and (not gate.groups or set(gate.groups) & set(entry.groups))
    }
    return tuple(counted.values())


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


def overridden(status: Status, now: datetime, revoked: frozenset[str]) -> dict[str, Answered]:
    """The freezes that somebody lets the present attempt pass, by uid, until each expires."""
    return {entry.freeze: entry for entry in _standing(status, Verb.OVERRIDE, now, revoked)}


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
    Verb.OVERRIDE: "Freeze {freeze} does not hold this attempt until this expires; approvals and other freezes do",
    Verb.BREAK_GLASS: "glass broken: no approval and no freeze stands before this attempt until it expires",
}


def _answer(status: Status, said: DecisionSeen, holds: str, target: Target | None, name: str) -> str:
    """What comes of a Decision that is taken."""
    if said.verb is Verb.RESUME and holds == "StableTooSmall":
        return f"going on: {_floor(target)} ready pods of stable are enough from now on"
    if said.verb is Verb.RETRY and target and status.stable and target.template_hash == status.stable.template_hash:
        return f"the workload has stable's template again, and the revision waits to be applied: {_again(target, name)}"
    return _ANSWERS[said.verb].format(freeze=said.freeze_name)


def _again(target: Target, name: str) -> str:
    """What to type, so that the rejected revision is there once more."""
    number = target.candidate_revision
    undo = f"kubectl rollout undo deployment/{name} --to-revision={number}, or " if number else ""
    return f"{undo}what released it before (kubectl apply -f its manifest, helm upgrade, a sync): it gets a new attempt"


def _refusal(status: Status, said: DecisionSeen, now: datetime, holds: str) -> str:
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
        if status.phase is Phase.IDLE and status.rejected == attempt.template_hash:
            return (
                "too early: the template is stable's now. Apply the rejected revision first, and retry while it is held"
            )
        return "" if status.phase is Phase.ROLLED_BACK else "nothing to retry: this attempt was not rolled back"
    if status.phase not in ACTIVE or status.phase is Phase.ROLLING_BACK:
        return f"too late: attempt {attempt.id} has ended ({attempt.outcome or status.phase})"
    if said.verb is Verb.ABORT:
        return ""
    stands = status.phase is Phase.RELEASING and holds == "ObjectiveMissed"
    if status.phase in {Phase.RELEASING, Phase.FINISHING} and not (stands and said.verb is Verb.RESUME):
        return "too late: the release has begun; only an Abort is taken now"
    if said.verb in BOUND and (unbound := _unbound(attempt, said)):
        return unbound
    if said.verb in STANDING and (needless := _needless(status, attempt, said)):
        return needless
    if said.verb is Verb.OVERRIDE:
        both = said.freeze and said.expires_at is not None
        return said.barred or ("" if both else "spec.freeze and spec.expiresAt: both are needed")
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


def _needless(status: Status, attempt: Attempt, said: DecisionSeen) -> str:
    """Why this stands already, or cannot stand beside so many others: what stands is kept, so it is bounded."""
    standing = [entry for entry in status.decisions if _stands(entry, attempt)]
    for entry in standing:
        same = (entry.decision, entry.step, entry.freeze) == (said.verb, said.step, said.freeze)
        lasts = entry.expires_at is None or (said.expires_at is not None and said.expires_at <= entry.expires_at)
        if same and lasts and (entry.person or entry.by) == (said.person or said.by):
            return f"{entry.by} said so already at {entry.at:%Y-%m-%d %H:%M:%S} UTC, and that stands"
    most = MOST_STANDING if said.verb in BY_PERSON else KEPT - 2
    return f"{len(standing)} approvals and exceptions stand, and no more are kept" if len(standing) >= most else ""


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


def _effect(status: Status, said: DecisionSeen, now: datetime, holds: str, target: Target | None) -> Status:
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
            if holds in ADVISED:
                # The bake is over; the person has seen what the gauge says.
                return status.with_attempt(paused=False, overruled=True)
            if holds == "StableTooSmall":
                status = status.with_attempt(stable_floor=_floor(target))
            return status.with_attempt(
                paused=False, baking_since=None, entered_at=now, excused=retreats, drifts=(), unpinned=()
            )
        case Verb.RETRY:
            return status.but(phase=Phase.IDLE, rejected="")
        case Verb.APPROVE if said.step == 0:
            # Deadlines count from when it may go on.
            return status.with_attempt(entered_at=now)
        case Verb.APPROVE | Verb.BREAK_GLASS | Verb.OVERRIDE | Verb.THAW:
            return status
        case Verb.PERMIT:
            assert said.expires_at is not None
            permitted = Permitted(said.permits, said.by, said.expires_at)
            return status.but(permits=(*status.permits, permitted)[-PERMITS:])


def _floor(target: Target | None) -> int:
    """The pods of stable that a person takes as enough for all traffic; no pod at all never is."""
    return max(target.stable_ready, 1) if target else 1


def get_out(status: Status, outcome: Outcome, message: str, now: datetime) -> Status:
    """Everything goes back to stable: remembered in one write; the next turn sets weight 0."""
    return status.but(phase=Phase.ROLLING_BACK, weight=0.0, fence=status.fence + 1).with_attempt(
        outcome=outcome,
        outcome_message=redact(message)[:1024],
        entered_at=now,
        baking_since=None,
        resting_since=None,
    )


def unanswered(said: tuple[DecisionSeen, ...], status: Status) -> tuple[DecisionSeen, ...]:
    """Those without an answer; one older than what we remember was answered and its answer dropped.

    They are answered in their order, so both are told by when they were made and not by our clock. An Abort that could
    still end the attempt is not asked for its age: had it been answered, the attempt would be on its way out.
    """
    answered = {entry.uid for entry in status.decisions}
    through = _answered_through(status)
    return tuple(
        one
        for one in said
        if one.uid not in answered and (through is None or (one.at, one.uid) > through or _ends(one, status))
    )


def _ends(said: DecisionSeen, status: Status) -> bool:
    active = status.phase in ACTIVE and status.phase is not Phase.ROLLING_BACK
    return active and said.verb is Verb.ABORT and status.attempt is not None and said.attempt == status.attempt.id


def _answered_through(status: Status) -> tuple[datetime, str] | None:
    """The oldest Decision whose answer a flood can push out: what was made before, and has no answer here, had one.
    None while nothing was ever pushed out."""
    if len(status.decisions) < KEPT:
        return None
    return next(
        ((entry.said_at or entry.at, entry.uid) for entry in status.decisions if not _stands(entry, status.attempt)),
        None,
    )


def _stands(entry: Answered, attempt: Attempt | None) -> bool:
    """Whether it may still let this attempt through; an approval of a step that has passed has done its work."""
    if attempt is None or not entry.taken or entry.attempt != attempt.id or entry.decision not in STANDING:
        return False
    return entry.decision != Verb.APPROVE or entry.step > attempt.step or entry.step == attempt.step == 0


def _kept(entries: tuple[Answered, ...], attempt: Attempt | None) -> tuple[Answered, ...]:
    """The newest entries; what counts until it is used is never pushed out by a flood of others."""
    surplus = len(entries) - KEPT
    kept = []
    for entry in entries:
        if surplus > 0 and not _stands(entry, attempt):
            surplus -= 1
            continue
        kept.append(entry)
    return tuple(kept)
