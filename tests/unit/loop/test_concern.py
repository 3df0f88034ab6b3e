"""Which Canaries an object wakes."""

from __future__ import annotations

from typing import Any

from controller.kube.objects import Meta
from controller.loop.concern import Concern
from controller.loop.memory import CanaryObject


def canary(name: str, target: Any = "cart", namespace: str = "town") -> CanaryObject:
    traffic = {"service": {"name": "front"}, "httpRoute": {"name": "route"}}
    spec = {"targetRef": {"name": target}, "traffic": traffic}
    return CanaryObject(metadata=Meta(name=name, namespace=namespace), spec=spec)


def test_an_object_wakes_every_canary_that_names_it_and_nobody_else() -> None:
    concern = Concern()
    concern.change(None, canary("one"))
    concern.change(None, canary("two", target="shop"))
    concern.change(None, canary("three", namespace="port"))

    assert concern.about("town/cart") == ("town/one",)
    assert concern.about("town/one-canary") == ("town/one",)
    assert set(concern.about("town/route")) == {"town/one", "town/two"}
    assert concern.about("town/other") == ()


def test_a_canary_that_names_another_workload_is_not_woken_by_the_first_any_more() -> None:
    concern = Concern()
    concern.change(None, canary("one"))

    concern.change(canary("one"), canary("one", target="shop"))
    assert (concern.about("town/cart"), concern.about("town/shop")) == ((), ("town/one",))

    concern.change(canary("one", target="shop"), None)
    assert concern.about("town/shop") == ()


def test_a_spec_that_makes_no_sense_concerns_nothing_but_its_own_canary() -> None:
    concern = Concern()

    concern.change(None, canary("odd", target=["no", "name"]))

    assert concern.about("town/odd-canary") == ("town/odd",)
