"""An answer of which a transcript is kept: what its client is sent is noted on the way."""

from __future__ import annotations

from asyncio import Future

from pool_server.gateway.http.reply import Reply
from pool_server.http1 import Response
from pool_server.transcripts import ExchangeCapture


class CapturedReply(Reply):
    """Headers and pieces as they were handed to the client; in place of a `Reply` that has not started."""

    __slots__ = ("_capture", "_note")

    def __init__(self, response: Response, request_id: str, capture: ExchangeCapture) -> None:
        super().__init__(response, request_id)
        self._capture = capture
        self._note = capture.down

    def start(
        self, status: int, headers: list[tuple[str, str]], chunk: bytes = b"", *, length: int | None = None
    ) -> Future[None] | None:
        behind = super().start(status, headers, chunk, length=length)
        self._capture.answer(status, headers)
        if chunk:
            self._capture.down(chunk)
        return behind

    def write(self, chunk: bytes) -> Future[None] | None:
        if not chunk:
            return None
        self.bytes += len(chunk)
        self._note(chunk)
        return self._response.write(chunk)
