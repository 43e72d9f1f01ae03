"""One HTTP answer to one client: start, pieces, end or abort."""

from __future__ import annotations

import time
from asyncio import Future

from pool_server import dialects
from pool_server.core.enums import Dialect
from pool_server.core.models import ClientError
from pool_server.gateway.http.headers import SAFE, SAFE_STREAM
from pool_server.http1 import ClientDisconnectedError, Response

REQUEST_ID = "X-Pool-Request-Id"


class Reply:
    """`started` once headers went out; `bytes` counts the body bytes handed to the socket.

    `start` and `write` return a future to wait for while the client is behind, and raise `ClientDisconnectedError`
    when it has left.
    """

    __slots__ = ("_response", "bytes", "finished", "request_id", "started", "status")

    def __init__(self, response: Response, request_id: str) -> None:
        self._response = response
        self.request_id = request_id
        self.started = False
        self.finished = False
        self.status = 0
        self.bytes = 0

    def start(
        self, status: int, headers: list[tuple[str, str]], chunk: bytes = b"", *, length: int | None = None
    ) -> Future[None] | None:
        """Sends the headers and a first piece; without `length` the body is chunked."""
        safe = SAFE if length is not None else SAFE_STREAM
        behind = self._response.start(status, [*headers, *safe, (REQUEST_ID, self.request_id)], chunk, length=length)
        self.started, self.status = True, status
        self.bytes += len(chunk)
        return behind

    def write(self, chunk: bytes) -> Future[None] | None:
        """Hands over a piece; an empty one would end the body and is left out."""
        if not chunk:
            return None
        self.bytes += len(chunk)
        return self._response.write(chunk)

    async def send(self, chunk: bytes) -> None:
        """Writes a piece and waits for the socket; a closed connection is not an error here."""
        try:
            behind = self.write(chunk)
            if behind is not None:
                await behind
        except ClientDisconnectedError:
            pass

    async def whole(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """A complete answer."""
        try:
            behind = self.start(status, headers, body, length=len(body))
            if behind is not None:
                await behind
        except ClientDisconnectedError:
            pass
        self.finish()

    def finish(self) -> None:
        """Ends the answer well; after an abort or a hang-up this does nothing."""
        if not self.finished:
            self.finished = True
            self._response.finish()

    async def tell(self, dialect: Dialect, error: ClientError) -> None:
        """Tells the client in its own dialect, whichever stage the answer is in."""
        if self.finished or self.closed:
            return
        if self.started:
            await self.error_event(dialect, error)
            return
        status, headers, body = dialects.error(dialect, error, now=time.time(), request_id=self.request_id)
        await self.whole(status, headers, body)

    async def error_event(self, dialect: Dialect, error: ClientError, sequence: int = 0) -> None:
        """Ends a stream already begun with an error event the client shows or retries; `sequence` is its number where
        the dialect counts events."""
        await self.send(dialects.stream_error(dialect, error, now=time.time(), sequence=sequence))
        self.break_off(dialect)

    def break_off(self, dialect: Dialect) -> None:
        """After an error event: a clean end where the event itself is the end (Codex drops it otherwise), an
        aborted connection where a clean end would pass for a good one."""
        if dialects.ends_stream(dialect):
            self.finish()
        else:
            self.abort()

    def abort(self) -> None:
        """Ends the connection so that the client can see the answer is incomplete."""
        self.finished = True
        self._response.abort()

    @property
    def closed(self) -> bool:
        """Nothing can reach the client any more."""
        return self._response.closed
