"""Latency as counts: bounds that both arms have, histograms that are none, native ones made classic."""

from __future__ import annotations

import math

import pytest

from controller.analysis.histogram import Native, choose_bounds, native_bounds, parse_bounds

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
