"""`-o jsonpath=TEMPLATE`: the part of kubectl's JSONPath that scripts use, over what `-o json` prints.

Text stands as it is; between braces stand a path or a quoted string: `{.phase}`, `{.attempt.images[0]}`,
`{.conditions[*].type}`, `{.conditions[?(@.type=="Ready")].status}`, `{.a['b.c']}`, `{"\\n"}`. Several values are joined
by a space, and what is not there is empty, as kubectl has it. Loops (`range`) and `..` are not known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from controller.plain import plain

_STEP = re.compile(
    r"""\.(?P<name>[\w-]+|\*)
      |\[(?P<index>-?\d+)\]
      |\[(?P<all>\*)\]
      |\['(?P<quoted>[^']+)'\]
      |\[\?\(@\.(?P<of>[\w.-]+)\s*==\s*(?P<is>"[^"]*"|'[^']*'|[\w.-]+)\)\]""",
    re.VERBOSE,
)
_PART = re.compile(r"""\{(?P<inside>(?:"[^"]*"|'[^']*'|[^{}"'])*)\}|(?P<text>[^{}]+)""")
LONGEST = 65536

Piece = str | tuple[re.Match[str], ...]
"""text, or the steps of a path"""


def parse_template(template: str) -> list[Piece]:
    """The pieces of a template.

    Raises: ValueError: it is none, with what could not be read.
    """
    pieces: list[Piece] = []
    at = 0
    while at < len(template):
        part = _PART.match(template, at)
        if part is None:
            raise ValueError(f"cannot read {template[at:]!r}: write for example {{.phase}}")
        at = part.end()
        pieces.append(part["text"] if part["inside"] is None else _parse_inside(part["inside"].strip()))
    return pieces


def _parse_inside(text: str) -> Piece:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1].replace("\\n", "\n").replace("\\t", "\t")
    steps, at = [], 1 if text[:1] in ("$", "@") else 0
    while at < len(text):
        step = _STEP.match(text, at)
        if step is None:
            raise ValueError(f"cannot read {text[at:]!r} in {{{text}}}: write for example {{.attempt.id}}")
        steps.append(step)
        at = step.end()
    return tuple(steps)


def render_path(template: str, value: Any) -> str:
    """The template, filled in.

    >>> document = {"phase": "Idle", "weight": 25.0, "conditions": [{"type": "Ready", "status": "True"}]}
    >>> render_path('{.phase} {.weight}% {.conditions[?(@.type=="Ready")].status}', document)
    'Idle 25% True'
    """
    return "".join(
        piece if isinstance(piece, str) else " ".join(map(_shown, _find([value], piece)))
        for piece in parse_template(template)
    )


def _find(values: list[Any], steps: tuple[re.Match[str], ...]) -> list[Any]:
    for step in steps:
        values = [found for value in values for found in _take(value, step)]
    return values


def _take(value: Any, step: re.Match[str]) -> Iterator[Any]:
    name = step["quoted"] or step["name"]
    if step["all"] or name == "*":
        yield from value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    elif step["of"] and isinstance(value, list):
        wanted = step["is"].strip("\"'")
        path = parse_template(f"{{.{step['of']}}}")[0]
        assert not isinstance(path, str)
        yield from (one for one in value if wanted in map(_shown, _find([one], path)))
    elif step["index"] and isinstance(value, list):
        yield from value[int(step["index"]) :][:1] if int(step["index"]) >= -len(value) else ()
    elif name and isinstance(value, dict) and value.get(name) is not None:
        yield value[name]


def _shown(value: Any) -> str:
    match value:
        case str():
            return plain(value, LONGEST)
        case float() if value.is_integer():
            return str(int(value))
    return json.dumps(value)
