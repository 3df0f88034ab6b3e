"""Reading what a Prometheus server answered. Pure: values in, samples out.

What cannot be a count (NaN, an infinity, a negative or a word) is dropped and makes the answer partial:
no data rather than a zero or a comparison that nobody can trust.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from controller.ports import ArmSamples, RawSample
from controller.sources.templates import ArmSelectors, Selector


@dataclass(frozen=True)
class Series:
    """One series as the server returned it: (unix seconds, value), oldest first."""

    labels: Mapping[str, str]
    samples: tuple[tuple[float, float], ...]
    partial: bool = False
    """some of its samples could not be used"""


@dataclass(frozen=True)
class Matrix:
    """An answer; `partial` when something in it could not be used."""

    series: tuple[Series, ...]
    partial: bool = False

    def pick(self, selectors: Sequence[Selector], since: float, until: float) -> Matrix:
        """The part of an answer to several that is about these, in (since, until]; partial by its own series."""
        found = {id(each): each for selector in selectors for each in self._selected(selector)}
        cut = tuple(
            Series(each.labels, tuple(one for one in each.samples if since < one[0] <= until), each.partial)
            for each in found.values()
        )
        return Matrix(cut, self.partial or any(each.partial for each in cut))

    def _selected(self, selector: Selector) -> list[Series]:
        exact = [(each.label, each.value) for each in selector.matchers if each.operator == "=" and each.value]
        exact.append(("__name__", selector.metric))
        candidates = min((self._by_label.get(each, []) for each in exact), key=len)
        return [each for each in candidates if selector.matches(each.labels)]

    @cached_property
    def _by_label(self) -> dict[tuple[str, str], list[Series]]:
        """So that sorting an answer for many does not look at every series for each of them."""
        index: dict[tuple[str, str], list[Series]] = {}
        for each in self.series:
            for label in each.labels.items():
                index.setdefault(label, []).append(each)
        return index


def series_key(labels: Mapping[str, str]) -> str:
    """The same text for the same labels, whatever order they came in.

    >>> series_key({"job": "shop", "__name__": "up"})
    'up{job="shop"}'
    """
    inside = ",".join(f"{name}={json.dumps(labels[name])}" for name in sorted(labels) if name != "__name__")
    return f"{labels.get('__name__', '')}{{{inside}}}"


def parse_matrix(result: object, *, since: float, until: float) -> Matrix:
    """Read the `result` of a range selector; samples outside (since, until] are left out.

    Raises: ValueError: not the shape of a Prometheus answer.
    """
    if not isinstance(result, list):
        raise ValueError("the result is not a list")
    series = []
    for each in result:
        if not (
            isinstance(each, dict) and isinstance(each.get("metric"), dict) and isinstance(each.get("values"), list)
        ):
            raise ValueError("the result is not a matrix")
        partial, samples = False, []
        for pair in each["values"]:
            sample = _parse_sample(pair)
            if sample is None:
                partial = True
            elif since < sample[0] <= until:
                samples.append(sample)
        labels = {str(name): str(value) for name, value in each["metric"].items()}
        series.append(Series(labels, tuple(sorted(samples)), partial))
    return Matrix(tuple(series))


def _parse_sample(pair: object) -> tuple[float, float] | None:
    """A finite count at a finite instant, or nothing."""
    if not isinstance(pair, list) or len(pair) != 2:
        return None
    try:
        sample = (float(pair[0]), float(pair[1]))
    except (TypeError, ValueError, OverflowError):
        return None
    return sample if math.isfinite(sample[0]) and math.isfinite(sample[1]) and sample[1] >= 0 else None


def read_arm(matrix: Matrix, selectors: ArmSelectors) -> ArmSamples:
    """Requests and failed requests; no failed ones where their series does not exist yet."""
    bad = () if selectors.bad is None else _read(matrix, selectors.bad)
    return ArmSamples(_read(matrix, selectors.requests), bad)


def _read(matrix: Matrix, selector: Selector) -> tuple[RawSample, ...]:
    return tuple(
        RawSample(series_key(series.labels), at, value)
        for series in matrix.series
        if selector.matches(series.labels)
        for at, value in series.samples
    )


def read_slower(matrix: Matrix, selectors: ArmSelectors, bound: float) -> tuple[ArmSamples, bool]:
    """All requests, and those slower than `bound`, from a histogram's cumulative buckets.

    Also says whether every scrape had both buckets: without the one of the bound nobody knows how
    many were slow, and "none" would be a pass.
    """
    buckets: dict[str, dict[float, dict[float, float]]] = {}
    for series in matrix.series:
        le = _parse_bound(series.labels.get("le", ""))
        if le is None or not selectors.requests.matches(series.labels):
            continue
        key = series_key({name: value for name, value in series.labels.items() if name != "le"})
        buckets.setdefault(key, {}).setdefault(le, {}).update(series.samples)
    requests, slower, whole = [], [], True
    for key, by_bound in sorted(buckets.items()):
        within = by_bound.get(bound, {})
        for at, count in sorted(by_bound.get(math.inf, {}).items()):
            if at not in within or within[at] > count:
                whole = False
                continue
            requests.append(RawSample(key, at, count))
            slower.append(RawSample(key, at, count - within[at]))
    return ArmSamples(tuple(requests), tuple(slower)), whole


def parse_bounds(result: object) -> tuple[float, ...]:
    """The finite bounds in the answer to a `count by (le)`, rising."""
    if not isinstance(result, list):
        raise ValueError("the result is not a list")
    found = {_parse_bound(str(each.get("metric", {}).get("le", ""))) for each in result if isinstance(each, dict)}
    return tuple(sorted(bound for bound in found if bound is not None and math.isfinite(bound)))


def _parse_bound(text: str) -> float | None:
    try:
        bound = float(text)
    except ValueError:
        return None
    return None if math.isnan(bound) else bound
