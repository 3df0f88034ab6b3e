"""`make bench-judge`: every table of the judge, `build/judge.json` and the pictures of docs/judge.md.

python -m tests.statistics.bench [--rollouts 350] [--only TABLE ...] [--world WORLD ...] [--resume] [--jobs 2]
                                [--into docs/judge]

Each cell is written to `build/judge.json` as soon as it is counted; a run that was interrupted goes on with `--resume`.
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
from dataclasses import dataclass, replace
from functools import lru_cache
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
            plan=_planned(*self.setting) if self.setting else {},
        )

    def seed(self, chunk: int) -> list[int]:
        """The same for every rule, so that all see the same kind of day."""
        return [zlib.crc32(f"{self.world} {self.rps:g} {self.effect}".encode()), chunk]


def _planned(name: str, value: float) -> dict[str, Any]:
    """A setting of the plan, or of its errors metric."""
    if name in ("margin", "warmup"):
        return {"metrics": {"errors": {"kind": "errors", name: value}}}
    return {name: value}


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
        return _named(self.cell) | figures | medians[0] | medians[1] | medians[2]


def _named(cell: Cell) -> dict[str, Any]:
    """What a line of `build/judge.json` is about."""
    named: dict[str, Any] = {"world": cell.world, "rps": cell.rps, "effect": cell.effect, "rule": cell.rule}
    if cell.latency:
        named["metrics"] = "errors, latency"
    if not cell.pods_known:
        named["noise"] = "not learned"
    if cell.setting:
        named["setting"] = "{} {:g}".format(*cell.setting)
    return named


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in ("world", "rps", "effect", "rule", "metrics", "noise", "setting"))


def _written() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(OUT.read_text())["rows"] if OUT.exists() else []
    return rows


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


def measure(
    cells: Sequence[Cell],
    rollouts: int | Callable[[Cell], int],
    jobs: int = 1,
    counted: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Play all cells; the figures do not depend on `jobs`. Each is handed to `counted` as soon as it is."""
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
            if len(done[cell].held) == count(cell):
                counted(summed(cell, done[cell]))
    return [summed(cell, done[cell]) for cell in cells]


def _play(work: tuple[Cell, int, int]) -> Outcome:
    cell, chunk, rollouts = work
    scenario, seed = cell.scenario(), cell.seed(chunk)
    if cell.rule == OURS:
        return play(Here(), scenario, rollouts=rollouts, seed=seed)
    if cell.rule == OUTSIDE:
        with Program() as judge:
            return play(judge, scenario, rollouts=rollouts, seed=seed)
    stream = _stream(replace(cell, rule="", setting=None), chunk, rollouts)
    if cell.rule == "oracle":
        return peers.outcome(stream, peers.oracle(stream, ratio=RATIOS.get(cell.effect, 0.01)))
    return peers.outcome(stream, peers.RULES[cell.rule](stream))


@lru_cache(maxsize=32)
def _stream(cell: Cell, chunk: int, rollouts: int) -> peers.Stream:
    """All rules of others watch the same traffic: it is recorded once."""
    return peers.record(cell.scenario(), rollouts=rollouts, seed=cell.seed(chunk))


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


TRADED = {
    "refill": (0.025, 0.2),
    "falseRollbackRate": (0.001, 0.003, 0.05, 0.2),
    "margin": (0.0005, 0.002),
    "warmup": (120.0,),
}
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
    parser.add_argument(
        "--rollouts",
        type=int,
        default=350,
        help="of each cell where nothing is wrong: a third of a world's (default: 350)",
    )
    parser.add_argument("--only", action="append", choices=sorted(TABLES), help="this table only; repeatable")
    parser.add_argument("--world", action="append", choices=sorted(WORLDS), help="this world only; repeatable")
    parser.add_argument("--resume", action="store_true", help="keep the cells that were counted as often before")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--into", type=Path, default=ROOT / "docs" / "judge", help="where pictures and tables go")
    chosen = parser.parse_args(arguments)
    for name in chosen.only or list(TABLES):
        title, cells, share = TABLES[name]
        rollouts = max(int(chosen.rollouts * share), 1)
        cells = [cell for cell in cells if not chosen.world or cell.world in chosen.world]
        cells = _left(cells, rollouts) if chosen.resume else cells
        began = time.monotonic()

        def counted(row: Row, name: str = name, began: float = began) -> None:
            write([row])
            seconds = time.monotonic() - began
            print(f"{name}: {row.cell.world} {row.cell.rps:g} {row.cell.rule} ({seconds:.0f} s)", file=sys.stderr)

        rows = measure(cells, rollouts, chosen.jobs, counted)
        print(table(title, rows), f"\n({time.monotonic() - began:.0f} s)", flush=True)
    known = json.loads(OUT.read_text())
    known |= {"microsecondsAScrape": round(microseconds_a_scrape(), 1)}
    OUT.write_text(json.dumps(known, indent=1) + "\n")
    reached = [*reach.check(known["rows"]), reach.speed(known["microsecondsAScrape"])]
    pictures.draw(known["rows"], chosen.into)
    figures.write(known["rows"], reached, chosen.into)
    print("\nReach: what was asked for, at least and as a goal\n" + "\n".join(aligned(reach.lines(reached))))
    return 0 if all(each.met for each in reached) else 1


def _left(cells: Sequence[Cell], rollouts: int) -> list[Cell]:
    """Those that were not counted as often yet."""
    known = {_key(row): row["n"] for row in _written()}
    return [cell for cell in cells if known.get(_key(_named(cell)), 0) < rollouts]


def microseconds_a_scrape(lines: int = 2000) -> float:
    """Processor time of one line with the errors metric alone, decoding and encoding included; the quickest of ten."""
    judge = Here()
    judge.begin({"steps": [{"weight": 1, "bake": 1e6}]}, [{"t": -5, "baseline": {"pods": 20, "requests": 0}}], ["one"])
    taken = []
    for batch in range(10):
        scrapes = [_scrape(index) for index in range(batch * lines // 10 + 1, (batch + 1) * lines // 10 + 1)]
        began = time.process_time()
        judge.ask(scrapes)
        taken.append((time.process_time() - began) / len(scrapes))
    return 1e6 * min(taken)


def _scrape(index: int) -> dict[str, Any]:
    canary = {"pods": 1, "age": 5 * index, "requests": 50 * index, "errors": index // 20}
    baseline = {"pods": 20, "requests": 4950 * index, "errors": 5 * index}
    return {"rollout": "one", "t": 5 * index, "canary": canary, "baseline": baseline}


def write(rows: Sequence[Row]) -> None:
    """Rows measured now replace those of their cell; the others stay as they were measured last."""
    known = {_key(each): each for each in _written()}
    known |= {_key(each): each for each in (row.as_json() for row in rows)}
    OUT.parent.mkdir(exist_ok=True)
    written = OUT.with_suffix(".new")
    written.write_text(json.dumps({"rows": list(known.values())}, indent=1) + "\n")
    written.replace(OUT)


if __name__ == "__main__":
    sys.exit(main())
