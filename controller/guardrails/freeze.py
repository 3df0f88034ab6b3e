"""When nothing may be released: which freezes are in force for a candidate or rollout now. Pure.

A schedule says when a window begins, in its zone; from there on everything is reckoned in UTC, so a window of ten
hours takes ten hours also in the night the clocks change. A freeze that cannot be read holds, and says so: it was
written by somebody who wanted a stop.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from controller.guardrails.origin import asked_of, at_least
from controller.guardrails.policy import selects
from controller.model.evidence import NO_EVIDENCE, Evidence, Origin, Trust
from controller.model.guarded import Frozen
from controller.model.policy import ChangeClass, FreezeSpec, OnStart
from controller.plain import alike

_URGENCY = {OnStart.FINISH: 0, OnStart.HOLD: 1, OnStart.ROLL_BACK: 2}
_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Freeze:
    """A Freeze as it is stored; `problem` where its spec cannot be read."""

    name: str
    uid: str
    spec: FreezeSpec | None
    problem: str = ""
    created: datetime | None = None


@dataclass(frozen=True)
class Subject:
    """What a freeze asks about a candidate or rollout."""

    namespace: str
    labels: Mapping[str, str]
    origin: Origin = Origin.UNKNOWN
    classes: frozenset[ChangeClass] = frozenset()
    evidence: Evidence = NO_EVIDENCE


@dataclass(frozen=True)
class Window:
    """One time in which a freeze is in force; `until` is None where nobody knows its end."""

    since: datetime | None
    until: datetime | None


def freezes_in_force(freezes: Iterable[Freeze], subject: Subject, now: datetime) -> tuple[Frozen, ...]:
    """The freezes in force for this subject, the one that asks for most first."""
    found = [frozen for freeze in freezes if (frozen := frozen_by(freeze, subject, now)) is not None]
    return tuple(sorted(found, key=_urgency, reverse=True))


def frozen_by(freeze: Freeze, subject: Subject, now: datetime) -> Frozen | None:
    """What one freeze says of the subject now."""
    spec = freeze.spec
    if spec is None:
        message = f"Freeze {freeze.name} cannot be read, so it holds: {freeze.problem}"
        return Frozen(freeze.name, freeze.uid, OnStart.HOLD, message)
    if not _is_meant(spec, subject):
        return None
    try:
        window = active_window(spec, now)
    except ValueError as error:
        message = f"Freeze {freeze.name} cannot be read, so it holds: {error}"
        return Frozen(freeze.name, freeze.uid, OnStart.HOLD, message)
    if window is None:
        return None
    by = f" ({spec.by})" if spec.by else ""
    end = f" until {window.until:%Y-%m-%d %H:%M} UTC" if window.until else " until it is thawed"
    return Frozen(
        name=freeze.name,
        uid=freeze.uid,
        on_start=spec.on_start,
        message=f"Freeze {freeze.name}{by}: {spec.reason}{end}",
        since=window.since or _engaged(freeze),
        until=window.until,
    )


def _engaged(freeze: Freeze) -> datetime | None:
    """When a kill switch came into force. Times of creation are cut to the second: of an attempt that began in that
    second one that takes traffic back takes it too."""
    late = freeze.spec is not None and freeze.spec.on_start is OnStart.ROLL_BACK
    return freeze.created + timedelta(seconds=1) if freeze.created and late else freeze.created


def active_window(spec: FreezeSpec, now: datetime) -> Window | None:
    """The window that `now` is in, from its first instant to before its last.

    Raises: ValueError: the schedule or the zone says nothing; names the field and what to write.
    """
    if spec.start is not None and spec.end is not None:
        return Window(spec.start, spec.end.astimezone(UTC)) if spec.start <= now < spec.end else None
    if not spec.schedule or spec.duration is None:
        return Window(None, None)
    began = _last_fire(spec.schedule, spec.time_zone, _minute(now))
    if began is None or now >= began + spec.duration:
        return None
    return Window(began, began + spec.duration)


def next_window(spec: FreezeSpec, now: datetime) -> Window | None:
    """The window that begins next, after `now`; None when none will.

    Raises: ValueError: as `active_window`.
    """
    if spec.start is not None and spec.end is not None:
        return Window(spec.start.astimezone(UTC), spec.end.astimezone(UTC)) if now < spec.start else None
    if not spec.schedule or spec.duration is None:
        return None
    zone = _zone(spec.time_zone)
    try:
        began = next(_cron(spec.schedule, now.astimezone(zone), reverse=False)).astimezone(UTC)
    except StopIteration:
        return None
    return Window(began, began + spec.duration)


@lru_cache(maxsize=4096)
def _last_fire(schedule: str, zone_name: str, minute: datetime) -> datetime | None:
    """The last instant at or before this minute at which the schedule fires."""
    local = (minute + _MINUTE).astimezone(_zone(zone_name))
    try:
        return next(_cron(schedule, local, reverse=True)).astimezone(UTC)
    except StopIteration:
        return None


def _cron(schedule: str, at: datetime, *, reverse: bool) -> CronSim:
    if len(schedule.split()) != 5:
        raise ValueError(
            f"schedule: {schedule!r} has {len(schedule.split())} fields, write five: minute hour day month weekday"
        )
    try:
        return CronSim(schedule, at, reverse=reverse)
    except CronSimError as error:
        raise ValueError(f"schedule: {schedule!r}: {error}; write five fields, for example 0 18 * * FRI") from error


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"timeZone: there is no zone {name!r}; write an IANA name such as Europe/Berlin") from error


def _minute(now: datetime) -> datetime:
    return now.astimezone(UTC).replace(second=0, microsecond=0)


def _is_meant(spec: FreezeSpec, subject: Subject) -> bool:
    if not selects(spec.selector, subject.namespace, subject.labels):
        return False
    if any(selects(one, subject.namespace, subject.labels) for one in spec.exceptions):
        return False
    if not asked_of(subject.origin, spec.origin):
        return False
    if spec.classes and subject.classes.isdisjoint(spec.classes):
        return False
    return not spec.tools or _used(spec.tools, subject)


def _used(tools: tuple[str, ...], subject: Subject) -> bool:
    """Whether one of these tools had a part in it, or nobody proved which had."""
    if not at_least(subject.evidence.trust, Trust.T3):
        return True
    return bool({alike(tool.name) for tool in subject.evidence.tools} & set(map(alike, tools)))


def _urgency(frozen: Frozen) -> tuple[int, float]:
    """RollBack before Hold before Finish; of these the one that spares fewest attempts, or lasts longest."""
    spares = math.inf if frozen.since is None else frozen.since.timestamp()
    match frozen.on_start:
        case OnStart.ROLL_BACK:
            # It takes back what began before it.
            weighs = spares
        case OnStart.FINISH:
            # It holds what began after it, and all where nobody knows when that was.
            weighs = math.inf if frozen.since is None else -spares
        case OnStart.HOLD:
            weighs = math.inf if frozen.until is None else frozen.until.timestamp()
    return _URGENCY[frozen.on_start], weighs
