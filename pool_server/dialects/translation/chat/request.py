"""Chat Completions requests: read from a client, written for an endpoint."""

from __future__ import annotations

from typing import Any

from pool_server.dialects.translation import fields
from pool_server.dialects.translation.chat.media import write_media
from pool_server.dialects.translation.chat.spellings import as_responses, own_spelling
from pool_server.dialects.translation.conformance import Feature, Notes, TranslationError
from pool_server.dialects.translation.fields import each, obj, text
from pool_server.dialects.translation.neutral import (
    Choice,
    Family,
    Format,
    Media,
    Message,
    NeutralRequest,
    Part,
    Reasoning,
    RequestOptions,
    Result,
    Role,
    Text,
    Tool,
    ToolCall,
    WebSearch,
)
from pool_server.dialects.translation.options import openai_level
from pool_server.dialects.translation.responses import request as responses_request
from pool_server.dialects.translation.shapes import also, either, known, leave_out, many, unknown
from pool_server.dialects.translation.tools import ToolNames, emulated, is_strict, object_schema, plain_id

_ROLES = {"system": Role.SYSTEM, "developer": Role.DEVELOPER, "user": Role.USER, "assistant": Role.ASSISTANT}
_FORMATS = {"wav": "audio/wav", "mp3": "audio/mp3", "flac": "audio/flac", "ogg": "audio/ogg", "m4a": "audio/mp4"}
_STOPS = 4  # strings an endpoint takes
_NAMED = known("name:str")
_PARTS = either(
    "type",
    text=known("text:str"),
    refusal=known("refusal:str"),
    image_url=known(image_url=also(known("url:str detail:str"), str)),
    input_audio=known(input_audio=known("data:str format:str")),
    file=known(file=known("file_data:str filename:str file_id:str")),
)
_CONTENT = also(many(_PARTS), str)
_CALL = known("name:str arguments:str")
_CALLS = known("id:str type:str index", function=_CALL, custom=known("name:str input:str"))
_SAID = known(
    "refusal:str reasoning:str reasoning_content:str", content=_CONTENT, tool_calls=many(_CALLS), function_call=_CALL
)
_RESULT = known("tool_call_id:str name:str", content=_CONTENT)
_FUNCTION = known("name:str description:str parameters:obj strict:bool")
_CUSTOM = known(
    "name:str description:str",
    format=either("type:str", grammar=known(grammar=known("definition:str syntax:str")), text=known()),
)
_ALLOWED = known("mode:str", tools=many(known("type:str name:str", function=_NAMED, custom=_NAMED)))
_PLACE = known("type:str", approximate=known("type:str country:str region:str city:str timezone:str"))
_FORMAT = known("name:str description:str schema:obj strict:bool")
# Fields read below, and those that say nothing a translation would have to keep.
_KNOWN = known(
    "model:str stream:bool parallel_tool_calls:bool max_tokens:num max_completion_tokens:num temperature:num top_p:num "
    "top_k:num stop:str|strs seed:num presence_penalty:num frequency_penalty:num n:num logprobs:bool top_logprobs:num "
    "modalities:strs reasoning_effort:str verbosity:str prompt_cache_key:str service_tier:str",
    messages=many(either("role:str", "role", **dict.fromkeys((*_ROLES, "_"), _SAID), tool=_RESULT, function=_RESULT)),
    stream_options=known("include_usage:bool"),
    tools=many(either("type:str", function=known(function=_FUNCTION), custom=known(custom=_CUSTOM))),
    tool_choice=also(known("type:str name:str", function=_NAMED, custom=_NAMED, allowed_tools=_ALLOWED), str),
    functions=many(_FUNCTION),
    function_call=also(_NAMED, str),
    response_format=either("type:str", json_schema=known(json_schema=_FORMAT), json_object=known(), text=known()),
    reasoning=known("effort:str max_tokens:num exclude:bool"),
    web_search_options=known(user_location=_PLACE),
)  # fmt: skip


def read_request(body: dict[str, Any]) -> NeutralRequest:
    """Raises TranslationError where the body is none or holds what no dialect can be told."""
    usage = obj(body.get("stream_options")).get("include_usage") is True
    if (other := as_responses(body)) is not None:
        request = responses_request.read_request(other)
        request.include_usage = usage
        return request
    body, left = own_spelling(body)
    request = NeutralRequest(model=text(body.get("model")), stream=body.get("stream") is True)
    leave_out(request, body, _KNOWN)
    for name in left:
        request.leave(name)
    request.include_usage = usage
    for where, message in each(body.get("messages"), "messages"):
        _message(request, message, where)
    _tools(request, body)
    _options(request, body)
    unknown(request, body, _KNOWN.fields)
    return request


def _message(request: NeutralRequest, message: dict[str, Any], where: str) -> None:
    role = text(message.get("role"))
    if role in ("tool", "function"):
        ident, name = text(message.get("tool_call_id")), text(message.get("name"))
        parts = _content(request, message.get("content"), f"{where}.content")
        if any(isinstance(part, Media) for part in parts):
            request.ask(Feature.RESULT_MEDIA, f"{where}.content")
        result = Result(ident, [part for part in parts if isinstance(part, (Text, Media))], name)
        request.messages.append(Message(Role.TOOL, [result]))
        return
    if role not in _ROLES:
        raise fields.no_such(role, f"{where}.role")
    parts = _content(request, message.get("content"), f"{where}.content")
    if role == "assistant":
        if thought := text(message.get("reasoning_content")) or text(message.get("reasoning")):
            parts.insert(0, Reasoning(thought, Family.CHAT))
        if refusal := text(message.get("refusal")):
            parts.append(Text(refusal, refusal=True))
        if obj(message.get("audio")).get("id"):
            request.ask(Feature.VENDOR_FILE, f"{where}.audio.id")
        _calls(request, message, parts, where)
    elif role == "developer":
        request.ask(Feature.DEVELOPER, f"{where}.role")
    request.messages.append(Message(_ROLES[role], parts))


def _content(request: NeutralRequest, content: Any, where: str) -> list[Part]:
    if isinstance(content, str):
        return [Text(content)] if content else []
    return [part for at, shape in each(content, where) if (part := _part(request, shape, at)) is not None]


def _part(request: NeutralRequest, shape: dict[str, Any], where: str) -> Part | None:
    kind = shape.get("type")
    if kind == "text":
        return Text(text(shape.get("text"))) if shape.get("text") else None
    if kind == "refusal":
        return Text(text(shape.get("refusal")), refusal=True)
    if kind == "image_url":
        image = shape.get("image_url")
        url = text(image) or text(obj(image).get("url"))
        detail = text(obj(image).get("detail"))
        return fields.media(request, "image", f"{where}.image_url.url", url, detail=detail)
    if kind == "input_audio":
        audio = obj(shape.get("input_audio"))
        mime = _FORMATS.get(text(audio.get("format")), "audio/wav")
        return fields.inline_media(request, mime, text(audio.get("data")), f"{where}.input_audio")
    if kind == "file":
        file = obj(shape.get("file"))
        if file.get("file_id"):
            request.ask(Feature.VENDOR_FILE, f"{where}.file.file_id")
        data, name = text(file.get("file_data")), text(file.get("filename"))
        if not data.startswith("data:"):
            data = f"data:application/pdf;base64,{data}"
        return (
            fields.media(request, "document", f"{where}.file.file_data", data, name=name)
            if file.get("file_data")
            else None
        )
    raise fields.no_such(kind, f"{where}.type")


def _calls(request: NeutralRequest, message: dict[str, Any], parts: list[Part], where: str) -> None:
    for at, call in each(message.get("tool_calls"), f"{where}.tool_calls"):
        ident = text(call.get("id"))
        if call.get("type") == "custom":
            custom = obj(call.get("custom"))
            parts.append(ToolCall(ident, text(custom.get("name")), text(custom.get("input")), custom=True))
        elif call.get("type", "function") == "function":
            function = obj(call.get("function"))
            parts.append(ToolCall(ident, text(function.get("name")), text(function.get("arguments"))))
        else:
            raise fields.no_such(call.get("type"), f"{at}.type")
    if legacy := obj(message.get("function_call")):
        parts.append(ToolCall("", text(legacy.get("name")), text(legacy.get("arguments"))))


def _tools(request: NeutralRequest, body: dict[str, Any]) -> None:
    for where, tool in each(body.get("tools"), "tools"):
        kind = tool.get("type")
        if kind == "function":
            function = obj(tool.get("function"))
            fields.function_tool(request, function, f"{where}.function", function.get("parameters"))
        elif kind == "custom":
            custom = obj(tool.get("custom"))
            request.ask(Feature.CUSTOM_TOOLS, where)
            name, about = text(custom.get("name")), text(custom.get("description"))
            request.tools.append(Tool(name, about, custom=True, format=_grammar(custom.get("format"))))
        else:
            raise fields.no_such(kind, f"{where}.type")
    request.legacy = bool(body.get("functions")) and not request.tools
    for where, function in each(body.get("functions"), "functions"):
        fields.function_tool(request, function, where, function.get("parameters"))
    if isinstance(body.get("web_search_options"), dict):
        location = fields.place(obj(body["web_search_options"].get("user_location")).get("approximate"))
        fields.search_tool(request, WebSearch(location=location), "web_search_options")
    _choice(request, body.get("tool_choice", body.get("function_call")), "tool_choice")
    if isinstance(parallel := body.get("parallel_tool_calls"), bool):
        request.options.parallel = parallel
        if not parallel:
            request.ask(Feature.SERIAL, "parallel_tool_calls")


def _grammar(shape: Any) -> Any:
    """Chat nests a grammar where Responses does not."""
    found = obj(shape)
    nested = {"type": "grammar", **obj(found.get("grammar"))} if found.get("type") == "grammar" else found
    return fields.grammar(nested)


def _choice(request: NeutralRequest, choice: Any, where: str) -> None:
    if choice is None:
        return
    if choice in ("auto", "none", "required"):
        fields.choose(request, choice, [], where)
        return
    shape = obj(choice)
    kind = shape.get("type")
    if kind == "allowed_tools":
        allowed = obj(shape.get("allowed_tools"))
        names = [_named(tool) for _, tool in each(allowed.get("tools"), where)]
        fields.choose(request, fields.mode(allowed.get("mode"), f"{where}.allowed_tools.mode"), names, where)
    elif kind in (None, "function", "custom") and (name := _named(shape)):
        fields.choose(request, "required", [name], where)
    else:
        raise fields.no_such(kind or choice, where)


def _named(shape: dict[str, Any]) -> str:
    return (
        text(obj(shape.get("function")).get("name"))
        or text(obj(shape.get("custom")).get("name"))
        or text(shape.get("name"))
    )


def _options(request: NeutralRequest, body: dict[str, Any]) -> None:
    options = request.options
    limit = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    options.max_output = fields.at_least_one(body.get(limit), limit)
    if limit != "max_tokens" and body.get("max_tokens") not in (None, options.max_output):
        request.unknown.append("max_tokens")
    options.temperature = fields.number(body.get("temperature"), "temperature")
    options.top_p = fields.number(body.get("top_p"), "top_p")
    options.top_k = fields.whole(body.get("top_k"), "top_k")
    options.stop = fields.stops(body.get("stop"), "stop")
    options.seed = fields.whole(body.get("seed"), "seed")
    options.presence_penalty = fields.number(body.get("presence_penalty"), "presence_penalty")
    options.frequency_penalty = fields.number(body.get("frequency_penalty"), "frequency_penalty")
    options.tier, options.verbosity = text(body.get("service_tier")), text(body.get("verbosity"))
    options.cache_key = text(body.get("prompt_cache_key"))
    fields.ask_options(request, body, limit)
    options.choices = fields.at_least_one(body.get("n"), "n") or 1
    if options.choices > 1:
        request.ask(Feature.CHOICES, "n")
    fields.logprobs(request, "logprobs" if body.get("logprobs") else "", body.get("top_logprobs"), "top_logprobs")
    fields.modalities(request, body.get("modalities"), "modalities")
    reasoning = obj(body.get("reasoning"))
    field = "reasoning_effort" if body.get("reasoning_effort") else "reasoning.effort"
    level, show = body.get("reasoning_effort") or reasoning.get("effort"), reasoning.get("exclude") is not True
    fields.effort(request, field, level, reasoning.get("max_tokens"), show=show)
    _format(request, obj(body.get("response_format")))


def _format(request: NeutralRequest, shape: dict[str, Any]) -> None:
    kind = shape.get("type")
    if kind == "json_object":
        request.format = Format()
        request.ask(Feature.JSON, "response_format")
    elif kind == "json_schema":
        fields.schema_format(request, obj(shape.get("json_schema")), "response_format")
    elif kind not in (None, "text"):
        raise TranslationError("response_format.type", f"{text(kind)[:80]!r} is not known here")


# Written for an endpoint


def write_request(
    request: NeutralRequest, messages: list[Message], notes: Notes, names: ToolNames, *, allowed: bool = False
) -> dict[str, Any]:
    """The body, its messages last: what stays the same from turn to turn comes first. `allowed`: the endpoint takes a
    choice among some of the tools; for others the rest of the tools is left out."""
    options = request.options
    body: dict[str, Any] = {"model": request.model}
    if request.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if options.max_output is not None:
        newer = request.model.startswith(("gpt-5", "o1", "o3", "o4"))
        body["max_completion_tokens" if newer else "max_tokens"] = options.max_output
    for name in ("temperature", "top_p", "seed", "presence_penalty", "frequency_penalty"):
        if (value := getattr(options, name)) is not None:
            body[name] = value
    body |= _write_alternatives(options) | write_media(options)
    if options.stop:
        body["stop"] = options.stop[:_STOPS]
    if request.effort is not None:
        body["reasoning_effort"] = openai_level(request.effort.level, request.model)
    for name, value in (("verbosity", options.verbosity), ("service_tier", options.tier)):
        if value:
            body[name] = value
    if options.cache_key:
        body["prompt_cache_key"] = options.cache_key
    if request.format is not None:
        body["response_format"] = _write_format(request.format)
    _write_tools(request, body, names, allowed=allowed)
    body["messages"] = [shape for message in messages for shape in _write_message(message, names)]
    return body


def _write_alternatives(options: RequestOptions) -> dict[str, Any]:
    told: dict[str, Any] = {"n": options.choices} if options.choices > 1 else {}
    if options.logprobs is not None:
        told |= {"logprobs": True} | ({"top_logprobs": options.logprobs} if options.logprobs else {})
    return told


def _write_format(format: Format) -> dict[str, Any]:
    if format.schema is None:
        return {"type": "json_object"}
    schema = object_schema(format.schema)
    strict = format.strict if format.strict is not None else is_strict(schema)
    inner: dict[str, Any] = {"name": plain_id(format.name), "strict": strict, "schema": schema}
    if format.description:
        inner["description"] = format.description
    return {"type": "json_schema", "json_schema": inner}


def _write_tools(request: NeutralRequest, body: dict[str, Any], names: ToolNames, *, allowed: bool) -> None:
    choice = request.choice
    narrowed = choice.names if choice is not None and len(choice.names) > 1 else []
    if choice is not None and choice.names and choice.mode == "auto":
        narrowed = choice.names
    subset = {tool.name for tool in request.tools if tool.name in narrowed}
    tools = [tool for tool in request.tools if not narrowed or allowed or tool.name in subset]
    if not tools:
        return
    body["tools"] = [_write_tool(emulated(tool) if tool.custom else tool, names) for tool in tools]
    if choice is not None:
        body["tool_choice"] = _write_choice(choice, tools, subset if allowed else set(), names)
    if request.options.parallel is not None:
        body["parallel_tool_calls"] = request.options.parallel


def _write_choice(choice: Choice, tools: list[Tool], subset: set[str], names: ToolNames) -> Any:
    if choice.mode == "required" and len(choice.names) == 1:
        return {"type": "function", "function": {"name": names.up(choice.names[0])}}
    if not subset:
        return choice.mode
    chosen = [{"type": "function", "function": {"name": names.up(tool.name)}} for tool in tools if tool.name in subset]
    return {"type": "allowed_tools", "allowed_tools": {"mode": choice.mode, "tools": chosen}}


def _write_tool(tool: Tool, names: ToolNames) -> dict[str, Any]:
    function: dict[str, Any] = {"name": names.up(tool.name)}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = object_schema(tool.schema)
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _write_message(message: Message, names: ToolNames) -> list[dict[str, Any]]:
    if message.role is Role.TOOL:
        return _write_results(message)
    if message.role in (Role.SYSTEM, Role.DEVELOPER):
        return [{"role": "system", "content": message.text()}] if message.text() else []
    if message.role is Role.USER:
        return [{"role": "user", "content": _write_content(message.parts)}]
    shape: dict[str, Any] = {"role": "assistant", "content": message.text() or None}
    if thought := "\n\n".join(part.text for part in message.parts if isinstance(part, Reasoning) and part.text):
        shape["reasoning_content"] = thought
    calls = [part for part in message.parts if isinstance(part, ToolCall)]
    if calls:
        shape["tool_calls"] = [_write_call(call, names) for call in calls]
    elif shape["content"] is None:
        shape["content"] = ""
    return [shape]


def _write_call(call: ToolCall, names: ToolNames) -> dict[str, Any]:
    arguments = fields.json_text({"input": call.arguments}) if call.custom else call.arguments or "{}"
    return {
        "id": plain_id(call.id),
        "type": "function",
        "function": {"name": names.up(call.name), "arguments": arguments},
    }


def _write_results(message: Message) -> list[dict[str, Any]]:
    """A tool message holds text alone: pictures go into a user turn behind all of the results."""
    found: list[dict[str, Any]] = []
    pictures: list[Part] = []
    for part in message.parts:
        if not isinstance(part, Result):
            continue
        said = "\n\n".join(each.text for each in part.parts if isinstance(each, Text))
        media = [each for each in part.parts if isinstance(each, Media)]
        if media:
            said = said or "See the next message."
            pictures += [Text(f"From the result of {part.name or 'the tool'}:"), *media]
        content = f"Error: {said}" if part.failed else said
        found.append({"role": "tool", "tool_call_id": plain_id(part.call_id), "content": content})
    if pictures:
        found.append({"role": "user", "content": _write_content(pictures)})
    return found


def _write_content(parts: list[Part]) -> Any:
    if len(parts) == 1 and isinstance(parts[0], Text):
        return parts[0].text
    return [_write_part(part) for part in parts if isinstance(part, (Text, Media))]


def _write_part(part: Text | Media) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if part.kind == "image":
        image = {"url": fields.data_url(part)} | ({"detail": part.detail} if part.detail else {})
        return {"type": "image_url", "image_url": image}
    if part.kind == "audio":
        form = next((name for name, mime in _FORMATS.items() if mime == part.mime), part.mime.rpartition("/")[2])
        return {"type": "input_audio", "input_audio": {"data": part.data, "format": form.removeprefix("x-")}}
    if (said := fields.document_text(part)) is not None:  # a file is a PDF here
        return {"type": "text", "text": f"{part.name}\n{said}" if part.name else said}
    return {"type": "file", "file": {"filename": fields.document_name(part), "file_data": fields.data_url(part)}}
