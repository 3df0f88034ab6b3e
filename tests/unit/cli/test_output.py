"""Tables, documents, the screen, and what the plugin costs before kubectl starts."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from controller.cli import check, listing, records
from controller.cli.kubectl import Denied, Failure, Missing, Stale, failure_from
from controller.cli.main import main
from controller.cli.screen import Screen
from controller.cli.status import change_line, follow
from controller.cli.text import render_document
from controller.cli.view import Scene, decide_exit
from tests.unit.cli.scenes import NOON, at, canary, scene


def test_rollouts_under_way_stand_first_in_a_list() -> None:
    idle = canary(phase="Idle", attempt=None, weight=None)
    idle["metadata"]["name"] = "a-first-by-name"

    lines = listing.render_list([idle, canary()], NOON, with_namespace=True)

    assert lines[0].split()[:4] == ["NAMESPACE", "NAME", "PHASE", "WEIGHT"]
    assert lines[1].split()[:4] == ["shop", "checkout", "Progressing", "25%"]
    assert lines[2].split()[:4] == ["shop", "a-first-by-name", "Idle", "0%"]


def test_a_record_says_how_a_rollout_ended_and_how_long_users_waited() -> None:
    spec = {
        "canary": "checkout",
        "attempt": "a-1",
        "startedAt": at(0),
        "finishedAt": at(95),
        "images": ["registry.example/checkout:1.8"],
        "origin": {"claimed": "human", "treated": "unknown", "trust": "T1"},
        "retreats": [{}],
        "outcome": "RolledBack",
        "message": "errors +5.0 pp",
        "secondsToRelief": 12.25,
        "canaryRequests": 1234,
        "canaryErrors": 61,
    }

    head, row = records.render_records([{"metadata": {"name": "checkout-a-1"}, "spec": spec}])

    assert "RELIEF" in head
    assert row.split("  ")[0] == "a-1"
    for cell in (
        "checkout:1.8",
        "unknown origin (claims human)",
        "RolledBack",
        "95",
        "12.2",
        "1,234",
        "errors +5.0 pp",
    ):
        assert cell in row


@pytest.mark.parametrize(
    "value", [{"a": [{"b": "x: #y\n", "c": []}, 1.5, None], "on": {"k": True}}, [], {}, [[1], [{}]]]
)
def test_yaml_reads_back_as_what_was_written(value: object) -> None:
    assert yaml.safe_load(render_document(value, "yaml")) == value
    assert json.loads(render_document(value, "json")) == value


def test_a_terminal_that_is_not_utf8_gets_ascii() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")

    Screen(out).show([("├─ caf\u00e9 …", "")])

    assert raw.getvalue() == b"|- caf\\xe9 ...\n"


def test_a_log_gets_one_line_for_each_change_and_none_for_the_clock(capsys: pytest.CaptureFixture[str]) -> None:
    scenes = [scene(), scene(lease_age=4), scene(weight=50.0), scene(phase="RolledBack", weight=0.0)]

    code = follow(lambda: scenes.pop(0), decide_exit, lambda _: True, Screen(), None, "")

    lines = capsys.readouterr().out.splitlines()
    assert code == 2
    assert [line.split()[1] + line.split()[2] for line in lines] == ["GO25%", "GO50%", "ROLLEDBACK"]


def test_a_timeout_has_an_exit_code_of_its_own() -> None:
    def wait(_: float) -> bool:
        return False

    assert follow(scene, decide_exit, wait, Screen(io.StringIO()), 0.0, "") == 3


def test_only_what_is_shown_makes_a_new_line() -> None:
    assert change_line(scene()) == change_line(Scene(canary=canary(), now=scene().now))
    assert change_line(scene()) != change_line(scene(reason="AwaitingApproval"))


@pytest.mark.parametrize(
    ("complaint", "kind", "text"),
    [
        ('Error from server (NotFound): canaries.serin.dev "x" not found', Missing, 'canaries.serin.dev "x" not found'),
        ("Error from server (Forbidden): you may not", Denied, "you may not"),
        ("Error from server (Conflict): changed", Stale, "changed"),
        ("The request is invalid: the server rejected our request due to an error in our request", Stale, "rejected"),
        ("error: the server could not find the requested resource", Missing, "is Serin installed"),
        (
            'Error from server (Forbidden): decisions.serin.dev "" is forbidden: ValidatingAdmissionPolicy '
            "'serin-decisions' with binding 'serin-decisions' denied request: spec.by must be you",
            Denied,
            "spec.by must be you",
        ),
    ],
)
def test_what_kubectl_complains_about_becomes_what_it_means(complaint: str, kind: type[Failure], text: str) -> None:
    failure = failure_from(complaint)

    assert type(failure) is kind
    assert text in str(failure)


def test_check_prints_a_plan_and_names_every_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    body = {
        "apiVersion": "serin.dev/v1alpha1",
        "kind": "Canary",
        "metadata": {"name": "cart"},
        "spec": canary()["spec"],
    }
    good.write_text(yaml.safe_dump(body))
    body["spec"] = body["spec"] | {"steps": [{"weight": 101, "bak": "1m"}], "unknown": 1}
    bad.write_text(yaml.safe_dump(body))

    assert main(["check", str(good)]) == 0
    assert main(["check", str(bad)]) == 1

    said = capsys.readouterr()
    assert "Canary cart: Deployment checkout" in said.out
    assert "cart: spec.steps[0].weight: Input should be less than or equal to 100, found 101" in said.err
    assert "cart: spec.steps[0].bak: unknown field" in said.err
    assert "cart: spec.unknown: unknown field" in said.err


def test_a_name_must_leave_room_for_the_canarys_own() -> None:
    _, problems = check.read_canary({**canary(), "metadata": {"name": "c" * 57}})

    assert any("metadata.name: 57 characters, at most 56" in problem for problem in problems)


def test_status_imports_neither_the_schema_nor_a_third_party() -> None:
    program = (
        "import sys, controller.cli.main, controller.cli.status, controller.cli.listing, controller.cli.decisions;"
        "heavy = {'pydantic', 'msgspec', 'rich', 'yaml', 'numpy', 'controller.model.spec'};"
        "print(sorted(heavy & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
