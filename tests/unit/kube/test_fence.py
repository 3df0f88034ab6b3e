"""A stamp above ours: a newer leader's, or somebody else's."""

from __future__ import annotations

import pytest

from controller.errors import ApiUnavailable, Fenced
from controller.kube.fence import Fence
from controller.ports import Ref

REF = Ref("shop", "checkout", "u1")


class Asked:
    """The Lease, as it would answer, and what was asked and told."""

    def __init__(self, answer: bool | Exception) -> None:
        self.answer, self.times, self.told = answer, 0, list[str]()
        self.fence = Fence(self.leads, lambda ref, message: self.told.append(message))

    async def leads(self) -> bool:
        self.times += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    "found",
    ["", "3.1", "3.999", "2.7", "²", "٤.1", "9" * 5_000, "9" * 5_000 + ".0", "-4.0", "nan", "4", "4.x", "4.0.0"],
)
async def test_a_stamp_that_is_not_above_ours_or_none_at_all_costs_no_question(found: str) -> None:
    asked = Asked(False)

    await asked.fence.check(REF, "Deployment checkout", found, "3.1")

    assert (asked.times, asked.told) == (0, [])


@pytest.mark.parametrize("way_back", [False, True])
@pytest.mark.parametrize(("found", "epoch"), [("4.0", "3.9"), ("10.0", "9.0"), ("2147483647.0", "3.1")])
async def test_a_higher_stamp_ends_us_where_the_lease_is_not_ours(found: str, epoch: str, way_back: bool) -> None:
    asked = Asked(False)

    with pytest.raises(Fenced):
        await asked.fence.check(REF, "Deployment checkout", found, epoch, way_back=way_back)

    assert asked.told == []


async def test_a_higher_stamp_is_told_and_passed_where_the_lease_is_ours() -> None:
    asked = Asked(True)

    await asked.fence.check(REF, "Deployment checkout", "999999999.0", "3.1")

    assert asked.told == [
        "annotation serin.dev/epoch of Deployment checkout says 999999999.0, which no leader of Serin wrote (ours is "
        "3.1, and the Lease is ours): overwritten; leave this annotation out of manifests, exports and backups"
    ]


async def test_while_the_lease_cannot_be_read_only_a_way_back_goes_over_a_higher_stamp() -> None:
    asked = Asked(ApiUnavailable("no answer"))

    with pytest.raises(ApiUnavailable):
        await asked.fence.check(REF, "HTTPRoute checkout", "999999999.0", "3.1")
    await asked.fence.check(REF, "HTTPRoute checkout", "999999999.0", "3.1", way_back=True)

    assert len(asked.told) == 1
