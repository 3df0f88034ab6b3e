"""Keys that sign and verify: ECDSA P-256 and Ed25519.

The one thing to know: the library takes 8 MiB of each replica, so whoever runs in the controller imports this module
where a signature is looked at, and not at the top: most clusters have no policy that names a signer.
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PrivateKey = EllipticCurvePrivateKey | Ed25519PrivateKey
PublicKey = EllipticCurvePublicKey | Ed25519PublicKey

_OTHER_KIND = "neither ECDSA P-256 nor Ed25519: make one with `openssl genpkey -algorithm ed25519`"


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
    raise ValueError(_OTHER_KIND)


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
    raise ValueError(_OTHER_KIND)


def key_id(key: PublicKey) -> str:
    """SHA-256 of the key's DER form: a hint for whoever looks for the right key."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def sign_bytes(key: PrivateKey, message: bytes) -> bytes:
    """The signature over `message`."""
    return key.sign(message) if isinstance(key, Ed25519PrivateKey) else key.sign(message, ECDSA(hashes.SHA256()))


def is_by(key: PublicKey, signature: bytes, message: bytes) -> bool:
    """Whether the owner of `key` signed `message`."""
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, message)
        else:
            key.verify(signature, message, ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True
