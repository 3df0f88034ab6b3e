"""docs/judge.md shows lines of the judge as a program: they are what it answers."""

from __future__ import annotations

import json
import re
from pathlib import Path

from controller.analysis.__main__ import answer

PAGE = Path(__file__).resolve().parents[3] / "docs" / "judge.md"


def test_the_program_answers_what_the_page_shows() -> None:
    block = re.search(r"```console\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert block
    lines = block[1].splitlines()
    playing: dict[str, object] = {}

    for asked, shown in zip(lines[::2], lines[1::2], strict=True):
        answered = answer(playing, asked.removeprefix("> "))  # type: ignore[arg-type]
        expected = json.loads(shown.removeprefix("< "))
        assert {key: answered[key] for key in expected} == expected
