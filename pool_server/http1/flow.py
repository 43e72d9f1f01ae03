"""Flow control of one transport: neither side is written to, or read from, faster than it can take."""

from __future__ import annotations

import asyncio


class FlowControl:
    """`behind` is done when the other side has read enough of what was written to it; None while it keeps up."""

    __slots__ = ("_reading", "behind", "transport")

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.behind: asyncio.Future[None] | None = None
        self._reading = True

    def write(self, data: bytes) -> asyncio.Future[None] | None:
        """Hands bytes to the socket; something to wait for while the other side is behind. Nothing goes out once the
        transport is gone."""
        if self.transport is not None:
            self.transport.write(data)
        # Whoever gives up waiting cancels what is waited for: that must not be what others wait for.
        return None if self.behind is None else asyncio.shield(self.behind)

    def pause_reading(self) -> None:
        if self._reading and self.transport is not None:
            self._reading = False
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._reading and self.transport is not None:
            self._reading = True
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        """The transport's own buffer is full."""
        self.behind = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """It has emptied, or nobody will read any more."""
        behind, self.behind = self.behind, None
        if behind is not None:
            behind.set_result(None)
