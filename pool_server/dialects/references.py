"""The ids of things a provider keeps, as request bodies name them and answers bring them.

A body in one of the shapes that clients nearly always send names nothing (`wire.plain`). Any other is searched
for the few names that can hold an id; only one that has such a name is decoded and walked. What a client or a model
wrote freely (a tool's arguments and schemas, metadata, annotations) holds no reference: the same names may stand there
for things of the client's own.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator
from json import JSONDecoder
from typing import Any
from urllib.parse import unquote

from pool_server.core.enums import ApiFamily, Dialect, ObjectKind
from pool_server.dialects.specs import SPECS
from pool_server.dialects.types import BadBodyError

Reference = tuple[ObjectKind, str]
Pairs = list[tuple[str, Any]]

MOST = 1000  # references of one body; beyond, it is refused
_LONGEST = 500  # characters of an id

# Names to search for: without the quote that begins them, so that a search may skip far, with the one that ends them,
# so that words in a text do not count. OpenAI's many names in `_id` and `_ids` are found in one pass.
_IDS = re.compile(rb'_ids?"(?<=file_id"|ile_ids"|tore_id"|ore_ids"|onse_id"|iner_id"|kill_id")')
# A letter, digit, underscore or hyphen written as an escape: no JSON writer does that, who hides a name may.
_ESCAPED = re.compile(rb"\\u00(?:2[dD]|3\d|[46][1-9a-fA-F]|5[0-9aAfF]|7[0-9aA])")

_OPAQUE = frozenset(
    (
        "metadata", "client_metadata", "labels", "arguments", "parameters", "parametersJsonSchema",
        "parameters_json_schema", "input_schema", "schema", "json_schema", "responseSchema", "response_schema",
        "responseJsonSchema", "response_json_schema", "args", "annotations", "citations", "action", "logit_bias",
        "headers",
    )
)  # fmt: skip
_TOOL_USES = frozenset(("tool_use", "server_tool_use", "mcp_tool_use"))
_VENDOR_SKILLS = "anthropic"

_SUFFIXES: tuple[tuple[str, ObjectKind], ...] = (
    ("file_id", ObjectKind.FILE),
    ("file_ids", ObjectKind.FILE),
    ("vector_store_id", ObjectKind.VECTOR_STORE),
    ("vector_store_ids", ObjectKind.VECTOR_STORE),
    ("response_id", ObjectKind.RESPONSE),
    ("container_id", ObjectKind.CONTAINER),
    ("skill_id", ObjectKind.SKILL),
)
_NAMED = {  # a string that is the id, or an object that has it
    "container": ObjectKind.CONTAINER,
    "conversation": ObjectKind.CONVERSATION,
    "prompt": ObjectKind.PROMPT,
    "voice": ObjectKind.VOICE,
    "video": ObjectKind.VIDEO,
    "characters": ObjectKind.CHARACTER,
}
_OBJECT_ONLY = frozenset(("prompt", "voice", "video", "characters"))  # as a string these are words, not ids
_INPUT = frozenset(("input", "items"))  # lists of items, where an id alone stands for a stored item
_FUNCTION_RESPONSE = frozenset(("functionResponse", "function_response"))
_GOOGLE_NAMES = {
    "files": ObjectKind.FILE,
    "cachedContents": ObjectKind.CACHE,
    "batches": ObjectKind.BATCH,
    "operations": ObjectKind.OPERATION,
    "fileSearchStores": ObjectKind.SEARCH_STORE,
}
_GOOGLE_KEYS = frozenset(
    (
        "fileUri", "file_uri", "cachedContent", "cached_content", "fileName", "file_name", "responsesFile",
        "responses_file", "fileSearchStoreNames", "file_search_store_names", "uri",
    )
)  # fmt: skip
_GOOGLE_FILE = re.compile(r"https?://[^/?#]+/(?:download/)?v\d+\w*/files/([^/:?#]+)(?::download)?(?:\?.*)?")


class TooManyReferencesError(BadBodyError):
    """The body names more objects than any request does, or cannot be decoded."""


def references(dialect: Dialect, data: bytes, *, bare_items: bool = False) -> list[Reference]:
    """The objects a JSON body names, each once. `bare_items`: an input has items that may be nothing but an id.

    Raises `TooManyReferencesError`; a body that is no JSON names none.
    """
    if not bare_items and (_shapes()(dialect, data) or not _marked(dialect, data)):
        return []
    return _walked(dialect, data)


@functools.cache
def _shapes() -> Callable[[Dialect, bytes], bool]:
    """`plain`, whose shapes a start does without."""
    from pool_server.dialects.wire.plain import plain

    return plain


def _marked(dialect: Dialect, data: bytes) -> bool:
    # From the end: CPython searches long data backwards more than twice as fast, and nearly all have no mark.
    for mark in SPECS[dialect].marks:
        if data.rfind(mark) >= 0:
            return True
    if SPECS[dialect].family is ApiFamily.OPENAI and _IDS.search(data) is not None:
        return True
    return data.rfind(rb"\u00") >= 0 and _ESCAPED.search(data) is not None


def _walked(dialect: Dialect, data: bytes) -> list[Reference]:
    try:
        # Every value of a name that stands twice counts: which of them a provider reads is not known.
        tree = _DECODER.decode(data.decode("utf-8", "surrogatepass"))
    except (ValueError, UnicodeDecodeError):
        return []
    except RecursionError:
        raise TooManyReferencesError("the request body is nested too deep") from None
    read = _google if SPECS[dialect].family is ApiFamily.GOOGLE else _openai
    found: dict[Reference, None] = {}
    for reference in _nodes(tree, read):
        found[reference] = None
        if len(found) > MOST:
            raise TooManyReferencesError(f"the request names more than {MOST} objects")
    return list(found)


class _Object:
    """A JSON object with all its pairs, also those of one name."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs

    def texts(self, name: str) -> list[str]:
        return [value for key, value in self.pairs if key == name and isinstance(value, str)]

    def has(self, *names: str) -> bool:
        return any(key in names and value for key, value in self.pairs)


_DECODER = JSONDecoder(object_pairs_hook=_Object)


def _nodes(tree: Any, read: Callable[[_Object, str, Any], Iterator[Reference]]) -> Iterator[Reference]:
    """Every reference below `tree`, without recursion."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, _Object):
            types = node.texts("type")
            hidden = frozenset(("input",)) if types and _TOOL_USES.issuperset(types) else frozenset()
            for key, value in node.pairs:
                if key in _OPAQUE or key in hidden:
                    continue
                yield from read(node, key, value)
                if isinstance(value, list):
                    if key in _INPUT:
                        yield from _stored_items(value)
                    waiting.append(value)
                elif isinstance(value, _Object):
                    waiting += _below(key, value)


def _below(key: str, value: _Object) -> list[Any]:
    """What may hold references in an object: what a client's function answered does not."""
    if key not in _FUNCTION_RESPONSE:
        return [value]
    return [inner for name, inner in value.pairs if name != "response"]


def _stored_items(items: list[Any]) -> Iterator[Reference]:
    """The items of an input that stand for a stored one: `item_reference`, whose type may be left out."""
    for item in items:
        if isinstance(item, _Object) and ("item_reference" in item.texts("type") or not item.has("type", "role")):
            yield from _ids(ObjectKind.ITEM, item.texts("id"))


def _openai(node: _Object, key: str, value: Any) -> Iterator[Reference]:
    """OpenAI's and Anthropic's names."""
    if key in _NAMED:
        kind = _NAMED[key]
        for held in value if isinstance(value, list) else (value,):
            if isinstance(held, _Object):
                yield from _ids(kind, held.texts("id"))
            elif key not in _OBJECT_ONLY:
                yield from _ids(kind, held)
        return
    for suffix, kind in _SUFFIXES:
        if key.endswith(suffix):
            if kind is not ObjectKind.SKILL or set(node.texts("type")) != {_VENDOR_SKILLS}:
                yield from _ids(kind, value)
            return


def _google(node: _Object, key: str, value: Any) -> Iterator[Reference]:
    if key not in _GOOGLE_KEYS:
        return
    for text in value if isinstance(value, list) else (value,):
        if isinstance(text, str):
            found = google_name(text)
            if found is not None:
                yield found


def google_name(text: str) -> Reference | None:
    """The object a resource name (`files/ID`, `models/M/operations/ID`) or a Google address stands for.

    None for an address elsewhere (a video, a page). What leads to Google in no known form is a file nobody has.
    """
    match = _GOOGLE_FILE.fullmatch(text)
    if match is not None:
        return ObjectKind.FILE, unquote(match[1])
    if "://" not in text:
        collection, _, ident = text.rpartition("/")
        kind = _GOOGLE_NAMES.get(collection.rpartition("/")[2])
        return (kind, unquote(ident)) if kind is not None and ident else (ObjectKind.FILE, text)
    return (ObjectKind.FILE, text) if "googleapis" in unquote(text).lower() else None


def _ids(kind: ObjectKind, value: Any) -> Iterator[Reference]:
    for text in value if isinstance(value, list) else (value,):
        if isinstance(text, str) and text:
            yield kind, text[:_LONGEST]


def field_references(name: str, value: str) -> list[Reference]:
    """The objects a form's field names; `name` as it stands there (`file_ids[]`, `input_reference[file_id]`)."""
    names = [part for part in name.replace("]", "").split("[") if part]
    if not names or set(names[:-1]) & _OPAQUE:
        return []
    if names[-1] == "id" and len(names) > 1:
        return list(_openai(_Object([]), names[-2], _Object([("id", value)])))
    return list(_openai(_Object([]), names[-1], value))


def made(dialect: Dialect, kind: ObjectKind | None, data: bytes) -> list[Reference]:
    """The objects a whole JSON answer brings: the one of `kind` it made, first, and those it names.

    An answer that is no JSON object brings none.
    """
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        return []
    if not isinstance(answer, dict):
        return []
    found: list[Reference] = []
    if kind is not None:
        found += _made(dialect, kind, answer)
    try:
        found += _walked(dialect, data)
    except TooManyReferencesError:
        pass  # those beyond are not the caller's to use
    return list(dict.fromkeys(found))


def _made(dialect: Dialect, kind: ObjectKind, answer: dict[str, Any]) -> list[Reference]:
    if SPECS[dialect].family is ApiFamily.GOOGLE:
        inner = answer.get("file")
        name = inner.get("name") if isinstance(inner, dict) else answer.get("name")
        named = google_name(name) if isinstance(name, str) else None
        return [named] if named is not None and named[0] is kind else []
    inner = answer.get("file")
    told = inner.get("id") if kind is ObjectKind.FILE and isinstance(inner, dict) else answer.get("id")
    return list(_ids(kind, told))
