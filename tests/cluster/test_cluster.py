"""The local cluster keeps the promises that the other cluster tests rest on."""

import asyncio
import base64
import json
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from tests.cluster.conftest import MakeShop, RunningCluster, Shop
from tests.cluster.load import Load, run_for
from tests.cluster.objects import (
    CommandFailed,
    Object,
    apply,
    eventually,
    get,
    namespace_object,
    shop_deployment,
    shop_route,
    shop_service,
)

Kubectl = Callable[..., str]


def ask_prometheus(query: str) -> list[Object]:
    url = f"{os.environ['SERIN_PROMETHEUS']}/api/v1/query?{urlencode({'query': query})}"
    with urlopen(url, timeout=5) as answer:
        return list(json.load(answer)["data"]["result"])


def value(query: str) -> float:
    """The one value of a query that has an answer."""
    (only,) = ask_prometheus(query)
    return float(only["value"][1])


def alive(pod: Object) -> bool:
    return "deletionTimestamp" not in pod["metadata"]


def pod_statuses(namespace: str, selector: str = "") -> list[Object]:
    return [item["status"] for item in get("pods", namespace=namespace, selector=selector)["items"]]


def waiting_reasons(namespace: str, selector: str = "") -> set[str]:
    return {
        container["state"]["waiting"]["reason"]
        for status in pod_statuses(namespace, selector)
        for container in status.get("containerStatuses", [])
        if "waiting" in container["state"]
    }


def job(name: str, namespace: str, script: str) -> Object:
    container = {"name": "main", "image": "registry.local/shell:1", "args": ["-c", script]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"backoffLimit": 0, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
    }


def test_a_rolling_update_under_load_loses_no_request(shop: MakeShop, cluster: RunningCluster) -> None:
    made = shop("v1", replicas=3)

    async def roll() -> Load:
        async with Load(cluster.gateway, made.host, rate=100) as load:
            await asyncio.sleep(0.5)
            await asyncio.to_thread(apply, [shop_deployment(made.name, made.namespace, "v2", 3)])
            await asyncio.to_thread(eventually, lambda: {a.revision for a in load.report.answers[-30:]} == {"v2"})
            await asyncio.sleep(2)
        return load

    report = asyncio.run(asyncio.wait_for(roll(), 300)).report

    assert set(report.per_revision()) == {"v1", "v2"}
    assert report.lost() == []


def test_a_pod_that_is_never_ready_gets_no_traffic(shop: MakeShop) -> None:
    made = shop("v1", replicas=1)

    apply([shop_deployment(made.name, made.namespace, "v2", 1, {"SHOP_NEVER_READY": "1"})])

    def new_pod_runs() -> bool:
        return any("v2" in s["containerStatuses"][0]["image"] for s in pod_statuses(made.namespace) if s.get("podIP"))

    eventually(new_pod_runs)
    assert {made.ask() for _ in range(30)} == {(200, "v1")}


def test_a_pod_serves_on_through_its_pre_stop_delay(shop: MakeShop, kubectl: Kubectl) -> None:
    made = shop("v1", replicas=1)
    # Time to ask it, and more to end than it takes.
    patient = shop_deployment(made.name, made.namespace, "v1", 1, pre_stop=15)
    patient["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 300
    apply([patient])
    kubectl("rollout", "status", "deployment/shop", "--timeout=180s")
    (pod,) = [one for one in get("pods", namespace=made.namespace)["items"] if alive(one)]
    address = f"http://{pod['status']['podIP']}:8080/"

    began = time.monotonic()
    kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")
    with urlopen(address, timeout=10) as answer:
        assert answer.status == 200
    kubectl("wait", "--for=delete", f"pod/{pod['metadata']['name']}", "--timeout=180s")

    # Of its own accord, and not by its grace period.
    assert 15 <= time.monotonic() - began < 300


def test_a_container_that_exits_again_and_again_is_in_crash_loop(namespace: str) -> None:
    apply([shop_deployment("shop", namespace, "v1", 1, {"SHOP_CRASH": "1"})])

    eventually(lambda: "CrashLoopBackOff" in waiting_reasons(namespace))

    (status,) = pod_statuses(namespace)
    assert status["containerStatuses"][0]["restartCount"] >= 1
    assert status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 1


def test_an_image_that_nobody_has_cannot_be_pulled(namespace: str) -> None:
    deployment = shop_deployment("shop", namespace, "v1", 1)
    deployment["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.local/typo:v1"

    apply([deployment])

    eventually(lambda: waiting_reasons(namespace) == {"ImagePullBackOff"})


@pytest.mark.parametrize(("script", "condition"), [("exit 0", "complete"), ("exit 3", "failed")])
def test_a_job_ends_as_its_command_did(namespace: str, kubectl: Kubectl, script: str, condition: str) -> None:
    apply([job("once", namespace, script)])

    kubectl("wait", f"--for=condition={condition}", "job/once", "--timeout=180s")


def test_a_pod_finds_a_token_that_the_api_server_accepts_as_its_service_account(
    namespace: str, kubectl: Kubectl, cluster: RunningCluster
) -> None:
    folder = "/var/run/secrets/kubernetes.io/serviceaccount"
    script = (
        f"kubectl --kubeconfig=/dev/null --server=https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT "
        f"--certificate-authority={folder}/ca.crt --token=$(cat {folder}/token) auth whoami -o json"
    )

    apply([job("who", namespace, script)])
    kubectl("wait", "--for=condition=complete", "job/who", "--timeout=180s")

    (log,) = (cluster.state / "pods" / namespace).glob("who-*/main.log")
    assert f"system:serviceaccount:{namespace}:default" in log.read_text()


def test_route_weights_split_the_traffic(shop: MakeShop, cluster: RunningCluster) -> None:
    made = shop("v1", replicas=1)
    other = Shop(made.namespace, "other", f"other.{made.namespace}.example")
    apply([shop_deployment("other", made.namespace, "v2", 1), shop_service("other", made.namespace)])
    apply([shop_route("other", made.namespace, other.host)])
    eventually(lambda: other.serves("v2"))

    apply([shop_route(made.name, made.namespace, made.host, {"shop": 80, "other": 20})])
    eventually(lambda: "v2" in {made.ask()[1] for _ in range(30)})
    report = asyncio.run(run_for(5, Load(cluster.gateway, made.host, rate=200)))

    seen: Counter[str] = report.per_revision()
    assert report.lost() == []
    # 200 of 1,000 expected, standard deviation 12.6: six of them to each side.
    assert 0.12 < seen["v2"] / seen.total() < 0.28


def test_prometheus_sees_requests_at_the_gateway_and_at_the_pods(shop: MakeShop) -> None:
    made = shop("v1", replicas=1)
    at_gateway = (
        f'envoy_cluster_upstream_rq_xx{{envoy_cluster_name="{made.namespace}_shop_80",envoy_response_code_class="2"}}'
    )
    at_pods = f'sum(http_requests_total{{namespace="{made.namespace}",app="shop",code="200"}})'
    eventually(lambda: value(at_gateway) > 0 and value(at_pods) > 0)
    before = value(at_gateway), value(at_pods)

    for _ in range(20):
        made.ask()

    eventually(lambda: value(at_gateway) - before[0] == 20 and value(at_pods) - before[1] == 20)


def test_a_mutating_policy_is_in_force(namespace: str, kubectl: Kubectl) -> None:
    name = f"mark-{namespace}"
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]
    expression = 'Object{metadata: Object.metadata{labels: {"seen": "yes"}}}'
    admission = "admissionregistration.k8s.io/v1"
    apply(
        [
            {
                "apiVersion": admission,
                "kind": "MutatingAdmissionPolicy",
                "metadata": {"name": name},
                "spec": {
                    "reinvocationPolicy": "Never",
                    "matchConstraints": {
                        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                        "resourceRules": rules,
                    },
                    "mutations": [
                        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}
                    ],
                },
            },
            {
                "apiVersion": admission,
                "kind": "MutatingAdmissionPolicyBinding",
                "metadata": {"name": name},
                "spec": {"policyName": name},
            },
        ]
    )

    def marked() -> bool:
        made = kubectl("create", "configmap", "probe", "--dry-run=server", "-o", "json")
        return json.loads(made)["metadata"].get("labels", {}).get("seen") == "yes"

    try:
        eventually(marked)
    finally:
        kubectl("delete", "mutatingadmissionpolicy,mutatingadmissionpolicybinding", name)


def test_a_person_with_a_client_certificate_may_only_do_what_a_role_allows(namespace: str, kubectl: Kubectl) -> None:
    with pytest.raises(CommandFailed, match='User "alice" cannot list'):
        kubectl("get", "pods", user="alice", groups=["sre"])

    kubectl("create", "rolebinding", "sre", "--clusterrole=view", "--group=sre")

    eventually(lambda: kubectl("get", "pods", "-o", "name", user="alice", groups=["sre"]) == "")


def test_pods_marked_as_without_process_are_ready_by_the_hundred(namespace: str, kubectl: Kubectl) -> None:
    apply([namespace_object(namespace, {"tests.serin.dev/no-process": "true"})])
    apply([shop_deployment("many", namespace, "v1", 120)])

    kubectl("rollout", "status", "deployment/many", "--timeout=180s")

    assert len(get("endpointslices", namespace=namespace)["items"]) == 0
    kubectl("scale", "deployment/many", "--replicas=0")
    eventually(lambda: not get("pods", namespace=namespace)["items"])


def test_writes_are_in_the_audit_log_with_their_user(namespace: str, kubectl: Kubectl, cluster: RunningCluster) -> None:
    kubectl("create", "configmap", "audited")

    def logged() -> bool:
        lines = map(json.loads, (cluster.state / "audit.log").read_text().splitlines())
        return any(
            line.get("objectRef", {}).get("name") == "audited" and line["user"]["username"] == "admin" for line in lines
        )

    eventually(logged)


def test_the_token_is_bound_to_the_pod(namespace: str, kubectl: Kubectl, cluster: RunningCluster) -> None:
    apply([shop_deployment("shop", namespace, "v1", 1)])
    kubectl("rollout", "status", "deployment/shop", "--timeout=180s")

    (token,) = Path(cluster.state / "pods" / namespace).glob("shop-*/token/token")
    payload = token.read_text().split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))

    assert claims["kubernetes.io"]["pod"]["name"] == token.parent.parent.name
