"""A Dockerfile carried out without an engine, in a folder that stands for the image's file system.

How far this goes: every ARG, COPY, RUN, ENV, USER and ENTRYPOINT is read from the file, COPY takes what .dockerignore
lets through, and RUN lines run in a shell with the paths of the image mapped into the folder. What it cannot show: that
the base image has what this machine has, and that layers come out as an engine would make them.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PLACES = ("/opt", "/src")
"""folders of the image that instructions name"""
GENERATED = {".git", ".venv", "build", "dist"}


@dataclass
class Stage:
    """One `FROM` and what follows it."""

    base: str
    name: str
    root: Path
    variables: dict[str, str]
    work: str = "/"
    user: str = "root"
    entrypoint: list[str] = field(default_factory=list)

    def mapped(self, text: str) -> str:
        """The text with the image's folders where they are here."""
        return re.sub(r"(?<![\w./])(" + "|".join(PLACES) + r")(?=[/\s:\"]|$)", lambda m: str(self.root) + m[1], text)


def instructions(text: str) -> list[tuple[str, str]]:
    lines = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.strip().partition(" ") for line in lines) if word]


def let_through(root: Path) -> list[Path]:
    """Files of the checkout that .dockerignore lets into the build."""
    rules = [line for line in (root / ".dockerignore").read_text().splitlines() if line]
    found = []
    for path in sorted(_files(root)):
        name, inside = str(path.relative_to(root)), False
        for rule in rules:
            pattern = rule.removeprefix("!")
            hit = fnmatch.fnmatch(name, pattern) or name.startswith(pattern + "/")
            if pattern.startswith("**/"):
                hit = pattern.removeprefix("**/") in path.parts
            if hit:
                inside = rule.startswith("!")
        if inside:
            found.append(path)
    return found


def _files(root: Path) -> Iterator[Path]:
    """All but what .gitignore names: other tests write there at the same time."""
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in GENERATED]
        yield from (Path(folder, name) for name in files)


def build(checkout: Path, root: Path, arguments: dict[str, str]) -> list[Stage]:
    """Carry out every instruction. Raises `subprocess.CalledProcessError` where a RUN line fails."""
    stages: list[Stage] = []
    defaults: dict[str, str] = {}
    context = let_through(checkout)
    for word, rest in instructions((checkout / "Dockerfile").read_text()):
        if word == "ARG":
            name, _, default = rest.partition("=")
            value = arguments.get(name, defaults.get(name, default))
            (stages[-1].variables if stages else defaults)[name] = value
            continue
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            base = re.sub(r"\$\{(\w+)\}", lambda m: defaults[m[1]], base)
            stages.append(Stage(base, name, root / (name or "final"), {}))
            stages[-1].root.mkdir(parents=True)
            continue
        stage = stages[-1]
        if word == "WORKDIR":
            stage.work = rest
            (stage.root / rest.lstrip("/")).mkdir(parents=True)
        elif word == "COPY":
            _copy(stage, stages, rest.split(), checkout, context)
        elif word == "ENV":
            for name, value in (pair.split("=", 1) for pair in rest.split()):
                stage.variables[name] = stage.mapped(value.replace("$PATH", os.environ["PATH"]))
        elif word == "RUN":
            _run(stage, rest)
        elif word == "USER":
            stage.user = rest
        elif word == "ENTRYPOINT":
            stage.entrypoint = re.findall(r'"([^"]+)"', rest)
    return stages


def _copy(stage: Stage, stages: list[Stage], words: list[str], checkout: Path, context: list[Path]) -> None:
    if words[0].startswith("--from="):
        made = next(one for one in stages if one.name == words[0].removeprefix("--from="))
        shutil.copytree(made.mapped(words[1]), stage.mapped(words[2]), symlinks=True)
        # A virtual environment names its own place; in the image both stages have the same.
        for script in (Path(stage.mapped(words[2])) / "bin").iterdir():
            if script.is_file() and not script.is_symlink():
                script.write_text(script.read_text().replace(str(made.root), str(stage.root)))
        return
    *sources, target = words
    into = Path(f"{stage.root}{stage.work}") / target
    for source in sources:
        chosen = [path for path in context if path == checkout / source or checkout / source in path.parents]
        if not chosen:
            raise FileNotFoundError(f"COPY {source}: .dockerignore lets nothing of it through")
        for path in chosen:
            folder = (checkout / source).is_dir()
            place = into / path.relative_to(checkout / source) if folder else into
            if not folder and (target.endswith("/") or into.is_dir()):
                place = into / path.name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)


def _run(stage: Stage, line: str) -> None:
    path = f"{Path(sys.base_prefix) / 'bin'}:/usr/bin:/bin"
    env = {"PATH": path, "HOME": str(stage.root), **stage.variables}
    for name in ("PIP_INDEX_URL", "PIP_CONFIG_FILE", "PIP_CERT", "SSL_CERT_FILE", "HTTPS_PROXY", "NO_PROXY"):
        if name in os.environ:
            env[name] = os.environ[name]
    work = f"{stage.root}{stage.work}"
    done = subprocess.run(
        ["/bin/sh", "-c", stage.mapped(line)], cwd=work, env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, line, done.stdout, done.stderr)
