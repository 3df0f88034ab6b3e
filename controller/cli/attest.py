"""`kubectl canary attest`: say who wrote what is in an image, sign it, and attach it to the image in its registry.

Run by the build, which knows the commits and holds the key. Marks in the commits cannot be talked away: `--origin`
may name a worse origin than was found, or a better one only where no mark speaks against it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from controller.attestations.dsse import load_private, sign
from controller.attestations.images import Image, parse_image
from controller.attestations.statements import CHANGE_ORIGIN
from controller.authorship.commits import Range
from controller.authorship.marks import Kind
from controller.cli.git import remote_url, resolve
from controller.cli.kubectl import Cluster, Failure
from controller.cli.origin import declared_marks, read_range
from controller.cli.push import Push
from controller.cli.screen import Screen
from controller.cli.text import plain
from controller.model.origin import Origin, worst_origin

MOST = {"tools": 20, "authors": 40}
"""what a verifier keeps; more than that is refused here, where somebody can do something about it"""
_SECRET = re.compile(r"(?i)(?:token|secret|password|passwd|api[_-]?key|signature|sig|credential)=")


def run(options: argparse.Namespace, _cluster: Cluster, screen: Screen) -> int:
    """Make, sign and attach one statement."""
    image = read_image(options.image)
    key = _read_key(Path(options.key))
    found = read_range(options)
    statement = make_statement(options, image, found, datetime.now(UTC))
    envelope = sign(json.dumps(statement, separators=(",", ":")).encode(), key)
    if options.output:
        Path(options.output).write_bytes(envelope)
    origin = statement["predicate"]["origin"]
    if options.no_push:
        screen.say(f"signed: {origin} for {plain(options.image)}; not pushed")
        return 0
    created = statement["predicate"]["timeCreated"]
    digest = Push(image, options.plain_http).attach(envelope, CHANGE_ORIGIN, created)
    screen.say(f"attached to {plain(options.image)}: {origin}, as {digest}")
    return 0


def read_image(text: str) -> Image:
    """An image by its digest. Raises: Failure."""
    try:
        image = parse_image(text)
    except ValueError as error:
        raise Failure(str(error)) from None
    if not image.digest:
        raise Failure(f"{plain(text)}: a tag can be moved to another image, so write IMAGE@sha256:...")
    return image


def make_statement(options: argparse.Namespace, image: Image, found: Range, now: datetime) -> dict[str, Any]:
    """The in-toto statement. Raises: Failure when what was asked for contradicts what was found."""
    repo = Path(options.repo)
    base, revision = _ends(repo, options.range)
    source = {
        "repository": options.source or (f"git+{url}" if (url := remote_url(repo)) else ""),
        "revision": revision,
        "baseRevision": base,
        "change": options.change,
    }
    authors, tools = _authors(options, found), _tools(options, found)
    for field, count in (("tools", len(tools)), ("authors", len(authors))):
        if count > MOST[field]:
            raise Failure(
                f"{count} {field}, at most {MOST[field]} can be kept: attest since the last release "
                "(--range LAST_RELEASED..HEAD)"
            )
    predicate = {
        "origin": _origin(options, found),
        "degree": options.degree or found.degree or "unknown",
        "source": {key: _link(value, key) for key, value in source.items() if value},
        "tools": tools,
        "evidence": _evidence(found),
        "authors": authors,
        "accountable": {"id": options.accountable} if options.accountable else None,
        "humanModifications": options.human_modifications or None,
        "reversible": None if options.reversible is None else options.reversible == "yes",
        "timeCreated": now.isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
    subjects = [{"name": image.name, "digest": {"sha256": image.digest.removeprefix("sha256:")}}]
    subjects.append({"name": "source", "digest": {"gitCommit": revision}})
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subjects,
        "predicateType": CHANGE_ORIGIN,
        "predicate": {key: value for key, value in predicate.items() if value not in (None, [])},
    }


def _origin(options: argparse.Namespace, found: Range) -> str:
    """What is signed. A mark stays; without one, whoever signs may say whose work it is."""
    if not options.origin:
        return found.origin
    said = Origin(options.origin)
    marked = [one for one in found.commits if any(mark.kind is not Kind.NOISE for mark in one.evidence)]
    beside = [Origin.AI for mark in declared_marks(options) if mark.kind is Kind.AI]
    least = worst_origin([*(one.origin for one in marked if one.origin is not Origin.UNKNOWN), *beside, Origin.HUMAN])
    if said.rank < least.rank:
        raise Failure(
            f"--origin {said}: the commits carry marks of {least}; see `kubectl canary origin {plain(options.range)}`"
        )
    return said


def _ends(repo: Path, revisions: str) -> tuple[str, str]:
    """Base and revision of a range; without a base everything since the first commit counts."""
    base, dots, revision = revisions.partition("..")
    if not dots:
        return "", resolve(repo, revisions)
    return resolve(repo, base), resolve(repo, revision.removeprefix(".") or "HEAD")


def _tools(options: argparse.Namespace, found: Range) -> list[dict[str, Any]]:
    models: dict[str, dict[str, Any]] = {}
    for one in found.commits:
        for mark in one.evidence:
            if mark.kind is not Kind.AI or not mark.tool:
                continue
            entry = models.setdefault(mark.tool, {"name": mark.tool[:256]})
            if mark.model:
                entry.setdefault("model", mark.model[:256])
        if one.note and one.note.ai_lines and one.tool:
            lines = models.setdefault(one.tool, {"name": one.tool[:256]}).setdefault("lines", {"ai": 0, "human": 0})
            lines["ai"] += one.note.ai_lines
            lines["human"] += one.note.human_lines
    for name in (*found.tools, *options.tool):
        models.setdefault(name.partition("=")[0], {"name": name.partition("=")[0][:256]})
    for name in options.tool:
        tool, _, model = name.partition("=")
        if model:
            models[tool]["model"] = model
    prompt = _prompt(options)
    if prompt:
        for entry in models.values():
            entry["prompt"] = prompt
    return list(models.values())


def _prompt(options: argparse.Namespace) -> dict[str, Any]:
    """Where the prompt is kept and its digest; its text goes nowhere."""
    found: dict[str, Any] = {}
    if options.prompt_uri:
        found["uri"] = _link(options.prompt_uri, "--prompt-uri")
    if options.prompt_file:
        try:
            text = Path(options.prompt_file).read_bytes()
        except OSError as error:
            raise Failure(f"--prompt-file {options.prompt_file}: {error.strerror}") from None
        found["digest"] = {"sha256": hashlib.sha256(text).hexdigest()}
    return found


def _link(text: str, field: str) -> str:
    """A link that carries no secret. Raises: Failure."""
    if len(text) > 1024:
        raise Failure(f"{field}: {len(text)} characters, at most 1024")
    if "://" in text and (urlsplit(text.removeprefix("git+")).password or _SECRET.search(text)):
        raise Failure(
            f"{field}: the link carries a password or token, and everybody may read a statement: leave it out"
        )
    return text


def _authors(options: argparse.Namespace, found: Range) -> list[dict[str, str]]:
    said = [
        *((f"mailto:{author}" if "@" in author else author, "author") for author in found.authors),
        *((one, "prompter") for one in options.prompter),
        *([(options.pr_login, "opener")] if options.pr_login and not options.pr_login.endswith("[bot]") else []),
    ]
    return [{"id": name[:256], "role": role} for name, role in dict.fromkeys(said)]


def _evidence(found: Range) -> list[dict[str, str]]:
    """Which pattern was found in which commit; never the text itself."""
    return [
        {"kind": mark.field, "pattern": mark.pattern, "ref": one.sha, "confidence": mark.confidence}
        for one in found.commits
        for mark in one.evidence
    ][:200]


def _read_key(path: Path) -> Any:
    password = os.environ.get("SERIN_KEY_PASSWORD")
    try:
        pem = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        return load_private(pem, password.encode() if password else None)
    except OSError as error:
        raise Failure(f"--key {path}: {error.strerror}") from None
    except ValueError as error:
        raise Failure(f"--key {path}: {error}") from None
