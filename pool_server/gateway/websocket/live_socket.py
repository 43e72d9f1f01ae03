"""A client's live socket, tied to one account's for its whole life. Its messages pass as they come, both ways; what a
client may not name does not go up."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any
from urllib.parse import parse_qs

import msgspec

from pool_server import dialects
from pool_server.core.enums import ApiFamily, Dialect, ErrorKind, ObjectKind, Outcome
from pool_server.core.models import ClientError, Fault
from pool_server.dialects import SPECS
from pool_server.dialects.live import BadMessageError, LiveReader, live_reader
from pool_server.gateway import final_error
from pool_server.gateway.exchange import Exchange
from pool_server.gateway.pipeline import Pipeline
from pool_server.gateway.recording import record
from pool_server.gateway.service import DataPlane
from pool_server.gateway.services import new_request_id
from pool_server.gateway.websocket.dialling import dial_live, welcomed
from pool_server.gateway.websocket.links import LinkClosedError, SocketLink
from pool_server.gateway.websocket.live import LiveTurns
from pool_server.gateway.websocket.relay import GOING_AWAY, POLICY, RelaySocket, sendable
from pool_server.gateway.websocket.transport import RESTARTING, TurnTransport
from pool_server.http1 import ClientDisconnectedError
from pool_server.providers import Credential, Shield

log = logging.getLogger("pool_server.gateway")

_INVALID = 1007
_INTERNAL = 1011
_FAILED = "The pool failed to serve this conversation."
_SUBPROTOCOL = "realtime"
_SESSION = "live_session"  # what a Gemini conversation is resumed with, at the account that gave it


class RealtimeSocket(RelaySocket):
    """`busy` while a turn is under way."""

    def initialize(self, gateway: DataPlane) -> None:
        super().initialize(gateway)
        self._reader: LiveReader
        self._turns: LiveTurns | None = None  # None while there is no link, or something else counts
        self._x: Exchange | None = None  # what the link was made with
        self._joins = False  # a call that is counted already
        self._first: list[str | bytes] = []  # what the provider said before the client was accepted
        self._listening: asyncio.Task[None] | None = None
        self._ending: tuple[Outcome, str] = (Outcome.CLIENT_GONE, "")

    @property
    def busy(self) -> bool:
        return self._turns is not None and self._turns.under_way

    # -- the handshake

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        return _SUBPROTOCOL if _SUBPROTOCOL in subprotocols else None

    async def _greet(self, x: Exchange) -> ClientError | None:
        assert self._route is not None
        self._reader = live_reader(self._route.dialect)
        calls = parse_qs(x.client_call.query).get("call_id", ())
        if calls:
            ids = tuple((ObjectKind.CALL, call) for call in calls)
            self._route = msgspec.structs.replace(self._route, ids=ids, works=False)
            self._joins = True
            x = self._exchange(x.id)
        try:
            x.look(self._sent, b"", x.principal.key or x.principal.user)
        except dialects.BadBodyError as error:
            return ClientError(ErrorKind.BAD_REQUEST, str(error), 400)
        refused = self._no_seat(x) or x.force_refused()
        if refused is not None or self._by_setup:
            return refused
        return await self._connect(x)

    @property
    def _by_setup(self) -> bool:
        """Whether the first message, and not the address, says what is wanted."""
        assert self._route is not None
        return SPECS[self._route.dialect].family is ApiFamily.GOOGLE

    async def _connect(self, x: Exchange, setup: str | bytes = b"") -> ClientError | None:
        """Ties the socket to an account; the error when none serves."""
        if x.services.access.owners.elsewhere:
            await x.objects.look_up(x.peek)
        error = x.claim() or await x.reserve()
        if x.reservation is not None:  # each turn has its own
            x.services.users.admission.release(x.reservation)
            x.reservation = None
        if error is None:

            async def tie(account: str, credential: Credential) -> Fault | None:
                return await self.tie(x, account, credential, setup)

            error = await Pipeline(x, TurnTransport(self, x)).connect(tie)
        if error is not None:
            outcome = final_error.outcome_of(error, attempted=bool(x.attempts))
            await record(x, outcome, error.status, error.message)
        return error

    async def tie(self, x: Exchange, account: str, credential: Credential, setup: str | bytes = b"") -> Fault | None:
        self.drop_link()
        link = await dial_live(x, account, credential, x.client_call)
        if isinstance(link, Fault):
            return link
        if setup:
            try:
                await link.send(setup)
            except LinkClosedError:
                pass  # what it was closed with is the first thing that is heard
        if not self._joins:
            first = await welcomed(x, link, credential)
            if isinstance(first, Fault):
                return first
            self._first = [first]
        self.link, self._shield, self._x = link, Shield(credential), x
        return None

    # -- the conversation

    def open(self, *args: str, **kwargs: str) -> None:
        self._gateway.sockets.add(self)
        self.set_nodelay(True)
        if self.link is not None:
            self._begin()

    def _begin(self, setup: str | bytes = b"") -> None:
        assert isinstance(self.link, SocketLink)
        assert self._x is not None
        self._keep(self._x, setup)
        if not self._joins:
            self._turns = LiveTurns(self._x, self.link.account, self._reader, self._x.upstream_url)
        self._listening = asyncio.get_running_loop().create_task(self._listen(self.link))

    def _keep(self, x: Exchange, setup: str | bytes) -> None:
        """Begins the transcript of the conversation, one for all its turns, where its person keeps them."""
        self._capture = x.services.capture(x, "GET", list(self.request.headers.get_all()))
        if self._capture is not None:
            self._capture.named(x.agent, x.peek.session or "", x.continuity.session_hash(x.peek.session))
            if setup:
                self._capture.up(setup)

    async def _listen(self, link: SocketLink) -> None:
        """What the provider says goes down, once it is counted."""
        try:
            while self._first:
                await self._pass_down(self._first.pop(0))
            while True:
                await self._pass_down(await link.receive())
        except LinkClosedError as closed:
            self._ending = (Outcome.CUT, closed.reason or "the provider closed the connection")
            self.mirror(closed)
        except ClientDisconnectedError:
            pass
        except Exception:
            log.exception("a live conversation failed inside the pool")
            self._ending = (Outcome.UPSTREAM, _FAILED)
            self.close(_INTERNAL, _FAILED)

    async def _pass_down(self, message: str | bytes) -> None:
        assert self._shield is not None
        if self._turns is not None:
            error = await self._turns.heed(message)
            if error is not None:
                await self._end_with(error)
                raise ClientDisconnectedError
            if self._by_setup and self._reader.handle and self.link is not None:
                self._own(self._reader.handle, self.link.account)
        shown = self._shield.text(message) if isinstance(message, str) else self._shield.whole(message)
        behind = self.send_frame(shown)
        if behind is not None:
            await behind

    def _own(self, handle: str, account: str) -> None:
        """Remembers which account can go on with the conversation."""
        assert self._x is not None
        self._x.continuity.own(account, _SESSION, handle)
        self._reader.handle = ""

    async def on_message(self, message: str | bytes) -> None:
        try:
            await self._take(message)
        finally:
            self._arrived()

    async def _take(self, message: str | bytes) -> None:
        try:
            data, models = self._reader.asks(message)
            named = tuple(dialects.references(self._dialect, data))
        except (BadMessageError, dialects.BadBodyError) as wrong:
            await self._end_with(ClientError(ErrorKind.BAD_REQUEST, f"{str(wrong).capitalize()}.", 400), _INVALID)
            return
        if self.link is None and self._by_setup and self._listening is None:
            await self._set_up(message, named)
            return
        refused = await self._refused(models, named)
        if refused is not None:
            await (self._end_with(refused) if self._by_setup else self.say(refused))
            return
        if self._turns is not None:
            self._turns.asked(len(data))
        if self._capture is not None:
            self._capture.up(message)
        if isinstance(self.link, SocketLink):
            try:
                await self.link.pass_on(message)
            except LinkClosedError:
                pass  # whoever listens hears of it

    async def _set_up(self, message: str | bytes, named: tuple[Any, ...]) -> None:
        """The first message of a Gemini client says what it wants, and so which accounts can serve it."""
        x = self._exchange(new_request_id(time.time()))
        x.look(self._sent, b"", x.principal.key or x.principal.user)
        x.want(self._reader.model)
        x.peek.objects = named
        x.request_bytes = len(message)
        handle, self._reader.handle = self._reader.handle, ""
        if handle:
            x.peek.hard = ((_SESSION, handle),)
            await x.continuity.recalled(x.peek, x.providers)
        error = x.force_refused() or self._not_resumed(x, handle) or await self._connect(x, message)
        if error is not None:
            await self._end_with(error)
        elif self._left:
            self.drop_link(GOING_AWAY)
        else:
            self._begin(message)

    @staticmethod
    def _not_resumed(x: Exchange, handle: str) -> ClientError | None:
        """The error where the conversation to go on with is not the caller's, or is over."""
        user = x.principal.user
        if not handle or x.forced is not None or x.services.accounts.owner_of(user, _SESSION, handle) is not None:
            return None
        return ClientError(ErrorKind.NOT_FOUND, "There is no such conversation to resume; begin a new one.", 404)

    @property
    def _dialect(self) -> Dialect:
        assert self._route is not None
        return self._route.dialect

    async def _refused(self, models: set[str], named: tuple[Any, ...]) -> ClientError | None:
        """Why a message may not go up: it sets models to work, or names objects, that are not the caller's."""
        services, principal, link, x = self._gateway.services, self.principal, self.link, self._x
        if link is None or x is None or self._route is None or principal is None:
            return None
        error = x.objects.beside_refused(models, lambda: services.users.limits.of_caller(principal.user, principal.key))
        if error is not None or not named or x.forced is not None:
            return error
        if services.access.owners.elsewhere:
            await services.access.owners.fetch(self._route.family, named)
        return services.access.refused_at(principal, self._route.family, named, link.account)

    async def _end_with(self, error: ClientError, code: int = POLICY) -> None:
        """Tells the client why it is over, in a message where the API has one for that, and closes."""
        self._ending = (final_error.outcome_of(error, attempted=False), error.message)
        if not self._by_setup:
            await self.say(error)
        self.close(code, error.message)

    def error_frame(self, error: ClientError) -> str:
        return dialects.live_error(error, now=time.time(), event_id=f"event_{new_request_id(time.time())}")

    # -- endings

    def tick(self, now: float) -> None:
        """Between two turns: is the caller still let in?"""
        if self.connected and not self.busy and self._route is not None and self.principal is not None:
            admitted = self._gateway.door(self.request, self._route, self._keys())
            if isinstance(admitted, ClientError):
                draining = admitted.kind is ErrorKind.DRAINING
                self.stop(Outcome.CUT if draining else Outcome.REVOKED, admitted)

    def stop(self, outcome: Outcome, error: ClientError) -> None:
        self._ending = (outcome, error.message)
        self.close(POLICY if outcome is Outcome.REVOKED else RESTARTING, error.message)

    def on_close(self) -> None:
        self._left = True
        self._leave_seat()
        self._arrived()
        if self._listening is not None:
            self._listening.cancel()
        code = self.close_code or 0
        self.drop_link(code if sendable(code) else GOING_AWAY, self.close_reason or "")
        self._gateway.in_background(self._ended())

    async def _ended(self) -> None:
        try:
            if self._turns is not None:
                await self._turns.end(*self._ending)
        finally:
            if self._x is not None:
                self._x.services.captured(self._x, self._capture)
            self._gateway.sockets.discard(self)
