"""Peeking: the few facts of a request the pool needs, without decoding what it does not need."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import unquote

import msgspec
from msgspec.json import Decoder

from pool_server.core.enums import MODEL_CALLS, Dialect, Operation
from pool_server.core.models import Peek
from pool_server.dialects.live.asking import peek_session
from pool_server.dialects.references import Reference, field_references, references
from pool_server.dialects.session import find_session, opening_hash
from pool_server.dialects.types import RAW_FIELDS, TEXT, BadBodyError, loads, text, whole
from pool_server.dialects.wire.batches import BatchRequests, google_batch, lines_of, message_batch
from pool_server.dialects.wire.multipart import boundary, parts
from pool_server.dialects.wire.sealed import first_signature, seal_id
from pool_server.dialects.wire.unique import keys_once

B = TypeVar("B", bound=msgspec.Struct)

RAW_NULL = msgspec.Raw(b"null")

# Hard pins the pool can leave behind when their account is gone: the header is dropped, the reasoning stripped.
SHEDDABLE = frozenset({"turn_state", "encrypted"})

_GEMINI_PATH = re.compile(r"/(?:models|tunedModels)/([^/:?]+)")
_REMINDER, _REMINDER_END = b"<system-reminder>", b"</system-reminder>"
_OPENING_ITEMS = 16

# Calls whose body may be anything. Of the others a body that is there is JSON, or a form where the API takes one.
_ANY_BODY = frozenset((Operation.OTHER, Operation.SIDE))
_FORMS = frozenset(
    (
        Operation.IMAGES, Operation.AUDIO, Operation.PROVENANCE, Operation.FILES, Operation.UPLOADS,
        Operation.CONTAINERS, Operation.VIDEOS,
    )
)  # fmt: skip


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
    max_tokens: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None
    store: Any = None


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
    model: Any = None


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
    strict: bool = False,
) -> Peek:
    """Read model, conversation and pins from a decoded request body or a WebSocket `response.create` frame.

    `headers` have lower-case names; `path` is the URL path; `credential` names the caller (never a secret that
    must not be hashed) and separates equal openings of different callers. Raises BadBody when the operation
    needs a JSON object and the body is none; other operations take any body. Fields of unexpected types are
    left to the provider to refuse. `strict`: also where a key of the object stands there twice, so that the provider
    may read another request than the one that is let in.
    """
    if operation is Operation.REALTIME:
        return peek_session(headers, body if isinstance(body, bytes) else bytes(body))
    if operation in _FORMS and (mark := boundary(headers.get("content-type", ""))) is not None:
        return _peek_form(body if isinstance(body, bytes | memoryview) else bytes(body), mark)
    if operation is Operation.FILES and dialect is Dialect.GEMINI:
        return Peek()  # the body is the file, or says how it is called
    data = body if isinstance(body, bytes) else bytes(body)
    needed = operation in MODEL_CALLS or (bool(data) and operation not in _ANY_BODY)
    if dialect is Dialect.GEMINI or dialect is Dialect.CODE_ASSIST:
        peeked = _peek_gemini(dialect, path, headers, data, credential, needed, strict and bool(data))
        if operation is Operation.BATCHES and data:
            requests = google_batch(peeked.model, data)
            peeked.batch, peeked.batch_expected = requests.models, requests.expected
            peeked.batch_by_file = requests.by_file
        return peeked
    found = _decode(data, _BODY, needed, strict and bool(data))
    peeked = _peek_openai(dialect, found, headers, data, credential)
    bare = dialect is Dialect.RESPONSES and _bare_items(found.input)
    peeked.objects = tuple(references(dialect, data, bare_items=bare))
    if operation is Operation.BATCHES and dialect is Dialect.MESSAGES and data:
        messages = message_batch(data)
        peeked.batch, peeked.batch_expected = messages.models, messages.expected
    peeked.stored = found.store is True or (found.store is not False and operation is Operation.RESPONSES)
    return peeked


def _bare_items(items: Any) -> bool:
    """Has an input an item that may be nothing but the id of a stored one?"""
    return isinstance(items, list) and any(not (item.type or item.role) for item in items)


def _peek_form(body: bytes | memoryview, mark: bytes) -> Peek:
    """A form's model and the objects its fields name. Raises BadBody."""
    models: set[str] = set()
    objects: list[Reference] = []
    stream = batch = False
    found = parts(body, mark)
    for part in found:
        if part.value is None:
            continue
        batch = batch or (part.name, part.value.strip()) == ("purpose", "batch")
        if part.name == "model":
            models.add(part.value.strip())
        elif part.name == "stream":
            stream = stream or part.value.strip().lower() == "true"
        objects += field_references(part.name, part.value)
    if len(models) > 1:
        raise BadBodyError("the form names more than one model")
    peeked = Peek(model=models.pop() if models else "", stream=stream)
    if batch:
        for part in found:
            if part.name == "file":
                requests = lines_of(body[part.start : part.end])
                _add_batch(peeked, requests)
                objects += requests.references
    peeked.objects = tuple(dict.fromkeys(objects))
    return peeked


def _add_batch(peeked: Peek, requests: BatchRequests) -> None:
    """A form may hold several files: what any of them asks for counts."""
    for model, most in requests.models.items():
        prompts, answers = requests.expected[model]
        before = peeked.batch_expected.get(model, (0, 0))
        peeked.batch = {**peeked.batch, model: peeked.batch.get(model, 0) + most}
        peeked.batch_expected = {**peeked.batch_expected, model: (before[0] + prompts, before[1] + answers)}


def _decode(data: bytes, decoder: Decoder[B], needed: bool, strict: bool = False) -> B:
    """The body; a field of an unexpected type counts as absent. `strict`: no key of it may stand there twice."""
    try:
        found = _whole_or_piecewise(data, decoder)
        if not strict or keys_once(data, RAW_FIELDS.decode(data)):
            return found
        problem, needed = "the request body has a key twice", True
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


def _peek_openai(dialect: Dialect, found: _Body, headers: Mapping[str, str], data: bytes, credential: str) -> Peek:
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
    previous = found.previous_response_id or None if dialect is Dialect.RESPONSES else None  # others have no such field
    pins = _pins(previous, headers) + (_sealed(items) or _signed(dialect, data))
    return Peek(
        model=found.model or "",
        stream=found.stream is True,
        session=session,
        session_source=source if session else "",
        hard=tuple(pins),
        previous_response_id=previous,
        max_output=whole(limit) or None,
        tier=found.service_tier or "",
        tools=len(found.tools or ()),
        usage_asked=isinstance(found.stream_options, dict) and found.stream_options.get("include_usage") is True,
    )


def _peek_gemini(
    dialect: Dialect, path: str, headers: Mapping[str, str], data: bytes, credential: str, needed: bool, strict: bool
) -> Peek:
    """Gemini keeps the model in the path; Code Assist wraps the same request in an envelope that names it."""
    if dialect is Dialect.CODE_ASSIST:
        envelope = _decode(data, _CODE_ASSIST, needed, strict)
        request, model, outer = envelope.request or _Contents(), envelope.model or "", envelope.session_id or ""
    else:
        match = _GEMINI_PATH.search(path)
        request, outer = _decode(data, _CONTENTS, needed, strict), ""
        model = unquote(match[1]) if match else text(request.model)
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
        hard=(*_pins(None, headers), *_signed(dialect, data)),
        objects=tuple(references(dialect, data)),
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


def _pins(previous: str | None, headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Ids only the account that issued them can serve, as (kind, id)."""
    pins = [("response", previous)] if previous else []
    if state := headers.get("x-codex-turn-state"):
        pins.append(("turn_state", state))
    return pins


def _sealed(items: Sequence[_Item]) -> list[tuple[str, str]]:
    """The first sealed item stays in place as the conversation grows, so its hash names the conversation."""
    for item in items:
        sealed = item.encrypted_content
        if sealed is RAW_NULL or item.type not in ("reasoning", "compaction", "compaction_summary"):
            continue
        if sealed != RAW_NULL:
            return [("encrypted", seal_id(bytes(sealed)))]
    return []


def _signed(dialect: Dialect, data: bytes) -> list[tuple[str, str]]:
    """The same of a conversation with Gemini."""
    found = first_signature(dialect, data)
    return [("encrypted", found)] if found is not None else []
