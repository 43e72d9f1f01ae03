"""Gemini's Live API. Source: ai.google.dev, Live API reference (`BidiGenerateContent`), google-genai 3.6.

The first message is `setup`, which names the model. A turn begins with the first content or tool call after one has
ended, and ends with `turnComplete`, or when the client answers its tool calls: what comes then is another run of the
model. `usageMetadata` stands beside any of these; within a turn the last word on each figure counts.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.json import Decoder

from pool_server.core.models import Usage
from pool_server.dialects.live.types import BadMessageError, LiveEvent, LiveStep
from pool_server.dialects.types import RAW_FIELDS, loads, text
from pool_server.dialects.usage import google
from pool_server.dialects.wire.unique import keys_once

_RESULTS = frozenset({"toolResponse", "tool_response"})


class _Content(msgspec.Struct):
    turnComplete: Any = False


class _Resumption(msgspec.Struct):
    newHandle: Any = ""
    resumable: Any = True


class _Message(msgspec.Struct):
    serverContent: _Content | None = None
    toolCall: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    usageMetadata: Any = None
    sessionResumptionUpdate: _Resumption | None = None


_MESSAGE = Decoder(_Message)


class GoogleLive:
    """One connection."""

    def __init__(self) -> None:
        self.model = ""
        self.handle = ""
        self._turns = 0
        self._open = False
        self._answered = False  # the client has sent results: what was open is over
        self._told = google.told()

    def asks(self, message: str | bytes) -> tuple[bytes, set[str]]:
        try:
            data = message.encode() if isinstance(message, str) else message
            fields = RAW_FIELDS.decode(data)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            raise BadMessageError("the message is not a JSON object, or is nested too deeply") from None
        if not keys_once(data, fields):
            raise BadMessageError("the message has a key twice")
        if not self.model:
            self._set_up(fields)
            return data, {self.model}
        if "setup" in fields:
            raise BadMessageError("the connection is set up already")
        self._answered = self._answered or not _RESULTS.isdisjoint(fields)
        return data, set()

    def _set_up(self, fields: dict[str, msgspec.Raw]) -> None:
        setup = loads(fields.get("setup", msgspec.Raw(b"null")), RAW_FIELDS)
        if setup is None or set(fields) != {"setup"}:
            raise BadMessageError("the first message is not a setup")
        if not keys_once(bytes(fields["setup"]), setup):
            raise BadMessageError("the setup has a key twice")
        model = text(msgspec.json.decode(setup.get("model", b"null")))
        if not model:
            raise BadMessageError("the setup names no model")
        self.model = model.rpartition("/")[2]
        resumed: Any = {}
        for name in ("sessionResumption", "session_resumption"):
            if name in setup:
                resumed = msgspec.json.decode(setup[name])
        self.handle = text(resumed.get("handle")) if isinstance(resumed, dict) else ""

    def tells(self, message: str | bytes) -> list[LiveEvent]:
        data = message.encode("utf-8", "replace") if isinstance(message, str) else message
        found = loads(data, _MESSAGE)
        if found is None:
            return []
        events: list[LiveEvent] = []
        if self._answered:
            self._answered = False
            events += self._ended()
        works = found.serverContent is not None or found.toolCall is not msgspec.UNSET
        if works and not self._open:
            self._open, self._turns = True, self._turns + 1
            events.append(LiveEvent(LiveStep.BEGINS, str(self._turns)))
        if found.usageMetadata is not None:
            google.take(self._told, found.usageMetadata)
            if not self._open:  # it comes behind the turn's end
                events.append(LiveEvent(LiveStep.USED, usage=self._taken()))
        if found.serverContent is not None and found.serverContent.turnComplete is True:
            events += self._ended()
        resumption = found.sessionResumptionUpdate
        if resumption is not None and resumption.resumable is not False:
            self.handle = text(resumption.newHandle) or self.handle
        return events

    def _ended(self) -> list[LiveEvent]:
        if not self._open:
            return []
        self._open = False
        return [LiveEvent(LiveStep.ENDS, str(self._turns), self._taken())]

    def _taken(self) -> Usage:
        told, self._told = self._told, google.told()
        return google.usage(told.figures)
