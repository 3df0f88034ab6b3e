"""The judge without a cluster: one answer for each line, and the rules of the retreat played out."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from controller.analysis.__main__ import main

PLAN: dict[str, Any] = {
    "steps": [{"weight": 5, "bake": 120}, {"weight": 25, "bake": 120}],
    "onInconclusive": "advance",
    "metrics": {"errors": {"kind": "errors"}},
    "origin": "human",
}


def asked(*lines: Any) -> list[dict[str, Any]]:
    """What the program prints for these lines; strings go in as they are."""
    out = io.StringIO()
    text = "\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines) + "\n"
    assert main(io.StringIO(text), out) == 0
    return [json.loads(line) for line in out.getvalue().splitlines()]


def played(
    fails: Callable[[float, float, int], float],
    *,
    plan: dict[str, Any] = PLAN,
    rps: float = 400.0,
    seconds: int = 900,
    silent: Callable[[float], str] = lambda t: "",
    stable_fails: Callable[[float], float] = lambda t: 0.001,
) -> list[dict[str, Any]]:
    """One rollout that does what it is told; `fails(t, age, generation)` is the canary's bad ratio, and `silent(t)`
    the arm whose counters stand still, "few" for a baseline with a request a minute, "gone" for one without a line."""
    from controller.analysis import __main__ as program

    rng, playing = np.random.default_rng(5), {}
    answers = [program.answer(playing, json.dumps({"rollout": "r", "plan": plan}))]
    weight, generation, born, t = answers[0]["weight"], 0, 0.0, 0.0
    stable, canary = [100_000, 100], [0, 0]
    past = {"pods": 20, "requests": stable[0], "errors": stable[1]}
    program.answer(playing, json.dumps({"rollout": "r", "t": 0, "baseline": past}))
    while t < seconds and answers[-1]["decision"] not in ("promote", "rollback"):
        ours = int(rps * 5 * weight / 100)
        t += 5
        theirs = int(t % 60 == 0) if silent(t) == "few" else int(rps * 5) - ours
        if silent(t) != "baseline":
            stable = [stable[0] + theirs, stable[1] + int(rng.binomial(theirs, stable_fails(t)))]
        if silent(t) != "canary":
            canary = [canary[0] + ours, canary[1] + int(rng.binomial(ours, fails(t, t - born, generation)))]
        line = {
            "rollout": "r", "t": t, "weight": weight, "ready": True, "generation": generation,
            "canary": {"pods": 1, "age": t - born, "requests": canary[0], "errors": canary[1]},
        }  # fmt: skip
        if silent(t) != "gone":
            line["baseline"] = {"pods": 20, "requests": stable[0], "errors": stable[1]}
        answers.append(program.answer(playing, json.dumps(line)))
        weight = answers[-1]["weight"]
        if answers[-1].get("fresh"):
            generation, born, canary = generation + 1, t, [0, 0]
    return answers


def decisions(answers: list[dict[str, Any]]) -> list[str]:
    """Decisions that did something, in order."""
    return [one["decision"] for one in answers if one["decision"] not in ("continue", "hold")]


def test_a_harmless_canary_climbs_its_steps_and_is_promoted() -> None:
    answers = played(lambda t, age, generation: 0.001)

    assert decisions(answers) == ["advance", "promote"]
    assert [one["weight"] for one in answers if one["decision"] in ("advance", "promote")] == [25, 100]


def test_a_fault_of_the_revision_retreats_at_the_first_scrape_and_is_convicted_on_fresh_pods() -> None:
    answers = played(lambda t, age, generation: 0.5)

    assert decisions(answers)[0] == "retreat"
    assert next(one["t"] for one in answers if one["decision"] == "retreat") == 5
    assert answers[-1]["decision"] == "rollback"
    assert answers[-1]["t"] <= 130
    assert answers[-1]["metric"] == "errors"


def test_a_fault_of_one_pod_costs_a_retreat_and_not_the_release() -> None:
    answers = played(lambda t, age, generation: 0.5 if generation == 0 and age >= 100 else 0.001, seconds=1500)

    assert decisions(answers) == ["retreat", "resume", "advance", "promote"]
    assert [one["fresh"] for one in answers if one["decision"] == "retreat"] == [True]


def test_a_cold_start_is_waited_out_on_the_same_pods() -> None:
    answers = played(lambda t, age, generation: 0.5 if age < 40 else 0.001)

    assert decisions(answers) == ["retreat", "resume", "advance", "promote"]
    assert [one["fresh"] for one in answers if one["decision"] == "retreat"] == [False]


def test_a_fault_that_needs_age_is_not_promoted_by_fresh_pods_that_are_still_too_young_to_show_it() -> None:
    answers = played(lambda t, age, generation: 0.5 if age > 200 else 0.001, seconds=2400)

    assert "promote" not in decisions(answers)
    assert answers[-1]["decision"] == "rollback"


@pytest.mark.parametrize(("origin", "decision"), [("human", "hold"), ("ai", "rollback"), ("unknown", "rollback")])
def test_the_third_retreat_is_for_a_person_or_ends_a_change_that_no_person_wrote(origin: str, decision: str) -> None:
    def flaky(t: float, age: float, generation: int) -> float:
        return 0.9 if 150 <= age < 155 else 0.0

    answers = played(flaky, plan={**PLAN, "steps": [{"weight": 5, "bake": 3000}], "origin": origin}, seconds=3000)

    assert answers[-1]["decision"] in (decision, "rollback")
    assert "promote" not in decisions(answers)


def test_at_the_end_every_further_line_gets_the_same_answer() -> None:
    sample = {"rollout": "a", "weight": 5, "canary": {"requests": 0}, "baseline": {"requests": 10}}
    start = {
        "rollout": "a",
        "plan": {"steps": [{"weight": 5, "bake": 0}], "minRequests": 0, "onInconclusive": "advance"},
    }
    lines = [
        sample | {"t": 5 * n, "canary": {"requests": 90 * n}, "baseline": {"requests": 900 * n}} for n in range(1, 6)
    ]

    answers = asked(start, *lines)

    assert [one["decision"] for one in answers[3:]] == ["promote", "promote", "promote"]


def test_rollouts_may_be_interleaved_and_end() -> None:
    a, b = ({"rollout": name, "plan": PLAN} for name in "ab")
    line = {"t": 5, "weight": 5, "canary": {"requests": 10}, "baseline": {"requests": 1000}}

    answers = asked(a, b, {"rollout": "a"} | line, {"rollout": "a", "end": True}, {"rollout": "b"} | line)

    assert [one["rollout"] for one in answers] == ["a", "b", "a", "a", "b"]
    assert answers[3] == {"rollout": "a", "decision": "end"}


def test_history_teaches_and_is_answered_line_by_line() -> None:
    history = [
        {"rollout": "a", "t": -7500 + 60 * n, "baseline": {
            "pods": 2, "requests": 2000 * n, "errors": 4 * n,
            "by_pod": {"x": {"requests": 1000 * n, "errors": 4 * n}, "y": {"requests": 1000 * n, "errors": 0}}}}
        for n in range(124)
    ]  # fmt: skip

    answers = asked({"rollout": "a", "plan": PLAN}, *history)

    assert len(answers) == 125
    assert answers[-1] == {"rollout": "a", "t": -120, "decision": "continue", "step": 0, "weight": 5}


@pytest.mark.parametrize(
    ("line", "field"),
    [
        pytest.param("{", "", id="not JSON"),
        pytest.param("[1]", "", id="no object"),
        pytest.param({"t": 5}, "rollout", id="no name"),
        pytest.param({"rollout": "z", "t": 5}, "plan", id="no plan"),
        pytest.param({"rollout": "a", "t": "five"}, "t", id="a time that is no number"),
        pytest.param({"rollout": "a", "t": 5, "canary": {"requests": "x"}}, "canary.requests", id="no count"),
        pytest.param({"rollout": "b", "plan": {"steps": []}}, "plan.steps", id="no steps"),
        pytest.param({"rollout": "b", "plan": {"steps": [{"weight": 1}]}}, "plan.steps[0].bake", id="no bake"),
        pytest.param("[" * 100_000, "", id="nested too deeply"),
        pytest.param({"rollout": "a", "end": "false"}, "end", id="an end that is no yes or no"),
        pytest.param({"rollout": "a"}, "t", id="no time"),
        pytest.param({"rollout": "a", "t": 5, "weight": 101}, "weight", id="more than all"),
        pytest.param({"rollout": "a", "t": 5, "generation": -1}, "generation", id="no generation"),
        pytest.param({"rollout": "a", "t": 5, "canary": {"requests": -1}}, "canary.requests", id="fewer than none"),
        pytest.param(
            {"rollout": "a", "t": 5, "baseline": {"requests": 5, "by_pod": {"x": {"requests": 5, "errors": -1}}}},
            "baseline.by_pod.x.errors", id="a pod with fewer than none",
        ),
        pytest.param(
            {"rollout": "a", "t": 5, "metrics": {"m": {"canary": {"native": {"schema": 99, "count": 1}}}}},
            "metrics.m.canary.native.schema", id="unknown schema",
        ),
        pytest.param(
            {"rollout": "a", "t": 5, "metrics": {"m": {"canary": {"native": {
                "schema": 3, "count": 1, "buckets": {"1000000000": 1}}}}}},
            "metrics.m.canary.native.buckets", id="a bucket no latency is in",
        ),
        pytest.param(
            {"rollout": "b", "plan": {"steps": [{"weight": 1, "bake": 1}], "metrics": {"m": {"kind": "guess"}}}},
            "plan.metrics.m.kind", id="unknown kind",
        ),
    ],
)  # fmt: skip
def test_a_bad_line_names_its_field_and_the_program_goes_on(line: Any, field: str) -> None:
    good = {"rollout": "a", "t": 5, "weight": 5, "canary": {"requests": 10}, "baseline": {"requests": 1000}}

    answers = asked({"rollout": "a", "plan": PLAN}, line, good)

    assert answers[1]["field"] == field
    assert answers[1]["error"]
    assert answers[2]["decision"] == "continue"


def test_fields_that_nobody_reads_are_named() -> None:
    plan = {**PLAN, "minRequest": 5, "metrics": {"errors": {"kind": "errors", "wamup": 5}}}
    canary = {"requests": 10, "error": 9}
    line = {"rollout": "a", "t": 5, "canary": canary, "baseline": {"requests": 9}, "metrics": {"latency": {}}}

    answers = asked({"rollout": "a", "plan": plan}, line)

    assert answers[0]["ignored"] == ["plan.metrics.errors.wamup", "plan.minRequest"]
    assert answers[1]["ignored"] == ["canary.error", "metrics.latency"]


def test_a_second_plan_does_not_forget_a_rollout_that_is_under_way() -> None:
    plan = {"rollout": "a", "plan": PLAN}
    bad = {"rollout": "a", "t": 5, "canary": {"requests": 100, "errors": 50}, "baseline": {"requests": 1900}}
    worse = {"rollout": "a", "t": 10, "canary": {"requests": 200, "errors": 100}, "baseline": {"requests": 3800}}

    answers = asked(plan, bad, plan, worse, {"rollout": "a", "end": True}, plan)

    assert answers[2]["field"] == "plan"
    assert "under way" in answers[2]["error"]
    assert answers[3]["decision"] == "retreat"
    assert answers[5]["decision"] == "continue"


def test_a_rollout_that_is_over_may_begin_anew_under_its_name() -> None:
    plan = {"rollout": "a", "plan": {**PLAN, "onTrip": "rollback"}}
    past = {"rollout": "a", "t": 0, "baseline": {"requests": 0}}
    bad = {"rollout": "a", "t": 5, "canary": {"requests": 100, "errors": 50}, "baseline": {"requests": 1900}}

    assert [one["decision"] for one in asked(plan, past, bad, plan)][2:] == ["rollback", "continue"]


def test_a_time_far_ahead_is_believed_once_a_second_line_says_so() -> None:
    def line(t: float) -> dict[str, Any]:
        return {"rollout": "a", "t": t, "canary": {"requests": 10 * t}, "baseline": {"requests": 190 * t}}

    broken = asked({"rollout": "a", "plan": PLAN}, *(line(t) for t in (5, 10, 1e9, 15, 20)))
    away = asked({"rollout": "a", "plan": PLAN}, *(line(t) for t in (5, 10, 86_400, 86_405, 86_410)))

    assert [one["reason"] for one in broken[3:]] == ["TimeLeapt", "Baking", "Baking"]
    assert [one["decision"] for one in away[3:]] == ["hold", "hold", "continue"]


@pytest.mark.parametrize("first", [1, 3])
def test_without_a_baseline_it_holds_and_goes_on_when_data_returns(first: int) -> None:
    def line(n: int, baseline: bool) -> dict[str, Any]:
        ours = {"rollout": "a", "t": 5 * n, "weight": 5, "canary": {"requests": 50 * n, "pods": 1}}
        return ours | ({"baseline": {"requests": 950 * n}} if baseline else {})

    answers = asked({"rollout": "a", "plan": PLAN}, *(line(n, baseline=not first <= n <= 9) for n in range(1, 13)))

    held = [n for n, one in enumerate(answers) if one["decision"] == "hold"]
    assert held == list(range(first + 3 + (first == 1), 10))
    assert {answers[n]["reason"] for n in held} == {"NoBaselineData"}
    assert [one["decision"] for one in answers[10:]] == ["continue"] * 3


@pytest.mark.parametrize("how", ["baseline", "gone", "few"])
def test_users_are_relieved_of_a_catastrophe_though_the_baseline_has_fallen_silent(how: str) -> None:
    answers = played(
        lambda t, age, generation: 0.6 if t > 300 else 0.001,
        plan=PLAN | {"steps": [{"weight": 5, "bake": 1200}]},
        silent=lambda t: how if t > 200 else "",
    )

    first = next(one for one in answers if one["decision"] == "retreat")
    assert 300 < first["t"] <= 320
    assert (first["reason"], first["fresh"]) == ("ErrorsTripped", True)
    assert first["wouldChange"].startswith("requests to the baseline")
    assert next(one["t"] for one in answers if one["decision"] == "resume") - first["t"] <= 60
    assert not {"promote", "rollback"} & set(decisions(answers)[:3])


@pytest.mark.parametrize("how", ["baseline", "gone"])
def test_without_a_baseline_a_canary_that_fails_as_the_baseline_did_before_is_left_alone(how: str) -> None:
    """What is wrong with both is nobody's fault, and a canary that is a little worse cannot be told from it."""
    suffering = played(
        lambda t, age, generation: 0.5 if t > 150 else 0.001,
        stable_fails=lambda t: 0.5 if t > 150 else 0.001,
        plan=PLAN | {"steps": [{"weight": 5, "bake": 1200}]},
        silent=lambda t: how if t > 200 else "",
    )
    a_little_worse = played(
        lambda t, age, generation: 0.08 if t > 200 else 0.001,
        plan=PLAN | {"steps": [{"weight": 5, "bake": 1200}]},
        silent=lambda t: how if t > 200 else "",
    )

    assert decisions(suffering) == decisions(a_little_worse) == []


def test_a_burst_while_the_baseline_is_missing_is_compared_once_it_is_back() -> None:
    answers = played(
        lambda t, age, generation: 0.05 if 205 < t <= 260 else 0.001,
        plan=PLAN | {"steps": [{"weight": 5, "bake": 600}]},
        silent=lambda t: "gone" if 200 < t <= 280 else "",
    )

    assert next(one["t"] for one in answers if one["decision"] == "retreat") == 285


def test_a_baseline_with_a_request_now_and_then_is_as_good_as_none() -> None:
    def answers(since: float) -> list[dict[str, Any]]:
        plan = PLAN | {"steps": [{"weight": 50, "bake": 300}]}
        silent = lambda t: "few" if t > since else ""  # noqa: E731
        return played(lambda t, age, generation: 0.001, plan=plan, rps=5000.0, silent=silent)

    late, early = answers(200), answers(0)

    assert decisions(late) == decisions(early) == []
    assert {one["reason"] for one in (late[-1], early[-1])} == {"NoBaselineTraffic"}
    assert early[-1]["wouldChange"] == "requests to the baseline: a step needs 20 of them, and had 15"


def test_a_way_back_at_a_smaller_weight_does_not_make_the_baseline_look_silent_once_it_climbs() -> None:
    plan = PLAN | {"steps": [{"weight": 50, "bake": 60}]}

    answers = played(lambda t, age, generation: 0.4 if t == 5 else 0.001, plan=plan, rps=20_000.0, seconds=400)

    assert decisions(answers) == ["retreat", "resume", "promote"]
    back = [one for one in answers if 0 < one["weight"] < 50]
    assert back[0]["weight"] < 1
    assert "NoBaselineTraffic" not in {one.get("reason") for one in answers}


@pytest.mark.parametrize(("arm", "reason"), [("baseline", "NoBaselineTraffic"), ("canary", "TooFewRequests")])
def test_what_was_certified_is_not_promoted_once_one_arm_is_silent(arm: str, reason: str) -> None:
    """All comes too late for the certificate: nothing that went wrong since could have been seen."""
    plan = PLAN | {"steps": [{"weight": 50, "bake": 300}]}

    answers = played(
        lambda t, age, generation: 0.05 if t > 205 else 0.001,
        plan=plan,
        rps=5000.0,
        silent=lambda t: arm if t > 200 else "",
    )

    assert decisions(answers) == []
    assert (answers[-1]["decision"], answers[-1]["reason"]) == ("hold", reason)


def test_a_step_of_all_requests_keeps_something_on_the_baseline_to_compare_with() -> None:
    plan = PLAN | {"steps": [{"weight": 50, "bake": 60}, {"weight": 100, "bake": 60}]}

    answers = played(lambda t, age, generation: 0.001, plan=plan, rps=5000.0)

    assert decisions(answers) == ["advance", "promote"]
    assert next(one["weight"] for one in answers if one["decision"] == "advance") == 99


def test_pods_that_are_not_ready_are_not_promoted() -> None:
    plan = {**PLAN, "steps": [{"weight": 5, "bake": 20}]}
    lines = [
        {"rollout": "a", "t": 5 * n, "ready": n == 9, "canary": {"requests": 90 * n}, "baseline": {"requests": 900 * n}}
        for n in range(1, 10)
    ]

    answers = asked({"rollout": "a", "plan": plan}, *lines)

    assert [(one["decision"], one["reason"]) for one in answers[-2:]] == [
        ("hold", "CanaryNotReady"),
        ("promote", "PromotedUncertified"),
    ]


def test_history_from_long_ago_is_not_learned_from() -> None:
    pods = [
        {"rollout": "a", "t": t, "baseline": {"requests": 5, "by_pod": {"x": {"requests": 5}, "y": {"requests": 5}}}}
        for t in (-1e12, -5e11, -10, -5)
    ]
    line = {"rollout": "a", "t": 5, "canary": {"requests": 10}, "baseline": {"requests": 1000}}

    assert asked({"rollout": "a", "plan": PLAN}, *pods, line)[-1]["decision"] == "continue"


def test_times_may_count_up_to_a_start_that_is_far_ahead() -> None:
    lines = [
        {"rollout": "a", "t": -1e9 + 5 * n, "canary": {"requests": 10 * n}, "baseline": {"requests": 1000 * n}}
        for n in range(5)
    ]

    answers = asked({"rollout": "a", "plan": PLAN}, *lines)

    assert [one["decision"] for one in answers] == ["continue"] * 6


def program(text: bytes, *arguments: str, encoding: str = "ascii:strict") -> subprocess.CompletedProcess[bytes]:
    """The real program, where the terminal can write no more than ASCII."""
    command = [sys.executable, "-m", "controller.analysis", *arguments]
    return subprocess.run(command, input=text, capture_output=True, env={"PYTHONIOENCODING": encoding}, timeout=60)


def test_a_line_that_is_not_utf_8_is_answered_whatever_the_locale_says() -> None:
    answered = program(b'{"rollout": "\xff"}\n{"rollout": "\xc3\xa9", "end": true}\n')

    assert (answered.returncode, answered.stderr) == (0, b"")
    first, second = map(json.loads, answered.stdout.splitlines())
    assert (first["field"], "UTF-8" in first["error"]) == ("rollout", True)
    assert second == {"rollout": "é", "decision": "end"}


def test_arguments_are_refused_with_the_usage_instead_of_waiting_for_lines() -> None:
    answered = program(b"", "lines.jsonl")

    assert answered.returncode == 2
    assert b"usage: python -m controller.analysis < LINES.jsonl" in answered.stderr


def test_it_ends_quietly_when_nobody_reads_the_answers() -> None:
    shell = f"yes 5 | head -n 20000 | {sys.executable} -m controller.analysis | head -n 1"
    answered = subprocess.run(["bash", "-c", shell], capture_output=True, timeout=60)

    assert answered.stderr == b""


def test_a_slower_canary_is_seen_on_native_histograms() -> None:
    plan = {"steps": [{"weight": 10, "bake": 6000}], "metrics": {"latency": {"kind": "latency"}}}
    sent: list[dict[str, Any]] = [{"rollout": "a", "plan": plan}]

    def native(n: int, share: float) -> dict[str, Any]:
        slow = round(n * share)
        return {"native": {"schema": 3, "count": n, "buckets": {"-20": n - slow, "10": slow}}}

    for n in range(1, 60):
        arms = {"canary": native(200 * n, 0.3), "baseline": native(1800 * n, 0.02)}
        sent.append(
            {
                "rollout": "a", "t": 5 * n, "canary": {"requests": 200 * n, "pods": 1, "age": 600 + 5 * n},
                "baseline": {"requests": 1800 * n, "pods": 20}, "metrics": {"latency": arms},
            }
        )  # fmt: skip

    assert "retreat" in decisions(asked(*sent))


def latency_lines(slow_share: float, lines: int = 120, **metric: Any) -> list[dict[str, Any]]:
    """A rollout at 10 % of 2,000 requests a scrape, of which stable has one of a hundred above 250 ms."""
    plan = {"steps": [{"weight": 10, "bake": 6000}], "metrics": {"latency": {"kind": "latency", **metric}}}
    sent: list[dict[str, Any]] = [{"rollout": "a", "plan": plan}]

    def buckets(n: int, share: float) -> dict[str, Any]:
        return {"buckets": {"0.1": round(0.8 * n * (1 - share)), "0.25": round(n * (1 - share)), "+Inf": n}}

    for n in range(1, lines + 1):
        canary, baseline = 200 * n, 1800 * n
        sent.append(
            {
                "rollout": "a", "t": 5 * n, "weight": 10, "canary": {"requests": canary, "pods": 1, "age": 600 + 5 * n},
                "baseline": {"requests": baseline, "pods": 20},
                "metrics": {"latency": {"canary": buckets(canary, slow_share), "baseline": buckets(baseline, 0.01)}},
            }
        )  # fmt: skip
    return sent


@pytest.mark.parametrize("metric", [{}, {"threshold": 0.25}], ids=["bounds chosen", "one bound"])
def test_a_slower_canary_is_taken_off_traffic_and_an_equal_one_is_not(metric: dict[str, Any]) -> None:
    slower = asked(*latency_lines(0.05, **metric))
    equal = asked(*latency_lines(0.01, **metric))

    assert "retreat" in decisions(slower)
    assert next(one for one in slower if one["decision"] == "retreat")["metric"] == "latency"
    assert decisions(equal) == []


def test_a_pair_of_counters_is_judged_and_a_gauge_only_holds() -> None:
    plan = {
        "steps": [{"weight": 10, "bake": 400}],
        "metrics": {"rejected": {"kind": "ratio"}, "memory": {"kind": "gauge"}},
        "onInconclusive": "advance",
    }
    lines: list[dict[str, Any]] = [{"rollout": "a", "plan": plan}]
    for n in range(1, 100):
        pair = {"canary": {"requests": 200 * n, "bad": 0}, "baseline": {"requests": 1800 * n, "bad": n}}
        values = {"canary": {"values": {"x": 2e9}}, "baseline": {"values": {"y": 1e9, "z": 1e9}}}
        lines.append(
            {
                "rollout": "a", "t": 5 * n, "weight": 10, "canary": {"requests": 200 * n, "age": 600},
                "baseline": {"requests": 1800 * n}, "metrics": {"rejected": pair, "memory": values},
            }
        )  # fmt: skip

    answers = asked(*lines)

    assert answers[-1]["decision"] == "hold"
    assert answers[-1]["reason"] == "GaugeHigher"
    assert "memory is 2.00 times" in answers[-1]["wouldChange"]


def test_a_line_without_weight_means_what_was_asked_for_and_one_at_weight_0_is_not_judged() -> None:
    start = {"rollout": "a", "plan": PLAN}
    bad = [
        {"t": 5 * n, "canary": {"requests": 100 * n, "errors": 50 * n}, "baseline": {"requests": 1900 * n}}
        for n in range(1, 4)
    ]

    assert asked(start, *({"rollout": "a"} | one for one in bad))[2]["decision"] == "retreat"
    assert {one["decision"] for one in asked(start, *({"rollout": "a", "weight": 0} | one for one in bad))} == {
        "continue"
    }


def test_three_scrapes_without_a_canary_hold_and_it_goes_on_when_data_returns() -> None:
    def line(n: int, canary: bool) -> dict[str, Any]:
        both = {"rollout": "a", "t": 5 * n, "weight": 5, "baseline": {"requests": 950 * n}}
        return both | ({"canary": {"requests": 50 * n}} if canary else {})

    answers = asked({"rollout": "a", "plan": PLAN}, *(line(n, canary=not 3 <= n <= 7) for n in range(1, 10)))

    assert [one["decision"] for one in answers[1:]] == ["continue"] * 5 + ["hold"] * 2 + ["continue"] * 2


def test_who_wants_no_confirmation_rolls_back_at_the_first_trip() -> None:
    answers = played(lambda t, age, generation: 0.5, plan={**PLAN, "onTrip": "rollback"})

    assert (answers[-1]["decision"], answers[-1]["t"]) == ("rollback", 5)


def test_the_last_step_holds_until_it_is_certified_and_says_what_is_missing() -> None:
    plan = {**PLAN, "onInconclusive": "hold", "steps": [{"weight": 25, "bake": 60}]}

    answers = played(lambda t, age, generation: 0.001, plan=plan, seconds=3000)

    waiting = [one for one in answers if one.get("reason") == "NotCertified"]
    assert "needs about" in waiting[0]["wouldChange"]
    assert (answers[-1]["decision"], answers[-1]["reason"]) == ("promote", "Certified")


def test_a_pod_that_goes_takes_its_counters_along_and_nothing_is_judged_by_what_is_left() -> None:
    lines = [{"rollout": "a", "plan": PLAN}]
    sums = [(90_000, 900, 1000, 1), (90_500, 905, 2000, 2), (45_500, 455, 3000, 3), (46_000, 460, 4000, 4)]
    for index, (n_b, e_b, n_c, e_c) in enumerate(sums):
        canary = {"pods": 1, "age": 100, "requests": n_c, "errors": e_c}
        baseline = {"pods": 2, "requests": n_b, "errors": e_b}
        lines.append({"rollout": "a", "t": 5.0 + 5 * index, "canary": canary, "baseline": baseline})

    answers = asked(*lines)

    assert answers[-1]["baseline"] == {"requests": 1000.0, "errors": 10.0}
    assert [answer["decision"] for answer in answers] == ["continue"] * 5


def test_where_pods_are_named_the_others_still_count_when_one_goes() -> None:
    lines = [{"rollout": "a", "plan": PLAN}]
    for index, pods in enumerate(({"x": 1000, "y": 5000}, {"x": 1500, "y": 5500}, {"x": 2000}, {"x": 2500, "z": 70})):
        by_pod = {name: {"requests": count, "errors": 0} for name, count in pods.items()}
        canary = {"pods": 1, "age": 100, "requests": 100 * index, "errors": 0}
        baseline = {"pods": 2, "requests": sum(pods.values()), "errors": 0, "by_pod": by_pod}
        lines.append({"rollout": "a", "t": 5.0 + 5 * index, "canary": canary, "baseline": baseline})

    assert asked(*lines)[-1]["baseline"] == {"requests": 500.0 + 500 + 500 + 500 + 70, "errors": 0.0}


def test_times_may_be_those_of_a_clock_and_a_step_still_lasts_its_bake() -> None:
    plan = {**PLAN, "minRequests": 0}
    lines = [{"rollout": "a", "plan": plan}, {"rollout": "a", "t": 1.7e9 - 60, "baseline": {"requests": 5}}]
    for index in range(30):
        canary, baseline = {"pods": 1, "requests": 10 * index}, {"pods": 9, "requests": 1000 * index + 50}
        lines.append({"rollout": "a", "t": 1.7e9 + 5 * index, "canary": canary, "baseline": baseline})

    advanced = [index for index, answer in enumerate(asked(*lines)) if answer["decision"] == "advance"]

    assert advanced[0] >= 120 / 5


def test_how_far_lines_are_apart_is_learned_from_them() -> None:
    bad: list[dict[str, Any]] = [{"rollout": "a", "plan": {**PLAN, "steps": [{"weight": 5, "bake": 900}]}}]
    for index in range(12):
        canary = {"pods": 1, "age": 900, "requests": 300 * index, "errors": 0}
        baseline = {"pods": 9, "requests": 6000 * index, "errors": 6 * index}
        bad.append({"rollout": "a", "t": 30.0 * index + 30, "canary": canary, "baseline": baseline})

    # Two scrapes without a canary are no reason to hold, at any distance.
    gap = [{"rollout": "a", "t": 30.0 * (13 + index), "baseline": {"requests": 90_000}} for index in range(2)]

    assert [answer["decision"] for answer in asked(*bad, *gap)[-2:]] == ["continue", "continue"]


@pytest.mark.parametrize(
    ("plan", "field"),
    [
        ({"minRequests": -1}, "plan.minRequests"),
        ({"origin": "Human"}, "plan.origin"),
        ({"steps": [{"weight": 25, "bake": 5}, {"weight": 5, "bake": 5}]}, "plan.steps[1].weight"),
        ({"metrics": {"errors": {"warmup": -5}}}, "plan.metrics.errors.warmup"),
        ({"metrics": {"slow": {"kind": "latency", "threshold": 0}}}, "plan.metrics.slow.threshold"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_named(plan: dict[str, Any], field: str) -> None:
    assert asked({"rollout": "a", "plan": PLAN | plan})[0]["field"] == field


def test_a_metric_may_be_missing_or_null_on_some_lines() -> None:
    plan = {**PLAN, "metrics": {"errors": {}, "slow": {"kind": "latency"}}}
    arms = {"canary": {"requests": 10, "pods": 1}, "baseline": {"requests": 100, "pods": 9}}
    lines = [{"rollout": "a", "t": 5, **arms}, {"rollout": "a", "t": 10, "metrics": {"slow": None}, **arms}]

    assert not [answer for answer in asked({"rollout": "a", "plan": plan}, *lines) if "error" in answer]


def test_after_a_history_of_other_counters_the_first_scrape_of_the_rollout_still_counts() -> None:
    lines = [{"rollout": "a", "plan": PLAN}]
    for t, count in ((-65, 0), (-5, 60_000)):
        lines.append({"rollout": "a", "t": t, "baseline": {"pods": 20, "requests": count, "errors": count / 1000}})
    canary, baseline = {"pods": 1, "age": 5, "requests": 50, "errors": 25}, {"pods": 20, "requests": 4950, "errors": 5}
    lines.append({"rollout": "a", "t": 5, "canary": canary, "baseline": baseline})

    assert asked(*lines)[-1]["decision"] == "retreat"
