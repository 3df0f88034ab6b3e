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
from tests.cluster.objects import apply, eventually, kubectl, state_dir
from tests.cluster.serin import canary_object, label_without_processes, start_shop, step

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
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
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

    eventually(gone, within=400)


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


def test_a_pause_at_rest_can_be_asked_for_where_the_cluster_could_do_more() -> None:
    items = rendered("--set", "hold.by=pause")
    (deployment,) = [one for one in items if one["kind"] == "Deployment"]

    assert "MutatingAdmissionPolicy" not in {one["kind"] for one in items}
    assert "--hold=pause" in deployment["spec"]["template"]["spec"]["containers"][0]["args"]


def test_a_serin_for_one_namespace_has_rights_nowhere_else(bare_cluster: None) -> None:
    run("kubectl", "create", "namespace", "shop")
    try:
        install("--set", "rbac.onlyNamespace=shop", "--wait", "--timeout", "240s")
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
        assert not may("watch", "decisions.serin.dev", "-n", "default")

        # Whoever thaws says so where Serin is installed, and nobody but the controller takes a Freeze off.
        engage_and_thaw("olga", "oscar")
        eventually(lambda: not exists("freeze", "stop"))
    finally:
        run("kubectl", "delete", "clusterrolebinding", "thawers", "--ignore-not-found")
        run("kubectl", "delete", "namespace", "shop")


def engage_and_thaw(*owners: str) -> None:
    """A Freeze of everything, and what each of these says to have it taken off."""
    kind = {"apiVersion": "serin.dev/v1alpha1"}
    apply([kind | {"kind": "Freeze", "metadata": {"name": "stop"}, "spec": {"reason": "4711"}}])
    users = [f"--user={owner}" for owner in owners]
    run("kubectl", "create", "clusterrolebinding", "thawers", "--clusterrole=canary-owner", *users)
    freeze = {"name": "stop", "uid": read("freeze", "stop")["metadata"]["uid"]}
    for owner in owners:
        spec = {"decision": "Thaw", "freeze": freeze, "by": owner, "reason": "4711 is over"}
        meta = {"name": f"by-{owner}", "namespace": "serin-system"}
        said = json.dumps(kind | {"kind": "Decision", "metadata": meta, "spec": spec})
        # The binding is known to each part of the API server a moment later.
        eventually(lambda said=said, owner=owner: kubectl("create", "-f", "-", stdin=said, user=owner))  # type: ignore[misc]


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
    assert [block["ipBlock"]["except"] for to in open_to for block in to] == [
        ["169.254.0.0/16", "100.100.100.200/32"],
        ["fe80::/10", "fd00:ec2::254/128", "fd20:ce::254/128"],
    ]
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


TOO_MANY = "rbac.onlyNamespace=shop,rbac.namespaces={a}"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("replica=3", "additional properties 'replica' not allowed"),
        ("image.name=x", "at '/image': additional properties 'name' not allowed"),
        ("replicas=0", "at '/replicas': minimum: got 0, want 1"),
        ("replicas=two", "at '/replicas': got string, want integer"),
        ("rbac.namespaces=shop", "at '/rbac/namespaces': got string, want array"),
        ("policies.presets={lax}", "value must be one of 'two-person', 'ai-strict', 'observe-only'"),
        ("image.tag=a b", 'image.tag: found "a b": write a tag such as 1.2.3'),
        ("image.tag=-x", 'image.tag: found "-x"'),
        ("image.tag=v1:2", 'image.tag: found "v1:2"'),
        ("image.digest=sha256:abc", "write sha256: and its 64 digits"),
        ("resources.limits.memory=lots", 'resources.limits.memory: found "lots": write an amount such as'),
        ("metrics.url=prometheus:9090", 'metrics.url: found "prometheus:9090": write an address'),
        ("metrics.url=https://me:word@prometheus", "without a login in it"),
        ("metrics.url=http://a,metrics.spec.url=http://b", "metrics.spec.url: write it as metrics.url"),
        ("metrics.spec.timeout=3s", "metrics.spec: found without metrics.url"),
        ("metrics.url=http://a,metrics.spec.timeout=20", 'metrics.spec.timeout: found "20": write a duration'),
        ("metrics.url=http://a,metrics.spec.headers.X Tenant=a", 'metrics.spec.headers: found "X Tenant"'),
        ("metrics.url=http://a,metrics.spec.credentials.token=a", "metrics.spec.credentials: write exactly one of"),
        ("metrics.url=http://a,metrics.spec.header.a=b", "metrics.spec.header: a MetricsSource has credentials"),
        ("metrics.scrapeInterval=10m", 'metrics.scrapeInterval: found "10m": write a duration from 1s to 5m'),
        ("metrics.scrapeInterval=0s", "write a duration from 1s to 5m"),
        ("observability.serviceMonitor.interval=often", "write a duration such as 30s or 1m"),
        ("observability.traces.endpoint=collector:4318", "observability.traces.endpoint: found"),
        ("observability.debugPort=8080", "found 8080, where metrics and probes are served"),
        ("hold.failurePolicy=Fail", "hold.failurePolicy: found Fail without hold.namespaceSelector"),
        ("rbac.onlyNamespace=Shop", 'rbac: found the namespace "Shop"'),
        ("rbac.namespaces={Shop Floor}", 'rbac: found the namespace "Shop Floor"'),
        (TOO_MANY, "rbac: found onlyNamespace and namespaces: write one of them"),
        ("protection.agents={a b}", 'protection.agents: found "a b": write the name of a group'),
        ("attestations.registries={https://ghcr.io}", "write the host alone, such as ghcr.io"),
    ],
)
def test_a_value_that_is_unknown_or_cannot_work_is_refused_with_what_to_write(setting: str, said: str) -> None:
    done = subprocess.run(["helm", "template", CHART, "--set", setting], capture_output=True, text=True, check=False)

    assert done.returncode != 0
    assert said in done.stderr


@pytest.mark.parametrize(
    "setting",
    [
        "image.tag=v1.2_3-rc",
        f"image.digest=sha256:{'0' * 64}",
        "metrics.scrapeInterval=1m30s",
        "metrics.scrapeInterval=5m",
        "resources.limits.cpu=1,resources.requests.cpu=0.5,resources.limits.memory=1.5Gi",
        "attestations.registries={ghcr.io,registry.example:5000}",
        "rbac.namespaces=null,image.tag=null,resources=null",
    ],
)
def test_a_value_that_works_is_taken(setting: str) -> None:
    run("helm", "template", CHART, "--set", setting)


def test_a_fresh_cluster_gets_kinds_and_the_default_source_in_one_install(bare_cluster: None) -> None:
    notes = install(*SOURCE)

    source = read("metricssource", "default")
    assert source["spec"]["url"] == "http://prometheus.example:9090"
    assert source["spec"]["scrapeInterval"] == "1s"
    assert "kubectl canary status" in notes

    run("helm", "upgrade", "serin", CHART, "-n", "serin-system", *SOURCE, "--set", "metrics.scrapeInterval=5s")
    assert read("metricssource", "default")["spec"]["scrapeInterval"] == "5s"


def test_no_upgrade_takes_off_what_somebody_wrote_into_the_default_source(bare_cluster: None) -> None:
    """A template of another gateway, credentials, who may use it: without these every rollout of the cluster stands."""
    install(*SOURCE)
    counted = "requests_total{service='$service',namespace='$namespace'}"
    templates = {"gateway": {"requests": counted, "errors": counted[:-1] + ",code='5xx'}"}}
    login = {"basicAuth": {"username": {"name": "login", "key": "user"}, "password": {"name": "login", "key": "word"}}}
    own = {"templates": templates, "namespaces": ["shop"]}
    run(
        "kubectl",
        "patch",
        "metricssource",
        "default",
        "--type=merge",
        "-p",
        json.dumps({"spec": own | {"credentials": login}}),
    )
    first = read("metricssource", "default")

    run("helm", "upgrade", "serin", CHART, "-n", "serin-system", *SOURCE)
    same = read("metricssource", "default")
    token = {"bearerToken": {"name": "prometheus", "key": "token"}}
    more = ("--set", "metrics.scrapeInterval=5s,metrics.spec.headers.X-Scope-OrgID=shop")
    which = ("--set-json", f"metrics.spec.credentials={json.dumps(token)}")
    run("helm", "upgrade", "serin", CHART, "-n", "serin-system", *SOURCE, *more, *which)
    changed = read("metricssource", "default")["spec"]

    assert same["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"], "it was not touched"
    assert (changed["scrapeInterval"], changed["headers"]) == ("5s", {"X-Scope-OrgID": "shop"})
    assert changed["credentials"] == token, "one kind or the other"
    assert {name: changed[name] for name in own} == {name: first["spec"][name] for name in own}


def test_where_helm_only_renders_text_the_default_source_is_no_hook_once_its_kind_is_known() -> None:
    """Argo CD would make a hook anew with each sync, without what others wrote into it."""
    text = ("helm", "template", CHART, *SOURCE, "-s", "templates/metricssource.yaml")
    fresh = yaml.safe_load(run(*text))
    known = yaml.safe_load(run(*text, "--api-versions", "serin.dev/v1alpha1/MetricsSource"))

    assert "helm.sh/hook" in fresh["metadata"]["annotations"]
    assert "annotations" not in known["metadata"]
    assert known["spec"] == fresh["spec"]


def test_presets_of_policies_come_with_the_first_install_and_no_upgrade_or_rollback_takes_one_off(
    bare_cluster: None,
) -> None:
    """A policy that is made anew would be away for a moment, and a change could begin in it."""
    presets = ("--set", "policies.presets={two-person,ai-strict}")
    install(*presets)
    first = read("releasepolicy", "ai-strict")

    run("helm", "upgrade", "serin", CHART, "-n", "serin-system", *presets)
    second = read("releasepolicy", "ai-strict")
    run("helm", "upgrade", "serin", CHART, "-n", "serin-system", "--set", "policies.presets={two-person}")
    run("helm", "rollback", "serin", "1", "-n", "serin-system")

    wanted = yaml.safe_load((ROOT / "manifests" / "policies" / "ai-strict.yaml").read_text())
    assert [rule["name"] for rule in first["spec"]["rules"]] == [rule["name"] for rule in wanted["spec"]["rules"]]
    assert {read("releasepolicy", "ai-strict")["metadata"]["uid"], second["metadata"]["uid"]} == {
        first["metadata"]["uid"]
    }
    assert exists("releasepolicy", "two-person")


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

    install(*SOURCE, "--wait", "--timeout", "240s")
    eventually(lambda: exists("lease", "serin-controller", "-n", "serin-system"))

    def ready() -> int:
        status = read("deployment", "serin-controller", "-n", "serin-system")["status"]
        return int(status.get("readyReplicas", 0))

    eventually(lambda: ready() == 2)
    names = [pod["metadata"]["name"] for pod in read("pods", "-n", "serin-system")["items"]]
    logs = [state_dir() / "pods" / "serin-system" / name / "controller.log" for name in names]
    assert len(logs) == 2
    assert [line for log in logs for line in log.read_text().splitlines() if "forbidden" in line] == []


def test_the_controller_may_do_what_it_needs_and_not_read_a_secret(bare_cluster: None) -> None:
    install()
    controller = "--as=system:serviceaccount:serin-system:serin-controller"

    def may(*what: str) -> bool:
        return run("kubectl", "auth", "can-i", *what, controller, check=False).strip() == "yes"

    eventually(lambda: may("patch", "httproutes.gateway.networking.k8s.io", "-n", "shop"))
    eventually(lambda: may("watch", "leases.coordination.k8s.io/serin-controller", "-n", "serin-system"))
    assert may("create", "deployments.apps", "-n", "shop")
    assert may("patch", "canaries.serin.dev", "--subresource=status", "-n", "shop")
    assert may("get", "secrets", "-n", "serin-system")
    assert not may("get", "secrets", "-n", "shop")
    assert not may("list", "secrets", "-n", "serin-system")
    assert not may("patch", "leases.coordination.k8s.io/serin-controller", "-n", "shop")
    assert not may("delete", "releaserecords.serin.dev", "-n", "shop")
    assert not may("create", "decisions.serin.dev", "-n", "shop")
    assert not may("create", "pods", "-n", "shop")


def test_the_kustomization_alone_brings_a_controller_that_leads(bare_cluster: None) -> None:
    run("kubectl", "apply", "-k", str(ROOT / "manifests"))
    try:
        run("kubectl", "rollout", "status", "deployment/serin-controller", "-n", "serin-system", "--timeout=180s")
        run("kubectl", "create", "namespace", "shop")
        for name in ("canary", "full", "metricssource"):
            run("kubectl", "create", "--dry-run=server", "-f", str(ROOT / "manifests" / "examples" / f"{name}.yaml"))
    finally:
        run("kubectl", "delete", "-k", str(ROOT / "manifests"), "--wait=false", check=False)
        run("kubectl", "delete", "namespace", "shop", "--ignore-not-found")


def test_removal_keeps_kinds_and_lets_a_held_deployment_go(bare_cluster: None, shop: MakeShop) -> None:
    install(*SOURCE, "--wait", "--timeout", "240s")
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
    run("kubectl", "wait", "canary", made.name, *where, "--for=condition=EditsHeld", "--timeout=180s")
    run("kubectl", "set", "image", f"deployment/{made.name}", "*=registry.local/shop:v2", *where)
    assert read("deployment", made.name, *where)["spec"].get("paused") is True

    run("helm", "uninstall", "serin", "-n", "serin-system", "--timeout", "240s")

    target = read("deployment", made.name, *where)
    assert not target["spec"].get("paused")
    assert target["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.local/shop:v1"
    assert not read("canary", made.name, *where)["metadata"].get("finalizers")
    eventually(lambda: made.serves("v1"))
    assert not exists("deployment", "serin-controller", "-n", "serin-system")
    assert not exists("mutatingadmissionpolicy", "serin-hold")
    assert not exists("job", "serin-release-held", "-n", "serin-system")


def test_upgrades_and_goes_back_with_a_canary_in_flight_and_leaves_nothing_when_it_goes(
    bare_cluster: None, namespace: str, previous: Path
) -> None:
    old = ("--set", "image.repository=registry.local/serin-previous")
    wait = ("-n", "serin-system", "--wait", "--timeout", "240s")
    # One that answers: no rollout gets its first request before.
    source = ("--set", f"metrics.url={os.environ['SERIN_PROMETHEUS']}", "--set", "metrics.scrapeInterval=1s")
    run("helm", "install", "serin", str(previous), "--create-namespace", *source, *old, *wait)
    label_without_processes(namespace)
    story = start_shop(namespace)
    canary = canary_object(namespace, [step(20, "1h"), step(50, "1h")])
    # What the release before knew, and nothing newer.
    analysis = ("warmup", "minRequests", "noDataTimeout", "metrics")
    canary["spec"]["analysis"] = {name: canary["spec"]["analysis"][name] for name in analysis}
    apply([canary])
    story.until_held()
    story.edit("v2")
    begun = story.until_weight(20)

    def goes_on(stable: str = "v1") -> dict[str, Any]:
        """A controller of the other release leads, and the rollout stands where it stood."""
        now = story.until(lambda now: now["leaderEpoch"] > begun["leaderEpoch"])
        assert (now["attempt"]["id"], now["weight"], now["phase"]) == (begun["attempt"]["id"], 20, "Progressing")
        assert story.route_weight() == 20
        assert story.revisions() == {stable}
        return now

    run("helm", "upgrade", "serin", CHART, *source, *wait)
    begun = goes_on()
    run("helm", "rollback", "serin", "1", *wait)
    begun = goes_on()
    run("helm", "upgrade", "serin", CHART, *source, *wait)
    goes_on()
    assert story.decide("promote").code == 0
    assert story.until_ended()["outcome"] == "Promoted"

    # Begun by this version, with all that it remembers and the release before does not know; that one ends it.
    story.edit("v3")
    begun = story.until_weight(20)
    assert begun["attempt"]["number"] > 0
    run("helm", "rollback", "serin", "1", *wait)
    goes_on("v2")
    assert story.decide("abort").code == 0
    assert story.until_ended()["outcome"] == "Aborted"
    assert (story.revisions(), story.route_weight()) == ({"v2"}, 0)
    run("helm", "upgrade", "serin", CHART, *source, *wait)

    story.edit("v4")
    story.until_weight(20)
    run("helm", "uninstall", "serin", "-n", "serin-system", "--timeout", "240s")

    story.assert_nothing_left()
    assert story.image() == "v2"
    assert not story.deployment()["spec"].get("paused")
    assert not story.canary()["metadata"].get("finalizers")
    assert story.revisions() == {"v2"}
