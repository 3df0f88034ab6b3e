"""The real loop in a fake world under a virtual clock: crashes, lost replies, foreign writers, stalled leaders.

A failing seed is in the test's name: `python -m tests.simulation.soak --story people --seed 17` plays it again, and
leaves out what it can do without.
"""

from __future__ import annotations

import os

import pytest

from controller.model.spec import Verb
from controller.model.status import Phase
from tests.simulation.life import Process, aborted, adopted, bad, deleted, good, killed_all_the_time, people
from tests.world import Delayed

SEEDS = range(int(os.environ.get("SIMULATION_SEEDS", "50")))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_good_revision_is_promoted_through_any_misfortune(seed: int) -> None:
    good(seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_bad_revision_never_stays_and_the_next_good_one_is_released(seed: int) -> None:
    bad(seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_people_and_tools_do_what_they_like_and_every_oracle_holds(seed: int) -> None:
    people(seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_deleted_canary_leaves_nothing_behind(seed: int) -> None:
    deleted(seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_row_03_killed_at_hardly_less_than_every_write_it_ends_when_it_is_calm(seed: int) -> None:
    """In the simulation, over fresh seeds: six of ten writes meet a crash, a lost reply or a refusal."""
    killed_all_the_time(seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_row_67_an_abort_at_any_moment_brings_the_weight_to_nothing(seed: int) -> None:
    """In the simulation: at any second of the rollout, with crashes around it."""
    aborted(seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_row_70_clocks_that_jump_by_an_hour_raise_nothing_and_end_nothing_for_ever(seed: int) -> None:
    """In the simulation, beside all that people do: the controller's clock jumps by up to an hour, both ways."""
    people(seed + 10_000)


def test_a_new_leader_that_cannot_reach_the_records_takes_a_bad_revision_off_traffic() -> None:
    life = adopted(0, {"v2": 0.5}, misfortune=0.0)
    world = life.world
    world.edit("v2")
    while world.route.percent == 0:
        life.second()

    world.records_down = True
    life.leader = Process(world, life.term)
    for _ in range(120):
        life.second()

    assert world.remembered.phase is Phase.ROLLED_BACK
    assert (world.route.percent, world.route.present) == (0.0, False)
    assert not any(record.get("outcome") for record in world.records.values())


def test_a_raise_that_arrives_after_an_abort_is_refused() -> None:
    """The weight is 0 already when the abort comes: only the stamp tells the late request from a wanted one."""
    life = adopted(0, {}, misfortune=0.0)
    life.arrives = 0.0
    world = life.world

    def lose_the_raise(what: str) -> None:
        if what == "weight 10.0":
            raise Delayed("the client gave up waiting")

    world.before_write = lose_the_raise
    world.edit("v2")
    while not world.late:
        life.second()
    on_its_way = world.late.pop()
    world.say(Verb.ABORT)
    while world.remembered.attempt is None or world.remembered.attempt.resting_since is None:
        life.second()

    world.late = [on_its_way]
    world.deliver_late()

    assert world.route.percent == 0.0
