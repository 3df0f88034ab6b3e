"""The controller's roles grant what it was seen to use on the cluster, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.cluster.rights import Right, read_golden

RBAC = Path(__file__).parents[2] / "manifests" / "rbac"
CLUSTER_ROLES = ("serin-controller", "serin-controller-cluster", "serin-controller-workloads")
READS = frozenset({"get", "list", "watch"})

NOT_SEEN: dict[Right, str] = {
    ("any", "serin.dev/canaries/finalizers", "update"): "asked for by OwnerReferencesPermissionEnforcement, an option",
    ("own", "core/secrets", "read"): "credentials of a MetricsSource, tests/cluster/test_sources.py",
    ("own", "apps/deployments", "patch"): "the errand before an uninstall, tests/cluster/test_chart.py",
}
"""granted without a trace in tests/rights.json, each with its reason"""


def granted() -> set[Right]:
    found: set[Right] = set()
    for path in sorted(RBAC.glob("*.yaml")):
        for role in yaml.safe_load_all(path.read_text()):
            if role and role["kind"] == "ClusterRole" and role["metadata"]["name"] in CLUSTER_ROLES:
                found |= _rules("any", role)
            if role and role["kind"] == "Role":
                found |= _rules("own", role)
    return found


def _rules(where: str, role: dict[str, Any]) -> set[Right]:
    return {
        (where, f"{group or 'core'}/{resource}", _kind(verb))
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def _kind(verb: str) -> str:
    """Who may list may read each; that a watch is told sooner gives nothing more away."""
    return "read" if verb in READS else verb


def seen() -> set[Right]:
    return {(where, what, _kind(verb)) for where, what, verb in read_golden()}


def test_nothing_is_granted_that_was_not_seen_in_use() -> None:
    assert sorted(granted() - seen() - NOT_SEEN.keys()) == []


def test_nothing_was_used_that_is_not_granted() -> None:
    # What may be done anywhere may be done at home.
    everywhere = {(what, verb) for where, what, verb in granted() if where == "any"}
    missing = {right for right in seen() - granted() if right[1:] not in everywhere}

    assert sorted(missing) == []


def test_no_exception_is_kept_that_is_not_needed() -> None:
    assert sorted(NOT_SEEN.keys() & seen()) == []
    assert sorted(NOT_SEEN.keys() - granted()) == []
