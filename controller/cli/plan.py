"""`kubectl canary plan`: what would come of a change, before anybody applies it, or of what is held now.

The same functions as the controller's decide here, on the same objects: nothing in this file knows a rule. What an
image proves about its origin only the controller looks up; `--suppose` shows the plan as if it were proven.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import yaml
from pydantic import ValidationError

from controller.analysis.planning import outlook
from controller.cli.kubectl import API, Cluster, Failure, Missing, Object, path_of
from controller.cli.screen import Line, Screen
from controller.cli.text import percent, plain, render_document, render_table, span
from controller.guardrails.change import classes_of
from controller.guardrails.freeze import Freeze, Subject, next_window, strictest_freeze
from controller.guardrails.policy import Change, Policy, evaluate
from controller.model.evidence import NO_EVIDENCE, Evidence, Origin, Trust
from controller.model.guarded import Clamp, Frozen, Gate, PlanStep, Ruling, Touched
from controller.model.policy import parse_freeze_spec, parse_policy_spec
from controller.model.spec import CanarySpec, parse_canary_spec
from controller.model.status import ACTIVE, Status, parse_status
from controller.workloads.parse import ORIGIN, annotations_of, images_of, plain_template, template_hash

AHEAD = timedelta(days=7)
"""freezes that begin within this time are told"""


@dataclass(frozen=True)
class Planned:
    """All that a plan says."""

    canary: str
    namespace: str
    replicas: int
    before: tuple[str, ...]
    after: tuple[str, ...]
    ruling: Ruling
    frozen: Frozen | None
    ahead: tuple[str, ...]
    problems: tuple[str, ...]
    attempt: str = ""
    """id of the attempt that runs by it; empty while nothing does"""


def run(options: argparse.Namespace, cluster: Cluster, screen: Screen) -> int:
    """Print the plan; 1 where the change would be refused."""
    namespace = options.namespace or cluster.namespace()
    now = datetime.now(UTC)
    wanted = read_deployment(options.file, cluster, namespace) if options.file else None
    canary = find_canary(cluster, namespace, options.name, wanted)
    planned = make_plan(cluster, canary, wanted, options.suppose, now)
    if options.output:
        screen.say(render_document(as_document(planned), options.output))
    else:
        screen.show(render(planned, options.rate))
    return 1 if planned.ruling.refusals else 0


def read_deployment(file: str, cluster: Cluster, namespace: str) -> Object:
    """The Deployment in the file, as the API server would store it: defaults and other admission included.

    Raises: Failure: there is none in it, or the API server refuses it.
    """
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        bodies = [body for body in yaml.safe_load_all(text) if isinstance(body, dict)]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Failure(f"{plain(file)}: {error}") from error
    found: Object | None = next((body for body in bodies if body.get("kind") == "Deployment"), None)
    if found is None:
        raise Failure(f"{plain(file)}: no object of kind Deployment in it")
    found.setdefault("metadata", {}).setdefault("namespace", namespace)
    return cluster.dry_run(found)


def find_canary(cluster: Cluster, namespace: str, name: str, wanted: Object | None) -> Object:
    """The Canary by its name, or the one whose target the file holds.

    Raises: Failure: neither is there.
    """
    if name:
        try:
            return cluster.read(path_of(API, namespace, "canaries", name))
        except Missing:
            raise Missing(f'no Canary "{plain(name)}" in namespace "{namespace}"') from None
    if wanted is None:
        raise Failure("name a Canary, or a file with -f")
    target = wanted["metadata"]["name"]
    listed = cluster.read(path_of(API, namespace, "canaries")).get("items") or []
    found: Object | None = next((one for one in listed if one["spec"]["targetRef"]["name"] == target), None)
    if found is None:
        raise Failure(f"no Canary releases Deployment {plain(target)}: it would roll at once, without any of this")
    return found


def make_plan(cluster: Cluster, canary: Object, wanted: Object | None, suppose: str, now: datetime) -> Planned:
    """What the controller would make of it; what runs now has its plan already."""
    meta, spec = canary["metadata"], parse_canary_spec(canary["spec"])
    status = parse_status(canary.get("status") or {})
    namespace = meta["namespace"]
    target = wanted or cluster.read(path_of("/apis/apps/v1", namespace, "deployments", spec.target_ref.name))
    policies, freezes, problems = read_rules(cluster)
    labels = meta.get("labels") or {}
    replicas = int(target["spec"].get("replicas", 1))
    before = status.stable.images if status.stable else ()
    attempt = status.attempt
    if wanted is None and attempt is not None and status.phase in ACTIVE:
        ruling, of_attempt = as_begun(status), attempt.id
        after = attempt.images
    else:
        template = plain_template(target["spec"]["template"])
        ruling = _ruled(meta, spec, status, template, target, policies, suppose)
        of_attempt, after = "", images_of(template)
    kinds = frozenset(touched.name for touched in ruling.classes)
    subject = Subject(namespace, labels, ruling.origin, kinds, ruling.evidence)
    return Planned(
        canary=meta["name"],
        namespace=namespace,
        replicas=replicas,
        before=before,
        after=after,
        ruling=ruling,
        frozen=strictest_freeze(freezes, subject, now),
        ahead=tuple(_ahead(freezes, now)),
        problems=problems,
        attempt=of_attempt,
    )


def _ruled(
    meta: Object,
    spec: CanarySpec,
    status: Status,
    template: dict[str, Any],
    target: Object,
    policies: tuple[Policy, ...],
    suppose: str,
) -> Ruling:
    evidence = Evidence(origin=Origin(suppose), trust=Trust.T3) if suppose else NO_EVIDENCE
    stable = status.stable.template if status.stable else {}
    change = Change(
        namespace=meta["namespace"],
        canary=meta["name"],
        template_hash=template_hash(template),
        images=images_of(template),
        labels=meta.get("labels") or {},
        classes=classes_of({"template": stable}, {"template": template}, evidence) if stable else (),
        evidence=evidence,
        claimed=annotations_of(template).get(ORIGIN, ""),
    )
    return evaluate(change, spec, policies)


def as_begun(status: Status) -> Ruling:
    """The ruling that the attempt under way began with."""
    attempt = status.attempt
    assert attempt is not None
    return Ruling(
        plan=attempt.plan,
        gates=attempt.gates,
        analysis=attempt.analysis,
        no_data="Hold" if attempt.no_data == "Hold" else "RollBack",
        origin=attempt.origin,
        degree=attempt.degree,
        trust=attempt.trust,
        digest=attempt.plan_digest,
        evidence=attempt.evidence,
        classes=attempt.classes,
        authors=attempt.authors,
        policies=attempt.policies,
        clamps=attempt.clamps,
    )


def read_rules(cluster: Cluster) -> tuple[tuple[Policy, ...], tuple[Freeze, ...], tuple[str, ...]]:
    """Every policy and freeze; what cannot be read is told, since it holds."""
    problems: list[str] = []
    listed: list[list[Object]] = []
    for plural, answer in zip(
        ("releasepolicies", "freezes"),
        cluster.read_all(path_of(API, "", "releasepolicies"), path_of(API, "", "freezes")),
        strict=True,
    ):
        if isinstance(answer, Failure):
            problems.append(f"{plural} cannot be read by you, so this plan may be laxer than the real one: {answer}")
            listed.append([])
        else:
            listed.append(answer.get("items") or [])
    policies, freezes = [], []
    for one in listed[0]:
        meta = one["metadata"]
        try:
            policies.append(Policy(meta["name"], parse_policy_spec(one["spec"]), int(meta.get("generation", 1))))
        except ValidationError as error:
            problems.append(f"ReleasePolicy {plain(meta['name'])} cannot be read, so nothing begins: {error}")
    for one in listed[1]:
        meta = one["metadata"]
        try:
            freezes.append(Freeze(meta["name"], meta["uid"], parse_freeze_spec(one["spec"])))
        except ValidationError as error:
            freezes.append(Freeze(meta["name"], meta["uid"], None, str(error)))
    return tuple(policies), tuple(freezes), tuple(problems)


def _ahead(freezes: tuple[Freeze, ...], now: datetime) -> list[str]:
    found = []
    for freeze in freezes:
        try:
            window = next_window(freeze.spec, now) if freeze.spec else None
        except ValueError:
            continue
        if window and window.since and window.until and window.since < now + AHEAD:
            found.append(f"{plain(freeze.name)} from {window.since:%a %H:%M} to {window.until:%a %H:%M} UTC")
    return found


def render(planned: Planned, rate: float) -> list[Line]:
    """The plan as a person decides by it: what changes, who wrote it, how it goes out, who is asked, what stops it."""
    ruling = planned.ruling
    what = f"attempt {planned.attempt} of" if planned.attempt else "a change of"
    lines: list[Line] = [(f"Plan for {what} Canary {planned.namespace}/{planned.canary}", "bold")]
    lines += [(f"  {line}", "") for line in _changes(planned)]
    lines.append(("", ""))
    lines += [(f"  {line}", "") for line in _steps(planned)]
    lines += [(f"  changed by policy: {_clamp(clamp)}", "yellow") for clamp in ruling.clamps if clamp.enforced]
    lines += [(f"  would be changed: {_clamp(clamp)}", "") for clamp in ruling.clamps if not clamp.enforced]
    lines.append(("", ""))
    lines += [(f"  asked first: {_gate(gate)}", "yellow") for gate in ruling.gates]
    if ruling.authors and ruling.gates:
        lines.append((f"  may not approve: {', '.join(map(plain, ruling.authors))}", ""))
    if planned.frozen is not None:
        lines.append((f"  frozen now: {plain(planned.frozen.message)}", "red"))
    lines += [(f"  freeze ahead: {one}", "yellow") for one in planned.ahead]
    lines += [(f"  {one}", "") for one in _outlook(planned, rate)]
    lines.append((f"  on failure: all traffic goes to stable; without data: {_without_data(ruling)}", ""))
    lines.append((f"  plan digest {ruling.digest}", ""))
    lines += [(f"  {plain(problem)}", "red") for problem in planned.problems]
    lines += [(f"REFUSED {plain(refusal)}", "red") for refusal in ruling.refusals]
    return lines


def _changes(planned: Planned) -> list[str]:
    ruling = planned.ruling
    images = [
        f"image {plain(one)}" + (" (new)" if one not in planned.before else "") for one in dict.fromkeys(planned.after)
    ]
    touched = [f"touches {one.name}: {', '.join(map(plain, one.paths))}" for one in ruling.classes]
    degree = f", {ruling.degree}" if ruling.degree else ""
    tools = ", ".join(plain(tool.name) for tool in ruling.evidence.tools)
    origin = f"origin {ruling.origin}{degree}, trust {ruling.trust}" + (f", tools {tools}" if tools else "")
    proven = "" if planned.attempt else "; what the image proves is looked up once the change is held"
    return [*images, *(touched or ["touches nothing: the template is stable's"]), origin + proven]


def _steps(planned: Planned) -> list[str]:
    ruling = planned.ruling
    rows = []
    for number, step in enumerate(ruling.plan, start=1):
        pods = max(-(-planned.replicas * step.weight // 100), 1)
        rows.append([str(number), percent(step.weight), span(step.bake), f"{pods:.0f}", _approval(step), step.rule])
    table = render_table(["STEP", "WEIGHT", "BAKE", "PODS", "GATE", "RULE"], rows) if rows else []
    least = sum(step.bake for step in ruling.plan)
    return [
        *table,
        f"then the Deployment rolls its {planned.replicas} pods by its own strategy; at least {span(least)} in all",
    ]


def _approval(step: PlanStep) -> str:
    return "approval" if step.approval else "-"


def _clamp(clamp: Clamp) -> str:
    return f"{clamp.field} {clamp.wrote} -> {clamp.got} by {plain(clamp.rule)}"


def _gate(gate: Gate) -> str:
    where = f"out of step {gate.step}" if gate.step else "before the first request"
    people = "one person" if gate.count == 1 else f"{gate.count} people"
    groups = f" of {' or '.join(map(plain, gate.groups))}" if gate.groups else ""
    rule = "" if gate.rule == "spec" else f", by {plain(gate.rule)}"
    return f"{people}{groups} {where}{rule}" + (f" ({gate.why})" if gate.why else "")


def _outlook(planned: Planned, rate: float) -> list[str]:
    """What the judge could see: with the traffic named, or how much it takes."""
    least = float(planned.ruling.analysis.get("minRequests", 0))
    if not rate:
        first = planned.ruling.plan[0] if planned.ruling.plan else None
        if first is None or not least or not first.bake:
            return []
        needed = least / (first.weight / 100) / first.bake
        return [f"step 1 needs {least:.0f} canary requests: {needed:.0f} a second to the service, else it waits longer"]
    seen = outlook([(step.weight, step.bake) for step in planned.ruling.plan], rate=rate, ratio=0.001)
    told = [
        f"step {number} sees " + (f"failures from {100 * one.sees:g} % on" if one.sees else "nothing")
        for number, one in enumerate(seen.steps, start=1)
    ]
    return [f"at {rate:g} requests a second: {'; '.join(told)}", *seen.warnings]


def _without_data(ruling: Ruling) -> str:
    return "rolled back" if ruling.no_data == "RollBack" else "held"


def as_document(planned: Planned) -> Object:
    """For programs: names are stable."""
    ruling = planned.ruling
    document: Object = {
        "canary": planned.canary,
        "namespace": planned.namespace,
        "attempt": planned.attempt,
        "images": list(planned.after),
        "classes": _plainly(ruling.classes),
        "origin": ruling.origin.value,
        "degree": ruling.degree.value,
        "trust": ruling.trust.value,
        "steps": _plainly(ruling.plan),
        "gates": _plainly(ruling.gates),
        "clamps": _plainly(ruling.clamps),
        "policies": list(ruling.policies),
        "noData": ruling.no_data,
        "refusals": list(ruling.refusals),
        "frozen": planned.frozen.message if planned.frozen else "",
        "freezesAhead": list(planned.ahead),
        "planDigest": ruling.digest,
        "problems": list(planned.problems),
    }
    return document


def _plainly(values: tuple[Touched, ...] | tuple[PlanStep, ...] | tuple[Gate, ...] | tuple[Clamp, ...]) -> Any:
    return msgspec.to_builtins(values)
