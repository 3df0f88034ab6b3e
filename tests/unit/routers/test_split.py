"""The arithmetic on a route: what owners wrote must survive everything we and they do to it."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import Conflict, Fenced, NeedsUser
from controller.routers.split import (
    EPOCH,
    LARGEST_WEIGHT,
    ORIGINAL_WEIGHTS,
    Names,
    parse_epoch,
    parse_share,
    render_disowning,
    render_removal,
    render_split,
    scale_weights,
)
from tests.unit.routers.examples import backend, route, rule
from tests.unit.routers.store import apply_patch

NAMES = Names("shop", 80, "shop-canary")


def split(body: dict[str, Any], percent: float, epoch: str = "1.0", names: Names = NAMES) -> dict[str, Any]:
    return apply_patch(body, render_split(body, names, percent, epoch=epoch, was=parse_epoch(body, names)))


def removed(body: dict[str, Any], names: Names = NAMES) -> dict[str, Any]:
    return apply_patch(body, render_removal(body, names))


def weights(body: dict[str, Any], index: int = 0) -> dict[str, int]:
    return {entry["name"]: entry["weight"] for entry in body["spec"]["rules"][index]["backendRefs"]}


@pytest.mark.parametrize(
    ("percent", "expected"),
    [
        (0, {"shop": 100, "shop-canary": 0}),
        (5, {"shop": 95, "shop-canary": 5}),
        (12.5, {"shop": 875, "shop-canary": 125}),
        (0.01, {"shop": 9999, "shop-canary": 1}),
        (100, {"shop": 0, "shop-canary": 100}),
    ],
)
def test_weights_are_numbers_a_person_can_read(percent: float, expected: dict[str, int]) -> None:
    assert weights(split(route(), percent)) == expected


def test_the_canary_stands_beside_stable_with_the_same_filters_and_the_rule_is_otherwise_untouched() -> None:
    headers = [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "a", "value": "b"}]}}]
    before = route(
        rule(backend(filters=headers), filters=[{"type": "URLRewrite"}], timeouts={"request": "5s"}),
        rule(backend("search"), path="/search"),
    )

    after = split(before, 5)

    first, second = after["spec"]["rules"]
    assert [entry["name"] for entry in first["backendRefs"]] == ["shop", "shop-canary"]
    assert first["backendRefs"][1] == backend("shop-canary", 5, filters=headers)
    assert {k: v for k, v in first.items() if k != "backendRefs"} == {
        k: v for k, v in before["spec"]["rules"][0].items() if k != "backendRefs"
    }
    assert second == before["spec"]["rules"][1]


def test_every_rule_that_names_the_service_is_split_and_only_those() -> None:
    elsewhere = backend(namespace="other")
    after = split(route(rule(), rule(backend(port=8080)), rule(elsewhere), rule(backend(), path="/cart")), 10)

    shares = [parse_share(each, NAMES) for each in after["spec"]["rules"]]

    assert shares == [10.0, None, None, 10.0]
    assert [len(each["backendRefs"]) for each in after["spec"]["rules"]] == [2, 1, 1, 2]


@given(
    stable=st.integers(1, LARGEST_WEIGHT),
    others=st.lists(st.integers(0, LARGEST_WEIGHT), max_size=4),
    hundredths=st.integers(0, 10_000),
)
def test_the_share_is_exact_and_other_backends_keep_theirs(stable: int, others: list[int], hundredths: int) -> None:
    try:
        (kept,), (canary,), rest = scale_weights([stable], others, hundredths)
    except NeedsUser:
        # Refused only where stable's part is so small that a hundredth of a percent of it is below a weight of one.
        assert stable * 10_000 < max(others) * 101
        return

    assert max(kept, canary, *rest) <= LARGEST_WEIGHT
    assert Fraction(canary, kept + canary) == Fraction(hundredths, 10_000)
    total, scaled = stable + sum(others), kept + canary + sum(rest)
    for before, after in zip(others, rest, strict=True):
        assert abs(Fraction(before, total) - Fraction(after, scaled)) < Fraction(1, 10_000)
        assert (before == 0) == (after == 0)


optional_weights = st.one_of(st.none(), st.integers(0, 1000))


@given(
    rules=st.lists(
        st.lists(st.tuples(st.sampled_from(["shop", "search", "old"]), optional_weights), min_size=1, max_size=4),
        min_size=1,
        max_size=4,
    ),
    percents=st.lists(st.integers(0, 10_000).map(lambda h: h / 100), max_size=4),
)
def test_after_any_steps_removal_restores_what_the_owner_wrote(
    rules: list[list[tuple[str, int | None]]], percents: list[float]
) -> None:
    before = route(*(rule(*(backend(name, weight) for name, weight in backends)) for backends in rules))
    now = before
    for number, percent in enumerate(percents):
        try:
            now = split(now, percent, epoch=f"1.{number}")
        except NeedsUser:
            continue

    assert removed(now) == before


def test_annotations_of_the_owner_stay_and_ours_go() -> None:
    before = route(annotations={"team": "shops"})

    during = split(before, 5)

    assert set(during["metadata"]["annotations"]) == {"team", EPOCH, ORIGINAL_WEIGHTS}
    assert removed(during) == before


def test_a_person_who_lowers_the_canary_does_not_change_what_the_owner_gets_back() -> None:
    before = route(rule(backend("shop", 3), backend("search", 1)))
    now = split(before, 50)
    now["spec"]["rules"][0]["backendRefs"][1]["weight"] = 0

    assert parse_share(now["spec"]["rules"][0], NAMES) == 0
    assert removed(now) == before


def test_a_ratio_the_owner_changed_meanwhile_is_kept() -> None:
    now = split(route(rule(backend("shop", 1), backend("search", 1))), 50)
    now["spec"]["rules"][0]["backendRefs"][2]["weight"] = 300

    assert weights(removed(now)) == {"shop": 1, "search": 3}
    assert weights(split(now, 10)) == {"shop": 90, "shop-canary": 10, "search": 300}


def test_rules_the_owner_moved_get_their_own_weights_back() -> None:
    first, second = rule(backend("shop", 7), backend("search", 3)), rule(backend("shop", 2), path="/cart")
    now = split(route(first, second), 10)
    now["spec"]["rules"].reverse()

    assert removed(now)["spec"]["rules"] == [second, first]


def test_a_line_of_ours_that_somebody_deleted_leaves_no_scaled_weights_behind() -> None:
    before = route(rule(backend("shop", 1), backend("search", 1)))
    now = split(before, 50)
    del now["spec"]["rules"][0]["backendRefs"][1]

    assert removed(now)["spec"] == before["spec"]


@pytest.mark.parametrize("garbled", ["", "not json", "[]", '{"shop-canary":1}', '{"shop-canary":[{"rule":0}]}'])
def test_a_lost_memory_costs_the_scale_but_not_the_ratio(garbled: str) -> None:
    now = split(route(rule(backend("shop", 2), backend("search", 6))), 25)
    now["metadata"]["annotations"][ORIGINAL_WEIGHTS] = garbled

    assert weights(removed(now)) == {"shop": 1, "search": 3}


def test_two_canaries_share_a_route_without_touching_each_other() -> None:
    search = Names("search", 80, "search-canary")
    before = route(rule(backend("shop", 5)), rule(backend("search", 4), path="/search"))

    both = split(split(before, 5, epoch="1.0"), 50, epoch="3.2", names=search)

    assert (parse_epoch(both, NAMES), parse_epoch(both, search)) == ("1.0", "3.2")
    assert removed(both, search) == split(before, 5, epoch="1.0")
    assert removed(removed(both), search) == before


def test_nothing_to_change_is_an_empty_patch() -> None:
    now = split(route(), 5)

    assert render_split(now, NAMES, 5, epoch="1.0", was="1.0") == []
    assert render_removal(route(), NAMES) == []


def test_a_stamp_alone_leaves_the_rules_alone() -> None:
    patch = render_split(split(route(), 0), NAMES, 0, epoch="1.1", was="1.0")

    assert [(op["op"], op["path"]) for op in patch if op["op"] != "test"] == [
        ("add", "/metadata/annotations/serin.dev~1epoch")
    ]


@pytest.mark.parametrize(
    ("stored", "epoch", "was", "error"),
    [
        pytest.param("2.0", "1.5", "1.5", Fenced, id="a newer leader wrote"),
        pytest.param("2.0", "1.5", "2.0", Fenced, id="a newer leader wrote and was read"),
        pytest.param("10.0", "9.0", "9.0", Fenced, id="leaders are numbers"),
        pytest.param("1.2", "1.1", "1.1", Conflict, id="a retreat came between"),
        pytest.param("", "1.1", "1.0", Conflict, id="the stamp is gone"),
    ],
)
def test_an_epoch_that_moved_on_refuses_the_write(stored: str, epoch: str, was: str, error: type[Exception]) -> None:
    now = split(route(), 5, epoch=stored) if stored else route()

    with pytest.raises(error):
        render_split(now, NAMES, 50, epoch=epoch, was=was)


@pytest.mark.parametrize("meanwhile", ["rules", "epoch"])
def test_a_patch_fails_when_the_route_moved_after_reading(meanwhile: str) -> None:
    now = split(route(), 5, epoch="1.0")
    patch = render_split(now, NAMES, 50, epoch="1.0", was="1.0")
    moved = split(now, 5, epoch="1.1") if meanwhile == "epoch" else split(now, 0, epoch="1.0")

    with pytest.raises(Conflict):
        apply_patch(moved, patch)


@pytest.mark.parametrize("annotations", [None, {"team": "shops"}])
def test_the_first_write_fails_when_another_leader_was_first(annotations: dict[str, str] | None) -> None:
    before = route(annotations=annotations)
    patch = render_split(before, NAMES, 0, epoch="1.0", was="")
    moved = split(before, 0, epoch="1.1")
    moved["spec"] = before["spec"]

    with pytest.raises(Conflict):
        apply_patch(moved, patch)


def test_the_first_write_does_not_mind_what_a_gateway_writes_meanwhile() -> None:
    patch = render_split(route(), NAMES, 0, epoch="1.0", was="")
    moved = route(parents=[])
    moved["metadata"]["resourceVersion"] = "8"

    assert parse_epoch(apply_patch(moved, patch), NAMES) == "1.0"


def test_only_our_own_hold_on_the_rules_is_given_up() -> None:
    now = route()
    ours = {"manager": "serin", "operation": "Update", "fieldsV1": {"f:spec": {"f:rules": {}}}}
    status = {"manager": "serin", "operation": "Update", "subresource": "status", "fieldsV1": ours["fieldsV1"]}
    now["metadata"]["managedFields"] += [ours, status]

    after = apply_patch(now, render_disowning(now, "serin"))

    assert after["metadata"]["managedFields"] == [*route()["metadata"]["managedFields"], status]
    assert render_disowning(after, "serin") == []
