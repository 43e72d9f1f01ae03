"""Header rules of the data plane, both directions. Pure.

Upwards goes what the client sent, minus our own credential, hop-by-hop, forwarding, cookie and X-Pool-* headers;
downwards what clients are known to read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from urllib.parse import unquote_plus

from pool_server.http1 import Headers, Request
from pool_server.providers import Shield, client_headers

# What clients read of an answer; all else stays here: what a browser would act on (cookies, Clear-Site-Data, Refresh,
# Access-Control-*, Content-Security-Policy, Location), what a proxy in front would (X-Accel-Redirect, X-Sendfile,
# Cache-Control: it would keep one friend's file for the next), what speaks of the connection, and what names the
# account (…-Organization).
_GOES_DOWN = frozenset(
    {
        "accept-ranges",
        "cf-ray",
        "content-disposition",
        "content-language",
        "content-range",
        "content-type",
        "deprecation",
        "etag",
        "last-modified",
        "request-id",
        "retry-after",
        "retry-after-ms",
        "server-timing",
        "sunset",
        "vary",
        "warning",
    }
)
_GO_DOWN = ("anthropic-", "openai-", "ratelimit-", "x-")  # vendors name their own as they like
# What a server in front would obey, or a browser; and what the pool itself says.
_COMMANDS = (
    "x-accel-", "x-sendfile", "x-lighttpd-", "x-litespeed-", "x-reproxy-", "x-frame-", "x-content-", "x-xss-",
    "x-permitted-", "x-dns-prefetch-", "x-forwarded-", "x-pool-", "x-robots-", "x-ua-",
)  # fmt: skip
_NAME_THE_ACCOUNT = frozenset(
    {"anthropic-organization-id", "openai-organization", "openai-project", "x-openai-organization", "x-openai-project"}
)
# An answer is data, whatever an upstream makes of it: on the origin that holds the pages' cookies nothing of it runs,
# is framed, or is read by other sites.
SAFE = (
    ("Content-Security-Policy", "sandbox; default-src 'none'; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)
SAFE_STREAM = (*SAFE, ("X-Accel-Buffering", "no"))  # nginx in front would hold the events back
_BROWSED = frozenset({"document", "iframe", "frame", "embed", "object", "fencedframe"})
_MOST_KEYS = 4
_KEY_PROTOCOL = "openai-insecure-api-key."  # OpenAI's realtime API, WebSocket subprotocols
_SECRET_LENGTH = 16  # characters; what is shorter may stand anywhere by chance


@lru_cache(maxsize=4096)
def _goes_down(name: str) -> bool:
    lower = name.lower()
    if lower in _NAME_THE_ACCOUNT or lower.startswith(_COMMANDS):
        return False
    return lower in _GOES_DOWN or lower.startswith(_GO_DOWN)


def upward(headers: Iterable[tuple[str, str]], keys: Sequence[str] = ()) -> list[tuple[str, str]]:
    """The client's headers that may reach a provider, in their order; the vendors' room knows which. None of them
    holds one of the `keys` that the client showed."""
    kept = client_headers(headers)
    secret = [key for key in keys if len(key) >= _SECRET_LENGTH]
    return [pair for pair in kept if not any(key in pair[1] for key in secret)] if secret else kept


def downward(headers: Iterable[tuple[str, str]], shield: Shield) -> list[tuple[str, str]]:
    """The provider's headers that may reach the client, without the account's secrets. Whoever writes sets
    Content-Length; bodies go down decoded."""
    return shield.headers([pair for pair in headers if _goes_down(pair[0])])


def navigates(headers: Mapping[str, str]) -> bool:
    """Would a browser show the answer, as a page or within one? Plain http to a name carries no Sec-Fetch-*.
    `headers` are found by lower-case name."""
    if isinstance(headers, Headers):
        headers = headers.fields
    return headers.get("sec-fetch-dest", "") in _BROWSED or headers.get("accept", "").startswith("text/html")


def _from_a_browser(headers: Mapping[str, str]) -> bool:
    """Node's fetch sends Sec-Fetch-Mode and no other of these."""
    return bool(headers.get("sec-fetch-site") or headers.get("sec-fetch-dest")) or navigates(headers)


def credentials(headers: Mapping[str, str], query: str) -> list[str]:
    """Every credential the client presented, likeliest first, without doubles. Of a browser none in the query: any
    page could have made it ask, and addresses are kept and passed on. `headers` are found by lower-case name."""
    if isinstance(headers, Headers):
        headers = headers.fields
    found: list[str] = []
    bearer = headers.get("authorization", "")
    if bearer[:7].lower() == "bearer ":
        found.append(bearer[7:].strip())
    for name in ("x-api-key", "x-goog-api-key"):
        value = headers.get(name, "").strip()
        if value and value not in found:
            found.append(value)
    offered = headers.get("sec-websocket-protocol", "")
    if _KEY_PROTOCOL in offered:  # a browser's socket can send no header of its own
        found += [
            one.strip()[len(_KEY_PROTOCOL) :] for one in offered.split(",") if one.strip().startswith(_KEY_PROTOCOL)
        ][:_MOST_KEYS]
    if "key=" in query and not _from_a_browser(headers):
        for value in _keys_in(query):
            if value not in found:
                found.append(value)
    return [value for value in found if value]


def presented(request: Request) -> list[str]:
    """`credentials` of a request."""
    made = request.made_of_head
    if "keys" not in made:
        made["keys"] = credentials(request.headers, request.query)
    found: list[str] = made["keys"]
    return found


def _keys_in(query: str) -> Iterable[str]:
    """The first few values of `key`: whoever sends more guesses."""
    fields = (part.partition("=") for part in query.split("&"))
    return islice((unquote_plus(value) for name, _, value in fields if name == "key" and value), _MOST_KEYS)


def query_without_key(query: str, keys: Sequence[str] = ()) -> str:
    """The query string as it came, without `key=…` and without what holds one of the `keys` that the client showed."""
    if not query:
        return query
    secret = [key for key in keys if len(key) >= _SECRET_LENGTH]
    return "&".join(part for part in query.split("&") if not _holds_key(part, secret))


def _holds_key(part: str, secret: Sequence[str]) -> bool:
    name, _, value = part.partition("=")
    named = unquote_plus(name)  # as the provider will read it
    return named == "key" or any(key in unquote_plus(value) or key in named for key in secret)
