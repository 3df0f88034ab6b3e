"""A course is short, begins at the beginning, ends now, and leaves no long stretch out."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from controller.analysis.course import MOST, Point, add_point


@given(st.lists(st.floats(0.5, 60.0), min_size=1, max_size=400))
def test_points_are_few_and_spread_over_the_whole_time(gaps: list[float]) -> None:
    course: tuple[Point, ...] = ()
    now = 1.7e9
    for gap in gaps:
        now += gap
        course = add_point(course, Point(now, 5.0, 0.01, -0.01, 0.02))

    began = 1.7e9 + gaps[0]
    assert len(course) <= MOST
    assert (course[0].at, course[-1].at) == (began, now)
    widest = max((after.at - before.at for before, after in pairwise(course)), default=0.0)
    assert widest <= (now - began) / MOST * 4 + 2 * max(gaps)


def test_a_scrape_that_was_drawn_before_changes_nothing() -> None:
    course = add_point((), Point(10.0, 5.0, 0.01, -0.01, 0.02))

    assert add_point(course, Point(10.0, 5.0, 0.9, 0.8, 1.0)) == course
