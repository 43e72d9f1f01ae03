"""Whatever an upstream does, the client's grammar holds: any deltas, cut anywhere, broken in every way."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pool_server.core.enums import Dialect
from pool_server.core.models import Usage
from pool_server.dialects.translation import UpstreamKind
from pool_server.dialects.translation.answers.sequence import HELD, Sequencer, Terms
from pool_server.dialects.translation.neutral import FAMILY, ErrorInfo, Finish
from pool_server.dialects.translation.responses.answer import Echo
from pool_server.dialects.translation.tools import ToolNames
from tests.dialects.streams import named, sse
from tests.dialects.translation.grammar import hear, hear_whole, split
from tests.dialects.translation.kit import CLIENTS, PAIRS, SEALS, Blocks, events, request, translate

WORDS = st.text(st.characters(codec="utf-8"), max_size=12)
KEYS = st.integers(0, 4)
STEPS = st.one_of(
    st.tuples(st.just("start"), WORDS, WORDS),
    st.tuples(st.just("text"), KEYS, WORDS),
    st.tuples(st.just("refusal"), KEYS, WORDS),
    st.tuples(st.just("reasoning"), KEYS, WORDS),
    st.tuples(st.just("call"), KEYS, WORDS, st.sampled_from(["", "moon", "tide_table"]), st.none() | st.integers(0, 4)),
    st.tuples(st.just("arguments"), KEYS, st.sampled_from(['{"a":', "1}", "{}", "x", "", '"'])),
    st.tuples(st.just("end"), KEYS, st.none() | st.sampled_from(['{"z":0}', "", "nonsense"]), WORDS, st.booleans()),
    st.tuples(st.just("finish"), st.sampled_from(list(Finish))),
    st.tuples(st.just("usage")),
    st.tuples(st.just("fail")),
    st.tuples(st.just("close")),
)


def play(sequencer: Sequencer, step: tuple[Any, ...]) -> None:
    kind, *rest = step
    if kind == "refusal":
        sequencer.text(rest[0], rest[1], refusal=True)
    elif kind == "call":
        sequencer.call(rest[0], rest[1], rest[2], order=rest[3])
    elif kind == "end":
        sequencer.end(rest[0], whole=rest[1], seal=rest[2], redacted=rest[3])
    elif kind == "usage":
        sequencer.usage(Usage(input=1, output=2, known=True))
    elif kind == "fail":
        sequencer.fail(ErrorInfo(503, "Too busy."))
    else:
        getattr(sequencer, kind)(*rest)


def writer_of(client: Dialect) -> Any:
    told = translate(
        client,
        next(kind for c, kind in PAIRS if c is client),
        request(client, [("user", "?")], stream=True),
        stream=True,
    )
    sequencer = told.response._sequencer
    assert isinstance(sequencer, Sequencer)
    return sequencer._writer


@pytest.mark.parametrize("client", CLIENTS)
@given(steps=st.lists(STEPS, max_size=40), stop=st.lists(st.sampled_from(["a", "ab", "\n\n", "xyz"]), max_size=2))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_deltas_make_a_whole_answer_or_an_error(
    client: Dialect, steps: list[tuple[Any, ...]], stop: list[str]
) -> None:
    writer = writer_of(client)
    terms = Terms(client, FAMILY[UpstreamKind.CHAT], "id", "m", ToolNames([], UpstreamKind.CHAT), stop=tuple(stop))
    sequencer = Sequencer(writer, terms)
    for step in steps:
        play(sequencer, step)
    sequencer.close()
    raw = b"".join(writer.out)
    if sequencer.begun:
        heard = hear(client, raw)
        assert (heard.error is None) == (sequencer.fault is None)
    else:
        assert raw == b"" and sequencer.fault is not None


SCRIPT: Blocks = [
    ("think", "Ebbe und Flut – zweimal täglich.", ""),
    ("text", "Über den Deich 🌊 geht es\r\n\nnicht."),
    ("call", "call_q1", "tide_table", '{"place": "Büsum\\n\\ndata: x", "day": 3}'),
    ("call", "call_q2", "moon", '{"place": "x"}'),
]


def script(kind: UpstreamKind) -> Blocks:
    return [("think", SCRIPT[0][1], SEALS[kind]), *SCRIPT[1:]]


def through(client: Dialect, kind: UpstreamKind, pieces: list[bytes]) -> tuple[bytes, Any]:
    body = request(client, [("user", "?")], tools=("tide_table", "moon"), stream=True)
    told = translate(client, kind, body, stream=True).response
    return b"".join(map(told.feed, pieces)) + told.finish(), told


@pytest.mark.parametrize(("client", "kind"), PAIRS)
@given(cuts=st.lists(st.integers(0, 10_000), max_size=30))
@settings(max_examples=20, deadline=None)
def test_cuts_between_pieces_change_nothing(client: Dialect, kind: UpstreamKind, cuts: list[int]) -> None:
    whole = b"".join(events(kind, script(kind)))
    expected, _ = through(client, kind, [whole])
    at = sorted({cut % len(whole) for cut in cuts} | {0, len(whole)})
    pieces = [whole[a:b] for a, b in pairwise(at)]
    assert through(client, kind, pieces)[0] == expected


@pytest.mark.parametrize(("client", "kind"), PAIRS)
def test_a_stream_byte_by_byte_is_the_same(client: Dialect, kind: UpstreamKind) -> None:
    whole = b"".join(events(kind, script(kind)))
    expected, told = through(client, kind, [whole])
    assert told.complete
    assert through(client, kind, [whole[i : i + 1] for i in range(len(whole))])[0] == expected
    assert hear(client, expected).texts() == SCRIPT[1][1]


@pytest.mark.parametrize(("client", "kind"), PAIRS)
def test_a_stream_broken_off_anywhere_is_never_a_success(client: Dialect, kind: UpstreamKind) -> None:
    """Cut after every event and within each: an error event, or nothing at all and a fault to answer with."""
    pieces = events(kind, script(kind))
    ending = {UpstreamKind.CHAT: 3, UpstreamKind.MESSAGES: 2}.get(kind, 1)  # from here on the end was said
    for count in range(len(pieces) - ending + 1):
        half = pieces[count][: len(pieces[count]) // 2] if count < len(pieces) - ending else b""
        raw, told = through(client, kind, [*pieces[:count], half])
        assert not told.complete and told.fault is not None and told.fault.status >= 500
        if told.begun:
            assert hear(client, raw).error is not None
        else:
            assert raw == b"" and b"error" in told.fault_answer()[1]


NOISE = [
    b": ping\n\n",
    sse("not json"),
    sse("{"),
    sse("[]"),
    sse("null"),
    sse("17"),
    sse('"text"'),
    sse({}),
    sse({"type": "response.telepathy.delta", "delta": "x", "output_index": 9}, "response.telepathy.delta"),
    sse({"type": "content_block_hum", "index": 7}, "content_block_hum"),
    sse({"choices": "none"}),
    sse({"choices": [None, 4, {"index": 1, "delta": {"content": "other choice"}}]}),
    sse({"candidates": [None, {"index": 2, "content": {"parts": [{"text": "other"}]}}]}),
    sse({"type": None, "choices": [], "candidates": []}),
    b"event: ping\n\n",
    b"id: 4\nretry: 10\n\n",
]


@pytest.mark.parametrize(("client", "kind"), PAIRS)
def test_what_nobody_knows_passes_without_a_trace(client: Dialect, kind: UpstreamKind) -> None:
    pieces = events(kind, script(kind))
    expected, _ = through(client, kind, pieces)
    noisy = [piece for event in pieces[:-1] for piece in (event, *NOISE)]
    assert through(client, kind, [*noisy, pieces[-1]])[0] == expected


@pytest.mark.parametrize(("client", "kind"), PAIRS)
def test_nothing_follows_the_end_and_nothing_ends_twice(client: Dialect, kind: UpstreamKind) -> None:
    pieces = events(kind, script(kind))
    expected, _ = through(client, kind, pieces)
    raw, told = through(client, kind, [*pieces, *pieces])
    assert told.complete
    # Google's streams end with the connection alone: some servers give a reason to stop with every event.
    times = 2 if kind in (UpstreamKind.GEMINI, UpstreamKind.CODE_ASSIST) else 1
    assert hear(client, raw).texts() == times * hear(client, expected).texts()


def test_events_in_the_wrong_place_still_make_blocks() -> None:
    """Deltas without a start, a missing stop, two stops, a stop of nothing."""
    pieces: list[dict[str, Any]] = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "No start. "}},
        {"type": "content_block_stop", "index": 4},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "t", "name": "moon"}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"a":1}'}},
        {"type": "content_block_stop", "index": 1},
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        {"type": "message_stop"},
        {"type": "message_stop"},
    ]
    for client, kind in PAIRS:
        if kind is UpstreamKind.MESSAGES:
            raw, told = through(client, kind, [named(piece) for piece in pieces])
            assert told.complete
            heard = hear(client, raw)
            assert (heard.texts(), heard.calls()) == ("No start. ", [("moon", {"a": 1})])


def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return sse({"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]})


def call(index: int, **function: str) -> bytes:
    ident = {"id": f"call_{index}", "type": "function"} if "name" in function else {}
    return chunk({"tool_calls": [{"index": index, **ident, "function": function}]})


@pytest.mark.parametrize("client", [Dialect.RESPONSES, Dialect.MESSAGES, Dialect.GEMINI])
def test_calls_told_in_turns_come_one_after_the_other(client: Dialect) -> None:
    pieces = [call(i, name=f"tool_{i}", arguments="") for i in (2, 0, 1)]
    for part in ('{"n"', ":", "[1,", "2]}"):
        pieces += [call(i, arguments=part) for i in (1, 2, 0)]
    raw, told = through(client, UpstreamKind.CHAT, [*pieces, chunk({}, "tool_calls"), sse("[DONE]")])
    assert told.complete
    assert hear(client, raw).calls() == [(f"tool_{i}", {"n": [1, 2]}) for i in range(3)]


@pytest.mark.parametrize("client", [Dialect.RESPONSES, Dialect.MESSAGES, Dialect.GEMINI])
def test_a_call_without_id_or_name_gets_both(client: Dialect) -> None:
    pieces = [chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]})]
    pieces.append(chunk({"tool_calls": [{"index": 1, "function": {"name": "moon", "arguments": "{}"}}]}))
    raw, _ = through(client, UpstreamKind.CHAT, [*pieces, chunk({}, "stop"), sse("[DONE]")])
    heard = hear(client, raw)
    assert [name for name, _ in heard.calls()] == ["unknown", "moon"]
    assert len({block[1] for block in heard.blocks}) == 2


@pytest.mark.parametrize("client", [Dialect.RESPONSES, Dialect.MESSAGES, Dialect.GEMINI])
@pytest.mark.parametrize("whole", [False, True])
def test_ten_thousand_calls(client: Dialect, whole: bool) -> None:
    count = 10_000
    body = request(client, [("user", "?")], stream=not whole)
    told = translate(client, UpstreamKind.CHAT, body, stream=not whole).response
    pieces = [call(i, name="moon", arguments=f'{{"n":{i}}}') for i in range(count)]
    raw = b"".join(map(told.feed, [*pieces, chunk({}, "tool_calls"), sse("[DONE]")])) + told.finish()
    heard = hear_whole(client, raw) if whole else hear(client, raw)
    assert [found["n"] for _, found in heard.calls()] == list(range(count))
    assert len({block[1] for block in heard.blocks}) == count


def test_ten_thousand_calls_of_one_id_get_one_each() -> None:
    told = translate(Dialect.MESSAGES, UpstreamKind.CODEX, request(Dialect.MESSAGES, [("user", "?")])).response
    item = {"type": "function_call", "call_id": "same", "name": "moon", "arguments": "{}"}
    for index in range(10_000):
        told.feed(named({"type": "response.output_item.done", "output_index": index, "item": item}))
    told.feed(named({"type": "response.completed", "response": {"status": "completed", "output": []}}))
    heard = hear_whole(Dialect.MESSAGES, told.finish())
    assert len({block[1] for block in heard.blocks}) == 10_000


@pytest.mark.parametrize(
    ("client", "kept"), [(Dialect.RESPONSES, True), (Dialect.MESSAGES, True), (Dialect.CHAT, False)]
)
def test_arguments_of_64_mib_are_bounded(client: Dialect, kept: bool) -> None:
    """Who has to keep them tells an error at the bound, and keeps nothing after it."""
    kind = UpstreamKind.MESSAGES if client is Dialect.CHAT else UpstreamKind.CHAT
    told = translate(client, kind, request(client, [("user", "?")], stream=True)).response
    megabyte = "x" * (1 << 20)
    size, failed = 0, 0
    for piece in range(65):
        event = call(0, arguments=megabyte) if piece else call(0, name="moon", arguments='{"a":"')
        if kind is UpstreamKind.MESSAGES:
            delta = {"type": "input_json_delta", "partial_json": megabyte}
            start = {"type": "tool_use", "id": "t", "name": "moon", "input": {}}
            event = named({"type": "content_block_delta", "index": 0, "delta": delta})
            event = event if piece else named({"type": "content_block_start", "index": 0, "content_block": start})
        out = told.feed(event)
        size += len(out)
        failed += told.fault is not None
    assert told.fault is not None and "larger than" in told.fault.message
    assert size < HELD + (3 << 20)
    assert isinstance(told._sequencer, Sequencer) and told._sequencer._front is None


def test_one_event_of_64_mib_is_an_error() -> None:
    told = translate(
        Dialect.MESSAGES, UpstreamKind.CHAT, request(Dialect.MESSAGES, [("user", "?")], stream=True)
    ).response
    told.feed(chunk({"content": "Hi"}))
    out = told.feed(b'data: {"choices":[{"delta":{"content":"')
    for _ in range(64):
        out += told.feed(b"x" * (1 << 20))
    assert told.fault is not None
    assert split(out + told.finish())[-1][0] == "error"


BROKEN = ["nonsense", '{"a": 1', "[1, 2]", '"text"', "7", '{"a": 1}}']


@pytest.mark.parametrize("arguments", BROKEN)
def test_arguments_that_are_no_object_are_told_where_they_can_be(arguments: str) -> None:
    """Chat and Responses carry arguments as text; Messages and Gemini cannot, and say so."""
    block: Blocks = [("text", "Now."), ("call", "call_1", "moon", arguments)]
    for client, kind in PAIRS:
        if kind not in (UpstreamKind.CHAT, UpstreamKind.CODEX):
            continue
        raw, told = through(client, kind, events(kind, block))
        heard = hear(client, raw)
        if client in (Dialect.CHAT, Dialect.RESPONSES):
            assert told.complete and heard.blocks[-1][3] == arguments
        else:
            assert told.fault is not None and heard.error is not None
            assert "no JSON" in heard.error["message"]


@pytest.mark.parametrize(("client", "kind"), PAIRS)
def test_an_error_is_told_with_the_vendor_s_words(client: Dialect, kind: UpstreamKind) -> None:
    """First of all: nothing is written. Later: the last event is the error, and tells no success."""
    error = {"code": 503, "message": "Sandbank ahead.", "status": "UNAVAILABLE"}
    fault = sse({"error": error})
    if kind in (UpstreamKind.CODEX, UpstreamKind.RESPONSES):
        failed = {"status": "failed", "error": {"code": "server_error", "message": "Sandbank ahead."}}
        fault = named({"type": "response.failed", "response": failed})
    elif kind is UpstreamKind.MESSAGES:
        fault = named({"type": "error", "error": {"type": "overloaded_error", "message": "Sandbank ahead."}})
    raw, told = through(client, kind, [fault])
    assert raw == b"" and not told.begun and told.fault is not None
    status, body = told.fault_answer()
    assert status >= 500 and "Sandbank ahead." in json.loads(body)["error"]["message"]
    pieces = events(kind, script(kind))
    raw, told = through(client, kind, [*pieces[: len(pieces) // 2], fault, *pieces[len(pieces) // 2 :]])
    heard = hear(client, raw)
    assert heard.error is not None and heard.error["message"] == "Sandbank ahead."
    assert not told.complete


def test_a_malformed_call_is_no_success_for_clients_that_have_no_word_for_it() -> None:
    for client, kind in PAIRS:
        if kind is UpstreamKind.GEMINI:
            raw, told = through(client, kind, events(kind, [], finish="MALFORMED_FUNCTION_CALL"))
            if client is Dialect.CHAT:
                assert hear(client, raw).finish == "stop"
            else:
                assert told.fault is not None and raw == b""


def test_the_echo_is_not_shared() -> None:
    first = Echo(1, {}, {}).response("a", "m", "completed", [])
    first["tools"].append(1)
    assert Echo(1, {}, {}).response("b", "m", "completed", [])["tools"] == []


@pytest.mark.parametrize("client", CLIENTS)
def test_an_answer_that_is_none_is_an_error(client: Dialect) -> None:
    for other, kind in PAIRS:
        if other is not client:
            continue
        for body in (
            b"",
            b"{}",
            b"[]",
            b"null",
            b"<html>Bad gateway</html>",
            b'{"choices":[]}',
            b'{"content":[]}',
            b'{"id":',
        ):
            told = translate(client, kind, request(client, [("user", "?")])).response
            assert told.whole(body) == b""
            assert told.fault is not None and told.fault_answer()[0] >= 500
