"""Raw samples from a Prometheus-compatible server.

The one thing to know: everything ends. A query, its retries included, ends within the source's timeout, and
whatever goes wrong is a `SourceUnavailable` with the words of `server.py`, which never repeat what a server sent.

Why raw samples and not `rate()`: rate extrapolates, hides the first value of a new series and mixes
windows; increases are taken per series in `analysis/increments.py`.
"""

from __future__ import annotations

import asyncio
import base64
import math
import ssl
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Protocol, TypeVar, cast

from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, stop_after_delay, wait_exponential_jitter

from controller.errors import NeedsUser, NotFound, SourceUnavailable
from controller.model.durations import render_duration
from controller.model.spec import (
    CanarySpec,
    ErrorRatio,
    GaugeRule,
    GaugeTemplate,
    LatencyRule,
    Metric,
    MetricsSourceSpec,
    SecretRef,
    Template,
)
from controller.ports import ArmSamples, GaugeSamples, MetricSamples, Past, RawSample, Ref
from controller.sources.answers import (
    Matrix,
    divided,
    is_native,
    parse_bound,
    parse_bounds,
    parse_count,
    parse_matrix,
    read_arm,
    read_by_label,
    read_native,
    read_slower,
)
from controller.sources.server import Answer, Failed, Server, refused_host
from controller.sources.sharing import Sharing
from controller.sources.templates import (
    BUILT_IN,
    GAUGES,
    ArmSelectors,
    Selector,
    bound_of,
    fill,
    join,
    parameters,
    parse_selector,
    problems_of,
    select_arm,
)

KNOWN_FOR = 50.0
"""Seconds for which the shape of a series is not asked for again: less than the minute after which a held edit asks."""
SECRET_KNOWN_FOR = 60.0
ATTEMPTS = 3
PAST_STEP, PODS_STEP = 5.0, 60.0
"""Seconds between two values of what was before a rollout: coarse, so that hours of it are a small answer."""
PODS = Metric(name="pods", error_ratio=ErrorRatio(template="pods"))

Known = TypeVar("Known")
"""what a server is seldom asked for"""


class SourceCatalog(Protocol):
    """The MetricsSource objects of the cluster, and the Secrets of Serin's own namespace."""

    async def find(self, name: str) -> MetricsSourceSpec | None:
        """The spec of that name; None when there is none."""

    async def names(self) -> tuple[str, ...]:
        """Those that exist, for messages."""

    async def secret(self, name: str, key: str) -> str:
        """One value of a Secret. Raises `NeedsUser` or `NotFound` when it is missing."""


class PrometheusSource:
    """`MetricSource` over the Prometheus HTTP API."""

    def __init__(self, catalog: SourceCatalog, *, clock: Callable[[], float] = time.time) -> None:
        self._catalog = catalog
        self._clock = clock
        self._servers: dict[str, tuple[MetricsSourceSpec, str, Server]] = {}
        self._secrets: dict[tuple[str, str], tuple[float, str]] = {}
        self._sharing = Sharing()
        self._in_flight: dict[tuple[str, str, float], asyncio.Task[Answer]] = {}
        self._known: dict[tuple[str, str], tuple[float, MetricsSourceSpec, object]] = {}

    async def read_samples(
        self, ref: Ref, spec: CanarySpec, metric: Metric, since: datetime, until: datetime
    ) -> MetricSamples:
        """Raw samples of both arms in (since, until]; one query for both arms.

        Raises: SourceUnavailable, NeedsUser: source or template is missing or not allowed here.
        """
        source = await self._find(ref, spec)
        name, bounds = _template_of(metric)
        template = self._read_template(source, metric)
        canary, stable = (_arm_of(template, ref, spec, arm, metric) for arm in _arms(spec))
        matrix = await self._read_matrix(source, ref, spec, (name, *bounds), (canary, stable), since, until)
        if not bounds:
            return MetricSamples(
                metric.name, read_arm(matrix, canary), read_arm(matrix, stable), partial=matrix.partial
            )
        named = [bound_of(template, each) for each in bounds]
        if template.native:
            ours, theirs = read_native(matrix, canary, named), read_native(matrix, stable, named, shift=0)
            return MetricSamples(metric.name, ours, theirs, partial=matrix.partial)
        ours, ours_whole = read_slower(matrix, canary, named)
        theirs, theirs_whole = read_slower(matrix, stable, named)
        return MetricSamples(metric.name, ours, theirs, partial=matrix.partial or not (ours_whole and theirs_whole))

    async def read_gauge(
        self, ref: Ref, spec: CanarySpec, metric: Metric, since: datetime, until: datetime, *, step: float
    ) -> GaugeSamples:
        """A gauge's values by pod; divided by its limit, and by its requests a second, where that is asked for.

        Raises as `read_samples` does.
        """
        source = await self._find(ref, spec)
        rule = metric.gauge or GaugeRule()
        template = _gauge(source, rule.template)
        if template is None:
            raise NeedsUser("TemplateMissing", _no_gauge(source, rule.template))
        pods = self._read_template(source, PODS)
        scrape = source.scrape_interval.total_seconds()
        window = _ms(4 * max(step, scrape))

        async def values(selector: Selector, label: str, *, rises: bool) -> dict[str, tuple[RawSample, ...]]:
            of = f"rate({selector}[{window}])" if rises else str(selector)
            return await self._read_sums(source, spec, of, label, until, until - since, step)

        async def of_arm(arm: str) -> dict[str, tuple[tuple[float, float], ...]]:
            try:
                filled = parameters(ref, spec, arm)
                selector = fill(parse_selector(template.value), filled)
                requests = fill(parse_selector(pods.requests), filled)
                limit = fill(parse_selector(template.limit), filled) if template.limit else None
            except ValueError as error:
                raise NeedsUser("TemplateInvalid", f"gauge {rule.template}: {error}") from error
            found = await values(selector, template.pod_label, rises=template.counter)
            if limit is not None:
                found = divided(found, await values(limit, template.pod_label, rises=False))
            if rule.per_request:
                found = divided(found, await values(requests, pods.pod_label or "pod", rises=True))
            return {pod: tuple((one.at, one.value) for one in samples) for pod, samples in found.items()}

        return GaugeSamples(*[await of_arm(arm) for arm in _arms(spec)])

    async def read_past(
        self, ref: Ref, spec: CanarySpec, until: datetime, *, traffic: timedelta, pods: timedelta
    ) -> Past:
        """What stable counted before `until`; pods by the template `pods`, empty where they do not export it.

        Raises as `read_samples` does.
        """
        source = await self._find(ref, spec)
        whole = any(self._read_template(source, one).native for one in spec.analysis.counted if one.latency)
        # A native histogram comes with all its buckets each time.
        step = max(PODS_STEP if whole else PAST_STEP, source.scrape_interval.total_seconds())

        async def ask(query: str, span: timedelta, every: float) -> Matrix:
            return await self._read_steps(source, spec, query, until, span, every)

        found: dict[str, ArmSamples] = {}
        for metric in spec.analysis.counted:
            template, (_, bounds) = self._read_template(source, metric), _template_of(metric)
            stable = _arm_of(template, ref, spec, "stable", metric)
            wanted = [stable.requests, *([stable.bad] if stable.bad else [])]
            matrix = await ask(join(wanted), traffic, step)
            named = [bound_of(template, each) for each in bounds]
            if bounds and template.native:
                found[metric.name] = read_native(matrix, stable, named, shift=0)
            elif bounds:
                found[metric.name], _ = read_slower(matrix, stable, named)
            else:
                found[metric.name] = read_arm(matrix, stable)
        buckets = {
            metric.name: await self._read_buckets(source, ref, spec, metric, until, traffic)
            for metric in spec.analysis.counted
            if metric.latency and metric.latency.threshold is None and not self._read_template(source, metric).native
        }
        by_pod = await self._by_pod(source, ref, spec, "stable", until, pods, PODS_STEP)
        return Past(step, found, PODS_STEP, by_pod, buckets)

    async def _read_buckets(
        self, source: MetricsSourceSpec, ref: Ref, spec: CanarySpec, metric: Metric, until: datetime, span: timedelta
    ) -> dict[float, tuple[RawSample, ...]]:
        """All buckets of stable's histogram, by bound in seconds, summed over its series."""
        template = self._read_template(source, metric)
        of = _latency_of_stable(ref, spec, template)
        found = await self._read_sums(source, spec, of, "le", until, span, PODS_STEP)
        bounds = {parse_bound(text): samples for text, samples in found.items()}
        unit = 1000.0 if template.latency_unit == "ms" else 1.0
        return {bound / unit: samples for bound, samples in bounds.items() if bound is not None}

    async def read_pods(
        self, ref: Ref, spec: CanarySpec, since: datetime, until: datetime, *, step: float
    ) -> Mapping[str, ArmSamples]:
        """What the canary's pods counted, by the template `pods`; empty where they do not export it.

        Raises as `read_samples` does.
        """
        return await self._by_pod(await self._find(ref, spec), ref, spec, "canary", until, until - since, step)

    async def _by_pod(
        self,
        source: MetricsSourceSpec,
        ref: Ref,
        spec: CanarySpec,
        arm: str,
        until: datetime,
        span: timedelta,
        step: float,
    ) -> dict[str, ArmSamples]:
        """Summed where it is stored: a pod has many series, which begin anew together when it does."""
        template = self._read_template(source, PODS)
        selectors, label = _arm_of(template, ref, spec, arm, PODS), template.pod_label or "pod"
        assert selectors.bad is not None
        requests, bad = [
            await self._read_sums(source, spec, str(selector), label, until, span, step)
            for selector in (selectors.requests, selectors.bad)
        ]
        return {pod: ArmSamples(requests[pod], bad.get(pod, ())) for pod in requests}

    async def scrape_interval(self, spec: CanarySpec) -> float:
        """Seconds between two scrapes, as the source's owner says.

        Raises: NeedsUser: there is no such source.
        """
        source = await self._catalog.find(spec.analysis.source)
        if source is None:
            raise NeedsUser("SourceMissing", await self._no_source(spec.analysis.source))
        return source.scrape_interval.total_seconds()

    async def check(self, ref: Ref, spec: CanarySpec, *, live: bool = True) -> tuple[str, ...]:
        """Problems a person must mend, a line each that begins with its reason.

        Raises: SourceUnavailable: nothing else is wrong, and the server, which is to be asked, does not answer.
        """
        try:
            source = await self._find(ref, spec)
        except NeedsUser as error:
            return (f"{error.reason} {error}",)
        problems: list[str] = []
        silent: SourceUnavailable | None = None
        for number, metric in enumerate(spec.analysis.metrics):
            if metric.gauge is not None:
                problems += _gauge_problems(source, f"analysis.metrics[{number}].gauge", metric.gauge)
                continue
            name, bounds = _template_of(metric)
            kind = "latency" if bounds else "errorRatio"
            field = f"analysis.metrics[{number}].{kind}"
            template = _template(source, name)
            if template is None:
                problems.append(f"TemplateMissing {field}.template: {_no_template(source, name)}")
            elif wrong := problems_of(template):
                problems += [f"TemplateInvalid {field}.template: template {name}: {each}" for each in wrong]
            elif live:
                try:
                    problems += await self._check_series(source, ref, spec, field, template, metric.latency)
                except SourceUnavailable as error:
                    silent = error
        if silent is not None and not problems:
            raise silent
        return tuple(problems)

    async def close(self) -> None:
        """Let go of every connection."""
        for _, _, server in self._servers.values():
            server.close()
        self._servers.clear()

    async def _find(self, ref: Ref, spec: CanarySpec) -> MetricsSourceSpec:
        name = spec.analysis.source
        source = await self._catalog.find(name)
        if source is None:
            raise NeedsUser("SourceMissing", await self._no_source(name))
        if source.namespaces and ref.namespace not in source.namespaces:
            raise NeedsUser(
                "SourceNotAllowed",
                f"analysis.source: MetricsSource {name} does not allow namespace {ref.namespace}: "
                "ask its owners to add it to spec.namespaces, or name another source",
            )
        if host := refused_host(source.url):
            raise NeedsUser(
                "SourceNotAllowed", f"analysis.source: MetricsSource {name} points at {host}: write another spec.url"
            )
        return source

    def _read_template(self, source: MetricsSourceSpec, metric: Metric) -> Template:
        name, _ = _template_of(metric)
        template = _template(source, name)
        if template is None:
            raise NeedsUser("TemplateMissing", _no_template(source, name))
        return template

    async def _no_source(self, name: str) -> str:
        exist = ", ".join(sorted(await self._catalog.names())) or "none"
        return f"analysis.source: there is no MetricsSource {name}: those that exist: {exist}"

    async def _check_series(
        self,
        source: MetricsSourceSpec,
        ref: Ref,
        spec: CanarySpec,
        field: str,
        template: Template,
        rule: LatencyRule | None,
    ) -> list[str]:
        """What the server's own series say; `rule` of a latency, None of errors."""
        if rule is None:
            return await self._check_errors(source, ref, spec, field, template)
        if not template.latency:
            return [
                f"TemplateInvalid {field}.template: it has no latency: name a template with one, or ask the "
                "source's owners to add the selector of a histogram's buckets"
            ]
        if template.native:
            return [] if await self._is_native(source, ref, spec, template) else [_not_native(field, template)]
        known = await self._read_bounds(source, ref, spec, template)
        # What is not written is chosen among the bounds that there are.
        written = [one for one in dict.fromkeys((rule.threshold, *sorted(rule.also))) if one is not None]
        wrong = [bound for bound in written if known and bound_of(template, bound) not in known]
        found = ", ".join(
            _bound(each, template) for each in [one for one in known if _is_writable(one, template)] or known
        )
        return [
            f"ThresholdNotABound {field}.{'threshold' if bound == rule.threshold else 'also'}: "
            f"{_bound(bound_of(template, bound), template)} is not a bound of the histogram: "
            f"write one of {found}"
            for bound in wrong
        ]

    async def _check_errors(
        self, source: MetricsSourceSpec, ref: Ref, spec: CanarySpec, field: str, template: Template
    ) -> list[str]:
        """Whether a failed request would be counted: none yet is as it should be, and nothing that could be is not."""
        values = parameters(ref, spec, "stable")
        requests = fill(parse_selector(template.requests), values)
        countable = fill(parse_selector(template.errors), values).beside(requests)
        if await self._exists(source, spec, str(countable)):
            return []
        if not await self._exists(source, spec, f"{requests} > 0"):
            return []
        return [
            f"ErrorsNotCounted {field}: {requests} has requests, and there is no series {countable} that failed ones "
            "could be counted by, so none would ever be seen: correct errors of the template, stop dropping that "
            "series where it is scraped, or let the service export it from 0 on"
        ]

    async def _exists(self, source: MetricsSourceSpec, spec: CanarySpec, series: str) -> bool:
        return await self._ask_seldom(source, spec.analysis.source, f"count({series})", parse_count)

    async def _read_bounds(
        self, source: MetricsSourceSpec, ref: Ref, spec: CanarySpec, template: Template
    ) -> tuple[float, ...]:
        """Bounds of the stable arm's histogram; empty without data."""
        query = f"count by (le) ({_latency_of_stable(ref, spec, template)})"
        return await self._ask_seldom(source, spec.analysis.source, query, parse_bounds)

    async def _is_native(self, source: MetricsSourceSpec, ref: Ref, spec: CanarySpec, template: Template) -> bool:
        """Whether the stable arm's latency is a native histogram that can be read; True without data."""
        query = _latency_of_stable(ref, spec, template)
        return await self._ask_seldom(source, spec.analysis.source, query, is_native)

    async def _ask_seldom(
        self, source: MetricsSourceSpec, name: str, query: str, parse: Callable[[object], Known]
    ) -> Known:
        """What hardly ever changes: asked once a minute, and again where the source has changed."""
        now = self._clock()
        asked, of, known = self._known.get((name, query), (-math.inf, source, None))
        if now - asked < KNOWN_FOR and of is source:
            return cast(Known, known)
        answer = await self._ask(source, name, query, round(now, 3))
        found = parse(answer.result)
        self._known = {key: kept for key, kept in self._known.items() if now - kept[0] < KNOWN_FOR}
        self._known[name, query] = (now, source, found)
        return found

    async def _read_matrix(
        self,
        source: MetricsSourceSpec,
        ref: Ref,
        spec: CanarySpec,
        template: tuple[str | timedelta, ...],
        arms: tuple[ArmSelectors, ArmSelectors],
        since: datetime,
        until: datetime,
    ) -> Matrix:
        """Asked together with the other canaries of the namespace that use this template."""
        name = spec.analysis.source

        async def ask(query: str, begin: float, end: float) -> Matrix:
            span = max(int((end - begin) * 1000) + 1, 1)
            answer = await self._ask(source, name, f"{query}[{span}ms]", round(end, 3))
            try:
                matrix = parse_matrix(answer.result, since=begin, until=end)
            except ValueError as error:
                raise SourceUnavailable(name, str(error)) from error
            return Matrix(matrix.series, answer.warned)

        every = source.scrape_interval.total_seconds()
        group = (name, source.url, ref.namespace, *template)
        return await self._sharing.read(group, arms, since.timestamp(), until.timestamp(), every=every, ask=ask)

    async def _read_sums(
        self,
        source: MetricsSourceSpec,
        spec: CanarySpec,
        of: str,
        label: str,
        until: datetime,
        span: timedelta,
        every: float,
    ) -> dict[str, tuple[RawSample, ...]]:
        """One series for each value of `label`."""
        return read_by_label(
            await self._read_steps(source, spec, f"(sum by ({label}) ({of}))", until, span, every), label
        )

    async def _read_steps(
        self, source: MetricsSourceSpec, spec: CanarySpec, query: str, until: datetime, span: timedelta, every: float
    ) -> Matrix:
        """A subquery: values at whole steps, few enough for hours of them."""
        name, at = spec.analysis.source, until.timestamp()
        answer = await self._ask(source, name, f"{query}[{_ms(span.total_seconds())}:{_ms(every)}]", round(at, 3))
        try:
            return parse_matrix(answer.result, since=at - span.total_seconds(), until=at)
        except ValueError as error:
            raise SourceUnavailable(name, str(error)) from error

    async def _ask(self, source: MetricsSourceSpec, name: str, query: str, at: float) -> Answer:
        """One answer for all who ask the same at the same time."""
        key = (name, query, at)
        task = self._in_flight.get(key)
        if task is None:
            task = asyncio.create_task(self._ask_until_answered(source, name, query, at))
            self._in_flight[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(task)

    def _forget(self, key: tuple[str, str, float], task: asyncio.Task[Answer]) -> None:
        self._in_flight.pop(key, None)
        if not task.cancelled():
            task.exception()  # everybody who asked may have been cancelled meanwhile

    async def _ask_until_answered(self, source: MetricsSourceSpec, name: str, query: str, at: float) -> Answer:
        budget = source.timeout.total_seconds()
        deadline = time.monotonic() + budget
        try:
            async with asyncio.timeout(budget):
                async for attempt in AsyncRetrying(
                    stop=stop_after_delay(budget) | stop_after_attempt(ATTEMPTS),
                    wait=wait_exponential_jitter(multiplier=0.1, max=1.0, jitter=0.1),
                    retry=retry_if_exception(lambda error: isinstance(error, Failed) and error.passing),
                    reraise=True,
                ):
                    with attempt:
                        server = await self._server(source, name)
                        answer = await server.ask(query, at, deadline - time.monotonic())
        except TimeoutError as error:
            raise SourceUnavailable(name, f"no answer within {budget:g} s") from error
        except Failed as error:
            raise SourceUnavailable(name, str(error)) from error
        return answer

    async def _server(self, source: MetricsSourceSpec, name: str) -> Server:
        """The connection of a source; made anew when its spec or its credentials have changed."""
        credentials = await self._authorization(source)
        known = self._servers.get(name)
        if known is not None and known[:2] == (source, credentials):
            return known[2]
        if known is not None:
            known[2].close()
        try:
            server = Server(source, credentials, self._clock)
        except (ssl.SSLError, ValueError) as error:
            raise Failed("spec.tls.ca is not a PEM certificate", passing=False) from error
        self._servers[name] = (source, credentials, server)
        return server

    async def _authorization(self, source: MetricsSourceSpec) -> str:
        """The header `Authorization`; empty where the source asks for nothing."""
        if source.credentials is None:
            return ""
        if (basic := source.credentials.basic_auth) is not None:
            pair = f"{await self._secret(basic.username)}:{await self._secret(basic.password)}"
            return f"Basic {base64.b64encode(pair.encode()).decode()}"
        assert source.credentials.bearer_token is not None, "exactly one of the two, as the model checks"
        return f"Bearer {(await self._secret(source.credentials.bearer_token)).strip()}"

    async def _secret(self, ref: SecretRef) -> str:
        read_at, known = self._secrets.get((ref.name, ref.key), (0.0, ""))
        if not known or self._clock() - read_at > SECRET_KNOWN_FOR:
            try:
                # Files that Secrets are made of end with a line's end.
                known = (await self._catalog.secret(ref.name, ref.key)).strip("\r\n")
            except (NotFound, NeedsUser) as error:
                missing = "its credentials are missing: in Serin's namespace is no such Secret, or no such key in it"
                raise Failed(missing, passing=False) from error
            self._secrets[ref.name, ref.key] = (self._clock(), known)
        return known


def _arms(spec: CanarySpec) -> tuple[str, str]:
    """What is compared during a rollout; what was before it is stable's alone."""
    return "canary", "baseline" if spec.analysis.baseline.fresh else "stable"


def _template_of(metric: Metric) -> tuple[str, tuple[timedelta, ...]]:
    """Name of the metric's template, and of a latency its bounds, the threshold first."""
    if metric.latency is not None:
        threshold = metric.latency.shown
        others = [bound for bound in metric.latency.bounds if bound != threshold]
        return metric.latency.template, (threshold, *others)
    return (metric.error_ratio or ErrorRatio()).template, ()


def _arm_of(template: Template, ref: Ref, spec: CanarySpec, arm: str, metric: Metric) -> ArmSelectors:
    name, bounds = _template_of(metric)
    try:
        return select_arm(template, parameters(ref, spec, arm), bounds=bounds)
    except ValueError as error:
        raise NeedsUser("TemplateInvalid", f"template {name}: {error}") from error


def _latency_of_stable(ref: Ref, spec: CanarySpec, template: Template) -> str:
    return str(fill(parse_selector(template.latency), parameters(ref, spec, "stable")))


def _not_native(field: str, template: Template) -> str:
    metric = parse_selector(template.latency).metric
    return (
        f"TemplateInvalid {field}.template: native is true, and {metric} holds no native histogram with exponential "
        "bounds: scrape it with scrape_native_histograms, or select the buckets of a classic one and take native out"
    )


def _ms(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"


def _template(source: MetricsSourceSpec, name: str) -> Template | None:
    """A source's own template goes before the built-in one of its name."""
    return source.templates.get(name) or BUILT_IN.get(name)


def _gauge(source: MetricsSourceSpec, name: str) -> GaugeTemplate | None:
    return source.gauges.get(name) or GAUGES.get(name)


def _no_gauge(source: MetricsSourceSpec, name: str) -> str:
    exist = ", ".join(sorted({*GAUGES, *source.gauges}))
    return f"the source has no gauge {name}: those that exist: {exist}"


def _gauge_problems(source: MetricsSourceSpec, field: str, rule: GaugeRule) -> list[str]:
    template = _gauge(source, rule.template)
    if template is None:
        return [f"TemplateMissing {field}.template: {_no_gauge(source, rule.template)}"]
    return [f"TemplateInvalid {field}.template: gauge {rule.template}: {each}" for each in problems_of(template)]


def _no_template(source: MetricsSourceSpec, name: str) -> str:
    exist = ", ".join(sorted({*BUILT_IN, *source.templates}))
    return f"the source has no template {name}: those that exist: {exist}"


def _is_writable(bound: float, template: Template) -> bool:
    """Whether a Canary can name this bound: whole milliseconds, up to ten minutes."""
    milliseconds = _in_milliseconds(bound, template)
    return 1 <= milliseconds <= 600_000 and abs(milliseconds - round(milliseconds)) < 1e-6


def _bound(bound: float, template: Template) -> str:
    """As it is written into a Canary."""
    if not _is_writable(bound, template):
        return f"{bound:g}{template.latency_unit}"
    return render_duration(timedelta(milliseconds=round(_in_milliseconds(bound, template))))


def _in_milliseconds(bound: float, template: Template) -> float:
    return bound if template.latency_unit == "ms" else 1000 * bound
