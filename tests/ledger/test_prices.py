from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.models import Usage
from pool_server.core.settings import ModelPrice
from pool_server.ledger import Prices
from pool_server.ledger.pricing import shipped

PRICES = Prices()
MILLION = 1_000_000


@pytest.mark.parametrize(
    ("asked", "listed"),
    [
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("claude-sonnet-4-20250514", "claude-sonnet-4"),
        ("claude-opus-4-1@20250805", "claude-opus-4-1"),
        ("claude-sonnet-4-5-20250929[1m]", "claude-sonnet-4-5"),
        ("anthropic/claude-opus-4-5", "claude-opus-4-5"),
        ("gpt-5-2025-08-07", "gpt-5"),
        ("gpt-5.1-codex-max-high", "gpt-5.1-codex-max"),
        ("GPT-5-Mini", "gpt-5-mini"),
        ("models/gemini-2.5-pro-preview-05-06", "gemini-2.5-pro"),
        ("gemini-3-pro-preview", "gemini-3-pro"),
        ("qwen3-coder-plus-2025-09-23", "qwen3-coder-plus"),
    ],
)
def test_dated_and_varied_ids_find_their_model(asked: str, listed: str) -> None:
    assert PRICES.find(asked) is shipped().models[listed]


@pytest.mark.parametrize(
    "asked",
    [
        "",
        "gpt-5.9",
        "gpt-5-ultra",
        "claude-opus-4-9",
        "claude-sonnet-4-55",
        "gemini-2.5-proxy",
        "coder-model",
        "o3x",
    ],
)
def test_other_models_have_no_price(asked: str) -> None:
    assert PRICES.find(asked) is None
    assert PRICES.cost(asked, Usage(input=1, known=True)) is None


def test_each_kind_of_token_has_its_price() -> None:
    usage = Usage(
        input=10, cache_read=1000, cache_write=300, cache_write_1h=100, output=50, reasoning=20, web_searches=2
    )
    expected = (10 * 5 + 1000 * 0.5 + 200 * 6.25 + 100 * 10 + 50 * 25) / MILLION + 2 * 0.01
    assert PRICES.cost("claude-opus-4-5", usage) == pytest.approx(expected)


@pytest.mark.parametrize(("prompt", "rate"), [(200_000, 3.0), (200_001, 6.0)])
def test_long_prompts_cost_more(prompt: int, rate: float) -> None:
    cost = PRICES.cost("claude-sonnet-4-5", Usage(input=prompt))
    assert cost == pytest.approx(prompt * rate / MILLION)
    cached = PRICES.cost("claude-sonnet-4-5", Usage(cache_read=prompt))
    assert cached == pytest.approx(prompt * rate / 10 / MILLION)


@pytest.mark.parametrize(("prompt", "rate"), [(32_000, 1.0), (32_001, 1.8), (128_001, 3.0), (256_001, 6.0)])
def test_the_highest_tier_reached_counts(prompt: int, rate: float) -> None:
    assert PRICES.cost("qwen3-coder-plus", Usage(input=prompt)) == pytest.approx(prompt * rate / MILLION)


@pytest.mark.parametrize(
    ("service", "factor"),
    [("", 1), ("default", 1), ("auto", 1), ("priority", 2), ("fast", 2), ("flex", 0.5), ("gold", None)],
)
def test_service_tiers(service: str, factor: float | None) -> None:
    cost = PRICES.cost("gpt-5", Usage(input=MILLION), service)
    assert cost == (None if factor is None else pytest.approx(1.25 * factor))


@pytest.mark.parametrize(
    ("model", "input_price", "output_price"),
    [
        ("claude-opus-5-5", 4.0, 20.0),
        ("claude-sonnet-5-20260301", 2.0, 10.0),
        ("gpt-6.1-sol", 2.0, 10.0),
        ("gpt-4o-2024-05-13", 5.0, 15.0),
        ("claude-opus-4-0", 15.0, 75.0),
        ("glm-5.2", 1.4, 4.4),
    ],
)
def test_models_of_each_vendor_have_their_price(model: str, input_price: float, output_price: float) -> None:
    assert PRICES.cost(model, Usage(input=1000)) == pytest.approx(input_price * 1000 / MILLION)
    assert PRICES.cost(model, Usage(output=1000)) == pytest.approx(output_price * 1000 / MILLION)


def test_settings_win_over_the_table() -> None:
    prices = Prices({"GPT-5": ModelPrice(input=7.0, output=8.0), "house-model": ModelPrice(input=1.0, output=1.0)})
    assert prices.cost("gpt-5-2025-08-07", Usage(input=MILLION)) == pytest.approx(7.0)
    assert prices.cost("house-model-latest", Usage(output=MILLION)) == pytest.approx(1.0)
    assert prices.cost("gpt-5-mini", Usage(input=MILLION)) == pytest.approx(0.25)


def test_subscriptions_by_account_then_plan() -> None:
    prices = Prices(None, {"claude:work": 1.0, "codex:special": 2.0, "tiny": 3.0})
    assert prices.subscription("claude:work", "pro") == 1.0
    assert prices.subscription("codex:x", "special") == 2.0
    assert prices.subscription("qwen:x", "tiny") == 3.0
    assert prices.subscription("claude:y", "pro") == 20.0
    assert prices.subscription("openai:y", "") is None


def test_the_table_is_dated_and_sane() -> None:
    about = PRICES.describe()
    assert about["date"] >= "2026"
    assert all(source.startswith("https://") for source in about["sources"])
    for name, price in shipped().models.items():
        assert name == name.lower()
        assert 0 < price.input <= price.output
        assert price.cache_read is None or price.cache_read < price.input
        assert list(price.tiers) == sorted(price.tiers, key=lambda tier: tier.above)


@given(st.text(max_size=60))
def test_any_name_may_be_asked_for(name: str) -> None:
    assert PRICES.find(name) is PRICES.find(name)


def test_the_memory_of_names_stays_small() -> None:
    prices = Prices()
    for i in range(10_000):
        prices.find(f"nonsense-{i}")
    assert len(prices._found) <= 4096
