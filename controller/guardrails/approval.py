"""Who may not open a gate: whoever had a part in the change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from controller.guardrails.origin import plain_name
from controller.model.evidence import Author, Evidence


def barred_author(by: str, authors: Iterable[str], evidence: Evidence) -> str:
    """Why this person may not approve; empty when they may.

    >>> from controller.model.evidence import Author
    >>> barred_author("Ann", ("ann", "ann@example.com"), Evidence(authors=(Author("ann@example.com", "prompter"),)))
    'Ann is an author of this change (prompter): somebody else has to approve it'
    """
    name = plain_name(by)
    if name not in authors:
        return ""
    roles = [one.role for one in evidence.authors if plain_name(one.id) == name] or _roles(evidence.authors)
    told = f" ({', '.join(dict.fromkeys(roles))})" if roles else ""
    return f"{by} is an author of this change{told}: somebody else has to approve it"


def _roles(authors: Sequence[Author]) -> list[str]:
    return [authors[0].role] if len(authors) == 1 else []
