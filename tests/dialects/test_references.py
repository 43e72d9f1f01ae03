"""Where a body may name a thing that a provider keeps, and where the words are the client's own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.enums import Dialect, ObjectKind
from pool_server.dialects.references import (
    MOST,
    TooManyReferencesError,
    field_references,
    google_name,
    made,
    references,
)

K = ObjectKind
RESPONSES, CHAT, MESSAGES, GEMINI = Dialect.RESPONSES, Dialect.CHAT, Dialect.MESSAGES, Dialect.GEMINI


def named(dialect: Dialect, body: Any, **more: Any) -> set[tuple[ObjectKind, str]]:
    return set(references(dialect, json.dumps(body).encode(), **more))


PLACES: list[tuple[Dialect, Any, ObjectKind]] = [
    (RESPONSES, {"input": [{"content": [{"type": "input_file", "file_id": "X"}]}]}, K.FILE),
    (RESPONSES, {"input": [{"type": "function_call_output", "output": [{"file_id": "X"}]}]}, K.FILE),
    (RESPONSES, {"input": [{"type": "computer_call_output", "output": {"file_id": "X"}}]}, K.FILE),
    (RESPONSES, {"previous_response_id": "X"}, K.RESPONSE),
    (RESPONSES, {"moderation": {"comparison_response_id": "X"}}, K.RESPONSE),
    (RESPONSES, {"conversation": "X"}, K.CONVERSATION),
    (RESPONSES, {"conversation": {"id": "X"}}, K.CONVERSATION),
    (RESPONSES, {"prompt": {"id": "X"}}, K.PROMPT),
    (RESPONSES, {"prompt": {"id": "p", "variables": {"doc": {"type": "input_file", "file_id": "X"}}}}, K.FILE),
    (RESPONSES, {"input": [{"type": "item_reference", "id": "X"}]}, K.ITEM),
    (RESPONSES, {"tools": [{"type": "file_search", "vector_store_ids": ["a", "X"]}]}, K.VECTOR_STORE),
    (RESPONSES, {"tools": [{"type": "code_interpreter", "container": "X"}]}, K.CONTAINER),
    (RESPONSES, {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["X"]}}]}, K.FILE),
    (RESPONSES, {"tools": [{"type": "shell", "environment": {"container_id": "X"}}]}, K.CONTAINER),
    (RESPONSES, {"tools": [{"type": "shell", "environment": {"skills": [{"skill_id": "X"}]}}]}, K.SKILL),
    (RESPONSES, {"tools": [{"type": "image_generation", "input_image_mask": {"file_id": "X"}}]}, K.FILE),
    (RESPONSES, {"input": [{"type": "code_interpreter_call", "container_id": "X"}]}, K.CONTAINER),
    (CHAT, {"messages": [{"content": [{"type": "file", "file": {"file_id": "X"}}]}]}, K.FILE),
    (CHAT, {"input_file_id": "X"}, K.FILE),
    (CHAT, {"file_ids": ["X"]}, K.FILE),
    (CHAT, {"files": [{"file_id": "X", "attributes": {}}]}, K.FILE),
    (CHAT, {"audio": {"voice": {"id": "X"}}}, K.VOICE),
    (CHAT, {"voice": {"id": "X"}}, K.VOICE),
    (CHAT, {"video": {"id": "X"}}, K.VIDEO),
    (CHAT, {"characters": [{"id": "X"}]}, K.CHARACTER),
    (CHAT, {"input_reference": {"file_id": "X"}}, K.FILE),
    (MESSAGES, {"messages": [{"content": [{"type": "image", "source": {"type": "file", "file_id": "X"}}]}]}, K.FILE),
    (MESSAGES, {"messages": [{"content": [{"type": "container_upload", "file_id": "X"}]}]}, K.FILE),
    (MESSAGES, {"requests": [{"params": {"container": "X"}}]}, K.CONTAINER),
    (MESSAGES, {"container": {"id": "X"}}, K.CONTAINER),
    (MESSAGES, {"container": {"id": "c", "skills": [{"type": "custom", "skill_id": "X"}]}}, K.SKILL),
    (GEMINI, {"cachedContent": "cachedContents/X"}, K.CACHE),
    (GEMINI, {"cached_content": "cachedContents/X"}, K.CACHE),
    (GEMINI, {"contents": [{"parts": [{"fileData": {"fileUri": "files/X"}}]}]}, K.FILE),
    (GEMINI, {"contents": [{"parts": [{"file_data": {"file_uri": "https://h/v1beta/files/X"}}]}]}, K.FILE),
    (GEMINI, {"parts": [{"functionResponse": {"parts": [{"fileData": {"fileUri": "files/X"}}]}}]}, K.FILE),
    (GEMINI, {"batch": {"inputConfig": {"fileName": "files/X"}}}, K.FILE),
    (GEMINI, {"instances": [{"video": {"uri": "https://h/v1beta/files/X:download?alt=media"}}]}, K.FILE),
    (GEMINI, {"tools": [{"fileSearch": {"fileSearchStoreNames": ["fileSearchStores/X"]}}]}, K.SEARCH_STORE),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "body", "kind"), PLACES)
def test_an_id_is_found_wherever_it_may_stand(dialect: Dialect, body: Any, kind: ObjectKind) -> None:
    assert (kind, "X") in named(dialect, body)


OWN_WORDS: list[tuple[Dialect, Any]] = [
    (RESPONSES, {"tools": [{"type": "function", "parameters": {"properties": {"file_id": {"const": "X"}}}}]}),
    (RESPONSES, {"metadata": {"file_id": "X", "conversation": "X"}, "client_metadata": {"container_id": "X"}}),
    (RESPONSES, {"input": [{"content": [{"annotations": [{"file_id": "X"}], "text": "file_id"}]}]}),
    (RESPONSES, {"input": [{"type": "function_call", "arguments": '{"file_id":"X"}'}]}),
    (RESPONSES, {"tools": [{"type": "mcp", "headers": {"container_id": "X"}}]}),
    (RESPONSES, {"input": 'say {"file_id":"X"}'}),
    (CHAT, {"prompt": "X", "voice": "X", "video": "X"}),
    (CHAT, {"response_format": {"json_schema": {"schema": {"file_id": "X"}}}}),
    (MESSAGES, {"messages": [{"content": [{"type": "tool_use", "input": {"file_id": "X", "container": "X"}}]}]}),
    (MESSAGES, {"messages": [{"content": [{"type": "text", "citations": [{"file_id": "X"}]}]}]}),
    (MESSAGES, {"tools": [{"input_schema": {"properties": {"file_id": {"enum": ["X"]}}}}]}),
    (MESSAGES, {"container": {"skills": [{"type": "anthropic", "skill_id": "X"}]}}),
    (GEMINI, {"contents": [{"parts": [{"functionCall": {"args": {"fileUri": "files/X"}}}]}]}),
    (GEMINI, {"contents": [{"parts": [{"functionResponse": {"response": {"fileUri": "files/X"}}}]}]}),
    (GEMINI, {"contents": [{"parts": [{"fileData": {"fileUri": "https://youtube.com/watch?v=X"}}]}]}),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "body"), OWN_WORDS)
def test_what_clients_and_models_write_freely_names_nothing(dialect: Dialect, body: Any) -> None:
    assert named(dialect, body) == set()


def test_an_items_type_may_be_left_out_where_it_is_nothing_but_an_id() -> None:
    items = [{"id": "X"}, {"id": "Y", "type": None}, {"id": "m", "role": "user", "content": "hi"}]
    assert named(RESPONSES, {"input": items}, bare_items=True) == {(K.ITEM, "X"), (K.ITEM, "Y")}


@pytest.mark.parametrize(
    "raw",
    [
        rb'{"file\u005fid":"X"}',
        rb'{"f\u0069le_id":"X"}',
        rb'{"file_id":"\u0058"}',
        rb'{"file_id":"a","file_id":"X"}',
        rb'{"file_id":"X","file_id":null}',
        rb'{"file_id" : "X"}',
        b'{"file_id"\n:\t"X"}',
        rb'{"type":"tool_use","type":"document","input":{"file_id":"X"}}',
    ],
)
def test_an_id_cannot_be_hidden(raw: bytes) -> None:
    assert (K.FILE, "X") in references(MESSAGES, b'{"messages":[{"content":[' + raw + b"]}]}")


HIDDEN_ITEM = b'{"input":[{"type":"message","type":"item\\u005freference","id":"X"}]}'


def test_the_last_and_the_first_of_a_doubled_type_count() -> None:
    assert (K.ITEM, "X") in references(RESPONSES, HIDDEN_ITEM)


names = st.sampled_from(["input", "content", "items", "source", "tools", "a", "b", "parts", "output"])


@given(st.lists(names | st.integers(0, 2), max_size=8), st.sampled_from(["file_id", "container_id", "response_id"]))
def test_depth_and_company_change_nothing(path: list[str | int], key: str) -> None:
    tree: Any = {key: "X", "type": "thing"}
    for step in reversed(path):
        tree = {step: tree, "more": [1, None]} if isinstance(step, str) else [*range(step), tree, {}]
    kind = {"file_id": K.FILE, "container_id": K.CONTAINER, "response_id": K.RESPONSE}[key]
    assert (kind, "X") in named(RESPONSES, {"input": tree})


@given(st.binary(max_size=200), st.sampled_from(list(Dialect)))
def test_any_bytes_are_read_without_a_fault(data: bytes, dialect: Dialect) -> None:
    for body in (data, b'{"file_id":' + data, b'{"fileUri":' + data + b"}"):
        references(dialect, body)
        made(dialect, K.FILE, body)


def test_too_many_and_too_deep_are_refused() -> None:
    with pytest.raises(TooManyReferencesError, match="more than"):
        references(CHAT, json.dumps({"file_ids": [f"f{n}" for n in range(MOST + 1)]}).encode())
    with pytest.raises(TooManyReferencesError, match="too deep"):
        references(CHAT, b'{"file_id":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    same = json.dumps({"a": [{"file_id": "f"}] * 20_000}).encode()
    assert references(CHAT, same) == [(K.FILE, "f")]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("files/a-1", (K.FILE, "a-1")),
        ("https://generativelanguage.googleapis.com/v1beta/files/a-1", (K.FILE, "a-1")),
        ("https://generativelanguage.googleapis.com/v1beta/files/a-1:download?alt=media", (K.FILE, "a-1")),
        ("models/veo-3/operations/o", (K.OPERATION, "o")),
        ("https://www.youtube.com/watch?v=1", None),
        ("https://example.com/cat.png", None),
        ("gs://bucket/x", None),
    ],
)
def test_googles_names(text: str, found: Any) -> None:
    assert google_name(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "HTTPS://generativelanguage.googleapis.com/v1beta/files/a",
        "https://generativelanguage.googleapis.com./v1beta/files/a",
        "https://generativelanguage.googleapis.com:443//v1beta/files/a",
        "https://generativelanguage.googleapis.com/v1beta/x/../files/a",
        "https://generativelanguage.google%61pis.com/v1beta/files/a",
        "https://x@generativelanguage.googleapis.com/v2/files/a/b",
    ],
)
def test_an_address_at_google_in_another_form_is_a_file_nobody_has(text: str) -> None:
    assert google_name(text) in ((K.FILE, text), (K.FILE, "a")) and google_name(text) is not None


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("file_id", [(K.FILE, "X")]),
        ("file_ids[]", [(K.FILE, "X")]),
        ("input_reference[file_id]", [(K.FILE, "X")]),
        ("video[id]", [(K.VIDEO, "X")]),
        ("container[id]", [(K.CONTAINER, "X")]),
        ("metadata[file_id]", []),
        ("prompt", []),
        ("", []),
        ("[]", []),
    ],
)
def test_the_fields_of_a_form(name: str, found: Any) -> None:
    assert field_references(name, "X") == found


@pytest.mark.parametrize(
    ("dialect", "kind", "answer", "found"),
    [
        (CHAT, K.FILE, {"id": "X", "object": "file"}, (K.FILE, "X")),
        (CHAT, K.FILE, {"id": "upload_1", "file": {"id": "X"}}, (K.FILE, "X")),
        (CHAT, None, {"id": "batch_1", "output_file_id": "X", "input_file_id": "Y"}, (K.FILE, "X")),
        (MESSAGES, K.BATCH, {"id": "X", "type": "message_batch"}, (K.BATCH, "X")),
        (GEMINI, K.FILE, {"file": {"name": "files/X", "uri": "https://h/v1beta/files/X"}}, (K.FILE, "X")),
        (GEMINI, K.BATCH, {"name": "batches/X"}, (K.BATCH, "X")),
        (GEMINI, None, {"name": "batches/b", "response": {"responsesFile": "files/X"}}, (K.FILE, "X")),
        (GEMINI, K.OPERATION, {"name": "models/veo/operations/X"}, (K.OPERATION, "X")),
        (GEMINI, None, {"response": {"samples": [{"video": {"uri": "https://h/v1beta/files/X"}}]}}, (K.FILE, "X")),
    ],
)  # fmt: skip
def test_what_an_answer_brings(dialect: Dialect, kind: ObjectKind | None, answer: Any, found: Any) -> None:
    assert found in made(dialect, kind, json.dumps(answer).encode())


@pytest.mark.parametrize("body", [b"", b"[]", b"7", b"{", b'{"id":7}', b'{"name":"elsewhere"}', b"\xff"])
def test_an_answer_of_another_shape_brings_nothing(body: bytes) -> None:
    for dialect in (CHAT, MESSAGES, GEMINI):
        assert made(dialect, K.BATCH, body) == []
