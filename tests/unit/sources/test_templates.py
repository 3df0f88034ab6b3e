"""A query is built from parts: nothing a Canary says can widen it."""

from __future__ import annotations

import re

import pytest

from controller.model.spec import CanarySpec, Template
from controller.ports import Ref
from controller.sources.templates import BUILT_IN, fill, join, parameters, parse_selector, problems_of


def canary_spec(service: str = "checkout") -> CanarySpec:
    return CanarySpec.model_validate(
        {
            "targetRef": {"name": "checkout"},
            "traffic": {"service": {"name": service, "port": 8080}, "httpRoute": {"name": "checkout"}},
        }
    )


def test_the_arm_decides_the_service_and_the_deployment() -> None:
    ref = Ref("shop", "release", "uid")

    canary, stable = (parameters(ref, canary_spec("front"), arm) for arm in ("canary", "stable"))

    assert (canary["service"], canary["deployment"]) == ("release-canary", "release-canary")
    assert (stable["service"], stable["deployment"]) == ("front", "checkout")
    assert canary["port"] == stable["port"] == "8080"


@pytest.mark.parametrize(
    "value", ['"} or vector(1)#', "a\nb", "a b", "a{b", "a,b", "a\\b", "", "x" * 254, "ü", "a|b", "a'b", "$x", "a\x00"]
)
def test_what_could_close_a_quote_is_no_label_value(value: str) -> None:
    with pytest.raises(ValueError, match="cannot be a label value"):
        parameters(Ref(value, "checkout", "uid"), canary_spec(), "stable")


@pytest.mark.parametrize(
    "text",
    [
        "vector(0)",
        "up or vector(0)",
        "up + up",
        'up{a="b"} or up',
        'up{a="b"}[5m]',
        "sum(up)",
        "rate(up[1m])",
        'up{a="b"',
        'up{a="b" c="d"}',
        "up{a=b}",
        'up{a=~"("}',
        'up{a="b"} or {x="y"}',
        "",
        '{a="b"}',
        'up{a="\\q"}',
    ],
)
def test_more_or_less_than_one_selector_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"does not begin|is not one selector|cannot be read"):
        parse_selector(text)


def test_inside_a_regular_expression_a_parameter_stands_for_itself() -> None:
    selector = fill(parse_selector('up{pod=~"$deployment-.+"}'), {"deployment": "a.b"})

    assert selector.matches({"__name__": "up", "pod": "a.b-1"})
    assert not selector.matches({"__name__": "up", "pod": "axb-1"})


def test_a_joined_query_names_only_what_its_parts_do() -> None:
    parts = [parse_selector(f'{name}{{job="{job}",zone=~"eu-.*"}}') for name in ("a", "b") for job in ("x", "y.z")]

    assert join(parts) == '{__name__=~"a|b",job=~"x|y\\\\.z",zone=~"eu-.*"}'


def test_a_condition_that_only_some_parts_have_is_left_to_the_sorting() -> None:
    requests, errors = parse_selector('up{job="x"}'), parse_selector('up{job="x",code=~"5.."}')

    assert join([requests, errors]) == '{__name__="up",job="x"}'
    assert errors.matches({"__name__": "up", "job": "x", "code": "503"})
    assert not errors.matches({"__name__": "up", "job": "x", "code": "200"})


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_the_built_in_templates_pass_their_own_inspection(name: str) -> None:
    assert problems_of(BUILT_IN[name]) == ()


@pytest.mark.parametrize(
    ("requests", "said"),
    [
        pytest.param('up{ns="$namespace"}', "same series for canary and stable", id="no arm"),
        pytest.param('up{svc="$service"}', "reads every namespace", id="no namespace"),
        pytest.param('up{ns="$namespace",svc="$service",x="$pod"}', r"unknown \$pod", id="unknown parameter"),
        pytest.param('up{ns!="$namespace",svc="$service"}', "reads every namespace", id="namespace shut out"),
        pytest.param("vector(0)", "not one selector", id="always passes"),
    ],
)
def test_a_template_that_cannot_tell_is_refused(requests: str, said: str) -> None:
    good = 'up{ns="$namespace",svc="$service"}'

    (problem,) = problems_of(Template(requests=requests, errors=good))

    assert re.search(said, problem)
