"""The first line, the suggested command, the tree and the exit codes of `status`."""

from dataclasses import replace

import pytest

from controller.cli import view
from controller.cli.status import render
from controller.cli.text import render_tree
from controller.cli.view import Scene
from controller.model.template import template_hash
from tests.unit.cli.scenes import NEW, OLD, at, attempt, canary, deployment, scene, template


def test_the_first_line_says_verdict_exposure_evidence_next_and_who_in_this_order() -> None:
    line, _ = view.render_headline(scene())

    assert line == (
        "GO 25% (step 2/3) - errors +0.4 pp [-0.1,+0.9], limit +1.0, n=12,431/37,022 - next 50% in 3m"
        " - AI (attested) - approvals 0/1 - controller 3s ago"
    )


def test_a_gate_that_asks_for_several_people_says_how_many_have_agreed() -> None:
    """Two approvals of one person are one, and the gate that is shut is told, not the one behind it."""
    gates = [{"step": 0, "count": 3, "rule": "strict/door"}, {"step": 2, "count": 2, "rule": "strict/answers"}]
    said = [
        {"decision": "Approve", "taken": True, "attempt": "20260301-115000", "step": 0, "by": by, "uid": f"{number}"}
        for number, by in enumerate(["ann", "ann", "bo"])
    ]
    given = scene(
        phase="Preparing",
        reason="AwaitingApproval",
        weight=0.0,
        decisions=said,
        attempt=attempt(id="20260301-115000", step=0, gates=gates, verdicts=[]),
    )

    line, _ = view.render_headline(given)

    assert line.startswith("WAITING 0% ")
    assert "when it is approved" in line
    assert "approvals 2/3, waiting on an approver" in line


def test_an_approval_that_has_expired_is_counted_no_more() -> None:
    said = {"decision": "Approve", "taken": True, "attempt": "a-2", "step": 2, "by": "ann", "uid": "1"}
    gates = [{"step": 2, "count": 1, "rule": "spec"}]

    def approvals(**more: str) -> str:
        given = scene(reason="AwaitingApproval", decisions=[said | more], attempt=attempt(gates=gates))
        return next(part for part in view.render_headline(given)[0].split(" - ") if part.startswith("approvals"))

    assert approvals() == "approvals 1/1, waiting on an approver"
    assert approvals(expiresAt=at(60)) == "approvals 1/1, waiting on an approver"
    assert approvals(expiresAt=at(-60)) == "approvals 0/1, waiting on an approver"


def test_how_far_the_deployment_has_rolled_is_told_in_pods() -> None:
    """The canary's weight falls while it rolls: 0 % would read as if nobody had the new revision."""
    rolling = {"metadata": {"name": "checkout"}, "spec": {"replicas": 10}, "status": {"updatedReplicas": 3}}

    def line(phase: str) -> str:
        return view.render_headline(replace(scene(phase=phase, weight=0.0), target=rolling))[0]

    assert line("Releasing").startswith("RELEASING 3/10 pods - ")
    assert line("Finishing").startswith("RELEASED 100% - ")


def test_a_phase_that_only_a_newer_serin_knows_is_shown_with_the_weight_and_what_still_works() -> None:
    line, _ = view.render_headline(scene(phase="Marinating"))

    assert line.startswith("Marinating 25% (step 2/3) - a newer Serin than this plugin wrote that: upgrade the plugin")
    assert "abort and detach work all the same" in line


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


def held(phase: str, image: str = NEW, **status: object) -> Scene:
    """At rest after a rollback of version 1.8; the Deployment is paused with this image in its template."""
    ended = attempt(outcome="RolledBack", outcomeMessage="errors +4.9 pp")
    given = scene(phase=phase, weight=0.0, attempt=ended, rejected=template_hash(template(NEW)), **status)
    return replace(given, target=deployment("checkout", image, paused=True))


def test_a_watch_does_not_take_the_rollback_before_for_the_end_of_the_edit_after_it() -> None:
    fix = held("RolledBack", "registry.example/checkout:1.9", reason="RolledBack")
    again = held("RolledBack", NEW, reason="RolledBack")

    assert (view.decide_exit(fix), view.is_over(fix, 0)) == (0, False)
    assert view.render_headline(fix)[0].startswith("HELD EDIT 0% - the API server holds an edit; ")
    assert view.render_suggestion(fix) == ""
    assert view.decide_exit(fix, attempt="a-2") == 2, "who asks for the attempt that ended is told so"
    assert (view.decide_exit(again), view.is_over(again, 2)) == (2, True), "the rejected one stays rejected"
    assert view.render_headline(again)[0].startswith("ROLLED BACK 0% - errors +4.9 pp - ")


@pytest.mark.parametrize("phase", ["Idle", "RolledBack"])
def test_why_an_edit_that_is_held_does_not_begin_is_on_the_first_line(phase: str) -> None:
    given = held(
        phase, "registry.example/checkout:1.9", reason="EvidenceUnavailable", message="the registry does not answer"
    )

    assert view.render_headline(given)[0] == (
        "HELD EDIT 0% - EvidenceUnavailable: the registry does not answer - the edit stays held until that has ended"
        " - controller 3s ago"
    )
    assert (view.decide_exit(given), view.is_over(given, 0)) == (0, False)


@pytest.mark.parametrize("phase", ["Idle", "RolledBack"])
def test_an_edit_that_policies_refuse_is_told_with_what_they_ask_of_it(phase: str) -> None:
    given = held(
        phase,
        "registry.example/checkout:1.9",
        reason="PolicyRefused",
        message="schema and auth in one rollout",
        conditions=[{"type": "Accepted", "status": "False"}],
    )

    assert view.render_headline(given)[0] == (
        "NOT ACCEPTED - PolicyRefused: schema and auth in one rollout - the edit stays held until that has ended"
        " - controller 3s ago"
    )
    assert view.render_suggestion(given).startswith("kubectl canary plan checkout -n shop ")
    assert view.decide_exit(given) == 1


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
        pytest.param(scene(reason="PinsReverted"), "resume", id="pins put back"),
        pytest.param(scene(reason="StableTooSmall"), "resume", id="stable lost pods"),
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


def test_where_no_image_differs_the_tree_says_what_does() -> None:
    classes = [{"name": "config", "paths": ["template.spec.containers[app].env[LIMIT]"]}]
    given = scene(attempt=attempt(images=[OLD], fromImages=[OLD], classes=classes))

    tree = "\n".join(line for line, _ in render_tree(view.render_below(given)))

    assert "changes config: template.spec.containers[app].env[LIMIT]" in tree
    assert "changes" not in "\n".join(line for line, _ in render_tree(view.render_below(scene())))


def test_why_a_canary_was_off_traffic_is_not_on_the_first_line_any_more_when_it_is_back() -> None:
    gone = {"at": at(-60), "verdict": "inconclusive", "reason": "CanaryNotReady", "message": "no pod is behind it"}
    back = attempt(verdicts=[], retreats=[gone], canaryRequests=120, canaryErrors=0)

    away, _ = view.render_headline(scene(phase="Retreated", weight=0.0, attempt=back))
    again, _ = view.render_headline(scene(attempt=back))

    assert "no pod is behind it" in away
    assert "no pod is behind it" not in again
    assert "canary served 120 requests, 0 failed" in again


def test_the_tree_says_who_lets_an_attempt_pass_a_freeze_and_until_when() -> None:
    let = {"decision": "Override", "taken": True, "attempt": "a-2", "answer": "Freeze peak does not hold this attempt"}
    given = scene(
        decisions=[
            let | {"by": "b\u0435a", "expiresAt": at(3600)},
            let | {"by": "gone", "expiresAt": at(0)},
            let | {"by": "other", "expiresAt": at(3600), "attempt": "a-1"},
            let | {"by": "refused", "expiresAt": at(3600), "taken": False},
        ]
    )

    text = "\n".join(line for line, _ in render(given))

    assert "b\u0435a [not bea: CYRILLIC SMALL LETTER IE] until 13:00 UTC: Freeze peak does not hold" in text
    assert not [name for name in ("gone", "other", "refused") if f"{name} until" in text]


def test_rules_that_differ_are_shown_as_they_are() -> None:
    backends = [{"name": "checkout", "weight": 50}, {"name": "checkout-canary", "weight": 50}]
    rules = [{"backendRefs": backends}, {"backendRefs": [{"name": "checkout"}]}, {"backendRefs": [{"name": "blog"}]}]
    testers = {"backendRefs": [{"name": "checkout-canary"}]}
    given = replace(scene(), route={"metadata": {"name": "web"}, "spec": {"rules": [*rules, testers]}})

    tree = "\n".join(line for line, _ in render_tree(view.render_below(given)))

    assert "canary 50%, 0%, 100% (rules differ)" in tree


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


@pytest.mark.parametrize(
    ("given", "words"),
    [
        pytest.param(scene(phase="Retreated", reason="Resting"), "comes back after a rest", id="rest"),
        pytest.param(scene(phase="Retreated", reason="RetreatedTooOften"), "comes back after a resume", id="third"),
        pytest.param(scene(phase="Retreated", attempt=attempt(paused=True)), "comes back after a resume", id="paused"),
        pytest.param(scene(phase="Retreated", reason="Frozen"), "when the freeze has ended", id="frozen off traffic"),
        pytest.param(scene(reason="Frozen"), "next 50% when the freeze has ended", id="frozen in a step"),
        pytest.param(
            scene(phase="Preparing", reason="Frozen"), "next 1% when the freeze has ended", id="frozen before"
        ),
        pytest.param(scene(phase="Releasing", reason="Frozen"), "the roll stands where it is", id="frozen roll"),
        pytest.param(scene(phase="Releasing", reason="Releasing"), "rolls by its own strategy", id="roll"),
    ],
)
def test_what_comes_next_is_what_the_rollout_waits_for(given: Scene, words: str) -> None:
    line, _ = view.render_headline(given)

    assert words in line
    if "rolls by" not in words:
        assert "rolls by" not in line


def test_after_a_rollback_out_of_the_release_nothing_is_held_and_no_retry_is_suggested() -> None:
    rejected = held("RolledBack", reason="RolledBack")
    put_back = replace(rejected, target=deployment("checkout", OLD))

    assert "stays held until it is edited or retried" in view.render_headline(rejected)[0]
    assert "retry" in view.render_suggestion(rejected)
    assert "stable's template was put back: apply a corrected revision" in view.render_headline(put_back)[0]
    assert view.render_suggestion(put_back) == ""


def test_a_roll_that_an_objective_stopped_is_not_said_to_go_on() -> None:
    line, _ = view.render_headline(
        scene(phase="Releasing", reason="ObjectiveMissed", message="the roll stands where it is: errors")
    )

    assert "the roll stands where it is: errors" in line
    assert "rolls by" not in line


def test_a_bake_that_is_over_waits_for_the_analysis() -> None:
    line, _ = view.render_headline(scene(attempt=attempt(bakingSince=at(-301))))

    assert "next 50% as soon as the analysis agrees" in line


def test_the_tree_says_at_rest_what_the_next_rollout_can_see() -> None:
    knows = canary(phase="Idle")
    sight = {"weight": 1.0, "requests": 600.0, "lasts": 310.0, "blind": True}
    knows["status"]["outlook"] = {"rate": 20.0, "steps": [sight], "warnings": ["step 1 gets 60 requests"]}

    given = replace(scene(), canary=knows)
    tree = "\n".join(line for line, _ in render_tree(view.render_below(given)))

    assert "outlook  at 20 requests a second" in tree
    assert "step 1 gets 60 requests" in tree


def test_who_applies_a_rejected_template_again_and_again_stands_on_the_first_line() -> None:
    again = scene(phase="RolledBack", reason="TemplateReapplied", message="argocd-controller applied the rejected")

    line, _ = view.render_headline(again)

    assert "argocd-controller applied the rejected" in line
