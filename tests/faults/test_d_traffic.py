"""D: the workload and the route. Numbers are those of docs/faults.md."""

from __future__ import annotations

import asyncio
import time

from tests.faults.oracles import moments
from tests.faults.rig import LONG, NAME, Rig

TWO = ({"weight": 30, "bake": "3s"}, {"weight": 60, "bake": "2s"})


async def at_thirty(it: Rig) -> None:
    await it.ready(LONG)
    await it.edit("v2")
    await it.until_weight(30)


async def test_row_47_pods_that_cannot_start_are_rolled_back_by_rule(it: Rig) -> None:
    """A quota leaves no room for them; no metric is needed."""
    await it.ready(LONG)
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "small"},
        "spec": {"hard": {"pods": "2"}},
    }
    path = f"/api/v1/namespaces/{it.namespace}/resourcequotas/small"
    await it.api.apply(path, quota)

    async def counted() -> bool:
        found = await it.api.call("GET", path)
        return bool(found.get("status", {}).get("used", {}).get("pods") == "2")

    await it.until_answered(counted, what="stable's pods are counted")
    await it.edit("v2")
    await it.assert_back_on_stable()
    assert "quota" in it.attempt["outcomeMessage"]
    assert not any(one.weight for one in moments(it.events, NAME))


async def test_row_48_without_a_ready_pod_the_weight_is_the_first_to_go(it: Rig) -> None:
    """Somebody scales the canary to nothing in a step."""
    await at_thirty(it)
    await it.scale_canary_away()
    await it.until_weight(0)
    await it.until(lambda: it.attempt.get("retreats"), what="remembered")
    assert it.attempt["retreats"][0]["reason"] == "CanaryNotReady"


async def test_row_49_no_raise_onto_a_stable_that_could_not_take_it_back(it: Rig) -> None:
    """Stable shrinks in a step; it grows again, and the rollout goes on."""
    await it.ready(TWO)
    # Without samples the step lasts until the pod is gone.
    it.on_traffic(lambda: setattr(it.gateway, "scraped_until", time.time()))
    await it.edit("v2")
    await it.until_weight(30)
    await it.patch("Deployment", {"spec": {"replicas": 1}})
    await it.until(lambda: it.latest("Deployment")["status"].get("readyReplicas") == 1, what="stable has shrunk")
    it.gateway.scraped_until = float("inf")
    await it.until_reason("StableTooSmall")
    await asyncio.sleep(4)
    assert it.weight == 30
    await it.patch("Deployment", {"spec": {"replicas": 2}})
    await it.assert_promoted()


async def test_row_50_the_targets_size_is_not_ours(it: Rig) -> None:
    """An autoscaler that flaps all through the rollout has the last word."""
    await it.ready(({"weight": 30, "bake": "8s"},))
    await it.edit("v2")
    await it.until_weight(30)
    for size in (4, 3, 5, 3, 4):
        await it.patch("Deployment", {"spec": {"replicas": size}})
        await asyncio.sleep(1)
        assert it.latest("Deployment")["spec"]["replicas"] == size
    await it.assert_promoted(bakes_anew=True)
    assert it.latest("Deployment")["spec"]["replicas"] == 4


async def test_row_51_both_weights_stand_in_one_object_and_change_in_one_write(it: Rig) -> None:
    """At every version of the route, stable and canary share out all of the traffic."""
    await it.ready()
    await it.edit("v2")
    await it.assert_promoted()
    for event in it.events:
        if event.kind == "HTTPRoute":
            (rule,) = event.object["spec"]["rules"]
            names = [one["name"] for one in rule["backendRefs"]]
            assert NAME in names
            assert sum(one.get("weight", 1) for one in rule["backendRefs"]) > 0


async def test_row_52_a_route_no_gateway_has_taken_gets_no_weight(it: Rig) -> None:
    """It is accepted by nobody: the canary waits ready, without traffic."""
    await it.ready(LONG)
    nowhere = [{"name": "nowhere", "namespace": "projectcontour"}]
    parents = it.latest("HTTPRoute")["spec"]["parentRefs"]
    await it.patch("HTTPRoute", {"spec": {"parentRefs": nowhere}})
    await it.edit("v2")
    await it.until_reason("RouteNotProgrammed", "RouteNotAccepted")
    await asyncio.sleep(3)
    assert (it.weight, it.status["phase"]) == (0, "Preparing")
    await it.patch("HTTPRoute", {"spec": {"parentRefs": parents}})
    await it.until_weight(30)


async def test_row_53_an_abort_is_taken_also_while_the_route_cannot_be_written(it: Rig) -> None:
    """500 on the route for as long as it takes; memory, deadline and answer do not wait for it."""
    # Nobody can take the weight down meanwhile.
    it.above = 120.0
    await at_thirty(it)
    it.proxy.fault(method="PATCH", path="/httproutes/", status=500)
    await it.decide("Abort")
    await it.until_phase("RollingBack")
    assert it.status["decisions"][-1]["taken"]
    await asyncio.sleep(3)
    assert it.weight == 30
    it.proxy.calm()
    await it.until_weight(0)
    await it.assert_back_on_stable("Aborted")


async def test_row_54_a_hand_on_the_weight_is_obeyed_downwards_and_overruled_upwards(it: Rig) -> None:
    """90 % goes back to 30 at once; 5 % stays until somebody says resume."""
    await at_thirty(it)
    await it.hand_edit(90)
    await it.until_weight(30)
    await it.hand_edit(5)
    await it.until_reason("TrafficLowered")
    await asyncio.sleep(3)
    assert it.weight == 5
    await it.decide("Resume")
    await it.until_weight(30)


async def test_row_55_a_tool_that_always_reverts_ends_in_a_hold_that_says_what_to_ignore(it: Rig) -> None:
    """Every second the owner's rules come back."""
    await at_thirty(it)
    for _ in range(40):
        await it.patch("HTTPRoute", {"spec": {"rules": [{"backendRefs": [{"name": NAME, "port": 80}]}]}})
        await asyncio.sleep(1)
        if it.status["reason"] == "RouteReverted":
            break
    said = await it.until_reason("RouteReverted")
    assert "backendRefs" in said["message"]
    written = it.proxy.count("PATCH", "/httproutes/")
    await asyncio.sleep(3)
    assert it.weight == 0
    assert it.proxy.count("PATCH", "/httproutes/") == written, "it does not fight"
