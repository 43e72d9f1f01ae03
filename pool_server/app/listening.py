"""Listening sockets, bound before anything else is opened."""

from __future__ import annotations

import errno
import socket
from typing import Any

from pool_server.core.loopback import is_loopback
from pool_server.core.settings import ConfigError

BACKLOG = 1024
_LACKING = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


class StartError(Exception):
    """The server cannot start; one line."""


def listen(host: str, port: int, *, friends_mode: bool) -> list[socket.socket]:
    """Bound, listening, non-blocking sockets; host "" = every interface, port 0 = a free one.

    In local mode what a name resolved to is looked at once more. Raises StartError, ConfigError.
    """
    try:
        sockets = _bind_all(host, port)
    except OSError as error:
        raise StartError(f"cannot listen on {host or '*'}:{port}: {error.strerror or error}") from None
    return check(sockets, host, friends_mode=friends_mode)


def check(sockets: list[socket.socket], host: str, *, friends_mode: bool) -> list[socket.socket]:
    """The sockets, wherever they come from, if they may be listened on: local mode has no door. Raises ConfigError."""
    if not friends_mode and not all(is_loopback(str(bound.getsockname()[0])) for bound in sockets):
        _close(sockets)
        raise ConfigError(f"listen_addr: {host} is not a loopback address here, and local mode has no door")
    return sockets


def _bind_all(host: str, port: int) -> list[socket.socket]:
    """A socket for every address the name has; families this machine lacks are left out while one is there."""
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    lacking: OSError | None = None
    for family, _, _, _, address in dict.fromkeys(found):
        try:
            sockets.append(_bind(family, (address[0], port, *address[2:])))
        except OSError as error:
            if error.errno not in _LACKING:
                _close(sockets)
                raise
            lacking = error
        else:
            port = sockets[0].getsockname()[1]
    if lacking is not None and not sockets:
        raise lacking
    return sockets


def _bind(family: int, address: tuple[Any, ...]) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
        bound.listen(BACKLOG)
        bound.setblocking(False)
    except BaseException:
        bound.close()
        raise
    return bound


def _close(sockets: list[socket.socket]) -> None:
    for bound in sockets:
        bound.close()
