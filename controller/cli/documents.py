"""Objects in a YAML or JSON file or on standard input, as commands get them with `-f`.

The one thing to know: they are read as kubectl reads them, so a list counts as what is in it, and a date is a text.
"""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from controller.cli.files import named, read_text
from controller.cli.kubectl import Failure, Object
from controller.cli.text import plain


def read_documents(file: str) -> list[Object]:
    """The objects in a YAML or JSON file, those of lists each by itself.

    Raises: Failure: it cannot be read; names the file and the line.
    """
    text = read_text(file)
    try:
        bodies = [body for body in yaml.load_all(text, _Loader) if body is not None]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise Failure(f"{named(file)}: {where}{error.problem or error.context}: {_mend(text)}") from None
    except yaml.reader.ReaderError as error:
        raise Failure(f"{named(file)}: character {error.position + 1} belongs into no YAML: {error.reason}") from None
    # What nests too deeply is no error of YAML, nor is a number that is too long.
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise Failure(f"{named(file)}: cannot be read as YAML: {error}") from None
    found: list[Object] = []
    for number, body in enumerate(bodies, start=1):
        if not isinstance(body, dict):
            raise Failure(
                f"{named(file)}: document {number} is no object but {plain(body, 40)!r}: "
                "write apiVersion, kind, metadata and spec"
            )
        found += _items(body)
    return found


def of_kind(bodies: Sequence[Object], kind: str, file: str, otherwise: str) -> list[Object]:
    """Those of one kind.

    Raises: Failure: there is none; says what there is instead, and `otherwise`, what to do about it.
    """
    found = [body for body in bodies if body.get("kind") == kind]
    if found:
        return found
    if not bodies:
        raise Failure(f"{named(file)}: it is empty: write an object of kind {kind}")
    kinds = ", ".join(dict.fromkeys(plain(body.get("kind") or "an object without a kind", 63) for body in bodies))
    raise Failure(f"{named(file)}: no object of kind {kind} in it; found {kinds}: {otherwise}")


def _items(body: Object) -> list[Object]:
    """What a list holds, or the object itself."""
    items = body.get("items")
    if not str(body.get("kind", "")).endswith("List") or not isinstance(items, list):
        return [body]
    return [one for one in items if isinstance(one, dict)]


def _mend(text: str) -> str:
    if "{{" in text:
        return "this is a template: render it first, and pipe what comes out into this command with - for the file"
    return "mend it, or ask kubectl: kubectl apply --dry-run=client -f FILE"


class _Loader(yaml.SafeLoader):
    """Without dates: in an object of Kubernetes they are texts."""


_Loader.yaml_implicit_resolvers = {
    first: [one for one in resolvers if one[0] != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
