"""Who wrote it, as it is treated: strong evidence is believed, weak evidence may only tighten.

Unknown stands below `ai` in what is shown, and beside it in what is asked: nobody vouches for either. And a statement
speaks for the image that it is about and for what it names beside it: with anything else in the same edit, nobody
vouches for the whole.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from controller.model.evidence import PROBLEMS, Degree, Evidence, Origin, Trust
from controller.model.guarded import Touched
from controller.model.policy import ChangeClass, Person
from controller.plain import alike

_ORDER = tuple(Origin)
_ASKED = {Origin.HUMAN: 0, Origin.AUTOMATION: 1, Origin.MIXED: 2, Origin.AI: 3, Origin.UNKNOWN: 3}
_DEGREE = {Degree.ASSISTED: 1, Degree.GENERATED: 2, Degree.AUTONOMOUS: 3, Degree.UNSAID: 3}
_TRUST = tuple(Trust)
_OF_THE_IMAGE = frozenset({ChangeClass.IMAGE, ChangeClass.IRREVERSIBLE, ChangeClass.SCALE})
"""what a statement about an image covers without naming it, and how many pods there are, which changes none of them"""


def worst(origins: Iterable[Origin]) -> Origin:
    """The worst of several; unknown where there is none.

    >>> worst([Origin.HUMAN, Origin.AI, Origin.AUTOMATION]).value
    'ai'
    """
    return max(origins, key=_ORDER.index, default=Origin.UNKNOWN)


def treated_origin(evidence: Evidence, claimed: str, believe: Trust = Trust.T3) -> Origin:
    """The origin a change is treated as. Below `believe`, evidence and claims can make it worse and never better.

    >>> treated_origin(Evidence(), "human").value, treated_origin(Evidence(), "ai").value
    ('unknown', 'ai')
    >>> treated_origin(Evidence(origin=Origin.HUMAN, trust=Trust.T3), "").value
    'human'
    """
    proven = evidence.origin if at_least(evidence.trust, believe) else worst((Origin.UNKNOWN, evidence.origin))
    return worst((proven, Origin(claimed))) if claimed in set(Origin) else proven


def as_far_as_it_reaches(evidence: Evidence, classes: Iterable[Touched]) -> tuple[Evidence, str]:
    """The evidence about the whole change, and what nobody vouches for, empty where that is nothing.

    Where settings come with an image and no statement names their class, all that is proven of the image proves nothing
    about the change: otherwise whoever has any signed image could bring any setting with it, in its author's name.

    >>> signed = Evidence(origin=Origin.HUMAN, trust=Trust.T3)
    >>> change = (Touched(ChangeClass.IMAGE, ("c.image",)), Touched(ChangeClass.AUTH, ("spec.serviceAccountName",)))
    >>> as_far_as_it_reaches(signed, change)[0].trust.value
    'T0'
    >>> as_far_as_it_reaches(msgspec.structs.replace(signed, classes=("auth",)), change)[0].trust.value
    'T3'
    """
    if evidence.trust is Trust.T0:
        return evidence, ""
    places = _unnamed(evidence, classes)
    if not places:
        return evidence, ""
    told = ", ".join(f"{name} ({path[:100]})" if path else name for name, path in places.items())
    asked = " ".join(f"--class {name}" for name in places)
    gap = f"nobody vouches for {told}, a statement speaks for the image alone: name it: kubectl canary attest {asked}"
    problems = (gap, *evidence.problems)[:PROBLEMS]
    return msgspec.structs.replace(evidence, trust=Trust.T0, problems=problems), gap


def _unnamed(evidence: Evidence, classes: Iterable[Touched]) -> dict[ChangeClass, str]:
    """Classes that no statement speaks for, each with the first place that shows it."""
    found: dict[ChangeClass, str] = {}
    for one in classes:
        name, paths = one.name, one.paths
        if name is ChangeClass.IMAGE and (whole := tuple(path for path in paths if not path.endswith(".image"))):
            # A container that comes or goes brings its settings, or takes them away.
            name, paths = ChangeClass.CONFIG, whole
        if name not in _OF_THE_IMAGE and name not in evidence.classes:
            found.setdefault(name, next(iter(paths), ""))
    return found


def treated_degree(origin: Origin, evidence: Evidence, believe: Trust = Trust.T3) -> Degree:
    """How much a tool did by itself; the worst where nobody proved it."""
    if origin is Origin.UNKNOWN or not at_least(evidence.trust, believe):
        return Degree.UNSAID
    return evidence.degree


def at_least(trust: Trust, wanted: Trust) -> bool:
    """Whether something is proven as well as `wanted`."""
    return _TRUST.index(trust) >= _TRUST.index(wanted)


def asked_of(origin: Origin, rule: str | None) -> bool:
    """Whether a rule for `rule` and worse is about this origin.

    >>> asked_of(Origin.UNKNOWN, "ai"), asked_of(Origin.AUTOMATION, "mixed")
    (True, False)
    """
    return rule is None or _ASKED[origin] >= _ASKED[Origin(rule)]


def asked_of_degree(origin: Origin, degree: Degree, rule: str | None) -> bool:
    """Whether a rule for this degree and higher is about it; what people and robots wrote has none."""
    if rule is None:
        return True
    return _ASKED[origin] >= _ASKED[Origin.MIXED] and _DEGREE[degree] >= _DEGREE[Degree(rule)]


def plain_name(name: str) -> str:
    """A person's name in the one form in which it is kept; compared is what it looks like (`alike`).

    >>> plain_name(" mailto:Ann@Example.com ")
    'ann@example.com'
    """
    return name.strip().casefold().removeprefix("mailto:")


def authors_of(evidence: Evidence, people: Iterable[Person], email_is_username: bool) -> tuple[frozenset[str], bool]:
    """Every name the authors go by, and whether each of them is known to the API server by one of these.

    An author who maps to nobody cannot be told from an approver, so the second answer is False then.
    """
    names: set[str] = set()
    known = at_least(evidence.trust, Trust.T3) and bool(evidence.authors)
    by_id: dict[str, set[str]] = {}
    for person in people:
        all_names = {plain_name(person.user), *map(plain_name, person.ids)}
        for one in all_names:
            by_id.setdefault(alike(one), set()).update(all_names)
    for author in evidence.authors:
        name = plain_name(author.id)
        names.add(name)
        names |= by_id.get(alike(name), set())
        known = known and (alike(name) in by_id or (email_is_username and "@" in name))
    return frozenset(names), known
