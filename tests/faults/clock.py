"""A wall clock for one process, which a test sets while the process runs: what libfaketime does, in a page of C.

The one thing to know: only the process that gets `environment` sees it. The API server, the metrics and the test go by
the machine's clock, so a skew is one between parts, as it is in a cluster.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")


def compiler() -> str:
    """The machine's C compiler; empty where it has none."""
    return next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), "")


@dataclass(frozen=True)
class Clock:
    """Of the processes that are started with `environment`."""

    folder: Path

    @classmethod
    def made(cls, folder: Path) -> Clock:
        """Compiled into this folder, and right."""
        library = folder / "clock.so"
        command = [compiler(), "-shared", "-fPIC", "-O2", "-o", str(library), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        clock = cls(folder)
        clock.set(timedelta())
        return clock

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.folder / "clock.so"), "SERIN_TEST_CLOCK": str(self.folder / "ahead")}

    def set(self, ahead: timedelta) -> None:
        """So much ahead of the machine's clock from now on; less than nothing is behind."""
        nanoseconds = round(ahead.total_seconds()) * 10**9
        with (self.folder / "ahead").open("r+b" if (self.folder / "ahead").exists() else "w+b") as file:
            # One write of eight bytes, into the very file that the process has mapped.
            file.write(struct.pack("=q", nanoseconds))
