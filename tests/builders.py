"""One usual example of each thing; a test changes only what it is about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from controller.guardrails.policy import Change, Policy, evaluate
from controller.model.evidence import Origin
from controller.model.guarded import Gate, PlanStep, Ruling
from controller.model.spec import CanarySpec
from controller.model.status import Attempt, Phase, Stable, Status
from controller.model.world import CanaryPods, Observed, Pins, RecordSeen, Target, Verdict, Weight

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
OLD, NEW, OTHER = "aaaa", "bbbb", "cccc"


def spec(**changes: Any) -> CanarySpec:
    """Two steps, 10 and 50 %, a minute each."""
    body: dict[str, Any] = {
        "targetRef": {"name": "checkout"},
        "traffic": {"service": {"name": "checkout", "port": 80}, "httpRoute": {"name": "checkout"}},
        "steps": [{"weight": 10, "bake": "1m"}, {"weight": 50, "bake": "1m"}],
    }
    return CanarySpec.model_validate(body | changes)


def stable(**changes: Any) -> Stable:
    """The revision users are on."""
    usual: dict[str, Any] = {"uid": "uid-1", "hash": "h-old", "template_hash": OLD, "template": {"of": OLD}}
    return Stable(**usual | changes)


def attempt(**changes: Any) -> Attempt:
    """An attempt on its first step, whose bake is over."""
    usual: dict[str, Any] = {
        "id": "20260301-115000",
        "template_hash": NEW,
        "started_at": NOON - 10 * MINUTE,
        "entered_at": NOON - 5 * MINUTE,
        "plan": (PlanStep(10, 60), PlanStep(50, 60)),
        "baking_since": NOON - 2 * MINUTE,
        "stable_floor": 4,
        "origin": Origin.UNKNOWN,
        "no_data": "RollBack",
    }
    return Attempt(**usual | changes)


def status(phase: Phase = Phase.PROGRESSING, **changes: Any) -> Status:
    """Progressing at 10 %, term 1."""
    of_attempt = changes.pop("attempt", attempt())
    usual: dict[str, Any] = {
        "phase": phase,
        "stable": stable(),
        "attempt": of_attempt,
        "weight": 10.0,
        "leader_epoch": 1,
        "observed_generation": 1,
        "holding": True,
        "edits_held": True,
    }
    return Status(**usual | changes)


def target(**changes: Any) -> Target:
    """Held with the candidate's template; four stable pods serve."""
    usual: dict[str, Any] = {
        "uid": "uid-1",
        "generation": 2,
        "resource_version": "7",
        "paused": True,
        "replicas": 4,
        "template": {"of": NEW},
        "template_hash": NEW,
        "images": ("shop:2",),
        "settled_hash": "h-old",
        "settled_template": {"of": OLD},
        "settled_template_hash": OLD,
        "has_pods": True,
        "stable_ready": 4,
    }
    return Target(**usual | changes)


def observed(**changes: Any) -> Observed:
    """A healthy canary on the first of two steps, baked, with a passing verdict."""
    now_status = changes.get("status", status())
    usual: dict[str, Any] = {
        "status": now_status,
        "spec": spec(),
        "target": target(),
        "canary": CanaryPods(exists=True, attempt="20260301-115000", wanted=1, ready=1, endpoints=1),
        "pins": Pins(pinned=True, any_pin=True),
        "weight": Weight(percent=10.0, present=True, programmed=True, epoch=now_status.epoch),
        "verdict": Verdict(fresh=True, enough=True),
        "record": RecordSeen(exists=True, steps=9),
        "ruling": ruling(),
    }
    return Observed(**usual | changes)


def ruling(*policies: Policy, **change: Any) -> Ruling:
    """What these policies make of the candidate; without any, the plan is what the Canary says."""
    usual: dict[str, Any] = {"namespace": "shop", "canary": "checkout", "template_hash": NEW, "images": ("shop:2",)}
    return evaluate(Change(**usual | change), spec(), policies)


def gated(*gates: Gate, **changes: Any) -> Attempt:
    """The usual attempt with people asked at these gates."""
    plan = tuple(
        PlanStep(step.weight, step.bake, any(gate.step == number for gate in gates))
        for number, step in enumerate(attempt().plan, start=1)
    )
    return attempt(plan=plan, gates=gates, **changes)
