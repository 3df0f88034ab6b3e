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
    assert "step 1 (1 % for 10 min)" in quiet.warnings[0]
    assert "raise its weight" in quiet.warnings[0]
    assert any("certificate" in warning for warning in quiet.warnings)


@pytest.mark.parametrize(
    ("rate", "ratio", "says"),
    [
        pytest.param(
            10.0, 0.0, "about 60 canary requests, in which nothing below 6.7 % failing shows: to see 1 %, let it last",
            id="stable never fails",
        ),
        pytest.param(
            2.0, 0.001, "about 12 canary requests, in which nothing below 33 % failing shows (of stable's 0.1 % fail): "
            "to see 1 %, let it last 8 h or raise its weight", id="stable fails now and then",
        ),
        pytest.param(
            0.3, 0.02, "about 2 canary requests, in which not even all of them failing shows (of stable's 2 % fail): "
            "to see 20 %, let it last", id="hardly any traffic",
        ),
        pytest.param(0.0, 0.0, "about 0 canary requests, in which not even all", id="none"),
        pytest.param(0.1, 0.5, "(of stable's 50 % fail): to see 100 %, let it last", id="stable is broken"),
    ],
)  # fmt: skip
def test_what_a_step_cannot_see_is_told_in_failing_requests(rate: float, ratio: float, says: str) -> None:
    assert says in outlook(STEPS, rate=rate, ratio=ratio).warnings[0]


def test_where_stable_never_fails_a_step_that_sees_one_request_in_a_hundred_is_not_warned_of() -> None:
    """Ten times next to nothing is next to nothing: it would take longer than a week."""
    assert not any("let it last" in warning for warning in outlook(STEPS, rate=200.0, ratio=0.0).warnings)


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
