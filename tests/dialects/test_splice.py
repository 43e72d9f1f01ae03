"""Single fields change, every other byte stays."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.dialects import BadBodyError, splice, strip_encrypted

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(st.text(max_size=6), values, max_size=5)


@given(objects, objects, st.sampled_from([None, 1]), st.booleans())
def test_the_result_is_the_object_with_the_fields_set(
    body: dict[str, Any], fields: dict[str, Any], indent: int | None, ascii_only: bool
) -> None:
    text = json.dumps(body, indent=indent, ensure_ascii=ascii_only)
    changed = splice(text.encode(), fields)
    assert json.loads(changed) == {**body, **fields}
    if not fields:
        assert changed == text.encode()


def test_only_the_fields_own_bytes_change() -> None:
    body = b'{ "model":"m" , "project" :\t"mine\\"s",\n"request":{"project":"inner","n":1.50e1} }\n'
    assert splice(body, {"project": "x"}) == body.replace(b'"mine\\"s"', b'"x"')
    assert splice(body, {"extra": [1]}) == body.replace(b"1.50e1} }", b'1.50e1},"extra":[1] }')
    assert splice(b"{}", {"a": 1, "b": None}) == b'{"a":1,"b":null}'
    assert splice(b" {\n} ", {"a": 1}) == b' {\n"a":1} '


def test_a_repeated_field_is_set_everywhere() -> None:
    body = b'{"project":["a","]"],"x":"project","project":{"b":"}"},"y":1}'
    assert splice(body, {"project": "p"}) == b'{"project":"p","x":"project","project":"p","y":1}'
    assert splice(b'{"n":1,"n":12}', {"n": 3}) == b'{"n":3,"n":3}'
    assert splice(b'{"n":12,"n":1}', {"n": 3}) == b'{"n":3,"n":3}'


def test_raw_json_is_put_in_as_it_is() -> None:
    assert splice(b'{"a":1}', {"a": msgspec.Raw(b"[ 1 ]")}) == b'{"a":[ 1 ]}'


@pytest.mark.parametrize("body", [b"", b"[]", b'{"a":1', b"{]", b"null", b'"x"', b'{"a":1} x', b"\xff\xfe"])
def test_other_bodies_are_refused(body: bytes) -> None:
    with pytest.raises(BadBodyError):
        splice(body, {"a": 1})


def test_what_only_another_account_can_read_is_taken_out() -> None:
    items = [
        {"type": "message", "id": "msg_1", "role": "user", "content": [{"type": "input_text", "text": "é"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "sealed"},
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "n", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "o"},
        {"type": "item_reference", "id": "msg_0"},
        {"type": "compaction", "encrypted_content": "history"},
        {"type": "web_search_call", "id": "ws_1"},
        {"role": "assistant", "id": "msg_2", "content": "no type"},
    ]
    body = json.dumps({"model": "m", "input": items, "store": False}, ensure_ascii=False).encode()
    stripped = strip_encrypted(body)
    assert stripped is not None
    assert stripped.startswith(b'{"model": "m", "input": [') and stripped.endswith(b', "store": false}')
    kept = json.loads(stripped)["input"]
    assert kept == [
        {k: v for k, v in items[0].items() if k != "id"},
        {k: v for k, v in items[2].items() if k != "id"},
        items[3],
        items[5],
        items[6],
        {"role": "assistant", "content": "no type"},
    ]
    assert strip_encrypted(stripped) is None


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"input":"words"}', b'{"input":[]}', b'{"input":[1]}', b"{}"])
def test_nothing_to_take_out(body: bytes) -> None:
    assert strip_encrypted(body) is None
