"""The yardstick: what the judge has to reach, row by row, beside what was measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from scipy import stats

from tests.statistics.worlds import HELD_OUT, SELECTION

Measured = dict[str, Any]


@dataclass(frozen=True)
class Reached:
    """One line of the table. `least` must be met; `goal` is wanted. Smaller is better."""

    what: str
    least: float
    goal: float
    ours: float
    between: tuple[float, float]
    n: int
    percent: bool = False

    @property
    def met(self) -> bool:
        """Shares are met where their interval reaches the bound: counts of that size do not speak against it."""
        return (self.between[0] if self.percent else self.ours) <= self.least

    def cells(self) -> tuple[str, ...]:
        """For people."""

        def said(value: float) -> str:
            if not math.isfinite(value):
                return "never"
            return f"{100 * value:.2g} %" if self.percent else f"{value:g}"

        verdict = "goal" if self.ours <= self.goal else "met" if self.met else "MISSED"
        interval = f"{said(self.between[0])} to {said(self.between[1])}"
        return self.what, said(self.least), said(self.goal), said(self.ours), interval, str(self.n), verdict


LINES: dict[tuple[str, float], dict[str, tuple[float, float]]] = {
    ("relief", 200): {"1 %": (270, 165), "5 %": (55, 25), "50 %": (5, 5)},
    ("relief", 5000): {"0.5 %": (150, 60), "1 %": (60, 30), "5 %": (25, 10), "50 %": (5, 5)},
    ("rollback", 200): {"1 %": (465, 250), "5 %": (150, 80), "50 %": (105, 60)},
    ("rollback", 5000): {"0.5 %": (220, 120), "1 %": (140, 80), "5 %": (105, 60), "50 %": (105, 60)},
    ("served", 5000): {"5 %": (93, 40), "50 %": (377, 130)},
}
UNITS = {"relief": "s to relief", "rollback": "s to rollback", "served": "canary errors served until rollback"}


def between(count: int, n: int) -> tuple[float, float]:
    """Clopper-Pearson 95 % interval of a share.

    >>> [round(end, 4) for end in between(0, 1000)]
    [0.0, 0.0037]
    """
    ci = stats.binomtest(count, n).proportion_ci(0.95)
    return float(ci.low), float(ci.high)


def check(rows: Iterable[Measured]) -> list[Reached]:
    """Every line of the yardstick that `rows`, of `build/judge.json`, have figures for."""
    ours = [row for row in rows if row["rule"] == "serin" and "setting" not in row]
    usual = [row for row in ours if "metrics" not in row and "noise" not in row]
    found = [
        *_shares("rolledBack", "false rollbacks, worlds of selection", usual, 0.01, 0.003, SELECTION.__contains__),
        *_shares("rolledBack", "false rollbacks, held-out worlds", usual, 0.01, 0.003, HELD_OUT.__contains__),
        *_shares("rolledBack", "false rollbacks, noise not learned", ours, 0.01, 0.003, None),
        *_shares("rolledBack", "cold start x5 for 60 s, rolled back", usual, 0.03, 0.01, "cold5x60s".__eq__),
        *_shares("rolledBack", "cold start x50 for 60 s, rolled back", usual, 0.05, 0.01, "cold50x60s".__eq__),
        *_shares("retreated", "harmless that retreat, realistic", usual, 0.10, 0.02, "realistic".__eq__),
    ]
    strange = [row for row in usual if "age" in row["effect"] or "minutes" in row["effect"]]
    if strange:
        found.append(_share("promoted", "faults of pod age or that come and go, promoted", strange, 0.0, 0.0))
    for (figure, rps), effects in LINES.items():
        for effect, (least, goal) in effects.items():
            for row in usual:
                if (row["world"], row["rps"], row["effect"]) == ("realistic", rps, effect):
                    found.append(_median(figure, f"{UNITS[figure]}, {rps:g} rps, {effect}", row, least, goal))
    for row in ours:
        if (row["world"], row["rps"], row["effect"]) == ("realistic", 5000, "latency x1.5"):
            found.append(_median("rollback", "s to rollback, 5000 rps, latency x1.5", row, 208, 60))
    return found


def speed(microseconds: float) -> Reached:
    """What one scrape costs."""
    what = "microseconds of processor time a scrape, errors alone"
    return Reached(what, 100.0, 100.0, microseconds, (microseconds, microseconds), 10)


def lines(reached: Sequence[Reached]) -> list[tuple[str, ...]]:
    """The table, with its head."""
    head = ("what", "at least", "goal", "ours", "95 % interval", "n", "")
    return [head, *(each.cells() for each in reached)]


def _shares(
    figure: str,
    what: str,
    rows: Iterable[Measured],
    least: float,
    goal: float,
    world: Callable[[str], bool] | None,
) -> list[Reached]:
    """All of them together, and the worst single cell. Without `world`, the rows whose noise was not learned."""
    chosen = [
        row
        for row in rows
        if row["effect"] == "none"
        and ("noise" in row if world is None else "metrics" not in row and world(row["world"]))
    ]
    if not chosen:
        return []
    worst = max(chosen, key=lambda row: row[figure])
    named = f"{what}, worst: {worst['world']} {worst['rps']:g} rps"
    return [_share(figure, f"{what}, all", chosen, least, goal), _share(figure, named, [worst], least, goal)]


def _share(figure: str, what: str, rows: Sequence[Measured], least: float, goal: float) -> Reached:
    n = sum(row["n"] for row in rows)
    count = round(sum(row[figure] * row["n"] for row in rows))
    return Reached(what, least, goal, count / n, between(count, n), n, percent=True)


def _median(figure: str, what: str, row: Measured, least: float, goal: float) -> Reached:
    ends = [math.inf if end is None else end for end in row[f"{figure}Between"]]
    value = math.inf if row[figure] is None else row[figure]
    return Reached(what, least, goal, value, (ends[0], ends[1]), row["n"])
