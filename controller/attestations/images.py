"""Names of images and what registries say, as plain values: no network here."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from controller.attestations.dsse import ENVELOPE

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle"
DOCKER_HUB = "docker.io"
ACCEPTED = (
    MANIFEST, INDEX, "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)  # fmt: skip
MOST_REFERRERS = 50
"""statements of one image that are fetched; one with more is refused, so that none can be pushed out of sight"""
MOST_PLATFORMS = 40
"""of one image that are told apart from another image"""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"\w[\w.-]{0,127}")
_HOST = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)(?:\.[A-Za-z0-9-]+)*(?::\d{1,5})?|\[[0-9a-fA-F:]+\](?::\d{1,5})?"
)
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class Image:
    """A reference, in full."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def host(self) -> str:
        """Where its registry answers; Docker Hub's answers elsewhere than its name says."""
        return "registry-1.docker.io" if self.registry == DOCKER_HUB else self.registry

    @property
    def name(self) -> str:
        """Without tag and digest."""
        return f"{self.registry}/{self.repository}"


@dataclass(frozen=True)
class Blob:
    """Where one statement lies."""

    digest: str
    size: int
    kind: str


@dataclass(frozen=True)
class Challenge:
    """How a registry wants to be asked."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""


def parse_image(text: str) -> Image:
    """A reference as a pod template has it. Raises: ValueError with what was found.

    >>> parse_image("nginx").name, parse_image("localhost:5000/shop/cart:1.8").tag
    ('docker.io/library/nginx', '1.8')
    """
    rest, _, digest = text.partition("@")
    if digest and not _DIGEST.fullmatch(digest):
        raise ValueError(f"{text[:200]!r}: its digest is not sha256: and 64 hexadecimal digits")
    first, slash, path = rest.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        registry, rest = first, path
    else:
        registry = DOCKER_HUB
    repository, _, tag = rest.partition(":")
    if registry == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    if not _HOST.fullmatch(registry) or not _REPOSITORY.fullmatch(repository) or len(repository) > 255:
        raise ValueError(f"{text[:200]!r} is not the name of an image")
    if tag and not _TAG.fullmatch(tag):
        raise ValueError(f"{text[:200]!r}: its tag has characters that no tag can have")
    return Image(registry, repository, tag or ("" if digest else "latest"), digest)


def fallback_tag(digest: str) -> str:
    """Where referrers of a digest are listed in a registry without the referrers API."""
    return digest.replace(":", "-")


def digest_of(body: bytes) -> str:
    """As registries write it."""
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def is_digest(text: str) -> bool:
    """sha256 only."""
    return _DIGEST.fullmatch(text) is not None


def parse_referrers(body: bytes) -> list[str]:
    """Digests of the manifests that may carry statements. Raises: ValueError.

    >>> parse_referrers(b'{"manifests": [{"digest": "sha256:1", "artifactType": "application/spdx+json"}]}')
    []
    """
    found = []
    for one in _list(_json(body), "manifests"):
        kind = str(one.get("artifactType") or "")
        digest = str(one.get("digest") or "")
        if is_digest(digest) and _may_carry(kind):
            found.append(digest)
    _check_count(len(found))
    return found


def parse_platforms(body: bytes) -> tuple[str, ...]:
    """Digests that nodes may report for an image of several platforms; none for one of a single platform.

    >>> parse_platforms(b'{"layers": []}')
    ()

    Raises: ValueError.
    """
    digests = [str(one.get("digest") or "") for one in _list(_json(body), "manifests")]
    return tuple(one for one in digests if is_digest(one))[:MOST_PLATFORMS]


def parse_layers(body: bytes) -> list[Blob]:
    """The statements of one manifest. Raises: ValueError."""
    found = []
    for layer in _list(_json(body), "layers"):
        kind, digest, size = str(layer.get("mediaType") or ""), str(layer.get("digest") or ""), layer.get("size")
        if is_digest(digest) and isinstance(size, int) and _may_carry(kind):
            found.append(Blob(digest, size, kind))
    _check_count(len(found))
    return found


def parse_challenge(header: str) -> Challenge:
    """The WWW-Authenticate header of a 401.

    >>> parse_challenge('Bearer realm="https://auth.example/token",service="r",scope="repository:a:pull"').service
    'r'
    """
    scheme, _, rest = header.partition(" ")
    said = {key.lower(): value for key, value in _CHALLENGE.findall(rest)}
    return Challenge(scheme.lower(), said.get("realm", ""), said.get("service", ""), said.get("scope", ""))


def statement_manifest(envelope: bytes, subject: dict[str, Any], predicate_type: str, created: str) -> dict[str, Any]:
    """The manifest that attaches one envelope to an image."""
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ENVELOPE,
        "config": {"mediaType": EMPTY, "digest": digest_of(b"{}"), "size": 2},
        "layers": [{"mediaType": ENVELOPE, "digest": digest_of(envelope), "size": len(envelope)}],
        "subject": subject,
        "annotations": {"in-toto.io/predicate-type": predicate_type, "org.opencontainers.image.created": created},
    }


def with_referrer(index: bytes | None, manifest: bytes, kind: str) -> bytes:
    """The index under the fallback tag, with one more manifest. Raises: ValueError."""
    body = _json(index) if index else {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
    entry = {"mediaType": MANIFEST, "digest": digest_of(manifest), "size": len(manifest), "artifactType": kind}
    others = [one for one in _list(body, "manifests") if one.get("digest") != entry["digest"]]
    return json.dumps(body | {"manifests": [*others, entry]}, separators=(",", ":")).encode()


def _check_count(count: int) -> None:
    if count > MOST_REFERRERS:
        raise ValueError(f"{count} statements about one image, at most {MOST_REFERRERS} are looked at")


def _may_carry(kind: str) -> bool:
    return kind == ENVELOPE or kind.startswith(BUNDLE) or kind in {"", "application/vnd.in-toto+json"}


def _json(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("the registry's answer is no JSON") from None
    if not isinstance(found, dict):
        raise ValueError("the registry's answer is no JSON object")
    return found


def _list(body: dict[str, Any], field: str) -> list[dict[str, Any]]:
    found = body.get(field)
    if not isinstance(found, list):
        return []
    return [one for one in found if isinstance(one, dict)]
