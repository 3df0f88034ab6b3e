"""One query for all who ask the same of a server at about the same time, and none where nothing can have changed.

The one thing to know: canaries of a namespace that use one template are asked about together, and each gets its own
series out of the answer, so what is odd in one canary's series holds up no other. A series has a new sample once a
scrape interval; before that the answer given last still holds. Whoever asked lately and lacks a sample is asked about
too: the looks at a hundred canaries follow each other, and their queries would.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field

from controller.sources.answers import Matrix
from controller.sources.templates import ArmSelectors, Selector, join

GATHER = 0.02
"""seconds to wait for others before a query is sent: canaries of a namespace are looked at together"""
LONGEST = 4000
"""characters of a query: it goes into an address, and proxies cut long ones off"""
REMEMBERED = 60.0
"""seconds an answer is kept at least; spans that differ by more are not asked about together"""

Arms = tuple[ArmSelectors, ArmSelectors]
Ask = Callable[[str, float, float], Awaitable[Matrix]]
"""query, since, until"""


@dataclass
class _Batch:
    """A query that is about to be sent."""

    since: float
    until: float
    selectors: dict[Selector, None] = field(default_factory=dict)
    length: int = 0
    answer: asyncio.Task[_Answer] | None = None
    _counted: set[str] = field(default_factory=set)

    def add(self, arms: Arms, since: float, until: float) -> None:
        self.since, self.until = min(self.since, since), max(self.until, until)
        for each in _selectors(arms):
            self.selectors[each] = None
            # What is the same in all of them stands in the query once.
            for text in {each.metric, *(matcher.pattern for matcher in each.matchers)} - self._counted:
                self._counted.add(text)
                self.length += len(text) + 1


@dataclass(frozen=True)
class _Answer:
    since: float
    until: float
    matrix: Matrix


@dataclass
class _Member:
    """Whose series somebody asks for again and again."""

    since: float
    until: float
    """of the last time"""
    asked: asyncio.Task[_Answer] | None = None
    """the last query about them, under way or over"""


class Sharing:
    """Answers of one metric source, by group: whoever is in one may be asked about in one query."""

    def __init__(self) -> None:
        self._batches: dict[Hashable, _Batch] = {}
        self._members: dict[Hashable, dict[Arms, _Member]] = {}
        self._turn = asyncio.Lock()

    async def read(self, group: Hashable, arms: Arms, since: float, until: float, *, every: float, ask: Ask) -> Matrix:
        """The series of these arms in (since, until], whose samples come `every` so many seconds."""
        member = self._members.setdefault(group, {}).setdefault(arms, _Member(since, until))
        member.since, member.until = since, until
        if member.asked is not None and not _has_failed(member.asked):
            known = await asyncio.shield(member.asked)
            if known.since <= since and _holds(known, arms, until, every):
                await self._in_turn()
                return known.matrix.pick(_selectors(arms), since, until)
        batch = self._batches.get(group)
        if batch is None or batch.length > LONGEST:
            batch = self._batches[group] = _Batch(since, until)
            batch.answer = asyncio.create_task(self._answer(group, batch, every, ask))
            batch.answer.add_done_callback(_heard)
        batch.add(arms, since, until)
        assert batch.answer is not None
        member.asked = batch.answer
        answer = await asyncio.shield(batch.answer)
        await self._in_turn()
        return answer.matrix.pick(_selectors(arms), since, until)

    async def _in_turn(self) -> None:
        """An answer that a hundred wait for is read, and judged by, one after the other in rounds of the event loop."""
        async with self._turn:
            await asyncio.sleep(0)

    async def _answer(self, group: Hashable, batch: _Batch, every: float, ask: Ask) -> _Answer:
        await asyncio.sleep(GATHER)
        if self._batches.get(group) is batch:
            del self._batches[group]
        self._forget(batch.until - max(REMEMBERED, 3 * every))
        for arms, member in self._members.get(group, {}).items():
            if batch.length <= LONGEST and _asks_soon(member, arms, batch, every):
                batch.add(arms, member.since, batch.until)
                member.asked = batch.answer
        matrix = await ask(join(list(batch.selectors)), batch.since, batch.until)
        return _Answer(batch.since, batch.until, matrix)

    def _forget(self, before: float) -> None:
        """Who has not asked since then, and the answers they had."""
        for group, members in list(self._members.items()):
            for arms in [arms for arms, member in members.items() if member.until < before]:
                del members[arms]
            if not members:
                del self._members[group]


def _asks_soon(member: _Member, arms: Arms, batch: _Batch, every: float) -> bool:
    """Whether somebody who is looked at a moment later would have to ask what this query can ask as well."""
    if member.until < batch.until - 2 * every or abs(member.since - batch.since) > REMEMBERED:
        return False
    if member.asked is None or not member.asked.done():
        return False
    return _has_failed(member.asked) or not _holds(member.asked.result(), arms, batch.until, every)


def _has_failed(asked: asyncio.Task[_Answer]) -> bool:
    return asked.done() and (asked.cancelled() or asked.exception() is not None)


def _holds(known: _Answer, arms: Arms, until: float, every: float) -> bool:
    """Whether no series of either arm can have a sample that the answer lacks; a series may still be to come."""
    for arm in arms:
        found = known.matrix.pick([arm.requests], known.since, known.until).series
        if not found or any(each.newest + every <= until for each in found):
            return False
    return not known.matrix.partial


def _selectors(arms: Arms) -> list[Selector]:
    return [each for arm in arms for each in (arm.requests, arm.bad) if each is not None]


def _heard(task: asyncio.Task[_Answer]) -> None:
    if not task.cancelled():
        task.exception()  # everybody who asked may have been cancelled meanwhile
