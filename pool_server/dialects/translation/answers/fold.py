"""An answer put together again: the writer behind every answer in one piece."""

from __future__ import annotations

import msgspec

from pool_server.core.models import Usage
from pool_server.dialects.translation.neutral import (
    ErrorInfo,
    Finish,
    Media,
    Part,
    Reasoning,
    Text,
    TokenLogprob,
    ToolCall,
)


class WholeAnswer(msgspec.Struct):
    """A whole answer. A reasoning part's `seal` is already as the client is to keep it."""

    ident: str = ""
    model: str = ""
    parts: list[Part] = []
    finish: Finish = Finish.STOP
    stop: str = ""
    usage: Usage = msgspec.field(default_factory=Usage)


class Fold:
    """Collects blocks into an `Answer`; `answer` is None until the answer is whole."""

    live_arguments = False
    keeps = True

    def __init__(self, *, json_arguments: bool, shows: bool) -> None:
        self.json_arguments = json_arguments
        self.shows = shows
        self.answer: WholeAnswer | None = None
        self._answer = WholeAnswer()
        self._pieces: list[str] = []

    def begin(self, ident: str, model: str) -> None:
        self._answer.ident, self._answer.model = ident, model

    def open_text(self, refusal: bool) -> None:
        self._open(Text("", refusal))

    def _open(self, part: Part) -> None:
        self._pieces = []
        self._answer.parts.append(part)

    def logprobs(self, tokens: list[TokenLogprob]) -> None:
        part = self._answer.parts[-1]
        if isinstance(part, Text):
            part.logprobs += tokens

    def text(self, piece: str) -> None:
        self._pieces.append(piece)

    def close_text(self) -> None:
        part = self._answer.parts[-1]
        if isinstance(part, Text):
            part.text = "".join(self._pieces)

    def media(self, mime: str, data: str) -> None:
        self._answer.parts.append(Media(mime.partition("/")[0], mime, data))

    def open_reasoning(self) -> None:
        self._open(Reasoning())

    def reasoning(self, piece: str) -> None:
        self._pieces.append(piece)

    def close_reasoning(self, seal: str, redacted: bool) -> None:
        part = self._answer.parts[-1]
        if isinstance(part, Reasoning):
            part.text, part.seal, part.redacted = "".join(self._pieces), seal, redacted

    def open_call(self, ident: str, name: str, custom: bool) -> None:
        self._open(ToolCall(ident, name, custom=custom))

    def arguments(self, piece: str) -> None:
        pass

    def close_call(self, arguments: str, cut: bool) -> None:
        part = self._answer.parts[-1]
        if cut and self.json_arguments:  # the dialect has no word for it
            self._answer.parts.pop()
        elif isinstance(part, ToolCall):
            part.arguments, part.cut = arguments, cut

    def finish(self, reason: Finish, stop: str, usage: Usage) -> None:
        answer = self._answer
        answer.finish, answer.stop, answer.usage = reason, stop, usage
        self.answer = answer

    def fail(self, error: ErrorInfo) -> None:
        self._answer = WholeAnswer()
