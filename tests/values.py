"""docs/values.md, from the schema of the chart's values and their defaults: `python -m tests.values FILE`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[1] / "charts" / "serin"
HEAD = """\
# Values of the chart

Written from `charts/serin/values.schema.json` by `make manifests`. A value that is not in this table is refused.

| value | type | default | meaning |
|---|---|---|---|
"""


def render_values(chart: Path) -> str:
    """The whole document."""
    schema = json.loads((chart / "values.schema.json").read_text())
    values = yaml.safe_load((chart / "values.yaml").read_text())
    return HEAD + "".join(_rows(schema, values, ""))


def _rows(schema: dict[str, Any], values: dict[str, Any], at: str) -> Iterator[str]:
    for key, part in schema["properties"].items():
        if "description" in part:
            default = json.dumps(values[key], separators=(", ", ": "))
            yield f"| `{at}{key}` | {_type(part)} | `{default}` | {part['description']} |\n"
        elif "properties" in part:
            yield from _rows(part, values[key], f"{at}{key}.")


def _type(part: dict[str, Any]) -> str:
    if "enum" in part:
        return ", ".join(f"`{one}`" for one in part["enum"])
    if "minimum" in part:
        return f"{part['type']}, {part['minimum']} to {part['maximum']}"
    return str(part["type"])


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render_values(CHART))
