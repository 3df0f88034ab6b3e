"""Who holds what should be in few hands: people are listed, machines and everybody are found."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.cli import audit
from controller.cli.audit import POWERS, Held, powers_of
from controller.cli.kubectl import Denied, Failure
from controller.cli.screen import Screen
from tests.unit.cli.scenes import MemoryCluster

ROOT = Path(__file__).parents[3]
RBAC = "/apis/rbac.authorization.k8s.io/v1"
OWN = "system:serviceaccount:serin-system:"
GROUP = {"kind": "Group", "name": "owners", "apiGroup": "rbac.authorization.k8s.io"}
BOT = {"kind": "ServiceAccount", "name": "bot", "namespace": "agents"}


def role(name: str, *rules: dict[str, Any], namespace: str = "") -> dict[str, Any]:
    return {"metadata": {"name": name} | ({"namespace": namespace} if namespace else {}), "rules": list(rules)}


def rule(group: str, resource: str, *verbs: str, **more: Any) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)} | more


def binding(
    name: str, role_name: str, *subjects: dict[str, Any], namespace: str = "", kind: str = "ClusterRole"
) -> Any:
    meta = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"metadata": meta, "roleRef": {"kind": kind, "name": role_name}, "subjects": list(subjects)}


def found(roles: list[Any], bindings: list[Any], more: tuple[list[Any], list[Any]] = ([], [])) -> list[Held]:
    return list(audit.audit(roles, bindings, *more, own=OWN))


def test_an_administrator_holds_every_power_and_a_machine_with_that_role_is_a_finding() -> None:
    admin = role("cluster-admin", rule("*", "*", "*"))

    people = found([admin], [binding("admins", "cluster-admin", GROUP)])
    machines = found([admin], [binding("bot", "cluster-admin", BOT)])

    assert [one.power for one in people] == [power.name for power in POWERS]
    assert {one.problem for one in people} == {""}
    assert {(one.who, one.problem) for one in machines} == {("system:serviceaccount:agents:bot", "a machine")}


@pytest.mark.parametrize(
    ("subject", "problem"),
    [
        ({"kind": "User", "name": "olga"}, ""),
        (GROUP, ""),
        (BOT, "a machine"),
        ({"kind": "User", "name": "system:serviceaccount:agents:bot"}, "a machine"),
        ({"kind": "Group", "name": "system:serviceaccounts:agents"}, "every machine of a namespace"),
        ({"kind": "Group", "name": "system:serviceaccounts"}, "every machine"),
        ({"kind": "Group", "name": "system:authenticated"}, "everybody"),
    ],
)
def test_people_may_and_machines_and_everybody_are_a_problem(subject: dict[str, Any], problem: str) -> None:
    (one,) = found([role("yes", rule("serin.dev", "canaries", "approve"))], [binding("b", "yes", subject)])

    assert (one.power, one.problem, one.through) == ("let a revision through", problem, "b -> yes")


def test_kubernetes_and_serin_themselves_are_left_out_and_nobody_under_a_similar_name() -> None:
    all_of_it = role("all", rule("*", "*", "*"))
    own = {"kind": "ServiceAccount", "name": "serin-controller", "namespace": "serin-system"}
    of_kubernetes = {"kind": "ServiceAccount", "name": "namespace-controller", "namespace": "kube-system"}
    similar = {"kind": "ServiceAccount", "name": "kube-bot", "namespace": "serin-system-2"}

    held = found([all_of_it], [binding("b", "all", own, of_kubernetes, similar)])

    assert {one.who for one in held} == {"system:serviceaccount:serin-system-2:kube-bot"}


def test_a_role_of_a_namespace_counts_there_and_a_limit_by_name_is_told() -> None:
    limited = role("approve-shop", rule("serin.dev", "canaries", "approve", resourceNames=["shop"]), namespace="shop")
    other = role("approve-shop", rule("", "pods", "get"), namespace="cart")
    bound = binding("b", "approve-shop", GROUP, namespace="shop", kind="Role")
    elsewhere = binding("b", "approve-shop", GROUP, namespace="cart", kind="Role")

    (one,) = found([], [], ([limited, other], [bound, elsewhere]))

    assert (one.where, one.only, one.who) == ("shop", "shop", "owners")


def test_what_one_rule_limits_by_name_another_may_give_without() -> None:
    some, every = rule("serin.dev", "freezes", "thaw", resourceNames=["a"]), rule("serin.dev", "freezes", "thaw")

    assert powers_of([some, every]) == powers_of([every, some]) == {"thaw a Freeze, with another": ""}


def test_of_the_roles_that_come_with_serin_each_holds_what_it_is_for() -> None:
    shipped = yaml.safe_load_all((ROOT / "manifests" / "rbac" / "people.yaml").read_text())
    powers = {body["metadata"]["name"]: set(powers_of(body["rules"])) for body in shipped}

    assert powers == {
        "canary-viewer": set(),
        "canary-editor": set(),
        "canary-approver": {"let a revision through", "permit a destructive act"},
        "canary-breakglass": {"break the glass", "let a rollout pass a freeze"},
        "canary-oncall": set(),
        "canary-owner": {"thaw a Freeze, with another"},
        "canary-platform": {"write policies"},
    }


def test_it_ends_with_another_code_where_a_machine_holds_too_much_or_something_cannot_be_read(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = argparse.Namespace(namespace="", output="", serin_namespace="serin-system")
    admin = {f"{RBAC}/clusterroles/all": role("all", rule("*", "*", "*"))}
    bodies = admin | {f"{RBAC}/clusterrolebindings/b": binding("b", "all", GROUP)}

    class NotAllowed(MemoryCluster):
        def read(self, path: str) -> Any:
            raise Denied(f"you may not list {path}")

    assert audit.run(options, MemoryCluster(bodies), Screen()) == 0
    people = capsys.readouterr().out
    machine = bodies | {f"{RBAC}/clusterrolebindings/c": binding("c", "all", BOT)}
    assert audit.run(options, MemoryCluster(machine), Screen()) == 1
    told = capsys.readouterr().out
    options.output = "json"
    assert audit.run(options, MemoryCluster(machine), Screen()) == 1
    listed = json.loads(capsys.readouterr().out)
    assert audit.run(options, NotAllowed({}), Screen()) == 1
    warned = capsys.readouterr().err
    options.output = ""
    assert audit.run(options, NotAllowed({}), Screen()) == 1
    unread = capsys.readouterr().out

    class TooBusy(MemoryCluster):
        def read(self, path: str) -> Any:
            raise Failure("too many requests")

    assert audit.run(options, TooBusy({}), Screen()) == 1
    assert "rolebindings could not be read, so more people may" in capsys.readouterr().out

    assert "owners" in people
    assert told.splitlines()[1].startswith("system:serviceaccount:agents:bot"), "what is to mend stands first"
    assert listed[0]["problem"] == "a machine"
    assert "rolebindings may not be read by you" in unread
    assert "rolebindings may not be read by you" in warned
    assert "nobody holds" not in unread
