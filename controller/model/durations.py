"""Durations as people write them: `90s`, `5m`, `1h`, `1h30m`, `500ms`."""

from __future__ import annotations

import re
from datetime import timedelta

PATTERN = r"^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?([0-9]{1,6}ms)?$"

_PART = re.compile(r"([0-9]{1,6})(ms|h|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def parse_duration(text: str) -> timedelta:
    """Read a duration.

    Raises: ValueError: says what to write instead.

    >>> parse_duration("1h30m")
    datetime.timedelta(seconds=5400)
    """
    if not text or not re.fullmatch(PATTERN, text):
        raise ValueError(f"{text!r} is not a duration: write a number and a unit, for example 90s, 5m or 1h")
    return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text)))


def render_duration(duration: timedelta) -> str:
    """The shortest text that `parse_duration` reads back, to the millisecond.

    >>> render_duration(timedelta(seconds=90)), render_duration(timedelta(milliseconds=250))
    ('1m30s', '250ms')
    """
    left = round(duration.total_seconds() * 1000)
    parts = []
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
