"""Answers over every pair: streamed and whole on either side, held to each dialect's grammar and types."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pool_server.core.enums import Dialect
from pool_server.dialects.translation import UpstreamKind
from tests.dialects.translation.grammar import Heard, hear, hear_whole
from tests.dialects.translation.kit import PAIRS, SEALS, Blocks, answer, events, request, translate

TEXT: Blocks = [("text", "Grüße aus Šibenik 🏰, drei Tage.")]
CALLS: Blocks = [
    ("text", "Two look-ups."),
    ("call", "call_a1", "tide_table", '{"place": "Brest", "day": 2}'),
    ("call", "call_b2", "moon", "{}"),
]
FINISHES = {
    "length": {"chat": "length", "responses": "max_output_tokens", "messages": "max_tokens", "gemini": "MAX_TOKENS"},
    "filter": {"chat": "content_filter", "responses": "content_filter", "messages": "refusal", "gemini": "SAFETY"},
}


def thinking(kind: UpstreamKind) -> Blocks:
    return [("think", "First the harbour, then the moon.", SEALS[kind]), *CALLS]


def run(client: Dialect, kind: UpstreamKind, blocks: Blocks, shape: str, finish: str = "") -> Heard:
    """`shape` is upstream>client, each stream or whole."""
    streams, wants = (part == "stream" for part in shape.split(">"))
    body = request(client, [("user", "When is high water?")], tools=("tide_table", "moon"), stream=wants)
    if client is Dialect.CHAT and wants:
        body["stream_options"] = {"include_usage": True}
    told = translate(client, kind, body, stream=wants).response
    if streams:
        raw = b"".join(told.feed(event) for event in events(kind, blocks, finish=finish)) + told.finish()
    else:
        raw = told.whole(answer(kind, blocks, finish=finish))
    assert told.complete, told.fault
    assert told.fault is None
    return hear(client, raw) if wants else hear_whole(client, raw)


SHAPES = ("stream>stream", "stream>whole", "whole>stream", "whole>whole")


@pytest.mark.parametrize(("client", "kind"), PAIRS)
@pytest.mark.parametrize("shape", SHAPES)
def test_words_calls_and_usage_arrive(client: Dialect, kind: UpstreamKind, shape: str) -> None:
    heard = run(client, kind, CALLS, shape)
    assert heard.texts() == "Two look-ups."
    assert heard.calls() == [("tide_table", {"place": "Brest", "day": 2}), ("moon", {})]
    assert heard.finish == {
        Dialect.CHAT: "tool_calls",
        Dialect.RESPONSES: "completed",
        Dialect.MESSAGES: "tool_use",
    }.get(client, "STOP")
    assert counts(client, heard.usage) == (50, 20, 9)
    idents = [block[1] for block in heard.blocks if block[0] == "call"]
    assert len(set(idents)) == 2 and all(idents)
    assert run(client, kind, TEXT, shape).texts() == TEXT[0][1]


def counts(client: Dialect, usage: dict[str, Any]) -> tuple[int, int, int]:
    """(all input, of it read from a cache, output)."""
    if client is Dialect.CHAT:
        return usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"], usage["completion_tokens"]
    if client is Dialect.RESPONSES:
        return usage["input_tokens"], usage["input_tokens_details"]["cached_tokens"], usage["output_tokens"]
    if client is Dialect.MESSAGES:
        read = usage["cache_read_input_tokens"]
        return usage["input_tokens"] + read + usage["cache_creation_input_tokens"], read, usage["output_tokens"]
    return usage["promptTokenCount"], usage["cachedContentTokenCount"], usage["candidatesTokenCount"]


@pytest.mark.parametrize(("client", "kind"), PAIRS)
@pytest.mark.parametrize("shape", SHAPES)
def test_reasoning_comes_before_what_it_led_to(client: Dialect, kind: UpstreamKind, shape: str) -> None:
    heard = run(client, kind, thinking(kind), shape)
    assert heard.texts("think") == "First the harbour, then the moon."
    assert [block[0] for block in heard.blocks] == ["think", "text", "call", "call"]
    if client is not Dialect.CHAT:
        assert heard.blocks[0][2]


@pytest.mark.parametrize(("client", "kind"), PAIRS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("meaning", FINISHES)
def test_the_reason_to_stop_is_told_in_the_client_s_words(
    client: Dialect, kind: UpstreamKind, shape: str, meaning: str
) -> None:
    word = {"codex": "responses", "code_assist": "gemini"}
    words = FINISHES[meaning]
    heard = run(client, kind, TEXT, shape, words[word.get(kind, kind.value)])
    assert heard.finish == words[word.get(client, client.value)]


@pytest.mark.parametrize(("client", "kind"), PAIRS)
def test_an_answer_of_nothing_is_an_answer(client: Dialect, kind: UpstreamKind) -> None:
    for shape in SHAPES:
        assert run(client, kind, [], shape).texts() == ""


@pytest.mark.parametrize(("client", "kind"), PAIRS)
def test_sealed_reasoning_goes_back_to_its_vendor_alone(client: Dialect, kind: UpstreamKind) -> None:
    """What a client was given, replayed: to the vendor that sealed it as it was, to no other."""
    if client is Dialect.CHAT:
        return
    heard = run(client, kind, thinking(kind), "stream>stream")
    replayed = replay(client, heard)
    sent = translate(client, kind, replayed)
    if SEALS[kind]:
        assert sent.seals == [SEALS[kind]]
        assert SEALS[kind].encode() in sent.body
        assert SEALS[kind].encode() not in translate(client, kind, replayed, seals=False).body
    elif kind is UpstreamKind.CHAT:
        assert b"First the harbour" in sent.body
    for other in UpstreamKind:
        if (client, other) in PAIRS and SEALS[other][:5] != SEALS[kind][:5]:
            body = translate(client, other, replayed).body
            assert b"harbour" not in body
            assert not SEALS[kind] or SEALS[kind].encode() not in body


def replay(client: Dialect, heard: Heard) -> dict[str, Any]:
    """A request whose history holds the answer as this client keeps it."""
    body = request(client, [("user", "When?")], tools=("tide_table", "moon"))
    _, _, (call, first, name, args), (_, second, other, _) = heard.blocks
    think = heard.blocks[0]
    assert call == "call"
    results = [("result", first, name, "6:10"), ("result", second, other, "half")]
    tail = request(client, [("call", first, name, args), ("call", second, other, "{}"), *results])
    if client is Dialect.RESPONSES:
        item = {"type": "reasoning", "id": "rs_1", "encrypted_content": think[2]}
        body["input"] += [{**item, "summary": [{"type": "summary_text", "text": think[1]}]}, *tail["input"]]
    elif client is Dialect.MESSAGES:
        block = {"type": "thinking", "thinking": think[1], "signature": think[2]}
        tail["messages"][0]["content"].insert(0, block)
        body["messages"] += tail["messages"]
    else:
        inner, more = (b["request"] if client is Dialect.CODE_ASSIST else b for b in (body, tail))
        part = {"text": think[1], "thought": True, "thoughtSignature": think[2]}
        more["contents"][0]["parts"].insert(0, part)
        inner["contents"] += more["contents"]
    return body


@pytest.mark.parametrize(("client", "kind"), PAIRS)
def test_several_thoughts_are_told_the_same_in_a_stream_and_in_one_piece(client: Dialect, kind: UpstreamKind) -> None:
    seal = SEALS[kind]
    blocks: Blocks = [("think", "The tide.", seal), ("text", "High."), ("think", "The moon.", seal), ("text", " Full.")]
    wholes = "whole>stream", "whole>whole"  # Chat's answers in one piece have their thoughts in one
    shapes = wholes if kind is UpstreamKind.CHAT else ("stream>stream", "stream>whole", *wholes)
    heard = [run(client, kind, blocks, shape) for shape in shapes]
    thoughts = {one.texts("think") for one in heard}
    assert len(thoughts) == 1 and {one.texts() for one in heard} == {"High. Full."}
    if client is Dialect.CHAT and kind is not UpstreamKind.CHAT:
        assert thoughts == {"The tide.\n\nThe moon."}


def test_a_chat_client_that_asked_for_no_usage_gets_none() -> None:
    told = translate(Dialect.CHAT, UpstreamKind.MESSAGES, request(Dialect.CHAT, [("user", "?")], stream=True)).response
    raw = b"".join(map(told.feed, events(UpstreamKind.MESSAGES, TEXT))) + told.finish()
    assert hear(Dialect.CHAT, raw).usage == {}


@pytest.mark.parametrize("client", [Dialect.RESPONSES, Dialect.CODE_ASSIST])
def test_a_blocked_prompt_is_no_success(client: Dialect) -> None:
    body = {"promptFeedback": {"blockReason": "BLOCKLIST"}, "usageMetadata": {"promptTokenCount": 4}}
    told = translate(client, UpstreamKind.GEMINI, request(client, [("user", "?")])).response
    heard = hear_whole(client, told.whole(json.dumps(body).encode()))
    assert heard.finish in ("content_filter", "SAFETY")


def test_the_response_repeats_its_request() -> None:
    body = request(Dialect.RESPONSES, [("user", "?")], tools=("moon",), system="Be brief.") | {"metadata": {"a": "b"}}
    told = translate(Dialect.RESPONSES, UpstreamKind.MESSAGES, body).response
    found = json.loads(told.whole(answer(UpstreamKind.MESSAGES, TEXT)))
    assert found["instructions"] == "Be brief."
    assert found["tools"] == body["tools"]
    assert found["metadata"] == {"a": "b"}
