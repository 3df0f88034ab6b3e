"""The plugin for krew: `kubectl-canary` as one file that any Python from 3.11 on runs, and the manifest that names it.

    python .ci/release_plugin.py DIST [URL]      writes DIST/kubectl-canary.tar.gz and DIST/canary.yaml

URL is where the archive will be found; krew checks it against the hash in the manifest. The file holds what is pure
Python: a command that needs more, such as `kubectl canary check`, says so and how to have it (the wheel, by pipx).
The archive is the same each time it is made from the same sources.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import distribution
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS = "controller"
PURE = ("rich", "markdown-it-py", "mdurl", "pygments")
"""what the command line imports beside the standard library; none of it has compiled parts"""
THEN = (1980, 1, 1, 0, 0, 0)
HEAD = b"#!/usr/bin/env python3\n"
MAIN = """\
import sys

if sys.version_info < (3, 11):
    sys.exit("kubectl canary needs Python 3.11 or newer; this is " + sys.version.split()[0])

from controller.cli.main import main

sys.exit(main())
"""


def sources() -> dict[str, bytes]:
    """Every file of the program, by its name in it."""
    found: dict[str, bytes] = {"__main__.py": MAIN.encode(), "LICENSE": (ROOT / "LICENSE").read_bytes()}
    ours = sorted(path for path in (ROOT / OURS).rglob("*") if path.suffix in (".py", ".toml"))
    found |= {str(path.relative_to(ROOT)): path.read_bytes() for path in ours}
    for name in PURE:
        for file in distribution(name).files or ():
            if file.parts[0] in ("..", "__pycache__") or file.suffix == ".pyc" or file.name in ("RECORD", "INSTALLER"):
                continue
            if file.suffix in (".so", ".pyd"):
                raise ValueError(f"{name} has compiled parts ({file}): the plugin would not run everywhere")
            found[str(file)] = Path(str(file.locate())).read_bytes()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    about = f"Metadata-Version: 2.1\nName: serin\nVersion: {version}\n"
    return found | {f"serin-{version}.dist-info/METADATA": about.encode()}


def make_program() -> bytes:
    """A zip file that Python runs, with the line that makes it a command."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as program:
        for name, body in sorted(sources().items()):
            program.writestr(zipfile.ZipInfo(name, THEN), body, zipfile.ZIP_DEFLATED)
    return HEAD + packed.getvalue()


def make_archive(program: bytes) -> bytes:
    """The archive krew unpacks: the command and the licence."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, body, mode in (
            ("kubectl-canary", program, 0o755),
            ("LICENSE", (ROOT / "LICENSE").read_bytes(), 0o644),
        ):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(body), mode
            archive.addfile(entry, io.BytesIO(body))
    return gzip.compress(packed.getvalue(), mtime=0)


def render_manifest(archive: bytes, url: str, version: str) -> str:
    """krew's manifest. One platform entry for each system, all with the same file."""
    entries = "".join(
        f"""\
    - selector:
        matchLabels: {{os: {system}, arch: {arch}}}
      uri: {url}
      sha256: {hashlib.sha256(archive).hexdigest()}
      bin: kubectl-canary
"""
        for system in ("linux", "darwin")
        for arch in ("amd64", "arm64")
    )
    return f"""\
apiVersion: krew.googlecontainertools.github.com/v1alpha2
kind: Plugin
metadata:
  name: canary
spec:
  version: v{version}
  shortDescription: Look at canary rollouts and steer them
  description: |
    Shows what a rollout of Serin does, why, and what comes next, and writes the decisions of people: approve, reject,
    abort, promote, retry, pause, resume. Needs Python 3.11 or newer.
  platforms:
{entries}"""


def main(words: list[str]) -> int:
    """Write archive and manifest."""
    if not 1 <= len(words) <= 2:
        print(__doc__, file=sys.stderr)
        return 2
    folder, url = Path(words[0]), words[1] if len(words) == 2 else "kubectl-canary.tar.gz"
    folder.mkdir(parents=True, exist_ok=True)
    archive = make_archive(make_program())
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    (folder / "kubectl-canary.tar.gz").write_bytes(archive)
    (folder / "canary.yaml").write_text(render_manifest(archive, url, version))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
