"""Which rollouts are looked at live though nothing seems to have changed."""

from __future__ import annotations

from datetime import timedelta

import pytest

from controller.loop.live import EVERY, LiveLooks
from controller.model.status import Phase
from tests.builders import NOON, status


@pytest.mark.parametrize("phase", [Phase.IDLE, Phase.ROLLED_BACK, Phase.PENDING])
def test_at_rest_watches_will_do(phase: Phase) -> None:
    assert not LiveLooks().is_due("shop/cart", status(phase), NOON)


def test_a_rollout_that_this_process_never_looked_at_live_is_due() -> None:
    assert LiveLooks().is_due("shop/cart", status(Phase.PROGRESSING), NOON)


def test_rollouts_that_began_together_are_due_at_different_times_and_none_later_than_promised() -> None:
    looks, keys = LiveLooks(), [f"shop/app-{number}" for number in range(100)]
    for key in keys:
        looks.looked(key, NOON)

    def due(after: timedelta) -> int:
        return sum(looks.is_due(key, status(Phase.PROGRESSING), NOON + after) for key in keys)

    assert due(EVERY / 2 - timedelta(seconds=1)) == 0
    assert 30 < due(EVERY * 3 / 4) < 70
    assert due(EVERY) == 100


def test_a_refused_write_is_doubted_until_the_next_live_look() -> None:
    looks = LiveLooks()

    looks.doubt("shop/cart")
    assert looks.doubts("shop/cart")

    looks.looked("shop/cart", NOON)
    assert not looks.doubts("shop/cart")
