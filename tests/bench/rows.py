"""What a measurement comes to: one row of the table, and of `build/bench.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Target:
    """The most that each figure may be; `limits` may name `p50`, `p99` and `max`."""

    text: str
    limits: Mapping[str, float]


@dataclass(frozen=True)
class Row:
    """One line: figures of `n` samples against their target."""

    name: str
    unit: str
    n: int
    p50: float
    p99: float
    max: float
    target: str
    ok: bool

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def row(name: str, unit: str, samples: Sequence[float], target: Target, *, n: int = 0, holds: bool = True) -> Row:
    """Without samples nothing was measured, which is no success."""
    figures = {"p50": percentile(samples, 0.50), "p99": percentile(samples, 0.99), "max": max(samples, default=-1.0)}
    ok = holds and bool(samples) and all(figures[each] <= limit for each, limit in target.limits.items())
    rounded = {each: round(value, 4) for each, value in figures.items()}
    return Row(name, unit, n or len(samples), target=target.text, ok=ok, **rounded)


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least this share of them does not exceed; -1 without any.

    >>> [percentile([4.0, 1.0, 3.0, 2.0], share) for share in (0.5, 0.99)]
    [2.0, 4.0]
    """
    ordered = sorted(samples)
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else -1.0


def table(rows: Sequence[Row]) -> str:
    """For people."""
    cells = [("name", "unit", "n", "p50", "p99", "max", "target", "")]
    for one in rows:
        p50, p99, most = (f"{value:g}" for value in (one.p50, one.p99, one.max))
        cells.append((one.name, one.unit, str(one.n), p50, p99, most, one.target, "ok" if one.ok else "MISSED"))
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return "\n".join("  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)) for line in cells)
