"""The policies that ship, as they are compared with each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

PRESETS = Path(__file__).parents[3] / "manifests" / "policies"


def spec_of(preset: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((PRESETS / f"{preset}.yaml").read_text())["spec"]
    return found


def test_observe_only_shows_all_that_ai_strict_would_ask_for_and_holds_nothing() -> None:
    watching, strict = spec_of("observe-only"), spec_of("ai-strict")

    assert watching["mode"] == "Observe"
    assert watching["rules"] == strict["rules"]
