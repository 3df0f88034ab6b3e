"""Where the API server is and who we are: kubeconfig with exec plugins, or the pod's service account.

Login is the library's; tokens are refreshed by it before a request that needs it. An exec plugin that hands out
client certificates is asked once, at start.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration


@dataclass(frozen=True)
class Credentials:
    """Safe to share between threads: each `Api` makes its own connections from it."""

    host: str
    ssl: ssl.SSLContext | bool
    proxy: str | None
    server_hostname: str | None
    _configuration: Any

    async def headers(self) -> dict[str, str]:
        """The login for one request; refreshed when it is about to expire."""
        settings = await self._configuration.auth_settings()
        return {setting["key"]: setting["value"] for setting in settings.values() if setting["value"]}


async def load_credentials(kubeconfig: str | None = None, context: str | None = None) -> Credentials:
    """The kubeconfig named, else `$KUBECONFIG`, else the pod's service account, else `~/.kube/config`."""
    configuration = Configuration()
    path = kubeconfig or os.environ.get("KUBECONFIG")
    if path is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
        config.load_incluster_config(client_configuration=configuration)
    else:
        loader = await config.load_kube_config(
            config_file=path or str(Path.home() / ".kube" / "config"),
            context=context,
            client_configuration=configuration,
            persist_config=False,
        )
        if hasattr(loader, "exec_plugin_expiry"):
            configuration.refresh_api_key_hook = _refresh_with(loader)
    return credentials_from(configuration)


def credentials_from(configuration: Any) -> Credentials:
    client = ApiClient(configuration)  # opens nothing until its first request; here it only builds the TLS context
    host = str(configuration.host).rstrip("/")
    return Credentials(
        host=host,
        ssl=client.rest_client.ssl_context if host.startswith("https") else True,
        proxy=configuration.proxy,
        server_hostname=configuration.tls_server_name,
        _configuration=configuration,
    )


def _refresh_with(loader: Any) -> Any:
    async def refresh(configuration: Any) -> None:
        await loader.load_from_exec_plugin()
        configuration.api_key["BearerToken"] = loader.token

    return refresh
