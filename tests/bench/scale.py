"""What it costs to have many Canaries: at 1, at 100 and at 1,000, at rest and while some of them roll out.

The one thing to know: the fleets are made once and grow, because bringing up a thousand workloads takes minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence

import aiohttp

from tests.bench.inside import address_of, leader, slowest, told
from tests.bench.rollouts import LONG, relief, start_all
from tests.bench.rows import Row, Target, row
from tests.bench.scene import DEPLOYMENT, SYSTEM, Fleet, Scene, say
from tests.bench.seen import Request, requests
from tests.cluster.objects import kubectl, state_dir

SIZES = (1, 100, 1000)
MEMORY = {1: 100.0, 100: math.inf, 1000: 200.0}
REST = 60.0
ACTIVE = 100
EDITS = 30


async def scale(scene: Scene) -> AsyncIterator[Row]:
    """All rows of a growing cluster, each as soon as it is measured."""
    keys: list[str] = []
    for size in SIZES:
        say(f"  {size} Canaries at rest")
        fleet = await scene.fleet(f"scale-{size}", size - len(keys), LONG, per_namespace=20, within=900)
        keys += fleet.keys
        for each in await _at_rest(size):
            yield each
    async for each in _with_a_hundred_active(scene, fleet):
        yield each
    yield await _start(len(keys))


async def _at_rest(size: int) -> list[Row]:
    """A minute in which nothing happens."""
    await asyncio.sleep(20)
    process, since = leader(), time.time()
    busy = process.busy
    await asyncio.sleep(REST)
    spent, memory = (process.busy - busy) * 60 / REST, process.memory
    asked = requests(state_dir(), since, since + REST)
    watches = sum(one.verb == "watch" for one in asked)
    others = [one for one in asked if one.verb != "watch"]
    say(f"    {_counted(others)}; watches set up again: {watches}")
    at_most = {"max": MEMORY[size]}
    return [
        row(f"memory_{size}", "MiB", [memory], Target(_limit(MEMORY[size]), at_most)),
        row(f"cpu_at_rest_{size}", "s a minute", [spent], Target("1", {"max": 1.0})),
        row(f"api_requests_at_rest_{size}", "a minute", [float(len(others))], Target("40 beside watches", {"max": 40})),
    ]


async def _start(size: int) -> Row:
    """A process that finds a free Lease: from its first instruction to a look at every Canary."""
    bring = asyncio.to_thread
    samples = []
    for _ in range(3):
        await bring(kubectl, "scale", DEPLOYMENT, "-n", SYSTEM, "--replicas=0")
        with contextlib.suppress(AssertionError):
            await bring(kubectl, "wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name=serin", "-n", SYSTEM)
        await bring(kubectl, "scale", DEPLOYMENT, "-n", SYSTEM, "--replicas=1")
        samples.append(await _until_looked_at(size))
        say(f"    {size} looked at {samples[-1]:.2f} s after the start of the process")
    await bring(kubectl, "scale", DEPLOYMENT, "-n", SYSTEM, "--replicas=2")
    await bring(kubectl, "rollout", "status", DEPLOYMENT, "-n", SYSTEM, "--timeout=60s")
    return row(f"start_{size}", "s", samples, Target("max < 5", {"max": 5.0}))


async def _until_looked_at(size: int) -> float:
    async with asyncio.timeout(60):
        while True:
            await asyncio.sleep(0.05)
            try:
                process = await asyncio.to_thread(leader)
                address = await asyncio.to_thread(address_of, process.pod)
                break
            except (LookupError, ValueError, OSError, AssertionError):
                continue
        while True:
            try:
                found = await told(address)
            except (aiohttp.ClientError, OSError):
                found = {}
            if found.get(("serin_turns_total", ()), 0) >= size:
                return time.time() - process.began
            # A scrape of a thousand Canaries is work too.
            await asyncio.sleep(0.2)


async def _with_a_hundred_active(scene: Scene, fleet: Fleet) -> AsyncIterator[Row]:
    """A hundred of them roll out: what others wait for, what is asked, and all of the hundred failing at once."""
    active, others = fleet.keys[:ACTIVE], fleet.keys[ACTIVE : ACTIVE + EDITS]
    await start_all(scene, active)
    say("    100 of them are in a rollout")
    process = leader()
    address = address_of(process.pod)
    before, asked, busy, since = await told(address), len(scene.gateway.queries), process.busy, time.time()
    await asyncio.sleep(20)
    seconds = time.time() - since
    queries = (len(scene.gateway.queries) - asked) / seconds
    cost = (process.busy - busy) / seconds
    live = requests(state_dir(), since, since + seconds)
    say(f"    {100 * cost:.0f} % of a core, {len(live) * 60 / seconds:.0f} API requests a minute: {_counted(live)}")
    namespaces = len({key.partition("/")[0] for key in active})
    say(f"    {queries:.1f} queries a second for {len(active)} canaries of two metrics in {namespaces} namespaces")
    most = {"max": 2.0 * namespaces}
    yield row("queries_per_scrape_100_active", "queries", [queries], Target("2 a namespace", most))
    edits = await _edits(scene, others)
    yield row("edit_to_first_reconcile_100_active", "s", edits, Target("p99 < 1", {"p99": 1.0}))
    lag = slowest(before, await told(address), "serin_loop_lag_seconds", 0.99)
    yield row("loop_lag_100_active", "s, p99 bucket", [lag], Target("0.1", {"max": 0.1}))
    failing = await _fail(scene, active)
    yield row("hundred_failing_while_1000_rest", "s", failing, Target("max < 5", {"max": 5.0}))


async def _edits(scene: Scene, keys: Sequence[str]) -> list[float]:
    """From the reply to an edit to the first status that speaks of it."""
    samples = []
    for key in keys:
        await scene.edit(key, "v2")
        edited = time.time()
        await scene.seen.until(lambda key=key: scene.seen.status(key).get("attempt"), 30, f"{key} is a candidate")
        samples.append(max(0.0, scene.seen.statuses[key][-1].at - edited))
    return samples


async def _fail(scene: Scene, keys: Sequence[str]) -> list[float]:
    begins = math.ceil(time.time()) + 1
    for key in keys:
        scene.gateway.spoil(*key.split("/"), begins)
    await scene.seen.until(lambda: all(relief(scene, key) for key in keys), 180, "all are off traffic")
    return [found[1] - begins - 1 for key in keys if (found := relief(scene, key))]


def _counted(asked: Sequence[Request]) -> str:
    found = Counter(f"{one.verb} {one.what}" for one in asked)
    return ", ".join(f"{count} {what}" for what, count in found.most_common(12)) or "nothing"


def _limit(most: float) -> str:
    return f"{most:g}" if math.isfinite(most) else "-"
