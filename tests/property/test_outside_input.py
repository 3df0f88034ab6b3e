"""Whatever comes from outside is read or refused, in our words: it never ends a turn with something unexpected.

Specs as a tenant may write them, decisions, statuses that somebody edited, answers of API server and metrics server,
label values of a query, and lines that go to a log or a terminal. `make fuzz` runs the same laws for much longer.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
from typing import Any

import msgspec
import structlog
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from controller.app import _log_to
from controller.errors import SerinError
from controller.kube.answers import error_of
from controller.kube.answers import parse_status as parse_failure
from controller.loop.memory import DecisionObject
from controller.model.spec import Analysis, CanarySpec, MetricsSourceSpec, parse_canary_spec, read_analysis
from controller.model.status import parse_status, render_status
from controller.plain import plain
from controller.ports import Ref
from controller.routers.split import (
    EPOCH,
    LARGEST_WEIGHT,
    ORIGINAL_WEIGHTS,
    Names,
    parse_epoch,
    render_removal,
    render_split,
)
from controller.sources.answers import parse_bounds, parse_matrix
from controller.sources.templates import BUILT_IN, fill, parameters, parse_selector
from tests.builders import spec
from tests.unit.routers.examples import backend, route, rule
from tests.unit.routers.store import apply_patch

HOSTILE = [
    '"} or vector(1) #', "{{.Values}}", "${jndi:ldap://x}", "{0.__class__}", "%s%n", "../../etc", "\x1b[2J",
    "a\r\nb: c", "<script>", "\u202egnp", "\u2028", "\x00", "NaN", "1e999", "9" * 5000, "*.*", "(a+)+$", "' OR 1=1 --",
    "🧨" * 300,
]  # fmt: skip
texts = st.text(max_size=80) | st.sampled_from(HOSTILE)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts | st.just(10**400)
json_like = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=20
)
FIELDS = sorted({field.alias or name for name, field in CanarySpec.model_fields.items()})
specs = st.dictionaries(st.sampled_from(FIELDS) | texts, json_like, max_size=8)


def usual() -> dict[str, Any]:
    return dict(json.loads(spec().model_dump_json(by_alias=True, exclude_none=True)))


@given(specs)
def test_a_spec_is_read_or_refused(body: dict[str, Any]) -> None:
    with contextlib.suppress(ValidationError):
        parse_canary_spec(body)


@given(st.sampled_from(FIELDS), json_like)
def test_a_good_spec_with_one_strange_field_is_read_or_names_that_field(name: str, value: Any) -> None:
    named = {name}
    try:
        parse_canary_spec(usual() | {name: value})
    except ValidationError as error:
        named = {str(one["loc"][0]) for one in error.errors() if one["loc"]}
    assert named <= {name}


@given(
    st.dictionaries(
        st.sampled_from([field.alias or n for n, field in MetricsSourceSpec.model_fields.items()]), json_like
    )
)
def test_a_source_is_read_or_refused(body: dict[str, Any]) -> None:
    with contextlib.suppress(ValidationError):
        MetricsSourceSpec.model_validate({"url": "http://prometheus:9090"} | body)


@given(json_like)
def test_a_status_that_somebody_edited_is_read_or_refused_and_what_is_read_can_be_written(body: Any) -> None:
    try:
        status = parse_status(body)
    except (msgspec.ValidationError, OverflowError):
        return
    assert parse_status(render_status(status)) == status


@given(
    st.dictionaries(
        st.sampled_from([field.alias or n for n, field in Analysis.model_fields.items()]) | texts, json_like, max_size=6
    )
)
def test_an_analysis_of_another_version_is_read_as_far_as_it_is_known_or_not_at_all(body: dict[str, Any]) -> None:
    analysis, unknown = read_analysis(body)
    assert analysis is not None or unknown


@given(json_like)
def test_a_decision_is_read_or_refused(body: Any) -> None:
    raw = json.dumps({"metadata": {"name": "d", "namespace": "shop"}, "spec": body}, default=str).encode()
    try:
        said = msgspec.json.decode(raw, type=DecisionObject)
    except msgspec.DecodeError:
        return
    assert isinstance(said.spec.decision, str)


@given(st.binary(max_size=300) | json_like.map(lambda body: json.dumps(body).encode()), st.integers(400, 599))
def test_a_failed_answer_of_the_api_server_becomes_one_of_our_errors(body: bytes, code: int) -> None:
    error = error_of(parse_failure(body, code), "patch canaries shop/checkout")

    assert isinstance(error, SerinError)
    assert "patch canaries shop/checkout" in str(error)


NAMES = Names("shop", 80, "shop-canary")
weights = st.integers(-1, 2_000_000) | st.none() | scalars
memories = st.fixed_dictionaries(
    {},
    optional={
        "rule": st.integers(-1, 2) | scalars,
        "backends": st.just(["shop:80", "search:80"]) | st.lists(texts, max_size=3) | json_like,
        "weights": st.lists(weights, max_size=3) | json_like,
        "ours": st.just([150, 600]) | st.lists(weights, max_size=3) | json_like,
    },
)
remembered = (
    st.dictionaries(st.just("shop-canary") | texts, st.lists(memories | json_like, max_size=3) | json_like, max_size=3)
    | json_like
).map(json.dumps)
stamps = st.lists(
    st.tuples(
        st.just("shop-canary") | texts,
        st.from_regex(r"[0-9]{1,4}\.[0-9]") | texts | st.sampled_from(["²", "٣.1", "9" * 5_000 + ".1"]),
    ),
    max_size=3,
).map(lambda pairs: ",".join(f"{name}={stamp}" for name, stamp in pairs))


@given(stamps | texts, remembered | texts)
def test_whatever_stands_in_our_annotations_of_a_route_the_way_back_leads_over_it(stamp: str, memory: str) -> None:
    own = route(rule(backend("shop", 2), backend("search", 6)))
    now = apply_patch(own, render_split(own, NAMES, 25, epoch="1.0", was=""))
    now["metadata"]["annotations"] = {EPOCH: stamp, ORIGINAL_WEIGHTS: memory}

    relieved = apply_patch(now, render_split(now, NAMES, 0, epoch="1.1", was=parse_epoch(now, NAMES)))
    left = apply_patch(now, render_removal(now, NAMES))

    backends = {one["name"]: one.get("weight", 1) for one in relieved["spec"]["rules"][0]["backendRefs"]}
    assert (backends["shop-canary"], parse_epoch(relieved, NAMES)) == (0, "1.1")
    assert all(type(weight) is int and 0 <= weight <= LARGEST_WEIGHT for weight in backends.values())
    assert [one["name"] for one in left["spec"]["rules"][0]["backendRefs"]] == ["shop", "search"]
    assert parse_epoch(left, NAMES) == ""


points = st.lists(st.lists(scalars, max_size=3), max_size=4)
series = st.fixed_dictionaries({"metric": st.dictionaries(texts, scalars, max_size=3), "values": points})


@given(st.lists(series | json_like, max_size=4) | json_like)
def test_an_answer_of_a_metrics_server_is_finite_counts_or_nothing(result: Any) -> None:
    try:
        matrix = parse_matrix(result, since=0.0, until=2e9)
    except ValueError:
        return
    for one in matrix.series:
        assert all(math.isfinite(at) and math.isfinite(value) and value >= 0 for at, value in one.samples)
        assert all(0.0 < at <= 2e9 for at, _ in one.samples)


@given(json_like)
def test_bounds_of_a_histogram_are_finite_or_none(result: Any) -> None:
    try:
        assert all(math.isfinite(bound) for bound in parse_bounds(result))
    except ValueError:
        return


@given(texts)
def test_a_template_is_one_selector_or_refused(text: str) -> None:
    try:
        selector = parse_selector(text)
    except ValueError:
        return
    assert parse_selector(str(selector)) == selector


@given(texts, texts)
def test_a_name_in_a_query_stands_for_itself_or_is_refused(namespace: str, name: str) -> None:
    for template in BUILT_IN.values():
        for text in (template.requests, template.errors, template.latency):
            plain_selector = parse_selector(text)
            try:
                selector = fill(plain_selector, parameters(Ref(namespace, name, "u"), spec(), "canary"))
            except ValueError:
                continue
            again = parse_selector(str(selector))
            assert again == selector, "written and read again, it asks the same"
            assert again.metric == plain_selector.metric
            assert [one.label for one in again.matchers] == [one.label for one in plain_selector.matchers]


@given(texts)
def test_what_a_person_reads_is_one_line_that_steers_nothing(text: str) -> None:
    shown = plain(text)

    assert len(shown.splitlines()) <= 1
    assert shown.isprintable()


@given(st.lists(texts, min_size=1, max_size=3))
def test_a_decision_is_one_line_of_the_log_whatever_its_message_says(messages: list[str]) -> None:
    stream, before = io.StringIO(), structlog.get_config()
    try:
        _log_to(stream)
        for message in messages:
            structlog.get_logger().info("decided", rollout="shop/checkout", message=message)
    finally:
        structlog.configure(**before)

    lines = stream.getvalue().splitlines()
    assert len(lines) == len(messages)
    assert all(line.startswith("at=") and "event=decided" in line and line.isprintable() for line in lines)
