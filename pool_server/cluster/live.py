"""`LiveBookPort` over PostgreSQL: what is learnt of accounts counts at once in this process's memory, and is exchanged
by comparison of versions. A change that meets a newer record is made again on that one.

What keeps others off an account (a refusal, a half-open request) is sent at once, what was merely observed with the
next round. While the database is away memory goes on; what it missed is sent when it is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

import msgspec

from pool_server.accounts.health.state import AccountHealth
from pool_server.accounts.ports import Learning, LiveBookPort, StateChange
from pool_server.accounts.replication import SPENT_S
from pool_server.core.tasks import wait_at_most
from pool_server.ledger.ports import NotesPort
from pool_server.providers import Credential
from pool_server.storage.errors import StoreError
from pool_server.storage.postgres.connection import DatabasePool
from pool_server.storage.write_behind import SmallValues

log = logging.getLogger(__name__)

ROUND_S = 0.25
SILENT_S = 20.0  # a node that was not heard of for so long has nothing under way
MOST_WAITING = 400  # changes of one account that are kept to be made again; older ones are in the record they made
AGREE_S = 5.0
_LOCK = "lock/"
_WATCHED = "watched"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(AccountHealth).decode
_Change = Callable[[AccountHealth], bool]


class LivingNode(Protocol):
    """A process as the database knows it. Its number is another one after it was taken for dead."""

    @property
    def id(self) -> int: ...
    @property
    def pool(self) -> DatabasePool: ...


class _Record(NamedTuple):
    """An account's record as the database has it; version 0: it is not there yet."""

    version: int
    body: bytes


class _Waiting(NamedTuple):
    """A change that is not in the database yet, and who waits for it."""

    change: _Change
    told: asyncio.Future[bool] | None = None


class _Notes(SmallValues):
    """Small values, all in memory."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._known: dict[str, bytes] = {}
        self.waiting: dict[str, bytes | None] = {}

    def get(self, table: str, key: bytes) -> bytes | None:
        name = _name(table, key)
        return self.waiting[name] if name in self.waiting else self._known.get(name)

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self._set(_name(table, key), value)

    def delete(self, table: str, key: bytes) -> None:
        self._set(_name(table, key), None)

    def _set(self, name: str, value: bytes | None) -> None:
        self.waiting.pop(name, None)
        self.waiting[name] = value
        self._wake()

    def heard(self, name: str, value: bytes | None) -> None:
        if value is None:
            self._known.pop(name, None)
        else:
            self._known[name] = value


class DatabaseLiveBook(LiveBookPort):
    """What one process knows. `start` comes before anything is loaded."""

    many = far = True

    def __init__(self, node: LivingNode, own: Callable[[str], str] = lambda _: "") -> None:
        """`own`: the digest of an account's credential that the pool itself wrote."""
        self._own = own
        self._node = node
        self._records: dict[str, _Record] = {}
        self._waiting: dict[str, list[_Waiting]] = {}
        self._heard: dict[tuple[StateChange, str], None] = {}
        self._spent: dict[str, str] = {}
        self._to_spend: deque[tuple[str, str, float]] = deque()
        self._upto = 0
        self._counts: dict[str, int] = {}
        self._elsewhere: dict[str, int] = {}
        self._hurry = asyncio.Event()
        self._closing = asyncio.Event()
        self._turn = asyncio.Lock()
        self._following = asyncio.Lock()
        self._away = False
        self._task: asyncio.Task[None] | None = None
        self.notes = self._notes = _Notes(self._hurry.set)

    # -- accounts' records

    def load(self, account: Learning) -> bool:
        record = self._records.get(account.id)
        health = None if record is None else _read(record.body)
        if health is None:
            return False
        for one in self._waiting.get(account.id, ()):
            one.change(health)
        account.health = health
        return True

    def update(self, account: Learning, change: _Change) -> bool:
        return self._update(account, change, None)

    def _update(self, account: Learning, change: _Change, told: asyncio.Future[bool] | None) -> bool:
        health, record = account.health, self._records.get(account.id)
        if record is None:
            record = self._records[account.id] = _Record(0, _encode(health))
        before = _weight(health)
        changed = change(health)
        if not changed:
            return False
        waiting = self._waiting.setdefault(account.id, [])
        waiting.append(_Waiting(change, told))
        if len(waiting) > MOST_WAITING and not self._turn.locked():
            self._make_room(account.id)
        if told is not None or before != _weight(health):
            self._hurry.set()
        return changed

    def _make_room(self, account_id: str) -> None:
        """The older half is made for good: where nobody else has written meanwhile nothing of it is lost."""
        waiting, record = self._waiting[account_id], self._records[account_id]
        if (health := _read(record.body)) is None:
            return
        for one in waiting[: MOST_WAITING // 2]:
            one.change(health)
        self._records[account_id] = record._replace(body=_with_unknown(health, record.body))
        del waiting[: MOST_WAITING // 2]

    async def agreed(self, account: Learning, change: _Change) -> bool:
        told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if not self._update(account, change, told):
            return False
        try:
            async with asyncio.timeout(AGREE_S):
                return await told
        except TimeoutError:
            return True  # nobody can be asked: this process goes by what it knows

    @property
    def hurried(self) -> bool:
        """Whether something waits that is sent at once."""
        return self._hurry.is_set()

    @property
    def waiting(self) -> int:
        """How many changes are not in the database yet."""
        return sum(len(waiting) for waiting in self._waiting.values())

    # -- the exchange

    async def start(self) -> None:
        await self.follow()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while not self._closing.is_set():
            await wait_at_most(self._hurry, ROUND_S)
            self._hurry.clear()
            await self._round()

    async def _round(self) -> None:
        try:
            await self._send()
            await self._fly()
        except StoreError as exc:
            self._failed(exc)
            await wait_at_most(self._closing, ROUND_S)
        except Exception:
            log.exception("exchanging what is known of accounts failed")
        else:
            self._away = False

    def _failed(self, exc: StoreError) -> None:
        if not self._away:
            log.error("what is learnt of accounts stays in this process until the database answers: %s", exc)
        self._away = True
        for waiting in self._waiting.values():
            for one in waiting:
                if one.told is not None and not one.told.done():
                    one.told.set_result(True)

    async def flush(self) -> None:
        try:
            await self._send()
        except StoreError as exc:
            self._failed(exc)

    async def _send(self) -> None:
        async with self._turn:
            await self._send_notes()
            while self._to_spend:
                await self._node.pool.value("select pool.spent_put_1($1, $2, $3)", *self._to_spend[0])
                self._to_spend.popleft()
            while await self._swap():
                pass

    async def _send_notes(self) -> None:
        sent = dict(self._notes.waiting)
        if not sent:
            return
        await self._node.pool.value("select pool.account_notes_put_1($1, $2)", list(sent), list(sent.values()))
        for name, value in sent.items():
            self._notes.heard(name, value)
            if self._notes.waiting.get(name, b"") is value:
                del self._notes.waiting[name]

    async def _swap(self) -> bool:
        """One try to put what waits; True when another one is due."""
        tries: dict[str, tuple[_Record, list[bool], bytes]] = {}
        for account_id, waiting in self._waiting.items():
            record = self._records[account_id]
            health = _read(record.body)
            if health is None:
                continue  # a newer program's record, which is left as it is
            made = [one.change(health) for one in waiting]
            if any(made):
                tries[account_id] = record, made, _with_unknown(health, record.body)
            else:
                self._made(account_id, made)
        self._waiting = {one: waiting for one, waiting in self._waiting.items() if waiting}
        if not tries:
            return False
        rows = await self._node.pool.rows(
            "select * from pool.live_put_1($1, $2, $3)",
            sorted(tries), [tries[one][0].version for one in sorted(tries)], [tries[one][2] for one in sorted(tries)],
        )  # fmt: skip
        again = False
        for row in rows:
            account_id = row["account"]
            record, made, body = tries[account_id]
            if row["put"]:
                if self._records[account_id].version != record.version:
                    self._heard[StateChange.HEALTH, account_id] = None  # what was heard meanwhile has it already
                self._hear(account_id, _Record(row["version"], body), told=False)
                self._made(account_id, made)
            else:
                self._hear(account_id, _Record(row["version"], row["body"]))
                again = True
        return again

    def _made(self, account_id: str, made: list[bool]) -> None:
        """The first changes that waited are in the record; `made`: whether each changed anything there."""
        waiting = self._waiting[account_id]
        for one, changed in zip(waiting, made, strict=False):
            if one.told is not None and not one.told.done():
                one.told.set_result(changed)
        del waiting[: len(made)]

    def _hear(self, account_id: str, record: _Record, *, told: bool = True) -> None:
        known = self._records.get(account_id)
        if known is None or record.version > known.version:
            self._records[account_id] = record
            if told:
                self._heard[StateChange.HEALTH, account_id] = None

    async def follow(self) -> None:
        """Take in what others changed. Raises StoreError."""
        async with self._following:
            upto = self._upto
            for row in await self._node.pool.rows("select * from pool.accounts_news_1($1)", upto):
                match row["kind"]:
                    case "feed":
                        self._upto = max(self._upto, row["upto"])
                    case "live":
                        self._hear(row["name"], _Record(row["version"], row["body"]))
                    case _:
                        self._notes.heard(row["name"], row["body"])
                        if row["name"] == _LOCK:
                            self._heard[StateChange.LOCK, ""] = None

    def news(self) -> list[tuple[StateChange, str]] | None:
        if not self._heard:
            return []
        found, self._heard = list(self._heard), {}
        return found

    def announce(self, change: StateChange, account_id: str) -> None:
        """The rows tell it themselves."""

    # -- the pool's lock, files, traded tokens

    def locked(self) -> str | None:
        raw = self.notes.get("lock", b"")
        return None if raw is None else raw.decode()

    def lock(self, account_id: str) -> None:
        self.notes.put("lock", b"", account_id.encode())

    def own_file(self, account_id: str) -> str:
        return self._own(account_id)

    def note_own_file(self, account_id: str, digest: str) -> None:
        """The credential's row tells it."""

    async def look_up_spent(self, credentials: Iterable[Credential]) -> None:
        marks = [one.grant_key for one in credentials if one.grant_key]
        if marks:
            rows = await self._node.pool.rows("select * from pool.spent_read_1($1)", marks)
            self._spent |= {row["mark"]: row["account"] for row in rows}

    def spent_by(self, credential: Credential) -> str:
        return self._spent.get(credential.grant_key, "")

    def note_spent(self, account_id: str, credential: Credential, now: float) -> None:
        if key := credential.grant_key:
            self._spent[key] = account_id
            self._to_spend.append((key, account_id, now))
            self._hurry.set()

    def sweep(self, now: float) -> None:
        task = asyncio.get_running_loop().create_task(self._sweep(now))
        self._sweeping = task  # a task that nobody holds may be dropped

    async def _sweep(self, now: float) -> None:
        try:
            await self._node.pool.value("select pool.spent_sweep_1($1)", now - SPENT_S)
            await self._node.pool.value("select pool.flight_sweep_1()")
        except StoreError as exc:
            self._failed(exc)

    # -- under way

    def publish(self, counts: dict[str, int]) -> None:
        self._counts = counts

    async def _fly(self) -> None:
        accounts = sorted(self._counts)
        rows = await self._node.pool.rows(
            "select * from pool.flight_1($1, $2, $3, $4)",
            self._node.id, accounts, [self._counts[one] for one in accounts], SILENT_S,
        )  # fmt: skip
        self._elsewhere = {row["account"]: row["n"] for row in rows}

    def elsewhere(self) -> dict[str, int]:
        return self._elsewhere

    # -- life

    def share(self, another: bool) -> None:
        """Everybody shares it as it is."""

    def settle(self) -> None:
        """The rounds do."""

    async def close(self) -> None:
        self._closing.set()
        self._hurry.set()
        if self._task is not None:
            await self._task
        self._counts = {}
        await self._round()


class SharedNotes(NotesPort):
    """Notes that every machine reads in memory."""

    def __init__(self, book: LiveBookPort) -> None:
        self._book = book

    def get(self, place: bytes) -> bytes | None:
        return self._book.notes.get(_WATCHED, place)

    async def put(self, place: bytes, raw: bytes) -> None:
        self._book.notes.put(_WATCHED, place, raw)
        await self._book.flush()


def _name(table: str, key: bytes) -> str:
    return f"{table}/{key.decode()}"


def _weight(health: AccountHealth) -> object:
    """What of a record keeps requests off the account, or lets them come."""
    return health.state, [(scope, one.until, one.probing, one.begun) for scope, one in health.cooldowns.items()]


def _with_unknown(health: AccountHealth, before: bytes) -> bytes:
    """The record as it is written, with the fields that only the program which wrote it `before` knows."""
    known: dict[str, object] = msgspec.msgpack.decode(_encode(health))
    return _encode(msgspec.msgpack.decode(before) | known)


def _read(body: bytes) -> AccountHealth | None:
    try:
        return _decode(body)
    except msgspec.DecodeError:
        return None
