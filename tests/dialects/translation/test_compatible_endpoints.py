"""How compatible endpoints write what OpenAI's and Anthropic's own write otherwise: calls without an index or with one
for all, contents in parts, words of their own for an answer's end, or none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pool_server.core.enums import Dialect
from pool_server.dialects.translation import UpstreamKind
from tests.dialects.streams import named, sse
from tests.dialects.translation.grammar import Heard, hear, hear_whole
from tests.dialects.translation.kit import request, translate, up

CLIENTS = (Dialect.RESPONSES, Dialect.MESSAGES, Dialect.GEMINI)
DONE = sse("[DONE]")
each_client = pytest.mark.parametrize("client", CLIENTS)


def chunk(delta: Any, finish: str | None = None) -> bytes:
    return sse({"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def piece(arguments: str, name: str = "", ident: str = "", **more: Any) -> bytes:
    call = {
        **({"id": ident} if ident else {}),
        "function": {"arguments": arguments, **({"name": name} if name else {})},
    }
    return chunk({"tool_calls": [{**call, **more}]})


def heard(client: Dialect, pieces: list[bytes], kind: UpstreamKind = UpstreamKind.CHAT) -> Heard:
    body = request(client, [("user", "?")], tools=("moon", "tide"), stream=True)
    told = translate(client, kind, body, stream=True).response
    return hear(client, b"".join(map(told.feed, pieces)) + told.finish())


@each_client
@pytest.mark.parametrize("ident", ["call_a", ""])
def test_a_piece_without_index_and_id_goes_on_with_the_last_call(client: Dialect, ident: str) -> None:
    pieces = [piece("", "moon", ident), piece('{"a":'), piece("1}"), piece('{"b":2}', "tide", ident and "call_b")]
    calls = heard(client, [*pieces, chunk({}, "tool_calls"), DONE]).calls()
    assert calls == [("moon", {"a": 1}), ("tide", {"b": 2})]


@each_client
def test_calls_that_share_an_index_are_told_apart_by_their_ids(client: Dialect) -> None:
    pieces = [piece('{"a":1}', "moon", "call_a", index=0), piece("", "tide", "call_b", index=0)]
    pieces += [piece('{"b":2}', index=0), piece('{"c":3}', "moon", "call_c", index=0)]
    calls = heard(client, [*pieces, chunk({}, "tool_calls"), DONE]).calls()
    assert calls == [("moon", {"a": 1}), ("tide", {"b": 2}), ("moon", {"c": 3})]


@each_client
def test_another_id_without_a_name_begins_no_call(client: Dialect) -> None:
    """Some endpoints make up an id for every piece."""
    pieces = [piece('{"a"', "moon", "call_a", index=0), piece(":1}", ident="call_b", index=0)]
    assert heard(client, [*pieces, chunk({}, "tool_calls"), DONE]).calls() == [("moon", {"a": 1})]


PARTS = [
    {"type": "thinking", "thinking": [{"type": "text", "text": "Hm. "}, {"type": "text", "text": "So."}]},
    {"type": "text", "text": "Full moon."},
    {"type": "reference", "reference_ids": [1]},
]


@each_client
def test_a_content_in_parts_is_text_and_reasoning(client: Dialect) -> None:
    found = heard(client, [chunk({"content": PARTS[:1]}), chunk({"content": PARTS[1:]}), chunk({}, "stop"), DONE])
    assert (found.texts("think"), found.texts()) == ("Hm. So.", "Full moon.")
    answer = {"id": "c", "choices": [{"message": {"content": PARTS}, "finish_reason": "stop"}]}
    told = translate(client, UpstreamKind.CHAT, request(client, [("user", "?")])).response
    found = hear_whole(client, told.whole(json.dumps(answer).encode()))
    assert (found.texts("think"), found.texts()) == ("Hm. So.", "Full moon.")


@each_client
def test_an_end_that_is_said_without_a_reason_is_one(client: Dialect) -> None:
    found = heard(client, [chunk({"content": "Full moon."}), DONE])
    assert found.error is None and found.texts() == "Full moon."
    found = heard(client, [piece('{"a":1}', "moon", "call_a", index=0), DONE])
    assert found.error is None and found.calls() == [("moon", {"a": 1})]
    assert heard(client, [chunk({"content": "Full mo"})]).error is not None


@pytest.mark.parametrize("client", [Dialect.CHAT, Dialect.RESPONSES])
def test_a_message_that_stops_without_a_reason_is_whole(client: Dialect) -> None:
    pieces: list[dict[str, Any]] = [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Full moon."}},
        {"type": "message_delta", "delta": {"stop_reason": None}},
        {"type": "message_stop"},
    ]
    found = heard(client, list(map(named, pieces)), UpstreamKind.MESSAGES)
    assert found.error is None and found.texts() == "Full moon."


@pytest.mark.parametrize(
    ("word", "stop"),
    [("model_length", "max_tokens"), ("MAX_TOKENS", "max_tokens"), ("sensitive", "refusal"), ("tool_use", "end_turn")],
)
def test_an_endpoints_own_word_for_the_end(word: str, stop: str) -> None:
    assert heard(Dialect.MESSAGES, [chunk({"content": "Full"}), chunk({}, word), DONE]).finish == stop


@each_client
@pytest.mark.parametrize("word", ["network_error", "insufficient_system_resource", "error"])
def test_an_answer_its_endpoint_gave_up_is_no_whole_one(client: Dialect, word: str) -> None:
    assert heard(client, [chunk({"content": "Full mo"}), chunk({}, word), DONE]).error is not None


@each_client
def test_an_error_object_within_the_stream_is_told(client: Dialect) -> None:
    error = sse({"object": "error", "message": "The engine died.", "type": "InternalServerError", "code": 500})
    found = heard(client, [chunk({"content": "Full mo"}), error, DONE])
    assert "The engine died." in json.dumps(found.error)


CHAT_UP = pytest.mark.parametrize("kind", [UpstreamKind.MESSAGES, UpstreamKind.GEMINI, UpstreamKind.RESPONSES])


@CHAT_UP
@pytest.mark.parametrize("mime", ["image/jpg", "image/JPEG", "image/pjpeg"])
def test_a_picture_s_type_is_spelt_as_vendors_take_it(kind: UpstreamKind, mime: str) -> None:
    picture = {"type": "image_url", "image_url": {"url": f"data:{mime};base64,/9j/4AAQ"}}
    body = {"model": "m", "messages": [{"role": "user", "content": [picture]}]}
    told = json.dumps(up(Dialect.CHAT, kind, body))
    assert "image/jpeg" in told and (mime in told) is (mime == "image/jpeg")


@CHAT_UP
def test_a_tool_that_is_offered_twice_goes_up_once(kind: UpstreamKind) -> None:
    told = up(Dialect.CHAT, kind, request(Dialect.CHAT, [("user", "?")], tools=("moon", "tide", "moon")))
    assert json.dumps(told["tools"]).count('"moon"') == 1 and '"tide"' in json.dumps(told["tools"])


def block_start(index: int, name: str, given: Any) -> bytes:
    block = {"type": "tool_use", "id": f"toolu_{index}", "name": name, "input": given}
    return named({"type": "content_block_start", "index": index, "content_block": block})


def block_piece(index: int, text: str) -> bytes:
    delta = {"type": "input_json_delta", "partial_json": text}
    return named({"type": "content_block_delta", "index": index, "delta": delta})


END = [named({"type": "message_delta", "delta": {"stop_reason": "tool_use"}}), named({"type": "message_stop"})]
FROM_MESSAGES = pytest.mark.parametrize("client", [Dialect.CHAT, Dialect.RESPONSES, Dialect.GEMINI])


@FROM_MESSAGES
@pytest.mark.parametrize("pieces", [[], [""], ['{"a":', "1}"]], ids=["none", "empty", "repeated"])
@pytest.mark.parametrize("stops", [True, False])
def test_arguments_at_a_call_s_start_are_told_once(client: Dialect, pieces: list[str], stops: bool) -> None:
    told = [block_start(0, "moon", {"a": 1}), *(block_piece(0, piece) for piece in pieces)]
    told += [named({"type": "content_block_stop", "index": 0})] if stops else []
    told += [block_start(1, "tide", {}), block_piece(1, '{"b":2}'), *END]
    assert heard(client, told, UpstreamKind.MESSAGES).calls() == [("moon", {"a": 1}), ("tide", {"b": 2})]


@each_client
@pytest.mark.parametrize(
    "name", ["default_api:moon", "default_api.moon", "functions.moon", "moon<|channel|>commentary", "moon ", "moon"]
)
def test_what_models_write_around_a_tool_s_name_is_not_told(client: Dialect, name: str) -> None:
    pieces = [piece('{"a":1}', name, "call_a", index=0), chunk({}, "tool_calls"), DONE]
    assert heard(client, pieces).calls() == [("moon", {"a": 1})]


@each_client
@pytest.mark.parametrize("name", ["functions.sun", "moonlight", "default_api:", "a:moon"])
def test_a_name_of_no_tool_that_is_offered_stays(client: Dialect, name: str) -> None:
    pieces = [piece('{"a":1}', name, "call_a", index=0), chunk({}, "tool_calls"), DONE]
    assert heard(client, pieces).calls() == [(name, {"a": 1})]


def test_a_name_that_was_shortened_is_found_behind_its_namespace() -> None:
    long = "moon" * 20
    body = request(Dialect.MESSAGES, [("user", "?")], tools=(long,), stream=True)
    told = translate(Dialect.MESSAGES, UpstreamKind.GEMINI, body)
    short = json.loads(told.body)["tools"][0]["functionDeclarations"][0]["name"]
    parts = [{"functionCall": {"name": f"default_api:{short}", "args": {}}}]
    event = sse({"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]})
    found = hear(Dialect.MESSAGES, told.response.feed(event) + told.response.finish())
    assert found.calls() == [(long, {})]


@pytest.mark.parametrize("client", [Dialect.CHAT, Dialect.RESPONSES, Dialect.MESSAGES])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("kind", [UpstreamKind.GEMINI, UpstreamKind.CODE_ASSIST])
def test_events_of_google_s_in_one_list_are_an_answer(client: Dialect, stream: bool, kind: UpstreamKind) -> None:
    said: list[dict[str, Any]] = [
        {"candidates": [{"content": {"parts": [{"text": piece}]}, **end}]}
        for piece, end in (("Full ", {}), ("moon.", {"finishReason": "STOP"}))
    ]
    if kind is UpstreamKind.CODE_ASSIST:
        said = [{"response": one} for one in said]
    told = translate(client, kind, request(client, [("user", "?")], stream=stream)).response
    hears = hear if stream else hear_whole
    assert hears(client, told.whole(json.dumps(said).encode())).texts() == "Full moon."
    told = translate(client, kind, request(client, [("user", "?")], stream=stream)).response
    told.whole(b'[{"error": {"code": 429, "message": "Out.", "status": "RESOURCE_EXHAUSTED"}}]')
    assert told.fault is not None and (told.fault.status, told.fault.message) == (429, "Out.")


@FROM_MESSAGES
def test_a_whole_message_is_one_without_a_reason_and_with_a_plain_text(client: Dialect) -> None:
    for content in ("Full moon.", [{"type": "text", "text": "Full moon."}]):
        answer = {"id": "m", "type": "message", "content": content, "stop_reason": None}
        told = translate(client, UpstreamKind.MESSAGES, request(client, [("user", "?")])).response
        found = hear_whole(client, told.whole(json.dumps(answer).encode()))
        assert (found.texts(), told.fault) == ("Full moon.", None)
    told = translate(client, UpstreamKind.MESSAGES, request(client, [("user", "?")])).response
    told.whole(b'{"id": "m", "type": "message", "content": [], "stop_reason": null}')
    assert told.fault is not None


@pytest.mark.parametrize("client", [Dialect.CHAT, Dialect.MESSAGES])
def test_usage_beside_code_assist_s_envelope_is_told(client: Dialect) -> None:
    usage = {"promptTokenCount": 7, "candidatesTokenCount": 5, "totalTokenCount": 12}
    inner = {"candidates": [{"content": {"parts": [{"text": "Hi."}]}, "finishReason": "STOP"}]}
    told = translate(client, UpstreamKind.CODE_ASSIST, request(client, [("user", "?")])).response
    answer = json.loads(told.whole(json.dumps({"response": inner, "usageMetadata": usage}).encode()))
    counts = answer["usage"]
    assert (counts.get("input_tokens", counts.get("prompt_tokens")), answer["id"] != "") == (7, True)
