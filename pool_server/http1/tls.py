"""TLS between a client's connection and its socket (RFC 8446, RFC 5246): ciphertext on one side, HTTP on the other.

Theory of operation. The socket's transport hands over what comes (`data_received`), OpenSSL takes it through a buffer
in memory, and the connection gets what was in it; what the connection writes goes the other way. The connection has
this transport from the socket's first moment, so that whatever ends a plain connection that waits (its patience, the
budget of connections) ends a handshake alike, and no clock runs here. Everything decrypted of one piece is handed over
at once: a connection that reads no more gets nothing it did not ask for. The states are `HANDSHAKE`, `OPEN`, `OVER`:
after its own goodbye (close_notify) nothing is decrypted any more, as nothing is read of a connection that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple, cast

from pool_server.http1.server_connection import ServerConnection

_RECORD = 16 << 10  # bytes: the most that one record holds, and one read takes out
_HANDSHAKE_RECORD = 0x16  # how a handshake begins (RFC 8446 §5.1), and no request does
_PLAIN = b"This server speaks TLS: use its https:// address.\n"
NOT_TLS = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(_PLAIN), _PLAIN)
)


class TlsSession(NamedTuple):
    """A session that goes on without this transport: OpenSSL's half, what it reads from and what it writes to."""

    tls: ssl.SSLObject
    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO


class TlsState(IntEnum):
    """Where a connection's encryption stands."""

    HANDSHAKE = 0
    OPEN = 1
    OVER = 2


class TlsTransport(asyncio.Transport, asyncio.Protocol):
    """The transport of `connection`, the protocol of its socket. `told` hears of clients that fail to begin: "plain"
    of those that speak no TLS, "handshake" of those whose handshake fails (no protocol or cipher in common, a
    certificate they do not trust) or whose records are no good."""

    def __init__(
        self, context: ssl.SSLContext, connection: ServerConnection, told: Callable[[str, str], object]
    ) -> None:
        super().__init__()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._connection = connection
        self._told = told
        self._state = TlsState.HANDSHAKE
        self._greeted = False  # the first byte was looked at
        self._socket: asyncio.Transport

    # -- what the socket's transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = cast(asyncio.Transport, transport)
        self._connection.connection_made(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self._greeted and self._state == TlsState.HANDSHAKE:
            self._told("handshake", "")  # it left when it saw the certificate, without an alert
        self._state = TlsState.OVER
        self._connection.connection_lost(error)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._state == TlsState.OVER:
            return
        if not self._greeted:
            self._greeted = True
            if data[0] != _HANDSHAKE_RECORD:
                self._turn_away()
                return
        self._incoming.write(data)
        try:
            if self._state == TlsState.HANDSHAKE:
                self._shake()
            plain, over = self._decrypted()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError:
            self._told("handshake", "")
            self._flush()  # the alert says why
            self._end()
            return
        self._flush()
        if plain:
            self._connection.data_received(plain)
        if over:
            self.close()

    def _shake(self) -> None:
        """A step of the handshake. There are few, so that each may have its time anew. Raises ssl.SSLError."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            if self._outgoing.pending:
                self._connection.went_on()
            raise
        self._state = TlsState.OPEN
        self._connection.went_on()

    def _decrypted(self) -> tuple[bytes, bool]:
        """What the records that are whole hold, and whether the client has said goodbye."""
        pieces: list[bytes] = []
        with contextlib.suppress(ssl.SSLWantReadError):
            while piece := self._tls.read(_RECORD):
                pieces.append(piece)
            return b"".join(pieces), True
        return b"".join(pieces), False

    def _turn_away(self) -> None:
        """Tells whoever speaks plain HTTP, in it."""
        self._told("plain", "")
        self._socket.write(NOT_TLS)
        self._end()

    def _flush(self) -> None:
        if data := self._outgoing.read():
            self._socket.write(data)

    def _end(self) -> None:
        self._state = TlsState.OVER
        self._socket.close()

    # -- what the connection asks

    def write(self, data: Any) -> None:
        if self._state == TlsState.OPEN:
            self._tls.write(data)  # all of it: a buffer in memory takes any number of records
            self._flush()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._say_goodbye()
        self._socket.write_eof()

    def close(self) -> None:
        """What was written goes out, then the connection ends; a handshake ends at once."""
        if self._state == TlsState.HANDSHAKE:
            self.abort()
            return
        self._say_goodbye()
        self._socket.close()

    def abort(self) -> None:
        self._state = TlsState.OVER
        self._socket.abort()

    def _say_goodbye(self) -> None:
        """close_notify: what the client has got is whole (RFC 8446 §6.1)."""
        if self._state == TlsState.OPEN:
            with contextlib.suppress(ssl.SSLError):  # it would wait for the client's
                self._tls.unwrap()
            self._flush()
        self._state = TlsState.OVER

    def pause_reading(self) -> None:
        self._socket.pause_reading()

    def resume_reading(self) -> None:
        self._socket.resume_reading()

    def is_closing(self) -> bool:
        return self._state == TlsState.OVER or self._socket.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._socket.get_extra_info(name, default)

    @property
    def session(self) -> TlsSession:
        """For whoever takes over the connection with its socket."""
        return TlsSession(self._tls, self._incoming, self._outgoing)
