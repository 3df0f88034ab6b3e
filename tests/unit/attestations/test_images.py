"""Names of images and answers of registries."""

import json

import pytest

from controller.attestations.images import (
    BUNDLE,
    ENVELOPE,
    MOST_REFERRERS,
    Image,
    fallback_tag,
    parse_challenge,
    parse_image,
    parse_layers,
    parse_referrers,
    with_referrer,
)
from tests.unit.attestations.signing import DIGEST, OTHER


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("nginx", Image("docker.io", "library/nginx", "latest")),
        ("bitnami/nginx:1", Image("docker.io", "bitnami/nginx", "1")),
        ("ghcr.io/acme/shop:1.8", Image("ghcr.io", "acme/shop", "1.8")),
        ("localhost/shop", Image("localhost", "shop", "latest")),
        ("localhost:5000/shop:v2", Image("localhost:5000", "shop", "v2")),
        (f"ghcr.io/acme/shop@{DIGEST}", Image("ghcr.io", "acme/shop", "", DIGEST)),
        (f"ghcr.io/acme/shop:1.8@{DIGEST}", Image("ghcr.io", "acme/shop", "1.8", DIGEST)),
        ("[::1]:5000/shop", Image("[::1]:5000", "shop", "latest")),
    ],
)
def test_a_reference_is_read_as_container_runtimes_read_it(text: str, image: Image) -> None:
    assert parse_image(text) == image


@pytest.mark.parametrize(
    "text",
    [
        "",
        "UPPER",
        "a/../b",
        "ghcr.io/a//b",
        "x@sha256:1",
        "x@md5:" + "a" * 64,
        "user:secret@evil.example/x",
        "a:b/c:d e",
        "evil.example/x?y",
        "evil.example/x#y",
        "evil.example\\@good/x",
        "127.0.0.1:80:90/x",
        "a" * 300,
        "x:\n",
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"image|digest|tag"):
        parse_image(text)


def test_only_manifests_that_may_carry_statements_are_fetched() -> None:
    kinds = {ENVELOPE: "1", f"{BUNDLE}.v0.3+json": "2", "application/spdx+json": "3"}
    entries = [{"digest": f"sha256:{number * 64}", "artifactType": kind} for kind, number in kinds.items()]

    assert parse_referrers(json.dumps({"manifests": entries}).encode()) == ["sha256:" + "1" * 64, "sha256:" + "2" * 64]


@pytest.mark.parametrize("body", [b"", b"[]", b"{"])
def test_an_answer_that_is_no_object_is_an_error(body: bytes) -> None:
    with pytest.raises(ValueError, match="JSON"):
        parse_referrers(body)


@pytest.mark.parametrize("body", [b"{}", b'{"manifests": 1}', b'{"manifests": [1, {"digest": "x"}, {}]}'])
def test_an_answer_that_lists_nothing_usable_yields_nothing(body: bytes) -> None:
    assert parse_referrers(body) == []


def test_an_image_with_very_many_statements_is_refused_rather_than_cut() -> None:
    entries = [{"digest": f"sha256:{number:064x}", "artifactType": ENVELOPE} for number in range(MOST_REFERRERS + 1)]

    with pytest.raises(ValueError, match="at most"):
        parse_referrers(json.dumps({"manifests": entries}).encode())
    with pytest.raises(ValueError, match="at most"):
        parse_layers(json.dumps({"layers": [one | {"mediaType": ENVELOPE, "size": 1} for one in entries]}).encode())


def test_the_list_under_the_fallback_tag_keeps_what_others_attached() -> None:
    first = with_referrer(None, b"one", ENVELOPE)
    both = with_referrer(first, b"two", ENVELOPE)

    assert len(json.loads(both)["manifests"]) == 2
    assert with_referrer(both, b"two", ENVELOPE) == both
    assert fallback_tag(OTHER) == OTHER.replace(":", "-")


def test_a_challenge_without_its_parts_is_read_as_empty() -> None:
    assert parse_challenge("").realm == ""
    assert parse_challenge("Basic realm=x").scheme == "basic"
