"""Responses requests: read from a client."""

from __future__ import annotations

from typing import Any

from pool_server.core.enums import Dialect
from pool_server.dialects.translation import fields
from pool_server.dialects.translation.conformance import Feature, TranslationError
from pool_server.dialects.translation.fields import each, obj, text
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
    WebSearch,
)
from pool_server.dialects.translation.responses import compaction
from pool_server.dialects.translation.seals import read_seal
from pool_server.dialects.translation.shapes import also, either, kinds_of, known, leave_out, many, unknown
from pool_server.dialects.wire.sealed import COMPACTED

_ROLES = {"system": Role.SYSTEM, "developer": Role.DEVELOPER, "user": Role.USER, "assistant": Role.ASSISTANT}
_LOGPROBS, _SEALS = "message.output_text.logprobs", "reasoning.encrypted_content"
# What the vendor did by itself: its outcome is in the message that follows.
_SERVER_ITEMS = fields.words(
    "web_search_call file_search_call code_interpreter_call image_generation_call mcp_call mcp_list_tools "
    "mcp_approval_request mcp_approval_response tool_search_call"
)
_OUTPUTS = fields.words("function_call_output custom_tool_call_output local_shell_call_output")
_SERVER_TOOLS = fields.words(
    "file_search code_interpreter image_generation computer computer_use_preview mcp local_shell shell apply_patch "
    "tool_search"
)
_TEXT = known("text:str annotations:list logprobs:list")
_PARTS = either(
    "type",
    input_text=_TEXT,
    output_text=_TEXT,
    text=_TEXT,
    refusal=known("refusal:str"),
    input_image=known("detail:str file_id:str", image_url=also(known("url:str"), str)),
    input_file=known("filename:str file_url:str file_data:str file_id:str"),
    input_audio=known(input_audio=known("data:str format:str")),
)
_CONTENT = also(_PARTS, str, list)
_SAID = known("role:str", content=_CONTENT)
_CALL = known("call_id:str name:str namespace:str arguments:str")
_OUTPUT = known("call_id:str", output=_CONTENT)
_PLACE = known("type:str country:str region:str city:str timezone:str")
_GRAMMAR = either("type:str", grammar=known("syntax:str definition:str"), text=known())
_TOOLS = {
    "function": known("name:str description:str parameters:obj strict:bool"),
    "custom": known("name:str description:str", format=_GRAMMAR),
    "web_search*": known(filters=known("allowed_domains:strs blocked_domains:strs"), user_location=_PLACE),
}
_FORMAT = known("name:str description:str schema:obj strict:bool")
_IN_SPACE = kinds_of({"type": None}, {**_TOOLS})
_OFFERED = many(kinds_of({"type": None}, {**_TOOLS, "namespace": known("name:str", tools=many(_IN_SPACE))}))
_MORE_TOOLS = known("role:str call_id:str execution:str", tools=_OFFERED)
# Fields read below; what the vendor itself gives its items says nothing.
_KNOWN = known(
    "model:str instructions:str stream:bool store:bool include:strs parallel_tool_calls:bool max_output_tokens:num "
    "temperature:num top_p:num top_logprobs:num prompt_cache_key:str service_tier:str previous_response_id:str "
    "conversation background:bool prompt",
    input=also(
        many(
            either(
                "type:str id:str status:str",
                _=_SAID,
                message=_SAID,
                reasoning=known("encrypted_content:str", summary=many(known("type:str text:str"))),
                function_call=_CALL,
                custom_tool_call=known("call_id:str name:str namespace:str input:str"),
                function_call_output=_OUTPUT,
                custom_tool_call_output=_OUTPUT,
                additional_tools=_MORE_TOOLS,
                tool_search_output=_MORE_TOOLS,
                local_shell_call_output=_OUTPUT,
                local_shell_call=known("call_id:str action:obj"),
                agent_message=known("author:str recipient:str", content=_CONTENT),
            )
        ),
        str,
    ),
    tools=_OFFERED,
    tool_choice=also(
        either(
            "type:str",
            function=known("name:str"),
            custom=known("name:str"),
            allowed_tools=known("mode:str", tools=many(known("type:str name:str"))),
        ),
        str,
    ),
    reasoning=known("effort:str summary:str"),
    text=known(
        "verbosity:str",
        format=either("type:str", json_schema=_FORMAT, json_object=known(), text=known()),
    ),
)
_ECHO = fields.words(
    "instructions metadata tools tool_choice parallel_tool_calls temperature top_p max_output_tokens text reasoning "
    "user"
)


def read_request(body: dict[str, Any]) -> NeutralRequest:
    """Raises TranslationError where the body is none or holds what no dialect can be told."""
    request = NeutralRequest(model=text(body.get("model")), stream=body.get("stream") is True)
    leave_out(request, body, _KNOWN)
    request.echo = {name: value for name, value in body.items() if name in _ECHO and value is not None}
    if instructions := text(body.get("instructions")):
        request.messages.append(Message(Role.SYSTEM, [Text(instructions)]))
    if isinstance(body.get("input"), str):
        request.messages.append(Message(Role.USER, [Text(body["input"])]))
    else:
        reader = _Items(request)
        for where, item in each(body.get("input"), "input"):
            reader.item(item, where)
    for where, tool in each(body.get("tools"), "tools"):
        _tool(request, tool, where, "")
    _choice(request, body)
    _options(request, body)
    if _asks_to_compact(body.get("input")):
        compaction.ask(request)
    unknown(request, body, _KNOWN.fields)
    return request


def _asks_to_compact(items: Any) -> bool:
    return isinstance(items, list) and bool(items) and obj(items[-1]).get("type") == compaction.TRIGGER


class _Items:
    """Gathers the items of one assistant turn into one message."""

    def __init__(self, request: NeutralRequest) -> None:
        self._request = request
        self._spoke = False  # the newest item was an assistant's message

    def item(self, item: dict[str, Any], where: str) -> None:
        kind = text(item.get("type", "message"))
        if kind == "message":
            self._message(item, where)
        elif kind == "reasoning":
            self._assistant([self._reasoning(item)], False)
        elif kind in ("function_call", "custom_tool_call"):
            self._assistant([self._call(item)], False)
        elif kind in _OUTPUTS:
            self._output(item, where)
        elif kind in ("additional_tools", "tool_search_output"):
            for at, tool in each(item.get("tools"), f"{where}.tools"):
                _tool(self._request, tool, at, "")
        elif kind == "local_shell_call":
            self._assistant(
                [ToolCall(text(item.get("call_id")), "local_shell", fields.json_text(item.get("action")))], False
            )
        elif kind == "agent_message":
            self._agent(item, where)
        elif kind in COMPACTED:
            self._request.messages.append(compaction.read(self._request, item, where))
        elif kind == compaction.TRIGGER:
            pass  # where it is the last
        elif kind in _SERVER_ITEMS:
            self._request.ask(Feature.SERVER_HISTORY, where)
        elif kind == "item_reference":
            self._request.ask(Feature.STATE, f"{where} item_reference")
        else:
            raise fields.no_such(kind, f"{where}.type")

    def _assistant(self, parts: list[Part], spoke: bool) -> None:
        messages = self._request.messages
        if messages and messages[-1].role is Role.ASSISTANT and not (spoke and self._spoke):
            messages[-1].parts += parts
        else:
            messages.append(Message(Role.ASSISTANT, parts))
        self._spoke = spoke

    def _message(self, item: dict[str, Any], where: str) -> None:
        role = text(item.get("role"))
        if role not in _ROLES:
            raise fields.no_such(role, f"{where}.role")
        parts = _content(self._request, item.get("content"), f"{where}.content")
        if role == "assistant":
            self._assistant(parts, True)
            return
        if role == "developer":
            self._request.ask(Feature.DEVELOPER, f"{where}.role")
        self._request.messages.append(Message(_ROLES[role], parts))

    def _agent(self, item: dict[str, Any], where: str) -> None:
        """What another agent wrote; a part that its vendor has sealed is left out."""
        content = item.get("content")
        told = [part for part in content if obj(part).get("type") == "input_text"] if isinstance(content, list) else []
        if parts := _content(self._request, told, f"{where}.content"):
            self._request.messages.append(Message(Role.USER, parts))

    def _reasoning(self, item: dict[str, Any]) -> Reasoning:
        summary = item.get("summary")
        pieces = [text(obj(part).get("text")) for part in (summary if isinstance(summary, list) else ())]
        found = read_seal(Dialect.RESPONSES, "\n\n".join(filter(None, pieces)), text(item.get("encrypted_content")))
        if found.redacted:
            found.text = ""
        return found

    def _call(self, item: dict[str, Any]) -> ToolCall:
        custom = item.get("type") == "custom_tool_call"
        name, space = text(item.get("name")), text(item.get("namespace"))
        if space:
            name = fields.flatten(self._request, space, name)
        ident = text(item.get("call_id")) or text(item.get("id"))
        return ToolCall(ident, name, text(item.get("input" if custom else "arguments")), custom)

    def _output(self, item: dict[str, Any], where: str) -> None:
        parts = _content(self._request, item.get("output"), f"{where}.output")
        if any(isinstance(part, Media) for part in parts):
            self._request.ask(Feature.RESULT_MEDIA, f"{where}.output")
        result = Result(
            text(item.get("call_id")) or text(item.get("id")),
            [part for part in parts if isinstance(part, (Text, Media))],
        )
        self._request.messages.append(Message(Role.TOOL, [result]))


def _content(request: NeutralRequest, content: Any, where: str) -> list[Part]:
    if isinstance(content, str):
        return [Text(content)] if content else []
    if isinstance(content, dict):  # some clients send an object as a result
        return [Text(fields.json_text(content))]
    return [part for at, shape in each(content, where) if (part := _part(request, shape, at)) is not None]


def _part(request: NeutralRequest, shape: dict[str, Any], where: str) -> Part | None:
    kind = shape.get("type")
    if kind in ("input_text", "output_text", "text"):
        return Text(text(shape.get("text"))) if shape.get("text") else None
    if kind == "refusal":
        return Text(text(shape.get("refusal")), refusal=True)
    if kind in ("input_image", "input_file") and shape.get("file_id"):
        request.ask(Feature.VENDOR_FILE, f"{where}.file_id")
        return None
    if kind == "input_image":
        image = shape.get("image_url")
        url = text(image) or text(obj(image).get("url"))
        return fields.media(request, "image", f"{where}.image_url", url, detail=text(shape.get("detail")))
    if kind == "input_file":
        name = text(shape.get("filename"))
        if url := text(shape.get("file_url")):
            return fields.media(request, "document", f"{where}.file_url", url, name=name)
        data = text(shape.get("file_data"))
        data = data if data.startswith("data:") else f"data:application/pdf;base64,{data}"
        return fields.media(request, "document", f"{where}.file_data", data, name=name)
    if kind == "input_audio":
        audio = obj(shape.get("input_audio"))
        mime = f"audio/{text(audio.get('format')) or 'wav'}"
        return fields.inline_media(request, mime, text(audio.get("data")), f"{where}.input_audio")
    raise fields.no_such(kind, f"{where}.type")


def _tool(request: NeutralRequest, tool: dict[str, Any], where: str, space: str) -> None:
    kind, name = text(tool.get("type")), text(tool.get("name"))
    if space and name:
        name = fields.flatten(request, space, name)
    if kind == "function":
        fields.function_tool(request, tool, where, tool.get("parameters"), name=name)
    elif kind == "custom":
        request.ask(Feature.CUSTOM_TOOLS, where)
        about = text(tool.get("description"))
        request.tools.append(Tool(name, about, custom=True, format=fields.grammar(tool.get("format"))))
    elif kind == "namespace":
        request.ask(Feature.NAMESPACES, where)
        for at, inner in each(tool.get("tools"), f"{where}.tools"):
            if inner.get("type") == "namespace":
                raise TranslationError(f"{at}.type", "a namespace within a namespace is not known here")
            _tool(request, inner, at, name)
    elif kind.startswith("web_search"):
        filters = obj(tool.get("filters"))
        allowed, blocked = (
            fields.strings(filters.get("allowed_domains")),
            fields.strings(filters.get("blocked_domains")),
        )
        found = WebSearch(allowed, blocked, fields.place(tool.get("user_location")))
        fields.search_tool(request, found, f"{where} {kind}")
    elif kind in _SERVER_TOOLS:
        request.ask(Feature.SERVER_TOOLS, f"{where} {kind}")
    else:
        raise fields.no_such(kind, f"{where}.type")


def _choice(request: NeutralRequest, body: dict[str, Any]) -> None:
    choice = body.get("tool_choice")
    shape = obj(choice)
    if choice in ("auto", "none", "required"):
        fields.choose(request, choice, [], "tool_choice")
    elif shape.get("type") == "allowed_tools":
        names = [text(tool.get("name")) for _, tool in each(shape.get("tools"), "tool_choice.tools")]
        mode = fields.mode(shape.get("mode"), "tool_choice.mode")
        fields.choose(request, mode, [name for name in names if name], "tool_choice")
    elif shape.get("type") in ("function", "custom"):
        fields.choose(request, "required", [text(shape.get("name"))], "tool_choice")
    elif choice is not None and not shape:
        raise fields.no_such(choice, "tool_choice")
    elif shape:
        request.ask(Feature.SERVER_TOOLS, f"tool_choice {text(shape.get('type'))[:80]}")
    if isinstance(parallel := body.get("parallel_tool_calls"), bool):
        request.options.parallel = parallel
        if not parallel:
            request.ask(Feature.SERIAL, "parallel_tool_calls")


def _state(request: NeutralRequest, body: dict[str, Any]) -> None:
    for name in ("previous_response_id", "conversation", "prompt"):
        if body.get(name) is not None:
            request.ask(Feature.STATE, name)
    if body.get("background") is True:
        request.ask(Feature.STATE, "background")
    if body.get("store") is True:
        request.unknown.append("store")  # nobody keeps a translated answer


def _options(request: NeutralRequest, body: dict[str, Any]) -> None:
    options = request.options
    options.max_output = fields.at_least_one(body.get("max_output_tokens"), "max_output_tokens")
    options.temperature = fields.number(body.get("temperature"), "temperature")
    options.top_p = fields.number(body.get("top_p"), "top_p")
    options.tier, options.cache_key = text(body.get("service_tier")), text(body.get("prompt_cache_key"))
    said = obj(body.get("text"))
    options.verbosity = text(said.get("verbosity"))
    fields.ask_options(request, body, "max_output_tokens", verbosity="text.verbosity")
    _state(request, body)
    include = fields.strings(body.get("include"))
    fields.logprobs(request, "include" if _LOGPROBS in include else "", body.get("top_logprobs"), "top_logprobs")
    for name in include:
        if name not in (_LOGPROBS, _SEALS):
            request.leave(f"include {name}")
    reasoning = obj(body.get("reasoning"))
    show = reasoning.get("summary") not in (None, "none")
    fields.effort(request, "reasoning.effort", reasoning.get("effort"), None, show=show)
    form = obj(said.get("format"))
    if form.get("type") == "json_object":
        request.format = Format()
        request.ask(Feature.JSON, "text.format")
    elif form.get("type") == "json_schema":
        fields.schema_format(request, form, "text.format")
    elif form.get("type") not in (None, "text"):
        raise TranslationError("text.format.type", f"{text(form.get('type'))[:80]!r} is not known here")
