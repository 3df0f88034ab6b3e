"""What an attempt remembers: how it begins, its place in the chain, and what the analysis knew as it turned back."""

from __future__ import annotations

from datetime import datetime

import msgspec

from controller.model.guarded import PlanStep, Touched
from controller.model.policy import ChangeClass
from controller.model.status import Attempt, Head, Judged, Outcome, Phase, Stable, Status
from controller.model.uses import uses
from controller.model.world import Observed, Target
from controller.rollout.answers import get_out
from controller.rollout.moves import Become

MADE_AGAIN = "the workload was deleted and made again"
"""with another selector, as it may be: nobody can change that of a Deployment that is there"""


def head_of(seen: Observed) -> Head:
    """The record of the attempt that has ended. One that could not be sealed keeps its place, and has no hash."""
    status, attempt = seen.status, seen.status.attempt
    assert attempt is not None
    return Head(max(attempt.number, status.head.number), seen.record.hash or status.head.hash)


def place_of(seen: Observed) -> Head:
    """The record that the next one follows; a Canary made again goes on with the chain of its name."""
    status = seen.status
    return Head(seen.record.number, seen.record.hash) if status.attempt is None else status.head


def _attempt_id(seen: Observed, now: datetime) -> str:
    """The second it began in; with its number in the chain, where another began in the same one."""
    name, before = now.strftime("%Y%m%d-%H%M%S"), seen.status.attempt
    return f"{name}-{place_of(seen).number + 1}" if before is not None and before.id.startswith(name) else name


def _next(seen: Observed, target: Target, template_hash: str, images: tuple[str, ...], now: datetime) -> Attempt:
    """The one that follows in the chain, and what it comes from; no plan yet."""
    place, stable = place_of(seen), seen.status.stable
    return Attempt(
        id=_attempt_id(seen, now),
        number=place.number + 1,
        previous=place.hash,
        template_hash=template_hash,
        started_at=now,
        plan=(),
        claimed_origin=target.origin[:20],
        images=images,
        from_hash=stable.template_hash if stable else "",
        from_images=stable.images if stable else (),
    )


def begin(seen: Observed, target: Target, now: datetime) -> Become:
    """A held edit is a candidate: a new attempt, from weight 0, by the plan that the policies leave."""
    assert seen.ruling is not None
    status, ruling = seen.status, seen.ruling
    attempt = msgspec.structs.replace(
        _next(seen, target, target.template_hash, target.images, now),
        entered_at=now,
        plan=_with_hold_back(ruling.plan, seen.spec.analysis.hold_back if seen.spec else 0.0),
        plan_digest=ruling.digest,
        analysis=ruling.analysis,
        origin=ruling.origin,
        degree=ruling.degree,
        trust=ruling.trust,
        evidence=ruling.evidence,
        classes=ruling.classes,
        authors=ruling.authors,
        gates=ruling.gates,
        policies=ruling.policies,
        clamps=ruling.clamps,
        no_data=ruling.no_data,
        stable_floor=target.stable_ready,
        unheld=target.strays
        or (not status.edits_held and target.settled_hash != (status.stable.hash if status.stable else "")),
    )
    return Become(
        status.but(phase=Phase.PREPARING, attempt=attempt, holding=True, weight=0.0, fence=status.fence + 1),
        "CandidateHeld",
        f"attempt {attempt.id}: {', '.join(target.images)}",
    )


def unjudged(target: Target, seen: Observed, why: str, now: datetime) -> Attempt:
    """What to record of a revision that went out without a comparison."""
    return msgspec.structs.replace(
        _next(seen, target, target.settled_template_hash, target.settled_images, now),
        sealed_at=now,
        classes=(Touched(ChangeClass.DESTRUCTIVE, (why,)),) if why == MADE_AGAIN else (),
        outcome=Outcome.UNJUDGED,
        outcome_message=why,
    )


def stable_of(target: Target) -> Stable:
    return Stable(
        uid=target.uid,
        hash=target.settled_hash,
        template_hash=target.settled_template_hash,
        template=target.settled_template,
        images=target.settled_images,
        uses=uses(target.settled_template),
        strategy=target.strategy,
        replicas=target.replicas,
    )


def _with_hold_back(plan: tuple[PlanStep, ...], percent: float) -> tuple[PlanStep, ...]:
    """Through a step at 100 something stays on stable: without it there is nothing to compare with."""
    most = 100.0 - percent
    return tuple(msgspec.structs.replace(step, weight=most) if step.weight > most else step for step in plan)


def retreated(seen: Observed, why: str, now: datetime, message: str = "") -> Status:
    """Weight 0 for now, remembered in one write together with what the analysis knows."""
    status = checkpointed(seen)
    assert status.attempt is not None
    tripped = why == "Tripped"
    judged = seen.verdict.judged if tripped else None
    entry = judged or Judged(at=now, verdict="inconclusive", reason=why, message=message)
    # What stable's own template does on fresh pods is nobody's third strike.
    harmless = why == "BaselineNotReady" or (tripped and (seen.verdict.excused or not seen.verdict.replace))
    kept = status.attempt.retreats[-19:]
    forgotten = len(status.attempt.retreats) - len(kept)
    return status.but(phase=Phase.RETREATED, weight=0.0, fence=status.fence + 1).with_attempt(
        retreats=(*kept, entry),
        replacing=tripped and seen.verdict.replace,
        excused=max(status.attempt.excused - forgotten, 0) + harmless,
        first_bad_at=status.attempt.first_bad_at or seen.verdict.first_bad_at,
        baking_since=None,
        resting_since=None,
        entered_at=now,
    )


def with_pods(seen: Observed, attempt: Attempt) -> tuple[Judged, ...]:
    """The retreats, the last of them with the pods it was about."""
    if not attempt.retreats or not seen.verdict.pods:
        return attempt.retreats
    last = msgspec.structs.replace(attempt.retreats[-1], pods=seen.verdict.pods)
    return (*attempt.retreats[:-1], last)


def convicted(seen: Observed, now: datetime) -> Status:
    """Roll back because of a verdict; what the analysis counted is remembered with it, as with every end."""
    attempt, judged = seen.status.attempt, seen.verdict.judged
    assert attempt is not None
    status = seen.status.with_attempt(
        retreats=with_pods(seen, attempt),
        verdicts=attempt.verdicts if judged is None else (*attempt.verdicts[-39:], judged),
        first_bad_at=attempt.first_bad_at or seen.verdict.first_bad_at,
    )
    return get_out(status, Outcome.ROLLED_BACK, judged.message if judged else "the analysis failed", now)


def checkpointed(seen: Observed, status: Status | None = None) -> Status:
    """The status with the analysis' sufficient statistics, where this turn has newer ones."""
    verdict, status = seen.verdict, status or seen.status
    if not verdict.checkpoint:
        return status
    return status.with_attempt(
        judge=verdict.checkpoint,
        judged=verdict.judged,
        courses=verdict.courses,
        gauges=verdict.gauges,
        evaluated_through=verdict.evaluated_through,
        canary_requests=verdict.canary_requests,
        canary_errors=verdict.canary_errors,
    )
