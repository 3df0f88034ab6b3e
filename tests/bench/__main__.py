"""`make bench`: measure what Serin promises on the local cluster, print a table, write build/bench.json.

python -m tests.bench [--only NAME ...]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import AsyncIterator, Sequence

from tests.bench.measures import MEASURES
from tests.bench.rows import Row, Target, row, table
from tests.bench.scene import ROOT, say, scene

OUT = ROOT / "build" / "bench.json"


def main() -> int:
    """Bring a cluster up around ourselves, or run inside it. The status is 0 only if every target is met."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=sorted(MEASURES), help="measure this row only; repeatable")
    only: list[str] = parser.parse_args().only or list(MEASURES)
    if not os.environ.get("SERIN_CLUSTER_DIR"):
        ours = [sys.executable, "-m", "tests.bench", *sys.argv[1:]]
        # The image has its modules compiled, and a process that compiles all of them with each start begins later.
        env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return subprocess.call([sys.executable, "-m", "tests.cluster", "run", "--", *ours], cwd=ROOT, env=env)
    rows = asyncio.run(measure([name for name in MEASURES if name in only]))
    print(f"\n{table(rows)}\n\nload of the machine: {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores")
    write(rows)
    return 0 if all(each.ok for each in rows) else 1


async def measure(names: Sequence[str]) -> list[Row]:
    """One after the other; one that breaks is a missed row, and the others go on."""
    rows = []
    async with scene() as stage:
        for name in names:
            say(f"Measuring {name}.")
            began = time.monotonic()
            try:
                measured = MEASURES[name](stage)
                if isinstance(measured, AsyncIterator):
                    async for each in measured:
                        rows.append(each)
                        write(rows)
                else:
                    rows.append(await measured)
            except Exception:
                traceback.print_exc()
                rows.append(row(name, "", [], Target("it broke: see above", {})))
            write(rows)
            say(f"  {rows[-1].p50:g} {rows[-1].unit} (p50), {time.monotonic() - began:.0f} s")
    return rows


def write(rows: Sequence[Row]) -> None:
    """Rows measured now replace those of their name; the others stay as they were measured last."""
    known = {}
    if OUT.exists():
        known = {each["name"]: each for each in json.loads(OUT.read_text())["rows"]}
    known |= {each.name: each.as_json() for each in rows}
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps({"rows": list(known.values())}, indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
