"""Guardrails on a real cluster, with real users, a real registry and signed statements: who may stop, approve and thaw.

Every refusal comes from the API server or is the controller's answer, and names the rule.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.objects import CommandFailed, Object, apply, eventually, get, kubectl, may, refusal
from tests.cluster.registry import Build, RunningRegistry, build, registry
from tests.cluster.serin import Said, StartStory, Story, plugin, serin, start, step

__all__ = ["build", "registry", "serin", "start"]

RBAC = "rbac.authorization.k8s.io"
AI = "pay: retry\n\nCo-authored-by: Claude Opus 4.6 <noreply@anthropic.com>"


@pytest.fixture(autouse=True)
def no_rules_of_others(serin: None) -> Iterator[None]:
    """Policies and freezes belong to the whole cluster: none stays behind a test."""
    yield
    kubectl("delete", "releasepolicies", "--all", "--wait=false")
    for freeze in get("freezes")["items"]:
        for owner in ("olga", "oscar"):
            bind(owner, "canary-owner")
            person(owner, "thaw", freeze["metadata"]["name"], "--reason", "the test is over")
    eventually(lambda: not get("freezes")["items"])


def bind(user: str, role: str) -> None:
    """This ClusterRole, everywhere."""
    name = f"{user}-{role}"
    subject = {"kind": "User", "name": user, "apiGroup": RBAC}
    reference = {"kind": "ClusterRole", "name": role, "apiGroup": RBAC}
    meta = {"name": name}
    apply(
        [
            {
                "apiVersion": f"{RBAC}/v1",
                "kind": "ClusterRoleBinding",
                "metadata": meta,
                "subjects": [subject],
                "roleRef": reference,
            }
        ]
    )


def person(user: str, *words: str, groups: Iterable[str] = ()) -> Said:
    """`kubectl canary` as this person runs it, with a certificate of their own."""
    return plugin(*words, user=user, groups=groups)


def approve(story: Story, user: str, *more: str) -> Said:
    return person(user, "approve", story.name, "-n", story.namespace, "--reason", "I looked at it", *more)


def policy(name: str, *rules: Mapping[str, Any], **spec: Any) -> None:
    """A ReleasePolicy for the whole cluster; each rule is named after its place."""
    named = [{"name": f"rule-{number}"} | dict(rule) for number, rule in enumerate(rules)]
    body = {"rules": named} | spec
    apply([{"apiVersion": "serin.dev/v1alpha1", "kind": "ReleasePolicy", "metadata": {"name": name}, "spec": body}])


def believing(build: Build, *people: tuple[str, str]) -> dict[str, Any]:
    """The build's key, and who people are in commits."""
    return {
        "signers": [{"name": "ci", "publicKey": build.public_key}],
        "people": [{"user": user, "ids": [mail]} for user, mail in people],
    }


def release(story: Story, image: str) -> None:
    """The owner's edit, with an image by its digest."""
    edited = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": image}]
    kubectl("patch", "deployment", story.name, "-n", story.namespace, "--type=json", f"--patch={json.dumps(edited)}")


def instant(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def answers(story: Story) -> list[tuple[str, bool, str]]:
    said = story.status().get("decisions") or []
    return [(one["by"], bool(one.get("taken")), one["answer"]) for one in said]


def test_an_ai_generated_change_is_clamped_its_author_refused_and_an_owner_accepted(
    start: StartStory, registry: RunningRegistry, build: Build
) -> None:
    """What the API server alone refuses is the next test."""
    story = start(step(20), step(50), processes=False)
    image = registry.push("shop", "ai")
    build.commit(AI)
    assert build.attest(image, "--degree", "generated", "--prompter", "bo", "--reversible", "yes").returncode == 0
    policy(
        "strict",
        {
            "when": {"origin": "mixed"},
            "maxFirstWeight": 5,
            "approvals": {"before": "Start", "count": 1, "groups": ["owners"]},
        },
        **believing(build, ("ann", "ann@example.com"), ("bo", "bo")),
    )
    for user in ("ann", "bo", "carl", "olga"):
        bind(user, "canary-approver")

    release(story, image)
    waiting = story.until_reason("AwaitingApproval")
    pods = kubectl("get", "deployment", "shop-canary", "-n", story.namespace, "--ignore-not-found")
    of_author = approve(story, "ann")
    of_prompter = approve(
        story,
        "bo",
    )
    of_stranger = approve(story, "carl")
    forged = approve(story, "olga", "--attempt", "20200101-000000")
    of_owner = person("olga", "approve", "shop", "-n", story.namespace, "--reason", "checked", groups=["owners"])
    story.until_weight(5)
    assert story.decide("promote").code == 0
    ended = story.until_ended()

    attempt = waiting["attempt"]
    assert (attempt["origin"], attempt["trust"]) == ("ai", "T3")
    assert [one["weight"] for one in attempt["plan"]] == [5, 20, 50]
    assert attempt["clamps"][0]["rule"] == "strict/rule-0"
    assert pods == "", "no pod starts before somebody agreed"
    assert "ann is an author of this change" in of_author.text
    assert "bo is an author of this change (prompter)" in of_prompter.text
    assert "carl is in none of the groups that rule strict/rule-0 asks for: owners" in of_stranger.text
    assert forged.code == 1
    assert (of_owner.code, ended["outcome"]) == (0, "Promoted"), of_owner.text
    assert [taken for _, taken, _ in answers(story)] == [False, False, False, True, True]


def test_what_the_api_server_itself_refuses_about_an_approval(start: StartStory) -> None:
    """Machines, names of others, no right, forged groups, another plan, expired."""
    story = start(step(50, "1h"), processes=False)
    policy("two-person", {"approvals": {"before": "Start", "count": 1}})
    story.edit("v2", annotations={"serin.dev/origin": "human"})
    waiting = story.until_reason("AwaitingApproval")["attempt"]
    bind("ann", "canary-approver")
    bind("viewer", "canary-viewer")

    def decision(**changes: Any) -> Object:
        spec = {
            "canary": "shop",
            "decision": "Approve",
            "by": "ann",
            "attempt": waiting["id"],
            "step": 0,
            "digest": ",".join(waiting["images"]),
            "planDigest": waiting["planDigest"],
            "reason": "looks right",
        }
        meta = {"generateName": "forged-", "namespace": story.namespace}
        return {
            "apiVersion": "serin.dev/v1alpha1",
            "kind": "Decision",
            "metadata": meta,
            "spec": {key: value for key, value in (spec | changes).items() if value is not None},
        }

    def refused(body: Object) -> str:
        return refusal("create", "-f", "-", stdin=body, user="ann")

    assert waiting.get("origin", "unknown") == "unknown", "an annotation that says human is not believed"
    assert "spec.by must be you (ann)" in refused(decision(by="olga"))
    assert "spec.groups: you are not in owners" in refused(decision(groups=["owners"]))
    assert "has passed: write an instant to come" in refused(decision(expiresAt="2020-01-01T00:00:00Z"))
    with pytest.raises(CommandFailed, match="cannot create resource"):
        kubectl("create", "-f", "-", stdin=decision(by="viewer"), user="viewer")
    agent = f"system:serviceaccount:{story.namespace}:default"
    apply(
        [
            {
                "apiVersion": f"{RBAC}/v1",
                "kind": "RoleBinding",
                "metadata": {"name": "agent", "namespace": story.namespace},
                "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": story.namespace}],
                "roleRef": {"kind": "ClusterRole", "name": "canary-approver", "apiGroup": RBAC},
            }
        ]
    )
    with pytest.raises(CommandFailed, match="a service account cannot decide"):
        kubectl("create", "--as", agent, "-f", "-", stdin=decision(by=agent))

    for changes, said in (
        ({"planDigest": "sha256:other"}, "spec.planDigest: this attempt has"),
        ({"digest": "registry.local/shop:v9"}, "spec.digest: this attempt has"),
        ({"attempt": "20200101-000000"}, "spoke about attempt 20200101-000000"),
    ):
        before = len(answers(story))
        kubectl("create", "-f", "-", stdin=decision(**changes), user="ann")
        eventually(lambda before=before: len(answers(story)) > before)
        by, taken, answer = answers(story)[-1]
        assert (by, taken) == ("ann", False)
        assert said in answer
    assert story.status()["reason"] == "AwaitingApproval"


def test_on_call_stops_every_rollout_with_one_command_and_two_owners_let_them_go_on(start: StartStory) -> None:
    """Held within two seconds, and not loosened by one person, by on call or by an administrator."""
    stories = [start(step(50, "1h"), name=f"shop-{number}", replicas=1, processes=False) for number in range(4)]
    bind("nick", "canary-oncall")
    for owner in ("olga", "oscar"):
        bind(owner, "canary-owner")
    began = {}
    for story in stories:
        story.edit("v2")
    for story in stories:
        began[story.name] = story.until_weight(50)["attempt"]["id"]

    stop = person("nick", "freeze", "stop", "--reason", "incident 4711")
    created = instant(get("freeze", "stop")["metadata"]["creationTimestamp"])
    met = [story.until_reason("Frozen", within=10)["attempt"]["freezes"][0]["at"] for story in stories]
    held_after = max(instant(at) for at in met) - created
    # Without the freeze this would release at once: bakes and steps that are left are skipped.
    promoted = [story.decide("promote") for story in stories]
    with pytest.raises(CommandFailed, match="is taken off by two owners"):
        kubectl("delete", "freeze", "stop")
    with pytest.raises(CommandFailed, match="a Freeze cannot be changed"):
        kubectl("patch", "freeze", "stop", "--type=merge", '--patch={"spec":{"onStart":"Finish"}}')
    by_on_call = person("nick", "thaw", "stop", "--reason", "I think it is over")
    first = person("olga", "thaw", "stop", "--reason", "4711 is over")
    again = person("olga", "thaw", "stop", "--reason", "really")
    still = [story.until_reason("Frozen") for story in stories]
    second = person("oscar", "thaw", "stop", "--reason", "seen the graphs")
    ended = [story.until_ended() for story in stories]

    assert stop.code == 0, stop.text
    # The API server writes whole seconds.
    assert held_after < 3.0, f"the last was held {held_after:.1f} s after the Freeze was created"
    assert [one.code for one in promoted] == [0] * len(stories)
    assert by_on_call.code == 1
    assert "need the verb thaw" in by_on_call.text or "cannot create" in by_on_call.text
    assert "1 of 2" in first.text
    assert "1 of 2" in again.text
    assert [(one["reason"], one["weight"]) for one in still] == [("Frozen", 50)] * len(stories)
    assert "thawed by oscar and olga" in second.text
    assert [(one["outcome"], one["id"]) for one in ended] == [("Promoted", began[story.name]) for story in stories]
    assert all([one.get("ended", False) for one in attempt["freezes"]] == [False, True] for attempt in ended)


def test_a_kill_switch_for_ai_rolls_it_back_and_touches_nothing_that_a_person_signed_for(
    start: StartStory, registry: RunningRegistry, build: Build
) -> None:
    by_ai = start(step(50, "1h"), name="by-ai", replicas=1, processes=False)
    by_hand = start(step(50, "1h"), name="by-hand", replicas=1, processes=False)
    policy("key", **believing(build))
    bind("nick", "canary-oncall")
    for story, message, origin in ((by_hand, "typo", "human"), (by_ai, AI, "ai")):
        image = registry.push("shop", story.name)
        build.commit(message)
        assert build.attest(image, "--origin", origin).returncode == 0
        release(story, image)
    for story in (by_ai, by_hand):
        story.until_weight(50)

    stop = person("nick", "freeze", "--origin", "ai", "--on-start", "RollBack", "--reason", "incident 4712")
    ended = by_ai.until_ended(within=30)

    assert stop.code == 0, stop.text
    assert (ended["outcome"], ended["origin"]) == ("Aborted", "ai")
    assert "incident 4712" in ended["outcomeMessage"]
    assert by_ai.route_weight() == 0
    eventually(lambda: by_ai.records()[-1].get("outcome") == "Aborted")
    kept = by_hand.status()
    assert (kept["phase"], kept["weight"], kept["attempt"]["origin"]) == ("Progressing", 50, "human")
    assert not kept["attempt"].get("freezes")


def test_schema_and_access_in_one_rollout_are_refused_with_both_places_named_and_go_one_after_the_other(
    start: StartStory,
) -> None:
    story = start(step(50), processes=False)
    policy("apart", {"forbid": [["schema", "auth"]]})
    kubectl("create", "serviceaccount", "admin", "-n", story.namespace)
    migrate = {"name": "migrate", "image": "registry.local/shell:1", "command": ["/bin/sh", "-c", "true"]}

    def patch(spec: Mapping[str, Any]) -> None:
        body = json.dumps({"spec": {"template": {"spec": spec}}})
        kubectl("patch", "deployment", "shop", "-n", story.namespace, "--type=merge", f"--patch={body}")

    patch({"initContainers": [migrate], "serviceAccountName": "admin"})
    refused = story.until_reason("PolicyRefused")
    patch({"initContainers": [migrate], "serviceAccountName": None, "serviceAccount": None})
    story.until_weight(50)
    story.decide("promote")
    first = story.until_ended()
    patch({"serviceAccountName": "admin"})
    story.until(lambda now: now["attempt"]["id"] != first["id"] and now.get("weight") == 50)
    story.decide("promote")
    second = story.until_ended(after=first["id"])

    assert "auth (template.spec.serviceAccount" in refused["message"]
    assert "schema (template.spec.initContainers" in refused["message"]
    assert refused["message"].startswith("apart/rule-0: ")
    assert (first["outcome"], second["outcome"]) == ("Promoted", "Promoted"), story.seen


def test_a_step_that_is_due_inside_a_window_waits_and_goes_on_by_itself_and_a_rollback_waits_for_nobody(
    start: StartStory,
) -> None:
    story = start(step(20, "5s"), step(50, "5s"), processes=False)
    now = time.time()
    window = {
        "start": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
        "end": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + 25)),
    }
    apply(
        [
            {
                "apiVersion": "serin.dev/v1alpha1",
                "kind": "Freeze",
                "metadata": {"name": "window"},
                "spec": {"reason": "peak hours", **window},
            }
        ]
    )
    story.edit("v2")
    frozen = story.until_reason("Frozen")
    weights = set()
    while time.time() < now + 24:
        weights.add(story.status().get("weight", 0))
        time.sleep(0.5)
    going = story.until_weight(20, within=15)
    after = time.time() - (now + 25)
    ended = story.decide("abort")

    assert "peak hours" in frozen["message"]
    assert weights == {0}
    assert after < 12, "it went on by itself"
    assert going["attempt"]["id"] == frozen["attempt"]["id"]
    assert ended.code == 0


def test_a_freeze_or_policy_that_cannot_be_carried_out_is_refused_or_holds_and_says_why(start: StartStory) -> None:
    """Bad input: what nobody can read holds, and an abort still works."""
    story = start(step(50), processes=False)

    def freeze(**spec: Any) -> Object:
        return {"apiVersion": "serin.dev/v1alpha1", "kind": "Freeze", "metadata": {"name": "odd"}, "spec": spec}

    for spec, said in (
        ({"reason": ""}, "reason"),
        ({"reason": "x", "schedule": "0 18 * * FRI"}, "schedule, duration and timeZone belong together"),
        ({"reason": "x", "start": "2026-01-02T00:00:00Z", "end": "2026-01-01T00:00:00Z"}, "end after start"),
        ({"reason": "x", "by": "somebody-else"}, "spec.by must be you"),
    ):
        with pytest.raises(CommandFailed, match=said):
            kubectl("create", "-f", "-", stdin=freeze(**spec))
    kubectl(
        "create",
        "-f",
        "-",
        stdin=freeze(reason="x", schedule="0 18 * * FRI", duration="1h", timeZone="Europe/Berlim"),
    )
    story.edit("v2")
    held = story.until_reason("Frozen")
    aborted = story.decide("abort")

    assert "timeZone: there is no zone 'Europe/Berlim'" in held["message"]
    assert aborted.code == 0, aborted.text
    assert story.until_ended()["outcome"] == "Aborted"


def test_the_plan_is_told_before_anything_is_applied_and_is_the_one_that_is_carried_out(
    start: StartStory, tmp_path: Path
) -> None:
    """As far as a Deployment's template goes."""
    story = start(step(50, "1h"), processes=False)
    policy("strict", {"maxFirstWeight": 10, "approvals": {"before": "Start", "count": 1}})
    bind("ann", "canary-approver")
    wanted = story.deployment()
    template = wanted["spec"]["template"]["spec"]
    template["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    for noise in ("managedFields", "resourceVersion", "uid", "generation", "creationTimestamp"):
        wanted["metadata"].pop(noise, None)
    wanted.pop("status", None)
    wanted["spec"].pop("paused", None)
    (tmp_path / "new.yaml").write_text(json.dumps(wanted))

    told = story.say("plan", "-f", str(tmp_path / "new.yaml"), "-o", "json")
    assert told.code == 0, told.text
    plan = json.loads(told.text)
    assert not story.deployment()["spec"].get("paused"), "nothing was changed"
    apply([wanted])
    waiting = story.until_reason("AwaitingApproval")["attempt"]

    assert [one["name"] for one in plan["classes"]] == ["destructive"]
    assert [one["weight"] for one in plan["steps"]] == [10, 50]
    assert plan["planDigest"] == waiting["planDigest"]
    assert person("ann", "approve", "shop", "-n", story.namespace, "--reason", "ok").code == 0
    # One approval of two: nobody knows who wrote it.
    story.until_reason("AwaitingApproval")
    template["volumes"][0]["persistentVolumeClaim"]["claimName"] = "other"
    apply([wanted])
    again = story.until(lambda now: now["attempt"]["id"] != waiting["id"] and now["reason"] == "AwaitingApproval")
    assert again["attempt"]["planDigest"] != waiting["planDigest"], "an edit after an approval voids it"


def test_only_the_platform_team_writes_policies_and_nobody_but_the_controller_deletes_a_freeze() -> None:
    bind("pia", "canary-platform")
    bind("nick", "canary-oncall")

    assert may("pia", "create", "releasepolicies.serin.dev")
    assert not may("pia", "delete", "freezes.serin.dev")
    assert may("nick", "create", "freezes.serin.dev")
    assert not may("nick", "create", "releasepolicies.serin.dev")
    assert not may("nick", "thaw", "freezes.serin.dev")
    assert not may("nick", "delete", "freezes.serin.dev")
