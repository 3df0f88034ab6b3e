"""A service's own past, before a rollout: how much traffic it has, and how its pods differ.

The one thing to know: cumulative counters come in and increases go out, a row for each span of time. What cannot be
told apart, or was not seen for long enough, teaches nothing, and the words say which it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np

from controller.analysis import histogram
from controller.analysis import judge as judging
from controller.analysis.evidence import CERTIFICATE_MARGIN, CERTIFICATE_RHO, Floats, PodNoise
from controller.analysis.judge import JudgeState

MOSTLY = 0.9
"""share of the time in which two pods have to have served"""
SHORTEST = 10.0
"""seconds of traffic from which a rate is reckoned"""

Course = Sequence[tuple[float, float]]
"""one cumulative counter: (unix seconds, value), oldest first"""


class Pod(msgspec.Struct, frozen=True):
    """The counters of one pod; several of a kind are added up."""

    requests: tuple[Course, ...]
    bad: tuple[Course, ...] = ()


class Noise(msgspec.Struct, frozen=True):
    """How pods differ: what the judge takes, or None where it has to assume; and why, in words."""

    learned: PodNoise | None
    words: str


def tabulate(pods: Mapping[str, Pod], *, since: float, until: float, step: float) -> tuple[Floats, Floats]:
    """Increases of requests and of bad ones in each `step` seconds, a column for each pod by name.

    Counters that fall were reset. The first value of a counter counts only where its pod was seen before, because
    what it holds was counted before anybody looked.

    >>> a = Pod(requests=(((0.0, 5.0), (60.0, 65.0), (120.0, 10.0)),), bad=(((120.0, 2.0),),))
    >>> requests, bad = tabulate({"a": a}, since=0.0, until=180.0, step=60.0)
    >>> requests.ravel().tolist(), bad.ravel().tolist()
    ([0.0, 60.0, 10.0], [0.0, 0.0, 2.0])
    """
    shape = (max(int((until - since) / step), 1), len(pods))
    requests, bad = np.zeros(shape), np.zeros(shape)
    for column, (_, pod) in enumerate(sorted(pods.items())):
        begun = _begun(pod, until)
        for table, courses in ((requests, pod.requests), (bad, pod.bad)):
            for course in courses:
                from_zero = bool(course) and course[0][0] > begun + step
                for at, grown in _increases(course, from_zero=from_zero):
                    table[min(max(int((at - since) / step), 0), shape[0] - 1), column] += grown
    return requests, np.minimum(bad, requests)


def _begun(pod: Pod, until: float) -> float:
    """When its first counter was first seen."""
    return min((course[0][0] for course in (*pod.requests, *pod.bad) if course), default=until)


def _increases(course: Course, *, from_zero: bool) -> Iterator[tuple[float, float]]:
    """By how much a counter grew up to each instant; one that falls was reset, and its first value counts only
    `from_zero`."""
    last: float | None = 0.0 if from_zero else None
    for at, value in course:
        yield at, 0.0 if last is None else value - last if value >= last else value
        last = value


def learn(requests: Floats, bad: Floats, *, step: float) -> Noise:
    """How pods differ, from tables of `tabulate`; `step` is a minute or so: noise drowns in longer ones.

    >>> quiet = np.full((120, 3), 600.0)
    >>> learn(quiet, quiet / 100.0, step=60.0).learned
    PodNoise(short=0.0, long=0.0, bursts=0.0)
    >>> learn(quiet[:60], quiet[:60] / 100.0, step=60.0).words
    'assumed: the counters of 3 pods go back 60 min, and two hours are needed'
    """
    pods = requests.shape[1]
    if not pods:
        return Noise(None, "assumed: no counter of a pod of stable was found by the template pods")
    at_once = (requests > 0).sum(axis=1)
    first = int(np.argmax(at_once > 0)) if at_once.any() else len(at_once)
    span = (len(at_once) - first) * step
    if span < judging.LEAST_HISTORY:
        words = f"assumed: the counters of {_pods(pods)} go back {span / 60:.0f} min, and two hours are needed"
        return Noise(None, words)
    # One pod after the other cannot be compared, and would look as if pods never differed.
    if float((at_once[first:] > 1).mean()) < MOSTLY:
        return Noise(None, "assumed: one pod of stable served at a time, and two are needed to compare")
    learned = judging.learn_noise(JudgeState(), requests[first:], bad[first:], block=step).noise
    assert learned is not None
    share = float(bad[first:].sum() / requests[first:].sum())
    return Noise(
        PodNoise(*(float(f"{one:.4g}") for one in learned)),
        f"learned from {_pods(pods)} over {span / 3600:.1f} h, {100 * share:.3g} % of their requests bad",
    )


def _pods(count: int) -> str:
    return f"{count} pod" if count == 1 else f"{count} pods"


def traffic(requests: Sequence[Course], bad: Sequence[Course], *, step: float) -> tuple[float, float] | None:
    """Requests a second and the ratio of bad ones over what was seen; None where that is too little to tell.

    >>> traffic([[(0.0, 100.0), (60.0, 700.0)]], [[(0.0, 0.0), (60.0, 6.0)]], step=60.0)
    (10.0, 0.01)
    """
    times = [at for course in requests for at, _ in course]
    if not times or max(times) - min(times) < SHORTEST:
        return None
    since, until = min(times), max(times)
    found, failed = tabulate({"all": Pod(tuple(requests), tuple(bad))}, since=since, until=until, step=step)
    total = float(found.sum())
    return (total / (until - since), float(failed.sum()) / total) if total > 0 else None


FEWEST_TO_CHOOSE = 1000.0
"""requests of stable's from which the bounds of a latency are chosen: the slowest in a hundred are ten of them"""


class Chosen(msgspec.Struct, frozen=True):
    """The bounds at which a latency is compared, in seconds: `threshold` is the one that is shown."""

    threshold: float
    also: tuple[float, ...]
    requests: float


def choose_bounds(buckets: Mapping[float, Course]) -> Chosen | None:
    """From the cumulative buckets of a histogram, by upper bound in seconds; None where they are too few to tell.

    >>> def bucket(share): return [(0.0, 0.0), (60.0, 4000.0 * share)]
    >>> choose_bounds({0.05: bucket(0.6), 0.1: bucket(0.95), 0.25: bucket(0.993), 5.0: bucket(1), math.inf: bucket(1)})
    Chosen(threshold=0.25, also=(0.05, 0.1), requests=4000.0)
    """
    counts = {
        bound: sum(grown for _, grown in _increases(course, from_zero=False)) for bound, course in buckets.items()
    }
    whole = counts.get(math.inf, 0.0)
    # A bound finer than a microsecond cannot be asked for by name.
    named = {bound: count for bound, count in counts.items() if bound == math.inf or round(bound, 6) == bound}
    chosen = histogram.choose_bounds(named, named)
    if whole < FEWEST_TO_CHOOSE or not chosen:
        return None
    threshold = next((bound for bound in chosen if named[bound] >= RARELY * whole), chosen[-1])
    return Chosen(threshold, tuple(bound for bound in chosen if bound != threshold), whole)


RARELY = 0.99
"""share of requests that are no slower than the bound that is shown"""
MOST = 0.8
"""share of the bad requests from which they are one pod's"""
FEWEST = 3.0
"""bad requests that the other pods had to be expected to have, before it tells that they had none"""


def blamed(pods: Mapping[str, Pod], *, since: float, until: float, step: float) -> str:
    """On which of a canary's pods the bad requests were, in words; empty where that cannot be told.

    >>> def pod(bad): return Pod((((0.0, 0.0), (60.0, 100.0)),), (((0.0, 0.0), (60.0, bad)),))
    >>> blamed({"a": pod(0.0), "b": pod(12.0), "c": pod(0.0)}, since=0.0, until=120.0, step=60.0)
    '12 of 12 bad requests were of pod b, with 33 % of the requests: look at that pod and its node first'
    >>> blamed({"a": pod(9.0), "b": pod(12.0)}, since=0.0, until=120.0, step=60.0)
    '21 bad requests on 2 of 2 pods: not the fault of one pod'
    """
    if len(pods) < 2:
        return ""
    requests, bad = (table.sum(axis=0) for table in tabulate(pods, since=since, until=until, step=step))
    total, served = float(bad.sum()), float(requests.sum())
    worst = int(np.argmax(bad))
    share = float(requests[worst]) / served if served else 1.0
    if total * (1.0 - share) < FEWEST:
        return ""
    if bad[worst] >= MOST * total:
        return (
            f"{bad[worst]:.0f} of {total:.0f} bad requests were of pod {sorted(pods)[worst]}, "
            f"with {100 * share:.0f} % of the requests: look at that pod and its node first"
        )
    return f"{total:.0f} bad requests on {int((bad > 0).sum())} of {len(pods)} pods: not the fault of one pod"


YOUNG = 600.0
"""seconds of a pod's life that may be its warm-up"""
FEWEST_STARTS = 3
"""starts of pods from which something is said of how they begin"""


class WarmUp(msgspec.Struct, frozen=True, rename="camel"):
    """How long new pods are worse than others; None where too few were started to tell."""

    starts: int
    seconds: float | None
    message: str


def warm_up(pods: Mapping[str, Pod], *, since: float, until: float, step: float) -> WarmUp:
    """From pods that were started inside this stretch: their bad requests by age, against those of all others.

    >>> old = Pod((((0.0, 0.0), (900.0, 90000.0)),), (((0.0, 0.0), (900.0, 90.0)),))
    >>> def new(at): return Pod((((at, 100.0), (at + 15, 1600.0), (at + 30, 3100.0)),), (((at, 50.0), (at + 30, 53)),))
    >>> seen = {"old": old, "a": new(300.0), "b": new(400.0), "c": new(500.0)}
    >>> warm_up(seen, since=0.0, until=900.0, step=15.0).message
    'warmup: 15s: for so long new pods failed 50 % of their requests and others 0.1 % (3 starts)'
    """
    young, others = np.zeros((2, max(int(YOUNG / step), 1))), np.zeros(2)
    starts = 0
    for pod in pods.values():
        begun = _begun(pod, until)
        born = begun > since + 2 * step
        starts += born
        for row, courses in enumerate((pod.requests, pod.bad)):
            for course in courses:
                for at, grown in _increases(course, from_zero=born):
                    age = int((at - begun) / step)
                    if born and age < young.shape[1]:
                        young[row, age] += grown
                    else:
                        others[row] += grown
    if starts < FEWEST_STARTS:
        return WarmUp(starts, None, f"warmup: {_pods(starts)} started in this history: too few to propose one")
    usual = float(others[1] / others[0]) if others[0] else 0.0
    allowed = (CERTIFICATE_RHO * usual + CERTIFICATE_MARGIN) * young[0]
    worse = young[1] > allowed + 2 * np.sqrt(allowed) + 2
    fine = np.flatnonzero(~worse & (young[0] > 0))
    prefix = np.flatnonzero(worse[: fine[0]] if fine.size else worse)
    bins = int(prefix[-1]) + 1 if prefix.size else 0
    if not bins:
        return WarmUp(starts, 0.0, f"warmup: new pods failed no more often than others ({starts} starts)")
    ratio = float(young[1, :bins].sum() / young[0, :bins].sum())
    return WarmUp(
        starts,
        bins * step,
        f"warmup: {bins * step:.0f}s: for so long new pods failed {100 * ratio:.2g} % of their requests and others "
        f"{100 * usual:.2g} % ({starts} starts)",
    )
