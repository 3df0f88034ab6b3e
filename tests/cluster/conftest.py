"""Fixtures of the cluster tests: one cluster a session, one namespace a test.

The one thing to know: the cluster is not started from here, because the tests have to be inside its
namespace: `python -m tests.cluster run -- python -m pytest tests/cluster`.
"""

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.cluster.objects import (
    apply,
    eventually,
    kubectl,
    namespace_object,
    shop_deployment,
    shop_route,
    shop_service,
)


@dataclass(frozen=True)
class RunningCluster:
    """Where the parts of the cluster around this test run answer."""

    state: Path
    gateway: str
    prometheus: str


@dataclass(frozen=True)
class Shop:
    """A shop that is served through the gateway."""

    namespace: str
    name: str
    host: str

    def ask(self, path: str = "/") -> tuple[int, str]:
        """One request through the gateway: its status and the revision that answered."""
        request = Request(os.environ["SERIN_GATEWAY"] + path, headers={"Host": self.host})
        try:
            with urlopen(request, timeout=5) as answer:
                return answer.status, answer.headers.get("X-Revision", "")
        except HTTPError as error:
            return error.code, error.headers.get("X-Revision", "")

    def serves(self, revision: str) -> bool:
        """The gateway answers with this revision."""
        return self.ask() == (200, revision)


class MakeShop(Protocol):
    def __call__(
        self, revision: str = ..., *, name: str = ..., replicas: int = ..., env: Mapping[str, str] | None = ...
    ) -> Shop: ...


@pytest.fixture(scope="session")
def cluster() -> RunningCluster:
    """The cluster around this test run."""
    if "SERIN_CLUSTER_DIR" not in os.environ:
        pytest.fail(
            "no cluster here; run: python -m tests.cluster run -- python -m pytest tests/cluster", pytrace=False
        )
    env = os.environ
    return RunningCluster(Path(env["SERIN_CLUSTER_DIR"]), env["SERIN_GATEWAY"], env["SERIN_PROMETHEUS"])


@pytest.fixture
def namespace(cluster: RunningCluster) -> Iterator[str]:
    """A fresh namespace, deleted afterwards without waiting for it."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    apply([namespace_object(name)])
    eventually(lambda: kubectl("get", "serviceaccount", "default", "-n", name))
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(name="kubectl")
def kubectl_in_namespace(namespace: str) -> Callable[..., str]:
    """kubectl in the test's own namespace."""
    return lambda *args, **options: kubectl("-n", namespace, *args, **options)


@pytest.fixture
def shop(namespace: str) -> MakeShop:
    """Applies Deployment, Service and HTTPRoute of a shop and waits until it serves through the gateway."""

    def make(
        revision: str = "v1", *, name: str = "shop", replicas: int = 2, env: Mapping[str, str] | None = None
    ) -> Shop:
        made = Shop(namespace, name, f"{name}.{namespace}.example")
        apply(
            [
                shop_deployment(name, namespace, revision, replicas, env),
                shop_service(name, namespace),
                shop_route(name, namespace, made.host),
            ]
        )
        eventually(lambda: made.serves(revision))
        kubectl("rollout", "status", f"deployment/{name}", "-n", namespace, "--timeout=180s")
        return made

    return make
