"""What Argo CD, Flux and Helm make of a Canary's conditions: the health override, run as Lua, and kstatus' rules."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from lupa import lua51  # type: ignore[import-untyped]

from controller.model.status import Outcome, Phase, Status, render_status
from controller.rollout.conditions import render_conditions
from tests.builders import NOON, attempt, status

ROOT = Path(__file__).parents[2]
OVERRIDE = ROOT / "manifests" / "gitops" / "argocd-health.lua"
GENERATION = 3


def seen(of: Status) -> dict[str, Any]:
    """The Canary as the API server shows it."""
    of = of.but(observed_generation=of.observed_generation if of.observed_generation > 1 else GENERATION)
    of = of.but(conditions=render_conditions(of, NOON))
    shown = json.loads(json.dumps(render_status(of)))
    return {"metadata": {"name": "checkout", "generation": GENERATION}, "status": shown}


def argo_cd(canary: dict[str, Any]) -> tuple[str, str]:
    """The override in the Lua that Argo CD embeds (5.1), with `obj` as its only input."""
    lua = lua51.LuaRuntime(unpack_returned_tuples=True)

    def table(value: Any) -> Any:
        if isinstance(value, dict):
            return lua.table_from({key: table(one) for key, one in value.items()})
        return lua.table_from([table(one) for one in value]) if isinstance(value, list) else value

    lua.globals().obj = table(canary)
    answer = lua.execute(OVERRIDE.read_text())
    return str(answer["status"]), str(answer["message"])


def kstatus(canary: dict[str, Any]) -> str:
    """The generic rules of sigs.k8s.io/cli-utils/pkg/kstatus, which Flux and Helm 4 wait by."""
    if "deletionTimestamp" in canary["metadata"]:
        return "Terminating"
    found = canary.get("status") or {}
    if found.get("observedGeneration", canary["metadata"]["generation"]) != canary["metadata"]["generation"]:
        return "InProgress"
    conditions = {one["type"]: one["status"] for one in found.get("conditions", ())}
    if conditions.get("Reconciling") == "True":
        return "InProgress"
    if conditions.get("Stalled") == "True":
        return "Failed"
    return "Current" if conditions.get("Ready", "True") == "True" else "InProgress"


def active(phase: Phase, reason: str, **changes: Any) -> Status:
    return status(phase, reason=reason, attempt=attempt(**changes))


STATES = {
    "at rest": (status(Phase.IDLE, reason="Idle", attempt=None), "Healthy", "Current"),
    "promoted": (
        status(Phase.IDLE, reason="Idle", attempt=attempt(outcome=Outcome.PROMOTED)),
        "Healthy",
        "Current",
    ),
    "waits for stable": (status(Phase.PENDING, reason="WaitingForStable", attempt=None), "Progressing", "InProgress"),
    "pods start": (active(Phase.PREPARING, "CanaryNotReady"), "Progressing", "InProgress"),
    "bakes": (active(Phase.PROGRESSING, "Baking"), "Progressing", "InProgress"),
    "no data": (active(Phase.PROGRESSING, "NoData"), "Progressing", "InProgress"),
    "holds": (active(Phase.PROGRESSING, "RouteReverted"), "Progressing", "InProgress"),
    "retreated": (active(Phase.RETREATED, "Retreated"), "Progressing", "InProgress"),
    "waits for approval": (active(Phase.PROGRESSING, "AwaitingApproval"), "Suspended", "InProgress"),
    "paused": (active(Phase.PROGRESSING, "Paused", paused=True), "Suspended", "InProgress"),
    "releases": (active(Phase.RELEASING, "Releasing"), "Progressing", "InProgress"),
    "rolls back": (active(Phase.ROLLING_BACK, "AnalysisFailed"), "Progressing", "InProgress"),
    "rolled back": (status(Phase.ROLLED_BACK, reason="RolledBack"), "Degraded", "Failed"),
    "held while the registry is down": (status(Phase.IDLE, reason="EvidenceUnavailable"), "Progressing", "InProgress"),
    "errors nobody counts": (status(Phase.IDLE, reason="ErrorsNotCounted"), "Degraded", "Failed"),
    "invalid": (status(Phase.PENDING, reason="ServiceMissing", attempt=None), "Degraded", "Failed"),
}


@pytest.mark.parametrize("name", STATES)
def test_health_in_argo_cd_and_for_whoever_waits_by_kstatus(name: str) -> None:
    of, health, waiting = STATES[name]

    assert (argo_cd(seen(of))[0], kstatus(seen(of))) == (health, waiting)


def test_a_generation_that_serin_has_not_seen_is_neither_healthy_nor_degraded() -> None:
    for name in ("at rest", "rolled back"):
        stale = seen(STATES[name][0].but(observed_generation=GENERATION - 1))

        assert argo_cd(stale)[0] == "Progressing"
        assert kstatus(stale) == "InProgress"


def test_argo_cd_shows_why() -> None:
    bad = status(Phase.ROLLED_BACK, reason="RolledBack", message="errors +4.1 pp [2.0, 6.3], margin 0.5")

    assert argo_cd(seen(bad)) == ("Degraded", "RolledBack: errors +4.1 pp [2.0, 6.3], margin 0.5")


def test_before_serin_looked_argo_cd_waits() -> None:
    assert argo_cd({"metadata": {"generation": 1}})[0] == "Progressing"


def test_each_condition_carries_the_generation_it_speaks_about() -> None:
    shown = seen(STATES["bakes"][0])["status"]["conditions"]

    assert {one["observedGeneration"] for one in shown} == {GENERATION}


def test_a_new_message_alone_does_not_look_like_a_transition() -> None:
    first = STATES["bakes"][0]
    first = first.but(conditions=render_conditions(first, NOON))
    later = render_conditions(first.but(message="other words"), NOON + timedelta(minutes=1))

    assert {one.last_transition_time for one in later} == {NOON}


@pytest.mark.parametrize("ask", [argo_cd, kstatus])
def test_what_is_there_may_be_less_than_we_write(ask: Callable[[dict[str, Any]], Any]) -> None:
    ask({"metadata": {"generation": 1}, "status": {}})
    ask({"metadata": {"generation": 1}, "status": {"observedGeneration": 1, "conditions": []}})
