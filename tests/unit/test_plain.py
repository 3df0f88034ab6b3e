"""Names and text from elsewhere: what is shown of them, and which two names are one."""

import pytest

from controller.plain import alike, is_plain, plain, shown_name


@pytest.mark.parametrize(
    "odd",
    [
        "\x1b[2J",
        "\u202e",
        "\u2066",
        "\u200b",
        "\u2060",
        "\ufeff",
        "\u00ad",
        "\u034f",
        "\u3164",
        "\u2800",
        "\ufe0f",
        "\U000e0041",
    ],
)
def test_what_is_not_seen_or_moves_something_is_shown_by_its_number(odd: str) -> None:
    shown = plain(f"ann{odd}bo")

    assert not is_plain(f"ann{odd}bo")
    assert shown.isascii()
    assert shown.startswith("ann\\")
    assert shown.endswith("bo")


@pytest.mark.parametrize(
    "name", ["Ann", "ann@example.com", "Jörg Müller", "李雷", "山田 太郎", "Иван", "Ελένη", "oidc:a/b#c"]
)
def test_a_name_as_people_have_them_is_shown_as_it_is(name: str) -> None:
    assert shown_name(name) == name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\u0430nn@example.com", "[not ann@example.com: CYRILLIC SMALL LETTER A]"),
        ("ann\u200b", "ann\\u200b [not ann: ZERO WIDTH SPACE]"),
        ("\u0421ursor", "[not cursor: CYRILLIC CAPITAL LETTER ES]"),
        ("b\u03bf", "[not bo: GREEK SMALL LETTER OMICRON]"),
        ("Иvан", "[letters of Cyrillic and Latin]"),
    ],
)
def test_a_name_that_is_not_what_it_looks_like_says_so(name: str, shown: str) -> None:
    assert shown in shown_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "ANN",
        " ann ",
        "\u0430nn",
        "\uff41\uff4e\uff4e",
        "\U0001d41ann",
        "a\u200bnn",
        "ann\u3164",
        "\u0391nn",
        "a\u00adnn",
    ],
)
def test_what_a_reader_takes_for_one_name_is_one(name: str) -> None:
    assert alike(name) == "ann"


@pytest.mark.parametrize(("one", "other"), [("ann1", "annl"), ("jörg", "jorg"), ("иван", "петр"), ("a.b", "ab")])
def test_names_that_differ_to_a_reader_stay_two(one: str, other: str) -> None:
    assert alike(one) != alike(other)
