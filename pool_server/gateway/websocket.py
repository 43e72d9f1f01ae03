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
from tornado.web import Application
from tornado.websocket import WebSocketClosedError, WebSocketHandler, WebSocketProtocol, WebSocketProtocol13

from pool_server import dialects
from pool_server.gateway.closing import PatientProtocol
from pool_server.gateway.dialling import Dialler
from pool_server.gateway.exchange import Exchange, new_request_id
from pool_server.gateway.headers import downward, query_without_key, upward
from pool_server.gateway.links import FRAME_CAP, Link, LinkClosed
from pool_server.gateway.reply import REQUEST_ID
from pool_server.gateway.routes import Route, match
from pool_server.gateway.turn import Turn
from pool_server.records import ClientError, Fault, Upcall
from pool_server.users import Principal
from pool_server.words import ErrorKind, FaultKind, Outcome, Transport

if TYPE_CHECKING:
    from pool_server.gateway.gateway import Gateway

log = logging.getLogger("pool_server.gateway")

_PING_S = 30.0
_RESTARTING = 1012
_POLICY = 1008
_SILENT_CODES = frozenset({0, 1005, 1006, 1015})  # close codes that must not be sent
_UNSENT = ("upgrade", "connection", "sec-websocket-accept", "sec-websocket-extensions", "sec-websocket-protocol")


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
                link, fault = await self._dialler.dial(x, account, credential)
            finally:
                x.end(account)
            if link is not None:
                self._tie(x, link)
                return None
            assert fault is not None
            x.failed(account, credential, fault)
        return x.unserved()

    def _tie(self, x: Exchange, link: Link) -> None:
        self._link = link
        turn_state = link.handshake.get("x-codex-turn-state")
        if turn_state:
            x.own(link.account, "turn_state", turn_state)

    def check_origin(self, origin: str) -> bool:
        return True  # the key admits, never a cookie; local mode has judged the Origin at the door

    def get_compression_options(self) -> dict[str, Any]:
        return {}

    def get_websocket_protocol(self) -> WebSocketProtocol | None:
        protocol = super().get_websocket_protocol()
        if isinstance(protocol, WebSocketProtocol13):
            return PatientProtocol(self, False, protocol.params)
        return protocol

    def open(self, *args: str, **kwargs: str) -> None:
        self._gateway.sockets.add(self)
        self.set_nodelay(True)
        self._watch_idle()

    # -- frames from the client

    async def on_message(self, message: str | bytes) -> None:
        try:
            kind = msgspec.json.decode(message, type=_Frame).type
        except (msgspec.DecodeError, UnicodeDecodeError):
            kind = ""
        if kind == "response.create":
            if self._turn is not None:
                await self._say(_bad("a turn is under way on this socket; wait for its end"))
                return
            self._begun = True
            await self._stop_idle()
            self._turn = asyncio.get_running_loop().create_task(self._run(message))
        elif not self._begun:
            await self._say(_bad("the first frame must be a response.create"))
        elif self._link is not None:
            try:
                await self._link.send(message)
            except LinkClosed as closed:
                await self._mirror(closed)

    def on_close(self) -> None:
        self._gateway.sockets.discard(self)
        if self._turn is not None:
            self._turn.cancel()
        loop = asyncio.get_running_loop()
        loop.create_task(self._let_go()).add_done_callback(lambda task: task.exception())

    async def _let_go(self) -> None:
        await self._stop_idle()
        link, self._link = self._link, None
        if link is not None:
            await link.close(self.close_code if self.close_code in (1000, 1001) else 1001)

    def stop(self, outcome: Outcome, error: ClientError) -> None:
        """Ends the socket now: 1008 for a revoked key, 1012 for a restart."""
        self._stop = (outcome, error)
        if self._turn is not None:
            self._turn.cancel()
        self.close(_POLICY if outcome is Outcome.REVOKED else _RESTARTING, error.message[:100])

    # -- one turn

    async def _run(self, frame: str | bytes) -> None:
        x = self._exchange(new_request_id(time.time()))
        x.transport = Transport.WEBSOCKET
        x.request_bytes = len(frame)
        try:
            await self._serve(x, frame)
        except (asyncio.CancelledError, WebSocketClosedError, StreamClosedError):
            outcome, error = self._stop or (Outcome.CLIENT_GONE, None)
            await x.record(
                outcome, 499 if error is None else error.status, error.message if error else "", partial=True
            )
        except Exception:
            log.exception("turn %s failed inside the pool", x.id)
            self.close(1011, "the pool failed to serve this turn")
        finally:
            self._turn = None
            self._watch_idle()

    async def _serve(self, x: Exchange, frame: str | bytes) -> None:
        refused = self._look(x, frame) or x.force_refused() or await x.reserve()
        if refused is not None:
            await x.record(_denial(refused), refused.status, refused.message)
            await self._say(refused)
            return
        continued = x.peek.previous_response_id is not None
        if continued and (self._link is None or not self._link.remembers):
            await self._resend(x)
            return
        while (account := await x.next_account()) is not None:
            tied = self._link is not None and self._link.account == account
            if continued and not tied:
                await self._resend(x)
                return
            credential = x.begin(account)
            try:
                fault = await self._attempt(x, account, frame)
            finally:
                x.end(account)
            if fault is None:
                return
            x.failed(account, credential, fault, x.usage)
            await self._drop_link()
            if continued:
                await self._resend(x)
                return
        error = x.unserved()
        outcome = Outcome.EXHAUSTED if error.kind is ErrorKind.EXHAUSTED else Outcome.UPSTREAM
        await x.record(outcome, error.status, error.message)
        if error.kind is ErrorKind.CONTINUATION:
            await self._resend(x)
        else:
            await self._say(error)

    def _look(self, x: Exchange, frame: str | bytes) -> ClientError | None:
        try:
            data = frame.encode() if isinstance(frame, str) else frame
            x.look(self._sent, data, x.principal.key or x.principal.user)
        except dialects.BadBody as error:
            return _bad(str(error))
        if not x.peek.model:
            return _bad("missing model in response.create request")
        return None

    async def _attempt(self, x: Exchange, account: str, frame: str | bytes) -> Fault | None:
        """Runs the turn on one account; None when the client has its answer."""
        credential = x.rooms.accounts.credential(account)
        if self._link is None or self._link.account != account:
            await self._drop_link()
            link, fault = await self._dialler.dial(x, account, credential)
            if link is None:
                return fault
            self._tie(x, link)
        assert self._link is not None
        turn = Turn(x, self._link, self._write, account, credential)
        try:
            return await turn.run(frame)
        except LinkClosed as closed:
            if closed.code == 1009:
                await x.record(Outcome.REQUEST_FAULT, 413, "the provider refused a frame of this size")
                await self._mirror(closed)
                return None
            return await self._link_fault(x, account, closed, turn)

    async def _link_fault(self, x: Exchange, account: str, closed: LinkClosed, turn: Turn) -> Fault | None:
        """The link broke within the turn: another account's chance, unless the client saw something already."""
        fault = self._dialler.fault_of(x, account, closed)
        if fault.kind is FaultKind.REQUEST:
            x.failed(account, x.rooms.accounts.credential(account), fault)
            await x.record(Outcome.REQUEST_FAULT, fault.status, fault.message)
            await self._write(turn.error_frame(closed, fault))
            return None
        if not turn.committed:
            return fault
        x.failed(account, x.rooms.accounts.credential(account), fault)
        await x.record(Outcome.CUT, 200, fault.message, partial=True)
        await self._drop_link()
        self.close(_RESTARTING, "the provider broke off")
        return None

    async def _resend(self, x: Exchange) -> None:
        """Makes the client send the conversation in full, on a new socket and to whichever account is best."""
        message = "This conversation must be sent again in full."
        error = ClientError(ErrorKind.CONTINUATION, message, 400, code="previous_response_not_found")
        await x.record(Outcome.UPSTREAM if x.attempts else Outcome.REQUEST_FAULT, 400, message)
        await self._drop_link()
        await self._say(error)
        self.close(_RESTARTING, "send the conversation again in full")

    # -- small things

    def _exchange(self, request_id: str) -> Exchange:
        assert self._route is not None
        assert self.principal is not None
        upcall = Upcall(
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
        await self.write_message(frame, binary=isinstance(frame, bytes))

    async def _say(self, error: ClientError) -> None:
        try:
            await self._write(dialects.ws_error(error, now=time.time()))
        except (WebSocketClosedError, StreamClosedError):
            pass

    async def _drop_link(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def _mirror(self, closed: LinkClosed) -> None:
        """The upstream hung up between turns: the client gets the same code, so that it reconnects."""
        await self._drop_link()
        code = _RESTARTING if closed.code in _SILENT_CODES else closed.code
        self.close(code, closed.reason[:100])

    def _watch_idle(self) -> None:
        """Between turns somebody must listen, or an upstream that hung up would go unnoticed."""
        if self._link is not None and self._idle is None and self.ws_connection is not None:
            self._idle = asyncio.get_running_loop().create_task(self._listen(self._link))

    async def _listen(self, link: Link) -> None:
        try:
            while True:
                await self._write(await link.receive())
        except LinkClosed as closed:
            self._idle = None
            await self._mirror(closed)
        except (WebSocketClosedError, StreamClosedError):
            self._idle = None

    async def _stop_idle(self) -> None:
        task, self._idle = self._idle, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})


def _bad(message: str) -> ClientError:
    return ClientError(ErrorKind.BAD_REQUEST, message, 400)


def _denial(error: ClientError) -> Outcome:
    return Outcome.REQUEST_FAULT if error.kind is ErrorKind.BAD_REQUEST else Outcome.DENIED


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
