"""Writes `manifests/crd` from the models: `python -m controller.model.crd OUTDIR`.

pydantic and msgspec speak JSON Schema; the API server takes the structural part of it only. So
references are inlined, null is left out (an absent field says the same), and whatever has no
bound of its own gets one: the API server estimates the cost of a rule from the bounds, and no
object may grow beyond what the loop can carry.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from controller.model.durations import render_duration
from controller.model.policy import LABEL_KEY, FreezeSpec, ReleasePolicySpec
from controller.model.record import ReleaseRecordSpec
from controller.model.spec import (
    GROUP,
    HEADER,
    HEADER_TAKEN,
    OWN_HEADERS,
    VERSION,
    WORD,
    CanarySpec,
    DecisionSpec,
    MetricsSourceSpec,
    Model,
)
from controller.model.status import Status

Schema = dict[str, Any]

_KEPT = (
    "type",
    "description",
    "default",
    "enum",
    "format",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "required",
    "x-kubernetes-validations",
)
_MAX_STRING = 1024
_MAX_ITEMS = 100
_MAX_PROPERTIES = 64
_MAX_INSTANT = 40

_EPOCH_RULE = {
    "rule": "!has(oldSelf.status) || !has(oldSelf.status.leaderEpoch) || (has(self.status) && "
    "has(self.status.leaderEpoch) && self.status.leaderEpoch >= oldSelf.status.leaderEpoch)",
    "message": "status.leaderEpoch never falls: a newer controller leads",
}
_NAME_RULE = {
    "rule": "self.metadata.name.size() <= 56 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
    "message": "metadata.name: write at most 56 of a-z, 0-9 and '-', a letter first: "
    "the Service <name>-canary is named after it",
}
_BASELINE_NAME_RULE = {
    "rule": "self.metadata.name.size() <= 54 || !has(self.spec.analysis) || !has(self.spec.analysis.baseline) || "
    "!has(self.spec.analysis.baseline.fresh) || !self.spec.analysis.baseline.fresh",
    "message": "metadata.name: write at most 54 characters where analysis.baseline.fresh is true: "
    "the Service <name>-baseline is named after it",
}
_HEADERS_RULE = {
    "rule": f"!has(self.spec.headers) || self.spec.headers.all(name, !(name.lowerAscii() in {list(OWN_HEADERS)}))",
    "message": HEADER_TAKEN,
}
_SHOWN_AT_REST = ("phase", "weight")
"""status leaves its defaults out; the API server puts these back, because columns show them"""


@dataclass(frozen=True)
class Column:
    """One column of `kubectl get`."""

    name: str
    path: str
    type: str = "string"
    description: str = ""


_AGE = Column("Age", ".metadata.creationTimestamp", "date")


@dataclass(frozen=True)
class Kind:
    """One kind of the API group."""

    name: str
    plural: str
    short: tuple[str, ...]
    spec: type[Model] | type[msgspec.Struct]
    description: str
    columns: tuple[Column, ...]
    status: type[msgspec.Struct] | None = None
    scope: str = "Namespaced"
    rules: tuple[Mapping[str, str], ...] = ()


KINDS = (
    Kind(
        name="Canary",
        plural="canaries",
        short=("cn",),
        spec=CanarySpec,
        status=Status,
        description="How one workload is released; status tells how far the present rollout is.",
        rules=(_EPOCH_RULE, _NAME_RULE, _BASELINE_NAME_RULE),
        columns=(
            Column("Phase", ".status.phase"),
            Column("Weight", ".status.weight", "number", "percent of requests the canary is authorised to have"),
            Column("Step", ".status.stepShown"),
            Column("Verdict", ".status.verdictShown"),
            Column("Origin", ".status.originShown", description="who or what wrote the change, as it is treated"),
            Column("Waiting-on", ".status.waitingOn"),
            _AGE,
        ),
    ),
    Kind(
        name="Decision",
        plural="decisions",
        short=("dec",),
        spec=DecisionSpec,
        description="What one person says about one rollout. It cannot be changed, only followed by another.",
        columns=(
            Column("Canary", ".spec.canary"),
            Column("Decision", ".spec.decision"),
            Column("By", ".spec.by"),
            Column("Attempt", ".spec.attempt"),
            Column("Step", ".spec.step", "integer"),
            _AGE,
        ),
    ),
    Kind(
        name="ReleaseRecord",
        plural="releaserecords",
        short=("rr",),
        spec=ReleaseRecordSpec,
        description="What happened in one rollout, kept when the Canary goes.",
        columns=(
            Column("Canary", ".spec.canary"),
            Column("Number", ".spec.number", "integer", "its place in the chain of this Canary's records"),
            Column("Origin", ".spec.origin.treated"),
            Column("Outcome", ".spec.outcome"),
            Column("Relief", ".spec.secondsToRelief", "number", "seconds from the first bad sample to weight 0"),
            _AGE,
        ),
    ),
    Kind(
        name="ReleasePolicy",
        plural="releasepolicies",
        short=("rp",),
        spec=ReleasePolicySpec,
        scope="Cluster",
        description="Guardrails: what a change must meet by who wrote it, how well that is proven and what it touches.",
        columns=(
            Column("Mode", ".spec.mode"),
            Column("Rules", ".spec.rules[*].name"),
            Column("Namespaces", ".spec.selector.namespaces"),
            _AGE,
        ),
    ),
    Kind(
        name="Freeze",
        plural="freezes",
        short=("fz",),
        spec=FreezeSpec,
        scope="Cluster",
        description="A time without releases; with neither schedule nor start a kill switch, which holds until thawed.",
        columns=(
            Column("On-start", ".spec.onStart"),
            Column("Schedule", ".spec.schedule"),
            Column("Zone", ".spec.timeZone"),
            Column("End", ".spec.end"),
            Column("By", ".spec.by"),
            Column("Reason", ".spec.reason"),
            _AGE,
        ),
    ),
    Kind(
        name="MetricsSource",
        plural="metricssources",
        short=("ms",),
        spec=MetricsSourceSpec,
        scope="Cluster",
        description="A Prometheus-compatible server, its credentials and its queries: owned by the platform team.",
        columns=(Column("URL", ".spec.url"), _AGE),
        rules=(_HEADERS_RULE,),
    ),
)


class _Generator(GenerateJsonSchema):
    """Defaults as a person would write them, those of factories too."""

    def get_default_value(self, schema: core_schema.WithDefaultSchema) -> Any:
        factory = schema.get("default_factory")
        return factory() if factory is not None else super().get_default_value(schema)  # type: ignore[call-arg]

    def encode_default(self, dft: Any) -> Any:
        return _plain(dft)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_none=True)
    if isinstance(value, timedelta):
        return render_duration(value)
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def structural(schema: Schema, definitions: Mapping[str, Schema], *, defaults: bool) -> Schema:
    """The part of a JSON Schema that the API server takes, references inlined and bounds complete."""
    node = _resolve(schema, definitions)
    kept = {key: node[key] for key in _KEPT if key in node}
    if not kept.get("required", True):
        del kept["required"]
    if "const" in node:
        kept["enum"] = [node["const"]]
    if not defaults or kept.get("default", "") is None:
        kept.pop("default", None)
    match node.get("type"):
        case "object":
            kept |= _object(node, definitions, defaults=defaults)
        case "array":
            kept.setdefault("maxItems", _MAX_ITEMS)
            kept["items"] = structural(node["items"], definitions, defaults=defaults)
        case "string" if "enum" not in kept:
            kept.setdefault("maxLength", _MAX_INSTANT if kept.get("format") == "date-time" else _MAX_STRING)
        case "integer":
            kept.setdefault("format", "int64")
    return kept


def _resolve(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Follow references and drop `null` alternatives; what stands beside a reference wins."""
    beside = {key: value for key, value in schema.items() if key not in ("$ref", "anyOf", "allOf")}
    if "$ref" in schema:
        return {**_resolve(definitions[schema["$ref"].rsplit("/", 1)[-1]], definitions), **beside}
    for alternatives in ("anyOf", "allOf"):
        if alternatives in schema:
            (only,) = [each for each in schema[alternatives] if each.get("type") != "null"]
            return {**_resolve(only, definitions), **beside}
    if set(schema.get("enum", ())) and "type" not in schema:
        return {**schema, "type": "string"}
    return schema


_KEYS = {
    WORD: "write names of a-z, 0-9 and '-', 63 at most, such as gateway",
    HEADER: "write header names of letters, digits, '-' and '_', 63 at most, such as X-Scope-OrgID",
    LABEL_KEY: "write label keys, 63 characters at most, such as team or example.com/team",
}
"""what the keys of a mapping must be, by their pattern"""


def _object(node: Schema, definitions: Mapping[str, Schema], *, defaults: bool) -> Schema:
    if "properties" in node:
        return {
            "properties": {
                name: structural(each, definitions, defaults=defaults) for name, each in node["properties"].items()
            }
        }
    if "patternProperties" in node:
        ((pattern, each),) = node["patternProperties"].items()
        return {
            "maxProperties": node.get("maxProperties", _MAX_PROPERTIES),
            "additionalProperties": structural(each, definitions, defaults=defaults),
            "x-kubernetes-validations": [
                {
                    "rule": f"self.all(key, key.size() <= 63 && key.matches('{pattern}'))",
                    "message": _KEYS[pattern],
                }
            ],
        }
    if isinstance(node.get("additionalProperties"), dict) and node["additionalProperties"]:
        return {
            "maxProperties": node.get("maxProperties", _MAX_PROPERTIES),
            "additionalProperties": structural(node["additionalProperties"], definitions, defaults=defaults),
        }
    if node.get("additionalProperties") is False:
        return {}
    return {"x-kubernetes-preserve-unknown-fields": True}


def spec_schema(model: type[Model] | type[msgspec.Struct]) -> Schema:
    """The structural schema of what people write, with its defaults; of what the controller writes, without."""
    if issubclass(model, msgspec.Struct):
        (reference,), definitions = msgspec.json.schema_components([model])
        return structural(reference, definitions, defaults=False)
    schema = model.model_json_schema(by_alias=True, schema_generator=_Generator)
    return structural(schema, schema.get("$defs", {}), defaults=True)


def status_schema(struct: type[msgspec.Struct]) -> Schema:
    """The structural schema of what the controller remembers; defaults only where a column shows them."""
    (reference,), definitions = msgspec.json.schema_components([struct])
    schema = structural(reference, definitions, defaults=False)
    whole = _resolve(reference, definitions)
    for name in _SHOWN_AT_REST:
        schema["properties"][name]["default"] = whole["properties"][name]["default"]
    # One writer writes all of it: who owns which field of it would be a third of the object, reckoned at each write.
    schema["x-kubernetes-map-type"] = "atomic"
    return schema


def render_crd(kind: Kind) -> Schema:
    """The CustomResourceDefinition of one kind."""
    properties: Schema = {
        "apiVersion": {"type": "string", "maxLength": 253},
        "kind": {"type": "string", "maxLength": 63},
        "metadata": {"type": "object"},
        "spec": spec_schema(kind.spec),
    }
    schema: Schema = {
        "description": kind.description,
        "type": "object",
        "required": ["spec"],
        "properties": properties,
    }
    if kind.status is not None:
        properties["status"] = status_schema(kind.status)
    if kind.rules:
        properties["metadata"] |= {"properties": {"name": {"type": "string", "maxLength": 253}}}
        schema["x-kubernetes-validations"] = [dict(rule) for rule in kind.rules]
    version: Schema = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "additionalPrinterColumns": [_render_column(column) for column in kind.columns],
    }
    if kind.status is not None:
        version["subresources"] = {"status": {}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": kind.scope,
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "singular": kind.name.lower(),
                "plural": kind.plural,
                "shortNames": list(kind.short),
                "categories": ["serin"],
            },
            "versions": [version],
        },
    }


def _render_column(column: Column) -> Schema:
    rendered = {"name": column.name, "type": column.type, "jsonPath": column.path}
    return rendered | ({"description": column.description} if column.description else {})


def render_files() -> dict[str, str]:
    """File name and text of every CRD, the same on every run."""
    import yaml  # only the repository's own tooling writes manifests, so only it needs this

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    return {
        f"{kind.plural}.yaml": yaml.dump(render_crd(kind), Dumper=Plain, sort_keys=False, width=110) for kind in KINDS
    }


def main(arguments: list[str]) -> int:
    """Write the manifests into the folder named."""
    if len(arguments) != 1:
        print("usage: python -m controller.model.crd OUTDIR", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in render_files().items():
        (folder / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
