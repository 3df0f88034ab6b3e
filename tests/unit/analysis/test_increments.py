"""The pitfalls of Prometheus data, one test each."""

from __future__ import annotations

import math

import pytest

from controller.analysis.increments import (
    Arms,
    ArmSamples,
    Counts,
    Cursor,
    Interval,
    NoData,
    Sample,
    Scrape,
    difference,
)


def counter(*points: tuple[float, float], series: str = "requests", target: str = "") -> list[Sample]:
    return [Sample(series, t, value, target) for t, value in points]


STABLE = ArmSamples(counter((0, 1000), (5, 1100), (10, 1200), (15, 1300)), counter((0, 10), (15, 10), series="5xx"))


def seen(canary: ArmSamples, baseline: ArmSamples = STABLE) -> Scrape:
    return Scrape({"errors": (canary, baseline)}, canary_pods=1, baseline_pods=20, age=15.0)


def counted(*scrapes: Scrape, since: float = 0.0) -> list[Interval]:
    """The intervals that come out of these looks at the source, one after another."""
    cursor, intervals = Cursor(since=since), []
    for scrape in scrapes:
        cursor, found = difference(cursor, scrape)
        if isinstance(found, Interval):
            intervals.append(found)
    return intervals


def total(intervals: list[Interval]) -> Arms:
    return sum((one.metrics["errors"] for one in intervals), Arms())


def test_a_canarys_first_counters_and_first_errors_count_from_zero() -> None:
    canary = ArmSamples(counter((5, 40), (10, 90)), counter((10, 7), series="5xx"))

    assert total(counted(seen(canary))).canary == Counts(90, 7)


def test_the_baselines_past_is_not_counted() -> None:
    assert total(counted(seen(ArmSamples(counter((15, 5)))))).baseline == Counts(300, 0)


def test_reading_the_same_samples_again_counts_them_once() -> None:
    early = seen(ArmSamples(counter((5, 40))))
    late = seen(ArmSamples(counter((5, 40), (10, 90))), ArmSamples(counter((0, 1000), (15, 1300), (20, 1400))))

    both = counted(early, late, late, early)

    assert [(one.start, one.end) for one in both] == [(0.0, 5.0), (5.0, 10.0)]
    assert total(both) == Arms(Counts(90), Counts(400))


def test_looking_often_or_once_counts_the_same() -> None:
    canary = [(5.0, 40.0), (10.0, 90.0), (15.0, 120.0)]
    stable = [(0.0, 1000.0), (5.0, 1100.0), (10.0, 1200.0), (15.0, 1300.0)]
    looks = [seen(ArmSamples(counter(*canary[:n])), ArmSamples(counter(*stable[: n + 1]))) for n in (1, 2, 3)]

    assert total(counted(*looks)) == total(counted(looks[-1]))


def test_row_40_a_reset_counts_what_the_new_process_has_counted() -> None:
    canary = ArmSamples(counter((5, 40), (10, 3), (15, 8)))

    assert total(counted(seen(canary))).canary.requests == 48


def test_a_step_back_is_another_replicas_clock_and_not_the_whole_past_counted_again() -> None:
    """Two copies of the metrics server answer in turns, one of them some seconds behind."""
    stable = ArmSamples(counter((0, 1_000_000), (5, 1_000_100), (6, 1_000_060), (10, 1_000_200), (11, 1_000_160)))

    assert total(counted(seen(ArmSamples(counter((5, 40))), stable))).baseline.requests == 200


def test_row_36_two_series_are_never_summed_before_the_difference() -> None:
    restarted = counter((5, 500), (10, 10), series="a") + counter((5, 500), (10, 900), series="b")

    assert total(counted(seen(ArmSamples(restarted)))).canary.requests == 500 + 10 + 500 + 400


def test_an_absent_error_series_is_zero_errors() -> None:
    assert total(counted(seen(ArmSamples(counter((5, 40)))))).canary == Counts(40, 0)


def test_a_baseline_error_series_born_later_counts_from_zero_but_a_newly_found_target_does_not() -> None:
    first = seen(ArmSamples(counter((5, 40))), ArmSamples(counter((0, 1000), (5, 1100))))
    stable = ArmSamples(
        counter((5, 1100), (10, 1200)) + counter((10, 90_000), target="pod-found-late"),
        counter((10, 3), series="503") + counter((10, 700), series="503", target="pod-found-late"),
    )

    assert total(counted(first, seen(ArmSamples(counter((10, 80))), stable))).baseline == Counts(200, 3)


def test_a_missed_scrape_of_one_arm_is_made_up_for_by_the_next() -> None:
    def look(canary: list[tuple[float, float]], stable: list[tuple[float, float]]) -> Scrape:
        return seen(ArmSamples(counter(*canary)), ArmSamples(counter(*stable)))

    first = look([(5, 40)], [(0, 1000), (5, 1100)])
    missed = look([(5, 40)], [(5, 1100), (10, 1200)])
    back = look([(5, 40), (15, 130)], [(10, 1200), (15, 1300)])

    intervals = counted(first, missed, back)

    assert [(one.start, one.end) for one in intervals] == [(0.0, 5.0), (5.0, 15.0)]
    assert total(intervals) == Arms(Counts(130), Counts(300))


def test_no_data_on_an_arm_gives_no_interval_and_says_which() -> None:
    _, no_canary = difference(Cursor(0.0), seen(ArmSamples([])))
    _, no_baseline = difference(Cursor(0.0), seen(ArmSamples(counter((5, 40))), ArmSamples([])))

    assert (no_canary, no_baseline) == (NoData("NoCanaryData"), NoData("NoBaselineData"))


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_a_value_that_is_no_count_is_no_data(value: float) -> None:
    canary = ArmSamples(counter((5, 40), (10, value), (15, 60)))

    assert total(counted(seen(canary))).canary.requests == 60
    assert isinstance(difference(Cursor(0.0), seen(ArmSamples(counter((5, value)))))[1], NoData)


def test_duplicates_and_late_arrivals_are_ignored() -> None:
    canary = ArmSamples(counter((10, 90), (5, 40), (10, 90), (5, 40)))

    assert total(counted(seen(canary), seen(ArmSamples(counter((7, 60), (10, 90), (15, 95))), _later()))) == Arms(
        Counts(95), Counts(400)
    )


def _later() -> ArmSamples:
    return ArmSamples(counter((15, 1300), (20, 1400)))


def test_what_an_earlier_rollout_left_in_the_counters_is_not_held_against_this_one() -> None:
    canary = ArmSamples(counter((90, 5000), (105, 5040)), counter((90, 400), (105, 400), series="5xx"))
    stable = ArmSamples(counter((90, 1000), (105, 1500)))

    assert total(counted(seen(canary, stable), since=100.0)).canary == Counts(40, 0)


def test_starting_again_at_a_checkpoint_counts_neither_twice_nor_not_at_all() -> None:
    canary = ArmSamples(counter((5, 40), (10, 90), (15, 120)))
    before = total(counted(seen(ArmSamples(counter((5, 40), (10, 90))), ArmSamples(counter((0, 1000), (10, 1200))))))
    after = total(counted(seen(canary), since=10.0))

    assert before + after == Arms(Counts(120), Counts(300))


def test_row_44_arms_that_read_the_same_series_are_found_out() -> None:
    assert difference(Cursor(0.0), seen(STABLE, STABLE))[1] == NoData("ArmsReadSameSeries")


def test_slow_requests_are_all_that_are_not_in_the_bucket() -> None:
    slow = ArmSamples(counter((5, 40), (10, 90)), good=counter((5, 38), (10, 80), series="le=0.25"))

    assert total(counted(seen(slow))).canary == Counts(90, 10)


def test_a_histogram_without_its_bucket_is_no_data_rather_than_all_slow() -> None:
    assert difference(Cursor(0.0), seen(ArmSamples(counter((5, 40)), good=[])))[1] == NoData("NoCanaryData")


def test_one_metric_without_data_does_not_hide_the_other() -> None:
    scrape = Scrape(
        {"errors": (ArmSamples(counter((5, 40))), STABLE), "latency": (ArmSamples([]), STABLE)}, canary_pods=1
    )

    _, found = difference(Cursor(0.0), scrape)

    assert isinstance(found, Interval)
    assert list(found.metrics) == ["errors"]


def test_requests_slower_than_each_bound_are_counted_as_the_others_are_resets_included() -> None:
    def arm(*reset: tuple[float, float]) -> ArmSamples:
        bounds = tuple(counter((0, 0), (5, slow), *reset, series="h") for slow in (40.0, 10.0))
        return ArmSamples(counter((0, 0), (5, 100), *reset, series="h"), bounds[1], slower=bounds)

    stable = ArmSamples(
        counter((0, 900), (5, 1000), series="s"),
        slower=(counter((0, 90), (5, 120), series="s"), counter((0, 9), (5, 12), series="s")),
    )

    _, once = difference(Cursor(since=0.0), Scrape({"latency": (arm(), stable)}))
    _, restarted = difference(Cursor(since=0.0), Scrape({"latency": (arm((6, 7)), stable)}))

    assert isinstance(once, Interval)
    assert (once.slower["latency"].canary, once.slower["latency"].baseline) == ((40.0, 10.0), (30.0, 3.0))
    assert isinstance(restarted, Interval)
    assert restarted.slower["latency"].canary == (47.0, 17.0)
