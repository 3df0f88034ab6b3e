"""Raw samples from a Prometheus-compatible server.

The one thing to know: everything ends. A query, its retries included, ends within the source's timeout,
a body within 16 MiB, and whatever goes wrong is a `SourceUnavailable` that says which kind of failure it
was but never repeats what the server sent: tenants read our messages, and the server is not theirs.

Why raw samples and not `rate()`: rate extrapolates, hides the first value of a new series and mixes
windows; increases are taken per series in `analysis/increments.py`.
"""

from __future__ import annotations

import asyncio
import io
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from threading import local
from typing import Any, Protocol
from urllib.parse import urlsplit

import requests
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from requests.adapters import HTTPAdapter
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, stop_after_delay, wait_exponential_jitter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, Retry
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from controller.errors import NeedsUser, NotFound, SourceUnavailable
from controller.model.spec import CanarySpec, ErrorRatio, Metric, MetricsSourceSpec, Template
from controller.ports import MetricSamples, Ref
from controller.sources.answers import Matrix, parse_bounds, parse_matrix, read_arm, read_slower
from controller.sources.sharing import Sharing
from controller.sources.templates import (
    BUILT_IN,
    ArmSelectors,
    bound_of,
    fill,
    parameters,
    parse_selector,
    problems_of,
    select_arm,
)

MAX_BODY = 16 * 1024 * 1024
MAX_SKEW = 5.0
"""Seconds the server's clock may differ from ours before its samples count as no data."""
BOUNDS_KNOWN_FOR = 60.0
TOKEN_KNOWN_FOR = 60.0
WORKERS = 8
"""Threads of one source: a server that hangs keeps no other source waiting."""
ATTEMPTS = 3
ARMS = ("canary", "stable")


class SourceCatalog(Protocol):
    """The MetricsSource objects of the cluster, and the Secrets of Serin's own namespace."""

    async def find(self, name: str) -> MetricsSourceSpec | None:
        """The spec of that name; None when there is none."""

    async def names(self) -> tuple[str, ...]:
        """Those that exist, for messages."""

    async def secret(self, name: str, key: str) -> str:
        """One value of a Secret. Raises `NeedsUser` or `NotFound` when it is missing."""


class _Failed(Exception):
    """One attempt failed; the text is ours. `passing` when another attempt may do better."""

    def __init__(self, cause: str, *, passing: bool = True) -> None:
        super().__init__(cause)
        self.passing = passing


@dataclass(frozen=True)
class _Answer:
    result: object
    warned: bool


class PrometheusSource:
    """`MetricSource` over the Prometheus HTTP API."""

    def __init__(self, catalog: SourceCatalog, *, clock: Callable[[], float] = time.time) -> None:
        self._catalog = catalog
        self._clock = clock
        self._servers: dict[str, tuple[MetricsSourceSpec, str, _Server]] = {}
        self._tokens: dict[tuple[str, str], tuple[float, str]] = {}
        self._sharing = Sharing()
        self._in_flight: dict[tuple[str, str, float], asyncio.Task[_Answer]] = {}
        self._bounds: dict[tuple[str, str], tuple[float, tuple[float, ...]]] = {}

    async def read_samples(
        self, ref: Ref, spec: CanarySpec, metric: Metric, since: datetime, until: datetime
    ) -> MetricSamples:
        """Raw samples of both arms in (since, until]; one query for both arms.

        Raises: SourceUnavailable, NeedsUser: source or template is missing or not allowed here.
        """
        source = await self._find(ref, spec)
        name, threshold = _template_of(metric)
        template = _template(source, name)
        if template is None:
            raise NeedsUser("TemplateMissing", _no_template(source, name))
        try:
            canary, stable = (select_arm(template, parameters(ref, spec, arm), threshold=threshold) for arm in ARMS)
        except ValueError as error:
            raise NeedsUser("TemplateInvalid", f"template {name}: {error}") from error
        matrix = await self._read_matrix(source, ref, spec, (name, threshold), (canary, stable), since, until)
        if threshold is None:
            return MetricSamples(
                metric.name, read_arm(matrix, canary), read_arm(matrix, stable), partial=matrix.partial
            )
        bound = bound_of(template, threshold)
        ours, ours_whole = read_slower(matrix, canary, bound)
        theirs, theirs_whole = read_slower(matrix, stable, bound)
        return MetricSamples(metric.name, ours, theirs, partial=matrix.partial or not (ours_whole and theirs_whole))

    async def read_pods(self, ref: Ref, spec: CanarySpec, since: datetime, until: datetime) -> MetricSamples:
        """What the pods count themselves, one series a pod and code: for the noise, never for the verdict.

        Empty where no pod exports what the template `pods` names. Raises as `read_samples` does.
        """
        pods = Metric(name="pods", error_ratio=ErrorRatio(template="pods"))
        return await self.read_samples(ref, spec, pods, since, until)

    async def scrape_interval(self, spec: CanarySpec) -> float:
        """Seconds between two scrapes, as the source's owner says.

        Raises: NeedsUser: there is no such source.
        """
        source = await self._catalog.find(spec.analysis.source)
        if source is None:
            raise NeedsUser("SourceMissing", await self._no_source(spec.analysis.source))
        return source.scrape_interval.total_seconds()

    async def check(self, ref: Ref, spec: CanarySpec, *, live: bool = True) -> tuple[str, ...]:
        """Problems a person must mend, a line each that begins with its reason; a source that is down is none."""
        try:
            source = await self._find(ref, spec)
        except NeedsUser as error:
            return (f"{error.reason} {error}",)
        problems = []
        for number, metric in enumerate(spec.analysis.metrics):
            name, threshold = _template_of(metric)
            kind = "errorRatio" if threshold is None else "latency"
            field = f"analysis.metrics[{number}].{kind}"
            template = _template(source, name)
            if template is None:
                problems.append(f"TemplateMissing {field}.template: {_no_template(source, name)}")
            elif wrong := problems_of(template):
                problems += [f"TemplateInvalid {field}.template: template {name}: {each}" for each in wrong]
            elif threshold is not None and live:
                problems += await self._check_bound(source, ref, spec, field, template, threshold)
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
        if host := _refused_host(source.url):
            raise NeedsUser(
                "SourceNotAllowed", f"analysis.source: MetricsSource {name} points at {host}: write another spec.url"
            )
        return source

    async def _no_source(self, name: str) -> str:
        exist = ", ".join(sorted(await self._catalog.names())) or "none"
        return f"analysis.source: there is no MetricsSource {name}: those that exist: {exist}"

    async def _check_bound(
        self,
        source: MetricsSourceSpec,
        ref: Ref,
        spec: CanarySpec,
        field: str,
        template: Template,
        threshold: timedelta,
    ) -> list[str]:
        if not template.latency:
            return [
                f"TemplateInvalid {field}.template: it has no latency: name a template with one, or ask the "
                "source's owners to add the selector of a histogram's buckets"
            ]
        bound = bound_of(template, threshold)
        try:
            bounds = await self._read_bounds(source, ref, spec, template)
        except SourceUnavailable:
            return []
        if not bounds or bound in bounds:
            return []
        found = ", ".join(f"{each:g}{template.latency_unit}" for each in bounds)
        return [
            f"ThresholdNotABound {field}.threshold: {bound:g}{template.latency_unit} is not a bound of the "
            f"histogram: write one of {found}"
        ]

    async def _read_bounds(
        self, source: MetricsSourceSpec, ref: Ref, spec: CanarySpec, template: Template
    ) -> tuple[float, ...]:
        """Bounds of the stable arm's histogram; empty without data. Asked once a minute."""
        name, now = spec.analysis.source, self._clock()
        selector = str(fill(parse_selector(template.latency), parameters(ref, spec, "stable")))
        asked, bounds = self._bounds.get((name, selector), (0.0, ()))
        if now - asked < BOUNDS_KNOWN_FOR:
            return bounds
        answer = await self._ask(source, name, f"count by (le) ({selector})", round(now, 3))
        bounds = parse_bounds(answer.result)
        self._bounds = {key: kept for key, kept in self._bounds.items() if now - kept[0] < BOUNDS_KNOWN_FOR}
        self._bounds[name, selector] = (now, bounds)
        return bounds

    async def _read_matrix(
        self,
        source: MetricsSourceSpec,
        ref: Ref,
        spec: CanarySpec,
        template: tuple[str, timedelta | None],
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

    async def _ask(self, source: MetricsSourceSpec, name: str, query: str, at: float) -> _Answer:
        """One answer for all who ask the same at the same time."""
        key = (name, query, at)
        task = self._in_flight.get(key)
        if task is None:
            task = asyncio.create_task(self._ask_until_answered(source, name, query, at))
            self._in_flight[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(task)

    def _forget(self, key: tuple[str, str, float], task: asyncio.Task[_Answer]) -> None:
        self._in_flight.pop(key, None)
        if not task.cancelled():
            task.exception()  # everybody who asked may have been cancelled meanwhile

    async def _ask_until_answered(self, source: MetricsSourceSpec, name: str, query: str, at: float) -> _Answer:
        budget = source.timeout.total_seconds()
        deadline = time.monotonic() + budget
        try:
            async with asyncio.timeout(budget):
                async for attempt in AsyncRetrying(
                    stop=stop_after_delay(budget) | stop_after_attempt(ATTEMPTS),
                    wait=wait_exponential_jitter(multiplier=0.1, max=1.0, jitter=0.1),
                    retry=retry_if_exception(lambda error: isinstance(error, _Failed) and error.passing),
                    reraise=True,
                ):
                    with attempt:
                        server = await self._server(source, name)
                        answer = await server.ask(query, at, deadline - time.monotonic())
        except TimeoutError as error:
            raise SourceUnavailable(name, f"no answer within {budget:g} s") from error
        except _Failed as error:
            raise SourceUnavailable(name, str(error)) from error
        return answer

    async def _server(self, source: MetricsSourceSpec, name: str) -> _Server:
        """The connection of a source; made anew when its spec or its token has changed."""
        token = await self._token(source)
        known = self._servers.get(name)
        if known is not None and known[:2] == (source, token):
            return known[2]
        if known is not None:
            known[2].close()
        try:
            server = _Server(source, token, self._clock)
        except (ssl.SSLError, ValueError) as error:
            raise _Failed("spec.tls.ca is not a PEM certificate", passing=False) from error
        self._servers[name] = (source, token, server)
        return server

    async def _token(self, source: MetricsSourceSpec) -> str:
        if source.credentials is None:
            return ""
        key = (source.credentials.bearer_token.name, source.credentials.bearer_token.key)
        read_at, token = self._tokens.get(key, (0.0, ""))
        if not token or self._clock() - read_at > TOKEN_KNOWN_FOR:
            try:
                token = (await self._catalog.secret(*key)).strip()
            except (NotFound, NeedsUser) as error:
                raise _Failed("its credentials are missing", passing=False) from error
            self._tokens[key] = (self._clock(), token)
        return token


def _template_of(metric: Metric) -> tuple[str, timedelta | None]:
    """Name of the metric's template, and its threshold where it is a latency."""
    if metric.latency is not None:
        return metric.latency.template, metric.latency.threshold
    return (metric.error_ratio or ErrorRatio()).template, None


def _template(source: MetricsSourceSpec, name: str) -> Template | None:
    """A source's own template goes before the built-in one of its name."""
    return source.templates.get(name) or BUILT_IN.get(name)


def _no_template(source: MetricsSourceSpec, name: str) -> str:
    exist = ", ".join(sorted({*BUILT_IN, *source.templates}))
    return f"the source has no template {name}: those that exist: {exist}"


def _refused_host(url: str) -> str:
    """The host of `url` where it is an address that is never asked; empty when fine, or a name."""
    host = urlsplit(url).hostname or ""
    return host if _is_refused(host) else ""


def _is_refused(host: str) -> bool:
    """A link-local address is a cloud's metadata service and never a Prometheus."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_link_local or mapped.is_multicast or mapped.is_unspecified


class _Server:
    """One server: its session, its threads, and the limits of each answer."""

    def __init__(self, source: MetricsSourceSpec, token: str, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen = local()
        url = source.url.rstrip("/")
        self._session = requests.Session()
        # Else REQUESTS_CA_BUNDLE goes before the CA we were given, and ~/.netrc before the token.
        self._session.trust_env = False
        self._session.hooks["response"] = [self._keep_what_the_client_drops]
        headers = {"Authorization": f"Bearer {token}"} if token else None
        self._client = PrometheusConnect(url, headers=headers, session=self._session, retry=Retry(total=0))
        # After the client, which mounts an adapter without limits for the same address.
        self._session.mount(url, _BoundedAdapter(_tls(source), source.tls.server_name))
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="serin-metrics")

    async def ask(self, query: str, at: float, seconds: float) -> _Answer:
        """One attempt. Raises `_Failed`."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._ask, query, at, seconds)

    def close(self) -> None:
        """Threads end when what they wait for does, which their deadlines bound."""
        self._pool.shutdown(wait=False)
        self._session.close()

    def _ask(self, query: str, at: float, seconds: float) -> _Answer:
        self._seen.warned, self._seen.asked_at = False, self._clock()
        late = f"no answer within {max(seconds, 0):.1f} s"
        try:
            result = self._client.custom_query(query, params={"time": f"{at:.3f}"}, timeout=max(seconds, 0.01))
        except (requests.Timeout, TimeoutError) as error:
            raise _Failed(late) from error
        except requests.exceptions.SSLError as error:
            raise _Failed("its certificate was not accepted", passing=False) from error
        except (requests.exceptions.ChunkedEncodingError, HTTPError) as error:
            raise _Failed("the answer ended early") from error
        except requests.ConnectionError as error:
            raise _Failed("no connection") from error
        except (requests.RequestException, PrometheusApiClientException) as error:
            raise _Failed("the request failed") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise _Failed("the answer is not that of a Prometheus server") from error
        return _Answer(result, self._seen.warned)

    def _keep_what_the_client_drops(self, response: requests.Response, *_: object, **__: object) -> None:
        """Status, clock and warnings, before the client looks at the body."""
        if response.status_code != 200:
            raise _Failed(
                f"HTTP {response.status_code}", passing=response.status_code == 429 or response.status_code >= 500
            )
        skew = _skew(response.headers.get("Date", ""), self._seen.asked_at, self._clock())
        if abs(skew) > MAX_SKEW:
            raise _Failed(f"its clock is {skew:+.0f} s from ours: set both by NTP", passing=False)
        if b'"warnings"' in response.content:
            body = response.json()
            self._seen.warned = isinstance(body, dict) and bool(body.get("warnings"))


def _skew(date: str, asked_at: float, answered_at: float) -> float:
    """The least seconds by which the server's clock must differ; a Date header is cut to the second."""
    try:
        server = parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return 0.0
    if server > answered_at:
        return server - answered_at
    return min(server + 1 - asked_at, 0.0)


def _tls(source: MetricsSourceSpec) -> ssl.SSLContext | None:
    if not source.url.startswith("https:"):
        return None
    return ssl.create_default_context(cadata=source.tls.ca or None)


def _checked(connected: socket.socket) -> socket.socket:
    """The connection, unless it leads where a URL must not, by whatever name or spelling: nothing was sent yet."""
    if _is_refused(str(connected.getpeername()[0])):
        connected.close()
        raise _Failed("spec.url leads to a link-local address: write another", passing=False)
    return connected


class _Connection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _checked(super()._new_conn())


class _TlsConnection(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _checked(super()._new_conn())


class _Connections(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsConnections(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _BoundedAdapter(HTTPAdapter):
    """Reads the whole body itself: a timeout of requests bounds each read, not their sum."""

    def __init__(self, context: ssl.SSLContext | None, server_name: str) -> None:
        self._tls: dict[str, Any] = {} if context is None else {"ssl_context": context}
        if context is not None and server_name:
            self._tls |= {"server_hostname": server_name, "assert_hostname": server_name}
        super().__init__(pool_connections=1, pool_maxsize=WORKERS, max_retries=Retry(total=0))

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **pool_kwargs: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, **pool_kwargs, **self._tls)
        self.poolmanager.pool_classes_by_scheme = {"http": _Connections, "https": _TlsConnections}

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """The context says whom to trust; requests would add its own bundle to it."""
        conn.cert_reqs = "CERT_REQUIRED"

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        deadline = time.monotonic() + float(kwargs["timeout"])
        response = super().send(request, *args, **{**kwargs, "stream": True})
        body = io.BytesIO()
        try:
            for chunk in response.raw.stream(65536, decode_content=True):
                body.write(chunk)
                if body.tell() > MAX_BODY:
                    raise _Failed(f"the answer is larger than {MAX_BODY // 1024 // 1024} MiB", passing=False)
                if time.monotonic() > deadline:
                    raise requests.Timeout("the body")
        except BaseException:
            response.raw.close()
            raise
        response.raw.release_conn()
        body.seek(0)
        response.raw = body
        return response
