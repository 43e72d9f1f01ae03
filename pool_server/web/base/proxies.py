"""Who is behind a proxy, and under which address the pool is reached: pure functions over addresses and headers.

Nothing here believes a header unless the connection's own peer is in a network the operator named.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_PORT = re.compile(r":[0-9]{1,5}")
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:]{2,39}\])(?::[0-9]{1,5})?")


def networks(names: Sequence[str]) -> tuple[Network, ...]:
    """Parse `trusted_proxies`: addresses or networks. Raises ValueError naming the wrong one."""
    return tuple(ipaddress.ip_network(name, strict=False) for name in names)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.strip().strip("[]").partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def _hop(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address of one X-Forwarded-For entry. Some balancers add a port, and put an IPv6 address in brackets then;
    RFC 7239's form has quotes around that."""
    text = text.strip().strip('"')
    if text.startswith("["):
        host, closed, port = text[1:].partition("]")
        return _address(host) if closed and (not port or _PORT.fullmatch(port)) else None
    host, colon, _ = text.partition(":")
    if colon and text.count(":") == 1:
        return _address(host) if _PORT.fullmatch(text[len(host) :]) else None
    return _address(text)


def is_trusted(peer: str, trusted: Sequence[Network]) -> bool:
    """Is the connection's peer in one of the networks?"""
    address = _address(peer)
    return address is not None and any(address.version == net.version and address in net for net in trusted)


def real_peer(peer: str, headers: Mapping[str, str], trusted: Sequence[Network]) -> str:
    """The address to throttle and to log: the nearest one in X-Forwarded-For that is not a trusted proxy.

    An untrusted peer's header changes nothing; neither does a word in it that is no address.
    """
    if not is_trusted(peer, trusted):
        return peer
    for hop in reversed(headers.get("X-Forwarded-For", "").split(",")):
        address = _hop(hop)
        if address is None:
            break
        peer = str(address)
        if not is_trusted(peer, trusted):
            break
    return peer


def real_scheme(scheme: str, peer: str, headers: Mapping[str, str], trusted: Sequence[Network]) -> str:
    """The visitor's own "http" or "https", as far as a trusted proxy says so."""
    said = headers.get("X-Forwarded-Proto", "").strip().lower()
    return said if said in ("http", "https") and is_trusted(peer, trusted) else scheme


def base_url(public_url: str, scheme: str, host: str) -> str:
    """How the pool is reached, without a trailing slash.

    The operator's `public_url` wins; else the Host the visitor used, if it is a plain host name. Raises
    ValueError when the Host is anything else: it would end up in somebody's shell.
    """
    if public_url:
        return public_url.rstrip("/")
    if not _HOST.fullmatch(host):
        raise ValueError("the Host of this request is not a plain host name; set public_url")
    return f"{scheme}://{host}"
