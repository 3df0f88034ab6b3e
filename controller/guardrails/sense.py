"""Rules that do nothing, or that nothing can ever meet: told to whoever wrote them. Pure.

None of it is refused when it is written, since the Canaries and namespaces that a rule is for may come later.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from controller.guardrails.freeze import Freeze
from controller.guardrails.policy import Policy, selects
from controller.model.policy import PassedIn, Where


@dataclass(frozen=True)
class Subject:
    """A Canary, as far as selectors ask about it."""

    namespace: str
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)


def senseless(policies: Iterable[Policy], freezes: Iterable[Freeze], canaries: Iterable[Subject]) -> Iterator[str]:
    """A line for each rule or Freeze that comes to nothing, with what to write instead."""
    known = tuple(canaries)
    for policy in policies:
        meant = _meant(policy.spec.selector, known)
        if not meant:
            yield (
                f"ReleasePolicy {policy.name} selects no Canary ({_told(policy.spec.selector)}): none of its rules "
                "holds for anybody; correct spec.selector"
            )
        for rule in policy.spec.rules:
            if rule.passed_in is not None:
                yield from _earlier(f"ReleasePolicy {policy.name}, rule {rule.name}", rule.passed_in, meant, known)
    for freeze in freezes:
        if freeze.spec is None:
            yield f"Freeze {freeze.name} cannot be read, so it holds every Canary: {freeze.problem}"
        elif not (meant := _meant(freeze.spec.selector, known)):
            told = _told(freeze.spec.selector)
            yield f"Freeze {freeze.name} selects no Canary ({told}): it stops nothing; engage one that does"
        elif all(any(_is_meant(one, subject) for one in freeze.spec.exceptions) for subject in meant):
            yield f"Freeze {freeze.name} stops nothing: its exceptions leave out every Canary that it selects"


def _earlier(where: str, passed_in: PassedIn, meant: Iterable[Subject], known: tuple[Subject, ...]) -> Iterator[str]:
    """What an earlier environment can never have promoted."""
    there = {(one.namespace, one.name) for one in known}
    for subject in meant:
        earlier = (passed_in.namespace, passed_in.canary or subject.name)
        if earlier == (subject.namespace, subject.name):
            yield (
                f"{where}: passedIn asks Canary {subject.namespace}/{subject.name} that it promoted the change before "
                "itself, which it never can have; select the later environment only"
            )
        elif earlier not in there:
            yield (
                f"{where}: passedIn asks for Canary {earlier[0]}/{earlier[1]}, which is not there: "
                f"{subject.namespace}/{subject.name} releases nothing until it is and has promoted the change"
            )


def _meant(where: Where, known: Iterable[Subject]) -> tuple[Subject, ...]:
    return tuple(one for one in known if _is_meant(where, one))


def _is_meant(where: Where, subject: Subject) -> bool:
    return selects(where, subject.namespace, subject.labels)


def _told(where: Where) -> str:
    parts = [*where.namespaces, *(f"{name}={value}" for name, value in where.labels.items())]
    return ", ".join(parts) or "the whole cluster"
