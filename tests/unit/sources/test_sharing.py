"""What canaries of a namespace share, and what they do not."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller.errors import SourceUnavailable
from controller.model.spec import CanarySpec, MetricsSourceSpec
from controller.ports import MetricSamples, Ref
from controller.sources.answers import Matrix, Series
from controller.sources.prometheus import PrometheusSource
from controller.sources.sharing import Arms, Sharing
from controller.sources.templates import ArmSelectors, parse_selector
from tests.fakes.prometheus import FakePrometheus, Fault

NOON = datetime.fromtimestamp(1_800_000_000, UTC)
REQUESTS = "envoy_cluster_upstream_rq_completed"


class Catalog:
    def __init__(self, url: str, every: float) -> None:
        self._spec = MetricsSourceSpec(url=url, timeout=timedelta(seconds=20), scrape_interval=timedelta(seconds=every))

    async def find(self, name: str) -> MetricsSourceSpec | None:
        return self._spec

    async def names(self) -> tuple[str, ...]:
        return ("default",)

    async def secret(self, name: str, key: str) -> str:
        raise AssertionError("no credentials here")


class Town:
    """Canaries of some namespaces, whose gateway is scraped at every tenth second."""

    def __init__(self, server: FakePrometheus, every: float = 10.0) -> None:
        self.server, self.every = server, every
        self.source = PrometheusSource(Catalog(server.url, every))

    def serve(self, namespace: str, name: str, value: Any = 1.0) -> None:
        for service in (name, f"{name}-canary"):
            at = [NOON.timestamp() + self.every * number for number in range(-6, 3)]
            cluster = f"{namespace}_{service}_80"
            self.server.put(REQUESTS, [(each, value) for each in at], envoy_cluster_name=cluster)

    async def read(self, namespace: str, name: str, after: float = 0.0) -> MetricSamples:
        spec = CanarySpec.model_validate(
            {
                "targetRef": {"name": name},
                "traffic": {"service": {"name": name, "port": 80}, "httpRoute": {"name": name}},
            }
        )
        until = NOON + timedelta(seconds=after)
        ref = Ref(namespace, name, "uid")
        return await self.source.read_samples(ref, spec, spec.analysis.metrics[0], until - timedelta(seconds=40), until)


async def test_canaries_of_a_namespace_share_a_query_and_each_gets_its_own_series() -> None:
    async with FakePrometheus() as server:
        town = Town(server)
        for name in ("cart", "shop"):
            town.serve("town", name)
        town.serve("port", "cart")

        cart, shop, _ = await asyncio.gather(
            town.read("town", "cart"), town.read("town", "shop"), town.read("port", "cart")
        )

    assert len(server.queries) == 2
    assert {one.series for one in cart.canary.requests} == {f'{REQUESTS}{{envoy_cluster_name="town_cart-canary_80"}}'}
    assert {one.series for one in shop.stable.requests} == {f'{REQUESTS}{{envoy_cluster_name="town_shop_80"}}'}


async def test_an_odd_value_of_one_canary_makes_no_other_doubtful() -> None:
    async with FakePrometheus() as server:
        town = Town(server)
        town.serve("town", "cart", "NaN")
        town.serve("town", "shop")

        cart, shop = await asyncio.gather(town.read("town", "cart"), town.read("town", "shop"))

    assert (len(server.queries), cart.partial, shop.partial) == (1, True, False)


async def test_nothing_is_asked_before_the_next_scrape() -> None:
    async with FakePrometheus() as server:
        town = Town(server)
        town.serve("town", "cart")

        counts = []
        for after in (0.5, 1.5, 9.5, 10.5, 11.5):
            found = await town.read("town", "cart", after)
            counts.append((len(server.queries), max(one.at for one in found.canary.requests) - NOON.timestamp()))

    assert counts == [(1, 0), (1, 0), (1, 0), (2, 10), (2, 10)]


async def test_who_is_looked_at_a_moment_later_was_asked_about_already() -> None:
    async with FakePrometheus() as server:
        town = Town(server)
        for name in ("cart", "shop"):
            town.serve("town", name)

        await town.read("town", "cart", 0.5)
        await town.read("town", "shop", 0.6)
        begun = len(server.queries)
        found = [await town.read("town", name, after) for after in (10.5, 20.5) for name in ("cart", "shop")]

    assert (begun, len(server.queries)) == (2, 4)
    assert [max(one.at for one in each.stable.requests) - NOON.timestamp() for each in found] == [10, 10, 20, 20]


async def test_whoever_is_asked_about_in_a_query_under_way_waits_for_it() -> None:
    sharing, asked, may_answer = Sharing(), asyncio.Queue[str](), asyncio.Event()
    cart, shop = ((ArmSelectors(parse_selector(f'up{{job="{job}"}}'), None),) * 2 for job in ("cart", "shop"))

    async def ask(query: str, since: float, until: float) -> Matrix:
        asked.put_nowait(query)
        await may_answer.wait()
        found = [Series({"__name__": "up", "job": job}, ((until // 10 * 10, 1.0),)) for job in ("cart", "shop")]
        return Matrix(tuple(found))

    async def read(arms: Arms, at: float) -> Matrix:
        return await sharing.read("town", arms, at - 40, at, every=10, ask=ask)

    may_answer.set()
    await asyncio.gather(read(cart, 100.5), read(shop, 100.5))
    may_answer.clear()
    await asked.get()

    first = asyncio.create_task(read(cart, 110.5))
    query = await asked.get()
    second = asyncio.create_task(read(shop, 110.6))
    may_answer.set()

    assert query == '{__name__="up",job=~"cart|shop"}'
    assert [one.series[0].newest for one in (await first, await second)] == [110, 110]
    assert asked.empty()


async def test_whose_rollout_is_over_is_not_asked_about_any_more() -> None:
    async with FakePrometheus() as server:
        town = Town(server)
        for name in ("cart", "shop"):
            town.serve("town", name)
            await town.read("town", name, -40)

        await town.read("town", "cart", 0.5)

    assert "town_shop" not in server.queries[-1]["query"]


async def test_an_arm_without_data_is_asked_about_each_time() -> None:
    async with FakePrometheus() as server:
        town = Town(server)

        for after in (0.5, 1.5):
            await town.read("town", "cart", after)

    assert len(server.queries) == 2


async def test_a_failed_query_fails_all_who_shared_it_and_nobody_after() -> None:
    async with FakePrometheus() as server:
        town = Town(server)
        town.serve("town", "cart")
        server.fault = Fault.REFUSED

        failed = await asyncio.gather(*(town.read("town", name) for name in ("cart", "shop")), return_exceptions=True)
        server.fault = Fault.NONE

        assert [type(each) for each in failed] == [SourceUnavailable, SourceUnavailable]
        assert (await town.read("town", "cart")).canary.requests


@pytest.mark.parametrize("count", [3, 200])
async def test_many_canaries_are_asked_about_in_queries_of_bearable_length(count: int) -> None:
    async with FakePrometheus() as server:
        town = Town(server)
        names = [f"some-quite-long-name-of-a-workload-{number}" for number in range(count)]
        for name in names:
            town.serve("town", name)

        found = await asyncio.gather(*(town.read("town", name) for name in names))

    assert all(one.canary.requests and one.stable.requests for one in found)
    assert max(len(query["query"]) for query in server.queries) < 6000
    assert len(server.queries) <= 1 + count // 8
