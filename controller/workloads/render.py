"""What is written: the canary's objects, and JSON patches that apply only to what was read. Pure.

The one thing to know: our writes leave no entry in `managedFields`. With one, the owner's next server-side apply of
the same field is refused as a conflict with us; so every patch of a user's object is followed by `forget_ops`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from controller.model.spec import API_VERSION, CanarySpec
from controller.model.template import HASH_LABEL, plain_template
from controller.ports import Ref
from controller.workloads.parse import (
    ASKED,
    ASKED_BEFORE,
    CANARY_LABEL,
    EPOCH,
    HELD,
    REPLACED,
    Object,
    annotations_of,
    asked_before,
    asked_since,
    labels_of,
)
from controller.workloads.services import PINNED, Selecting

Op = dict[str, Any]

HOLD_PROBE = "serin.dev/hold-probe"
HELD_BY = "held by Canary"
"""how the validating policy's refusal begins (manifests/admission/hold.yaml)"""
ASKS_KEPT = 20
"""the first of them: pods that are asked for after so many others wait as long as the last"""
MANAGED_BY = {"app.kubernetes.io/managed-by": "serin"}

_NOT_COPIED = (
    "serin.dev",
    "kubectl.kubernetes.io",
    "meta.helm.sh",
    "argocd.argoproj.io",
    "fluxcd.io",
    "external-dns.alpha.kubernetes.io",
)
"""Annotations that say who applied or owns an object, and DNS names: there must be one of each."""


_OF_BASELINE = "-baseline"


def baseline_of(attempt: str) -> str:
    """What the fresh baseline's pods carry as their attempt.

    The same label as a canary's, so that the target's Deployment does not adopt them, and another value, so that the
    canary's does not either.
    """
    return attempt + _OF_BASELINE


def attempt_of_baseline(label: str) -> str:
    """The attempt again."""
    return label.removesuffix(_OF_BASELINE)


def owner_of(ref: Ref) -> dict[str, Any]:
    """The reference by which canary objects go when the Canary goes, and never keep it from going."""
    return {
        "apiVersion": API_VERSION,
        "kind": "Canary",
        "name": ref.name,
        "uid": ref.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def canary_deployment(
    ref: Ref,
    spec: CanarySpec,
    target: Object,
    template: Object,
    *,
    name: str,
    attempt: str,
    replicas: int,
    epoch: str,
    now: datetime,
) -> dict[str, Any]:
    """A Deployment of ours: `template` with the attempt's label, under the target's selector and that label."""
    plain = plain_template(template)
    labelled = plain | {"metadata": plain["metadata"] | {"labels": labels_of(plain) | {CANARY_LABEL: attempt}}}
    selector = target["spec"]["selector"]
    least_ready = int(target["spec"].get("minReadySeconds", 0))
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "labels": MANAGED_BY,
            "annotations": {EPOCH: epoch, ASKED: now.isoformat()},
            "ownerReferences": [owner_of(ref)],
        },
        "spec": {
            "replicas": replicas,
            "minReadySeconds": least_ready,
            # Its template changes only at weight 0, to replace every pod: nothing is lost by deleting first.
            "strategy": {"type": "Recreate"},
            # The API server wants it greater than minReadySeconds.
            "progressDeadlineSeconds": max(int(spec.progress_deadline.total_seconds()), least_ready + 1),
            "selector": dict(selector) | {"matchLabels": (selector.get("matchLabels") or {}) | {CANARY_LABEL: attempt}},
            "template": labelled,
        },
    }


def canary_service(ref: Ref, target: Object, stable: Object, *, name: str, attempt: str) -> dict[str, Any]:
    """A Service of ours: ports and annotations of the stable one, pods of this attempt."""
    kept = ("name", "protocol", "port", "targetPort", "appProtocol")
    headless = {"clusterIP": "None"} if stable["spec"].get("clusterIP") == "None" else {}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "labels": MANAGED_BY,
            "annotations": {key: value for key, value in annotations_of(stable).items() if _is_copied(key)},
            "ownerReferences": [owner_of(ref)],
        },
        "spec": headless
        | {
            "selector": canary_selector(target, attempt),
            "ports": [
                {field: port[field] for field in kept if field in port} for port in stable["spec"].get("ports") or ()
            ],
        },
    }


def canary_selector(target: Object, attempt: str) -> dict[str, str]:
    """What a Service of ours selects by."""
    return dict(target["spec"]["selector"].get("matchLabels") or {}) | {CANARY_LABEL: attempt}


def unchanged_ops(body: Object) -> list[Op]:
    """The patch applies only to the version that was read, and only under the epoch that was read."""
    ops = [_test("/metadata/resourceVersion", body["metadata"]["resourceVersion"])]
    if EPOCH in annotations_of(body):
        ops.append(_test(_annotation(EPOCH), annotations_of(body)[EPOCH]))
    return ops


def annotate_ops(body: Object, name: str, value: str) -> list[Op]:
    """Set one annotation, also where there are none yet."""
    first = [] if (body.get("metadata") or {}).get("annotations") else [_add("/metadata/annotations", {})]
    return [*first, _add(_annotation(name), value)]


def unannotate_ops(body: Object, name: str) -> list[Op]:
    """Take one annotation out, if it is there."""
    return [{"op": "remove", "path": _annotation(name)}] if name in annotations_of(body) else []


def pause_ops(deployment: Object, epoch: str) -> list[Op]:
    """Stop a roll and stamp it; an empty epoch leaves no stamp."""
    return [*unchanged_ops(deployment), _add("/spec/paused", True), *_stamp_ops(deployment, epoch)]


def release_ops(deployment: Object, epoch: str) -> list[Op]:
    """Let it roll, under this epoch; an empty one leaves nothing of ours on it."""
    return [*unchanged_ops(deployment), _add("/spec/paused", False), *_let_go_ops(deployment, epoch)]


def restore_ops(deployment: Object, template: Object, epoch: str, *, paused: bool) -> list[Op]:
    """Give it this template, and let it roll there unless `paused`: one patch, so that nothing rolls in between."""
    return [
        *unchanged_ops(deployment),
        _add("/spec/template", plain_template(template)),
        _add("/spec/paused", paused),
        *_let_go_ops(deployment, epoch),
    ]


def probe_ops(template: Object) -> list[Op]:
    """An edit of the template that asks not to be paused: paused all the same, the hold is in force."""
    annotations = (template.get("metadata") or {}).get("annotations")
    base = "/spec/template/metadata/annotations"
    first = [] if annotations else [_add(base, {})]
    return [_add("/spec/paused", False), *first, _add(f"{base}/{_escape(HOLD_PROBE)}", "probe")]


def pin_ops(service: Selecting, canary: str, stable_hash: str) -> list[Op]:
    """Pin a Service, also away from a hash of ours that is no longer stable's."""
    return [
        _test("/spec/selector", service.selector),
        _add("/spec/selector", service.bare | {HASH_LABEL: stable_hash}),
        *annotate_ops(service.body, PINNED, f"{canary}/{stable_hash}"),
    ]


def unpin_ops(service: Selecting) -> list[Op]:
    """Give a Service its owner's selector back. Where the owner has done so already, only our mark goes."""
    selector = [] if service.bare == service.selector else [_add("/spec/selector", service.bare)]
    return [_test("/spec/selector", service.selector), *selector, *unannotate_ops(service.body, PINNED)]


def scale_ops(canary: Object, replicas: int, epoch: str, now: datetime) -> list[Op]:
    """Bring the canary to this size and stamp it; empty when both are so already. Fewer pods ask for none."""
    there = canary["spec"].get("replicas", 1)
    if there == replicas and annotations_of(canary).get(EPOCH) == epoch:
        return []
    asked = [_add(_annotation(ASKED), now.isoformat())] if replicas > there else []
    return [
        *unchanged_ops(canary),
        _add("/spec/replicas", replicas),
        *annotate_ops(canary, EPOCH, epoch),
        *asked,
        *_asked_before_ops(canary, replicas, now),
    ]


def _asked_before_ops(canary: Object, replicas: int, now: datetime) -> list[Op]:
    """Pods that do not serve yet are waited for since they were asked for, however many are asked for after them: an
    autoscaler that adds one every few minutes would else put off their deadline for ever."""
    there, ready = canary["spec"].get("replicas", 1), (canary.get("status") or {}).get("readyReplicas", 0)
    last = asked_since(canary, now)
    asked = [*asked_before(canary), *([(there, last)] if last and replicas > there else [])]
    since: dict[int, datetime] = {}
    for count, at in asked:
        if count > ready:
            since.setdefault(min(count, replicas), at)
    kept = " ".join(f"{count}@{at.isoformat()}" for count, at in list(since.items())[:ASKS_KEPT])
    if kept == annotations_of(canary).get(ASKED_BEFORE, ""):
        return []
    return [_add(_annotation(ASKED_BEFORE), kept)] if kept else unannotate_ops(canary, ASKED_BEFORE)


HOSTNAME = "kubernetes.io/hostname"


def replace_ops(canary: Object, nodes: Sequence[str], epoch: str) -> list[Op]:
    """Fresh pods, on other nodes where there are any; empty when this decision was carried out already."""
    template = canary["spec"]["template"]
    if annotations_of(template).get(REPLACED) == epoch:
        return []
    affinity = template["spec"].get("affinity") or {}
    of_nodes = affinity.get("nodeAffinity") or {}
    preferred = "preferredDuringSchedulingIgnoredDuringExecution"
    elsewhere = {
        "weight": 100,
        "preference": {"matchExpressions": [{"key": HOSTNAME, "operator": "NotIn", "values": sorted(set(nodes))}]},
    }
    wished = [*(of_nodes.get(preferred) or ()), elsewhere] if nodes else list(of_nodes.get(preferred) or ())
    annotations = annotations_of(template) | {REPLACED: epoch}
    return [
        *unchanged_ops(canary),
        _add("/spec/template/metadata/annotations", annotations),
        _add("/spec/template/spec/affinity", affinity | {"nodeAffinity": of_nodes | {preferred: wished}}),
        *annotate_ops(canary, EPOCH, epoch),
    ]


def forget_ops(body: Mapping[str, Any], manager: str) -> list[Op]:
    """Take our entries out of `managedFields`; empty when there are none. Last one first: indices move.

    An entry of our annotations alone may stay: no owner sets those, and it goes with the last of them.
    """
    entries = list(enumerate((body.get("metadata") or {}).get("managedFields") or ()))
    ops = []
    for index, entry in reversed(entries):
        if entry.get("manager") == manager and not entry.get("subresource") and not _is_private(entry):
            path = f"/metadata/managedFields/{index}"
            ops += [_test(f"{path}/manager", manager), {"op": "remove", "path": path}]
    return ops


def _is_private(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of `managedFields` names nothing but annotations of ours."""
    fields = entry.get("fieldsV1") or {}
    named = (fields.get("f:metadata") or {}).get("f:annotations") or {}
    nothing_else = fields.keys() == {"f:metadata"} and fields["f:metadata"].keys() == {"f:annotations"}
    return nothing_else and all(name == "." or name.startswith("f:serin.dev/") for name in named)


def _stamp_ops(body: Object, epoch: str) -> list[Op]:
    return annotate_ops(body, EPOCH, epoch) if epoch else unannotate_ops(body, EPOCH)


def _let_go_ops(body: Object, epoch: str) -> list[Op]:
    """No pause of the policy's any more, and our stamp."""
    return [*unannotate_ops(body, HELD), *_stamp_ops(body, epoch)]


def _is_copied(annotation: str) -> bool:
    domain = annotation.partition("/")[0]
    return not any(domain == each or domain.endswith("." + each) for each in _NOT_COPIED)


def _add(path: str, value: Any) -> Op:
    return {"op": "add", "path": path, "value": value}


def _test(path: str, value: Any) -> Op:
    return {"op": "test", "path": path, "value": value}


def _annotation(name: str) -> str:
    return f"/metadata/annotations/{_escape(name)}"


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
