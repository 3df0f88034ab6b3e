"""One usual rollout as the API server shows it, and a cluster in memory that answers as kubectl does."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from controller.cli.kubectl import Failure, Missing, Object, Stale
from controller.cli.view import Scene

NOON = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
NEW, OLD = "registry.example/checkout:1.8", "registry.example/checkout:1.7"


def at(seconds: float) -> str:
    """So many seconds after noon, as the API server writes it."""
    return (NOON + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def template(image: str) -> Object:
    return {"metadata": {"labels": {"app": "checkout"}}, "spec": {"containers": [{"name": "app", "image": image}]}}


def attempt(**changes: Any) -> Object:
    """On the second of three steps, its traffic there for two minutes of five; the third has a gate."""
    usual: Object = {
        "id": "a-2",
        "templateHash": "22222",
        "startedAt": at(-600),
        "plan": [
            {"weight": 1, "bake": 120},
            {"weight": 25, "bake": 300},
            {"weight": 50, "bake": 600, "approval": True},
        ],
        "gates": [{"step": 3}],
        "planDigest": "sha256:plan",
        "origin": "ai",
        "trust": "T3",
        "claimedOrigin": "ai",
        "images": [NEW],
        "step": 1,
        "bakingSince": at(-120),
        "verdicts": [
            {
                "at": at(-5),
                "verdict": "inconclusive",
                "reason": "NoEvidence",
                "metric": "errors",
                "numbers": {
                    "effect": 0.004,
                    "low": -0.001,
                    "high": 0.009,
                    "margin": 0.01,
                    "canaryRequests": 12431.0,
                    "stableRequests": 37022.0,
                },
            }
        ],
        "judge": {"opaque": True},
    }
    return {key: value for key, value in (usual | changes).items() if value is not None}


def canary(**status: Any) -> Object:
    """A Canary that is progressing; `status` changes fields of its status, None drops one."""
    usual: Object = {
        "observedGeneration": 1,
        "phase": "Progressing",
        "reason": "Baking",
        "weight": 25.0,
        "holding": True,
        "stable": {
            "uid": "u-target",
            "hash": "5d9f",
            "templateHash": "11111",
            "template": template(OLD),
            "images": [OLD],
        },
        "attempt": attempt(),
        "conditions": [{"type": "Accepted", "status": "True"}],
    }
    return {
        "apiVersion": "serin.dev/v1alpha1",
        "kind": "Canary",
        "metadata": {
            "name": "checkout",
            "namespace": "shop",
            "uid": "u-canary",
            "generation": 1,
            "resourceVersion": "7",
            "finalizers": ["serin.dev/release"],
        },
        "spec": {
            "targetRef": {"kind": "Deployment", "name": "checkout"},
            "traffic": {"service": {"name": "checkout", "port": 80}, "httpRoute": {"name": "web"}},
        },
        "status": {key: value for key, value in (usual | status).items() if value is not None},
    }


def scene(lease_age: float | None = 3, **status: Any) -> Scene:
    lease = None if lease_age is None else {"spec": {"renewTime": at(-lease_age)}}
    return Scene(canary=canary(**status), now=NOON, lease=lease)


def deployment(name: str, image: str, **spec: Any) -> Object:
    return {
        "metadata": {"name": name, "uid": f"u-{name}", "resourceVersion": "1"},
        "spec": {"replicas": 2, "template": template(image), **spec},
        "status": {"readyReplicas": 2},
    }


LISTS = frozenset(
    {"services", "pods", "canaries", "releaserecords", "decisions", "releasepolicies", "freezes"}
    | {"clusterroles", "clusterrolebindings", "roles", "rolebindings"}
)


@dataclass
class MemoryCluster:
    """Objects by path; patches are JSON patches with their tests, as the API server applies them."""

    objects: dict[str, Object]
    user: str = "alice"
    created: list[Object] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    def read(self, path: str) -> Object:
        plain = path.partition("?")[0]
        if plain in self.objects:
            return copy.deepcopy(self.objects[plain])
        if plain.rsplit("/", 1)[-1] in LISTS:
            found = [one for key, one in self.objects.items() if key.rpartition("/")[0] == plain]
            return {"items": copy.deepcopy(found)}
        raise Missing(f'"{plain}" not found')

    def read_all(self, *paths: str) -> list[Object | Failure]:
        answers: list[Object | Failure] = []
        for path in paths:
            try:
                answers.append(self.read(path))
            except Failure as failure:
                answers.append(failure)
        return answers

    def create(self, path: str, body: Object) -> Object:
        stored = copy.deepcopy(body)
        name = body["metadata"].get("name") or body["metadata"]["generateName"] + "x7k2p"
        stored["metadata"] |= {"name": name, "uid": "u-said"}
        self.created.append(stored)
        return stored

    def dry_run(self, body: Object) -> Object:
        return copy.deepcopy(body)

    def patch(self, kind: str, namespace: str, name: str, ops: list[Object]) -> None:
        api = {
            "deployments.apps": "/apis/apps/v1",
            "services": "/api/v1",
            "canaries.serin.dev": "/apis/serin.dev/v1alpha1",
        }
        base = api.get(kind, "/apis/gateway.networking.k8s.io/v1")
        path = f"{base}/namespaces/{namespace}/{kind.partition('.')[0]}/{name}"
        self.log.append(f"patch {kind}/{name}")
        changed = copy.deepcopy(self.objects[path])
        for op in ops:
            _apply(changed, op)
        self.objects[path] = changed
        if changed["metadata"].get("deletionTimestamp") and not changed["metadata"].get("finalizers"):
            del self.objects[path]

    def delete(self, path: str) -> None:
        self.log.append("delete " + "/".join(path.split("/")[-2:]))
        body = self.objects[path]
        if body["metadata"].get("finalizers"):
            body["metadata"]["deletionTimestamp"] = at(0)
        else:
            del self.objects[path]

    def watch(self, path: str) -> Iterator[Object]:
        return iter(())

    def whoami(self) -> tuple[str, tuple[str, ...]]:
        return self.user, ("team", "system:authenticated")

    def namespace(self) -> str:
        return "shop"


def _apply(body: Object, op: Object) -> None:
    *way, last = [part.replace("~1", "/").replace("~0", "~") for part in op["path"].split("/")[1:]]
    here: Any = body
    for part in way:
        here = here[int(part)] if isinstance(here, list) else here[part]
    key: Any = int(last) if isinstance(here, list) else last
    if op["op"] == "test":
        if (here[key] if isinstance(here, list) else here.get(key)) != op["value"]:
            raise Stale(f"testing value {op['path']} failed")
    elif op["op"] == "remove":
        del here[key]
    else:
        here[key] = copy.deepcopy(op["value"])
