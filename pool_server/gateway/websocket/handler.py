"""The Responses WebSocket: one client socket tied to one account's link, one exchange a turn.

Each turn is admitted, chosen, metered and recorded like an HTTP exchange. A fresh turn may move to another account
until something of its answer was shown; a turn that continues a response cannot: then the client is told to send
everything again, which it does on a new socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Coroutine
from typing import Any

from tornado.iostream import StreamClosedError
from tornado.web import Application, Finish
from tornado.websocket import WebSocketClosedError, WebSocketHandler, WebSocketProtocol, WebSocketProtocol13

from pool_server import dialects
from pool_server.core.budget import BudgetFullError, BudgetShare
from pool_server.core.enums import ErrorKind, Outcome, Transport
from pool_server.core.models import ClientCall, ClientError, Fault
from pool_server.gateway import final_error, metrics
from pool_server.gateway.exchange import Exchange
from pool_server.gateway.http.headers import SAFE, credentials, downward, query_without_key, upward
from pool_server.gateway.http.reply import REQUEST_ID
from pool_server.gateway.pipeline import Pipeline
from pool_server.gateway.routes import Route, match
from pool_server.gateway.service import DataPlane
from pool_server.gateway.services import new_request_id
from pool_server.gateway.websocket.dialling import Dialler
from pool_server.gateway.websocket.frames import BadFrameError, FrameKind, judge
from pool_server.gateway.websocket.links import FRAME_CAP, Link, LinkClosedError, reason_bytes
from pool_server.gateway.websocket.protocol import RelayProtocol
from pool_server.gateway.websocket.transport import RESTARTING, TurnTransport
from pool_server.http1 import ClientDisconnectedError
from pool_server.providers import Credential, Shield
from pool_server.users import Principal

_PING_S = 30.0
_GOING_AWAY = 1001
_POLICY = 1008
_SILENT_CODES = frozenset({0, 1005, 1006, 1015})  # close codes that must not be sent
_UNSENT = ("upgrade", "connection", "sec-websocket-accept", "sec-websocket-extensions", "sec-websocket-protocol")


_INVALID = 1007
_KNOWN_VERSION = "13"  # of the WebSocket protocol (RFC 6455 §4.1)
_LARGE = 64 << 10  # bytes; what is shorter is not counted
_LOOKED_AT_ONCE = 1 << 20  # bytes of a frame that are looked into before the user's limits are asked


class CodexSocket(WebSocketHandler):
    """A client's socket. `busy` while a turn is under way."""

    def initialize(self, gateway: DataPlane) -> None:
        self._gateway = gateway
        self._route: Route | None = None
        self.principal: Principal | None = None
        self.link: Link | None = None
        self._shield: Shield | None = None  # of the credential the link was made with
        self._turn: asyncio.Task[None] | None = None
        self._idle: asyncio.Task[None] | None = None
        self._pipeline: Pipeline | None = None  # of the turn under way
        self._begun = False
        self._left = False
        self._model = ""  # of the last turn: an append names none
        self._seated = False  # counts as one of the user's sockets
        self._arriving: BudgetShare | None = None  # what has come of a frame
        self._held: BudgetShare | None = None  # what the frame of the turn under way takes
        self._sent = {name.lower(): value for name, value in self.request.headers.get_all()}
        self._dialler = Dialler(gateway.services, gateway.http_only)

    @property
    def busy(self) -> bool:
        return self._turn is not None

    @property
    def connected(self) -> bool:
        return self.ws_connection is not None

    # -- the handshake

    async def prepare(self) -> None:
        self._route = match(self.request.method or "", self.request.path, self.request.headers)
        assert self._route is not None
        admitted = self._gateway.door(self.request, self._route, self._keys())
        request_id = new_request_id(time.time())
        for name, value in (*SAFE, (REQUEST_ID, request_id)):
            self.set_header(name, value)
        if isinstance(admitted, ClientError):
            self._refuse(admitted)
            return
        self.principal = admitted
        x = self._exchange(request_id)
        x.look(self._sent, b"{}", x.principal.key or x.principal.user)
        refused = self._no_seat(x) or x.force_refused() or await self._first_link(x)
        if self._left:
            self._leave_seat()
            self.drop_link(_GOING_AWAY)
            raise Finish
        if refused is not None:
            self._refuse(refused)
            return
        if self.link is None:
            return
        assert self._shield is not None
        headers = x.services.view.instead(downward(self.link.handshake.items(), self._shield), x.principal)
        for name, value in headers:
            if name not in _UNSENT:
                self.set_header(name, value)

    def _no_seat(self, x: Exchange) -> ClientError | None:
        """Takes one of the user's seats; the error when there is none, or nothing is to be had on it."""
        if self.request.headers.get("Sec-WebSocket-Version") != _KNOWN_VERSION:
            return ClientError(ErrorKind.UPGRADE, "This pool speaks version 13 of the WebSocket protocol.", 426)
        user, most = x.principal.user, x.services.settings.budgets.sockets_per_user
        provider = x.providers[0].value if x.providers else ""
        stopped = x.services.users.stopped(x.principal, provider=provider)
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
            self.drop_link(_GOING_AWAY)

    def _refuse(self, error: ClientError) -> None:
        assert self._route is not None
        status, headers, body = dialects.error(self._route.dialect, error, now=time.time())
        self.set_status(status)
        for name, value in headers:
            self.set_header(name, value)
        self.finish(body)

    async def _first_link(self, x: Exchange) -> ClientError | None:
        """Ties the socket to an account before the client is accepted; the error when none can be had. A client that
        names no model yet may want one that is served by translation: its turns find the account."""
        hint = self._sent.get("x-codex-routing-hint", "")
        x.peek.model = hint.partition("model=")[2].partition(";")[0].strip()

        async def tie(account: str, credential: Credential) -> Fault | None:
            return await self.tie(x, account, credential)

        error = await Pipeline(x, TurnTransport(self, x)).connect(tie)
        return None if not x.peek.model and x.translatable() else error

    async def tie(self, x: Exchange, account: str, credential: Credential) -> Fault | None:
        """Ties the socket to an account with a new link; the fault that stands against it."""
        self.drop_link()
        self._shield = Shield(credential)
        self.link, fault = await self._dialler.dial(x, account, credential)
        if self.link is not None:
            turn_state = self.link.handshake.get("x-codex-turn-state")
            if turn_state:
                x.continuity.own(account, "turn_state", turn_state)
        return fault

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

    def open(self, *args: str, **kwargs: str) -> None:
        self._gateway.sockets.add(self)
        self.set_nodelay(True)
        self._watch_idle()

    # -- frames from the client

    async def on_message(self, message: str | bytes) -> None:
        try:
            await self._take(message)
        finally:
            self._arrived()

    async def _take(self, message: str | bytes) -> None:
        assert self.principal is not None
        if len(message) > _LOOKED_AT_ONCE:
            stopped = self._gateway.services.users.stopped(self.principal)
            if stopped is not None:
                await self.say(final_error.denied(stopped))
                return
        try:
            kind = judge(message)
        except BadFrameError as error:
            await self.say(_bad(f"{str(error).capitalize()}."))
            self.close(_INVALID, str(error))
            return
        if not self._begun and kind is not FrameKind.CREATE:
            await self.say(_bad("the first frame must be a response.create"))
        elif not kind.starts_turn:
            await self._pass_on(message)
        elif self._turn is not None:
            await self.say(_bad("a turn is under way on this socket; wait for its end"))
        elif self._still_admitted() and await self._hold(message):
            await self._stop_idle()
            self._turn = asyncio.get_running_loop().create_task(self._run(message, kind))

    def _arrived(self) -> None:
        """The frame that came is with its turn, or gone."""
        if self._arriving is not None:
            self._arriving.resize(0)

    async def _hold(self, message: str | bytes) -> bool:
        """Counts a large frame for as long as its turn lasts; False, told, when there is no room for it."""
        self._arrived()
        assert self._held is not None
        try:
            self._held.resize(len(message) if len(message) > _LARGE else 0)
        except BudgetFullError:
            self.on_busy()
            return False
        return True

    def on_busy(self) -> None:
        """There is no room for a message."""
        metrics.socket_refused("messages").inc()
        with contextlib.suppress(ClientDisconnectedError):
            self.send_frame(dialects.ws_error(final_error.frames_full(time.time()), now=time.time()))

    def _keys(self) -> list[str]:
        return credentials(self.request.headers, self.request.query)

    def _still_admitted(self) -> bool:
        """A turn is let in like a request: the key may have ended since, the server may be about to."""
        assert self._route is not None
        admitted = self._gateway.door(self.request, self._route, self._keys())
        if isinstance(admitted, ClientError):
            draining = admitted.kind is ErrorKind.DRAINING
            self.stop(Outcome.CUT if draining else Outcome.REVOKED, admitted)
            return False
        self.principal = admitted
        return True

    async def _pass_on(self, message: str | bytes) -> None:
        if self.link is not None:
            try:
                await self.link.pass_on(message)
            except LinkClosedError as closed:
                if self._turn is None:  # a turn under way notices by itself
                    self.mirror(closed)

    def on_close(self) -> None:
        self._left = True
        self._gateway.sockets.discard(self)
        self._leave_seat()
        self._arrived()
        if self._held is not None:
            self._held.resize(0)
        for task in (self._turn, self._idle):
            if task is not None:
                task.cancel()
        self._idle = None  # the task and the socket would keep each other
        code = self.close_code or 0
        if code in _SILENT_CODES:
            self.drop_link(_GOING_AWAY)
        else:
            self.drop_link(code, self.close_reason or "")

    def stop(self, outcome: Outcome, error: ClientError) -> None:
        """Ends the socket now: 1008 for a revoked key, 1012 for a restart."""
        if self._pipeline is not None:
            self._pipeline.stop(outcome, error)
        if self._turn is not None:
            self._turn.cancel()
        self.close(_POLICY if outcome is Outcome.REVOKED else RESTARTING, error.message)

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        super().close(code, reason_bytes(reason).decode() if reason else reason)

    # -- one turn

    async def _run(self, frame: str | bytes, kind: FrameKind) -> None:
        x = self._exchange(new_request_id(time.time()))
        x.transport = Transport.WEBSOCKET
        x.request_bytes = len(frame)
        refused = self._look(x, frame, kind)
        continued = kind is FrameKind.APPEND or x.peek.previous_response_id is not None
        self._pipeline = Pipeline(x, TurnTransport(self, x, frame, continued=continued))
        try:
            await self._pipeline.run(refused)
        finally:
            self._begun = self._begun or bool(x.attempts)  # a turn that was let in
            self._pipeline = None
            self._turn = None
            assert self._held is not None
            self._held.resize(0)
            self._watch_idle()

    def _look(self, x: Exchange, frame: str | bytes, kind: FrameKind) -> ClientError | None:
        try:
            data = frame.encode() if isinstance(frame, str) else frame
            x.look(self._sent, data, x.principal.key or x.principal.user)
        except dialects.BadBodyError as error:
            return _bad(str(error))
        if kind is FrameKind.APPEND:
            x.peek.model = x.peek.model or self._model
        if not x.peek.model:
            return _bad("missing model in response.create request")
        self._model = x.peek.model
        x.peek.stream = True
        return None

    def tick(self, now: float) -> None:
        """Keeps the client's socket alive and the upstream honest; `now` is the event loop's time."""
        if self._pipeline is not None:
            self._pipeline.tick(now)

    # -- small things

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
        return None if sent.done() else _read_by_client(sent)

    async def say(self, error: ClientError) -> None:
        """Tells an error as a frame; a closed socket is no error here."""
        with contextlib.suppress(ClientDisconnectedError):
            behind = self.send_frame(dialects.ws_error(error, now=time.time()))
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
        self.close(RESTARTING if closed.code in _SILENT_CODES else closed.code, reason)

    def _watch_idle(self) -> None:
        """Between turns somebody must listen, or an upstream that hung up would go unnoticed."""
        if self.link is not None and self._idle is None and self.ws_connection is not None:
            self._idle = asyncio.get_running_loop().create_task(self._listen(self.link))

    async def _listen(self, link: Link) -> None:
        shield = self._shield
        try:
            while True:
                frame = await link.receive()
                if shield is not None:
                    frame = shield.text(frame) if isinstance(frame, str) else shield.whole(frame)
                behind = self.send_frame(frame)
                if behind is not None:
                    await behind
        except LinkClosedError as closed:
            self._idle = None
            self.mirror(closed)
        except ClientDisconnectedError:
            self._idle = None

    async def _stop_idle(self) -> None:
        task, self._idle = self._idle, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})


def _bad(message: str) -> ClientError:
    return ClientError(ErrorKind.BAD_REQUEST, message, 400)


async def _read_by_client(sent: Awaitable[None]) -> None:
    try:
        await sent
    except (StreamClosedError, WebSocketClosedError):
        raise ClientDisconnectedError from None


def socket_application(gateway: DataPlane) -> Application:
    """The Tornado application behind the data plane's socket paths."""
    return Application(
        [(r".*", CodexSocket, {"gateway": gateway})],
        websocket_max_message_size=FRAME_CAP,
        websocket_ping_interval=_PING_S,
        log_function=_quiet,
    )


def _quiet(handler: Any) -> None:
    """Sockets are counted and recorded as exchanges; Tornado's access log would only double that."""
