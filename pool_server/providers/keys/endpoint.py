"""The upstream requests of an API key. One key, one set of abilities, whichever file it came in."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

import msgspec

from pool_server.core.enums import Dialect, Operation
from pool_server.core.models import ClientCall, HttpRequest, UpstreamRequest
from pool_server.core.settings import Settings
from pool_server.providers.credential import Credential, KeyAuth, model_listed
from pool_server.providers.keys.operations import ANTHROPIC_API, GEMINI_API, OPENAI_CHAT_API, OPENAI_RESPONSES_API
from pool_server.providers.requests import (
    bearer,
    join,
    own_get,
    strip_prefixes,
    upstream_headers,
    versioned,
    websocket_url,
)

ANTHROPIC_VERSION = ("anthropic-version", "2023-06-01")

# What the clients of a dialect put before the operation's own path.
_PREFIXES: dict[Dialect, tuple[str, ...]] = {
    Dialect.MESSAGES: ("/v1",),
    Dialect.CHAT: ("/v1",),
    Dialect.RESPONSES: ("/backend-api/codex", "/v1", "/api/codex", "/backend-api"),
}
_OPERATIONS: dict[Dialect, frozenset[Operation]] = {
    Dialect.MESSAGES: ANTHROPIC_API,
    Dialect.CHAT: OPENAI_CHAT_API,
    Dialect.RESPONSES: OPENAI_RESPONSES_API,
    Dialect.GEMINI: GEMINI_API,
}
DIALECTS = tuple(_OPERATIONS)  # those an API key can speak
_GOOGLE_VERSION = re.compile(r"/v\d+[a-z0-9]*(?=/|$)")
_LIST = {Dialect.MESSAGES: "limit=1", Dialect.GEMINI: "pageSize=1"}


class KeySpec(msgspec.Struct, frozen=True):
    """A vendor's API keys: the `fields` of a file that hold one, the header that shows it, the dialects it speaks (the
    vendor's own first) and the vendor's address without a version."""

    fields: tuple[str, ...]
    auth: KeyAuth
    dialects: tuple[Dialect, ...]
    upstream: Callable[[Settings], str]


def base_for(cred: Credential, dialect: Dialect, upstream: str) -> str:
    """The address to which an operation's path is appended; the file's own, else the vendor's `upstream`."""
    base = cred.base_url or upstream
    return base if cred.exact_base or dialect is Dialect.GEMINI else versioned(base)


def prepare(cred: Credential, call: ClientCall, upstream: str) -> UpstreamRequest:
    """The upstream request of a client's call with an API key."""
    return prepare_at(base_for(cred, call.dialect, upstream), call, key_headers(cred))


def prepare_at(base: str, call: ClientCall, own: list[tuple[str, str]]) -> UpstreamRequest:
    """The upstream request of a client's call at `base`, with the headers that show the key."""
    if call.dialect is Dialect.GEMINI:
        base, path = (_unversioned(base), call.path) if call.websocket else (base, _google_path(base, call.path))
    else:
        path = strip_prefixes(call.path, _PREFIXES.get(call.dialect, ()))
    url = join(base, path, call.query)
    if call.websocket:
        url = websocket_url(url)
    if call.dialect is Dialect.MESSAGES and not any(name.lower() == ANTHROPIC_VERSION[0] for name, _ in call.headers):
        own.append(ANTHROPIC_VERSION)
    return UpstreamRequest(call.method, url, upstream_headers(call.headers, own))


@lru_cache(maxsize=256)
def _google_path(base: str, path: str) -> str:
    """A base that names a version wins over the client's; without any it is v1beta."""
    named = _GOOGLE_VERSION.match(path)
    if _GOOGLE_VERSION.search(base, base.find("://") + 3):
        return path[named.end() :] if named else path
    return path if named or path.startswith("/upload/") else f"/v1beta{path}"


@lru_cache(maxsize=256)
def _unversioned(base: str) -> str:
    """The base of Google's sockets, which name the version within their path."""
    named = _GOOGLE_VERSION.search(base, base.find("://") + 3)
    return base if named is None else base[: named.start()]


def key_headers(cred: Credential, auth: KeyAuth | None = None) -> list[tuple[str, str]]:
    """The header that shows the key, as its file says unless `auth` does."""
    auth = auth or cred.auth
    if auth in (KeyAuth.NONE, KeyAuth.SIGNED) or not cred.api_key:
        return []
    return [bearer(cred.api_key)] if auth is KeyAuth.BEARER else [(auth.value, cred.api_key)]


def serves(cred: Credential, operation: Operation, dialect: Dialect, model: str) -> bool:
    """May this key be asked that at all?"""
    return dialect in cred.dialects and operation in _OPERATIONS[dialect] and model_listed(cred, model)


def test_request(cred: Credential, upstream: str) -> HttpRequest:
    """The endpoint's list of models."""
    dialect = cred.dialects[0]
    base = base_for(cred, dialect, upstream)
    path = _google_path(base, "/models") if dialect is Dialect.GEMINI else "/models"
    headers = key_headers(cred) + ([ANTHROPIC_VERSION] if dialect is Dialect.MESSAGES else [])
    return own_get(join(base, path, _LIST.get(dialect, "")), *headers)
