"""What detach leaves behind, in which order, and from every half-way state."""

import pytest

from controller.cli import detach
from controller.cli.kubectl import Failure
from controller.routers.split import Names, render_split
from tests.unit.cli.scenes import NEW, OLD, MemoryCluster, _apply, attempt, canary, deployment, template

API, APPS, CORE = "/apis/serin.dev/v1alpha1", "/apis/apps/v1", "/api/v1"
SHOP = "namespaces/shop"
ROUTE = f"/apis/gateway.networking.k8s.io/v1/{SHOP}/httproutes/web"
OWNERS_RULES = [{"backendRefs": [{"name": "checkout", "port": 80}]}]
OWNED = {"ownerReferences": [{"uid": "u-canary"}]}


def cluster() -> MemoryCluster:
    """In the middle of a rollout at 25 %, the controller gone."""
    route = {
        "metadata": {"name": "web", "generation": 3, "resourceVersion": "5"},
        "spec": {"rules": OWNERS_RULES},
        "status": {"parents": [{"conditions": [{"type": "Accepted", "observedGeneration": 3}]}]},
    }
    for op in render_split(route, Names("checkout", 80, "checkout-canary"), 25, epoch="1.0", was=""):
        _apply(route, op)
    target = deployment("checkout", NEW, paused=True)
    target["metadata"] |= {"uid": "u-target", "annotations": {"serin.dev/epoch": "1.0"}}
    trial = deployment("checkout-canary", NEW)
    trial["metadata"] |= OWNED
    pinned = {
        "metadata": {"name": "checkout", "annotations": {"serin.dev/pinned": "checkout/5d9f"}},
        "spec": {"selector": {"app": "checkout", "pod-template-hash": "5d9f"}},
    }
    return MemoryCluster(
        {
            f"{API}/{SHOP}/canaries/checkout": canary(),
            f"{APPS}/{SHOP}/deployments/checkout": target,
            f"{APPS}/{SHOP}/deployments/checkout-canary": trial,
            f"{CORE}/{SHOP}/services/checkout": pinned,
            f"{CORE}/{SHOP}/services/checkout-canary": {"metadata": {"name": "checkout-canary", **OWNED}, "spec": {}},
            ROUTE: route,
        }
    )


def carry_out(given: MemoryCluster) -> list[str]:
    said: list[str] = []
    detach.carry_out(
        lambda: detach.read_facts(given, "shop", "checkout"), given, "shop", said.append, sleep=lambda _: None
    )
    return said


def test_everything_of_ours_goes_and_everything_of_the_owners_is_as_it_was() -> None:
    given = cluster()

    carry_out(given)

    route = given.objects[ROUTE]
    target = given.objects[f"{APPS}/{SHOP}/deployments/checkout"]
    service = given.objects[f"{CORE}/{SHOP}/services/checkout"]
    assert route["spec"]["rules"] == OWNERS_RULES
    assert not route["metadata"].get("annotations")
    assert target["spec"]["template"] == template(OLD)
    assert target["spec"]["paused"] is False
    assert not target["metadata"]["annotations"]
    assert service["spec"]["selector"] == {"app": "checkout"}
    assert set(given.objects) == {ROUTE, f"{APPS}/{SHOP}/deployments/checkout", f"{CORE}/{SHOP}/services/checkout"}


def test_users_come_first_the_canarys_pods_go_before_the_pins_and_the_finalizer_is_last() -> None:
    given = cluster()

    carry_out(given)

    assert given.log == [
        "patch httproutes.gateway.networking.k8s.io/web",
        "delete canaries/checkout",
        "delete deployments/checkout-canary",
        "delete services/checkout-canary",
        "patch deployments.apps/checkout",
        "patch services/checkout",
        "patch canaries.serin.dev/checkout",
    ]


def test_a_rule_that_somebody_left_to_the_canary_alone_goes_back_to_stable() -> None:
    given = cluster()
    for rule in given.objects[ROUTE]["spec"]["rules"]:
        rule["backendRefs"] = [one for one in rule["backendRefs"] if one["name"] != "checkout"]

    carry_out(given)

    assert given.objects[ROUTE]["spec"]["rules"] == OWNERS_RULES


@pytest.mark.parametrize("asked", ["spec", "attempt"])
def test_a_fresh_baseline_is_taken_out_of_the_route_too_and_goes_with_the_canary(asked: str) -> None:
    """Also where the spec was edited since: the attempt goes on as it began."""
    given, fresh = cluster(), {"baseline": {"fresh": True}}
    body = given.objects[f"{API}/{SHOP}/canaries/checkout"]
    if asked == "spec":
        body["spec"]["analysis"] = fresh
    else:
        body["status"]["attempt"]["analysis"] = fresh
    route = given.objects[ROUTE]
    for rule in route["spec"]["rules"]:
        rule["backendRefs"].append({"name": "checkout-baseline", "port": 80, "weight": 25})

    carry_out(given)

    assert given.objects[ROUTE]["spec"]["rules"] == OWNERS_RULES


@pytest.mark.parametrize("acts", range(8))
def test_stopped_anywhere_the_next_run_goes_on_and_comes_to_the_same_end(acts: int) -> None:
    whole, stopped = cluster(), cluster()
    carry_out(whole)
    for _ in range(acts):
        facts = detach.read_facts(stopped, "shop", "checkout")
        if facts is not None and (left := detach.plan(facts)) and left[0].kind:
            detach._do(left[0], stopped, "shop")

    carry_out(stopped)

    assert stopped.objects == whole.objects


def test_pods_are_not_taken_from_a_gateway_that_still_sends_to_them() -> None:
    given = cluster()
    given.objects[ROUTE]["metadata"]["generation"] = 4

    with pytest.raises(Failure, match="wait until every gateway"):
        carry_out(given)

    assert f"{APPS}/{SHOP}/deployments/checkout-canary" in given.objects


def test_a_wait_says_what_for_how_long_at_most_and_how_far_it_is_every_few_seconds() -> None:
    given, said = cluster(), list[str]()
    pods = f"{CORE}/{SHOP}/pods"
    given.objects[ROUTE]["metadata"]["generation"] = 4
    looks = 0

    def look() -> detach.Facts | None:
        nonlocal looks
        looks += 1
        if looks == 20:
            given.objects[ROUTE]["status"]["parents"][0]["conditions"][0]["observedGeneration"] = 9
            given.objects[f"{pods}/checkout-canary-x"] = {"metadata": {"name": "checkout-canary-x"}}
        if looks == 60:
            del given.objects[f"{pods}/checkout-canary-x"]
        return detach.read_facts(given, "shop", "checkout")

    detach.carry_out(look, given, "shop", said.append, sleep=lambda _: None)

    assert [line for line in said if "wait" in line or line.startswith("  ")] == [
        "wait until every gateway has taken the route over (60s at most): 0 of 1 report it",
        "  5s: 0 of 1 report it",
        "wait until the canary's pods have ended (60s at most): 1 left: checkout-canary-x",
        "  5s: 1 left: checkout-canary-x",
        "  10s: 1 left: checkout-canary-x",
        "  15s: 1 left: checkout-canary-x",
    ]


def test_a_release_that_has_begun_rolls_on_to_its_vetted_template() -> None:
    given = cluster()
    given.objects[f"{API}/{SHOP}/canaries/checkout"] = canary(phase="Releasing", holding=None)
    given.objects[f"{APPS}/{SHOP}/deployments/checkout"]["spec"]["paused"] = False

    carry_out(given)

    assert given.objects[f"{APPS}/{SHOP}/deployments/checkout"]["spec"]["template"] == template(NEW)


def test_a_release_that_failed_half_way_goes_back_to_stable() -> None:
    given = cluster()
    given.objects[f"{API}/{SHOP}/canaries/checkout"] = canary(
        phase="RollingBack", holding=None, attempt=attempt(outcome="RolledBack")
    )
    given.objects[f"{APPS}/{SHOP}/deployments/checkout"]["spec"]["paused"] = False

    carry_out(given)

    assert given.objects[f"{APPS}/{SHOP}/deployments/checkout"]["spec"]["template"] == template(OLD)


def test_objects_of_the_same_name_that_somebody_else_made_stay() -> None:
    given = cluster()
    for kind in (f"{APPS}/{SHOP}/deployments", f"{CORE}/{SHOP}/services"):
        del given.objects[f"{kind}/checkout-canary"]["metadata"]["ownerReferences"]

    carry_out(given)

    assert f"{APPS}/{SHOP}/deployments/checkout-canary" in given.objects
    assert f"{CORE}/{SHOP}/services/checkout-canary" in given.objects
