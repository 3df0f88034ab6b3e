"""`freeze` and `thaw`: one person stops releases with one command; two owners let them go on.

A Freeze belongs to no namespace. A Thaw is a Decision in Serin's own namespace about one Freeze by its uid.
"""

from __future__ import annotations

import argparse
import time

from controller.cli.decisions import PATIENCE
from controller.cli.kubectl import API, Cluster, Denied, Failure, Missing, Object, path_of, read_named
from controller.cli.screen import Screen
from controller.cli.text import plain, shown_name

OWNERS = 2
DOES = {
    "Hold": "no weight rises; analysis and rollback go on",
    "RollBack": "what is under way goes back to stable now, and nothing begins",
    "Finish": "what is under way may finish, and nothing begins",
}


def run_freeze(options: argparse.Namespace, cluster: Cluster, screen: Screen) -> int:
    """Engage a kill switch: a Freeze without a schedule."""
    by, _ = cluster.whoami()
    wanted = render_freeze(options, by)
    try:
        made = cluster.create(path_of(API, "", "freezes"), wanted)
    except Denied as denied:
        raise Denied(f"{denied}\nask for the right to create freezes.serin.dev (role canary-oncall)") from denied
    name = plain(made["metadata"]["name"])
    screen.say(f"freeze.serin.dev/{name} is in force for {selected(wanted['spec'])}: {DOES[options.on_start]}.", "red")
    screen.say(f"It stays until two owners have each run: kubectl canary thaw {name} --reason '...'")
    return 0


def render_freeze(options: argparse.Namespace, by: str) -> Object:
    """The object to write.

    Raises: Failure: without a reason nobody knows when it may be thawed.
    """
    if not options.reason.strip():
        raise Failure('--reason is empty: write what is happening, for example --reason "incident 4711"')
    spec: Object = {"reason": options.reason, "by": by, "onStart": options.on_start}
    if options.namespace:
        spec["selector"] = {"namespaces": [options.namespace]}
    if options.origin:
        spec["origin"] = options.origin
    if options.tool:
        spec["tools"] = list(options.tool)
    name: Object = {"name": options.name} if options.name else {"generateName": "stop-"}
    return {"apiVersion": "serin.dev/v1alpha1", "kind": "Freeze", "metadata": name, "spec": spec}


def selected(spec: Object) -> str:
    """What a Freeze stops, in words.

    >>> selected({"selector": {"namespaces": ["shop"]}, "origin": "ai"})
    'namespace shop, changes of origin ai or worse, and of unknown origin'
    """
    where = (spec.get("selector") or {}).get("namespaces") or []
    words = [f"namespace {', '.join(map(plain, where))}" if where else "the whole cluster"]
    if spec.get("origin"):
        words.append(f"changes of origin {plain(spec['origin'])} or worse, and of unknown origin")
    if spec.get("tools"):
        words.append(f"changes by {' or '.join(map(shown_name, spec['tools']))}, and by tools nobody proved")
    return ", ".join(words)


def run_thaw(options: argparse.Namespace, cluster: Cluster, screen: Screen) -> int:
    """Say that a Freeze may go; the second owner's word takes it off."""
    path = path_of(API, "", "freezes", options.name)
    freeze = read_named(cluster, path, Missing(f'no Freeze "{options.name}": see `kubectl get freezes`'))
    by, groups = cluster.whoami()
    wanted = render_thaw(freeze, options, by, groups)
    decisions = path_of(API, options.serin_namespace, "decisions")
    try:
        made = cluster.create(decisions, wanted)
    except Denied as denied:
        raise Denied(f"{denied}\nask for the verb `thaw` on freezes/{options.name} (role canary-owner)") from denied
    screen.say(
        f"decision.serin.dev/{plain(made['metadata']['name'])} written: {shown_name(by)} thaws {plain(options.name)}"
    )
    others = said_by(cluster, decisions, str(freeze["metadata"]["uid"])) - {by}
    if others and _is_gone(cluster, path, str(freeze["metadata"]["uid"])):
        screen.say(
            f"thawed by {shown_name(by)} and {', '.join(sorted(map(shown_name, others)))}: releases go on", "green"
        )
        return 0
    have = len(others | {by})
    left = "one more owner has to say so" if have < OWNERS else "the controller has not taken it off yet"
    screen.say(f"{min(have, OWNERS)} of {OWNERS}: {left}; until then {plain(options.name)} stays in force")
    return 0


def render_thaw(freeze: Object, options: argparse.Namespace, by: str, groups: tuple[str, ...]) -> Object:
    """The Decision to write, about this very object.

    Raises: Failure: a reason is missing.
    """
    if not options.reason.strip():
        raise Failure('--reason is empty: write why it may go, for example --reason "incident 4711 is over"')
    meta = freeze["metadata"]
    return {
        "apiVersion": "serin.dev/v1alpha1",
        "kind": "Decision",
        "metadata": {"generateName": f"{str(meta['name'])[:200]}-thaw-", "namespace": options.serin_namespace},
        "spec": {
            "decision": "Thaw",
            "freeze": {"name": meta["name"], "uid": meta["uid"]},
            "by": by,
            "groups": [group for group in groups if not group.startswith("system:")][:100],
            "reason": options.reason,
        },
    }


def said_by(cluster: Cluster, decisions: str, uid: str) -> set[str]:
    """Who has written a Thaw of this Freeze; nobody where the list may not be read."""
    try:
        found = cluster.read(decisions).get("items") or []
    except Failure:
        return set()
    return {
        str(one["spec"].get("by"))
        for one in found
        if one["spec"].get("decision") == "Thaw" and (one["spec"].get("freeze") or {}).get("uid") == uid
    }


def _is_gone(cluster: Cluster, path: str, uid: str) -> bool:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if cluster.read(path)["metadata"]["uid"] != uid:
                return True
        except Missing:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.2)
