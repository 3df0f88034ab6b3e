"""What the policies make of a candidate: its plan, its gates, or why it is not released. Pure.

The one thing to know: every field can only tighten. Policies combine by the strictest of each field, approvals by
asking for all of them, and whatever is missing (evidence, a label, a name) counts as its worst value. So adding a
policy or losing evidence never loosens, and no AI's change is treated more laxly than the same change by a person;
`tests/property/test_guardrails.py` holds all three against every input.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

import msgspec

from controller.guardrails.origin import (
    as_far_as_it_reaches,
    asked_of,
    asked_of_degree,
    at_least,
    authors_of,
    treated_degree,
    treated_origin,
)
from controller.model.durations import render_duration
from controller.model.evidence import NO_EVIDENCE, Degree, Evidence, Origin, Trust
from controller.model.guarded import Clamp, Gate, PlanStep, Ruling, Touched
from controller.model.policy import ChangeClass, ReleasePolicySpec, Rule, When, Where
from controller.model.spec import Analysis, CanarySpec, Step, render_analysis

CRITICALITY = "serin.dev/criticality"
"""label of a Canary: low, medium or high; without it, high"""
UNVOUCHED = frozenset({Origin.MIXED, Origin.UNKNOWN, Origin.AI})
_CRITICAL = {"low": 0, "medium": 1, "high": 2}
_CLAMPS = 40
EVERY_STEP, LAST_STEP = 1001, 1002


@dataclass(frozen=True)
class Policy:
    """A ReleasePolicy that could be read."""

    name: str
    spec: ReleasePolicySpec
    generation: int = 1


@dataclass(frozen=True)
class Change:
    """A candidate as the policies look at it."""

    namespace: str
    canary: str
    template_hash: str
    images: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    """of the Canary"""
    classes: tuple[Touched, ...] = ()
    evidence: Evidence = NO_EVIDENCE
    claimed: str = ""
    """the annotation `serin.dev/origin`"""
    passed: frozenset[tuple[str, str]] = frozenset()
    """namespace and name of each other Canary that promoted the same images, by digest"""
    unvouched: str = ""
    """what it touches that the evidence does not speak for, and what to do: `evaluate` finds it"""


@dataclass
class _Limits:
    """The strictest of each field so far, and the rule it comes from."""

    values: dict[str, tuple[Any, str]] = field(default_factory=dict)
    gates: list[Gate] = field(default_factory=list)
    """with EVERY_STEP and LAST_STEP, since the steps are not known yet"""
    refusals: list[str] = field(default_factory=list)

    def tighten(self, name: str, value: Any, rule: str, *, smaller: bool) -> None:
        if value is None:
            return
        known = self.values.get(name)
        if known is None or (value < known[0] if smaller else value > known[0]):
            self.values[name] = (value, rule)

    def of(self, name: str) -> tuple[Any, str]:
        return self.values.get(name, (None, ""))


def selects(where: Where, namespace: str, labels: Mapping[str, str]) -> bool:
    """Whether a selector means a Canary.

    >>> selects(Where(namespaces=("prod-*",)), "prod-eu", {}), selects(Where(labels={"tier": "1"}), "shop", {})
    (True, False)
    """
    named = not where.namespaces or any(
        namespace.startswith(one[:-1]) if one.endswith("*") else namespace == one for one in where.namespaces
    )
    return named and all(labels.get(name) == value for name, value in where.labels.items())


def evaluate(change: Change, spec: CanarySpec, policies: Iterable[Policy]) -> Ruling:
    """The plan this change is released by, and which rule changed what in it."""
    evidence, unvouched = as_far_as_it_reaches(change.evidence, change.classes)
    change = replace(change, evidence=evidence, unvouched=unvouched)
    chosen = [one for one in policies if selects(one.spec.selector, change.namespace, change.labels)]
    classes = frozenset(one.name for one in change.classes)
    enforced, watched = _Limits(), _Limits()
    names: set[str] = set()
    for policy in chosen:
        believe = Trust(policy.spec.human_from)
        origin = treated_origin(change.evidence, change.claimed, believe)
        degree = treated_degree(origin, change.evidence, believe)
        authors, known = authors_of(change.evidence, policy.spec.people, policy.spec.email_is_username)
        names |= authors
        into = enforced if policy.spec.mode == "Enforce" else watched
        for rule in policy.spec.rules:
            if _matches(rule.when, origin, degree, change, classes):
                _apply(rule, f"{policy.name}/{rule.name}", into, change, known)
    if not chosen:
        names |= authors_of(change.evidence, (), False)[0]
    origin = treated_origin(change.evidence, change.claimed)
    plan, gates, clamps = _planned(spec.steps, enforced)
    analysis, of_analysis = _analysed(spec, enforced)
    clamps += of_analysis
    no_data: Literal["Hold", "RollBack"] = "RollBack" if origin in UNVOUCHED else "Hold"
    asked, rule_name = enforced.of("noData")
    if asked == "RollBack" and no_data == "Hold":
        no_data = "RollBack"
        clamps.append(Clamp("noData", "Hold", "RollBack", rule_name))
    clamps += _observed(spec, watched)
    trust = change.evidence.trust
    ruling = Ruling(
        plan=plan,
        gates=gates,
        analysis=analysis,
        no_data=no_data,
        origin=origin,
        degree=treated_degree(origin, change.evidence),
        trust=Trust.T1 if trust is Trust.T0 and change.claimed else trust,
        digest="",
        evidence=change.evidence,
        classes=change.classes,
        authors=tuple(sorted(names))[:100],
        policies=tuple(f"{one.name}@{one.generation}" for one in chosen)[:40],
        clamps=tuple(clamps[:_CLAMPS]),
        refusals=tuple(enforced.refusals),
    )
    return _sealed(ruling, change, spec)


def _matches(when: When, origin: Origin, degree: Degree, change: Change, classes: frozenset[ChangeClass]) -> bool:
    critical = _CRITICAL.get(change.labels.get(CRITICALITY, "high"), 2)
    return (
        asked_of(origin, when.origin)
        and asked_of_degree(origin, degree, when.degree)
        and (when.trust_below is None or not at_least(change.evidence.trust, Trust(when.trust_below)))
        and (not when.classes or not classes.isdisjoint(when.classes))
        and (when.criticality is None or critical >= _CRITICAL[when.criticality])
    )


def _apply(rule: Rule, name: str, into: _Limits, change: Change, authors_known: bool) -> None:
    into.tighten("maxFirstWeight", rule.max_first_weight, name, smaller=True)
    into.tighten("maxJump", rule.max_jump, name, smaller=True)
    into.tighten("minBake", rule.min_bake, name, smaller=False)
    into.tighten("minRequests", rule.min_requests, name, smaller=False)
    into.tighten("falseRollbackRate", rule.false_rollback_rate, name, smaller=False)
    into.tighten("noData", rule.no_data, name, smaller=False)  # "RollBack" > "Hold"
    if rule.approvals is not None:
        step = {"Start": 0, "EveryStep": EVERY_STEP, "Release": LAST_STEP}[rule.approvals.before]
        unproven = change.unvouched or "no proof says who wrote it, so an author could be among them"
        why = "" if authors_known else f"one more: {unproven}"
        count = rule.approvals.count + (0 if authors_known else 1)
        into.gates.append(Gate(step, count, rule.approvals.groups, name, why))
    into.refusals += _refusals(rule, name, change)


def _refusals(rule: Rule, name: str, change: Change) -> Iterable[str]:
    """Why this rule keeps the change from being released, a line each; the first word is the reason."""
    where = {one.name: one.paths[0] if one.paths else "" for one in change.classes}
    if rule.refuse:
        yield f"PolicyRefused {name}: such a change is not released while this rule stands"
    for together in rule.forbid:
        if all(kind in where for kind in together):
            told = " and ".join(f"{kind} ({where[kind]})" for kind in together)
            yield f"PolicyRefused {name}: {told} in one rollout: release them one after the other"
    vouched = {one.type for one in change.evidence.predicates if one.result == "passed"}
    failed = {one.type for one in change.evidence.predicates if one.result != "passed"}
    for wanted in rule.evidence:
        if wanted in failed:
            yield f"EvidenceMissing {name}: the statement {wanted} about this image says failed"
        elif wanted not in vouched:
            yield f"EvidenceMissing {name}: no signer vouches for {wanted} of this image: attach the statement"
    if rule.accountable and not (change.evidence.accountable and change.evidence.trust is Trust.T3):
        missing = change.unvouched or "no signed statement names who answers for this change"
        yield f"EvidenceMissing {name}: {missing}"
    if rule.passed_in is not None:
        earlier = (rule.passed_in.namespace, rule.passed_in.canary or change.canary)
        if earlier not in change.passed:
            yield (
                f"NotPassedBefore {name}: Canary {earlier[1]} in namespace {earlier[0]} has not promoted these image "
                "digests: release them there first, by digest and not by tag"
            )


def _planned(steps: Sequence[Step], limits: _Limits) -> tuple[tuple[PlanStep, ...], tuple[Gate, ...], list[Clamp]]:
    """The steps within the limits: what rises too fast gets steps put in, what is too short is held longer."""
    first, first_rule = limits.of("maxFirstWeight")
    jump, jump_rule = limits.of("maxJump")
    bake, bake_rule = limits.of("minBake")
    clamps: list[Clamp] = []
    plan: list[PlanStep] = []
    asked: list[int] = []
    before = 0.0
    own = 0
    for number, step in enumerate((*steps, None)):
        # After the last step comes the release, which gives the change to everybody.
        weight, wrote = (step.weight, step.bake) if step else (100.0, steps[-1].bake)
        held = wrote
        if bake is not None and held < bake:
            held = bake
            if step:
                clamps.append(Clamp(f"steps[{number}].bake", render_duration(wrote), render_duration(held), bake_rule))
        while True:
            allowed, rule = 100.0, ""
            for limit, name in ((first if not plan else None, first_rule), (jump, jump_rule)):
                if limit is not None and limit < allowed:
                    allowed, rule = limit, name
            if weight - before <= allowed + 1e-9:
                break
            before = round(before + allowed, 2)
            plan.append(PlanStep(before, held.total_seconds(), False, rule))
            clamps.append(Clamp(f"steps[{number}].weight", _percent(weight), _percent(before), rule))
        if step is None:
            break
        before = weight
        plan.append(PlanStep(before, held.total_seconds(), False, bake_rule if held > wrote else ""))
        own = len(plan)
        if step.approval is not None:
            asked.append(len(plan))
    gates = _gates(asked, limits.gates, len(plan), own)
    closed = {gate.step for gate in gates}
    for number in closed - {0}:
        plan[number - 1] = msgspec.structs.replace(plan[number - 1], approval=True)
    return tuple(plan), gates, clamps


def _gates(asked: Sequence[int], wanted: Sequence[Gate], steps: int, own: int) -> tuple[Gate, ...]:
    """One gate for each step and set of groups, by the rule that asks for the most people.

    The gate before the release is out of the last step that the Canary says (`own`), also where steps were put in
    after it: more steps must not put off the people.
    """
    strictest: dict[tuple[int, tuple[str, ...]], Gate] = {(number, ()): Gate(number) for number in asked}
    for gate in wanted:
        numbers = {EVERY_STEP: range(1, steps + 1), LAST_STEP: [own]}.get(gate.step, [gate.step])
        for number in numbers:
            known = strictest.get((number, gate.groups))
            if known is None or known.count < gate.count or known.rule == "spec":
                strictest[number, gate.groups] = Gate(number, gate.count, gate.groups, gate.rule, gate.why)
    return tuple(sorted(strictest.values(), key=lambda gate: (gate.step, gate.rule)))


def _analysed(spec: CanarySpec, limits: _Limits) -> tuple[dict[str, Any], list[Clamp]]:
    analysis = spec.analysis
    clamps = []
    changed: dict[str, Any] = {}
    for name, attribute in (("minRequests", "min_requests"), ("falseRollbackRate", "false_rollback_rate")):
        least, rule = limits.of(name)
        wrote = getattr(analysis, attribute)
        if least is not None and wrote < least:
            changed[name] = least
            clamps.append(Clamp(f"analysis.{name}", f"{wrote:g}", f"{least:g}", rule))
    return _dumped(analysis) | changed, clamps


@lru_cache(maxsize=2048)
def _dumped(analysis: Analysis) -> dict[str, Any]:
    """Asked every turn, about specs that hardly ever change; nobody writes into what is returned."""
    return render_analysis(analysis)


def _sealed(ruling: Ruling, change: Change, spec: CanarySpec) -> Ruling:
    """With the digest over all that a person agrees to."""
    about = {
        "template": change.template_hash,
        "images": [*change.images],
        "digests": [one.digest for one in change.evidence.images],
        "steps": [(step.weight, step.bake) for step in ruling.plan],
        "gates": [(gate.step, gate.count, *gate.groups, gate.rule) for gate in ruling.gates],
        "analysis": ruling.analysis,
        "noData": ruling.no_data,
        "traffic": spec.traffic.model_dump(mode="json", by_alias=True),
        "origin": [ruling.origin, ruling.degree, ruling.trust],
        "authors": ruling.authors,
        "accountable": change.evidence.accountable,
        "reversible": change.evidence.reversible,
        "classes": [(one.name, *one.paths) for one in ruling.classes],
    }
    text = msgspec.json.encode(about, order="deterministic")
    return replace(ruling, digest="sha256:" + hashlib.sha256(text).hexdigest())


def _observed(spec: CanarySpec, watched: _Limits) -> list[Clamp]:
    """What the policies that only observe would have done."""
    if not (watched.values or watched.gates or watched.refusals):
        return []
    _, gates, clamps = _planned(spec.steps, watched)
    clamps += _analysed(spec, watched)[1]
    clamps += [Clamp("release", "allowed", line.split(" ", 1)[0], _rule_in(line)) for line in watched.refusals]
    clamps += [
        Clamp(f"approvals[{gate.step}]", "0", str(gate.count), gate.rule) for gate in gates if gate.rule != "spec"
    ]
    return [msgspec.structs.replace(clamp, enforced=False) for clamp in clamps]


def _rule_in(line: str) -> str:
    return line.split(" ", 2)[1].rstrip(":")


def _percent(weight: float) -> str:
    return f"{weight:g}%"
