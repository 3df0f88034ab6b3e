"""One turn: observe, decide, act or remember, tell. Level-triggered: an event only says which Canary to look at.

The one thing to know: the first look takes what watches have brought and asks the API server nothing. What it comes
to is carried out if it is to wait, or to take traffic away because of a verdict; anything else is looked at live and
decided again first.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from controller.errors import Conflict, Fenced, Forbidden, NeedsUser, Refused, SerinError
from controller.loop.act import act
from controller.loop.observe import OUT, asks_for_proof, observe
from controller.loop.world import World
from controller.model.status import ACTIVE, Judged, Phase, Status
from controller.model.world import Observed, Weight
from controller.ports import CanarySeen
from controller.rollout.decide import LOOK_AGAIN, decide, decide_refused
from controller.rollout.moves import Become, Decision, Do, SetWeight, Wait, move_of

log = structlog.get_logger()

AT_ONCE = timedelta(0)
TICK = timedelta(seconds=1)
"""an active rollout is looked at this often; metrics have no watch"""
ARRIVES = timedelta(milliseconds=100)
"""from a scrape to its samples in the answer to a query, in most places"""
GATEWAY = timedelta(milliseconds=200)
"""after a weight the next word is the gateway's; its watch event comes earlier, and so no others wait for this look"""
AT_REST = timedelta(minutes=5)
"""a watch may lose an event: at rest this is the longest it goes unnoticed"""

QUIET = frozenset(
    {"TookOver", "StepStarted", "Baking", "Climbing", "Releasing", "Finishing", "TrafficOnStable", "Idle"}
)
"""changes of memory that are no news: Events tell of a beginning, an end and whatever is out of the ordinary, since
how far a rollout is stands in its status and its record"""


@dataclass(frozen=True)
class Look:
    """What was seen, and what it comes to."""

    seen: CanarySeen
    observed: Observed
    decision: Decision


async def reconcile(key: str, world: World, now: datetime) -> timedelta | None:
    """Take one Canary one move closer to its spec; say when to look again, None when it is gone."""
    found = None if world.live.doubts(key) else await _look(key, world, now, live=False)
    if found is None or not _is_good_enough(found, world, now):
        found = await _look_live(key, world, now, found)
    if found is None:
        world.analyst.forget(key)
        world.outlooks.forget(key)
        world.live.forget(key)
        return None
    seen, observed, decision = found.seen, found.observed, found.decision
    try:
        match decision:
            case Become(status=status):
                await world.memory.write_status(seen, status)
            case Do(action=SetWeight(percent=0.0) as action) if _rolls_meanwhile(observed.status):
                try:
                    await act(action, seen, observed, world)
                except (Conflict, Fenced):
                    raise
                except SerinError:
                    await _stop_the_roll(found, world, now)
                    raise
            case Do(action=action):
                await act(action, seen, observed, world)
            case Wait():
                pass
    except (NeedsUser, Forbidden, Refused) as error:
        # A right that is missing and another admission that says no are told like a person's object in the way.
        decision = decide_refused(observed, error, now)
        log.warning("needs_user", rollout=key, reason=error.reason, message=str(error))
        if isinstance(decision, Become):
            await world.memory.write_status(seen, decision.status)
        return LOOK_AGAIN
    except Conflict:
        world.live.doubt(key)
        raise
    repeats = world.live.repeats(key, decision.action if isinstance(decision, Do) else None)
    _tell(key, seen.status.phase, decision, world, seen)
    if isinstance(decision, Become) and decision.status.phase in OUT and seen.status.phase not in OUT:
        # The turn that carries a verdict out does not queue behind the looks at others.
        return await reconcile(key, world, now)
    if isinstance(decision, Wait):
        return _look_again(observed, decision, now)
    if _only_says_frozen(found):
        # It stands, and says so: there is nothing to do at once, and hundreds of others are to be told the same.
        return until_scraped(observed.verdict.due, now)
    if isinstance(decision, Do) and isinstance(decision.action, SetWeight):
        return GATEWAY
    return TICK if repeats else AT_ONCE


def _rolls_meanwhile(status: Status) -> bool:
    """The workload may roll to what nobody wants any more, beside the route."""
    attempt = status.attempt
    return status.phase is Phase.ROLLING_BACK and attempt is not None and (attempt.releasing or attempt.unheld)


async def _stop_the_roll(look: Look, world: World, now: datetime) -> None:
    """The route cannot be written, as where somebody's webhook for it is down: the workload's way back is its own."""
    observed = await observe(look.seen, world, now, beside_route=True)
    observed = replace(observed, weight=Weight(epoch=observed.status.epoch))
    decision = decide(observed, now)
    if isinstance(decision, Do):
        await act(decision.action, look.seen, observed, world)
        _tell(look.seen.ref.key, look.seen.status.phase, decision, world, look.seen)


async def _look_live(key: str, world: World, now: datetime, first: Look | None) -> Look | None:
    """Ten requests, which take as long as the API server takes; what the next samples convict goes before them."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    looking = asyncio.create_task(_look(key, world, now, live=True, first=first))
    try:
        while first is not None and first.seen.status.phase is Phase.PROGRESSING:
            later = now + timedelta(seconds=loop.time() - began)
            await asyncio.wait({looking}, timeout=until_scraped(first.observed.verdict.due, later).total_seconds())
            if looking.done():
                break
            first = await _look(key, world, now + timedelta(seconds=loop.time() - began), live=False)
            if first is not None and _is_convicted(first):
                return first
        found = await looking
        world.live.looked(key, now)
        return found
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


async def _look(key: str, world: World, now: datetime, *, live: bool, first: Look | None = None) -> Look | None:
    """Observe and decide. The verdict of the turn's first look stands while it is about the same attempt."""
    seen = await world.memory.read(key, live=live)
    if seen is None:
        return None
    if seen.status.leader_epoch > world.term():
        raise Fenced(f"{key} was written by leader {seen.status.leader_epoch}, and we are {world.term()}")
    same = first is not None and first.seen.status.attempt == seen.status.attempt
    verdict = first.observed.verdict if first is not None and same else None
    observed = await observe(seen, world, now, live=live, verdict=verdict)
    return Look(seen, observed, decide(observed, now))


def _is_good_enough(look: Look, world: World, now: datetime) -> bool:
    """Whether a look that was not live may be carried out: it waits, or takes traffic away because of a verdict."""
    observed = look.observed
    match look.decision:
        case Wait() if observed.target is not None and asks_for_proof(observed.status, observed.target):
            return False
        case Wait():
            return not world.live.is_due(look.seen.ref.key, observed.status, now)
        case Do(action=SetWeight(percent=0.0)):
            return observed.status.phase in OUT
        case Become() if _only_says_frozen(look):
            # It is refused where what we know is old: a kill switch for hundreds is answered without reading all of
            # them anew.
            return True
        case Become(status=after) if after.phase is observed.status.phase:
            # Still off traffic, and staying there: each retreat has a fence of its own, which an old route lacks.
            return after.phase in OUT and not after.weight
        case Become():
            return _is_convicted(look)
    return False


def _only_says_frozen(look: Look) -> bool:
    """Whether nothing changes but what is said: that a rollout stands where it is."""
    was = look.observed.status
    match look.decision:
        case Become(status=after, reason="Frozen"):
            return after.phase is was.phase and after.weight == was.weight
    return False


def _is_convicted(look: Look) -> bool:
    """Whether it takes traffic away because of a verdict."""
    verdict = look.observed.verdict
    match look.decision:
        case Become(status=after):
            return after.phase in OUT and look.observed.status.phase not in OUT and (verdict.fail or verdict.tripped)
    return False


def _newly_judged(before: Status, after: Status) -> Judged | None:
    """What the analysis said that the status did not have before, with all its numbers."""
    was, now = before.attempt, after.attempt
    known = was.judged if was is not None and now is not None and was.id == now.id else None
    return now.judged if now is not None and now.judged != known else None


def _look_again(observed: Observed, wait: Wait, now: datetime) -> timedelta:
    if observed.status.phase in ACTIVE:
        return until_scraped(observed.verdict.due, now)
    if wait.until is not None:
        return max(wait.until - now, timedelta(milliseconds=50))
    return AT_REST


def until_scraped(due: datetime | None, now: datetime) -> timedelta:
    """To the moment the next samples are there, so that users do not wait for a tick; one that is late is met soon."""
    if due is None or now - due >= TICK:
        return TICK
    early = due + ARRIVES - now
    return min(early, TICK) if early > AT_ONCE else TICK / 4


def _tell(key: str, phase: Phase, decision: Decision, world: World, seen: CanarySeen) -> None:
    """Metrics, log line and Event: they tell, they do not decide."""
    world.tell(seen.ref, seen.status, decision)
    if decision.reason == "NewerStatus":
        # The status is where people look, and this one is not ours to write.
        world.memory.tell(seen.ref, decision.reason, decision.message, warning=True)
    if isinstance(decision, Wait):
        return
    attempt = seen.status.attempt
    log.info(
        "decided",
        rollout=key,
        phase=phase.value,
        attempt=attempt.id if attempt else "",
        step=attempt.step + 1 if attempt else 0,
        weight=seen.status.weight,
        move=move_of(decision),
        reason=decision.reason,
        message=decision.message,
    )
    if isinstance(decision, Become) and (judged := _newly_judged(seen.status, decision.status)) is not None:
        log.info(
            "judged",
            rollout=key,
            verdict=judged.verdict,
            reason=judged.reason,
            metric=judged.metric,
            would_change=judged.would_change,
            **{name: float(f"{number:.6g}") for name, number in judged.numbers.items()},
        )
    again = decision.reason == seen.status.reason
    # How far the certificate is stands in the status: no Event for each quarter of the way.
    no_news = again and (decision.message == seen.status.message or decision.reason == "NotCertified")
    if isinstance(decision, Become) and decision.reason not in QUIET and not no_news:
        loud = decision.status.phase in {Phase.ROLLING_BACK, Phase.ROLLED_BACK, Phase.RETREATED}
        warning = loud or decision.reason in {"GlassBroken", "FreezeOverridden"}
        world.memory.tell(seen.ref, decision.reason, decision.message, warning=warning)
