"""Usage as each vendor tells it, in each place it tells it: buffered, streamed, cut anywhere, repeated, broken."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_server.core.enums import Dialect, Operation
from pool_server.core.models import Usage
from pool_server.dialects import Meter, header_tier, meter
from pool_server.dialects.usage import openai
from tests.dialects.streams import OPERATION, named, sse
from tests.dialects.vendor_usage import CHAT, GEMINI, MESSAGES, RESPONSES, TOLD


def known(usage: Usage) -> Usage:
    """The expectation with what every told usage and each of its parts has."""
    for part in (usage, *usage.parts):
        part.known = True
    return usage


def answer(dialect: Dialect, usage: Any) -> Any:
    """A JSON answer of a dialect that tells `usage`."""
    if dialect is GEMINI:
        return {
            "candidates": [{"content": {"parts": [{"text": "hi"}]}, "finishReason": "STOP"}],
            "usageMetadata": usage,
        }
    return {"id": "a1", "model": "m", "type": "message", "status": "completed", "choices": [{}], "usage": usage}


def events(dialect: Dialect, usage: Any) -> list[bytes]:
    """The events of a streamed answer that tells `usage` at its end."""
    if dialect is RESPONSES:
        return [
            named({"type": "response.output_text.delta", "delta": "hi"}),
            named({"type": "response.completed", "response": answer(dialect, usage)}),
        ]
    if dialect is MESSAGES:
        return [
            named({"type": "message_start", "message": answer(dialect, {"input_tokens": 1, "output_tokens": 1})}),
            named({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
            named({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}),
            named({"type": "message_stop"}),
        ]
    if dialect is GEMINI:
        text = {"candidates": [{"content": {"parts": [{"text": "h"}]}}], "usageMetadata": {"promptTokenCount": 1}}
        return [sse(text), sse(text), sse(answer(dialect, usage))]
    return [
        sse({"id": "a1", "choices": [{"delta": {"role": "assistant", "content": "hi"}}]}),
        sse({"id": "a1", "choices": [{"delta": {}, "finish_reason": "stop"}]}),
        sse({"id": "a1", "choices": [], "usage": usage}),
        sse("[DONE]"),
    ]


def read_stream(dialect: Dialect, chunks: list[bytes]) -> Meter:
    reading = meter(dialect, OPERATION[dialect], stream=True)
    for chunk in chunks:
        reading.feed(chunk)
    reading.finish()
    return reading


def read_json(dialect: Dialect, body: bytes, operation: Operation | None = None) -> Meter:
    reading = meter(dialect, operation or OPERATION[dialect], stream=False)
    reading.feed(body)
    reading.finish()
    return reading


@pytest.mark.parametrize(("dialect", "usage", "meant"), [row[1:] for row in TOLD], ids=[row[0] for row in TOLD])
def test_what_a_vendor_tells_is_counted_as_meant(dialect: Dialect, usage: dict[str, Any], meant: Usage) -> None:
    meant = known(meant)
    assert read_json(dialect, json.dumps(answer(dialect, usage)).encode()).usage == meant
    assert read_stream(dialect, events(dialect, usage)).usage == meant


@pytest.mark.parametrize(("dialect", "usage", "meant"), [row[1:] for row in TOLD], ids=[row[0] for row in TOLD])
@settings(max_examples=15)
@given(data=st.data())
def test_split_order_and_repetition_change_nothing(
    dialect: Dialect, usage: dict[str, Any], meant: Usage, data: st.DataObject
) -> None:
    turned = dict(data.draw(st.permutations(list(usage.items()))))
    *first, last = events(dialect, turned)
    if dialect is CHAT:  # the usage comes before or after the finish reason, or with either
        finish, counts = first.pop(-2), first.pop(-1)
        first += data.draw(st.permutations([finish, counts, *[counts] * data.draw(st.integers(0, 2))]))
    elif dialect is MESSAGES:
        start, _, delta = first
        first += data.draw(st.permutations([delta, start, delta]))
    elif dialect is GEMINI:
        first += [last] * data.draw(st.integers(0, 2))
    whole = b"".join([*first, last])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    chunks = [whole[a:b] for a, b in pairwise([0, *cuts, len(whole)])]
    assert read_stream(dialect, chunks).usage == known(meant)


FIGURES = st.integers(0, 3000)


@settings(max_examples=60)
@given(st.lists(st.tuples(FIGURES, FIGURES, FIGURES), min_size=1, max_size=6), st.randoms())
def test_running_counts_of_a_message_end_at_the_last_whatever_their_order(
    counts: list[tuple[int, int, int]], random: Any
) -> None:
    told = [
        {"input_tokens": a + 1, "cache_read_input_tokens": b, "output_tokens": 10 * n + 1}
        for n, (a, b, _) in enumerate(counts)
    ]
    deltas = [named({"type": "message_delta", "delta": {}, "usage": usage}) for usage in told]
    start, block, _, stop = events(MESSAGES, {})
    shuffled = [start, *deltas, *deltas[:2]]
    random.shuffle(shuffled)
    last = told[-1]
    expected = Usage(
        input=last["input_tokens"], cache_read=last["cache_read_input_tokens"], output=last["output_tokens"], known=True
    )
    assert read_stream(MESSAGES, [*shuffled, block, stop]).usage == expected


def delta_usage(*told: dict[str, Any]) -> Usage:
    start, *deltas = told
    first = named({"type": "message_start", "message": answer(MESSAGES, start)})
    rest = [named({"type": "message_delta", "delta": {}, "usage": usage}) for usage in deltas]
    return read_stream(MESSAGES, [first, *rest]).usage


def test_the_last_word_on_a_message_counts() -> None:
    found = delta_usage(
        {"input_tokens": 10_000, "output_tokens": 1},
        {"input_tokens": 200, "cache_read_input_tokens": 9800, "output_tokens": 40},
    )
    assert found == Usage(input=200, cache_read=9800, output=40, known=True)
    found = delta_usage(
        {"input_tokens": 30, "cache_read_input_tokens": 70, "output_tokens": 1},
        {"input_tokens": None, "cache_read_input_tokens": None, "output_tokens": 40},
    )
    assert found == Usage(input=30, cache_read=70, output=40, known=True)
    found = delta_usage({"input_tokens": 30, "output_tokens": 1}, {"input_tokens": 3000})
    assert found == Usage(input=3000, output=1, known=True)
    for nothing in ({}, {"cache_read_input_tokens": 0}, {"cache_creation": {"ephemeral_1h_input_tokens": 0}}):
        found = delta_usage(
            {"input_tokens": 30, "cache_creation_input_tokens": 9, "output_tokens": 1},
            {"input_tokens": 0, "output_tokens": 40, **nothing},
        )
        assert found == Usage(input=30, cache_write=9, output=40, known=True), "no prompt is of no tokens"
    found = delta_usage({"input_tokens": 30, "output_tokens": 1}, {"input_tokens": 0, "cache_read_input_tokens": 30})
    assert found == Usage(cache_read=30, output=1, known=True)
    cut = delta_usage({"input_tokens": 30, "cache_creation_input_tokens": 9, "output_tokens": 1})
    assert cut == Usage(input=30, cache_write=9, output=1, known=True)


USAGE = {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}
HEAD = {"id": "c1", "model": "m"}
TEXT = {**HEAD, "choices": [{"delta": {"content": "ok"}, "finish_reason": None}], "usage": None}
PLACES: list[list[dict[str, Any]]] = [
    [TEXT, {**HEAD, "choices": [{"delta": {}, "finish_reason": "stop"}], "usage": USAGE}],
    [TEXT, {**HEAD, "choices": [{"delta": {}, "finish_reason": "stop", "usage": USAGE}]}],
    [TEXT, {**HEAD, "choices": [{"delta": {}, "finish_reason": "stop"}], "x_groq": {"id": "r", "usage": USAGE}}],
    [{**TEXT, "usage": USAGE}, TEXT, {**HEAD, "choices": [{"delta": {}, "finish_reason": "stop"}]}],
    [
        TEXT,
        {**HEAD, "choices": [{"delta": {}, "finish_reason": "stop"}], "usage": USAGE},
        {**HEAD, "choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}},
        {**HEAD, "choices": []},
    ],
    [
        {**TEXT, "usage": {"prompt_tokens": 30, "completion_tokens": 1}},
        {**TEXT, "usage": {"prompt_tokens": 30, "completion_tokens": 7}},
        {**HEAD, "choices": [{"delta": {}, "finish_reason": "stop"}], "usage": USAGE},
    ],
]


@pytest.mark.parametrize("chunks", PLACES)
@pytest.mark.parametrize("spaced", [False, True])
def test_usage_of_a_completion_in_every_place(chunks: list[dict[str, Any]], spaced: bool) -> None:
    texts = [json.dumps(chunk, separators=(" , ", " : ") if spaced else (",", ":")) for chunk in chunks]
    reading = read_stream(CHAT, [*(sse(text) for text in texts), sse("[DONE]")])
    assert reading.usage == Usage(input=30, output=12, known=True) and reading.complete


def test_a_json_completion_tells_usage_in_other_places_too() -> None:
    within = {**HEAD, "choices": [{"message": {"content": "ok"}, "usage": USAGE}]}
    groq = {**HEAD, "choices": [], "x_groq": {"usage": USAGE}}
    for body in (within, groq):
        assert read_json(CHAT, b"\n\n\n" + json.dumps(body).encode()).usage == Usage(input=30, output=12, known=True)


BROKEN: list[Any] = [None, -5, "many", "", True, 1e300, 10**12, 10**30, [], {}, "7" * 40]


@pytest.mark.parametrize("value", BROKEN, ids=repr)
@pytest.mark.parametrize(
    ("dialect", "names"),
    [
        (CHAT, ("prompt_tokens", "completion_tokens", "total_tokens")),
        (RESPONSES, ("input_tokens", "output_tokens", "total_tokens")),
        (MESSAGES, ("input_tokens", "output_tokens", "cache_read_input_tokens")),
        (GEMINI, ("promptTokenCount", "candidatesTokenCount", "totalTokenCount")),
    ],
)
def test_a_broken_figure_is_not_told(dialect: Dialect, names: tuple[str, str, str], value: Any) -> None:
    """One broken figure leaves the others as they are; a usage object of nothing else is unknown."""
    body = json.dumps(answer(dialect, dict.fromkeys(names, value))).encode()
    assert read_json(dialect, body).usage == Usage()
    body = json.dumps(answer(dialect, {names[0]: 30, names[1]: 12, names[2]: value})).encode()
    assert read_json(dialect, body).usage == Usage(input=30, output=12, known=True)
    body = json.dumps(answer(dialect, {names[0]: value, names[1]: 12})).encode()
    assert read_json(dialect, body).usage == Usage(output=12, known=True)


@pytest.mark.parametrize("dialect", [CHAT, RESPONSES, MESSAGES, GEMINI])
@pytest.mark.parametrize("usage", [{}, {"seconds": 12}, {"type": "duration"}, [], [1], "7", 7, None])
def test_a_usage_without_a_known_name_is_unknown(dialect: Dialect, usage: Any) -> None:
    reading = read_json(dialect, json.dumps(answer(dialect, usage)).encode())
    assert reading.usage == Usage() and reading.complete


@pytest.mark.parametrize("dialect", [CHAT, RESPONSES])
@pytest.mark.parametrize("details", ["output_tokens_details", "input_tokens_details"])
def test_parts_of_a_count_alone_are_no_usage(dialect: Dialect, details: str) -> None:
    reading = read_json(dialect, json.dumps(answer(dialect, {details: {"audio_tokens": 5}})).encode())
    assert reading.usage == Usage()


def test_figures_written_as_strings_are_figures() -> None:
    body = json.dumps(answer(CHAT, {"prompt_tokens": "30", "completion_tokens": 12.0})).encode()
    assert read_json(CHAT, body).usage == Usage(input=30, output=12, known=True)


KEYS = st.sampled_from(
    [
        "prompt_tokens", "input_tokens", "completion_tokens", "output_tokens", "total_tokens", "cached_tokens",
        "prompt_tokens_details", "input_tokens_details", "output_tokens_details", "cache_creation", "iterations",
        "cache_read_input_tokens", "server_tool_use", "promptTokenCount", "thoughtsTokenCount", "totalTokenCount",
        "promptTokensDetails", "modality", "tokenCount", "cost", "cost_in_usd_ticks", "cost_details", "type",
    ]
)  # fmt: skip
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=12,
)


@settings(max_examples=200)
@given(usage=JSONS, dialect=st.sampled_from([CHAT, RESPONSES, MESSAGES, GEMINI]))
def test_any_usage_is_survived_and_its_parts_never_exceed_the_whole(usage: Any, dialect: Dialect) -> None:
    found = read_json(dialect, json.dumps(answer(dialect, usage)).encode()).usage
    counts = (found.input, found.cache_read, found.cache_write, found.output)
    assert all(count >= 0 for count in counts)
    assert found.reasoning <= found.output and found.audio_out + found.image_out <= found.output
    assert found.audio_in + found.image_in + found.video_in <= found.input
    assert found.cache_read_explicit + found.audio_cache_read + found.image_cache_read <= found.cache_read
    assert found.cache_write_1h + found.cache_write_12h <= found.cache_write
    assert found.known or not any(counts)


SERVED: list[tuple[Dialect, dict[str, Any], tuple[str, str, str, float | None]]] = [
    (MESSAGES, {"service_tier": "standard", "speed": "fast", "inference_geo": "us"}, ("standard", "fast", "us", None)),
    (MESSAGES, {"service_tier": "batch", "speed": None}, ("batch", "", "", None)),
    (CHAT, {"cost": 0.0125}, ("", "", "", 0.0125)),
    (CHAT, {"cost": 0}, ("", "", "", 0.0)),
    (CHAT, {"cost": 0.01, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.2}}, ("", "", "", 0.21)),
    (CHAT, {"cost": 0.01, "cost_details": {"upstream_inference_cost": 0.2}}, ("", "", "", 0.01)),
    (CHAT, {"cost": {"total_cost": 0.006, "currency": "USD"}}, ("", "", "", 0.006)),
    (RESPONSES, {"cost_in_usd_ticks": 8_120_000_000}, ("", "", "", 0.812)),
    (CHAT, {"cost": -1}, ("", "", "", None)),
    (CHAT, {"cost": "0.5"}, ("", "", "", None)),
    (CHAT, {"cost": True}, ("", "", "", None)),
    (CHAT, {"cost": 1e9}, ("", "", "", None)),
    (CHAT, {"cost_in_usd_ticks": 10**400}, ("", "", "", None)),
    (MESSAGES, {"speed": "x" * 400, "inference_geo": 7}, ("", "", "", None)),
]


@pytest.mark.parametrize(("dialect", "told", "meant"), SERVED)
def test_how_an_answer_was_served(
    dialect: Dialect, told: dict[str, Any], meant: tuple[str, str, str, float | None]
) -> None:
    usage = {"input_tokens": 3, "output_tokens": 3} | told
    for reading in (
        read_json(dialect, json.dumps(answer(dialect, usage)).encode()),
        read_stream(dialect, events(dialect, usage)),
    ):
        served = reading.served
        assert (served.tier, served.speed, served.geo) == meant[:3]
        assert served.cost == (None if meant[3] is None else pytest.approx(meant[3]))


@pytest.mark.parametrize(
    ("value", "tier"),
    [("flex", "flex"), ("PRIORITY", "priority"), ("SERVICE_TIER_STANDARD", "standard"), ("", ""), ("x" * 99, "")],
)
def test_the_service_tier_of_a_gemini_answer_is_in_its_header(value: str, tier: str) -> None:
    assert header_tier({"x-gemini-service-tier": value}) == tier
    assert header_tier({}) == ""


def test_searches_of_gemini_are_counted_once_each() -> None:
    usage = {"promptTokenCount": 5, "candidatesTokenCount": 2}
    first = {
        "candidates": [{"content": {"parts": [{"text": "a"}]}, "groundingMetadata": {"webSearchQueries": ["x", "y"]}}]
    }
    more = {
        "candidates": [{"content": {"parts": [{"text": "b"}]}, "groundingMetadata": {"webSearchQueries": ["y", "z"]}}]
    }
    broken = {
        "candidates": [{"content": {"parts": [{"text": "b"}]}, "groundingMetadata": {"webSearchQueries": [7, None]}}]
    }
    chunks = [sse(first), sse(more), sse(broken), sse(answer(GEMINI, usage))]
    found = read_stream(GEMINI, chunks).usage
    assert found == Usage(input=5, output=2, web_searches=3, known=True)


def test_the_running_usage_of_gemini_is_not_lost_where_the_last_chunk_has_none() -> None:
    running = {
        "candidates": [{"content": {"parts": [{"text": "a"}]}}],
        "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 9},
    }
    end = {"candidates": [{"content": {"parts": []}, "finishReason": "STOP"}]}
    found = read_stream(GEMINI, [sse(running), sse(running), sse(end)]).usage
    assert found == Usage(input=5, output=9, known=True)


def test_embeddings_of_gemini_are_counted() -> None:
    body = {"embedding": {"values": [0.1]}, "usageMetadata": {"promptTokenCount": 17}}
    reading = read_json(GEMINI, json.dumps(body).encode(), Operation.OTHER)
    assert reading.usage == Usage(input=17, known=True) and reading.complete


@given(
    st.dictionaries(
        st.sampled_from(["prompt", "completion", "total", "read", "own_read", "miss", "reasoning", "own_reasoning"]),
        st.integers(0, 40),
    ),
    st.sampled_from(openai._BREAKDOWN),
)
def test_the_short_way_of_a_plain_usage_ends_where_the_long_one_does(figures: dict[str, int], part: str) -> None:
    """A part that is told as 0 changes nothing either."""
    assert openai.usage(figures) == openai.usage(figures | {part: 0})
    if openai.usage(figures).known:
        assert openai.usage(figures) == openai._broken_down(
            figures, figures.get("read") or figures.get("own_read") or 0
        )
