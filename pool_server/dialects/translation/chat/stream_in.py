"""A Chat completion's chunks as deltas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pool_server.dialects.translation.answers.logprobs import read_choice
from pool_server.dialects.translation.chat.media import SoundPieces, pictures
from pool_server.dialects.translation.errors import read_error
from pool_server.dialects.translation.fields import arguments_text, obj, openai_usage, text
from pool_server.dialects.translation.neutral import ErrorInfo, Finish, Sink

_FINISH = {
    "stop": Finish.STOP,
    "length": Finish.LENGTH,
    "model_length": Finish.LENGTH,  # Mistral's, of the context
    "tool_calls": Finish.TOOLS,
    "function_call": Finish.TOOLS,
    "content_filter": Finish.FILTER,
}
# The endpoint gave up: Mistral's and OpenRouter's, vLLM's, DeepSeek's.
_FAULTS = frozenset({"error", "abort", "insufficient_system_resource"})
_TOLD = frozenset(
    {"role", "content", "refusal", "reasoning", "reasoning_content", "tool_calls", "audio", "images", "name"}
)


def read_finish(reason: str, sink: Sink) -> None:
    """Tell an endpoint's reason to stop; one nobody here knows is a natural end, and named."""
    if reason in _FAULTS:
        sink.fail(ErrorInfo(502, f"The upstream's answer ended with {reason}.", "api_error", reason))
        return
    if reason not in _FINISH:
        sink.leave(f"finish_reason {reason}")
    sink.finish(_FINISH.get(reason, Finish.STOP))


def content_pieces(content: Any, sink: Sink) -> Iterator[tuple[str, str]]:
    """(text or reasoning, what it says) of a content: a text, or parts as Mistral's reasoning models answer."""
    if isinstance(content, str):
        if content:
            yield "text", content
        return
    for part in content if isinstance(content, list) else ():
        shape = obj(part)
        kind = shape.get("type")
        if kind == "thinking":
            yield from (("reasoning", piece) for _, piece in content_pieces(shape.get("thinking"), sink))
        elif said := text(shape.get("text")):
            yield "text", said
        elif kind != "text":
            sink.leave(text(kind) or "content")


def leave_untold(message: dict[str, Any], sink: Sink) -> None:
    """Name what a message or delta holds beside what is told."""
    for name in message.keys() - _TOLD:
        if message[name]:
            sink.leave(name)


class ChatStreamReader:
    """Usage comes after the finish, in a chunk of its own or with the last one; `[DONE]` ends the stream, and so
    does its end where a finish was said. `transcribed`: what a sound says is told as text too."""

    def __init__(self, sink: Sink, *, transcribed: bool = True) -> None:
        self._sink = sink
        self._transcribed = transcribed
        self._sound = SoundPieces()
        self._started = False
        self._usage: Any = None  # some servers repeat it in every chunk: the latest is read at the end
        self._block = ""  # text, reasoning or refusal: what the last piece belonged to
        self._orders: dict[Any, int] = {}  # index of a call → its key, for servers that leave the index out

    def event(self, _name: str, event: Any) -> None:
        if not isinstance(event, dict):
            return
        if event.get("error") is not None:
            self._sink.fail(read_error(0, event))
            return
        if not self._started:
            self._started = True
            self._sink.start(text(event.get("id")), text(event.get("model")))
        choices = event.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and choice.get("index", 0) in (0, None):
                self._choice(choice)
        self._usage = event.get("usage") or self._usage

    def done(self) -> None:
        self.end()

    def end(self) -> None:
        self._sink.usage(openai_usage(self._usage))
        self._sink.close()

    def _choice(self, choice: dict[str, Any]) -> None:
        delta = choice.get("delta")
        if isinstance(delta, dict):
            thought = delta.get("reasoning_content") or delta.get("reasoning")
            logprobs = choice.get("logprobs")
            if logprobs is not None and not thought:  # those of reasoning are nobody's
                self._logprobs(logprobs, delta)
            if (piece := delta.get("content")) and isinstance(piece, str):
                self._into("text")
                self._sink.text("text", piece)
            elif piece:
                self._parts(piece)
            if thought and isinstance(thought, str):
                self._into("reasoning")
                self._sink.reasoning("reasoning", thought)
            if (refusal := delta.get("refusal")) and isinstance(refusal, str):
                self._into("refusal")
                self._sink.text("refusal", refusal, refusal=True)
            if "audio" in delta or "images" in delta:
                self._media(delta)
            calls = delta.get("tool_calls")
            for position, call in enumerate(calls if isinstance(calls, list) else ()):
                if isinstance(call, dict):
                    self._call(call, position)
            if delta.keys() - _TOLD:
                leave_untold(delta, self._sink)
        reason = choice.get("finish_reason")
        if reason and isinstance(reason, str):
            read_finish(reason, self._sink)

    def _parts(self, content: Any) -> None:
        for block, piece in content_pieces(content, self._sink):
            self._into(block)
            tell = self._sink.text if block == "text" else self._sink.reasoning
            tell(block, piece)

    def _media(self, delta: dict[str, Any]) -> None:
        for mime, data in pictures(delta, self._sink):
            self._into("")
            self._sink.media("picture", mime, data)
        sound = obj(delta.get("audio"))
        if self._transcribed and (said := text(sound.get("transcript"))):
            self._into("transcript")
            self._sink.text("transcript", said)
        if piece := self._sound.feed(text(sound.get("data"))):
            self._into("")
            self._sink.media("sound", self._sound.mime, piece)

    def _logprobs(self, told: Any, delta: dict[str, Any]) -> None:
        """A piece of a character has tokens and an empty text."""
        found = read_choice(told, text(delta.get("content")))
        for tokens, field, block in zip(found, ("content", "refusal"), ("text", "refusal"), strict=True):
            if tokens and isinstance(delta.get(field), str):
                self._into(block)
                self._sink.logprobs(block, tokens, refusal=block == "refusal")

    def _into(self, block: str) -> None:
        if block != self._block:
            if self._block:
                self._sink.end(self._block)
            self._block = block

    def _call(self, call: dict[str, Any], position: int) -> None:
        self._into("")
        index = call.get("index")
        index = index if isinstance(index, int) and not isinstance(index, bool) and index >= 0 else None
        ident = text(call.get("id"))
        key = f"call {index if index is not None else ident or position}"
        function = obj(call.get("function"))
        if ident or function.get("name"):
            if key not in self._orders:
                self._orders[key] = index if index is not None else len(self._orders)
            self._sink.call(key, ident, text(function.get("name")), order=self._orders[key])
        if (piece := function.get("arguments")) is not None:  # some servers send the object itself
            self._sink.arguments(key, piece if isinstance(piece, str) else arguments_text(piece))
