"""What each row came to: `pytest -p tests.faults.noted` writes results.json, and from it docs/faults.md.

Each failure is printed when it happens, so that an interrupted run has said what it found.
"""

from __future__ import annotations

import os
import sys

import pytest

from tests.faults.catalogue import PAGE, PEERS, note, render

_came: dict[str, list[str]] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Also of tests that ran side by side: their reports come to the first process too."""
    if _is_worker():
        return
    name = report.nodeid.rpartition("::")[2].partition("[")[0]
    counted = name.startswith("test_row_") or PEERS.name in report.nodeid
    if counted and (report.when == "call" or not report.passed):
        _came.setdefault(name, []).append(report.outcome)
    if report.failed:
        print(f"\n{report.nodeid}: {report.longreprtext[:6000]}", file=sys.stderr, flush=True)


def pytest_sessionfinish() -> None:
    if _is_worker():
        return
    said = {}
    for name, outcomes in _came.items():
        bad = sum(one == "failed" for one in outcomes)
        cases = f" ({len(outcomes)} cases)" if len(outcomes) > 1 else ""
        said[name] = f"**failed** {bad} of {len(outcomes)}" if bad else f"passed{cases}"
    if said:
        note(said)
        PAGE.write_text(render())


def _is_worker() -> bool:
    return "PYTEST_XDIST_WORKER" in os.environ
