"""Which hold this cluster gives: a pause in the request that brings an edit, or a pause that stays at rest.

The one thing to know: `MutatingAdmissionPolicy` is there from Kubernetes 1.36. Older clusters, and those that switch
it off, get `spec.paused: true` at rest; a validating policy, which they do have, keeps others from taking it away.
"""

from __future__ import annotations

from enum import StrEnum

from controller.errors import NotFound
from controller.kube.transport import Api

_ADMISSION = "/apis/admissionregistration.k8s.io/v1"


class Hold(StrEnum):
    """What the operator asks for."""

    AUTO = "auto"
    """what the API server offers"""
    ADMISSION = "admission"
    PAUSE = "pause"


async def find_hold(api: Api, wanted: Hold) -> Hold:
    """`ADMISSION` or `PAUSE`."""
    if wanted is not Hold.AUTO:
        return wanted
    try:
        found = await api.read(_ADMISSION)
    except NotFound:
        return Hold.PAUSE
    names = {one.get("name") for one in found.get("resources", [])}
    return Hold.ADMISSION if "mutatingadmissionpolicies" in names else Hold.PAUSE
