"""The arithmetic on a route: what owners wrote must survive everything we and they do to it."""

from __future__ import annotations

import json
from contextlib import suppress
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import Conflict, NeedsUser
from controller.model.spec import Baseline
from controller.routers.split import (
    EPOCH,
    LARGEST_WEIGHT,
    ORIGINAL_WEIGHTS,
    Names,
    is_named,
    parse_epoch,
    parse_percent,
    parse_share,
    render_disowning,
    render_removal,
    render_split,
    scale_weights,
)
from tests.unit.routers.examples import backend, mirror, route, rule
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


BESIDE = Names("shop", 80, "shop-canary", "shop-baseline")


@pytest.mark.parametrize(
    ("percent", "expected"),
    [
        (0, {"shop": 100, "shop-canary": 0, "shop-baseline": 0}),
        (5, {"shop": 90, "shop-canary": 5, "shop-baseline": 5}),
        (0.01, {"shop": 9998, "shop-canary": 1, "shop-baseline": 1}),
        (33.33, {"shop": 3334, "shop-canary": 3333, "shop-baseline": 3333}),
        (50, {"shop": 25, "shop-canary": 50, "shop-baseline": 25}),
    ],
)
def test_a_fresh_baseline_gets_its_share_out_of_stables(percent: float, expected: dict[str, int]) -> None:
    share = Baseline(fresh=True).share(percent)
    patch = render_split(route(), BESIDE, percent, epoch="1.0", was="", baseline=share)

    found = apply_patch(route(), patch)

    assert weights(found) == expected
    assert parse_share(found["spec"]["rules"][0], BESIDE) == percent
    assert removed(found, BESIDE) == route()


@given(
    stable=st.integers(1, 1000),
    other=st.integers(0, 1000),
    climbs=st.lists(st.integers(0, 10_000), min_size=1, max_size=4),
)
def test_beside_a_fresh_baseline_the_canary_has_its_percent_and_the_owner_gets_everything_back(
    stable: int, other: int, climbs: list[int]
) -> None:
    before = route(rule(backend(weight=stable), backend("search", weight=other)))
    body = before
    for number in climbs:
        share = Baseline(fresh=True).share(number / 100)
        try:
            patch = render_split(body, BESIDE, number / 100, epoch="1.0", was=parse_epoch(body, BESIDE), baseline=share)
        except NeedsUser:
            continue
        body = apply_patch(body, patch)
        assert parse_share(body["spec"]["rules"][0], BESIDE) == number / 100
        assert all(0 <= weight <= LARGEST_WEIGHT for weight in weights(body).values())

    assert removed(body, BESIDE) == before


def test_a_baseline_that_still_has_requests_counts_as_traffic_that_must_leave() -> None:
    """Its pods go with the canary's, so that weight 0 for one and not for the other is no weight 0."""
    body = route(rule(backend(weight=95), backend("shop-canary", weight=0), backend("shop-baseline", weight=5)))

    assert parse_share(body["spec"]["rules"][0], BESIDE) == 5.0
    assert parse_share(body["spec"]["rules"][0], NAMES) == 0.0, (
        "without a fresh baseline a backend of that name is the owner's"
    )


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


def remembered(**changes: Any) -> str:
    """What the split below remembers, but for what somebody changed in it."""
    usual = {"rule": 0, "backends": ["shop:80", "search:80"], "weights": [2, 6], "ours": [150, 600]}
    return json.dumps({"shop-canary": [usual | changes]}, separators=(",", ":"))


GARBLED = {
    "nothing": "",
    "no json": "not json",
    "a list": "[]",
    "a number": "7",
    "null": "null",
    "no list of rules": '{"shop-canary":1}',
    "null for a list": '{"shop-canary":null}',
    "a rule without fields": '{"shop-canary":[{"rule":0}]}',
    "deeper than anybody reads": "[" * 120_000,
    "objects deeper than anybody reads": '{"shop-canary":' * 60_000,
    "a number of 5,000 digits": '{"shop-canary":' + "9" * 5_000 + "}",
    "half a character": '{"shop-canary":"\\ud800"}',
    "truth for a weight": remembered(weights=[True, 6]),
    "no number for a weight": remembered(weights=[float("nan"), 6]),
    "a weight below 0": remembered(weights=[-1, 6]),
    "a weight above a million": remembered(weights=[10**9, 6]),
    "a weight in text": remembered(weights=["2", 6]),
    "a fraction for what was ours": remembered(ours=[150.0, 600]),
    "nothing for what was ours": remembered(ours=[None, None]),
    "truth for a rule": remembered(rule=False),
    "text for a rule": remembered(rule="0"),
    "backends that are none": remembered(backends=[{}, []]),
    "more weights than backends": remembered(weights=[2, 6, 1]),
    "a field of somebody else": remembered(note="x" * 1_000),
}


@pytest.mark.parametrize("garbled", GARBLED.values(), ids=GARBLED.keys())
def test_a_lost_memory_costs_the_scale_but_not_the_ratio_and_no_way_back(garbled: str) -> None:
    now = split(route(rule(backend("shop", 2), backend("search", 6))), 25)
    assert now["metadata"]["annotations"][ORIGINAL_WEIGHTS] == remembered()
    now["metadata"]["annotations"][ORIGINAL_WEIGHTS] = garbled

    assert weights(split(now, 0, epoch="1.1")) == {"shop": 1, "shop-canary": 0, "search": 3}
    assert weights(removed(now)) == {"shop": 1, "search": 3}


FALLBACK = backend("fallback", 50)
BY_HEADER = {"matches": [{"headers": [{"name": "x-canary", "value": "true"}]}]}


@pytest.mark.parametrize(
    ("edited", "left"),
    [
        pytest.param([backend("shop-canary", 50)], [backend(weight=None)], id="stable's line taken out"),
        pytest.param(
            [FALLBACK, backend("shop-canary", 50)], [FALLBACK | {"weight": 1}, backend()],
            id="another Service in stable's place",
        ),
        pytest.param(
            [backend(port=8443, weight=50), backend("shop-canary", 50)], [backend(port=8443)],
            id="another port on stable's line",
        ),
        pytest.param(
            [backend(weight=50), backend("shop-canary", 50), backend("shop-canary", 30)], [backend(weight=None)],
            id="our line twice",
        ),
        pytest.param(
            [backend(weight=50), backend("shop-canary", 50, namespace="town")], [backend(weight=None)],
            id="our line with the route's own namespace",
        ),
        pytest.param(
            [backend("shop-canary", 50, port=8080)], [backend(weight=None)], id="our line alone, on another port"
        ),
        pytest.param(
            [FALLBACK, backend("shop-canary", 0)], [FALLBACK | {"weight": 1}], id="replaced, and nothing on our line"
        ),
        pytest.param([backend("shop-canary", 0)], [backend(weight=None)], id="nothing on our line, and no other"),
    ],
)  # fmt: skip
def test_whatever_was_made_of_a_split_rule_by_hand_our_part_of_it_goes_back_to_stable(
    edited: list[dict[str, Any]], left: list[dict[str, Any]]
) -> None:
    names = Names("shop", 80, "shop-canary", namespace="town")
    now = split(route(rule(backend(weight=None))), 50, names=names)
    now["spec"]["rules"][0]["backendRefs"] = edited

    relieved = split(now, 0, epoch="1.1", names=names)

    assert parse_percent(relieved, names) == 0
    for body in (now, relieved):
        assert removed(body, names)["spec"]["rules"] == [rule(*left)]
        assert "annotations" not in removed(body, names)["metadata"]


def test_a_rule_that_names_the_canary_alone_counts_whole_is_lowered_like_any_other_and_ends_at_stable() -> None:
    """Somebody lets testers in by a header. It reads as traffic, and is not left to a Service that is deleted."""
    testers = rule(backend("shop-canary"), **BY_HEADER)
    now = split(route(rule()), 5)
    now["spec"]["rules"].insert(0, testers)

    lowered = split(now, 5)

    assert (parse_percent(now, NAMES), parse_percent(lowered, NAMES)) == (100, 5)
    assert weights(lowered) == weights(lowered, 1) == {"shop": 95, "shop-canary": 5}
    assert removed(lowered)["spec"]["rules"] == removed(now)["spec"]["rules"] == [rule(**BY_HEADER), rule()]


def test_others_in_a_rule_keep_their_share_where_stables_line_was_taken_out() -> None:
    before = route(rule(backend("shop", 3), backend("search", 1)))
    now = split(before, 50)
    del now["spec"]["rules"][0]["backendRefs"][0]

    assert weights(split(now, 0, epoch="1.1")) == {"shop": 3, "shop-canary": 0, "search": 1}
    assert removed(now) == before


def test_copies_of_requests_go_to_a_canary_no_longer_than_it_is_there() -> None:
    headers = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["x-debug"]}}
    mirrored = rule(backend(filters=[mirror()]), filters=[headers, mirror(), mirror("shadow")])
    body = route(mirrored, rule(backend("search"), filters=[mirror()], path="/search"))

    left = removed(body)

    assert (is_named(body, NAMES), is_named(left, NAMES)) == (True, False)
    assert left["spec"]["rules"] == [
        rule(filters=[headers, mirror("shadow")]), rule(backend("search"), path="/search")
    ]  # fmt: skip
    assert split(split(body, 5), 0, epoch="1.1")["spec"]["rules"][1] == left["spec"]["rules"][1]


lines = st.builds(
    lambda name, weight, port, more: backend(name, weight, port, **more),
    st.sampled_from(["shop", "shop", "shop-canary", "shop-canary", "shop-baseline", "search", "fallback"]),
    optional_weights,
    st.sampled_from([80, 80, 80, 8443]),
    st.sampled_from([{}, {}, {"namespace": "town"}, {"namespace": "elsewhere"}, {"filters": [mirror()]}]),
)
by_hand = st.lists(lines, max_size=4)


@given(
    own=st.lists(st.lists(lines.filter(lambda line: line["name"] in {"shop", "search"}), max_size=3), max_size=3),
    percents=st.lists(st.integers(0, 10_000).map(lambda h: h / 100), max_size=3),
    edits=st.lists(st.tuples(st.integers(0, 4), by_hand, st.booleans()), max_size=3),
    forgotten=st.booleans(),
    fresh=st.booleans(),
)
def test_after_the_way_out_no_rule_names_ours_and_stable_serves_where_it_or_we_did(
    own: list[list[dict[str, Any]]],
    percents: list[float],
    edits: list[tuple[int, list[dict[str, Any]], bool]],
    forgotten: bool,
    fresh: bool,
) -> None:
    """Whatever was split, and whatever people then made of the rules by hand."""
    names = Names("shop", 80, "shop-canary", "shop-baseline" if fresh else "", "town")
    now = route()
    now["spec"]["rules"] = [rule() | {"backendRefs": backends} for backends in own]
    for percent in percents:
        with suppress(NeedsUser):
            now = split(now, percent, names=names)
    owned = removed(now, names)["spec"]["rules"]
    for at, backends, added in edits:
        now["spec"]["rules"][at : at if added else at + 1] = [rule() | {"backendRefs": backends}]
    if forgotten:
        now["metadata"].get("annotations", {}).pop(ORIGINAL_WEIGHTS, None)

    relieved = split(now, 0, epoch="1.9", names=names)

    assert (parse_percent(relieved, names), parse_epoch(relieved, names)) == (0, "1.9")
    for left in (removed(now, names), removed(relieved, names)):
        assert not is_named(left, names)
        assert "annotations" not in left["metadata"]
        for was, after in zip(now["spec"]["rules"], left["spec"]["rules"], strict=True):
            served = sum(
                one.get("weight", 1) for one in was["backendRefs"] if names.is_stable(one) or names.is_ours(one)
            )
            answers = [one for one in after["backendRefs"] if names.is_stable_service(one) and one.get("weight", 1)]
            assert answers or not served or after in owned
            others = [one for one in was["backendRefs"] if not names.is_ours(one) and not names.is_stable(one)]
            kept = [one for one in after["backendRefs"] if not names.is_ours(one) and not names.is_stable(one)]
            assert [(one["name"], one["port"]) for one in kept] == [(one["name"], one["port"]) for one in others]
            if not any(names.is_stable(one) or names.is_ours(one) for one in was["backendRefs"]):
                assert after["backendRefs"] == [
                    {key: value for key, value in one.items() if key != "filters"} for one in was["backendRefs"]
                ]


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
    "junk",
    ["shop-canary=²", "shop-canary=٣.1", "shop-canary=" + "9" * 5_000 + ".1", "shop-canary=-1.0", "shop-canary=nan",
     "shop-canary=7", "shop-canary=7.", "shop-canary=7.1.1", "shop-canary=99999999999.0", "shop-canary==", "=,=", "\n"],
)  # fmt: skip
def test_a_stamp_that_no_leader_writes_is_overwritten_like_none(junk: str) -> None:
    now = split(route(), 50)
    now["metadata"]["annotations"][EPOCH] = junk

    back = split(now, 0, epoch="1.1")

    assert (weights(back), parse_epoch(back, NAMES)) == ({"shop": 100, "shop-canary": 0}, "1.1")
    assert removed(now)["spec"] == route()["spec"]


@pytest.mark.parametrize(
    ("stored", "epoch", "was"),
    [
        pytest.param("2.0", "1.5", "1.5", id="a newer leader wrote"),
        pytest.param("1.2", "1.1", "1.1", id="a retreat came between"),
        pytest.param("", "1.1", "1.0", id="the stamp is gone"),
    ],
)
def test_an_epoch_that_moved_on_refuses_the_write(stored: str, epoch: str, was: str) -> None:
    now = split(route(), 5, epoch=stored) if stored else route()

    with pytest.raises(Conflict):
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
