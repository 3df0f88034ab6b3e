"""`kubectl canary` on a real API server: what people may decide, and detach with no controller there.

No controller runs here: what it would write is put into the status by hand, so that each test knows what it sees.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import SERIN, write_kubeconfig
from tests.cluster.conftest import MakeShop, RunningCluster, Shop
from tests.cluster.objects import CommandFailed, Object, apply, eventually, get, kubectl, may, refusal, state_dir

ROOT = Path(__file__).resolve().parents[2]
ATTEMPT = "a-1"


@pytest.fixture(scope="module", autouse=True)
def installed(cluster: RunningCluster) -> None:
    """CRDs, admission and people's roles, as the chart installs them."""
    for folder in ("manifests/crd", "manifests/admission", "manifests/rbac/people.yaml"):
        kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / folder))
    kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=180s")
    forged = decision("default", "nobody") | {"metadata": {"name": "forged", "namespace": "default"}}
    # Admission is in force a moment after it was written.
    eventually(lambda: "spec.by must be you" in refusal("create", "--dry-run=server", "-f", "-", stdin=forged))


def plugin(*words: str, user: str = "", groups: Iterable[str] = ()) -> "subprocess.CompletedProcess[str]":
    """`kubectl canary` as a person runs it."""
    env = dict(os.environ)
    if user:
        env["KUBECONFIG"] = str(write_kubeconfig(state_dir(), user, groups))
    command = [sys.executable, "-m", "controller.cli.main", *words]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT, check=False, timeout=180)


def grant(namespace: str, user: str, *verbs: str) -> None:
    """These verbs on the Canary `shop`, what it takes to look, and to write decisions."""
    rules = [
        {"apiGroups": ["serin.dev"], "resources": ["canaries"], "resourceNames": ["shop"], "verbs": list(verbs)},
        {"apiGroups": ["serin.dev"], "resources": ["canaries"], "verbs": ["get"]},
        {"apiGroups": ["serin.dev"], "resources": ["decisions"], "verbs": ["create", "update", "get"]},
    ]
    api = "rbac.authorization.k8s.io"
    subject = {"kind": "User", "name": user, "apiGroup": api}
    reference = {"kind": "Role", "name": user, "apiGroup": api}
    meta = {"name": user, "namespace": namespace}
    apply(
        [
            {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": meta, "rules": rules},
            {
                "apiVersion": f"{api}/v1",
                "kind": "RoleBinding",
                "metadata": meta,
                "subjects": [subject],
                "roleRef": reference,
            },
        ]
    )
    eventually(lambda: may(user, "get", "canaries.serin.dev", "-n", namespace))


def under_way(namespace: str, **status: Any) -> Object:
    """A Canary at its first step of 5 %, whose way out is a gate."""
    apply(
        [
            {
                "apiVersion": "serin.dev/v1alpha1",
                "kind": "Canary",
                "metadata": {"name": "shop", "namespace": namespace},
                "spec": {
                    "targetRef": {"kind": "Deployment", "name": "shop"},
                    "traffic": {"service": {"name": "shop", "port": 80}, "httpRoute": {"name": "shop"}},
                },
            }
        ]
    )
    at = "2026-11-21T12:00:00Z"
    body = {
        "observedGeneration": 1,
        "phase": "Progressing",
        "reason": "AwaitingApproval",
        "weight": 5.0,
        "attempt": {
            "id": ATTEMPT,
            "templateHash": "2",
            "startedAt": at,
            "plan": [{"weight": 5.0, "bake": 1.0, "approval": True}],
            "gates": [{"step": 1}],
            "images": ["registry.local/shop:v2"],
        },
    } | status
    patch = json.dumps({"status": body})
    as_serin = (f"--as={SERIN}", "--as-group=system:masters")
    kubectl("patch", "canary", "shop", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch, *as_serin)
    return get("canary", "shop", namespace)


def decision(namespace: str, user: str, **spec: Any) -> Object:
    usual = {"canary": "shop", "decision": "Abort", "by": user, "attempt": ATTEMPT, "reason": "orders missing"}
    return {
        "apiVersion": "serin.dev/v1alpha1",
        "kind": "Decision",
        "metadata": {"generateName": "shop-abort-", "namespace": namespace},
        "spec": usual | spec,
    }


def test_status_works_with_the_right_to_get_and_says_what_may_not_be_read(namespace: str) -> None:
    under_way(namespace)
    grant(namespace, "bob", "get")

    seen = plugin("status", "shop", "-n", namespace, "--fail-on-wait", user="bob")

    assert seen.returncode == 4, seen.stderr
    assert seen.stdout.startswith("WAITING 5% (step 1/1) - ")
    assert "you may not read it" in seen.stdout
    assert json.loads(plugin("status", "shop", "-n", namespace, "-o", "json").stdout)["phase"] == "Progressing"


def test_a_canary_that_is_not_there_is_an_error_that_says_where_to_look(namespace: str) -> None:
    seen = plugin("status", "nothing", "-n", namespace)

    assert seen.returncode == 1
    assert f'no Canary "nothing" in namespace "{namespace}"' in seen.stderr


def test_an_approval_carries_the_name_of_who_gave_it_and_the_step_it_opens(namespace: str) -> None:
    under_way(namespace)
    grant(namespace, "alice", "approve")

    said = plugin("approve", "shop", "-n", namespace, "--reason", "looks right", user="alice")

    assert said.returncode == 0, said.stderr
    (written,) = get("decisions", namespace=namespace)["items"]
    assert written["spec"]["by"] == "alice"
    assert (written["spec"]["decision"], written["spec"]["attempt"], written["spec"]["step"]) == ("Approve", ATTEMPT, 1)


def test_a_right_to_abort_is_no_right_to_approve(namespace: str) -> None:
    under_way(namespace)
    grant(namespace, "carol", "abort")

    refused = plugin("approve", "shop", "-n", namespace, "--reason", "please", user="carol")

    assert refused.returncode == 1
    assert "you need the verb approve on canaries.serin.dev shop" in refused.stderr
    assert plugin("abort", "shop", "-n", namespace, "--reason", "orders missing", user="carol").returncode == 0


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        pytest.param({"by": "root"}, "spec.by must be you (mallory), not root", id="somebody else's name"),
        pytest.param({"decision": "Promote"}, "you need the verb promote", id="a verb not granted"),
        pytest.param({"canary": "billing"}, "on canaries.serin.dev billing", id="a canary not granted"),
        pytest.param({"attempt": ""}, "name the Canary and the attempt this is about", id="no attempt"),
        pytest.param({"reason": "   "}, "spec.reason: write why", id="no reason"),
        pytest.param({"reason": "x" * 1025}, "spec.reason", id="a reason too long to keep"),
        pytest.param({"decision": "Approve"}, "an Approve names its step", id="an approval of everything"),
        pytest.param({"decision": "abort"}, "spec.decision", id="a verb in other letters"),
    ],
)
def test_a_forged_decision_is_refused_and_says_why(namespace: str, spec: Object, complaint: str) -> None:
    under_way(namespace)
    grant(namespace, "mallory", "abort", "approve")

    def refused() -> bool:
        """The policy is in force a moment after it was applied."""
        with pytest.raises(CommandFailed) as failure:
            kubectl("create", "-f", "-", stdin=decision(namespace, "mallory", **spec), user="mallory")
        return complaint in str(failure.value)

    assert eventually(refused), complaint


def test_a_service_account_cannot_decide_whatever_its_rights(namespace: str) -> None:
    under_way(namespace)
    robot = f"system:serviceaccount:{namespace}:default"
    body = decision(namespace, robot)

    with pytest.raises(CommandFailed, match="a service account cannot decide"):
        kubectl("create", "-f", "-", "--as", robot, "--as-group=system:masters", stdin=body)


def test_a_decision_cannot_be_changed_afterwards(namespace: str) -> None:
    under_way(namespace)
    grant(namespace, "dave", "abort", "promote")
    name = kubectl("create", "-f", "-", "-o", "name", stdin=decision(namespace, "dave"), user="dave").strip()

    patch = '{"spec":{"decision":"Promote"}}'
    with pytest.raises(CommandFailed, match="a Decision cannot be changed"):
        kubectl("patch", name, "-n", namespace, "--type=merge", "-p", patch)


def test_detach_leaves_route_service_and_deployment_as_their_owner_wrote_them(namespace: str, shop: MakeShop) -> None:
    made: Shop = shop("v1")
    target, route = get("deployment", "shop", namespace), get("httproute", "shop", namespace)
    stable_hash = get("replicaset", namespace=namespace)["items"][0]["metadata"]["labels"]["pod-template-hash"]
    stable = {"uid": target["metadata"]["uid"], "hash": stable_hash, "templateHash": "1"}
    owner = under_way(namespace, holding=True, stable=stable | {"template": target["spec"]["template"]})
    _as_the_controller_left_it(namespace, owner, stable_hash, made.name)

    seen = plugin("detach", "shop", "-n", namespace, "--yes")

    assert seen.returncode == 0, seen.stdout + seen.stderr
    after = get("deployment", "shop", namespace)
    assert after["spec"]["template"] == target["spec"]["template"]
    assert not after["spec"].get("paused")
    assert get("httproute", "shop", namespace)["spec"] == route["spec"]
    assert get("service", "shop", namespace)["spec"]["selector"] == {"app": "shop"}
    assert made.serves("v1")
    assert "No Canary" in plugin("detach", "shop", "-n", namespace, "--yes").stdout
    with pytest.raises(CommandFailed, match="NotFound"):
        get("deployment", "shop-canary", namespace)


def _as_the_controller_left_it(namespace: str, owner: Object, stable_hash: str, name: str) -> None:
    """A held edit, a pinned Service, a canary Deployment and a finalizer; then the controller is gone."""

    def patch(kind: str, body: Object) -> None:
        kubectl("patch", kind, name, "-n", namespace, "--type=merge", "--field-manager=serin", "-p", json.dumps(body))

    patch("canary", {"metadata": {"finalizers": ["serin.dev/release"]}})
    container = {"name": "app", "image": "registry.local/shop:v2"}
    edit = {"spec": {"paused": True, "template": {"spec": {"containers": [container]}}}}
    words = ("patch", "deployment", name, "-n", namespace, "--type=strategic", "-p", json.dumps(edit))
    kubectl(*words)
    patch(
        "service",
        {
            "metadata": {"annotations": {"serin.dev/pinned": f"shop/{stable_hash}"}},
            "spec": {"selector": {"pod-template-hash": stable_hash}},
        },
    )
    trial = get("deployment", name, namespace)
    labels = {"app": name, "serin.dev/canary": ATTEMPT}
    template = trial["spec"]["template"] | {"metadata": {"labels": labels}}
    reference = {
        "apiVersion": "serin.dev/v1alpha1",
        "kind": "Canary",
        "name": "shop",
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }
    meta = {"name": f"{name}-canary", "namespace": namespace, "ownerReferences": [reference]}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    apply([{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}])
