"""Who is at the other end of a connection: loopback or not, forwarded or not. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

FORWARDING = ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded", "X-Real-Ip", "Via")


def is_loopback(address: str) -> bool:
    """True for 127.0.0.0/8, ::1 and their IPv4-mapped forms; False for anything that is no address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


def is_loopback_host(host: str) -> bool:
    """True when a Host header names this machine's loopback, with or without a port."""
    name = host.strip().lower()
    if name.startswith("["):
        return is_loopback(name[1:].partition("]")[0])
    name = name.partition(":")[0] if name.count(":") == 1 else name
    return name == "localhost" or name.endswith(".localhost") or is_loopback(name)


def local_refusal(peer: str, headers: Mapping[str, str]) -> str | None:
    """Why local mode turns a request away, None when it may pass. Headers by any-case `get`.

    A page on the internet can make a browser call a loopback port; it cannot forge Host and Origin, so both must
    name the loopback (DNS rebinding). A forwarding header means somebody put a proxy in front.
    """
    if not is_loopback(peer):
        return "this pool runs in local mode and serves loopback callers only"
    for name in FORWARDING:
        if headers.get(name) is not None:
            return f"this pool runs in local mode and refuses forwarded requests ({name})"
    if not is_loopback_host(headers.get("Host", "")):
        return "this pool runs in local mode: the Host header must name the loopback"
    origin = headers.get("Origin")
    if origin is not None and not is_loopback_host(urlsplit(origin).netloc):
        return "this pool runs in local mode: the Origin must be the loopback"
    return None
