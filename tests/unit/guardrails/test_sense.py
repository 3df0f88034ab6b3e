"""Rules that come to nothing are told with what to write; those that hold for somebody are not."""

from __future__ import annotations

from typing import Any

import pytest

from controller.guardrails.freeze import Freeze
from controller.guardrails.policy import Policy
from controller.guardrails.sense import Subject, senseless
from controller.model.policy import parse_freeze_spec, parse_policy_spec

CANARIES = (Subject("prod", "cart", {"tier": "1"}), Subject("staging", "cart"))


def told_of(*, policy: dict[str, Any] | None = None, freeze: dict[str, Any] | None = None) -> list[str]:
    policies = [Policy("p", parse_policy_spec(policy))] if policy is not None else []
    freezes = [Freeze("f", "uid", parse_freeze_spec({"reason": "x", **freeze}))] if freeze is not None else []
    return list(senseless(policies, freezes, CANARIES))


def passed_in(namespace: str, **more: str) -> list[dict[str, Any]]:
    return [{"name": "r", "passedIn": {"namespace": namespace, **more}}]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"policy": {"selector": {"namespaces": ["prd"]}}}, "ReleasePolicy p selects no Canary (prd)"),
        ({"policy": {"selector": {"labels": {"tier": "9"}}}}, "selects no Canary (tier=9)"),
        ({"policy": {"rules": passed_in("staging")}}, "passedIn asks Canary staging/cart that it promoted the change"),
        (
            {"policy": {"selector": {"namespaces": ["prod"]}, "rules": passed_in("stage")}},
            "passedIn asks for Canary stage/cart, which is not there: prod/cart releases nothing",
        ),
        ({"freeze": {"selector": {"namespaces": ["prd-*"]}}}, "Freeze f selects no Canary (prd-*): it stops nothing"),
        ({"freeze": {"exceptions": [{}]}}, "Freeze f stops nothing: its exceptions leave out every Canary"),
    ],
    ids=["no namespace", "no label", "before itself", "an environment that is not", "no Canary", "all excepted"],
)
def test_a_rule_that_comes_to_nothing_is_told_with_its_name(given: dict[str, Any], said: str) -> None:
    (line,) = told_of(**given)

    assert said in line


@pytest.mark.parametrize(
    "given",
    [
        {"policy": {}},
        {"policy": {"selector": {"namespaces": ["prod"]}, "rules": passed_in("staging")}},
        {"policy": {"selector": {"namespaces": ["prod"]}, "rules": passed_in("staging", canary="cart")}},
        {"freeze": {}},
        {"freeze": {"selector": {"namespaces": ["prod"]}, "exceptions": [{"namespaces": ["staging"]}]}},
    ],
    ids=["for all", "one environment after the other", "by name", "a kill switch", "an exception"],
)
def test_a_rule_that_holds_for_somebody_is_not_told(given: dict[str, Any]) -> None:
    assert told_of(**given) == []


def test_a_freeze_that_nobody_can_read_holds_and_is_told() -> None:
    (line,) = senseless([], [Freeze("f", "uid", None, "spec.duration: 5 parsecs")], CANARIES)

    assert line == "Freeze f cannot be read, so it holds every Canary: spec.duration: 5 parsecs"
