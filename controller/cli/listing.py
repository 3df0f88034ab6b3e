"""`kubectl canary list`: a table of every Canary, nothing remembered here."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

from controller.cli.kubectl import API, Cluster, Object, path_of
from controller.cli.screen import Screen
from controller.cli.text import parse_time, percent, plain, render_document, render_table, span
from controller.cli.view import ACTIVE, Scene


def run_list(options: argparse.Namespace, cluster: Cluster, screen: Screen) -> int:
    """Every Canary of a namespace, or of all."""
    namespace = "" if options.all_namespaces else options.namespace or cluster.namespace()
    found = cluster.read(path_of(API, namespace, "canaries")).get("items", [])
    now = datetime.now(UTC)
    if options.output:
        rows = [{**_row(one, now), "namespace": one["metadata"].get("namespace", "")} for one in found]
        screen.say(render_document(rows, options.output))
    elif not found:
        screen.say(f"No Canary in {'any namespace' if options.all_namespaces else f'namespace {namespace}'}.")
    else:
        for line in render_list(found, now, with_namespace=options.all_namespaces):
            screen.say(line)
    return 0


def render_list(canaries: list[Object], now: datetime, *, with_namespace: bool) -> list[str]:
    """The table; rollouts under way come first, because they are why somebody looks."""
    ordered = sorted(
        canaries,
        key=lambda one: (
            one.get("status", {}).get("phase") not in ACTIVE,
            one["metadata"].get("namespace", ""),
            one["metadata"]["name"],
        ),
    )
    head = ["NAMESPACE"] if with_namespace else []
    head += ["NAME", "PHASE", "WEIGHT", "STEP", "ORIGIN", "WAITING-ON", "FOR", "WHY"]
    rows = []
    for one in ordered:
        row = _row(one, now)
        cells = [plain(one["metadata"].get("namespace", ""))] if with_namespace else []
        cells += [row[key] or "-" for key in ("name", "phase", "weight", "step", "origin", "waitingOn", "since", "why")]
        rows.append(cells)
    return render_table(head, rows)


def _row(canary: Object, now: datetime) -> dict[str, str]:
    scene = Scene(canary, now)
    attempt = scene.attempt
    entered = parse_time(attempt.get("enteredAt") or attempt.get("startedAt"))
    is_active = scene.phase in ACTIVE
    why = str(scene.status.get("message") or "") if is_active or scene.is_refused else ""
    return {
        "name": plain(scene.name),
        "phase": plain(scene.phase),
        "weight": percent(float(scene.status.get("weight") or 0.0)),
        "step": plain(scene.status.get("stepShown") or "") if is_active else "",
        "origin": plain(attempt.get("origin") or "") if is_active or scene.phase == "RolledBack" else "",
        "waitingOn": plain(scene.status.get("waitingOn") or ""),
        "since": span((now - entered).total_seconds()) if entered and is_active else "",
        "why": plain(f"{scene.reason}: {why}" if why and scene.reason not in why else why or scene.reason, 80),
    }
