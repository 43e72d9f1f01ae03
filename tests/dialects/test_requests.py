"""Peeking into what the real clients send, and into what nobody should send."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.enums import Dialect, ObjectKind, Operation
from pool_server.core.models import Peek
from pool_server.dialects import SHEDDABLE, BadBodyError, decode_body, peek
from pool_server.dialects.wire import multipart

RECORDED = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "fixtures/requests.jsonl").read_text(encoding="utf-8").splitlines()
]


def surface(path: str) -> tuple[Operation, Dialect]:
    if path.endswith("/responses"):
        return Operation.RESPONSES, Dialect.RESPONSES
    if path.endswith("/count_tokens"):
        return Operation.COUNT_TOKENS, Dialect.MESSAGES
    if path.endswith("/messages"):
        return Operation.MESSAGES, Dialect.MESSAGES
    if path.endswith("/chat/completions"):
        return Operation.CHAT, Dialect.CHAT
    return Operation.GENERATE, Dialect.CODE_ASSIST if path.startswith("/v1internal") else Dialect.GEMINI


def look(request: dict[str, Any], credential: str = "anna") -> Peek:
    operation, dialect = surface(request["path"])
    body = json.dumps(request["body"], ensure_ascii=False).encode()
    return peek(operation, dialect, request["path"], request["headers"], body, credential=credential)


@pytest.mark.parametrize("request_", RECORDED, ids=lambda r: f"{r['fixture']}-{r['turn']}")
def test_recorded_requests(request_: dict[str, Any]) -> None:
    found, body, path = look(request_), request_["body"], request_["path"]
    model = body.get("model") or path.split("/models/")[1].split(":")[0]
    assert found.model == model
    assert found.stream is (bool(body.get("stream")) or ":stream" in path)
    assert found.session and found.session_source
    assert found.previous_response_id == body.get("previous_response_id")
    tools = body.get("request", body).get("tools") or []
    assert found.tools == len(tools)
    assert found.max_output == body.get("max_tokens")


def sessions(fixture: str) -> list[tuple[str | None, str]]:
    found = [look(r) for r in RECORDED if r["fixture"] == fixture]
    return [(peek.session, peek.session_source) for peek in found]


@pytest.mark.parametrize(
    ("fixture", "source"),
    [
        ("codex-a-chatgpt-http", "session-id"),
        ("codex-b-apikey-openai_base_url", "session-id"),
        ("codex-builtin-noaccount-2turns", "session-id"),
        ("codex-tool-http", "session-id"),
        ("codex-tool-ws", "session-id"),
        ("claude-a-apikey", "x-claude-code-session-id"),
        ("claude-tool", "x-claude-code-session-id"),
        ("gemini-c-gca-token", "session_id"),
        ("gemini-tool", "session_id"),
        ("qwen_0.12.0-b2-oauth-http", "metadata.session_id"),
    ],
)
def test_all_calls_of_a_conversation_have_its_id(fixture: str, source: str) -> None:
    found = sessions(fixture)
    assert len(found) >= 2 and len(set(found)) == 1 and found[0][1] == source


def test_clients_without_an_id_are_known_by_how_they_open() -> None:
    main, helper, again, helper_again = sessions("qwen-a-openai")
    assert main == again and helper == helper_again and main != helper
    router, first, other_router, second = sessions("gemini-b-apikey")
    assert first == second and {router[1], other_router[1], first[1]} == {"opening"}
    qwen = next(r for r in RECORDED if r["fixture"] == "qwen-a-openai")
    assert look(qwen, "anna").session != look(qwen, "ben").session


def test_a_compressed_request_of_codex() -> None:
    request = next(r for r in RECORDED if "wire_b64" in r)
    raw = base64.b64decode(request["wire_b64"])
    body = decode_body(raw, request["headers"]["content-encoding"], cap=1 << 20)
    found = peek(Operation.RESPONSES, Dialect.RESPONSES, request["path"], {}, body)
    assert found.model == request["body"]["model"]
    assert (found.session, found.session_source) == (request["body"]["prompt_cache_key"], "prompt_cache_key") or (
        found.session_source == "client_metadata.session_id"
    )


def test_a_continued_socket_turn_is_pinned_to_its_response() -> None:
    frames = [r for r in RECORDED if r.get("ws") and "previous_response_id" in r["body"]]
    assert frames
    for frame in frames:
        found = look(frame)
        assert ("response", frame["body"]["previous_response_id"]) in found.hard


ORDER: list[tuple[str, dict[str, str], dict[str, Any]]] = [
    ("x-pool-session", {"x-pool-session": "s"}, {}),
    ("x-claude-code-session-id", {"x-claude-code-session-id": "s"}, {}),
    ("metadata.user_id", {}, {"metadata": {"user_id": '{"device_id":"d","account_uuid":"","session_id":"s"}'}}),
    ("session-id", {"session-id": "s"}, {}),
    ("session_id", {"session_id": "s"}, {}),
    ("x-session-id", {"x-session-id": "s"}, {}),
    ("x-session-affinity", {"x-session-affinity": "s"}, {}),
    ("session_id", {}, {"session_id": "s"}),
    ("metadata.session_id", {}, {"metadata": {"sessionId": "s"}}),
    ("prompt_cache_key", {}, {"prompt_cache_key": "s"}),
    ("x-client-request-id", {"x-client-request-id": "s"}, {}),
    ("conversation", {}, {"conversation": {"id": "s"}}),
]


@pytest.mark.parametrize("at", range(len(ORDER)))
@pytest.mark.parametrize("dialect", [Dialect.RESPONSES, Dialect.MESSAGES, Dialect.CHAT])
def test_the_first_source_of_a_conversation_id_wins(dialect: Dialect, at: int) -> None:
    """Everything after the source names another conversation, and the body also opens with words."""
    headers: dict[str, str] = {}
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
    for _, more_headers, more_body in reversed(ORDER[at:]):
        headers = dict.fromkeys(headers, "later") | more_headers
        body = json.loads(json.dumps(body).replace('"s"', '"later"').replace('\\"s\\"', '\\"later\\"'))
        merged = body.get("metadata", {}) | more_body.get("metadata", {})
        body = body | more_body | ({"metadata": merged} if merged else {})
    found = peek(Operation.CHAT, dialect, "/", headers, json.dumps(body).encode())
    assert (found.session, found.session_source) == ("s", ORDER[at][0])


@pytest.mark.parametrize(
    ("user_id", "session"),
    [
        ("user_ab12_account__session_11-22", "11-22"),
        ("user_ab12_account_33-44_session_11-22", "11-22"),
        ('{"session_id":"11-22"}', "11-22"),
        ('{"session_id":7}', '{"session_id":7}'),
        ("{broken", "{broken"),
        ("someone", "someone"),
    ],
)
def test_forms_of_the_claude_user_id(user_id: str, session: str) -> None:
    body = json.dumps({"model": "m", "metadata": {"user_id": user_id}}).encode()
    found = peek(Operation.MESSAGES, Dialect.MESSAGES, "/v1/messages", {}, body)
    assert (found.session, found.session_source) == (session, "metadata.user_id")


def test_a_long_id_is_shortened_and_a_blank_one_ignored() -> None:
    body = b'{"messages":[],"prompt_cache_key":"k"}'
    long = peek(Operation.CHAT, Dialect.CHAT, "/", {"x-pool-session": "x" * 5000}, body)
    assert long.session and len(long.session) < 100 and "x" not in long.session
    assert peek(Operation.CHAT, Dialect.CHAT, "/", {"x-pool-session": "  "}, body).session == "k"
    assert peek(Operation.CHAT, Dialect.CHAT, "/", {}, b'{"messages":[]}') == Peek()


def opening(messages: list[dict[str, Any]], credential: str = "c", **more: Any) -> str | None:
    body = json.dumps({"messages": messages} | more).encode()
    return peek(Operation.CHAT, Dialect.CHAT, "/", {}, body, credential=credential).session


def test_a_conversation_keeps_its_opening_as_it_grows() -> None:
    system = {"role": "system", "content": "be good"}
    first = {"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]}
    plain = {"role": "user", "content": "hi"}
    later = [{"role": "assistant", "content": "yes?"}, {"role": "user", "content": "more"}]
    assert opening([system, first]) == opening([system, plain, *later]) == opening([system, plain, *later, *later])
    assert opening([system, plain]) != opening([plain])
    assert opening([system, plain]) != opening([system, {"role": "user", "content": "ho"}])
    assert opening([system, plain]) != opening([system, plain], "other")
    assert opening([plain], system="be good") != opening([plain])
    reminded = {
        "role": "user",
        "content": [
            {"type": "text", "text": "<system-reminder>\nIt is Friday.\n</system-reminder>"},
            {"type": "text", "text": "hi"},
        ],
    }
    assert opening([system, reminded]) == opening([system, plain])
    one_text = {"role": "user", "content": "<system-reminder>It is Friday.</system-reminder>\nhi"}
    assert opening([system, one_text]) == opening([system, plain])
    assert opening([system, {"role": "user", "content": "<system-reminder>cut off, hi"}]) == opening([system, {}])
    picture = {"role": "user", "content": {"odd": 1}}
    assert opening([picture]) not in (None, opening([{"role": "user", "content": {"odd": 2}}]))


def test_long_openings_differ_by_their_ends() -> None:
    def text(head: str, tail: str) -> list[dict[str, Any]]:
        return [{"role": "user", "content": head + "x" * 100_000 + tail}]

    assert len({opening(text("a", "b")), opening(text("a", "c")), opening(text("d", "b"))}) == 3


def test_a_flood_of_reminders_is_read_once() -> None:
    began = time.thread_time()
    for mark in ("<system-reminder>", "<system-reminder></system-reminder>\n"):
        flood = {"role": "user", "content": mark * 100_000 + "hi"}
        assert opening([{"role": "system", "content": "s"}, flood])
    assert time.thread_time() - began < 5  # milliseconds in truth; a scanner that starts anew takes hours


def test_responses_and_gemini_open_too() -> None:
    by_list = {
        "instructions": "be good",
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}],
    }
    grown = {**by_list, "input": [*by_list["input"], {"type": "reasoning"}, {"role": "user", "content": "x"}]}
    found = [
        peek(Operation.RESPONSES, Dialect.RESPONSES, "/", {}, json.dumps(body).encode()).session
        for body in (by_list, grown, {"input": "hi"}, {"input": "ho"})
    ]
    assert found[0] == found[1] and len(set(found)) == 3
    path = "/v1beta/models/g:generateContent"
    turn: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
    bare: dict[str, Any] = {"contents": []}
    more = {"contents": [*turn["contents"], {"role": "model", "parts": []}, {"role": "user", "parts": []}]}
    system = {"system_instruction": {"parts": [{"text": "be good"}]}} | turn
    found = [
        peek(Operation.GENERATE, Dialect.GEMINI, path, {}, json.dumps(body).encode()).session
        for body in (turn, more, system, bare)
    ]
    assert found[0] == found[1] and found[3] is None and len(set(found)) == 3


def test_hard_pins() -> None:
    body = {
        "previous_response_id": "resp_1",
        "input": [
            {"type": "message", "content": [{"type": "input_file", "file_id": "file-1"}, {"file_id": "file-1"}]},
            {"type": "message", "content": 'say "file_id":"file-2"'},
            {"type": "reasoning", "encrypted_content": "sealed-1"},
            {"type": "reasoning", "encrypted_content": "sealed-2"},
        ],
        "tools": [{"parameters": {"properties": {"file_id": {"type": "string"}}}}],
        "include": ["reasoning.encrypted_content"],
    }
    headers = {"x-codex-turn-state": "ts-1"}
    found = peek(Operation.RESPONSES, Dialect.RESPONSES, "/", headers, json.dumps(body).encode())
    assert found.hard[:2] == (("response", "resp_1"), ("turn_state", "ts-1"))
    assert [kind for kind, _ in found.hard[2:]] == ["encrypted"]
    assert set(found.objects) == {(ObjectKind.RESPONSE, "resp_1"), (ObjectKind.FILE, "file-1")}
    assert {kind for kind, _ in found.hard} >= SHEDDABLE
    body["input"] = body["input"][2:3]
    shorter = peek(Operation.RESPONSES, Dialect.RESPONSES, "/", {}, json.dumps(body).encode())
    assert shorter.hard == (("response", "resp_1"), found.hard[2])
    gemini = {
        "contents": [{"parts": [{"fileData": {"fileUri": "https://x/v1beta/files/a"}}]}],
        "cachedContent": "cachedContents/b",
    }
    peeked = peek(Operation.GENERATE, Dialect.GEMINI, "/v1beta/models/g:x", {}, json.dumps(gemini).encode())
    assert set(peeked.objects) == {(ObjectKind.FILE, "a"), (ObjectKind.CACHE, "b")}


def test_limits_tiers_and_paths() -> None:
    def chat(**body: Any) -> Peek:
        return peek(Operation.CHAT, Dialect.CHAT, "/", {}, json.dumps(body).encode())

    assert chat(max_completion_tokens=7, max_tokens=9).max_output == 7
    assert chat(max_output_tokens=5).max_output == 5
    assert chat(service_tier="priority").tier == "priority"
    assert chat(speed="fast").tier == "", "how fast it was served is the answer's to say"
    assert chat(stream=1).stream is False
    body = b'{"generationConfig":{"maxOutputTokens":9},"contents":[],"tools":[{},{}]}'
    for path, model, stream in (
        ("/v1beta/models/gemini-2.5-pro:streamGenerateContent", "gemini-2.5-pro", True),
        ("/v1beta/tunedModels/my%20one:generateContent", "my one", False),
        ("/v1beta1/publishers/google/models/g:generateContent", "g", False),
        ("/v1beta/models/g", "g", False),
    ):
        found = peek(Operation.GENERATE, Dialect.GEMINI, path, {}, body)
        assert (found.model, found.stream, found.max_output, found.tools) == (model, stream, 9, 2)


# Without a body, these are no call; a side call may have any body, and a Gemini upload is the file itself.
NEEDED = [
    *(Operation.RESPONSES, Operation.RESPONSES_COMPACT, Operation.MESSAGES, Operation.COUNT_TOKENS),
    *(Operation.CHAT, Operation.GENERATE),
]
ANY_BODY = (Operation.OTHER, Operation.SIDE)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"7", b"null", b'"x"', b'{"a":\xff}', b"PK\x03\x04", b"[" * 100_000]
)
@pytest.mark.parametrize("dialect", list(Dialect))
def test_json_where_json_is_needed(dialect: Dialect, body: bytes) -> None:
    for operation in Operation:
        free = operation in ANY_BODY or (operation is Operation.FILES and dialect is Dialect.GEMINI)
        if free or (not body and operation not in NEEDED):
            peek(operation, dialect, "/v1beta/models/g:x", {}, body)
            continue
        with pytest.raises(BadBodyError) as caught:
            peek(operation, dialect, "/v1beta/models/g:x", {}, body)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 100
    assert peek(Operation.OTHER, dialect, "/", {"session-id": "s"}, body).session == "s"


odd = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = (
    *("model", "stream", "messages", "input", "system", "instructions", "tools", "metadata", "client_metadata"),
    *("previous_response_id", "contents", "conversation", "service_tier", "max_tokens", "request"),
    *("systemInstruction", "generationConfig", "conversation_id"),
)


@given(st.dictionaries(st.sampled_from(FIELDS), odd, max_size=6), st.sampled_from(list(Dialect)))
def test_odd_types_never_fail_and_good_fields_are_still_read(body: dict[str, Any], dialect: Dialect) -> None:
    body["prompt_cache_key"] = body["session_id"] = "s"
    found = peek(Operation.CHAT, dialect, "/v1beta/models/g:x", {}, json.dumps(body).encode())
    assert found.session is not None
    if dialect is not Dialect.CODE_ASSIST:
        assert found.session == "s"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b'{"model":5,"messages":[', "not valid JSON"),
        (b'{"messages":[', "not valid JSON"),
        (b"", "not valid JSON"),
        (b"[1]", "not a JSON object"),
    ],
)
def test_a_refusal_says_what_is_wrong_with_the_body(body: bytes, problem: str) -> None:
    with pytest.raises(BadBodyError, match=problem):
        peek(Operation.CHAT, Dialect.CHAT, "/", {}, body)
    assert peek(Operation.OTHER, Dialect.CHAT, "/", {}, body) == Peek()


def test_a_field_of_an_odd_type_costs_no_other_its_meaning() -> None:
    body = {"model": 5, "prompt_cache_key": "k", "max_tokens": 7, "service_tier": ["x"], "speed": "fast", "tools": [{}]}
    found = peek(Operation.CHAT, Dialect.CHAT, "/", {}, json.dumps(body).encode())
    assert found == Peek(session="k", session_source="prompt_cache_key", max_output=7, tools=1)


@pytest.mark.parametrize("name", ["name*0=mo; name*1=del", 'NAME*0="model"', "name*=a; name*4=b", "name*=utf-8''model"])
def test_a_field_whose_name_readers_may_put_together_differently_is_refused(name: str) -> None:
    body = f"--m\r\nContent-Disposition: form-data; {name}\r\n\r\nx\r\n--m--\r\n".encode()
    with pytest.raises(BadBodyError):
        multipart.parts(body, b"m")
