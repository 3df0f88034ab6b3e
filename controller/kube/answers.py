"""From an answer of the API server to one of our errors. Pure, so that each odd answer is a line in a table.

The odd one: a JSON patch whose `test` fails comes back as 422 `Invalid` without details, and so does one that
removes a path that is not there. Both mean that the object is not what we read, so both are a `Conflict`;
a refusal by schema or admission names its object or its causes.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from controller.errors import (
    AlreadyExists,
    ApiThrottled,
    ApiUnavailable,
    Conflict,
    Forbidden,
    Gone,
    NotFound,
    Refused,
    SerinError,
)
from controller.kube.objects import Status

_STATUS = msgspec.json.Decoder(Status)

LONGEST = 10.0
"""seconds that a server may ask for: the API server says 1, what stands before it may say an hour or for ever, and an
abort would come after that"""


def parse_status(body: bytes, code: int) -> Status:
    """The `Status` in a failed answer; anything else (a proxy's HTML page) becomes its first characters."""
    try:
        status = _STATUS.decode(body)
    except msgspec.DecodeError:
        return Status(code=code, message=body[:200].decode("utf-8", "replace"))
    return status if status.code else msgspec.structs.replace(status, code=code)


def error_of(
    status: Status, doing: str, headers: Mapping[str, str] | None = None, *, json_patch: bool = False
) -> SerinError:
    """The error for a failed answer. `doing` is verb, resource and name: "patch deployments.apps shop/cart"."""
    said = f"{doing}: {status.message or status.reason or status.code}"
    retry_after = _retry_after(status, headers or {})
    match status.code:
        case 401:
            return Forbidden(f"{doing}: not logged in: {status.message}")
        # Role-based access says who cannot do what; every other 403 is admission speaking.
        case 403 if " cannot " in status.message or not status.message:
            return Forbidden(said)
        case 404:
            return NotFound(said)
        case 409 if status.reason == "AlreadyExists":
            return AlreadyExists(said)
        case 409:
            return Conflict(said)
        case 410:
            return Gone(said)
        case 422 if json_patch and _without_details(status):
            return Conflict(f"{doing}: the object is not what the patch expects")
        case 429:
            return ApiThrottled(said, 1.0 if retry_after is None else retry_after)
        case 503 if retry_after is not None:
            return ApiThrottled(said, retry_after)
        case code if code >= 500 or code == 408:
            return ApiUnavailable(said)
        case _:
            return Refused(said)


def _without_details(status: Status) -> bool:
    details = status.details
    return details is None or not (details.name or details.kind or details.causes)


def _retry_after(status: Status, headers: Mapping[str, str]) -> float | None:
    """Seconds; the header's other form, a date, is not something the API server sends."""
    try:
        return min(max(0.0, float(headers["Retry-After"])), LONGEST)
    except (KeyError, ValueError):
        said = status.details.retry_after_seconds if status.details else 0.0
        return min(said, LONGEST) if said > 0 else None
