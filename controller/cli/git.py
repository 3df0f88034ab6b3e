"""git as the source of commits: one `git log` for all of them, notes and counts only where there are any.

Nothing of the repository is trusted: no pager, no hooks, no external helpers; a revision can be no option.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from controller.authorship.commits import Commit
from controller.authorship.notes import LONGEST_NOTE
from controller.cli.kubectl import Failure
from controller.cli.text import plain

NOTES = "refs/notes/ai"
TRACES = ".agent-trace"
_FIELDS = ("%H", "%an", "%ae", "%ce", "%B")
_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SAFE = (
    "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "log.showSignature=false",
    "-c", "i18n.logOutputEncoding=UTF-8", "-c", "diff.external=", "-c", "core.pager=cat",
)  # fmt: skip


def read_commits(repo: Path, revisions: str) -> list[Commit]:
    """Commits of a range as git understands it, newest first. Raises: Failure."""
    try:
        raw = _git(repo, "log", "-z", f"--format={'%x00'.join(_FIELDS)}", "--end-of-options", revisions, "--")
    except Failure as failure:
        # git says that the revision is bad; most often the clone is too small, and a branch has no commit yet.
        fetch = ": is it written as `git log` takes it, and fetched? A clone of depth 1 has one commit, a new one none"
        raise Failure(f"{failure}{fetch if 'bad revision' in str(failure) else ''}") from failure
    parts = raw.decode("utf-8", "replace").split("\0")
    parts = parts[:-1] if parts and not parts[-1] else parts
    width = len(_FIELDS)
    if len(parts) % width or any(not _SHA.fullmatch(sha) for sha in parts[::width]):
        raise Failure("git log answered in a form that cannot be read: is one of the commits corrupt? See `git fsck`")
    columns = (parts[start::width] for start in range(width))
    commits = [Commit(*fields) for fields in zip(*columns, strict=True)]
    notes, traced = _notes(repo, {one.sha for one in commits}), _traced(repo, revisions)
    added = _added(repo, list(notes))
    return [
        replace(one, note=notes.get(one.sha, ""), paths=traced.get(one.sha, ()), added=added.get(one.sha))
        if one.sha in notes or one.sha in traced
        else one
        for one in commits
    ]


def is_shallow(repo: Path) -> bool:
    """Whether the history was cut when it was cloned."""
    return _git(repo, "rev-parse", "--is-shallow-repository").strip() == b"true"


def resolve(repo: Path, revision: str) -> str:
    """The full id of one commit. Raises: Failure."""
    try:
        found = _git(repo, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    except Failure as failure:
        raise Failure(f"{plain(revision)!r} is not one commit: write the range as A..B, or B alone") from failure
    return found.decode().strip()


def remote_url(repo: Path) -> str:
    """Where `origin` points, without a password; empty when there is none."""
    try:
        url = _git(repo, "config", "--get", "remote.origin.url").decode().strip()
    except Failure:
        return ""
    return re.sub(r"//[^/@]*@", "//", url)


def _notes(repo: Path, wanted: set[str]) -> dict[str, str]:
    """The notes of these commits, by commit."""
    try:
        listed = _git(repo, "notes", f"--ref={NOTES}", "list").decode("ascii", "replace")
    except Failure:
        return {}
    blobs = {
        commit: blob for line in listed.splitlines() for blob, _, commit in [line.partition(" ")] if commit in wanted
    }
    if not blobs:
        return {}
    raw = _git(repo, "cat-file", "--batch", stdin="".join(f"{blob}\n" for blob in blobs.values()).encode())
    bodies = _batch(raw)
    return {commit: next(bodies) for commit in blobs}


def _batch(raw: bytes) -> Iterator[str]:
    """The objects of `git cat-file --batch`, in order; of a long one only as much as proves that it is too long."""
    at = 0
    while at < len(raw):
        end = raw.index(b"\n", at)
        head = raw[at:end].split()
        if len(head) != 3:
            yield "missing"
            at = end + 1
            continue
        size = int(head[2])
        yield raw[end + 1 : end + 1 + min(size, LONGEST_NOTE + 1)].decode("utf-8", "replace")
        at = end + 1 + size + 1


def _added(repo: Path, commits: list[str]) -> dict[str, int]:
    """Lines that each of these commits adds."""
    if not commits:
        return {}
    words = ("log", "--no-walk=unsorted", "--stdin", "--no-renames", "--numstat", "--format=commit %H")
    counts: dict[str, int] = {}
    sha = ""
    for line in _git(repo, *words, stdin="\n".join(commits).encode()).decode("utf-8", "replace").splitlines():
        if line.startswith("commit "):
            sha = line[7:]
            counts[sha] = 0
        elif (number := line.partition("\t")[0]).isdigit():
            counts[sha] += int(number)
    return counts


def _traced(repo: Path, revisions: str) -> dict[str, tuple[str, ...]]:
    """Commits that touch records of agents, with the files; git prunes the rest of the tree."""
    words = (
        "log",
        "-z",
        "--name-only",
        "--no-renames",
        "--format=commit %H",
        "--end-of-options",
        revisions,
        "--",
        TRACES,
    )
    found: dict[str, tuple[str, ...]] = {}
    sha = ""
    for part in _git(repo, *words).decode("utf-8", "replace").split("\0"):
        text = part.strip("\n")
        if text.startswith("commit ") and _SHA.fullmatch(text[7:]):
            sha = text[7:]
        elif text and sha:
            found[sha] = (*found.get(sha, ()), text)
    return found


def _git(repo: Path, *words: str, stdin: bytes = b"") -> bytes:
    if not repo.is_dir():
        raise Failure(f"--repo {repo}: no such directory")
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1"}
    try:
        done = subprocess.run(
            ["git", "--no-pager", *_SAFE, "-C", str(repo), *words],
            input=stdin,
            capture_output=True,
            env=environment,
            check=False,
        )
    except FileNotFoundError:
        raise Failure("git is not on PATH: install it, since the commits are read with it") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip() or f"git {words[0]} ended with status {done.returncode}"
        raise Failure(said.splitlines()[0].removeprefix("fatal: "))
    return done.stdout
