"""After a retreat people are told on which pods the bad requests were; nothing is decided by it."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from controller.errors import SourceUnavailable
from controller.loop.blame import BEFORE, Blame
from controller.model.spec import CanarySpec
from controller.model.status import Judged, Phase, Status
from controller.model.world import CanaryPods, Verdict, Weight
from controller.ports import ArmSamples, RawSample, Ref
from controller.rollout.decide import decide
from controller.rollout.moves import Become
from tests.builders import MINUTE, NOON, attempt, observed, spec, status
from tests.world import Hands, World

REF = Ref("shop", "checkout", "c-1")
TRIPPED = Judged(at=NOON - MINUTE, verdict="inconclusive", reason="ErrorsTripped", message="errors +5 pp")
ONE_POD = "40 of 40 bad requests were of pod c-1, with 50 % of the requests: look at that pod and its node first"


class Counting(Hands):
    """Two canary pods of ten requests a second each; `bad` of one hundred requests of each fail."""

    bad: tuple[float, float] = (0.0, 0.0)
    down = False
    asked = 0
    since = NOON

    async def read_pods(
        self, ref: Ref, spec: CanarySpec, since: datetime, until: datetime, *, step: float
    ) -> dict[str, ArmSamples]:
        self.asked += 1
        self.since = since
        if self.down:
            raise SourceUnavailable("default", "no connection")
        begin = since.timestamp() // step * step
        times = [begin + step * number for number in range(1, int((until.timestamp() - begin) / step) + 1)]

        def counter(pod: str, rate: float) -> tuple[RawSample, ...]:
            # Off traffic nothing is counted any more.
            return tuple(RawSample(pod, at, rate * (min(at, TRIPPED.at.timestamp()) - begin)) for at in times)

        return {
            f"c-{number}": ArmSamples(counter(f"c-{number}", 10.0), counter(f"c-{number}", bad / 10))
            for number, bad in enumerate(self.bad)
        }


def resting(**changes: object) -> Status:
    usual = {"retreats": (TRIPPED,), "resting_since": NOON - MINUTE, "baking_since": None}
    return status(Phase.RETREATED, weight=0.0, attempt=attempt(**usual | changes))


async def told(bad: tuple[float, float], **changes: object) -> str:
    source = Counting(World(random.Random(1), {}), 1)
    source.bad = bad
    for name, value in changes.items():
        setattr(source, name, value)
    blame = Blame(source)
    for _ in range(3):
        words = blame.read(REF, spec(), resting(), NOON, scrape=1.0)
        await asyncio.gather(*(task for _, task in blame._looks.values()))
    assert source.asked == 1
    return words


async def test_one_pod_with_all_the_errors_is_named() -> None:
    words = await told((0.0, 10.0))

    assert "bad requests were of pod c-1, with 50 % of the requests" in words


@pytest.mark.parametrize(
    ("started", "looked"),
    [
        pytest.param(NOON - 10 * MINUTE, TRIPPED.at - BEFORE, id="long ago"),
        pytest.param(TRIPPED.at - MINUTE, TRIPPED.at - MINUTE, id="a minute before the retreat"),
    ],
)
async def test_the_pods_of_the_attempt_before_are_no_pods_of_this_one(started: datetime, looked: datetime) -> None:
    source = Counting(World(random.Random(1), {}), 1)
    blame = Blame(source)

    blame.read(REF, spec(), resting(started_at=started), NOON, scrape=1.0)
    await asyncio.gather(*(task for _, task in blame._looks.values()))

    assert source.since == looked


async def test_errors_on_every_pod_are_said_to_be_no_pods_fault() -> None:
    assert "on 2 of 2 pods: not the fault of one pod" in await told((8.0, 10.0))


async def test_too_few_errors_blame_nobody_and_a_source_that_is_down_neither() -> None:
    assert await told((0.0, 0.1)) == ""
    assert await told((0.0, 10.0), down=True) == ""


async def test_nothing_is_asked_before_the_canary_is_off_traffic() -> None:
    source = Counting(World(random.Random(1), {}), 1)

    Blame(source).read(REF, spec(), resting(resting_since=None), NOON, scrape=1.0)
    Blame(source).read(REF, spec(), status(), NOON, scrape=1.0)
    await asyncio.sleep(0)

    assert source.asked == 0


def test_what_is_known_of_the_pods_stands_with_its_retreat_once_the_weight_comes_back() -> None:
    given = resting()
    pods = CanaryPods(True, "20260301-115000", wanted=1, ready=1, endpoints=1, youngest_age=90.0, oldest_age=90.0)
    at_zero = Weight(0.0, True, True, given.epoch)
    seen = observed(status=given, weight=at_zero, canary=pods, verdict=Verdict(fresh=True, pods=ONE_POD))

    back = decide(seen, NOON)
    convicted = decide(replace(seen, verdict=Verdict(fail=True, pods=ONE_POD, judged=TRIPPED)), NOON)
    later = decide(replace(seen, verdict=Verdict(fresh=True)), NOON + timedelta(seconds=1))

    for move in (back, convicted):
        assert isinstance(move, Become)
        assert move.status.attempt is not None
        assert move.status.attempt.retreats[-1].pods == ONE_POD
    assert isinstance(later, Become)
    assert later.status.phase is Phase.PROGRESSING, "nothing waits for it"
