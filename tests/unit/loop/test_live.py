"""Which rollouts are looked at live though nothing seems to have changed."""

from __future__ import annotations

from datetime import timedelta

import pytest

from controller.loop.live import APART, EVERY, LONGEST, LiveLooks
from controller.model.status import Phase
from tests.builders import NOON, status


@pytest.mark.parametrize("phase", [Phase.IDLE, Phase.ROLLED_BACK, Phase.PENDING])
def test_at_rest_watches_will_do(phase: Phase) -> None:
    assert not LiveLooks().is_due("shop/cart", status(phase), NOON)


def test_a_rollout_that_this_process_never_looked_at_live_is_due() -> None:
    assert LiveLooks().is_due("shop/cart", status(Phase.PROGRESSING), NOON)


def test_rollouts_that_began_together_are_due_at_different_times_and_none_later_than_promised() -> None:
    looks, keys = LiveLooks(), [f"shop/app-{number}" for number in range(40)]
    for key in keys:
        looks.looked(key, NOON)

    def due(after: timedelta) -> int:
        return sum(looks.is_due(key, status(Phase.PROGRESSING), NOON + after) for key in keys)

    assert due(EVERY / 2 - timedelta(seconds=1)) == 0
    assert 10 < due(EVERY * 3 / 4) < 30
    assert due(EVERY) == 40


def test_where_many_roll_out_one_is_looked_at_live_each_second_and_each_within_minutes_however_many() -> None:
    looks, keys = LiveLooks(), [f"shop/app-{number}" for number in range(1000)]
    for key in keys:
        looks.looked(key, NOON)
        looks.is_due(key, status(Phase.PROGRESSING), NOON)

    assert not any(looks.is_due(key, status(Phase.PROGRESSING), NOON + LONGEST / 2) for key in keys)
    assert all(looks.is_due(key, status(Phase.PROGRESSING), NOON + LONGEST) for key in keys)

    for key in keys[100:]:
        looks.is_due(key, status(Phase.IDLE), NOON)
    assert all(looks.is_due(key, status(Phase.PROGRESSING), NOON + 100 * APART) for key in keys[:100])


def test_live_looks_are_rare_where_each_rollout_waits_for_them_longer_than_an_event_should_stay_lost() -> None:
    looks, keys = LiveLooks(), [f"shop/app-{number}" for number in range(EVERY // APART + 1)]
    assert not looks.are_had

    for key in keys[1:]:
        looks.is_due(key, status(Phase.PROGRESSING), NOON)
    assert looks.are_had
    assert not looks.are_rare

    looks.is_due(keys[0], status(Phase.PROGRESSING), NOON)
    assert looks.are_rare

    looks.is_due(keys[0], status(Phase.IDLE), NOON)
    assert not looks.are_rare


def test_what_is_only_due_waits_while_traffic_is_taken_away_somewhere_but_not_for_ever() -> None:
    busy = True
    looks = LiveLooks(lambda: busy)
    looks.looked("shop/cart", NOON)

    assert not looks.is_due("shop/cart", status(Phase.PROGRESSING), NOON + EVERY)
    assert looks.is_due("shop/cart", status(Phase.PROGRESSING), NOON + 2 * EVERY)

    busy = False
    assert looks.is_due("shop/cart", status(Phase.PROGRESSING), NOON + EVERY)


def test_a_refused_write_is_doubted_until_the_next_live_look() -> None:
    looks = LiveLooks()

    looks.doubt("shop/cart")
    assert looks.doubts("shop/cart")

    looks.looked("shop/cart", NOON)
    assert not looks.doubts("shop/cart")
