"""Serin's kinds, rights and policies, once a session; a rig for each test; what each row came to."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.objects import apply, kubectl, namespace_object, state_dir
from tests.faults.rig import Rig, rig

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def installed() -> None:
    """All of `kubectl apply -k manifests` but the controller itself: each test starts its own."""
    state_dir()
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
