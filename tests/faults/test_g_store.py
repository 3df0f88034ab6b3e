"""B and E again, with the store itself: etcd out of space, and put back to a backup.

The one thing to know: these stop and start etcd and the API server, so they run in a cluster of their own.
"""

from __future__ import annotations

import pytest

from tests.cluster.api import ApiError
from tests.faults.plane import Store
from tests.faults.rig import LONG, NAME, Rig

RISING = ({"weight": 30, "bake": "15s"}, {"weight": 60, "bake": "1h"})


async def test_row_26_a_full_store_costs_the_lead_and_no_weight_and_its_relief_is_enough(it: Rig) -> None:
    """A small quota and ballast until etcd raises its alarm: reads work, no write does, not even the lease's."""
    store = Store(it.api)
    await store.limit()
    await it.ready(LONG)
    await it.edit("v2")
    await it.until_weight(30)

    said = await store.fill(it.namespace)

    assert "database space exceeded" in said
    assert await it.replica.exit_code() == 70
    with pytest.raises(ApiError, match="database space exceeded"):
        await it.decide("Abort")
    assert it.weight == 30
    second = await it.start()
    await it.until(lambda: second.proxy.requests, what="the next process asks for the lease")
    assert second.writes == []

    await store.relieve(it.namespace)

    await it.decide("Abort")
    await it.assert_back_on_stable("Aborted")


async def test_row_68_a_store_put_back_to_a_step_is_judged_anew_and_nothing_rises_on_time_that_was_lost(
    it: Rig,
) -> None:
    """The whole of etcd is as it was in a step at 30 %. Since then the revision had turned bad and was rolled back."""
    store = Store(it.api)
    await it.ready(RISING)
    await it.edit("v2")
    await it.until_weight(30)
    attempt = it.attempt["id"]
    await it.replica.killed()
    copy = await store.back_up()
    await it.restart()
    it.spoil()
    await it.assert_back_on_stable()
    reached = it.latest("Canary")["metadata"]["resourceVersion"]

    await it.forget()
    await store.stop()
    assert await it.replica.exit_code() == 70
    await store.put_back(copy)
    await it.follow()

    assert int(it.latest("Canary")["metadata"]["resourceVersion"]) < int(reached)
    assert (it.attempt["id"], it.status["phase"], it.weight) == (attempt, "Progressing", 30)
    await it.restart()
    await it.assert_back_on_stable()
    assert max(one.object["status"]["weight"] for one in it.events if one.kind == "Canary" and one.name == NAME) == 30
