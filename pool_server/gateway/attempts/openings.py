"""Requests whose answer has not begun: who waits in vain, and is better served by another account.

A request to a silent host is not left to wait for minutes. After most of a second without a sign of life a cheap call
of the account's own is made to the same host: where that says nothing either, the host is dead and the request goes
to another account at once. A host that lives may think; only a stream that takes three times as long as nearly all
others did is given up for another account. Where no other account is free the request waits on.

Waiting requests share one timer, so that each costs two dictionary writes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pool_server.accounts import Accounts
from pool_server.gateway.upstream import UpstreamError

SILENT_S = 0.75  # without a sign of life, before the host is asked for one …
CHECK_S = 0.8  # … and so long it has to give it
ALIVE_S = 5.0  # a sign of life holds so long
TICK_S = 0.1
SEEN = 128  # streams' waits for their headers, kept for each host …
LEAST_SEEN = 64  # … and so many are needed to know what is usual
HEDGE_LEAST_S = 3.0  # no stream is given up sooner on a host that lives

T = TypeVar("T")
Another = Callable[[], str | None]


class Opening:
    """One request that waits for the beginning of its answer. `another` names an account that could serve instead, None
    when there is none. `hedged`: it may be given up on a host that lives."""

    __slots__ = ("account", "another", "given_up", "hedged", "limit", "since", "way")

    def __init__(self, account: str, way: str, another: Another, hedged: bool, since: float) -> None:
        self.account = account
        self.way = way
        self.another = another
        self.hedged = hedged
        self.since = since
        self.given_up = False
        self.limit: asyncio.Timeout | None = None


class WayWatch:
    """What was heard of one host lately. Times are the event loop's."""

    __slots__ = ("check", "heard", "suspects", "waits")

    def __init__(self) -> None:
        self.heard = float("-inf")
        self.waits: deque[float] = deque(maxlen=SEEN)
        self.check: asyncio.Task[None] | None = None
        self.suspects: list[Opening] = []

    def unusual(self) -> float | None:
        """How long nearly no stream has waited, times three; None while that is not known."""
        if len(self.waits) < LEAST_SEEN:
            return None
        return max(HEDGE_LEAST_S, 3 * sorted(self.waits)[-1 - len(self.waits) // 100])


class Openings:
    """All requests of this process that wait for the beginning of their answer."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._young: dict[Opening, None] = {}  # oldest first
        self._thinking: dict[Opening, float] = {}  # their hosts live; until when they are left to think
        self._ways: dict[str, WayWatch] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def watched(self, account: str, opening: Awaitable[T], another: Another, *, hedged: bool) -> T:
        """The answer's beginning. Raises `UpstreamError`, also when the request is better sent to another account."""
        loop = asyncio.get_running_loop()
        waiting = Opening(account, self._accounts.hosts.way(account), another, hedged, loop.time())
        self._young[waiting] = None
        if self._timer is None:
            self._timer = loop.call_later(TICK_S, self._tick)
        try:
            async with asyncio.timeout(None) as waiting.limit:
                answer = await opening
        except TimeoutError:
            if not waiting.given_up:
                raise
            raise UpstreamError("no answer in time, another account is asked") from None
        except UpstreamError:
            self._accounts.hosts.unreached(account)
            raise
        finally:
            waiting.limit = None
            self._young.pop(waiting, None)
            self._thinking.pop(waiting, None)
        self._heard(waiting, loop.time())
        return answer

    def _heard(self, waiting: Opening, now: float) -> None:
        self._accounts.hosts.reached(waiting.account)
        watch = self._ways.get(waiting.way)
        if watch is None:
            watch = self._ways[waiting.way] = WayWatch()
        watch.heard = now
        if waiting.hedged:
            watch.waits.append(now - waiting.since)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now, self._timer = loop.time(), None
        for waiting in list(self._young):
            if now - waiting.since < SILENT_S:
                break
            del self._young[waiting]
            self._doubt(waiting, now)
        for waiting in [w for w, until in self._thinking.items() if now >= until]:
            del self._thinking[waiting]
            if waiting.another() is not None:
                self._accounts.hosts.unreached(waiting.account)
                self._give_up(waiting)
        if self._young or self._thinking:
            self._timer = loop.call_later(TICK_S, self._tick)

    def _doubt(self, waiting: Opening, now: float) -> None:
        """Nothing came yet: does the host live?"""
        watch = self._ways.setdefault(waiting.way, WayWatch())
        if now - watch.heard < ALIVE_S and watch.heard > waiting.since - SILENT_S:
            self._let_think(waiting, watch)
            return
        watch.suspects.append(waiting)
        if watch.check is None:
            watch.check = asyncio.get_running_loop().create_task(self._check(waiting.account, watch))

    def _let_think(self, waiting: Opening, watch: WayWatch) -> None:
        unusual = watch.unusual() if waiting.hedged else None
        if unusual is not None:
            self._thinking[waiting] = waiting.since + unusual
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    async def _check(self, account: str, watch: WayWatch) -> None:
        try:
            alive = await self._accounts.own_calls.answers(account, CHECK_S)
        finally:
            watch.check = None
        suspects, watch.suspects = watch.suspects, []
        if alive:
            watch.heard = asyncio.get_running_loop().time()
            for waiting in suspects:
                self._let_think(waiting, watch)
            return
        self._accounts.hosts.unreached(account, dead=True)
        for waiting in suspects:
            other = waiting.another()
            if other is not None and self._accounts.hosts.way(other) != waiting.way:
                self._give_up(waiting)

    def _give_up(self, waiting: Opening) -> None:
        if waiting.limit is not None and not waiting.given_up:
            waiting.given_up = True
            waiting.limit.reschedule(asyncio.get_running_loop().time())

    async def close(self) -> None:
        """Stop looking."""
        if self._timer is not None:
            self._timer.cancel()
        checks = [watch.check for watch in self._ways.values() if watch.check is not None]
        for check in checks:
            check.cancel()
        if checks:
            await asyncio.wait(checks)
