"""A response's events, written block by block."""

from __future__ import annotations

from typing import Any

from msgspec.json import encode

from pool_server.core.models import Usage
from pool_server.dialects.translation.answers.logprobs import openai_tokens
from pool_server.dialects.translation.errors import openai_labels
from pool_server.dialects.translation.neutral import ErrorInfo, Finish, Part, Reasoning, Text, TokenLogprob, ToolCall
from pool_server.dialects.translation.responses.answer import Echo, content_part, ending, write_usage


def _failure(error: ErrorInfo) -> str:
    """The code in a failed response: one of the few the API knows. Codex asks again after `server_error` and gives up
    at `invalid_prompt`; a full context it knows by a code of its own."""
    if error.code in ("context_length_exceeded", "insufficient_quota"):
        return error.code
    if error.status == 429:
        return "rate_limit_exceeded"
    return "server_error" if error.status >= 500 else "invalid_prompt"


class ResponsesStreamWriter:
    """Each block is one output item; `done` events and the last one repeat what the deltas said."""

    json_arguments = False
    live_arguments = True
    keeps = True
    shows = False

    def __init__(self, echo: Echo) -> None:
        self.out: list[bytes] = []
        self._echo = echo
        self._ident = self._model = ""
        self._sequence = 0
        self._items: list[dict[str, Any]] = []
        self._part: Part = Text("")
        self._pieces: list[str] = []
        self._tokens: list[TokenLogprob] = []  # of the open text; those from `_told` on are in no delta yet
        self._told = 0
        self._item: dict[str, Any] = {}
        self._kind = ""  # of the open block's delta events
        self._before = self._after = b""

    def _event(self, kind: str, **fields: Any) -> None:
        event = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        self.out.append(b"event: " + kind.encode() + b"\ndata: " + encode(event) + b"\n\n")

    def begin(self, ident: str, model: str) -> None:
        self._ident, self._model = ident, model
        response = self._echo.response(ident, model, "in_progress", [])
        self._event("response.created", response=response)
        self._event("response.in_progress", response=response)

    def _open(self, part: Part, kind: str, place: dict[str, int]) -> None:
        self._part, self._kind, self._pieces = part, kind, []
        self._tokens, self._told = [], 0
        number = len(self._items)
        self._item = self._echo.item(part, self._ident, number, "in_progress")
        self._event("response.output_item.added", output_index=number, item=self._item)
        self._place = {"item_id": self._item["id"], "output_index": number, **place}
        self._before = f'event: {kind}.delta\ndata: {{"type":"{kind}.delta","sequence_number":'.encode()
        more = b',"logprobs":[]}\n\n' if kind == "response.output_text" else b"}\n\n"
        self._after = more
        self._middle = b"," + encode(self._place)[1:-1] + b',"delta":'

    def _write(self, piece: str) -> None:
        self._pieces.append(piece)
        self.out.append(b"%s%d%s%s%s" % (self._before, self._sequence, self._middle, encode(piece), self._after))
        self._sequence += 1

    def _close(self) -> None:
        item = self._echo.item(self._part, self._ident, len(self._items))
        self._event("response.output_item.done", output_index=len(self._items), item=item)
        self._items.append(item)

    def open_text(self, refusal: bool) -> None:
        part = Text("", refusal)
        self._open(part, "response.refusal" if refusal else "response.output_text", {"content_index": 0})
        self._event("response.content_part.added", **self._place, part=content_part(part))

    def logprobs(self, tokens: list[TokenLogprob]) -> None:
        self._tokens += tokens

    def text(self, piece: str) -> None:
        if len(self._tokens) == self._told or self._kind != "response.output_text":
            self._write(piece)
            return
        self._pieces.append(piece)
        new, self._told = self._tokens[self._told :], len(self._tokens)
        self._event(f"{self._kind}.delta", **self._place, delta=piece, logprobs=openai_tokens(new))

    def close_text(self) -> None:
        refusal = isinstance(self._part, Text) and self._part.refusal
        self._part = Text("".join(self._pieces), refusal, self._tokens)
        logprobs = openai_tokens(self._tokens)
        told = {"refusal": self._part.text} if refusal else {"text": self._part.text, "logprobs": logprobs}
        self._event(f"{self._kind}.done", **self._place, **told)
        self._event("response.content_part.done", **self._place, part=content_part(self._part))
        self._close()

    def media(self, mime: str, data: str) -> None:
        pass

    def open_reasoning(self) -> None:
        self._open(Reasoning(), "response.reasoning_summary_text", {"summary_index": 0})

    def reasoning(self, piece: str) -> None:
        if not self._pieces:
            part = {"type": "summary_text", "text": ""}
            self._event("response.reasoning_summary_part.added", **self._place, part=part)
        self._write(piece)

    def close_reasoning(self, seal: str, redacted: bool) -> None:
        whole = "".join(self._pieces)
        if self._pieces:
            part = {"type": "summary_text", "text": whole}
            self._event("response.reasoning_summary_text.done", **self._place, text=whole)
            self._event("response.reasoning_summary_part.done", **self._place, part=part)
        self._part = Reasoning(whole, seal=seal)
        self._close()

    def open_call(self, ident: str, name: str, custom: bool) -> None:
        kind = "response.custom_tool_call_input" if custom else "response.function_call_arguments"
        self._open(ToolCall(ident, name, custom=custom), kind, {})

    def arguments(self, piece: str) -> None:
        self._write(piece)

    def close_call(self, arguments: str, cut: bool) -> None:
        if isinstance(self._part, ToolCall):
            call = self._part
            if not arguments and not call.custom:
                arguments = "{}"
                self._write(arguments)
            self._part = ToolCall(call.id, call.name, arguments, call.custom, cut)
            told: dict[str, str] = {"input": arguments} if call.custom else {"arguments": arguments}
            self._event(f"{self._kind}.done", **self._place, **told)
        self._close()

    def finish(self, reason: Finish, stop: str, usage: Usage) -> None:
        status, details = ending(reason)
        response = self._echo.response(
            self._ident, self._model, status, self._items, incomplete_details=details, usage=write_usage(usage)
        )
        self._event(f"response.{status}", response=response)

    def fail(self, error: ErrorInfo) -> None:
        """Codex reads `response.failed` alone, other clients `error`."""
        _, code = openai_labels(error)
        self._event("error", code=code, message=error.message, param=None)
        told = {"code": _failure(error), "message": error.message}
        response = self._echo.response(self._ident, self._model, "failed", self._items, error=told)
        self._event("response.failed", response=response)
