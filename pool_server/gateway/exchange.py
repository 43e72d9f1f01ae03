"""One exchange's life, whatever its transport: look, reserve, choose, try, learn, record.

HTTP answers and WebSocket turns both drive this; they differ only in how bytes travel.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from pool_server import dialects
from pool_server.accounts import Decision, OnboardingError, RefreshError, SelectionRequest, serves_natively
from pool_server.core.enums import Conduct, FaultKind, ObjectKind, Operation, Provider, Transport
from pool_server.core.models import Attempt, ClientCall, ClientError, Fault, Peek, UpstreamRequest, Usage, UsageRecord
from pool_server.core.settings import Limits
from pool_server.dialects.translation import ModelConstraints, TranslationError
from pool_server.gateway import final_error, metrics
from pool_server.gateway.attempts import open_providers, waiting
from pool_server.gateway.attempts.counting import expected, price_facts
from pool_server.gateway.attempts.refusals import Refusals
from pool_server.gateway.attempts.serving_model import next_in_chain
from pool_server.gateway.attempts.uncarried import Uncarried
from pool_server.gateway.http.body import MEMORY_LIMIT
from pool_server.gateway.http.decoding import DecodedAnswer, decoded, decoded_refusal, unknown_coding
from pool_server.gateway.http.programs import conduct, program
from pool_server.gateway.objects import Tracking
from pool_server.gateway.objects.continuity import Continuity, drop_turn_state
from pool_server.gateway.routes import Route
from pool_server.gateway.services import Services
from pool_server.gateway.translation import AttemptTranslation, CallTerms, translate
from pool_server.gateway.transports import UpstreamRefusal
from pool_server.gateway.upstream import UpstreamError, refusal_body
from pool_server.http1 import Answer
from pool_server.http1 import Body as RequestBody
from pool_server.providers import Credential, network_fault, provider_module, providers_for, unusable_answer
from pool_server.users import Denied, Principal, Reservation

log = logging.getLogger("pool_server.gateway")

_SOON_SENT = 1 << 20  # bytes; a larger body takes its time on the way up
_REFUSAL_KEPT = 1 << 20  # bytes of a refusal, decoded


class Exchange:
    """The facts and steps of one exchange. Times: `at` unix seconds, `started` monotonic seconds."""

    # A dictionary of so many names shares its keys with no other, and grows four times while it is filled.
    __slots__ = (
        "_allowed", "_ask", "_attempt_started", "_in_chain", "_judged", "_live", "_uncarried", "account", "agent",
        "answered_model", "asked", "at", "attempts", "client_call", "constraints", "continuity", "decision",
        "earlier_urls", "first_byte_ms", "forced", "id", "objects", "peek", "pending", "principal", "project",
        "providers", "recorded", "refusals", "request_bytes", "reservation", "response_bytes", "response_id",
        "resumed", "route", "ruled", "sent", "served", "services", "sheet", "started", "translation", "transport",
        "tried", "upstream_url", "usage", "usage_added", "wait_until",
    )  # fmt: skip

    def __init__(
        self, services: Services, route: Route, principal: Principal, client_call: ClientCall, request_id: str
    ) -> None:
        self.services = services
        self.route = route
        self.principal = principal
        self.client_call = client_call
        self.id = request_id
        self.at = time.time()
        self.started = time.monotonic()
        self.peek = Peek()
        self.providers: tuple[Provider, ...] = ()
        self.decision: Decision | None = None
        self.account = ""
        self.attempts: list[Attempt] = []
        self.tried: set[str] = set()
        self.refusals = Refusals(services.accounts, route.operation)
        self.usage = Usage()
        self.transport = Transport.BUFFERED
        self.first_byte_ms: float | None = None
        self.request_bytes = self.response_bytes = 0
        self.answered_model = self.response_id = ""
        self.pending = False
        self.served = dialects.Served()
        self.upstream_url = ""  # of the attempt under way, "" until it has asked
        self.earlier_urls: list[str] = []  # of the attempts before
        self.usage_added = False  # the pool asked for a stream's usage, the client did not
        self.forced: str | None = None
        self.wait_until = 0.0  # the client lets itself be held so long for headroom, unix seconds
        self.agent = self.project = ""
        self.continuity = Continuity(services.accounts, principal.user, route.dialect)
        self.resumed = False  # the pool holds the conversation that the request goes on with
        self.objects = Tracking(services.access, principal, route)
        self.translation: AttemptTranslation | None = None  # of the attempt under way
        self.constraints = ModelConstraints()  # what the account's refusals told of its model
        self.asked = ""  # the model that the client named
        self.sent = ""  # what the account itself calls the model that serves
        self.ruled = False  # the upstream's own rules are applied to the request, which it refused as it came
        self.recorded = False
        self.sheet: UsageRecord | None = None  # its record, from the first attempt on
        self._ask: SelectionRequest | None = None
        self.reservation: Reservation | None = None
        self._attempt_started = 0.0
        self._judged: set[str] = set()
        self._allowed: Sequence[Limits] = ()  # what limits providers and models
        self._uncarried = Uncarried()
        self._in_chain = 0  # the place in the chain of models that goes on from here
        self._live = route.operation is Operation.REALTIME

    @property
    def foreign(self) -> bool:
        """Was the conversation so far had with another account than the one that is asked now?"""
        return self.continuity.foreign(self.account, self.decision.pinned if self.decision is not None else None)

    @property
    def call(self) -> ClientCall:
        """What the account is asked."""
        if self.translation is not None:
            return self.translation.call
        return self.client_call if self.sent in ("", self.client_call.model) else self.client_call.named(self.sent)

    def told(self, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """An answer's headers, with the model that served it where it is another than the one asked for."""
        return headers if self.peek.model == self.asked else [*headers, ("X-Pool-Model", self.peek.model)]

    def native(self, credential: Credential) -> bool:
        """Whether the call goes to this account in the client's own dialect."""
        route, own = self.route, self.route.forced is not None
        return not self.services.settings.models.translate or serves_natively(
            credential, route.operation, route.dialect, credential.own_name(self.peek.model), own_dialect=own
        )

    def translatable(self) -> bool:
        """Whether there are accounts that could answer in another dialect, whatever the model."""
        has = self.services.accounts.has
        others = [one for one in Provider if one is not self.providers[0]] if self.route.forced is None else []
        return self.services.settings.models.translate and any(has(one) for one in others)

    async def translated(
        self, credential: Credential, whole: Callable[[], Awaitable[bytes | None]], *, sealed: bool
    ) -> AttemptTranslation | None:
        """How this attempt's account is asked, None where the call goes up as it came. Raises `TranslationError`,
        `BadBodyError`."""
        route, peek, decision = self.route, self.peek, self.decision
        native = self.native(credential)
        self.sent = peek.model if self._live else credential.own_name(peek.model)
        self.objects.translated = False
        if native and (credential.provider is not Provider.CODEX or self.resumed):
            return None
        terms = CallTerms(
            dialect=route.dialect,
            operation=route.operation,
            model=self.sent,
            stream=peek.stream,
            exchange=self.id,
            session=self.continuity.session_hash(self.peek.session),
            seals=sealed and (decision is None or decision.pinned in (None, self.account)),
            refused=self.ruled,
            constraints=self.services.constraints.of(self.account, self.sent, self.constraints),
            now=self.at,
        )
        made = await translate(terms, credential, self.client_call, whole, native=native)
        self.objects.translated = made is not None
        return made

    # -- before the first attempt

    def look(self, headers: dict[str, str], body: Any, credential: str) -> None:
        """Reads the few facts of the request. Raises `dialects.BadBody`. Header names lower case."""
        route = self.route
        self._allowed = self.services.users.limits.allowed(self.principal.user, self.principal.key)
        # What lets a request in must be what the provider reads; a frame was judged when it came.
        strict = not route.websocket and (dialects.SPECS[route.dialect].continues_by_id or bool(self._allowed))
        self.peek = dialects.peek(
            route.operation, route.dialect, route.path, headers, body, credential=credential, strict=strict
        )
        if self._live:
            dialects.name_model(self.peek, self.client_call.query)
        self.continuity.look(self.peek)
        self.client_call.stream = self.peek.stream
        self.want(self.peek.model)
        self.agent = headers.get("x-pool-agent", "")[:80] or program(headers.get("user-agent", "")[:256])
        self.project = (headers.get("x-pool-project") or headers.get("openai-project") or "")[:64]
        self.forced = headers.get("x-pool-account") or None
        self.wait_until = waiting.asked(self, headers)

    def want(self, model: str) -> None:
        """Takes the model the client asks for; a live conversation, which names it more than once, has no other."""
        self.asked = model
        self._serve(model if self._live else self.services.settings.models.aliases.get(model, model))
        self.providers = providers_for(self.route.dialect, self.route.operation, self.peek.model, self.route.forced)

    async def reserve(self) -> ClientError | None:
        """Takes the user's share before anything is spent; the error when a limit forbids it."""
        tokens, cost = expected(self.services.ledger, self.peek, self.request_bytes, self.objects.expected)
        self.providers = open_providers.open_to(self, self._allowed)
        provider = self.providers[0] if self.providers else None
        room = self.services.gauge.percent(provider) if provider is not None else None
        answer = await self.services.users.admission.reserve_or_wait(
            self.principal,
            provider=provider.value if provider is not None else "",
            model=self.peek.model,
            asked=self.asked,
            tokens=tokens,
            cost=cost,
            headroom=room,
        )
        if isinstance(answer, Denied):
            return final_error.denied(answer)
        self.reservation = answer
        return None

    def force_refused(self) -> ClientError | None:
        return open_providers.force_refused(self)

    def claim(self) -> ClientError | None:
        """Finds the account that holds what the call names; the error when an id is not the caller's."""
        previous = self.peek.previous_response_id or ""
        owner_of, user = self.services.accounts.owner_of, self.principal.user
        named = {ident for kind, ident in self.peek.objects if kind is ObjectKind.RESPONSE}
        known = {ident for ident in named if owner_of(user, "response", ident) is not None}
        skip = [(ObjectKind.RESPONSE, ident) for ident in (known | {previous} if self.resumed else known)]
        error = self.objects.claim(self.peek, self.providers, skip=skip, forced=self.forced is not None)
        if self.objects.holder:
            self.providers = (Provider(self.objects.holder.partition(":")[0]),)
        if error is not None and error.status == 404 and previous and not self.route.ids:
            return final_error.no_previous_response()
        ledger, users = self.services.ledger, self.services.users
        return error or self.objects.spending_refused(
            self.peek,
            lambda: users.limits.of_caller(self.principal.user, self.principal.key),
            lambda model, most: ledger.estimate(model, 0, most),
        )

    # -- attempts

    async def next_account(self) -> str | None:
        """Chooses the next account to try, None when nothing is left (then `unserved` tells why).

        Where the account that a turn state or sealed reasoning belongs to is gone, the exchange goes on without
        them (`shed`: the body must be stripped); a lost response id or file is the client's to know.
        """
        account = await self._next()
        most = self.services.settings.max_attempts
        while account is None and len(self.attempts) < most and (other := self._fallback()):
            self._in_chain, model = other
            self._serve(model)
            self.tried.clear()
            account = await self._next()
        if account is not None or self.decision is None or not self.decision.hard_lost or self.continuity.shed:
            return account
        if self.objects.holder:
            return None
        if not all(kind in dialects.SHEDDABLE for kind, _ in self.peek.hard):
            return None
        self.continuity.shed = True
        self.peek.hard = ()
        drop_turn_state(self.client_call)
        return await self._next()

    def _serve(self, model: str) -> None:
        """Lets another model than the one asked for serve."""
        self.peek.model = self.client_call.model = self.sent = model
        if model != self.asked and dialects.SPECS[self.route.dialect].model_in_path:
            self.client_call.path = self.route.path.replace(f"/{self.asked}:", f"/{model}:")

    def _fallback(self) -> tuple[int, str] | None:
        """The model to serve instead, with the place after it in the operator's chain."""
        models, reasons = self.services.settings.models, self.refusals.wanting(self.decision)
        at = (self.asked, self.peek.model, self._in_chain)
        return None if self._live else next_in_chain(models, *at, reasons, self._allowed)

    async def _next(self) -> str | None:
        if len(self.attempts) >= self.services.settings.max_attempts and self.decision is not None:
            self.decision = self.services.accounts.select(self.new_ask())
            return None
        self._ask = ask = self.new_ask()
        self.decision = decision = self.services.accounts.select(ask)
        self.decision = decision = await waiting.turn(self, ask, decision, self._fallback)
        return decision.account

    def new_ask(self) -> SelectionRequest:
        """What an account is chosen by."""
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
            websocket=self.route.websocket and self.route.operation is Operation.RESPONSES,
            own_dialect=self.route.forced is not None,
            unable=self._uncarried.kinds,
        )

    def cannot_carry(self, credential: Credential, wrong: TranslationError) -> bool:
        """Notes that the request cannot be translated for accounts like the one that was about to be asked; whether
        others may be left to ask."""
        if self.native(credential) or not self._uncarried.by(credential, self.client_call, wrong):
            return False
        self.attempts.pop()  # nothing was sent
        return True

    def another(self) -> str | None:
        """An account that could serve in place of the one that is asked, None when there is none."""
        if len(self.attempts) >= self.services.settings.max_attempts:
            return None
        return self.services.accounts.select(self.new_ask()).account

    async def begin(self, account: str, *, bound: bool = False) -> Credential | None:
        """Counts the account as in use and returns its credential; pair with `end`. None where what its owner gives was
        filled since it was chosen; not for a turn `bound` to it."""
        credential = self.services.accounts.credential(account)
        self.tried.add(account)
        user = None if bound or self.forced else self.principal.user
        if not await self.services.accounts.begin_agreed(account, self.peek.model, self.route.operation, user):
            return None
        self.account = account
        self.continuity.leave_turn_state(self.client_call, account)
        if self.attempts:
            self.earlier_urls, self.upstream_url = [*self.earlier_urls, self.upstream_url], ""
        self._attempt_started = started = time.monotonic()
        self.attempts.append(Attempt(account, started_ms=int((started - self.started) * 10_000 + 0.5) / 10))
        return credential

    def end(self, account: str) -> None:
        self.services.accounts.end(account)
        if self.attempts and not self.recorded:  # a record that is on its way to the disk must not change
            self.time_attempt()

    def time_attempt(self) -> None:
        self.attempts[-1].ms = int((time.monotonic() - self._attempt_started) * 10_000 + 0.5) / 10

    async def open(
        self, account: str, prepared: UpstreamRequest, payload: RequestBody, size: int
    ) -> Answer | DecodedAnswer | UpstreamRefusal | Fault:
        """One HTTP request to the account, and the beginning of its answer. `size` of the payload in bytes."""
        services = self.services
        first_byte_s, proxy_url = services.settings.upstream_first_byte_s, services.accounts.proxy_url(account)
        opening = services.upstream.open(prepared, payload, size=size, proxy_url=proxy_url, first_byte_s=first_byte_s)
        hedged = self.peek.stream and size <= _SOON_SENT
        try:
            answer = await services.openings.watched(account, opening, self.another, hedged=hedged)
        except UpstreamError as error:
            return network_fault(str(error))
        if 200 <= answer.status < 300:
            if self._live and (uncounted := await services.joins(self, account, answer)) is not None:
                answer.close()
                return uncounted
            try:
                return decoded(answer)
            except dialects.BadEncodingError:
                answer.close()
                return unusable_answer(f"the answer came {unknown_coding(answer.fields)}")
        try:
            refusal = await refusal_body(answer)
        finally:
            answer.close()
        refusal, unread = decoded_refusal(refusal, answer.fields, _REFUSAL_KEPT)
        return UpstreamRefusal(answer.status, answer.headers, answer.fields, refusal, unread)

    def look_after(self, account: str, since: float, give_up: Callable[[], None]) -> None:
        """The account's answer has begun and said nothing since then: see whether its host lives, `give_up` if not."""
        self.services.openings.look_after(account, since, self.another, give_up)

    async def refreshed(self, account: str, failed: Credential) -> Credential | None:
        """After a 401: the account's new credential, None when it cannot be refreshed or is not what was refused."""
        if await self.services.accounts.own_calls.valid(account, FaultKind.AUTH, failed.fingerprint):
            return None
        try:
            return await self.services.accounts.refresh(account, failed.secret, "rejected by the provider")
        except RefreshError:
            self._judged.add(account)  # the refresh has set the account's state
            return None

    def incomplete(self, credential: Credential) -> bool:
        """Does the account still want its first token, or its one-time set-up? Hardly ever."""
        bare = not credential.secret and credential.can_refresh
        return (
            bare or provider_module(credential.provider).setup_request(credential, self.services.settings) is not None
        )

    async def completed(self, account: str) -> Credential | Fault:
        """The credential with its first token and as the account's set-up leaves it, or why that failed."""
        try:
            return await self.services.accounts.complete(account)
        except OnboardingError as failed:
            self._judged.add(account)  # the set-up has set the account's state
            return failed.fault

    def failed(self, account: str, credential: Credential, fault: Fault, usage: Usage | None = None) -> None:
        """Blames the account for a fault, if it is to blame, and notes it on the attempt."""
        self.refusals.faults.append(fault)
        attempt = self.attempts[-1]
        attempt.status, attempt.fault, attempt.message = fault.status, fault.kind.value, fault.message
        if usage is not None and usage.known:
            attempt.usage = usage
        metrics.upstream_faults.labels(credential.provider.value, fault.kind.value).inc()
        if account not in self._judged:
            self.refusals.weigh(account, credential.fingerprint, fault, self.peek.model)

    def observe(self, account: str, credential: Credential, headers: dict[str, str]) -> None:
        """Learns quota windows and how it is served from an answer's headers (lower-case names)."""
        self.served = dialects.Served(tier=dialects.header_tier(headers))
        if seen := provider_module(credential.provider).quota_headers(headers, now=time.time(), model=self.peek.model):
            self.services.accounts.observe(account, seen)

    def observe_event(self, account: str, credential: Credential, raw: bytes) -> None:
        """Learns quota windows from a stream event."""
        if seen := provider_module(credential.provider).quota_event(raw, now=time.time(), model=self.peek.model):
            self.services.accounts.observe(account, seen)

    def wants_usage(self) -> bool:
        """Whether the pool asks for the usage of a streamed completion; large bodies are not rewritten for it."""
        small = self.request_bytes <= MEMORY_LIMIT and dialects.SPECS[self.route.dialect].usage_asked
        host = dialects.host_of(self.upstream_url)
        self.usage_added = small and self.services.stream_usage.wanted(self.route.operation, self.peek, host)
        return self.usage_added

    def rules_apply(self, credential: Credential, status: int, body: bytes) -> bool:
        """Whether a backend with rules of its own has refused the request as it came."""
        plain = not self.route.websocket and not self.ruled
        self.ruled = plain and status == 400 and credential.provider is Provider.CODEX and b'"detail"' in body
        return self.ruled

    def stream_fault(self, credential: Credential, body: bytes) -> Fault:
        """What an error event within an answer means."""
        classify, body = provider_module(credential.provider).classify, credential.hide(body)
        return classify(200, {}, body, now=time.time(), model=self.peek.model)

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
            self.services.accounts.bind(self._ask, account)
        self.refusals.served_by(account, self.peek.model)
        if self.constraints.demands:
            self.services.constraints.proved(account, self.sent, self.constraints)

    def answered(self) -> None:
        """The first byte of an answer is here, which may still turn out to be none."""
        if self.first_byte_ms is None:
            self.first_byte_ms = self.since_start()

    def progressed(self, usage: Usage) -> None:
        """Corrects the reservation by what the stream reported so far."""
        if self.reservation is not None and usage.known:
            facts = price_facts(self.at, self.upstream_url, self.served, self.peek.tier, self.answered_model)
            cost = self.services.ledger.price(self.peek.model, usage, facts)
            self.services.users.admission.progress(self.reservation, usage.total, cost.dollars)

    def succeeded(self, account: str, response_id: str, *, unsealed: bool = False) -> None:
        """The answer came to its good end. `unsealed`: the account was not shown what is sealed in the request, and is
        not to be the next time."""
        self.services.accounts.succeed(account, self.peek.model, self.route.operation, self._first_byte_s())
        self.continuity.answered(account, self.peek, response_id, unsealed=unsealed)

    def _first_byte_s(self) -> float | None:
        """The account's latency; None where it was not seen, or is the time a whole body took."""
        seen = self.first_byte_ms if self.transport is not Transport.BUFFERED else None
        return None if seen is None else max(0.0, seen - self.attempts[-1].started_ms) / 1000

    async def unserved(self) -> ClientError:
        """What the client is told when no account is left. Raises `TranslationError` where that is all there is to
        tell: no account that could serve the request as it came returns."""
        if await self.refusals.settled():
            self.decision = self.services.accounts.select(self.new_ask())
        assert self.decision is not None
        if self._uncarried.why is not None and not self.refusals.faults and self.decision.retry_at is None:
            raise self._uncarried.why
        if self.objects.holder:
            if not self.refusals.faults:
                return final_error.holder_out(self.decision)
            self.decision = msgspec.structs.replace(self.decision, hard_lost=False)
        return self.refusals.last_word(self.decision, self.providers, self.peek.model, self.conduct)

    @property
    def conduct(self) -> Conduct:
        """What the program that asks does when it is refused."""
        return conduct(self.client_call.headers)

    def since_start(self) -> float:
        """Milliseconds, as `round(ms, 1)` has them, in a tenth of its time."""
        return int((time.monotonic() - self.started) * 10_000 + 0.5) / 10
