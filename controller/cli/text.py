"""How things are written: escaped, aligned, in words a person reads at a glance.

Everything that comes from the cluster passes `plain`, so that no object can move the cursor,
recolour the terminal or turn the reading direction of a line that a person decides by.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from controller.cli.jsonpath import render_path
from controller.plain import plain, shown_name

__all__ = ["plain", "shown_name"]

JSONPATH = "jsonpath="

_ASCII = {"├─ ": "|- ", "└─ ": "`- ", "│  ": "|  ", "…": "...", "–": "-", "·": "-"}


def to_ascii(text: str) -> str:
    """The same for a terminal that is not UTF-8."""
    for nice, simple in _ASCII.items():
        text = text.replace(nice, simple)
    return text.encode("ascii", "backslashreplace").decode("ascii")


def parse_time(value: object) -> datetime | None:
    """An instant as the API server writes it; None when it is not one."""
    try:
        at = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def span(seconds: float) -> str:
    """A span of time in its two largest units.

    >>> span(3), span(192), span(7260), span(200000)
    ('3s', '3m12s', '2h1m', '2d7h')
    """
    left = max(0, round(seconds))
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count and len(parts) < 2:
            parts.append(f"{count}{unit}")
        elif parts:
            break
    return "".join(parts) or "0s"


def percent(value: float) -> str:
    """A weight.

    >>> percent(25.0), percent(0.5), percent(33.33)
    ('25%', '0.5%', '33.33%')
    """
    return f"{value:.2f}".rstrip("0").rstrip(".") + "%"


@dataclass(frozen=True)
class Node:
    """One line of a tree and what hangs below it."""

    text: str
    style: str = ""
    below: tuple[Node, ...] = field(default=())


def render_tree(root: Node) -> Iterator[tuple[str, str]]:
    """Lines with their style, the root first."""
    yield root.text, root.style
    yield from _branches(root.below, "")


def _branches(nodes: Sequence[Node], before: str) -> Iterator[tuple[str, str]]:
    for node in nodes:
        last = node is nodes[-1]
        yield f"{before}{'└─ ' if last else '├─ '}{node.text}", node.style
        yield from _branches(node.below, before + ("   " if last else "│  "))


def render_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell, two spaces apart, as kubectl prints them."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    ]


def render_document(value: Any, form: str) -> str:
    """`json`, `yaml` that any parser reads (every string in double quotes), or `jsonpath=TEMPLATE`."""
    if form == "json":
        return json.dumps(value, indent=2, ensure_ascii=True)
    if form.startswith(JSONPATH):
        return render_path(form.removeprefix(JSONPATH), value)
    return "\n".join(_yaml(value, 0))


def _yaml(value: Any, depth: int) -> Iterator[str]:
    pad = "  " * depth
    if isinstance(value, dict) and value:
        for key, item in value.items():
            if isinstance(item, dict | list) and item:
                yield f"{pad}{_key(key)}:"
                yield from _yaml(item, depth + 1)
            else:
                yield f"{pad}{_key(key)}: {json.dumps(item)}"
    elif isinstance(value, list) and value:
        for item in value:
            first, *rest = _yaml(item, depth + 1)
            yield f"{pad}- {first.lstrip()}"
            yield from rest
    else:
        yield pad + json.dumps(value)


def _key(key: str) -> str:
    return (
        key
        if key.isidentifier() and key.lower() not in {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
        else json.dumps(key)
    )


def is_compared_with_fresh(canary: Mapping[str, Any]) -> bool:
    """Whether the spec, or the analysis that the attempt began with, asks for a fresh baseline.

    >>> is_compared_with_fresh({"spec": {"analysis": {"baseline": {"fresh": True}}}})
    True
    """
    begun = ((canary.get("status") or {}).get("attempt") or {}).get("analysis") or {}
    asked = [one.get("baseline") or {} for one in ((canary.get("spec") or {}).get("analysis") or {}, begun)]
    return any(bool(one.get("fresh")) for one in asked)
