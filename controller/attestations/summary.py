"""What the statements of several images come to: the worst of each, and of required statements those of all images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from controller.attestations.statements import ChangeOrigin, Refused, Verified
from controller.model.evidence import PROBLEMS, Evidence, ImageSeen, Origin, Predicate, Trust
from controller.model.origin import furthest_degree, worst_origin

MOST_PREDICATES, MOST_AUTHORS, MOST_TOOLS = 40, 40, 20
_T = TypeVar("_T")


@dataclass(frozen=True)
class Found:
    """All that was found about one image."""

    image: ImageSeen
    verified: tuple[Verified, ...] = ()
    refused: tuple[Refused, ...] = ()
    movable: bool = False
    """the template names a tag, so that what runs may be another image than what was looked at"""
    problem: str = ""


def summarise(found: Iterable[Found], now: datetime) -> Evidence:
    """Evidence about a candidate with these images."""
    images = tuple(found)
    said = [(one, verified.origin) for one in images for verified in one.verified if verified.origin is not None]
    authors = _unique(author for _, origin in said for author in origin.authors)
    tools = _unique(tool for _, origin in said for tool in origin.used)
    problems = _problems(images)
    complete = len(authors) <= MOST_AUTHORS and len(tools) <= MOST_TOOLS
    if not complete:
        problems = (f"more than {MOST_AUTHORS} authors or {MOST_TOOLS} tools: who wrote it cannot be kept", *problems)
    proven = bool(images) and complete and all(_is_proven(one) for one in images)
    origins = [origin.origin for _, origin in said] + ([] if proven else [Origin.UNKNOWN])
    first = said[0][1] if said else None
    owners = [{origin.accountable.id for found, origin in said if found is one} - {""} for one in images]
    return Evidence(
        origin=worst_origin(origins),
        degree=furthest_degree(origin.said_degree for _, origin in said),
        trust=Trust.T3 if proven else Trust.T2 if said else Trust.T0,
        tools=tools[:MOST_TOOLS],
        authors=authors[:MOST_AUTHORS],
        accountable=min(owners[0]) if proven and all(owners) else "",
        reversible=_reversible([origin for _, origin in said]) if proven else None,
        human_modifications=first.human_modifications if first else "",
        repository=first.source.repository if first else "",
        revision=first.source.revision if first else "",
        base_revision=first.source.base_revision if first else "",
        change=first.source.change if first else "",
        classes=_vouched(images),
        images=tuple(one.image for one in images)[:40],
        predicates=_predicates(images),
        problems=problems[:PROBLEMS],
        seen_at=now,
    )


def _is_proven(one: Found) -> bool:
    return not one.movable and any(verified.origin is not None for verified in one.verified)


def _reversible(said: list[ChangeOrigin]) -> bool | None:
    """Only if each of them says so; one that says no decides."""
    answers = {origin.reversible for origin in said}
    return False if False in answers else None if None in answers else True


def _vouched(images: tuple[Found, ...]) -> tuple[str, ...]:
    """Classes that a statement of every image names: one image's does not speak for what comes with another."""
    named = [
        {name for one in image.verified if one.origin is not None for name in one.origin.change_classes}
        for image in images
    ]
    return tuple(sorted(set.intersection(*named)))[:20] if named else ()


def _predicates(images: tuple[Found, ...]) -> tuple[Predicate, ...]:
    """What failed for any image, and what was vouched for of every image: one's statement does not cover another."""
    types = [{one.type for one in image.verified} if not image.movable else set() for image in images]
    everywhere = set.intersection(*types) if types else set()
    kept = (
        Predicate(one.type, one.result, one.signer, one.digest)
        for image in images
        for one in image.verified
        if one.result == "failed" or one.type in everywhere
    )
    return tuple(sorted(_unique(kept), key=lambda one: one.result != "failed"))[:MOST_PREDICATES]


def _problems(images: tuple[Found, ...]) -> tuple[str, ...]:
    lines = []
    for one in images:
        name = one.image.image
        if one.problem:
            lines.append(f"{name}: {one.problem}")
        if one.movable and one.verified:
            lines.append(
                f"{name}: a tag can be moved after it was looked at, so what is proven of "
                f"{one.image.digest} counts as a hint only: name the image by its digest"
            )
        lines += [f"{name}: statement {refused.digest[:19]} is not believed: {refused.why}" for refused in one.refused]
        if not one.problem and not any(verified.origin for verified in one.verified):
            lines.append(f"{name}: no change-origin statement by a trusted signer: see `kubectl canary attest`")
    return tuple(line[:1024] for line in lines)


def _unique(items: Iterable[_T]) -> tuple[_T, ...]:
    return tuple(dict.fromkeys(items))
