"""Stopping everything with one command, and letting it go with two people."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from controller.cli import freeze
from controller.cli.kubectl import Failure, Missing
from controller.cli.screen import Screen
from controller.model.policy import FreezeSpec
from controller.model.spec import DecisionSpec
from tests.unit.cli.scenes import MemoryCluster

FREEZES = "/apis/serin.dev/v1alpha1/freezes"
DECISIONS = "/apis/serin.dev/v1alpha1/namespaces/serin-system/decisions"
STOP = {"metadata": {"name": "stop", "uid": "u-stop"}, "spec": {"reason": "incident 7"}}


def options(**changes: Any) -> argparse.Namespace:
    usual: dict[str, Any] = {
        "name": "stop",
        "namespace": "",
        "reason": "incident 7",
        "on_start": "Hold",
        "origin": "",
        "tool": [],
        "serin_namespace": "serin-system",
    }
    return argparse.Namespace(**usual | changes)


def thawed_by(who: str, uid: str = "u-stop") -> dict[str, Any]:
    return {"spec": {"decision": "Thaw", "by": who, "freeze": {"name": "stop", "uid": uid}}}


def test_a_kill_switch_is_a_freeze_without_an_end_and_says_who_engaged_it(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = MemoryCluster({})

    assert freeze.run_freeze(options(namespace="shop", origin="ai"), cluster, Screen()) == 0

    spec = FreezeSpec.model_validate(cluster.created[0]["spec"])
    assert (spec.by, spec.selector.namespaces, spec.origin) == ("alice", ("shop",), "ai")
    told = capsys.readouterr().out
    assert "in force for namespace shop, changes of origin ai or worse" in told
    assert "kubectl canary thaw stop" in told


def test_without_a_name_it_gets_one_and_without_a_reason_it_is_not_written() -> None:
    assert freeze.render_freeze(options(name=""), "alice")["metadata"] == {"generateName": "stop-"}
    with pytest.raises(Failure, match="--reason is empty"):
        freeze.render_freeze(options(reason=" "), "alice")


def test_the_first_owner_is_told_that_another_has_to_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = MemoryCluster({f"{FREEZES}/stop": STOP, f"{DECISIONS}/old": thawed_by("bob", "u-another")})

    assert freeze.run_thaw(options(reason="over"), cluster, Screen()) == 0

    said = DecisionSpec.model_validate(cluster.created[0]["spec"])
    assert said.freeze is not None
    assert (said.decision, said.freeze.uid, said.canary, said.by) == ("Thaw", "u-stop", "", "alice")
    assert "1 of 2: one more owner has to say so" in capsys.readouterr().out


def test_after_the_second_owner_the_controller_takes_it_off(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = MemoryCluster({f"{FREEZES}/stop": STOP, f"{DECISIONS}/old": thawed_by("bob")})
    monkeypatch.setattr(freeze, "_is_gone", lambda *_: True)

    assert freeze.run_thaw(options(reason="over"), cluster, Screen()) == 0

    assert "thawed by alice and bob" in capsys.readouterr().out


def test_a_freeze_that_is_not_there_is_said_to_be_missing() -> None:
    with pytest.raises(Missing, match="kubectl get freezes"):
        freeze.run_thaw(options(reason="over"), MemoryCluster({}), Screen())
