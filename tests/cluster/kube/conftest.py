"""Against the real API server, so inside the local cluster.

`python -m tests.cluster run -- pytest tests/cluster/kube`
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator

import pytest

from controller.kube.credentials import Credentials, load_credentials
from controller.kube.resources import NAMESPACES
from controller.kube.transport import Api
from tests.cluster.kube.proxy import Proxy, proxy_before


@pytest.fixture
async def credentials() -> Credentials:
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("needs the local cluster: python -m tests.cluster run -- pytest tests/cluster/kube")
    return await load_credentials()


@pytest.fixture
async def api(credentials: Credentials) -> AsyncIterator[Api]:
    async with Api(credentials) as api:
        yield api


@pytest.fixture
async def namespace(api: Api) -> AsyncIterator[str]:
    name = f"kube-{secrets.token_hex(4)}"
    await api.create(NAMESPACES, None, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    await api.delete(NAMESPACES, None, name)


@pytest.fixture
async def proxy(credentials: Credentials) -> AsyncIterator[Proxy]:
    async with proxy_before(credentials) as proxy:
        yield proxy


@pytest.fixture
async def through(proxy: Proxy) -> AsyncIterator[Api]:
    """A client whose every request passes the proxy."""
    async with Api(proxy.credentials, timeout=3.0) as api:
        yield api
