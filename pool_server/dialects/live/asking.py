"""What a call that begins a live conversation asks for: its session's settings, in each form the API takes them in.

`POST /v1/realtime/calls` is a form of `sdp` and `session`, JSON of the same, or the bare offer (`application/sdp`) with
the model in the query; `…/accept` is the session itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qs

import msgspec

from pool_server.core.enums import Dialect
from pool_server.core.models import Peek
from pool_server.dialects.live.openai import keys_stand_once, session_models
from pool_server.dialects.references import references
from pool_server.dialects.types import RAW_FIELDS, BadBodyError, text
from pool_server.dialects.wire.multipart import boundary, parts

_OFFER = "application/sdp"


def peek_session(headers: Mapping[str, str], body: bytes) -> Peek:
    """The models and objects it names. Raises `BadBodyError`."""
    kind = headers.get("content-type", "")
    if (mark := boundary(kind)) is not None:
        sessions = [part.value for part in parts(body, mark) if part.name == "session" and part.value is not None]
        if len(sessions) > 1:
            raise BadBodyError("the form has more than one session")
        return _peek(sessions[0].encode()) if sessions else Peek()
    if not body.strip() or kind.partition(";")[0].strip().lower() == _OFFER:
        return Peek()
    return _peek(body)


def _peek(data: bytes) -> Peek:
    try:
        raw = msgspec.Raw(data.strip())
        fields = RAW_FIELDS.decode(raw)
        once = keys_stand_once(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise BadBodyError("the session is not a JSON object") from None
    if not once:
        raise BadBodyError("the session has a key twice")
    settings = msgspec.json.decode(data)
    session = settings.get("session") if "session" in fields else settings
    named = session_models(session)
    model = text(session.get("model")) if isinstance(session, dict) else ""
    return Peek(model=model, beside=tuple(named - {model}), objects=tuple(references(Dialect.CHAT, data)))


def name_model(peek: Peek, query: str) -> None:
    """Takes the model from the query, where the API wants it for a socket or a bare offer. Raises `BadBodyError`."""
    named = {*parse_qs(query).get("model", ()), *((peek.model,) if peek.model else ())}
    if len(named) > 1:
        raise BadBodyError("the call names more than one model")
    peek.model = named.pop() if named else ""
