"""What of requirements.lock goes where: the image's packages, what builds the wheel, and the bill of materials.

The lock is one file for every purpose, and its comments say for whose sake each package is in it. Standard library
only: the image's first stage runs this before anything is installed.

    python .ci/release_lock.py runtime     the image's packages with their hashes, for `pip install --require-hashes`
    python .ci/release_lock.py build       what makes the wheel
    python .ci/release_lock.py sbom        CycloneDX 1.6 of the image's packages
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ROOTS = {"runtime": "serin (pyproject.toml)", "build": "serin (pyproject.toml:build)"}


@dataclass(frozen=True)
class Locked:
    """One line of the lock with what hangs on it."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]
    wanted_by: tuple[str, ...]


def parse_lock(text: str) -> list[Locked]:
    """Every package, in order. Two versions of one package stand there with different markers."""
    found = []
    for block in re.split(r"\n(?=[a-z0-9])", text):
        head = re.match(r"([a-z0-9][a-z0-9._-]*)==(\S+)(?: ; ([^\\\n]+?))? \\\n", block)
        if head is None:
            continue
        hashes = tuple(re.findall(r"--hash=(sha256:[0-9a-f]{64})", block))
        via = re.search(r"    # via(.*)", block, re.DOTALL)
        wanted = re.findall(r"(?:^ |\n    #   )(\S.*)", via[1]) if via else []
        found.append(Locked(head[1], head[2], head[3] or "", hashes, tuple(one.strip() for one in wanted)))
    return found


def needed(locked: list[Locked], root: str) -> list[Locked]:
    """Those that `root` asks for, and what these ask for, and so on."""
    names = {root}
    while True:
        more = {one.name for one in locked if names & set(one.wanted_by)} - names
        if not more:
            return [one for one in locked if one.name in names]
        names |= more


def render_requirements(locked: list[Locked]) -> str:
    """As pip reads it; without a single hash missing, since pip refuses the whole file otherwise."""
    lines = []
    for one in locked:
        marker = f" ; {one.marker}" if one.marker else ""
        lines.append(
            " \\\n    ".join([f"{one.name}=={one.version}{marker}", *(f"--hash={hash}" for hash in one.hashes)])
        )
    return "\n".join(lines) + "\n"


def render_sbom(locked: list[Locked], project: dict[str, Any]) -> dict[str, Any]:
    """CycloneDX: each package with its purl, the hashes of its files, and who asks for it. The same each time."""
    own = f"pkg:pypi/{project['name']}@{project['version']}"
    asks: dict[str, list[str]] = {own: [_purl(one) for one in locked if ROOTS["runtime"] in one.wanted_by]}
    for who in locked:
        asks[_purl(who)] = [_purl(one) for one in locked if who.name in one.wanted_by]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": project["name"],
                "version": project["version"],
                "purl": own,
                "licenses": [{"license": {"id": project["license"]}}],
            },
            "lifecycles": [{"phase": "build"}],
        },
        "components": [_component(one) for one in locked],
        "dependencies": [{"ref": ref, "dependsOn": sorted(set(on))} for ref, on in asks.items()],
    }


def _component(one: Locked) -> dict[str, Any]:
    """A component; which of the locked files was installed depends on the machine, so each file is a reference."""
    files = [{"alg": "SHA-256", "content": hash.removeprefix("sha256:")} for hash in one.hashes]
    made: dict[str, Any] = {
        "type": "library",
        "bom-ref": _purl(one),
        "name": one.name,
        "version": one.version,
        "purl": _purl(one),
        "externalReferences": [{"type": "distribution", "url": _purl(one), "hashes": [file]} for file in files],
    }
    if one.marker:
        made["properties"] = [{"name": "serin:marker", "value": one.marker}]
    return made


def _purl(one: Locked) -> str:
    return f"pkg:pypi/{one.name}@{one.version}"


def main(words: list[str]) -> int:
    """Print one of the three."""
    if len(words) != 1 or words[0] not in (*ROOTS, "sbom"):
        print(__doc__, file=sys.stderr)
        return 2
    locked = parse_lock((ROOT / "requirements.lock").read_text())
    if words[0] == "sbom":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        print(json.dumps(render_sbom(needed(locked, ROOTS["runtime"]), project), indent=1))
    else:
        print(render_requirements(needed(locked, ROOTS[words[0]])), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
