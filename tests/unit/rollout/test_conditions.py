"""What conditions say of the reasons that there are."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from controller.loop import memory
from controller.rollout.conditions import TO_MEND
from controller.routers import httproute
from controller.sources import prometheus
from controller.workloads import parse, services


def reasons_in(code: Any) -> Iterator[str]:
    """The CamelCase words that texts of this code begin with: the reasons of what it finds wrong."""
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(code)))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r"^[A-Z][a-z]+(?:[A-Z][a-z]*)+(?= |$)", node.value)


FOUND_BY = (
    memory._parsed,
    parse._problems,
    services.find_problems,
    httproute.find_misfit,
    httproute.find_rejection,
    httproute.HttpRouteRouter.read_weight,
    prometheus,
)
FOUND_ELSEWHERE = {"CanaryInRoute", "Conflict", "EvidenceMissing", "NotPassedBefore", "PolicyRefused", "TargetMissing"}
"""by the loop and the guardrails"""


def test_whatever_must_be_mended_before_a_rollout_begins_is_not_accepted_and_nothing_else() -> None:
    found = {reason for code in FOUND_BY for reason in reasons_in(code)}

    assert found | FOUND_ELSEWHERE == TO_MEND
