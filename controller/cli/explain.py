"""`kubectl canary explain`: why the present or a past attempt stands as it does, in sentences and as a drawing.

Everything it says stands in the Canary's status or, for an attempt that has passed, in its ReleaseRecord: nothing is
computed anew, so that it tells what the controller decided by, and not what it would decide today.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from datetime import datetime

from controller.cli.drawing import Chart, Seen, draw_svg, draw_text, points
from controller.cli.kubectl import API, Cluster, Failure, Missing, Object, UnknownKind, path_of, read_canary
from controller.cli.outlook import render_outlook, render_warnings
from controller.cli.screen import Line, Screen
from controller.cli.text import parse_time, percent, plain, render_document, span


@dataclass(frozen=True)
class Case:
    """One attempt as it was judged."""

    name: str
    attempt: str
    phase: str
    outcome: str
    message: str
    began: datetime | None
    judged: Object | None
    retreats: tuple[Object, ...]
    verdicts: tuple[Object, ...]
    charts: tuple[Chart, ...] = field(default=())
    gauges: tuple[Object, ...] = ()
    outlook: Object | None = None
    """what was known before it began; None for an attempt that has passed"""


def run(options: argparse.Namespace, cluster: Cluster, screen: Screen) -> int:
    """Tell, draw, or print for programs."""
    namespace = options.namespace or cluster.namespace()
    case = read_case(cluster, namespace, options.name, options.attempt)
    if options.output == "json":
        screen.say(render_document(summarize(case), "json"))
    elif options.output == "svg":
        if not case.charts:
            raise Failure(f"nothing to draw yet: no scrape of attempt {case.attempt} has been judged")
        chosen = chart_of(case)
        screen.say(draw_svg(chosen, f"{case.name} attempt {case.attempt}: {case.outcome or case.phase}"))
    else:
        screen.show(tell(case))
    return 0


def read_case(cluster: Cluster, namespace: str, name: str, attempt: str) -> Case:
    """The present attempt, or the named one. Raises: Missing, Denied, Failure."""
    try:
        status = read_canary(cluster, namespace, name).get("status") or {}
    except Missing as missing:
        if not attempt or isinstance(missing, UnknownKind):
            raise
        status = {}
    present = status.get("attempt") or {}
    if present and attempt in ("", present.get("id")):
        return parse_case(name, present, str(present.get("id")), str(status.get("phase", "")), status)
    if not attempt:
        raise Missing(f'Canary "{name}" has released nothing yet: nothing to explain')
    try:
        record = cluster.read(path_of(API, namespace, "releaserecords", f"{name}-{attempt}"))
    except Missing:
        raise Missing(f"no record of attempt {attempt}: see `kubectl canary records {name}`") from None
    return parse_case(name, record.get("spec") or {}, attempt, "", {})


def parse_case(name: str, body: Object, attempt: str, phase: str, status: Object) -> Case:
    """A case out of `status.attempt` or out of a record's spec; both name things alike."""
    began = parse_time(body.get("startedAt"))
    outlook = status.get("outlook") or {}
    retreats = tuple(body.get("retreats") or ())
    verdicts = tuple(body.get("verdicts") or ())
    # What convicted it explains the outcome; scrapes that came in while it was carried out do not.
    convicted = next((one for one in reversed(verdicts) if one.get("verdict") == "fail"), None)
    marks = tuple(_since(began, one.get("at")) for one in retreats)
    charts = tuple(
        Chart(
            plain(str(one.get("metric", ""))),
            float(one.get("margin", 0.0)),
            tuple(Seen(*map(float, point)) for point in one.get("points") or () if len(point) == 5),
            marks,
        )
        for one in body.get("courses") or ()
        if one.get("points")
    )
    return Case(
        name=name,
        attempt=plain(attempt),
        phase=plain(phase),
        outcome=plain(str(body.get("outcome") or "")),
        message=plain(str(body.get("outcomeMessage") or body.get("message") or status.get("message") or "")),
        began=began,
        judged=convicted or body.get("judged"),
        retreats=retreats,
        verdicts=verdicts,
        charts=charts,
        gauges=tuple(body.get("gauges") or ()),
        outlook=outlook if outlook.get("attempt") == attempt else None,
    )


def chart_of(case: Case) -> Chart:
    """The metric that the last verdict is about, else the first."""
    named = (case.judged or {}).get("metric")
    return next((chart for chart in case.charts if chart.metric == named), case.charts[0])


def tell(case: Case) -> list[Line]:
    """The whole explanation."""
    head = f"{case.name} attempt {case.attempt}: {case.outcome or case.phase}"
    lines: list[Line] = [(head + (f": {case.message}" if case.message else ""), "bold")]
    if case.judged:
        lines += [("", ""), *_sentences(case.judged, case.outcome, retreated=bool(case.retreats))]
    else:
        lines += [("", ""), ("Nothing has been compared in this attempt yet.", "")]
    told = sorted((*case.retreats, *case.verdicts), key=lambda one: str(one.get("at", "")))
    if told:
        lines += [("", ""), ("What was decided, and on what:", "")]
        for number, one in enumerate(told, 1):
            what = "retreat" if one in case.retreats else str(one.get("verdict", ""))
            after = span(_since(case.began, one.get("at"))) if case.began else str(one.get("at", ""))
            lines.append((f"  {number}. after {after}: {plain(what)} ({plain(str(one.get('reason', '')))})", ""))
            lines.append((f"     {plain(str(one.get('message', '')))}", ""))
            if pods := one.get("pods"):
                lines.append((f"     {plain(str(pods))}", ""))
    lines += [(_gauge(one), "") for one in case.gauges]
    if case.outlook:
        lines += [("", ""), ("What was known before it began:", "")]
        lines += [(f"  {line}", "") for line in render_outlook(case.outlook)]
        lines += [(f"  {line}", "yellow") for line in render_warnings(case.outlook)]
    if case.charts:
        chosen = chart_of(case)
        legend = "● difference canary minus stable   │ the interval it lies in   ┄ allowed   ▼ retreat"
        lines += [("", ""), (f"{chosen.metric}: {legend}", "dim")]
        lines += [(line, "") for line in draw_text(chosen)]
        last = chosen.points[-1]
        lines.append((f"           at {percent(last.weight)} of requests when this was last remembered", "dim"))
    return lines


def _gauge(seen: Object) -> str:
    """A gauge as it was when the attempt was last remembered.

    >>> _gauge({"metric": "memory", "canary": 3.0e8, "stable": 2e8, "times": 1.2, "above": 40.0})
    'memory: 3e+08 on the canary, 2e+08 on stable; 1.2 times stable is allowed, and it has been more for 40s'
    """
    canary, stable = float(seen.get("canary") or 0.0), float(seen.get("stable") or 0.0)
    above = float(seen.get("above") or 0.0)
    more = f", and it has been more for {span(above)}" if above else ""
    name = plain(str(seen.get("metric", "")))
    allowed = f"{float(seen.get('times') or 0.0):g} times stable is allowed{more}"
    return f"{name}: {canary:.3g} on the canary, {stable:.3g} on stable; {allowed}"


def _sentences(judged: Object, outcome: str, *, retreated: bool) -> list[Line]:
    numbers: dict[str, float] = judged.get("numbers") or {}
    metric = plain(str(judged.get("metric") or "analysis"))
    if "canaryRequests" not in numbers:
        return [(f"{metric}: {plain(str(judged.get('message', '')))}", "")]
    canary, stable = numbers["canaryRequests"], numbers.get("stableRequests", 0.0)
    bad, good = numbers.get("canaryErrors", 0.0), numbers.get("stableErrors", 0.0)
    lines = [
        f"{metric}: {_of(bad, canary)} on the canary and {_of(good, stable)} on stable were bad.",
        f"  Compared at the same moments the difference is {points(numbers.get('effect', 0.0))}; allowed are "
        f"{points(numbers.get('margin', 0.0))}.",
    ]
    if "low" in numbers and "high" in numbers:
        low, high, margin = numbers["low"], numbers["high"], numbers.get("margin", 0.0)
        lines.append(f"  It lies between {points(low)} and {points(high)}, however often one looks.")
        if low > margin:
            lines.append("  All of that is more than is allowed: this revision is worse.")
        elif high < margin:
            lines.append("  All of that is less than is allowed: this revision is not worse by more than the margin.")
        elif numbers.get("certified"):
            lines.append(
                "  It is certified not to be worse; that takes fewer requests than to tell by how much it differs."
            )
        else:
            lines.append("  That does not settle it either way" + (" yet." if not outcome else "."))
    evidence, threshold = numbers.get("evidence"), numbers.get("threshold")
    if evidence is not None and threshold:
        lines.append(f"  Evidence against it: {evidence:.1f} of the {threshold:.1f} that convict.")
        if retreated and evidence < threshold:
            lines.append("  A retreat takes less than that.")
    # Of an attempt that has ended otherwise nothing changes any more.
    if outcome in ("", "RolledBack") and (would := judged.get("wouldChange")):
        lines.append(f"  What would change this: {plain(str(would))}.")
    return [(line, "") for line in lines]


def _of(bad: float, requests: float) -> str:
    share = f" ({100 * bad / requests:.3g} %)" if requests else ""
    return f"{bad:,.0f} of {requests:,.0f} requests{share}"


def summarize(case: Case) -> Object:
    """For programs; names are stable."""
    return {
        "canary": case.name,
        "attempt": case.attempt,
        "phase": case.phase or None,
        "outcome": case.outcome or None,
        "message": case.message,
        "judged": case.judged,
        "retreats": list(case.retreats),
        "verdicts": list(case.verdicts),
        "gauges": list(case.gauges),
        "outlook": case.outlook,
        "metrics": {
            chart.metric: {
                "margin": chart.margin,
                "course": [
                    {"at": one.at, "weight": one.weight, "effect": one.effect, "interval": [one.low, one.high]}
                    for one in chart.points
                ],
            }
            for chart in case.charts
        },
    }


def _since(began: datetime | None, at: object) -> float:
    instant = parse_time(at)
    return (instant - began).total_seconds() if began and instant else 0.0
