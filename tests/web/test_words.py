"""Figures, phrases, bars and sentences: what people read."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import UTC
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server import language
from pool_server.accounts.describe import PooledWindow, ProviderStatus
from pool_server.core import enums
from pool_server.core.enums import AccountState, Provider
from pool_server.core.settings import HIDDEN, Limits
from pool_server.texts import format, labels
from pool_server.users import LimitStanding
from pool_server.web.admin import settings_page
from pool_server.web.base.assets.bundle import assets
from pool_server.web.base.assets.localized import loader, look_up_of
from pool_server.web.base.assets.paths import templates_folder
from pool_server.web.base.modules import PageModules
from pool_server.web.base.shared import headline, headroom, limits, request_rows
from tests.web.pool import exchange

NOW = 1_790_000_000.0
MODULES = PageModules(loader(str(templates_folder() / "pages"), "en"), now=NOW, zone=UTC, token="", here="/")


@pytest.mark.parametrize(
    ("table", "vocabulary"),
    [
        (labels.PROVIDERS, enums.Provider),
        (labels.STATES, enums.AccountState),
        (labels.OF_SEVERAL, enums.AccountState),
        (labels.TONES, enums.AccountState),
        (labels.REFUSALS, enums.Refusal),
        (labels.CHOICES, enums.ChoiceReason),
        (labels.DENIALS, enums.Denial),
        (labels.FAULTS, enums.FaultKind),
        (labels.OUTCOMES, enums.Outcome),
        (labels.ADVICE, enums.Outcome),
        (labels.SOURCES, enums.Source),
        (labels.CREDENTIALS, enums.CredentialKind),
    ],
)
def test_every_member_has_words(table: dict[StrEnum, str], vocabulary: type[StrEnum]) -> None:
    assert set(table) == set(vocabulary)
    for text in table.values():
        assert "_" not in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (9_999, "9,999"), (10_000, "10.0 k"), (12_345_678, "12.3 M"), (999_999, "1.0 M"), (4e9, "4.0 B"),
     (123_456, "123 k"), (2.5e12, "2.5 T"), (None, "unknown")],
)  # fmt: skip
def test_counts(value: float | None, shown: str) -> None:
    assert format.count(value) == shown


@given(st.floats(0, 1e14))
def test_a_shortened_count_is_near_the_true_one(value: float) -> None:
    number, _, unit = format.count(value).replace(",", "").partition(" ")
    size = {"": 1.0, "k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}[unit]
    assert abs(float(number) * size - value) <= max(0.5, 0.051 * size, 0.006 * value)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (3599, "1 h"), (6700, "1 h 52 min"), (7200, "2 h"),
     (29_160, "8 h 6 min"), (86_376, "1 d"), (47.9 * 3600, "2 d"),
     (200_000, "2 d 8 h"), (30 * 86_400, "30 d"), (-5, "0 s")],
)  # fmt: skip
def test_durations(seconds: float, shown: str) -> None:
    assert format.duration(seconds) == shown


@given(st.floats(0, 1e8))
def test_durations_never_show_sixty_of_anything(seconds: float) -> None:
    assert not re.search(r"\b60 (s|min)\b|\b24 h$", format.duration(seconds)) or seconds >= 24 * 3600 - 60


def test_percents_never_round_to_none_or_all() -> None:
    assert [format.percent(value) for value in (0, 0.2, 42.4, 99.7, 100, 104)] == [
        "0 %", "<1 %", "42 %", "99 %", "100 %", "104 %",
    ]  # fmt: skip


def test_prices_that_are_not_known_are_not_nothing() -> None:
    assert format.price(0.0, 3) == "no price"
    assert format.price(1.5, 3) == "≥\u00a0$1.50"
    assert format.price(1.5, about=True) == "≈\u00a0$1.50"
    assert format.price(0.0) == "$0.00"
    assert format.money(0.001) == "<$0.01"
    assert format.money(1234.5) == "$1,234"


def test_what_took_hardly_any_time_took_some() -> None:
    assert [format.took(value) for value in (0, 0.4, 340, 2400, 200_000)] == [
        "0 ms", "<1 ms", "340 ms", "2.4 s", "3 min",
    ]  # fmt: skip


def test_a_name_from_right_to_left_carries_no_figure_along() -> None:
    assert format.isolated("Ada 2") == "Ada 2"
    assert format.isolated("محمد") == "\u2068محمد\u2069"


def test_clock_times_say_as_much_as_is_needed() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    assert format.clock(NOW, NOW, UTC) == "14:13"
    assert format.clock(NOW + 86_400, NOW, UTC) == "Tue 14:13"
    assert format.clock(NOW - 30 * 86_400, NOW, UTC) == "22 Aug 14:13"
    assert format.clock(NOW - 400 * 86_400, NOW, berlin) == "17 Aug 2025 16:13"
    assert format.zone("Nowhere/Land") is UTC
    assert format.within(NOW - 1, NOW) == "any moment"
    assert format.ago(None, NOW) == "never"


@given(st.none() | st.floats(-10, 500), st.none() | st.floats(-10, 500), st.text())
def test_bars_stay_within_themselves_and_escape(used: float | None, mark: float | None, label: str) -> None:
    svg = MODULES.bar(used, pace=mark, label=label).decode()
    assert all(0 <= float(width) <= 100 for width in re.findall(r'(?:width|x1)="([0-9.]+)%"', svg))
    assert "<" not in svg.partition('aria-label="')[2].partition('"')[0]


def test_pace_is_the_share_of_the_window_that_is_gone() -> None:
    assert headroom.pace(18_000, NOW + 9_000, NOW) == 50
    assert headroom.pace(18_000, NOW - 1, NOW) is None
    assert headroom.pace(18_000, None, NOW) is None
    assert headroom.pace(0, NOW + 1, NOW) is None
    assert headroom.pace(18_000, NOW + 20_000, NOW) == 0


def test_credits_nobody_bought_are_not_shown_as_used_up() -> None:
    words = [headroom.gauge(PooledWindow("credits", 0.0, 1, used, None), NOW).words for used in (0.0, 40.0, 100.0)]
    assert words == [
        "extra credits: available", "extra credits: 40 % used", "extra credits: none",
    ]  # fmt: skip


def test_a_shortened_figure_has_every_digit_for_eyes_and_ears() -> None:
    assert MODULES.number(9_999) == b"9,999"
    long = MODULES.number(12_345_678).decode()
    assert 'title="12,345,678" aria-hidden="true">12.3 M<' in long
    assert '<span class="visually-hidden unselected">12,345,678</span>' in long


def provider(name: str, **changes: Any) -> ProviderStatus:
    row = ProviderStatus(Provider(name), {AccountState.READY: 1}, 1, 1, None, [], None, 0, 0, 0)
    return msgspec.structs.replace(row, **changes)


def foretold(seconds: float | None, confidence: str = "high") -> dict[str, object]:
    return {"lasts_until": None if seconds is None else NOW + seconds, "confidence": confidence}


def test_the_first_sentence_says_how_long_it_lasts() -> None:
    clauses = [
        headline.clause(provider("claude"), foretold(11_400), NOW),
        headline.clause(provider("codex"), foretold(None), NOW),
        headline.clause(provider("gemini", ready=0, next_return=NOW + 6600), None, NOW),
        headline.clause(provider("qwen"), foretold(60, "none"), NOW),
        headline.clause(provider("openai"), None, NOW),
    ]
    assert headline.joined(clauses) == (
        "Claude lasts for about 3 h 10 min at this pace; Codex lasts all day; "
        "Gemini has no headroom (back in 1 h 50 min); Qwen and OpenAI-compatible are ready"
    )
    assert headline.clause(provider("qwen", ready=0), None, NOW).one == "needs the operator"
    assert headline.clause(provider("qwen", room_percent=40.0), None, NOW).one == "has 40 % headroom left"


def test_provider_words_name_every_state_but_ready() -> None:
    row = provider("codex", accounts={AccountState.READY: 1, AccountState.NEEDS_LOGIN: 2}, total=3)
    assert headroom.provider_row(row, NOW).words == "1 of 3 accounts ready, 2 signed out"
    off = {AccountState.READY: 38, AccountState.DISABLED: 1, AccountState.DRAINING: 1}
    fine = headroom.provider_row(provider("codex", accounts=off, ready=38, total=40), NOW)
    assert (fine.tone, fine.words[:25]) == ("good", "38 of 40 accounts ready, "), (
        "what somebody turned off is no trouble"
    )
    out = provider("codex", accounts={AccountState.EXHAUSTED: 1}, ready=0, next_return=NOW + 60)
    assert headroom.provider_row(out, NOW).tone == "bad"
    assert headroom.provider_row(out, NOW).words == "0 of 1 account ready, 1 used up; back in 1 min"


def test_every_provider_has_a_letter_in_its_tile() -> None:
    rules = re.findall(
        r"\.swatch\.mark(:is\([^)]*\)|\.[a-z-]+)::before \{ content: \"[A-Z]\"", assets().files["app.css"].body.decode()
    )
    named = [name for rule in rules for name in re.findall(r"\.([a-z-]+)", rule)]
    assert sorted(named) == sorted(provider.value for provider in Provider)


def test_a_list_is_joined_as_its_language_joins_it() -> None:
    said = {}
    for tongue in ("en", "de", "zh"):
        language.speak(look_up_of(tongue))
        try:
            said[tongue] = (format.listed("abc"), format.clauses("ab"))
        finally:
            language.speak(None)
    assert said == {"en": ("a, b, c", "a; b"), "de": ("a, b, c", "a; b"), "zh": ("a、b、c", "a；b")}


def test_limits_are_shown_where_they_are_set() -> None:
    standing = LimitStanding(
        Limits(tokens_day=1000, cost_week=0.0),
        {"tokens_day": 250.0, "cost_week": 0.0},
        {"tokens_day": NOW + 60, "cost_week": NOW + 60},
    )
    first, second = limits.rows(standing, NOW)
    assert (first.label, first.percent, first.words, first.frees) == ("Tokens a day", 25.0, "250 of 1,000", NOW + 60)
    assert (second.percent, second.frees) == (100.0, None)
    assert limits.usual(Limits(tokens_day=5, cost_day=2.0))["cost_day"] == "2"


def test_an_exchange_of_ones_own_says_what_to_do_and_not_whose_account_it_was() -> None:
    row = request_rows.row(exchange("u", status=502, outcome="upstream", provider="", model=""))
    assert row["advice"]
    assert row["tone"] == "bad"
    assert "claude:work" not in str(row)


def test_settings_values_are_plain_and_secrets_only_set() -> None:
    shown = [
        settings_page.shown(value) for value in (HIDDEN, "", None, True, False, 3.5, ["a", "b"], {"m": 1}, (80, 100))
    ]
    assert shown == ["set", "not set", "not set", "yes", "no", "3.5", "a, b", "m: 1", "80, 100"]


def test_audit_details_are_words() -> None:
    detail = {"name": "Ada", "via": "friend_code", "limits": {"tokens_day": 500_000, "cost_week": None}}
    assert labels.detail(detail) == "name: Ada, by the shared code, tokens a day: 500,000, cost a week: none"
    assert labels.detail({"cost_month": 50.0}) == "cost a month: $50.00"
    assert labels.via("code:K7QF2") == "the code K7QF2"
    assert labels.action("user.create", "user") == "joined"
    assert labels.action("of.the.future", "user") == "of.the.future"


# -- the token sheet ----------------------------------------------------------------------------------------------


Oklab = tuple[float, float, float]


def oklab(text: str, others: dict[str, Oklab]) -> Oklab:
    """A colour of the sheet: `oklch(L% C H)`, another token, or a mix of two of them."""
    mix = re.fullmatch(r"color-mix\(in oklab, (.+?) (\d+)%, (.+)\)", text)
    if mix:
        one, other, part = oklab(mix[1], others), oklab(mix[3], others), int(mix[2]) / 100
        return tuple(part * x + (1 - part) * y for x, y in zip(one, other, strict=True))  # type: ignore[return-value]
    if text.startswith("var("):
        return others[text[6:-1]]
    light, chroma, hue = (float(part) for part in re.findall(r"[\d.]+", text))
    return light / 100, chroma * math.cos(math.radians(hue)), chroma * math.sin(math.radians(hue))


def tokens(scheme: int) -> dict[str, Oklab]:
    sheet = assets().files["app.css"].body.decode().partition(":root {")[2].partition("\n}")[0]
    found: dict[str, Oklab] = {}
    for name, value in re.findall(r"--([\w-]+): ((?:light-dark|var|color-mix)\(.*\));", sheet):
        both = re.fullmatch(r"light-dark\((.+\)), ([\w-]+\(.+\))\)", value)
        text = both[1 + scheme] if both else value
        if "/" not in text:
            found[name] = oklab(text, found)
    return found


def luminance(colour: Oklab) -> float:
    """Relative luminance of a colour, as WCAG has it; what a screen cannot show is cut off."""
    light, a, b = colour
    lms = [
        (light + 0.3963377774 * a + 0.2158037573 * b) ** 3,
        (light - 0.1055613458 * a - 0.0638541728 * b) ** 3,
        (light - 0.0894841775 * a - 1.2914855480 * b) ** 3,
    ]
    rows = (
        (4.0767416621, -3.3077115913, 0.2309699292),
        (-1.2684380046, 2.6097574011, -0.3413193965),
        (-0.0041960863, -0.7034186147, 1.7076147010),
    )
    linear = [min(1.0, max(0.0, sum(x * y for x, y in zip(row, lms, strict=True)))) for row in rows]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: Oklab, other: Oklab) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1])
@pytest.mark.parametrize("ground", ["page", "raised", "sunken"])
def test_text_has_the_contrast_of_aa(ground: str, scheme: int) -> None:
    colours = tokens(scheme)
    for name in ("ink", "ink-2", "ink-3", "accent", "good", "warn", "bad"):
        assert contrast(colours[name], colours[ground]) >= 4.5, name
    for name in ("codex", "claude", "gemini", "qwen", "openai", "rule-strong"):
        assert contrast(colours[name], colours[ground]) >= 3.0, name
    for name in ("codex", "claude", "gemini", "qwen", "openai", "ink-3", "bad", "warn"):
        assert contrast(colours[name], colours["rule"]) >= 3.0, f"a bar of {name} on its track"
    for name in (f"line-{number}" for number in range(8)):
        assert contrast(colours[name], colours[ground]) >= 3.0, name
    assert contrast(colours["on-accent"], colours["accent"]) >= 4.5


def test_only_the_token_sheet_names_a_colour() -> None:
    for name, asset in assets().files.items():
        if name.endswith(".css"):
            body = asset.body.decode()
            if name == "app.css":
                body = re.sub(r"(?s)^.*?:root \{.*?\n\}", "", body, count=1)
            assert not re.search(r"#[0-9a-fA-F]{3,8}\b(?=[;,) ])|\brgba?\(|\bhsla?\(|\boklch\(", body), name


# -- one word for one thing ---------------------------------------------------------------------------------------

OLD = (
    "needs a hand", "under way", "come in", "begins anew", "anew", "not let in", "of it reasoning", "resting",
    "room left", "no room", "room lasts", "make the code", "make a new key", "switched off", "switch off",
    "needs sign-in", "in force now", "looked at again", "cannot write its books", "shown this once", "a hand",
)  # fmt: skip


def told() -> Iterator[tuple[str, str]]:
    """Every text people read: the words of the pages without their code, and the labels."""
    for path in sorted((templates_folder() / "pages").glob("*.html")):
        text = re.sub(r"{[%{].*?[%}]}", " ", path.read_text())
        shown = re.findall(r'(?:placeholder|data-ask|data-label|data-done|title|aria-label)="([^"]*)"', text)
        yield path.name, " ".join([re.sub(r"<[^>]*>", " ", text), *shown]).lower()
    for name in dir(labels):
        table = getattr(labels, name)
        if isinstance(table, dict):
            yield f"labels.{name}", " · ".join(str(words) for words in table.values()).lower()


def test_pages_speak_as_the_glossary_does() -> None:
    listed = (templates_folder().parent / "docs/glossary.md").read_text()
    for name, text in told():
        for old in OLD:
            assert not re.search(rf"\b{old}\b", text), f"{name} says {old!r}"
    for word in ("headroom", "in flight", "cooling down", "signed out", "used up", "next resets"):
        assert word in listed.lower(), f"{word} is missing in the glossary"
        assert any(word in text for _, text in told()), f"no page says {word}"
