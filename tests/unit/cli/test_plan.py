"""What would come of a change, told by the same functions that the controller decides with."""

from __future__ import annotations

import argparse
import io
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from controller.cli import plan
from controller.cli.kubectl import Denied, Failure
from controller.cli.screen import Screen
from controller.model.evidence import Evidence
from controller.model.outlook import Outlook
from controller.model.status import Answered, Attempt, Phase, Stable, Status, render_status
from controller.model.template import plain_template, template_hash
from tests.builders import NOON, ruling, spec
from tests.unit.cli.scenes import MemoryCluster

API = "/apis/serin.dev/v1alpha1"
OLD = {"metadata": {"labels": {"app": "shop"}}, "spec": {"containers": [{"name": "app", "image": "shop@sha256:1"}]}}
NEW = {
    "metadata": {"labels": {"app": "shop"}},
    "spec": {"serviceAccountName": "admin", "containers": [{"name": "app", "image": "shop@sha256:2"}]},
}
STRICT = {
    "metadata": {"name": "ai-strict", "generation": 3},
    "spec": {
        "rules": [
            {"name": "small", "when": {"origin": "mixed"}, "maxFirstWeight": 1},
            {"name": "people", "when": {"classes": ["auth"]}, "approvals": {"count": 2, "groups": ["sre"]}},
        ]
    },
}


def canary(**status: Any) -> dict[str, Any]:
    usual = {"phase": Phase.IDLE, "stable": Stable("uid-1", "h1", "old", plain_template(OLD), ("shop@sha256:1",))}
    return {
        "metadata": {"name": "checkout", "namespace": "shop"},
        "spec": spec().model_dump(mode="json", by_alias=True, exclude_none=True),
        "status": render_status(Status(**usual | status)),
    }


def deployment(template: dict[str, Any]) -> dict[str, Any]:
    meta = {"name": "checkout", "namespace": "shop"}
    return {"kind": "Deployment", "metadata": meta, "spec": {"replicas": 4, "template": template}}


def cluster(*policies: dict[str, Any], **objects: Any) -> MemoryCluster:
    stored = {
        f"{API}/namespaces/shop/canaries/checkout": canary(),
        "/apis/apps/v1/namespaces/shop/deployments/checkout": deployment(NEW),
    }
    stored |= {f"{API}/releasepolicies/{one['metadata']['name']}": one for one in policies}
    return MemoryCluster(stored | objects)


def options(**changes: Any) -> argparse.Namespace:
    usual = {"name": "", "namespace": "shop", "file": "", "suppose": "", "rate": 0.0, "output": ""}
    return argparse.Namespace(**usual | changes)


@pytest.fixture
def new_yaml(tmp_path: Path) -> str:
    path = tmp_path / "new.yaml"
    path.write_text(yaml.safe_dump(deployment(NEW)))
    return str(path)


def test_a_plan_tells_what_changes_by_which_rule_and_who_is_asked(
    capsys: pytest.CaptureFixture[str], new_yaml: str
) -> None:
    assert plan.run(options(file=new_yaml), cluster(STRICT), Screen()) == 0

    told = capsys.readouterr().out
    assert "image shop@sha256:2 (new)" in told
    assert "touches auth: template.spec.serviceAccountName" in told
    assert "steps[0].weight 10% -> 1% by ai-strict/small" in told
    assert "3 people of sre before the first request, by ai-strict/people" in told
    assert "origin unknown, trust T0" in told
    assert "rolls its 4 pods" in told
    assert "plan digest sha256:" in told


def test_supposing_a_signed_statement_shows_what_it_would_be_worth(
    capsys: pytest.CaptureFixture[str], new_yaml: str
) -> None:
    plan.run(options(file=new_yaml, suppose="human", output="json"), cluster(STRICT), Screen())

    told = json.loads(capsys.readouterr().out)
    assert ([step["weight"] for step in told["steps"]], told["origin"]) == ([10, 50], "human")


def test_what_would_be_refused_ends_with_another_code(capsys: pytest.CaptureFixture[str], new_yaml: str) -> None:
    never = {"metadata": {"name": "never"}, "spec": {"rules": [{"name": "no", "refuse": True}]}}

    assert plan.run(options(file=new_yaml), cluster(never), Screen()) == 1

    assert "REFUSED PolicyRefused never/no" in capsys.readouterr().out


def test_of_an_attempt_under_way_the_plan_is_the_one_it_began_with(capsys: pytest.CaptureFixture[str]) -> None:
    ruled = ruling()
    attempt = Attempt("a-1", template_hash(NEW), NOON, ruled.plan, plan_digest="sha256:begun", images=("shop:2",))
    running = canary(phase=Phase.PROGRESSING, attempt=attempt)

    plan.run(
        options(name="checkout"), cluster(STRICT, **{f"{API}/namespaces/shop/canaries/checkout": running}), Screen()
    )

    told = capsys.readouterr().out
    assert "Plan for attempt a-1 of Canary shop/checkout" in told
    assert "plan digest sha256:begun" in told


def test_what_is_not_proven_of_an_attempt_is_told_beside_its_origin(capsys: pytest.CaptureFixture[str]) -> None:
    evidence = Evidence(problems=("nobody vouches for auth (template.spec.serviceAccountName)",))
    attempt = Attempt("a-1", template_hash(NEW), NOON, ruling().plan, images=("shop:2",), evidence=evidence)
    running = canary(phase=Phase.PROGRESSING, attempt=attempt)
    seen = cluster(STRICT, **{f"{API}/namespaces/shop/canaries/checkout": running})

    plan.run(options(name="checkout"), seen, Screen())
    plan.run(options(name="checkout", output="json"), seen, Screen())

    told, _, document = capsys.readouterr().out.partition("{")
    assert "not proven: nobody vouches for auth (template.spec.serviceAccountName)" in told
    assert json.loads("{" + document)["notProven"] == list(evidence.problems)


def test_a_freeze_that_the_attempt_may_pass_is_told_with_who_lets_it(capsys: pytest.CaptureFixture[str]) -> None:
    attempt = Attempt("a-1", template_hash(NEW), NOON, ruling().plan, images=("shop:2",))
    until = NOON + timedelta(hours=2)
    let = Answered("d1", "Override", "bea", NOON, "taken", True, attempt="a-1", expires_at=until, freeze="u1")
    running = canary(phase=Phase.PROGRESSING, attempt=attempt, decisions=(let,))
    stored = {
        f"{API}/namespaces/shop/canaries/checkout": running,
        f"{API}/freezes/peak": {"metadata": {"name": "peak", "uid": "u1"}, "spec": {"reason": "peak hours"}},
        f"{API}/freezes/stop": {"metadata": {"name": "stop", "uid": "u2"}, "spec": {"reason": "4712"}},
    }

    plan.run(options(name="checkout"), cluster(STRICT, **stored), Screen(), NOON)
    during = capsys.readouterr().out
    plan.run(options(name="checkout"), cluster(STRICT, **stored), Screen(), until)
    after = capsys.readouterr().out

    assert "Freeze peak: peak hours until it is thawed; bea lets this attempt pass it until 2026-03-01 14:00" in during
    assert "Freeze stop: 4712 until it is thawed\n" in during
    assert "lets this attempt pass" not in after


def test_freezes_in_force_and_ahead_are_told_and_one_that_cannot_be_read_is_in_force(
    capsys: pytest.CaptureFixture[str], new_yaml: str
) -> None:
    nightly = {"reason": "night", "schedule": "0 2 * * *", "duration": "1h", "timeZone": "UTC"}
    stored = {
        f"{API}/freezes/nightly": {"metadata": {"name": "nightly", "uid": "u1"}, "spec": nightly},
        f"{API}/freezes/odd": {"metadata": {"name": "odd", "uid": "u2"}, "spec": {"reason": ""}},
    }

    plan.run(options(file=new_yaml), cluster(**stored), Screen(), NOON)

    told = capsys.readouterr().out
    assert "freeze ahead: nightly from" in told
    assert "frozen now: Freeze odd cannot be read, so it holds: spec.reason: String should have at least 1 char" in told

    plan.run(options(file=new_yaml), cluster(**stored), Screen(), NOON.replace(hour=2, minute=30))

    told = capsys.readouterr().out
    assert "frozen now: Freeze odd cannot be read, so it holds" in told
    assert "frozen now: Freeze nightly" in told, "all that are in force, not the strictest alone"


def test_who_may_not_read_the_policies_is_told_that_the_plan_may_be_laxer(
    capsys: pytest.CaptureFixture[str], new_yaml: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = cluster(STRICT)
    monkeypatch.setattr(here, "read_all", lambda *paths: [Denied("forbidden")] * len(paths))

    plan.run(options(file=new_yaml), here, Screen())

    assert "releasepolicies may not be read by you" in capsys.readouterr().out


def test_with_the_traffic_named_it_says_what_the_judge_could_see(
    capsys: pytest.CaptureFixture[str], new_yaml: str
) -> None:
    plan.run(options(file=new_yaml, rate=200.0), cluster(STRICT), Screen())

    assert "at 200 requests a second: step 1 sees" in capsys.readouterr().out


def test_a_deployment_that_nothing_holds_is_said_to_roll_at_once(tmp_path: Path) -> None:
    other = deployment(NEW) | {"metadata": {"name": "other", "namespace": "shop"}}
    path = tmp_path / "other.yaml"
    path.write_text(yaml.safe_dump(other))

    with pytest.raises(Failure, match="it would roll at once"):
        plan.run(options(file=str(path)), cluster(), Screen())


def test_a_file_that_names_its_namespace_is_planned_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, new_yaml: str
) -> None:
    monkeypatch.setattr(MemoryCluster, "namespace", lambda _: "default")

    assert plan.run(options(file=new_yaml, namespace=""), cluster(), Screen()) == 0
    assert "Plan for a change of Canary shop/checkout" in capsys.readouterr().out
    with pytest.raises(Failure, match=r"metadata\.namespace: found shop, and -n says another one"):
        plan.run(options(file=new_yaml, namespace="default"), cluster(), Screen())


def test_a_plan_says_what_its_steps_see_with_the_canarys_own_traffic() -> None:
    noise = "assumed: no counter of a pod of stable was found by the template pods"
    outlook = Outlook(at=NOON, rate=200.0, ratio=0.001, relief=15.0, noise_from=noise)
    known = cluster(**{f"{API}/namespaces/shop/canaries/checkout": canary(outlook=outlook)})
    out = io.StringIO()

    assert plan.run(options(name="checkout"), known, Screen(out)) == 0

    text = out.getvalue()
    assert "at 200 requests a second, 0.1 % of them failing: step 1 (10%) sees failures from" in text
    assert "noise of pods: assumed" in text
    assert "this source scrapes every 15 s" in text


SETTINGS = "/api/v1/namespaces/shop/configmaps"


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"kind": "ConfigMap", "metadata": {"name": name, "namespace": "shop"}, "data": data}


def reading(name: str) -> dict[str, Any]:
    """A template whose pods read this ConfigMap."""
    volumes = [{"name": "settings", "configMap": {"name": name}}]
    return {"metadata": OLD["metadata"], "spec": {**OLD["spec"], "volumes": volumes}}


def planned_with(tmp_path: Path, template: dict[str, Any], *bodies: dict[str, Any], **stored: Any) -> None:
    """Plan a file with this template and these objects, where stable reads settings-1."""
    stable = Stable("uid-1", "h1", "old", plain_template(reading("settings-1")), ("shop@sha256:1",))
    there = canary(stable=msgspec.structs.replace(stable, uses=("ConfigMap/settings-1",)))
    path = tmp_path / "new.yaml"
    path.write_text(yaml.safe_dump_all([deployment(template), *bodies]))
    plan.run(
        options(file=str(path)), cluster(**{f"{API}/namespaces/shop/canaries/checkout": there, **stored}), Screen()
    )


def test_a_new_config_map_is_compared_by_its_keys_with_the_one_it_replaces(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    old = config_map("settings-1", level="info", rules="a: 1\n" * 10)
    new = config_map("settings-2", level="s3cret", rules="a: 1\n" * 20)

    planned_with(tmp_path, reading("settings-2"), new, **{f"{SETTINGS}/settings-1": old})

    told = capsys.readouterr().out
    assert "config: ConfigMap settings-2 instead of settings-1: changes level, rules, 1.8 times as large" in told
    assert "touches config: template.spec.volumes[settings].configMap.name" in told
    assert "s3cret" not in told


def test_an_edit_in_place_is_told_as_what_no_plan_can_hold(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    old, edited = config_map("settings-1", level="info"), config_map("settings-1", level="debug")

    planned_with(tmp_path, reading("settings-1"), edited, **{f"{SETTINGS}/settings-1": old})

    assert "ConfigMap settings-1 is edited in place (changes level): every pod" in capsys.readouterr().out


def test_a_config_map_that_is_named_and_nowhere_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    planned_with(tmp_path, reading("settings-2"))

    assert "ConfigMap settings-2 is neither in the file nor in the cluster" in capsys.readouterr().out
