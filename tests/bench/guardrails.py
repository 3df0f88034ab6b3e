"""What guardrails cost: one evaluation of the policies that ship, and how long a Freeze takes to reach what runs."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from controller.guardrails.policy import Change, Policy, evaluate
from controller.model.evidence import Evidence, ImageSeen, Origin, Trust
from controller.model.guarded import Touched
from controller.model.policy import ChangeClass, parse_policy_spec
from controller.model.spec import parse_canary_spec
from tests.bench.rollouts import LONG, start_all
from tests.bench.rows import Row, Target, row
from tests.bench.scene import ROOT, Scene, say
from tests.cluster.objects import apply

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


async def freeze_reaches_a_hundred(scene: Scene) -> Row:
    """A hundred rollouts under way; from the request that creates the Freeze until each of them says it is held."""
    fleet = await scene.fleet("frozen", 100, LONG)
    await start_all(scene, fleet.keys)
    end = datetime.now(UTC) + timedelta(seconds=60)
    window = {"start": "2026-01-01T00:00:00Z", "end": f"{end:%Y-%m-%dT%H:%M:%SZ}"}
    spec = {
        "reason": "a measurement",
        **window,
        "selector": {"namespaces": sorted({k.split("/")[0] for k in fleet.keys})},
    }
    began = time.time()
    apply([{"apiVersion": "serin.dev/v1alpha1", "kind": "Freeze", "metadata": {"name": "bench"}, "spec": spec}])

    def held(key: str) -> float | None:
        return next((one.at for one in scene.seen.statuses[key] if one.status.get("reason") == "Frozen"), None)

    await scene.seen.until(lambda: all(held(key) for key in fleet.keys), 60, "all are held")
    samples = [at - began for key in fleet.keys if (at := held(key))]
    say(f"  the last of {len(samples)} was held after {max(samples):.2f} s")
    await scene.remove(fleet)
    return row("freeze_reaches_a_hundred", "s", samples, Target("max < 2", {"max": 2.0}))


def _policy(path: Path) -> Policy:
    body = yaml.safe_load(path.read_text())
    return Policy(body["metadata"]["name"], parse_policy_spec(body["spec"]))
