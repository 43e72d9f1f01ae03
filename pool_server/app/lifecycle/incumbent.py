"""What a process holds for as long as it is the server of its data folder, and how it hands that on."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from pool_server.app import run_file
from pool_server.app.lifecycle import service_manager
from pool_server.app.lifecycle.successor import Handover, Successor
from pool_server.storage import FolderLock

log = logging.getLogger(__name__)


class Incumbent:
    """The server of a data folder: its hold of the folder, its listening sockets, the note that names it.

    `address` is what the sockets were bound for, `given` what an old server handed over. A successor that is starting
    is in `successor`; `replaced` says that one serves.
    """

    def __init__(
        self,
        folder: Path,
        lock: FolderLock,
        sockets: Sequence[socket.socket],
        *,
        address: str,
        url: str,
        given: Handover | None,
    ) -> None:
        self._note = run_file.Note(folder, url)
        self._lock = lock
        self._sockets = sockets
        self._address = address
        self._given = given
        self.predecessor = os.getppid() if given is not None else 0  # its process, which may still finish its answers
        self.successor: Successor | None = None
        self.replaced = False
        if given is None:
            self._note.write()

    def ready(self) -> None:
        """This server serves: say so to the old one, to the shell's commands, to the service manager."""
        if self._given is not None:
            self._lock.mark()
            self._note.write()
            self._given.tell_ready()
            self._given = None
        service_manager.notify("READY=1", f"MAINPID={os.getpid()}", "STATUS=serving")

    def keep_note(self) -> None:
        """See that the shell's commands find this server; to be called every few seconds."""
        if self._given is None and not self.replaced:
            self._note.keep()

    def begin_upgrade(self) -> Successor | None:
        """Start a successor; None while one is starting or serves, or where it cannot be started."""
        if self.successor is not None or self.replaced or self._given is not None:
            log.warning("an upgrade is under way already")
            return None
        try:
            self.successor = Successor(self._lock.fileno(), self._sockets, self._address)
        except (OSError, ValueError) as error:
            self._failed(f"it cannot be started: {error}")
            return None
        self._note.write(upgrade="starting")
        log.info("upgrade: process %d starts", self.successor.pid)
        return self.successor

    def judge_successor(self) -> bool:
        """Whether the successor serves. One that does not is ended, and all stays as it was; while that is not known,
        `successor` stays."""
        starting = self.successor
        why = starting.judge() if starting is not None else None
        if starting is None or why is None:
            return False
        starting.close()
        self.successor = None
        if why:
            self._failed(why)
            return False
        self.replaced = True
        log.info("upgrade: process %d serves; running answers are finished here", starting.pid)
        return True

    def _failed(self, why: str) -> None:
        log.error("the upgrade failed, this server goes on: %s", why)
        self._note.write(upgrade=f"failed: {why}")

    def stopping(self) -> None:
        """The server leaves, and nobody follows."""
        if self.successor is not None:
            self.successor.give_up("the old server is told to stop")
            self.successor.close()
            self.successor = None
        if not self.replaced:
            service_manager.notify("STOPPING=1")

    def close(self) -> None:
        """Take back what says that this server runs."""
        self.stopping()
        self._note.remove()
