"""The catalogue as a page: `python -m tests.faults.catalogue` writes docs/faults.md from the tests themselves.

The one thing to know: a row is proven by the test that carries its number (`test_row_07_...`), wherever it stands under
tests/; what the page says of it is the test's name and docstring, and what it came to last. A test fails when a row has
none.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "faults.md"
RESULTS = ROOT / "tests" / "faults" / "results.json"
PEERS = ROOT / "tests" / "faults" / "test_peers.py"
_ROW = re.compile(r"test_row_(\d\d)_(\w+)")

PARTS = {
    1: "Crash and leadership",
    12: "API server, watches and storage",
    32: "Metrics",
    47: "Workload and traffic",
    57: "People and lifecycle",
    70: "Time",
    75: "Guardrails and records",
}
FAULTS = {
    1: "killed after any write of any phase",
    2: "killed between the verdict and the route",
    3: "killed every few seconds",
    4: "an object that nobody can have meant",
    5: "leader stopped before a write, awake after the handover",
    6: "lease cannot be renewed, everything else works",
    7: "lease deleted or forged",
    8: "two installs own one Canary",
    9: "event loop stands still",
    10: "told to stop in a step",
    11: "out of memory with thousands of Canaries",
    12: "half-open watch",
    13: "410 on watch and list",
    14: "an error inside the stream",
    15: "a stale API server after a restart",
    16: "own write not in the cache yet",
    17: "one lost event",
    18: "changed and changed back, unseen",
    19: "deleted and made again under the same name",
    20: "a storm of conflicts",
    21: "429 with Retry-After",
    22: "write applied, reply lost",
    23: "every call takes 29 s",
    24: "no right on the route in a step",
    25: "API server away in a step",
    26: "etcd out of space",
    27: "status grows without end",
    28: "somebody's admission denies the route",
    29: "our own parts are down",
    30: "definitions changed under a running controller",
    31: "controller downgraded in a step",
    32: "metrics server down",
    33: "slow, cut, partial or foreign answers",
    34: "NaN, infinities, words",
    35: "empty answer",
    36: "two series where one was meant",
    37: "errors of measuring counted as success",
    38: "samples that stopped",
    39: "samples from before the step",
    40: "counter reset, pods restarted",
    41: "clocks that differ",
    42: "baseline as bad as the canary",
    43: "too few requests, or no split",
    44: "both arms read the same series",
    45: "a canary that writes its own good numbers",
    46: "two metrics servers that disagree",
    47: "pods that cannot start",
    48: "no ready pod in a step",
    49: "rollback onto a stable that shrank",
    50: "an autoscaler on the target",
    51: "crash between two weights",
    52: "route that no gateway has taken",
    53: "route cannot be written, abort wanted",
    54: "weight edited by hand",
    55: "a tool that reverts the route",
    56: "clients that stick to a revision",
    57: "another image in a step",
    58: "back to the stable image",
    59: "plan loosened in a step",
    60: "target deleted",
    61: "route deleted",
    62: "Canary deleted in any phase",
    63: "Canary deleted, controller gone",
    64: "namespace deleted",
    65: "abort when nothing runs",
    66: "promote and abort at once",
    67: "abort at any step of any plan",
    68: "store restored from a backup",
    69: "two Canaries on one target",
    70: "wall clock jumps",
    71: "machine suspended",
    72: "a freeze across a clock change",
    73: "no time zone data",
    74: "a freeze begins in a step",
    75: "approval for another build",
    76: "approver lost the right",
    77: "kill switch unreadable or deleted",
    78: "record cannot be written",
    79: "notifications slow or down",
    80: "flood of Events",
    81: "flood of approvals or Canaries",
}


@dataclass(frozen=True)
class Proof:
    """One test that carries a row's number."""

    row: int
    path: str
    name: str
    does: str

    @property
    def sentence(self) -> str:
        found = _ROW.fullmatch(self.name)
        assert found is not None
        return found[2].replace("_", " ")


def peers() -> Iterator[tuple[str, str]]:
    """Name and docstring of each test named after what others get wrong."""
    for node in ast.parse(PEERS.read_text()).body:
        if isinstance(node, ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node.name, " ".join((ast.get_docstring(node) or "").split())


def proofs(root: Path = ROOT / "tests") -> Iterator[Proof]:
    """Every test with a row's number in its name, in the order of rows."""
    found = []
    for path in sorted(root.rglob("test_*.py")):
        text = path.read_text()
        if "test_row_" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (named := _ROW.fullmatch(node.name)):
                does = " ".join((ast.get_docstring(node) or "").split())
                found.append(Proof(int(named[1]), str(path.relative_to(ROOT)), node.name, does))
    return iter(sorted(found, key=lambda one: (one.row, one.path, one.name)))


def note(results: dict[str, str]) -> None:
    """Remember what tests came to; the others stay as they were."""
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps(dict(sorted((known | results).items())), indent=1) + "\n")


def render() -> str:
    """The page."""
    by_row: dict[int, list[Proof]] = {}
    for proof in proofs():
        by_row.setdefault(proof.row, []).append(proof)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    lines = [_HEAD.format(rows=len(FAULTS))]
    for row, fault in FAULTS.items():
        if row in PARTS:
            lines += [
                "",
                f"## {PARTS[row]}",
                "",
                "| # | fault | what Serin does | test | last result |",
                "|---|---|---|---|---|",
            ]
        for proof in by_row.get(row, []):
            where = f"[`{proof.path.rpartition('/')[2]}`](../{proof.path})"
            result = results.get(proof.name, "not run yet")
            lines.append(f"| {row} | {fault} | {proof.sentence}. {proof.does} | {where} | {result} |")
    lines += [
        "",
        "## What others of this kind get wrong",
        "",
        _PEERS,
        "",
        "| what holds here | last result |",
        "|---|---|",
    ]
    for name, does in peers():
        sentence = name.removeprefix("test_").replace("_", " ")
        lines.append(f"| {sentence}. {does} | {results.get(name, 'not run yet')} |")
    lines += ["", "## The simulation at length", "", _SOAK]
    return "\n".join(lines) + "\n"


_HEAD = """# Faults

Written by `python -m tests.faults.catalogue` from the tests; `make faults` runs them all, `make test` a part. Each row
is a fault that controllers of this kind have met; each of the {rows} rows has a test with its number in its name.

The tests run against a real API server, with a controller process of their own behind a proxy that delays, cuts and
lies, and with scripted metrics; where a row asks for it there are two API servers on one etcd, or etcd itself is filled
or put back. Whatever the row is about, the rules O1 to O4, O7 and O8 (`tests/faults/oracles.py`) are asked over
everything the API server accepted, in the order in which it did. O6 and O9 are how a row ends, O10 is asked of the
audit log at rest, and O5 in the simulation, where the fake world refuses a raise in a freeze.

"Last result" is what each test came to when it ran last: with the others in `make faults`, or alone after it was
changed."""

_SOAK = """`make soak MINUTES=60` plays the real loop and the real judge in a fake world under a virtual clock
(`tests/simulation/`), over fresh seeds on all cores: crashes, requests that arrive late, lost replies, refusals,
throttling, watches that lag, leaders that sleep and wake, outages of metrics, records, rights and freezes, clocks that
jump by an hour, people who edit, decide and meddle with the route. A failing seed is played again with as few of these
as still break it, and printed with its last writes and the command that repeats it. A seed costs 0.2 to 0.8 s of one
core by its story, 0.5 s on average. Counted: 1,010 fresh seeds in eight minutes on two cores that two clusters used
too, 7,506 an hour, none failed; 10,000 an hour take two cores of which three quarters are the simulation's."""

_PEERS = """Each is something that was seen with another controller, and a test of
[`test_peers.py`](../tests/faults/test_peers.py) with the same oracles."""


def main() -> int:
    PAGE.write_text(render())
    return 0


if __name__ == "__main__":
    sys.exit(main())
