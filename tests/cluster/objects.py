"""What tests and the demo apply to the local cluster, and `kubectl` to do it with.

The one thing to know: these run inside `python -m tests.cluster run -- ...`; its environment says where
the cluster is.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tests.cluster.cluster import GATEWAY_REF, write_kubeconfig

Object = dict[str, Any]
T = TypeVar("T")


class CommandFailed(AssertionError):
    """A command ended with another status than 0; the message is what it said."""


def state_dir() -> Path:
    """The running cluster's directory, or a refusal that says how to get one."""
    try:
        return Path(os.environ["SERIN_CLUSTER_DIR"])
    except KeyError:
        raise RuntimeError("no cluster here: run this as  python -m tests.cluster run -- <command>") from None


def kubectl(*args: str, stdin: object = None, user: str = "", groups: Iterable[str] = ()) -> str:
    """Run kubectl as the administrator, or as `user` with a client certificate; objects on stdin as JSON."""
    env = dict(os.environ)
    if user:
        env["KUBECONFIG"] = str(write_kubeconfig(state_dir(), user, groups))
    text = stdin if isinstance(stdin, str) or stdin is None else json.dumps(stdin)
    done = subprocess.run(["kubectl", *args], input=text, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise CommandFailed(f"kubectl {' '.join(args)}: {done.stderr.strip()}")
    return done.stdout


def refusal(*args: str, stdin: object = None, user: str = "", groups: Iterable[str] = ()) -> str:
    """What the API server says no with."""
    try:
        said = kubectl(*args, stdin=stdin, user=user, groups=groups)
    except CommandFailed as refused:
        return str(refused)
    raise AssertionError(f"not refused: kubectl {' '.join(args)}: {said.strip()}")


def may(user: str, *what: str) -> bool:
    """Whether the API server would let this person: verb, resource, and what kubectl takes besides."""
    try:
        return kubectl("auth", "can-i", *what, f"--as={user}").strip() == "yes"
    except CommandFailed:
        return False


def get(kind: str, name: str = "", namespace: str = "default", selector: str = "") -> Object:
    """One object, or a list of them, as the API server sends it."""
    words = [kind, *([name] if name else []), *(["-l", selector] if selector else [])]
    return dict(json.loads(kubectl("get", *words, "-n", namespace, "-o", "json")))


def apply(objects: list[Object], user: str = "", groups: Iterable[str] = ()) -> None:
    """Server-side apply of all of them in one go."""
    items = {"apiVersion": "v1", "kind": "List", "items": objects}
    kubectl("apply", "--server-side", "-f", "-", stdin=items, user=user, groups=groups)


def made(*words: str) -> None:
    """What `kubectl create` makes of these words, also where the test is tried again and has made it before."""
    kubectl("apply", "-f", "-", stdin=kubectl("create", *words, "--dry-run=client", "-o", "json"))


def eventually(check: Callable[[], T], within: float = 180.0, every: float = 0.1) -> T:
    """Ask again until `check` returns something true without failing; its last failure is the message.

    `within` is for a machine that is busy with other things: what goes well takes a fraction of it.
    """
    deadline = time.monotonic() + within
    while True:
        failure: Exception | None = None
        try:
            if answer := check():
                return answer
        except (AssertionError, LookupError, OSError, ValueError) as error:
            failure = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:g} s: {failure or check.__doc__ or check}") from failure
        time.sleep(every)


def namespace_object(name: str, labels: Mapping[str, str] | None = None) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels or {})}}


def shop_deployment(
    name: str = "shop",
    namespace: str = "default",
    revision: str = "v1",
    replicas: int = 2,
    env: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    pre_stop: int = 5,
) -> Object:
    """The demo service; `env` are its faults (see tests/cluster/shop.py), `annotations` go to the pod template.

    `pre_stop` are seconds, as many as the docs advise. One is not enough: of pods that end together the EndpointSlice
    controller writes the first at once and the others a second later, when it has seen its own write.
    """
    notes = {"prometheus.io/scrape": "true", "prometheus.io/port": "8080"} | dict(annotations or {})
    container = {
        "name": "app",
        "image": f"registry.local/shop:{revision}",
        "env": [{"name": key, "value": value} for key, value in (env or {}).items()],
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1},
        "lifecycle": {"preStop": {"sleep": {"seconds": pre_stop}}} if pre_stop else {},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}, "annotations": notes},
                "spec": {"terminationGracePeriodSeconds": 30, "containers": [container]},
            },
        },
    }


def shop_service(name: str = "shop", namespace: str = "default", selector: Mapping[str, str] | None = None) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": dict(selector or {"app": name}),
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        },
    }


def shop_route(
    name: str = "shop", namespace: str = "default", host: str = "", backends: Mapping[str, int] | None = None
) -> Object:
    """An HTTPRoute for `host` (default `<name>.<namespace>.example`) to Services by weight; one alone has none."""
    weighted = [{"name": n, "port": 80, "weight": w} for n, w in (backends or {}).items()]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "parentRefs": [dict(GATEWAY_REF)],
            "hostnames": [host or f"{name}.{namespace}.example"],
            "rules": [{"backendRefs": weighted or [{"name": name, "port": 80}]}],
        },
    }
