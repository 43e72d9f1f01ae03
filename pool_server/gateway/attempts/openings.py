"""Requests whose answer has not begun, or has said nothing yet: who waits in vain, and is better served by another
account.

A request to a silent host is not left to wait for minutes. After most of a second without a sign of life a cheap call
of the account's own is made to the same host: where that says nothing either, the host is dead and the request goes
to another account at once. A host that lives may think, and is looked after again: 5 s after the request began, then
10, 20, 40 … Only a stream that takes three times as long as nearly all others did is given up on a host that lives.
Where no other account is free the request waits on.

Waiting requests share one timer, so that each costs two dictionary writes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from math import inf
from typing import TypeVar

from pool_server.accounts import Accounts
from pool_server.core.enums import PassiveHealth
from pool_server.core.tasks import running_loop
from pool_server.gateway.upstream import UpstreamError

SILENT_S = 0.75  # without a sign of life, before the host is asked for one …
CHECK_S = 0.8  # … and so long it has to give it
ALIVE_S = 5.0  # a sign of life holds so long, for requests that were under way when it came
TICK_S = 0.1
SEEN = 128  # streams' waits for their headers, kept for each host …
LEAST_SEEN = 64  # … and so many are needed to know what is usual
HEDGE_LEAST_S = 3.0  # no stream is given up sooner on a host that lives

T = TypeVar("T")
Another = Callable[[], str | None]


class Opening:
    """One request that waits for the beginning of its answer. `another` names an account that could serve instead, None
    when there is none. `hedged`: it may be given up on a host that lives, at `unusual_at`. `look_at`: when its host is
    looked after (again). `begun`: its answer has begun, and whoever reads it sees when to look again. `leave` gives it
    up, None when it is over. Times are the event loop's."""

    __slots__ = ("account", "another", "begun", "given_up", "hedged", "leave", "look_at", "since", "unusual_at", "way")

    def __init__(self, account: str, way: str, another: Another, hedged: bool, since: float) -> None:
        self.account = account
        self.way = way
        self.another = another
        self.hedged = hedged
        self.since = since
        self.look_at = since + SILENT_S
        self.unusual_at = inf
        self.begun = self.given_up = False
        self.leave: Callable[[], object] | None = None


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
        self._thinking: dict[Opening, None] = {}  # looked after before, left to wait on
        self._ways: dict[str, WayWatch] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def watched(self, account: str, opening: Awaitable[T], another: Another, *, hedged: bool) -> T:
        """The answer's beginning. Raises `UpstreamError`, also when the request is better sent to another account."""
        loop = running_loop()
        waiting = Opening(account, self._accounts.hosts.way(account), another, hedged, loop.time())
        self._young[waiting] = None
        if self._timer is None:
            self._timer = loop.call_later(TICK_S, self._tick)
        task = asyncio.current_task(loop)
        assert task is not None
        waiting.leave, others = task.cancel, task.cancelling()
        try:
            answer = await opening
        except asyncio.CancelledError:
            # As `asyncio.timeout` has it, for half the price: given up here, and by nobody else.
            if not waiting.given_up or task.uncancel() > others:
                raise
            raise UpstreamError("no answer in time, another account is asked") from None
        except UpstreamError:
            if waiting.given_up:
                task.uncancel()
            self._accounts.hosts.unreached(account)
            raise
        finally:
            waiting.leave = None
            self._young.pop(waiting, None)
            self._thinking.pop(waiting, None)
        self._heard(waiting, loop.time())
        return answer

    def look_after(self, account: str, since: float, another: Another, give_up: Callable[[], None]) -> None:
        """An answer has begun and said nothing since then (the loop's time): `give_up` is called where its host is
        found dead and another account can serve."""
        way = self._accounts.hosts.way(account)
        waiting = Opening(account, way, another, False, since)
        waiting.begun, waiting.leave = True, give_up
        self._doubt(waiting, running_loop().time())

    def _heard(self, waiting: Opening, now: float) -> None:
        self._accounts.hosts.reached(waiting.account)
        watch = self._ways.get(waiting.way)
        if watch is None:
            watch = self._ways[waiting.way] = WayWatch()
        watch.heard = now
        if waiting.hedged:
            watch.waits.append(now - waiting.since)

    def _tick(self) -> None:
        loop = running_loop()
        now, self._timer = loop.time(), None
        for waiting in list(self._young):
            if now < waiting.look_at:
                break
            del self._young[waiting]
            self._doubt(waiting, now)
        for waiting in [w for w in self._thinking if now >= w.look_at or now >= w.unusual_at]:
            if now >= waiting.unusual_at and waiting.another() is not None:
                del self._thinking[waiting]
                self._accounts.hosts.unreached(waiting.account)
                self._give_up(waiting, PassiveHealth.HEDGED)
            elif now >= waiting.look_at:
                del self._thinking[waiting]
                self._doubt(waiting, now)
            else:
                waiting.unusual_at = inf
        self._go_on()

    def _go_on(self) -> None:
        if self._timer is None and (self._young or self._thinking):
            self._timer = running_loop().call_later(TICK_S, self._tick)

    def _doubt(self, waiting: Opening, now: float) -> None:
        """Nothing came yet: does the host live?"""
        watch = self._ways.setdefault(waiting.way, WayWatch())
        if now - watch.heard < ALIVE_S and watch.heard >= waiting.since:
            self._let_think(waiting, watch)
            return
        watch.suspects.append(waiting)
        if watch.check is None:
            watch.check = running_loop().create_task(self._check(waiting.account, watch))

    def _let_think(self, waiting: Opening, watch: WayWatch) -> None:
        if waiting.leave is None or waiting.begun:
            return
        now = running_loop().time()
        waiting.look_at = waiting.since + max(ALIVE_S, 2 * (now - waiting.since))
        unusual = watch.unusual() if waiting.hedged else None
        if unusual is not None:
            waiting.unusual_at = max(waiting.since + unusual, now)
        self._thinking[waiting] = None
        self._go_on()

    async def _check(self, account: str, watch: WayWatch) -> None:
        try:
            alive = await self._accounts.own_calls.answers(account, CHECK_S)
        finally:
            watch.check = None
        suspects, watch.suspects = watch.suspects, []
        if alive:
            watch.heard = running_loop().time()
        else:
            self._accounts.hosts.unreached(account, dead=True)
        for waiting in suspects:
            if alive or not self._left(waiting):
                self._let_think(waiting, watch)

    def _left(self, waiting: Opening) -> bool:
        """Give a request to a dead host up if an account behind another way is free."""
        other = waiting.another() if waiting.leave is not None else None
        if other is None or self._accounts.hosts.way(other) == waiting.way:
            return False
        self._give_up(waiting, PassiveHealth.LEFT)
        return True

    def _give_up(self, waiting: Opening, why: PassiveHealth) -> None:
        if waiting.leave is not None and not waiting.given_up:
            waiting.given_up = True
            self._accounts.hosts.note(waiting.account, why)
            waiting.leave()

    async def close(self) -> None:
        """Stop looking."""
        if self._timer is not None:
            self._timer.cancel()
        checks = [watch.check for watch in self._ways.values() if watch.check is not None]
        for check in checks:
            check.cancel()
        if checks:
            await asyncio.wait(checks)
