"""People of the stories about guardrails: users with certificates and roles, and rules for the whole cluster."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import pytest

from tests.cluster.objects import apply, eventually, get, kubectl, may
from tests.cluster.registry import Build
from tests.cluster.serin import Said, Story, plugin

RBAC = "rbac.authorization.k8s.io"


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
    """This ClusterRole, everywhere; returns when the API server goes by it."""
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
    rules = [one for one in get("clusterrole", role, "")["rules"] if not one.get("resourceNames")]
    telling = max(rules, key=lambda one: len(one["verbs"]) if "/" not in one.get("resources", "/")[0] else 0)
    what = f"{telling['resources'][0]}.{telling['apiGroups'][0]}".rstrip(".")
    eventually(lambda: may(user, telling["verbs"][-1], what, "--all-namespaces"))


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
