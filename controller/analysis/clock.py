"""Which time is believed, where the clock of the lines is wrong: on one line, on some, or from now on.

A clock that is set goes on from where it was set to, so lines that contradict the last one are believed once enough
of them in a row agree with each other. Until then they change nothing. From then on `t` is read with an offset, so
that what has begun (a bake, a rest) never sees the jump: it counts as one scrape.
"""

from __future__ import annotations

from enum import Enum

import msgspec

LEAP = 3600.0
"""Seconds from one line to the next beyond which a time is believed once a second line says so."""
AGREE_AHEAD, AGREE_BEHIND = 2, 3
"""Lines in a row that agree with each other. Two lines may come late together, and then the next is in time again."""


class Reading(Enum):
    """What a line's `t` is worth."""

    BELIEVED = "believed"
    LATE = "late"
    """Not after the last one."""
    LEAPT = "leapt"
    """Far after the last one."""
    TAKEN_UP = "taken up"
    """It contradicts the last one that was believed, and is believed from now on."""


class Clock(msgspec.Struct, frozen=True):
    """`offset` is what to add to `t`; `doubted` the last time in a row of times that were not believed."""

    offset: float = 0.0
    doubted: float | None = None
    agreeing: int = 0
    """Lines in a row up to `doubted` that rise by no more than a leap."""
    refused: int = 0
    """Lines in a row that were not believed."""


def read(clock: Clock, t: float, last: float | None, scrape: float, *, late: bool) -> tuple[Clock, Reading]:
    """Take in the time of one line.

    Args:
        last: the last time that was believed, offset included.
        scrape: seconds from one line to the next, as planned or learned.
        late: its counters say that it is from before the last line.

    >>> clock, _ = read(Clock(), 5.0, 1e9, 5.0, late=False)
    >>> clock, _ = read(clock, 10.0, 1e9, 5.0, late=False)
    >>> clock, reading = read(clock, 15.0, 1e9, 5.0, late=False)
    >>> reading.value, 15.0 + clock.offset - 1e9
    ('taken up', 5.0)
    """
    at = t + clock.offset
    leap = max(LEAP, 3.0 * scrape)
    if last is None or last < at <= last + leap:
        return (clock if clock.doubted is None else Clock(clock.offset)), Reading.BELIEVED
    follows = clock.doubted is not None and clock.doubted < t <= clock.doubted + leap
    doubting = Clock(clock.offset, t, clock.agreeing + 1 if follows else 1, clock.refused + 1)
    behind = at <= last
    if doubting.agreeing < (AGREE_BEHIND if behind else AGREE_AHEAD) or (behind and late):
        return doubting, Reading.LATE if behind else Reading.LEAPT
    assert clock.doubted is not None
    return Clock(last + min(t - clock.doubted, scrape) - t), Reading.TAKEN_UP
