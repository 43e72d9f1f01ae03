"""Plays an answer against what is expected of it, without a socket: `feed` … `writes` … `ends`."""

from __future__ import annotations

import json
from typing import Any

from pool_server import dialects
from pool_server.core.enums import CredentialKind, Dialect, FaultKind, Operation, Outcome, Provider
from pool_server.core.models import Fault
from pool_server.gateway.answer import (
    End,
    FrameAnswer,
    Piece,
    RelayedAnswer,
    Step,
    StreamAnswer,
    Transformer,
    Withhold,
    Write,
)
from pool_server.gateway.attempts.bodies import BufferedAnswer, UndecidedAnswer
from pool_server.providers import Credential, Shield

SECRET = "sk-secret-of-the-account"
MASK = "[hidden]****************"


class Someone:
    """An account whose errors of 400 are the request's own."""

    def __init__(self) -> None:
        self.learnt: list[bytes] = []
        self.shield = Shield(Credential(Provider.OPENAI, "openai:a", CredentialKind.API_KEY, api_key=SECRET))

    def judge(self, status: int, body: bytes) -> Fault:
        kind = FaultKind.REQUEST if status == 400 else FaultKind.OVERLOAD
        return Fault(kind, message=f"judged {status}", status=status)

    def limits(self, raw: bytes) -> bytes:
        self.learnt.append(raw)
        return b'{"type":"codex.rate_limits","mine":true}'


class Playbook:
    """One answer and a clock. Every `feed`, `finish`, `broken` and `tick` is to be followed by what it leads to."""

    def __init__(self, answer: RelayedAnswer, account: Someone) -> None:
        self.answer = answer
        self.account = account
        self.now = 0.0
        self._step: Step | None = None
        self._asked = False

    def _play(self, step: Step | None) -> Playbook:
        assert not self._asked, "nothing was expected of the step before"
        self._step, self._asked = step, True
        return self

    def _taken(self) -> Step | None:
        assert self._asked
        self._asked = False
        return self._step

    def feed(self, piece: Piece) -> Playbook:
        step = self.answer.feed(piece, self.now)
        self.answer = self.answer.settled or self.answer
        return self._play(step)

    def offer(self, piece: Piece) -> Playbook:
        """As the short way does: what is ordinary is written, all else is fed."""
        if self.answer.flows and self.answer.ordinary(piece):
            return self._play(Write([piece]))
        return self.feed(piece)

    def finish(self) -> Playbook:
        return self._play(self.answer.finish(self.now))

    def broken(self, kind: FaultKind = FaultKind.NETWORK) -> Playbook:
        return self._play(self.answer.broken(Fault(kind, message="it broke")))

    def tick(self, at: float) -> Playbook:
        self.now = at
        return self._play(self.answer.tick(at))

    def nothing(self) -> Playbook:
        step = self._taken()
        assert step is None or isinstance(step, Withhold), step
        return self

    def writes(self, *pieces: Piece) -> Playbook:
        step = self._taken()
        assert isinstance(step, Write), step
        assert step.pieces == list(pieces)
        return self

    def ends(self, outcome: Outcome, *pieces: Piece, status: int = 200) -> Playbook:
        step = self._taken()
        assert isinstance(step, End), step
        assert (step.outcome, step.status, step.pieces) == (outcome, status, list(pieces))
        assert (step.fault is None) == (outcome is Outcome.OK)
        return self

    def fails(self, kind: FaultKind) -> Playbook:
        """Another account may answer."""
        step = self._taken()
        assert isinstance(step, Fault), step
        assert step.kind is kind
        assert not self.answer.committed
        return self


def stream(
    dialect: Dialect = Dialect.CHAT, transformer: Transformer | None = None, *, translated: bool = False
) -> Playbook:
    account = Someone()
    meter = dialects.meter(dialect, _OPERATION[dialect], stream=True)
    answer = StreamAnswer(meter, account, status=200, now=0.0, transformer=transformer, translated=translated)
    return Playbook(answer, account)


def body(
    dialect: Dialect = Dialect.CHAT,
    transformer: Transformer | None = None,
    *,
    operation: Operation | None = None,
    eager: bool = False,
    length: int | None = None,
) -> Playbook:
    account = Someone()
    meter = dialects.meter(dialect, operation or _OPERATION[dialect], stream=False)
    answer = BufferedAnswer(
        meter,
        account,
        status=200,
        now=0.0,
        transformer=transformer,
        eager=eager,
        any_body=operation is not None,
        length=length,
    )
    return Playbook(answer, account)


def undecided(*, labelled: bool) -> Playbook:
    """An answer to a request for a stream, with or without the label of one."""
    account = Someone()

    def make(as_stream: bool, _first: bytes) -> RelayedAnswer:
        return (stream() if as_stream else body()).answer

    return Playbook(UndecidedAnswer(make, account, labelled=labelled, now=0.0), account)


def frames() -> Playbook:
    account = Someone()
    return Playbook(FrameAnswer(dialects.frame_meter(), account, status=200, now=0.0), account)


_OPERATION = {
    Dialect.CHAT: Operation.CHAT,
    Dialect.RESPONSES: Operation.RESPONSES,
    Dialect.MESSAGES: Operation.MESSAGES,
    Dialect.GEMINI: Operation.GENERATE,
}


def event(data: Any) -> bytes:
    return b"data: " + (data if isinstance(data, bytes) else json.dumps(data).encode()) + b"\n\n"


def delta(text: str, **more: Any) -> bytes:
    """A piece of a chat answer."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return event({"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]} | more)


def frame(kind: str, **more: Any) -> str:
    return json.dumps({"type": kind} | more, separators=(",", ":"))
