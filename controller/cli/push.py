"""Attach a signed statement to an image in its registry, as an OCI referrer. Standard library only.

Where the registry has no referrers API, the list under the fallback tag is written as well, which every registry can.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

from controller.attestations.dsse import ENVELOPE
from controller.attestations.images import (
    ACCEPTED,
    INDEX,
    MANIFEST,
    Image,
    digest_of,
    fallback_tag,
    parse_challenge,
    statement_manifest,
    with_referrer,
)
from controller.cli.kubectl import Failure

SECONDS = 30.0
LARGEST = 8 << 20
_EMPTY_BODY = b"{}"


@dataclass
class Push:
    """One repository, and the login for it."""

    image: Image
    plain_http: bool = False
    _authorization: str = ""

    def attach(self, envelope: bytes, predicate_type: str, created: str) -> str:
        """Store the envelope and say that it is about the image; the digest of its manifest. Raises: Failure."""
        subject = self._subject()
        self._upload(_EMPTY_BODY)
        self._upload(envelope)
        body = json.dumps(
            statement_manifest(envelope, subject, predicate_type, created), separators=(",", ":")
        ).encode()
        digest = digest_of(body)
        answered = self._send("PUT", f"manifests/{digest}", body, {"Content-Type": MANIFEST}, {201, 202})
        if answered.headers.get("OCI-Subject") != subject["digest"]:
            self._list(subject["digest"], body)
        return digest

    def _subject(self) -> dict[str, object]:
        answered = self._send(
            "GET", f"manifests/{self.image.digest}", None, {"Accept": ", ".join(ACCEPTED)}, {200, 404}
        )
        if answered.status == 404:
            raise Failure(f"{self.image.name}@{self.image.digest} is not in its registry: push the image first")
        if digest_of(answered.body) != self.image.digest:
            raise Failure(f"{self.image.host} answered with another image than {self.image.digest}")
        kind = answered.headers.get("Content-Type") or MANIFEST
        return {"mediaType": kind, "digest": self.image.digest, "size": len(answered.body)}

    def _list(self, subject: object, manifest: bytes) -> None:
        """The fallback: an index under a tag that is made of the digest."""
        tag = fallback_tag(str(subject))
        answered = self._send("GET", f"manifests/{tag}", None, {"Accept": INDEX}, {200, 404})
        try:
            index = with_referrer(answered.body if answered.status == 200 else None, manifest, ENVELOPE)
        except ValueError as error:
            raise Failure(f"the tag {tag} holds something that is no list of referrers: {error}") from None
        self._send("PUT", f"manifests/{tag}", index, {"Content-Type": INDEX}, {201, 202})

    def _upload(self, body: bytes) -> None:
        digest = digest_of(body)
        if self._send("HEAD", f"blobs/{digest}", None, {}, {200, 404}).status == 200:
            return
        begun = self._send("POST", "blobs/uploads/", b"", {}, {202})
        where = urllib.parse.urljoin(self._url("blobs/uploads/"), begun.headers.get("Location", ""))
        joint = "&" if urllib.parse.urlparse(where).query else "?"
        where = f"{where}{joint}digest={urllib.parse.quote(digest, safe='')}"
        self._send("PUT", where, body, {"Content-Type": "application/octet-stream"}, {201, 202})

    def _url(self, path: str) -> str:
        scheme = "http" if self.plain_http else "https"
        return path if "://" in path else f"{scheme}://{self.image.host}/v2/{self.image.repository}/{path}"

    def _send(self, method: str, path: str, body: bytes | None, headers: dict[str, str], wanted: set[int]) -> _Answer:
        answered = self._once(method, path, body, headers)
        if answered.status == 401:
            self._authorization = self._login(answered.headers.get("WWW-Authenticate", ""))
            answered = self._once(method, path, body, headers)
        if answered.status not in wanted:
            raise Failure(
                f"registry {self.image.host}: {method} {path} answered {answered.status}{_said(answered.body)}"
            )
        return answered

    def _once(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> _Answer:
        url = self._url(path)
        same = urllib.parse.urlparse(url).netloc == self.image.host
        own = {"Authorization": self._authorization} if self._authorization and same else {}
        return _ask(urllib.request.Request(url, data=body, method=method, headers=headers | own), self.image.host)

    def _login(self, header: str) -> str:
        challenge = parse_challenge(header)
        known = find_login(self.image.registry)
        basic = f"Basic {base64.b64encode(':'.join(known).encode()).decode()}" if known else ""
        if challenge.scheme == "basic" and basic:
            return basic
        if challenge.scheme != "bearer" or not challenge.realm:
            raise Failure(f"registry {self.image.registry} wants a login: `docker login {self.image.registry}`")
        scope = challenge.scope or f"repository:{self.image.repository}:pull,push"
        query = urllib.parse.urlencode({"service": challenge.service, "scope": scope})
        joint = "&" if "?" in challenge.realm else "?"
        request = urllib.request.Request(
            f"{challenge.realm}{joint}{query}", headers={"Authorization": basic} if basic else {}
        )
        answered = _ask(request, self.image.host)
        try:
            said = json.loads(answered.body)
            return f"Bearer {said.get('token') or said['access_token']}"
        except (ValueError, KeyError, AttributeError, TypeError):
            raise Failure(
                f"registry {self.image.registry} refused the login ({answered.status}): "
                f"`docker login {self.image.registry}`"
            ) from None


@dataclass(frozen=True)
class _Answer:
    status: int
    body: bytes
    headers: Message


def find_login(registry: str) -> tuple[str, str] | None:
    """User and password as `docker login` keeps them, also behind a credential helper."""
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    names = [registry, f"https://{registry}", "https://index.docker.io/v1/"] if registry == "docker.io" else [registry]
    for name in (*names, f"https://{registry}"):
        helper = config.get("credHelpers", {}).get(name) or config.get("credsStore")
        if helper and (found := _from_helper(str(helper), name)):
            return found
        entry = config.get("auths", {}).get(name)
        if isinstance(entry, dict) and entry.get("auth"):
            user, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
            return user, password
    return None


def _from_helper(helper: str, name: str) -> tuple[str, str] | None:
    try:
        done = subprocess.run(
            [f"docker-credential-{helper}", "get"],
            input=name,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        said = json.loads(done.stdout) if done.returncode == 0 else {}
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return (said["Username"], said["Secret"]) if said.get("Secret") else None


def _ask(request: urllib.request.Request, host: str) -> _Answer:
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return _Answer(answer.status, answer.read(LARGEST), answer.headers)
    except urllib.error.HTTPError as error:
        return _Answer(error.code, error.read(LARGEST), error.headers)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise Failure(f"registry {host} did not answer: {reason} (--plain-http for one without TLS)") from None


def _said(body: bytes) -> str:
    """What a registry says about an error, in a line."""
    try:
        errors = json.loads(body)["errors"]
        return ": " + "; ".join(f"{one.get('code')} {one.get('message', '')}".strip() for one in errors)[:300]
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
