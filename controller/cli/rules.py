"""Policies and freezes as the cluster stores them, read by whoever asks what they come to."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import ValidationError

from controller.cli.kubectl import Object
from controller.cli.text import plain
from controller.guardrails.freeze import Freeze
from controller.guardrails.policy import Policy
from controller.model.policy import parse_freeze_spec, parse_policy_spec
from controller.model.spec import field_problems


def parse_rules(
    policies: Iterable[Object], freezes: Iterable[Object]
) -> tuple[tuple[Policy, ...], tuple[Freeze, ...], tuple[str, ...]]:
    """Policies that can be read, all freezes (one that cannot be read is in force), and what is wrong with them."""
    read, problems, known = [], [], []
    for one in policies:
        meta = one["metadata"]
        try:
            read.append(Policy(meta["name"], parse_policy_spec(one["spec"]), int(meta.get("generation", 1))))
        except ValidationError as error:
            problems.append(f"ReleasePolicy {plain(meta['name'])} cannot be read, so nothing begins: {_told(error)}")
    for one in freezes:
        meta = one["metadata"]
        try:
            known.append(Freeze(meta["name"], meta["uid"], parse_freeze_spec(one["spec"])))
        except ValidationError as error:
            known.append(Freeze(meta["name"], meta["uid"], None, _told(error)))
    return tuple(read), tuple(known), tuple(problems)


def _told(error: ValidationError) -> str:
    """Each field at fault on the same line, as the controller tells it."""
    return "; ".join(field_problems(error))[:512]
