"""What both arms counted from one line to the next, for `play.py`: lines carry sums over an arm, and pods come and go.

A sum that falls says that a pod left or began anew, but not how much it took along. So where pods are named it is
counted pod by pod, where they are not and more is left than a process can have served since the last line nothing is
counted, and why is said (`Grown.missing`). What is remembered is bounded, whatever comes and goes.
"""

from __future__ import annotations

import math

import msgspec

from controller.analysis import histogram
from controller.analysis.increments import Arms, Counts, Slower
from controller.analysis.lines import ArmLine, Line, MetricArm, MetricLine, Plan, PodLine

GONE = 100
"""Pods that are remembered after they left, for one that only missed a scrape; those that left first are forgotten."""
GENERATIONS = 3
"""Generations of canary pods whose counters are remembered."""
SAME_SERIES = (
    "ArmsReadSameSeries",
    "counters of the canary's that are not those of the baseline: does the query select by revision?",
)


class Pods(msgspec.Struct, frozen=True):
    """The pods of one arm: those of its last line, and some that were there before."""

    live: dict[str, PodLine] = {}
    gone: dict[str, PodLine] = {}

    def after(self, seen: dict[str, PodLine]) -> Pods:
        """One line later."""
        if seen.keys() == self.live.keys():
            return Pods(seen, self.gone)
        gone = {pod: was for pod, was in self.gone.items() if pod not in seen}
        gone |= {pod: was for pod, was in self.live.items() if pod not in seen}
        for pod in list(gone)[: max(len(gone) - GONE, 0)]:
            del gone[pod]
        return Pods(seen, gone)


class Alone(msgspec.Struct, frozen=True):
    """Counters of the canary's that are read while there is nothing to compare it with."""

    sums: dict[str, float]
    pods: dict[str, Pods]


class Counters(msgspec.Struct, frozen=True):
    """Last cumulative values. Sums by arm, generation and counter; pods by arm and generation."""

    sums: dict[str, float] = {}
    pods: dict[str, Pods] = {}
    generations: tuple[int, ...] = ()
    """of the canary, the latest at the end"""
    alone: Alone | None = None
    """Where the canary's stand while the baseline is missing."""


class Grown(msgspec.Struct, frozen=True):
    """Where counters stand now, and what was added since the last line, by metric: where both arms can be compared."""

    counters: Counters
    arms: dict[str, Arms] = {}
    slower: dict[str, Slower] = {}
    missing: dict[str, tuple[str, str]] = {}
    """By metric, what could not be compared although it is on the line: a reason, and what would change it."""


def grow(counters: Counters, line: Line, plan: Plan, bounds: dict[str, tuple[float, ...]], likely: float) -> Grown:
    """Increases of every counter since the last line.

    Args:
        bounds: of each latency, as chosen.
        likely: about the most requests that all pods together can have served since the last line; 0 if nobody knows.
    """
    canary, baseline = line.canary, line.baseline
    if canary is None or baseline is None:
        return Grown(counters)
    first = "baseline.requests" not in counters.sums
    sums, pods = dict(counters.sums), dict(counters.pods)
    mine = f"canary{line.generation}"
    if counters.generations and counters.generations[-1] != line.generation:
        share = 1.0 if line.weight is None else line.weight / 100.0
        _carry_on(f"canary{counters.generations[-1]}", mine, canary, share * likely, sums)
    generations = _remembered(counters.generations, line.generation, sums, pods)
    arms: dict[str, Arms] = {}
    slower: dict[str, Slower] = {}
    missing: dict[str, tuple[str, str]] = {}
    both: Arms | None = None
    if not (same := _same_arms(canary, baseline)):
        both = _both(_of_arm(sums, pods, mine, canary, likely), _of_arm(sums, pods, "baseline", baseline, likely))
    for name, one in plan.metrics.items():
        found: Arms | None = None
        seen = line.metrics.get(name)
        if one.kind == "errors":
            found = both
            if same:
                missing[name] = SAME_SERIES
            elif found is None:
                was = counters.sums
                fell = "canary" if _fell(was, mine, canary) else "baseline" if _fell(was, "baseline", baseline) else ""
                missing[name] = _fall(fell)
        elif seen is None or seen.canary is None or seen.baseline is None or one.kind == "gauge":
            continue
        elif _same_metric(seen.canary, seen.baseline):
            missing[name] = SAME_SERIES
        elif one.kind == "ratio" and seen.canary.requests is not None and seen.baseline.requests is not None:
            total, bad = seen.baseline.requests, seen.baseline.bad
            found = _both(
                _counted(sums, f"{mine}.{name}", seen.canary.requests, seen.canary.bad, canary.pods, likely),
                _counted(sums, f"baseline.{name}", total, bad, baseline.pods, likely),
            )
            if found is None:
                missing[name] = _fall("")
        elif one.kind == "latency" and (chosen := bounds.get(name)):
            ours, theirs = read_histograms(seen.canary, seen.baseline, chosen)
            fast = _slower(sums, f"{mine}.{name}", ours, chosen, canary.pods, likely)
            usual = _slower(sums, f"baseline.{name}", theirs, chosen, baseline.pods, likely)
            if fast is not None and usual is not None:
                shown = len(chosen) // 2
                found = Arms(Counts(fast[0], fast[1][shown]), Counts(usual[0], usual[1][shown]))
                slower[name] = Slower(fast[1], usual[1])
            else:
                broken = describe_histograms(seen, ours, theirs)
                missing[name] = ("NoHistogram", broken) if broken else _fall("")
        elif one.kind == "latency":
            missing[name] = _no_bounds(name, one.threshold, seen)
        if found is not None:
            arms[name] = found
    grown = Counters(sums, pods, generations)
    if first:
        # The baseline's first line only says where its counters stand; what the canary did is compared next time.
        theirs_only = counters.sums | {key: now for key, now in sums.items() if key.startswith("baseline")}
        return Grown(Counters(theirs_only, counters.pods | _baseline_pods(pods), counters.generations), missing=missing)
    return Grown(grown, arms, slower, missing)


def grow_alone(counters: Counters, line: Line, plan: Plan) -> tuple[Counters, dict[str, Counts]]:
    """What the canary has counted since the last line, while the baseline is missing. The counters that both arms are
    compared by stay where they are: when it is back, all of the gap is compared."""
    assert line.canary is not None
    compared, key = f"canary{line.generation}", f"alone{line.generation}"
    if counters.alone is None:
        known = {name: at for name, at in counters.sums.items() if name.startswith(f"{compared}.")}
        sums = {key + name[len(compared) :]: at for name, at in known.items()}
        pods = {key: counters.pods[compared]} if compared in counters.pods else {}
    else:
        sums, pods = dict(counters.alone.sums), dict(counters.alone.pods)
    found: dict[str, Counts | None] = {}
    for name, one in plan.metrics.items():
        seen = line.metrics.get(name)
        if one.kind == "errors":
            found[name] = _of_arm(sums, pods, key, line.canary, 0.0)
        elif one.kind == "ratio" and seen is not None and seen.canary is not None and seen.canary.requests is not None:
            total, bad = seen.canary.requests, seen.canary.bad
            found[name] = _counted(sums, f"{key}.{name}", total, bad, line.canary.pods, 0.0)
    counted = {name: counts for name, counts in found.items() if counts is not None}
    return msgspec.structs.replace(counters, alone=Alone(sums, pods)), counted


def stand(counters: Counters, line: Line, plan: Plan, bounds: dict[str, tuple[float, ...]]) -> Counters:
    """Where counters stand, with nothing counted: before there is a canary, and where a clock or a query changed."""
    sums, pods, generations = dict(counters.sums), dict(counters.pods), counters.generations
    mine = f"canary{line.generation}"
    if line.canary is not None:
        generations = _remembered(generations, line.generation, sums, pods)
    for key, arm in ((mine, line.canary), ("baseline", line.baseline)):
        if arm is not None:
            sums |= {f"{key}.requests": arm.requests, f"{key}.errors": arm.errors}
            if arm.by_pod:
                pods[key] = pods.get(key, Pods()).after(arm.by_pod)
    for name, seen in line.metrics.items():
        kind = plan.metrics[name].kind if name in plan.metrics and seen is not None else ""
        arms = () if seen is None else ((mine, seen.canary), ("baseline", seen.baseline))
        for key, of in arms if kind == "ratio" else ():
            if of is not None:
                sums |= {f"{key}.{name}.requests": of.requests or 0.0, f"{key}.{name}.errors": of.bad}
        if kind == "latency" and seen is not None and seen.canary is not None and seen.baseline is not None:
            chosen = bounds.get(name, ())
            read = read_histograms(seen.canary, seen.baseline, chosen)
            for key, within in zip((mine, "baseline"), read, strict=True):
                sums |= {f"{key}.{name}.{bound}": within[bound] for bound in chosen if bound in within}
                sums |= {f"{key}.{name}.requests": within[math.inf]} if within else {}
    return Counters(sums, pods, generations)


def stands_behind(counters: Counters, line: Line) -> bool:
    """Whether a line is from before the last one by its counters too: it is late, and its clock is not wrong."""
    pairs = [
        (arm.requests, counters.sums[f"{key}.requests"])
        for key, arm in ((f"canary{line.generation}", line.canary), ("baseline", line.baseline))
        if arm is not None and f"{key}.requests" in counters.sums
    ]
    return any(now < was for now, was in pairs) and not any(now > was for now, was in pairs)


def read_histograms(
    canary: MetricArm, baseline: MetricArm, wanted: tuple[float, ...] = ()
) -> tuple[dict[float, float], ...]:
    """Cumulative counts by bound of both arms; empty where they are no histogram.

    A native histogram has no bucket where nobody was: a `wanted` bound beyond them is filled in.
    """
    if canary.native is None or baseline.native is None:
        return histogram.parse_bounds(canary.buckets), histogram.parse_bounds(baseline.buckets)
    both = histogram.native_bounds(canary.native, baseline.native)
    for bound in wanted:
        for read in both:
            if bound not in read:
                above = [other for other in read if other > bound]
                read[bound] = read[math.inf] if above == [math.inf] else read[min(above)]
    return both


def describe_histograms(seen: MetricLine, ours: dict[float, float], theirs: dict[float, float]) -> str:
    """What is wrong with the histogram of either arm; empty where both can be read."""
    for name, arm, read in (("canary", seen.canary, ours), ("baseline", seen.baseline, theirs)):
        if not read and arm is not None:
            if not arm.buckets:
                return f"buckets or native on both arms: {name} has none of the kind that the other arm has"
            if not any(math.isinf(float(bound)) for bound in arm.buckets):
                return f'a bucket "+Inf" on {name}, which counts all requests'
            return f"counts on {name} that do not fall from one bound to the next"
    return ""


def bounds_for(threshold: float, seen: MetricLine) -> tuple[float, ...]:
    """The bound that stands for a threshold: itself, or the next one of native histograms, which nobody chooses."""
    assert seen.canary is not None
    assert seen.baseline is not None
    if seen.canary.native is not None and seen.baseline.native is not None:
        schema = min(seen.canary.native.schema, seen.baseline.native.schema)
        return (histogram.next_bound(threshold, schema=schema),)
    ours, theirs = read_histograms(seen.canary, seen.baseline)
    return (threshold,) if threshold in ours and threshold in theirs else ()


def _no_bounds(name: str, threshold: float | None, seen: MetricLine) -> tuple[str, str]:
    """Why nothing of a latency can be compared."""
    assert seen.canary is not None
    assert seen.baseline is not None
    ours, theirs = read_histograms(seen.canary, seen.baseline)
    if broken := describe_histograms(seen, ours, theirs):
        return "NoHistogram", broken
    common = [bound for bound in ours if bound in theirs and math.isfinite(bound)]
    if not common:
        return "NoCommonBounds", f"{name}: buckets with the same bounds on both arms"
    if threshold is None:
        return "NoTelltaleBound", (
            f"{name}: a bucket bound that between {100 * histogram.FEWEST_SLOW:g} and {100 * histogram.MOST_SLOW:g} % "
            f"of the baseline's requests exceed; there are {_listed(common)}"
        )
    nearest = min(common, key=lambda bound: abs(math.log(bound / threshold)) if bound > 0 else math.inf)
    return "ThresholdIsNoBound", (
        f"{name}: threshold is {threshold:g}, which is no bucket bound of both arms; there are {_listed(common)}; "
        f"the nearest is {nearest:g}: end the rollout and begin it anew with that"
    )


def _listed(bounds: list[float]) -> str:
    shown = [f"{bound:g}" for bound in bounds[:20]]
    return ", ".join(shown) + (f" and {len(bounds) - 20} more" if len(bounds) > 20 else "")


def _remembered(known: tuple[int, ...], now: int, sums: dict[str, float], pods: dict[str, Pods]) -> tuple[int, ...]:
    """Another generation makes the oldest one forgotten."""
    if known and known[-1] == now:
        return known
    kept = (*(one for one in known if one != now), now)
    for old in kept[:-GENERATIONS]:
        for key in [key for key in sums if key.startswith(f"canary{old}.")]:
            del sums[key]
        pods.pop(f"canary{old}", None)
    return kept[-GENERATIONS:]


def _carry_on(last: str, mine: str, canary: ArmLine, likely: float, sums: dict[str, float]) -> None:
    """A sum over the whole revision goes on where its pods were replaced. It shows as more than new pods can have
    served since the last line; counted from zero, what was compared before would be compared again."""
    known = any(key.startswith(f"{mine}.") for key in sums)
    if known or not 0.0 < likely < canary.requests or _fell(sums, last, canary):
        return
    sums |= {mine + key.removeprefix(last): at for key, at in sums.items() if key.startswith(f"{last}.")}


def _baseline_pods(pods: dict[str, Pods]) -> dict[str, Pods]:
    return {"baseline": pods["baseline"]} if "baseline" in pods else {}


def _same_arms(canary: ArmLine, baseline: ArmLine) -> bool:
    """A query that ignores its revision label compares a thing with itself, and always passes."""
    if canary.requests != baseline.requests or canary.errors != baseline.errors or not canary.requests:
        return False
    named = bool(canary.by_pod and baseline.by_pod)
    return not (named and canary.by_pod.keys().isdisjoint(baseline.by_pod))


def _same_metric(canary: MetricArm, baseline: MetricArm) -> bool:
    counted = canary.requests or canary.buckets.get("+Inf") or (canary.native is not None and canary.native.count)
    return bool(counted) and canary == baseline


def _fall(arm: str) -> tuple[str, str]:
    whose = f"the {arm}'s" if arm else "an arm's"
    return "CountersFell", f"sums that do not fall: {whose} fell since the last line, pods left? give by_pod"


def _both(canary: Counts | None, baseline: Counts | None) -> Arms | None:
    return None if canary is None or baseline is None else Arms(canary, baseline)


def _of_arm(sums: dict[str, float], pods: dict[str, Pods], key: str, arm: ArmLine, likely: float) -> Counts | None:
    """What an arm has counted since the last line; pod by pod where its sum alone could not tell."""
    fell = bool(arm.by_pod) and _fell(sums, key, arm)
    by_sum = _counted(sums, key, arm.requests, arm.errors, arm.pods, likely)
    if not arm.by_pod:
        return by_sum
    was = pods.get(key)
    pods[key] = (was or Pods()).after(arm.by_pod)
    if was is None or not (fell or any(pod not in arm.by_pod for pod in was.live)):
        return by_sum
    ours = key.startswith("canary")
    by_pod = [_of_pod(was, pod, now, math.inf if ours or not likely else likely) for pod, now in arm.by_pod.items()]
    return sum(by_pod, Counts())


def _of_pod(was: Pods, pod: str, now: PodLine, likely: float) -> Counts:
    """A pod that nobody knows is new and counts from 0, unless that is more than it can have served since."""
    last = was.live.get(pod) or was.gone.get(pod)
    if last is None:
        return Counts(now.requests, now.errors) if now.requests <= likely else Counts()
    return Counts(_since(last.requests, now.requests), _since(last.errors, now.errors))


def _counted(sums: dict[str, float], key: str, requests: float, bad: float, pods: int, likely: float) -> Counts | None:
    """None where a sum over several pods fell: one of them has gone or begun anew, and how much it took is unknown.

    Unless what is left is no more than the requests that are `likely` since the last line: then all began anew. Where
    nobody says how many pods there are, what is left tells.
    """
    ours, of_requests, of_errors = key.startswith("canary"), f"{key}.requests", f"{key}.errors"
    fell = requests < sums.get(of_requests, 0.0) or bad < sums.get(of_errors, 0.0)
    grown = _grown(sums, of_requests, requests, from_zero=ours)
    errors = _grown(sums, of_errors, bad, from_zero=ours)
    return None if fell and _is_unclear(pods, requests, likely, ours=ours) else Counts(max(grown, errors), errors)


def _is_unclear(pods: int, left: float, likely: float, *, ours: bool) -> bool:
    """Whether a sum that fell to `left` may be several pods of which one has gone, and not one that began anew."""
    if pods == 1 or (not pods and not likely):
        return False
    return left > (0.0 if ours and pods else likely)


def _grown(sums: dict[str, float], key: str, value: float, *, from_zero: bool) -> float:
    """Increase of one counter; a smaller value is a reset, and counts what the new process has counted."""
    last = sums.get(key)
    sums[key] = value
    if last is None:
        return value if from_zero else 0.0
    return _since(last, value)


def _since(last: float, now: float) -> float:
    return now - last if now >= last else now


def _fell(sums: dict[str, float], key: str, arm: ArmLine) -> bool:
    return arm.requests < sums.get(f"{key}.requests", 0.0) or arm.errors < sums.get(f"{key}.errors", 0.0)


def _slower(
    sums: dict[str, float], key: str, seen: dict[float, float], bounds: tuple[float, ...], pods: int, likely: float
) -> tuple[float, tuple[float, ...]] | None:
    """Requests, and those slower than each bound; None where a bound is missing or a pod has gone."""
    if not seen or any(bound not in seen for bound in bounds):
        return None
    ours = key.startswith("canary")
    fell = any(seen[bound] < sums.get(f"{key}.{bound}", 0.0) for bound in bounds)
    fell = fell or seen[math.inf] < sums.get(f"{key}.requests", 0.0)
    total = _grown(sums, f"{key}.requests", seen[math.inf], from_zero=ours)
    within = [_grown(sums, f"{key}.{bound}", seen[bound], from_zero=ours) for bound in bounds]
    if fell and (pods > 1 or _is_unclear(pods, seen[math.inf], likely, ours=ours)):
        return None
    return total, tuple(min(max(total - fast, 0.0), total) for fast in within)
