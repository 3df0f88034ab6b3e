"""Gauges advise after five minutes without a break, and never more than that."""

from __future__ import annotations

import math

from controller.analysis.gauges import GaugeState, advice, watch


def watched(*readings: tuple[float, float, float]) -> GaugeState:
    """Readings as (seconds, canary, baseline), of one pod on each arm."""
    state = GaugeState()
    for at, canary, baseline in readings:
        state = watch(state, {"canary-a": canary}, {"stable-a": baseline}, now=at)
    return state


def test_a_leak_is_told_after_five_minutes_and_not_before() -> None:
    assert advice("memory", watched((0, 1.3, 1.0), (295, 1.4, 1.0))) == ""
    assert "1.40 times" in advice("memory", watched((0, 1.3, 1.0), (300, 1.4, 1.0)))


def test_one_good_reading_begins_the_five_minutes_anew() -> None:
    assert advice("memory", watched((0, 1.3, 1.0), (200, 1.1, 1.0), (210, 1.3, 1.0), (400, 1.3, 1.0))) == ""


def test_a_higher_level_of_both_arms_is_no_news() -> None:
    assert advice("memory", watched((0, 3.0, 2.9), (600, 3.0, 2.9))) == ""


def test_no_data_and_nonsense_change_nothing() -> None:
    before = watched((0, 1.3, 1.0))

    assert watch(before, {}, {"stable-a": 1.0}, now=300.0) == before
    assert watch(before, {"canary-a": math.nan}, {"stable-a": 1.0}, now=300.0) == before
    assert watch(before, {"canary-a": 9.0}, {"stable-a": 1.0}, now=0.0) == before
