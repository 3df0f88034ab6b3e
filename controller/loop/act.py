"""Act: carry out one decision, through the port it belongs to."""

from __future__ import annotations

from controller.loop.world import World
from controller.model.world import Observed, Target
from controller.ports import CanarySeen
from controller.rollout.moves import (
    Action,
    AddFinalizer,
    ApplyBaseline,
    ApplyCanary,
    DeleteCanary,
    DeleteReplicaSet,
    LeaveRoute,
    PauseTarget,
    Pin,
    Release,
    RemoveFinalizer,
    ReplacePods,
    Restore,
    SetWeight,
    StoreRecord,
    Unpin,
)
from controller.rollout.recorded import render_record


async def act(action: Action, seen: CanarySeen, observed: Observed, world: World) -> None:
    """One write, idempotent, fenced by the epoch in status."""
    ref, status, spec = seen.ref, observed.status, observed.spec
    match action:
        case StoreRecord():
            assert status.attempt is not None
            await world.memory.store_record(ref, status.attempt.id, render_record(ref.name, ref.uid, status))
            return
        case AddFinalizer():
            await world.memory.set_finalizer(seen, True)
            return
        case RemoveFinalizer():
            await world.memory.set_finalizer(seen, False)
            return
    assert spec is not None
    stable_hash = status.stable.hash if status.stable else ""
    match action:
        case SetWeight(percent=percent):
            await world.router.set_weight(ref, spec, percent, epoch=status.epoch, was=observed.weight.epoch)
        case LeaveRoute():
            await world.router.remove(ref, spec)
        case Pin():
            await world.workload.pin(ref, spec, stable_hash)
        case Unpin():
            await world.workload.unpin(ref, spec)
        case DeleteCanary():
            await world.workload.delete_canary(ref, spec)
        case DeleteReplicaSet(name=name):
            await world.workload.delete_replicaset(ref, name)
        case ApplyCanary(replicas=replicas):
            assert status.attempt is not None
            await world.workload.apply_canary(
                ref, spec, _target(observed), attempt=status.attempt.id, replicas=replicas, epoch=status.epoch
            )
        case ApplyBaseline(replicas=replicas):
            assert status.attempt is not None
            assert status.stable is not None
            template, attempt = status.stable.template, status.attempt.id
            await world.workload.apply_baseline(
                ref, spec, template, attempt=attempt, replicas=replicas, epoch=status.epoch
            )
        case ReplacePods():
            await world.workload.replace_pods(ref, spec, epoch=status.epoch)
        case PauseTarget():
            await world.workload.pause(ref, spec, _target(observed), epoch=status.epoch)
        case Release():
            await world.workload.release(ref, spec, _target(observed), epoch=status.epoch)
        case Restore():
            assert status.stable is not None
            await world.workload.restore(
                ref, spec, _target(observed), status.stable.template, epoch=status.epoch, paused=False
            )


def _target(observed: Observed) -> Target:
    assert observed.target is not None
    return observed.target
