"""When a rollout must be looked at live though nothing seems to have changed.

Watches may lose an event, and a write may be refused because what it was decided on was old: both are mended by
reading live. What is here can be lost at any time, and then the next look at each active rollout is live.

Where so many roll out that each would wait for minutes, kinds are listed anew instead: one list a kind finds what
was lost for all of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from datetime import datetime, timedelta

from controller.model.status import ACTIVE, Status
from controller.rollout.moves import Action

EVERY = timedelta(seconds=40)
"""the longest an active rollout goes without a live look; each one has its own time within the last half of it"""
APART = timedelta(seconds=1)
"""where many roll out, their live looks come no closer than this: each takes ten requests of the API server"""
LONGEST = timedelta(minutes=5)
"""however many there are"""


class LiveLooks:
    """Remembers when each rollout was looked at live.

    `busy` says that traffic is being taken away somewhere: what is only due then waits, though not for ever.
    """

    def __init__(self, busy: Callable[[], bool] = lambda: False) -> None:
        self._busy = busy
        self._at: dict[str, datetime] = {}
        self._active: set[str] = set()
        self._doubted: set[str] = set()
        self._revoked: dict[str, frozenset[str]] = {}
        self._did: dict[str, Action | None] = {}

    def doubts(self, key: str) -> bool:
        """Whether what watches brought was found to be old."""
        return key in self._doubted

    def is_due(self, key: str, status: Status, now: datetime) -> bool:
        """Whether an active rollout has gone without a live look for long enough."""
        if status.phase not in ACTIVE:
            self._active.discard(key)
            return False
        self._active.add(key)
        last = self._at.get(key)
        if last is None:
            return True
        return now - last >= self._every * (2.0 if self._busy() else _share(key))

    @property
    def are_had(self) -> bool:
        """Whether anything rolls out, as far as was looked."""
        return bool(self._active)

    @property
    def are_rare(self) -> bool:
        """Whether a rollout may go without a live look for longer than an event should stay lost."""
        return self._every > EVERY

    @property
    def _every(self) -> timedelta:
        return max(EVERY, min(APART * len(self._active), LONGEST))

    def looked(self, key: str, now: datetime) -> None:
        """A live look was had."""
        self._at[key] = now
        self._doubted.discard(key)

    def found_revoked(self, key: str, uids: frozenset[str]) -> None:
        """What a live look has found out about rights stands for the looks until the next one."""
        self._revoked[key] = uids

    def revoked(self, key: str) -> frozenset[str]:
        """Decisions whose authors had lost the right at the last live look: none of them opens a gate meanwhile."""
        return self._revoked.get(key, frozenset())

    def repeats(self, key: str, action: Action | None) -> bool:
        """Whether it is the very act that came before it, with nothing between: it changed nothing, or somebody
        changes it back."""
        before, self._did[key] = self._did.get(key), action
        return action is not None and action == before

    def doubt(self, key: str) -> None:
        """A write was refused: what we know is old."""
        self._doubted.add(key)

    def forget(self, key: str) -> None:
        """The Canary is gone."""
        self._at.pop(key, None)
        self._active.discard(key)
        self._doubted.discard(key)
        self._revoked.pop(key, None)
        self._did.pop(key, None)


def _share(key: str) -> float:
    """From a half to one, the same for one key each time: rollouts that began together do not all look at once."""
    return 0.5 + zlib.crc32(key.encode()) / 2**33
