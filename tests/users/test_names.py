from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.users import user_names


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
    assert user_names.skeleton(one) == user_names.skeleton(other)


@pytest.mark.parametrize(("one", "other"), [("Anna", "Hanna"), ("Иван", "Ирина"), ("李雷", "李磊"), ("jo", "joe")])
def test_different_names_stay_different(one: str, other: str) -> None:
    assert user_names.skeleton(one) != user_names.skeleton(other)


@pytest.mark.parametrize(
    "bad", ["", "   ", "---", "a" * 65, "an\u200bna", "\u202eanna", "an\x00na", "\ud800x", "a\nb\x07"]
)
def test_names_that_deceive_or_cannot_be_shown_are_refused(bad: str) -> None:
    with pytest.raises(ValueError):
        user_names.clean(bad)


def test_names_are_shown_with_single_spaces() -> None:
    assert user_names.clean("  Anna \t Maria ") == "Anna Maria"


@given(st.text(max_size=80))
def test_a_clean_name_stays_clean_and_keeps_its_skeleton(text: str) -> None:
    try:
        shown = user_names.clean(text)
    except ValueError:
        return
    assert user_names.clean(shown) == shown
    assert 0 < len(user_names.skeleton(shown).encode()) <= 4 * user_names.MAX_NAME  # the store's keys hold 511


@pytest.mark.parametrize("char", ["한", "𐐨", "İ", "é"])
def test_the_longest_names_fit_a_key_of_the_store(char: str) -> None:
    assert len(user_names.skeleton(user_names.clean(char * user_names.MAX_NAME)).encode()) <= 4 * user_names.MAX_NAME


@pytest.mark.parametrize(
    "bad",
    ["Ann\u3164a", "\u3164\u3164Anna", "Anna\u2800", "a\u115fb", "x\u034fy", "a\ufe0fb", "\ufffcAnna", "Аnna", "Ωmega",
     "Annа", "Anna李Иван", "Anna שלום", "김Иван", "o\u0301\u0302\u0303\u0304\u0305", "ⲁnna"],
)  # fmt: skip
def test_a_new_name_is_seen_as_it_is(bad: str) -> None:
    with pytest.raises(ValueError):
        user_names.fit(bad)


@pytest.mark.parametrize(
    "good",
    ["Anna", "Zoë", "Nguyễn Văn", "李雷", "山田 Taro", "カタカナ ー", "김철수 Kim", "Иван Петров", "Ελένη",
     "שלום", "مرحبا", "अनिल कुमार", "ʻOkina", "O'Neil-Smith 2", "Dr. Who 👩", "ㄅㄆ 李 B"],
)  # fmt: skip
def test_names_of_every_script_are_taken(good: str) -> None:
    assert user_names.fit(good) == user_names.clean(good)


@given(st.text(max_size=80))
def test_a_fit_name_is_a_clean_one(text: str) -> None:
    try:
        shown = user_names.fit(text)
    except ValueError:
        return
    assert user_names.clean(text) == shown == user_names.fit(shown)
