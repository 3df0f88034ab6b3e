"""The demo service: small on purpose, so that what a release does to it is easy to see.

The one thing to know: every fault is an environment variable of its pod template, so a bad revision is
an ordinary change of the Deployment and nothing tells the controller in advance.

    SHOP_REVISION     sent back in the header X-Revision
    SHOP_FAIL_RATIO   fraction of requests answered 500 (0 to 1)
    SHOP_FAIL_PATH    only requests of this path fail; without it, every path may
    SHOP_LATENCY      seconds added to each answer
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
from time import perf_counter

PATHS = ("/", "/cart", "/checkout")
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
REASONS = {200: "OK", 404: "Not Found", 500: "Internal Server Error", 503: "Service Unavailable"}
DRAIN = 5.0


@dataclass(frozen=True)
class Faults:
    revision: str = "dev"
    fail_ratio: float = 0.0
    fail_path: str = ""
    latency: float = 0.0
    crash: bool = False
    never_ready: bool = False

    @classmethod
    def from_env(cls) -> "Faults":
        env = os.environ.get
        return cls(
            revision=env("SHOP_REVISION", "dev"),
            fail_ratio=float(env("SHOP_FAIL_RATIO", "0")),
            fail_path=env("SHOP_FAIL_PATH", ""),
            latency=float(env("SHOP_LATENCY", "0")),
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
    seconds: float = 0.0

    def count(self, code: int, seconds: float) -> None:
        self.requests[code] += 1
        self.buckets[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds

    def render(self) -> str:
        lines = ["# TYPE shop_requests_total counter"]
        lines += [f'shop_requests_total{{code="{code}"}} {n}' for code, n in sorted(self.requests.items())]
        lines.append("# TYPE shop_request_duration_seconds histogram")
        total = 0
        for bound, n in zip((*map(str, BUCKETS), "+Inf"), self.buckets, strict=True):
            total += n
            lines.append(f'shop_request_duration_seconds_bucket{{le="{bound}"}} {total}')
        lines += [
            f"shop_request_duration_seconds_sum {self.seconds:.6f}",
            f"shop_request_duration_seconds_count {total}",
        ]
        return "\n".join(lines) + "\n"


class Shop:
    """One HTTP/1.1 server with keep-alive; requests have no body."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.metrics = Metrics()
        self.draining = False
        self.busy = 0
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
        elif self.faults.fails(path):
            code, body = 500, "something went wrong\n"
        else:
            code, body = 200, f"shop {self.faults.revision} {path}\n"
        self.metrics.count(code, perf_counter() - start)
        return code, body

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while not self.draining:
                head = await reader.readuntil(b"\r\n\r\n")
                self._count_busy(+1)
                try:
                    path = head.split(b" ", 2)[1].decode().partition("?")[0]
                    code, body = await self.answer(path)
                    writer.write(self._response(code, body))
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

    def _response(self, code: int, body: str) -> bytes:
        return (
            f"HTTP/1.1 {code} {REASONS[code]}\r\nX-Revision: {self.faults.revision}\r\n"
            f"Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body.encode())}\r\n"
            f"Connection: {'close' if self.draining else 'keep-alive'}\r\n\r\n{body}"
        ).encode()


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
