"""What outages of 2025 and 2026 began with, played on a real cluster against what Serin does about it.

People have certificates of their own, agents are service accounts with more rights than they should have, images carry
signed statements in a real registry, and what is counted comes from the API server's audit log and from the objects.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import os
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from controller.attestations.images import parse_image
from controller.cli.decisions import digest_of
from controller.cli.kubectl import Kubectl
from controller.cli.plan import make_plan
from controller.errors import Conflict, Fenced
from controller.kube.transport import Api
from controller.ports import Ref
from controller.routers.httproute import HttpRouteRouter
from tests.cluster.api import SERVER
from tests.cluster.audit import entries
from tests.cluster.conftest import RunningCluster
from tests.cluster.objects import (
    Object,
    apply,
    eventually,
    get,
    kubectl,
    may,
    namespace_object,
    refusal,
    shop_deployment,
    shop_route,
    shop_service,
)
from tests.cluster.people import RBAC, answers, approve, believing, bind, no_rules_of_others, person, policy, release
from tests.cluster.registry import Build, RunningRegistry, build, registry
from tests.cluster.serin import (
    SYSTEM,
    StartStory,
    Story,
    canary_object,
    label_without_processes,
    plugin,
    serin,
    start,
    start_shop,
    step,
)
from tests.contract.router import canary_spec

__all__ = ["build", "no_rules_of_others", "registry", "serin", "start"]

COPILOT = "pay: retry\n\nCo-authored-by: Copilot <223556219+Copilot@users.noreply.github.com>"
CLEO = "\nCo-authored-by: Cleo <cleo@example.com>"


def audited(state: Path, is_wanted: Callable[[Object], bool]) -> list[Object]:
    """What the API server wrote into its audit log and somebody asks about; dry runs left out."""
    return [one for one in entries(state) if "dryRun" not in one["requestURI"] and is_wanted(one)]


def code_of(entry: Object) -> int:
    return int((entry.get("responseStatus") or {}).get("code", 0))


def ready_pods(namespace: str, name: str) -> dict[str, str]:
    """Ready pods of a workload that are no canary's, and that no roll is still ending: name and uid."""
    found = get("pods", "", namespace, f"app={name},!serin.dev/canary")["items"]
    return {
        pod["metadata"]["name"]: pod["metadata"]["uid"]
        for pod in found
        if "deletionTimestamp" not in pod["metadata"]
        and any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", ()))
    }


# -- an agent with too many rights --------------------------------------------------------------------


@pytest.fixture
def agent(cluster: RunningCluster) -> list[str]:
    """kubectl's options for a service account of the namespace `agents` that somebody made an administrator."""
    bot = {"kind": "ServiceAccount", "name": "bot", "namespace": "agents"}
    admin = {"kind": "ClusterRole", "name": "cluster-admin", "apiGroup": RBAC}
    binding = {"apiVersion": f"{RBAC}/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "bot"}}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "bot", "namespace": "agents"}}
    apply([namespace_object("agents"), account, binding | {"subjects": [bot], "roleRef": admin}])
    token = kubectl("create", "token", "bot", "-n", "agents").strip()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "bot",
        "clusters": [
            {
                "name": "bot",
                "cluster": {"server": SERVER, "certificate-authority": str(cluster.state / "pki" / "ca.crt")},
            }
        ],
        "users": [{"name": "bot", "user": {"token": token}}],
        "contexts": [{"name": "bot", "context": {"cluster": "bot", "user": "bot"}}],
    }
    path = cluster.state / "bot.kubeconfig"
    path.write_text(json.dumps(config))
    return ["--kubeconfig", str(path)]


def test_what_an_agent_would_destroy_is_refused_and_stable_never_loses_a_pod(
    serin: None, cluster: RunningCluster, namespace: str, agent: list[str]
) -> None:
    """It wants to delete and make again what it should change; what it may change is held and asks for two owners."""
    label_without_processes(namespace)
    kubectl("create", "configmap", "settings", "--from-literal=level=info", "-n", namespace)
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    meta = {"name": "data", "namespace": namespace}
    apply([{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": claim}])
    story = start_shop(namespace)
    kubectl("set", "env", "deployment/shop", "--from=configmap/settings", "-n", namespace)
    volume = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    patch = json.dumps({"spec": {"template": {"spec": {"volumes": volume}}}})
    kubectl("patch", "deployment", "shop", "-n", namespace, "-p", patch)
    kubectl("rollout", "status", "deployment/shop", "-n", namespace, "--timeout=180s")
    apply([canary_object(namespace, [step(50, "1h"), step(100, "1h")])])
    story.until_held()
    kubectl("label", "namespace", namespace, "serin.dev/protected=true")
    policy(
        "owners-decide",
        {"when": {"classes": ["destructive"]}, "approvals": {"before": "Start", "count": 2, "groups": ["owners"]}},
    )
    before = ready_pods(namespace, "shop")
    here = ("-n", namespace)
    in_force = (*agent, "delete", "deployment", "shop", *here, "--dry-run=server")
    eventually(lambda: "is an agent" in refusal(*in_force))

    refused = {
        what: refusal(*agent, "delete", *what.split("/"), *where, "--wait=false")
        for what, where in (
            ("deployment/shop", here),
            ("service/shop", here),
            ("pvc/data", here),
            ("configmap/settings", here),
            (f"namespace/{namespace}", ()),
        )
    }
    edit = refusal(*agent, "patch", "configmap", "settings", *here, "-p", '{"data":{"level":"debug"}}')
    selector = json.dumps({"spec": {"selector": {"matchLabels": {"app": "shop", "made": "again"}}}})
    moved = refusal(*agent, "patch", "deployment", "shop", *here, "-p", selector)
    recreate = {
        "strategy": {"type": "Recreate", "rollingUpdate": None},
        "template": {"spec": {"containers": [{"name": "app", "image": "registry.local/shop:v2"}]}},
    }
    kubectl(*agent, "patch", "deployment", "shop", *here, "-p", json.dumps({"spec": recreate}))
    waiting = story.until_reason("AwaitingApproval")
    told = story.say("plan")
    asked = {gate["rule"]: gate["count"] for gate in waiting["attempt"]["gates"]}
    by_itself = refusal(
        *agent,
        "create",
        "-f",
        "-",
        stdin={
            "apiVersion": "serin.dev/v1alpha1",
            "kind": "Decision",
            "metadata": {"generateName": "bot-", "namespace": namespace},
            "spec": {
                "canary": "shop",
                "decision": "Approve",
                "by": "system:serviceaccount:agents:bot",
                "attempt": waiting["attempt"]["id"],
                "step": 0,
                "reason": "it is fine",
            },
        },
    )
    deleted = audited(
        cluster.state,
        lambda one: (
            one["user"]["username"] == "system:serviceaccount:agents:bot"
            and one["verb"].startswith("delete")
            and code_of(one) < 400
        ),
    )
    after = ready_pods(namespace, "shop")
    found = plugin("audit")
    kubectl("label", "namespace", namespace, "serin.dev/protected-")

    assert all(
        "is an agent: a person must do this" in said for what, said in refused.items() if "namespace" not in what
    )
    assert "serin.dev/protected" in refused[f"namespace/{namespace}"]
    assert "is an agent" in edit
    assert "field is immutable" in moved
    assert "a service account cannot decide" in by_itself
    assert asked == {"owners-decide/rule-0": 3}, "two owners, and one more since nobody knows who wrote it"
    assert "touches destructive: strategy.type" in told.text
    assert "rolls its 2 pods by its own strategy; at least" in told.text
    assert deleted == [], "nothing was deleted"
    assert found.code == 1
    assert any(
        line.startswith("system:serviceaccount:agents:bot") and "break the glass" in line and "a machine" in line
        for line in found.text.splitlines()
    ), found.text
    assert after == before, "stable's pods are the same ones, and ready"


# -- what nobody can tell -----------------------------------------------------------------------------


def test_a_dependency_that_is_down_for_both_is_not_held_against_the_canary(start: StartStory) -> None:
    """Half of the traffic is on the canary when what a third of all requests need goes away: nobody is blamed."""
    needs = {"SHOP_FAIL_PATH": "/checkout", "SHOP_FAIL_RATIO": "1"}
    metric = {"name": "errors", "errorRatio": {"template": "gateway"}, "margin": 0.005, "objective": 0.05}
    analysis = {"warmup": "1s", "minRequests": 20, "metrics": [metric]}
    story = start_shop(start.namespace)
    story.edit("v1", env=needs)
    kubectl("rollout", "status", "deployment/shop", "-n", story.namespace, "--timeout=180s")
    apply([canary_object(story.namespace, [step(50, "5s")], analysis=analysis)])
    story.until_held()
    with story.load(paths={"/": 1.0}):
        story.edit("v2", env=needs)
        story.until_weight(50)
    with story.load(paths={"/": 2.0, "/checkout": 1.0}):
        story.until_reason("BothArmsSuffer")
        seen = set()
        deadline = time.monotonic() + 25
        while time.monotonic() < deadline:
            now = story.status()
            seen.add((now["phase"], (now["attempt"] or {}).get("outcome")))
            time.sleep(0.5)
        held = story.until_reason("BothArmsSuffer")

    assert {phase for phase, _ in seen} <= {"Progressing", "Retreated"}, story.seen
    assert not [outcome for _, outcome in seen if outcome], story.seen
    assert "on stable too" in held["message"]


def test_without_metrics_nothing_is_promoted_a_person_waits_and_an_ai_goes_back(
    start: StartStory, registry: RunningRegistry, build: Build, cluster: RunningCluster
) -> None:
    """The address of the metrics server stops to resolve while two rollouts run."""

    def source(url: str) -> None:
        spec = {"url": url, "scrapeInterval": "1s", "timeout": "2s"}
        meta = {"name": "fragile"}
        apply([{"apiVersion": "serin.dev/v1alpha1", "kind": "MetricsSource", "metadata": meta, "spec": spec}])

    source(cluster.prometheus)
    errors = {"name": "errors", "errorRatio": {"template": "gateway"}, "margin": 0.005}
    analysis = {"source": "fragile", "warmup": "1s", "minRequests": 20, "noDataTimeout": "20s", "metrics": [errors]}
    stories = {
        name: start(step(20, "30m"), step(50), name=name, replicas=1, analysis=analysis)
        for name in ("by-ai", "by-hand")
    }
    policy("key", **believing(build))
    for name, message, origin in (("by-hand", "typo", "human"), ("by-ai", COPILOT, "ai")):
        image = registry.push("shop", name)
        build.commit(message)
        assert build.attest(image, "--origin", origin).returncode == 0
        release(stories[name], image)
    with stories["by-ai"].load(30), stories["by-hand"].load(30):
        for story in stories.values():
            story.until_weight(20)
        try:
            source("http://prometheus.nowhere.invalid:9090")
            ended = stories["by-ai"].until_ended()
            waited = stories["by-hand"].status()
        finally:
            kubectl("delete", "metricssource", "fragile")

    assert (ended["outcome"], ended["origin"]) == ("RolledBack", "ai")
    assert "no data for" in ended["outcomeMessage"]
    assert stories["by-ai"].route_weight() == 0
    assert (waited["phase"], waited["weight"], waited["attempt"]["origin"]) == ("Progressing", 20, "human")
    assert not waited["attempt"].get("outcome")


async def test_of_two_writers_that_race_a_thousand_times_one_wins_and_no_weight_is_lost(namespace: str) -> None:
    """Each round both decide on the same route. A stale plan that is carried out late finds another epoch."""
    await asyncio.to_thread(apply, [shop_service(namespace=namespace), shop_route(namespace=namespace)])
    spec, ref = canary_spec(), Ref(namespace, "shop", "u1")
    lost, wins, was = [], 0, ""
    async with await Api.connect(os.environ["KUBECONFIG"]) as api:
        routers = [HttpRouteRouter(api), HttpRouteRouter(api)]
        await routers[0].set_weight(ref, spec, 0, epoch="1.0", was="")
        was = "1.0"
        for number in range(1, 1001):
            plans = [(1 + (number * 7 + 13 * n) % 99, f"{number + 1}.{n}") for n in (0, 1)]
            tries = (
                router.set_weight(ref, spec, percent, epoch=epoch, was=was)
                for router, (percent, epoch) in zip(routers, plans, strict=True)
            )
            said = await asyncio.gather(*tries, return_exceptions=True)
            assert all(one is None or isinstance(one, Conflict | Fenced) for one in said), said
            won = [plan for plan, one in zip(plans, said, strict=True) if one is None]
            found = await routers[0].read_weight(ref, spec)
            wins += len(won)
            if won != [(found.percent, found.epoch)]:
                lost.append((number, won, found))
            was = found.epoch
    (rule, *_) = (await asyncio.to_thread(get, "httproute", "shop", namespace))["spec"]["rules"]
    weights = [one["weight"] for one in rule["backendRefs"]]

    assert lost == []
    assert wins == 1000
    assert len(weights) == 2
    assert all(weight > 0 for weight in weights)


# -- who may say yes ----------------------------------------------------------------------------------


def test_eleven_ways_to_approve_are_refused_by_a_named_rule_and_the_owner_is_accepted(
    start: StartStory, registry: RunningRegistry, build: Build, cluster: RunningCluster
) -> None:
    """Eight people and machines who may not, three disguises of the change, and one owner."""
    story = start(step(50, "1h"), processes=False)
    namespace = story.namespace
    image = registry.push("shop", "copilot")
    build.commit(COPILOT + CLEO)
    assert build.attest(image, "--prompter", "bo", "--reversible", "yes").returncode == 0
    policy(
        "owners-agree",
        {"when": {"origin": "mixed"}, "approvals": {"before": "Start", "count": 1, "groups": ["owners"]}},
        **believing(build, ("ann", "ann@example.com"), ("bo", "bo"), ("cleo", "cleo@example.com")),
    )
    for user in ("ann", "bo", "cleo", "carl", "olga"):
        bind(user, "canary-approver")
    bind("mallory", "view")
    machine = f"system:serviceaccount:{namespace}:default"
    kubectl("create", "rolebinding", "cd", "--clusterrole=canary-approver", f"--serviceaccount={namespace}:default",
            "-n", namespace)  # fmt: skip
    release_as(story, image, origin="human")
    waiting = story.until_reason("AwaitingApproval")["attempt"]

    def decision(by: str, **changes: Any) -> Object:
        spec = {
            "canary": "shop",
            "decision": "Approve",
            "by": by,
            "attempt": waiting["id"],
            "step": 0,
            "digest": digest_of(waiting),
            "planDigest": waiting["planDigest"],
            "groups": ["owners"],
            "reason": "looks right",
        }
        meta = {"generateName": "yes-", "namespace": namespace}
        return {
            "apiVersion": "serin.dev/v1alpha1",
            "kind": "Decision",
            "metadata": meta,
            "spec": {key: value for key, value in (spec | changes).items() if value is not None},
        }

    def answered(by: str, groups: Iterable[str], body: Object) -> str:
        before = len(answers(story))
        kubectl("create", "-f", "-", stdin=body, user=by, groups=groups)
        eventually(lambda: len(answers(story)) > before)
        _, taken, answer = answers(story)[-1]
        assert not taken, answer
        return answer

    owners, create = ("owners",), ("create", "-f", "-")
    # kubectl itself would ask for the schema first, and stop there.
    raw = ("create", "--raw", f"/apis/serin.dev/v1alpha1/namespaces/{namespace}/decisions", "-f", "-")
    old = f"{datetime.now(UTC) - timedelta(minutes=1):%Y-%m-%dT%H:%M:%SZ}"
    by_controller = {
        "author": (answered("ann", owners, decision("ann")), "ann is an author of this change"),
        "prompter": (answered("bo", owners, decision("bo")), "bo is an author of this change (prompter)"),
        "co-author": (answered("cleo", owners, decision("cleo")), "cleo is an author of this change"),
        "no owner": (answered("carl", (), decision("carl", groups=None)), "owners-agree/rule-0 asks for: owners"),
        "an old digest": (
            answered("olga", owners, decision("olga", digest="shop:v1")),
            "spec.digest: this attempt has",
        ),
    }
    by_api = {
        "a machine": (
            refusal("--as", machine, *create, stdin=decision(machine, groups=None)),
            "a service account cannot decide",
        ),
        "an impersonator": (
            refusal("--as", "olga", "--as-group", "owners", *raw, stdin=decision("olga"), user="mallory"),
            "cannot impersonate",
        ),
        "expired": (refusal(*create, stdin=decision("olga", expiresAt=old), user="olga", groups=owners), "has passed"),
    }
    disguises = [
        (waiting.get("origin", "unknown"), "the annotation says human"),
        (tampered_origin(story, registry, build), "somebody edited the statement"),
        (moved_tag_origin(story, registry, build), "the tag was moved after it was signed for"),
    ]
    release_as(story, image, origin="human")
    again = story.until(lambda now: now["reason"] == "AwaitingApproval" and image in now["attempt"]["images"])[
        "attempt"
    ]
    accepted = person("olga", "approve", "shop", "-n", namespace, "--reason", "checked", groups=owners)
    story.until_weight(50)

    for told, wanted in (*by_controller.values(), *by_api.values()):
        assert wanted in told
    assert [origin for origin, _ in disguises] == ["ai", "unknown", "unknown"], disguises
    assert (accepted.code, again["origin"], again["trust"]) == (0, "ai", "T3"), accepted.text
    record = next(one for one in story.records() if one["attempt"] == waiting["id"])
    refused = {one["by"] for one in record["decisions"] if not one.get("taken")}
    assert refused == {"ann", "bo", "cleo", "carl", "olga"}, "what the controller refused is on the record"
    denied = audited(cluster.state, lambda one: code_of(one) in (403, 422) and _about(one, namespace))
    assert {one["user"]["username"] for one in denied} >= {"mallory", "olga"}, "and the rest in the audit log"
    assert any((one.get("impersonatedUser") or {}).get("username") == machine for one in denied)


def _about(entry: Object, namespace: str) -> bool:
    about = entry.get("objectRef") or {}
    return entry["verb"] in ("create", "impersonate") and (
        about.get("namespace") == namespace or f"/{namespace}/" in entry["requestURI"]
    )


def release_as(story: Story, image: str, origin: str) -> None:
    """Deploy this image with an annotation that claims who wrote it."""
    body = shop_deployment(story.name, story.namespace, "v2", story.replicas, annotations={"serin.dev/origin": origin})
    body["spec"]["template"]["spec"]["containers"][0]["image"] = image
    apply([body])


def begun(story: Story, image: str) -> Object:
    return dict(story.until(lambda now: image in ((now.get("attempt") or {}).get("images") or ()))["attempt"])


def tampered_origin(story: Story, registry: RunningRegistry, build: Build) -> str:
    """A statement of the build's key says ai; whoever may write ConfigMaps of Serin's namespace makes it say human."""
    image = registry.push("shop", "tampered")
    build.commit(COPILOT)
    path = build.folder / "statement.json"
    assert build.attest(image, "--no-push", "-o", str(path)).returncode == 0
    envelope = json.loads(path.read_text())
    statement = json.loads(base64.b64decode(envelope["payload"]))
    statement["predicate"]["origin"] = "human"
    envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    key = f"{parse_image(image).digest.removeprefix('sha256:')}.json"
    meta = {"name": "tampered", "namespace": SYSTEM, "labels": {"serin.dev/attestations": "true"}}
    apply([{"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {key: json.dumps(envelope)}}])
    try:
        release_as(story, image, origin="human")
        attempt = begun(story, image)
    finally:
        kubectl("delete", "configmap", "tampered", "-n", SYSTEM)
    assert any("is not believed" in line for line in attempt["evidence"]["problems"]), attempt["evidence"]
    return str(attempt.get("origin", "unknown"))


def moved_tag_origin(story: Story, registry: RunningRegistry, build: Build) -> str:
    """The tag stood for an image that a person signed for, and then for another one."""
    signed = registry.push("shop", "moved")
    build.commit("typo")
    assert build.attest(signed, "--range", "HEAD~1..HEAD", "--origin", "human").returncode == 0
    registry.push("shop", "moved")
    by_tag = signed.partition("@")[0]
    release_as(story, by_tag, origin="human")
    return str(begun(story, by_tag).get("origin", "unknown"))


def test_a_tag_that_is_moved_after_people_agreed_brings_no_request_to_what_it_stands_for_now(
    start: StartStory, registry: RunningRegistry, build: Build
) -> None:
    story = start(step(50, "1h"), processes=False)
    policy("two-agree", {"approvals": {"before": "Start", "count": 1}}, **believing(build))
    for user in ("olga", "oscar"):
        bind(user, "canary-approver")
    agreed = registry.push("shop", "agreed")
    build.commit(COPILOT)
    assert build.attest(agreed).returncode == 0
    release_as(story, agreed.partition("@")[0], origin="ai")
    story.until_reason("AwaitingApproval")
    moved = registry.push("shop", "agreed")

    said = [approve(story, user) for user in ("olga", "oscar")]
    held = story.until_reason("ImageMismatch")
    release_as(story, agreed, origin="ai")
    again = story.until(
        lambda now: now["reason"] == "AwaitingApproval" and now["attempt"]["id"] != held["attempt"]["id"]
    )

    assert [one.code for one in said] == [0, 0], [one.text for one in said]
    assert f"runs {moved.partition('@')[2]}" in held["message"]
    assert f"agreed to is {agreed.partition('@')[2]}" in held["message"]
    assert held.get("weight", 0) == 0
    assert again["attempt"]["trust"] == "T3"


# -- classes ------------------------------------------------------------------------------------------

MIGRATE = {"name": "migrate", "image": "registry.local/shell:1", "command": ["/bin/sh", "-c", "true"]}
KEY = {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "api"}}}

Edit = Callable[[Object], None]
"""changes a pod's spec in place"""


def init(**changes: Any) -> Edit:
    return lambda pod: pod.update(initContainers=[MIGRATE | changes])


def setting(**changes: Any) -> Edit:
    return lambda pod: pod.update(copy.deepcopy(changes))


def of_app(**changes: Any) -> Edit:
    return lambda pod: pod["containers"][0].update(copy.deepcopy(changes))


def both(*edits: Edit) -> Edit:
    def change(pod: Object) -> None:
        for edit in edits:
            edit(pod)

    return change


SCHEMA = [init(), init(args=["--to=7"]), init(name="index"), init(image="registry.local/shop:v2")]
AUTH = [
    setting(serviceAccountName="admin"),
    of_app(securityContext={"runAsUser": 0}),
    of_app(env=[KEY]),
    setting(automountServiceAccountToken=False),
]
TWELVE = [
    *((edit, {"schema"}, False) for edit in SCHEMA),
    *((edit, {"auth"}, False) for edit in AUTH),
    *((both(one, other), {"schema", "auth"}, True) for one, other in zip(SCHEMA, AUTH, strict=True)),
]
PLAIN = [
    *(of_app(image=f"registry.local/shop:plain-{number}") for number in range(8)),
    *(of_app(env=[{"name": "LEVEL", "value": str(number)}]) for number in range(6)),
    *(of_app(resources={"requests": {"cpu": f"{number}m"}}) for number in range(1, 4)),
    *(setting(terminationGracePeriodSeconds=number) for number in (5, 20, 40)),
]


def test_twelve_changes_are_classed_by_what_they_touch_and_no_plain_one_is_refused(start: StartStory) -> None:
    """As the API server would store each, by what the plan and the controller both decide with."""
    story = start(step(50), processes=False)
    policy("apart", {"forbid": [["schema", "auth"]]})
    one_way = {"when": {"classes": ["schema"], "origin": "mixed"}, "approvals": {"before": "Start", "count": 2}}
    policy("one-way-door", one_way)
    kubectl("create", "serviceaccount", "admin", "-n", story.namespace)
    canary, cluster = story.canary(), Kubectl()
    deployment = shop_deployment(story.name, story.namespace, "v1", story.replicas)

    def planned(edit: Edit) -> Any:
        wanted = copy.deepcopy(deployment)
        edit(wanted["spec"]["template"]["spec"])
        stored = json.loads(
            kubectl("apply", "--server-side", "--dry-run=server", "-o", "json", "-f", "-", stdin=wanted)
        )
        return make_plan(cluster, canary, stored, "", datetime.now(UTC)).ruling

    told = [(planned(edit), classes, refused) for edit, classes, refused in TWELVE]
    plain = [planned(edit) for edit in PLAIN]

    for ruling, classes, refused in told:
        assert classes <= {one.name for one in ruling.classes}
        assert {"schema", "auth"} & {one.name for one in ruling.classes} == classes
        assert bool(ruling.refusals) is refused
        for kind in classes if refused else ():
            assert f"{kind} (template.spec." in ruling.refusals[0]
        assert ("schema" in classes) == any(gate.rule == "one-way-door/rule-0" for gate in ruling.gates)
    assert len(told) == 12
    assert [ruling.refusals for ruling in plain] == [()] * 20


# -- stops --------------------------------------------------------------------------------------------


def test_a_kill_switch_for_ai_stops_fifty_releases_and_touches_none_of_people(
    serin: None, namespace: str, registry: RunningRegistry, build: Build
) -> None:
    """Fifty of an AI and five of people run; one command, and all fifty are off the canary."""
    names = [f"ai-{number}" for number in range(50)] + [f"hand-{number}" for number in range(5)]
    label_without_processes(namespace)
    bind("nick", "canary-oncall")
    policy("key", **believing(build))
    images = {}
    for kind, message, origin in (("hand", "typo", "human"), ("ai", COPILOT, "ai")):
        images[kind] = registry.push("shop", kind)
        build.commit(message)
        assert build.attest(images[kind], "--origin", origin).returncode == 0
    apply([shop_service(name, namespace) for name in names] + [shop_route(name, namespace) for name in names])
    apply([shop_deployment(name, namespace, "v1", 1, pre_stop=0) for name in names])

    def listed(kind: str) -> dict[str, Object]:
        return {one["metadata"]["name"]: one for one in get(kind, "", namespace)["items"]}

    def statuses() -> dict[str, Object]:
        return {name: one.get("status") or {} for name, one in listed("canaries").items()}

    eventually(
        lambda: all((one["status"].get("availableReplicas") or 0) == 1 for one in listed("deployments").values()), 400
    )
    apply([canary_object(namespace, [step(50, "1h")], name) for name in names])
    eventually(lambda: all(one.get("editsHeld") for one in statuses().values()), 400, every=1)
    stable = {pod["metadata"]["uid"] for pod in get("pods", "", namespace, "!serin.dev/canary")["items"]}
    edits = [shop_deployment(name, namespace, "v2", 1, pre_stop=0) for name in names]
    for edit in edits:
        edit["spec"]["template"]["spec"]["containers"][0]["image"] = images[edit["metadata"]["name"].partition("-")[0]]
    apply(edits)
    eventually(
        lambda: all(one.get("weight") == 50 and one.get("phase") == "Progressing" for one in statuses().values()),
        400,
        every=1,
    )

    stop = person("nick", "freeze", "--origin", "ai", "--on-start", "RollBack", "--reason", "incident 4713")

    def weights() -> list[int]:
        routes = [
            one["spec"]["rules"][0]["backendRefs"] for name, one in listed("httproutes").items() if name[0] == "a"
        ]
        return [ref.get("weight", 1) for refs in routes for ref in refs if ref["name"].endswith("-canary")]

    # How soon is measured in tests/bench.
    eventually(lambda: not any(weights()), every=0.5)
    eventually(lambda: all(one["phase"] == "RolledBack" for n, one in statuses().items() if n[0] == "a"), 400, every=1)
    ended = statuses()
    people = {name: one for name, one in ended.items() if name.startswith("hand")}

    assert stop.code == 0, stop.text
    assert [one["attempt"]["outcome"] for n, one in ended.items() if n[0] == "a"] == ["Aborted"] * 50
    assert {(one["phase"], one["weight"], one["attempt"]["origin"]) for one in people.values()} == {
        ("Progressing", 50, "human")
    }
    assert not any(one["attempt"].get("freezes") for one in people.values())
    assert {pod["metadata"]["uid"] for pod in get("pods", "", namespace, "!serin.dev/canary")["items"]} == stable


def test_one_release_passes_one_freeze_by_somebody_with_no_part_in_it_and_no_other_freeze_and_no_gate(
    start: StartStory, registry: RunningRegistry, build: Build
) -> None:
    story = start(step(20, "1h"), step(50, "1h", approval={}), processes=False)
    other = start(step(20, "1h"), name="other", replicas=1, processes=False)
    image = registry.push("shop", "cure")
    build.commit("pay: mend 4711")
    assert build.attest(image, "--prompter", "ann", "--reversible", "yes").returncode == 0
    other.edit("v2")
    other.until_weight(20)
    policy("authors", **believing(build, ("ann", "ann@example.com")))
    bind("nick", "canary-oncall")
    for user in ("ann", "bea"):
        bind(user, "canary-breakglass")
    here = ("-n", story.namespace, "--reason", "it mends 4711", "--yes")
    release(story, image)
    story.until_weight(20)
    person("nick", "freeze", "peak", "--reason", "peak hours")
    story.until_reason("Frozen")
    other.until_reason("Frozen")

    for user in ("ann", "bea"):
        person(user, "override", "shop", "--freeze", "peak", *here)
    assert story.decide("promote").code == 0
    at_gate = story.until_reason("AwaitingApproval")
    waiting = other.status()
    person("nick", "freeze", "stop", "--reason", "4712")
    again = story.until_reason("Frozen")

    # In the status: the plugin waits for an answer, and not for ever.
    of_author, of_owner, *_ = answers(story)
    assert (of_author[:2], "is an author of this change" in of_author[2]) == (("ann", False), True), of_author
    assert (of_owner[:2], "Freeze peak does not hold this attempt" in of_owner[2]) == (("bea", True), True), of_owner
    assert (at_gate["weight"], waiting["reason"]) == (20, "Frozen")
    assert again["message"].startswith("Freeze stop")
    assert story.decide("abort").code == 0
    story.until_ended()
    (record,) = story.records()
    said = [(one["by"], bool(one.get("taken"))) for one in record["decisions"] if one["decision"] == "Override"]
    assert said == [("ann", False), ("bea", True)]
    assert {one["name"] for one in record["freezes"]} == {"peak", "stop"}
    assert "glassBroken" not in record


def test_in_a_freeze_the_one_release_that_is_the_cure_goes_out_by_somebody_who_may_and_the_record_says_so(
    start: StartStory,
) -> None:
    """A step is due inside the window: held where it is, until one person takes it on themselves."""
    story = start(step(20, "5s"), step(50, "1h"), processes=False)
    other = start(step(20, "1h"), name="other", replicas=1, processes=False)
    bind("bea", "canary-breakglass")
    bind("nick", "canary-oncall")
    story.edit("v2")
    other.edit("v2")
    story.until_weight(20)
    other.until_weight(20)
    person("nick", "freeze", "peak", "--reason", "peak hours")
    frozen = story.until_reason("Frozen")
    on_call_may = may("nick", "breakglass", "canaries.serin.dev", "-n", story.namespace)
    aborted = other.decide("abort")
    off = other.until_ended()
    broken = person(
        "bea", "break-glass", "shop", "-n", story.namespace, "--reason", "it mends 4711", "--for", "1h", "--yes"
    )
    assert broken.code == 0, broken.text
    assert story.decide("promote").code == 0
    ended = story.until_ended()

    assert (frozen["weight"], frozen["attempt"]["freezes"][0]["message"].startswith("Freeze peak (nick)")) == (20, True)
    assert not on_call_may
    assert (aborted.code, off["outcome"], other.route_weight()) == (0, "Aborted", 0)
    assert ended["outcome"] == "Promoted"
    (record,) = story.records()
    (glass,) = [one for one in record["decisions"] if one["decision"] == "BreakGlass"]
    assert (record["glassBroken"], glass["by"], glass["reason"]) == (True, "bea", "it mends 4711")
    assert record["freezes"][0]["name"] == "peak"
