"""What a build says beside its commits: every word is checked before anything is signed.

A statement is believed for what it says, for ever. A name that nobody has bars nobody, a link that is none is clicked
by somebody, and a degree that belongs to no such origin is read by the next rule. So each is refused where it is typed.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from controller.cli.kubectl import Failure
from controller.cli.text import plain
from controller.model.origin import Degree, Origin
from controller.plain import is_plain

LONGEST_NAME, LONGEST_LINE = 256, 1024
"""what a verifier keeps"""
PAGES = ("https", "http")
PLACES = (*PAGES, "s3", "gs", "oci")
"""of a prompt"""
SOURCES = (*PAGES, "git", "ssh", "git+https", "git+http", "git+ssh", "git+git", "git+file", "file")
_SECRET = re.compile(r"(?i)(?:token|secret|password|passwd|api[_-]?key|signature|sig|credential)=")
_SCP = re.compile(r"(git\+)?[\w.-]+@[\w.-]+:(?!//)\S+")
"""git@forge.example:acme/shop.git"""


def read_person(text: str, option: str) -> str:
    """The name of one person, as an approver will have it.

    >>> read_person("mailto:ann@example.com", "--prompter")
    'mailto:ann@example.com'
    """
    name = _read_name(text, option, "mailto:ann@example.com, or the name that the API server knows them by")
    if "<" in name or ">" in name:
        raise Failure(f"{option} {plain(name)}: nobody is called so: write the address alone, mailto:ann@example.com")
    if name.endswith("[bot]"):
        raise Failure(f"{option} {plain(name)}: that is a bot: name the person who told it what to do")
    return name


def read_tool(text: str) -> tuple[str, str]:
    """A tool and its model, empty where it was not said.

    >>> read_tool("cursor=gpt-5")
    ('cursor', 'gpt-5')
    """
    found = [
        _read_name(part, f"--tool {plain(text)}" if text else "--tool", "NAME or NAME=MODEL, such as cursor=gpt-5")
        for part in text.split("=")
    ]
    if len(found) > 2:
        raise Failure(f"--tool {plain(text)}: more than one =: write NAME or NAME=MODEL, such as cursor=gpt-5")
    return found[0], (found[1] if len(found) > 1 else "")


def read_line(text: str, option: str) -> str:
    """One line of text, or nothing."""
    if len(text) > LONGEST_LINE:
        raise Failure(f"{option}: {len(text)} characters, at most {LONGEST_LINE}: write a link to the rest")
    if not is_plain(text):
        raise Failure(f"{option} {plain(text)}: a character in it is a line break or cannot be seen: write one line")
    return text


def read_link(text: str, field: str, schemes: tuple[str, ...]) -> str:
    """A link that leads somewhere and carries no secret, or nothing."""
    if not read_line(text, field):
        return ""
    example = "https://..."
    try:
        parts = urlsplit(text)
        host, password = parts.hostname, parts.password
    except ValueError as error:
        raise Failure(f"{field}: {plain(text)} is no link: {error}; write {example}") from None
    if password or _SECRET.search(text):
        raise Failure(
            f"{field}: the link carries a password or token, and everybody may read a statement: leave it out"
        )
    if schemes == SOURCES and _SCP.fullmatch(text):
        return text
    if parts.scheme.lower() not in schemes or " " in text or not (host or parts.scheme.endswith("file")):
        raise Failure(f"{field}: {plain(text)} is no link: write {example} (or {', '.join(schemes[1:])})")
    return text


def check_degree(said: str, found: Degree, origin: Origin) -> None:
    """Whether this much of a change can have been a tool's. Raises: Failure."""
    if not said:
        return
    if origin in {Origin.HUMAN, Origin.AUTOMATION}:
        raise Failure(f"--degree {said}: a change of origin {origin} has none: leave it out, or write --origin ai")
    if Degree(said).rank < found.rank:
        raise Failure(f"--degree {said}: the commits carry marks of {found}: leave it out, or write {found}")


def check_tools(options: dict[str, bool], origin: Origin, *, any_tool: bool) -> None:
    """Whether a prompt or tool that was named can belong to the change. Raises: Failure."""
    for option, said in options.items():
        if said and origin is Origin.HUMAN:
            raise Failure(f"{option}: a change of origin human has none: leave it out, or write --origin mixed or ai")
        if said and option.startswith("--prompt-") and not any_tool:
            raise Failure(f"{option}: no mark and no --tool says what was prompted: write --tool NAME=MODEL too")


def _read_name(text: str, option: str, example: str) -> str:
    name = text.strip()
    if not name:
        raise Failure(f"{option}: a name in it is empty, as of a variable that is not set: write {example}")
    if len(name) > LONGEST_NAME:
        raise Failure(f"{option}: {len(name)} characters, at most {LONGEST_NAME}: write {example}")
    if not is_plain(name):
        raise Failure(f"{option} {plain(name)}: a character in it cannot be seen: write {example}")
    return name
