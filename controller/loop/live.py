"""When a rollout must be looked at live though nothing seems to have changed.

Watches may lose an event, and a write may be refused because what it was decided on was old: both are mended by
reading live. What is here can be lost at any time, and then the next look at each active rollout is live.
"""

from __future__ import annotations

import zlib
from datetime import datetime, timedelta

from controller.model.status import ACTIVE, Status

EVERY = timedelta(seconds=40)
"""the longest an active rollout goes without a live look; each one has its own time within the last half of it"""


class LiveLooks:
    """Remembers when each rollout was looked at live."""

    def __init__(self) -> None:
        self._at: dict[str, datetime] = {}
        self._doubted: set[str] = set()

    def doubts(self, key: str) -> bool:
        """Whether what watches brought was found to be old."""
        return key in self._doubted

    def is_due(self, key: str, status: Status, now: datetime) -> bool:
        """Whether an active rollout has gone without a live look for long enough."""
        if status.phase not in ACTIVE:
            return False
        last = self._at.get(key)
        return last is None or now - last >= EVERY * _share(key)

    def looked(self, key: str, now: datetime) -> None:
        """A live look was had."""
        self._at[key] = now
        self._doubted.discard(key)

    def doubt(self, key: str) -> None:
        """A write was refused: what we know is old."""
        self._doubted.add(key)

    def forget(self, key: str) -> None:
        """The Canary is gone."""
        self._at.pop(key, None)
        self._doubted.discard(key)


def _share(key: str) -> float:
    """From a half to one, the same for one key each time: rollouts that began together do not all look at once."""
    return 0.5 + zlib.crc32(key.encode()) / 2**33
