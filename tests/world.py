"""A fake cluster, gateway, metrics server and clock for the real loop, with oracles that watch from inside.

The one thing to know: every write goes through `World.write`, which is where crashes, lost replies and
refusals happen, where the API server's own rules are kept, and where the oracles look.
"""

from __future__ import annotations

import contextlib
import math
import random
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast

from controller.errors import ApiUnavailable, Conflict, SourceUnavailable
from controller.guardrails.freeze import Freeze, Subject, active_window, freezes_in_force
from controller.kube.fence import Fence
from controller.model.bound import bound_digest
from controller.model.chain import Link, grown, verify_chain
from controller.model.evidence import NO_EVIDENCE, Evidence
from controller.model.policy import FreezeSpec, OnStart, Signer
from controller.model.spec import Baseline, CanarySpec, Metric, Verb
from controller.model.status import ACTIVE, Outcome, Phase, Status, parse_status, read_status, render_status
from controller.model.world import CanaryPods, DecisionSeen, Pins, RecordSeen, Target, Weight
from controller.ports import ArmSamples, CanarySeen, GaugeSamples, MetricSamples, Past, RawSample, Ref, RulesSeen
from controller.rollout.answers import broken_glass, overridden
from tests.builders import spec as usual_spec

KEY = "shop/checkout"
REPLICAS = 4
RPS = 200.0
READY_AFTER = 3.0
ROLL_TAKES = 6.0
PROGRAMMED_AFTER = 0.3
SET_ONCE = (
    *("canary", "attempt", "number", "previous", "startedAt", "templateHash", "stableHash", "images", "stableImages"),
    *("origin", "evidence", "planDigest"),
)
LATE, LATEST = 0.15, 4.0
"""how often a watch begins to lag, and by how many seconds at most"""
ARMS = ("canary", "stable", "baseline")
PATIENCE = 10.0
"""seconds in which a weight above what is authorised must have been lowered, crashes included"""


Seen = TypeVar("Seen")


class Crash(BaseException):
    """The process is gone, at this very point."""


class Stall(Crash):
    """The process stops with this request half sent, and it arrives when somebody else leads."""


class Delayed(ApiUnavailable):
    """The client gave up waiting, and the request arrives all the same, later."""


class OracleBroken(AssertionError):
    """Something happened that must never happen."""


@dataclass
class Deployment:
    """The target: which template is asked for, which one the pods run, and how far a roll is."""

    uid: str = "uid-1"
    template: str = "v1"
    running: str = "v1"
    paused: bool = False
    version: int = 1
    roll_left: float = 0.0
    epoch: str = ""

    def touched(self) -> None:
        self.version += 1


@dataclass
class Fleet:
    """The canary workload."""

    attempt: str = ""
    template: str = ""
    replicas: int = 0
    age: float = 0.0
    """of the youngest pod"""
    replaced: str = ""
    older: tuple[float, ...] = ()
    """by how many seconds each pod is that was there when the youngest were started"""

    @property
    def ready(self) -> int:
        return self.replicas if self.age >= READY_AFTER else 0

    @property
    def ages(self) -> tuple[float, ...]:
        """Of every pod, the youngest first."""
        youngest = (self.age,) * (self.replicas - len(self.older))
        return (*youngest, *sorted(self.age + by for by in self.older))


@dataclass
class Route:
    """The HTTPRoute: what it says, and since when."""

    percent: float = 0.0
    present: bool = False
    epoch: str = ""
    changed_at: float = -100.0
    effective: float = 0.0


@dataclass
class World:
    """Everything outside the loop."""

    chance: random.Random
    failing: dict[str, float] = field(default_factory=dict)
    """failed requests of all requests, by template"""
    cold: float = 0.0
    """failed requests of every pod that was started for a rollout, on top of those of its template"""
    cold_for: float = math.inf
    """seconds of pod age after which it fails no more of them"""
    replicas: int = REPLICAS
    """of the target"""
    using: dict[str, float] = field(default_factory=dict)
    """what a gauge says of each pod, by template; 1 where nothing is said"""
    now: datetime = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    spec: CanarySpec = field(default_factory=usual_spec)
    generation: int = 1
    status: dict[str, Any] = field(default_factory=dict)
    version: int = 1
    finalizer: bool = False
    deleting: bool = False
    gone: bool = False
    target: Deployment = field(default_factory=Deployment)
    clock_error: timedelta = timedelta(0)
    """by which the controller's clock is ahead of everybody else's"""
    patience: float = PATIENCE
    rests_paused: bool = False
    """the API server cannot pause an edit in its own request"""
    in_force: bool = True
    """the admission policy: without it an edit rolls, and a pause at rest is anybody's to take off"""
    ailing: bool = False
    """one of the target's pods is not available, whatever revision it runs"""
    fleet: Fleet = field(default_factory=Fleet)
    baseline: Fleet = field(default_factory=Fleet)
    """fresh pods of stable's template, where the spec asks for them"""
    route: Route = field(default_factory=Route)
    pinned: str = ""
    decisions: list[DecisionSeen] = field(default_factory=list)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    samples: dict[str, list[tuple[float, float, float]]] = field(default_factory=lambda: {arm: [] for arm in ARMS})
    counters: dict[str, list[float]] = field(default_factory=lambda: {arm: [0.0, 0.0] for arm in ARMS})
    records_down: bool = False
    metrics_up: bool = True
    gateway_up: bool = True
    """it follows the route and says so; one that is down serves on by what it knew"""
    source_problems: tuple[str, ...] = ()
    """what its metrics server alone can tell is wrong with the source"""
    may: bool | None = True
    """what the API server says of everybody's rights; None while it does not answer"""
    rules: RulesSeen = field(default_factory=RulesSeen)
    evidence: Evidence = NO_EVIDENCE
    """what is proven of every image, or why the registry cannot be asked"""
    labels: dict[str, str] = field(default_factory=dict)
    served_without_pods: float = 0.0
    reached_nobody: float = 0.0
    """seconds for which the pinned Services have had no pod"""
    writes: list[tuple[datetime, str, int]] = field(default_factory=list)
    newer: bool = False
    """the status was written by a version that knows more phases than ours: the controller cannot read it"""
    live_looks: int = 0
    """how often the Canary was read anew and not from a watch"""
    lease: int = 0
    """the term that the Lease says leads"""
    late: list[tuple[str, int, Callable[[], None]]] = field(default_factory=list)
    zero_since: float = 0.0
    above_for: float = 0.0
    before_write: Callable[[str], None] = lambda what: None
    after_write: Callable[[str], None] = lambda what: None
    _parsed: tuple[dict[str, Any], Status] | None = None

    # -- time ------------------------------------------------------------------------------------

    def pass_time(self, seconds: float = 1.0) -> None:
        """The cluster lives on for a while: rolls, starts, traffic, scrapes."""
        self.now += timedelta(seconds=seconds)
        self.fleet.age += seconds
        self.baseline.age += seconds
        if self.is_programmed:
            before, self.route.effective = self.route.effective, self.route.percent if self.route.present else 0.0
            if before > 0 and self.route.effective == 0:
                self.zero_since = self.clock
        target = self.target
        if not target.paused and (target.running != target.template or target.roll_left > 0):
            target.roll_left = (target.roll_left or ROLL_TAKES) - seconds
            if target.roll_left <= 0:
                target.running, target.roll_left = target.template, 0.0
                target.touched()
        self._serve(seconds)
        rolled = target.roll_left == 0 and self.pinned not in {"", _hash(target.running)}
        self.reached_nobody = self.reached_nobody + seconds if rolled else 0.0
        if self.reached_nobody > self.patience:
            raise OracleBroken(f"O11: Services are pinned to {self.pinned}, and every pod runs {target.running}")

    @property
    def is_programmed(self) -> bool:
        return self.gateway_up and self.clock - self.route.changed_at >= PROGRAMMED_AFTER

    @property
    def clock(self) -> float:
        return self.now.timestamp()

    def ready_of(self, stable_hash: str) -> int:
        """The target's pods that run stable's revision and are ready; the first of the new ones come beside them."""
        target = self.target
        if stable_hash and _hash(target.running) != stable_hash:
            return 0
        left = target.roll_left / ROLL_TAKES if target.roll_left and target.template != target.running else 1.0
        return math.ceil(self.replicas * left)

    def _serve(self, seconds: float) -> None:
        share = self.route.effective / 100
        above = self.route.present and self.route.percent > self.remembered.weight
        self.above_for = self.above_for + seconds if above else 0.0
        if self.above_for > self.patience:
            raise OracleBroken(f"O1: weight {self.route.percent}, authorised {self.remembered.weight}, for long")
        beside = self.spec.analysis.baseline.share(self.route.effective) / 100
        if (share > 0 and self.fleet.ready == 0) or (beside > 0 and self.baseline.ready == 0):
            self.served_without_pods += seconds
            if self.served_without_pods > 10:
                raise OracleBroken(f"O3: weight {self.route.effective} with no ready pod behind it for 10 s")
        else:
            self.served_without_pods = 0.0
        for arm, part, template, ages in (
            ("canary", share, self.fleet.template, self.fleet.ages),
            ("stable", 1 - share - beside, self.target.running, ()),
            ("baseline", beside, self.baseline.template, self.baseline.ages),
        ):
            if arm == "baseline" and not self.spec.analysis.baseline.fresh:
                continue
            requests = round(RPS * seconds * part)
            cold = sum(age < self.cold_for for age in ages) / max(len(ages), 1)
            ratio = self.failing.get(template, 0.0) + self.cold * cold
            errors = sum(self.chance.random() < ratio for _ in range(requests)) if ratio else 0
            self.counters[arm][0] += requests
            self.counters[arm][1] += errors
            self.samples[arm].append((self.clock, *self.counters[arm]))

    # -- writes ----------------------------------------------------------------------------------

    def write(self, what: str, term: int, change: Callable[[], None]) -> None:
        """One accepted write, with whatever misfortune the test wants around it."""
        try:
            self.before_write(what)
        except (Stall, Delayed):
            self.late.append((what, term, change))
            raise
        self._accept(what, term, change)
        self.after_write(what)

    def deliver_late(self) -> None:
        """A request of a leader that was stopped arrives now."""
        what, term, change = self.late.pop(0)
        with contextlib.suppress(Conflict):
            self._accept(f"late {what}", term, change)

    def _accept(self, what: str, term: int, change: Callable[[], None]) -> None:
        status, weight = self.remembered, self.route.percent if self.route.present else 0.0
        leader = status.leader_epoch
        if self.newer and what != "weight 0.0" and not what.startswith("late"):
            raise OracleBroken(f"{what} on a status that is not ours")
        first = not what.startswith(("status", "finalizer", "late")) and not self.newer
        if first and status.phase in ACTIVE and leader < term:
            raise OracleBroken(f"O8: {what} by term {term} before it stood in the status ({leader})")
        change()
        raised = (self.route.percent if self.route.present else 0.0) > weight
        if raised and self.is_held() and not self.is_passed_over() and not what.startswith("late"):
            raise OracleBroken(f"O9: {what} while a freeze is in force")
        fresh = self.spec.analysis.baseline.fresh
        if raised and (self.fleet.ready == 0 or (fresh and self.baseline.ready == 0)) and not what.startswith("late"):
            raise OracleBroken(f"O3: {what} without a ready pod behind it")
        if term < leader and (raised or "status" in what):
            raise OracleBroken(f"O8: {what} by term {term} accepted after term {leader}")
        self.writes.append((self.now, what, term))

    def broken_chain(self) -> list[str]:
        """What an auditor would find in the records; nothing, whatever happened to the controller."""
        links = [Link(f"checkout-{attempt}", record) for attempt, record in self.records.items()]
        head = self.remembered.head
        found = verify_chain("checkout", links, last=head.number, head=head.hash)
        return [f"{one.record} {one.finding}" for one in found]

    @property
    def remembered(self) -> Status:
        if self._parsed is None or self._parsed[0] is not self.status:
            self._parsed = (self.status, parse_status(self.status))
        return self._parsed[1]

    def is_held(self) -> bool:
        """Whether a freeze in force lets nothing of what runs now rise; one may let finish what began before it did."""
        passed = overridden(self.remembered, self.now, frozenset()) if self.may is True else {}
        return bool(self.rules.problem) or any(
            self._holds(freeze) for freeze in self.rules.freezes if freeze.uid not in passed
        )

    def _holds(self, freeze: Freeze) -> bool:
        assert freeze.spec is not None
        window, attempt = active_window(freeze.spec, self.now), self.remembered.attempt
        began = window and (window.since or freeze.created)
        lets_finish = freeze.spec.on_start is OnStart.FINISH and attempt and began and attempt.started_at < began
        meant = bool(freezes_in_force([freeze], Subject("shop", self.labels), self.now))
        return window is not None and meant and not lets_finish

    def is_passed_over(self) -> bool:
        """Somebody who holds the right to has broken the glass for this attempt."""
        return self.may is True and broken_glass(self.remembered, self.now, frozenset()) is not None

    def engage(self, name: str = "stop", **spec: Any) -> None:
        """Somebody on call engages a freeze; with no schedule it is a kill switch."""
        body = FreezeSpec.model_validate({"reason": "incident 7"} | spec)
        made = Freeze(name, f"uid-{name}-{self.version}", body, created=self.now)
        self.rules = replace(self.rules, freezes=(*self.rules.freezes, made))

    def thaw(self) -> None:
        """Two owners have thawed everything."""
        self.rules = replace(self.rules, freezes=())

    # -- what people and tools do -----------------------------------------------------------------

    def edit(self, template: str, *, slips: bool = False) -> None:
        """Anybody changes the template; the admission policy holds it where stable is known, and where there is one.

        It refuses it while pods roll; one that slips in came before the API server had heard of that. None of
        it is so where the policy is not in force.
        """
        status, adopted = self.remembered, self.remembered.stable is not None and template != self.target.template
        moved = status.attempt is not None and (status.attempt.releasing or status.attempt.unheld)
        rolls = status.phase is Phase.RELEASING or (status.phase is Phase.ROLLING_BACK and moved)
        rolls = rolls or (status.phase is Phase.FINISHING and self.rests_paused)
        if rolls and adopted and self.in_force and not slips:
            return
        self.target.template = template
        self.target.paused = self.in_force and (self.target.paused or (adopted and not self.rests_paused))
        self.target.touched()

    def say(self, verb: Verb, step: int = 0, by: str = "alice", freeze: str = "") -> None:
        """A person writes a Decision about the present attempt."""
        attempt = self.remembered.attempt
        if attempt is None:
            return
        number = len(self.decisions) + 1
        self.decisions.append(
            DecisionSeen(
                *(f"d-{number}", f"d-{number}", verb, by, attempt.id, step, "because", self.now),
                digest=bound_digest(attempt.images, {}),
                plan_digest=attempt.plan_digest,
                expires_at=self.now + timedelta(hours=1) if verb in {Verb.BREAK_GLASS, Verb.OVERRIDE} else None,
                freeze=next((one.uid for one in self.rules.freezes if one.name == freeze), ""),
                freeze_name=freeze,
            )
        )

    def hand_edit(self, percent: float) -> None:
        """Somebody edits the route's weight."""
        if self.route.present:
            self.route.percent, self.route.changed_at = percent, self.clock

    def forge(self, stamp: str) -> None:
        """Somebody writes a stamp on what is his, by hand or with a manifest from another cluster."""
        self.route.epoch = self.target.epoch = stamp
        self.target.touched()

    def reset_route(self) -> None:
        """An owner's apply resets the list of backends; annotations stay."""
        self.route.present, self.route.percent, self.route.changed_at = False, 0.0, self.clock


def _pods(fleet: Fleet) -> CanaryPods:
    if not fleet.attempt:
        return CanaryPods()
    age, ready = fleet.age, fleet.ready
    found = CanaryPods(True, fleet.attempt, fleet.replicas, ready, ready, replaced=fleet.replaced)
    return replace(found, youngest_age=age, oldest_age=max(fleet.ages, default=0.0), ages=fleet.ages if ready else ())


def _applied(fleet: Fleet, attempt: str, template: str, replicas: int) -> Fleet:
    """Made, scaled, or deleted because it is of another attempt. Pods that serve stay ready while more start."""
    if fleet.attempt and fleet.attempt != attempt:
        return Fleet()
    if not fleet.attempt:
        return Fleet(attempt, template, replicas)
    if replicas <= fleet.replicas:
        return replace(fleet, replicas=replicas, age=max(fleet.age, READY_AFTER), older=fleet.older[:replicas])
    older = tuple(max(age - READY_AFTER, 0.0) for age in fleet.ages)
    return replace(fleet, replicas=replicas, age=READY_AFTER, older=older)


def _hash(template: str) -> str:
    return f"h-{template}"


@dataclass
class Watch:
    """One watch of one process: late now and then, never back in time."""

    shown: list[Any] = field(default_factory=list)
    late_until: float = 0.0


@dataclass
class Hands:
    """All ports of one process: what it reads and writes, under its term."""

    world: World
    term: int
    watches: dict[str, Watch] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.world.lease = max(self.world.lease, self.term)
        self.fence = Fence(self._leads)

    async def _leads(self) -> bool:
        return self.world.lease == self.term

    def _watched(self, what: str, now: Seen, live: bool) -> Seen:
        """What is so, or for a look that is not live what a watch that lags by seconds has brought of it."""
        world, watch = self.world, self.watches.setdefault(what, Watch())
        if live:
            return now
        watch.shown.append(now)
        if world.clock >= watch.late_until:
            del watch.shown[:-1]
            if world.chance.random() < LATE:
                watch.late_until = world.clock + world.chance.uniform(0.5, LATEST)
        return cast(Seen, watch.shown[0])

    def _wrote(self, what: str) -> None:
        """The reply to a write of ours came: nothing older is read from here on."""
        self.watches[what] = Watch()

    # Memory

    async def read(self, key: str, *, live: bool = True) -> CanarySeen | None:
        world = self.world
        world.live_looks += live
        found = CanarySeen(
            Ref("shop", "checkout", "c-1"),
            str(world.version),
            world.generation,
            world.deleting,
            world.finalizer,
            world.spec,
            (),
            read_status(world.status | {"phase": "Marinating"})[0] if world.newer else world.remembered,
            world.labels,
        )
        return self._watched("canary", None if world.gone else found, live)

    async def write_status(self, seen: CanarySeen, status: Status) -> None:
        world = self.world

        def change() -> None:
            was = world.remembered
            if str(world.version) != seen.resource_version:
                raise Conflict("status")
            if status.leader_epoch < was.leader_epoch:
                raise Conflict("the CRD's epoch rule")
            world.status = render_status(status)
            world.version += 1
            _check_transition(was, status)

        world.write(f"status {status.phase} {status.reason}", self.term, change)
        self._wrote("canary")

    async def set_finalizer(self, seen: CanarySeen, present: bool) -> None:
        world = self.world

        def change() -> None:
            if str(world.version) != seen.resource_version:
                raise Conflict("finalizer")
            world.finalizer = present
            world.version += 1
            world.gone = world.deleting and not present

        world.write("finalizer", self.term, change)

    async def read_decisions(self, ref: Ref) -> tuple[DecisionSeen, ...]:
        return tuple(self.world.decisions)

    async def others_on_target(self, ref: Ref, spec: CanarySpec) -> tuple[str, ...]:
        return ()

    async def read_record(self, ref: Ref, attempt: str) -> RecordSeen:
        if self.world.records_down:
            raise ApiUnavailable("records cannot be read")
        found = self.world.records.get(attempt)
        if found is None:
            return RecordSeen()
        return RecordSeen(
            True, len(found.get("steps", ())), found.get("outcome", ""), found.get("number", 0), found.get("hash", "")
        )

    async def read_last_record(self, ref: Ref) -> RecordSeen:
        seen = [await self.read_record(ref, attempt) for attempt in self.world.records]
        return max(seen, key=lambda one: one.number, default=RecordSeen())

    async def store_record(self, ref: Ref, attempt: str, record: dict[str, Any]) -> None:
        world = self.world
        if world.records_down:
            raise ApiUnavailable("records cannot be written")

        def change() -> None:
            before = world.records.get(attempt, {})
            wanted = grown(before, record)
            if any(wanted.get(name) != before[name] for name in SET_ONCE if name in before):
                raise OracleBroken(f"the admission policy would refuse {record} after {before}")
            if any(record.get(name) != before[name] for name in SET_ONCE if name in before):
                raise OracleBroken(f"O7: what record {attempt} said changed: {record} after {before}")
            steps = before.get("steps", [])
            if wanted.get("steps", [])[: len(steps)] != steps:
                raise OracleBroken(f"O7: steps of record {attempt} changed")
            world.records[attempt] = wanted

        world.write(f"record {record.get('outcome', '')}", self.term, change)

    def tell(self, ref: Ref, reason: str, message: str, *, warning: bool) -> None:
        return

    # Rights

    async def may(self, by: str, groups: tuple[str, ...], verb: str, namespace: str, canary: str) -> bool | None:
        return self.world.may

    # Provenance

    async def read_evidence(self, ref: Ref, images: tuple[str, ...], signers: tuple[Signer, ...]) -> Evidence:
        return self.world.evidence

    # Rules

    def read_rules(self) -> RulesSeen:
        return self.world.rules

    def promoted(self, images: tuple[str, ...]) -> frozenset[tuple[str, str]]:
        return frozenset()

    # TrafficRouter

    async def read_weight(self, ref: Ref, spec: CanarySpec, *, live: bool = True) -> Weight:
        route = self.world.route
        percent = route.percent if route.present else 0.0
        weight = Weight(percent, route.present, self.world.is_programmed, route.epoch)
        return self._watched("route", weight, live)

    async def set_weight(self, ref: Ref, spec: CanarySpec, percent: float, *, epoch: str, was: str) -> None:
        world = self.world
        await self.fence.check(ref, "route", world.route.epoch, epoch, way_back=not percent)

        def change() -> None:
            route, status = world.route, world.remembered
            if route.epoch != was:
                raise Conflict("route")
            raised = percent > (route.percent if route.present else 0.0)
            if raised and percent > status.weight:
                raise OracleBroken(f"O1: weight raised to {percent}, authorised {status.weight}")
            if raised and status.attempt and status.attempt.outcome:
                raise OracleBroken(f"O2: weight raised to {percent} after {status.attempt.outcome} was remembered")
            world.route = replace(route, percent=percent, present=True, epoch=epoch, changed_at=world.clock)

        world.write(f"weight {percent}", self.term, change)
        self._wrote("route")

    async def remove(self, ref: Ref, spec: CanarySpec) -> None:
        world = self.world

        read = world.route.epoch

        def change() -> None:
            if world.route.epoch != read:
                raise Conflict("route")
            world.route = Route(changed_at=world.clock, effective=world.route.effective)

        world.write("leave route", self.term, change)

    # Workload

    async def read_target(
        self, ref: Ref, spec: CanarySpec, stable_hash: str, candidate: str, *, live: bool = True
    ) -> Target | None:
        target = self.world.target
        whole = target.roll_left == 0 and not self.world.ailing
        settled = whole and (target.running == target.template or target.paused)
        found = Target(
            uid=target.uid,
            generation=target.version,
            resource_version=str(target.version),
            paused=target.paused,
            rests_paused=self.world.rests_paused,
            replicas=self.world.replicas,
            template={"of": target.template},
            template_hash=_hash(target.template),
            images=(target.template,),
            settled_hash=_hash(target.running) if settled else "",
            settled_template={"of": target.running},
            settled_template_hash=_hash(target.running),
            settled_images=(target.running,),
            has_pods=True,
            runs_another=bool(stable_hash) and _hash(target.running) != stable_hash,
            stable_ready=self.world.ready_of(stable_hash),
            strays=bool(stable_hash) and (target.roll_left > 0 or _hash(target.running) != stable_hash),
            roll_complete=whole and target.running == target.template,
        )
        return self._watched("target", found, live)

    async def read_canary(self, ref: Ref, spec: CanarySpec, *, live: bool = True) -> CanaryPods:
        return self._watched("pods", _pods(self.world.fleet), live)

    async def read_baseline(self, ref: Ref, spec: CanarySpec, *, live: bool = True) -> CanaryPods:
        if not spec.analysis.baseline.fresh:
            return CanaryPods()
        return self._watched("baseline", _pods(self.world.baseline), live)

    async def read_pins(
        self, ref: Ref, spec: CanarySpec, target: Target, stable_hash: str, *, live: bool = True
    ) -> Pins:
        pins = Pins(pinned=self.world.pinned == stable_hash, any_pin=bool(self.world.pinned))
        return self._watched("pins", pins, live)

    async def prove_hold(self, ref: Ref, spec: CanarySpec, target: Target) -> bool:
        return self.world.in_force

    async def pin(self, ref: Ref, spec: CanarySpec, stable_hash: str) -> None:
        if stable_hash != _hash(self.world.target.running):
            raise OracleBroken(f"Services are pinned to {stable_hash}, and every pod runs {self.world.target.running}")
        self.world.write("pin", self.term, lambda: setattr(self.world, "pinned", stable_hash))

    async def unpin(self, ref: Ref, spec: CanarySpec) -> None:
        self.world.write("unpin", self.term, lambda: setattr(self.world, "pinned", ""))

    async def apply_canary(
        self, ref: Ref, spec: CanarySpec, target: Target, *, attempt: str, replicas: int, epoch: str
    ) -> None:
        world = self.world

        found = world.fleet.attempt

        def change() -> None:
            if world.fleet.attempt != found:
                raise Conflict("another uid, or one that exists")
            world.fleet = _applied(world.fleet, attempt, world.target.template, replicas)

        world.write("canary pods", self.term, change)

    async def apply_baseline(
        self, ref: Ref, spec: CanarySpec, template: dict[str, Any], *, attempt: str, replicas: int, epoch: str
    ) -> None:
        world = self.world
        found = world.baseline.attempt

        def change() -> None:
            if world.baseline.attempt != found:
                raise Conflict("another uid, or one that exists")
            if template["of"] != world.target.running:
                raise OracleBroken(f"the baseline is of {template['of']}, and stable runs {world.target.running}")
            world.baseline = _applied(world.baseline, attempt, template["of"], replicas)

        world.write("baseline pods", self.term, change)

    async def delete_canary(self, ref: Ref, spec: CanarySpec) -> None:
        world = self.world

        found = world.fleet.attempt

        def change() -> None:
            if world.fleet.attempt != found:
                raise Conflict("another uid")
            if world.route.effective > 0 or world.clock - world.zero_since < 1.0:
                raise OracleBroken("canary pods deleted while requests may be under way")
            world.fleet = world.baseline = Fleet()
            world.target.epoch = ""

        world.write("delete canary", self.term, change)

    async def replace_pods(self, ref: Ref, spec: CanarySpec, *, epoch: str) -> None:
        world = self.world

        def change() -> None:
            if world.route.effective > 0:
                raise OracleBroken("canary pods replaced while they have traffic")
            world.fleet = replace(world.fleet, age=0.0, replaced=epoch, older=())
            world.baseline = replace(world.baseline, age=0.0, replaced=epoch, older=())

        world.write("replace pods", self.term, change)

    async def pause(self, ref: Ref, spec: CanarySpec, target: Target, *, epoch: str) -> None:
        await self._on_target(ref, target, "pause", epoch, paused=True)

    async def release(self, ref: Ref, spec: CanarySpec, target: Target, *, epoch: str) -> None:
        await self._on_target(ref, target, "release", epoch, paused=False)

    async def restore(
        self, ref: Ref, spec: CanarySpec, target: Target, template: dict[str, Any], *, epoch: str, paused: bool
    ) -> None:
        await self._on_target(ref, target, "restore", epoch, paused=paused, template=template["of"])

    async def delete_replicaset(self, ref: Ref, name: str) -> None:
        raise NotImplementedError("the fake target keeps no old ReplicaSets")

    async def _on_target(self, ref: Ref, target: Target, what: str, epoch: str, **changes: Any) -> None:
        world = self.world
        await self.fence.check(ref, "target", world.target.epoch, epoch, way_back=what != "release")

        def change() -> None:
            if str(world.target.version) != target.resource_version:
                raise Conflict("target")
            status = world.remembered
            released = _hash(changes.get("template", world.target.template))
            if changes.get("paused") is False and released == status.rejected:
                raise OracleBroken("a rejected template was released")
            vetted = {status.stable.template_hash} if status.stable else set()
            if status.attempt is not None and status.phase is Phase.RELEASING:
                vetted.add(status.attempt.template_hash)
            if changes.get("paused") is False and released not in vetted:
                raise OracleBroken(f"{released} was released in {status.phase}, and nothing has judged it")
            world.target = replace(world.target, epoch=epoch, **changes)
            world.target.touched()

        world.write(what, self.term, change)

    # MetricSource

    async def read_samples(
        self, ref: Ref, spec: CanarySpec, metric: Metric, since: datetime, until: datetime
    ) -> MetricSamples:
        if not self.world.metrics_up:
            raise SourceUnavailable("default", "down")
        latency, first, last = metric.latency is not None, since.timestamp(), until.timestamp()

        def arm(name: str) -> ArmSamples:
            rows = self.world.samples[name][-400:]
            rows = rows[bisect_right(rows, first, key=_at) : bisect_right(rows, last, key=_at)]
            return ArmSamples(
                tuple(RawSample(f"{name}-all", at, total) for at, total, _ in rows),
                tuple(RawSample(f"{name}-bad", at, 0.0 if latency else bad) for at, _, bad in rows),
            )

        against = "baseline" if spec.analysis.baseline.fresh else "stable"
        return MetricSamples(metric.name, arm("canary"), arm(against))

    async def read_gauge(
        self, ref: Ref, spec: CanarySpec, metric: Metric, since: datetime, until: datetime, *, step: float
    ) -> GaugeSamples:
        begin, end = since.timestamp(), until.timestamp()
        instants = [number * step for number in range(math.floor(begin / step) + 1, math.floor(end / step) + 1)]
        used = self.world.using
        ours, theirs = used.get(self.world.fleet.template, 1.0), used.get(self.world.target.running, 1.0)
        return GaugeSamples(
            {"c-1": tuple((at, ours) for at in instants)}, {"s-1": tuple((at, theirs) for at in instants)}
        )

    async def read_past(
        self, ref: Ref, spec: CanarySpec, until: datetime, *, traffic: timedelta, pods: timedelta
    ) -> Past:
        plain = spec.model_copy(update={"analysis": spec.analysis.model_copy(update={"baseline": Baseline()})})
        seen = {
            one.name: (await self.read_samples(ref, plain, one, until - traffic, until)).stable
            for one in spec.analysis.metrics
        }
        return Past(1.0, seen)

    async def read_pods(
        self, ref: Ref, spec: CanarySpec, since: datetime, until: datetime, *, step: float
    ) -> dict[str, ArmSamples]:
        return {}

    async def scrape_interval(self, spec: CanarySpec) -> float:
        return 1.0

    async def check(self, ref: Ref, spec: CanarySpec, *, live: bool = True) -> tuple[str, ...]:
        if live and not self.world.metrics_up:
            raise SourceUnavailable("default", "down")
        return self.world.source_problems if live else ()


def _at(row: tuple[float, float, float]) -> float:
    return row[0]


def _check_transition(was: Status, now: Status) -> None:
    """O1, O2 and O7 on what is remembered."""
    before, after = was.attempt, now.attempt
    if before is None or after is None or before.id != after.id:
        return
    if after.step not in {before.step, before.step + 1}:
        raise OracleBroken(f"O7: step {before.step} was followed by {after.step}")
    if after.outcome and now.weight > 0:
        raise OracleBroken(f"O2: weight {now.weight} is authorised after {after.outcome}")
    ended = {Outcome.ROLLED_BACK, Outcome.ABORTED, Outcome.REJECTED}
    if before.outcome in ended and after.outcome not in ended:
        raise OracleBroken(f"O2: {before.outcome} became {after.outcome}")


__all__ = ["KEY", "Crash", "Delayed", "Hands", "OracleBroken", "Stall", "World"]
