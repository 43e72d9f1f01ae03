"""Chat servers tell the usage of a streamed answer only to who asks: asking for a client that did not, and taking the
answer to that out again.

Source: OpenAI's API reference, "stream_options": with `include_usage` one more chunk comes before `data: [DONE]`, with
an empty `choices` and the usage of the whole request.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import zip_longest
from typing import Any

from msgspec.json import Decoder

from pool_server.core.enums import Operation
from pool_server.core.models import Peek
from pool_server.dialects.types import BadBodyError, loads
from pool_server.dialects.wire.splice import splice

# These tell it unasked, and some of them refuse fields they do not know.
_TELLING = ("api.mistral.ai", "codestral.mistral.ai", "api.x.ai", "us.api.x.ai", "openrouter.ai", "api.fireworks.ai")

_ASKED = frozenset({Operation.CHAT, Operation.COMPLETIONS})
_MOST_HOSTS = 1024
_HOST = re.compile(r"https?://([^/:?#@]+)")
_FIELD = b'"stream_options"'
_ADDED = b',"stream_options":{"include_usage":true}'
_OBJECT: Decoder[dict[str, Any]] = Decoder(dict[str, Any])
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')
_BETWEEN = re.compile(rb"(\r?\n\r?\n)")


@lru_cache(maxsize=256)  # an exchange asks several times
def host_of(url: str) -> str:
    """The host of an http address, lower case, "" for anything else."""
    found = _HOST.match(url)
    return found[1].lower() if found else ""


class StreamUsagePolicy:
    """Decides whom to ask, and remembers the hosts that refuse to be asked."""

    def __init__(self) -> None:
        self._silent: set[str] = set()

    def wanted(self, operation: Operation, peek: Peek, host: str) -> bool:
        """Whether a streamed completion's usage has to be asked for, as its client did not."""
        asks = operation in _ASKED and peek.stream and not peek.usage_asked
        return asks and host not in _TELLING and host not in self._silent

    def refused(self, host: str, body: bytes) -> bool:
        """Whether a host's refusal is of the question; it is not asked any more then."""
        if b"stream_options" not in body or len(self._silent) >= _MOST_HOSTS:
            return False
        self._silent.add(host)
        return True


def ask_usage(body: bytes) -> bytes:
    """A Chat request that asks for the usage: the field is added last, other stream options and all other bytes stay.
    Raises BadBodyError when the body is not a JSON object."""
    if body.rfind(_FIELD) < 0:
        end = body.rfind(b"}")
        if end > 0:
            return b"".join((body[:end], _ADDED, body[end:]))
        raise BadBodyError("the request body is not a JSON object")
    found = loads(body, _OBJECT)
    options = found.get("stream_options") if found is not None else None
    asked = {**(options if isinstance(options, dict) else {}), "include_usage": True}
    return splice(body, {"stream_options": asked})


def only_usage(event: bytes) -> bool:
    """Whether a chunk of a completion holds its usage and nothing a client shows. Within JSON strings quotes are
    escaped, so a text never looks like it."""
    return _USAGE.search(event) is not None and _NO_CHOICES.search(event) is not None


def without_usage(events: bytes) -> bytes:
    """Whole server-sent events without those that hold only the usage; every other byte stays."""
    pieces = _BETWEEN.split(events)
    kept = [
        event + end for event, end in zip_longest(pieces[::2], pieces[1::2], fillvalue=b"") if not only_usage(event)
    ]
    return b"".join(kept)
