"""`kubectl canary attest` without a registry: what is signed, what is refused, and the workflow that calls it."""

from __future__ import annotations

import base64
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.attestations.bundles import _say_how, open_bundle
from controller.attestations.dsse import Unverified
from controller.attestations.statements import Verified, verify
from controller.cli.main import build_parser, main
from controller.model.policy import Signer
from tests.unit.attestations.signing import DIGEST, NOON, pem, private_pem, signer
from tests.unit.cli.test_origin import CLAUDE, Repo

ROOT = Path(__file__).parents[3]
IMAGE = f"registry.example/shop@{DIGEST}"


class Attested:
    """One clone, one key, and what comes of attesting."""

    def __init__(self, folder: Path) -> None:
        (folder / "repo").mkdir()
        self.repo, self.key, self.envelope = Repo(folder / "repo"), folder / "key.pem", folder / "statement.json"
        self.key.write_bytes(private_pem())

    def run(self, *more: str) -> int:
        words = ["--key", str(self.key), "--repo", str(self.repo.path), "--no-push", "-o", str(self.envelope)]
        return main(["attest", IMAGE, *words, *more])

    def statement(self) -> dict[str, Any]:
        return dict(json.loads(base64.b64decode(json.loads(self.envelope.read_text())["payload"])))


@pytest.fixture
def attested(tmp_path: Path) -> Attested:
    return Attested(tmp_path)


def test_the_statement_says_all_that_is_known_and_is_believed_by_who_has_the_key(attested: Attested) -> None:
    base = attested.repo.commit("first")
    last = attested.repo.commit(f"x\n\n{CLAUDE}")
    words = ("--accountable", "owner", "--prompter", "bo", "--reversible", "no", "--change", "https://forge.example/7")

    assert attested.run("--range", f"{base}..{last}", "--source", "git+https://git.example/shop", *words) == 0
    predicate = attested.statement()["predicate"]

    assert {key: predicate[key] for key in ("origin", "degree", "reversible", "accountable")} == {
        "origin": "ai",
        "degree": "generated",
        "reversible": False,
        "accountable": {"id": "owner"},
    }
    assert predicate["source"] == {
        "repository": "git+https://git.example/shop",
        "revision": last,
        "baseRevision": base,
        "change": "https://forge.example/7",
    }
    assert predicate["tools"] == [{"name": "claude-code", "model": "Claude Opus 4.6"}]
    assert [one["role"] for one in predicate["authors"]] == ["author", "prompter"]
    assert [one["pattern"] for one in predicate["evidence"]] == ["claude-trailer"]
    now = NOON.replace(year=2100)
    assert isinstance(verify(attested.envelope.read_bytes(), DIGEST, [signer()], now), Verified)


def test_what_is_released_with_the_image_is_named_by_its_class(attested: Attested) -> None:
    attested.repo.commit("first")

    assert attested.run("--class", "config", "--class", "auth", "--class", "config") == 0
    assert attested.statement()["predicate"]["changeClasses"] == ["auth", "config"]
    found = verify(attested.envelope.read_bytes(), DIGEST, [signer()], NOON.replace(year=2100))
    assert isinstance(found, Verified)
    assert found.origin is not None
    assert found.origin.change_classes == ("auth", "config")


def assert_refused(attested: Attested, more: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It ends with 1, says why, and has signed nothing."""
    assert attested.run(*more) == 1
    assert says in capsys.readouterr().err
    assert not attested.envelope.exists()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--origin", "human"), "marks of ai"),
        (("--prompt-uri", "https://x.example/?token=abc"), "password or token"),
        (("--source", "git+https://ann:secret@git.example/shop"), "password or token"),
        (("--change", "x" * 2000), "at most 1024"),
        (("--prompt-file", "/nowhere"), "--prompt-file"),
        (("--range", "nope..HEAD"), "nope"),
        (("--range", "HEAD..HEAD", "--origin", "human"), "no commit is in HEAD..HEAD"),
        (("--range", "HEAD^!"), "'HEAD^!' is not one commit: write the range as A..B"),
        (("--source", "https://[shop"), "--source: https://[shop is no link"),
        (("--pr-body", "/nowhere"), "--pr-body /nowhere"),
        (("-o", "/nowhere/statement.json"), "-o /nowhere/statement.json"),
        (tuple(word for number in range(41) for word in ("--prompter", f"p{number}")), "authors"),
    ],
)
def test_what_must_not_be_signed_is_refused(
    attested: Attested, more: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    attested.repo.commit(f"x\n\n{CLAUDE}")

    assert_refused(attested, more, says, capsys)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--prompter", ""), "--prompter: a name in it is empty, as of a variable that is not set: write mailto:ann@"),
        (("--prompter", "Ann <ann@example.com>"), "write the address alone, mailto:ann@example.com"),
        (("--prompter", "ann\u200b"), "--prompter ann\\u200b: a character in it cannot be seen"),
        (("--prompter", "ann\x1b[2J"), "ann\\x1b[2J: a character in it cannot be seen"),
        (("--prompter", "renovate[bot]"), "that is a bot: name the person"),
        (("--prompter", "a" * 257), "--prompter: 257 characters, at most 256"),
        (("--accountable", " "), "--accountable: a name in it is empty"),
        (("--pr-login", "ann\nbo"), "--pr-login ann\\nbo: a character in it cannot be seen"),
        (("--tool", ""), "--tool: a name in it is empty, as of a variable that is not set: write NAME or NAME=MODEL"),
        (("--tool", "="), "--tool =: a name in it is empty"),
        (("--tool", "cursor="), "--tool cursor=: a name in it is empty"),
        (("--tool", "=gpt-5"), "--tool =gpt-5: a name in it is empty"),
        (("--tool", "cursor=gpt=5"), "more than one =: write NAME or NAME=MODEL, such as cursor=gpt-5"),
        (("--change", "javascript:alert(1)"), "--change: javascript:alert(1) is no link: write https://..."),
        (("--change", "javascript://forge.example/%0aalert(1)"), "is no link"),
        (("--change", "https://forge.example/7\x1b]0;x\x07"), "cannot be seen: write one line"),
        (("--change", "pull 7"), "--change: pull 7 is no link: write https://..."),
        (("--prompt-uri", "data:text/html,x"), "--prompt-uri: data:text/html,x is no link"),
        (("--prompt-uri", "https://"), "is no link"),
        (("--source", "shop"), "--source: shop is no link"),
        (
            ("--human-modifications", "all\nof it"),
            "all\\nof it: a character in it is a line break",
        ),
        (("--degree", "assisted"), "--degree assisted: the commits carry marks of generated: leave it out"),
    ],
)
def test_what_nobody_can_mean_is_refused_with_what_to_write_before_anything_is_signed(
    attested: Attested, more: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    attested.repo.commit(f"x\n\n{CLAUDE}")

    assert_refused(attested, more, says, capsys)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--origin", "human", "--degree", "autonomous"), "--degree autonomous: a change of origin human has none"),
        (("--origin", "automation", "--degree", "generated"), "a change of origin automation has none"),
        (("--unmarked", "human", "--degree", "assisted"), "a change of origin human has none"),
        (
            ("--origin", "human", "--tool", "cursor"),
            "--tool: a change of origin human has none: leave it out",
        ),
        (("--unmarked", "human", "--prompter", "bo"), "--prompter: a change of origin human has none"),
        (("--prompt-uri", "https://x.example/1"), "--prompt-uri: no mark and no --tool says what was prompted"),
    ],
)
def test_what_contradicts_itself_is_not_signed(
    attested: Attested, more: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    attested.repo.commit("x")

    assert_refused(attested, more, says, capsys)


def test_the_statement_names_what_the_pull_request_said(attested: Attested) -> None:
    attested.repo.commit("x")

    assert attested.run("--pr-label", "AI-generated") == 0
    predicate = attested.statement()["predicate"]

    assert predicate["origin"] == "ai"
    assert predicate["evidence"] == [
        {"kind": "pr_label", "pattern": "pr-label", "ref": "pull-request", "confidence": "low"}
    ]


@pytest.mark.parametrize(
    "source",
    ["git+https://git.example/shop", "https://git.example/shop.git", "git@git.example:acme/shop.git", "ssh://git@x/y"],
)
def test_a_repository_is_named_in_each_way_that_git_knows(attested: Attested, source: str) -> None:
    attested.repo.commit("x")

    assert attested.run("--source", source, "--change", "", "--pr-login", "renovate[bot]", "--branch", "") == 0
    assert attested.statement()["predicate"]["source"]["repository"] == source


def test_a_bundle_that_cannot_be_verified_says_why() -> None:
    identity = Signer(name="ci", issuer="https://token.example", identity="https://forge.example/ci")

    with pytest.raises(Unverified, match="cannot be read"):
        open_bundle(b'{"mediaType": "x", "verificationMaterial": {}}', (identity,))
    with pytest.raises(Unverified, match="extra `sigstore`"):
        _say_how(b"", (identity,))
    assert pem()


def test_the_workflow_calls_the_command_as_it_is() -> None:
    workflow = yaml.safe_load((ROOT / "docs" / "ci" / "github-actions.yaml").read_text())
    steps = workflow["jobs"]["image"]["steps"]
    script = next(step["run"] for step in steps if "attest" in step.get("run", ""))
    command = re.search(r"kubectl-canary (attest .*?)\n(?!\s*--)", script.replace("\\\n", " "), re.DOTALL)
    assert command is not None
    words = shlex.split(command[1].replace('<<<"$SERIN_KEY"', ""))

    options = build_parser().parse_args(words)

    assert (options.command, options.key, options.accountable) == ("attest", "-", "mailto:owner@example.com")
    # A script of the workflow holds no text of a pull request, only variables.
    assert not [step for step in steps if "${{" in step.get("run", "")]
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"]) for step in steps if "uses" in step)
