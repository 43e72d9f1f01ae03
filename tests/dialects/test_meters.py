"""Meters: what each client protocol's answers used, ended with and failed with."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_server.core.enums import Dialect, Operation, Signal
from pool_server.core.models import Usage
from pool_server.dialects import Meter, frame_meter, meter
from pool_server.dialects.meters import _READERS, JSON_CAP, StreamMeter
from tests.dialects import streams
from tests.dialects.streams import MODEL, OPERATION, USAGE, named, run, signals, sse, stream

ALL = list(Dialect)
N, R, T, F, L, U = Signal.NONE, Signal.RENDERED, Signal.TERMINAL, Signal.FAULT, Signal.LIMITS, Signal.USAGE


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("dialect", ALL)
def test_a_stream_is_counted_however_it_was_cut(dialect: Dialect, end: str) -> None:
    data = stream(dialect, end)
    for size in (1, 2, 3, 17, len(data)):
        reading, found = run(dialect, [data[at : at + size] for at in range(0, len(data), size)])
        assert reading.usage == USAGE[dialect]
        assert (reading.model, reading.response_id) == MODEL[dialect]
        assert reading.complete and reading.fault is None and reading.at_boundary
        assert found == (R | T | U if dialect is Dialect.CHAT else R | T)


@pytest.mark.parametrize("dialect", ALL)
@settings(max_examples=40)
@given(data=st.data())
def test_cuts_at_random_places(dialect: Dialect, data: st.DataObject) -> None:
    whole = stream(dialect)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    places = [0, *cuts, len(whole)]
    reading, found = run(dialect, [whole[a:b] for a, b in pairwise(places)])
    assert reading.usage == USAGE[dialect] and reading.complete
    assert found == (R | T | U if dialect is Dialect.CHAT else R | T)


@pytest.mark.parametrize("dialect", ALL)
def test_a_cut_stream_is_not_complete(dialect: Dialect) -> None:
    data = stream(dialect)
    events = data.split(b"\n\n")
    last = {Dialect.CHAT: 4, Dialect.MESSAGES: 3}.get(dialect, 2)  # before the reason of the end
    reading, found = run(dialect, [b"\n\n".join(events[:-last]) + b"\n\n"])
    assert not reading.complete and not found & T


def test_bookkeeping_is_held_until_something_is_shown() -> None:
    found = signals(Dialect.RESPONSES, [named(event) for event in streams.responses()])
    assert found == [N, N, R, R, R, R, R | T]
    found = signals(Dialect.MESSAGES, [named(event) for event in streams.messages()])
    assert found == [N, R, N, R, R, R, R | T]
    found = signals(Dialect.CHAT, [sse(event) for event in streams.chat()] + [sse("[DONE]")])
    assert found == [N, R, R, R, R | U, R | T]
    empty = {"candidates": [{"content": {"role": "model", "parts": []}}], "usageMetadata": {"promptTokenCount": 1}}
    found = signals(Dialect.GEMINI, [sse(event) for event in [empty, *streams.gemini()]])
    assert found == [N, R, R, R | T]
    held: list[dict[str, Any]] = [
        {"type": "response.queued"},
        {"type": "response.metadata", "metadata": {"type": "safety_buffering"}},
        {"type": "codex.response.metadata"},
        {"type": "codex.something_new"},
        {"type": "keepalive"},
        {"type": "ping"},
    ]
    assert signals(Dialect.RESPONSES, [named(event) for event in held] + [b": note\n\n", b"\n"]) == [N] * 8


def test_rate_limits_are_never_the_end() -> None:
    event = {"type": "codex.rate_limits", "plan_type": "plus", "rate_limits": {}, "limit_reached": True}
    reading = meter(Dialect.RESPONSES, Operation.RESPONSES, stream=True)
    assert reading.feed(named(event)) == L
    assert [json.loads(raw) for raw in reading.limits] == [event]
    assert not reading.complete and reading.fault is None
    reading.limits.clear()
    assert reading.feed(stream(Dialect.RESPONSES)) == R | T and reading.limits == []


def test_the_type_is_found_wherever_it_stands() -> None:
    reordered = [dict(reversed(event.items())) for event in streams.responses()]
    reading, found = run(Dialect.RESPONSES, [sse(event) for event in reordered])
    assert reading.usage == USAGE[Dialect.RESPONSES] and found == R | T
    bare = {k: v for k, v in streams.responses()[-1].items() if k != "type"}
    reading, found = run(Dialect.RESPONSES, [sse(bare, "response.completed")])
    assert reading.complete and reading.usage.known
    pretty = b'event: message_delta\nid: 3\ndata: {\ndata:  "type": "message_delta", "usage": {"output_tokens": 9}}\n\n'
    reading, _ = run(Dialect.MESSAGES, [pretty])
    assert reading.usage.output == 9
    reading, found = run(Dialect.MESSAGES, [sse({"index": 0}, "message_stop")])
    assert reading.complete and found == R | T


@pytest.mark.parametrize("end", ["response.incomplete", "response.done", "response.cancelled"])
def test_other_ends_of_a_response(end: str) -> None:
    reading, found = run(Dialect.RESPONSES, [named(event) for event in streams.responses(end)])
    assert reading.complete and reading.usage == USAGE[Dialect.RESPONSES] and found == R | T


@pytest.mark.parametrize("end", ["response.failed", "response.done"])
def test_a_failed_response_is_a_fault_and_its_usage_counts(end: str) -> None:
    error = {"code": "server_is_overloaded", "message": "busy"}
    events = streams.responses(end, status="failed", error=error)
    reading, found = run(Dialect.RESPONSES, [named(event) for event in events])
    assert found == R | F and not reading.complete
    assert reading.usage == USAGE[Dialect.RESPONSES]
    assert reading.fault is not None
    assert (reading.fault[0], json.loads(reading.fault[1])) == (503, {"error": error})


@pytest.mark.parametrize("response", ["text", 7, {"output": "none"}, {"output": [None, 4]}, {"output": {"a": 1}}, []])
def test_an_end_of_another_shape_is_an_end(response: Any) -> None:
    """What reads the same event to translate it takes it for the end, and the client has been told so."""
    reading, found = run(Dialect.RESPONSES, [named({"type": "response.completed", "response": response})])
    assert reading.complete and found == R | T
    reading, found = run(Dialect.RESPONSES, [named({"type": "response.failed", "response": response})])
    assert not reading.complete and found == F
    reading, found = run(
        Dialect.RESPONSES, [b'event: response.completed\ndata: {"type":"response.completed", nonsense\n\n']
    )
    assert not reading.complete


FAULTS: list[tuple[dict[str, Any], int, dict[str, Any]]] = [
    (
        {
            "type": "response.failed",
            "response": {"error": {"code": "rate_limit_exceeded", "message": "try again in 2s"}},
        },
        429,
        {"code": "rate_limit_exceeded", "message": "try again in 2s"},
    ),
    ({"type": "error", "code": "cyber_policy", "message": "no", "param": None}, 400, {"code": "cyber_policy"}),
    (
        {"type": "error", "status": 429, "error": {"type": "usage_limit_reached", "resets_at": 5}},
        429,
        {"resets_at": 5},
    ),
    ({"type": "error", "status_code": 401, "error": {"message": "out"}}, 401, {"message": "out"}),
    ({"type": "error", "body": {"error": {"type": "not_found"}}}, 404, {"type": "not_found"}),
    ({"type": "error", "error": "plain words"}, 502, {"message": "plain words"}),
    ({"type": "error", "error": {"code": "something_new"}}, 502, {"code": "something_new"}),
]


@pytest.mark.parametrize(("event", "status", "part"), FAULTS)
def test_faults_of_a_responses_stream_and_socket(event: dict[str, Any], status: int, part: dict[str, Any]) -> None:
    reading, found = run(Dialect.RESPONSES, [named(event)])
    socket = frame_meter()
    assert found == F and socket.feed(json.dumps(event)) == F
    for fault in (reading.fault, socket.fault):
        assert fault is not None and fault[0] == status
        assert part.items() <= json.loads(fault[1])["error"].items()


@pytest.mark.parametrize(
    ("kind", "status"),
    [("overloaded_error", 529), ("rate_limit_error", 429), ("api_error", 500), ("new_error", 500)],
)
def test_faults_of_a_message(kind: str, status: int) -> None:
    error = {"type": "error", "error": {"type": kind, "message": "m"}}
    reading, found = run(Dialect.MESSAGES, [named(streams.messages()[0]), named(error)])
    assert found == F and reading.usage.cache_read == 900
    assert reading.fault == (status, json.dumps(error).encode())


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"error": {"message": "m", "type": "server_error", "code": None}}, 500),
        ({"error": {"message": "m", "code": 429}}, 429),
        ({"error": {"message": "m", "code": "limit_burst_rate"}}, 429),
        ({"error": "words"}, 500),
        ({"object": "error", "message": "m", "type": "InternalServerError", "code": 500}, 500),
    ],
)
@pytest.mark.parametrize("before", [0, 2])
def test_faults_of_a_completion(error: dict[str, Any], status: int, before: int) -> None:
    chunks = [sse(event) for event in streams.chat()[:before]]
    reading, found = run(Dialect.CHAT, [*chunks, sse(error)])
    assert found & F and reading.fault == (status, json.dumps(error).encode())


def test_a_fault_of_dashscope_may_have_no_error_object() -> None:
    error = {"code": "Throttling", "message": "m", "request_id": "r"}
    reading, found = run(Dialect.CHAT, [sse(error)])
    assert found == F and reading.fault == (429, json.dumps(error).encode())


def test_faults_of_gemini() -> None:
    error = {"error": {"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED"}}
    for dialect, shape in ((Dialect.GEMINI, error), (Dialect.CODE_ASSIST, {"response": error})):
        first = streams.gemini(wrapped=dialect is Dialect.CODE_ASSIST)[0]
        reading, found = run(dialect, [sse(first), sse(shape)])
        assert found == R | F and reading.fault == (429, json.dumps(shape).encode())
    reading, found = run(Dialect.GEMINI, [sse({"error": {"status": "UNAVAILABLE"}})])
    assert reading.fault is not None and reading.fault[0] == 503


def test_words_of_the_model_are_not_taken_for_events() -> None:
    tricky = '"error":{"usage":{"finish_reason":"stop","finishReason":"STOP"}} data: [DONE]\n\nevent: error'
    events = streams.chat()
    events[1]["choices"][0]["delta"]["content"] = tricky
    reading, found = run(Dialect.CHAT, [sse(event) for event in events[:2]])
    assert found == R and not reading.complete and reading.fault is None and not reading.usage.known
    chunks = streams.gemini()
    chunks[1]["candidates"][0]["content"]["parts"] = [{"text": tricky}, {"functionCall": {"args": {"error": "x"}}}]
    reading, found = run(Dialect.GEMINI, [sse(chunk) for chunk in chunks[:2]])
    assert found == R and not reading.complete and reading.fault is None
    delta = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": tricky}}
    reading, found = run(Dialect.MESSAGES, [named(delta)])
    assert found == R and reading.fault is None


def test_a_completion_without_done_is_whole_when_it_finished() -> None:
    reading, found = run(Dialect.CHAT, [sse(event) for event in streams.chat()])
    assert reading.complete and reading.usage == USAGE[Dialect.CHAT] and not found & T
    reading, _ = run(Dialect.CHAT, [sse(event) for event in streams.chat()[:3]])
    assert not reading.complete
    empty = streams.chat()[:3]
    for event in empty:
        event["choices"][0]["finish_reason"] = ""
    reading, _ = run(Dialect.CHAT, [sse(event) for event in empty])
    assert not reading.complete


def test_running_usage_in_every_chunk_is_not_summed() -> None:
    events = streams.chat(usage=False)
    for n, event in enumerate(events):
        event["usage"] = {"prompt_tokens": 10, "completion_tokens": n}
    reading, _ = run(Dialect.CHAT, [sse(event) for event in events[:3]])
    assert (reading.usage.input, reading.usage.output) == (10, 2)
    reading, _ = run(Dialect.CHAT, [sse(event) for event in events])
    assert (reading.usage.input, reading.usage.output) == (10, 3)


def test_usage_known_so_far_when_the_client_leaves() -> None:
    reading = meter(Dialect.GEMINI, Operation.GENERATE, stream=True)
    assert not reading.usage.known
    for event in streams.gemini()[:2]:
        reading.feed(sse(event))
    assert (reading.usage.output, reading.usage.known, reading.complete) == (12, True, False)
    reading = meter(Dialect.MESSAGES, Operation.MESSAGES, stream=True)
    reading.feed(named(streams.messages()[0]))
    assert (reading.usage.input, reading.usage.cache_write, reading.usage.output) == (11, 300, 1)


def test_all_input_from_the_cache_still_counts() -> None:
    start = streams.messages()[0]
    start["message"]["usage"]["input_tokens"] = 0
    reading, _ = run(Dialect.MESSAGES, [named(start), *(named(event) for event in streams.messages()[1:])])
    assert (reading.usage.input, reading.usage.cache_read, reading.usage.output) == (0, 900, 42)


def test_gemini_ends_when_reason_and_usage_are_there() -> None:
    *first, last = streams.gemini()
    usage = last.pop("usageMetadata")
    for event in first:
        event.pop("usageMetadata")
    chunks = [sse(event) for event in (*first, last, {"usageMetadata": usage}, {"usageMetadata": usage})]
    assert signals(Dialect.GEMINI, chunks) == [R, R, R, R | T, R]
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 7}}
    reading, found = run(Dialect.GEMINI, [sse(blocked)])
    assert reading.complete and reading.usage.input == 7 and found == R | T
    vague = streams.gemini()[0]
    vague["candidates"][0]["finishReason"] = "FINISH_REASON_UNSPECIFIED"
    assert not run(Dialect.GEMINI, [sse(vague)])[0].complete


def test_web_searches_of_a_response_are_counted_once() -> None:
    search = {"type": "response.web_search_call.completed", "item_id": "ws_1"}
    output = [{"type": "web_search_call"}, {"type": "web_search_call"}, {"type": "message"}]
    events = [search, search, *streams.responses(output=output)]
    reading, _ = run(Dialect.RESPONSES, [named(event) for event in events])
    assert reading.usage.web_searches == 2 and reading.usage.output == 70
    reading, _ = run(Dialect.RESPONSES, [named(search)])
    assert (reading.usage.web_searches, reading.usage.known) == (1, False)


def test_odd_numbers_of_a_provider_do_no_harm() -> None:
    odd: list[Any] = [None, -5, "7", 1.5, True, 1e300, {}]
    for value in odd:
        usage = {"input_tokens": value, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 10}}
        reading, _ = run(Dialect.RESPONSES, [named(e) for e in streams.responses(usage=usage)])
        assert reading.complete and reading.usage.input >= 0 and reading.usage.output == 3
    for broken in ("[1]", "7", "{", "null", ""):
        for dialect in ALL:
            assert run(dialect, [sse(broken), sse(broken, "response.completed")])[0].fault is None


def test_a_broken_terminal_event_is_no_end() -> None:
    reading, found = run(Dialect.RESPONSES, [b'event: response.completed\ndata: {"type":"response.completed",\n\n'])
    assert not reading.complete and not found & T


def test_socket_frames_are_read_like_events() -> None:
    turn = frame_meter()
    found = [turn.feed(json.dumps(event)) for event in streams.responses()]
    assert found == [N, N, R, R, R, R, R | T]
    assert turn.usage == USAGE[Dialect.RESPONSES] and turn.complete and turn.at_boundary
    assert turn.finish() == N
    assert frame_meter().feed(json.dumps(dict(reversed(streams.responses()[-1].items()))).encode()) == R | T


def test_a_huge_image_event_passes_without_being_kept() -> None:
    item = {"type": "image_generation_call", "result": "A" * (4 << 20)}
    data = named({"type": "response.output_item.done", "item": item}) + stream(Dialect.RESPONSES)
    reading, found = run(Dialect.RESPONSES, [data[at : at + 65536] for at in range(0, len(data), 65536)])
    assert reading.usage == USAGE[Dialect.RESPONSES] and found == R | T


JSON: list[tuple[Dialect, Any]] = [
    (Dialect.RESPONSES, streams.responses()[-1]["response"]),
    (
        Dialect.MESSAGES,
        {
            **streams.messages()[0]["message"],
            "usage": streams.messages()[0]["message"]["usage"] | streams.messages()[5]["usage"],
        },
    ),
    (
        Dialect.CHAT,
        {"id": "chatcmpl-1", "model": "qwen-x", "choices": [{"message": {}}], "usage": streams.CHAT_USAGE},
    ),
    (Dialect.GEMINI, streams.gemini()[-1]),
    (Dialect.GEMINI, streams.gemini()),
    (Dialect.CODE_ASSIST, streams.gemini(wrapped=True)[-1]),
]


@pytest.mark.parametrize(("dialect", "answer"), JSON)
def test_json_answers(dialect: Dialect, answer: Any) -> None:
    body = json.dumps(answer).encode()
    reading = meter(dialect, OPERATION[dialect], stream=False)
    assert reading.feed(b"") == N and reading.feed(body[:50]) == R and reading.feed(body[50:]) == R
    assert not reading.at_boundary and not reading.complete
    assert reading.finish() == T and reading.complete
    assert reading.usage == USAGE[dialect]
    assert (reading.model, reading.response_id) == MODEL[dialect]


@pytest.mark.parametrize(
    ("dialect", "body", "status"),
    [
        (Dialect.RESPONSES, {"id": "r", "status": "failed", "error": {"code": "server_error"}}, 500),
        (Dialect.MESSAGES, {"type": "error", "error": {"type": "overloaded_error"}}, 529),
        (Dialect.CHAT, {"error": {"code": "insufficient_quota"}}, 429),
        (Dialect.GEMINI, {"error": {"code": 403, "status": "PERMISSION_DENIED"}}, 403),
        (Dialect.GEMINI, [{"error": {"code": 429}}], 429),
    ],
)
def test_a_fault_in_a_json_answer(dialect: Dialect, body: Any, status: int) -> None:
    reading = meter(dialect, OPERATION[dialect], stream=False)
    reading.feed(json.dumps(body).encode())
    assert reading.finish() == F and not reading.complete
    assert reading.fault is not None and reading.fault[0] == status


def test_a_cut_json_answer_is_not_complete() -> None:
    for dialect in ALL:
        reading = meter(dialect, OPERATION[dialect], stream=False)
        reading.feed(b'{"usage": {"input_to')
        assert reading.finish() == N and not reading.complete and not reading.usage.known
        assert meter(dialect, OPERATION[dialect], stream=False).finish() == N


def test_a_json_answer_beyond_the_cap_passes_uncounted() -> None:
    reading = meter(Dialect.CHAT, Operation.CHAT, stream=False)
    piece = b" " * (1 << 20)
    for _ in range(JSON_CAP // len(piece) + 1):
        assert reading.feed(piece) == R
    assert reading.finish() == T and reading.complete and not reading.usage.known


def test_counting_tokens_uses_none() -> None:
    for dialect in (Dialect.MESSAGES, Dialect.GEMINI):
        reading = meter(dialect, Operation.COUNT_TOKENS, stream=False)
        assert reading.feed(b'{"input_tokens":42,"totalTokens":42}') == R
        assert reading.finish() == T and reading.usage == Usage()


def test_other_answers_need_not_be_json() -> None:
    reading = meter(Dialect.CHAT, Operation.OTHER, stream=False)
    assert reading.feed(b"\x89PNG") == R and reading.finish() == T and reading.complete
    reading = meter(Dialect.CHAT, Operation.OTHER, stream=False)
    reading.feed(b'{"data":[],"usage":{"prompt_tokens":7,"total_tokens":7}}')
    assert reading.finish() == T and reading.usage.input == 7


def test_a_compaction_is_counted() -> None:
    reading = meter(Dialect.RESPONSES, Operation.RESPONSES_COMPACT, stream=False)
    reading.feed(json.dumps({"output": [{"type": "compaction"}], "usage": streams.RESPONSES_USAGE}).encode())
    assert reading.finish() == T and reading.usage == USAGE[Dialect.RESPONSES]


def _plain(dialect: Dialect) -> list[bytes]:
    """Pieces of text of a dialect, as its servers write them."""
    text = json.dumps('say "error": {"usage":{"finishReason" \n\n data: [DONE]')
    if dialect is Dialect.RESPONSES:
        kinds = ("output_text", "function_call_arguments", "custom_tool_call_input", "reasoning_text")
        types = [f"response.{kind}.delta" for kind in kinds]
        return [f'event: {one}\ndata: {{"type":"{one}","delta":{text}}}\n\n'.encode() for one in types]
    if dialect is Dialect.MESSAGES:
        data = f'{{"type":"content_block_delta","delta":{{"text":{text}}}}}'
        return [f"event: content_block_delta\ndata: {data}\n\n".encode()]
    if dialect is Dialect.CHAT:
        return [f'data: {{"choices":[{{"delta":{{"content":{text}}},"finish_reason":null}}]}}\n\n'.encode()]
    data = f'{{"candidates":[{{"content":{{"parts":[{{"text":{text}}}]}}}}],"usageMetadata":{{"promptTokenCount":7}}}}'
    return [f"data: {data}\n\n".encode()]


NOT_PLAIN = (
    b"",
    b"\n",
    b": note\n\n",
    b"data: {",
    b"data: {}\n\n",
    b"data: [DONE]\n\n",
    b'data: {"error":{"code":429}}\n\n',
    b'data: {"type":"error","error":{"type":"overloaded_error"}}\n\n',
    b'event: content_block_delta\ndata: {"type":"error"}\n\n',
    b'event: error\ndata: {"type":"content_block_delta"}\n\n',
    b'event: response.output_text.delta\ndata: {"type":"response.failed"}\n\n',
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta"}\n',
    b'data: {"choices":[{"delta":{},"finish_reason":"stop"}],"usage": {"prompt_tokens":5}}\n\n',
    b'data: {"candidates":[{"finishReason":"STOP"}]}\n\n',
    b'data: {"usageMetadata":{"promptTokenCount":9}}\n\n',
    b'data: {"choices":\ndata: [],"usage":{"prompt_tokens":6}}\n\n',
)


@pytest.mark.parametrize("dialect", ALL)
def test_a_glance_finds_what_the_reading_finds(dialect: Dialect) -> None:
    """A chunk given whole may be known at a glance; with its first byte ahead it is always taken apart."""
    plain = _plain(dialect)[0]
    for odd in (*_plain(dialect), plain[:-1], plain[:-1] + b":", *NOT_PLAIN):
        for one in (odd, odd.replace(b"\n", b"\r\n")):
            for chunk in (one, plain + one, one + plain, plain + one + plain):
                for before in (b"", plain):
                    whole, apart = meter_after(dialect, before), meter_after(dialect, before)
                    assert int(whole.feed(chunk)) == int(apart.feed(chunk[:1])) | int(apart.feed(chunk[1:]))
                    assert whole.at_boundary == apart.at_boundary
                    assert whole.finish() == apart.finish()
                    assert (whole.usage, whole.complete, whole.fault) == (apart.usage, apart.complete, apart.fault)


def meter_after(dialect: Dialect, chunk: bytes) -> Meter:
    """A meter that has read the chunk already."""
    reading = meter(dialect, OPERATION[dialect], stream=True)
    reading.feed(chunk)
    return reading


@pytest.mark.parametrize("dialect", ALL)
def test_a_plain_piece_is_known_at_a_glance(dialect: Dialect) -> None:
    for chunk in _plain(dialect):
        reading = StreamMeter(_READERS[dialect]())
        reading.feed(chunk)  # the first that shows something is always read
        reading._scanner.feed = lambda chunk: pytest.fail("it was taken apart")  # type: ignore[method-assign]
        assert reading.feed(chunk) == R
        assert reading.feed(chunk.replace(b"\n\n", b"\n\r\n")) == R


@pytest.mark.parametrize(
    ("dialect", "chunk", "found"),
    [
        (Dialect.CHAT, b'data: {"error":{"code":429}}\n\n', F),
        (Dialect.CHAT, b'data: {"choices":[],"usage":{"prompt_tokens":5}}\n\n', R | U),
        (Dialect.CHAT, b'data: {"choices":[],"usage": {"prompt_tokens":5}}\n\n', R | U),
        (Dialect.CHAT, b"data: [DONE]\n\n", R | T),
        (Dialect.GEMINI, b'data: {"error":{"code":429}}\n\n', F),
        (Dialect.GEMINI, b'data: {"candidates":[{"finishReason":"STOP"}],"usageMetadata":{}}\n\n', R | T),
        (Dialect.GEMINI, b'data: {"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{}}\n\n', R | T),
        (Dialect.MESSAGES, b'event: content_block_delta\ndata: {"type":"error"}\n\n', F),
        (Dialect.RESPONSES, b'event: response.output_text.delta\ndata: {"type":"error"}\n\n', F),
    ],
)
def test_what_is_more_than_a_piece_is_read_after_pieces_too(dialect: Dialect, chunk: bytes, found: Signal) -> None:
    for many in (chunk, _plain(dialect)[0] + chunk, chunk + _plain(dialect)[0]):
        reading = meter_after(dialect, _plain(dialect)[0])
        assert reading.feed(many) == (found if many == chunk else found | R)
        assert (reading.fault is not None) is (found == F)
        assert b'"prompt_tokens":5' not in chunk or reading.usage.input == 5


def test_geminis_usage_may_come_after_its_finish() -> None:
    reading = meter_after(Dialect.GEMINI, b'data: {"candidates":[{"content":{"parts":[{"text":"a"}]}}]}\n\n')
    assert reading.feed(b'data: {"candidates":[{"finishReason":"STOP"}]}\n\n') == R
    assert reading.feed(b'data: {"usageMetadata":{"promptTokenCount":9}}\n\n') == R | T
    assert reading.usage.input == 9
