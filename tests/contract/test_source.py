"""What every metric source promises the loop, whichever server stands behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from controller.errors import SourceUnavailable
from controller.model.spec import CanarySpec, MetricsSourceSpec
from controller.ports import MetricSamples, MetricSource, RawSample, Ref
from controller.sources.prometheus import PrometheusSource
from tests.fakes.prometheus import FakePrometheus, Fault

REF = Ref("shop", "checkout", "uid-1")
UNTIL = datetime.fromtimestamp(1_800_000_000, UTC)
SPEC = CanarySpec.model_validate(
    {
        "targetRef": {"name": "checkout"},
        "traffic": {"service": {"name": "checkout", "port": 80}, "httpRoute": {"name": "checkout"}},
    }
)
REQUESTS = "envoy_cluster_upstream_rq_completed"


class Staged:
    """A source and the hand that sets what it sees: `count` requests a second, by arm, for the last minute."""

    def __init__(self, source: MetricSource, server: FakePrometheus) -> None:
        self.source, self._server = source, server

    def serve(self, arm: str, per_second: float) -> None:
        """This arm has been served at a steady rate, one scrape a second."""
        service = "checkout-canary" if arm == "canary" else "checkout"
        now = UNTIL.timestamp()
        points = [(now - 60 + second, per_second * second) for second in range(61)]
        self._server.put(REQUESTS, points, envoy_cluster_name=f"shop_{service}_80")

    def go_down(self) -> None:
        """The server stops answering."""
        self._server.fault = Fault.UNAVAILABLE

    def answer_in_part(self) -> None:
        """Part of the server's data cannot be had."""
        self._server.fault = Fault.WARNINGS

    async def read(self, seconds: float = 30) -> MetricSamples:
        """What the loop would read of the first metric."""
        return await self.source.read_samples(
            REF, SPEC, SPEC.analysis.metrics[0], UNTIL - timedelta(seconds=seconds), UNTIL
        )


class _OneSource:
    def __init__(self, url: str) -> None:
        self._spec = MetricsSourceSpec(url=url, timeout=timedelta(seconds=10), scrape_interval=timedelta(seconds=1))

    async def find(self, name: str) -> MetricsSourceSpec | None:
        return self._spec if name == "default" else None

    async def names(self) -> tuple[str, ...]:
        return ("default",)

    async def secret(self, name: str, key: str) -> str:
        raise AssertionError("no credentials here")


@pytest.fixture(params=["prometheus"])
async def staged(request: Any) -> AsyncIterator[Staged]:
    async with FakePrometheus() as server:
        source = PrometheusSource(_OneSource(server.url))
        yield Staged(source, server)
        await source.close()


async def test_samples_are_oldest_first_and_inside_the_window(staged: Staged) -> None:
    staged.serve("canary", 5)
    staged.serve("stable", 95)

    found = await staged.read(seconds=30)

    for samples in (found.canary.requests, found.stable.requests):
        times = [sample.at for sample in samples]
        assert times == sorted(times)
        assert len(times) == 30
        assert UNTIL.timestamp() - 30 < times[0]
        assert times[-1] <= UNTIL.timestamp()


async def test_windows_that_follow_each_other_hold_every_sample_once(staged: Staged) -> None:
    staged.serve("canary", 5)
    metric = SPEC.analysis.metrics[0]
    cuts = [UNTIL - timedelta(seconds=each) for each in (30, 20.5, 7, 0)]

    parts: list[RawSample] = []
    for since, until in pairwise(cuts):
        parts += (await staged.source.read_samples(REF, SPEC, metric, since, until)).canary.requests

    assert tuple(parts) == (await staged.read(seconds=30)).canary.requests


async def test_reading_again_brings_the_same(staged: Staged) -> None:
    staged.serve("stable", 95)

    assert await staged.read() == await staged.read()


async def test_no_data_is_empty_and_no_failure(staged: Staged) -> None:
    found = await staged.read()

    assert found.canary.requests == found.stable.requests == ()
    assert not found.partial


async def test_the_arms_are_never_mixed_up(staged: Staged) -> None:
    staged.serve("canary", 5)
    staged.serve("stable", 95)

    found = await staged.read()

    assert found.canary.requests[-1].value == 300
    assert found.stable.requests[-1].value == 5700
    assert {s.series for s in found.canary.requests}.isdisjoint(s.series for s in found.stable.requests)


async def test_part_of_an_answer_is_marked(staged: Staged) -> None:
    staged.serve("canary", 5)
    staged.answer_in_part()

    assert (await staged.read()).partial


async def test_a_source_that_does_not_answer_says_so(staged: Staged) -> None:
    staged.go_down()

    with pytest.raises(SourceUnavailable):
        await staged.read()


async def test_the_scrape_interval_is_in_seconds(staged: Staged) -> None:
    assert await staged.source.scrape_interval(SPEC) == 1.0


async def test_nothing_is_wrong_with_a_usual_canary(staged: Staged) -> None:
    assert await staged.source.check(REF, SPEC) == ()
