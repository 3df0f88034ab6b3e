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
