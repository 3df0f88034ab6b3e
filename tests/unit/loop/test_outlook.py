"""What is known before a rollout stands in the status, and the judge reckons with it."""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
from msgspec import to_builtins

from controller.cli.outlook import render_outlook as told
from controller.errors import SourceUnavailable
from controller.loop.analyst import Analyst
from controller.loop.outlook import BESIDE_FRESH, Outlooks, render_outlook, tables
from controller.loop.reconcile import reconcile
from controller.loop.world import World as Adapters
from controller.model.outlook import Bounds, Outlook
from controller.model.spec import CanarySpec, ErrorRatio, LatencyRule, Metric
from controller.model.status import Phase, Status
from controller.ports import ArmSamples, MetricSamples, Past, RawSample, Ref
from tests.builders import NOON, attempt, observed, spec, status
from tests.world import KEY, Hands, World

REF = Ref("shop", "checkout", "c-1")


def pods_past(until: datetime, pods: int = 4, minutes: int = 122) -> dict[str, ArmSamples]:
    """Pods of 20 requests a second, one of a hundred of which fails, more on some than on others."""
    rng = np.random.default_rng(5)
    found = {}
    for number in range(pods):
        times = [until.timestamp() // 60 * 60 - 60 * back for back in range(minutes, -1, -1)]
        requests = np.cumsum(rng.poisson(1200, len(times)))
        bad = np.cumsum(rng.poisson(12.0 * rng.gamma(2.0, 0.5, len(times))))
        pod = f"checkout-7d9f6c5b8-x2x4{number}"
        found[pod] = ArmSamples(
            tuple(RawSample(pod, at, float(value)) for at, value in zip(times, requests, strict=True)),
            tuple(RawSample(pod, at, float(value)) for at, value in zip(times, bad, strict=True)),
        )
    return found


class Remembering(Hands):
    """A source that remembers two hours of stable's pods; `down` while it does not answer about them."""

    pods = 4
    down = False
    asked = 0

    def __init__(self, world: World, term: int) -> None:
        super().__init__(world, term)
        self.compared: dict[str, LatencyRule] = {}
        """each latency, as it was last asked for"""

    async def read_samples(
        self, ref: Ref, spec: CanarySpec, metric: Metric, since: datetime, until: datetime
    ) -> MetricSamples:
        if metric.latency is not None:
            self.compared[metric.name] = metric.latency
        return await super().read_samples(ref, spec, metric, since, until)

    async def read_past(
        self, ref: Ref, spec: CanarySpec, until: datetime, *, traffic: timedelta, pods: timedelta
    ) -> Past:
        self.asked += 1
        if self.down:
            raise SourceUnavailable("default", "no connection")
        found = await super().read_past(ref, spec, until, traffic=traffic, pods=pods)
        return replace(found, pods=pods_past(until, self.pods), buckets={"latency": self.buckets_past(until)})

    slow = {0.005: 0.0, 0.01: 0.5, 0.025: 0.93, 0.05: 0.985, 0.1: 0.995, 0.25: 1.0, math.inf: 1.0}
    """shares of requests that were no slower, by bound in seconds"""

    def buckets_past(self, until: datetime) -> dict[float, tuple[RawSample, ...]]:
        begin, end = until.timestamp() - 1800, until.timestamp()
        return {
            bound: (RawSample(str(bound), begin, 7.0), RawSample(str(bound), end, 7.0 + 360_000 * share))
            for bound, share in self.slow.items()
        }


class Process:
    """A controller in a world without misfortune."""

    def __init__(self, **changes: object) -> None:
        self.world = World(random.Random(7), {})
        self.hands = hands = Remembering(self.world, 1)
        for name, value in changes.items():
            setattr(hands, name, value)
        self.analyst, self.outlooks = Analyst(hands), Outlooks(hands)
        self.adapters = Adapters(hands, hands, hands, hands, self.analyst, self.outlooks, hands, hands, lambda: 1)

    async def live(self, seconds: int) -> Status:
        """So many seconds, with as many turns in each as are wanted."""
        for _ in range(seconds):
            self.hands.watches.clear()
            for _ in range(8):
                await reconcile(KEY, self.adapters, self.world.now)
                await asyncio.gather(*(asked.task for asked in self.outlooks._asked.values()))
            self.world.pass_time(1.0)
        return self.world.remembered

    async def until(self, phase: Phase) -> Status:
        for _ in range(60):
            if (await self.live(1)).phase is phase:
                return await self.live(1)
        raise AssertionError(f"never {phase}")


async def released(process: Process) -> Status:
    for _ in range(20):
        process.world.pass_time(1.0)
    await process.until(Phase.IDLE)
    process.world.edit("v2")
    return await process.until(Phase.PROGRESSING)


async def test_before_the_first_rollout_the_status_says_what_each_step_can_see() -> None:
    process = Process()
    for _ in range(20):
        process.world.pass_time(1.0)

    found = (await process.until(Phase.IDLE)).outlook

    assert found is not None
    assert (found.generation, found.attempt, found.relief) == (1, "", 1.0)
    assert 190 < found.rate < 210
    assert [one.weight for one in found.steps] == [10, 50]
    assert found.noise_from.startswith("learned from 4 pods")
    assert found.rehearsal is not None
    assert "harmless rollouts of 2 min replayed" in found.rehearsal.message


async def test_at_rest_the_past_is_asked_for_once_and_written_once() -> None:
    process = Process()
    for _ in range(20):
        process.world.pass_time(1.0)
    await process.until(Phase.IDLE)
    writes = len(process.world.writes)

    for _ in range(20):
        await reconcile(KEY, process.adapters, process.world.now)
        process.world.pass_time(60.0)

    assert process.hands.asked == 1
    assert len(process.world.writes) == writes


async def test_the_noise_of_pods_is_learned_before_the_rollout_and_judged_with() -> None:
    process = Process()

    found = await released(process)

    assert found.attempt is not None
    assert found.outlook is not None
    assert found.outlook.attempt == found.attempt.id
    assert len(found.outlook.noise) == 3
    await process.live(3)
    running = process.analyst._running[KEY]
    assert running.state.noise == found.outlook.noise


async def test_a_new_leader_reckons_with_the_noise_that_the_last_one_learned() -> None:
    process = Process()
    found = await released(process)
    assert found.outlook is not None
    follower = Process(down=True)
    follower.world = follower.hands.world = process.world

    await follower.live(3)

    assert follower.analyst._running[KEY].state.noise == found.outlook.noise
    assert follower.hands.asked == 0


async def test_pods_that_cannot_be_told_apart_are_assumed_to_be_noisy_and_that_is_said() -> None:
    process = Process(pods=0)

    found = await released(process)

    assert found.outlook is not None
    assert found.outlook.noise == ()
    assert found.outlook.noise_from == "assumed: no counter of a pod of stable was found by the template pods"
    await process.live(3)
    assert process.analyst._running[KEY].state.noise is None


async def test_a_latency_without_a_threshold_is_compared_at_bounds_of_stables_past() -> None:
    process = Process()

    found = await released(process)

    assert found.outlook is not None
    assert found.outlook.bounds == (Bounds("latency", threshold=0.1, also=(0.01, 0.025, 0.05), requests=360_000),)
    await process.live(3)
    asked = process.hands.compared["latency"]
    assert asked.shown == timedelta(milliseconds=100)
    assert [one.total_seconds() for one in asked.bounds] == [0.01, 0.025, 0.05, 0.1]
    assert told(to_builtins(found.outlook))[-2] == (
        "latency is compared at 10ms, 25ms, 50ms, 100ms: chosen from 360,000 requests of stable's"
    )


async def test_a_threshold_that_was_written_stays_whatever_the_past_was() -> None:
    process = Process()
    written = {"name": "latency", "latency": {"threshold": "250ms"}, "margin": 0.01}
    process.world.spec = spec(analysis={"metrics": [{"name": "errors", "errorRatio": {}}, written]})

    await released(process)
    await process.live(3)

    assert process.hands.compared["latency"].bounds == (timedelta(milliseconds=250),)


async def test_a_latency_without_a_threshold_and_without_a_past_is_compared_at_250_ms() -> None:
    process = Process(slow={0.1: 0.001, math.inf: 0.002})

    found = await released(process)

    assert found.outlook is not None
    assert found.outlook.bounds == ()
    await process.live(3)
    assert process.hands.compared["latency"].bounds == (timedelta(milliseconds=250),)


async def test_a_past_that_cannot_be_read_holds_nothing_up() -> None:
    process = Process(down=True)

    assert (await released(process)).phase is Phase.PROGRESSING


async def test_noise_learned_for_another_attempt_is_not_this_ones() -> None:
    old = Outlook(at=NOON, attempt="another", noise=(1.0, 2.0))
    given = status(attempt=attempt(), outlook=old)
    world = World(random.Random(1), {})
    analyst = Analyst(Hands(world, 1))

    seen = observed(status=given)
    await analyst.read_verdict(REF, spec(), given, seen.canary, 4, NOON)

    assert analyst._running["shop/checkout"].state.noise is None


def test_the_table_of_two_hours_has_no_row_without_a_step() -> None:
    now = NOON + timedelta(seconds=17)

    requests, bad = tables(Past(15.0, pods=pods_past(now)), now)

    assert (requests[2:-1] > 0).all()
    assert 0.005 < bad.sum() / requests.sum() < 0.02


def test_a_service_that_never_fails_is_not_told_that_its_steps_see_nothing_for_a_week() -> None:
    seen = tuple(RawSample("stable", NOON.timestamp() - 60 + at, 200.0 * at) for at in range(61))
    analysis = spec().analysis.model_copy(
        update={"metrics": (Metric(name="e", error_ratio=ErrorRatio(), margin=0.005),)}
    )

    found = render_outlook(analysis, [(50.0, 60.0)], Past(1.0, {"e": ArmSamples(seen)}), now=NOON, scrape=1.0)

    assert (found.ratio, found.steps[0].blind) == (0.0, False)
    assert not any("week" in warning for warning in found.warnings)


def test_beside_a_fresh_baseline_it_warns_that_the_other_side_knows_no_more_than_the_canary() -> None:
    seen = Past(
        1.0, {"errors": ArmSamples(tuple(RawSample("s", NOON.timestamp() + at, 200.0 * at) for at in range(61)))}
    )
    fresh = spec(analysis={"baseline": {"fresh": True}}).analysis

    plain, beside = (
        render_outlook(one, [(50.0, 60.0)], seen, now=NOON, scrape=1.0).warnings for one in (spec().analysis, fresh)
    )

    assert beside == (*plain, BESIDE_FRESH)
