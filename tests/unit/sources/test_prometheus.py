"""The source against a scripted server over real HTTP: whatever it says, the answer is data, none, or a failure."""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller.errors import NeedsUser, NotFound, SourceUnavailable
from controller.model.spec import CanarySpec, Credentials, LatencyRule, Metric, MetricsSourceSpec, SecretRef
from controller.ports import MetricSamples, Ref
from controller.sources.prometheus import PrometheusSource
from tests.fakes.prometheus import FakePrometheus, Fault

REF = Ref("shop", "checkout", "uid-1")
NOW = 1_800_000_000.0
CANARY, STABLE = "shop_checkout-canary_80", "shop_checkout_80"
REQUESTS, CLASSES = "envoy_cluster_upstream_rq_completed", "envoy_cluster_upstream_rq_xx"
BUCKETS = "envoy_cluster_upstream_rq_time_bucket"
LATENCY = Metric(name="latency", latency=LatencyRule(threshold=timedelta(milliseconds=250)))


def canary_spec(**changes: Any) -> CanarySpec:
    """A Canary of ten lines."""
    usual: dict[str, Any] = {
        "targetRef": {"name": "checkout"},
        "traffic": {"service": {"name": "checkout", "port": 80}, "httpRoute": {"name": "checkout"}},
    }
    return CanarySpec.model_validate(usual | changes)


class Catalog:
    """One source named `default`."""

    def __init__(self, url: str, **changes: Any) -> None:
        self.sources = {"default": MetricsSourceSpec(url=url, **({"timeout": timedelta(seconds=1)} | changes))}
        self.secrets = {("prometheus", "token"): "s3cret\n"}

    async def find(self, name: str) -> MetricsSourceSpec | None:
        return self.sources.get(name)

    async def names(self) -> tuple[str, ...]:
        return tuple(self.sources)

    async def secret(self, name: str, key: str) -> str:
        if (name, key) not in self.secrets:
            raise NotFound(name)
        return self.secrets[name, key]


@asynccontextmanager
async def opened(server: FakePrometheus, **changes: Any) -> AsyncIterator[PrometheusSource]:
    source = PrometheusSource(Catalog(server.url, **changes))
    try:
        yield source
    finally:
        await source.close()


async def read(source: PrometheusSource, metric: Metric | None = None, seconds: float = 10) -> MetricSamples:
    until = datetime.fromtimestamp(NOW, UTC)
    spec = canary_spec()
    return await source.read_samples(
        REF, spec, metric or spec.analysis.metrics[0], until - timedelta(seconds=seconds), until
    )


def put_gateway(server: FakePrometheus) -> None:
    """Both arms as Contour's Envoy shows them, and a neighbour that must not be counted."""
    for cluster, scale in ((CANARY, 1), (STABLE, 100), ("shop_cart_80", 7)):
        server.put(REQUESTS, [(NOW - 2, 10 * scale), (NOW - 1, 20 * scale)], envoy_cluster_name=cluster)
        for status in ("2", "5"):
            server.put(
                CLASSES, [(NOW - 1, int(status) * scale)], envoy_cluster_name=cluster, envoy_response_code_class=status
            )


@pytest.fixture
async def server() -> AsyncIterator[FakePrometheus]:
    async with FakePrometheus() as server:
        yield server


async def test_both_arms_come_from_one_query(server: FakePrometheus) -> None:
    put_gateway(server)

    async with opened(server) as source:
        found = await read(source)

    assert [(s.at, s.value) for s in found.canary.requests] == [(NOW - 2, 10.0), (NOW - 1, 20.0)]
    assert [s.value for s in found.canary.bad] == [5.0]
    assert [s.value for s in found.stable.requests] == [1000.0, 2000.0]
    assert [s.value for s in found.stable.bad] == [500.0]
    assert not found.partial
    assert len(server.queries) == 1


async def test_a_canary_that_nobody_has_scraped_yet_is_empty_and_not_zero(server: FakePrometheus) -> None:
    server.put(REQUESTS, [(NOW - 1, 5)], envoy_cluster_name=STABLE)

    async with opened(server) as source:
        found = await read(source)

    assert found.canary.requests == ()
    assert [s.value for s in found.stable.requests] == [5.0]


async def test_samples_outside_the_window_are_left_out(server: FakePrometheus) -> None:
    server.put(
        REQUESTS, [(NOW - 300, 1), (NOW - 10, 2), (NOW - 9.5, 3), (NOW, 4), (NOW + 60, 5)], envoy_cluster_name=CANARY
    )

    async with opened(server) as source:
        found = await read(source, seconds=10)

    assert [s.value for s in found.canary.requests] == [3.0, 4.0]


async def test_several_series_stay_apart(server: FakePrometheus) -> None:
    for gateway in ("a:8002", "b:8002"):
        server.put(REQUESTS, [(NOW - 1, 5)], envoy_cluster_name=CANARY, instance=gateway)

    async with opened(server) as source:
        found = await read(source)

    assert len({s.series for s in found.canary.requests}) == 2


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "1e999", "abc", "-1", "9" * 5000])
async def test_what_is_no_count_is_dropped_and_said(server: FakePrometheus, value: str) -> None:
    server.put(REQUESTS, [(NOW - 2, value), (NOW - 1, 7)], envoy_cluster_name=CANARY)

    async with opened(server) as source:
        found = await read(source)

    assert [s.value for s in found.canary.requests] == [7.0]
    assert found.partial


async def test_a_warning_makes_the_answer_partial(server: FakePrometheus) -> None:
    put_gateway(server)
    server.fault = Fault.WARNINGS

    async with opened(server) as source:
        warned = await read(source)
        server.fault = Fault.NONE
        after = await read(source)

    assert warned.partial
    assert not after.partial


@pytest.mark.parametrize(
    "fault",
    [
        Fault.SLOW,
        Fault.DRIPPING,
        Fault.TRUNCATED,
        Fault.UNAVAILABLE,
        Fault.REFUSED,
        Fault.REDIRECT,
        Fault.NOT_JSON,
        Fault.OTHER_JSON,
        Fault.HUGE,
    ],
)
async def test_a_server_that_fails_is_unavailable_in_time_and_is_not_quoted(
    server: FakePrometheus, fault: Fault
) -> None:
    server.fault = fault
    began = time.monotonic()

    async with opened(server) as source:
        with pytest.raises(SourceUnavailable) as failed:
            await read(source)

    assert time.monotonic() - began < 2.5
    assert "secret words" not in str(failed.value)
    assert "127.0.0.1" not in str(failed.value)
    assert len(str(failed.value)) < 200


async def test_nobody_listening_is_unavailable() -> None:
    source = PrometheusSource(Catalog("http://127.0.0.1:1"))

    with pytest.raises(SourceUnavailable, match="no connection"):
        await read(source)

    await source.close()


async def test_a_passing_failure_is_tried_again_within_the_budget(server: FakePrometheus) -> None:
    put_gateway(server)
    server.fault = Fault.ONCE_UNAVAILABLE

    async with opened(server) as source:
        found = await read(source)

    assert found.canary.requests
    assert len(server.queries) == 2


async def test_a_refused_query_is_not_sent_again(server: FakePrometheus) -> None:
    server.fault = Fault.REFUSED

    async with opened(server) as source:
        with pytest.raises(SourceUnavailable, match="HTTP 400"):
            await read(source)

    assert len(server.queries) == 1


async def test_the_same_question_at_the_same_time_is_asked_once(server: FakePrometheus) -> None:
    put_gateway(server)
    server.hold = asyncio.Event()

    async with opened(server) as source:
        first, second = asyncio.create_task(read(source)), asyncio.create_task(read(source))
        await server.asked.wait()
        server.hold.set()
        answers = await asyncio.gather(first, second)

    assert answers[0] == answers[1]
    assert len(server.queries) == 1


async def test_who_stops_waiting_takes_the_answer_from_nobody(server: FakePrometheus) -> None:
    put_gateway(server)
    server.hold = asyncio.Event()

    async with opened(server) as source:
        first, second = asyncio.create_task(read(source)), asyncio.create_task(read(source))
        await server.asked.wait()
        first.cancel()
        server.hold.set()
        found = await second

    assert found.canary.requests


@pytest.mark.parametrize("offset", [-600, 600])
async def test_a_clock_ten_minutes_off_is_no_data(server: FakePrometheus, offset: int) -> None:
    put_gateway(server)
    server.date = email.utils.formatdate(time.time() + offset, usegmt=True)

    async with opened(server) as source:
        with pytest.raises(SourceUnavailable, match="clock"):
            await read(source)


@pytest.mark.parametrize("le", ["250", "250.0"])
async def test_slow_requests_are_all_less_those_within_the_bound(server: FakePrometheus, le: str) -> None:
    for cluster in (CANARY, STABLE):
        server.put(BUCKETS, [(NOW - 2, 60), (NOW - 1, 90)], envoy_cluster_name=cluster, le=le)
        server.put(BUCKETS, [(NOW - 2, 20), (NOW - 1, 30)], envoy_cluster_name=cluster, le="100")
        server.put(BUCKETS, [(NOW - 2, 64), (NOW - 1, 100)], envoy_cluster_name=cluster, le="+Inf")

    async with opened(server) as source:
        found = await read(source, LATENCY)

    assert [s.value for s in found.canary.requests] == [64.0, 100.0]
    assert [s.value for s in found.canary.bad] == [4.0, 10.0]
    assert not found.partial


async def test_a_bound_that_is_missing_is_no_data_and_not_no_slow_requests(server: FakePrometheus) -> None:
    for cluster in (CANARY, STABLE):
        server.put(BUCKETS, [(NOW - 1, 100)], envoy_cluster_name=cluster, le="+Inf")

    async with opened(server) as source:
        found = await read(source, LATENCY)

    assert found.canary.requests == ()
    assert found.partial


async def test_the_token_goes_with_the_query_and_the_environment_does_not(
    server: FakePrometheus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    put_gateway(server)
    credentials = Credentials(bearer_token=SecretRef(name="prometheus", key="token"))

    async with opened(server, credentials=credentials) as source:
        await read(source)

    assert server.headers[0]["Authorization"] == "Bearer s3cret"


async def test_a_token_that_is_missing_is_a_failure_and_nothing_is_sent(server: FakePrometheus) -> None:
    credentials = Credentials(bearer_token=SecretRef(name="prometheus", key="other"))

    async with opened(server, credentials=credentials) as source:
        with pytest.raises(SourceUnavailable, match="credentials are missing"):
            await read(source)

    assert server.queries == []


async def test_pods_are_told_apart_by_the_names_of_their_deployments(server: FakePrometheus) -> None:
    for pod in ("checkout-7d9f6c5b8-x2x4z", "checkout-canary-5b8f7d9c6-q7wzt", "checkout-db-0", "cart-7d9f6c5b8-x2x4z"):
        server.put("http_requests_total", [(NOW - 1, 3)], namespace="shop", pod=pod, code="200")
    server.put("http_requests_total", [(NOW - 1, 3)], namespace="other", pod="checkout-7d9f6c5b8-x2x4z", code="200")
    until = datetime.fromtimestamp(NOW, UTC)

    async with opened(server) as source:
        found = await source.read_pods(REF, canary_spec(), until - timedelta(seconds=10), until)

    assert len(found.stable.requests) == 1
    assert 'pod="checkout-7d9f6c5b8-x2x4z"' in found.stable.requests[0].series
    assert len(found.canary.requests) == 1
    assert 'pod="checkout-canary-5b8f7d9c6-q7wzt"' in found.canary.requests[0].series


async def test_a_usual_canary_has_no_problems(server: FakePrometheus) -> None:
    async with opened(server) as source:
        assert await source.check(REF, canary_spec()) == ()


async def test_an_unknown_source_is_named_with_those_that_exist(server: FakePrometheus) -> None:
    spec = canary_spec(analysis={"source": "elsewhere"})

    async with opened(server) as source:
        (problem,) = await source.check(REF, spec)
        with pytest.raises(NeedsUser):
            await source.scrape_interval(spec)

    assert problem.startswith("SourceMissing analysis.source: there is no MetricsSource elsewhere")
    assert "default" in problem


async def test_an_unknown_template_is_named_with_those_that_exist(server: FakePrometheus) -> None:
    spec = canary_spec(analysis={"metrics": [{"name": "errors", "errorRatio": {"template": "istio"}}]})

    async with opened(server) as source:
        (problem,) = await source.check(REF, spec)

    assert problem.startswith("TemplateMissing analysis.metrics[0].errorRatio.template: ")
    assert "gateway, pods" in problem


async def test_a_namespace_that_is_not_allowed_is_told_and_nothing_is_asked(server: FakePrometheus) -> None:
    async with opened(server, namespaces=("billing",)) as source:
        (problem,) = await source.check(REF, canary_spec())
        with pytest.raises(NeedsUser):
            await read(source)

    assert problem.startswith("SourceNotAllowed ")
    assert server.queries == []


async def test_a_threshold_between_two_bounds_is_told_with_the_bounds_there_are(server: FakePrometheus) -> None:
    for le in ("100", "250", "500", "+Inf"):
        server.put(BUCKETS, [(NOW, 1)], envoy_cluster_name=STABLE, le=le)
    metric = {"name": "latency", "latency": {"threshold": "300ms"}}

    async with opened(server) as source:
        (problem,) = await source.check(REF, canary_spec(analysis={"metrics": [metric]}))
        again = await source.check(REF, canary_spec(analysis={"metrics": [metric]}))

    assert problem.startswith("ThresholdNotABound analysis.metrics[0].latency.threshold: 300ms")
    assert "100ms, 250ms, 500ms" in problem
    assert again == (problem,)
    assert len(server.queries) == 1


async def test_a_server_that_is_down_is_nobodys_mistake(server: FakePrometheus) -> None:
    server.fault = Fault.UNAVAILABLE

    async with opened(server) as source:
        assert await source.check(REF, canary_spec()) == ()


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254", "http://[fe80::1]:9090", "http://[::ffff:169.254.169.254]/", "http://0.0.0.0"]
)
async def test_a_metadata_service_is_never_asked(url: str) -> None:
    source = PrometheusSource(Catalog(url))

    (problem,) = await source.check(REF, canary_spec())
    with pytest.raises(NeedsUser):
        await read(source)

    assert problem.startswith("SourceNotAllowed ")
