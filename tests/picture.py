"""Draws what the demo measured: `build/demo.json` in, one SVG out.

python -m tests.picture build/demo.json docs/demo.svg
"""

from __future__ import annotations

import json
import sys
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, GAP = 960, 300, 46, 46, 34, 26
COLOURS = {"Promoted": "#2e7d32", "RolledBack": "#c62828"}


def draw(demo: dict[str, Any]) -> str:
    """Three panels on one time scale: the weight that was set, and the share that clients measured."""
    releases = demo["releases"]
    seconds = [release["timeline"][-1][0] for release in releases]
    scale = (WIDTH - LEFT - 16 - GAP * (len(releases) - 1)) / sum(seconds)
    high = HEIGHT - TOP - BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12" fill="#333">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        _axis(high),
    ]
    left = float(LEFT)
    for release, length in zip(releases, seconds, strict=True):
        parts.append(_panel(release, left, length * scale, high, scale))
        left += length * scale + GAP
    parts.append(
        f'<text x="{LEFT}" y="{HEIGHT - 6}">line: percent of requests given to the new revision &#160;·&#160; '
        "dots: share measured by clients at 200 requests a second &#160;·&#160; red: retreats</text></svg>"
    )
    return "\n".join(parts) + "\n"


def _axis(high: float) -> str:
    lines = []
    for percent in (0, 25, 50):
        y = TOP + high * (1 - percent / 60)
        lines.append(f'<line x1="{LEFT}" x2="{WIDTH - 16}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e0e0e0"/>')
        lines.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{percent} %</text>')
    return "\n".join(lines)


def _panel(release: dict[str, Any], left: float, wide: float, high: float, scale: float) -> str:
    colour = COLOURS.get(release["outcome"], "#555")
    timeline = release["timeline"]

    def at(seconds: float, percent: float) -> tuple[float, float]:
        return left + seconds * scale, TOP + high * (1 - min(percent, 60) / 60)

    line, before = [], 0.0
    for seconds, weight, _ in timeline:
        if weight != before:
            line.append(at(seconds, before))
        line.append(at(seconds, weight))
        before = weight
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in line)
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.6" fill="{colour}" fill-opacity="0.55"/>'
        for x, y in (at(seconds, 100 * share) for seconds, _, share in timeline[::4] if share is not None)
    )
    falls = "".join(
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{TOP + high:.1f}" stroke="#c62828" stroke-dasharray="3 3"/>'
        for x, _ in (
            at(now[0], 0)
            for was, now in pairwise(timeline)
            if release["outcome"] == "RolledBack" and was[1] > 0 and now[1] == 0
        )
    )
    title = f"{release['revision']} · origin {release['origin']}"
    told = release["outcome"]
    if release["relief_seconds"] is not None:
        told += f": off traffic after {release['relief_seconds']:.0f} s"
    return (
        f'<text x="{left:.1f}" y="18" font-weight="bold">{escape(title)}</text>'
        f'<text x="{left:.1f}" y="34" fill="{colour}">{escape(told)}</text>'
        f'<rect x="{left:.1f}" y="{TOP}" width="{wide:.1f}" height="{high:.1f}" fill="none" stroke="#bdbdbd"/>'
        f'{falls}<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8"/>{dots}'
    )


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(draw(json.loads(Path(sys.argv[1]).read_text())))
