"""Header rules of the data plane, both directions. Pure.

Upwards goes what the client sent, minus our own credential, hop-by-hop, forwarding, cookie and X-Pool-* headers;
downwards what the provider sent, minus hop-by-hop and cookies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import islice
from urllib.parse import unquote_plus

from pool_server.providers import client_headers

_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_DOWN_DROPPED = _HOP_BY_HOP | {
    "set-cookie",
    "content-length",
    "content-encoding",
    "alt-svc",
    "server",
    "date",
    "x-pool-request-id",
}
_MOST_KEYS = 4
FORWARDING = ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded", "X-Real-Ip", "Via")


@lru_cache(maxsize=4096)
def _goes_down(name: str) -> bool:
    return name.lower() not in _DOWN_DROPPED


def upward(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The client's headers that may reach a provider, in their order; the vendors' room knows which."""
    return client_headers(headers)


def downward(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The provider's headers that may reach the client; Content-Length is set anew by whoever writes, and bodies go
    down decoded."""
    return [pair for pair in headers if _goes_down(pair[0])]


def credentials(headers: Mapping[str, str], query: str) -> list[str]:
    """Every credential the client presented, likeliest first, without doubles."""
    found: list[str] = []
    bearer = headers.get("Authorization", "")
    if bearer[:7].lower() == "bearer ":
        found.append(bearer[7:].strip())
    for name in ("X-Api-Key", "X-Goog-Api-Key"):
        value = headers.get(name, "").strip()
        if value and value not in found:
            found.append(value)
    if "key=" in query:
        for value in _keys_in(query):
            if value not in found:
                found.append(value)
    return [value for value in found if value]


def _keys_in(query: str) -> Iterable[str]:
    """The first few values of `key`: whoever sends more guesses."""
    fields = (part.partition("=") for part in query.split("&"))
    return islice((unquote_plus(value) for name, _, value in fields if name == "key" and value), _MOST_KEYS)


def query_without_key(query: str) -> str:
    """The query string as it came, without `key=…`."""
    if "key=" not in query:
        return query
    return "&".join(part for part in query.split("&") if part.partition("=")[0] != "key")
