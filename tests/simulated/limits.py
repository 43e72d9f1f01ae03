"""Limits over several workers, with a virtual clock, a disk that fails and workers that die, drawn from one seed.

The model: a request is let in only while what was used and what is under way leave room; whatever happened, in the end
nothing is held any more, and the counters say what the ledger does.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec

from pool_server.core.models import Usage
from pool_server.core.settings import FairShare, Limits
from pool_server.storage import Store, StoreFullError
from pool_server.users import Reservation
from pool_server.users.limits.counters import used_now
from pool_server.users.limits.periods import Calendar, zone
from pool_server.users.limits.recent_use import Shares
from pool_server.users.limits.reservations import Reservations

NOON = 1_800_100_800.0  # 12:00 UTC
STEPS = 60
LIMITS = Limits(tokens_day=200_000, concurrent=4)
CALENDAR = Calendar(zone("UTC"))


class Disk:
    """A store of which writes fail while it is `full`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.full = False

    def write(self, fn: Callable[..., Any]) -> Any:
        if self.full:
            raise StoreFullError("no space left")
        return self._store.write(fn)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class Running(msgspec.Struct, eq=False):
    """A request under way: what it will have used, and what its answer has told so far."""

    made: Reservation
    worker: Reservations
    actual: int
    told: int = 0


class Pool:
    """Two workers, one friend, a ledger. `step` does one thing that the seed chooses."""

    def __init__(self, store: Store, seed: int, living: set[str]) -> None:
        self.rng = random.Random(seed)
        self.disk = Disk(store)
        self.living = living
        self.user = f"u_{seed}"
        self.now = NOON + self.rng.uniform(0, 86_400)
        self.ledger: list[tuple[float, int]] = []
        self.running: list[Running] = []
        self._names = 0
        self.workers = [self._worker(), self._worker()]

    def _worker(self) -> Reservations:
        shares = Shares(self.disk, FairShare(), lambda _: 1.0)  # type: ignore[arg-type]
        worker = Reservations(self.disk, CALENDAR, shares, lambda: self.now, self._used)  # type: ignore[arg-type]
        self._names += 1
        worker._worker = f"{self.user}-{self._names}"
        self.living.add(worker._worker)
        return worker

    def _used(self, user: str, since: float) -> dict[str, float]:
        tokens = sum(tokens for at, tokens in self.ledger if at >= since)
        return {"input": 0, "output": tokens, "cost_usd": 0.0, "requests": len(self.ledger)}

    def today(self) -> int:
        """Tokens in the ledger since midnight."""
        return sum(tokens for at, tokens in self.ledger if at >= self.now // 86_400 * 86_400)

    def step(self) -> None:
        chances = ((self.ask, 8), (self.tell, 5), (self.end, 6), (self.wait, 3), (self.turn, 1), (self.die, 1))
        action = self.rng.choices([one for one, _ in chances], [weight for _, weight in chances])[0]
        action()

    def ask(self) -> None:
        worker = self.rng.choice(self.workers)
        actual = self.rng.choice((0, 10, 5_000, 30_000))
        made = worker.reserve(self.user, "codex", LIMITS, max(actual, self.rng.choice((0, 2_000, 40_000))), None)
        if not isinstance(made, Reservation):
            return
        told = sum(one.told for one in self.running)
        assert not self.disk.full, "let in uncounted"
        assert self.today() + told < LIMITS.tokens_day, "let in beyond the limit"  # type: ignore[operator]
        assert len(self.running) < LIMITS.concurrent, "let in beside too many"  # type: ignore[operator]
        self.running.append(Running(made, worker, actual))

    def tell(self) -> None:
        if self.running:
            one = self.rng.choice(self.running)
            one.told = self.rng.randint(one.told, one.actual)
            one.worker.progress(one.made, one.told, None)

    def end(self) -> None:
        if self.running:
            one = self.running.pop(self.rng.randrange(len(self.running)))
            self._record(one.actual)
            one.worker.settle(one.made, Usage(output=one.actual, known=True), None)

    def _record(self, tokens: int) -> None:
        if tokens:
            self.ledger.append((self.now, tokens))

    def wait(self) -> None:
        """Time passes; now and then the clock is set back a little."""
        for worker in self.workers:
            worker.write_turn()
        self.now += self.rng.choice((0.1, 1.0, 60.0, 3_600.0, -5.0))

    def turn(self) -> None:
        """The disk fills up, or is freed and what waited is written."""
        self.disk.full = not self.disk.full
        if not self.disk.full:
            for worker in self.workers:
                worker.settle_waiting()

    def die(self) -> None:
        """A worker is killed: the ledger learns at the next start what its requests had told."""
        number = self.rng.randrange(len(self.workers))
        dead = self.workers[number]
        if self.disk.full or dead._unsettled:
            return  # what it could not write dies with it; the ledger makes up for that when all is idle
        self.living.discard(dead._worker)
        for one in [one for one in self.running if one.worker is dead]:
            self.running.remove(one)
            self._record(one.made.seen_tokens)
        self.workers[number] = self._worker()
        self.workers[number].recover()

    def finish(self) -> None:
        """Everything ends well; the counters are what the ledger says."""
        self.disk.full = False
        while self.running:
            self.end()
        for worker in self.workers:
            worker.settle_waiting()
            worker.close()
        use, _ = self.workers[0].read(self.user)
        assert not use.by, "something is held for ever"
        assert used_now(use)["tokens_day"] >= self.today(), "something was not counted"
        for worker in self.workers:
            self.living.discard(worker._worker)


def simulate(store: Store, seed: int, living: set[str]) -> None:
    """One history. Raises AssertionError where the model does not hold."""
    pool = Pool(store, seed, living)
    for _ in range(STEPS):
        pool.step()
    pool.finish()


def alive_among(living: set[str]) -> Callable[[str], bool]:
    """What stands in for `processes.alive`: the workers of a simulation are no processes."""
    return lambda worker: worker in living
