"""B: the API server, its watches and its storage. Numbers are those of docs/faults.md."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.cluster.objects import shop_deployment
from tests.faults.rig import LONG, NAME, Rig


async def test_row_12_a_watch_that_says_nothing_is_found_dead_by_its_silence(it: Rig) -> None:
    """Half-open connections: an abort that no watch delivers is found within a minute."""
    await it.ready(LONG)
    await it.edit("v2")
    await it.until_weight(30)
    it.proxy.freeze()
    began = time.monotonic()
    await it.decide("Abort")
    await it.until_weight(0, within=75)
    assert time.monotonic() - began < 60
    await it.assert_back_on_stable("Aborted")


async def test_row_13_a_forgotten_version_is_answered_by_a_new_list_and_no_storm(it: Rig) -> None:
    """410 inside every stream and on the watches that follow."""
    await it.ready()
    listed = _lists(it)
    it.proxy.fault(path="watch=true", status=410, times=4)
    await it.proxy.say(410, "Expired")
    await it.edit("v2")
    await it.assert_promoted()
    assert _lists(it) - listed < 60


@pytest.mark.parametrize(("code", "reason"), [(500, "InternalError"), (429, "TooManyRequests")])
async def test_row_14_an_error_inside_a_stream_is_waited_out(it: Rig, code: int, reason: str) -> None:
    """An ERROR event that is no 410."""
    await it.ready()
    await it.proxy.say(code, reason, retryAfterSeconds=1)
    await it.edit("v2")
    await it.assert_promoted()


async def test_row_16_what_it_wrote_itself_need_not_be_in_its_cache(it: Rig) -> None:
    """Watches deliver nothing from the first write on: every turn reads live."""
    await it.ready()
    await it.edit("v2")
    await it.until_phase("Preparing")
    it.proxy.hold_back()
    await it.assert_promoted()
    it.proxy.let_go()


async def test_row_17_one_lost_event_is_made_good(it: Rig) -> None:
    """The event of an Abort never arrives; the look that needs no event finds it."""
    await it.ready(LONG)
    await it.edit("v2")
    await it.until_weight(30)
    it.proxy.lose(lambda event: event.get("object", {}).get("kind") == "Decision")
    began = time.monotonic()
    await it.decide("Abort")
    await it.until_weight(0, within=75)
    assert time.monotonic() - began < 60
    assert not it.proxy.lost, "the event was taken out"
    await it.assert_back_on_stable("Aborted")


async def test_row_18_what_changed_and_changed_back_unseen_has_not_happened(it: Rig) -> None:
    """An edit and its withdrawal while nobody looks: no attempt, and nothing stays held."""
    await it.ready()
    await it.replica.killed()
    await it.edit("v2")
    await it.edit("v1")
    await it.restart()
    await it.until(lambda: it.status["leaderEpoch"] == 2 or not it.latest("Deployment")["spec"].get("paused"), 30)
    await it.until(lambda: not it.latest("Deployment")["spec"].get("paused"), 30, "not paused")
    assert it.status["phase"] == "Idle"
    assert it.records() == []


async def test_row_19_an_object_made_again_under_its_name_is_another_one(it: Rig) -> None:
    """Deployment deleted and created while the controller is dead in a step."""
    await it.ready(LONG)
    await it.edit("v2")
    await it.until_weight(30)
    await it.replica.killed()
    await it.delete("Deployment")
    await it.until(lambda: not it.latest("Deployment"), 30, "the Deployment is gone")
    await it.api.apply(it.path("Deployment"), shop_deployment(NAME, it.namespace, "v3", 2, pre_stop=0))
    await it.restart()
    await it.until_weight(0)
    await it.until(lambda: it.attempt.get("outcome") == "Unjudged", 60, "adopted anew, and said to be unjudged")
    await it.until_held()
    await it.until(lambda: not it.latest("Deployment", f"{NAME}-canary"), 30)
    it.assert_clean()
    assert {"Aborted", "Unjudged"} >= {one.get("outcome") for one in it.records()}


async def test_row_20_a_second_writer_makes_it_read_again_and_not_storm(it: Rig) -> None:
    """Twenty foreign writes a second on everything that is patched."""
    await it.ready()
    before = len(it.replica.writes)
    busy = True

    async def meddle() -> None:
        number = 0
        while busy:
            number += 1
            for kind in ("HTTPRoute", "Deployment", "Service", "Canary"):
                await it.patch(kind, {"metadata": {"annotations": {"example.com/n": str(number)}}})
            await asyncio.sleep(0.1)

    meddling = asyncio.create_task(meddle())
    await it.edit("v2")
    try:
        await it.assert_promoted()
    finally:
        busy = False
        await meddling
    assert len(it.replica.writes) - before < 200


async def test_row_21_told_to_come_back_later_it_does_and_the_way_out_has_a_lane_of_its_own(it: Rig) -> None:
    """429 with Retry-After on what rollouts read; an abort still goes through."""
    await it.ready(LONG)
    throttled = it.proxy.fault(path="/replicasets", status=429, retry_after=2, times=4)
    await it.edit("v2")
    await it.until_weight(30)
    assert throttled.hits == 4
    asked = [at for _, where, at in it.proxy.requests if "/replicasets" in where]
    assert all(later - earlier > 1.5 for earlier, later in zip(asked[-5:-1], asked[-4:], strict=False)) or asked
    it.proxy.fault(path="/pods", status=429, retry_after=30)
    it.proxy.fault(path="/replicasets", status=429, retry_after=30)
    await it.decide("Abort")
    await it.until_weight(0, within=40)
    it.proxy.calm()
    await it.assert_back_on_stable("Aborted")


@pytest.mark.parametrize("bad", [False, True], ids=["promoted", "rolled back"])
async def test_row_22_an_applied_write_whose_reply_is_lost_is_not_done_twice(it: Rig, bad: bool) -> None:
    """Every single write is applied, and its reply is cut."""
    await it.ready()
    it.proxy.fault(writes=True, cut_reply=True)
    if bad:
        it.gateway.bad.add(f"{it.namespace}/{NAME}")
    await it.edit("v2")
    if bad:
        await it.assert_back_on_stable()
    else:
        await it.assert_promoted()


async def test_row_23_an_api_server_that_takes_half_a_minute_costs_the_lead_and_no_weight(it: Rig) -> None:
    """Every call takes 29 s: no request outlives the right to make it."""
    await it.ready(LONG)
    await it.edit("v2")
    await it.until_weight(30)
    first = it.replica
    it.proxy.fault(delay=29.0)
    assert await first.exit_code(12) == 70
    assert it.weight == 30
    await it.restart()
    await it.decide("Promote")
    await it.assert_promoted()


async def test_row_24_a_right_that_is_lost_is_named_and_its_return_is_enough(it: Rig) -> None:
    """403 on the route in the middle of a step."""
    await it.ready(({"weight": 20, "bake": "4s"}, {"weight": 50, "bake": "2s"}))
    await it.edit("v2")
    await it.until_weight(20)
    it.proxy.fault(path="/httproutes/", status=403, message='cannot patch resource "httproutes" in group x')
    said = await it.until_reason("RouteForbidden")
    assert "httproutes" in said["message"]
    assert it.weight == 20
    it.proxy.calm()
    await it.assert_promoted()


async def test_row_25_while_the_api_server_is_away_the_last_weights_stay(it: Rig) -> None:
    """Nothing is answered for longer than a lease lasts; afterwards fresh data is needed before the next step."""
    await it.ready(({"weight": 20, "bake": "5s"}, {"weight": 50, "bake": "2s"}))
    await it.edit("v2")
    await it.until_weight(20)
    first = it.replica
    it.proxy.fault(hang=True)
    it.gateway.scraped_until = time.time()
    assert await first.exit_code(12) == 70
    await it.restart()
    await it.until_reason("NoData", within=30)
    assert it.weight == 20
    it.gateway.scraped_until = float("inf")
    await it.assert_promoted()


async def test_row_26_a_full_store_costs_the_lead_and_its_relief_is_enough(it: Rig) -> None:
    """What an API server says when etcd's space is used up: reads work, no write does, not even the lease's."""
    await it.ready(LONG)
    await it.edit("v2")
    await it.until_weight(30)
    first = it.replica
    for method in ("PATCH", "POST", "DELETE"):
        it.proxy.fault(method=method, status=500, message="etcdserver: mvcc: database space exceeded")
    assert await first.exit_code(12) == 70
    assert it.weight == 30
    await it.restart()
    await it.decide("Promote")
    await it.assert_promoted()


def _denial(namespace: str) -> list[dict[str, Any]]:
    """Somebody's policy that lets nobody change a route here."""
    group, name = {"apiVersion": "admissionregistration.k8s.io/v1"}, {"metadata": {"name": f"freeze-{namespace}"}}
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    rules = {
        "resourceRules": [
            {
                "apiGroups": ["gateway.networking.k8s.io"],
                "apiVersions": ["*"],
                "operations": ["UPDATE"],
                "resources": ["httproutes"],
            }
        ]
    }
    policy = {
        "matchConstraints": rules | here,
        "validations": [{"expression": "false", "message": "routes are frozen by the network team"}],
    }
    binding = {"policyName": f"freeze-{namespace}", "validationActions": ["Deny"]}
    return [
        group | name | {"kind": "ValidatingAdmissionPolicy", "spec": policy},
        group | name | {"kind": "ValidatingAdmissionPolicyBinding", "spec": binding},
    ]


async def test_row_28_a_policy_that_denies_the_route_is_quoted_and_the_way_out_is_tried_for_ever(it: Rig) -> None:
    """Somebody else's admission stands before weight 0."""
    it.above = 120.0
    await it.ready(LONG)
    await it.edit("v2")
    await it.until_weight(30)
    root = "/apis/admissionregistration.k8s.io/v1"
    made = _denial(it.namespace)
    paths = [f"{root}/{one['kind'].lower()[:-1]}ies/{one['metadata']['name']}" for one in made[:1]]
    paths.append(f"{root}/validatingadmissionpolicybindings/{made[1]['metadata']['name']}")
    for path, body in zip(paths, made, strict=True):
        await it.api.apply(path, body)
    try:
        await asyncio.sleep(2)
        await it.decide("Abort")
        await it.until(lambda: "frozen by the network team" in it.status.get("message", ""), 30, "it is quoted")
        assert (it.status["phase"], it.weight) == ("RollingBack", 30)
    finally:
        for path in paths:
            await it.api.call("DELETE", path)
    await it.until_weight(0)
    await it.assert_back_on_stable("Aborted")


async def test_row_29_with_the_controller_away_nothing_of_ours_stops_anybody(it: Rig) -> None:
    """Edits are accepted, and held; scaling and new workloads work."""
    await it.ready()
    await it.replica.killed()
    await it.edit("v2")
    await it.until(lambda: it.latest("Deployment")["spec"].get("paused"), 10, "held")
    await it.patch("Deployment", {"spec": {"replicas": 3}})
    await it.until(lambda: it.latest("Deployment")["status"].get("readyReplicas") == 3, 20, "scaled")
    await it.api.apply(it.path("Deployment", "another"), shop_deployment("another", it.namespace, "v1", 1))
    await it.until(
        lambda: it.latest("Deployment", "another").get("status", {}).get("readyReplicas") == 1, 20, "another runs"
    )


async def test_row_31_a_status_of_a_newer_version_is_left_alone(it: Rig) -> None:
    """After a downgrade in a step: no write until somebody upgrades."""
    await it.ready(LONG)
    await it.edit("v2")
    await it.until_weight(30)
    await it.replica.killed()
    await it.write_status(NAME, {"schemaVersion": 9})
    second = await it.restart()
    await asyncio.sleep(6)
    assert second.writes == []
    assert it.weight == 30
    await it.write_status(NAME, {"schemaVersion": 1})
    await it.decide("Promote")
    await it.assert_promoted()


def _lists(it: Rig) -> int:
    plain = ("canaries", "decisions", "metricssources", "deployments")
    return sum(
        method == "GET" and path.partition("?")[0].rpartition("/")[2] in plain and "watch=true" not in path
        for method, path, _ in it.proxy.requests
    )
