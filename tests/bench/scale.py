"""What it costs to have many Canaries: at 1, at 100 and at 1,000, at rest and while some of them roll out.

The one thing to know: the fleets are made once and grow, because bringing up a thousand workloads takes minutes; both
replicas begin anew before the first of them, so that nothing is in their memory but what this cluster asks for.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

import aiohttp

from tests.bench.inside import address_of, leader, slowest, told
from tests.bench.rollouts import LONG, relief, start_all
from tests.bench.rows import Row, Target, row
from tests.bench.scene import DEPLOYMENT, SYSTEM, Scene, say
from tests.bench.seen import READS, Request, requests
from tests.cluster.objects import kubectl, state_dir

SIZES = (1, 100, 1000)
MEMORY = {1: 100.0, 100: math.inf, 1000: 200.0}
REST = 60.0
ACTIVE = 100
EDITS = 120
BESIDE = 30
"""of those that are edited, so many roll out at a time: more, and it would not be a hundred that are active"""
FROZEN = timedelta(seconds=20)


async def scale(scene: Scene) -> AsyncIterator[Row]:
    """All rows of a growing cluster, each as soon as it is measured."""
    keys: list[str] = []
    _scrape_less()
    await asyncio.to_thread(kubectl, "rollout", "restart", DEPLOYMENT, "-n", SYSTEM)
    await asyncio.to_thread(kubectl, "rollout", "status", DEPLOYMENT, "-n", SYSTEM, "--timeout=90s")
    for size in SIZES:
        say(f"  {size} Canaries at rest")
        fleet = await scene.fleet(f"scale-{size}", size - len(keys), LONG, per_namespace=20, within=900)
        keys += fleet.keys
        for each in await _at_rest(size):
            yield each
    yield await _start(len(keys))
    async for each in _with_a_hundred_active(scene, fleet.keys):
        yield each


def _scrape_less() -> None:
    """The cluster's own Prometheus scrapes every 15 s from here on, as most do; canaries are judged by another.

    Once a second, the figures of a gateway with a thousand routes take half of two cores.
    """
    settings = state_dir() / "prometheus" / "prometheus.yaml"
    settings.write_text(settings.read_text().replace("scrape_interval: 1s", "scrape_interval: 15s"))
    os.kill(json.loads((state_dir() / "parts.json").read_text())["prometheus"]["pid"], signal.SIGHUP)


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
    written = [one for one in others if one.verb not in READS and one.what != "leases"]
    say(f"    {_counted(others)}; watches set up again: {watches}")
    at_most = {"max": MEMORY[size]}
    return [
        row(f"memory_{size}", "MiB", [memory], Target(_limit(MEMORY[size]), at_most)),
        row(f"cpu_at_rest_{size}", "s a minute", [spent], Target("1", {"max": 1.0})),
        row(f"api_requests_at_rest_{size}", "a minute", [float(len(others))], Target("40 beside watches", {"max": 40})),
        row(f"writes_at_rest_{size}", "a minute", [float(len(written))], Target("0 beside the lease", {"max": 0})),
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


async def _with_a_hundred_active(scene: Scene, keys: Sequence[str]) -> AsyncIterator[Row]:
    """A hundred of them roll out: what others wait for, what is asked, and all of the hundred failing at once."""
    active, others = keys[:ACTIVE], keys[ACTIVE : ACTIVE + EDITS]
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
    yield await _freeze(scene, keys)
    # What the end of the freeze sets off is over by then: each of them is looked at anew.
    await asyncio.sleep(20)
    failing = await _fail(scene, active)
    yield row("hundred_failing_while_1000_rest", "s", failing, Target("max < 5", {"max": 5.0}))


async def _edits(scene: Scene, keys: Sequence[str]) -> list[float]:
    """From the reply to an edit to the first status that speaks of it; the last of them go on rolling out."""
    samples = []
    for number, key in enumerate(keys):
        if number and number % BESIDE == 0:
            await _take_back(scene, keys[number - BESIDE : number])
        await scene.edit(key, "v2")
        edited = time.time()
        await scene.seen.until(lambda key=key: scene.seen.status(key).get("attempt"), 30, f"{key} is a candidate")
        said = next(one for one in scene.seen.statuses[key] if one.attempt)
        samples.append(max(0.0, said.at - edited))
    return samples


async def _take_back(scene: Scene, keys: Sequence[str]) -> None:
    """Their owners thought better of it: they are at rest again, and so is what else that set off."""
    for key in keys:
        await scene.edit(key, "v1")
    await scene.seen.until(
        lambda: all(scene.seen.status(key).get("phase") == "Idle" for key in keys), 120, "edits are taken back"
    )
    await asyncio.sleep(3)


async def _freeze(scene: Scene, keys: Sequence[str]) -> Row:
    """A Freeze of everything while 130 of a thousand roll out: until each of those says that it is held.

    Those at rest begin nothing: some are edited while it stands, and what is asked of them is that no canary of theirs
    gets a request.
    """
    rolling = [key for key in scene.seen.statuses if scene.seen.status(key).get("phase") == "Progressing"]
    resting = keys[ACTIVE + EDITS : ACTIVE + EDITS + BESIDE]
    ends = datetime.now(UTC) + FROZEN
    spec = {"reason": "a measurement", "start": "2026-01-01T00:00:00Z", "end": f"{ends:%Y-%m-%dT%H:%M:%SZ}"}
    freeze = {"apiVersion": "serin.dev/v1alpha1", "kind": "Freeze", "metadata": {"name": "scale"}, "spec": spec}
    began = time.time()
    await scene.api.apply("/apis/serin.dev/v1alpha1/freezes/scale", freeze)
    for key in resting:
        await scene.edit(key, "v2")

    def held(key: str) -> float | None:
        later = (one for one in scene.seen.statuses[key] if one.at > began)
        return next((one.at for one in later if one.status.get("reason") == "Frozen"), None)

    await scene.seen.until(lambda: all(held(key) for key in (*rolling, *resting)), 60, "all are held")
    samples = [at - began for key in rolling if (at := held(key))]
    say(f"    the last of {len(samples)} that rolled was held after {max(samples):.2f} s")
    await asyncio.sleep(max(0.0, ends.timestamp() - time.time()))
    let_through = [key for key in resting if any(one.weight for one in scene.seen.weights[key] if one.at > began)]
    for key in let_through:
        say(f"  WRONG: {key} got traffic while everything was frozen")
    await scene.seen.until(
        lambda: not any(scene.seen.status(key).get("reason") == "Frozen" for key in rolling), 60, "the freeze has ended"
    )
    target = Target("max < 2, none at rest begins", {"max": 2.0})
    return row("freeze_among_a_thousand", "s", samples, target, holds=not let_through)


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
