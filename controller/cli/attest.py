"""`kubectl canary attest`: say who wrote what is in an image, sign it, and attach it to the image in its registry.

Run by the build, which knows the commits and holds the key. Marks in the commits cannot be talked away: `--origin`
may name a worse origin than was found, or a better one only where no mark speaks against it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from controller.attestations.dsse import sign
from controller.attestations.images import Image, parse_image
from controller.attestations.keys import load_private
from controller.attestations.statements import CHANGE_ORIGIN
from controller.authorship.commits import Range
from controller.authorship.marks import Kind
from controller.cli.claims import (
    LONGEST_NAME,
    PAGES,
    PLACES,
    SOURCES,
    check_degree,
    check_tools,
    read_line,
    read_link,
    read_person,
    read_tool,
)
from controller.cli.files import read_bytes
from controller.cli.git import remote_url, resolve
from controller.cli.kubectl import Cluster, Failure
from controller.cli.origin import declared_marks, read_range
from controller.cli.push import Push
from controller.cli.screen import Screen
from controller.cli.text import plain
from controller.model.origin import Origin, worst_origin

MOST = {"tools": 20, "authors": 40}
"""what a verifier keeps; more than that is refused here, where somebody can do something about it"""


def run(options: argparse.Namespace, _cluster: Cluster, screen: Screen) -> int:
    """Make, sign and attach one statement."""
    image = read_image(options.image)
    key = _read_key(options.key)
    found = read_range(options)
    statement = make_statement(options, image, found, datetime.now(UTC))
    envelope = sign(json.dumps(statement, separators=(",", ":")).encode(), key)
    if options.output:
        try:
            Path(options.output).write_bytes(envelope)
        except OSError as error:
            raise Failure(f"-o {options.output}: {error.strerror}") from None
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
        "repository": read_link(options.source, "--source", SOURCES)
        or (f"git+{url}" if (url := remote_url(repo)) else ""),
        "revision": revision,
        "baseRevision": base,
        "change": read_link(options.change, "--change", PAGES),
    }
    authors, tools = _authors(options, found), _tools(options, found)
    for field, count in (("tools", len(tools)), ("authors", len(authors))):
        if count > MOST[field]:
            raise Failure(
                f"{count} {field}, at most {MOST[field]} can be kept: attest since the last release "
                "(--range LAST_RELEASED..HEAD)"
            )
    origin = Origin(_origin(options, found))
    check_degree(options.degree, found.degree, origin)
    named = {
        "--tool": bool(options.tool),
        "--prompter": bool(options.prompter),
        "--prompt-file": bool(options.prompt_file),
        "--prompt-uri": bool(options.prompt_uri),
    }
    check_tools(named, origin, any_tool=bool(tools))
    predicate = {
        "origin": origin,
        "degree": options.degree or found.degree or "unknown",
        "source": {key: value for key, value in source.items() if value},
        "tools": tools,
        "evidence": _evidence(found),
        "authors": authors,
        "accountable": None
        if options.accountable is None
        else {"id": read_person(options.accountable, "--accountable")},
        "changeClasses": sorted(set(options.classes)),
        "humanModifications": read_line(options.human_modifications, "--human-modifications") or None,
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
    if not found.commits and said.rank < Origin.UNKNOWN.rank:
        raise Failure(
            f"--origin {said}: no commit is in {plain(options.range)}, so none was looked at: name those since the "
            "last release (--range LAST_RELEASED..HEAD)"
        )
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
    return resolve(repo, base or "HEAD"), resolve(repo, revision.removeprefix(".") or "HEAD")


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
    for name in found.tools:
        models.setdefault(name, {"name": name[:256]})
    for name, model in map(read_tool, options.tool):
        entry = models.setdefault(name, {"name": name})
        if model:
            entry["model"] = model
    prompt = _prompt(options)
    if prompt:
        for entry in models.values():
            entry["prompt"] = prompt
    return list(models.values())


def _prompt(options: argparse.Namespace) -> dict[str, Any]:
    """Where the prompt is kept and its digest; its text goes nowhere."""
    found: dict[str, Any] = {}
    if options.prompt_uri:
        found["uri"] = read_link(options.prompt_uri, "--prompt-uri", PLACES)
    if options.prompt_file:
        text = read_bytes(options.prompt_file, "--prompt-file")
        found["digest"] = {"sha256": hashlib.sha256(text).hexdigest()}
    return found


def _authors(options: argparse.Namespace, found: Range) -> list[dict[str, str]]:
    for author in found.authors:
        if len(author) > LONGEST_NAME - len("mailto:"):
            raise Failure(
                f"the author {plain(author, 60)} of a commit has {len(author)} characters: nobody is called so"
            )
    opener = options.pr_login if not options.pr_login.endswith("[bot]") else ""
    said = [
        *((f"mailto:{author}" if "@" in author else author, "author") for author in found.authors),
        *((read_person(one, "--prompter"), "prompter") for one in options.prompter),
        *([(read_person(opener, "--pr-login"), "opener")] if opener else []),
    ]
    return [{"id": name, "role": role} for name, role in dict.fromkeys(said)]


def _evidence(found: Range) -> list[dict[str, str]]:
    """Which pattern was found in which commit, or beside them all; never the text itself."""
    said = [("pull-request", mark) for mark in found.declared]
    said += [(one.sha, mark) for one in found.commits for mark in one.evidence]
    return [
        {"kind": mark.field, "pattern": mark.pattern, "ref": ref, "confidence": mark.confidence}
        for ref, mark in said[:200]
    ]


def _read_key(file: str) -> Any:
    password = os.environ.get("SERIN_KEY_PASSWORD")
    pem = read_bytes(file, "--key")
    try:
        return load_private(pem, password.encode() if password else None)
    except ValueError as error:
        raise Failure(f"--key {plain(file)}: {error}") from None
