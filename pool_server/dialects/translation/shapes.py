"""What each field of a client's request holds: a value of another type is refused, a field nobody reads is named.

A shape is written in words: `known("name:str strict:bool parameters")` has a string, true or false, and a field read
or passed on whole. Null is as good as absent everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import NoneType
from typing import Any

import msgspec

from pool_server.dialects.translation.conformance import TranslationError
from pool_server.dialects.translation.neutral import NeutralRequest


class Leaf(msgspec.Struct, frozen=True):
    """A value with no fields of its own to look into; `inner` is the type of a list's elements."""

    words: str
    types: frozenset[type]
    inner: type | None = None


_LEAVES = {
    "str": Leaf("a string", frozenset((str,))),
    "bool": Leaf("true or false", frozenset((bool,))),
    "num": Leaf("a number", frozenset((int, float))),
    "obj": Leaf("an object", frozenset((dict,))),
    "strs": Leaf("a list of strings", frozenset((list,)), str),
    "list": Leaf("a list", frozenset((list,))),
    "str|strs": Leaf("a string or a list of strings", frozenset((str, list)), str),
}
_UNKNOWN = Leaf("unknown", frozenset())
_OBJECT, _OBJECTS = frozenset((dict,)), frozenset((list,))
_Spelt = Callable[[str], str] | None


Fields = dict[str, "Shape | Leaf | None"]


class Shape(msgspec.Struct, frozen=True):
    """The fields of an object, or of each object in a list: a shape where what is within is known too, a leaf where its
    type alone is, None where it is read or passed on whole.

    `kinds` are all the fields by what the field `by` says ("" = it says nothing; a key that ends in `*` is a
    beginning). A kind that is not there, or None, is not looked into: the reader refuses it or notes it as a whole.
    `types` and `words` say what may stand in the shape's place.
    """

    fields: Fields
    kinds: dict[str, Shape | None] = {}
    by: str = "type"
    types: frozenset[type] = _OBJECT
    words: str = "an object"

    def of(self, value: dict[str, Any]) -> Fields | None:
        """The fields of this object; None where it is not to be looked into."""
        if not self.kinds:
            return self.fields
        said = value.get(self.by)
        if not isinstance(said, (str, NoneType)):
            return self.fields
        kind = said or ""
        found = self.kinds.get(kind)
        if found is None and kind not in self.kinds:
            starts = (one for key, one in self.kinds.items() if key.endswith("*") and kind.startswith(key[:-1]))
            found = next(starts, None)
        return None if found is None else found.fields


def typed(words: str) -> Fields:
    """Fields by their names, with their types where they have one."""
    split = (word.partition(":") for word in words.split())
    return {name: _LEAVES[kind] if kind else None for name, _, kind in split}


def known(words: str = "", **inner: Shape | Leaf | None) -> Shape:
    """Of an object with these fields."""
    return Shape({**typed(words), **inner})


def either(words: str, by: str = "type", **kinds: Shape | None) -> Shape:
    """Of the fields they all have, and those of each kind."""
    return kinds_of(typed(words), {"" if name == "_" else name: one for name, one in kinds.items()}, by)


def kinds_of(fields: Fields, kinds: dict[str, Shape | None], by: str = "type") -> Shape:
    """The same, of kinds whose names are no Python names."""
    told = {name: one and Shape(fields | one.fields) for name, one in kinds.items()}
    return Shape(fields, told, by)


def many(shape: Shape) -> Shape:
    """A list of such objects."""
    return msgspec.structs.replace(shape, types=_OBJECTS, words="a list")


def also(shape: Shape, *types: type) -> Shape:
    """The shape, or one of these in its place."""
    names: dict[type, str] = {str: "a string", list: "a list"}
    words = " or ".join([*(names[one] for one in types), shape.words])
    return msgspec.structs.replace(shape, types=shape.types | frozenset(types), words=words)


def unknown(request: NeutralRequest, body: dict[str, Any], known: Iterable[str]) -> None:
    """Note the fields nobody reads; null is as good as absent."""
    found = set(known)
    request.unknown += [name for name, value in body.items() if name not in found and value is not None]


class _MistypedError(Exception):
    """A value of another type than its field has, with the way to it, innermost step first."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words
        self.steps: list[str] = []


def leave_out(
    request: NeutralRequest,
    value: Any,
    shape: Shape,
    where: str = "",
    *,
    at: str = "",
    spelt: _Spelt = None,
) -> None:
    """Hold a request against its shape: note the fields nobody reads, further in than the top (null and empty ones are
    as good as absent). `spelt` is the name a key stands for, `at` where the value stands if `where` does not say it.
    Raises TranslationError for a value of another type.
    """
    try:
        if isinstance(value, dict):
            _object(request, value, shape, where, spelt)
    except _MistypedError as wrong:
        path = "".join([where or at, *reversed(wrong.steps)])
        raise TranslationError(path.removeprefix("."), f"must be {wrong.words}") from None


def _objects(request: NeutralRequest, value: list[Any], shape: Shape, where: str, spelt: _Spelt) -> None:
    inside = f"{where}[]"
    index = -1
    try:
        for item in value:
            index += 1
            if not isinstance(item, dict):
                raise _MistypedError("an object")
            _object(request, item, shape, inside, spelt)
    except _MistypedError as wrong:
        wrong.steps.append(f"[{index}]")
        raise


def _object(request: NeutralRequest, value: dict[str, Any], shape: Shape, where: str, spelt: _Spelt) -> None:
    fields = shape.of(value)
    if fields is None:
        return
    name = ""
    try:
        for name, inner in value.items():
            if inner is None:
                continue
            within = fields.get(name if spelt is None else spelt(name), _UNKNOWN)
            if within is None:
                continue
            if within is _UNKNOWN:
                if where and inner not in ("", [], {}):
                    request.leave(f"{where}.{name}")
            elif type(inner) not in within.types:
                raise _MistypedError(within.words)
            elif isinstance(within, Leaf):
                if within.inner is not None and isinstance(inner, list):
                    _strings(inner)
            elif isinstance(inner, dict):
                _object(request, inner, within, f"{where}.{name}" if where else name, spelt)
            elif isinstance(inner, list):
                _objects(request, inner, within, f"{where}.{name}" if where else name, spelt)
    except _MistypedError as wrong:
        wrong.steps.append(f".{name}")
        raise


def _strings(value: list[Any]) -> None:
    for index, item in enumerate(value):
        if not isinstance(item, str):
            wrong = _MistypedError(_LEAVES["str"].words)
            wrong.steps.append(f"[{index}]")
            raise wrong
