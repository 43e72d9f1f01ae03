"""What a client's WebSocket is on every path: its handshake, its user's seats and room, frames and errors down."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Coroutine, Mapping
from typing import Any

from tornado.iostream import StreamClosedError
from tornado.web import Application, Finish
from tornado.websocket import WebSocketClosedError, WebSocketHandler, WebSocketProtocol, WebSocketProtocol13

from pool_server import dialects
from pool_server.core.budget import BudgetShare
from pool_server.core.enums import ErrorKind
from pool_server.core.models import ClientCall, ClientError
from pool_server.gateway import final_error, metrics
from pool_server.gateway.exchange import Exchange
from pool_server.gateway.http.headers import SAFE, credentials, downward, query_without_key, upward
from pool_server.gateway.http.reply import REQUEST_ID
from pool_server.gateway.recording import record
from pool_server.gateway.routes import Route, match
from pool_server.gateway.service import DataPlane
from pool_server.gateway.services import new_request_id
from pool_server.gateway.websocket.links import FRAME_CAP, Link, LinkClosedError, reason_bytes
from pool_server.gateway.websocket.protocol import RelayProtocol
from pool_server.gateway.websocket.transport import RESTARTING
from pool_server.http1 import ClientDisconnectedError
from pool_server.providers import Shield
from pool_server.transcripts import ExchangeCapture
from pool_server.users import Principal

GOING_AWAY = 1001
POLICY = 1008
_UNSENT = ("upgrade", "connection", "sec-websocket-accept", "sec-websocket-extensions", "sec-websocket-protocol")

_PING_S = 30.0
_KNOWN_VERSION = "13"  # of the WebSocket protocol (RFC 6455 §4.1)


class RelaySocket(WebSocketHandler):
    """A client's socket and the link it is tied to. `busy` while something is under way."""

    def initialize(self, gateway: DataPlane) -> None:
        self._gateway = gateway
        self._route: Route | None = None
        self.principal: Principal | None = None
        self.link: Link | None = None
        self._shield: Shield | None = None  # of the credential the link was made with
        self._left = False
        self._capture: ExchangeCapture | None = None  # of the turn, or live conversation, under way
        self._seated = False  # counts as one of the user's sockets
        self._arriving: BudgetShare | None = None  # what has come of a frame
        self._held: BudgetShare | None = None  # what the frame of the turn under way takes
        self._sent = {name.lower(): value for name, value in self.request.headers.get_all()}

    @property
    def connected(self) -> bool:
        return self.ws_connection is not None

    # -- the handshake

    async def prepare(self) -> None:
        self._route = match(self.request.method or "", self.request.path, self.request.headers)
        assert self._route is not None
        admitted = self._gateway.door(self.request, self._route, self._keys())
        if self._gateway.unheard(admitted, self.request):
            admitted = await self._gateway.door_again(self.request, self._route, self._keys())
        request_id = new_request_id(time.time())
        for name, value in (*SAFE, (REQUEST_ID, request_id)):
            self.set_header(name, value)
        if isinstance(admitted, ClientError):
            self._refuse(admitted)
            return
        self.principal = admitted
        x = self._exchange(request_id)
        refused = await self._greet(x)
        if self._left:
            self._leave_seat()
            self.drop_link(GOING_AWAY)
            raise Finish
        if refused is not None:
            outcome = final_error.outcome_of(refused, attempted=bool(x.attempts))
            refused = final_error.as_heard(refused, x.conduct, time.time())
            await record(x, outcome, refused.status, refused.message)
            self._refuse(refused)

    async def _greet(self, x: Exchange) -> ClientError | None:
        """Makes ready for the client's frames before it is accepted; the error when it is not."""
        raise NotImplementedError

    def _show_handshake(self, fields: Mapping[str, str], shield: Shield) -> None:
        """Tells what the provider's handshake told, with the caller's own limits."""
        assert self.principal is not None
        for name, value in self._gateway.services.view.instead(downward(fields.items(), shield), self.principal):
            if name not in _UNSENT:
                self.set_header(name, value)

    def _no_seat(self, x: Exchange) -> ClientError | None:
        """Takes one of the user's seats; the error when there is none, or nothing is to be had on it."""
        if self.request.headers.get("Sec-WebSocket-Version") != _KNOWN_VERSION:
            return ClientError(ErrorKind.UPGRADE, "This pool speaks version 13 of the WebSocket protocol.", 426)
        user, most = x.principal.user, x.services.settings.budgets.sockets_per_user
        provider = x.providers[0].value if x.providers else ""
        stopped = x.services.users.admission.stopped(x.principal, provider=provider)
        if stopped is not None:
            return final_error.denied(stopped)
        if self._gateway.seats[user] >= most:
            metrics.socket_refused("seats").inc()
            return final_error.sockets_full(most, time.time())
        self._gateway.seats[user] += 1
        self._seated = True
        return None

    def _leave_seat(self) -> None:
        if self._seated:
            self._seated = False
            assert self.principal is not None
            self._gateway.seats[self.principal.user] -= 1
            self._gateway.seats += Counter()  # drops those at nothing

    def on_finish(self) -> None:
        if self.get_status() != 101:  # nothing comes of it, also where Tornado found the handshake wanting
            self._leave_seat()
            self.drop_link(GOING_AWAY)

    def _refuse(self, error: ClientError) -> None:
        assert self._route is not None
        status, headers, body = dialects.error(self._route.dialect, error, now=time.time())
        self.set_status(status)
        for name, value in headers:
            self.set_header(name, value)
        self.finish(body)

    def check_origin(self, origin: str) -> bool:
        return True  # the key admits, never a cookie; local mode has judged the Origin at the door

    def get_compression_options(self) -> dict[str, Any]:
        return {}

    def get_websocket_protocol(self) -> WebSocketProtocol | None:
        protocol = super().get_websocket_protocol()
        if isinstance(protocol, WebSocketProtocol13):
            assert self.principal is not None
            relay = RelayProtocol(self, False, protocol.params)
            relay.arriving = self._arriving = BudgetShare(self._gateway.frames, self.principal.user)
            relay.on_busy = self.on_busy
            self._held = BudgetShare(self._gateway.frames, self.principal.user)
            return relay
        return protocol

    # -- frames

    def _arrived(self) -> None:
        """The frame that came is with its turn, or gone."""
        if self._arriving is not None:
            self._arriving.resize(0)

    def on_busy(self) -> None:
        """There is no room for a message."""
        metrics.socket_refused("messages").inc()
        with contextlib.suppress(ClientDisconnectedError):
            self.send_frame(self.error_frame(final_error.frames_full(time.time())))

    def _keys(self) -> list[str]:
        return credentials(self.request.headers, self.request.query)

    def _exchange(self, request_id: str) -> Exchange:
        assert self._route is not None
        assert self.principal is not None
        keys = self._keys()
        client_call = ClientCall(
            operation=self._route.operation,
            dialect=self._route.dialect,
            method="GET",
            path=self._route.path,
            query=query_without_key(self.request.query, keys),
            headers=upward(self.request.headers.get_all(), keys),
            websocket=True,
        )
        return Exchange(self._gateway.services, self._route, self.principal, client_call, request_id)

    def send_frame(self, frame: str | bytes) -> Awaitable[None] | None:
        """Something to wait for while the client is behind. Raises `ClientDisconnectedError`."""
        connection = self.ws_connection
        if connection is None or connection.is_closing():
            raise ClientDisconnectedError
        assert isinstance(connection, RelayProtocol)
        try:
            sent = connection.send_frame(frame)
        except StreamClosedError:
            raise ClientDisconnectedError from None
        if self._capture is not None:
            self._capture.down(frame)
        return None if sent.done() else _read_by_client(sent)

    def error_frame(self, error: ClientError) -> str:
        return dialects.ws_error(error, now=time.time())

    async def say(self, error: ClientError) -> None:
        """Tells an error as a frame; a closed socket is no error here."""
        with contextlib.suppress(ClientDisconnectedError):
            behind = self.send_frame(self.error_frame(error))
            if behind is not None:
                await behind

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        self._gateway.in_background(work)

    def tied_to(self, account: str) -> bool:
        return self.link is not None and self.link.account == account

    def drop_link(self, code: int = 1000, reason: str = "") -> None:
        """Lets go of the upstream; nobody waits until it has answered the close."""
        link, self.link = self.link, None
        if link is not None:
            self._gateway.in_background(link.close(code, reason))

    def mirror(self, closed: LinkClosedError) -> None:
        """The upstream hung up: the client gets the same code, so that it reconnects."""
        self.drop_link()
        reason = self._shield.text(closed.reason) if self._shield is not None else closed.reason
        self.close(closed.code if sendable(closed.code) else RESTARTING, reason)

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        super().close(code, reason_bytes(reason).decode() if reason else reason)


def sendable(code: int) -> bool:
    """Whether a close frame may hold this code (RFC 6455 §7.4): the others are nobody's, or speak of a frame that was
    never sent."""
    return 3000 <= code <= 4999 or (1000 <= code <= 1014 and code not in (1004, 1005, 1006))


async def _read_by_client(sent: Awaitable[None]) -> None:
    try:
        await sent
    except (StreamClosedError, WebSocketClosedError):
        raise ClientDisconnectedError from None


def socket_application(gateway: DataPlane, kind: type[RelaySocket]) -> Application:
    """The Tornado application behind socket paths of the data plane."""
    return Application(
        [(r".*", kind, {"gateway": gateway})],
        websocket_max_message_size=FRAME_CAP,
        websocket_ping_interval=_PING_S,
        log_function=_quiet,
    )


def _quiet(handler: Any) -> None:
    """Sockets are counted and recorded as exchanges; Tornado's access log would only double that."""
