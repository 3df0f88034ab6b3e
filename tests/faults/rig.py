"""One workload under a Canary, a controller of its own behind a rude API server, and scripted metrics.

The one thing to know: each test has its own namespace, Lease, controller processes, proxy and metrics server, so a
fault meets nobody else. Everything here is asynchronous, because the proxies run in the test's own event loop.

Each kind is watched on its own, so what is seen of one says nothing of another: a route that was written before a
status may be seen after it. Wait for each, or ask `at` for the order of the API server.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

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
from tests.faults.oracles import ABOVE, Event, Moment, Object, broken, epoch_of, moments, weight_of

ROOT = Path(__file__).parents[2]
NAME = "shop"
SERIN = "system:serviceaccount:serin-system:serin-controller"
GROUPS = ("system:serviceaccounts", "system:serviceaccounts:serin-system", "system:authenticated")
STEPS = ({"weight": 20, "bake": "2s"}, {"weight": 50, "bake": "2s"})
LONG = ({"weight": 30, "bake": "1h"},)
PATIENCE = 180.0
"""seconds, on a machine that is busy with other things; what goes well takes a fraction of it"""
LEASE_LOST = 70
"""the exit code of a process that could not renew its lease"""
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
    another: Callable[[], Awaitable[Replica]]
    """starts the next one in the same way"""

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def killed(self) -> None:
        """As by a node's kernel; returns when it is gone."""
        self.send(signal.SIGKILL)
        await self.process.wait()

    async def exit_code(self, within: float = PATIENCE) -> int:
        """The status it ended with by itself."""
        async with asyncio.timeout(within):
            return await self.process.wait()

    def peak_memory(self) -> int:
        """Bytes it had resident at most."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])

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
    environment: dict[str, str] = field(default_factory=dict)
    """of controllers that start from now on, beside what they need"""
    following: list[asyncio.Task[None]] = field(default_factory=list)

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

    @property
    def paused(self) -> bool:
        """The target, whoever paused it."""
        return bool(self.latest("Deployment")["spec"].get("paused"))

    def conditions(self) -> dict[str, str]:
        return {one["type"]: one["status"] for one in self.status.get("conditions") or ()}

    def records(self) -> list[Object]:
        names = sorted({one.name for one in self.events if one.kind == "ReleaseRecord"})
        found = [dict(self.latest("ReleaseRecord", name)["spec"]) for name in names]
        return [one for one in found if one["canary"] == NAME]

    # waiting

    async def until(self, check: Callable[[], Any], within: float = PATIENCE, what: str = "") -> Any:
        """Look at each arrival, and twice a second, until `check` returns something true."""
        try:
            async with asyncio.timeout(within):
                while not (found := check()):
                    await self._start_again()
                    self.news.clear()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self.news.wait(), 0.5)
                return found
        except TimeoutError:
            raise AssertionError(f"not within {within:.0f} s: {what or check}\n{self.story()}") from None

    async def _start_again(self) -> None:
        """As a kubelet does, where the machine stood still for so long that the newest process could not renew its
        lease; what its proxy does to it stays. Who expects that end asks for the exit code, and waits for nothing else.
        """
        if self.replicas and (ended := self.replica).process.returncode == LEASE_LOST:
            await ended.another()
            self.proxy.faults = ended.proxy.faults

    async def until_answered(self, ask: Callable[[], Awaitable[Any]], within: float = PATIENCE, what: str = "") -> Any:
        """Ask somebody ten times a second until the answer is true: for what is not watched."""
        try:
            async with asyncio.timeout(within):
                while not (found := await ask()):  # noqa: ASYNC110 - nobody tells when the answer changes
                    await asyncio.sleep(0.1)
                return found
        except TimeoutError:
            raise AssertionError(f"not within {within:.0f} s: {what or ask}\n{self.story()}") from None

    async def until_phase(self, *phases: str, within: float = PATIENCE) -> Object:
        await self.until(lambda: self.status.get("phase") in phases, within, f"phase {' or '.join(phases)}")
        return self.status

    async def until_reason(self, *reasons: str, within: float = PATIENCE) -> Object:
        await self.until(lambda: self.status.get("reason") in reasons, within, f"reason {' or '.join(reasons)}")
        return self.status

    async def until_weight(self, percent: float, within: float = PATIENCE) -> Object:
        """The route has it, and its step's traffic has arrived (at 0: nothing more)."""
        await self.until(
            lambda: self.weight == percent and (not percent or self.attempt.get("bakingSince")),
            within,
            f"weight {percent:g}",
        )
        return self.status

    def ended(self, after: str = "") -> bool:
        """The attempt has its outcome, is sealed, and nothing of it is left to do."""
        attempt = self.attempt
        resting = self.status.get("phase") in RESTING and attempt.get("outcome") and attempt["id"] != after
        return bool(resting) and any(
            one.get("attempt") == attempt["id"] and one.get("outcome") for one in self.records()
        )

    async def until_ended(self, after: str = "", within: float = 2 * PATIENCE) -> Object:
        await self.until(lambda: self.ended(after), within, "the attempt ended")
        return self.attempt

    async def until_held(self, within: float = PATIENCE) -> None:
        await self.until(self.held, within, "edits are held")

    def held(self, name: str = NAME) -> bool:
        """At rest, and an edit would be held."""
        status = self.latest("Canary", name).get("status") or {}
        return bool(status.get("editsHeld") and status.get("phase") == "Idle")

    def has_traffic(self, name: str) -> bool:
        """The route of this Canary gives it some."""
        return weight_of(self.latest("HTTPRoute", name), f"{name}-canary") > 0

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

    def at(self, check: Callable[[Moment], Any]) -> Moment:
        """The first moment of the API server that passes; everything before it must have been seen."""
        found = next((one for one in moments(self.events, NAME) if check(one)), None)
        assert found is not None, self.story()
        return found

    # what people, tools and nature do

    def on_phase(self, phase: str, act: Callable[[], Awaitable[Any]]) -> None:
        """`act` once, with the first status of this phase: before its writer hears that it was written."""
        done = False

        async def look(request: web.Request) -> None:
            nonlocal done
            written = next((one["value"] for one in json.loads(await request.read()) if one["path"] == "/status"), {})
            if written.get("phase") == phase and not done:
                done = True
                await act()

        self.proxy.fault(writes=True, path=f"canaries/{NAME}/status", after=look)

    def on_traffic(self, act: Callable[[], None]) -> None:
        """`act` once, with the canary's first weight: before its writer hears that it was written."""
        done = False

        async def look(request: web.Request) -> None:
            nonlocal done
            if not done and weight_of(await self.api.call("GET", self.path("HTTPRoute")), f"{NAME}-canary"):
                done = True
                act()

        self.proxy.fault(writes=True, path=f"httproutes/{NAME}", after=look)

    async def start(
        self,
        lease_in: str = "",
        host_of: Callable[[web.Request], str] | None = None,
        *,
        everywhere: bool = False,
    ) -> Replica:
        """A controller process of its own, behind a proxy of its own, which may choose among API servers.

        `everywhere`: it looks at all namespaces, so nobody else's may be there.
        """
        proxy = await self.stack.enter_async_context(proxy_before(await _serin()))
        proxy.host_of = host_of
        number = len(self.replicas)
        kubeconfig = state_dir() / f"{self.namespace}-{number}.kubeconfig"
        kubeconfig.write_text(json.dumps(_kubeconfig(proxy.url)))
        log = state_dir() / "logs" / f"{self.namespace}-{number}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "controller", "--kubeconfig", str(kubeconfig)),
                *(() if everywhere else ("--namespace", self.namespace)),
                # Nobody asks there: any port does, and one that was looked for may be taken by the time it is bound.
                *("--bind", "127.0.0.1", "--metrics-port", "0", "--health-port", "0"),
                env=os.environ
                | {"POD_NAMESPACE": lease_in or self.namespace, "POD_NAME": f"controller-{number}"}
                | self.environment,
                cwd=ROOT,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        another = partial(self.start, lease_in, host_of, everywhere=everywhere)
        self.replicas.append(Replica(process, proxy, log, another))
        return self.replica

    async def restart(self, host_of: Callable[[web.Request], str] | None = None) -> Replica:
        """The next process after one that is gone; it need not wait for the Lease to run out."""
        await self.free_lease()
        return await self.start(host_of=host_of)

    async def free_lease(self) -> None:
        with contextlib.suppress(ApiError):
            await self.api.call("PATCH", self.lease, {"spec": {"holderIdentity": ""}}, MERGE)

    async def renewed(self) -> float:
        """When the Lease was renewed last."""
        return datetime.fromisoformat((await self.api.call("GET", self.lease))["spec"]["renewTime"]).timestamp()

    @property
    def lease(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases/serin-controller"

    async def edit(self, revision: str, name: str = NAME, **annotations: str) -> None:
        """A new revision, as its owner would bring it."""
        container = {"name": "app", "image": f"registry.local/shop:{revision}"}
        template: Object = {"spec": {"containers": [container]}}
        if annotations:
            template["metadata"] = {"annotations": {f"serin.dev/{name}": text for name, text in annotations.items()}}
        await self.api.call("PATCH", self.path("Deployment", name), {"spec": {"template": template}}, STRATEGIC)

    async def patch(self, kind: str, body: Object, name: str = NAME) -> Object:
        """Somebody else's merge patch, once it is seen here too; its revision is no writing of ours."""
        found = await self.api.call("PATCH", self.path(kind, name), body, MERGE)
        revision = int(found["metadata"]["resourceVersion"])
        self.foreign.add(revision)
        await self.until(lambda: any(one.revision >= revision and one.kind == kind for one in self.events[-500:]))
        return found

    async def hand_edit(self, percent: int) -> None:
        """Somebody edits the route's weights."""
        backends = [
            {"name": NAME, "port": 80, "weight": 100 - percent},
            {"name": f"{NAME}-canary", "port": 80, "weight": percent},
        ]
        await self.patch("HTTPRoute", {"spec": {"rules": [{"backendRefs": backends}]}})

    async def scale_canary_away(self) -> None:
        """Somebody scales it to nothing, which the controller sees when the pod is gone.

        If it saw the number first it would put that right, and there would be no fault: neither a watch nor a live
        look, which comes in its own time, tells of it before.
        """
        self.proxy.hold_back()
        unread = self.proxy.fault(method="GET", path=f"/deployments/{NAME}-canary", status=503)
        await self.patch("Deployment", {"spec": {"replicas": 0}}, f"{NAME}-canary")
        await self.until(lambda: not self.latest("Deployment", f"{NAME}-canary")["status"].get("replicas"), what="gone")
        self.proxy.faults.remove(unread)
        self.proxy.let_go()

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

    async def ready(
        self, steps: Sequence[Object] = STEPS, host_of: Callable[[web.Request], str] | None = None, **analysis: Any
    ) -> None:
        """The workload and one controller, adopted, its edits held."""
        await self.start(host_of=host_of)
        await self.shop(steps, **analysis)
        await self.until_held()

    # what is seen

    async def follow(self) -> None:
        """From now on every version of everything is seen; returns when what is there already has been."""
        listed = [asyncio.Event() for _ in WATCHED]
        tasks = [asyncio.create_task(_watch(self, kind, done)) for kind, done in zip(WATCHED, listed, strict=True)]
        self.following += tasks
        await asyncio.gather(*(one.wait() for one in listed))
        # What is there already was written by whoever; the oracles judge what comes.
        self.foreign |= {one.revision for one in self.events}

    async def forget(self) -> None:
        """Before the store goes back in time: the oracles are asked, and the history ends here."""
        for task in self.following:
            task.cancel()
        await asyncio.gather(*self.following, return_exceptions=True)
        self.following.clear()
        self.ask_oracles()
        self.events.clear()
        self.foreign.clear()

    def ask_oracles(self) -> None:
        found = broken(self.events, NAME, frozenset(self.foreign), above=self.above)
        assert not found, "\n".join([*found, self.story()])

    async def writes_at_rest(self, seconds: float = 2.0) -> list[Any]:
        """O10: what the controller writes here while nothing happens, by the API server's audit log."""
        since = time.time()
        await asyncio.sleep(seconds)
        found = await asyncio.to_thread(writes, state_dir(), since, time.time() + 1)
        return [one for one in found if one.namespace == self.namespace and one.what != "events"]

    async def until_clean(self) -> None:
        """O9: route, Service and Deployment are as their owner wrote them, and no canary is there."""
        await self.until(lambda: not self._left(), what="nothing of ours is left")

    def _left(self) -> list[str]:
        (rule,) = self.latest("HTTPRoute")["spec"]["rules"]
        left = [kind for kind in ("Deployment", "Service") if self.latest(kind, f"{NAME}-canary")]
        left += ["backendRefs"] if [one["name"] for one in rule["backendRefs"]] != [NAME] else []
        return left + (["selector"] if self.latest("Service")["spec"]["selector"] != {"app": NAME} else [])

    async def assert_promoted(self, revision: str = "v2", *, bakes_anew: bool = False) -> None:
        """O9 for a good revision: what it comes to without any fault. Some faults make a step bake again."""
        attempt = await self.until_ended()
        assert attempt["outcome"] == "Promoted", self.story()
        seen = [one["step"] for one in attempt["stepsSeen"]]
        assert (list(dict.fromkeys(seen)) if bakes_anew else seen) == list(range(1, len(attempt["plan"]) + 1))
        assert self.image == revision
        await self.until(lambda: not self.paused, what="not paused")
        (record,) = self.records()
        assert [one["step"] for one in record["steps"]] == [one["step"] for one in attempt["stepsSeen"]]
        await self.until_clean()

    async def assert_back_on_stable(self, outcome: str = "RolledBack") -> None:
        """O9 for a revision that is not wanted."""
        attempt = await self.until_ended()
        assert attempt["outcome"] == outcome, self.story()
        await self.until_clean()
        assert self.status["stable"]["hash"]
        await self.until(lambda: self.latest("Deployment")["status"].get("readyReplicas") == 2, what="stable is whole")


@asynccontextmanager
async def rig(namespace: str) -> AsyncIterator[Rig]:
    """Everything but the workload and the controller; both go when the block ends, and then the oracles are asked."""
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(Api(state_dir() / "pki", "admin"))
        gateway = await stack.enter_async_context(ScriptedGateway())
        made = Rig(namespace, api, gateway, stack)
        await _prepare(made)
        await made.follow()
        try:
            yield made
            made.ask_oracles()
        finally:
            for replica in made.replicas:
                replica.send(signal.SIGKILL)
            for task in made.following:
                task.cancel()
            await asyncio.gather(*made.following, return_exceptions=True)
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


async def _watch(made: Rig, kind: str, listed: asyncio.Event) -> None:
    """Every version of every object of this kind in the namespace, in order."""
    path = WATCHED[kind].format(made.namespace)
    there = await _list(made, path)
    version = str(there["metadata"]["resourceVersion"])
    for body in there["items"]:
        _note(made, kind, body, int(body["metadata"]["resourceVersion"]))
    listed.set()
    while True:
        try:
            async for event in made.api.watch(path, version):
                version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    _note(made, kind, event["object"], int(version), event["type"] == "DELETED")
        except (ApiError, aiohttp.ClientError):
            # The API server is away; what it will say comes after what it said.
            await asyncio.sleep(0.2)


def _note(made: Rig, kind: str, body: Object, revision: int, gone: bool = False) -> None:
    made.events.append(Event(time.time(), revision, kind, body, gone))
    is_ours = kind == "HTTPRoute" and body["metadata"]["name"] == NAME
    if is_ours and not made.muted and f"{made.namespace}/{NAME}" in made.gateway.workloads:
        made.gateway.shift(made.namespace, NAME, weight_of(body, f"{NAME}-canary"), time.time())
    made.news.set()


async def _list(made: Rig, path: str) -> Object:
    """A kind that was just created may still be unknown for a moment."""
    while True:
        try:
            return await made.api.call("GET", path)
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


async def in_groups(calls: Sequence[Coroutine[Any, Any, Any]], size: int = 16) -> None:
    """All of them, a few at a time."""
    gate = asyncio.Semaphore(size)

    async def one(call: Coroutine[Any, Any, Any]) -> None:
        async with gate:
            await call

    await asyncio.gather(*map(one, calls))
