"""The source against a scripted server over real HTTP: whatever it says, the answer is data, none, or a failure."""

from __future__ import annotations

import asyncio
import base64
import email.utils
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import astuple
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from controller.analysis.increments import ArmSamples as Arm
from controller.analysis.increments import Cursor, Interval, Sample, Scrape, difference
from controller.errors import NeedsUser, NotFound, SourceUnavailable
from controller.model.spec import (
    CanarySpec,
    Credentials,
    GaugeRule,
    GaugeTemplate,
    LatencyRule,
    Metric,
    MetricsSourceSpec,
    SecretRef,
    Template,
)
from controller.ports import GaugeSamples, MetricSamples, Past, Ref
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
        self.sources = {"default": MetricsSourceSpec(url=url, **({"timeout": timedelta(seconds=10)} | changes))}
        self.secrets = {("prometheus", "token"): " s3cret \n"}

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


async def test_beside_a_fresh_baseline_that_is_what_is_read_and_the_past_is_stables(server: FakePrometheus) -> None:
    put_gateway(server)
    server.put(REQUESTS, [(NOW - 2, 7), (NOW - 1, 12)], envoy_cluster_name="shop_checkout-baseline_80")
    spec, until = canary_spec(analysis={"baseline": {"fresh": True}}), datetime.fromtimestamp(NOW, UTC)

    async with opened(server) as source:
        found = await source.read_samples(REF, spec, spec.analysis.metrics[0], until - timedelta(seconds=10), until)
        past = await source.read_past(REF, spec, until, traffic=timedelta(minutes=1), pods=timedelta(minutes=1))

    assert [s.value for s in found.canary.requests] == [10.0, 20.0]
    assert [s.value for s in found.stable.requests] == [7.0, 12.0]
    assert past.traffic["errors"].requests[-1].value == 2000.0


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


async def test_several_series_stay_apart_and_say_what_was_scraped(server: FakePrometheus) -> None:
    for gateway in ("a:8002", "b:8002"):
        server.put(REQUESTS, [(NOW - 1, 5)], envoy_cluster_name=CANARY, instance=gateway, job="envoy")

    async with opened(server) as source:
        found = await read(source)

    assert len({s.series for s in found.canary.requests}) == 2
    assert {s.target for s in found.canary.requests} == {"envoy/a:8002", "envoy/b:8002"}


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

    async with opened(server, timeout=timedelta(seconds=1)) as source:
        with pytest.raises(SourceUnavailable) as failed:
            await read(source)

    # The server would keep it for minutes.
    assert time.monotonic() - began < 30
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


NATIVE = Template(
    requests=f'{REQUESTS}{{envoy_cluster_name="$namespace_$service_$port"}}',
    errors=f'{CLASSES}{{envoy_cluster_name="$namespace_$service_$port"}}',
    latency='seconds{envoy_cluster_name="$namespace_$service_$port"}',
    native=True,
)
SLOW = Metric(name="latency", latency=LatencyRule(template="native", threshold=timedelta(milliseconds=250)))


def native(fast: int, slow: int, *, schema: int = 3, above: int = 2) -> dict[str, object]:
    """As the API writes one: so many below 0.125 s, and so many in the bucket that is `above` buckets over 0.25 s."""
    index = -2 * 2**schema + above
    low, high, below = (repr(2.0 ** (one / 2**schema)) for one in (index - 1, index, -3 * 2**schema - 1))
    buckets = [[3, "-1e-128", "1e-128", "0"], [0, below, "0.125", str(fast)], [0, low, high, str(slow)]]
    return {"count": str(fast + slow), "sum": "12.5", "buckets": buckets}


async def test_a_native_histogram_counts_the_canary_a_bucket_higher(server: FakePrometheus) -> None:
    """The bucket above 0.25 s is slow on stable and inside the margin on the canary; the next is slow on both."""
    for cluster in (CANARY, STABLE):
        server.put(
            "seconds", [(NOW - 2, native(60, 4, above=1)), (NOW - 1, native(90, 10))], envoy_cluster_name=cluster
        )

    async with opened(server, templates={"native": NATIVE}) as source:
        found = await read(source, SLOW)

    assert [(s.at, s.value) for s in found.canary.requests] == [(NOW - 2, 64.0), (NOW - 1, 100.0)]
    assert [s.value for s in found.stable.bad] == [4.0, 10.0]
    assert [s.value for s in found.canary.bad] == [0.0, 10.0]
    assert not found.partial
    assert len(server.queries) == 1


async def test_arms_of_different_resolution_are_read_at_the_coarser(server: FakePrometheus) -> None:
    server.put("seconds", [(NOW - 1, native(90, 10, schema=3, above=2))], envoy_cluster_name=CANARY)
    server.put("seconds", [(NOW - 1, native(90, 10, schema=0, above=1))], envoy_cluster_name=STABLE)

    async with opened(server, templates={"native": NATIVE}) as source:
        found = await read(source, SLOW)

    assert [s.value for s in found.stable.bad] == [10.0], "from 0.25 to 0.5"
    assert [s.value for s in found.canary.bad] == [0.0], "a bucket more is an octave here"


async def test_a_resolution_that_falls_counts_nothing_twice(server: FakePrometheus) -> None:
    """Clients halve it when they hold too many buckets; both bounds are then others than before."""
    points = [(NOW - 3, native(90, 100, above=3)), (NOW - 2, native(90, 110, above=3))]
    points.append((NOW - 1, native(99, 115, schema=0, above=1)))
    for cluster in (CANARY, STABLE):
        server.put("seconds", points, envoy_cluster_name=cluster)

    async with opened(server, templates={"native": NATIVE}, scrape_interval=timedelta(seconds=1)) as source:
        cursor, counted = Cursor(since=NOW - 3), []
        for at in (NOW - 2, NOW - 1):
            until = datetime.fromtimestamp(at, UTC)
            found = await source.read_samples(REF, canary_spec(), SLOW, until - timedelta(seconds=10), until)
            arms = tuple(
                Arm([Sample(*astuple(one)) for one in of.requests], [Sample(*astuple(one)) for one in of.bad])
                for of in (found.canary, found.stable)
            )
            cursor, interval = difference(cursor, Scrape({"latency": (arms[0], arms[1])}))
            assert isinstance(interval, Interval)
            counted.append(interval.metrics["latency"].baseline)

    assert [(one.requests, one.errors) for one in counted] == [(10.0, 10.0), (14.0, 5.0)]


async def test_several_bounds_of_a_native_histogram_are_read_at_once(server: FakePrometheus) -> None:
    for cluster in (CANARY, STABLE):
        server.put("seconds", [(NOW - 1, native(90, 10))], envoy_cluster_name=cluster)
    several = LatencyRule(
        template="native", threshold=timedelta(milliseconds=300), also=(timedelta(milliseconds=7), timedelta(seconds=2))
    )

    async with opened(server, templates={"native": NATIVE}) as source:
        found = await read(source, Metric(name="latency", latency=several))

    assert [[s.value for s in of] for of in found.stable.slower] == [[100.0], [0.0], [0.0]]
    assert [s.value for s in found.stable.bad] == [0.0]


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({"count": "9", "sum": "1", "buckets": [[0, "0.1", "0.25", "9"]]}, id="bounds of its own"),
        pytest.param({"count": "NaN", "sum": "1"}, id="a count that is no number"),
        pytest.param({"sum": "1"}, id="no count"),
        pytest.param({"count": "9", "buckets": [[0, "0.25", "0.5"]]}, id="a bucket without a count"),
        pytest.param({"count": "9", "buckets": [[0, "0.25", "0.5", "-9"]]}, id="a count below zero"),
        pytest.param({"count": "9", "buckets": 7}, id="no buckets"),
    ],
)
async def test_a_native_histogram_that_cannot_be_read_is_no_data(
    server: FakePrometheus, broken: dict[str, object]
) -> None:
    for cluster in (CANARY, STABLE):
        server.put("seconds", [(NOW - 1, broken)], envoy_cluster_name=cluster)

    async with opened(server, templates={"native": NATIVE}) as source:
        found = await read(source, SLOW)

    assert found.canary.requests == ()
    assert found.partial


async def test_an_empty_native_histogram_is_no_requests_yet(server: FakePrometheus) -> None:
    empty: dict[str, object] = {"count": "0", "sum": "0"}
    for cluster in (CANARY, STABLE):
        server.put("seconds", [(NOW - 2, empty), (NOW - 1, native(90, 10))], envoy_cluster_name=cluster)

    async with opened(server, templates={"native": NATIVE}) as source:
        found = await read(source, SLOW)

    assert [s.value for s in found.canary.requests] == [0.0, 100.0]
    assert [s.value for s in found.canary.bad] == [0.0, 10.0]
    assert not found.partial


async def test_a_template_that_is_native_and_reads_none_is_told(server: FakePrometheus) -> None:
    spec = canary_spec(analysis={"metrics": [SLOW.model_dump(by_alias=True, exclude_none=True)]})
    async with opened(server, templates={"native": NATIVE}) as source:
        assert await source.check(REF, spec) == (), "nobody has scraped it yet"
    server.put("seconds", [(time.time() - 1, 12.0)], envoy_cluster_name=STABLE)

    async with opened(server, templates={"native": NATIVE}) as source:
        (problem,) = await source.check(REF, spec)

    assert problem.startswith(
        "TemplateInvalid analysis.metrics[0].latency.template: native is true, and seconds holds no"
    )
    server.series.clear()
    server.put("seconds", [(time.time() - 1, native(1, 1))], envoy_cluster_name=STABLE)
    async with opened(server, templates={"native": NATIVE}) as source:
        assert await source.check(REF, spec) == (), "any threshold will do"


async def test_what_a_native_histogram_held_before_a_rollout_is_read_in_minutes(server: FakePrometheus) -> None:
    points = [(NOW - 600 + 15 * number, native(9 * number, number)) for number in range(40)]
    server.put("seconds", points, envoy_cluster_name=STABLE)
    spec = canary_spec(analysis={"metrics": [SLOW.model_dump(by_alias=True, exclude_none=True)]})

    async with opened(server, templates={"native": NATIVE}) as source:
        past = await source.read_past(
            REF, spec, datetime.fromtimestamp(NOW, UTC), traffic=timedelta(minutes=8), pods=timedelta(minutes=8)
        )

    assert past.step == 60.0
    assert [s.value for s in past.traffic["latency"].bad] == [float(4 * minute) for minute in range(3, 10)] + [39.0]


async def test_the_token_goes_with_the_query_and_the_environment_does_not(
    server: FakePrometheus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    put_gateway(server)
    credentials = Credentials(bearer_token=SecretRef(name="prometheus", key="token"))

    async with opened(server, credentials=credentials) as source:
        await read(source)

    assert server.headers[0]["Authorization"] == "Bearer s3cret", "without the blanks and the line's end of its file"


async def test_name_and_password_go_with_the_query_and_so_do_the_headers_of_a_tenant(server: FakePrometheus) -> None:
    put_gateway(server)
    credentials = {
        "basicAuth": {"username": {"name": "login", "key": "user"}, "password": {"name": "login", "key": "password"}}
    }
    changes = {"credentials": credentials, "headers": {"X-Scope-OrgID": "team-a|team-b"}}
    catalog = Catalog(server.url, **changes)
    catalog.secrets |= {("login", "user"): "serin\n", ("login", "password"): "pässword: open \n"}
    source = PrometheusSource(catalog)
    try:
        await read(source)
    finally:
        await source.close()

    sent = server.headers[0]
    kind, _, pair = sent["Authorization"].partition(" ")
    assert (kind, base64.b64decode(pair).decode()) == ("Basic", "serin:pässword: open ")
    assert sent["X-Scope-OrgID"] == "team-a|team-b"


@pytest.mark.parametrize(
    ("changes", "needle"),
    [
        ({"credentials": {}}, "exactly one of bearerToken and basicAuth"),
        ({"headers": {"Authorization": "Bearer x"}}, "who asks is told in spec.credentials"),
        ({"headers": {"host": "elsewhere"}}, "not for spec.headers"),
        ({"headers": {"X-Tenant": "a\r\nX-More: b"}}, "headers.X-Tenant"),
        ({"headers": {"X Tenant": "a"}}, "headers.X Tenant"),
    ],
)
def test_what_cannot_be_sent_is_named(changes: dict[str, Any], needle: str) -> None:
    with pytest.raises(ValidationError, match=needle):
        MetricsSourceSpec.model_validate({"url": "http://prometheus:9090"} | changes)


async def test_a_token_that_is_missing_is_a_failure_and_nothing_is_sent(server: FakePrometheus) -> None:
    credentials = Credentials(bearer_token=SecretRef(name="prometheus", key="other"))

    async with opened(server, credentials=credentials) as source:
        with pytest.raises(SourceUnavailable, match="credentials are missing"):
            await read(source)

    assert server.queries == []


async def past(source: PrometheusSource, spec: CanarySpec | None = None) -> Past:
    until = datetime.fromtimestamp(NOW, UTC)
    return await source.read_past(
        REF, spec or canary_spec(), until, traffic=timedelta(minutes=30), pods=timedelta(hours=2)
    )


async def test_the_past_of_pods_is_told_apart_by_the_names_of_their_deployments(server: FakePrometheus) -> None:
    every = [NOW - 600 + 5 * number for number in range(121)]
    for pod in ("checkout-7d9f6c5b8-x2x4z", "checkout-canary-5b8f7d9c6-q7wzt", "checkout-db-0", "cart-7d9f6c5b8-x2x4z"):
        for code, rate in (("200", 2), ("404", 1), ("500", 1)):
            points = [(at, rate * (at - every[0])) for at in every]
            server.put("http_requests_total", points, namespace="shop", pod=pod, code=code)
    server.put("http_requests_total", [(NOW - 1, 3)], namespace="other", pod="checkout-7d9f6c5b8-x2x4z", code="200")

    async with opened(server) as source:
        found = await past(source)

    assert list(found.pods) == ["checkout-7d9f6c5b8-x2x4z"]
    counted = found.pods["checkout-7d9f6c5b8-x2x4z"]
    assert [one.at % found.pods_step for one in counted.requests] == [0.0] * 11, "coarse, at whole steps"
    first, last = counted.requests[0], counted.requests[-1]
    assert (last.value - first.value) / (last.at - first.at) == 4.0, "all codes of a pod together"
    assert (counted.bad[-1].value - counted.bad[0].value) / (last.at - first.at) == 1.0


async def test_the_past_of_traffic_is_stables_as_it_will_be_judged(server: FakePrometheus) -> None:
    every = [NOW - 600 + 5 * number for number in range(121)]
    for cluster, rate in ((STABLE, 100.0), (CANARY, 7.0)):
        points = [(at, rate * (at - every[0])) for at in every]
        server.put(REQUESTS, points, envoy_cluster_name=cluster)
        server.put(CLASSES, points, envoy_cluster_name=cluster, envoy_response_code_class="5")
        for le in ("50", "250", "+Inf"):
            server.put(BUCKETS, points, envoy_cluster_name=cluster, le=le)

    async with opened(server) as source:
        found = await past(source)
        named = await past(source, canary_spec(analysis={"metrics": [LATENCY.model_dump(mode="json")]}))

    assert named.buckets == {}, "who names a threshold has it"
    assert set(found.buckets["latency"]) == {0.05, 0.25, math.inf}
    first, *_, last = found.buckets["latency"][0.05]
    assert (last.value - first.value) / (last.at - first.at) == 100.0
    assert set(found.traffic) == {"errors", "latency"}
    requests = found.traffic["errors"].requests
    assert {one.series for one in requests} == {f'{REQUESTS}{{envoy_cluster_name="{STABLE}"}}'}
    assert requests[1].at - requests[0].at == found.step
    assert (requests[-1].value - requests[0].value) / (requests[-1].at - requests[0].at) == 100.0
    assert found.pods == {}, "no pod exports counters of its own"
    assert len(server.queries) == 8


MEMORY = Metric(name="memory", gauge=GaugeRule())
CPU = Metric(name="cpu", gauge=GaugeRule(template="cpu", per_request=True))


async def gauge(source: PrometheusSource, metric: Metric) -> GaugeSamples:
    until = datetime.fromtimestamp(NOW, UTC)
    return await source.read_gauge(REF, canary_spec(), metric, until - timedelta(seconds=60), until, step=15.0)


async def test_a_gauge_is_read_by_pod_and_the_containers_of_a_pod_are_added_up(server: FakePrometheus) -> None:
    every = [NOW - 60 + 5 * number for number in range(13)]
    for pod, size in (("checkout-7d9f6c5b8-x2x4z", 100.0), ("checkout-canary-5b8f7d9c6-q7wzt", 300.0)):
        for container, part in (("app", 0.75), ("sidecar", 0.25), ("", 1.0)):
            server.put(
                *("container_memory_working_set_bytes", [(at, size * part) for at in every]),
                namespace="shop", pod=pod, container=container,
            )  # fmt: skip

    async with opened(server) as source:
        found = await gauge(source, MEMORY)

    instants = [at for at in every if at % 15 == 0 and at > NOW - 60]
    assert found.stable == {"checkout-7d9f6c5b8-x2x4z": tuple((at, 100.0) for at in instants)}
    assert found.canary == {"checkout-canary-5b8f7d9c6-q7wzt": tuple((at, 300.0) for at in instants)}


async def test_a_counter_is_read_as_its_increase_a_second_and_divided_by_the_pods_own_requests(
    server: FakePrometheus,
) -> None:
    every = [NOW - 180 + 5 * number for number in range(37)]
    for pod, seconds, requests in (("checkout-7d9f6c5b8-x2x4z", 0.5, 10.0), ("checkout-7d9f6c5b8-x2x5z", 0.5, 0.0)):
        labels = {"namespace": "shop", "pod": pod}
        used = [(at, seconds * (at - every[0])) for at in every]
        server.put("container_cpu_usage_seconds_total", used, container="app", **labels)
        server.put("http_requests_total", [(at, requests * (at - every[0])) for at in every], code="200", **labels)

    async with opened(server) as source:
        found = await gauge(source, CPU)

    (values,) = found.stable.values()
    assert {round(value, 6) for _, value in values} == {0.05}, "a pod without requests has no value per request"
    assert found.canary == {}


async def test_memory_is_read_as_a_share_of_its_pods_limit_and_not_at_all_where_there_is_none(
    server: FakePrometheus,
) -> None:
    """A revision that uses twice as much, and is given twice as much, is no nearer to its end."""
    usage, limits = "container_memory_working_set_bytes", "container_spec_memory_limit_bytes"
    for pod, used, limit in (
        ("checkout-canary-6b8c4d7f9-x2x2x", 200.0, 800.0),
        ("checkout-6b8c4d7f9-q4q4q", 100.0, 400.0),
        ("checkout-6b8c4d7f9-z5z5z", 100.0, 0.0),
    ):
        for name, value in ((usage, used), (limits, limit)):
            server.put(name, [(NOW - 50, value)], namespace="shop", pod=pod, container="app")

    async with opened(server) as source:
        found = await gauge(source, Metric(name="memory", gauge=GaugeRule(template="memory-of-limit")))

    assert {pod: values[-1][1] for pod, values in found.canary.items()} == {"checkout-canary-6b8c4d7f9-x2x2x": 0.25}
    assert {pod: values[-1][1] for pod, values in found.stable.items()} == {"checkout-6b8c4d7f9-q4q4q": 0.25}


async def test_a_gauge_that_the_source_does_not_have_is_named_with_those_that_exist(server: FakePrometheus) -> None:
    metrics = [{"name": "errors", "errorRatio": {}}, {"name": "heap", "gauge": {"template": "heap"}}]
    both = GaugeTemplate(value='heap_bytes{namespace="$namespace"}')

    async with opened(server) as source:
        (missing,) = await source.check(REF, canary_spec(analysis={"metrics": metrics}))
    async with opened(server, gauges={"heap": both}) as source:
        (same,) = await source.check(REF, canary_spec(analysis={"metrics": metrics}))

    assert missing.startswith("TemplateMissing analysis.metrics[1].gauge.template: the source has no gauge heap")
    assert missing.endswith("those that exist: cpu, memory, memory-of-limit")
    assert same.startswith(
        "TemplateInvalid analysis.metrics[1].gauge.template: gauge heap: value: reads the same series"
    )


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


def put_buckets(server: FakePrometheus, *bounds: str) -> None:
    """Ten requests a second of each arm; at each bound more of them are fast enough."""
    for cluster in (CANARY, STABLE):
        for number, le in enumerate((*bounds, "+Inf"), start=1):
            fast = 10.0 * number / (len(bounds) + 1)
            points = [(NOW - 2, fast), (NOW - 1, 2 * fast)]
            server.put(BUCKETS, points, envoy_cluster_name=cluster, le=le)


SEVERAL = Metric(
    name="latency",
    latency=LatencyRule(
        threshold=timedelta(milliseconds=250), also=(timedelta(milliseconds=50), timedelta(milliseconds=1000))
    ),
)


async def test_a_latency_at_several_bounds_is_one_query_and_the_lowest_bound_comes_first(
    server: FakePrometheus,
) -> None:
    put_buckets(server, "50", "250", "1000")

    async with opened(server) as source:
        found = await read(source, SEVERAL)

    assert len(server.queries) == 1
    for arm in (found.canary, found.stable):
        assert [one.value for one in arm.requests] == [10.0, 20.0]
        assert [one.value for one in arm.bad] == [5.0, 10.0], "slower than the threshold"
        assert [[one.value for one in bound] for bound in arm.slower] == [[7.5, 15.0], [5.0, 10.0], [2.5, 5.0]]
    assert not found.partial


async def test_a_latency_one_of_whose_bounds_is_missing_is_no_data(server: FakePrometheus) -> None:
    put_buckets(server, "50", "250")

    async with opened(server) as source:
        found = await read(source, SEVERAL)
        (problem,) = await source.check(REF, canary_spec(analysis={"metrics": [SEVERAL.model_dump(mode="json")]}))

    assert found.partial
    assert found.canary.requests == ()
    assert problem.startswith("ThresholdNotABound analysis.metrics[0].latency.also: 1s is not a bound")


async def test_the_bounds_to_choose_from_are_told_as_a_canary_names_them(server: FakePrometheus) -> None:
    put_buckets(server, "0.5", "250", "2500", "3600000")

    async with opened(server) as source:
        problems = await source.check(REF, canary_spec(analysis={"metrics": [SEVERAL.model_dump(mode="json")]}))

    assert problems[0].endswith("is not a bound of the histogram: write one of 250ms, 2s500ms")


async def test_errors_that_no_series_could_count_are_no_pass(server: FakePrometheus) -> None:
    """It is dropped where it is scraped, or its label has another name: no failed request would ever be seen."""
    seen = time.time() - 1
    requests = server.put(REQUESTS, [(seen, 0)], envoy_cluster_name=STABLE)
    server.put(CLASSES, [(seen, 5)], envoy_cluster_name=STABLE, code="2xx")
    errors = canary_spec(analysis={"metrics": [{"name": "errors", "errorRatio": {}}]})

    async def problems() -> tuple[str, ...]:
        async with opened(server) as source:
            return await source.check(REF, errors)

    assert await problems() == (), "without a request nothing is missing"
    requests.points = [(seen, 5)]
    (problem,) = await problems()
    assert problem.startswith(f"ErrorsNotCounted analysis.metrics[0].errorRatio: {REQUESTS}{{")
    assert f'there is no series {CLASSES}{{envoy_cluster_name="{STABLE}",envoy_response_code_class!=""}}' in problem
    server.put(CLASSES, [(seen, 5)], envoy_cluster_name=STABLE, envoy_response_code_class="2")
    assert await problems() == (), "none has failed yet"


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


async def test_a_latency_without_a_threshold_is_no_problem_whatever_the_bounds_are(server: FakePrometheus) -> None:
    server.put(BUCKETS, [(NOW, 1)], envoy_cluster_name=STABLE, le="100")

    async with opened(server) as source:
        assert await source.check(REF, canary_spec(analysis={"metrics": [{"name": "slow", "latency": {}}]})) == ()


async def test_a_server_that_is_down_is_nobodys_mistake_and_hides_none(server: FakePrometheus) -> None:
    server.fault = Fault.UNAVAILABLE
    misspelt = {"name": "more", "errorRatio": {"template": "istio"}}
    both = canary_spec(analysis={"metrics": [{"name": "errors", "errorRatio": {}}, misspelt]})

    async with opened(server) as source:
        with pytest.raises(SourceUnavailable):
            await source.check(REF, canary_spec())
        assert await source.check(REF, canary_spec(), live=False) == ()
        (problem,) = await source.check(REF, both)

    assert problem.startswith("TemplateMissing analysis.metrics[1].")


async def test_a_source_that_was_edited_is_asked_again_at_once(server: FakePrometheus) -> None:
    for le in ("100", "250", "+Inf"):
        server.put(BUCKETS, [(time.time() - 1, 1)], envoy_cluster_name=STABLE, le=le)
    slow = canary_spec(analysis={"metrics": [{"name": "latency", "latency": {"threshold": "300ms"}}]})
    catalog = Catalog(server.url)
    source = PrometheusSource(catalog)

    assert len(await source.check(REF, slow)) == 1
    server.put(BUCKETS, [(time.time() - 1, 1)], envoy_cluster_name=STABLE, le="300")
    assert len(await source.check(REF, slow)) == 1, "asked a moment ago"
    catalog.sources["default"] = catalog.sources["default"].model_copy(update={"timeout": timedelta(seconds=9)})
    assert await source.check(REF, slow) == ()

    await source.close()


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254",
        "http://[fe80::1]:9090",
        "http://[::ffff:169.254.169.254]/",
        "http://0.0.0.0",
        "http://[fd00:ec2::254]",
    ],
)
async def test_a_metadata_service_is_never_asked(url: str) -> None:
    source = PrometheusSource(Catalog(url))

    (problem,) = await source.check(REF, canary_spec())
    with pytest.raises(NeedsUser):
        await read(source)

    assert problem.startswith("SourceNotAllowed ")
