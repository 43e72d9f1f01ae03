"""A dialect's whole answers and its events say the same: one is made from the other and back."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import msgspec
import pytest

from pool_server.core.enums import Dialect
from pool_server.dialects.forms import Folded, unfolded
from pool_server.dialects.forms.google_events import go_on
from pool_server.dialects.forms.growing import grow, grown
from tests.dialects.streams import named, sse

MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [
        {"type": "thinking", "thinking": "Hm.", "signature": "EqS"},
        {"type": "redacted_thinking", "data": "R"},
        {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"query": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": [{"url": "https://a", "title": "A"}]},
        {
            "type": "text",
            "text": "Full moon.",
            "citations": [{"type": "web_search_result_location", "url": "https://a"}],
        },
        {"type": "tool_use", "id": "toolu_1", "name": "moon", "input": {"a": 1.0, "b": "é"}},
        {"type": "tool_use", "id": "toolu_2", "name": "tide", "input": {}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 7, "output_tokens": 5, "service_tier": "standard"},
    "base_resp": {"status_code": 0},
}
CALLS = [
    {"id": "call_a", "type": "function", "function": {"name": "moon", "arguments": '{"a":1}'}},
    {"id": "call_b", "type": "function", "function": {"name": "tide", "arguments": "{}"}},
]
COMPLETION = {
    "id": "c1",
    "object": "chat.completion",
    "created": 3,
    "model": "m",
    "system_fingerprint": "fp",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hi.", "reasoning_content": "Hm.", "tool_calls": CALLS},
            "finish_reason": "tool_calls",
        },
        {"index": 1, "message": {"role": "assistant", "content": "Ho."}, "finish_reason": "stop"},
    ],
    "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
}
PLAIN = {
    "id": "t1",
    "object": "text_completion",
    "model": "m",
    "choices": [{"index": 0, "text": "Hi.", "finish_reason": "length"}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
}
GENERATED = {
    "candidates": [
        {
            "index": 0,
            "content": {
                "role": "model",
                "parts": [
                    {"text": "Hm.", "thought": True},
                    {"text": "Hi."},
                    {"functionCall": {"name": "moon", "args": {"a": 1}}, "thoughtSignature": "S"},
                ],
            },
            "finishReason": "STOP",
            "groundingMetadata": {"webSearchQueries": ["q"]},
        }
    ],
    "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 5, "totalTokenCount": 12},
    "modelVersion": "m",
    "responseId": "r",
}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "model": "m",
    "output": [
        {
            "id": "rs_1",
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "Hm."}],
            "encrypted_content": "S",
        },
        {
            "id": "msg_1",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Hi.", "annotations": []}],
        },
        {
            "id": "fc_1",
            "type": "function_call",
            "call_id": "c",
            "name": "moon",
            "arguments": "{}",
            "status": "completed",
        },
    ],
    "usage": {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12},
}
WHOLE: list[tuple[Dialect, Any]] = [
    (Dialect.MESSAGES, MESSAGE),
    (Dialect.CHAT, COMPLETION),
    (Dialect.CHAT, PLAIN),
    (Dialect.GEMINI, GENERATED),
    (Dialect.CODE_ASSIST, {"response": GENERATED, "traceId": "t"}),
    (Dialect.RESPONSES, RESPONSE),
]


def folded(dialect: Dialect, raw: bytes, size: int = 1 << 20, *, listed: bool = False) -> Any:
    fold = Folded(dialect, listed=listed)
    for at in range(0, len(raw), size):
        fold.feed(raw[at : at + size])
    body = fold.body()
    return None if body is None else json.loads(body)


@pytest.mark.parametrize(("dialect", "whole"), WHOLE)
@pytest.mark.parametrize("size", [1 << 20, 7])
def test_a_whole_answer_s_events_amount_to_it(dialect: Dialect, whole: Any, size: int) -> None:
    events = unfolded(dialect, json.dumps(whole).encode(), usage=True)
    assert events is not None
    assert folded(dialect, events, size) == whole


def test_a_chat_client_that_did_not_ask_is_told_no_usage() -> None:
    events = unfolded(Dialect.CHAT, json.dumps(COMPLETION).encode(), usage=False)
    assert events is not None and b'"usage"' not in events and events.endswith(b"data: [DONE]\n\n")


def test_pieces_of_a_message_are_put_together() -> None:
    start = {**MESSAGE, "content": [], "usage": {"input_tokens": 7, "output_tokens": 1}}
    told: list[dict[str, Any]] = [{"type": "message_start", "message": start}, {"type": "ping"}]
    told.append({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "F"}})
    told += [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
        for text in ("ull", "")
    ]
    told.append({"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "input": {"a": 1}}})
    told.append({"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "input": {}}})
    told += [
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": text}}
        for text in ("", '{"b":', "2.50}")
    ]
    told.append(
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9, "x": None}}
    )
    found = folded(Dialect.MESSAGES, b"".join(map(named, told)))
    assert found["content"] == [
        {"type": "text", "text": "Full"},
        {"type": "tool_use", "input": {"a": 1}},
        {"type": "tool_use", "input": {"b": 2.5}},
    ]
    assert (found["stop_reason"], found["usage"]) == ("end_turn", {"input_tokens": 7, "output_tokens": 9})


@pytest.mark.parametrize("places", [(0, 0, 1), (None, None, None), (0, 0, 0)])
def test_calls_of_a_completion_are_told_apart(places: tuple[int | None, ...]) -> None:
    def piece(place: int | None, arguments: str, **more: Any) -> bytes:
        call = {**({} if place is None else {"index": place}), "function": {"arguments": arguments, **more}}
        if more:
            call |= {"id": f"call_{more['name']}", "type": "function"}
        return sse(
            {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}
        )

    raw = piece(places[0], "", name="moon") + piece(places[1], '{"a":1}')
    raw += piece(places[2], "{", name="tide") + piece(places[2], "}")
    (choice,) = folded(Dialect.CHAT, raw + sse("[DONE]"))["choices"]
    found = [(call["id"], call["function"]["arguments"]) for call in choice["message"]["tool_calls"]]
    assert found == [("call_moon", '{"a":1}'), ("call_tide", "{}")]


def test_what_grows_is_not_copied_with_each_event() -> None:
    """A stream of a million small events would keep the loop busy for minutes."""
    delta = {"content": "a", "notes": ["n"], "tool_calls": [{"index": 0, "function": {"arguments": "{"}}]}
    known: dict[str, Any] = {}
    for _ in range(2):
        grow(known, deepcopy(delta))
    before = dict(known)
    grow(known, deepcopy(delta))
    assert all(known[name] is before[name] for name in known)
    assert json.loads(msgspec.json.encode(known, enc_hook=grown)) == {
        "content": "aaa", "notes": ["n"] * 3, "tool_calls": [{"function": {"arguments": "{{{"}}],
    }  # fmt: skip
    parts: list[Any] = [{"text": "a"}]
    go_on(parts, [{"text": "b"}, {"functionCall": {}}, {"text": "c"}])
    text = parts[0]["text"]
    go_on(parts[:1], [{"text": "d"}])
    assert text is parts[0]["text"] and grown(text) == "abd" and len(parts) == 3


@pytest.mark.parametrize(
    "delta",
    [{"content": 1}, {"tool_calls": "x"}, {"tool_calls": [1, {"index": [], "id": {}}]}, {"content": {"a": 1}}, []],
)
def test_pieces_of_no_known_form_break_nothing(delta: Any) -> None:
    usual = {"index": 0, "delta": {"content": "a", "tool_calls": [{"index": 0, "id": "c"}]}}
    odd = [usual, {"index": 0, "delta": delta}, {"index": 0, "message": "m"}, usual]
    found = folded(Dialect.CHAT, b"".join(sse({"choices": [choice]}) for choice in odd))
    assert found["choices"][0]["message"]


def test_google_s_events_as_one_answer_and_as_a_list() -> None:
    pieces = [{"text": "Fu"}, {"text": "ll "}, {"text": "", "thoughtSignature": "S"}, {"text": "moon."}]
    told: list[Any] = [{"candidates": [{"content": {"role": "model", "parts": [piece]}}]} for piece in pieces]
    told[0]["usageMetadata"] = {"promptTokenCount": 7}
    told[-1]["candidates"][0]["finishReason"] = "STOP"
    raw = b"".join(map(sse, told))
    assert folded(Dialect.GEMINI, raw, listed=True) == told
    found = folded(Dialect.GEMINI, raw)
    (candidate,) = found["candidates"]
    assert candidate["content"]["parts"] == [{"text": "Full "}, pieces[2], pieces[3]]
    assert (candidate["finishReason"], found["usageMetadata"]) == ("STOP", {"promptTokenCount": 7})
    assert unfolded(Dialect.GEMINI, json.dumps(told).encode(), usage=False) is not None


@pytest.mark.parametrize("dialect", list(Dialect))
@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"7", b"null", b"<html>", b'{"error":{"message":"m"}}', b'[{"error":1}]']
)
def test_what_is_no_answer_has_no_events(dialect: Dialect, body: bytes) -> None:
    found = unfolded(dialect, body, usage=True)
    assert found is None or (dialect in (Dialect.GEMINI, Dialect.CODE_ASSIST) and found == b"data: {}\n\n")
    assert folded(dialect, b"data: " + body + b"\n\n") in (None, json.loads(body) if b'{"error"' in body[:9] else None)
