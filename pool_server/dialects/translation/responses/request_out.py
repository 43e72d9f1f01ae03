"""Responses requests: written for an account, the ChatGPT backend's among them."""

from __future__ import annotations

from typing import Any

from pool_server.dialects.translation import fields
from pool_server.dialects.translation.conformance import Notes
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
    UpstreamKind,
)
from pool_server.dialects.translation.options import openai_level
from pool_server.dialects.translation.tools import ToolNames, is_strict, object_schema, plain_id

SEALED = "reasoning.encrypted_content"


def write_request(
    request: NeutralRequest,
    messages: list[Message],
    notes: Notes,
    names: ToolNames,
    *,
    upstream: UpstreamKind,
    session: str = "",
) -> dict[str, Any]:
    """The body, its input last: what stays the same from turn to turn comes first. `session` becomes the prompt cache
    key where the client names none."""
    options, codex = request.options, upstream is UpstreamKind.CODEX
    body: dict[str, Any] = {"model": request.model}
    if request.stream or codex:
        body["stream"] = True
    body["store"] = False
    if codex:
        body["instructions"] = ""
    else:
        told = {"temperature": options.temperature, "top_p": options.top_p, "max_output_tokens": options.max_output}
        body |= {name: value for name, value in told.items() if value is not None}
    if tier := _tier(options.tier, codex):
        body["service_tier"] = tier
    if key := options.cache_key or session:
        body["prompt_cache_key"] = key
    if request.effort is not None:
        level = openai_level(request.effort.level, request.model)
        body["reasoning"] = {"effort": level, **({"summary": "auto"} if request.effort.show else {})}
    body["include"] = [SEALED]
    text: dict[str, Any] = {"verbosity": options.verbosity} if options.verbosity else {}
    if request.format is not None:
        text["format"] = _format(request.format)
    if text:
        body["text"] = text
    _tools(request, body, names)
    leading = _leading_system(messages) if not codex else 0
    if leading:
        body["instructions"] = "\n\n".join(message.text() for message in messages[:leading])
    items = [item for message in messages[leading:] for item in _items(message, names, codex)]
    body["input"] = items or [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "."}]}]
    return body


def _tier(tier: str, codex: bool) -> str:
    if codex:
        return "priority" if tier in ("fast", "priority") else ""
    return tier


def _leading_system(messages: list[Message]) -> int:
    count = 0
    while count < len(messages) and messages[count].role is Role.SYSTEM:
        count += 1
    return count


def _format(format: Format) -> dict[str, Any]:
    if format.schema is None:
        return {"type": "json_object"}
    schema = object_schema(format.schema)
    strict = format.strict if format.strict is not None else is_strict(schema)
    shape: dict[str, Any] = {"type": "json_schema", "name": plain_id(format.name), "strict": strict, "schema": schema}
    return shape | ({"description": format.description} if format.description else {})


def _tools(request: NeutralRequest, body: dict[str, Any], names: ToolNames) -> None:
    tools = [_tool(tool, names) for tool in request.tools]
    search = request.web_search
    if search is not None:
        shape: dict[str, Any] = {"type": "web_search"}
        if search.allowed:
            shape["filters"] = {"allowed_domains": search.allowed}
        if search.location:
            shape["user_location"] = search.location
        tools.append(shape)
    if not tools:
        return
    body["tools"] = tools
    choice = request.choice
    if choice is not None:
        chosen = [_chosen(name, request, names) for name in choice.names]
        if len(chosen) == 1 and choice.mode == "required":
            body["tool_choice"] = chosen[0]
        elif chosen:
            body["tool_choice"] = {"type": "allowed_tools", "mode": choice.mode, "tools": chosen}
        else:
            body["tool_choice"] = choice.mode
    if request.options.parallel is not None:
        body["parallel_tool_calls"] = request.options.parallel


def _chosen(name: str, request: NeutralRequest, names: ToolNames) -> dict[str, Any]:
    custom = any(tool.custom and tool.name == name for tool in request.tools)
    return {"type": "custom" if custom else "function", "name": names.up(name)}


def _tool(tool: Tool, names: ToolNames) -> dict[str, Any]:
    shape: dict[str, Any] = {"type": "custom" if tool.custom else "function", "name": names.up(tool.name)}
    if tool.description:
        shape["description"] = tool.description
    if tool.custom:
        return shape | ({"format": tool.format} if tool.format else {})
    # Strict is this API's default; elsewhere it is not.
    return shape | {"parameters": object_schema(tool.schema), "strict": tool.strict or False}


def _items(message: Message, names: ToolNames, codex: bool) -> list[dict[str, Any]]:
    if message.role is Role.TOOL:
        return [_output(part) for part in message.parts if isinstance(part, Result)]
    if message.role is not Role.ASSISTANT:
        role = "developer" if codex and message.role is Role.SYSTEM else message.role.value
        content = [_content(part) for part in message.parts if isinstance(part, (Text, Media))]
        return [{"type": "message", "role": role, "content": content}] if content else []
    items: list[dict[str, Any]] = []
    for part in message.parts:
        if isinstance(part, Text):
            piece = (
                {"type": "refusal", "refusal": part.text}
                if part.refusal
                else {"type": "output_text", "text": part.text}
            )
            if items and items[-1].get("role") == "assistant":
                items[-1]["content"].append(piece)
            else:
                items.append({"type": "message", "role": "assistant", "content": [piece]})
        elif isinstance(part, (ToolCall, Reasoning)):
            items.append(_own(part, names))
    return items


def _own(part: ToolCall | Reasoning, names: ToolNames) -> dict[str, Any]:
    if isinstance(part, Reasoning):
        summary = [{"type": "summary_text", "text": text} for text in part.text.split("\n\n") if text]
        return {"type": "reasoning", "summary": summary, "encrypted_content": part.seal}
    kind, field = ("custom_tool_call", "input") if part.custom else ("function_call", "arguments")
    arguments = part.arguments if part.custom else part.arguments or "{}"
    return {"type": kind, "call_id": plain_id(part.id), "name": names.up(part.name), field: arguments}


def _output(result: Result) -> dict[str, Any]:
    kind = "custom_tool_call_output" if result.custom else "function_call_output"
    parts: list[Part] = list(result.parts)
    if result.failed:
        said = parts.pop(0) if parts and isinstance(parts[0], Text) else Text("")
        parts.insert(0, Text(f"Error: {said.text}" if isinstance(said, Text) else "Error"))
    output: Any = "\n\n".join(part.text for part in parts if isinstance(part, Text))
    if any(isinstance(part, Media) for part in parts):
        output = [_content(part) for part in parts if isinstance(part, (Text, Media))]
    return {"type": kind, "call_id": plain_id(result.call_id), "output": output}


def _content(part: Text | Media) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "input_text", "text": part.text}
    if part.kind == "image":
        return {"type": "input_image", "image_url": fields.data_url(part), "detail": part.detail or "auto"}
    if part.url:
        return {"type": "input_file", "file_url": part.url}
    return {"type": "input_file", "filename": fields.document_name(part), "file_data": fields.data_url(part)}
