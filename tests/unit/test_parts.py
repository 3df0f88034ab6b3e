"""How `make test` runs its parts: together where there is room, and nothing is lost, forgotten or left running."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.cluster.objects import eventually
from tests.parts import ALONE, GUARDED, OLDER, PARTS, STORIES, Kind, Part, Run

ROOT = Path(__file__).parents[2]


def part(name: str, kind: Kind, script: str = "") -> Part:
    return Part(name, "an example", kind, ((sys.executable, "-c", script),))


def run(tmp_path: Path, *parts: Part, clusters: int = 2) -> Run:
    return Run(parts, computing=1, clusters=clusters, logs=tmp_path / "logs")


def processes(folder: Path, word: str) -> set[str]:
    return {path.name.partition("-")[2] for path in folder.glob(f"{word}-*")}


def meets(here: Path, own: str, other: str) -> str:
    """A script that ends well only if another one runs at the same time."""
    return (
        f"import pathlib, time; here = pathlib.Path({str(here)!r}); (here / {own!r}).touch()\n"
        f"until = time.monotonic() + 20\n"
        f"while not (here / {other!r}).exists(): assert time.monotonic() < until; time.sleep(0.01)"
    )


async def test_one_that_computes_and_clusters_run_at_the_same_time(tmp_path: Path) -> None:
    together = (
        part("computes", Kind.COMPUTES, meets(tmp_path, "a", "b")),
        part("one", Kind.CLUSTER, meets(tmp_path, "b", "c")),
        part("two", Kind.CLUSTER, meets(tmp_path, "c", "a")),
    )

    ended = await run(tmp_path, *together).all()

    assert sorted((one.name, one.ok) for one in ended) == [("computes", True), ("one", True), ("two", True)]


async def test_a_part_that_fails_fails_the_whole_and_keeps_no_other_from_its_turn(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    failing = part("failing", Kind.CLUSTER, "print('why it failed'); raise SystemExit(3)")

    ended = await run(tmp_path, failing, part("other", Kind.CLUSTER), clusters=1).all()

    assert [(one.name, one.ok) for one in ended] == [("failing", False), ("other", True)]
    said = capfd.readouterr().out
    assert "==> failing     FAILED" in said
    assert "why it failed" in said, "the log is printed whole"


async def test_what_passed_only_when_it_was_tried_again_is_counted(tmp_path: Path) -> None:
    said = "print('1 failed, 8 passed, 2 rerun in 3.10s'); print('4 passed, 1 rerun in 1.00s')"

    ended = await run(
        tmp_path, part("shaky", Kind.CLUSTER, said), part("firm", Kind.CLUSTER, "print('4 passed')")
    ).all()

    assert {one.name: one.again for one in ended} == {"shaky": 3, "firm": 0}
    assert next(one for one in ended if one.again).text.endswith(", 3 tried twice")


async def test_nothing_else_begins_while_the_first_checks_fail(tmp_path: Path) -> None:
    left = part("computes", Kind.COMPUTES, f"import pathlib; pathlib.Path({str(tmp_path)!r}, 'ran').touch()")

    ended = await run(tmp_path, part("static", Kind.FIRST, "raise SystemExit(1)"), left).all()

    assert [(one.name, one.ok) for one in ended] == [("static", False), ("computes", False)]
    assert ended[1].text.endswith("not run")
    assert not (tmp_path / "ran").exists()


async def test_clusters_wait_for_their_tools_and_do_not_begin_without(tmp_path: Path) -> None:
    built = f"import pathlib; pathlib.Path({str(tmp_path)!r}, 'built').touch()"
    needs = f"import pathlib; assert pathlib.Path({str(tmp_path)!r}, 'built').exists()"
    good = await run(tmp_path, part("tools", Kind.BUILDS, built), part("one", Kind.CLUSTER, needs)).all()
    bad = await run(tmp_path, part("tools", Kind.BUILDS, "raise SystemExit(1)"), part("one", Kind.CLUSTER)).all()

    assert [one.ok for one in good] == [True, True]
    assert [(one.ok, one.seconds > 0) for one in bad] == [(False, True), (False, False)]


async def test_who_interrupts_waits_until_every_part_has_cleaned_up(tmp_path: Path) -> None:
    script = (
        f"import os, pathlib, time; here = pathlib.Path({str(tmp_path)!r})\n"
        "try:\n    (here / f'begun-{os.getpid()}').touch(); time.sleep(60)\n"
        "except KeyboardInterrupt:\n    (here / f'clean-{os.getpid()}').touch()"
    )
    late = part("late", Kind.COMPUTES, script.replace("begun", "late"))
    parts = (part("computes", Kind.COMPUTES, script), part("one", Kind.CLUSTER, script), late)
    running = asyncio.create_task(run(tmp_path, *parts).all())
    await asyncio.to_thread(eventually, lambda: len(processes(tmp_path, "begun")) == 2)

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    begun = processes(tmp_path, "begun")
    assert begun == processes(tmp_path, "clean")
    assert not (tmp_path / "logs" / "late.log").exists(), "nothing begins after that"
    for process in begun:
        with pytest.raises(ProcessLookupError):
            os.kill(int(process), 0)


def test_no_test_file_is_forgotten() -> None:
    """Every folder of tests is named by a part; of tests/cluster every file, by itself or as what is left."""
    words = {word for part in PARTS for command in part.commands for one in command for word in one.split()}
    folders = {f"tests/{path.parent.name}" for path in (ROOT / "tests").glob("*/test_*.py")}
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "tests" / "cluster").glob("test_*.py")}
    left_out = {word.removeprefix("--ignore=") for word in words if word.startswith("--ignore=")}

    assert folders <= words
    assert left_out <= files
    assert left_out <= words


def test_a_story_that_wants_serin_runs_where_it_is_installed() -> None:
    """The others want a cluster in which nothing acts on what they write."""
    wanting = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests" / "cluster").glob("test_*.py")
        if '"serin"' in path.read_text().partition("__all__ = [")[2].partition("]")[0]
    }

    assert wanting
    assert wanting <= {*STORIES, *ALONE, *GUARDED, *OLDER}
