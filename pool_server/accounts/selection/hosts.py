"""Passive health of the ways to the providers: a host, through a proxy or directly.

A way that fails a few times in a row, or is found dead, is set aside for a while: accounts behind it are chosen only
where no other can serve. When the time is over one request tries it; its answer opens the way for all. The only way
there is is never set aside.
"""

from __future__ import annotations

from collections.abc import Callable

from pool_server.accounts.selection.account import Account
from pool_server.accounts.selection.index import SelectionIndex
from pool_server.core.enums import PassiveHealth, Provider

FAILURES = 3  # in a row, with no answer in between
FIRST_S = 5.0  # set aside for so long, twice as long each time …
LONGEST_S = 60.0  # … up to this
TRY_S = 10.0  # the request that tries a way again has told by then


class Way:
    """What is known against one way. `down_until` 0: nothing yet."""

    __slots__ = ("down_until", "failures", "level", "trying_until")

    def __init__(self) -> None:
        self.failures = 0
        self.level = 0
        self.down_until = 0.0
        self.trying_until = 0.0


class Hosts:
    """`clock` gives unix seconds. Ways without a failure are not kept. `told` hears of what is done."""

    def __init__(self, index: SelectionIndex, clock: Callable[[], float]) -> None:
        self._index = index
        self._clock = clock
        self._ways: dict[str, Way] = {}
        self.told: Callable[[Provider, PassiveHealth], object] = lambda *_: None

    def way(self, account_id: str) -> str:
        """The way to an account's provider, "" for an unknown account."""
        account = self._index.accounts.get(account_id)
        return account.way if account is not None else ""

    def reached(self, account_id: str) -> None:
        """The provider answered a request of this account, whatever it said."""
        if self._ways and (name := self.way(account_id)) in self._ways:
            way = self._ways.pop(name)
            if way.down_until:
                self._mark(name, 0.0)
                self.note(account_id, PassiveHealth.REOPENED)

    def unreached(self, account_id: str, *, dead: bool = False) -> None:
        """Nothing came back. `dead`: another call to the same host said nothing either."""
        name, now = self.way(account_id), self._clock()
        if not name:
            return
        way = self._ways.setdefault(name, Way())
        way.failures += 1
        if now < way.down_until and now >= way.trying_until:
            return  # it was under way when the others failed
        tried = way.down_until > 0.0
        if not (dead or tried or way.failures >= FAILURES) or not self._another(name):
            return
        way.down_until = now + min(LONGEST_S, FIRST_S * 2.0**way.level)
        way.trying_until = 0.0
        way.level += 1
        self._mark(name, way.down_until)
        self.note(account_id, PassiveHealth.SET_ASIDE)

    def begun(self, account: Account) -> None:
        """A request to this account begins: over a way whose time is over it is the one that tries it."""
        way = self._ways.get(account.way)
        now = self._clock()
        if way is not None and 0.0 < way.down_until <= now:
            way.down_until = way.trying_until = now + TRY_S
            self._mark(account.way, way.down_until)
            self.note(account.id, PassiveHealth.TRIED)

    def note(self, account_id: str, what: PassiveHealth) -> None:
        """Tell of what was done about the host of an account."""
        account = self._index.accounts.get(account_id)
        if account is not None:
            self.told(account.provider, what)

    def _another(self, name: str) -> bool:
        """Is there an account behind another way?"""
        return any(a.way != name and not a.options.disabled for a in self._index.accounts.values())

    def _mark(self, name: str, until: float) -> None:
        for account in self._index.accounts.values():
            if account.way == name:
                account.unreachable_until = until
                self._index.touch(account)
