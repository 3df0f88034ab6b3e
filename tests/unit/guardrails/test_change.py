"""What a change touches: every difference of two templates has its class, and the place that shows it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from controller.guardrails.change import as_released, classes_of
from controller.model.evidence import Evidence, Trust
from controller.model.policy import ChangeClass
from tests.builders import stable

TEMPLATE: dict[str, Any] = {
    "metadata": {"labels": {"app": "shop"}, "annotations": {"checksum/config": "1"}},
    "spec": {
        "serviceAccountName": "shop",
        "containers": [
            {
                "name": "app",
                "image": "shop@sha256:1",
                "args": ["--port=80"],
                "env": [{"name": "MODE", "value": "a"}],
                "resources": {"limits": {"cpu": "1"}},
                "ports": [{"name": "http", "containerPort": 80}],
            },
            {"name": "proxy", "image": "proxy@sha256:1"},
        ],
        "initContainers": [{"name": "migrate", "image": "shop@sha256:1", "command": ["migrate"]}],
        "volumes": [
            {"name": "settings", "configMap": {"name": "settings-1"}},
            {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
            {"name": "my-secret-notes", "emptyDir": {}},
        ],
    },
}
REVERSIBLE = Evidence(trust=Trust.T3, reversible=True)


def changed(**edits: Any) -> dict[str, Any]:
    """The workload with some places of its template changed; a path is written with `/`."""
    template = copy.deepcopy(TEMPLATE)
    for path, value in edits.items():
        *parts, last = path.split("/")
        here: Any = template
        for part in parts:
            here = here[int(part)] if part.isdigit() else here.setdefault(part, {})
        if value is None:
            del here[int(last) if last.isdigit() else last]
        elif isinstance(here, list):
            here.append(value) if last == "-" else here.__setitem__(int(last), value)
        else:
            here[last] = value
    return {"template": template}


def names(old: dict[str, Any], new: dict[str, Any], evidence: Evidence = REVERSIBLE) -> list[str]:
    return [touched.name.value for touched in classes_of(old, new, evidence)]


@pytest.mark.parametrize(
    ("path", "value", "classes"),
    [
        ("spec/containers/0/image", "shop@sha256:2", ["image"]),
        ("spec/containers/1/image", "proxy@sha256:2", ["image"]),
        ("spec/containers/0/args", ["--port=81"], ["config"]),
        ("spec/containers/0/env/0/value", "b", ["config"]),
        ("spec/volumes/0/configMap/name", "settings-2", ["config"]),
        ("metadata/annotations/checksum~config", "2", ["config"]),
        ("spec/containers/0/livenessProbe", {"httpGet": {"path": "/", "port": 80}}, ["config"]),
        ("spec/containers/0/resources/limits/cpu", "2", ["resources"]),
        ("spec/containers/0/ports/0/containerPort", 81, ["infra"]),
        ("spec/nodeSelector", {"disk": "fast"}, ["infra"]),
        ("spec/tolerations", [{"key": "gpu"}], ["infra"]),
        ("spec/volumes/-", {"name": "host", "hostPath": {"path": "/var"}}, ["infra"]),
        ("spec/hostNetwork", True, ["auth", "infra"]),
        ("spec/serviceAccountName", "admin", ["auth"]),
        ("spec/automountServiceAccountToken", True, ["auth"]),
        ("spec/securityContext", {"runAsUser": 0}, ["auth"]),
        ("spec/containers/0/securityContext", {"privileged": True}, ["auth"]),
        (
            "spec/containers/0/env/-",
            {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "k", "key": "v"}}},
            ["auth"],
        ),
        ("spec/containers/0/envFrom", [{"secretRef": {"name": "k"}}], ["auth"]),
        ("spec/volumes/-", {"name": "keys", "secret": {"secretName": "keys"}}, ["auth"]),
        ("spec/volumes/2/emptyDir", {"medium": "Memory"}, ["config"]),
        ("spec/initContainers/0/image", "shop@sha256:2", ["image", "schema"]),
        ("spec/initContainers/0/command", ["migrate", "--drop"], ["schema"]),
        ("spec/initContainers/-", {"name": "seed", "image": "s"}, ["image", "schema"]),
        ("spec/initContainers/-", {"name": "mesh", "image": "m", "restartPolicy": "Always"}, ["image"]),
        ("spec/volumes/1/persistentVolumeClaim/claimName", "data-2", ["destructive"]),
        ("spec/volumes/1", None, ["destructive"]),
    ],
)
def test_each_place_of_a_template_has_its_class(path: str, value: Any, classes: list[str]) -> None:
    assert names({"template": TEMPLATE}, changed(**{path: value})) == classes


EMPTY: list[Any] = [None, {}, [], ""]
VALUES: list[Any] = [*EMPTY, False, 0, True, 1, "x", [1], [{"name": "x"}], {"x": 1}]


@pytest.mark.parametrize(("old", "new"), [(old, new) for old in VALUES for new in VALUES])
def test_every_difference_is_seen_also_that_of_nothing_and_no(old: Any, new: Any) -> None:
    """`runAsUser: 0`, which is root, where nothing was said before."""
    one, two = ({"template": {"spec": {"securityContext": {"runAsUser": value}}}} for value in (old, new))
    same = old == new or (old in EMPTY and new in EMPTY)

    assert names(one, two) == ([] if same else ["auth"])


def test_a_sidecar_that_becomes_a_migration_is_one() -> None:
    mesh = {"name": "mesh", "image": "mesh@sha256:1", "restartPolicy": "Always"}
    old, new = changed(**{"spec/initContainers/-": mesh}), changed(**{"spec/initContainers/-": mesh})
    new["template"]["spec"]["initContainers"][1] = {"name": "mesh", "image": "mesh@sha256:1", "command": ["migrate"]}

    assert names(old, new) == ["schema"]
    assert names(old, {"template": TEMPLATE}) == ["image"], "one that goes prepares nothing"


@pytest.mark.parametrize(
    ("place", "classes"),
    [("containers", ["config"]), ("initContainers", ["schema"]), ("volumes", ["config"])],
)
def test_another_order_is_a_difference_too(place: str, classes: list[str]) -> None:
    old = changed(**{f"spec/{place}/-": {"name": "last", "image": "i"}})
    new = copy.deepcopy(old)
    new["template"]["spec"][place].reverse()

    (touched,) = classes_of(old, new, REVERSIBLE)

    assert ([touched.name.value], touched.paths) == (classes, (f"template.spec.{place}.order",))


def test_a_secret_is_seen_also_where_a_variable_of_the_same_name_comes_after_it() -> None:
    reads = {"name": "MODE", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    hidden = [reads, {"name": "COPY", "value": "$(MODE)"}, {"name": "MODE", "value": "a"}]

    assert names(changed(), changed(**{"spec/containers/0/env": hidden})) == ["auth"]


def test_the_places_are_named_as_a_person_would_write_them() -> None:
    new = changed(**{"spec/initContainers/0/command": ["migrate", "2"], "spec/serviceAccountName": "admin"})

    found = {touched.name: touched.paths for touched in classes_of({"template": TEMPLATE}, new, REVERSIBLE)}

    assert found == {
        ChangeClass.AUTH: ("template.spec.serviceAccountName",),
        ChangeClass.SCHEMA: ("template.spec.initContainers[migrate].command",),
    }


def test_a_container_that_comes_is_told_however_many_images_change() -> None:
    crew = [{"name": f"a{number}", "image": "i:1"} for number in range(9)]
    later = [*({"name": one["name"], "image": "i:2"} for one in crew), {"name": "z", "image": "i:2"}]

    (touched,) = classes_of(
        {"template": {"spec": {"containers": crew}}}, {"template": {"spec": {"containers": later}}}, REVERSIBLE
    )

    assert touched.paths[0] == "template.spec.containers[z]"


def test_the_same_template_touches_nothing_and_an_empty_field_is_as_good_as_none() -> None:
    assert names({"template": TEMPLATE}, {"template": TEMPLATE}, Evidence()) == []
    assert names({"template": TEMPLATE}, changed(**{"spec/nodeSelector": {}}), Evidence()) == []


@pytest.mark.parametrize(
    ("old", "new", "classes"),
    [
        ({"replicas": 3}, {"replicas": 5}, ["scale"]),
        ({"replicas": 3}, {"replicas": 0}, ["scale", "destructive"]),
        ({"strategy": {"type": "RollingUpdate"}}, {"strategy": {"type": "Recreate"}}, ["destructive"]),
    ],
)
def test_strategy_and_size_count_where_they_are_known(old: Any, new: Any, classes: list[str]) -> None:
    assert names({"template": TEMPLATE} | old, {"template": TEMPLATE} | new) == classes


def test_what_the_last_release_left_is_compared_as_far_as_it_is_remembered() -> None:
    remembered = stable(template=TEMPLATE, strategy="RollingUpdate", replicas=3)
    edited = {"template": TEMPLATE, "strategy": {"type": "Recreate"}, "replicas": 9}

    assert names(as_released(remembered), edited) == ["scale", "destructive"]
    assert names(as_released(stable(template=TEMPLATE)), edited) == [], "a status of before knew neither"


@pytest.mark.parametrize(
    ("evidence", "one_way"),
    [
        (Evidence(trust=Trust.T3, reversible=True), False),
        (Evidence(trust=Trust.T3, reversible=False), True),
        (Evidence(trust=Trust.T3), True),
        (Evidence(trust=Trust.T2, reversible=True), True),
        (Evidence(), True),
    ],
)
def test_a_new_image_is_a_one_way_door_unless_a_signed_statement_says_otherwise(
    evidence: Evidence, one_way: bool
) -> None:
    new = changed(**{"spec/containers/0/image": "shop@sha256:2"})

    assert ("irreversible" in names({"template": TEMPLATE}, new, evidence)) is one_way


def test_a_revision_can_say_that_it_touches_more_and_never_that_it_touches_less() -> None:
    told = {"serin.dev/change-classes": "schema, nonsense", "serin.dev/reversible": "false"}
    new = changed(**{"spec/containers/0/image": "shop@sha256:2", "metadata/annotations": told})
    new["template"]["metadata"]["annotations"]["checksum/config"] = "1"

    assert names({"template": TEMPLATE}, new) == ["image", "schema", "irreversible"]
