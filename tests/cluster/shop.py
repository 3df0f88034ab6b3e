"""The demo service: small on purpose, so that what a release does to it is easy to see.

The one thing to know: every fault is an environment variable of its pod template, so a bad revision is
an ordinary change of the Deployment and nothing tells the controller in advance.

    SHOP_REVISION     sent back in the header X-Revision
    SHOP_FAIL_RATIO   fraction of requests answered 500 (0 to 1)
    SHOP_FAIL_PATH    only requests of this path fail; without it, every path may
    SHOP_COLD         seconds from its first request in which each fifth is answered 500: the same of all pods that
                      get traffic together, whenever each was started
    SHOP_LATENCY      seconds added to each answer
    SHOP_NATIVE       1: Prometheus gets its latency as a native histogram, which only protobuf can carry
    SHOP_HOARD        MiB of memory that it holds from its start
    SHOP_CRASH        1: exits with status 1 as soon as it starts
    SHOP_NEVER_READY  1: /healthz answers 503 for ever
"""

import asyncio
import contextlib
import os
import random
import signal
import sys
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from math import ceil, log2
from struct import pack
from time import perf_counter

PATHS = ("/", "/cart", "/checkout")
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
PROTOBUF = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
REASONS = {200: "OK", 404: "Not Found", 500: "Internal Server Error", 503: "Service Unavailable"}
DRAIN = 5.0


@dataclass(frozen=True)
class Faults:
    revision: str = "dev"
    fail_ratio: float = 0.0
    fail_path: str = ""
    cold: float = 0.0
    latency: float = 0.0
    native: bool = False
    hoard: int = 0
    crash: bool = False
    never_ready: bool = False

    @classmethod
    def from_env(cls) -> "Faults":
        env = os.environ.get
        return cls(
            revision=env("SHOP_REVISION", "dev"),
            fail_ratio=float(env("SHOP_FAIL_RATIO", "0")),
            fail_path=env("SHOP_FAIL_PATH", ""),
            cold=float(env("SHOP_COLD", "0")),
            latency=float(env("SHOP_LATENCY", "0")),
            native=env("SHOP_NATIVE", "") == "1",
            hoard=int(env("SHOP_HOARD", "0")),
            crash=env("SHOP_CRASH", "") == "1",
            never_ready=env("SHOP_NEVER_READY", "") == "1",
        )

    def fails(self, path: str) -> bool:
        return (not self.fail_path or path == self.fail_path) and random.random() < self.fail_ratio


@dataclass
class Metrics:
    """Counters of this process, in the text format Prometheus scrapes."""

    requests: Counter[int] = field(default_factory=Counter)
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    natives: Counter[int] = field(default_factory=Counter)
    """by index at schema 3, eight buckets an octave"""
    seconds: float = 0.0

    def count(self, code: int, seconds: float) -> None:
        self.requests[code] += 1
        self.natives[ceil(log2(max(seconds, 1e-9)) * 8)] += 1
        self.buckets[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds

    def render(self) -> str:
        lines = ["# TYPE http_requests_total counter"]
        lines += [f'http_requests_total{{code="{code}"}} {n}' for code, n in sorted(self.requests.items())]
        lines.append("# TYPE http_request_duration_seconds histogram")
        total = 0
        for bound, n in zip((*map(str, BUCKETS), "+Inf"), self.buckets, strict=True):
            total += n
            lines.append(f'http_request_duration_seconds_bucket{{le="{bound}"}} {total}')
        lines += [
            f"http_request_duration_seconds_sum {self.seconds:.6f}",
            f"http_request_duration_seconds_count {total}",
            "# TYPE process_resident_memory_bytes gauge",
            f"process_resident_memory_bytes {resident()}",
        ]
        return "\n".join(lines) + "\n"

    def render_protobuf(self) -> bytes:
        """`http_requests_total`, and `http_native_seconds` as a native histogram: io.prometheus.client.MetricFamily."""
        counters = [
            _text(1, _text(1, b"code") + _text(2, str(code).encode())) + _text(3, _double(1, float(n)))
            for code, n in sorted(self.requests.items())
        ]
        spans, deltas, before, last = b"", b"", 0, 0
        for place, (index, n) in enumerate(sorted(self.natives.items())):
            # One span a bucket: the first begins at its index, each other so many buckets after the one before it.
            spans += _text(12, _number(1, _zigzag(index - last - 1 if place else index)) + _number(2, 1))
            deltas += _number(13, _zigzag(n - before))
            before, last = n, index
        count = sum(self.natives.values())
        histogram = _number(1, count) + _double(2, self.seconds) + _number(5, _zigzag(3)) + _double(6, 1e-128)
        families = (
            _text(1, b"http_requests_total") + _number(3, 0) + b"".join(_text(4, one) for one in counters),
            _text(1, b"http_native_seconds") + _number(3, 4) + _text(4, _text(7, histogram + spans + deltas)),
        )
        return b"".join(_varint(len(family)) + family for family in families)


def _varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + pack("<d", value)


def _text(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def resident() -> int:
    """Bytes of memory of this process that are not swapped out."""
    with open("/proc/self/statm", encoding="ascii") as found:
        return int(found.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Shop:
    """One HTTP/1.1 server with keep-alive; requests have no body."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        # Not zeros: pages that were never written are not held.
        self.hoard = b"\x01" * (faults.hoard * 1024 * 1024)
        self.metrics = Metrics()
        self.draining = False
        self.busy = 0
        self.asked = 0
        self.first_asked = 0.0
        self.idle = asyncio.Event()
        self.idle.set()
        # Both classes exist from the start: the first failure is a rise of a series, not a new series.
        self.metrics.requests.update({200: 0, 500: 0})

    async def answer(self, path: str) -> tuple[int, str]:
        if path == "/metrics":
            return 200, self.metrics.render()
        if path == "/healthz":
            return (503, "not ready\n") if self.faults.never_ready else (200, "ok\n")
        start = perf_counter()
        if self.faults.latency:
            await asyncio.sleep(self.faults.latency)
        if path not in PATHS:
            code, body = 404, "no such page\n"
        elif self.is_cold() or self.faults.fails(path):
            code, body = 500, "something went wrong\n"
        else:
            code, body = 200, f"shop {self.faults.revision} {path}\n"
        self.metrics.count(code, perf_counter() - start)
        return code, body

    def is_cold(self) -> bool:
        """Whether this request meets what has to warm up first."""
        self.first_asked = self.first_asked or perf_counter()
        self.asked += 1
        return perf_counter() - self.first_asked < self.faults.cold and self.asked % 5 == 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while not self.draining:
                head = await reader.readuntil(b"\r\n\r\n")
                self._count_busy(+1)
                try:
                    path = head.split(b" ", 2)[1].decode().partition("?")[0]
                    if path == "/metrics" and self.faults.native and b"vnd.google.protobuf" in head:
                        writer.write(self._response(200, self.metrics.render_protobuf(), PROTOBUF))
                    else:
                        code, body = await self.answer(path)
                        writer.write(self._response(code, body.encode()))
                    await writer.drain()
                finally:
                    self._count_busy(-1)
        writer.close()

    def _count_busy(self, change: int) -> None:
        self.busy += change
        if self.busy:
            self.idle.clear()
        else:
            self.idle.set()

    def _response(self, code: int, body: bytes, content: str = "text/plain; charset=utf-8") -> bytes:
        return (
            f"HTTP/1.1 {code} {REASONS[code]}\r\nX-Revision: {self.faults.revision}\r\n"
            f"Content-Type: {content}\r\nContent-Length: {len(body)}\r\n"
            f"Connection: {'close' if self.draining else 'keep-alive'}\r\n\r\n"
        ).encode() + body


async def main() -> None:
    faults = Faults.from_env()
    if faults.crash:
        sys.exit("shop: crashing, as SHOP_CRASH asks")
    shop = Shop(faults)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    host, port = os.environ.get("POD_IP", "127.0.0.1"), int(os.environ.get("PORT", "8080"))
    server = await asyncio.start_server(shop.serve, host, port, backlog=1024)
    print(f"shop {faults.revision} listens on {host}:{port}", flush=True)
    await stop.wait()
    server.close()
    shop.draining = True
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(shop.idle.wait(), DRAIN)


if __name__ == "__main__":
    asyncio.run(main())
