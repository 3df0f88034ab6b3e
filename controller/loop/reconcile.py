"""One turn: observe, decide, act or remember, tell. Level-triggered: an event only says which Canary to look at."""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog

from controller.errors import Fenced, NeedsUser
from controller.loop.act import act
from controller.loop.observe import OUT, observe
from controller.loop.world import World
from controller.model.status import ACTIVE, Phase
from controller.ports import CanarySeen
from controller.rollout.decide import LOOK_AGAIN, decide, decide_refused
from controller.rollout.moves import Become, Decision, Do, Wait

log = structlog.get_logger()

AT_ONCE = timedelta(0)
TICK = timedelta(seconds=1)
"""an active rollout is looked at this often; metrics have no watch"""
AT_REST = timedelta(minutes=5)
"""a watch may lose an event: at rest this is the longest it goes unnoticed"""

QUIET = frozenset({"TookOver", "TrafficOnStable", "Idle", "Finishing", "Baking"})
"""changes of memory that are no news to people: no Event"""


async def reconcile(key: str, world: World, now: datetime) -> timedelta | None:
    """Take one Canary one move closer to its spec; say when to look again, None when it is gone."""
    seen = await world.memory.read(key)
    if seen is None:
        world.analyst.forget(key)
        return None
    if seen.status.leader_epoch > world.term():
        raise Fenced(f"{key} was written by leader {seen.status.leader_epoch}, and we are {world.term()}")
    observed = await observe(seen, world, now)
    decision = decide(observed, now)
    match decision:
        case Become(status=status):
            await world.memory.write_status(seen, status)
        case Do(action=action):
            try:
                await act(action, seen, observed, world)
            except NeedsUser as error:
                decision = decide_refused(observed, error, now)
                log.warning("needs_user", rollout=key, reason=error.reason, message=str(error))
                if isinstance(decision, Become):
                    await world.memory.write_status(seen, decision.status)
                return LOOK_AGAIN
        case Wait():
            pass
    _tell(key, seen.status.phase, decision, world, seen)
    if isinstance(decision, Become) and decision.status.phase in OUT and seen.status.phase not in OUT:
        # The turn that carries a verdict out does not queue behind the looks at others.
        return await reconcile(key, world, now)
    if isinstance(decision, Wait):
        return _look_again(seen.status.phase, decision, now)
    return AT_ONCE


def _look_again(phase: Phase, wait: Wait, now: datetime) -> timedelta:
    if phase in ACTIVE:
        return TICK
    if wait.until is not None:
        return max(wait.until - now, timedelta(milliseconds=50))
    return AT_REST


def _tell(key: str, phase: Phase, decision: Decision, world: World, seen: CanarySeen) -> None:
    """Metrics, log line and Event: they tell, they do not decide."""
    world.tell(seen.ref, seen.status, decision)
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
        move=type(decision).__name__ if isinstance(decision, Become) else type(decision.action).__name__,
        reason=decision.reason,
        message=decision.message,
    )
    no_news = isinstance(decision, Become) and (decision.reason, decision.message) == (
        seen.status.reason,
        seen.status.message,
    )
    if isinstance(decision, Become) and decision.reason not in QUIET and not no_news:
        warning = decision.status.phase in {Phase.ROLLING_BACK, Phase.ROLLED_BACK, Phase.RETREATED}
        world.memory.tell(seen.ref, decision.reason, decision.message, warning=warning)
