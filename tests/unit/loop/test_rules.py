"""What an earlier environment has passed: only what a rollout promoted there, by digest, and is there still."""

from __future__ import annotations

from typing import Any, cast

import pytest

from controller.kube.objects import Meta
from controller.loop.memory import CanaryObject
from controller.loop.rules import KubeRules

V1, V2 = ("shop@sha256:1",), ("shop@sha256:2",)


def staging(*, stable: dict[str, Any], attempt: dict[str, Any] | None = None) -> CanaryObject:
    status = {"stable": stable} | ({"attempt": attempt} if attempt else {})
    return CanaryObject(metadata=Meta(name="shop", namespace="staging"), status=status)


def passed(canary: CanaryObject, images: tuple[str, ...] = V1) -> bool:
    rules = KubeRules(cast(Any, []), cast(Any, []), cast(Any, [canary]))
    return ("staging", "shop") in rules.promoted(images)


PROMOTED = {"images": [*V1], "promoted": True}


@pytest.mark.parametrize(
    ("canary", "expected"),
    [
        pytest.param(staging(stable=PROMOTED), True, id="promoted"),
        pytest.param(staging(stable=PROMOTED, attempt={"images": [*V2]}), True, id="and tries the next one"),
        pytest.param(
            staging(stable=PROMOTED, attempt={"images": [*V2], "outcome": "RolledBack"}), True, id="and rolled one back"
        ),
        pytest.param(
            staging(stable={"images": [*V1]}, attempt={"images": [*V1], "outcome": "Promoted"}),
            True,
            id="by a controller that did not remember it",
        ),
        pytest.param(staging(stable={"images": [*V1]}), False, id="adopted"),
        pytest.param(
            staging(stable={"images": [*V1]}, attempt={"images": [*V1], "outcome": "Unjudged"}), False, id="unjudged"
        ),
        pytest.param(
            staging(stable={"images": [*V1]}, attempt={"images": [*V2], "outcome": "Promoted"}),
            False,
            id="adopted, and the next one is just promoted",
        ),
        pytest.param(staging(stable={"images": [*V2], "promoted": True}), False, id="another one"),
    ],
)
def test_an_earlier_environment_has_passed_what_it_promoted_and_is_on_still(
    canary: CanaryObject, expected: bool
) -> None:
    assert passed(canary) is expected


def test_a_tag_has_passed_nowhere() -> None:
    canary = staging(stable={"images": ["shop:1"], "promoted": True})

    assert not passed(canary, ("shop:1",))
    assert not passed(canary, ())
