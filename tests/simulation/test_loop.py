"""The real loop in a fake world under a virtual clock: crashes, lost replies, foreign writers, stalled leaders.

A failing seed is in the test's name: `pytest tests/simulation -k "[17]"` plays it again.
"""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import dataclass

import pytest

from controller.errors import ApiUnavailable, Conflict, Fenced, SerinError
from controller.loop.analyst import Analyst
from controller.loop.reconcile import reconcile
from controller.loop.world import World as Adapters
from controller.model.spec import Verb
from controller.model.status import ACTIVE, Outcome, Phase
from tests.world import KEY, Crash, Delayed, Hands, Stall, World

SEEDS = range(int(os.environ.get("SIMULATION_SEEDS", "50")))
LOOP = asyncio.new_event_loop()
TURNS_A_SECOND = 8
LONG = 900
CALM = 600


@dataclass
class Process:
    """One copy of the controller."""

    world: World
    term: int

    def __post_init__(self) -> None:
        hands = Hands(self.world, self.term)
        self.adapters = Adapters(hands, hands, hands, hands, Analyst(hands), hands, hands, lambda: self.term)

    def turn(self) -> bool:
        """One reconcile; true when it changed something and wants another turn at once."""
        again = LOOP.run_until_complete(reconcile(KEY, self.adapters, self.world.now))
        return again is not None and again.total_seconds() == 0


class Life:
    """A leader, its successors, and the misfortunes between them."""

    def __init__(self, world: World, chance: random.Random, misfortune: float) -> None:
        self.world, self.chance, self.misfortune = world, chance, misfortune
        self.arrives = 0.2
        """how often a second brings a request that was late"""
        self.term = 1
        self.leader = Process(world, 1)
        self.stalled: list[Process] = []
        world.before_write = self._before
        world.after_write = self._after

    def _before(self, what: str) -> None:
        if self.chance.random() < self.misfortune:
            misfortunes = [
                Crash,
                Stall,
                lambda: Delayed("late"),
                lambda: Conflict("injected"),
                lambda: ApiUnavailable("-"),
            ]
            raise self.chance.choice(misfortunes)()

    def _after(self, what: str) -> None:
        if self.chance.random() < self.misfortune:
            raise self.chance.choice([Crash, lambda: ApiUnavailable("the reply was lost")])()

    def second(self) -> None:
        """A second of the cluster's time, and as many turns as are wanted."""
        self.world.pass_time(1.0)
        for _ in range(TURNS_A_SECOND):
            if self.world.gone:
                return
            try:
                if not self.leader.turn():
                    break
            except Crash:
                self._take_over()
            except Fenced as error:
                raise AssertionError(f"the newest leader was fenced: {error}") from error
            except SerinError:
                break
        self._old_leader_wakes()

    def _take_over(self) -> None:
        self.stalled.append(self.leader)
        self.term += 1
        self.leader = Process(self.world, self.term)

    def _old_leader_wakes(self) -> None:
        """A request arrives late; a leader that was stopped goes on. What an older term tries must be refused."""
        late = self.world.late
        if late and self.chance.random() < self.arrives and (late[0][1] == self.term or self._barrier_stands()):
            self.world.deliver_late()
        if not self.stalled or not self._barrier_stands() or self.chance.random() < 0.8:
            return
        old = self.stalled.pop()
        calm, self.misfortune = self.misfortune, 0.0
        try:
            old.turn()
        except (Fenced, Conflict):
            pass
        finally:
            self.misfortune = calm

    def _barrier_stands(self) -> bool:
        """The new leader's term is in status and, where there is one, on the route."""
        status, route = self.world.remembered, self.world.route
        if status.phase not in ACTIVE:
            return True
        return status.leader_epoch >= self.term and (not route.present or route.epoch == status.epoch)


def settle(life: Life, seconds: int = CALM) -> None:
    """Faults stop; the loop gets this long to come to rest."""
    life.misfortune = 0.0
    life.world.metrics_up = True
    life.world.may = True
    for _ in range(seconds):
        life.second()
        if life.world.gone:
            return


def adopted(seed: int, failing: dict[str, float], misfortune: float) -> Life:
    chance = random.Random(seed)
    life = Life(World(chance, failing, rests_paused=seed % 3 == 2), chance, 0.0)
    settle(life, 20)
    assert life.world.remembered.phase is Phase.IDLE
    life.misfortune = misfortune
    return life


@pytest.mark.parametrize("seed", SEEDS)
def test_a_good_revision_is_promoted_through_any_misfortune(seed: int) -> None:
    life = adopted(seed, {}, misfortune=0.05)
    life.world.edit("v2")

    for _ in range(LONG // 3):
        life.second()
    settle(life)

    world, status = life.world, life.world.remembered
    assert status.phase is Phase.IDLE, (status.phase, status.reason, status.message)
    assert (world.target.running, world.route.present, world.pinned) == ("v2", False, "")
    assert world.target.paused is world.rests_paused
    assert [record.get("outcome") for record in world.records.values()] == ["Promoted"]
    assert world.broken_chain() == []


@pytest.mark.parametrize("seed", SEEDS)
def test_a_bad_revision_never_stays_and_the_next_good_one_is_released(seed: int) -> None:
    life = adopted(seed, {"v2": 0.5}, misfortune=0.05)
    life.world.edit("v2")

    for _ in range(LONG // 3):
        life.second()
    settle(life)

    world, status = life.world, life.world.remembered
    assert status.phase is Phase.ROLLED_BACK, (status.phase, status.reason, status.message)
    assert (world.target.running, world.route.present, world.fleet.attempt, world.pinned) == ("v1", False, "", "")
    assert list(world.records.values())[-1]["outcome"] == "RolledBack"
    world.edit("v3")
    settle(life)
    assert (world.target.running, world.remembered.phase) == ("v3", Phase.IDLE)
    assert world.broken_chain() == []


@pytest.mark.parametrize("seed", SEEDS)
def test_people_and_tools_do_what_they_like_and_every_oracle_holds(seed: int) -> None:
    life = adopted(seed, {"v2": 0.02, "v4": 0.5}, misfortune=0.03)
    world, chance = life.world, life.chance
    deeds = [
        lambda: world.edit(chance.choice(["v1", "v2", "v3", "v4"])),
        lambda: world.say(chance.choice(list(Verb)), step=chance.randint(1, 2)),
        lambda: world.hand_edit(chance.choice([0.0, 5.0, 90.0, 100.0])),
        world.reset_route,
        lambda: setattr(world, "metrics_up", not world.metrics_up),
        lambda: setattr(world, "may", chance.choice([True, True, False, None])),
        lambda: setattr(world.fleet, "age", 0.0),
        lambda: world.engage(onStart=chance.choice(["Hold", "Finish", "RollBack"])),
        world.thaw,
    ]
    for _ in range(LONG):
        if chance.random() < 0.03:
            chance.choice(deeds)()
        life.second()
    world.say(Verb.ABORT)
    world.thaw()
    settle(life)

    status = world.remembered
    assert status.phase in {Phase.IDLE, Phase.ROLLED_BACK}, (status.phase, status.reason, status.message)
    assert not world.route.present
    assert all(record.get("outcome") for record in world.records.values())
    assert world.broken_chain() == []


@pytest.mark.parametrize("seed", SEEDS)
def test_a_deleted_canary_leaves_nothing_behind(seed: int) -> None:
    life = adopted(seed, {"v2": 0.5} if seed % 2 else {}, misfortune=0.03)
    world = life.world
    world.edit("v2")
    for _ in range(life.chance.randint(1, 260)):
        life.second()

    world.deleting = True
    world.version += 1
    settle(life)

    assert world.gone
    assert (world.route.present, world.fleet.attempt, world.pinned, world.target.paused) == (False, "", "", False)
    promoted = any(record.get("outcome") == Outcome.PROMOTED for record in world.records.values())
    assert world.target.running == ("v2" if promoted else "v1")
    assert world.broken_chain() == []


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
