"""Open-loop load: requests leave at a fixed rate, whether or not the earlier ones were answered.

The one thing to know: it measures at the client. A closed loop would slow down together with a slow
service and hide what users meet; here a late answer is a late answer.

    python -m tests.cluster.load --rate 200 --host shop.example --seconds 10 --out build/load.json
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

PATHS = {"/": 0.6, "/cart": 0.3, "/checkout": 0.1}
TIMEOUT = 30.0
"""seconds, so that a machine that stands still for a while has lost no request"""
IDLE = 20.0
"""seconds after which a connection is not used again, well below the 60 after which the gateway closes it"""
LOST = 0


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Answer:
    """One request: when it left (seconds since the epoch), how long it took, who answered what.

    `status` is 0 and `error` says why where no answer came.
    """

    at: float
    seconds: float
    path: str
    status: int
    revision: str
    error: str = ""

    @property
    def failed(self) -> bool:
        return self.status == LOST or self.status >= 500

    @property
    def ended(self) -> float:
        return self.at + self.seconds


@dataclass
class Report:
    """What the client saw so far, oldest first by the time of the answer; read it at any moment."""

    answers: list[Answer] = field(default_factory=list)

    def between(self, start: float, end: float = float("inf")) -> "Report":
        return Report([a for a in self.answers if start <= a.at < end])

    def per_revision(self) -> Counter[str]:
        """Requests by the revision that answered; answers without one (the gateway's own, lost ones) under ''."""
        return Counter(a.revision for a in self.answers)

    def lost(self, bad_revisions: Iterable[str] = ()) -> list[Answer]:
        """Connection errors and failed responses that do not come from a revision that is known to be bad."""
        bad = set(bad_revisions)
        return [a for a in self.answers if a.failed and a.revision not in bad]

    def share(self, revision: str, bin_seconds: float = 1.0) -> list[tuple[float, float, int]]:
        """(start of the bin, share of this revision from 0 to 1, answers in it); bins without answers are left out."""
        bins: dict[float, list[int]] = {}
        for a in self.answers:
            if a.revision:
                counts = bins.setdefault(a.at // bin_seconds * bin_seconds, [0, 0])
                counts[0] += a.revision == revision
                counts[1] += 1
        return [(at, mine / all_, all_) for at, (mine, all_) in sorted(bins.items())]

    def summary(self) -> dict[str, object]:
        took = sorted(a.seconds for a in self.answers) or [0.0]
        span = max((a.at for a in self.answers), default=0.0) - min((a.at for a in self.answers), default=0.0)
        return {
            "requests": len(self.answers),
            "rate": round(len(self.answers) / span, 1) if span else 0.0,
            "revisions": dict(self.per_revision()),
            "statuses": {str(status): n for status, n in Counter(a.status for a in self.answers).items()},
            "errors": dict(Counter(a.error for a in self.answers if a.error)),
            "p50_seconds": round(took[len(took) // 2], 4),
            "p99_seconds": round(took[int(len(took) * 0.99)], 4),
        }

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"summary": self.summary(), "answers": [asdict(a) for a in self.answers]}))


class Load:
    """`async with Load(...) as load:` sends until the block ends; `load.report` grows meanwhile.

    Connections are kept and used again, not one that lay idle: a request on a connection that the gateway ends for
    that at the same moment fails whatever Serin does. Nothing is retried: each request that gets no answer is lost.
    """

    def __init__(self, url: str, host: str, rate: float = 200.0, paths: Mapping[str, float] = PATHS) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._host, self._rate, self._paths = host, rate, dict(paths)
        self._idle: deque[tuple[float, Connection]] = deque()
        self._flying: set[asyncio.Task[None]] = set()
        self._sender: asyncio.Task[None] | None = None
        self.report = Report()

    async def __aenter__(self) -> "Load":
        self._sender = asyncio.create_task(self._send_all())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._sender:
            self._sender.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sender
        if self._flying:
            await asyncio.wait(self._flying, timeout=TIMEOUT)
        for _, (_, writer) in self._idle:
            writer.close()

    async def _send_all(self) -> None:
        """The n-th request leaves at start + n / rate; after a hiccup of ours the late ones leave at once."""
        start, sent = time.monotonic(), 0
        names, weights = list(self._paths), list(self._paths.values())
        while True:
            await asyncio.sleep(max(0.0, start + sent / self._rate - time.monotonic()))
            (path,) = random.choices(names, weights)
            task = asyncio.create_task(self._one(path))
            self._flying.add(task)
            task.add_done_callback(self._flying.discard)
            sent += 1

    async def _one(self, path: str) -> None:
        at, began = time.time(), time.perf_counter()
        status, revision, error = LOST, "", ""
        connection = None
        try:
            async with asyncio.timeout(TIMEOUT):
                connection = self._take_idle() or await asyncio.open_connection(*self._target)
                status, revision, keep = await self._exchange(*connection, path)
                if keep:
                    self._idle.append((time.monotonic(), connection))
                    connection = None
        except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError) as problem:
            error = type(problem).__name__
        finally:
            if connection:
                connection[1].close()
        self.report.answers.append(Answer(at, time.perf_counter() - began, path, status, revision, error))

    def _take_idle(self) -> Connection | None:
        """The connection that was used last: the others grow old and are closed here."""
        while self._idle and self._idle[0][0] < time.monotonic() - IDLE:
            self._idle.popleft()[1][1].close()
        while self._idle:
            reader, writer = self._idle.pop()[1]
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return None

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str
    ) -> tuple[int, str, bool]:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\nUser-Agent: serin-load\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split(" ", 2)[1])
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:])}
        if headers.get("transfer-encoding") == "chunked":
            while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
                await reader.readexactly(size + 2)
            await reader.readuntil(b"\r\n")
        else:
            await reader.readexactly(int(headers.get("content-length", "0")))
        return status, headers.get("x-revision", ""), headers.get("connection", "").lower() != "close"


async def run_for(seconds: float, load: Load) -> Report:
    """Load for a while; the report afterwards is complete."""
    async with load:
        await asyncio.sleep(seconds)
    return load.report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--url", default=os.environ.get("SERIN_GATEWAY", "http://127.0.0.1:8080"))
    parser.add_argument("--host", required=True, help="the Host header, that is: the route's hostname")
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--out", type=Path, help="write every answer to this file as JSON")
    args = parser.parse_args()
    report = asyncio.run(run_for(args.seconds, Load(args.url, args.host, args.rate)))
    print(json.dumps(report.summary(), indent=1))
    if args.out:
        report.write(args.out)
    return 0 if not report.lost() else 1


if __name__ == "__main__":
    sys.exit(main())
