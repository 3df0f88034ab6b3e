"""Provenance as a platform team sets it up, with the page's own commands; releases are treated by what is proven."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from controller.attestations.dsse import sign
from controller.attestations.images import parse_image
from controller.attestations.keys import load_private
from controller.attestations.statements import (
    CHANGE_ORIGIN,
    SARIF,
    SLSA_PROVENANCE,
    TEST_RESULT,
    VERIFICATION_SUMMARY,
    VULNERABILITIES,
)
from controller.cli.push import Push
from tests.cluster.objects import Object, apply, eventually, kubectl, shop_deployment
from tests.cluster.pages import Terminal, blocks
from tests.cluster.podrunner import CHECKOUT
from tests.cluster.registry import Build, RunningRegistry, build, registry
from tests.cluster.serin import SYSTEM, StartStory, Story, serin, start, step

__all__ = ["build", "registry", "serin", "start"]

PAGE = CHECKOUT / "docs" / "provenance.md"
SERIN_ORIGIN = "serin.dev/origin"


def policy(name: str, namespace: str, build: Build, *rules: Object) -> Object:
    return {
        "apiVersion": "serin.dev/v1alpha1",
        "kind": "ReleasePolicy",
        "metadata": {"name": name},
        "spec": {
            "selector": {"namespaces": [namespace]},
            "signers": [{"name": "ci", "publicKey": build.public_key}],
            "rules": list(rules),
        },
    }


@pytest.fixture
def trusting(namespace: str, build: Build) -> Iterator[Build]:
    """A policy that believes this build about the test's namespace."""
    apply([policy(f"trust-{namespace}", namespace, build)])
    yield build
    kubectl("delete", "releasepolicy", f"trust-{namespace}", "--ignore-not-found")


def release(story: Story, image: str, env: dict[str, str] | None = None, **annotations: str) -> None:
    """Deploy this image, as a pipeline does."""
    body = shop_deployment(story.name, story.namespace, "v2", story.replicas, env, annotations)
    body["spec"]["template"]["spec"]["containers"][0]["image"] = image
    apply([body])


def begun(story: Story, image: str) -> dict[str, Any]:
    """The attempt at this image."""

    def found(status: Object) -> bool:
        return image in ((status.get("attempt") or {}).get("images") or ())

    return dict(story.until(found)["attempt"])


def test_a_release_is_treated_by_what_is_proven_of_its_image(
    start: StartStory,
    registry: RunningRegistry,
    trusting: Build,
) -> None:
    story = start(step(50, "30m"), processes=False)
    by_ai, by_person = registry.push("shop", "ai"), registry.push("shop", "person")
    trusting.commit("x\n\nCo-authored-by: Claude Opus 4.6 <noreply@anthropic.com>")
    assert trusting.attest(by_ai, "--accountable", "mailto:owner@example.com").returncode == 0
    trusting.commit("typo")
    assert trusting.attest(by_person, "--range", "HEAD~1..HEAD", "--origin", "human").returncode == 0

    # What it claims of itself is weaker than what is proven.
    release(story, by_ai, **{SERIN_ORIGIN: "human"})
    ai = begun(story, by_ai)
    release(story, by_person)
    person = begun(story, by_person)

    assert (ai["origin"], ai["trust"], ai["evidence"]["accountable"]) == ("ai", "T3", "mailto:owner@example.com")
    assert ai["evidence"]["tools"] == [{"name": "claude-code", "model": "Claude Opus 4.6"}]
    assert (person["origin"], person["trust"]) == ("human", "T3")
    assert [one["digest"] for one in person["evidence"]["images"]] == [by_person.partition("@")[2]]


def test_settings_that_come_with_a_signed_image_are_proven_where_the_statement_names_them(
    start: StartStory,
    registry: RunningRegistry,
    trusting: Build,
) -> None:
    story = start(step(50, "30m"), processes=False)
    alone, named = registry.push("shop", "alone"), registry.push("shop", "named")
    trusting.commit("typo")
    assert trusting.attest(alone, "--origin", "human").returncode == 0
    assert trusting.attest(named, "--origin", "human", "--class", "config").returncode == 0

    def with_settings(image: str) -> dict[str, Any]:
        release(story, image, {"PAY_URL": "https://elsewhere"})
        return begun(story, image)

    unproven, proven = with_settings(alone), with_settings(named)

    assert (unproven.get("origin", "unknown"), unproven.get("trust", "T0")) == ("unknown", "T0")
    (told,) = unproven["evidence"]["problems"]
    assert "nobody vouches for config (template.spec.containers[app].env" in told
    assert "kubectl canary attest --class config" in told
    assert (proven["origin"], proven["trust"]) == ("human", "T3")


def test_disguises_are_seen_through(start: StartStory, registry: RunningRegistry, trusting: Build) -> None:
    story = start(step(50, "30m"), processes=False)
    unattested, replayed = registry.push("shop", "plain"), registry.push("shop", "replayed")
    trusting.commit("typo")
    honest = registry.push("shop", "honest")
    assert trusting.attest(honest, "--origin", "human").returncode == 0
    registry.copy_statements("shop", honest, replayed)

    release(story, unattested, **{SERIN_ORIGIN: "human"})
    first = begun(story, unattested)
    release(story, replayed)
    second = begun(story, replayed)
    by_tag = honest.partition("@")[0]
    release(story, by_tag)
    third = begun(story, by_tag)

    # The strictest values are defaults, and defaults are not written.
    assert first.get("origin", "unknown") == "unknown"
    assert second.get("origin", "unknown") == "unknown"
    assert any("not about" in line for line in second["evidence"]["problems"])
    assert third.get("origin", "unknown") == "unknown"
    assert any("by its digest" in line for line in third["evidence"]["problems"])


def test_a_registry_that_is_down_holds_the_release_and_nothing_else(
    start: StartStory,
    registry: RunningRegistry,
    trusting: Build,
) -> None:
    story = start(step(50, "30m"), processes=False)
    image = registry.push("shop", "later")
    trusting.commit("typo")
    assert trusting.attest(image, "--origin", "human").returncode == 0
    registry.stop()
    try:
        release(story, image)
        # At first it is being looked up.
        held = story.until(lambda now: "did not answer" in now.get("message", ""))
        assert held["reason"] == "EvidenceUnavailable"
        assert not (held.get("attempt") or {}).get("images")
    finally:
        registry.start()

    assert begun(story, image)["trust"] == "T3"


def test_every_command_of_the_page_runs_as_it_stands(
    start: StartStory,
    registry: RunningRegistry,
    tmp_path: Path,
) -> None:
    story = start(step(50, "30m"), processes=False)
    image = registry.push("shop", "page")
    clone = tmp_path / "clone"
    clone.mkdir()
    git = ["git", "-C", str(clone), "-c", "user.name=Ann", "-c", "user.email=ann@example.com"]
    subprocess.run([*git, "init", "-q"], check=True)
    for message in ("one", "two\n\nCo-authored-by: Claude <noreply@anthropic.com>"):
        subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", message], check=True)
    kubectl("config", "set-context", "--current", "--namespace", story.namespace)
    terminal = Terminal(clone, {"IMAGE": image, "CANARY": story.name})
    try:
        for block in blocks(PAGE):
            terminal.run(block)
        release(story, image)
        attempt = begun(story, image)
    finally:
        kubectl("delete", "releasepolicy", "provenance", "--ignore-not-found")
        kubectl("delete", "configmap", "statements", "-n", SYSTEM, "--ignore-not-found")
        kubectl("config", "set-context", "--current", "--namespace", "default")

    assert (attempt["origin"], attempt["trust"]) == ("ai", "T3")


def test_the_record_keeps_what_was_proven(start: StartStory, registry: RunningRegistry, trusting: Build) -> None:
    story = start(step(50, "30m"), processes=False)
    image = registry.push("shop", "recorded")
    trusting.commit("x\n\nCo-authored-by: Cursor <cursoragent@cursor.com>")
    assert trusting.attest(image, "--prompter", "bo").returncode == 0
    release(story, image)
    begun(story, image)

    def recorded() -> Object | None:
        return next((one for one in story.records() if image in one["images"]), None)

    record = json.dumps(eventually(recorded))

    assert '"cursor"' in record
    assert '"prompter"' in record
    assert image.partition("@")[2] in record


def attach(image: str, build: Build, kind: str, *, about: str = "", made: datetime | None = None, **said: Any) -> None:
    """What another tool found out about an image, signed with this build's key."""
    at = (made or datetime.now(UTC)).isoformat(timespec="seconds")
    predicates: dict[str, dict[str, Any]] = {
        SLSA_PROVENANCE[0]: {"runDetails": {"metadata": {"finishedOn": at}}},
        VERIFICATION_SUMMARY: {"verificationResult": "PASSED", "timeVerified": at},
        TEST_RESULT: {"result": "PASSED", "timeCreated": at},
        SARIF[0]: {"runs": [{"results": []}], "timeCreated": at},
        VULNERABILITIES[0]: {"scanner": {"result": []}, "metadata": {"scanFinishedOn": at}},
    }
    digest = parse_image(about or image).digest
    body = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "shop", "digest": {"sha256": digest.removeprefix("sha256:")}}],
        "predicateType": kind,
        "predicate": predicates[kind] | said,
    }
    key = load_private((build.folder / "key.pem").read_bytes(), None)
    Push(parse_image(image), plain_http=True).attach(sign(json.dumps(body).encode(), key), kind, at)


def test_a_new_image_waits_for_every_statement_that_a_rule_of_its_class_asks_for(
    start: StartStory, namespace: str, registry: RunningRegistry, build: Build, tmp_path: Path
) -> None:
    """Provenance, summary, tests, analysis and scan: a stranger's, an old one's and one of another image are none."""
    story = start(step(20, "1h"), processes=False)
    wanted = [SLSA_PROVENANCE[0], VERIFICATION_SUMMARY, TEST_RESULT, SARIF[0], VULNERABILITIES[0]]
    (tmp_path / "stranger").mkdir()
    stranger = Build(tmp_path / "stranger")
    believed = {"name": "ci", "publicKey": build.public_key, "maxAge": "24h"}
    rule = {"name": "gates", "when": {"classes": ["image"]}, "evidence": wanted}
    body = policy(f"gates-{namespace}", story.namespace, build, rule)
    body["spec"]["signers"] = [believed | {"predicateTypes": [CHANGE_ORIGIN, *wanted]}]
    apply([body])
    image, bad = registry.push("shop", "gated"), registry.push("shop", "vulnerable")
    build.commit("pay: retry")
    for one in (image, bad):
        assert build.attest(one, "--origin", "human").returncode == 0
    attach(image, stranger, wanted[0])
    attach(image, build, wanted[1], made=datetime.now(UTC) - timedelta(days=2))
    attach(image, build, wanted[2], about=bad)
    for kind in wanted[3:]:
        attach(image, build, kind)

    release(story, image)
    held = story.until_reason("EvidenceMissing")
    for kind in wanted[:3]:
        attach(image, build, kind)
    attempt = begun(story, image)
    story.until_weight(20)
    for kind in wanted[:4]:
        attach(bad, build, kind)
    severe = {"scanner": {"result": [{"id": "CVE-1", "severity": [{"method": "cvss", "score": "9.8"}]}]}}
    attach(bad, build, wanted[4], **severe)
    assert story.decide("abort").code == 0
    story.until_ended()
    release(story, bad)
    failed = story.until_reason("EvidenceMissing")
    kubectl("delete", "releasepolicy", f"gates-{namespace}")

    assert f"gates-{namespace}/gates: no signer vouches for {wanted[0]} of this image" in held["message"]
    assert {one["type"] for one in attempt["evidence"]["predicates"]} == {CHANGE_ORIGIN, *wanted}
    problems = " ".join(attempt["evidence"]["problems"])
    for why in ("signed by no key of a policy's signers", "longer ago than the signer's maxAge", "not about sha256:"):
        assert why in problems
    assert f"the statement {wanted[4]} about this image says failed" in failed["message"]
