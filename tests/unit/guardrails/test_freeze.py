"""When nothing may be released: zones, clock changes, selectors, and freezes that cannot be read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller.guardrails.freeze import Freeze, Subject, active_window, freezes_in_force, frozen_by, next_window
from controller.model.evidence import Evidence, Origin, Tool, Trust
from controller.model.guarded import Frozen
from controller.model.policy import ChangeClass, FreezeSpec, OnStart

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SHOP = Subject("shop", {"tier": "1"}, Origin.AI, frozenset({ChangeClass.CONFIG}))


def freeze(name: str = "stop", **spec: Any) -> Freeze:
    """A kill switch for everything, unless told otherwise."""
    return Freeze(name, f"uid-{name}", FreezeSpec.model_validate({"reason": "incident 7"} | spec))


def weekly(zone: str = "Europe/Berlin", **spec: Any) -> Freeze:
    """From Friday 18:00 for 62 hours."""
    return freeze("weekend", schedule="0 18 * * FRI", duration="62h", timeZone=zone, **spec)


def strictest_of(freezes: Iterable[Freeze], subject: Subject, now: datetime) -> Frozen | None:
    """The one that counts; None when the subject is free."""
    return next(iter(freezes_in_force(freezes, subject, now)), None)


def spec_of(one: Freeze) -> FreezeSpec:
    assert one.spec is not None
    return one.spec


def test_a_freeze_without_a_schedule_holds_until_it_is_thawed() -> None:
    found = frozen_by(freeze(by="ann"), SHOP, NOON)

    assert found is not None
    assert (found.on_start, found.until) == (OnStart.HOLD, None)
    assert found.message == "Freeze stop (ann): incident 7 until it is thawed"


@pytest.mark.parametrize("on_start", list(OnStart))
def test_a_freeze_says_when_it_began_and_when_it_ends(on_start: OnStart) -> None:
    start, end = NOON - timedelta(hours=2), NOON + timedelta(hours=5)
    window = freeze(start=start, end=end, onStart=on_start)
    nightly = freeze(schedule="0 11 * * *", duration="2h", timeZone="UTC", onStart=on_start)
    switch = replace(freeze(onStart=on_start), created=NOON - timedelta(minutes=3))

    seen = [frozen_by(one, SHOP, NOON) for one in (window, nightly, switch)]

    assert [(one.on_start, one.since, one.until) for one in seen if one] == [
        (on_start, start, end),
        (on_start, NOON - timedelta(hours=1), NOON + timedelta(hours=1)),
        (on_start, NOON - timedelta(minutes=3, seconds=-1 if on_start is OnStart.ROLL_BACK else 0), None),
    ]


@pytest.mark.parametrize(("on_start", "strictest"), [(OnStart.FINISH, "early"), (OnStart.ROLL_BACK, "late")])
def test_of_two_of_a_kind_the_one_that_spares_fewer_attempts_counts(on_start: OnStart, strictest: str) -> None:
    ends = NOON + timedelta(hours=5)
    early = freeze("early", start=NOON - timedelta(hours=3), end=ends, onStart=on_start)
    late = freeze("late", start=NOON - timedelta(hours=1), end=ends, onStart=on_start)

    for order in ([early, late], [late, early]):
        found = strictest_of(order, SHOP, NOON)
        assert found is not None
        assert found.name == strictest


def test_a_window_begins_with_its_first_instant_and_ends_before_its_last() -> None:
    spec = spec_of(weekly())
    begin = datetime(2026, 3, 6, 17, 0, tzinfo=UTC)
    end = begin + timedelta(hours=62)
    second = timedelta(seconds=1)

    assert active_window(spec, begin - second) is None
    assert active_window(spec, begin) is not None
    assert active_window(spec, end - second) is not None
    assert active_window(spec, end) is None


@pytest.mark.parametrize(
    ("schedule", "day", "begins"),
    [
        # In the autumn night 02:30 comes twice in Berlin; the window begins once, with the first.
        ("30 2 * * *", datetime(2026, 10, 25, 6, tzinfo=UTC), datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
        # In the spring night there is no 02:30; the window begins with the hour that follows.
        ("30 2 * * *", datetime(2026, 3, 29, 6, tzinfo=UTC), datetime(2026, 3, 29, 1, 0, tzinfo=UTC)),
    ],
)
def test_row_72_the_nights_the_clocks_change_have_one_window_of_full_length(
    schedule: str, day: datetime, begins: datetime
) -> None:
    spec = spec_of(freeze(schedule=schedule, duration="10h", timeZone="Europe/Berlin"))

    window = active_window(spec, day)

    assert window is not None
    assert (window.since, window.until) == (begins, begins + timedelta(hours=10))


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Asia/Kolkata"])
def test_row_72_over_a_year_every_minute_of_every_window_is_frozen_and_no_other(zone: str) -> None:
    spec = spec_of(freeze(schedule="0 22 * * *", duration="7h", timeZone=zone))
    at, frozen, starts = datetime(2026, 1, 2, tzinfo=UTC), 0, set()

    for _ in range(365 * 24):
        at += timedelta(minutes=60)
        window = active_window(spec, at)
        if window is not None:
            assert window.since is not None
            frozen += 1
            starts.add(window.since)

    assert len(starts) in {365, 366}
    assert frozen == pytest.approx(365 * 7, abs=8)


def test_the_next_window_is_known_beforehand() -> None:
    found = next_window(spec_of(weekly()), NOON)

    assert found is not None
    assert found.since == datetime(2026, 3, 6, 17, 0, tzinfo=UTC)


def test_a_fixed_time_is_frozen_from_start_to_end() -> None:
    spec = spec_of(freeze(start="2026-03-01T12:00:00+01:00", end="2026-03-01T14:00:00+01:00"))

    assert active_window(spec, NOON - timedelta(hours=2)) is None
    assert next_window(spec, NOON - timedelta(hours=2)) is not None
    assert active_window(spec, NOON) is not None
    assert active_window(spec, NOON + timedelta(hours=1)) is None
    assert next_window(spec, NOON + timedelta(hours=1)) is None


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"schedule": "0 18 * * FRI", "duration": "1h", "timeZone": "Europe/Berlim"}, "timeZone"),
        ({"schedule": "0 18 * * FRI", "duration": "1h", "timeZone": "../etc/passwd"}, "timeZone"),
        ({"schedule": "0 25 * * FRI", "duration": "1h", "timeZone": "UTC"}, "schedule"),
        ({"schedule": "0 0 18 * * FRI", "duration": "1h", "timeZone": "UTC"}, "five"),
        ({"schedule": "0 0 30 2 *", "duration": "1h", "timeZone": "UTC"}, "schedule"),
    ],
)
def test_row_73_a_freeze_that_cannot_be_read_holds_and_names_the_field(spec: dict[str, Any], named: str) -> None:
    found = frozen_by(freeze(**spec), SHOP, NOON)

    assert found is not None
    assert found.on_start is OnStart.HOLD
    assert "cannot be read, so it holds" in found.message
    assert named in found.message


def test_an_object_that_is_no_freeze_at_all_holds_everything() -> None:
    found = frozen_by(Freeze("odd", "uid", None, "spec.reason: missing"), SHOP, NOON)

    assert found is not None
    assert "spec.reason: missing" in found.message


@pytest.mark.parametrize(
    ("spec", "meant"),
    [
        ({"selector": {"namespaces": ["shop"]}}, True),
        ({"selector": {"namespaces": ["sh*"]}}, True),
        ({"selector": {"namespaces": ["billing", "search"]}}, False),
        ({"selector": {"labels": {"tier": "1"}}}, True),
        ({"selector": {"labels": {"tier": "2"}}}, False),
        ({"exceptions": [{"namespaces": ["shop"]}]}, False),
        ({"exceptions": [{"namespaces": ["search"]}]}, True),
        ({"classes": ["config", "auth"]}, True),
        ({"classes": ["schema"]}, False),
        ({"origin": "ai"}, True),
        ({"origin": "mixed"}, True),
    ],
)
def test_a_freeze_holds_what_it_selects(spec: dict[str, Any], meant: bool) -> None:
    assert (frozen_by(freeze(**spec), SHOP, NOON) is not None) is meant


@pytest.mark.parametrize(
    ("origin", "meant"),
    [
        (Origin.HUMAN, False),
        (Origin.AUTOMATION, False),
        (Origin.MIXED, False),
        (Origin.UNKNOWN, True),
        (Origin.AI, True),
    ],
)
def test_a_kill_switch_for_ai_also_holds_what_nobody_vouches_for(origin: Origin, meant: bool) -> None:
    assert (frozen_by(freeze(origin="ai"), Subject("shop", {}, origin), NOON) is not None) is meant


@pytest.mark.parametrize(
    ("evidence", "meant"),
    [
        (Evidence(trust=Trust.T3, tools=(Tool("Aider"),)), True),
        (Evidence(trust=Trust.T3, tools=(Tool("cursor"),)), False),
        (Evidence(trust=Trust.T2, tools=(Tool("cursor"),)), True),
        (Evidence(), True),
    ],
)
def test_a_freeze_for_a_tool_leaves_out_only_what_is_proven_to_come_from_others(
    evidence: Evidence, meant: bool
) -> None:
    subject = Subject("shop", {}, Origin.AI, evidence=evidence)

    assert (frozen_by(freeze(tools=["aider"]), subject, NOON) is not None) is meant


def test_of_several_freezes_the_one_that_asks_for_most_counts() -> None:
    several = [freeze("a", onStart="Finish"), freeze("b"), freeze("c", onStart="RollBack"), freeze("d")]

    found = strictest_of(several, SHOP, NOON)

    assert found is not None
    assert found.name == "c"
    assert strictest_of([], SHOP, NOON) is None
