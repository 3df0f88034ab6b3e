"""The pictures of docs/judge.md: figures of `build/judge.json` in, SVG out.

python -m tests.statistics.pictures build/judge.json docs/judge
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from tests.statistics.reach import between
from tests.statistics.rollouts import Here, Scenario, faulty, play
from tests.statistics.worlds import REALISTIC

Measured = dict[str, Any]
COLOURS = {
    "serin": "#1565c0",
    "argo": "#e65100",
    "flagger": "#6a1b9a",
    "kayenta": "#00838f",
    "z-test": "#9e9d24",
    "mSPRT": "#8d6e63",
    "oracle": "#9e9e9e",
}
NAMES = {"argo": "Argo Rollouts' rule", "flagger": "Flagger's rule", "kayenta": "Kayenta's rule"}
GREEN, RED, GREY = "#2e7d32", "#c62828", "#757575"


def draw(rows: Sequence[Measured], into: Path) -> None:
    """Write every picture that there are figures for, and the story of one rollout, which is played here."""
    into.mkdir(parents=True, exist_ok=True)
    plain = [row for row in rows if not {"metrics", "noise", "setting"} & row.keys()]
    (into / "story.svg").write_text(story())
    (into / "speed.svg").write_text(speed(plain))
    (into / "false-rollbacks.svg").write_text(false_rollbacks(plain))
    (into / "visible.svg").write_text(visible(plain))
    if traded := trade_off([row for row in rows if not {"metrics", "noise"} & row.keys()]):
        (into / "trade-off.svg").write_text(traded)


class _Watched(Here):
    """Remembers what the judge answered."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[dict[str, Any]] = []

    def ask(self, lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        answers = super().ask(lines)
        self.answers += [answer for line, answer in zip(lines, answers, strict=True) if "canary" in line]
        return answers


def story() -> str:
    """One bad release at 200 requests a second: the weight, and the evidence on its way to the threshold."""
    judge = _Watched()
    play(judge, Scenario(REALISTIC, 200.0, faulty(0.05)), rollouts=1, seed=7)
    seen = judge.answers
    last = float(seen[-1]["t"])
    wide, left, right = 960.0, 60.0, 20.0
    scale = (wide - left - right) / last

    def x(t: float) -> float:
        return left + t * scale

    most = float(max(answer["weight"] for answer in seen)) or 1.0
    line, before = [], seen[0]["weight"]
    for answer in seen:
        line += [(x(answer["t"]), 120 - 70 * before / most), (x(answer["t"]), 120 - 70 * answer["weight"] / most)]
        before = answer["weight"]
    parts = [
        _text(
            left, 20, "a release that fails 5 % of its requests, 200 requests a second, first step at 1 %", bold=True
        ),
        _text(left, 40, "weight of the canary", GREY),
        _path([(left, 120 - 70 * seen[0]["weight"] / most), *line], COLOURS["serin"]),
        _text(left - 6, 54, f"{most:g} %", anchor="end"),
        _text(left - 6, 124, "0 %", anchor="end"),
        _text(left, 160, "evidence against it, in powers of e", GREY),
    ]
    known = [(answer["t"], answer["evidence"], answer["threshold"]) for answer in seen if "evidence" in answer]
    top = float(max(max(evidence for _, evidence, _ in known), known[0][2])) + 1
    low = float(min(min(evidence for _, evidence, _ in known), 0.0))

    def y(evidence: float) -> float:
        return 290 - 120 * (evidence - low) / (top - low)

    threshold = known[0][2]
    parts += [
        f'<line x1="{left}" x2="{wide - right}" y1="{y(threshold):.1f}" y2="{y(threshold):.1f}" stroke="{RED}" '
        'stroke-dasharray="5 4"/>',
        _text(wide - right, y(threshold) - 5, "rolled back from here on", RED, anchor="end"),
        _text(left - 6, y(threshold) + 4, f"{threshold:.1f}", anchor="end"),
        _text(left - 6, y(0.0) + 4, "0", anchor="end"),
        _path([(x(t), y(evidence)) for t, evidence, _ in known], COLOURS["serin"]),
    ]
    said = {"retreat": "retreat", "resume": "back", "rollback": "rollback"}
    pods = ""
    for answer in seen:
        if answer["decision"] in said:
            colour = RED if answer["decision"] != "resume" else GREEN
            at = x(answer["t"])
            parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="48" y2="296" stroke="{colour}" opacity="0.4"/>')
            side = "end" if at > wide - 180 else "start"
            shift = -4 if side == "end" else 4
            words = f"{said[answer['decision']]}{pods if answer['decision'] == 'resume' else ''}, {answer['t']:g} s"
            pods = " on fresh pods" if answer.get("fresh") else " on the same pods, older now"
            parts.append(_text(at + shift, 136 if answer["decision"] == "resume" else 62, words, colour, anchor=side))
    parts += [_text(x(t), 314, f"{t} s", anchor="middle") for t in range(0, int(last) + 1, 30)]
    return _svg(wide, 330, parts)


def speed(rows: Iterable[Measured]) -> str:
    """Seconds until users are relieved, and until rollback, by size of the fault; time is logarithmic."""
    effects = ["0.5 %", "1 %", "5 %", "50 %"]
    rules = ["serin", "argo", "flagger", "kayenta", "oracle"]
    wide, left, right, row_high = 960.0, 96.0, 24.0, 52.0
    longest = math.log10(2400 / 4)

    def x(seconds: float) -> float:
        return left + (wide - left - right) * math.log10(max(seconds, 4) / 4) / longest

    at = {(row["rps"], row["effect"], row["rule"]): row for row in rows if row["world"] == "realistic"}
    parts, top = [_legend(rules, left, 20)], 48.0
    parts.append(
        _text(left, 38, "hollow: users relieved (Serin) · filled: rolled back · none: not found in most", GREY)
    )
    for rps in (200.0, 5000.0):
        parts.append(_text(left, top + 18, f"{rps:,.0f} requests a second", bold=True))
        top += 28
        for effect in effects:
            middle = top + row_high / 2
            parts.append(_text(left - 10, middle + 4, f"{effect} fail", anchor="end"))
            band = wide - left - right + 8
            parts.append(f'<rect x="{left - 8}" y="{top + 1}" width="{band}" height="{row_high - 2}" fill="#f5f5f5"/>')
            for index, rule in enumerate(rules):
                found = at.get((rps, effect, rule))
                if not found:
                    continue
                y = middle + 8 * (index - 2)
                if rule == "serin" and found["relief"] is not None:
                    parts.append(_dot(x(found["relief"]), y, COLOURS[rule], hollow=True))
                if found["rollback"] is not None:
                    parts.append(_dot(x(found["rollback"]), y, COLOURS[rule]))
            top += row_high
        for seconds in (5, 15, 30, 60, 120, 300, 600, 1200, 2400):
            parts.append(_text(x(seconds), top + 8, _time(seconds), GREY, anchor="middle"))
        top += 24
    return _svg(wide, top + 6, parts)


def false_rollbacks(rows: Iterable[Measured]) -> str:
    """Share of harmless rollouts that were rolled back, at its worst over the traffic levels."""
    worlds = {
        "realistic": "ordinary days",
        "persistent": "pods that differ for good",
        "burst": "bursts of single pods",
        "incident": "an incident on both arms",
    }
    rules = ["serin", "argo", "flagger", "kayenta", "z-test", "mSPRT"]
    wide, left, right, top = 960.0, 190.0, 60.0, 44.0
    worst: dict[tuple[str, str], float] = {}
    for row in rows:
        if row["effect"] == "none":
            key = row["world"], row["rule"]
            worst[key] = max(worst.get(key, 0.0), row["rolledBack"])
    parts = [_legend(rules, 20, 20)]
    for world, words in worlds.items():
        parts.append(_text(left - 12, top + 46, words, anchor="end"))
        for rule in rules:
            share = worst.get((world, rule))
            if share is not None:
                long = max((wide - left - right) * share, 1.5)
                parts.append(f'<rect x="{left}" y="{top}" width="{long:.1f}" height="10" fill="{COLOURS[rule]}"/>')
                parts.append(_text(left + long + 6, top + 9, f"{100 * share:.2g} %", COLOURS[rule]))
            top += 13
        top += 16
    parts.append(_text(left, top + 4, "harmless releases rolled back, at the traffic level where it is worst", GREY))
    return _svg(wide, top + 16, parts)


def visible(rows: Iterable[Measured]) -> str:
    """What can be seen at all: seconds to relief and rollback by traffic and size of the fault."""
    traffic, effects = (5.0, 20.0, 200.0, 5000.0), ("0.2 %", "0.5 %", "1 %", "5 %", "50 %")
    wide, left, cell, high = 960.0, 150.0, 158.0, 44.0
    at = {(row["rps"], row["effect"]): row for row in rows if row["world"] == "realistic" and row["rule"] == "serin"}
    parts = [_text(20, 20, "seconds to relief / to rollback, or how many of such releases are rolled back", bold=True)]
    for column, effect in enumerate(effects):
        parts.append(_text(left + cell * (column + 0.5), 46, f"{effect} fail", anchor="middle"))
    for line, rps in enumerate(traffic):
        top = 56 + high * line
        parts.append(_text(left - 12, top + 26, f"{rps:,.0f} requests/s", anchor="end"))
        for column, effect in enumerate(effects):
            found = at.get((rps, effect))
            if not found:
                continue
            seconds, relief = found["rollback"], found["relief"]
            if seconds is None:
                colour, words = "#fbe9e7", f"{100 * found['rolledBack']:.0f} % found"
            else:
                colour = "#c8e6c9" if seconds <= 180 else "#e8f5e9" if seconds <= 600 else "#fff8e1"
                words = f"{_time(relief)} / {_time(seconds)}"
            x = left + cell * column
            parts.append(f'<rect x="{x}" y="{top}" width="{cell - 4}" height="{high - 4}" rx="4" fill="{colour}"/>')
            parts.append(_text(x + cell / 2 - 2, top + 25, words, anchor="middle"))
    top = 56 + high * len(traffic)
    parts.append(_text(left, top + 14, "plan of 1, 5, 25 and 50 %, ten minutes each; usual error ratio 0.1 %", GREY))
    return _svg(wide, top + 24, parts)


def trade_off(rows: Iterable[Measured]) -> str:
    """What each setting, and each rule of others, costs harmless releases, against how soon a bad one is found.

    One dot for each. Empty where fewer than two settings were measured.
    """
    some = [row for row in rows if row["rps"] in (200.0, 5000.0)]
    named = sorted({(row["rule"], row.get("setting", "")) for row in some if row["rule"] in COLOURS})
    dots = [dot for rule, setting in named if (dot := _traded(rule, setting, some))]
    ours = [dot for dot in dots if dot["rule"] == "serin"]
    if len(ours) < 2:
        return ""
    # falseRollbackRate has no part in a retreat: what differs in relief between its values is chance.
    relieving = [dot for dot in ours if not dot["setting"] or not _rate(dot)]
    panels = (
        ("seconds to relief", "harmless that retreat", "relief", "retreated", 52.0, relieving),
        ("seconds to rollback", "harmless rolled back", "rollback", "rolledBack", 520.0, dots),
    )
    wide, width, high, top = 960.0, 400.0, 260.0, 64.0
    parts = [
        _text(20, 20, "1 % of requests fail, medians at 200 and 5,000 requests a second, averaged", bold=True),
        _text(wide - 40, 20, "blue: falseRollbackRate in percent, 1 by default", COLOURS["serin"], anchor="end"),
    ]
    for across, up, figure, share, left, of in panels:
        shown = [dot for dot in of if math.isfinite(dot[figure])]
        most = 1.15 * max((dot[figure] for dot in shown), default=1.0)
        parts.append(f'<rect x="{left}" y="{top}" width="{width}" height="{high}" fill="#f5f5f5"/>')
        parts.append(_text(left, top - 8, f"{up}, logarithmic", GREY))
        parts.append(_text(left + width, top + high + 32, f"{across}, up to {most:.0f} s", GREY, anchor="end"))
        for line in SHARES:
            y = top + high * _height(line)
            parts.append(f'<line x1="{left}" x2="{left + width}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
            parts.append(_text(left - 4, y + 4, f"{100 * line:g} %", GREY, anchor="end"))
        curve = sorted((_rate(dot), dot[figure], dot[share]) for dot in shown if _rate(dot))
        points = [(left + width * seconds / most, top + high * _height(wrong)) for _, seconds, wrong in curve]
        if len(points) > 1:
            parts.append(_path(points, COLOURS["serin"]))
        for dot in shown:
            x, y, end = (
                left + width * dot[figure] / most,
                top + high * _height(dot[share]),
                top + high * _height(dot[f"{share}High"]),
            )
            rate, colour = _rate(dot), COLOURS[dot["rule"]]
            if dot["rule"] == "serin" and not rate:
                colour = GREY
            parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y:.1f}" y2="{end:.1f}" stroke="{colour}"/>')
            parts.append(_dot(x, y, colour))
            if rate:
                said = f"{100 * rate:g}" if of is dots else "the defaults"
                parts.append(_text(x, y + 17, said, colour, anchor="middle"))
                continue
            words = dot["setting"] or NAMES.get(dot["rule"], dot["rule"])
            parts.append(
                f'<text transform="translate({x + 7:.1f} {y - 5:.1f}) rotate(-35)" fill="{colour}" '
                f'font-size="10">{escape(words)}</text>'
            )
    parts.append(
        _text(
            20,
            top + high + 52,
            "lines reach to the upper end of the 95 % interval; ordinary days and bursts; at the bottom: none was seen",
            GREY,
        )
    )
    return _svg(wide, top + high + 64, parts)


SHARES = (0.001, 0.01, 0.1, 1.0)


def _height(share: float) -> float:
    """From the top, 0 to 1, of a share on a logarithmic scale; a tenth of a percent and less is at the bottom."""
    return min(-math.log10(max(share, SHARES[0])) / -math.log10(SHARES[0]), 1.0)


def _rate(dot: dict[str, Any]) -> float:
    """The falseRollbackRate of a dot of ours whose other settings are the defaults; 0 of every other dot."""
    if dot["rule"] != "serin":
        return 0.0
    name, _, value = str(dot["setting"] or "falseRollbackRate 0.01").partition(" ")
    return float(value) if name == "falseRollbackRate" else 0.0


def _traded(rule: str, setting: str, rows: Sequence[Measured]) -> dict[str, Any] | None:
    """One setting: medians over the bad, shares over the harmless; None where a cell was not measured."""
    of = [row for row in rows if row["rule"] == rule and row.get("setting", "") == setting]
    harmless = [row for row in of if row["effect"] == "none" and row["world"] in ("realistic", "burst")]
    bad = [row for row in of if row["effect"] == "1 %" and row["world"] == "realistic"]
    if len(harmless) < 4 or len(bad) < 2:
        return None
    dot: dict[str, Any] = {"rule": rule, "setting": setting}
    for figure in ("relief", "rollback"):
        dot[figure] = sum(math.inf if row[figure] is None else row[figure] for row in bad) / len(bad)
    n = sum(row["n"] for row in harmless)
    for share in ("retreated", "rolledBack"):
        count = round(sum(row[share] * row["n"] for row in harmless))
        dot |= {share: count / n, f"{share}High": between(count, n)[1]}
    return dot


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    minutes = seconds / 60
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{minutes:.1f} min".replace(".0", "")
        if minutes < 10
        else f"{minutes:.0f} min"
    )


def _legend(rules: Sequence[str], left: float, y: float) -> str:
    parts = []
    for rule in rules:
        words = NAMES.get(rule, rule if rule != "serin" else "Serin")
        parts += [_dot(left + 5, y - 4, COLOURS[rule]), _text(left + 14, y, words)]
        left += 34 + 7.0 * len(words)
    return "\n".join(parts)


def _dot(x: float, y: float, colour: str, *, hollow: bool = False) -> str:
    fill = f'fill="#fff" stroke="{colour}" stroke-width="2"' if hollow else f'fill="{colour}"'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" {fill}/>'


def _path(points: Iterable[tuple[float, float]], colour: str) -> str:
    steps = " L".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<path d="M{steps}" fill="none" stroke="{colour}" stroke-width="2"/>'


def _text(x: float, y: float, words: str, colour: str = "#333", *, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}"{weight}>{escape(words)}</text>'


def _svg(wide: float, high: float, parts: Iterable[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:g} {high:g}" font-family="sans-serif" '
        f'font-size="12">\n<rect width="{wide:g}" height="{high:g}" fill="#fff"/>'
    )
    return "\n".join([head, *parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text())["rows"], Path(sys.argv[2]))
