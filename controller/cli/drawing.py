"""Draws how the difference of one metric went: with characters for a terminal, as SVG for a page.

Both show the same: the difference canary minus stable in percentage points, the interval it lies in, and the margin
that is allowed. An interval above the margin convicts; one below it certifies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 60, 11
"""characters of the drawing beside its scale"""


@dataclass(frozen=True)
class Seen:
    """One point: seconds since the attempt began, percent of weight, and fractions of requests."""

    at: float
    weight: float
    effect: float
    low: float
    high: float


@dataclass(frozen=True)
class Chart:
    """The course of one metric; `retreats` are seconds since the attempt began."""

    metric: str
    margin: float
    points: tuple[Seen, ...]
    retreats: tuple[float, ...] = ()

    @property
    def ends(self) -> tuple[float, float]:
        """First and last second."""
        return self.points[0].at, max(self.points[-1].at, self.points[0].at + 1.0)

    @property
    def scale(self) -> tuple[float, float]:
        """Lowest and highest value shown: what was measured and the margin always fit, early intervals are cut off.

        >>> Chart("errors", 0.005, (Seen(0, 5, 0.06, -1, 1), Seen(9, 5, 0.06, 0.02, 0.12))).scale
        (-0.03, 0.18)
        """
        tall = max(self.margin, *(abs(point.effect) for point in self.points), 1e-5)
        ordered = sorted(point.high for point in self.points)
        top = max(
            min(ordered[len(ordered) // 2], 3 * tall), 1.5 * self.margin, 1.1 * max(p.effect for p in self.points)
        )
        lows = sorted(point.low for point in self.points)
        bottom = min(max(lows[len(lows) // 2], -tall / 2), min(p.effect for p in self.points), 0.0)
        return min(bottom, -tall / 2), top if top > 0 else tall


def draw_text(chart: Chart) -> list[str]:
    """Lines of a drawing: `●` the difference, `│` its interval, `┄` the margin, `─` no difference, `▼` a retreat."""
    low, high = chart.scale
    first, last = chart.ends

    def row(value: float) -> int:
        return round((high - value) / (high - low) * (HEIGHT - 1))

    def column(at: float) -> int:
        return min(round((at - first) / (last - first) * (WIDTH - 1)), WIDTH - 1)

    cells = [[" "] * WIDTH for _ in range(HEIGHT)]
    cells[row(0.0)] = ["─"] * WIDTH
    cells[row(chart.margin)] = ["┄"] * WIDTH
    for point in chart.points:
        x = column(point.at)
        for y in range(max(row(min(point.high, high)), 0), min(row(max(point.low, low)), HEIGHT - 1) + 1):
            cells[y][x] = "│"
        cells[min(max(row(point.effect), 0), HEIGHT - 1)][x] = "●"
    labels = {row(0.0): "0", row(chart.margin): points(chart.margin), 0: points(high), HEIGHT - 1: points(low)}
    lines = [
        f"{labels.get(y, ''):>10} {'┤' if y in labels else '│'}{''.join(cells[y]).rstrip()}" for y in range(HEIGHT)
    ]
    marks = [" "] * WIDTH
    for at in chart.retreats:
        marks[max(column(at), 0)] = "▼"
    if chart.retreats:
        lines.insert(0, " " * 12 + "".join(marks).rstrip())
    lines.append(" " * 11 + "└" + "─" * WIDTH)
    lines.append(" " * 12 + f"{seconds(first)}{seconds(last):>{WIDTH - len(seconds(first))}}")
    return lines


def draw_svg(chart: Chart, title: str) -> str:
    """A page of its own: the interval as a band, the difference as a line, the weight as steps below."""
    wide, tall, left, top, weights = 760, 240, 70, 48, 60
    low, high = chart.scale
    first, last = chart.ends

    def x(at: float) -> float:
        return left + (at - first) / (last - first) * (wide - left - 20)

    def y(value: float) -> float:
        return top + (high - min(max(value, low), high)) / (high - low) * tall

    def path(pairs: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{across:.1f},{down:.1f}" for across, down in pairs)

    band = [(x(p.at), y(p.high)) for p in chart.points] + [(x(p.at), y(p.low)) for p in reversed(chart.points)]
    line = [(x(p.at), y(p.effect)) for p in chart.points]
    floor = top + tall + 16 + weights
    most = max(*(p.weight for p in chart.points), 1.0)
    steps: list[tuple[float, float]] = [(x(first), floor)]
    before = 0.0
    for point in chart.points:
        down = floor - point.weight / most * weights
        steps += [(x(point.at), floor - before / most * weights), (x(point.at), down)]
        before = point.weight
    steps += [(x(last), floor - before / most * weights), (x(last), floor)]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {floor + 30:.0f}" font-family="sans-serif" '
        'font-size="12" fill="#333">',
        f'<rect width="{wide}" height="{floor + 30:.0f}" fill="#fff"/>',
        f'<text x="{left}" y="20" font-weight="bold">{escape(title)}</text>',
        f'<text x="{left}" y="38">{escape(chart.metric)}: canary minus stable, with the interval it lies in; '
        f"allowed: {points(chart.margin)}</text>",
        f'<polygon points="{path(band)}" fill="#1565c0" fill-opacity="0.15"/>',
        _across(left, wide, y(0.0), "0", "#9e9e9e", ""),
        _across(left, wide, y(chart.margin), points(chart.margin), "#ef6c00", "5 4"),
        f'<polyline points="{path(line)}" fill="none" stroke="#1565c0" stroke-width="1.8"/>',
        *(
            f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{top}" y2="{floor:.1f}" stroke="#c62828" '
            'stroke-dasharray="3 3"/>'
            for at in chart.retreats
            if first <= at <= last
        ),
        f'<polygon points="{path(steps)}" fill="#2e7d32" fill-opacity="0.25"/>',
        f'<text x="{left - 6}" y="{floor:.1f}" text-anchor="end">weight</text>',
        f'<text x="{left}" y="{floor + 18:.1f}">{seconds(first)}</text>',
        f'<text x="{wide - 20}" y="{floor + 18:.1f}" text-anchor="end">{seconds(last)}</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _across(left: float, wide: float, y: float, label: str, colour: str, dashes: str) -> str:
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (
        f'<line x1="{left}" x2="{wide - 20}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}"{dashed}/>'
        f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(label)}</text>'
    )


def points(fraction: float) -> str:
    """A difference of two ratios.

    >>> points(0.0646), points(-0.0001), points(0.5)
    ('+6.46 pp', '-0.01 pp', '+50 pp')
    """
    return f"{100 * fraction:+.3g} pp"


def seconds(value: float) -> str:
    """
    >>> seconds(75)
    '+1m15s'
    """
    minutes, rest = divmod(round(value), 60)
    return f"+{minutes}m{rest:02d}s" if minutes else f"+{rest}s"
