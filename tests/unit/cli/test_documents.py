"""Files that cannot be what a command needs: each is answered in words that name the file, the finding and the fix."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from controller.cli.documents import of_kind, read_documents
from controller.cli.files import read_bytes, read_text
from controller.cli.kubectl import Failure
from controller.cli.main import main

CANARY: dict[str, Any] = {
    "apiVersion": "serin.dev/v1alpha1",
    "kind": "Canary",
    "metadata": {"name": "checkout"},
    "spec": {
        "targetRef": {"name": "checkout"},
        "traffic": {"service": {"name": "checkout", "port": 80}, "httpRoute": {"name": "checkout"}},
    },
}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(b"", "it is empty: write an object of kind Canary", id="empty"),
        pytest.param(b"---\n---\n", "it is empty", id="documents without anything"),
        pytest.param(b"hello there", "document 1 is no object but 'hello there'", id="words"),
        pytest.param(b"kind: Canary\n---\n- a\n", "document 2 is no object but", id="a sequence"),
        pytest.param(b"a: b: c", "line 1, column 5: mapping values are not allowed here", id="no YAML"),
        pytest.param(b"a:\n\tb: c", "line 2, column 1: found character", id="a tab"),
        pytest.param(b"{{ if .Values.x }}\nkind: Canary", "this is a template: render it first", id="a template"),
        pytest.param(b"a: !!python/name:os.system", "could not determine a constructor", id="a tag"),
        pytest.param(b"\xff\xfek\x00", "no text in UTF-8, since byte 1 is 0xff: save it as UTF-8", id="UTF-16"),
        pytest.param(b"a: \x07", "character 4 belongs into no YAML", id="a bell"),
        pytest.param(b"[" * 5000, "cannot be read as YAML", id="too deep"),
        pytest.param(b"kind: Service\n---\nkind: Deployment\n", "found Service, Deployment: about", id="other kinds"),
        pytest.param(b"spec: {}", "found an object without a kind", id="no kind"),
    ],
)
@pytest.mark.parametrize("dash_f", [["-f"], []], ids=["-f", "without -f"])
def test_a_file_without_a_canary_is_answered_with_what_is_wrong(
    content: bytes, says: str, dash_f: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "canary.yaml"
    file.write_bytes(content)

    assert main(["check", *dash_f, str(file)]) == 1

    said = capsys.readouterr().err
    assert said.startswith(f"error: {file}: ")
    assert says in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    "words",
    [["check"], ["check", "-f"], ["plan", "-f"], ["records", "verify", "--file"]],
    ids=" ".join,
)
def test_a_file_that_is_not_there_or_a_directory_is_named_by_every_command(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)

    assert main([*words, "nowhere.yaml"]) == 1
    assert f"nowhere.yaml: there is no such file in {tmp_path}" in capsys.readouterr().err
    assert main([*words, "folder"]) == 1
    assert "folder: it is a directory: write the path of one file" in capsys.readouterr().err


def test_a_list_counts_as_what_is_in_it_and_a_date_is_a_text(tmp_path: Path) -> None:
    dated = CANARY | {"metadata": {"name": "checkout", "annotations": {"since": "2026-03-01"}}}
    file = tmp_path / "all.yaml"
    file.write_text(json.dumps({"kind": "List", "items": [CANARY, dated]}).replace('"2026-03-01"', "2026-03-01"))

    assert read_documents(str(file)) == [CANARY, dated]


def test_a_mark_at_the_begin_that_editors_write_is_no_part_of_the_text(tmp_path: Path) -> None:
    file = tmp_path / "marked.yaml"
    file.write_bytes(b"\xef\xbb\xbfkind: Canary")

    assert of_kind(read_documents(str(file)), "Canary", str(file), "") == [{"kind": "Canary"}]


def test_what_comes_by_standard_input_is_named_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff")))

    with pytest.raises(Failure, match=r"^--key standard input: no text in UTF-8"):
        read_text("-", "--key")


def test_a_name_that_no_file_has_is_no_traceback() -> None:
    with pytest.raises(Failure, match="no file can have this name"):
        read_bytes("a\0b")
