"""Serin as a user has it, for stories that need the whole product: installed by Helm once a session.

The one thing to know: only files that import these fixtures get Serin. Other cluster tests want a cluster in
which nothing acts on what they write, so `make test` gives those a cluster of their own.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.cluster.cluster import write_kubeconfig
from tests.cluster.conftest import RunningCluster
from tests.cluster.load import PATHS, Load, Report
from tests.cluster.objects import (
    Object,
    apply,
    eventually,
    get,
    kubectl,
    shop_deployment,
    shop_route,
    shop_service,
    state_dir,
)
from tests.cluster.podrunner import CHECKOUT

SYSTEM = "serin-system"
ENDED = frozenset({"Idle", "RolledBack"})
PATIENCE = 240.0
"""seconds, on a machine that is busy with other things; what goes well takes a fraction of it"""


@pytest.fixture(scope="session")
def serin(cluster: RunningCluster) -> None:
    """`helm install`, as the documentation says, or nothing where it is installed already."""
    with (state_dir() / "serin.lock").open("w") as one_at_a_time:
        # Tests may run side by side, in processes that share the cluster.
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        _install(cluster)


def _install(cluster: RunningCluster) -> None:
    if kubectl("get", "deployment", "serin-controller", "-n", SYSTEM, "--ignore-not-found", "-o", "name"):
        return
    command = [
        *("helm", "install", "serin", str(CHECKOUT / "charts" / "serin"), "-n", SYSTEM, "--create-namespace"),
        *("--set", f"metrics.url={cluster.prometheus}", "--set", "metrics.scrapeInterval=1s"),
        *("--set", "attestations.insecureRegistries={localhost:5000}"),
        *("--wait", "--timeout", "240s"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


def canary_object(namespace: str, steps: Sequence[Mapping[str, Any]], name: str = "shop", **spec: Any) -> Object:
    """A Canary with a short warm-up; `spec` replaces whole fields of its spec."""
    analysis = {
        "warmup": "1s",
        "minRequests": 20,
        # Most of them have no traffic, and some stand at one step for minutes.
        "noDataTimeout": "1h",
        # These stories are about something else, and a certificate takes a minute at least.
        "onInconclusive": "advance",
        "metrics": [{"name": "errors", "errorRatio": {"template": "gateway"}, "margin": 0.005}],
    }
    usual = {
        "targetRef": {"kind": "Deployment", "name": name},
        "traffic": {"service": {"name": name, "port": 80}, "httpRoute": {"name": name}},
        "steps": list(steps),
        "analysis": analysis,
    }
    return {
        "apiVersion": "serin.dev/v1alpha1",
        "kind": "Canary",
        "metadata": {"name": name, "namespace": namespace},
        "spec": usual | spec,
    }


@dataclass(frozen=True)
class Said:
    """What a command of the plugin printed, and how it ended."""

    code: int
    text: str


@dataclass
class Story:
    """One workload under one Canary, seen and steered as its owner does."""

    namespace: str
    name: str = "shop"
    replicas: int = 2
    seen: list[str] = field(default_factory=list)

    @property
    def host(self) -> str:
        return f"{self.name}.{self.namespace}.example"

    def edit(
        self, revision: str, env: Mapping[str, str] | None = None, annotations: Mapping[str, str] | None = None
    ) -> None:
        """The owner's server-side apply, without force: a conflict with Serin fails it."""
        apply([shop_deployment(self.name, self.namespace, revision, self.replicas, env, annotations)])

    def canary(self) -> Object:
        return get("canary", self.name, self.namespace)

    def status(self) -> Object:
        """The Canary's status; each change of phase, step, weight and reason stays in `seen`."""
        found = dict(self.canary().get("status") or {})
        attempt = found.get("attempt") or {}
        line = (
            f"{found.get('phase')} attempt={attempt.get('id')} step={attempt.get('step', 0)} "
            f"weight={found.get('weight', 0)} {found.get('reason')}: {found.get('message', '')}"
        )
        if self.seen[-1:] != [line]:
            self.seen.append(line)
        return found

    def attempt(self) -> Object:
        return dict(self.status().get("attempt") or {})

    def until(self, check: Callable[[Object], Any], within: float = PATIENCE) -> Object:
        """The status, once `check` agrees; else what was seen meanwhile."""

        def agreed() -> Object | None:
            found = self.status()
            return found if check(found) else None

        try:
            return eventually(agreed, within, every=0.15)
        except AssertionError as error:
            raise AssertionError("\n".join([str(error), *self.seen])) from error

    def until_phase(self, *phases: str, within: float = PATIENCE) -> Object:
        return self.until(lambda found: found.get("phase") in phases, within)

    def until_reason(self, reason: str, within: float = PATIENCE) -> Object:
        return self.until(lambda found: found.get("reason") == reason, within)

    def until_held(self) -> Object:
        """Adopted, and the hold proven: from here on no edit rolls by itself."""
        return self.until(lambda found: found.get("editsHeld") and found.get("phase") in ENDED)

    def until_weight(self, weight: float, within: float = PATIENCE) -> Object:
        """This weight is asked for, and the route has it."""
        return self.until(lambda found: found.get("weight", 0) == weight and self.route_weight() == weight, within)

    def until_ended(self, after: str = "", within: float = 2 * PATIENCE) -> Object:
        """The attempt, once it has its outcome, is recorded and nothing of it is left to do; `after` has passed."""

        def ended(found: Object) -> bool:
            attempt = found.get("attempt") or {}
            if found["phase"] not in ENDED or not attempt.get("outcome") or attempt["id"] == after:
                return False
            return bool((found.get("head") or {}).get("number", 0) >= attempt.get("number", 0))

        return dict(self.until(ended, within)["attempt"])

    def say(self, verb: str, *more: str) -> Said:
        """One command of the plugin."""
        return plugin(verb, self.name, "-n", self.namespace, *more)

    def decide(self, verb: str, *more: str) -> Said:
        """One Decision by the plugin."""
        return self.say(verb, "--reason", f"the story says {verb}", "--yes", *more)

    def deployment(self, suffix: str = "") -> Object:
        return get("deployment", self.name + suffix, self.namespace)

    def image(self) -> str:
        return str(self.deployment()["spec"]["template"]["spec"]["containers"][0]["image"]).rpartition(":")[2]

    def revisions(self) -> set[str]:
        """Revisions of the target's own pods, those of the canary left out."""
        pods = get("pods", "", self.namespace, f"app={self.name},!serin.dev/canary")["items"]
        alive = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        return {str(pod["spec"]["containers"][0]["image"]).rpartition(":")[2] for pod in alive}

    def route_weight(self) -> float:
        """Percent that the route gives the canary."""
        (rule, *_) = get("httproute", self.name, self.namespace)["spec"]["rules"]
        weights = {one["name"]: one.get("weight", 1) for one in rule["backendRefs"]}
        return round(100 * weights.get(f"{self.name}-canary", 0) / max(sum(weights.values()), 1), 2)

    def records(self) -> list[Object]:
        """Specs of this Canary's records, oldest first."""
        found = get("releaserecords", "", self.namespace, f"serin.dev/canary={self.name}")["items"]
        return sorted((dict(one["spec"]) for one in found), key=lambda spec: str(spec["startedAt"]))

    def assert_nothing_left(self) -> None:
        """Route, Service and Deployment are as their owner wrote them, and no canary is there."""

        def clean() -> bool:
            made = (f"{self.name}-canary", f"{self.name}-baseline")
            ours = ("deployment,service", *made, "-n", self.namespace)
            left = kubectl("get", *ours, "--ignore-not-found", "-o", "name")
            assert not left, f"still there: {left}"
            (rule, *_) = get("httproute", self.name, self.namespace)["spec"]["rules"]
            assert [one["name"] for one in rule["backendRefs"]] == [self.name]
            assert get("service", self.name, self.namespace)["spec"]["selector"] == {"app": self.name}
            return True

        eventually(clean)

    @contextmanager
    def load(self, rate: float = 60.0, paths: Mapping[str, float] = PATHS) -> Iterator[Report]:
        """Requests at the gateway for as long as the block runs, from a thread of their own."""
        ready, stop = threading.Event(), threading.Event()
        reports: list[Report] = []

        async def send() -> None:
            async with Load(os.environ["SERIN_GATEWAY"], self.host, rate, paths) as sending:
                reports.append(sending.report)
                ready.set()
                await asyncio.to_thread(stop.wait)

        sender = threading.Thread(target=lambda: asyncio.run(send()))
        sender.start()
        ready.wait(60)
        try:
            yield reports[0]
        finally:
            stop.set()
            sender.join(90)


@contextmanager
def without_controller() -> Iterator[None]:
    """No controller runs inside the block; behind it two are ready again."""
    kubectl("scale", "deployment/serin-controller", "--replicas=0", "-n", SYSTEM)
    try:
        eventually(lambda: not get("pods", "", SYSTEM)["items"])
        yield
    finally:
        kubectl("scale", "deployment/serin-controller", "--replicas=2", "-n", SYSTEM)
        kubectl("rollout", "status", "deployment/serin-controller", "-n", SYSTEM, "--timeout=180s")


def plugin(*words: str, user: str = "", groups: Iterable[str] = ()) -> Said:
    """`kubectl canary ...` as the administrator, or as `user` with a client certificate."""
    own = {"KUBECONFIG": str(write_kubeconfig(state_dir(), user, groups))} if user else {}
    command = [sys.executable, "-m", "controller.cli.main", *words]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | own, cwd=CHECKOUT, timeout=180
    )
    return Said(done.returncode, done.stdout + done.stderr)


def label_without_processes(namespace: str) -> None:
    """Pods of this namespace are Ready without a process: cheap, where nobody asks them anything."""
    kubectl("label", "namespace", namespace, "tests.serin.dev/no-process=true", "--overwrite")


def no_more_pods(namespace: str, than: int) -> None:
    """A quota for as many pods as there are, in force when this returns; `kubectl delete quota full` ends it."""
    kubectl("create", "quota", "full", f"--hard=pods={than}", "-n", namespace)
    eventually(lambda: get("resourcequota", "full", namespace)["status"].get("used", {}).get("pods") == str(than))


def start_shop(namespace: str, replicas: int = 2, name: str = "shop", env: Mapping[str, str] | None = None) -> Story:
    """Deployment, Service and HTTPRoute of a shop, rolled out; no Canary yet."""
    story = Story(namespace, name, replicas)
    apply(
        [
            shop_deployment(story.name, namespace, "v1", replicas, env),
            shop_service(story.name, namespace),
            shop_route(story.name, namespace, story.host),
        ]
    )
    kubectl("rollout", "status", f"deployment/{story.name}", "-n", namespace, "--timeout=180s")
    return story


class StartStory:
    """`start(steps)` in the test's own namespace: a shop under a Canary whose edits are held."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    def __call__(
        self,
        *steps: Mapping[str, Any],
        name: str = "shop",
        replicas: int = 2,
        processes: bool = True,
        env: Mapping[str, str] | None = None,
        **spec: Any,
    ) -> Story:
        if not processes:
            label_without_processes(self.namespace)
        story = start_shop(self.namespace, replicas, name, env)
        apply([canary_object(self.namespace, steps or [step(50)], name, **spec)])
        story.until_held()
        return story


def step(weight: float, bake: str = "3s", **more: Any) -> Object:
    return {"weight": weight, "bake": bake} | more


@pytest.fixture
def start(serin: None, namespace: str) -> StartStory:
    return StartStory(namespace)
