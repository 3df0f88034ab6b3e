"""`docs/judge/figures.md`: what `build/judge.json` says, as tables that the other pages link to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.statistics import reach
from tests.statistics.reach import between
from tests.statistics.worlds import COLD, HELD_OUT, SELECTION, WORLDS, described

Measured = dict[str, Any]
HEAD = """# Figures of the judge

Written by `make bench-judge`; what they mean stands in
[judge.md](../judge.md#how-it-was-counted). Shares are of whole rollouts, with their 95 % binomial interval; times are
medians in seconds since the rollout began, over all rollouts (one that is never relieved waits for ever), with their
95 % interval from ranks. A share is met where its interval reaches the bound, a median where it is no larger. Proven is
one thing: at most 1 % of false rollbacks where requests fail independently (world `independent`). All else is counted.
"""


def write(rows: Sequence[Measured], reached: Sequence[reach.Reached], into: Path) -> None:
    """All tables that there are figures for."""
    ours = [row for row in rows if row["rule"] == "serin"]
    plain = [row for row in ours if not {"metrics", "noise", "setting"} & row.keys()]
    parts = [
        HEAD,
        _section("What was asked for, and what was reached", _table(reach.lines(reached))),
        _section("Harmless releases, in the worlds that settings were chosen in", _harmless(plain, SELECTION)),
        _section("Harmless releases, in worlds that nothing was tuned for", _harmless(plain, HELD_OUT)),
        _section("Harmless releases whose pods start cold, with no warm-up set", _harmless(plain, COLD)),
        _section("Harmless releases where pods cannot be told apart", _harmless(_with(ours, "noise"), WORLDS)),
        _section("Bad releases, in the realistic world", _found(_faulty(plain))),
        _section("Latency", _found(_with(ours, "metrics"))),
        _section("What other settings buy, and what they cost", _found(_with(ours, "setting"))),
        _section("The rules of others", _found(row for row in rows if not row["rule"].startswith("serin"))),
        _section("The judge as a program", _found(row for row in rows if row["rule"].startswith("serin,"))),
        _section("The worlds", _table([("world", "how pods differ from a coin"), *_worlds()])),
    ]
    (into / "figures.md").write_text("\n".join(part for part in parts if part))


def _section(title: str, table: str) -> str:
    return f"## {title}\n\n{table}\n" if table.count("\n") > 1 else ""


def _table(lines: Sequence[Sequence[str]]) -> str:
    head, *body = lines
    rules = ["---"] * len(head)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rules, *body))


def _with(rows: Iterable[Measured], key: str) -> list[Measured]:
    return [row for row in rows if key in row]


def _faulty(rows: Iterable[Measured]) -> list[Measured]:
    return [row for row in rows if row["effect"] != "none"]


def _harmless(rows: Iterable[Measured], worlds: Iterable[str]) -> str:
    named = list(worlds)
    chosen = [row for row in rows if row["effect"] == "none" and row["world"] in named]
    head = ("world", "requests/s", "rollouts", "rolled back", "retreated", "promoted within 70 minutes")
    lines: list[Sequence[str]] = [head]
    for row in sorted(chosen, key=lambda row: (named.index(row["world"]), row["rps"])):
        shares = (_percent(row[name]) for name in ("retreated", "promoted"))
        lines.append((row["world"], f"{row['rps']:g}", str(row["n"]), _counted(row), *shares))
    return _table(lines)


def _found(rows: Iterable[Measured]) -> str:
    head = ("world", "requests/s", "release", "rule or setting", "rollouts", "rolled back", "promoted")
    lines: list[Sequence[str]] = [(*head, "relief", "rollback", "canary errors served")]
    for row in rows:
        rule = row.get("setting") or row["rule"]
        cell = (row["world"], f"{row['rps']:g}", _release(row["effect"]), rule, str(row["n"]))
        medians = (_median(row, name) for name in ("relief", "rollback", "served"))
        lines.append((*cell, _counted(row), _percent(row["promoted"]), *medians))
    return _table(lines)


def _release(effect: str) -> str:
    return "harmless" if effect == "none" else f"{effect} fail" if effect.endswith("%") else effect


def _counted(row: Measured) -> str:
    low, high = between(round(row["rolledBack"] * row["n"]), row["n"])
    return f"{_percent(row['rolledBack'])} ({_percent(low)} to {_percent(high)})"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.4g} %"


def _median(row: Measured, name: str) -> str:
    value, low, high = (_number(each) for each in (row[name], *row[f"{name}Between"]))
    return value if value == "never" else f"{value} ({low} to {high})"


def _number(value: float | None) -> str:
    return "never" if value is None else f"{value:.4g}"


def _worlds() -> list[tuple[str, str]]:
    return [(name, described(noise) or "not at all") for name, noise in WORLDS.items()]
