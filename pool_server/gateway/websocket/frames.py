"""What a client may send on a Responses WebSocket. Pure.

Whatever goes up was read here first, and as the provider will read it: JSON text by RFC 8259, each top-level key once,
of a type that clients are known to send. Where two parsers may disagree, the gate would judge one request and the
provider run another.
"""

from __future__ import annotations

from enum import Enum

import msgspec

from pool_server.dialects import keys_once

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
