"""Work beside the loop: looks that no turn waits for, whose result a later turn takes."""

from __future__ import annotations

import asyncio
from typing import TypeVar

Result = TypeVar("Result")


def result_of(task: asyncio.Task[Result]) -> Result | None:
    """What came of it; None while it is under way, and where it was cancelled or failed."""
    return task.result() if task.done() and not task.cancelled() and task.exception() is None else None
