"""A worker whose supervisor is gone leaves, whatever it is doing: nobody would restart it, and a new server wants its
port and its data folder.

The data folder's lock is the supervisor's alone and ends with it. What a worker still has to bring to an end (a token
it asked for, its last records) goes on beside a new server as it would beside another worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence

from pool_server.core import processes

log = logging.getLogger(__name__)

PORTS_S = 0.5  # in which the event loop gives the ports up itself, unless something blocks it
LONGEST_S = 75.0  # until the end of the process: longer than a token endpoint may take to answer


class ParentWatch:
    """Waits in a thread for the end of `pipe`, which the supervisor holds open as long as it lives.

    The thread tells the event loop; where that is blocked, or not begun yet, it takes the ports away from it, and it
    ends the process after LONGEST_S in any case.
    """

    def __init__(self, pipe: int, ports: Sequence[socket.socket]) -> None:
        self._pipe = pipe
        self._ports = ports
        self._lock = threading.Lock()
        self._gone = False
        self._tell: Callable[[], object] | None = None

    def start(self) -> None:
        """Begin. A worker that is stopped (SIGSTOP) when its supervisor ends is continued, where the system can."""
        processes.continue_without_parent()
        threading.Thread(target=self._run, name="parent-watch", daemon=True).start()

    def follow(self, leave: Callable[[], object]) -> None:
        """Call `leave` on the running loop when the supervisor ends, or now if it has."""
        loop = asyncio.get_running_loop()
        with self._lock:
            self._tell = lambda: loop.call_soon_threadsafe(leave)
            gone = self._gone
        if gone:
            leave()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            os.read(self._pipe, 1)
        with self._lock:
            self._gone, tell = True, self._tell
        if tell is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended already
                tell()
        pause = threading.Event()
        pause.wait(PORTS_S)
        nowhere = os.open(os.devnull, os.O_RDONLY)
        for port in self._ports:
            with contextlib.suppress(OSError):  # closed already
                os.dup2(nowhere, port.fileno(), inheritable=False)  # a shutdown would end it for an old server too
        pause.wait(LONGEST_S)
        log.critical("this worker's supervisor is gone and the worker did not end: it is ended now")
        os._exit(1)
