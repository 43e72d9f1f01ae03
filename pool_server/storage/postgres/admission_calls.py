"""Admission, ends of requests and beats as calls of the database. Owners are (user, key), "" for the user's own
counters; costs are nano-dollars. The rule is `admit_3` in SQL; `users/limits/counters.py` is the same for one machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from pool_server.storage.errors import StoreError
from pool_server.storage.postgres.connection import Connection, ResultRow

NANO = 1_000_000_000
_MOST = 9 * 10**18  # what a limit without end is to a bigint

Marks = Sequence[int]  # begin of day, week and month, then their ends, in unix seconds
Bounded = Sequence[int | None]  # one a counted limit, in their order; None = no limit


class AdmissionVerdict(NamedTuple):
    """`word`: ok, stopped, stale, gone, dead, clock, as `admit_3` says them. `stop` is the number, from 0, of the limit
    in the way, of the key's where `of_key`; `people` the number up to which changes of people are known there, `at` its
    time, `made` the number of the request that was let in; `pins` are those that were asked for with it, by key."""

    word: str
    stop: int
    of_key: bool
    retry_at: float | None
    tokens: int
    cost: int
    people: int
    at: float
    made: int
    pins: dict[bytes, bytes]


class Ended(NamedTuple):
    """A request that has ended, as one owner counts it. `held` is False where this owner held nothing for it; `base` is
    what was reserved before the ratio, 0 = nothing is learnt of it."""

    user: str
    key: str
    held: bool
    held_tokens: int
    held_cost: int
    seen_tokens: int
    seen_cost: int
    tokens: int
    cost: int
    base: int


class HoldGrowth(NamedTuple):
    """What an owner's running requests of a node need more, and have reported more."""

    user: str
    key: str
    tokens: int
    cost: int
    seen_tokens: int
    seen_cost: int


class HeldTotals(NamedTuple):
    """What a node holds for an owner."""

    user: str
    key: str
    requests: int
    tokens: int
    cost: int
    seen_tokens: int
    seen_cost: int


def nano(dollars: float) -> int:
    """Dollars as the database counts them."""
    return min(round(dollars * NANO), _MOST)


def bounded(limits: Sequence[float | None]) -> list[int | None] | None:
    """Limits as the database takes them; None where there is none. Money must be in nano-dollars."""
    if all(limit is None for limit in limits):
        return None
    return [None if limit is None else min(math.ceil(limit), _MOST) for limit in limits]


async def admit(
    connection: Connection, node: int, owner: tuple[str, str], people: int, asked: tuple[int, int],
    limits: Bounded | None, key_limits: Bounded | None, marks: Marks, at: float | None = None,
    pins: Sequence[bytes] = (),
) -> AdmissionVerdict:  # fmt: skip
    """Reserves for one request of `asked` (tokens, nano-dollars) where no limit is in the way. `at` None = the time of
    the database. `pins` are read with it, whoever wants them. Raises StoreError."""
    row = await connection.row(
        "select * from pool.admit_3($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        node, *owner, people, *asked, limits, key_limits, list(marks), at, list(pins) or None,
    )  # fmt: skip
    return _verdict(_there(row))


def _verdict(row: ResultRow) -> AdmissionVerdict:
    return AdmissionVerdict(
        row["verdict"], (row["stop"] or 0) - 1, bool(row["of_key"]), row["retry"],
        row["tok"] or 0, row["cost"] or 0, row["people_seq"], row["at"], row["made"] or 0,
        dict(zip(row["pin_keys"] or (), row["pin_bodies"] or (), strict=True)),
    )  # fmt: skip


async def settle(
    connection: Connection,
    node: int,
    span: tuple[int, int],
    ended: Sequence[Ended],
    marks: Marks,
    at: float | None = None,
) -> int:
    """Counts what has ended, once: `span` is (number settled before, number settled with this). Raises StoreError."""
    users, keys, held, *amounts = (
        (list(column) for column in zip(*ended, strict=True)) if ended else [[] for _ in Ended._fields]
    )
    held_tokens = [tokens if was else None for was, tokens in zip(held, amounts[0], strict=True)]
    row = await connection.row(
        "select * from pool.settle_1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        node, *span, list(marks), at, users, keys, held_tokens, *amounts[1:],
    )  # fmt: skip
    return int(_there(row)["settled"])


async def beat(connection: Connection, node: int, grown: Sequence[HoldGrowth]) -> bool:
    """The node lives, and its requests have grown so; False when it was taken for dead. Raises StoreError."""
    columns = [list(column) for column in zip(*grown, strict=True)] if grown else [[] for _ in HoldGrowth._fields]
    return bool(await connection.value("select pool.beat_1($1, $2, $3, $4, $5, $6, $7)", node, *columns))


async def hold_sync(
    connection: Connection,
    node: int,
    held: Sequence[HeldTotals],
    made: Sequence[tuple[str, str, int]] = (),
    at: float | None = None,
) -> None:
    """What the node holds is this and nothing else; of its newest requests, `made` (user, key, number), those the
    database has forgotten count again toward requests a minute. Raises StoreError."""
    columns = [list(column) for column in zip(*held, strict=True)] if held else [[] for _ in HeldTotals._fields]
    numbers = [list(column) for column in zip(*made, strict=True)] if made else [[], [], []]
    sql = "select pool.hold_sync_2($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
    await connection.value(sql, node, *columns, *numbers, at)


async def forget_holds(connection: Connection, idle_s: float, most: int = 1000) -> int:
    """Drops holds of nothing in which nothing was let in for so long; returns how many went. Raises StoreError."""
    return int(await connection.value("select pool.holds_forget_1($1, $2)", idle_s, most))


async def bury_dead(
    connection: Connection, silent_s: float, marks: Marks, at: float | None = None, most: int = 200
) -> int:
    """Takes nodes for dead that were silent so long, and counts what dead ones had reported; returns how many were seen
    to the end. Raises StoreError."""
    dead = await connection.rows("select * from pool.nodes_dead_1($1) as node", silent_s)
    for row in dead:
        while not await connection.value("select pool.bury_2($1, $2, $3, $4)", row["node"], list(marks), at, most):
            pass
    return len(dead)


def _there(row: ResultRow | None) -> ResultRow:
    if row is None:
        raise StoreError("the database answered nothing")
    return row
