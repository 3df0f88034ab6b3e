"""Verifying one statement about one image. The order of the checks is their meaning and must not be changed:

size, payload type, signature, JSON, statement type, predicate type, subject, age, signer's limits, fields. Nothing of a
statement is read before its signature was found good, and any failure makes it absent, with a line that says why.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from controller.attestations.dsse import Opened, Unverified, open_envelope
from controller.attestations.images import digest_of
from controller.model.evidence import Author, Degree, Link, Name, Origin, Tool
from controller.model.policy import Signer
from controller.model.value import Value

if TYPE_CHECKING:
    from controller.attestations.keys import PublicKey

CHANGE_ORIGIN = "https://serin.dev/attestation/change-origin/v0.1"
STATEMENTS = frozenset({"https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"})
SLSA_PROVENANCE = ("https://slsa.dev/provenance/v1", "https://slsa.dev/provenance/v0.2")
VERIFICATION_SUMMARY = "https://slsa.dev/verification_summary/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
SARIF = ("https://witness.dev/attestations/sarif/v0.1", "https://serin.dev/attestation/sarif/v0.1")
VULNERABILITIES = (
    "https://in-toto.io/attestation/vulns/v0.1", "https://in-toto.io/attestation/vulns/v0.2",
    "https://cosign.sigstore.dev/attestation/vuln/v1",
)  # fmt: skip
SKEW = timedelta(minutes=5)
"""how far a statement's time may lie ahead of ours"""
CRITICAL = 9.0
"""CVSS score from which a finding makes a scan fail"""


class Source(Value, frozen=True):
    """Where the change comes from."""

    repository: Link = ""
    revision: Annotated[str, Meta(max_length=64)] = ""
    base_revision: Annotated[str, Meta(max_length=64)] = ""
    change: Link = ""


class Digest(Value, frozen=True):
    """A digest of something that is not shown."""

    sha256: Annotated[str, Meta(max_length=64)] = ""


class Prompt(Value, frozen=True):
    """Where a prompt is kept: never its text."""

    uri: Link = ""
    digest: Digest = Digest()


class ToolSaid(Value, frozen=True):
    """A tool as a statement names it."""

    name: Name
    version: Name = ""
    model: Name = ""
    session: Link = ""
    prompt: Prompt = Prompt()


class Accountable(Value, frozen=True):
    """Who answers for the change."""

    id: Name = ""


class ChangeOrigin(Value, frozen=True):
    """The predicate of change-origin."""

    origin: Origin
    time_created: datetime
    degree: str = ""
    source: Source = Source()
    tools: Annotated[tuple[ToolSaid, ...], Meta(max_length=20)] = ()
    authors: Annotated[tuple[Author, ...], Meta(max_length=40)] = ()
    accountable: Accountable = Accountable()
    change_classes: Annotated[tuple[Annotated[str, Meta(max_length=40)], ...], Meta(max_length=20)] = ()
    human_modifications: Link = ""
    reversible: bool | None = None

    @property
    def said_degree(self) -> Degree:
        """Unsaid where it is none of the known ones."""
        return Degree(self.degree) if self.degree in set(Degree) else Degree.UNSAID

    @property
    def used(self) -> tuple[Tool, ...]:
        """The tools as evidence keeps them."""
        return tuple(
            Tool(one.name, one.version, one.model, one.session, one.prompt.uri, one.prompt.digest.sha256)
            for one in self.tools
        )


@dataclass(frozen=True)
class Verified:
    """A statement that is believed."""

    type: str
    signer: str
    digest: str
    """of the statement itself"""
    result: str = "passed"
    origin: ChangeOrigin | None = None


@dataclass(frozen=True)
class Refused:
    """One that is not, and why."""

    digest: str
    why: str


OpenBundle = Callable[[bytes, tuple[Signer, ...]], Opened]
"""verifies a Sigstore bundle against identities; raises Unverified"""


def verify(
    blob: bytes, image_digest: str, signers: Iterable[Signer], now: datetime, open_bundle: OpenBundle | None = None
) -> Verified | Refused:
    """Whether one statement is to be believed about the image with this digest."""
    try:
        return _verify(blob, image_digest, tuple(signers), now, open_bundle)
    except Unverified as error:
        return Refused(digest_of(blob), str(error))


def _verify(
    blob: bytes, image_digest: str, signers: tuple[Signer, ...], now: datetime, open_bundle: OpenBundle | None
) -> Verified:
    opened = _open(blob, signers, open_bundle)
    statement = _parse(opened.payload)
    if statement.get("_type") not in STATEMENTS:
        raise Unverified("_type is not that of an in-toto statement")
    kind = statement.get("predicateType")
    vouching = [one for one in signers if one.name == opened.signer]
    allowed = {allowed for one in vouching for allowed in (one.predicate_types or (CHANGE_ORIGIN,))}
    if not isinstance(kind, str) or kind not in allowed:
        raise Unverified(
            f"signer {opened.signer} may not vouch for {str(kind)[:200]}: add it to predicateTypes of that signer"
        )
    subjects = _subjects(statement)
    if image_digest not in subjects:
        raise Unverified(f"it speaks about {', '.join(subjects) or 'no sha256'}, not about {image_digest}")
    predicate = statement.get("predicate")
    if not isinstance(predicate, dict):
        raise Unverified("predicate is no object")
    ages = [one.max_age for one in vouching if one.max_age is not None]
    _check_age(_created(kind, predicate) or opened.signed_at, min(ages, default=None), now)
    _check_repository(vouching, kind, predicate)
    origin = _change_origin(predicate) if kind == CHANGE_ORIGIN else None
    return Verified(kind, opened.signer, digest_of(blob), _result(kind, predicate), origin)


def _open(blob: bytes, signers: tuple[Signer, ...], open_bundle: OpenBundle | None) -> Opened:
    try:
        return open_envelope(blob, _keys(signers))
    except Unverified:
        identities = tuple(one for one in signers if one.identity)
        if open_bundle is None or not identities or len(blob) > 1 << 20 or b'"verificationMaterial"' not in blob:
            raise
        return open_bundle(blob, identities)


def _keys(signers: Iterable[Signer]) -> Iterable[tuple[str, PublicKey]]:
    from controller.attestations.keys import load_public

    for signer in signers:
        if signer.public_key:
            try:
                yield signer.name, load_public(signer.public_key)
            except ValueError:
                # One unreadable key vouches for nothing and must not silence the others.
                continue


def _parse(payload: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key stands twice")
        return found

    try:
        statement = json.loads(payload, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise Unverified(f"its payload is no JSON: {str(error)[:100]}") from None
    if not isinstance(statement, dict):
        raise Unverified("its payload is no JSON object")
    return statement


def _subjects(statement: dict[str, Any]) -> list[str]:
    found = statement.get("subject")
    digests = [one.get("digest") for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    return [f"sha256:{str(one['sha256'])[:64].lower()}" for one in digests if isinstance(one, dict) and "sha256" in one]


def _created(kind: str, predicate: dict[str, Any]) -> datetime | None:
    metadata = _inside(predicate, "runDetails", "metadata")
    said = {
        CHANGE_ORIGIN: predicate.get("timeCreated"),
        VERIFICATION_SUMMARY: predicate.get("timeVerified"),
        SLSA_PROVENANCE[0]: metadata.get("finishedOn") or metadata.get("startedOn"),
        SLSA_PROVENANCE[1]: _inside(predicate, "metadata").get("buildFinishedOn"),
    }.get(kind, predicate.get("timeCreated") or _inside(predicate, "metadata").get("scanFinishedOn"))
    if said is None:
        return None
    try:
        at = datetime.fromisoformat(str(said))
    except ValueError:
        raise Unverified(f"its time {str(said)[:40]!r} is not RFC 3339") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _check_age(created: datetime | None, max_age: timedelta | None, now: datetime) -> None:
    if created is not None and created > now + SKEW:
        raise Unverified(f"it was made at {created.isoformat()}, which has not come yet: is a clock wrong?")
    if max_age is None:
        return
    if created is None:
        raise Unverified("it has no time, and the signer has a maxAge")
    if now - created > max_age:
        raise Unverified(f"it was made at {created.isoformat()}, longer ago than the signer's maxAge: attest anew")


def _check_repository(vouching: list[Signer], kind: str, predicate: dict[str, Any]) -> None:
    """A signer with a repository vouches for builds of that one only; keyless identities are checked by Sigstore."""
    wanted = {one.source_repository for one in vouching if one.source_repository and one.public_key}
    if not wanted:
        return
    if kind == CHANGE_ORIGIN:
        said = _inside(predicate, "source").get("repository")
    else:
        dependencies = _inside(predicate, "buildDefinition").get("resolvedDependencies")
        first = dependencies[0] if isinstance(dependencies, list) and dependencies else {}
        said = first.get("uri") if isinstance(first, dict) else None
    if _plain_url(str(said or "")) not in {_plain_url(one) for one in wanted}:
        raise Unverified(f"it is about the repository {str(said)[:200]}, the signer vouches for {', '.join(wanted)}")


def _plain_url(url: str) -> str:
    return url.removeprefix("git+").partition("@")[0].removesuffix("/").removesuffix(".git").lower()


def _change_origin(predicate: dict[str, Any]) -> ChangeOrigin:
    try:
        return msgspec.convert(predicate, ChangeOrigin)
    except msgspec.ValidationError as error:
        raise Unverified(f"predicate: {error}") from None


def _result(kind: str, predicate: dict[str, Any]) -> str:
    """`passed` or `failed`, where the type has a result; a type without one is passed by being there."""
    if kind == VERIFICATION_SUMMARY:
        return "passed" if predicate.get("verificationResult") == "PASSED" else "failed"
    if kind == TEST_RESULT:
        return "passed" if predicate.get("result") in {"PASSED", "WARNED"} else "failed"
    if kind in SARIF:
        return "failed" if any(_is_error(run) for run in _runs(predicate)) or not _runs(predicate) else "passed"
    if kind in VULNERABILITIES:
        return "failed" if _has_critical(predicate) else "passed"
    return "passed"


def _runs(predicate: dict[str, Any]) -> list[Any]:
    report = predicate.get("report", predicate)
    found = report.get("runs") if isinstance(report, dict) else None
    return found if isinstance(found, list) else []


def _is_error(run: Any) -> bool:
    results = run.get("results") if isinstance(run, dict) else None
    # A result without a level is a warning by SARIF's default; anything unreadable counts against it.
    return not isinstance(results, list) or any(not isinstance(r, dict) or r.get("level") == "error" for r in results)


def _has_critical(predicate: dict[str, Any]) -> bool:
    found = _inside(predicate, "scanner").get("result")
    if isinstance(found, dict):
        # cosign's wraps a scanner's own report, whose form we do not know: SARIF is understood, the rest is not.
        return any(_is_error(run) for run in _runs(found)) if "runs" in found else True
    if not isinstance(found, list):
        return True
    return any(_is_critical(severity) for one in found if isinstance(one, dict) for severity in one.get("severity", ()))


def _is_critical(severity: Any) -> bool:
    score = str(severity.get("score", "")) if isinstance(severity, dict) else ""
    try:
        return float(score) >= CRITICAL
    except ValueError:
        return score.strip().lower() == "critical"


def _inside(body: Any, *keys: str) -> dict[str, Any]:
    for key in keys:
        body = body.get(key) if isinstance(body, dict) else None
    return body if isinstance(body, dict) else {}
