"""Taking fields out of a JSON body: the others' bytes stay as they came."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.dialects import BadBodyError, without


@pytest.mark.parametrize(
    ("body", "names", "left"),
    [
        (b'{"a":1}', ["a"], b"{}"),
        (b'{ "a":1, "b" : [1, {"a":2}] }', ["a"], b'{ "b" : [1, {"a":2}] }'),
        (b'{"b":"x,\\"a\\":", "a":1 ,"c":{}}', ["a"], b'{"b":"x,\\"a\\":","c":{}}'),
        (b'{"a":1,"b":2,"a":3}', ["a"], b'{"b":2}'),
        (b'{"a":1,"b":2}', ["c"], b'{"a":1,"b":2}'),
        (b'{"a":1,"b":2}', ["a", "b"], b"{}"),
    ],
)
def test_fields_are_taken_out(body: bytes, names: list[str], left: bytes) -> None:
    assert without(body, names) == left


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b'{"a":}'])
def test_what_is_no_object_is_told(body: bytes) -> None:
    with pytest.raises(BadBodyError):
        without(body, ["a"])


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)
                    | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=8)  # fmt: skip


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=6), st.sets(st.text(max_size=5), max_size=3),
       st.sampled_from([None, 1, 2]))  # fmt: skip
def test_of_any_object_the_rest_is_left(data: dict[str, Any], more: set[str], indent: int | None) -> None:
    names = {*list(data)[::2], *more}
    left = without(json.dumps(data, indent=indent).encode(), names)
    assert json.loads(left) == {name: value for name, value in data.items() if name not in names}
