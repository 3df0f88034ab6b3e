"""Text from elsewhere as one harmless line: for a terminal, a log, and wherever else somebody reads it line by line."""

from __future__ import annotations


def plain(value: object, limit: int = 1024) -> str:
    r"""One line without control or direction characters.

    >>> plain("red\x1b[31m\n")
    'red\\x1b[31m\\n'
    """
    text = str(value)
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return "".join(_shown(char) for char in text)


def _shown(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
