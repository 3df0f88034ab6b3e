"""What a change touches: classes by where two revisions of a workload differ.

Only what can be seen counts, plus what the new revision says of itself with an annotation, which can add classes and
never take one away. A place nobody thought of is `config`: every difference has a class.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from controller.model.evidence import NO_EVIDENCE, Evidence, Trust
from controller.model.guarded import Touched
from controller.model.policy import ChangeClass
from controller.model.status import Stable

Object = Mapping[str, Any]

CLASSES = "serin.dev/change-classes"
"""annotation of the pod template: classes this revision has beyond what its template shows, separated by commas"""
REVERSIBLE = "serin.dev/reversible"
"""annotation of the pod template: `false` for a one-way door"""
PATHS = 8
"""places named for each class"""

_CONTAINER = r"^spec\.(?:containers|initContainers)(?:\[\])?"
_SECRETS = frozenset({"secretKeyRef", "secretRef", "secret", "secretName", "projected"})
_RULES = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        (ChangeClass.DESTRUCTIVE, r"^spec\.volumes\[\]\.(persistentVolumeClaim|ephemeral)"),
        (
            ChangeClass.AUTH,
            r"^spec\.(serviceAccount|serviceAccountName|automountServiceAccountToken|securityContext|imagePullSecrets"
            r"|hostPID|hostIPC|hostNetwork|hostUsers|shareProcessNamespace)\b",
        ),
        (ChangeClass.AUTH, _CONTAINER + r"\.securityContext"),
        (ChangeClass.RESOURCES, _CONTAINER + r"\.(resources|resizePolicy)|^spec\.(resources|overhead)\b"),
        (
            ChangeClass.INFRA,
            r"^spec\.(nodeSelector|nodeName|affinity|tolerations|topologySpreadConstraints|priorityClassName|priority"
            r"|runtimeClassName|schedulerName|hostNetwork|hostname|subdomain|dnsPolicy|dnsConfig|hostAliases|os"
            r"|readinessGates|schedulingGates|terminationGracePeriodSeconds)\b",
        ),
        (
            ChangeClass.INFRA,
            r"^spec\.volumes\[\]\.(?!configMap|downwardAPI|emptyDir|secret|projected|persistentVol|eph)",
        ),
        (ChangeClass.INFRA, _CONTAINER + r"\.(ports|volumeDevices)"),
        (ChangeClass.IMAGE, _CONTAINER + r"(\.image)?$"),
    )
)
"""where a place belongs; names in brackets are left out before these are asked"""


def classes_of(old: Object, new: Object, evidence: Evidence = NO_EVIDENCE) -> tuple[Touched, ...]:
    """The classes of a change, each with the places that show it, in the order of `ChangeClass`.

    `old` and `new` have a `template`, and where they are known `strategy` and `replicas`, as the spec of a Deployment
    has them: `as_released` is the old one. A selector never differs: the API server lets nobody change it, and a
    Deployment made again has another uid. A change of image is a one-way door unless a signed statement says that it
    is none.
    """
    found: dict[ChangeClass, list[str]] = {}
    before, after = _template(old), _template(new)
    # One that stops being a sidecar prepares something from now on.
    sidecars = _sidecars(after) | (_sidecars(before) - _init_names(after))
    for path, was, now in _walk(before, after, ""):
        for kind in _classes_at(path, was, now, sidecars):
            found.setdefault(kind, []).append(f"template.{path}")
    for kind, path in _beyond_the_template(old, new):
        found.setdefault(kind, []).append(path)
    annotations = (after.get("metadata") or {}).get("annotations") or {}
    for name in str(annotations.get(CLASSES, "")).replace(" ", "").split(","):
        if name in set(ChangeClass):
            found.setdefault(ChangeClass(name), []).append(f"template.metadata.annotations[{CLASSES}]")
    if str(annotations.get(REVERSIBLE, "")).lower() == "false":
        found.setdefault(ChangeClass.IRREVERSIBLE, []).append(f"template.metadata.annotations[{REVERSIBLE}]")
    if ChangeClass.IMAGE in found and not (evidence.trust is Trust.T3 and evidence.reversible):
        found.setdefault(ChangeClass.IRREVERSIBLE, []).append(
            "the signed statement says so" if evidence.reversible is False else "no signed statement says reversible"
        )
    # A container that comes or goes is told before the images of others: a statement about an image is not about it.
    found.get(ChangeClass.IMAGE, []).sort(key=lambda path: path.endswith(".image"))
    return tuple(Touched(kind, tuple(found[kind][:PATHS])) for kind in ChangeClass if kind in found)


def as_released(stable: Stable | None) -> Object:
    """The workload as its last release left it: what is not remembered is not compared."""
    if stable is None:
        return {}
    strategy = {"strategy": {"type": stable.strategy}} if stable.strategy else {}
    size = {} if stable.replicas is None else {"replicas": stable.replicas}
    return {"template": stable.template, **strategy, **size}


def differences(old: Object, new: Object) -> Iterator[str]:
    """Every place where two objects differ, as a path; lists of named things are compared by name.

    >>> list(differences({"spec": {"a": 1, "b": [1]}}, {"spec": {"a": 2, "b": [1]}}))
    ['spec.a']
    >>> one, two = {"c": [{"name": "app", "image": "v1"}]}, {"c": [{"name": "app", "image": "v2"}, {"name": "log"}]}
    >>> list(differences(one, two))
    ['c[app].image', 'c[log]']
    """
    return (path for path, _, _ in _walk(old, new, ""))


def _walk(one: Any, two: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """Path and both values of each difference; what is absent and what is empty say the same."""
    if one == two or (one in (None, {}, [], "") and two in (None, {}, [], "")):
        return
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        for key in sorted({*one, *two}):
            yield from _walk(one.get(key), two.get(key), f"{path}.{key}" if path else str(key))
    elif _named(one) and _named(two):
        before, after = {part["name"]: part for part in one or ()}, {part["name"]: part for part in two or ()}
        if [name for name in before if name in after] != [name for name in after if name in before]:
            # Init containers run in it, and a variable sees those before it.
            yield f"{path}.order", None, None
        for name in sorted({*before, *after}):
            # Which kind of volume came or went is what matters of it.
            nothing: Object | None = {"name": name} if path == "spec.volumes" else None
            yield from _walk(before.get(name, nothing), after.get(name, nothing), f"{path}[{name}]")
    else:
        yield path, one, two


def _named(value: Any) -> bool:
    """A list of things with a name each; none at all is one too, and False or 0 is none.

    A variable may be there twice, and each counts for those between: such a list is compared whole.
    """
    parts = () if value is None else value
    if not isinstance(parts, list | tuple) or not all(isinstance(one, Mapping) and "name" in one for one in parts):
        return False
    return len({part["name"] for part in parts}) == len(parts)


def _classes_at(path: str, was: Any, now: Any, sidecars: frozenset[str]) -> set[ChangeClass]:
    """The classes of one place."""
    if path.startswith("metadata.annotations.serin.dev/"):
        # What Serin is told about a revision is no change of it.
        return set()
    bare = re.sub(r"\[[^\]]*\]", "[]", path)
    kinds = {kind for kind, pattern in _RULES if pattern.search(bare)}
    init = re.match(r"spec\.initContainers(?:\[([^\]]*)\]|\.order$)", path)
    if init and init[1] not in sidecars:
        kinds.add(ChangeClass.SCHEMA)
    if _SECRETS & {*bare.replace("[]", "").split("."), *_keys(was), *_keys(now)}:
        kinds.add(ChangeClass.AUTH)
    return kinds or {ChangeClass.CONFIG}


def _sidecars(template: Object) -> frozenset[str]:
    """Init containers that go on running: they prepare nothing."""
    init = template["spec"].get("initContainers") or ()
    return frozenset(str(one.get("name")) for one in init if one.get("restartPolicy") == "Always")


def _init_names(template: Object) -> frozenset[str]:
    return frozenset(str(one.get("name")) for one in template["spec"].get("initContainers") or ())


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield str(key)
            yield from _keys(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _keys(each)


def _beyond_the_template(old: Object, new: Object) -> Iterable[tuple[ChangeClass, str]]:
    """Strategy and size, where both are known."""
    recreate = [str((one.get("strategy") or {}).get("type", "")) == "Recreate" for one in (old, new)]
    if "strategy" in old and recreate == [False, True]:
        yield ChangeClass.DESTRUCTIVE, "strategy.type"
    if "replicas" in old and "replicas" in new and old["replicas"] != new["replicas"]:
        yield ChangeClass.SCALE, "replicas"
    if new.get("replicas") == 0 and old.get("replicas") != 0:
        yield ChangeClass.DESTRUCTIVE, "replicas"


def _template(workload: Object) -> Object:
    template = workload.get("template") or {}
    metadata = template.get("metadata") or {}
    return {
        "metadata": {"labels": metadata.get("labels") or {}, "annotations": metadata.get("annotations") or {}},
        "spec": template.get("spec") or {},
    }
