"""Sigstore bundles: keyless signatures by an identity at an issuer. Needs the extra `sigstore`.

Everything is checked offline against the trust root that the library ships, or the one named by SERIN_TRUSTED_ROOT.
The library wants one entry of the transparency log and a certificate: bundles of GitHub's private repositories, which
have a timestamp instead, are unsupported and count as absent.
"""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from controller.attestations.dsse import IN_TOTO, Opened, Unverified
from controller.attestations.statements import OpenBundle
from controller.model.policy import Signer


def bundle_opener() -> OpenBundle:
    """What opens bundles here; without the extra, something that says so."""
    return open_bundle if find_spec("sigstore") is not None else _say_how


def open_bundle(blob: bytes, signers: tuple[Signer, ...]) -> Opened:
    """The payload, when one of these identities signed it. Raises: Unverified."""
    from sigstore.errors import Error
    from sigstore.models import Bundle
    from sigstore.verify import policy

    try:
        bundle = Bundle.from_json(blob)
    except (Error, ValueError) as error:
        raise Unverified(f"a Sigstore bundle that cannot be read: {str(error)[:200]}") from None
    said = ""
    for signer in signers:
        wanted: list[Any] = [policy.Identity(identity=signer.identity, issuer=signer.issuer)]
        if signer.source_repository:
            wanted.append(policy.OIDCSourceRepositoryURI(signer.source_repository))
        try:
            kind, payload = _verifier().verify_dsse(bundle, policy.AllOf(wanted))
        except (Error, ValueError) as error:
            said = str(error)[:200]
            continue
        if kind != IN_TOTO:
            raise Unverified(f"payloadType is not {IN_TOTO}")
        return Opened(payload, signer.name)
    raise Unverified(f"a Sigstore bundle by no identity of a policy's signers: {said}")


@cache
def _verifier() -> Any:
    from sigstore.models import TrustedRoot
    from sigstore.verify import Verifier

    path = os.environ.get("SERIN_TRUSTED_ROOT", "")
    if path:
        return Verifier(trusted_root=TrustedRoot.from_file(str(Path(path))))
    return Verifier.production(offline=True)


def _say_how(blob: bytes, signers: tuple[Signer, ...]) -> Opened:
    raise Unverified("a Sigstore bundle, and this controller was installed without the extra `sigstore`")
