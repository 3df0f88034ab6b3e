"""Notes of the Git AI Standard: which lines of a commit an AI wrote, and which a person.

A note has two parts with a line `---` between them: files with line ranges by author key, then JSON that says
who the keys are. A line that no key covers is untracked, which is not the same as written by a person.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from controller.authorship.marks import marks_of

LONGEST_NOTE = 1 << 20
"""bytes; a longer one is not read"""

_SESSION = re.compile(r"s_[0-9a-f]{14}::t_[0-9a-f]{14}")
_HUMAN = re.compile(r"h_[0-9a-f]{14}")
_PROMPT = re.compile(r"[0-9a-f]{7}|[0-9a-f]{16}")
_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")


@dataclass(frozen=True)
class Note:
    """What one note says."""

    ai_lines: int = 0
    human_lines: int = 0
    tool: str = ""
    model: str = ""
    people: tuple[str, ...] = ()
    """who prompted, and the known people among the authors"""
    problem: str = ""
    """why the note says nothing; it then proves nothing, and excuses nothing"""
    schema: str = ""


def parse_note(text: str) -> Note:
    """Read one note; anything malformed is a note with a problem, never an exception.

    >>> parse_note('a.py\\n  h_0123456789abcd 1-4,9\\n---\\n{"schema_version": "authorship/3.0.0"}').human_lines
    5
    """
    if len(text) > LONGEST_NOTE:
        return Note(problem=f"longer than {LONGEST_NOTE} bytes")
    lines = text.splitlines()
    if "---" not in lines:
        return Note(problem="no line --- between its two parts")
    parting = lines.index("---")
    try:
        about = json.loads("\n".join(lines[parting + 1 :]))
    except (ValueError, RecursionError):
        return Note(problem="its second part is no JSON")
    if not isinstance(about, dict) or not marks_of("note_first_json", str(about.get("schema_version", ""))):
        return Note(problem="schema_version is not authorship/N.N.N")
    ai, human, keys, problem = 0, 0, [], ""
    for line in lines[:parting]:
        if not line.startswith("  "):
            continue
        key, _, ranges = line.strip().partition(" ")
        count = _count(ranges)
        if count is None:
            problem = "a range of lines is not N or N-M"
        elif _HUMAN.fullmatch(key):
            human += count
        elif _SESSION.fullmatch(key) or _PROMPT.fullmatch(key):
            ai += count
            keys.append(key.partition("::")[0])
        elif line.strip():
            problem = "an author key is of no known form"
    tool, model = _agent(about, keys)
    return Note(ai, human, tool, model, _people(about), problem, str(about["schema_version"]))


def _count(ranges: str) -> int | None:
    total = 0
    for one in ranges.split(","):
        found = _RANGE.fullmatch(one.strip())
        if found is None:
            return None
        first, last = int(found[1]), int(found[2] or found[1])
        if first < 1 or last < first:
            return None
        total += last - first + 1
    return total


def _entries(about: dict[str, Any], what: str) -> dict[str, dict[str, Any]]:
    found = about.get(what)
    return {key: value for key, value in found.items() if isinstance(value, dict)} if isinstance(found, dict) else {}


def _agent(about: dict[str, Any], keys: list[str]) -> tuple[str, str]:
    """Tool and model of the first key that is described."""
    entries = _entries(about, "sessions") | _entries(about, "prompts")
    for key in [*keys, *entries]:
        agent = entries.get(key, {}).get("agent_id")
        if isinstance(agent, dict):
            return str(agent.get("tool") or "")[:60], str(agent.get("model") or "")[:250]
    return "", ""


def _people(about: dict[str, Any]) -> tuple[str, ...]:
    entries = [*_entries(about, "sessions").values(), *_entries(about, "prompts").values()]
    named = [one.get("human_author") for one in entries] + [
        one.get("author") for one in _entries(about, "humans").values()
    ]
    return tuple(dict.fromkeys(str(name)[:320] for name in named if name))
