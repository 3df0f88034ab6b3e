"""Records are verified without asking anybody of ours, and exported so that they can be later."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

import pytest

from controller.cli import records
from controller.cli.kubectl import Failure
from controller.cli.screen import WIPE, Screen
from controller.model.chain import grown
from tests.unit.cli.scenes import MemoryCluster, canary

Object = dict[str, Any]
RECORDS = "/apis/serin.dev/v1alpha1/namespaces/shop/releaserecords"
CANARY = "/apis/serin.dev/v1alpha1/namespaces/shop/canaries/checkout"


def chain(length: int = 3) -> list[Object]:
    """Sealed records of one Canary, as the API server sends them."""
    made: list[Object] = []
    for number in range(1, length + 1):
        attempt = f"2026030{number}-120000"
        spec = {"canary": "checkout", "attempt": attempt, "number": number, "startedAt": f"2026-03-0{number}T12:00:00Z"}
        spec |= {"previous": made[-1]["spec"]["hash"] if made else "", "outcome": "Promoted"}
        made.append({"metadata": {"name": f"checkout-{attempt}", "namespace": "shop"}, "spec": grown({}, spec)})
    return made


def cluster_of(found: list[Object], head: int = 3) -> MemoryCluster:
    knows = canary(head={"number": head, "hash": chain()[head - 1]["spec"]["hash"]} if head else {})
    knows["metadata"]["namespace"] = "shop"
    return MemoryCluster({f"{RECORDS}/{one['metadata']['name']}": one for one in found} | {CANARY: knows})


def options(*words: str, **changes: Any) -> argparse.Namespace:
    usual = {"words": list(words), "namespace": "shop", "all_namespaces": False, "output": "", "file": [], "head": ""}
    return argparse.Namespace(**usual | changes)


def test_whole_chains_are_said_to_be_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert records.run(options("verify"), cluster_of(chain()), Screen()) == 0

    assert f"shop/checkout: 3 records, whole; the newest is checkout-20260303-120000, {chain()[2]['spec']['hash']}" in (
        capsys.readouterr().out
    )


def tampered(change: str) -> list[Object]:
    found = chain()
    match change:
        case "changed":
            found[1]["spec"]["outcome"] = "RolledBack"
        case "first removed":
            del found[0]
        case "newest removed":
            del found[2]
        case "renamed":
            found[1]["metadata"]["name"] = "checkout-20260309-120000"
    return found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("changed", "shop/checkout-20260302-120000 was changed after it was sealed"),
        ("first removed", "shop/number 1 of checkout is missing"),
        ("newest removed", "shop/number 3 of checkout is missing: the Canary's status knows of it"),
        ("renamed", "shop/checkout-20260309-120000 was put under another name"),
    ],
)
def test_what_was_done_to_a_record_is_named(change: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert records.run(options("verify"), cluster_of(tampered(change)), Screen()) == 1

    assert said in capsys.readouterr().out


def test_an_export_brings_back_what_was_deleted_after_its_time_and_shows_what_was_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records.run(options("export"), cluster_of(chain()), Screen())
    export = tmp_path / "records.jsonl"
    export.write_text(capsys.readouterr().out)
    left = chain()[1:]

    assert [json.loads(line)["spec"]["number"] for line in export.read_text().splitlines()] == [1, 2, 3]
    assert records.run(options("verify", file=[str(export)]), cluster_of(left), Screen()) == 0
    left[0]["spec"]["outcome"] = "RolledBack"
    assert records.run(options("verify", file=[str(export)]), cluster_of(left), Screen()) == 1
    assert "checkout-20260302-120000 is not the one that was exported" in capsys.readouterr().out


class Terminal(io.StringIO):
    """What is written to a terminal, with everything that was written over."""

    def isatty(self) -> bool:
        return True


def test_somebody_who_waits_at_a_terminal_sees_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "TOLD_EVERY", 2)
    monkeypatch.setenv("TERM", "xterm")
    terminal, out = Terminal(), io.StringIO()

    records.run(options("verify"), cluster_of(chain()), Screen(out, terminal))

    told = terminal.getvalue().split(WIPE)
    assert told == ["", "reading the release records", "verified 2 of 3 records", ""], "and nothing of it stays"
    assert out.getvalue().startswith("shop/checkout: 3 records, whole")


def test_a_pipe_gets_no_progress() -> None:
    err = io.StringIO()

    records.run(options("verify"), cluster_of(chain()), Screen(io.StringIO(), err))

    assert err.getvalue() == ""


def test_a_hash_that_was_kept_elsewhere_tells_of_a_chain_forged_as_a_whole(capsys: pytest.CaptureFixture[str]) -> None:
    kept = "sha256:" + "0" * 64

    assert records.run(options("verify", "checkout", head=kept), cluster_of(chain()), Screen()) == 1
    assert f"record {kept} is missing" in capsys.readouterr().out


def test_of_a_canary_that_is_gone_the_records_stay_and_verify() -> None:
    cluster = cluster_of(chain())
    del cluster.objects[CANARY]

    assert records.run(options("verify", "checkout"), cluster, Screen()) == 0


@pytest.mark.parametrize("line", ["{", "[]", '{"metadata": {}, "spec": {}}', "[" * 100_000, '{"spec": 1}'])
def test_a_file_that_is_no_export_is_refused_by_its_line(line: str, tmp_path: Path) -> None:
    export = tmp_path / "records.jsonl"
    export.write_text("\n" + line)

    with pytest.raises(Failure, match="line 2"):
        records.run(options("verify", file=[str(export)]), cluster_of(chain()), Screen())


@pytest.mark.parametrize("words", [[], ["a", "b"], ["verify", "a", "b"]])
def test_what_cannot_be_meant_is_refused_with_what_to_write(words: list[str]) -> None:
    with pytest.raises(Failure, match=r"records verify \[NAME\]"):
        records.asked(words)
