"""Tools between vendors: names and ids each will take, and schemas it will not refuse.

Names map one to one within a request, whatever they shorten to, and depend on nothing but themselves and the names
that stay as they are: the same tool has the same name on every turn.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b
from types import NoneType
from typing import Any

import msgspec

from pool_server.dialects.translation.neutral import NeutralRequest, Result, Tool, ToolCall, UpstreamKind

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_GEMINI_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,63}")
_ODD = re.compile(r"[^A-Za-z0-9_-]+")
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
# What models write around a tool's name: the namespace their prompt has it in, the channel they call it from.
_AROUND = re.compile(r"^(?:default_api|functions)[.:]+|<\|.*$|\s+$", re.DOTALL)
_MOST_NODES = 20_000  # parts of one schema that are looked at; a larger one passes as it is
_COMBINERS = ("anyOf", "oneOf", "allOf")
_RAW_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def short(text: str, size: int = 64) -> str:
    """A name of at most `size` plain characters that ends in a hash of the whole `text`."""
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
    head = _ODD.sub("_", text)[: size - len(digest) - 1].lstrip("-0123456789")
    return f"{head or 'n'}_{digest}"


class ToolNames:
    """Tool names as the upstream takes them, and back."""

    def __init__(self, names: Iterable[str], upstream: UpstreamKind) -> None:
        fits = _GEMINI_NAME if upstream in (UpstreamKind.GEMINI, UpstreamKind.CODE_ASSIST) else _NAME
        known = dict.fromkeys(names)
        self._up = {name: name for name in known if fits.fullmatch(name)}
        self._down: dict[str, str] = {}
        for name in known:
            if name in self._up:
                continue
            other, salt = short(name), 0
            while other in self._up or other in self._down:
                salt += 1
                other = short(f"{name}#{salt}")
            self._down[other] = name
        self._up.update({name: other for other, name in self._down.items()})
        self._taken = frozenset(self._up.values())
        self.changed = bool(self._down)

    def up(self, name: str) -> str:
        return self._up.get(name, name)

    def down(self, name: str) -> str:
        """The client's name of the tool that an answer calls."""
        if name in self._down:
            return self._down[name]
        if name not in self._up and (bare := _AROUND.sub("", name)) in self._taken:
            return self._down.get(bare, bare)
        return name


def names_of(request: NeutralRequest) -> list[str]:
    """Every tool name of a request, the offered ones first."""
    names = [tool.name for tool in request.tools]
    names += request.choice.names if request.choice else []
    return names + [p.name for m in request.messages for p in m.parts if isinstance(p, (ToolCall, Result)) and p.name]


def plain_id(ident: str) -> str:
    """A call id every vendor takes: as it is, or short with a hash; equal ids stay equal, others apart."""
    return ident if _ID.fullmatch(ident) else short(ident)


def arguments_object(arguments: str) -> tuple[msgspec.Raw, bool]:
    """(the arguments as a JSON object, whether they were one). The text is kept as it is: numbers stay exact."""
    text = arguments.strip()
    if not text:
        return msgspec.Raw(b"{}"), True
    data = text.encode("utf-8", "replace")
    try:
        _RAW_FIELDS.decode(data)
        return msgspec.Raw(data), True
    except (msgspec.MsgspecError, RecursionError):
        return msgspec.Raw(msgspec.json.encode({"arguments": arguments})), False


def emulated(tool: Tool) -> Tool:
    """A custom tool as a function of one text."""
    about = tool.description
    if isinstance(tool.format, dict) and isinstance(tool.format.get("definition"), str):
        syntax = tool.format.get("syntax") or "grammar"
        about += f"\n\nThe input follows this {syntax}:\n{tool.format['definition']}"
    schema = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
    return Tool(tool.name, about.strip(), schema, None)


def emulated_input(arguments: str) -> str:
    """The free text within an emulated custom tool's arguments; what is none is passed as it is."""
    try:
        found = msgspec.json.decode(arguments)
    except (msgspec.MsgspecError, RecursionError):
        return arguments
    if isinstance(found, dict) and isinstance(found.get("input"), str):
        return str(found["input"])
    return arguments


def is_plain(schema: dict[str, Any]) -> bool:
    """Whether a schema's root goes up as it is: a plain object, or nothing said."""
    plain = schema.get("type") == "object" and not any(key in schema for key in (*_COMBINERS, "$ref"))
    return not schema or (plain and isinstance(schema.get("properties", {}), (dict, NoneType)))


def object_schema(schema: dict[str, Any] | None) -> dict[str, Any]:
    """A schema whose root is a plain object, as vendors demand: root references are followed, branches merged."""
    if not schema:
        return {"type": "object", "properties": {}}
    if schema.get("type") == "object" and not any(key in schema for key in (*_COMBINERS, "$ref")):
        return schema if isinstance(schema.get("properties"), dict) else {**schema, "properties": {}}
    merged: dict[str, Any] = {"type": "object", "properties": {}}
    required: list[str] | None = None
    for branch, optional in _branches(schema):
        for name, value in _object(branch.get("properties")).items():
            merged["properties"].setdefault(name, value)
        need = _strings(branch.get("required"))
        if optional:
            required = need if required is None else [name for name in required if name in need]
        else:
            merged.setdefault("required", []).extend(need)
        if "description" in branch:
            merged.setdefault("description", branch["description"])
    if needed := list(dict.fromkeys([*merged.get("required", ()), *(required or ())])):
        merged["required"] = needed
    for key in ("$defs", "definitions", "additionalProperties"):
        if key in schema:
            merged[key] = schema[key]
    return merged


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _branches(schema: dict[str, Any]) -> list[tuple[dict[str, Any], bool]]:
    """The root and what it refers to or combines, each with whether it is one of several alternatives."""
    found: list[tuple[dict[str, Any], bool]] = []
    todo: list[tuple[Any, bool]] = [(schema, False)]
    met: set[int] = set()
    while todo and len(found) < 100:
        branch, optional = todo.pop(0)
        if not isinstance(branch, dict) or id(branch) in met:
            continue
        met.add(id(branch))
        found.append((branch, optional))
        if isinstance(branch.get("$ref"), str):
            todo.append((_target(schema, branch["$ref"]), optional))
        todo += [(each, optional) for each in _list(branch.get("allOf"))]
        todo += [(each, True) for key in ("anyOf", "oneOf") for each in _list(branch.get(key))]
    return found


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _target(root: dict[str, Any], ref: str) -> Any:
    """What a reference within the document points to; None for others."""
    if not ref.startswith("#/"):
        return None
    value: Any = root
    for step in ref[2:].split("/"):
        value = value.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(value, dict) else None
    return value


def _children(node: dict[str, Any]) -> list[Any]:
    """The schemas directly within a schema; a property's name is never taken for a keyword."""
    found: list[Any] = []
    for key in ("properties", "$defs", "definitions", "patternProperties"):
        found += _object(node.get(key)).values()
    for key in (*_COMBINERS, "prefixItems"):
        found += _list(node.get(key))
    for key in ("items", "additionalProperties", "not", "if", "then", "else"):
        value = node.get(key)
        found += value if isinstance(value, list) else [value]
    return found


def is_strict(schema: dict[str, Any]) -> bool:
    """Whether OpenAI's strict mode would take the schema: every object closed, every property required."""
    todo: list[Any] = [schema]
    for count, node in enumerate(todo):
        if count > _MOST_NODES:
            return False
        if not isinstance(node, dict):
            continue
        properties = node.get("properties")
        if node.get("type") == "object" or properties is not None:
            if node.get("additionalProperties") is not False:
                return False
            if set(_object(properties)) - set(_strings(node.get("required"))):
                return False
        todo += _children(node)
    return True


def _strings(value: Any) -> list[str]:
    return [each for each in _list(value) if isinstance(each, str)]


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with every object closed, as Claude's structured output demands; a copy where it changes."""
    copy: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(schema))
    todo: list[Any] = [copy]
    for count, node in enumerate(todo):
        if count > _MOST_NODES:
            return schema
        if isinstance(node, dict):
            if node.get("type") == "object" or "properties" in node:
                node["additionalProperties"] = False
            todo += [child for child in _children(node) if isinstance(child, dict)]
    return copy
