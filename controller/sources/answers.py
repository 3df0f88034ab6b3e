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

from controller.analysis.histogram import NATIVE_SCHEMAS, NATIVE_SHIFT, Native, parse_exponential, slower_than
from controller.ports import ArmSamples, RawSample
from controller.sources.templates import ArmSelectors, Selector


@dataclass(frozen=True)
class Series:
    """One series as the server returned it: (unix seconds, value), oldest first."""

    labels: Mapping[str, str]
    samples: tuple[tuple[float, float], ...]
    partial: bool = False
    """some of its samples could not be used"""
    histograms: tuple[tuple[float, Native], ...] = ()
    """instead of samples, where the series is a native histogram"""

    @property
    def newest(self) -> float:
        """Unix seconds of its last sample; minus infinity without one."""
        return max((of[-1][0] for of in (self.samples, self.histograms) if of), default=-math.inf)

    def within(self, since: float, until: float) -> Series:
        """What of it lies in (since, until]."""
        return Series(
            self.labels,
            tuple(one for one in self.samples if since < one[0] <= until),
            self.partial,
            tuple(one for one in self.histograms if since < one[0] <= until),
        )


@dataclass(frozen=True)
class Matrix:
    """An answer; `partial` when something in it could not be used."""

    series: tuple[Series, ...]
    partial: bool = False

    def pick(self, selectors: Sequence[Selector], since: float, until: float) -> Matrix:
        """The part of an answer to several that is about these, in (since, until]; partial by its own series."""
        found = {id(each): each for selector in selectors for each in self._selected(selector)}
        cut = tuple(each.within(since, until) for each in found.values())
        return Matrix(cut, self.partial or any(each.partial for each in cut))

    @cached_property
    def schema(self) -> int:
        """The resolution that all native histograms in it can be read at."""
        return min((one.schema for each in self.series for _, one in each.histograms), default=NATIVE_SCHEMAS[1])

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


def target_of(labels: Mapping[str, str]) -> str:
    """What was scraped, by the labels that Prometheus itself gives each target; empty without them.

    >>> target_of({"job": "envoy", "instance": "10.0.0.7:8002", "envoy_response_code_class": "2"})
    'envoy/10.0.0.7:8002'
    """
    instance = labels.get("instance", "")
    return f"{labels.get('job', '')}/{instance}" if instance else ""


def parse_matrix(result: object, *, since: float, until: float) -> Matrix:
    """Read the `result` of a range selector; samples outside (since, until] are left out.

    Raises: ValueError: not the shape of a Prometheus answer.
    """
    if not isinstance(result, list):
        raise ValueError("the result is not a list")
    series = []
    for each in result:
        if not (isinstance(each, dict) and isinstance(each.get("metric"), dict)):
            raise ValueError("the result is not a matrix")
        values, histograms = each.get("values"), each.get("histograms")
        if not all(one is None or isinstance(one, list) for one in (values, histograms)) or values is histograms:
            raise ValueError("the result is not a matrix")
        numbers = [_parse_sample(pair) for pair in values or ()]
        natives = [_parse_native(pair) for pair in histograms or ()]
        labels = {str(name): str(value) for name, value in each["metric"].items()}
        whole = Series(
            labels,
            tuple(sorted(one for one in numbers if one is not None)),
            None in numbers or None in natives,
            tuple(sorted((one for one in natives if one is not None), key=lambda one: one[0])),
        )
        series.append(whole.within(since, until))
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


def _parse_native(pair: object) -> tuple[float, Native] | None:
    """A native histogram whose bounds are powers of two, at a finite instant, or nothing."""
    if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], dict)):
        return None
    try:
        at, count = float(pair[0]), float(pair[1]["count"])
        buckets = [(float(low), float(high), float(inside)) for _, low, high, inside in pair[1].get("buckets") or ()]
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if not all(math.isfinite(one) for one in (at, count, *(inside for _, _, inside in buckets))):
        return None
    native = parse_exponential(count, buckets)
    return None if native is None else (at, native)


def is_native(result: object) -> bool:
    """Whether an instant's answer holds a native histogram that can be read; also where it holds nothing at all."""
    if not isinstance(result, list):
        raise ValueError("the result is not a list")
    return not result or any(isinstance(each, dict) and _parse_native(each.get("histogram")) for each in result)


def read_arm(matrix: Matrix, selectors: ArmSelectors) -> ArmSamples:
    """Requests and failed requests; no failed ones where their series does not exist yet."""
    bad = () if selectors.bad is None else _read(matrix, selectors.bad)
    return ArmSamples(_read(matrix, selectors.requests), bad)


def _read(matrix: Matrix, selector: Selector) -> tuple[RawSample, ...]:
    return tuple(
        RawSample(series_key(series.labels), at, value, target_of(series.labels))
        for series in matrix.series
        if selector.matches(series.labels)
        for at, value in series.samples
    )


def read_slower(matrix: Matrix, selectors: ArmSelectors, bounds: Sequence[float]) -> tuple[ArmSamples, bool]:
    """All requests, and those slower than each bound, from a histogram's cumulative buckets.

    `bad` are those slower than the first; with several bounds, `slower` has each, the lowest first. Also says whether
    every scrape had all the buckets: without one nobody knows how many were slow, and "none" would be a pass.
    """
    buckets: dict[str, dict[float, dict[float, float]]] = {}
    targets: dict[str, str] = {}
    for series in matrix.series:
        le = parse_bound(series.labels.get("le", ""))
        if le is None or not selectors.requests.matches(series.labels):
            continue
        key = series_key({name: value for name, value in series.labels.items() if name != "le"})
        buckets.setdefault(key, {}).setdefault(le, {}).update(series.samples)
        targets[key] = target_of(series.labels)
    requests: list[RawSample] = []
    slower: dict[float, list[RawSample]] = {bound: [] for bound in bounds}
    whole = True
    for key, by_bound in sorted(buckets.items()):
        for at, count in sorted(by_bound.get(math.inf, {}).items()):
            within = [by_bound.get(bound, {}).get(at) for bound in slower]
            known = [fast for fast in within if fast is not None and fast <= count]
            if len(known) < len(slower):
                whole = False
                continue
            requests.append(RawSample(key, at, count, targets[key]))
            for bound, fast in zip(slower, known, strict=True):
                slower[bound].append(RawSample(key, at, count - fast, targets[key]))
    several = tuple(tuple(slower[bound]) for bound in sorted(slower)) if len(slower) > 1 else ()
    return ArmSamples(tuple(requests), tuple(slower[bounds[0]]), several), whole


def read_native(
    matrix: Matrix, selectors: ArmSelectors, bounds: Sequence[float], *, shift: int = NATIVE_SHIFT
) -> ArmSamples:
    """All requests, and those slower than each bound, from native histograms; as `read_slower` has them.

    Both arms are read at the coarsest resolution in the answer. A canary is counted `shift` buckets above each bound:
    that is its margin, in latency. With the resolution the name of what is counted changes, since the bound has moved;
    the answer goes back before what was counted last, so that nothing is counted from zero.
    """
    requests: list[RawSample] = []
    slower: dict[float, list[RawSample]] = {bound: [] for bound in bounds}
    for series in matrix.series:
        if not selectors.requests.matches(series.labels):
            continue
        key, target = series_key(series.labels), target_of(series.labels)
        for at, native in series.histograms:
            requests.append(RawSample(key, at, native.count, target))
            for bound, of in slower.items():
                count = slower_than(native, bound, schema=matrix.schema, shift=shift)
                of.append(RawSample(f"{key} schema {matrix.schema}", at, count, target))
    several = tuple(tuple(slower[bound]) for bound in sorted(slower)) if len(slower) > 1 else ()
    return ArmSamples(tuple(requests), tuple(slower[bounds[0]]), several)


def read_by_label(matrix: Matrix, label: str) -> dict[str, tuple[RawSample, ...]]:
    """One series for each value of `label`, as `sum by` brings them."""
    return {
        series.labels[label]: tuple(RawSample(series.labels[label], at, value) for at, value in series.samples)
        for series in matrix.series
        if series.labels.get(label)
    }


def divided(
    found: Mapping[str, Sequence[RawSample]], by: Mapping[str, Sequence[RawSample]]
) -> dict[str, tuple[RawSample, ...]]:
    """Each pod's values divided by another of the same pod and instant; none where that is missing or nothing.

    >>> a = [RawSample("a", 15.0, 6.0), RawSample("a", 30.0, 8.0)]
    >>> whole = divided({"a": a, "b": a}, {"a": [RawSample("a", 15.0, 2.0), RawSample("a", 30.0, 0.0)]})
    >>> {pod: [(one.at, one.value) for one in samples] for pod, samples in whole.items()}
    {'a': [(15.0, 3.0)]}
    """
    shares = {}
    for pod, samples in found.items():
        at_instant = {one.at: one.value for one in by.get(pod, ()) if one.value > 0}
        if values := tuple(
            RawSample(one.series, one.at, one.value / at_instant[one.at]) for one in samples if one.at in at_instant
        ):
            shares[pod] = values
    return shares


def parse_count(result: object) -> bool:
    """Whether a `count(...)` counted anything: there is no answer to one that did not."""
    if not isinstance(result, list):
        raise ValueError("the result is not a list")
    return bool(result)


def parse_bounds(result: object) -> tuple[float, ...]:
    """The finite bounds in the answer to a `count by (le)`, rising."""
    if not isinstance(result, list):
        raise ValueError("the result is not a list")
    found = {parse_bound(str(each.get("metric", {}).get("le", ""))) for each in result if isinstance(each, dict)}
    return tuple(sorted(bound for bound in found if bound is not None and math.isfinite(bound)))


def parse_bound(text: str) -> float | None:
    """The upper bound of a bucket, as its `le` has it; None where that is no number."""
    try:
        bound = float(text)
    except ValueError:
        return None
    return None if math.isnan(bound) else bound
