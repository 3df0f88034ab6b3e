"""The tools that apply manifests, each as it is: kubectl and Helm by their command lines, Flux and Argo CD by what
their controllers send.

The one thing to know: a tool is asked to bring one revision of the shop; whether it may is the API server's answer.
Flux is the forced server-side apply that its controller sends on every interval; Argo CD is self-healing: as long as
what it wants differs from what is there, it applies, client-side.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from tests.cluster.objects import CommandFailed, Object, get, kubectl, shop_deployment, shop_route, shop_service

EVERY = 1.0
"""seconds between two looks of a tool that does not rest; their own are longer, which only makes them milder"""


class Applier(Protocol):
    """One tool that brings a shop into one namespace."""

    restless: bool
    """it corrects drift by itself, all the time"""

    def bring(self, revision: str) -> None:
        """Make this revision the wanted one and apply it. Raises `CommandFailed` with what the tool says."""


def wanted(namespace: str, revision: str) -> list[Object]:
    """Deployment, Service and HTTPRoute as they stand in somebody's repository."""
    return [
        shop_deployment("shop", namespace, revision),
        shop_service("shop", namespace),
        shop_route("shop", namespace),
    ]


class Kubectl:
    """`kubectl apply`, with its flags."""

    restless = False

    def __init__(self, namespace: str, folder: Path, flags: Sequence[str] = ()) -> None:
        self._namespace, self._flags = namespace, flags

    def bring(self, revision: str) -> None:
        items = wanted(self._namespace, revision)
        kubectl("apply", *self._flags, "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": items})


class Helm:
    """`helm upgrade --install` of a chart with the same objects: with a three-way merge, or server-side."""

    restless = False

    def __init__(self, namespace: str, folder: Path, flags: Sequence[str] = ()) -> None:
        self._namespace, self._flags = namespace, flags
        self._chart = folder / "chart"
        (self._chart / "templates").mkdir(parents=True)
        (self._chart / "Chart.yaml").write_text("apiVersion: v2\nname: shop\nversion: 1.0.0\n")

    def bring(self, revision: str, *flags: str) -> None:
        for item in wanted(self._namespace, revision):
            (self._chart / "templates" / f"{item['kind'].lower()}.yaml").write_text(json.dumps(item))
        command = ["helm", "upgrade", "--install", "shop", str(self._chart), "-n", self._namespace]
        command += [*self._flags, *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CommandFailed(f"{' '.join(command)}: {done.stderr.strip()}")


class Restless:
    """A controller that brings what it wants again and again; `ignored` kinds it leaves alone once they are there."""

    restless = True

    def __init__(self, namespace: str, folder: Path, flags: Sequence[str] = ()) -> None:
        self._namespace = namespace
        self._items: list[Object] = []
        self._stop, self._one_at_a_time = threading.Event(), threading.Lock()
        self.ignored: set[str] = set()
        self.refusals: list[str] = []

    def bring(self, revision: str) -> None:
        with self._one_at_a_time:
            self._items = wanted(self._namespace, revision)
            self._correct()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """It corrects drift for as long as the block runs."""
        worker = threading.Thread(target=self._run)
        worker.start()
        try:
            yield
        finally:
            self._stop.set()
            worker.join(30)

    def _run(self) -> None:
        while not self._stop.wait(EVERY):
            with self._one_at_a_time:
                try:
                    self._correct()
                except CommandFailed as error:
                    self.refusals.append(str(error))

    def _theirs(self) -> list[Object]:
        there = kubectl("get", "deployment,service,httproute", "-n", self._namespace, "-o", "name")
        return [one for one in self._items if not (one["kind"] in self.ignored and one["kind"].lower() in there)]

    def _correct(self) -> None:
        raise NotImplementedError


class Flux(Restless):
    """Server-side apply with its own manager, and by force."""

    def _correct(self) -> None:
        body = {"apiVersion": "v1", "kind": "List", "items": self._theirs()}
        flags = ("--server-side", "--force-conflicts", "--field-manager=kustomize-controller")
        kubectl("apply", *flags, "-f", "-", stdin=body)


class ArgoCd(Restless):
    """Client-side apply of each object in which a field that it wants is different."""

    def _correct(self) -> None:
        for item in self._theirs():
            name = item["metadata"]["name"]
            try:
                live = get(item["kind"].lower(), name, self._namespace)
            except CommandFailed:
                live = {}
            if not holds(live, item):
                kubectl("apply", "-f", "-", stdin=item)


def holds(live: Any, wish: Any) -> bool:
    """Whether everything wished for is there; more fields are no difference, more entries of a list are."""
    if isinstance(wish, dict):
        return isinstance(live, dict) and all(key in live and holds(live[key], value) for key, value in wish.items())
    if isinstance(wish, list):
        return isinstance(live, list) and len(live) == len(wish) and all(map(holds, live, wish))
    return bool(live == wish)


TOOLS: dict[str, tuple[type[Any], tuple[str, ...]]] = {
    "kubectl, client-side": (Kubectl, ()),
    "kubectl, server-side": (Kubectl, ("--server-side", "--field-manager=team")),
    "Helm 3": (Helm, ("--server-side=false",)),
    "Helm 4": (Helm, ("--server-side=true",)),
    "Flux": (Flux, ()),
    "Argo CD": (ArgoCd, ()),
}
