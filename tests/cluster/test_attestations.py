"""A build attests an image, a real registry keeps the statement, the controller's side finds and verifies it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controller.attestations.images import parse_image
from controller.attestations.provenance import KEPT_FAILURE, KEPT_FOUND, ImageEvidence
from controller.attestations.registry import Allowed, Registry
from controller.attestations.stored import LABEL, Stored
from controller.kube.transport import Api
from controller.model.evidence import Evidence, Origin, Trust
from controller.model.policy import Signer
from controller.ports import Ref
from tests.cluster.objects import apply, eventually, kubectl
from tests.cluster.registry import HOST, Build, RunningRegistry, build, registry
from tests.cluster.serin import SYSTEM

__all__ = ["build", "registry"]

REF = Ref("shop", "shop", "1")


def signer_of(build: Build) -> Signer:
    return Signer(name="ci", public_key=build.public_key)


class Seen:
    """The controller's side, with a clock that tests move."""

    def __init__(self, evidence: ImageEvidence) -> None:
        self.evidence = evidence
        self.ahead = timedelta()

    async def of(self, image: str, *signers: Signer) -> Evidence:
        while True:
            found = await self.evidence.read_evidence(REF, (image,), signers)
            if "being looked up" not in found.unavailable:
                return found

    def later(self, span: timedelta) -> None:
        self.ahead += span


@pytest.fixture
async def seen() -> AsyncIterator[Seen]:
    async with await Api.connect() as api:
        stored = Stored(api, SYSTEM)
        asked = Registry(Allowed(insecure=frozenset({HOST})))
        made = Seen(ImageEvidence(asked, stored.statements, lambda: datetime.now(UTC) + made.ahead))
        yield made
        await made.evidence.close()


async def test_what_a_build_attests_is_proof_for_that_digest_and_for_no_other(
    registry: RunningRegistry, build: Build, seen: Seen
) -> None:
    image, other = registry.push("shop", "v1"), registry.push("shop", "v2")
    build.commit("pay: retry\n\nCo-authored-by: Claude Opus 4.6 <noreply@anthropic.com>")
    said = build.attest(image, "--accountable", "mailto:owner@example.com", "--prompter", "bo", "--reversible", "yes")

    found = await seen.of(image, signer_of(build))

    assert said.returncode == 0, said.stderr
    assert (found.origin, found.trust, found.problems) == (Origin.AI, Trust.T3, ())
    assert [(tool.name, tool.model) for tool in found.tools] == [("claude-code", "Claude Opus 4.6")]
    assert {(one.id, one.role) for one in found.authors} == {("mailto:ann@example.com", "author"), ("bo", "prompter")}
    assert (found.accountable, found.reversible) == ("mailto:owner@example.com", True)
    assert (await seen.of(other, signer_of(build))).trust is Trust.T0


async def test_a_person_is_believed_from_a_signature_only_and_by_digest_only(
    registry: RunningRegistry, build: Build, seen: Seen, tmp_path: Path
) -> None:
    (tmp_path / "stranger").mkdir()
    image = registry.push("person", "v1")
    build.commit("typo")
    assert build.attest(image, "--origin", "human").returncode == 0

    by_digest = await seen.of(image, signer_of(build))
    by_tag = await seen.of(image.partition("@")[0], signer_of(build))
    by_stranger = await seen.of(image, signer_of(Build(tmp_path / "stranger")))

    assert (by_digest.origin, by_digest.trust) == (Origin.HUMAN, Trust.T3)
    assert (by_tag.origin, by_tag.trust) == (Origin.UNKNOWN, Trust.T2)
    assert "name the image by its digest" in by_tag.problems[0]
    assert (by_stranger.origin, by_stranger.trust) == (Origin.UNKNOWN, Trust.T0)
    assert "signed by no key" in by_stranger.problems[0]


async def test_a_statement_that_is_replayed_for_another_image_is_refused_by_name(
    registry: RunningRegistry, build: Build, seen: Seen
) -> None:
    good, evil = registry.push("replay", "good"), registry.push("replay", "evil")
    build.commit("typo")
    assert build.attest(good, "--origin", "human").returncode == 0
    registry.copy_statements("replay", good, evil)

    found = await seen.of(evil, signer_of(build))

    assert (found.origin, found.trust) == (Origin.UNKNOWN, Trust.T0)
    assert "not about" in found.problems[0]


async def test_a_second_statement_joins_the_first_and_the_worse_counts(
    registry: RunningRegistry, build: Build, seen: Seen
) -> None:
    image = registry.push("twice", "v1")
    build.commit("typo")
    assert build.attest(image, "--origin", "human").returncode == 0
    assert build.attest(image, "--origin", "ai", "--tool", "cursor=gpt-5").returncode == 0

    found = await seen.of(image, signer_of(build))

    assert (found.origin, found.trust) == (Origin.AI, Trust.T3)
    assert len(found.predicates) == 2


async def test_a_registry_that_is_down_holds_and_what_was_proven_before_stays(
    registry: RunningRegistry, build: Build, seen: Seen
) -> None:
    known, unknown = registry.push("down", "v1"), registry.push("down", "v2")
    build.commit("typo")
    for image in (known, unknown):
        assert build.attest(image, "--origin", "human").returncode == 0
    assert (await seen.of(known, signer_of(build))).trust is Trust.T3
    registry.stop()
    try:
        for _ in range(6):
            seen.later(KEPT_FOUND)
            assert (await seen.of(known, signer_of(build))).origin is Origin.HUMAN
            down = await seen.of(unknown, signer_of(build))
            assert (down.origin, down.trust) == (Origin.UNKNOWN, Trust.T0)
            assert "did not answer" in down.unavailable
    finally:
        registry.start()
    seen.later(KEPT_FAILURE)

    async with asyncio.timeout(60):
        while (found := await seen.of(unknown, signer_of(build))).unavailable:
            assert "did not answer" in found.unavailable, "what it said the last time stands until it has answered"
    assert found.trust is Trust.T3


async def test_a_statement_in_a_config_map_of_serin_is_as_good(
    registry: RunningRegistry, build: Build, seen: Seen
) -> None:
    image = registry.push("stored", "v1")
    build.commit("typo")
    envelope = build.folder / "envelope.json"
    assert build.attest(image, "--origin", "human", "--no-push", "-o", str(envelope)).returncode == 0
    apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}}])
    key = f"{parse_image(image).digest.removeprefix('sha256:')}.json"
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "attestations", "namespace": SYSTEM, "labels": {LABEL: "true"}},
        "data": {key: envelope.read_text()},
    }
    apply([body])
    eventually(lambda: kubectl("get", "configmap", "attestations", "-n", SYSTEM))

    assert (await seen.of(image, signer_of(build))).trust is Trust.T3


@pytest.mark.parametrize(
    ("image", "more", "says"),
    [
        ("localhost:5000/shop:v1", (), "a tag can be moved"),
        (f"localhost:5000/shop@sha256:{'0' * 64}", (), "push the image first"),
        (f"localhost:5000/shop@sha256:{'0' * 64}", ("--key", "/nowhere"), "--key /nowhere"),
        (f"localhost:5999/shop@sha256:{'0' * 64}", (), "did not answer"),
        (f"localhost:5000/shop@sha256:{'0' * 64}", ("--prompt-uri", "https://a:b@c.example/p"), "password or token"),
    ],
)
def test_what_cannot_be_attested_says_what_to_do(
    registry: RunningRegistry, build: Build, image: str, more: tuple[str, ...], says: str
) -> None:
    build.commit("typo")

    said = build.attest(image, *more)

    assert said.returncode == 1
    assert says in said.stderr


def test_a_mark_in_the_commits_cannot_be_talked_away(registry: RunningRegistry, build: Build) -> None:
    image = registry.push("talked", "v1")
    build.commit("x\n\nCo-authored-by: Claude <noreply@anthropic.com>")

    said = build.attest(image, "--origin", "human")

    assert said.returncode == 1
    assert "marks of ai" in said.stderr


def test_the_text_of_a_prompt_goes_nowhere(registry: RunningRegistry, build: Build) -> None:
    image = registry.push("prompt", "v1")
    build.commit("x\n\nCo-authored-by: Claude <noreply@anthropic.com>")
    prompt, envelope = build.folder / "prompt.txt", build.folder / "envelope.json"
    prompt.write_text("make it fast, the password is hunter2")
    said = build.attest(image, "--prompt-file", str(prompt), "-o", str(envelope))

    assert said.returncode == 0, said.stderr
    stored = json.loads(envelope.read_text())["payload"]
    statement = json.loads(base64.b64decode(stored))
    assert "hunter2" not in json.dumps(statement)
    assert len(statement["predicate"]["tools"][0]["prompt"]["digest"]["sha256"]) == 64
