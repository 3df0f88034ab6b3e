"""Which objects a template stands on."""

from __future__ import annotations

from typing import Any

import pytest

from controller.model.uses import MOST, uses


def pod(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"labels": {"app": "shop"}}, "spec": spec}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({"volumes": [{"configMap": {"name": "a"}}]}, "ConfigMap/a", id="volume"),
        pytest.param({"volumes": [{"secret": {"secretName": "a"}}]}, "Secret/a", id="secret volume"),
        pytest.param(
            {"volumes": [{"persistentVolumeClaim": {"claimName": "a"}}]}, "PersistentVolumeClaim/a", id="claim"
        ),
        pytest.param(
            {"volumes": [{"projected": {"sources": [{"configMap": {"name": "a"}}]}}]}, "ConfigMap/a", id="projected"
        ),
        pytest.param(
            {"volumes": [{"projected": {"sources": [{"secret": {"name": "a"}}]}}]}, "Secret/a", id="projected secret"
        ),
        pytest.param({"containers": [{"envFrom": [{"configMapRef": {"name": "a"}}]}]}, "ConfigMap/a", id="environment"),
        pytest.param(
            {"containers": [{"envFrom": [{"secretRef": {"name": "a"}}]}]}, "Secret/a", id="secret environment"
        ),
        pytest.param(
            {"containers": [{"env": [{"valueFrom": {"configMapKeyRef": {"name": "a", "key": "k"}}}]}]},
            "ConfigMap/a",
            id="key",
        ),
        pytest.param(
            {"initContainers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "a", "key": "k"}}}]}]},
            "Secret/a",
            id="key of an init container",
        ),
    ],
)
def test_every_way_to_name_an_object_is_seen(spec: dict[str, Any], expected: str) -> None:
    assert uses(pod(**spec)) == (expected,)


def test_each_is_named_once_in_a_fixed_order_and_what_is_no_reference_is_passed_over() -> None:
    volumes = [
        {"secret": {"secretName": "b"}},
        {"configMap": {"name": "a"}},
        {"emptyDir": {}},
        {"configMap": {"name": "a"}},
        {"configMap": None},
        "nonsense",
    ]

    assert uses(pod(volumes=volumes, containers=None)) == ("ConfigMap/a", "Secret/b")
    assert uses({}) == ()


def test_a_template_with_very_many_is_cut() -> None:
    assert len(uses(pod(volumes=[{"configMap": {"name": f"c{n}"}} for n in range(MOST + 5)]))) == MOST
