"""What a client's Responses socket is tied to: one account's upstream socket, or the same account over HTTP, in the
client's dialect or another.

Both speak frames (the JSON text of one event). A link belongs to one account for its whole life, because
`previous_response_id`, turn state and encrypted reasoning mean nothing to another.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from pool_server.core.models import UpstreamRequest
from pool_server.gateway.transports import finished
from pool_server.gateway.upstream import Upstream, UpstreamError, refusal_body
from pool_server.gateway.websocket.bridge import Conversation
from pool_server.http1 import Answer, UpstreamDisconnectedError

if TYPE_CHECKING:
    import aiohttp

FRAME_CAP = 64 << 20  # bytes of one frame, both ways
PING_S = 30.0  # finds an upstream whose other end is gone
_REASON_CAP = 123
_TEXT, _BINARY, _PING, _PONG = 0x1, 0x2, 0x9, 0xA  # RFC 6455 §5.2, and aiohttp's kinds of messages
_GOING_AWAY = 1001


class LinkClosedError(UpstreamDisconnectedError):
    """The upstream closed: its `code` and `reason`, or the `status`, `headers`, `body` of an HTTP refusal. `stale`: it
    may have died before it was asked."""

    stale = False

    def __init__(
        self,
        code: int = 1006,
        reason: str = "",
        *,
        status: int = 0,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
    ) -> None:
        super().__init__(reason or f"closed with {code}")
        self.code = code
        self.reason = reason
        self.status = status
        self.headers = headers or {}
        self.body = body


class Link(Protocol):
    """`handshake` are the upstream's headers (lower-case names); `lasting` is a connection of its own between
    turns, which may have died unnoticed. Frames that came as text are `str`, binary ones `bytes`."""

    account: str
    handshake: dict[str, str]
    lasting: bool

    async def send(self, frame: str | bytes) -> None:
        """Starts a turn. Raises `LinkClosedError`."""

    async def pass_on(self, frame: str | bytes) -> None:
        """Passes a frame that starts no turn. Raises `LinkClosedError`."""

    async def receive(self) -> str | bytes:
        """The next frame. Raises `LinkClosedError`."""

    @property
    def remembers(self) -> bool:
        """Whether a follow-up with `previous_response_id` can be served on this link."""

    async def close(self, code: int = 1000, reason: str = "") -> None: ...


class SocketLink:
    """An upstream WebSocket. It sees to pings itself: aiohttp's heartbeat would set its timer anew with every frame."""

    lasting = True

    def __init__(self, account: str, socket: aiohttp.ClientWebSocketResponse, handshake: dict[str, str]) -> None:
        self.account = account
        self.handshake = handshake
        self._socket = socket
        self._used = False  # responses live as long as their connection: a fresh one knows none
        self._heard = 0  # messages that came
        self._known = 0  # of them at the last tick
        self._pinged = False  # and nothing has come since
        self._receiving = False  # else a pong would not be seen
        self._background: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(PING_S / 2, self._tick)

    @property
    def remembers(self) -> bool:
        return self._used and not self._socket.closed

    async def send(self, frame: str | bytes) -> None:
        self._used = True
        await self.pass_on(frame)

    async def pass_on(self, frame: str | bytes) -> None:
        # Compressing each frame by itself keeps no window of 256 KiB for an idle socket.
        compress = self._socket.compress or None
        try:
            if isinstance(frame, str):
                await self._socket.send_str(frame, compress)
            else:
                await self._socket.send_bytes(frame, compress)
        except _broken(RuntimeError):
            raise LinkClosedError(self._socket.close_code or 1006) from None

    async def receive(self) -> str | bytes:
        self._receiving = True
        try:
            while True:
                message = await self._socket.receive()
                self._heard += 1
                kind = message.type
                if kind in (_TEXT, _BINARY):
                    data: str | bytes = message.data
                    return data
                if kind == _PING:
                    with contextlib.suppress(*_broken()):  # the next receive tells
                        await self._socket.pong(message.data)
                elif kind != _PONG:
                    break
        finally:
            self._receiving = False
        self._timer.cancel()
        reason = message.extra if isinstance(message.extra, str) else ""
        raise LinkClosedError(self._socket.close_code or 1006, reason)

    def _tick(self) -> None:
        """Asks an upstream that says nothing whether it is there, and gives it up when it does not answer."""
        self._timer = self._loop.call_later(PING_S / 2, self._tick)
        if self._heard != self._known or not self._receiving:
            self._known, self._pinged = self._heard, False
        elif self._pinged:
            self._timer.cancel()
            self._background = self._loop.create_task(self._quietly(self._socket.close(code=_GOING_AWAY)))
        else:
            self._pinged = True
            self._background = self._loop.create_task(self._quietly(self._socket.ping()))

    @staticmethod
    async def _quietly(work: Awaitable[object]) -> None:
        with contextlib.suppress(*_broken()):  # whoever receives notices
            await work

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self._timer.cancel()
        await self._socket.close(code=code, message=reason_bytes(reason))


class HttpLink:
    """The bridge: frames of one socket served by POSTs, with the conversation's full input kept for the socket."""

    lasting = False

    def __init__(
        self,
        account: str,
        upstream: Upstream,
        prepared: UpstreamRequest,
        *,
        proxy_url: str | None,
        first_byte_s: float,
        watched: Callable[[Awaitable[Answer]], Awaitable[Answer]] = lambda opening: opening,
    ) -> None:
        self.account = account
        self.handshake: dict[str, str] = {}
        self._upstream = upstream
        self._prepared = prepared
        self._proxy_url = proxy_url
        self._first_byte_s = first_byte_s
        self._watched = watched
        self._talk = Conversation()
        self._events: AsyncIterator[str] | None = None
        self._answer: Answer | None = None
        self._local: list[str] = []

    @property
    def remembers(self) -> bool:
        return self._talk.known

    async def send(self, frame: str | bytes) -> None:
        """Raises `LinkClosedError` with the HTTP refusal or with no status when nothing answered; `BadBody` and
        `ContinuationLost` for a frame that cannot be made a request of."""
        self._end()
        body, self._local = self._talk.request(frame)
        if body is None:
            return
        try:
            prepared, body = finished(self._prepared, body)
            opening = self._upstream.open(
                prepared, body, size=len(body), proxy_url=self._proxy_url, first_byte_s=self._first_byte_s
            )
            answer = await self._watched(opening)
        except UpstreamError as error:
            raise LinkClosedError(reason=str(error)) from None
        self.handshake = headers = answer.fields
        if not 200 <= answer.status < 300:
            try:
                refusal = await refusal_body(answer)
            finally:
                answer.close()
            raise LinkClosedError(status=answer.status, headers=headers, body=refusal)
        self._answer = answer
        self._events = self._talk.frames(answer.pieces())

    async def pass_on(self, frame: str | bytes) -> None:
        """Over HTTP there is nobody to tell."""

    async def receive(self) -> str | bytes:
        if self._local:
            return self._local.pop(0)
        if self._events is not None:
            try:
                frame = await anext(self._events, None)
            except UpstreamDisconnectedError:
                frame = None
            if frame is not None:
                return frame
            self._end()
            if not self._talk.finished:
                raise LinkClosedError(reason="the stream ended before its last event")
        await asyncio.Event().wait()  # idle: nothing comes without a request
        raise LinkClosedError

    def _end(self) -> None:
        self._events = None
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self._end()


class TranslatedLink:
    """One socket's conversation with an account of another dialect, which the socket's transport asks over HTTP."""

    lasting = False

    def __init__(self, account: str) -> None:
        self.account = account
        self.handshake: dict[str, str] = {}
        self.talk = Conversation()
        self._local: list[str] = []

    @property
    def remembers(self) -> bool:
        return self.talk.known

    def whole(self, frame: str | bytes) -> bytes | None:
        """The request that the frame stands for, None for a prewarm: the answer is here. Raises as `Conversation`."""
        body, self._local = self.talk.request(frame)
        return body

    async def send(self, frame: str | bytes) -> None:
        """The account has been asked for the whole of it, or need not be."""

    async def pass_on(self, frame: str | bytes) -> None:
        """Over HTTP there is nobody to tell."""

    async def receive(self) -> str | bytes:
        if self._local:
            return self._local.pop(0)
        await asyncio.Event().wait()  # idle: nothing comes without a request
        raise LinkClosedError

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """It is memory alone."""


def _broken(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """What a broken connection raises. aiohttp is loaded by whoever dials: it takes a while."""
    import aiohttp

    return aiohttp.ClientError, OSError, *others


def reason_bytes(reason: str) -> bytes:
    """A close reason as it fits into a control frame: at most 123 bytes of whole UTF-8 characters."""
    return reason.encode("utf-8", "replace")[:_REASON_CAP].decode("utf-8", "ignore").encode()
