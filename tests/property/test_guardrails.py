"""Laws of the guardrails, for every policy, plan and piece of evidence: nothing but a better proof ever loosens."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.guardrails.freeze import Freeze, Subject, freezes_in_force
from controller.guardrails.origin import treated_origin
from controller.guardrails.policy import Change, Policy, evaluate
from controller.model.evidence import Author, Degree, Evidence, Origin, Predicate, Tool, Trust
from controller.model.guarded import Gate, Ruling, Touched
from controller.model.policy import ChangeClass, FreezeSpec, OnStart, ReleasePolicySpec
from tests.builders import NOON, spec

TYPES = ("https://slsa.dev/provenance/v1", "https://in-toto.io/attestation/test-result/v0.1")
GROUPS = ("sre", "owners")
origins = st.sampled_from(["human", "automation", "mixed", "ai"])
classes = st.sets(st.sampled_from(list(ChangeClass)), max_size=4)
when = st.fixed_dictionaries(
    {},
    optional={
        "origin": origins,
        "degree": st.sampled_from(["assisted", "generated", "autonomous"]),
        "trustBelow": st.sampled_from(["T1", "T2", "T3"]),
        "classes": classes.map(sorted),
        "criticality": st.sampled_from(["low", "medium", "high"]),
    },
)
rules = st.fixed_dictionaries(
    {"when": when},
    optional={
        "maxFirstWeight": st.sampled_from([0.01, 1, 5, 33.33, 100]),
        "maxJump": st.sampled_from([5, 12.5, 50, 100]),
        "minBake": st.sampled_from(["1s", "10m"]),
        "minRequests": st.integers(0, 5000),
        "falseRollbackRate": st.sampled_from([0.001, 0.05, 0.2]),
        "noData": st.sampled_from(["Hold", "RollBack"]),
        "approvals": st.fixed_dictionaries(
            {
                "before": st.sampled_from(["Start", "EveryStep", "Release"]),
                "count": st.integers(1, 3),
                "groups": st.sets(st.sampled_from(GROUPS)).map(sorted),
            }
        ),
        "evidence": st.sets(st.sampled_from(TYPES)).map(sorted),
        "accountable": st.booleans(),
        "forbid": st.lists(st.sets(st.sampled_from(list(ChangeClass)), min_size=2, max_size=3).map(sorted), max_size=2),
        "passedIn": st.just({"namespace": "staging"}),
        "refuse": st.booleans(),
    },
)


def _named(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"name": f"r{number}"} | part for number, part in enumerate(parts)]


policies = st.builds(
    lambda parts, **fields: Policy("p", ReleasePolicySpec.model_validate({"rules": _named(parts)} | fields)),
    st.lists(rules, max_size=4),
    mode=st.sampled_from(["Enforce", "Enforce", "Observe"]),
    humanFrom=st.sampled_from(["T1", "T2", "T3"]),
    people=st.sampled_from([[], [{"user": "ann", "ids": ["ann@x.org"]}]]),
    emailIsUsername=st.booleans(),
    selector=st.sampled_from([{}, {"namespaces": ["shop"]}, {"labels": {"tier": "1"}}]),
)
evidences = st.builds(
    Evidence,
    origin=st.sampled_from(list(Origin)),
    degree=st.sampled_from(list(Degree)),
    trust=st.sampled_from(list(Trust)),
    authors=st.lists(st.sampled_from([Author("ann"), Author("bob@x.org", "prompter")]), max_size=2).map(tuple),
    accountable=st.sampled_from(["", "ann"]),
    reversible=st.sampled_from([None, True, False]),
    classes=classes.map(sorted).map(tuple),
    predicates=st.lists(
        st.builds(Predicate, st.sampled_from(TYPES), st.sampled_from(["passed", "failed"])), max_size=2
    ).map(tuple),
)
changes = st.builds(
    lambda evidence, kinds, claimed, labels, passed: Change(
        "shop",
        "checkout",
        "hash",
        ("shop@sha256:1",),
        labels=labels,
        classes=tuple(Touched(kind, (f"template.{kind}",)) for kind in ChangeClass if kind in kinds),
        evidence=evidence,
        claimed=claimed,
        passed=passed,
    ),
    evidences,
    classes,
    st.sampled_from(["", "human", "ai"]),
    st.sampled_from([{}, {"tier": "1"}, {"serin.dev/criticality": "low"}]),
    st.sampled_from([frozenset(), frozenset({("staging", "checkout")})]),
)
specs = st.builds(
    lambda weights, bake, least, gate: spec(
        steps=[
            {"weight": weight, "bake": bake} | ({"approval": {}} if number == gate else {})
            for number, weight in enumerate(sorted(weights))
        ],
        analysis={"minRequests": least},
    ),
    st.sets(st.sampled_from([0.5, 1, 7, 25, 50, 80, 100]), min_size=1),
    st.sampled_from(["1s", "1m", "1h"]),
    st.integers(0, 3000),
    st.integers(0, 3),
)


def seconds_to(ruling: Ruling, weight: float) -> float:
    """The least time that passes before more than `weight` percent of users meet the change."""
    if ruling.refusals:
        return float("inf")
    return sum(step.bake for step in ruling.plan if step.weight <= weight)


def asked(ruling: Ruling, weight: float, groups: tuple[str, ...]) -> int:
    """People of these groups that must have agreed before more than `weight` percent meet it."""
    passed = sum(1 for step in ruling.plan if step.weight <= weight)
    gates: list[Gate] = [gate for gate in ruling.gates if gate.groups == groups and gate.step <= passed]
    return max((gate.count for gate in gates), default=0)


def assert_no_laxer(strict: Ruling, lax: Ruling) -> None:
    """Whatever the second keeps from happening, the first keeps from happening too."""
    assert bool(strict.refusals) >= bool(lax.refusals)
    for weight in sorted({0.0, *(step.weight for step in (*strict.plan, *lax.plan)), 99.99}):
        assert seconds_to(strict, weight) >= seconds_to(lax, weight) - 1e-6
        for groups in {gate.groups for gate in lax.gates}:
            assert asked(strict, weight, groups) >= asked(lax, weight, groups)
    assert strict.analysis["minRequests"] >= lax.analysis["minRequests"]
    assert strict.analysis["falseRollbackRate"] >= lax.analysis["falseRollbackRate"]
    assert (strict.no_data == "RollBack") >= (lax.no_data == "RollBack")
    assert set(strict.authors) >= set(lax.authors) or not strict.evidence.authors


@settings(max_examples=60)
@given(changes, specs, st.lists(policies, max_size=3))
def test_an_ai_is_never_treated_more_laxly_than_a_person_with_the_same_change(
    change: Change, plan: Any, found: list[Policy]
) -> None:
    by_ai = replace(change, evidence=msgspec.structs.replace(change.evidence, origin=Origin.AI))
    for other in (Origin.HUMAN, Origin.AUTOMATION, Origin.MIXED):
        by_other = replace(change, evidence=msgspec.structs.replace(change.evidence, origin=other))
        assert_no_laxer(evaluate(by_ai, plan, found), evaluate(by_other, plan, found))


@settings(max_examples=60)
@given(changes, specs, st.lists(policies, max_size=3), policies)
def test_adding_a_policy_never_loosens(change: Change, plan: Any, found: list[Policy], more: Policy) -> None:
    assert_no_laxer(evaluate(change, plan, [*found, more]), evaluate(change, plan, found))


@settings(max_examples=60)
@given(changes, specs, st.lists(policies, max_size=3), st.data())
def test_losing_evidence_never_loosens(change: Change, plan: Any, found: list[Policy], data: st.DataObject) -> None:
    lost = Evidence()
    known = change.evidence
    kept = data.draw(st.sets(st.sampled_from(["degree", "authors", "accountable", "reversible", "classes"])))
    less = msgspec.structs.replace(known, **{name: getattr(lost, name) for name in kept})
    for weaker in (lost, less, msgspec.structs.replace(known, predicates=(), trust=Trust.T0)):
        # A failed statement that disappears is a statement that is missing.
        assert_no_laxer(evaluate(replace(change, evidence=weaker), plan, found), evaluate(change, plan, found))


def touching(change: Change, *more: ChangeClass) -> Change:
    kinds = {one.name for one in change.classes} | {*more}
    return replace(change, classes=tuple(Touched(kind, (f"template.{kind}",)) for kind in ChangeClass if kind in kinds))


@settings(max_examples=60)
@given(changes, specs, st.lists(policies, max_size=3), st.sampled_from(list(ChangeClass)))
def test_touching_one_more_class_never_loosens(
    change: Change, plan: Any, found: list[Policy], more: ChangeClass
) -> None:
    assert_no_laxer(evaluate(touching(change, more), plan, found), evaluate(change, plan, found))


@settings(max_examples=60)
@given(changes, specs, st.lists(policies, max_size=3))
def test_no_image_whoever_signed_for_it_buys_anything_for_settings_that_the_statement_does_not_name(
    change: Change, plan: Any, found: list[Policy]
) -> None:
    """Statements of other types are left out: they are about the image, and a rule that asks for one asks for that."""
    of_image = msgspec.structs.replace(change.evidence, classes=(), predicates=())
    settings_alone = replace(touching(change, ChangeClass.CONFIG), evidence=Evidence())
    with_image = replace(touching(change, ChangeClass.CONFIG, ChangeClass.IMAGE), evidence=of_image)

    assert_no_laxer(evaluate(with_image, plan, found), evaluate(settings_alone, plan, found))


@settings(max_examples=60)
@given(changes, specs, st.lists(policies, max_size=3))
def test_a_plan_that_was_clamped_names_the_rule(change: Change, plan: Any, found: list[Policy]) -> None:
    ruling, free = evaluate(change, plan, found), evaluate(change, plan, [])
    known = {f"{one.name}/{rule.name}" for one in found for rule in one.spec.rules}

    changed = [(step.weight, step.bake) for step in ruling.plan] != [(step.weight, step.bake) for step in free.plan]

    assert any(clamp.enforced and clamp.field.startswith("steps") for clamp in ruling.clamps) is changed
    assert {clamp.rule for clamp in ruling.clamps} <= known
    assert {gate.rule for gate in ruling.gates} <= known | {"spec"}
    for step in ruling.plan:
        wrote = [(one.weight, one.bake) for one in free.plan]
        assert step.rule in known or (step.weight, step.bake) in wrote


@settings(max_examples=60)
@given(changes, specs, st.lists(policies, max_size=3))
def test_a_plan_within_its_limits_still_rises_and_fits_into_a_status(
    change: Change, plan: Any, found: list[Policy]
) -> None:
    ruling = evaluate(change, plan, found)
    weights = [step.weight for step in ruling.plan]

    assert weights == sorted(set(weights))
    assert len(weights) <= 60
    assert len(ruling.gates) <= 200
    assert {step.weight for step in evaluate(change, plan, []).plan} <= set(weights)


@given(evidences, st.sampled_from(["", "human", "automation", "mixed", "unknown", "ai"]))
def test_a_claim_only_tightens(evidence: Evidence, claimed: str) -> None:
    order = list(Origin)

    assert order.index(treated_origin(evidence, claimed)) >= order.index(treated_origin(evidence, ""))


freezes = st.builds(
    lambda on_start, origin, namespaces, tools: FreezeSpec(
        reason="why", on_start=on_start, origin=origin, selector={"namespaces": namespaces}, tools=tools
    ),
    st.sampled_from(list(OnStart)),
    st.one_of(st.none(), origins),
    st.sampled_from([(), ("shop",), ("billing",)]),
    st.sampled_from([(), ("aider",)]),
)


@given(st.lists(freezes, max_size=4), freezes, st.sampled_from(list(Origin)), st.integers(0, 10**6))
def test_one_freeze_more_never_frees_anything_and_an_ai_is_never_freer(
    some: list[FreezeSpec], more: FreezeSpec, origin: Origin, later: int
) -> None:
    order = [None, OnStart.FINISH, OnStart.HOLD, OnStart.ROLL_BACK]
    now = NOON + timedelta(seconds=later)

    def strictness(found: list[FreezeSpec], who: Origin) -> int:
        evidence = Evidence(trust=Trust.T3, tools=(Tool("aider"),))
        stored = [Freeze(f"f{number}", f"u{number}", one) for number, one in enumerate(found)]
        frozen = next(iter(freezes_in_force(stored, Subject("shop", {}, who, evidence=evidence), now)), None)
        return order.index(frozen.on_start if frozen else None)

    assert strictness([*some, more], origin) >= strictness(some, origin)
    assert strictness(some, Origin.AI) >= strictness(some, origin)
