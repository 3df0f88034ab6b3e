"""A router whose route is one value in memory, for the loop's tests. It passes the contract of the real ones.

What the world does to a route stands in plain methods: an owner resets it, a person lowers it, a reply gets lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from controller.errors import ApiUnavailable, Conflict, Fenced, NeedsUser, SerinError
from controller.model.epoch import term_of
from controller.model.spec import CanarySpec
from controller.model.world import Weight
from controller.ports import Ref


@dataclass(frozen=True)
class FakeRoute:
    """One route as one Canary sees it."""

    percent: float = 0.0
    present: bool = False
    epoch: str = ""
    problem: str = ""
    problem_message: str = ""
    programmed: bool = True


@dataclass
class FakeRouter:
    """`ports.TrafficRouter` without a cluster. A route exists once `add_route` was called for it."""

    routes: dict[tuple[str, str], FakeRoute] = field(default_factory=dict)
    """by Canary key and route name"""
    writes: list[tuple[str, float | None, str]] = field(default_factory=list)
    """(Canary key, percent or None for a removal, epoch), oldest first, only those that changed something"""
    errors: list[SerinError] = field(default_factory=list)
    """raised by the next calls, one each, before anything happens"""
    lost_replies: int = 0
    """so many of the next writes happen and seem not to have"""
    lag: bool = False
    """a written route is not programmed until `program` is called"""

    def add_route(self, ref: Ref, spec: CanarySpec) -> None:
        self.routes[_key(ref, spec)] = FakeRoute()

    def change(self, ref: Ref, spec: CanarySpec, **changes: object) -> None:
        """What somebody else does to the route: another percent, no entry of ours, a problem, another epoch."""
        self.routes[_key(ref, spec)] = replace(self.routes[_key(ref, spec)], **changes)  # type: ignore[arg-type]

    def reset(self, ref: Ref, spec: CanarySpec) -> None:
        """The owner applies the rules again; our annotations are not in the owner's manifest, so they stay."""
        self.change(ref, spec, percent=0.0, present=False)

    def program(self) -> None:
        """The gateway reports every route as it is now."""
        self.routes = {key: replace(route, programmed=True) for key, route in self.routes.items()}

    async def read_weight(self, ref: Ref, spec: CanarySpec, *, live: bool = True) -> Weight:
        self._fail()
        route = self.routes.get(_key(ref, spec))
        if route is None:
            return Weight(problem="RouteMissing", problem_message="there is no such route")
        return Weight(route.percent, route.present, route.programmed, route.epoch, route.problem, route.problem_message)

    async def set_weight(self, ref: Ref, spec: CanarySpec, percent: float, *, epoch: str, was: str) -> None:
        self._fail()
        route = self.routes.get(_key(ref, spec))
        if route is None:
            raise NeedsUser("RouteMissing", "there is no such route")
        if route.problem and percent:
            raise NeedsUser(route.problem, route.problem_message)
        if term_of(route.epoch) > term_of(epoch):
            raise Fenced(f"the route carries epoch {route.epoch}, ours is {epoch}")
        if route.epoch not in (was, epoch):
            raise Conflict(f"the route carries epoch {route.epoch}, not {was}")
        if not 0 <= percent <= 100 or abs(percent * 100 - round(percent * 100)) > 1e-6:
            raise ValueError(f"not a weight: {percent}")
        self._write(ref, spec, replace(route, percent=percent, present=True, epoch=epoch), percent)

    async def remove(self, ref: Ref, spec: CanarySpec) -> None:
        self._fail()
        route = self.routes.get(_key(ref, spec))
        if route is not None:
            self._write(ref, spec, replace(route, percent=0.0, present=False, epoch=""), None)

    def _write(self, ref: Ref, spec: CanarySpec, after: FakeRoute, percent: float | None) -> None:
        if after == self.routes[_key(ref, spec)]:
            return
        self.routes[_key(ref, spec)] = replace(after, programmed=not self.lag)
        self.writes.append((ref.key, percent, after.epoch))
        if self.lost_replies:
            self.lost_replies -= 1
            raise ApiUnavailable("no answer: it may have happened")

    def _fail(self) -> None:
        if self.errors:
            raise self.errors.pop(0)


def _key(ref: Ref, spec: CanarySpec) -> tuple[str, str]:
    return ref.key, spec.traffic.http_route.name
