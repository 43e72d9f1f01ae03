from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.enums import CostBasis
from pool_server.core.models import Usage
from pool_server.core.settings import ModelPrice
from pool_server.ledger import PriceFacts, Prices
from pool_server.ledger.pricing.price_table import Entry, PriceFile, read, shipped

PRICES = Prices()
MILLION = 1_000_000
EXAMPLES = json.loads((Path(__file__).parent / "data" / "price_examples.json").read_text("utf-8"))


def day(date: str) -> float:
    """Unix time of an ISO date or moment, UTC."""
    return datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp()


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
        ("claude-opus-4-0", "claude-opus-4"),
        ("gpt-5.6", "gpt-5.6-sol"),
        ("gpt-5.6-sol-max", "gpt-5.6-sol"),
        ("gpt-6-astra-ultra", "gpt-6-astra"),
        ("grok-4.20-0309-reasoning", "grok-4.20"),
        ("grok-4.7-1011", "grok-4.7"),
        ("deepseek-v4-flash-0731", "deepseek-flash"),
        ("anthropic/claude-opus-4.5", "claude-opus-4-5"),
        ("us.anthropic.claude-sonnet-4-6-v1:0", "claude-sonnet-4-6"),
        ("anthropic.claude-opus-4-5-20251101-v1:0", "claude-opus-4-5"),
        ("claude-sonnet-5@default", "claude-sonnet-5"),
        ("zai-org/GLM-5.2", "glm-5.2"),
    ],
)
def test_dated_and_varied_ids_find_their_model(asked: str, listed: str) -> None:
    entry = PRICES.find(asked)
    assert entry is not None and entry.listed is shipped().models[listed]


@pytest.mark.parametrize(
    "asked",
    [
        "",
        "gpt-5.9",
        "gpt-5-hyper",
        "mistral-large-2513",
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
    facts = PriceFacts(at=day("2026-04-29"))
    cost = PRICES.cost("claude-sonnet-4-5", Usage(input=prompt), facts)
    assert cost == pytest.approx(prompt * rate / MILLION)
    cached = PRICES.cost("claude-sonnet-4-5", Usage(cache_read=prompt), facts)
    assert cached == pytest.approx(prompt * rate / 10 / MILLION)


@pytest.mark.parametrize(("prompt", "rate"), [(32_000, 1.0), (32_001, 1.8), (128_001, 3.0), (256_001, 6.0)])
def test_the_highest_tier_reached_counts(prompt: int, rate: float) -> None:
    assert PRICES.cost("qwen3-coder-plus", Usage(input=prompt)) == pytest.approx(prompt * rate / MILLION)


@pytest.mark.parametrize(
    ("service", "factor"),
    [("", 1), ("default", 1), ("auto", 1), ("priority", 2), ("fast", 2), ("flex", 0.5), ("gold", None)],
)
def test_service_tiers(service: str, factor: float | None) -> None:
    cost = PRICES.cost("gpt-5", Usage(input=MILLION), PriceFacts(tier=service))
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
    about, table = PRICES.describe(), shipped()
    assert about["date"] >= "2026"
    hosts = [entry for host in table.hosts.values() for entry in host.models.items()]
    for name, price in [*table.models.items(), *hosts]:
        assert name == name.lower()
        assert price.kind != "chat" or 0 < price.input <= price.output or price.note == "free"
        assert price.cache_read is None or price.cache_read < price.input or price.note == "free"
        assert list(price.tiers) == sorted(price.tiers, key=lambda tier: tier.above)
        assert {key.rstrip("~") for key in (*price.source, *price.differs)} <= table.sources.keys()
        assert price.source and price.checked <= table.date


@given(st.text(max_size=60))
def test_any_name_may_be_asked_for(name: str) -> None:
    assert PRICES.find(name) is PRICES.find(name)


def test_the_memory_of_names_stays_small() -> None:
    prices = Prices()
    for i in range(10_000):
        prices.find(f"nonsense-{i}")
    assert len(prices._found) <= 4096


def usage_of(counts: dict[str, Any]) -> Usage:
    """An example's counts, whose audio stands beside its input."""
    parts = [usage_of(part) for part in counts.get("iterations", ())]
    plain = {name: count for name, count in counts.items() if name not in ("searches", "iterations")}
    usage = Usage(**plain, web_searches=counts.get("searches", 0), known=True, parts=parts)
    usage.input += usage.audio_in + sum(part.input for part in parts)
    usage.output += sum(part.output for part in parts)
    return usage


@pytest.mark.parametrize("example", EXAMPLES, ids=[one["case"] for one in EXAMPLES])
def test_worked_examples(example: dict[str, Any]) -> None:
    at = datetime.fromisoformat(example["at"]).timestamp() if "at" in example else None
    facts = PriceFacts(
        at=at, tier=example.get("service", ""), speed=example.get("speed", ""), geo=example.get("geo", "")
    )
    cost = PRICES.cost(example["model"], usage_of(example["usage"]), facts)
    assert cost == pytest.approx(example["dollars"], rel=1e-9)


INPUT = Usage(input=MILLION, known=True)


def test_a_price_told_by_the_answer_comes_first() -> None:
    quote = PRICES.quote("gpt-5.5", INPUT, PriceFacts(told=0.812, tier="gold"))
    assert (quote.dollars, quote.basis) == (0.812, CostBasis.TOLD)
    assert PRICES.quote("nobody-knows", INPUT, PriceFacts(told=0.0)).dollars == 0.0


def test_the_model_that_answered_sets_the_price() -> None:
    assert PRICES.cost("claude-opus-5-5", INPUT, PriceFacts(answered="claude-sonnet-5-5")) == pytest.approx(2.0)
    assert PRICES.cost("claude-opus-5-5", INPUT, PriceFacts(answered="a-model-nobody-knows")) is None
    own = Prices({"my-deployment": ModelPrice(input=9.0, output=9.0)})
    assert own.cost("my-deployment", INPUT, PriceFacts(answered="/models/weights.gguf")) == pytest.approx(9.0)


@pytest.mark.parametrize(
    ("host", "model", "dollars"),
    [
        ("api.groq.com", "openai/gpt-oss-120b", 0.15),
        ("dashscope-intl.aliyuncs.com", "deepseek-v4-pro", 2.4),
        ("token-plan.cn-beijing.maas.aliyuncs.com", "glm-5.2", 1.4),
        ("api.deepseek.com", "deepseek-v4-pro", 0.66),
        ("us.api.x.ai", "grok-4.7", 2.0 * 2 * 1.1),
        ("eu.api.openai.com", "gpt-6-sol", 2.0 * 2 * 1.1),
        ("eu.api.openai.com", "gpt-4.1", 2.0),
        ("notgroq.com", "openai/gpt-oss-120b", None),
    ],
)
def test_the_host_sets_the_price(host: str, model: str, dollars: float | None) -> None:
    cost = PRICES.cost(model, INPUT, PriceFacts(host=host))
    assert cost == (None if dollars is None else pytest.approx(dollars))
    assert Prices({model: ModelPrice(input=7.0, output=8.0)}).cost(model, Usage(output=MILLION), PriceFacts(host=host))


def test_what_no_list_prices_has_no_cost() -> None:
    for facts in (
        PriceFacts(tier="gold"),
        PriceFacts(speed="ludicrous"),
        PriceFacts(geo="moon"),
    ):
        assert PRICES.cost("claude-opus-5-5", INPUT, facts) is None
    assert PRICES.cost("claude-sonnet-5-5", INPUT, PriceFacts(speed="fast")) is None, "it is not sold fast"
    assert PRICES.cost("gemini-2.5-flash", Usage(input=5, other_kinds=5)) is None
    assert PRICES.cost("gpt-5.5", Usage(output=5, image_out=5)) is None
    assert PRICES.cost("gpt-5.5", Usage(cache_write=5, cache_write_12h=5)) is None
    assert PRICES.cost("o1", Usage(input=5, web_searches=1)) is None
    advised = Usage(input=2, parts=[Usage(input=1), Usage(input=1, model="nobody-knows")])
    assert PRICES.cost("claude-opus-5-5", advised) is None


def test_other_facts_and_kinds() -> None:
    assert PRICES.cost("claude-opus-4-5", INPUT, PriceFacts(geo="us")) == pytest.approx(5.0), "no surcharge before 4.6"
    assert PRICES.cost("claude-opus-5", INPUT, PriceFacts(geo="global", speed="standard")) == pytest.approx(5.0)
    assert PRICES.cost("gemini-2.5-flash", Usage(input=MILLION, image_in=MILLION)) == pytest.approx(0.3)
    assert PRICES.cost("gpt-image-2", Usage(output=MILLION, image_out=MILLION)) == pytest.approx(30.0)
    assert PRICES.cost("qwen-plus", Usage(output=MILLION, reasoning=1)) == pytest.approx(4.0)
    assert PRICES.cost("text-embedding-3-large", INPUT) == pytest.approx(0.13)
    assert PRICES.cost("gpt-realtime-2", Usage(cache_read=MILLION, audio_cache_read=MILLION)) == pytest.approx(0.4)
    batch = PriceFacts(tier="batch", host="api.groq.com")
    assert PRICES.cost("openai/gpt-oss-120b", Usage(cache_read=MILLION), batch) == pytest.approx(0.075)
    advised = Usage(input=2_000_000, parts=[Usage(input=MILLION), Usage(input=MILLION, model="claude-opus-5-5")])
    assert PRICES.cost("claude-sonnet-5-5", advised) == pytest.approx(6.0)


def test_what_is_free_costs_nothing_and_is_known() -> None:
    for model in ("glm-4.7-flash", "deepseek/deepseek-v4:free", "anything:free"):
        assert PRICES.cost(model, INPUT) == 0.0


def test_an_assumed_price_is_told_as_such() -> None:
    assert PRICES.quote("gpt-5.3-codex-spark", INPUT).basis is CostBasis.ASSUMED
    assert PRICES.quote("gpt-5.5", INPUT).basis is CostBasis.LIST
    assert PRICES.quote("nobody-knows", INPUT).dollars is None


def table(models: str) -> PriceFile:
    return read(f'date = "2026-11-28"\n[sources]\n[subscriptions]\n[models]\n{models}')


def test_a_price_changes_at_midnight_utc() -> None:
    prices = Prices(
        table=table(
            """
            "m" = { input = 3.0, output = 1.0, service = { flex = 0.5, batch = 0.5 }, dated = [
                { from = "2027-02-01", service = { flex = 0.25 } }, { until = "2026-01-01", input = 1.0 },
                { from = "2027-01-01", input = 4.0 }, { until = "2026-06-01", input = 2.0 } ] }
            """
        )
    )

    def cost(moment: str, tier: str = "") -> float | None:
        return prices.cost("m", INPUT, PriceFacts(at=day(moment), tier=tier))

    bounds = [("2026-01-01", 1.0, 2.0), ("2026-06-01", 2.0, 3.0), ("2027-01-01", 3.0, 4.0)]
    for date, before, after in bounds:
        assert prices.cost("m", INPUT, PriceFacts(at=day(date) - 0.001)) == pytest.approx(before)
        assert prices.cost("m", INPUT, PriceFacts(at=day(date))) == pytest.approx(after)
    assert cost("2027-02-01", "flex") == pytest.approx(1.0), "later changes build on earlier ones"
    assert cost("2027-02-01", "batch") == pytest.approx(2.0), "what a change does not name stays"
    assert cost("1970-01-01") == pytest.approx(1.0) and prices.cost("m", INPUT) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("moment", "factor"),
    [
        ("2026-11-30T00:59:59.999", 1),
        ("2026-11-30T01:00:00", 2),
        ("2026-11-30T03:59:59.999", 2),
        ("2026-11-30T04:00:00", 1),
        ("2026-11-30T06:00:00", 2),
        ("2026-11-30T10:00:00", 1),
        ("2026-12-04T09:59:59", 2),
        ("2026-12-05T02:00:00", 1),  # a Saturday
        ("2026-12-06T23:59:59", 1),
    ],
)
def test_peak_hours_begin_and_end_on_the_second(moment: str, factor: int) -> None:
    standard = PRICES.cost("deepseek-flash", INPUT)
    assert standard is not None
    cost = PRICES.cost("deepseek-flash", INPUT, PriceFacts(at=day(moment)))
    assert cost == pytest.approx(standard * factor)


def test_a_day_that_is_listed_has_no_peak_hours() -> None:
    prices = Prices(
        table=read(
            'date = "2026-11-28"\n[sources]\n[subscriptions]\n[models]\n'
            '"v-1" = { input = 1.0, output = 1.0, peak = 2.0 }\n'
            '[peak.v]\nutc = ["22:00-24:00"]\nweekdays = [1, 2, 3, 4, 5, 6, 7]\nexcept = ["2027-02-17"]\n'
        )
    )
    for moment, cost in (("2027-02-16T23:59:59", 2.0), ("2027-02-17T23:59:59", 1.0), ("2027-02-18T00:00:00", 1.0)):
        assert prices.cost("v-1", INPUT, PriceFacts(at=day(moment))) == pytest.approx(cost)


@pytest.mark.parametrize(
    ("peak", "problem"),
    [
        ('utc = ["1:00-4:00"]\nweekdays = [1]', "01:00-04:00"),
        ('utc = ["22:00-02:00"]\nweekdays = [1]', "01:00-04:00"),
        ('utc = ["04:00-04:00"]\nweekdays = [1]', "01:00-04:00"),
        ('utc = ["01:00-25:00"]\nweekdays = [1]', "01:00-04:00"),
        ('utc = ["01:00-04:00"]\nweekdays = [0]', ">= 1"),
        ('utc = ["01:00-04:00"]\nweekdays = [8]', "<= 7"),
        ('utc = ["01:00-04:00"]\nweekdays = [1]\nexcept = ["2026-2-30"]', "isoformat"),
        ('utc = ["01:00-04:00"]\nweekdays = [1]\nexcept = ["20260101"]', "2026-12-31"),
        ('utc = ["01:00-04:00"]\nweekdays = [1]\nholidays = []', "holidays"),
    ],
)
def test_peak_hours_that_are_none_are_refused_in_one_line(peak: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as failed:
        read(f'date = "2026-11-28"\n[sources]\n[subscriptions]\n[models]\n[peak.v]\n{peak}\n')
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize("date", ["", "soon", "2026-13-01"])
def test_a_table_without_a_date_is_refused(date: str) -> None:
    with pytest.raises(ValueError, match="price table"):
        read(f'date = "{date}"\n[sources]\n[subscriptions]\n[models]\n')


@pytest.mark.parametrize(
    ("models", "problem"),
    [
        ('"m" = { input = 1.0, output = 1.0, wish = 1.0 }', "wish"),
        ('"m" = { input = -1.0, output = 1.0 }', ">= 0"),
        ('"m" = { input = nan, output = 1.0 }', ">= 0"),
        ('"m" = { output = 1.0 }', "input"),
        ('"m" = { input = "1", output = 1.0 }', "float"),
        ("m = ", "price table"),
    ],
)
def test_a_broken_table_is_refused_in_one_line(models: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as failed:
        table(models)
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize(
    "models",
    [
        '"a" = { input = 1.0, output = 1.0, aliases = ["b"] }\n"b" = { input = 1.0, output = 1.0, aliases = ["a"] }',
        '"a" = { input = 1.0, output = 1.0, aliases = ["c"] }\n"b" = { input = 1.0, output = 1.0, aliases = ["c"] }',
        '"a" = { input = 1.0, output = 1.0, aliases = ["a"] }',
        '"a" = { input = 1.0, output = 1.0, dated = [{ until = "soon", input = 2.0 }] }',
        '"a" = { input = 1.0, output = 1.0, dated = [{ input = 2.0 }] }',
        '"a" = { input = 1.0, output = 1.0, dated = [{ until = "2026-01-01", wish = 2.0 }] }',
    ],
)
def test_a_table_that_contradicts_itself_is_refused(models: str) -> None:
    with pytest.raises(ValueError, match=r"listed twice|until|time data|wish"):
        Prices(table=table(models))


def test_the_age_of_the_table_is_told() -> None:
    assert PRICES.age_days(day(PRICES.date)) == 0
    assert PRICES.age_days(day(PRICES.date) + 61 * 86_400 - 1) == 60
    assert PRICES.age_days(0.0) == 0


def test_plans_of_today_have_their_monthly_price() -> None:
    assert PRICES.subscription("claude:a", "ultra") == PRICES.subscription("claude:a", "max_20x") == 200.0
    assert PRICES.subscription("claude:a", "Max") == 100.0 and PRICES.subscription("codex:a", "go") == 8.0


COUNTS = st.integers(0, 10_000_000)


@given(
    st.builds(Usage, input=COUNTS, cache_read=COUNTS, cache_write=COUNTS, output=COUNTS),
    st.sampled_from(sorted(shipped().models)),
)
def test_no_cost_is_negative_and_none_shrinks_as_more_is_used(usage: Usage, model: str) -> None:
    cost = PRICES.cost(model, usage)
    more = PRICES.cost(model, msgspec.structs.replace(usage, output=usage.output + 1000))
    assert cost is not None and more is not None and 0 <= cost <= more


def test_every_entry_can_be_read_at_any_time() -> None:
    for name, listed in shipped().models.items():
        entry = Entry(name, listed)
        for date in ("2020-01-01", "2026-11-28", "2030-01-01"):
            assert entry.at(day(date)).input >= 0
