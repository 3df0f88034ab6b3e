"""Attacks on a Serin as it is installed, with the rights of a team; docs/threat-model.md names each by its number."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from controller.errors import NeedsUser, SourceUnavailable
from controller.model.spec import CanarySpec, Credentials, ErrorRatio, Metric, MetricsSourceSpec, SecretRef
from controller.ports import Ref
from controller.sources.prometheus import PrometheusSource
from controller.sources.templates import BUILT_IN, fill, parameters, parse_selector
from tests.cluster import namespace as private
from tests.cluster.conftest import RunningCluster
from tests.cluster.objects import CommandFailed, Object, eventually, get, kubectl, may
from tests.cluster.serin import SYSTEM, StartStory, canary_object, serin, start, step

__all__ = ["serin", "start"]

CONTROLLER = f"system:serviceaccount:{SYSTEM}:serin-controller"


def test_T10_names_in_a_query_are_label_values_also_for_prometheus_own_parser(cluster: RunningCluster) -> None:
    """Every name that Kubernetes lets through, at its worst."""
    names = ["a", "a" * 63, "0-0", "x--y", "canary-canary", "1e999", "nan", "or", "vector", "by-le", "a.b.c"]
    for template in BUILT_IN.values():
        for text in (template.requests, template.errors, template.latency):
            for name in names:
                body = {
                    "targetRef": {"name": name},
                    "traffic": {
                        "service": {"name": f"s-{name}"[:50].replace(".", "-"), "port": 80},
                        "httpRoute": {"name": "r"},
                    },
                }
                values = parameters(Ref("shop", name[:50], "u"), CanarySpec.model_validate(body), "canary")
                wanted = fill(parse_selector(text), values)
                with urlopen(f"{cluster.prometheus}/api/v1/parse_query?{urlencode({'query': str(wanted)})}") as answer:
                    seen = json.load(answer)["data"]
                assert seen["type"] == "vectorSelector"
                found = {(one["name"], one["type"], one["value"]) for one in seen["matchers"]} - {
                    ("__name__", "=", wanted.metric)
                }
                assert found == {(one.label, one.operator, one.value) for one in wanted.matchers}


@pytest.fixture(scope="module")
def metadata_service() -> Iterator[list[bytes]]:
    """A listener at every link-local address, as clouds have one; the bytes it was sent."""
    private.add_local_route("169.254.0.0", 16)
    heard: list[bytes] = []
    server = socket.create_server(("0.0.0.0", 9169))

    def listen() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(0.5)
                try:
                    heard.append(connection.recv(4096))
                except TimeoutError:
                    heard.append(b"")

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    with socket.create_connection(("169.254.169.254", 9169), timeout=2) as probe:
        probe.send(b"GET / HTTP/1.0\r\n\r\n")
    eventually(lambda: heard)
    heard.clear()
    yield heard
    server.close()


SPELLINGS = [
    "169.254.169.254", "169.254.170.2", "2852039166", "0xA9FEA9FE", "0251.0376.0251.0376", "169.254.43518",
    "169.16689662", "0xa9.0xfe.0xa9.0xfe", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "169.254.169.254.",
]  # fmt: skip


@pytest.mark.parametrize("host", SPELLINGS)
async def test_T12_T14_no_spelling_of_a_metadata_address_is_sent_a_byte(
    metadata_service: list[bytes], host: str
) -> None:
    class Catalog:
        async def find(self, name: str) -> MetricsSourceSpec:
            token = Credentials(bearer_token=SecretRef(name="prometheus", key="token"))
            return MetricsSourceSpec(url=f"http://{host}:9169/", credentials=token, timeout=timedelta(seconds=1))

        async def names(self) -> tuple[str, ...]:
            return ("default",)

        async def secret(self, name: str, key: str) -> str:
            return "MARKER-token"

    body = {"targetRef": {"name": "c"}, "traffic": {"service": {"name": "c", "port": 80}, "httpRoute": {"name": "c"}}}
    source = PrometheusSource(Catalog())
    now = datetime.now(UTC)
    try:
        with pytest.raises((SourceUnavailable, NeedsUser)) as refused:
            await source.read_samples(
                Ref("shop", "c", "u"),
                CanarySpec.model_validate(body),
                Metric(name="errors", error_ratio=ErrorRatio()),
                now - timedelta(minutes=1),
                now,
            )
    finally:
        await source.close()
    await asyncio.sleep(0.05)

    assert not any(metadata_service), "a connection may be tried, but nothing is said"
    assert "MARKER" not in str(refused.value)


def test_T15_nothing_in_another_namespace_can_be_named(serin: None, namespace: str) -> None:
    for path in (("targetRef",), ("traffic", "service"), ("traffic", "httpRoute")):
        canary = canary_object(namespace, [step(50)])
        field = canary["spec"]
        for name in path:
            field[name] = dict(field[name])
            field = field[name]
        field["namespace"] = "kube-system"

        with pytest.raises(CommandFailed, match=r"unknown field|field not declared"):
            kubectl("create", "--validate=strict", "-f", "-", stdin=canary)


TOO_LARGE: dict[str, tuple[str, Object]] = {
    "9,000 steps": ("steps", {"steps": [{"weight": n / 100, "bake": "1s"} for n in range(1, 9_000)]}),
    "a name of 100 kB": ("analysis", {"analysis": {"source": "x" * 100_000}}),
    "5,000 digits": ("steps", {"steps": [{"weight": 10, "bake": "9" * 5_000 + "h"}]}),
    "a port of 18 digits": (
        "traffic",
        {"traffic": {"service": {"name": "s", "port": 10**18}, "httpRoute": {"name": "r"}}},
    ),
    "a weight of 1e308": ("steps", {"steps": [{"weight": 1e308, "bake": "1s"}]}),
}


@pytest.mark.parametrize("what", TOO_LARGE)
def test_T18_what_is_too_large_is_refused_by_the_schema(serin: None, namespace: str, what: str) -> None:
    name, change = TOO_LARGE[what]
    canary = canary_object(namespace, [step(50)])
    canary["spec"] |= change

    with pytest.raises(CommandFailed) as refused:
        kubectl("create", "-f", "-", stdin=canary)

    assert name in str(refused.value)


def test_T24_the_metrics_of_a_running_controller_hold_no_text_of_a_team(
    start: StartStory, cluster: RunningCluster
) -> None:
    marker = "MARKER-5e1f"
    story = start(step(50, "1h"), processes=False)
    story.edit("v2", annotations={"serin.dev/origin": marker})
    story.until_weight(50)
    assert story.say("abort", "--reason", marker, "--yes").code == 0
    story.until_phase("RolledBack")

    pods = get("pods", "", SYSTEM, "app.kubernetes.io/component=controller")["items"]
    for pod in pods:
        with urlopen(f"http://{pod['status']['podIP']}:8080/metrics", timeout=5) as answer:
            assert marker not in answer.read().decode()


def test_T34_a_stamp_written_by_a_team_ends_no_leader_and_keeps_nobody_on_what_is_rolled_back(
    start: StartStory,
) -> None:
    story = start(step(50, "1h"), processes=False)
    story.edit("v2")
    story.until_weight(50)
    leader, pods = lease(), controllers()

    def forge(kind: str, stamp: str) -> None:
        kubectl("annotate", kind, "shop", f"serin.dev/epoch={stamp}", "-n", story.namespace, "--overwrite")

    forge("httproute", "shop-canary=999999999.0")
    forge("deployment", "999999999.0")
    assert story.decide("abort").code == 0
    story.until_phase("RolledBack")
    story.assert_nothing_left()
    # The first one on the Deployment went with the canary; this one stands before the release of what is held.
    forge("deployment", "999999999.0")
    story.edit("v1")
    story.until(lambda found: found["phase"] == "Idle" and not story.deployment()["spec"].get("paused"))

    assert (lease(), controllers()) == (leader, pods)

    def told() -> set[str]:
        events = get("events.events.k8s.io", "", story.namespace)["items"]
        said = [one["note"] for one in events if one["reason"] == "StampNotOurs"]
        return {note.partition(" says ")[0].rpartition(" of ")[2] for note in said}

    eventually(lambda: told() == {"HTTPRoute shop", "Deployment shop"})
    assert "serin.dev/epoch" not in story.deployment()["metadata"]["annotations"]


def lease() -> tuple[str, int]:
    """Who leads, and under which term."""
    spec = get("lease", "serin-controller", SYSTEM)["spec"]
    return spec["holderIdentity"], spec["leaseTransitions"]


def controllers() -> list[tuple[str, int]]:
    """The controller's pods, and how often each was started anew."""
    pods = get("pods", "", SYSTEM, "app.kubernetes.io/component=controller")["items"]
    counts = [(pod["metadata"]["name"], pod["status"]["containerStatuses"][0]["restartCount"]) for pod in pods]
    return sorted(counts)


def test_T25_a_stolen_token_of_the_controller_opens_no_shell_and_reads_no_secret(serin: None, namespace: str) -> None:
    forbidden = [
        ("get", "secrets"), ("list", "secrets"), ("get", "configmaps"), ("create", "pods"), ("create", "pods/exec"),
        ("create", "serviceaccounts/token"), ("create", "rolebindings.rbac.authorization.k8s.io"),
        ("patch", "clusterroles.rbac.authorization.k8s.io"), ("impersonate", "users"),
        ("update", "validatingadmissionpolicies.admissionregistration.k8s.io"),
        ("patch", "customresourcedefinitions.apiextensions.k8s.io"), ("create", "decisions.serin.dev"),
        ("delete", "releaserecords.serin.dev"), ("create", "jobs.batch"), ("create", "daemonsets.apps"),
    ]  # fmt: skip

    allowed = [(verb, what) for verb, what in forbidden if may(CONTROLLER, verb, what, "-n", namespace)]

    assert allowed == []


def test_T27_no_pod_of_ours_carries_a_secret_in_its_arguments_or_environment(serin: None) -> None:
    for pod in get("pods", "", SYSTEM)["items"]:
        for container in pod["spec"]["containers"]:
            shown: list[Any] = [*container.get("args", []), *container.get("env", [])]
            assert not [
                one for one in shown if any(word in str(one).lower() for word in ("token", "secret", "password"))
            ]
