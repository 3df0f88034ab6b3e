"""What the judge says, and when it may not say anything."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import numpy as np
import pytest

from controller.analysis.increments import Arms, Counts, Interval
from controller.analysis.judge import (
    Finding,
    JudgeState,
    MetricSettings,
    Settings,
    Verdict,
    dump_state,
    judge,
    learn_noise,
    load_state,
    look,
    returned,
    step_began,
)

SETTINGS = Settings()
GOOD = Arms(Counts(50, 0), Counts(950, 1))
BAD = Arms(Counts(50, 25), Counts(950, 1))
TWO = Settings(metrics={"errors": MetricSettings(), "latency": MetricSettings(kind="latency", margin=0.01)})


def played(*arms: Arms, settings: Settings = SETTINGS, state: JudgeState | None = None) -> tuple[JudgeState, Finding]:
    """The judge after these intervals of five seconds each, pods long warm."""
    state = state or JudgeState()
    finding = look(state, settings, now=0.0)
    for one in arms:
        start = max(state.through, 0.0)
        interval = Interval(start, start + 5.0, dict.fromkeys(settings.metrics, one), 1, 20, age=600.0)
        state, finding = judge(state, interval, settings)
    return state, finding


def test_a_healthy_canary_passes_once_its_floor_is_met() -> None:
    _, early = played(GOOD)
    _, later = played(GOOD, GOOD)

    assert (early.verdict, early.reason) == (Verdict.INCONCLUSIVE, "TooFewRequests")
    assert early.would_change == "needs 100 canary requests here, has 50"
    assert (later.verdict, later.tripped) == (Verdict.PASS, False)


def test_half_of_the_requests_failing_trips_at_the_first_scrape() -> None:
    _, finding = played(GOOD, GOOD, BAD)

    assert finding.tripped
    assert finding.reason == "ErrorsTripped"
    assert finding.verdict is Verdict.INCONCLUSIVE


def test_a_trip_is_told_once_and_counted() -> None:
    tripped, _ = played(BAD)

    assert tripped.trips == 1
    assert not look(tripped, SETTINGS, now=5.0).tripped


def test_the_evidence_outlives_the_rest_but_the_alarm_does_not() -> None:
    tripped, _ = played(BAD, BAD)
    back = returned(tripped)

    assert look(back, SETTINGS, now=10.0).evidence == look(tripped, SETTINGS, now=10.0).evidence > 0
    assert look(back, SETTINGS, now=10.0).alarm == pytest.approx(0.0)
    assert back.metrics["errors"].step == Arms()


def test_a_fault_that_stays_is_convicted_and_named_with_its_numbers() -> None:
    _, finding = played(*[BAD] * 20)

    assert (finding.verdict, finding.reason, finding.metric) == (Verdict.FAIL, "ErrorsRegressed", "errors")
    assert finding.effect == pytest.approx(0.5 - 1 / 950)
    assert finding.evidence >= finding.threshold


def test_a_suspicion_at_the_end_of_a_step_is_no_pass() -> None:
    state, _ = played(*[GOOD] * 10)

    _, finding = played(Arms(Counts(50, 3), Counts(950, 1)), state=state)

    assert (finding.verdict, finding.reason) == (Verdict.INCONCLUSIVE, "Suspicious")


def test_innocent_requests_clear_a_suspicion() -> None:
    state, _ = played(*[GOOD] * 10, Arms(Counts(50, 3), Counts(950, 1)))

    _, finding = played(*[GOOD] * 40, state=state)

    assert finding.verdict is Verdict.PASS


def test_old_data_is_never_a_pass_and_never_a_fail() -> None:
    state, finding = played(*[GOOD] * 10)

    assert finding.verdict is Verdict.PASS
    assert look(state, SETTINGS, now=state.through + 15.0).verdict is Verdict.PASS
    stale = look(state, SETTINGS, now=state.through + 16.0, no_data="MetricsUnavailable")
    assert (stale.verdict, stale.reason) == (Verdict.INCONCLUSIVE, "MetricsUnavailable")


def test_one_metric_without_data_holds_all() -> None:
    state, _ = played(*[GOOD] * 10)

    finding = look(state, TWO, now=state.through)

    assert (finding.verdict, finding.reason) == (Verdict.INCONCLUSIVE, "NoData")
    assert "latency" in finding.would_change


def test_an_interval_that_was_judged_before_changes_nothing() -> None:
    state, _ = played(GOOD, GOOD, GOOD)

    again, _ = judge(state, Interval(5.0, 10.0, {"errors": BAD}, 1, 20), SETTINGS)

    assert again == state


def test_a_resting_canary_neither_gains_nor_loses_by_its_baseline() -> None:
    state, before = played(*[GOOD] * 10)

    _, after = played(*[Arms(Counts(0, 0), Counts(950, 40))] * 5, state=state)

    assert after.alarm == before.alarm


def test_numbers_that_cannot_be_counts_are_no_data() -> None:
    state, _ = played(*[GOOD] * 3)
    nonsense = Arms(Counts(float("nan"), 0), Counts(950, -1))

    after, _ = judge(state, Interval(15.0, 20.0, {"errors": nonsense}), SETTINGS)

    assert after.metrics["errors"].through == state.metrics["errors"].through


def test_without_baseline_traffic_nothing_passes() -> None:
    _, finding = played(*[Arms(Counts(200, 0), Counts(0, 0))] * 5)

    assert (finding.verdict, finding.reason) == (Verdict.INCONCLUSIVE, "NoBaselineTraffic")


def test_of_several_metrics_the_one_that_convicts_is_named() -> None:
    state = JudgeState()
    for tick in range(40):
        both = {"errors": GOOD, "latency": Arms(Counts(200, 60), Counts(3800, 20))}
        state, finding = judge(state, Interval(tick * 5.0, tick * 5.0 + 5, both, 1, 20, age=600.0), TWO)

    assert (finding.verdict, finding.metric, finding.reason) == (Verdict.FAIL, "latency", "LatencyRegressed")


def test_more_metrics_ask_more_of_each() -> None:
    alone, _ = played(*[Arms(Counts(50, 1), Counts(950, 1))] * 20)
    assert TWO.trip > SETTINGS.trip
    assert look(alone, TWO, now=100.0).evidence < look(alone, SETTINGS, now=100.0).evidence


def test_the_effect_comes_with_an_interval_around_it() -> None:
    _, finding = played(*[Arms(Counts(500, 10), Counts(9500, 10))] * 20)

    low, high = finding.interval
    assert 0.0 < low < finding.effect < high <= 0.05


def test_changing_weights_cannot_turn_the_effect_around() -> None:
    quiet_hour, busy_hour = Arms(Counts(900, 9), Counts(100, 1)), Arms(Counts(100, 10), Counts(900, 90))

    _, finding = played(quiet_hour, busy_hour)

    assert finding.effect == pytest.approx(0.0)


def test_two_hours_of_pods_teach_the_noise_and_less_does_not() -> None:
    requests, errors = np.full((24, 4), 1000.0), np.tile([20.0, 0.0, 0.0, 20.0], (24, 1))

    assert learn_noise(JudgeState(), requests, errors).noise == pytest.approx(277.5)
    assert learn_noise(JudgeState(), requests[:23], errors[:23]).noise is None


def test_a_fault_that_returns_on_fresh_pods_is_convicted_at_once() -> None:
    tripped, _ = played(BAD)

    _, same_pods = played(BAD, state=returned(tripped))
    _, fresh_pods = played(BAD, state=returned(tripped, fresh=True, tripped_at_age=600.0))

    assert same_pods.verdict is Verdict.INCONCLUSIVE
    assert fresh_pods.verdict is Verdict.FAIL


def test_a_confirmation_under_way_survives_json() -> None:
    tripped, _ = played(BAD)
    state, _ = played(GOOD, GOOD, state=returned(tripped, fresh=True, tripped_at_age=600.0))

    back = load_state(json.loads(json.dumps(dump_state(state))))

    assert played(BAD, state=back)[1].verdict is played(BAD, state=state)[1].verdict is Verdict.FAIL
    assert len(json.dumps(dump_state(state))) < 4096


def test_a_new_step_counts_its_floor_anew_and_keeps_the_evidence() -> None:
    state, before = played(*[GOOD] * 10)
    after = look(step_began(state), SETTINGS, now=state.through)

    assert after.reason == "TooFewRequests"
    assert after.evidence == before.evidence


def test_the_state_survives_json_and_goes_on_the_same() -> None:
    state, _ = played(*[GOOD] * 30, settings=TWO)
    text = json.dumps(dump_state(state))
    back = load_state(json.loads(text))

    _, here = played(BAD, GOOD, state=state, settings=TWO)
    _, there = played(BAD, GOOD, state=back, settings=TWO)

    assert len(text) < 4096
    assert there.evidence == pytest.approx(here.evidence, abs=1e-4)
    assert (there.verdict, there.reason, there.canary) == (here.verdict, here.reason, here.canary)
    assert load_state({}) == JudgeState()


def test_one_scrape_costs_no_more_than_a_few_hundred_small_array_operations() -> None:
    """100 microseconds where one such operation takes 0.5: a ratio, because other tests share the machine."""
    few = np.linspace(0.0, 1.0, 24)

    def seconds(work: Callable[[], object], times: int) -> float:
        began = time.process_time()
        work()
        return (time.process_time() - began) / times

    ratios = [
        seconds(lambda: played(*[GOOD] * 200), 200)
        / seconds(lambda: [np.logaddexp(few, few) for _ in range(2000)], 2000)
        for _ in range(8)
    ]

    assert min(ratios) < 250
