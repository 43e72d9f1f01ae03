"""People and their keys: made, changed, ended. Every change is durable, logged for the workers and audited."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

from pool_server.core.deadlines import wait_until
from pool_server.core.enums import Denial
from pool_server.language import gettext as _
from pool_server.storage import Store
from pool_server.users import user_names
from pool_server.users.changes import stored
from pool_server.users.embedded_people import keys_of
from pool_server.users.identity.directory import Directory, checked_groups, checked_limits
from pool_server.users.identity.tokens import Signer
from pool_server.users.models import (
    KEYS,
    NAMES,
    PEOPLE,
    SEEN,
    AuditActor,
    AuditRow,
    Key,
    RefusedError,
    User,
    UserChange,
    bad_value,
    decode_key,
    decode_user,
    id_key,
    not_found,
)
from pool_server.users.ports import Arrival, PeoplePort, Person, Trail

MAX_LABEL = 64
BY_ADMIN = ("admin", "import")  # how somebody came whom an admin knows
MAX_NOTE = 2000
MAX_KEYS = 100  # keys a user; a runaway script must not fill the store
_NOTHING_ELSE = Arrival()
_LAST_END = 253_370_764_800.0  # the year 9999; what comes later is no date


class People:
    """Users and keys: changed through the port, read from this machine's store."""

    def __init__(
        self,
        port: PeoplePort,
        store: Store,
        state: Store,
        directory: Directory,
        signer: Callable[[], Signer],
        clock: Callable[[], float],
        poll: Callable[[], None],
    ) -> None:
        self._port = port
        self._store = store
        self._state = state
        self._directory = directory
        self._signer = signer
        self._clock = clock
        self._poll = poll  # applies changes in this worker at once

    async def create_user(
        self,
        name: str,
        *,
        actor: AuditActor,
        limits: Mapping[str, Any] | None = None,
        note: str = "",
        passphrase_hash: str = "",
        via: str = "admin",
        key_label: str | None = "first key",
        arrival: Arrival = _NOTHING_ELSE,
    ) -> dict[str, Any]:
        """A new person with a first key (`key_label` None = none) → {"id", "name", "key_id", "key"}; it is shown once.

        Raises RefusedError: 400 for a name or limit that will not do, 409 when the name, or one that looks like it, is
        taken, and what the `arrival` is refused for.
        """
        shown = fit_name(name)
        override = checked_limits(dict(limits or {}))
        now = self._clock()
        user = User("u_" + secrets.token_hex(8), shown, now, passphrase_hash, limits=override, via=via)
        user.note = checked_note(note)
        key = Key("k_" + secrets.token_hex(8), user.id, checked_label(key_label or ""), now)
        detail = {"name": shown, "via": via, "limits": override}
        trail = Trail([AuditRow.of(now, actor, "user.create", user.id, detail)])
        person = Person(user, [key] if key_label is not None else [])
        await stored(self._port.create(person, trail, arrival))
        made = {"key_id": key.id, "key": self._token(key)} if key_label is not None else {}
        return {"id": user.id, "name": shown, **made}

    async def patch_user(self, user_id: str, patch: Mapping[str, Any], *, actor: AuditActor) -> dict[str, Any]:
        """Changes `disabled`, `name`, `limits` (replaces the whole override), `note`, `weight`, `groups` → their row.

        Disabling ends the user's sessions and running exchanges. Raises RefusedError: 400, 404, 409.
        """
        checked = _checked_patch(patch)
        now = self._clock()

        def change(person: Person) -> Trail:
            user = person.user
            ends = bool(checked.get("disabled")) and not user.disabled
            for field, value in checked.items():
                setattr(user, field, value)
            user.epoch += ends
            line = AuditRow.of(now, actor, _action(checked, ends), user.id, _shown(checked))
            return Trail([line], [UserChange("end" if ends else "user", now, user.id)])

        await self._change(user_id, change)
        return self.get(user_id)

    async def delete_user(self, user_id: str, *, actor: AuditActor) -> None:
        """Ends a person: keys and sessions go, the name is free again, history keeps the tombstone's name."""
        now = self._clock()

        def change(person: Person) -> Trail:
            user = person.user
            person.keys.clear()
            user.deleted, user.passphrase, user.limits = now, "", {}
            user.epoch += 1
            line = AuditRow.of(now, actor, "user.delete", user.id, {"name": user.name})
            return Trail([line], [UserChange("end", now, user.id)])

        await self._change(user_id, change)

    async def set_passphrase(self, user_id: str, passphrase_hash: str, *, actor: AuditActor) -> None:
        """A new passphrase hash; all sessions of the user end."""
        now = self._clock()

        def change(person: Person) -> Trail:
            person.user.passphrase = passphrase_hash
            return _signed_out(person, now, actor, "user.passphrase")

        await self._change(user_id, change)

    async def end_sessions(self, user_id: str, *, actor: AuditActor) -> None:
        """Signs the user out of every browser. Raises RefusedError 404."""
        now = self._clock()
        await self._change(user_id, lambda person: _signed_out(person, now, actor, "session.end_all"))

    async def create_key(
        self,
        user_id: str,
        label: str = "",
        *,
        actor: AuditActor,
        expires: float | None = None,
        limits: Mapping[str, Any] | None = None,
        replaces: bool = False,
    ) -> dict[str, Any]:
        """A new key → {"id", "key", "label", "expires"}; the key is shown this once. `expires` in unix seconds;
        `limits` are its own, beside the user's.

        `replaces` ends the user's earlier keys of the same label: a set-up that is run again leaves one key.
        """
        now = self._clock()
        key = Key("k_" + secrets.token_hex(8), user_id, checked_label(label), now, _checked_end(expires, now))
        key.limits = _key_limits(limits or {})

        def make(person: Person) -> Trail:
            old = [one for one in person.keys if replaces and one.label == key.label]
            ended = [_end_key(person, one, now, actor) for one in old]
            if len(person.keys) >= MAX_KEYS:
                raise RefusedError(Denial.BAD_VALUE, _("a user has at most {n} keys; revoke some", n=MAX_KEYS), 409)
            person.keys.append(key)
            line = AuditRow.of(now, actor, "key.create", key.id, {"user": user_id, "label": key.label})
            return Trail([*(row for row, _change in ended), line], [change for _row, change in ended])

        await self._change(user_id, make)
        return {"id": key.id, "key": self._token(key), "label": key.label, "expires": expires}

    async def patch_key(self, user_id: str, key_id: str, patch: Mapping[str, Any], *, actor: AuditActor) -> None:
        """Changes `label`, `expires`, `limits` (all of the key's own) and `wait` of one key of that user. Raises
        RefusedError: 400, 404 also for somebody else's key."""
        now = self._clock()
        checks: dict[str, Callable[[Any], Any]] = {
            "label": checked_label,
            "expires": lambda value: _checked_end(value, now),
            "limits": _key_limits,
            "wait": lambda value: _checked_wait(value, now),
        }
        checked = _checked_fields(patch, _KEY_FIELDS, checks)

        def change(person: Person) -> Trail:
            key = _key(person, key_id)
            for field, value in checked.items():
                setattr(key, field, value)
            key.moved = key.moved or "expires" in checked
            line = AuditRow.of(now, actor, "key.change", key.id, {"user": user_id, **checked})
            return Trail([line], [UserChange("user", now, user_id, key.id)])

        await self._change(user_id, change)

    async def revoke_key(self, user_id: str, key_id: str, *, actor: AuditActor) -> None:
        """Ends one key of that user and what runs on it. Somebody else's key answers like a missing one (404)."""
        now = self._clock()

        def change(person: Person) -> Trail:
            line, ended = _end_key(person, _key(person, key_id), now, actor)
            return Trail([line], [ended])

        await self._change(user_id, change)

    async def rotate(self, user_id: str, *, actor: AuditActor) -> dict[str, Any]:
        """Ends all keys of the user and makes one new → {"id", "key", "label"}."""
        now = self._clock()
        fresh = Key("k_" + secrets.token_hex(8), user_id, "rotated", now)

        def change(person: Person) -> Trail:
            old = [key.id for key in person.keys]
            person.keys[:] = [fresh]
            line = AuditRow.of(now, actor, "key.rotate", user_id, {"revoked": old})
            return Trail([line], [UserChange("end", now, user_id, key) for key in old])

        await self._change(user_id, change)
        return {"id": fresh.id, "key": self._token(fresh), "label": fresh.label}

    async def _change(self, user_id: str, change: Callable[[Person], Trail]) -> None:
        await stored(self._port.change(user_id, change))
        self._poll()

    def token(self, key_id: str) -> str | None:
        """The token of a key that still exists: signing the same facts again gives a genuine key."""
        raw = self._store.get(KEYS, id_key(key_id))
        return self._token(decode_key(raw)) if raw is not None else None

    def owner(self, key_id: str) -> str | None:
        """The user id behind a key that still exists."""
        raw = self._store.get(KEYS, id_key(key_id))
        return decode_key(raw).user if raw is not None else None

    def list_keys(self, user_id: str) -> list[dict[str, Any]]:
        """The user's keys, oldest first: {"id", "label", "created", "expires", "last_used", "wait"}; no secrets."""
        with self._store.read() as txn:
            found = keys_of(txn, user_id)
        return [
            {
                "id": key.id,
                "label": key.label,
                "created": key.created,
                "expires": key.expires,
                "last_used": self._seen("k" + key.id),
                "wait": key.wait,
            }
            for key in sorted(found, key=lambda key: (key.created, key.id))
        ]

    def get(self, user_id: str) -> dict[str, Any]:
        """One person's row, also a tombstone's. Raises RefusedError 404."""
        user = self._directory.user(user_id)
        if user is None:
            raise not_found("user")
        return self._row(user)

    def find(self, name: str) -> User | None:
        """The living person of that name."""
        raw = self._store.get(NAMES, id_key(user_names.skeleton(name)))
        return self._directory.user(raw.decode()) if raw is not None else None

    def owner_id(self, said: str) -> str:
        """The user id that the owner written in an account's file stands for, "" for nobody.

        A name counts only for somebody whom an admin brought in: anybody at the door can call themselves anything.
        """
        user = self._directory.user(said)
        if user is not None and user.deleted is None:
            return said
        found = self.find(said)
        return found.id if found is not None and found.via in BY_ADMIN else ""

    def id_of(self, said: str) -> str:
        """The id of the living person that the operator means by an id or a name, "" for nobody."""
        return self.owner_id(said) or str((self.named(said) or {}).get("id", ""))

    def named(self, name: str) -> dict[str, Any] | None:
        """The row of the living person of that name, None when there is nobody."""
        user = self.find(name)
        return self._row(user) if user is not None else None

    def list_users(
        self, *, cursor: str | None = None, limit: int = 200, deleted: bool = False
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Rows in order of id after `cursor`, and the next cursor (None = no more)."""
        rows: list[dict[str, Any]] = []
        start = id_key(cursor) + b"\0" if cursor else b""
        with self._store.read() as txn:
            found = (decode_user(raw) for _id, raw in txn.scan(PEOPLE, start))
            for user in found:
                if user.deleted is None or deleted:
                    rows.append(self._row(user, len(keys_of(txn, user.id))))
                    if len(rows) == limit:
                        return rows, user.id
        return rows, None

    def _row(self, user: User, keys: int | None = None) -> dict[str, Any]:
        state = "deleted" if user.deleted is not None else "disabled" if user.disabled else "active"
        row: dict[str, Any] = {
            "id": user.id,
            "name": user.name,
            "state": state,
            "created": user.created,
            "last_seen": self._seen("u" + user.id),
            "limits": user.limits,
            "note": user.note,
            "via": user.via,
            "weight": user.weight,
            "groups": user.groups,
            "passphrase": bool(user.passphrase),
        }
        if keys is not None:
            row["keys"] = keys
        return row

    def _seen(self, what: str) -> float | None:
        raw = self._state.get(SEEN, what.encode())
        return float(raw) if raw is not None else None

    def _token(self, key: Key) -> str:
        return self._signer().key(key.user, key.id, key.created, key.expires)


def clean_name(name: str) -> str:
    """`user_names.clean`, refusing with 400."""
    try:
        return user_names.clean(name)
    except ValueError as exc:
        raise bad_value(str(exc)) from exc


def fit_name(name: str) -> str:
    """`user_names.fit`, refusing with 400."""
    try:
        return user_names.fit(name)
    except ValueError as exc:
        raise bad_value(str(exc)) from exc


def checked_label(label: str) -> str:
    """A key's label: at most 64 visible characters. Raises RefusedError 400."""
    shown = " ".join(label.split())
    if len(shown) > MAX_LABEL or not shown.isprintable():
        raise bad_value(_("a label has at most {max_label} visible characters", max_label=MAX_LABEL))
    return shown or "key"


def checked_note(note: str) -> str:
    """A note of at most 2,000 characters. Raises RefusedError 400."""
    if len(note) > MAX_NOTE:
        raise bad_value(_("a note has at most {max_note} characters", max_note=MAX_NOTE))
    return note


_Kinds = Mapping[str, type | tuple[type, ...]]
_USER_FIELDS: _Kinds = {
    "disabled": bool, "name": str, "limits": dict, "note": str, "weight": (int, float), "groups": (list, str)
}  # fmt: skip
_KEY_FIELDS: _Kinds = {"label": str, "expires": (int, float, type(None)), "limits": dict, "wait": str}


def _checked_patch(patch: Mapping[str, Any]) -> dict[str, Any]:
    checks: dict[str, Callable[[Any], Any]] = {
        "disabled": bool,
        "name": fit_name,
        "limits": checked_limits,
        "note": checked_note,
        "weight": _checked_weight,
        "groups": checked_groups,
    }
    return _checked_fields(patch, _USER_FIELDS, checks)


def _checked_fields(
    patch: Mapping[str, Any], kinds: _Kinds, checks: Mapping[str, Callable[[Any], Any]]
) -> dict[str, Any]:
    """What a patch says, each field by its check. Raises RefusedError 400, also for a patch that says nothing."""
    checked: dict[str, Any] = {}
    for field, value in patch.items():
        kind = kinds.get(field)
        if kind is None:
            raise bad_value(f"{field!r} cannot be changed; allowed are {', '.join(kinds)}")
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise bad_value(f"{field} has the wrong type")
        checked[field] = checks[field](value)
    if not checked:
        raise bad_value(f"nothing to change; allowed are {', '.join(kinds)}")
    return checked


def _checked_end(expires: float | None, now: float) -> float | None:
    if expires is not None and not now < expires <= _LAST_END:
        raise bad_value(_("a key ends in the future, or never"))
    return expires


def _key_limits(given: Any) -> dict[str, Any]:
    """A key's own limits. One that is None says no more than one that is absent: the user's alone is in effect."""
    return {name: value for name, value in checked_limits(given).items() if value is not None}


def _checked_wait(value: str, now: float) -> str:
    """In the form of `X-Pool-Wait`; "" = its requests are not held."""
    try:
        wait_until(value, now, "UTC")
    except ValueError as wrong:
        raise bad_value(str(wrong)) from None
    return value.strip()


def _checked_weight(value: float) -> float:
    if not 0.01 <= value <= 100:
        raise bad_value(_("weight must be between 0.01 and 100"))
    return float(value)


def _action(checked: Mapping[str, Any], ends: bool) -> str:
    if set(checked) == {"disabled"}:
        return "user.disable" if ends or checked["disabled"] else "user.enable"
    return "user.change"


def _shown(checked: Mapping[str, Any]) -> dict[str, Any]:
    """What the audit log keeps of a patch: a note is the admin's own text and stays out."""
    return {field: "changed" if field == "note" else value for field, value in checked.items()}


def _signed_out(person: Person, now: float, actor: AuditActor, action: str) -> Trail:
    """Every browser session of theirs ends."""
    user = person.user
    user.epoch += 1
    return Trail([AuditRow.of(now, actor, action, user.id)], [UserChange("user", now, user.id)])


def _key(person: Person, key_id: str) -> Key:
    found = next((key for key in person.keys if key.id == key_id), None)
    if found is None:
        raise not_found("key")
    return found


def _end_key(person: Person, key: Key, now: float, actor: AuditActor) -> tuple[AuditRow, UserChange]:
    """One key ends, with what runs on it, and the audit log says so."""
    person.keys.remove(key)
    detail = {"user": key.user, "label": key.label}
    return AuditRow.of(now, actor, "key.revoke", key.id, detail), UserChange("end", now, key.user, key.id)
