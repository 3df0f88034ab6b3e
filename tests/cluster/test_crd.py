"""What the API server makes of our CRDs: good objects get their defaults, bad ones our own words."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from controller.model.status import (
    Answered,
    Attempt,
    Condition,
    Judged,
    Outcome,
    Phase,
    PlanStep,
    Stable,
    Status,
    StepSeen,
    parse_status,
    render_status,
)
from tests.cluster.cluster import SERIN
from tests.cluster.objects import CommandFailed, eventually, get, kubectl, refusal
from tests.cluster.rules import BROKEN, Broken

CRDS = Path(__file__).parents[2] / "manifests" / "crd"
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
KINDS = ("canaries", "decisions", "freezes", "releasepolicies", "releaserecords", "metricssources")


@pytest.fixture(scope="module", autouse=True)
def crds(cluster: object) -> None:
    """Ours, as the repository has them."""
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRDS))
    for kind in KINDS:
        kubectl("wait", f"crd/{kind}.serin.dev", "--for=condition=Established", "--timeout=180s")
    # A kind is established a moment before those who ask what kinds there are hear of it.
    eventually(
        lambda: kubectl("get", ",".join(f"{kind}.serin.dev" for kind in KINDS), "--all-namespaces", "-o", "json")
    )


def canary(namespace: str, name: str = "checkout", **spec: Any) -> dict[str, Any]:
    """A Canary of ten lines."""
    usual: dict[str, Any] = {
        "targetRef": {"name": "checkout"},
        "traffic": {"service": {"name": "checkout", "port": 80}, "httpRoute": {"name": "checkout"}},
    }
    return {
        "apiVersion": "serin.dev/v1alpha1",
        "kind": "Canary",
        "metadata": {"name": name, "namespace": namespace},
        "spec": usual | spec,
    }


def test_a_canary_of_ten_lines_gets_every_default(namespace: str) -> None:
    kubectl("create", "-f", "-", stdin=canary(namespace))

    spec = get("canary", "checkout", namespace)["spec"]

    assert [step["weight"] for step in spec["steps"]] == [1, 5, 25, 50]
    assert {step["bake"] for step in spec["steps"]} == {"5m"}
    assert spec["analysis"]["falseRollbackRate"] == 0.01
    assert [metric["name"] for metric in spec["analysis"]["metrics"]] == ["errors", "latency"]
    assert spec["targetRef"]["kind"] == "Deployment"


def test_conditions_of_an_established_crd_show_no_schema_problem() -> None:
    for kind in KINDS:
        conditions = get("crd", f"{kind}.serin.dev")["status"]["conditions"]
        assert "NonStructuralSchema" not in {each["type"] for each in conditions}, kind


def test_columns_and_short_names_are_there(namespace: str) -> None:
    kubectl("create", "-f", "-", stdin=canary(namespace))

    header = kubectl("get", "cn", "-n", namespace).splitlines()[0].split()

    assert header == ["NAME", "PHASE", "WEIGHT", "STEP", "VERDICT", "ORIGIN", "WAITING-ON", "AGE"]
    for short in ("dec", "rr"):
        kubectl("get", short, "-n", namespace)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        pytest.param(
            {"steps": [{"weight": 10}, {"weight": 5}]}, "each weight must be greater than the one before it", id="falls"
        ),
        pytest.param(
            {"steps": [{"weight": 5}, {"weight": 5}]}, "each weight must be greater than the one before it", id="same"
        ),
        pytest.param({"steps": [{"weight": 101}]}, "from 0.01 to 100", id="above 100"),
        pytest.param({"steps": [{"weight": 0.001}]}, "from 0.01 to 100", id="below 0.01"),
        pytest.param({"steps": [{"weight": 0.015}]}, "at most two decimals", id="three decimals"),
        pytest.param({"steps": []}, "spec.steps", id="no steps"),
        pytest.param({"steps": [{"weight": n + 1} for n in range(21)]}, "spec.steps", id="too many steps"),
        pytest.param({"steps": [{"weight": 5, "bake": "5 minutes"}]}, "write a duration from 1s to 168h", id="words"),
        pytest.param({"steps": [{"weight": 5, "bake": ""}]}, "write a duration from 1s to 168h", id="empty"),
        pytest.param({"steps": [{"weight": 5, "bake": "5"}]}, "write a duration from 1s to 168h", id="no unit"),
        pytest.param({"steps": [{"weight": 5, "bake": "-5m"}]}, "write a duration from 1s to 168h", id="negative"),
        pytest.param({"steps": [{"weight": 5, "bake": "169h"}]}, "write a duration from 1s to 168h", id="too long"),
        pytest.param({"steps": [{"weight": 5, "bake": "0s"}]}, "write a duration from 1s to 168h", id="none"),
        pytest.param({"stepps": []}, 'unknown field "spec.stepps"', id="misspelt"),
        pytest.param({"analysis": {"alpha": 1}}, 'unknown field "spec.analysis.alpha"', id="misspelt within"),
        pytest.param(
            {"analysis": {"metrics": [{"name": "m", "gauge": {"times": 0.5}}, {"name": "e", "errorRatio": {}}]}},
            "should be greater than or equal to 1",
            id="less than stable's",
        ),
        pytest.param({"analysis": {"falseRollbackRate": 0.5}}, "falseRollbackRate", id="rate too high"),
        pytest.param({"targetRef": {"kind": "StatefulSet", "name": "x"}}, "spec.targetRef.kind", id="another kind"),
    ],
)
def test_a_field_that_is_wrong_is_refused_with_what_to_write(namespace: str, spec: dict[str, Any], said: str) -> None:
    refused = refusal("create", "-f", "-", stdin=canary(namespace, **spec))

    assert said in refused
    assert "rule evaluation error" not in refused


@pytest.mark.parametrize("weights", [[0.01], [0.07, 0.29, 1.1, 33.33, 99.99, 100], [n + 1 for n in range(20)]])
def test_every_weight_with_two_decimals_is_taken(namespace: str, weights: list[float]) -> None:
    kubectl("create", "-f", "-", stdin=canary(namespace, steps=[{"weight": weight} for weight in weights]))

    assert [step["weight"] for step in get("canary", "checkout", namespace)["spec"]["steps"]] == weights


def test_a_name_that_its_canary_service_cannot_have_is_refused(namespace: str) -> None:
    assert "a letter first" in refusal("create", "-f", "-", stdin=canary(namespace, name="1st"))


def whoami() -> str:
    """The administrator's name, as admission sees it."""
    return str(json.loads(kubectl("auth", "whoami", "-o", "json"))["status"]["userInfo"]["username"])


def patch_status(namespace: str, *operations: dict[str, Any]) -> str:
    """As the controller's account: where Serin's policies are in force, nobody else writes a status."""
    return kubectl(
        "patch", "canary", "checkout", "-n", namespace, "--subresource=status", "--type=json", "-p",
        json.dumps(operations), f"--as={SERIN}", "--as-group=system:masters",
    )  # fmt: skip


@pytest.fixture
def led(namespace: str) -> str:
    """A namespace whose Canary a leader of term 5 has written to."""
    kubectl("create", "-f", "-", stdin=canary(namespace))
    patch_status(namespace, {"op": "add", "path": "/status", "value": {"leaderEpoch": 5, "phase": "Idle"}})
    return namespace


def test_a_leader_of_an_earlier_term_cannot_write(led: str) -> None:
    attacks = (
        {"op": "replace", "path": "/status/leaderEpoch", "value": 4},
        {"op": "remove", "path": "/status/leaderEpoch"},
        {"op": "remove", "path": "/status"},
    )
    for attack in attacks:
        with pytest.raises(CommandFailed, match="leaderEpoch never falls"):
            patch_status(led, attack)

    patch_status(led, {"op": "replace", "path": "/status/leaderEpoch", "value": 6})

    status = get("canary", "checkout", led)["status"]
    assert (status["leaderEpoch"], status["phase"], status["weight"]) == (6, "Idle", 0)


def test_a_status_as_the_controller_writes_it_comes_back_whole(led: str) -> None:
    judged = Judged(NOON, "fail", "AnalysisFailed", metric="errors", message="5 % of 1000", numbers={"lnE": 4.6})
    attempt = Attempt(
        id="a1",
        template_hash="abc",
        started_at=NOON,
        plan=(PlanStep(1.0, 60.0), PlanStep(50.0, 300.0, approval=True)),
        baking_since=NOON,
        drifts=(NOON,),
        steps_seen=(StepSeen(0, 1.0, NOON),),
        verdicts=(judged,),
        retreats=(judged,),
        outcome=Outcome.ROLLED_BACK,
        evaluated_through=1_800_000_000.5,
        judge={"errors": {"lanes": [0.1, 0.2], "phi": None}},
    )
    stable = Stable("uid", "7d9f6c5b8", "abc", {"metadata": {"labels": {"app": "checkout"}}, "spec": {}}, ("shop:1",))
    status = Status(
        leader_epoch=6,
        fence=3,
        phase=Phase.ROLLING_BACK,
        weight=0.01,
        stable=stable,
        attempt=attempt,
        decisions=(Answered("uid", "Abort", "alice", NOON, "aborted", taken=True),),
        conditions=(Condition("Ready", "Unknown", "RollingBack", "going back", NOON, 1),),
    )
    written = json.loads(json.dumps(render_status(status)))
    patch_status(led, {"op": "replace", "path": "/status", "value": written})

    stored = get("canary", "checkout", led)["status"]
    assert stored == written
    assert parse_status(stored) == status


@pytest.mark.parametrize("broken", BROKEN, ids=lambda one: f"{one.kind} {one.place or 'metadata'}: {one.says}")
def test_whoever_breaks_a_rule_reads_which_and_where(namespace: str, broken: Broken) -> None:
    if broken.was:
        kubectl("create", "-f", "-", stdin=broken.body(namespace, whoami(), broken.was))
    verb = "replace" if broken.was else "create"

    refused = refusal(verb, "-f", "-", stdin=broken.body(namespace, whoami()))

    assert broken.says in refused
    assert re.search(broken.field, refused)
    assert "rule evaluation error" not in refused


def test_a_source_with_a_bad_address_is_refused() -> None:
    source: dict[str, Any] = {
        "apiVersion": "serin.dev/v1alpha1",
        "kind": "MetricsSource",
        "metadata": {"name": "test-bad"},
        "spec": {"url": "ftp://prometheus"},
    }
    assert "spec.url" in refusal("create", "-f", "-", stdin=source)
