"""From a template to a query: selectors are parsed, filled in and joined; text is never pasted together.

A template is one instant-vector selector, nothing else: no function, no operator, no `vector(0)`
that always passes. What a Canary contributes are label values, checked against a narrow alphabet,
so nothing it says can close a quote or widen a query.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache
from types import MappingProxyType

from controller.model.spec import CanarySpec, GaugeTemplate, Template
from controller.ports import Ref

_POD_CHARACTERS = "[bcdfghjklmnpqrstvwxz2456789]"
"""what Kubernetes makes hashes and pod names of: no `a`, so that `-canary-` is never taken for a hash"""
_PODS = f'namespace="$namespace",pod=~"$deployment-{_POD_CHARACTERS}{{1,10}}-{_POD_CHARACTERS}{{5}}"'

_CONTAINERS = f'{_PODS},container!="",container!="POD"'

BUILT_IN: Mapping[str, Template] = MappingProxyType(
    {
        # Contour's Envoy. `_completed` holds the 503s for want of a healthy upstream too; `_total` does not.
        "gateway": Template(
            requests='envoy_cluster_upstream_rq_completed{envoy_cluster_name="$namespace_$service_$port"}',
            errors="envoy_cluster_upstream_rq_xx"
            '{envoy_cluster_name="$namespace_$service_$port",envoy_response_code_class="5"}',
            latency='envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="$namespace_$service_$port"}',
            latency_unit="ms",
        ),
        # What the pods say of themselves, one series a pod: for the noise between pods.
        "pods": Template(
            requests=f"http_requests_total{{{_PODS}}}",
            errors=f'http_requests_total{{{_PODS},code=~"5.."}}',
            latency=f"http_request_duration_seconds_bucket{{{_PODS}}}",
            latency_unit="s",
            pod_label="pod",
        ),
    }
)

GAUGES: Mapping[str, GaugeTemplate] = MappingProxyType(
    {
        # What the kubelet says of containers; the one without a name is the sum of the others.
        "memory": GaugeTemplate(value=f"container_memory_working_set_bytes{{{_CONTAINERS}}}"),
        "memory-of-limit": GaugeTemplate(
            value=f"container_memory_working_set_bytes{{{_CONTAINERS}}}",
            limit=f"container_spec_memory_limit_bytes{{{_CONTAINERS}}}",
        ),
        "cpu": GaugeTemplate(value=f"container_cpu_usage_seconds_total{{{_CONTAINERS}}}", counter=True),
    }
)

_VALUE = re.compile(r"[A-Za-z0-9_.:/-]{1,253}")
_PARAMETER = re.compile(r"\$(namespace|service|port|deployment|canary|arm)")
_ANY_PARAMETER = re.compile(r"\$([A-Za-z]+)")
_NAME = re.compile(r"\s*([a-zA-Z_:][a-zA-Z0-9_:]*)\s*")
_MATCHER = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*("(?:[^"\\\n]|\\.)*")\s*')
_BY_ARM = frozenset({"service", "deployment", "arm"})


@dataclass(frozen=True)
class Matcher:
    """One condition on one label; an absent label counts as the empty string, as in PromQL."""

    label: str
    operator: str
    value: str

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a series with these labels is selected."""
        found = labels.get(self.label, "")
        match self.operator:
            case "=":
                return found == self.value
            case "!=":
                return found != self.value
            case "=~":
                return _compiled(self.value).fullmatch(found) is not None
            case _:
                return _compiled(self.value).fullmatch(found) is None

    def __str__(self) -> str:
        return f"{self.label}{self.operator}{json.dumps(self.value, ensure_ascii=False)}"

    @property
    def pattern(self) -> str:
        """What it accepts, as a regular expression; only for `=` and `=~`."""
        return _escape(self.value) if self.operator == "=" else f"(?:{self.value})"


@dataclass(frozen=True)
class Selector:
    """The series of one counter that one arm is counted by."""

    metric: str
    matchers: tuple[Matcher, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a series with these labels, its name among them, is selected."""
        return labels.get("__name__") == self.metric and all(each.matches(labels) for each in self.matchers)

    def having(self, matcher: Matcher) -> Selector:
        """The same, narrowed."""
        return replace(self, matchers=(*self.matchers, matcher))

    def beside(self, all_of: Selector) -> Selector:
        """Whatever `self` could select by other values of the labels that `all_of` does not ask for.

        >>> failed, requests = (parse_selector(text) for text in ('rq{shop="a",code=~"5.."}', 'rq{shop="a"}'))
        >>> str(failed.beside(requests))
        'rq{shop="a",code!=""}'
        """
        common = tuple(each for each in self.matchers if each in all_of.matchers)
        others = [each for each in self.matchers if each not in common and not each.matches({})]
        return replace(self, matchers=(*common, *(Matcher(each.label, "!=", "") for each in others)))

    def __str__(self) -> str:
        return f"{self.metric}{{{','.join(map(str, self.matchers))}}}"


@dataclass(frozen=True)
class ArmSelectors:
    """What one arm of one metric is read from; `bad` is None where it comes out of the buckets."""

    requests: Selector
    bad: Selector | None


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.DOTALL)


def _escape(value: str) -> str:
    """For RE2 and Python alike."""
    return re.sub(r"([.+*?()|\[\]{}^$\\])", r"\\\1", value)


@lru_cache(maxsize=256)
def parse_selector(text: str) -> Selector:
    """Read a selector; once, since every look at every rollout asks for those of the same few templates.

    Raises: ValueError: anything that is more, or less, than one metric name and its label matchers.

    >>> str(parse_selector('requests_total{code=~"5..", job="shop"}'))
    'requests_total{code=~"5..",job="shop"}'
    """
    name = _NAME.match(text)
    if name is None:
        raise ValueError(f"{text!r} does not begin with a metric's name")
    rest = text[name.end() :].strip()
    if not rest:
        return Selector(name[1])
    if not (rest.startswith("{") and rest.endswith("}")):
        raise ValueError(f'{text!r} is not one selector: write metric{{label="value"}} and no function or range')
    matchers, at, end = [], 1, len(rest) - 1
    while rest[at:end].strip():
        found = _MATCHER.match(rest, at, end)
        if found is None or (found.end() < end and rest[found.end()] != ","):
            raise ValueError(f"{text!r} is not one selector: no matcher at {rest[at:end][:40]!r}")
        matchers.append(_matcher(found[1], found[2], found[3], text))
        at = min(found.end() + 1, end)
    return Selector(name[1], tuple(matchers))


def _matcher(label: str, operator: str, quoted: str, text: str) -> Matcher:
    try:
        matcher = Matcher(label, operator, json.loads(quoted))
        if operator in ("=~", "!~"):
            _compiled(matcher.value)
    except (ValueError, re.error) as error:
        raise ValueError(f"{text!r}: the value of {label} cannot be read") from error
    return matcher


def parameters(ref: Ref, spec: CanarySpec, arm: str) -> dict[str, str]:
    """The label values of one arm: `canary`, `stable`, or `baseline` for fresh pods of stable's.

    Raises: ValueError: a value outside the alphabet.
    """
    made = {"canary": ref.canary_name, "baseline": ref.baseline_name}.get(arm)
    values = {
        "namespace": ref.namespace,
        "service": made or spec.traffic.service.name,
        "port": str(spec.traffic.service.port),
        "deployment": made or spec.target_ref.name,
        "canary": ref.name,
        "arm": arm,
    }
    for name, value in values.items():
        if not _VALUE.fullmatch(value):
            raise ValueError(f"${name}: {value[:80]!r} cannot be a label value in a query: use A-Z a-z 0-9 _ . : / -")
    return values


def fill(selector: Selector, values: Mapping[str, str]) -> Selector:
    """Put the parameters in; inside a regular expression they stand for themselves.

    >>> str(fill(parse_selector('up{pod=~"$canary-.+"}'), {"canary": "a.b"}))
    'up{pod=~"a\\\\\\\\.b-.+"}'
    """

    def filled(matcher: Matcher) -> Matcher:
        literal = matcher.operator in ("=", "!=")
        text = _PARAMETER.sub(lambda found: values[found[1]] if literal else _escape(values[found[1]]), matcher.value)
        return replace(matcher, value=text)

    return replace(selector, matchers=tuple(map(filled, selector.matchers)))


def join(selectors: Sequence[Selector]) -> str:
    """One selector that brings at least what all of these bring; sort the answer with `matches`.

    >>> shop, cart = (parse_selector(f'up{{job="{job}",code="5"}}') for job in ("shop", "cart"))
    >>> join([shop, cart])
    '{__name__="up",job=~"shop|cart",code="5"}'
    """
    matchers = [_either("__name__", [Matcher("__name__", "=", each.metric) for each in selectors])]
    for label in dict.fromkeys(matcher.label for each in selectors for matcher in each.matchers):
        conditions = [[each for each in selector.matchers if each.label == label] for selector in selectors]
        if all(same == conditions[0] for same in conditions):
            matchers += conditions[0]
        elif all(len(same) == 1 and same[0].operator in ("=", "=~") for same in conditions):
            matchers.append(_either(label, [same[0] for same in conditions]))
    return "{" + ",".join(map(str, matchers)) + "}"


def _either(label: str, conditions: Iterable[Matcher]) -> Matcher:
    different = list(dict.fromkeys(conditions))
    if len(different) == 1:
        return different[0]
    return Matcher(label, "=~", "|".join(each.pattern for each in different))


def select_arm(template: Template, values: Mapping[str, str], *, bounds: Sequence[timedelta] = ()) -> ArmSelectors:
    """The selectors of one arm: of failed requests, or with bounds of a histogram's buckets.

    Raises: ValueError: the template is not a selector, or has no latency.
    """
    if not bounds:
        return ArmSelectors(
            fill(parse_selector(template.requests), values), fill(parse_selector(template.errors), values)
        )
    if not template.latency:
        raise ValueError("the template has no latency: add the selector of a histogram's buckets")
    if template.native:
        return ArmSelectors(fill(parse_selector(template.latency), values), None)
    spellings = dict.fromkeys(text for each in bounds for text in _spellings(bound_of(template, each)))
    buckets = Matcher("le", "=~", "|".join(map(_escape, spellings)))
    return ArmSelectors(fill(parse_selector(template.latency), values).having(buckets), None)


def bound_of(template: Template, threshold: timedelta) -> float:
    """The threshold in the unit of the histogram's `le`."""
    seconds = threshold.total_seconds()
    return round(seconds * 1000, 6) if template.latency_unit == "ms" else seconds


def _spellings(bound: float) -> list[str]:
    """How exporters and servers write one bound (Prometheus 3 stores 250 as 250.0), and the last bucket."""
    whole = [str(int(bound))] if bound == int(bound) else []
    return [*whole, repr(bound), "+Inf"]


def problems_of(template: Template | GaugeTemplate) -> tuple[str, ...]:
    """What is wrong with a template, a line for each query.

    A query that ignores its arm compares a thing with itself and always passes; one that ignores
    its namespace shows a team its neighbours.
    """
    found = []
    fields = ("value", "limit") if isinstance(template, GaugeTemplate) else ("requests", "errors", "latency")
    for field in fields:
        text = getattr(template, field)
        if not text:
            continue
        try:
            selector = parse_selector(text)
        except ValueError as error:
            found.append(f"{field}: {error}")
            continue
        outside = [each for each in selector.matchers if each.operator in ("=", "=~")]
        used = {name for each in outside for name in _PARAMETER.findall(each.value)}
        unknown = {
            name for each in selector.matchers for name in _ANY_PARAMETER.findall(_PARAMETER.sub("", each.value))
        }
        if unknown:
            found.append(f"{field}: unknown ${', $'.join(sorted(unknown))}: there are {_KNOWN}")
        if not used & _BY_ARM:
            found.append(f"{field}: reads the same series for canary and stable: use $service, $deployment or $arm")
        if "namespace" not in used:
            found.append(f"{field}: reads every namespace: match a label with $namespace")
    return tuple(found)


_KNOWN = "$namespace, $service, $port, $deployment, $canary and $arm"
