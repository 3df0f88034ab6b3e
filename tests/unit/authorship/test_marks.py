"""Lines as tools write them are found; lines of people who have such names, or write about tools, are not."""

from pathlib import Path

import pytest
import yaml

from controller.authorship.commits import Commit, classify
from controller.authorship.marks import Kind, is_person, marks_of
from controller.model.origin import Degree, Origin

EXAMPLES = yaml.safe_load(Path(__file__).with_name("examples.yaml").read_text(encoding="utf-8"))
MARKED = [(one["field"], line) for one in EXAMPLES for line in one["marked"]]
DRAWN = yaml.safe_load(Path(__file__).with_name("drawn.yaml").read_text(encoding="utf-8"))
PLAIN = [(one["field"], line) for one in EXAMPLES for line in one.get("plain", ())]


def commit_with(line: str) -> Commit:
    """A line of the message, or the subject or the author where it says so."""
    if line.startswith("AUTHOR "):
        name, address = line.removeprefix("AUTHOR ").removesuffix(">").split(" <")
        return Commit("1", name, address, address, "fix: retry")
    message = line.removeprefix("SUBJECT ") if line.startswith("SUBJECT ") else f"fix: retry\n\n{line}"
    return Commit("1", "Ann", "ann@example.com", "ann@example.com", message)


@pytest.mark.parametrize(("field", "line"), MARKED)
def test_what_a_tool_leaves_behind_is_a_mark(field: str, line: str) -> None:
    assert [mark for mark in marks_of(field, line) if mark.kind is Kind.AI]


@pytest.mark.parametrize(("field", "line"), PLAIN)
def test_a_person_or_a_word_is_no_mark(field: str, line: str) -> None:
    assert not [mark for mark in marks_of(field, line) if mark.kind is Kind.AI]


@pytest.mark.parametrize(
    ("line", "tool", "model", "degree"),
    [
        (
            "Co-Authored-By: Claude Opus 4.6 (1M context) <noreply@anthropic.com>",
            "claude-code",
            "Claude Opus 4.6 (1M context)",
            Degree.GENERATED,
        ),
        ("Co-authored-by: Claude <noreply@anthropic.com>", "claude-code", "", Degree.GENERATED),
        ("Co-authored-by: GPT 5.5 <codex@openai.com>", "codex", "GPT 5.5", Degree.GENERATED),
        (
            "Co-authored-by: aider (gemini/gemini-2.5-pro) <aider@aider.chat>",
            "aider",
            "gemini/gemini-2.5-pro",
            Degree.GENERATED,
        ),
        ("Assisted-by: Claude:claude-3-opus coccinelle sparse", "claude", "claude-3-opus", Degree.ASSISTED),
        ("Assisted-by: Claude Opus 4.6 (via Cursor)", "cursor", "Claude Opus 4.6", Degree.ASSISTED),
        (
            "Assisted-by: GitHub Copilot (model: Claude Opus 4.8, autonomous)",
            "github-copilot",
            "Claude Opus 4.8",
            Degree.AUTONOMOUS,
        ),
        ("Assisted-by: GitHub Copilot (model: GPT-5, supervised)", "github-copilot", "GPT-5", Degree.ASSISTED),
    ],
)
def test_tool_model_and_degree_are_read_from_the_line(line: str, tool: str, model: str, degree: Degree) -> None:
    mark = marks_of("trailer", line)[0]

    assert (mark.tool, mark.model, mark.degree) == (tool, model, degree)


def test_a_plain_bot_is_automation_and_a_private_checkpoint_address_says_nothing() -> None:
    assert marks_of("author_email", "49699333+dependabot[bot]@users.noreply.github.com")[0].kind is Kind.AUTOMATION
    assert marks_of("author_email", "gemini-cli@google.com")[0].kind is Kind.NOISE


def test_a_ticked_box_that_denies_is_no_mark_of_an_ai() -> None:
    denied = "- [x] This contribution was NOT assisted or created by Generative AI tools."

    assert [mark.kind for mark in marks_of("pr_body_line", denied)] == [Kind.DENIED]


def test_people_are_told_from_tools_and_bots_by_their_address() -> None:
    assert is_person("81847+claude@users.noreply.github.com")
    assert not is_person("noreply@anthropic.com")
    assert not is_person("1+some-app[bot]@users.noreply.github.com")


@pytest.mark.parametrize("field", ["trailer", "message_line", "author_email", "author_name", "subject", "pr_body_line"])
@pytest.mark.parametrize(
    "text",
    [
        "Co-authored-by: " + "(a " * 40000,
        "generated with " + "[" * 100000,
        "🤖" * 50000,
        "Assisted-by: " + "a:" * 50000,
        "Co-authored-by: x <" + "a_" * 50000 + ">",
        "Co-authored-by: " + "claude-" * 50000,
        "Generated with Claude" + " via a b" * 50000,
        "🤖 Generated with " + " " * 50000 + "!",
        "AI-Tool" + "-id" * 50000 + ": ",
        "\x00",
        "",
    ],
)
def test_no_line_is_too_odd_to_be_read(field: str, text: str) -> None:
    assert not [mark for mark in marks_of(field, text) if mark.kind is Kind.AI]


@pytest.mark.parametrize("line", DRAWN["found"] + DRAWN["listed"])
def test_a_spelling_that_was_drawn_from_public_histories_is_found(line: str) -> None:
    assert classify(commit_with(line)).origin is Origin.AI


@pytest.mark.parametrize("line", DRAWN["plain"])
def test_people_bots_and_prose_that_come_close_are_no_marks(line: str) -> None:
    assert classify(commit_with(line)).origin is not Origin.AI


@pytest.mark.parametrize(
    "said",
    [
        "Jane Doe (Example AI) <jane@example.com>",
        "Ai Tanaka <ai.tanaka@example.com>",
        "Acme AI <hello@acme.example>",
        "Agent Smith <smith@gmail.com>",
        "Jenkins Agent <noreply@ci.example>",
        "Jean and Marie <jm@example.com>",
        "Cursor <123+cursor-fan@users.noreply.github.com>",
        "Tom <tom@anthropic.com>",
    ],
)
def test_an_employer_a_name_and_a_build_system_are_no_marks(said: str) -> None:
    assert marks_of("trailer", f"Co-authored-by: {said}") == ()
