"""Policies that name stable's Service and leave the canary's out, so that the gateway treats the two differently.

The one thing to know: nothing is mended here. Whoever attached the policy adds one more `targetRefs` entry, for a
Service whose name is known beforehand; until then it is said. Kinds of the Gateway API itself only: what vendors
attach by a Service's name is not looked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from controller.kube.cache import Keep, Kept, Whole, keep
from controller.kube.informer import Timing
from controller.kube.resources import Resource

Policy = dict[str, Any]

BACKEND_TLS = Resource("gateway.networking.k8s.io", "v1", "backendtlspolicies", "BackendTLSPolicy")
BACKEND_TRAFFIC = Resource(
    "gateway.networking.x-k8s.io", "v1alpha1", "xbackendtrafficpolicies", "XBackendTrafficPolicy"
)
PATIENT = Timing(backoff_base=60.0, backoff_cap=600.0)
"""how their watches try again: many clusters do not have these kinds, and nothing waits for them"""
SHOWN = 20


def _by_namespace(whole: Whole) -> Kept | None:
    return keep(whole, str(whole.metadata.get("namespace", "")), status=False, annotations=lambda name: False)


KEPT: dict[Resource, Keep] = {BACKEND_TLS: _by_namespace, BACKEND_TRAFFIC: _by_namespace}
"""The kinds that are looked at, and what the cache keeps of each."""


def services_of(policy: Policy) -> Iterator[tuple[str, str]]:
    """The Services a policy names, each with the port's name it is about; empty for all ports."""
    for target in (policy.get("spec") or {}).get("targetRefs") or ():
        if target.get("kind") == "Service" and not target.get("group"):
            yield str(target.get("name", "")), str(target.get("sectionName") or "")


def find_stable_only(kind: str, policies: Iterable[Policy], stable: str, canary: str) -> list[str]:
    """Those that name the Service `stable` and not `canary`, or not for the same ports, a sentence each.

    >>> tls = {"metadata": {"name": "shop-tls"}, "spec": {"targetRefs": [{"kind": "Service", "name": "shop"}]}}
    >>> find_stable_only("BackendTLSPolicy", [tls], "shop", "shop-canary")
    ['BackendTLSPolicy shop-tls names Service shop and not shop-canary']
    """
    found = []
    for policy in policies:
        named = set(services_of(policy))
        ports = {port for service, port in named if service == stable}
        covered = {port for service, port in named if service == canary}
        if ports and "" not in covered and not ports <= covered:
            found.append(f"{kind} {policy['metadata']['name']} names Service {stable} and not {canary}")
    return sorted(found)[:SHOWN]
