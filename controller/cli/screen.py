"""Where output goes: colour on a terminal that wants it, plain lines anywhere else.

rich is imported only when something is to be coloured; a pipe or a CI log never pays for it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO

from controller.cli.text import to_ascii

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

Line = tuple[str, str]
"""text and rich style"""
WIPE = "\r\x1b[K"
"""back to the beginning of the line, and nothing left of it"""


class Screen:
    """Standard output, with what it can do, and standard error for how far a long command is."""

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None, *, colour: bool = True) -> None:
        self._out, self._err = out or sys.stdout, err or sys.stderr
        able = os.environ.get("TERM") != "dumb"
        self.is_terminal = self._out.isatty() and able
        self._tells = self._err.isatty() and able
        self._told = False
        self._colour = colour and self.is_terminal and not os.environ.get("NO_COLOR")
        self._unicode = (getattr(self._out, "encoding", None) or "ascii").lower().replace("-", "") == "utf8"
        self._live: Live | None = None

    def show(self, lines: Iterable[Line]) -> None:
        """Print lines one below the other."""
        self._wipe()
        lines = [(text if self._unicode else to_ascii(text), style) for text, style in lines]
        if self._colour:
            from rich.console import Console

            Console(file=self._out, highlight=False, soft_wrap=True).print(_painted(lines))
        else:
            self._out.write("".join(f"{text}\n" for text, _ in lines))
            self._out.flush()

    def say(self, text: str, style: str = "") -> None:
        """Print one line."""
        self.show([(text, style)])

    def tell(self, progress: str) -> None:
        """Say on standard error how far it is, until the next such line or the first of output; terminals only."""
        if self._tells:
            self._err.write(f"{WIPE}{progress}")
            self._err.flush()
            self._told = True

    def repaint(self, lines: Iterable[Line]) -> None:
        """Replace what the last `repaint` drew; terminals only."""
        from rich.console import Console
        from rich.live import Live

        lines = [(text if self._unicode else to_ascii(text), style if self._colour else "") for text, style in lines]
        if self._live is None:
            console = Console(file=self._out, highlight=False, no_color=not self._colour)
            self._live = Live(console=console, auto_refresh=False, vertical_overflow="visible")
            self._live.start()
        self._live.update(_painted(lines), refresh=True)

    def close(self) -> None:
        """Give the terminal back as it was."""
        self._wipe()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _wipe(self) -> None:
        if self._told:
            self._err.write(WIPE)
            self._err.flush()
            self._told = False


def _painted(lines: list[Line]) -> Text:
    from rich.text import Text

    return Text("\n").join(Text(text, style=style) for text, style in lines)
