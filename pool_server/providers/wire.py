"""Addresses and headers of upstream requests: joined without doubling, cleaned of all that is not the
upstream's."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote

import msgspec

from pool_server import __version__
from pool_server.records import HttpRequest

OWN_AGENT = f"pool-server/{__version__}"

JSON_TYPE = ("Content-Type", "application/json")
FORM_TYPE = ("Content-Type", "application/x-www-form-urlencoded")

# What never goes up: credentials, hop-by-hop names (RFC 9110 §7.6.1), what the HTTP client sets itself, cookies,
# and what proxies in front of the pool add about the client.
_DROPPED = frozenset(
    (
        "authorization", "x-api-key", "x-goog-api-key", "proxy-authorization", "cookie", "cookie2", "host",
        "content-length", "connection", "keep-alive", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade", "expect", "accept-encoding", "forwarded", "via", "x-real-ip",
        "x-client-ip", "x-cluster-client-ip", "true-client-ip", "cdn-loop", "x-original-uri",
        "x-original-url", "x-envoy-external-address", "chatgpt-account-id", "x-openai-fedramp",
        "openai-organization", "openai-project", "x-goog-user-project",
    )
)  # fmt: skip
_DROPPED_PREFIXES = ("x-forwarded-", "cf-", "x-pool-", "sec-websocket-")
_KEY_PARAMETERS = frozenset(("key", "api_key", "access_token"))

_VERSION_SEGMENT = re.compile(r"/v\d+[a-z0-9]*(?=/|$)")


def upstream_headers(
    client: Iterable[tuple[str, str]], own: Iterable[tuple[str, str]], *, drop: frozenset[str] = frozenset()
) -> list[tuple[str, str]]:
    """The client's headers in their order and case without what must not go up, then `own`.

    `own` wins over a client's header of the same name; `drop` names (lower case) more that stays behind. The
    answer must be readable for usage, hence `Accept-Encoding: identity`.
    """
    added = [*own, ("Accept-Encoding", "identity")]
    refused = drop | {name.lower() for name, _ in added}
    pairs = [(name.lower(), name, value) for name, value in client]
    for lower, _, value in pairs:
        if lower == "connection":  # names that are hop-by-hop by the client's own word
            refused |= {token.strip().lower() for token in value.split(",")}
    refused |= _DROPPED
    kept = [
        (name, value)
        for lower, name, value in pairs
        if lower not in refused and not lower.startswith(_DROPPED_PREFIXES)
    ]
    return kept + added


def has(headers: Iterable[tuple[str, str]], name: str) -> bool:
    return any(key.lower() == name for key, _ in headers)


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
        part
        for part in query.split("&")
        if part and unquote(part.partition("=")[0]).lower() not in _KEY_PARAMETERS
    )


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
    base = base.rstrip("/")
    path = clean_path(path)
    last = "/" + base.rpartition("/")[2]
    if base.count("/") > 2 and (path == last or path.startswith(last + "/")):
        path = path[len(last) :]
    query = clean_query(query)
    return base + ("" if path == "/" else path) + (f"?{query}" if query else "")


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
    return HttpRequest(
        "POST", url, (*headers, kind, ("Accept", "application/json"), ("User-Agent", OWN_AGENT)), raw
    )


def bearer(token: str) -> tuple[str, str]:
    return ("Authorization", f"Bearer {token}")
