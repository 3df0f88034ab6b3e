"""Tables, documents, the screen, and what the plugin costs before kubectl starts."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from controller.cli import check, listing, records
from controller.cli.kubectl import (
    Denied,
    Failure,
    Kubectl,
    Missing,
    Object,
    Stale,
    UnknownKind,
    Unreachable,
    failure_from,
    read_canary,
)
from controller.cli.main import main
from controller.cli.screen import Screen
from controller.cli.status import change_line, follow, read_scene, render
from controller.cli.text import render_document
from controller.cli.view import Scene, decide_exit
from controller.model.spec import field_problems, parse_canary_spec
from tests.unit.cli.scenes import NOON, MemoryCluster, at, canary, scene


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


def test_an_api_server_that_restarts_ends_nobodys_wait_and_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    silent = Unreachable("refused")
    looks: list[Scene | Failure] = [scene(None), silent, silent, scene(None, phase="RolledBack")]

    def look() -> Scene:
        one = looks.pop(0)
        if isinstance(one, Failure):
            raise one
        return one

    code = follow(look, decide_exit, lambda _: True, Screen(), None, "")

    told = capsys.readouterr()
    assert (code, looks) == (2, [])
    assert told.err.count("refused") == 1


def test_where_nobody_answers_one_failure_speaks_for_all_that_was_asked(tmp_path: Path) -> None:
    nobody = tmp_path / "kubectl"
    nobody.write_text("#!/bin/sh\necho 'The connection to the server x was refused' >&2\nexit 1\n")
    nobody.chmod(0o755)

    with pytest.raises(Unreachable, match="cannot be asked"):
        Kubectl(binary=str(nobody)).read_all("/api/v1/pods", "/api/v1/services")


def test_where_no_controller_has_ever_led_it_is_said_and_where_it_was_looked_for() -> None:
    """Its age is unknown then, and nothing on the first line would tell a Canary that nobody looks after."""
    here = MemoryCluster({"/apis/serin.dev/v1alpha1/namespaces/shop/canaries/checkout": canary()})

    told = "\n".join(text for text, _ in render(read_scene(here, "shop", "checkout", "elsewhere")))

    assert "no Lease serin-controller in namespace elsewhere" in told


def test_where_serin_is_not_installed_no_canary_is_said_to_be_missing() -> None:
    class Bare(MemoryCluster):
        def read(self, path: str) -> Object:
            raise UnknownKind("the API server does not know this kind")

    with pytest.raises(UnknownKind):
        read_scene(Bare({}), "shop", "checkout", "serin-system")
    with pytest.raises(UnknownKind):
        read_canary(Bare({}), "shop", "checkout")


def test_a_timeout_has_an_exit_code_of_its_own() -> None:
    def wait(_: float) -> bool:
        return False

    assert follow(scene, decide_exit, wait, Screen(io.StringIO()), 0.0, "") == 3


def test_how_far_the_certificate_is_makes_a_new_line_each_time_it_is_written() -> None:
    few, more = (scene(reason="NotCertified", message=f"needs 900, has {has}") for has in (400, 501))

    assert change_line(few) != change_line(more)
    assert change_line(scene(reason="Baking", message="1")) == change_line(scene(reason="Baking", message="2"))


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
        (
            "Error from server (NotFound): the server could not find the requested resource",
            UnknownKind,
            "is Serin installed",
        ),
        (
            "The connection to the server 10.0.0.1:6443 was refused - did you specify the right host or port?",
            Unreachable,
            "the API server cannot be asked: The connection to the server 10.0.0.1:6443 was refused",
        ),
        ("Unable to connect to the server: net/http: TLS handshake timeout", Unreachable, "handshake timeout"),
        (
            'E1122 06:49:24.257704    9938 memcache.go:265] "Unhandled Error" err="connection refused"\n'
            "The connection to the server 10.0.0.1:6443 was refused",
            Unreachable,
            "cannot be asked: The connection",
        ),
        (
            'error: error validating "STDIN": failed to download openapi: Get "https://10.0.0.1/openapi/v2": dial tcp '
            "10.0.0.1:443: connect: connection refused; if you choose to ignore these errors",
            Unreachable,
            "connection refused",
        ),
        (
            'Error from server (InternalError): failed calling webhook "a.example": dial tcp 10.1.1.1:443: refused',
            Failure,
            "failed calling webhook",
        ),
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


@pytest.mark.parametrize("text", ["since: 2026-13-45", "[" * 5000, "kind: Deployment\nmetadata: 5"])
@pytest.mark.parametrize("words", [["check"], ["plan", "-n", "shop", "-f"]])
def test_a_file_that_cannot_be_read_is_named(
    words: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "odd.yaml").write_text(text)

    assert main([*words, str(tmp_path / "odd.yaml")]) == 1
    assert "odd.yaml: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["detach", ""], "'' is no name"),
        (["status", "../checkout"], "'../checkout' is no name"),
        (["plan", "Checkout"], "'Checkout' is no name"),
        (["plan", "checkout", "--rate", "nan"], "'nan' is no number of requests a second"),
        (["plan", "checkout", "--rate", "-5"], "'-5' is no number of requests a second"),
        (["replay", "checkout", "--since", "99999999999999h"], "is longer than a year"),
    ],
)
def test_an_argument_that_cannot_be_meant_is_refused_before_the_cluster_is_asked(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)

    # 2 would say that a rollout was rolled back.
    assert ended.value.code == 1
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ({"weight": "5"}, "spec.steps[0].weight: Input should be a valid number, found the text '5'"),
        ({"weight": 5, "bake": 5}, "spec.steps[0].bake: 5 is not a duration: write a number and a unit"),
        ({"weight": 101}, "spec.steps[0].weight: Input should be less than or equal to 100, found 101"),
        ({"weight": 5, "bake": "15"}, "spec.steps[0].bake: '15' is not a duration: write a number and a unit, for"),
    ],
)
def test_what_the_api_server_would_refuse_is_one_problem_of_one_field(step: dict[str, object], says: str) -> None:
    body = {"apiVersion": "serin.dev/v1alpha1", "kind": "Canary", **canary()}
    _, problems = check.read_canary(body | {"spec": body["spec"] | {"steps": [step]}})

    assert len(problems) == 1
    assert problems[0].startswith(says)


def test_a_list_that_is_empty_and_a_name_that_no_service_can_have_are_told_in_words_of_the_file() -> None:
    body = {"apiVersion": "serin.dev/v1alpha1", "kind": "Canary", **canary()}

    _, empty = check.read_canary(body | {"spec": body["spec"] | {"steps": []}})
    _, named = check.read_canary(body | {"metadata": {"name": "Check_out"}})

    assert empty == ["spec.steps: empty, write at least one, or leave it out for the default"]
    assert named == ["metadata.name: found Check_out, write lower-case letters, digits and '-', a letter first"]


def test_what_is_told_of_a_spec_is_free_of_the_parsers_own_words() -> None:
    twice = canary()["spec"] | {"analysis": {"metrics": [{"name": "errors", "errorRatio": {}}] * 2}}

    with pytest.raises(ValidationError) as raised:
        parse_canary_spec(twice)

    assert field_problems(raised.value) == [
        "spec.analysis: analysis.metrics: every name must be used once, found errors, errors"
    ]


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
