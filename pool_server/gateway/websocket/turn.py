"""One turn on a Responses socket: send, hold bookkeeping, relay, meter, record before the end is released."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from pool_server import dialects
from pool_server.core.enums import Outcome, Signal
from pool_server.core.models import Fault
from pool_server.gateway.exchange import Exchange
from pool_server.gateway.http.relay import CLIENT_FAULTS, HOLD_BYTES, HOLD_EVENTS, HOLD_S, KEEPALIVE_S
from pool_server.gateway.websocket.links import Link, LinkClosedError
from pool_server.providers import Credential

_KEEPALIVE = '{"type":"keepalive"}'
_TICK_S = 2.5
Write = Callable[[str | bytes], Awaitable[None]]


class Turn:
    """`run` returns the account's fault, None when the client has its answer. After `committed` the client has seen
    some of the answer."""

    def __init__(self, x: Exchange, link: Link, write: Write, account: str, credential: Credential) -> None:
        self._x = x
        self._link = link
        self._write = write
        self._account = account
        self._credential = credential
        self._meter = dialects.frame_meter()
        self._held: list[str | bytes] = []
        self._held_bytes = 0
        self.committed = False
        self.stale = True  # if the link breaks off now, it may well have died between turns
        self._loop = asyncio.get_running_loop()
        self._opened = self._waiting_since = self._last_write = self._loop.time()
        self._waiting = False  # for the upstream; else a slow client is what takes the time
        self._release: asyncio.Task[None] | None = None

    async def run(self, frame: str | bytes) -> Fault | None:
        """Raises `LinkClosedError` when the upstream breaks off."""
        await self._link.send(frame)
        self._watchdog = self._loop.call_later(_TICK_S, self._tick)
        try:
            while True:
                self._waiting_since = self._loop.time()
                self._waiting = True
                piece = await self._link.receive()
                self._waiting = False
                self.stale = False
                signal = self._meter.feed(piece) if isinstance(piece, str) else Signal.RENDERED
                if signal is not Signal.RENDERED and signal is not Signal.NONE:
                    if signal & Signal.LIMITS:
                        piece = self._limits()
                    done, fault = await self._heed(signal, piece)
                    if done:
                        return fault
                await self._pass(piece, signal)
        finally:
            self._watchdog.cancel()
            self._x.usage = self._meter.usage

    def _tick(self) -> None:
        self._watchdog = self._loop.call_later(_TICK_S, self._tick)
        if not self._waiting:
            return
        now = self._loop.time()
        if now - self._waiting_since >= self._x.rooms.settings.upstream_idle_s:
            self.stale = False
            self._later(self._link.close())
        elif not self.committed and self._held and now - self._opened >= HOLD_S:
            self._later(self._commit())
        elif now - max(self._waiting_since, self._last_write) >= KEEPALIVE_S:
            self._later(self._write(_KEEPALIVE))
            self._last_write = now

    def _later(self, work: Awaitable[None]) -> None:
        async def quietly() -> None:
            try:
                await work
            except Exception:  # a client that is gone is noticed by its close callback
                return

        self._release = self._loop.create_task(quietly())

    async def _pass(self, piece: str | bytes, signal: Signal) -> None:
        if self._release is not None:  # what the clock sends goes first
            release, self._release = self._release, None
            await release
        if self.committed:
            self._x.response_bytes += len(piece)
            await self._write(piece)
            return
        self._held.append(piece)
        self._held_bytes += len(piece)
        if signal & Signal.RENDERED or len(self._held) >= HOLD_EVENTS or self._held_bytes >= HOLD_BYTES:
            await self._commit()

    async def _commit(self) -> None:
        if not self.committed:
            self.committed = True
            self._x.committed(self._account, 200)
            self._x.progressed(self._meter.usage)
        held, self._held = self._held, []
        for piece in held:
            self._x.response_bytes += len(piece)
            await self._write(piece)

    def _limits(self) -> str:
        """Learns the account's limits; the frame that tells the friend's own instead."""
        for raw in self._meter.limits:
            self._x.observe_event(self._account, self._credential, raw)
        self._meter.limits.clear()
        return self._x.rooms.view.event(self._x.principal).decode()

    async def _heed(self, signal: Signal, piece: str | bytes) -> tuple[bool, Fault | None]:
        """What the meter saw; (True, fault) when the turn is over."""
        meter = self._meter
        if signal & Signal.FAULT and meter.fault is not None:
            status, body = meter.fault
            fault = self._x.stream_fault(self._credential, status, body)
            if fault.kind not in CLIENT_FAULTS:
                return True, fault
            self._x.failed(self._account, self._credential, fault)
            piece = self._credential.hide_text(piece) if isinstance(piece, str) else piece
            await self._end(piece, Outcome.REQUEST_FAULT, fault.status or status, fault.message)
            return True, None
        if signal & Signal.TERMINAL:
            self._x.succeeded(self._account, meter.response_id)
            await self._end(piece, Outcome.OK, 200, "")
            return True, None
        return False, None

    async def _end(self, piece: str | bytes, outcome: Outcome, status: int, message: str) -> None:
        """Records the turn, then releases its last frame."""
        x = self._x
        x.heard(self._meter)
        await self._commit()
        x.response_bytes += len(piece)
        await x.record(outcome, status, message, partial=outcome is not Outcome.OK)
        await self._write(piece)

    def error_frame(self, closed: LinkClosedError, fault: Fault) -> str:
        """An HTTP refusal as the socket's error frame, the provider's own words untouched."""
        error: Any = {"message": fault.message, "code": fault.code or None, "type": "invalid_request_error"}
        try:
            body = msgspec.json.decode(self._credential.hide(closed.body), type=dict[str, Any])
            error = body.get("error", error)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        frame = {"type": "error", "status": closed.status, "error": error}
        return msgspec.json.encode(frame).decode()
