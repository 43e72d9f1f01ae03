"""The state of the data plane: what is live, who may call, drain and shutdown. The transports work on it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import math
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pool_server.accounts import Accounts
from pool_server.core.budget import ByteBudget
from pool_server.core.enums import Denial, ErrorKind, ObjectKind, Outcome, Provider
from pool_server.core.loopback import local_refusal
from pool_server.core.models import ClientError
from pool_server.core.settings import Settings
from pool_server.core.tasks import PeriodicTasks
from pool_server.gateway import final_error, metrics
from pool_server.gateway.answer import Transformer
from pool_server.gateway.attempts.openings import Openings
from pool_server.gateway.emulation.answers import LocalAnswers
from pool_server.gateway.emulation.quota_headers import FriendView
from pool_server.gateway.emulation.quota_windows import HeadroomGauge
from pool_server.gateway.exchange import Exchange
from pool_server.gateway.http.body import Spool
from pool_server.gateway.http.decoding import BodyDecoder
from pool_server.gateway.http.headers import navigates
from pool_server.gateway.http.stream_usage import UsageQuestion
from pool_server.gateway.objects import ListCalls, ObjectAccess, Owners, OwnersPort, uploads
from pool_server.gateway.routes import Route
from pool_server.gateway.services import Services
from pool_server.gateway.upstream import Upstream
from pool_server.gateway.websocket.held_conversations import HeldConversations
from pool_server.gateway.websocket.links import FRAME_CAP
from pool_server.gateway.websocket.live import LiveCalls
from pool_server.http1 import ClientDisconnectedError, Request
from pool_server.ledger import Ledger
from pool_server.providers import Credential
from pool_server.storage import StoreError
from pool_server.telemetry.service import Telemetry
from pool_server.transcripts import Transcripts
from pool_server.users import Denied, Principal, Users
from pool_server.users.identity.passwords import same
from pool_server.users.limits.turns import Turns

if TYPE_CHECKING:
    from tornado.httputil import HTTPServerRequest

SWEEP_S = 60.0  # between two looks for objects whose time is over
ON_ITS_WAY_S = 1.0  # how long a drain takes requests of connections that were made before it
_BURST_BYTES = 32 << 20
_BURST_EXCHANGES = 64
TICK_S = 2.5  # how often keep-alives and silence limits of the live exchanges are looked at


class LiveExchange(Protocol):
    """What the data plane does with a client's exchange or socket while it lasts."""

    @property
    def principal(self) -> Principal | None: ...

    def tick(self, now: float) -> None: ...

    def stop(self, outcome: Outcome, error: ClientError) -> None: ...


class LiveSocket(LiveExchange, Protocol):
    """A WebSocket; `busy` while a turn is under way on it."""

    @property
    def busy(self) -> bool: ...


class DataPlane:
    """What all exchanges share: budgets, who is live, the caller's admission, drain and shutdown."""

    def __init__(
        self,
        settings: Settings,
        *,
        accounts: Accounts,
        users: Users,
        ledger: Ledger,
        upstream: Upstream,
        transcripts: Transcripts | None = None,
        telemetry: Telemetry | None = None,
        owners: OwnersPort | None = None,
    ) -> None:
        view = FriendView(accounts, users)
        self.held = HeldConversations(settings.codex.hold_conversations_mb << 20)
        gauge = HeadroomGauge(accounts)
        self.owners: OwnersPort = owners or Owners(ledger.store)
        access = ObjectAccess(self.owners, holds=self._holds, owned_by=self._owned_by)
        openings = Openings(accounts)
        accounts.hosts.told = lambda provider, event: metrics.passive_health.labels(provider, event).inc()
        self.sockets: set[LiveSocket] = set()
        calls = LiveCalls(self.sockets, self.in_background)
        self.services = Services(
            settings, accounts, users, ledger, upstream, gauge, view, self._transformer, access, openings, calls.joined,
            transcripts=transcripts, telemetry=telemetry,
        )  # fmt: skip
        self.lists = ListCalls(settings, accounts=accounts, send=upstream.send, access=access)
        self.local = LocalAnswers(settings, accounts=accounts, users=users, ledger=ledger, send=upstream.send)
        self.decoder = BodyDecoder()
        self.turns = Turns()
        self.spool = Spool(Path(settings.data_dir), **_spool_caps(settings))
        self.frames = ByteBudget(*_frame_caps(settings))
        self.seats: Counter[str] = Counter()  # user → sockets, from the handshake on
        self._busiest = (0, 0)  # bytes of bodies in memory and exchanges, at most, since memory was given back
        self.live: set[LiveExchange] = set()
        self.http_only: dict[str, float] = {}
        self._background: set[asyncio.Task[None]] = set()
        self.draining = False
        self._drained_by = math.inf  # of the loop's clock
        self._tasks = PeriodicTasks()
        self._tasks.every(TICK_S, self._tick, "the tick of exchanges")
        self._tasks.every(SWEEP_S, self._sweep, "sweeping the owners of objects")
        metrics.live.set_function(lambda: self._working)
        metrics.body_bytes.labels("memory").set_function(lambda: self.spool.held)
        metrics.body_bytes.labels("file").set_function(lambda: self.spool.files.used)
        metrics.frame_bytes.set_function(lambda: self.frames.used)
        metrics.sockets.set_function(lambda: len(self.sockets))
        users.on_end.append(self._ended)

    def _transformer(self, x: Exchange, credential: Credential) -> Transformer | None:
        """What changes one attempt's request and answer; nearly always nothing does."""
        if x.wants_usage():
            return UsageQuestion()
        return self.held.transformer(x, credential)

    def door(
        self, request: Request | HTTPServerRequest, route: Route, shown: Sequence[str]
    ) -> Principal | ClientError | None:
        """Who calls: a principal, None for the few calls open to all, or the error that turns them away. `shown` are
        the credentials that the request presents."""
        if self.draining:
            return ClientError(ErrorKind.DRAINING, "The pool is restarting; try again in a moment.", 503)
        if navigates(request.headers):
            message = "This address is for API clients; open the pool's own pages in a browser."
            return ClientError(ErrorKind.FORBIDDEN, message, 403, code="not_a_page")
        users = self.services.users
        if not self.services.settings.friends_mode:
            refusal = local_refusal(request.remote_ip or "", request.headers)
            if refusal is not None:
                metrics.caller_refused(Denial.NOT_LOCAL.value).inc()
                message = f"{refusal[0].upper()}{refusal[1:]}."
                return ClientError(ErrorKind.FORBIDDEN, message, 403, code=Denial.NOT_LOCAL.value)
            if not self.services.settings.local_token:
                return users.local_principal()
        if not route.model_call and self.local.open_to_all(request.method or "", route.path):
            return None
        if not self.services.settings.friends_mode:
            return self._local_caller(shown)
        answer: Principal | Denied | None = None
        for token in shown:
            answer = users.authenticate(token)
            if isinstance(answer, Principal):
                return answer
        if answer is None:
            answer = self._uploader(request, route) or users.authenticate(None)
            if isinstance(answer, Principal):
                return answer
        assert isinstance(answer, Denied)
        metrics.caller_refused(answer.denial.value).inc()
        return final_error.denied(answer)

    def unheard(self, answer: Principal | ClientError | None, request: Request | HTTPServerRequest) -> bool:
        """Whether somebody is turned away who may have been let in on another machine."""
        if not isinstance(answer, ClientError):
            return False
        revoked = answer.code == Denial.REVOKED_KEY.value and self.services.users.follower.elsewhere
        return revoked or bool(self.owners.elsewhere and uploads.ticket_in(request.query))

    async def door_again(
        self, request: Request | HTTPServerRequest, route: Route, shown: Sequence[str]
    ) -> Principal | ClientError | None:
        """`door`, after what other machines have decided was heard."""
        await self.services.users.follower.look()
        if ticket := uploads.ticket_in(request.query) if self.owners.elsewhere else "":
            await self.owners.fetch(route.family, [(ObjectKind.UPLOAD, ticket)])
        return self.door(request, route, shown)

    def _local_caller(self, shown: Sequence[str]) -> Principal | ClientError:
        """Whoever shows the token of local mode, of all who may use this machine."""
        token = self.services.settings.local_token
        if any(same(one, token) for one in shown):
            return self.services.users.local_principal()
        metrics.caller_refused(Denial.BAD_KEY.value).inc()
        message = "This pool asks for its local_token as the API key; the set-up lines on its page carry it."
        return ClientError(ErrorKind.AUTH, message, 401, code=Denial.BAD_KEY.value)

    def start(self) -> None:
        """Begins to look after what is live; needs a running event loop."""
        self._tasks.start()

    def _uploader(self, request: Request | HTTPServerRequest, route: Route) -> Principal | Denied | None:
        """Who started the upload that goes on here without a key; None when it is none."""
        ticket = uploads.ticket_in(request.query) if route.path.startswith("/upload/") else ""
        if not ticket:
            return None
        try:
            found = self.owners.everybodys(route.family, (ObjectKind.UPLOAD, ticket))
        except StoreError:
            return None
        return self.services.users.resume(found[0].user, found[0].key) if found else None

    def _holds(self, principal: Principal, account: str) -> bool:
        """Is the account the caller's, or open to them as every account is?"""
        try:
            owner = self.services.accounts.owner(account)
        except KeyError:
            owner = ""
        return self.services.users.may_force(principal, owner)

    def _owned_by(self, principal: Principal, providers: Iterable[Provider]) -> Iterator[str]:
        for account, owner in self.services.accounts.owned(tuple(providers)):
            if self.services.users.may_force(principal, owner):
                yield account

    async def _sweep(self) -> None:
        with suppress(StoreError):  # told by the store; the next round finds them again
            await self.owners.sweep()

    def _tick(self) -> None:
        now = asyncio.get_running_loop().time()
        self.services.accounts.held.look()
        for exchange in self._all():
            with suppress(ClientDisconnectedError):  # its own task learns of it too
                exchange.tick(now)
        self._give_memory_back()
        self.turns.about.clear()

    def _give_memory_back(self) -> None:
        """After a burst, when most of it is over."""
        held, live = max(self.spool.held, self._busiest[0]), max(len(self.live), self._busiest[1])
        burst = held > _BURST_BYTES or live > _BURST_EXCHANGES
        self._busiest = (held, live)
        if burst and self.spool.held <= held // 4 and len(self.live) <= live // 4:
            self._busiest = (self.spool.held, len(self.live))
            self.in_background(_trim())

    def apply(self, settings: Settings) -> None:
        """New settings for exchanges that begin from now on."""
        self.services.settings = self.lists.settings = settings
        self.local.apply(settings)
        spool = _spool_caps(settings)
        self.spool.memory = spool["memory"]
        self.spool.files.total, self.spool.files.per_owner = spool["total"], spool["per_user"]
        self.frames.total, self.frames.per_owner = _frame_caps(settings)

    def hurry(self, seconds: float) -> None:
        """A drain, now or later, waits for live exchanges no longer than so many seconds from now."""
        self._drained_by = min(self._drained_by, asyncio.get_running_loop().time() + seconds)

    async def serve_out(self, over: Callable[[], bool], *, poll: Callable[[float], Any] = asyncio.sleep) -> None:
        """Another process takes what is new: serve who is here until `over` says so and nothing is under way. Each
        WebSocket ends between two turns; its client opens another one, over there."""
        error = ClientError(ErrorKind.DRAINING, "The pool is restarting; try again in a moment.", 503)
        loop = asyncio.get_running_loop()
        while loop.time() < self._drained_by:
            for socket in [socket for socket in self.sockets if not socket.busy]:
                socket.stop(Outcome.CUT, error)
            if not self._working and over():
                return
            await poll(0.05)

    async def drain(
        self, seconds: float, *, quiet: Callable[[], bool] | None = None, poll: Callable[[float], Any] = asyncio.sleep
    ) -> None:
        """Waits up to `seconds` for the live exchanges, then ends the rest honestly. Takes no new one, but where
        `quiet` tells whether nothing has come on any connection just now: until then it takes what was on its way when
        the sockets closed, for `ON_ITS_WAY_S` at most."""
        loop = asyncio.get_running_loop()
        self.hurry(seconds)
        late = loop.time() + ON_ITS_WAY_S
        error = ClientError(ErrorKind.DRAINING, "The pool is restarting; try again in a moment.", 503)
        while True:
            self.draining = quiet is None or loop.time() >= late
            for socket in [socket for socket in self.sockets if not socket.busy]:
                socket.stop(Outcome.CUT, error)
            over = not self._working and (self.draining or quiet is None or quiet())
            if over or loop.time() >= self._drained_by:
                break
            await poll(0.05)
        self.draining = True
        for exchange in self._all():
            exchange.stop(Outcome.CUT, error)
        grace = loop.time() + 2.0
        while self._working and loop.time() < grace:
            await poll(0.02)

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs what no client waits for; it may fail."""

        async def quietly() -> None:
            with contextlib.suppress(Exception):
                await work

        task = asyncio.get_running_loop().create_task(quietly())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _all(self) -> list[LiveExchange]:
        return [*self.live, *self.sockets]

    @property
    def _working(self) -> int:
        return len(self.live) + sum(socket.busy for socket in self.sockets)

    async def close(self) -> None:
        await self._tasks.close()
        self.decoder.close()
        await self.services.openings.close()
        await self.services.upstream.close()

    def _ended(self, user: str | None, key: str | None) -> None:
        """A user was disabled or a key revoked: their exchanges end now."""
        error = ClientError(ErrorKind.AUTH, "This key was revoked.", 401, code=Denial.REVOKED_KEY.value)
        for exchange in self._all():
            who = exchange.principal
            if who is not None and (who.user == user or (key and who.key == key)):
                exchange.stop(Outcome.REVOKED, error)


def _spool_caps(settings: Settings) -> dict[str, int]:
    """Bytes, by the names of `Spool`. The largest body that is taken fits, whatever the budgets say."""
    budgets, least = settings.budgets, settings.max_body_mb
    return {
        "memory": budgets.body_memory_mb << 20,
        "total": max(budgets.spool_mb, least) << 20,
        "per_user": max(budgets.spool_user_mb, least) << 20,
    }


def _frame_caps(settings: Settings) -> tuple[int, int]:
    """Bytes of WebSocket messages in all, and of one user's: at least the largest that is taken."""
    total = settings.budgets.frames_mb << 20
    return total, max(total // 2, FRAME_CAP)


async def _trim() -> None:
    await asyncio.to_thread(give_memory_back)


def give_memory_back() -> bool:
    """What the C library keeps after a burst goes back to the system. Returns whether anything was given back; False
    where the library knows no such call (musl, macOS). Takes up to tens of milliseconds and lets other threads run."""
    found = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return bool(found(0)) if found is not None else False
