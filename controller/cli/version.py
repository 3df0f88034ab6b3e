"""`kubectl canary version`: the plugin's own version, and the controller's as its Deployment names it."""

from __future__ import annotations

import argparse
from importlib.metadata import PackageNotFoundError, version

from controller.cli.kubectl import APPS, Cluster, Failure, path_of
from controller.cli.screen import Screen
from controller.cli.text import plain


def run(options: argparse.Namespace, cluster: Cluster, screen: Screen) -> int:
    """Print both; a cluster that cannot be asked is no error."""
    try:
        own = version("serin")
    except PackageNotFoundError:
        own = "unknown (not installed as a package)"
    screen.say(f"kubectl canary  {own}")
    try:
        found = cluster.read(path_of(APPS, options.serin_namespace, "deployments", "serin-controller"))
        containers = found["spec"]["template"]["spec"]["containers"]
        screen.say(f"controller      {plain(containers[0]['image'])}")
    except Failure as failure:
        screen.say(f"controller      not read: {plain(str(failure).splitlines()[0], 200)}")
    return 0
