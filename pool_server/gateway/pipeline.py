"""One exchange from its admission to its record, whatever carries its bytes: choose, begin, attempt, cure once, fail
over or commit, record.

A transport only moves bytes (`Transport`); what becomes of an answer is decided in `gateway/answer.py`; the facts of
an exchange and what is learnt from it are `Exchange`'s.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from enum import Enum

import msgspec

from pool_server import dialects
from pool_server.core.enums import ErrorKind, FaultKind, Outcome
from pool_server.core.models import ClientError, Fault
from pool_server.core.tasks import running_loop
from pool_server.dialects.translation import TranslationError
from pool_server.gateway import final_error, metrics
from pool_server.gateway.answer import LINGER_S, End, Ending, Piece, RelayedAnswer, Step, Transformer, Write
from pool_server.gateway.attempts.asking_again import asks_again
from pool_server.gateway.attempts.kinds import answer_of
from pool_server.gateway.attempts.openings import SILENT_S
from pool_server.gateway.exchange import Exchange
from pool_server.gateway.recording import begun, record
from pool_server.gateway.translation import NoAnswer, worded
from pool_server.gateway.transports import (
    LIVED_TOO_LONG,
    ClientTransport,
    UpstreamAnswer,
    UpstreamRefusal,
    WaitTimers,
    content_length,
)
from pool_server.http1 import ClientDisconnectedError, UpstreamDisconnectedError
from pool_server.providers import Credential, Shield, provider_module, redact

log = logging.getLogger("pool_server.gateway")

_GONE = (asyncio.CancelledError, ClientDisconnectedError)


class Cure(Enum):
    """What may be tried once on the same account, unseen by the client."""

    REFRESH = "refresh"  # the token ended
    UNSEAL = "unseal"  # reasoning that was sealed for another account is left out
    RECONNECT = "reconnect"  # the connection lived too long or died between turns


class Pipeline:
    """Serves one exchange over one transport."""

    def __init__(self, exchange: Exchange, transport: ClientTransport) -> None:
        self._x = exchange
        self._transport = transport
        self._loop = running_loop()
        self._timers = WaitTimers(self._loop.time())
        self._account = ""
        self._credential: Credential
        self.shield: Shield  # of the credential that is asked with
        self._transformer: Transformer | None = None
        self._unsealed = self._shown = False  # shown: the client has something of an account's answer
        self._cured_of: set[Cure] = set()  # of this attempt's account
        self._kept: tuple[UpstreamRefusal, Fault, Shield] | None = None  # the last one that was not passed on
        self._source: UpstreamAnswer | None = None
        self._patience_s = SILENT_S
        self._answer: RelayedAnswer | None = None
        self._ordinary: Callable[[Piece], bool] | None = None  # the answer's own; each event asks it
        self._behind: Awaitable[None] | None = None  # done when the client has read what `_at_once` wrote
        self._stop: tuple[Outcome, ClientError] | None = None

    @property
    def exchange(self) -> Exchange:
        return self._x

    # -- from admission to record

    async def run(self, refused: ClientError | None = None) -> None:
        """Serves the exchange, or only records and tells why it is `refused`. Never raises but for what the pool
        itself did wrong while telling."""
        try:
            await (self._serve() if refused is None else self.refuse(refused))
        except _GONE:
            await self._interrupted()
        except Exception:
            log.exception("exchange %s failed inside the pool", self._x.id)
            await self._give_up()

    async def _serve(self) -> None:
        recalling = self._x.continuity.recall(self._x.peek, self._x.providers)
        if recalling is not None and self._x.peek.previous_response_id:
            await recalling
        if self._x.services.access.owners.elsewhere:
            await self._x.objects.look_up(self._x.peek)
        refused = self._x.force_refused() or self._x.claim()
        if refused is not None:
            await self.refuse(refused)
            return
        refused = await self._x.reserve()
        if recalling is not None:
            await recalling
        if refused is not None:
            await self.refuse(refused, Outcome.DENIED)
            return
        try:
            error = await self._attempts(self._ask)
        except dialects.ContinuationLostError:
            error = final_error.resend()
        except (dialects.BadBodyError, TranslationError) as wrong:
            code = "unsupported_value" if isinstance(wrong, TranslationError) else ""
            error = ClientError(ErrorKind.BAD_REQUEST, str(wrong), 400, code=code)
        if error is not None:
            await self.refuse(error)

    async def connect(self, tie: Callable[[str, Credential], Awaitable[Fault | None]]) -> ClientError | None:
        """Ties a connection to an account before any request is there; the error when none can be had."""

        async def attempt() -> Fault | None:
            fault = await tie(self._account, self._credential)
            if fault is None:
                self._x.committed(self._account, 101)  # the first turn is to find the account it is tied to
            return fault

        await self._x.continuity.recalled(self._x.peek, self._x.providers)
        return await self._attempts(attempt)

    async def refuse(self, error: ClientError, outcome: Outcome | None = None) -> None:
        """Records and tells an error of the pool's own."""
        outcome = outcome or final_error.outcome_of(error, attempted=bool(self._x.attempts))
        error = final_error.as_heard(error, self._x.conduct, time.time())
        await record(self._x, outcome, error.status, error.message)
        if (kept := self._kept) is not None and error.own_words and kept[1].message == error.message:
            await self._transport.refuse(*kept)
        else:
            await self._transport.tell(error)

    def stop(self, outcome: Outcome, error: ClientError) -> None:
        """Why the task that serves is about to be cancelled (revoked key, drained server); else the client left."""
        self._stop = self._stop or (outcome, error)

    async def _interrupted(self) -> None:
        x = self._x
        outcome, error = self._stop or (Outcome.CLIENT_GONE, None)
        if not x.recorded:
            if self._transport.started:
                x.response_bytes = self._transport.sent
            status, message = (499, "") if error is None else (error.status, error.message)
            await record(x, outcome, self._transport.status or status, message, partial=True)
        if error is not None:
            await self._transport.tell(error)

    async def _give_up(self) -> None:
        error = ClientError(ErrorKind.UNREACHABLE, "The pool failed to serve this request.", 500)
        try:
            await record(self._x, Outcome.UPSTREAM, error.status, error.message, partial=True)
            await self._transport.tell(error)
        except OSError as failure:
            log.warning("exchange %s: %s", self._x.id, redact(str(failure)))

    # -- accounts, one after the other

    async def _attempts(self, attempt: Callable[[], Awaitable[Fault | None]]) -> ClientError | None:
        """Tries accounts until one answers; the error when none does. Raises `ContinuationLostError` when the client
        has to send everything again."""
        x, transport = self._x, self._transport
        if transport.bound == "":
            raise dialects.ContinuationLostError
        while (account := await x.next_account()) is not None:
            if transport.bound not in (None, account):
                raise dialects.ContinuationLostError
            if (credential := await x.begin(account)) is None:
                continue
            self._account, self._credential = account, credential
            try:
                fault = await self._cured(attempt)
            except TranslationError as wrong:
                if transport.bound is not None or not x.cannot_carry(credential, wrong):
                    raise
                continue
            finally:
                x.end(account)
                if x.translation is not None:
                    x.translation.close()
            if fault is None:
                return None
            x.failed(account, self._credential, fault, x.usage)
            bound = transport.bound is not None
            transport.drop()
            if bound:
                raise dialects.ContinuationLostError
        return await x.unserved()

    async def _cured(self, attempt: Callable[[], Awaitable[Fault | None]]) -> Fault | None:
        """Tries one account; None when the client has its answer, else the fault that ended the attempt. What the
        account can cure itself is cured, each ill once."""
        if self._x.incomplete(self._credential):
            ready = await self._x.completed(self._account)
            if isinstance(ready, Fault):
                return ready
            self._credential = ready
        self._unsealed = self._x.foreign
        cured = self._cured_of = set()
        while True:
            fault = await attempt()
            if fault is None:
                return None
            cure = self._cure(fault)
            if cure is None or cure in cured or not await self._apply(cure):
                return fault
            cured.add(cure)
            bound = self._transport.bound is not None
            self._transport.drop()
            if bound:
                raise dialects.ContinuationLostError

    def _cure(self, fault: Fault) -> Cure | None:
        if fault.kind is FaultKind.AUTH and self._credential.can_refresh:
            return Cure.REFRESH
        if fault.kind is FaultKind.ENCRYPTED_CONTENT and not self._unsealed:
            return Cure.UNSEAL
        return Cure.RECONNECT if fault.code == LIVED_TOO_LONG else None

    async def _apply(self, cure: Cure) -> bool:
        """Whether the cure could be applied."""
        if cure is Cure.REFRESH:
            renewed = await self._x.refreshed(self._account, self._credential)
            self._credential = renewed or self._credential
            return renewed is not None
        if cure is Cure.UNSEAL:
            self._unsealed = True
            return await self._without_sealed() is not None
        return True

    # -- one request to one account

    async def _ask(self) -> Fault | None:
        """One upstream request; None when the client has its answer."""
        x, transport = self._x, self._transport
        self._patience_s = SILENT_S
        if x.translation is not None:
            x.translation.close()
        x.translation = await x.translated(self._credential, self._whole, sealed=not self._unsealed)
        self.shield = Shield(self._credential)
        opened: UpstreamAnswer | UpstreamRefusal | Fault
        if x.translation is not None and x.translation.estimated:
            self._transformer, opened = x.translation, NoAnswer()
        else:
            x.upstream_url = transport.prepare(self._credential)
            begun(x)
            opened = await transport.open(self._account, self._credential, await self._body())
        if isinstance(opened, Fault):
            return opened
        if opened.fields:
            x.observe(self._account, self._credential, opened.fields)
        if isinstance(opened, UpstreamRefusal):
            refusal = msgspec.structs.replace(opened, body=self.shield.whole(opened.body))
            again = asks_again(x, self._credential, refusal.status, refusal.body)
            return await (self._ask() if again else self._refused(refusal))
        self._source = opened
        try:
            return await self._relay(opened)
        finally:
            opened.at_once = None
            if not transport.framed:  # a link stays for the next turn
                opened.close()
            if self._answer is not None:
                x.usage = self._answer.meter.usage
            self._source = self._answer = self._ordinary = self._transformer = None
            self._timers.waiting_since = None

    async def _body(self) -> bytes | None:
        """What goes up in place of the client's own bytes, None where those may go as they are.

        Every change of a request for the account that was chosen is made here: what only another account can read is
        left out, then the attempt's transformer has its turn.
        """
        if self._x.translation is not None:
            self._transformer = self._x.translation
            return self._x.translation.body
        body = await self._without_sealed() if self._unsealed else None
        if self._x.asked != self._x.sent and not dialects.SPECS[self._x.route.dialect].model_in_path:
            body = dialects.splice(await self._plain() if body is None else body, {"model": self._x.sent})
        self._transformer = self._x.services.transformer(self._x, self._credential)
        if self._transformer is not None:
            body = self._transformer.request(await self._plain() if body is None else body) or body
        return body

    async def _plain(self) -> bytes:
        with _readable():
            return await self._transport.plain()

    async def _whole(self) -> bytes | None:
        with _readable():
            return await self._transport.whole(self._account, self._credential)

    async def _without_sealed(self) -> bytes | None:
        """The body without reasoning that was sealed by another account, None when there is none."""
        try:
            return dialects.strip_sealed(self._x.route.dialect, await self._plain())
        except dialects.BadBodyError:
            return None

    async def _refused(self, refusal: UpstreamRefusal) -> Fault | None:
        """What is the request's is passed on in the provider's words, all else is a fault to act on."""
        x = self._x
        module = provider_module(self._credential.provider)
        fault = module.classify(refusal.status, refusal.fields, refusal.body, now=time.time(), model=x.peek.model)
        curable = self._cure(fault) not in (None, *self._cured_of)  # what the account may heal is nobody's word yet
        told = worded(x.translation, self._credential, x.client_call, refusal)
        if curable or not x.refusals.passes_on(self._account, fault):
            self._kept = told, fault, self.shield
            return fault
        x.failed(self._account, self._credential, fault)
        x.first_byte_ms = None
        if refusal.body.strip():
            await record(x, Outcome.REQUEST_FAULT, refusal.status, fault.message)
            await self._transport.refuse(told, fault, self.shield)
        else:  # no client can make anything of nothing
            told_of = final_error.itself(fault, self._credential.provider, refusal.unread)
            await self.refuse(told_of, Outcome.REQUEST_FAULT)
        return None

    # -- its answer

    async def _relay(self, source: UpstreamAnswer) -> Fault | None:
        """Carries the answer to the client; a fault when another account may still give one."""
        now, framed = self._loop.time(), self._transport.framed
        answer = self._answer = answer_of(self._x, source, self, self._transformer, framed=framed, now=now)
        self._ordinary = answer.ordinary
        while not answer.done:
            step = await self._next(source, answer)
            if answer.settled is not None:
                answer = self._answer = answer.settled
                self._ordinary = answer.ordinary
            if isinstance(step, Fault):
                self._x.first_byte_ms = None
                if answer.refusal is not None:
                    return await self._refused(UpstreamRefusal(answer.refusal[0], [], {}, answer.refusal[1]))
                return step
            if not self._shown and (brought := self._x.objects.brought(answer.meter)):
                await self._x.objects.keep(self._account, brought)
            if isinstance(step, End):
                await self._ended(step, answer)
            if isinstance(step, Write | End):
                behind = self._release(step.pieces, answer)
                if behind is not None:
                    await behind
            elif self._x.first_byte_ms is None and not answer.streams:
                self._x.answered()
            if answer.flows:
                source.at_once = self._at_once
        broken = answer.streams and answer.ending is Ending.BROKEN
        error = final_error.cut(self._credential.provider, self._x.refusals.faults) if broken else None
        await self._transport.end(answer.ending, error, answer.latest)
        return None

    async def _next(self, source: UpstreamAnswer, answer: RelayedAnswer) -> Step:
        """What the next piece means."""
        timers = self._timers
        timers.waiting_since = self._loop.time()
        try:
            piece = await (self._flow(source, answer) if self._transport.framed and answer.flows else source.read())
        except UpstreamDisconnectedError as error:
            return answer.broken(self._transport.broke(error))
        finally:
            timers.waiting_since = None
        if self._behind is not None:
            behind, self._behind = self._behind, None
            await behind
        now = self._loop.time()
        return answer.feed(piece, now) if piece else answer.finish(now)

    async def _flow(self, source: UpstreamAnswer, answer: RelayedAnswer) -> Piece:
        """The short way of frames, which no source offers as they come: passes on what is ordinary, returns the first
        piece that is not."""
        read, ordinary, write = source.read, answer.ordinary, self._transport.write
        timers, now = self._timers, self._loop.time
        while ordinary(piece := await read()):
            timers.waiting_since = timers.wrote_at = now()
            behind = write(piece)
            if behind is not None:
                timers.waiting_since = None
                await behind
                timers.waiting_since = now()
        return piece

    def _at_once(self, piece: Piece) -> bool:
        """An ordinary event's short way, from socket to socket: waking the task would cost a quarter more. False for
        all else: the task sees to the piece."""
        if self._ordinary is None or not self._ordinary(piece):
            assert self._source is not None
            self._source.at_once = None
            return False
        self._timers.waiting_since = self._timers.wrote_at = self._loop.time()
        try:
            self._behind = self._transport.write(piece)
        except ClientDisconnectedError:
            return True  # the task is about to hear of it
        if self._behind is not None:
            assert self._source is not None
            self._source.at_once = None  # the task waits for the client before it takes more
        return True

    def _release(self, pieces: list[Piece], answer: RelayedAnswer) -> Awaitable[None] | None:
        """Hands pieces to the client; with the first ones the answer is committed to."""
        x = self._x
        self._timers.wrote_at = self._loop.time()
        if self._shown:
            behind = None
            for piece in pieces:
                behind = self._transport.write(piece)
            return behind
        self._shown = True
        if not x.recorded:
            x.committed(self._account, self._source.status if self._source is not None else 200)
            x.progressed(answer.meter.usage)
            if answer.meter.usage.known:
                begun(x, answer.meter.usage)
        if x.first_byte_ms is not None:
            metrics.first_byte_of(self._credential.provider.value).observe(x.first_byte_ms / 1000)
        turn_state = self._source.fields.get("x-codex-turn-state") if self._source is not None else None
        if turn_state:
            x.continuity.own(self._account, "turn_state", turn_state)
        length = None
        if answer.over and not answer.streams:  # all of it is here
            length = sum(map(len, pieces))
        elif not answer.streams and self._transformer is None:
            length = content_length(self._source)
        return self._transport.begin(pieces, length, self.shield)

    async def _ended(self, end: End, answer: RelayedAnswer) -> None:
        """Makes the end's record durable, before its last bytes are released."""
        x = self._x
        if end.fault is None:
            await x.objects.ended(self._account, answer.meter)
            if not self._shown:
                x.committed(self._account, end.status)
            x.succeeded(self._account, answer.meter.response_id, unsealed=self._unsealed)
        else:
            x.failed(self._account, self._credential, end.fault)
        x.heard(answer.meter)
        x.response_bytes = self._transport.sent + sum(map(len, end.pieces)) + answer.withheld
        await record(x, end.outcome, end.status, end.message, partial=end.fault is not None)

    # -- what the answer asks of its account

    def judge(self, status: int, body: bytes) -> Fault:
        return self._x.stream_fault(self._credential, body)

    def limits(self, raw: bytes) -> bytes:
        self._x.observe_event(self._account, self._credential, raw)
        return self._x.services.view.event(self._x.principal)

    # -- the clock

    def tick(self, now: float) -> None:
        """Called every few seconds with the loop's time: keeps the client's connection alive and the upstream
        honest. Raises `ClientDisconnectedError`."""
        answer, timers, transport = self._answer, self._timers, self._transport
        if answer is not None and self._shown:
            begun(self._x, answer.meter.usage, transport.sent)
        if answer is not None and self._source is not None:
            if timers.silent(now, LINGER_S if answer.over else self._x.services.settings.upstream_idle_s):
                self._source.close()
            elif (held := answer.tick(now)) is not None:
                self._release(held.pieces, answer)
            elif not self._shown and timers.silent(now, self._patience_s):
                self._look_after(self._source)
        if transport.closed or not (transport.framed or self._x.peek.stream):
            return
        due = timers.keep_alive_due(now) if transport.started else timers.headers_due(now)
        if due and (answer is None or answer.clean):
            transport.keep_alive()
            timers.wrote_at = now

    def _look_after(self, source: UpstreamAnswer) -> None:
        """An answer of headers alone is as good as none where its host is dead: another account may give one."""
        since = self._timers.waiting_since
        assert since is not None
        self._patience_s *= 2

        def give_up() -> None:
            if self._source is source and not self._shown and self._timers.waiting_since == since:
                source.close()

        self._x.look_after(self._account, since, give_up)


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except (dialects.BadEncodingError, dialects.BodyTooLargeError) as wrong:
        raise dialects.BadBodyError(str(wrong)) from None
