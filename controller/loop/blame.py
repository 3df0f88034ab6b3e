"""Which pods of a canary that left traffic had the bad requests: told to people, and decides nothing.

The one thing to know: it is read while the canary rests, beside the loop, from what the pods count themselves.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from controller.analysis import past
from controller.errors import SerinError
from controller.loop.beside import result_of
from controller.loop.outlook import counted_pods
from controller.model.spec import CanarySpec
from controller.model.status import Phase, Status
from controller.ports import MetricSource, Ref

BEFORE = timedelta(minutes=2)
"""of its requests before a retreat that are looked at"""
STEPS = 60
"""values of a pod in this time, at most"""


class Blame:
    """One look for each retreat."""

    def __init__(self, source: MetricSource) -> None:
        self._source = source
        self._looks: dict[str, tuple[datetime, asyncio.Task[str]]] = {}

    def forget(self, key: str) -> None:
        """The rollout is over."""
        if (look := self._looks.pop(key, None)) is not None:
            look[1].cancel()

    def read(self, ref: Ref, spec: CanarySpec, status: Status, now: datetime, *, scrape: float) -> str:
        """What is known of the last retreat; empty while nothing is. Never waits."""
        attempt = status.attempt
        if attempt is None or status.phase is not Phase.RETREATED or attempt.resting_since is None:
            return ""
        if not attempt.retreats or now < attempt.resting_since + timedelta(seconds=scrape):
            return ""
        retreat = attempt.retreats[-1].at
        known = self._looks.get(ref.key)
        if known is None or known[0] != retreat:
            self.forget(ref.key)
            # The canary of the attempt before had pods of the same Deployment's name, which are not these.
            since = max(retreat - BEFORE, attempt.started_at)
            known = self._looks[ref.key] = (retreat, asyncio.create_task(self._look(ref, spec, since, now, scrape)))
        return result_of(known[1]) or ""

    async def _look(self, ref: Ref, spec: CanarySpec, since: datetime, now: datetime, scrape: float) -> str:
        step = max(scrape, BEFORE.total_seconds() / STEPS)
        try:
            counted = await self._source.read_pods(ref, spec, since, now, step=step)
        except SerinError:
            return ""
        return past.blamed(counted_pods(counted), since=since.timestamp(), until=now.timestamp(), step=step)
