"""Configuration that pods read by name: what an edit in place of it would reach is said before anybody makes one."""

from __future__ import annotations

from controller.model.status import Phase, Status
from controller.rollout.conditions import render_conditions
from tests.builders import NOON, stable, status


def conditions(of: Status) -> dict[str, str]:
    return {one.type: one.message for one in render_conditions(of, NOON)}


def test_config_maps_and_secrets_of_stable_are_named_and_volumes_are_not() -> None:
    used = ("ConfigMap/settings", "PersistentVolumeClaim/data", "Secret/keys")

    said = conditions(status(Phase.IDLE, stable=stable(uses=used)))["ConfigNotHeld"]

    assert said.startswith("ConfigMap/settings, Secret/keys: ")
    assert "data" not in said


def test_a_workload_that_names_none_is_told_nothing() -> None:
    assert "ConfigNotHeld" not in conditions(status(Phase.IDLE, stable=stable(uses=("PersistentVolumeClaim/data",))))
    assert "ConfigNotHeld" not in conditions(status(Phase.PENDING, stable=None))
