"""What a split does to an HTTPRoute: values in, JSON patches out. Standard library only.

Every change starts from the rules as their owner wrote them. The one thing to know: what the owner wrote cannot be
read off a route that is split, because weights had to be multiplied to make room for a hundredth of a percent; so
it is remembered in an annotation of ours, by Canary, and both annotations go when the split does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from math import gcd
from typing import Any

from controller.errors import Conflict, NeedsUser

Route = dict[str, Any]
Rule = dict[str, Any]
Backend = dict[str, Any]
Patch = list[dict[str, Any]]

EPOCH = "serin.dev/epoch"
"""By canary Service, as `checkout-canary=3.1`: two Canaries may share a route, each with an epoch of its own."""
ORIGINAL_WEIGHTS = "serin.dev/original-weights"

LARGEST_WEIGHT = 1_000_000
"""The Gateway API's limit for one weight."""
_ANNOTATIONS = "/metadata/annotations"

HUNDREDTHS = 10_000
"""A weight of ours in hundredths of a percent, so that arithmetic stays exact."""


@dataclass(frozen=True)
class Names:
    """Which backend is stable's, and which are ours. All are Services in the route's own namespace."""

    service: str
    port: int
    canary: str
    baseline: str = ""
    """of fresh stable pods; empty where the canary is compared with stable itself, and then no such name is ours"""
    namespace: str = ""
    """the route's: a backend may name it, and means the same as one that names none"""

    def is_stable(self, backend: Backend) -> bool:
        return self.is_stable_service(backend) and backend.get("port") == self.port

    def is_stable_service(self, backend: Backend) -> bool:
        """On any port."""
        return self._is_service(backend, self.service)

    def is_canary(self, backend: Backend) -> bool:
        return self._is_service(backend, self.canary)

    def is_baseline(self, backend: Backend) -> bool:
        return bool(self.baseline) and self._is_service(backend, self.baseline)

    def is_ours(self, backend: Backend) -> bool:
        return self.is_canary(backend) or self.is_baseline(backend)

    def _is_service(self, backend: Backend, name: str) -> bool:
        return (
            backend.get("name") == name
            and backend.get("kind", "Service") == "Service"
            and not backend.get("group")
            and (backend.get("namespace") or self.namespace) == self.namespace
        )


# Reading


def parse_epoch(route: Route, names: Names) -> str:
    """The epoch this Canary's last write left; empty when there is none."""
    return _epochs(route).get(names.canary, "")


def stable_rules(route: Route, names: Names) -> list[Rule]:
    """The rules that send to the stable Service: those a split is about."""
    return [rule for rule in _rules(route) if _has_stable(rule, names)]


def parse_percent(route: Route, names: Names) -> float:
    """The largest share of ours in any rule: also in one that stable is not in, because somebody edited or added it."""
    return max((parse_share(rule, names) or 0.0 for rule in _rules(route)), default=0.0)


def is_named(route: Route, names: Names) -> bool:
    """Whether something of ours is anywhere in the rules, a mirror's target included."""
    return any(_has_ours(rule, names) for rule in _rules(route)) or is_mirrored(route, names)


def is_split(route: Route, names: Names) -> bool:
    """Whether a rule divides requests between stable and a Service of ours; one with ours alone is for testers."""
    return any(
        _has_stable(rule, names) and any(_weight(one) for one in _backends(rule) if names.is_ours(one))
        for rule in _rules(route)
    )


def is_mirrored(route: Route, names: Names) -> bool:
    """Whether a RequestMirror of a rule, or of one of its backends, sends copies to a Service of ours."""
    return any(_has_mirror(rule, names) for rule in _rules(route))


def parse_share(rule: Rule, names: Names) -> float | None:
    """Percent of stable's part of a rule that goes to the canary; None when that part gets nothing at all.

    >>> names = Names("cart", 80, "cart-canary")
    >>> parse_share({"backendRefs": [{"name": "cart", "port": 80, "weight": 95},
    ...                              {"name": "cart-canary", "port": 80, "weight": 5}]}, names)
    5.0
    """
    baseline = sum(_weight(backend) for backend in _backends(rule) if names.is_baseline(backend))
    # Nothing of ours may be deleted while anything of ours is asked: a baseline alone counts as a canary.
    canary = sum(_weight(backend) for backend in _backends(rule) if names.is_canary(backend)) or baseline
    every = sum(_weight(backend) for backend in _backends(rule) if names.is_stable(backend) or names.is_ours(backend))
    if every == 0:
        return None
    # A trickle that somebody else allowed must not read as nothing.
    return max(round(100 * canary / every, 2), 0.01 if canary else 0.0)


def has_all(rule: Rule, names: Names) -> bool:
    """Whether everything of ours is in this rule."""
    wanted = [names.is_canary, *([names.is_baseline] if names.baseline else [])]
    return all(any(is_one(backend) for backend in _backends(rule)) for is_one in wanted)


def _has_ours(rule: Rule, names: Names) -> bool:
    return any(names.is_ours(backend) for backend in _backends(rule))


def _has_stable(rule: Rule, names: Names) -> bool:
    return any(names.is_stable(backend) for backend in _backends(rule))


def _has_mirror(rule: Rule, names: Names) -> bool:
    return any(_is_mirror(each, names) for part in (rule, *_backends(rule)) for each in part.get("filters") or [])


def _is_mirror(each: dict[str, Any], names: Names) -> bool:
    return names.is_ours((each.get("requestMirror") or {}).get("backendRef") or {})


def backends_named(route: Route) -> list[str]:
    """Every backend of the route as `name:port`, once, in its order."""
    return list(dict.fromkeys(_label(backend) for rule in _rules(route) for backend in _backends(rule)))


# Writing


def render_split(route: Route, names: Names, percent: float, *, epoch: str, was: str, baseline: float = 0.0) -> Patch:
    """The patch that gives the canary `percent` in every rule of stable's; empty when nothing has to change.

    A fresh baseline gets `baseline` percent of what is stable's, to the nearest whole weight.
    Raises: Conflict: the epoch is not the one the decision was made on.
        NeedsUser: the rule's weights leave no room for this percent.
    """
    stored = parse_epoch(route, names)
    if stored not in (was, epoch):
        raise Conflict(f"the route carries epoch {stored or 'none'}, the decision was made on {was or 'none'}")
    hundredths = round(percent * 100)
    if not 0 <= hundredths <= HUNDREDTHS or abs(percent * 100 - hundredths) > 1e-6:
        raise ValueError(f"a weight is a percent from 0 to 100 with at most two decimals, not {percent}")
    rules, memory = [], []
    for index, rule in enumerate(_owner_rules(route, names)):
        if not _has_stable(rule, names):
            rules.append(rule)
            continue
        split = _split_rule(rule, names, hundredths, baseline, index)
        rules.append(split)
        memory.append(_remember(index, rule, split, names))
    return _patch(
        route,
        rules,
        {
            EPOCH: _with_epoch(route, names, epoch),
            ORIGINAL_WEIGHTS: _with_memory(route, names, memory),
        },
    )


def render_removal(route: Route, names: Names) -> Patch:
    """The patch that leaves the route as its owner wrote it; empty when nothing of ours is in it."""
    return _patch(
        route,
        _owner_rules(route, names),
        {EPOCH: _with_epoch(route, names, ""), ORIGINAL_WEIGHTS: _with_memory(route, names, [])},
    )


def render_disowning(route: Route, manager: str) -> Patch:
    """The patch that takes our field manager off the rules, empty when it is not on them.

    `rules` is one field to the API server: as long as we stand beside it, the owner's next server-side apply is
    refused for a conflict with us. Rules that nobody manages are the owner's again at that apply.
    """
    fields = (route.get("metadata") or {}).get("managedFields") or []
    ours = [
        index
        for index, entry in enumerate(fields)
        if entry.get("manager") == manager
        and not entry.get("subresource")
        and "f:rules" in (entry.get("fieldsV1") or {}).get("f:spec", {})
    ]
    path = "/metadata/managedFields/{}".format
    return [{"op": "test", "path": path(index), "value": fields[index]} for index in ours] + [
        {"op": "remove", "path": path(index)} for index in reversed(ours)
    ]


def _patch(route: Route, rules: list[Rule], annotations: dict[str, str]) -> Patch:
    """From what was read to what is wanted; every operation stands behind a test of what it replaces."""
    meta = route.get("metadata") or {}
    present: dict[str, str] = meta.get("annotations") or {}
    wanted = {**present, **annotations}
    wanted = {key: value for key, value in wanted.items() if value or key not in annotations}
    changes: Patch = []
    if rules != _rules(route):
        changes.append({"op": "replace", "path": "/spec/rules", "value": rules})
    if present and not wanted:
        changes.append({"op": "remove", "path": _ANNOTATIONS})
    elif not present and wanted:
        changes.append({"op": "add", "path": _ANNOTATIONS, "value": wanted})
    else:
        for key in annotations:
            if wanted.get(key) == present.get(key):
                continue
            path = f"{_ANNOTATIONS}/{key.replace('/', '~1')}"
            changes.append({"op": "add", "path": path, "value": wanted[key]} if key in wanted else _remove(path))
    if not changes:
        return []
    # Testing for null is testing for absence. The version is not tested: gateways write status at the same moment.
    stamp = f"{_ANNOTATIONS}/{EPOCH.replace('/', '~1')}" if present else _ANNOTATIONS
    tests: Patch = [
        {"op": "test", "path": "/spec/rules", "value": _rules(route)},
        {"op": "test", "path": stamp, "value": present.get(EPOCH)},
    ]
    return tests + changes


def _remove(path: str) -> dict[str, Any]:
    return {"op": "remove", "path": path}


# The arithmetic of one rule


def _split_rule(rule: Rule, names: Names, hundredths: int, baseline: float, index: int) -> Rule:
    """The owner's rule with our entries after each of stable's: same filters, same port, a part of its weight."""
    backends = _backends(rule)
    stable = [_weight(backend) for backend in backends if names.is_stable(backend)]
    others = [_weight(backend) for backend in backends if not names.is_stable(backend)]
    kept, given, rest = scale_weights(stable, others, hundredths, f"spec.rules[{index}]")
    split: list[Backend] = []
    for backend in backends:
        if names.is_stable(backend):
            left = kept.pop(0)
            beside = round(left * baseline * 100 / (HUNDREDTHS - hundredths)) if baseline else 0
            split.append({**backend, "weight": left - beside})
            split.append({**deepcopy(backend), "name": names.canary, "weight": given.pop(0)})
            if names.baseline:
                split.append({**deepcopy(backend), "name": names.baseline, "weight": beside})
        else:
            split.append({**backend, "weight": rest.pop(0)})
    return {**rule, "backendRefs": split}


def scale_weights(
    stable: list[int], others: list[int], hundredths: int, where: str = "the rule"
) -> tuple[list[int], list[int], list[int]]:
    """Weights for stable, canary and others: canary to stable is exact, stable and canary together keep their part.

    The part of the others is exact too, unless that takes a weight above a million; then it is off by less than
    a millionth of all requests.

    >>> scale_weights([1], [], 500)
    ([95], [5], [])
    >>> scale_weights([90], [10], 1)
    ([899910], [90], [100000])

    Raises: NeedsUser: stable's part is so small that this percent of it cannot be written.
    """
    if not sum(stable) or (hundredths == 0 and others):
        return list(stable), [0 for _ in stable], list(others)
    # The readable form first: a total of 100 where whole percents allow it.
    whole = next(total for total in (100, 1000, HUNDREDTHS) if hundredths * total % HUNDREDTHS == 0)
    common = gcd(*stable, *others) or 1
    smallest = HUNDREDTHS // gcd(hundredths, HUNDREDTHS)
    for divisor, total in ((common if not others else 1, whole), (common, whole), (common, smallest)):
        part = total * hundredths // HUNDREDTHS
        kept = [weight // divisor * (total - part) for weight in stable]
        given = [weight // divisor * part for weight in stable]
        rest = [weight // divisor * total for weight in others]
        if max(*kept, *given, *rest) <= LARGEST_WEIGHT:
            return kept, given, rest
    return _squeeze(stable, others, hundredths, smallest, where)


def _squeeze(
    stable: list[int], others: list[int], hundredths: int, total: int, where: str
) -> tuple[list[int], list[int], list[int]]:
    part = total * hundredths // HUNDREDTHS
    largest = max(*(weight * max(part, total - part) for weight in stable), *(weight * total for weight in others))
    units = [weight * LARGEST_WEIGHT // largest for weight in stable]
    if any(weight and not unit for weight, unit in zip(stable, units, strict=True)):
        raise NeedsUser(
            "WeightTooFine",
            f"{where}: stable has weight {sum(stable)} beside {sum(others)} for others, too small a part to give "
            f"{hundredths / 100:g}% of it to a canary: start with a larger step, or with a larger part for stable",
        )
    ratio = sum(units) * total / sum(stable)
    rest = [min(LARGEST_WEIGHT, max(1, round(weight * ratio))) if weight else 0 for weight in others]
    return [unit * (total - part) for unit in units], [unit * part for unit in units], rest


# What the owner wrote


def _owner_rules(route: Route, names: Names) -> list[Rule]:
    kept = {entry["rule"]: entry for entry in _memories(route).get(names.canary, [])}
    return [_owner_rule(rule, names, kept.get(index), kept.values()) for index, rule in enumerate(_rules(route))]


def _owner_rule(rule: Rule, names: Names, here: dict[str, Any] | None, all_kept: Iterable[dict[str, Any]]) -> Rule:
    """The rule without us.

    Our memory of it counts while the other backends are as we left them; what the owner changed since then wins,
    and so do rules that the owner moved or reset.
    """
    rule = _with_stable(_without_mirrors(rule, names), names)
    backends = _backends(rule)
    if not _has_stable(rule, names) and not _has_ours(rule, names):
        return rule
    left = [backend for backend in backends if not names.is_ours(backend)]
    labels = [_label(backend) for backend in left]
    candidates = [entry for entry in (here, *all_kept) if entry and entry["backends"] == labels]
    kept = candidates[0] if candidates else None
    if len(left) == len(backends) and not (kept and _weights(left) == kept["ours"]):
        return rule
    ours_stand = kept and _same_others(left, kept["ours"], names)
    weights = kept["weights"] if kept and ours_stand else _merged_weights(backends, names)
    return {**rule, "backendRefs": [_weighted(backend, weight) for backend, weight in zip(left, weights, strict=True)]}


def _with_stable(rule: Rule, names: Names) -> Rule:
    """What a line of ours has is stable's, and goes back there although somebody took stable's own line away.

    Where the Service stands on another port, that line gets it: whoever wrote it changed the port. The weight is
    nothing yet, since removing ours adds theirs; one that serves nobody and stands alone gets a weight of one.
    """
    backends = _backends(rule)
    ours = [backend for backend in backends if names.is_ours(backend)]
    others = [backend for backend in backends if not names.is_ours(backend)]
    if not ours or any(names.is_stable_service(backend) for backend in others):
        return rule
    if not any(_weights(ours)) and any(_weights(others)):
        return rule
    stable = {**deepcopy(ours[0]), "name": names.service, "port": names.port, "weight": 0 if any(_weights(ours)) else 1}
    at = backends.index(ours[0])
    return {**rule, "backendRefs": [*backends[:at], stable, *backends[at:]]}


def _without_mirrors(rule: Rule, names: Names) -> Rule:
    """Without copies of requests to a Service that is deleted: gateways differ in what they make of such a rule."""
    if not _has_mirror(rule, names):
        return rule
    backends = [_unmirrored(backend, names) for backend in _backends(rule)]
    return _unmirrored({**rule, **({"backendRefs": backends} if backends else {})}, names)


def _unmirrored(part: dict[str, Any], names: Names) -> dict[str, Any]:
    kept = [each for each in part.get("filters") or [] if not _is_mirror(each, names)]
    without = {key: value for key, value in part.items() if key != "filters"}
    return {**without, "filters": kept} if kept else without


def _same_others(left: list[Backend], ours: list[int], names: Names) -> bool:
    return all(
        names.is_stable(backend) or _weight(backend) == weight for backend, weight in zip(left, ours, strict=True)
    )


def _merged_weights(backends: list[Backend], names: Names) -> list[int]:
    """Stable takes back what is ours, in the smallest numbers that keep the ratio."""
    left = [backend for backend in backends if not names.is_ours(backend)]
    weights = _weights(left)
    given = sum(_weight(backend) for backend in backends if names.is_ours(backend))
    if given:
        stable = [at for at, backend in enumerate(left) if names.is_stable(backend)]
        heirs = stable or [at for at, backend in enumerate(left) if names.is_stable_service(backend)]
        weights[heirs[0]] += given
    common = gcd(*weights) or 1
    return [min(LARGEST_WEIGHT, weight // common) for weight in weights]


def _remember(index: int, rule: Rule, split: Rule, names: Names) -> dict[str, Any]:
    ours = [backend for backend in _backends(split) if not names.is_ours(backend)]
    return {
        "rule": index,
        "backends": [_label(backend) for backend in _backends(rule)],
        "weights": [backend.get("weight") for backend in _backends(rule)],
        "ours": _weights(ours),
    }


def _with_memory(route: Route, names: Names, memory: list[dict[str, Any]]) -> str:
    everyone = {**_memories(route), names.canary: memory}
    kept = {name: entries for name, entries in sorted(everyone.items()) if entries}
    return json.dumps(kept, separators=(",", ":")) if kept else ""


def _with_epoch(route: Route, names: Names, epoch: str) -> str:
    everyone = {**_epochs(route), names.canary: epoch}
    return ",".join(f"{name}={value}" for name, value in sorted(everyone.items()) if value)


def _epochs(route: Route) -> dict[str, str]:
    text = _annotations(route).get(EPOCH, "")
    return {name: value for name, _, value in (item.partition("=") for item in text.split(",")) if name and value}


def _memories(route: Route) -> dict[str, list[dict[str, Any]]]:
    """What we remember of each Canary; what we cannot have written counts as none, whatever it is."""
    try:
        stored = json.loads(_annotations(route).get(ORIGINAL_WEIGHTS, "{}"))
    except (ValueError, RecursionError):
        return {}
    if not isinstance(stored, dict):
        return {}
    return {
        name: [entry for entry in entries if _is_memory(entry)]
        for name, entries in stored.items()
        if isinstance(entries, list)
    }


def _is_memory(entry: Any) -> bool:
    """Whether it has our fields and no others, each with what we would have put there."""
    return (
        isinstance(entry, dict)
        and entry.keys() == {"rule", "backends", "weights", "ours"}
        and type(entry["rule"]) is int
        and all(isinstance(entry[key], list) for key in ("backends", "weights", "ours"))
        and len(entry["backends"]) == len(entry["weights"]) == len(entry["ours"])
        and all(isinstance(backend, str) for backend in entry["backends"])
        and all(weight is None or _is_weight(weight) for weight in entry["weights"])
        and all(_is_weight(weight) for weight in entry["ours"])
    )


def _is_weight(value: Any) -> bool:
    """`True` is an int to Python, and no weight to the API server."""
    return type(value) is int and 0 <= value <= LARGEST_WEIGHT


def _annotations(route: Route) -> dict[str, str]:
    return (route.get("metadata") or {}).get("annotations") or {}


def _rules(route: Route) -> list[Rule]:
    return (route.get("spec") or {}).get("rules") or []


def _backends(rule: Rule) -> list[Backend]:
    return rule.get("backendRefs") or []


def _weight(backend: Backend) -> int:
    """Absent is 1: the Gateway API's default."""
    weight = backend.get("weight")
    return 1 if weight is None else int(weight)


def _weights(backends: Iterable[Backend]) -> list[int]:
    return [_weight(backend) for backend in backends]


def _weighted(backend: Backend, weight: int | None) -> Backend:
    if weight is None:
        return {key: value for key, value in backend.items() if key != "weight"}
    return {**backend, "weight": weight}


def _label(backend: Backend) -> str:
    namespace = f"{backend['namespace']}/" if backend.get("namespace") else ""
    return f"{namespace}{backend.get('name', '')}:{backend.get('port', '')}"
