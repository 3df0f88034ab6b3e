"""Guardrails on a real cluster, with real users, a real registry and signed statements: who may stop, approve and thaw.

Every refusal comes from the API server or is the controller's answer, and names the rule.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import RunningCluster
from tests.cluster.objects import (
    CommandFailed,
    Object,
    apply,
    eventually,
    get,
    kubectl,
    may,
    namespace_object,
    refusal,
    shop_deployment,
)
from tests.cluster.pages import Person, Terminal, blocks
from tests.cluster.people import (
    RBAC,
    answers,
    approve,
    believing,
    bind,
    instant,
    no_rules_of_others,
    person,
    policy,
    release,
)
from tests.cluster.podrunner import CHECKOUT
from tests.cluster.registry import Build, RunningRegistry, build, registry
from tests.cluster.serin import (
    StartStory,
    canary_object,
    label_without_processes,
    serin,
    start,
    start_shop,
    step,
)

__all__ = ["build", "no_rules_of_others", "registry", "serin", "start"]

PAGE, RECORDS = CHECKOUT / "docs" / "guardrails.md", CHECKOUT / "docs" / "records.md"
AI = "pay: retry\n\nCo-authored-by: Claude Opus 4.6 <noreply@anthropic.com>"


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
    for user in ("ann", "bo", "carl"):
        approve(story, user)
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
    assert forged.code == 1
    assert (of_owner.code, ended["outcome"]) == (0, "Promoted"), of_owner.text
    # In the status: the plugin waits for an answer, and not for ever.
    of_author, of_prompter, of_stranger, *_ = (answer for _, _, answer in answers(story))
    assert "ann is an author of this change" in of_author
    assert "bo is an author of this change (prompter)" in of_prompter
    assert "carl is in none of the groups that rule strict/rule-0 asks for: owners" in of_stranger
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
    eventually(lambda: may(agent, "create", "decisions.serin.dev", "-n", story.namespace))
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
    """Held in seconds, and not loosened by one person, by on call or by an administrator."""
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
    met = [story.until_reason("Frozen")["attempt"]["freezes"][0]["at"] for story in stories]
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
    # How soon is measured in tests/bench; a look that needs no watch comes after 20 s.
    assert held_after < 20.0, f"the last was held {held_after:.1f} s after the Freeze was created"
    assert [one.code for one in promoted] == [0] * len(stories)
    assert by_on_call.code == 1
    assert "need the verb thaw" in by_on_call.text or "cannot create" in by_on_call.text
    assert "1 of 2" in first.text
    assert "1 of 2" in again.text
    assert [(one["reason"], one["weight"]) for one in still] == [("Frozen", 50)] * len(stories)
    assert (second.code, "1 of 2" in second.text) == (0, False), second.text
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
    ended = by_ai.until_ended()

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
    # Long enough that the edit has come to the point where it is held, also where everything takes its time.
    ends = int(now) + 60
    window = {
        "start": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
        "end": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ends)),
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
    going = story.until(lambda now: now["attempt"].get("stepsSeen"))
    ended = story.decide("abort")

    assert "peak hours" in frozen["message"]
    assert frozen.get("weight", 0) == 0
    (arrived, *_) = going["attempt"]["stepsSeen"]
    assert (arrived["weight"], instant(arrived["at"]) >= ends) == (20, True)
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


def may_look(who: Person) -> bool:
    """Whether the role that the page has just given this person is in force."""
    groups = (f"--as-group={one}" for one in who.groups)
    return not who.user or may(who.user, "list", "decisions.serin.dev", "-n", "shop", *groups)


def test_every_command_of_the_page_runs_as_it_stands(serin: None, cluster: RunningCluster, tmp_path: Path) -> None:
    """A Canary `checkout` in the namespace `shop`, and each block typed by whom the page names; then the records."""
    apply([namespace_object("shop")])
    label_without_processes("shop")
    story = start_shop("shop", name="checkout")
    apply([canary_object("shop", [step(10), step(50)], "checkout")])
    story.until_held()
    new = shop_deployment("checkout", "shop", "v2")
    (tmp_path / "new.yaml").write_text(json.dumps(new))
    terminal = Terminal(tmp_path)
    people = {
        "platform": [Person()],
        "approver": [Person("olga", ("shop-approvers",)), Person("oscar", ("shop-approvers",))],
        "on-call": [Person("nick", ("on-call",))],
        "owner": [Person("olga", ("owners",)), Person("oscar", ("owners",))],
    }
    said: list[str] = []
    try:
        for block in blocks(PAGE):
            for who in people[block.who]:
                eventually(lambda who=who: may_look(who))
            if block.who == "approver":
                story.until_reason("AwaitingApproval")
            said.append(terminal.run(block, people[block.who]))
            if "freeze stop-4711" in block.text:
                story.until_reason("Frozen")
            for name in re.findall(r"canary thaw (\S+)", block.text):
                eventually(lambda name=name: not kubectl("get", "freeze", name, "--ignore-not-found", "-o", "name"))
        rolled_back = story.until_ended()
        approved = [by for by, taken, _ in answers(story) if taken]
        head = story.until(lambda now: now.get("head"))["head"]["hash"]
        kept = Terminal(tmp_path, {"HEAD": head})
        told = [kept.run(block) for block in blocks(RECORDS)]
    finally:
        kubectl("delete", "clusterrolebinding", "on-call", "owners", "--ignore-not-found")
        kubectl("delete", "namespace", "shop", "--wait=false")

    assert approved == ["olga", "oscar"]
    assert "Aborted" in told[0]
    assert len((tmp_path / "shop.jsonl").read_text().splitlines()) == 1
    assert any("changed by policy: steps[0].weight 10% -> 1% by ai-strict/small-steps" in one for one in said)
    assert (rolled_back["outcome"], "the agent deploys nonsense" in rolled_back["outcomeMessage"]) == ("Aborted", True)


def test_only_the_platform_team_writes_policies_and_nobody_but_the_controller_deletes_a_freeze() -> None:
    bind("pia", "canary-platform")
    bind("nick", "canary-oncall")

    assert may("pia", "create", "releasepolicies.serin.dev")
    assert not may("pia", "delete", "freezes.serin.dev")
    assert may("nick", "create", "freezes.serin.dev")
    assert not may("nick", "create", "releasepolicies.serin.dev")
    assert not may("nick", "thaw", "freezes.serin.dev")
    assert not may("nick", "delete", "freezes.serin.dev")


def test_production_waits_for_what_staging_has_promoted_by_digest(start: StartStory, registry: RunningRegistry) -> None:
    """The earlier environment passes it first; what that tries afterwards takes nothing back."""
    staging, prod = (start(step(50), name=name, processes=False) for name in ("staging", "prod"))
    here = ("-n", start.namespace)
    kubectl("label", "canary", "prod", "environment=production", *here)
    earlier = {"namespace": start.namespace, "canary": "staging"}
    policy("staging-first", {"passedIn": earlier}, selector={"labels": {"environment": "production"}})
    image = registry.push("order", "v2")

    release(prod, image)
    refused = prod.until_reason("NotPassedBefore")
    release(staging, image)
    staging.until_weight(50)
    assert staging.decide("promote").code == 0
    ended = staging.until_ended()
    release(staging, registry.push("order", "v3"))
    staging.until(lambda now: (now.get("attempt") or {}).get("outcome") is None)
    prod.until_weight(50)

    assert "Canary staging in namespace" in refused["message"]
    assert "has not promoted these image digests" in refused["message"]
    assert ended["outcome"] == "Promoted"
