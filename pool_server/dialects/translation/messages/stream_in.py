"""A message's events as deltas."""

from __future__ import annotations

from typing import Any

from pool_server.dialects.translation.errors import read_error
from pool_server.dialects.translation.fields import arguments_text, obj, text
from pool_server.dialects.translation.messages.answer import read_stop
from pool_server.dialects.translation.neutral import Finish, Sink
from pool_server.dialects.usage.anthropic import DELTA, START, MessageUsage


class MessagesStreamReader:
    """Blocks say their index; usage comes in two events, each of which tells a part."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._usage = MessageUsage()
        self._seals: dict[Any, str] = {}
        self._given: dict[Any, str] = {}  # arguments told at a call's start, which its pieces may repeat
        self._hidden: Any = None  # index of a block that is not told
        self._told = False  # something that is shown

    def event(self, _name: str, event: Any) -> None:
        if not isinstance(event, dict):
            return
        kind = event.get("type")
        if kind == "content_block_delta":
            self._delta(event.get("index"), obj(event.get("delta")))
        elif kind == "content_block_start":
            self._told = True
            self._start(event.get("index"), obj(event.get("content_block")))
        elif kind == "content_block_stop":
            self._stop(event.get("index"))
        elif kind == "message_start":
            message = obj(event.get("message"))
            self._sink.start(text(message.get("id")), text(message.get("model")))
            self._count(message.get("usage"), START)
        elif kind == "message_delta":
            self._count(event.get("usage"), DELTA)
            self._end_given()
            read_stop(obj(event.get("delta")), self._sink)
        elif kind == "message_stop":
            self._end_given()
            if self._told:  # its end is said, if not why
                self._sink.finish(Finish.STOP, said=False)
            self._sink.close()
        elif kind == "error" or event.get("error") is not None:
            self._sink.fail(read_error(0, event))

    def done(self) -> None:
        """`[DONE]`, which compatible servers send."""

    def end(self) -> None:
        self._sink.close()

    def _end_given(self) -> None:
        """Calls whose end nobody told."""
        for key in list(self._given):
            self._stop(key)

    def _count(self, value: Any, stage: int) -> None:
        self._usage.take(value, stage)
        self._sink.usage(self._usage.usage())

    def _start(self, index: Any, block: dict[str, Any]) -> None:
        key, kind = _key(index), block.get("type")
        self._hidden = None
        if kind == "tool_use":
            self._sink.call(key, text(block.get("id")), text(block.get("name")))
            if (given := block.get("input")) not in (None, {}, ""):
                self._given[key] = arguments_text(given)
        elif kind == "redacted_thinking":
            self._sink.end(key, seal=text(block.get("data")), redacted=True)
        elif kind == "text":
            self._sink.text(key, text(block.get("text")))
            if block.get("citations"):
                self._sink.leave("citations")
        elif kind == "thinking":
            self._sink.reasoning(key, text(block.get("thinking")))
            self._seal(key, block)
        else:
            self._hidden = key
            self._sink.leave(text(kind) or "content")

    def _seal(self, key: Any, shape: dict[str, Any]) -> None:
        if signature := text(shape.get("signature")):
            self._seals[key] = self._seals.get(key, "") + signature

    def _delta(self, index: Any, delta: dict[str, Any]) -> None:
        key, kind = _key(index), delta.get("type")
        if key == self._hidden and self._hidden is not None:
            return
        if kind == "text_delta":
            self._sink.text(key, text(delta.get("text")))
        elif kind == "input_json_delta":
            self._sink.arguments(key, text(delta.get("partial_json")))
        elif kind == "thinking_delta":
            self._sink.reasoning(key, text(delta.get("thinking")))
        elif kind == "signature_delta":
            self._seal(key, delta)
        else:
            self._sink.leave("citations" if kind == "citations_delta" else text(kind) or "delta")

    def _stop(self, index: Any) -> None:
        key = _key(index)
        if key == self._hidden and self._hidden is not None:
            self._hidden = None
            return
        self._sink.end(key, whole=self._given.pop(key, None), seal=self._seals.pop(key, ""))


def _key(index: Any) -> Any:
    return index if isinstance(index, (int, str)) else -1
