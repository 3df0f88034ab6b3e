"""What the policies make of a candidate, by example; the laws are in tests/property/test_guardrails.py."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from controller.guardrails.policy import Change, Policy, evaluate
from controller.model.evidence import Author, Evidence, ImageSeen, Origin, Predicate, Trust
from controller.model.guarded import Gate, Ruling, Touched
from controller.model.policy import ChangeClass, ReleasePolicySpec
from tests.builders import spec

PROVENANCE = "https://slsa.dev/provenance/v1"
HUMAN = Evidence(origin=Origin.HUMAN, trust=Trust.T3, authors=(Author("ann"),), accountable="ann")
AI = Evidence(origin=Origin.AI, trust=Trust.T3, authors=(Author("ann", "prompter"),), accountable="ann")
PEOPLE = [{"user": "ann", "ids": ["ann@example.com"]}]


def policy(*rules: dict[str, Any], name: str = "strict", **fields: Any) -> Policy:
    body = {"rules": [{"name": f"rule-{number}"} | rule for number, rule in enumerate(rules)], "people": PEOPLE}
    return Policy(name, ReleasePolicySpec.model_validate(body | fields))


def change(evidence: Evidence = AI, *classes: str, **fields: Any) -> Change:
    touched = tuple(Touched(ChangeClass(name), (f"template.{name}",)) for name in classes)
    return Change("shop", "checkout", "hash", ("shop@sha256:1",), evidence=evidence, classes=touched, **fields)


def ruling(*rules: dict[str, Any], evidence: Evidence = AI, **fields: Any) -> Ruling:
    return evaluate(change(evidence), spec(), [policy(*rules, **fields)])


def weights(found: Ruling) -> list[float]:
    return [step.weight for step in found.plan]


def test_without_a_policy_the_plan_is_what_the_canary_says() -> None:
    found = evaluate(change(), spec(), [])

    assert [(step.weight, step.bake, step.approval) for step in found.plan] == [(10, 60, False), (50, 60, False)]
    assert (found.gates, found.clamps, found.refusals) == ((), (), ())
    assert found.no_data == "RollBack"
    assert evaluate(change(HUMAN), spec(), []).no_data == "Hold"


def test_a_first_step_that_is_too_large_gets_a_smaller_one_before_it() -> None:
    found = ruling({"maxFirstWeight": 1})

    assert weights(found) == [1, 10, 50]
    assert [(clamp.field, clamp.wrote, clamp.got, clamp.rule) for clamp in found.clamps] == [
        ("steps[0].weight", "10%", "1%", "strict/rule-0")
    ]
    assert [step.rule for step in found.plan] == ["strict/rule-0", "", ""]


def test_no_jump_is_larger_than_the_rule_allows_and_the_release_is_one_too() -> None:
    found = ruling({"maxJump": 20})

    assert weights(found) == [10, 30, 50, 70, 90]


def test_short_bakes_are_held_longer() -> None:
    found = ruling({"minBake": "2m"})

    assert [step.bake for step in found.plan] == [120, 120]
    assert [(clamp.field, clamp.wrote, clamp.got) for clamp in found.clamps] == [
        ("steps[0].bake", "1m", "2m"),
        ("steps[1].bake", "1m", "2m"),
    ]


def test_several_policies_come_to_the_strictest_of_each_field() -> None:
    found = evaluate(
        change(),
        spec(),
        [
            policy({"maxFirstWeight": 5, "minRequests": 900}, name="a"),
            policy({"maxFirstWeight": 2, "minRequests": 200, "falseRollbackRate": 0.05}, name="b"),
        ],
    )

    assert weights(found)[0] == 2
    assert (found.analysis["minRequests"], found.analysis["falseRollbackRate"]) == (900, 0.05)
    assert {clamp.field: clamp.rule for clamp in found.clamps} == {
        "steps[0].weight": "b/rule-0",
        "analysis.minRequests": "a/rule-0",
        "analysis.falseRollbackRate": "b/rule-0",
    }


@pytest.mark.parametrize(
    ("when", "evidence", "applies"),
    [
        ({"origin": "ai"}, AI, True),
        ({"origin": "ai"}, HUMAN, False),
        ({"origin": "ai"}, Evidence(), True),
        ({"origin": "mixed"}, Evidence(origin=Origin.AUTOMATION, trust=Trust.T3), False),
        ({"origin": "ai"}, Evidence(origin=Origin.HUMAN, trust=Trust.T2), True),
        ({"degree": "generated"}, AI, True),
        ({"degree": "assisted"}, HUMAN, False),
        ({"trustBelow": "T3"}, AI, False),
        ({"trustBelow": "T3"}, Evidence(trust=Trust.T2), True),
        ({"criticality": "high"}, AI, True),
        ({"classes": ["schema"]}, AI, False),
    ],
)
def test_which_changes_a_rule_is_about(when: dict[str, Any], evidence: Evidence, applies: bool) -> None:
    assert bool(ruling({"when": when, "maxFirstWeight": 1}, evidence=evidence).clamps) is applies


def test_a_team_says_that_its_service_is_not_critical_with_a_label() -> None:
    rules = [policy({"when": {"criticality": "high"}, "maxFirstWeight": 1})]

    assert evaluate(change(), spec(), rules).clamps
    assert not evaluate(change(labels={"serin.dev/criticality": "low"}), spec(), rules).clamps


def test_a_policy_of_other_namespaces_says_nothing() -> None:
    assert not ruling({"maxFirstWeight": 1}, selector={"namespaces": ["billing"]}).clamps


def test_an_annotation_that_says_human_is_not_believed_and_one_that_says_ai_is() -> None:
    assert evaluate(change(Evidence(), claimed="human"), spec(), []).origin is Origin.UNKNOWN
    assert evaluate(change(HUMAN, claimed="ai"), spec(), []).origin is Origin.AI


def test_approvals_stand_before_the_first_request_after_each_step_or_before_the_release() -> None:
    def gates(before: str) -> list[Gate]:
        return list(ruling({"approvals": {"before": before, "count": 2, "groups": ["sre"]}}).gates)

    assert gates("Start") == [Gate(0, 2, ("sre",), "strict/rule-0")]
    assert [gate.step for gate in gates("EveryStep")] == [1, 2]
    assert [gate.step for gate in gates("Release")] == [2]


def test_when_nobody_knows_who_wrote_it_one_more_person_has_to_agree() -> None:
    rule = {"approvals": {"before": "Start"}}
    stranger = Evidence(origin=Origin.AI, trust=Trust.T3, authors=(Author("mail@elsewhere.org"),))

    assert [gate.count for gate in ruling(rule).gates] == [1]
    assert [gate.count for gate in ruling(rule, evidence=Evidence()).gates] == [2]
    assert [gate.count for gate in ruling(rule, evidence=stranger).gates] == [2]
    assert [gate.count for gate in ruling(rule, evidence=stranger, emailIsUsername=True).gates] == [1]


def test_an_author_is_known_by_all_names_of_the_person() -> None:
    signed = Evidence(origin=Origin.AI, trust=Trust.T3, authors=(Author("mailto:Ann@Example.com", "prompter"),))

    assert ruling({}, evidence=signed).authors == ("ann", "ann@example.com")


def test_the_canarys_own_approvals_stay_when_steps_are_put_in_before_them() -> None:
    own = spec(steps=[{"weight": 10, "bake": "1m", "approval": {}}, {"weight": 50, "bake": "1m"}])

    found = evaluate(change(), own, [policy({"maxFirstWeight": 1})])

    assert [(step.weight, step.approval) for step in found.plan] == [(1, False), (10, True), (50, False)]
    assert found.gates == (Gate(2),)


def test_a_forbidden_combination_is_refused_with_both_places_named() -> None:
    rules = [policy({"forbid": [["schema", "auth"]]})]

    (line,) = evaluate(change(HUMAN, "schema", "auth", "image"), spec(), rules).refusals

    assert line.startswith("PolicyRefused strict/rule-0: ")
    assert "schema (template.schema)" in line
    assert "auth (template.auth)" in line
    assert evaluate(change(HUMAN, "schema", "image"), spec(), rules).refusals == ()


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        ((), "no signer vouches"),
        ((Predicate(PROVENANCE, "failed"),), "says failed"),
        ((Predicate("https://elsewhere"),), "no signer vouches"),
        ((Predicate(PROVENANCE),), ""),
    ],
)
def test_evidence_that_a_rule_asks_for_must_be_there_and_must_not_have_failed(
    statements: tuple[Predicate, ...], said: str
) -> None:
    found = ruling({"evidence": [PROVENANCE]}, evidence=Evidence(trust=Trust.T3, predicates=statements))

    assert said in "".join(found.refusals)
    assert bool(found.refusals) is bool(said)


@pytest.mark.parametrize(
    ("touched", "named", "treated"),
    [
        (("image", "irreversible"), (), Origin.HUMAN),
        (("image", "scale"), (), Origin.HUMAN),
        (("image", "config"), (), Origin.UNKNOWN),
        (("image", "config"), ("config",), Origin.HUMAN),
        (("image", "config", "auth"), ("config",), Origin.UNKNOWN),
        (("image", "schema"), ("code", "image"), Origin.UNKNOWN),
        (("image", "destructive"), (), Origin.UNKNOWN),
    ],
)
def test_a_persons_statement_about_an_image_covers_what_it_names_beside_it_and_nothing_else(
    touched: tuple[str, ...], named: tuple[str, ...], treated: Origin
) -> None:
    signed = msgspec.structs.replace(HUMAN, classes=named)

    found = evaluate(change(signed, *touched), spec(), [])

    assert (found.origin, found.trust) == (treated, Trust.T3 if treated is Origin.HUMAN else Trust.T0)
    assert bool(found.evidence.problems) is (treated is Origin.UNKNOWN)


def test_settings_that_nobody_vouches_for_are_asked_about_as_if_they_came_alone_and_the_gate_says_why() -> None:
    strict = policy(
        {"when": {"origin": "mixed", "degree": "generated"}, "approvals": {"before": "Start"}},
        {"when": {"trustBelow": "T3"}, "approvals": {"before": "Release"}},
    )
    alone = evaluate(change(Evidence(), "config"), spec(), [strict])

    for signed in (HUMAN, AI):
        found = evaluate(change(signed, "image", "config"), spec(), [strict])
        gate = found.gates[0]

        assert [(one.step, one.count) for one in found.gates] == [(one.step, one.count) for one in alone.gates]
        assert gate.why.startswith("one more: nobody vouches for config (template.config)")
        assert gate.why.endswith("kubectl canary attest --class config")
        assert found.authors == ("ann", "ann@example.com"), "an author stays one"


def test_a_container_that_comes_along_is_more_than_an_image() -> None:
    touched = (Touched(ChangeClass.IMAGE, ("template.spec.containers[app2]", "template.spec.containers[app].image")),)
    added = Change("shop", "checkout", "hash", ("shop@sha256:1",), evidence=HUMAN, classes=touched)

    found = evaluate(added, spec(), [])

    assert found.origin is Origin.UNKNOWN
    assert "config (template.spec.containers[app2])" in found.evidence.problems[0]


def test_who_answers_for_an_image_does_not_answer_for_settings_that_it_does_not_name() -> None:
    rules = [policy({"accountable": True})]

    (line,) = evaluate(change(HUMAN, "image", "auth"), spec(), rules).refusals

    assert line.startswith("EvidenceMissing strict/rule-0: nobody vouches for auth (template.auth)")
    assert not evaluate(change(HUMAN, "image"), spec(), rules).refusals


def test_somebody_must_answer_for_the_change_and_a_weak_claim_names_nobody() -> None:
    assert not ruling({"accountable": True}).refusals
    assert ruling({"accountable": True}, evidence=Evidence(accountable="ann", trust=Trust.T2)).refusals


def test_production_is_refused_until_the_earlier_environment_promoted_the_same_digests() -> None:
    rules = [policy({"passedIn": {"namespace": "staging"}})]

    (line,) = evaluate(change(), spec(), rules).refusals

    assert line.startswith("NotPassedBefore strict/rule-0: Canary checkout in namespace staging")
    assert evaluate(change(passed=frozenset({("staging", "checkout")})), spec(), rules).refusals == ()


def test_a_policy_that_only_observes_changes_nothing_and_says_what_it_would_have_done() -> None:
    found = ruling(
        {"maxFirstWeight": 1, "refuse": True, "approvals": {"before": "Start"}, "minRequests": 900}, mode="Observe"
    )

    assert (weights(found), found.gates, found.refusals) == ([10, 50], (), ())
    assert [(clamp.field, clamp.got, clamp.enforced) for clamp in found.clamps] == [
        ("steps[0].weight", "1%", False),
        ("analysis.minRequests", "900", False),
        ("release", "PolicyRefused", False),
        ("approvals[0]", "1", False),
    ]


@pytest.mark.parametrize(
    "other",
    [
        change(Evidence(origin=Origin.AI, trust=Trust.T3, images=(ImageSeen("shop", "sha256:2"),))),
        change(AI, "schema"),
        Change("shop", "checkout", "another", ("shop@sha256:1",), evidence=AI),
        Change("shop", "checkout", "hash", ("shop@sha256:2",), evidence=AI),
        change(HUMAN),
    ],
    ids=["digest", "classes", "template", "image", "origin"],
)
def test_the_plan_digest_changes_with_all_that_an_approval_is_about(other: Change) -> None:
    rules = [policy({"maxFirstWeight": 1})]
    usual = evaluate(change(), spec(), rules).digest

    assert evaluate(change(), spec(), rules).digest == usual
    assert evaluate(other, spec(), rules).digest != usual
    assert evaluate(change(), spec(), [policy({"maxFirstWeight": 2})]).digest != usual
    assert evaluate(change(), spec(analysis={"minRequests": 5}), rules).digest != usual
