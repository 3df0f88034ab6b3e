"""Where the API server is and who we are: the pod's service account, or kubeconfig with exec plugins.

A kubeconfig is read by the client library, which refreshes a login before a request that needs it; an exec plugin
that hands out client certificates is asked once, at start. The one thing to know: a pod's account is two files, and
for those the library is not even imported, because it takes 8 MiB of each replica and a part of its start.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.errors import NeedsUser

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""where a pod finds its token and whom to trust"""
TOKEN_KNOWN_FOR = 60.0
"""seconds after which the token's file is read again: it is renewed in place"""


@dataclass(frozen=True)
class Credentials:
    """Safe to share between threads: each `Api` makes its own connections from it."""

    host: str
    ssl: ssl.SSLContext | bool
    proxy: str | None
    server_hostname: str | None
    headers: Callable[[], Awaitable[dict[str, str]]]
    """the login for one request; refreshed when it is about to expire"""


async def load_credentials(kubeconfig: str | None = None, context: str | None = None) -> Credentials:
    """The kubeconfig named, else `$KUBECONFIG`, else the pod's service account, else `~/.kube/config`.

    Raises: NeedsUser: the kubeconfig is not there, or cannot be read.
    """
    path = kubeconfig or os.environ.get("KUBECONFIG")
    server = os.environ.get("KUBERNETES_SERVICE_HOST")
    if path is None and server:
        return pod_credentials(server, os.environ.get("KUBERNETES_SERVICE_PORT") or "443")
    from kubernetes.aio import config
    from kubernetes.aio.client import Configuration
    from yaml import YAMLError

    configuration = Configuration()
    file = path or str(Path.home() / ".kube" / "config")
    try:
        loader = await config.load_kube_config(
            config_file=file, context=context, client_configuration=configuration, persist_config=False
        )
    except (config.ConfigException, OSError, YAMLError, TypeError, AttributeError) as error:
        # The library stumbles over a file that is YAML and no kubeconfig.
        named = f"{error}: outside a pod name one with --kubeconfig or KUBECONFIG"
        raise NeedsUser("KubeconfigUnreadable", f"kubeconfig {file}: {named}") from error
    if hasattr(loader, "exec_plugin_expiry"):
        configuration.refresh_api_key_hook = _refresh_with(loader)
    return credentials_from(configuration)


def pod_credentials(
    server: str, port: str, *, account: Path = ACCOUNT, clock: Callable[[], float] = time.monotonic
) -> Credentials:
    """The service account that the kubelet put into this pod.

    Raises: OSError: the pod has none: `automountServiceAccountToken` is off.
    """
    token, read_at = (account / "token").read_text().strip(), clock()

    async def headers() -> dict[str, str]:
        nonlocal token, read_at
        if clock() - read_at >= TOKEN_KNOWN_FOR:
            token, read_at = (account / "token").read_text().strip(), clock()
        return {"authorization": f"Bearer {token}"}

    where = f"[{server}]" if ":" in server else server
    trusted = ssl.create_default_context(cafile=str(account / "ca.crt"))
    return Credentials(f"https://{where}:{port}", trusted, None, None, headers)


def credentials_from(configuration: Any) -> Credentials:
    """Those of a configuration of the client library."""
    from kubernetes.aio.client import ApiClient

    client = ApiClient(configuration)  # opens nothing until its first request; here it only builds the TLS context
    host = str(configuration.host).rstrip("/")

    async def headers() -> dict[str, str]:
        settings = await configuration.auth_settings()
        return {setting["key"]: setting["value"] for setting in settings.values() if setting["value"]}

    return Credentials(
        host=host,
        ssl=client.rest_client.ssl_context if host.startswith("https") else True,
        proxy=configuration.proxy,
        server_hostname=configuration.tls_server_name,
        headers=headers,
    )


def _refresh_with(loader: Any) -> Any:
    async def refresh(configuration: Any) -> None:
        await loader.load_from_exec_plugin()
        configuration.api_key["BearerToken"] = loader.token

    return refresh
