"""What a client may send on a Responses WebSocket. Pure.

Whatever goes up was read here first, and as the provider will read it: JSON text by RFC 8259, each top-level key once,
of a type that clients are known to send. Where two parsers may disagree, the gate would judge one request and the
provider run another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum

import msgspec

CONTROL_CAP = 4096  # characters of a frame that starts no turn


class FrameKind(Enum):
    """The frames a client sends; those that start a turn carry a request."""

    CREATE = "response.create"
    APPEND = "response.append"
    PROCESSED = "response.processed"  # the client has taken a response in; `response_id` names it

    @property
    def starts_turn(self) -> bool:
        return self is not FrameKind.PROCESSED


class BadFrameError(ValueError):
    """The frame cannot go up; one line for the client."""


class _Processed(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    response_id: str = ""


_TYPES = {kind.value: kind for kind in FrameKind}
_Fields = dict[str, msgspec.Raw]
_fields = msgspec.json.Decoder(_Fields)
_processed = msgspec.json.Decoder(_Processed)
_text = msgspec.json.Decoder(str)
_BLANKS = rb"[ \t\n\r]*"
_KEY = re.compile(_BLANKS + rb'("(?:[^"\\]|\\.)*")' + _BLANKS + rb":" + _BLANKS, re.DOTALL)
_NEXT = re.compile(_BLANKS + rb"([,}])" + _BLANKS)


def judge(frame: str | bytes) -> FrameKind:
    """What the frame is. Raises BadFrameError."""
    if isinstance(frame, bytes):
        raise BadFrameError("frames are JSON text, not binary")
    try:
        data = frame.encode()
        fields = _fields.decode(data)
        kind = _TYPES.get(_text.decode(fields.get("type", b"null")))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise BadFrameError("the frame is not a JSON object with a type, or is nested too deeply") from None
    if kind is None:
        raise BadFrameError(f"the frame's type is none of {', '.join(_TYPES)}")
    if not keys_once(data, fields):
        raise BadFrameError("the frame has a key twice")
    if not kind.starts_turn:
        _judge_control(frame)
    return kind


def _judge_control(frame: str) -> None:
    try:
        if len(frame) > CONTROL_CAP:
            raise BadFrameError("the frame is too long for its type")
        _processed.decode(frame)
    except msgspec.DecodeError:
        raise BadFrameError("the frame has a field that its type does not have") from None


def keys_once(data: bytes, fields: Mapping[str, msgspec.Raw]) -> bool:
    """Whether each of the object's own keys stands in it once; `fields` is what `data`, a valid JSON object, was read
    as.

    Read so, a key that stands there twice has its last value at the place of the first: walking the text beside the
    fields then meets a value that is not there, or a key too many.
    """
    at = data.find(b"{") + 1
    last = len(fields)
    for number, (name, value) in enumerate(fields.items(), 1):
        key = _KEY.match(data, at)
        raw = bytes(value)
        if key is None or _text.decode(key[1]) != name or not data.startswith(raw, key.end()):
            return False
        end = _NEXT.match(data, key.end() + len(raw))
        if end is None or (end[1] == b"}") is not (number == last):
            return False
        at = end.end()
    return last > 0 or data[at:].strip() == b"}"
