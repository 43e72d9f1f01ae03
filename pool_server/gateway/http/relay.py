"""Carries one upstream answer to one HTTP client: commit point, metering, keep-alive, ending.

Nothing reaches the client until the answer shows something (`Signal.RENDERED`), so that a fault before that may
still be served by another account. After that point bytes pass as they come, except that an event cut in two is
held until its end is here: a cut upstream then never leaves half an event at the client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from pool_server import dialects
from pool_server.core.enums import ErrorKind, FaultKind, Outcome, Provider, Signal, Transport
from pool_server.core.models import ClientError, Fault
from pool_server.gateway import metrics
from pool_server.gateway.headers import downward
from pool_server.http1 import Answer, ClientDisconnectedError, UpstreamDisconnectedError
from pool_server.providers import Credential, network_fault

if TYPE_CHECKING:
    from pool_server.gateway.exchange import Exchange
    from pool_server.gateway.http.reply import Reply

HOLD_EVENTS = 32
HOLD_BYTES = 256 << 10
HOLD_S = 10.0
KEEPALIVE_S = 15.0
EARLY_HEADERS_S = 25.0  # a streaming client gets headers by then, whatever the upstream does
_LINGER_S = 5.0  # how long an upstream may keep its stream open after the terminal event
CLIENT_FAULTS = frozenset({FaultKind.REQUEST, FaultKind.CONTINUATION})
_SSE_HEADERS = [("Content-Type", "text/event-stream; charset=utf-8"), ("Cache-Control", "no-cache")]


class AnswerTimers:
    """The clockwork of one exchange, across its attempts: early headers, keep-alive, silence limits.

    The gateway ticks all live exchanges together every few seconds, so that none needs a timer of its own.
    """

    def __init__(self, exchange: Exchange, reply: Reply) -> None:
        self._exchange = exchange
        self._reply = reply
        self.relay: Relay | None = None
        self.last_write = self._since = asyncio.get_running_loop().time()

    def tick(self, now: float) -> None:
        """Does what is due; `now` is the event loop's time in seconds."""
        relay = self.relay
        if relay is not None:
            relay.tick(now)
        if not self._exchange.peek.stream or self._reply.closed:
            return
        if not self._reply.started:
            if now - self._since >= EARLY_HEADERS_S and relay is None:
                self._reply.start(200, _SSE_HEADERS)
                self.last_write = now
        elif now - self.last_write >= KEEPALIVE_S and not self._reply.finished and (relay is None or relay.clean):
            self._reply.write(dialects.keepalive(self._exchange.route.dialect))
            self.last_write = now


class Relay:
    """One attempt's answer. `run` returns a fault another account may cure, None when the client has it."""

    def __init__(
        self,
        exchange: Exchange,
        reply: Reply,
        watch: AnswerTimers,
        answer: Answer,
        account: str,
        credential: Credential,
        listen: Callable[[bytes], object] | None = None,
    ) -> None:
        self._listen = listen
        self._x = exchange
        self._reply = reply
        self._watch = watch
        self._answer = answer
        self._account = account
        self._credential = credential
        self._stream = "event-stream" in answer.fields.get("content-type", "")
        self._meter = dialects.meter(exchange.route.dialect, exchange.route.operation, stream=self._stream)
        encoding = answer.fields.get("content-encoding", "identity").strip().lower()
        self._inflater = dialects.Inflater(encoding) if encoding not in ("", "identity") else None
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._current = b""  # the chunk whose signals are heeded
        self._limits: list[bytes] = []  # quota events of the account that are yet to be replaced
        self._tail: list[bytes] = []  # the beginning of an event whose end is not here yet
        self._tail_bytes = 0
        self._mid_event = False  # what the client has ends within an event too large to hold
        self._committed = False
        self._over = False  # the exchange is recorded; what still comes is only passed on
        self._known = 0  # bytes of the next chunk that the meter has seen, …
        self._said = Signal.NONE  # … and what it said of them
        self._behind: asyncio.Future[None] | None = None  # done when the client has read what `_at_once` wrote
        self._loop = asyncio.get_running_loop()
        self._opened = self._last_read = self._loop.time()
        exchange.transport = Transport.SSE if self._stream else Transport.BUFFERED

    @property
    def clean(self) -> bool:
        """Between two events of a stream: a keep-alive may be written."""
        return self._stream and not self._over and not self._mid_event

    def tick(self, now: float) -> None:
        """Called every few seconds: ends a silent upstream, commits an answer held for too long."""
        settings = self._x.rooms.settings
        if now - self._last_read >= (_LINGER_S if self._over else settings.upstream_idle_s):
            self._answer.close()
        elif self._stream and not self._committed and now - self._opened >= HOLD_S:
            self._commit()

    async def run(self) -> Fault | None:
        """Relays to the end. Never raises for what the upstream does; CancelledError passes through."""
        try:
            return await self._run()
        finally:
            self._answer.at_once = None
            self._x.usage = self._meter.usage

    async def _run(self) -> Fault | None:
        read = self._answer.read
        while True:
            try:
                chunk = await read()
            except UpstreamDisconnectedError:
                return None if self._over else await self._broken("the connection broke off")
            if not chunk:
                break
            self._last_read = self._loop.time()
            if self._behind is not None:
                behind, self._behind = self._behind, None
                await behind
            seen = chunk if self._inflater is None else self._inflater.feed(chunk)
            signal = self._meter.feed(seen) if not self._known else self._feed_rest(seen)
            if self._listen is not None:
                self._listen(seen)
            # `is not` spares the flag arithmetic, which costs more than the rest of an ordinary event's way.
            if signal is not Signal.RENDERED and signal is not Signal.NONE and not self._over:
                self._current = chunk
                fault = await self._heed(signal)
                self._current = b""
                if fault is not None:
                    return fault
                if signal & Signal.FAULT and self._stream:
                    chunk = self._credential.hide(chunk)  # the error's own words go on to the client
            if self._stream:
                await self._pass_event_bytes(chunk, signal)
            else:
                await self._pass_body_bytes(chunk)
        return await self._end()

    # -- passing bytes on

    def _at_once(self, chunk: bytes) -> bool:
        """An ordinary event's short way, from socket to socket: waking the task would cost a quarter more. False for
        all else: the task sees to the chunk, which the meter then has read already."""
        signal = self._meter.feed(chunk)
        if (signal is not Signal.RENDERED and signal is not Signal.NONE) or not self._meter.at_boundary:
            self._known, self._said = len(chunk), signal
            self._answer.at_once = None
            return False
        self._last_read = self._watch.last_write = self._loop.time()
        try:
            self._behind = self._reply.write(chunk)
        except ClientDisconnectedError:
            return True  # the task is about to hear of it
        if self._behind is not None:
            self._answer.at_once = None  # the task waits for the client before it takes more
        return True

    def _feed_rest(self, seen: bytes) -> Signal:
        """What the meter says of a chunk whose beginning `_at_once` has shown it."""
        rest, said = seen[self._known :], self._said
        self._known = 0
        return said | self._meter.feed(rest) if rest else said

    def _hurry(self) -> None:
        """From here on ordinary events may go the short way."""
        if not (self._over or self._tail or self._mid_event or self._inflater is not None or self._listen is not None):
            self._answer.at_once = self._at_once

    async def _pass_event_bytes(self, chunk: bytes, signal: Signal) -> None:
        """Releases whole events; the beginning of an unfinished one waits for its end (bounded)."""
        if not self._meter.at_boundary and self._inflater is None:
            chunk = self._cut_tail(chunk)
            if not chunk:
                return
        elif self._tail:
            chunk = b"".join((*self._tail, chunk))
            self._tail.clear()
            self._tail_bytes = 0
        self._mid_event = self._mid_event and not self._meter.at_boundary
        if self._x.usage_added and signal & Signal.USAGE:
            chunk = dialects.without_usage(chunk)
        if self._limits:
            chunk = self._with_friends_limits(chunk)
        if self._committed:
            await self._write(chunk)
            self._hurry()
            return
        self._held.append(chunk)
        self._held_bytes += len(chunk)
        full = len(self._held) >= HOLD_EVENTS or self._held_bytes >= HOLD_BYTES
        if signal & (Signal.RENDERED | Signal.TERMINAL | Signal.FAULT) or full:
            await _caught_up(self._commit())
            self._hurry()

    def _with_friends_limits(self, chunk: bytes) -> bytes:
        """The account's own limits are nobody's business: the friend's stand in their place, as in the headers."""
        event = self._x.rooms.view.event(self._x.principal)
        for raw in self._limits:
            chunk = chunk.replace(raw, event)
        self._limits.clear()
        return chunk

    def _cut_tail(self, chunk: bytes) -> bytes:
        """What of the chunk may go out now; the rest is kept. A huge event is passed on in pieces."""
        before = b"".join(self._tail[-3:])[-3:]  # a boundary may straddle two chunks
        end = last_boundary(before + chunk) - len(before)
        whole = b""
        if end > 0:
            whole = b"".join((*self._tail, chunk[:end]))
            self._tail = [chunk[end:]]
            self._tail_bytes = len(chunk) - end
            self._mid_event = False
        else:
            self._tail.append(chunk)
            self._tail_bytes += len(chunk)
        if self._tail_bytes > HOLD_BYTES:
            whole += b"".join(self._tail)
            self._tail.clear()
            self._tail_bytes = 0
            self._mid_event = True
        return whole

    async def _pass_body_bytes(self, chunk: bytes) -> None:
        """A buffered answer runs one chunk behind, so that its last bytes follow the durable record."""
        previous = self._tail.pop() if self._tail else b""
        self._tail.append(chunk)
        if previous and self._committed:
            await self._write(previous)
        elif previous:
            self._held.append(previous)
            await _caught_up(self._commit())
        elif self._x.first_byte_ms is None:
            self._x.committed(self._account, self._answer.status)

    async def _write(self, chunk: bytes) -> None:
        behind = self._reply.write(chunk)
        self._watch.last_write = self._last_read
        if behind is not None:  # spelt out: this is each event's way
            await behind

    def _commit(self) -> asyncio.Future[None] | None:
        """From here on the client has seen something of this account's answer."""
        self._committed = True
        if self._x.first_byte_ms is None:
            self._x.committed(self._account, self._answer.status)
        self._x.progressed(self._meter.usage)
        first = (self._x.first_byte_ms or 0.0) / 1000
        metrics.first_byte_of(self._credential.provider.value).observe(first)
        turn_state = self._answer.fields.get("x-codex-turn-state")
        if turn_state:
            self._x.own(self._account, "turn_state", turn_state)
        chunk = b"".join(self._held)
        self._held.clear()
        self._watch.last_write = self._loop.time()
        if self._reply.started:  # early headers are out already
            return self._reply.write(chunk)
        length = None if self._stream else self._content_length()
        headers = downward(self._answer.headers)
        if self._credential.provider is Provider.CODEX:
            headers = self._x.rooms.view.instead(headers, self._x.principal)
        return self._reply.start(self._answer.status, headers, chunk, length=length)

    def _content_length(self) -> int | None:
        text = self._answer.fields.get("content-length", "")
        return int(text) if text.isdigit() else None

    # -- what the meter saw

    async def _heed(self, signal: Signal) -> Fault | None:
        meter = self._meter
        if signal & Signal.LIMITS:
            for raw in meter.limits:
                self._x.observe_event(self._account, self._credential, raw)
            self._limits += meter.limits
            meter.limits.clear()
        if signal & Signal.FAULT and meter.fault is not None:
            return await self._stream_fault(*meter.fault)
        if signal & Signal.TERMINAL:
            await self._good_end()
        return None

    async def _stream_fault(self, status: int, body: bytes) -> Fault | None:
        """An error event: another account's chance before the commit point, the end of the exchange after it."""
        fault = self._x.stream_fault(self._credential, status, body)
        if not self._committed and fault.kind not in CLIENT_FAULTS:
            return fault
        self._x.failed(self._account, self._credential, fault)
        self._over = True
        outcome = Outcome.REQUEST_FAULT if fault.kind in CLIENT_FAULTS else Outcome.CUT
        self._note_end()
        await self._x.record(outcome, fault.status or status, fault.message, partial=True)
        return None

    async def _good_end(self) -> None:
        self._over = True
        self._x.succeeded(self._account, self._meter.response_id)
        self._note_end()
        if self._x.first_byte_ms is None:
            self._x.committed(self._account, self._answer.status)
        await self._x.record(Outcome.OK, self._answer.status)

    def _note_end(self) -> None:
        self._x.heard(self._meter)
        kept = (*self._held, *self._tail, self._current)
        self._x.response_bytes = self._reply.bytes + sum(map(len, kept))

    # -- the end of the upstream's bytes

    async def _end(self) -> Fault | None:
        if not self._over:
            signal = self._meter.finish()
            if signal & Signal.FAULT and self._meter.fault is not None:
                fault = await self._stream_fault(*self._meter.fault)
                if fault is not None:
                    return fault
            elif not self._meter.complete:
                return await self._broken("the answer ended before it was complete")
            else:
                await self._good_end()
        if not self._committed:
            self._held += self._tail  # headers and body leave in one write
            self._tail.clear()
            await _caught_up(self._commit())
        if self._tail:
            await self._write(b"".join(self._tail))
            self._tail.clear()
        if self._stream and not self._meter.complete:
            self._reply.break_off(self._x.route.dialect)  # an error event ended it
        else:
            self._reply.finish()
        return None

    async def _broken(self, why: str) -> Fault | None:
        """The upstream broke off: another account before the commit point, an honest end after it."""
        fault = network_fault(why)
        if not self._committed:
            self._x.first_byte_ms = None
            return fault
        self._x.failed(self._account, self._credential, fault)
        self._note_end()
        await self._x.record(Outcome.CUT, self._answer.status, why, partial=True)
        if self._stream:
            provider = self._credential.provider
            error = ClientError(ErrorKind.CUT, f"{provider.value}: {why}.", 502, provider=provider)
            if self._mid_event:
                await self._reply.send(b"\n\n")
            await self._reply.error_event(self._x.route.dialect, error)
        else:
            self._reply.abort()
        return None


def last_boundary(data: bytes) -> int:
    """Where the last whole event of `data` ends, 0 when none does."""
    bare, full = data.rfind(b"\n\n"), data.rfind(b"\r\n\r\n")
    return max(bare + 2 if bare >= 0 else 0, full + 4 if full >= 0 else 0)


async def _caught_up(behind: asyncio.Future[None] | None) -> None:
    """Waits until a slow client has read enough."""
    if behind is not None:
        await behind
