"""A pseudo terminal for a full-screen CLI: what it shows now, every line it ever showed, and a keyboard."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import struct
import termios
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyte

from tests.clients.jail import Jail

ROWS, COLUMNS = 60, 140
_FRAME_END = b"\x1b[?2026l"  # a full-screen program marks where what it draws is consistent again
_ENTER = "\r"
_SETTLED_S = 0.3


class _Screen(pyte.Screen):
    """pyte's, which knows no private form of this sequence (xterm's modifyOtherKeys) and fails on it."""

    def select_graphic_rendition(self, *attrs: int, private: bool = False) -> None:
        if not private:
            super().select_graphic_rendition(*attrs)


class Terminal:
    """The outer end of the terminal. `seen` holds every line that was ever on the screen."""

    def __init__(self, master: int, running: threading.Thread) -> None:
        self._master = master
        self._running = running
        self._screen = _Screen(COLUMNS, ROWS)
        self._screen.write_process_input = self.type  # type: ignore[method-assign, assignment]
        self._stream = pyte.ByteStream(self._screen)
        self.seen: dict[str, None] = {}

    @property
    def text(self) -> str:
        """The screen's lines as they are now."""
        return "\n".join(line.rstrip() for line in self._screen.display).strip()

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def enter(self, text: str) -> None:
        """Types a line and sends it. The composer takes a fast Enter for a part of pasted text, so it waits."""
        self.type(text)
        self.wait(re.escape(text))
        self.settle()
        self.type(_ENTER)

    def wait(self, pattern: str, within_s: float = 20.0) -> None:
        """Until the screen matches; AssertionError with the screen when it does not or the program has ended."""
        deadline = time.monotonic() + within_s
        while not re.search(pattern, self.text):
            ended = not self._running.is_alive()
            if not self._read(0.1) and (ended or time.monotonic() > deadline):
                raise AssertionError(f"{pattern!r} is not on the screen:\n{self.text}")

    def settle(self) -> None:
        """Until nothing was drawn for a moment."""
        while self._read(_SETTLED_S):
            pass

    def ended(self, within_s: float = 20.0) -> bool:
        """Whether the program has left, waiting for it to."""
        deadline = time.monotonic() + within_s
        while self._running.is_alive() and time.monotonic() < deadline:
            self._read(0.05)
        return not self._running.is_alive()

    def _read(self, within_s: float) -> bool:
        """Draws what came; False when nothing did."""
        if not select.select([self._master], [], [], within_s)[0]:
            return False
        data = os.read(self._master, 1 << 16)
        for piece in re.split(b"(?<=" + re.escape(_FRAME_END) + b")", data):
            self._stream.feed(piece)
            self.seen |= dict.fromkeys(self._screen.display[row].strip() for row in self._screen.dirty)
            self._screen.dirty.clear()
        return True


@contextlib.contextmanager
def terminal(jail: Jail, argv: list[str], *, env: Mapping[str, str], cwd: Path) -> Iterator[Terminal]:
    """Runs a command of the jail in a terminal; it must have ended when the block does, or it is hung up on."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    # The shell leads a session without a terminal, so the one it opens becomes that of the command.
    command = ["sh", "-c", 'exec "$@" 0<>"$0" 1>&0 2>&0', os.ttyname(slave), *argv]
    running = threading.Thread(
        target=jail.run, args=(command,), kwargs={"env": dict(env), "cwd": cwd}, name="terminal", daemon=True
    )
    running.start()
    try:
        yield Terminal(master, running)
    finally:
        os.close(slave)
        os.close(master)  # hangs up on a program that is still there
        running.join(30)
