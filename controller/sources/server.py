"""One metrics server: its session, its threads, and the limits of each answer.

The one thing to know: an attempt ends within its seconds, a body within 16 MiB, and whatever goes wrong is a `Failed`
that says which kind of failure it was but never repeats what the server sent: tenants read our messages, and the
server is not theirs.
"""

from __future__ import annotations

import asyncio
import io
import socket
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from threading import local
from typing import Any
from urllib.parse import urlsplit

import requests
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, Retry
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from controller.addresses import is_no_server, plain_address
from controller.model.spec import MetricsSourceSpec

MAX_BODY = 16 * 1024 * 1024
MAX_SKEW = 5.0
"""Seconds the server's clock may differ from ours before its samples count as no data."""
WORKERS = 8
"""Threads of one source: a server that hangs keeps no other source waiting."""


class Failed(Exception):
    """One attempt failed; the text is ours. `passing` when another attempt may do better."""

    def __init__(self, cause: str, *, passing: bool = True) -> None:
        super().__init__(cause)
        self.passing = passing


@dataclass(frozen=True)
class Answer:
    """The `result` of a query, as it was sent, and whether the server warned that it is not whole."""

    result: object
    warned: bool


def refused_host(url: str) -> str:
    """The host of `url` where it is an address that is never asked; empty when fine, or a name."""
    host = urlsplit(url).hostname or ""
    return host if _is_refused(host) else ""


def _is_refused(host: str) -> bool:
    try:
        return is_no_server(plain_address(host))
    except ValueError:
        return False


class Server:
    """One server: its session, its threads, and the limits of each answer."""

    def __init__(self, source: MetricsSourceSpec, credentials: str, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen = local()
        url = source.url.rstrip("/")
        self._session = requests.Session()
        # Else REQUESTS_CA_BUNDLE goes before the CA we were given, and ~/.netrc before our credentials.
        self._session.trust_env = False
        self._session.hooks["response"] = [self._keep_what_the_client_drops]
        headers = source.headers | ({"Authorization": credentials} if credentials else {})
        self._client = PrometheusConnect(url, headers=headers, session=self._session, retry=Retry(total=0))
        # After the client, which mounts an adapter without limits for the same address.
        self._session.mount(url, _BoundedAdapter(_tls(source), source.tls.server_name))
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="serin-metrics")

    async def ask(self, query: str, at: float, seconds: float) -> Answer:
        """One attempt. Raises `Failed`."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._ask, query, at, seconds)

    def close(self) -> None:
        """Threads end when what they wait for does, which their deadlines bound."""
        self._pool.shutdown(wait=False)
        self._session.close()

    def _ask(self, query: str, at: float, seconds: float) -> Answer:
        self._seen.warned, self._seen.asked_at = False, self._clock()
        late = f"no answer within {max(seconds, 0):.1f} s"
        try:
            result = self._client.custom_query(query, params={"time": f"{at:.3f}"}, timeout=max(seconds, 0.01))
        except (requests.Timeout, TimeoutError) as error:
            raise Failed(late) from error
        except requests.exceptions.SSLError as error:
            raise Failed("its certificate was not accepted", passing=False) from error
        except (requests.exceptions.ChunkedEncodingError, HTTPError) as error:
            raise Failed("the answer ended early") from error
        except requests.ConnectionError as error:
            raise Failed("no connection") from error
        except (requests.RequestException, PrometheusApiClientException) as error:
            raise Failed("the request failed") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Failed("the answer is not that of a Prometheus server") from error
        return Answer(result, self._seen.warned)

    def _keep_what_the_client_drops(self, response: requests.Response, *_: object, **__: object) -> None:
        """Status, clock and warnings, before the client looks at the body."""
        if response.status_code != 200:
            raise Failed(
                f"HTTP {response.status_code}", passing=response.status_code == 429 or response.status_code >= 500
            )
        skew = _skew(response.headers.get("Date", ""), self._seen.asked_at, self._clock())
        if abs(skew) > MAX_SKEW:
            raise Failed(f"its clock is {skew:+.0f} s from ours: set both by NTP", passing=False)
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
        raise Failed("spec.url leads to where clouds keep credentials: write another", passing=False)
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
                    raise Failed(f"the answer is larger than {MAX_BODY // 1024 // 1024} MiB", passing=False)
                if time.monotonic() > deadline:
                    raise requests.Timeout("the body")
        except BaseException:
            response.raw.close()
            raise
        response.raw.release_conn()
        body.seek(0)
        response.raw = body
        return response
