"""Every query of the dashboard and of the alerts, asked of a real Prometheus that scrapes a real controller."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml

from tests.cluster.conftest import RunningCluster
from tests.cluster.objects import eventually
from tests.cluster.serin import StartStory, serin, start, step

__all__ = ["serin", "start"]

HERE = Path(__file__).parents[2] / "manifests" / "observability"
QUIET = {
    "SerinHasNoLeader", "SerinLooksFail", "SerinWatchSilent", "SerinLoopLate", "SerinEditsNotHeld",
    "SerinRolloutHolds", "SerinWaitsForAPerson", "Looks that failed",
}  # fmt: skip
"""what must be empty, or may be, while all goes well"""


def questions() -> dict[str, list[str]]:
    """Queries by panel or alert, as a person's dashboard would send them."""
    dashboard = json.loads((HERE / "dashboard.json").read_text())
    rules = yaml.safe_load((HERE / "rules.yaml").read_text())
    found = {panel["title"]: [target["expr"] for target in panel["targets"]] for panel in dashboard["panels"]}
    found |= {note["name"]: [note["expr"]] for note in dashboard["annotations"]["list"]}
    found |= {rule["alert"]: [rule["expr"]] for group in rules["spec"]["groups"] for rule in group["rules"]}
    return {
        name: [one.replace("$__rate_interval", "2m").replace("$namespace", ".*") for one in exprs]
        for name, exprs in found.items()
    }


def ask(cluster: RunningCluster, query: str) -> list[dict[str, Any]]:
    """An instant query; NaN, which a quantile of nothing is, counts as no answer."""
    with urlopen(f"{cluster.prometheus}/api/v1/query?{urlencode({'query': query})}", timeout=10) as answer:
        said = json.load(answer)
    assert said["status"] == "success", said
    return [one for one in said["data"]["result"] if one["value"][1] != "NaN"]


@pytest.fixture
def answered(cluster: RunningCluster) -> Any:
    """`look()` asks everything; the names of what had an answer so far."""
    seen: set[str] = set()

    def look() -> set[str]:
        for name, queries in questions().items():
            answers = [ask(cluster, query) for query in queries]
            if all(answers):
                seen.add(name)
        return seen

    return look


def test_every_panel_shows_something_in_the_course_of_a_good_and_a_bad_release(
    start: StartStory, cluster: RunningCluster, answered: Any
) -> None:
    story = start(step(50, "2s", approval={}))
    alerts = {name: queries[0] for name, queries in questions().items() if name.startswith("Serin")}
    with story.load(80):
        story.edit("v2")
        story.until_reason("AwaitingApproval")
        eventually(lambda: "Waiting for a person" in answered())
        assert story.decide("approve").code == 0
        story.until_ended()
        assert not [
            one for one in ask(cluster, alerts["SerinRolledBack"]) if one["metric"]["namespace"] == story.namespace
        ]
        story.edit("v3", {"SHOP_FAIL_RATIO": "0.6"}, {"serin.dev/origin": "ai"})
        # Asked all the time: a note about a retreat stands in the picture for a minute.
        story.until(lambda now: answered() and now.get("phase") == "RolledBack", within=600)

    wanted = questions().keys() - QUIET

    def all_answered() -> bool:
        assert wanted - answered() == set()
        return True

    eventually(all_answered)

    def of_this_story() -> dict[str, str]:
        (found,) = [
            one["metric"]
            for one in ask(cluster, alerts["SerinRolledBack"])
            if one["metric"]["namespace"] == story.namespace
        ]
        return found

    # Other stories run beside this one and roll back too: that somebody's panel answered is not yet this one's alert.
    rolled_back = eventually(of_this_story)
    assert (rolled_back["canary"], rolled_back["origin"]) == (story.name, "ai")
    # Both have to last for two minutes before anybody hears of them: one scrape that was late is none.
    eventually(lambda: not ask(cluster, alerts["SerinHasNoLeader"]))
    eventually(lambda: not ask(cluster, alerts["SerinWatchSilent"]))


def test_an_alert_that_nobody_leads_fires_where_no_replica_does(cluster: RunningCluster, serin: None) -> None:
    alert = questions()["SerinHasNoLeader"][0]

    assert ask(cluster, alert.replace("serin_leading", "serin_leading{pod='none'}")) != []


def test_what_should_be_quiet_asks_for_series_that_exist(start: StartStory, cluster: RunningCluster) -> None:
    """An alert on a misspelt metric is quiet for ever: each name in it is one that the controller serves."""
    names = ("SerinEditsNotHeld", "SerinRolloutHolds", "SerinWaitsForAPerson", "SerinLooksFail")
    words = {name: set(re.findall(r"serin_\w+", questions()[name][0])) for name in names}
    unborn = {"serin_canary_waiting_since_seconds", "serin_turn_failures_total"}
    start(step(50), processes=False)

    def served() -> set[str]:
        return {one["metric"]["__name__"] for one in ask(cluster, 'group by (__name__) ({__name__=~"serin_.+"})')}

    assert all(words.values())
    eventually(lambda: set().union(*words.values()) <= served() | unborn)
