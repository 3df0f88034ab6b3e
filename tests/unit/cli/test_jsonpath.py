"""`-o jsonpath`: what scripts that were written for kubectl's expect of it."""

from __future__ import annotations

import pytest

from controller.cli.jsonpath import parse_template, render_path
from controller.cli.main import build_parser

DOCUMENT = {
    "phase": "Progressing",
    "weight": 25.0,
    "half": 0.5,
    "current": True,
    "age": None,
    "attempt": {"id": "a-2", "images": ["shop:1", "sidecar:2"], "of": {"serin.dev/x": "y"}},
    "conditions": [{"type": "Ready", "status": "Unknown"}, {"type": "Holding", "status": "True", "count": 3}],
    "message": "red\x1b[31m\n",
}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{.phase}", "Progressing"),
        ("phase={.phase}, {.weight} %", "phase=Progressing, 25 %"),
        ("{$.half}", "0.5"),
        ("{.current}", "true"),
        ("{.attempt.images[0]} {.attempt.images[-1]}", "shop:1 sidecar:2"),
        ("{.attempt.images[*]}", "shop:1 sidecar:2"),
        ("{.attempt.of['serin.dev/x']}", "y"),
        ('{.conditions[?(@.type=="Holding")].status}', "True"),
        ("{.conditions[?(@.count==3)].type}", "Holding"),
        ("{.conditions[*].type}", "Ready Holding"),
        ('{.phase}{"\\n"}', "Progressing\n"),
        ("{.attempt.of}", '{"serin.dev/x": "y"}'),
        ("{.nothing.at.all}{.age}{.attempt.images[7]}{.attempt.images[-3]}{.phase[0]}", ""),
        ("{.message}", "red\\x1b[31m\\n"),
    ],
)
def test_a_path_takes_what_kubectl_would_take(template: str, expected: str) -> None:
    assert render_path(template, DOCUMENT) == expected


@pytest.mark.parametrize("template", ["{.phase", ".a}", "{phase}", "{.a[b]}", "{range .conditions[*]}", "{..type}"])
def test_what_is_not_understood_is_refused_and_not_printed_as_nothing(template: str) -> None:
    with pytest.raises(ValueError, match="cannot read"):
        parse_template(template)


@pytest.mark.parametrize("form", ["xml", "jsonpath={.a", "jsonpath"])
def test_another_form_is_a_usage_error(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["status", "checkout", "-o", form])

    assert "argument -o/--output" in capsys.readouterr().err


def test_a_template_is_a_form_like_any_other() -> None:
    assert build_parser().parse_args(["list", "-o", "jsonpath={.phase}"]).output == "jsonpath={.phase}"
