"""What the controller was seen to ask of the API server, from the audit log.

The one thing to know: `tests/rights.json` is the union of what the cluster tests ever saw, and the roles in
`manifests/rbac` grant that and nothing else (tests/unit/test_rights.py). The tests on the cluster refuse what the file
does not have yet; with `SERIN_RECORD_RIGHTS=1` they write it into the file instead.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tests.cluster.audit import entries
from tests.cluster.cluster import SERIN

GOLDEN = Path(__file__).parents[1] / "rights.json"
OWN = "serin-system"

Right = tuple[str, str, str]
"""where ("own" or "any" namespace, or "cluster"), group/resource with its subresource, verb"""


def used(state: Path) -> set[Right]:
    """Every right the controller's requests needed, those that were refused left out."""
    found: set[Right] = set()
    for entry in entries(state, SERIN):
        about = entry.get("objectRef") or {}
        code = (entry.get("responseStatus") or {}).get("code", 0)
        if entry["user"]["username"] != SERIN or "resource" not in about or code in (401, 403):
            continue
        what = "/".join(filter(None, (about["resource"], about.get("subresource"))))
        found.add((_where(about), f"{about.get('apiGroup', 'core')}/{what}", entry["verb"]))
    return found


def _where(about: dict[str, str]) -> str:
    """The controller lists over all namespaces; a namespace other than its own is any."""
    return "own" if about.get("namespace") == OWN else "any"


def read_golden() -> set[Right]:
    return {(one["where"], one["what"], verb) for one in json.loads(GOLDEN.read_text()) for verb in one["verbs"]}


def write_golden(rights: Iterable[Right]) -> None:
    rights = set(rights)
    rows = sorted({(where, what) for where, what, _ in rights})
    lines = [
        json.dumps({"where": w, "what": r, "verbs": sorted(verb for a, b, verb in rights if (a, b) == (w, r))})
        for w, r in rows
    ]
    GOLDEN.write_text("[\n  " + ",\n  ".join(lines) + "\n]\n")
