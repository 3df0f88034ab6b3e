"""What each row came to: `pytest -p tests.faults.noted` writes results.json, and from it docs/faults.md.

Each failure is printed when it happens, so that an interrupted run has said what it found.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.faults.catalogue import PAGE, note, render

_came: dict[str, list[str]] = {}


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    name = item.name.partition("[")[0]
    if name.startswith("test_row_") and (report.when == "call" or not report.passed):
        _came.setdefault(name, []).append(report.outcome)
    if report.failed:
        print(f"\n{item.nodeid}: {report.longreprtext[:6000]}", file=sys.stderr, flush=True)


def pytest_sessionfinish() -> None:
    said = {}
    for name, outcomes in _came.items():
        bad = sum(one == "failed" for one in outcomes)
        cases = f" ({len(outcomes)} cases)" if len(outcomes) > 1 else ""
        said[name] = f"**failed** {bad} of {len(outcomes)}" if bad else f"passed{cases}"
    if said:
        note(said)
        PAGE.write_text(render())
