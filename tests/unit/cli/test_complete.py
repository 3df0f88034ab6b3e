"""What the shell is offered at each place of a line."""

from __future__ import annotations

import pytest

from controller.cli.complete import candidates, takes_file
from controller.cli.kubectl import Failure
from tests.unit.cli.scenes import MemoryCluster, canary

CANARIES = "/apis/serin.dev/v1alpha1/namespaces/shop/canaries"


def offered(*words: str) -> list[str]:
    cluster = MemoryCluster({CANARIES: {"items": [canary()]}})
    return [line.partition("\t")[0] for line in candidates(words, cluster)]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        pytest.param(("a",), {"abort", "approve"}, id="a command"),
        pytest.param(("status", "-n", "shop", "che"), {"checkout"}, id="a Canary"),
        pytest.param(("status", "checkout", "-o", "j"), {"json"}, id="a choice of an option"),
        pytest.param(("abort", "--rea"), {"--reason"}, id="an option"),
    ],
)
def test_what_could_come_next_is_offered(words: tuple[str, ...], wanted: set[str]) -> None:
    assert wanted <= set(offered(*words))


@pytest.mark.parametrize("words", [("nonsense", ""), ("status", "-n", "shop", "zz"), ("list", "")])
def test_where_nothing_fits_nothing_is_offered(words: tuple[str, ...]) -> None:
    assert offered(*words) == []


def test_commands_are_offered_with_what_they_do() -> None:
    (line,) = candidates(["abo"], MemoryCluster({}))

    assert line == "abort\tall traffic to stable, now"


def test_a_cluster_that_does_not_answer_offers_nothing_and_says_nothing() -> None:
    class Silent(MemoryCluster):
        def read(self, path: str) -> dict[str, object]:
            raise Failure("no connection")

    assert list(candidates(["status", "-n", "shop", ""], Silent({}))) == []


@pytest.mark.parametrize(
    ("words", "fits"),
    [
        (("check", ""), True),
        (("check", "-f", "can"), True),
        (("plan", "-f", ""), True),
        (("attest", "--key", ""), True),
        (("status", "--kubeconfig", ""), True),
        (("status", "-o", ""), False),
        (("status", ""), False),
        (("plan", ""), False),
        (("plan", "-"), False),
        (("nonsense", ""), False),
        ((), False),
    ],
)
def test_files_are_offered_where_a_file_belongs_and_nowhere_else(words: tuple[str, ...], fits: bool) -> None:
    assert takes_file(words) is fits
