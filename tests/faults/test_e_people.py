"""E: what people do in the middle of it. Numbers are those of docs/faults.md."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.api import ApiError
from tests.faults.rig import LONG, NAME, Rig

ROOT = Path(__file__).parents[2]


async def at_thirty(it: Rig) -> None:
    await it.ready(LONG)
    await it.edit("v2")
    await it.until_weight(30)


@pytest.mark.parametrize("weight", [20, 50])
async def test_row_57_another_image_in_a_step_starts_from_nothing(it: Rig, weight: int) -> None:
    """Weight 0 first, then an attempt of its own; approvals of the old one open nothing."""
    await it.ready(({"weight": 20, "bake": "3s"}, {"weight": 50, "bake": "1h", "approval": {}}))
    await it.edit("v2")
    await it.until_weight(weight)
    first = it.attempt["id"]
    await it.decide("Approve", step=2)
    await it.until(lambda: it.status.get("decisions"), what="the approval is answered")
    await it.edit("v3")
    await it.until(lambda: it.attempt["id"] != first, what="another attempt")
    await it.until_weight(50)
    assert it.at(lambda now: now.attempt.get("id", first) != first).weight == 0
    await it.decide("Promote")
    await it.until_reason("AwaitingApproval")


async def test_row_58_back_to_the_stable_image_ends_it(it: Rig) -> None:
    """The owner's own rollback: nothing stays held."""
    await at_thirty(it)
    await it.edit("v1")
    await it.assert_back_on_stable("Withdrawn")
    await it.until(lambda: not it.paused, what="not held")


async def test_row_59_a_loosened_plan_counts_from_the_next_attempt_on(it: Rig) -> None:
    """Bake, gate and thresholds of a running attempt are those it began with."""
    await it.ready(({"weight": 30, "bake": "1h", "approval": {}},))
    await it.edit("v2")
    await it.until_weight(30)
    loose = {"spec": {"steps": [{"weight": 30, "bake": "1s"}], "analysis": {"minRequests": 1}}}
    await it.patch("Canary", loose)
    await asyncio.sleep(5)
    assert (it.status["phase"], it.weight) == ("Progressing", 30)
    assert it.attempt["plan"] == [{"weight": 30, "bake": 3600, "approval": True}]


async def test_row_60_a_deleted_target_ends_the_rollout_and_is_not_made_again(it: Rig) -> None:
    """Weight 0, said, and left to its owner."""
    await at_thirty(it)
    await it.delete("Deployment")
    await it.until_weight(0)
    await it.until_reason("TargetMissing", "Pending")
    await asyncio.sleep(2)
    assert not it.latest("Deployment")


async def test_row_61_a_deleted_route_is_not_rebuilt_from_memory(it: Rig) -> None:
    """It holds and names the route; once its owner has made it again, the rollout can end."""
    await at_thirty(it)
    route = it.latest("HTTPRoute")
    await it.delete("HTTPRoute")
    await it.until_reason("RouteMissing")
    await asyncio.sleep(3)
    assert not it.latest("HTTPRoute")
    fresh = {
        "apiVersion": route["apiVersion"],
        "kind": "HTTPRoute",
        "metadata": {"name": NAME},
        "spec": route["spec"] | {"rules": [{"backendRefs": [{"name": NAME, "port": 80}]}]},
    }
    await it.api.apply(it.path("HTTPRoute"), fresh)
    await it.decide("Abort")
    await it.assert_back_on_stable("Aborted")


@pytest.mark.parametrize(
    "phase", ["Idle", "Preparing", "Progressing", "Retreated", "Releasing", "Finishing", "RollingBack", "RolledBack"]
)
async def test_row_62_a_canary_deleted_in_any_phase_leaves_nothing(it: Rig, phase: str) -> None:
    """Traffic on stable, nothing held, no object of ours, no finalizer."""
    await it.ready(({"weight": 30, "bake": "3s"},) if phase in {"Releasing", "Finishing"} else LONG)
    if phase == "Idle":
        await it.delete("Canary")
    else:
        # Some phases are over before anybody who watches could act on them.
        it.on_phase(phase, lambda: it.delete("Canary"))
        await it.edit("v2")
    if phase == "Retreated":
        await it.until_weight(30)
        await it.scale_canary_away()
    if phase in {"RollingBack", "RolledBack"}:
        await it.until_weight(30)
        await it.decide("Abort")
    await it.until(lambda: not it.latest("Canary"), what="it is gone")
    await it.until_clean()
    await it.until(lambda: not it.paused and "serin" not in _notes(it), what="let go")
    assert it.image == ("v2" if phase in {"Releasing", "Finishing"} else "v1")
    canaries = [one.object for one in it.events if one.kind == "Canary"]
    assert next(one for one in canaries if "deletionTimestamp" in one["metadata"])["status"]["phase"] == phase


def _notes(it: Rig) -> str:
    return str(it.latest("Deployment")["metadata"].get("annotations", {}))


async def test_row_63_with_the_controller_gone_a_person_can_detach(it: Rig) -> None:
    """`kubectl canary detach` does what the finalizer waits for."""
    await at_thirty(it)
    await it.replica.killed()
    await it.delete("Canary")
    command = [sys.executable, "-m", "controller.cli.main", "detach", NAME, "-n", it.namespace, "--yes"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    await it.until(lambda: not it.latest("Canary"), what="it is gone")
    await it.until_clean()
    await it.until(lambda: it.image == "v1" and not it.paused, what="let go")


@pytest.mark.parametrize("installed_in", ["serin-system", "another namespace"])
async def test_row_64_a_namespace_that_goes_takes_everything_along(it: Rig, installed_in: str) -> None:
    """Nothing is created in it any more, and neither the finalizer nor the records keep it."""
    # The policy that keeps records reads the time from the Lease in serin-system; in the other case there is none.
    elsewhere = "serin-system" if installed_in == "serin-system" else f"{it.namespace}-too"
    if elsewhere != "serin-system":
        await it.lease_rights(elsewhere)
    await it.start(lease_in=elsewhere)
    await it.shop(LONG)
    await it.until_held()
    await it.edit("v2")
    await it.until_weight(30)
    path = f"/api/v1/namespaces/{it.namespace}"

    await it.api.call("DELETE", path)

    kept = ""

    async def is_gone() -> bool:
        nonlocal kept
        try:
            found = await it.api.call("GET", path)
        except ApiError as error:
            return error.status == 404
        kept = str([one["message"] for one in found["status"].get("conditions", ())])
        return False

    try:
        await it.until_answered(is_gone, what="the namespace is gone")
    except AssertionError as error:
        raise AssertionError(f"{error}\nkept by: {kept}") from None


async def test_row_65_an_abort_at_rest_does_nothing_and_is_answered(it: Rig) -> None:
    """Nothing runs: stable keeps its pods, and the person hears that it was too late."""
    await it.ready()
    await it.edit("v2")
    await it.assert_promoted()
    await it.until_held()
    await it.decide("Abort")
    await it.until(lambda: it.status.get("decisions"), what="answered")
    answer = it.status["decisions"][-1]
    assert not answer.get("taken")
    assert "too late" in answer["answer"]
    assert it.latest("Deployment")["status"]["readyReplicas"] == 2
    assert it.status["phase"] == "Idle"


async def test_row_66_of_promote_and_abort_at_once_abort_wins(it: Rig) -> None:
    """Two people in the same second."""
    await at_thirty(it)
    await asyncio.gather(it.decide("Promote"), it.decide("Abort"))
    await it.assert_back_on_stable("Aborted")


async def test_row_68_a_store_older_than_the_record_starts_no_second_rollout(it: Rig) -> None:
    """The Canary's status comes back from a backup; the sealed record is newer."""
    await it.ready()
    before = it.status
    await it.edit("v2")
    await it.assert_promoted()
    await it.until_held()
    await it.replica.killed()
    await it.write_status(NAME, before | {"attempt": None, "leaderEpoch": it.status["leaderEpoch"]})
    await it.restart()
    await asyncio.sleep(6)
    assert it.weight == 0
    assert it.image == "v2"
    assert not it.latest("Deployment", f"{NAME}-canary")


async def test_row_69_of_two_canaries_on_one_target_the_second_says_so(it: Rig) -> None:
    """The older one goes on; the younger one writes nothing but that."""
    await it.ready()
    twin = {
        "apiVersion": "serin.dev/v1alpha1",
        "kind": "Canary",
        "metadata": {"name": "twin"},
        "spec": it.latest("Canary")["spec"],
    }
    await it.api.apply(it.path("Canary", "twin"), twin)
    await it.until(lambda: (it.latest("Canary", "twin").get("status") or {}).get("reason") == "Conflict", what="said")
    await it.edit("v2")
    await it.assert_promoted()
    assert (it.latest("Canary", "twin").get("status") or {}).get("phase", "Pending") == "Pending"
