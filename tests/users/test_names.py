from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.users import names


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Anna", "anna"),
        ("Anna", "  ANNA "),
        ("Anna", "Аnnа"),  # Cyrillic А, а
        ("Émile", "Emile"),
        ("Bjorn", "Bjom"),
        ("Paul O'Neil", "paul oneil"),
        ("bill", "bi11"),
        ("Zoë", unicodedata.normalize("NFD", "Zoë")),
        ("Straße", "STRASSE"),
        ("omega", "οmega"),  # Greek omicron
        ("mary-ann", "mary_ann"),
        ("ｗｉｄｅ", "wide"),
    ],
)
def test_names_that_look_alike_are_one(one: str, other: str) -> None:
    assert names.skeleton(one) == names.skeleton(other)


@pytest.mark.parametrize(("one", "other"), [("Anna", "Hanna"), ("Иван", "Ирина"), ("李雷", "李磊"), ("jo", "joe")])
def test_different_names_stay_different(one: str, other: str) -> None:
    assert names.skeleton(one) != names.skeleton(other)


@pytest.mark.parametrize(
    "bad", ["", "   ", "---", "a" * 65, "an\u200bna", "\u202eanna", "an\x00na", "\ud800x", "a\nb\x07"]
)
def test_names_that_deceive_or_cannot_be_shown_are_refused(bad: str) -> None:
    with pytest.raises(ValueError):
        names.clean(bad)


def test_names_are_shown_with_single_spaces() -> None:
    assert names.clean("  Anna \t Maria ") == "Anna Maria"


@given(st.text(max_size=80))
def test_a_clean_name_stays_clean_and_keeps_its_skeleton(text: str) -> None:
    try:
        shown = names.clean(text)
    except ValueError:
        return
    assert names.clean(shown) == shown
    assert names.skeleton(shown) == names.skeleton(names.clean(shown))
    assert len(names.skeleton(shown).encode()) < 511  # fits the store's keys
