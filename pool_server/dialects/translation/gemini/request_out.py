"""Gemini requests: written for an account, plain or in Code Assist's envelope."""

from __future__ import annotations

from typing import Any

import msgspec

from pool_server.dialects.translation.conformance import Feature, Notes
from pool_server.dialects.translation.neutral import (
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
from pool_server.dialects.translation.options import gemini_thinking, gemini_version
from pool_server.dialects.translation.tools import ToolNames, arguments_object, emulated, object_schema

_STOPS = 5
# What Google documents for calls whose signature is lost.
_NO_SIGNATURE = "skip_thought_signature_validator"


def write_request(request: NeutralRequest, messages: list[Message], notes: Notes, names: ToolNames) -> dict[str, Any]:
    """The body, its contents last: what stays the same from turn to turn comes first."""
    body: dict[str, Any] = {}
    system = [part for message in messages if message.role in (Role.SYSTEM, Role.DEVELOPER) for part in message.parts]
    texts = [{"text": part.text} for part in system if isinstance(part, Text) and part.text]
    if texts:
        body["systemInstruction"] = {"role": "user", "parts": texts}
    _late_system(messages, notes)
    _tools(request, body, notes, names)
    if config := _config(request):
        body["generationConfig"] = config
    body["contents"] = _contents(request, messages, notes, names)
    return body


def write_envelope(body: dict[str, Any], model: str, *, project: str, prompt_id: str, session: str) -> dict[str, Any]:
    """Code Assist's envelope; what differs from turn to turn comes last. `project` "" leaves it to whoever prepares the
    account's request."""
    envelope: dict[str, Any] = {"model": model}
    if project:
        envelope["project"] = project
    envelope["request"] = {**({"session_id": session} if session else {}), **body}
    return envelope | ({"user_prompt_id": prompt_id} if prompt_id else {})


def _late_system(messages: list[Message], notes: Notes) -> None:
    said = False
    for message in messages:
        system = message.role in (Role.SYSTEM, Role.DEVELOPER)
        if system and said:
            notes.about(Feature.LATE_SYSTEM, "joins the system text")
        said = said or not system


def _tools(request: NeutralRequest, body: dict[str, Any], notes: Notes, names: ToolNames) -> None:
    tools: list[dict[str, Any]] = []
    functions = [_tool(emulated(tool) if tool.custom else tool, names) for tool in request.tools]
    if functions:
        tools.append({"functionDeclarations": functions})
    if request.web_search is not None:
        if functions and gemini_version(request.model) < (3, 0):
            notes.about(Feature.WEB_SEARCH, "left out: this model takes no search beside functions")
            notes.drop("web_search")
        else:
            tools.append({"googleSearch": {}})
    if tools:
        body["tools"] = tools
    choice = request.choice
    if choice is not None and functions:
        modes = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
        config: dict[str, Any] = {"mode": modes[choice.mode]}
        if choice.names:
            config = {"mode": "ANY" if choice.mode == "required" else "VALIDATED"}
            config["allowedFunctionNames"] = [names.up(name) for name in choice.names]
        body["toolConfig"] = {"functionCallingConfig": config}


def _tool(tool: Tool, names: ToolNames) -> dict[str, Any]:
    shape: dict[str, Any] = {"name": names.up(tool.name)}
    if tool.description:
        shape["description"] = tool.description
    schema = object_schema(tool.schema)
    return shape | {"parametersJsonSchema": {key: value for key, value in schema.items() if key != "$schema"}}


def _config(request: NeutralRequest) -> dict[str, Any]:
    options = request.options
    told: dict[str, Any] = {
        "maxOutputTokens": options.max_output,
        "temperature": options.temperature,
        "topP": options.top_p,
        "topK": options.top_k,
        "seed": options.seed,
        "presencePenalty": options.presence_penalty,
        "frequencyPenalty": options.frequency_penalty,
        "stopSequences": options.stop[:_STOPS] or None,
    }
    config = {name: value for name, value in told.items() if value is not None}
    if request.format is not None:
        config["responseMimeType"] = "application/json"
        if request.format.schema is not None:
            schema = object_schema(request.format.schema)
            config["responseJsonSchema"] = {key: value for key, value in schema.items() if key != "$schema"}
    thinking = gemini_thinking(request.effort, request.model) if request.effort is not None else None
    if thinking is not None:
        config["thinkingConfig"] = thinking
    return config


def _contents(request: NeutralRequest, messages: list[Message], notes: Notes, names: ToolNames) -> list[dict[str, Any]]:
    """User and model in turn; the last content is the user's, as Google answers nothing else."""
    turns: list[dict[str, Any]] = []
    needs_signature = gemini_version(request.model) >= (3, 0)
    for message in messages:
        if message.role in (Role.SYSTEM, Role.DEVELOPER):
            continue
        role = "model" if message.role is Role.ASSISTANT else "user"
        parts = _model_parts(message, notes, names, needs_signature) if role == "model" else _user_parts(message, names)
        if not parts:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["parts"] += parts
        else:
            turns.append({"role": role, "parts": parts})
    while turns and turns[-1]["role"] == "model":
        turns.pop()
        notes.about(Feature.PREFILL, "left out")
    return turns or [{"role": "user", "parts": [{"text": "."}]}]


def _model_parts(message: Message, notes: Notes, names: ToolNames, needs_signature: bool) -> list[dict[str, Any]]:
    """A signature belongs to the part after its thought; the first call of a turn must have one."""
    parts: list[dict[str, Any]] = []
    signature, called = "", False
    for part in message.parts:
        if isinstance(part, Reasoning):
            signature = part.seal or signature
            continue
        shape = _part(part, names, notes)
        if shape is None:
            continue
        if signature:
            shape["thoughtSignature"] = signature
        elif isinstance(part, ToolCall) and not called and needs_signature:
            shape["thoughtSignature"] = _NO_SIGNATURE
        called = called or isinstance(part, ToolCall)
        signature = ""
        parts.append(shape)
    return parts


def _user_parts(message: Message, names: ToolNames) -> list[dict[str, Any]]:
    parts = [shape for part in message.parts if (shape := _part(part, names, None)) is not None]
    beside = [
        _media(each)
        for part in message.parts
        if isinstance(part, Result)
        for each in part.parts
        if isinstance(each, Media)
    ]
    return parts + beside


def _part(part: Part, names: ToolNames, notes: Notes | None) -> dict[str, Any] | None:
    if isinstance(part, Text):
        return {"text": part.text} if part.text else None
    if isinstance(part, Media):
        return _media(part)
    if isinstance(part, ToolCall):
        custom = msgspec.Raw(msgspec.json.encode({"input": part.arguments})) if part.custom else None
        arguments, whole = (custom, True) if custom is not None else arguments_object(part.arguments)
        if not whole and notes is not None:
            notes.about(Feature.BROKEN_ARGUMENTS, "wrapped in an object")
        return {"functionCall": {"name": names.up(part.name), "args": arguments}}
    if isinstance(part, Result):
        said = "\n\n".join(each.text for each in part.parts if isinstance(each, Text))
        response = {"error" if part.failed else "output": said}
        return {"functionResponse": {"name": names.up(part.name), "response": response}}
    return None


def _media(part: Media) -> dict[str, Any]:
    if part.url:
        return {"fileData": {"mimeType": part.mime, "fileUri": part.url}}
    return {"inlineData": {"mimeType": part.mime, "data": part.data}}
