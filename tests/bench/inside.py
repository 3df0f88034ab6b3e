"""What one controller process costs: its memory and time as the kernel counts them, and what it tells of itself."""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.bench.scene import SYSTEM, leader_pod, leader_process
from tests.cluster.objects import kubectl

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Process:
    """The replica that leads."""

    pid: int
    pod: str

    @property
    def memory(self) -> float:
        """MiB resident."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise LookupError(f"process {self.pid} has no VmRSS")

    @property
    def busy(self) -> float:
        """Seconds of processor time since it began."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    @property
    def began(self) -> float:
        """Unix time."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + int(fields[19]) / TICKS


def leader() -> Process:
    return Process(leader_process(), leader_pod())


def address_of(pod: str) -> str:
    return str(json.loads(kubectl("get", "pod", pod, "-n", SYSTEM, "-o", "json"))["status"]["podIP"])


async def told(address: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample of its /metrics, by name and labels."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{address}:8080/metrics", timeout=aiohttp.ClientTimeout(total=5)) as answer,
    ):
        text = await answer.text()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


Told = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def slowest(before: Told, after: Told, histogram: str, share: float) -> float:
    """The bucket that holds this share of what was observed in between; -1 when nothing was."""
    name = f"{histogram}_bucket"
    counts = sorted(
        (float(dict(labels)["le"]), value - before.get((each, labels), 0.0))
        for (each, labels), value in after.items()
        if each == name
    )
    total = max((count for _, count in counts), default=0.0)
    within = [bound for bound, count in counts if total and count >= math.ceil(share * total)]
    return within[0] if within else -1.0
