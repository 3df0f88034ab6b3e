"""B: the API server, its watches and its storage. Numbers are those of docs/faults.md."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from aiohttp import web

from tests.cluster.api import SERVER, ApiError
from tests.cluster.objects import shop_deployment
from tests.faults.plane import another_api_server
from tests.faults.rig import LONG, MERGE, NAME, Replica, Rig

BAKING = ({"weight": 20, "bake": "10s"}, {"weight": 50, "bake": "2s"})
LONGER_THAN_THE_BAKE = 14.0
MEDDLED = ("HTTPRoute", "Deployment", "Service", "Canary")


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


async def test_row_15_a_restart_onto_an_api_server_that_lags_does_nothing_until_it_has_caught_up(it: Rig) -> None:
    """Of two API servers on one etcd the second still has the step at 30 % in memory, after the abort."""
    async with another_api_server() as other:
        await it.ready(LONG)
        await it.edit("v2")
        await it.until_weight(30)

        async def has_come() -> Any:
            return (await other.cached(it.path("Canary")))["status"].get("attempt", {}).get("bakingSince")

        await it.until_answered(has_come, what="the second has the step in memory too")
        other.link.freeze()
        await it.decide("Abort")
        await it.assert_back_on_stable("Aborted")
        await it.replica.killed()
        assert (await other.cached(it.path("Canary")))["status"]["phase"] == "Progressing"
        second = await it.restart(lambda request: other.url)
        await it.until(lambda: second.proxy.requests, what="it asks")
        await asyncio.sleep(6)

        assert second.writes == []
        other.link.thaw()
        aborted = it.attempt["id"]
        await it.edit("v3")
        await it.until(lambda: it.attempt["id"] != aborted, what="another attempt")
        await it.until_weight(30)


async def test_row_15_what_is_read_from_an_api_server_that_lags_raises_nothing(it: Rig) -> None:
    """A balancer sends reads to one and writes to the other; the one for reads falls behind in a step."""
    async with another_api_server() as other:
        await it.ready(BAKING, lambda request: other.url if _is_read(request) else SERVER)
        await it.edit("v2")
        await it.until_weight(20)

        other.link.freeze()
        await it.decide("Abort")
        await asyncio.sleep(LONGER_THAN_THE_BAKE)

        assert (it.weight, it.status["weight"]) == (20, 20)
        other.link.thaw()
        await it.assert_back_on_stable("Aborted")


async def test_row_15_when_an_api_server_dies_in_a_step_another_one_is_enough(it: Rig) -> None:
    """Killed, and for a second nobody answers: no step is repeated, none is skipped, and the leader stays."""
    async with another_api_server() as other:
        serving = [other.url]
        await it.ready(BAKING, lambda request: serving[0])
        await it.edit("v2")
        await it.until_weight(20)

        await other.killed()
        await asyncio.sleep(1)
        serving[0] = SERVER

        await it.assert_promoted()
        assert it.replica.process.returncode is None


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
    await it.until(lambda: it.paused and it.image == "v1", what="held, and the same as before")
    await it.restart()
    await it.until(lambda: not it.paused, what="not paused")
    assert it.status["phase"] == "Idle"
    assert it.records() == []


async def test_row_19_an_object_made_again_under_its_name_is_another_one(it: Rig) -> None:
    """Deployment deleted and created while the controller is dead in a step."""
    await it.ready(LONG)
    await it.edit("v2")
    await it.until_weight(30)
    await it.replica.killed()
    await it.delete("Deployment")
    await it.until(lambda: not it.latest("Deployment"), what="the Deployment is gone")
    await it.api.apply(it.path("Deployment"), shop_deployment(NAME, it.namespace, "v3", 2, pre_stop=0))
    await it.restart()
    await it.until_weight(0)
    await it.until(lambda: it.attempt.get("outcome") == "Unjudged", what="adopted anew, and said to be unjudged")
    await it.until_held()
    await it.until_clean()
    await it.until(lambda: {one.get("outcome") for one in it.records()} <= {"Aborted", "Unjudged"}, what="all sealed")


async def test_row_20_a_second_writer_makes_it_read_again_and_not_storm(it: Rig) -> None:
    """Twenty foreign writes a second on everything that is patched."""
    await it.ready()
    before = len(it.replica.writes)
    busy, number = True, 0

    async def meddle() -> None:
        nonlocal number
        while busy:
            number += 1
            for kind in MEDDLED:
                await it.patch(kind, {"metadata": {"annotations": {"example.com/n": str(number)}}})
            await asyncio.sleep(0.1)

    meddling = asyncio.create_task(meddle())
    await it.edit("v2")
    try:
        await it.assert_promoted()
    finally:
        busy = False
        await meddling
    # Each foreign write makes one of ours fail at most; a rollout takes some forty.
    assert len(it.replica.writes) - before < 60 + len(MEDDLED) * number


async def test_row_21_told_to_come_back_later_it_does_and_the_way_out_has_a_lane_of_its_own(it: Rig) -> None:
    """429 with Retry-After on what rollouts read; an abort still goes through."""
    await it.ready(LONG)
    throttled = it.proxy.fault(path="/replicasets", status=429, retry_after=2, times=4)
    await it.edit("v2")
    await it.until(lambda: throttled.hits == 4, what="it has come back")
    assert _seconds(it.proxy.times_of("/replicasets")[-4:]) > 2, "it does not storm"
    await it.until_weight(30)
    it.proxy.fault(path="/pods", status=429, retry_after=30)
    it.proxy.fault(path="/replicasets", status=429, retry_after=30)
    await it.decide("Abort")
    await it.until_weight(0)
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
    assert await first.exit_code() == 70
    assert it.weight == 30
    await it.restart()
    await it.decide("Promote")
    await it.assert_promoted()


async def test_row_24_a_right_that_is_lost_is_named_and_its_return_is_enough(it: Rig) -> None:
    """403 on the route in the middle of a step."""
    await it.ready(BAKING)
    await it.edit("v2")
    await it.until_weight(20)
    it.proxy.fault(path="/httproutes/", status=403, message='"serin" cannot patch resource "httproutes"')
    said = await it.until_reason("RouteForbidden")
    assert "httproutes" in said["message"]
    assert it.weight == 20
    it.proxy.calm()
    await it.assert_promoted()


async def test_row_25_while_the_api_server_is_away_the_last_weights_stay(it: Rig) -> None:
    """Nothing is answered for longer than a lease lasts; afterwards fresh data is needed before the next step."""
    await it.ready(BAKING)
    await it.edit("v2")
    await it.until_weight(20)
    first = it.replica
    it.proxy.fault(hang=True)
    it.gateway.scraped_until = time.time()
    assert await first.exit_code() == 70
    await it.restart()
    await it.until_reason("NoData")
    assert it.weight == 20
    it.gateway.scraped_until = float("inf")
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
        await it.until_answered(lambda: _is_denied(it), what="the policy is in force")
        await it.decide("Abort")
        await it.until(lambda: "frozen by the network team" in it.status.get("message", ""), what="it is quoted")
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
    await it.until(lambda: it.paused, what="held")
    await it.patch("Deployment", {"spec": {"replicas": 3}})
    await it.until(lambda: it.latest("Deployment")["status"].get("readyReplicas") == 3, what="scaled")
    await it.api.apply(it.path("Deployment", "another"), shop_deployment("another", it.namespace, "v1", 1))
    await it.until(
        lambda: it.latest("Deployment", "another").get("status", {}).get("readyReplicas") == 1, what="another runs"
    )


async def downgraded(it: Rig) -> Replica:
    """The controller after a downgrade in a step, at 30 %."""
    await it.ready(LONG)
    await it.edit("v2")
    await it.until_weight(30)
    await it.replica.killed()
    await it.write_status(NAME, {"schemaVersion": 9})
    return await it.restart()


async def test_row_31_a_status_of_a_newer_version_is_left_alone(it: Rig) -> None:
    """After a downgrade in a step: an Event says so, and nothing else is written until somebody upgrades."""
    second = await downgraded(it)
    await it.until(lambda: any("/events" in path for _, path, _ in second.proxy.requests), what="it is said")
    await asyncio.sleep(6)
    assert second.writes == []
    assert it.weight == 30
    await it.write_status(NAME, {"schemaVersion": 1})
    await it.decide("Promote")
    await it.assert_promoted()


async def test_row_31_an_abort_of_what_a_newer_version_began_takes_it_off_traffic(it: Rig) -> None:
    """After a downgrade in a step: the route alone is written, and the newer version finds the Abort unanswered."""
    second = await downgraded(it)
    await it.decide("Abort")
    await it.until_weight(0)
    assert (it.status["schemaVersion"], it.status["phase"], it.status["weight"]) == (9, "Progressing", 30)
    assert [path for _, path in second.writes if "/httproutes/" not in path] == []
    await it.write_status(NAME, {"schemaVersion": 1})
    await it.assert_back_on_stable("Aborted")


async def test_row_31_a_rollout_begun_by_a_newer_version_is_judged_by_what_is_known_and_not_raised(it: Rig) -> None:
    """After a downgrade in a step whose analysis has a field only the newer version knows: held, and off if bad."""
    await it.ready(BAKING)
    await it.edit("v2")
    await it.until_weight(20)
    await it.replica.killed()
    await it.write_status(NAME, {"attempt": {"analysis": {"mood": "calm"}}})
    await it.restart()
    await it.until_reason("NewerAnalysis")
    await asyncio.sleep(LONGER_THAN_THE_BAKE)
    assert it.weight == 20
    assert "analysis.mood" in it.status["message"]
    it.spoil()
    await it.until_phase("Retreated")
    await it.until_reason("NewerAnalysis")
    await it.until_weight(0)
    await it.decide("Abort")
    await it.assert_back_on_stable("Aborted")


def _lists(it: Rig) -> int:
    plain = ("canaries", "decisions", "metricssources", "deployments")
    return sum(
        method == "GET" and path.partition("?")[0].rpartition("/")[2] in plain and "watch=true" not in path
        for method, path, _ in it.proxy.requests
    )


def _seconds(times: list[float]) -> float:
    return times[-1] - times[0]


async def _is_denied(it: Rig) -> bool:
    try:
        await it.api.call("PATCH", f"{it.path('HTTPRoute')}?dryRun=All", {"metadata": {"labels": {"a": "b"}}}, MERGE)
    except ApiError as refused:
        return "frozen by the network team" in str(refused)
    return False


def _is_read(request: web.Request) -> bool:
    return request.method == "GET" and "/leases" not in request.path
