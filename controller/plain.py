"""Text from elsewhere as one harmless line, and names from elsewhere as they are compared and shown.

For a terminal, a log, and wherever else somebody reads it line by line. Who is who is decided by the name that the API
server gives; here is what keeps two names that look the same from being taken for two people, or for one another.
"""

from __future__ import annotations

import re
import unicodedata

_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U0001d159\U000e0100-\U000e01ef]"
)
"""printable, says Python, and nothing is seen"""
# Letters that are read as a Latin one: the usual of Unicode's confusables (UTS 39), as far as names of people and tools
# are written with them. Left out: figures for letters (ann1, annl), which are different names everywhere.
_LATIN = {
    "a": "аАαΑɑ", "b": "вВβΒƅ", "c": "сСϲϹ", "d": "ԁԀɗ", "e": "еЕεΕєҽ", "f": "ƒϝ", "g": "ɡցԍԌ", "h": "һҺнНհΗ",
    "i": "іІιΙıɩ", "j": "јЈϳյ", "k": "кКκΚ", "l": "ӏӀⅼǀ", "m": "мМμΜ", "n": "пոռηΝ", "o": "оОοΟօՕσ", "p": "рРρΡ",
    "q": "ԛԚզ", "r": "г", "s": "ѕЅꜱՏ", "t": "тТτΤ", "u": "υսʋՍ", "v": "νѵѴ", "w": "ԝԜωա", "x": "хХχΧ", "y": "уУүҮγΥ",
    "z": "ᴢΖ", "-": "‐‑‒–—−",
}  # fmt: skip
_LOOKS = str.maketrans({char: latin for latin, chars in _LATIN.items() for char in chars})
_WORD = re.compile(r"[^\W\d_]+")
_SCRIPTS = frozenset({"LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "COPTIC", "CHEROKEE"})


def plain(value: object, limit: int = 1024) -> str:
    r"""One line without control or direction characters, and none that cannot be seen.

    >>> plain("red\x1b[31m\n")
    'red\\x1b[31m\\n'
    """
    text = str(value)
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return "".join(char if is_plain(char) else char.encode("unicode_escape").decode("ascii") for char in text)


def is_plain(text: str) -> bool:
    """Whether every character of it is seen, and none moves anything.

    >>> is_plain("ann@example.com"), is_plain("ann\u200b"), is_plain("ann\u3164")
    (True, False, False)
    """
    return text.isprintable() and (text.isascii() or not _UNSEEN.search(text))


def alike(name: str) -> str:
    """The same for all names that a reader takes for one; to compare with, not to show.

    >>> alike("Ann"), alike("\u0430nn\u200b")
    ('ann', 'ann')
    """
    if name.isascii():
        return name.strip().casefold()
    even = unicodedata.normalize("NFKC", name).translate(_LOOKS).casefold()
    return "".join(char for char in even if is_plain(char)).strip()


def shown_name(value: object, limit: int = 256) -> str:
    """A name to decide by: with a word where it is not what it looks like.

    >>> shown_name("ann"), shown_name("\u0430nn")
    ('ann', '\u0430nn [not ann: CYRILLIC SMALL LETTER A]')
    """
    text = str(value)
    shown = plain(text, limit)
    if text.isascii():
        return shown
    looks = alike(text)
    odd = next((char for char in text if char in _LOOKS_LIKE or not is_plain(char)), "")
    if odd and looks.isascii():
        return f"{shown} [not {plain(looks, limit)}: {unicodedata.name(odd, 'an unseen character')}]"
    for word in _WORD.findall(text):
        scripts = sorted({script.title() for char in word if (script := _script(char)) in _SCRIPTS})
        if len(scripts) > 1:
            return f"{shown} [letters of {' and '.join(scripts)}]"
    return shown


_LOOKS_LIKE = frozenset(chr(code) for code in _LOOKS)


def _script(char: str) -> str:
    return unicodedata.name(char, "").partition(" ")[0]
