"""Rollouts of the bench: their plans, how they are begun, and how quickly one that failed was off traffic."""

from __future__ import annotations

from collections.abc import Sequence

from tests.bench.scene import Scene

LONG = [{"weight": 50, "bake": "20m"}]
CLIMB = [{"weight": weight, "bake": "4s"} for weight in (5, 20, 50, 80)]
OUT = frozenset({"Retreated", "RollingBack"})


async def start_all(scene: Scene, keys: Sequence[str]) -> None:
    """A new revision for each, until the last has its step's traffic."""
    for key in keys:
        await scene.edit(key, "v2")
    await scene.until_weight(keys, 50, within=300)


def relief(scene: Scene, key: str) -> tuple[float, float] | None:
    """When the first verdict against the canary was written, and when its route was at 0 after that."""
    verdict = next((seen.at for seen in scene.seen.statuses[key] if seen.phase in OUT), None)
    if verdict is None:
        return None
    last_up = max(one.at for one in scene.seen.weights[key] if one.weight)
    zero = next((one.at for one in scene.seen.weights[key] if one.weight == 0 and one.at > last_up), None)
    return None if zero is None else (verdict, zero)
