"""Whole rollouts against the judge: it sees counters, and the world follows what it answers.

The judge is asked through its JSON lines alone, in this process or in another, so nothing here knows
how it thinks. A retreat takes the weight off, `fresh` replaces the canary's pods, a step adds some:
every figure is of the whole feedback and not of a recorded stream.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import IO, Any, Protocol, Self, cast

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from controller.analysis import __main__ as program
from tests.statistics.worlds import (
    BASELINE_PODS,
    CANARY_PODS,
    HARMLESS,
    PODS,
    Fault,
    Floats,
    Mask,
    Noise,
    Pods,
    at_rest,
    shown,
)

STEPS = ((1.0, 1), (5.0, 1), (25.0, 5), (50.0, 10))
"""Weight in percent and canary pods."""
POD_START = 10.0
"""Seconds from replacing a pod until the new one is ready."""
HISTORY = 7200.0
"""Seconds before the rollout that teach the judge the noise of pods, a line a minute."""
SERVICES = 4
"""Histories a chunk: neighbours in it are releases of the same service."""
PATIENCE = 600.0
"""Seconds at weight 0 after which a rollout counts as held for a person."""
BOUNDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Bucket bounds of the simulated histogram, seconds; latency is log-normal around 60 ms, p99 at 306 ms."""
MEDIAN, SPREAD = 0.06, 0.7


class Judge(Protocol):
    """Answers lines, one for each, in order."""

    def ask(self, lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]: ...

    def begin(self, plan: dict[str, Any], history: Sequence[dict[str, Any]], rollouts: Sequence[str]) -> None:
        """Let each rollout see the same history."""


class Here:
    """The judge in this process. A history is taken in once and shared: what a rollout remembers is immutable."""

    def __init__(self) -> None:
        self._playing: dict[str, Any] = {}

    def ask(self, lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        return [program.answer(self._playing, msgspec.json.encode(line).decode()) for line in lines]

    def begin(self, plan: dict[str, Any], history: Sequence[dict[str, Any]], rollouts: Sequence[str]) -> None:
        name = rollouts[0]
        self.ask([{"rollout": name, "plan": plan}, *({"rollout": name} | line for line in history)])
        for other in rollouts[1:]:
            self._playing[other] = self._playing[name]


class Program:
    """The judge as `python -m controller.analysis`: what anybody outside would drive."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        process = self._stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "controller.analysis"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        )
        self._in, self._out = cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout)

    def ask(self, lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        answers = []
        for first in range(0, len(lines), 16):  # fewer than a pipe holds, in either direction
            some = lines[first : first + 16]
            self._in.write(b"".join(msgspec.json.encode(line) + b"\n" for line in some))
            self._in.flush()
            answers += [msgspec.json.decode(self._out.readline()) for _ in some]
        return answers

    def begin(self, plan: dict[str, Any], history: Sequence[dict[str, Any]], rollouts: Sequence[str]) -> None:
        for name in rollouts:
            self.ask([{"rollout": name, "plan": plan}, *({"rollout": name} | line for line in history)])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()


@dataclass(frozen=True)
class Scenario:
    """One cell of the tables, apart from the rule."""

    noise: Noise
    rps: float
    fault: Fault = HARMLESS
    bake: float = 600.0
    dt: float = 5.0
    pods_known: bool = True
    """Whether there is a history with per-pod counters; else the judge's fallback applies."""
    latency: bool = False
    plan: dict[str, Any] = field(default_factory=dict)
    """Settings beside the defaults."""
    longest: float = 4200.0

    def full_plan(self) -> dict[str, Any]:
        """The first line of a rollout."""
        metrics: dict[str, Any] = {"errors": {"kind": "errors"}}
        if self.latency:
            metrics["latency"] = {"kind": "latency"}
        steps = [{"weight": weight, "bake": self.bake} for weight, _ in STEPS]
        usual: dict[str, Any] = {"steps": steps, "metrics": metrics, "origin": "human"}
        return usual | ({"scrape": self.dt} if self.dt != 5.0 else {}) | self.plan


@dataclass(frozen=True)
class Outcome:
    """How each rollout went. Shape (rollouts,); seconds since the start, nan where it never happened."""

    rolled_back: Floats
    relieved: Floats
    """First time at weight 0 because of what was seen."""
    promoted: Floats
    retreats: Floats
    served: Floats
    """Bad responses of the canary until the rollout was over."""
    held: Mask
    """Left to a person, at weight 0."""
    waiting: Mask
    """Still under way when patience ended: nothing against it, and not enough seen to certify it."""

    def __add__(self, other: Outcome) -> Outcome:
        mine, theirs = vars(self), vars(other)
        return Outcome(**{name: np.concatenate([mine[name], theirs[name]]) for name in mine})


def play(judge: Judge, scenario: Scenario, *, rollouts: int, seed: int | Sequence[int] = 1) -> Outcome:
    """Play rollouts of one scenario; the same seed gives the same rollouts."""
    rng = np.random.default_rng(seed)
    _begin(judge, scenario, rollouts, rng)
    return _Chunk(scenario, rollouts, rng).run(judge)


def _begin(judge: Judge, scenario: Scenario, rollouts: int, rng: np.random.Generator) -> None:
    for first in range(0, rollouts, -(-rollouts // SERVICES)):
        names = [str(row) for row in range(first, min(first + -(-rollouts // SERVICES), rollouts))]
        history = _history(scenario, rng) if scenario.pods_known else []
        judge.begin(scenario.full_plan(), history, names)


def _history(scenario: Scenario, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Two ordinary hours of the baseline alone, a line a minute, with the counters of every pod."""
    dt = 5.0
    pods = Pods(1, at_rest(scenario.noise), dt, rng)
    old = np.full((1, PODS), np.inf)
    requests, errors = np.zeros(BASELINE_PODS), np.zeros(BASELINE_PODS)
    lines = []
    for tick in range(1, int(HISTORY / dt) + 1):
        n = rng.poisson(scenario.rps * dt / BASELINE_PODS, BASELINE_PODS)
        n, e = failures(n, pods.ratios(tick * dt - HISTORY, old)[0, :BASELINE_PODS], scenario.noise, rng)
        requests, errors = requests + n, errors + e
        if tick % 12 == 0:
            by_pod = {
                f"pod-{index}": {"requests": float(requests[index]), "errors": float(errors[index])}
                for index in range(BASELINE_PODS)
            }
            sums = {"requests": float(requests.sum()), "errors": float(errors.sum())}
            arm = {"pods": BASELINE_PODS, "by_pod": by_pod} | sums
            lines.append({"t": tick * dt - HISTORY - 1.0, "baseline": arm})
    return lines


def failures(n: Any, ratios: Floats, noise: Noise, rng: np.random.Generator) -> tuple[Any, Any]:
    """Requests and failures of pods that were sent `n`; failures may come in clusters."""
    if noise.batches:
        began = rng.binomial(n, ratios / (1 + noise.batches))
        return n, np.minimum(began + _more(began, noise.batches, rng), n)
    e = rng.binomial(n, ratios)
    if not noise.retries:
        return n, e
    again = _more(e, noise.retries, rng)
    return n + again, e + again


def _more(events: Any, mean: float, rng: np.random.Generator) -> Any:
    """A geometric number for each event, summed."""
    return np.where(events > 0, rng.negative_binomial(np.maximum(events, 1), 1 / (1 + mean)), 0)


def pod_rps(scenario: Scenario, pods: Pods, t: float, weight: Floats, counts: NDArray[np.intp]) -> Floats:
    """Requests a second that reach each pod; 0 for those that are not there. Shape (rollouts, pods)."""
    share = np.minimum(weight / 100 * scenario.noise.uneven, 1.0)
    whole = scenario.rps * pods.traffic(t)
    theirs = np.repeat(((1 - share) * whole / BASELINE_PODS)[:, None], BASELINE_PODS, axis=1)
    ours = np.where(np.arange(CANARY_PODS) < counts[:, None], (share * whole / counts)[:, None], 0.0)
    return np.concatenate([theirs, ours], axis=1)


def counts_of_tick(
    scenario: Scenario,
    pods: Pods,
    t: float,
    age: Floats,
    weight: Floats,
    counts: NDArray[np.intp],
    rng: np.random.Generator,
) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """Let the requests of one scrape interval happen.

    Args:
        age: of the canary's pods in seconds, shape (rollouts, canary pods).
        weight, counts: percent and pods of the canary, shape (rollouts,).
    Returns: requests and bad ones, each as (baseline, canary) of shape (rollouts,).
    """
    rps = pod_rps(scenario, pods, t, weight, counts)
    old = np.full((len(counts), BASELINE_PODS), np.inf)
    ratios = pods.ratios(t, np.concatenate([old, age], axis=1))
    shows = shown(scenario.fault, t, age, rps[:, BASELINE_PODS:])
    ratios[:, BASELINE_PODS:] = 1 - (1 - ratios[:, BASELINE_PODS:]) * (1 - scenario.fault.ratio * shows)
    n, e = failures(rng.poisson(rps * scenario.dt), ratios, scenario.noise, rng)
    requests, errors = n.astype(float), e.astype(float)
    return (
        (requests[:, :BASELINE_PODS].sum(axis=1), requests[:, BASELINE_PODS:].sum(axis=1)),
        (errors[:, :BASELINE_PODS].sum(axis=1), errors[:, BASELINE_PODS:].sum(axis=1)),
    )


class _Chunk:
    """Some rollouts at once; those that are over are dropped from the arrays."""

    def __init__(self, scenario: Scenario, rollouts: int, rng: np.random.Generator) -> None:
        self.scenario, self.rng = scenario, rng
        self.pods = Pods(rollouts, scenario.noise, scenario.dt, rng)
        self.row = np.arange(rollouts)
        self.step = np.zeros(rollouts, dtype=int)
        self.weight = np.full(rollouts, STEPS[0][0])
        self.born = np.zeros((rollouts, CANARY_PODS))
        self.generation = np.zeros(rollouts, dtype=int)
        self.away_since = np.full(rollouts, np.inf)
        self.counters = np.zeros((rollouts, 4))
        """Cumulative: canary requests and errors, baseline requests and errors."""
        self.slow = np.zeros((rollouts, 2, len(BOUNDS) + 1))
        """Cumulative requests by bucket, canary and baseline."""
        nothing = np.full(rollouts, np.nan)
        self.out = Outcome(
            nothing.copy(),
            nothing.copy(),
            nothing.copy(),
            np.zeros(rollouts),
            np.zeros(rollouts),
            np.zeros(rollouts, dtype=bool),
            np.ones(rollouts, dtype=bool),
        )

    def run(self, judge: Judge) -> Outcome:
        """Until every rollout is over, or nobody waits any longer."""
        t, dt = 0.0, self.scenario.dt
        while t < self.scenario.longest and self.row.size:
            t += dt
            age = self._tick(t)
            seen = np.flatnonzero(self.rng.random(self.row.size) >= self.scenario.noise.lost)
            answers = judge.ask(self._lines(t, age, seen))
            over = np.zeros(self.row.size, dtype=bool)
            renewed = np.zeros(self.row.size, dtype=bool)
            for index, answer in zip(seen.tolist(), answers, strict=True):
                over[index], renewed[index] = self._follow(index, t, answer)
            self._renew(renewed, t)
            if over.any():
                self._keep(~over)
        return self.out

    def _tick(self, t: float) -> Floats:
        """Let the requests of one scrape interval happen. Returns the age of the youngest canary pod."""
        scenario, rng, dt, noise = self.scenario, self.rng, self.scenario.dt, self.scenario.noise
        counts = np.array([n for _, n in STEPS])[self.step]
        active = np.arange(CANARY_PODS) < counts[:, None]
        age = np.where(active, np.maximum(t - self.born, 0.0), np.inf)
        (theirs, ours), errors = counts_of_tick(scenario, self.pods, t, age, self.weight, counts, rng)
        if noise.churn:
            # A pod that goes takes its counters with it.
            gone = rng.binomial(BASELINE_PODS, noise.churn * dt / 3600, len(counts))
            self.counters[:, 2:] *= (1 - gone / BASELINE_PODS)[:, None]
            self.counters[:, 2:] = np.floor(self.counters[:, 2:])
        self.counters += np.stack([ours, errors[1], theirs, errors[0]], axis=1)
        self.out.served[self.row] += errors[1]
        if scenario.latency:
            self._requests_by_latency(t, age, counts)
        youngest: Floats = age.min(axis=1)
        return youngest

    def _requests_by_latency(self, t: float, age: Floats, counts: NDArray[np.intp]) -> None:
        rps = pod_rps(self.scenario, self.pods, t, self.weight, counts)
        old = np.full((len(counts), BASELINE_PODS), np.inf)
        factor = self.pods.slowness(np.concatenate([old, age], axis=1))
        shows = shown(self.scenario.fault, t, age, rps[:, BASELINE_PODS:])
        factor[:, BASELINE_PODS:] *= np.where(shows, self.scenario.fault.slower, 1.0)
        edges = np.log(np.array([*BOUNDS, np.inf]) / MEDIAN) / SPREAD
        below = ndtr(edges[None, None, :] - (np.log(factor) / SPREAD)[:, :, None])
        mean = (rps * self.scenario.dt)[:, :, None] * np.diff(below, axis=2, prepend=0.0)
        arms = np.stack([mean[:, BASELINE_PODS:].sum(axis=1), mean[:, :BASELINE_PODS].sum(axis=1)], axis=1)
        self.slow += self.rng.poisson(arms)

    def _lines(self, t: float, age: Floats, seen: NDArray[np.intp]) -> list[dict[str, Any]]:
        lines = []
        sums, weights = self.counters.tolist(), self.weight.tolist()
        steps, generations, names, ages = self.step.tolist(), self.generation.tolist(), self.row.tolist(), age.tolist()
        ready = (self.born[:, 0] <= t).tolist()
        for index in seen.tolist():
            n_c, e_c, n_b, e_b = sums[index]
            pods = STEPS[steps[index]][1]
            line = {
                "rollout": str(names[index]),
                "t": t,
                "weight": weights[index],
                "ready": ready[index],
                "generation": generations[index],
                "canary": {"pods": pods, "age": ages[index], "requests": n_c, "errors": e_c},
                "baseline": {"pods": BASELINE_PODS, "requests": n_b, "errors": e_b},
            }
            if self.scenario.latency:
                ours, theirs = (_buckets(self.slow[index, side]) for side in (0, 1))
                line["metrics"] = {"latency": {"canary": {"buckets": ours}, "baseline": {"buckets": theirs}}}
            lines.append(line)
        return lines

    def _follow(self, index: int, t: float, answer: dict[str, Any]) -> tuple[bool, bool]:
        """Do what the answer says: whether the rollout is over, and whether its canary pods are replaced."""
        if "error" in answer:
            raise ValueError(f"the judge refused a line: {answer}")
        decision, row, out = answer["decision"], self.row[index], self.out
        if decision in ("retreat", "rollback") and np.isnan(out.relieved[row]):
            out.relieved[row] = t
        if decision == "rollback":
            out.rolled_back[row], out.waiting[row] = t, False
            return True, False
        if decision == "promote":
            out.promoted[row], out.waiting[row] = t, False
            return True, False
        self.weight[index] = answer["weight"]
        if answer["step"] > self.step[index]:
            was, now = STEPS[self.step[index]][1], STEPS[answer["step"]][1]
            self.born[index, was:now] = t
            self.step[index] = answer["step"]
        if decision == "retreat":
            out.retreats[row] += 1
            self.away_since[index] = t
        if answer["weight"] > 0:
            self.away_since[index] = np.inf
        abandoned = bool(t - self.away_since[index] >= PATIENCE)
        if abandoned:
            out.held[row], out.waiting[row] = True, False
        return abandoned, bool(answer.get("fresh"))

    def _renew(self, rows: Mask, t: float) -> None:
        self.pods.renew(rows)
        self.born[rows] = t + POD_START
        self.generation[rows] += 1
        self.counters[rows, :2] = 0.0
        self.slow[rows, 0] = 0.0

    def _keep(self, rows: Mask) -> None:
        self.pods.keep(rows)
        for name in ("row", "step", "weight", "born", "generation", "away_since", "counters", "slow"):
            setattr(self, name, getattr(self, name)[rows])


def _buckets(by_bucket: Floats) -> dict[str, float]:
    names = [*(f"{bound:g}" for bound in BOUNDS), "+Inf"]
    return dict(zip(names, np.cumsum(by_bucket).tolist(), strict=True))


def faulty(ratio: float, base: float = 0.001) -> Fault:
    """The revision fails so that about `ratio` of its requests fail in all."""
    return Fault(ratio=max(ratio - base, 0.0))
