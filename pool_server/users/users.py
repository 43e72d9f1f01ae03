"""The room's front: who is let in, how far, and everything people, keys and codes need.

One object a worker. Start-up reads nothing but the end of the change log, whatever the number of people.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from pool_server.config import Settings
from pool_server.records import Usage
from pool_server.store import Store, StoreError
from pool_server.users import counters, names
from pool_server.users.changes import Tail
from pool_server.users.directory import Directory, View
from pool_server.users.keyring import KeyRing
from pool_server.users.model import LOCAL_USER, SEEN, Change, Denied, Principal
from pool_server.users.people import People
from pool_server.users.periods import Calendar, zone
from pool_server.users.reserve import Book, Reservation, Used
from pool_server.users.shares import Shares
from pool_server.users.tokens import load_signer
from pool_server.words import Denial

log = logging.getLogger(__name__)

TAIL_S = 0.25  # how often other workers' changes are looked for
FLUSH_S = 5.0  # how often "last used" is written
SWEEP_S = 60.0  # how often what dead workers left, and what is stale, is cleared

EndListener = Callable[[str | None, str | None], None]

_LOCAL = Principal(LOCAL_USER, "you", admin=True, local=True)
_GONE = Denied(Denial.REVOKED_KEY, "this user is no longer part of the pool", 401)
_STORE = Denied(Denial.STORE, "keys cannot be checked just now; try again in a moment", 503)


class Users:
    """People of the pool, as the rooms above use them."""

    def __init__(
        self,
        settings: Settings,
        ledger_store: Store,
        state: Store,
        *,
        clock: Callable[[], float] = time.time,
        used: Used | None = None,
    ) -> None:
        """`used(user, since)` answers at once with the ledger's sums for that user since unix seconds `since`, a
        mapping with `input`, `cache_read`, `cache_write`, `output` and `cost_usd`; without it counters that are
        missing start at nothing. Raises ValueError (one line) for a secret or time zone that cannot be used."""
        self._settings = settings
        self._store = ledger_store
        self._state = state
        self._clock = clock
        self._signer = load_signer(settings, Path(settings.data_dir))
        self._directory = Directory(ledger_store, settings.limits)
        self._ring = KeyRing(ledger_store, self._directory, self._signer, clock)
        shares = Shares(state, settings.fair_share, self._weight)
        self._shares = shares
        self._book = Book(state, Calendar(zone(settings.ledger.timezone)), shares, clock, used)
        self._tail = Tail(ledger_store, self._apply, self._lost)
        self._people = People(ledger_store, state, self._directory, lambda: self._signer, clock, self._tail.poll)
        self._tasks: list[asyncio.Task[None]] = []
        self.on_end: list[EndListener] = []

        self.create_user = self._people.create_user
        self.patch_user = self._people.patch_user
        self.delete_user = self._people.delete_user
        self.list_users = self._people.list_users
        self.get_user = self._people.get
        self.create_key = self._people.create_key
        self.revoke_key = self._people.revoke_key
        self.list_keys = self._people.list_keys
        self.rotate = self._people.rotate

    def load(self) -> None:
        """Settles what dead workers left behind. Call once before serving."""
        self._book.recover()

    async def start(self) -> None:
        """Begins following other workers' changes and writing what can wait."""
        self._tasks = [
            asyncio.create_task(_every(TAIL_S, self._tail.poll)),
            asyncio.create_task(_every(FLUSH_S, self._flush)),
            asyncio.create_task(_every(SWEEP_S, self._sweep)),
        ]

    async def close(self) -> None:
        """Ends the tasks and writes what was waiting."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        self._flush()

    # Admission: the data plane's part. All of it is synchronous and quick.

    def authenticate(self, token: str | None) -> Principal | Denied:
        """The caller behind a pool key, or why not (401, 403; 503 when the store fails)."""
        try:
            return self._ring.authenticate(token)
        except StoreError as exc:
            log.warning("a key could not be checked: %s", exc)
            return _STORE

    def local_principal(self) -> Principal:
        """The caller in local mode: whoever sits at this machine, with every right and no limits."""
        return _LOCAL

    def reserve(
        self,
        principal: Principal,
        *,
        provider: str,
        model: str,
        tokens: int,
        cost: float | None,
        room: float | None,
    ) -> Reservation | Denied:
        """Takes room under the user's limits for one request, or says which limit is in the way.

        `tokens` is an honest estimate of all tokens of the exchange, `cost` of its price in US dollars (None = not
        known), `room` the provider's room left in percent (None = not known). A reservation must be ended by
        `settle` or `release`.
        """
        if principal.local:
            return Reservation(principal.user, provider)
        try:
            view = self._directory.view(principal.user)
            if view is None or not view.active:
                return _GONE
            denied = _forbidden(view, provider, model) or self._unfair(view, provider, room)
        except StoreError as exc:
            log.warning("limits could not be read: %s", exc)
            return _STORE
        return denied or self._book.reserve(view.id, provider, view.limits, tokens, cost)

    def progress(self, reservation: Reservation, tokens: int, cost: float | None) -> None:
        """The stream has used `tokens` and `cost` so far (sums, not increments)."""
        self._book.progress(reservation, tokens, cost)

    def settle(self, reservation: Reservation, usage: Usage, cost: float | None) -> None:
        """The exchange is over and used this. Only the first `settle` or `release` of a reservation counts."""
        self._book.settle(reservation, usage, cost)

    def release(self, reservation: Reservation) -> None:
        """The exchange is over and nothing was used."""
        self._book.release(reservation)

    def may_force(self, principal: Principal, account_owner: str) -> bool:
        """Whether the caller may choose this account: admins, and the account's owner by user id or name."""
        if principal.admin or principal.local:
            return True
        owner = account_owner.strip()
        return bool(owner) and (owner == principal.user or names.skeleton(owner) == names.skeleton(principal.name))

    def _unfair(self, view: View, provider: str, room: float | None) -> Denied | None:
        until = self._shares.waits_until(provider, view.id, room, self._clock())
        if until is None:
            return None
        message = f"the pool is short of {provider} and you have had more than your share lately; others go first"
        return Denied(Denial.FAIR_SHARE, message, 429, until)

    # What runs in the background

    def _apply(self, change: Change) -> None:
        if change.kind == "secret":
            self._signer = load_signer(self._settings, Path(self._settings.data_dir))
            self._ring.forget_all(self._signer)
            return
        self._directory.forget(change.user)
        self._ring.forget(change.user, change.key)
        if change.kind == "end":
            self._ended(change.user, change.key or None)

    def _ended(self, user: str, key: str | None) -> None:
        for listener in list(self.on_end):
            try:
                listener(user, key)
            except Exception:
                log.exception("a listener failed when access ended")

    def _lost(self) -> None:
        """Changes were dropped before this worker read them: check everybody it remembers again."""
        seen = self._ring.remembered()
        self._directory.forget_all()
        self._ring.forget_all()
        for principal in seen:
            if self._ring.stands(principal.user, principal.key) is not None:
                self._ended(principal.user, principal.key)

    def _flush(self) -> None:
        self._book.settle_waiting()
        used, self._ring.last_used = self._ring.last_used, {}
        if not used:
            return
        people = {user: at for key, at in used.items() if (user := self._people.owner(key))}
        pairs = [("k" + key, at) for key, at in used.items()] + [("u" + user, at) for user, at in people.items()]
        self._state.write(lambda txn: txn.put_many(SEEN, [(what.encode(), b"%.0f" % at) for what, at in pairs]))

    def _sweep(self) -> None:
        self._book.recover()
        self._shares.prune(self._clock())

    def _weight(self, user: str) -> float:
        view = self._directory.view(user)
        return view.weight if view is not None else 1.0


def _forbidden(view: View, provider: str, model: str) -> Denied | None:
    if not counters.provider_allowed(view.limits, provider):
        return Denied(Denial.PROVIDER, f"your access does not include {provider}", 403)
    if not counters.model_allowed(view.limits, model):
        return Denied(Denial.MODEL, f"your access does not include the model {model}", 403)
    return None


async def _every(seconds: float, call: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            call()
        except Exception as exc:
            log.warning("%s failed: %s", getattr(call, "__name__", "a task"), exc)
