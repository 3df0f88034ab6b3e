"""Every answer of the API server has one meaning. The bodies are as a real one sends them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controller.errors import (
    AlreadyExists,
    ApiThrottled,
    ApiUnavailable,
    Conflict,
    Forbidden,
    Gone,
    NotFound,
    Refused,
)
from controller.kube.answers import LONGEST, error_of, parse_status


def answer(code: int, reason: str = "", message: str = "", **details: Any) -> bytes:
    return json.dumps(
        {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message, "details": details}
    ).encode()


RBAC = 'deployments.apps "cart" is forbidden: User "x" cannot patch resource "deployments" in API group "apps"'
QUOTA = 'pods "cart" is forbidden: exceeded quota: small, requested: pods=1, used: pods=5, limited: pods=5'
POLICY = (
    "deployments.apps \"cart\" is forbidden: ValidatingAdmissionPolicy 'hold' with binding 'hold' denied request: no"
)


@pytest.mark.parametrize(
    ("code", "body", "error"),
    [
        pytest.param(404, answer(404, "NotFound", "gone"), NotFound, id="nothing there"),
        pytest.param(409, answer(409, "AlreadyExists", "taken"), AlreadyExists, id="the name is taken"),
        pytest.param(409, answer(409, "Conflict", "modified"), Conflict, id="changed since read"),
        pytest.param(410, answer(410, "Expired", "too old"), Gone, id="resource version expired"),
        pytest.param(401, answer(401, "Unauthorized", "Unauthorized"), Forbidden, id="token no longer valid"),
        pytest.param(403, answer(403, "Forbidden", RBAC), Forbidden, id="RBAC"),
        pytest.param(403, answer(403, "Forbidden", QUOTA, name="cart"), Refused, id="quota"),
        pytest.param(422, answer(422, "Invalid", POLICY, name="cart"), Refused, id="admission policy"),
        pytest.param(422, answer(422, "Invalid", "bad", causes=[{"field": "spec"}]), Refused, id="schema"),
        pytest.param(400, answer(400, "BadRequest", "bad"), Refused, id="bad request"),
        pytest.param(429, answer(429, "TooManyRequests", "later"), ApiThrottled, id="throttled"),
        pytest.param(500, answer(500, "InternalError", "etcd"), ApiUnavailable, id="internal error"),
        pytest.param(502, b"<html>bad gateway</html>", ApiUnavailable, id="a balancer's page"),
        pytest.param(504, b"", ApiUnavailable, id="empty"),
    ],
)
def test_what_an_answer_means(code: int, body: bytes, error: type[Exception]) -> None:
    assert type(error_of(parse_status(body, code), "patch deployments.apps shop/cart")) is error


def test_a_failed_test_of_a_json_patch_is_a_conflict_and_a_refused_one_is_not() -> None:
    mismatch = parse_status(
        answer(422, "Invalid", "the server rejected our request due to an error in our request"), 422
    )
    refusal = parse_status(answer(422, "Invalid", POLICY, name="cart"), 422)

    assert isinstance(error_of(mismatch, "patch x", json_patch=True), Conflict)
    assert isinstance(error_of(mismatch, "update x"), Refused)
    assert isinstance(error_of(refusal, "patch x", json_patch=True), Refused)


@pytest.mark.parametrize(
    ("body", "headers", "seconds"),
    [
        pytest.param(answer(429), {"Retry-After": "7"}, 7.0, id="header"),
        pytest.param(answer(429, retryAfterSeconds=3), {}, 3.0, id="body"),
        pytest.param(answer(429), {}, 1.0, id="neither"),
        pytest.param(answer(429), {"Retry-After": "soon"}, 1.0, id="nonsense"),
        pytest.param(answer(429), {"Retry-After": "3600"}, LONGEST, id="an hour, of what stands before the server"),
        pytest.param(answer(429), {"Retry-After": "inf"}, LONGEST, id="for ever"),
        pytest.param(answer(429, retryAfterSeconds=86400), {}, LONGEST, id="a day, in the body"),
    ],
)
def test_how_long_a_throttled_call_waits(body: bytes, headers: dict[str, str], seconds: float) -> None:
    error = error_of(parse_status(body, 429), "list pods", headers)

    assert isinstance(error, ApiThrottled)
    assert error.retry_after == seconds


def test_a_forbidden_call_names_verb_and_resource() -> None:
    error = error_of(parse_status(answer(403, "Forbidden", RBAC), 403), "patch deployments.apps shop/cart")

    assert "patch deployments.apps shop/cart" in str(error)
    assert 'cannot patch resource "deployments"' in str(error)
