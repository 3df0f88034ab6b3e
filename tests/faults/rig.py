"""One workload under a Canary, a controller of its own behind a rude API server, and scripted metrics.

The one thing to know: each test has its own namespace, Lease, controller processes, proxy and metrics server, so a
fault meets nobody else. Everything here is asynchronous, because the proxies run in the test's own event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from controller.kube.credentials import Credentials, load_credentials
from controller.kube.resources import Resource
from controller.kube.transport import Api as KubeApi
from controller.model.bound import bound_digest
from tests.bench.scene import canary
from tests.bench.scripted import ScriptedGateway
from tests.bench.seen import writes
from tests.cluster.api import STRATEGIC, Api, ApiError
from tests.cluster.cluster import write_kubeconfig
from tests.cluster.kube.proxy import Proxy, is_write, proxy_before
from tests.cluster.objects import namespace_object, shop_deployment, shop_route, shop_service, state_dir
from tests.faults.oracles import ABOVE, Event, Object, broken, epoch_of, weight_of

ROOT = Path(__file__).parents[2]
NAME = "shop"
SERIN = "system:serviceaccount:serin-system:serin-controller"
GROUPS = ("system:serviceaccounts", "system:serviceaccounts:serin-system", "system:authenticated")
STEPS = ({"weight": 20, "bake": "2s"}, {"weight": 50, "bake": "2s"})
LONG = ({"weight": 30, "bake": "1h"},)
RESTING = frozenset({None, "Pending", "Idle", "RolledBack"})
WATCHED = {
    "Canary": "/apis/serin.dev/v1alpha1/namespaces/{}/canaries",
    "ReleaseRecord": "/apis/serin.dev/v1alpha1/namespaces/{}/releaserecords",
    "HTTPRoute": "/apis/gateway.networking.k8s.io/v1/namespaces/{}/httproutes",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "Service": "/api/v1/namespaces/{}/services",
}
CANARIES = Resource("serin.dev", "v1alpha1", "canaries", "Canary")
MERGE = "application/merge-patch+json"


@dataclass
class Replica:
    """One controller process and the proxy it sees the API server through."""

    process: asyncio.subprocess.Process
    proxy: Proxy
    log: Path

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def killed(self) -> None:
        """As by a node's kernel; returns when it is gone."""
        self.send(signal.SIGKILL)
        await self.process.wait()

    async def exit_code(self, within: float = 20.0) -> int:
        """The status it ended with by itself."""
        async with asyncio.timeout(within):
            return await self.process.wait()

    @property
    def writes(self) -> list[tuple[str, str]]:
        """What this process asked to be changed, answered or not."""
        return [(method, path) for method, path, _ in self.proxy.requests if is_write(method, path)]


@dataclass(repr=False)
class Rig:
    """`async with rig(...) as it:`; the oracles are asked when the block ends."""

    namespace: str
    api: Api
    gateway: ScriptedGateway
    stack: AsyncExitStack
    events: list[Event] = field(default_factory=list)
    foreign: set[int] = field(default_factory=set)
    replicas: list[Replica] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    above: float = ABOVE
    """seconds a weight may stand above what is authorised before the oracle speaks"""
    muted: bool = False
    """the gateway does not do what the route says"""

    # what there is

    @property
    def replica(self) -> Replica:
        """The newest one."""
        return self.replicas[-1]

    @property
    def proxy(self) -> Proxy:
        return self.replica.proxy

    def latest(self, kind: str, name: str = NAME) -> Object:
        """The newest version seen; empty when there is none or it is gone."""
        found = next((one for one in reversed(self.events) if one.kind == kind and one.name == name), None)
        return {} if found is None or found.gone else found.object

    @property
    def status(self) -> Object:
        return dict(self.latest("Canary").get("status") or {})

    @property
    def attempt(self) -> Object:
        return dict(self.status.get("attempt") or {})

    @property
    def weight(self) -> float:
        route = self.latest("HTTPRoute")
        return weight_of(route, f"{NAME}-canary") if route else 0.0

    @property
    def epoch(self) -> str:
        """The stamp on the route."""
        route = self.latest("HTTPRoute")
        return epoch_of(route, f"{NAME}-canary") if route else ""

    @property
    def image(self) -> str:
        """The revision in the target's template."""
        containers = self.latest("Deployment")["spec"]["template"]["spec"]["containers"]
        return str(containers[0]["image"]).rpartition(":")[2]

    def conditions(self) -> dict[str, str]:
        return {one["type"]: one["status"] for one in self.status.get("conditions") or ()}

    def records(self) -> list[Object]:
        names = sorted({one.name for one in self.events if one.kind == "ReleaseRecord"})
        found = [dict(self.latest("ReleaseRecord", name)["spec"]) for name in names]
        return [one for one in found if one["canary"] == NAME]

    # waiting

    async def until(self, check: Callable[[], Any], within: float = 60.0, what: str = "") -> Any:
        """Look at each arrival, and twice a second, until `check` returns something true."""
        try:
            async with asyncio.timeout(within):
                while not (found := check()):
                    self.news.clear()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self.news.wait(), 0.5)
                return found
        except TimeoutError:
            raise AssertionError(f"not within {within:.0f} s: {what or check}\n{self.story()}") from None

    async def until_phase(self, *phases: str, within: float = 60.0) -> Object:
        await self.until(lambda: self.status.get("phase") in phases, within, f"phase {' or '.join(phases)}")
        return self.status

    async def until_reason(self, *reasons: str, within: float = 60.0) -> Object:
        await self.until(lambda: self.status.get("reason") in reasons, within, f"reason {' or '.join(reasons)}")
        return self.status

    async def until_weight(self, percent: float, within: float = 60.0) -> Object:
        """The route has it, and its step's traffic has arrived (at 0: nothing more)."""
        await self.until(
            lambda: self.weight == percent and (not percent or self.attempt.get("bakingSince")),
            within,
            f"weight {percent:g}",
        )
        return self.status

    async def until_ended(self, after: str = "", within: float = 90.0) -> Object:
        """The attempt, once it has its outcome, is sealed, and nothing of it is left to do."""

        def ended() -> bool:
            attempt = self.attempt
            resting = self.status.get("phase") in RESTING and attempt.get("outcome") and attempt["id"] != after
            return bool(resting) and any(
                one.get("attempt") == attempt["id"] and one.get("outcome") for one in self.records()
            )

        await self.until(ended, within, "the attempt ended")
        return self.attempt

    async def until_held(self, within: float = 60.0) -> None:
        """At rest, and an edit would be held."""
        held = lambda: self.status.get("editsHeld") and self.status.get("phase") == "Idle"  # noqa: E731
        await self.until(held, within, "edits are held")

    def story(self) -> str:
        """What happened, for a failed test."""
        lines, last = [], ""
        for one in self.events:
            if one.kind == "Canary":
                status = one.object.get("status") or {}
                attempt = status.get("attempt") or {}
                line = (
                    f"{status.get('phase')} step={attempt.get('step', 0)} weight={status.get('weight', 0):g} "
                    f"term={status.get('leaderEpoch')} {status.get('reason')}: {str(status.get('message', ''))[:160]}"
                )
            elif one.kind == "HTTPRoute":
                line = f"route {weight_of(one.object, f'{NAME}-canary'):g} %"
            else:
                continue
            if line != last:
                lines.append(f"{one.at:.2f} {line}")
            last = line
        logs = [each.log.read_text(errors="replace")[-1500:] for each in self.replicas[-2:]]
        return "\n".join([*lines[-40:], *logs])

    # what people, tools and nature do

    async def start(self, lease_in: str = "") -> Replica:
        """A controller process of its own, behind a proxy of its own."""
        proxy = await self.stack.enter_async_context(proxy_before(await _serin()))
        number = len(self.replicas)
        kubeconfig = state_dir() / f"{self.namespace}-{number}.kubeconfig"
        kubeconfig.write_text(json.dumps(_kubeconfig(proxy.url)))
        log = state_dir() / "logs" / f"{self.namespace}-{number}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "controller", "--kubeconfig", str(kubeconfig), "--namespace", self.namespace),
                *("--bind", "127.0.0.1", "--metrics-port", str(_port()), "--health-port", str(_port())),
                env=os.environ | {"POD_NAMESPACE": lease_in or self.namespace, "POD_NAME": f"controller-{number}"},
                cwd=ROOT,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.replicas.append(Replica(process, proxy, log))
        return self.replica

    async def restart(self) -> Replica:
        """The next process after one that is gone; it need not wait for the Lease to run out."""
        await self.free_lease()
        return await self.start()

    async def free_lease(self) -> None:
        path = f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases/serin-controller"
        with contextlib.suppress(ApiError):
            await self.api.call("PATCH", path, {"spec": {"holderIdentity": ""}}, MERGE)

    async def edit(self, revision: str, **annotations: str) -> None:
        """A new revision, as its owner would bring it."""
        container = {"name": "app", "image": f"registry.local/shop:{revision}"}
        template: Object = {"spec": {"containers": [container]}}
        if annotations:
            template["metadata"] = {"annotations": {f"serin.dev/{name}": text for name, text in annotations.items()}}
        await self.api.call("PATCH", self.path("Deployment"), {"spec": {"template": template}}, STRATEGIC)

    async def patch(self, kind: str, body: Object, name: str = NAME) -> Object:
        """Somebody else's merge patch, once it is seen here too; its revision is no writing of ours."""
        found = await self.api.call("PATCH", self.path(kind, name), body, MERGE)
        revision = int(found["metadata"]["resourceVersion"])
        self.foreign.add(revision)
        await self.until(lambda: any(one.revision >= revision and one.kind == kind for one in self.events[-500:]), 20)
        return found

    async def hand_edit(self, percent: int) -> None:
        """Somebody edits the route's weights."""
        backends = [
            {"name": NAME, "port": 80, "weight": 100 - percent},
            {"name": f"{NAME}-canary", "port": 80, "weight": percent},
        ]
        await self.patch("HTTPRoute", {"spec": {"rules": [{"backendRefs": backends}]}})

    async def decide(self, verb: str, attempt: str = "", **spec: Any) -> None:
        """One person's Decision."""
        said = {"canary": NAME, "decision": verb, "by": "admin", "reason": "the test says so"}
        images = {one["image"]: one.get("digest", "") for one in (self.attempt.get("evidence") or {}).get("images", [])}
        said |= {
            "digest": bound_digest(tuple(self.attempt.get("images", ())), images),
            "planDigest": self.attempt.get("planDigest", ""),
        }
        body = {
            "apiVersion": "serin.dev/v1alpha1",
            "kind": "Decision",
            "metadata": {"generateName": "said-"},
            "spec": said | {"attempt": attempt or self.attempt["id"]} | spec,
        }
        await self.api.call("POST", f"/apis/serin.dev/v1alpha1/namespaces/{self.namespace}/decisions", body)

    async def write_status(self, name: str, status: Object) -> None:
        """As Serin's own service account: admission lets nobody else."""
        async with KubeApi(await _serin()) as api:
            await api.merge_patch(CANARIES, self.namespace, name, {"status": status}, subresource="status")

    async def lease_rights(self, namespace: str) -> None:
        """A namespace in which the controller may hold a Lease."""
        labels = {"tests.serin.dev/no-process": "true"}
        await self.api.apply(f"/api/v1/namespaces/{namespace}", namespace_object(namespace, labels))
        for body in yaml.safe_load_all((ROOT / "manifests" / "rbac" / "own-namespace.yaml").read_text()):
            if body["kind"] in {"Role", "RoleBinding"}:
                body["metadata"]["namespace"] = namespace
                plural = {"Role": "roles", "RoleBinding": "rolebindings"}[body["kind"]]
                where = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/{plural}/serin-controller"
                await self.api.apply(where, body)

    async def delete(self, kind: str, name: str = NAME) -> None:
        with contextlib.suppress(ApiError):
            await self.api.call("DELETE", self.path(kind, name))

    def spoil(self) -> None:
        """From the next scrape on the canary fails half of its requests."""
        self.gateway.spoil(self.namespace, NAME, time.time())

    def path(self, kind: str, name: str = NAME) -> str:
        return f"{WATCHED[kind].format(self.namespace)}/{name}"

    # the workload

    async def shop(self, steps: Sequence[Object] = STEPS, **analysis: Any) -> None:
        """A Deployment whose pods are Ready without processes, its Service and route, and the Canary."""
        now = time.time()
        self.gateway.add(self.namespace, NAME, now)
        for body in (
            shop_deployment(NAME, self.namespace, "v1", 2, pre_stop=0),
            shop_service(NAME, self.namespace),
            shop_route(NAME, self.namespace),
        ):
            await self.api.apply(self.path(body["kind"]), body)
        made = canary(self.namespace, NAME, steps, self.namespace)
        made["spec"]["analysis"] |= analysis
        await self.api.apply(self.path("Canary"), made)

    async def ready(self, steps: Sequence[Object] = STEPS, **analysis: Any) -> None:
        """The workload and one controller, adopted, its edits held."""
        await self.start()
        await self.shop(steps, **analysis)
        await self.until_held()

    async def writes_at_rest(self, seconds: float = 2.0) -> list[Any]:
        """O10: what the controller writes here while nothing happens, by the API server's audit log."""
        since = time.time()
        await asyncio.sleep(seconds)
        found = await asyncio.to_thread(writes, state_dir(), since, time.time() + 1)
        return [one for one in found if one.namespace == self.namespace and one.what != "events"]

    def assert_clean(self) -> None:
        """O9: route, Service and Deployment are as their owner wrote them."""
        (rule,) = self.latest("HTTPRoute")["spec"]["rules"]
        assert [one["name"] for one in rule["backendRefs"]] == [NAME], rule
        assert self.latest("Service")["spec"]["selector"] == {"app": NAME}
        assert not self.latest("Deployment", f"{NAME}-canary")
        assert not self.latest("Service", f"{NAME}-canary")

    async def assert_promoted(self, revision: str = "v2") -> None:
        """O9 for a good revision: what it comes to without any fault."""
        attempt = await self.until_ended()
        assert attempt["outcome"] == "Promoted", self.story()
        assert [one["step"] for one in attempt["stepsSeen"]] == [one + 1 for one in range(len(attempt["plan"]))]
        assert self.image == revision
        assert not self.latest("Deployment")["spec"].get("paused")
        (record,) = self.records()
        assert [one["step"] for one in record["steps"]] == [one["step"] for one in attempt["stepsSeen"]]
        await self.until(lambda: not self.latest("Deployment", f"{NAME}-canary"))
        self.assert_clean()

    async def assert_back_on_stable(self, outcome: str = "RolledBack") -> None:
        """O9 for a revision that is not wanted."""
        attempt = await self.until_ended()
        assert attempt["outcome"] == outcome, self.story()
        await self.until(lambda: not self.latest("Deployment", f"{NAME}-canary"))
        self.assert_clean()
        stable = self.status["stable"]["hash"]
        assert self.latest("Deployment")["status"]["readyReplicas"] == 2
        assert stable


@asynccontextmanager
async def rig(namespace: str) -> AsyncIterator[Rig]:
    """Everything but the workload and the controller; both go when the block ends, and then the oracles are asked."""
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(Api(state_dir() / "pki", "admin"))
        gateway = await stack.enter_async_context(ScriptedGateway())
        made = Rig(namespace, api, gateway, stack)
        await _prepare(made)
        watching = [asyncio.create_task(_watch(made, kind)) for kind in WATCHED]
        try:
            yield made
            assert not (found := broken(made.events, NAME, frozenset(made.foreign), above=made.above)), "\n".join(
                [*found, made.story()]
            )
        finally:
            for replica in made.replicas:
                replica.send(signal.SIGKILL)
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
            await _remove(made)


async def _serin() -> Credentials:
    return await load_credentials(str(write_kubeconfig(state_dir(), SERIN, GROUPS)))


async def _prepare(made: Rig) -> None:
    await made.lease_rights(made.namespace)
    source: Object = {
        "apiVersion": "serin.dev/v1alpha1",
        "kind": "MetricsSource",
        "metadata": {"name": made.namespace},
        "spec": {"url": made.gateway.url, "scrapeInterval": "1s"},
    }
    await made.api.apply(f"/apis/serin.dev/v1alpha1/metricssources/{made.namespace}", source)


async def _watch(made: Rig, kind: str) -> None:
    """Every version of every object of this kind in the namespace, in order."""
    path = WATCHED[kind].format(made.namespace)
    version = await _first_version(made, path)
    while True:
        async for event in made.api.watch(path, version):
            body = event["object"]
            version = body["metadata"]["resourceVersion"]
            if event["type"] == "BOOKMARK":
                continue
            made.events.append(Event(time.time(), int(version), kind, body, event["type"] == "DELETED"))
            if kind == "HTTPRoute" and not made.muted and f"{made.namespace}/{NAME}" in made.gateway.workloads:
                made.gateway.shift(made.namespace, NAME, weight_of(body, f"{NAME}-canary"), time.time())
            made.news.set()


async def _first_version(made: Rig, path: str) -> str:
    """A kind that was just created may still be unknown for a moment."""
    while True:
        try:
            return str((await made.api.call("GET", path))["metadata"]["resourceVersion"])
        except ApiError:
            await asyncio.sleep(0.2)


async def _remove(made: Rig) -> None:
    with contextlib.suppress(ApiError):
        await made.api.call("PATCH", made.path("Canary"), {"metadata": {"finalizers": None}}, MERGE)
    for path in (
        made.path("Canary"),
        f"/apis/serin.dev/v1alpha1/metricssources/{made.namespace}",
        f"/api/v1/namespaces/{made.namespace}",
        f"/api/v1/namespaces/{made.namespace}-too",
    ):
        with contextlib.suppress(ApiError):
            await made.api.call("DELETE", path)


def _kubeconfig(url: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "proxy",
        "clusters": [{"name": "proxy", "cluster": {"server": url}}],
        "users": [{"name": "serin", "user": {}}],
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "serin"}}],
    }


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
