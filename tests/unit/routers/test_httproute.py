"""What a route says about the canary's traffic, and what is written when."""

from __future__ import annotations

from typing import Any

import pytest

from controller.errors import Conflict, Fenced, NeedsUser
from controller.kube.cache import Kept, Whole
from controller.kube.fence import Fence
from controller.kube.resources import HTTPROUTES
from controller.ports import Ref
from controller.routers.httproute import KEPT, HttpRouteRouter, parse_weight
from controller.routers.split import Names, render_split
from tests.contract.router import canary_spec
from tests.unit.routers.examples import accepted, backend, mirror, report, route, rule
from tests.unit.routers.store import RouteStore, apply_patch

REF = Ref("town", "shop", "u1")
SPEC = canary_spec()


def read(body: dict[str, Any]) -> Any:
    return parse_weight(body, REF, SPEC)


def unresolved(message: str, reason: str = "BackendNotFound") -> dict[str, Any]:
    return {"type": "ResolvedRefs", "status": "False", "reason": reason, "message": message, "observedGeneration": 1}


class WatchedRoutes:
    """What watches know of routes."""

    def __init__(self, *routes: dict[str, Any]) -> None:
        cut = [KEPT[HTTPROUTES](Whole(metadata=one["metadata"], spec=one["spec"])) for one in routes]
        self._kept = [one for one in cut if one is not None]

    def forget(self, name: str) -> None:
        self._kept = [one for one in self._kept if one.read()["metadata"]["name"] != name]

    def knows(self, resource: object) -> bool:
        return resource == HTTPROUTES

    def find(self, resource: object, namespace: str, name: str) -> None:
        return None

    def kept(self, resource: object, group: str) -> list[Kept]:
        return [one for one in self._kept if one.group == group]


def also(*rules: dict[str, Any], name: str = "backup", namespace: str = "town") -> dict[str, Any]:
    body = route(*rules)
    body["metadata"] |= {"name": name, "namespace": namespace}
    return body


SPLIT = rule(backend("shop", 90), backend("shop-canary", 10))


@pytest.mark.parametrize(
    ("other", "is_told"),
    [
        pytest.param(also(SPLIT), True, id="a copy that was taken during a rollout"),
        pytest.param(also(rule(backend("shop-canary"))), False, id="for testers"),
        pytest.param(also(rule(backend("shop"))), False, id="stable's alone"),
        pytest.param(also(rule(backend("shop", 100), backend("shop-canary", 0))), False, id="without a request"),
        pytest.param(also(rule(backend("cart", 90), backend("shop-canary", 10))), False, id="beside another Service"),
        pytest.param(also(SPLIT, name=SPEC.traffic.http_route.name), False, id="the Canary's own"),
        pytest.param(also(SPLIT, namespace="elsewhere"), False, id="of another namespace"),
    ],
)
async def test_another_route_that_splits_the_same_requests_is_told_by_its_name(
    other: dict[str, Any], is_told: bool
) -> None:
    body = also(rule(backend("shop")), name=SPEC.traffic.http_route.name)
    router = HttpRouteRouter(RouteStore(body), WatchedRoutes(body, other))  # type: ignore[arg-type]

    weight = await router.read_weight(REF, SPEC)

    assert (weight.problem == "CanaryInRoute", "HTTPRoute backup too splits" in weight.problem_message) == (
        is_told,
    ) * 2


async def test_of_other_routes_only_a_look_that_may_raise_asks_until_one_was_found_and_then_each_sees_it_mended() -> (
    None
):
    body = also(rule(backend("shop")), name=SPEC.traffic.http_route.name)
    watched = WatchedRoutes(body, also(SPLIT))
    router = HttpRouteRouter(RouteStore(body), watched)  # type: ignore[arg-type]

    problems = [(await router.read_weight(REF, SPEC, live=live)).problem for live in (False, True, False)]
    watched.forget("backup")
    mended = await router.read_weight(REF, SPEC, live=False)

    assert (problems, mended.problem) == (["", "CanaryInRoute", "CanaryInRoute"], "")


@pytest.mark.parametrize(
    ("parents", "programmed", "problem"),
    [
        pytest.param([report()], True, "", id="accepted"),
        pytest.param([], False, "", id="nobody has reported"),
        pytest.param([report(accepted(0))], False, "", id="an older generation was accepted"),
        pytest.param([report(), report(gateway="left")], True, "", id="a gateway the route has left does not count"),
        pytest.param([report(gateway="left")], False, "", id="only a gateway it has left reports"),
        pytest.param(
            [report(accepted(status="False", message="no listener"))], False, "RouteNotAccepted", id="refused"
        ),
        pytest.param([report(accepted(0, status="False"))], False, "", id="an older generation was refused"),
        pytest.param(
            [report(accepted(), unresolved("Spec.Rules.BackendRef: Service \"town/shop-canary\" not found"))],
            True, "", id="only the canary Service is not there",
        ),
        pytest.param(
            [report(accepted(), unresolved('service "town/shop" not found'))],
            False, "RouteNotAccepted", id="stable's Service is not there",
        ),
        pytest.param(
            [report(accepted(), unresolved('"town/shop-canary"', "RefNotPermitted"))],
            False, "RouteNotAccepted", id="a refusal that names the canary",
        ),
    ],
)  # fmt: skip
def test_when_a_weight_is_programmed(parents: list[dict[str, Any]], programmed: bool, problem: str) -> None:
    weight = read(route(parents=parents))

    assert (weight.programmed, weight.problem) == (programmed, problem)


def test_a_canary_service_that_is_missing_matters_while_it_is_to_have_traffic() -> None:
    missing = [report(accepted(), unresolved('service "shop-canary" is invalid: service "town/shop-canary" not found'))]

    at_zero = read(route(rule(backend(weight=100), backend("shop-canary", 0)), parents=missing))
    at_five = read(route(rule(backend(weight=95), backend("shop-canary", 5)), parents=missing))

    assert (at_zero.programmed, at_zero.problem) == (True, "")
    assert (at_five.programmed, at_five.problem) == (False, "")


def test_a_gateway_that_misses_both_services_is_not_excused() -> None:
    both = 'service "town/shop-canary" not found, service "town/shop" not found'

    assert read(route(parents=[report(accepted(), unresolved(both))])).problem == "RouteNotAccepted"


def test_the_gateways_own_words_are_passed_on() -> None:
    weight = read(route(parents=[report(accepted(status="False", message="no matching listener"))]))

    assert "no matching listener" in weight.problem_message
    assert "example.com/gateway" in weight.problem_message


def test_a_route_for_other_services_is_told_which_and_what_to_write() -> None:
    weight = read(route(rule(backend("cart"), backend("shop", port=8080))))

    assert weight.problem == "RouteNotForService"
    assert "cart:80, shop:8080" in weight.problem_message
    assert "{name: shop, port: 80}" in weight.problem_message


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (rule(sessionPersistence={"sessionName": "s"}), "SessionPersistence"),
        (rule(backend(weight=0), backend("cart")), "RouteNotForService"),
    ],
)
def test_rules_that_cannot_be_split_are_refused(bad: dict[str, Any], reason: str) -> None:
    assert read(route(bad)).problem == reason


def test_session_persistence_on_another_services_rule_is_no_concern_of_ours() -> None:
    assert not read(route(rule(), rule(backend("cart"), sessionPersistence={}))).problem


def test_where_rules_differ_the_largest_weight_counts() -> None:
    weight = read(route(
        rule(backend(weight=95), backend("shop-canary", 5)), rule(backend(weight=50), backend("shop-canary", 50))
    ))  # fmt: skip

    assert (weight.percent, weight.present) == (50.0, True)


def test_a_rule_that_lost_our_entry_counts_as_gone_while_others_carry_traffic() -> None:
    weight = read(route(rule(backend(weight=95), backend("shop-canary", 5)), rule()))

    assert (weight.percent, weight.present) == (5.0, False)


def test_an_entry_left_behind_at_weight_zero_still_counts_so_that_it_is_taken_out() -> None:
    assert read(route(rule(backend(weight=100), backend("shop-canary", 0)), rule())).present


@pytest.mark.parametrize(
    ("edited", "problem"),
    [
        pytest.param([backend("shop-canary", 50)], "RouteNotForService", id="stable's line taken out"),
        pytest.param([backend("fallback", 50), backend("shop-canary", 50)], "RouteNotForService", id="replaced"),
        pytest.param(
            [backend(weight=50, port=81), backend("shop-canary", 50)], "RouteNotForService", id="another port"
        ),
    ],
)
async def test_a_rule_of_ours_that_lost_stables_line_is_traffic_on_the_canary_and_is_taken_off(
    edited: list[dict[str, Any]], problem: str
) -> None:
    store = RouteStore(route())
    router = HttpRouteRouter(store)  # type: ignore[arg-type]
    await router.set_weight(REF, SPEC, 50, epoch="1.0", was="")
    store.route["spec"]["rules"][0]["backendRefs"] = edited

    seen = await router.read_weight(REF, SPEC)
    await router.set_weight(REF, SPEC, 0, epoch="1.1", was="1.0")
    after = await router.read_weight(REF, SPEC)
    await router.remove(REF, SPEC)

    assert (seen.percent, seen.present, seen.problem) == (100, True, problem)
    assert (after.percent, after.epoch) == (0, "1.1")
    backends = store.route["spec"]["rules"][0]["backendRefs"]
    assert [one["name"] for one in backends if one["name"] == "shop-canary"] == []
    assert any(one["name"] == "shop" and one["weight"] for one in backends)


async def test_a_route_that_became_unfit_may_be_lowered_and_is_not_raised() -> None:
    store = RouteStore(route())
    router = HttpRouteRouter(store)  # type: ignore[arg-type]
    await router.set_weight(REF, SPEC, 5, epoch="1.0", was="")
    store.route["spec"]["rules"][0]["sessionPersistence"] = {}
    store.route["spec"]["rules"].append(rule(backend("shop-canary"), path="/try"))

    with pytest.raises(NeedsUser):
        await router.set_weight(REF, SPEC, 100, epoch="1.0", was="1.0")
    await router.set_weight(REF, SPEC, 5, epoch="1.0", was="1.0")

    assert (await router.read_weight(REF, SPEC)).percent == 5


@pytest.mark.parametrize(
    "mirrored", [rule(filters=[mirror()]), rule(backend(filters=[mirror()])), rule(backend("cart"), filters=[mirror()])]
)
def test_copies_to_the_canary_are_told_and_hold(mirrored: dict[str, Any]) -> None:
    weight = read(route(rule(), mirrored))

    assert (weight.percent, weight.present, weight.problem) == (0, True, "CanaryInRoute")
    assert "RequestMirror filter to shop-canary" in weight.problem_message
    assert not read(route(rule(filters=[mirror("shadow")]))).problem


def test_a_backend_with_the_routes_own_namespace_is_the_same_backend() -> None:
    weight = read(route(rule(backend(weight=60, namespace="town"), backend("shop-canary", 40, namespace="town"))))

    assert (weight.percent, weight.present, weight.problem) == (40, True, "")
    assert read(route(rule(backend(namespace="elsewhere")))).problem == "RouteNotForService"


def test_a_trickle_somebody_else_allowed_does_not_read_as_nothing() -> None:
    assert read(route(rule(backend(weight=999_999), backend("shop-canary", 1)))).percent == 0.01


async def test_a_weight_costs_two_writes_and_the_second_gives_up_the_rules() -> None:
    store = RouteStore(route())

    await HttpRouteRouter(store).set_weight(REF, SPEC, 5, epoch="1.0", was="")  # type: ignore[arg-type]

    assert len(store.patches) == 2
    assert [entry["manager"] for entry in store.route["metadata"]["managedFields"]] == ["helm", "gateway"]


async def test_a_gateway_that_writes_status_meanwhile_does_not_leave_us_on_the_rules() -> None:
    store = RouteStore(route())

    def reorder(body: dict[str, Any]) -> None:
        body["metadata"]["managedFields"].reverse()

    store.interrupt = [lambda body: None, reorder]

    await HttpRouteRouter(store).set_weight(REF, SPEC, 5, epoch="1.0", was="")  # type: ignore[arg-type]

    assert {entry["manager"] for entry in store.route["metadata"]["managedFields"]} == {"helm", "gateway"}


async def test_a_write_between_reading_and_patching_is_a_conflict() -> None:
    store = RouteStore(
        apply_patch(route(), render_split(route(), Names("shop", 80, "shop-canary"), 5, epoch="1.0", was=""))
    )

    def retreat(body: dict[str, Any]) -> None:
        body["metadata"]["annotations"]["serin.dev/epoch"] = "shop-canary=1.1"

    store.interrupt = [retreat]

    with pytest.raises(Conflict):
        await HttpRouteRouter(store).set_weight(REF, SPEC, 50, epoch="1.0", was="1.0")  # type: ignore[arg-type]


async def yes() -> bool:
    return True


async def test_a_stamp_of_no_leader_is_written_over_with_the_weight() -> None:
    store, told = RouteStore(route()), list[tuple[Ref, str]]()
    fence = Fence(yes, lambda ref, message: told.append((ref, message)))
    router = HttpRouteRouter(store, fence=fence)  # type: ignore[arg-type]
    await router.set_weight(REF, SPEC, 50, epoch="3.0", was="")
    store.route["metadata"]["annotations"]["serin.dev/epoch"] = "shop-canary=999999999.0"

    seen = await router.read_weight(REF, SPEC)
    await router.set_weight(REF, SPEC, 0, epoch="3.1", was=seen.epoch)

    after = await router.read_weight(REF, SPEC)
    assert (seen.epoch, after.percent, after.epoch) == ("999999999.0", 0, "3.1")
    assert [ref for ref, _ in told] == [REF]
    assert "serin.dev/epoch of HTTPRoute shop says 999999999.0" in told[0][1]


async def test_a_leader_that_stamps_after_the_lease_was_asked_keeps_the_late_write_out() -> None:
    store = RouteStore(route())
    await HttpRouteRouter(store).set_weight(REF, SPEC, 50, epoch="3.0", was="")  # type: ignore[arg-type]
    annotations = store.route["metadata"]["annotations"]
    annotations["serin.dev/epoch"] = "shop-canary=999999999.0"

    async def replaced_right_after() -> bool:
        store.route["metadata"]["annotations"]["serin.dev/epoch"] = "shop-canary=4.0"
        return True

    router = HttpRouteRouter(store, fence=Fence(replaced_right_after))  # type: ignore[arg-type]
    with pytest.raises(Conflict):
        await router.set_weight(REF, SPEC, 0, epoch="3.1", was="999999999.0")

    assert (await router.read_weight(REF, SPEC)).epoch == "4.0"


async def test_a_newer_leaders_stamp_ends_this_one_whatever_it_was_about_to_write() -> None:
    store = RouteStore(route())
    await HttpRouteRouter(store).set_weight(REF, SPEC, 50, epoch="10.0", was="")  # type: ignore[arg-type]

    for percent in (0, 60):
        with pytest.raises(Fenced):
            await HttpRouteRouter(store).set_weight(REF, SPEC, percent, epoch="9.7", was="10.0")  # type: ignore[arg-type]

    assert len(store.patches) == 2


async def test_taking_traffic_away_has_a_lane_of_its_own() -> None:
    store = RouteStore(route())
    router = HttpRouteRouter(store)  # type: ignore[arg-type]

    await router.set_weight(REF, SPEC, 5, epoch="1.0", was="")
    await router.set_weight(REF, SPEC, 0, epoch="1.1", was="1.0")

    # What gives up the rules again is only tidy, and waits its turn.
    assert store.lanes == ["usual", "usual", "urgent", "usual"]


async def test_row_56_a_route_that_became_unfit_takes_no_more_traffic_but_gives_it_back() -> None:
    store = RouteStore(route())
    router = HttpRouteRouter(store)  # type: ignore[arg-type]
    await router.set_weight(REF, SPEC, 5, epoch="1.0", was="")
    store.route["spec"]["rules"][0]["sessionPersistence"] = {}

    with pytest.raises(NeedsUser):
        await router.set_weight(REF, SPEC, 25, epoch="1.0", was="1.0")
    await router.set_weight(REF, SPEC, 0, epoch="1.1", was="1.0")

    assert (await router.read_weight(REF, SPEC)).percent == 0


class Watched:
    """Stands where `kube.cache.Cache` stands, and shows one picture of the route."""

    def __init__(self, picture: dict[str, Any]) -> None:
        self.picture = picture

    def kept(self, resource: object, group: str) -> list[Kept]:
        return []

    def knows(self, resource: Any) -> bool:
        return bool(resource == HTTPROUTES)

    def find(self, resource: Any, namespace: str, name: str) -> dict[str, Any] | None:
        return self.picture

    def wrote(self, resource: Any, namespace: str, name: str, body: dict[str, Any]) -> None:
        self.picture = body


async def test_weight_0_needs_no_reading_where_a_watch_knows_the_route() -> None:
    store = RouteStore(route())
    watched = Watched(store.route)
    router = HttpRouteRouter(store, watched)  # type: ignore[arg-type]
    await router.set_weight(REF, SPEC, 5, epoch="1.0", was="")
    store.reads = 0

    await router.set_weight(REF, SPEC, 0, epoch="1.1", was="1.0")

    assert (store.reads, (await router.read_weight(REF, SPEC)).percent) == (0, 0)
    assert (await router.read_weight(REF, SPEC, live=False)).percent == 0


@pytest.mark.parametrize("picture", [5, 0])
async def test_weight_0_is_reached_also_where_the_picture_is_old(picture: float) -> None:
    store = RouteStore(route())
    await HttpRouteRouter(store).set_weight(REF, SPEC, picture, epoch="1.0", was="")  # type: ignore[arg-type]
    old = Watched(store.route)
    await HttpRouteRouter(store).set_weight(REF, SPEC, 90, epoch="1.0", was="1.0")  # type: ignore[arg-type]

    await HttpRouteRouter(store, old).set_weight(REF, SPEC, 0, epoch="1.0", was="1.0")  # type: ignore[arg-type]

    assert (await HttpRouteRouter(store).read_weight(REF, SPEC)).percent == 0  # type: ignore[arg-type]
