"""What lies in Serin's own namespace: statements for registries that cannot carry them, and logins of registries.

A statement is believed for its signature wherever it lies; a login goes to the host it was stored for and no other.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from controller.attestations.dsse import LARGEST
from controller.attestations.images import MOST_REFERRERS
from controller.errors import Forbidden, NotFound
from controller.kube.resources import CONFIGMAPS, SECRETS
from controller.kube.transport import Api

LABEL = "serin.dev/attestations"
"""on ConfigMaps whose keys are `<sha256>.json` or `<sha256>-<anything>.json`, the digest without `sha256:`"""


class Stored:
    """ConfigMaps and one Secret of Serin's own namespace."""

    def __init__(self, api: Api, namespace: str, login_secret: str = "") -> None:
        self._api, self._namespace, self._login_secret = api, namespace, login_secret

    async def statements(self, digest: str) -> tuple[bytes, ...]:
        """Those stored for a digest. Raises: Retryable; ValueError when there are too many."""
        wanted = digest.removeprefix("sha256:")
        found = await self._api.list(CONFIGMAPS, self._namespace, label_selector=f"{LABEL}=true")
        values = [
            text.encode()[: LARGEST + 1]
            for one in found.items
            for key, text in (one.get("data") or {}).items()
            if key.removesuffix(".json").partition("-")[0] == wanted
        ]
        if len(values) > MOST_REFERRERS:
            raise ValueError(f"{len(values)} statements about one image in ConfigMaps, at most {MOST_REFERRERS}")
        return tuple(values)

    async def login(self, host: str) -> tuple[str, str] | None:
        """User and password for one registry, from a Secret of type kubernetes.io/dockerconfigjson."""
        if not self._login_secret:
            return None
        try:
            found = await self._api.get(SECRETS, self._namespace, self._login_secret)
        except (NotFound, Forbidden):
            return None
        return parse_login(found, host)


def parse_login(secret: dict[str, Any], host: str) -> tuple[str, str] | None:
    """The login for one host.

    >>> auth = base64.b64encode(b"ann:secret").decode()
    >>> config = base64.b64encode(json.dumps({"auths": {"r.example": {"auth": auth}}}).encode()).decode()
    >>> parse_login({"data": {".dockerconfigjson": config}}, "r.example")
    ('ann', 'secret')
    """
    try:
        config = json.loads(base64.b64decode((secret.get("data") or {})[".dockerconfigjson"]))
        names = (host, f"https://{host}", *(("https://index.docker.io/v1/",) if host == "docker.io" else ()))
        entry = next(config["auths"][name] for name in names if name in config["auths"])
        if entry.get("auth"):
            user, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
            return user, password
        return str(entry["username"]), str(entry["password"])
    except (KeyError, ValueError, TypeError, AttributeError, StopIteration):
        return None
