"""Latency as counts: how many requests were slower than each of a few bounds, on both arms alike.

A bound is only used where both arms have it: versions may come with other buckets. What cannot be a
histogram (counts that fall as the bound rises) is no data. Native histograms become classic ones: they
are merged to the coarser resolution of the two arms, and the margin is then a factor of latency, by
comparing the canary above a bound with the baseline above a lower one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import msgspec

QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.99, 0.995)
FEWEST_SLOW, MOST_SLOW = 0.002, 0.6
"""Shares of slower requests between which a bound can show a slowdown."""
NATIVE_SHIFT = 1
"""Buckets of schema 3 by which the canary may be slower: a factor of 2 ** (1 / 8), nine percent."""


class Native(msgspec.Struct, frozen=True, rename="camel"):
    """A native histogram as a scrape shows it: `buckets` are counts by index, of (2**((i-1) / 2**schema), ...]."""

    schema: int
    count: float
    buckets: dict[int, float] = {}


def parse_bounds(buckets: Mapping[str, float]) -> dict[float, float]:
    """Cumulative counts by upper bound in seconds, rising, +Inf last; empty where they are no histogram.

    >>> parse_bounds({"0.1": 790, "+Inf": 812})
    {0.1: 790, inf: 812}
    >>> parse_bounds({"0.1": 900, "+Inf": 812})
    {}
    """
    try:
        found = {float(bound): count for bound, count in buckets.items()}
    except ValueError:
        return {}
    ordered = dict(sorted(found.items()))
    counts = list(ordered.values())
    whole = bool(counts) and math.inf in ordered and not any(math.isnan(bound) for bound in ordered)
    rising = all(low <= high for low, high in pairwise(counts))
    return ordered if whole and rising and all(math.isfinite(one) and one >= 0 for one in counts) else {}


def choose_bounds(baseline: Mapping[float, float], canary: Mapping[float, float]) -> tuple[float, ...]:
    """The bounds nearest to the baseline's quantiles that both arms have and that enough requests exceed.

    >>> past = {0.05: 500.0, 0.1: 900.0, 0.25: 990.0, 5.0: 1000.0, math.inf: 1000.0}
    >>> choose_bounds(past, past)
    (0.05, 0.1, 0.25)
    """
    total = baseline.get(math.inf, 0.0)
    if total <= 0.0:
        return ()
    common = [bound for bound in baseline if bound in canary and math.isfinite(bound)]
    usable = [bound for bound in common if FEWEST_SLOW <= 1.0 - baseline[bound] / total <= MOST_SLOW]
    nearest = {min(usable, key=lambda bound: abs(baseline[bound] / total - q)) for q in QUANTILES} if usable else set()
    return tuple(sorted(nearest))


def native_bounds(canary: Native, baseline: Native, *, shift: int = NATIVE_SHIFT) -> tuple[dict[float, float], ...]:
    """Both arms as cumulative counts over the same named bounds, the canary's read `shift` buckets higher.

    `shift` counts buckets of schema 3 and is scaled to the resolution that both arms share, at least one.

    >>> arm = Native(schema=0, count=10.0, buckets={0: 4.0, 1: 6.0})
    >>> native_bounds(arm, arm)
    ({0.5: 4.0, 1.0: 10.0, 2.0: 10.0, inf: 10.0}, {0.5: 0.0, 1.0: 4.0, 2.0: 10.0, inf: 10.0})
    """
    schema = min(canary.schema, baseline.schema)
    step = max(round(shift * 2.0 ** (schema - 3)), 1) if shift else 0
    ours, theirs = _merged(canary, schema), _merged(baseline, schema)
    indices = range(min([*ours, *theirs], default=0) - 1, max([*ours, *theirs], default=-1) + 1)
    below: tuple[dict[float, float], dict[float, float]] = ({}, {})
    for index in indices:
        bound = 2.0 ** (index * 2.0**-schema)
        for arm, counts, above in ((below[0], ours, index + step), (below[1], theirs, index)):
            arm[bound] = sum(count for i, count in counts.items() if i <= above)
    return tuple(
        _counted(arm, whole.count - sum(counts.values()), whole.count)
        for arm, counts, whole in ((below[0], ours, canary), (below[1], theirs, baseline))
    )


def _counted(arm: dict[float, float], zeros: float, total: float) -> dict[float, float]:
    return {bound: count + max(zeros, 0.0) for bound, count in arm.items()} | {math.inf: total}


def _merged(native: Native, schema: int) -> dict[int, float]:
    """Buckets at a coarser schema: two neighbours become one for each step down."""
    merged: dict[int, float] = {}
    for index, count in native.buckets.items():
        coarse = math.ceil(index / 2 ** (native.schema - schema))
        merged[coarse] = merged.get(coarse, 0.0) + count
    return merged
