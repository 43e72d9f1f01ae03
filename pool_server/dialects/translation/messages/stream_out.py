"""A message's events, written block by block."""

from __future__ import annotations

from typing import Any

from msgspec.json import encode

from pool_server.core.enums import Dialect
from pool_server.core.models import Usage
from pool_server.dialects.translation.errors import error_body
from pool_server.dialects.translation.messages.answer import TOLD, message_id, write_usage
from pool_server.dialects.translation.neutral import ErrorInfo, Finish, TokenLogprob


class MessagesStreamWriter:
    """One block open at a time, indices from 0; usage is known at the end only."""

    json_arguments = True
    live_arguments = True
    keeps = False
    shows = False

    def __init__(self) -> None:
        self.out: list[bytes] = []
        self._index = 0
        self._piece = b""
        self._opened = False  # a thinking block, which a redacted one must not become
        self._custom = False

    def _event(self, event: dict[str, Any]) -> None:
        self.out.append(b"event: " + event["type"].encode() + b"\ndata: " + encode(event) + b"\n\n")

    def begin(self, ident: str, model: str) -> None:
        message: dict[str, Any] = {
            "id": message_id(ident),
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }
        self._event({"type": "message_start", "message": message})

    def _open(self, block: dict[str, Any], kind: bytes, field: bytes) -> None:
        self._event({"type": "content_block_start", "index": self._index, "content_block": block})
        head = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"%s","%s":'
        self._piece = head % (self._index, kind, field)

    def _write(self, piece: str) -> None:
        self.out.append(self._piece + encode(piece) + b"}}\n\n")

    def _close(self) -> None:
        self._event({"type": "content_block_stop", "index": self._index})
        self._index += 1

    def open_text(self, refusal: bool) -> None:
        self._open({"type": "text", "text": "", "citations": None}, b"text_delta", b"text")

    def logprobs(self, tokens: list[TokenLogprob]) -> None:
        pass  # no request of this dialect that is translated gets them

    def text(self, piece: str) -> None:
        self._write(piece)

    def close_text(self) -> None:
        self._close()

    def media(self, mime: str, data: str) -> None:
        pass

    def open_reasoning(self) -> None:
        self._opened = False

    def _open_thinking(self) -> None:
        self._opened = True
        self._open({"type": "thinking", "thinking": "", "signature": ""}, b"thinking_delta", b"thinking")

    def reasoning(self, piece: str) -> None:
        if not self._opened:
            self._open_thinking()
        self._write(piece)

    def close_reasoning(self, seal: str, redacted: bool) -> None:
        if redacted and not self._opened:
            self._open({"type": "redacted_thinking", "data": seal}, b"", b"")
            self._close()
            return
        if not self._opened:
            self._open_thinking()
        if seal:
            delta = {"type": "signature_delta", "signature": seal}
            self._event({"type": "content_block_delta", "index": self._index, "delta": delta})
        self._close()

    def open_call(self, ident: str, name: str, custom: bool) -> None:
        block = {"type": "tool_use", "id": ident, "name": name, "input": {}}
        self._open(block, b"input_json_delta", b"partial_json")
        self._custom = custom
        if custom:
            self._write('{"input":')

    def arguments(self, piece: str) -> None:
        if not self._custom:
            self._write(piece)

    def close_call(self, arguments: str, cut: bool) -> None:
        """Of a cut call the JSON stays as open as Claude's own streams leave it: nobody can run half of it."""
        if self._custom:
            self._write(encode(arguments).decode() + "}")
        self._close()

    def finish(self, reason: Finish, stop: str, usage: Usage) -> None:
        delta = {"stop_reason": TOLD[reason], "stop_sequence": stop or None}
        self._event({"type": "message_delta", "delta": delta, "usage": write_usage(usage)})
        self._event({"type": "message_stop"})

    def fail(self, error: ErrorInfo) -> None:
        self._event(error_body(Dialect.MESSAGES, error))
