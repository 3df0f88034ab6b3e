"""What `manifests/crd` promises: it comes from the models, and nothing in it is without a bound."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.model.crd import KINDS, Kind, main, render_crd, render_files
from tests.cluster.rules import BROKEN, BY_ITSELF

MANIFESTS = Path(__file__).parents[3] / "manifests" / "crd"


def schema_of(kind: Kind) -> dict[str, Any]:
    (version,) = render_crd(kind)["spec"]["versions"]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return schema


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every node of a schema, with where it stands."""
    yield path, schema
    for name, each in schema.get("properties", {}).items():
        yield from nodes(each, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from nodes(schema["additionalProperties"], f"{path}{{}}")


def test_the_manifests_are_what_the_models_say() -> None:
    stored = {path.name: path.read_text() for path in MANIFESTS.glob("*.yaml")}

    assert stored == render_files(), "run: make manifests"


def test_writing_them_twice_writes_the_same(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 0
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    assert main([str(tmp_path)]) == 0

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_string_list_and_map_has_a_bound(kind: Kind) -> None:
    unbounded = []
    for path, node in nodes(schema_of(kind)):
        match node["type"]:
            case "string" if "maxLength" not in node and "enum" not in node:
                unbounded.append(path)
            case "array" if "maxItems" not in node:
                unbounded.append(path)
            case "object" if "additionalProperties" in node and "maxProperties" not in node:
                unbounded.append(path)

    assert unbounded == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_only_the_structural_part_of_json_schema_is_used(kind: Kind) -> None:
    for path, node in nodes(schema_of(kind)):
        refused = {"$ref", "anyOf", "allOf", "oneOf", "const", "patternProperties", "title", "$defs"} & node.keys()
        assert not refused, path
        assert node.get("additionalProperties") is not False, path
        assert not ("properties" in node and "additionalProperties" in node), path


def test_only_what_the_controller_keeps_for_itself_may_hold_anything() -> None:
    open_nodes = {
        f"{kind.name}{path}"
        for kind in KINDS
        for path, node in nodes(schema_of(kind))
        if node.get("x-kubernetes-preserve-unknown-fields")
    }

    assert all(path.startswith("Canary.status.") for path in open_nodes)


def test_a_canary_of_ten_lines_gets_the_default_steps_and_metrics() -> None:
    spec = schema_of(KINDS[0])["properties"]["spec"]["properties"]

    assert [step["weight"] for step in spec["steps"]["default"]] == [1, 5, 25, 50]
    assert [metric["name"] for metric in spec["analysis"]["default"]["metrics"]] == ["errors", "latency"]


def test_a_lower_leader_epoch_is_refused_where_status_cannot_be_taken_away_from_it() -> None:
    rules = [rule["rule"] for rule in schema_of(KINDS[0])["x-kubernetes-validations"]]

    assert any("self.status.leaderEpoch >= oldSelf.status.leaderEpoch" in rule for rule in rules)


def test_every_rule_has_an_object_that_breaks_it() -> None:
    rules = {
        (kind.name, path.removeprefix("."), rule["message"])
        for kind in KINDS
        for path, node in nodes(schema_of(kind))
        for rule in node.get("x-kubernetes-validations", ())
    }
    stories = (MANIFESTS.parents[1] / "tests" / "cluster" / "test_crd.py").read_text()

    unbroken = [
        (kind, place, message)
        for kind, place, message in rules
        if not any((one.kind, one.place) == (kind, place) and message.startswith(one.says) for one in BROKEN)
        and not any(message.startswith(says) and f"def {test}(" in stories for says, test in BY_ITSELF.items())
    ]

    assert unbroken == []
