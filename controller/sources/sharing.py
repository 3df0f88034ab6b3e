"""One query for all who ask the same of a server at about the same time, and none where nothing can have changed.

The one thing to know: canaries of a namespace that use one template are asked about together, and each gets its own
series out of the answer, so what is odd in one canary's series holds up no other. A series has a new sample once a
scrape interval; before that the answer given last still holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field

from controller.sources.answers import Matrix
from controller.sources.templates import ArmSelectors, Selector, join

GATHER = 0.02
"""seconds to wait for others before a query is sent: canaries of a namespace are looked at together"""
LONGEST = 4000
"""characters of a query: it goes into an address, and proxies cut long ones off"""
REMEMBERED = 60.0
"""seconds an answer is kept at most"""

Arms = tuple[ArmSelectors, ArmSelectors]
Ask = Callable[[str, float, float], Awaitable[Matrix]]
"""query, since, until"""


@dataclass
class _Batch:
    """A query that is about to be sent."""

    selectors: list[Selector] = field(default_factory=list)
    length: int = 0
    since: float = 0.0
    until: float = 0.0
    answer: asyncio.Task[Matrix] | None = None

    def add(self, selectors: Sequence[Selector], since: float, until: float) -> None:
        self.since = min(self.since, since) if self.selectors else since
        self.until = max(self.until, until)
        self.selectors += selectors
        self.length += sum(len(str(each)) for each in selectors)


@dataclass(frozen=True)
class _Answer:
    since: float
    until: float
    matrix: Matrix


class Sharing:
    """Answers of one metric source, by group: whoever is in one may be asked about in one query."""

    def __init__(self) -> None:
        self._batches: dict[Hashable, _Batch] = {}
        self._answers: dict[Hashable, _Answer] = {}

    async def read(self, group: Hashable, arms: Arms, since: float, until: float, *, every: float, ask: Ask) -> Matrix:
        """The series of these arms in (since, until], whose samples come `every` so many seconds."""
        wanted = _selectors(arms)
        known = self._answers.get(group)
        if known is not None and known.since <= since and self._holds(known, arms, until, every):
            return known.matrix.pick(wanted, since, until)
        batch = self._batches.get(group)
        if batch is None or batch.length > LONGEST:
            batch = self._batches[group] = _Batch()
            batch.answer = asyncio.create_task(self._answer(group, batch, ask))
            batch.answer.add_done_callback(_heard)
        batch.add(wanted, since, until)
        assert batch.answer is not None
        matrix = await asyncio.shield(batch.answer)
        return matrix.pick(wanted, since, until)

    async def _answer(self, group: Hashable, batch: _Batch, ask: Ask) -> Matrix:
        await asyncio.sleep(GATHER)
        if self._batches.get(group) is batch:
            del self._batches[group]
        matrix = await ask(join(list(dict.fromkeys(batch.selectors))), batch.since, batch.until)
        self._answers = {key: kept for key, kept in self._answers.items() if kept.until > batch.until - REMEMBERED}
        self._answers[group] = _Answer(batch.since, batch.until, matrix)
        return matrix

    def _holds(self, known: _Answer, arms: Arms, until: float, every: float) -> bool:
        """Whether no series of either arm can have a sample that the answer lacks; a series may still be to come."""
        for arm in arms:
            found = known.matrix.pick([arm.requests], known.since, known.until).series
            if not found or any(not each.samples or each.samples[-1][0] + every <= until for each in found):
                return False
        return not known.matrix.partial


def _selectors(arms: Arms) -> list[Selector]:
    return [each for arm in arms for each in (arm.requests, arm.bad) if each is not None]


def _heard(task: asyncio.Task[Matrix]) -> None:
    if not task.cancelled():
        task.exception()  # everybody who asked may have been cancelled meanwhile
