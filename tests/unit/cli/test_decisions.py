"""What a Decision is bound to, and what cannot be decided."""

import argparse
import io
from datetime import UTC, datetime

import pytest

from controller.cli import decisions
from controller.cli.kubectl import Failure
from controller.cli.main import build_parser
from controller.cli.screen import Screen
from tests.unit.cli.scenes import MemoryCluster, attempt, canary

PATH = "/apis/serin.dev/v1alpha1/namespaces/shop/canaries/checkout"


def options(command: str, **changes: object) -> argparse.Namespace:
    usual: dict[str, object] = {
        "name": "checkout",
        "namespace": "shop",
        "reason": "why",
        "attempt": "",
        "step": None,
        "yes": True,
        "lasting": 0.0,
        "permits": "",
        "freeze": "",
    }
    return argparse.Namespace(command=command, **{**usual, **changes})


def test_an_approval_names_attempt_gate_images_and_plan() -> None:
    written = decisions.render_decision(canary(), "approve", "looks right", by="alice")

    assert written["metadata"] == {"generateName": "checkout-approve-", "namespace": "shop"}
    assert written["spec"] == {
        "canary": "checkout",
        "decision": "Approve",
        "by": "alice",
        "attempt": "a-2",
        "step": 3,
        "digest": "registry.example/checkout:1.8",
        "planDigest": "sha256:plan",
        "reason": "looks right",
    }


def test_a_phase_that_only_a_newer_serin_knows_can_be_aborted() -> None:
    written = decisions.render_decision(canary(phase="Marinating"), "abort", "not mine", by="alice")

    assert (written["spec"]["decision"], written["spec"]["attempt"]) == ("Abort", "a-2")


@pytest.mark.parametrize(
    ("status", "verb", "complaint"),
    [
        ({"attempt": None, "phase": "Idle"}, "abort", "has no rollout"),
        ({"phase": "Idle", "attempt": attempt(outcome="Promoted")}, "abort", "has ended"),
        ({"phase": "RolledBack"}, "resume", "kubectl canary retry"),
        ({}, "retry", "was not rolled back"),
        ({"phase": "Idle", "rejected": "22222"}, "retry", "Apply the rejected revision first"),
        ({"phase": "Idle", "rejected": "33333"}, "retry", "was not rolled back"),
        ({"attempt": attempt(gates=[])}, "approve", "asks for an approval"),
    ],
)
def test_there_must_be_something_to_speak_about(status: dict[str, object], verb: str, complaint: str) -> None:
    with pytest.raises(Failure, match=complaint):
        decisions.render_decision(canary(**status), verb, "why", by="alice")


def test_a_decision_about_an_attempt_that_has_passed_is_not_written() -> None:
    with pytest.raises(Failure, match="the present one is a-2"):
        decisions.render_decision(canary(), "abort", "why", by="alice", attempt="a-1")


def test_a_gate_that_was_passed_is_not_opened_again() -> None:
    gated = attempt(gates=[{"step": 0}, {"step": 1}, {"step": 2}], step=1)

    assert decisions.gate_of(gated, None) == 2
    assert decisions.gate_of(attempt(gates=[{"step": 0}], step=0, bakingSince=None), None) == 0
    with pytest.raises(Failure, match="no gate is left there"):
        decisions.gate_of(gated, 1)


def test_a_retry_speaks_about_the_attempt_that_was_rolled_back() -> None:
    written = decisions.render_decision(canary(phase="RolledBack"), "retry", "fixed the quota", by="alice")

    assert (written["spec"]["decision"], written["spec"]["attempt"]) == ("Retry", "a-2")


@pytest.mark.parametrize(("taken", "code"), [(True, 0), (False, 1)])
def test_the_answer_is_printed_and_decides_the_exit_code(
    capsys: pytest.CaptureFixture[str], taken: bool, code: int
) -> None:
    answered = canary(decisions=[{"uid": "u-said", "answer": "as you say", "taken": taken}])
    cluster = MemoryCluster({PATH: answered})

    assert decisions.run(options("abort"), cluster, Screen()) == code

    printed = capsys.readouterr().out
    assert "checkout-abort-x7k2p written: Abort attempt a-2" in printed
    assert "taken: as you say" in printed
    assert ("not taken" in printed) != taken
    assert cluster.created[0]["spec"]["by"] == "alice"


def test_what_brings_users_onto_a_revision_needs_a_yes_where_nobody_can_be_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    cluster = MemoryCluster({PATH: canary()})

    with pytest.raises(Failure, match="--yes"):
        decisions.run(options("promote", yes=False), cluster, Screen())

    assert cluster.created == []


def test_groups_are_written_without_the_one_every_login_has() -> None:
    cluster = MemoryCluster({PATH: canary(decisions=[{"uid": "u-said", "taken": True}])})

    decisions.run(options("abort"), cluster, Screen())

    assert cluster.created[0]["spec"]["groups"] == ["team"]


def test_break_glass_names_its_end() -> None:
    ends = datetime(2026, 3, 1, 13, tzinfo=UTC)

    written = decisions.render_decision(canary(), "break-glass", "the cure", by="alice", expires_at=ends)

    assert (written["spec"]["decision"], written["spec"]["expiresAt"]) == ("BreakGlass", "2026-03-01T13:00:00Z")


def test_an_override_names_the_freeze_itself_and_its_end() -> None:
    freeze = {"metadata": {"name": "stop-4711", "uid": "uid-4711"}}
    taken = canary(decisions=[{"uid": "u-said", "taken": True}])
    cluster = MemoryCluster({PATH: taken, "/apis/serin.dev/v1alpha1/freezes/stop-4711": freeze})

    decisions.run(options("override", freeze="stop-4711", lasting=3600.0), cluster, Screen())

    spec = cluster.created[0]["spec"]
    assert (spec["decision"], spec["freeze"]) == ("Override", {"name": "stop-4711", "uid": "uid-4711"})
    assert (spec["attempt"], "expiresAt" in spec) == ("a-2", True)


def test_an_override_of_no_freeze_is_no_decision(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = MemoryCluster({PATH: canary()})

    with pytest.raises(Failure, match='no Freeze "stop": see `kubectl get freezes`'):
        decisions.run(options("override", freeze="stop", lasting=3600.0), cluster, Screen())
    with pytest.raises(SystemExit):
        build_parser().parse_args(["override", "checkout", "--reason", "why"])

    assert cluster.created == []
    assert "the following arguments are required: --freeze" in capsys.readouterr().err


def test_images_are_named_by_the_digest_that_was_approved_so_that_a_moved_tag_shows() -> None:
    seen = attempt(images=["shop:2", "proxy:1"], evidence={"images": [{"image": "shop:2", "digest": "sha256:ab"}]})

    assert decisions.digest_of(seen) == "shop:2@sha256:ab,proxy:1"
    assert decisions.digest_of(attempt(images=["x" * 300, "y" * 300])).startswith("sha256:")


def test_a_permit_needs_no_rollout_and_names_its_object_and_end() -> None:
    idle = canary(phase="Idle", attempt=None, decisions=[{"uid": "u-said", "taken": True}])
    cluster = MemoryCluster({PATH: idle})

    decisions.run(options("permit", permits="Service/checkout", lasting=900.0), cluster, Screen())

    spec = cluster.created[0]["spec"]
    assert (spec["decision"], spec["permits"], "attempt" in spec) == ("Permit", "Service/checkout", False)
    assert "expiresAt" in spec


@pytest.mark.parametrize("words", ["checkout", "Pod/checkout", "Service/", "Service/Check_out"])
def test_a_permit_of_what_no_permit_is_for_is_answered_with_what_to_write(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["permit", "checkout", words, "--reason", "why"])

    assert "write" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["abort", "reject", "pause"])
def test_what_keeps_users_off_a_revision_takes_no_end_that_would_have_no_effect(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [verb, "checkout", "--reason", "orders missing"]

    with pytest.raises(SystemExit):
        build_parser().parse_args([*words, "--for", "1h"])

    assert "unrecognized arguments: --for 1h" in capsys.readouterr().err
    assert build_parser().parse_args(words).lasting == 0.0
