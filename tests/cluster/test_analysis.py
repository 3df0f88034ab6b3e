"""What a rollout is held for beside errors: gauges and incidents, with real pods, traffic and Prometheus."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.cluster.objects import Object, apply, eventually, get, kubectl
from tests.cluster.serin import StartStory, Story, serin, start, step

__all__ = ["serin", "start"]

PODS = 'namespace="$namespace",pod=~"$deployment-[bcdfghjklmnpqrstvwxz2456789]{1,10}-[bcdfghjklmnpqrstvwxz2456789]{5}"'
ERRORS: Object = {"name": "errors", "errorRatio": {"template": "gateway"}, "margin": 0.005}
BUSY = 60.0


def analysis(*metrics: Object, **changes: Any) -> Object:
    """Seconds instead of minutes, and no certificate, which takes a minute at least."""
    usual = {"source": "measured", "warmup": "1s", "minRequests": 20, "onInconclusive": "advance"}
    return usual | {"metrics": list(metrics)} | changes


@pytest.fixture
def measured(serin: None) -> None:
    """A MetricsSource that knows what the shop's pods say of themselves."""
    counted = {
        "requests": f"http_requests_total{{{PODS}}}",
        "errors": f'http_requests_total{{{PODS},code=~"5.."}}',
    }
    source = {
        "apiVersion": "serin.dev/v1alpha1",
        "kind": "MetricsSource",
        "metadata": {"name": "measured"},
        "spec": {
            "url": get("metricssource", "default", "")["spec"]["url"],
            "scrapeInterval": "1s",
            "gauges": {"resident": {"value": f"process_resident_memory_bytes{{{PODS}}}"}},
            "templates": {"native": counted | {"latency": f"http_native_seconds{{{PODS}}}", "native": True}},
        },
    }
    apply([source])


def test_a_revision_that_uses_more_memory_is_held_and_a_person_goes_on(measured: None, start: StartStory) -> None:
    memory = {"name": "memory", "gauge": {"template": "resident", "times": 1.5, "lasts": "10s"}}
    began = time.monotonic()
    story = start(step(50, "5s"), analysis=analysis(ERRORS, memory))
    with story.load(BUSY) as report:
        eventually(lambda: len(report.answers) > 18 * BUSY)
        least = len(report.answers) / (time.monotonic() - began)
        # Nothing waits for the look at the past: it is over when pods that take their time are ready.
        hoards = {"image": "registry.local/shop:v2", "env": [{"name": "SHOP_HOARD", "value": "60"}]}
        slowly = {"name": "app", "readinessProbe": {"initialDelaySeconds": 10}}
        edited = json.dumps({"spec": {"template": {"spec": {"containers": [slowly | hoards]}}}})
        kubectl("patch", "deployment", story.name, "-n", story.namespace, "-p", edited)
        held = story.until_reason("GaugeHigher")
        told = story.say("explain")
        shown = story.say("status")
        eventually(lambda: goes_on(story))
        ended = story.until_ended()

    assert "memory is " in held["message"]
    assert "times that of stable pods" in held["message"]
    assert (held["phase"], held["weight"]) == ("Progressing", 50)
    assert "on the canary" in told.text
    assert "noise of pods: assumed: " in told.text, "they are a minute old, and two hours are needed"
    outlook = held["outlook"]
    assert outlook["attempt"] == held["attempt"]["id"]
    assert 0.5 * least < outlook["rate"] < 1.5 * BUSY, "the seconds before its first request count too"
    assert outlook["relief"] == 1
    assert "outlook  at " in shown.text
    assert "HOLD" in shown.text
    assert ended["outcome"] == "Promoted", story.seen
    assert report.lost() == []


def goes_on(story: Story) -> bool:
    """A person says so; once more where samples were late at that moment, and the Resume was about those."""
    now = story.until(lambda now: now["reason"] == "GaugeHigher" or now["attempt"].get("overruled"))
    if now["attempt"].get("overruled"):
        return True
    assert story.decide("resume").code == 0
    return False


def test_a_slower_revision_is_taken_off_traffic_by_native_histograms_at_a_threshold_that_is_no_bound(
    measured: None, start: StartStory
) -> None:
    native = {"SHOP_NATIVE": "1"}
    slow = {"name": "latency", "latency": {"template": "native", "threshold": "77ms"}, "margin": 0.01}
    story = start(step(50, "60s"), env=native, analysis=analysis(slow))
    with story.load(BUSY):
        story.edit("v2", native | {"SHOP_LATENCY": "0.12"})
        story.until_phase("Retreated")
        attempt = story.attempt()
        assert story.decide("abort").code == 0
        story.until_ended()

    assert attempt["judged"]["metric"] == "latency"
    numbers = attempt["judged"]["numbers"]
    assert numbers["canaryErrors"] == numbers["canaryRequests"] > 0, "120 ms is slower than 77"
    assert numbers["stableErrors"] < 0.2 * numbers["stableRequests"]


def shares(story: Story) -> dict[str, float]:
    """Weights by Service, as the route has them."""
    (rule, *_) = get("httproute", story.name, story.namespace)["spec"]["rules"]
    return {one["name"]: one.get("weight", 1) for one in rule["backendRefs"]}


def test_a_service_that_starts_cold_is_compared_with_pods_as_young_as_its_canarys(
    measured: None, start: StartStory
) -> None:
    """New pods of any revision fail a fifth of their first requests; against warm pods that is a catastrophe."""
    cold = {"SHOP_COLD": "15"}
    first = step(20, "5s", approval={})
    story = start(first, step(50, "5s"), env=cold, analysis=analysis(ERRORS, baseline={"fresh": True}))
    with story.load(BUSY) as report:
        # Stable is warm by now, and what it did before is not remembered by any counter's increase.
        eventually(lambda: len(report.answers) > 18 * BUSY)
        story.edit("v2", cold)
        story.until_reason("AwaitingApproval")
        beside = story.deployment("-baseline")
        during = shares(story)
        assert story.decide("approve").code == 0
        ended = story.until_ended(within=150)

    assert beside["spec"]["template"]["spec"]["containers"][0]["image"].endswith(":v1")
    assert during == {"shop": 60, "shop-canary": 20, "shop-baseline": 20}
    assert (ended["outcome"], ended.get("retreats", [])) == ("Promoted", []), story.seen
    assert story.revisions() == {"v2"}
    story.assert_nothing_left()


def test_a_bad_revision_beside_a_fresh_baseline_is_rolled_back_and_nothing_of_either_is_left(
    measured: None, start: StartStory
) -> None:
    story = start(step(50, "60s"), analysis=analysis(ERRORS, baseline={"fresh": True}))
    with story.load(BUSY):
        story.edit("v2", {"SHOP_FAIL_RATIO": "0.5"})
        ended = story.until_ended(within=240)

    assert ended["outcome"] == "RolledBack", story.seen
    assert story.revisions() == {"v1"}
    story.assert_nothing_left()


def test_a_canary_deleted_beside_a_fresh_baseline_leaves_nothing(measured: None, start: StartStory) -> None:
    story = start(step(50, "10m"), analysis=analysis(ERRORS, baseline={"fresh": True}))
    with story.load(BUSY):
        story.edit("v2")
        story.until_weight(50)
        kubectl("delete", "canary", story.name, "-n", story.namespace, "--timeout=180s")

    assert story.revisions() == {"v1"}
    story.assert_nothing_left()


def test_a_gauge_without_values_holds_and_says_which(measured: None, start: StartStory) -> None:
    heap = {"name": "memory", "gauge": {"template": "memory", "lasts": "10s"}}
    story = start(step(50, "2s"), analysis=analysis(ERRORS, heap))
    with story.load(BUSY):
        story.edit("v2")
        held = story.until(lambda now: "no value of" in now.get("message", ""))
        assert story.decide("abort").code == 0
        story.until_ended()

    assert held["reason"] == "GaugeMissing"
    assert "does gauge memory of the MetricsSource select them" in held["message"]


def test_an_incident_that_hits_both_holds_and_convicts_nobody(measured: None, start: StartStory) -> None:
    """The dependency behind one path is down: one request of four fails on both, and then nobody asks for it."""
    broken = {"SHOP_FAIL_PATH": "/checkout", "SHOP_FAIL_RATIO": "1"}
    story = start(step(50, "15s"), env=broken, analysis=analysis(ERRORS | {"objective": 0.07}))
    with story.load(BUSY, paths={"/": 3.0, "/checkout": 1.0}):
        story.edit("v2", broken)
        held = story.until_reason("BothArmsSuffer")
    with story.load(2 * BUSY, paths={"/": 1.0}) as calm:
        ended = story.until_ended(within=150)

    assert "bad on stable too, objective 7.00 %" in held["message"]
    assert held["weight"] == 50, "it stays where it is"
    assert ended["outcome"] == "Promoted", story.seen
    assert calm.lost() == []


def test_a_roll_stops_where_it_is_in_an_incident_and_goes_on_after_it(measured: None, start: StartStory) -> None:
    """Every gate was passed; then a path fails on all pods, old and new, while the Deployment rolls."""
    broken = {"SHOP_FAIL_PATH": "/checkout", "SHOP_FAIL_RATIO": "1"}
    story = start(step(50, "5s"), replicas=3, env=broken, analysis=analysis(ERRORS | {"objective": 0.07}))
    # The roll has time for an incident: each pod counts only after a while.
    slowly = '{"spec": {"minReadySeconds": 20}}'
    kubectl("patch", "deployment", story.name, "-n", story.namespace, "--type=merge", "-p", slowly)
    with story.load(BUSY, paths={"/": 1.0}):
        story.edit("v2", broken)
        story.until_phase("Releasing")
    with story.load(BUSY, paths={"/checkout": 1.0}):
        held = story.until_reason("ObjectiveMissed")
        paused, stopped_at = story.deployment()["spec"].get("paused"), story.revisions()
    with story.load(2 * BUSY, paths={"/": 1.0}) as calm:
        ended = story.until_ended(within=240)

    assert "the roll stands where it is" in held["message"]
    assert (paused, "v1" in stopped_at) == (True, True), stopped_at
    assert ended["outcome"] == "Promoted", story.seen
    assert story.revisions() == {"v2"}
    assert calm.lost() == []
