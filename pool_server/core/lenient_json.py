"""JSON as upstreams really send it.

Vendors' own clients read it with parsers that forgive: `NaN` and `Infinity` from Python servers, halves of surrogate
pairs, raw control characters, a byte order mark, UTF-16, something after the value. The bytes go to the client as they
came; what is counted and translated is read from a strict form of them. Requests are never read so: what the pool
and a vendor understand differently would pass the limits.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

BLANK = b" \t\r\n\xef\xbb\xbf"  # what may stand before a body; a byte order mark, too
_PAGES = (b"<!doctype", b"<html", b"<head")
_TITLE = re.compile(r"<title[^>]{0,200}>([^<]{0,300})", re.I)
_MOST = 512 << 10  # bytes that are read leniently: on the event loop, up to 83 ms of CPU a MiB of small values


def read_answer(data: bytes | memoryview | msgspec.Raw, decoder: msgspec.json.Decoder[T]) -> T | None:
    """Decode JSON of an upstream; None where it is none, even to a lenient reader, or of another shape."""
    try:
        return decoder.decode(data)
    except msgspec.ValidationError:
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        strict = strict_json(bytes(data))
    try:
        return None if strict is None else decoder.decode(strict)
    except (msgspec.MsgspecError, RecursionError):
        return None


def read_any(data: bytes | str) -> Any:
    """JSON of an upstream, whatever it says; None where it is none."""
    return read_answer(data if isinstance(data, bytes) else data.encode("utf-8", "replace"), _ANY)


def page_title(data: bytes, *, labelled: bool = False) -> str | None:
    """The title of an HTML page in the place of JSON, "" where it has none; None for anything else. `labelled`: its
    headers call it one."""
    if not labelled and not data[:512].lstrip(BLANK).lower().startswith(_PAGES):
        return None
    title = _TITLE.search(data[:4096].decode("utf-8", "replace"))
    return title.group(1).strip() if title else ""


def strict_json(data: bytes) -> bytes | None:
    """The first object or list of `data` as strict JSON; None where there is none, or it is not whole.

    Constants that JSON does not have become null, characters that UTF-8 cannot hold U+FFFD.
    """
    if len(data) > _MOST:
        return None
    try:
        written = data.decode(json.detect_encoding(data), "replace").lstrip(" \t\r\n\ufeff")
        if not written.startswith(("{", "[")):
            return None
        found = _READER.raw_decode(written)[0]
        plain = json.dumps(found, ensure_ascii=False)
    except (ValueError, RecursionError):
        return None
    return plain.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def beyond_reading(data: bytes) -> bool:
    """Whether this looks whole and is too large to be read leniently: nobody here can tell what is in it."""
    text = data.strip(BLANK) if len(data) > _MOST else b""
    return text[:1] in (b"{", b"[") and text[-1:] in (b"}", b"]")


def why_unread(data: bytes) -> str:
    """Why a whole answer that should be JSON cannot be taken for one, in words for whoever asked."""
    text = data.strip(BLANK)
    if not text:
        return "the answer is empty"
    large = len(data) > _MOST
    try:
        msgspec.json.decode(b"" if large else text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        if text[-1:] not in (b"}", b"]") and (large or "truncated" in str(error)):
            return "the answer ended before it was complete"
        if large:
            return f"the answer is not valid JSON, and with {len(data)} bytes too large to be read all the same"
        return "the answer is not valid JSON"
    return "the answer is JSON of no known form"


def _no_constant(name: str) -> None:
    return None


def _finite(digits: str) -> float | None:
    found = float(digits)
    return found if math.isfinite(found) else None


_ANY = msgspec.json.Decoder()
_READER: Any = json.JSONDecoder(strict=False, parse_constant=_no_constant, parse_float=_finite)
