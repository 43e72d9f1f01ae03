"""Keys that stand twice in a JSON object: one parser takes the first value, another the last. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

_BLANKS = rb"[ \t\n\r]*"
_KEY = re.compile(_BLANKS + rb'("(?:[^"\\]|\\.)*")' + _BLANKS + rb":" + _BLANKS, re.DOTALL)
_NEXT = re.compile(_BLANKS + rb"([,}])" + _BLANKS)
_text = msgspec.json.Decoder(str)


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
