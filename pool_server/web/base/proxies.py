"""Who is behind a proxy, and under which address the pool is reached: pure functions over addresses and headers.

Nothing here believes a header unless the connection's own peer is in a network the operator named.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tornado.httputil import HTTPHeaders

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MOST_NAME = 256  # characters of an identity
_PORT = re.compile(r":[0-9]{1,5}")
_FOR = re.compile(r'(?:^|;)\s*for=("[^"]*"|[^\s";]+)\s*(?:;|$)', re.IGNORECASE)
_PROTO = re.compile(r'(?:^|;)\s*proto="?(https?)"?\s*(?:;|$)', re.IGNORECASE)
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


def _hops(headers: Mapping[str, str]) -> list[str]:
    if hops := headers.get("X-Forwarded-For", ""):
        return hops.split(",")
    found = [_FOR.search(part) for part in headers.get("Forwarded", "").split(",")]
    return [part[1] if part else "" for part in found]


def is_trusted(peer: str, trusted: Sequence[Network]) -> bool:
    """Is the connection's peer in one of the networks?"""
    address = _address(peer)
    return address is not None and any(address.version == net.version and address in net for net in trusted)


def real_peer(peer: str, headers: Mapping[str, str], trusted: Sequence[Network]) -> str:
    """The address to throttle and to log: the nearest one in X-Forwarded-For (else in RFC 7239's Forwarded) that is not
    a trusted proxy.

    An untrusted peer's header changes nothing; neither does a word in it that is no address.
    """
    if not is_trusted(peer, trusted):
        return peer
    for hop in reversed(_hops(headers)):
        address = _hop(hop)
        if address is None:
            break
        peer = str(address)
        if not is_trusted(peer, trusted):
            break
    return peer


def real_scheme(scheme: str, peer: str, headers: Mapping[str, str], trusted: Sequence[Network]) -> str:
    """The visitor's own "http" or "https", as far as a trusted proxy says so: in X-Forwarded-Proto, of several the
    first, or in RFC 7239's Forwarded."""
    if not is_trusted(peer, trusted):
        return scheme
    said = headers.get("X-Forwarded-Proto", "").partition(",")[0].strip().lower()
    if not said and (found := _PROTO.search(headers.get("Forwarded", "").partition(",")[0])):
        said = found[1].lower()
    return said if said in ("http", "https") else scheme


def vouched(header: str, headers: HTTPHeaders, peer: str, trusted: Sequence[Network]) -> str:
    """Who a trusted proxy says it is, in the header of that name; "" for nobody, also when it is there twice, is no
    name, or there is no such `header` in the settings."""
    values = headers.get_list(header) if header and is_trusted(peer, trusted) else []
    name = values[0].strip() if len(values) == 1 else ""
    return name if len(name) <= MOST_NAME and name.isprintable() and "," not in name else ""


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
