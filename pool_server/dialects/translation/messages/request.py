"""Messages requests: read from a client."""

from __future__ import annotations

from typing import Any

from pool_server.core.enums import Dialect
from pool_server.dialects.session import claude_session
from pool_server.dialects.translation import fields
from pool_server.dialects.translation.conformance import Feature, TranslationError
from pool_server.dialects.translation.fields import each, obj, text
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
from pool_server.dialects.translation.shapes import also, either, kinds_of, known, leave_out, many, typed, unknown
from pool_server.dialects.wire.sealed import told_summary

_ROLES = {"user": Role.USER, "assistant": Role.ASSISTANT, "system": Role.SYSTEM}
# What the vendor did by itself: its outcome is in the text that follows.
_SERVER_BLOCKS = fields.words(
    "server_tool_use web_search_tool_result web_fetch_tool_result code_execution_tool_result mcp_tool_use "
    "mcp_tool_result bash_code_execution_tool_result text_editor_code_execution_tool_result tool_search_tool_result"
)
_CITED = many(either("type:str", text=known("text:str")))
_PIECE = {"text": known("text:str"), "search_result": known("title:str source:str", content=_CITED)}
_MARK = known("type:str ttl:str")
_BLOCK = {**typed("type:str"), "cache_control": _MARK}
_SOURCE = either(
    "type:str",
    base64=known("media_type:str data:str"),
    url=known("url:str"),
    text=known("media_type:str data:str"),
    content=known(content=also(many(kinds_of(_BLOCK, {**_PIECE})), str)),
    file=known("file_id:str"),
)
_MEDIA = {"image": known(source=_SOURCE), "document": known("title:str", source=_SOURCE)}
_IN_RESULT = also(many(kinds_of(_BLOCK, {**_PIECE, **_MEDIA, "tool_reference": known("tool_name:str")})), str)
_SUMMARY = many(kinds_of(_BLOCK, {**_PIECE}))
# Claude Code tells Anthropic what a request is billed as by a text that is another on every request: it says nothing to
# any other vendor, and keeps what follows it from being found in a cache.
_BILLING = "x-anthropic-billing-header:"
_BLOCKS = also(
    many(
        kinds_of(
            _BLOCK,
            {
                **_PIECE,
                **_MEDIA,
                "tool_use": known("id:str name:str input:obj"),
                "tool_result": known("tool_use_id:str is_error:bool", content=_IN_RESULT),
                "thinking": known("thinking:str signature:str"),
                "redacted_thinking": known("data:str"),
                "container_upload": known("file_id:str"),
                "compaction": known(content=also(_SUMMARY, str)),
            },
        )
    ),
    str,
)
_FUNCTION = known("name:str description:str input_schema:obj strict:bool", cache_control=_MARK)
_SEARCH = known(
    "name:str max_uses:num allowed_domains:strs blocked_domains:strs",
    cache_control=_MARK,
    user_location=known("type:str country:str region:str city:str timezone:str"),
)
_FORMAT = known("type:str schema:obj")
_KNOWN = known(
    "model:str stream:bool max_tokens:num temperature:num top_p:num top_k:num stop_sequences:strs service_tier:str "
    "speed:str",
    cache_control=_MARK,
    messages=many(known("role:str", content=_BLOCKS)),
    system=_BLOCKS,
    tools=many(kinds_of(typed("type:str"), {"": _FUNCTION, "custom": _FUNCTION, "web_search_*": _SEARCH})),
    tool_choice=known("type:str name:str disable_parallel_tool_use:bool"),
    metadata=known("user_id:str"),
    thinking=known("type:str budget_tokens:num display:str"),
    output_config=known("effort:str", format=_FORMAT),
    output_format=_FORMAT,
)


def read_request(body: dict[str, Any]) -> NeutralRequest:
    """Raises TranslationError where the body is none or holds what no dialect can be told."""
    request = NeutralRequest(model=text(body.get("model")), stream=body.get("stream") is True)
    leave_out(request, body, _KNOWN)
    system = _blocks(request, body.get("system"), "system")
    for part in system:
        if isinstance(part, Text) and part.text.startswith(_BILLING):
            part.text = part.text.partition("\n")[2].lstrip("\n")
            request.leave("system x-anthropic-billing-header")
    if told := [part for part in system if not isinstance(part, Text) or part.text]:
        request.messages.append(Message(Role.SYSTEM, told))
    for where, message in each(body.get("messages"), "messages"):
        _message(request, message, where)
    if body.get("cache_control") is not None:
        request.ask(Feature.CACHE, "cache_control")
    _tools(request, body)
    _options(request, body)
    unknown(request, body, _KNOWN.fields)
    return request


def _message(request: NeutralRequest, message: dict[str, Any], where: str) -> None:
    role = text(message.get("role"))
    if role not in _ROLES:
        raise fields.no_such(role, f"{where}.role")
    parts = _blocks(request, message.get("content"), f"{where}.content")
    request.say(_ROLES[role], parts)


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
    if kind == "tool_reference":  # a search found the tool, which is offered with the others
        return [Text(f"The tool {text(block.get('tool_name'))} can be called now.")]
    if kind == "compaction":
        said = _blocks(request, block.get("content"), f"{where}.content")
        return [Text(told_summary("\n".join(part.text for part in said if isinstance(part, Text))))] if said else []
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
            found = WebSearch(
                fields.strings(tool.get("allowed_domains")),
                fields.strings(tool.get("blocked_domains")),
                fields.place(tool.get("user_location")),
                fields.at_least_one(tool.get("max_uses"), f"{where}.max_uses"),
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
    options.max_output = fields.at_least_one(body.get("max_tokens"), "max_tokens")
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
    _effort(request, obj(body.get("thinking")), config)
    form = obj(config.get("format")) or obj(body.get("output_format"))
    if form.get("type") == "json_schema":
        request.format = Format(obj(form.get("schema")))
        fields.ask_schema(request, obj(form.get("schema")), "output_config.format")
    elif form:
        raise TranslationError("output_config.format.type", f"{text(form.get('type'))[:80]!r} is not known here")


def _effort(request: NeutralRequest, thinking: dict[str, Any], config: dict[str, Any]) -> None:
    """Adaptive thinking with no level is as much as the model finds right: medium elsewhere."""
    kind, level, field = thinking.get("type"), config.get("effort"), "output_config.effort"
    show = thinking.get("display") != "omitted"
    if kind == "disabled":
        request.effort = Effort("none", show=False)
        request.ask(Feature.EFFORT, "thinking")
    elif kind == "enabled":
        budget = fields.at_least_one(thinking.get("budget_tokens"), "thinking.budget_tokens")
        fields.effort(request, field if level else "thinking", level, budget, show=show)
    elif kind == "adaptive":
        fields.effort(request, field if level else "thinking", level or "medium", None, show=show)
    elif kind is not None:
        raise fields.no_such(kind, "thinking.type")
    else:
        fields.effort(request, field, level, None)
