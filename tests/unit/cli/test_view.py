"""The first line, the suggested command, the tree and the exit codes of `status`."""

from dataclasses import replace

import pytest

from controller.cli import view
from controller.cli.status import render
from controller.cli.text import render_tree
from controller.cli.view import Scene
from tests.unit.cli.scenes import NEW, OLD, at, attempt, canary, deployment, scene


def test_the_first_line_says_verdict_exposure_evidence_next_and_who_in_this_order() -> None:
    line, _ = view.render_headline(scene())

    assert line == (
        "GO 25% (step 2/3) - errors +0.4 pp [-0.1,+0.9], limit +1.0, n=12,431/37,022 - next 50% in 3m"
        " - AI (attested) - approvals 0/1 - controller 3s ago"
    )


def test_a_hold_says_its_reason_and_a_lease_that_may_not_be_read_is_left_out() -> None:
    given = scene(
        lease_age=None,
        reason="NoData",
        message="no samples of the canary for 45s",
        conditions=[{"type": "Holding", "status": "True"}],
    )

    line, _ = view.render_headline(given)

    assert line.startswith("HOLD 25% (step 2/3) - ")
    assert "NoData: no samples of the canary for 45s" in line
    assert "controller" not in line


def test_a_rollback_shows_the_numbers_that_decided_it_and_not_the_last_look() -> None:
    given = scene(
        phase="RolledBack",
        weight=0.0,
        attempt=attempt(outcome="RolledBack", outcomeMessage="errors +4.9 pp, limit +0.5"),
    )

    line, style = view.render_headline(given)

    assert line.startswith("ROLLED BACK 0% - errors +4.9 pp, limit +0.5 - ")
    assert "red" in style


def test_a_refused_canary_says_what_to_write_on_its_first_line() -> None:
    given = scene(
        phase=None,
        reason="RouteMissing",
        message="spec.traffic.httpRoute.name: there is no HTTPRoute web",
        conditions=[{"type": "Accepted", "status": "False"}],
        attempt=None,
    )

    line, _ = view.render_headline(given)

    assert line.startswith("NOT ACCEPTED - RouteMissing: spec.traffic.httpRoute.name: there is no HTTPRoute web")


def test_what_the_cluster_says_cannot_move_the_cursor_or_turn_the_line_around() -> None:
    given = scene(reason="NoData", message="\x1b[2J\u202egnihton\nGO 100%")

    text = "\n".join(line for line, _ in render(given))

    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\nGO 100%" not in text


@pytest.mark.parametrize(
    ("given", "options", "code"),
    [
        pytest.param(scene(phase="Idle"), {}, 0, id="healthy"),
        pytest.param(scene(), {}, 0, id="under way"),
        pytest.param(scene(conditions=[{"type": "Accepted", "status": "False"}]), {}, 1, id="not accepted"),
        pytest.param(scene(phase="RolledBack"), {}, 2, id="rolled back"),
        pytest.param(scene(phase="RollingBack"), {}, 2, id="being rolled back"),
        pytest.param(scene(phase="RolledBack", lease_age=500), {}, 2, id="rolled back, whoever is there"),
        pytest.param(scene(reason="AwaitingApproval"), {}, 0, id="waits, and nobody asked"),
        pytest.param(scene(reason="AwaitingApproval"), {"fail_on_wait": True}, 4, id="waits for an approval"),
        pytest.param(scene(attempt=attempt(paused=True)), {"fail_on_wait": True}, 4, id="paused by a person"),
        pytest.param(scene(reason="NoData"), {"fail_on_wait": True}, 0, id="holds, and ends by itself"),
        pytest.param(scene(), {"attempt": "a-1"}, 5, id="another attempt came"),
        pytest.param(scene(), {"attempt": "a-2"}, 0, id="the attempt asked about"),
        pytest.param(scene(attempt=attempt(outcome="Withdrawn")), {"attempt": "a-2"}, 5, id="withdrawn by its owner"),
        pytest.param(scene(lease_age=61), {}, 6, id="no controller"),
        pytest.param(scene(lease_age=59), {}, 0, id="the lease is old, but not yet too old"),
        pytest.param(scene(lease_age=None), {}, 0, id="the lease may not be read"),
    ],
)
def test_exit_codes(given: Scene, options: dict[str, object], code: int) -> None:
    assert view.decide_exit(given, **options) == code  # type: ignore[arg-type]


def test_a_watch_does_not_end_while_the_controller_has_not_seen_the_edit_that_is_held() -> None:
    idle = scene(phase="Idle")
    waiting = replace(idle, target=deployment("checkout", NEW, paused=True))

    assert view.is_over(idle, 0)
    assert not view.is_over(waiting, 0)


def test_a_watch_does_not_take_the_state_of_an_older_generation_for_the_end() -> None:
    assert not view.is_over(scene(phase="Idle", observedGeneration=0), 0)


def test_a_watch_waits_until_a_rollback_has_been_carried_out() -> None:
    assert not view.is_over(scene(phase="RollingBack"), 2)
    assert view.is_over(scene(phase="RolledBack"), 2)


@pytest.mark.parametrize(
    ("given", "command"),
    [
        pytest.param(scene(reason="AwaitingApproval"), "approve", id="gate"),
        pytest.param(scene(attempt=attempt(paused=True)), "resume", id="paused"),
        pytest.param(scene(), "abort", id="under way"),
        pytest.param(scene(phase="RolledBack"), "retry", id="rolled back"),
        pytest.param(scene(lease_age=300), "detach", id="nobody in charge"),
        pytest.param(scene(phase="Idle"), "", id="at rest"),
    ],
)
def test_one_command_is_suggested_where_a_person_can_act(given: Scene, command: str) -> None:
    suggested = view.render_suggestion(given)

    assert suggested.startswith(f"kubectl canary {command} checkout -n shop" if command else "")
    assert bool(suggested) == bool(command)


def test_the_tree_shows_both_revisions_their_pods_their_trouble_pins_and_shares() -> None:
    crash = {"state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}, "restartCount": 4}
    given = replace(
        scene(),
        target=deployment("checkout", NEW, paused=True),
        trial=deployment("checkout-canary", NEW) | {"status": {"readyReplicas": 1}},
        services=({"metadata": {"name": "checkout", "annotations": {"serin.dev/pinned": "checkout/5d9f"}},
                   "spec": {"selector": {"pod-template-hash": "5d9f"}}},),
        route={"metadata": {"name": "web"}, "spec": {"rules": [
            {"backendRefs": [{"name": "checkout", "weight": 75}, {"name": "checkout-canary", "weight": 25}]}]}},
        pods=({"metadata": {"name": "p1"}, "status": {"containerStatuses": [crash]}},),
    )  # fmt: skip

    tree = "\n".join(line for line, _ in render_tree(view.render_below(given)))

    assert f"stable   Deployment checkout  hash 5d9f  {OLD}  pods 2/2 ready" in tree
    assert f"held edit  {NEW}" in tree
    assert f"canary   Deployment checkout-canary  attempt a-2  {NEW}  pods 1/2 ready" in tree
    assert "pod p1: CrashLoopBackOff back-off, 4 restarts" in tree
    assert "checkout pinned to 5d9f" in tree
    assert "stable 75%, canary 25%" in tree
    assert "in-cluster traffic: not canaried" in tree


def test_rules_that_differ_are_shown_as_they_are() -> None:
    backends = [{"name": "checkout", "weight": 50}, {"name": "checkout-canary", "weight": 50}]
    rules = [{"backendRefs": backends}, {"backendRefs": [{"name": "checkout"}]}, {"backendRefs": [{"name": "blog"}]}]
    given = replace(scene(), route={"metadata": {"name": "web"}, "spec": {"rules": rules}})

    tree = "\n".join(line for line, _ in render_tree(view.render_below(given)))

    assert "canary 50%, 0% (rules differ)" in tree


def test_the_document_for_programs_leaves_out_what_only_the_analysis_reads() -> None:
    document = view.summarize(scene(), 0)

    assert document["weight"] == 25.0
    assert (document["step"], document["steps"]) == (2, 3)
    assert "judge" not in document["attempt"]
    assert "template" not in document["stable"]


def test_a_canary_nobody_has_looked_at_yet_is_pending_and_not_an_error() -> None:
    fresh = canary()
    fresh["status"] = {}

    line, _ = view.render_headline(Scene(canary=fresh, now=scene().now))

    assert line.startswith("PENDING - the controller has not seen this edit")
    assert view.decide_exit(Scene(canary=fresh, now=scene().now)) == 0


def test_a_bake_that_is_over_waits_for_the_analysis() -> None:
    line, _ = view.render_headline(scene(attempt=attempt(bakingSince=at(-301))))

    assert "next 50% as soon as the analysis agrees" in line
