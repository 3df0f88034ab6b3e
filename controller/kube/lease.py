"""Who leads, and the certainty of having stopped before somebody else starts.

A Lease lasts 10 s, and whoever holds it renews it every 2 s from a thread of its own, so a busy event loop cannot
lose it. A second thread ends the process when 6 s have passed without a renewal: hard, without cleaning up, because
a leader that still has time to clean up still has time to write. The clock of both counts while the machine sleeps.

A stopped process may wake up with a request half sent, so time alone does not fence it. Each leader therefore has a
term, higher than every one before: it stands in the Lease as `leaseTransitions` before `acquire` returns, and the
caller puts it into what it writes. `floor` tells the highest term found there, so it rises even over a deleted Lease.

Turned down: client libraries' elections (they go on working past their lease and give out no term).
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog

from controller.errors import AlreadyExists, Conflict, NotFound, SerinError
from controller.kube.backoff import Backoff
from controller.kube.credentials import Credentials
from controller.kube.objects import Object
from controller.kube.resources import LEASES
from controller.kube.transport import Api, decoder

log = structlog.get_logger()

EXIT_CODE = 70


@dataclass(frozen=True, slots=True)
class LeaseTiming:
    """Seconds. `deadline` is shorter than `duration` by more than any request and any clock drift can take."""

    duration: float = 10.0
    deadline: float = 6.0
    every: float = 2.0
    request: float = 2.0
    loop_lag: float = 15.0
    """An event loop that stood still this long leads nobody: give the Lease to a process that can work."""


class LeaseSpec(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    holder_identity: str = ""
    lease_duration_seconds: int | None = None
    lease_transitions: int = 0


class Lease(Object, frozen=True, kw_only=True):
    spec: LeaseSpec = LeaseSpec()


def boottime() -> float:
    """Seconds that also pass while the machine is suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Election:
    """One candidate for one Lease. `identity` must be new for each process, so a restart is another candidate."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        namespace: str,
        name: str,
        identity: str,
        floor: Callable[[], Awaitable[int]],
        timing: LeaseTiming = LeaseTiming(),
        clock: Callable[[], float] = boottime,
        end: Callable[[int], Any] = os._exit,
    ) -> None:
        self.identity = identity
        self.term = 0
        self._credentials = credentials
        self._namespace, self._name = namespace, name
        self._floor = floor
        self._timing = timing
        self._clock = clock
        self._end = end
        self._uid = ""
        self._deadline = float("-inf")
        self._beat = 0.0
        self._heart: asyncio.Task[None] | None = None
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self._seen = ""
        self._seen_at = float("-inf")
        self._seen_for = 0.0
        self._highest = 0

    def remaining(self) -> float:
        """Seconds in which a write is still ours to make; 0 when it is not. A write's timeout must be shorter."""
        return max(0.0, self._deadline - self._clock())

    @property
    def leading(self) -> bool:
        return self.remaining() > 0

    async def leads(self, api: Api) -> bool:
        """Whether the Lease is ours under our term, as the API server says now and not as of the last renewal.

        Raises: SerinError: it cannot be read.
        """
        lease = await api.find(LEASES, self._namespace, self._name, Lease, lane="urgent")
        return self.leading and self._is_ours(lease)

    async def acquire(self) -> int:
        """Wait until the Lease is ours; the answer is the new term. From here on the process leads or ends."""
        backoff = Backoff(base=0.1, cap=2.0)
        async with Api(self._credentials, timeout=self._timing.request) as api:
            while True:
                try:
                    lease = await api.find(LEASES, self._namespace, self._name, Lease)
                    self._observe(lease)
                    if self._free_in(lease) <= 0:
                        await self._take(api, lease)
                        self._start()
                        return self.term
                    await self._watch(api, lease)
                    backoff.reset()
                except (AlreadyExists, Conflict) as error:
                    log.info("lease_taken_by_other", lease=self._name, error=str(error))
                except SerinError as error:
                    log.warning("lease_not_acquired", lease=self._name, error=str(error))
                    await asyncio.sleep(backoff.next())

    async def release(self) -> None:
        """Give the Lease up, so that the next leader need not wait for it to run out.

        Call it when everything that acts has stopped, never before.
        """
        self._stopped.set()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        if self._heart is not None:
            self._heart.cancel()
        if not self.leading:
            return
        try:
            async with Api(self._credentials, timeout=self._timing.request) as api:
                await self._patch(api, {"holderIdentity": "", "renewTime": _now()})
        except SerinError as error:
            log.warning("lease_not_released", lease=self._name, error=str(error))
        finally:
            self._deadline = float("-inf")

    # Waiting for it

    def _observe(self, lease: Lease | None) -> None:
        """Note when the Lease last changed, by our own clock: nobody else's is to be trusted."""
        if lease is None or lease.metadata.resource_version == self._seen:
            return
        self._seen = lease.metadata.resource_version
        self._seen_at = self._clock()
        self._seen_for = max(self._timing.duration, float(lease.spec.lease_duration_seconds or 0))
        self._highest = max(self._highest, lease.spec.lease_transitions)

    def _free_in(self, lease: Lease | None) -> float:
        """Seconds until it may be taken. One that was deleted still binds whoever held it, so wait all the same."""
        if lease is not None and lease.spec.holder_identity in ("", self.identity):
            return 0.0
        return self._seen_at + self._seen_for - self._clock()

    async def _watch(self, api: Api, lease: Lease | None) -> None:
        """Look at the Lease until it may be taken or the stream ends."""
        left = self._free_in(lease)
        if lease is None:
            await asyncio.sleep(left)
            return
        async with api.watch(
            LEASES,
            self._namespace,
            resource_version=lease.metadata.resource_version,
            field_selector=f"metadata.name={self._name}",
            lasts=60.0,
            idle=60.0,
        ) as events:
            pending = aiter(events)
            while left > 0:
                try:
                    async with asyncio.timeout(left):
                        event = await anext(pending)
                except TimeoutError:
                    return
                except StopAsyncIteration:
                    await asyncio.sleep(min(left, 0.5))
                    return
                if event.type not in ("ADDED", "MODIFIED"):
                    return
                lease = decoder(Lease).decode(event.object)
                self._observe(lease)
                left = self._free_in(lease)

    async def _take(self, api: Api, lease: Lease | None) -> None:
        """Write ourselves and the new term in one request that fails if anybody else was faster."""
        transitions = lease.spec.lease_transitions if lease else 0
        term = 1 + max(transitions, self._highest, await self._floor())
        # Our time counts from before the request: from then on the Lease may be ours in the eyes of others.
        asked_at = self._clock()
        spec = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": max(1, round(self._timing.duration)),
            "acquireTime": _now(),
            "renewTime": _now(),
            "leaseTransitions": term,
        }
        metadata = {"name": self._name, "namespace": self._namespace}
        if lease is None:
            body = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": metadata, "spec": spec}
            taken = await api.create(LEASES, self._namespace, body, type=Lease)
        else:
            read = {"uid": lease.metadata.uid, "resourceVersion": lease.metadata.resource_version}
            patch = {"metadata": read, "spec": spec}
            taken = await api.merge_patch(LEASES, self._namespace, self._name, patch, type=Lease)
        self._uid, self.term = taken.metadata.uid, term
        self._deadline = asked_at + self._timing.deadline
        log.info("lease_acquired", lease=self._name, identity=self.identity, term=term)

    # Keeping it

    def _start(self) -> None:
        self._beat = self._clock()
        self._heart = asyncio.create_task(self._tick())
        self._threads = [
            threading.Thread(target=self._guard, name="lease-guard", daemon=True),
            threading.Thread(target=lambda: asyncio.run(self._renew()), name="lease-renewal", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    async def _tick(self) -> None:
        """Runs on the caller's event loop, so it stops when that does."""
        while True:
            self._beat = self._clock()
            await asyncio.sleep(0.5)

    def _guard(self) -> None:
        """Ends the process in time, whatever hangs. Looks often: a wait does not count the time of a suspend."""
        while not self._stopped.wait(min(0.2, self.remaining())):
            if not self.leading:
                self._lose("not renewed in time")
            elif self._clock() - self._beat > self._timing.loop_lag:
                self._lose("the event loop stands still")

    async def _renew(self) -> None:
        """Runs in its own thread, with an event loop and a connection that nobody else uses."""
        pause = self._timing.every
        async with Api(self._credentials, timeout=self._timing.request) as api:
            while not await self._paused(pause):
                asked_at = self._clock()
                try:
                    if await self._is_lost_after_renewal(api):
                        self._lose("the Lease was deleted or belongs to somebody else")
                        return
                except SerinError as error:
                    log.warning("lease_not_renewed", lease=self._name, error=str(error), remaining=self.remaining())
                    pause = self._timing.every / 8
                    continue
                self._deadline = asked_at + self._timing.deadline
                pause = max(0.0, self._timing.every - (self._clock() - asked_at))

    async def _paused(self, seconds: float) -> bool:
        """Sleep; say whether we were told to stop meanwhile."""
        return await asyncio.to_thread(self._stopped.wait, seconds)

    async def _is_lost_after_renewal(self, api: Api) -> bool:
        try:
            await self._patch(api, {"renewTime": _now()})
        except NotFound:
            return True
        except Conflict:
            # Either a test failed, or other writers kept the API server from applying the patch. Look which.
            lease = await api.find(LEASES, self._namespace, self._name, Lease)
            if not self._is_ours(lease):
                return True
            raise
        return False

    def _is_ours(self, lease: Lease | None) -> bool:
        """The very object that we took, and nobody has taken it since."""
        if lease is None or lease.metadata.uid != self._uid:
            return False
        return (lease.spec.holder_identity, lease.spec.lease_transitions) == (self.identity, self.term)

    async def _patch(self, api: Api, spec: dict[str, Any]) -> None:
        """Change the Lease only while it is the one we took. Needs no resourceVersion, so a lost reply does no harm."""
        ours = [
            ("/metadata/uid", self._uid),
            ("/spec/holderIdentity", self.identity),
            ("/spec/leaseTransitions", self.term),
        ]
        ops = [{"op": "test", "path": path, "value": value} for path, value in ours]
        ops += [{"op": "add", "path": f"/spec/{name}", "value": value} for name, value in spec.items()]
        await api.json_patch(LEASES, self._namespace, self._name, ops)

    def _lose(self, why: str) -> None:
        self._deadline = float("-inf")
        self._stopped.set()
        log.error("lease_lost", lease=self._name, identity=self.identity, term=self.term, why=why)
        self._end(EXIT_CODE)


def _now() -> str:
    """For people and `kubectl` to read; nothing decides by it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
