"""Waiting longer after each failure, never in step with others."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Backoff:
    """Doubles from `base` to `cap` seconds; each wait is drawn from the upper half of its range.

    >>> patient = Backoff(base=1.0, cap=5.0, chance=lambda: 1.0)
    >>> [patient.next() for _ in range(4)]
    [1.0, 2.0, 4.0, 5.0]
    """

    base: float = 0.1
    cap: float = 30.0
    chance: Callable[[], float] = field(default=random.random, repr=False)
    failures: int = 0

    def next(self) -> float:
        """Seconds to wait now; the one after will be longer."""
        # The exponent is bounded so that a server that is down for weeks does not overflow a float.
        delay = min(self.cap, self.base * 2.0 ** min(self.failures, 32))
        self.failures += 1
        return delay * (0.5 + 0.5 * self.chance())

    def reset(self) -> None:
        self.failures = 0
