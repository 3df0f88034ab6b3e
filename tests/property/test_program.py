"""Laws of the judge's program: whatever lines say, each gets one answer, and nobody goes out on what is not known."""

from __future__ import annotations

import copy
import io
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from controller.analysis import __main__ as program
from controller.analysis.play import Playing

PLAN: dict[str, Any] = {
    "steps": [{"weight": 50, "bake": 10}, {"weight": 50, "bake": 10}],
    "onInconclusive": "advance",
    "minRequests": 0,
    "metrics": {"errors": {}, "slow": {"kind": "latency"}, "rejected": {"kind": "ratio"}, "memory": {"kind": "gauge"}},
}
STRANGE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**53, 2**53 + 1, 10**400, -1]),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=5), st.one_of(st.none(), st.integers(), st.floats()), max_size=2),
)


def scrape(n: int) -> dict[str, Any]:
    """The nth of a rollout with every kind of metric, in which nothing is wrong."""
    arms: dict[str, Any] = {}
    metrics: dict[str, dict[str, Any]] = {"slow": {}, "rejected": {}, "memory": {}}
    for arm, served in (("canary", 990 * n), ("baseline", 7000 + 1010 * n)):
        by_pod = {f"{arm}-x": {"requests": served, "errors": n}}
        arms[arm] = {"pods": 1, "age": 600 + 5 * n, "requests": served, "errors": n, "by_pod": by_pod}
        metrics["slow"][arm] = {"buckets": {"0.1": served * 8 // 10, "0.25": served * 9 // 10, "+Inf": served}}
        metrics["rejected"][arm] = {"requests": served, "bad": n}
        metrics["memory"][arm] = {"values": {f"{arm}-x": 1e9}}
    return {"rollout": "a", "t": 5 * n, "weight": 50, "ready": True, "generation": 0, "metrics": metrics} | arms


def begun() -> dict[str, Playing]:
    playing: dict[str, Playing] = {}
    program.answer(playing, json.dumps({"rollout": "a", "plan": PLAN}))
    return playing


def places(found: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where a line has values, at any depth."""
    inside = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    return [one for key, value in inside for one in ((*path, key), *places(value, (*path, key)))]


def put(found: Any, path: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(found)
    inside = changed
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    return changed


@given(st.lists(st.one_of(st.text(max_size=20), st.recursive(STRANGE, st.lists, max_leaves=3)), max_size=5))
def test_each_line_gets_one_answer_that_is_json(lines: list[Any]) -> None:
    texts = [one.replace("\n", " ") if isinstance(one, str) else json.dumps(one) for one in lines]
    out = io.StringIO()

    program.main(io.StringIO("".join(f"{text}\n" for text in texts)), out)

    answers = [json.loads(line, parse_constant=float.fromhex) for line in out.getvalue().splitlines()]
    assert len(answers) == len(lines)
    assert all("error" in one and "field" in one for one in answers)


@given(st.data(), STRANGE)
def test_one_strange_value_is_taken_or_refused_with_its_path_and_then_changes_nothing(
    data: st.DataObject, value: Any
) -> None:
    playing = begun()
    path = data.draw(st.sampled_from(places(scrape(1))))
    before = dict(playing)

    answer = program.answer(playing, json.dumps(put(scrape(1), path, value)))

    if "error" in answer:
        shown = ".".join(str(key) for key in path)
        assert answer["field"].startswith(shown) or path[0] == "rollout"
        assert playing == before
    else:
        assert answer["decision"] in ("continue", "hold", "retreat", "end")


@given(st.data(), STRANGE)
def test_a_plan_with_one_strange_value_is_played_or_refused_with_its_path(data: st.DataObject, value: Any) -> None:
    path = data.draw(st.sampled_from(places(PLAN)))
    playing: dict[str, Playing] = {}

    answer = program.answer(playing, json.dumps({"rollout": "a", "plan": put(PLAN, path, value)}))

    if "error" in answer:
        shown = "plan." + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).lstrip(".")
        assert answer["field"].startswith(shown) or answer["field"] in ("plan.metrics", "plan.steps[1].weight")
        assert playing == {}
    else:
        for n in range(1, 4):
            assert "error" not in program.answer(playing, json.dumps(scrape(n)))


def shaken(lines: list[dict[str, Any]], how: list[tuple[str, int, int]]) -> list[dict[str, Any]]:
    """The lines in another order, some twice, some gone, with another clock, without traffic or from one series."""
    for what, first, last in how:
        chosen = slice(min(first, last), max(first, last))
        match what:
            case "late":
                lines[chosen] = reversed(lines[chosen])
            case "twice":
                lines[chosen] = lines[chosen] + lines[chosen]
            case "lost":
                del lines[chosen]
            case "clock":
                lines[chosen] = [put(one, ("t",), one["t"] + 1000 * (last - first)) for one in lines[chosen]]
            case "silent":
                lines[chosen] = [put(one, ("canary",), scrape(1)["canary"]) for one in lines[chosen]]
            case "weightless":
                lines[chosen] = [put(one, ("weight",), 0) for one in lines[chosen]]
            case _:
                lines[chosen] = [put(one, ("canary",), one["baseline"]) for one in lines[chosen]]
    return lines


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["late", "twice", "lost", "clock", "silent", "weightless", "same"]),
            st.integers(0, 20),
            st.integers(0, 20),
        ),
        max_size=4,
    )
)
def test_however_lines_are_shaken_nothing_goes_on_without_traffic_on_two_arms_that_differ(
    how: list[tuple[str, int, int]],
) -> None:
    playing = begun()
    out = False

    for line in shaken([scrape(n) for n in range(1, 20)], how):
        answer = program.answer(playing, json.dumps(line))

        if answer["decision"] in ("advance", "promote") and not out:
            assert answer["canary"]["requests"] > 0
            assert line["weight"] == 50
            assert line["canary"] != line["baseline"]
        out = out or answer["decision"] == "promote"
