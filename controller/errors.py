"""Every error Serin expects, in one tree. The branch an error sits on says what the loop does about it.

`Retryable` backs off and tries again; `NeedsUser` becomes a condition and waits for an edit;
`Fenced` ends the process, because somebody newer leads.
"""

from __future__ import annotations


class SerinError(Exception):
    """The root. `reason` is the CamelCase word that appears in status, Event, log and metric."""

    reason = "Error"


class Retryable(SerinError):
    """The outside did not answer or answered "not now": back off and look again."""


class NeedsUser(SerinError):
    """Nothing changes until a person edits something. The message names field, finding and fix."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Fenced(SerinError):
    """A newer leader wrote here. Whoever sees this must stop acting at once."""

    reason = "Fenced"


class ApiUnavailable(Retryable):
    """The API server could not be reached or did not answer in time."""

    reason = "ApiUnavailable"


class ApiThrottled(Retryable):
    """429, or 503 with Retry-After. `retry_after` is in seconds."""

    reason = "ApiThrottled"

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Conflict(Retryable):
    """The object changed between reading and writing: read again and decide again, never just resend."""

    reason = "Conflict"


class Gone(Retryable):
    """410: the resource version asked for is too old; list again."""

    reason = "Gone"


class NotFound(SerinError):
    """404 from the API server."""

    reason = "NotFound"


class AlreadyExists(SerinError):
    """409 on create: the name is taken."""

    reason = "AlreadyExists"


class Forbidden(Retryable):
    """403: the message names verb and resource. Retried, since a RoleBinding may come back."""

    reason = "Forbidden"


class Refused(SerinError):
    """422 or an admission refusal: the API server says why, and sending it again changes nothing."""

    reason = "Refused"


class SourceUnavailable(Retryable):
    """A metric source could not answer. An answer without data is not an error."""

    reason = "MetricsUnavailable"

    def __init__(self, source: str, cause: str) -> None:
        super().__init__(f"metric source {source} did not answer: {cause}")
        self.source = source


class RouterConflict(Retryable):
    """Somebody else holds the fields of the route that we must write."""

    reason = "RouterConflict"


class InvalidSpec(NeedsUser):
    """A spec that passed the schema but cannot be carried out; `problems` has one line for each field."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("InvalidSpec", "; ".join(problems))
        self.problems = problems
