"""Gemini requests: read from a client. Google takes both spellings of its keys."""

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
    Result,
    Role,
    Text,
    ToolCall,
    WebSearch,
)
from pool_server.dialects.translation.options import LEVELS
from pool_server.dialects.translation.seals import read_seal
from pool_server.dialects.translation.shapes import also, known, leave_out, many, unknown

_ROLES = {"user": Role.USER, "model": Role.ASSISTANT, "function": Role.USER, None: Role.USER, "": Role.USER}
_KNOWN = fields.words("model contents systemInstruction tools toolConfig generationConfig cachedContent sessionId")
_CONFIG = known(
    "maxOutputTokens:num temperature:num topP:num topK:num stopSequences:strs seed:num presencePenalty:num "
    "frequencyPenalty:num candidateCount:num responseLogprobs:bool logprobs:num responseModalities:strs "
    "responseMimeType:str responseSchema:obj responseJsonSchema:obj thinkingConfig:obj speechConfig:obj"
)
_SERVER_TOOLS = fields.words(
    "codeExecution urlContext googleMaps fileSearch computerUse mcpServers enterpriseWebSearch"
)
# Google's own readers take one object for a list of them.
_BLOB = known("mimeType:str data:str")
_FILE = known("mimeType:str fileUri:str")
_RESPONSE = known("id:str name:str response:obj", parts=also(known("text:str", inlineData=_BLOB, fileData=_FILE), list))
_PARTS = known(
    "text:str thought:bool thoughtSignature:str executableCode codeExecutionResult",
    inlineData=_BLOB,
    fileData=_FILE,
    functionCall=known("id:str name:str args:obj"),
    functionResponse=_RESPONSE,
)
_CONTENTS = known("role:str", parts=also(_PARTS, list))
_ENVELOPE = known("model:str project:str user_prompt_id:str request:obj")
_FUNCTION = known("name:str description:str parameters:obj parametersJsonSchema:obj")
_SPEECH = known("multiSpeakerVoiceConfig:obj", voiceConfig=known(prebuiltVoiceConfig=known("voiceName:str")))
_THINKING = known("includeThoughts:bool thinkingBudget:num thinkingLevel:str")
_INSIDE = known(
    "model:str cachedContent:str sessionId:str generationConfig:obj",
    contents=also(_CONTENTS, list),
    systemInstruction=also(_CONTENTS, str),
    tools=also(
        known(
            " ".join(_SERVER_TOOLS),
            functionDeclarations=many(_FUNCTION),
            googleSearch=known(),
            googleSearchRetrieval=known(),
        ),
        list,
    ),
    toolConfig=known(functionCallingConfig=known("mode:str allowedFunctionNames:strs")),
)
_MODES = {"AUTO": "auto", "NONE": "none", "ANY": "required", "VALIDATED": "auto"}
_DYNAMIC = -1  # a budget the model chooses
_VIDEOS = ("https://www.youtube.com/", "https://youtube.com/", "https://youtu.be/")  # which Google alone opens
_OWN_FILES = ("https://generativelanguage.googleapis.com/", "gs://", "files/")


def camel(raw: dict[str, Any]) -> dict[str, Any]:
    """The object with its own keys in camelCase; what is within them stays as it is."""
    if not any("_" in key for key in raw):
        return raw
    found: dict[str, Any] = {}
    for key, value in raw.items():
        if value is not None or _camel(key) not in found:
            found[_camel(key)] = value
    return found


def _camel(key: str) -> str:
    if "_" not in key:
        return key
    head, *rest = key.lstrip("_").split("_")
    return head + "".join(word[:1].upper() + word[1:] for word in rest)


def read_request(body: dict[str, Any], *, model: str = "", stream: bool = False) -> NeutralRequest:
    """Raises TranslationError where the body is none or holds what no dialect can be told."""
    counted = camel(body).get("generateContentRequest")  # what is to be counted may stand in one of its own
    raw = counted if isinstance(counted, dict) else body
    body = camel(raw)
    request = NeutralRequest(model=(model or text(body.get("model"))).removeprefix("models/"), stream=stream)
    leave_out(request, raw, _INSIDE, spelt=_camel)
    system = camel(obj(body.get("systemInstruction")))
    if isinstance(body.get("systemInstruction"), str):
        system = {"parts": [{"text": body["systemInstruction"]}]}
    parts = _parts(request, system.get("parts"), "systemInstruction.parts")
    if parts:
        request.messages.append(Message(Role.SYSTEM, parts))
    contents = body.get("contents")
    for where, content in each([contents] if isinstance(contents, dict) else contents, "contents"):
        _content(request, content, where)
    _tools(request, body)
    config = obj(body.get("generationConfig"))
    leave_out(request, config, _CONFIG, at="generationConfig", spelt=_camel)
    _options(request, camel(config))
    unknown(request, {key: value for key, value in config.items() if _camel(key) not in _CONFIG.fields}, ())
    if body.get("cachedContent") is not None:
        request.ask(Feature.CACHED_CONTENT, "cachedContent")
    if session := text(body.get("sessionId")):
        request.options.session = session
        request.ask(Feature.SESSION, "sessionId")
    unknown(request, {key: value for key, value in raw.items() if _camel(key) not in _KNOWN}, ())
    return request


def read_envelope(envelope: dict[str, Any], *, model: str, stream: bool) -> NeutralRequest:
    """Code Assist's. Raises TranslationError."""
    inner = envelope.get("request")
    if not isinstance(inner, dict):
        raise TranslationError("request", "must be an object")
    request = read_request(inner, model=model or text(envelope.get("model")), stream=stream)
    leave_out(request, envelope, _ENVELOPE)
    unknown(request, envelope, _ENVELOPE.fields)
    return request


def _content(request: NeutralRequest, content: dict[str, Any], where: str) -> None:
    role = content.get("role")
    if not isinstance(role, (str, type(None))) or role not in _ROLES:
        raise fields.no_such(role, f"{where}.role")
    parts = _parts(request, content.get("parts"), f"{where}.parts")
    request.say(_ROLES[role], parts)


def _parts(request: NeutralRequest, parts: Any, where: str) -> list[Part]:
    found: list[Part] = []
    for at, raw in each([parts] if isinstance(parts, dict) else parts, where):
        part = camel(raw)
        signature = text(part.get("thoughtSignature"))
        if part.get("thought") is True or signature:
            thought = text(part.get("text")) if part.get("thought") is True else ""
            if thought or signature:
                found.append(read_seal(Dialect.GEMINI, thought, signature))
        if part.get("thought") is not True:
            found += _part(request, part, at)
    return found


def _part(request: NeutralRequest, part: dict[str, Any], where: str) -> list[Part]:
    if "text" in part:
        return [Text(text(part["text"]))] if part["text"] else []
    if "inlineData" in part:
        blob = camel(obj(part["inlineData"]))
        data = text(blob.get("data")).replace("-", "+").replace("_", "/")
        return [fields.inline_media(request, text(blob.get("mimeType")), data, f"{where}.inlineData")]
    if "fileData" in part:
        file = camel(obj(part["fileData"]))
        uri, mime = text(file.get("fileUri")), text(file.get("mimeType"))
        if uri.startswith(_OWN_FILES):
            request.ask(Feature.VENDOR_FILE, f"{where}.fileData.fileUri")
            return []
        video = uri.startswith(_VIDEOS) and not mime
        kind = "video" if video else next((k for k in ("image", "audio", "video") if mime.startswith(k)), "document")
        return [fields.media(request, kind, f"{where}.fileData.fileUri", uri, mime=mime)]
    if "functionCall" in part:
        call = obj(part["functionCall"])
        return [ToolCall(text(call.get("id")), text(call.get("name")), fields.json_text(obj(call.get("args"))))]
    if "functionResponse" in part:
        return [_result(request, camel(obj(part["functionResponse"])), where)]
    if "executableCode" in part or "codeExecutionResult" in part:
        request.ask(Feature.SERVER_HISTORY, where)
        return []
    if not part or part.keys() <= {"thoughtSignature", "thought"}:
        return []
    raise fields.no_such(next(iter(part)), where)


def _result(request: NeutralRequest, shape: dict[str, Any], where: str) -> Result:
    """A response is an object; one of a single text is that text."""
    response = obj(shape.get("response"))
    failed = "error" in response and response.keys() <= {"error"}
    if failed:
        request.ask(Feature.FAILED_RESULT, f"{where}.functionResponse.response.error")
    value: Any = response
    if len(response) == 1:
        value = next((response[key] for key in ("output", "result", "content", "error") if key in response), response)
    parts: list[Text | Media] = [Text(value if isinstance(value, str) else fields.json_text(value))]
    beside = _parts(request, shape.get("parts"), f"{where}.functionResponse.parts")
    parts += [part for part in beside if isinstance(part, Media)]
    if len(parts) > 1:
        request.ask(Feature.RESULT_MEDIA, f"{where}.functionResponse.parts")
    return Result(text(shape.get("id")), parts, text(shape.get("name")), failed)


def _tools(request: NeutralRequest, body: dict[str, Any]) -> None:
    tools = body.get("tools")
    for where, raw in each([tools] if isinstance(tools, dict) else tools, "tools"):
        for name, value in raw.items():
            kind = _camel(name)
            if kind == "functionDeclarations":
                for at, function in each(value, f"{where}.functionDeclarations"):
                    declared = camel(function)
                    schema = declared.get("parametersJsonSchema") or lower(declared.get("parameters"))
                    fields.function_tool(request, declared, at, schema)
            elif kind in ("googleSearch", "googleSearchRetrieval"):
                fields.search_tool(request, WebSearch(), f"{where} {kind}")
            elif kind in _SERVER_TOOLS:
                request.ask(Feature.SERVER_TOOLS, f"{where} {kind}")
            else:
                raise fields.no_such(name, where)
    config = camel(obj(camel(obj(body.get("toolConfig"))).get("functionCallingConfig")))
    mode = text(config.get("mode")).upper()
    if mode not in _MODES and mode not in ("", "MODE_UNSPECIFIED"):
        raise fields.no_such(mode, "toolConfig.functionCallingConfig.mode")
    if mode in _MODES:
        fields.choose(request, _MODES[mode], fields.strings(config.get("allowedFunctionNames")), "toolConfig")


def lower(schema: Any) -> Any:
    """Google's own schema (types in capitals, `nullable`) as a JSON schema; a property's name is never changed."""
    if isinstance(schema, list):
        return [lower(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found: dict[str, Any] = {}
    for key, value in schema.items():
        if key in ("properties", "$defs", "definitions") and isinstance(value, dict):
            found[key] = {name: lower(inner) for name, inner in value.items()}
        elif key == "type" and isinstance(value, str):
            if value != "TYPE_UNSPECIFIED":
                found[key] = value.lower()
        elif key in ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"):
            found[key] = int(value) if isinstance(value, str) and value.isdigit() else value
        elif key in ("items", "anyOf", "additionalProperties", "prefixItems"):
            found[key] = lower(value)
        elif key not in ("nullable", "propertyOrdering", "property_ordering") and (key, value) != ("format", "enum"):
            found[key] = value
    if schema.get("nullable") is True and isinstance(found.get("type"), str):
        found["type"] = [found["type"], "null"]
    return found


def _options(request: NeutralRequest, config: dict[str, Any]) -> None:
    options, at = request.options, "generationConfig."
    options.max_output = fields.at_least_one(config.get("maxOutputTokens"), f"{at}maxOutputTokens")
    options.temperature = fields.number(config.get("temperature"), f"{at}temperature")
    options.top_p = fields.number(config.get("topP"), f"{at}topP")
    options.top_k = fields.whole(config.get("topK"), f"{at}topK")
    options.stop = fields.stops(config.get("stopSequences"), f"{at}stopSequences")
    options.seed = fields.whole(config.get("seed"), f"{at}seed")
    options.presence_penalty = fields.number(config.get("presencePenalty"), f"{at}presencePenalty")
    options.frequency_penalty = fields.number(config.get("frequencyPenalty"), f"{at}frequencyPenalty")
    words = {"top_p": "topP", "top_k": "topK", "presence_penalty": "presencePenalty"}
    words |= {"frequency_penalty": "frequencyPenalty", "stop": "stopSequences"}
    fields.ask_options(request, config, "maxOutputTokens", **words)
    fields.choices(request, config.get("candidateCount"), f"{at}candidateCount")
    wanted = f"{at}responseLogprobs" if config.get("responseLogprobs") is True else ""
    fields.logprobs(request, wanted, config.get("logprobs"), f"{at}logprobs")
    fields.modalities(request, config.get("responseModalities"), f"{at}responseModalities")
    _voice(request, config.get("speechConfig"), f"{at}speechConfig")
    leave_out(request, config.get("thinkingConfig"), _THINKING, f"{at}thinkingConfig", spelt=_camel)
    _effort(request, camel(obj(config.get("thinkingConfig"))), f"{at}thinkingConfig")
    _format(request, config)


def _voice(request: NeutralRequest, value: Any, field: str) -> None:
    if not isinstance(value, dict):
        return
    sound, config = request.options.sound, camel(value)
    leave_out(request, value, _SPEECH, field if sound else "", at=field, spelt=_camel)
    if sound is None:
        request.leave(field)
        return
    if config.get("multiSpeakerVoiceConfig") is not None:
        request.ask(Feature.SPEAKERS, f"{field}.multiSpeakerVoiceConfig")
    prebuilt = camel(obj(camel(obj(config.get("voiceConfig"))).get("prebuiltVoiceConfig")))
    sound.voice = text(prebuilt.get("voiceName"))


def _effort(request: NeutralRequest, config: dict[str, Any], field: str) -> None:
    level, tokens = (
        text(config.get("thinkingLevel")),
        fields.whole(config.get("thinkingBudget"), f"{field}.thinkingBudget"),
    )
    if level == "THINKING_LEVEL_UNSPECIFIED":
        level = ""
    if tokens is not None and tokens < _DYNAMIC:
        raise TranslationError(f"{field}.thinkingBudget", "must be -1, 0 or a number of tokens")
    budget = None if level.lower() in LEVELS else tokens
    fields.effort(request, f"{field}.thinkingLevel", level, budget, show=config.get("includeThoughts") is True)


def _format(request: NeutralRequest, config: dict[str, Any]) -> None:
    schema = config.get("responseJsonSchema") or lower(config.get("responseSchema"))
    mime = text(config.get("responseMimeType"))
    if mime not in ("", "application/json") and (isinstance(schema, dict) or mime != "text/plain"):
        raise TranslationError("generationConfig.responseMimeType", f"{mime[:80]!r} cannot be translated")
    if isinstance(schema, dict):
        request.format = Format(schema)
        fields.ask_schema(request, schema, "generationConfig.responseJsonSchema")
    elif mime == "application/json":
        request.format = Format()
        request.ask(Feature.JSON, "generationConfig.responseMimeType")
