"""Addresses and headers of upstream requests: joined without doubling, cleaned of all that is not the
upstream's."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import unquote

import msgspec

from pool_server import __version__
from pool_server.core.models import HttpRequest

OWN_AGENT = f"pool-server/{__version__}"

JSON_TYPE = ("Content-Type", "application/json")
FORM_TYPE = ("Content-Type", "application/x-www-form-urlencoded")

# What of a client's never goes up: credentials and what names an account, hop-by-hop names (RFC 9110 §7.6.1), what
# the HTTP client sets itself, cookies, method overrides, and what proxies in front of the pool say of the client.
_DROPPED = frozenset(
    (
        "authorization", "x-api-key", "api-key", "x-goog-api-key", "x-auth-token", "x-access-token",
        "proxy-authorization", "proxy-authenticate", "cookie", "cookie2", "host", "content-length", "connection",
        "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "expect", "accept-encoding",
        "forwarded", "via", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip", "cdn-loop",
        "x-original-uri", "x-original-url", "x-rewrite-url", "x-http-method-override", "x-http-method",
        "x-method-override", "chatgpt-account-id", "x-openai-fedramp", "openai-organization", "openai-project",
        "x-goog-user-project", "x-user-email", "x-user-id", "x-user-name", "x-remote-user", "x-webauth-user",
        "x-goog-iap-jwt-assertion",
    )
)  # fmt: skip
# The routing, tracing and identity headers of gateways and sign-in proxies: they name people, keys or other accounts.
_DROPPED_PREFIXES = (
    "x-forwarded-", "cf-", "x-pool-", "sec-websocket-", "x-envoy-", "x-amzn-", "x-kong-", "x-apisix-", "x-higress-",
    "x-litellm-", "litellm-", "helicone-", "x-portkey-", "x-subrouter-", "subrouter-", "x-bf-", "x-bt-", "x-tfy-",
    "x-cliproxy-", "x-ai-gateway-", "ai-gateway-", "x-langfuse-", "langfuse-", "x-langsmith-", "x-openwebui-",
    "x-librechat-", "x-auth-request-", "x-authentik-", "x-pomerium-", "x-goog-authenticated-user-",
    "x-ms-client-principal", "remote-user", "remote-name", "remote-email", "remote-groups", "tailscale-",
)  # fmt: skip
_USUAL_CONNECTIONS = ("keep-alive", "close", "upgrade")  # which list no name that is not dropped anyway
_IDENTITY = ("Accept-Encoding", "identity")  # the answer must be readable for usage
_KEY_PARAMETERS = frozenset(("key", "api_key", "access_token"))

_VERSION_SEGMENT = re.compile(r"/v\d+[a-z0-9]*(?=/|$)")


def client_headers(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The client's headers in their order and case without what must not go up, its own hop-by-hop names too."""
    kept: list[tuple[str, str]] = []
    hops = ""
    for pair in headers:
        if _goes_up(pair[0]):
            kept.append(pair)
        elif pair[0].lower() == "connection" and pair[1].lower() not in _USUAL_CONNECTIONS:
            hops += "," + pair[1].lower()
    listed = {token.strip() for token in hops.split(",")} - _DROPPED if hops else None
    return [pair for pair in kept if pair[0].lower() not in listed] if listed else kept


@lru_cache(maxsize=4096)
def _goes_up(name: str) -> bool:
    plain = name.lower().replace("_", "-")  # servers that hand names on as CGI variables read both as one
    return plain not in _DROPPED and not plain.startswith(_DROPPED_PREFIXES)


def upstream_headers(client: list[tuple[str, str]], own: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """What goes up: `client`, as `client_headers` has left it, then the account's `own`."""
    return [*client, *own, _IDENTITY]


def without(headers: list[tuple[str, str]], name: str) -> list[tuple[str, str]]:
    """`headers` without those called `name` (lower case)."""
    return [pair for pair in headers if pair[0].lower() != name]


def clean_path(path: str) -> str:
    """`path` with one leading slash and without empty and dot segments, so that it cannot climb out of its
    base."""
    return "/" + "/".join(part for part in path.split("/") if part and not _climbs(part))


def _climbs(segment: str) -> bool:
    """Is there a dot segment in it, also behind percent signs and backslashes?"""
    return any(piece in (".", "..") for piece in unquote(segment).replace("\\", "/").split("/"))


def clean_query(query: str) -> str:
    """`query` as the client wrote it, without parameters that carry a key."""
    return "&".join(
        part for part in query.split("&") if part and unquote(part.partition("=")[0]).lower() not in _KEY_PARAMETERS
    )


@lru_cache(maxsize=256)
def strip_prefixes(path: str, prefixes: tuple[str, ...]) -> str:
    """`path` without any of the leading `prefixes`, however often they were put before it."""
    stripped = True
    while stripped:
        stripped = False
        for prefix in prefixes:
            if path == prefix or path.startswith(prefix + "/"):
                path = path[len(prefix) :] or "/"
                stripped = True
    return path


def join(base: str, path: str, query: str = "") -> str:
    """`base` + `path` + `?query`. What `base` ends with is not repeated: `…/v1` + `/v1/models` → `…/v1/models`."""
    url = _joined(base, path)
    query = clean_query(query) if query else ""
    return f"{url}?{query}" if query else url


@lru_cache(maxsize=256)
def _joined(base: str, path: str) -> str:
    """The address without its query: that may hold a key, which is not to be remembered."""
    base = base.rstrip("/")
    path = clean_path(path)
    last = "/" + base.rpartition("/")[2]
    if base.count("/") > 2 and (path == last or path.startswith(last + "/")):
        path = path[len(last) :]
    return base if path == "/" else base + path


@lru_cache(maxsize=256)
def versioned(base: str) -> str:
    """An OpenAI-compatible base with its version: `/v1` is added unless the path names a version already."""
    base = base.rstrip("/")
    host_end = base.find("/", base.find("://") + 3)
    path = base[host_end:] if host_end > 0 else ""
    return base if _VERSION_SEGMENT.search(path) else base + "/v1"


def websocket_url(url: str) -> str:
    """The ws(s) form of an http(s) address."""
    return "ws" + url.removeprefix("http") if url.startswith("http") else url


def own_get(url: str, *headers: tuple[str, str]) -> HttpRequest:
    """A GET of the pool's own; it names itself."""
    return HttpRequest("GET", url, (*headers, ("Accept", "application/json"), ("User-Agent", OWN_AGENT)))


def own_post(url: str, body: object, *headers: tuple[str, str]) -> HttpRequest:
    """A POST of the pool's own: JSON, or a form when `body` is already encoded (bytes)."""
    form = isinstance(body, bytes)
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    kind = FORM_TYPE if form else JSON_TYPE
    return HttpRequest("POST", url, (*headers, kind, ("Accept", "application/json"), ("User-Agent", OWN_AGENT)), raw)


def bearer(token: str) -> tuple[str, str]:
    return ("Authorization", f"Bearer {token}")
