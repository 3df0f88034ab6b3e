"""One HTTPRoute behind the two calls the router makes, with the API server's rules for JSON patches and ownership."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from controller.errors import Conflict, NotFound
from controller.kube.resources import Resource


class RouteStore:
    """Stands where `kube.transport.Api` stands."""

    field_manager = "serin"

    def __init__(self, route: dict[str, Any]) -> None:
        self.route = deepcopy(route)
        self.patches: list[list[dict[str, Any]]] = []
        self.lanes: list[str] = []
        self.reads = 0
        self.interrupt: list[Any] = []
        """called before each of the next patches: what somebody else does to the route meanwhile"""

    async def get(self, resource: Resource, namespace: str, name: str, *, lane: str = "usual") -> dict[str, Any]:
        if name != self.route["metadata"]["name"]:
            raise NotFound(f"no {name}")
        self.reads += 1
        return deepcopy(self.route)

    async def json_patch(
        self, resource: Resource, namespace: str, name: str, ops: list[dict[str, Any]], *, lane: str = "usual"
    ) -> dict[str, Any]:
        if self.interrupt:
            self.interrupt.pop(0)(self.route)
        after = apply_patch(self.route, ops)
        fields = {"f:spec": {"f:rules": {}}} if after["spec"] != self.route["spec"] else {}
        managers = after["metadata"]["managedFields"]
        if fields and not any(entry["manager"] == self.field_manager for entry in managers):
            managers.append({"manager": self.field_manager, "operation": "Update", "fieldsV1": fields})
        after["metadata"]["resourceVersion"] = str(int(self.route["metadata"]["resourceVersion"]) + 1)
        self.route = after
        self.patches.append(ops)
        self.lanes.append(lane)
        return deepcopy(after)


def apply_patch(body: dict[str, Any], ops: list[dict[str, Any]]) -> dict[str, Any]:
    """RFC 6902 as far as test, add, replace and remove."""
    after: dict[str, Any] = deepcopy(body)
    for op in ops:
        *way, last = [part.replace("~1", "/").replace("~0", "~") for part in op["path"].split("/")[1:]]
        place: Any = after
        for part in way:
            place = _step(place, part)
        key = int(last) if isinstance(place, list) else last
        match op["op"]:
            case "test":
                found = place[key] if _has(place, key) else None
                if found != op["value"]:
                    raise Conflict(f"{op['path']} is not what the patch expects")
            case "add":
                place[key] = deepcopy(op["value"])
            case "replace" if _has(place, key):
                place[key] = deepcopy(op["value"])
            case "remove" if _has(place, key):
                del place[key]
            case other:
                raise Conflict(f"{other} {op['path']}: no such path")
    return after


def _step(place: Any, part: str) -> Any:
    key = int(part) if isinstance(place, list) else part
    if not _has(place, key):
        raise Conflict(f"no {part}")
    return place[key]


def _has(place: Any, key: Any) -> bool:
    return 0 <= key < len(place) if isinstance(place, list) else key in place
