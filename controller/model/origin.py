"""The words for who or what wrote a change, how far it was left alone, and how well that is proven.

The order of each list is its meaning: combining takes the worst, so evidence can only make a release stricter.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Origin(StrEnum):
    """Who or what wrote the change, from the most to the least accountable; the worst of all commits counts."""

    HUMAN = "human"
    AUTOMATION = "automation"
    MIXED = "mixed"
    UNKNOWN = "unknown"
    AI = "ai"

    @property
    def rank(self) -> int:
        """Higher is worse."""
        return _ORIGINS[self]


class Degree(StrEnum):
    """How much of it a tool did by itself. Empty where nobody said: guardrails then take the worst for true."""

    ASSISTED = "assisted"
    GENERATED = "generated"
    AUTONOMOUS = "autonomous"
    UNSAID = ""

    @property
    def rank(self) -> int:
        """Higher was said to be further from a person; 0 where nobody said."""
        return _DEGREES[self]


class Trust(StrEnum):
    """How well the origin is proven."""

    T0 = "T0"
    """nothing"""
    T1 = "T1"
    """an annotation: any deployer can forge it"""
    T2 = "T2"
    """trailers and notes as CI read them, unsigned"""
    T3 = "T3"
    """a signed statement bound to the digest that runs"""


_ORIGINS = {member: rank for rank, member in enumerate(Origin)}
_DEGREES = {Degree.UNSAID: 0, Degree.ASSISTED: 1, Degree.GENERATED: 2, Degree.AUTONOMOUS: 3}


def worst_origin(origins: Iterable[Origin]) -> Origin:
    """The origin of all of them together; of nothing at all, nobody knows.

    >>> worst_origin([Origin.HUMAN, Origin.MIXED]), worst_origin([])
    (<Origin.MIXED: 'mixed'>, <Origin.UNKNOWN: 'unknown'>)
    """
    return max(origins, key=lambda one: one.rank, default=Origin.UNKNOWN)


def furthest_degree(degrees: Iterable[Degree]) -> Degree:
    """The furthest of those that were said."""
    return max(degrees, key=lambda one: one.rank, default=Degree.UNSAID)
