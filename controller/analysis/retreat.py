"""What a trip leads to: off traffic, a rest, and back, so that one experiment tells a bad revision from a bad pod.

A fault of the revision comes back on fresh pods; a fault of a pod, its node or its cold cache does not.
The rules are the same for the loop and for `python -m controller.analysis`:

- Pods younger than `MetricSettings.young_below` only age while they rest, since a cold start is not a fault.
  If all of them were young, so that nothing but their youth speaks for them, what they do once they
  are old is already the experiment. Older pods are replaced.
- The way back starts at the smallest weight that would show the fault soon, and climbs to the step's
  when it did not.
- After a return on fresh pods no step ends before they have lived 1.5 times the age of the trip.
- The third retreat of pods that were not young is for a person, or a rollback where nobody vouches. One that came so
  late after the return that a burst, as stable's own pods have them, explains it does not count, up to six times.

Turned down: replacing young pods at once (every cold start is convicted), confirming on pods that were
old at the trip (a bad node is convicted), "two trips within five minutes" (bursts come in numbers).
"""

from __future__ import annotations

import math

import numpy as np
from msgspec.structs import replace

from controller.analysis import evidence
from controller.analysis.judge import (
    CONFIRMED,
    SUSPICION,
    Finding,
    JudgeState,
    Lull,
    MetricState,
    Rest,
    Settings,
    bursts_of,
    step_began,
)

REST = 30.0
"""Seconds at weight 0, at least."""
RETREATS = 3
"""The retreat of pods that were not young that is answered by a person, or by a rollback."""
SHOWS_WITHIN = 10.0
"""Seconds in which the fault, if it is the revision's, should show at the weight it comes back with."""
SHY = 3.0
"""By how much an alarm may exaggerate: what trips is by its nature what looked worst."""
CLIMBS_AFTER = 60.0
"""Seconds without suspicion after which the weight climbs from the small one to the step's."""
EXPLAINED = 0.05
"""Chance that a pod of this service bursts by itself from which a trip is no mark against the revision."""
LEAST_WEIGHT = 0.01
"""Percent: routes know no smaller one."""


def retreated(state: JudgeState, settings: Settings, *, now: float, age: float, metric: str) -> JudgeState:
    """The weight goes to 0 because of `metric`; `age` is that of the youngest canary pod, in seconds."""
    old_at = settings.metrics[metric].young_below
    young = age < old_at
    since = now if state.pods_since is None else state.pods_since
    # However often pods burst, a release that trips again and again is for a person in the end.
    excused = bursts_of(state) * (now - since) >= EXPLAINED and state.trips <= 2 * RETREATS
    rest = Rest(now, age, fresh=not young, proves=not young or now - since < old_at, old_at=old_at, excused=excused)
    return replace(state, rest=rest, limit=100.0, limited_until=-math.inf)


def rested(rest: Rest, *, now: float, age: float, replaced: bool) -> bool:
    """Whether the rest is over; `replaced` says that all pods were started after it began."""
    if now < rest.since + REST:
        return False
    return replaced if rest.fresh else age >= rest.old_at


def returned(state: JudgeState, settings: Settings, *, now: float, weight: float) -> JudgeState:
    """The weight comes back, at most at the step's `weight` in percent; the experiment begins.

    Alarms and the step's floor start from nothing, all evidence stays.
    """
    rest = state.rest or Rest(now, 0.0, fresh=False, proves=False, old_at=0.0)
    metrics = {
        name: replace(
            one,
            confirming=np.stack([one.suspects, one.suspects]) if rest.proves and one.suspects is not None else None,
            confirm_from=0.75 * rest.age,
            lulls=(Lull(), Lull()),
            evidence=evidence.bet(one.evidence, settings.metrics[name].bets, one.suspects)
            if rest.proves and one.suspects is not None and name in settings.metrics
            else one.evidence,
        )
        for name, one in state.metrics.items()
    }
    small = min(
        (
            _weight_that_shows(one, settings.metrics[name].bets, state.rate)
            for name, one in state.metrics.items()
            if name in settings.metrics
        ),
        default=100.0,
    )
    proven = 1.5 * rest.age if rest.fresh else state.proven_age
    back = step_began(replace(state, metrics=metrics))
    return replace(
        back,
        rest=None,
        pods_since=None if rest.fresh else state.pods_since,
        # They failed while young and may be expected to again: only a catastrophe counts below that age.
        learned_warmup=state.learned_warmup if rest.fresh else max(state.learned_warmup, rest.old_at),
        proven_age=proven,
        limit=max(small, LEAST_WEIGHT) if rest.proves and small < weight else 100.0,
        limited_until=now + CLIMBS_AFTER,
    )


def climbs(state: JudgeState, finding: Finding, settings: Settings, *, now: float) -> bool:
    """Whether the small weight of a return has shown nothing for long, in as many requests as show a fault."""
    counted = max((one.step.canary.requests for one in state.metrics.values()), default=0.0)
    return (
        state.limit < 100.0
        and now >= state.limited_until
        and counted >= state.rate * state.limit / 100.0 * SHOWS_WITHIN
        and not finding.tripped
        and finding.alarm < SUSPICION * settings.trip
    )


def climbed(state: JudgeState) -> JudgeState:
    """The weight is the step's again, and the step's bake begins."""
    return replace(step_began(state), limit=100.0)


def _weight_that_shows(one: MetricState, bets: evidence.Alternatives, rate: float) -> float:
    """Percent of `rate` requests a second at which a fault as bad as the alarm says, or less, shows soon."""
    if one.suspects is None or rate <= 0.0:
        return 100.0
    # Where a latency has several bounds, the one that the alarm came from is what has to show again.
    suspects = np.atleast_2d(one.suspects)
    loudest = int(suspects.max(axis=1).argmax())
    expected = float(np.ravel(evidence.expected_ratio(one.evidence))[loudest])
    shares = np.exp(suspects[loudest] - suspects[loudest].max())
    lanes = slice(0, bets.lanes)
    suspected = np.log(bets.r[lanes] * (bets.rho[lanes] * expected + bets.delta[lanes]))
    allowed = float(bets.rho[0] * expected + bets.delta[0])
    exaggerated = math.exp(float((shares * suspected).sum() / shares.sum()))
    bad = min(max(exaggerated / SHY, 1.4 * allowed), 0.9)
    if bad <= allowed:
        return 100.0
    gain = bad * math.log(bad / allowed) - bad + allowed
    requests = max((CONFIRMED + 2.0) / gain, 6.0 / bad)
    return math.ceil(1e4 * min(requests / (rate * SHOWS_WITHIN), 1.0)) / 100.0
