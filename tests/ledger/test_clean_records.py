"""What one look finds fit is what the look at each field would have left as it is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pool_server.core.models import MOST_TOKENS, Usage, UsageRecord
from pool_server.ledger import PriceFacts, Prices, Quote
from pool_server.ledger.records import sanitize
from pool_server.ledger.records.sanitize import MAX_LABEL, MAX_MESSAGE, clean
from tests.ledger.ledger_kit import NOW, ledger_in

NAMES = ("user", "account", "model", "answered", "provider")
LABELS = ("agent", "tier", "speed", "geo", "session", "project", "key")
COUNTS = tuple(sanitize._ALL)
text = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["", "openai:0", "\0", "a\0b", "é", "\ud800", "x" * 127, "x" * 128, "x" * 129, "y" * 200, "y" * 201]
    ),
)
count = st.one_of(
    st.integers(-2, 3), st.sampled_from([MOST_TOKENS, MOST_TOKENS + 1, 500, 1.0, 0.0, True, False, float("nan"), "7"])
)


@given(st.fixed_dictionaries(dict.fromkeys((*NAMES, *LABELS, "message"), text)))
@example(dict.fromkeys((*NAMES, *LABELS, "message"), "z" * 25))
def test_texts_come_out_as_field_by_field(told: dict[str, Any]) -> None:
    rec = clean(UsageRecord(id="r", at=NOW, **told), NOW)
    for name in NAMES[:-1]:
        assert getattr(rec, name) == sanitize._name(told[name]), name
    assert rec.provider == (sanitize._name(told["provider"]) or rec.account.rpartition(":")[0].partition(":")[0])
    for name in LABELS:
        assert getattr(rec, name) == sanitize._text(told[name], MAX_LABEL), name
    assert rec.message == sanitize._text(told["message"], MAX_MESSAGE)


def _one_by_one(usage: Usage) -> bool:
    for name in COUNTS:
        value = getattr(usage, name)
        if type(value) is not int or not 0 <= value <= MOST_TOKENS:
            return False
        if name in sanitize._PARTS and value > getattr(usage, sanitize._PARTS[name]):
            return False
    return True


@given(st.dictionaries(st.sampled_from(COUNTS), count, max_size=5))
@example({"input": True})
@example({"input": 3, "audio_in": False})
@example({"reasoning": 1})
@example({"output": 2, "reasoning": 2})
def test_counts_are_judged_as_one_by_one(told: dict[str, Any]) -> None:
    usage = Usage(**told)
    assert sanitize._plausible(usage) is _one_by_one(usage)


def _quoted_anew(model: str, usage: Usage, facts: PriceFacts) -> Any:
    return msgspec.to_builtins(Prices().quote(model, usage, facts))


_PRICES, _TODAY = Prices(), PriceFacts()
_MODELS = ("", "gpt-5", "claude-sonnet-4-5", "nobody-knows-it", "gpt-5-mini")


@given(
    st.sampled_from(_MODELS),
    st.sampled_from(_MODELS),
    st.sampled_from(["", "api.openai.com", "bedrock-runtime.us-east-1.amazonaws.com"]),
    st.sampled_from(["", "flex", "absurd"]),
    st.builds(Usage, input=st.integers(0, 9), web_searches=st.integers(0, 1), other_kinds=st.integers(0, 1)),
)
def test_a_remembered_price_is_the_price(model: str, answered: str, host: str, tier: str, usage: Usage) -> None:
    facts = PriceFacts(at=NOW, host=host, tier=tier, answered=answered)
    assert msgspec.to_builtins(_PRICES.quote(model, usage, facts)) == _quoted_anew(model, usage, facts)


def test_names_that_clients_make_up_do_not_fill_the_memory_of_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pool_server.ledger.pricing.prices._CACHED_MODELS", 8)
    prices = Prices()
    for number in range(50):
        assert prices.quote(f"made-up-{number}", Usage(input=1, known=True)).dollars is None
    assert len(prices._entered) <= 8


def test_what_was_priced_is_not_priced_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def quote(self: Prices, model: str, usage: Usage, facts: PriceFacts = _TODAY) -> Quote:
        asked.append(model)
        return Quote(1.0)

    monkeypatch.setattr(Prices, "quote", quote)
    with ledger_in(tmp_path) as book:

        async def scenario() -> None:
            usage = Usage(input=1, known=True)
            assert await book.record(
                UsageRecord(id="a", at=NOW, user="u", model="unheard-of", usage=usage), priced=True
            )
            assert await book.record(UsageRecord(id="b", at=NOW, user="u", model="not-priced", usage=usage))
            wrong = UsageRecord(id="c", at=NOW, user="u", model="broken", usage=usage, cost=-1.0)
            assert await book.record(wrong, priced=True)

        asyncio.run(scenario())
        assert asked == ["not-priced", "broken"], "a price that cannot be is looked for again"
