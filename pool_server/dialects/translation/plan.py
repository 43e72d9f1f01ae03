"""One translated exchange: the request once, the answer as it comes."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any
from urllib.parse import quote

import msgspec

from pool_server.core.enums import Dialect, Operation
from pool_server.dialects.translation import fields
from pool_server.dialects.translation.answers.sequence import Terms
from pool_server.dialects.translation.answers.translator import ResponseTranslator
from pool_server.dialects.translation.chat import (
    request as chat_request,
)
from pool_server.dialects.translation.conformance import (
    DEMANDED,
    RULES,
    Feature,
    Notes,
    TranslationError,
    Verdict,
    judge,
    rule_for,
)
from pool_server.dialects.translation.conversation import arrange
from pool_server.dialects.translation.demands import ModelConstraints
from pool_server.dialects.translation.demands.complying import KNOWN, comply
from pool_server.dialects.translation.errors import error_body
from pool_server.dialects.translation.gemini import (
    request as gemini_request,
)
from pool_server.dialects.translation.gemini import (
    request_out as gemini_request_out,
)
from pool_server.dialects.translation.messages import (
    request as messages_request,
)
from pool_server.dialects.translation.messages import (
    request_out as messages_request_out,
)
from pool_server.dialects.translation.neutral import (
    FAMILY,
    GOOGLE,
    OPENAI,
    ErrorInfo,
    Message,
    NeutralRequest,
    Reasoning,
    Role,
    UpstreamKind,
)
from pool_server.dialects.translation.responses import (
    request as responses_request,
)
from pool_server.dialects.translation.responses import (
    request_out as responses_request_out,
)
from pool_server.dialects.translation.tools import ToolNames, names_of

TOO_DEEP = "the request body is not a JSON object, or is nested too deeply"
_MOST_STOPS = {
    UpstreamKind.CODEX: 0,
    UpstreamKind.RESPONSES: 0,
    UpstreamKind.CHAT: 4,
    UpstreamKind.GEMINI: 5,
    UpstreamKind.CODE_ASSIST: 5,
}
_TURNS = {Dialect.RESPONSES: "input", Dialect.GEMINI: "contents", Dialect.CODE_ASSIST: "request.contents"}
_OPERATION = {
    UpstreamKind.CODEX: Operation.RESPONSES,
    UpstreamKind.RESPONSES: Operation.RESPONSES,
    UpstreamKind.CHAT: Operation.CHAT,
    UpstreamKind.MESSAGES: Operation.MESSAGES,
    UpstreamKind.GEMINI: Operation.GENERATE,
    UpstreamKind.CODE_ASSIST: Operation.GENERATE,
}


class Target(msgspec.Struct, frozen=True):
    """Whom a request goes to. `model` is the name to send up ("" keeps the client's); `stream` whether the upstream
    is asked to stream (None: as the client asks); `project` Code Assist's; `seals` whether sealed reasoning may go,
    False where another account made it; `vendor` whose own endpoint it is, by its provider's name ("": unknown);
    `constraints` what is known of the account's model."""

    upstream: UpstreamKind
    model: str = ""
    stream: bool | None = None
    project: str = ""
    seals: bool = True
    vendor: str = ""
    constraints: ModelConstraints = ModelConstraints()


class TranslationContext(msgspec.Struct, frozen=True):
    """What a translation cannot make up itself. `ident` is unlike any other exchange's; `now` is unix seconds;
    `session` names the conversation where the client does not; `model` and `stream` are what a Gemini path says."""

    ident: str
    now: float
    session: str = ""
    model: str = ""
    stream: bool = False


class Translated(msgspec.Struct):
    """A request in the account's dialect. `path` is relative to the account's base address, query included; `headers`
    are to be set on it. `dropped` names the client's fields that were left out, `approximated` says how features were
    told otherwise, both for the record. `seals` are the sealed reasonings sent along."""

    body: bytes
    path: str
    operation: Operation
    stream: bool
    model: str
    headers: dict[str, str]
    dropped: list[str]
    approximated: dict[str, str]
    seals: list[str]
    response: ResponseTranslator


def translate_request(
    client: Dialect, target: Target, body: bytes | dict[str, Any], context: TranslationContext
) -> Translated:
    """Translate a decoded request body. Raises TranslationError: nothing may be sent, the client gets its 400."""
    try:
        return _translated(client, target, body, context)
    except RecursionError:  # how deep a body may be before it cannot be decoded depends on the version of Python
        raise TranslationError("body", TOO_DEEP) from None


def _translated(
    client: Dialect, target: Target, body: bytes | dict[str, Any], context: TranslationContext
) -> Translated:
    request = read_request(client, body, context)
    client_stream, upstream = request.stream, target.upstream
    notes, conversation, names = prepare(request, target)
    if not request.messages:
        raise TranslationError(_TURNS.get(client, "messages"), "must hold a turn")
    request.stream = upstream is UpstreamKind.CODEX or (client_stream if target.stream is None else target.stream)
    session = _session(request, context.session)
    shape = write_body(request, conversation, notes, names, target, session, context.ident)
    demanded = target.constraints.demands | KNOWN.get(target.vendor, frozenset())
    if demanded and upstream not in GOOGLE and (changed := comply(shape, demanded)):
        notes.approximated[DEMANDED] = ", ".join(changed)
    reasonings = (p for m in conversation for p in m.parts if isinstance(p, Reasoning) and p.seal)
    terms = Terms(
        client=client,
        family=FAMILY[upstream],
        ident=context.ident,
        model=request.model,
        names=names,
        emulated=frozenset(t.name for t in request.tools if t.custom) if upstream not in OPENAI else frozenset(),
        stop=_pool_stops(request, upstream, untold="-stop" in demanded),
    )
    return Translated(
        body=msgspec.json.encode(shape),
        path=path_of(upstream, request.model, stream=request.stream),
        operation=_OPERATION[upstream],
        stream=request.stream,
        model=request.model,
        headers=headers_of(upstream),
        dropped=notes.names(),
        approximated=notes.approximated,
        seals=[part.seal for part in reasonings],
        response=ResponseTranslator(upstream, terms, request, stream=client_stream, now=context.now),
    )


def read_request(client: Dialect, body: bytes | dict[str, Any], context: TranslationContext) -> NeutralRequest:
    """A client's request in neutral form. Raises TranslationError."""
    found = fields.decode(body) if isinstance(body, bytes) else body
    if not isinstance(found, dict):
        raise TranslationError("body", TOO_DEEP)
    if client is Dialect.CHAT:
        return chat_request.read_request(found)
    if client is Dialect.RESPONSES:
        return responses_request.read_request(found)
    if client is Dialect.MESSAGES:
        return messages_request.read_request(found)
    read = gemini_request.read_envelope if client is Dialect.CODE_ASSIST else gemini_request.read_request
    return read(found, model=context.model, stream=context.stream)


def prepare(request: NeutralRequest, target: Target) -> tuple[Notes, list[Message], ToolNames]:
    """Judge the features, put the conversation in order, and name its tools."""
    upstream = target.upstream
    request.model = target.model or request.model
    # Vendors refuse a name that is offered twice; the last definition is the one that was meant.
    request.tools = list({tool.name: tool for tool in request.tools}.values())
    notes = judge(request, upstream, target.vendor)
    if (request.options.max_output or 0) > target.constraints.most_output > 0:
        request.options.max_output = target.constraints.most_output
        notes.about(Feature.MAX_OUTPUT, "at most the model's")
    if not target.seals:
        for message in request.messages:
            message.parts = [p for p in message.parts if not isinstance(p, Reasoning) or not p.seal]
    conversation = arrange(request.messages, notes, FAMILY[upstream])
    names = ToolNames(names_of(request), upstream)
    if names.changed:
        _note(notes, Feature.ODD_NAMES, upstream)
    spoken = [message for message in conversation if message.role not in (Role.SYSTEM, Role.DEVELOPER)]
    if spoken and spoken[-1].role is Role.ASSISTANT:
        _note(notes, Feature.PREFILL, upstream)
    return notes, conversation, names


def _note(notes: Notes, feature: Feature, upstream: UpstreamKind) -> None:
    rule = RULES[feature][upstream]
    if rule.verdict is not Verdict.EXACT:
        notes.about(feature, rule.how)


def _session(request: NeutralRequest, given: str) -> str:
    """The conversation's name for the vendor: a hash, as the client's own may hold a person's id."""
    name = request.options.session or request.options.cache_key or given
    return blake2b(name.encode("utf-8", "replace"), digest_size=16, person=b"pool-session").hexdigest() if name else ""


def _pool_stops(request: NeutralRequest, upstream: UpstreamKind, *, untold: bool) -> tuple[str, ...]:
    stop = tuple(request.options.stop)
    return stop if untold or len(stop) > _MOST_STOPS.get(upstream, len(stop)) else ()


def write_body(
    request: NeutralRequest,
    conversation: list[Message],
    notes: Notes,
    names: ToolNames,
    target: Target,
    session: str,
    ident: str,
) -> dict[str, Any]:
    upstream = target.upstream
    if upstream is UpstreamKind.CHAT:
        allowed = rule_for(Feature.SUBSET, upstream, target.vendor).verdict is Verdict.EXACT
        return chat_request.write_request(request, conversation, notes, names, allowed=allowed)
    if upstream is UpstreamKind.MESSAGES:
        return messages_request_out.write_request(request, conversation, notes, names, session=session)
    if upstream in OPENAI:
        write = responses_request_out.write_request
        return write(request, conversation, notes, names, upstream=upstream, session=session)
    body = gemini_request_out.write_request(request, conversation, notes, names)
    if upstream is UpstreamKind.GEMINI:
        return body
    envelope = gemini_request_out.write_envelope
    return envelope(body, request.model, project=target.project, prompt_id=ident, session=session)


def path_of(upstream: UpstreamKind, model: str, *, stream: bool = False, count: bool = False) -> str:
    """The path below the account's base address, query included."""
    if upstream in GOOGLE:
        verb = "countTokens" if count else "streamGenerateContent?alt=sse" if stream else "generateContent"
        return (
            f"/v1internal:{verb}"
            if upstream is UpstreamKind.CODE_ASSIST
            else f"/v1beta/models/{quote(model, safe='')}:{verb}"
        )
    if upstream is UpstreamKind.MESSAGES:
        return "/v1/messages/count_tokens" if count else "/v1/messages"
    if upstream is UpstreamKind.CHAT:
        return "/v1/chat/completions"
    return (
        "/v1/responses/input_tokens"
        if count
        else "/v1/responses"
        if upstream is UpstreamKind.RESPONSES
        else "/responses"
    )


def headers_of(upstream: UpstreamKind) -> dict[str, str]:
    version = {"anthropic-version": messages_request_out.VERSION} if upstream is UpstreamKind.MESSAGES else {}
    return {"content-type": "application/json", **version}


def refusal_body(client: Dialect, error: TranslationError) -> bytes:
    """The 400 a client gets for a request that cannot be translated."""
    info = ErrorInfo(400, str(error), "invalid_request_error", "unsupported_value")
    return msgspec.json.encode(error_body(client, info, field=error.field))
