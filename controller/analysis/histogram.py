"""Latency as counts: how many requests were slower than each of a few bounds, on both arms alike.

A bound is only used where both arms have it: versions may come with other buckets. What cannot be a
histogram (counts that fall as the bound rises) is no data. Native histograms become classic ones: they
are merged to the coarser resolution of the two arms, and the margin is then a factor of latency, by
comparing the canary above a bound with the baseline above a lower one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import msgspec

QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.99, 0.995)
FEWEST_SLOW, MOST_SLOW = 0.002, 0.6
"""Shares of slower requests between which a bound can show a slowdown."""
NATIVE_SCHEMAS = (-4, 8)
NATIVE_OCTAVES = 64
"""No latency is below 2 ** -64 seconds or above 2 ** 64: a bucket that says so is broken, and spans too many others."""
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


def problem_of_native(native: Native) -> str:
    """What is wrong with it, after the field's name; empty where it can be read.

    >>> problem_of_native(Native(schema=3, count=5.0, buckets={10_000: 5.0}))
    '.buckets: has index 10000, must be from -512 to 512 for schema 3'
    """
    lowest, highest = NATIVE_SCHEMAS
    if not lowest <= native.schema <= highest:
        return f".schema: is {native.schema}, must be from {lowest} to {highest}"
    if native.count < 0:
        return f".count: is {native.count:g}, must be 0 or more"
    widest = max(int(NATIVE_OCTAVES * 2.0**native.schema), 1)
    for index, count in native.buckets.items():
        if not -widest <= index <= widest:
            return f".buckets: has index {index}, must be from {-widest} to {widest} for schema {native.schema}"
        if count < 0:
            return f".buckets[{index}]: is {count:g}, must be 0 or more"
    return ""


def native_bounds(canary: Native, baseline: Native, *, shift: int = NATIVE_SHIFT) -> tuple[dict[float, float], ...]:
    """Both arms as cumulative counts over the same named bounds, the canary's read `shift` buckets higher.

    `shift` counts buckets of schema 3 and is scaled to the resolution that both arms share, at least one.

    >>> arm = Native(schema=0, count=10.0, buckets={0: 4.0, 1: 6.0})
    >>> native_bounds(arm, arm)
    ({0.5: 4.0, 1.0: 10.0, 2.0: 10.0, inf: 10.0}, {0.5: 0.0, 1.0: 4.0, 2.0: 10.0, inf: 10.0})
    """
    schema = min(canary.schema, baseline.schema)
    step = _scaled(shift, schema)
    ours, theirs = _merged(canary, schema), _merged(baseline, schema)
    indices = range(min([*ours, *theirs], default=0) - 1, max([*ours, *theirs], default=-1) + 1)
    start = indices.start
    below: tuple[dict[float, float], dict[float, float]] = ({}, {})
    for arm, counts, shifted in ((below[0], ours, step), (below[1], theirs, 0)):
        so_far = sum(count for i, count in counts.items() if i < start + shifted)
        for index in indices:
            so_far += counts.get(index + shifted, 0.0)
            arm[2.0 ** (index * 2.0**-schema)] = so_far
    return tuple(
        _counted(arm, whole.count - sum(counts.values()), whole.count)
        for arm, counts, whole in ((below[0], ours, canary), (below[1], theirs, baseline))
    )


def slower_than(native: Native, bound: float, *, schema: int, shift: int = 0) -> float:
    """Requests above the first bucket bound of `schema` that is not below `bound`, or `shift` buckets higher.

    `shift` as for `native_bounds`; what lies in the zero bucket, or below zero, is fast.

    >>> arm = Native(schema=3, count=10.0, buckets={-16: 4.0, -15: 3.0, -14: 2.0})
    >>> slower_than(arm, 0.25, schema=3), slower_than(arm, 0.25, schema=3, shift=1)
    (5.0, 2.0)
    """
    limit = _index(bound, schema) + _scaled(shift, schema)
    return sum(count for index, count in _merged(native, schema).items() if index > limit)


def next_bound(threshold: float, *, schema: int) -> float:
    """The first bucket bound of `schema` that is not below `threshold`, in seconds.

    >>> next_bound(0.25, schema=3), round(next_bound(0.3, schema=3), 4)
    (0.25, 0.3242)
    """
    return float(2.0 ** (_index(threshold, schema) * 2.0**-schema))


def parse_exponential(count: float, buckets: Sequence[tuple[float, float, float]]) -> Native | None:
    """A native histogram from (lower bound, upper bound, count) of each bucket; None where its bounds are of its own.

    >>> parse_exponential(6.0, [(-1e-128, 1e-128, 1.0), (0.25, 0.5, 2.0), (0.5, 1.0, 3.0)])
    Native(schema=0, count=6.0, buckets={-1: 2.0, 0: 3.0})
    >>> parse_exponential(5.0, [(0.1, 0.25, 2.0), (0.25, 0.5, 3.0)]) is None
    True
    """
    schemas, found = set(), {}
    for low, high, inside in buckets:
        if low <= 0.0:
            # The zero bucket is as wide on both sides; one that reaches further on one was not made of powers of two.
            if high > max(-low, 0.0) or math.isinf(low):
                return None
            continue
        if not low < high < math.inf:
            return None
        exponent = -math.log2(math.log2(high / low))
        schema = round(exponent)
        index = math.log2(high) * 2.0**schema
        if abs(exponent - schema) > 1e-6 or abs(index - round(index)) > 1e-3:
            return None
        schemas.add(schema)
        found[round(index)] = inside
    if len(schemas) > 1:
        return None
    # Without a bucket nothing says how wide they would be: the finest, which is no reason to read others coarser.
    native = Native(schema=min(schemas, default=NATIVE_SCHEMAS[1]), count=count, buckets=found)
    return None if problem_of_native(native) else native


def _index(bound: float, schema: int) -> int:
    return math.ceil(math.log2(bound) * 2.0**schema - 1e-6)


def _scaled(shift: int, schema: int) -> int:
    """So many buckets of schema 3, in those of `schema`: at least one."""
    return max(round(shift * 2.0 ** (schema - 3)), 1) if shift else 0


def _counted(arm: dict[float, float], zeros: float, total: float) -> dict[float, float]:
    return {bound: count + max(zeros, 0.0) for bound, count in arm.items()} | {math.inf: total}


def _merged(native: Native, schema: int) -> dict[int, float]:
    """Buckets at a coarser schema: two neighbours become one for each step down."""
    merged: dict[int, float] = {}
    for index, count in native.buckets.items():
        coarse = math.ceil(index / 2 ** (native.schema - schema))
        merged[coarse] = merged.get(coarse, 0.0) + count
    return merged
