"""Deployments, ReplicaSets and pods as the API server returns them, read as what the loop understands. Pure.

The one thing to know: revisions are told apart by `template_hash` of `model/template.py`, and not by the hash that
the Deployment controller gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from controller.model.spec import CanarySpec
from controller.model.template import HASH_LABEL, plain_template, template_hash
from controller.model.world import CanaryPods, Target

Object = Mapping[str, Any]

CANARY_LABEL = "serin.dev/canary"
"""Value: the attempt. Keeps the canary's ReplicaSet and pods from being adopted by the user's Deployment."""
EPOCH = "serin.dev/epoch"
IN_HISTORY = "deployment.kubernetes.io/revision"
"""on a ReplicaSet: what `kubectl rollout undo --to-revision` takes"""
REPLACED = "serin.dev/replaced"
"""on the canary's pod template: the epoch of the retreat that asked for fresh pods"""
ASKED = "serin.dev/asked-at"
"""on a Deployment of ours: since when it is to have this many pods"""
ASKED_BEFORE = "serin.dev/asked-before"
"""on the same: `2@INSTANT`, divided by spaces: since when it was to have fewer, where those did not serve yet"""
HELD = "serin.dev/held"
"""on a target that the admission policy has paused: the Canary it did so for"""
ORIGIN = "serin.dev/origin"

_IMAGE_TROUBLES = frozenset({"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"})
_TROUBLES = _IMAGE_TROUBLES | {
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
}
RESTARTS = 3
"""of one container from which a canary's pod is in trouble: it was made for this attempt"""


def images_of(template: Object) -> tuple[str, ...]:
    """Images of the containers, then of the init containers, in the order they stand."""
    return tuple(str(container.get("image", "")) for container in _containers(template))


def _containers(template: Object) -> list[Object]:
    spec = template.get("spec") or {}
    return [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]


def strategy_of(spec: Object) -> str:
    """Type of a Deployment's rolling strategy; the API server writes the default out.

    >>> strategy_of({"strategy": {"type": "Recreate"}}), strategy_of({})
    ('Recreate', '')
    """
    return str((spec.get("strategy") or {}).get("type", ""))


def labels_of(template: Object) -> dict[str, str]:
    """Labels that pods of this template carry."""
    return dict((template.get("metadata") or {}).get("labels") or {})


def annotations_of(body: Object) -> dict[str, str]:
    """Annotations of any object, empty where there are none."""
    return dict((body.get("metadata") or {}).get("annotations") or {})


def is_owned_by(body: Object, uid: str) -> bool:
    """Whether the controller of `body` is the object with this uid."""
    owners = (body.get("metadata") or {}).get("ownerReferences") or ()
    return any(owner.get("uid") == uid and owner.get("controller") for owner in owners)


def render_selector(selector: Object) -> str:
    """A label selector as a list request takes it.

    >>> render_selector({"matchLabels": {"app": "cart"}, "matchExpressions": [{"key": "old", "operator": "Exists"}]})
    'app=cart,old'
    """
    parts = [f"{name}={value}" for name, value in (selector.get("matchLabels") or {}).items()]
    for wanted in selector.get("matchExpressions") or ():
        key, values = wanted["key"], ",".join(wanted.get("values") or ())
        match wanted["operator"]:
            case "In":
                parts.append(f"{key} in ({values})")
            case "NotIn":
                parts.append(f"{key} notin ({values})")
            case "Exists":
                parts.append(key)
            case "DoesNotExist":
                parts.append(f"!{key}")
    return ",".join(parts)


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a selector takes an object with these labels, as the API server would decide.

    >>> selects({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["web"]}]}, {"app": "cart"})
    True
    """
    if any(labels.get(name) != value for name, value in (selector.get("matchLabels") or {}).items()):
        return False
    for wanted in selector.get("matchExpressions") or ():
        found, values = labels.get(wanted["key"]), wanted.get("values") or ()
        takes = {
            "In": found is not None and found in values,
            "NotIn": found is None or found not in values,
            "Exists": found is not None,
            "DoesNotExist": found is None,
        }
        if not takes[wanted["operator"]]:
            return False
    return True


def parse_target(
    deployment: Object,
    replicasets: Iterable[Object],
    spec: CanarySpec,
    *,
    stable_hash: str,
    candidate: str,
    rests_paused: bool = False,
) -> Target:
    """The user's Deployment and its ReplicaSets as one Target.

    `stable_hash` is the `pod-template-hash` in status, empty before adoption; `candidate` a `template_hash`.
    """
    metadata, wanted, status = deployment["metadata"], deployment["spec"], deployment.get("status") or {}
    template = plain_template(wanted["template"])
    mine = [found for found in replicasets if is_owned_by(found, metadata["uid"])]
    paused = bool(wanted.get("paused"))
    settled = _settled(deployment, mine)
    settled_template = plain_template(settled["spec"]["template"]) if settled else {}
    with_pods = {_hash_label(found) for found in mine if _count(found, "replicas")}
    tried = [
        found
        for found in mine
        if candidate and _hash_label(found) != stable_hash and template_hash(found["spec"]["template"]) == candidate
    ]
    return Target(
        uid=metadata["uid"],
        generation=int(metadata.get("generation", 0)),
        resource_version=metadata["resourceVersion"],
        paused=paused,
        rests_paused=rests_paused,
        held=paused and HELD in annotations_of(deployment),
        replicas=_replicas(deployment),
        template=template,
        template_hash=template_hash(template),
        images=images_of(template),
        strategy=strategy_of(wanted),
        origin=annotations_of(template).get(ORIGIN, ""),
        epoch=annotations_of(deployment).get(EPOCH, ""),
        settled_hash=_hash_label(settled) if settled else "",
        settled_template=settled_template,
        settled_template_hash=template_hash(settled_template) if settled else "",
        settled_images=images_of(settled_template),
        has_pods=bool(with_pods),
        runs_another=bool(with_pods and stable_hash) and stable_hash not in with_pods,
        stable_ready=sum(_count(found, "readyReplicas") for found in mine if _hash_label(found) == stable_hash),
        strays=any(
            _replicas(found) or _count(found, "replicas")
            for found in mine
            if stable_hash and _hash_label(found) != stable_hash
        ),
        roll_complete=not paused and _is_observed(deployment) and _is_rolled_out(deployment),
        roll_stuck="" if paused else _stuck(status),
        deleting="deletionTimestamp" in metadata,
        problems=tuple(_problems(deployment, spec, adopted=bool(stable_hash))),
        stale_replicasets=tuple(
            found["metadata"]["name"] for found in tried if not _replicas(found) and not _count(found, "replicas")
        ),
        candidate_revision=max(map(_number_in_history, tried), default=0),
        applied_by=_applied_by(metadata),
    )


def parse_canary(
    deployment: Object | None, pods: Sequence[Object], slices: Iterable[Object], *, owner: str, now: datetime
) -> CanaryPods:
    """The canary Deployment of the Canary with uid `owner`; one that somebody else owns does not count.

    `pods` carry the attempt's label; `slices` belong to the canary's Service.
    """
    if deployment is None or not is_owned_by(deployment, owner):
        return CanaryPods()
    alive = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    ready = {pod["metadata"]["name"] for pod in alive if _is_ready(pod)}
    trouble, message = _trouble(deployment, alive, len(ready))
    ages = {
        pod["metadata"]["name"]: max(0.0, (now - _instant(pod["metadata"]["creationTimestamp"])).total_seconds())
        for pod in alive
    }
    endpoints = sum(
        len(endpoint.get("addresses") or ())
        for found in slices
        for endpoint in found.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready") is not False
        and (endpoint.get("targetRef") or {}).get("name") in ready
    )
    asked_at, serving = asked_since(deployment, now), min(len(ready), endpoints)
    return CanaryPods(
        exists=True,
        attempt=attempt_of(deployment),
        wanted=_replicas(deployment),
        ready=len(ready),
        endpoints=endpoints,
        epoch=annotations_of(deployment).get(EPOCH, ""),
        asked_at=asked_at,
        missing_since=next((at for count, at in asked_before(deployment) if count > serving and at <= now), asked_at),
        trouble=trouble,
        trouble_message=message[:1024],
        youngest_age=min(ages.values(), default=0.0),
        oldest_age=max(ages.values(), default=0.0),
        ages=tuple(sorted(age for name, age in ages.items() if name in ready)),
        replaced=annotations_of(deployment["spec"]["template"]).get(REPLACED, ""),
        deleting="deletionTimestamp" in deployment["metadata"],
        running=_running(deployment, alive),
    )


def asked_since(canary: Object, now: datetime) -> datetime | None:
    """What cannot be read, or lies ahead, may be anybody's writing: the rollout's own clock counts."""
    try:
        at = datetime.fromisoformat(annotations_of(canary).get(ASKED, ""))
        return at if at <= now else None
    except (ValueError, TypeError):
        return None


def asked_before(canary: Object) -> list[tuple[int, datetime]]:
    """How many pods it was to have before, and since when: counts rise. What cannot be read counts as never written."""
    found = []
    for entry in annotations_of(canary).get(ASKED_BEFORE, "").split():
        count, _, instant = entry.partition("@")
        try:
            at = datetime.fromisoformat(instant)
            found.append((int(count), at if at.tzinfo else at.replace(tzinfo=UTC)))
        except ValueError:
            continue
    return sorted(found)


def attempt_of(canary: Object) -> str:
    """The attempt a canary Deployment belongs to."""
    return str((canary["spec"]["selector"].get("matchLabels") or {}).get(CANARY_LABEL, ""))


def _settled(deployment: Object, replicasets: Sequence[Object]) -> Object | None:
    """The one ReplicaSet that has every pod the Deployment wants, all available; None while pods move."""
    with_pods = [found for found in replicasets if _replicas(found) or _count(found, "replicas")]
    if not _is_observed(deployment) or len(with_pods) != 1:
        return None
    (only,) = with_pods
    wanted = _replicas(deployment)
    # Not paused and another template: its roll is about to begin.
    about_to_roll = not deployment["spec"].get("paused") and template_hash(only["spec"]["template"]) != template_hash(
        deployment["spec"]["template"]
    )
    counts = {wanted, _replicas(only), _count(only, "replicas"), _count(only, "availableReplicas")}
    return None if about_to_roll or len(counts) != 1 else only


def _is_observed(deployment: Object) -> bool:
    seen = (deployment.get("status") or {}).get("observedGeneration", 0)
    return int(seen) >= int(deployment["metadata"].get("generation", 0))


def _is_rolled_out(deployment: Object) -> bool:
    wanted = _replicas(deployment)
    return all(_count(deployment, name) == wanted for name in ("replicas", "updatedReplicas", "availableReplicas"))


def _stuck(status: Object) -> str:
    for condition in status.get("conditions") or ():
        if condition.get("type") == "Progressing" and condition.get("status") == "False":
            return f"{condition.get('reason', 'NoProgress')}: {condition.get('message', '')}".rstrip(": ")
    return ""


def _problems(deployment: Object, spec: CanarySpec, *, adopted: bool) -> Iterable[str]:
    wanted, name = deployment["spec"], deployment["metadata"]["name"]
    if wanted.get("paused") and not adopted:
        yield (
            f"TargetPaused spec.paused of Deployment {name} is true before Serin has a stable revision to return to: "
            f"run kubectl rollout resume deployment/{name}, or leave spec.paused out of its manifest"
        )
    if wanted.get("revisionHistoryLimit") == 0:
        yield (
            f"NoRevisionHistory spec.revisionHistoryLimit of Deployment {name} is 0, so a scale from zero while an "
            "edit is held could not bring stable back: write 1 or more"
        )
    if strategy_of(wanted) == "Recreate" and spec.steps[-1].weight < 100:
        yield (
            f"RecreateNeedsFullStep spec.strategy.type of Deployment {name} is Recreate, which stops every stable pod "
            f"while the canary has {spec.steps[-1].weight:g} %: end spec.steps of the Canary with weight 100, "
            "or use RollingUpdate"
        )
    selector = wanted.get("selector") or {}
    keys = {*(selector.get("matchLabels") or {}), *(part["key"] for part in selector.get("matchExpressions") or ())}
    for field, found in (("spec.selector", keys), ("spec.template.metadata.labels", labels_of(wanted["template"]))):
        if CANARY_LABEL in found:
            yield (
                f"LabelReserved {field} of Deployment {name} uses {CANARY_LABEL}, which Serin adds to the pods of a "
                "canary: use another label"
            )


def _trouble(deployment: Object, pods: Sequence[Object], ready: int) -> tuple[str, str]:
    """The first thing that keeps canary pods from serving, in the kubelet's or the quota's own words."""
    for pod in pods:
        status = pod.get("status") or {}
        for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
            reason, message = _container_trouble(container)
            if reason:
                where = f"pod {pod['metadata']['name']}, container {container.get('name', '')}"
                return reason, f"{where}: {message}".rstrip(": ")
    if ready >= _replicas(deployment):
        return "", ""
    for condition in (deployment.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            message = str(condition.get("message", ""))
            reason = "QuotaExceeded" if "exceeded quota" in message else str(condition.get("reason", "FailedCreate"))
            return reason, message
    return "", ""


def _container_trouble(container: Object) -> tuple[str, str]:
    state, last = container.get("state") or {}, container.get("lastState") or {}
    waiting = state.get("waiting") or {}
    ended = state.get("terminated") or last.get("terminated") or {}
    restarts = int(container.get("restartCount", 0))
    if ended.get("reason") == "OOMKilled":
        return "OOMKilled", f"killed for using more memory than its limit, {restarts} restarts"
    if waiting.get("reason") in _TROUBLES:
        exited = f"; exit code {ended['exitCode']}" if "exitCode" in ended else ""
        return str(waiting["reason"]), f"{waiting.get('message', '')}{exited}"
    if restarts >= RESTARTS:
        return "ContainerRestarts", f"{restarts} restarts, the last with exit code {ended.get('exitCode', '?')}"
    return "", ""


def _running(deployment: Object, pods: Sequence[Object]) -> tuple[tuple[str, str], ...]:
    """What nodes say they run. An image that was never pulled by a name has no digest that could be compared."""
    template = deployment["spec"]["template"]
    named = {one.get("name"): str(one.get("image", "")) for one in _containers(template)}
    found = set()
    for pod in pods:
        status = pod.get("status") or {}
        for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
            _, pulled, digest = str(container.get("imageID", "")).rpartition("@")
            if pulled and container.get("name") in named:
                found.add((named[container["name"]], digest))
    return tuple(sorted(found))


def _is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(found.get("type") == "Ready" and found.get("status") == "True" for found in conditions)


def _hash_label(replicaset: Object) -> str:
    return str((replicaset["metadata"].get("labels") or {}).get(HASH_LABEL, ""))


def _applied_by(metadata: Object) -> str:
    wrote = [
        (str(entry.get("time", "")), str(entry.get("manager", "")))
        for entry in metadata.get("managedFields") or ()
        if "f:template" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})
    ]
    return max(wrote, default=("", ""))[1]


def _number_in_history(replicaset: Object) -> int:
    """0 where it has none: the annotation is anybody's to write."""
    number = annotations_of(replicaset).get(IN_HISTORY, "")
    return int(number) if number.isdecimal() and len(number) < 10 else 0


def _replicas(body: Object) -> int:
    return int(body["spec"].get("replicas", 1))


def _count(body: Object, name: str) -> int:
    return int((body.get("status") or {}).get(name, 0))


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
