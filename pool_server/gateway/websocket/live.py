"""Live conversations: what their turns use, counted as exchanges, and the calls whose sound goes past the pool.

Nobody asks for most turns: the provider begins one when the speaker pauses. So a turn is let in when the provider says
that it began, and what the limits refuse ends the connection. A call's sound goes from the caller to the provider; what
it uses is told on a socket beside it, which the pool keeps open. A call that cannot be counted is hung up.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import quote, unquote

from pool_server.core.enums import Dialect, ErrorKind, FaultKind, ObjectKind, Operation, Outcome, Provider, Transport
from pool_server.core.models import ClientCall, ClientError, Fault, HttpRequest, Peek
from pool_server.dialects.live import LiveEvent, LiveReader, LiveStep, live_reader
from pool_server.gateway.exchange import Exchange
from pool_server.gateway.recording import begun, record
from pool_server.gateway.services import new_request_id
from pool_server.gateway.transports import UpstreamAnswer
from pool_server.gateway.websocket.dialling import dial_live
from pool_server.gateway.websocket.links import LinkClosedError, SocketLink
from pool_server.providers import network_fault, provider_module
from pool_server.users import Principal

log = logging.getLogger("pool_server.gateway")

_CALL = re.compile(r"(?:https?://[^/?#]+)?(?:/[^?#]*)?/realtime/calls/([^/?#]{1,200})/?(?:[?#].*)?")
_JOINED_AGAIN = 3  # times, where the socket breaks off and the call goes on
_PAUSE_S = 1.0
_MOST_OPEN = 64  # turns at a time; of one beyond, only the end counts


class LiveTurns:
    """`first` is the exchange the connection was made with, `url` the upstream's address."""

    def __init__(self, first: Exchange, account: str, reader: LiveReader, url: str) -> None:
        self.account = account
        self.reader = reader
        self._first = first
        self.url = url
        self._open: dict[str, Exchange] = {}
        self._sent = self._received = 0  # bytes since the last turn ended

    @property
    def under_way(self) -> bool:
        return bool(self._open)

    def asked(self, size: int) -> None:
        """The client has sent so many bytes."""
        self._sent += size

    async def heed(self, message: str | bytes) -> ClientError | None:
        """Counts what a provider's message tells, durably; the error when the user's limits end the connection."""
        self._received += len(message)
        for event in self.reader.tells(message):
            error = await self._heed(event)
            if error is not None:
                return error
        return None

    async def _heed(self, event: LiveEvent) -> ClientError | None:
        if event.told is LiveStep.BEGINS:
            known = event.turn in self._open or len(self._open) >= _MOST_OPEN
            return None if known else await self._begin(event.turn, self._model())
        if event.turn not in self._open or event.told is LiveStep.USED:
            error = await self._begin(event.turn, event.model or self._model())
            if error is not None:
                return error
        await self._end(self._open.pop(event.turn), event)
        return None

    def _model(self) -> str:
        return self._first.peek.model or self.reader.model

    async def _begin(self, turn: str, model: str) -> ClientError | None:
        x = self._another(model)
        refused = await x.reserve()
        if refused is None:
            try:
                await x.begin(self.account, bound=True)
            except KeyError:
                message = "The account of this conversation is no longer in the pool."
                refused = ClientError(ErrorKind.NO_ACCOUNT, message, 503)
        if refused is not None:
            await record(x, Outcome.DENIED, refused.status, refused.message)
            return refused
        x.upstream_url = self.url
        x.committed(self.account, 200)
        begun(x)
        self._open[turn] = x
        return None

    def _another(self, model: str) -> Exchange:
        first = self._first
        x = Exchange(first.services, first.route, first.principal, first.client_call, new_request_id(time.time()))
        x.transport = Transport.WEBSOCKET
        x.agent, x.project = first.agent, first.project
        x.peek = Peek(model=model)
        x.asked = model
        x.providers = (Provider(self.account.partition(":")[0]),)
        x.decision = first.decision
        return x

    async def _end(self, x: Exchange, event: LiveEvent) -> None:
        x.usage = event.usage
        x.answered_model = event.model or self.reader.model
        self._measure(x)
        x.succeeded(self.account, "")
        x.end(self.account)
        await record(x, Outcome.OK, 200)

    def _measure(self, x: Exchange) -> None:
        x.request_bytes, x.response_bytes = self._sent, self._received
        self._sent = self._received = 0

    async def end(self, outcome: Outcome, message: str = "") -> None:
        """The connection is over: what was under way is recorded as it stands."""
        while self._open:
            _, x = self._open.popitem()
            self._measure(x)
            x.end(self.account)
            await record(x, outcome, 200, message, partial=True)


class LiveCalls:
    """`sockets` are the live connections that a drain or the end of a key ends."""

    def __init__(self, sockets: set[Any], in_background: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._sockets = sockets
        self._in_background = in_background

    async def joined(self, x: Exchange, account: str, answer: UpstreamAnswer) -> Fault | None:
        """Counts a call that this answer begins, from now on; why it cannot be, when it was hung up."""
        call = ""
        if x.route.makes is ObjectKind.CALL:
            found = _CALL.fullmatch(answer.fields.get("location", ""))
            if found is None:
                return network_fault("the answer does not say which call it began")
            call = unquote(found[1])
            x.objects.located = [(ObjectKind.CALL, call)]
        elif x.route.path.endswith("/accept"):
            call = x.route.ids[0][1]
        if not call:
            return None
        monitor = CallMonitor(x, account, call, self._sockets)
        fault = await monitor.join()
        if fault is None:
            self._sockets.add(monitor)
            self._in_background(monitor.run())
        else:
            await monitor.hang_up()
        return fault


class CallMonitor:
    """One call, as long as it lasts."""

    def __init__(self, x: Exchange, account: str, call: str, sockets: set[Any]) -> None:
        self.principal: Principal = x.principal
        self._x = x
        self._account = account
        self._call = call
        self._sockets = sockets
        self._link: SocketLink | None = None
        self._turns = LiveTurns(x, account, live_reader(Dialect.CHAT), "")
        self._task: asyncio.Task[None] | None = None
        self._ending: tuple[Outcome, str] = (Outcome.OK, "")

    @property
    def busy(self) -> bool:
        return self._turns.under_way

    async def join(self) -> Fault | None:
        """Opens the socket beside the call."""
        url = self._x.upstream_url
        call = _own_call("GET", "/v1/realtime", f"call_id={quote(self._call, safe='')}")
        link = await dial_live(self._x, self._account, self._x.services.accounts.credential(self._account), call)
        self._x.upstream_url = url
        if isinstance(link, Fault):
            return link
        self._link = link
        self._turns.url = url
        return None

    async def run(self) -> None:
        self._task = asyncio.current_task()
        try:
            await self._listen()
        except asyncio.CancelledError:
            await self.hang_up()
        except Exception:
            log.exception("a call could not be counted any longer")
            await self.hang_up()
        finally:
            self._sockets.discard(self)
            if self._link is not None:
                await self._link.close()
            await self._turns.end(*self._ending)

    async def _listen(self) -> None:
        """Counts until the call is over. A socket that breaks off is opened again, since the call may go on."""
        for again in range(_JOINED_AGAIN + 1):
            assert self._link is not None
            try:
                while True:
                    error = await self._turns.heed(await self._link.receive())
                    if error is not None:
                        self._ending = (Outcome.DENIED, error.message)
                        await self.hang_up()
                        return
            except LinkClosedError:
                pass
            await asyncio.sleep(_PAUSE_S * again)
            fault = await self._rejoined()
            if fault is not None and fault.kind is not FaultKind.NETWORK:
                return  # there is no such call any more
            if fault is not None:
                break
        await self.hang_up()

    async def _rejoined(self) -> Fault | None:
        try:
            return await self.join()
        except KeyError:
            return network_fault("the account is gone")

    async def hang_up(self) -> None:
        accounts = self._x.services.accounts
        call = _own_call("POST", f"/v1/realtime/calls/{quote(self._call, safe='')}/hangup")
        try:
            credential = accounts.credential(self._account)
            prepared = provider_module(credential.provider).prepare(credential, call, self._x.services.settings)
            own = HttpRequest(prepared.method, prepared.url, tuple(prepared.headers))
            await self._x.services.upstream.send(accounts.bounded(self._account, own))
        except KeyError:
            return  # nobody is left who could

    def tick(self, now: float) -> None:
        """The socket sees to itself."""

    def stop(self, outcome: Outcome, error: ClientError) -> None:
        """The key has ended, or the server does: nobody would count what the call uses from now on."""
        self._ending = (outcome, error.message)
        if self._task is not None:
            self._task.cancel()


def _own_call(method: str, path: str, query: str = "") -> ClientCall:
    """A call of the pool's own about a call."""
    return ClientCall(Operation.REALTIME, Dialect.CHAT, method, path, query, websocket=method == "GET")
