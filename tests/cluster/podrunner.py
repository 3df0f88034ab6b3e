"""A small kubelet: pods become local processes, each on its own pod address.

The one thing to know: an image is a name in `IMAGES`, mapped to a command of this checkout. What a
kubelet promises to the rest of Kubernetes is kept: binding, conditions, probes, restarts with back-off,
preStop, grace, the service account's token, Jobs' pods that end. Isolation is not: file system and
process ids are shared with the cluster's own processes.

A container's log and process id are `$SERIN_CLUSTER_DIR/pods/<namespace>/<pod>/<container>.log` and `.pid`.
Pods that carry `tests.serin.dev/no-process: "true"` (label or annotation, on the pod or on its namespace)
are marked Ready without any process, for benchmarks with hundreds of pods.
"""

import argparse
import asyncio
import base64
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from tests.cluster.api import STRATEGIC, Api, ApiError, Object

CHECKOUT = Path(__file__).resolve().parents[2]
IMAGES: dict[str, list[str]] = {
    "registry.local/shop": [sys.executable, "-m", "tests.cluster.shop"],
    # The same in the cluster's own registry, for images that carry attestations.
    "localhost:5000/shop": [sys.executable, "-m", "tests.cluster.shop"],
    "registry.local/serin": [sys.executable, "-m", "controller"],
    # The release before this one, where tests/cluster/test_chart.py unpacks it.
    "registry.local/serin-previous": [
        "/bin/sh",
        "-c",
        'cd build/previous && PYTHONPATH=. exec "$0" -m controller "$@"',
        sys.executable,
    ],
    "registry.local/python": [sys.executable],
    "registry.local/shell": ["/bin/sh"],
    "registry.local/kubectl": ["kubectl"],
    "registry.local/pause": ["sleep", "infinity"],
}
REGISTRY = "localhost:5000/"
NODES = ("node-1", "node-2")
NO_PROCESS = "tests.serin.dev/no-process"
SECRETS = "/var/run/secrets/kubernetes.io/serviceaccount"
SCRAPE_LABELS = {"app": "app", "pod-template-hash": "pod_template_hash", "serin.dev/canary": "serin_dev_canary"}
TOKEN_SECONDS = 3607

# A kubelet waits 10 s, 20 s, 40 s ... between restarts; shorter here, so that a crash loop shows in seconds.
BACKOFF_FIRST, BACKOFF_MAX = 1.0, 30.0
# Until a container was ready once it is asked this often, whatever its period: nobody likes to wait for 10 s.
EAGER_PROBE = 0.2
# A busy machine is no fault of the pod: no probe is given up earlier than this.
LEAST_PATIENCE = 5.0
READY_GATES = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def command_of(container: Object) -> list[str] | None:
    """The local command of a container; None where the image is unknown, that is: cannot be pulled."""
    name = container["image"].partition("@")[0]
    known = IMAGES.get(name) or IMAGES.get(name.rpartition(":")[0])
    if known is None:
        return None
    return [*(container.get("command") or known), *(container.get("args") or [])]


def image_id(image: str) -> str:
    """What a pull of it comes to: the tests' registry is asked for what a tag stands for now, others are made up."""
    name, _, digest = image.partition("@")
    repository, _, tag = name.rpartition(":") if ":" in name.rpartition("/")[2] else (name, "", "latest")
    if not digest and repository.startswith(REGISTRY):
        url = f"http://{REGISTRY}v2/{repository.removeprefix(REGISTRY)}/manifests/{tag}"
        accepted = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD", headers=accepted), timeout=10) as head,
        ):
            digest = head.headers.get("Docker-Content-Digest", "")
    return f"{repository}@{digest or 'sha256:' + hashlib.sha256(name.encode()).hexdigest()}"


def expand(text: str, env: dict[str, str]) -> str:
    """`$(NAME)` as Kubernetes expands it in commands and environment values."""
    return re.sub(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)", lambda m: env.get(m[1], m[0]), text)


def field_of(pod: Object, path: str, address: str) -> str:
    """The downward API's fields."""
    if match := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
        return str(pod["metadata"].get(match[1], {}).get(match[2], ""))
    if path in ("status.podIP", "status.podIPs"):
        return address
    if path == "status.hostIP":
        return host_address(pod["spec"]["nodeName"])
    section, name = path.split(".", 1)
    return str(pod[section].get(name, ""))


def host_address(node: str) -> str:
    return f"10.244.{16 * (NODES.index(node) + 1)}.1" if node in NODES else "10.244.0.1"


def marked(item: Object) -> bool:
    meta = item["metadata"]
    return "true" in (meta.get("labels", {}).get(NO_PROCESS), meta.get("annotations", {}).get(NO_PROCESS))


def probe_port(container: Object, port: int | str) -> int:
    if isinstance(port, int):
        return port
    return next(int(p["containerPort"]) for p in container.get("ports", []) if p.get("name") == port)


@dataclass
class Container:
    """What a kubelet remembers of one container."""

    spec: Object
    state: Object = field(default_factory=lambda: {"waiting": {"reason": "ContainerCreating"}})
    last: Object = field(default_factory=dict)
    restarts: int = 0
    ready: bool = False
    started: bool = False
    process: asyncio.subprocess.Process | None = None
    pulled: str = ""

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def exit_code(self) -> int | None:
        return self.state["terminated"]["exitCode"] if "terminated" in self.state else None

    def status(self) -> Object:
        # A tag is looked at once, when the pod starts.
        self.pulled = self.pulled or image_id(self.spec["image"])
        return {
            "name": self.name,
            "image": self.spec["image"],
            "imageID": self.pulled,
            "containerID": f"local://{self.process.pid}" if self.process else "",
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restarts,
            "state": self.state,
            "lastState": self.last,
        }


class Pod:
    """One pod from its binding to its end; one task each."""

    def __init__(self, runner: "PodRunner", pod: Object) -> None:
        self.runner, self.object = runner, pod
        meta = pod["metadata"]
        self.uid, self.namespace, self.name = meta["uid"], meta["namespace"], meta["name"]
        self.path = f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"
        self.folder = runner.state / "pods" / self.namespace / self.name
        self.address = runner.addresses.take(pod["spec"]["nodeName"])
        self.started_at = now()
        self.init = [Container(spec) for spec in pod["spec"].get("initContainers", [])]
        self.containers = [Container(spec) for spec in pod["spec"]["containers"]]
        self.phase = "Pending"
        self.conditions: dict[str, Object] = {}
        self.initialized = not self.init
        self.deleted = asyncio.Event()
        self.gone = False
        self._told: str = ""
        self._telling = asyncio.Lock()
        self.task = asyncio.create_task(self._live(), name=f"{self.namespace}/{self.name}")

    def see(self, pod: Object) -> None:
        self.object = pod
        if "deletionTimestamp" in pod["metadata"]:
            self.deleted.set()

    def vanish(self) -> None:
        """Force-deleted: the object is gone, so the processes go at once."""
        self.gone = True
        self.deleted.set()
        self.task.cancel()

    @property
    def grace(self) -> float:
        meta = self.object["metadata"]
        return float(
            meta.get("deletionGracePeriodSeconds", self.object["spec"].get("terminationGracePeriodSeconds", 30))
        )

    @property
    def policy(self) -> str:
        return str(self.object["spec"].get("restartPolicy", "Always"))

    # --- life ---

    async def _live(self) -> None:
        if "deletionTimestamp" in self.object["metadata"]:
            self.deleted.set()
        try:
            work = asyncio.create_task(self._work())
            ended = asyncio.create_task(self.deleted.wait())
            try:
                await asyncio.wait({work, ended}, return_when=asyncio.FIRST_COMPLETED)
                if work.done() and (error := work.exception()):
                    print(f"{self.namespace}/{self.name}: {error!r}", flush=True)
                await self.deleted.wait()
                await self._terminate(work)
            finally:
                for task in (work, ended):
                    task.cancel()
                self._kill_all()
            await self.runner.forget(self)
        except asyncio.CancelledError:
            self._kill_all()
            await self.runner.forget(self)

    async def _work(self) -> None:
        if await self.runner.without_process(self.object):
            for container in self.containers:
                container.state, container.ready, container.started = {"running": {"startedAt": now()}}, True, True
            self.phase = "Running"
            await self.tell()
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        await self._mount_token()
        for container in self.init:
            await self.tell()
            if not await self._run_until_success(container):
                self.phase = "Failed"
                await self.tell()
                return
        self.initialized = True
        self.phase = "Running" if any(command_of(c.spec) for c in self.containers) else "Pending"
        await asyncio.gather(*(self._run(container) for container in self.containers))
        self.phase = "Succeeded" if all(c.exit_code == 0 for c in self.containers) else "Failed"
        await self.tell()

    async def _run_until_success(self, container: Container) -> bool:
        await self._run(container, policy="Never" if self.policy == "Never" else "OnFailure")
        return container.exit_code == 0

    async def _run(self, container: Container, policy: str = "") -> None:
        """Start, watch, start again after a pause that doubles; returns when the policy says that it is over."""
        policy = policy or self.policy
        pause = BACKOFF_FIRST
        while True:
            env = await self._environment(container.spec)
            command = command_of(container.spec)
            if command is None or env is None:
                await self._cannot_start(container, "ErrImagePull" if command is None else "CreateContainerConfigError")
                if env is None:
                    continue
                await self.deleted.wait()
                return
            began = time.monotonic()
            code = await self._run_once(container, [expand(word, env) for word in command], env)
            if self.deleted.is_set() or policy == "Never" or (policy == "OnFailure" and code == 0):
                await self.tell()
                return
            pause = BACKOFF_FIRST if time.monotonic() - began > 10 * BACKOFF_MAX else pause
            await self.tell()
            if container.restarts:
                container.last = container.state
                message = f"back-off {pause:g}s restarting failed container={container.name} pod={self.name}"
                container.state = {"waiting": {"reason": "CrashLoopBackOff", "message": message}}
                await self.tell()
            await asyncio.sleep(pause)
            pause = min(BACKOFF_MAX, pause * 2)
            if "terminated" in container.state:
                container.last = container.state
            container.restarts += 1

    async def _cannot_start(self, container: Container, reason: str) -> None:
        image = container.spec["image"]
        message = (
            f'failed to pull image "{image}": not found' if reason == "ErrImagePull" else "a referenced key is missing"
        )
        container.state = {"waiting": {"reason": reason, "message": message}}
        await self.tell()
        await asyncio.sleep(1)
        if reason == "ErrImagePull":
            container.state = {
                "waiting": {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{image}"'}
            }
            await self.tell()

    async def _run_once(self, container: Container, command: list[str], env: dict[str, str]) -> int:
        log = (self.folder / f"{container.name}.log").open("ab")
        with log:
            try:
                container.process = await asyncio.create_subprocess_exec(
                    *self._in_mount_namespace(container.spec, command),
                    env=env,
                    cwd=container.spec.get("workingDir", CHECKOUT),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            except OSError as error:
                log.write(f"{error}\n".encode())
                container.state = _terminated(127, now(), "StartError")
                return 127
        process, started = container.process, now()
        (self.folder / f"{container.name}.pid").write_text(str(process.pid))
        container.state = {"running": {"startedAt": started}}
        container.started = "startupProbe" not in container.spec
        probes = asyncio.create_task(self._probe_all(container))
        try:
            if "readinessProbe" in container.spec or not container.started:
                await self.tell()
            code = await process.wait()
        finally:
            probes.cancel()
            _kill_group(process.pid)
        container.ready = container.started = False
        reason = "Completed" if code == 0 else "Error"
        container.state = _terminated(code if code >= 0 else 128 - code, started, reason)
        return code

    def _in_mount_namespace(self, spec: Object, command: list[str]) -> list[str]:
        if not any(mount["mountPath"] == SECRETS for mount in spec.get("volumeMounts", [])):
            return command
        script = f'mount --bind "$0" {SECRETS} && exec "$@"'
        return ["unshare", "-m", "/bin/sh", "-c", script, str(self.folder / "token"), *command]

    async def _environment(self, spec: Object) -> dict[str, str] | None:
        """What the container sees; None while something it refers to does not exist."""
        env = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(CHECKOUT),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": os.environ.get("PYTHONDONTWRITEBYTECODE", ""),
            "HOSTNAME": self.name,
            "POD_IP": self.address,
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": "6443",
        }
        if spec["image"].startswith(("registry.local/shop:", "localhost:5000/shop:")):
            env["SHOP_REVISION"] = spec["image"].partition("@")[0].rpartition(":")[2]
        try:
            for source in spec.get("envFrom", []):
                kind = "configMapRef" if "configMapRef" in source else "secretRef"
                env |= await self.runner.data(self.namespace, kind, source[kind]["name"])
            for entry in spec.get("env", []):
                env[entry["name"]] = await self._value(entry, env)
        except (ApiError, KeyError):
            return None
        return env

    async def _value(self, entry: Object, env: dict[str, str]) -> str:
        source = entry.get("valueFrom")
        if source is None:
            return expand(entry.get("value", ""), env)
        if "fieldRef" in source:
            return field_of(self.object, source["fieldRef"]["fieldPath"], self.address)
        kind = next((kind for kind in ("configMapKeyRef", "secretKeyRef") if kind in source), None)
        if kind is None:
            return ""
        return (await self.runner.data(self.namespace, kind, source[kind]["name"]))[source[kind]["key"]]

    async def _mount_token(self) -> None:
        mounts = [m["mountPath"] for c in self.object["spec"]["containers"] for m in c.get("volumeMounts", [])]
        if SECRETS not in mounts:
            return
        folder = self.folder / "token"
        folder.mkdir(exist_ok=True)
        account = self.object["spec"].get("serviceAccountName", "default")
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [],
                "expirationSeconds": TOKEN_SECONDS,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": self.name, "uid": self.uid},
            },
        }
        path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/{account}/token"
        answer = await self.runner.insist(lambda: self.runner.api.call("POST", path, request))
        if answer is None:
            return
        fresh = folder / ".token"
        fresh.write_text(answer["status"]["token"])
        fresh.rename(folder / "token")
        (folder / "namespace").write_text(self.namespace)
        shutil.copy(self.runner.state / "pki" / "ca.crt", folder / "ca.crt")
        self.runner.background(self._renew_token())

    async def _renew_token(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.deleted.wait(), TOKEN_SECONDS * 0.8)
        if not self.deleted.is_set():
            await self._mount_token()

    # --- probes ---

    async def _probe_all(self, container: Container) -> None:
        spec = container.spec
        if probe := spec.get("startupProbe"):
            failures = 0
            while not await self._probe(container, probe):
                failures += 1
                if failures >= probe.get("failureThreshold", 3):
                    self._stop_soon(container)
                    return
                await asyncio.sleep(min(probe.get("periodSeconds", 10), 1))
            container.started = True
        if "readinessProbe" not in spec:
            container.ready = True
        await self.tell()
        async with asyncio.TaskGroup() as group:
            if "readinessProbe" in spec:
                group.create_task(self._keep_ready(container, spec["readinessProbe"]))
            if "livenessProbe" in spec:
                group.create_task(self._keep_alive(container, spec["livenessProbe"]))

    async def _keep_ready(self, container: Container, probe: Object) -> None:
        await asyncio.sleep(probe.get("initialDelaySeconds", 0) or 0.05)
        period, same, was_ready = probe.get("periodSeconds", 10), 0, False
        while True:
            good = await self._probe(container, probe)
            same = 0 if good == container.ready else same + 1
            if same >= probe.get("successThreshold" if good else "failureThreshold", 1 if good else 3):
                container.ready, same = good, 0
                was_ready = was_ready or good
                await self.tell()
            await asyncio.sleep(period if was_ready else min(period, EAGER_PROBE))

    async def _keep_alive(self, container: Container, probe: Object) -> None:
        period, failures = probe.get("periodSeconds", 10), 0
        await asyncio.sleep(probe.get("initialDelaySeconds", 0) or period)
        while True:
            failures = 0 if await self._probe(container, probe) else failures + 1
            if failures >= probe.get("failureThreshold", 3):
                self._stop_soon(container)
                return
            await asyncio.sleep(period)

    async def _probe(self, container: Container, probe: Object) -> bool:
        limit = max(probe.get("timeoutSeconds", 1), LEAST_PATIENCE)
        try:
            async with asyncio.timeout(limit):
                if "httpGet" in probe:
                    return await self._http_get(container, probe["httpGet"])
                if "tcpSocket" in probe:
                    port = probe_port(container.spec, probe["tcpSocket"]["port"])
                    _, writer = await asyncio.open_connection(probe["tcpSocket"].get("host", self.address), port)
                    writer.close()
                    return True
                if "exec" in probe:
                    return await self._exec(container, probe["exec"]["command"]) == 0
        except (OSError, aiohttp.ClientError, TimeoutError):
            return False
        return True

    async def _http_get(self, container: Container, get: Object) -> bool:
        port = probe_port(container.spec, get["port"])
        scheme, host = get.get("scheme", "HTTP").lower(), get.get("host") or self.address
        headers = {h["name"]: h["value"] for h in get.get("httpHeaders", [])} | {"Connection": "close"}
        url = f"{scheme}://{host}:{port}{get.get('path', '/')}"
        async with self.runner.web.get(url, headers=headers, ssl=False, allow_redirects=False) as response:
            return 200 <= response.status < 400

    async def _exec(self, container: Container, command: list[str]) -> int:
        env = await self._environment(container.spec) or {}
        process = await asyncio.create_subprocess_exec(
            *command, env=env, cwd=CHECKOUT, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            return await process.wait()
        finally:
            _kill_group(process.pid)

    # --- the end ---

    def _stop_soon(self, container: Container) -> None:
        """A failed liveness or startup probe: the container goes as in a deletion, then its policy decides."""
        self.runner.background(self._stop(container, time.monotonic() + self.grace))

    async def _stop(self, container: Container, deadline: float) -> None:
        """preStop, SIGTERM, and SIGKILL at the deadline; both share one grace period."""
        process = container.process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await self._pre_stop(container)
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), max(0.1, deadline - time.monotonic()))
        _kill_group(process.pid)

    async def _pre_stop(self, container: Container) -> None:
        match container.spec.get("lifecycle", {}).get("preStop"):
            case {"sleep": {"seconds": seconds}}:
                await asyncio.sleep(seconds)
            case {"exec": {"command": command}}:
                await self._exec(container, command)
            case {"httpGet": get}:
                with contextlib.suppress(OSError, aiohttp.ClientError):
                    await self._http_get(container, get)

    async def _terminate(self, work: "asyncio.Task[None]") -> None:
        deadline = time.monotonic() + self.grace
        await asyncio.gather(*(self._stop(container, deadline) for container in (*self.init, *self.containers)))
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await work
        if any(container.process for container in self.containers):
            for container in self.containers:
                container.ready = False
                if "running" in container.state:
                    container.state = _terminated(137, container.state["running"]["startedAt"], "Error")
            if self.phase not in ("Succeeded", "Failed"):
                self.phase = "Succeeded" if all(c.exit_code == 0 for c in self.containers) else "Failed"
            await self.tell()
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}}
        await self.runner.insist(lambda: self.runner.api.call("DELETE", self.path, body))

    def _kill_all(self) -> None:
        for container in (*self.init, *self.containers):
            if container.process and container.process.returncode is None:
                _kill_group(container.process.pid)

    # --- status ---

    async def tell(self) -> None:
        """Write the status if it differs from the last one written; the newest state wins."""
        async with self._telling:
            body = {"metadata": {"uid": self.uid}, "status": self._status()}
            text = json.dumps(body["status"], sort_keys=True)
            if text == self._told or self.gone:
                return
            if await self.runner.insist(lambda: self.runner.api.call("PATCH", f"{self.path}/status", body, STRATEGIC)):
                self._told = text
        self.runner.targets_changed()

    def _status(self) -> Object:
        ready = self.phase == "Running" and all(c.ready for c in self.containers)
        done = self.phase == "Succeeded"
        for name in READY_GATES:
            good = ready if name in ("Ready", "ContainersReady") else self.initialized or name != "Initialized"
            self._set_condition(name, good, "PodCompleted" if done else "ContainersNotReady")
        status: Object = {
            "phase": self.phase,
            "conditions": list(self.conditions.values()),
            "hostIP": host_address(self.object["spec"]["nodeName"]),
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "startTime": self.started_at,
            "containerStatuses": [container.status() for container in self.containers],
        }
        if self.init:
            status["initContainerStatuses"] = [container.status() for container in self.init]
        return status

    def _set_condition(self, name: str, good: bool, why_not: str) -> None:
        value = "True" if good else "False"
        was = self.conditions.get(name)
        if was is None or was["status"] != value:
            self.conditions[name] = {"type": name, "status": value, "lastTransitionTime": now()}
            if not good:
                self.conditions[name]["reason"] = why_not


def _terminated(code: int, started: str, reason: str) -> Object:
    state: Object = {"exitCode": code, "reason": reason, "startedAt": started, "finishedAt": now()}
    return {"terminated": state}


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


class Addresses:
    """Pod addresses, 10.244.16.0/20 for the first node and so on; used again late, as a real network does."""

    def __init__(self) -> None:
        self._next = dict.fromkeys(NODES, 1)
        self._used: set[str] = set()

    def take(self, node: str) -> str:
        while True:
            self._next[node] = number = self._next.get(node, 1) % 4000 + 1
            address = f"10.244.{16 * (NODES.index(node) + 1) + number // 250}.{number % 250 + 2}"
            if address not in self._used:
                self._used.add(address)
                return address

    def release(self, address: str) -> None:
        self._used.discard(address)


class PodRunner:
    """Lists and watches pods; binds those without a node and keeps one `Pod` for each that has one of ours."""

    def __init__(self, api: Api, state: Path) -> None:
        self.api, self.state = api, state
        self.addresses = Addresses()
        self.pods: dict[str, Pod] = {}
        self._binding: set[str] = set()
        self._bound = 0
        self._namespaces: dict[str, tuple[float, bool]] = {}
        self._targets = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    def background(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def run(self) -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True)) as self.web:
            for node in NODES:
                await self._register(node)
            self.background(self._write_targets())
            while True:
                try:
                    await self._follow()
                except (aiohttp.ClientError, ApiError, TimeoutError, OSError) as error:
                    print(f"watch ended, listing again: {error!r}", flush=True)
                    await asyncio.sleep(0.2)

    async def _follow(self) -> None:
        listed = await self.api.call("GET", "/api/v1/pods")
        for pod in listed["items"]:
            self._see(pod)
        there = {pod["metadata"]["uid"] for pod in listed["items"]}
        for uid in self.pods.keys() - there:
            self.pods[uid].vanish()
        version = listed["metadata"]["resourceVersion"]
        while True:
            async for event in self.api.watch("/api/v1/pods", version):
                pod = event["object"]
                version = pod["metadata"]["resourceVersion"]
                if event["type"] == "DELETED" and (known := self.pods.get(pod["metadata"]["uid"])):
                    known.vanish()
                elif event["type"] in ("ADDED", "MODIFIED"):
                    self._see(pod)

    def _see(self, pod: Object) -> None:
        uid, spec = pod["metadata"]["uid"], pod["spec"]
        if known := self.pods.get(uid):
            known.see(pod)
        elif not spec.get("nodeName"):
            if uid not in self._binding and not spec.get("schedulingGates"):
                self._binding.add(uid)
                self.background(self._bind(pod))
        elif spec["nodeName"] in NODES and pod["status"].get("phase") not in ("Succeeded", "Failed"):
            self.pods[uid] = Pod(self, pod)
        elif spec["nodeName"] in NODES and "deletionTimestamp" in pod["metadata"]:
            self.background(self._finish(pod))

    async def _finish(self, pod: Object) -> None:
        meta = pod["metadata"]
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": meta["uid"]}}
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        await self.insist(lambda: self.api.call("DELETE", path, body))

    async def _bind(self, pod: Object) -> None:
        meta = pod["metadata"]
        self._bound += 1
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": meta["name"], "uid": meta["uid"]},
            "target": {"kind": "Node", "name": _wanted_node(pod) or NODES[self._bound % len(NODES)]},
        }
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/binding"
        await self.insist(lambda: self.api.call("POST", path, body))
        self._binding.discard(meta["uid"])

    async def insist(self, call: Callable[[], Awaitable[Object]]) -> Object | None:
        """Call until it is answered; None where the object is gone or is another one by now."""
        pause = 0.1
        while True:
            try:
                return await call()
            except ApiError as error:
                if error.status in (404, 409) or (400 <= error.status < 500 and error.status != 429):
                    if error.status not in (404, 409):
                        print(f"refused: {error}", flush=True)
                    return None
            except (aiohttp.ClientError, TimeoutError, OSError):
                pass
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2)

    async def without_process(self, pod: Object) -> bool:
        """Only marked Ready? The answer for a namespace is kept for a moment: hundreds of pods may ask at once."""
        if marked(pod):
            return True
        name = pod["metadata"]["namespace"]
        seen, answer = self._namespaces.get(name, (0.0, False))
        if time.monotonic() - seen > 0.2:
            found = await self.insist(lambda: self.api.call("GET", f"/api/v1/namespaces/{name}"))
            answer = found is not None and marked(found)
            self._namespaces[name] = (time.monotonic(), answer)
        return answer

    async def data(self, namespace: str, kind: str, name: str) -> dict[str, str]:
        """A ConfigMap's or Secret's entries, as environment values."""
        if kind.startswith("configMap"):
            found = await self.api.call("GET", f"/api/v1/namespaces/{namespace}/configmaps/{name}")
            return dict(found.get("data", {}))
        found = await self.api.call("GET", f"/api/v1/namespaces/{namespace}/secrets/{name}")
        return {key: base64.b64decode(value).decode() for key, value in found.get("data", {}).items()}

    async def forget(self, pod: Pod) -> None:
        self.pods.pop(pod.uid, None)
        self.addresses.release(pod.address)
        self.targets_changed()

    async def _register(self, node: str) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": node, "labels": {"kubernetes.io/hostname": node, "kubernetes.io/os": "linux"}},
        }
        with contextlib.suppress(ApiError):
            await self.api.call("POST", "/api/v1/nodes", body)
        room = {"cpu": "64", "memory": "256Gi", "pods": "2000", "ephemeral-storage": "1Ti"}
        status = {
            "capacity": room,
            "allocatable": room,
            "addresses": [{"type": "InternalIP", "address": host_address(node)}, {"type": "Hostname", "address": node}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now()}],
        }
        await self.api.call("PATCH", f"/api/v1/nodes/{node}/status", {"status": status}, STRATEGIC)

    # --- scrape targets ---

    def targets_changed(self) -> None:
        self._targets.set()

    async def _write_targets(self) -> None:
        """Prometheus' file discovery: running pods that ask to be scraped."""
        path = self.state / "prometheus" / "pods.json"
        written = ""
        while True:
            await self._targets.wait()
            self._targets.clear()
            text = json.dumps([target for pod in self.pods.values() if (target := _target(pod))], indent=1)
            if text != written:
                path.with_suffix(".new").write_text(text)
                path.with_suffix(".new").rename(path)
                written = text
            await asyncio.sleep(0.1)


def _target(pod: Pod) -> Object | None:
    meta = pod.object["metadata"]
    notes = meta.get("annotations", {})
    if (
        notes.get("prometheus.io/scrape") != "true"
        or pod.phase != "Running"
        or not any(c.process for c in pod.containers)
    ):
        return None
    labels = {name: meta.get("labels", {}).get(key, "") for key, name in SCRAPE_LABELS.items()}
    labels |= {
        "namespace": pod.namespace,
        "pod": pod.name,
        "__metrics_path__": notes.get("prometheus.io/path", "/metrics"),
    }
    port = notes.get("prometheus.io/port", "8080")
    return {"targets": [f"{pod.address}:{port}"], "labels": {k: v for k, v in labels.items() if v}}


def _wanted_node(pod: Object) -> str | None:
    """A DaemonSet names the node in an affinity; everything else takes turns."""
    affinity = pod["spec"].get("affinity", {}).get("nodeAffinity", {})
    for term in affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get("nodeSelectorTerms", []):
        for rule in term.get("matchFields", []):
            if rule["key"] == "metadata.name":
                return str(rule["values"][0])
    return None


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="the cluster's directory")
    state = parser.parse_args().state
    async with Api(state / "pki", "podrunner") as api:
        await PodRunner(api, state).run()


if __name__ == "__main__":
    asyncio.run(main())
