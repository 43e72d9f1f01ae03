"""Small things every dialect shares: exceptions, the signals as bare numbers, and the meter's shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec.json import Decoder

from pool_server.core.enums import ObjectKind, Signal
from pool_server.core.models import Usage
from pool_server.dialects.usage.batch import BatchUsage
from pool_server.dialects.usage.served import Served

# Signals are combined as plain ints: `|` on an IntFlag member takes about a microsecond in CPython 3.11.
RENDERED = int(Signal.RENDERED)
TERMINAL = int(Signal.TERMINAL)
FAULT = int(Signal.FAULT)
LIMITS = int(Signal.LIMITS)
USAGE = int(Signal.USAGE)
SIGNALS = tuple(Signal(n) for n in range(32))

T = TypeVar("T")

_MOST = 1 << 53  # tokens; a count beyond it is a broken number
TEXT = Decoder(str)
RAW_FIELDS = Decoder(dict[str, msgspec.Raw])


class BadBodyError(Exception):
    """The request body is not the JSON it has to be. The message is one line and quotes nothing of the body."""


class BadEncodingError(Exception):
    """The Content-Encoding is not known, or the body is not what it says."""


class ContinuationLostError(Exception):
    """The request continues a response that is not held: the client must send everything again."""


class BodyTooLargeError(Exception):
    """The decoded body would be larger than the cap."""


class Meter(Protocol):
    """Reads an answer as it passes and never changes it.

    `usage` is what the provider has reported so far, normalised; `served` is how it says the answer was served;
    `complete` says that the answer ended as its dialect demands, `pending` that it is only the receipt of work still to
    be done; `fault` is an in-stream error as (HTTP status, JSON
    error body); `limits` collects raw JSON of quota events until the caller drains it; `at_boundary` is True between
    two events, where a keep-alive may be put in. `made` are the objects the answer brings (see `references`), `body`
    is a whole JSON answer once it ended, b"" for a stream.
    """

    @property
    def made(self) -> list[tuple[ObjectKind, str]]: ...

    @property
    def body(self) -> bytes: ...

    @property
    def usage(self) -> Usage: ...

    @property
    def model(self) -> str: ...

    @property
    def response_id(self) -> str: ...

    @property
    def served(self) -> Served: ...

    @property
    def complete(self) -> bool: ...

    @property
    def pending(self) -> bool: ...

    @property
    def fault(self) -> tuple[int, bytes] | None: ...

    @property
    def limits(self) -> list[bytes]: ...

    @property
    def at_boundary(self) -> bool: ...

    @property
    def glance(self) -> Callable[[bytes], bool]:
        """Of a piece that comes at a boundary: whether it is one plain event that shows something and no more, so that
        `feed` need not have it."""

    def feed(self, chunk: bytes) -> Signal:
        """Take the next bytes of the answer, cut anywhere, and say what their finished events held."""

    def finish(self) -> Signal:
        """The answer ended: read what was left without its closing blank line, or the whole JSON answer."""


class AnswerFacts:
    """What a reader learns from an answer. Readers share this; meters hand it out."""

    model = ""
    response_id = ""
    complete = False
    pending = False
    fault: tuple[int, bytes] | None = None

    def __init__(self) -> None:
        self.limits: list[bytes] = []
        self.made: list[tuple[ObjectKind, str]] = []
        self._usage = Usage()
        self._served = Served()

    @property
    def usage(self) -> Usage:
        self._settle()
        return self._usage

    @property
    def served(self) -> Served:
        self._settle()
        return self._served

    def _settle(self) -> None:
        """Read what was kept undecoded."""

    def end(self) -> None:
        """The body ended: what that says about the answer's being whole."""

    def batch(self, results: BatchUsage) -> None:
        """Take over what the results of a batch add up to."""
        self._usage = results.usage()
        self._served = Served(tier="batch")
        models = results.models
        self.model = models.pop() if len(models) == 1 else ""


def loads(data: bytes | memoryview | msgspec.Raw, decoder: Decoder[T]) -> T | None:
    """Decode JSON; None where it is broken or of another shape. Decoders are made once: making one costs more than
    what it then decodes."""
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def dumps(value: Any) -> bytes:
    """Encode as compact JSON."""
    return msgspec.json.encode(value)


def whole(value: Any) -> int:
    """A token count as a non-negative int; providers have sent null, floats and negative numbers."""
    if type(value) is int and 0 <= value <= _MOST:  # as it nearly always is
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        return 0
    return max(0, int(min(value, _MOST)))


def says(error: Any) -> bool:
    """Whether an `error` is one: some relays add an empty text, or an object of empty fields, to good answers."""
    return any(error.values()) if isinstance(error, dict) else bool(error)


def text(value: Any) -> str:
    """`value` where it is a string, else an empty one."""
    return value if isinstance(value, str) else ""


def status_of(names: dict[str, int], *labels: Any, default: int = 502) -> int:
    """The HTTP status an error's labels (code, type) stand for; the first known label wins."""
    for label in labels:
        if isinstance(label, int) and not isinstance(label, bool) and 400 <= label <= 599:
            return label
        if isinstance(label, str):
            if label.isdigit() and 400 <= int(label) <= 599:
                return int(label)
            if label in names:
                return names[label]
    return default
