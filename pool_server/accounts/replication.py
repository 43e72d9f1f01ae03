"""Live state in the state store: write-through, and a change feed that other workers follow.

Each account's `AccountHealth` is one record. With several workers a change is made on the record as the store has it,
within the transaction, so that no worker undoes another's.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

import msgspec

from pool_server.accounts.health.state import AccountHealth
from pool_server.accounts.ports import Learning, LiveBookPort, StateChange
from pool_server.core import processes
from pool_server.providers import Credential
from pool_server.storage import StoreError, Txn
from pool_server.storage.change_feed import ChangeFeed, append
from pool_server.storage.write_behind import WriteBehind

HEALTH, LOG, META, FLIGHT = "account_live", "account_log", "account_meta", "account_flight"
SPENT = "spent_tokens"
TABLES = (HEALTH, LOG, META, FLIGHT, SPENT)
SPENT_S = 180 * 86400.0  # so long a traded refresh token is remembered
SWEEP_LIMIT = 500
_spent_at = struct.Struct(">d")
LOG_KEPT = 4096
_LOCK = b"lock"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(AccountHealth).decode
_counts = msgspec.msgpack.Decoder(dict[str, int]).decode


_CHANGES = frozenset(change.value for change in StateChange)


class Replication(LiveBookPort):
    """The state store as accounts use it. `many`: other workers share it, always or for as long as `share` says."""

    far = False

    def __init__(self, store: WriteBehind, *, many: bool) -> None:
        self.notes = self._store = store
        self.many = self._many = many
        self._beside = 0  # servers that share it for a while
        self._worker = processes.name().encode()
        self._feed = ChangeFeed(store, LOG)
        self._published: dict[str, int] = {}
        self._swept_to = b""

    async def start(self) -> None:
        """The store is read when it is asked."""

    def load(self, account: Learning) -> bool:
        """Take an account's record from the store; False when there is none."""
        raw = self._store.get(HEALTH, account.id.encode())
        health = _read(raw)
        if health is None:
            return False
        account.health = health
        return True

    def update(self, account: Learning, change: Callable[[AccountHealth], bool]) -> bool:
        """Change an account's record through; True (and written) when `change` says that it changed anything. It may
        be asked twice: most often nothing changes, and then no worker has to wait for another's transaction."""
        key = account.id.encode()
        if self.many and not self._store.owes(HEALTH, key):
            health = _read(self._store.get(HEALTH, key))
            if health is not None and not change(health):
                account.health = health
                return False
            try:
                account.health, changed, number = self._store.write(lambda txn: self._update(txn, account, change))
            except StoreError:
                pass  # told by the store; memory is the truth until it recovers
            else:
                self._feed.made(number)
                return changed
        changed = change(account.health)
        if changed:
            self._store.put(HEALTH, key, _encode(account.health))
            self.announce(StateChange.HEALTH, account.id)
        return changed

    async def agreed(self, account: Learning, change: Callable[[AccountHealth], bool]) -> bool:
        return self.update(account, change)

    def _update(
        self, txn: Txn, account: Learning, change: Callable[[AccountHealth], bool]
    ) -> tuple[AccountHealth, bool, int]:
        """(the record, whether it changed, the number of its log entry or 0)"""
        key = account.id.encode()
        raw = txn.get(HEALTH, key)
        there = _read(raw)
        if there is None and raw is not None and self._beside:
            return account.health, change(account.health), 0  # a newer program's, which goes on: it stays as it is
        health = there or (AccountHealth() if raw is not None else _decode(_encode(account.health)))
        changed, number = change(health), 0
        if changed or raw is None:
            txn.put(HEALTH, key, _with_unknown(health, raw) if raw and self._beside else _encode(health))
            number = self._log(txn, StateChange.HEALTH, account.id)
        return health, changed, number

    def _log(self, txn: Txn, change: StateChange, account_id: str) -> int:
        return append(txn, LOG, change.value + self._worker + b" " + account_id.encode(), most=LOG_KEPT)

    def announce(self, change: StateChange, account_id: str) -> None:
        """Tell the other workers of something they cannot read in the record."""
        if self.many:
            key = change.value + account_id.encode()
            self._store.owe(LOG, key, lambda txn: self._log(txn, change, account_id))

    def news(self) -> list[tuple[StateChange, str]] | None:
        """What other workers changed since the last call; None when too much did and all must be read anew."""
        if not self.many:
            return []
        found: dict[tuple[StateChange, str], None] = {}
        missed = False
        for entry in self._feed.news():
            if entry is None:
                missed = True
                continue
            worker, _, account_id = entry[1:].partition(b" ")
            if worker != self._worker and entry[:1] in _CHANGES:  # a newer program beside this one may tell of others
                found[(StateChange(entry[:1]), account_id.decode())] = None
        return None if missed else list(found)

    def locked(self) -> str | None:
        """The account the operator locked the pool to at run time: "" = none; None = the settings decide."""
        raw = self._store.get(META, _LOCK)
        return None if raw is None else raw.decode()

    def lock(self, account_id: str) -> None:
        self._store.put(META, _LOCK, account_id.encode())
        self.announce(StateChange.LOCK, "")

    def own_file(self, account_id: str) -> str:
        """The digest of the content the pool itself wrote last into this account's file, "" for none."""
        return (self._store.get(META, b"file:" + account_id.encode()) or b"").decode()

    def note_own_file(self, account_id: str, digest: str) -> None:
        self._store.put(META, b"file:" + account_id.encode(), digest.encode())
        self.announce(StateChange.FILE, account_id)

    def spent_by(self, credential: Credential) -> str:
        """The account that has traded this sign-in's refresh token for a new one, "" for none."""
        key = credential.grant_key
        raw = self._store.get(SPENT, key.encode()) if key else None
        return "" if raw is None else raw[_spent_at.size :].decode()

    def note_spent(self, account_id: str, credential: Credential, now: float) -> None:
        """The account has traded this refresh token for a new one; an old copy of its file must not show it again."""
        if key := credential.grant_key:
            self._store.put(SPENT, key.encode(), _spent_at.pack(now) + account_id.encode())

    async def look_up_spent(self, credentials: Iterable[Credential]) -> None:
        """The store is read when it is asked."""

    def sweep(self, now: float) -> None:
        """Look at the next SWEEP_LIMIT traded tokens and forget those that are older than SPENT_S."""
        seen = self._store.scan(SPENT, self._swept_to, limit=SWEEP_LIMIT) or []
        self._swept_to = seen[-1][0] + b"\0" if len(seen) == SWEEP_LIMIT else b""
        for key, raw in seen:
            if abs(now - _spent_at.unpack_from(raw)[0]) > SPENT_S:
                self._store.delete(SPENT, key)

    def share(self, another: bool) -> None:
        """Another server shares the store from now on, or one that did has ended."""
        if another:
            self._store.settle(now=True)  # it reads what is known here
        self._beside += 1 if another else -1
        self.many = self._many or self._beside > 0
        if not self.many:
            self._store.delete(FLIGHT, self._worker)
            self._published = {}

    def publish(self, counts: dict[str, int]) -> None:
        """Tell the other workers what this one has under way; cheap when nothing changed."""
        if self.many and counts != self._published:
            self._published = counts
            self._store.put(FLIGHT, self._worker, _encode(counts))

    def elsewhere(self) -> dict[str, int]:
        """What the other living workers have under way, summed by account; dead workers' counts are dropped."""
        total: dict[str, int] = {}
        if not self.many:
            return total
        for worker, raw in self._store.scan(FLIGHT) or []:
            if worker == self._worker:
                continue
            if not processes.alive(worker.decode()):
                self._store.delete(FLIGHT, worker)
                continue
            for account_id, n in _counts(raw).items():
                total[account_id] = total.get(account_id, 0) + n
        return total

    async def flush(self) -> None:
        """A change is written before it returns."""

    async def close(self) -> None:
        self._store.settle(now=True)
        if self.many:
            self._store.delete(FLIGHT, self._worker)

    def settle(self) -> None:
        """Write what a failing store could not take, if it can now."""
        self._store.settle()


def _with_unknown(health: AccountHealth, before: bytes) -> bytes:
    """The record as it is written, with the fields that only the program which wrote it `before` knows."""
    known: dict[str, object] = msgspec.msgpack.decode(_encode(health))
    return _encode(msgspec.msgpack.decode(before) | known)


def _read(raw: bytes | None) -> AccountHealth | None:
    """A record, or None when there is none or another version of the program wrote it in another shape."""
    if raw is None:
        return None
    try:
        return _decode(raw)
    except msgspec.DecodeError:
        return None
