"""Logins as kubeconfigs describe them."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from controller.app import parser
from controller.errors import NeedsUser
from controller.kube.credentials import TOKEN_KNOWN_FOR, load_credentials, pod_credentials

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


def account(folder: Path, token: str) -> Path:
    """What the kubelet puts into a pod."""
    (folder / "token").write_text(f"{token}\n")
    (folder / "ca.crt").write_text(authority("here"))
    return folder


def authority(name: str) -> str:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), 1, now, now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()


async def test_a_pods_token_is_read_again_after_a_while_since_it_is_renewed_in_place(tmp_path: Path) -> None:
    now = 0.0
    credentials = pod_credentials("10.96.0.1", "443", account=account(tmp_path, "first"), clock=lambda: now)
    account(tmp_path, "second")

    logins = [await credentials.headers()]
    now = TOKEN_KNOWN_FOR
    logins.append(await credentials.headers())

    assert logins == [{"authorization": "Bearer first"}, {"authorization": "Bearer second"}]


@pytest.mark.parametrize(
    ("server", "host"),
    [
        pytest.param("10.96.0.1", "https://10.96.0.1:443", id="an address"),
        pytest.param("fd00::1", "https://[fd00::1]:443", id="an IPv6 address"),
    ],
)
def test_a_pod_trusts_nobody_but_its_clusters_authority(tmp_path: Path, server: str, host: str) -> None:
    credentials = pod_credentials(server, "443", account=account(tmp_path, "secret"))

    assert credentials.host == host
    assert isinstance(credentials.ssl, ssl.SSLContext)
    assert credentials.ssl.verify_mode is ssl.CERT_REQUIRED
    assert [one["subject"] for one in credentials.ssl.get_ca_certs()] == [((("commonName", "here"),),)]


def test_a_controller_starts_without_the_libraries_it_does_not_need_in_a_pod() -> None:
    heavy = {"kubernetes", "scipy", "pandas", "matplotlib", "cryptography"}
    program = f"import sys, controller.app; print(*({heavy!r} & sys.modules.keys()))"

    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert found.stdout.split() == []


@pytest.mark.parametrize("text", ["", "[", "text", "current-context: 5"])
async def test_a_kubeconfig_that_cannot_be_read_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(text)

    with pytest.raises(NeedsUser, match=r"(?s)config: .*outside a pod name one with --kubeconfig"):
        await load_credentials(str(tmp_path / "config"))


def test_a_port_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["--health-port", "70000"])

    assert "70000 is no port" in capsys.readouterr().err
