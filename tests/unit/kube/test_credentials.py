"""Logins as kubeconfigs describe them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from controller.kube.credentials import load_credentials

PLUGIN = """
import json, pathlib, sys
count = pathlib.Path(sys.argv[1])
calls = int(count.read_text()) + 1 if count.exists() else 1
count.write_text(str(calls))
status = {"token": f"token-{calls}", "expirationTimestamp": sys.argv[2]}
print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}))
"""


def kubeconfig(folder: Path, user: dict[str, Any]) -> str:
    path = folder / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "here",
                "clusters": [{"name": "here", "cluster": {"server": "http://127.0.0.1:1/"}}],
                "users": [{"name": "me", "user": user}],
                "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
            }
        )
    )
    return str(path)


@pytest.mark.parametrize(
    ("expires", "logins"),
    [
        pytest.param("2100-01-01T00:00:00Z", ["Bearer token-1"] * 2, id="a token that lasts is used again"),
        pytest.param("2000-01-01T00:00:00Z", ["Bearer token-2", "Bearer token-3"], id="an expired one is renewed"),
    ],
)
async def test_an_exec_plugin_is_asked_again_when_its_token_expires(
    tmp_path: Path, expires: str, logins: list[str]
) -> None:
    script = tmp_path / "plugin.py"
    script.write_text(PLUGIN)
    login = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": [str(script), str(tmp_path / "count"), expires],
        "interactiveMode": "Never",
    }

    credentials = await load_credentials(kubeconfig(tmp_path, {"exec": login}))

    assert credentials.host == "http://127.0.0.1:1"
    assert [(await credentials.headers())["authorization"] for _ in range(2)] == logins


async def test_a_token_in_the_environments_kubeconfig_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", kubeconfig(tmp_path, {"token": "secret"}))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")

    credentials = await load_credentials()

    assert await credentials.headers() == {"authorization": "Bearer secret"}
