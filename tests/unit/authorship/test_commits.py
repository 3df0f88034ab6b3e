"""Of one commit and of many: the worst counts, and nothing in a commit makes it a person's."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.authorship.commits import Classified, Commit, classify, combine
from controller.authorship.notes import parse_note
from controller.model.origin import Degree, Origin

COPILOT = "198982749+Copilot@users.noreply.github.com"
DEPENDABOT = "49699333+dependabot[bot]@users.noreply.github.com"
NOTE = {
    "schema_version": "authorship/3.0.0",
    "base_commit_sha": "0" * 40,
    "prompts": {},
    "sessions": {
        "s_0123456789abcd": {
            "agent_id": {"tool": "cursor", "id": "1", "model": "gpt-5"},
            "human_author": "Ann <ann@example.com>",
        }
    },
    "humans": {"h_0123456789abcd": {"author": "Bo <bo@example.com>"}},
}
AI_LINE = "  s_0123456789abcd::t_0123456789abcd 1-4,9"
HUMAN_LINE = "  h_0123456789abcd 10-12"


def commit(message: str = "fix: retry", email: str = "ann@example.com", **changes: Any) -> Commit:
    usual: dict[str, Any] = {
        "sha": "1" * 40,
        "author_name": "Ann",
        "author_email": email,
        "committer_email": "noreply@github.com",
        "message": message,
    }
    return Commit(**usual | changes)


def note(*lines: str, about: Any = None) -> str:
    return "\n".join(["src/pay.py", *lines, "---", json.dumps(NOTE if about is None else about)])


@pytest.mark.parametrize(
    ("given_commit", "origin"),
    [
        pytest.param(commit(), Origin.UNKNOWN, id="no mark proves nothing"),
        pytest.param(commit("x\n\nCo-authored-by: Claude <noreply@anthropic.com>"), Origin.AI, id="trailer"),
        pytest.param(
            commit("x (#7)\n\n* one\n\nCo-authored-by: Claude <noreply@anthropic.com>\n\n* two\n\nbody"),
            Origin.AI,
            id="a squash pushed the trailer into the middle",
        ),
        pytest.param(
            commit("x\r\n\r\nCo-authored-by: Claude <noreply@anthropic.com>\r\n"),
            Origin.AI,
            id="lines end as on Windows",
        ),
        pytest.param(
            commit("docs: say how\n\n    Co-authored-by: Claude <noreply@anthropic.com>\n\nis written"),
            Origin.UNKNOWN,
            id="a quotation",
        ),
        pytest.param(commit("x\n\nCo-authored-by: Claude\n <noreply@anthropic.com>"), Origin.AI, id="folded"),
        pytest.param(commit("x\n\n_Assisted-by: Crush <crush@charm.land>_"), Origin.AI, id="emphasised"),
        pytest.param(commit("x\n\n\u200bCo-authored-by: Claude <noreply@anthropic.com>"), Origin.AI, id="hidden"),
        pytest.param(commit(email=COPILOT), Origin.AI, id="the agent is the author"),
        pytest.param(commit(committer_email="noreply@anthropic.com"), Origin.AI, id="the agent is the committer"),
        pytest.param(commit(email=DEPENDABOT), Origin.AUTOMATION, id="a bot that bumps versions"),
        pytest.param(commit(committer_email=DEPENDABOT), Origin.UNKNOWN, id="a bot that only committed"),
        pytest.param(
            commit(email="5+who-knows[bot]@users.noreply.github.com"), Origin.UNKNOWN, id="a bot nobody listed"
        ),
        pytest.param(
            commit("bump\n\nArgocd-reference-commit-sha: 12ab", email=DEPENDABOT),
            Origin.UNKNOWN,
            id="a bump that points at code elsewhere",
        ),
        pytest.param(
            commit(f"bump\n\nArgocd-reference-commit-author: Copilot <{COPILOT}>", email=DEPENDABOT),
            Origin.AI,
            id="a bump of code that an agent wrote",
        ),
        pytest.param(commit("aider: add retry"), Origin.AI, id="subject"),
        pytest.param(commit(author_name="Ann Lee (aider)"), Origin.AI, id="name"),
        pytest.param(commit(paths=(".agent-trace/traces.jsonl",)), Origin.AI, id="a record of an agent"),
        pytest.param(commit(note=note(AI_LINE)), Origin.AI, id="note"),
        pytest.param(commit(note=note(AI_LINE, HUMAN_LINE)), Origin.MIXED, id="note with both"),
        pytest.param(commit(note=note(HUMAN_LINE), added=3), Origin.HUMAN, id="every added line is a person's"),
        pytest.param(commit(note=note(HUMAN_LINE), added=4), Origin.UNKNOWN, id="one line is untracked"),
        pytest.param(commit(note=note(HUMAN_LINE)), Origin.UNKNOWN, id="nobody counted the lines"),
        pytest.param(
            commit("x\n\nCo-authored-by: Claude <noreply@anthropic.com>", note=note(HUMAN_LINE), added=3),
            Origin.AI,
            id="a note does not take a trailer back",
        ),
        pytest.param(
            commit("x\n\nOrigin: human\nHuman-Authored: yes\nAI-Generated: false"), Origin.UNKNOWN, id="looks human"
        ),
    ],
)
def test_the_origin_of_one_commit(given_commit: Commit, origin: Origin) -> None:
    assert classify(given_commit).origin is origin


def test_where_ai_must_be_declared_an_unmarked_commit_counts_as_a_persons_and_a_marked_or_unlisted_one_does_not() -> (
    None
):
    assert classify(commit(), unmarked=Origin.HUMAN).origin is Origin.HUMAN
    assert classify(commit(email=COPILOT), unmarked=Origin.HUMAN).origin is Origin.AI
    assert classify(commit(email="5+app[bot]@users.noreply.github.com"), unmarked=Origin.HUMAN).origin is Origin.UNKNOWN


def test_a_note_tells_tool_model_lines_and_who_prompted() -> None:
    found = classify(commit(note=note(AI_LINE, HUMAN_LINE)))

    assert (found.tool, found.model) == ("cursor", "gpt-5")
    assert found.note is not None
    assert (found.note.ai_lines, found.note.human_lines) == (5, 3)
    assert found.authors == ("ann@example.com", "bo@example.com")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no line ---"),
        ("a\n---\n{", "no JSON"),
        ("a\n---\n[]", "schema_version"),
        ('a\n---\n{"schema_version": "3.0.0"}', "schema_version"),
        (note("  s_0123456789abcd::t_0123456789abcd 9-1"), "range"),
        (note("  s_0123456789abcd::t_0123456789abcd " + "9" * 5000), "range"),
        (note("  someone 1"), "no known form"),
        ("x" * (2 << 20), "longer"),
        ("a\n---\n" + "[" * 100_000, "no JSON"),
    ],
)
def test_a_note_that_cannot_be_read_says_why_and_proves_nothing(text: str, says: str) -> None:
    assert says in parse_note(text).problem


def test_authors_are_people_only_with_co_authors_and_whoever_assigned_an_agent() -> None:
    given_commit = commit(
        "x\n\nCo-authored-by: Bo <Bo@Example.com>\nCo-authored-by: Claude <noreply@anthropic.com>", email=COPILOT
    )

    assert classify(given_commit).authors == ("bo@example.com",)


def test_a_range_is_as_its_worst_commit_and_an_empty_one_is_unknown() -> None:
    bot, agent = classify(commit(email=DEPENDABOT)), classify(commit(email=COPILOT))

    assert combine([bot]).origin is Origin.AUTOMATION
    assert combine([bot, agent]).origin is Origin.AI
    assert combine([bot, agent]).degree is Degree.AUTONOMOUS
    assert combine([bot, agent]).tools == ("copilot",)
    assert combine([]).origin is Origin.UNKNOWN


ORIGINS = st.lists(st.sampled_from(Origin), max_size=6)


@given(ORIGINS, st.sampled_from(Origin))
def test_one_more_commit_never_makes_a_range_laxer(origins: list[Origin], more: Origin) -> None:
    before = combine([Classified("1", one) for one in origins]) if origins else None
    after = combine([Classified("1", one) for one in [*origins, more]])

    assert after.origin.rank >= (before.origin.rank if before else more.rank)


@given(st.text(max_size=400), st.text(max_size=60), st.text(max_size=60))
def test_no_message_and_no_name_makes_a_commit_a_persons(message: str, name: str, email: str) -> None:
    found = classify(commit(message, email, author_name=name))

    assert found.origin is not Origin.HUMAN


@given(st.text(max_size=200))
def test_a_marked_commit_stays_marked_whatever_else_it_says(text: str) -> None:
    message = f"{text}\n\nCo-authored-by: Claude <noreply@anthropic.com>\n{text}"

    assert classify(commit(message)).origin is Origin.AI
