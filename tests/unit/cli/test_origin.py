"""`kubectl canary origin` on real repositories."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from controller.cli.main import main

CLAUDE = "Co-authored-by: Claude Opus 4.6 <noreply@anthropic.com>"


class Repo:
    """A repository with one commit a call."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.git("init", "-q", "-b", "main")

    def git(self, *words: str, **env: str) -> str:
        usual = {
            "GIT_AUTHOR_NAME": "Ann",
            "GIT_AUTHOR_EMAIL": "ann@example.com",
            "GIT_COMMITTER_NAME": "Ann",
            "GIT_COMMITTER_EMAIL": "ann@example.com",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_SYSTEM": os.devnull,
        }
        done = subprocess.run(
            ["git", "-C", str(self.path), *words], env=os.environ | usual | env, capture_output=True, check=True
        )
        return done.stdout.decode().strip()

    def commit(self, message: str, files: dict[str, str] | None = None, **env: str) -> str:
        for name, text in (files or {}).items():
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            (self.path / name).write_text(text)
            self.git("add", name)
        self.git("commit", "-q", "--allow-empty", "--cleanup=verbatim", "-m", message, **env)
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo(tmp_path)


def origin(repo: Repo, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["origin", "--repo", str(repo.path), *words, "-o", "json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_the_document_names_each_commit_its_evidence_and_the_range(
    repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    base = repo.commit("first")
    marked = repo.commit(f"fix: retry\n\n{CLAUDE}")

    assert origin(repo, capsys, f"{base}..HEAD") == {
        "commits": [
            {
                "sha": marked,
                "origin": "ai",
                "degree": "generated",
                "tool": "claude-code",
                "model": "Claude Opus 4.6",
                "evidence": [{"pattern": "claude-trailer", "field": "trailer", "text": CLAUDE}],
            }
        ],
        "range": {
            "origin": "ai",
            "degree": "generated",
            "tools": ["claude-code"],
            "authors": ["ann@example.com"],
        },
    }


def test_without_a_range_the_whole_history_counts_newest_first(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    first = repo.commit(f"one\n\n{CLAUDE}")
    last = repo.commit("two")

    assert [one["sha"] for one in origin(repo, capsys)["commits"]] == [last, first]


def test_a_note_gives_lines_and_every_added_line_by_a_person_makes_a_commit_human(
    repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    sha = repo.commit("pay", {"pay.py": "a\nb\n"})
    about = {"schema_version": "authorship/3.0.0", "humans": {"h_0123456789abcd": {"author": "Ann <ann@example.com>"}}}
    repo.git(
        "notes", "--ref=refs/notes/ai", "add", "-m", f"pay.py\n  h_0123456789abcd 1-2\n---\n{json.dumps(about)}", sha
    )

    found = origin(repo, capsys)["commits"][0]

    assert (found["origin"], found["lines"]) == ("human", {"ai": 0, "human": 2})


def test_the_record_of_an_agent_among_the_files_is_a_mark(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    repo.commit("one", {"a.py": "1"})
    repo.commit("two", {".agent-trace/traces.jsonl": "{}", "ünï cödé.py": "2"})

    assert [one["origin"] for one in origin(repo, capsys)["commits"]] == ["ai", "unknown"]


def test_nothing_in_a_commit_moves_the_cursor_of_whoever_reads_about_it(
    repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\u202e"
    repo.commit(f"x\n\nAssisted-by: Claude {evil} <b>bold</b>", GIT_AUTHOR_NAME=f"Ann {evil} (aider)")

    assert main(["origin", "--repo", str(repo.path)]) == 0
    shown = capsys.readouterr().out
    document = origin(repo, capsys)

    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert document["range"]["origin"] == "ai"
    assert "\x1b" not in "".join(json.loads(json.dumps(document["commits"][0]["evidence"]))[0].values())


def test_what_the_pull_request_says_makes_a_range_stricter_only(
    repo: Repo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repo.commit("x")
    body = tmp_path / "body.md"
    body.write_text("- [x] This contribution was NOT assisted or created by Generative AI tools.\n")

    assert origin(repo, capsys, "--pr-body", str(body))["range"]["origin"] == "unknown"
    assert origin(repo, capsys, "--branch", "copilot/fix-1")["range"]["origin"] == "ai"
    assert origin(repo, capsys, "--unmarked", "human")["range"]["origin"] == "human"
    assert origin(repo, capsys, "--unmarked", "human", "--pr-label", "AI-generated")["range"]["origin"] == "ai"


@pytest.mark.parametrize(
    ("words", "evidence"),
    [
        (("--pr-login", "copilot-swe-agent[bot]"), ("copilot-login", "pr_login", "copilot-swe-agent[bot]")),
        (("--branch", "codex/retry"), ("branch-prefix", "branch", "codex/retry")),
        (("--pr-label", "AI-generated"), ("pr-label", "pr_label", "AI-generated")),
        (
            ("--pr-body", "{body}"),
            ("claude-footer", "message_line", "Generated with [Claude Code](https://claude.com/claude-code)"),
        ),
    ],
)
def test_what_the_pull_request_says_is_named_like_what_a_commit_says(
    repo: Repo,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, str],
    evidence: tuple[str, str, str],
) -> None:
    repo.commit("x")
    body = tmp_path / "body.md"
    body.write_text("retries\n\nGenerated with [Claude Code](https://claude.com/claude-code)\n")
    said = (words[0], words[1].format(body=body))

    found = origin(repo, capsys, *said)["range"]
    assert main(["origin", "--repo", str(repo.path), *said]) == 0
    told = capsys.readouterr().out

    assert found["origin"] == "ai"
    assert found["evidence"][:1] == [dict(zip(("pattern", "field", "text"), evidence, strict=True))]
    assert f"    {evidence[0]} {evidence[1]}: {evidence[2]}" in told


@pytest.mark.parametrize("words", [["no-such-branch"], ["--repo", "/nowhere"], ["HEAD~99..HEAD"]])
def test_a_range_that_is_not_there_is_an_error_with_its_name(
    words: list[str], repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    repo.commit("x")

    assert main(["origin", "--repo", str(repo.path), *words]) == 1
    assert words[-1].split("..")[0] in capsys.readouterr().err


def test_a_description_that_is_not_there_is_named(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    repo.commit("x")

    assert main(["origin", "--repo", str(repo.path), "--pr-body", "/nowhere"]) == 1
    assert "error: --pr-body /nowhere: there is no such file" in capsys.readouterr().err


def test_a_repository_without_a_commit_is_said_to_have_none(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["origin", "--repo", str(repo.path)]) == 1
    assert "bad revision 'HEAD': is it written as `git log` takes it, and fetched?" in capsys.readouterr().err


def test_a_revision_cannot_be_an_option_of_git(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    repo.commit("x")

    assert main(["origin", "--repo", str(repo.path), "--", f"--output={repo.path}/written"]) == 1
    assert not (repo.path / "written").exists()


def test_a_shallow_clone_is_said_to_be_one(repo: Repo, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    repo.commit("one")
    repo.commit("two")
    subprocess.run(
        ["git", "clone", "-q", "--depth=1", f"file://{repo.path}", str(tmp_path / "clone")],
        check=True,
        capture_output=True,
    )

    assert main(["origin", "--repo", str(tmp_path / "clone")]) == 0
    assert "shallow" in capsys.readouterr().err
