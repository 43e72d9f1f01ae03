"""Where the database is, from a URL. Its password is in no text made of it; TLS without proof must be written out."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from pool_server.core.loopback import is_loopback
from pool_server.storage.errors import StoreError

PASSWORD = "POOL_STORE_PASSWORD"
_SCHEMES = ("postgresql", "postgres")
_MODES = ("disable", "prefer", "require", "verify-ca", "verify-full")
# What of libpq's parameters the driver is given; anything else is a mistake that must not pass in silence.
_PARAMETERS = (
    "host", "port", "user", "dbname", "passfile", "sslmode", "sslrootcert", "target_session_attrs", "pooler",
)  # fmt: skip


class DatabaseUrl(NamedTuple):
    """Its repr and `redacted` hold no password."""

    dsn: str  # without TLS settings and without a password
    password: str | None
    tls: ssl.SSLContext | str | bool
    mode: str
    remote: bool
    redacted: str
    pooled: bool = False  # a pooler gives a connection for a transaction only

    def __repr__(self) -> str:
        return f"DatabaseUrl({self.redacted!r})"

    def arguments(self) -> dict[str, Any]:
        """What the driver's `connect` takes."""
        found: dict[str, Any] = {"dsn": self.dsn, "password": self.password, "ssl": self.tls}
        return found | {"statement_cache_size": 0} if self.pooled else found


def parse(text: str, environment: Mapping[str, str]) -> DatabaseUrl:
    """Raises StoreError, in one line without a password."""
    scheme = text.partition("://")[0].lower()
    if "://" not in text or scheme not in _SCHEMES:
        named = f"{scheme} is another engine" if "://" in text and scheme.isalnum() else "this is none"
        raise StoreError(f"store_url must be a postgresql:// URL: {named}")
    try:
        parts = urlsplit(text)
        given = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise StoreError("store_url cannot be read: write postgresql://ROLE@HOST:PORT/DATABASE") from None
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    places = parts.netloc.rpartition("@")[2]
    return _checked(given, user, unquote(password), places, parts.path, environment)


def _checked(
    given: dict[str, str], user: str, password: str, places: str, path: str, environment: Mapping[str, str]
) -> DatabaseUrl:
    unknown = sorted(given.keys() - set(_PARAMETERS) - {"password"})
    if unknown:
        raise StoreError(f"store_url: {_shown(unknown[0])} is not a parameter that is known here")
    hosts = [_host(place) for place in (given.get("host") or places).split(",")]
    remote = any(host and not host.startswith("/") and host != "localhost" and not is_loopback(host) for host in hosts)
    mode = given.pop("sslmode", "")
    if mode and mode not in _MODES:
        raise StoreError(f"store_url: sslmode is one of {', '.join(_MODES)}")
    if not mode and remote:
        raise StoreError(
            "store_url: a database on another machine needs sslmode=verify-full (or a lesser one, written)"
        )
    pooler = given.pop("pooler", "")
    if pooler not in ("", "transaction"):
        raise StoreError("store_url: pooler is transaction, or left out")
    root = given.pop("sslrootcert", "")
    secret = environment.get(PASSWORD) or given.pop("password", "") or password or None
    given.pop("password", None)
    query = urlencode(given)
    dsn = urlunsplit(("postgresql", f"{user}@{places}" if user else places, path, query, ""))
    told = urlencode(given | ({"sslmode": mode} if mode else {}) | ({"pooler": pooler} if pooler else {}))
    redacted = urlunsplit(("postgresql", f"{user}@{places}" if user else places, path, told, ""))
    return DatabaseUrl(dsn, secret, _tls(mode, root), mode, remote, redacted, bool(pooler))


def _host(place: str) -> str:
    """`[::1]:5432` → ::1"""
    place = unquote(place)
    if place.startswith("["):
        return place[1:].partition("]")[0]
    return place if place.startswith("/") else place.partition(":")[0]


def _tls(mode: str, root: str) -> ssl.SSLContext | str | bool:
    """Where the certificate counts, the system's authorities or those of `root` say so."""
    if mode in ("", "disable"):
        return False
    if not mode.startswith("verify"):
        return mode
    try:
        context = ssl.create_default_context(cafile=root or None)
    except (OSError, ssl.SSLError):
        raise StoreError(f"store_url: sslrootcert {_shown(Path(root).name)} cannot be read as certificates") from None
    context.check_hostname = mode == "verify-full"
    return context


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")
