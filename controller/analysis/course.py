"""The course of a difference over a rollout, few enough points to be kept in a status.

The one thing to know: points are thinned as the rollout grows, evenly in time, and the newest one always stays.
"""

from __future__ import annotations

from typing import NamedTuple

MOST = 32
"""points of one metric"""
DIGITS = 4
"""significant digits kept: a drawing shows no more"""


class Point(NamedTuple):
    """What was known of one metric at one scrape. `at` is in unix seconds, `weight` in percent; the rest are
    differences of bad ratios, canary minus stable, as fractions."""

    at: float
    weight: float
    effect: float
    low: float
    high: float


def add_point(course: tuple[Point, ...], point: Point) -> tuple[Point, ...]:
    """The course with one more point; at most `MOST`.

    >>> course = ()
    >>> for second in range(1000):
    ...     course = add_point(course, Point(float(second), 5.0, 0.01, -0.02, 0.03))
    >>> len(course) <= MOST, course[0].at, course[-1].at
    (True, 0.0, 999.0)
    """
    if course and point.at <= course[-1].at:
        return course
    point = Point(point.at, *(_rounded(value) for value in point[1:]))
    if len(course) >= 2 and point.at - course[-2].at < (point.at - course[0].at) / MOST * 2:
        return (*course[:-1], point)
    course = (*course, point)
    return course if len(course) <= MOST else (*course[:-1:2], course[-1])


def _rounded(value: float) -> float:
    """
    >>> _rounded(0.0123456), _rounded(-0.5)
    (0.01235, -0.5)
    """
    return float(f"{value:.{DIGITS}g}")
