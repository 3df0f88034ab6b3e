"""Wiring: the only place that knows the real clock and the concrete adapters.

Every replica keeps its caches warm and serves its probes; the one that holds the Lease acts. Losing the
Lease ends the process, and so does meeting the traces of a newer leader.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import uuid
from collections.abc import Coroutine, Iterator, MutableMapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any

import structlog
from aiohttp import web

from controller.attestations.options import add_options, image_evidence
from controller.errors import Fenced, NeedsUser
from controller.kube.cache import Cache, Kept, Whole
from controller.kube.credentials import load_credentials
from controller.kube.events import EventRecorder
from controller.kube.fence import Fence
from controller.kube.informer import Informer
from controller.kube.lease import Election
from controller.kube.objects import Object
from controller.kube.queue import KeyedQueue
from controller.kube.resources import DEPLOYMENTS, ENDPOINTSLICES, HTTPROUTES, SECRETS, SERVICES, Resource, key_of
from controller.kube.transport import Api
from controller.loop.analyst import Analyst
from controller.loop.concern import Concern
from controller.loop.live import LiveLooks
from controller.loop.memory import (
    CANARIES,
    DECISIONS,
    FINALIZER,
    SOURCES,
    CanaryObject,
    DecisionObject,
    KubeMemory,
)
from controller.loop.outlook import Outlooks
from controller.loop.reconcile import reconcile
from controller.loop.rights import KubeRights
from controller.loop.rules import FREEZES, POLICIES, KubeRules, SpecObject
from controller.loop.thaw import Thawing
from controller.loop.world import World
from controller.model.spec import MetricsSourceSpec
from controller.model.status import ACTIVE, Status
from controller.plain import plain
from controller.ports import Ref
from controller.rollout.moves import Decision
from controller.routers import attached, httproute
from controller.routers.httproute import HttpRouteRouter
from controller.sources.prometheus import PrometheusSource
from controller.telemetry.debug import serve_debug
from controller.telemetry.metrics import CONTENT_TYPE, Inside, Metrics, Shown
from controller.telemetry.spans import Traces
from controller.workloads import reads
from controller.workloads.deployment import DeploymentWorkload
from controller.workloads.hold import Hold

log = structlog.get_logger()

VERSION = version("serin")
WORKERS = 128
"""looks at a time: most wait for a metrics server, and one that hangs must not keep the others from their turn"""
CACHES_WITHIN = 5.0
"""seconds to wait for what is only a cache: a kind that cannot be watched is read live"""
FINISH_WITHIN = 4.0
"""seconds for the turns in hand at a SIGTERM; less than the lease's deadline"""
LEASE = "serin-controller"
DEPLOYMENT = "serin-controller"
SETTLES = 0.05
"""seconds for what one change brings to come together: a gateway's report, endpoints, a count of pods"""
A_FREEZE = "/"
"""how the queue's key of a Freeze begins; a Canary's begins with its namespace"""
COLLECTED = (50_000, 10, 10)
"""after how many more objects garbage is looked for: samples of a hundred rollouts come and go by thousands, and with
Python's own 700 a tenth of the time went into walking through them, now and then through all there is"""
SILENT_TOO_LONG = 120.0
"""seconds without a word from the API server on any watch: a restart is the cure"""


class SourceObject(Object, frozen=True, kw_only=True):
    """A MetricsSource as it comes over the wire."""

    spec: dict[str, Any] = {}


class KubeCatalog:
    """The MetricsSources of the cluster, and the Secrets of our own namespace."""

    def __init__(self, api: Api, sources: Informer[SourceObject], namespace: str) -> None:
        self._api, self._sources, self._namespace = api, sources, namespace
        self._parsed: dict[str, tuple[SourceObject, MetricsSourceSpec]] = {}

    async def find(self, name: str) -> MetricsSourceSpec | None:
        """The source, or None; parsed once for each version of it, since every look asks several times."""
        found = self._sources.by_key(name)
        if found is None:
            self._parsed.pop(name, None)
            return None
        known = self._parsed.get(name)
        if known is None or known[0] is not found:
            known = self._parsed[name] = (found, MetricsSourceSpec.model_validate(found.spec))
        return known[1]

    async def names(self) -> tuple[str, ...]:
        """Every source there is, to name them where one is misspelt."""
        return tuple(sorted(self._sources.keys()))

    async def secret(self, name: str, key: str) -> str:
        """One value of a Secret in our own namespace."""
        found = await self._api.get(SECRETS, self._namespace, name)
        value = found.get("data", {}).get(key)
        if value is None:
            raise NeedsUser("SecretKeyMissing", f"Secret {name} in {self._namespace} has no key {key}")
        return base64.b64decode(value).decode()


class Controller:
    """One process: informers, queue, election, probes."""

    def __init__(self, api: Api, options: argparse.Namespace) -> None:
        self._api = api
        self._options = options
        self._own_namespace = os.environ.get("POD_NAMESPACE", "serin-system")
        watched = {"namespace": options.namespace} if options.namespace else {}
        self._canaries = Informer(api, CANARIES, CanaryObject, **watched)
        self._decisions = Informer(api, DECISIONS, DecisionObject, **watched)
        # Who thaws a Freeze says so where Serin is installed, which need not be the namespace it sees.
        elsewhere = bool(options.namespace) and options.namespace != self._own_namespace
        self._thaws = (
            Informer(api, DECISIONS, DecisionObject, namespace=self._own_namespace) if elsewhere else self._decisions
        )
        self._sources: Informer[SourceObject] = Informer(api, SOURCES, SourceObject)
        self._policies: Informer[SpecObject] = Informer(api, POLICIES, SpecObject)
        self._freezes: Informer[SpecObject] = Informer(api, FREEZES, SpecObject)
        kept = {**reads.KEPT, **httproute.KEPT}
        self._kept: dict[Resource, Informer[Kept]] = {
            resource: Informer(
                api, resource, Whole, shrink=keep, label_selector=reads.OF_CANARIES.get(resource), **watched
            )
            for resource, keep in kept.items()
        }
        self._attached: dict[Resource, Informer[Kept]] = {
            resource: Informer(api, resource, Whole, shrink=keep, timing=attached.PATIENT, **watched)
            for resource, keep in attached.KEPT.items()
        }
        cache = Cache({**self._kept, **self._attached})
        self._concern = Concern()
        self._queue = KeyedQueue()
        self._events = EventRecorder(api, "serin-controller", socket.gethostname())
        self._term = 0
        self._election: Election | None = None
        self._inside = Inside(
            canaries=self._shown,
            canaries_as_of=lambda: self._canaries.resource_version,
            watches=lambda: [(each.resource.plural, each.age(), len(each.unreadable)) for each in self._informers],
            queued=lambda: len(self._queue),
            lease_left=lambda: self._election.remaining() if self._election else 0.0,
        )
        self._metrics = Metrics(VERSION, self._inside)
        self._traces = Traces(VERSION) if options.traces else None
        self._stop = asyncio.Event()
        self._stood_down = 0
        """replicas that were stood down for `--release-all`, until everything is released"""
        source = PrometheusSource(KubeCatalog(api, self._sources, self._own_namespace))
        self._provenance = image_evidence(api, self._own_namespace, options, _now)
        rights = KubeRights(api)
        rules = KubeRules(self._policies, self._freezes, self._canaries)
        self._thawing = Thawing(api, self._freezes, self._thaws, rights, rules)
        self._memory = KubeMemory(api, self._canaries, self._decisions, self._events)
        fence = Fence(self._leads, self._tell_of_stamp)
        self._world = World(
            memory=self._memory,
            router=HttpRouteRouter(api, cache, fence),
            workload=DeploymentWorkload(api, now=_now, hold=Hold(options.hold), cache=cache, fence=fence),
            source=source,
            analyst=Analyst(source),
            outlooks=Outlooks(source, self._wake),
            rights=rights,
            rules=rules,
            term=lambda: self._term,
            provenance=self._provenance,
            tell=self._tell,
            live=LiveLooks(lambda: api.is_urgent),
            leaving=options.release_all,
        )

    @property
    def _own(self) -> tuple[Informer[Any], ...]:
        """Without these nothing can be decided; without one of the others it is read live."""
        return (self._canaries, self._decisions, self._sources)

    @property
    def _informers(self) -> tuple[Informer[Any], ...]:
        """Those that are waited for and that tell whether the API server is heard of: every cluster has their kinds."""
        thaws = () if self._thaws is self._decisions else (self._thaws,)
        return (*self._own, *thaws, self._policies, self._freezes, *self._kept.values())

    async def run(self) -> None:
        """Until SIGTERM, or until everything is released with `--release-all`."""
        gc.set_threshold(*COLLECTED)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        self._wake_on_changes()
        watched = (*self._informers, *self._attached.values())
        background: list[asyncio.Task[Any]] = [asyncio.create_task(informer.run()) for informer in watched]
        background.append(asyncio.create_task(self._events.run()))
        background.append(asyncio.create_task(self._metrics.watch_lag()))
        served = [await self._serve()]
        if self._options.debug_port:
            served.append(await serve_debug(self._options.debug_port, self._inside))
        election = self._election = Election(
            await load_credentials(self._options.kubeconfig),
            namespace=self._own_namespace,
            name=LEASE,
            identity=f"{os.environ.get('POD_NAME', socket.gethostname())}-{uuid.uuid4().hex[:8]}",
            floor=self._highest_epoch,
        )
        try:
            if self._options.release_all:
                await self._stand_others_down()
            if await self._until_stopped(self._lead(election)):
                log.info("stopping")
        finally:
            self._queue.close()
            await self._events.flush(timeout=2.0)
            await self._stand_others_up()
            await election.release()
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await self._provenance.close()
            for runner in served:
                await runner.cleanup()
            if self._traces is not None:
                await asyncio.to_thread(self._traces.close)

    async def _lead(self, election: Election) -> None:
        for informer in self._own:
            await informer.wait_synced()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CACHES_WITHIN):
                # Without policies and freezes nothing rises; but nothing that gets users out may wait for them.
                for informer in self._informers:
                    await informer.wait_synced()
        # What is known by now stays, and each full collection would walk through it: 0.1 s with a thousand Canaries.
        # Most of that are their specs, which are parsed here and not at the first look at each.
        for key in self._canaries.keys():
            await self._memory.read(key, live=False)
            await asyncio.sleep(0)
        gc.collect()
        gc.freeze()
        self._term = await election.acquire()
        # What people say is read nowhere else; nor are policies and sources, which matter while something rolls out.
        # The rest is read live too, but for each of many rollouts only now and then.
        live = self._world.live
        self._decisions.pressed = self._thaws.pressed = self._freezes.pressed = lambda: True
        self._policies.pressed = self._sources.pressed = lambda: live.are_had
        for informer in (self._canaries, *self._kept.values()):
            informer.pressed = lambda: live.are_rare
        self._api.limit_writes(election.remaining)
        # Rollouts first: who rests can wait. A key that waits already is not added again.
        running = [one.metadata.key for one in self._canaries if one.status.get("phase") in ACTIVE]
        for key in (*running, *self._canaries.keys(), *(f"{A_FREEZE}{name}" for name in self._freezes.keys())):
            self._queue.add(key)
        working = asyncio.create_task(self._queue.run(WORKERS, self._turn))
        if self._options.release_all:
            await self._until_released()
            return
        try:
            await working
        finally:
            self._queue.close()
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    async def _turn(self, key: str) -> timedelta | None:
        """One look at one Canary, counted and timed; or at a Freeze that owners may have thawed."""
        if key.startswith(A_FREEZE):
            return await self._thawing.thaw(key.removeprefix(A_FREEZE), _now())
        self._metrics.turns.inc()
        with self._metrics.seconds.time():
            try:
                again = await reconcile(key, self._world, _now())
            except NeedsUser as error:
                log.warning("needs_user", rollout=key, reason=error.reason, message=str(error))
                return timedelta(seconds=5)
            except Exception as error:
                self._metrics.failed(error)
                raise
        if again is None:
            self._queue.forget(key)
        return again

    def _tell(self, ref: Ref, before: Status, decision: Decision) -> None:
        self._metrics.decided(ref, before, decision)
        if self._traces is not None:
            self._traces.decided(ref, before, decision)

    def _shown(self) -> Iterator[Shown]:
        for one in self._canaries:
            yield Shown(one.metadata.namespace, one.metadata.name, one.status)

    def _wake_on_changes(self) -> None:
        """An event only names a Canary."""

        def on_canary(old: CanaryObject | None, new: CanaryObject | None) -> None:
            self._concern.change(old, new)
            changed = new or old
            if changed is not None and (new is None or not self._memory.is_own(new)):
                self._wake_soon(changed.metadata.key)

        def on_decision(old: DecisionObject | None, new: DecisionObject | None) -> None:
            if new is not None and new.spec.freeze is not None:
                self._wake(f"{A_FREEZE}{new.spec.freeze.name}")
            elif new is not None:
                self._wake(f"{new.metadata.namespace}/{new.spec.canary}")

        def on_named(key: str, old: Kept | None, new: Kept | None) -> None:
            for canary in self._concern.about(key):
                self._wake_soon(canary)

        def on_slice(key: str, old: Kept | None, new: Kept | None) -> None:
            changed = new or old
            if changed is not None:
                on_named(changed.group, old, new)

        def on_attached(key: str, old: Kept | None, new: Kept | None) -> None:
            policies = [each.read() for each in (old, new) if each is not None]
            for service in {service for policy in policies for service, _ in attached.services_of(policy)}:
                on_named(key_of(key.partition("/")[0], service), old, new)

        def on_freeze(old: SpecObject | None, new: SpecObject | None) -> None:
            if new is not None:
                self._wake(f"{A_FREEZE}{new.metadata.name}")
            for canary in self._canaries:
                if canary.status.get("phase") in ACTIVE:
                    self._wake(canary.metadata.key)

        def on_source(old: SourceObject | None, new: SourceObject | None) -> None:
            for key in self._canaries.keys():
                self._wake(key)

        self._canaries.on_change(on_canary)
        for informer in {self._decisions, self._thaws}:
            informer.on_change(on_decision)
        for resource in (DEPLOYMENTS, SERVICES, HTTPROUTES):
            self._kept[resource].on_keyed_change(on_named)
        self._kept[ENDPOINTSLICES].on_keyed_change(on_slice)
        for informer in self._attached.values():
            informer.on_keyed_change(on_attached)
        self._sources.on_change(on_source)
        self._freezes.on_change(on_freeze)

    def _wake(self, key: str) -> None:
        if self._term:
            self._queue.add(key)

    def _wake_soon(self, key: str) -> None:
        """One look for all that comes together."""
        if self._term:
            self._queue.add_after(key, SETTLES)

    async def _leads(self) -> bool:
        return self._election is not None and await self._election.leads(self._api)

    def _tell_of_stamp(self, ref: Ref, message: str) -> None:
        self._memory.tell(ref, "StampNotOurs", message, warning=True)

    async def _highest_epoch(self) -> int:
        """The highest term any Canary has seen: a deleted Lease must not make ours lower."""
        listing = await self._api.list(CANARIES, self._options.namespace, CanaryObject)
        return max((int(one.status.get("leaderEpoch", 0)) for one in listing.items), default=0)

    async def _stand_others_down(self) -> None:
        """For `--release-all`: the Deployment of the controller goes to 0, so that the Lease comes free."""
        with contextlib.suppress(Exception):
            # With an empty patch, since that is the one right on it that is needed anyway.
            found = await self._api.merge_patch(DEPLOYMENTS, self._own_namespace, DEPLOYMENT, {}, dry_run=True)
            self._stood_down = int(found["spec"].get("replicas", 1))
        await self._scale_others(0)

    async def _stand_others_up(self) -> None:
        """Not everything could be released, so that Serin stays: somebody has to look after what is left."""
        if self._stood_down:
            log.warning("not_released", replicas=self._stood_down)
            await self._scale_others(self._stood_down)

    async def _scale_others(self, replicas: int) -> None:
        with contextlib.suppress(Exception):
            await self._api.merge_patch(DEPLOYMENTS, self._own_namespace, DEPLOYMENT, {"spec": {"replicas": replicas}})

    async def _until_released(self) -> None:
        """Until no Canary carries our finalizer: nothing is held and all traffic is on stable."""
        while True:
            listing = await self._api.list(CANARIES, self._options.namespace, CanaryObject)
            held = [one.metadata.key for one in listing.items if FINALIZER in one.metadata.finalizers]
            if not held:
                log.info("released_all")
                self._stood_down = 0
                return
            log.info("releasing", left=len(held))
            for key in held:
                self._queue.add(key)
            await asyncio.sleep(1)

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        """Run `work` until it ends or a signal comes; true for the signal."""
        working, stopping = asyncio.create_task(work), asyncio.create_task(self._stop.wait())
        done, _ = await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopped = working not in done
        if stopped and self._term:
            # What is in hand is finished: a turn cut off in the middle is safe, but somebody would have to mend it.
            self._queue.close()
            await asyncio.wait({working}, timeout=FINISH_WITHIN)
        for task in (working, stopping):
            task.cancel()
        results = await asyncio.gather(working, stopping, return_exceptions=True)
        if isinstance(results[0], BaseExceptionGroup):
            fenced, _ = results[0].split(Fenced)
            if fenced is not None:
                raise Fenced(str(fenced.exceptions[0]))
        if isinstance(results[0], Exception):
            raise results[0]
        return stopped

    async def _serve(self) -> web.AppRunner:
        """Probes and metrics on their own ports."""
        app = web.Application()
        app.router.add_get("/livez", self._live)
        app.router.add_get("/readyz", self._ready)
        app.router.add_get("/metrics", self._scrape)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        for port in {self._options.health_port, self._options.metrics_port}:
            await web.TCPSite(runner, self._options.bind, port).start()
        return runner

    async def _live(self, request: web.Request) -> web.Response:
        """The loop answers, and the API server has been heard of lately."""
        silent = min(informer.age() for informer in self._informers)
        if all(informer.synced for informer in self._informers) and silent > SILENT_TOO_LONG:
            return web.Response(status=500, text=f"no word from the API server for {silent:.0f} s\n")
        return web.Response(text="ok\n")

    async def _ready(self, request: web.Request) -> web.Response:
        missing = [informer.resource.plural for informer in self._own if not informer.synced]
        if missing:
            return web.Response(status=503, text=f"not synced: {', '.join(missing)}\n")
        odd = [
            f"{each.resource.plural} {key}: {why}" for each in self._informers for key, why in each.unreadable.items()
        ]
        return web.Response(
            text="\n".join(["ok", *(f"cannot be read, and is left alone: {one}" for one in odd[:20]), ""])
        )

    async def _scrape(self, request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE})


def main(arguments: Sequence[str] | None = None) -> int:
    """`serin-controller`, and `python -m controller`."""
    options = parser().parse_args(arguments)
    _log_to(sys.stderr)
    try:
        asyncio.run(_run(options))
    except Fenced as error:
        log.error("fenced", message=str(error))
        os._exit(70)
    except NeedsUser as error:
        log.error("cannot_run", reason=error.reason, message=str(error))
        return 1
    return 0


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is no port: write 1 to 65535")
    return port


def parser() -> argparse.ArgumentParser:
    """The controller's options."""
    made = argparse.ArgumentParser(prog="serin-controller", description=__doc__)
    made.add_argument("--namespace", default=None, help="watch this namespace only (default: all)")
    made.add_argument("--kubeconfig", default=None, help="how to reach the API server (default: as a pod)")
    made.add_argument("--bind", default=os.environ.get("POD_IP", "0.0.0.0"), help="address of probes and metrics")
    made.add_argument("--metrics-port", type=_port, default=8080)
    made.add_argument("--health-port", type=_port, default=8081)
    made.add_argument("--debug-port", type=_port, default=0, help="serve /debug on loopback (default: not at all)")
    made.add_argument(
        "--traces",
        action="store_true",
        help="send a trace of each rollout that ends to OTEL_EXPORTER_OTLP_ENDPOINT (needs the extra `otel`)",
    )
    made.add_argument("--service-account", default="serin-controller", help="the name the admission policies exempt")
    made.add_argument(
        "--hold",
        choices=[each.value for each in Hold],
        default=Hold.AUTO.value,
        help="how edits are held: by admission, by a pause at rest, or by what the API server offers (default)",
    )
    made.add_argument(
        "--release-all", action="store_true", help="let every Canary go, as before an uninstall, and exit"
    )
    add_options(made)
    return made


async def _run(options: argparse.Namespace) -> None:
    async with await Api.connect(options.kubeconfig) as api:
        await Controller(api, options).run()


def _now() -> datetime:
    return datetime.now(UTC)


def _harmless(logger: Any, method: str, facts: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Messages quote what people and servers wrote: none of it may begin a line of its own or steer a terminal."""
    return {name: plain(fact, 4096) if isinstance(fact, str) else fact for name, fact in facts.items()}


def _log_to(stream: Any) -> None:
    logging.basicConfig(stream=stream, level=logging.WARNING)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
            structlog.processors.format_exc_info,
            _harmless,
            structlog.processors.LogfmtRenderer(key_order=["at", "level", "event"], sort_keys=False),
        ],
        logger_factory=structlog.PrintLoggerFactory(stream),
    )
