"""A way through a SOCKS5 proxy (RFC 1928, user and password RFC 1929).

The proxy looks the name up: where this machine's answers are wrong or watched, asking them would defeat the proxy.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from urllib.parse import SplitResult, unquote

PORT = 1080
SCHEMES = ("socks5", "socks5h")
_LONGEST = 255  # bytes of a name, user or password
_REFUSALS = {
    1: "general failure", 2: "not allowed", 3: "network unreachable", 4: "host unreachable",
    5: "connection refused", 6: "time to live ended", 7: "command unknown", 8: "address kind unknown",
}  # fmt: skip


class SocksRefusedError(Exception):
    """The proxy does not let the connection through; the text names the cause and no address."""


async def ask(opened: socket.socket, proxy: SplitResult, host: str, port: int) -> None:
    """Lead an open connection to the proxy on to a host. Raises SocksRefusedError and OSError."""
    user, password = (unquote(part or "").encode() for part in (proxy.username, proxy.password))
    loop, methods = asyncio.get_running_loop(), b"\x00\x02" if user else b"\x00"
    if len(user) > _LONGEST or len(password) > _LONGEST:
        raise SocksRefusedError("its user or password is too long")
    await loop.sock_sendall(opened, bytes((5, len(methods))) + methods)
    version, method = await _read(opened, 2)
    if version != 5:
        raise SocksRefusedError("it is no SOCKS5 proxy")
    if method == 2 and user:
        await loop.sock_sendall(opened, bytes((1, len(user))) + user + bytes((len(password),)) + password)
        if (await _read(opened, 2))[1] != 0:
            raise SocksRefusedError("user or password is wrong")
    elif method != 0:
        raise SocksRefusedError("it wants another way to sign in")
    await loop.sock_sendall(opened, b"\x05\x01\x00" + _address(host) + port.to_bytes(2, "big"))
    version, reply, _, kind = await _read(opened, 4)
    if version != 5 or reply != 0:
        raise SocksRefusedError(_REFUSALS.get(reply, "unknown reply") if version == 5 else "it is no SOCKS5 proxy")
    bound = {1: 4, 4: 16}.get(kind) or (await _read(opened, 1))[0]
    await _read(opened, bound + 2)


def _address(host: str) -> bytes:
    try:
        packed = ipaddress.ip_address(host).packed
    except ValueError:
        try:
            name = host.encode("idna" if not host.isascii() else "ascii")
        except UnicodeError:
            raise SocksRefusedError("the host's name is none") from None
        if len(name) > _LONGEST:
            raise SocksRefusedError("the host's name is too long") from None
        return bytes((3, len(name))) + name
    return (b"\x01" if len(packed) == 4 else b"\x04") + packed


async def _read(opened: socket.socket, count: int) -> bytes:
    """Exactly so many bytes: what follows them is the host's."""
    loop, data = asyncio.get_running_loop(), b""
    while len(data) < count:
        piece = await loop.sock_recv(opened, count - len(data))
        if not piece:
            raise SocksRefusedError("it closed the connection")
        data += piece
    return data
