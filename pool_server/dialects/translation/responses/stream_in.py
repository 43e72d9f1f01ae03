"""A response's events as deltas."""

from __future__ import annotations

from typing import Any

from pool_server.dialects.chat import fault_in
from pool_server.dialects.translation.errors import read_error
from pool_server.dialects.translation.fields import arguments_text, obj, openai_usage, text
from pool_server.dialects.translation.neutral import Sink
from pool_server.dialects.translation.responses.answer import leave_untold, read_finish, read_item, reasoning_text
from pool_server.dialects.types import says

_CALLS = ("function_call", "custom_tool_call")
_ENDS = ("response.completed", "response.incomplete", "response.done")


class ResponsesStreamReader:
    """State is kept by output index, else by item id; what is whole in a `done` event counts where no delta came."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._told: set[Any] = set()  # items that were told, by key
        self._thought: dict[Any, Any] = {}  # reasoning item → the summary part its newest text belongs to
        self._calls: set[Any] = set()
        self._names: set[str] = set()  # ids of calls that were told

    def event(self, name: str, event: Any) -> None:
        if not isinstance(event, dict):
            return
        kind = text(event.get("type")) or name
        if kind == "response.output_text.delta":
            key = _key(event)
            self._told.add(key)
            self._sink.text((key, _number(event, "content_index")), text(event.get("delta")))
        elif kind.startswith("response.") and kind.endswith((".delta", ".done", ".added")) and kind not in _ENDS:
            self._piece(kind, event)
        elif kind in ("response.created", "response.in_progress"):
            response = obj(event.get("response"))
            self._sink.start(text(response.get("id")), text(response.get("model")))
        elif kind in _ENDS:
            self._end(kind, obj(event.get("response")))
        elif kind in ("response.failed", "error") or fault_in(event) is not None:
            self._sink.fail(read_error(0, event))

    def done(self) -> None:
        """`[DONE]`, which compatible servers send."""

    def end(self) -> None:
        self._sink.close()

    def _piece(self, kind: str, event: dict[str, Any]) -> None:
        key = _key(event)
        if kind in ("response.function_call_arguments.delta", "response.custom_tool_call_input.delta"):
            self._sink.arguments(key, arguments_text(event.get("delta")))
        elif kind in ("response.function_call_arguments.done", "response.custom_tool_call_input.done"):
            whole = arguments_text(event.get("arguments")) or arguments_text(event.get("input"))
            if key in self._calls:
                self._calls.discard(key)
                self._sink.end(key, whole=whole)
        elif kind in ("response.reasoning_summary_text.delta", "response.reasoning_text.delta"):
            self._think(key, event)
        elif kind == "response.output_text.done":
            self._sink.end((key, _number(event, "content_index")), whole=text(event.get("text")))
        elif kind == "response.refusal.delta":
            self._told.add(key)
            self._sink.text((key, _number(event, "content_index")), text(event.get("delta")), refusal=True)
        elif kind == "response.refusal.done":
            self._sink.end((key, _number(event, "content_index")), whole=text(event.get("refusal")))
        elif kind == "response.output_item.added":
            self._added(key, obj(event.get("item")))
        elif kind == "response.output_item.done":
            self._item_done(key, obj(event.get("item")))

    def _think(self, key: Any, event: dict[str, Any]) -> None:
        part = (event.get("summary_index"), event.get("content_index"))
        piece = text(event.get("delta"))
        if not piece:
            return
        apart = "\n\n" if self._thought.get(key, part) != part else ""
        self._thought[key] = part
        self._sink.reasoning(key, apart + piece)

    def _met(self, item: dict[str, Any]) -> None:
        if item.get("type") in _CALLS:
            self._names |= {text(item.get("call_id")), text(item.get("id"))}

    def _added(self, key: Any, item: dict[str, Any]) -> None:
        self._met(item)
        kind = item.get("type")
        if kind in _CALLS:
            custom = kind == "custom_tool_call"
            self._told.add(key)
            self._calls.add(key)
            self._sink.call(key, text(item.get("call_id")), text(item.get("name")), custom=custom)
            self._sink.arguments(key, arguments_text(item.get("input" if custom else "arguments")))

    def _item_done(self, key: Any, item: dict[str, Any]) -> None:
        self._met(item)
        kind = item.get("type")
        if kind == "reasoning":
            whole = reasoning_text(item) if key not in self._thought else None
            if whole:
                self._sink.reasoning(key, whole)
            self._thought.pop(key, None)
            self._sink.end(key, seal=text(item.get("encrypted_content")))
        elif key not in self._told:
            read_item(key, item, self._sink)
        elif kind == "message":
            leave_untold(item, self._sink)
        elif key in self._calls:
            self._calls.discard(key)
            whole = arguments_text(item.get("arguments")) or arguments_text(item.get("input"))
            self._sink.end(key, whole=whole)
        self._told.add(key)

    def _end(self, kind: str, response: dict[str, Any]) -> None:
        if response.get("status") in ("failed", "cancelled") or says(response.get("error")):
            self._sink.fail(read_error(0, {"error": response.get("error")}))
            return
        self._sink.start(text(response.get("id")), text(response.get("model")))
        output = response.get("output")
        for index, item in enumerate(output if isinstance(output, list) else ()):
            if self._is_new(obj(item)):
                read_item(("last", index), obj(item), self._sink)
        usage = openai_usage(response.get("usage"))
        if usage.known:
            self._sink.usage(usage)
        read_finish(response, self._sink, kind)
        self._sink.close()

    def _is_new(self, item: dict[str, Any]) -> bool:
        """Whether only the last event tells the item: some servers tell everything there, some their calls."""
        if not self._told and not self._thought:
            return True
        names = {text(item.get("call_id")), text(item.get("id"))} - {""}
        return text(item.get("type")) in _CALLS and bool(names) and names.isdisjoint(self._names)


def _key(event: dict[str, Any]) -> Any:
    index = event.get("output_index")
    if isinstance(index, int):
        return index
    return text(event.get("item_id")) or text(obj(event.get("item")).get("id"))


def _number(event: dict[str, Any], name: str) -> int:
    value = event.get(name)
    return value if isinstance(value, int) else 0
