"""The Responses WebSocket's memory, for accounts that only speak HTTP. Pure but for the bytes it is fed.

Over a socket a client sends only what is new and names the response it continues; over HTTP every request carries
the whole input. `Conversation` keeps one socket's input and output and makes whole requests of frames. Its rules:
the provider refuses `previous_response_id` over HTTP, a prewarm (`generate:false`) is answered here, compaction
items replace what came before, a call without its output (or the reverse) is left out.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

import msgspec

from pool_server.dialects import BadBodyError, ContinuationLostError, Scanner, data_of, response_object

KEEP_BYTES = 64 << 20  # of one socket's conversation; beyond it the client is asked to resend
_EVENT_CAP = 64 << 20
_TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed", "response.done", "error"})
_CALLS = {"function_call": "function_call_output", "custom_tool_call": "custom_tool_call_output"}
_OUTPUTS = frozenset(_CALLS.values())
_COMPACTED = frozenset({"compaction", "compaction_summary"})
_WIRE_ONLY = ("type", "previous_response_id", "generate")
_INHERITED = ("model", "instructions", "tools")


class _Item(msgspec.Struct):
    type: str = ""
    call_id: str = ""


class _Event(msgspec.Struct):
    type: str = ""
    output_index: int = 0
    item: msgspec.Raw = msgspec.Raw()  # `Raw | None` would take nothing but null
    response: dict[str, msgspec.Raw] = {}


class _Collector:
    """Takes every event of a stream as frame text."""

    def __init__(self) -> None:
        self.frames: deque[str] = deque()

    def event(self, event: bytes) -> int:
        data = data_of(event)
        if data and data != b"[DONE]":
            self.frames.append(data.decode("utf-8", "replace"))
        return 0

    def wanted(self, head: bytes) -> bool:
        return True

    def passed_over(self, head: bytes) -> int:
        return 0


class Conversation:
    """One socket's transcript, as raw JSON items."""

    def __init__(self) -> None:
        self._input: list[bytes] = []
        self._output: dict[int, bytes] = {}
        self._base: dict[str, msgspec.Raw] = {}
        self._last_id = ""
        self.finished = False
        self._collector = _Collector()
        self._scanner = Scanner(self._collector, cap=_EVENT_CAP)

    @property
    def known(self) -> bool:
        return bool(self._last_id)

    @property
    def response_id(self) -> str:
        return self._last_id

    @property
    def size(self) -> int:
        """Bytes of transcript kept."""
        return sum(map(len, self._input)) + sum(map(len, self._output.values()))

    def fork(self) -> Conversation:
        """A copy that may go on while this one stays as it is."""
        twin = Conversation()
        twin._input, twin._output = list(self._input), dict(self._output)
        twin._base, twin._last_id = dict(self._base), self._last_id
        return twin

    def request(self, frame: str | bytes) -> tuple[bytes | None, list[str]]:
        """The whole HTTP body for a `response.create` frame, or None and the frames that answer a prewarm.

        Raises `BadBodyError` when the frame is no such JSON, `ContinuationLostError` when it continues something
        unknown.
        """
        try:
            fields = msgspec.json.decode(frame, type=dict[str, msgspec.Raw])
            new = _items(fields.get("input", msgspec.Raw(b"[]")))
            previous = msgspec.json.decode(fields.get("previous_response_id", b"null"), type=str | None)
            if bytes(fields.get("type", b"")) == b'"response.append"':
                previous = previous or self._last_id
            prewarm = bytes(fields.get("generate", b"")) == b"false"
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadBodyError("the frame is not a response.create with a text or a list as its input") from error
        if previous and previous != self._last_id:
            raise ContinuationLostError
        for name in _INHERITED:
            if previous and name not in fields and name in self._base:
                fields[name] = self._base[name]
        replaces = not previous or any(_kind(item).type in _COMPACTED for item in new)
        before = [] if replaces else [*self._input, *(self._output[key] for key in sorted(self._output))]
        self._base = fields
        self._input = _paired([*before, *new])
        self._output = {}
        self._last_id = ""
        self.finished = False
        self._collector = _Collector()
        self._scanner = Scanner(self._collector, cap=_EVENT_CAP)
        if prewarm:
            return None, self._prewarmed()
        return self._body(fields), []

    def _body(self, fields: dict[str, msgspec.Raw]) -> bytes:
        body: dict[str, Any] = {name: value for name, value in fields.items() if name not in _WIRE_ONLY}
        body["input"] = [msgspec.Raw(item) for item in self._input]
        body["stream"] = True
        return msgspec.json.encode(body)

    def _prewarmed(self) -> list[str]:
        self._last_id = f"resp_prewarm_{uuid.uuid4().hex}"
        self.finished = True
        model = msgspec.json.decode(self._base["model"]) if "model" in self._base else ""
        response = response_object(time.time(), "in_progress", self._last_id, model)
        details = {
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        }
        usage = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0} | details
        done = response | {"status": "completed", "usage": usage}
        events = (
            {"type": "response.created", "sequence_number": 0, "response": response},
            {"type": "response.completed", "sequence_number": 1, "response": done},
        )
        return [msgspec.json.encode(event).decode() for event in events]

    async def frames(self, chunks: AsyncIterable[bytes]) -> AsyncIterator[str]:
        """The stream's events as frames; remembers the output. Ends early when the stream does."""
        async for chunk in chunks:
            for frame in self.feed(chunk):
                yield frame
            if self.finished:
                return
        self._scanner.finish()
        for frame in self._taken():
            yield frame

    def feed(self, chunk: bytes) -> list[str]:
        """The frames that ended within these bytes of the stream; remembers the output."""
        self._scanner.feed(chunk)
        return self._taken()

    def _taken(self) -> list[str]:
        frames = []
        while self._collector.frames and not self.finished:
            frame = self._collector.frames.popleft()
            self._remember(frame)
            frames.append(frame)
        return frames

    def _remember(self, frame: str) -> None:
        head = frame[:200]
        if '"response.output_item.done"' not in head and not any(f'"{kind}"' in head for kind in _TERMINAL):
            return
        try:
            event = msgspec.json.decode(frame, type=_Event)
        except msgspec.DecodeError:
            return
        if event.item and event.type == "response.output_item.done":
            self._output[event.output_index] = bytes(event.item)
        elif event.type in _TERMINAL:
            self.finished = True
            if event.type in ("response.completed", "response.done"):
                identifier = event.response.get("id")
                self._last_id = msgspec.json.decode(identifier, type=str) if identifier is not None else ""
            if sum(map(len, self._input)) > KEEP_BYTES:
                self._input, self._last_id = [], ""


def _items(raw: msgspec.Raw) -> list[bytes]:
    """The items of an `input`; a text is short for one message of the user. Raises msgspec's DecodeError."""
    found = msgspec.json.decode(raw, type=list[msgspec.Raw] | str)
    if isinstance(found, str):
        content = [{"type": "input_text", "text": found}]
        return [msgspec.json.encode({"type": "message", "role": "user", "content": content})]
    return [bytes(item) for item in found]


def _kind(item: bytes) -> _Item:
    try:
        return msgspec.json.decode(item, type=_Item)
    except msgspec.DecodeError:
        return _Item()


def _paired(items: list[bytes]) -> list[bytes]:
    """The items without doubles and without calls or outputs whose other half is missing.

    The provider refuses a transcript that holds half a call.
    """
    kinds = [_kind(item) for item in items]
    called = {kind.call_id for kind in kinds if kind.type in _CALLS}
    returned = {kind.call_id for kind in kinds if kind.type in _OUTPUTS}
    kept: list[bytes] = []
    seen: set[tuple[str, str]] = set()
    for item, kind in zip(items, kinds, strict=True):
        if kind.type in _CALLS or kind.type in _OUTPUTS:
            key = (kind.type, kind.call_id)
            other = returned if kind.type in _CALLS else called
            if key in seen or kind.call_id not in other:
                continue
            seen.add(key)
        kept.append(item)
    return kept
