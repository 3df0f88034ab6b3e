"""The judge without a cluster: one answer for each line, and the rules of the retreat played out."""

from __future__ import annotations

import io
import json
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
    fails: Callable[[float, float, int], float], *, plan: dict[str, Any] = PLAN, rps: float = 400.0, seconds: int = 900
) -> list[dict[str, Any]]:
    """One rollout that does what it is told; `fails(t, age, generation)` is the canary's bad ratio."""
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
        stable = [stable[0] + int(rps * 5) - ours, stable[1] + int(rng.binomial(int(rps * 5) - ours, 0.001))]
        canary = [canary[0] + ours, canary[1] + int(rng.binomial(ours, fails(t, t - born, generation)))]
        line = {
            "rollout": "r", "t": t, "weight": weight, "ready": True, "generation": generation,
            "canary": {"pods": 1, "age": t - born, "requests": canary[0], "errors": canary[1]},
            "baseline": {"pods": 20, "requests": stable[0], "errors": stable[1]},
        }  # fmt: skip
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
        pytest.param({"rollout": "b", "plan": {"steps": [{"weight": 1}]}}, "plan.steps[0]", id="no bake"),
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
