"""`make bench-judge`: every table of the judge, `build/judge.json` and the pictures of docs/judge.md.

python -m tests.statistics.bench [--rollouts 1000] [--only TABLE ...] [--jobs 2] [--into docs/judge]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from tests.statistics import figures, peers, pictures, reach
from tests.statistics.reach import between
from tests.statistics.rollouts import Here, Outcome, Program, Scenario, faulty, play
from tests.statistics.worlds import COLD, HARMLESS, HELD_OUT, SELECTION, WORLDS, Fault, Floats

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "build" / "judge.json"
CHUNK = 50
"""Rollouts played side by side; their seed is that of the cell and the chunk, so workers change nothing."""
TRAFFIC = (5.0, 20.0, 200.0, 5000.0)
RATIOS = {"0.2 %": 0.002, "0.5 %": 0.005, "1 %": 0.01, "5 %": 0.05, "50 %": 0.5}
STRANGE = {
    "50 % from pod age 400 s": Fault(ratio=0.5, from_age=400.0),
    "20 % every six minutes": Fault(ratio=0.2, every=360.0),
    "5 % under load only": Fault(ratio=0.05),
}
SLOWER = {"latency x1.5": Fault(slower=1.5), "latency x3": Fault(slower=3.0)}
OURS, OUTSIDE = "serin", "serin, as a program"


@dataclass(frozen=True)
class Cell:
    """One cell of a table: a rule in a world, at a traffic level, against an effect."""

    world: str
    rps: float
    effect: str
    rule: str = OURS
    latency: bool = False
    pods_known: bool = True
    setting: tuple[str, float] | None = None
    """One field of the plan that is not at its default."""

    def scenario(self) -> Scenario:
        """What is played."""
        return Scenario(
            WORLDS[self.world],
            self.rps,
            fault_of(self.effect, self.rps),
            latency=self.latency,
            pods_known=self.pods_known,
            plan=dict([self.setting]) if self.setting else {},
        )

    def seed(self, chunk: int) -> list[int]:
        """The same for every rule, so that all see the same kind of day."""
        return [zlib.crc32(f"{self.world} {self.rps:g} {self.effect}".encode()), chunk]


def fault_of(effect: str, rps: float) -> Fault:
    """The revision's fault, by the name it has in the tables."""
    if effect == "none":
        return HARMLESS
    if effect == "5 % under load only":
        # A canary pod carries 1 % of the traffic in the first step, 5 % in the others.
        return Fault(ratio=0.05, above_rps=0.03 * rps)
    return (STRANGE | SLOWER).get(effect) or faulty(RATIOS[effect])


@dataclass(frozen=True)
class Median:
    """A median with its 95 % interval, from ranks; inf where it is never."""

    value: float
    low: float
    high: float

    def as_json(self, name: str) -> dict[str, Any]:
        """JSON has no infinity: never is null."""
        value, *ends = (each if math.isfinite(each) else None for each in (self.value, self.low, self.high))
        return {name: value, f"{name}Between": ends}

    def __str__(self) -> str:
        return f"{self.value:.4g} ({self.low:.4g}-{self.high:.4g})" if math.isfinite(self.value) else "never"


@dataclass(frozen=True)
class Row:
    """What a cell came to: rollouts that ended in each way, and medians over all of them in seconds or errors."""

    cell: Cell
    n: int
    rolled_back: int
    retreated: int
    promoted: int
    held: int
    waiting: int
    relief: Median
    rollback: Median
    served: Median

    def as_json(self) -> dict[str, Any]:
        """A line of `build/judge.json`."""
        low, high = between(self.rolled_back, self.n)
        cell = {"world": self.cell.world, "rps": self.cell.rps, "effect": self.cell.effect, "rule": self.cell.rule}
        if self.cell.latency:
            cell["metrics"] = "errors, latency"
        if not self.cell.pods_known:
            cell["noise"] = "not learned"
        if self.cell.setting:
            cell["setting"] = "{} {:g}".format(*self.cell.setting)
        figures = {
            "n": self.n,
            "rolledBack": self.rolled_back / self.n,
            "rolledBackBetween": [round(low, 5), round(high, 5)],
            "retreated": self.retreated / self.n,
            "promoted": self.promoted / self.n,
            "held": self.held / self.n,
            "waiting": self.waiting / self.n,
        }
        medians = (self.relief.as_json("relief"), self.rollback.as_json("rollback"), self.served.as_json("served"))
        return cell | figures | medians[0] | medians[1] | medians[2]


def summed(cell: Cell, out: Outcome) -> Row:
    """Count. A median over all rollouts: one that was never relieved waits for ever."""
    return Row(
        cell,
        n=len(out.held),
        rolled_back=int(np.isfinite(out.rolled_back).sum()),
        retreated=int((np.isfinite(out.relieved)).sum()),
        promoted=int(np.isfinite(out.promoted).sum()),
        held=int(out.held.sum()),
        waiting=int(out.waiting.sum()),
        relief=_median(out.relieved),
        rollback=_median(out.rolled_back),
        served=_median(out.served),
    )


def measure(cells: Sequence[Cell], rollouts: int | Callable[[Cell], int], jobs: int = 1) -> list[Row]:
    """Play all cells; the figures do not depend on `jobs`."""
    count = rollouts if callable(rollouts) else lambda _: rollouts
    work = [
        (cell, chunk, min(CHUNK, count(cell) - first))
        for cell in cells
        for chunk, first in enumerate(range(0, count(cell), CHUNK))
    ]
    done: dict[Cell, Outcome] = {}
    with ProcessPoolExecutor(jobs) as pool:
        for (cell, _, _), out in zip(work, pool.map(_play, work), strict=True):
            done[cell] = done[cell] + out if cell in done else out
    return [summed(cell, done[cell]) for cell in cells]


def _play(work: tuple[Cell, int, int]) -> Outcome:
    cell, chunk, rollouts = work
    scenario, seed = cell.scenario(), cell.seed(chunk)
    if cell.rule == OURS:
        return play(Here(), scenario, rollouts=rollouts, seed=seed)
    if cell.rule == OUTSIDE:
        with Program() as judge:
            return play(judge, scenario, rollouts=rollouts, seed=seed)
    stream = peers.record(scenario, rollouts=rollouts, seed=seed)
    if cell.rule == "oracle":
        return peers.outcome(stream, peers.oracle(stream, ratio=RATIOS.get(cell.effect, 0.01)))
    return peers.outcome(stream, peers.RULES[cell.rule](stream))


def _median(values: Floats) -> Median:
    ordered = np.sort(np.where(np.isnan(values), np.inf, values))
    low, high = stats.binom.interval(0.95, len(ordered), 0.5)
    ends = ordered[max(int(low) - 1, 0)], ordered[min(int(high), len(ordered) - 1)]
    return Median(float(ordered[(len(ordered) - 1) // 2]), float(ends[0]), float(ends[1]))


# The tables: which cells, and how many rollouts of `--rollouts`.


def harmless(
    worlds: Iterable[str], rules: Sequence[str] = (OURS,), traffic: Sequence[float] = TRAFFIC[1:]
) -> list[Cell]:
    """Nothing is wrong with the revision: every rollback is false."""
    return [Cell(world, rps, "none", rule) for world in worlds for rps in traffic for rule in rules]


def faults(rules: Sequence[str] = (OURS,), traffic: Sequence[float] = TRAFFIC) -> list[Cell]:
    """Regressions of growing size in the realistic world."""
    return [Cell("realistic", rps, effect, rule) for rps in traffic for effect in RATIOS for rule in rules]


TRADED = {"refill": (0.025, 0.1, 0.2), "falseRollbackRate": (0.001, 0.05)}
PEERS = (*peers.RULES, "oracle")
TABLES: dict[str, tuple[str, list[Cell], float]] = {
    "selection": ("False rollbacks in the worlds that settings were chosen in", harmless(SELECTION), 1.0),
    "trickle": ("Hardly any traffic", harmless(["realistic", "burst", "nodes"], traffic=TRAFFIC[:1]), 0.2),
    "held-out": ("False rollbacks in worlds that nothing was tuned for", harmless(HELD_OUT), 1.0),
    "cold": ("Cold starts that no warm-up covers", harmless(COLD, traffic=(200.0, 5000.0)), 0.4),
    "faults": ("Regressions, realistic noise", faults(), 0.5),
    "strange": (
        "Faults that hide",
        [Cell("realistic", rps, effect) for rps in TRAFFIC[2:] for effect in STRANGE],
        0.3,
    ),
    "latency": (
        "Latency",
        [
            Cell(world, rps, effect, latency=True)
            for world in ("realistic", "nodes")
            for rps in TRAFFIC[2:]
            for effect in ("none", *SLOWER)
        ],
        0.3,
    ),
    "fallback": (
        "False rollbacks where pods cannot be told apart",
        [
            Cell(world, rps, "none", pods_known=False)
            for world in ("realistic", "ar1", "burst", "persistent", "pink", "tail", "nodes")
            for rps in (200.0, 5000.0)
        ],
        1.0,
    ),
    "program": (
        "The same judge as a program, in two other worlds",
        [Cell(world, 200.0, effect, OUTSIDE) for world in ("pink", "nodes") for effect in ("none", "5 %")],
        0.1,
    ),
    "trade-off": (
        "What other settings would buy, and what they cost",
        [
            Cell(world, rps, effect, setting=(name, value))
            for name, values in TRADED.items()
            for value in values
            for rps in TRAFFIC[2:]
            for world, effect in (("realistic", "none"), ("burst", "none"), ("realistic", "1 %"), ("realistic", "5 %"))
        ],
        0.1,
    ),
    "peers": (
        "The rules of others on the same traffic",
        harmless(["realistic", "persistent", "incident", "burst"], PEERS) + faults(PEERS),
        0.3,
    ),
}


def table(title: str, rows: Sequence[Row]) -> str:
    """For people."""
    head = "world", "rps", "effect", "rule", "n", "rolled back", "retreated", "promoted", "held", "waiting"
    cells = [(*head, "relief", "rollback", "served")]
    for row in rows:
        low, high = between(row.rolled_back, row.n)
        rule = "{} {:g}".format(*row.cell.setting) if row.cell.setting else row.cell.rule
        cells.append(
            (
                row.cell.world,
                f"{row.cell.rps:g}",
                row.cell.effect,
                rule,
                str(row.n),
                f"{row.rolled_back / row.n:.1%} ({low:.1%}-{high:.1%})",
                f"{row.retreated / row.n:.1%}",
                f"{row.promoted / row.n:.1%}",
                f"{row.held / row.n:.1%}",
                f"{row.waiting / row.n:.1%}",
                str(row.relief),
                str(row.rollback),
                str(row.served),
            )
        )
    return "\n".join([f"\n{title}", *aligned(cells)])


def aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest value."""
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return ["  ".join(value.ljust(width) for value, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write. The status is 0 if every row of the reach table is met."""
    parser = argparse.ArgumentParser(prog="python -m tests.statistics.bench", description=__doc__)
    parser.add_argument("--rollouts", type=int, default=1000, help="harmless rollouts of each cell (default: 1000)")
    parser.add_argument("--only", action="append", choices=sorted(TABLES), help="this table only; repeatable")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--into", type=Path, default=ROOT / "docs" / "judge", help="where pictures and tables go")
    chosen = parser.parse_args(arguments)
    for name in chosen.only or list(TABLES):
        title, cells, share = TABLES[name]
        began = time.monotonic()
        rows = measure(cells, max(int(chosen.rollouts * share), 1), chosen.jobs)
        write(rows)
        print(table(title, rows), f"\n({time.monotonic() - began:.0f} s)", flush=True)
    known = json.loads(OUT.read_text())["rows"]
    pictures.draw(known, chosen.into)
    figures.write(known, chosen.into)
    reached = reach.check(known)
    print("\nReach: what was asked for, at least and as a goal\n" + "\n".join(aligned(reach.lines(reached))))
    return 0 if all(each.met for each in reached) else 1


def write(rows: Sequence[Row]) -> None:
    """Rows measured now replace those of their cell; the others stay as they were measured last."""

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row.get(name) for name in ("world", "rps", "effect", "rule", "metrics", "noise", "setting"))

    known = {key(each): each for each in json.loads(OUT.read_text())["rows"]} if OUT.exists() else {}
    known |= {key(each): each for each in (row.as_json() for row in rows)}
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps({"rows": list(known.values())}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
