"""An OCI registry: digests, referrers and blobs. A thin edge over HTTP; what answers mean is in `images`.

The one thing to know: names of images come from whoever may write a Deployment, so this must not become a way to ask
anything else. Only HTTPS to hosts that are no address of this machine or link, unless an administrator listed the host;
few redirects, each checked anew; every body bounded; nothing of an answer is shown but its status.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from controller.addresses import is_no_server, plain_address
from controller.attestations.dsse import LARGEST
from controller.attestations.images import (
    ACCEPTED,
    MANIFEST,
    Image,
    digest_of,
    fallback_tag,
    parse_challenge,
    parse_layers,
    parse_platforms,
    parse_referrers,
)
from controller.errors import Retryable

LARGEST_MANIFEST = 4 << 20
SECONDS = 10.0
"""for one request"""
MOST_REDIRECTS = 3

Credentials = Callable[[str], Awaitable[tuple[str, str] | None]]
"""host in, user and password out"""


class RegistryUnavailable(Retryable):
    """A registry could not be asked. That an image has no statements is not an error."""

    reason = "RegistryUnavailable"

    def __init__(self, host: str, cause: str) -> None:
        super().__init__(f"registry {host} did not answer: {cause}")
        self.host = host


@dataclass(frozen=True)
class Allowed:
    """Which registries may be asked."""

    hosts: frozenset[str] = frozenset()
    """empty: any host whose address is neither this machine's nor the link's"""
    insecure: frozenset[str] = frozenset()
    """plain HTTP, and any address"""

    def names(self, host: str) -> bool:
        """Whether this registry may be asked at all."""
        return not self.hosts or host in self.hosts or host in self.insecure


@dataclass
class Registry:
    """All registries that images name, over one session."""

    allowed: Allowed = Allowed()
    credentials: Credentials | None = None
    ca_file: str = ""
    """certificates of private registries, beside the system's"""
    _session: aiohttp.ClientSession | None = None
    _tokens: dict[tuple[str, str], str] = field(default_factory=dict)

    async def resolve(self, image: Image) -> str:
        """The digest that a tag stands for now. Raises: RegistryUnavailable; LookupError: there is no such image."""
        headers = {"Accept": ", ".join(ACCEPTED)}
        path = f"/v2/{image.repository}/manifests/{image.tag}"
        status, body, answered = await self._get(image, path, headers, LARGEST_MANIFEST)
        if status == 404:
            raise LookupError(f"{image.name}:{image.tag} is not in its registry")
        self._expect(image, status, {200})
        digest = digest_of(body)
        if answered.get("Docker-Content-Digest", digest) != digest:
            raise RegistryUnavailable(image.registry, "its manifest has another digest than it says")
        return digest

    async def platforms(self, image: Image, digest: str) -> tuple[str, ...]:
        """The digests that nodes may report for this one. Raises: RegistryUnavailable; ValueError."""
        headers = {"Accept": ", ".join(ACCEPTED)}
        status, body, _ = await self._get(
            image, f"/v2/{image.repository}/manifests/{digest}", headers, LARGEST_MANIFEST
        )
        self._expect(image, status, {200, 404})
        return parse_platforms(body) if status == 200 else ()

    async def statements(self, image: Image, digest: str) -> tuple[bytes, ...]:
        """Every blob attached to a digest that may be a statement, by the referrers API and by the fallback tags.

        Raises: RegistryUnavailable; ValueError when an answer cannot be used.
        """
        found: dict[str, None] = {}
        for manifest in await self._referrers(image, digest):
            status, body, _ = await self._get(
                image, f"/v2/{image.repository}/manifests/{manifest}", {"Accept": MANIFEST}, LARGEST_MANIFEST
            )
            if status == 404:
                # Listed and gone: garbage collected meanwhile.
                continue
            self._expect(image, status, {200})
            if digest_of(body) != manifest:
                raise RegistryUnavailable(image.registry, "a manifest has another digest than was asked for")
            found |= {one.digest: None for one in parse_layers(body)}
        # Older cosign keeps all of them as layers under one tag.
        status, body, _ = await self._get(
            image,
            f"/v2/{image.repository}/manifests/{fallback_tag(digest)}.att",
            {"Accept": MANIFEST},
            LARGEST_MANIFEST,
        )
        self._expect(image, status, {200, 404})
        if status == 200:
            found |= {one.digest: None for one in parse_layers(body)}
        return tuple([await self._blob(image, one) for one in found])

    async def close(self) -> None:
        """End the session."""
        if self._session is not None:
            await self._session.close()

    async def _referrers(self, image: Image, digest: str) -> list[str]:
        path = f"/v2/{image.repository}/referrers/{digest}"
        status, body, _ = await self._get(image, path, {}, LARGEST_MANIFEST)
        listed = parse_referrers(body) if status == 200 else []
        self._expect(image, status, {200, 404, 400, 405, 501})
        # A registry that learned the API later still has what was attached before under the tag.
        path = f"/v2/{image.repository}/manifests/{fallback_tag(digest)}"
        status, body, _ = await self._get(image, path, {"Accept": ", ".join(ACCEPTED)}, LARGEST_MANIFEST)
        self._expect(image, status, {200, 404})
        if status == 200:
            listed += [one for one in parse_referrers(body) if one not in listed]
        return listed

    async def _blob(self, image: Image, digest: str) -> bytes:
        """One blob; of one that is too large as much as proves it."""
        status, body, _ = await self._get(image, f"/v2/{image.repository}/blobs/{digest}", {}, LARGEST + 1, cut=True)
        self._expect(image, status, {200})
        if len(body) <= LARGEST and digest_of(body) != digest:
            raise RegistryUnavailable(image.registry, "a blob has another digest than was asked for")
        return body

    async def _get(
        self, image: Image, path: str, headers: dict[str, str], most: int, *, cut: bool = False
    ) -> tuple[int, bytes, Any]:
        """Status, body and headers, with a login where the registry asks for one."""
        if not self.allowed.names(image.registry):
            raise RegistryUnavailable(image.registry, "it is not among the registries that the controller may ask")
        scheme = "http" if image.registry in self.allowed.insecure else "https"
        url = URL(f"{scheme}://{image.host}{path}", encoded=True)
        try:
            async with asyncio.timeout(SECONDS):
                token = self._tokens.get((image.registry, image.repository), "")
                status, body, said = await self._once(image, url, headers, token, most, cut)
                if status == 401:
                    token = await self._login(image, said.get("WWW-Authenticate", ""))
                    status, body, said = await self._once(image, url, headers, token, most, cut)
                return status, body, said
        except TimeoutError:
            raise RegistryUnavailable(image.registry, f"no answer in {SECONDS:.0f} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise RegistryUnavailable(image.registry, type(error).__name__) from error

    async def _once(
        self, image: Image, url: URL, headers: dict[str, str], token: str, most: int, cut: bool
    ) -> tuple[int, bytes, Any]:
        for _ in range(MOST_REDIRECTS + 1):
            self._check(image, url)
            # A login is for the registry itself, not for where it sends us.
            own = {"Authorization": token} if token and url.host == URL(f"//{image.host}").host else {}
            async with self._open().get(url, headers=headers | own, allow_redirects=False) as answer:
                if answer.status in {301, 302, 303, 307, 308}:
                    url = url.join(URL(answer.headers.get("Location", "")))
                    continue
                body = bytearray()
                async for chunk in answer.content.iter_chunked(1 << 16):
                    body += chunk
                    if len(body) > most:
                        if cut:
                            break
                        raise RegistryUnavailable(image.registry, f"an answer of more than {most} bytes")
                return answer.status, bytes(body), answer.headers
        raise RegistryUnavailable(image.registry, "too many redirects")

    async def _login(self, image: Image, header: str) -> str:
        """The Authorization header that the registry asked for."""
        challenge = parse_challenge(header)
        known = await self.credentials(image.registry) if self.credentials else None
        basic = f"Basic {base64.b64encode(':'.join(known).encode()).decode()}" if known else ""
        if challenge.scheme == "basic" and basic:
            self._tokens[image.registry, image.repository] = basic
            return basic
        if challenge.scheme != "bearer" or not challenge.realm:
            raise RegistryUnavailable(image.registry, "401: it asks for a login, and none is configured")
        wanted = {"scope": challenge.scope or f"repository:{image.repository}:pull"}
        url = URL(challenge.realm).update_query(wanted | ({"service": challenge.service} if challenge.service else {}))
        self._check(image, url)
        own = {"Authorization": basic} if basic else {}
        async with self._open().get(url, headers=own, allow_redirects=False) as answer:
            if answer.status != 200:
                raise RegistryUnavailable(image.registry, f"its login answered {answer.status}")
            body = await answer.content.read(LARGEST)
        try:
            said = json.loads(body)
            token = f"Bearer {said.get('token') or said['access_token']}"
        except (ValueError, KeyError, AttributeError, TypeError):
            raise RegistryUnavailable(image.registry, "its login gave no token") from None
        if len(self._tokens) > 1000:
            self._tokens.clear()
        self._tokens[image.registry, image.repository] = token
        return token

    def _check(self, image: Image, url: URL) -> None:
        """Refuse addresses that only this machine can reach, wherever they come from."""
        if image.registry in self.allowed.insecure:
            return
        if url.scheme != "https":
            raise RegistryUnavailable(image.registry, f"it answers by {url.scheme}: list it as an insecure registry")
        try:
            ours = _is_ours((url.host or "").strip("[]"))
        except ValueError:
            return
        if ours:
            raise RegistryUnavailable(image.registry, "its address is this machine's own or the link's")

    def _expect(self, image: Image, status: int, wanted: set[int]) -> None:
        if status not in wanted:
            self._tokens.pop((image.registry, image.repository), None)
            raise RegistryUnavailable(image.registry, f"it answered {status}")

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            context = ssl.create_default_context()
            if self.ca_file:
                context.load_verify_locations(self.ca_file)
            connector = aiohttp.TCPConnector(ssl=context, resolver=_Resolver(self.allowed), limit=20)
            timeout = aiohttp.ClientTimeout(total=SECONDS, connect=5.0)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        return self._session


class _Resolver(AbstractResolver):
    """Names to addresses, without those of this machine: what is checked is what is connected to."""

    def __init__(self, allowed: Allowed) -> None:
        self._insecure = {URL(f"//{host}").host for host in allowed.insecure}
        self._plain = aiohttp.DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._plain.resolve(host, port, family)
        if host in self._insecure:
            return found
        good = [one for one in found if not _is_ours(one["host"])]
        if not good:
            raise OSError(f"{host} has no address but this machine's own")
        return good

    async def close(self) -> None:
        await self._plain.close()


def _is_ours(host: str) -> bool:
    address = plain_address(host)
    return address.is_loopback or is_no_server(address)
