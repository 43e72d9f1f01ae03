"""What one transaction changed, as bytes, and where a store stands in its log.

A log is a generation, an unbroken row of numbered transactions. A store carries its place in it, with the engine's
number of the transaction that wrote the place: where a program that keeps no log has written in between, the engine's
numbers have a hole, and another generation begins, which needs a copy of its own.
"""

from __future__ import annotations

import secrets
import time

import msgspec

POSITION = b"change-log"  # the row of the store's own table that holds its place

Change = tuple[str, bytes, bytes | None]  # table, key, value; None: deleted


class Position(msgspec.Struct, array_like=True, frozen=True):
    """Of the last transaction: its number in the generation, its time (unix seconds), the engine's number of it."""

    generation: str
    number: int
    at: float
    transaction: int

    def next(self, transaction: int, at: float) -> Position:
        """Of the transaction that follows."""
        if transaction != self.transaction + 1:
            return first_position(transaction, at)
        return Position(self.generation, self.number + 1, at, transaction)


class Frame(msgspec.Struct, array_like=True, frozen=True):
    """One transaction."""

    generation: str
    number: int
    at: float
    changes: list[Change]


_encode = msgspec.msgpack.Encoder().encode
_position = msgspec.msgpack.Decoder(Position).decode
_frame = msgspec.msgpack.Decoder(Frame).decode


def first_position(transaction: int, at: float) -> Position:
    """The first of a generation, whose name sorts by its time."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(at))
    return Position(f"{stamp}-{secrets.token_hex(4)}", 1, at, transaction)


def packed_position(position: Position) -> bytes:
    return _encode(position)


def read_position(raw: bytes | None) -> Position | None:
    """None where the store keeps no log, or one that cannot be read: then another generation begins."""
    try:
        return None if raw is None else _position(raw)
    except msgspec.MsgspecError:
        return None


def packed_frame(position: Position, changes: list[Change]) -> bytes:
    return _encode(Frame(position.generation, position.number, position.at, changes))


def read_frame(raw: bytes) -> Frame:
    """Raises ValueError."""
    return _frame(raw)
