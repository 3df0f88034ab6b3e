"""Gauges advise: they hold a rollout, say why, and stand before no verdict."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from controller.errors import SourceUnavailable
from controller.loop.advice import Advice, Advisor
from controller.model.spec import CanarySpec, Metric
from controller.model.status import Phase
from controller.model.world import CanaryPods
from controller.ports import GaugeSamples, Ref
from tests.builders import MINUTE, NOON, spec, status
from tests.world import Fleet, Hands, World

REF = Ref("shop", "checkout", "c-1")
SPEC = spec(analysis={"metrics": [{"name": "errors", "errorRatio": {}}, {"name": "memory", "gauge": {"lasts": "1m"}}]})
OLD_PODS = CanaryPods(exists=True, wanted=1, ready=1, endpoints=1, youngest_age=600.0, oldest_age=600.0)


class Gauged(Hands):
    """A source with gauges: `hold` while it does not answer, `down` when it fails, `without` an arm."""

    hold: asyncio.Event | None = None
    down = False
    without = ""
    asked = 0

    async def read_gauge(
        self, ref: Ref, spec: CanarySpec, metric: Metric, since: datetime, until: datetime, *, step: float
    ) -> GaugeSamples:
        self.asked += 1
        if self.hold is not None:
            await self.hold.wait()
        if self.down:
            raise SourceUnavailable("default", "no connection")
        found = await super().read_gauge(ref, spec, metric, since, until, step=step)
        return GaugeSamples(
            {} if self.without == "canary" else found.canary, {} if self.without == "stable" else found.stable
        )


def hands(using: float, **changes: object) -> Gauged:
    """Canary pods that use so many times what stable's do."""
    made = Gauged(World(random.Random(1), {}, using={"v2": using}, fleet=Fleet("a", "v2", 1)), 1)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


async def advised(source: Gauged, pods: CanaryPods = OLD_PODS, now: datetime = NOON) -> Advice:
    """What is said once the gauges have been read."""
    advisor = Advisor(source)
    advisor.read(REF, SPEC, status(), pods, now, scrape=1.0)
    await asyncio.gather(*advisor._reading.values())
    return advisor.read(REF, SPEC, status(), pods, now, scrape=1.0)


async def test_a_gauge_above_its_limit_for_long_enough_is_told_with_both_numbers() -> None:
    found = await advised(hands(1.5))

    assert found.words.startswith("GaugeHigher memory is 1.50 times that of stable pods for 6")
    assert found.words.endswith("allowed are 1.2")
    (seen,) = found.seen
    assert (seen.metric, seen.canary, seen.stable, seen.times) == ("memory", 1.5, 1.0, 1.2)
    assert seen.above >= 60.0


async def test_a_gauge_within_its_limit_says_nothing() -> None:
    assert (await advised(hands(1.1))).words == ""


async def test_what_is_above_its_limit_for_a_moment_holds_until_it_is_decided() -> None:
    young = CanaryPods(exists=True, wanted=1, ready=1, endpoints=1, youngest_age=70.0, oldest_age=600.0)

    found = await advised(hands(1.5), young)

    assert found.words == "GaugeHigher memory is 1.50 times that of stable pods for 39 s, allowed are 1.2 for 60 s"
    assert (await advised(hands(1.1), young)).words == ""


async def test_one_new_pod_beside_three_that_are_warm_does_not_keep_a_gauge_from_being_read() -> None:
    pods = replace(OLD_PODS, youngest_age=5.0, ages=(5.0, 600.0, 600.0, 600.0))

    assert (await advised(hands(1.1), pods)).words == ""
    assert (await advised(hands(1.5), pods)).words.startswith("GaugeHigher memory is 1.50 times")


async def test_pods_that_are_not_warm_have_said_nothing_yet() -> None:
    cold = CanaryPods(exists=True, wanted=1, ready=1, endpoints=1, youngest_age=20.0, oldest_age=600.0)

    assert (await advised(hands(1.0), cold)).words.startswith(
        "GaugeMissing memory: no value of the canary's warm pods yet"
    )


@pytest.mark.parametrize(("arm", "whose"), [("canary", "the canary's"), ("stable", "stable's")])
async def test_a_gauge_without_values_holds_and_says_whose_are_missing(arm: str, whose: str) -> None:
    found = await advised(hands(1.0, without=arm))

    assert found.words.startswith(f"GaugeMissing memory: no value of {whose} warm pods yet: does gauge memory")


async def test_a_source_that_does_not_answer_holds_and_nothing_waits_for_it() -> None:
    hanging = hands(1.0, hold=asyncio.Event())
    advisor = Advisor(hanging)

    for _ in range(3):
        said = advisor.read(REF, SPEC, status(), OLD_PODS, NOON, scrape=1.0)
        await asyncio.sleep(0)

    assert said.words == "GaugeMissing the gauges have not been read yet"
    assert hanging.asked == 1
    advisor.forget(REF.key)
    assert "did not answer: no connection" in (await advised(hands(1.0, down=True))).words


async def test_gauges_are_read_no_more_often_than_they_have_values_and_only_under_traffic() -> None:
    source = hands(1.0)
    advisor = Advisor(source)

    for second in range(12):
        now = NOON + timedelta(seconds=second)
        advisor.read(REF, SPEC, status(), OLD_PODS, now, scrape=1.0)
        await asyncio.gather(*advisor._reading.values())
    before = source.asked
    advisor.read(REF, SPEC, status(Phase.RETREATED), OLD_PODS, NOON + MINUTE, scrape=1.0)

    assert before == 4, "every three seconds: a twentieth of the minute that it has to last"
    assert source.asked == before


async def test_a_canary_without_gauges_asks_for_none() -> None:
    source = hands(9.0)

    assert Advisor(source).read(REF, spec(), status(), OLD_PODS, NOON, scrape=1.0).words == ""
    assert source.asked == 0
