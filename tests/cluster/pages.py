"""Commands of a documentation page, run as whoever the page says runs them.

The one thing to know: a block is what stands between fences marked `sh`; a word behind it says who types it. What is
changed in the page is run in its changed form, since nothing of it is repeated here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.cluster import write_kubeconfig
from tests.cluster.objects import state_dir
from tests.cluster.podrunner import CHECKOUT

PLATFORM = "platform"
"""who types a block that names nobody"""


@dataclass(frozen=True)
class Block:
    """Lines that a person copies."""

    who: str
    text: str


@dataclass(frozen=True)
class Person:
    """One who types: a certificate of their own; without a name, the administrator."""

    user: str = ""
    groups: tuple[str, ...] = ()


def blocks(page: Path) -> list[Block]:
    """The page's commands in their order.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as made:
    ...     _ = Path(made, "page.md").write_text("x\\n```sh on-call\\nkubectl version\\n```\\n")
    ...     blocks(Path(made, "page.md"))
    [Block(who='on-call', text='kubectl version\\n')]
    """
    found = re.findall(r"^```sh *([\w-]*)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    return [Block(who or PLATFORM, text) for who, text in found]


@dataclass
class Terminal:
    """A shell in which `kubectl canary` is this checkout's, and `manifests` and `charts` are where the page says."""

    folder: Path
    env: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        plugin = self.folder / "bin" / "kubectl-canary"
        if plugin.exists():
            return
        for name in ("manifests", "charts"):
            (self.folder / name).symlink_to(CHECKOUT / name)
        plugin.parent.mkdir()
        # The registry of the tests has no TLS.
        insecure = 'case $1 in attest) set -- "$@" --plain-http;; esac'
        plugin.write_text(f'#!/bin/sh\n{insecure}\nexec {sys.executable} -m controller.cli.main "$@"\n')
        plugin.chmod(0o755)

    def run(self, block: Block, people: Iterable[Person] = (Person(),)) -> str:
        """The block as each of these people types it; what the last one saw."""
        said = ""
        for person in people:
            own = {"KUBECONFIG": str(write_kubeconfig(state_dir(), person.user, person.groups))} if person.user else {}
            path = {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(CHECKOUT)}
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block.text],
                cwd=self.folder,
                env=os.environ | path | dict(self.env) | own,
                capture_output=True,
                text=True,
                check=False,
                timeout=300,
            )
            assert done.returncode == 0, f"{person.user}: {block.text}\n{done.stdout}{done.stderr}"
            said = done.stdout + done.stderr
        return said
