"""Messages requests: written for an account."""

from __future__ import annotations

from typing import Any

import msgspec

from pool_server.dialects.translation import fields
from pool_server.dialects.translation.conformance import Feature, Notes
from pool_server.dialects.translation.neutral import (
    Format,
    Media,
    Message,
    NeutralRequest,
    Part,
    Reasoning,
    Result,
    Role,
    Text,
    Tool,
    ToolCall,
)
from pool_server.dialects.translation.options import DEFAULT_OUTPUT, claude, claude_thinking
from pool_server.dialects.translation.tools import (
    ToolNames,
    arguments_object,
    closed,
    emulated,
    is_strict,
    object_schema,
    plain_id,
)

VERSION = "2023-06-01"  # the API version whose fields are written below
_MARK = {"type": "ephemeral"}
_JSON_ONLY = "Answer with one JSON object and nothing else: no prose, no code fence."


def write_request(
    request: NeutralRequest,
    messages: list[Message],
    notes: Notes,
    names: ToolNames,
    *,
    session: str = "",
    count: bool = False,
) -> dict[str, Any]:
    """The body, its messages last: what stays the same from turn to turn comes first. The cache mark of the newest
    turn stands at the top for the same reason: in a block it would move. `count` writes what counting takes."""
    options, facts = request.options, claude(request.model)
    body: dict[str, Any] = {"model": request.model}
    if not count:
        if request.stream:
            body["stream"] = True
        limit = options.max_output if options.max_output is not None else DEFAULT_OUTPUT
        body["max_tokens"] = max(1, min(limit, facts.most_output))
        if session:
            body["metadata"] = {"user_id": session}
        if options.stop:
            body["stop_sequences"] = options.stop
        if options.tier:
            body["service_tier"] = "standard_only" if options.tier == "default" else "auto"
        body["cache_control"] = _MARK
    _tools(request, body, names)
    _thinking(request, body, messages, notes)
    if not count:
        _sampling(request, body, notes)
    system = [part for message in messages if message.role in (Role.SYSTEM, Role.DEVELOPER) for part in message.parts]
    texts = [part.text for part in system if isinstance(part, Text) and part.text]
    if request.format is not None:
        texts += _format(request.format, body, facts.structured)
    if texts:
        body["system"] = [{"type": "text", "text": text} for text in texts]
        body["system"][-1]["cache_control"] = _MARK
    _late_system(messages, notes)
    body["messages"] = _turns(messages, notes, names)
    return body


def _late_system(messages: list[Message], notes: Notes) -> None:
    said = False
    for message in messages:
        system = message.role in (Role.SYSTEM, Role.DEVELOPER)
        if system and said:
            notes.about(Feature.LATE_SYSTEM, "joins the system text")
        said = said or not system


def _tools(request: NeutralRequest, body: dict[str, Any], names: ToolNames) -> None:
    choice = request.choice
    narrowed = choice.names if choice is not None and (len(choice.names) > 1 or choice.mode == "auto") else []
    offered = [tool for tool in request.tools if not narrowed or tool.name in narrowed]
    tools = [_tool(emulated(tool) if tool.custom else tool, names, request.model) for tool in offered]
    search = request.web_search
    if search is not None:
        shape: dict[str, Any] = {"type": "web_search_20250305", "name": "web_search"}
        if search.max_uses is not None:
            shape["max_uses"] = search.max_uses
        if search.allowed:
            shape["allowed_domains"] = search.allowed
        elif search.blocked:
            shape["blocked_domains"] = search.blocked
        if search.location:
            shape["user_location"] = search.location
        tools.append(shape)
    if not tools:
        return
    tools[-1]["cache_control"] = _MARK
    body["tools"] = tools
    kinds: dict[str, dict[str, Any]] = {"auto": {"type": "auto"}, "none": {"type": "none"}, "required": {"type": "any"}}
    chosen: dict[str, Any] | None = None
    if choice is not None:
        chosen = kinds[choice.mode]
        if choice.mode == "required" and len(choice.names) == 1:
            chosen = {"type": "tool", "name": names.up(choice.names[0])}
    if request.options.parallel is False and (chosen is None or chosen["type"] != "none"):
        chosen = {**(chosen or {"type": "auto"}), "disable_parallel_tool_use": True}
    if chosen is not None:
        body["tool_choice"] = chosen


def _tool(tool: Tool, names: ToolNames, model: str) -> dict[str, Any]:
    shape: dict[str, Any] = {"name": names.up(tool.name)}
    if tool.description:
        shape["description"] = tool.description
    shape["input_schema"] = object_schema(tool.schema)
    if tool.strict and claude(model).structured and is_strict(shape["input_schema"]):
        shape["strict"] = True
    return shape


def _thinking(request: NeutralRequest, body: dict[str, Any], messages: list[Message], notes: Notes) -> None:
    """Thinking gives way to a forced tool, and to a tool loop whose turn has no signed thinking: Claude refuses both
    together with a budget."""
    if request.effort is None:
        return
    thinking, level = claude_thinking(request.effort, request.model, body.get("max_tokens", DEFAULT_OUTPUT))
    if level:
        body["output_config"] = {"effort": level}
    forced = body.get("tool_choice", {}).get("type") in ("any", "tool")
    budget = thinking is not None and thinking["type"] == "enabled"
    if thinking is not None and thinking["type"] != "disabled" and (forced or (budget and _unsigned_loop(messages))):
        notes.about(Feature.EFFORT, "thinking is left out: it excludes a forced tool and calls without their thinking")
        return
    if thinking is not None:
        body["thinking"] = thinking


def _unsigned_loop(messages: list[Message]) -> bool:
    if not messages or messages[-1].role is not Role.TOOL:
        return False
    for message in reversed(messages):
        if message.role is Role.ASSISTANT:
            return not any(isinstance(part, Reasoning) for part in message.parts)
    return False


def _sampling(request: NeutralRequest, body: dict[str, Any], notes: Notes) -> None:
    """Newer models refuse sampling at any value, thinking all but its defaults; one of temperature and top_p goes."""
    options = request.options
    thinks = body.get("thinking", {}).get("type") in ("enabled", "adaptive")
    for name in ("temperature", "top_p", "top_k"):
        value = getattr(options, name)
        if value is None:
            continue
        if thinks or not claude(request.model).sampling or (name == "top_p" and "temperature" in body):
            notes.drop(name)
        else:
            body[name] = max(0, min(value, 1)) if name != "top_k" else value


def _format(format: Format, body: dict[str, Any], structured: bool) -> list[str]:
    """Structured output where the model has it; what asks for it in words elsewhere."""
    if format.schema is None:
        return [_JSON_ONLY]
    schema = closed(object_schema(format.schema))
    if structured:
        config = body.setdefault("output_config", {})
        config["format"] = {"type": "json_schema", "schema": schema}
        return []
    return [f"{_JSON_ONLY} It matches this JSON schema:\n{fields.json_text(schema)}"]


def _turns(messages: list[Message], notes: Notes, names: ToolNames) -> list[dict[str, Any]]:
    """User and assistant in turn: what one role says in a row is one turn, results before words."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.role in (Role.SYSTEM, Role.DEVELOPER):
            continue
        blocks = [block for part in message.parts for block in _block(part, notes, names)]
        role = "assistant" if message.role is Role.ASSISTANT else "user"
        if not blocks:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    if not turns or turns[0]["role"] == "assistant":
        turns.insert(0, {"role": "user", "content": [{"type": "text", "text": "."}]})
    _trim(turns[-1])
    return turns


def _trim(turn: dict[str, Any]) -> None:
    """Claude refuses an assistant turn that ends the request in blanks."""
    last = turn["content"][-1]
    if turn["role"] == "assistant" and last["type"] == "text":
        last["text"] = last["text"].rstrip() or "."


def _block(part: Part, notes: Notes, names: ToolNames) -> list[dict[str, Any]]:
    """Claude refuses empty text, so none goes up."""
    if isinstance(part, Text):
        return [{"type": "text", "text": part.text}] if part.text.strip() else []
    if isinstance(part, Media):
        return [_media(part)]
    if isinstance(part, ToolCall):
        custom = msgspec.Raw(msgspec.json.encode({"input": part.arguments})) if part.custom else None
        arguments, whole = (custom, True) if custom is not None else arguments_object(part.arguments)
        if not whole:
            notes.about(Feature.BROKEN_ARGUMENTS, "wrapped in an object")
        return [{"type": "tool_use", "id": plain_id(part.id), "name": names.up(part.name), "input": arguments}]
    if isinstance(part, Result):
        shape: dict[str, Any] = {"type": "tool_result", "tool_use_id": plain_id(part.call_id)}
        content = [block for each in part.parts for block in _block(each, notes, names)]
        if len(content) == 1 and content[0]["type"] == "text":
            shape["content"] = content[0]["text"]
        elif content:
            shape["content"] = content
        if part.failed:
            shape["is_error"] = True
        return [shape]
    if part.redacted:
        return [{"type": "redacted_thinking", "data": part.seal}]
    return [{"type": "thinking", "thinking": part.text, "signature": part.seal}]


def _media(part: Media) -> dict[str, Any]:
    kind = "image" if part.kind == "image" else "document"
    if part.url:
        source = {"type": "url", "url": part.url}
    elif (said := fields.document_text(part)) is not None:
        source = {"type": "text", "media_type": "text/plain", "data": said}
    else:
        source = {"type": "base64", "media_type": part.mime, "data": part.data}
    shape: dict[str, Any] = {"type": kind, "source": source}
    if part.name and kind == "document":
        shape["title"] = part.name
    return shape
