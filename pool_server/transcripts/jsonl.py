"""A transcript's lines: JSON objects, one a line, of one exchange. Pure.

`exchange` (who, when, how, the client's headers without secrets), `request` (the body, in parts), then in the order of
what happened `answer` (status and headers), `body` (bytes of the answer, with the time and length of each piece) and
`frame` (a WebSocket message), at last `end` (what the pool's record says, and the sums). Bytes are base64.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from pool_server.core.models import UsageRecord
from pool_server.providers.redact import HIDDEN, redact
from pool_server.transcripts.capture import Answered, CaptureEvent, CaptureHead, HeldFile, Piece

VERSION = 1
PART_BYTES = 1 << 20  # of a request's body in one line

_SECRET_WORDS = frozenset(
    {
        "auth", "authorization", "authentication", "authenticate", "cookie", "cookie2", "credential", "credentials",
        "jwt", "key", "passphrase", "password", "secret", "signature", "token",
    }
)  # fmt: skip
_NO_SECRETS = frozenset({"idempotency-key", "x-idempotency-key", "sec-websocket-key"})
_WORD = re.compile(r"[-_.]+")
_encode = msgspec.json.Encoder().encode


class Totals:
    """What went one way: bytes, pieces, and the SHA-256 of all of it in a row."""

    def __init__(self) -> None:
        self.bytes = self.pieces = 0
        self._digest = hashlib.sha256()

    def add(self, data: bytes) -> None:
        self.bytes += len(data)
        self.pieces += 1
        self._digest.update(data)

    def told(self) -> dict[str, Any]:
        return {"bytes": self.bytes, "pieces": self.pieces, "sha256": self._digest.hexdigest()}


def without_secrets(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Headers as they may be kept: every one by its name, its value hidden where the name or its looks say so.

    >>> without_secrets([("Authorization", "Bearer x"), ("X-Api-Key", "y"), ("Accept", "text/html")])
    [('Authorization', '[hidden]'), ('X-Api-Key', '[hidden]'), ('Accept', 'text/html')]
    """
    return [(name, HIDDEN if _is_secret(name) else redact(value)) for name, value in headers]


def _is_secret(name: str) -> bool:
    lower = name.lower()
    if lower in _NO_SECRETS:
        return False
    return lower == "sec-websocket-protocol" or not _SECRET_WORDS.isdisjoint(_WORD.split(lower))


def head_line(head: CaptureHead) -> bytes:
    fields = msgspec.structs.asdict(head)
    fields["headers"] = without_secrets(head.headers)
    fields["query"] = redact(head.query)
    return _line("exchange", version=VERSION, **fields)


def request_lines(body: bytes | HeldFile | None, sums: Totals, room: int) -> Iterator[bytes]:
    """The body in parts, `room` bytes of it at most; all of it is counted."""
    if body is None:
        return
    size = body.size if isinstance(body, HeldFile) else len(body)
    for offset in range(0, size, PART_BYTES):
        part = body.read(offset, PART_BYTES) if isinstance(body, HeldFile) else body[offset : offset + PART_BYTES]
        sums.add(part)
        if offset + len(part) <= room:
            yield _line("request", offset=offset, **_payload(part))


def event_lines(
    events: Sequence[CaptureEvent], up: Totals, down: Totals, *, began: float, websocket: bool
) -> Iterator[bytes]:
    """Lines of events; neighbours among an HTTP answer's pieces share one. `began`: monotonic seconds."""
    pieces: list[tuple[float, bytes]] = []
    for at, what, from_client in events:
        ms = (at - began) * 1000
        if isinstance(what, Answered):
            yield from _body_line(pieces)
            yield _line("answer", ms=_ms(ms), status=what.status, headers=without_secrets(what.headers))
            continue
        data = _bytes(what)
        (up if from_client else down).add(data)
        if websocket:
            way, kind = "up" if from_client else "down", "text" if isinstance(what, str) else "binary"
            yield _line("frame", ms=_ms(ms), direction=way, kind=kind, **_payload(data))
        else:
            pieces.append((ms, data))
    yield from _body_line(pieces)


def _body_line(pieces: list[tuple[float, bytes]]) -> Iterator[bytes]:
    if pieces:
        told = [[_ms(ms), len(data)] for ms, data in pieces]
        whole = b"".join(data for _, data in pieces)
        pieces.clear()
        yield _line("body", ms=told[0][0], pieces=told, **_payload(whole))


def end_line(record: UsageRecord | None, request: Totals, up: Totals, down: Totals, *, cut: bool) -> bytes:
    """`cut`: not all of it is here, the sums count all the same. The account that served is not named."""
    told: dict[str, Any] = {}
    if record is not None:
        fields = (
            "status", "outcome", "message", "provider", "model", "answered", "transport", "cost", "partial",
            "first_byte_ms", "total_ms", "project", "tier",
        )  # fmt: skip
        told = {name: getattr(record, name) for name in fields}
        told["usage"] = msgspec.to_builtins(record.usage)
        told["attempts"] = len(record.attempts)
    return _line("end", request=request.told(), up=up.told(), down=down.told(), cut=cut, **told)


def _line(line_type: str, /, **fields: Any) -> bytes:
    return _encode({"type": line_type, **fields}) + b"\n"


def _payload(data: bytes) -> dict[str, Any]:
    return {
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "data": base64.b64encode(data).decode(),
    }


def _bytes(piece: Piece) -> bytes:
    return piece.encode("utf-8", "surrogatepass") if isinstance(piece, str) else bytes(piece)


def _ms(ms: float) -> float:
    return round(ms, 2)
