"""Laws of release records: what is redacted, how a record grows, and that no forgery of a chain goes unnoticed."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.model.chain import Link, canonical, digest_of, grown, verify_chain
from controller.model.redact import REDACTED, redact, redact_all
from tests.examples_of_secrets import GIVEN_AWAY, SECRETS

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
plain_text = st.text(st.characters(codec="utf-8"), max_size=60)


@given(plain_text, st.sampled_from(SECRETS), plain_text)
def test_a_secret_never_survives_whatever_stands_around_it(before: str, secret: str, after: str) -> None:
    assert secret not in redact(f"{before} {secret} {after}")


@given(plain_text, st.sampled_from(GIVEN_AWAY), plain_text)
def test_what_is_named_a_secret_never_survives(before: str, given_away: tuple[str, str], after: str) -> None:
    name, value = given_away

    assert value not in redact(f"{before} {name}{value}@host {after}").replace("@host", "")


@given(st.lists(plain_text | st.sampled_from([*SECRETS, *(a + b for a, b in GIVEN_AWAY)]), max_size=5).map(" ".join))
def test_redacting_twice_redacts_no_more(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "registry.example:5000/shop/token:1.8.0",
        "shop@sha256:" + "0123456789abcdef" * 4,
        "docker://shop@sha256:" + "ab" * 32,
        "errors 5.1 % of 1,204 requests, stable 0.1 %; margin 0.5 %",
        "alice@example.com: the token service is slow",
        "basic authentication is broken for bearer tokens",
        "https://grafana.example/d/abc?from=now-1h",
    ],
)
def test_names_digests_and_numbers_stay_as_they_are(text: str) -> None:
    assert redact(text) == text


@given(json_values)
def test_redacting_a_value_keeps_its_shape(value: Any) -> None:
    def shape(one: Any) -> Any:
        if isinstance(one, dict):
            return {name: shape(each) for name, each in one.items()}
        return [shape(each) for each in one] if isinstance(one, list) else isinstance(one, str)

    assert shape(redact_all(value)) == shape(value)


@given(json_values)
def test_a_value_has_one_spelling_however_the_api_server_writes_it(value: Any) -> None:
    spelled = canonical(value)

    assert canonical(json.loads(spelled)) == spelled
    assert canonical(json.loads(json.dumps(value, indent=2))) == spelled


entries = st.lists(
    st.fixed_dictionaries({"at": st.integers(0, 50).map(str), "what": st.sampled_from("abc")}),
    max_size=8,
    unique_by=str,
)


@given(st.lists(entries, max_size=5))
def test_lists_of_a_record_only_grow_at_their_end(versions: list[list[dict[str, str]]]) -> None:
    stored: dict[str, Any] = {}
    for version in versions:
        before = list(stored.get("decisions") or [])
        stored = grown(stored, {"decisions": version})

        assert stored["decisions"][: len(before)] == before
        assert all(entry in stored["decisions"] for entry in version)


@given(json_values.filter(lambda value: value not in (None, "")), json_values)
def test_what_a_record_says_stays_said(first: Any, second: Any) -> None:
    stored = grown(grown({}, {"owner": first}), {"owner": second})

    assert canonical(stored["owner"]) == canonical(first)


def chain(length: int) -> list[Link]:
    """Sealed records of one Canary, a day apart."""
    links: list[Link] = []
    for number in range(1, length + 1):
        attempt = f"202603{number:02}-120000"
        spec = grown(
            {},
            {
                "canary": "checkout",
                "attempt": attempt,
                "number": number,
                "previous": links[-1].own_hash if links else "",
                "startedAt": f"2026-03-{number:02}T12:00:00Z",
                "steps": [{"step": 1, "weight": 10.0, "at": "2026-03-01T12:00:09Z"}],
                "origin": {"treated": "ai"},
                "outcome": "Promoted",
            },
        )
        links.append(Link(f"checkout-{attempt}", spec))
    return links


@given(st.integers(0, 9))
def test_a_chain_that_nobody_touched_verifies(length: int) -> None:
    links = chain(length)

    assert verify_chain("checkout", links, last=length, head=links[-1].own_hash if links else "") == []
    assert verify_chain("checkout", links[::-1], last=length) == [], "the order of a listing says nothing"


fields = st.sampled_from(["origin", "outcome", "steps", "startedAt", "previous", "number", "attempt", "added"])


@given(st.integers(2, 8), st.data())
def test_a_record_that_was_changed_is_named(length: int, data: st.DataObject) -> None:
    links = chain(length)
    victim = data.draw(st.integers(0, length - 1))
    field = data.draw(fields)
    forged = dict(copy.deepcopy(links[victim].spec)) | {field: "forged" if field != "number" else 99}
    links[victim] = Link(links[victim].name, forged)

    assert links[victim].name in {finding.record for finding in verify_chain("checkout", links, last=length)}


@given(st.integers(2, 8), st.data())
def test_a_record_that_was_changed_and_sealed_again_breaks_its_successor(length: int, data: st.DataObject) -> None:
    links = chain(length)
    victim = data.draw(st.integers(0, length - 2))
    forged = dict(copy.deepcopy(links[victim].spec)) | {"origin": {"treated": "human"}}
    forged["hash"] = digest_of(forged)
    links[victim] = Link(links[victim].name, forged)

    assert links[victim + 1].name in {finding.record for finding in verify_chain("checkout", links, last=length)}


@given(st.integers(1, 8), st.data())
def test_a_record_that_is_missing_is_named_by_its_place(length: int, data: st.DataObject) -> None:
    links = chain(length)
    gone = data.draw(st.integers(0, length - 1))
    left = [link for number, link in enumerate(links) if number != gone]

    found = verify_chain("checkout", left, last=length)

    assert f"number {gone + 1} of checkout" in {finding.record for finding in found}


@given(st.integers(1, 6))
def test_a_chain_forged_as_a_whole_is_told_by_a_hash_kept_elsewhere(length: int) -> None:
    kept = chain(length)[-1].own_hash
    forged: list[Link] = []
    for link in chain(length):
        spec = dict(link.spec) | {"origin": {"treated": "human"}, "previous": forged[-1].own_hash if forged else ""}
        spec["hash"] = digest_of(spec)
        forged.append(Link(link.name, spec))

    assert verify_chain("checkout", forged, last=length) == []
    assert verify_chain("checkout", forged, last=length, head=kept) != []


@given(st.integers(2, 8), st.data())
def test_records_whose_places_were_swapped_are_named(length: int, data: st.DataObject) -> None:
    links = chain(length)
    first = data.draw(st.integers(0, length - 2))
    one, other = links[first], links[first + 1]
    for at, link, number in ((first, one, other.number), (first + 1, other, one.number)):
        spec = dict(link.spec) | {"number": number}
        spec["hash"] = digest_of(spec)
        links[at] = Link(link.name, spec)

    named = {finding.record for finding in verify_chain("checkout", links, last=length)}

    assert named & {one.name, other.name}


@given(st.dictionaries(st.sampled_from(["number", "hash", "previous", "outcome", "startedAt", "attempt"]), json_values))
def test_nonsense_in_a_record_gets_an_answer_and_no_error(spec: dict[str, Any]) -> None:
    verify_chain("checkout", [Link("checkout-x", spec), *chain(2)], last=2)


def test_a_record_that_is_still_open_is_no_finding_at_the_end_and_one_before_it() -> None:
    links = chain(3)
    open_one = {name: value for name, value in links[2].spec.items() if name not in ("outcome", "hash")}

    assert verify_chain("checkout", [*links[:2], Link(links[2].name, open_one)], last=3) == []
    followed = [*links[:1], Link(links[1].name, {**links[1].spec, "outcome": None, "hash": ""}), links[2]]
    assert any("never sealed" in finding.finding for finding in verify_chain("checkout", followed, last=3))


def test_the_mark_says_that_something_stood_there() -> None:
    assert redact("token=abcdef123456") == f"token={REDACTED}"


def test_an_approval_is_recorded_however_many_pauses_a_tenant_has_written() -> None:
    flood = [{"at": str(n), "decision": "Pause", "taken": True} for n in range(200)]
    refused = [{"at": f"r{n}", "decision": "Approve"} for n in range(200)]
    approval = {"at": "x", "decision": "Approve", "by": "owner", "taken": True}

    record = grown(grown({}, {"decisions": [*flood, *refused]}), {"decisions": [approval]})

    assert record["decisions"][-1] == approval
    assert len(record["decisions"]) < 100
