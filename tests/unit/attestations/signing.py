"""Keys, signers and statements for tests: one usual example of each."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from controller.attestations.dsse import sign
from controller.attestations.keys import PrivateKey
from controller.attestations.statements import CHANGE_ORIGIN
from controller.model.policy import Signer

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
DIGEST = f"sha256:{'a' * 64}"
OTHER = f"sha256:{'b' * 64}"
IMAGE = f"registry.example/shop@{DIGEST}"


@cache
def key(name: str) -> PrivateKey:
    """A key of its own for each name; the first letter's case chooses the kind."""
    return ec.generate_private_key(ec.SECP256R1()) if name.islower() else ed25519.Ed25519PrivateKey.generate()


def pem(name: str = "build") -> str:
    public = key(name).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return public.public_bytes(serialization.Encoding.PEM, form).decode()


def private_pem(name: str = "build") -> bytes:
    form, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key(name).private_bytes(serialization.Encoding.PEM, form, none)


def signer(name: str = "build", **changes: Any) -> Signer:
    return Signer(**({"name": name.lower(), "public_key": pem(name)} | changes))


def origin(**changes: Any) -> dict[str, Any]:
    """The predicate of a change that an AI generated an hour ago."""
    usual = {
        "origin": "ai",
        "degree": "generated",
        "timeCreated": "2026-11-21T11:00:00Z",
        "source": {"repository": "git+https://git.example/shop", "revision": "c" * 40},
        "tools": [{"name": "claude-code", "model": "Claude Opus 4.6"}],
        "authors": [{"id": "mailto:ann@example.com", "role": "prompter"}],
        "accountable": {"id": "mailto:owner@example.com"},
        "reversible": True,
    }
    return {name: value for name, value in (usual | changes).items() if value is not None}


def statement(predicate: Any = None, kind: str = CHANGE_ORIGIN, digest: str = DIGEST, **changes: Any) -> dict[str, Any]:
    usual = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "shop", "digest": {"sha256": digest.removeprefix("sha256:")}}],
        "predicateType": kind,
        "predicate": origin() if predicate is None else predicate,
    }
    return usual | changes


def signed(body: Any = None, by: str = "build") -> bytes:
    return sign(json.dumps(statement() if body is None else body).encode(), key(by))
