"""What the pages say is there: links, files, tests, commands, values and reasons that they name."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.cli.main import build_parser

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"])
# What a row says that names no test.
BARE = re.compile(r"not yet|not built|out of scope")
# A folder of generated things, and what a person would put there.
ELSEWHERE = ("build/", "dist/")


def sources(folder: str) -> str:
    return "\n".join(path.read_text() for path in sorted((ROOT / folder).rglob("*.py")))


def commands() -> set[str]:
    parser: Any = build_parser()
    return {name for action in parser._subparsers._group_actions for name in action.choices}


def values() -> set[str]:
    """Every value of the chart by its dotted name, its groups too."""
    found: set[str] = set()

    def walk(at: str, part: Any) -> None:
        found.add(at)
        for key, value in part.items() if isinstance(part, dict) else ():
            walk(f"{at}.{key}" if at else key, value)

    walk("", yaml.safe_load((ROOT / "charts" / "serin" / "values.yaml").read_text()))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_is_there(page: Path) -> None:
    named = re.findall(r"`((?:tests|controller|manifests|charts|docs|release)/[\w./-]+?)/?`", page.read_text())

    assert [name for name in named if not (ROOT / name).exists() and not name.startswith(ELSEWHERE)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_is_named_is_there(page: Path) -> None:
    tests = set(re.findall(r"def (test_\w+)", sources("tests")))
    named = re.findall(r"`(test_\w+)(\.\.\.)?`", page.read_text())

    missing = [
        name for name, rest in named if name not in tests and not (rest and any(t.startswith(name) for t in tests))
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_the_plugin_that_is_named_is_one(page: Path) -> None:
    named = set(re.findall(r"kubectl canary ([a-z-]+)", page.read_text()))

    assert named <= commands() | {"check"}, named - commands()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_line_of_the_plugin_is_one_that_it_takes(page: Path) -> None:
    """Lines of examples, with what stands for a name made one."""
    text = page.read_text().replace("\\\n", " ")
    lines = re.findall(r"^(?:    |\$ )? *(kubectl canary [a-z-]+ [^\n`]*)", text, re.MULTILINE)
    for line in lines:
        plain = re.sub(r"\"?\$\{?[A-Z]\w*[^\s\"]*\"?|\b[A-Z]{3,}\b", "name", line)
        words = shlex.split(re.split(r" #| {3,}| > | \|\|? | && ", plain)[0])[2:]
        if words[0] in commands():
            build_parser().parse_args(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_value_of_the_chart_that_is_named_is_one(page: Path) -> None:
    groups = "image|metrics|hold|rbac|networkPolicy|observability|uninstall"
    named = set(re.findall(rf"`(?:--set )?((?:{groups})\.[A-Za-z.]+)", page.read_text()))
    named |= {
        one
        for line in re.findall(r"--set (\S+)", page.read_text())
        for one in re.findall(rf"\b((?:{groups})\.[A-Za-z.]+)=", line)
    }

    assert {name.rstrip(".") for name in named} - values() == set()


@pytest.mark.parametrize("page", ["guardrails.md", "provenance.md", "records.md"])
def test_every_command_of_a_page_that_is_typed_by_a_test_stands_where_the_test_finds_it(page: str) -> None:
    """tests/cluster/pages.py runs what stands between fences marked `sh`, and nothing else."""
    text = (ROOT / "docs" / page).read_text()
    rest = re.sub(r"^```sh.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)

    assert re.findall(r"^(?: {4}|\t|\$ )\s*(?:kubectl|helm|openssl|git|docker) .*", rest, re.MULTILINE) == []
    assert "```" not in rest


def test_every_wish_is_there_once_and_names_a_test_or_says_that_it_is_not_built() -> None:
    text = (ROOT / "docs" / "guardrails.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (.+) \| (.+) \| (.+) \|$", text, re.MULTILINE)

    assert [int(number) for number, *_ in rows] == list(range(1, 46))
    assert [number for number, _, today, shown in rows if "`" not in shown and not BARE.search(today)] == []


def test_every_reason_that_troubleshooting_names_is_one() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    code = sources("controller")

    named = set(re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)*)`", text)) - {"Decision"}
    assert [name for name in sorted(named) if f'"{name}' not in code and f"{name} " not in code] == []


def test_every_reason_that_needs_a_person_is_in_troubleshooting() -> None:
    from controller.rollout.conditions import HOLDS, PEOPLE, TO_MEND

    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    assert [reason for reason in sorted(HOLDS | PEOPLE | TO_MEND) if f"`{reason}`" not in text] == []


def test_the_threat_model_has_every_number_once() -> None:
    numbers = re.findall(r"^\| T(\d+) \|", (ROOT / "docs" / "threat-model.md").read_text(), re.MULTILINE)

    assert numbers == [str(number) for number in range(1, 35)]
