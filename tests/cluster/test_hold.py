"""Edits are held by the API server, and a Deployment is tried and released, on a real control plane.

The rows of both tables of the design: how people and tools edit a Deployment, and what each moment of a rollout
does to it. The controller does not run here; its workload adapter is called as its own service account.
"""

import asyncio
import json
import secrets
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from controller.errors import Conflict, Fenced, NeedsUser, Refused
from controller.kube.resources import SERVICES, Resource
from controller.kube.transport import Api
from controller.model.spec import CanarySpec, parse_canary_spec
from controller.model.status import Stable
from controller.model.world import Target
from controller.ports import Ref
from controller.workloads.deployment import DeploymentWorkload
from tests.cluster.cluster import write_kubeconfig
from tests.cluster.conftest import RunningCluster
from tests.cluster.objects import (
    CommandFailed,
    apply,
    eventually,
    get,
    kubectl,
    namespace_object,
    shop_deployment,
    shop_service,
    state_dir,
)

MANIFESTS = Path(__file__).parents[2] / "manifests"
SERIN = "system:serviceaccount:serin-system:serin-controller"
CANARIES = Resource("serin.dev", "v1alpha1", "canaries", "Canary")
RECORDS = Resource("serin.dev", "v1alpha1", "releaserecords", "ReleaseRecord")

Object = dict[str, Any]
T = TypeVar("T")


@pytest.fixture(scope="module")
def installed(cluster: RunningCluster) -> None:
    """Serin without its controller: kinds, rights and admission."""
    apply([namespace_object("serin-system")])
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(MANIFESTS / "crd"))
    for name in ("canaries", "releaserecords"):
        kubectl("wait", f"crd/{name}.serin.dev", "--for=condition=Established", "--timeout=180s")
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(MANIFESTS / "rbac"))
    for file in ("hold.yaml", "config.yaml", "records.yaml"):
        kubectl("apply", "--server-side", "--force-conflicts", "-f", str(MANIFESTS / "admission" / file))


async def until(check: Callable[[], Awaitable[T]], within: float = 120.0) -> T:
    """Ask again until the answer is true. Raises `TimeoutError`."""
    async with asyncio.timeout(within):
        while True:
            if answer := await check():
                return answer
            await asyncio.sleep(0.02)


@dataclass
class Story:
    """One Deployment under one Canary, and the workload adapter as the controller has it."""

    namespace: str
    api: Api
    workload: DeploymentWorkload
    ref: Ref
    spec: CanarySpec
    stable: Stable

    async def target(self, candidate: str = "") -> Target:
        found = await self.workload.read_target(self.ref, self.spec, self.stable.hash, candidate)
        assert found is not None
        return found

    async def write(self, change: str, *args: Any, **options: Any) -> None:
        """A change of the target as the loop makes it: after a conflict it looks again."""
        while True:
            try:
                target = await self.target()
                return await getattr(self.workload, change)(self.ref, self.spec, target, *args, **options)
            except Conflict:
                continue

    async def remember(self, **status: Any) -> None:
        """Write the Canary's status as the controller does."""
        body = {"status": {"leaderEpoch": 1} | status}
        await self.api.merge_patch(CANARIES, self.namespace, self.ref.name, body, subresource="status")

    def kubectl(self, *args: str, **options: Any) -> str:
        return kubectl("-n", self.namespace, *args, **options)

    def deployment(self) -> Object:
        return get("deployment", "shop", self.namespace)

    def pods(self, selector: str = "app=shop") -> dict[str, Object]:
        return {pod["metadata"]["uid"]: pod for pod in get("pods", "", self.namespace, selector)["items"]}

    def replicasets(self) -> dict[str, Object]:
        return {found["metadata"]["name"]: found for found in get("replicasets", "", self.namespace)["items"]}

    def edit(self, revision: str = "v2", *how: str) -> None:
        """The owner ships another image."""
        self.kubectl("set", "image", "deployment/shop", f"app=registry.local/shop:{revision}", *how)

    def until_refused(self, words: str) -> None:
        """Admission goes by the Canary's status; it hears of it from a watch of its own."""
        eventually(lambda: is_refused(lambda: self.edit("v3", "--dry-run=server"), words))


def manifest(story: Story, revision: str = "v2", replicas: int = 2) -> Object:
    return shop_deployment("shop", story.namespace, revision, replicas)


@pytest.fixture
def place(namespace: str, installed: None) -> str:
    """A namespace whose pods are Ready without processes, with one Deployment that has had two revisions."""
    kubectl("label", "namespace", namespace, "tests.serin.dev/no-process=true")
    for revision in ("v0", "v1"):
        kubectl("apply", "-f", "-", stdin=shop_deployment("shop", namespace, revision))
        kubectl("rollout", "status", "deployment/shop", "-n", namespace, "--timeout=180s")
    apply([shop_service("shop", namespace)])
    # A roll is over while the last pods of the revision before still end.
    eventually(lambda: len(get("pods", "", namespace, "app=shop")["items"]) == 2)
    return namespace


async def open_api() -> Api:
    """The API as Serin's service account: its rights are those of manifests/rbac."""
    groups = ["system:serviceaccounts", "system:serviceaccounts:serin-system", "system:authenticated"]
    return await Api.connect(str(write_kubeconfig(state_dir(), SERIN, groups)))


@pytest.fixture
async def adopted(place: str) -> AsyncIterator[Story]:
    """The Deployment adopted by a Canary, and the hold proven."""
    wanted = {
        "targetRef": {"kind": "Deployment", "name": "shop"},
        "traffic": {"service": {"name": "shop", "port": 80}, "httpRoute": {"name": "shop"}},
    }
    body = {
        "apiVersion": "serin.dev/v1alpha1",
        "kind": "Canary",
        "metadata": {"name": "shop", "namespace": place},
        "spec": wanted,
    }
    apply([body])
    made = get("canaries.serin.dev", "shop", place)
    async with await open_api() as api:
        workload = DeploymentWorkload(api, now=lambda: datetime.now(UTC))
        ref, spec = Ref(place, "shop", made["metadata"]["uid"]), parse_canary_spec(wanted)

        async def settled() -> Target | None:
            found = await workload.read_target(ref, spec, "", "")
            return found if found is not None and found.settled_hash else None

        target = await until(settled)
        assert target is not None
        stable = Stable(
            uid=target.uid,
            hash=target.settled_hash,
            template_hash=target.settled_template_hash,
            template=target.settled_template,
        )
        story = Story(place, api, workload, ref, spec, stable)
        await story.remember(phase="Idle", stable=msgspec.to_builtins(stable))
        await until(lambda: workload.prove_hold(ref, spec, target))
        yield story


def client_side(story: Story) -> None:
    story.kubectl("apply", "-f", "-", stdin=manifest(story))


def server_side(story: Story) -> None:
    story.kubectl(
        "apply", "--server-side", "--force-conflicts", "--field-manager=team", "-f", "-", stdin=manifest(story)
    )


def replace(story: Story) -> None:
    story.kubectl("replace", "-f", "-", stdin=manifest(story))


def restart(story: Story) -> None:
    story.kubectl("rollout", "restart", "deployment/shop")


def undo(story: Story) -> None:
    story.kubectl("rollout", "undo", "deployment/shop")


@pytest.mark.parametrize("edit", [client_side, server_side, replace, Story.edit, restart, undo])
async def test_whatever_edits_the_template_is_held(adopted: Story, edit: Callable[[Story], None]) -> None:
    pods, replicasets = adopted.pods().keys(), adopted.replicasets().keys()
    edit(adopted)
    assert adopted.deployment()["spec"]["paused"] is True
    eventually(lambda: adopted.deployment()["status"]["observedGeneration"] >= 3)
    assert adopted.replicasets().keys() == replicasets
    assert adopted.pods().keys() == pods
    held = await adopted.target()
    assert held.template_hash != adopted.stable.template_hash
    assert held.settled_hash == adopted.stable.hash


async def test_a_held_edit_stays_held_whoever_tries_to_let_it_go(adopted: Story) -> None:
    client_side(adopted)
    client_side(adopted)
    assert adopted.deployment()["spec"]["paused"] is True
    for attempt in (lambda: adopted.kubectl("rollout", "resume", "deployment/shop"), lambda: replace(adopted)):
        with pytest.raises(CommandFailed, match="held by Canary shop"):
            attempt()
    through_status = '{"spec": {"paused": false, "template": {"spec": {"terminationGracePeriodSeconds": 3}}}}'
    adopted.kubectl("patch", "deployment", "shop", "--subresource=status", "--type=merge", "-p", through_status)
    held = adopted.deployment()["spec"]
    assert held["paused"] is True
    assert held["template"]["spec"]["terminationGracePeriodSeconds"] == 30


async def test_while_held_new_pods_have_the_old_template(adopted: Story) -> None:
    adopted.edit()
    adopted.kubectl("scale", "deployment/shop", "--replicas=3")
    victim = next(iter(adopted.pods().values()))["metadata"]["name"]
    adopted.kubectl("delete", "pod", victim, "--wait=false")

    def three_old() -> bool:
        alive = [pod for pod in adopted.pods().values() if "deletionTimestamp" not in pod["metadata"]]
        hashes = {pod["metadata"]["labels"]["pod-template-hash"] for pod in alive}
        return len(alive) == 3 and hashes == {adopted.stable.hash}

    eventually(three_old)


def is_refused(act: Callable[[], object], words: str) -> bool:
    """Whether the API server says no, in these words."""
    try:
        act()
    except CommandFailed as error:
        return words in str(error)
    return False


async def test_an_edit_while_releasing_is_refused_and_the_roll_goes_on(adopted: Story) -> None:
    adopted.edit()
    await adopted.remember(phase="Releasing", stable=msgspec.to_builtins(adopted.stable))
    await adopted.write("release", epoch="1.0")

    words = "being released by Canary shop: retry when it has finished"
    adopted.until_refused(words)
    assert is_refused(lambda: adopted.edit("v3"), words)
    adopted.kubectl("rollout", "status", "deployment/shop", "--timeout=180s")
    image = adopted.deployment()["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == "registry.local/shop:v2"


async def test_on_the_way_back_from_a_release_only_stables_template_is_let_in(adopted: Story) -> None:
    adopted.edit()
    attempt = {"id": "a1", "templateHash": "x", "startedAt": "2026-11-21T12:00:00Z", "plan": [], "releasing": True}
    await adopted.remember(phase="RollingBack", attempt=attempt, stable=msgspec.to_builtins(adopted.stable))
    await adopted.write("release", epoch="1.0")

    words = "being rolled back by Canary shop: retry when it has finished"
    adopted.until_refused(words)
    assert is_refused(lambda: adopted.edit("v3"), words)
    back = json.dumps([{"op": "replace", "path": "/spec/template", "value": adopted.stable.template}])
    adopted.kubectl("patch", "deployment", "shop", "--type=json", "-p", back)
    assert adopted.deployment()["spec"]["template"]["spec"] == adopted.stable.template["spec"]


def test_before_stable_is_recorded_an_edit_rolls_natively(place: str) -> None:
    kubectl("set", "image", "deployment/shop", "app=registry.local/shop:v2", "-n", place)
    kubectl("rollout", "status", "deployment/shop", "-n", place, "--timeout=180s")
    assert "paused" not in get("deployment", "shop", place)["spec"]


async def test_a_deployment_made_again_under_the_same_name_is_not_held(adopted: Story) -> None:
    adopted.kubectl("delete", "deployment", "shop")
    client_side(adopted)
    adopted.edit("v3")
    assert "paused" not in adopted.deployment()["spec"]


async def test_a_canary_that_is_going_holds_nothing_new(adopted: Story) -> None:
    adopted.kubectl(
        "patch", "canary", "shop", "--type=merge", "-p", '{"metadata":{"finalizers":["serin.dev/release"]}}'
    )
    adopted.kubectl("delete", "canary", "shop", "--wait=false")
    target = await adopted.target()

    async def is_free() -> bool:
        return not await adopted.workload.prove_hold(adopted.ref, adopted.spec, target)

    await until(is_free)
    adopted.edit()
    assert "paused" not in adopted.deployment()["spec"]
    adopted.kubectl("patch", "canary", "shop", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')


async def test_a_canary_that_was_let_go_before_an_uninstall_holds_nothing_new_until_serin_is_back(
    adopted: Story,
) -> None:
    """The Canary stays, the policies go some seconds later, and nobody would let go of what they hold until then."""
    target = await adopted.target()

    async def is_free() -> bool:
        return not await adopted.workload.prove_hold(adopted.ref, adopted.spec, target)

    async def is_held() -> bool:
        return not await is_free()

    await adopted.remember(phase="Idle", reason="Left")
    await until(is_free)
    await adopted.remember(phase="Idle", reason="ProvingHold")
    await until(is_held)
    await adopted.remember(phase="Idle", reason="Left")
    await until(is_free)
    adopted.edit()
    assert "paused" not in adopted.deployment()["spec"]


def let_edit(story: Story, user: str) -> None:
    """The rights of a service team: its Deployments, and nothing of Serin."""
    story.kubectl("create", "role", "edit", "--verb=get,patch,update", "--resource=deployments.apps")
    story.kubectl("create", "rolebinding", "edit", "--role=edit", f"--user={user}")


def let_detach(story: Story, user: str) -> None:
    story.kubectl("create", "role", "detach", "--verb=detach", "--resource=canaries.serin.dev", "--resource-name=shop")
    story.kubectl("create", "rolebinding", "detach", "--role=detach", f"--user={user}")


async def test_who_paused_stables_own_template_may_resume_it(adopted: Story) -> None:
    let_edit(adopted, "dora")
    eventually(lambda: adopted.kubectl("rollout", "pause", "deployment/shop", user="dora"))
    adopted.kubectl("rollout", "resume", "deployment/shop", user="dora")
    assert "paused" not in adopted.deployment()["spec"]


async def test_the_verb_detach_brings_stables_template_back_while_releasing(adopted: Story) -> None:
    let_edit(adopted, "dora")
    adopted.edit()
    await adopted.remember(phase="Releasing", stable=msgspec.to_builtins(adopted.stable))
    await adopted.write("release", epoch="1.0")
    back = json.dumps([{"op": "replace", "path": "/spec/template", "value": adopted.stable.template}])

    def patch(template: str, *how: str) -> str:
        return adopted.kubectl("patch", "deployment", "shop", "--type=json", "-p", template, *how, user="dora")

    eventually(lambda: is_refused(lambda: patch(back, "--dry-run=server"), "being released by Canary shop"))
    let_detach(adopted, "dora")
    other = json.dumps([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "else:1"}])
    eventually(lambda: patch(back))
    with pytest.raises(CommandFailed, match="being released by Canary shop"):
        patch(other)


async def test_the_verb_detach_frees_a_held_edit_only_when_its_canary_is_going(adopted: Story) -> None:
    let_edit(adopted, "dora")
    let_detach(adopted, "dora")
    adopted.edit()
    resume = ("rollout", "resume", "deployment/shop")
    eventually(lambda: is_refused(lambda: adopted.kubectl(*resume, user="dora"), "held by Canary shop"))
    adopted.kubectl(
        "patch", "canary", "shop", "--type=merge", "-p", '{"metadata":{"finalizers":["serin.dev/release"]}}'
    )
    adopted.kubectl("delete", "canary", "shop", "--wait=false")
    eventually(lambda: adopted.kubectl("rollout", "resume", "deployment/shop", user="dora"))
    adopted.kubectl("patch", "canary", "shop", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')


async def test_a_withdrawn_edit_leaves_no_trace_on_the_target(adopted: Story) -> None:
    server_side(adopted)
    await adopted.write("pause", epoch="1.1")
    assert adopted.deployment()["metadata"]["annotations"]["serin.dev/epoch"] == "1.1"
    await adopted.write("restore", adopted.stable.template, epoch="1.1", paused=False)
    after = get("deployment", "shop", adopted.namespace)
    assert "paused" not in after["spec"]
    assert "serin.dev/epoch" not in after["metadata"]["annotations"]
    assert not [entry for entry in managers(adopted, "deployment") if entry == "serin"]


def managers(story: Story, kind: str, name: str = "shop") -> list[str]:
    body = json.loads(story.kubectl("get", kind, name, "-o", "json", "--show-managed-fields"))
    return [entry["manager"] for entry in body["metadata"]["managedFields"]]


async def test_the_owners_server_side_apply_never_conflicts_with_us(adopted: Story) -> None:
    def owner_applies(body: Object) -> None:
        adopted.kubectl("apply", "--server-side", "--field-manager=helm", "-f", "-", stdin=body)

    service = shop_service("shop", adopted.namespace)
    adopted.kubectl(
        "apply", "--server-side", "--force-conflicts", "--field-manager=helm", "-f", "-", stdin=manifest(adopted)
    )
    adopted.kubectl("apply", "--server-side", "--force-conflicts", "--field-manager=helm", "-f", "-", stdin=service)
    await adopted.workload.pin(adopted.ref, adopted.spec, adopted.stable.hash)
    assert get("service", "shop", adopted.namespace)["spec"]["selector"]["pod-template-hash"] == adopted.stable.hash
    owner_applies(service)
    assert "pod-template-hash" not in get("service", "shop", adopted.namespace)["spec"]["selector"]
    await adopted.write("restore", adopted.stable.template, epoch="1.1", paused=True)
    owner_applies(manifest(adopted))
    await adopted.write("release", epoch="1.1")
    owner_applies(manifest(adopted))


async def test_the_api_server_leaves_our_name_out_in_the_request_that_writes(adopted: Story) -> None:
    policy = str(MANIFESTS / "admission" / "disown.yaml")
    kubectl("apply", "-f", policy)
    owners = {"app": "shop"}

    async def is_left_out() -> bool:
        other = owners | {"probe": secrets.token_hex(4)}
        ops = [{"op": "add", "path": "/spec/selector", "value": other}]
        body = await adopted.api.json_patch(SERVICES, adopted.namespace, "shop", ops)
        return "serin" not in [entry["manager"] for entry in body["metadata"]["managedFields"]]

    try:
        await until(is_left_out)
        service = shop_service("shop", adopted.namespace, owners)
        adopted.kubectl("apply", "--server-side", "--field-manager=helm", "-f", "-", stdin=service)
    finally:
        # The other tests are about clusters that do not have it.
        kubectl("delete", "-f", policy)
    assert get("service", "shop", adopted.namespace)["spec"]["selector"] == owners


async def test_pins_keep_every_service_on_stable_and_come_off_without_a_trace(adopted: Story) -> None:
    apply([shop_service("second", adopted.namespace, {"app": "shop"})])
    adopted.edit()
    target = await adopted.target()
    before = {name: get("service", name, adopted.namespace) for name in ("shop", "second")}
    await adopted.workload.pin(adopted.ref, adopted.spec, adopted.stable.hash)
    pins = await adopted.workload.read_pins(adopted.ref, adopted.spec, target, adopted.stable.hash)
    assert (pins.any_pin, pins.problems) == (True, ())
    assert {get("service", name, adopted.namespace)["spec"]["selector"]["pod-template-hash"] for name in before} == {
        adopted.stable.hash
    }
    await adopted.workload.unpin(adopted.ref, adopted.spec)
    for name, was in before.items():
        now = get("service", name, adopted.namespace)
        assert now["spec"] == was["spec"]
        assert "serin.dev/pinned" not in now["metadata"].get("annotations", {})
        assert "serin" not in managers(adopted, "service", name)


async def test_a_service_that_cannot_be_pinned_is_named_and_nothing_is_touched(adopted: Story) -> None:
    apply([shop_service("second", adopted.namespace, {"app": "shop", "pod-template-hash": adopted.stable.hash})])
    with pytest.raises(NeedsUser, match="second") as refused:
        await adopted.workload.pin(adopted.ref, adopted.spec, adopted.stable.hash)
    assert refused.value.reason == "ServiceNotPinnable"
    assert "pod-template-hash" not in get("service", "shop", adopted.namespace)["spec"]["selector"]


async def start_canary(story: Story, attempt: str = "a1", replicas: int = 1, epoch: str = "1.0") -> None:
    await story.write("apply_canary", attempt=attempt, replicas=replicas, epoch=epoch)


async def test_a_canary_runs_beside_the_target_and_neither_adopts_the_other(adopted: Story) -> None:
    adopted.edit()
    await adopted.workload.pin(adopted.ref, adopted.spec, adopted.stable.hash)
    await start_canary(adopted, replicas=2)

    async def serving() -> Any:
        seen = await adopted.workload.read_canary(adopted.ref, adopted.spec)
        return seen if (seen.ready, seen.endpoints) == (2, 2) else None

    seen = await until(serving)
    assert (seen.attempt, seen.wanted, seen.epoch, seen.trouble) == ("a1", 2, "1.0", "")
    target = await adopted.target()
    assert (target.replicas, target.stable_ready, target.settled_hash) == (2, 2, adopted.stable.hash)

    async def only_stable() -> bool:
        return (await adopted.workload.read_pins(adopted.ref, adopted.spec, target, adopted.stable.hash)).pinned

    assert await until(only_stable)
    canary = get("deployment", "shop-canary", adopted.namespace)
    owners = [
        found["metadata"]["ownerReferences"][0]["uid"]
        for found in adopted.replicasets().values()
        if "serin.dev/canary" in found["metadata"]["labels"]
    ]
    assert owners == [canary["metadata"]["uid"]]
    before = adopted.pods("serin.dev/canary=a1").keys()
    await adopted.workload.replace_pods(adopted.ref, adopted.spec, epoch="1.1")
    eventually(lambda: len(adopted.pods("serin.dev/canary=a1").keys() - before) == 2)
    await adopted.workload.delete_canary(adopted.ref, adopted.spec)
    eventually(lambda: not adopted.pods("serin.dev/canary=a1"))
    assert not (await adopted.workload.read_canary(adopted.ref, adopted.spec)).exists
    eventually(lambda: len(adopted.pods()) == 2)


async def test_a_canary_of_an_older_attempt_goes_before_the_next_comes(adopted: Story) -> None:
    adopted.edit()
    await start_canary(adopted)
    first = get("deployment", "shop-canary", adopted.namespace)["metadata"]["uid"]

    async def second() -> bool:
        await start_canary(adopted, "a2", epoch="1.1")
        return (await adopted.workload.read_canary(adopted.ref, adopted.spec)).attempt == "a2"

    await until(second)
    assert get("deployment", "shop-canary", adopted.namespace)["metadata"]["uid"] != first
    assert get("service", "shop-canary", adopted.namespace)["spec"]["selector"]["serin.dev/canary"] == "a2"


async def test_an_object_of_that_name_that_is_not_ours_is_left_alone(adopted: Story) -> None:
    apply([shop_deployment("shop-canary", adopted.namespace)])
    adopted.edit()
    with pytest.raises(NeedsUser, match="shop-canary") as taken:
        await start_canary(adopted)
    assert taken.value.reason == "NameTaken"
    await adopted.workload.delete_canary(adopted.ref, adopted.spec)
    assert get("deployment", "shop-canary", adopted.namespace)["spec"]["replicas"] == 2


async def test_a_late_write_of_an_older_leader_or_of_an_older_read_does_nothing(adopted: Story) -> None:
    adopted.edit()
    await start_canary(adopted, epoch="2.0")
    with pytest.raises(Fenced):
        await start_canary(adopted, replicas=5, epoch="1.7")
    old = await adopted.target()
    adopted.edit("v3")
    with pytest.raises(Conflict):
        await adopted.workload.release(adopted.ref, adopted.spec, old, epoch="2.0")
    assert adopted.deployment()["spec"]["paused"] is True


async def test_a_quota_that_is_exceeded_is_the_canarys_trouble(adopted: Story) -> None:
    adopted.edit()
    adopted.kubectl("create", "quota", "small", "--hard=pods=2")
    eventually(lambda: get("resourcequota", "small", adopted.namespace)["status"]["used"]["pods"] == "2")
    await start_canary(adopted)

    async def trouble() -> str:
        return (await adopted.workload.read_canary(adopted.ref, adopted.spec)).trouble

    assert await until(trouble) == "QuotaExceeded"


@pytest.mark.parametrize(
    ("broken", "reasons"),
    [
        ({"image": "registry.local/nothing:1"}, {"ErrImagePull", "ImagePullBackOff"}),
        ({"env": [{"name": "SHOP_CRASH", "value": "1"}]}, {"CrashLoopBackOff", "ContainerRestarts"}),
    ],
    ids=["image that cannot be pulled", "crash loop"],
)
async def test_a_canary_that_does_not_start_says_why(adopted: Story, broken: Object, reasons: set[str]) -> None:
    adopted.kubectl("label", "namespace", adopted.namespace, "tests.serin.dev/no-process-")
    edit = {"spec": {"template": {"spec": {"containers": [{"name": "app"} | broken]}}}}
    adopted.kubectl("patch", "deployment", "shop", "-p", json.dumps(edit))
    await start_canary(adopted)

    async def trouble() -> str:
        return (await adopted.workload.read_canary(adopted.ref, adopted.spec)).trouble

    assert await until(trouble) in reasons


async def test_scaled_to_zero_and_up_while_held_brings_stable_back(adopted: Story) -> None:
    """The candidate's revision once existed: its empty ReplicaSet would come up instead."""
    undo(adopted)
    candidate = (await adopted.target()).template_hash
    (stale,) = (await adopted.target(candidate)).stale_replicasets
    await adopted.workload.delete_replicaset(adopted.ref, stale)
    adopted.kubectl("scale", "deployment/shop", "--replicas=0")
    eventually(lambda: not adopted.pods())
    adopted.kubectl("scale", "deployment/shop", "--replicas=2")
    eventually(lambda: len(adopted.pods()) == 2)
    hashes = {pod["metadata"]["labels"]["pod-template-hash"] for pod in adopted.pods().values()}
    assert hashes == {adopted.stable.hash}


async def test_a_replicaset_with_pods_is_never_deleted(adopted: Story) -> None:
    with pytest.raises(Conflict):
        await adopted.workload.delete_replicaset(adopted.ref, f"shop-{adopted.stable.hash}")


async def test_a_failed_release_rolls_back_to_stables_template(adopted: Story) -> None:
    adopted.edit()
    await adopted.write("release", epoch="1.0")
    assert (await adopted.target()).epoch == "1.0"
    eventually(lambda: len(adopted.replicasets()) == 3)
    await adopted.write("restore", adopted.stable.template, epoch="1.1", paused=False)
    adopted.kubectl("rollout", "status", "deployment/shop", "--timeout=180s")
    assert (await adopted.target()).settled_hash == adopted.stable.hash


RECORD = {
    "canary": "shop",
    "canaryUid": "u",
    "attempt": "a1",
    "startedAt": "2026-11-21T12:00:00Z",
    "templateHash": "abc",
    "origin": {"treated": "ai"},
    "steps": [{"step": 1, "weight": 1, "at": "2026-11-21T12:00:01Z"}],
}


async def test_a_record_only_grows_and_an_outcome_seals_it(place: str) -> None:
    body = {
        "apiVersion": "serin.dev/v1alpha1",
        "kind": "ReleaseRecord",
        "metadata": {"name": "shop-a1"},
        "spec": RECORD,
    }

    async with await open_api() as api:

        async def change(**fields: Any) -> None:
            await api.merge_patch(RECORDS, place, "shop-a1", {"spec": fields})

        async def policy_is_in_force() -> bool:
            try:
                kubectl("create", "--dry-run=server", "-n", place, "-f", "-", stdin=body)
            except CommandFailed as error:
                return "written by Serin's controller only" in str(error)
            return False

        await until(policy_is_in_force)
        await api.create(RECORDS, place, body)
        second = {"step": 2, "weight": 5, "at": "2026-11-21T12:00:09Z"}
        await change(steps=[*RECORD["steps"], second], planDigest="sha256:1")
        for attack in (
            {"steps": [second]},
            {"steps": []},
            {"steps": [second, *RECORD["steps"]]},
            {"templateHash": "xyz"},
            {"planDigest": None},
            {"origin": {"treated": "human"}},
        ):
            with pytest.raises(Refused):
                await change(**attack)
        with pytest.raises(Refused, match=r"spec\.hash must come with it"):
            await change(outcome="Promoted", finishedAt="2026-11-21T12:01:00Z")
        await change(outcome="Promoted", finishedAt="2026-11-21T12:01:00Z", hash="sha256:0")
        for attack in ({"message": "later"}, {"outcome": None}):
            with pytest.raises(Refused, match="sealed"):
                await change(**attack)
        with pytest.raises(CommandFailed, match="written by Serin's controller only"):
            kubectl("label", "releaserecord", "shop-a1", "-n", place, "a=b")


async def test_who_edits_configuration_in_place_is_told_that_nobody_can_hold_it(adopted: Story) -> None:
    for name in ("settings", "unrelated"):
        adopted.kubectl("create", "configmap", name, "--from-literal=limit=1")
    await adopted.remember(phase="Idle", stable=msgspec.to_builtins(adopted.stable) | {"uses": ["ConfigMap/settings"]})

    def warned(name: str, change: str) -> str:
        command = ["kubectl", "-n", adopted.namespace, "patch", "configmap", name, "--type=merge", "-p", change]
        return subprocess.run(command, capture_output=True, text=True, check=True).stderr

    async def told() -> str:
        number = time.monotonic_ns()
        return await asyncio.to_thread(warned, "settings", json.dumps({"data": {"limit": str(number)}}))

    said = await until(told)
    assert "ConfigNotHeld: pods of Deployment shop (Canary shop) use this ConfigMap" in said
    assert "make a new one under another name" in said
    assert not warned("unrelated", '{"data": {"limit": "2"}}')
    assert not warned("settings", '{"metadata": {"labels": {"a": "b"}}}')
