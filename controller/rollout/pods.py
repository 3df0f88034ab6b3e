"""The canary's pods, and those of a fresh baseline: how many a step wants, and whether they are there."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from controller.model.status import Attempt, Outcome
from controller.model.world import CanaryPods, Observed
from controller.rollout.answers import get_out
from controller.rollout.moves import SOON, ApplyBaseline, Become, Decision, Do, Wait


def pods_for(weight: float, replicas: int) -> int:
    """Canary pods that carry `weight` percent of what `replicas` pods carry: rounded up, at least one."""
    return max(math.ceil(replicas * weight / 100 - 1e-9), 1)


def pods_beside(seen: Observed) -> int:
    """Pods of the fresh baseline that this step wants; none where the canary is compared with stable itself."""
    attempt, target = seen.status.attempt, seen.target
    if seen.spec is None or attempt is None or target is None:
        return 0
    share = seen.spec.analysis.baseline.share(attempt.here.weight)
    return pods_for(share, target.replicas) if share else 0


def size_baseline(seen: Observed, now: datetime) -> Decision | None:
    """The fresh baseline is of this attempt and as large as its share; None when it is."""
    beside, attempt = pods_beside(seen), seen.status.attempt
    if not beside or attempt is None:
        return None
    if seen.baseline.deleting:
        return Wait("BaselineNotReady", "the fresh baseline of the attempt before is still ending", now + SOON)
    if seen.baseline.attempt != attempt.id or seen.baseline.wanted != beside or seen.baseline.unserved:
        return Do(ApplyBaseline(beside), "ScalingBaseline")
    return None


def wait_for_pods(seen: Observed, now: datetime) -> Decision:
    """Pods get until the progress deadline; then the rule rolls back, without metrics."""
    status, canary = seen.status, seen.canary
    assert status.attempt is not None
    assert seen.spec is not None
    deadline = _missed_since(status.attempt, canary, now) + seen.spec.progress_deadline
    found = _found(canary)
    if now >= deadline:
        message = f"{found} after {seen.spec.progress_deadline}"
        return Become(get_out(status, Outcome.ROLLED_BACK, message, now), "ProgressDeadline", message)
    return Wait("CanaryNotReady", found + (f": {canary.trouble}" if canary.trouble else ""), min(deadline, now + SOON))


def waited_for_since(attempt: Attempt, canary: CanaryPods, now: datetime) -> datetime:
    """When these pods were asked for: what came before, an approval or a record or a quota, is not their delay."""
    entered = attempt.entered_at or now
    return max(entered, canary.asked_at or entered)


def _missed_since(attempt: Attempt, canary: CanaryPods, now: datetime) -> datetime:
    """When the first of those that are missing was asked for: that more are asked for gives it no more time."""
    return max(attempt.entered_at or now, canary.missing_since or waited_for_since(attempt, canary, now))


def was_scaled(seen: Observed, now: datetime) -> bool:
    """Whether the pods that are missing were asked for during this bake, so lately that they may still be starting."""
    attempt, asked, spec = seen.status.attempt, seen.canary.missing_since or seen.canary.asked_at, seen.spec
    if attempt is None or attempt.baking_since is None or asked is None or spec is None:
        return False
    return seen.canary.serving > 0 and asked > attempt.baking_since and now < asked + spec.progress_deadline


def wait_for_baseline(seen: Observed, now: datetime) -> Wait | None:
    """It holds and rolls nothing back, however long it takes: these pods say nothing of the revision on trial."""
    beside, baseline = pods_beside(seen), seen.baseline
    if baseline.serving >= beside:
        return None
    found = f"{baseline.ready} of {beside} fresh pods of stable's template are ready"
    trouble = f": {baseline.trouble}: {baseline.trouble_message}" if baseline.trouble else ""
    return Wait("BaselineNotReady", found + trouble, now + SOON)


def _found(canary: CanaryPods) -> str:
    """How many are there of those that are wanted; pods that nothing reaches are said to be that."""
    if canary.ready > canary.endpoints:
        return f"{canary.endpoints} of {canary.wanted} canary pods are behind their Service, {canary.ready} are ready"
    return f"{canary.ready} of {canary.wanted} canary pods ready"


def nobody_answers(canary: CanaryPods) -> str:
    """Why the canary is taken off traffic though nothing has judged it."""
    return "no canary pod is ready" if not canary.ready else "no canary pod is behind its Service"


def another_image(seen: Observed, attempt: Attempt) -> str:
    """What runs where something else was looked up and decided about; empty where all is as it was."""
    known = {one.image: one for one in attempt.evidence.images if one.digest}
    for image, digest in seen.canary.running:
        meant = known.get(image)
        if meant is not None and digest != meant.digest and digest not in meant.platforms:
            return (
                f"a canary pod runs {digest} for {image}, and what was looked up and agreed to is {meant.digest}: "
                "the tag was moved, or something replaces images; name the image by its digest"
            )
    return ""


def has_pods_from(seen: Observed, before: datetime, now: datetime) -> bool:
    """Whether a canary pod that began before that instant is still there."""
    return now - timedelta(seconds=seen.canary.oldest_age) < before


def has_trial_pods(seen: Observed) -> bool:
    """Whether a Deployment of ours stands that nobody has deleted yet."""
    return any(one.exists and not one.deleting for one in (seen.canary, seen.baseline))
