"""What the readers of live connections have in common."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

import msgspec

from pool_server.core.models import Usage


class LiveStep(Enum):
    """What a message of the provider means for the count."""

    BEGINS = "begins"  # a model began to work
    ENDS = "ends"  # it is done, and this is what it used
    USED = "used"  # something beside the turns was used (the transcription of what was said)


class LiveEvent(msgspec.Struct):
    """`turn` names the turn within its connection; `model` is the one that worked, "" = the connection's own."""

    told: LiveStep
    turn: str = ""
    usage: Usage = msgspec.field(default_factory=Usage)
    model: str = ""


class BadMessageError(ValueError):
    """The client's message cannot go up; one line for the client."""


class LiveReader(Protocol):
    """Reads one connection's messages, both ways, as JSON text or bytes, and changes none.

    `model` is the one the connection runs on, as far as it is told; `handle` is what the connection can be resumed
    with at its account, "" while there is none.
    """

    model: str
    handle: str

    def asks(self, message: str | bytes) -> tuple[bytes, set[str]]:
        """A client's message as bytes, and the models it names. Raises `BadMessageError` where two parsers may
        disagree on what it says."""

    def tells(self, message: str | bytes) -> list[LiveEvent]:
        """What a provider's message means."""
