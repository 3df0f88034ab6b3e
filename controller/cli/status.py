"""`kubectl canary status`: reads one Canary and what belongs to it, shows it, and follows it with `-w`.

Only `get` rights are needed: what may not be read is left out and said. With `-w` a watch tells that something
changed; where watching is refused, it asks again every two seconds.
"""

from __future__ import annotations

import argparse
import queue
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from controller.cli import view
from controller.cli.kubectl import (
    API,
    APPS,
    CORE,
    GATEWAY,
    LEASES,
    Cluster,
    Denied,
    Failure,
    Missing,
    Object,
    UnknownKind,
    Unreachable,
    no_canary,
    path_of,
)
from controller.cli.screen import Line, Screen
from controller.cli.text import render_document, render_tree
from controller.cli.view import Scene

LEASE = "serin-controller"
POLL = 2.0
"""seconds between two looks where watching is refused"""
REFRESH = 10.0
"""seconds after which lease, pods and route are read again although the Canary did not change"""


def run(options: argparse.Namespace, cluster: Cluster, screen: Screen) -> int:
    """Show one Canary once, or until it is where it is going."""
    namespace = options.namespace or cluster.namespace()

    def look() -> Scene:
        return read_scene(cluster, namespace, options.name, options.serin_namespace)

    def code_of(scene: Scene) -> int:
        return view.decide_exit(scene, attempt=options.attempt, fail_on_wait=options.fail_on_wait)

    if not options.watch:
        scene = look()
        code = code_of(scene)
        if options.output:
            screen.say(render_document(view.summarize(scene, code), options.output))
        else:
            screen.show(render(scene))
        return code
    changes = Changes(cluster, namespace, options.name)
    try:
        return follow(look, code_of, changes.wait, screen, options.timeout, options.output)
    finally:
        screen.close()


def follow(
    look: Callable[[], Scene],
    code_of: Callable[[Scene], int],
    wait: Callable[[float], bool],
    screen: Screen,
    timeout: float | None,
    output: str,
) -> int:
    """Look at every change until it is over. `wait` returns within the seconds given, true when something changed."""
    began = looked = time.monotonic()
    tick = 1.0 if screen.is_terminal and not output else REFRESH
    shown = ""
    scene = look()
    unanswered = False
    while True:
        code = code_of(scene)
        if screen.is_terminal and not output:
            screen.repaint(render(scene))
        elif (line := change_line(scene)) != shown:
            screen.say(render_document(view.summarize(scene, code), output) if output else stamped(scene))
            shown = line
        if view.is_over(scene, code):
            return code
        left = tick if timeout is None else min(tick, timeout - (time.monotonic() - began))
        if left <= 0:
            return view.TIMEOUT
        if wait(left) or time.monotonic() - looked >= REFRESH:
            try:
                scene, looked, unanswered = look(), time.monotonic(), False
            except Unreachable as failure:
                # An API server that restarts ends nobody's wait; one that stays away is a controller not seen.
                if not (unanswered or screen.is_terminal):
                    print(f"{datetime.now(UTC):%H:%M:%SZ} {failure}; asking again", file=sys.stderr)
                unanswered, looked = True, time.monotonic() - REFRESH + POLL
                scene = replace(scene, now=datetime.now(UTC), notes=(str(failure),))
        else:
            scene = replace(scene, now=datetime.now(UTC))


def render(scene: Scene) -> list[Line]:
    """First line, suggested command, tree."""
    lines: list[Line] = [view.render_headline(scene)]
    suggestion = view.render_suggestion(scene)
    if suggestion:
        lines.append((f"  {suggestion}", "dim"))
    return [*lines, *render_tree(view.render_below(scene))]


def change_line(scene: Scene) -> str:
    """What must differ for a new line in a log: not the clock, not the lease."""
    status, attempt = scene.status, scene.attempt
    facts = (scene.phase, scene.reason, status.get("weight"), attempt.get("id"), attempt.get("step"))
    # Written again only when there are a quarter more requests.
    certificate = status.get("message") if scene.reason == "NotCertified" else ""
    return repr(
        (
            *facts,
            certificate,
            attempt.get("outcome"),
            bool(attempt.get("paused")),
            scene.is_current,
            scene.has_unseen_edit,
        )
    )


def stamped(scene: Scene) -> str:
    """The first line behind its time, as a log wants it."""
    return f"{scene.now.astimezone(UTC):%H:%M:%SZ} {view.render_headline(scene)[0]}"


def read_scene(cluster: Cluster, namespace: str, name: str, serin_namespace: str) -> Scene:
    """Read the Canary and what belongs to it. Raises: Missing, Denied, Failure for the Canary itself."""
    canary, lease = cluster.read_all(
        path_of(API, namespace, "canaries", name), path_of(LEASES, serin_namespace, "leases", LEASE)
    )
    if isinstance(canary, Missing) and not isinstance(canary, UnknownKind):
        raise no_canary(namespace, name)
    if isinstance(canary, Failure):
        raise canary
    spec = canary.get("spec", {})
    trial = f"{name}-canary"
    answers = dict(
        zip(
            ("target", "canary Deployment", "route", "services"),
            cluster.read_all(
                path_of(APPS, namespace, "deployments", spec["targetRef"]["name"]),
                path_of(APPS, namespace, "deployments", trial),
                path_of(GATEWAY, namespace, "httproutes", spec["traffic"]["httpRoute"]["name"]),
                path_of(CORE, namespace, "services"),
            ),
            strict=True,
        )
    )
    notes = tuple(
        f"{what}: {'you may not read it' if isinstance(answer, Denied) else answer}"
        for what, answer in answers.items()
        if isinstance(answer, Failure) and not (what == "canary Deployment" and isinstance(answer, Missing))
    )
    if isinstance(lease, Missing):
        notes += (f"controller: no Lease {LEASE} in namespace {serin_namespace}: none has run there (SERIN_NAMESPACE)",)
    services = _found(answers["services"])
    scene = Scene(
        canary=canary,
        now=datetime.now(UTC),
        target=_found(answers["target"]),
        trial=_found(answers["canary Deployment"]),
        route=_found(answers["route"]),
        services=None if services is None else tuple(services.get("items", [])),
        lease=None if isinstance(lease, Failure) else lease,
        notes=notes,
    )
    return replace(scene, pods=_unready_pods(cluster, scene))


def _unready_pods(cluster: Cluster, scene: Scene) -> tuple[Object, ...]:
    """The canary's pods, only while some are not ready: a big namespace costs nothing."""
    if scene.trial is None or not scene.attempt:
        return ()
    if scene.trial.get("status", {}).get("readyReplicas", 0) >= scene.trial.get("spec", {}).get("replicas", 1):
        return ()
    selector = f"serin.dev/canary={scene.attempt.get('id', '')}"
    try:
        found = cluster.read(path_of(CORE, scene.namespace, "pods", labelSelector=selector, limit="20"))
    except Failure:
        return ()
    return tuple(found.get("items", []))


def _found(answer: Object | Failure) -> Object | None:
    return None if isinstance(answer, Failure) else answer


class Changes:
    """Tells that a Canary changed: a watch in a thread, or the clock where watching is refused."""

    def __init__(self, cluster: Cluster, namespace: str, name: str) -> None:
        self._cluster = cluster
        self._path = path_of(
            API,
            namespace,
            "canaries",
            fieldSelector=f"metadata.name={name}",
            watch="1",
            timeoutSeconds="240",
        )
        self._seen: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._polls = False
        threading.Thread(target=self._watch, daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Whether to look again; returns after `seconds` at the latest."""
        if self._polls:
            time.sleep(min(seconds, POLL))
            return True
        try:
            self._seen.get(timeout=seconds)
        except queue.Empty:
            return False
        while not self._seen.empty():
            self._seen.get_nowait()
        return True

    def _watch(self) -> None:
        while True:
            began = time.monotonic()
            try:
                for _ in self._cluster.watch(self._path):
                    self._seen.put("changed")
            except (Failure, ValueError):
                self._polls = True
                return
            if time.monotonic() - began < 1:
                time.sleep(1)
