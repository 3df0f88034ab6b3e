"""What must hold whatever fails, judged from outside: by the order in which the API server accepted each write.

The one thing to know: a resource version is etcd's revision, so objects of all kinds stand in one order, and
"at this moment" means "at this revision". The rules are pure functions of that history.

    O1  no weight above what status authorises        O6  in the end at rest, or holding with a reason
    O2  no raise after an attempt's end is remembered O7  each step once, in status and in the record
    O3  no weight without a ready canary pod          O8  no write under an older term
    O4  no promotion past a gate without its approval O9  the same end as without the fault
    O5  no raise in a freeze (tests/world.py)         O10 nothing is written at rest
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

PODLESS = 25.0
"""seconds for which a weight may outlive the last ready pod: the product has to see it first, on a busy machine too"""
ABOVE = 25.0
"""seconds in which a weight that somebody else raised is taken back; sooner than by the look that needs no event"""
LET_GO = frozenset({"RolledBack", "Aborted", "Rejected", "Withdrawn", "Superseded", "Deleted"})


@dataclass(frozen=True)
class Event:
    """One accepted version of one object, as a watch delivered it."""

    at: float
    revision: int
    kind: str
    object: Object
    gone: bool = False

    @property
    def name(self) -> str:
        return str(self.object["metadata"]["name"])


@dataclass(frozen=True)
class Moment:
    """The latest version of everything at one revision."""

    at: float
    revision: int
    status: Object
    weight: float
    epoch: str
    ready: int
    was: Moment | None = None

    @property
    def attempt(self) -> Object:
        return dict(self.status.get("attempt") or {})


def moments(events: Iterable[Event], canary: str) -> Iterator[Moment]:
    """Every change of status, weight or ready pods, in the order of the API server. The route has the Canary's name."""
    now = Moment(0.0, 0, {}, 0.0, "", 0)
    for event in sorted(events, key=lambda one: one.revision):
        status, weight, epoch, ready = now.status, now.weight, now.epoch, now.ready
        if event.kind == "Canary" and event.name == canary:
            status = {} if event.gone else dict(event.object.get("status") or {})
        elif event.kind == "HTTPRoute" and event.name == canary:
            weight = 0.0 if event.gone else weight_of(event.object, f"{canary}-canary")
            epoch = "" if event.gone else epoch_of(event.object, f"{canary}-canary")
        elif event.kind == "Deployment" and event.name == f"{canary}-canary":
            ready = 0 if event.gone else int((event.object.get("status") or {}).get("readyReplicas", 0))
        else:
            continue
        was = Moment(now.at, now.revision, now.status, now.weight, now.epoch, now.ready)
        now = Moment(event.at, event.revision, status, weight, epoch, ready, was)
        yield now


def weight_of(route: Object, service: str) -> float:
    """The largest percent that any rule gives the canary."""
    found = [0.0]
    for rule in route["spec"].get("rules") or ():
        weights = {one["name"]: one.get("weight", 1) for one in rule.get("backendRefs") or ()}
        found.append(round(100 * weights.get(service, 0) / max(sum(weights.values()), 1), 2))
    return max(found)


def epoch_of(route: Object, service: str) -> str:
    """The stamp for this canary: `<service>=<term>.<fence>`, one of several where Canaries share the route."""
    stamps = str((route["metadata"].get("annotations") or {}).get("serin.dev/epoch", "")).split(",")
    return next((one.partition("=")[2] for one in stamps if one.strip().partition("=")[0] == service), "")


def broken(
    events: Sequence[Event], canary: str, foreign: frozenset[int] = frozenset(), *, above: float = ABOVE
) -> list[str]:
    """Every rule of O1 to O4, O7 and O8 that this history breaks, a line each.

    `foreign`: revisions others wrote. `above`: seconds a weight may stand too high, longer where nobody may write it.
    """
    history = list(moments(events, canary))
    return [
        *_weights(history, foreign, above),
        *_pods(history),
        *_gates(history),
        *_steps(events, history),
        *_terms(history),
    ]


def _weights(history: Sequence[Moment], foreign: frozenset[int], patience: float) -> Iterator[str]:
    """O1 and O2. Somebody else may write a weight; what counts is that it does not stay."""
    above_since: float | None = None
    for now in history:
        allowed = float(now.status.get("weight", 0.0))
        raised = now.was is not None and now.weight > now.was.weight and now.revision not in foreign
        if raised and now.weight > allowed:
            yield f"O1: revision {now.revision}: {now.weight:g} % under epoch {now.epoch}, authorised {allowed:g} %"
        if raised and now.attempt.get("outcome") in LET_GO:
            yield f"O2: revision {now.revision}: raised to {now.weight:g} % after {now.attempt['outcome']}"
        if above_since is not None and now.at - above_since > patience:
            yield f"O1: revision {now.revision}: above what is authorised for {now.at - above_since:.0f} s"
            above_since = None
        above_since = (above_since or now.at) if now.weight > allowed else None


def _pods(history: Sequence[Moment]) -> Iterator[str]:
    """O3."""
    since: float | None = None
    for now in history:
        if since is not None and now.at - since > PODLESS:
            yield f"O3: revision {now.revision}: {now.at - since:.0f} s of traffic to no ready pod"
        since = (since or now.at) if now.weight > 0 and now.ready == 0 else None


def _gates(history: Sequence[Moment]) -> Iterator[str]:
    """O4."""
    for now in history:
        entered = now.status.get("phase") == "Releasing" and now.was and now.was.status.get("phase") != "Releasing"
        if not entered:
            continue
        given = {
            int(one.get("step", 0))
            for one in now.status.get("decisions") or ()
            if one["decision"] == "Approve" and one.get("taken") and one.get("attempt") == now.attempt["id"]
        }
        for number, step in enumerate(now.attempt.get("plan") or (), start=1):
            if step.get("approval") and number not in given:
                yield f"O4: revision {now.revision}: released without the approval of step {number}"


def _steps(events: Sequence[Event], history: Sequence[Moment]) -> Iterator[str]:
    """O7: a step is entered after the one before it, and a record never loses or repeats one."""
    for now in history:
        before = now.was.attempt if now.was else {}
        if before.get("id") == now.attempt.get("id") and before:
            was, here = int(before.get("step", 0)), int(now.attempt.get("step", 0))
            if here not in {was, was + 1}:
                yield f"O7: revision {now.revision}: step {was + 1} was followed by {here + 1}"
            if before.get("outcome") in LET_GO and now.attempt.get("outcome") not in LET_GO:
                yield f"O2: revision {now.revision}: {before['outcome']} became {now.attempt.get('outcome')}"
    stored: dict[str, list[Object]] = {}
    for event in events:
        if event.kind == "ReleaseRecord" and not event.gone:
            steps = list(event.object["spec"].get("steps") or ())
            if stored.get(event.name, []) != steps[: len(stored.get(event.name, []))]:
                yield f"O7: revision {event.revision}: record {event.name} lost or changed a step"
            stored[event.name] = steps


def _terms(history: Sequence[Moment]) -> Iterator[str]:
    """O8."""
    for now in history:
        if now.was is None or not now.was.status or not now.status:
            continue
        if int(now.status.get("leaderEpoch", 0)) < int(now.was.status.get("leaderEpoch", 0)):
            yield f"O8: revision {now.revision}: the status went back to term {now.status.get('leaderEpoch')}"
        if _term(now.epoch) and _term(now.epoch) < _term(now.was.epoch):
            yield f"O8: revision {now.revision}: the route went back from epoch {now.was.epoch} to {now.epoch}"


def _term(epoch: str) -> int:
    first = epoch.partition(".")[0]
    return int(first) if first.isdigit() else 0
