"""Guardrails in the real loop, under a virtual clock: windows at the turns of the clocks, the kill switch, policies.

Every weight that rises while a freeze is in force breaks an oracle of `tests/world.py`, here and in every other story.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from controller.guardrails.freeze import next_window
from controller.guardrails.policy import Policy
from controller.model.evidence import Author, Evidence, ImageSeen, Origin, Trust
from controller.model.guarded import Gate
from controller.model.policy import FreezeSpec, ReleasePolicySpec
from controller.model.spec import Approval, Verb
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


@pytest.mark.parametrize(("on_start", "first"), [("Finish", "v2"), ("RollBack", "v1"), ("Hold", "v1")])
@pytest.mark.parametrize("is_window", [False, True], ids=["kill switch", "window"])
def test_what_was_under_way_ends_as_the_freeze_says_and_what_begins_during_it_waits_for_its_end(
    on_start: str, first: str, is_window: bool
) -> None:
    life = adopted(5, {}, misfortune=0.0)
    world = life.world
    world.edit("v2")
    until(life, Phase.PROGRESSING)
    life.second()
    window = {"start": world.now, "end": world.now + timedelta(hours=2)} if is_window else {}
    world.engage(onStart=on_start, **window)
    life.second()
    for _ in range(1200):
        life.second()
    of_the_first = world.target.running
    world.edit("v3")
    for _ in range(1200):
        life.second()
    frozen = world.remembered
    world.thaw() if not is_window else setattr(world, "now", world.now + timedelta(hours=2))
    settle(life)

    assert of_the_first == first
    assert (frozen.weight, frozen.reason) == (0.0, "Frozen")
    assert frozen.phase in {Phase.IDLE, Phase.PREPARING}, "held, not thrown away"
    assert world.target.running == "v3"


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


def test_a_kill_switch_is_told_from_what_the_watches_brought_so_that_hundreds_are_held_at_once() -> None:
    life = adopted(3, {}, misfortune=0.0)
    world = life.world
    world.edit("v2")
    until(life, Phase.PROGRESSING)
    while not (world.route.effective and world.remembered.reason == "Baking"):
        life.second()
    before = world.live_looks
    while world.live_looks == before:
        life.second()  # the next live look is due 20 s after this one at the earliest
    before = world.live_looks

    world.engage()
    life.second()
    told = world.remembered.reason

    assert (told, world.live_looks) == ("Frozen", before)


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


def test_glass_broken_by_somebody_who_has_lost_the_right_since_stands_before_no_freeze(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where no gate is left to ask for it: in the roll of the release, and in the return from a retreat."""
    # Rights are asked about in live looks, at most 40 s apart: a roll that takes less may be over before.
    monkeypatch.setattr("tests.world.ROLL_TAKES", 60.0)
    life = adopted(2, {}, misfortune=0.0)
    world = life.world
    world.edit("v2")
    until(life, Phase.PROGRESSING)
    world.engage()
    world.say(Verb.BREAK_GLASS)
    until(life, Phase.RELEASING, within=900)
    broken = world.remembered.decisions[-1].taken

    # The roll takes longer than an active rollout goes without a live look.
    world.target.roll_left = 300.0
    world.may = False
    for _ in range(60):
        life.second()
    stopped = world.remembered.reason, world.target.paused, world.target.running
    world.target.roll_left = 1.0
    settle(life)

    assert broken
    assert stopped == ("Frozen", True, "v1")
    assert world.target.running == "v2"
    assert list(world.records.values())[-1]["glassBroken"] is True


@pytest.mark.parametrize("keeps_the_right", [True, False])
def test_a_step_ends_early_by_an_approval_whose_author_still_holds_the_right_and_by_no_other(
    keeps_the_right: bool,
) -> None:
    life = adopted(2, {}, misfortune=0.0)
    world = life.world
    first, *others = world.spec.steps
    gated = first.model_copy(update={"approval": Approval(), "bake": timedelta(hours=2)})
    early = world.spec.analysis.model_copy(update={"advance": "early"})
    world.spec = world.spec.model_copy(update={"steps": (gated, *others), "analysis": early})
    world.edit("v2")
    until(life, Phase.PROGRESSING)
    world.say(Verb.APPROVE, step=1, by="ann")
    for _ in range(30):
        life.second()
    approved = world.remembered.decisions[-1].taken
    world.may = keeps_the_right
    for _ in range(3600):
        life.second()

    assert approved
    assert (world.remembered.weight > first.weight or world.target.running == "v2") is keeps_the_right


def test_a_rollout_passes_the_one_freeze_it_was_let_past_and_is_held_by_the_other_and_by_the_gate() -> None:
    life = adopted(2, {}, misfortune=0.0)
    world = life.world
    with_policy(life, approvals={"before": "Start"})
    world.engage("peak")
    world.edit("v2")
    until(life, Phase.PREPARING)
    life.second()
    world.say(Verb.OVERRIDE, freeze="peak", by="bea")
    for _ in range(120):
        life.second()
    gated = world.remembered
    world.engage("stop")
    for by in ("alice", "carl"):
        world.say(Verb.APPROVE, by=by)
    for _ in range(120):
        life.second()
    held = world.remembered
    world.rules = replace(world.rules, freezes=world.rules.freezes[:1])
    settle(life)

    assert (gated.reason, held.reason, held.weight) == ("AwaitingApproval", "Frozen", 0)
    assert "Freeze stop" in held.message
    assert world.target.running == "v2"
    assert list(dict.fromkeys(one["name"] for one in list(world.records.values())[-1]["freezes"])) == ["peak", "stop"]


PROVEN = Evidence(
    origin=Origin.HUMAN, trust=Trust.T3, authors=(Author("ann@example.com"),), images=(ImageSeen("v2", "sha256:2"),)
)
DOWN = Evidence(unavailable="registry registry.example did not answer: TimeoutError")
HOUR = 3600


def believing_a_key(life: Life) -> None:
    spec = ReleasePolicySpec.model_validate({"signers": [{"name": "ci", "publicKey": "a key"}]})
    life.world.rules = RulesSeen(policies=(Policy("provenance", spec),))


def test_a_registry_that_is_down_for_an_hour_begins_nothing_on_weaker_evidence() -> None:
    life = adopted(0, {}, misfortune=0.0)
    world = life.world
    believing_a_key(life)
    world.evidence = DOWN
    world.edit("v2")

    for _ in range(HOUR):
        life.second()
    held = world.remembered
    world.evidence = PROVEN
    settle(life)

    assert (held.phase, held.reason, held.attempt) == (Phase.IDLE, "EvidenceUnavailable", None)
    assert "registry.example did not answer" in held.message
    assert world.target.running == "v2"
    assert list(world.records.values())[-1]["origin"] == {"treated": "human", "trust": "T3"}


def test_a_registry_that_goes_down_takes_nothing_back_that_is_under_way() -> None:
    life = adopted(0, {}, misfortune=0.0)
    world = life.world
    believing_a_key(life)
    world.evidence = PROVEN
    world.edit("v2")
    until(life, Phase.PROGRESSING)
    world.evidence = DOWN

    for _ in range(HOUR):
        life.second()

    assert world.target.running == "v2"
    assert [one["outcome"] for one in world.records.values()] == ["Promoted"]
    assert list(world.records.values())[-1]["origin"]["trust"] == "T3"
