"""The other form of an answer, within its dialect: events as the one body they amount to, a body as events.

Some servers answer with events where one body was asked for, and the other way round. What the dialect's own clients
do with events is done here for them; fields that nobody knows stay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from pool_server.core.enums import ApiFamily, Dialect
from pool_server.core.lenient_json import read_answer, read_any
from pool_server.dialects.forms import chat_chunks, google_events, message_events, response_events
from pool_server.dialects.forms.growing import grown
from pool_server.dialects.specs import SPECS, DialectSpec
from pool_server.dialects.types import RENDERED
from pool_server.dialects.wire.sse import EVENT_CAP, Scanner, data_of

_HELD = 32 << 20  # bytes of events that are folded
_JSON = msgspec.json.Decoder()


class _Fold(Protocol):
    def take(self, event: dict[str, Any]) -> None:
        """The next event."""

    def answer(self) -> Any:
        """The whole answer; None where there was none."""


_FOLDS: dict[ApiFamily, Callable[[], _Fold]] = {
    ApiFamily.OPENAI: chat_chunks.ChatFold,
    ApiFamily.ANTHROPIC: message_events.MessageFold,
    ApiFamily.GOOGLE: google_events.GenerationFold,
}


def _fold(spec: DialectSpec) -> _Fold:
    return response_events.LastResponse() if spec.continues_by_id else _FOLDS[spec.family]()


class Folded:
    """A stream as one body. `listed`: the body is a list of the events, as Google's clients take a stream without
    `alt=sse`. `error` is the event that ended the answer as one that failed."""

    def __init__(self, dialect: Dialect, *, listed: bool = False) -> None:
        self._fold: _Fold = google_events.EventList() if listed else _fold(SPECS[dialect])
        self._scanner = Scanner(self)
        self._size = 0
        self.error: dict[str, Any] | None = None

    def feed(self, piece: bytes) -> None:
        """Take the next bytes of the stream, cut anywhere."""
        self._size += len(piece)
        if self._size <= _HELD:
            self._scanner.feed(piece)

    def listing(self, body: bytes) -> None:
        """Take all events of a JSON list, as Google tells a stream without `alt=sse`."""
        self._size += len(body)
        found = read_any(body) if self._size <= _HELD else None
        for one in found if isinstance(found, list) else ():
            self._take(one)

    def body(self) -> bytes | None:
        """The whole answer, or the error it ended with; None where neither can be told."""
        self._scanner.finish()
        found = self._fold.answer() if self.error is None else self.error
        return None if found is None or self._size > _HELD else msgspec.json.encode(found, enc_hook=grown)

    def close(self) -> None:
        """Nothing more is fed: the scanner and this refer to each other no longer."""
        self.__dict__.pop("_scanner", None)

    # What the scanner asks

    def event(self, event: bytes) -> int:
        self._take(read_answer(data_of(event), _JSON))
        return RENDERED

    def _take(self, found: Any) -> None:
        if isinstance(found, dict):
            if found.get("error") is not None and self.error is None:
                self.error = found
            self._fold.take(found)

    def wanted(self, head: bytes) -> bool:
        return True

    def passed_over(self, head: bytes) -> int:
        self._size += EVENT_CAP + _HELD
        return RENDERED


def listed(dialect: Dialect, query: str, *, stream: bool) -> bool:
    """Whether a client takes a stream's events as a JSON list: Google's do unless they ask for `alt=sse`."""
    return stream and SPECS[dialect].family is ApiFamily.GOOGLE and "alt=sse" not in query


def unfolded(dialect: Dialect, body: bytes, *, usage: bool) -> bytes | None:
    """A whole answer as its dialect's events; None where it is none. `usage`: a Chat client asked for it."""
    found, spec = read_any(body), SPECS[dialect]
    if spec.family is ApiFamily.GOOGLE:
        return google_events.events(found)
    if not isinstance(found, dict) or found.get("error") is not None:
        return None
    if spec.continues_by_id:
        return response_events.events(found)
    return (
        message_events.events(found) if spec.family is ApiFamily.ANTHROPIC else chat_chunks.events(found, usage=usage)
    )
