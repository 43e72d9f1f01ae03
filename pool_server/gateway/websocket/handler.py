"""The Responses WebSocket: one client socket tied to one account's link, one exchange a turn.

Each turn is admitted, chosen, metered and recorded like an HTTP exchange. A fresh turn may move to another account
until something of its answer was shown; a turn that continues a response cannot: then the client is told to send
everything again, which it does on a new socket.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

import msgspec
from tornado.iostream import StreamClosedError
from tornado.web import Application, Finish
from tornado.websocket import WebSocketClosedError, WebSocketHandler, WebSocketProtocol, WebSocketProtocol13

from pool_server import dialects
from pool_server.core.enums import ErrorKind, FaultKind, Outcome, Transport
from pool_server.core.models import ClientCall, ClientError, Fault
from pool_server.gateway.exchange import Exchange, new_request_id
from pool_server.gateway.headers import downward, query_without_key, upward
from pool_server.gateway.http.relay import CLIENT_FAULTS
from pool_server.gateway.http.reply import REQUEST_ID
from pool_server.gateway.routes import Route, match
from pool_server.gateway.websocket.bridge import ContinuationLostError
from pool_server.gateway.websocket.dialling import Dialler
from pool_server.gateway.websocket.links import FRAME_CAP, Link, LinkClosedError, reason_bytes
from pool_server.gateway.websocket.protocol import RelayProtocol
from pool_server.gateway.websocket.turn import Turn
from pool_server.providers import Credential
from pool_server.users import Principal

if TYPE_CHECKING:
    from pool_server.gateway.service import Gateway

log = logging.getLogger("pool_server.gateway")

_PING_S = 30.0
_GOING_AWAY = 1001
_POLICY = 1008
_TOO_BIG = 1009
_RESTARTING = 1012
_SILENT_CODES = frozenset({0, 1005, 1006, 1015})  # close codes that must not be sent
_UNSENT = ("upgrade", "connection", "sec-websocket-accept", "sec-websocket-extensions", "sec-websocket-protocol")


_APPEND = "response.append"
_STARTS_TURN = frozenset({"response.create", _APPEND})
_LIVED_TOO_LONG = "websocket_connection_limit_reached"  # the provider's word for: dial again


class _Frame(msgspec.Struct):
    type: str = ""


class CodexSocket(WebSocketHandler):
    """A client's socket. `busy` while a turn is under way."""

    def initialize(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._route: Route | None = None
        self.principal: Principal | None = None
        self._link: Link | None = None
        self._turn: asyncio.Task[None] | None = None
        self._idle: asyncio.Task[None] | None = None
        self._stop: tuple[Outcome, ClientError] | None = None
        self._begun = False
        self._left = False
        self._model = ""  # of the last turn: an append names none
        self._sent = {name.lower(): value for name, value in self.request.headers.get_all()}
        self._dialler = Dialler(gateway.rooms, gateway.http_only)

    @property
    def busy(self) -> bool:
        return self._turn is not None

    # -- the handshake

    async def prepare(self) -> None:
        self._route = match(self.request.method or "", self.request.path, self.request.headers)
        assert self._route is not None
        admitted = self._gateway.door(self.request, self._route)
        request_id = new_request_id(time.time())
        self.set_header(REQUEST_ID, request_id)
        if isinstance(admitted, ClientError):
            self._refuse(admitted)
            return
        self.principal = admitted
        x = self._exchange(request_id)
        x.look(self._sent, b"{}", x.principal.key or x.principal.user)
        refused = x.force_refused() or await self._first_link(x)
        if self._left:
            self._drop_link(_GOING_AWAY)
            raise Finish
        if refused is not None:
            self._refuse(refused)
            return
        assert self._link is not None
        headers = x.rooms.view.instead(downward(self._link.handshake.items()), x.principal)
        for name, value in headers:
            if name not in _UNSENT:
                self.set_header(name, value)

    def _refuse(self, error: ClientError) -> None:
        assert self._route is not None
        status, headers, body = dialects.error(self._route.dialect, error, now=time.time())
        self.set_status(status)
        for name, value in headers:
            self.set_header(name, value)
        self.finish(body)

    async def _first_link(self, x: Exchange) -> ClientError | None:
        """Ties the socket to an account before the client is accepted; the error when none can be had."""
        hint = self._sent.get("x-codex-routing-hint", "")
        x.peek.model = hint.partition("model=")[2].partition(";")[0].strip()
        while (account := await x.next_account()) is not None:
            credential = x.begin(account)
            try:
                fault = await self._tie(x, account, credential)
                if fault is not None and fault.kind is FaultKind.AUTH and credential.can_refresh:
                    renewed = await x.refreshed(account, credential)
                    if renewed is not None:
                        fault = await self._tie(x, account, renewed)
            finally:
                x.end(account)
            if fault is None:
                x.committed(account, 101)  # the first turn is to find the account the socket is tied to
                return None
            x.failed(account, credential, fault)
        return x.unserved()

    async def _tie(self, x: Exchange, account: str, credential: Credential) -> Fault | None:
        """Ties the socket to an account with a new link; the fault that stands against it."""
        self._drop_link()
        self._link, fault = await self._dialler.dial(x, account, credential)
        if self._link is not None:
            turn_state = self._link.handshake.get("x-codex-turn-state")
            if turn_state:
                x.own(account, "turn_state", turn_state)
        return fault

    def check_origin(self, origin: str) -> bool:
        return True  # the key admits, never a cookie; local mode has judged the Origin at the door

    def get_compression_options(self) -> dict[str, Any]:
        return {}

    def get_websocket_protocol(self) -> WebSocketProtocol | None:
        protocol = super().get_websocket_protocol()
        if isinstance(protocol, WebSocketProtocol13):
            return RelayProtocol(self, False, protocol.params)
        return protocol

    def open(self, *args: str, **kwargs: str) -> None:
        self._gateway.sockets.add(self)
        self.set_nodelay(True)
        self._watch_idle()

    # -- frames from the client

    async def on_message(self, message: str | bytes) -> None:
        kind = _kind(message)
        if not self._begun and kind != "response.create":
            await self._say(_bad("the first frame must be a response.create"))
        elif kind not in _STARTS_TURN:
            await self._pass_on(message)
        elif self._turn is not None:
            await self._say(_bad("a turn is under way on this socket; wait for its end"))
        elif self._still_admitted():
            self._begun = True
            await self._stop_idle()
            self._turn = asyncio.get_running_loop().create_task(self._run(message, kind))

    def _still_admitted(self) -> bool:
        """A turn is let in like a request: the key may have ended since, the server may be about to."""
        assert self._route is not None
        admitted = self._gateway.door(self.request, self._route)
        if isinstance(admitted, ClientError):
            draining = admitted.kind is ErrorKind.DRAINING
            self.stop(Outcome.CUT if draining else Outcome.REVOKED, admitted)
            return False
        self.principal = admitted
        return True

    async def _pass_on(self, message: str | bytes) -> None:
        if self._link is not None:
            try:
                await self._link.pass_on(message)
            except LinkClosedError as closed:
                if self._turn is None:  # a turn under way notices by itself
                    self._mirror(closed)

    def on_close(self) -> None:
        self._left = True
        self._gateway.sockets.discard(self)
        for task in (self._turn, self._idle):
            if task is not None:
                task.cancel()
        self._idle = None  # the task and the socket would keep each other
        code = self.close_code or 0
        if code in _SILENT_CODES:
            self._drop_link(_GOING_AWAY)
        else:
            self._drop_link(code, self.close_reason or "")

    def stop(self, outcome: Outcome, error: ClientError) -> None:
        """Ends the socket now: 1008 for a revoked key, 1012 for a restart."""
        self._stop = (outcome, error)
        if self._turn is not None:
            self._turn.cancel()
        self.close(_POLICY if outcome is Outcome.REVOKED else _RESTARTING, error.message)

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        super().close(code, reason_bytes(reason).decode() if reason else reason)

    # -- one turn

    async def _run(self, frame: str | bytes, kind: str) -> None:
        x = self._exchange(new_request_id(time.time()))
        x.transport = Transport.WEBSOCKET
        x.request_bytes = len(frame)
        try:
            await self._serve(x, frame, kind)
        except (asyncio.CancelledError, WebSocketClosedError, StreamClosedError):
            outcome, error = self._stop or (Outcome.CLIENT_GONE, None)
            await x.record(
                outcome, 499 if error is None else error.status, error.message if error else "", partial=True
            )
        except Exception:
            log.exception("turn %s failed inside the pool", x.id)
            await x.record(Outcome.UPSTREAM, 500, "the pool failed to serve this turn", partial=True)
            self.close(1011, "the pool failed to serve this turn")
        finally:
            self._turn = None
            self._watch_idle()

    async def _serve(self, x: Exchange, frame: str | bytes, kind: str) -> None:
        refused = self._look(x, frame, kind) or x.force_refused() or await x.reserve()
        try:
            refused = refused or await self._answer(x, frame, kind)
        except ContinuationLostError:
            await self._resend(x)
            return
        except dialects.BadBodyError as error:
            refused = _bad(str(error))
        if refused is not None:
            await x.record(_OUTCOMES.get(refused.kind, Outcome.DENIED), refused.status, refused.message)
            await self._say(refused)

    def _look(self, x: Exchange, frame: str | bytes, kind: str) -> ClientError | None:
        try:
            data = frame.encode() if isinstance(frame, str) else frame
            x.look(self._sent, data, x.principal.key or x.principal.user)
        except dialects.BadBodyError as error:
            return _bad(str(error))
        if kind == _APPEND:
            x.peek.model = x.peek.model or self._model
        if not x.peek.model:
            return _bad("missing model in response.create request")
        self._model = x.peek.model
        return None

    async def _answer(self, x: Exchange, frame: str | bytes, kind: str) -> ClientError | None:
        """Tries accounts until one answers; the error when none does. Raises `ContinuationLostError` when the client
        has to send everything again."""
        continued = kind == _APPEND or x.peek.previous_response_id is not None
        if continued and (self._link is None or not self._link.remembers):
            raise ContinuationLostError
        while (account := await x.next_account()) is not None:
            if continued and not self._tied_to(account):
                raise ContinuationLostError
            credential = x.begin(account)
            try:
                fault = await self._attempt(x, account, credential, frame, continued)
            finally:
                x.end(account)
            if fault is None:
                return None
            x.failed(account, credential, fault, x.usage)
            self._drop_link()
            if continued:
                raise ContinuationLostError
        error = x.unserved()
        if error.kind is ErrorKind.CONTINUATION:
            raise ContinuationLostError
        return error

    async def _attempt(
        self, x: Exchange, account: str, credential: Credential, frame: str | bytes, continued: bool
    ) -> Fault | None:
        """Runs the turn on one account; None when the client has its answer.

        What the account can cure itself is cured once: a token that ended, a socket that lived too long or died
        between turns, reasoning that was sealed elsewhere.
        """
        stripped = _stripped(frame) if x.foreign else None
        fault = await self._try(x, account, credential, stripped or frame)
        if fault is None:
            return None
        if fault.kind is FaultKind.AUTH and credential.can_refresh:
            renewed = await x.refreshed(account, credential)
            if renewed is None:
                return fault
            credential = renewed
        elif fault.kind is FaultKind.ENCRYPTED_CONTENT and stripped is None:
            stripped = _stripped(frame)
            if stripped is None:
                return fault
        elif fault.code != _LIVED_TOO_LONG:
            return fault
        self._drop_link()
        if continued:
            raise ContinuationLostError
        return await self._try(x, account, credential, stripped or frame)

    async def _try(self, x: Exchange, account: str, credential: Credential, frame: str | bytes) -> Fault | None:
        kept = self._tied_to(account)
        if not kept:
            fault = await self._tie(x, account, credential)
            if fault is not None:
                return fault
        assert self._link is not None
        turn = Turn(x, self._link, self._write, account, credential)
        try:
            fault = await turn.run(frame)
        except LinkClosedError as closed:
            if closed.code == _TOO_BIG:
                await x.record(Outcome.REQUEST_FAULT, 413, "a frame was too large for the provider or the pool")
                self._mirror(closed)
                return None
            fault = self._dialler.fault_of(x, account, closed)
            if fault.kind in CLIENT_FAULTS:
                x.failed(account, credential, fault)
                await x.record(Outcome.REQUEST_FAULT, fault.status, fault.message)
                await self._write(turn.error_frame(closed, fault))
                return None
            if kept and self._link.lasting and turn.stale:
                fault = Fault(FaultKind.NETWORK, code=_LIVED_TOO_LONG, message=fault.message)
        if fault is not None and turn.committed:
            await self._break_off(x, account, credential, fault)
            return None
        return fault

    async def _break_off(self, x: Exchange, account: str, credential: Credential, fault: Fault) -> None:
        """The account failed when the client had seen some of its answer. Told the error, the CLI would give up; on
        a mere 1012 it sends the turn again without a word to its user, and another account serves it."""
        x.failed(account, credential, fault)
        await x.record(Outcome.CUT, fault.status or 200, fault.message, partial=True)
        self._drop_link()
        self.close(_RESTARTING, "the provider broke off; send the turn again")

    async def _resend(self, x: Exchange) -> None:
        """Makes the client send the conversation in full, on a new socket and to whichever account is best."""
        message = "This conversation must be sent again in full."
        error = ClientError(ErrorKind.CONTINUATION, message, 400, code="previous_response_not_found")
        await x.record(Outcome.UPSTREAM if x.attempts else Outcome.REQUEST_FAULT, 400, message)
        self._drop_link()
        await self._say(error)
        self.close(_RESTARTING, "send the conversation again in full")

    # -- small things

    def _exchange(self, request_id: str) -> Exchange:
        assert self._route is not None
        assert self.principal is not None
        upcall = ClientCall(
            operation=self._route.operation,
            dialect=self._route.dialect,
            method="GET",
            path=self._route.path,
            query=query_without_key(self.request.query),
            headers=upward(self.request.headers.get_all()),
            websocket=True,
        )
        return Exchange(self._gateway.rooms, self._route, self.principal, upcall, request_id)

    async def _write(self, frame: str | bytes) -> None:
        connection = self.ws_connection
        if connection is None or connection.is_closing():
            raise WebSocketClosedError
        assert isinstance(connection, RelayProtocol)
        sent = connection.send_frame(frame)
        if not sent.done():
            await sent

    async def _say(self, error: ClientError) -> None:
        try:
            await self._write(dialects.ws_error(error, now=time.time()))
        except (WebSocketClosedError, StreamClosedError):
            pass

    def _tied_to(self, account: str) -> bool:
        return self._link is not None and self._link.account == account

    def _drop_link(self, code: int = 1000, reason: str = "") -> None:
        """Lets go of the upstream; nobody waits until it has answered the close."""
        link, self._link = self._link, None
        if link is not None:
            self._gateway.in_background(link.close(code, reason))

    def _mirror(self, closed: LinkClosedError) -> None:
        """The upstream hung up between turns: the client gets the same code, so that it reconnects."""
        self._drop_link()
        self.close(_RESTARTING if closed.code in _SILENT_CODES else closed.code, closed.reason)

    def _watch_idle(self) -> None:
        """Between turns somebody must listen, or an upstream that hung up would go unnoticed."""
        if self._link is not None and self._idle is None and self.ws_connection is not None:
            self._idle = asyncio.get_running_loop().create_task(self._listen(self._link))

    async def _listen(self, link: Link) -> None:
        try:
            while True:
                await self._write(await link.receive())
        except LinkClosedError as closed:
            self._idle = None
            self._mirror(closed)
        except (WebSocketClosedError, StreamClosedError):
            self._idle = None

    async def _stop_idle(self) -> None:
        task, self._idle = self._idle, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})


def _bad(message: str) -> ClientError:
    return ClientError(ErrorKind.BAD_REQUEST, message, 400)


_OUTCOMES = {
    ErrorKind.BAD_REQUEST: Outcome.REQUEST_FAULT,
    ErrorKind.EXHAUSTED: Outcome.EXHAUSTED,
    ErrorKind.NO_ACCOUNT: Outcome.NO_ACCOUNT,
    ErrorKind.NOT_FOUND: Outcome.NO_ACCOUNT,
    ErrorKind.UNREACHABLE: Outcome.UPSTREAM,
}


def _kind(message: str | bytes) -> str:
    """The frame's type, "" when it has none."""
    try:
        return msgspec.json.decode(message, type=_Frame).type
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""


def _stripped(frame: str | bytes) -> str | bytes | None:
    """The frame without what only another account's backend can read, None when there is nothing of it."""
    if isinstance(frame, bytes):
        return dialects.strip_encrypted(frame)
    stripped = dialects.strip_encrypted(frame.encode())
    return None if stripped is None else stripped.decode()


def socket_application(gateway: Gateway) -> Application:
    """The Tornado application behind the data plane's socket paths."""
    return Application(
        [(r".*", CodexSocket, {"gateway": gateway})],
        websocket_max_message_size=FRAME_CAP,
        websocket_ping_interval=_PING_S,
        log_function=_quiet,
    )


def _quiet(handler: Any) -> None:
    """Sockets are counted and recorded as exchanges; Tornado's access log would only double that."""
