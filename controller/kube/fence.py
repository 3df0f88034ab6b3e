"""Whether a stamp above our own means that a newer leader writes.

An object of a tenant's carries the stamp of whoever of us wrote it last, and a higher one says that we were replaced.
But its owner may write there what he likes, and one annotation must neither end the process for a whole cluster nor
stand before a way back. So the stamp is never believed alone: the Lease is asked, live. Where that says that we lead,
nobody who leads has written the stamp, and the write goes on over it.

Why that is safe although we may be stopped right after the answer: the write still tests the stamp that was read. A
leader that takes over meanwhile puts its own there before it changes anything else on the object, and then our late
write fails like any other. Nor is a raise ever written over a strange stamp: what is on the route already is stamped
anew first, and the raise that follows tests a stamp of ours.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from controller.errors import Fenced, SerinError
from controller.model.epoch import term_of
from controller.ports import Ref

log = structlog.get_logger(__name__)


async def _never() -> bool:
    return False


class Fence:
    """`leads` asks the Lease whether our term is in force; without one every higher stamp is a newer leader's.

    `tell` hears of each stamp that was not ours, in words for whoever looks after the Canary.
    """

    def __init__(
        self,
        leads: Callable[[], Awaitable[bool]] = _never,
        tell: Callable[[Ref, str], None] = lambda ref, message: None,
    ) -> None:
        self._leads, self._tell = leads, tell

    async def check(self, ref: Ref, name: str, found: str, epoch: str, *, way_back: bool = False) -> None:
        """Return where a write under `epoch` may go over the stamp that was `found` on the object of this `name`.

        On a way back it may also while the Lease cannot be read: no write leaves without a renewal in the last
        seconds (`Api.limit_writes`), in which nobody else can have taken the Lease, and less traffic on the canary is
        what every leader could bear.

        Raises: Fenced: a newer leader stamped it. SerinError: the Lease cannot be read.
        """
        if term_of(found) <= term_of(epoch):
            # One of our own term and a higher count is no later decision of ours: a Canary is in one hand at a time.
            return
        try:
            leads = await self._leads()
        except SerinError as error:
            if not way_back:
                raise
            log.warning("lease_not_read", rollout=ref.key, object=name, error=str(error))
        else:
            if not leads:
                raise Fenced(f"{name} carries epoch {found}, ours is {epoch}: a newer leader writes here")
        said = (
            f"annotation serin.dev/epoch of {name} says {found}, which no leader of Serin wrote (ours is {epoch}, and "
            "the Lease is ours): overwritten; leave this annotation out of manifests, exports and backups"
        )
        log.warning("stamp_not_ours", rollout=ref.key, object=name, found=found, ours=epoch)
        self._tell(ref, said)
