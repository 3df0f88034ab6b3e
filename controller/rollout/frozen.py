"""What a freeze in force means for a rollout under way: it may be held back, or must give all its traffic back."""

from __future__ import annotations

from datetime import datetime

import msgspec

from controller.model.guarded import FreezeSeen, Frozen
from controller.model.policy import OnStart
from controller.model.status import Outcome, Phase, Status
from controller.model.world import Observed
from controller.rollout.answers import broken_glass, get_out
from controller.rollout.moves import SOON, Become, Decision, Wait


def is_held_back(seen: Observed, now: datetime) -> bool:
    """Whether a freeze in force keeps this attempt from reaching more users."""
    frozen, attempt = seen.frozen, seen.status.attempt
    if frozen is None or attempt is None or broken_glass(seen.status, now, seen.revoked) is not None:
        return False
    finishes = frozen.on_start is OnStart.FINISH and frozen.since is not None and attempt.started_at < frozen.since
    return not finishes


def must_get_out(status: Status, frozen: Frozen | None) -> bool:
    """Whether a freeze takes all traffic back: it asks for it, and the attempt was under way when it began."""
    attempt = status.attempt
    if frozen is None or attempt is None or frozen.on_start is not OnStart.ROLL_BACK:
        return False
    if status.phase not in {Phase.PREPARING, Phase.PROGRESSING, Phase.RETREATED, Phase.RELEASING}:
        return False
    return frozen.since is None or attempt.started_at < frozen.since


def frozen_out(seen: Observed, now: datetime) -> Become | None:
    """A freeze takes all traffic back; what it meets is remembered with it."""
    status, frozen, attempt = seen.status, seen.frozen, seen.status.attempt
    if frozen is None or attempt is None or not must_get_out(status, frozen):
        return None
    met = FreezeSeen(frozen.name, frozen.uid, frozen.on_start, frozen.message[:1024], now)
    remembered = status.with_attempt(freezes=(*attempt.freezes[-99:], met))
    return Become(get_out(remembered, Outcome.ABORTED, frozen.message, now), "Frozen", frozen.message)


def held_by_freeze(seen: Observed, now: datetime) -> Decision | None:
    """Begin and end of a freeze are remembered; deadlines count from its end."""
    status, frozen = seen.status, seen.frozen
    assert status.attempt is not None
    met = status.attempt.freezes
    open_ones = {one.uid: one for one in met}
    still = [one for one in open_ones.values() if not one.ended]
    if frozen is not None and is_held_back(seen, now):
        if any(one.uid == frozen.uid for one in still):
            return Wait("Frozen", frozen.message, now + SOON)
        entry = FreezeSeen(frozen.name, frozen.uid, frozen.on_start, frozen.message[:1024], now)
        return Become(status.with_attempt(freezes=(*met[-99:], entry)), "Frozen", frozen.message)
    if not still:
        return None
    ended = tuple(msgspec.structs.replace(one, at=now, ended=True) for one in still)
    return Become(
        status.with_attempt(freezes=(*met, *ended)[-100:], entered_at=now),
        "Thawed",
        f"{', '.join(one.name for one in still)}: the rollout goes on",
    )
