"""Which Services are pinned, which are refused, and what an unpin gives back."""

from typing import Any

import pytest

from controller.model.spec import parse_canary_spec
from controller.workloads.render import pin_ops, unpin_ops
from controller.workloads.services import (
    Selecting,
    find_problems,
    find_strangers,
    foreign_endpoints,
    parse_pins,
    parse_services,
)

SPEC = parse_canary_spec(
    {
        "targetRef": {"name": "checkout"},
        "traffic": {"service": {"name": "checkout", "port": 80}, "httpRoute": {"name": "checkout"}},
    }
)
LABELS = {"app": "checkout", "tier": "web"}


def service(name: str, selector: dict[str, str] | None, *, pinned: str = "", **wanted: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]} | wanted}
    if selector is not None:
        body["spec"]["selector"] = selector
    if pinned:
        body["metadata"]["annotations"] = {"serin.dev/pinned": pinned}
    return body


def parse(*services: dict[str, Any], labels: dict[str, str] = LABELS) -> list[Selecting]:
    return parse_services(services, SPEC, "checkout", "checkout-canary", [labels])


def reasons(*services: dict[str, Any], strangers: dict[str, list[str]] | None = None) -> list[str]:
    return [line.split()[0] for line in find_problems(parse(*services), SPEC, LABELS, strangers or {})]


TRAFFIC = service("checkout", {"app": "checkout"})


def test_every_service_that_selects_the_targets_pods_is_found_except_the_canarys_own() -> None:
    found = parse(
        TRAFFIC,
        service("admin", {"tier": "web"}),
        service("checkout-canary", {"app": "checkout", "serin.dev/canary": "a1"}),
        service("cart", {"app": "cart"}),
        service("manual", None),
    )
    assert [each.name for each in found] == ["checkout", "admin"]


def test_pinned_needs_our_pin_on_every_service_and_clean_endpoints() -> None:
    ours = service("checkout", {"app": "checkout", "pod-template-hash": "aaa"}, pinned="checkout/aaa")
    assert parse_pins(parse(ours), "aaa", (), []).pinned
    assert not parse_pins(parse(ours), "aaa", (), ["checkout-bbb-x"]).pinned
    assert not parse_pins(parse(ours), "bbb", (), []).pinned
    half = parse_pins(parse(ours, service("admin", {"tier": "web"})), "aaa", (), [])
    assert (half.pinned, half.any_pin) == (False, True)


def test_a_pin_that_the_owner_reset_is_seen_as_gone_but_still_to_be_cleaned() -> None:
    pins = parse_pins(parse(service("checkout", {"app": "checkout"}, pinned="checkout/aaa")), "aaa", (), [])
    assert (pins.pinned, pins.any_pin) == (False, True)


def test_the_pin_of_another_canary_is_not_ours() -> None:
    theirs = service("checkout", {"app": "checkout", "pod-template-hash": "aaa"}, pinned="other/aaa")
    assert not parse_pins(parse(theirs), "aaa", (), []).any_pin
    assert reasons(theirs) == ["ServiceNotPinnable"]


@pytest.mark.parametrize(
    ("services", "expected"),
    [
        ([service("cart", {"app": "cart"})], ["ServiceMissing"]),
        ([service("checkout", None)], ["ServiceNotPinnable"]),
        ([service("checkout", {"app": "checkout"}, type="ExternalName")], ["ServiceNotPinnable"]),
        ([service("checkout", {"app": "checkout", "pod-template-hash": "zzz"})], ["ServiceNotPinnable"]),
        ([service("checkout", {"app": "cart"})], ["ServiceSelectsNothing"]),
        ([service("checkout", {"app": "checkout"}, ports=[{"port": 8080}])], ["ServicePortMissing"]),
        ([service("checkout", {"app": "checkout"}, clusterIP="None")], []),
        ([TRAFFIC], []),
    ],
)
def test_a_service_that_cannot_be_pinned_is_named(services: list[dict[str, Any]], expected: list[str]) -> None:
    assert reasons(*services) == expected


def test_a_service_that_also_selects_another_apps_pods_is_refused() -> None:
    broad = service("admin", {"tier": "web"})
    assert reasons(TRAFFIC, broad, strangers={"admin": ["cart-7d-x"]}) == ["ServiceSelectsOthers"]


def test_a_second_service_that_only_the_candidate_matches_is_refused() -> None:
    only_new = service("beta", {"beta": "yes"})
    found = parse_services([TRAFFIC, only_new], SPEC, "checkout", "checkout-canary", [LABELS, LABELS | {"beta": "yes"}])
    assert [line.split()[0] for line in find_problems(found, SPEC, LABELS, {})] == ["ServiceSelectsNothing"]


def test_pods_of_the_target_and_of_canaries_are_no_strangers() -> None:
    def pod(name: str, owner: str, **labels: str) -> dict[str, Any]:
        owners = [{"name": owner, "controller": True}]
        return {"metadata": {"name": name, "labels": labels, "ownerReferences": owners}}

    pods = [
        pod("checkout-aaa-1", "checkout-aaa", **{"pod-template-hash": "aaa"}),
        pod("checkout-canary-bbb-1", "checkout-canary-bbb", **{"serin.dev/canary": "a1", "pod-template-hash": "bbb"}),
        pod("checkout-v2-ccc-1", "checkout-v2-ccc", **{"pod-template-hash": "ccc"}),
        {"metadata": {"name": "bare"}},
    ]
    assert find_strangers(pods, "checkout") == ("checkout-v2-ccc-1", "bare")


def test_an_address_of_any_other_pod_behind_a_pinned_service_is_foreign() -> None:
    names = ["checkout-aaa-1", "checkout-canary-bbb-1", "cut-long-name-1"]
    slices = [{"endpoints": [{"targetRef": {"name": name}} for name in names]}]
    assert foreign_endpoints(slices, "checkout", "aaa", {"cut-long-name-1"}) == ["checkout-canary-bbb-1"]


def test_pins_that_hold_say_what_stands_behind_the_service_all_the_same() -> None:
    """An EndpointSlice that somebody wrote by hand names no pod."""
    pinned = parse(service("checkout", {"app": "checkout", "pod-template-hash": "aaa"}, pinned="checkout/aaa"))

    found = parse_pins(pinned, "aaa", (), ["checkout-bbb-1", "", ""])

    assert (found.pinned, found.foreign) == (False, ("checkout-bbb-1", "an address that is no pod's"))
    assert parse_pins(pinned, "aaa", (), []).pinned


def test_unpin_gives_back_what_the_owner_wrote_and_pin_tests_what_it_replaces() -> None:
    (plain,) = parse(TRAFFIC)
    test, pin, *_ = pin_ops(plain, "checkout", "aaa")
    assert test["value"] == {"app": "checkout"}
    (pinned,) = parse(service("checkout", pin["value"], pinned="checkout/aaa"))
    assert unpin_ops(pinned) == [
        {"op": "test", "path": "/spec/selector", "value": {"app": "checkout", "pod-template-hash": "aaa"}},
        {"op": "add", "path": "/spec/selector", "value": {"app": "checkout"}},
        {"op": "remove", "path": "/metadata/annotations/serin.dev~1pinned"},
    ]


def test_a_pin_that_somebody_changed_since_stays_theirs() -> None:
    (changed,) = parse(service("checkout", {"app": "checkout", "pod-template-hash": "zzz"}, pinned="checkout/aaa"))
    assert [op["path"] for op in unpin_ops(changed)] == [
        "/spec/selector",
        "/metadata/annotations/serin.dev~1pinned",
    ]


def test_a_service_pinned_to_an_older_stable_is_pinned_anew() -> None:
    (old,) = parse(service("checkout", {"app": "checkout", "pod-template-hash": "aaa"}, pinned="checkout/aaa"))
    assert pin_ops(old, "checkout", "bbb")[1]["value"] == {"app": "checkout", "pod-template-hash": "bbb"}
