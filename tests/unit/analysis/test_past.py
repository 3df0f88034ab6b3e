"""What a past teaches of how pods differ, and what it says where it teaches nothing."""

from __future__ import annotations

import numpy as np
import pytest

from controller.analysis.judge import JudgeState, learn_noise
from controller.analysis.past import Pod, learn, tabulate, traffic, warm_up

STEP = 60.0


def noisy(pods: int = 6, minutes: int = 122) -> tuple[np.ndarray, np.ndarray]:
    """Pods of 20 requests a second whose error ratios wander."""
    rng = np.random.default_rng(3)
    requests = rng.poisson(1200, (minutes, pods)).astype(float)
    return requests, rng.binomial(requests.astype(int), 0.002 * rng.gamma(1.0, 1.0, requests.shape)).astype(float)


def test_noise_is_learned_as_by_the_judge_without_a_cluster() -> None:
    requests, bad = noisy()

    found = learn(requests, bad, step=STEP)

    assert found.learned == pytest.approx(learn_noise(JudgeState(), requests, bad, block=STEP).noise, rel=1e-3)
    assert found.words.startswith("learned from 6 pods over 2.0 h, 0.")


def test_a_pod_that_came_meanwhile_is_learned_from_for_as_long_as_it_served() -> None:
    requests, bad = noisy(pods=3)
    requests[:60, 0] = bad[:60, 0] = 0.0

    found = learn(requests, bad, step=STEP)

    assert found.learned is not None
    assert found.learned != learn(requests[:, 1:], bad[:, 1:], step=STEP).learned


def test_pods_that_followed_each_other_do_not_look_as_if_they_never_differed() -> None:
    requests, bad = noisy(pods=2)
    requests[60:, 0] = bad[60:, 0] = requests[:60, 1] = bad[:60, 1] = 0.0

    found = learn(requests, bad, step=STEP)

    assert found.learned is None
    assert found.words == "assumed: one pod of stable served at a time, and two are needed to compare"


def test_where_there_is_too_little_it_says_what_is_missing() -> None:
    requests, bad = noisy(pods=2)
    nobody = learn(requests[:, :0], bad[:, :0], step=STEP)
    alone = learn(requests[:, :1], bad[:, :1], step=STEP)
    nothing = learn(0 * requests, 0 * bad, step=STEP)
    requests[:92] = bad[:92] = 0.0
    young = learn(requests, bad, step=STEP)

    assert {one.learned for one in (nobody, alone, nothing, young)} == {None}
    assert nobody.words == "assumed: no counter of a pod of stable was found by the template pods"
    assert alone.words == "assumed: one pod of stable served at a time, and two are needed to compare"
    assert nothing.words == "assumed: the counters of 2 pods go back 0 min, and two hours are needed"
    assert young.words == "assumed: the counters of 2 pods go back 30 min, and two hours are needed"


def test_a_counter_that_begins_anew_counts_what_the_new_process_counted() -> None:
    restarted = Pod(requests=(((0.0, 100.0), (60.0, 160.0), (120.0, 40.0)),))

    requests, _ = tabulate({"a": restarted}, since=0.0, until=180.0, step=60.0)

    assert requests.ravel().tolist() == [0.0, 60.0, 40.0]


def test_the_errors_of_a_pod_begin_later_than_its_requests_and_count_from_nothing() -> None:
    born = Pod(requests=(((0.0, 1000.0), (60.0, 1100.0), (120.0, 1200.0)),), bad=(((120.0, 7.0),),))

    _, bad = tabulate({"a": born}, since=0.0, until=180.0, step=60.0)

    assert bad.ravel().tolist() == [0.0, 0.0, 7.0]


def test_no_rate_is_reckoned_from_a_moment_or_from_nobody() -> None:
    assert traffic([], [], step=15.0) is None
    assert traffic([[(0.0, 1.0), (5.0, 90.0)]], [], step=15.0) is None
    assert traffic([[(0.0, 7.0), (60.0, 7.0)]], [], step=15.0) is None


def started(at: float, *, cold: float, ratio: float, seconds: float = 600.0) -> Pod:
    """Twenty requests a second from its start on; `ratio` of them bad for the first `cold` seconds, then 0.1 %."""
    times = [at + 15.0 * number for number in range(int(seconds / 15) + 1)]
    bad = [20.0 * (ratio * min(t - at, cold) + 0.001 * max(t - at - cold, 0.0)) for t in times]
    return Pod((tuple((t, 20.0 * (t - at)) for t in times),), (tuple(zip(times, bad, strict=True)),))


@pytest.mark.parametrize(
    ("cold", "ratio", "seconds"),
    [
        pytest.param(90.0, 0.05, 105.0, id="cold for a minute and a half"),
        pytest.param(600.0, 0.05, 600.0, id="cold for as long as is looked at"),
        pytest.param(0.0, 0.0, 0.0, id="as good as others from the first request on"),
    ],
)
def test_how_long_new_pods_are_worse_is_read_from_those_that_were_started(
    cold: float, ratio: float, seconds: float
) -> None:
    old = Pod((((0.0, 0.0), (3600.0, 720000.0)),), (((0.0, 0.0), (3600.0, 720.0)),))
    pods = {"old": old} | {f"new-{n}": started(600.0 * n, cold=cold, ratio=ratio) for n in (1, 2, 3)}

    found = warm_up(pods, since=0.0, until=3600.0, step=15.0)

    assert (found.starts, found.seconds) == (3, seconds)


def test_too_few_starts_propose_no_warm_up() -> None:
    pods = {"old": started(0.0, cold=0.0, ratio=0.0), "new": started(600.0, cold=90.0, ratio=0.5)}

    found = warm_up(pods, since=0.0, until=3600.0, step=15.0)

    assert (found.seconds, found.message) == (
        None,
        "warmup: 1 pod started in this history: too few to propose one",
    )
