"""What else a pod template stands on: the objects of its namespace that its pods read or keep their data in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MOST = 100
"""names that are remembered; a template with more is a bundle of services"""


def uses(template: Mapping[str, Any]) -> tuple[str, ...]:
    """`Kind/name` of every ConfigMap, Secret and PersistentVolumeClaim that the template names, sorted.

    >>> uses({"spec": {"volumes": [{"name": "v", "configMap": {"name": "settings"}}]}})
    ('ConfigMap/settings',)
    """
    spec = _mapping(template.get("spec"))
    found = {f"{kind}/{name}" for kind, name in (*_of_volumes(spec), *_of_containers(spec)) if name}
    return tuple(sorted(found)[:MOST])


def _of_volumes(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for volume in _mappings(spec.get("volumes")):
        yield "PersistentVolumeClaim", _name(volume.get("persistentVolumeClaim"), "claimName")
        for source in (volume, *_mappings(_mapping(volume.get("projected")).get("sources"))):
            yield "ConfigMap", _name(source.get("configMap"), "name")
            # A Secret volume says secretName, a projected one says name.
            yield "Secret", _name(source.get("secret"), "secretName") or _name(source.get("secret"), "name")


def _of_containers(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for container in (*_mappings(spec.get("initContainers")), *_mappings(spec.get("containers"))):
        for source in _mappings(container.get("envFrom")):
            yield "ConfigMap", _name(source.get("configMapRef"), "name")
            yield "Secret", _name(source.get("secretRef"), "name")
        for variable in _mappings(container.get("env")):
            value = _mapping(variable.get("valueFrom"))
            yield "ConfigMap", _name(value.get("configMapKeyRef"), "name")
            yield "Secret", _name(value.get("secretKeyRef"), "name")


def _name(reference: Any, field: str) -> str:
    return str(_mapping(reference).get(field) or "")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list | tuple) else []
