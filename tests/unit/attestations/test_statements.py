"""A statement is believed about one digest, from one signer, in one order of checks; everything else is absent."""

import base64
import json
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from controller.attestations.dsse import LARGEST, sign
from controller.attestations.keys import load_private, load_public
from controller.attestations.statements import (
    CHANGE_ORIGIN,
    SARIF,
    SLSA_PROVENANCE,
    TEST_RESULT,
    VERIFICATION_SUMMARY,
    VULNERABILITIES,
    Refused,
    Verified,
    verify,
)
from controller.model.evidence import Degree, Origin
from tests.unit.attestations.signing import (
    DIGEST,
    NOON,
    OTHER,
    key,
    origin,
    pem,
    private_pem,
    signed,
    signer,
    statement,
)

EVERYTHING = (
    CHANGE_ORIGIN, SLSA_PROVENANCE[0], VERIFICATION_SUMMARY, TEST_RESULT, SARIF[0], VULNERABILITIES[0],
    VULNERABILITIES[2],
)  # fmt: skip


def envelope(**changes: Any) -> bytes:
    return json.dumps(json.loads(signed()) | changes).encode()


@pytest.mark.parametrize("name", ["build", "BUILD"], ids=["ECDSA P-256", "Ed25519"])
def test_a_good_statement_says_who_wrote_the_image(name: str) -> None:
    found = verify(signed(by=name), DIGEST, [signer(name)], NOON)

    assert isinstance(found, Verified)
    assert (found.type, found.signer) == (CHANGE_ORIGIN, "build")
    assert found.origin is not None
    assert (found.origin.origin, found.origin.said_degree) == (Origin.AI, Degree.GENERATED)
    assert found.origin.used[0].model == "Claude Opus 4.6"


def test_an_envelope_without_a_key_id_is_verified_as_cosign_writes_it() -> None:
    body = json.loads(signed())
    body["signatures"][0]["keyid"] = ""

    assert isinstance(verify(json.dumps(body).encode(), DIGEST, [signer()], NOON), Verified)
    bundle = json.dumps({"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json", "dsseEnvelope": body}).encode()
    assert isinstance(verify(bundle, DIGEST, [signer()], NOON), Verified)


@pytest.mark.parametrize(
    ("blob", "says"),
    [
        pytest.param(b"", "no JSON", id="empty"),
        pytest.param(b"\xff\xfe", "no JSON", id="no text"),
        pytest.param(b"[]", "no JSON object", id="a list"),
        pytest.param(b"[" * 100_000, "no JSON", id="deep"),
        pytest.param(b"x" * (LARGEST + 1), "bytes", id="oversized"),
        pytest.param(envelope(payloadType="text/plain"), "payloadType", id="another payload type"),
        pytest.param(envelope(payload="***"), "not base64", id="payload is no base64"),
        pytest.param(envelope(signatures=[]), "signatures", id="no signature"),
        pytest.param(envelope(signatures=[{"sig": "AAAA"}] * 11), "signatures", id="too many signatures"),
        pytest.param(envelope(signatures=["x"]), "sig is missing", id="a signature that is none"),
        pytest.param(
            envelope(payload=base64.b64encode(json.dumps(statement(origin(origin="human"))).encode()).decode()),
            "signed by no key",
            id="tampered",
        ),
        pytest.param(signed(by="stranger"), "signed by no key", id="wrong signer"),
        pytest.param(signed("text"), "no JSON object", id="payload is no object"),
        pytest.param(signed(statement(_type="x")), "_type", id="no statement"),
        pytest.param(
            signed(statement(kind="https://slsa.dev/provenance/v1")), "may not vouch", id="a type it may not sign"
        ),
        pytest.param(signed(statement(digest=OTHER)), "not about", id="replayed for another image"),
        pytest.param(signed(statement(subject=[])), "no sha256", id="about nothing"),
        pytest.param(signed(statement(subject="x")), "no sha256", id="a subject that is none"),
        pytest.param(signed(statement(predicate="x")), "predicate is no object", id="a predicate that is none"),
        pytest.param(signed(statement(origin(origin="martian"))), "origin", id="an origin that does not exist"),
        pytest.param(signed(statement(origin(origin=None))), "origin", id="no origin"),
        pytest.param(signed(statement(origin(timeCreated=None))), "timeCreated", id="no time"),
        pytest.param(signed(statement(origin(timeCreated="soon"))), "RFC 3339", id="a time that is none"),
        pytest.param(
            signed(statement(origin(timeCreated="2026-11-21T13:00:00Z"))), "not come yet", id="from the future"
        ),
        pytest.param(signed(statement(origin(authors=[{"id": "x"}] * 41))), "authors", id="more authors than are kept"),
        pytest.param(signed(statement(origin(accountable={"id": "x" * 300}))), "accountable", id="a field too long"),
    ],
)
def test_what_cannot_be_believed_says_why(blob: bytes, says: str) -> None:
    found = verify(blob, DIGEST, [signer()], NOON)

    assert isinstance(found, Refused)
    assert says in found.why


def test_a_key_that_stands_twice_in_the_payload_is_refused() -> None:
    text = json.dumps(statement()).replace('"_type"', '"predicateType": "x", "_type"', 1)
    found = verify(sign(text.encode(), key("build")), DIGEST, [signer()], NOON)

    assert isinstance(found, Refused)
    assert "twice" in found.why


def test_a_statement_older_than_its_signer_allows_is_refused() -> None:
    assert isinstance(verify(signed(), DIGEST, [signer(max_age=timedelta(hours=2))], NOON), Verified)
    found = verify(signed(), DIGEST, [signer(max_age=timedelta(minutes=30))], NOON)

    assert isinstance(found, Refused)
    assert "maxAge" in found.why


def test_a_signer_of_one_repository_does_not_vouch_for_another() -> None:
    assert isinstance(
        verify(signed(), DIGEST, [signer(source_repository="https://git.example/shop.git")], NOON), Verified
    )
    found = verify(signed(), DIGEST, [signer(source_repository="https://git.example/other")], NOON)

    assert isinstance(found, Refused)
    assert "git.example/other" in found.why


def test_one_unreadable_key_of_a_policy_does_not_silence_the_others() -> None:
    broken = signer("broken").model_copy(update={"public_key": "nonsense"})

    assert isinstance(verify(signed(), DIGEST, [broken, signer()], NOON), Verified)


@pytest.mark.parametrize(
    ("kind", "predicate", "result"),
    [
        (SLSA_PROVENANCE[0], {"buildDefinition": {}, "runDetails": {"builder": {"id": "x"}}}, "passed"),
        (VERIFICATION_SUMMARY, {"verificationResult": "PASSED"}, "passed"),
        (VERIFICATION_SUMMARY, {"verificationResult": "FAILED"}, "failed"),
        (VERIFICATION_SUMMARY, {}, "failed"),
        (TEST_RESULT, {"result": "PASSED"}, "passed"),
        (TEST_RESULT, {"result": "FAILED"}, "failed"),
        (SARIF[0], {"runs": [{"results": [{"level": "warning"}, {}]}]}, "passed"),
        (SARIF[0], {"runs": [{"results": [{"level": "error"}]}]}, "failed"),
        (SARIF[0], {}, "failed"),
        (VULNERABILITIES[0], {"scanner": {"result": []}}, "passed"),
        (
            VULNERABILITIES[0],
            {"scanner": {"result": [{"severity": [{"method": "CVSS_V3", "score": "9.8"}]}]}},
            "failed",
        ),
        (VULNERABILITIES[0], {"scanner": {"result": [{"severity": [{"method": "x", "score": "Critical"}]}]}}, "failed"),
        (VULNERABILITIES[0], {"scanner": {"result": [{"severity": [{"method": "x", "score": "5.0"}]}]}}, "passed"),
        (VULNERABILITIES[0], {}, "failed"),
        (VULNERABILITIES[2], {"scanner": {"result": {"Results": []}}}, "failed"),
    ],
)
def test_the_result_of_other_statements(kind: str, predicate: dict[str, Any], result: str) -> None:
    found = verify(signed(statement(predicate, kind)), DIGEST, [signer(predicate_types=EVERYTHING)], NOON)

    assert isinstance(found, Verified)
    assert found.result == result


NOW = NOON.isoformat()
OTHERS = {
    SLSA_PROVENANCE[0]: {"runDetails": {"metadata": {"finishedOn": NOW}}},
    VERIFICATION_SUMMARY: {"verificationResult": "PASSED", "timeVerified": NOW},
    TEST_RESULT: {"result": "PASSED", "timeCreated": NOW},
    SARIF[0]: {"runs": [{"results": []}], "timeCreated": NOW},
    VULNERABILITIES[0]: {"scanner": {"result": []}, "metadata": {"scanFinishedOn": NOW}},
}


@pytest.mark.parametrize("kind", OTHERS)
def test_any_other_statement_is_absent_from_a_stranger_about_another_image_or_too_old(kind: str) -> None:
    trusted = signer(predicate_types=(kind,), max_age=timedelta(hours=1))

    def answer(digest: str = DIGEST, by: str = "build", later: timedelta = timedelta(0)) -> Verified | Refused:
        blob = signed(statement(OTHERS[kind], kind, digest), by)
        return verify(blob, DIGEST, [trusted], NOON + later)

    def why(found: Verified | Refused) -> str:
        return found.why if isinstance(found, Refused) else found.result

    assert why(answer()) == "passed"
    assert "signed by no key of a policy's signers" in why(answer(by="stranger"))
    assert f"not about {DIGEST}" in why(answer(OTHER))
    assert "longer ago than the signer's maxAge" in why(answer(later=timedelta(hours=2)))
    assert "may not vouch for" in why(verify(signed(statement(OTHERS[kind], kind)), DIGEST, [signer()], NOON))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["runs", "results", "scanner", "result", "severity", "score", "level", "source", "runDetails", "metadata", "buildDefinition", "resolvedDependencies"]), inner, max_size=4), max_leaves=12), st.sampled_from(EVERYTHING))  # fmt: skip # noqa: E501
def test_no_signed_predicate_is_too_odd_to_be_answered(predicate: Any, kind: str) -> None:
    trusted = [signer(predicate_types=EVERYTHING, source_repository="https://git.example/shop")]

    assert isinstance(verify(signed(statement(predicate or {}, kind)), DIGEST, trusted, NOON), Verified | Refused)


@given(st.binary(max_size=300))
def test_no_bytes_are_believed(blob: bytes) -> None:
    assert isinstance(verify(blob, DIGEST, [signer()], NOON), Refused)


def test_keys_of_other_kinds_are_named_with_what_to_make_instead() -> None:
    wrong = ec.generate_private_key(ec.SECP384R1())
    text = wrong.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    with pytest.raises(ValueError, match="Ed25519"):
        load_public(text.decode())
    with pytest.raises(ValueError, match="PEM"):
        load_public("nonsense")
    with pytest.raises(ValueError, match="PEM"):
        load_private(b"nonsense")
    assert load_public(pem())
    assert load_private(private_pem())
