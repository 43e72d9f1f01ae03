"""A Chat completion's chunks, written block by block."""

from __future__ import annotations

from typing import Any

from msgspec.json import encode

from pool_server.core.enums import Dialect
from pool_server.core.models import Usage
from pool_server.dialects.translation.chat.answer import TOLD, chat_id, write_usage
from pool_server.dialects.translation.errors import error_body
from pool_server.dialects.translation.neutral import ErrorInfo, Finish, TokenLogprob


class ChatStreamWriter:
    """Chunks share one id; the first says the role; calls count from 0; after the finish comes at most one chunk of
    usage, and `[DONE]`."""

    json_arguments = False
    live_arguments = True
    keeps = False
    shows = False

    def __init__(self, created: int, *, include_usage: bool, legacy: bool = False) -> None:
        """`legacy`: the client knows one call, as the API told it before it had tools."""
        self.out: list[bytes] = []
        self._created = created
        self._include_usage = include_usage
        self._legacy = legacy
        self._frame = b""
        self._calls = -1
        self._custom = False
        self._piece = b""
        self._thought = False  # something of a reasoning was told
        self._apart = ""  # what sets the next reasoning apart from the one before, as in an answer in one piece

    def begin(self, ident: str, model: str) -> None:
        head = {"id": chat_id(ident), "object": "chat.completion.chunk", "created": self._created, "model": model}
        self._frame = b"data: " + encode(head)[:-1]
        self._delta({"role": "assistant", "content": ""})

    def _delta(self, delta: dict[str, Any], finish: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        self.out.append(self._frame + b',"choices":[' + encode(choice) + b"]}\n\n")

    def _name(self, field: bytes) -> None:
        """Prepare the chunks of a block: all but the piece stays the same."""
        self._piece = self._frame + b',"choices":[{"index":0,"delta":{"' + field + b'":'

    def _write(self, piece: str) -> None:
        self.out.append(self._piece + encode(piece) + b'},"logprobs":null,"finish_reason":null}]}\n\n')

    def open_text(self, refusal: bool) -> None:
        self._name(b"refusal" if refusal else b"content")

    def logprobs(self, tokens: list[TokenLogprob]) -> None:
        pass  # no request of this dialect that is translated gets them

    def text(self, piece: str) -> None:
        self._write(piece)

    def close_text(self) -> None:
        pass

    def media(self, mime: str, data: str) -> None:
        pass

    def open_reasoning(self) -> None:
        self._name(b"reasoning_content")
        self._apart = "\n\n" if self._thought else ""

    def reasoning(self, piece: str) -> None:
        self._write(self._apart + piece)
        self._thought, self._apart = True, ""

    def close_reasoning(self, seal: str, redacted: bool) -> None:
        pass  # Chat has no word for a seal

    def open_call(self, ident: str, name: str, custom: bool) -> None:
        self._calls += 1
        self._custom = custom
        kind = "custom" if custom else "function"
        inner = {"name": name, "input" if custom else "arguments": ""}
        if self._legacy:
            if not self._calls:
                self._delta({"function_call": inner})
                self._piece = self._frame + b',"choices":[{"index":0,"delta":{"function_call":{"arguments":'
            return
        self._delta({"tool_calls": [{"index": self._calls, "id": ident, "type": kind, kind: inner}]})
        head = b'{"index":%d,"%s":{"%s":' % (self._calls, kind.encode(), b"input" if custom else b"arguments")
        self._piece = self._frame + b',"choices":[{"index":0,"delta":{"tool_calls":[' + head

    def arguments(self, piece: str) -> None:
        if self._legacy:
            if not self._calls:
                self.out.append(self._piece + encode(piece) + b'}},"logprobs":null,"finish_reason":null}]}\n\n')
            return
        self.out.append(self._piece + encode(piece) + b'}}]},"logprobs":null,"finish_reason":null}]}\n\n')

    def close_call(self, arguments: str, cut: bool) -> None:
        if not arguments and not self._custom:
            self.arguments("{}")

    def finish(self, reason: Finish, stop: str, usage: Usage) -> None:
        told = TOLD[reason]
        self._delta({}, "function_call" if self._legacy and told == "tool_calls" else told)
        if self._include_usage:
            self.out.append(self._frame + b',"choices":[],"usage":' + encode(write_usage(usage)) + b"}\n\n")
        self.out.append(b"data: [DONE]\n\n")

    def fail(self, error: ErrorInfo) -> None:
        self.out.append(b"data: " + encode(error_body(Dialect.CHAT, error)) + b"\n\n")
