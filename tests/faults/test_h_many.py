"""A again, with as many Canaries as a large cluster has.

The one thing to know: the controller looks at all namespaces here, so this runs in a cluster of its own.
"""

from __future__ import annotations

import time
from typing import Any

from tests.cluster.objects import namespace_object
from tests.faults.rig import LONG, Rig, in_groups

NAMESPACES, IN_EACH = 20, 50
PAGE = 500
"""objects that are asked for at a time"""


async def test_row_11_killed_among_a_thousand_canaries_it_is_back_soon_and_its_memory_is_bounded(it: Rig) -> None:
    """Killed as for its memory: it leads, takes an abort within half a minute, and lists in pages."""
    await it.start(everywhere=True)
    await it.shop(LONG)
    await it.until_held()
    await it.edit("v2")
    await it.until_weight(30)
    await in_groups([another(it, number) for number in range(NAMESPACES)])
    await it.until_answered(lambda: all_looked_at(it), 300, "each has been looked at")
    await it.replica.killed()

    began = time.monotonic()
    await it.free_lease()
    second = await it.start(everywhere=True)
    await it.decide("Abort")
    await it.until_weight(0)

    assert time.monotonic() - began < 30
    pages = sum("continue=" in path and "/canaries" in path for _, path, _ in second.proxy.requests)
    assert pages >= NAMESPACES * IN_EACH // PAGE
    await it.assert_back_on_stable("Aborted")
    assert second.peak_memory() < 250 * 2**20


async def another(it: Rig, number: int) -> None:
    """A namespace with Canaries whose workloads nobody has made yet."""
    namespace = f"{it.namespace}-{number}"
    await it.api.apply(f"/api/v1/namespaces/{namespace}", namespace_object(namespace))
    model = it.latest("Canary")
    for each in range(IN_EACH):
        spec = model["spec"] | {"targetRef": {"kind": "Deployment", "name": f"nothing-{each}"}}
        body = {"apiVersion": model["apiVersion"], "kind": "Canary", "metadata": {"name": f"one-{each}"}, "spec": spec}
        await it.api.call("POST", f"/apis/serin.dev/v1alpha1/namespaces/{namespace}/canaries", body)


async def all_looked_at(it: Rig) -> Any:
    found = (await it.api.call("GET", "/apis/serin.dev/v1alpha1/canaries"))["items"]
    return len(found) > NAMESPACES * IN_EACH and all((one.get("status") or {}).get("reason") for one in found)
