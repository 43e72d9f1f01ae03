"""OpenAI's realtime API. Source: its API reference (client and server events), openai 3.57.

A response is a turn: `response.created` … `response.done` with its usage. What was said is transcribed beside the
turns by a model of its own, which tells its usage too.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec.json import Decoder

from pool_server.core.models import Usage
from pool_server.dialects.chat import STATUS
from pool_server.dialects.live.types import BadMessageError, LiveEvent, LiveStep
from pool_server.dialects.types import RAW_FIELDS, dumps, loads, status_of, text
from pool_server.dialects.usage import openai
from pool_server.dialects.wire.unique import keys_once

_TYPE = re.compile(rb'\s*\{\s*"type"\s*:\s*"([\w.-]+)"')
_READ = frozenset(
    {
        b"response.created",
        b"response.done",
        b"session.created",
        b"session.updated",
        b"transcription_session.created",
        b"transcription_session.updated",
        b"conversation.item.input_audio_transcription.completed",
    }
)
_SETTINGS = ("session", "response")
_ON_THE_WAY = (*_SETTINGS, "audio", "input", "transcription", "input_audio_transcription")


class _Response(msgspec.Struct):
    id: Any = ""
    usage: Any = None


class _Event(msgspec.Struct):
    type: Any = ""
    response: _Response | None = None
    session: Any = None
    usage: Any = None
    item_id: Any = ""


class _Typed(msgspec.Struct):
    type: Any = ""


class _Error(msgspec.Struct):
    type: Any = ""
    error: Any = None


_EVENT, _TYPED, _ERROR = Decoder(_Event), Decoder(_Typed), Decoder(_Error)


class OpenAILive:
    """One connection."""

    def __init__(self) -> None:
        self.model = ""
        self.handle = ""
        self._hears = ""  # the model that transcribes what is said

    def asks(self, message: str | bytes) -> tuple[bytes, set[str]]:
        if isinstance(message, bytes):
            raise BadMessageError("messages are JSON text, not binary")
        try:
            data = message.encode()
            fields = RAW_FIELDS.decode(data)
            typed = isinstance(msgspec.json.decode(fields.get("type", b"null")), str)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            typed, fields = False, {}
        if not typed:
            raise BadMessageError("the message is not a JSON object with a type, or is nested too deeply")
        if not keys_stand_once(msgspec.Raw(data)):
            raise BadMessageError("the message has a key twice")
        found: set[str] = set()
        for name in _SETTINGS:
            if name in fields:
                found |= session_models(msgspec.json.decode(fields[name]))
        return data, found

    def tells(self, message: str | bytes) -> list[LiveEvent]:
        data = message.encode("utf-8", "replace") if isinstance(message, str) else message
        match = _TYPE.match(data)
        if match is not None and match[1] not in _READ:
            return []
        if match is None:
            typed = loads(data, _TYPED)
            if typed is None or text(typed.type).encode() not in _READ:
                return []
        event = loads(data, _EVENT)
        if event is None:
            return []
        kind = text(event.type)
        if "session." in kind:
            self._session(event.session)
        elif kind == "response.created" and event.response is not None:
            return [LiveEvent(LiveStep.BEGINS, text(event.response.id))]
        elif kind == "response.done" and event.response is not None:
            return [LiveEvent(LiveStep.ENDS, text(event.response.id), _usage(event.response.usage))]
        elif kind.startswith("conversation.item.") and (used := _usage(event.usage)).known:
            return [LiveEvent(LiveStep.USED, text(event.item_id), used, self._hears or self.model)]
        return []

    def _session(self, session: Any) -> None:
        if isinstance(session, dict):
            self.model = text(session.get("model")) or self.model
            self._hears = _hearing(session) or self._hears


def refusal_in(message: str | bytes) -> tuple[int, bytes] | None:
    """The HTTP status and error body that a connection's first message stands for, None where it is no error."""
    found = loads(message.encode("utf-8", "replace") if isinstance(message, str) else message, _ERROR)
    if found is None or found.type != "error" or not isinstance(found.error, dict):
        return None
    status = status_of(STATUS, found.error.get("code"), found.error.get("type"), default=503)
    return status, dumps({"error": found.error})


def session_models(session: Any) -> set[str]:
    """The models a session's settings name: its own, and the one that transcribes what is said."""
    if not isinstance(session, dict):
        return set()
    return {name for name in (text(session.get("model")), _hearing(session)) if name}


def _hearing(session: dict[str, Any]) -> str:
    """The transcribing model, in today's form or the one of the beta."""
    audio = session.get("audio")
    told = audio.get("input") if isinstance(audio, dict) else None
    for place in (
        told.get("transcription") if isinstance(told, dict) else None,
        session.get("input_audio_transcription"),
    ):
        if isinstance(place, dict) and (model := text(place.get("model"))):
            return model
    return ""


def keys_stand_once(raw: msgspec.Raw) -> bool:
    """Whether no key stands twice on the way to a model's name."""
    fields = loads(raw, RAW_FIELDS)
    if fields is None:
        return True  # no object: it names nothing
    if not keys_once(bytes(raw), fields):
        return False
    return all(keys_stand_once(fields[name]) for name in _ON_THE_WAY if name in fields)


def _usage(raw: Any) -> Usage:
    into = openai.told()
    return openai.usage(into.figures) if openai.take(into, raw) else Usage()
