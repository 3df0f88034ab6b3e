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

from controller.errors import Conflict, Fenced, NeedsUser

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
    """Which backend is stable's, and which is ours. Both are Services in the route's own namespace."""

    service: str
    port: int
    canary: str

    def is_stable(self, backend: Backend) -> bool:
        return _is_service(backend, self.service) and backend.get("port") == self.port

    def is_canary(self, backend: Backend) -> bool:
        return _is_service(backend, self.canary)


def _is_service(backend: Backend, name: str) -> bool:
    return (
        backend.get("name") == name
        and backend.get("kind", "Service") == "Service"
        and not backend.get("group")
        and not backend.get("namespace")
    )


# Reading


def parse_epoch(route: Route, names: Names) -> str:
    """The epoch this Canary's last write left; empty when there is none."""
    return _epochs(route).get(names.canary, "")


def stable_rules(route: Route, names: Names) -> list[Rule]:
    """The rules that send to the stable Service: those a split is about."""
    return [rule for rule in _rules(route) if any(names.is_stable(backend) for backend in _backends(rule))]


def parse_share(rule: Rule, names: Names) -> float | None:
    """Percent of stable's part of a rule that goes to the canary; None when that part gets nothing at all.

    >>> names = Names("cart", 80, "cart-canary")
    >>> parse_share({"backendRefs": [{"name": "cart", "port": 80, "weight": 95},
    ...                              {"name": "cart-canary", "port": 80, "weight": 5}]}, names)
    5.0
    """
    canary = sum(_weight(backend) for backend in _backends(rule) if names.is_canary(backend))
    stable = sum(_weight(backend) for backend in _backends(rule) if names.is_stable(backend))
    if canary + stable == 0:
        return None
    # A trickle that somebody else allowed must not read as nothing.
    return max(round(100 * canary / (canary + stable), 2), 0.01 if canary else 0.0)


def has_canary(rule: Rule, names: Names) -> bool:
    return any(names.is_canary(backend) for backend in _backends(rule))


def backends_named(route: Route) -> list[str]:
    """Every backend of the route as `name:port`, once, in its order."""
    return list(dict.fromkeys(_label(backend) for rule in _rules(route) for backend in _backends(rule)))


# Writing


def render_split(route: Route, names: Names, percent: float, *, epoch: str, was: str) -> Patch:
    """The patch that gives the canary `percent` in every rule of stable's; empty when nothing has to change.

    Raises: Fenced: a newer leader wrote here. Conflict: the epoch is not the one the decision was made on.
        NeedsUser: the rule's weights leave no room for this percent.
    """
    _check_epoch(parse_epoch(route, names), epoch=epoch, was=was)
    hundredths = round(percent * 100)
    if not 0 <= hundredths <= HUNDREDTHS or abs(percent * 100 - hundredths) > 1e-6:
        raise ValueError(f"a weight is a percent from 0 to 100 with at most two decimals, not {percent}")
    rules, memory = [], []
    for index, rule in enumerate(_owner_rules(route, names)):
        if not any(names.is_stable(backend) for backend in _backends(rule)):
            rules.append(rule)
            continue
        split = _split_rule(rule, names, hundredths, index)
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


def _check_epoch(stored: str, *, epoch: str, was: str) -> None:
    if _leader(stored) > _leader(epoch):
        raise Fenced(f"the route carries epoch {stored}, ours is {epoch}: a newer leader writes here")
    if stored not in (was, epoch):
        raise Conflict(f"the route carries epoch {stored or 'none'}, the decision was made on {was or 'none'}")


def _leader(epoch: str) -> int:
    leader, _, _ = epoch.partition(".")
    return int(leader) if leader.isdigit() else 0


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


def _split_rule(rule: Rule, names: Names, hundredths: int, index: int) -> Rule:
    """The owner's rule with our entry after each of stable's: same filters, same port, a part of its weight."""
    backends = _backends(rule)
    stable = [_weight(backend) for backend in backends if names.is_stable(backend)]
    others = [_weight(backend) for backend in backends if not names.is_stable(backend)]
    kept, given, rest = scale_weights(stable, others, hundredths, f"spec.rules[{index}]")
    split: list[Backend] = []
    for backend in backends:
        if names.is_stable(backend):
            split.append({**backend, "weight": kept.pop(0)})
            split.append({**deepcopy(backend), "name": names.canary, "weight": given.pop(0)})
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
    backends = _backends(rule)
    if not any(names.is_stable(backend) for backend in backends):
        return rule
    left = [backend for backend in backends if not names.is_canary(backend)]
    labels = [_label(backend) for backend in left]
    candidates = [entry for entry in (here, *all_kept) if entry and entry["backends"] == labels]
    kept = candidates[0] if candidates else None
    if len(left) == len(backends) and not (kept and _weights(left) == kept["ours"]):
        return rule
    ours_stand = kept and _same_others(left, kept["ours"], names)
    weights = kept["weights"] if kept and ours_stand else _merged_weights(backends, names)
    return {**rule, "backendRefs": [_weighted(backend, weight) for backend, weight in zip(left, weights, strict=True)]}


def _same_others(left: list[Backend], ours: list[int], names: Names) -> bool:
    return all(
        names.is_stable(backend) or _weight(backend) == weight for backend, weight in zip(left, ours, strict=True)
    )


def _merged_weights(backends: list[Backend], names: Names) -> list[int]:
    """Stable takes back what the canary has, in the smallest numbers that keep the ratio."""
    weights = [_weight(backend) for backend in backends if not names.is_canary(backend)]
    stable = next(i for i, b in enumerate(b for b in backends if not names.is_canary(b)) if names.is_stable(b))
    weights[stable] += sum(_weight(backend) for backend in backends if names.is_canary(backend))
    common = gcd(*weights) or 1
    return [min(LARGEST_WEIGHT, weight // common) for weight in weights]


def _remember(index: int, rule: Rule, split: Rule, names: Names) -> dict[str, Any]:
    ours = [backend for backend in _backends(split) if not names.is_canary(backend)]
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
    """What we remember of each Canary; an annotation that somebody garbled counts as none."""
    try:
        stored = json.loads(_annotations(route).get(ORIGINAL_WEIGHTS, "{}"))
        return {name: [entry for entry in entries if _is_memory(entry)] for name, entries in stored.items()}
    except (ValueError, AttributeError, TypeError):
        return {}


def _is_memory(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("rule"), int)
        and all(isinstance(entry.get(key), list) for key in ("backends", "weights", "ours"))
        and len(entry["backends"]) == len(entry["weights"]) == len(entry["ours"])
        and all(weight is None or _is_weight(weight) for weight in entry["weights"])
    )


def _is_weight(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value <= LARGEST_WEIGHT


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
