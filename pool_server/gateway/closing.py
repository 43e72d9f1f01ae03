"""A WebSocket protocol that lets a client read why it was closed."""

from __future__ import annotations

import asyncio

from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketProtocol13

_PIECE = 64 << 10  # bytes


class PatientProtocol(WebSocketProtocol13):
    """Tornado ends the connection at once when a frame is too large; a client still sending that frame then sees a
    reset instead of 1009. Here what is still coming is read and dropped until Tornado's closing time is over."""

    _discarding: asyncio.Task[None] | None = None

    def _abort(self) -> None:
        # Within a task it is the frame loop that gives up; the closing timer, which has none, means it.
        reading = asyncio.current_task() is not None
        if reading and self._discarding is None and self.server_terminated and not self.client_terminated:
            self.client_terminated = True  # ends the frame loop
            self._discarding = asyncio.get_running_loop().create_task(self._discard())
        else:
            super()._abort()

    async def _discard(self) -> None:
        try:
            while True:
                await self.stream.read_bytes(_PIECE, partial=True)
        except StreamClosedError:
            self.close()  # stops the closing timer
