"""Policies attached to stable's Service by its name: which of them the canary's lacks, and where that is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.cli.text import render_tree
from controller.cli.view import render_below
from controller.kube.cache import Whole
from controller.model.status import Phase, Status
from controller.model.world import Pins, Weight
from controller.ports import Ref
from controller.rollout.conditions import render_conditions
from controller.rollout.decide import decide
from controller.rollout.moves import Become, Wait
from controller.routers.attached import BACKEND_TLS, KEPT, find_stable_only
from controller.routers.httproute import HttpRouteRouter
from tests.builders import NOON, OLD, observed, spec, status, target
from tests.unit.cli.scenes import scene
from tests.unit.routers.examples import route
from tests.unit.routers.store import RouteStore

SAID = "BackendTLSPolicy tls names Service checkout and not checkout-canary"


def policy(*targets: dict[str, str], name: str = "tls") -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "shop"}, "spec": {"targetRefs": list(targets)}}


def to(service: str, **more: str) -> dict[str, str]:
    return {"group": "", "kind": "Service", "name": service} | more


@pytest.mark.parametrize(
    ("targets", "is_said"),
    [
        pytest.param([to("checkout")], True, id="stable only"),
        pytest.param([to("checkout"), to("checkout-canary")], False, id="both"),
        pytest.param([to("checkout-canary")], False, id="canary only"),
        pytest.param([to("other")], False, id="another Service"),
        pytest.param([to("checkout", kind="ServiceImport")], False, id="another kind of that name"),
        pytest.param(
            [to("checkout", sectionName="https"), to("checkout-canary")], False, id="all ports of the canary's"
        ),
        pytest.param(
            [to("checkout", sectionName="https"), to("checkout-canary", sectionName="http")], True, id="another port"
        ),
        pytest.param([to("checkout"), to("checkout-canary", sectionName="http")], True, id="one port of all"),
    ],
)
def test_a_policy_is_named_when_the_canary_lacks_it(targets: list[dict[str, str]], is_said: bool) -> None:
    found = find_stable_only("BackendTLSPolicy", [policy(*targets)], "checkout", "checkout-canary")

    assert found == ([SAID] if is_said else [])


class Watched:
    """What watches know: the policies given here, of the one kind this cluster has."""

    def __init__(self, *policies: dict[str, Any]) -> None:
        self._policies = policies

    def knows(self, resource: object) -> bool:
        return resource == BACKEND_TLS

    def select(self, resource: object, group: str) -> list[dict[str, Any]]:
        cut = [KEPT[BACKEND_TLS](Whole(metadata=one["metadata"], spec=one["spec"])) for one in self._policies]
        return [kept.read() for kept in cut if kept is not None and kept.group == group]


@pytest.mark.parametrize(
    ("cache", "expected"),
    [
        pytest.param(Watched(policy(to("checkout"))), (SAID,), id="watched"),
        pytest.param(Watched(), (), id="there is none"),
        pytest.param(None, None, id="nobody watches"),
    ],
)
async def test_the_router_says_it_with_the_weight(cache: Any, expected: tuple[str, ...] | None) -> None:
    body = route()
    body["metadata"]["name"] = "checkout"
    router = HttpRouteRouter(RouteStore(body), cache)  # type: ignore[arg-type]

    weight = await router.read_weight(Ref("shop", "checkout", "uid-1"), spec())

    assert weight.stable_only == expected


def at_rest(**changes: Any) -> Status:
    return status(Phase.IDLE, attempt=None, weight=0.0, holding=False, reason="Idle", **changes)


def decided(was: Status, said: tuple[str, ...] | None) -> Become | Wait:
    of_stable = target(paused=False, template_hash=OLD)
    seen = observed(status=was, target=of_stable, pins=Pins(), weight=Weight(stable_only=said))
    decision = decide(seen, NOON)
    assert isinstance(decision, Become | Wait)
    return decision


def test_it_is_remembered_once_and_forgotten_when_it_is_mended() -> None:
    news, known = decided(at_rest(), (SAID,)), decided(at_rest(stable_only=(SAID,)), (SAID,))
    mended, untold = decided(at_rest(stable_only=(SAID,)), ()), decided(at_rest(stable_only=(SAID,)), None)

    assert isinstance(news, Become)
    assert news.status.stable_only == (SAID,)
    assert news.status.phase is Phase.IDLE
    assert isinstance(known, Wait)
    assert isinstance(mended, Become)
    assert mended.status.stable_only == ()
    assert isinstance(untold, Wait), "a watch that is broken takes no warning back"


def test_it_stands_in_no_way() -> None:
    without, warned = (observed(weight=Weight(10.0, True, True, "1.0", stable_only=said)) for said in ((), (SAID,)))

    was, now = decide(without, NOON), decide(warned, NOON)

    assert isinstance(was, Become)
    assert isinstance(now, Become)
    assert now.reason == was.reason
    assert now.status.but(stable_only=(), conditions=()) == was.status.but(conditions=())


def test_a_condition_says_it_and_what_to_write() -> None:
    (said,) = (one for one in render_conditions(at_rest(stable_only=(SAID,)), NOON) if one.type == "PolicyNotOnCanary")

    assert (said.status, said.reason) == ("True", "AttachedToStableOnly")
    assert said.message.endswith(f"add the Service that is missing to spec.targetRefs: {SAID}")


def test_status_shows_it_under_the_route() -> None:
    condition = {"type": "PolicyNotOnCanary", "status": "True", "message": SAID}
    shown = replace(scene(phase="Idle", conditions=[condition]), route=route())

    assert any(f"warning: {SAID}" in text for text, _ in render_tree(render_below(shown)))
