"""Whether an address that a friend gives is on the public internet: the pool's own machine and network are not theirs
to ask."""

from __future__ import annotations

import asyncio
import socket
from urllib.parse import urlsplit

from pool_server.http1 import is_public
from pool_server.language import gettext as _

PATIENCE_S = 5.0
_OWN = ("localhost", ".localhost", ".local", ".internal", ".lan", ".home.arpa", ".intranet")


async def refusal(url: str) -> str:
    """Why a friend may not give this address, "" when they may. Its name is looked up: all it leads to must be
    public."""
    parts = urlsplit(url if "://" in url else f"https://{url}")
    host = (parts.hostname or "").rstrip(".").lower()
    if parts.scheme != "https" or not host:
        return _("an address must begin with https://")
    if host == "localhost" or host.endswith(_OWN) or ("." not in host.strip("[]") and ":" not in host):
        return _("an address in the pool's own network is for the operator alone")
    try:
        async with asyncio.timeout(PATIENCE_S):
            found = await asyncio.get_running_loop().getaddrinfo(host, parts.port or 443, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError):
        return _("the name of that address cannot be looked up")
    if not found or not all(is_public(str(row[4][0])) for row in found):
        return _("an address in the pool's own network is for the operator alone")
    return ""
