"""Whether a person still holds a right, asked of the API server at the moment a decision is acted on.

Admission has checked the same when the Decision was written; since then a role may have been taken away. The groups are
those that admission saw with the person, so that a right held through a group is found again.
"""

from __future__ import annotations

from typing import Any

from controller.errors import NotFound, Refused, Retryable
from controller.kube.resources import Resource
from controller.kube.transport import Api
from controller.model.spec import GROUP

REVIEWS = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False)
EVERYBODY = "system:authenticated"


class KubeRights:
    """`ports.Rights` by SubjectAccessReview."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def may(self, by: str, groups: tuple[str, ...], verb: str, namespace: str, canary: str) -> bool | None:
        return await self._ask(
            by, groups, {"resource": "canaries", "namespace": namespace, "name": canary, "verb": verb}
        )

    async def may_thaw(self, by: str, groups: tuple[str, ...], freeze: str) -> bool | None:
        """Whether this person may take this Freeze off, together with another; None when nobody could tell."""
        return await self._ask(by, groups, {"resource": "freezes", "name": freeze, "verb": "thaw"})

    async def _ask(self, by: str, groups: tuple[str, ...], about: dict[str, str]) -> bool | None:
        attributes = {"group": GROUP, **about}
        body: dict[str, Any] = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "metadata": {},
            "spec": {"user": by, "groups": [*groups, EVERYBODY], "resourceAttributes": attributes},
        }
        try:
            answer = await self._api.create(REVIEWS, None, body)
        except (Retryable, Refused, NotFound):
            return None
        return bool(answer.get("status", {}).get("allowed", False))
