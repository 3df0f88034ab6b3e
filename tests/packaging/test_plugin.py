"""The plugin as people install it: a wheel in an environment of its own, as pipx does, and one file for krew."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def run(*command: str | Path, cwd: Path = Path("/")) -> subprocess.CompletedProcess[str]:
    env = {"PATH": "/usr/bin:/bin", "KUBECTL": "/nowhere/kubectl", "HOME": "/nonexistent", "LANG": "C.UTF-8"}
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, check=False, env=env, cwd=cwd, timeout=300)


@pytest.fixture(scope="module")
def krew(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `.ci/release_plugin.py` writes, its archive unpacked beside."""
    made = tmp_path_factory.mktemp("krew")
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "release_plugin.py", made, "https://example/canary.tar.gz"], check=False
    )
    assert done.returncode == 0
    with tarfile.open(made / "kubectl-canary.tar.gz") as archive:
        archive.extractall(made / "unpacked", filter="data")
    return made


def test_the_one_file_for_krew_needs_nothing_but_python(krew: Path) -> None:
    said = run(sys.executable, "-I", "-S", krew / "unpacked" / "kubectl-canary", "--help")

    assert said.returncode == 0, said.stderr
    assert "status" in said.stdout
    assert "approve" in said.stdout


@pytest.mark.parametrize("command", ["status", "list", "records", "approve"])
def test_commands_of_the_one_file_get_as_far_as_kubectl(krew: Path, command: str) -> None:
    words = {"list": (), "approve": ("checkout", "--reason", "fine", "--yes")}.get(command, ("checkout",))
    said = run(sys.executable, "-I", "-S", krew / "unpacked" / "kubectl-canary", command, *words)

    assert said.returncode == 1
    assert "Traceback" not in said.stderr
    assert "/nowhere/kubectl" in said.stderr


def test_the_one_file_tells_who_wrote_the_commits_of_a_clone(krew: Path, tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=Ann", "-c", "user.email=ann@example.com"]
    subprocess.run([*git, "init", "-q"], check=True)
    message = "x\n\nCo-authored-by: Claude <noreply@anthropic.com>"
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", message], check=True)

    done = run(
        sys.executable, "-I", "-S", krew / "unpacked" / "kubectl-canary", "origin", "--repo", tmp_path, "-o", "json"
    )

    assert '"origin": "ai"' in done.stdout, done.stderr


def test_a_command_that_needs_more_says_how_to_have_it(krew: Path) -> None:
    said = run(sys.executable, "-I", "-S", krew / "unpacked" / "kubectl-canary", "check", "canary.yaml")

    assert said.returncode == 1
    assert said.stderr.startswith("error: kubectl canary check needs the Python package ")
    assert "pipx install . in a checkout" in said.stderr, "no index has a package of this name"


def test_the_manifest_names_the_archive_by_its_hash(krew: Path) -> None:
    manifest = yaml.safe_load((krew / "canary.yaml").read_text())
    archive = (krew / "kubectl-canary.tar.gz").read_bytes()

    assert manifest["metadata"]["name"] == "canary"
    assert manifest["spec"]["version"].startswith("v0.")
    for platform in manifest["spec"]["platforms"]:
        assert platform["sha256"] == hashlib.sha256(archive).hexdigest()
        assert (krew / "unpacked" / platform["bin"]).stat().st_mode & 0o111


def test_the_same_sources_make_the_same_archive(krew: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / ".ci" / "release_plugin.py", tmp_path], check=True)

    assert (tmp_path / "kubectl-canary.tar.gz").read_bytes() == (krew / "kubectl-canary.tar.gz").read_bytes()


def test_pipx_gets_a_command_that_runs(tmp_path: Path) -> None:
    """What pipx does: an environment of its own, the wheel with what it asks for, and its commands on PATH."""
    subprocess.run(
        [BIN / "hatchling", "build", "-t", "wheel", "-d", tmp_path], cwd=ROOT, check=True, capture_output=True
    )
    subprocess.run([BIN / "uv", "venv", "--quiet", tmp_path / "own"], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    install = [BIN / "uv", "pip", "install", "--quiet", "--python", tmp_path / "own" / "bin" / "python", wheel]
    subprocess.run(install, check=True)

    version = run(tmp_path / "own" / "bin" / "kubectl-canary", "version")
    plan = run(
        tmp_path / "own" / "bin" / "kubectl-canary",
        "check",
        ROOT / "manifests" / "examples" / "full.yaml",
        cwd=tmp_path,
    )

    assert version.stdout.startswith("kubectl canary  0.")
    assert plan.returncode == 0, plan.stderr
    assert "Traceback" not in plan.stderr
