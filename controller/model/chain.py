"""The chain of release records: what seals one, and what tells that one was changed, removed or put elsewhere.

A sealed record carries the SHA-256 of its own content, which names the record before it by its hash. So whoever
changes one must change every later one, and the newest hash, which stands in the controller's log and metrics, tells
even that. Standard library only: the plugin verifies with this, and anybody else can with an RFC 8785 library.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from json.encoder import encode_basestring as _quoted
from typing import Any

GROWING = {"steps": 100, "verdicts": 40, "retreats": 20, "decisions": 100, "freezes": 100}
"""the lists of a record, and how many entries fit; the first ones stay"""


def canonical(value: Any) -> str:
    """JSON with one spelling for each value (RFC 8785: names in the order of UTF-16), however the API server wrote it.

    Raises: ValueError: a number that JSON has no word for.

    >>> canonical({"b": [10.0, 0.00001], "a": None})
    '{"a":null,"b":[10,0.00001]}'
    >>> canonical({chr(0xE000): -0.0, chr(0x1F600): 1e21}) == f'{{"{chr(0x1F600)}":1e+21,"{chr(0xE000)}":0}}'
    True
    """
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, dict):
        # What is ASCII sorts the same in either encoding, and nearly every name is.
        order = None if "".join(value).isascii() else _utf16
        return "{" + ",".join([f"{_quoted(name)}:{canonical(value[name])}" for name in sorted(value, key=order)]) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join([canonical(one) for one in value]) + "]"
    return json.dumps(value)


def _utf16(name: str) -> bytes:
    return name.encode("utf-16-be", "surrogatepass")


def _number(value: float) -> str:
    if not math.isfinite(value):
        raise ValueError(f"{value} cannot be written as JSON")
    if value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    text = float.__repr__(value)
    if "e" not in text:
        return text
    mantissa, _, exponent = text.partition("e")
    power = int(exponent)
    return format(Decimal(text), "f") if -7 < power < 0 else f"{mantissa}e{power:+d}"


def digest_of(spec: Mapping[str, Any]) -> str:
    """The hash that seals a record: of everything it says but the hash itself."""
    body = {name: value for name, value in spec.items() if name != "hash"}
    return "sha256:" + hashlib.sha256(canonical(body).encode("utf-8", "surrogatepass")).hexdigest()


WEIGHTY = frozenset({"Approve", "Promote", "BreakGlass", "Override", "Abort", "Reject"})
FOR_ALL = 60


def _has_room(name: str, taken: int, entry: Mapping[str, Any]) -> bool:
    """The last places for decisions are kept for those that moved something: nobody drowns an approval in pauses."""
    if name == "decisions" and not (entry.get("taken") and entry.get("decision") in WEIGHTY):
        return taken < FOR_ALL
    return taken < GROWING[name]


def grown(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What to store: fields that are set stay, lists grow at their end, an outcome seals.

    A newer version may render an older attempt differently; what was said stays said.
    """
    if stored.get("outcome"):
        return dict(stored)
    result = dict(stored)
    for name, value in wanted.items():
        if name in GROWING:
            result[name] = entries = list(stored.get(name) or [])
            for one in value:
                if one not in entries and _has_room(name, len(entries), one):
                    entries.append(one)
        elif result.get(name) in (None, ""):
            result[name] = value
    if result.get("outcome"):
        result["hash"] = digest_of(result)
    return result


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it was sealed."""

    record: str
    """its name, or where it should stand"""
    finding: str


@dataclass(frozen=True)
class Link:
    """One record as it was found."""

    name: str
    spec: Mapping[str, Any]

    @property
    def number(self) -> int:
        """Its place in the chain, counted from 1; 0 where it says none."""
        found = self.spec.get("number")
        return found if isinstance(found, int) and not isinstance(found, bool) else 0

    @property
    def own_hash(self) -> str:
        """The hash it carries; empty while it is not sealed."""
        return str(self.spec.get("hash") or "")


def verify_chain(
    canary: str, links: Sequence[Link], *, last: int = 0, head: str = "", count: Callable[[], None] = lambda: None
) -> list[Finding]:
    """Everything that is wrong with the records of one Canary, in their order; empty when nothing is.

    `last` is the number the Canary's own status knows of, `head` a hash somebody kept from log or metrics: records at
    the end of the chain cannot be missed without one of the two. `count` is called after each record.
    """
    ordered = sorted(links, key=lambda link: (link.number, link.name))
    found: list[Finding] = []
    for link in ordered:
        found += _alone(canary, link)
        count()
    previous: Link | None = None
    for link in ordered:
        if previous is None:
            found += _missing(canary, 0, link)
        elif link.number == previous.number:
            found.append(Finding(link.name, f"is number {link.number} of the chain, and so is {previous.name}"))
            continue
        else:
            found += _missing(canary, previous.number, link)
            if link.number == previous.number + 1:
                found += _joined(previous, link)
        previous = link
    newest = previous.number if previous else 0
    if last > newest:
        found.append(Finding(_places(canary, newest + 1, last), "is missing: the Canary's status knows of it"))
    if head and head not in {link.own_hash for link in links}:
        found.append(Finding(f"record {head}", "is missing: no record has this hash"))
    return found


def _alone(canary: str, link: Link) -> Iterable[Finding]:
    """What one record says of itself."""
    spec = link.spec
    if spec.get("canary") != canary or link.name != f"{canary}-{spec.get('attempt')}":
        yield Finding(link.name, f"was put under another name: it speaks of {spec.get('canary')}-{spec.get('attempt')}")
    if not link.number:
        yield Finding(link.name, "says no place in the chain: spec.number is missing")
    if not spec.get("outcome"):
        return
    if not link.own_hash:
        yield Finding(link.name, "has an outcome and no hash: its seal was removed")
    elif digest_of(spec) != link.own_hash:
        yield Finding(link.name, f"was changed after it was sealed: its content gives {digest_of(spec)}")


def _missing(canary: str, before: int, link: Link) -> Iterable[Finding]:
    if link.number > before + 1:
        yield Finding(_places(canary, before + 1, link.number - 1), f"is missing: {link.name} is number {link.number}")


def _places(canary: str, first: int, last: int) -> str:
    return f"number {first} of {canary}" if first == last else f"numbers {first} to {last} of {canary}"


def _joined(previous: Link, link: Link) -> Iterable[Finding]:
    """Two neighbours: the later one names the earlier by its hash, and began after it."""
    if not previous.own_hash:
        yield Finding(previous.name, f"was never sealed, and {link.name} follows it")
    elif link.spec.get("previous") != previous.own_hash:
        yield Finding(
            link.name, f"follows {link.spec.get('previous') or 'nothing'}, and {previous.name} is {previous.own_hash}"
        )
    if _began(link) < _began(previous):
        yield Finding(link.name, f"began before {previous.name}, which is number {previous.number}")


def _began(link: Link) -> datetime:
    try:
        return datetime.fromisoformat(str(link.spec.get("startedAt"))).astimezone(UTC)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
