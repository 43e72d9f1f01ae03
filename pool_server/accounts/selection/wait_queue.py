"""The waiting room: requests that wait for the nearest account to return, first in first out, fair between
users."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable

from pool_server.accounts.selection.select import Decision, SelectionRequest

LIMIT = 2000  # requests waiting at once; more are told the truth at once
LOOK_S = 0.25  # between looks when no return is known to the second

Choose = Callable[[SelectionRequest], Decision]


class _Waiter:
    __slots__ = ("deadline", "future", "last", "request")

    def __init__(self, request: SelectionRequest, deadline: float, last: Decision) -> None:
        self.request = request
        self.deadline = deadline
        self.last = last
        self.future: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()

    @property
    def shape(self) -> tuple[object, ...]:
        """Requests of one shape can all be served, or none of them."""
        request = self.request
        return (
            request.providers,
            request.operation,
            request.dialect,
            request.model,
            request.websocket,
            request.forced,
            request.hard,
            request.exclude,
        )


class WaitQueue:
    """Admits one request a turn of the event loop, so that each is counted before the next is looked at."""

    def __init__(self, choose: Choose, clock: Callable[[], float]) -> None:
        self._choose = choose
        self._clock = clock
        self._queues: OrderedDict[str, deque[_Waiter]] = OrderedDict()
        self._size = 0
        self._going = 0  # released, but not yet resumed
        self._handle: asyncio.Handle | None = None

    def __len__(self) -> int:
        return self._size

    async def wait(self, request: SelectionRequest, deadline: float) -> Decision:
        """The decision for `request`, at the latest at `deadline` (unix seconds); without an account when none returns
        in time, and then at once."""
        decision = self._choose(request)
        if decision.account is None and not self._worth_waiting(decision, deadline):
            return decision
        if decision.account is not None and not self._queues and not self._going:
            return decision
        if self._size >= LIMIT:
            return decision
        waiter = _Waiter(request, deadline, decision)
        self._queues.setdefault(request.user, deque()).append(waiter)
        self._size += 1
        self._soon()
        try:
            return await waiter.future
        finally:
            if waiter.future.done() and not waiter.future.cancelled():
                self._going -= 1
            else:
                self._leave(waiter)

    def _worth_waiting(self, decision: Decision, deadline: float) -> bool:
        return decision.retry_at is not None and decision.retry_at < deadline and not decision.hard_lost

    def wake(self) -> None:
        """Something changed: look whether somebody can go on."""
        if self._queues:
            self._soon()

    def _soon(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._handle = asyncio.get_running_loop().call_soon(self._turn)

    def _leave(self, waiter: _Waiter) -> None:
        queue = self._queues.get(waiter.request.user)
        if queue is None or waiter not in queue:
            return
        queue.remove(waiter)
        self._size -= 1
        if not queue:
            del self._queues[waiter.request.user]

    def _turn(self) -> None:
        """Let one request go on, or send those home whose time is over; then look again when it is worth it."""
        self._handle = None
        now = self._clock()
        blocked: set[tuple[object, ...]] = set()
        next_look = now + LOOK_S
        for waiter in [w for queue in self._queues.values() for w in queue]:
            if waiter.shape not in blocked:
                waiter.last = self._choose(waiter.request)
                if waiter.last.account is not None:
                    self._release(waiter)
                    self._soon()
                    return
                blocked.add(waiter.shape)
            if now >= waiter.deadline or not self._worth_waiting(waiter.last, waiter.deadline):
                self._release(waiter)
            elif waiter.last.retry_at is not None:
                next_look = min(next_look, max(waiter.last.retry_at, now))
        if self._queues and self._handle is None:
            wait = max(0.001, next_look - now)
            self._handle = asyncio.get_running_loop().call_later(wait, self._turn)

    def _release(self, waiter: _Waiter) -> None:
        self._leave(waiter)
        if waiter.request.user in self._queues:
            self._queues.move_to_end(waiter.request.user)  # the next turn is another user's
        if not waiter.future.done():
            self._going += 1
            waiter.future.set_result(waiter.last)

    def close(self) -> None:
        """Send everybody home with what is known."""
        for waiter in [w for queue in self._queues.values() for w in queue]:
            self._release(waiter)
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
