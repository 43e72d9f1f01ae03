"""One exchange's life, whatever its transport: look, reserve, choose, try, learn, record.

HTTP answers and WebSocket turns both drive this; they differ only in how bytes travel.
"""

from __future__ import annotations

import hashlib
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from pool_server import dialects
from pool_server.accounts import Accounts, Decision, OnboardingError, RefreshError, SelectionRequest
from pool_server.core.enums import Dialect, ErrorKind, FaultKind, ObjectKind, Outcome, Provider, Transport
from pool_server.core.models import Attempt, ClientCall, ClientError, Fault, Peek, Usage, UsageRecord
from pool_server.core.settings import Settings
from pool_server.gateway import final_error, metrics
from pool_server.gateway.answer import Transformer
from pool_server.gateway.body import MEMORY_LIMIT
from pool_server.gateway.counting import REQUEST_OUTPUT, CallFacts, Counted, count, job_key
from pool_server.gateway.emulation.headroom import HeadroomGauge
from pool_server.gateway.emulation.quota_headers import FriendView
from pool_server.gateway.objects import ObjectAccess, Tracking
from pool_server.gateway.objects.continuity import Continuity, drop_turn_state
from pool_server.gateway.programs import program
from pool_server.gateway.routes import Route
from pool_server.gateway.upstream import Upstream
from pool_server.ledger import Ledger, PriceFacts, Quote
from pool_server.providers import Credential, provider_module, providers_for, redact
from pool_server.users import Denied, Principal, Reservation, Users

log = logging.getLogger("pool_server.gateway")

_OUTPUT_CAP = 16_000  # a maximum is a bound, not a plan: reserve no more than this
_BLAMELESS = frozenset({FaultKind.REQUEST, FaultKind.CONTINUATION, FaultKind.CLIENT_GONE})


@dataclass(slots=True)
class Services:
    """What the data plane works with; built once by the server."""

    settings: Settings
    accounts: Accounts
    users: Users
    ledger: Ledger
    upstream: Upstream
    gauge: HeadroomGauge
    view: FriendView
    transformer: Callable[[Exchange, Credential], Transformer | None]
    access: ObjectAccess
    stream_usage: dialects.StreamUsagePolicy = field(default_factory=dialects.StreamUsagePolicy)


def new_request_id(now: float) -> str:
    """A sortable id: 11 hex digits of milliseconds, then 13 random ones."""
    return f"{int(now * 1000):011x}{random.getrandbits(52):013x}"


class Exchange:
    """The facts and steps of one exchange. Times: `at` unix seconds, `started` monotonic seconds."""

    def __init__(
        self, rooms: Services, route: Route, principal: Principal, upcall: ClientCall, request_id: str
    ) -> None:
        self.rooms = rooms
        self.route = route
        self.principal = principal
        self.upcall = upcall
        self.id = request_id
        self.at = time.time()
        self.started = time.monotonic()
        self.peek = Peek()
        self.providers: tuple[Provider, ...] = ()
        self.decision: Decision | None = None
        self.account = ""
        self.attempts: list[Attempt] = []
        self.tried: set[str] = set()
        self.fault: Fault | None = None
        self.usage = Usage()
        self.transport = Transport.BUFFERED
        self.first_byte_ms: float | None = None
        self.request_bytes = 0
        self.response_bytes = 0
        self.answered_model = ""
        self.response_id = ""
        self.pending = False
        self.requests = 1  # of a new batch
        self.served = dialects.Served()
        self.upstream_url = ""
        self.usage_added = False  # the pool asked for a stream's usage, the client did not
        self.forced: str | None = None
        self.agent = ""
        self.project = ""
        self.continuity = Continuity(rooms.accounts, principal.user, route.dialect)
        self.resumed = False  # the pool holds the conversation that the request goes on with
        self.objects = Tracking(rooms.access, principal, route)
        self.recorded = False
        self._ask: SelectionRequest | None = None
        self._reservation: Reservation | None = None
        self._attempt_started = 0.0
        self._judged: set[str] = set()

    @property
    def foreign(self) -> bool:
        """Was the conversation so far had with another account than the one that is asked now?"""
        return self.continuity.foreign(self.account, self.decision.pinned if self.decision is not None else None)

    # -- before the first attempt

    def look(self, headers: dict[str, str], body: Any, credential: str) -> None:
        """Reads the few facts of the request. Raises `dialects.BadBody`. Header names lower case."""
        route = self.route
        self.peek = dialects.peek(route.operation, route.dialect, route.path, headers, body, credential=credential)
        self.continuity.look(self.peek)
        self.upcall.model = self.peek.model
        if dialects.makes_batch(self.upcall.method, route.path):
            self.requests = dialects.batch_size(body)
        self.providers = providers_for(route.dialect, route.operation, self.peek.model, route.forced)
        self.agent = headers.get("x-pool-agent", "")[:80] or program(headers.get("user-agent", "")[:256])
        self.project = (headers.get("x-pool-project") or headers.get("openai-project") or "")[:64]
        self.forced = headers.get("x-pool-account") or None

    async def reserve(self) -> ClientError | None:
        """Takes the user's share before anything is spent; the error when a limit forbids it."""
        tokens_in = self.request_bytes // dialects.BYTES_A_TOKEN
        tokens_out = min(self.peek.max_output or REQUEST_OUTPUT, _OUTPUT_CAP) * self.requests
        cost = self.rooms.ledger.estimate(self.peek.model, tokens_in, tokens_out)
        provider = self.providers[0] if self.providers else None
        room = self.rooms.gauge.percent(provider) if provider is not None else None
        answer = await self.rooms.users.reserve_or_wait(
            self.principal,
            provider=provider.value if provider is not None else "",
            model=self.peek.model,
            tokens=tokens_in + tokens_out,
            cost=cost,
            room=room,
        )
        if isinstance(answer, Denied):
            return final_error.denied(answer)
        self._reservation = answer
        return None

    def force_refused(self) -> ClientError | None:
        """The error when X-Pool-Account names an account this caller may not force."""
        if self.forced is None:
            return None
        try:
            owner = self.rooms.accounts.owner(self.forced)
        except KeyError:
            owner = None
        if owner is not None and self.rooms.users.may_force(self.principal, owner):
            return None
        message = "X-Pool-Account names an account you may not force."
        return ClientError(ErrorKind.FORBIDDEN, message, 403, code="account_not_yours")

    def claim(self) -> ClientError | None:
        """Finds the account that holds what the call names; the error when an id is not the caller's."""
        previous = self.peek.previous_response_id or ""
        known = self.rooms.accounts.owner_of(self.principal.user, "response", previous) if previous else None
        skip = [(ObjectKind.RESPONSE, previous)] if known is not None or self.resumed else []
        error = self.objects.claim(self.peek, self.providers, skip=skip, forced=self.forced is not None)
        if self.objects.holder:
            self.providers = (Provider(self.objects.holder.partition(":")[0]),)
        if error is not None and error.status == 404 and previous and not self.route.ids:
            return final_error.no_previous_response()
        return error

    # -- attempts

    async def next_account(self) -> str | None:
        """Chooses the next account to try, None when nothing is left (then `unserved` tells why).

        Where the account that a turn state or sealed reasoning belongs to is gone, the exchange goes on without
        them (`shed`: the body must be stripped); a lost response id or file is the client's to know.
        """
        account = await self._next()
        if account is not None or self.decision is None or not self.decision.hard_lost or self.continuity.shed:
            return account
        if self.objects.holder:
            return None
        if not all(kind in dialects.SHEDDABLE for kind, _ in self.peek.hard):
            return None
        self.continuity.shed = True
        self.peek.hard = ()
        drop_turn_state(self.upcall)
        return await self._next()

    async def _next(self) -> str | None:
        if len(self.attempts) >= self.rooms.settings.max_attempts and self.decision is not None:
            self.decision = self.rooms.accounts.select(self._new_ask())
            return None
        ask = self._new_ask()
        decision = self.rooms.accounts.select(ask)
        now = time.time()
        wait_s = self.rooms.settings.choosing.wait_s
        if decision.account is None and decision.retry_at is not None and decision.retry_at - now <= wait_s:
            decision = await self.rooms.accounts.wait_turn(ask, deadline=now + wait_s)
        self.decision = decision
        self._ask = ask
        return decision.account

    def _new_ask(self) -> SelectionRequest:
        return SelectionRequest(
            providers=self.providers,
            operation=self.route.operation,
            dialect=self.route.dialect,
            model=self.peek.model,
            user=self.principal.user,
            session=self.peek.session,
            hard=self.peek.hard,
            holder=self.objects.holder,
            exclude=frozenset(self.tried),
            forced=self.forced,
            websocket=self.route.websocket,
        )

    def begin(self, account: str) -> Credential:
        """Counts the account as in use and returns its credential. Pair with `end`."""
        credential = self.rooms.accounts.credential(account)
        self.rooms.accounts.begin(account, self.peek.model)
        self.account = account
        self.continuity.leave_turn_state(self.upcall, account)
        self.tried.add(account)
        self._attempt_started = time.monotonic()
        self.attempts.append(Attempt(account, started_ms=self._since_start()))
        return credential

    def end(self, account: str) -> None:
        self.rooms.accounts.end(account, self.peek.model)
        if self.attempts and not self.recorded:  # a record that is on its way to the disk must not change
            self._time_attempt()

    def _time_attempt(self) -> None:
        self.attempts[-1].ms = round((time.monotonic() - self._attempt_started) * 1000, 1)

    async def refreshed(self, account: str, failed: Credential) -> Credential | None:
        """After a 401: the account's new credential, None when it cannot be refreshed."""
        try:
            return await self.rooms.accounts.refresh(account, failed.secret, "rejected by the provider")
        except RefreshError:
            self._judged.add(account)  # the refresh has set the account's state
            return None

    async def completed(self, account: str, credential: Credential) -> Credential | Fault:
        """The credential as the account's one-time set-up leaves it, or why the set-up failed. Nearly always there
        is nothing to set up."""
        if provider_module(credential.provider).setup_request(credential, self.rooms.settings) is None:
            return credential
        try:
            return await self.rooms.accounts.complete(account)
        except OnboardingError as failed:
            self._judged.add(account)  # the set-up has set the account's state
            return failed.fault

    def failed(self, account: str, credential: Credential, fault: Fault, usage: Usage | None = None) -> None:
        """Blames the account for a fault, if it is to blame, and notes it on the attempt."""
        self.fault = fault
        attempt = self.attempts[-1]
        attempt.status = fault.status
        attempt.fault = fault.kind.value
        attempt.message = fault.message
        if usage is not None and usage.known:
            attempt.usage = usage
        metrics.upstream_faults.labels(credential.provider.value, fault.kind.value).inc()
        if fault.kind not in _BLAMELESS and account not in self._judged:
            self.rooms.accounts.fail(account, fault, self.peek.model, credential.fingerprint)

    def observe(self, account: str, credential: Credential, headers: dict[str, str]) -> None:
        """Learns quota windows and how it is served from an answer's headers (lower-case names)."""
        self.served = dialects.Served(tier=dialects.header_tier(headers))
        module = provider_module(credential.provider)
        seen = module.quota_headers(headers, now=time.time(), model=self.peek.model)
        if seen:
            self.rooms.accounts.observe(account, seen)

    def observe_event(self, account: str, credential: Credential, raw: bytes) -> None:
        """Learns quota windows from a stream event."""
        module = provider_module(credential.provider)
        seen = module.quota_event(raw, now=time.time(), model=self.peek.model)
        if seen:
            self.rooms.accounts.observe(account, seen)

    def wants_usage(self) -> bool:
        """Whether the pool asks for the usage of a streamed completion; large bodies are not rewritten for it."""
        small = self.request_bytes <= MEMORY_LIMIT and self.route.dialect is Dialect.CHAT
        host = dialects.host_of(self.upstream_url)
        self.usage_added = small and self.rooms.stream_usage.wanted(self.route.operation, self.peek, host)
        return self.usage_added

    def usage_refused(self, body: bytes) -> bool:
        """Whether an upstream's refusal is of the question for usage."""
        return self.usage_added and self.rooms.stream_usage.refused(dialects.host_of(self.upstream_url), body)

    def stream_fault(self, credential: Credential, status: int, body: bytes) -> Fault:
        """What an error event within an answer means."""
        body = credential.hide(body)
        return provider_module(credential.provider).classify(status, {}, body, now=time.time(), model=self.peek.model)

    def heard(self, meter: dialects.Meter) -> None:
        """Takes over what the meter has learnt of the answer."""
        self.usage = meter.usage
        self.answered_model = meter.model
        self.response_id = meter.response_id
        self.pending = meter.pending
        told, header = meter.served, self.served.tier
        self.served = told
        told.tier = header or told.tier or self.peek.tier

    def committed(self, account: str, status: int) -> None:
        """The account really answers: pins the conversation to it and notes the first byte."""
        self.answered()
        self.attempts[-1].status = status
        if self._ask is not None:
            self.rooms.accounts.bind(self._ask, account)

    def answered(self) -> None:
        """The first byte of an answer is here, which may still turn out to be none."""
        if self.first_byte_ms is None:
            self.first_byte_ms = self._since_start()

    def progressed(self, usage: Usage) -> None:
        """Corrects the reservation by what the stream reported so far."""
        if self._reservation is not None and usage.known:
            cost = self.rooms.ledger.price(self.peek.model, usage, self._price_facts())
            self.rooms.users.progress(self._reservation, usage.total, cost.dollars)

    def succeeded(self, account: str, response_id: str, *, unsealed: bool = False) -> None:
        """The answer came to its good end. `unsealed`: the account was not shown what is sealed in the request, and is
        not to be the next time."""
        first = (self.first_byte_ms or 0.0) / 1000 - self.attempts[-1].started_ms / 1000
        self.rooms.accounts.succeed(account, self.peek.model, max(0.0, first))
        self.continuity.answered(account, self.peek, response_id, unsealed=unsealed)

    # -- the end

    def unserved(self) -> ClientError:
        """What the client is told when no account is left."""
        assert self.decision is not None
        decision = self.decision
        if self.objects.holder:
            if self.fault is None:
                return final_error.holder_out(decision)
            decision = msgspec.structs.replace(decision, hard_lost=False)
        return final_error.unserved(decision, self.fault, self.providers, self.peek.model, time.time())

    async def record(self, outcome: Outcome, status: int, message: str = "", *, partial: bool = False) -> None:
        """Settles the reservation and makes the record durable; the second call does nothing."""
        if self.recorded:
            return
        self.recorded = True
        if self.attempts and not self.attempts[-1].ms:  # it is still under way
            self._time_attempt()
        job, counted = self._count(outcome)
        usage = self.usage = counted.usage
        quote = self.rooms.ledger.price(self._model(), usage, self._price_facts()) if usage.counted else Quote(None)
        sheet = self._sheet(outcome, status, redact(message)[:300] if message else "", quote, partial)
        sheet.job, sheet.reserved = job, counted.reserved
        saved = self.rooms.ledger.record(sheet)
        self._settle(counted, quote)  # while the disk is busy
        metrics.exchange_ended(sheet.provider, self.route.dialect.value, outcome.value).inc()
        try:
            await saved  # cancelled, it is written all the same
        except Exception as error:  # a full disk must not take the answer away from the client
            log.warning("exchange %s is not recorded: %s", self.id, redact(str(error)))

    def _sheet(self, outcome: Outcome, status: int, message: str, quote: Quote, partial: bool) -> UsageRecord:
        return UsageRecord(
            id=self.id,
            at=self.at,
            user=self.principal.user,
            key=self.principal.key,
            provider=self._provider(),
            account=self.account,
            model=self._model(),
            dialect=self.route.dialect.value,
            transport=self.transport.value,
            operation=self.route.operation.value,
            status=status,
            outcome=outcome.value,
            message=message,
            usage=self.usage,
            cost=quote.dollars,
            cost_basis=quote.basis.value,
            partial=partial,
            attempts=self.attempts,
            first_byte_ms=self.first_byte_ms,
            total_ms=self._since_start(),
            request_bytes=self.request_bytes,
            response_bytes=self.response_bytes,
            agent=self.agent,
            project=self.project,
            session=self._session_hash(),
            tier=self.served.tier or self.peek.tier,
            speed=self.served.speed,
            geo=self.served.geo,
            answered=self.answered_model if self.answered_model != self._model() else "",
            decision=self.decision.record() if self.decision is not None else {},
        )

    def _model(self) -> str:
        return self.peek.model or self.answered_model

    def _price_facts(self) -> PriceFacts:
        served = self.served
        return PriceFacts(
            at=self.at,
            host=dialects.host_of(self.upstream_url),
            tier=served.tier or self.peek.tier,
            speed=served.speed,
            geo=served.geo,
            answered=self.answered_model,
            told=served.cost,
        )

    def _settle(self, counted: Counted, quote: Quote) -> None:
        """Charges the user's limits; an exchange nobody answered costs nothing."""
        if self._reservation is None:
            return
        charged = counted.charged
        if charged is None:
            self.rooms.users.release(self._reservation)
            return
        cost = quote.dollars
        if charged is not counted.usage:  # of a job, before or after its usage is known
            cost = self.rooms.ledger.price(self._model(), charged, self._price_facts()).dollars
        self.rooms.users.settle(self._reservation, charged, cost)

    def _count(self, outcome: Outcome) -> tuple[str, Counted]:
        """The job the exchange is about, if it is about one, and what is recorded and charged."""
        method, path = "POST" if self.route.websocket else self.upcall.method, self.route.path
        identity = dialects.identity(method, path, self.response_id, stored=self.peek.stored)
        job = job_key(self.account, identity)
        call = CallFacts(
            self.route.operation,
            method,
            path,
            self.request_bytes,
            self.response_bytes,
            streamed=self.transport is not Transport.BUFFERED,
            answered=self.first_byte_ms is not None,
            outcome=outcome,
            pending=self.pending,
            requests=self.requests,
        )
        return job, count(self.usage, call, self.rooms.ledger.job(job) if job and method == "GET" else None)

    def _provider(self) -> str:
        if self.account:
            return self.account.partition(":")[0]
        return self.providers[0].value if self.providers else ""

    def _session_hash(self) -> str:
        if not self.peek.session:
            return ""
        text = f"{self.principal.user}|{self.peek.session}".encode()
        return hashlib.blake2b(text, digest_size=6).hexdigest()

    def _since_start(self) -> float:
        return round((time.monotonic() - self.started) * 1000, 1)
