"""What a change does to the configuration that its pods read: for a plan, as the person who makes it may see.

The controller has no right to read ConfigMaps, so it classes a change by their names alone; whoever makes the change
reads what is in them. Secrets are left unread: what stands in a plan is passed around.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from controller.cli.text import plain

Object = dict[str, Any]

GROWS = 1.5
"""from this size on a file that grew is said to have: an entry that was doubled, most often"""
KIND = "ConfigMap/"


def names_in(uses: Iterable[str]) -> set[str]:
    """The ConfigMaps among what a template uses.

    >>> sorted(names_in(("ConfigMap/settings", "Secret/login")))
    ['settings']
    """
    return {one.removeprefix(KIND) for one in uses if one.startswith(KIND)}


def configuration_changes(
    stable: set[str], wanted: set[str], written: Mapping[str, Object], stored: Mapping[str, Object]
) -> list[str]:
    """A line for each ConfigMap whose content changes: `written` are in the file, `stored` in the cluster."""
    lines = []
    for name in sorted(stable & written.keys() & stored.keys()):
        if told := _difference(_content(stored[name]), _content(written[name])):
            lines.append(
                f"ConfigMap {plain(name)} is edited in place ({told}): every pod of stable gets that at once, and no "
                "step of this plan holds it; make a new one under another name and let the pod template name that"
            )
    gone = sorted(stable - wanted)
    for name in sorted(wanted - stable):
        body = written.get(name) or stored.get(name)
        if body is None:
            lines.append(f"ConfigMap {plain(name)} is neither in the file nor in the cluster: pods would wait for it")
            continue
        before = max((one for one in gone if one in stored), key=lambda one: _shared(stored[one], body), default="")
        if before and _shared(stored[before], body):
            told = _difference(_content(stored[before]), _content(body)) or "nothing in it differs"
            lines.append(f"config: ConfigMap {plain(name)} instead of {plain(before)}: {told}")
    return lines


def _content(body: Object) -> dict[str, str]:
    found = {**(body.get("data") or {}), **(body.get("binaryData") or {})}
    return {str(key): str(value) for key, value in found.items()}


def _shared(one: Object, two: Object) -> int:
    return len(_content(one).keys() & _content(two).keys())


def _difference(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """Keys, never values.

    >>> _difference({"level": "info", "gone": ""}, {"level": "debug", "added": "x" * 40})
    'changes level, adds added, drops gone, 4.2 times as large'
    """
    changed = [
        ("changes", sorted(key for key in old.keys() & new.keys() if old[key] != new[key])),
        ("adds", sorted(new.keys() - old.keys())),
        ("drops", sorted(old.keys() - new.keys())),
    ]
    told = [f"{word} {', '.join(map(plain, keys))}" for word, keys in changed if keys]
    before, after = (sum(len(key) + len(value) for key, value in each.items()) for each in (old, new))
    if told and before and after >= GROWS * before:
        told.append(f"{after / before:.1f} times as large")
    return ", ".join(told)
