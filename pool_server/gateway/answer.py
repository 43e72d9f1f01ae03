"""What becomes of an upstream's answer, without I/O: `feed(piece, now)` → Write, Withhold, Fault or End.

Nothing is released until the answer shows something (`Signal.RENDERED`), so that a fault before that may still be
cured by another account. After that commit point pieces pass as they come, except that an event cut in two is held
until its end is here: a cut upstream then never leaves half an event at the client. What ends the answer is handed
over as `End`, whose pieces are to be written once the record is durable.

`now` is any monotonic clock in seconds. The pieces of a `StreamAnswer` are decoded bytes, those of a `FrameAnswer`
WebSocket messages; answers that are one body stand in `attempts/bodies.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum
from typing import Protocol

from pool_server import dialects
from pool_server.core.enums import Outcome, Signal
from pool_server.core.models import Fault
from pool_server.providers import Shield, network_fault, unusable_answer
from pool_server.providers.evidence.table import PASSED_ON

HOLD_EVENTS = 32
HOLD_BYTES = 256 << 10
HOLD_S = 10.0
LINGER_S = 5.0  # how long an upstream may keep its stream open after the terminal event

Piece = bytes | str


class Ending(Enum):
    """How an answer came to its end, for the transport to show."""

    COMPLETE = "complete"
    ERROR = "error"  # the provider's own error ends it
    BROKEN = "broken"  # the upstream broke off


class Withhold:
    """Nothing is to be released yet."""


class Write:
    """Pieces to release now, in their order."""

    __slots__ = ("pieces",)

    def __init__(self, pieces: list[Piece]) -> None:
        self.pieces = pieces


class End:
    """The answer is over: `pieces` are released once the outcome is recorded. `fault` is None for a good end."""

    __slots__ = ("fault", "message", "outcome", "pieces", "status")

    def __init__(self, outcome: Outcome, status: int, fault: Fault | None, pieces: list[Piece]) -> None:
        self.outcome = outcome
        self.status = status
        self.fault = fault
        self.message = fault.message if fault is not None else ""
        self.pieces = pieces


WITHHOLD = Withhold()
Step = Write | Withhold | Fault | End  # a bare Fault: nothing was released, another account may answer


class AnsweringAccount(Protocol):
    """The account that answers, as far as its answer must know it. All that goes down passes its `shield`."""

    @property
    def shield(self) -> Shield: ...

    def judge(self, status: int, body: bytes) -> Fault:
        """What an error of this status and JSON body within the answer means."""

    def limits(self, raw: bytes) -> bytes:
        """Learns from a quota event (raw JSON) and returns what the client is shown in its place."""


class Transformer(Protocol):
    """Changes one attempt's request and its answer on their way; made anew for each attempt.

    `request` gets the decoded body and returns what goes up in its place, None to leave it. `feed` gets the answer's
    decoded bytes, which were metered before: whole events (one too large to hold comes in pieces) or pieces of a
    body; it returns what the client is to get for them, b"" for nothing. `finish` returns what is still to come when
    the upstream's bytes have ended, and raises `UnusableAnswerError` where nothing was returned and nothing can be.
    `reads_all` is False where ordinary events may pass by it. `failed` says why what was told ends with an error though
    the upstream's answer is whole, "" where it does not.
    """

    reads_all: bool

    @property
    def failed(self) -> str: ...

    def request(self, body: bytes) -> bytes | None: ...

    def feed(self, piece: bytes) -> bytes: ...

    def finish(self) -> bytes: ...


class UnusableAnswerError(Exception):
    """A transformer can make nothing of the answer; the text says why."""


class RelayedAnswer(ABC):
    """What the three kinds of answer share: the judgement of what the meter saw, and what is held.

    `committed`: something was released. `over`: its `End` was handed out; what still comes is only passed on.
    `done`: nothing more is wanted of the upstream. `mid_event`: what was released ends within an event. `settled`: what
    an answer of unknown kind has turned out to be. `latest`: what was released last of a stream. `refusal`: the
    request's own fault as (HTTP status, JSON error body), where it came instead of a translated stream.
    """

    settled: RelayedAnswer | None = None
    refusal: tuple[int, bytes] | None = None
    mid_event = False
    streams = True  # the client takes it event by event: it can be kept alive, and told an error at any time

    def __init__(self, meter: dialects.Meter, account: AnsweringAccount, *, status: int, now: float) -> None:
        self.meter = meter
        self.committed = False
        self.over = False
        self.done = False
        self.ending = Ending.BROKEN
        self.latest: Piece = b""
        self._account = account
        self._shield = account.shield
        self._status = status
        self._held: list[Piece] = []
        self._held_bytes = 0
        self._opened = now

    @property
    def clean(self) -> bool:
        """Between two events of a stream: a keep-alive may be written."""
        return self.streams and not self.over and not self.mid_event

    @property
    def withheld(self) -> int:
        """Bytes that are here and were not released."""
        return self._held_bytes

    @property
    def flows(self) -> bool:
        """Ordinary events may be offered to `ordinary` as they come."""
        return False

    def ordinary(self, piece: Piece) -> bool:
        """Whether this is no more than plain events, to be released as it is. If not, `feed` is to have it, alone or
        as the beginning of its next piece."""
        return False

    @abstractmethod
    def feed(self, piece: Piece, now: float) -> Step:
        """The next piece of the answer."""

    @abstractmethod
    def finish(self, now: float) -> Step:
        """The upstream's pieces have ended."""

    def tick(self, now: float) -> Write | None:
        """What was held for too long, to be released now."""
        if self._held and not self.over and now - self._opened >= HOLD_S:
            return self._release()
        return None

    def broken(self, fault: Fault) -> Step:
        """The upstream broke off, and what that means."""
        self.done = True
        if self.over:
            return WITHHOLD
        if not self.committed and fault.kind not in PASSED_ON:
            return fault
        self.over = True
        outcome = Outcome.REQUEST_FAULT if fault.kind in PASSED_ON else Outcome.CUT
        return End(outcome, fault.status or self._status, fault, [b"\n\n"] if self.mid_event else [])

    def _heed(self, signal: Signal) -> End | Fault | None:
        """What the meter saw, if it ends the attempt."""
        if signal & Signal.FAULT and self.meter.fault is not None:
            status, body = self.meter.fault
            fault = self._account.judge(status, body)
            if not self.committed and fault.kind not in PASSED_ON:
                return fault
            self.over, self.ending = True, Ending.ERROR
            outcome = Outcome.REQUEST_FAULT if fault.kind in PASSED_ON else Outcome.CUT
            return End(outcome, fault.status or status, fault, [])
        if signal & Signal.TERMINAL:
            return self._complete()
        return None

    def _complete(self) -> End:
        self.over, self.ending = True, Ending.COMPLETE
        return End(Outcome.OK, self._status, None, [])

    def _hold(self, piece: Piece, *, shows: bool) -> Write | Withhold:
        """Keeps a piece until something shows or too much is held."""
        self._held.append(piece)
        self._held_bytes += len(piece)
        full = len(self._held) >= HOLD_EVENTS or self._held_bytes >= HOLD_BYTES
        return self._release() if shows or full else WITHHOLD

    def _release(self) -> Write:
        self.committed = True
        held, self._held = self._held, []
        self._held_bytes = 0
        return Write(held)

    def _with_held(self, end: End, *pieces: Piece) -> End:
        """The end, with everything that is to be released behind its record."""
        end.pieces = [*self._release().pieces, *(piece for piece in pieces if piece)]
        return end


class StreamAnswer(RelayedAnswer):
    """Server-sent events. `closing` is the last one of its dialect, told where the upstream leaves it out."""

    def __init__(
        self,
        meter: dialects.Meter,
        account: AnsweringAccount,
        *,
        status: int,
        now: float,
        transformer: Transformer | None = None,
        translated: bool = False,
        closing: bytes = b"",
    ) -> None:
        super().__init__(meter, account, status=status, now=now)
        self._transformer = transformer
        self._closing = closing
        self._translated = translated
        self._limits: list[bytes] = []  # quota events of the account that are yet to be replaced
        self._tail: list[bytes] = []  # the beginning of an event whose end is not here yet
        self._tail_bytes = 0
        self._known = 0  # bytes of the next piece that the meter has seen, …
        self._said = Signal.NONE  # … and what it said of them

    @property
    def flows(self) -> bool:
        if self._transformer is not None and self._transformer.reads_all:
            return False
        return self.committed and not (self.over or self._tail or self.mid_event)

    @property
    def withheld(self) -> int:
        return self._held_bytes + self._tail_bytes

    def ordinary(self, piece: Piece) -> bool:
        meter = self.meter  # spelt out: this is each event's way
        plain = meter.at_boundary and meter.glance(piece)  # type: ignore[arg-type]
        signal = Signal.RENDERED if plain else meter.feed(piece)  # type: ignore[arg-type]
        # `is` spares the flag arithmetic, which costs more than the rest of an ordinary event's way.
        if plain or ((signal is Signal.RENDERED or signal is Signal.NONE) and meter.at_boundary):
            for needle in self._shield.needles:
                if needle in piece:
                    break
            else:
                self.latest = piece
                return True
        self._known, self._said = len(piece), signal
        return False

    def feed(self, piece: Piece, now: float) -> Step:
        assert isinstance(piece, bytes)
        signal = self.meter.feed(piece) if not self._known else self._feed_rest(piece)
        end: End | None = None
        if signal is not Signal.RENDERED and signal is not Signal.NONE and not self.over:
            if signal & Signal.LIMITS:
                self._limits += self.meter.limits
                self.meter.limits.clear()
            step = self._heed(signal)
            if isinstance(step, Fault):
                return step
            end = step
        out = self._whole_events(piece)
        if self._limits and out:
            out = self._with_limits_replaced(out)
        if self._transformer is not None and out:
            out = self._transformer.feed(out)
        out = self._shield.feed(out)
        if end is not None:
            end = self._as_told(end)
            told = out or self._held or self.committed
            return self._with_held(end, out) if told or not self._translated else self._rest_at_once(end)
        if not out:
            return WITHHOLD
        self.latest = out
        if self.committed:
            return Write([out])
        return self._hold(out, shows=signal is Signal.RENDERED or bool(signal & Signal.RENDERED))

    def _heed(self, signal: Signal) -> End | Fault | None:
        step = super()._heed(signal)
        if self._translated and not self.committed and isinstance(step, End) and step.fault is not None:
            # Nothing of another dialect's stream was told: the client gets a refusal with its status.
            self.over, self.refusal = False, self.meter.fault
            return step.fault
        return step

    def _as_told(self, end: End) -> End:
        """The end as the client was told it: an error after a whole answer too, where the transformer could not tell
        all of it. That is what the model wrote, and no fault of the account."""
        if self._transformer is not None and end.fault is None and (why := self._transformer.failed):
            self.ending = Ending.ERROR
            end.outcome, end.message = Outcome.CUT, why
        return end

    def _rest_at_once(self, end: End) -> Step:
        """The end of a translated stream that has told nothing: an empty success would be none."""
        assert self._transformer is not None
        self.done = True
        try:
            rest = self._shield.feed(self._transformer.finish()) + self._shield.rest()
        except UnusableAnswerError as why:
            self.over = False
            return self.broken(unusable_answer(str(why)))
        return self._with_held(end, rest)

    def _feed_rest(self, piece: bytes) -> Signal:
        """What the meter says of a piece whose beginning `ordinary` has shown it."""
        rest, said = piece[self._known :], self._said
        self._known = 0
        return said | self.meter.feed(rest) if rest else said

    def _with_limits_replaced(self, out: bytes) -> bytes:
        """The account's own limits are nobody's business: the user's stand in their place, as in the headers."""
        for raw in self._limits:
            out = out.replace(raw, self._account.limits(raw))
        self._limits.clear()
        return out

    def _whole_events(self, piece: bytes) -> bytes:
        """What may be released now; the beginning of an unfinished event is kept. A huge event is released in
        pieces."""
        if self.meter.at_boundary:
            self.mid_event = False
            if self._tail:
                piece = b"".join((*self._tail, piece))
                self._drop_tail()
            return piece
        before = b"".join(self._tail[-3:])[-3:]  # a boundary may straddle two pieces
        end = last_boundary(before + piece) - len(before)
        whole = b""
        if end > 0:
            whole = b"".join((*self._tail, piece[:end]))
            self._tail, self._tail_bytes = [piece[end:]], len(piece) - end
            self.mid_event = False
        else:
            self._tail.append(piece)
            self._tail_bytes += len(piece)
        if self._tail_bytes > HOLD_BYTES:
            whole += b"".join(self._tail)
            self._drop_tail()
            self.mid_event = True
        return whole

    def _drop_tail(self) -> None:
        self._tail.clear()
        self._tail_bytes = 0

    def finish(self, now: float) -> Step:
        self.done = True
        end: End | None = None
        if not self.over:
            signal = self.meter.finish()
            step = self._heed(signal) if signal & Signal.FAULT else None
            if isinstance(step, Fault):
                return step
            if step is None and not self.meter.complete:
                return self.broken(network_fault("the answer ended before it was complete"))
            end = step or self._complete()
        rest = b"".join(self._tail)
        self._drop_tail()
        if self._transformer is not None:
            try:
                rest = (self._transformer.feed(rest) if rest else b"") + self._transformer.finish()
            except UnusableAnswerError as why:
                self.over = False
                return self.broken(unusable_answer(str(why)))
        rest = self._shield.feed(rest) + self._shield.rest()
        if end is not None:
            closing = self._closing if end.fault is None else b""
            return self._with_held(self._as_told(end), rest, b"\n\n" if closing and rest else b"", closing)
        return Write([rest]) if rest else WITHHOLD


class FrameAnswer(RelayedAnswer):
    """One turn of a Responses WebSocket: each piece is one whole event, the terminal one is the last."""

    def __init__(self, meter: dialects.FrameMeter, account: AnsweringAccount, *, status: int, now: float) -> None:
        super().__init__(meter, account, status=status, now=now)
        self._frames = meter
        self._said: Signal | None = None  # of the next piece, which the meter has seen

    @property
    def flows(self) -> bool:
        return self.committed and not self.over

    def ordinary(self, piece: Piece) -> bool:
        signal = self._frames.feed(piece) if type(piece) is str else Signal.RENDERED
        if (signal is Signal.RENDERED or signal is Signal.NONE) and type(piece) is str:
            for word in self._shield.words:
                if word in piece:
                    break
            else:
                return True
        self._said = signal
        return False

    def feed(self, piece: Piece, now: float) -> Step:
        signal, self._said = self._said, None
        if signal is None:
            signal = self._frames.feed(piece) if isinstance(piece, str) else Signal.RENDERED
        piece = self._shield.text(piece) if isinstance(piece, str) else self._shield.whole(piece)
        if signal is not Signal.RENDERED and signal is not Signal.NONE:
            if signal & Signal.LIMITS:
                for raw in self.meter.limits:
                    piece = self._account.limits(raw).decode()
                self.meter.limits.clear()
            step = self._heed(signal)
            if isinstance(step, Fault):
                return step
            if step is not None:
                self.done = True
                if step.outcome is Outcome.CUT:  # it is asked for again: its error would make the client give up
                    self.ending = Ending.BROKEN
                    return step
                return self._with_held(step, piece)
        if self.committed:
            return Write([piece])
        return self._hold(piece, shows=signal is Signal.RENDERED or bool(signal & Signal.RENDERED))

    def finish(self, now: float) -> Step:
        return self.broken(network_fault("the answer ended before it was complete"))


def last_boundary(data: bytes) -> int:
    """Where the last whole event of `data` ends, 0 when none does."""
    ends = (b"\n\n", b"\r\n\r\n", b"\r\r")
    return max((at + len(end) for end in ends if (at := data.rfind(end)) >= 0), default=0)
