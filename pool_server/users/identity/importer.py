"""People of another pool, taken over: codex-pool's users file once at the start, any pool's by a command.

codex-pool's users file is a JSON list of `{"id", "token", "email", "plan_type", "created_at" (RFC 3339), "disabled"}`;
also read is the same list under "users", or an object of such entries by id. A person gets the name in `name`, else
`email`, and keeps the date and whether access was off. Their old keys go on working where the marks of them are known
(see `imported.aliases`). What cannot be understood is skipped and audited; nothing else of the file is kept.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from pool_server.storage import Store, Txn
from pool_server.users import user_names
from pool_server.users.changes import append_audit
from pool_server.users.embedded_people import keys_of, put_key
from pool_server.users.identity.imported.aliases import person_mark
from pool_server.users.models import (
    ALIASES,
    META,
    NAMES,
    PEOPLE,
    SERVER,
    Alias,
    AuditActor,
    Key,
    User,
    decode_user,
    encode,
)

log = logging.getLogger(__name__)

MAX_BYTES = 64 << 20
_DONE = b"codex-pool users"
_IDS = b"codex-pool ids"  # done since ids are kept
_LABEL = "from the pool before"


class ImportedUser(msgspec.Struct, frozen=True):
    """One person of another pool, or why they were skipped (`where` names the entry). `marks` lead to their old keys,
    which end at `expires` (unix seconds); `limits` are checked ones."""

    where: str
    name: str = ""
    created: float | None = None
    disabled: bool = False
    skipped: str = ""
    marks: tuple[bytes, ...] = ()
    expires: float | None = None
    limits: dict[str, Any] = {}


class TakenUser(msgspec.Struct, frozen=True):
    """What came of one entry: the person's id, or "" and why not."""

    entry: ImportedUser
    user: str = ""
    why: str = ""


def read(raw: bytes) -> list[ImportedUser]:
    """The entries of a users file. Raises ValueError (one line) when it is no such file at all."""
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise ValueError("it is not JSON") from exc
    if isinstance(data, dict):
        data = data.get("users", data)
    if isinstance(data, dict):
        data = [{"id": ident, **entry} if isinstance(entry, dict) else entry for ident, entry in data.items()]
    if not isinstance(data, list):
        raise ValueError("it holds no list of users")
    return [_entry(f"entry {number}", entry) for number, entry in enumerate(data, 1)]


def _entry(where: str, entry: Any) -> ImportedUser:
    if not isinstance(entry, dict):
        return ImportedUser(where, skipped="not an object")
    given = entry.get("name") or entry.get("email")
    if not isinstance(given, str):
        return ImportedUser(where, skipped="neither name nor email")
    try:
        name = user_names.clean(given)
    except ValueError as exc:
        return ImportedUser(where, skipped=str(exc))
    ident = entry.get("id")
    marks = (person_mark(ident),) if isinstance(ident, str) and ident else ()
    disabled = entry.get("disabled") not in (None, False)  # whatever else it says, it does not say that they may
    return ImportedUser(where, name, _time(entry.get("created_at")), disabled, marks=marks)


def _time(value: Any) -> float | None:
    try:
        return datetime.fromisoformat(value).timestamp() if isinstance(value, str) else None
    except (ValueError, OverflowError, OSError):
        return None


def import_once(store: Store, path: Path, now: float) -> int:
    """Takes the file over unless that has been done; how many people came. A bad file stops nothing. Where it was done
    before ids were kept, the people who came then get theirs."""
    if store.get(META, _IDS) is not None or not path.is_file():
        return 0
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError("it is too large")
        found = read(path.read_bytes())
    except (OSError, ValueError) as exc:
        log.warning("pool_users.storage_path: %s was not imported: %s", path, exc)
        return 0
    return store.write(lambda txn: _once(txn, found, now))


def _once(txn: Txn, found: list[ImportedUser], now: float) -> int:
    if not txn.put_new(META, _IDS, b"%.0f" % now):
        return 0  # another worker was first
    taken = take(txn, found, now, SERVER, only_known=not txn.put_new(META, _DONE, b"%.0f" % now))
    return sum(not one.why for one in taken)


def take(
    txn: Txn, found: list[ImportedUser], now: float, actor: AuditActor, *, only_known: bool = False
) -> list[TakenUser]:
    """Add people and their old keys; what came of each. `only_known`: only keys of people who came before."""
    rows = []
    for entry in found:
        row = TakenUser(entry, why=entry.skipped) if entry.skipped else _add(txn, entry, now, only_known)
        rows.append(row)
        if row.why:
            append_audit(txn, now, actor, "import.skip", entry.where, {"name": entry.name, "why": row.why})
    skipped = sum(bool(row.why) for row in rows)
    append_audit(txn, now, actor, "import.users", "", {"taken": len(rows) - skipped, "skipped": skipped})
    return rows


class _UndoneError(Exception):
    """Ends a transaction of which nothing is to be kept."""


def planned(store: Store, found: list[ImportedUser], now: float) -> list[TakenUser]:
    """What `take` would make of these people; nothing is kept."""
    rows: list[TakenUser] = []

    def undone(txn: Txn) -> None:
        rows.extend(take(txn, found, now, SERVER))
        raise _UndoneError

    with contextlib.suppress(_UndoneError):
        store.write(undone)
    return rows


def _add(txn: Txn, entry: ImportedUser, now: float, only_known: bool) -> TakenUser:
    if any(txn.get(ALIASES, mark) is not None for mark in entry.marks):
        return TakenUser(entry, why="this key, or this person, came over before")
    try:
        name = user_names.clean(entry.name)
    except ValueError as exc:
        return TakenUser(entry, why=str(exc))
    known = txn.get(NAMES, user_names.skeleton(name).encode())
    if known is not None:
        user = _without_key(txn, known)
        if user is None or not entry.marks:
            return TakenUser(entry, why="the name, or one that looks like it, is taken")
    elif only_known:
        return TakenUser(entry, why="they did not come over when this file was imported")
    else:
        user = User("u_" + secrets.token_hex(8), name, entry.created or now, via="import", limits=entry.limits)
        user.disabled = entry.disabled
        txn.put(NAMES, user_names.skeleton(name).encode(), user.id.encode())
        txn.put(PEOPLE, user.id.encode(), encode(user))
    if entry.marks:
        key = Key("k_" + secrets.token_hex(8), user.id, _LABEL, now, entry.expires, list(entry.marks))
        put_key(txn, key)
        for mark in entry.marks:
            txn.put(ALIASES, mark, encode(Alias(key.id)))
    return TakenUser(entry, user.id)


def _without_key(txn: Txn, user_id: bytes) -> User | None:
    """A person who came from another pool and whose old keys did not."""
    raw = txn.get(PEOPLE, user_id)
    user = decode_user(raw) if raw is not None else None
    if user is None or user.via != "import" or any(key.aliases for key in keys_of(txn, user.id)):
        return None
    return user
