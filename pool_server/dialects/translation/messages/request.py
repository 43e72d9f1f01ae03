"""Messages requests: read from a client."""

from __future__ import annotations

from typing import Any

from pool_server.core.enums import Dialect
from pool_server.dialects.session import claude_session
from pool_server.dialects.translation import fields
from pool_server.dialects.translation.conformance import Feature, TranslationError
from pool_server.dialects.translation.fields import Shape, each, either, known, leave_out, obj, text
from pool_server.dialects.translation.neutral import (
    Effort,
    Format,
    Media,
    Message,
    NeutralRequest,
    Part,
    Reasoning,
    Result,
    Role,
    Text,
    ToolCall,
    WebSearch,
)
from pool_server.dialects.translation.seals import read_seal

_ROLES = {"user": Role.USER, "assistant": Role.ASSISTANT, "system": Role.SYSTEM}
# What the vendor did by itself: its outcome is in the text that follows.
_SERVER_BLOCKS = fields.words(
    "server_tool_use web_search_tool_result web_fetch_tool_result code_execution_tool_result mcp_tool_use "
    "mcp_tool_result bash_code_execution_tool_result text_editor_code_execution_tool_result tool_search_tool_result"
)
_PIECE = {"text": known("text"), "search_result": known("title source", content=either("type", text=known("text")))}
_SOURCE = either(
    "type",
    base64=known("media_type data"),
    url=known("url"),
    text=known("media_type data"),
    content=known(content=Shape({"type": None, "cache_control": None}, {**_PIECE})),
    file=known("file_id"),
)
_MEDIA = {"image": known(source=_SOURCE), "document": known("title", source=_SOURCE)}
_IN_RESULT = Shape({"type": None, "cache_control": None}, {**_PIECE, **_MEDIA})
_BLOCKS = Shape(
    {"type": None, "cache_control": None},
    {
        **_PIECE,
        **_MEDIA,
        "tool_use": known("id name input"),
        "tool_result": known("tool_use_id is_error", content=_IN_RESULT),
        "thinking": known("thinking signature"),
        "redacted_thinking": known("data"),
        "container_upload": known("file_id"),
    },
)
_FUNCTION = known("name description input_schema strict cache_control")
_SEARCH = known(
    "name max_uses allowed_domains blocked_domains cache_control",
    user_location=known("type country region city timezone"),
)
_FORMAT = known("type schema")
_KNOWN = known(
    "model stream max_tokens temperature top_p top_k stop_sequences service_tier speed cache_control",
    messages=known("role", content=_BLOCKS),
    system=_BLOCKS,
    tools=Shape({"type": None}, {"": _FUNCTION, "custom": _FUNCTION, "web_search_*": _SEARCH}),
    tool_choice=known("type name disable_parallel_tool_use"),
    metadata=known("user_id"),
    thinking=known("type budget_tokens display"),
    output_config=known("effort", format=_FORMAT),
    output_format=_FORMAT,
)


def read_request(body: dict[str, Any]) -> NeutralRequest:
    """Raises TranslationError where the body is none or holds what no dialect can be told."""
    request = NeutralRequest(model=text(body.get("model")), stream=body.get("stream") is True)
    system = _blocks(request, body.get("system"), "system")
    if system:
        request.messages.append(Message(Role.SYSTEM, system))
    for where, message in each(body.get("messages"), "messages"):
        _message(request, message, where)
    if body.get("cache_control") is not None:
        request.ask(Feature.CACHE, "cache_control")
    _tools(request, body)
    _options(request, body)
    fields.unknown(request, body, _KNOWN.fields)
    leave_out(request, body, _KNOWN)
    return request


def _message(request: NeutralRequest, message: dict[str, Any], where: str) -> None:
    role = text(message.get("role"))
    if role not in _ROLES:
        raise fields.no_such(role, f"{where}.role")
    parts = _blocks(request, message.get("content"), f"{where}.content")
    results: list[Part] = [part for part in parts if isinstance(part, Result)]
    if results:
        request.messages.append(Message(Role.TOOL, results))
        parts = [part for part in parts if not isinstance(part, Result)]
    if parts:
        request.messages.append(Message(_ROLES[role], parts))


def _blocks(request: NeutralRequest, content: Any, where: str) -> list[Part]:
    if isinstance(content, str):
        return [Text(content)] if content else []
    found: list[Part] = []
    for at, block in each(content, where):
        found += _block(request, block, at)
    return found


def _block(request: NeutralRequest, block: dict[str, Any], where: str) -> list[Part]:
    kind = text(block.get("type"))
    if block.get("cache_control") is not None:
        request.ask(Feature.CACHE, f"{where}.cache_control")
    if kind == "text":
        return [Text(text(block.get("text")))] if block.get("text") else []
    if kind in ("image", "document"):
        return _source(request, block, f"{where}.source")
    if kind == "tool_use":
        return [ToolCall(text(block.get("id")), text(block.get("name")), fields.json_text(obj(block.get("input"))))]
    if kind == "tool_result":
        return [_result(request, block, where)]
    if kind == "thinking":
        return [read_seal(Dialect.MESSAGES, text(block.get("thinking")), text(block.get("signature")))]
    if kind == "redacted_thinking":
        found = read_seal(Dialect.MESSAGES, "", text(block.get("data")))
        return [Reasoning("", found.family, found.seal, redacted=True)]
    if kind == "search_result":
        head = "\n".join(filter(None, (text(block.get("title")), text(block.get("source")))))
        return [Text(head), *_blocks(request, block.get("content"), f"{where}.content")]
    if kind in _SERVER_BLOCKS:
        request.ask(Feature.SERVER_HISTORY, where)
        return []
    if kind == "container_upload":
        request.ask(Feature.VENDOR_FILE, f"{where}.file_id")
        return []
    raise fields.no_such(kind, f"{where}.type")


def _source(request: NeutralRequest, block: dict[str, Any], where: str) -> list[Part]:
    kind, source = text(block.get("type")), obj(block.get("source"))
    form, name = source.get("type"), text(block.get("title"))
    if form == "base64":
        mime = text(source.get("media_type")) or ("image/png" if kind == "image" else "application/pdf")
        return [fields.inline_media(request, mime, text(source.get("data")), where, name=name)]
    if form == "url":
        return [fields.media(request, kind, f"{where}.url", text(source.get("url")), name=name)]
    if form == "text":
        return [Text("\n".join(filter(None, (name, text(source.get("data"))))))]
    if form == "content":
        return _blocks(request, source.get("content"), f"{where}.content")
    if form == "file":
        request.ask(Feature.VENDOR_FILE, f"{where}.file_id")
        return []
    raise fields.no_such(form, f"{where}.type")


def _result(request: NeutralRequest, block: dict[str, Any], where: str) -> Result:
    parts = [
        part for part in _blocks(request, block.get("content"), f"{where}.content") if isinstance(part, (Text, Media))
    ]
    if any(isinstance(part, Media) for part in parts):
        request.ask(Feature.RESULT_MEDIA, f"{where}.content")
    failed = block.get("is_error") is True
    if failed:
        request.ask(Feature.FAILED_RESULT, f"{where}.is_error")
    return Result(text(block.get("tool_use_id")), parts, failed=failed)


def _tools(request: NeutralRequest, body: dict[str, Any]) -> None:
    for where, tool in each(body.get("tools"), "tools"):
        kind = text(tool.get("type"))
        if tool.get("cache_control") is not None:
            request.ask(Feature.CACHE, f"{where}.cache_control")
        if kind in ("", "custom"):
            fields.function_tool(request, tool, where, tool.get("input_schema"))
        elif kind.startswith("web_search_"):
            most = tool.get("max_uses")
            found = WebSearch(
                fields.strings(tool.get("allowed_domains")),
                fields.strings(tool.get("blocked_domains")),
                fields.place(tool.get("user_location")),
                most if isinstance(most, int) and not isinstance(most, bool) else None,
            )
            fields.search_tool(request, found, f"{where} {kind}")
        elif kind.rpartition("_")[2].isdigit() or kind == "mcp_toolset":
            request.ask(Feature.SERVER_TOOLS, f"{where} {kind}")
        else:
            raise fields.no_such(kind, f"{where}.type")
    if body.get("mcp_servers"):
        request.ask(Feature.SERVER_TOOLS, "mcp_servers")
    choice = obj(body.get("tool_choice"))
    wanted, name = choice.get("type"), text(choice.get("name"))
    if wanted == "tool" and name:
        fields.choose(request, "required", [name], "tool_choice")
    elif wanted in ("auto", "any", "none"):
        fields.choose(request, "required" if wanted == "any" else str(wanted), [], "tool_choice")
    elif wanted is not None:
        raise fields.no_such(wanted, "tool_choice.type")
    if isinstance(serial := choice.get("disable_parallel_tool_use"), bool):
        request.options.parallel = not serial
        if serial:
            request.ask(Feature.SERIAL, "tool_choice.disable_parallel_tool_use")


def _options(request: NeutralRequest, body: dict[str, Any]) -> None:
    options = request.options
    options.max_output = fields.whole(body.get("max_tokens"), "max_tokens")
    options.temperature = fields.number(body.get("temperature"), "temperature")
    options.top_p = fields.number(body.get("top_p"), "top_p")
    options.top_k = fields.whole(body.get("top_k"), "top_k")
    options.stop = fields.stops(body.get("stop_sequences"), "stop_sequences")
    tier, speed = text(body.get("service_tier")), text(body.get("speed"))
    options.tier = (
        "priority" if speed == "fast" or tier in ("fast", "priority") else tier.replace("standard_only", "default")
    )
    user = text(obj(body.get("metadata")).get("user_id"))
    options.session = claude_session(user) or user
    words = {"stop": "stop_sequences", "tier": "speed" if speed else "service_tier", "session": "metadata.user_id"}
    fields.ask_options(request, body, "max_tokens", **words)
    config = obj(body.get("output_config"))
    request.effort = _effort(obj(body.get("thinking")), config)
    if request.effort is not None:
        request.ask(Feature.EFFORT, "thinking" if body.get("thinking") else "output_config.effort")
    form = obj(config.get("format")) or obj(body.get("output_format"))
    if form.get("type") == "json_schema":
        request.format = Format(obj(form.get("schema")))
        request.ask(Feature.SCHEMA, "output_config.format")
    elif form:
        raise TranslationError("output_config.format.type", f"{text(form.get('type'))[:80]!r} is not known here")


def _effort(thinking: dict[str, Any], config: dict[str, Any]) -> Effort | None:
    """Adaptive thinking with no level is as much as the model finds right: medium elsewhere."""
    kind = thinking.get("type")
    if kind == "disabled":
        return Effort("none", show=False)
    show = thinking.get("display") != "omitted"
    if kind == "enabled":
        return fields.effort(config.get("effort"), thinking.get("budget_tokens"), show=show)
    if kind == "adaptive":
        return fields.effort(config.get("effort") or "medium", None, show=show)
    if kind is not None:
        raise fields.no_such(kind, "thinking.type")
    return fields.effort(config.get("effort"), None)
