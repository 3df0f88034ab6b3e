"""What a plan can see, reckoned before it begins."""

from __future__ import annotations

import math

import pytest

from controller.analysis.planning import outlook, to_certify, to_convict

STEPS = [(1.0, 600.0), (50.0, 600.0)]


def test_a_canary_inside_its_margin_is_never_convicted() -> None:
    assert to_convict(0.001, 0.001, margin=0.0001, rho=1.25, alpha=0.01) == math.inf


def test_however_bad_it_is_a_few_bad_requests_are_needed() -> None:
    assert to_convict(1.0, 0.0, margin=0.0001, rho=1.25, alpha=0.0001) >= 4.0


def test_a_certificate_takes_fewer_requests_where_less_is_missing() -> None:
    few, many = (to_certify(0.001, margin=0.001, rho=1.5, missing=missing) for missing in (1.0, 3.0))

    assert few == pytest.approx(many / 2)


def test_a_step_that_sees_nothing_is_told_with_what_would_help() -> None:
    quiet = outlook(STEPS, rate=2.0, ratio=0.001)

    assert [step.blind for step in quiet.steps] == [True, False]
    assert "step 1 (1 % for 600 s)" in quiet.warnings[0]
    assert "raise its weight" in quiet.warnings[0]
    assert any("certificate" in warning for warning in quiet.warnings)


def test_a_busy_service_has_no_warnings_and_smaller_steps_see_less() -> None:
    busy = outlook(STEPS, rate=5000.0, ratio=0.001)

    assert busy.warnings == ()
    first, last = (step.sees for step in busy.steps)
    assert first is not None
    assert last is not None
    assert 0.001 < last < first < 0.005


def test_relief_is_never_faster_than_a_scrape_and_says_so() -> None:
    slow = outlook(STEPS, rate=5000.0, ratio=0.001, scrape=60.0)

    assert slow.relief == 60.0
    assert "every 60 s" in slow.warnings[-1]
