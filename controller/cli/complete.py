"""Completion in the shell: kubectl asks `kubectl_complete-canary` what could stand at the end of a line.

The answer is a line for each word, with its meaning behind a tab, and at the end whether file names belong there.
Whatever goes wrong, the answer is empty: somebody is in the middle of typing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from controller.cli.kubectl import API, Cluster, Failure, from_environment, path_of
from controller.cli.main import build_parser
from controller.cli.text import plain

OF_FILES = frozenset({"FILE", "DIR", "EXPORT"})
"""how options call what is a file or a folder"""
FILES, NO_FILES = ":0", ":4"


def main(words: Sequence[str] | None = None) -> int:
    """Print what could come next."""
    typed = sys.argv[1:] if words is None else words
    for line in candidates(typed, from_environment(())):
        print(line)
    print(FILES if takes_file(typed) else NO_FILES)
    return 0


def takes_file(words: Sequence[str]) -> bool:
    """Whether the name of a file or folder may stand where the last of `words` is."""
    *before, last = words or [""]
    known = _commands().get(before[0]) if before else None
    if known is None or last.startswith("-"):
        return False
    actions = known[1]._actions
    asked = next((one for one in actions if before[-1] in one.option_strings and one.nargs != 0), None)
    if asked is not None:
        return (asked.metavar or asked.dest.upper()) in OF_FILES
    return any(not one.option_strings and one.dest == "file" for one in actions)


def candidates(words: Sequence[str], cluster: Cluster) -> Iterator[str]:
    """What could stand where the last of `words` is, which may be empty."""
    *before, last = words or [""]
    commands = _commands()
    if not before:
        for name, (help_text, _) in commands.items():
            if name.startswith(last):
                yield f"{name}\t{help_text}"
        return
    if before[0] not in commands:
        return
    parser = commands[before[0]][1]
    if last.startswith("-"):
        for action in parser._actions:
            for option in action.option_strings:
                if option.startswith(last) and option not in before and action.help != argparse.SUPPRESS:
                    yield f"{option}\t{plain((action.help or '').splitlines()[0] if action.help else '', 80)}"
        return
    asked = next((a for a in parser._actions if before[-1] in a.option_strings and a.nargs != 0), None)
    if asked is not None:
        yield from (str(choice) for choice in asked.choices or () if str(choice).startswith(last))
        return
    if any(action.dest == "name" for action in parser._actions):
        yield from _names(before, last, cluster)


def _commands() -> dict[str, tuple[str, argparse.ArgumentParser]]:
    """Every command with its one-line help."""
    parser: Any = build_parser()
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    told = {one.dest: one.help or "" for one in commands._choices_actions}
    return {name: (told.get(name, ""), made) for name, made in commands.choices.items()}


def _names(before: Sequence[str], last: str, cluster: Cluster) -> Iterator[str]:
    """Canaries of the namespace the line speaks about."""
    given = [after for word, after in pairwise(before) if word in ("-n", "--namespace")]
    try:
        namespace = given[-1] if given else cluster.namespace()
        found = cluster.read(path_of(API, namespace, "canaries")).get("items", [])
    except Failure:
        return
    for one in found:
        name = plain(one["metadata"]["name"], 253)
        if name.startswith(last):
            yield f"{name}\t{plain(one.get('status', {}).get('phase', 'Pending'), 40)}"


if __name__ == "__main__":
    sys.exit(main())
