"""Which call of which vendor a request to the fake providers is, and the good answer to it. Pure."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any

import msgspec

from pool_server.core.models import Usage
from pool_server.demo import wire

Json = dict[str, Any]


class Surface(StrEnum):
    """The calls the fake providers know; scenarios are scripted by these."""

    RESPONSES = "responses"
    COMPACT = "compact"
    SOCKET = "socket"
    CHAT = "chat"
    MESSAGES = "messages"
    COUNT = "count"
    GENERATE = "generate"
    MODELS = "models"
    USAGE = "usage"
    PROFILE = "profile"
    CODE_ASSIST = "code_assist"  # loadCodeAssist, onboardUser, retrieveUserQuota …
    TOKEN = "token"  # the token endpoint
    UNKNOWN = "unknown"


GENERATION = frozenset({Surface.RESPONSES, Surface.CHAT, Surface.MESSAGES, Surface.GENERATE})

_SURFACES: tuple[tuple[str, re.Pattern[str], Surface], ...] = tuple(
    (method, re.compile(pattern), surface)
    for method, pattern, surface in (
        ("GET", r".*/responses", Surface.SOCKET),
        ("POST", r".*/responses", Surface.RESPONSES),
        ("POST", r".*/responses/compact", Surface.COMPACT),
        ("POST", r".*/chat/completions", Surface.CHAT),
        ("POST", r".*/v1/messages", Surface.MESSAGES),
        ("POST", r".*/v1/messages/count_tokens", Surface.COUNT),
        ("POST", r".*:(g|streamG)enerateContent", Surface.GENERATE),
        ("POST", r".*:countTokens", Surface.COUNT),
        ("GET", r".*/models", Surface.MODELS),
        ("GET", r".*/wham/usage|.*/api/oauth/usage", Surface.USAGE),
        ("POST", r".*/v1internal:retrieveUserQuota", Surface.USAGE),
        ("GET", r".*/api/oauth/profile", Surface.PROFILE),
        ("POST", r".*/v1internal:\w+", Surface.CODE_ASSIST),
    )
)


def surface_of(method: str, path: str) -> Surface:
    """The surface of a call to a fake provider; `path` still has the fake's own prefix."""
    if path.startswith("/token/"):
        return Surface.TOKEN
    for wanted, pattern, surface in _SURFACES:
        if method == wanted and pattern.fullmatch(path):
            return surface
    return Surface.UNKNOWN


class Good(msgspec.Struct):
    """A good answer: `events` when the client asked for a stream, else `body`."""

    body: Any = None
    events: list[bytes] | None = None
    content_type: str = "text/event-stream"


def good(surface: Surface, path: str, query: str, body: Json, *, ident: str, pieces: list[str], usage: Usage) -> Good:
    """The good answer of a generating surface to `body`, in the vendor's shape."""
    model = str(body.get("model", ""))
    if surface is Surface.GENERATE:
        return _generate(path, query, body, ident, pieces, usage)
    if surface is Surface.MESSAGES:
        if body.get("stream"):
            return Good(events=wire.messages_events(ident, model, pieces, usage))
        return Good(body=wire.message_json(ident, model, pieces, usage))
    if surface is Surface.CHAT:
        if body.get("stream"):
            asked = bool((body.get("stream_options") or {}).get("include_usage"))
            return Good(events=wire.chat_events(ident, model, pieces, usage, include_usage=asked))
        return Good(body=wire.chat_json(ident, model, pieces, usage))
    if body.get("stream"):
        return Good(events=wire.responses_events(f"resp_{ident}", model, pieces, usage))
    return Good(body=wire.response_json(f"resp_{ident}", model, pieces, usage))


def _generate(path: str, query: str, body: Json, ident: str, pieces: list[str], usage: Usage) -> Good:
    wrapped = "/v1internal:" in path
    named = re.search(r"/models/([^/:]+):", path)
    model = named.group(1) if named else str(body.get("model", ""))
    if "streamGenerateContent" in path:
        if "alt=sse" in query:
            return Good(events=wire.gemini_events(ident, model, pieces, usage, wrapped=wrapped))
        return Good(events=wire.gemini_array(ident, model, pieces, usage), content_type="application/json")
    request = body.get("request", body) if wrapped else body
    config = request.get("generationConfig") or {}
    if config.get("responseMimeType") == "application/json":
        schema = config.get("responseJsonSchema") or config.get("responseSchema") or {}
        pieces = [msgspec.json.encode(wire.json_for_schema(schema)).decode()]
    return Good(body=wire.gemini_json(ident, model, pieces, usage, wrapped=wrapped))
