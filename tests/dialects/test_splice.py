"""Single fields change, every other byte stays."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.dialects import BadBodyError, splice

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
