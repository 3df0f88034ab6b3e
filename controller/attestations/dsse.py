"""DSSE: an envelope around a payload, signed over its type and its bytes.

What is verified is what is parsed: the payload leaves here only as the very bytes that were signed.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controller.attestations.keys import PrivateKey, PublicKey

IN_TOTO = "application/vnd.in-toto+json"
ENVELOPE = "application/vnd.dsse.envelope.v1+json"
LARGEST = 1 << 20
"""bytes of an envelope; a larger one is not looked at"""
MOST_SIGNATURES = 10


class Unverified(Exception):
    """Not to be believed; the message says what was found."""


@dataclass(frozen=True)
class Opened:
    """A payload that `signer` has signed."""

    payload: bytes
    signer: str
    signed_at: datetime | None = None
    """where somebody else than the signer vouches for the time"""


def sign(payload: bytes, key: PrivateKey) -> bytes:
    """An envelope around an in-toto statement."""
    from controller.attestations.keys import key_id, sign_bytes

    signature = sign_bytes(key, _signed_bytes(IN_TOTO, payload))
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
    from controller.attestations.keys import is_by

    message = _signed_bytes(IN_TOTO, payload)
    named = list(keys)
    for one in signatures:
        signature = _decoded(one.get("sig") if isinstance(one, dict) else None, "sig")
        for name, key in named:
            if is_by(key, signature, message):
                return Opened(payload, name)
    raise Unverified("signed by no key of a policy's signers")


def _signed_bytes(kind: str, body: bytes) -> bytes:
    """DSSE's pre-authentication encoding."""
    return b"DSSEv1 %d %s %d %s" % (len(kind.encode()), kind.encode(), len(body), body)


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
