"""Traffic of a gateway that needs no requests: counters that rise as the routes' weights say.

The one thing to know: scrapes are at whole seconds, so a fault that begins at one of them shows at the next.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from tests.fakes.prometheus import FakePrometheus, Scripted

RATE = 100.0
"""requests a second of each workload"""
BAD_SHARE = 0.5
RETENTION = 3600
"""seconds of samples that are kept, however far back a query reaches"""
_CLUSTERS = re.compile(r'envoy_cluster_name=~?"([^"]*)"')


@dataclass
class Counter:
    """A counter whose slope changes now and then."""

    slopes: list[tuple[float, float, float]] = field(default_factory=lambda: [(0.0, 0.0, 0.0)])
    """(since, value then, slope from then on)"""

    def set(self, at: float, slope: float) -> None:
        if self.slopes[-1][2] != slope:
            self.slopes.append((at, self.value(at), slope))

    def value(self, at: float) -> float:
        since, value, slope = next(one for one in reversed(self.slopes) if one[0] <= at)
        return value + slope * (at - since)

    def scrapes(self, since: float, until: float) -> list[tuple[float, float]]:
        first = max(math.ceil(since), math.floor(until) - RETENTION)
        return [(float(at), self.value(at)) for at in range(first, math.floor(until) + 1)]


@dataclass
class ScriptedGateway(FakePrometheus):
    """Series of every workload there is, as Contour's Envoy exports them."""

    bad: set[str] = field(default_factory=set)
    _counters: dict[tuple[str, str], Counter] = field(default_factory=dict)
    _of_cluster: dict[str, list[Scripted]] = field(default_factory=dict)
    _weights: dict[str, float] = field(default_factory=dict)

    @property
    def workloads(self) -> set[str]:
        """Those whose traffic is scripted."""
        return set(self._weights)

    def add(self, namespace: str, name: str, at: float) -> None:
        """A workload, all of it on stable."""
        for service in (name, f"{name}-canary"):
            cluster = f"{namespace}_{service}_80"
            requests, errors = Counter(), Counter()
            self._counters[cluster, "requests"], self._counters[cluster, "errors"] = requests, errors
            named = {"envoy_cluster_name": cluster}
            bucket = "envoy_cluster_upstream_rq_time_bucket"
            self._of_cluster[cluster] = [
                Scripted({"__name__": "envoy_cluster_upstream_rq_completed"} | named, requests.scrapes),
                Scripted(
                    {"__name__": "envoy_cluster_upstream_rq_xx", "envoy_response_code_class": "5"} | named,
                    errors.scrapes,
                ),
                *(Scripted({"__name__": bucket, "le": le} | named, requests.scrapes) for le in ("250.0", "+Inf")),
            ]
        self.shift(namespace, name, 0.0, at)

    def claim(self, metric: str, rate: float, at: float, **labels: str) -> None:
        """Somebody else exports a series under the gateway's name, and it is scraped as it is."""
        counter = Counter()
        counter.set(at, rate)
        of_cluster = self._of_cluster.setdefault(labels["envoy_cluster_name"], [])
        of_cluster.append(Scripted({"__name__": metric} | labels, counter.scrapes))

    def shift(self, namespace: str, name: str, weight: float, at: float) -> None:
        """The route has this weight from now on."""
        key = f"{namespace}/{name}"
        self._weights[key] = weight
        slope = RATE * weight / 100
        self._set(namespace, name, "requests", RATE - slope, at)
        self._set(namespace, f"{name}-canary", "requests", slope, at)
        self._set(namespace, f"{name}-canary", "errors", slope * BAD_SHARE if key in self.bad else 0.0, at)

    def spoil(self, namespace: str, name: str, at: float) -> None:
        """From `at` on the canary fails."""
        self.bad.add(f"{namespace}/{name}")
        self.shift(namespace, name, self._weights[f"{namespace}/{name}"], at)

    def mend(self, namespace: str, name: str, at: float) -> None:
        self.bad.discard(f"{namespace}/{name}")
        self.shift(namespace, name, self._weights[f"{namespace}/{name}"], at)

    def _set(self, namespace: str, service: str, counted: str, slope: float, at: float) -> None:
        self._counters[f"{namespace}_{service}_80", counted].set(at, slope)

    def _select(self, name: str | None, inside: str) -> list[Scripted]:
        """Only the series of the clusters that are asked for are looked at: a hundred ask every second.

        Pods export nothing here.
        """
        asked = _CLUSTERS.search(inside)
        clusters = asked[1].split("|") if asked else []
        some = [series for cluster in clusters for series in self._of_cluster.get(cluster, [])]
        return FakePrometheus(series=some)._select(name, inside)
