"""`python -m controller.analysis`: JSON lines in, exactly one JSON line out for each, in order.

The only module of the package that reads and writes; the rules are in `play.py`.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import sys
from collections.abc import Iterator
from typing import IO, Any

import msgspec

from controller.analysis import play
from controller.analysis.histogram import Native
from controller.analysis.lines import (
    ArmLine,
    BadLine,
    Line,
    MetricArm,
    MetricLine,
    Plan,
    PlannedMetric,
    PodLine,
    Step,
)
from controller.analysis.play import Playing

USAGE = """usage: python -m controller.analysis < LINES.jsonl

JSON lines on standard input, one answer a line on standard output; docs/judge.md shows a first rollout.
"""


LONGEST = 16 * 1024 * 1024
"""Characters of a line that is read: what is longer is no scrape, and is not kept in memory."""
READ: tuple[type[msgspec.Struct], ...] = (
    Plan,
    Step,
    PlannedMetric,
    Line,
    ArmLine,
    PodLine,
    MetricLine,
    MetricArm,
    Native,
)
KNOWN = {kind: frozenset(kind.__struct_encode_fields__) for kind in READ}
"""fields that are read, by what they are of"""
OF_KIND = {"latency": {"buckets", "native"}, "ratio": {"requests", "bad"}, "gauge": {"values"}}
"""and those of an arm of a metric, by its kind"""
PLANNED_OF = {"gauge": {"kind", "margin"}, "latency": KNOWN[PlannedMetric]}
"""and those of a planned metric; of the other kinds all but the threshold"""
NAMES = frozenset(("rollout", "end"))
"""and those of every line"""
OF_LINE, OF_ARM = KNOWN[Line] | NAMES, KNOWN[ArmLine]


def answer(playing: dict[str, Playing], text: str) -> dict[str, Any]:
    """Take in one line of any rollout; a bad one changes nothing and is answered with error and field."""
    named: dict[str, Any] = {}
    try:
        body = _object(text, named)
        rollout = _rollout(body)
        named["rollout"] = rollout
        return named | _answered(playing, rollout, body)
    except BadLine as error:
        return named | {"error": str(error), "field": error.field}


def main(lines: IO[str] = sys.stdin, out: IO[str] = sys.stdout) -> int:
    """Answer until the input ends, or until nobody reads the answers."""
    playing: dict[str, Playing] = {}
    try:
        for text in _lines(lines):
            out.write(msgspec.json.encode(answer(playing, text)).decode() + "\n")
            out.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # What is still buffered is for nobody: the interpreter would fail once more on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _lines(lines: IO[str]) -> Iterator[str]:
    """Each line as it comes; of one that is too long only so much that it is seen to be."""
    while text := lines.readline(LONGEST + 1):
        rest = text
        while len(rest) > LONGEST and not rest.endswith("\n"):
            rest = lines.readline(LONGEST + 1)
        yield text


def _object(text: str, named: dict[str, Any]) -> dict[str, Any]:
    if len(text) > LONGEST:
        raise BadLine("", f"the line is longer than the {LONGEST:,} characters that are read")
    try:
        body = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise _what_is_wrong(text, str(error), named) from error
    except RecursionError as error:
        raise BadLine("", "not JSON that can be read: it is nested too deeply") from error
    if not isinstance(body, dict):
        raise BadLine("", "expected an object")
    # Of a key that is there twice JSON keeps one. Colons in names are rare, so few lines are read a second time.
    if text.count(":") != _members(body) and (twice := _twice(text)):
        rollout = body.get("rollout")
        named |= {"rollout": rollout} if isinstance(rollout, str) and rollout and twice != "rollout" else {}
        raise BadLine(twice, "is there twice, and only one of them can be meant")
    return body


def _members(body: dict[str, Any]) -> int:
    """Keys of all objects in it."""
    count, left = 0, list[Any]([body])
    while left:
        one = left.pop()
        if type(one) is dict:
            count += len(one)
            one = one.values()
        for inner in one:
            if type(inner) is dict or type(inner) is list:
                left.append(inner)
    return count


class _Twice(dict[str, Any]):
    """An object of which one key was there twice."""

    key = ""


def _paired(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    twice, seen = _Twice(found), set[str]()
    twice.key = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    return twice


def _twice(text: str) -> str:
    """Where the first key is that is there twice; empty where none is."""
    return next((path for path, one in _walk(_loosely(text), "") if isinstance(one, _Twice)), "")


def _what_is_wrong(text: str, told: str, named: dict[str, Any]) -> BadLine:
    """Names the field of a number or a name that JSON has no word for, such as NaN: other programs write them."""
    body = _loosely(text)
    rollout = body.get("rollout") if isinstance(body, dict) else None
    if isinstance(rollout, str) and rollout and _is_text(rollout):
        named["rollout"] = rollout
    for path, one in _walk(body, ""):
        if isinstance(one, float) and not math.isfinite(one):
            return BadLine(path, f"is {one}, must be a finite number")
        if isinstance(one, str) and not _is_text(one):
            return BadLine(path, "is not UTF-8, or half of a character in two parts")
    return BadLine("", f"not JSON: {told}")


def _loosely(text: str) -> Any:
    """What Python makes of it, which is more than JSON; None where that is nothing."""
    try:
        return json.loads(text, object_pairs_hook=_paired)
    except (ValueError, RecursionError):
        return None


def _walk(body: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every value with its path, as fields are named; keys that are no text as values of their own."""
    if isinstance(body, _Twice):
        yield _joined(path, body.key), body
    if isinstance(body, dict):
        for key, one in body.items():
            if _is_text(key):
                yield from _walk(one, _joined(path, key))
            else:
                yield path, key
    elif isinstance(body, list):
        for number, one in enumerate(body):
            yield from _walk(one, f"{path}[{number}]")
    else:
        yield path, body


def _joined(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _is_text(found: str) -> bool:
    try:
        found.encode()
    except UnicodeError:
        return False
    return True


def _rollout(body: dict[str, Any]) -> str:
    rollout = body.get("rollout")
    if not isinstance(rollout, str) or not rollout:
        raise BadLine("rollout", "must be the rollout's name, a string")
    return rollout


def _answered(playing: dict[str, Playing], rollout: str, body: dict[str, Any]) -> dict[str, Any]:
    if body.get("end") not in (None, True, False):
        raise BadLine("end", "must be true")
    if body.get("end"):
        playing.pop(rollout, None)
        return {"decision": "end"}
    if "plan" in body:
        return _begun(playing, rollout, body)
    if rollout not in playing:
        raise BadLine("plan", "the first line of a rollout carries its plan")
    playing[rollout], answered = play.play(playing[rollout], _converted(body, Line, ""))
    return _with_ignored(answered, _ignored_of_line(body, playing[rollout].plan))


def _begun(playing: dict[str, Playing], rollout: str, body: dict[str, Any]) -> dict[str, Any]:
    begun = play.begin(_converted(body["plan"], Plan, "plan"))
    if rollout in playing and not playing[rollout].ended:
        raise BadLine(
            "plan",
            f'rollout {rollout} is under way: end it first with {{"rollout": ..., "end": true}}, or take another name',
        )
    playing[rollout] = begun
    answered = {"decision": "continue", "step": 0, "weight": begun.weight, "settings": play.render_settings(begun)}
    beside = [name for name in body if name not in NAMES and name != "plan"]
    return _with_ignored(answered, beside + _ignored_of_plan(body["plan"]))


def _with_ignored(answered: dict[str, Any], ignored: list[str]) -> dict[str, Any]:
    """A field nobody reads may be a name misspelt: `error` for `errors` would make any canary pass."""
    return answered | {"ignored": sorted(ignored)} if ignored else answered


def _ignored_of_plan(plan: dict[str, Any]) -> list[str]:
    found = _unknown(plan, Plan, "plan.")
    for number, step in enumerate(plan["steps"]):
        found += _unknown(step, Step, f"plan.steps[{number}].")
    for name, one in plan.get("metrics", {}).items():
        read = PLANNED_OF.get(one.get("kind", "errors"), KNOWN[PlannedMetric] - {"threshold"})
        found += [f"plan.metrics.{name}.{field}" for field in one if field not in read]
    return found


def _ignored_of_line(line: dict[str, Any], plan: Plan) -> list[str]:
    found = [name for name in line if name not in OF_LINE]
    for arm in ("canary", "baseline"):
        if seen := line.get(arm):
            if not OF_ARM.issuperset(seen):
                found += _unknown(seen, ArmLine, arm + ".")
            for pod, one in seen["by_pod"].items() if "by_pod" in seen else ():
                found += _unknown(one, PodLine, f"{arm}.by_pod.{pod}.")
    for name, one in line["metrics"].items() if "metrics" in line else ():
        kind = plan.metrics[name].kind if name in plan.metrics else "errors"
        if kind == "errors":
            # Not planned, or counted by the arms themselves.
            found.append(f"metrics.{name}")
        elif one is not None:
            found += _unknown(one, MetricLine, f"metrics.{name}.")
            for arm in ("canary", "baseline"):
                seen, path = one.get(arm) or {}, f"metrics.{name}.{arm}."
                found += [path + field for field in seen if field not in OF_KIND[kind]]
                found += _unknown(seen.get("native"), Native, f"{path}native.") if kind == "latency" else []
    return found


def _unknown(found: dict[str, Any] | None, kind: type[msgspec.Struct], prefix: str) -> list[str]:
    if not found or (known := KNOWN[kind]).issuperset(found):
        return []
    return [prefix + name for name in found if name not in known]


def _converted(body: Any, kind: type[Any], prefix: str) -> Any:
    try:
        return msgspec.convert(body, kind, str_keys=True)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `")
        missing = re.search("missing required field `(.+)`", message)
        inside = path.rpartition("$")[2].rstrip("`") + ("[...]" if path.startswith("key") else "")
        inside = _spelt_out(body, kind, str(error), inside)
        field = ".".join(part for part in (prefix, inside, missing and missing[1]) if part)
        raise BadLine(field, message) from error


def _spelt_out(body: Any, kind: type[Any], told: str, path: str) -> str:
    """The path with the keys that it leaves out: each is tried alone. Of `body` only the culprit is left."""
    spelt, inside = "", body
    for part in re.findall(r"\[\.\.\.\]|\[\d+\]|[^.\[\]]+", path):
        if part == "[...]":
            key = ""
            for key, one in list(inside.items()):
                inside.clear()
                inside[key] = one
                if _problem_of(body, kind) == told:
                    break
            spelt, inside = _joined(spelt, key), inside[key]
        elif part.startswith("["):
            spelt, inside = spelt + part, inside[int(part[1:-1])]
        else:
            spelt, inside = _joined(spelt, part), inside[part]
    return spelt


def _problem_of(body: Any, kind: type[Any]) -> str:
    try:
        msgspec.convert(body, kind, str_keys=True)
    except msgspec.ValidationError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    if sys.argv[1:]:
        helped = sys.argv[1:] in (["-h"], ["--help"])
        print(USAGE, end="", file=sys.stdout if helped else sys.stderr)
        sys.exit(0 if helped else 2)
    # Whatever the locale says: JSON is UTF-8, and a line that is not is answered like any other bad one.
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "strict")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors=errors, newline="\n")
    sys.exit(main())
