"""A real OCI registry beside the cluster, started by whoever needs one: the `registry` of the distribution project.

The one thing to know: it has no referrers API, so attestations go by the fallback tag, as with many registries in
use. Images are a manifest with an empty layer: their digest is all that matters here.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from controller.attestations.images import EMPTY, MANIFEST, digest_of, fallback_tag, parse_image
from tests.cluster import tools
from tests.cluster.conftest import RunningCluster
from tests.cluster.podrunner import CHECKOUT

ADDRESS = "127.0.0.1:5000"
HOST = "localhost:5000"


@dataclass
class RunningRegistry:
    """One registry and its images."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Listen; what was pushed before is still there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "config.json"
        config.write_text(json.dumps(self._config()))
        with (self.folder / "registry.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(tools.tool("registry")), "serve", str(config)],
                stdout=log,
                stderr=log,
                env={"OTEL_TRACES_EXPORTER": "none"},
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://{ADDRESS}/v2/", timeout=1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self.folder / "registry.log").read_text()[-2000:]) from None
                time.sleep(0.05)

    def stop(self) -> None:
        """End it: nothing answers any more."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def push(self, repository: str, tag: str) -> str:
        """An image like no other; the reference by tag and digest that a Deployment can name.

        Statements are about digests: with equal ones a test would meet what another attached.
        """
        self._upload(repository, b"{}")
        body: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": EMPTY, "digest": digest_of(b"{}"), "size": 2},
            "layers": [],
            "annotations": {"org.opencontainers.image.version": tag, "content": uuid.uuid4().hex},
        }
        manifest = json.dumps(body).encode()
        self.put(repository, tag, manifest, MANIFEST)
        return f"{HOST}/{repository}:{tag}@{digest_of(manifest)}"

    def copy_statements(self, repository: str, image: str, other: str) -> None:
        """Attach what is attached to one image to another as well, as whoever may push can."""
        tags = [fallback_tag(parse_image(one).digest) for one in (image, other)]
        with urllib.request.urlopen(f"http://{ADDRESS}/v2/{repository}/manifests/{tags[0]}", timeout=10) as answer:
            self.put(repository, tags[1], answer.read(), answer.headers["Content-Type"])

    def put(self, repository: str, tag: str, manifest: bytes, kind: str) -> None:
        """Any manifest under any tag."""
        self._send("PUT", f"/v2/{repository}/manifests/{tag}", manifest, kind)

    def _upload(self, repository: str, blob: bytes) -> None:
        begun = self._send("POST", f"/v2/{repository}/blobs/uploads/", b"", "application/octet-stream")
        joint = "&" if "?" in begun else "?"
        self._send("PUT", f"{begun}{joint}digest={digest_of(blob)}", blob, "application/octet-stream")

    def _send(self, method: str, path: str, body: bytes, kind: str) -> str:
        url = path if path.startswith("http") else f"http://{ADDRESS}{path}"
        request = urllib.request.Request(url, data=body, method=method, headers={"Content-Type": kind})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(answer.headers.get("Location", ""))

    def _config(self) -> dict[str, Any]:
        return {
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(self.folder / "data")}},
            "http": {"addr": ADDRESS},
        }


class Build:
    """What CI has: a clone, a key, and the plugin."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        key = ec.generate_private_key(ec.SECP256R1())
        form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.public_key = public.decode()
        self.git("init", "-q", "-b", "main")

    def git(self, *words: str) -> None:
        who = ["-c", "user.name=Ann", "-c", "user.email=ann@example.com"]
        subprocess.run(["git", "-C", str(self.folder), *who, *words], check=True, capture_output=True)

    def commit(self, message: str) -> None:
        self.git("commit", "-q", "--allow-empty", "-m", message)

    def attest(self, image: str, *more: str) -> subprocess.CompletedProcess[str]:
        words = ["attest", image, "--key", str(self.folder / "key.pem"), "--repo", str(self.folder), "--plain-http"]
        command = [sys.executable, "-m", "controller.cli.main", *words, *more]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=CHECKOUT, timeout=180)


@pytest.fixture(scope="module")
def registry(cluster: RunningCluster) -> Iterator[RunningRegistry]:
    """One registry for the tests of a file."""
    made = RunningRegistry(cluster.state / "registry")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def build(tmp_path: Path) -> Build:
    return Build(tmp_path)
