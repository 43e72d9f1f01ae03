"""Gemini's events, written block by block: text as it comes, calls whole."""

from __future__ import annotations

from typing import Any

from msgspec.json import encode

from pool_server.core.enums import Dialect
from pool_server.core.models import Usage
from pool_server.dialects.translation.answers.logprobs import google_tokens
from pool_server.dialects.translation.errors import error_body
from pool_server.dialects.translation.gemini.answer import TOLD, write_part, write_usage
from pool_server.dialects.translation.neutral import ErrorInfo, Finish, TokenLogprob, ToolCall


def error_event(error: ErrorInfo) -> bytes:
    return b"data: " + encode(error_body(Dialect.GEMINI, error)) + b"\n\n"


class GeminiStreamWriter:
    """Every event is a whole answer's shape; the last has the finish and the usage. `wrapped` puts each into Code
    Assist's envelope; `index` is the choice's. Of several choices the one that ends `last` tells the usage."""

    json_arguments = True
    live_arguments = False
    keeps = False
    shows = True

    def __init__(self, *, wrapped: bool = False, index: int = 0) -> None:
        self.out: list[bytes] = []
        self.last = True
        self._index = index
        self._before = b'"candidates":[{"index":%d,"content":{"role":"model","parts":[' % index
        self._tokens: list[TokenLogprob] = []  # of the next piece
        self._sum, self._count = 0.0, 0
        self._wrapped = wrapped
        self._names: dict[str, Any] = {}
        self._head = self._tail = b""
        self._call = ToolCall("", "")

    def begin(self, ident: str, model: str) -> None:
        self._names = {"modelVersion": model, "responseId": ident}
        self._head = b'data: {"response":{' if self._wrapped else b"data: {"
        self._tail = b"," + encode(self._names)[1:] + (b"}\n\n" if self._wrapped else b"\n\n")

    def _parts(self, parts: bytes) -> None:
        told = b"]}}]"
        if self._tokens:
            told = b']},"logprobsResult":' + encode(google_tokens(self._tokens)) + b"}]"
            self._tokens = []
        self.out.append(self._head + self._before + parts + told + self._tail)

    def open_text(self, refusal: bool) -> None:
        pass

    def logprobs(self, tokens: list[TokenLogprob]) -> None:
        self._tokens += tokens
        self._sum, self._count = self._sum + sum(token.logprob for token in tokens), self._count + len(tokens)

    def text(self, piece: str) -> None:
        self._parts(b'{"text":' + encode(piece) + b"}")

    def close_text(self) -> None:
        if self._tokens:
            self._parts(b'{"text":""}')

    def media(self, mime: str, data: str) -> None:
        self._parts(encode({"inlineData": {"mimeType": mime, "data": data}}))

    def open_reasoning(self) -> None:
        pass

    def reasoning(self, piece: str) -> None:
        self._parts(b'{"text":' + encode(piece) + b',"thought":true}')

    def close_reasoning(self, seal: str, redacted: bool) -> None:
        if seal:
            self._parts(encode({"text": "", "thought": True, "thoughtSignature": seal}))

    def open_call(self, ident: str, name: str, custom: bool) -> None:
        self._call = ToolCall(ident, name, custom=custom)

    def arguments(self, piece: str) -> None:
        pass

    def close_call(self, arguments: str, cut: bool) -> None:
        if cut:
            return
        self._call.arguments = arguments
        self._parts(encode(write_part(self._call)))

    def finish(self, reason: Finish, stop: str, usage: Usage) -> None:
        candidate: dict[str, Any] = {"index": self._index, "content": {"role": "model", "parts": []}}
        candidate["finishReason"] = TOLD[reason]
        if self._count:
            candidate["avgLogprobs"] = self._sum / self._count
        body = {"candidates": [candidate]} | ({"usageMetadata": write_usage(usage)} if self.last else {})
        self.out.append(self._head + encode(body)[1:-1] + self._tail)

    def fail(self, error: ErrorInfo) -> None:
        self.out.append(error_event(error))


class GeminiChoiceWriter(GeminiStreamWriter):
    """One of several choices: they share `out`, and are told of a fault once, by whom they belong to."""

    def __init__(self, out: list[bytes], *, wrapped: bool, index: int) -> None:
        super().__init__(wrapped=wrapped, index=index)
        self.out, self.last = out, False

    def fail(self, error: ErrorInfo) -> None:
        pass
