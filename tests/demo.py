"""`make demo`: three releases of a shop on a real cluster, told in a few lines, measured at the client.

A good revision is promoted. A bad one, marked as written by an AI tool, fails 5 % of its requests on one
endpoint and gives no other hint: it is taken off traffic and rolled back. A good one again is promoted,
since a rollback must not wedge the next release. The exit status is 0 only if all of that happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build"
NAMESPACE, NAME, HOST = "shop", "shop", "shop.example"
RATE = 200.0
PATIENCE = 420.0
"""seconds that one release may take before the demo gives up on it"""

CANARY = {
    "apiVersion": "serin.dev/v1alpha1",
    "kind": "Canary",
    "metadata": {"name": NAME, "namespace": NAMESPACE},
    "spec": {
        "targetRef": {"kind": "Deployment", "name": NAME},
        "traffic": {"service": {"name": NAME, "port": 80}, "httpRoute": {"name": NAME}},
        "steps": [{"weight": 5, "bake": "15s"}, {"weight": 25, "bake": "15s"}, {"weight": 50, "bake": "15s"}],
        "analysis": {
            "warmup": "5s",
            "metrics": [
                {"name": "errors", "errorRatio": {"template": "gateway"}, "margin": 0.005},
                {"name": "latency", "latency": {"template": "gateway", "threshold": "250ms"}, "margin": 0.01},
            ],
        },
    },
}


@dataclass(frozen=True)
class Release:
    """One edit of the Deployment, and what must come of it."""

    revision: str
    told: str
    outcome: str
    env: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)


RELEASES = (
    Release("v2", "a good revision", "Promoted"),
    Release(
        "v3",
        "a bad one, written by an AI tool: half of /checkout fails, 5 % of all requests",
        "RolledBack",
        env={"SHOP_FAIL_PATH": "/checkout", "SHOP_FAIL_RATIO": "0.5"},
        annotations={"serin.dev/origin": "ai"},
    ),
    Release("v4", "a good one again", "Promoted"),
)


def main() -> int:
    """Bring the cluster up around ourselves, or run inside it."""
    if os.environ.get("SERIN_CLUSTER_DIR"):
        return asyncio.run(demonstrate())
    cluster, inner = [sys.executable, "-m", "tests.cluster"], [sys.executable, "-m", "tests.demo"]
    if os.environ.get("KEEP", "") not in {"", "0"}:
        if subprocess.call([*cluster, "up"], cwd=ROOT):
            return 1
        code = subprocess.call([*cluster, "shell", "--", *inner], cwd=ROOT)
        print("\nThe cluster is still up. To talk to it:\n")
        print(f"  .venv/bin/python -m tests.cluster shell -- kubectl canary status {NAME} -n {NAMESPACE}")
        print("  .venv/bin/python -m tests.cluster shell        # a shell inside it")
        print("  make down                                      # ends it")
        return code
    return subprocess.call([*cluster, "run", "--", *inner], cwd=ROOT)


async def demonstrate() -> int:
    """The whole story; what did not come out as it must is in `failures`."""
    from tests.cluster.load import Load

    began = time.monotonic()
    say = Narrator(began)
    say("Installing Serin with Helm from charts/serin.")
    install()
    say("Starting a shop behind the gateway: 4 pods of revision v1, and a Canary of a few lines.")
    await asyncio.to_thread(start_shop)
    failures: list[str] = []
    results: list[dict[str, Any]] = []
    async with Load(os.environ["SERIN_GATEWAY"], HOST, RATE) as load:
        await until(lambda: condition("EditsHeld") == "True", 60, "the hold is proven")
        say(f"{RATE:.0f} requests a second reach v1. An edit of the Deployment is now held by the API server.")
        # A few seconds of ordinary traffic, so that counters exist before the first comparison.
        await until(lambda: len(load.report.answers) > 5 * RATE, 30, "the load arrives")
        for release in RELEASES:
            say(f"Releasing {release.revision}: {release.told}.")
            result, wrong = await run_release(release, load, say)
            results.append(result)
            failures += wrong
    print()
    show_end()
    failures += check_records()
    BUILD.mkdir(exist_ok=True)
    (BUILD / "demo.json").write_text(json.dumps({"releases": results, "failures": failures}, indent=1) + "\n")
    print()
    for failure in failures:
        print(f"NOT AS IT MUST BE: {failure}")
    if not failures:
        relief, rollback = results[1]["relief_seconds"], results[1]["rollback_seconds"]
        say(
            f"Done: good, bad, good. The bad revision was off traffic {relief:.1f} s after its first failure and "
            f"rolled back for good after {rollback:.1f} s; no other request was lost. Numbers: build/demo.json"
        )
    return 1 if failures else 0


class Narrator:
    """Lines with the time since the start."""

    def __init__(self, began: float) -> None:
        self._began = began

    def __call__(self, line: str) -> None:
        print(f"[{time.monotonic() - self._began:5.0f} s] {line}", flush=True)


def install() -> None:
    """Helm, as the documentation says."""
    kubectl("create", "namespace", NAMESPACE)
    command = [
        *("helm", "install", "serin", str(ROOT / "charts" / "serin"), "-n", "serin-system", "--create-namespace"),
        *("--set", f"metrics.url={os.environ['SERIN_PROMETHEUS']}", "--set", "metrics.scrapeInterval=1s"),
        *("--wait", "--timeout", "90s"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"helm install failed:\n{done.stdout}{done.stderr}")


def start_shop() -> None:
    """Deployment, Service, HTTPRoute, and the Canary."""
    from tests.cluster.objects import apply, eventually, shop_deployment, shop_route, shop_service

    apply(
        [
            shop_deployment(NAME, NAMESPACE, "v1", 4),
            shop_service(NAME, NAMESPACE),
            shop_route(NAME, NAMESPACE, HOST),
        ]
    )
    kubectl("rollout", "status", f"deployment/{NAME}", "-n", NAMESPACE, "--timeout=60s")
    eventually(lambda: (apply([CANARY]), True)[1], within=30)


async def run_release(release: Release, load: Any, say: Narrator) -> tuple[dict[str, Any], list[str]]:
    """Edit the Deployment as a person or a pipeline would, and watch what Serin does with it."""
    from tests.cluster.objects import apply, shop_deployment

    since = time.time()
    before = (status().get("attempt") or {}).get("id", "")
    edit = shop_deployment(NAME, NAMESPACE, release.revision, 4, release.env, release.annotations)
    await asyncio.to_thread(apply, [edit])
    watched = Watch(before, say)
    timeline: list[list[float]] = []
    while not watched.ended and time.time() - since < PATIENCE:
        seen = await asyncio.to_thread(status)
        watched.see(seen)
        timeline.append([round(time.time() - since, 2), float(seen.get("weight", 0.0))])
        await asyncio.sleep(0.25)
    # What is under way is answered before it is counted.
    await asyncio.sleep(1.5)
    return judge(release, watched, load.report.between(since), since, timeline)


class Watch:
    """Tells each change of what the Canary says, once."""

    def __init__(self, before: str, say: Narrator) -> None:
        self._before, self._say = before, say
        self._told = ""
        self.attempt: dict[str, Any] = {}
        self.ended = False
        self.first_zero = 0.0
        self._had_weight = False

    def see(self, seen: dict[str, Any]) -> None:
        attempt = seen.get("attempt") or {}
        if attempt.get("id", "") in {"", self._before}:
            return
        self.attempt = attempt
        phase, weight = seen.get("phase", ""), float(seen.get("weight", 0.0))
        self._had_weight = self._had_weight or weight > 0
        if self._had_weight and weight == 0 and not self.first_zero:
            self.first_zero = time.time()
        line = self._line(phase, weight, seen.get("message", ""), attempt)
        if line and line != self._told:
            self._told = line
            self._say(f"    {line}")
        self.ended = phase in {"Idle", "RolledBack"} and bool(attempt.get("outcome"))

    @staticmethod
    def _line(phase: str, weight: float, message: str, attempt: dict[str, Any]) -> str:
        match phase:
            case "Preparing":
                return f"held; treated as {attempt.get('origin', 'unknown')}; canary pods start"
            case "Progressing":
                return f"step {attempt.get('step', 0) + 1}: {weight:g} % of requests"
            case "Retreated":
                judged = attempt.get("retreats") or [{}]
                return f"RETREAT {len(judged)}: {judged[-1].get('message', '')}"
            case "RollingBack":
                return f"ROLLBACK: {attempt.get('outcomeMessage', message)}"
            case "Releasing":
                return "every gate is passed: the Deployment rolls by its own strategy"
            case "Idle" | "RolledBack" if attempt.get("outcome"):
                return f"{attempt['outcome']}: {attempt.get('outcomeMessage', '')}"
        return ""


def judge(
    release: Release, watched: Watch, report: Any, since: float, timeline: list[list[float]]
) -> tuple[dict[str, Any], list[str]]:
    """The figures of one release, measured at the client, and the expectations that did not hold."""
    attempt, bad = watched.attempt, release.outcome != "Promoted"
    of_canary = [one for one in report.answers if one.revision == release.revision]
    failed = [one for one in of_canary if one.failed]
    lost = report.lost([release.revision] if bad else [])
    first = min((one.ended for one in failed), default=None)
    share = {round(one[0]): one for one in report.share(release.revision)}
    relief = rollback = None
    if bad and first is not None:
        before_zero = [one.ended for one in failed if one.at <= (watched.first_zero or first) + 1.0]
        relief = round(max(before_zero) - first, 3)
        rollback = round(max(one.ended for one in failed) - first, 3)
    result = {
        "revision": release.revision,
        "origin": attempt.get("origin", "unknown"),  # a default is not written
        "outcome": attempt.get("outcome", "unfinished"),
        "seconds": round(timeline[-1][0], 1) if timeline else 0.0,
        "relief_seconds": relief,
        "rollback_seconds": rollback,
        "retreats": len(attempt.get("retreats") or []),
        "canary_requests": attempt.get("canaryRequests", 0) if not bad else len(of_canary),
        "canary_errors": len(failed),
        "requests_lost": len(lost),
        "timeline": [
            [at, weight, round(share[key][1], 4) if (key := round(since + at)) in share else None]
            for at, weight in timeline
        ],
    }
    wrong = []
    if result["outcome"] != release.outcome:
        wrong.append(f"{release.revision} ended as {result['outcome']}, expected {release.outcome}")
    if lost:
        told = "; ".join(sorted({f"{one.status} {one.error} from {one.revision or 'nobody'}" for one in lost})[:5])
        wrong.append(f"{release.revision}: {len(lost)} requests lost: {told}")
    if bad and not result["retreats"]:
        wrong.append(f"{release.revision} was not taken off traffic before it was rolled back")
    if bad and result["origin"] != "ai":
        wrong.append(f"{release.revision} was treated as {result['origin']}, and is marked as written by an AI tool")
    return result, wrong


def show_end() -> None:
    """What a person would look at."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    bad = next((record["attempt"] for record in stored_records() if record.get("outcome") == "RolledBack"), "")
    told = [["explain", NAME, "--attempt", bad]] if bad else []
    for command in (["status", NAME], ["records", NAME], *told):
        print(f"$ kubectl canary {' '.join(command)} -n {NAMESPACE}", flush=True)
        subprocess.call(["kubectl", "canary", *command, "-n", NAMESPACE], env=environment)
        print(flush=True)


def check_records() -> list[str]:
    """Three records, sealed, with the outcomes that were seen."""
    outcomes = [one.get("outcome", "unsealed") for one in stored_records()]
    wanted = [release.outcome for release in RELEASES]
    return [] if outcomes == wanted else [f"the release records say {outcomes}, expected {wanted}"]


def stored_records() -> list[dict[str, Any]]:
    """Specs of the release records, oldest first."""
    found = json.loads(kubectl("get", "releaserecords", "-n", NAMESPACE, "-o", "json"))["items"]
    return sorted((one["spec"] for one in found), key=lambda one: datetime.fromisoformat(one["startedAt"]))


def kubectl(*words: str) -> str:
    from tests.cluster.objects import kubectl as run

    return run(*words)


def status() -> dict[str, Any]:
    """The Canary's status; empty while it cannot be read."""
    with contextlib.suppress(AssertionError, ValueError):
        found = json.loads(kubectl("get", "canary", NAME, "-n", NAMESPACE, "-o", "json"))
        return dict(found.get("status") or {})
    return {}


def condition(kind: str) -> str:
    found = {one["type"]: one["status"] for one in status().get("conditions", [])}
    return found.get(kind, "")


async def until(check: Any, within: float, what: str) -> None:
    deadline = time.monotonic() + within
    while not await asyncio.to_thread(check):
        if time.monotonic() > deadline:
            print(json.dumps(status(), indent=1)[:3000])
            raise SystemExit(f"not within {within:.0f} s: {what}")
        await asyncio.sleep(0.25)


if __name__ == "__main__":
    raise SystemExit(main())
