"""The Responses WebSocket: one client socket tied to one account's link, one exchange a turn.

Each turn is admitted, chosen, metered and recorded like an HTTP exchange. A fresh turn may move to another account
until something of its answer was shown; a turn that continues a response cannot: then the client is told to send
everything again, which it does on a new socket.
"""

from __future__ import annotations

import asyncio
import time

from pool_server import dialects
from pool_server.core.budget import BudgetFullError
from pool_server.core.enums import ErrorKind, Outcome, Transport
from pool_server.core.models import ClientError, Fault
from pool_server.gateway import final_error
from pool_server.gateway.exchange import Exchange
from pool_server.gateway.pipeline import Pipeline
from pool_server.gateway.service import DataPlane
from pool_server.gateway.services import new_request_id
from pool_server.gateway.websocket.dialling import Dialler
from pool_server.gateway.websocket.frames import BadFrameError, FrameKind, judge
from pool_server.gateway.websocket.links import Link, LinkClosedError
from pool_server.gateway.websocket.relay import GOING_AWAY, POLICY, RelaySocket, sendable
from pool_server.gateway.websocket.transport import RESTARTING, TurnTransport
from pool_server.http1 import ClientDisconnectedError
from pool_server.providers import Credential, Shield
from pool_server.transcripts import ExchangeCapture

_INVALID = 1007
_LARGE = 64 << 10  # bytes; what is shorter is not counted
_LOOKED_AT_ONCE = 1 << 20  # bytes of a frame that are looked into before the user's limits are asked


class CodexSocket(RelaySocket):
    """A client's socket. `busy` while a turn is under way."""

    def initialize(self, gateway: DataPlane) -> None:
        super().initialize(gateway)
        self._turn: asyncio.Task[None] | None = None
        self._idle: asyncio.Task[None] | None = None
        self._pipeline: Pipeline | None = None  # of the turn under way
        self._begun = False
        self._model = ""  # of the last turn: an append names none
        self._dialler = Dialler(gateway.services, gateway.http_only)

    @property
    def busy(self) -> bool:
        return self._turn is not None

    # -- the handshake

    async def _greet(self, x: Exchange) -> ClientError | None:
        x.look(self._sent, b"{}", x.principal.key or x.principal.user)
        refused = self._no_seat(x) or x.force_refused() or await self._first_link(x)
        if refused is None and self.link is not None and not self._left:
            assert self._shield is not None
            self._show_handshake(self.link.handshake, self._shield)
        return refused

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
            stopped = self._gateway.services.users.admission.stopped(self.principal)
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
        if self._capture is not None:
            self._capture.up(message)
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
        if sendable(code):
            self.drop_link(code, self.close_reason or "")
        else:
            self.drop_link(GOING_AWAY)

    def stop(self, outcome: Outcome, error: ClientError) -> None:
        """Ends the socket now: 1008 for a revoked key, 1012 for a restart."""
        if self._pipeline is not None:
            self._pipeline.stop(outcome, error)
        if self._turn is not None:
            self._turn.cancel()
        self.close(POLICY if outcome is Outcome.REVOKED else RESTARTING, error.message)

    # -- one turn

    async def _run(self, frame: str | bytes, kind: FrameKind) -> None:
        x = self._exchange(new_request_id(time.time()))
        x.transport = Transport.WEBSOCKET
        x.request_bytes = len(frame)
        refused = self._look(x, frame, kind)
        self._capture = self._begin_capture(x, frame)
        continued = kind is FrameKind.APPEND or x.peek.previous_response_id is not None
        self._pipeline = Pipeline(x, TurnTransport(self, x, frame, continued=continued))
        try:
            await self._pipeline.run(refused)
        finally:
            x.services.captured(x, self._capture)
            self._capture = None
            self._begun = self._begun or bool(x.attempts)  # a turn that was let in
            self._pipeline = None
            self._turn = None
            assert self._held is not None
            self._held.resize(0)
            self._watch_idle()

    def _begin_capture(self, x: Exchange, frame: str | bytes) -> ExchangeCapture | None:
        capture = x.services.capture(x, "GET", list(self.request.headers.get_all()))
        if capture is not None:
            capture.named(x.agent, x.peek.session or "", x.continuity.session_hash(x.peek.session))
            capture.up(frame)
        return capture

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
