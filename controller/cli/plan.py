"""`kubectl canary plan`: what would come of a change, before anybody applies it, or of what is held now.

The same functions as the controller's decide here, on the same objects: nothing in this file knows a rule. What an
image proves about its origin only the controller looks up; `--suppose` shows the plan as if it were proven.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from controller.analysis.planning import outlook
from controller.cli.configuration import configuration_changes, names_in
from controller.cli.documents import of_kind, read_documents
from controller.cli.kubectl import API, APPS, CORE, Cluster, Denied, Failure, Object, path_of, read_canary, unread
from controller.cli.outlook import render_outlook
from controller.cli.rules import parse_rules
from controller.cli.screen import Line, Screen
from controller.cli.text import percent, plain, render_document, render_table, shown_name, span
from controller.guardrails.change import as_released, classes_of
from controller.guardrails.freeze import Freeze, Subject, freezes_in_force, next_window
from controller.guardrails.policy import Change, Policy, evaluate
from controller.model.evidence import NO_EVIDENCE, Evidence, Origin, Trust
from controller.model.guarded import Clamp, Frozen, Gate, PlanStep, Ruling, Touched
from controller.model.policy import ChangeClass
from controller.model.spec import CanarySpec, parse_canary_spec
from controller.model.status import ACTIVE, Status, parse_status
from controller.model.template import plain_template, template_hash
from controller.model.uses import uses
from controller.rollout.answers import overridden
from controller.rollout.pods import pods_for
from controller.workloads.parse import ORIGIN, annotations_of, images_of

AHEAD = timedelta(days=7)
"""freezes that begin within this time are told"""
USUAL_RATIO = 0.001
"""share of stable's requests that fail, where nobody has measured it"""


@dataclass(frozen=True)
class Planned:
    """All that a plan says."""

    canary: str
    namespace: str
    replicas: int
    before: tuple[str, ...]
    after: tuple[str, ...]
    ruling: Ruling
    frozen: tuple[Frozen, ...]
    """in force now, the strictest first"""
    ahead: tuple[str, ...]
    problems: tuple[str, ...]
    attempt: str = ""
    """id of the attempt that runs by it; empty while nothing does"""
    known: Object = field(default_factory=dict)
    """the outlook in the Canary's status"""
    configuration: tuple[str, ...] = ()
    """what becomes of ConfigMaps, a line each"""


def run(options: argparse.Namespace, cluster: Cluster, screen: Screen, now: datetime | None = None) -> int:
    """Print the plan; 1 where the change would be refused."""
    namespace = options.namespace or cluster.namespace()
    now = now or datetime.now(UTC)
    bodies = read_documents(options.file) if options.file else []
    wanted = find_deployment(bodies, options.file, cluster, namespace) if options.file else None
    if wanted is not None:
        namespace = str(wanted["metadata"]["namespace"])
        if options.namespace and options.namespace != namespace:
            raise Failure(
                f"{plain(options.file)}: metadata.namespace: found {plain(namespace)}, and -n says another one"
            )
    canary = find_canary(cluster, namespace, options.name, wanted)
    planned = make_plan(cluster, canary, wanted, options.suppose, now, bodies)
    if options.output:
        screen.say(render_document(as_document(planned), options.output))
    else:
        screen.show(render(planned, options.rate))
    return 1 if planned.ruling.refusals else 0


def find_deployment(bodies: list[Object], file: str, cluster: Cluster, namespace: str) -> Object:
    """The Deployment of the file, as the API server would store it: defaults and other admission included.

    `namespace` is where it goes unless the file says so itself.

    Raises: Failure: there is none in it, or the API server refuses it.
    """
    found = of_kind(bodies, "Deployment", file, "a plan is of a Deployment as it would be; a Canary has check")[0]
    metadata = found.setdefault("metadata", {})
    if not isinstance(metadata, dict):
        raise Failure(f"{plain(file)}: metadata: found {plain(metadata, 80)}, write name: NAME below it")
    metadata.setdefault("namespace", namespace)
    return cluster.dry_run(found)


def find_canary(cluster: Cluster, namespace: str, name: str, wanted: Object | None) -> Object:
    """The Canary by its name, or the one whose target the file holds.

    Raises: Failure: neither is there.
    """
    if name:
        return read_canary(cluster, namespace, name)
    if wanted is None:
        raise Failure("name a Canary, or a file with -f")
    target = wanted["metadata"]["name"]
    told = f"no Canary in namespace {plain(namespace)} releases Deployment {plain(target)}"
    listed = cluster.read(path_of(API, namespace, "canaries")).get("items") or []
    found: Object | None = next((one for one in listed if one["spec"]["targetRef"]["name"] == target), None)
    if found is None:
        raise Failure(f"{told}: it would roll at once, without any of this")
    return found


def make_plan(
    cluster: Cluster,
    canary: Object,
    wanted: Object | None,
    suppose: str,
    now: datetime,
    bodies: Iterable[Object] = (),
) -> Planned:
    """What the controller would make of it; what runs now has its plan already."""
    meta, spec = canary["metadata"], parse_canary_spec(canary["spec"])
    status = parse_status(canary.get("status") or {})
    namespace = meta["namespace"]
    target = wanted or cluster.read(path_of(APPS, namespace, "deployments", spec.target_ref.name))
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
    in_force = freezes_in_force(freezes, subject, now)
    return Planned(
        canary=meta["name"],
        namespace=namespace,
        replicas=replicas,
        before=before,
        after=after,
        ruling=ruling,
        frozen=tuple(_told(one, status if of_attempt else Status(), now) for one in in_force),
        ahead=tuple(_ahead(freezes, now)),
        problems=problems,
        attempt=of_attempt,
        known=(canary.get("status") or {}).get("outlook") or {},
        configuration=_configuration(cluster, namespace, status, target, bodies),
    )


def _told(frozen: Frozen, status: Status, now: datetime) -> Frozen:
    """A freeze in force, and whether somebody lets the attempt under way pass it."""
    let = overridden(status, now, frozenset()).get(frozen.uid)
    if let is None or let.expires_at is None:
        return frozen
    until = f"{let.expires_at:%Y-%m-%d %H:%M} UTC"
    return replace(frozen, message=f"{frozen.message}; {shown_name(let.by)} lets this attempt pass it until {until}")


def _configuration(
    cluster: Cluster, namespace: str, status: Status, target: Object, bodies: Iterable[Object]
) -> tuple[str, ...]:
    """What the change does to ConfigMaps; those that may not be read are left out."""
    stable = names_in(status.stable.uses) if status.stable else set()
    wanted = names_in(uses(target["spec"]["template"]))
    written = {str(one["metadata"].get("name", "")): one for one in bodies if _is_config_map(one, namespace)}
    asked = sorted((stable & written.keys()) | (stable ^ wanted))
    answers = cluster.read_all(*(path_of(CORE, namespace, "configmaps", name) for name in asked))
    stored = {name: one for name, one in zip(asked, answers, strict=True) if not isinstance(one, Failure)}
    unread = {name for name, one in zip(asked, answers, strict=True) if isinstance(one, Denied)}
    return tuple(configuration_changes(stable - unread, wanted - unread, written, stored))


def _is_config_map(body: Object, namespace: str) -> bool:
    meta = body.get("metadata")
    return body.get("kind") == "ConfigMap" and isinstance(meta, dict) and meta.get("namespace", namespace) == namespace


def _ruled(
    meta: Object,
    spec: CanarySpec,
    status: Status,
    template: dict[str, Any],
    target: Object,
    policies: tuple[Policy, ...],
    suppose: str,
) -> Ruling:
    evidence = Evidence(origin=Origin(suppose), trust=Trust.T3, classes=tuple(ChangeClass)) if suppose else NO_EVIDENCE
    known = {name: target["spec"][name] for name in ("strategy", "replicas") if name in target["spec"]}
    change = Change(
        namespace=meta["namespace"],
        canary=meta["name"],
        template_hash=template_hash(template),
        images=images_of(template),
        labels=meta.get("labels") or {},
        classes=classes_of(as_released(status.stable), {"template": template} | known, evidence)
        if status.stable
        else (),
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
            problems.append(f"{unread(plural, answer)}, so this plan may be laxer than the real one: {answer}")
            listed.append([])
        else:
            listed.append(answer.get("items") or [])
    policies, freezes, senseless = parse_rules(*listed)
    return policies, freezes, (*problems, *senseless)


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
    lines += [(f"  {line}", "" if line.startswith("config:") else "yellow") for line in planned.configuration]
    lines.append(("", ""))
    lines += [(f"  {line}", "") for line in _steps(planned)]
    lines += [(f"  changed by policy: {_clamp(clamp)}", "yellow") for clamp in ruling.clamps if clamp.enforced]
    lines += [(f"  would be changed: {_clamp(clamp)}", "") for clamp in ruling.clamps if not clamp.enforced]
    lines.append(("", ""))
    lines += [(f"  asked first: {_gate(gate)}", "yellow") for gate in ruling.gates]
    if ruling.authors and ruling.gates:
        lines.append((f"  may not approve: {', '.join(map(shown_name, ruling.authors))}", ""))
    lines += [(f"  frozen now: {plain(one.message)}", "red") for one in planned.frozen]
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
    doubts = [f"not proven: {plain(problem)}" for problem in ruling.evidence.problems]
    return [*images, *(touched or ["touches nothing: the template is stable's"]), origin + proven, *doubts]


def _steps(planned: Planned) -> list[str]:
    ruling = planned.ruling
    rows = []
    for number, step in enumerate(ruling.plan, start=1):
        pods = pods_for(step.weight, planned.replicas)
        rows.append([str(number), percent(step.weight), span(step.bake), str(pods), _approval(step), step.rule])
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
    return f"{people}{groups} {where}{rule}" + (f" ({plain(gate.why)})" if gate.why else "")


def _outlook(planned: Planned, rate: float) -> list[str]:
    """What the judge could see: with the traffic named, or how much it takes."""
    least = float(planned.ruling.analysis.get("minRequests", 0))
    steps = [(step.weight, step.bake) for step in planned.ruling.plan]
    measured = float(planned.known.get("rate") or 0.0)
    if not rate and not measured:
        first = planned.ruling.plan[0] if planned.ruling.plan else None
        if first is None or not least or not first.bake:
            return []
        needed = least / (first.weight / 100) / first.bake
        return [f"step 1 needs {least:.0f} canary requests: {needed:.0f} a second to the service, else it waits longer"]
    # This plan, which policies may have changed, with the Canary's own margin.
    metrics = planned.ruling.analysis.get("metrics") or [{}]
    margin = next((one.get("margin") for one in metrics if one.get("errorRatio")), metrics[0].get("margin"))
    usual = planned.known.get("ratio")
    seen = outlook(
        steps,
        rate=rate or measured,
        ratio=max(USUAL_RATIO if usual is None else float(usual), float(margin or 0.0)),
        scrape=float(planned.known.get("relief") or 5.0),
        **({} if margin is None else {"margin": float(margin)}),
    )
    if not rate:
        return [*render_outlook(planned.known | {"steps": msgspec.to_builtins(seen.steps)}), *seen.warnings]
    told = [
        f"step {number} sees " + (f"failures from {100 * one.sees:.2g} % on" if one.sees else "nothing")
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
        "configuration": list(planned.configuration),
        "origin": ruling.origin.value,
        "degree": ruling.degree.value,
        "trust": ruling.trust.value,
        "notProven": list(ruling.evidence.problems),
        "steps": _plainly(ruling.plan),
        "gates": _plainly(ruling.gates),
        "clamps": _plainly(ruling.clamps),
        "policies": list(ruling.policies),
        "noData": ruling.no_data,
        "refusals": list(ruling.refusals),
        "frozen": "; ".join(one.message for one in planned.frozen),
        "freezesAhead": list(planned.ahead),
        "planDigest": ruling.digest,
        "outlook": planned.known or None,
        "problems": list(planned.problems),
    }
    return document


def _plainly(values: tuple[Touched, ...] | tuple[PlanStep, ...] | tuple[Gate, ...] | tuple[Clamp, ...]) -> Any:
    return msgspec.to_builtins(values)
