"""A commit in, its origin out; and of many commits the origin of all together.

The one thing to know: a mark of an AI is believed, and the lack of one is not. A commit without any mark is of
unknown origin, since every mark can be switched off. Nothing in a commit can make it a person's: only somebody who
answers for it says that, by signing a statement.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from controller.authorship.marks import Kind, Mark, addresses_in, is_person, is_trailer, marks_of, may_be_footer
from controller.authorship.notes import Note, parse_note
from controller.model.origin import Degree, Origin, furthest_degree, worst_origin

_CONFIDENCE = {"low": 0, "medium": 1, "high": 2}
_DEPLOYED = "argocd-reference-commit-"
_NAMING = (f"{_DEPLOYED}author", "requested-by:", "prompted-by:")
_FOLDED = re.compile(r"\r?\n[ \t]+(?=<[^<>\s]+@)")
"""a trailer whose address stands on the next line"""


@dataclass(frozen=True)
class Commit:
    """What git says about one commit."""

    sha: str
    author_name: str
    author_email: str
    committer_email: str
    message: str
    note: str = ""
    """its note under refs/notes/ai"""
    paths: tuple[str, ...] = ()
    """files of the commit that are records of agents"""
    added: int | None = None
    """lines it adds, where they were counted"""


@dataclass(frozen=True)
class Classified:
    """One commit and who wrote it."""

    sha: str
    origin: Origin
    degree: Degree = Degree.UNSAID
    tool: str = ""
    model: str = ""
    evidence: tuple[Mark, ...] = ()
    authors: tuple[str, ...] = ()
    """people who wrote, co-wrote or prompted it"""
    note: Note | None = None


@dataclass(frozen=True)
class Range:
    """All commits since the last release, together."""

    origin: Origin
    degree: Degree
    tools: tuple[str, ...] = ()
    authors: tuple[str, ...] = ()
    declared: tuple[Mark, ...] = ()
    """what stands beside the commits, such as marks of a pull request"""
    commits: tuple[Classified, ...] = field(default=(), repr=False)


def classify(commit: Commit, *, unmarked: Origin = Origin.UNKNOWN) -> Classified:
    """Who wrote one commit. `unmarked` is what a commit without a mark by an author who is no bot counts as.

    >>> classify(Commit("1", "Ann", "ann@example.com", "ann@example.com", "fix: retry")).origin
    <Origin.UNKNOWN: 'unknown'>
    """
    note = parse_note(commit.note) if commit.note else None
    evidence = _evidence(commit, note)
    marks = [mark for mark in evidence if mark.kind is Kind.AI]
    strongest = max(marks, key=lambda mark: (_CONFIDENCE[mark.confidence], mark.degree.rank), default=None)
    models = [mark.model for mark in marks if mark.model]
    return Classified(
        sha=commit.sha,
        origin=_origin(commit, evidence, note, unmarked),
        degree=furthest_degree(mark.degree for mark in marks),
        tool=strongest.tool if strongest else "",
        model=(strongest.model if strongest else "") or (models[0] if models else ""),
        evidence=evidence,
        authors=_authors(commit, note),
        note=note,
    )


def combine(commits: Iterable[Classified], declared: Iterable[Mark] = ()) -> Range:
    """The range: the worst origin, the furthest degree, every tool and every person."""
    found, said = tuple(commits), tuple(dict.fromkeys(declared))
    beside = [mark for mark in said if mark.kind is Kind.AI]
    origins = [one.origin for one in found] + [Origin.AI for _ in beside]
    tools = {mark.tool for one in found for mark in one.evidence if mark.kind is Kind.AI} | {m.tool for m in beside}
    return Range(
        origin=worst_origin(origins),
        degree=furthest_degree([*(one.degree for one in found), *(mark.degree for mark in beside)]),
        tools=tuple(sorted(tools - {""})),
        authors=tuple(sorted({author for one in found for author in one.authors})),
        declared=said,
        commits=found,
    )


def _evidence(commit: Commit, note: Note | None) -> tuple[Mark, ...]:
    found: list[Mark] = []
    found += marks_of("author_email", commit.author_email)
    if commit.committer_email != commit.author_email:
        # A bot that commits a person's work has not written it; an AI's address there is a mark.
        found += [mark for mark in marks_of("committer_email", commit.committer_email) if mark.kind is Kind.AI]
    found += marks_of("author_name", commit.author_name)
    found += marks_of("author", f"{commit.author_name} <{commit.author_email}>")
    found += _message_marks(commit.message)
    found += [mark for path in commit.paths for mark in marks_of("path", path)]
    if note is not None and note.ai_lines:
        text = f"{note.schema}: {note.ai_lines} lines by {note.tool or 'an AI'}, {note.human_lines} by people"
        degree = Degree.ASSISTED if note.human_lines > note.ai_lines else Degree.GENERATED
        tool = note.tool or "git-ai"
        found.append(Mark("git-ai-note", "note", text, Kind.AI, tool, note.model, degree, "high"))
    elif note is not None:
        text = f"not readable: {note.problem}" if note.problem else f"{note.human_lines} lines by people, none by an AI"
        found.append(Mark("git-ai-note", "note", text, Kind.DENIED if not note.problem else Kind.NOISE))
    return tuple(dict.fromkeys(found))


def _message_marks(message: str) -> list[Mark]:
    """Trailers at the start of any line, since a squash pushes them into the middle; and footers."""
    found: list[Mark] = []
    footers = may_be_footer(message)
    for number, line in enumerate(_FOLDED.sub(" ", message).splitlines()):
        # As in Markdown, four spaces are a quotation: the line speaks about a mark and is none.
        if line.startswith(("    ", "\t", "   \t")):
            continue
        text = line.strip()
        if not text:
            continue
        if number == 0:
            found += marks_of("subject", text)
        if ":" in text or not text.isascii():
            bare = text.lstrip("\u200b\u200c\u200d\u2060\ufeff")
            # Emphasis, not a bullet.
            if bare[:1] in ("*", "_") and not (plain := bare.strip("*_")).startswith(" "):
                bare = plain
            if is_trailer(bare) or not bare.isascii():
                found += marks_of("trailer", bare)
            if bare.lower().startswith(f"{_DEPLOYED}author") and any(
                mark.kind is Kind.AI for one in addresses_in(bare) for mark in marks_of("author_email", one)
            ):
                found.append(Mark("argocd-reference", "trailer", bare, degree=Degree.AUTONOMOUS, confidence="high"))
        if footers and may_be_footer(text):
            found += marks_of("message_line", text)
    return found


def _origin(commit: Commit, evidence: tuple[Mark, ...], note: Note | None, unmarked: Origin) -> Origin:
    marks = [mark for mark in evidence if mark.kind is Kind.AI]
    if marks:
        only_note = all(mark.pattern == "git-ai-note" for mark in marks)
        return Origin.MIXED if only_note and note is not None and note.human_lines else Origin.AI
    if _DEPLOYED in (said := commit.message.lower()) and any(one.startswith(_DEPLOYED) for one in said.splitlines()):
        # A bot's bump of a version: whoever wrote the code is in the commit it names, not in this one.
        return Origin.UNKNOWN
    if any(mark.kind is Kind.AUTOMATION for mark in evidence):
        return Origin.AUTOMATION
    if note is not None and not note.problem and note.human_lines and note.human_lines >= (commit.added or _ENDLESS):
        return Origin.HUMAN
    if not is_person(commit.author_email):
        return Origin.UNKNOWN
    return unmarked


_ENDLESS = 1 << 62


def _authors(commit: Commit, note: Note | None) -> tuple[str, ...]:
    """Addresses of people: author, co-authors, those whose work a bot deployed, those who prompted."""
    found = [commit.author_email.strip().lower()] if commit.author_email else []
    for line in commit.message.splitlines():
        if ":" not in line:
            continue
        text = line.strip()
        if is_trailer(text) or text.lower().startswith(_NAMING):
            found += addresses_in(text)
    for person in note.people if note else ():
        found += addresses_in(person) or [person.lower()]
    return tuple(sorted({one for one in found if is_person(one)}))
