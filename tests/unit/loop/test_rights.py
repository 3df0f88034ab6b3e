"""Whether somebody still may: yes, no, or nobody could tell."""

from __future__ import annotations

from typing import Any, cast

import pytest

from controller.errors import ApiUnavailable, Forbidden, Refused
from controller.kube.transport import Api
from controller.loop.rights import KubeRights


class Answers:
    """An API server that gives one answer to everything."""

    def __init__(self, answer: dict[str, Any] | Exception) -> None:
        self.answer, self.asked = answer, list[dict[str, Any]]()

    async def create(self, resource: object, namespace: str | None, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(body["spec"])
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def asked(answers: Answers) -> bool | None:
    return await KubeRights(cast(Api, answers)).may("olga", ("owners",), "approve", "shop", "checkout")


@pytest.mark.parametrize(
    ("answer", "may"),
    [
        ({"status": {"allowed": True}}, True),
        ({"status": {"allowed": False}}, False),
        ({"status": {}}, False),
        ({}, False),
        (ApiUnavailable("timeout"), None),
        (Forbidden("create subjectaccessreviews"), None),
        (Refused("by a webhook"), None),
    ],
    ids=["yes", "no", "no word", "nothing", "not answered", "not allowed to ask", "refused"],
)
async def test_what_the_api_server_says_is_a_right_and_its_silence_is_none(answer: Any, may: bool | None) -> None:
    assert await asked(Answers(answer)) is may


async def test_the_right_is_asked_for_by_name_with_the_groups_that_admission_saw() -> None:
    answers = Answers({"status": {"allowed": True}})

    await asked(answers)

    (spec,) = answers.asked
    assert (spec["user"], spec["groups"]) == ("olga", ["owners", "system:authenticated"])
    assert spec["resourceAttributes"] == {
        "group": "serin.dev",
        "resource": "canaries",
        "namespace": "shop",
        "name": "checkout",
        "verb": "approve",
    }
