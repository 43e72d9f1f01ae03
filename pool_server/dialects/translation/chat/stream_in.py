"""A Chat completion's chunks as deltas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pool_server.dialects.chat import fault_in
from pool_server.dialects.translation.answers.logprobs import read_choice
from pool_server.dialects.translation.chat.media import SoundPieces, pictures
from pool_server.dialects.translation.errors import read_error
from pool_server.dialects.translation.fields import arguments_text, obj, openai_usage, text, words
from pool_server.dialects.translation.neutral import ErrorInfo, Finish, Sink

_FINISH = {
    "stop": Finish.STOP,
    "length": Finish.LENGTH,
    "model_length": Finish.LENGTH,  # Mistral's, of the context
    "tool_calls": Finish.TOOLS,
    "function_call": Finish.TOOLS,
    "content_filter": Finish.FILTER,
    "tool_use": Finish.TOOLS,
    "max_tokens": Finish.LENGTH,
    "model_context_window_exceeded": Finish.LENGTH,  # Z.ai's
    "sensitive": Finish.FILTER,  # Z.ai's
}
# The endpoint gave up: Mistral's and OpenRouter's, vLLM's, Z.ai's, DeepSeek's.
_FAULTS = frozenset({"error", "abort", "network_error", "insufficient_system_resource"})
_USUAL = words("role content refusal reasoning reasoning_content tool_calls audio images name")
_TOLD = _USUAL | words("reasoning_text thinking function_call")
_NO_REASON = ("null", "none")  # a reason as a word


def thought_of(message: dict[str, Any]) -> Any:
    """The reasoning of a message or delta under the names endpoints have for it; Copilot's, Ollama's and OpenRouter's
    come after those that most have."""
    found = message.get("reasoning_content") or message.get("reasoning")
    if found or message.keys() <= _USUAL:
        return found
    if found := text(message.get("reasoning_text")) or text(message.get("thinking")):
        return found
    details = message.get("reasoning_details")
    shapes = [obj(one) for one in details] if isinstance(details, list) else []
    return "".join(text(one.get("text")) or text(one.get("summary")) for one in shapes)


def calls_of(message: dict[str, Any]) -> list[Any]:
    """The calls of a message or delta; the one of the API's first form has neither id nor index."""
    calls = message.get("tool_calls")
    if isinstance(calls, list) and calls:
        return calls
    legacy = message.get("function_call")
    return [{"function": legacy}] if isinstance(legacy, dict) and legacy else []


def read_finish(reason: str, sink: Sink) -> None:
    """Tell an endpoint's reason to stop; one nobody here knows is a natural end, and named."""
    if reason in _FAULTS:
        sink.fail(ErrorInfo(502, f"The upstream's answer ended with {reason}.", "api_error", reason))
        return
    if reason.lower() not in _FINISH:
        sink.leave(f"finish_reason {reason}")
    sink.finish(_FINISH.get(reason.lower(), Finish.STOP))


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
        if message[name] and not (name == "reasoning_details" and thought_of(message)):
            sink.leave(name)


class _Calls:
    """Which call a piece belongs to. The index says it; some endpoints leave it out, and some give every call of a
    turn the same one: there a new id with a name begins another call."""

    def __init__(self) -> None:
        self._known: dict[Any, tuple[str, int, str]] = {}  # index or id → key, order, id
        self._last: Any = None
        self._shared = False  # one index was that of several calls

    def key(self, index: int | None, ident: str, name: str, place: int) -> tuple[str, int, str]:
        """(the call's key, its order, the key of the call it ends, or "")."""
        where: Any = index if index is not None else ident
        if index is None and not ident:  # it goes on with the last call, or begins one
            where = f"/{len(self._known)}/{place}" if name or self._last is None else self._last
        ended, known = "", self._known.get(where)
        if known is not None and index is not None and name and ident and known[2] and known[2] != ident:
            self._shared, ended, known = True, known[0], None
        if known is None:
            count = len(self._known)
            if ended:
                self._known[f"/{count}"] = self._known[where]
            order = count if index is None or self._shared else index
            known = f"call {count}", order, ident
        elif ident and not known[2]:
            known = known[0], known[1], ident
        self._known[where], self._last = known, where
        return known[0], known[1], ended


class ChatStreamReader:
    """Usage comes after the finish, in a chunk of its own or with the last one; `[DONE]` ends the stream, and so
    does its end where a finish was said. `transcribed`: what a sound says is told as text too."""

    def __init__(self, sink: Sink, *, transcribed: bool = True) -> None:
        self._sink = sink
        self._transcribed = transcribed
        self._sound = SoundPieces()
        self._started = False
        self._told = False  # something that is shown
        self._reason = ""
        self._usage: Any = None  # some servers repeat it in every chunk: the latest is read at the end
        self._block = ""  # text, reasoning or refusal: what the last piece belonged to
        self._calls = _Calls()

    def event(self, _name: str, event: Any) -> None:
        if not isinstance(event, dict):
            return
        if fault_in(event) is not None:
            self._sink.fail(read_error(0, event))
            return
        if not self._started:
            self._started = True
            self._sink.start(text(event.get("id")), text(event.get("model")))
        choices = event.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                self._choice(choice, first=choice.get("index", 0) in (0, None))
        self._usage = event.get("usage") or self._usage

    def done(self) -> None:
        if self._told and not self._reason:  # its end is said, if not why
            self._sink.finish(Finish.STOP, said=False)
        self.end()

    @property
    def ended(self) -> bool:
        """Whether a reason was said."""
        return bool(self._reason)

    def end(self) -> None:
        if self._reason:  # only now: some endpoints say one with every chunk
            read_finish(self._reason, self._sink)
        self._sink.usage(openai_usage(self._usage))
        self._sink.close()

    def _choice(self, choice: dict[str, Any], *, first: bool) -> None:
        """Of one answer: some endpoints put its calls in a choice of their own."""
        delta = choice.get("delta") or self._whole(choice)
        if not first:
            delta = {"tool_calls": calls_of(obj(delta))}
            if not delta["tool_calls"]:
                return
        if isinstance(delta, dict):
            thought = thought_of(delta)
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
            for position, call in enumerate(calls_of(delta)):
                if isinstance(call, dict):
                    self._call(call, position)
            if delta.keys() - _TOLD:
                leave_untold(delta, self._sink)
        self._ends(choice.get("finish_reason"))

    def _whole(self, choice: dict[str, Any]) -> dict[str, Any]:
        """The message or text of an answer told in one piece within a stream; one that repeats the pieces is none."""
        if self._told:
            return {}
        return obj(choice.get("message")) or {"content": text(choice.get("text"))}

    def _ends(self, reason: Any) -> None:
        if not isinstance(reason, str) or not reason or reason.lower() in _NO_REASON:
            return
        if reason in _FAULTS:
            read_finish(reason, self._sink)
        elif self._reason in ("", "stop"):
            self._reason = reason

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
        self._told = True
        if block != self._block:
            if self._block:
                self._sink.end(self._block)
            self._block = block

    def _call(self, call: dict[str, Any], place: int) -> None:
        self._into("")
        index = call.get("index")
        index = index if isinstance(index, int) and not isinstance(index, bool) and index >= 0 else None
        ident, function = text(call.get("id")), obj(call.get("function"))
        name = text(function.get("name"))
        key, order, ended = self._calls.key(index, ident, name, place)
        if ended:
            self._sink.end(ended)
        if ident or name:
            self._sink.call(key, ident, name, order=order)
        if (piece := function.get("arguments")) is not None:  # some servers send the object itself
            self._sink.arguments(key, piece if isinstance(piece, str) else arguments_text(piece))
