"""`kubectl canary replay`: what the judge would have done on a service's own past, where nothing was wrong.

The samples come straight from the Prometheus of the Canary's MetricsSource (`--prometheus` names another way to
it, such as a port-forward): its whole history is too much for a status, and a credential of Serin is not the
user's. The per-pod series of the source's template `pods` are what is read; see `analysis/replay.py`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from http.client import HTTPException
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import msgspec
from pydantic import ValidationError

from controller.analysis.lines import Plan, PlannedMetric, Step
from controller.analysis.past import Pod, tabulate, warm_up
from controller.analysis.replay import Report, replay
from controller.cli.kubectl import API, Cluster, Failure, path_of
from controller.cli.screen import Screen
from controller.cli.text import plain, render_document, render_table, span
from controller.model.spec import CanarySpec, MetricsSourceSpec, parse_canary_spec
from controller.ports import Ref
from controller.sources.answers import Series, parse_matrix, series_key
from controller.sources.templates import BUILT_IN, ArmSelectors, join, parameters, select_arm

CHUNK = 3600.0
"""seconds of samples in one query"""
TIMEOUT = 30.0
LARGEST = 64 * 1024 * 1024


def run(options: argparse.Namespace, cluster: Cluster, screen: Screen) -> int:
    """Print what would have happened, and the settings that are proposed; 1 when none keeps the promise."""
    namespace = options.namespace or cluster.namespace()
    body = cluster.read(path_of(API, namespace, "canaries", options.name))
    try:
        spec = parse_canary_spec(body["spec"])
        found = cluster.read(path_of(API, "", "metricssources", spec.analysis.source))
        source = MetricsSourceSpec.model_validate(found["spec"])
    except ValidationError as error:
        raise Failure(f"Canary {options.name}, or its MetricsSource, cannot be read: {plain(error)}") from error
    template = source.templates.get("pods") or BUILT_IN["pods"]
    ref = Ref(namespace, options.name, "")
    selectors = select_arm(template, parameters(ref, spec, "stable"))
    until = datetime.now(UTC).timestamp()
    series = read_series(options.prometheus or source.url, selectors, until - options.since, until)
    step = source.scrape_interval.total_seconds()
    pods = by_pod(series, selectors, template.pod_label or "pod")
    requests, errors = tabulate(pods, since=until - options.since, until=until, step=step)
    try:
        report = replay(requests, errors, plan=plan_of(spec, step), step=step)
    except ValueError as error:
        raise Failure(
            f"{error}. Read were {len(series)} series of the template pods of MetricsSource {spec.analysis.source}: "
            "do the pods export them, and does Prometheus keep them that long?"
        ) from error
    began = warm_up(pods, since=until - options.since, until=until, step=step)
    if options.output:
        document = msgspec.to_builtins(report) | {"warmup": msgspec.to_builtins(began)}
        screen.say(render_document(document, options.output))
    else:
        for line in (*render(report), began.message):
            screen.say(line)
    return 0 if report.proposed else 1


def plan_of(spec: CanarySpec, step: float) -> Plan:
    """The Canary's plan as the judge without a cluster takes it."""
    errors = next((one for one in spec.analysis.metrics if one.error_ratio), None)
    return Plan(
        steps=[Step(one.weight, one.bake.total_seconds()) for one in spec.steps],
        metrics={"errors": PlannedMetric(margin=errors.margin if errors else None)},
        false_rollback_rate=spec.analysis.false_rollback_rate,
        min_requests=float(spec.analysis.min_requests),
        scrape=step,
    )


def read_series(url: str, selectors: ArmSelectors, since: float, until: float) -> list[Series]:
    """Raw samples of requests and failed requests, an hour a query.

    Raises: Failure: no answer, or not the answer of a Prometheus.
    """
    both = [selectors.requests, *([selectors.bad] if selectors.bad else [])]
    found: dict[str, Series] = {}
    at = since
    while at < until:
        end = min(at + CHUNK, until)
        query = {"query": f"{join(both)}[{int(end - at) + 1}s]", "time": f"{end:.3f}"}
        for one in _ask(url, query, at, end):
            key = series_key(one.labels)
            before = found[key].samples if key in found else ()
            found[key] = Series(one.labels, (*before, *one.samples))
        at = end
    return list(found.values())


def _ask(url: str, query: Mapping[str, str], since: float, until: float) -> Sequence[Series]:
    address = f"{url.rstrip('/')}/api/v1/query"
    if not address.startswith(("http://", "https://")):
        raise Failure(f"--prometheus: {plain(url)} is not an address: write http://localhost:9090")
    request = Request(address, data=urlencode(query).encode())
    try:
        with urlopen(request, timeout=TIMEOUT) as response:
            text = response.read(LARGEST)
        body = json.loads(text)
        return parse_matrix(body["data"]["result"], since=since, until=until).series
    except (URLError, HTTPException, TimeoutError, OSError) as error:
        raise Failure(
            f"{plain(url)} did not answer: {plain(error)}. From outside the cluster: kubectl port-forward to your "
            "Prometheus, then --prometheus http://localhost:9090"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise Failure(f"{plain(url)} did not answer as a Prometheus does") from error


def by_pod(series: Sequence[Series], selectors: ArmSelectors, pod_label: str) -> dict[str, Pod]:
    """The counters of each pod that has a name."""
    pods: dict[str, Pod] = {}
    for one in series:
        pod = one.labels.get(pod_label, "")
        if not pod:
            continue
        known = pods.get(pod, Pod(()))
        requests = (one.samples,) if selectors.requests.matches(one.labels) else ()
        bad = (one.samples,) if selectors.bad is not None and selectors.bad.matches(one.labels) else ()
        pods[pod] = Pod((*known.requests, *requests), (*known.bad, *bad))
    return pods


def render(report: Report) -> list[str]:
    """The table, and what is proposed."""
    share = 100 * report.bad / report.requests if report.requests else 0.0
    lines = [
        f"{span(report.seconds)} of {report.pods} stable pods, {report.requests:,.0f} requests, {share:.3f} % bad. "
        "Each pod was judged as if it were the canary: every retreat and rollback below is a false one.",
        "",
    ]
    rows = [
        [f"{one.refill:g}", f"{one.margin:g}", str(one.rollouts), str(one.retreated), str(one.rolled_back)]
        for one in report.tried
    ]
    lines += render_table(["REFILL", "MARGIN", "ROLLOUTS", "RETREATED", "ROLLED-BACK"], rows)
    if report.proposed:
        return [*lines, "", f"Proposed for spec.analysis: {report.message}"]
    return [*lines, "", f"Nothing to propose: {report.message}"]
