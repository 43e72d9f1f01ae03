"""The states of a connection, and what leads from one to another. Pure.

A server's connection, which reads requests and writes their responses one after the other:

    NEW ──────┐                                          ┌──────────── RESPONDED (keeps alive) ───────────┐
    (no byte) │ BYTES           REQUEST         COMPLETE │                                                 │
              ├───────▶ HEAD ─────────▶ BODY ─────────▶ RESPONSE                                          │
    IDLE ─────┘ ▲                        │               │  │                                             │
      ▲         └── (an unfinished head) │ RESPONDED     │  └ SWITCH ─▶ CLOSED (a WebSocket takes it)     │
      └──────────────────────────────────│───────────────│────────────────────────────────────────────────┘
                                         ▼               ▼
                                      LINGER ─────────▶ CLOSING ─────────▶ CLOSED
                                (the client may still   (what was written   LOST
                                 send, to read why)      goes out)

A client's connection, which sends one request and reads its response:

    IDLE ─ REQUEST ─▶ AWAITING ─ HEAD ─▶ BODY ─ COMPLETE ─▶ DONE ─ REUSE ─▶ IDLE
                       │      ▲
               INTERIM └▶ 1xx ┘ COMPLETE                       anything ─ CLOSE ─▶ CLOSED

What may be going on beside a state is kept apart from it: how far the other side is behind (flow control), whether a
request is still on its way out, whether the connection may serve again.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum


class ServerState(IntEnum):
    """Where a client's connection to the server stands."""

    NEW = 0  # nothing has come
    HEAD = 1  # part of a head is here
    BODY = 2  # a request is under way, and more of its body is to come
    RESPONSE = 3  # a request is under way, and all of it is here
    IDLE = 4  # waits for its next request
    LINGER = 5  # has its response; what it still sends is dropped
    CLOSING = 6  # what was written goes out, nothing is read
    CLOSED = 7  # has ended, or left HTTP


class ServerEvent(IntEnum):
    """What happens to a client's connection."""

    BYTES = 0  # some have come that begin a head
    REQUEST = 1  # its head is whole
    COMPLETE = 2  # its body is
    RESPONDED = 3  # the response is whole, and the connection may go on
    TURN_AWAY = 4  # nothing more will be served, although the client may still be sending
    CLOSE = 5  # it ends as soon as what was written is out
    SWITCH = 6  # it leaves HTTP
    LOST = 7  # it is gone


class ClientState(IntEnum):
    """Where a connection to an upstream stands."""

    IDLE = 0  # may serve an exchange
    AWAITING = 1  # a request goes out, no final status has come
    INTERIM = 2  # a 1xx response is coming
    BODY = 3  # the response's headers are here
    DONE = 4  # the response is whole
    CLOSED = 5  # can serve no more


class ClientEvent(IntEnum):
    """What happens to a connection to an upstream."""

    REQUEST = 0  # one goes out
    INTERIM = 1  # a 1xx status has come
    HEAD = 2  # the final status and its headers have
    COMPLETE = 3  # a message is whole
    REUSE = 4  # the exchange is over, the connection may serve again
    CLOSE = 5  # it ends


_S, _E = ServerState, ServerEvent
_ENDS = {_E.CLOSE: _S.CLOSING, _E.LOST: _S.CLOSED}
SERVER_MOVES: Mapping[ServerState, Mapping[ServerEvent, ServerState]] = {
    _S.NEW: {_E.BYTES: _S.HEAD, **_ENDS},
    _S.HEAD: {_E.BYTES: _S.HEAD, _E.REQUEST: _S.BODY, _E.TURN_AWAY: _S.LINGER, **_ENDS},
    _S.BODY: {_E.COMPLETE: _S.RESPONSE, _E.TURN_AWAY: _S.LINGER, **_ENDS},
    _S.RESPONSE: {_E.RESPONDED: _S.IDLE, _E.TURN_AWAY: _S.LINGER, _E.SWITCH: _S.CLOSED, **_ENDS},
    _S.IDLE: {_E.BYTES: _S.HEAD, **_ENDS},
    _S.LINGER: _ENDS,
    _S.CLOSING: _ENDS,
    _S.CLOSED: {_E.CLOSE: _S.CLOSED, _E.LOST: _S.CLOSED},
}

_C, _H = ClientState, ClientEvent
CLIENT_MOVES: Mapping[ClientState, Mapping[ClientEvent, ClientState]] = {
    _C.IDLE: {_H.REQUEST: _C.AWAITING, _H.CLOSE: _C.CLOSED},
    _C.AWAITING: {_H.INTERIM: _C.INTERIM, _H.HEAD: _C.BODY, _H.CLOSE: _C.CLOSED},
    _C.INTERIM: {_H.COMPLETE: _C.AWAITING, _H.CLOSE: _C.CLOSED},
    _C.BODY: {_H.COMPLETE: _C.DONE, _H.CLOSE: _C.CLOSED},
    _C.DONE: {_H.REUSE: _C.IDLE, _H.CLOSE: _C.CLOSED},
    _C.CLOSED: {_H.CLOSE: _C.CLOSED},
}

# As the connections read them, for each request and each message: by number, and a KeyError for a move that no table
# has, which would be a defect of this library.
SERVER_NEXT: tuple[dict[int, int], ...] = tuple(
    {int(event): int(following) for event, following in SERVER_MOVES[state].items()} for state in ServerState
)
CLIENT_NEXT: tuple[dict[int, int], ...] = tuple(
    {int(event): int(following) for event, following in CLIENT_MOVES[state].items()} for state in ClientState
)
