"""What policies and freezes say of one Canary now: the objects of the cluster brought together with the pure rules.

They come from watch caches, so a stop is known without asking anybody. What cannot be read stops too: an unreadable
Freeze holds, an unreadable ReleasePolicy lets nothing begin, and so does evidence that cannot be looked up now.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from controller.guardrails.approval import barred_author, one_person
from controller.guardrails.change import as_released, classes_of
from controller.guardrails.freeze import Subject, freezes_in_force
from controller.guardrails.policy import Change, evaluate, selects
from controller.loop.world import World
from controller.model.evidence import NO_EVIDENCE
from controller.model.guarded import Frozen, Ruling
from controller.model.policy import OnStart
from controller.model.spec import CanarySpec
from controller.model.status import Phase, Status
from controller.model.world import DecisionSeen, Target
from controller.ports import CanarySeen, RulesSeen
from controller.rollout.answers import BY_PERSON, overridden
from controller.rollout.frozen import must_get_out

RULED = frozenset({Phase.IDLE, Phase.ROLLED_BACK})


def frozen_now(
    seen: CanarySeen, rules: RulesSeen, now: datetime, revoked: frozenset[str] = frozenset()
) -> Frozen | None:
    """The strictest freeze in force for the attempt that runs; not knowing is one.

    One that somebody let this attempt pass holds it no more, and still takes back what it takes back.
    """
    if rules.problem:
        return Frozen("", "", OnStart.HOLD, f"nobody can tell whether a freeze is in force: {rules.problem}")
    attempt = seen.status.attempt
    if attempt is None:
        return None
    subject = Subject(
        seen.ref.namespace,
        seen.labels,
        attempt.origin,
        frozenset(touched.name for touched in attempt.classes),
        attempt.evidence,
    )
    passed = overridden(seen.status, now, revoked)
    in_force = freezes_in_force(rules.freezes, subject, now)
    return next((one for one in in_force if one.uid not in passed or must_get_out(seen.status, one)), None)


async def read_ruling(seen: CanarySeen, spec: CanarySpec, target: Target, world: World) -> Ruling | None:
    """What the policies make of the candidate that is held now; None where there is none, or nobody can tell."""
    status, rules = seen.status, world.rules.read_rules()
    if not is_candidate(status, target) or rules.problem:
        return None
    mine = [one for one in rules.policies if selects(one.spec.selector, seen.ref.namespace, seen.labels)]
    signers = tuple(signer for policy in mine for signer in policy.spec.signers)
    before = status.stable.images if status.stable else ()
    images = tuple(image for image in target.images if image not in before)
    evidence = NO_EVIDENCE
    if world.provenance is not None and signers and images:
        evidence = await world.provenance.read_evidence(seen.ref, images, signers)
    asked_elsewhere = any(rule.passed_in for policy in mine for rule in policy.spec.rules)
    change = Change(
        namespace=seen.ref.namespace,
        canary=seen.ref.name,
        template_hash=target.template_hash,
        images=target.images,
        labels=seen.labels,
        classes=classes_of(as_released(status.stable), _workload(target), evidence),
        evidence=evidence,
        claimed=target.origin,
        passed=world.rules.promoted(target.images) if asked_elsewhere else frozenset(),
    )
    ruling = evaluate(change, spec, mine)
    unread = [f"PolicyUnreadable ReleasePolicy {name}: {problem}" for name, problem in rules.unreadable_policies]
    unknown = [f"EvidenceUnavailable {evidence.unavailable}"] if evidence.unavailable else []
    return replace(ruling, refusals=(*unread, *unknown, *ruling.refusals))


def with_people(said: tuple[DecisionSeen, ...], status: Status, rules: RulesSeen) -> tuple[DecisionSeen, ...]:
    """The decisions, each with whose it is and why that person may not approve.

    While a policy cannot be read, nobody knows which accounts are one person: what counts by person waits for that.
    """
    attempt = status.attempt
    if attempt is None:
        return said
    return tuple(
        replace(
            one,
            person=one_person(one.by, rules.people)[:256],
            barred=barred_author(one.by, attempt.authors, attempt.evidence),
            may=one.may if rules.tell_people or one.verb not in BY_PERSON else None,
        )
        for one in said
    )


def is_candidate(status: Status, target: Target) -> bool:
    """Whether a revision is held that has not been tried, so that an attempt may begin with it."""
    stable = status.stable
    return (
        status.phase in RULED
        and stable is not None
        and target.uid == stable.uid
        and target.paused
        and target.template_hash not in {stable.template_hash, status.rejected}
    )


def _workload(target: Target) -> dict[str, object]:
    """The candidate as change classes look at it."""
    return {"template": target.template, "strategy": {"type": target.strategy}, "replicas": target.replicas}
