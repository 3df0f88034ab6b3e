"""Evidence about images, asked every turn and answered from memory: the port `Provenance`.

Fetching goes on beside the loop, so that a slow registry never stands before a rollback. What was found for a digest
stays true, so it is kept and still answers while the registry is down; what was not found is asked for again soon.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from controller.attestations.images import parse_image
from controller.attestations.registry import Registry
from controller.attestations.statements import OpenBundle, Verified, verify
from controller.attestations.summary import Found, summarise
from controller.errors import SerinError
from controller.model.evidence import Evidence, ImageSeen
from controller.model.policy import Signer
from controller.ports import Ref

PATIENCE = 0.5
"""seconds that one turn waits for an answer on its way"""
KEPT_FOUND = timedelta(seconds=30)
"""a scan may attach its own minutes after the build; only images of candidates that are held are looked at"""
KEPT_EMPTY = timedelta(seconds=15)
"""a build may attach its statement after the image was applied"""
KEPT_FAILURE = timedelta(seconds=5)
KEPT_ANSWER = timedelta(seconds=10)
"""the verified answer, so that an unchanged candidate costs no signatures; statements age meanwhile"""
MOST_IMAGES = 2000
MOST_BYTES = 64 << 20

Configured = Callable[[str], Awaitable[tuple[bytes, ...]]]
"""statements that were put into the cluster for a digest"""


@dataclass(frozen=True)
class _Looked:
    """What lies in the registry and the cluster for one image."""

    at: datetime
    digest: str = ""
    blobs: tuple[bytes, ...] = ()
    platforms: tuple[str, ...] = ()
    problem: str = ""
    """what keeps it from being looked at, until somebody mends it"""
    failure: str = ""
    """why it could not be asked now"""

    def is_fresh(self, now: datetime) -> bool:
        kept = KEPT_FAILURE if self.failure else KEPT_FOUND if self.blobs else KEPT_EMPTY
        return now - self.at < kept


class ImageEvidence:
    """Evidence from registries and labelled ConfigMaps."""

    def __init__(
        self,
        registry: Registry,
        configured: Configured,
        now: Callable[[], datetime],
        *,
        unasked: frozenset[str] = frozenset(),
        open_bundle: OpenBundle | None = None,
    ) -> None:
        """`unasked` are registries whose images have their statements in the cluster only."""
        self._registry, self._configured, self._now = registry, configured, now
        self._unasked, self._open_bundle = unasked, open_bundle
        self._looked: OrderedDict[str, _Looked] = OrderedDict()
        self._looking: dict[str, asyncio.Task[_Looked]] = {}
        self._answers: OrderedDict[tuple[str, ...], tuple[datetime, Evidence]] = OrderedDict()

    async def read_evidence(self, ref: Ref, images: tuple[str, ...], signers: tuple[Signer, ...]) -> Evidence:
        """The worst over these images. Nobody is asked where no policy names a signer: nothing could be believed."""
        if not images or not signers:
            return Evidence()
        now = self._now()
        key = (*sorted(set(images)), "", *(one.model_dump_json() for one in signers))
        answered = self._answers.get(key)
        if answered is not None and now - answered[0] < KEPT_ANSWER:
            return answered[1]
        looked = await asyncio.gather(*(self._look(image, now) for image in dict.fromkeys(images)))
        failures = [one.failure for one in looked if one.failure]
        if failures:
            return Evidence(unavailable=failures[0][:1024])
        found = [
            self._judge(image, one, signers, now) for image, one in zip(dict.fromkeys(images), looked, strict=True)
        ]
        evidence = summarise(found, now)
        self._answers[key] = (now, evidence)
        while len(self._answers) > MOST_IMAGES:
            self._answers.popitem(last=False)
        return evidence

    async def close(self) -> None:
        """Stop fetching."""
        for task in self._looking.values():
            task.cancel()
        await asyncio.gather(*self._looking.values(), return_exceptions=True)
        await self._registry.close()

    async def _look(self, image: str, now: datetime) -> _Looked:
        """What is known now; the rest comes with a later turn."""
        known = self._looked.get(image)
        if known is not None and known.is_fresh(now):
            return known
        task = self._looking.get(image)
        if task is None:
            task = self._looking[image] = asyncio.create_task(self._fetch(image))
        await asyncio.wait({task}, timeout=PATIENCE)
        if not task.done():
            # Why it could not be asked the last time says more than that it is asked again.
            stands = known is not None and (known.blobs or known.failure)
            return known if known is not None and stands else _Looked(now, failure=f"{image[:200]}: being looked up")
        self._looking.pop(image, None)
        fresh = task.result()
        if fresh.failure and known is not None and known.blobs and "@" in image:
            # A digest stands for the same bytes for ever, and so do signatures over it.
            return known
        self._remember(image, fresh)
        return fresh

    async def _fetch(self, name: str) -> _Looked:
        try:
            image = parse_image(name)
        except ValueError as error:
            return _Looked(self._now(), problem=str(error))
        try:
            asked = image.registry not in self._unasked
            digest = image.digest or (await self._registry.resolve(image) if asked else "")
            if not digest:
                return _Looked(self._now(), problem="no digest, and its registry is not asked: name it by its digest")
            attached = await self._registry.statements(image, digest) if asked else ()
            blobs = dict.fromkeys((*attached, *await self._configured(digest)))
            platforms = await self._registry.platforms(image, digest) if asked else ()
            return _Looked(self._now(), digest, tuple(blobs), platforms)
        except LookupError as error:
            return _Looked(self._now(), problem=str(error))
        except ValueError as error:
            return _Looked(self._now(), image.digest, problem=str(error))
        except SerinError as error:
            return _Looked(self._now(), image.digest, failure=str(error))

    def _judge(self, name: str, looked: _Looked, signers: tuple[Signer, ...], now: datetime) -> Found:
        """Verify what was found, believing these signers only."""
        answers = [verify(blob, looked.digest, signers, now, self._open_bundle) for blob in looked.blobs]
        return Found(
            ImageSeen(name[:512], looked.digest, looked.platforms),
            verified=tuple(one for one in answers if isinstance(one, Verified)),
            refused=tuple(one for one in answers if not isinstance(one, Verified)),
            movable="@" not in name,
            problem=looked.problem,
        )

    def _remember(self, image: str, looked: _Looked) -> None:
        self._looked[image] = looked
        self._looked.move_to_end(image)
        held = sum(len(blob) for one in self._looked.values() for blob in one.blobs)
        while len(self._looked) > 1 and (len(self._looked) > MOST_IMAGES or held > MOST_BYTES):
            _, dropped = self._looked.popitem(last=False)
            held -= sum(len(blob) for blob in dropped.blobs)
