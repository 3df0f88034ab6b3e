"""C: the metrics server. No data is never a pass, and never an instant rollback. Numbers as in docs/faults.md."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from email.utils import formatdate

import pytest

from tests.fakes.prometheus import Fault
from tests.faults.oracles import moments
from tests.faults.rig import NAME, STEPS, Rig

WAITS = frozenset({"NoData", "MinRequests", "MetricsUnavailable", "TrafficMismatch"})
LONGER_THAN_THE_BAKE = 7.0


async def on_first_step(it: Rig, spoil: Callable[[], None] = lambda: None, **analysis: object) -> None:
    """On the first of two steps; `spoil` as its traffic comes, so that no sample of it was good."""
    await it.ready(STEPS, **analysis)
    it.on_traffic(spoil)
    await it.edit("v2")
    await it.until_weight(20)


def answer(it: Rig, **fields: object) -> Callable[[], None]:
    """From now on the metrics server is like this."""

    def spoil() -> None:
        for name, value in fields.items():
            setattr(it.gateway, name, value)

    return spoil


def stop_scraping(it: Rig) -> None:
    it.gateway.scraped_until = time.time()


async def holds(it: Rig) -> None:
    """The bake is over and the weight stays."""
    await it.until_reason(*WAITS)
    await asyncio.sleep(LONGER_THAN_THE_BAKE)
    assert (it.weight, it.status["phase"]) == (20, "Progressing"), it.story()


async def test_row_32_a_metrics_server_that_is_down_holds_and_then_the_policy_decides(it: Rig) -> None:
    """Nobody vouches for the change: after `noDataTimeout` it is rolled back, and the message says why."""
    await on_first_step(it, answer(it, fault=Fault.UNAVAILABLE), noDataTimeout="15s")
    await it.until_reason(*WAITS)
    await it.until(lambda: it.conditions().get("MetricsAvailable") == "False", what="said")
    await it.assert_back_on_stable()
    assert "no data" in it.attempt["outcomeMessage"]
    assert max(one.weight for one in moments(it.events, NAME)) == 20


@pytest.mark.parametrize("fault", [Fault.SLOW, Fault.TRUNCATED, Fault.WARNINGS, Fault.NOT_JSON, Fault.OTHER_JSON])
async def test_row_33_half_an_answer_is_none(it: Rig, fault: Fault) -> None:
    """Slow, cut off, partial by its own warning, or something else altogether."""
    await on_first_step(it, answer(it, fault=fault))
    await holds(it)
    it.gateway.fault = Fault.NONE
    await it.assert_promoted()


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "1e999", "abc"])
async def test_row_34_what_is_no_finite_number_is_never_compared(it: Rig, value: str) -> None:
    """Samples that no comparison may see."""
    await on_first_step(it, answer(it, instead=value))
    await holds(it)
    it.gateway.instead = ""
    await it.assert_promoted()


async def test_row_35_an_empty_answer_is_no_pass(it: Rig) -> None:
    """A well-formed answer without a series."""
    await it.ready()
    it.gateway.scraped_until = 0.0
    await it.edit("v2")
    await it.until_weight(20)
    await holds(it)
    it.gateway.scraped_until = float("inf")
    await it.assert_promoted()


async def test_row_37_errors_of_measuring_never_add_up_to_success(it: Rig) -> None:
    """Every measurement fails: before the first request none goes there, and after it there is no promotion."""
    await it.ready(STEPS, noDataTimeout="25s")
    it.gateway.fault = Fault.REFUSED
    await it.edit("v2")
    await it.until_reason("MetricsUnavailable")
    assert it.weight == 0
    it.gateway.fault = Fault.NONE
    await it.until_weight(20)
    it.gateway.fault = Fault.REFUSED
    await it.assert_back_on_stable()
    assert all(
        one.object["status"].get("phase") != "Releasing"
        for one in it.events
        if one.kind == "Canary" and "status" in one.object
    )


async def test_row_38_samples_that_stopped_are_not_fresh(it: Rig) -> None:
    """The server answers on with what it scraped last."""
    await on_first_step(it, lambda: stop_scraping(it))
    await holds(it)
    await it.until_reason("NoData")
    it.gateway.scraped_until = float("inf")
    await it.assert_promoted()


async def test_row_39_what_failed_before_the_canary_had_traffic_is_not_held_against_it(it: Rig) -> None:
    """Errors of both arms until the step begins."""
    await it.ready()
    cluster = f"{it.namespace}_{NAME}-canary_80"
    it.gateway._counters[cluster, "requests"].set(time.time(), 50.0)
    it.gateway._counters[cluster, "errors"].set(time.time(), 50.0)
    await asyncio.sleep(3)
    it.gateway.shift(it.namespace, NAME, 0.0, time.time())
    await it.edit("v2")
    await it.assert_promoted()
    assert not it.attempt.get("retreats")


@pytest.mark.parametrize("minutes", [-10, 10])
async def test_row_41_a_server_whose_clock_is_wrong_gives_no_data(it: Rig, minutes: int) -> None:
    """Ten minutes off: said, and no pass."""
    await on_first_step(it, answer(it, date=formatdate(time.time() + 60 * minutes, usegmt=True)))
    await holds(it)
    await it.until(lambda: "clock" in it.status.get("message", ""), what="said")
    it.gateway.date = ""
    await it.assert_promoted()


async def test_row_43_a_canary_that_gets_no_requests_is_not_promoted(it: Rig) -> None:
    """The weight is set and the split is not applied."""
    await it.ready()
    it.muted = True
    await it.edit("v2")
    await it.until_weight(20)
    await holds(it)
    assert it.status["message"]
    it.muted = False
    it.gateway.shift(it.namespace, NAME, 20.0, time.time())
    await it.assert_promoted()


async def test_row_45_a_canary_that_counts_for_itself_is_not_believed(it: Rig) -> None:
    """Its pods export series under the gateway's names, scraped with the labels they chose: all is well, they say."""
    await it.ready()
    claimed = {"envoy_cluster_name": f"{it.namespace}_{NAME}-canary_80", "job": "pods", "pod": "shop-canary-1"}
    it.gateway.claim("envoy_cluster_upstream_rq_completed", 1000.0, time.time(), **claimed)
    it.gateway.bad.add(f"{it.namespace}/{NAME}")

    await it.edit("v2")
    await it.until_weight(20)
    await it.until_reason("TrafficMismatch", "RolledBack")
    await asyncio.sleep(LONGER_THAN_THE_BAKE)

    assert it.weight <= 20
    assert it.status["phase"] != "Releasing", it.story()
    assert it.image == "v2", "held, as it was edited"
    assert it.attempt.get("outcome") != "Promoted"


async def test_row_46_a_pair_of_servers_that_disagree_decides_nothing_by_chance(it: Rig) -> None:
    """Every other answer is empty: the rollout waits or goes on, and never turns on one answer."""
    await on_first_step(it)
    swinging = True

    async def swing() -> None:
        while swinging:
            it.gateway.scraped_until = 0.0 if it.gateway.scraped_until else float("inf")
            await asyncio.sleep(0.7)

    task = asyncio.create_task(swing())
    await asyncio.sleep(LONGER_THAN_THE_BAKE)
    swinging = False
    await task
    it.gateway.scraped_until = float("inf")
    await it.assert_promoted()
    assert not it.attempt.get("retreats")
