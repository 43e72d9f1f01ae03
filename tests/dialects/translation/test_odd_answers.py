"""Answers of compatible endpoints in the forms that public reports show: reasons with every chunk, messages in place of
deltas, reasoning under other names, errors under other names, arguments that were put together wrongly."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pool_server.core.enums import Dialect
from pool_server.dialects.translation import UpstreamKind
from tests.dialects.streams import sse
from tests.dialects.translation.grammar import Heard, hear, hear_whole
from tests.dialects.translation.kit import request, translate

CLIENTS = (Dialect.RESPONSES, Dialect.MESSAGES, Dialect.GEMINI)
each_client = pytest.mark.parametrize("client", CLIENTS)
DONE = sse("[DONE]")
CALL = {"index": 0, "id": "call_a", "type": "function", "function": {"name": "moon", "arguments": '{"a":1}'}}


def chunk(delta: Any = None, finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    choice = {"index": index, "delta": {} if delta is None else delta, "finish_reason": finish}
    return sse({"id": "c", "model": "m", "choices": [choice], **more})


def heard(client: Dialect, *pieces: bytes) -> Heard:
    body = request(client, [("user", "?")], tools=("moon", "tide"), stream=True)
    told = translate(client, UpstreamKind.CHAT, body, stream=True).response
    return hear(client, b"".join(map(told.feed, pieces)) + told.finish())


def whole(client: Dialect, *messages: dict[str, Any], finish: str = "stop", **more: Any) -> Heard:
    told = translate(client, UpstreamKind.CHAT, request(client, [("user", "?")], tools=("moon",))).response
    choices = [{"index": at, "message": one, "finish_reason": finish} for at, one in enumerate(messages)]
    return hear_whole(client, told.whole(json.dumps({"id": "c", "choices": choices, **more}).encode()))


@each_client
@pytest.mark.parametrize("word", ["null", "stop", "Null", "NONE"])
def test_an_answer_goes_on_behind_a_reason_to_stop(client: Dialect, word: str) -> None:
    found = heard(client, chunk({"content": "Full "}, word), chunk({"content": "moon."}, word), chunk({}, "stop"), DONE)
    assert found.error is None and found.texts() == "Full moon."
    found = heard(client, chunk({"content": "Hm."}, word), chunk({"tool_calls": [CALL]}, "tool_calls"), DONE)
    assert found.calls() == [("moon", {"a": 1})]


@each_client
def test_the_word_null_ends_nothing(client: Dialect) -> None:
    assert heard(client, chunk({"content": "Full mo"}, "null")).error is not None


@pytest.mark.parametrize("first", ["length", "content_filter"])
def test_a_reason_that_says_more_than_stop_counts(first: str) -> None:
    found = heard(Dialect.MESSAGES, chunk({"content": "Full"}, first), chunk({}, "stop"), DONE)
    assert found.finish == {"length": "max_tokens", "content_filter": "refusal"}[first]


@each_client
@pytest.mark.parametrize("pieces", [['{"a":', "1}"], ['{"a":1}']])
def test_a_call_of_the_first_form_is_told(client: Dialect, pieces: list[str]) -> None:
    deltas = [{"function_call": {"name": "moon", "arguments": ""}}]
    deltas += [{"function_call": {"arguments": piece}} for piece in pieces]
    assert heard(client, *map(chunk, deltas), chunk({}, "function_call"), DONE).calls() == [("moon", {"a": 1})]
    message = {"content": None, "function_call": {"name": "moon", "arguments": '{"a":1}'}}
    assert whole(client, message, finish="function_call").calls() == [("moon", {"a": 1})]


@each_client
@pytest.mark.parametrize("field", ["message", "text"])
def test_an_answer_in_one_piece_within_a_stream_is_told(client: Dialect, field: str) -> None:
    value: Any = {"role": "assistant", "content": "Full moon."} if field == "message" else "Full moon."
    one = sse({"id": "c", "choices": [{"index": 0, field: value, "finish_reason": "stop"}]})
    assert heard(client, one, DONE).texts() == "Full moon."
    assert heard(client, chunk({"content": "Full moon."}), one, DONE).texts() == "Full moon.", "told once"


THOUGHTS: list[dict[str, Any]] = [
    {"reasoning_text": "Hm."},
    {"thinking": "Hm."},
    {"reasoning_details": [{"type": "reasoning.text", "text": "Hm."}]},
    {"reasoning_details": [{"type": "reasoning.summary", "summary": "Hm."}]},
    {"reasoning": "Hm.", "reasoning_details": [{"type": "reasoning.text", "text": "Hm."}]},
]


@each_client
@pytest.mark.parametrize("thought", THOUGHTS)
def test_reasoning_is_told_under_whatever_name(client: Dialect, thought: dict[str, Any]) -> None:
    found = heard(client, chunk(thought), chunk({"content": "Full moon."}), chunk({}, "stop"), DONE)
    assert (found.texts("think"), found.texts()) == ("Hm.", "Full moon.")
    found = whole(client, {**thought, "content": "Full moon."})
    assert (found.texts("think"), found.texts()) == ("Hm.", "Full moon.")


@each_client
def test_calls_in_a_choice_of_their_own_are_of_the_same_answer(client: Dialect) -> None:
    """As Copilot's endpoint has them of Claude."""
    call = {key: value for key, value in CALL.items() if key != "index"}
    found = whole(client, {"content": "I look."}, {"tool_calls": [call]}, finish="tool_calls")
    assert (found.texts(), found.calls()) == ("I look.", [("moon", {"a": 1})])
    apart = [chunk({"content": "I look."}), chunk({"tool_calls": [CALL]}, "tool_calls", 1), chunk({}, "stop"), DONE]
    found = heard(client, *apart)
    assert (found.texts(), found.calls()) == ("I look.", [("moon", {"a": 1})])


EMPTY: list[Any] = [None, {}, "", {"message": "", "type": "", "param": "", "code": None}]


@each_client
@pytest.mark.parametrize("error", EMPTY)
def test_an_error_that_says_nothing_is_none(client: Dialect, error: Any) -> None:
    found = heard(client, chunk({"content": "Full moon."}, error=error), chunk({}, "stop"), DONE)
    assert found.error is None and found.texts() == "Full moon."
    assert whole(client, {"content": "Full moon."}, error=error).texts() == "Full moon."


ERRORS = [
    b'error: {"code":500,"message":"It died.","type":"server_error"}\n\n',
    b'event: error\ndata: "It died."\n\n',
    b"event: error\ndata: It died.\n\n",
    b'event: error\ndata: {"message":"It died."}\n\n',
    chunk({}, x_groq={"id": "r", "error": "It died."}),
    sse({"id": "", "choices": None, "base_resp": {"status_code": 1008, "status_msg": "It died."}}),
]


@each_client
@pytest.mark.parametrize("error", ERRORS)
def test_an_error_is_told_in_its_own_words(client: Dialect, error: bytes) -> None:
    assert "It died." in json.dumps(heard(client, chunk({"content": "Full mo"}), error).error)


ARGUMENTS = [
    ["null"],
    ["nu", "ll"],
    ["{}", '{"a"', ":1}"],
    ['{"a":', "1}", '{"a":1}'],
    ['{"a":1}', '{"a": 1}'],
    ['"{\\"a\\":', '1}"'],
    ["  ", '{"a"', ":1}"],
    ["{ ", '"a":1}'],
    ["{}"],
    ["{}", "{}"],
]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("pieces", ARGUMENTS)
def test_arguments_are_the_object_they_stand_for(client: Dialect, pieces: list[str]) -> None:
    want = {"a": 1} if "a" in "".join(pieces) else {}
    deltas: list[dict[str, Any]] = [
        {"tool_calls": [{"index": 0, "function": {"arguments": piece}, **({"id": "call_a"} if not at else {})}]}
        for at, piece in enumerate(pieces)
    ]
    deltas[0]["tool_calls"][0]["function"]["name"] = "moon"
    found = heard(client, *map(chunk, deltas), chunk({}, "tool_calls"), DONE)
    assert found.error is None and found.calls() == [("moon", want)]
    call = {"id": "call_a", "type": "function", "function": {"name": "moon", "arguments": "".join(pieces)}}
    assert whole(client, {"content": None, "tool_calls": [call]}, finish="tool_calls").calls() == [("moon", want)]


@pytest.mark.parametrize("said", ['{"a":1}{"b":2}', '{"a"', "[1]", "1", '"no object"'])
def test_arguments_that_stand_for_nothing_else_stay_as_they_are(said: str) -> None:
    call = {**CALL, "function": {"name": "moon", "arguments": said}}
    told = translate(Dialect.RESPONSES, UpstreamKind.CHAT, request(Dialect.RESPONSES, [("user", "?")], tools=("moon",)))
    answer = {"choices": [{"message": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}
    found = json.loads(told.response.whole(json.dumps(answer).encode()))
    assert found["output"][0]["arguments"] == said
    assert heard(Dialect.MESSAGES, chunk({"tool_calls": [call]}), chunk({}, "tool_calls"), DONE).error is not None


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", [UpstreamKind.MESSAGES, UpstreamKind.RESPONSES])
def test_a_client_of_functions_gets_its_call_as_one(kind: UpstreamKind, stream: bool) -> None:
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "?"}],
        "functions": [{"name": "moon", "parameters": {"type": "object", "properties": {}}}],
        "function_call": {"name": "moon"},
        "stream": stream,
    }
    told = translate(Dialect.CHAT, kind, body, stream=stream)
    if kind is UpstreamKind.MESSAGES:
        calls: list[Any] = [{"type": "tool_use", "id": f"t{n}", "name": "moon", "input": {"a": n}} for n in (1, 2)]
        answer: dict[str, Any] = {"type": "message", "content": calls, "stop_reason": "tool_use"}
    else:
        calls = [
            {"type": "function_call", "call_id": f"t{n}", "name": "moon", "arguments": json.dumps({"a": n})}
            for n in (1, 2)
        ]
        answer = {"status": "completed", "output": calls}
    found = told.response.whole(json.dumps(answer).encode())
    if not stream:
        (choice,) = json.loads(found)["choices"]
        call = choice["message"]["function_call"]
        assert choice["finish_reason"] == "function_call" and "tool_calls" not in choice["message"]
    else:
        choices = [json.loads(line[6:])["choices"] for line in found.split(b"\n\n")[:-2]]
        pieces = [one["delta"]["function_call"] for (one,) in filter(None, choices) if "function_call" in one["delta"]]
        call = {"name": pieces[0]["name"], "arguments": "".join(piece["arguments"] for piece in pieces)}
        assert b'"function_call"}' in found and b"tool_calls" not in found
    assert (call["name"], json.loads(call["arguments"])) == ("moon", {"a": 1})
