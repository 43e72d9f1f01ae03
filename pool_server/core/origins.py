"""Origins of addresses (scheme, host, port), and which hosts belong to one owner. Pure."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from urllib.parse import urlsplit

PUBLIC_ONLY = "public"  # in a set of origins: their names must lead to the public internet
_PORTS = {"http": 80, "https": 443}
_SCHEMES = {"ws": "http", "wss": "https", "http": "http", "https": "https"}

# Suffixes under which anybody may have a name: registries of two labels, and the hosting whose customers get a label.
_SECOND_LEVEL = frozenset(("ac", "co", "com", "edu", "gov", "go", "gob", "mil", "ne", "net", "nom", "or", "org"))
_SHARED = frozenset(
    (
        "aliyuncs.com", "amazonaws.com", "api.aws", "appspot.com", "azure.com", "azureedge.net", "azurewebsites.net",
        "azurefd.net", "cloudfront.net", "cloudfunctions.net", "deno.dev", "edgeone.app", "firebaseapp.com", "fly.dev",
        "github.io", "gitlab.io", "herokuapp.com", "hf.space", "loca.lt", "modal.run", "myqcloud.com", "netlify.app",
        "ngrok.app", "ngrok.dev", "ngrok.io", "ngrok-free.app", "onrender.com", "pages.dev", "railway.app",
        "replit.app",
        "run.app", "trycloudflare.com", "ts.net", "vercel.app", "volces.com", "web.app", "windows.net", "workers.dev",
    )
)  # fmt: skip


@lru_cache(maxsize=1024)
def origin(url: str) -> str:
    """`https://host[:port]` of an address, lower case and without the usual port; ws counts as http. "" for what is no
    such address."""
    try:
        parts = urlsplit(url)
        scheme, host, port = _SCHEMES.get(parts.scheme, ""), parts.hostname or "", parts.port
    except ValueError:
        return ""
    if not scheme or not host or parts.username is not None or parts.password is not None:
        return ""
    shown = f"[{host}]" if ":" in host else host.rstrip(".")
    return f"{scheme}://{shown}" if port in (None, _PORTS[scheme]) else f"{scheme}://{shown}:{port}"


@lru_cache(maxsize=1024)
def origins(*urls: str) -> frozenset[str]:
    """The origins of some addresses."""
    return frozenset(filter(None, map(origin, urls)))


def registrable(host: str) -> str:
    """The part of a host's name that somebody registered: `a.b.example.co.uk` → `example.co.uk`; an IP address or a
    name of one label is itself. Names of customers of one hosting are told apart, as far as it is known here."""
    name = host.lower().rstrip(".")
    try:
        return str(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        pass
    labels = name.split(".")
    if len(labels) < 3:
        return name
    for taken in range(len(labels) - 1, 0, -1):
        if ".".join(labels[taken:]) in _SHARED:
            return name  # which label is the customer's is not known: only the same name is the same owner
    two = len(labels[-1]) == 2 and labels[-2] in _SECOND_LEVEL
    return ".".join(labels[-3:] if two else labels[-2:])


def host_of(url: str) -> str:
    """`host[:port]` of an address without its scheme, user and password, for people."""
    return urlsplit(url).netloc.rpartition("@")[2]


def shown(origin_: str) -> str:
    """An origin for people: the host alone where it is https on the usual port."""
    return origin_.removeprefix("https://")
