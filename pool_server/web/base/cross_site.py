"""What a browser says of where a request comes from and what its body is. Pure.

A page of another site can make a visitor's browser send any request that an HTML form can, with cookies and unasked.
Fetch Metadata (https://www.w3.org/TR/fetch-metadata/) and the Origin header tell such requests apart before anything
is counted or looked up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from urllib.parse import urlsplit

_OWN = frozenset({"same-origin", "none"})  # Sec-Fetch-Site: this site's page, or the person's own address bar
_DEFAULT_PORTS = {"http": 80, "https": 443}


class BodyKind(Enum):
    """What a request's body is, by its Content-Type alone."""

    JSON = "json"
    FORM = "form"
    OTHER = "other"
    ABSENT = "absent"  # no Content-Type: fetch() with a nameless Blob sends that across sites too


JSON_OR_FORM = frozenset({BodyKind.JSON, BodyKind.FORM})


def body_kind(headers: Mapping[str, str]) -> BodyKind:
    """The one place that says what a body is: nothing is guessed from its bytes."""
    said = headers.get("Content-Type")
    if said is None or not said.strip():
        return BodyKind.ABSENT
    match said.partition(";")[0].strip().lower():
        case "application/json":
            return BodyKind.JSON
        case "application/x-www-form-urlencoded":
            return BodyKind.FORM
    return BodyKind.OTHER


def has_body(headers: Mapping[str, str]) -> bool:
    """Whether bytes follow the head."""
    return headers.get("Content-Length", "0").strip() != "0" or "Transfer-Encoding" in headers


def is_foreign(headers: Mapping[str, str], own: Iterable[str]) -> bool:
    """Whether a browser sends this for a page that is not the pool's own.

    `own` are addresses or hosts under which the pool is reached. A client that is no browser sends neither header
    and is never foreign. An Origin that cannot be read is; "null" is one that a browser withholds (a sandboxed page, a
    file, a page that sends no referrer), so that only Fetch Metadata can vouch for it.
    """
    site = headers.get("Sec-Fetch-Site")
    if site is not None and site.strip().lower() not in _OWN:
        return True
    origin = headers.get("Origin")
    if origin is None or (origin == "null" and site is not None):
        return False
    place = _place(origin)
    return place is None or place not in {_place(name, scheme=origin.partition(":")[0]) for name in own if name}


def _place(address: str, *, scheme: str = "") -> tuple[str, int] | None:
    """(host, port) of an address, or of a bare host taken to have `scheme`; None for what is neither."""
    try:
        parts = urlsplit(address if "://" in address else f"{scheme}://{address}")
        port = parts.port
    except ValueError:
        return None
    default = _DEFAULT_PORTS.get(parts.scheme.lower())
    if parts.hostname is None or default is None:
        return None
    return parts.hostname.rstrip("."), default if port is None else port
