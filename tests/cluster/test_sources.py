"""The source against the real chain: Envoy behind Contour, scraped by Prometheus every second."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from controller.model.spec import Analysis, CanarySpec, LatencyRule, Metric, MetricsSourceSpec, Template
from controller.ports import MetricSamples, RawSample, Ref
from controller.sources.prometheus import PrometheusSource
from controller.sources.templates import BUILT_IN
from tests.cluster.conftest import MakeShop, RunningCluster, Shop
from tests.cluster.objects import apply, eventually, kubectl, shop_deployment, shop_route, shop_service

POD = BUILT_IN["pods"].requests.removeprefix("http_requests_total").strip("{}")
NATIVE = Template(
    requests=BUILT_IN["pods"].requests,
    errors=BUILT_IN["pods"].errors,
    latency=f"http_native_seconds{{{POD}}}",
    native=True,
)


class Catalog:
    """The cluster's Prometheus, which the shop's pods tell under the names that the built-in `pods` reads."""

    def __init__(self, url: str) -> None:
        self._source = MetricsSourceSpec(url=url, scrape_interval=timedelta(seconds=1), templates={"native": NATIVE})

    async def find(self, name: str) -> MetricsSourceSpec | None:
        return self._source if name == "default" else None

    async def names(self) -> tuple[str, ...]:
        return ("default",)

    async def secret(self, name: str, key: str) -> str:
        raise AssertionError("no credentials here")


def half_on_canary(shop: Shop, env: dict[str, str]) -> None:
    """A canary beside the shop, behind half of its route, made by hand."""
    name, namespace = f"{shop.name}-canary", shop.namespace
    apply([shop_deployment(name, namespace, "v2", 1, env), shop_service(name, namespace)])
    # Before the pod is ready, Envoy's own 503s would count as the canary's failures, as they should.
    kubectl("rollout", "status", f"deployment/{name}", "-n", namespace, "--timeout=180s")
    apply([shop_route(shop.name, namespace, shop.host, {shop.name: 50, name: 50})])
    eventually(lambda: "v2" in {shop.ask()[1] for _ in range(8)})


def spec_of(shop: Shop, threshold: str = "250ms") -> CanarySpec:
    return CanarySpec.model_validate(
        {
            "targetRef": {"name": shop.name},
            "traffic": {"service": {"name": shop.name, "port": 80}, "httpRoute": {"name": shop.name}},
            "analysis": {"metrics": [{"name": "latency", "latency": {"threshold": threshold}}]},
        }
    )


def last(samples: Sequence[RawSample]) -> float:
    """Where the counters stand, over all series."""
    return sum({sample.series: sample.value for sample in samples}.values())


def pods_of(samples: Sequence[RawSample]) -> set[str]:
    """Names of the pods that samples come from."""
    return {re.findall(r'pod="([^"]*)"', sample.series)[0] for sample in samples}


def read(cluster: RunningCluster, shop: Shop, metric: Metric, until: Callable[[MetricSamples], bool]) -> MetricSamples:
    """Ask until the answer shows what was sent, some minutes at most."""

    async def ask() -> MetricSamples:
        source = PrometheusSource(Catalog(cluster.prometheus))
        ref = Ref(shop.namespace, shop.name, "uid")
        deadline = time.monotonic() + 180
        try:
            while True:
                now = datetime.now(UTC)
                found = await source.read_samples(ref, spec_of(shop), metric, now - timedelta(seconds=60), now)
                if until(found) or time.monotonic() > deadline:
                    return found
                await asyncio.sleep(0.2)
        finally:
            await source.close()

    return asyncio.run(ask())


def test_requests_and_failures_of_both_arms_are_what_the_client_saw(cluster: RunningCluster, shop: MakeShop) -> None:
    served = shop("v1")
    half_on_canary(served, {"SHOP_FAIL_RATIO": "1", "SHOP_FAIL_PATH": "/checkout"})
    began = time.time()
    answers = [served.ask("/checkout") for _ in range(60)]
    failed = sum(status == 500 for status, _ in answers)

    found = read(
        cluster,
        served,
        Metric.model_validate({"name": "errors", "errorRatio": {}}),
        lambda f: last(f.canary.bad) >= failed,
    )

    assert last(found.canary.bad) == failed > 0
    # What stable failed with was before its own pods were ready: nothing is added while the canary fails.
    assert len({sample.value for sample in found.stable.bad if sample.at > began}) <= 1
    assert last(found.canary.requests) > failed
    assert last(found.stable.requests) > 0
    assert not found.partial
    assert {sample.series for sample in found.canary.requests}.isdisjoint(
        sample.series for sample in found.stable.requests
    )


def test_slow_requests_are_seen_at_the_gateway(cluster: RunningCluster, shop: MakeShop) -> None:
    served = shop("v1")
    half_on_canary(served, {"SHOP_LATENCY": "0.3"})
    slow = sum(revision == "v2" for _, revision in (served.ask() for _ in range(20)))
    latency = Metric(name="latency", latency=LatencyRule(threshold=timedelta(milliseconds=250)))

    found = read(cluster, served, latency, lambda f: last(f.canary.bad) >= slow)

    assert last(found.canary.bad) >= slow > 0
    assert last(found.canary.requests) == last(found.canary.bad)
    # Some of stable's may be slow too, on a busy machine.
    assert last(found.stable.bad) <= last(found.stable.requests) * 0.5
    assert not found.partial


def test_the_buckets_of_what_stable_served_are_there_to_choose_bounds_from(
    cluster: RunningCluster, shop: MakeShop
) -> None:
    served = shop("v1")
    ref = Ref(served.namespace, served.name, "uid")
    wanted = spec_of(served).model_copy(
        update={"analysis": Analysis(metrics=(Metric(name="slow", latency=LatencyRule()),))}
    )
    sent = len([served.ask() for _ in range(30)])

    async def past() -> dict[float, float]:
        source = PrometheusSource(Catalog(cluster.prometheus))
        try:
            span = timedelta(minutes=5)
            seen = await source.read_past(ref, wanted, datetime.now(UTC), traffic=span, pods=span)
        finally:
            await source.close()
        return {bound: samples[-1].value for bound, samples in sorted(seen.buckets["slow"].items()) if samples}

    # Values at whole minutes: the first of them after the requests.
    found = eventually(lambda: seen if (seen := asyncio.run(past())).get(math.inf, 0.0) >= sent else None)

    assert {0.025, 0.25, 1.0} < set(found)
    assert list(found.values()) == sorted(found.values())
    assert found[60.0] >= sent


def test_native_histograms_of_the_pods_are_read_as_they_are_stored(cluster: RunningCluster, shop: MakeShop) -> None:
    """Any threshold will do: 170 ms is no bound, and what takes 300 ms is slower than it."""
    served = shop("v1", replicas=2, env={"SHOP_NATIVE": "1"})
    half_on_canary(served, {"SHOP_NATIVE": "1", "SHOP_LATENCY": "0.3"})
    answers = [served.ask() for _ in range(30)]
    slow = sum(revision == "v2" for _, revision in answers)
    rule = LatencyRule(template="native", threshold=timedelta(milliseconds=170), also=(timedelta(seconds=60),))
    latency = Metric(name="latency", latency=rule)

    def all_scraped(found: MetricSamples) -> bool:
        both = len(pods_of(found.stable.requests)) == 2
        return both and last(found.canary.requests) >= slow and last(found.stable.requests) >= 30 - slow

    found = read(cluster, served, latency, all_scraped)

    assert all_scraped(found)
    assert last(found.canary.requests) == last(found.canary.bad) >= slow > 0
    assert [last(of) for of in found.canary.slower] == [last(found.canary.bad), 0.0]
    # Some of stable's may be slow too, on a busy machine.
    assert last(found.stable.bad) <= last(found.stable.requests) * 0.5
    assert not found.partial


def test_pods_count_for_themselves_and_are_sorted_by_arm(cluster: RunningCluster, shop: MakeShop) -> None:
    served = shop("v1", replicas=2)
    half_on_canary(served, {})
    for _ in range(20):
        served.ask()

    pods = Metric.model_validate({"name": "pods", "errorRatio": {"template": "pods"}})

    def all_seen(found: MetricSamples) -> bool:
        return len(pods_of(found.stable.requests)) == 2 and len(pods_of(found.canary.requests)) == 1

    found = read(cluster, served, pods, all_seen)

    assert all_seen(found)
    assert pods_of(found.canary.requests).isdisjoint(pods_of(found.stable.requests))


def test_a_threshold_between_two_bounds_of_envoy_is_told(cluster: RunningCluster, shop: MakeShop) -> None:
    served = shop("v1")
    ref = Ref(served.namespace, served.name, "uid")
    served.ask()

    async def problems(threshold: str) -> tuple[str, ...]:
        source = PrometheusSource(Catalog(cluster.prometheus))
        try:
            return await source.check(ref, spec_of(served, threshold))
        finally:
            await source.close()

    (problem,) = eventually(lambda: asyncio.run(problems("300ms")))

    assert problem.startswith("ThresholdNotABound ")
    assert "250ms" in problem
    assert asyncio.run(problems("250ms")) == ()
