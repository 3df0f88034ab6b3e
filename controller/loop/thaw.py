"""Takes a Freeze off once two owners have said so: the only way there is, since admission lets nobody else do it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol

import structlog

from controller.errors import Conflict, NotFound
from controller.guardrails.approval import one_person
from controller.kube.informer import Informer
from controller.kube.transport import Api
from controller.loop.memory import DecisionObject
from controller.loop.rules import FREEZES, SpecObject
from controller.model.redact import redact
from controller.model.spec import Verb
from controller.ports import Rules

log = structlog.get_logger()

OWNERS = 2
"""different people who must say so"""
AGAIN = timedelta(seconds=5)
"""until it is looked at again where nobody could tell who they are, or whether they hold the right"""


class Owners(Protocol):
    """Who may take a Freeze off."""

    async def may_thaw(self, by: str, groups: tuple[str, ...], freeze: str) -> bool | None:
        """Whether this person may, together with another; None when nobody could tell."""


class Thawing:
    """Looks at one Freeze at a time."""

    def __init__(
        self,
        api: Api,
        freezes: Informer[SpecObject],
        decisions: Informer[DecisionObject],
        rights: Owners,
        rules: Rules,
    ) -> None:
        self._api = api
        self._rules = rules
        self._freezes = freezes
        self._decisions = decisions
        self._rights = rights

    async def thaw(self, name: str, now: datetime) -> timedelta | None:
        """Delete the Freeze if two owners who still hold the right have written a Thaw of this very object.

        Says when to look again: only where nobody could tell who they are, or whether they hold it.
        """
        found = self._freezes.by_key(name)
        if found is None:
            return None
        people: dict[str, str] = {}
        rules = self._rules.read_rules()
        if not rules.tell_people:
            log.warning("thaw_waits", freeze=name, reason=rules.problem or "a ReleasePolicy cannot be read")
            return AGAIN
        known = rules.people
        unsure = False
        for one in self._decisions:
            said = one.spec
            if said.decision != Verb.THAW or said.freeze is None or said.freeze.uid != found.metadata.uid:
                continue
            who = one_person(said.by, known)
            if who in people or (said.expires_at is not None and now >= said.expires_at):
                continue
            may = await self._rights.may_thaw(said.by, said.groups, name)
            unsure = unsure or may is None
            if may:
                people[who] = redact(said.reason)
        if len(people) < OWNERS:
            if people:
                log.info("thaw_awaited", freeze=name, by=",".join(sorted(people)), needed=OWNERS)
            return AGAIN if unsure else None
        try:
            await self._api.delete(FREEZES, None, name, uid=found.metadata.uid)
        except (NotFound, Conflict):
            # Gone already, or another one under the same name, about which nobody has said anything.
            return None
        log.warning("thawed", freeze=name, by=",".join(sorted(people)), reasons=" | ".join(people.values()))
        return None
