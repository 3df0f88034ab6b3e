"""`kubectl canary audit`: who may let a revision through, and who could get around what asks for people.

Read from roles and bindings, so anybody who may read those can check it. The one thing to know: a verb of Serin is a
verb like any other, so a role with `*` holds all of them, and most machines that hold too much hold them that way.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from controller.cli.kubectl import API, RBAC, Cluster, Failure, Object, path_of, unread
from controller.cli.screen import Line, Screen
from controller.cli.text import plain, render_document, render_table

SERIN = "serin.dev"
ADMISSION = "admissionregistration.k8s.io"
WRITES = ("create", "update", "patch", "delete")
EVERYBODY = frozenset({"system:authenticated", "system:unauthenticated", "system:serviceaccounts"})


@dataclass(frozen=True)
class Power:
    """Something that should be in few hands, and the rights that come to it."""

    name: str
    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]


POWERS = (
    Power("let a revision through", SERIN, ("canaries",), ("approve", "promote", "retry", "resume", "detach")),
    Power("break the glass", SERIN, ("canaries",), ("breakglass",)),
    Power("let a rollout pass a freeze", SERIN, ("canaries",), ("override",)),
    Power("permit a destructive act", SERIN, ("canaries",), ("permit",)),
    Power("thaw a Freeze, with another", SERIN, ("freezes",), ("thaw",)),
    Power("write policies", SERIN, ("releasepolicies",), WRITES),
    Power("act as somebody else", "", ("users", "groups", "serviceaccounts"), ("impersonate",)),
    Power("get tokens of service accounts", "", ("serviceaccounts/token",), ("create",)),
    Power(
        "take admission policies away",
        ADMISSION,
        ("validatingadmissionpolicies", "validatingadmissionpolicybindings", "mutatingadmissionpolicies"),
        ("update", "patch", "delete"),
    ),
    Power(
        "take Serin's kinds away", "apiextensions.k8s.io", ("customresourcedefinitions",), ("update", "patch", "delete")
    ),
    Power("give itself more rights", "rbac.authorization.k8s.io", ("clusterroles", "roles"), ("escalate", "bind")),
)


@dataclass(frozen=True)
class Held:
    """One power in somebody's hands."""

    who: str
    where: str
    """a namespace; empty: the whole cluster"""
    power: str
    only: str
    """names that it is limited to; empty: all"""
    through: str
    """the binding and its role"""
    problem: str
    """why nobody should leave it at that; empty where people hold it"""


def run(options: argparse.Namespace, cluster: Cluster, screen: Screen) -> int:
    """Print who holds what, and which rules come to nothing; 1 where a machine or everybody holds some, or one does."""
    held, problems = read(cluster, options.namespace, f"system:serviceaccount:{options.serin_namespace}:")
    problems += read_senseless(cluster)
    if options.output:
        screen.say(render_document([asdict(one) for one in held], options.output))
        for problem in problems:
            print(f"warning: {plain(problem)}", file=sys.stderr)
    else:
        screen.show(render(held, problems))
    return 1 if problems or any(one.problem for one in held) else 0


def read(cluster: Cluster, namespace: str, own: str) -> tuple[list[Held], list[str]]:
    """Everything that is bound in the cluster, or what counts in one namespace; and what could not be read."""
    plurals = ("clusterroles", "clusterrolebindings", "roles", "rolebindings")
    paths = [path_of(RBAC, namespace if "cluster" not in plural else "", plural) for plural in plurals]
    listed: list[list[Object]] = []
    problems = []
    for plural, answer in zip(plurals, cluster.read_all(*paths), strict=True):
        if isinstance(answer, Failure):
            problems.append(f"{unread(plural, answer)}, so more people may hold more than this: {answer}")
        listed.append([] if isinstance(answer, Failure) else answer.get("items") or [])
    return list(audit(*listed, own=own)), problems


def read_senseless(cluster: Cluster) -> list[str]:
    """Policies and freezes that come to nothing; nobody's problem where the packages to read them are not installed."""
    try:
        from controller.cli.rules import parse_rules
        from controller.guardrails.sense import Subject, senseless
    except ModuleNotFoundError:
        return []
    paths = [path_of(API, "", plural) for plural in ("releasepolicies", "freezes", "canaries")]
    listed = [[] if isinstance(one, Failure) else one.get("items") or [] for one in cluster.read_all(*paths)]
    if not listed[2]:
        # Also where they may not be read: then nothing is known of whom a rule is for.
        return []
    policies, freezes, problems = parse_rules(listed[0], listed[1])
    found = [one["metadata"] for one in listed[2]]
    canaries = [Subject(meta["namespace"], meta["name"], meta.get("labels") or {}) for meta in found]
    return [*problems, *senseless(policies, freezes, canaries)]


def audit(
    cluster_roles: Iterable[Object],
    cluster_bindings: Iterable[Object],
    roles: Iterable[Object],
    bindings: Iterable[Object],
    *,
    own: str,
) -> Iterator[Held]:
    """Each power that each subject holds, machines and everybody first. `own` begins the name of Serin's accounts."""
    known: dict[tuple[str, str, str], dict[str, str]] = {}
    for kind, bodies in (("ClusterRole", cluster_roles), ("Role", roles)):
        for body in bodies:
            meta = body["metadata"]
            known[kind, meta.get("namespace", ""), meta["name"]] = powers_of(body.get("rules") or ())
    found: set[Held] = set()
    for body in (*cluster_bindings, *bindings):
        meta, reference = body["metadata"], body["roleRef"]
        where = meta.get("namespace", "")
        powers = known.get((reference["kind"], where if reference["kind"] == "Role" else "", reference["name"]), {})
        for subject in body.get("subjects") or () if powers else ():
            who, problem = _who(subject, where)
            if who.startswith(own) or _is_control_plane(subject, who):
                continue
            through = f"{meta['name']} -> {reference['name']}"
            found |= {Held(who, where, power, only, through, problem) for power, only in powers.items()}
    order = [power.name for power in POWERS]
    yield from sorted(found, key=lambda one: (not one.problem, one.who, one.where, order.index(one.power), one.through))


def powers_of(rules: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Powers that these rules come to, each with the names it is limited to.

    >>> powers_of([{"apiGroups": ["serin.dev"], "resources": ["freezes"], "verbs": ["*"], "resourceNames": ["a"]}])
    {'thaw a Freeze, with another': 'a'}
    """
    found: dict[str, str] = {}
    for rule in rules:
        names = ", ".join(rule.get("resourceNames") or ())
        for power in POWERS:
            if _gives(rule, power):
                # What one rule does not limit, another's limit does not either.
                found[power.name] = "" if not names or found.get(power.name) == "" else names
    return found


def _gives(rule: Mapping[str, Any], power: Power) -> bool:
    groups, resources, verbs = (set(rule.get(name) or ()) for name in ("apiGroups", "resources", "verbs"))
    return (
        not {"*", power.group}.isdisjoint(groups)
        and not {"*", *power.resources}.isdisjoint(resources)
        and not {"*", *power.verbs}.isdisjoint(verbs)
    )


def _who(subject: Mapping[str, Any], where: str) -> tuple[str, str]:
    """The subject's name as the API server knows it, and what is wrong with it holding anything here."""
    name = str(subject.get("name", ""))
    if subject.get("kind") == "ServiceAccount":
        return f"system:serviceaccount:{subject.get('namespace') or where}:{name}", "a machine"
    if name in EVERYBODY:
        return name, "everybody" if name != "system:serviceaccounts" else "every machine"
    if name.startswith("system:serviceaccount"):
        return name, "a machine" if subject.get("kind") == "User" else "every machine of a namespace"
    return name, ""


def _is_control_plane(subject: Mapping[str, Any], who: str) -> bool:
    """Kubernetes' own parts, without which there is no cluster."""
    return who.startswith("system:serviceaccount:kube-system:") or (
        subject.get("kind") != "ServiceAccount" and who.startswith("system:kube-")
    )


def render(held: Iterable[Held], problems: Iterable[str]) -> list[Line]:
    """A line for each subject and power, those to mend in red and first."""
    rows, styles = [], []
    for one in held:
        power = one.power + (f" ({plain(one.only)} only)" if one.only else "")
        rows.append([plain(one.who), plain(one.where) or "-", power, plain(one.through), one.problem or "-"])
        styles.append("red" if one.problem else "")
    table = render_table(["WHO", "NAMESPACE", "MAY", "THROUGH", "PROBLEM"], rows)
    lines: list[Line] = [(table[0], "bold"), *zip(table[1:], styles, strict=True)] if rows else []
    if not rows and not problems:
        lines = [("nobody holds any of it but Kubernetes and Serin themselves", "")]
    return [*lines, *((plain(problem), "red") for problem in problems)]
