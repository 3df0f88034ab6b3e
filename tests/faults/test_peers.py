"""What other progressive-delivery controllers get wrong, each a test named after it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from tests.bench.scene import canary
from tests.cluster.objects import shop_deployment, shop_route, shop_service
from tests.fakes.prometheus import FakePrometheus, Fault
from tests.faults.rig import LONG, NAME, Rig

HANGS = 600.0
"""seconds for which a slow metrics server keeps whoever asks"""


async def test_metrics_that_hang_fail_or_say_nothing_never_promote(it: Rig) -> None:
    await it.ready()
    it.on_traffic(lambda: setattr(it.gateway, "fault", Fault.SLOW))
    await it.edit("v2")
    await it.until_weight(20)
    for fault, instead, until in (
        (Fault.SLOW, "", float("inf")),
        (Fault.UNAVAILABLE, "", float("inf")),
        (Fault.NONE, "", 0.0),
        (Fault.NONE, "NaN", float("inf")),
    ):
        it.gateway.fault, it.gateway.instead, it.gateway.scraped_until = fault, instead, until
        await asyncio.sleep(5)
        assert (it.weight, it.status["phase"]) == (20, "Progressing"), it.story()


async def test_an_abort_costs_a_handful_of_writes(it: Rig) -> None:
    await it.ready(LONG)
    await it.edit("v2")
    await it.until_weight(30)
    await it.until(lambda: any(one.get("steps") for one in it.records()), what="the step is recorded, and all is said")
    before = len(it.replica.writes)
    await it.decide("Abort")
    await it.assert_back_on_stable("Aborted")
    assert len(it.replica.writes) - before <= 14, it.replica.writes[before:]


async def test_a_failed_canary_at_rest_writes_nothing(it: Rig) -> None:
    await it.ready(LONG)
    await it.edit("v2")
    await it.until_weight(30)
    await it.decide("Abort")
    await it.assert_back_on_stable("Aborted")
    await it.until(lambda: it.status.get("head"), what="the sealed record is remembered")
    await asyncio.sleep(2)
    assert await it.writes_at_rest(6) == []


async def test_another_version_of_the_controller_starts_no_rollout(it: Rig) -> None:
    await it.ready()
    generation = it.latest("Deployment")["metadata"]["generation"]
    left = besides_the_outlook(it.status)
    await it.replica.killed()
    second = await it.restart()
    await asyncio.sleep(6)
    assert not it.attempt
    assert it.latest("Deployment")["metadata"]["generation"] == generation
    # What is known of the past is noted once, by whichever of the two has seen some of it first.
    assert {path.partition("?")[0] for _, path in second.writes} <= {f"{it.path('Canary')}/status"}
    assert len(second.writes) <= 1
    assert besides_the_outlook(it.status) == left


def besides_the_outlook(status: dict[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in status.items() if field not in ("outlook", "leaderEpoch")}


async def test_one_workloads_slow_metrics_and_route_delay_no_other(it: Rig) -> None:
    await it.ready()
    async with FakePrometheus() as hanging:
        source = {
            "apiVersion": "serin.dev/v1alpha1",
            "kind": "MetricsSource",
            "metadata": {"name": f"{it.namespace}-slow"},
            "spec": {"url": hanging.url, "scrapeInterval": "1s"},
        }
        where = f"/apis/serin.dev/v1alpha1/metricssources/{it.namespace}-slow"
        await it.api.apply(where, source)
        it.proxy.fault(path="/httproutes/slow", delay=3.0)
        names = [f"slow-{number}" for number in range(3)]
        for name in names:
            for body in (
                shop_deployment(name, it.namespace, "v1", 1, pre_stop=0),
                shop_service(name, it.namespace),
                shop_route(name, it.namespace),
            ):
                await it.api.apply(it.path(body["kind"], name), body)
            made = canary(it.namespace, name, LONG, f"{it.namespace}-slow")
            await it.api.apply(it.path("Canary", name), made)
        await it.until(lambda: all(it.held(name) for name in names), what="their edits are held")
        for name in names:
            await it.edit("v2", name)
        await it.until(lambda: all(map(it.has_traffic, names)), what="theirs have traffic")
        hanging.fault = Fault.SLOW
        asked = len(hanging.queries)
        await it.until(lambda: len(hanging.queries) > asked, what="theirs wait for metrics")
        began = time.monotonic()
        await it.edit("v2")
        await it.assert_promoted()
        assert time.monotonic() - began < HANGS
        assert all(map(it.has_traffic, names))
        await it.api.call("DELETE", where)


async def test_a_restart_in_a_step_neither_repeats_nor_skips_it(it: Rig) -> None:
    await it.ready(({"weight": 20, "bake": "6s"}, {"weight": 50, "bake": "2s"}))
    await it.edit("v2")
    await it.until_weight(20)
    await it.replica.killed()
    await it.restart()
    await it.assert_promoted()


async def test_a_canary_without_traffic_is_not_failed_for_that(it: Rig) -> None:
    await it.ready()
    it.muted = True
    await it.edit("v2")
    await it.until_weight(20)
    await asyncio.sleep(12)
    assert (it.weight, it.status["phase"]) == (20, "Progressing"), it.story()
    assert not it.attempt.get("outcome")


async def test_the_object_deleted_at_thirty_percent_takes_the_traffic_off_before_the_pods(it: Rig) -> None:
    """That no request is lost by it is counted in tests/cluster/test_release.py."""
    await it.ready(LONG)
    await it.edit("v2")
    await it.until_weight(30)
    await it.delete("Canary")
    await it.until(lambda: not it.latest("Canary"), what="it is gone")
    await it.until_clean()
    # The gateway writes its status into the route later still: what counts is the first write without the canary.
    off = it.at(lambda now: now.was.weight and not now.weight)
    trials = [one for one in it.events if one.kind == "Deployment" and one.name == f"{NAME}-canary"]
    gone = [one.revision for one in trials if one.gone or "deletionTimestamp" in one.object["metadata"]]
    assert off.revision < gone[0]
