"""The image, built as far as that goes without an engine (see image.py), and what is in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.packaging.image import Stage, build, instructions, let_through

ROOT = Path(__file__).parents[2]
DIGEST = "python:3.13-slim@sha256:" + "0" * 64
NOBODY = ("unshare", "--user", "--map-user=65532", "--map-group=65532")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """The last stage; every download comes with a hash of the lock."""
    return build(ROOT, tmp_path_factory.mktemp("image"), {"BASE": DIGEST})[-1]


def run(image: Stage, *command: str) -> subprocess.CompletedProcess[str]:
    """As the image runs it: nobody, on a file system it cannot write to."""
    subprocess.run(["chmod", "-R", "a-w", str(image.root)], check=True)
    env = image.variables | {"HOME": "/nonexistent"}
    return subprocess.run([*NOBODY, *command], env=env, capture_output=True, text=True, check=False, timeout=300)


def test_a_base_without_a_digest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        build(ROOT, tmp_path, {})

    assert "give the base by digest: --build-arg BASE=python:3.13-slim@sha256:" in refused.value.stderr


def test_both_stages_stand_on_the_base_that_was_given(image: Stage) -> None:
    assert image.base == DIGEST


def test_it_runs_as_nobody_on_a_file_system_it_cannot_write_to(image: Stage) -> None:
    said = run(image, *image.entrypoint, "--help")

    assert image.user == "65532:65532"
    assert said.returncode == 0, said.stderr
    assert "--metrics-port" in said.stdout


def test_it_can_send_traces_and_holds_no_tool_that_installs(image: Stage) -> None:
    traces = run(image, "python", "-c", "from controller.telemetry.spans import Traces; Traces('x').close()")
    pip = run(image, "python", "-m", "pip", "--version")

    assert traces.returncode == 0, traces.stderr
    assert pip.returncode != 0


def test_what_is_installed_is_what_the_bill_of_materials_says(image: Stage) -> None:
    names = "{one.name.lower(): one.version for one in importlib.metadata.distributions()}"
    script = f"import importlib.metadata, json; print(json.dumps({names}))"
    installed = json.loads(run(image, "python", "-c", script).stdout)
    bill = json.loads((Path(image.mapped("/opt/serin")) / "sbom.cdx.json").read_text())
    named = {(one["name"], one["version"]) for one in bill["components"]}
    own = bill["metadata"]["component"]

    assert installed.pop("serin") == own["version"]
    assert {(name.replace("_", "-"), version) for name, version in installed.items()} <= named


def test_nothing_is_installed_without_a_hash_or_from_elsewhere() -> None:
    installs = [rest for word, rest in instructions((ROOT / "Dockerfile").read_text()) if "pip install" in rest]

    assert installs
    for line in installs:
        for part in line.split("&&"):
            assert "pip install" not in part or "--require-hashes" in part or "--no-index" in part


def test_only_what_the_image_is_made_of_goes_into_the_build() -> None:
    names = {path.relative_to(ROOT).parts[0] for path in let_through(ROOT)}

    assert names == {"controller", ".ci", "requirements.lock", "pyproject.toml", "README.md", "LICENSE"}


def test_a_hash_that_does_not_fit_stops_the_build(tmp_path: Path) -> None:
    """pip itself refuses; this is here so that a switch of installer cannot lose that."""
    lock = tmp_path / "bad.lock"
    lock.write_text(f"mdurl==0.1.2 --hash=sha256:{'0' * 64}\n")
    command = [
        "python3",
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--require-hashes",
        "-d",
        str(tmp_path),
        "-r",
        str(lock),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))

    assert done.returncode != 0
    assert "DO NOT MATCH" in done.stderr


def test_the_bill_of_materials_is_cyclonedx_as_its_schema_has_it() -> None:
    """One component of each shape, with two of its files: the schema takes most of a second for each."""
    written = subprocess.run(
        [sys.executable, ROOT / ".ci" / "release_lock.py", "sbom"], capture_output=True, check=True
    )
    bill = json.loads(written.stdout)
    shapes = {tuple(sorted(one)): one for one in bill["components"]}
    bill["components"] = [one | {"externalReferences": one["externalReferences"][:2]} for one in shapes.values()]
    validator = JsonStrictValidator(SchemaVersion.V1_6)

    assert validator.validate_str(json.dumps(bill)) is None
    assert validator.validate_str(json.dumps(bill | {"bomFormat": "none"})) is not None
