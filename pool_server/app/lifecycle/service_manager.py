"""What systemd tells a service and wants to be told (sd_notify(3), sd_listen_fds(3)); nothing, where there is none."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping, MutableMapping

from pool_server.core.settings import ConfigError

FIRST = 3  # SD_LISTEN_FDS_START: the first descriptor that is passed


def notify(*lines: str, env: Mapping[str, str] = os.environ) -> None:
    """Send a state, as in "READY=1". Nobody who listens is no error."""
    address = env.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
        to.connect("\0" + address[1:] if address.startswith("@") else address)
        to.send("\n".join(lines).encode())


def watchdog_s(env: Mapping[str, str] = os.environ) -> float | None:
    """How often WATCHDOG=1 is to be said: half of what the service manager allows; None when it does not ask."""
    try:
        pause = int(env.get("WATCHDOG_USEC", "")) / 2_000_000
    except ValueError:
        return None
    return pause if pause > 0 else None


def activated(env: MutableMapping[str, str] = os.environ) -> list[socket.socket]:
    """The listening sockets that a socket unit has opened for this process; [] when none has. Raises ConfigError for
    one that is no listening TCP socket."""
    mine = env.pop("LISTEN_PID", "") == str(os.getpid())
    count = env.pop("LISTEN_FDS", "0")
    env.pop("LISTEN_FDNAMES", None)
    if not mine or not count.isascii() or not count.isdigit():
        return []
    found = []
    for number in range(FIRST, FIRST + int(count)):
        try:
            os.set_inheritable(number, False)
            one = socket.socket(fileno=number)
        except OSError as error:
            raise ConfigError(f"the socket unit passed no socket as descriptor {number}: {error.strerror}") from None
        found.append(one)
        listens = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if one.family not in (socket.AF_INET, socket.AF_INET6) or one.type != socket.SOCK_STREAM or not listens:
            raise ConfigError("the socket unit must have ListenStream= with an address and a port, and no Accept=yes")
    return found
