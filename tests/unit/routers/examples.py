"""One usual HTTPRoute, and the parts of it that tests vary."""

from __future__ import annotations

from typing import Any


def backend(name: str = "shop", weight: int | None = 1, port: int = 80, **more: Any) -> dict[str, Any]:
    """As the API server stores it: group, kind and weight filled in."""
    filled = {"group": "", "kind": "Service", "name": name, "port": port}
    return filled | ({} if weight is None else {"weight": weight}) | more


def rule(*backends: dict[str, Any], path: str = "/", **more: Any) -> dict[str, Any]:
    return {
        "matches": [{"path": {"type": "PathPrefix", "value": path}}],
        "backendRefs": list(backends) or [backend()],
    } | more


def mirror(name: str = "shop-canary", port: int = 80) -> dict[str, Any]:
    """A filter that sends a copy of each request to somebody else."""
    return {"type": "RequestMirror", "requestMirror": {"backendRef": {"kind": "Service", "name": name, "port": port}}}


def accepted(generation: int = 1, status: str = "True", **more: Any) -> dict[str, Any]:
    return {"type": "Accepted", "status": status, "observedGeneration": generation, "message": "", **more}


def report(*conditions: dict[str, Any], gateway: str = "gw") -> dict[str, Any]:
    return {
        "parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": gateway, "namespace": "infra"},
        "controllerName": "example.com/gateway",
        "conditions": list(conditions) or [accepted()],
    }


def route(*rules: dict[str, Any], annotations: dict[str, str] | None = None, **status: Any) -> dict[str, Any]:
    """A route of one rule to shop:80, accepted by its gateway."""
    return {
        "metadata": {
            "name": "shop",
            "namespace": "town",
            "generation": 1,
            "resourceVersion": "7",
            "managedFields": [
                {"manager": "helm", "operation": "Apply", "fieldsV1": {"f:spec": {"f:rules": {}}}},
                {"manager": "gateway", "operation": "Update", "subresource": "status", "fieldsV1": {"f:status": {}}},
            ],
        }
        | ({} if annotations is None else {"annotations": annotations}),
        "spec": {
            "parentRefs": [
                {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gw", "namespace": "infra"}
            ],
            "rules": list(rules) or [rule()],
        },
        "status": {"parents": [report()]} | status,
    }
