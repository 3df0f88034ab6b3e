"""Who may not open a gate: whoever had a part in the change. And who is who: one with two accounts is one person.

Names that a reader takes for one are one here, on both sides: a look-alike of an author's name is barred with the
author, and two look-alikes count once. That can only ask for somebody else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from controller.guardrails.origin import plain_name
from controller.model.evidence import Author, Evidence
from controller.model.policy import Person
from controller.plain import alike, shown_name


def one_person(by: str, people: Iterable[Person]) -> str:
    """The same for all accounts of a person, as far as policies say whose they are.

    >>> ann = Person(user="ann", ids=("ann-admin", "ann@example.com"))
    >>> one_person("ann-admin", [ann]), one_person("Ann", [ann]), one_person("bo", [ann])
    ('ann', 'ann', 'bo')
    """
    name = _key(by)
    known = (_key(one.user) for one in people if name in {_key(one.user), *map(_key, one.ids)})
    return min(known, default=name)


def barred_author(by: str, authors: Iterable[str], evidence: Evidence) -> str:
    """Why this person may not approve; empty when they may.

    >>> from controller.model.evidence import Author
    >>> barred_author("Ann", ("ann", "ann@example.com"), Evidence(authors=(Author("ann@example.com", "prompter"),)))
    'Ann is an author of this change (prompter): somebody else has to approve it'
    """
    name = _key(by)
    if name not in map(_key, authors):
        return ""
    roles = [one.role for one in evidence.authors if _key(one.id) == name] or _roles(evidence.authors)
    told = f" ({', '.join(dict.fromkeys(roles))})" if roles else ""
    return f"{shown_name(by)} is an author of this change{told}: somebody else has to approve it"


def _key(name: str) -> str:
    return alike(plain_name(name))


def _roles(authors: Sequence[Author]) -> list[str]:
    return [authors[0].role] if len(authors) == 1 else []
