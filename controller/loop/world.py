"""Everything the loop talks to, in one value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from controller.loop.analyst import Analyst
from controller.loop.live import LiveLooks
from controller.loop.outlook import Outlooks
from controller.model.status import Status
from controller.ports import Memory, MetricSource, Provenance, Ref, Rights, Rules, TrafficRouter, Workload
from controller.rollout.moves import Decision

Tell = Callable[[Ref, Status, Decision], None]
"""what was so before, and what was decided and has been carried out; must neither raise nor wait"""


def tell_nobody(ref: Ref, before: Status, decision: Decision) -> None:
    """Where nobody counts."""


@dataclass(frozen=True)
class World:
    """Adapters, and `term`: our election term, asked anew each time because it is what fences us."""

    memory: Memory
    router: TrafficRouter
    workload: Workload
    source: MetricSource
    analyst: Analyst
    outlooks: Outlooks
    rights: Rights
    rules: Rules
    term: Callable[[], int]
    provenance: Provenance | None = None
    """None: nothing is looked up, so every change is of unknown origin"""
    tell: Tell = tell_nobody
    live: LiveLooks = field(default_factory=LiveLooks)
    leaving: bool = False
    """Serin is being uninstalled: every Canary is let go as if it were deleted"""
