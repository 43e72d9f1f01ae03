"""Peeking: the few facts of a request the pool needs, without decoding what it does not need."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import unquote

import msgspec

from pool_server.dialects.session import find_session, opening_hash
from pool_server.dialects.words import BadBody, loads, text, whole
from pool_server.records import Peek
from pool_server.words import Dialect, Operation

B = TypeVar("B", bound=msgspec.Struct)

RAW_NULL = msgspec.Raw(b"null")

# Hard pins the pool can leave behind when their account is gone: the header is dropped, the reasoning stripped.
SHEDDABLE = frozenset({"turn_state", "encrypted"})

_FILE_ID = re.compile(rb'"(?:file_id|file_uri|fileUri|cachedContent)"\s*:\s*"([^"\\]{1,300})"')
_GEMINI_MARKS = (b'"fileUri"', b'"file_uri"', b'"cachedContent"')
_GEMINI_PATH = re.compile(r"/(?:models|tunedModels)/([^/:?]+)(?::(\w+))?")
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


class _Generation(msgspec.Struct):
    maxOutputTokens: Any = None
    max_output_tokens: Any = None


class _Body(msgspec.Struct):
    """What Responses, Messages and Chat bodies have in common, and what each has of its own."""

    model: Any = ""
    stream: Any = False
    messages: list[_Item] | None = None
    input: list[_Item] | str | None = None
    system: msgspec.Raw = RAW_NULL
    instructions: msgspec.Raw = RAW_NULL
    tools: list[msgspec.Raw] | None = None
    metadata: dict[str, msgspec.Raw] | None = None
    client_metadata: dict[str, msgspec.Raw] | None = None
    previous_response_id: Any = None
    prompt_cache_key: Any = None
    session_id: Any = None
    sessionId: Any = None
    conversation: Any = None
    conversation_id: Any = None
    service_tier: Any = None
    speed: Any = None
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
    model: Any = ""
    request: _Contents | None = None
    session_id: Any = None


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
    if dialect in (Dialect.GEMINI, Dialect.CODE_ASSIST):
        return _peek_gemini(dialect, path, headers, data, credential, needed)
    found = _decode(data, _Body, needed)
    return _peek_openai(found, headers, data, credential)


def _decode(data: bytes, kind: type[B], needed: bool) -> B:
    """The body as `kind`; a field of an unexpected type counts as absent."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError:
        pass
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        if needed:
            raise BadBody("the request body is not valid JSON") from None
        return kind()
    fields = loads(data, dict[str, msgspec.Raw])
    if fields is None:
        if needed:
            raise BadBody("the request body is not a JSON object")
        return kind()
    found = kind()
    for field in msgspec.structs.fields(kind):
        if field.name in fields:
            try:
                setattr(found, field.name, msgspec.json.decode(fields[field.name], type=field.type))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                continue
    return found


def _peek_openai(found: _Body, headers: Mapping[str, str], data: bytes, credential: str) -> Peek:
    """Responses, Messages and Chat."""
    metadata, client = found.metadata or {}, found.client_metadata or {}
    previous = text(found.previous_response_id)
    items = found.input if isinstance(found.input, list) else found.messages or []
    fields = (
        ("session_id", text(found.session_id) or text(found.sessionId)),
        ("metadata.session_id", _string(metadata, "session_id") or _string(metadata, "sessionId")),
        ("client_metadata.session_id", _string(client, "session_id")),
        ("prompt_cache_key", text(found.prompt_cache_key)),
        # Codex puts its thread here, other SDKs a value of each request's own: the body's fields come first.
        ("x-client-request-id", headers.get("x-client-request-id", "")),
    )
    late = (("conversation", _conversation(found)),)
    session, source = find_session(headers, _string(metadata, "user_id"), fields, late)
    if session is None:
        opening = list(_opening(items, (found.system, found.instructions)))
        if isinstance(found.input, str):
            opening.append(found.input.encode("utf-8", "surrogatepass"))
        session, source = opening_hash(credential, opening), "opening"
    limit = next((n for n in (found.max_output_tokens, found.max_completion_tokens, found.max_tokens) if n), None)
    return Peek(
        model=text(found.model),
        stream=found.stream is True,
        session=session,
        session_source=source if session else "",
        hard=tuple(_pins(previous, headers, data, items, (b'"file_id"',))),
        previous_response_id=previous or None,
        max_output=whole(limit) or None,
        tier=text(found.service_tier) or text(found.speed),
        tools=len(found.tools or ()),
    )


def _peek_gemini(
    dialect: Dialect, path: str, headers: Mapping[str, str], data: bytes, credential: str, needed: bool
) -> Peek:
    """Gemini keeps the model in the path; Code Assist wraps the same request in an envelope that names it."""
    match = _GEMINI_PATH.search(path)
    verb = path.rpartition(":")[2] if ":" in path else ""
    if dialect is Dialect.CODE_ASSIST:
        envelope = _decode(data, _CodeAssist, needed)
        request, model = envelope.request or _Contents(), text(envelope.model)
        outer = text(envelope.session_id)
    else:
        request, outer = _decode(data, _Contents, needed), ""
        model = unquote(match[1]) if match else ""
    fields = (
        ("session_id", text(request.session_id) or text(request.sessionId) or outer),
        ("x-client-request-id", headers.get("x-client-request-id", "")),
    )
    session, source = find_session(headers, "", fields)
    if session is None:
        system = request.systemInstruction or request.system_instruction or _Item()
        session = opening_hash(credential, _opening(request.contents or [], (system.parts,)))
        source = "opening"
    generation = request.generationConfig or request.generation_config or _Generation()
    return Peek(
        model=model.removeprefix("models/"),
        stream=verb.startswith("stream"),
        session=session,
        session_source=source if session else "",
        hard=tuple(_pins("", headers, data, (), _GEMINI_MARKS)),
        max_output=whole(generation.maxOutputTokens or generation.max_output_tokens) or None,
        tools=len(request.tools or ()),
    )


def _string(values: Mapping[str, msgspec.Raw], name: str) -> str:
    raw = values.get(name)
    return (loads(raw, str) or "") if raw is not None else ""


def _conversation(found: _Body) -> str:
    """OpenAI's `conversation` is an id or an object with one."""
    value = found.conversation
    if isinstance(value, dict):
        value = value.get("id")
    return text(value) or text(found.conversation_id)


def _opening(items: Iterable[_Item], systems: Iterable[msgspec.Raw]) -> Iterator[bytes]:
    """The texts before the model's first turn: they stay the same as the conversation grows.

    Only texts count: clients move `cache_control` marks from turn to turn and send a lone text as a string or
    as a part. Reminders do not: Qwen Code tells the date in the newest message and leaves it out of the history.
    """
    for raw in systems:
        yield from _texts(raw)
    for item in islice(items, _OPENING_ITEMS):
        if item.role in ("assistant", "model") or item.type in ("function_call", "reasoning"):
            return
        yield from _texts(item.content)
        yield from _texts(item.parts)


def _texts(raw: msgspec.Raw) -> Iterator[bytes]:
    """The texts of a content as they stand in the JSON: a client writes the same text the same way each time."""
    data = bytes(raw)
    if data.startswith(b'"'):
        yield _without_reminders(data[1:-1])
    elif data != b"null":
        parts = loads(data, list[_Text])
        texts = [bytes(part.text)[1:-1] for part in parts or () if part.text != RAW_NULL]
        yield b"".join(map(_without_reminders, texts)) or data


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
    previous: str, headers: Mapping[str, str], data: bytes, items: Iterable[_Item], marks: Iterable[bytes]
) -> Iterator[tuple[str, str]]:
    """Ids only the account that issued them can serve."""
    if previous:
        yield "response", previous
    if state := headers.get("x-codex-turn-state", ""):
        yield "turn_state", state
    if any(mark in data for mark in marks):
        ids = dict.fromkeys(match[1].decode("utf-8", "replace") for match in _FILE_ID.finditer(data))
        for name in list(ids)[:_MOST_PINS]:
            yield "file", name
    for item in items:
        if item.type in ("reasoning", "compaction", "compaction_summary") and item.encrypted_content != RAW_NULL:
            # The first sealed item stays in place as the conversation grows, so its hash names the conversation.
            yield "encrypted", blake2b(bytes(item.encrypted_content), digest_size=12).hexdigest()
            return
