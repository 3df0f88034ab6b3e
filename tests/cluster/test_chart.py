"""The chart with the real Helm, on a cluster that has no Serin yet: rendered, installed, upgraded and removed.

It wants a cluster of its own, because it brings and takes away what other stories need all the time:
`python -m tests.cluster run -- python -m pytest tests/cluster/test_chart.py`.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.conftest import MakeShop
from tests.cluster.objects import CommandFailed, apply, eventually, kubectl, shop_deployment, state_dir
from tests.cluster.serin import Story, canary_object, label_without_processes, start_shop, step

ROOT = Path(__file__).parents[2]
CHART = str(ROOT / "charts" / "serin")
SOURCE = ("--set", "metrics.url=http://prometheus.example:9090", "--set", "metrics.scrapeInterval=1s")
# What was called 0.1.0 before the changes of "Unreleased".
PREVIOUS = "441b43c"
# On every object of the chart; the manifests carry the first two only where something selects by them.
CHART_LABELS = (
    "app.kubernetes.io/name",
    "app.kubernetes.io/component",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
)


def run(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def read(*what: str) -> dict[str, Any]:
    return json.loads(run("kubectl", "get", *what, "-o", "json"))


def exists(*what: str) -> bool:
    return bool(run("kubectl", "get", *what, "--ignore-not-found", "-o", "name").strip())


def documents(text: str) -> list[dict[str, Any]]:
    return [item for item in yaml.safe_load_all(text) if item]


def _plain(item: dict[str, Any]) -> dict[str, Any]:
    """The object without what only a chart has: labels of the release, and the word that keeps a CRD."""
    metadata = item["metadata"]
    labels = {key: value for key, value in metadata.get("labels", {}).items() if key not in CHART_LABELS}
    annotations = {
        key: value for key, value in metadata.get("annotations", {}).items() if key != "helm.sh/resource-policy"
    }
    rest = {key: value for key, value in metadata.items() if key not in ("labels", "annotations")}
    extra = {key: value for key, value in (("labels", labels), ("annotations", annotations)) if value}
    return item | {"metadata": rest | extra}


def by_name(items: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {f"{item['kind']}/{item['metadata']['name']}": _plain(item) for item in items}


def rendered(*options: str) -> list[dict[str, Any]]:
    """As for a cluster that has what this one has: without one to ask, Helm knows what its own libraries know."""
    offered = ("--api-versions", "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy")
    return documents(run("helm", "template", "serin", CHART, "-n", "serin-system", *offered, *options))


@pytest.fixture
def bare_cluster() -> Iterator[None]:
    """A cluster without Serin, before and after."""
    if "KUBECONFIG" not in os.environ:
        pytest.fail("run inside the local cluster: python -m tests.cluster run -- python -m pytest tests/cluster")
    if exists("crd", "canaries.serin.dev"):
        pytest.skip("Serin is installed here, and this test removes it: give it a cluster of its own")
    yield
    run("helm", "uninstall", "serin", "-n", "serin-system", "--no-hooks", "--ignore-not-found", check=False)
    remove_kinds()
    run("kubectl", "delete", "namespace", "serin-system", "--ignore-not-found")


def remove_kinds() -> None:
    """One kind after the other, and again while one is not gone.

    The API server makes the storage of all kinds anew when one goes; a kind whose turn falls into that moment stays
    as "terminating" until something about it changes.
    """

    def gone() -> bool:
        left = [name for name in run("kubectl", "get", "crd", "-o", "name").split() if name.endswith(".serin.dev")]
        for name in left[:1]:
            run("kubectl", "annotate", name, f"tests.serin.dev/again={time.monotonic()}", "--overwrite", check=False)
            run("kubectl", "delete", name, "--timeout=5s", check=False)
        return not left

    eventually(gone, within=120)


@pytest.fixture
def previous() -> Path:
    """Chart and controller as they were released before, from the history of this checkout."""
    folder = ROOT / "build" / "previous"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    packed = subprocess.run(
        ["git", "archive", PREVIOUS, "controller", "charts"], cwd=ROOT, capture_output=True, check=False
    )
    if packed.returncode:
        pytest.skip(f"the history of this checkout has no {PREVIOUS}: fetch all of it (git fetch --unshallow)")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder / "charts" / "serin"


def install(*options: str) -> str:
    return run("helm", "install", "serin", CHART, "-n", "serin-system", "--create-namespace", *options)


def test_chart_and_kustomization_install_the_same_objects() -> None:
    chart = by_name([item for item in rendered() if "helm.sh/hook" not in item["metadata"].get("annotations", {})])
    applied = by_name(documents(run("kubectl", "kustomize", str(ROOT / "manifests"))))

    # Helm makes the namespace itself (--create-namespace).
    assert applied.pop("Namespace/serin-system")
    assert chart == applied


def test_the_service_account_that_admission_exempts_is_the_one_of_the_release() -> None:
    text = run("helm", "template", "serin", CHART, "-n", "elsewhere")

    assert "serin-system" not in text
    assert "system:serviceaccount:elsewhere:serin-controller" in text


def test_how_long_records_stay_and_who_is_an_agent_are_values() -> None:
    chart = rendered("--set", "records.retentionDays=7", "--set", "protection.agents={bots}")
    variables = {
        (item["metadata"]["name"], one["name"]): one["expression"]
        for item in chart
        if item["kind"] == "ValidatingAdmissionPolicy"
        for one in item["spec"].get("variables", ())
    }

    assert variables["serin-records-kept", "retention"] == "duration('168h')"
    assert {variables[name, "agents"] for name in ("serin-destructive", "serin-protected")} == {"['bots']"}


def test_writing_can_be_confined_to_namespaces() -> None:
    chart = rendered("--set", "rbac.namespaces={shop,payments}")
    bindings = [item for item in chart if item.get("roleRef", {}).get("name") == "serin-controller-workloads"]

    assert {(item["kind"], item["metadata"].get("namespace")) for item in bindings} == {
        ("RoleBinding", "shop"),
        ("RoleBinding", "payments"),
    }


def test_an_older_cluster_gets_no_kind_that_it_has_not() -> None:
    text = run("helm", "template", "serin", CHART, "-n", "serin-system", "--kube-version", "1.31.0")

    assert "kind: MutatingAdmissionPolicy" not in text
    assert "kind: ValidatingAdmissionPolicy" in text


def test_a_serin_for_one_namespace_has_rights_nowhere_else(bare_cluster: None) -> None:
    run("kubectl", "create", "namespace", "shop")
    try:
        install("--set", "rbac.onlyNamespace=shop", "--wait", "--timeout", "60s")
        controller = "--as=system:serviceaccount:serin-system:serin-controller"

        def may(*what: str) -> bool:
            return run("kubectl", "auth", "can-i", *what, controller, check=False).strip() == "yes"

        for verb, what in (("patch", "canaries.serin.dev"), ("create", "deployments.apps"), ("list", "pods")):
            assert may(verb, what, "-n", "shop")
            assert not may(verb, what, "-n", "default")
            assert not may(verb, what, "-A")
        # Asked about the whole cluster, and about nothing that a namespace holds.
        assert may("create", "subjectaccessreviews.authorization.k8s.io")
        assert may("watch", "metricssources.serin.dev")
        eventually(lambda: exists("lease", "serin-controller", "-n", "serin-system"))
    finally:
        run("kubectl", "delete", "namespace", "shop", "--wait=false")


def test_in_its_own_namespace_a_serin_for_one_namespace_has_no_two_objects_of_one_name() -> None:
    chart = rendered("--set", "rbac.onlyNamespace=serin-system")
    names = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in chart]

    assert sorted(names, key=str) == sorted(set(names), key=str)


def test_the_network_lets_probes_and_scrapes_in_and_nothing_out_to_where_clouds_keep_credentials() -> None:
    (policy,) = [one for one in rendered() if one["kind"] == "NetworkPolicy"]
    (errand,) = [one for one in rendered() if one["kind"] == "Job"]
    open_to = [rule["to"] for rule in policy["spec"]["egress"] if "to" in rule]
    everywhere = [rule for rule in policy["spec"]["egress"] if "to" not in rule]

    assert [rule["ports"] for rule in policy["spec"]["ingress"]] == [[{"port": 8080}], [{"port": 8081}]]
    assert [block["ipBlock"]["except"] for to in open_to for block in to] == [["169.254.0.0/16"], ["fe80::/10"]]
    assert [{port["port"] for port in rule["ports"]} for rule in everywhere] == [{53}]
    assert (
        policy["spec"]["podSelector"]["matchLabels"].items() <= errand["spec"]["template"]["metadata"]["labels"].items()
    )


def test_network_rules_of_ones_own_replace_those_of_the_chart() -> None:
    own = json.dumps([{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}])
    (policy,) = [one for one in rendered("--set-json", f"networkPolicy.egress={own}") if one["kind"] == "NetworkPolicy"]

    assert policy["spec"]["egress"] == json.loads(own)
    assert not [one for one in rendered("--set", "networkPolicy.enabled=false") if one["kind"] == "NetworkPolicy"]


def test_what_the_prometheus_operator_and_grafana_read_comes_when_asked_for() -> None:
    asked = [f"observability.{what}.enabled=true" for what in ("serviceMonitor", "rules", "dashboard")]
    labels = ("observability.serviceMonitor.labels.release=prom", "observability.rules.labels.release=prom")
    chart = by_name(rendered("--set", ",".join([*asked, *labels])))
    plain = by_name(rendered())

    added = chart.keys() - plain.keys()
    assert added == {
        "Service/serin-controller-metrics",
        "ServiceMonitor/serin-controller",
        "PrometheusRule/serin-controller",
        "ConfigMap/serin-dashboard",
    }
    for name in ("ServiceMonitor/serin-controller", "PrometheusRule/serin-controller"):
        assert chart[name]["metadata"]["labels"]["release"] == "prom"
    assert chart["ServiceMonitor/serin-controller"]["spec"]["endpoints"][0]["honorLabels"] is True
    assert json.loads(chart["ConfigMap/serin-dashboard"]["data"]["serin.json"])["title"] == "Serin"


def test_traces_and_debug_are_off_and_go_to_the_process_when_asked_for() -> None:
    def container(*options: str) -> dict[str, Any]:
        (deployment,) = [one for one in rendered(*options) if one["kind"] == "Deployment"]
        return dict(deployment["spec"]["template"]["spec"]["containers"][0])

    plain = container()
    asked = container("--set", "observability.traces.endpoint=http://collector:4318,observability.debugPort=8899")

    assert not [arg for arg in plain["args"] if "debug" in arg or "traces" in arg]
    assert {"--traces", "--debug-port=8899"} <= set(asked["args"])
    assert {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector:4318"} in asked["env"]


@pytest.mark.parametrize(
    "setting",
    [
        "replica=3",
        "image.name=x",
        "metrics.url=prometheus:9090",
        "replicas=0",
        "hold.failurePolicy=Fail",
        "observability.debugPort=8080",
        "rbac.onlyNamespace=Shop",
    ],
)
def test_a_value_that_is_unknown_or_cannot_work_is_refused(setting: str) -> None:
    done = subprocess.run(["helm", "template", CHART, "--set", setting], capture_output=True, text=True, check=False)

    assert done.returncode != 0
    assert "specifications of the schema" in done.stderr


def test_a_fresh_cluster_gets_kinds_and_the_default_source_in_one_install(bare_cluster: None) -> None:
    notes = install(*SOURCE)

    source = read("metricssource", "default")
    assert source["spec"]["url"] == "http://prometheus.example:9090"
    assert source["spec"]["scrapeInterval"] == "1s"
    assert "kubectl canary status" in notes

    run("helm", "upgrade", "serin", CHART, "-n", "serin-system", *SOURCE, "--set", "metrics.scrapeInterval=5s")
    assert read("metricssource", "default")["spec"]["scrapeInterval"] == "5s"


def test_without_an_address_there_is_no_source_and_the_notes_say_how_to_name_one(bare_cluster: None) -> None:
    notes = install()

    assert not exists("metricssource", "default")
    assert "--set metrics.url=" in notes


def test_an_upgrade_brings_the_kinds_of_the_chart_back_to_what_it_holds(bare_cluster: None) -> None:
    install()
    run("kubectl", "patch", "crd", "canaries.serin.dev", "--type=json", "-p",
        '[{"op": "replace", "path": "/spec/names/shortNames", "value": ["old"]}]')  # fmt: skip

    run("helm", "upgrade", "serin", CHART, "-n", "serin-system", "--force-conflicts")

    assert read("crd", "canaries.serin.dev")["spec"]["names"]["shortNames"] == ["cn"]


def test_the_controller_leads_under_restricted_pod_security_with_the_rights_it_has(bare_cluster: None) -> None:
    run("kubectl", "create", "namespace", "serin-system")
    run("kubectl", "label", "namespace", "serin-system", "pod-security.kubernetes.io/enforce=restricted")

    install(*SOURCE, "--wait", "--timeout", "60s")
    eventually(lambda: exists("lease", "serin-controller", "-n", "serin-system"))

    assert read("deployment", "serin-controller", "-n", "serin-system")["status"]["readyReplicas"] == 2
    names = [pod["metadata"]["name"] for pod in read("pods", "-n", "serin-system")["items"]]
    logs = [state_dir() / "pods" / "serin-system" / name / "controller.log" for name in names]
    assert len(logs) == 2
    assert [line for log in logs for line in log.read_text().splitlines() if "forbidden" in line] == []


def test_the_controller_may_do_what_it_needs_and_not_read_a_secret(bare_cluster: None) -> None:
    install()
    controller = "--as=system:serviceaccount:serin-system:serin-controller"

    def may(*what: str) -> bool:
        return run("kubectl", "auth", "can-i", *what, controller, check=False).strip() == "yes"

    assert may("patch", "httproutes.gateway.networking.k8s.io", "-n", "shop")
    assert may("create", "deployments.apps", "-n", "shop")
    assert may("patch", "canaries.serin.dev", "--subresource=status", "-n", "shop")
    assert may("get", "secrets", "-n", "serin-system")
    assert not may("get", "secrets", "-n", "shop")
    assert not may("list", "secrets", "-n", "serin-system")
    assert may("watch", "leases.coordination.k8s.io/serin-controller", "-n", "serin-system")
    assert not may("patch", "leases.coordination.k8s.io/serin-controller", "-n", "shop")
    assert not may("delete", "releaserecords.serin.dev", "-n", "shop")
    assert not may("create", "decisions.serin.dev", "-n", "shop")
    assert not may("create", "pods", "-n", "shop")


def test_the_kustomization_alone_brings_a_controller_that_leads(bare_cluster: None) -> None:
    run("kubectl", "apply", "-k", str(ROOT / "manifests"))
    try:
        run("kubectl", "rollout", "status", "deployment/serin-controller", "-n", "serin-system", "--timeout=60s")
        run("kubectl", "create", "namespace", "shop")
        for name in ("canary", "full", "metricssource"):
            run("kubectl", "create", "--dry-run=server", "-f", str(ROOT / "manifests" / "examples" / f"{name}.yaml"))
    finally:
        run("kubectl", "delete", "-k", str(ROOT / "manifests"), "--wait=false", check=False)
        run("kubectl", "delete", "namespace", "shop", "--ignore-not-found", "--wait=false")


def test_where_the_api_server_cannot_pause_an_edit_the_deployment_rests_paused(
    bare_cluster: None, namespace: str
) -> None:
    install(*SOURCE, "--set", "hold.by=pause", "--wait", "--timeout", "60s")
    assert not exists("mutatingadmissionpolicy", "serin-hold")
    label_without_processes(namespace)
    story = start_shop(namespace)
    apply([canary_object(namespace, [step(50, "1h")])])
    held = story.until_held()
    (edits,) = [one for one in held["conditions"] if one["type"] == "EditsHeld"]
    assert "paused at rest" in edits["message"]
    assert story.deployment()["spec"]["paused"]
    assert story.deployment()["status"]["readyReplicas"] == 2

    kubectl("scale", "deployment/shop", "--replicas=3", "-n", namespace)
    eventually(lambda: story.deployment()["status"].get("readyReplicas") == 3)
    with pytest.raises(CommandFailed, match="stays paused at rest"):
        kubectl("replace", "-f", "-", stdin=shop_deployment("shop", namespace, "v2", 3), user="ci", groups=deployers())
    story.replicas = 3
    story.edit("v2")
    story.until_weight(50)
    assert story.revisions() == {"v1"}
    assert story.decide("promote").code == 0
    assert story.until_ended()["outcome"] == "Promoted"
    assert story.revisions() == {"v2"}

    story.until_held()
    assert story.deployment()["spec"]["paused"]
    assert "serin" not in json.dumps(story.deployment()["metadata"])
    run("helm", "uninstall", "serin", "-n", "serin-system", "--timeout", "90s")
    assert not story.deployment()["spec"].get("paused")
    Story(namespace).assert_nothing_left()


def deployers() -> list[str]:
    """A group whose members deploy with `replace` and have no verb of Serin's own."""
    role = ["clusterrole", "deployers", "--verb=get,list,update,patch", "--resource=deployments.apps"]
    run("kubectl", "create", *role, check=False)
    run(
        "kubectl",
        "create",
        "clusterrolebinding",
        "deployers",
        "--clusterrole=deployers",
        "--group=deployers",
        check=False,
    )
    return ["deployers"]


def test_removal_keeps_kinds_and_lets_a_held_deployment_go(bare_cluster: None, shop: MakeShop) -> None:
    install(*SOURCE, "--wait", "--timeout", "60s")
    made = shop("v1")
    where = ("-n", made.namespace)
    canary = {
        "apiVersion": "serin.dev/v1alpha1",
        "kind": "Canary",
        "metadata": {"name": made.name, "namespace": made.namespace},
        "spec": {
            "targetRef": {"name": made.name},
            "traffic": {"service": {"name": made.name, "port": 80}, "httpRoute": {"name": made.name}},
        },
    }
    apply([canary])
    run("kubectl", "wait", "canary", made.name, *where, "--for=condition=EditsHeld", "--timeout=60s")
    run("kubectl", "set", "image", f"deployment/{made.name}", "*=registry.local/shop:v2", *where)
    assert read("deployment", made.name, *where)["spec"].get("paused") is True

    run("helm", "uninstall", "serin", "-n", "serin-system", "--timeout", "90s")

    target = read("deployment", made.name, *where)
    assert not target["spec"].get("paused")
    assert target["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.local/shop:v1"
    assert not read("canary", made.name, *where)["metadata"].get("finalizers")
    assert made.serves("v1")
    assert not exists("deployment", "serin-controller", "-n", "serin-system")
    assert not exists("mutatingadmissionpolicy", "serin-hold")
    assert not exists("job", "serin-release-held", "-n", "serin-system")


def test_upgrades_and_goes_back_with_a_canary_in_flight_and_leaves_nothing_when_it_goes(
    bare_cluster: None, namespace: str, previous: Path
) -> None:
    old = ("--set", "image.repository=registry.local/serin-previous")
    wait = ("-n", "serin-system", "--wait", "--timeout", "90s")
    run("helm", "install", "serin", str(previous), "--create-namespace", *SOURCE, *old, *wait)
    label_without_processes(namespace)
    story = start_shop(namespace)
    canary = canary_object(namespace, [step(20, "1h"), step(50, "1h")])
    # What the release before knew, and nothing newer.
    analysis = ("warmup", "minRequests", "metrics")
    canary["spec"]["analysis"] = {name: canary["spec"]["analysis"][name] for name in analysis}
    apply([canary])
    story.until_held()
    story.edit("v2")
    begun = story.until_weight(20)

    def goes_on() -> dict[str, Any]:
        """A controller of the other release leads, and the rollout stands where it stood."""
        now = story.until(lambda now: now["leaderEpoch"] > begun["leaderEpoch"])
        assert (now["attempt"]["id"], now["weight"], now["phase"]) == (begun["attempt"]["id"], 20, "Progressing")
        assert story.route_weight() == 20
        assert story.revisions() == {"v1"}
        return now

    run("helm", "upgrade", "serin", CHART, *SOURCE, *wait)
    begun = goes_on()
    run("helm", "rollback", "serin", "1", *wait)
    begun = goes_on()
    run("helm", "upgrade", "serin", CHART, *SOURCE, *wait)
    goes_on()
    assert story.decide("promote").code == 0
    assert story.until_ended()["outcome"] == "Promoted"

    story.edit("v3")
    story.until_weight(20)
    run("helm", "uninstall", "serin", "-n", "serin-system", "--timeout", "90s")

    story.assert_nothing_left()
    assert story.image() == "v2"
    assert not story.deployment()["spec"].get("paused")
    assert not story.canary()["metadata"].get("finalizers")
    assert story.revisions() == {"v2"}
