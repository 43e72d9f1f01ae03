"""What carries an exchange's bytes, as the pipeline sees it: HTTP both ways, a WebSocket, the bridge between them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from pool_server import dialects
from pool_server.core.models import ClientError, Fault, UpstreamRequest
from pool_server.gateway.answer import Ending, Piece
from pool_server.http1 import UpstreamDisconnectedError
from pool_server.providers import Credential, Shield

LIVED_TOO_LONG = "websocket_connection_limit_reached"  # the provider's word for: connect again


KEEPALIVE_S = 15.0
EARLY_HEADERS_S = 25.0  # a streaming client gets headers by then, whatever the upstream does


class WaitTimers:
    """How long either side of an exchange has waited. One for all its attempts."""

    __slots__ = ("began", "waiting_since", "wrote_at")

    def __init__(self, now: float) -> None:
        self.began = self.wrote_at = now
        self.waiting_since: float | None = None  # for the upstream; None while a slow client takes the time

    def silent(self, now: float, limit_s: float) -> bool:
        """Has the upstream said nothing for that long?"""
        return self.waiting_since is not None and now - self.waiting_since >= limit_s

    def headers_due(self, now: float) -> bool:
        return now - self.began >= EARLY_HEADERS_S

    def keep_alive_due(self, now: float) -> bool:
        return now - self.wrote_at >= KEEPALIVE_S


class UpstreamRefusal(msgspec.Struct, frozen=True):
    """An upstream's answer that is no success. `fields` are its headers by lower-case name, `unread` says why its words
    are not known although there are some."""

    status: int
    headers: list[tuple[str, str]]
    fields: dict[str, str]
    body: bytes
    unread: str = ""


class UpstreamAnswer(Protocol):
    """An upstream's answer as it comes in. `fields` are its headers by lower-case name. `at_once`, while it is set,
    is offered each piece that nothing unread stands before, as it comes: True = taken, else `read` has it."""

    status: int
    fields: dict[str, str]
    at_once: Callable[..., bool] | None

    @property
    def read(self) -> Callable[[], Awaitable[Piece]]:
        """The next piece, b"" at the end. Raises `UpstreamDisconnectedError`."""

    def close(self) -> None:
        """What is still to come is not wanted; whoever reads gets `UpstreamDisconnectedError`."""


class ClientTransport(Protocol):
    """Moves the bytes of one exchange between a client and whichever upstream is asked; decides nothing.

    `framed`: pieces are WebSocket messages. `bound` is the only account that can go on with what the request
    continues ("" = there is none), None when any can. `started`: the client has something of an answer, if only
    headers; `status` is the one it was told, 0 for none. `sent` counts the bytes handed to the client.
    """

    @property
    def framed(self) -> bool: ...

    @property
    def bound(self) -> str | None: ...

    @property
    def started(self) -> bool: ...

    @property
    def status(self) -> int: ...

    @property
    def closed(self) -> bool: ...

    @property
    def sent(self) -> int: ...

    async def plain(self) -> bytes:
        """The request's body, decoded. Raises `BadEncodingError`, `BodyTooLargeError`."""

    async def whole(self, account: str, credential: Credential) -> bytes | None:
        """The body with all that the connection remembers of the conversation, for an account that is asked in another
        dialect; None where the request can be answered without asking. Raises as `plain` and `open` do."""

    def prepare(self, credential: Credential) -> str:
        """Makes ready to ask with this credential; the URL that is asked, "" where it is not known yet."""

    async def open(
        self, account: str, credential: Credential, body: bytes | None
    ) -> UpstreamAnswer | UpstreamRefusal | Fault:
        """Asks one account. `body` (decoded) stands in place of the client's own bytes where it had to be changed.
        Raises `BadBodyError`, `ContinuationLostError`."""

    def broke(self, error: UpstreamDisconnectedError) -> Fault:
        """What it means that the upstream broke off."""

    def drop(self) -> None:
        """Lets go of the account that was asked."""

    def begin(self, pieces: list[Piece], length: int | None, shield: Shield) -> Awaitable[None] | None:
        """Begins the answer, with its headers behind the account's shield; `length` of the whole body in bytes, None
        when it is not known. Like `write`, something to wait for while the client is behind; both raise
        `ClientDisconnectedError`."""

    def write(self, piece: Any) -> Awaitable[None] | None:
        """A further piece."""

    def keep_alive(self) -> None:
        """Shows the client that it is still being served, with early headers if nothing was started."""

    async def end(self, ending: Ending, error: ClientError | None, latest: Piece) -> None:
        """The answer that was begun is over; `error` says why where a stream broke off, behind its `latest` piece."""

    async def refuse(self, refusal: UpstreamRefusal, fault: Fault, shield: Shield) -> None:
        """Tells the client the provider's own refusal."""

    async def tell(self, error: ClientError) -> None:
        """Tells the client an error of the pool's own, whichever stage the answer is in."""


def finished(prepared: UpstreamRequest, body: bytes) -> tuple[UpstreamRequest, bytes]:
    """The request and its body as they go up: with the fields that the account's vendor wants, and signed where it has
    to be. Raises `BadBodyError`."""
    if prepared.drop:
        body = dialects.without(body, prepared.drop)
    if prepared.patch:
        body = dialects.splice(body, prepared.patch)
    if prepared.sign is not None:
        prepared = msgspec.structs.replace(prepared, headers=[*prepared.headers, *prepared.sign(body)], written=None)
    return prepared, body


def changes(prepared: UpstreamRequest) -> bool:
    """Whether `finished` has to have the whole body."""
    return bool(prepared.patch or prepared.drop) or prepared.sign is not None


def content_length(source: UpstreamAnswer | None) -> int | None:
    """What the upstream said of its body's length."""
    text = source.fields.get("content-length", "") if source is not None else ""
    return int(text) if text.isdigit() else None
