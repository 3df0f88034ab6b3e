"""A Freeze goes when two owners have said so about this very object, and otherwise stays."""

from __future__ import annotations

from typing import Any, cast

import pytest

from controller.guardrails.policy import Policy
from controller.kube.objects import Meta
from controller.kube.transport import Api
from controller.loop.memory import DecisionObject, FreezeNamed, SaidSpec
from controller.loop.rules import SpecObject
from controller.loop.thaw import AGAIN, Thawing
from controller.model.policy import Person, ReleasePolicySpec
from controller.ports import RulesSeen
from tests.builders import MINUTE, NOON

STOP = SpecObject(metadata=Meta(name="stop", uid="uid-1"))


class Watched(list[Any]):
    """What an informer knows."""

    def by_key(self, name: str) -> Any:
        return next((one for one in self if one.metadata.name == name), None)


class Deleting:
    """Of the API server, the one request."""

    def __init__(self) -> None:
        self.deleted: list[tuple[str, str | None]] = []

    async def delete(self, resource: Any, namespace: None, name: str, *, uid: str | None = None) -> None:
        self.deleted.append((name, uid))


class Roles:
    """Who holds the verb; None for everybody while the API server does not say."""

    def __init__(self, owners: set[str] | None) -> None:
        self._owners = owners

    async def may_thaw(self, by: str, groups: tuple[str, ...], freeze: str) -> bool | None:
        return None if self._owners is None else by in self._owners


def says(by: str, uid: str = "uid-1", **changes: Any) -> DecisionObject:
    spec: dict[str, Any] = {"decision": "Thaw", "by": by, "freeze": FreezeNamed(name="stop", uid=uid), "reason": "over"}
    return DecisionObject(metadata=Meta(name=f"thaw-{by}"), spec=SaidSpec(**spec | changes))


class People:
    """What the policies say about who is who, or why nobody knows."""

    def __init__(self, *people: Person, known: RulesSeen | None = None) -> None:
        self._known = known or RulesSeen(policies=(Policy("people", ReleasePolicySpec(people=people)),))

    def read_rules(self) -> RulesSeen:
        return self._known

    def promoted(self, images: tuple[str, ...]) -> frozenset[tuple[str, str]]:
        return frozenset()


async def thawed(
    *said: DecisionObject, owners: set[str] | None, people: tuple[Person, ...] = (), known: RulesSeen | None = None
) -> tuple[list[tuple[str, str | None]], Any]:
    api = Deleting()
    watched: tuple[Any, Any] = (Watched([STOP]), Watched(said))
    thawing = Thawing(cast(Api, api), *watched, Roles(owners), People(*people, known=known))
    again = await thawing.thaw("stop", NOON)
    return api.deleted, again


async def test_one_owner_with_two_accounts_is_one_owner() -> None:
    ann = Person(user="ann", ids=("ann-admin", "ann@example.com"))
    both = {"ann", "ann-admin", "bob"}

    alone, _ = await thawed(says("ann"), says("ann-admin"), owners=both, people=(ann,))
    with_another, _ = await thawed(says("ann"), says("ann-admin"), says("bob"), owners=both, people=(ann,))

    assert (alone, with_another) == ([], [("stop", "uid-1")])


async def test_two_owners_take_a_freeze_off_and_it_is_the_one_they_spoke_about() -> None:
    deleted, _ = await thawed(says("ann"), says("bob"), owners={"ann", "bob"})

    assert deleted == [("stop", "uid-1")]


@pytest.mark.parametrize(
    "said",
    [
        [says("ann")],
        [says("ann"), says("ann")],
        [says("ann"), says("eve")],
        [says("ann"), says("bob", uid="uid-of-an-older-one")],
        [says("ann"), says("bob", expires_at=NOON - MINUTE)],
        [says("ann"), says("bob", decision="Resume")],
    ],
    ids=["one", "one twice", "no owner", "another freeze of that name", "expired", "another word"],
)
async def test_anything_less_leaves_it_in_force(said: list[DecisionObject]) -> None:
    assert (await thawed(*said, owners={"ann", "bob"}))[0] == []


async def test_while_nobody_can_tell_who_is_an_owner_it_stays_and_is_asked_again() -> None:
    deleted, again = await thawed(says("ann"), says("bob"), owners=None)

    assert (deleted, again) == ([], AGAIN)


@pytest.mark.parametrize("known", [RulesSeen(problem="silent"), RulesSeen(unreadable_policies=(("people", "x"),))])
async def test_while_nobody_can_tell_whose_accounts_they_are_it_stays_and_is_asked_again(known: RulesSeen) -> None:
    deleted, again = await thawed(says("ann"), says("bob"), owners={"ann", "bob"}, known=known)

    assert (deleted, again) == ([], AGAIN)
