"""Choice and health of a few accounts with a virtual clock, faults and restarts, drawn from one seed.

The model: what was learnt outlives a restart; a wait that is told has an end, and at that end somebody serves again,
however often the accounts failed before; nothing stays in flight.
"""

from __future__ import annotations

import random
from pathlib import Path

from pool_server.accounts.selection.select import NEVER_RETURN
from pool_server.core.enums import FaultKind, Operation, Refusal
from pool_server.core.models import OF_ACCOUNT, OF_PROVIDER, OF_REQUEST, Fault, ModelScope
from tests.accounts.kit import DAY, OPUS, SONNET, Pool, ask, claude, key, window

STEPS = 40
LONGEST_S = 32 * DAY
FILES = {
    "claude_a.json": claude(ends=2e9),
    "claude_b.json": claude("sk-ant-oat01-second", ends=2e9),
    "claude_c.json": key(),
}
_ENDLESS = {Refusal.SUSPENDED, *NEVER_RETURN}  # what no wait is told for
PASSING = (
    FaultKind.QUOTA, FaultKind.RATE, FaultKind.CAPACITY, FaultKind.OVERLOAD, FaultKind.TRANSIENT, FaultKind.NETWORK,
    FaultKind.NOT_FOUND, FaultKind.MODEL_UNSUPPORTED, FaultKind.PAYMENT, FaultKind.REQUEST, FaultKind.CHALLENGE,
)  # fmt: skip


class History:
    """One pool and what happens to it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.pool = Pool(folder, dict(FILES))
        self.stopped: set[str] = set()
        self.set_back = False  # the clock was: what had ended may begin anew, for as long as it lasted at most

    def step(self) -> None:
        chances = ((self.request, 10), (self.look, 2), (self.wait, 4), (self.restart, 1), (self.stop, 0.3))
        self.rng.choices([one for one, _ in chances], [weight for _, weight in chances])[0]()

    def request(self, *, well: bool = False) -> bool:
        """One request; whether it was served. `well`: nothing goes wrong any more."""
        accounts, model = self.pool.accounts, self.rng.choice((SONNET, OPUS))
        asked = ask(self.rng.choice(("ann", "bob")), self.rng.choice((None, "s-1", "s-2")), model)
        decision = accounts.select(asked)
        if decision.account is None:
            at = decision.retry_at
            assert at is None or self.pool.clock.now <= at <= self.pool.clock.now + LONGEST_S, at
            assert at is not None or decision.refused.keys() <= _ENDLESS, "nobody serves, and no end is told"
            return False
        chosen = decision.account
        assert chosen not in self.stopped, "a stopped account was asked"
        accounts.begin(chosen, model, Operation.MESSAGES)
        if well or self.rng.random() < 0.4:
            accounts.bind(asked, chosen)
            accounts.succeed(chosen, model, Operation.MESSAGES, self.rng.choice((None, 0.1, 9.0)))
        else:
            accounts.fail(chosen, self._fault(model), model, Operation.MESSAGES)
        accounts.end(chosen)
        return True

    def _fault(self, model: str) -> Fault:
        kind, now = self.rng.choice(PASSING), self.pool.clock.now
        scope = self.rng.choice((OF_ACCOUNT, OF_REQUEST, OF_PROVIDER, ModelScope(model)))
        told = self.rng.choice((None, now - 5, now + 1, now + 77, now + 5 * 3600, now + 400 * DAY))
        return Fault(kind, scope, told, status=429, bare=self.rng.random() < 0.5)

    def look(self) -> None:
        """A usage answer tells windows."""
        seen = [window(self.rng.choice((0.0, 50.0, 99.0, 100.0)), self.rng.choice((None, 60.0, 3e5)))]
        self.pool.accounts.observe(self.rng.choice(self.ids()), seen)

    def wait(self) -> None:
        seconds = self.rng.choice((0.1, 1.0, 30.0, 3600.0, 2 * DAY, -2 * DAY, -30.0))
        self.pool.clock.now += seconds
        self.set_back |= seconds < 0

    def stop(self) -> None:
        """A provider suspends an account."""
        account = self.rng.choice(self.ids())
        self.pool.accounts.fail(account, Fault(FaultKind.SUSPENDED, OF_ACCOUNT), SONNET, Operation.MESSAGES)
        self.stopped.add(account)

    def restart(self) -> None:
        before = self._states()
        self.pool.again()
        after = self._states()
        assert self.set_back or after == before, "a restart changed what was learnt"
        assert all(after[account] == "suspended" for account in self.stopped)

    def _states(self) -> dict[str, str]:
        return {account: self.pool.state(account) for account in self.ids()}

    def ids(self) -> list[str]:
        return [row.id for row in self.pool.accounts.describe_all()]

    def finish(self) -> None:
        """Nothing goes wrong any more: whoever waits as long as is told is served, before long."""
        for _ in range(200):
            if len(self.stopped) == len(FILES) or self.request(well=True):
                break
            at = self.pool.accounts.select(ask("ann", None, SONNET)).retry_at
            self.pool.clock.now = self.pool.clock.now + 3600.0 if at is None else max(self.pool.clock.now + 1.0, at)
        else:
            raise AssertionError("nobody serves again")
        assert all(row.in_flight == 0 for row in self.pool.accounts.describe_all())
        self.pool.store.close()


def simulate(folder: Path, seed: int) -> None:
    """One history. Raises AssertionError where the model does not hold."""
    history = History(folder, seed)
    for _ in range(STEPS):
        history.step()
    history.finish()
