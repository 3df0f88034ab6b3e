"""DSSE: an envelope around a payload, signed over its type and its bytes. ECDSA P-256 and Ed25519.

What is verified is what is parsed: the payload leaves here only as the very bytes that were signed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

IN_TOTO = "application/vnd.in-toto+json"
ENVELOPE = "application/vnd.dsse.envelope.v1+json"
LARGEST = 1 << 20
"""bytes of an envelope; a larger one is not looked at"""
MOST_SIGNATURES = 10

PrivateKey = EllipticCurvePrivateKey | Ed25519PrivateKey
PublicKey = EllipticCurvePublicKey | Ed25519PublicKey


class Unverified(Exception):
    """Not to be believed; the message says what was found."""


@dataclass(frozen=True)
class Opened:
    """A payload that `signer` has signed."""

    payload: bytes
    signer: str


def sign(payload: bytes, key: PrivateKey) -> bytes:
    """An envelope around an in-toto statement."""
    message = _signed_bytes(IN_TOTO, payload)
    signature = key.sign(message) if isinstance(key, Ed25519PrivateKey) else key.sign(message, ECDSA(hashes.SHA256()))
    envelope = {
        "payloadType": IN_TOTO,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": key_id(key.public_key()), "sig": base64.b64encode(signature).decode()}],
    }
    return json.dumps(envelope, separators=(",", ":")).encode()


def open_envelope(blob: bytes, keys: Iterable[tuple[str, PublicKey]]) -> Opened:
    """The payload, when one of these named keys signed it. Raises: Unverified.

    Key ids are hints that anybody can write, so every key is tried on every signature.
    """
    if len(blob) > LARGEST:
        raise Unverified(f"it has {len(blob)} bytes, at most {LARGEST} are looked at")
    body = _object(blob)
    # cosign's bundles carry the same envelope inside.
    envelope = body.get("dsseEnvelope", body)
    if not isinstance(envelope, dict) or envelope.get("payloadType") != IN_TOTO:
        raise Unverified(f"payloadType is not {IN_TOTO}")
    payload, signatures = _decoded(envelope.get("payload"), "payload"), envelope.get("signatures")
    if not isinstance(signatures, list) or not 0 < len(signatures) <= MOST_SIGNATURES:
        raise Unverified(f"signatures: expected 1 to {MOST_SIGNATURES}")
    message = _signed_bytes(IN_TOTO, payload)
    named = list(keys)
    for one in signatures:
        signature = _decoded(one.get("sig") if isinstance(one, dict) else None, "sig")
        for name, key in named:
            if _is_by(key, signature, message):
                return Opened(payload, name)
    raise Unverified("signed by no key of a policy's signers")


def load_public(pem: str) -> PublicKey:
    """A public key in PEM. Raises: ValueError with what to write."""
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("no public key in PEM (-----BEGIN PUBLIC KEY-----)") from None
    if isinstance(key, Ed25519PublicKey) or (
        isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)
    ):
        return key
    raise ValueError("neither ECDSA P-256 nor Ed25519: make one with `openssl genpkey -algorithm ed25519`")


def load_private(pem: bytes, password: bytes | None = None) -> PrivateKey:
    """A private key in PEM. Raises: ValueError with what to write."""
    try:
        key = serialization.load_pem_private_key(pem, password)
    except TypeError:
        raise ValueError("the key is encrypted: set SERIN_KEY_PASSWORD, or it is not and that is set") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("no private key in PEM, or the password is wrong") from None
    if isinstance(key, Ed25519PrivateKey) or (
        isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1)
    ):
        return key
    raise ValueError("neither ECDSA P-256 nor Ed25519: make one with `openssl genpkey -algorithm ed25519`")


def key_id(key: PublicKey) -> str:
    """SHA-256 of the key's DER form: a hint for whoever looks for the right key."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def _signed_bytes(kind: str, body: bytes) -> bytes:
    """DSSE's pre-authentication encoding."""
    return b"DSSEv1 %d %s %d %s" % (len(kind.encode()), kind.encode(), len(body), body)


def _is_by(key: PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, message)
        else:
            key.verify(signature, message, ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _object(blob: bytes) -> dict[str, object]:
    try:
        body = json.loads(blob)
    except (ValueError, RecursionError):
        raise Unverified("it is no JSON") from None
    if not isinstance(body, dict):
        raise Unverified("it is no JSON object")
    return body


def _decoded(value: object, field: str) -> bytes:
    if not isinstance(value, str):
        raise Unverified(f"{field} is missing")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise Unverified(f"{field} is not base64") from None
