"""Serin installed, a scripted gateway beside the real one, and fleets of workloads to release."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.scripted import RETENTION, ScriptedGateway
from tests.bench.seen import Timeline
from tests.cluster.api import STRATEGIC, Api, Object
from tests.cluster.objects import (
    kubectl,
    namespace_object,
    shop_deployment,
    shop_route,
    shop_service,
    state_dir,
)

ROOT = Path(__file__).parents[2]
SYSTEM = "serin-system"
DEPLOYMENT = "deployment/serin-controller"
SCRIPTED = "scripted"
BEGAN = time.monotonic()


def say(line: str) -> None:
    print(f"[{time.monotonic() - BEGAN:5.0f} s] {line}", flush=True)


@dataclass(frozen=True)
class Fleet:
    """Workloads with a Canary and a route each."""

    keys: tuple[str, ...]

    @property
    def namespaces(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(key.partition("/")[0] for key in self.keys))


@dataclass
class Scene:
    """What measurements share."""

    api: Api
    gateway: ScriptedGateway
    seen: Timeline

    async def fleet(
        self,
        prefix: str,
        count: int,
        steps: Sequence[Mapping[str, Any]],
        *,
        per_namespace: int = 10,
        within: float = 180,
    ) -> Fleet:
        """Workloads whose pods are Ready without processes, their edits held and their past of an hour looked at."""
        keys = tuple(f"{prefix}-{number // per_namespace}/app-{number}" for number in range(count))
        made = Fleet(keys)
        for namespace in made.namespaces:
            marked = namespace_object(namespace, {"tests.serin.dev/no-process": "true"})
            await self.api.apply(f"/api/v1/namespaces/{namespace}", marked)
        since = time.time() - RETENTION
        for key in keys:
            self.gateway.add(*key.split("/"), since)
        await self._apply_all([each for key in keys for each in _workload(*key.split("/"))])
        await self._apply_all([canary(*key.split("/"), steps, SCRIPTED) for key in keys])
        told = time.monotonic()

        def rest() -> bool:
            nonlocal told
            resting = sum(bool(one.get("editsHeld") and one.get("outlook")) for one in map(self.seen.status, keys))
            if time.monotonic() - told > 20:
                told = time.monotonic()
                say(f"    {resting} of {count} are taken on")
            return resting == count

        await self.seen.until(rest, within, "edits are held, and the past was looked at")
        return made

    async def edit(self, key: str, revision: str) -> None:
        """A new revision, as its owner would bring it."""
        namespace, name = key.split("/")
        container = {"name": "app", "image": f"registry.local/shop:{revision}"}
        body: Object = {"spec": {"template": {"spec": {"containers": [container]}}}}
        await self.api.call("PATCH", f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}", body, STRATEGIC)

    async def until_weight(self, keys: Sequence[str], weight: float, within: float = 120.0) -> None:
        """The routes have it, and the steps' traffic has arrived."""

        def arrived(key: str) -> bool:
            attempt = self.seen.status(key).get("attempt") or {}
            return self.seen.weight(key) == weight and "bakingSince" in attempt

        await self.seen.until(lambda: all(map(arrived, keys)), within, f"weight {weight:g} on {len(keys)} routes")

    async def until_ended(self, key: str, after: str = "", within: float = 180.0) -> Object:
        """The attempt, once it has its outcome and nothing of it is left to do."""

        def ended() -> Object | None:
            status = self.seen.status(key)
            attempt: Object = status.get("attempt") or {}
            rests = status.get("phase") in {None, "Idle", "RolledBack"}
            return attempt if rests and attempt.get("outcome") and attempt["id"] != after else None

        return dict(await self.seen.until(ended, within, f"{key} has ended"))

    async def remove(self, fleet: Fleet) -> None:
        """Canaries first, so that the controller lets go of what it holds."""

        async def remove_one(namespace: str) -> None:
            with contextlib.suppress(AssertionError):
                await asyncio.to_thread(kubectl, "delete", "canaries", "--all", "-n", namespace, "--timeout=60s")
            await asyncio.to_thread(kubectl, "delete", "namespace", namespace, "--wait=false")

        await asyncio.gather(*map(remove_one, fleet.namespaces))
        for key in fleet.keys:
            self.seen.statuses.pop(key, None)
            self.seen.weights.pop(key, None)

    async def _apply_all(self, objects: Sequence[Object]) -> None:
        gate = asyncio.Semaphore(16)

        async def apply_one(body: Object) -> None:
            async with gate:
                await self.api.apply(_path(body), body)

        await asyncio.gather(*map(apply_one, objects))


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    """Serin installed by Helm, watched from outside."""
    say("Installing Serin with Helm from charts/serin.")
    await asyncio.to_thread(install)
    async with Api(state_dir() / "pki", "admin") as api, ScriptedGateway() as gateway:
        source: Object = {
            "apiVersion": "serin.dev/v1alpha1",
            "kind": "MetricsSource",
            "metadata": {"name": SCRIPTED},
            "spec": {"url": gateway.url, "scrapeInterval": "1s"},
        }
        await api.apply(f"/apis/serin.dev/v1alpha1/metricssources/{SCRIPTED}", source)

        def shift(namespace: str, name: str, weight: float, at: float) -> None:
            if f"{namespace}/{name}" in gateway.workloads:
                gateway.shift(namespace, name, weight, at)

        async with Timeline(api, shift) as seen:
            yield Scene(api, gateway, seen)


def install() -> None:
    command = [
        *("helm", "install", "serin", str(ROOT / "charts" / "serin"), "-n", SYSTEM, "--create-namespace"),
        *("--set", f"metrics.url={os.environ['SERIN_PROMETHEUS']}", "--set", "metrics.scrapeInterval=1s"),
        *("--wait", "--timeout", "90s"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"helm install failed:\n{done.stdout}{done.stderr}")


def canary(namespace: str, name: str, steps: Sequence[Mapping[str, Any]], source: str) -> Object:
    """Both of the usual metrics: two queries a scrape."""
    return {
        "apiVersion": "serin.dev/v1alpha1",
        "kind": "Canary",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "targetRef": {"kind": "Deployment", "name": name},
            "traffic": {"service": {"name": name, "port": 80}, "httpRoute": {"name": name}},
            "steps": [dict(step) for step in steps],
            "analysis": {
                "source": source,
                "warmup": "1s",
                "minRequests": 20,
                "onInconclusive": "advance",
                "metrics": [
                    {"name": "errors", "errorRatio": {"template": "gateway"}, "margin": 0.005},
                    {"name": "latency", "latency": {"template": "gateway", "threshold": "250ms"}, "margin": 0.01},
                ],
            },
        },
    }


def _workload(namespace: str, name: str) -> list[Object]:
    return [
        shop_deployment(name, namespace, "v1", 1, annotations={"prometheus.io/scrape": "false"}, pre_stop=0),
        shop_service(name, namespace),
        shop_route(name, namespace),
    ]


def _path(body: Object) -> str:
    group = body["apiVersion"]
    plural = {"Canary": "canaries"}.get(body["kind"], body["kind"].lower() + "s")
    root = f"/apis/{group}" if "/" in group else f"/api/{group}"
    return f"{root}/namespaces/{body['metadata']['namespace']}/{plural}/{body['metadata']['name']}"


def leader_pod() -> str:
    """The replica that holds the Lease."""
    lease = json.loads(kubectl("get", "lease", "serin-controller", "-n", SYSTEM, "-o", "json"))
    return str(lease["spec"]["holderIdentity"]).rpartition("-")[0]


def leader_process() -> int:
    """Its process id."""
    (pid,) = (state_dir() / "pods" / SYSTEM / leader_pod()).glob("*.pid")
    return int(pid.read_text())


def kill_leader() -> float:
    """As a node's kernel would; the moment of it."""
    os.killpg(leader_process(), signal.SIGKILL)
    return time.time()


def plugin(verb: str, key: str, *more: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`kubectl canary VERB NAME`, the plugin alone."""
    namespace, name = key.split("/")
    command = [str(Path(sys.executable).parent / "kubectl-canary"), verb, name, "-n", namespace, *more]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | dict(env or {}))
