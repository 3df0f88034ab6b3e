"""The measurements, one function for each row of the table."""

from __future__ import annotations

import asyncio
import math
import os
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.bench.authorship import origin_of_30000_commits
from tests.bench.guardrails import freeze_decided_for_a_thousand, policy_evaluation
from tests.bench.rollouts import CLIMB, LONG, relief, start_all
from tests.bench.rows import Row, Target, row
from tests.bench.scale import scale
from tests.bench.scene import Scene, canary, kill_leader, plugin, say
from tests.bench.seen import Request, Seen, writes
from tests.cluster.load import Load
from tests.cluster.objects import (
    apply,
    kubectl,
    namespace_object,
    shop_deployment,
    shop_route,
    shop_service,
    state_dir,
)

PATIENCE = 180.0


async def verdict_to_weight_zero(scene: Scene) -> Row:
    """From the status that holds the verdict to the route at weight 0; one canary after the other turns bad."""
    fleet = await scene.fleet("verdict", 25, LONG)
    await start_all(scene, fleet.keys)
    samples = []
    for number, key in enumerate(fleet.keys):
        scene.gateway.spoil(*key.split("/"), math.ceil(time.time()))
        await scene.seen.until(lambda key=key: relief(scene, key), 60, f"{key} is off traffic")
        verdict, zero = relief(scene, key) or (0.0, math.inf)
        samples.append((zero - verdict) * 1000)
        if number % 5 == 4:
            say(f"  {number + 1} verdicts, the last was carried out in {samples[-1]:.0f} ms")
    await scene.remove(fleet)
    target = Target("p50 < 100, p99 < 1000", {"p50": 100, "p99": 1000})
    return row("verdict_to_weight_zero", "ms", samples, target)


async def hundred_failing_at_once(scene: Scene) -> Row:
    """All of them turn bad in the same scrape: how long each one still has traffic after it."""
    fleet = await scene.fleet("hundred", 100, LONG)
    say("  100 Canaries hold their edits; each gets a new revision")
    await start_all(scene, fleet.keys)
    say("  100 canaries have half of their traffic each; now all of them fail")
    await asyncio.sleep(5)
    begins = math.ceil(time.time()) + 1
    for key in fleet.keys:
        scene.gateway.spoil(*key.split("/"), begins)
    first = begins + 1
    await scene.seen.until(lambda: all(relief(scene, key) for key in fleet.keys), PATIENCE, "all are off traffic")
    reliefs = [found for key in fleet.keys if (found := relief(scene, key))]
    verdicts = sorted(verdict - first for verdict, _ in reliefs)
    last = max(zero for _, zero in reliefs) - first
    say(f"  verdicts {verdicts[0]:.2f} s to {verdicts[-1]:.2f} s after the scrape, weight 0 on all after {last:.2f} s")
    await scene.remove(fleet)
    return row("hundred_failing_at_once", "s", [zero - first for _, zero in reliefs], Target("max < 5", {"max": 5.0}))


async def requests_lost_by_release(scene: Scene) -> Row:
    """A good revision under load, from the edit to the end of the roll, counted at the client."""
    return await _lost(scene, "requests_lost_by_release", "Promoted", {})


async def requests_lost_by_rollback(scene: Scene) -> Row:
    """A bad revision under load; its own failures are not lost requests, all others are."""
    return await _lost(scene, "requests_lost_by_rollback", "RolledBack", {"SHOP_FAIL_RATIO": "0.5"})


async def writes_per_step(scene: Scene) -> Row:
    """All that the controller writes from the moment it enters a step until it enters the next."""
    fleet = await scene.fleet("writes", 3, CLIMB)
    began = time.time()
    counted: list[float] = []
    around = []
    for key in fleet.keys:
        await scene.edit(key, "v2")
    for key in fleet.keys:
        await scene.until_ended(key)
    await asyncio.sleep(3)
    for key in fleet.keys:
        namespace = key.partition("/")[0]
        entered = _entered(scene.seen.statuses[key])
        ours = [each for each in writes(state_dir(), began, time.time()) if each.namespace == namespace]
        by_object = _of(ours, key)
        for since, until in pairwise(entered):
            counted.append(float(sum(since <= each.at < until for each in by_object)))
        around.append(len(by_object) - sum(counted[-len(entered) + 1 :]))
        say(f"  {key}: {[int(each) for each in counted[-len(entered) + 1 :]]} by step, {around[-1]:.0f} around them")
        say(f"    {dict(Counter(f'{each.verb} {each.what}' for each in by_object))}")
    await scene.remove(fleet)
    return row("writes_per_step", "writes", counted, Target("max <= 8", {"max": 8}))


async def writes_of_a_rollout(scene: Scene) -> Row:
    """A healthy rollout of three steps, from the edit until nothing is left to do: all that the controller writes."""
    fleet = await scene.fleet("all-writes", 3, CLIMB[:3])
    counted = []
    for key in fleet.keys:
        began = time.time()
        await scene.edit(key, "v2")
        await scene.until_ended(key)
        await asyncio.sleep(4)
        ours = _of(writes(state_dir(), began, time.time()), key)
        counted.append(float(len(ours)))
        say(f"  {key}: {counted[-1]:.0f}: {dict(Counter(f'{each.verb} {each.what}' for each in ours))}")
    await scene.remove(fleet)
    return row("writes_of_a_rollout", "writes", counted, Target("max <= 30", {"max": 30}))


async def takeover(scene: Scene) -> Row:
    """`kill -9` of the leader in each phase of a rollout, to the first write of the next leader."""
    samples, wrong = [], []
    phases = ("Preparing", "Progressing", "Retreated", "RollingBack", "Releasing", "Finishing")
    fleet = await scene.fleet("takeover", len(phases), CLIMB)
    for phase, key in zip(phases, fleet.keys, strict=True):
        await scene.edit(key, "v2")
        seconds = await _kill_in(scene, phase, key)
        say(f"  killed in {phase}: the next leader wrote after {seconds:.1f} s")
        samples.append(seconds)
        if phase == "Retreated":
            await asyncio.to_thread(plugin, "abort", key, "--reason", "measured", "--yes")
        attempt = await scene.until_ended(key)
        outcome = {"Retreated": "Aborted", "RollingBack": "Aborted"}.get(phase, "Promoted")
        steps = [one["step"] for one in attempt.get("stepsSeen", [])]
        every = list(range(1, len(CLIMB) + 1))
        if attempt["outcome"] != outcome or steps != every[: len(steps)] or (outcome == "Promoted" and steps != every):
            wrong.append(f"killed in {phase}: {attempt['outcome']} after steps {steps}")
        await _both_ready()
    for each in wrong:
        say(f"  WRONG: {each}")
    await scene.remove(fleet)
    target = Target("max < 12, no step skipped or repeated", {"max": 12.0})
    return row("takeover", "s", samples, target, holds=not wrong)


async def cli_status(scene: Scene) -> Row:
    """`kubectl canary status` of a rollout, less the time in which a kubectl of its own ran."""
    fleet = await scene.fleet("status", 1, LONG)
    await start_all(scene, fleet.keys)
    samples, kubectls = [], []
    with tempfile.TemporaryDirectory() as folder:
        log, timed = Path(folder) / "calls", Path(folder) / "kubectl"
        timed.write_text(
            '#!/bin/bash\nbegan=$EPOCHREALTIME\nkubectl "$@"\ncode=$?\n'
            f'echo "$began $EPOCHREALTIME" >> {log}\nexit $code\n'
        )
        timed.chmod(0o755)
        for _ in range(25):
            log.write_text("")
            began = time.perf_counter()
            done = await asyncio.to_thread(plugin, "status", fleet.keys[0], env={"KUBECTL": str(timed)})
            took = time.perf_counter() - began
            if not done.stdout.startswith(("Progressing", "Canary", fleet.keys[0])) and done.returncode > 100:
                raise AssertionError(done.stdout + done.stderr)
            calls = [tuple(map(float, line.split())) for line in log.read_text().splitlines()]
            kubectls.append(_covered(calls) * 1000)
            samples.append(took * 1000 - kubectls[-1])
    say(f"  kubectl itself took {sorted(kubectls)[len(kubectls) // 2]:.0f} ms")
    await scene.remove(fleet)
    return row("cli_status", "ms", samples, Target("p50 < 150", {"p50": 150}))


MEASURES: Mapping[str, Callable[[Scene], Awaitable[Row] | AsyncIterator[Row]]] = {
    measure.__name__: measure
    for measure in (
        verdict_to_weight_zero,
        requests_lost_by_release,
        requests_lost_by_rollback,
        writes_per_step,
        writes_of_a_rollout,
        cli_status,
        origin_of_30000_commits,
        takeover,
        policy_evaluation,
        freeze_decided_for_a_thousand,
        hundred_failing_at_once,
        scale,
    )
}
"""in the order they are measured: the heaviest last"""


async def _lost(scene: Scene, name: str, outcome: str, env: Mapping[str, str]) -> Row:
    namespace = name.replace("_", "-")
    steps = [{"weight": 20, "bake": "5s"}, {"weight": 50, "bake": "5s"}]
    notes = {"serin.dev/origin": "ai"}
    bring = asyncio.to_thread
    await bring(apply, [namespace_object(namespace)])
    await bring(
        apply,
        [shop_deployment("shop", namespace, "v1", 3), shop_service("shop", namespace), shop_route("shop", namespace)],
    )
    await bring(kubectl, "rollout", "status", "deployment/shop", "-n", namespace, "--timeout=90s")
    key = f"{namespace}/shop"
    await bring(apply, [canary(namespace, "shop", steps, "default")])
    await scene.seen.until(lambda: scene.seen.status(key).get("editsHeld"), 60, "the edit is held")
    async with Load(os.environ["SERIN_GATEWAY"], f"shop.{namespace}.example", 300) as load:
        await asyncio.sleep(8)
        since = time.time()
        await bring(apply, [shop_deployment("shop", namespace, "v2", 3, env, notes)])
        attempt = await scene.until_ended(key, within=400)
        await asyncio.sleep(3)
    report = load.report.between(since)
    lost = report.lost(["v2"] if env else [])
    for each in lost[:5]:
        say(f"  lost: {each}")
    say(f"  {attempt['outcome']}, {len(report.answers)} requests, of the new revision {report.per_revision()['v2']}")
    await bring(kubectl, "delete", "canary", "shop", "-n", namespace, "--timeout=60s")
    await bring(kubectl, "delete", "namespace", namespace, "--wait=false")
    holds = attempt["outcome"] == outcome and report.per_revision()["v2"] > 0
    return row(name, "requests", [float(len(lost))], Target("0", {"max": 0}), n=len(report.answers), holds=holds)


def _entered(statuses: list[Seen]) -> list[float]:
    """When each step's weight was asked for first, and when the last one was left."""
    moments: list[float] = []
    step = -1
    for seen in statuses:
        if seen.phase == "Progressing" and seen.attempt.get("step", 0) > step:
            step = seen.attempt.get("step", 0)
            moments.append(seen.at)
        if seen.phase == "Releasing":
            return [*moments, seen.at]
    return moments


def _of(ours: list[Request], key: str) -> list[Request]:
    """Writes about one workload."""
    name = key.partition("/")[2]
    return [each for each in ours if each.name.startswith(name)]


async def _kill_in(scene: Scene, phase: str, key: str) -> float:
    """Bring the rollout into the phase, kill the leader at that moment, and wait for the next one."""
    if phase in {"Retreated", "RollingBack"}:
        await scene.until_weight([key], 5)
    if phase == "Retreated":
        scene.gateway.spoil(*key.split("/"), math.ceil(time.time()))
    if phase == "RollingBack":
        # In the background, because the phase lasts for less than the command.
        deciding = asyncio.create_task(
            asyncio.to_thread(plugin, "abort", key, "--reason", "measured", "--yes"), name="abort"
        )
    if phase == "Progressing":
        await scene.until_weight([key], 20)
    await scene.seen.until(lambda: scene.seen.status(key).get("phase") == phase, 120, f"{key} is {phase}")
    epoch = int(scene.seen.status(key).get("leaderEpoch", 0))
    killed = await asyncio.to_thread(kill_leader)

    def next_leader() -> float | None:
        statuses = scene.seen.statuses[key]
        return next((one.at for one in statuses if int(one.status.get("leaderEpoch", 0)) > epoch), None)

    wrote: Any = await scene.seen.until(next_leader, 60, "another leader")
    if phase == "RollingBack":
        await deciding
    return float(wrote) - killed


async def _both_ready() -> None:
    """The killed replica is back and waits."""
    words = ("rollout", "status", "deployment/serin-controller", "-n", "serin-system", "--timeout=60s")
    await asyncio.to_thread(kubectl, *words)


def _covered(calls: list[tuple[float, ...]]) -> float:
    """Seconds in which at least one of them ran: they run side by side."""
    covered, until = 0.0, 0.0
    for began, ended in sorted(calls):
        covered += max(0.0, ended - max(began, until))
        until = max(until, ended)
    return covered
