"""How long `kubectl canary origin` takes for a long history: a real repository, the command in its own process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.rows import Row, Target, row
from tests.bench.scene import Scene
from tests.cluster.podrunner import CHECKOUT

COMMITS = 30_000
BODY = "\n".join(
    "What changed and why, in a line as long as people write them when they are asked to." for _ in range(12)
)
TRAILERS = (
    "Co-authored-by: Claude Opus 4.6 <noreply@anthropic.com>",
    "Signed-off-by: Ann <ann@example.com>\nReviewed-by: Bo <bo@example.com>",
    "🤖 Generated with [Claude Code](https://claude.com/claude-code)",
)


def history(folder: Path) -> Path:
    """A repository with many commits, every third without a mark."""
    subprocess.run(["git", "init", "-q", "-b", "main", str(folder)], check=True)
    parts = []
    for number in range(COMMITS):
        message = f"fix: change {number}\n\n{BODY}\n\n{TRAILERS[number % len(TRAILERS)]}\n".encode()
        who = f"committer Ann <ann@example.com> {1700000000 + number} +0000"
        head = f"commit refs/heads/main\n{who}\ndata {len(message)}\n"
        parts.append(head.encode() + message + f"M 644 inline f{number % 500}\ndata 2\nx\n".encode())
    subprocess.run(["git", "-C", str(folder), "fast-import", "--quiet"], input=b"".join(parts), check=True)
    return folder


async def origin_of_30000_commits(scene: Scene) -> Row:
    """Seconds from the command to its answer as JSON."""
    samples = await asyncio.to_thread(durations, 3)
    return row("origin_of_30000_commits", "s", samples, Target("max < 20", {"max": 20}))


def durations(times: int) -> list[float]:
    """The command, so often, on one long history."""
    with tempfile.TemporaryDirectory() as made:
        repo = history(Path(made) / "repo")
        command = [sys.executable, "-m", "controller.cli.main", "origin", "--repo", str(repo), "-o", "json"]
        samples = []
        for _ in range(times):
            began = time.monotonic()
            subprocess.run(command, cwd=CHECKOUT, check=True, stdout=subprocess.DEVNULL)
            samples.append(time.monotonic() - began)
    return samples
