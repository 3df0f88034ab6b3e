"""The edge to registries, against a server that answers as it is told; a real registry is asked in the cluster."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from aiohttp import web

from controller.attestations import provenance
from controller.attestations.dsse import ENVELOPE, LARGEST
from controller.attestations.images import BUNDLE, MANIFEST, Image, digest_of, fallback_tag, parse_image
from controller.attestations.provenance import KEPT_EMPTY, KEPT_FAILURE, KEPT_FOUND, ImageEvidence
from controller.attestations.registry import Allowed, Registry, RegistryUnavailable
from controller.model.evidence import Evidence, Origin, Trust
from controller.ports import Ref
from tests.unit.attestations.signing import DIGEST, NOON, OTHER, origin, signed, signer, statement

REPOSITORY = "shop"
REF = Ref("shop", "cart", "1")


@dataclass
class Server:
    """Answers by path; counts what it is asked."""

    answers: dict[str, tuple[int, bytes, dict[str, str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    token: str = ""
    host: str = ""
    logins: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        if request.path == "/token":
            self.logins.append(request.headers.get("Authorization", ""))
            return web.json_response({"token": self.token})
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            challenge = f'Bearer realm="http://{self.host}/token",service="test"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        status, body, headers = self.answers.get(request.path, (404, b"", {}))
        return web.Response(status=status, body=body, headers=headers)

    def says(self, path: str, body: object, status: int = 200, **headers: str) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.answers[f"/v2/{REPOSITORY}/{path}"] = (status, raw, headers)

    def attach(self, blob: bytes, about: str = DIGEST, kind: str = ENVELOPE, *, by_tag: bool = False) -> None:
        manifest = json.dumps(
            {"layers": [{"mediaType": kind, "digest": digest_of(blob), "size": len(blob)}], "mediaType": MANIFEST}
        ).encode()
        index = {"manifests": [{"digest": digest_of(manifest), "artifactType": kind}]}
        self.says(f"manifests/{digest_of(manifest)}", manifest)
        self.says(f"blobs/{digest_of(blob)}", blob)
        self.says(f"manifests/{fallback_tag(about)}" if by_tag else f"referrers/{about}", index)

    @property
    def image(self) -> Image:
        return parse_image(f"{self.host}/{REPOSITORY}@{DIGEST}")


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    app = web.Application()
    app.router.add_get("/{path:.*}", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.host = f"127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@pytest.fixture
async def registry(server: Server) -> AsyncIterator[Registry]:
    made = Registry(Allowed(insecure=frozenset({server.host})))
    yield made
    await made.close()


@pytest.mark.parametrize("by_tag", [False, True], ids=["referrers API", "fallback tag"])
async def test_what_is_attached_to_a_digest_is_found(server: Server, registry: Registry, by_tag: bool) -> None:
    server.attach(b"statement", by_tag=by_tag)

    assert await registry.statements(server.image, DIGEST) == (b"statement",)


async def test_older_cosign_keeps_them_as_layers_under_a_tag(server: Server, registry: Registry) -> None:
    layer = {"mediaType": ENVELOPE, "digest": digest_of(b"old"), "size": 3}
    server.says(f"manifests/{fallback_tag(DIGEST)}.att", {"layers": [layer]})
    server.says(f"blobs/{digest_of(b'old')}", b"old")

    assert await registry.statements(server.image, DIGEST) == (b"old",)


async def test_an_image_without_any_is_no_error(server: Server, registry: Registry) -> None:
    assert await registry.statements(server.image, DIGEST) == ()


async def test_a_tag_is_resolved_to_the_digest_of_what_was_answered(server: Server, registry: Registry) -> None:
    server.says("manifests/v1", b"{}")

    assert await registry.resolve(parse_image(f"{server.host}/shop:v1")) == digest_of(b"{}")
    with pytest.raises(LookupError, match="v2"):
        await registry.resolve(parse_image(f"{server.host}/shop:v2"))


@pytest.mark.parametrize("status", [403, 429, 500, 503])
async def test_a_registry_that_does_not_answer_the_question_is_unavailable(
    server: Server, registry: Registry, status: int
) -> None:
    server.says(f"referrers/{DIGEST}", b"", status)

    with pytest.raises(RegistryUnavailable, match=str(status)):
        await registry.statements(server.image, DIGEST)


async def test_bytes_that_are_not_those_asked_for_are_refused(server: Server, registry: Registry) -> None:
    server.attach(b"statement")
    server.says(f"blobs/{digest_of(b'statement')}", b"something else")

    with pytest.raises(RegistryUnavailable, match="another digest"):
        await registry.statements(server.image, DIGEST)


async def test_of_a_blob_without_end_only_as_much_is_read_as_proves_it(server: Server, registry: Registry) -> None:
    server.attach(b"x" * (3 * LARGEST))

    (blob,) = await registry.statements(server.image, DIGEST)

    assert LARGEST < len(blob) < 2 * LARGEST


async def test_a_token_is_fetched_where_the_registry_asks_for_one(server: Server) -> None:
    async def login(host: str) -> tuple[str, str] | None:
        return ("ann", "secret") if host == server.host else None

    server.token = "t1"
    server.attach(b"statement")
    registry = Registry(Allowed(insecure=frozenset({server.host})), login)

    assert await registry.statements(server.image, DIGEST) == (b"statement",)
    assert server.logins == [f"Basic {base64.b64encode(b'ann:secret').decode()}"]
    await registry.close()


@pytest.mark.parametrize(
    ("allowed", "image", "says"),
    [
        (Allowed(), "127.0.0.1:1/shop", "this machine"),
        (Allowed(), "169.254.169.254/latest", "this machine"),
        (Allowed(), "[::ffff:7f00:1]:1/shop", "this machine"),
        (Allowed(), "localhost:1/shop", "did not answer"),
        (Allowed(hosts=frozenset({"ghcr.io"})), "evil.example/shop", "not among"),
    ],
)
async def test_the_name_of_an_image_cannot_make_the_controller_ask_its_own_machine(
    allowed: Allowed, image: str, says: str
) -> None:
    registry = Registry(allowed)

    with pytest.raises(RegistryUnavailable, match=says):
        await registry.statements(parse_image(image), DIGEST)
    await registry.close()


async def test_a_redirect_to_this_machine_is_not_followed_and_takes_no_login_along(
    server: Server, registry: Registry
) -> None:
    server.attach(b"statement")
    server.says(f"blobs/{digest_of(b'statement')}", b"", 307, Location="http://169.254.169.254/secret")
    strict = Registry(Allowed(insecure=frozenset({server.host})))

    with pytest.raises(RegistryUnavailable):
        await strict.statements(server.image, DIGEST)
    await strict.close()


class Scene:
    """Evidence about one image, with a clock that tests move."""

    def __init__(self, server: Server, registry: Registry) -> None:
        self.now: datetime = NOON
        self.stored: tuple[bytes, ...] = ()
        self.server = server
        self.images = (f"{server.host}/{REPOSITORY}@{DIGEST}",)
        self.asked = ImageEvidence(registry, self.statements, lambda: self.now)

    async def statements(self, digest: str) -> tuple[bytes, ...]:
        return self.stored

    async def read(self, *images: str) -> Evidence:
        while True:
            found = await self.asked.read_evidence(REF, images or self.images, (signer(),))
            if "being looked up" not in found.unavailable:
                return found

    def later(self, span: timedelta) -> None:
        self.now += span


@pytest.fixture
def scene(server: Server, registry: Registry) -> Scene:
    return Scene(server, registry)


async def test_a_signed_statement_in_the_registry_is_proof(server: Server, scene: Scene) -> None:
    server.attach(signed())

    found = await scene.read()

    assert (found.origin, found.trust, found.unavailable) == (Origin.AI, Trust.T3, "")


async def test_one_in_the_cluster_is_as_good(scene: Scene) -> None:
    scene.stored = (signed(),)

    assert (await scene.read()).trust is Trust.T3


async def test_without_signers_nobody_is_asked(server: Server, scene: Scene) -> None:
    assert await scene.asked.read_evidence(REF, scene.images, ()) == Evidence()
    assert server.asked == []


async def test_of_an_unchanged_image_nothing_is_asked_until_something_more_may_be_attached(
    server: Server, scene: Scene
) -> None:
    server.attach(signed())
    await scene.read()
    asked = len(server.asked)
    for _ in range(29):
        scene.later(KEPT_FOUND / 30)
        assert (await scene.read()).trust is Trust.T3

    assert len(server.asked) == asked


async def test_a_statement_that_is_attached_later_is_found_soon(server: Server, scene: Scene) -> None:
    assert (await scene.read()).trust is Trust.T0
    server.attach(signed())
    scene.later(KEPT_EMPTY)

    assert (await scene.read()).trust is Trust.T3


async def test_what_is_attached_minutes_after_a_first_statement_is_found_soon_too(server: Server, scene: Scene) -> None:
    server.attach(signed())
    first = await scene.read()
    scene.stored = (signed(statement(origin(tools=[{"name": "cursor"}]))),)
    scene.later(timedelta(seconds=40))

    later = await scene.read()

    assert [one.name for one in first.tools] == ["claude-code"]
    assert {one.name for one in later.tools} == {"claude-code", "cursor"}


async def test_a_registry_that_is_down_is_said_and_holds_and_is_asked_again(server: Server, scene: Scene) -> None:
    server.says(f"referrers/{DIGEST}", b"", 503)
    first = await scene.read()
    server.attach(signed())
    scene.later(KEPT_FAILURE)
    async with asyncio.timeout(60):
        while (second := await scene.read()).unavailable:
            assert second == first, "what it said the last time stands until it has answered"

    assert "503" in first.unavailable
    assert (first.origin, first.trust) == (Origin.UNKNOWN, Trust.T0)
    assert (second.trust, second.unavailable) == (Trust.T3, "")


async def test_what_kept_a_registry_from_answering_is_said_also_while_it_is_asked_again(
    server: Server, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.says(f"referrers/{DIGEST}", b"", 503)
    first = await scene.read()
    scene.later(KEPT_FAILURE)
    monkeypatch.setattr(provenance, "PATIENCE", 0.0)

    again = await scene.asked.read_evidence(REF, scene.images, (signer(),))

    assert again.unavailable == first.unavailable


async def test_what_was_proven_of_a_digest_stays_proven_while_the_registry_is_down(
    server: Server, scene: Scene
) -> None:
    server.attach(signed())
    await scene.read()
    server.says(f"referrers/{DIGEST}", b"", 503)
    for _ in range(6):
        scene.later(KEPT_FOUND)
        assert (await scene.read()).trust is Trust.T3


async def test_what_was_proven_of_a_tag_does_not_outlive_its_answer(server: Server, scene: Scene) -> None:
    manifest = b"{}"
    server.says("manifests/v1", manifest)
    image = f"{server.host}/{REPOSITORY}:v1"
    assert (await scene.read(image)).unavailable == ""
    server.says("manifests/v1", b"", 503)
    scene.later(KEPT_FOUND)

    assert "503" in (await scene.read(image)).unavailable


async def test_a_name_that_is_no_image_is_a_problem_and_no_error(scene: Scene) -> None:
    found = await scene.read("not/../an image")

    assert (found.origin, found.unavailable) == (Origin.UNKNOWN, "")
    assert "not the name of an image" in found.problems[0]


async def test_what_an_image_stands_for_on_each_platform_is_known_with_it(server: Server, scene: Scene) -> None:
    manifests = [{"digest": OTHER, "platform": {"os": "linux", "architecture": "arm64"}}]
    server.says(f"manifests/{DIGEST}", {"manifests": manifests})
    server.attach(signed())

    (image,) = (await scene.read()).images

    assert (image.digest, image.platforms) == (DIGEST, (OTHER,))


async def test_a_bundle_without_a_known_identity_is_not_believed(server: Server, scene: Scene) -> None:
    server.attach(b'{"mediaType": "x", "verificationMaterial": {}}', kind=f"{BUNDLE}.v0.3+json")

    found = await scene.read()

    assert found.trust is Trust.T0
    assert "is not believed" in found.problems[0]
