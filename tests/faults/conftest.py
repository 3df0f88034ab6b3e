"""Serin's kinds, rights and policies, once a session; a rig for each test; what each row came to."""

from __future__ import annotations

import fcntl
import re
import secrets
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.objects import apply, kubectl, namespace_object, state_dir
from tests.faults.rig import Rig, rig

ROOT = Path(__file__).parents[2]


# What a reviewer would ask for first: crash and fencing, metrics, traffic, people, records. make faults runs the rest.
USUAL = frozenset({2, 5, 10, 16, 18, 20, 22, 29, 32, 35, 38, 43, 47, 48, 49, 53, 54, 57, 58, 65, 66, 69, 78})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make test` leaves out."""
    for item in items:
        row = re.match(r"test_row_(\d\d)_", item.name)
        if (row and int(row[1]) not in USUAL) or item.name.endswith("[rolled back]"):
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="session")
def installed() -> None:
    """All of `kubectl apply -k manifests` but the controller itself: each test starts its own."""
    with (state_dir() / "installed.lock").open("a+") as done:
        # Tests run side by side, in processes that share the cluster: the first installs.
        fcntl.flock(done, fcntl.LOCK_EX)
        done.seek(0)
        if not done.read():
            _install()
            done.write("done")


def _install() -> None:
    text = subprocess.run(
        ["kubectl", "kustomize", str(ROOT / "manifests")], capture_output=True, text=True, check=True
    ).stdout
    wanted = [
        one for one in yaml.safe_load_all(text) if one and one["kind"] not in {"Deployment", "PodDisruptionBudget"}
    ]
    crds = [one for one in wanted if one["kind"] == "CustomResourceDefinition"]
    apply([namespace_object("serin-system")])
    apply(crds)
    kubectl("wait", "--for=condition=Established", "--timeout=30s", *(f"crd/{one['metadata']['name']}" for one in crds))
    apply([one for one in wanted if one["kind"] not in {"CustomResourceDefinition", "Namespace"}])


@pytest.fixture
async def it(installed: None) -> AsyncIterator[Rig]:
    """The rig of one test."""
    async with rig(f"fault-{secrets.token_hex(4)}") as made:
        yield made
