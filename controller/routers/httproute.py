"""Gateway API `HTTPRoute`: fetch here, everything else is pure (`parse_weight` below, patches in `split.py`).

A weight is one conditional patch. A second one takes our name off the rules, so that the owner's next server-side
apply does not conflict with us; it decides nothing, so its failure is logged and mended by our next write.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import Any

import structlog

from controller.errors import Conflict, Forbidden, NeedsUser, NotFound, SerinError
from controller.kube.cache import Cache, Keep, Kept, Whole, keep
from controller.kube.fence import Fence
from controller.kube.resources import HTTPROUTES, Resource
from controller.kube.transport import Api, Lane
from controller.model.spec import CanarySpec
from controller.model.world import Weight
from controller.ports import Ref
from controller.routers import attached
from controller.routers.split import (
    Names,
    Patch,
    Route,
    backends_named,
    has_all,
    is_mirrored,
    is_named,
    is_split,
    parse_epoch,
    parse_percent,
    parse_share,
    render_disowning,
    render_removal,
    render_split,
    stable_rules,
)

log = structlog.get_logger(__name__)

DISOWN_TRIES = 3


class HttpRouteRouter:
    """`ports.TrafficRouter` for HTTPRoutes."""

    def __init__(self, api: Api, cache: Cache | None = None, fence: Fence | None = None) -> None:
        self._api = api
        self._cache = cache
        self._fence = fence or Fence()
        self._split_too: set[str] = set()
        """Canaries whose requests another route splits as well"""

    async def read_weight(self, ref: Ref, spec: CanarySpec, *, live: bool = True) -> Weight:
        """The weight live traffic has now; without `live`, as far as watches have brought it."""
        known = None if live else self._known(ref, spec)
        try:
            route = known or await self._read(ref, spec)
        except NotFound:
            return Weight(problem="RouteMissing", problem_message=_missing(ref, spec))
        except Forbidden as error:
            return Weight(problem="RouteForbidden", problem_message=str(error))
        weight = parse_weight(route, ref, spec)
        if not weight.problem and (other := self._split_elsewhere(ref, spec, live)):
            weight = replace(weight, problem="CanaryInRoute", problem_message=_also_splits(other, ref, spec))
        return replace(weight, stable_only=self._stable_only(ref, spec))

    async def set_weight(self, ref: Ref, spec: CanarySpec, percent: float, *, epoch: str, was: str) -> None:
        """Bring the route to `percent`; no write when it is there already.

        Raises: NeedsUser: there is no rule to split, or it must not be split. Taking traffic away is never refused.
        """
        lane: Lane = "usual" if percent else "urgent"
        if not percent and await self._was_relieved(ref, spec, epoch, was):
            return
        try:
            route = await self._read(ref, spec, lane)
        except NotFound as error:
            raise NeedsUser("RouteMissing", _missing(ref, spec)) from error
        await self._write(ref, spec, await self._render(route, ref, spec, percent, epoch, was), lane)

    async def _was_relieved(self, ref: Ref, spec: CanarySpec, epoch: str, was: str) -> bool:
        """Weight 0 in one request: the patch tests what it replaces, so what watches know of the route is enough."""
        known = self._known(ref, spec)
        if known is None:
            return False
        with suppress(Conflict, NotFound, NeedsUser):
            patch = await self._render(known, ref, spec, 0.0, epoch, was)
            await self._write(ref, spec, patch, "urgent")
            return bool(patch)
        return False

    async def _render(self, route: Route, ref: Ref, spec: CanarySpec, percent: float, epoch: str, was: str) -> Patch:
        found = parse_epoch(route, names_of(ref, spec))
        await self._fence.check(ref, f"HTTPRoute {_name(route)}", found, epoch, way_back=not percent)
        return render_checked(route, ref, spec, percent, epoch, was)

    async def remove(self, ref: Ref, spec: CanarySpec) -> None:
        """Take our entries and annotations out of the route: it is as the owner wrote it."""
        try:
            route = await self._read(ref, spec)
            await self._write(ref, spec, render_removal(route, names_of(ref, spec)), "usual")
        except NotFound:
            return

    def _known(self, ref: Ref, spec: CanarySpec) -> Route | None:
        """The route as watches and our own writes have it; None where only the API server can tell."""
        if self._cache is None or not self._cache.knows(HTTPROUTES):
            return None
        return self._cache.find(HTTPROUTES, ref.namespace, spec.traffic.http_route.name)

    def _split_elsewhere(self, ref: Ref, spec: CanarySpec, live: bool) -> str:
        """Another route of the namespace that splits the same requests, as watches have it; empty where there is none.

        All routes are looked through, so only in the looks that precede a raise, and until a found one is mended.
        """
        if self._cache is None or not self._cache.knows(HTTPROUTES) or not (live or ref.key in self._split_too):
            return ""
        name = ref.canary_name.encode()
        routes = (each.read() for each in self._cache.kept(HTTPROUTES, ref.namespace) if name in each.body)
        found = {_name(route) for route in routes if is_split(route, names_of(ref, spec))}
        other = min(found - {spec.traffic.http_route.name}, default="")
        (self._split_too.add if other else self._split_too.discard)(ref.key)
        return other

    def _stable_only(self, ref: Ref, spec: CanarySpec) -> tuple[str, ...] | None:
        """From watches in any case: it is only said. None while no kind is watched, as where the cluster has none."""
        if self._cache is None:
            return None
        kinds = [kind for kind in attached.KEPT if self._cache.knows(kind)]
        if not kinds:
            return None
        found = (
            attached.find_stable_only(
                kind.kind, self._cache.select(kind, ref.namespace), spec.traffic.service.name, ref.canary_name
            )
            for kind in kinds
        )
        return tuple(chain.from_iterable(found))[: attached.SHOWN]

    async def _read(self, ref: Ref, spec: CanarySpec, lane: Lane = "usual") -> Route:
        route: Route = await self._api.get(HTTPROUTES, ref.namespace, spec.traffic.http_route.name, lane=lane)
        return route

    def _note(self, ref: Ref, name: str, written: Route) -> None:
        if self._cache is not None:
            self._cache.wrote(HTTPROUTES, ref.namespace, name, written)

    async def _write(self, ref: Ref, spec: CanarySpec, patch: Patch, lane: Lane) -> None:
        if not patch:
            return
        name = spec.traffic.http_route.name
        written: Route = await self._api.json_patch(HTTPROUTES, ref.namespace, name, patch, lane=lane)
        self._note(ref, name, written)
        await self._disown(ref, spec, written)

    async def _disown(self, ref: Ref, spec: CanarySpec, route: Route) -> None:
        """Gateways write status at the same moment, which reorders the entries: look again, a few times."""
        name = spec.traffic.http_route.name
        for left in reversed(range(DISOWN_TRIES)):
            patch = render_disowning(route, self._api.field_manager)
            if not patch:
                return
            try:
                self._note(ref, name, await self._api.json_patch(HTTPROUTES, ref.namespace, name, patch))
                return
            except Conflict as error:
                if not left:
                    log.warning("not_disowned", rollout=ref.key, route=name, reason=error.reason)
                    return
            except SerinError as error:
                log.warning("not_disowned", rollout=ref.key, route=name, reason=error.reason)
                return
            try:
                route = await self._read(ref, spec)
            except SerinError as error:
                log.warning("not_disowned", rollout=ref.key, route=name, reason=error.reason)
                return


def _by_namespace(whole: Whole) -> Kept | None:
    """All annotations: whether there are any decides how the next is written."""
    return keep(whole, str(whole.metadata.get("namespace", "")), annotations=lambda name: True)


KEPT: dict[Resource, Keep] = {HTTPROUTES: _by_namespace}
"""What the cache keeps for this router."""


def names_of(ref: Ref, spec: CanarySpec) -> Names:
    baseline = ref.baseline_name if spec.analysis.baseline.fresh else ""
    return Names(spec.traffic.service.name, spec.traffic.service.port, ref.canary_name, baseline, ref.namespace)


def parse_weight(route: Route, ref: Ref, spec: CanarySpec) -> Weight:
    """What the route gives the canary.

    Rules may differ when somebody edited one: `percent` is the largest, and a rule with our entry and without
    stable's counts whole. `present` says that our entry is in every rule of stable's; at weight 0 one of any rule
    is enough, because a single one left behind must still be taken out.
    """
    names = names_of(ref, spec)
    percent = parse_percent(route, names)
    misfit = find_misfit(route, spec, names) or find_rejection(route, names)
    reason, message = misfit or ("", "")
    return Weight(
        percent=percent,
        present=all(has_all(rule, names) for rule in stable_rules(route, names)) if percent else is_named(route, names),
        programmed=is_programmed(route, names, at_zero=not percent),
        epoch=parse_epoch(route, names),
        problem=reason,
        problem_message=message,
    )


def render_checked(route: Route, ref: Ref, spec: CanarySpec, percent: float, epoch: str, was: str) -> Patch:
    """The patch that brings the route to `percent`; empty when nothing has to change.

    Raises: NeedsUser: there is no rule to split, or it must not be split. Taking traffic away is never refused.
    """
    names = names_of(ref, spec)
    unusable = find_misfit(route, spec, names)
    if unusable is not None and percent and percent >= parse_percent(route, names):
        raise NeedsUser(*unusable)
    return render_split(route, names, percent, epoch=epoch, was=was, baseline=spec.analysis.baseline.share(percent))


def find_misfit(route: Route, spec: CanarySpec, names: Names) -> tuple[str, str] | None:
    """Why this route cannot be split, as the owner wrote it: reason and message."""
    rules = stable_rules(route, names)
    where = f"HTTPRoute {spec.traffic.http_route.name}"
    owners = (route.get("metadata") or {}).get("ownerReferences") or []
    if owner := next((one for one in owners if one.get("controller")), None):
        return "RouteOwned", (
            f"spec.traffic.httpRoute: {where} is written by {owner.get('kind')} {owner.get('name')}, whose controller "
            "would take the canary out of it again: name an HTTPRoute that people or their tools write"
        )
    if not rules:
        found = backends_named(route)
        sends = f"sends to {', '.join(found)}" if found else "has no backendRefs"
        return "RouteNotForService", (
            f"spec.traffic.service: {where} {sends}, never to {names.service}:{names.port}: add "
            f"`backendRefs: [{{name: {names.service}, port: {names.port}}}]` to a rule of it, or name in "
            "spec.traffic.service the Service and port that it sends to"
        )
    if any("sessionPersistence" in rule for rule in rules):
        return "SessionPersistence", (
            f"{where} has sessionPersistence on a rule for {names.service}: clients would stick to one revision "
            "whatever the weight, so it cannot be canaried: remove sessionPersistence from that rule"
        )
    if is_mirrored(route, names):
        return "CanaryInRoute", (
            f"{where} has a RequestMirror filter to {names.canary}, which is there during a rollout only, and copies "
            "would count as the canary's requests: take that filter out"
        )
    if all(parse_share(rule, names) is None for rule in rules):
        return "RouteNotForService", (
            f"{where} gives weight 0 to {names.service}:{names.port}: raise the weight of its backendRef above 0"
        )
    return None


def find_rejection(route: Route, names: Names) -> tuple[str, str] | None:
    """What a gateway has against this generation of the route."""
    for parent in _reporting_parents(route):
        for condition in _current(route, parent):
            if condition.get("status") == "False" and not _is_ours(condition, names):
                said = condition.get("message") or condition.get("reason") or "no reason given"
                return "RouteNotAccepted", (
                    f"HTTPRoute {_name(route)}: {parent.get('controllerName', 'a gateway')} reports "
                    f"{condition['type']}=False: {said}"
                )
    return None


def is_programmed(route: Route, names: Names, *, at_zero: bool) -> bool:
    """Every parent of the route that reports, at least one, has accepted this generation of it.

    A canary Service that the gateway does not find matters only while it is to have traffic.
    """
    parents = _reporting_parents(route)
    return bool(parents) and all(_has_taken(route, parent, names, at_zero) for parent in parents)


def _has_taken(route: Route, parent: dict[str, Any], names: Names, at_zero: bool) -> bool:
    current = _current(route, parent)
    accepted = any(c["type"] == "Accepted" and c.get("status") == "True" for c in current)
    return accepted and all(c.get("status") != "False" or (at_zero and _is_ours(c, names)) for c in current)


def _is_ours(condition: dict[str, Any], names: Names) -> bool:
    """The gateway misses only Services of ours, which are not there yet or not there any more."""
    quoted = re.findall(r"[\"']([^\"' ]+)[\"']", condition.get("message", ""))
    missing = {name.rpartition("/")[2] for name in quoted}
    return (
        condition["type"] == "ResolvedRefs"
        and condition.get("reason") == "BackendNotFound"
        and bool(missing)
        and missing <= {names.canary, names.baseline}
    )


def _current(route: Route, parent: dict[str, Any]) -> list[dict[str, Any]]:
    """Accepted and ResolvedRefs, as far as they speak about this generation."""
    generation = (route.get("metadata") or {}).get("generation", 0)
    return [
        condition
        for condition in parent.get("conditions") or []
        if condition.get("type") in ("Accepted", "ResolvedRefs")
        and condition.get("observedGeneration", 0) >= generation
    ]


def _reporting_parents(route: Route) -> list[dict[str, Any]]:
    """Statuses of parents the route still names; a gateway it has left may never clean up behind itself."""
    namespace = (route.get("metadata") or {}).get("namespace", "")
    named = {_parent_key(parent, namespace) for parent in (route.get("spec") or {}).get("parentRefs") or []}
    reports = (route.get("status") or {}).get("parents") or []
    return [report for report in reports if _parent_key(report.get("parentRef") or {}, namespace) in named]


def _parent_key(parent: dict[str, Any], namespace: str) -> tuple[Any, ...]:
    return (
        parent.get("group", "gateway.networking.k8s.io"),
        parent.get("kind", "Gateway"),
        parent.get("namespace") or namespace,
        parent.get("name"),
        parent.get("sectionName"),
        parent.get("port"),
    )


def _name(route: Route) -> str:
    return str((route.get("metadata") or {}).get("name", ""))


def _also_splits(other: str, ref: Ref, spec: CanarySpec) -> str:
    return (
        f"spec.traffic.httpRoute: HTTPRoute {other} too splits requests between {spec.traffic.service.name} and "
        f"{ref.canary_name}, and a Canary moves the weight in {spec.traffic.http_route.name} alone: requests there "
        f"would reach a revision that was rolled back, and at rest nobody. Take {ref.canary_name} out of HTTPRoute "
        f"{other}; a rule for testers names it alone"
    )


def _missing(ref: Ref, spec: CanarySpec) -> str:
    name = spec.traffic.http_route.name
    return (
        f"spec.traffic.httpRoute.name: there is no HTTPRoute {name} in namespace {ref.namespace}: "
        "create it, or name the one that serves this Service"
    )
