"""Peeking: the few facts of a request the pool needs, without decoding what it does not need."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, TypeVar
from urllib.parse import unquote

import msgspec
from msgspec.json import Decoder

from pool_server.core.enums import Dialect, Operation
from pool_server.core.models import Peek
from pool_server.dialects.session import find_session, opening_hash
from pool_server.dialects.types import RAW_FIELDS, TEXT, BadBodyError, loads, text, whole

B = TypeVar("B", bound=msgspec.Struct)

RAW_NULL = msgspec.Raw(b"null")

# Hard pins the pool can leave behind when their account is gone: the header is dropped, the reasoning stripped.
SHEDDABLE = frozenset({"turn_state", "encrypted"})

_FILE_ID = re.compile(rb'"(?:file_id|file_uri|fileUri|cachedContent)"\s*:\s*"([^"\\]{1,300})"')
_GEMINI_MARKS = (b'"fileUri"', b'"file_uri"', b'"cachedContent"')
_GEMINI_PATH = re.compile(r"/(?:models|tunedModels)/([^/:?]+)")
_REMINDER, _REMINDER_END = b"<system-reminder>", b"</system-reminder>"
_OPENING_ITEMS = 16
_MOST_PINS = 16


class _Item(msgspec.Struct):
    """One entry of `messages`, `input` or `contents`."""

    type: Any = ""
    role: Any = ""
    content: msgspec.Raw = RAW_NULL
    parts: msgspec.Raw = RAW_NULL
    encrypted_content: msgspec.Raw = RAW_NULL


class _Text(msgspec.Struct):
    text: msgspec.Raw = RAW_NULL


_TEXTS = Decoder(list[_Text])


class _Generation(msgspec.Struct):
    maxOutputTokens: Any = None
    max_output_tokens: Any = None


class _Body(msgspec.Struct):
    """What Responses, Messages and Chat bodies have in common, and what each has of its own."""

    model: str | None = None
    stream: Any = False
    messages: list[_Item] | None = None
    input: list[_Item] | str | None = None
    system: msgspec.Raw = RAW_NULL
    instructions: msgspec.Raw = RAW_NULL
    tools: list[msgspec.Raw] | None = None
    metadata: dict[str, msgspec.Raw] | None = None
    client_metadata: dict[str, msgspec.Raw] | None = None
    previous_response_id: str | None = None
    prompt_cache_key: str | None = None
    session_id: str | None = None
    sessionId: str | None = None
    conversation: Any = None
    conversation_id: str | None = None
    service_tier: str | None = None
    stream_options: Any = None
    store: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None


class _Contents(msgspec.Struct):
    """A Gemini body, or the `request` within a Code Assist one. Google takes both spellings of its keys."""

    contents: list[_Item] | None = None
    systemInstruction: _Item | None = None
    system_instruction: _Item | None = None
    tools: list[msgspec.Raw] | None = None
    generationConfig: _Generation | None = None
    generation_config: _Generation | None = None
    session_id: Any = None
    sessionId: Any = None


class _CodeAssist(msgspec.Struct):
    model: str | None = None
    request: _Contents | None = None
    session_id: str | None = None


_BODY, _CONTENTS, _CODE_ASSIST = Decoder(_Body), Decoder(_Contents), Decoder(_CodeAssist)


def peek(
    operation: Operation,
    dialect: Dialect,
    path: str,
    headers: Mapping[str, str],
    body: bytes | bytearray | memoryview,
    *,
    credential: str = "",
) -> Peek:
    """Read model, conversation and pins from a decoded request body or a WebSocket `response.create` frame.

    `headers` have lower-case names; `path` is the URL path; `credential` names the caller (never a secret that
    must not be hashed) and separates equal openings of different callers. Raises BadBody when the operation
    needs a JSON object and the body is none; other operations take any body. Fields of unexpected types are
    left to the provider to refuse.
    """
    data = body if isinstance(body, bytes) else bytes(body)
    needed = operation is not Operation.OTHER
    if dialect is Dialect.GEMINI or dialect is Dialect.CODE_ASSIST:
        return _peek_gemini(dialect, path, headers, data, credential, needed)
    return _peek_openai(_decode(data, _BODY, needed), headers, data, credential)


def _decode(data: bytes, decoder: Decoder[B], needed: bool) -> B:
    """The body; a field of an unexpected type counts as absent."""
    try:
        return _whole_or_piecewise(data, decoder)
    except msgspec.ValidationError:
        problem = "the request body is not a JSON object"
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        problem = "the request body is not valid JSON"
    if needed:
        raise BadBodyError(problem)
    return decoder.type()


def _whole_or_piecewise(data: bytes, decoder: Decoder[B]) -> B:
    """Raises what the decoder raises; a ValidationError only where the data are no object."""
    try:
        return decoder.decode(data)
    except msgspec.ValidationError:
        fields = RAW_FIELDS.decode(data)
    found = decoder.type()
    for field in msgspec.structs.fields(found):
        if field.name in fields:
            try:
                setattr(found, field.name, msgspec.json.decode(fields[field.name], type=field.type))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                continue
    return found


def _peek_openai(found: _Body, headers: Mapping[str, str], data: bytes, credential: str) -> Peek:
    """Responses, Messages and Chat."""
    items = found.input if isinstance(found.input, list) else found.messages or []
    user_id = _string(found.metadata, "user_id") if found.metadata else ""
    session, source = find_session(headers, user_id, _names(found, headers))
    if session is None:
        opening = _opening(items, (found.system, found.instructions))
        if isinstance(found.input, str):
            opening.append(found.input.encode("utf-8", "surrogatepass"))
        session, source = opening_hash(credential, opening), "opening"
    limit = found.max_output_tokens or found.max_completion_tokens or found.max_tokens
    pins = _pins(found.previous_response_id, headers, data, (b'"file_id"',)) + _sealed(items)
    return Peek(
        model=found.model or "",
        stream=found.stream is True,
        session=session,
        session_source=source if session else "",
        hard=tuple(pins),
        previous_response_id=found.previous_response_id or None,
        max_output=whole(limit) or None,
        tier=found.service_tier or "",
        tools=len(found.tools or ()),
        usage_asked=isinstance(found.stream_options, dict) and found.stream_options.get("include_usage") is True,
        stored=found.store is True or (found.store is None and found.input is not None),
    )


def _peek_gemini(
    dialect: Dialect, path: str, headers: Mapping[str, str], data: bytes, credential: str, needed: bool
) -> Peek:
    """Gemini keeps the model in the path; Code Assist wraps the same request in an envelope that names it."""
    if dialect is Dialect.CODE_ASSIST:
        envelope = _decode(data, _CODE_ASSIST, needed)
        request, model, outer = envelope.request or _Contents(), envelope.model or "", envelope.session_id or ""
    else:
        match = _GEMINI_PATH.search(path)
        request, model, outer = _decode(data, _CONTENTS, needed), unquote(match[1]) if match else "", ""
    names = (
        ("session_id", text(request.session_id) or text(request.sessionId) or outer),
        ("x-client-request-id", headers.get("x-client-request-id", "")),
    )
    contents = request.contents or []
    session, source = find_session(headers, "", names)
    if session is None:
        system = request.systemInstruction or request.system_instruction
        opening = _opening(contents, (system.parts,) if system else ())
        session, source = opening_hash(credential, opening), "opening"
    generation = request.generationConfig or request.generation_config
    limit = (generation.maxOutputTokens or generation.max_output_tokens) if generation else None
    return Peek(
        model=model.removeprefix("models/"),
        stream=path.rpartition(":")[2].startswith("stream") if ":" in path else False,
        session=session,
        session_source=source if session else "",
        hard=tuple(_pins(None, headers, data, _GEMINI_MARKS)),
        max_output=whole(limit) or None,
        tools=len(request.tools or ()),
    )


def _names(found: _Body, headers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What the body calls its conversation, in order of trust."""
    if value := found.session_id or found.sessionId:
        yield "session_id", value
    if found.metadata:
        yield "metadata.session_id", _string(found.metadata, "session_id") or _string(found.metadata, "sessionId")
    if found.client_metadata:
        yield "client_metadata.session_id", _string(found.client_metadata, "session_id")
    if found.prompt_cache_key:
        yield "prompt_cache_key", found.prompt_cache_key
    # Codex puts its thread here, other SDKs a value of each request's own: the body's fields come first.
    if "x-client-request-id" in headers:
        yield "x-client-request-id", headers["x-client-request-id"]
    # OpenAI's `conversation` is an id or an object with one.
    value = found.conversation.get("id") if isinstance(found.conversation, dict) else found.conversation
    if value := text(value) or found.conversation_id:
        yield "conversation", value


def _string(values: Mapping[str, msgspec.Raw], name: str) -> str:
    return (loads(values[name], TEXT) or "") if name in values else ""


def _opening(items: Sequence[_Item], systems: Sequence[msgspec.Raw]) -> list[bytes]:
    """The texts before the model's first turn: they stay the same as the conversation grows.

    Only texts count: clients move `cache_control` marks from turn to turn and send a lone text as a string or
    as a part. Reminders do not: Qwen Code tells the date in the newest message and leaves it out of the history.
    """
    raws = list(systems)
    for item in items[:_OPENING_ITEMS]:
        if item.role in ("assistant", "model") or item.type in ("function_call", "reasoning"):
            break
        raws += (item.content, item.parts)
    return [_text_of(raw) for raw in raws if raw is not RAW_NULL]


def _text_of(raw: msgspec.Raw) -> bytes:
    """The text of a content as it stands in the JSON: a client writes the same text the same way each time."""
    data = bytes(raw)
    if data.startswith(b'"'):
        return _without_reminders(data[1:-1])
    if data == b"null":
        return b""
    texts = [bytes(part.text)[1:-1] for part in loads(data, _TEXTS) or () if part.text != RAW_NULL]
    return b"".join(map(_without_reminders, texts)) or data


def _without_reminders(value: bytes) -> bytes:
    """The text after the reminders it begins with; one that does not end takes all of it."""
    at = 0
    while value.startswith(_REMINDER, at):
        end = value.find(_REMINDER_END, at)
        if end < 0:
            return b""
        at = end + len(_REMINDER_END)
        while value.startswith(b"\\n", at):
            at += 2
    return value[at:]


def _pins(
    previous: str | None, headers: Mapping[str, str], data: bytes, marks: Iterable[bytes]
) -> list[tuple[str, str]]:
    """Ids only the account that issued them can serve, as (kind, id)."""
    pins = [("response", previous)] if previous else []
    if state := headers.get("x-codex-turn-state"):
        pins.append(("turn_state", state))
    for mark in marks:
        # From the end: CPython searches long data backwards more than twice as fast, and nearly all have no mark.
        if data.rfind(mark) >= 0:
            ids = dict.fromkeys(match[1].decode("utf-8", "replace") for match in _FILE_ID.finditer(data))
            return pins + [("file", name) for name in list(ids)[:_MOST_PINS]]
    return pins


def _sealed(items: Sequence[_Item]) -> list[tuple[str, str]]:
    """The first sealed item stays in place as the conversation grows, so its hash names the conversation."""
    for item in items:
        sealed = item.encrypted_content
        if sealed is RAW_NULL or item.type not in ("reasoning", "compaction", "compaction_summary"):
            continue
        if sealed != RAW_NULL:
            return [("encrypted", blake2b(bytes(sealed), digest_size=12).hexdigest())]
    return []
