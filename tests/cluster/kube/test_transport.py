"""What the API server really answers, and what becomes of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from controller.errors import (
    AlreadyExists,
    ApiThrottled,
    ApiUnavailable,
    Conflict,
    Forbidden,
    Gone,
    InvalidSpec,
    NotFound,
    Refused,
)
from controller.kube.objects import Object
from controller.kube.resources import CONFIGMAPS, DEPLOYMENTS, SECRETS, Resource
from controller.kube.transport import Api
from tests.cluster.kube.proxy import Proxy

POLICIES = Resource("admissionregistration.k8s.io", "v1", "validatingadmissionpolicies", "x", namespaced=False)
BINDINGS = Resource("admissionregistration.k8s.io", "v1", "validatingadmissionpolicybindings", "x", namespaced=False)


def settings(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": name}}, "data": data}


class Settings(Object, frozen=True, kw_only=True):
    data: dict[str, str] = {}


async def until_refused(write: Callable[[], Awaitable[Any]]) -> None:
    """A policy is in force some moments after it was written."""
    async with asyncio.timeout(120):
        while True:
            await write()


async def test_an_object_lives_through_create_read_patch_replace_and_delete(api: Api, namespace: str) -> None:
    made = await api.create(CONFIGMAPS, namespace, settings("a", x="1"), type=Settings)
    patched = await api.merge_patch(CONFIGMAPS, namespace, "a", {"data": {"x": None, "y": "2"}}, type=Settings)
    read = {"name": "a", "resourceVersion": patched.metadata.resource_version}
    replaced = await api.replace(CONFIGMAPS, namespace, "a", settings("a", z="3") | {"metadata": read})

    assert made.data == {"x": "1"}
    assert patched.data == {"y": "2"}
    assert replaced["data"] == {"z": "3"}
    await api.delete(CONFIGMAPS, namespace, "a", uid=made.metadata.uid)
    assert await api.find(CONFIGMAPS, namespace, "a", Settings) is None


async def test_a_dry_run_changes_nothing(api: Api, namespace: str) -> None:
    await api.create(CONFIGMAPS, namespace, settings("a"), dry_run=True)

    with pytest.raises(NotFound):
        await api.get(CONFIGMAPS, namespace, "a")


async def test_a_long_list_comes_in_pages_and_whole(api: Api, namespace: str) -> None:
    await asyncio.gather(*(api.create(CONFIGMAPS, namespace, settings(f"n{n}")) for n in range(25)))

    listing = await api.list(CONFIGMAPS, namespace, Settings, limit=4)
    selected = await api.list(CONFIGMAPS, namespace, label_selector="app in (n3,n4)")

    assert {f"n{n}" for n in range(25)} <= {item.metadata.name for item in listing.items}
    assert int(listing.resource_version) > 0
    assert {item["metadata"]["name"] for item in selected.items} == {"n3", "n4"}


async def test_one_object_of_another_shape_does_not_spoil_a_list(api: Api, namespace: str) -> None:
    class Odd(Object, frozen=True, kw_only=True):
        data: dict[str, int]

    await api.create(CONFIGMAPS, namespace, settings("a", x="not a number"))

    listing = await api.list(CONFIGMAPS, namespace, Odd)

    assert listing.items == []
    assert "a" in {key.removeprefix(f"{namespace}/") for key in listing.unreadable}
    with pytest.raises(InvalidSpec):
        await api.get(CONFIGMAPS, namespace, "a", Odd)


async def test_a_json_patch_whose_test_fails_is_a_conflict_and_changes_nothing(api: Api, namespace: str) -> None:
    await api.create(CONFIGMAPS, namespace, settings("a", x="1"))
    stale = [{"op": "test", "path": "/data/x", "value": "0"}, {"op": "replace", "path": "/data/x", "value": "9"}]

    with pytest.raises(Conflict):
        await api.json_patch(CONFIGMAPS, namespace, "a", stale)
    with pytest.raises(Conflict):
        await api.json_patch(CONFIGMAPS, namespace, "a", [{"op": "remove", "path": "/data/nothing"}])
    with pytest.raises(Conflict):
        await api.json_patch(
            CONFIGMAPS, namespace, "a", [{"op": "test", "path": "/metadata/resourceVersion", "value": "1"}]
        )

    assert (await api.get(CONFIGMAPS, namespace, "a"))["data"] == {"x": "1"}


async def test_stale_versions_and_foreign_uids_are_conflicts(api: Api, namespace: str) -> None:
    made = await api.create(CONFIGMAPS, namespace, settings("a"), type=Settings)
    await api.merge_patch(CONFIGMAPS, namespace, "a", {"data": {"x": "1"}})
    stale = {"metadata": {"resourceVersion": made.metadata.resource_version}}

    with pytest.raises(Conflict):
        await api.merge_patch(CONFIGMAPS, namespace, "a", stale | {"data": {"x": "2"}})
    with pytest.raises(Conflict):
        await api.delete(CONFIGMAPS, namespace, "a", uid="another")
    with pytest.raises(Conflict):
        await api.delete(CONFIGMAPS, namespace, "a", resource_version=made.metadata.resource_version)
    with pytest.raises(AlreadyExists):
        await api.create(CONFIGMAPS, namespace, settings("a"))


async def test_what_the_schema_refuses_is_refused_also_in_a_json_patch(api: Api, namespace: str) -> None:
    await api.create(CONFIGMAPS, namespace, settings("a"))
    bad = [{"op": "add", "path": "/metadata/labels/x", "value": "not a label value!"}]

    with pytest.raises(Refused):
        await api.json_patch(CONFIGMAPS, namespace, "a", bad)
    with pytest.raises(Refused):
        await api.create(DEPLOYMENTS, namespace, {"metadata": {"name": "a"}, "spec": {}})


async def test_an_admission_policy_refuses_with_its_own_words(api: Api, namespace: str) -> None:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]}
    name = f"refuse-{namespace}"
    policy = {
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": "object.data.x != 'bad'", "message": "write something better"}],
            "matchConditions": [
                {"name": "ours", "expression": f"request.namespace == '{namespace}' && has(object.data)"}
            ],
        },
    }
    await api.create(POLICIES, None, policy)
    await api.create(
        BINDINGS, None, {"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}}
    )
    try:
        await api.create(CONFIGMAPS, namespace, settings("a", x="good"))
        patch = [{"op": "replace", "path": "/data/x", "value": "bad"}]
        with pytest.raises(Refused, match="write something better"):
            await until_refused(lambda: api.json_patch(CONFIGMAPS, namespace, "a", patch, dry_run=True))
    finally:
        await api.delete(BINDINGS, None, name)
        await api.delete(POLICIES, None, name)


async def test_missing_rights_name_verb_and_resource(api: Api, namespace: str, credentials: Any) -> None:
    class Nobody:
        def __getattr__(self, name: str) -> Any:
            return getattr(credentials, name)

        async def headers(self) -> dict[str, str]:
            return {"Impersonate-User": "nobody"}

    async with Api(Nobody()) as nobody:  # type: ignore[arg-type]
        with pytest.raises(Forbidden, match=r'cannot list resource "secrets"'):
            await nobody.list(SECRETS, namespace)


async def test_a_watch_from_a_forgotten_version_is_gone(api: Api) -> None:
    async def follow() -> None:
        # A busy server may let one stream end before it has said anything.
        async with asyncio.timeout(60):
            while True:
                async with api.watch(CONFIGMAPS, resource_version="1", lasts=5, idle=5) as events:
                    async for _ in events:
                        pass

    with pytest.raises(Gone):
        await follow()


async def test_a_server_that_does_not_answer_is_unavailable_within_the_timeout(through: Api, proxy: Proxy) -> None:
    proxy.fault(hang=True)
    started = time.monotonic()

    with pytest.raises(ApiUnavailable, match="no answer in time"):
        await through.read("/version")

    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("status", "error"),
    [(409, Conflict), (410, Gone), (429, ApiThrottled), (500, ApiUnavailable), (504, ApiUnavailable)],
)
async def test_injected_answers(through: Api, proxy: Proxy, status: int, error: type[Exception]) -> None:
    proxy.fault(status=status, retry_after=3)

    with pytest.raises(error) as raised:
        await through.read("/version")

    assert getattr(raised.value, "retry_after", 3.0) == 3.0


async def test_a_write_whose_reply_is_lost_is_not_sent_again(
    api: Api, through: Api, proxy: Proxy, namespace: str
) -> None:
    proxy.fault(method="POST", cut_reply=True)

    with pytest.raises(ApiUnavailable):
        await through.create(CONFIGMAPS, namespace, settings("a"))

    assert proxy.count("POST", "configmaps") == 1
    assert await api.find(CONFIGMAPS, namespace, "a", Settings) is not None


async def test_urgent_calls_do_not_wait_behind_a_flood_of_slow_ones(proxy: Proxy) -> None:
    proxy.fault(path="/api/v1/configmaps", hang=True)
    async with Api(proxy.credentials, timeout=30.0) as patient:
        flood = [asyncio.create_task(patient.list(CONFIGMAPS)) for _ in range(100)]
        await asyncio.sleep(0.1)

        async with asyncio.timeout(10):
            await patient.list(DEPLOYMENTS, lane="urgent")

        assert not any(task.done() for task in flood)
        for task in flood:
            task.cancel()
