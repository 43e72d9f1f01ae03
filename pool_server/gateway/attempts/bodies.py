"""Answers that are one body, and those of which only their first bytes tell what they are."""

from __future__ import annotations

from collections.abc import Callable

from pool_server import dialects
from pool_server.core.enums import Dialect, Operation, Signal
from pool_server.core.lenient_json import BLANK, why_unread
from pool_server.core.models import Fault
from pool_server.gateway.answer import (
    WITHHOLD,
    AnsweringAccount,
    End,
    Ending,
    Piece,
    RelayedAnswer,
    Step,
    Transformer,
    UnusableAnswerError,
    Write,
)
from pool_server.providers import unusable_answer

_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")  # what an event stream begins with
_JSON = (b"{", b"[", b"")  # what a JSON answer begins with, or nothing yet


class BufferedAnswer(RelayedAnswer):
    """One body. JSON is held until it is whole, or too much of it is here, and then runs one piece behind, so that its
    last bytes follow the durable record; with `eager` its first piece commits. With `any_body` what is no JSON (audio,
    files) passes as it comes, but for the end of a body whose `length` in bytes is known."""

    streams = False

    def __init__(
        self,
        meter: dialects.Meter,
        account: AnsweringAccount,
        *,
        status: int,
        now: float,
        transformer: Transformer | None = None,
        eager: bool = False,
        any_body: bool = False,
        length: int | None = None,
    ) -> None:
        super().__init__(meter, account, status=status, now=now)
        self._transformer = transformer
        self._eager = eager
        self._passes = any_body and transformer is None  # until its first byte says that it is JSON
        self._left = length
        self._last = b""

    @property
    def withheld(self) -> int:
        return self._held_bytes + len(self._last)

    def feed(self, piece: Piece, now: float) -> Step:
        assert isinstance(piece, bytes)
        self.meter.feed(piece)
        if self._passes and not self.committed:
            self._passes = piece.lstrip(BLANK)[:1] not in _JSON
        if self._left is not None:
            self._left -= len(piece)
        if self._transformer is not None:
            piece = self._transformer.feed(piece)
        previous, self._last = self._last, self._shield.feed(piece)
        if self._passes and self._left != 0:
            previous, self._last = previous + self._last, b""
        if not previous:
            return WITHHOLD
        return Write([previous]) if self.committed else self._hold(previous, shows=self._eager or self._passes)

    def finish(self, now: float) -> Step:
        self.done = True
        signal = self.meter.finish()
        # `is` spares the arithmetic of flags where all is well.
        step = self._heed(signal) if signal is not Signal.TERMINAL and signal & Signal.FAULT else None
        if isinstance(step, Fault):
            return step
        if step is None and not self.meter.complete:
            return self.broken(unusable_answer(why_unread(self.meter.body)))
        return self._whole(step)

    def _whole(self, end: End | None) -> Step:
        """The end of a body that is here to its last byte; `end` where the meter has told it already."""
        try:
            rest = self._shield.feed(self._transformer.finish()) if self._transformer is not None else b""
        except UnusableAnswerError as why:
            return self.broken(unusable_answer(str(why)))
        rest += self._shield.rest()
        end = end or self._complete()
        self.ending = Ending.COMPLETE  # an error is a whole body too
        last, self._last = self._last, b""
        return self._with_held(end, last, rest)


class FoldedAnswer(BufferedAnswer):
    """Events that the client gets as one body, made by the transformer once they have ended."""

    def feed(self, piece: Piece, now: float) -> Step:
        assert isinstance(piece, bytes) and self._transformer is not None
        signal = self.meter.feed(piece)
        if signal is not Signal.RENDERED and signal is not Signal.NONE:
            self.meter.limits.clear()
        step = self._heed(signal & ~Signal.TERMINAL)
        if isinstance(step, Fault):
            return step
        self._transformer.feed(piece)
        if step is None and not signal & Signal.TERMINAL:
            return WITHHOLD
        self.done = True
        return self._whole(step)

    def _whole(self, end: End | None) -> Step:
        assert self._transformer is not None
        try:
            body = self._shield.feed(self._transformer.finish()) + self._shield.rest()
        except UnusableAnswerError as why:
            self.over = False
            return self.broken(unusable_answer(str(why)))
        end = end or self._complete()
        self.ending = Ending.COMPLETE  # an error is a whole body too
        return self._with_held(end, body)


_UNREAD = dialects.meter(Dialect.CHAT, Operation.COUNT_TOKENS, stream=False)


class UndecidedAnswer(RelayedAnswer):
    """An answer until its first bytes that are not blank say what it is: some servers send events under any label,
    bodies under that of events, and lists of events for one body. `make` is told whether it is a stream, and the first
    byte; `settled` is the answer it turns out to be."""

    def __init__(
        self, make: Callable[[bool, bytes], RelayedAnswer], account: AnsweringAccount, *, labelled: bool, now: float
    ) -> None:
        super().__init__(_UNREAD, account, status=200, now=now)
        self._make = make
        self._labelled = labelled
        self._blank = b""

    def feed(self, piece: Piece, now: float) -> Step:
        assert isinstance(piece, bytes)
        self._blank += piece
        start = self._blank.lstrip(BLANK)
        if not start:
            return WITHHOLD
        begins = any(start[: len(field)] == field[: len(start)] for field in _FIELDS)
        self.settled = self._make(begins or (self._labelled and start[:1] not in _JSON), start[:1])
        return self.settled.feed(self._blank, now)

    def finish(self, now: float) -> Step:
        self.done = True
        return self.broken(unusable_answer("the answer is empty"))
