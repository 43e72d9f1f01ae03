"""Five faults of the first release, to be put back into a server of a test's own: the failpoints must find each.

A tool that has never found anything may be blind. What is put back behaves as the code of then did.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import lmdb

from pool_server.accounts import service
from pool_server.accounts.credentials import leftovers
from pool_server.accounts.credentials.escrow import Escrow
from pool_server.accounts.credentials.refresh import LEASE_S
from pool_server.storage.errors import damaged
from pool_server.storage.leases import EmbeddedLeases
from pool_server.storage.lmdb import engine, log_file
from pool_server.storage.lmdb.write_ahead_log import Leftover, WriteAheadLog


class OldFault(NamedTuple):
    """What was wrong; `put_back` makes it so in this process; what it is `found` as, and at which points of those that
    every run has. One without is found by the simulation of a store."""

    what: str
    put_back: Callable[[], None]
    found: str
    points: tuple[str, ...] = ()


def _replace(where: Any, name: str, by: Any) -> None:
    assert hasattr(where, name), f"{name} has another name now"
    setattr(where, name, by)


def _strict_length() -> None:
    def check(env: lmdb.Environment, folder: Path) -> None:
        needed, actual = engine._lengths(env, folder)
        if actual < needed:
            raise damaged(folder, f"data.mdb has {actual} of {needed} bytes")

    _replace(engine, "_check_length", check)


def _leases_by_time() -> None:
    def elsewhere(leases: EmbeddedLeases, lease: Any, now: float, life_s: float) -> bool:
        return bool(lease.holder != leases._holder and now < lease.until <= now + life_s)

    _replace(EmbeddedLeases, "_elsewhere", elsewhere)
    _replace(service, "REFRESH_PATIENCE_S", LEASE_S)


def _no_escrow() -> None:
    _replace(Escrow, "keep", lambda *_: "")
    _replace(leftovers, "finish", lambda *_, **__: [])


def _nothing_logged_while_the_store_fails() -> None:
    append = WriteAheadLog._append

    def only_if_healthy(wal: WriteAheadLog[Any], file: Any, batches: Any) -> Any:
        return (file, False) if wal._owing() else append(wal, file, batches)

    _replace(WriteAheadLog, "_append", only_if_healthy)
    _replace(WriteAheadLog, "_leave", lambda *_: Leftover())


def _copies_without_logs() -> None:
    _replace(log_file, "pending", lambda _: [])


FAULTS = {
    "F1": OldFault(
        "a store whose file is shorter than its table of contents says is refused",
        _strict_length,
        "damaged",
    ),
    "R2": OldFault(
        "the lease of a killed process holds everybody up until its time is over",
        _leases_by_time,
        "a request of the next start waits",
        ("before-token:load:kill:1:1",),
    ),
    "R3": OldFault(
        "a rotated token stands in its temporary file alone until the rename",
        _no_escrow,
        "the sign-in is of no use",
        ("rename:load:kill:1:1",),
    ),
    "R5": OldFault(
        "what is answered while the store cannot be written is in memory alone",
        _nothing_logged_while_the_store_fails,
        "acknowledged requests are in no",
        ("before-commit-ledger:load:ENOSPC:1:1000",),
    ),
    "R10": OldFault(
        "a copy leaves out what is in the logs of a crashed server",
        _copies_without_logs,
        "acknowledged requests are in no copy",
        ("fdatasync:load:kill:3:1",),
    ),
}
