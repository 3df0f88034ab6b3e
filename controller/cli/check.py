"""`kubectl canary check`: what the API server would say to a Canary file, and the plan it means. No cluster is asked.

The only command that imports the model: it parses with the very types from which the CRDs are made.
"""

from __future__ import annotations

import argparse
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from controller.cli.kubectl import Cluster
from controller.cli.screen import Screen
from controller.cli.text import percent, plain, render_table
from controller.model.durations import render_duration
from controller.model.spec import API_VERSION, CanarySpec, parse_canary_spec

LONGEST_NAME = 63 - len("-canary")
"""the canary's Service is `<name>-canary`, and a Service's name has at most 63 characters"""


def run(options: argparse.Namespace, _cluster: Cluster, screen: Screen) -> int:
    """Print a plan for each Canary of the file, or every problem."""
    try:
        text = sys.stdin.read() if options.file == "-" else Path(options.file).read_text(encoding="utf-8")
        bodies = [body for body in yaml.safe_load_all(text) if body is not None]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        print(f"{plain(options.file)}: {error}", file=sys.stderr)
        return 1
    canaries = [body for body in bodies if isinstance(body, dict) and body.get("kind") == "Canary"]
    if not canaries:
        print(f"{plain(options.file)}: no object of kind Canary in it", file=sys.stderr)
        return 1
    code = 0
    for body in canaries:
        spec, problems = read_canary(body)
        for problem in problems:
            print(f"{_name(body)}: {problem}", file=sys.stderr)
        if spec is None or problems:
            code = 1
            continue
        for line in render_plan(_name(body), spec):
            screen.say(line)
    return code


def read_canary(body: dict[str, Any]) -> tuple[CanarySpec | None, list[str]]:
    """The spec, and every problem, a line each: field, finding, what to write."""
    problems = []
    if body.get("apiVersion") != API_VERSION:
        problems.append(f"apiVersion: found {plain(body.get('apiVersion'))}, write {API_VERSION}")
    metadata = body.get("metadata") if isinstance(body.get("metadata"), dict) else {}
    name = str((metadata or {}).get("name") or "")
    if not name:
        problems.append("metadata.name: missing, write the name of the Canary")
    elif len(name) > LONGEST_NAME:
        problems.append(
            f"metadata.name: {len(name)} characters, at most {LONGEST_NAME}: the canary is named NAME-canary"
        )
    problems += [
        f"{plain(key)}: unknown field"
        for key in body
        if key not in {"apiVersion", "kind", "metadata", "spec", "status"}
    ]
    try:
        return parse_canary_spec(body.get("spec") or {}), problems
    except ValidationError as error:
        return None, problems + [_problem(one) for one in error.errors(include_url=False)]


def _problem(error: Any) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in ("spec", *error["loc"]))
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "missing":
        message = "missing"
    elif error["type"] == "extra_forbidden":
        message = "unknown field"
    elif not isinstance(error.get("input"), dict | list):
        message += f", found {plain(error.get('input'), 80)}"
    return f"{path.removeprefix('.')}: {plain(message)}"


def render_plan(name: str, spec: CanarySpec) -> list[str]:
    """The plan as a person checks it: steps, gates, what is compared, and how long it takes at least."""
    least = sum((step.bake for step in spec.steps), timedelta())
    rows = [
        [str(number), percent(step.weight), render_duration(step.bake), "approval" if step.approval else "-"]
        for number, step in enumerate(spec.steps, start=1)
    ]
    service = spec.traffic.service
    lines = [
        f"Canary {name}: Deployment {spec.target_ref.name}, Service {service.name}:{service.port}, "
        f"HTTPRoute {spec.traffic.http_route.name}",
        *(f"  {line}" for line in render_table(["STEP", "WEIGHT", "BAKE", "GATE"], rows)),
        f"  then the Deployment rolls by its own strategy; at least {render_duration(least)} in all",
        f"  compared through {spec.analysis.source}, at least {spec.analysis.min_requests} canary requests a step, "
        f"false rollbacks at most {100 * spec.analysis.false_rollback_rate:g}% of harmless rollouts:",
    ]
    for metric in spec.analysis.metrics:
        what = (
            f"requests slower than {render_duration(metric.latency.threshold)} (template {metric.latency.template})"
            if metric.latency
            else f"failed requests (template {metric.error_ratio.template if metric.error_ratio else ''})"
        )
        lines.append(f"    {metric.name}: {what}, may be worse by {100 * metric.margin:g} percentage points")
    return lines


def _name(body: dict[str, Any]) -> str:
    metadata = body.get("metadata")
    return plain(metadata.get("name", "?")) if isinstance(metadata, dict) else "?"
