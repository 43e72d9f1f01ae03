"""Gemini's events, written block by block: text as it comes, calls whole."""

from __future__ import annotations

from typing import Any

from msgspec.json import encode

from pool_server.core.enums import Dialect
from pool_server.core.models import Usage
from pool_server.dialects.translation.errors import error_body
from pool_server.dialects.translation.gemini.answer import TOLD, write_part, write_usage
from pool_server.dialects.translation.neutral import ErrorInfo, Finish, ToolCall


class GeminiStreamWriter:
    """Every event is a whole answer's shape; the last has the finish and the usage. `wrapped` puts each into Code
    Assist's envelope."""

    json_arguments = True
    live_arguments = False
    keeps = False

    def __init__(self, *, wrapped: bool = False) -> None:
        self.out: list[bytes] = []
        self._wrapped = wrapped
        self._names: dict[str, Any] = {}
        self._head = self._tail = b""
        self._call = ToolCall("", "")

    def begin(self, ident: str, model: str) -> None:
        self._names = {"modelVersion": model, "responseId": ident}
        self._head = b'data: {"response":{' if self._wrapped else b"data: {"
        self._tail = b"," + encode(self._names)[1:] + (b"}\n\n" if self._wrapped else b"\n\n")

    def _parts(self, parts: bytes) -> None:
        content = b'"candidates":[{"index":0,"content":{"role":"model","parts":[' + parts + b"]}}]"
        self.out.append(self._head + content + self._tail)

    def open_text(self, refusal: bool) -> None:
        pass

    def text(self, piece: str) -> None:
        self._parts(b'{"text":' + encode(piece) + b"}")

    def close_text(self) -> None:
        pass

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

    def close_call(self, arguments: str) -> None:
        self._call.arguments = arguments
        self._parts(encode(write_part(self._call)))

    def finish(self, reason: Finish, stop: str, usage: Usage) -> None:
        candidate = {"index": 0, "content": {"role": "model", "parts": []}, "finishReason": TOLD[reason]}
        body = encode({"candidates": [candidate], "usageMetadata": write_usage(usage)})[1:-1]
        self.out.append(self._head + body + self._tail)

    def fail(self, error: ErrorInfo) -> None:
        self.out.append(b"data: " + encode(error_body(Dialect.GEMINI, error)) + b"\n\n")
