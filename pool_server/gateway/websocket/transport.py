"""One turn on a Responses socket: a frame goes up the link of an account, its events come down as frames."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

import msgspec

from pool_server.core.enums import ErrorKind, FaultKind
from pool_server.core.models import ClientError, Fault, UpstreamRequest
from pool_server.gateway.answer import Ending, Piece
from pool_server.gateway.exchange import Exchange
from pool_server.gateway.transports import LIVED_TOO_LONG, UpstreamAnswer, UpstreamRefusal, finished
from pool_server.gateway.websocket.links import Link, LinkClosedError, TranslatedLink
from pool_server.http1 import UpstreamDisconnectedError
from pool_server.providers import Credential, Shield, network_fault, provider_module

RESTARTING = 1012
_TOO_BIG = 1009
_KEEPALIVE = '{"type":"keepalive"}'


class ClientSocket(Protocol):
    """The client's side of a turn, and the upstream link it is tied to."""

    link: Link | None

    @property
    def connected(self) -> bool: ...

    def tied_to(self, account: str) -> bool: ...

    async def tie(self, x: Exchange, account: str, credential: Credential) -> Fault | None: ...

    def drop_link(self) -> None: ...

    def send_frame(self, frame: Piece) -> Awaitable[None] | None: ...

    async def say(self, error: ClientError) -> None: ...

    def mirror(self, closed: LinkClosedError) -> None: ...

    def close(self, code: int | None = None, reason: str | None = None) -> None: ...

    def in_background(self, work: Coroutine[Any, Any, None]) -> None: ...


class TurnTransport:
    """`continued`: the turn goes on with a response that only the socket's own link knows. Without a frame it only
    ties the socket to an account."""

    started = True
    status = 0

    def __init__(self, socket: ClientSocket, exchange: Exchange, frame: Piece = "", *, continued: bool = False) -> None:
        self._socket = socket
        self._x = exchange
        self._frame = frame
        self._continued = continued
        self._closed: LinkClosedError | None = None  # how the upstream ended the turn
        self._translated: TranslatedLink | None = None  # what the turn goes over, if to another dialect
        self._prepared: UpstreamRequest
        self.sent = 0

    @property
    def framed(self) -> bool:
        return self._x.translation is None

    @property
    def closed(self) -> bool:
        return not self._socket.connected

    @property
    def bound(self) -> str | None:
        if not self._continued:
            return None
        link = self._socket.link
        return link.account if link is not None and link.remembers else ""

    # -- up

    async def plain(self) -> bytes:
        return self._frame.encode() if isinstance(self._frame, str) else self._frame

    async def whole(self, account: str, credential: Credential) -> bytes | None:
        link = self._socket.link
        if not self._socket.tied_to(account) or not isinstance(link, TranslatedLink):
            await self._socket.tie(self._x, account, credential)
            link = self._socket.link
        assert isinstance(link, TranslatedLink)
        self._translated = link
        return link.whole(self._frame)

    def prepare(self, credential: Credential) -> str:
        """A link that is there already is asked without more ado."""
        if self._x.translation is None:
            return ""
        self._prepared = provider_module(credential.provider).prepare(
            credential, self._x.call, self._x.services.settings
        )
        return self._prepared.url

    async def open(
        self, account: str, credential: Credential, body: bytes | None
    ) -> UpstreamAnswer | UpstreamRefusal | Fault:
        if self._x.translation is not None:
            return await self._open_translated(account, body or b"")
        return await self._open_link(account, credential, body)

    async def _open_translated(self, account: str, body: bytes) -> UpstreamAnswer | UpstreamRefusal | Fault:
        prepared, body = finished(self._prepared, body)
        return await self._x.open(account, prepared, body, len(body))

    async def _open_link(
        self, account: str, credential: Credential, body: bytes | None
    ) -> Turn | UpstreamRefusal | Fault:
        frame: Piece = self._frame
        if body is not None:
            frame = body.decode() if isinstance(frame, str) else body
        kept = self._socket.tied_to(account) and isinstance(self._socket.link, TranslatedLink) == bool(self._translated)
        if not kept:
            fault = await self._socket.tie(self._x, account, credential)
            if fault is not None:
                return fault
        link = self._socket.link
        assert link is not None
        turn = Turn(self._socket, link, may_be_dead=kept and link.lasting)
        try:
            await link.send(frame)
        except LinkClosedError as closed:
            if closed.status:
                return UpstreamRefusal(closed.status, list(closed.headers.items()), closed.headers, closed.body)
            return self.broke(turn.failed(closed))
        turn.fields = link.handshake if not link.lasting else turn.fields
        return turn

    def broke(self, error: UpstreamDisconnectedError) -> Fault:
        if not isinstance(error, LinkClosedError):
            return network_fault("the connection broke off")
        self._closed = error
        if error.code == _TOO_BIG:
            message = "a frame was too large for the provider or the pool"
            return Fault(FaultKind.REQUEST, code="message_too_big", message=message, status=413)
        fault = network_fault(error.reason or f"the provider closed the socket ({error.code})")
        return msgspec.structs.replace(fault, code=LIVED_TOO_LONG) if error.stale else fault

    def drop(self) -> None:
        self._translated = None
        self._socket.drop_link()

    # -- down

    def begin(self, pieces: list[Piece], length: int | None, shield: Shield) -> Awaitable[None] | None:
        behind = None
        for piece in pieces:
            behind = self.write(piece)
        return behind

    def write(self, piece: Piece) -> Awaitable[None] | None:
        self.sent += len(piece)
        if self._x.translation is None or self._translated is None:
            return self._socket.send_frame(piece)
        assert isinstance(piece, bytes)
        talk, behind = self._translated.talk, None
        frames = talk.feed(piece)
        if talk.finished and talk.known:  # before the client can go on from it
            self._x.continuity.own(self._translated.account, "response", talk.response_id)
        for frame in frames:
            behind = self._socket.send_frame(frame)
        return behind

    def keep_alive(self) -> None:
        self._socket.send_frame(_KEEPALIVE)

    async def end(self, ending: Ending, error: ClientError | None, latest: Piece) -> None:
        """Told an error in the middle of an answer, the CLI would give up; on a mere 1012 it sends the turn again
        without a word to its user, and another account serves it."""
        if ending is not Ending.BROKEN:
            return
        if self._closed is not None and self._closed.code == _TOO_BIG:
            self._socket.mirror(self._closed)
            return
        self._socket.drop_link()
        self._socket.close(RESTARTING, "the provider broke off; send the turn again")

    async def refuse(self, refusal: UpstreamRefusal, fault: Fault, shield: Shield) -> None:
        """An HTTP refusal as the socket's error frame, the provider's own words untouched."""
        error: Any = {"message": fault.message, "code": fault.code or None, "type": "invalid_request_error"}
        try:
            error = msgspec.json.decode(refusal.body, type=dict[str, Any]).get("error", error)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        frame = {"type": "error", "status": refusal.status, "error": error}
        text = msgspec.json.encode(frame).decode()
        self.sent += len(text)
        await _waited(self._socket.send_frame(text))

    async def tell(self, error: ClientError) -> None:
        resend = error.kind is ErrorKind.CONTINUATION
        if resend:
            self._socket.drop_link()
        await self._socket.say(error)
        if resend:  # on a new socket, and to whichever account is best
            self._socket.close(RESTARTING, "send the conversation again in full")


class Turn:
    """A link while it answers one frame. `may_be_dead`: the link may have died unnoticed before the frame was sent."""

    status = 200

    def __init__(self, socket: ClientSocket, link: Link, *, may_be_dead: bool) -> None:
        self._socket = socket
        self._link = link
        self._may_be_dead = may_be_dead
        self.fields: dict[str, str] = {}
        self.at_once: Callable[..., bool] | None = None
        self.read: Callable[[], Awaitable[Piece]] = self._first

    async def _first(self) -> Piece:
        try:
            piece = await self._link.receive()
        except LinkClosedError as closed:
            raise self.failed(closed) from None
        self._may_be_dead = False
        self.read = self._link.receive
        return piece

    def failed(self, closed: LinkClosedError) -> LinkClosedError:
        closed.stale = self._may_be_dead
        return closed

    def close(self) -> None:
        self._may_be_dead = False
        self._socket.in_background(self._link.close())


async def _waited(behind: Awaitable[None] | None) -> None:
    if behind is not None:
        await behind
