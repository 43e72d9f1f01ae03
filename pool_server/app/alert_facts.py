"""What the alert rules look at and only accounts and users know; it asks little, however large the pool is."""

from __future__ import annotations

from collections.abc import Callable

from pool_server.accounts import Accounts
from pool_server.alerts import AlertFacts, Budget
from pool_server.core.enums import AccountState
from pool_server.core.settings import Limits
from pool_server.ledger import Ledger
from pool_server.users import RefusedError, Users

RECENT_S = 300.0  # longer than the pause between two looks
LONGEST_LIMIT_S = 31 * 86_400.0
MOST_USERS = 1000
_TROUBLE = (AccountState.NEEDS_LOGIN, AccountState.SUSPENDED)
_BUDGETS = tuple(name for name in Limits.__struct_fields__ if name.startswith(("tokens_", "cost_")))


class AlertFactsSource:
    """Called before each look at the facts. It follows what changed instead of walking everything."""

    def __init__(
        self,
        accounts: Accounts,
        users: Users,
        ledger: Ledger,
        *,
        clock: Callable[[], float],
        data_folder: Callable[[], str] = lambda: "",
        certificate: Callable[[], str] = lambda: "",
    ) -> None:
        """`data_folder` tells what is wrong with the data folder, `certificate` with the TLS certificate, "" for
        nothing."""
        self._accounts = accounts
        self._users = users
        self._ledger = ledger
        self._clock = clock
        self._data_folder = data_folder
        self._certificate = certificate
        self._changed = set(accounts.ids())
        self._close: set[str] = set()  # users who were near a limit when last looked at
        accounts.on_change.append(self._changed.add)

    def prime(self) -> None:
        """Find who may be near a limit since before the start. Reads the ledger: for a thread."""
        self._close = self._active(LONGEST_LIMIT_S)

    async def __call__(self) -> AlertFacts:
        return AlertFacts(
            budgets=await self._budgets(),
            accounts=self._troubled(),
            sign_ins_end=self._accounts.sign_ins_end(),
            pool_folder=self._accounts.folder_trouble(),
            data_folder=self._data_folder(),
            certificate=self._certificate(),
        )

    def _troubled(self) -> dict[str, AccountState]:
        """The accounts whose owner must act; the others are of no interest to the rules."""
        found = {}
        for account in self._changed:
            try:
                state = self._accounts.describe(account).state
            except KeyError:
                continue  # removed meanwhile
            if state in _TROUBLE:
                found[account] = state
        self._changed.clear()
        self._changed.update(found)
        return found

    async def _budgets(self) -> tuple[Budget, ...]:
        """The limits of which much is used, of users who used something lately or were near one before."""
        lowest = min(self._ledger.settings.alerts.budget_percent, default=100) / 100
        found: list[Budget] = []
        close = set()
        asked = self._close | await self._ledger.ask(self._active, RECENT_S)
        await self._users.limits.fetch(asked)
        for user in asked:
            budgets = [budget for budget in self._shares(user) if budget.share >= lowest]
            if budgets:
                close.add(user)
                found += budgets
        self._close = close
        return tuple(found)

    def _active(self, seconds: float) -> set[str]:
        now = self._clock()
        return {row.key for row in self._ledger.queries.top("user", now - seconds, now + 1, limit=MOST_USERS)}

    def _shares(self, user: str) -> list[Budget]:
        limits, used, _, _ = self._users.limits.standing(user)
        caps = {name: cap for name in _BUDGETS if (cap := getattr(limits, name))}
        if not caps:
            return []
        try:
            person = str(self._users.people.get(user)["name"])
        except RefusedError:
            return []
        return [Budget(person, name, used.get(name, 0.0) / cap) for name, cap in caps.items()]
