"""Which Services select the target's pods, and whether they select stable's only. Pure.

The one thing to know: the canary's pods carry every label of the target's, so without a pin on
`pod-template-hash` each Service of the target would send them traffic that no route has weighed.
`serin.dev/pinned: <canary>/<hash>` on a Service remembers that the pin is ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from controller.model.spec import CanarySpec
from controller.model.template import HASH_LABEL
from controller.model.world import Pins
from controller.workloads.parse import CANARY_LABEL, Object, annotations_of

PINNED = "serin.dev/pinned"


@dataclass(frozen=True)
class Selecting:
    """One Service that has to do with the target's pods."""

    name: str
    selector: dict[str, str]
    ours: str
    """the hash we pinned it to, empty when we did not"""
    headed: bool
    """carries the traffic that the route splits"""
    body: Object

    @property
    def bare(self) -> dict[str, str]:
        """The owner's selector."""
        return without_pin(self.selector, self.ours)

    def is_pinned(self, stable_hash: str) -> bool:
        """Pinned by us, and to this hash."""
        return self.ours == stable_hash and self.selector.get(HASH_LABEL) == stable_hash


def matches(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """An empty selector selects nothing."""
    return bool(selector) and selector.items() <= labels.items()


def without_pin(selector: Mapping[str, str], pinned: str) -> dict[str, str]:
    """A selector without the pin to this hash; a pin to another one is somebody else's."""
    return {name: value for name, value in selector.items() if not (name == HASH_LABEL and pinned and value == pinned)}


def pin_of(service: Object, canary: str) -> str:
    """The hash this Canary pinned a Service to; empty when it did not."""
    owner, _, pinned = annotations_of(service).get(PINNED, "").partition("/")
    return pinned if owner == canary else ""


def parse_services(
    services: Iterable[Object], spec: CanarySpec, canary: str, canary_service: str, labels: Sequence[Mapping[str, str]]
) -> list[Selecting]:
    """The Services that select pods with any of these sets of labels, that we pinned, or that carry the traffic."""
    found = []
    for service in services:
        name, wanted = service["metadata"]["name"], service.get("spec") or {}
        if name == canary_service:
            continue
        selector: Mapping[str, str] = {} if wanted.get("type") == "ExternalName" else wanted.get("selector") or {}
        ours, headed = pin_of(service, canary), name == spec.traffic.service.name
        if headed or ours or any(matches(_unpinned(selector), each) for each in labels):
            found.append(Selecting(name, dict(selector), ours, headed, service))
    return found


def _unpinned(selector: Mapping[str, str]) -> Mapping[str, str]:
    if HASH_LABEL not in selector:
        return selector
    return {key: value for key, value in selector.items() if key != HASH_LABEL}


def find_problems(
    services: Sequence[Selecting],
    spec: CanarySpec,
    stable_labels: Mapping[str, str],
    strangers: Mapping[str, Sequence[str]],
) -> tuple[str, ...]:
    """Why these Services cannot be pinned, a line each: reason, field, finding, fix.

    `strangers` has, by Service, pods it selects that are neither the target's nor the canary's.
    """
    target = spec.target_ref.name
    if not any(service.headed for service in services):
        return (
            f"ServiceMissing spec.traffic.service.name: there is no Service {spec.traffic.service.name} in this "
            "namespace: create it, or name the Service that clients and the route use",
        )
    problems = []
    for service in services:
        field = "spec.traffic.service.name: Service" if service.headed else "spec.selector of Service"
        ports = [int(port["port"]) for port in (service.body.get("spec") or {}).get("ports") or ()]
        if not service.selector:
            problems.append(
                f"ServiceNotPinnable {field} {service.name} has no selector (or is an ExternalName), so it cannot be "
                f"kept to stable's pods: give it the labels of Deployment {target}"
            )
        elif HASH_LABEL in service.bare:
            problems.append(
                f"ServiceNotPinnable {field} {service.name} already selects {HASH_LABEL} "
                f"{service.bare[HASH_LABEL]}, and Serin did not write that: remove {HASH_LABEL} from its selector"
            )
        # Once pinned it was right: while a stable pod restarts, only the candidate's labels may be known.
        elif not service.ours and not matches(service.bare, stable_labels):
            problems.append(
                f"ServiceSelectsNothing {field} {service.name} selects {_render(service.bare)}, which no pod of "
                f"Deployment {target} carries in its stable revision: write labels of its pods, "
                "or keep the labels of its pods as they are"
            )
        elif strangers.get(service.name):
            pods = ", ".join(strangers[service.name][:3])
            problems.append(
                f"ServiceSelectsOthers {field} {service.name} selects {_render(service.bare)}, which also matches pods "
                f"that are not of Deployment {target} ({pods}); pinning it would cut them off: "
                "add a label that only the target's pods carry"
            )
        if service.headed and spec.traffic.service.port not in ports and service.selector:
            problems.append(
                f"ServicePortMissing spec.traffic.service.port: Service {service.name} has no port "
                f"{spec.traffic.service.port}, only {', '.join(map(str, ports)) or 'none'}: write one of these"
            )
    return tuple(problems)


def find_strangers(pods: Iterable[Object], target: str) -> tuple[str, ...]:
    """Pods that belong neither to this Deployment nor to a canary: a Deployment names its ReplicaSets `name-hash`."""
    names = []
    for pod in pods:
        metadata = pod["metadata"]
        labels = metadata.get("labels") or {}
        owners = [owner for owner in metadata.get("ownerReferences") or () if owner.get("controller")]
        of_target = any(owner.get("name") == f"{target}-{labels.get(HASH_LABEL)}" for owner in owners)
        if not of_target and CANARY_LABEL not in labels:
            names.append(str(metadata["name"]))
    return tuple(names)


def foreign_endpoints(slices: Iterable[Object], target: str, stable_hash: str, stable_pods: set[str]) -> list[str]:
    """Pods behind these EndpointSlices that are not stable's. Long names are cut, so the set decides for them."""
    prefix = f"{target}-{stable_hash}-"
    names = [
        str((endpoint.get("targetRef") or {}).get("name", ""))
        for found in slices
        for endpoint in found.get("endpoints") or ()
    ]
    return [name for name in names if not name.startswith(prefix) and name not in stable_pods]


def parse_pins(
    services: Sequence[Selecting], stable_hash: str, problems: tuple[str, ...], foreign: Sequence[str]
) -> Pins:
    """Pinned when there is a Service, each has our pin, and nothing else stands in their EndpointSlices."""
    pinned = bool(services) and all(service.is_pinned(stable_hash) for service in services)
    named = tuple(name or "an address that is no pod's" for name in foreign)
    return Pins(
        pinned=pinned and not foreign and bool(stable_hash),
        any_pin=any(service.ours for service in services),
        problems=problems,
        foreign=tuple(dict.fromkeys(named))[:3],
    )


def _render(selector: Mapping[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in sorted(selector.items()))
