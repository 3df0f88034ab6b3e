"""Which object to look at next. A key is in one place at a time: waiting, or in the hands of one worker.

Adding a key that waits already changes nothing, and adding one that is being worked on makes it come once more.
A key that fails comes back later each time, and events do not drag it forward faster than once a second, so
neither a poison object nor a storm of conflicts can take the workers from the others. Namespaces take turns.

However many keys are due together, one is handed out in each round of the event loop: what else is ready there, an
answer of the API server or an event of a watch, waits for one look and not for all of them.

Time is the event loop's, so a test with a virtual clock runs hours in milliseconds.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog

from controller.errors import ApiThrottled, Fenced
from controller.kube.backoff import Backoff

Handler = Callable[[str], Awaitable[timedelta | None]]
"""Looks at one object; says when to look again, or None: only when something happens."""

log = structlog.get_logger()

FIRST_RETRY = 0.005
LAST_RETRY = 30.0
EAGER = 1.0
"""An event may cut the wait of a failing key short, but to no less than this many seconds (or its backoff)."""


class QueueClosed(Exception):
    """The queue hands out nothing more: the worker that asked may go home."""


class KeyedQueue:
    """Keys are `namespace/name`. Everything happens on one event loop."""

    def __init__(self, *, first_retry: float = FIRST_RETRY, last_retry: float = LAST_RETRY) -> None:
        self._first_retry = first_retry
        self._last_retry = last_retry
        self._ready: OrderedDict[str, deque[str]] = OrderedDict()
        self._waiting: set[str] = set()
        self._working: set[str] = set()
        self._again: set[str] = set()
        self._later: dict[str, asyncio.TimerHandle] = {}
        self._failing: dict[str, Backoff] = {}
        self._not_before: dict[str, float] = {}
        self._idle: deque[asyncio.Future[str]] = deque()
        self._handing: asyncio.Handle | None = None
        self._closed = False

    def __len__(self) -> int:
        """Keys that are due and have no worker yet."""
        return len(self._waiting)

    def add(self, key: str) -> None:
        """Look at the key as soon as a worker is free."""
        pause = self._not_before.get(key, 0.0) - _now()
        if pause > 0:
            self.add_after(key, pause)
            return
        self._cancel_later(key)
        if self._closed or key in self._waiting:
            return
        if key in self._working:
            self._again.add(key)
            return
        self._waiting.add(key)
        self._ready.setdefault(key.partition("/")[0], deque()).append(key)
        self._hand_out_soon()

    def add_after(self, key: str, delay: float) -> None:
        """Look at the key in `delay` seconds, or earlier if that was promised before."""
        if delay <= 0:
            self.add(key)
            return
        if self._closed or key in self._waiting or key in self._again:
            return
        due = _now() + delay
        planned = self._later.get(key)
        if planned is not None:
            if planned.when() <= due:
                return
            planned.cancel()
        self._later[key] = asyncio.get_running_loop().call_at(due, self._due, key)

    def forget(self, key: str) -> None:
        """The object is gone: drop its backoff and what was planned for it."""
        self._failing.pop(key, None)
        self._not_before.pop(key, None)
        self._cancel_later(key)

    async def take(self) -> str:
        """The next key; it is the caller's until `done`."""
        if self._closed:
            raise QueueClosed
        waker: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._idle.append(waker)
        self._hand_out_soon()
        try:
            return await waker
        except asyncio.CancelledError:
            if waker.done() and not waker.cancelled() and waker.exception() is None:
                self._hand_back(waker.result(), None)
                self.add(waker.result())
            raise

    def done(self, key: str, again_in: timedelta | None = None) -> None:
        """The look went well; `again_in` plans the next one."""
        self._failing.pop(key, None)
        self._not_before.pop(key, None)
        self._hand_back(key, None if again_in is None else again_in.total_seconds())

    def failed(self, key: str, error: Exception) -> float:
        """The look went wrong: the key comes back after its backoff, whose seconds are the answer."""
        backoff = self._failing.setdefault(key, Backoff(self._first_retry, self._last_retry))
        delay = backoff.next()
        eager = min(delay, EAGER)
        if isinstance(error, ApiThrottled):
            eager = delay = max(delay, error.retry_after)
        self._not_before[key] = _now() + eager
        self._hand_back(key, delay)
        return delay

    async def run(self, workers: int, handler: Handler) -> None:
        """Work until `close`, then finish what is in hand. Only `Fenced` gets out: it must end the process."""
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._work(handler))

    def close(self) -> None:
        """Hand out nothing more. `run` returns when each worker has finished its key."""
        self._closed = True
        self._ready.clear()
        self._waiting.clear()
        self._again.clear()
        for planned in self._later.values():
            planned.cancel()
        self._later.clear()
        for waker in self._idle:
            if not waker.done():
                waker.set_exception(QueueClosed())
        self._idle.clear()

    async def _work(self, handler: Handler) -> None:
        while True:
            try:
                key = await self.take()
            except QueueClosed:
                return
            try:
                again_in = await handler(key)
            except Fenced:
                # The others are cancelled in a moment; not one of them may take another key before that.
                self.close()
                raise
            except Exception as error:
                delay = self.failed(key, error)
                log.warning(
                    "key_failed", key=key, error=str(error), kind=type(error).__name__, retry_in=round(delay, 3)
                )
            except BaseException:
                self._hand_back(key, None)
                raise
            else:
                self.done(key, again_in)

    def _hand_back(self, key: str, delay: float | None) -> None:
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)
        if delay is not None:
            self.add_after(key, delay)

    def _due(self, key: str) -> None:
        self._later.pop(key, None)
        self.add(key)

    def _cancel_later(self, key: str) -> None:
        planned = self._later.pop(key, None)
        if planned is not None:
            planned.cancel()

    def _hand_out_soon(self) -> None:
        if self._ready and self._idle and self._handing is None:
            self._handing = asyncio.get_running_loop().call_soon(self._hand_out)

    def _hand_out(self) -> None:
        """One key to one worker; namespaces take turns."""
        self._handing = None
        while self._idle and self._idle[0].done():
            self._idle.popleft()
        if self._ready and self._idle:
            namespace, keys = self._ready.popitem(last=False)
            key = keys.popleft()
            if keys:
                self._ready[namespace] = keys
            self._waiting.discard(key)
            self._working.add(key)
            self._idle.popleft().set_result(key)
        self._hand_out_soon()


def _now() -> float:
    return asyncio.get_running_loop().time()
