"""What is applied to a cluster, checked without one: examples, the chart's copies, and the versions that must agree.

That chart and kustomization install the same objects is tested with Helm itself, in tests/cluster/test_chart.py.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from controller.model.policy import FreezeSpec, ReleasePolicySpec
from controller.model.spec import CanarySpec, DecisionSpec, MetricsSourceSpec, Model, Verb
from controller.rollout.conditions import HOLDS
from tests.examples_of_secrets import SECRETS
from tests.values import render_values

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
CHART = ROOT / "charts" / "serin"
COPIED = ("crd", "admission", "rbac", "observability")
# The kinds of observability belong to operators that not every cluster has.
APPLIED = ("crd", "admission", "rbac", "deployment")
SPECS: dict[str, type[Model]] = {
    "Canary": CanarySpec,
    "Decision": DecisionSpec,
    "Freeze": FreezeSpec,
    "MetricsSource": MetricsSourceSpec,
    "ReleasePolicy": ReleasePolicySpec,
}


def objects_of(path: Path) -> list[dict[str, Any]]:
    return [item for item in yaml.safe_load_all(path.read_text()) if item]


def roles() -> list[dict[str, Any]]:
    found = [item for path in sorted((MANIFESTS / "rbac").glob("*.yaml")) for item in objects_of(path)]
    return [item for item in found if item["kind"] in ("ClusterRole", "Role")]


def rules_of(name: str) -> list[dict[str, Any]]:
    return [rule for role in roles() if role["metadata"]["name"] == name for rule in role["rules"]]


@pytest.mark.parametrize(
    "path",
    [*sorted((MANIFESTS / "examples").glob("*.yaml")), *sorted((MANIFESTS / "policies").glob("*.yaml"))],
    ids=lambda path: path.name,
)
def test_every_example_is_one_that_the_controller_reads(path: Path) -> None:
    for item in objects_of(path):
        assert item["apiVersion"] == "serin.dev/v1alpha1"
        SPECS[item["kind"]].model_validate(item["spec"])


def test_the_usual_canary_takes_ten_lines() -> None:
    text = (MANIFESTS / "examples" / "canary.yaml").read_text().strip()

    assert len(text.splitlines()) == 10


def test_the_full_example_leaves_no_field_out() -> None:
    (canary,) = objects_of(MANIFESTS / "examples" / "full.yaml")

    assert set(canary["spec"]) == {field.alias for field in CanarySpec.model_fields.values()}
    analysis = CanarySpec.model_fields["analysis"].annotation
    assert isinstance(analysis, type)
    assert issubclass(analysis, Model)
    assert set(canary["spec"]["analysis"]) == {field.alias for field in analysis.model_fields.values()}


def test_a_misspelt_field_in_an_example_would_be_seen() -> None:
    (canary,) = objects_of(MANIFESTS / "examples" / "canary.yaml")

    with pytest.raises(ValidationError, match="step"):
        CanarySpec.model_validate(canary["spec"] | {"step": []})


@pytest.mark.parametrize("folder", COPIED)
def test_the_chart_holds_the_manifests_as_they_are(folder: str) -> None:
    ours = {path.name: path.read_text() for path in (MANIFESTS / folder).iterdir()}
    copies = {path.name: path.read_text() for path in (CHART / "files" / folder).iterdir()}

    assert ours
    assert copies == ours, "run: make manifests"


@pytest.mark.parametrize("folder", APPLIED)
def test_no_manifest_is_forgotten_by_the_kustomization(folder: str) -> None:
    kustomization = yaml.safe_load((MANIFESTS / "kustomization.yaml").read_text())
    named = {name.removeprefix(f"{folder}/") for name in kustomization["resources"] if name.startswith(f"{folder}/")}

    assert named == {path.name for path in (MANIFESTS / folder).glob("*.yaml")}


def test_the_controller_may_not_read_secrets_outside_its_own_namespace() -> None:
    cluster_roles = [role for role in roles() if role["kind"] == "ClusterRole"]
    everywhere = {resource for role in cluster_roles for rule in role["rules"] for resource in rule["resources"]}

    assert everywhere.isdisjoint({"secrets", "configmaps", "*"})


def test_no_rule_grants_every_verb_group_or_resource() -> None:
    for rule in (rule for role in roles() for rule in role["rules"]):
        assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]


def test_the_approver_has_a_verb_for_every_decision() -> None:
    verbs = {verb for rule in rules_of("canary-approver") for verb in rule["verbs"] if "canaries" in rule["resources"]}

    assert {verb.value.lower() for verb in Verb} - {"breakglass", "override", "thaw"} | {"detach"} <= verbs


@pytest.mark.parametrize("verb", ["breakglass", "override"])
def test_nobody_may_break_the_glass_by_a_role_they_have_for_something_else(verb: str) -> None:
    holders = [role for role in roles() if any(verb in rule["verbs"] for rule in role["rules"])]

    assert [role["metadata"]["name"] for role in holders] == ["canary-breakglass"]
    assert "labels" not in holders[0]["metadata"], "added to no other role"


def test_whoever_is_on_call_stops_everything_and_lets_nothing_through() -> None:
    verbs = {verb for rule in rules_of("canary-oncall") for verb in rule["verbs"]}
    freezes = {verb for rule in rules_of("canary-oncall") if "freezes" in rule["resources"] for verb in rule["verbs"]}

    assert freezes == {"get", "list", "watch", "create"}
    assert verbs.isdisjoint({"approve", "promote", "retry", "resume", "thaw", "delete", "update", "patch"})
    assert "thaw" in {verb for rule in rules_of("canary-owner") for verb in rule["verbs"]}


def test_an_editor_can_get_users_out_but_lets_nothing_through() -> None:
    verbs = {verb for rule in rules_of("canary-editor") for verb in rule["verbs"]}

    assert {"abort", "pause"} <= verbs
    assert verbs.isdisjoint({"approve", "reject", "promote", "retry", "resume", "detach"})


@pytest.mark.parametrize("role", ["canary-viewer", "canary-editor", "canary-approver"])
def test_no_role_for_people_writes_a_status_or_a_record(role: str) -> None:
    reading = {"get", "list", "watch"}

    for rule in rules_of(role):
        assert "canaries/status" not in rule["resources"]
        if "releaserecords" in rule["resources"]:
            assert set(rule["verbs"]) <= reading


def test_the_alert_about_rollouts_that_hold_knows_every_reason_to_hold() -> None:
    (rules,) = objects_of(MANIFESTS / "observability" / "rules.yaml")
    (alert,) = [
        rule for group in rules["spec"]["groups"] for rule in group["rules"] if rule["alert"] == "SerinRolloutHolds"
    ]
    named = re.search(r'reason=~"([^"]+)"', alert["expr"])
    assert named

    # A service with few requests takes long, and that is as it should be.
    only_time = {"MinRequests", "NotCertified", "PodsTooYoung", "Suspicious"}
    others = {"CanaryNotReady", "RouteNotProgrammed", "PolicyUnreadable"}
    assert set(named[1].split("|")) == HOLDS - only_time | others


def test_no_value_is_refused_by_a_regular_expression() -> None:
    # Helm would print it: what needs one is refused by templates/_refused.tpl, with what to write.
    schema = (CHART / "values.schema.json").read_text()

    assert not [word for word in ("pattern", "not", "if", "oneOf") if f'"{word}":' in schema]


def test_values_and_their_schema_name_the_same_keys_and_each_is_described() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    # Helm itself puts `global` into the values of every chart.
    del schema["properties"]["global"]

    def compare(schema: dict[str, Any], values: dict[str, Any], at: str) -> None:
        assert set(schema["properties"]) == set(values), at
        assert schema["additionalProperties"] is False, at
        for key, part in schema["properties"].items():
            if "description" in part:
                continue
            assert "properties" in part, f"{at}{key}: describe it"
            compare(part, values[key], f"{at}{key}.")

    compare(schema, values, "")


def test_the_document_of_the_values_is_that_of_the_schema() -> None:
    assert (ROOT / "docs" / "values.md").read_text() == render_values(CHART), "run: make manifests"


def test_project_chart_and_manifests_carry_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    (deployment,) = objects_of(MANIFESTS / "deployment" / "controller.yaml")
    image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]

    assert {project["version"], chart["version"], chart["appVersion"]} == {image.rpartition(":")[2]}


def test_every_dependency_is_locked_with_hashes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    lock = (ROOT / "requirements.lock").read_text()
    pinned = re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE)
    hashed = re.findall(r"^([a-z0-9-]+)==[^\n]+\n    --hash=sha256:", lock, re.MULTILINE)

    for requirement in wanted:
        name = re.match(r"[A-Za-z0-9-]+", requirement)
        assert name
        assert name[0].lower() in hashed
    assert hashed == pinned


@pytest.mark.parametrize("secret", [*SECRETS, "https://bob:pa55word@host", "password=hunter2!"])
def test_admission_refuses_a_reason_that_holds_a_credential(secret: str) -> None:
    rules = [
        rule["expression"]
        for item in objects_of(MANIFESTS / "admission" / "decisions.yaml")
        for rule in item["spec"].get("validations", ())
    ]
    (pattern,) = [found[1] for rule in rules if (found := re.search(r"reason\.matches\('(.*)'\)$", rule, re.DOTALL))]

    assert re.search(pattern, f"rolled back, see {secret} for more")
    assert not re.search(pattern, "error budget is fine; the token service of shop@sha256:0123 is slow: see #12")
