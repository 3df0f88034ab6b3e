"""What a turn can come to: a change of memory, one act on the world, or waiting."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from controller.model.status import Status

SOON = timedelta(seconds=1)
"""when a turn that waits looks again at what no watch tells of"""


@dataclass(frozen=True)
class SetWeight:
    """Bring the route to `percent` for the canary and stamp it with the epoch."""

    percent: float


@dataclass(frozen=True)
class LeaveRoute:
    """Take our backend entry out of the route."""


@dataclass(frozen=True)
class Pin:
    """Pin every Service of the target to stable's pods."""


@dataclass(frozen=True)
class Unpin:
    """Take the pins off."""


@dataclass(frozen=True)
class ApplyCanary:
    """Create the canary workload and its Service, or bring it to this size."""

    replicas: int


@dataclass(frozen=True)
class ApplyBaseline:
    """Create the fresh baseline and its Service, or bring it to this size."""

    replicas: int


@dataclass(frozen=True)
class DeleteCanary:
    """Delete the canary workload and its Service, and the fresh baseline."""


@dataclass(frozen=True)
class ReplacePods:
    """Fresh canary pods instead of those that tripped."""


@dataclass(frozen=True)
class PauseTarget:
    """Stop a roll that the API server did not hold."""


@dataclass(frozen=True)
class Release:
    """Unpause the target: it rolls to the template in its spec by its own strategy."""


@dataclass(frozen=True)
class Restore:
    """Give the target stable's template back, and unpause it."""


@dataclass(frozen=True)
class DeleteReplicaSet:
    """Remove a zero-replica ReplicaSet that scaling would bring up with the candidate's template."""

    name: str


@dataclass(frozen=True)
class StoreRecord:
    """Create the ReleaseRecord, or bring it up to what status says."""


@dataclass(frozen=True)
class AddFinalizer:
    """Make sure that deletion waits until traffic is back on stable."""


@dataclass(frozen=True)
class RemoveFinalizer:
    """Nothing of ours is left: let the Canary go."""


Action = (
    SetWeight
    | LeaveRoute
    | Pin
    | Unpin
    | ApplyCanary
    | ApplyBaseline
    | DeleteCanary
    | PauseTarget
    | Release
    | Restore
    | DeleteReplicaSet
    | ReplacePods
    | StoreRecord
    | AddFinalizer
    | RemoveFinalizer
)


@dataclass(frozen=True)
class Become:
    """Change what is remembered: one write of the status, nothing else."""

    status: Status
    reason: str
    message: str = ""


@dataclass(frozen=True)
class Do:
    """Change the world: one act, nothing remembered."""

    action: Action
    reason: str
    message: str = ""


@dataclass(frozen=True)
class Wait:
    """Change nothing; look again when something happens, at the latest `until`."""

    reason: str
    message: str = ""
    until: datetime | None = None


Decision = Become | Do | Wait


def move_of(decision: Decision) -> str:
    """The name of a move in log and metrics.

    >>> move_of(Do(SetWeight(5.0), "StepStarted"))
    'SetWeight'
    """
    return type(decision.action).__name__ if isinstance(decision, Do) else type(decision).__name__
