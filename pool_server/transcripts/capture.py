"""One exchange as its client saw it, gathered on the event loop and handed in batches to whoever keeps it.

The loop appends references and nothing else; encoding, hashing, compressing and writing are the sink's, beside it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from time import monotonic
from typing import NamedTuple, Protocol

import msgspec

from pool_server.core.models import UsageRecord

BATCH_BYTES = 256 << 10  # so much is held before it is handed over, …
BATCH_EVENTS = 1024  # … or so many events
LARGE = 16 << 10  # bytes of a piece that is counted at once

Piece = bytes | str


class HeldFile:
    """A body that lies in a file: a descriptor of its own, which whoever takes it closes."""

    __slots__ = ("_fd", "size")

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self.size = size

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._fd, size, offset)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class CaptureHead(msgspec.Struct):
    """What is known when the exchange begins, and its agent and conversation once the request was read. `headers` are
    the client's own, secrets included: they are redacted before they are kept. `session` is the client's own name of
    the conversation, `conversation` the pool's hash of it."""

    id: str
    at: float
    user: str
    key: str
    dialect: str
    operation: str
    method: str
    path: str
    query: str
    headers: Sequence[tuple[str, str]]
    websocket: bool = False
    agent: str = ""
    session: str = ""
    conversation: str = ""


class Answered(NamedTuple):
    """The answer's status and headers."""

    status: int
    headers: list[tuple[str, str]]


CaptureEvent = tuple[float, Piece | Answered, bool]  # monotonic seconds; what came; whether from the client


class CaptureSink(Protocol):
    """Who keeps captures. Called on the event loop; must not block."""

    def take(self, capture: ExchangeCapture, events: list[CaptureEvent], size: int) -> None:
        """The next events, in their order, of `size` bytes."""

    def end(self, capture: ExchangeCapture, record: UsageRecord | None) -> None:
        """All was taken; `record` is the exchange's."""

    def drop(self, capture: ExchangeCapture) -> None:
        """Nothing of it is to be kept."""


class ExchangeCapture:
    """`dropped`: nothing more of it is wanted, nothing of it is kept."""

    __slots__ = ("_events", "_sink", "began", "body", "dropped", "head")

    def __init__(self, head: CaptureHead, body: bytes | HeldFile | None, sink: CaptureSink) -> None:
        self.head = head
        self.body = body
        self.dropped = False
        self._sink = sink
        self.began = monotonic()
        self._events: list[CaptureEvent] = []

    @property
    def parts(self) -> tuple[ExchangeCapture, ...]:
        return (self,)

    def named(self, agent: str, session: str, conversation: str) -> None:
        """The request was read."""
        self.head.agent, self.head.session, self.head.conversation = agent, session, conversation

    def answer(self, status: int, headers: list[tuple[str, str]]) -> None:
        """The answer begins."""
        self._add(Answered(status, headers), up=False)

    def down(self, piece: Piece) -> None:
        """A piece that the client was sent."""
        if not self.dropped:  # spelt out: this is each event's way
            events = self._events
            events.append((monotonic(), piece, False))
            if len(events) >= BATCH_EVENTS or len(piece) >= LARGE:
                self._look()

    def up(self, frame: Piece) -> None:
        """A WebSocket message of the client's."""
        self._add(frame, up=True)

    def end(self, record: UsageRecord | None) -> None:
        """The exchange is over."""
        self._hand_over()
        if not self.dropped:
            self._sink.end(self, record)

    def drop(self) -> None:
        """Forgets all of it."""
        if not self.dropped:
            self.dropped = True
            self._events = []
            self._sink.drop(self)

    def _add(self, what: Piece | Answered, *, up: bool) -> None:
        if not self.dropped:
            self._events.append((monotonic(), what, up))
            self._look()

    def _look(self) -> None:
        """Hands over what is much."""
        if len(self._events) >= BATCH_EVENTS or sum(len(what) for _, what, _ in self._events) > BATCH_BYTES:
            self._hand_over()

    def _hand_over(self) -> None:
        events, self._events = self._events, []
        if events and not self.dropped:
            self._sink.take(self, events, sum(len(what) for _, what, _ in events))


class PairedCapture(ExchangeCapture):
    """One exchange for two sinks that know nothing of each other: what one gives up the other keeps."""

    __slots__ = ("_pair",)

    def __init__(self, one: ExchangeCapture, other: ExchangeCapture) -> None:
        self._pair = (one, other)

    @property
    def parts(self) -> tuple[ExchangeCapture, ...]:
        return self._pair

    def named(self, agent: str, session: str, conversation: str) -> None:
        for part in self._pair:
            part.named(agent, session, conversation)

    def answer(self, status: int, headers: list[tuple[str, str]]) -> None:
        for part in self._pair:
            part.answer(status, headers)

    def down(self, piece: Piece) -> None:
        for part in self._pair:
            part.down(piece)

    def up(self, frame: Piece) -> None:
        for part in self._pair:
            part.up(frame)
