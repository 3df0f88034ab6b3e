"""`kubectl canary check`: what the API server would say to a Canary file, and the plan it means. No cluster is asked.

The only command that imports the model: it parses with the very types from which the CRDs are made.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from datetime import timedelta
from typing import Any

from pydantic import ValidationError

from controller.cli.documents import of_kind, read_documents
from controller.cli.kubectl import Cluster
from controller.cli.screen import Screen
from controller.cli.text import percent, plain, render_table
from controller.model.durations import render_duration
from controller.model.spec import API_VERSION, CanarySpec, Metric

OTHERS = "about other kinds ask the API server, kubectl apply --dry-run=server -f FILE"
LONGEST_NAME, LONGEST_BESIDE = 63 - len("-canary"), 63 - len("-baseline")
"""the canary's Service is `<name>-canary`, and a Service's name has at most 63 characters"""


def run(options: argparse.Namespace, _cluster: Cluster, screen: Screen) -> int:
    """Print a plan for each Canary of the file, or every problem."""
    code = 0
    for body in of_kind(read_documents(options.file), "Canary", options.file, OTHERS):
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
    elif not re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", name):
        problems.append(f"metadata.name: found {plain(name)}, write lower-case letters, digits and '-', a letter first")
    problems += [
        f"{plain(key)}: unknown field"
        for key in body
        if key not in {"apiVersion", "kind", "metadata", "spec", "status"}
    ]
    try:
        # As JSON and strictly, since the API server turns no text into a number and no number into a duration.
        text = json.dumps(body.get("spec") or {}, default=str)
        spec = CanarySpec.model_validate_json(text, strict=True)
    except ValidationError as error:
        return None, problems + [_problem(one) for one in _causes(error)]
    except (ValueError, RecursionError) as error:
        return None, [*problems, f"spec: cannot be written as JSON: {error}"]
    if spec.analysis.baseline.fresh and LONGEST_BESIDE < len(name) <= LONGEST_NAME:
        problems.append(
            f"metadata.name: {len(name)} characters, at most {LONGEST_BESIDE} with analysis.baseline.fresh: "
            "the fresh pods' Service is named NAME-baseline"
        )
    return spec, problems


def _causes(error: ValidationError) -> list[Any]:
    """Every fault but a list that is too short because of those in it."""
    found = error.errors(include_url=False)
    within = {one["loc"][:length] for one in found for length in range(len(one["loc"]))}
    return [one for one in found if one["type"] != "too_short" or one["loc"] not in within]


def _problem(error: Any) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in ("spec", *error["loc"]))
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "missing":
        message = "missing"
    elif error["type"] == "extra_forbidden":
        message = "unknown field"
    elif error["type"] == "time_delta_type":
        message = f"{plain(error.get('input'), 80)} is not a duration: write a number and a unit, for example 90s or 5m"
    elif error["type"] in ("float_type", "int_type") and isinstance(error.get("input"), str):
        message += f", found the text {plain(error['input'], 80)!r}: write it without quotes and unit"
    elif error["type"] == "too_short":
        message = "empty, write at least one, or leave it out for the default"
    elif not isinstance(error.get("input"), dict | list) and "is not a duration" not in message:
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
    lines += [f"    {metric.name}: {_compared(metric)}" for metric in spec.analysis.metrics]
    if spec.analysis.baseline.fresh:
        beside = ", ".join(percent(spec.analysis.baseline.share(step.weight)) for step in spec.steps)
        lines.append(f"  against fresh pods of stable's template, which get {beside}")
    return lines


def _compared(metric: Metric) -> str:
    """What a metric compares, and how much worse the canary may be."""
    if metric.gauge is not None:
        per = " per request" if metric.gauge.per_request else ""
        return (
            f"gauge {metric.gauge.template}{per}, advises to hold above {metric.gauge.times:g} times stable's for "
            f"{render_duration(metric.gauge.lasts)}"
        )
    if metric.latency is not None:
        bounds = ", ".join(render_duration(bound) for bound in metric.latency.bounds)
        if metric.latency.threshold is None:
            bounds = f"bounds chosen from stable's past, or {bounds} where it has none"
        what = f"requests slower than {bounds} (template {metric.latency.template})"
    else:
        what = f"failed requests (template {metric.error_ratio.template if metric.error_ratio else ''})"
    return f"{what}, may be worse by {100 * metric.margin:g} percentage points"


def _name(body: dict[str, Any]) -> str:
    metadata = body.get("metadata")
    return plain(metadata.get("name", "?")) if isinstance(metadata, dict) else "?"
