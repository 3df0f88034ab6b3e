"""Everything the loop talks to, in one value; and the metrics it counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from controller.loop.analyst import Analyst
from controller.ports import Memory, MetricSource, TrafficRouter, Workload


@dataclass(frozen=True)
class World:
    """Adapters, and `term`: our election term, asked anew each time because it is what fences us."""

    memory: Memory
    router: TrafficRouter
    workload: Workload
    source: MetricSource
    analyst: Analyst
    term: Callable[[], int]
    leaving: bool = False
    """Serin is being uninstalled: every Canary is let go as if it were deleted"""
