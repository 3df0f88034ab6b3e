"""Observe: read all that the present phase may decide on, and nothing that could stand before a way out.

While traffic has to leave the canary, the route is all that is read: a metrics outage, a missing
template or a slow list must not come between a verdict and weight 0. A look that is not live asks the API
server nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache

import msgspec

from controller.errors import Retryable, SourceUnavailable
from controller.loop.guard import frozen_now, is_candidate, read_ruling, with_people
from controller.loop.world import World
from controller.model.guarded import Frozen
from controller.model.spec import Analysis, Baseline, CanarySpec, Verb, read_analysis
from controller.model.status import ACTIVE, Phase, Status
from controller.model.world import CanaryPods, DecisionSeen, Observed, Pins, RecordSeen, Target, Verdict, Weight
from controller.ports import CanarySeen, Ref
from controller.rollout.answers import LETS_THROUGH, STANDING, broken_glass, overridden, unanswered
from controller.rollout.decide import OF_SERVER
from controller.rollout.frozen import must_get_out

JUDGED = frozenset({Phase.PROGRESSING, Phase.RETREATED, Phase.RELEASING})
RESTING = frozenset({Phase.PENDING, Phase.IDLE, Phase.ROLLED_BACK})
OUT = frozenset({Phase.RETREATED, Phase.ROLLING_BACK})
NOT_YET = frozenset({Phase.PENDING, Phase.IDLE})


async def observe(
    seen: CanarySeen,
    world: World,
    now: datetime,
    *,
    live: bool = True,
    verdict: Verdict | None = None,
    beside_route: bool = False,
) -> Observed:
    """What is so, for one turn. Without `live`, as far as watches have brought it: that much costs no request.

    A `verdict` of this turn is not asked for again. With `beside_route` all is read though traffic has to leave first.
    """
    status, ref = seen.status, seen.ref
    spec, unknown = _as_begun(seen.spec, status)
    base = Observed(
        status=status,
        spec=spec,
        generation=seen.generation,
        deleting=seen.deleting or world.leaving,
        uninstalled=world.leaving,
        has_finalizer=seen.has_finalizer,
        term=world.term(),
        problems=seen.problems,
        unknown=unknown,
    )
    if spec is None:
        return base
    if not status.is_ours:
        return await _observe_way_out(base, spec, seen, world, live)
    if status.phase in ACTIVE:
        base = replace(base, frozen=frozen_now(seen, world.rules.read_rules(), now))
        if not base.deleting and must_get_out(status, base.frozen):
            # A stop that somebody asked for waits for no route, no metrics and no list.
            return replace(base, verdict=world.analyst.known(ref, status))
        if status.phase not in OUT and not base.deleting:
            aborts = await _aborts(seen, world)
            if aborts:
                return replace(base, decisions=aborts, verdict=world.analyst.known(ref, status))
    if _traffic_must_leave(status) and not beside_route:
        weight = await world.router.read_weight(ref, spec, live=live)
        # A retreat may still become a rollback, or be answered, once the canary has no traffic; and a workload that
        # rolls is stopped while no gateway says so.
        if weight.percent > 0 or (status.phase is Phase.ROLLING_BACK and weight.programmed):
            return replace(base, weight=weight)

    stable_hash = status.stable.hash if status.stable else ""
    candidate = status.attempt.template_hash if status.attempt and status.phase in ACTIVE else status.rejected
    target, canary, baseline, weight, said, record = await asyncio.gather(
        world.workload.read_target(ref, spec, stable_hash, candidate, live=live),
        _read_canary(seen, spec, world, live),
        world.workload.read_baseline(ref, spec, live=live),
        world.router.read_weight(ref, spec, live=live),
        world.memory.read_decisions(ref),
        _read_record(seen, world),
    )
    if live:
        # Side by side: each takes as long as the API server or the metrics server takes to answer.
        record, pins, lacking = await asyncio.gather(
            _read_last_record(record, seen, target, world),
            _read_pins(seen, spec, target, world, live),
            _source_problems(seen, spec, target, world, live),
        )
    else:
        pins, lacking = (
            await _read_pins(seen, spec, target, world, live),
            await _source_problems(seen, spec, target, world, live),
        )
    problems, proven = seen.problems, None
    if not problems and _may_begin(status, target):
        problems = await _problems(seen, spec, world, pins, weight, lacking)
    ruling = None
    if target is not None:
        ruling = await read_ruling(seen, spec, target, world)
    if live and target is not None and asks_for_proof(status, target):
        proven = await world.workload.prove_hold(ref, spec, target)
    if verdict is None and _is_judged(spec, status):
        read = _without_fresh_pods(spec) if status.phase is Phase.RELEASING else spec
        against = baseline.ready if read.analysis.baseline.fresh else target.stable_ready if target else 0
        verdict = await world.analyst.read_verdict(ref, read, status, canary, against, now)
    if verdict is None and status.phase is Phase.PREPARING and weight.present and canary.serving:
        # The next step is the first weight.
        verdict = Verdict(unheard=await world.analyst.read_unanswered(ref, spec, now))
    outlook = None if problems else world.outlooks.read(ref, spec, status, seen.generation, now)
    asked = with_people(unanswered(said, status), status, world.rules.read_rules())
    decisions = await _with_rights(asked, status, ref, world) if live else asked
    frozen, revoked = base.frozen, frozenset[str]()
    if status.phase in ACTIVE:
        # Again: a look that reads live takes a while, and a freeze that came meanwhile is in force.
        frozen = frozen_now(seen, world.rules.read_rules(), now)
        revoked = world.live.revoked(ref.key)
        if live:
            revoked = await _revoked(status, spec, frozen, ref, world, now)
        if live or revoked:
            frozen = frozen_now(seen, world.rules.read_rules(), now, revoked)
    return replace(
        base,
        frozen=frozen,
        problems=problems,
        target=target,
        canary=canary,
        baseline=baseline,
        pins=pins,
        weight=weight,
        hold_proven=proven,
        decisions=decisions,
        revoked=revoked,
        verdict=verdict or Verdict(),
        outlook=outlook,
        record=record,
        ruling=ruling,
    )


async def _observe_way_out(base: Observed, spec: CanarySpec, seen: CanarySeen, world: World, live: bool) -> Observed:
    """Of a Canary whose status is not ours: who wants users off the revision, and how many are on it."""
    weight = await world.router.read_weight(seen.ref, spec, live=live)
    # Our term cannot be written into that status: the route's stamp alone refuses what a leader before us sends late.
    stamped = base.status.but(leader_epoch=world.term())
    return replace(base, status=stamped, weight=weight, decisions=await _aborts(seen, world))


def _traffic_must_leave(status: Status) -> bool:
    """The decision to leave is remembered, and weight 0 has not been seen in force yet."""
    attempt = status.attempt
    return status.phase in OUT and attempt is not None and attempt.resting_since is None


def _is_judged(spec: CanarySpec, status: Status) -> bool:
    """While the workload rolls nothing is compared, and objectives are all that is looked at."""
    if status.attempt is None or status.phase not in JUDGED:
        return False
    return status.phase is not Phase.RELEASING or any(one.objective is not None for one in spec.analysis.counted)


def _without_fresh_pods(spec: CanarySpec) -> CanarySpec:
    """What users of the stable Service meet is what counts while it rolls."""
    return spec.model_copy(update={"analysis": spec.analysis.model_copy(update={"baseline": Baseline()})})


def _as_begun(spec: CanarySpec | None, status: Status) -> tuple[CanarySpec | None, tuple[str, ...]]:
    """The spec with the analysis as it was when the attempt began, and what of that another version meant."""
    if spec is None or status.attempt is None or status.phase not in ACTIVE or not status.attempt.analysis:
        return spec, ()
    analysis, unknown = _read_analysis(msgspec.json.encode(status.attempt.analysis))
    return spec.model_copy(update={"analysis": analysis}) if analysis else spec, unknown


@lru_cache(maxsize=1024)
def _read_analysis(remembered: bytes) -> tuple[Analysis | None, tuple[str, ...]]:
    """Once for each attempt, and not with each look at it."""
    return read_analysis(msgspec.json.decode(remembered))


def asks_for_proof(status: Status, target: Target) -> bool:
    """Whether the next thing to know is if the API server holds an edit."""
    return (
        status.phase is Phase.IDLE
        and not status.edits_held
        and target.paused is target.rests_paused
        # While pods of another revision are there, that comes first.
        and not target.strays
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


async def _read_last_record(record: RecordSeen, seen: CanarySeen, target: Target | None, world: World) -> RecordSeen:
    """Before the first attempt, what an earlier Canary of this name has left."""
    if seen.status.attempt is None and _is_about_to_begin(seen.status, target):
        return await world.memory.read_last_record(seen.ref)
    return record


async def _read_pins(seen: CanarySeen, spec: CanarySpec, target: Target | None, world: World, live: bool) -> Pins:
    if target is None:
        return Pins()
    stable_hash = seen.status.stable.hash if seen.status.stable else ""
    return await world.workload.read_pins(seen.ref, spec, target, stable_hash, live=live)


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
        if one.verb not in LETS_THROUGH or not about_this or one.may is None:
            return one
        verb = one.verb.value.lower()
        return replace(one, may=await world.rights.may(one.by, one.groups, verb, ref.namespace, ref.name))

    return tuple(await asyncio.gather(*map(ask, said)))


async def _revoked(
    status: Status, spec: CanarySpec, frozen: Frozen | None, ref: Ref, world: World, now: datetime
) -> frozenset[str]:
    """Of the decisions that let it pass, those whose author lost the right; asked when it may pass because of them."""
    attempt = status.attempt
    breaks_through = frozen is not None and broken_glass(status, now, frozenset()) is not None
    passes_a_freeze = breaks_through or bool(overridden(status, now, frozenset()))
    world.live.found_revoked(ref.key, frozenset())
    if attempt is None or not (passes_a_freeze or _gates_count(status, spec, now)):
        return frozenset()
    standing = [one for one in status.decisions if one.taken and one.attempt == attempt.id and one.decision in STANDING]
    answers = await asyncio.gather(
        *(world.rights.may(one.by, one.groups, one.decision.lower(), ref.namespace, ref.name) for one in standing)
    )
    told = [(one.uid, may) for one, may in zip(standing, answers, strict=True)]
    world.live.found_revoked(ref.key, frozenset(uid for uid, may in told if may is False))
    return frozenset(uid for uid, may in told if not may)


def _gates_count(status: Status, spec: CanarySpec, now: datetime) -> bool:
    """Nothing but a gate may stand before the next move: until then nobody's right is asked about."""
    attempt = status.attempt
    if attempt is None or status.phase not in {Phase.PREPARING, Phase.PROGRESSING}:
        return False
    # A step that may end early may end at any look.
    bake = timedelta(seconds=0.0 if spec.analysis.advance == "early" else attempt.here.bake)
    baked = attempt.baking_since is not None and now >= attempt.baking_since + bake
    return status.phase is Phase.PREPARING or bool(attempt.promoted_by) or baked


def _may_begin(status: Status, target: Target | None) -> bool:
    """Whether what has to be mended is asked for: until the first attempt, at rest, and of an edit after a rollback."""
    if status.phase is Phase.ROLLED_BACK:
        return target is not None and is_candidate(status, target)
    return status.phase in NOT_YET


async def _problems(
    seen: CanarySeen, spec: CanarySpec, world: World, pins: Pins, weight: Weight, lacking: tuple[str, ...]
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
    if weight.percent > 0:
        found.append(f"CanaryInRoute {_nobody_answers(seen.ref, spec, weight)}")
    if weight.problem:
        found.append(f"{weight.problem} {weight.problem_message}")
    return (*found, *lacking)


def _nobody_answers(ref: Ref, spec: CanarySpec, weight: Weight) -> str:
    service = spec.traffic.service
    return (
        f"spec.traffic.httpRoute: HTTPRoute {spec.traffic.http_route.name} gives {weight.percent:g} % of a rule to "
        f"{ref.canary_name}, which is there during a rollout only, so that nobody answers these requests: take that "
        f"backendRef out, and where the rule has no other write `{{name: {service.name}, port: {service.port}}}`; a "
        "rollout puts the canary beside it"
    )


async def _source_problems(
    seen: CanarySeen, spec: CanarySpec, target: Target | None, world: World, live: bool
) -> tuple[str, ...]:
    """What is wrong with where the metrics come from; nothing once a rollout has begun."""
    if seen.problems or not _may_begin(seen.status, target):
        return ()
    known = seen.status.reason in OF_SERVER
    try:
        # What only the metrics server can tell is asked of it until it is mended, which costs the API server nothing.
        return await world.source.check(seen.ref, spec, live=live or known)
    except SourceUnavailable:
        # A server that is down is nobody's mistake, and has mended none.
        return (f"{seen.status.reason} {seen.status.message}",) if known else ()


async def _aborts(seen: CanarySeen, world: World) -> tuple[DecisionSeen, ...]:
    """What somebody said to end this attempt, and nobody has answered yet."""
    attempt = seen.status.attempt
    new = unanswered(await world.memory.read_decisions(seen.ref), seen.status)
    said = with_people(new, seen.status, world.rules.read_rules())
    return tuple(one for one in said if attempt and one.verb is Verb.ABORT and one.attempt == attempt.id)
