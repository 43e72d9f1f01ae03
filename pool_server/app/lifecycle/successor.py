"""An upgrade without a cut: a new server is started beside the old one, takes its listening sockets and the hold of its
data folder, and only once it serves does the old one stop taking connections.

The new process inherits descriptors (the lock's, the sockets', the end of a pipe) and is told their numbers by a
variable. It writes one byte into the pipe when it serves; a pipe that ends without it means that it failed, and nothing
has changed.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import MutableMapping, Sequence

import msgspec

from pool_server.core.settings import ConfigError

VARIABLE = "POOL_SERVER_HANDOVER"
START_WITHIN_S = 120.0
END_WITHIN_S = 10.0  # from the end of the pipe to that of the process
_NOT_INHERITED = (VARIABLE, "PROMETHEUS_MULTIPROC_DIR", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


class Handover(msgspec.Struct, forbid_unknown_fields=True):
    """What a new server is given, as numbers of descriptors. `address` is what the sockets were bound for."""

    lock: int
    ready: int
    sockets: list[int]
    address: str

    def listening(self, address: str) -> list[socket.socket] | None:
        """The sockets, as this process's own; None when the settings now name another address."""
        taken = [socket.socket(fileno=number) for number in self.sockets]
        if address == self.address:
            return taken
        for one in taken:
            one.close()
        return None

    def tell_ready(self) -> None:
        """Say to the old server that this one serves. Nothing, where it has died meanwhile."""
        with contextlib.suppress(OSError):
            os.write(self.ready, b"1")
        os.close(self.ready)


def handed_over(env: MutableMapping[str, str]) -> Handover | None:
    """What an old server hands to this process, None when nothing does; it is given once. Raises ConfigError."""
    text = env.pop(VARIABLE, None)
    if text is None:
        return None
    try:
        found = msgspec.json.decode(text, type=Handover)
        for number in (found.lock, found.ready, *found.sockets):
            os.set_inheritable(number, False)
    except (msgspec.MsgspecError, OSError) as error:
        raise ConfigError(f"{VARIABLE} is set by a running server alone: {error}") from None
    return found


class Successor:
    """A new server that is starting. Its `fileno` becomes readable when it serves, or has failed. One that `failed`
    says nothing more, and ends, or is ended at the `deadline`."""

    def __init__(self, lock: int, sockets: Sequence[socket.socket], address: str) -> None:
        """Start it by this process's own command line. Raises OSError."""
        self._pipe, write = os.pipe()
        os.set_blocking(self._pipe, False)
        numbers = [one.fileno() for one in sockets]
        env = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
        env[VARIABLE] = msgspec.json.encode(Handover(lock, write, numbers, address)).decode()
        try:
            self._process = subprocess.Popen(
                [sys.executable, *sys.orig_argv[1:]],
                env=env,
                stdin=subprocess.DEVNULL,
                pass_fds=(lock, write, *numbers),
            )
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(write)
        self.pid = self._process.pid
        self.failed = False
        self.deadline = time.monotonic() + START_WITHIN_S

    def fileno(self) -> int:
        return self._pipe

    def judge(self) -> str | None:
        """At once: "" if it serves, why not where it will not, None where that is not known yet."""
        if not self.failed:
            told = self._told()
            if told:
                return ""
            if told is not None:
                self.failed = True
                self.deadline = min(self.deadline, time.monotonic() + END_WITHIN_S)
        if self.failed and (code := self._process.poll()) is not None:
            return f"it ended with {code}; its last lines in the log say why"
        if time.monotonic() >= self.deadline:
            return self.give_up("it neither serves nor ends" if self.failed else "it did not serve in time")
        return None

    def _told(self) -> bytes | None:
        """What has come by the pipe, b"" at its end, None for nothing yet."""
        try:
            return os.read(self._pipe, 1)
        except BlockingIOError:
            return None

    def give_up(self, why: str) -> str:
        """End it; returns `why`."""
        self._process.kill()
        self._process.wait()
        return why

    def close(self) -> None:
        os.close(self._pipe)
        self._process.returncode = self._process.returncode or 0  # it goes on without us; nobody waits for it here
