"""A book on a real store and one user of it, other workers beside it, and a ledger that says what it is told."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from pool_server.core.settings import FairShare, Limits
from pool_server.storage import Store, StoreFullError
from pool_server.users import STATE_TABLES, Denied, Reservation
from pool_server.users.limits.counters import used_now
from pool_server.users.limits.periods import Calendar, zone
from pool_server.users.limits.rebuild import Used
from pool_server.users.limits.recent_use import Shares
from pool_server.users.limits.reservations import Reservations

from .site import Clock

numbers = itertools.count()


class Desk:
    """A book on a real store, and one user of it."""

    def __init__(self, store: Store, used: Used | None = None) -> None:
        self.store = store
        self.clock = Clock()
        self.used = used
        self.user = f"u_{next(numbers)}"
        self.book = self.another()

    def another(self) -> Reservations:
        """Another worker's book on the same store."""
        shares = Shares(self.store, FairShare(), lambda user: 1.0)
        return Reservations(self.store, Calendar(zone("UTC")), shares, self.clock, self.used)

    def take(self, limits: Limits, tokens: int = 0, cost: float | None = None) -> Reservation | Denied:
        return self.book.reserve(self.user, "codex", limits, tokens, cost)

    def took(self, limits: Limits = Limits(), tokens: int = 0, cost: float | None = None) -> Reservation:  # noqa: B008
        made = self.take(limits, tokens, cost)
        assert isinstance(made, Reservation), made
        return made

    @property
    def now(self) -> dict[str, float]:
        return used_now(self.book.read(self.user)[0])


class Books:
    """What the ledger would say: tokens and dollars used since a moment."""

    def __init__(self, *events: tuple[float, int, float]) -> None:
        self.events = events
        self.asked = 0

    def __call__(self, user: str, since: float, key: str = "") -> dict[str, float]:
        self.asked += 1
        rows = [(tokens, cost) for at, tokens, cost in self.events if at >= since]
        return {"input": 0, "output": sum(t for t, _ in rows), "cost_usd": sum(c for _, c in rows), "requests": 9}


CHILD = """
    import asyncio
    import json, sys, time
    from pathlib import Path
    from pool_server.core.settings import FairShare, Limits
    from pool_server.core.models import Usage
    from pool_server.storage import Store
    from pool_server.users import STATE_TABLES, Reservation
    from pool_server.users.limits.periods import Calendar, zone
    from pool_server.users.limits.reservations import Reservations
    from pool_server.users.limits.recent_use import Shares

    store = Store.open(Path(sys.argv[1]), tables=STATE_TABLES, durable=False, map_size=1 << 24)
    shares = Shares(store, FairShare(), lambda user: 1.0)
    book = Reservations(store, Calendar(zone("UTC")), shares, time.time, None)
"""


def child(folder: Path, body: str) -> subprocess.Popen[str]:
    code = textwrap.dedent(CHILD) + textwrap.dedent(body)
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def open_state(folder: Path) -> Store:
    return Store.open(folder, tables=STATE_TABLES, durable=False, map_size=1 << 24)


def in_a_loop(main: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 60))


class Writes:
    """Counts the store's transactions, and lets them fail when told."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.good: int | None = None  # so many succeed, None = all
        self._write = store.write
        monkeypatch.setattr(store, "write", self)

    def __call__(self, fn: Callable[..., Any]) -> Any:
        self.count += 1
        if self.good is not None and self.count > self.good:
            raise StoreFullError("no space left")
        return self._write(fn)
