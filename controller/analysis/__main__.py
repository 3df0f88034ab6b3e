"""`python -m controller.analysis`: JSON lines in, exactly one JSON line out for each, in order.

The only module of the package that reads and writes; the rules are in `play.py`.
"""

from __future__ import annotations

import sys
from typing import IO, Any

import msgspec

from controller.analysis import play
from controller.analysis.play import Line, Plan, Playing


class _Refused(Exception):
    """A line that cannot be used: what is wrong, and with which field."""

    def __init__(self, error: str, field: str) -> None:
        super().__init__(error)
        self.field = field


def answer(playing: dict[str, Playing], text: str) -> dict[str, Any]:
    """Take in one line of any rollout; a bad one changes nothing and is answered with error and field."""
    rollout = ""
    try:
        body = _object(text)
        rollout = _rollout(body)
        return {"rollout": rollout} | _answered(playing, rollout, body)
    except _Refused as error:
        named = {"rollout": rollout} if rollout else {}
        return named | {"error": str(error), "field": error.field}


def main(lines: IO[str] = sys.stdin, out: IO[str] = sys.stdout) -> int:
    """Answer until the input ends."""
    playing: dict[str, Playing] = {}
    for text in lines:
        out.write(msgspec.json.encode(answer(playing, text)).decode() + "\n")
        out.flush()
    return 0


def _object(text: str) -> dict[str, Any]:
    try:
        body = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise _Refused(f"not JSON: {error}", "") from error
    if not isinstance(body, dict):
        raise _Refused("expected an object", "")
    return body


def _rollout(body: dict[str, Any]) -> str:
    rollout = body.get("rollout")
    if not isinstance(rollout, str) or not rollout:
        raise _Refused("expected the rollout's name, a string", "rollout")
    return rollout


def _answered(playing: dict[str, Playing], rollout: str, body: dict[str, Any]) -> dict[str, Any]:
    if body.get("end"):
        playing.pop(rollout, None)
        return {"decision": "end"}
    if "plan" in body:
        try:
            playing[rollout] = play.begin(_converted(body["plan"], Plan, "plan"))
        except ValueError as error:
            raise _Refused(str(error), str(error).split(":", 1)[0]) from error
        begun = playing[rollout]
        settings = play.render_settings(begun)
        return {"decision": "continue", "step": 0, "weight": begun.weight, "settings": settings}
    if rollout not in playing:
        raise _Refused("the first line of a rollout carries its plan", "plan")
    playing[rollout], answered = play.play(playing[rollout], _converted(body, Line, ""))
    return answered


def _converted(body: Any, kind: type[Any], prefix: str) -> Any:
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        inside = path.rstrip("`").lstrip(".")
        raise _Refused(message, ".".join(part for part in (prefix, inside) if part)) from error


if __name__ == "__main__":
    sys.exit(main())
