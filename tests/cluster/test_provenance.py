"""Provenance as a platform team sets it up, with the page's own commands; releases are treated by what is proven."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.objects import Object, apply, eventually, kubectl, shop_deployment
from tests.cluster.podrunner import CHECKOUT
from tests.cluster.registry import Build, RunningRegistry, build, registry
from tests.cluster.serin import SYSTEM, StartStory, Story, serin, start, step

__all__ = ["build", "registry", "serin", "start"]

PAGE = CHECKOUT / "docs" / "provenance.md"
SERIN_ORIGIN = "serin.dev/origin"


def commands(page: Path) -> list[str]:
    """The page's blocks that a person copies."""
    return re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)


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


def release(story: Story, image: str, **annotations: str) -> None:
    """Deploy this image, as a pipeline does."""
    body = shop_deployment(story.name, story.namespace, "v2", story.replicas, annotations=annotations)
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
        held = story.until_reason("EvidenceUnavailable")
        assert not (held.get("attempt") or {}).get("images")
        assert "did not answer" in held["message"]
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
    # As a pipeline has it: kubectl finds the plugin on PATH, and the registry here has no TLS.
    plugin = tmp_path / "bin" / "kubectl-canary"
    plugin.parent.mkdir()
    insecure = 'case $1 in attest) set -- "$@" --plain-http;; esac'
    plugin.write_text(f'#!/bin/sh\n{insecure}\nexec {sys.executable} -m controller.cli.main "$@"\n')
    plugin.chmod(0o755)
    kubectl("config", "set-context", "--current", "--namespace", story.namespace)
    env = os.environ | {
        "PATH": f"{plugin.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(CHECKOUT),
        "IMAGE": image,
        "CANARY": story.name,
    }
    try:
        for block in commands(PAGE):
            done = subprocess.run(
                ["bash", "-euc", block], cwd=clone, env=env, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
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
