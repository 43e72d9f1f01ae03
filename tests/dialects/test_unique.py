"""Keys that stand twice: whoever lets a request in must read it as whoever answers it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.enums import Dialect, Operation
from pool_server.dialects import BadBodyError, keys_once, peek

KEYS = st.sampled_from(["model", "previous_response_id", "a", 'q"', "\\", "é", ""]) | st.text(max_size=4)
VALUES = st.sampled_from(["1", '"x"', "{}", "[]", '{"model":1,"model":2}', '"\\"model\\":"', "null", "1.0", "11"])
BLANKS = st.sampled_from(["", " ", "\n", "\t\r\n "])


def escaped(key: str, how: int) -> str:
    """JSON of the key, with none, all or the first of its characters escaped."""
    if how == 0 or not key:
        return json.dumps(key)
    units = (key if how == 1 else key[0]).encode("utf-16-be", "surrogatepass")
    code = "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
    return '"' + code + (json.dumps(key[1:])[1:] if how == 2 else '"')


@given(st.lists(st.tuples(KEYS, st.integers(0, 2), VALUES, BLANKS), min_size=1, max_size=7), BLANKS)
def test_a_key_that_stands_twice_is_found(pairs: list[tuple[str, int, str, str]], blank: str) -> None:
    text = blank + "{" + ",".join(f"{b}{escaped(k, how)}{b}:{b}{v}{b}" for k, how, v, b in pairs) + "}" + blank
    data = text.encode("utf-8", "surrogatepass")
    names = [k for k, *_ in pairs]
    try:
        fields = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeError):
        return
    assert keys_once(data, fields) is (len(set(names)) == len(names))


@pytest.mark.parametrize("data", [b"{}", b" { } ", b"\t{\r\n}"])
def test_an_object_without_keys_has_none_twice(data: bytes) -> None:
    assert keys_once(data, {})


@pytest.mark.parametrize(
    ("operation", "dialect", "path", "first"),
    [
        (Operation.MESSAGES, Dialect.MESSAGES, "/v1/messages", "model"),
        (Operation.CHAT, Dialect.CHAT, "/v1/chat/completions", "model"),
        (Operation.RESPONSES, Dialect.RESPONSES, "/v1/responses", "previous_response_id"),
        (Operation.GENERATE, Dialect.CODE_ASSIST, "/v1internal:generateContent", "model"),
        (Operation.EMBEDDINGS, Dialect.CHAT, "/v1/embeddings", "model"),
    ],
)
def test_a_request_that_names_two_is_refused(operation: Operation, dialect: Dialect, path: str, first: str) -> None:
    body: Any = {"model": "m", "previous_response_id": "r", "messages": [], "request": {"contents": []}}
    once = json.dumps(body).encode()
    peek(operation, dialect, path, {}, once, strict=True)
    for twice in (
        once[:-1] + f',"{first}":"other"}}'.encode(),
        f'{{"{first}":"other",'.encode() + once[1:],
        once[:-1] + f',"{"".join(f"{chr(92)}u{ord(c):04x}" for c in first)}":"other"}}'.encode(),
    ):
        with pytest.raises(BadBodyError, match="twice"):
            peek(operation, dialect, path, {}, twice, strict=True)
        if first == "model":
            peek(operation, dialect, path, {}, twice)
    nested = json.dumps(body | {"tools": [{"properties": {"model": {}}}, {"model": 1}], "metadata": {"model": "x"}})
    peek(operation, dialect, path, {}, nested.encode(), strict=True)
