"""Laws of the judge, for every input."""

from __future__ import annotations

import json
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.analysis.evidence import log_e_value
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
from controller.analysis.judge import (
    JudgeState,
    MetricSettings,
    Settings,
    Verdict,
    dump_state,
    judge,
    load_state,
    look,
)

SETTINGS = Settings(metrics={"errors": MetricSettings(), "latency": MetricSettings(kind="latency", margin=0.01)})
ERRORS = Settings()

requests = st.integers(0, 5000)
counts = st.builds(lambda n, share: Counts(n, int(n * share)), requests, st.floats(0, 1))
arms = st.builds(Arms, counts, counts)
wild = st.one_of(st.floats(max_value=1e300), st.just(math.nan), st.just(math.inf), st.integers(-5, 10**12).map(float))
wild_arms = st.builds(Arms, st.builds(Counts, wild, wild), st.builds(Counts, wild, wild))


def play(state: JudgeState, rounds: list[Arms], using: Settings = ERRORS) -> JudgeState:
    for one in rounds:
        start = max(state.through, 0.0)
        state, _ = judge(state, Interval(start, start + 5, dict.fromkeys(using.metrics, one), 1, 20), using)
    return state


@given(st.lists(st.one_of(arms, wild_arms), max_size=12))
def test_whatever_arrives_the_numbers_of_a_finding_stay_finite(rounds: list[Arms]) -> None:
    state = play(JudgeState(), rounds)
    finding = look(state, ERRORS, now=100.0)

    assert all(math.isfinite(number) for number in (finding.evidence, finding.alarm, finding.effect))


@given(st.lists(arms, min_size=1, max_size=12), st.floats(0, 1e6))
def test_the_absence_of_data_never_fails_nor_trips_what_had_not_failed(rounds: list[Arms], later: float) -> None:
    state = play(JudgeState(), rounds)
    before = look(state, ERRORS, now=state.through)
    after = look(state, ERRORS, now=state.through + later)

    assert after.verdict is not Verdict.FAIL or before.verdict is Verdict.FAIL
    assert not after.tripped
    if later > 15.0:
        assert after.verdict is not Verdict.PASS


@given(st.lists(arms, max_size=8), counts, counts, st.data())
def test_one_more_bad_canary_request_never_lowers_the_evidence(
    rounds: list[Arms], canary: Counts, baseline: Counts, data: st.DataObject
) -> None:
    worse = Counts(canary.requests, data.draw(st.integers(int(canary.errors), int(canary.requests))))
    before = play(JudgeState(), rounds)

    mild = look(play(before, [Arms(canary, baseline)]), ERRORS, now=0.0)
    bad = look(play(before, [Arms(worse, baseline)]), ERRORS, now=0.0)

    assert bad.evidence >= mild.evidence - 1e-9


@given(st.lists(arms, max_size=8), counts, counts, st.data())
def test_one_more_bad_baseline_request_never_raises_the_evidence(
    rounds: list[Arms], canary: Counts, baseline: Counts, data: st.DataObject
) -> None:
    worse = Counts(baseline.requests, data.draw(st.integers(int(baseline.errors), int(baseline.requests))))
    before = play(JudgeState(), rounds)

    mild = look(play(before, [Arms(canary, baseline)]), ERRORS, now=0.0)
    bad = look(play(before, [Arms(canary, worse)]), ERRORS, now=0.0)

    assert bad.evidence <= mild.evidence + 1e-9


@given(st.lists(arms, max_size=10), st.lists(arms, max_size=5))
def test_the_state_goes_on_the_same_after_json(before: list[Arms], after: list[Arms]) -> None:
    state = play(JudgeState(), before, SETTINGS)
    text = json.dumps(dump_state(state), allow_nan=False)

    here = look(play(state, after, SETTINGS), SETTINGS, now=0.0)
    there = look(play(load_state(json.loads(text), SETTINGS), after, SETTINGS), SETTINGS, now=0.0)

    assert len(text) < 4096
    assert abs(here.evidence - there.evidence) < 0.05 + 0.01 * abs(here.evidence)
    assert here.canary == there.canary


@given(
    st.integers(0, 200), st.floats(0, 1), st.integers(1, 2000), st.floats(0, 1), st.integers(1, 5),
    st.floats(1.01, 400), st.floats(0.5, 10), st.floats(0, 0.05),
)  # fmt: skip
def test_looking_more_often_at_a_steady_split_changes_nothing(
    n_c: int, c: float, n_b: int, b: float, looks: int, r: float, rho: float, delta: float
) -> None:
    e_c, e_b = int(n_c * c), int(n_b * b)
    many = looks * log_e_value(n_c, e_c, n_b, e_b, r=r, rho=rho, delta=delta)
    once = log_e_value(looks * n_c, looks * e_c, looks * n_b, looks * e_b, r=r, rho=rho, delta=delta)

    assert np.isclose(many, once, rtol=1e-9, atol=1e-9)


samples = st.lists(
    st.builds(Sample, st.sampled_from(["a", "b"]), st.integers(-3, 40).map(float), st.one_of(wild, st.floats(0, 1e6))),
    max_size=15,
)
arm_samples = st.builds(ArmSamples, samples, samples)


@settings(max_examples=200)
@given(st.lists(st.tuples(arm_samples, arm_samples), max_size=5))
def test_increases_are_counts_and_intervals_never_overlap(looks: list[tuple[ArmSamples, ArmSamples]]) -> None:
    cursor, end = Cursor(since=0.0), 0.0
    for canary, baseline in looks:
        cursor, found = difference(cursor, Scrape({"errors": (canary, baseline)}))
        if isinstance(found, NoData):
            continue
        assert found.start >= end or found.start == 0.0
        assert found.end > found.start
        end = found.end
        for one in (found.metrics["errors"].canary, found.metrics["errors"].baseline):
            assert 0 <= one.errors <= one.requests
            assert math.isfinite(one.requests)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20), st.data())
def test_however_the_looks_fall_each_request_is_counted_once(steps: list[int], data: st.DataObject) -> None:
    points = [Sample("n", float(i + 1), float(sum(steps[: i + 1]))) for i in range(len(steps))]
    stable = [Sample("m", float(i), 10.0 * i) for i in range(len(steps) + 1)]
    ends = [*sorted(data.draw(st.sets(st.integers(1, len(steps))))), len(steps)]

    cursor, counted = Cursor(since=0.0), Arms()
    for end in ends:
        cursor, found = difference(
            cursor, Scrape({"errors": (ArmSamples(points[:end]), ArmSamples(stable[: end + 1]))})
        )
        if isinstance(found, Interval):
            counted += found.metrics["errors"]

    assert counted == Arms(Counts(sum(steps)), Counts(10.0 * len(steps)))
