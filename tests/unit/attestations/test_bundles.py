"""Keyless signatures: bundles that GitHub Actions made, verified offline against the trust root that sigstore ships.

Where they come from stands beside them, in `bundles/README.md`.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from controller.attestations.bundles import open_bundle
from controller.attestations.statements import SLSA_PROVENANCE, Refused, Verified, verify
from controller.model.policy import Signer

ROOT = Path(__file__).parents[3]
BUNDLES = Path(__file__).parent / "bundles"
PUBLIC = (BUNDLES / "github-actions.json").read_bytes()
PRIVATE = (BUNDLES / "github-private.json").read_bytes()
WHEEL = "sha256:49a3aa6075e0f49f82843e74b5baa614ad2a588e6675612bf108a0a008c5ac25"
SIGNED = datetime(2024, 5, 24, 20, 54, 38, tzinfo=UTC)
WORKFLOWS = "https://github.com/github/artifact-attestations-workflows/.github/workflows"


def workflow(**changes: Any) -> Signer:
    """The identity that signed it: a reusable workflow at one commit, called from one repository."""
    usual = {
        "name": "actions",
        "issuer": "https://token.actions.githubusercontent.com",
        "identity": f"{WORKFLOWS}/attest.yml@09b495c3f12c7881b3cc17209a327792065c1a1d",
        "source_repository": "https://github.com/malancas/attest-demo",
        "predicate_types": (SLSA_PROVENANCE[0],),
    }
    return Signer(**usual | changes)


def forged(**changes: Any) -> bytes:
    """The bundle with another payload, or without its entry in the log."""
    body = json.loads(PUBLIC)
    if "payload" in changes:
        body["dsseEnvelope"]["payload"] = base64.b64encode(changes["payload"]).decode()
    if "log" in changes:
        body["verificationMaterial"]["tlogEntries"] = changes["log"]
    return json.dumps(body).encode()


def test_a_bundle_of_a_public_workflow_is_believed_about_what_it_names_and_nothing_else() -> None:
    found = verify(PUBLIC, WHEEL, [workflow()], SIGNED + timedelta(days=300), open_bundle)
    other = verify(PUBLIC, WHEEL.replace("4", "5"), [workflow()], SIGNED, open_bundle)

    assert isinstance(found, Verified)
    assert (found.type, found.signer, found.result) == (SLSA_PROVENANCE[0], "actions", "passed")
    assert isinstance(other, Refused)
    assert "not about sha256:5" in other.why


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"identity": f"{WORKFLOWS}/attest.yml@refs/heads/main"}, id="the workflow at another commit"),
        pytest.param({"source_repository": "https://github.com/mallory/attest-demo"}, id="called from elsewhere"),
        pytest.param({"issuer": "https://accounts.example.com"}, id="another issuer"),
    ],
)
def test_an_identity_that_is_not_the_signers_is_not_believed(changes: dict[str, Any]) -> None:
    found = verify(PUBLIC, WHEEL, [workflow(**changes)], SIGNED, open_bundle)

    assert isinstance(found, Refused)
    assert found.why.startswith("a Sigstore bundle by no identity of a policy's signers")


def test_the_age_of_a_provenance_without_a_time_of_its_own_is_that_of_its_certificate() -> None:
    """GitHub's says when by the certificate alone; with a maxAge it was never believed."""
    month = workflow(max_age=timedelta(days=30))

    young = verify(PUBLIC, WHEEL, [month], SIGNED + timedelta(days=29), open_bundle)
    old = verify(PUBLIC, WHEEL, [month], SIGNED + timedelta(days=31), open_bundle)

    assert isinstance(young, Verified)
    assert isinstance(old, Refused)
    assert "longer ago than the signer's maxAge" in old.why


@pytest.mark.parametrize(
    "blob",
    [
        pytest.param(forged(payload=b'{"_type": "https://in-toto.io/Statement/v1"}'), id="another payload"),
        pytest.param(forged(log=[]), id="without its log entry"),
        pytest.param(PRIVATE, id="a private repository's, which has no log entry"),
        pytest.param(b'{"verificationMaterial": 1}', id="no bundle at all"),
    ],
)
def test_what_the_log_does_not_know_is_as_if_it_were_not_there(blob: bytes) -> None:
    identity = "https://github.com/actions/attest-demo/.github/workflows/build-python.yml@refs/heads/main"
    private = workflow(name="private", identity=identity, source_repository="https://github.com/actions/attest-demo")

    found = verify(blob, WHEEL, [workflow(), private], SIGNED, open_bundle)

    assert isinstance(found, Refused)
    assert "\n" not in found.why


def test_it_is_verified_without_a_network_or_a_place_to_write() -> None:
    """The controller's file system is read-only, and it asks nobody but registries."""
    program = """
import socket
from tests.unit.attestations.test_bundles import *
socket.getaddrinfo = socket.socket.connect = None
assert isinstance(verify(PUBLIC, WHEEL, [workflow()], SIGNED, open_bundle), Verified)
"""
    nowhere = dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"), "/dev/null/nowhere")
    command = [sys.executable, "-B", "-c", program]

    done = subprocess.run(command, cwd=ROOT, env=os.environ | nowhere, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
