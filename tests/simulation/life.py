"""A controller's life in a fake world: its processes, and what befalls them. The stories that are told of it.

The one thing to know: a seed decides everything, and each misfortune has a number in the order in which they befell.
`Life(..., only={3, 17})` lets just these happen, which is how a failing seed is made small.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import timedelta

from controller.errors import ApiThrottled, ApiUnavailable, Conflict, Fenced, SerinError
from controller.loop.analyst import Analyst
from controller.loop.outlook import Outlooks
from controller.loop.reconcile import reconcile
from controller.loop.world import World as Adapters
from controller.model.spec import Verb
from controller.model.status import ACTIVE, Outcome, Phase
from tests.world import KEY, Crash, Delayed, Hands, Stall, World

LOOP = asyncio.new_event_loop()
TURNS_A_SECOND = 8
LONG = 900
CALM = 600
STILL = 90
"""seconds at rest without a write after which nothing more is to come"""

Misfortune = Callable[[], BaseException]
BEFORE: dict[str, Misfortune] = {
    "crash": Crash,
    "stopped with the request half sent": Stall,
    "the request arrives late": lambda: Delayed("late"),
    "conflict": lambda: Conflict("injected"),
    "no answer": lambda: ApiUnavailable("-"),
    "told to come back later": lambda: ApiThrottled("-"),
}
AFTER: dict[str, Misfortune] = {"crash": Crash, "the reply is lost": lambda: ApiUnavailable("the reply was lost")}


@dataclass
class Process:
    """One copy of the controller."""

    world: World
    term: int

    def __post_init__(self) -> None:
        hands = Hands(self.world, self.term)
        self.adapters = Adapters(
            hands, hands, hands, hands, Analyst(hands), Outlooks(hands), hands, hands, lambda: self.term, hands
        )

    def turn(self) -> bool:
        """One reconcile; true when it changed something and wants another turn at once."""
        again = LOOP.run_until_complete(reconcile(KEY, self.adapters, self.world.now + self.world.clock_error))
        return again is not None and again.total_seconds() == 0


class Life:
    """A leader, its successors, and the misfortunes between them."""

    def __init__(
        self, world: World, chance: random.Random, misfortune: float, only: Collection[int] | None = None
    ) -> None:
        self.world, self.chance, self.misfortune = world, chance, misfortune
        self.befell: list[tuple[int, str]] = []
        """number and words of each misfortune that happened"""
        self._only = only
        self._number = 0
        self.arrives = 0.2
        """how often a second brings a request that was late"""
        self.term = 1
        self.leader = Process(world, 1)
        self.stalled: list[Process] = []
        world.before_write = lambda what: self._befall(f"before {what}", BEFORE)
        world.after_write = lambda what: self._befall(f"after {what}", AFTER)

    @property
    def rests(self) -> bool:
        """Nothing rolls, nothing is held that may go on by itself, and nobody and nothing of before is under way."""
        status, target = self.world.remembered, self.world.target
        done = status.phase is Phase.ROLLED_BACK or (
            status.phase is Phase.IDLE and target.template == target.running and not status.unjudged
        )
        return done and not self.stalled and not self.world.late

    def _befall(self, when: str, kinds: dict[str, Misfortune]) -> None:
        if self.chance.random() >= self.misfortune:
            return
        words = self.chance.choice(list(kinds))
        self._number += 1
        if self._only is None or self._number in self._only:
            self.befell.append((self._number, f"{self.world.now:%H:%M:%S} {when}: {words}"))
            raise kinds[words]()

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
        except SerinError:
            pass  # refused, or it cannot read what it needs
        finally:
            self.misfortune = calm

    def _barrier_stands(self) -> bool:
        """The new leader's term is in status and, where there is one, on the route."""
        status, route = self.world.remembered, self.world.route
        if status.phase not in ACTIVE:
            return True
        return status.leader_epoch >= self.term and (not route.present or route.epoch == status.epoch)


Born = Callable[[Life], None]


def settle(life: Life, seconds: int = CALM, *, still: int = CALM) -> None:
    """Faults stop; the loop gets this long to come to rest, or until it has written nothing at rest for `still`."""
    life.misfortune = 0.0
    life.world.metrics_up = True
    life.world.records_down = False
    life.world.rules = replace(life.world.rules, problem="")
    life.world.may = True
    life.world.in_force = True
    life.world.clock_error = timedelta(0)
    rested = 0
    for _ in range(seconds):
        written = len(life.world.writes)
        life.second()
        if life.world.gone:
            return
        rested = rested + 1 if life.rests and len(life.world.writes) == written else 0
        if rested >= still:
            return


def adopted(
    seed: int,
    failing: dict[str, float],
    misfortune: float,
    *,
    only: Collection[int] | None = None,
    born: Born = lambda life: None,
) -> Life:
    """A workload at rest whose edits are held; from now on fate may strike."""
    chance = random.Random(seed)
    life = Life(World(chance, failing, rests_paused=seed % 3 == 2), chance, 0.0, only)
    born(life)
    settle(life, 20)
    assert life.world.remembered.phase is Phase.IDLE
    life.misfortune = misfortune
    return life


def good(seed: int, only: Collection[int] | None = None, born: Born = lambda life: None) -> None:
    """A good revision is promoted through any misfortune."""
    life = adopted(seed, {}, 0.05, only=only, born=born)
    life.world.edit("v2")

    for _ in range(LONG // 3):
        life.second()
    settle(life, still=STILL)

    world, status = life.world, life.world.remembered
    assert status.phase is Phase.IDLE, (status.phase, status.reason, status.message)
    assert (world.target.running, world.route.present, world.pinned) == ("v2", False, "")
    assert world.target.paused is world.rests_paused
    assert [record.get("outcome") for record in world.records.values()] == ["Promoted"]
    assert world.broken_chain() == []


def bad(seed: int, only: Collection[int] | None = None, born: Born = lambda life: None) -> None:
    """A bad revision never stays, and the next good one is released."""
    life = adopted(seed, {"v2": 0.5}, 0.05, only=only, born=born)
    life.world.edit("v2")

    for _ in range(LONG // 3):
        life.second()
    settle(life, still=STILL)

    world, status = life.world, life.world.remembered
    assert status.phase is Phase.ROLLED_BACK, (status.phase, status.reason, status.message)
    assert (world.target.running, world.route.present, world.fleet.attempt, world.pinned) == ("v1", False, "", "")
    assert list(world.records.values())[-1]["outcome"] == "RolledBack"
    world.edit("v3")
    settle(life, still=STILL)
    assert (world.target.running, world.remembered.phase) == ("v3", Phase.IDLE)
    assert world.broken_chain() == []


def people(seed: int, only: Collection[int] | None = None, born: Born = lambda life: None) -> None:
    """People and tools do what they like, clocks jump, and every oracle holds."""
    life = adopted(seed, {"v2": 0.02, "v4": 0.5}, 0.03, only=only, born=born)
    world, chance = life.world, life.chance
    deeds = [
        lambda: world.edit(chance.choice(["v1", "v2", "v3", "v4"]), slips=chance.random() < 0.5),
        lambda: world.say(chance.choice(list(Verb)), step=chance.randint(1, 2)),
        lambda: world.hand_edit(chance.choice([0.0, 5.0, 90.0, 100.0])),
        world.reset_route,
        lambda: world.forge(chance.choice(["999999999.0", f"{life.term + 1}.0", f"{life.term}.999", "²", "7"])),
        lambda: setattr(world, "metrics_up", not world.metrics_up),
        lambda: setattr(world, "may", chance.choice([True, True, False, None])),
        lambda: setattr(world.fleet, "age", 0.0),
        lambda: world.engage(onStart=chance.choice(["Hold", "Finish", "RollBack"])),
        world.thaw,
        lambda: setattr(world, "records_down", not world.records_down),
        lambda: setattr(world, "rules", replace(world.rules, problem=chance.choice(["", "freezes cannot be read"]))),
        lambda: setattr(world, "in_force", not world.in_force),
        lambda: setattr(world, "clock_error", timedelta(minutes=chance.choice([-60, -1, 0, 0, 1, 60]))),
    ]
    for _ in range(LONG):
        if chance.random() < 0.03:
            chance.choice(deeds)()
        life.second()
    world.clock_error = timedelta(0)
    world.say(Verb.ABORT)
    world.thaw()
    settle(life, still=STILL)

    status = world.remembered
    assert status.phase in {Phase.IDLE, Phase.ROLLED_BACK}, (status.phase, status.reason, status.message)
    assert not world.route.present
    assert world.target.roll_left == 0, "no pod of a revision that nobody is on stands beside stable's"
    assert all(record.get("outcome") for record in world.records.values())
    # A clock that went back is told by the times of the records, and by nothing else.
    assert [line for line in world.broken_chain() if "began before" not in line] == []


def deleted(seed: int, only: Collection[int] | None = None, born: Born = lambda life: None) -> None:
    """A Canary that is deleted at any moment leaves nothing behind."""
    life = adopted(seed, {"v2": 0.5} if seed % 2 else {}, 0.03, only=only, born=born)
    world = life.world
    world.edit("v2")
    for _ in range(life.chance.randint(1, 260)):
        life.second()

    world.deleting = True
    world.version += 1
    settle(life, still=STILL)

    assert world.gone
    assert (world.route.present, world.fleet.attempt, world.pinned, world.target.paused) == (False, "", "", False)
    promoted = any(record.get("outcome") == Outcome.PROMOTED for record in world.records.values())
    assert world.target.running == ("v2" if promoted else "v1")
    assert world.broken_chain() == []


def killed_all_the_time(seed: int, only: Collection[int] | None = None, born: Born = lambda life: None) -> None:
    """Hardly a write without a crash for five minutes: the weight is never above what is authorised, and it ends."""
    life = adopted(seed, {}, 0.6, only=only, born=born)
    # A way back to 0 is two writes, and each is lost six times of ten: two minutes do for all but one in a thousand.
    life.world.patience = 120.0
    life.world.edit("v2")
    for _ in range(LONG // 3):
        life.second()
    settle(life, still=STILL)
    status = life.world.remembered
    assert status.phase is Phase.IDLE, (status.phase, status.reason, status.message)
    assert len(life.world.records) == 1
    assert life.world.broken_chain() == []


def aborted(seed: int, only: Collection[int] | None = None, born: Born = lambda life: None) -> None:
    """Whatever the plan and the moment, an abort brings the weight to 0."""
    life = adopted(seed, {"v2": 0.01}, 0.03, only=only, born=born)
    world, chance = life.world, life.chance
    world.edit("v2")
    for _ in range(chance.randint(1, 200)):
        life.second()
    promoted = world.remembered.phase in {Phase.RELEASING, Phase.FINISHING, Phase.IDLE}
    world.say(Verb.ABORT)
    settle(life, still=STILL)
    assert not world.route.present
    assert world.remembered.phase in {Phase.IDLE, Phase.ROLLED_BACK}
    assert world.target.running == "v1" or promoted


STORIES = {
    "good": good,
    "bad": bad,
    "people": people,
    "deleted": deleted,
    "killed": killed_all_the_time,
    "aborted": aborted,
}
