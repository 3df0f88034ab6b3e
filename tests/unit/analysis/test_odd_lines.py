"""The program survives anybody's data: what the pages do not describe is held or refused by name, never promoted on."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from controller.analysis import __main__ as program
from controller.analysis.play import Playing

PLAN: dict[str, Any] = {"steps": [{"weight": 5, "bake": 60}, {"weight": 50, "bake": 60}], "onInconclusive": "advance"}


def scrape(t: float, n: float, *, share: float = 0.05, bad: float = 0.0, **more: Any) -> dict[str, Any]:
    """`n` scrapes of 2,000 requests after the start; `bad` is the share of the canary's that failed."""
    canary = {"pods": 1, "age": 600, "requests": round(2000 * share * n), "errors": round(2000 * share * n * bad)}
    baseline = {"pods": 20, "requests": 90_000 + round(2000 * (1 - share) * n), "errors": round(n)}
    return {"rollout": "a", "t": t, "canary": canary, "baseline": baseline} | more


def answered(*lines: Any, plan: dict[str, Any] = PLAN) -> list[dict[str, Any]]:
    """One answer for each line after the plan's."""
    playing: dict[str, Playing] = {}
    texts = [one if isinstance(one, str) else json.dumps(one) for one in ({"rollout": "a", "plan": plan}, *lines)]
    return [program.answer(playing, text) for text in texts][1:]


def reasons(answers: list[dict[str, Any]]) -> list[str]:
    return [f"{one['decision']} {one['reason']}" for one in answers]


def raised(answers: list[dict[str, Any]]) -> list[float]:
    """When it went on to a next step, and when out."""
    out = [one["t"] for one in answers if one["decision"] == "promote"]
    return [one["t"] for one in answers if one["decision"] == "advance"] + out[:1]


# -- clocks -------------------------------------------------------------------------------------------


def test_a_wrong_clock_on_the_first_line_is_corrected_by_three_lines_that_agree() -> None:
    answers = answered(scrape(1e9, 1), *(scrape(5 * n, n) for n in range(2, 40)))

    assert reasons(answers[1:5]) == [
        "continue OutOfOrder",
        "continue OutOfOrder",
        "hold TimeTakenUp",
        "continue Baking",
    ]
    assert [one["t"] for one in answers[1:]] == [5 * n for n in range(2, 40)]
    assert raised(answers) == [80, 140]


def test_a_clock_that_is_set_back_does_not_shorten_a_bake_nor_count_requests() -> None:
    before = [scrape(7200 + 5 * n, n) for n in range(1, 9)]
    after = [scrape(100 + 5 * n, n) for n in range(9, 20)]

    steady = answered(*(scrape(5 * n, n) for n in range(1, 40)))
    answers = answered(*before, *after)

    # Four lines say nothing: three until the clock is believed, and the pause between the two counts as one scrape.
    (baked,) = raised(answers)
    assert (baked - 100) / 5 == raised(steady)[0] / 5 + 2
    uncounted = 2000 * 0.05 * 3
    assert answers[-1]["canary"]["requests"] == 100 * 19 - uncounted


def test_a_clock_that_leaps_ahead_for_good_ends_no_bake() -> None:
    answers = answered(*(scrape(5 * n, n) for n in range(1, 4)), *(scrape(86_400 + 5 * n, n) for n in range(4, 30)))

    assert reasons(answers[3:6]) == ["hold TimeLeapt", "hold TimeTakenUp", "continue Baking"]
    assert raised(answers)[0] >= 86_400 + 5 * (60 / 5)


def test_two_lines_far_ahead_that_agree_are_left_again_by_three_that_do_not() -> None:
    lines = [scrape(5 * n + (1e9 if n in (5, 6) else 0), n) for n in range(1, 40)]

    answers = answered(*lines)

    assert reasons(answers[4:11]) == [
        "hold TimeLeapt",
        "hold TimeTakenUp",
        "continue OutOfOrder",
        "continue OutOfOrder",
        "hold TimeTakenUp",
        "continue Baking",
        "continue Baking",
    ]
    # The five lines in doubt counted as two.
    assert raised(answers)[0] == raised(answered(*(scrape(5 * n, n) for n in range(1, 40))))[0] + 5 * 3


def test_pods_that_are_not_replaced_are_asked_for() -> None:
    answers = answered(*(scrape(5 * n, min(n, 2), bad=0.5) for n in range(1, 20)))

    assert answers[1]["fresh"] is True
    assert {one["decision"] for one in answers[2:]} == {"continue"}
    assert answers[-1]["wouldChange"] == "canary pods that were replaced: their lines carry generation 1"


def test_a_clock_set_back_ends_no_rest() -> None:
    bad = [scrape(5 * n, n, bad=0.5) for n in range(1, 3)]
    resting = [scrape(t, 2, bad=0.5, weight=0) for t in (-1000, -995, -990, -985, -980, -975)]

    answers = answered(*bad, *resting)

    assert answers[1]["decision"] == "retreat"
    assert {one["weight"] for one in answers[1:]} == {0.0}


def test_lines_that_come_late_together_are_not_counted_again() -> None:
    late = [scrape(5 * n, n) for n in range(2, 9)]

    answers = answered(*(scrape(5 * n, n) for n in range(1, 10)), *late, scrape(50, 10))

    assert {one["reason"] for one in answers[9:-1]} == {"OutOfOrder"}
    assert "old one" in answers[12]["wouldChange"]
    assert answers[-1]["canary"]["requests"] == 100 * 10


def test_a_clock_that_stands_still_holds_and_says_so() -> None:
    answers = answered(*(scrape(5, n) for n in range(1, 30)))

    assert reasons(answers[4:]) == ["hold OutOfOrder"] * 25
    assert answers[-1]["wouldChange"] == "t that rises"


def test_a_clock_that_is_set_to_before_the_start_holds_as_any_other() -> None:
    answers = answered(*(scrape(5 * n, n) for n in range(1, 5)), *(scrape(-7100, n) for n in range(5, 12)))

    assert reasons(answers[4:]) == ["continue OutOfOrder"] * 2 + ["hold OutOfOrder"] * 5


def test_a_wrong_clock_in_the_history_costs_no_more_than_three_of_its_lines() -> None:
    def past(t: float, n: int) -> dict[str, Any]:
        return {"rollout": "a", "t": t, "baseline": {"pods": 2, "requests": 1000 * n}}

    answers = answered(past(1e9, 1), *(past(-600 + 60 * n, n) for n in range(2, 9)), scrape(5, 1), scrape(10, 2))

    assert {one["decision"] for one in answers[1:]} == {"continue"}
    assert "reason" not in answers[5]
    assert answers[-1]["reason"] == "Baking"


# -- both arms the same -------------------------------------------------------------------------------


def doubled(n: int, **more: Any) -> dict[str, Any]:
    arm = {"pods": 5, "requests": 1000 * n, "errors": n}
    return {"rollout": "a", "t": 5 * n, "canary": arm | more, "baseline": arm | more}


def test_arms_that_read_the_same_series_are_never_promoted() -> None:
    by_pod = {"x": {"requests": 5, "errors": 0}}

    for more in ({}, {"by_pod": by_pod}):
        answers = answered(*(doubled(n, **more) for n in range(1, 200)))

        assert set(reasons(answers)) == {"hold ArmsReadSameSeries"}
        assert "select by revision" in answers[-1]["wouldChange"]


def test_nobody_comes_back_to_traffic_while_both_arms_read_the_same_series() -> None:
    bad = [scrape(5 * n, n, bad=0.5) for n in range(1, 3)]
    resting = [scrape(5 * n, 2, bad=0.5, generation=1, weight=0) for n in range(3, 20)]
    for line in resting[:-1]:
        line["baseline"] = line["canary"] = {"requests": 5000, "errors": 5}

    answers = answered(*bad, *resting)

    assert set(reasons(answers[2:-1])) == {"hold ArmsReadSameSeries"}
    assert answers[-1]["decision"] == "resume"


def test_once_the_query_is_mended_other_counters_are_no_requests() -> None:
    mended = [scrape(15 + 5 * n, n) for n in range(1, 4)]

    answers = answered(*(doubled(n) for n in range(1, 4)), *mended)

    assert answers[-1]["canary"]["requests"] == 200


def test_time_in_which_both_arms_read_the_same_series_is_no_bake() -> None:
    def blind(n: int) -> dict[str, Any]:
        line = scrape(5 * n, n)
        return line | {"baseline": line["canary"]}

    answers = answered(*(blind(n) if 4 <= n < 24 else scrape(5 * n, n) for n in range(1, 50)))

    assert reasons(answers[8:23]) == ["hold ArmsReadSameSeries"] * 15
    assert raised(answers)[0] == 5 * 24 + 60


def test_arms_whose_pods_have_other_names_may_count_the_same() -> None:
    lines = [doubled(n) for n in range(1, 4)]
    for number, line in enumerate(lines):
        line["canary"] |= {"by_pod": {"x": {"requests": 1000 * number}}}
        line["baseline"] |= {"by_pod": {"y": {"requests": 1000 * number}}}

    assert "ArmsReadSameSeries" not in str(answered(*lines))


def test_a_metric_that_reads_the_same_series_holds_the_others_back_but_convicts_nobody() -> None:
    plan = PLAN | {"metrics": {"errors": {}, "rejected": {"kind": "ratio"}}}
    pair = [{"requests": 1000 * n, "bad": n} for n in range(1, 40)]
    lines = [
        scrape(5 * n, n, metrics={"rejected": {"canary": one, "baseline": one}}) for n, one in enumerate(pair, start=1)
    ]

    assert set(reasons(answered(*lines, plan=plan))) == {"hold ArmsReadSameSeries"}
    bad = [line | {"canary": line["canary"] | {"errors": line["canary"]["requests"] // 2}} for line in lines]
    assert "retreat" in {one["decision"] for one in answered(*bad, plan=plan)}


# -- sums that fall -----------------------------------------------------------------------------------


def test_sums_that_fall_at_each_scrape_hold_and_ask_for_by_pod() -> None:
    lines = [scrape(5 * n, n) for n in range(1, 60)]
    for n, line in enumerate(lines):
        line["baseline"]["requests"] = 10_000_000 - 1000 * n

    answers = answered(*lines)

    assert raised(answers) == []
    assert reasons(answers[5:]) == ["hold CountersFell"] * 54
    assert "the baseline's fell since the last line" in answers[-1]["wouldChange"]
    assert "by_pod" in answers[-1]["wouldChange"]


@pytest.mark.parametrize("pods", [0, 20])
def test_what_is_left_of_a_sum_is_no_request_whether_or_not_pods_are_told(pods: int) -> None:
    lines = [scrape(5 * n, n) for n in range(1, 6)]
    for line in lines:
        line["baseline"]["pods"] = pods
    lines[3]["baseline"]["requests"] -= 40_000
    lines[4]["baseline"]["requests"] -= 40_000

    assert answered(*lines)[-1]["baseline"]["requests"] == 1900 * 3


def test_pods_that_leave_while_others_grow_are_counted_one_by_one_where_they_are_named() -> None:
    lines = [scrape(5 * n, n) for n in range(1, 6)]
    for n, line in enumerate(lines):
        stays, leaves = 50_000 + 5000 * n, 1000
        pods = {"x": {"requests": stays}} | ({"y": {"requests": leaves}} if n < 3 else {})
        line["baseline"] |= {
            "pods": len(pods),
            "requests": sum(one["requests"] for one in pods.values()),
            "by_pod": pods,
        }

    assert answered(*lines)[-1]["baseline"]["requests"] == 5000 * 4


def test_a_pod_that_was_forgotten_and_comes_back_is_no_burst_of_requests() -> None:
    lines: list[dict[str, Any]] = []
    for n in range(1, 300):
        line = scrape(5 * n, n)
        named = {f"pod-{n}": {"requests": 5}, "stays": {"requests": 1900 * n}}
        if n in (1, 299):
            named["returns"] = {"requests": 1_000_000}
        line["baseline"] |= {"by_pod": named, "requests": sum(one["requests"] for one in named.values())}
        lines.append(line)

    long = PLAN | {"steps": [{"weight": 5, "bake": 1e6}]}
    assert answered(*lines, plan=long)[-1]["baseline"]["requests"] < 1910 * 300


def test_a_sum_over_the_revision_that_goes_on_while_pods_are_replaced_is_counted_once() -> None:
    plan = PLAN | {"steps": [{"weight": 5, "bake": 900}]}
    steady = [scrape(5 * n, n, bad=0.001) for n in range(1, 100)]
    replaced = [scrape(5 * n, n, bad=0.001, generation=n // 20, weight=5) for n in range(1, 100)]

    answers = answered(*replaced, plan=plan)

    assert answers[-1]["canary"] == answered(*steady, plan=plan)[-1]["canary"]
    assert not {"NoBaselineTraffic", "ErrorsTripped"} & {one["reason"] for one in answers}


def test_what_new_pods_have_counted_is_counted_from_zero() -> None:
    before = [scrape(5 * n, n) for n in range(1, 11)]
    after = [scrape(5 * n, n, generation=1) for n in range(11, 14)]
    for n, line in enumerate(after, start=1):
        line["canary"] |= {"requests": 120 * n, "errors": 2 * n}

    answers = answered(*before, *after)

    assert answers[-1]["canary"] == {"requests": 1000 + 360, "errors": 6}


def test_what_is_remembered_of_pods_and_generations_is_bounded() -> None:
    playing: dict[str, Playing] = {}
    program.answer(playing, json.dumps({"rollout": "a", "plan": PLAN | {"steps": [{"weight": 5, "bake": 1e6}]}}))

    for n in range(1, 1000):
        line = scrape(5 * n, n, generation=n)
        for arm in ("canary", "baseline"):
            line[arm]["by_pod"] = {f"pod-{n}": {"requests": 5}, f"pod-{n + 1}": {"requests": 2}}
        program.answer(playing, json.dumps(line))

    counters = playing["a"].counters
    assert len(counters.sums) == 2 + 3 * 2
    assert sum(len(one.live) + len(one.gone) for one in counters.pods.values()) < 150


# -- no traffic ---------------------------------------------------------------------------------------


def test_a_weight_that_never_arrives_holds_after_a_minute_and_goes_on_when_it_does() -> None:
    answers = answered(*(scrape(5 * n, n, weight=0 if n < 100 else 5) for n in range(1, 103)))

    assert {one["decision"] for one in answers[:12]} == {"continue"}
    assert set(reasons(answers[13:99])) == {"hold NoCanaryTraffic"}
    assert "its weight was 0 for" in answers[98]["wouldChange"]
    assert answers[-1]["reason"] == "Baking"


def test_no_step_ends_on_a_line_whose_traffic_was_taken_away() -> None:
    answers = answered(*(scrape(5 * n, n, weight=5 if n < 12 or n > 20 else 0) for n in range(1, 30)))

    assert set(reasons(answers[13:19])) == {"hold NoCanaryTraffic"}
    assert raised(answers)[0] > 5 * 20


def test_nothing_is_promoted_without_a_single_request_to_the_canary() -> None:
    plan = PLAN | {"minRequests": 0, "steps": [{"weight": 5, "bake": 0}]}

    answers = answered(*(scrape(5 * n, n, share=0.0) for n in range(1, 100)), plan=plan)

    assert raised(answers) == []
    assert answers[-1]["decision"] == "hold"
    assert "canary requests" in answers[2]["wouldChange"]


# -- histograms ---------------------------------------------------------------------------------------


def classic(n: int, threshold: float) -> list[dict[str, Any]]:
    plan = PLAN | {"metrics": {"errors": {}, "slow": {"kind": "latency", "threshold": threshold}}}
    lines = []
    for k in range(1, n):
        arms = {
            arm: {"buckets": {"0.1": 8 * times * k, "0.25": 9 * times * k, "+Inf": 10 * times * k}}
            for arm, times in (("canary", 10), ("baseline", 190))
        }
        lines.append(scrape(5 * k, k, metrics={"slow": arms}))
    return answered(*lines, plan=plan)


def test_a_threshold_that_is_no_bound_names_the_bounds_there_are_and_the_nearest() -> None:
    answers = classic(30, threshold=0.3)

    assert set(reasons(answers[1:])) == {"hold ThresholdIsNoBound"}
    assert "threshold is 0.3" in answers[-1]["wouldChange"]
    assert "there are 0.1, 0.25; the nearest is 0.25" in answers[-1]["wouldChange"]
    assert raised(classic(30, threshold=0.25)) != []


def test_a_threshold_of_native_histograms_is_the_next_bound_and_said_in_the_settings() -> None:
    plan = PLAN | {"metrics": {"slow": {"kind": "latency", "threshold": 0.3}}}
    lines = []
    for n in range(1, 40):
        arms = {
            arm: {
                "native": {
                    "schema": 3,
                    "count": times * n,
                    "buckets": {"-20": 9 * times * n // 10, "-12": times * n // 10},
                }
            }
            for arm, times in (("canary", 100), ("baseline", 1900))
        }
        lines.append(scrape(5 * n, n, metrics={"slow": arms}))

    answers = answered(*lines, plan=plan)

    assert answers[0]["settings"] == {"metrics": {"slow": {"threshold": pytest.approx(0.3242, abs=1e-4)}}}
    assert raised(answers) != []


@pytest.mark.parametrize(
    ("buckets", "words"),
    [({"0.1": 5}, '"+Inf"'), ({"0.1": 9, "+Inf": 5}, "do not fall"), ({}, "buckets or native")],
)
def test_what_is_no_histogram_says_why(buckets: dict[str, float], words: str) -> None:
    plan = PLAN | {"metrics": {"errors": {}, "slow": {"kind": "latency"}}}
    arms = {"canary": {"buckets": buckets}, "baseline": {"buckets": {"0.1": 9, "+Inf": 10}}}

    answers = answered(*(scrape(5 * n, n, metrics={"slow": arms}) for n in range(1, 5)), plan=plan)

    assert answers[-1]["reason"] == "NoHistogram"
    assert words in answers[-1]["wouldChange"]


# -- what no line may say -----------------------------------------------------------------------------


def metric(**one: Any) -> dict[str, Any]:
    return {"rollout": "b", "plan": PLAN | {"metrics": {"errors": {}, "m": one}}}


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (metric(weight=1e308), "plan.metrics.m.weight"),
        (metric(objective=-0.2), "plan.metrics.m.objective"),
        (metric(objective=5), "plan.metrics.m.objective"),
        (metric(margin="x"), "plan.metrics.m.margin"),
        (metric(kind="latency", threshold=True), "plan.metrics.m.threshold"),
        ({"rollout": "b", "plan": PLAN | {"metrics": {"errors": {}, "m": None}}}, "plan.metrics.m"),
        ({"rollout": "b", "plan": PLAN | {"refill": 1e308}}, "plan.refill"),
        ({"rollout": "b", "plan": PLAN | {"scrape": 1e308}}, "plan.scrape"),
        ({"rollout": "b", "plan": {"steps": [{"weight": 1, "bake": 1e308}]}}, "plan.steps[0].bake"),
        ({"rollout": "b", "plan": {"steps": [{"weight": 1e-300, "bake": 1}]}}, "plan.steps[0].weight"),
        ({"rollout": "b", "plan": {"steps": [{"weight": 1, "bake": 1}, None]}}, "plan.steps[1]"),
        ('{"rollout": "a", "t": NaN}', "t"),
        ('{"rollout": "a", "t": 5, "canary": {"requests": 1e309}}', "canary.requests"),
        ('{"rollout": "a", "t": 5, "canary": {"requests": -Infinity}}', "canary.requests"),
        ('{"rollout": "a", "t": 5, "generation": ' + "9" * 400 + "}", "generation"),
        ('{"rollout": "a", "t": 5, "canary": {"requests": 5, "pods": ' + "9" * 400 + "}}", "canary.pods"),
        ('{"rollout": "a", "t": 5, "t": 6}', "t"),
        ('{"rollout": "a", "t": 5, "canary": {"requests": 5, "requests": 6}}', "canary.requests"),
        ('{"rollout": "a", "t": 5, "canary": {"by_pod": {"x:y": {}, "x:y": {}}}}', "canary.by_pod.x:y"),
        ('{"rollout": "a", "t": 5, "canary": {"by_pod": {"\\ud800": {}}}}', "canary.by_pod"),
        ('{"rollout": "\\udcff", "t": 5}', "rollout"),
        (scrape(1e300, 1), "t"),
        (scrape(5, 1, canary={"requests": 5, "age": -1}), "canary.age"),
        (scrape(5, 1, canary={"requests": 1e300}), "canary.requests"),
        (scrape(5, 1, canary={"requests": True}), "canary.requests"),
        (scrape(5, 1, canary={"requests": 5, "by_pod": {"x": {"requests": 5}, "y:": {}}}), "canary.by_pod.y:.requests"),
        (scrape(5, 1, metrics={"m": {"canary": {"buckets": {"0.1": 1, "fast": 1}}}}), "metrics.m.canary.buckets.fast"),
        (scrape(5, 1, metrics={"m": {"canary": {"buckets": {"0.1": -1}}}}), "metrics.m.canary.buckets.0.1"),
        (scrape(5, 1, metrics={"l": {}, "m": {"canary": {"values": {"x": 1, "y": "2"}}}}), "metrics.m.canary.values.y"),
        (
            scrape(5, 1, metrics={"m": {"canary": {"native": {"schema": 3, "count": 1, "buckets": {"1": 1, "x": 2}}}}}),
            "metrics.m.canary.native.buckets.x",
        ),
    ],
    ids=lambda one: one if isinstance(one, str) and len(one) < 40 else "",
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_by_name_and_changes_nothing(line: Any, field: str) -> None:
    playing: dict[str, Playing] = {}
    program.answer(playing, json.dumps({"rollout": "a", "plan": PLAN}))
    before = playing["a"]

    refused = program.answer(playing, line if isinstance(line, str) else json.dumps(line))

    assert (refused["field"], bool(refused["error"])) == (field, True)
    assert playing == {"a": before}


def test_ten_thousand_steps_are_a_plan_like_any_other() -> None:
    plan = PLAN | {"minRequests": 1, "steps": [{"weight": 50, "bake": 0}] * 10_000}

    answers = answered(*(scrape(5 * n, n, share=0.5) for n in range(1, 30)), plan=plan)

    assert len(raised(answers)) > 20


def test_a_line_as_long_as_a_book_is_refused_and_the_next_is_read() -> None:
    out = io.StringIO()
    text = '{"rollout": "' + "x" * (3 * program.LONGEST) + '"}\n{"rollout": "a", "end": true}\n'

    program.main(io.StringIO(text), out)

    first, second = map(json.loads, out.getvalue().splitlines())
    assert "longer than" in first["error"]
    assert second == {"rollout": "a", "decision": "end"}


def test_fields_that_nobody_reads_are_named_wherever_they_are() -> None:
    plan = PLAN | {
        "metrics": {"errors": {"threshold": 1}, "slow": {"kind": "latency"}, "memory": {"kind": "gauge", "warmup": 5}}
    }
    native = {"native": {"schema": 3, "count": 1, "bucket": {"1": 1}}, "values": {"x": 1}}
    line = scrape(5, 1, metrics={"slow": {"canary": native}, "errors": {"canary": {"requests": 1}}})
    line["baseline"]["by_pod"] = {"x": {"requests": 5, "error": 1}}

    begun = program.answer({}, json.dumps({"rollout": "a", "plan": plan, "t": 5}))
    (answer,) = answered(line, plan=plan)

    assert begun["ignored"] == ["plan.metrics.errors.threshold", "plan.metrics.memory.warmup", "t"]
    assert answer["ignored"] == [
        "baseline.by_pod.x.error",
        "metrics.errors",
        "metrics.slow.canary.native.bucket",
        "metrics.slow.canary.values",
    ]


def test_a_thousand_rollouts_do_not_disturb_each_other() -> None:
    playing: dict[str, Playing] = {}
    names = [f"r{number}" for number in range(1000)]
    for name in names:
        program.answer(playing, json.dumps({"rollout": name, "plan": PLAN}))

    for n in range(1, 6):
        answers = {
            json.dumps(program.answer(playing, json.dumps(scrape(5 * n, n) | {"rollout": name})) | {"rollout": ""})
            for name in names
        }
        assert len(answers) == 1
    for name in names[::2]:
        assert program.answer(playing, json.dumps({"rollout": name, "end": True}))["decision"] == "end"

    assert program.answer(playing, json.dumps(scrape(50, 9) | {"rollout": "r0"}))["field"] == "plan"
    assert program.answer(playing, json.dumps({"rollout": "r1", "plan": PLAN}))["field"] == "plan"
    assert program.answer(playing, json.dumps(scrape(30, 6) | {"rollout": "r1"}))["decision"] == "continue"
    assert len(playing) == 500
