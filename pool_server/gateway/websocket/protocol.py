"""Tornado's WebSocket protocol with what a relay of many idle sockets and small frames needs."""

from __future__ import annotations

import asyncio
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any

from tornado.httputil import HTTPHeaders
from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketProtocol13, _DecompressTooLargeError, _PerMessageDeflateDecompressor

from pool_server.core.budget import BudgetFullError, BudgetShare
from pool_server.dialects import BodyTooLargeError

_FIN, _TEXT, _BINARY = 0x80, 0x1, 0x2
_SHORT, _LONG, _HUGE = struct.Struct("!BB"), struct.Struct("!BBH"), struct.Struct("!BBQ")  # RFC 6455 §5.2
_PIECE = 64 << 10  # bytes
_RATIO = 200  # a message is at most so many times as long as what came over the wire …
_SMALL = 4 << 20  # … or so many bytes long
_MASKED = 0x80
_PROTOCOL, _INVALID, _TOO_BIG, _BUSY = 1002, 1007, 1009, 1013
_DEFLATE = "permessage-deflate"
_WINDOW = re.compile(r"[89]|1[0-5]")  # bits (RFC 7692 §7.1.2)


class RelayProtocol(WebSocketProtocol13):
    """Reads compressed frames and sends plain ones; lets a client read why it was closed.

    Tornado ends the connection at once when a frame is too large; a client still sending that frame then sees a
    reset instead of 1009. Here what is still coming is read and dropped until Tornado's closing time is over.

    What has come of a message counts in `arriving` as soon as it is more than 64 KiB; whoever handles the message
    sets that back.
    """

    _discarding: asyncio.Task[None] | None = None
    arriving: BudgetShare
    on_busy: Callable[[], None]  # tells that there is no room
    _at_head = False  # the next bytes read are a frame's first two

    async def _receive_frame(self) -> None:
        """Tornado's, but for a frame that is not masked: a client's always is, so that nobody in between takes what is
        in it for a request (RFC 6455 §5.1)."""
        self._at_head = True
        await super()._receive_frame()

    async def _read_head(self, n: int) -> bytes:
        self._at_head = False
        head = await super()._read_bytes(n)
        if not head[1] & _MASKED:
            self.close(_PROTOCOL, "the frames of a client are masked")
            raise StreamClosedError
        return head

    async def _read_bytes(self, n: int) -> bytes:
        if self._at_head:
            return await self._read_head(n)
        before = len(self._fragmented_message_buffer or b"")
        if before + n <= _PIECE:
            return await super()._read_bytes(n)
        parts, size = [], 0
        while size < n:
            parts.append(await self.stream.read_bytes(min(n - size, _PIECE), partial=True))
            size += len(parts[-1])
            self._count(before + size)
        self._wire_bytes_in += n
        return b"".join(parts)

    def _count(self, size: int) -> None:
        try:
            self.arriving.resize(size)
        except BudgetFullError:
            self.arriving.resize(0)
            self.on_busy()
            self.close(_BUSY, "no room for a message of this size just now")
            raise StreamClosedError from None

    def _handle_message(self, opcode: int, data: bytes) -> asyncio.Future[None] | None:
        """Tornado's, but for text that is not what it should be: that closes with 1007 (RFC 6455 §8.1)."""
        if opcode != _TEXT or self.client_terminated:
            return super()._handle_message(opcode, data)
        try:
            text = self._inflated(data).decode()
        except BodyTooLargeError:
            self._refuse(_TOO_BIG, "message too big after decompression")
            return None
        except (UnicodeDecodeError, zlib.error):
            self._refuse(_INVALID, "the message is not UTF-8 text")
            return None
        self._message_bytes_in += len(text)
        return self._run_callback(self.handler.on_message, text)

    def _inflated(self, data: bytes) -> bytes:
        if not self._frame_compressed:
            return data
        assert isinstance(self._decompressor, _PerMessageDeflateDecompressor)
        self._decompressor._max_message_size = min(self.params.max_message_size, max(_SMALL, _RATIO * len(data)))
        try:
            return self._decompressor.decompress(data)
        except _DecompressTooLargeError:
            raise BodyTooLargeError from None

    def _refuse(self, code: int, reason: str) -> None:
        self.close(code, reason)
        self._abort()

    def _parse_extensions_header(self, headers: HTTPHeaders) -> list[tuple[str, dict[str, Any]]]:
        """The offers of compression that can be taken. All others are declined by not being answered (RFC 7692 §7):
        the socket opens without."""
        offers: list[tuple[str, dict[str, Any]]] = super()._parse_extensions_header(headers)
        return [(name, said) for name, said in offers if name == _DEFLATE and all(map(_possible, said, said.values()))]

    def _create_compressors(
        self, side: str, agreed_parameters: dict[str, Any], compression_options: dict[str, Any] | None = None
    ) -> None:
        """What a client sends is large and worth inflating; an answer's frames are small, and each socket would
        keep 256 KiB to deflate them. RFC 7692 leaves both to the sender, frame by frame."""
        agreed_parameters["client_no_context_takeover"] = None
        options = self._get_compressor_options("client", agreed_parameters, compression_options)
        self._decompressor = _PerMessageDeflateDecompressor(max_message_size=self.params.max_message_size, **options)
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


def _possible(name: str, value: str | None) -> bool:
    """Whether an offer's parameter is one of RFC 7692 with a value it may have."""
    if name in ("server_no_context_takeover", "client_no_context_takeover"):
        return value is None
    if name == "client_max_window_bits" and value is None:
        return True
    return name in ("server_max_window_bits", "client_max_window_bits") and _WINDOW.fullmatch(value or "") is not None
