"""What guardrails cost in one process: an evaluation of policies, and a Freeze for a thousand rollouts."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import yaml

from controller.guardrails.freeze import Freeze
from controller.guardrails.policy import Change, Policy, evaluate
from controller.loop.guard import frozen_now
from controller.model.evidence import Evidence, ImageSeen, Origin, Trust
from controller.model.guarded import Touched
from controller.model.policy import ChangeClass, parse_freeze_spec, parse_policy_spec
from controller.model.spec import parse_canary_spec
from controller.ports import CanarySeen, Ref, RulesSeen
from controller.rollout.decide import decide
from tests.bench.rows import Row, Target, row
from tests.bench.scene import ROOT, Scene
from tests.builders import NOON, observed, status

PRESETS = ROOT / "manifests" / "policies"


async def policy_evaluation(scene: Scene) -> Row:
    """All presets together, on an AI's change of image and access; every evaluation is of another template."""
    return row("policy_evaluation", "us", evaluations(2000), Target("p50 < 200", {"p50": 200}))


def evaluations(count: int) -> list[float]:
    """Microseconds of so many evaluations, one after the other."""
    policies = [_policy(path) for path in sorted(PRESETS.glob("*.yaml"))]
    spec = parse_canary_spec(
        {
            "targetRef": {"name": "shop"},
            "traffic": {"service": {"name": "shop", "port": 80}, "httpRoute": {"name": "shop"}},
        }
    )
    classes = tuple(Touched(kind, ("template",)) for kind in (ChangeClass.IMAGE, ChangeClass.AUTH))
    samples = []
    for number in range(count + 100):
        images = (ImageSeen("shop", f"sha256:{number}"),)
        evidence = Evidence(origin=Origin.AI, trust=Trust.T3, accountable="ann", images=images)
        change = Change("shop", "shop", f"{number}", ("shop",), classes=classes, evidence=evidence)
        began = time.perf_counter()
        evaluate(change, spec, policies)
        samples.append((time.perf_counter() - began) * 1e6)
    return samples[100:]


async def freeze_decided_for_a_thousand(scene: Scene) -> Row:
    """What a Freeze costs the controller: a thousand rollouts under way looked at by it and decided, in one process."""
    return row(
        "freeze_decided_for_a_thousand", "s", [decisions_in(1000) for _ in range(5)], Target("max < 2", {"max": 2.0})
    )


def decisions_in(count: int) -> float:
    """Seconds from a Freeze in the rules until each of so many rollouts has been decided to be held."""
    spec = parse_freeze_spec({"reason": "a measurement", "origin": "ai"})
    rules = RulesSeen(freezes=(Freeze("stop", "uid", spec, created=NOON),))
    rollouts = [
        (observed(), CanarySeen(Ref("shop", f"c-{number}", f"u-{number}"), "1", 1, False, True, None, (), status()))
        for number in range(count)
    ]
    began = time.perf_counter()
    reasons = {decide(replace(seen, frozen=frozen_now(canary, rules, NOON)), NOON).reason for seen, canary in rollouts}
    took = time.perf_counter() - began
    assert reasons == {"Frozen"}, reasons
    return took


def _policy(path: Path) -> Policy:
    body = yaml.safe_load(path.read_text())
    return Policy(body["metadata"]["name"], parse_policy_spec(body["spec"]))
