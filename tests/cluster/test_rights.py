"""The controller asked for nothing that its golden file does not have. Runs last: it reads what the others did."""

from __future__ import annotations

import os

from tests.cluster.conftest import RunningCluster
from tests.cluster.rights import read_golden, used, write_golden


def test_the_controller_used_no_right_beyond_those_recorded(cluster: RunningCluster) -> None:
    """After `SERIN_RECORD_RIGHTS=1` the difference stands in tests/rights.json, for a reviewer to see."""
    seen = used(cluster.state)
    if os.environ.get("SERIN_RECORD_RIGHTS"):
        write_golden(read_golden() | seen)

    assert sorted(seen - read_golden()) == []
