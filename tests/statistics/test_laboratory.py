"""The laboratory itself: its worlds are what they say, and the rules of others do what their makers say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.statistics import bench, peers, pictures, reach
from tests.statistics.bench import Cell, measure
from tests.statistics.peers import Stream
from tests.statistics.worlds import (
    BASELINE_PODS,
    CANARY_PODS,
    INDEPENDENT,
    PODS,
    SELECTION,
    WORLDS,
    Fault,
    Noise,
    Pods,
    shown,
)

OLD = np.full((200, PODS), np.inf)


def _ratios(noise: Noise, ticks: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Shape (ticks, rollouts, pods), without the drift that everybody shares."""
    pods = Pods(200, noise, 5.0, np.random.default_rng(5))
    return np.stack([pods.ratios(5.0 * tick, OLD) / pods.expected(5.0 * tick)[:, None] for tick in range(ticks)])


def _stream(ratio: float, *, minutes: int = 40) -> Stream:
    """A canary with 50 requests a scrape, of which this share fails, beside a spotless baseline."""
    n = np.full((1, minutes * 12), 50.0)
    return Stream(5.0, n, n * ratio, 19 * n, 0 * n, np.full(n.shape, 0.001))


@pytest.mark.parametrize("world", [name for name in WORLDS if not WORLDS[name].bursts and not WORLDS[name].node_bursts])
def test_noise_moves_single_pods_and_not_the_mean(world: str) -> None:
    calm = Noise(**(vars(WORLDS[world]) | {"cron": 1.0}))
    ticks = 400 if calm.tail else 60  # a tail without variance takes long to show its mean

    assert _ratios(calm, ticks).mean() == pytest.approx(1.0, abs=0.15)


def test_gamma_noise_has_the_variance_that_it_says() -> None:
    assert _ratios(SELECTION["gamma"], 20).var() == pytest.approx(4.0, rel=0.2)


def test_bursts_come_as_often_as_they_say() -> None:
    bursts = (_ratios(SELECTION["burst"], 720) > 20).mean()

    assert bursts == pytest.approx(0.2 * 30 / 3600, rel=0.25)


def test_what_stuck_to_a_pod_is_gone_with_it() -> None:
    pods = Pods(200, SELECTION["persistent"], 5.0, np.random.default_rng(6))
    before = pods.ratios(0.0, OLD)

    pods.renew(np.arange(200) < 100)

    after = pods.ratios(0.0, OLD)
    assert np.array_equal(before[:, :BASELINE_PODS], after[:, :BASELINE_PODS])
    assert np.array_equal(before[100:], after[100:])
    assert (before[:100, BASELINE_PODS:] != after[:100, BASELINE_PODS:]).all()


def test_a_fault_shows_only_where_it_says() -> None:
    age, rps = np.array([[10.0, 500.0]]), np.array([[50.0, 50.0]])

    assert shown(Fault(from_age=400.0), 100.0, age, rps).tolist() == [[False, True]]
    assert [bool(shown(Fault(every=360.0), t, age, rps).any()) for t in (100.0, 310.0, 360.0)] == [False, True, False]
    assert not shown(Fault(above_rps=51.0), 100.0, age, rps).any()


def test_figures_do_not_depend_on_how_many_workers_counted() -> None:
    cells = [Cell("independent", 200.0, "50 %"), Cell("realistic", 200.0, "50 %", "argo")]

    assert measure(cells, 6, jobs=1) == measure(cells, 6, jobs=2)


@pytest.mark.parametrize(
    ("rule", "seconds"),
    [
        pytest.param(peers.argo, 240.0, id="Argo Rollouts aborts at the fourth failure"),
        pytest.param(peers.flagger, 360.0, id="Flagger rolls back a tick after the fifth"),
        pytest.param(peers.kayenta, 600.0, id="Kayenta needs ten points"),
    ],
)
def test_a_rule_takes_the_time_its_makers_say(rule: object, seconds: float) -> None:
    stream = _stream(0.5)
    noisy = Stream(5.0, stream.n_c, stream.e_c, stream.n_b, stream.e_b + 1.0, stream.expected)

    assert rule(noisy).tolist() == [seconds]  # type: ignore[operator]


def test_a_rule_leaves_a_spotless_canary_alone() -> None:
    for name, rule in peers.RULES.items():
        assert np.isnan(rule(_stream(0.0))).all(), name


def test_a_window_without_traffic_fails_the_check_of_argo_and_flagger() -> None:
    nothing = np.zeros((1, 240))
    silent = Stream(5.0, nothing, nothing, nothing + 50, nothing, nothing + 0.001)

    assert peers.argo(silent).tolist() == [240.0]
    assert peers.flagger(silent).tolist() == [360.0]


def test_a_mean_of_zero_on_the_baseline_is_ignored_by_kayenta() -> None:
    assert np.isnan(peers.kayenta(_stream(0.5))).all()


def test_the_oracle_is_the_fastest_of_those_that_keep_the_promise() -> None:
    rng = np.random.default_rng(8)
    n = np.full((50, 480), 10.0)
    stream = Stream(5.0, n, rng.binomial(10, 0.05, n.shape).astype(float), 99 * n, n * 0 + 1, n * 0 + 0.001)

    found = peers.oracle(stream, ratio=0.05)

    assert np.median(found) <= min(np.nanmedian(rule(stream)) for rule in (peers.argo, peers.flagger, peers.kayenta))


def test_a_row_of_the_yardstick_is_missed_only_where_the_counts_speak_against_it() -> None:
    base = {"world": "realistic", "rps": 200.0, "effect": "none", "rule": "serin", "retreated": 0.0}

    def verdicts(share: float, n: int) -> set[str]:
        return {
            each.cells()[-1] for each in reach.check([base | {"n": n, "rolledBack": share}]) if "false" in each.what
        }

    assert verdicts(0.0, 1000) == {"goal"}
    assert verdicts(0.05, 20) == {"met"}
    assert verdicts(0.05, 1000) == {"MISSED"}


def test_independent_noise_is_none() -> None:
    assert np.ptp(_ratios(INDEPENDENT, 3)) < 1e-12
    assert CANARY_PODS + BASELINE_PODS == PODS


def test_a_setting_is_drawn_once_all_its_cells_were_measured() -> None:
    def rows(rps: float, **changes: Any) -> list[dict[str, Any]]:
        usual = {
            "rps": rps,
            "rule": "serin",
            "n": 50,
            "retreated": 0.1,
            "rolledBack": 0.0,
            "relief": 30,
            "rollback": 90,
        }
        cells = [("realistic", "none"), ("burst", "none"), ("realistic", "1 %")]
        return [usual | {"world": world, "effect": effect} | changes for world, effect in cells]

    other = rows(200.0, setting="refill 0.2") + rows(5000.0, setting="refill 0.2")
    measured = rows(200.0) + rows(5000.0) + other + rows(200.0, setting="refill 0.1")

    drawn = pictures.trade_off(measured)

    assert drawn.count(">the defaults</text>") == drawn.count(">1</text>") == 1
    assert "refill 0.1" not in drawn
    assert "refill 0.1" in pictures.trade_off(measured + rows(5000.0, setting="refill 0.1"))


def test_a_run_that_was_interrupted_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "OUT", tmp_path / "judge.json")
    asked = ["--only", "trickle", "--rollouts", "5", "--jobs", "1", "--into", str(tmp_path)]
    bench.main([*asked, "--world", "burst"])
    first = capsys.readouterr().err

    bench.main([*asked, "--resume"])

    assert [line.split()[1] for line in first.splitlines()] == ["burst"]
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == ["realistic", "nodes"]
    assert [row["world"] for row in json.loads((tmp_path / "judge.json").read_text())["rows"]] == [
        "burst", "realistic", "nodes",
    ]  # fmt: skip
