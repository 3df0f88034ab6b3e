"""`kubectl canary origin`: who or what wrote the commits of a range, and which lines say so; no cluster is asked."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from controller.authorship.commits import Classified, Range, classify, combine
from controller.authorship.marks import Kind, Mark, marks_of
from controller.cli.files import read_bytes
from controller.cli.git import is_shallow, read_commits
from controller.cli.kubectl import Cluster
from controller.cli.screen import Screen
from controller.cli.text import plain, shown_name
from controller.model.origin import Origin

SHOWN = 200
"""characters of a line of evidence"""


def run(options: argparse.Namespace, _cluster: Cluster, screen: Screen) -> int:
    """Classify the range and print it."""
    found = read_range(options)
    if options.output == "json":
        screen.say(json.dumps(as_json(found), indent=1))
    else:
        screen.show(render(found))
    return 0


def read_range(options: argparse.Namespace) -> Range:
    """The range that the options name, with what they say beside it."""
    repo = Path(options.repo)
    commits = read_commits(repo, options.range)
    if is_shallow(repo):
        print(
            "warning: the clone is shallow, commits before its edge are not seen: fetch the whole history "
            "(actions/checkout: fetch-depth: 0)",
            file=sys.stderr,
        )
    unmarked = Origin(options.unmarked)
    return combine((classify(one, unmarked=unmarked) for one in commits), declared_marks(options))


def declared_marks(options: argparse.Namespace) -> list[Mark]:
    """What the pull request says, where the caller tells it."""
    said = [
        ("pr_login", options.pr_login),
        ("branch", options.branch),
        *(("pr_label", one) for one in options.pr_label),
    ]
    if options.pr_body:
        # Whatever else is in it, the lines that can be read may say something.
        text = read_bytes(options.pr_body, "--pr-body").decode(errors="replace")
        said += [(field, line) for line in text.splitlines() for field in ("pr_body_line", "message_line", "trailer")]
    return [mark for field, text in said if text for mark in marks_of(field, text)]


def as_json(found: Range) -> dict[str, Any]:
    """For programs; names are stable. Every text is free of control characters."""
    return {
        "commits": [_commit(one) for one in found.commits],
        "range": {
            "origin": found.origin,
            "degree": found.degree or "unknown",
            "tools": [plain(tool) for tool in found.tools],
            "authors": [plain(author) for author in found.authors],
        }
        | ({"evidence": [_as_json(mark) for mark in found.declared]} if found.declared else {}),
    }


def _commit(one: Classified) -> dict[str, Any]:
    lines = {"lines": {"ai": one.note.ai_lines, "human": one.note.human_lines}} if one.note else {}
    return {
        "sha": one.sha,
        "origin": one.origin,
        "degree": one.degree or "unknown",
        "tool": plain(one.tool) or None,
        "model": plain(one.model) or None,
        "evidence": [_as_json(mark) for mark in one.evidence],
    } | lines


def _as_json(mark: Mark) -> dict[str, str]:
    return {"pattern": mark.pattern, "field": mark.field, "text": plain(mark.text, SHOWN)}


def render(found: Range) -> Iterator[tuple[str, str]]:
    """The range first, then each commit that carries a mark, with its lines."""
    count = len(found.commits)
    yield f"{found.origin}, {_degree(found.degree)}: {count} {'commit' if count == 1 else 'commits'}", "bold"
    for origin in sorted(Origin, key=lambda one: -one.rank):
        number = sum(one.origin is origin for one in found.commits)
        if number:
            yield f"  {origin:<10} {number}", ""
    if found.tools:
        yield f"  tools      {', '.join(map(shown_name, found.tools))}", ""
    if found.authors:
        yield f"  authors    {plain(', '.join(map(shown_name, found.authors)), SHOWN)}", ""
    if found.declared:
        yield "  beside the commits, of the pull request", ""
        yield from map(_line, found.declared)
    for one in found.commits:
        if not one.evidence:
            continue
        what = " ".join(part for part in (plain(one.tool), f"({plain(one.model)})" if one.model else "") if part)
        yield f"{one.sha[:12]} {one.origin}, {_degree(one.degree)}{f': {what}' if what else ''}", ""
        yield from map(_line, one.evidence)


def _line(mark: Mark) -> tuple[str, str]:
    note = "" if mark.kind is Kind.AI else f" [{mark.kind}]"
    return f"    {mark.pattern} {mark.field}{note}: {plain(mark.text, SHOWN)}", "dim"


def _degree(degree: str) -> str:
    return str(degree) or "degree unknown"
