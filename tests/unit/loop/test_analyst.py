"""The analysis of a running attempt: what the source says goes to the judge as it was meant."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from controller.analysis.judge import JudgeState, dump_state
from controller.errors import SourceUnavailable
from controller.loop.analyst import GAP, Analyst
from controller.model.spec import CanarySpec, Metric
from controller.model.status import StepSeen
from controller.model.world import CanaryPods, Verdict
from controller.ports import ArmSamples, GaugeSamples, MetricSamples, Past, RawSample, Ref
from tests.builders import NOON, attempt, spec, status

REF = Ref("shop", "checkout", "c-1")
LATENCY = {"name": "latency", "latency": {"threshold": "250ms", "also": ["50ms"]}, "margin": 0.01}
SPEC = spec(analysis={"metrics": [LATENCY], "warmup": "0s"})
PODS = CanaryPods(exists=True, wanted=1, ready=1, endpoints=1, youngest_age=600.0, oldest_age=600.0)
BEGAN = NOON - timedelta(minutes=2)


class Histogram:
    """Both arms a hundred requests a second; the canary's share slower than 50 ms and than 250 ms is given."""

    def __init__(self, over_50: float, over_250: float) -> None:
        self.shares = {"canary": (over_50, over_250), "stable": (0.1, 0.01)}

    async def read_samples(
        self, ref: Ref, spec: CanarySpec, metric: Metric, since: datetime, until: datetime
    ) -> MetricSamples:
        instants = [float(at) for at in range(int(since.timestamp()) + 1, int(until.timestamp()) + 1)]

        def arm(name: str) -> ArmSamples:
            def counter(share: float) -> tuple[RawSample, ...]:
                return tuple(RawSample(name, at, 100.0 * share * (at - BEGAN.timestamp() + 300)) for at in instants)

            slower = tuple(counter(share) for share in self.shares[name])
            return ArmSamples(counter(1.0), slower[1], slower if len(metric.latency.bounds) > 1 else ())  # type: ignore[union-attr]

        return MetricSamples(metric.name, arm("canary"), arm("stable"))

    async def read_gauge(
        self, ref: Ref, spec: CanarySpec, metric: Metric, since: datetime, until: datetime, *, step: float
    ) -> GaugeSamples:
        raise AssertionError("no gauges here")

    async def read_past(
        self, ref: Ref, spec: CanarySpec, until: datetime, *, traffic: timedelta, pods: timedelta
    ) -> Past:
        raise AssertionError("not before a rollout")

    async def read_pods(
        self, ref: Ref, spec: CanarySpec, since: datetime, until: datetime, *, step: float
    ) -> dict[str, ArmSamples]:
        raise AssertionError("nothing has tripped")

    async def scrape_interval(self, spec: CanarySpec) -> float:
        return 1.0

    async def check(self, ref: Ref, spec: CanarySpec, *, live: bool = True) -> tuple[str, ...]:
        return ()


async def judged(source: Histogram, wanted: CanarySpec, seconds: int = 60) -> Verdict:
    analyst = Analyst(source)
    given = status(attempt=attempt(started_at=BEGAN, baking_since=BEGAN))
    for second in range(1, seconds + 1):
        now = datetime.fromtimestamp(BEGAN.timestamp() + second, UTC)
        verdict = await analyst.read_verdict(REF, wanted, given, PODS, 4, now)
        if verdict.tripped:
            break
    return verdict


async def test_a_slowdown_that_stays_under_the_threshold_shows_at_another_bound() -> None:
    slower = Histogram(over_50=0.4, over_250=0.01)
    alone = spec(analysis={"metrics": [{**LATENCY, "latency": {"threshold": "250ms"}}], "warmup": "0s"})

    assert not (await judged(slower, alone)).tripped
    found = await judged(slower, SPEC)
    assert found.tripped
    assert found.judged is not None
    assert (found.judged.metric, found.judged.reason) == ("latency", "LatencyTripped")


@pytest.mark.parametrize(
    ("ages", "said"),
    [
        pytest.param((900.0,) * 2, "", id="all are as old"),
        pytest.param((5.0, 900.0, 900.0, 900.0), "", id="one of four was added since"),
        pytest.param((5.0, 900.0, 900.0), "canary pods older than 900 s, as they tripped", id="one of three"),
        pytest.param(
            (5.0, 6.0, 900.0, 900.0), "three of four canary pods older than 900 s, as they tripped", id="two of four"
        ),
    ],
)
async def test_a_pod_that_was_added_since_does_not_make_the_others_too_young(
    ages: tuple[float, ...], said: str
) -> None:
    remembered = dump_state(JudgeState(proven_age=900.0, through=BEGAN.timestamp()))
    given = status(attempt=attempt(started_at=BEGAN, baking_since=BEGAN, judge=remembered))
    pods = replace(PODS, ready=len(ages), youngest_age=min(ages), ages=ages)

    found = await Analyst(Histogram(0.1, 0.01)).read_verdict(REF, SPEC, given, pods, 4, NOON)

    assert found.unproven == said


async def test_where_some_pod_is_always_new_it_is_said_why_the_certificate_takes_longer() -> None:
    given = status(attempt=attempt(started_at=BEGAN, baking_since=BEGAN))
    pods = replace(PODS, ready=3, youngest_age=5.0, ages=(5.0, 600.0, 600.0))
    warms_up = spec(analysis={"metrics": [LATENCY], "warmup": "30s"})

    found = await Analyst(Histogram(0.1, 0.01)).read_verdict(REF, warms_up, given, pods, 4, NOON)

    assert found.uncertified.endswith(": only those of pods older than 60 s count, 1 of 3 is younger")


async def test_what_is_shown_of_several_bounds_is_the_threshold() -> None:
    found = await judged(Histogram(over_50=0.1, over_250=0.01), SPEC)

    assert not found.tripped
    assert found.judged is not None
    numbers = found.judged.numbers
    assert numbers["canaryErrors"] / numbers["canaryRequests"] == pytest.approx(0.01)


async def test_half_of_the_requests_at_a_weight_of_ten_percent_fit_beside_a_fresh_baseline_and_not_beside_stable() -> (
    None
):
    """Beside fresh pods both arms have ten percent each, and what stable's own pods serve is in neither."""
    as_many = Histogram(over_50=0.1, over_250=0.01)
    beside = spec(analysis={"metrics": [LATENCY], "warmup": "0s", "baseline": {"fresh": True}})

    assert (await judged(as_many, beside)).mismatch == ""
    found = (await judged(as_many, SPEC)).mismatch
    assert found.startswith("50.00 % of ")
    assert "requests reached the canary, and 10 % were to (weight 10 %): " in found


async def test_a_checkpoint_of_several_bounds_is_read_again_whole() -> None:
    source = Histogram(over_50=0.2, over_250=0.01)
    before = await judged(source, SPEC, seconds=10)
    resumed = status(
        attempt=attempt(
            started_at=BEGAN,
            baking_since=BEGAN,
            judge=before.checkpoint,
            evaluated_through=before.evaluated_through,
        )
    )

    analyst = Analyst(source)
    await analyst.read_verdict(REF, SPEC, resumed, PODS, 4, BEGAN + timedelta(seconds=10))

    state = analyst._running[REF.key].state
    assert state.metrics["latency"].evidence.proof.shape[0] == 2
    assert state.through == before.evaluated_through


class Stable:
    """Both arms a hundred requests a second, scraped every second, stable two tenths later; from the sixtieth second
    on stable's counters are gone and half of the canary's requests fail."""

    def __init__(self, gone: bool) -> None:
        self.gone = gone

    async def read_samples(
        self, ref: Ref, spec: CanarySpec, metric: Metric, since: datetime, until: datetime
    ) -> MetricSamples:
        def arm(name: str, *, late: float, stops: float = math.inf, breaks: float = math.inf) -> ArmSamples:
            instants = [one + late for one in range(1, 200) if one + late <= stops]
            seen = [at for at in instants if since.timestamp() < BEGAN.timestamp() + at <= until.timestamp()]
            return ArmSamples(
                tuple(RawSample(name, BEGAN.timestamp() + at, 100.0 * at) for at in seen),
                tuple(RawSample(name, BEGAN.timestamp() + at, 0.1 * at + 50.0 * max(at - breaks, 0.0)) for at in seen),
            )

        if not self.gone:
            return MetricSamples(metric.name, arm("canary", late=0.0), arm("stable", late=0.2))
        canary, stable = arm("canary", late=0.0, breaks=70.0), arm("stable", late=0.2, stops=60.0)
        return MetricSamples(metric.name, canary, stable)

    read_gauge, read_past, read_pods = Histogram.read_gauge, Histogram.read_past, Histogram.read_pods
    scrape_interval, check = Histogram.scrape_interval, Histogram.check


ERRORS = spec(analysis={"metrics": [{"name": "errors", "errorRatio": {}}], "warmup": "0s"})


async def test_users_are_relieved_of_a_catastrophe_while_nothing_is_known_of_stable() -> None:
    found = await judged(Stable(gone=True), ERRORS, seconds=80)

    assert (found.tripped, found.fail, found.fresh) == (True, False, False)
    assert found.judged is not None
    assert found.judged.reason == "ErrorsTripped"
    assert found.judged.would_change.startswith("requests to the baseline, which had none for 1")


class FoundLate(Stable):
    """A second gateway is not scraped for the first thirty seconds; it has a million requests of stable's behind it."""

    async def read_samples(
        self, ref: Ref, spec: CanarySpec, metric: Metric, since: datetime, until: datetime
    ) -> MetricSamples:
        found = await super().read_samples(ref, spec, metric, since, until)
        late = [one for one in found.stable.requests if one.at >= BEGAN.timestamp() + 30]
        other = tuple(RawSample("other", one.at, one.value + 1e6, "envoy/b") for one in late)
        return replace(found, stable=replace(found.stable, requests=(*found.stable.requests, *other)))


async def test_a_gateway_that_is_scraped_again_brings_no_past_into_the_comparison() -> None:
    found = await judged(FoundLate(gone=False), ERRORS, seconds=59)

    assert found.judged is not None
    assert found.judged.numbers["stableRequests"] < 20_000


async def test_a_scrape_of_the_canary_that_comes_before_that_of_stable_counts_once() -> None:
    analyst = Analyst(Stable(gone=False))
    given = status(attempt=attempt(started_at=BEGAN, baking_since=BEGAN))
    for tenth in range(0, 600, 3):
        now = datetime.fromtimestamp(BEGAN.timestamp() + tenth / 10, UTC)
        verdict = await analyst.read_verdict(REF, ERRORS, given, PODS, 4, now)

    assert verdict.enough
    state = analyst._running[REF.key].state.metrics["errors"]
    assert state.recent.canary.requests == pytest.approx(state.recent.baseline.requests, rel=0.05)
    assert state.silent == (0.0, 0.0)


class Silent(Stable):
    """Answers until the tenth second, and never again."""

    async def read_samples(
        self, ref: Ref, spec: CanarySpec, metric: Metric, since: datetime, until: datetime
    ) -> MetricSamples:
        if until > BEGAN + timedelta(seconds=10):
            raise SourceUnavailable("default", "connection refused")
        return await super().read_samples(ref, spec, metric, since, until)


@pytest.mark.parametrize(("leap", "counted"), [(0.0, 70.0), (3600.0, 69.0 + GAP), (-3600.0, 0.0)])
async def test_a_leap_of_the_clock_is_no_time_without_data(leap: float, counted: float) -> None:
    """A minute of it at most: `noDataTimeout` counts seconds in which data could have come."""
    analyst = Analyst(Silent(gone=False))
    given = status(attempt=attempt(started_at=BEGAN, baking_since=BEGAN))
    for second in range(1, 81):
        now = BEGAN + timedelta(seconds=second + (leap if second == 80 else 0.0))
        verdict = await analyst.read_verdict(REF, ERRORS, given, PODS, 4, now)

    waited = 0.0 if verdict.no_data_since is None else (now - verdict.no_data_since).total_seconds()
    assert waited == pytest.approx(counted, abs=1.0)


async def test_nor_is_a_leap_between_the_arrival_of_the_traffic_and_the_first_look_after_it() -> None:
    analyst = Analyst(Silent(gone=False))
    arriving = status(attempt=attempt(started_at=BEGAN, entered_at=BEGAN, baking_since=None))
    await analyst.read_verdict(REF, ERRORS, arriving, PODS, 4, BEGAN + timedelta(seconds=20))
    baking = status(attempt=attempt(started_at=BEGAN, baking_since=BEGAN + timedelta(seconds=20)))
    now = BEGAN + timedelta(seconds=21, hours=1)

    verdict = await analyst.read_verdict(REF, ERRORS, baking, PODS, 4, now)

    assert verdict.no_data_since is not None
    assert now - verdict.no_data_since <= timedelta(seconds=GAP)


async def test_between_two_steps_time_without_data_counts_as_well() -> None:
    analyst = Analyst(Silent(gone=False))
    arrived = (StepSeen(1, 10.0, BEGAN),)
    between = status(attempt=attempt(started_at=BEGAN, entered_at=BEGAN, baking_since=None, steps_seen=arrived))
    before = status(attempt=attempt(started_at=BEGAN, entered_at=BEGAN, baking_since=None))

    for second in range(1, 81):
        now = BEGAN + timedelta(seconds=second)
        verdict = await analyst.read_verdict(REF, ERRORS, between, PODS, 4, now)

    assert verdict.no_data_since is not None
    assert (now - verdict.no_data_since).total_seconds() == pytest.approx(70.0, abs=1.0)
    first = await Analyst(Silent(gone=False)).read_verdict(REF, ERRORS, before, PODS, 4, now)
    assert first.no_data_since is None, "before the first request none can come"


async def test_time_without_data_goes_on_in_the_next_process() -> None:
    given = status(attempt=attempt(started_at=BEGAN, baking_since=BEGAN, evaluated_through=BEGAN.timestamp() + 10))

    verdict = await Analyst(Silent(gone=False)).read_verdict(
        REF, ERRORS, given, PODS, 4, BEGAN + timedelta(seconds=400)
    )

    assert verdict.no_data_since is not None
    assert BEGAN <= verdict.no_data_since <= BEGAN + timedelta(seconds=10)
