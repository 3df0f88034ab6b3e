"""Every check and every test in parts, several at a time: what `make check` and `make test` run.

    python -m tests.parts [PART...]      all parts, or those that are named

The one thing to know: what needs a cluster mostly waits, what needs none mostly computes, so one part that computes and
as many clusters as there are cores (two at least) share a machine; each cluster is a network of its own. The log of a
part is printed whole when it ends, and stays in build/test/. JOBS=1 runs one part after the other.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from tests.cluster.namespace import die_with_parent

ROOT = Path(__file__).parents[1]
LOGS = ROOT / "build" / "test"
BIN = Path(sys.executable).parent
EVERY = 30.0
"""seconds between two lines that say how far it is"""
PATIENCE = 25.0
"""seconds that an interrupted part has for taking down what it started"""

PYTEST = (sys.executable, "-m", "pytest", "-q")
# Two in a part at most, and never without saying so: what a change broke fails twice.
ONCE_MORE = ("--reruns", "1", "--max-suite-reruns", "2", "--rerun-show-tracebacks")


def in_cluster(*runs: tuple[str, ...], older: bool = False) -> tuple[tuple[str, ...], ...]:
    """One cluster for these runs of pytest, one after the other up to the first that fails."""
    kind = ("--older",) if older else ()
    tests = " && ".join(shlex.join((*PYTEST, *ONCE_MORE, *words)) for words in runs)
    return ((sys.executable, "-m", "tests.cluster", *kind, "run", "--", "bash", "-c", tests),)


class Kind(Enum):
    FIRST = "first"
    """seconds, and alone: nothing else is worth waiting for while it fails"""
    COMPUTES = "computes"
    BUILDS = "builds"
    """the tools that clusters are made of"""
    CLUSTER = "cluster"


@dataclass(frozen=True)
class Part:
    name: str
    about: str
    kind: Kind
    commands: tuple[tuple[str, ...], ...]


def of_cluster(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/cluster/test_{name}.py" for name in names)


CHART = of_cluster("chart")
OLDER = of_cluster("older")
# Of a Serin that Helm installed, each in a namespace of its own and waiting more than it works.
STORIES = of_cluster("release", "analysis", "bad_input", "observability", "gitops")
# What stops everybody's rollouts runs alone, and test_rights last: it looks at what the others made the controller do.
ALONE = of_cluster("away", "rights")
GUARDED = of_cluster("threats", "provenance", "attacks", "guardrails", "scenarios", "rights")
ELSEWHERE = tuple(f"--ignore={path}" for path in dict.fromkeys((*CHART, *OLDER, *STORIES, *ALONE, *GUARDED)))
SIDE_BY_SIDE = ("-n", "2", "--dist", "worksteal")

FAULTS = ("tests/faults", "-m", "not long", *SIDE_BY_SIDE)

STATIC = (
    (str(BIN / "ruff"), "format", "--check", "."),
    (str(BIN / "ruff"), "check", "."),
    (sys.executable, "-m", "mypy"),
    (str(BIN / "lint-imports"), "--no-logo"),
    (*PYTEST, "--doctest-modules", "controller"),
)
UNIT = (*PYTEST, "tests/unit", "tests/property", "tests/simulation", "tests/contract")
TOOLS = (sys.executable, "-m", "tests.cluster", "tools")

# Clusters begin in this order, the longest first.
PARTS = (
    Part("static", "format, lint, types, imports, examples in docstrings", Kind.FIRST, STATIC),
    Part("tools", "the tools of the local cluster, built once: some minutes", Kind.BUILDS, (TOOLS,)),
    Part("fast", "unit, property, simulation and contract tests", Kind.COMPUTES, (UNIT,)),
    Part("statistics", "error rates of the judge, counted", Kind.COMPUTES, ((*PYTEST, "tests/statistics"),)),
    Part("packaging", "the image as far as it goes without an engine", Kind.COMPUTES, ((*PYTEST, "tests/packaging"),)),
    Part("stories", "releases from end to end", Kind.CLUSTER, in_cluster((*STORIES, *SIDE_BY_SIDE), ALONE)),
    Part("faults", "the usual ones", Kind.CLUSTER, in_cluster(FAULTS)),
    Part("guarded", "guardrails, provenance, attacks", Kind.CLUSTER, in_cluster(GUARDED)),
    Part("chart", "installed, upgraded, removed", Kind.CLUSTER, in_cluster(CHART)),
    Part("older", "no MutatingAdmissionPolicy", Kind.CLUSTER, in_cluster(OLDER, older=True)),
    Part("cluster", "the rest that needs an API server", Kind.CLUSTER, in_cluster(("tests/cluster", *ELSEWHERE))),
)


@dataclass
class Result:
    """How a part ended; seconds are 0 for one that never began, and `again` tests were tried twice."""

    name: str
    ok: bool
    seconds: float = 0.0
    again: int = 0

    @property
    def text(self) -> str:
        verdict = "passed" if self.ok else "FAILED" if self.seconds else "not run"
        if not self.seconds:
            return f"{self.name:<12}{verdict}"
        again = f", {self.again} tried twice" if self.again else ""
        return f"{self.name:<12}{verdict:<9}{self.seconds:5.0f} s{again}"


@dataclass
class Run:
    """One run over some parts."""

    parts: Sequence[Part]
    computing: int
    clusters: int
    logs: Path = LOGS
    began: dict[str, float] = field(default_factory=dict)
    ended: list[Result] = field(default_factory=list)

    async def all(self) -> list[Result]:
        """Every part, as early as there is room for it. Cancelling ends what runs, in order, and waits for it."""
        first = [part for part in self.parts if part.kind is Kind.FIRST]
        rest = [part for part in self.parts if part.kind is not Kind.FIRST]
        for part in first:
            if not await self._carry_out(part):
                return [*self.ended, *(Result(one.name, ok=False) for one in rest)]
        builds, computes, clusters = (asyncio.Semaphore(room) for room in (1, self.computing, self.clusters))
        if self.computing == self.clusters == 1:
            builds = computes = clusters

        async def in_room(room: asyncio.Semaphore, part: Part, after: Sequence[asyncio.Task[bool]] = ()) -> bool:
            if not all([await asyncio.shield(one) for one in after]):
                self.ended.append(Result(part.name, ok=False))
                return False
            async with room:
                return await self._carry_out(part)

        async with asyncio.TaskGroup() as group:
            telling = group.create_task(self._tell())
            building = [group.create_task(in_room(builds, one)) for one in rest if one.kind is Kind.BUILDS]
            working = [group.create_task(in_room(computes, one)) for one in rest if one.kind is Kind.COMPUTES]
            working += [group.create_task(in_room(clusters, one, building)) for one in rest if one.kind is Kind.CLUSTER]
            if rest:
                # Not one after the other: whoever interrupts ends all of them together, and none begins meanwhile.
                await asyncio.wait([*building, *working])
            telling.cancel()
        return self.ended

    async def _carry_out(self, part: Part) -> bool:
        """Its commands one after the other, up to the first that fails."""
        log = None if self._is_alone(part) else self.logs / f"{part.name}.log"
        self.began[part.name] = time.monotonic()
        say(f"==> {part.name}: {part.about}")
        self.logs.mkdir(parents=True, exist_ok=True)
        if log is not None:
            log.write_bytes(b"")
        code = 0
        for command in part.commands:
            code = code or await self._command(part, command, log)
        took = time.monotonic() - self.began.pop(part.name)
        again = 0 if log is None else sum(map(int, re.findall(r"(\d+) rerun", log.read_text(errors="replace"))))
        result = Result(part.name, code == 0, took, again)
        self.ended.append(result)
        if log is not None:
            say(f"==> {result.text}\n{log.read_text(errors='replace').rstrip()}")
        return result.ok

    def _is_alone(self, part: Part) -> bool:
        """Nothing else runs beside it, so that what it says can be shown as it comes."""
        return part.kind is Kind.FIRST or not any(
            one for one in self.parts if one.kind is not Kind.FIRST and one != part
        )

    async def _command(self, part: Part, command: tuple[str, ...], log: Path | None) -> int:
        def prepare() -> None:
            die_with_parent()
            # Whoever started us in the background had interrupts ignored, and what we start must hear of ours.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if part.kind is Kind.COMPUTES and not self._is_alone(part):
                os.nice(10)

        output = None if log is None else log.open("ab")
        env = os.environ | {"PYTHONUNBUFFERED": "1", "SERIN_KEEP_LOGS": str(self.logs / f"{part.name}-cluster")}
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, env=env, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True, preexec_fn=prepare,
        )  # fmt: skip
        if output is not None:
            output.close()
        try:
            return await process.wait()
        except asyncio.CancelledError:
            await end(process)
            raise

    async def _tell(self) -> None:
        """A line now and then, for whoever watches."""
        begun = time.monotonic()
        while True:
            await asyncio.sleep(EVERY)
            running = [f"{name} {self._progress(name)}" for name in self.began]
            if running and not any(self._is_alone(part) for part in self.parts if part.name in self.began):
                say(f"    {(time.monotonic() - begun) / 60:4.1f} min: {', '.join(running)}")

    def _progress(self, name: str) -> str:
        """As far as pytest says how far it is."""
        with suppress(OSError):
            said = re.findall(r"\[ *(\d+)%\]", (self.logs / f"{name}.log").read_text(errors="replace"))
            if said:
                return f"{said[-1]} %"
        return f"{time.monotonic() - self.began[name]:.0f} s"


async def end(process: asyncio.subprocess.Process) -> None:
    """Interrupt it, as somebody at a terminal would; end the whole group where that does not help."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
    try:
        await asyncio.wait_for(process.wait(), PATIENCE)
    except TimeoutError:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def say(text: str) -> None:
    print(text, flush=True)


def lanes(cores: int, jobs: str) -> tuple[int, int]:
    """How many parts compute at a time, and how many clusters there are.

    >>> lanes(2, ""), lanes(8, ""), lanes(8, "1")
    ((1, 2), (4, 4), (1, 1))
    """
    if jobs:
        return (max(1, int(jobs) // 2), int(jobs))
    return (max(1, cores // 2), min(4, max(2, cores)))


async def _run(parts: Sequence[Part]) -> int:
    began = time.monotonic()
    run = Run(parts, *lanes(os.cpu_count() or 1, os.environ.get("JOBS", "")))
    working = asyncio.ensure_future(run.all())
    caught: list[int] = []

    def interrupt(number: int) -> None:
        caught.append(number)
        working.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, interrupt, number)
    try:
        results = await working
    except asyncio.CancelledError:
        say("==> interrupted: what ran has been ended")
        return 128 + caught[0]
    if len(parts) > 1:
        say("\n".join(["==> all parts", *(f"    {result.text}" for result in results)]))
        say(f"    {time.monotonic() - began:.0f} s in all; logs in {LOGS.relative_to(ROOT)}")
    return 0 if all(result.ok for result in results) else 1


def main(words: Sequence[str]) -> int:
    known = {part.name: part for part in PARTS}
    if unknown := [word for word in words if word not in known]:
        print(f"there is no part {unknown[0]}: {', '.join(known)}", file=sys.stderr)
        return 2
    return asyncio.run(_run([part for part in PARTS if not words or part.name in words]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
