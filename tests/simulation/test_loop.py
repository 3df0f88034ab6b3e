"""The real loop in a fake world under a virtual clock: crashes, lost replies, foreign writers, stalled leaders.

A failing seed is in the test's name: `python -m tests.simulation.soak --story people --seed 17` plays it again, and
leaves out what it can do without.
"""

from __future__ import annotations

import os

import pytest

from controller.errors import ApiUnavailable, Forbidden, Refused, SerinError
from controller.model.spec import Verb
from controller.model.status import Outcome, Phase
from tests.builders import spec
from tests.simulation.life import (
    STILL,
    STORIES,
    Life,
    Process,
    aborted,
    adopted,
    bad,
    deleted,
    good,
    killed_all_the_time,
    people,
    settle,
)
from tests.world import Delayed, Fleet

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


def test_row_39_what_its_service_answered_before_the_canary_had_traffic_is_not_held_against_it() -> None:
    """In the simulation: somebody calls the canary's Service directly while its pods are prepared, and gets errors."""
    life = adopted(0, {}, misfortune=0.0)
    world = life.world
    world.edit("v2")
    while world.remembered.phase is not Phase.PROGRESSING:
        world.counters["canary"] = [count + 50.0 for count in world.counters["canary"]]
        life.second()

    settle(life)

    attempt = world.remembered.attempt
    assert attempt is not None
    assert (attempt.outcome, attempt.retreats) == (Outcome.PROMOTED, ())


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


@pytest.mark.parametrize("stamp", ["999999999.0", "2.0", "1.999", "²"])
def test_a_stamp_forged_again_and_again_ends_no_leader_and_keeps_nobody_on_a_bad_revision(stamp: str) -> None:
    life = adopted(0, {"v2": 0.5}, misfortune=0.0)
    world = life.world
    world.edit("v2")
    while world.route.percent == 0:
        life.second()

    for second in range(180):
        if second % 3 == 0:
            world.forge(stamp)
        life.second()
        if world.remembered.weight == 0:
            assert world.route.percent == 0
    assert world.remembered.attempt is not None
    assert world.remembered.attempt.outcome is Outcome.ROLLED_BACK
    settle(life, still=STILL)

    assert (world.remembered.phase, world.route.present, life.term) == (Phase.ROLLED_BACK, False, 1)


@pytest.mark.parametrize("phase", [Phase.IDLE, Phase.ROLLED_BACK])
def test_what_rolled_out_while_nobody_of_serin_was_there_is_stable_when_it_is_back(phase: Phase) -> None:
    life = adopted(0, {"v2": 0.5}, misfortune=0.0)
    world = life.world
    if phase is Phase.ROLLED_BACK:
        world.edit("v2")
        settle(life, still=STILL)
    assert world.remembered.phase is phase
    world.target.template, world.target.paused = "v3", False
    world.target.touched()
    for _ in range(60):
        world.pass_time(1.0)
    assert world.target.running == "v3"

    life._take_over()
    settle(life, still=STILL)

    assert (world.remembered.phase, world.pinned, world.route.present) == (Phase.IDLE, "", False)
    assert [one.get("outcome") for one in world.records.values()][-1] == "Unjudged"
    world.edit("v4")
    settle(life, still=STILL)
    assert world.target.running == "v4"


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


@pytest.mark.parametrize("deleted", [False, True], ids=["aborted", "deleted"])
@pytest.mark.parametrize("seed", range(12))
def test_row_31_a_rollout_whose_status_cannot_be_read_is_left_alone_until_somebody_wants_users_off_it(
    seed: int, deleted: bool
) -> None:
    """In the simulation: at any second, an older controller takes over a status with a phase it does not know."""
    life = adopted(seed, {}, 0.03)
    world = life.world
    world.edit("v2")
    for _ in range(life.chance.randint(1, 200)):
        life.second()
    phase, weight, remembered = world.remembered.phase, world.route.percent, world.status
    releases = phase in {Phase.RELEASING, Phase.FINISHING, Phase.IDLE}

    world.newer = True
    life._take_over()
    for _ in range(60):
        life.second()
    assert (world.route.percent, world.status) == (weight, remembered)

    if deleted:
        world.deleting = True
        world.version += 1
    else:
        world.say(Verb.ABORT)
    settle(life, 30)
    assert (world.route.percent, world.status) == (0.0, remembered)

    world.newer = False
    life._take_over()
    settle(life, still=30)
    assert world.gone is deleted
    assert not world.route.present
    assert world.target.running == "v1" or releases


@pytest.mark.parametrize("seed", range(9))
def test_an_edit_that_slipped_past_a_hold_once_proven_is_taken_back_with_its_pods(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The roll takes a minute, so that some pods run the edit and some do not when it is stopped."""
    monkeypatch.setattr("tests.world.ROLL_TAKES", 60.0)
    life = adopted(seed, {"v2": 0.5}, 0.03)
    world = life.world
    assert world.remembered.edits_held
    world.in_force = False
    world.edit("v2")

    for _ in range(300):
        life.second()
    assert not world.remembered.edits_held
    settle(life, still=STILL)

    assert world.remembered.attempt is not None
    assert world.remembered.attempt.outcome is Outcome.ROLLED_BACK
    assert (world.target.running, world.target.roll_left, world.pinned) == ("v1", 0.0, "")
    assert world.target.paused is world.rests_paused
    world.edit("v3")
    settle(life, still=STILL)
    assert (world.target.running, world.remembered.edits_held) == ("v3", True)


@pytest.mark.parametrize("seed", range(6))
def test_a_canary_deleted_while_its_promoted_workload_has_a_pod_that_is_not_available_goes(seed: int) -> None:
    life = adopted(seed, {}, 0.03)
    world = life.world
    world.edit("v2")
    while world.remembered.phase is not Phase.FINISHING:
        life.second()

    world.ailing = True
    world.deleting = True
    world.version += 1
    settle(life, still=STILL)

    assert world.gone
    assert (world.target.running, world.target.paused, world.fleet.attempt) == ("v2", False, "")
    assert [record.get("outcome") for record in world.records.values()] == ["Promoted"]


@pytest.mark.parametrize("seed", range(6))
def test_a_canary_deleted_while_a_freeze_stops_its_roll_takes_stables_template_back_and_goes(seed: int) -> None:
    life = adopted(seed, {}, 0.03)
    world = life.world
    world.edit("v2")
    while world.remembered.phase is not Phase.RELEASING:
        life.second()

    world.engage()
    world.deleting = True
    world.version += 1
    settle(life, still=STILL)

    assert world.gone
    assert (world.target.running, world.target.paused, world.route.present) == ("v1", False, False)
    assert [record.get("outcome") for record in world.records.values()] == ["Deleted"]


def gauged(life: Life) -> None:
    """Errors are judged, and memory advises after twenty seconds."""
    metrics = [{"name": "errors", "errorRatio": {}, "objective": 0.05}, {"name": "memory", "gauge": {"lasts": "20s"}}]
    # The certificate makes up for an incident in an hour.
    life.world.spec = spec(analysis={"metrics": metrics, "warmup": "5s", "onInconclusive": "advance"})


@pytest.mark.parametrize("seed", range(5))
def test_what_a_gauge_advises_holds_through_any_misfortune_and_ends_with_its_cause(seed: int) -> None:
    life = adopted(seed, {}, 0.05, born=gauged)
    world = life.world
    world.using = {"v2": 2.0}
    world.edit("v2")

    for _ in range(400):
        life.second()
    life.misfortune = 0.0
    for _ in range(60):
        life.second()

    status = world.remembered
    assert (status.phase, status.reason, status.weight) == (Phase.PROGRESSING, "GaugeHigher", 10.0)
    assert "2.00 times that of stable pods" in status.message
    world.using = {}
    settle(life)
    assert world.target.running == "v2"


def test_nothing_rises_while_stable_suffers_too_and_nobody_is_convicted() -> None:
    life = adopted(1, {}, 0.0, born=gauged)
    world = life.world
    world.edit("v2")
    while world.remembered.attempt is None or world.remembered.attempt.baking_since is None:
        life.second()

    world.failing = {"v1": 0.3, "v2": 0.3}
    for _ in range(200):
        life.second()
    during = world.remembered
    world.failing = {}
    settle(life)

    assert (during.phase, during.reason, during.weight) == (Phase.PROGRESSING, "BothArmsSuffer", 10.0)
    assert "bad on stable too, objective 5.00 %" in during.message
    assert world.target.running == "v2"


@pytest.mark.parametrize("promoted", [False, True])
def test_no_request_goes_to_a_revision_while_the_metrics_server_is_down(promoted: bool) -> None:
    life = adopted(1, {}, 0.0)
    world = life.world
    world.metrics_up = False
    world.edit("v2")
    for _ in range(600):
        life.second()
    waits = world.remembered
    assert (waits.phase, waits.reason, world.route.percent) == (Phase.PREPARING, "MetricsUnavailable", 0.0)

    if promoted:
        # It may be what brings the server back.
        world.say(Verb.PROMOTE)
        while world.target.running != "v2":
            life.second()
    settle(life)
    assert world.target.running == "v2"


def test_a_step_that_a_freeze_kept_is_not_taken_when_the_metrics_server_is_down_by_then() -> None:
    life = adopted(1, {}, 0.0)
    world = life.world
    world.edit("v2")
    world.after_write = lambda what: world.engage() if world.remembered.weight == 50.0 else None
    while not world.rules.freezes:
        life.second()
    world.after_write = lambda what: None
    life.second()
    assert (world.remembered.reason, world.route.percent) == ("Frozen", 10.0)

    world.metrics_up = False
    for _ in range(60):
        life.second()
    world.thaw()
    for _ in range(60):
        life.second()
    waits, weight = world.remembered, world.route.percent
    settle(life)

    assert (waits.phase, waits.reason, weight) == (Phase.PROGRESSING, "MetricsUnavailable", 10.0)
    assert world.target.running == "v2"


@pytest.mark.parametrize("no", [Refused("a webhook says no"), Forbidden("no right"), ApiUnavailable("webhook down")])
def test_an_abort_stops_the_roll_of_the_workload_while_the_route_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, no: SerinError
) -> None:
    monkeypatch.setattr("tests.world.ROLL_TAKES", 60.0)
    life = adopted(0, {}, misfortune=0.0)
    world = life.world
    world.edit("v2")
    while world.remembered.phase is not Phase.RELEASING or world.target.paused:
        life.second()

    def refuse(what: str) -> None:
        if what.startswith(("weight", "leave route")):
            raise no

    world.before_write, world.patience = refuse, 200.0
    world.say(Verb.ABORT)
    for _ in range(120):
        life.second()
    asked, ran, weight = world.target.template, world.target.running, world.route.percent
    world.before_write = lambda what: None
    settle(life, still=STILL)

    assert (asked, ran, weight) == ("v1", "v1", 50.0)
    assert (world.remembered.phase, world.route.present) == (Phase.ROLLED_BACK, False)


def test_an_abort_stops_the_roll_of_the_workload_while_the_gateway_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.world.ROLL_TAKES", 60.0)
    life = adopted(0, {}, misfortune=0.0)
    world = life.world
    world.edit("v2")
    while world.remembered.phase is not Phase.RELEASING or world.target.paused:
        life.second()

    world.gateway_up = False
    world.say(Verb.ABORT)
    for _ in range(120):
        life.second()
    asked, ran = world.target.template, world.target.running
    assert (world.remembered.phase, world.remembered.reason) == (Phase.ROLLING_BACK, "RouteNotProgrammed")
    assert world.fleet.replicas > 0, "requests still reach its pods"
    world.gateway_up = True
    settle(life, still=STILL)

    assert (asked, ran) == ("v1", "v1")
    assert (world.remembered.phase, world.route.present) == (Phase.ROLLED_BACK, False)


@pytest.mark.parametrize("seed", range(12))
def test_an_edit_that_is_let_roll_in_the_middle_of_a_rollout_leaves_no_service_without_a_pod(seed: int) -> None:
    """The policies are taken away, somebody unpauses, and for a while nobody of Serin is there to see it."""
    life = adopted(seed, {"v2": 0.5} if seed % 2 else {}, 0.02)
    world, chance = life.world, life.chance
    world.edit("v2")
    for _ in range(chance.randint(1, 250)):
        life.second()

    world.in_force = False
    world.target.paused = False
    world.target.touched()
    for _ in range(chance.choice([0, 3, 8])):
        world.pass_time(1.0)
    settle(life, still=STILL)

    assert world.remembered.phase in {Phase.IDLE, Phase.ROLLED_BACK}, world.remembered.message
    assert (world.pinned, world.route.present, world.target.roll_left) == ("", False, 0.0)


@pytest.mark.parametrize("seed", range(6))
def test_a_canary_made_again_takes_off_what_one_of_its_name_left_that_had_no_time_to(seed: int) -> None:
    """Its finalizer was taken off in the middle of a rollout, and its canary's Service went with it."""
    life = adopted(seed, {}, 0.0)
    world = life.world
    world.edit("v2")
    while world.route.effective < 10.0:
        life.second()
    world.status, world.finalizer, world.fleet = {}, False, Fleet()
    world.version += 1
    assert (world.route.percent, world.pinned) == (10.0, "h-v1")
    # As the message of a target that is paused says.
    world.target.paused = False
    world.target.touched()
    life.misfortune = 0.05

    for _ in range(5):
        life.second()
    assert (world.route.present, world.pinned) == (False, "")
    settle(life, still=STILL)

    assert (world.remembered.phase, world.target.running) == (Phase.IDLE, "v2")


@pytest.mark.parametrize("goes", ["with the retreat", "after the return"])
def test_what_was_taken_off_traffic_comes_back_and_climbs_only_while_it_is_measured(goes: str) -> None:
    """Half of its requests failed; it is no better now, and nobody would see it."""
    life = adopted(0, {}, 0.0)
    world = life.world
    world.edit("v2")
    while world.route.percent < 50.0:
        life.second()
    world.failing = {"v2": 0.5}
    while world.remembered.phase is not Phase.RETREATED:
        life.second()
    if goes == "after the return":
        world.failing = {}
        while world.remembered.phase is not Phase.PROGRESSING:
            life.second()
    world.metrics_up = False

    highest = 0.0
    for _ in range(280):
        life.second()
        highest = max(highest, world.route.percent)

    assert highest < 5.0
    assert world.remembered.reason == "NoData"
    assert world.remembered.phase is (Phase.PROGRESSING if goes == "after the return" else Phase.RETREATED)


@pytest.mark.parametrize("fresh", [True, False])
def test_a_roll_stops_where_it_is_while_stable_misses_its_objective(fresh: bool) -> None:
    """Also beside fresh pods, which are not what users of stable's Service meet."""
    life = adopted(1, {}, 0.0)
    world = life.world
    metrics = [{"name": "errors", "errorRatio": {}, "objective": 0.05}]
    world.spec = spec(analysis={"metrics": metrics, "baseline": {"fresh": fresh}, "onInconclusive": "advance"})
    world.edit("v2")
    while world.remembered.phase is not Phase.RELEASING:
        life.second()

    world.failing = {"v1": 0.9}
    for _ in range(120):
        life.second()
    during, paused = world.remembered, world.target.paused
    world.failing = {}
    settle(life)

    assert (during.phase, during.reason, paused) == (Phase.RELEASING, "ObjectiveMissed", True)
    assert world.target.running == "v2"
    assert world.remembered.phase is Phase.IDLE


def compared_with_fresh_pods(life: Life) -> None:
    """A service that warms up: pods of stable's template, as young as the canary's, stand beside them."""
    life.world.spec = spec(analysis=life.world.spec.analysis.model_dump(by_alias=True) | {"baseline": {"fresh": True}})


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("seed", range(8))
def test_every_story_ends_the_same_beside_a_fresh_baseline(story: str, seed: int) -> None:
    """The oracles see that it is ready before a raise, runs stable's revision, and goes with the canary."""
    born: list[Life] = []

    def with_baseline(life: Life) -> None:
        compared_with_fresh_pods(life)
        born.append(life)

    STORIES[story](seed, born=with_baseline)

    assert born[0].world.baseline.attempt == "", "nothing of it is left"
    if story in {"good", "bad"}:
        assert born[0].world.counters["baseline"][0] > 0


@pytest.mark.parametrize("fresh", [True, False])
def test_a_cold_start_is_no_fault_beside_pods_that_are_as_cold(fresh: bool) -> None:
    """Every pod that is started fails a tenth of its requests: that is as bad as stable's warm pods are good."""
    life = adopted(0, {}, 0.0)
    world = life.world
    world.spec = spec(analysis={"baseline": {"fresh": fresh}, "onInconclusive": "advance"})
    world.cold = 0.1
    world.edit("v2")

    settle(life)

    attempt = world.remembered.attempt
    assert attempt is not None
    assert attempt.outcome is (Outcome.PROMOTED if fresh else Outcome.ROLLED_BACK)
    assert bool(attempt.retreats) is not fresh


def autoscaled(life: Life, seconds: int) -> None:
    """Traffic grows: every 20 s a tenth of the pods is added to the target, and so to its canary."""
    for second in range(seconds):
        if second % 20 == 0 and life.world.remembered.phase is Phase.PROGRESSING:
            life.world.replicas += 10
        life.second()


def test_a_canary_that_always_has_a_new_pod_is_promoted_all_the_same() -> None:
    life = adopted(0, {}, 0.0)
    life.world.replicas = 100
    life.world.edit("v2")

    autoscaled(life, 600)

    status = life.world.remembered
    assert (status.phase, life.world.target.running) == (Phase.IDLE, "v2"), (status.reason, status.message)


@pytest.mark.parametrize("failing", [0.004, 0.01, 0.05, 0.5])
def test_a_bad_revision_that_always_has_a_new_pod_is_never_promoted(failing: float) -> None:
    """Most of its pods are warm, so that what it does counts; and what the cold ones do badly counts too."""
    life = adopted(0, {"v2": failing}, 0.0)
    life.world.replicas = 100
    life.world.edit("v2")

    autoscaled(life, 600)

    attempt = life.world.remembered.attempt
    assert attempt is not None
    assert life.world.target.running == "v1"
    assert attempt.outcome is Outcome.ROLLED_BACK or len(attempt.retreats) > 1, "users are taken off it again and again"


def test_a_baseline_that_loses_its_pods_takes_users_off_it_and_convicts_nobody() -> None:
    life = adopted(0, {}, 0.0, born=compared_with_fresh_pods)
    world = life.world
    world.edit("v2")
    while world.route.effective == 0:
        life.second()

    for _ in range(60):
        world.baseline.age = 0.0
        life.second()
    during = world.remembered
    settle(life)

    assert during.phase is Phase.RETREATED
    assert during.attempt is not None
    assert (during.attempt.retreats[0].reason, during.attempt.excused) == ("BaselineNotReady", 1)
    assert world.target.running == "v2", "it comes back when they do"
