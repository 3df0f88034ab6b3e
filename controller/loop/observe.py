"""Observe: read all that the present phase may decide on, and nothing that could stand before a way out.

While traffic has to leave the canary, the route is all that is read: a metrics outage, a missing
template or a slow list must not come between a verdict and weight 0. A look that is not live asks the API
server nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

from controller.errors import NeedsUser, NotFound, Retryable, SourceUnavailable
from controller.loop.guard import frozen_now, read_ruling, with_bars
from controller.loop.world import World
from controller.model.spec import Analysis, CanarySpec, Verb
from controller.model.status import ACTIVE, Phase, Status
from controller.model.world import CanaryPods, DecisionSeen, Observed, Pins, RecordSeen, Target, Verdict, Weight
from controller.ports import CanarySeen, Ref
from controller.rollout.answers import KEPT, LETS_THROUGH, STANDING
from controller.rollout.decide import must_get_out

JUDGED = frozenset({Phase.PROGRESSING, Phase.RETREATED})
RESTING = frozenset({Phase.PENDING, Phase.IDLE, Phase.ROLLED_BACK})
OUT = frozenset({Phase.RETREATED, Phase.ROLLING_BACK})
NOT_YET = frozenset({Phase.PENDING, Phase.IDLE})


async def observe(
    seen: CanarySeen, world: World, now: datetime, *, live: bool = True, verdict: Verdict | None = None
) -> Observed:
    """What is so, for one turn. Without `live`, as far as watches have brought it: that much costs no request.

    A `verdict` of this turn is not asked for again.
    """
    status, ref = seen.status, seen.ref
    spec = _as_begun(seen.spec, status)
    base = Observed(
        status=status,
        spec=spec,
        generation=seen.generation,
        deleting=seen.deleting or world.leaving,
        has_finalizer=seen.has_finalizer,
        term=world.term(),
        problems=seen.problems,
    )
    if spec is None:
        return base
    if status.phase in ACTIVE:
        base = replace(base, frozen=frozen_now(seen, world.rules.read_rules(), now))
        if not base.deleting and must_get_out(status, base.frozen):
            # A stop that somebody asked for waits for no route, no metrics and no list.
            return base
    if _traffic_must_leave(status):
        weight = await world.router.read_weight(ref, spec, live=live)
        # A retreat may still become a rollback, or be answered, once the canary has no traffic.
        if status.phase is Phase.ROLLING_BACK or weight.percent > 0:
            return replace(base, weight=weight)

    stable_hash = status.stable.hash if status.stable else ""
    candidate = status.attempt.template_hash if status.attempt and status.phase in ACTIVE else ""
    target, canary, weight, said, record = await asyncio.gather(
        world.workload.read_target(ref, spec, stable_hash, candidate, live=live),
        _read_canary(seen, spec, world, live),
        world.router.read_weight(ref, spec, live=live),
        world.memory.read_decisions(ref),
        _read_record(seen, world),
    )
    if live and status.attempt is None and _is_about_to_begin(status, target):
        record = await world.memory.read_last_record(ref)
    pins, problems, proven = Pins(), seen.problems, None
    if target is not None:
        pins = await world.workload.read_pins(ref, spec, target, stable_hash, live=live)
    if not problems and status.phase in NOT_YET:
        problems = await _problems(seen, spec, world, pins, weight, live)
    ruling = None
    if target is not None:
        ruling = await read_ruling(seen, spec, target, world)
    if live and target is not None and asks_for_proof(status, target):
        proven = await world.workload.prove_hold(ref, spec, target)
    if verdict is None and status.phase in JUDGED and status.attempt is not None:
        verdict = await world.analyst.read_verdict(ref, spec, status, target, canary, now)
    unanswered = with_bars(_unanswered(said, status), status)
    return replace(
        base,
        problems=problems,
        target=target,
        canary=canary,
        pins=pins,
        weight=weight,
        hold_proven=proven,
        decisions=await _with_rights(unanswered, status, ref, world) if live else unanswered,
        revoked=await _revoked(status, ref, world, now) if live else frozenset(),
        verdict=verdict or Verdict(),
        record=record,
        ruling=ruling,
    )


def _traffic_must_leave(status: Status) -> bool:
    """The decision to leave is remembered, and weight 0 has not been seen in force yet."""
    attempt = status.attempt
    return status.phase in OUT and attempt is not None and attempt.resting_since is None


def _as_begun(spec: CanarySpec | None, status: Status) -> CanarySpec | None:
    """The spec with the analysis as it was when the attempt began."""
    if spec is None or status.attempt is None or status.phase not in ACTIVE or not status.attempt.analysis:
        return spec
    return spec.model_copy(update={"analysis": Analysis.model_validate(status.attempt.analysis)})


def asks_for_proof(status: Status, target: Target) -> bool:
    """Whether the next thing to know is if the API server holds an edit."""
    return (
        status.phase is Phase.IDLE
        and not status.edits_held
        and target.paused is target.rests_paused
        and status.stable is not None
        and status.stable.uid == target.uid
    )


async def _read_canary(seen: CanarySeen, spec: CanarySpec, world: World, live: bool) -> CanaryPods:
    if seen.status.phase in RESTING and not (seen.deleting or world.leaving):
        return CanaryPods()
    return await world.workload.read_canary(seen.ref, spec, live=live)


async def _read_record(seen: CanarySeen, world: World) -> RecordSeen:
    status, attempt = seen.status, seen.status.attempt
    if attempt is None:
        return RecordSeen()
    if attempt.outcome and status.phase in RESTING and status.head.number >= attempt.number > 0:
        # Sealed, and remembered as that: a new leader need not ask for the last record of every Canary.
        return RecordSeen(exists=True, outcome=attempt.outcome, number=status.head.number, hash=status.head.hash)
    try:
        return await world.memory.read_record(seen.ref, attempt.id)
    except Retryable:
        if status.phase not in ACTIVE or seen.deleting:
            raise
        # Counts as not stored: nothing is promoted on that, and it stands before no way out.
        return RecordSeen()


def _is_about_to_begin(status: Status, target: Target | None) -> bool:
    """Something will be recorded next: a candidate, or a release that nobody judged."""
    if target is None:
        return False
    return bool(status.unjudged) or (status.stable is not None and target.template_hash != status.stable.template_hash)


async def _with_rights(
    said: tuple[DecisionSeen, ...], status: Status, ref: Ref, world: World
) -> tuple[DecisionSeen, ...]:
    """Whoever lets a revision through must hold the right now. Getting users off it waits for no answer."""
    attempt = status.attempt

    async def ask(one: DecisionSeen) -> DecisionSeen:
        about_this = one.verb is Verb.PERMIT or (attempt is not None and one.attempt == attempt.id)
        if one.verb not in LETS_THROUGH or not about_this:
            return one
        verb = one.verb.value.lower()
        return replace(one, may=await world.rights.may(one.by, one.groups, verb, ref.namespace, ref.name))

    return tuple(await asyncio.gather(*map(ask, said)))


async def _revoked(status: Status, ref: Ref, world: World, now: datetime) -> frozenset[str]:
    """Of the decisions that hold gates open, those whose author lost the right; asked when a gate may be passed."""
    attempt = status.attempt
    if attempt is None or not _gates_count(status, now):
        return frozenset()
    standing = [one for one in status.decisions if one.taken and one.attempt == attempt.id and one.decision in STANDING]
    answers = await asyncio.gather(
        *(world.rights.may(one.by, one.groups, one.decision.lower(), ref.namespace, ref.name) for one in standing)
    )
    return frozenset(one.uid for one, may in zip(standing, answers, strict=True) if not may)


def _gates_count(status: Status, now: datetime) -> bool:
    """Nothing but a gate may stand before the next move: until then nobody's right is asked about."""
    attempt = status.attempt
    if attempt is None or status.phase not in {Phase.PREPARING, Phase.PROGRESSING}:
        return False
    baked = attempt.baking_since is not None and now >= attempt.baking_since + timedelta(seconds=attempt.here.bake)
    return status.phase is Phase.PREPARING or bool(attempt.promoted_by) or baked


async def _problems(
    seen: CanarySeen, spec: CanarySpec, world: World, pins: Pins, weight: Weight, live: bool
) -> tuple[str, ...]:
    """What a person must mend before anything moves, causes before what follows from them."""
    found: list[str] = []
    others = await world.memory.others_on_target(seen.ref, spec)
    if others:
        found.append(
            f"Conflict spec.targetRef.name: Deployment {spec.target_ref.name} is released by Canary {others[0]} "
            "already: delete one of the two"
        )
    found += pins.problems
    if weight.problem:
        found.append(f"{weight.problem} {weight.problem_message}")
    try:
        found += await world.source.check(seen.ref, spec, live=live)
    except (SourceUnavailable, NotFound) as error:
        found.append(f"MetricsUnavailable {error}")
    except NeedsUser as error:
        found.append(f"{error.reason} {error}")
    return tuple(found)


def _unanswered(said: tuple[DecisionSeen, ...], status: Status) -> tuple[DecisionSeen, ...]:
    """Those without an answer; one older than everything we remember was answered and its answer dropped."""
    answered = {entry.uid for entry in status.decisions}
    oldest = status.decisions[0].at if len(status.decisions) >= KEPT else None
    return tuple(one for one in said if one.uid not in answered and (oldest is None or one.at >= oldest))
