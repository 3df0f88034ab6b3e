"""Sigstore bundles: keyless signatures by an identity at an issuer. Needs the extra `sigstore`.

Everything is checked offline against the trust root that the library ships, or the one named by SERIN_TRUSTED_ROOT;
nothing is written, since the controller's file system is read-only. The library wants a certificate and one entry of
the transparency log, of the type `dsse`: bundles of GitHub's private repositories, which have a timestamp instead, and
npm's of before 2024, whose entry is of the type `intoto`, are unsupported and count as absent.
"""

from __future__ import annotations

import os
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

from controller.attestations.dsse import IN_TOTO, Opened, Unverified
from controller.attestations.statements import OpenBundle
from controller.model.policy import Signer

PUBLIC_GOOD = "https://tuf-repo-cdn.sigstore.dev"
"""the instance whose trust root the library ships"""


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
        raise Unverified(f"a Sigstore bundle that cannot be read: {' '.join(str(error).split())[:200]}") from None
    verifier = _verifier()
    said = ""
    for signer in signers:
        wanted: list[Any] = [policy.Identity(identity=signer.identity, issuer=signer.issuer)]
        if signer.source_repository:
            wanted.append(policy.OIDCSourceRepositoryURI(signer.source_repository))
        try:
            kind, payload = verifier.verify_dsse(bundle, policy.AllOf(wanted))
        except (Error, ValueError) as error:
            said = str(error)[:200]
            continue
        if kind != IN_TOTO:
            raise Unverified(f"payloadType is not {IN_TOTO}")
        # The signature was made in the minutes for which the certificate is valid: the library has checked that.
        return Opened(payload, signer.name, bundle.signing_certificate.not_valid_before_utc)
    raise Unverified(f"a Sigstore bundle by no identity of a policy's signers: {said}")


@cache
def _verifier() -> Any:
    from sigstore.errors import Error
    from sigstore.models import TrustedRoot
    from sigstore.verify import Verifier

    # The library's own way to its trust root writes into the home directory first.
    shipped = files("sigstore") / "_store" / quote(PUBLIC_GOOD, safe="") / "trusted_root.json"
    path = os.environ.get("SERIN_TRUSTED_ROOT", "") or str(shipped)
    try:
        return Verifier(trusted_root=TrustedRoot.from_file(str(Path(path))))
    except (Error, OSError, ValueError) as error:
        raise Unverified(f"a Sigstore bundle, and the trust root {path} cannot be read: {str(error)[:200]}") from None


def _say_how(blob: bytes, signers: tuple[Signer, ...]) -> Opened:
    raise Unverified("a Sigstore bundle, and this controller was installed without the extra `sigstore`")
