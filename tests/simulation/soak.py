"""`make soak`: the simulation for a given time over fresh seeds on all cores; a failing seed is made small.

python -m tests.simulation.soak --minutes 60            fresh seeds, every story
python -m tests.simulation.soak --story people --seed 17  this one again, with as few misfortunes as still break it
"""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import secrets
import sys
import time
import traceback
from collections.abc import Collection, Iterator
from concurrent.futures import ProcessPoolExecutor

import structlog

from tests.simulation.life import STORIES, Life

BATCH = 5
"""seeds a worker plays before it tells"""
AHEAD = 3
"""batches that wait for each worker, so that none is idle while another's is looked at"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--story", choices=sorted(STORIES), default=None, help="this story only (default: each in turn)"
    )
    parser.add_argument("--seed", type=int, default=None, help="this seed only")
    options = parser.parse_args()
    quiet()
    if options.seed is not None:
        stories = [options.story] if options.story else list(STORIES)
        failed = [story for story in stories if play(story, options.seed)]
        for story in failed:
            print(replay(story, options.seed))
        return 1 if failed else 0
    return soak(options.minutes * 60, options.jobs, [options.story] if options.story else list(STORIES))


def soak(seconds: float, jobs: int, stories: list[str]) -> int:
    """Play until the time is over or a seed fails."""
    began, played, failed = time.monotonic(), 0, list[tuple[str, int]]()
    fresh = itertools.count(secrets.randbelow(2**40))
    with ProcessPoolExecutor(jobs, initializer=quiet) as pool:
        waiting = [pool.submit(batch, story, first) for story, first in _work(fresh, stories, AHEAD * jobs)]
        while waiting:
            found = waiting.pop(0).result()
            played += BATCH
            failed += found
            if time.monotonic() - began < seconds and not failed:
                waiting += [pool.submit(batch, story, first) for story, first in _work(fresh, stories, 1)]
            _progress(played, time.monotonic() - began, len(failed))
    print()
    for story, seed in failed[:3]:
        print(replay(story, seed))
    hour = played / max(time.monotonic() - began, 1e-9) * 3600
    print(f"{played} seeds, {hour:,.0f} an hour on {jobs} cores, {len(failed)} failed")
    return 1 if failed else 0


def _work(fresh: Iterator[int], stories: list[str], count: int) -> Iterator[tuple[str, int]]:
    for _ in range(count):
        number = next(fresh)
        yield stories[number % len(stories)], number * BATCH


def batch(story: str, first: int) -> list[tuple[str, int]]:
    """The seeds of this batch that failed."""
    return [(story, seed) for seed in range(first, first + BATCH) if play(story, seed)]


def play(story: str, seed: int, only: Collection[int] | None = None, lives: list[Life] | None = None) -> str:
    """What broke; empty when nothing did."""
    try:
        STORIES[story](seed, only, (lives if lives is not None else []).append)
    except Exception as error:
        return "".join(traceback.format_exception_only(error)).strip()
    return ""


def replay(story: str, seed: int) -> str:
    """A failing seed with as few of its misfortunes as still break it, and the last writes before it broke."""
    lives: list[Life] = []
    play(story, seed, lives=lives)
    needed = [number for number, _ in lives[-1].befell] if lives else []
    size = max(len(needed) // 2, 1)
    while needed:
        kept = _without_a_part(story, seed, needed, size)
        if kept is not None:
            needed = kept
        elif size == 1:
            break
        else:
            size = max(size // 2, 1)
    lives.clear()
    broke = play(story, seed, needed, lives)
    lines = [f"{story}, seed {seed}: {broke}", "  with these misfortunes only:"]
    if lives:
        lines += [f"    {number}: {words}" for number, words in lives[-1].befell] or ["    none"]
        lines += ["  the last writes:"]
        lines += [f"    {at:%H:%M:%S} term {term}: {what}" for at, what, term in lives[-1].world.writes[-12:]]
    lines.append(f"  again: python -m tests.simulation.soak --story {story} --seed {seed}")
    return "\n".join(lines)


def _without_a_part(story: str, seed: int, needed: list[int], size: int) -> list[int] | None:
    """The same without some `size` of them, if it still breaks."""
    for start in range(0, len(needed), size):
        kept = needed[:start] + needed[start + size :]
        if play(story, seed, kept):
            return kept
    return None


def quiet() -> None:
    """A thousand lives have a million log lines."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def _progress(played: int, seconds: float, failed: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{played} seeds in {seconds:.0f} s, {failed} failed", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
