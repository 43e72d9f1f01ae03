"""Reading the fields of a `multipart/form-data` body in place, strictly: one boundary, whole parts, CRLF lines.

What another reader might take for something else is refused, since a field decides where a call may go.
"""

from __future__ import annotations

import re
from email.message import Message

import msgspec

from pool_server.dialects.types import BadBodyError

MOST_PARTS = 2000
_PIECES = re.compile(rb";\s*name\*\d", re.IGNORECASE)  # a name in numbered pieces, which few readers put together
_HEAD = 8192  # bytes of a part's headers
_VALUE = 64 << 10  # bytes of a field that is no file
_BAD = "the request body is not valid multipart/form-data"


class Part(msgspec.Struct, frozen=True):
    """One field: `value` is its text, None for a file, whose bytes are `start` to `end` of the body."""

    name: str
    value: str | None
    start: int
    end: int


def boundary(content_type: str) -> bytes | None:
    """The boundary of a multipart/form-data content type; None for another type. Raises `BadBodyError`."""
    if not content_type.lower().lstrip().startswith("multipart/form-data"):
        return None
    found: list[tuple[str, str]] = re.findall(
        r';\s*boundary\s*=\s*(?:"([^"]+)"|([^\s;"]+))', content_type, re.IGNORECASE
    )
    if len(found) != 1 or content_type.lower().count("boundary") != 1:
        raise BadBodyError(_BAD)
    return (found[0][0] or found[0][1]).encode("latin-1", "replace")


def parts(body: bytes | memoryview, mark: bytes) -> list[Part]:
    """The body's fields in order. Raises `BadBodyError`."""
    delimiter = b"--" + mark
    if bytes(body[: len(delimiter)]) != delimiter:
        raise BadBodyError(_BAD)
    found: list[Part] = []
    at = len(delimiter)
    for match in re.finditer(re.escape(b"\r\n" + delimiter), body):
        found.append(_part(body, at, match.start()))
        at = match.end()
        if len(found) > MOST_PARTS:
            raise BadBodyError(f"the request body has more than {MOST_PARTS} parts")
    if bytes(body[at : at + 2]) != b"--" or bytes(body[at + 2 :][:64]).strip():
        raise BadBodyError(_BAD)
    return found


def _part(body: bytes | memoryview, start: int, end: int) -> Part:
    """The part between two delimiters; `start` is behind the first one."""
    head = bytes(body[start : min(end, start + _HEAD)])
    stop = head.find(b"\r\n\r\n")
    if head[:2] != b"\r\n" or stop < 0:
        raise BadBodyError(_BAD)
    disposition = [line for line in head[2:stop].split(b"\r\n") if line.lower().startswith(b"content-disposition:")]
    if len(disposition) != 1 or _PIECES.search(disposition[0]):
        raise BadBodyError(_BAD)
    message = Message()
    message["Content-Disposition"] = disposition[0].partition(b":")[2].strip().decode("utf-8", "replace")
    try:
        names = message.get_params(header="content-disposition", unquote=True) or []
    except (TypeError, ValueError, LookupError):  # pieces of a value that cannot be put in order, or counted
        raise BadBodyError(_BAD) from None
    name = [value for key, value in names if key.lower() == "name"]
    if len(name) != 1 or not isinstance(name[0], str):
        raise BadBodyError(_BAD)
    first = start + stop + 4
    if any(key.lower().startswith("filename") for key, _ in names):
        return Part(name[0], None, first, end)
    if end - first > _VALUE:
        return Part(name[0], None, first, end)
    try:
        return Part(name[0], bytes(body[first:end]).decode("utf-8"), first, end)
    except UnicodeDecodeError:
        return Part(name[0], None, first, end)
