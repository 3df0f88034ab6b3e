"""Files that commands get by name: one that cannot be read is told in the same words by all of them."""

from __future__ import annotations

import sys
from pathlib import Path

from controller.cli.kubectl import Failure
from controller.cli.text import plain


def read_bytes(file: str, option: str = "") -> bytes:
    """What is in a file that `option` names; "-" is standard input.

    Raises: Failure: it cannot be read; says why, and what to write.
    """
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except FileNotFoundError:
        fault = f"there is no such file in {Path.cwd()}" if not Path(file).is_absolute() else "there is no such file"
    except IsADirectoryError:
        fault = "it is a directory: write the path of one file"
    except PermissionError:
        fault = "you may not read it"
    except OSError as error:
        fault = str(error.strerror or error)
    except ValueError:
        fault = "no file can have this name"
    raise Failure(f"{named(file, option)}: {fault}")


def read_text(file: str, option: str = "") -> str:
    """What is in a text file.

    Raises: Failure: it cannot be read, or is no text.
    """
    raw = read_bytes(file, option)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Failure(
            f"{named(file, option)}: no text in UTF-8, since byte {error.start + 1} is {raw[error.start]:#04x}: "
            "save it as UTF-8"
        ) from None


def named(file: str, option: str = "") -> str:
    """How a message begins that is about a file, and about the option that names it."""
    name = "standard input" if file == "-" else plain(file)
    return f"{option} {name}" if option else name
