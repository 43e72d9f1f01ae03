"""The smallest real request that a credential can be tried with: one word, and as few tokens as its dialect allows."""

from __future__ import annotations

from typing import Any

import msgspec

from pool_server.core.enums import CredentialKind, Dialect, Operation, Provider
from pool_server.core.models import ClientCall, HttpRequest
from pool_server.core.settings import Settings
from pool_server.providers.base import ProviderModule
from pool_server.providers.credential import Credential, model_listed
from pool_server.providers.requests import JSON_TYPE, OWN_AGENT
from pool_server.providers.routing import family_of

_ASKED = "hi"
_LEAST_RESPONSES = 16  # api.openai.com refuses a smaller limit
_PATTERN = frozenset("*?[")
_SIGNED_IN = {
    Provider.CODEX: Dialect.RESPONSES,
    Provider.CLAUDE: Dialect.MESSAGES,
    Provider.GEMINI: Dialect.CODE_ASSIST,
    Provider.QWEN: Dialect.CHAT,
}


def dialect_of(cred: Credential, model: str) -> Dialect:
    """The dialect the account is asked for the model in."""
    if cred.provider is Provider.VERTEX:
        return Dialect.MESSAGES if family_of(model) is Provider.CLAUDE else Dialect.GEMINI
    return cred.dialects[0] if cred.kind is CredentialKind.API_KEY else _SIGNED_IN[cred.provider]


def known_model(cred: Credential, module: ProviderModule) -> str:
    """A model the account surely has by what its file and vendor say; "" = its list of models has to tell."""
    named = next((model for model in cred.models if not _PATTERN & set(model)), "")
    small = module.spec.small_model
    usual = small if small and not cred.base_url and model_listed(cred, small) else ""
    return usual or named


def minimal_request(module: ProviderModule, cred: Credential, model: str, settings: Settings) -> HttpRequest:
    """The request, within the account's own hosts."""
    call, body = _call(cred, model)
    prepared = module.prepare(cred, call, settings)
    fields = {**body, **(prepared.patch or {})}
    raw = msgspec.json.encode({name: value for name, value in fields.items() if name not in prepared.drop})
    headers = [*prepared.headers, *(prepared.sign(raw) if prepared.sign is not None else ())]
    return HttpRequest(prepared.method, prepared.url, tuple(headers), raw, egress=prepared.egress)


def _call(cred: Credential, model: str) -> tuple[ClientCall, dict[str, Any]]:
    signed_in = cred.kind is not CredentialKind.API_KEY
    words = [{"role": "user", "content": _ASKED}]
    match dialect := dialect_of(cred, model):
        case Dialect.MESSAGES:
            return _as(Operation.MESSAGES, dialect, "/v1/messages", model, max_tokens=1, messages=words)
        case Dialect.RESPONSES if signed_in:
            return _as(
                Operation.RESPONSES, dialect, "/v1/responses", model, instructions="", stream=True, store=False,
                input=[{"type": "message", "role": "user", "content": [{"type": "input_text", "text": _ASKED}]}],
            )  # fmt: skip
        case Dialect.RESPONSES:
            return _as(
                Operation.RESPONSES, dialect, "/v1/responses", model,
                input=_ASKED, max_output_tokens=_LEAST_RESPONSES, store=False,
            )  # fmt: skip
        case Dialect.GEMINI:
            call, body = _as(Operation.GENERATE, dialect, f"/v1beta/models/{model}:generateContent", model, **_google())
            return call, {name: value for name, value in body.items() if name != "model"}
        case Dialect.CODE_ASSIST:
            return _as(Operation.GENERATE, dialect, "/v1internal:generateContent", model, request=_google())
    own_openai = cred.provider in (Provider.OPENAI, Provider.CODEX) and not cred.base_url
    limit = {"max_completion_tokens": _LEAST_RESPONSES} if own_openai else {"max_tokens": 1}
    return _as(Operation.CHAT, Dialect.CHAT, "/v1/chat/completions", model, messages=words, **limit)


def _as(
    operation: Operation, dialect: Dialect, path: str, model: str, **body: Any
) -> tuple[ClientCall, dict[str, Any]]:
    headers = [JSON_TYPE, ("Accept", "text/event-stream" if body.get("stream") else "application/json")]
    call = ClientCall(operation, dialect, "POST", path, headers=[*headers, ("User-Agent", OWN_AGENT)], model=model)
    return call, {"model": model, **body}


def _google() -> dict[str, Any]:
    contents = [{"role": "user", "parts": [{"text": _ASKED}]}]
    return {"contents": contents, "generationConfig": {"maxOutputTokens": 1}}
