"""codex-pool's users, taken over once.

Its users file is a JSON list of `{"id", "token", "email", "plan_type", "created_at" (RFC 3339), "disabled"}`; also
read is the same list under "users", or an object of such entries by id. A person gets the name in `name`, else
`email`, and keeps the date and whether access was off. Their old tokens do not work here: an admin hands out new
keys. What cannot be understood is skipped and audited; nothing else of the file is kept.
"""

from __future__ import annotations

import json
import logging
import secrets
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from pool_server.storage import Store, Txn
from pool_server.users.changes import append_audit
from pool_server.users.identity import names
from pool_server.users.models import META, NAMES, PEOPLE, SERVER, User, encode

log = logging.getLogger(__name__)

MAX_BYTES = 64 << 20
_DONE = b"codex-pool users"


class ImportedUser(msgspec.Struct, frozen=True):
    """One entry of the file: a person, or why it was skipped (`where` names it)."""

    where: str
    name: str = ""
    created: float | None = None
    disabled: bool = False
    skipped: str = ""


def read(raw: bytes) -> list[ImportedUser]:
    """The entries of a users file. Raises ValueError (one line) when it is no such file at all."""
    try:
        data = json.loads(raw)
    except ValueError as exc:
        raise ValueError("it is not JSON") from exc
    if isinstance(data, dict):
        data = data.get("users", data)
    if isinstance(data, dict):
        data = list(data.values())
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
        name = names.clean(given)
    except ValueError as exc:
        return ImportedUser(where, skipped=str(exc))
    return ImportedUser(where, name, _time(entry.get("created_at")), entry.get("disabled") is True)


def _time(value: Any) -> float | None:
    try:
        return datetime.fromisoformat(value).timestamp() if isinstance(value, str) else None
    except (ValueError, OverflowError, OSError):
        return None


def import_once(store: Store, path: Path, now: float) -> int:
    """Takes the file over unless that has been done; how many people came. A bad file stops nothing."""
    if store.get(META, _DONE) is not None or not path.is_file():
        return 0
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError("it is too large")
        found = read(path.read_bytes())
    except (OSError, ValueError) as exc:
        log.warning("pool_users.storage_path: %s was not imported: %s", path, exc)
        return 0
    return store.write(lambda txn: _take(txn, found, now))


def _take(txn: Txn, found: list[ImportedUser], now: float) -> int:
    if not txn.put_new(META, _DONE, b"%.0f" % now):
        return 0  # another worker was first
    taken = 0
    for entry in found:
        why = entry.skipped or _add(txn, entry, now)
        taken += not why
        if why:
            append_audit(txn, now, SERVER, "import.skip", entry.where, {"name": entry.name, "why": why})
    append_audit(txn, now, SERVER, "import.users", "", {"taken": taken, "skipped": len(found) - taken})
    return taken


def _add(txn: Txn, entry: ImportedUser, now: float) -> str:
    """Adds a person; why not, "" when it was done."""
    user = User("u_" + secrets.token_hex(8), entry.name, entry.created or now, via="import")
    user.disabled = entry.disabled
    if not txn.put_new(NAMES, names.skeleton(entry.name).encode(), user.id.encode()):
        return "the name, or one that looks like it, is taken"
    txn.put(PEOPLE, user.id.encode(), encode(user))
    return ""
