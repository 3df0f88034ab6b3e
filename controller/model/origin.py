"""Who or what wrote a change, how far it was left alone, and how far that is to be believed.

The order of each list is its meaning: combining takes the worst, so evidence can only make a release stricter.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Origin(StrEnum):
    """Who wrote a change; `unknown` is treated as `ai`, and stands before it so that a mark is still the worst."""

    HUMAN = "human"
    AUTOMATION = "automation"
    MIXED = "mixed"
    UNKNOWN = "unknown"
    AI = "ai"

    @property
    def rank(self) -> int:
        """Higher is met with stricter guardrails."""
        return _ORIGINS[self]


class Degree(StrEnum):
    """How much of it the AI did alone; `unknown` where no mark says."""

    UNKNOWN = "unknown"
    ASSISTED = "assisted"
    GENERATED = "generated"
    AUTONOMOUS = "autonomous"

    @property
    def rank(self) -> int:
        """Higher is further from a person."""
        return _DEGREES[self]


class Trust(StrEnum):
    """What stands behind a claim of origin."""

    T0 = "T0"
    """nothing"""
    T1 = "T1"
    """an annotation, which anyone who deploys can write"""
    T2 = "T2"
    """trailers and notes that a build read, unsigned"""
    T3 = "T3"
    """a signed attestation bound to the image's digest"""

    @property
    def rank(self) -> int:
        """Higher is better evidence."""
        return _TRUSTS[self]


_ORIGINS = {member: rank for rank, member in enumerate(Origin)}
_DEGREES = {member: rank for rank, member in enumerate(Degree)}
_TRUSTS = {member: rank for rank, member in enumerate(Trust)}


def worst_origin(origins: Iterable[Origin]) -> Origin:
    """The origin of all of them together; of nothing at all, nobody knows.

    >>> worst_origin([Origin.HUMAN, Origin.MIXED]), worst_origin([])
    (<Origin.MIXED: 'mixed'>, <Origin.UNKNOWN: 'unknown'>)
    """
    return max(origins, key=lambda one: one.rank, default=Origin.UNKNOWN)


def furthest_degree(degrees: Iterable[Degree]) -> Degree:
    """The furthest of all of them."""
    return max(degrees, key=lambda one: one.rank, default=Degree.UNKNOWN)
