"""`kubectl canary replay`: from Prometheus to a proposal, with a server that answers as Prometheus does."""

from __future__ import annotations

import argparse
import io
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pytest

from controller.cli import replay
from controller.cli.kubectl import API, Failure
from controller.cli.screen import Screen
from tests.unit.cli.scenes import MemoryCluster

SPEC = {
    "targetRef": {"name": "checkout"},
    "traffic": {"service": {"name": "checkout", "port": 80}, "httpRoute": {"name": "checkout"}},
    "steps": [{"weight": 5, "bake": "2m"}, {"weight": 50, "bake": "3m"}],
}
PODS = ("checkout-6d4f8c-bcdfg", "checkout-6d4f8c-bcdfh", "checkout-6d4f8c-bcdfj")


class Prometheus(BaseHTTPRequestHandler):
    """Three pods with 20 requests a second each, one of a hundred failing, since the beginning of time."""

    def do_POST(self) -> None:
        asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        end = float(asked["time"][0])
        length = float(asked["query"][0].rpartition("[")[2].rstrip("s]"))
        times = [t for t in range(int(end - length) // 15 * 15, int(end) + 1, 15) if end - length < t <= end]
        result = [
            {
                "metric": {"__name__": "http_requests_total", "namespace": "shop", "pod": pod, "code": code},
                "values": [[t, str(rate * (t % 1_000_000))] for t in times],
            }
            for pod in PODS
            for code, rate in (("200", 20), ("500", 0.2))
        ]
        body = json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def prometheus() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Prometheus)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def asked(url: str, since: float = 3600.0) -> tuple[int, str]:
    cluster = MemoryCluster(
        {
            f"{API}/namespaces/shop/canaries/checkout": {"metadata": {"name": "checkout"}, "spec": SPEC},
            f"{API}/metricssources/default": {"spec": {"url": "http://prometheus.example", "scrapeInterval": "15s"}},
        }
    )
    out = io.StringIO()
    options = argparse.Namespace(name="checkout", namespace="shop", since=since, prometheus=url, output="")
    return replay.run(options, cluster, Screen(out)), out.getvalue()


def test_a_steady_service_gets_the_quickest_settings_proposed(prometheus: str) -> None:
    code, text = asked(prometheus)

    assert code == 0
    assert "3 stable pods" in text
    assert "1.0" in text.partition("% bad")[0].rpartition(",")[2] or "0.99" in text
    assert "Proposed for spec.analysis: refill: 0.1" in text
    assert "warmup: 0 pods started in this history" in text


def test_a_history_that_is_shorter_than_the_plan_says_so(prometheus: str) -> None:
    with pytest.raises(Failure, match="--since"):
        asked(prometheus, since=120.0)


def test_a_prometheus_that_cannot_be_reached_names_the_way_to_it() -> None:
    began = time.monotonic()

    with pytest.raises(Failure, match="port-forward"):
        asked("http://127.0.0.1:9")
    with pytest.raises(Failure, match="--prometheus"):
        asked("file:///etc/passwd")
    with pytest.raises(Failure, match="port-forward"):
        asked("http://prometheus example")
    assert time.monotonic() - began < replay.TIMEOUT
