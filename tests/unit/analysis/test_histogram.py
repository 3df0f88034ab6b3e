"""Latency as counts: bounds that both arms have, histograms that are none, native ones made classic."""

from __future__ import annotations

import math

import pytest

from controller.analysis.histogram import (
    Native,
    choose_bounds,
    native_bounds,
    parse_bounds,
    parse_exponential,
    slower_than,
)

PAST = {0.05: 400.0, 0.1: 800.0, 0.25: 985.0, 0.5: 999.0, 5.0: 1000.0, math.inf: 1000.0}


def test_only_bounds_that_both_versions_have_are_compared() -> None:
    other = {0.05: 1.0, 0.2: 2.0, 0.25: 3.0, math.inf: 4.0}

    assert choose_bounds(PAST, other) == (0.05, 0.25)


def test_a_bound_that_nearly_all_or_nearly_none_exceed_shows_nothing() -> None:
    lopsided = {0.01: 100.0, 0.1: 999.5, math.inf: 1000.0}

    assert choose_bounds(lopsided, lopsided) == ()
    assert choose_bounds({math.inf: 0.0}, PAST) == ()


@pytest.mark.parametrize(
    "buckets",
    [
        pytest.param({"0.1": 900, "+Inf": 812}, id="falls as the bound rises"),
        pytest.param({"0.1": 900}, id="without the last bucket"),
        pytest.param({"fast": 1, "+Inf": 2}, id="a bound that is no number"),
        pytest.param({"0.1": math.nan, "+Inf": 2}, id="a count that is no number"),
        pytest.param({"0.1": -1, "+Inf": 2}, id="a count below zero"),
    ],
)
def test_what_cannot_be_a_histogram_is_no_data(buckets: dict[str, float]) -> None:
    assert parse_bounds(buckets) == {}


def test_native_histograms_of_different_resolution_are_compared_at_the_coarser_one() -> None:
    fine = Native(schema=1, count=10.0, buckets={1: 4.0, 2: 6.0})  # (1, 1.41], (1.41, 2]
    coarse = Native(schema=0, count=20.0, buckets={1: 20.0})  # (1, 2]

    ours, theirs = native_bounds(fine, coarse, shift=0)

    assert ours[2.0] == 10.0
    assert theirs[2.0] == 20.0
    assert ours[1.0] == theirs[1.0] == 0.0


def test_the_margin_of_a_native_histogram_is_a_factor_of_latency() -> None:
    arm = Native(schema=3, count=100.0, buckets=dict.fromkeys(range(10), 10.0))

    ours, theirs = native_bounds(arm, arm)

    bound = 2.0 ** (4 / 8)
    assert theirs[bound] == 50.0
    assert ours[bound] == 60.0, "the canary may be one bucket, nine percent, slower"


def test_the_zero_bucket_is_kept() -> None:
    arm = Native(schema=0, count=30.0, buckets={0: 10.0})

    ours, theirs = native_bounds(arm, arm, shift=0)

    assert ours[0.5] == theirs[0.5] == 20.0
    assert ours[math.inf] == 30.0


def bounds_of(schema: int, index: int) -> tuple[float, float]:
    """As Prometheus writes them: to the last digit of a float."""
    return tuple(float(repr(2.0 ** (one * 2.0**-schema))) for one in (index - 1, index))  # type: ignore[return-value]


@pytest.mark.parametrize("schema", range(-4, 9))
@pytest.mark.parametrize("octave", [-20, -2, 0, 3, 30])
def test_the_resolution_is_read_from_the_bounds_of_any_bucket(schema: int, octave: int) -> None:
    index = math.ceil(octave * 2.0**schema) + 1

    found = parse_exponential(7.0, [(*bounds_of(schema, index), 7.0)])

    assert found == Native(schema=schema, count=7.0, buckets={index: 7.0})


@pytest.mark.parametrize(
    "buckets",
    [
        pytest.param([(0.25, 0.5, 1.0), (0.5, 2.0, 1.0)], id="two resolutions"),
        pytest.param([(0.1, 0.2, 1.0)], id="as wide as an octave, and no power of two"),
        pytest.param([(-math.inf, 0.005, 1.0)], id="the first of custom bounds"),
        pytest.param([(0.0, 0.005, 1.0)], id="from zero on"),
        pytest.param([(2.5, math.inf, 1.0)], id="the last of custom bounds"),
        pytest.param([(0.5, 0.25, 1.0)], id="upside down"),
        pytest.param([(0.25, 0.5, -1.0)], id="a count below zero"),
    ],
)
def test_bounds_that_are_no_powers_of_two_are_not_read_as_such(buckets: list[tuple[float, float, float]]) -> None:
    assert parse_exponential(1.0, buckets) is None


def test_requests_are_counted_above_the_first_bound_that_is_not_below_the_threshold() -> None:
    arm = Native(schema=0, count=9.0, buckets={-2: 1.0, -1: 2.0, 0: 4.0})

    assert slower_than(arm, 0.25, schema=0) == 6.0, "0.25 is a bound: what is above it is slower"
    assert slower_than(arm, 0.26, schema=0) == 4.0, "the next bound above 0.26 is 0.5"
    assert slower_than(arm, 1.0, schema=0) == 0.0


def test_a_finer_histogram_is_counted_at_the_bounds_of_the_coarser() -> None:
    fine = Native(schema=3, count=3.0, buckets={-15: 1.0, -9: 1.0, -8: 1.0})

    assert slower_than(fine, 0.25, schema=0) == 0.0 + slower_than(fine, 0.25, schema=3) == 3.0
    assert slower_than(fine, 0.3, schema=0) == 0.0, "all three lie in the bucket up to 0.5"
    assert slower_than(fine, 0.3, schema=3) == 2.0
