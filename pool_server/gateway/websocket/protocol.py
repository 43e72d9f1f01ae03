"""Tornado's WebSocket protocol with what a relay of many idle sockets and small frames needs."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketProtocol13

_FIN, _TEXT, _BINARY = 0x80, 0x1, 0x2
_SHORT, _LONG, _HUGE = struct.Struct("!BB"), struct.Struct("!BBH"), struct.Struct("!BBQ")  # RFC 6455 §5.2
_PIECE = 64 << 10  # bytes


class RelayProtocol(WebSocketProtocol13):
    """Reads compressed frames and sends plain ones; lets a client read why it was closed.

    Tornado ends the connection at once when a frame is too large; a client still sending that frame then sees a
    reset instead of 1009. Here what is still coming is read and dropped until Tornado's closing time is over.
    """

    _discarding: asyncio.Task[None] | None = None

    def _create_compressors(
        self, side: str, agreed_parameters: dict[str, Any], compression_options: dict[str, Any] | None = None
    ) -> None:
        """What a client sends is large and worth inflating; an answer's frames are small, and each socket would
        keep 256 KiB to deflate them. RFC 7692 leaves both to the sender, frame by frame."""
        agreed_parameters["client_no_context_takeover"] = None
        super()._create_compressors(side, agreed_parameters, compression_options)
        self._compressor = None

    def send_frame(self, frame: str | bytes) -> asyncio.Future[None]:
        """Sends a message without the task Tornado's own method makes for each. Raises StreamClosedError."""
        data = frame.encode() if isinstance(frame, str) else frame
        kind, size = (_FIN | _TEXT if data is not frame else _FIN | _BINARY), len(data)
        if size < 126:
            head = _SHORT.pack(kind, size)
        elif size <= 0xFFFF:
            head = _LONG.pack(kind, 126, size)
        else:
            head = _HUGE.pack(kind, 127, size)
        return self.stream.write(head + data)

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
