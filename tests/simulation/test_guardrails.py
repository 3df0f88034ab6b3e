"""Guardrails in the real loop, under a virtual clock: windows at the turns of the clocks, the kill switch, policies.

Every weight that rises while a freeze is in force breaks an oracle of `tests/world.py`, here and in every other story.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from controller.guardrails.freeze import next_window
from controller.guardrails.policy import Policy
from controller.model.guarded import Gate
from controller.model.policy import FreezeSpec, ReleasePolicySpec
from controller.model.spec import Verb
from controller.model.status import Phase
from controller.ports import RulesSeen
from tests.simulation.life import Life, adopted, settle
from tests.simulation.test_loop import SEEDS
from tests.world import World

ZONES = ("Europe/Berlin", "America/New_York", "Australia/Sydney")
TURNS = {
    "Europe/Berlin": ("2026-03-29", "2026-10-25"),
    "America/New_York": ("2026-03-08", "2026-11-01"),
    "Australia/Sydney": ("2026-04-05", "2026-10-04"),
}


def until(life: Life, phase: Phase, within: int = 300) -> None:
    for _ in range(within):
        if life.world.remembered.phase is phase:
            return
        life.second()
    raise AssertionError(f"{life.world.remembered.phase}: {life.world.remembered.message}")


def with_policy(life: Life, **rule: object) -> None:
    spec = ReleasePolicySpec.model_validate({"rules": [{"name": "rule"} | rule]})
    life.world.rules = RulesSeen(policies=(Policy("strict", spec),))


def spec_of(world: World) -> FreezeSpec:
    spec = world.rules.freezes[0].spec
    assert spec is not None
    return spec


@pytest.mark.parametrize(("zone", "day"), [(zone, day) for zone in ZONES for day in TURNS[zone]])
def test_row_74_a_step_that_is_due_a_minute_before_a_window_waits_until_its_end_also_when_the_clocks_change(
    zone: str, day: str
) -> None:
    life = adopted(0, {}, misfortune=0.0)
    world = life.world
    world.engage("night", schedule="30 2 * * *", duration="10m", timeZone=zone)
    night = next_window(spec_of(world), datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone)))
    assert night is not None
    assert night.since is not None
    world.now = night.since - timedelta(minutes=1)
    world.edit("v2")
    rises: list[datetime] = []
    was, free_again = 0.0, None

    for _ in range(3600):
        held = world.is_held()
        life.second()
        if world.remembered.weight > was and world.is_held():
            raise AssertionError(f"the weight rose to {world.remembered.weight} at {world.now}")
        if world.remembered.weight > was:
            rises.append(world.now)
        if held and not world.is_held():
            free_again = world.now
        was = world.remembered.weight

    assert free_again is not None
    assert len(rises) == 2
    first, second = rises
    assert first < free_again <= second <= free_again + timedelta(seconds=2)
    assert world.target.running == "v2"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_kill_switch_takes_a_rollout_off_traffic_through_any_misfortune(seed: int) -> None:
    life = adopted(seed, {}, misfortune=0.05)
    world = life.world
    world.edit("v2")
    for _ in range(life.chance.randint(5, 120)):
        life.second()
    running = world.remembered.phase in {Phase.PREPARING, Phase.PROGRESSING, Phase.RELEASING}
    world.engage(onStart="RollBack")
    settle(life)

    if running:
        assert (world.target.running, world.route.present) == ("v1", False)
        assert world.remembered.phase is Phase.ROLLED_BACK
        assert list(world.records.values())[-1]["outcome"] == "Aborted"
    world.thaw()
    world.say(Verb.RETRY)
    settle(life)
    assert world.target.running == "v2"


def test_a_bad_revision_leaves_traffic_while_everything_is_frozen_and_does_not_come_back_before_the_end() -> None:
    life = adopted(1, {"v2": 0.5}, misfortune=0.0)
    world = life.world
    world.edit("v2")
    until(life, Phase.PROGRESSING)
    while world.route.percent == 0:
        life.second()
    world.engage()

    settle(life)
    off, weight = world.remembered, world.route.effective
    world.thaw()
    settle(life)

    assert (off.phase, off.reason, weight) == (Phase.RETREATED, "Frozen", 0.0)
    assert (world.remembered.phase, world.target.running) == (Phase.ROLLED_BACK, "v1")


def test_row_77_while_nobody_can_read_the_freezes_nothing_rises_and_afterwards_it_goes_on() -> None:
    life = adopted(2, {}, misfortune=0.0)
    world = life.world
    world.edit("v2")
    until(life, Phase.PROGRESSING)
    world.rules = RulesSeen(problem="the API server has said nothing for 61 s")
    for _ in range(400):
        life.second()
    held = world.remembered
    world.rules = RulesSeen()
    settle(life)

    assert (held.phase, held.reason) == (Phase.PROGRESSING, "Frozen")
    assert world.target.running == "v2"


def test_an_attempt_climbs_the_plan_that_a_policy_left_and_waits_for_the_people_it_asks_for() -> None:
    life = adopted(3, {}, misfortune=0.0)
    world = life.world
    with_policy(life, maxFirstWeight=1, approvals={"before": "Start", "count": 1})
    world.edit("v2")
    until(life, Phase.PREPARING)
    for _ in range(900):
        life.second()
    waiting = world.remembered
    assert waiting.attempt is not None
    assert waiting.attempt.gates == (
        Gate(0, 2, (), "strict/rule", "one more: no proof says who wrote it, so an author could be among them"),
    )
    assert (waiting.reason, world.fleet.attempt) == ("AwaitingApproval", "")

    world.say(Verb.APPROVE, step=0, by="ann")
    world.say(Verb.APPROVE, step=0, by="bob")
    settle(life)

    assert world.target.running == "v2"
    (record,) = world.records.values()
    assert [step["weight"] for step in record["steps"]] == [1, 10, 50]


def test_what_a_policy_refuses_is_held_until_the_policy_changes_and_nothing_else_stops() -> None:
    life = adopted(4, {}, misfortune=0.0)
    world = life.world
    with_policy(life, refuse=True)
    world.edit("v2")
    for _ in range(120):
        life.second()
    refused = world.remembered
    world.rules = RulesSeen()
    settle(life)

    assert (refused.phase, refused.reason, refused.attempt) == (Phase.IDLE, "PolicyRefused", None)
    assert world.target.running == "v2"
